-- Wireshark dissector of Locus: messages between locsvc and locus-agent (TCP, where `insecure = true`
-- leaves them readable) and LRM, the datagrams of the multicast group (UDP; the header is always in the
-- clear, the payload is sealed). What the bytes mean is written in proto/README.md.
--
--   tshark -X lua_script:locus.lua -r capture.pcap -Y 'locus || locus_lrm'
--
-- or copy this file to Wireshark's folder of personal Lua plugins (Help, About, Folders). Both protocols
-- are found by their first bytes, "LOCU" and "LM"; where a capture begins in the middle of a conversation,
-- ports may be named in the preferences: -o locus.tcp_ports:5800 -o locus_lrm.udp_ports:5801.
--
-- SPDX-License-Identifier: GPL-2.0-or-later

local ENVELOPE_BYTES = 12
local BODY_BYTES_MAX = 512 * 1024
local LRM_HEADER_BYTES = 32
local LRM_SEAL_BYTES = 16
local LRM_BYTES_MAX = 1400

local KINDS = {
    [1] = "Hello", [2] = "Welcome", [3] = "Rejection", [4] = "Frame", [5] = "SnapshotBegin",
    [6] = "SnapshotPart", [7] = "SnapshotEnd", [8] = "Heartbeat", [9] = "Status", [10] = "Register",
    [11] = "Registered", [12] = "AuditAsk", [13] = "AuditSums", [14] = "AuditRecords",
    [15] = "AuditRefused", [16] = "AuditOrder", [17] = "AuditReport", [18] = "GroupOffer",
    [19] = "GroupKey", [20] = "GroupHeard", [21] = "GroupCut", [22] = "GroupEnd", [23] = "GroupLeft",
}
local FRAME_KINDS = { [1] = "changes", [2] = "epoch" }
local PLANS = {
    [0] = "continue", [1] = "reload: no table", [2] = "reload: epoch unknown", [3] = "reload: lost tail",
    [4] = "reload: above the master", [5] = "reload: too far behind", [7] = "reload: asked for",
}
local STATES = {
    [1] = "loading", [2] = "resync", [3] = "coherent", [4] = "stale", [5] = "inconsistent", [6] = "draining",
}
local TRANSPORTS = { [0] = "auto", [1] = "multicast", [2] = "unicast", [3] = "bus" }
local END_REASONS = { [1] = "lagging", [2] = "rotated", [3] = "unicast" }
local LEFT_REASONS = {
    [1] = "silent", [2] = "gone", [3] = "overrun", [4] = "mistrusted", [5] = "asked", [6] = "unable",
}
local LRM_KINDS = {
    [1] = "DATA", [2] = "BEAT", [3] = "CONFIRM", [4] = "GONE", [5] = "NACK", [6] = "STATUS",
}

-- Messages of the conversation ----------------------------------------------------------------------

local locus = Proto("locus", "Locus location service")

local f = {
    version = ProtoField.uint8("locus.version", "Version"),
    kind = ProtoField.uint8("locus.kind", "Kind", base.DEC, KINDS),
    flags = ProtoField.uint16("locus.flags", "Flags", base.HEX),
    length = ProtoField.uint32("locus.length", "Body length"),
    body = ProtoField.bytes("locus.body", "Body"),
    cluster = ProtoField.string("locus.cluster", "Cluster"),
    name = ProtoField.string("locus.name", "Name"),
    sip = ProtoField.string("locus.sip", "SIP address"),
    node = ProtoField.uint16("locus.node", "Node"),
    boot = ProtoField.uint64("locus.boot", "Boot id", base.HEX),
    newest = ProtoField.uint8("locus.newest", "Newest version spoken"),
    agreed = ProtoField.uint8("locus.agreed", "Agreed version"),
    transport = ProtoField.uint8("locus.transport", "Transport", base.DEC, TRANSPORTS),
    has_position = ProtoField.bool("locus.has_position", "Has position"),
    epoch = ProtoField.uint64("locus.epoch", "Epoch"),
    epoch_id = ProtoField.bytes("locus.epoch_id", "Epoch id"),
    level = ProtoField.uint64("locus.level", "Level"),
    root = ProtoField.bytes("locus.root", "Root"),
    plan = ProtoField.uint8("locus.plan", "Plan", base.DEC, PLANS),
    time = ProtoField.uint64("locus.time", "Service time, ms"),
    reason = ProtoField.string("locus.reason", "Reason"),
    frame_kind = ProtoField.uint8("locus.frame.kind", "Frame kind", base.DEC, FRAME_KINDS),
    shard = ProtoField.uint16("locus.frame.shard", "Shard"),
    count = ProtoField.uint32("locus.count", "Records"),
    from = ProtoField.uint64("locus.frame.from", "From level"),
    to = ProtoField.uint64("locus.frame.to", "To level"),
    root_before = ProtoField.bytes("locus.frame.root_before", "Root before"),
    root_after = ProtoField.bytes("locus.frame.root_after", "Root after"),
    records = ProtoField.uint64("locus.records", "Records"),
    state = ProtoField.uint8("locus.state", "State", base.DEC, STATES),
    lag = ProtoField.uint64("locus.lag_ms", "Lag, ms"),
    ticket = ProtoField.uint64("locus.ticket", "Ticket"),
    stream = ProtoField.uint64("locus.group.stream", "Stream", base.HEX),
    group4 = ProtoField.ipv4("locus.group.address", "Group"),
    group6 = ProtoField.ipv6("locus.group.address6", "Group"),
    group_port = ProtoField.uint16("locus.group.port", "Group port"),
    reply_port = ProtoField.uint16("locus.group.reply_port", "Reply port"),
    key_id = ProtoField.uint8("locus.group.key", "Key id"),
    secret = ProtoField.none("locus.group.secret", "Keys (secret)"),
    cut = ProtoField.uint64("locus.group.cut", "First datagram"),
    end_reason = ProtoField.uint8("locus.group.end_reason", "Reason", base.DEC, END_REASONS),
    left_reason = ProtoField.uint8("locus.group.left_reason", "Reason", base.DEC, LEFT_REASONS),
}
locus.fields = f

