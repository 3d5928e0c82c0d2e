// A program in WebAssembly text, and what it gives: the least that a package set can be made of.
// Needs `wat`, the assembler of stage 0, and nothing that must be fetched.
function(assize, wat)
  local numbers = assize.derivation({
    name: 'numbers',
    description: 'says which numbers below a hundred are primes, squares or cubes',
    inputs: { wat: wat, src: assize.source('numbers.wat') },
    steps: [{ run: '/in/wat', args: ['wat', '/in/src', '/out/bin/numbers.wasm'] }],
  });
  local list(kind) = assize.derivation({
    name: kind,
    description: kind + ' below a hundred',
    inputs: { numbers: numbers },
    steps: [
      { run: '/in/numbers/bin/numbers.wasm', args: ['numbers', kind], stdout: '/out/' + kind },
    ],
  });
  { numbers: numbers, primes: list('primes'), squares: list('squares'), cubes: list('cubes') }
