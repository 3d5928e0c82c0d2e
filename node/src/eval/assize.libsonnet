// The library that build files import as `assize.libsonnet`; docs/jsonnet.md is its manual.
//
// `native` is made by the evaluator and can be named in this file only. A helper is written
// `located('its name', function(at, args) …)`: `at` is the author's call, to which errors point.

local located = native.located;

// Fields of a derivation that helpers pass on as they are.
local common = ['env', 'stdin', 'limits', 'mainProgram', 'description'];
local only(args, fields) = { [f]: args[f] for f in fields if std.objectHasAll(args, f) };

local get(args, field, default) = std.get(args, field, default);
local basename(path) = local parts = std.split(path, '/'); parts[std.length(parts) - 1];
local dirname(path) = std.join('/', std.split(path, '/')[:std.length(std.split(path, '/')) - 1]);
local below(mount, path) = if path == '' then mount else mount + '/' + path;

// `lvm.c` → `lvm`
local stem(path) =
  local parts = std.split(basename(path), '.');
  if std.length(parts) == 1 then parts[0] else std.join('.', parts[:std.length(parts) - 1]);

// One step of one program, with its inputs beside it.
local run(at, args) =
  local inputs = get(args, 'inputs', {});
  local program = below('/in/tool', get(args, 'program', ''));
  assert !std.objectHas(inputs, 'tool') : 'run: the input `tool` is the program itself; call yours otherwise';
  native.derivationAt(at, {
    name: args.name,
    inputs: inputs { tool: args.tool },
    steps: [
      { run: program, args: [basename(program)] + get(args, 'args', []) } + only(args, ['stdout', 'cwd']),
    ],
  } + only(args, common + ['outputs', 'executable']));

local split(at, files, args) =
  local parts = std.objectFields(args.parts);
  run(at, {
    name: args.name,
    tool: files,
    args: ['split', '/in/from'] + [part + '=' + std.join(',', args.parts[part]) for part in parts],
    inputs: { from: args.from },
    outputs: parts,
  } + only(args, common));

// What shell scripts do elsewhere, by two small wasm tools: `files` and `unpack`.
local tools(files, unpack) = {
  files:: files,

  // Copies the files of `from` that match one of `globs`, with their directories.
  select:: located('tools.select', function(at, args)
    assert native.check('tools.select', args, ['description'], ['name', 'from', 'globs']);
    run(at, {
      name: args.name,
      tool: files,
      args: ['select', '/in/from', '/out'] + args.globs,
      inputs: { from: args.from },
    } + only(args, common))),

  // Copies files into several outputs: `parts` maps each output to the globs of its files. A build
  // that uses one output is not run again when the files of another change.
  split:: located('tools.split', function(at, args)
    assert native.check('tools.split', args, ['description'], ['name', 'from', 'parts']);
    split(at, files, args)),

  // A directory with one file of a given text.
  write:: located('tools.write', function(at, args)
    assert native.check('tools.write', args, ['description'], ['name', 'file', 'text']);
    run(at, {
      name: args.name,
      tool: files,
      args: ['write', '--json-field', 'text', '/out/' + args.file],
      stdin: { text: args.text },
    } + only(args, ['description']))),

  // A directory with a copy of `file` of `from` in which texts are replaced: `replace` is an array
  // of [old, new].
  substitute:: located('tools.substitute', function(at, args)
    assert native.check('tools.substitute', args, ['description', 'to'], ['name', 'from', 'file', 'replace']);
    run(at, {
      name: args.name,
      tool: files,
      args: ['substitute', '--in', below('/in/from', args.file), '--out', '/out/' + get(args, 'to', args.file)] +
            std.flattenArrays([['--replace'] + pair for pair in args.replace]),
      inputs: { from: args.from },
    } + only(args, common))),

  // Unpacks an archive: `strip` leading directories are left away, `only` the files that match.
  unpack:: located('tools.unpack', function(at, args)
    assert native.check(
      'tools.unpack', args, ['file', 'strip', 'only', 'executable', 'description'], ['name', 'archive']
    );
    run(at, {
      name: args.name,
      tool: unpack,
      args: [below('/in/archive', get(args, 'file', '')), '/out'] +
            ['--strip', '%d' % get(args, 'strip', 0)] +
            std.flattenArrays([['--only', glob] for glob in get(args, 'only', [])]),
      inputs: { archive: args.archive },
    } + only(args, common + ['executable']))),
};

// Numbered inputs: `prefix0`, `prefix1`, …
local numbered(prefix, handles) = { [prefix + i]: handles[i] for i in std.range(0, std.length(handles) - 1) };

