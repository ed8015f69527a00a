-- reap: take a phase from an owner that was silent for a whole lease, as the caller has seen on its
-- own clock. ARGV: id, token, beat as the caller saw it, reason. Returns as requeue does.
local id, token = ARGV[1], ARGV[2]
if token == '' or job('token') ~= token or job('beat') ~= ARGV[3] then
  return 'stale'
end
-- A place that was never claimed has cost nothing, so it burns no attempt.
return interrupted(id, token, ARGV[4], job('state') == 'running' and 1 or 0)
