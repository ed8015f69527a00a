-- cancel: raise the flag; end the job at once when nobody has it. ARGV: id.
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
if state == 'placed' or state == 'running' then
  set('cancel', '1')
  redis.call('PUBLISH', 'ftq:control', cjson.encode({cancel = id}))
end
return state
