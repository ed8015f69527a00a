-- claim: the host that was chosen takes the phase. ARGV: id, token, nonce, instance, storage id,
-- newest record version that the claimer knows.
-- Returns 'ok', 'cancelled' or 'stale'. The same nonce gets the same answer again, and renews the
-- lease; also after a broker that rolled back has forgotten the claim but not the place.
local id, token, nonce = ARGV[1], ARGV[2], ARGV[3]
if token ~= '' and job('last_token') == token then
  return job('last_answer') == 'cancelled' and 'cancelled' or 'stale'
end
if token == '' or job('token') ~= token or job('instance') ~= ARGV[4] then
  return 'stale'
end
if tonumber(job('v') or '0') > tonumber(ARGV[6]) then
  return 'stale'
end
if job('state') == 'running' then
  if job('nonce') ~= nonce then
    return 'stale'
  end
  redis.call('HINCRBY', JOB, 'beat', 1)
  return 'ok'
end
if job('cancel') == '1' then
  release(id, token, 'cancelled')
  to_end(id, 'cancelled', 4, 'cancelled before it started')
  return 'cancelled'
end
redis.call('HINCRBY', JOB, 'beat', 1) -- a claim is a sign of life: its lease counts from here
set('state', 'running', 'nonce', nonce, 'storage_id', ARGV[5], 'claimed_ms', now_ms())
state_event(id, {state = 'running'})
return 'ok'
