// A gzip of forty lines, over zlib.
function(assize, cc, zlib)
  cc.program({
    name: 'minigzip',
    description: 'compresses stdin to stdout; with -d, decompresses',
    objects: [
      cc.object({
        name: 'minigzip-object',
        src: assize.source('.', exclude=['*.libsonnet']),
        file: 'minigzip.c',
        headers: [zlib.headers],
        flags: ['-I/in/headers0/src/zlib'],
      }),
    ],
    libraries: [zlib],
  })
