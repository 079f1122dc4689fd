-- One request, one function: the user part names it, the reply carries its return code and the URI after it.

local functions = {
	lookup_uri = function() return KSR.locus.lookup_uri("sip:alice@example.net") end,
	route = function() return KSR.locus.route() end,
	route_number = function() return KSR.locus.route_number("+49 30-1234") end,
	peer = function() return KSR.locus.peer() end,
}

function ksr_request_route()
	if KSR.is_method("REGISTER") then
		KSR.locus.save()
		return
	end
	local user = KSR.pv.gete("$rU")
	local rc
	if user == "" then
		KSR.sl.sl_send_reply(200, "Alive")
		return
	end
	if functions[user] then
		rc = functions[user]()
	elseif string.match(user, "^%d+$") and KSR.locus.emergency() == 1 then
		rc = "emergency"
	elseif string.match(user, "^%d+$") then
		rc = KSR.locus.route()
	else
		rc = KSR.locus.lookup()
	end
	KSR.sl.sl_send_reply(299, "rc=" .. rc .. " " .. KSR.pv.gete("$ru") .. " " .. KSR.pv.gete("$du"))
end
