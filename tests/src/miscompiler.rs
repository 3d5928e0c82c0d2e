//! A compiler of two functions, and the same as an engine executes it that is wrong in one instruction.

use crate::Sandbox;

/// A compiler that writes a module with two functions. The constant of one of them it computes with
/// `operator`.
pub fn compiler(operator: &str) -> Vec<u8> {
    let module = wat::parse_str(
        r#"(module
            (func $double (export "double") (param i32) (result i32) (i32.mul (local.get 0) (i32.const 2)))
            (func $triple (export "triple") (param i32) (result i32) (i32.mul (local.get 0) (i32.const 3))))"#,
    );
    let module = module.expect("a module");
    // i32.const 2, i32.mul
    let at = module.windows(3).position(|bytes| bytes == [0x41, 2, 0x6c]).expect("the constant") + 1;
    let data: String = module.iter().map(|byte| format!("\\{byte:02x}")).collect();
    let text = format!(
        r#"(module
            (import "wasi_snapshot_preview1" "path_open"
              (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 1)
            (data (i32.const 0) "out/double.wasm")
            (data (i32.const 1024) "{data}")
            (func (export "_start")
              (i32.store8 (i32.const {constant}) ({operator} (i32.const 1) (i32.const 1)))
              (drop (call $open (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 15) (i32.const 1)
                (i64.const 64) (i64.const 0) (i32.const 0) (i32.const 512)))
              (i32.store (i32.const 520) (i32.const 1024))
              (i32.store (i32.const 524) (i32.const {len}))
              (drop (call $write (i32.load (i32.const 512)) (i32.const 520) (i32.const 1) (i32.const 528)))))"#,
        constant = 1024 + at,
        len = module.len(),
    );
    wat::parse_str(text).expect("a compiler")
}

/// A project with `double`, which the right compiler makes, and `miscompiled`, which the wrong one does.
pub fn project(sandbox: &Sandbox) {
    sandbox
        .write("build.jsonnet", PROJECT)
        .write("compiler.wasm", compiler("i32.add"))
        .write("miscompiler.wasm", compiler("i32.sub"));
}

const PROJECT: &str = "
local assize = import 'assize.libsonnet';
local build(name, compiler) = assize.derivation({
  name: name, inputs: { compiler: assize.source(compiler) }, steps: [{ run: '/in/compiler', args: ['compiler'] }],
});
{ double: build('double', 'compiler.wasm'), miscompiled: build('miscompiled', 'miscompiler.wasm') }
";
