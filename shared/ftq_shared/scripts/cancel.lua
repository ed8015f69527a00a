-- cancel: raise the flag; end the job at once when nobody works on it. ARGV: id.
-- Returns the state afterwards, or '' for no such job.
local id, state = ARGV[1], job('state')
if not state then
  return ''
end
if state == 'queued' then
  set('cancel', '1')
  to_end(id, 'cancelled', 4, 'cancelled while it waited')
  return 'cancelled'
end
-- Nothing runs yet, and a claim with this token comes too late. A user who may not take a lease
-- (docs/security.md: a client's) leaves it to the claim, or to whoever reaps the place.
if state == 'placed' and redis.acl_check_cmd('SREM', LEASES, id) then
  set('cancel', '1')
  release(id, job('token'), 'cancelled')
  to_end(id, 'cancelled', 4, 'cancelled before it started')
  return 'cancelled'
end
if (state == 'running' or state == 'placed') and job('cancel') ~= '1' then
  set('cancel', '1')
  redis.call('PUBLISH', 'ftq:control', cjson.encode({cancel = id}))
end
return state
