// zlib, each file compiled by itself.
function(assize, cc, tools)
  local source = tools.unpack({
    name: 'zlib-source',
    archive: assize.fetch({
      crate: 'libz-sys@1.1.24',
      hash: 'sha256-RzXpy95arISlzliPayOpC5sLUo9sWo24pK/zAEY6CDk=',
    }),
    strip: 1,
    only: ['src/zlib/*.c', 'src/zlib/*.h'],
  });
  cc.library({
    name: 'z',
    description: 'zlib, the compression library',
    objects: cc.units({
      name: 'zlib',
      src: source,
      files: [
        'src/zlib/%s.c' % name
        for name in [
          'adler32', 'compress', 'crc32', 'deflate', 'gzclose', 'gzlib', 'gzread', 'gzwrite',
          'infback', 'inffast', 'inflate', 'inftrees', 'trees', 'uncompr', 'zutil',
        ]
      ],
      flags: ['-DHAVE_UNISTD_H', '-DHAVE_STDARG_H'],
    }),
  }) { headers:: source }
