-- Shared by all scripts on a job: it is put before each of them, and before it places.lua and the
-- constants of lifetimes.py that CONSTANTS in __init__.py names.
-- Time is the server's. A job record is a hash; its fields are named in job_record.py.

local function now_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

-- RFC 3339 in UTC with milliseconds. Days to date: Howard Hinnant, "chrono-Compatible Low-Level
-- Date Algorithms", civil_from_days.
local function iso(ms)
  local s = math.floor(ms / 1000)
  local z = math.floor(s / 86400) + 719468
  local era = math.floor(z / 146097)
  local doe = z - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524)
    - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local mp = math.floor((5 * doy + 2) / 153)
  local day = doy - math.floor((153 * mp + 2) / 5) + 1
  local month = mp < 10 and mp + 3 or mp - 9
  local year = yoe + era * 400 + (month <= 2 and 1 or 0)
  local r = s % 86400
  return string.format('%04d-%02d-%02dT%02d:%02d:%02d.%03dZ', year, month, day,
    math.floor(r / 3600), math.floor(r / 60) % 60, r % 60, ms % 1000)
end

-- The keys of one job, passed by every caller in this order as KEYS[1..5].
local JOB, EVENTS, KEPT, SECRET, INPUTS = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local QUEUE, JOBS = 'ftq:queue', 'ftq:jobs'

-- ARGV[1] is always the id. It becomes part of paths on the hosts: keys.py asks for the same form.
if #ARGV[1] ~= 11 or not string.match(ARGV[1], '^ft%-[a-z0-9]+$') or JOB ~= 'ftq:job:' .. ARGV[1] then
  return redis.error_reply('NOJOB the keys are not those of a job id')
end

local function job(field)
  return redis.call('HGET', JOB, field)
end

-- A key of another type is nobody's history: it makes room, or the job could never end.
local function add_entry(key, most, seq, line)
  local answer = redis.pcall('XADD', key, 'MAXLEN', '~', most, seq .. '-0', 'e', line)
  if type(answer) ~= 'table' then
    return
  end
  if not string.find(answer.err, 'WRONGTYPE', 1, true) then
    error(answer)
  end
  redis.call('DEL', key)
  redis.call('XADD', key, seq .. '-0', 'e', line)
end

-- Store one event and tell the watchers: the number, the entry and the message in one step.
-- `body` is the event's JSON without v, job and seq.
local function store_event(id, body, keep)
  local seq = redis.call('HINCRBY', JOB, 'seq', 1)
  local line = '{"v":1,"job":"' .. id .. '","seq":' .. seq .. ',' .. string.sub(body, 2)
  add_entry(EVENTS, EVENTS_EXACT, seq, line)
  if keep then
    add_entry(KEPT, MILESTONES_KEPT, seq, line)
  end
  redis.call('PUBLISH', 'ftq:live:' .. id, line)
  return seq
end

local function state_event(id, data)
  store_event(id, cjson.encode({
    attempt = tonumber(job('attempt')), host = job('host') or '', time = iso(now_ms()),
    phase = job('phase'), type = 'state', data = data,
  }), true)
end

-- What ended a failed job, from its record: whatever failed it, watchers are told once, here. The
-- fields are those that events.py documents.
local ERROR_FIELDS = {'code', 'message', 'hint', 'exit_code', 'file', 'row', 'line', 'field', 'step',
  'nearest', 'traceback'}
local function error_event(id)
  local readable, known = pcall(cjson.decode, job('error') or '')
  known = readable and type(known) == 'table' and known or {}
  local data = {code = 'failed', message = 'the job failed'}
  for _, name in ipairs(ERROR_FIELDS) do
    local value = known[name]
    if type(value) ~= 'table' or #value > 0 then -- an empty list would become an object
      data[name] = value or data[name]
    end
  end
  store_event(id, cjson.encode({ -- its place has been given back
    attempt = tonumber(job('attempt')), host = job('last_host') or '', time = iso(now_ms()),
    phase = job('phase'), type = 'error', data = data,
  }), true)
end

-- A lower score is nearer to the front: priority first, then the time of the submit.
local function queue_score()
  local rank = ({high = 0, normal = 1, low = 2})[job('priority')] or 1
  return rank * 1e13 + tonumber(job('created_ms'))
end

local function set(...)
  redis.call('HSET', JOB, 'updated_ms', now_ms(), ...)
  redis.call('HINCRBY', JOB, 'version', 1)
end

-- The other job that has a lock, nil when nobody has: one that names nobody is nobody's.
local function lock_owner(key, id)
  local owner, token = string.match(redis.call('GET', key) or '', '^(%S+) (%S+)$')
  if owner and owner ~= id and redis.call('HGET', 'ftq:job:' .. owner, 'token') == token then
    return owner
  end
end

local function take_lock(key, id, token)
  redis.call('SET', key, id .. ' ' .. token, 'EX', LOCK_TTL_S)
  set('lock', key)