local e_strange = ProtoExpert.new("locus.strange", "Not the beginning of a message", expert.group.MALFORMED,
    expert.severity.ERROR)
local e_short = ProtoExpert.new("locus.short", "Body shorter than its kind needs", expert.group.MALFORMED,
    expert.severity.ERROR)
locus.experts = { e_strange, e_short }

-- Reads a body from front to back; a read beyond the end sets `short` and yields nothing.
local Reader = {}
Reader.__index = Reader

function Reader.new(tvb, tree)
    return setmetatable({ tvb = tvb, tree = tree, at = 0, short = false }, Reader)
end

function Reader:range(bytes)
    if self.short or self.at + bytes > self.tvb:len() then
        self.short = true
        return nil
    end
    local range = self.tvb(self.at, bytes)
    self.at = self.at + bytes
    return range
end

function Reader:field(field, bytes)
    local range = self:range(bytes)
    if range then self.tree:add_le(field, range) end
    return range
end

-- A number of up to 32 bits, or nothing.
function Reader:number(field, bytes)
    local range = self:field(field, bytes)
    return range and range:le_uint()
end

function Reader:u64(field)
    local range = self:field(field, 8)
    return range and range:le_uint64()
end

function Reader:text(field)
    local length = self:range(2)
    local range = length and self:range(length:le_uint())
    if not range then return nil end
    self.tree:add(field, range, range:string(ENC_UTF_8))
    return range:string(ENC_UTF_8)
end

function Reader:position()
    self:field(f.epoch, 8)
    self:field(f.epoch_id, 16)
    local level = self:u64(f.level)
    self:field(f.root, 16)
    return level
end

-- What follows the part that is shown field by field.
function Reader:rest()
    local bytes = self.tvb:len() - self.at
    if bytes > 0 then self:field(f.body, bytes) end
end

-- Each returns what the info column says beside the kind, or nothing.
local BODIES = {}

BODIES[1] = function(r)
    r:text(f.cluster)
    local name = r:text(f.name)
    r:text(f.sip)
    r:field(f.node, 2)
    r:field(f.boot, 8)
    r:field(f.newest, 1)
    r:field(f.transport, 1)
    local level = r:number(f.has_position, 1) == 1 and r:position()
    if not name then return nil end
    return level and string.format("%s at %s", name, level) or name
end

BODIES[2] = function(r)
    r:field(f.agreed, 1)
    local plan = r:number(f.plan, 1)
    r:u64(f.time)
    r:field(f.secret, 16)
    local level = r:position()
    r:rest()
    return level and string.format("%s, head %s", PLANS[plan] or "?", level)
end

BODIES[3] = function(r) return r:text(f.reason) end

BODIES[4] = function(r)
    local kind = r:number(f.frame_kind, 1)
    r:range(1)
    r:field(f.shard, 2)
    r:field(f.count, 4)
    r:field(f.epoch, 8)
    r:field(f.epoch_id, 16)
    local from, to = r:u64(f.from), r:u64(f.to)
    r:field(f.root_before, 16)
    r:field(f.root_after, 16)
    r:u64(f.time)
    r:rest()
    return to and string.format("%s %s..%s", FRAME_KINDS[kind] or "?", from, to)
end

BODIES[5] = function(r)
    local level = r:position()
    r:u64(f.records)
    r:rest()
    return level and string.format("at %s", level)
end

BODIES[6] = function(r)
    local count = r:number(f.count, 4)
    r:rest()
    return count and string.format("%d records", count)