// A C compiler. Every `::` field can be set anew: `local cc = assize.c { clang:: …, sysroot:: … };`
local c = {
  local this = self,

  // What every call needs; a call can also name its own.
  clang:: error 'c: set `clang`, the compiler: assize.c { clang:: …, sysroot:: … }',
  sysroot:: error 'c: set `sysroot`: assize.c { clang:: …, sysroot:: … }',
  tools:: error 'c: set `tools`, for `units` and `program`: assize.c { tools:: assize.tools(files, unpack) }',

  // The module inside `clang`; '' if that is the module itself.
  module:: '',
  // All tools are in one module, which looks at its first two arguments.
  argv(tool):: ['yowasp-llvm', tool],

  target:: 'wasm32-wasip1',
  cflags:: ['-O2'],
  ldflags:: [],
  // Where clang finds its own headers (`include`), those of the C library (`include/<target>`) and
  // its runtime (`lib`).
  where:: [
    '--target=' + this.target,
    '--sysroot=/in/sysroot',
    '-resource-dir=/in/sysroot',
  ],
  libraryDirs:: ['/in/sysroot/lib/wasm32-unknown-wasip1', '/in/sysroot/lib/' + this.target],
  startup:: ['/in/sysroot/lib/%s/crt1-command.o' % this.target],
  runtime:: ['-lc', '/in/sysroot/lib/wasm32-unknown-wasip1/libclang_rt.builtins.a'],

  // A run of one of the tools in `clang`.
  local call(at, args, tool, argv, inputs, before=[]) = native.derivationAt(at, {
    name: args.name,
    inputs: inputs { clang: get(args, 'clang', this.clang) },
    steps: before + [{ run: below('/in/clang', this.module), args: this.argv(tool) + argv }],
  } + only(args, ['limits', 'description', 'mainProgram'])),

  local shared = ['clang', 'sysroot', 'limits', 'description'],

  local object(at, args) =
    assert native.check('c.object', args, shared + ['headers', 'flags'], ['name', 'src', 'file']);
    local headers = get(args, 'headers', []);
    local out = stem(args.file) + '.o';
    local dirs = ['/in/src'] + ['/in/headers%d' % i for i in std.range(0, std.length(headers) - 1)];
    // As if all were one tree: beside the file, then from its top.
    local beside = if dirname(args.file) == '' then [] else [below(dir, dirname(args.file)) for dir in dirs[1:]];
    call(
      at,
      args,
      'clang',
      this.where + this.cflags + get(args, 'flags', []) + ['-I' + dir for dir in beside + dirs] +
      ['-c', below('/in/src', args.file), '-o', '/out/' + out],
      numbered('headers', headers) { src: args.src, sysroot: get(args, 'sysroot', this.sysroot) },
    ) { object:: out },

  // Compiles one file: `/out/<stem>.o`.
  object:: located('c.object', object),

  // Compiles many files of one tree, each by itself, so that a change of one compiles that one
  // again, and a change of a header all of them. An array of objects.
  units:: located('c.units', function(at, args)
    assert native.check('c.units', args, shared + ['headers', 'flags'], ['name', 'src', 'files']);
    local parts = split(at, this.tools.files, {
      name: args.name + '-files',
      from: args.src,
      parts: { headers: get(args, 'headers', ['**/*.h']) } +
             { ['unit%d' % i]: [args.files[i]] for i in std.range(0, std.length(args.files) - 1) },
    });
    [
      object(at, {
        name: args.name + '-' + stem(args.files[i]),
        src: parts['unit%d' % i],
        file: args.files[i],
        headers: [parts.headers],
      } + only(args, shared + ['flags']))
      for i in std.range(0, std.length(args.files) - 1)
    ]),

  local paths(prefix, handles, inside) =
    ['/in/%s%d/%s' % [prefix, i, inside(handles[i])] for i in std.range(0, std.length(handles) - 1)],
  local objectOf(handle) = get(handle, 'object', error 'c: `objects` are what `c.object` and `c.units` give'),
  local libraryOf(handle) = get(handle, 'library', error 'c: `libraries` are what `c.library` gives, or names'),

  // Puts objects into an archive: `/out/lib/lib<name>.a`.
  library:: located('c.library', function(at, args)
    assert native.check('c.library', args, shared, ['name', 'objects']);
    local out = 'lib/lib%s.a' % args.name;
    call(
      at,
      args,
      'ar',
      ['rcsD', '/out/' + out] + paths('object', args.objects, objectOf),
      numbered('object', args.objects) { files: this.tools.files },
      before=[{ run: '/in/files', args: ['files', 'mkdir', '/out/lib'] }],
    ) { library:: out }),

  // Links a program: `/out/bin/<name>.wasm`. `libraries` are archives made by `c.library`, or names
  // of libraries of the sysroot.
  program:: located('c.program', function(at, args)
    assert native.check('c.program', args, shared + ['libraries', 'ldflags', 'mainProgram'], ['name', 'objects']);
    local libraries = get(args, 'libraries', []);
    local archives = [l for l in libraries if !std.isString(l)];
    local out = 'bin/%s.wasm' % args.name;
    call(
      at,
      { mainProgram: out } + args,
      'wasm-ld',
      ['-m', 'wasm32'] + ['-L' + dir for dir in this.libraryDirs] + this.ldflags + get(args, 'ldflags', []) +
      this.startup + paths('object', args.objects, objectOf) + paths('archive', archives, libraryOf) +
      ['-l' + l for l in libraries if std.isString(l)] + this.runtime + ['-o', '/out/' + out],
      numbered('object', args.objects) + numbered('archive', archives) +
      { files: this.tools.files, sysroot: get(args, 'sysroot', this.sysroot) },
      before=[{ run: '/in/files', args: ['files', 'mkdir', '/out/bin'] }],
    )),
};

{
  derivation:: native.derivation,
  source:: native.source,
  fetch:: native.fetch,
  run:: located('run', function(at, args)
    assert native.check(
      'run',
      args,
      common + ['program', 'args', 'inputs', 'outputs', 'executable', 'stdout', 'cwd'],
      ['name', 'tool']
    );
    run(at, args)),
  tools:: tools,
  c:: c,
}
