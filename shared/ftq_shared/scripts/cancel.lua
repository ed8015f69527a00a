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
if state == 'placed' then -- nothing runs yet; a claim with this token comes too late
  set('cancel', '1')
  release(id, job('token'), 'cancelled')
  to_end(id, 'cancelled', 4, 'cancelled before it started')
  return 'cancelled'
end
if state == 'running' and job('cancel') ~= '1' then
  set('cancel', '1')
  redis.call('PUBLISH', 'ftq:control', cjson.encode({cancel = id}))
end
return state
