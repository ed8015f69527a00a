-- append: store a batch of events of the token's holder.
-- ARGV: id, token, ordinal of the first event (1, 2, 3 ... within the token), flags (one character
-- an event, k to keep it as a milestone), fields for the record as JSON, then the bodies.
-- Returns {stored ordinal, status}: 'ok', 'stale', or 'gap' when events before the batch are
-- missing (the broker lost them): send again from stored ordinal + 1.
local id, token, first = ARGV[1], ARGV[2], tonumber(ARGV[3])
if token == '' or job('token') ~= token then
  return {0, 'stale'}
end
local stored = tonumber(job('ordinal'))
if first > stored + 1 then
  return {stored, 'gap'}
end
if first + #ARGV - 6 <= stored then
  return {stored, 'ok'} -- all known, and its fields are older than what the record says by now
end
for i = 6, #ARGV do
  local ordinal = first + i - 6
  if ordinal > stored then
    store_event(id, ARGV[i], string.sub(ARGV[4], i - 5, i - 5) == 'k')
    stored = ordinal
  end
end
redis.call('HSET', JOB, 'ordinal', stored)
for field, value in pairs(cjson.decode(ARGV[5])) do
  redis.call('HSET', JOB, field, value)
end
return {stored, 'ok'}
