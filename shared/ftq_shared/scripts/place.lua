-- place: give a queued job a place on a host, if everything that the plan assumed still holds.
-- KEYS[6] the host's record. ARGV: id, record version, instance, host name, slot (cpu or gpu),
-- GPU ids as JSON, 64 random bits as hex, seconds after which a silent host is lost, 1 when workers
-- place that do not write the index.
-- Returns {token, ''} or {'', why not}.
local id, version, instance, name, slot = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local wanted, random = cjson.decode(ARGV[6]), ARGV[7]
local token = job('token')
if token and token ~= '' and string.sub(token, -16) == random then
  return {token, ''} -- the same call, repeated: its answer was lost
end
if job('state') ~= 'queued' or job('version') ~= version then
  return {'', 'the job moved on'}
end
local h = redis.call('HMGET', KEYS[6], 'instance', 'draining', 'slots', 'beat_ms', 'full',
  'record_version')
if h[1] ~= instance then
  return {'', 'the host restarted'}
end
if tonumber(h[6] or '1') < tonumber(job('v')) then
  return {'', 'the host is of an older version'}
end
if h[2] == '1' or h[5] == '1' or now_ms() - tonumber(h[4]) > tonumber(ARGV[8]) * 1000 then
  return {'', 'the host takes no work'}
end
check_places(ARGV[9] == '1')
local used = 0
for _, other in ipairs(redis.call('SMEMBERS', PLACES .. ':' .. name)) do
  local o = redis.pcall('HMGET', 'ftq:job:' .. other, 'host', 'slot')
  used = used + (o[1] == name and o[2] == 'cpu' and 1 or 0)
end
if slot == 'cpu' and used >= tonumber(h[3]) then
  return {'', 'no free slot'}
end
-- A card is one card, whichever of several workers on its machine offers it.
for _, gpu in ipairs(wanted) do
  if card_owner(gpu) then
    return {'', 'a GPU was taken'}
  end
end
-- What a job waits for is its own from its place on: of many that wait, one gets a place.
local lock = string.match(job('awaits') or '', '^ftq:lock:.+')
local owner = lock and lock_owner(lock, id)
if owner then
  return {'', owner .. ' has the lock that it waits for'}
end
local number = redis.call('HINCRBY', JOB, 'token_number', 1)
token = number .. ':' .. random
if lock then
  take_lock(lock, id, token)
end
redis.call('ZREM', QUEUE, id)
redis.call('SADD', LEASES, id)
enter_place(id, name, wanted)
set('state', 'placed', 'token', token, 'host', name, 'instance', instance, 'slot', slot,
  'gpus', ARGV[6], 'beat', 0, 'ordinal', 0, 'placed_ms', now_ms(), 'waiting', '',
  'awaits', '')
state_event(id, {state = 'placed', gpus = #wanted > 0 and wanted or nil})
return {token, ''}
