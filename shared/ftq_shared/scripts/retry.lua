-- retry: start a failed or cancelled job again. ARGV: id, phase, sealed secrets or '', nonce,
-- '1' to start the phase afresh instead of from its last checkpoint, the rows that are left out of
-- training by name as JSON or '', the record version that such a job has.
-- Returns the new state, or the old one when there is nothing to retry, or '' for no such job.
local id, state = ARGV[1], job('state')
if not state then
  return ''
end
if job('retry_nonce') == ARGV[4] then
  return 'queued'
end
if state ~= 'failed' and state ~= 'cancelled' then
  return state
end
for _, key in ipairs({JOB, EVENTS, KEPT}) do
  redis.call('PERSIST', key)
end
-- Also what it waited for: the first reason from here on is news again.
redis.call('HDEL', JOB, 'error', 'ended_ms', 'exit_code', 'deaths', 'waiting',
  'trained_ms')
set('cancel', '0', 'tries', 0, 'attempt', tonumber(job('attempt')) + 1, 'retry_nonce', ARGV[4])
redis.call('HINCRBY', JOB, 'round', 1) -- a result that an earlier round left in the storage is old
if ARGV[5] == '1' then
  set('fresh_after', job('token_number'))
end
if ARGV[6] ~= '' then
  set('without_rows', ARGV[6], 'without_round', job('round'), 'v', ARGV[7])
end
if ARGV[2] == 'validate' then
  set('storage_id', '')
end
set('has_secrets', ARGV[3] ~= '' and '1' or '0')
if ARGV[3] ~= '' then
  redis.call('SET', SECRET, ARGV[3], 'EX', SECRET_TTL_S)
end
to_queue(id, ARGV[2], 'retried')
return 'queued'
