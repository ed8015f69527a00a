-- Who has which place: the set of all leases, and an index of what their records say, so that a
-- placement looks at one host and at the cards it wants, and an observer at the hosts it watches: the
-- host of each lease, the leases of a host, the lease of a card.
local LEASES, PLACES, CARDS = 'ftq:leases', 'ftq:places', 'ftq:cards'

-- The cards of a record's field; a damaged one holds none.
local function cards_of(raw)
  local ok, gpus = pcall(cjson.decode, raw or '[]')
  local found = {}
  for _, gpu in ipairs(ok and type(gpus) == 'table' and gpus or {}) do
    if type(gpu) == 'string' then
      found[#found + 1] = gpu
    end
  end
  return found
end

-- The job that has a card; one that a lost record left in the index has it no longer. Protected
-- calls on other jobs' records: a damaged one may not keep all others from being placed.
local function card_owner(gpu)
  local owner = redis.call('HGET', CARDS, gpu)
  local raw = owner and redis.pcall('HGET', 'ftq:job:' .. owner, 'gpus')
  for _, held in ipairs(cards_of(type(raw) == 'string' and raw or nil)) do
    if held == gpu then
      return owner
    end
  end
end

local function enter_place(id, host, gpus)
  redis.call('HSET', PLACES, id, host)
  redis.call('SADD', PLACES .. ':' .. host, id)
  for _, gpu in ipairs(gpus) do
    redis.call('HSET', CARDS, gpu, id)
  end
end

local function leave_place(id, gpus)
  local host = redis.call('HGET', PLACES, id)
  if host then
    redis.call('HDEL', PLACES, id)
    redis.call('SREM', PLACES .. ':' .. host, id)
  end
  for _, gpu in ipairs(cards_of(gpus)) do
    if redis.call('HGET', CARDS, gpu) == id then
      redis.call('HDEL', CARDS, gpu)
    end
  end
end

-- Enter all places anew where the index cannot be that of the leases: a worker of an older version
-- enters none, and a broker that went back may have lost a part. `surely`: also where it could be.
local function check_places(surely)
  if not surely and redis.call('SCARD', LEASES) == redis.call('HLEN', PLACES) then
    return
  end
  for _, host in ipairs(redis.call('HVALS', PLACES)) do
    redis.call('DEL', PLACES .. ':' .. host)
  end
  redis.call('DEL', PLACES, CARDS)
  for _, other in ipairs(redis.call('SMEMBERS', LEASES)) do
    local o = redis.pcall('HMGET', 'ftq:job:' .. other, 'host', 'gpus')
    enter_place(other, o[1] or '', cards_of(o[2] or nil))
  end
end
