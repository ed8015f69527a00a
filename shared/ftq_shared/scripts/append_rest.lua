-- append_rest: the holder stores what the claim before it has written down and not sent any more:
-- whoever took the lease could not read its files. Only before the holder's own first event.
-- ARGV: id, token, the token of that claim, ordinal of the first event within it, flags as for
-- append, then the bodies. Returns as append does, the ordinal being that claim's.
local id, token, first = ARGV[1], ARGV[2], tonumber(ARGV[4])
local before, nonce, stored = string.match(job('rest') or '', '^(%S+) (%S+) (%d+)$')
if token == '' or job('token') ~= token or job('ordinal') ~= '0' or before ~= ARGV[3] then
  return {0, 'stale'}
end
stored = tonumber(stored)
if first > stored + 1 then
  return {stored, 'gap'}
end
for i = 6, #ARGV do
  if first + i - 6 > stored then
    store_event(id, ARGV[i], string.sub(ARGV[5], i - 5, i - 5) == 'k')
    stored = stored + 1
  end
end
redis.call('HSET', JOB, 'rest', before .. ' ' .. nonce .. ' ' .. stored)
return {stored, 'ok'}
