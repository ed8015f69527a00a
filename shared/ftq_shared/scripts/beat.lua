-- beat: a host's heartbeat, which also leases its name. KEYS: host record, set of hosts, queues.
-- ARGV: name, instance, instance that it replaces or '', fields as JSON, time to live in seconds,
-- seconds after which a silent host has lost its name, its Celery queue.
-- Returns {'ok', '0'}, {'ok', '1'} when it should drain, or {'taken', instance}.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local h = redis.call('HMGET', KEYS[1], 'instance', 'beat_ms', 'drain_wanted')
if h[1] and h[1] ~= ARGV[2] and h[1] ~= ARGV[3] and now - tonumber(h[2]) < ARGV[6] * 1000 then
  return {'taken', h[1]}
end
if h[1] and h[1] ~= ARGV[2] then
  redis.call('DEL', KEYS[1])
  h[3] = false
end
local fields = {'name', ARGV[1], 'instance', ARGV[2], 'beat_ms', now}
for field, value in pairs(cjson.decode(ARGV[4])) do
  fields[#fields + 1] = field
  fields[#fields + 1] = value
end
redis.call('HSET', KEYS[1], unpack(fields))
redis.call('EXPIRE', KEYS[1], ARGV[5])
redis.call('SADD', KEYS[2], ARGV[1])
redis.call('ZADD', KEYS[3], now, ARGV[7])
return {'ok', h[3] == '1' and '1' or '0'}