end

-- Give back the lock that a phase held, if it is still this job's.
local function unlock(id)
  local lock = job('lock')
  if lock and lock ~= '' then
    local owner = redis.call('GET', lock)
    if owner and string.sub(owner, 1, #id + 1) == id .. ' ' then
      redis.call('DEL', lock)
    end
    set('lock', '')
  end
end

-- Give back the place; the token that ends here is remembered, so that a repeated call is known.
local function release(id, token, answer)
  local gpus = job('gpus')
  if job('phase') == 'train' and job('state') == 'running' then -- what max_runtime counts
    redis.call('HINCRBY', JOB, 'trained_ms', math.max(0, now_ms() - (tonumber(job('claimed_ms') or '') or now_ms())))
  end
  unlock(id)
  if (job('host') or '') ~= '' then
    set('last_host', job('host'))
  end
  if (job('nonce') or '') ~= '' then -- how much of its claim's events is here: see append_rest
    set('rest', token .. ' ' .. job('nonce') .. ' ' .. (job('ordinal') or '0'))
  end
  set('token', '', 'host', '', 'instance', '', 'gpus', '[]', 'nonce', '', 'beat', 0,
    'last_token', token, 'last_answer', answer)
  -- Last: a script that a damaged field ends before leaves a lease that is watched.
  leave_place(id, gpus)
  redis.call('SREM', LEASES, id)
end

local function to_queue(id, phase, reason)
  redis.call('ZADD', QUEUE, queue_score(), id)
  set('state', 'queued', 'phase', phase, 'queued_ms', now_ms(), 'awaits', '')
  state_event(id, {state = 'queued', reason = reason})
end

local function to_end(id, state, exit_code, reason)
  redis.call('ZREM', QUEUE, id)
  if state == 'failed' then
    error_event(id)
  end
  set('state', state, 'ended_ms', now_ms(), 'exit_code', exit_code)
  state_event(id, {state = state, outcome = state, exit_code = exit_code, reason = reason})
  redis.call('DEL', SECRET, INPUTS)
  redis.call('ZREM', 'ftq:inputs', id)
  redis.call('EXPIRE', JOB, JOB_TTL_S)
  redis.call('EXPIRE', KEPT, JOB_TTL_S)
  redis.call('EXPIRE', EVENTS, EVENTS_TTL_S) -- from then on the milestones stand for them
end

-- Remember how an attempt died: a job that keeps dying says in the end where and why.
local function add_death(reason)
  local deaths = cjson.decode(job('deaths') or '[]')
  deaths[#deaths + 1] = {
    attempt = tonumber(job('attempt')), phase = job('phase'), host = job('host') or '',
    reason = reason, time = iso(now_ms()),
  }
  if #deaths > 20 then
    table.remove(deaths, 1)
  end
  set('deaths', cjson.encode(deaths))
  return deaths
end

-- The last three; the error holds all of them.
local function deaths_in_words(deaths)
  local words = {}
  for i = math.max(1, #deaths - 2), #deaths do
    local death = deaths[i]
    words[#words + 1] = 'attempt ' .. death.attempt .. ' on ' .. death.host .. ' in '
      .. death.phase .. ': ' .. death.reason
  end
  return table.concat(words, '; ')
end

-- The answer where the token has ended before: the same again, unless its phase was finished, which
-- no interruption can change any more.
local function interrupted_before()
  local answer = job('last_answer')
  return (answer == 'next' or answer == 'succeeded') and 'stale' or answer
end

-- Back to the queue after an interruption, or to the end: a cancel wins, then the attempts count.
-- `from` is the phase to start over from, nil or '' for the same. It counts from the queue on: what
-- died, or was cancelled, was in the old one.
local function interrupted(id, token, reason, burn, from)
  if job('state') == 'placed' then
    burn = 0 -- a place that was never claimed has cost nothing
  end
  local tries = tonumber(job('tries')) + burn
  local deaths = burn > 0 and add_death(reason) or {}
  local answer = 'queued'
  if job('cancel') == '1' then
    answer = 'cancelled'
  elseif tries >= tonumber(job('max_attempts')) then
    answer = 'failed'
  end
  release(id, token, answer)
  if answer == 'cancelled' then
    to_end(id, 'cancelled', 4, 'cancelled')
  elseif answer == 'failed' then
    local message = 'interrupted ' .. tries .. ' times; ' .. deaths_in_words(deaths)
    set('error', cjson.encode({code = 'attempts_exhausted', message = message, exit_code = 1,
      attempts = deaths, hint = 'look at `ftq tail ' .. id .. '`, then `ftq retry ' .. id .. '`'}))
    to_end(id, 'failed', 1, message)
  else
    set('tries', tries, 'attempt', tonumber(job('attempt')) + burn)
    if from and from ~= '' then
      set('storage_id', '')
    end
    to_queue(id, from and from ~= '' and from or job('phase'), reason)
  end
  return answer
end
