// The library that build files import as `assize.libsonnet`; docs/jsonnet.md is its manual.
// `native` is made by the evaluator and can be named in this file only.
{
  derivation:: native.derivation,
  source:: native.source,
  fetch:: native.fetch,
}
