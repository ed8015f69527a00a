-- leases: who holds what on some hosts. KEYS: their sets of leases. ARGV: fields of a job's record.
-- Returns {id, values} of each; of a damaged record no values.
check_places()
local found = {}
for _, there in ipairs(KEYS) do
  for _, id in ipairs(redis.call('SMEMBERS', there)) do
    local values = redis.pcall('HMGET', 'ftq:job:' .. id, unpack(ARGV))
    found[#found + 1] = {id, values.err and {} or values}
  end
end
return found
