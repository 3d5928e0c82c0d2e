// clang and wasm-ld for wasm32-wasip1, as one wasm module, with the C library that programs are
// linked with: two packages of one download.
function(assize, stage0, tools)
  local archive = assize.fetch({
    npm: '@yowasp/clang@22.0.0-git20542-10',
    hash: 'sha512-V31/z9GrJECKeACTDUyvg2llbEUiFi3bxtL5HSg7H/6sydSxdI/AoVAD9F5ozrfLjotWl0B9rghR87m+DUM/zg==',
  });
  {
    clang: tools.unpack({
      name: 'clang',
      archive: archive,
      strip: 2,
      only: ['llvm.core.wasm'],
      description: 'C and C++ compiler and linker for wasm (LLVM 22)',
    }),

    sysroot: assize.derivation({
      name: 'wasi-sysroot',
      description: 'headers and libraries of C and C++ for wasm32-wasip1',
      inputs: { unpack: stage0.unpack, archive: archive },
      steps: [
        {
          run: '/in/unpack',
          args: ['unpack', '/in/archive', '/build', '--strip', '2', '--only', 'llvm-resources.tar'],
        },
        { run: '/in/unpack', args: ['unpack', '/build/llvm-resources.tar', '/out'] },
      ],
    }),
  }
