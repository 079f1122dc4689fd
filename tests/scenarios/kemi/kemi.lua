-- One request, one function: the user part names it, the reply carries its return code and the URI after it.

local functions = {
	lookup_uri = function() return KSR.locus.lookup_uri("sip:alice@example.net") end,
	route = function() return KSR.locus.route() end,
	route_number = function() return KSR.locus.route_number("+49 30-1234") end,
	peer = function() return KSR.locus.peer() end,
}

-- Ways to change the Request-URI between what the module does before the script and the look-up. Each ends at alice.
local rewrites = {
	rewritten_whole = function() KSR.seturi("sip:alice@example.net") end,
	rewritten_user = function() KSR.setuser("alice") end,
	rewritten_variable = function() KSR.pv.sets("$ru", "sip:alice@example.net") end,
	rewritten_user_variable = function() KSR.pv.sets("$rU", "alice") end,
	-- In place: the text that was looked up makes room for one of its length.
	rewritten_twice = function()
		KSR.seturi("sip:nobod@example.net")
		if KSR.locus.lookup() == -1 then
			KSR.seturi("sip:alice@example.net")
		end
	end,
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
	if rewrites[user] then
		rewrites[user]()
		rc = KSR.locus.lookup()
	elseif functions[user] then
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
