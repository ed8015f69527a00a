-- wait: say why a queued job is not placed, once per reason. ARGV: id, reason, what would unblock
-- it. Returns 1 when it was news.
if job('state') ~= 'queued' or job('waiting') == ARGV[2] then
  return 0
end
redis.call('HSET', JOB, 'waiting', ARGV[2])
store_event(ARGV[1], cjson.encode({
  attempt = tonumber(job('attempt')), host = '', time = iso(now_ms()), phase = job('phase'),
  type = 'waiting', data = {reason = ARGV[2], unblock = ARGV[3]},
}), true)
return 1
