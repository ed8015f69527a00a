-- renew: prove that the owner lives. ARGV: id, token.
-- Returns 'ok', 'cancel' (go on holding it, but stop), 'unclaimed' (the broker lost the claim: claim
-- again with the same nonce) or 'stale'.
local token = ARGV[2]
if token == '' or job('token') ~= token then
  return 'stale'
end
redis.call('HINCRBY', JOB, 'beat', 1)
if job('state') ~= 'running' then
  return 'unclaimed'
end
return job('cancel') == '1' and 'cancel' or 'ok'
