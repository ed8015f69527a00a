-- renew: prove that the owner lives. KEYS: records of jobs. ARGV: the token of each.
-- Returns for each 'ok', 'cancel' (go on holding it, but stop), 'unclaimed' (the broker lost the
-- claim: claim again with the same nonce), 'stale', or {what is damaged}.
local function renewed(job, token)
  local it = redis.pcall('HMGET', job, 'token', 'state', 'cancel')
  if it.err then
    return {it.err}
  end
  if token == '' or it[1] ~= token then
    return 'stale'
  end
  local beat = redis.pcall('HINCRBY', job, 'beat', 1)
  if type(beat) == 'table' then
    return {beat.err}
  end
  if it[2] ~= 'running' then
    return 'unclaimed'
  end
  return it[3] == '1' and 'cancel' or 'ok'
end

local answers = {}
for i, job in ipairs(KEYS) do
  answers[i] = renewed(job, ARGV[i])
end
return answers
