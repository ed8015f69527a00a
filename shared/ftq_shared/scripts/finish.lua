-- finish: the holder reports how the phase ended. ARGV: id, token, outcome (next, succeeded,
-- failed, cancelled), next phase or '', fields for the record as JSON, exit code.
-- Returns 'ok' or 'stale'. Repeating the call is harmless.
local id, token, outcome = ARGV[1], ARGV[2], ARGV[3]
if token ~= '' and job('last_token') == token then
  return job('last_answer') == outcome and 'ok' or 'stale'
end
if token == '' or job('token') ~= token then
  return 'stale'
end
if job('state') == 'placed' then
  -- The broker went back and lost the claim, but only who claimed can have worked under this token:
  -- the claim is made up for, so that no work is lost and no watcher misses a state.
  set('state', 'running', 'claimed_ms', now_ms())
  state_event(id, {state = 'running'})
end
for field, value in pairs(cjson.decode(ARGV[5])) do
  redis.call('HSET', JOB, field, value)
end
if outcome == 'next' and job('cancel') == '1' then
  release(id, token, outcome)
  to_end(id, 'cancelled', 4, 'cancelled')
elseif outcome == 'next' then
  release(id, token, outcome)
  set('tries', 0)
  to_queue(id, ARGV[4], nil)
else
  release(id, token, outcome)
  to_end(id, outcome, tonumber(ARGV[6]), nil)
end
return 'ok'
