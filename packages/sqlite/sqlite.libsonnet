// SQLite: the amalgamation as one file, and a small program that runs statements.
function(assize, cc, tools)
  local source = tools.unpack({
    name: 'sqlite-source',
    archive: assize.fetch({
      crate: 'libsqlite3-sys@0.38.2',
      hash: 'sha256-8dIL7xf1E7mzAEUyIzGHdpzQcteQlx9OTaDjRutkAeg=',
    }),
    strip: 1,
    only: ['sqlite3/sqlite3.c', 'sqlite3/sqlite3.h'],
  });
  local parts = tools.split({
    name: 'sqlite-files',
    from: source,
    parts: { unit: ['sqlite3/sqlite3.c'], headers: ['sqlite3/sqlite3.h'] },
  });
  cc.program({
    name: 'sqlite',
    description: 'runs SQL statements on a database: sqlite FILE STATEMENTS',
    objects: [
      cc.object({
        name: 'sqlite-library',
        src: parts.unit,
        file: 'sqlite3/sqlite3.c',
        flags: [
          '-DSQLITE_THREADSAFE=0', '-DSQLITE_OMIT_LOAD_EXTENSION', '-DSQLITE_OMIT_WAL',
          '-D_WASI_EMULATED_MMAN', '-D_WASI_EMULATED_GETPID', '-DHAVE_UTIME=0',
        ],
      }),
      cc.object({
        name: 'sqlite-main',
        src: assize.source('.', exclude=['*.libsonnet']),
        file: 'main.c',
        headers: [parts.headers],
        flags: ['-I/in/headers0/sqlite3'],
      }),
    ],
    libraries: ['wasi-emulated-mman', 'wasi-emulated-getpid'],
  })
