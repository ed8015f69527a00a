-- reap: take a phase from an owner that was silent for a whole lease, as the caller has seen on its
-- own clock. ARGV: id, token, beat as the caller saw it, reason. Returns as requeue does.
local id, token = ARGV[1], ARGV[2]
if token ~= '' and job('last_token') == token then
  return interrupted_before()
end
if token == '' or job('token') ~= token or job('beat') ~= ARGV[3] then
  return 'stale'
end
-- The host counts as lost until its next heartbeat: a broker whose clock was set back would
-- believe in it for as long as the clock is behind, and place everything there again.
local host = 'ftq:host:' .. job('host')
if redis.call('HGET', host, 'instance') == job('instance') then
  redis.call('HSET', host, 'beat_ms', 0)
end
return interrupted(id, token, ARGV[4], 1)
