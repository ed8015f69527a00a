-- submit: make a job, or return the one that this client key made before.
-- KEYS[6] the client key's string. ARGV: id, record as JSON (string to string), ttl of the key in
-- seconds, sealed secrets or '', most bytes of a spec. Returns the job's id.
local known = redis.call('GET', KEYS[6])
if known then
  return known
end
local id, record = ARGV[1], cjson.decode(ARGV[2])
if #record.spec > tonumber(ARGV[5]) then
  return redis.error_reply('TOOLARGE the spec has more than ' .. ARGV[5] .. ' bytes')
end
if redis.call('EXISTS', JOB) == 1 then
  return redis.error_reply('EXISTS job id ' .. id)
end
local now = now_ms()
for field, value in pairs(record) do
  redis.call('HSET', JOB, field, value)
end
redis.call('HSET', JOB, 'id', id, 'created_ms', now, 'updated_ms', now, 'version', 0, 'seq', 0,
  'attempt', 1, 'tries', 0, 'token', '', 'token_number', 0, 'cancel', '0', 'host', '',
  'instance', '', 'gpus', '[]', 'storage_id', record.storage_id or '', 'ordinal', 0)
redis.call('SET', KEYS[6], id, 'EX', ARGV[3])
redis.call('ZADD', JOBS, now, id)
if ARGV[4] ~= '' then
  redis.call('SET', SECRET, ARGV[4], 'EX', SECRET_TTL_S)
  redis.call('HSET', JOB, 'has_secrets', '1')
end
redis.call('PERSIST', INPUTS)
to_queue(id, job('phase'), nil)
return id
