-- drain: ask a host to hand its work back and leave. KEYS: host record, control channel.
-- ARGV: name. Returns the instance that was asked, '' for no such host.
local instance = redis.call('HGET', KEYS[1], 'instance')
if not instance then
  return ''
end
redis.call('HSET', KEYS[1], 'drain_wanted', '1')
redis.call('PUBLISH', KEYS[2], cjson.encode({drain = ARGV[1], instance = instance}))
return instance
