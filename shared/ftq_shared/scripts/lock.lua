-- lock: let the token's holder be the only one of the fleet that works on something, such as a Hub
-- repo. ARGV: id, token, the lock's key.
-- Returns {'ok', ''}, {'busy', the job that has it} or {'stale', ''}. A lock goes with the token of
-- the job that took it.
local id, token, key = ARGV[1], ARGV[2], ARGV[3]
if token == '' or job('token') ~= token then
  return {'stale', ''}
end
local owner = lock_owner(key, id)
if owner then
  return {'busy', owner}
end
take_lock(key, id, token)
return {'ok', ''}
