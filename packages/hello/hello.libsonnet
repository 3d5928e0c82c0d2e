// The smallest program in C.
function(assize, cc)
  cc.program({
    name: 'hello',
    description: 'says hello',
    objects: [cc.object({ name: 'hello-object', src: assize.source('.', exclude=['*.libsonnet']), file: 'hello.c' })],
  })
