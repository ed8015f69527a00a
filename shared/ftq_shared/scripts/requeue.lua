-- requeue: the holder gives the phase back. ARGV: id, token, reason in words, attempts burnt (0, 1),
-- the phase to start from or '' for the same, the key of the lock that it waits for or ''.
-- Returns 'queued', 'failed' (no attempt left), 'cancelled' or 'stale'.
local id, token = ARGV[1], ARGV[2]
if token ~= '' and job('last_token') == token then
  return interrupted_before()
end
if token == '' or job('token') ~= token then
  return 'stale'
end
local answer = interrupted(id, token, ARGV[3], tonumber(ARGV[4]), ARGV[5])
if answer == 'queued' and ARGV[6] ~= '' then
  set('awaits', ARGV[6])
end
return answer
