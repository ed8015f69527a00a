-- lock: let the token's holder be the only one of the fleet that works on something, such as a Hub
-- repo. ARGV: id, token, the lock's key, time to live in seconds (renewed with every call).
-- Returns {'ok', ''}, {'busy', the job that has it} or {'stale', ''}. A lock goes with the token of
-- the job that took it.
local id, token, key = ARGV[1], ARGV[2], ARGV[3]
if token == '' or job('token') ~= token then
  return {'stale', ''}
end
local owner = redis.call('GET', key)
if owner and owner ~= id .. ' ' .. token then
  local other, its = string.match(owner, '^(%S+) (%S+)$')
  -- One that names nobody is nobody's.
  if other and other ~= id and redis.call('HGET', 'ftq:job:' .. other, 'token') == its then
    return {'busy', other}
  end
end
redis.call('SET', key, id .. ' ' .. token, 'EX', ARGV[4])
set('lock', key)
return {'ok', ''}
