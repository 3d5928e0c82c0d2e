// The package set. `assize eval -f packages --list` lists it, `assize build -f packages lua` builds
// one of it. Everything below is built from what is named here by its hash, by wasm alone.
local assize = import 'assize.libsonnet';

// Stage 0: the tools that everything else begins with; stage0/README.md is their manual.
local stage0 = {
  files: assize.source('stage0/seeds/files.wasm'),
  unpack: assize.source('stage0/seeds/unpack.wasm'),
  wat: assize.source('stage0/seeds/wat.wasm'),
};
local tools = assize.tools(stage0.files, stage0.unpack);

local clang = import 'clang.libsonnet';
local compiler = clang(assize, stage0, tools);
local cc = assize.c {
  clang:: compiler.clang,
  sysroot:: compiler.sysroot,
  tools:: tools,
  module:: 'llvm.core.wasm',
};

{
  // For projects of one's own: README.md.
  tools:: tools,
  cc:: cc,

  clang: compiler.clang,
  sysroot: compiler.sysroot,

  hello: (import 'hello/hello.libsonnet')(assize, cc),
  zlib: (import 'zlib/zlib.libsonnet')(assize, cc, tools),
  minigzip: (import 'zlib/minigzip.libsonnet')(assize, cc, self.zlib),
  lua: (import 'lua/lua.libsonnet')(assize, cc, tools),
  sqlite: (import 'sqlite/sqlite.libsonnet')(assize, cc, tools),
  python: (import 'python/python.libsonnet')(assize, tools),

  // Stage 0 alone: a program in WebAssembly text, and lists that it gives.
  numbers: (import 'numbers/numbers.libsonnet')(assize, stage0.wat),

  // Built by programs that were built here.
  primes: (import 'lua/primes.libsonnet')(assize, self.lua),
  calendar: (import 'python/calendar.libsonnet')(assize, self.python),
}
