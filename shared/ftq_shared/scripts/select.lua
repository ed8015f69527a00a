-- select: of a part of the list of all jobs, newest first, those of some owners in some states.
-- KEYS: the list. ARGV: start and end of the part, owners and states as JSON lists; an empty one is
-- any. An owner stands for itself and, as ftq 0.1.0 wrote it, for OWNER@MACHINE.
-- Returns {how many it looked at, ids}; what cannot be read is among them: the caller sees to it.
local function set_of(text)
  local list, set = cjson.decode(text), {}
  for _, name in ipairs(list) do
    set[name] = true
  end
  return #list > 0 and set
end

local owners, states, found = set_of(ARGV[3]), set_of(ARGV[4]), {}
local ids = redis.call('ZREVRANGE', KEYS[1], ARGV[1], ARGV[2])
for _, id in ipairs(ids) do
  local it = redis.pcall('HMGET', 'ftq:job:' .. id, 'state', 'owner')
  local owner = it[2] or ''
  local unread = it.err or not it[1]
  local before = string.match(owner, '^(.-)@')
  local of = not owners or owners[owner] or (before and owners[before])
  if unread or (of and (not states or states[it[1]])) then
    found[#found + 1] = id
  end
end
return {#ids, found}