end

BODIES[7] = function(r)
    local level = r:u64(f.level)
    r:field(f.root, 16)
    return level and string.format("at %s", level)
end

BODIES[8] = function(r)
    r:u64(f.time)
    local level = r:position()
    r:rest()
    return level and string.format("head %s", level)
end

BODIES[9] = function(r)
    local level = r:position()
    local state = r:number(f.state, 1)
    r:u64(f.lag)
    r:u64(f.records)
    r:rest()
    return state and string.format("%s at %s", STATES[state] or "?", level)
end

local function ticket(r)
    local number = r:u64(f.ticket)
    r:rest()
    return number and string.format("ticket %s", number)
end
BODIES[10], BODIES[11], BODIES[16], BODIES[17] = ticket, ticket, ticket, ticket

local function level_of(r)
    local level = r:u64(f.level)
    r:rest()
    return level and string.format("at %s", level)
end
BODIES[13], BODIES[14] = level_of, level_of

BODIES[18] = function(r)
    r:field(f.stream, 8)
    local family = r:range(1)
    r:field(f.group_port, 2)
    if family then
        local v6 = family:uint() == 6
        local address = r:range(v6 and 16 or 4)
        -- Addresses stand in network order, unlike all numbers.
        if address then r.tree:add(v6 and f.group6 or f.group4, address) end
    end
    r:field(f.reply_port, 2)
    local key = r:number(f.key_id, 1)
    r:field(f.secret, 96)
    return key and string.format("key %d", key)
end

BODIES[19] = function(r)
    r:field(f.stream, 8)
    local key = r:number(f.key_id, 1)
    r:field(f.secret, 32)
    return key and string.format("key %d", key)
end

BODIES[20] = function(r)
    r:field(f.stream, 8)
    local key = r:number(f.key_id, 1)
    return key and string.format("key %d", key)
end

BODIES[21] = function(r)
    r:field(f.stream, 8)
    local seq = r:u64(f.cut)
    return seq and string.format("from datagram %s", seq)
end

BODIES[22] = function(r)
    r:field(f.stream, 8)
    local reason = r:number(f.end_reason, 1)
    return reason and (END_REASONS[reason] or "?")
end

BODIES[23] = function(r)
    r:field(f.stream, 8)
    local reason = r:number(f.left_reason, 1)
    local level = r:position()
    return level and string.format("%s at %s", LEFT_REASONS[reason] or "?", level)
end

local function is_message(tvb)
    return tvb:len() >= 4 and tvb(0, 4):string() == "LOCU"
end

local function message_length(tvb, _, offset)
    local length = tvb(offset + 8, 4):le_uint()
    if tvb(offset, 4):string() == "LOCU" and length <= BODY_BYTES_MAX then
        return ENVELOPE_BYTES + length
    end
    -- The capture began in the middle of a message, or a segment is missing: the next one may be in sight.
    local rest = tvb:raw(offset)
    local next = string.find(rest, "LOCU", ENVELOPE_BYTES + 1, true)
    return next and next - 1 or #rest
end

local first_of_packet = {}

local function dissect_message(tvb, pinfo, root)
    pinfo.cols.protocol = "Locus"
    local tree = root:add(locus, tvb())
    if not is_message(tvb) then
        tree:add_proto_expert_info(e_strange)
        return tvb:len()
    end
    tree:add(f.version, tvb(4, 1))
    tree:add(f.kind, tvb(5, 1))
    tree:add_le(f.flags, tvb(6, 2))
    tree:add_le(f.length, tvb(8, 4))
    local kind = tvb(5, 1):uint()
    local words = KINDS[kind] or string.format("kind %d", kind)
    if tvb:len() > ENVELOPE_BYTES then
        local reader = Reader.new(tvb(ENVELOPE_BYTES):tvb(), tree)
        local dissect = BODIES[kind]
        local said = dissect and dissect(reader)
        if not dissect then reader:rest() end
        if reader.short then tree:add_proto_expert_info(e_short) end
        if said then words = words .. " " .. said end
    end
    tree:append_text(": " .. words)
    if first_of_packet[pinfo.number] then
        pinfo.cols.info = words
        first_of_packet[pinfo.number] = nil
    else
        pinfo.cols.info:append("; " .. words)
    end
    return tvb:len()
end

local function dissect_stream(tvb, pinfo, root)
    first_of_packet = { [pinfo.number] = true }
    dissect_tcp_pdus(tvb, root, ENVELOPE_BYTES, message_length, dissect_message)
    -- What comes in a second call for the same packet, behind a reassembled message, is put after this.
    if not first_of_packet[pinfo.number] then pinfo.cols.info:append(" ") end
    return tvb:len()
end

