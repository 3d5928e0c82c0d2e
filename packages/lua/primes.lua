-- Writes the primes up to a limit, ten a line, to the first output of the build.
local limit = tonumber(arg[1])

local composite, primes = {}, {}
for n = 2, limit do
  if not composite[n] then
    primes[#primes + 1] = n
    for m = n * n, limit, n do composite[m] = true end
  end
end

-- What a build is given arrives as JSON on stdin; all that is wanted of it is where to write.
local out = io.read('a'):match('"outputs":{"out":"([^"]+)"')
local file = assert(io.open(out .. '/primes.txt', 'w'))
for i = 1, #primes, 10 do
  file:write(table.concat(primes, ' ', i, math.min(i + 9, #primes)), '\n')
end
file:close()
print(#primes .. ' primes up to ' .. limit)
