// A package whose builder was itself built here: a Lua script writes it.
function(assize, lua)
  assize.run({
    name: 'primes',
    description: 'a table of primes, written by a Lua script',
    tool: lua,
    program: 'bin/lua.wasm',
    args: ['/in/script', '1000'],
    inputs: { script: assize.source('primes.lua') },
  })