locus:register_heuristic("tcp", function(tvb, pinfo, root)
    if not is_message(tvb) then return false end
    -- From here on the whole conversation is ours: a message may begin in the middle of a segment.
    pinfo.conversation = locus
    -- Not locus.dissector: a dissector that calls a registered one may not ask for more segments.
    dissect_stream(tvb, pinfo, root)
    return true
end)

locus.dissector = dissect_stream

-- Datagrams of the group ------------------------------------------------------------------------------

local lrm = Proto("locus_lrm", "Locus LRM (sealed reliable multicast)")

local g = {
    version = ProtoField.uint8("locus_lrm.version", "Version"),
    kind = ProtoField.uint8("locus_lrm.kind", "Kind", base.DEC, LRM_KINDS),
    key = ProtoField.uint8("locus_lrm.key", "Key id"),
    flags = ProtoField.uint8("locus_lrm.flags", "Flags", base.HEX),
    first = ProtoField.bool("locus_lrm.first", "First of a distribution frame", 8, nil, 0x01),
    last = ProtoField.bool("locus_lrm.last", "Last of a distribution frame", 8, nil, 0x02),
    node = ProtoField.uint16("locus_lrm.node", "Node"),
    stream = ProtoField.uint64("locus_lrm.stream", "Stream", base.HEX),
    seq = ProtoField.uint64("locus_lrm.seq", "Sequence number"),
    low = ProtoField.uint64("locus_lrm.low", "Oldest repeated, or first lacking"),
    sealed = ProtoField.bytes("locus_lrm.sealed", "Sealed payload"),
    tag = ProtoField.bytes("locus_lrm.tag", "Tag of the seal"),
}
lrm.fields = g

local e_datagram = ProtoExpert.new("locus_lrm.strange", "Not an LRM datagram of version 1",
    expert.group.MALFORMED, expert.severity.ERROR)
lrm.experts = { e_datagram }

local function is_datagram(tvb)
    return tvb:len() >= LRM_HEADER_BYTES + LRM_SEAL_BYTES
        and tvb:len() <= LRM_BYTES_MAX
        and tvb(0, 2):string() == "LM"
        and tvb(2, 1):uint() == 1
        and LRM_KINDS[tvb(3, 1):uint()] ~= nil
end

local function dissect_datagram(tvb, pinfo, root)
    pinfo.cols.protocol = "LRM"
    local tree = root:add(lrm, tvb())
    if not is_datagram(tvb) then
        tree:add_proto_expert_info(e_datagram)
        return tvb:len()
    end
    tree:add(g.version, tvb(2, 1))
    tree:add(g.kind, tvb(3, 1))
    tree:add(g.key, tvb(4, 1))
    local flags = tree:add(g.flags, tvb(5, 1))
    flags:add(g.first, tvb(5, 1))
    flags:add(g.last, tvb(5, 1))
    tree:add_le(g.node, tvb(6, 2))
    tree:add_le(g.stream, tvb(8, 8))
    tree:add_le(g.seq, tvb(16, 8))
    tree:add_le(g.low, tvb(24, 8))
    local sealed = tvb:len() - LRM_HEADER_BYTES - LRM_SEAL_BYTES
    if sealed > 0 then tree:add(g.sealed, tvb(LRM_HEADER_BYTES, sealed)) end
    tree:add(g.tag, tvb(LRM_HEADER_BYTES + sealed, LRM_SEAL_BYTES))

    local bits, node = tvb(5, 1):uint(), tvb(6, 2):le_uint()
    local words = string.format("%s seq=%s low=%s", LRM_KINDS[tvb(3, 1):uint()], tvb(16, 8):le_uint64(),
        tvb(24, 8):le_uint64())
    if node == 0 then
        words = words .. string.format(" key=%d", tvb(4, 1):uint())
    else
        words = words .. string.format(" node=%d", node)
    end
    if bits % 2 == 1 then words = words .. " first" end
    if bits >= 2 then words = words .. " last" end
    tree:append_text(": " .. words)
    pinfo.cols.info = words
    return tvb:len()
end

lrm:register_heuristic("udp", function(tvb, pinfo, root)
    if not is_datagram(tvb) then return false end
    dissect_datagram(tvb, pinfo, root)
    return true
end)

lrm.dissector = dissect_datagram

-- Ports by preference ---------------------------------------------------------------------------------

local function by_port(proto, table_name, name, words)
    local tables = DissectorTable.get(table_name)
    local ports = ""
    proto.prefs[name] = Pref.range(words, ports, "Found by their first bytes where none is named", 65535)
    return function()
        if ports ~= "" then tables:remove(ports, proto) end
        ports = proto.prefs[name]
        if ports ~= "" then tables:add(ports, proto) end
    end
end

locus.prefs_changed = by_port(locus, "tcp.port", "tcp_ports", "TCP ports")
lrm.prefs_changed = by_port(lrm, "udp.port", "udp_ports", "UDP ports")
