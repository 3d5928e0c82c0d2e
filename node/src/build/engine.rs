//! The one configuration of wasmtime, and which modules it takes (SPEC §7.1).
//!
//! Everything that changes what a guest can observe is set here by name, not left to a default:
//! it is part of the abi, and a new value is a new abi.

use std::sync::LazyLock;

use wasmparser::{ExternalKind, Parser, Payload, TypeRef};
use wasmtime::{Config, Engine};

use super::wasi;

/// Native stack that wasm may use. Running out aborts the build, so its size is not observable;
/// clang needs less than 8 MiB.
const WASM_STACK_BYTES: usize = 64 << 20;

/// The stack of the thread that a guest runs on.
pub(crate) const THREAD_STACK_BYTES: usize = 256 << 20;

static ENGINE: LazyLock<Result<Engine, String>> = LazyLock::new(|| {
    let mut config = Config::new();
    config
        .cranelift_nan_canonicalization(true)
        .relaxed_simd_deterministic(true)
        .wasm_relaxed_simd(true)
        .wasm_simd(true)
        .wasm_bulk_memory(true)
        .wasm_multi_value(true)
        .wasm_multi_memory(true)
        .wasm_memory64(true)
        .wasm_extended_const(true)
        .wasm_reference_types(true)
        .wasm_tail_call(true)
        .wasm_exceptions(true)
        .wasm_gc(false)
        .wasm_function_references(false)
        .wasm_wide_arithmetic(false)
        .wasm_custom_page_sizes(false)
        .max_wasm_stack(WASM_STACK_BYTES)
        // Never used, as nothing here is asynchronous, but it must not be the smaller one.
        .async_stack_size(2 * WASM_STACK_BYTES);
    Engine::new(&config).map_err(|e| format!("{e:#}"))
});

/// The engine of this process.
///
/// # Errors
///
/// The words of wasmtime, when this machine cannot run it.
pub fn engine() -> Result<&'static Engine, String> {
    ENGINE.as_ref().map_err(String::clone)
}

/// What compiled code depends on besides the module: wasmtime's version, this processor, the
/// configuration. 16 hexadecimal digits.
pub fn fingerprint(engine: &Engine) -> String {
    use std::hash::{Hash, Hasher};

    /// Gives wasmtime's own compatibility hash to BLAKE3.
    struct Blake(blake3::Hasher);
    impl Hasher for Blake {
        fn finish(&self) -> u64 {
            let bytes = self.0.finalize();
            u64::from_le_bytes(*bytes.as_bytes().first_chunk().expect("a digest has 32 bytes"))
        }
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }
    }

    let mut hasher = Blake(blake3::Hasher::new());
    engine.precompile_compatibility_hash().hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// Why a module is not run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, serde::Serialize, serde::Deserialize)]
pub enum Refused {
    /// Not wasm at all.
    #[error("not a wasm module: it begins with `{start}`")]
    NotWasm {
        /// Its first bytes, escaped.
        start: String,
    },
    /// A component.
    #[error("a component; only core modules with WASI preview 1 are run")]
    Component,
    /// An import from elsewhere, or of something that preview 1 does not have.
    #[error("it imports `{module}` `{name}`; only functions of `wasi_snapshot_preview1` are there")]
    Import {
        /// The module it imports from.
        module: String,
        /// What it imports.
        name: String,
    },
    /// A shared memory.
    #[error("it has a shared memory; there are no threads")]
    SharedMemory,
    /// No entry point, or no memory, under the names of the standard.
    #[error("it does not export `{name}`")]
    Export {
        /// The missing export.
        name: String,
    },
    /// Not valid, or it needs a feature that is not part of the abi.
    #[error("{0}")]
    Invalid(String),
}

/// Whether a module may be run, without compiling it.
///
/// # Errors
///
/// [`Refused`], the first rule of SPEC §7.1 that it breaks. That the code is valid is only known
/// when it is compiled.
pub fn check(wasm: &[u8]) -> Result<(), Refused> {
    let start = || Refused::NotWasm { start: wasm[..wasm.len().min(8)].escape_ascii().to_string() };
    match wasm.get(..8) {
        Some(b"\0asm\x01\0\0\0") => {}
        Some(b"\0asm\x0d\0\x01\0") => return Err(Refused::Component),
        _ => return Err(start()),
    }
    let invalid = |e: wasmparser::BinaryReaderError| Refused::Invalid(e.to_string());
    let (mut entry, mut memory) = (false, false);
    for payload in Parser::new(0).parse_all(wasm) {
        match payload.map_err(invalid)? {
            Payload::ImportSection(imports) => {
                for import in imports.into_imports() {
                    let import = import.map_err(invalid)?;
                    let known = import.module == wasi::MODULE
                        && wasi::FUNCTIONS.contains(&import.name)
                        && matches!(import.ty, TypeRef::Func(_));
                    if !known {
                        let (module, name) = (import.module.into(), import.name.into());
                        return Err(Refused::Import { module, name });
                    }
                }
            }
            Payload::MemorySection(memories) => {
                for memory in memories {
                    if memory.map_err(invalid)?.shared {
                        return Err(Refused::SharedMemory);
                    }
                }
            }
            Payload::ExportSection(exports) => {
                for export in exports {
                    let export = export.map_err(invalid)?;
                    entry |= export.name == "_start" && export.kind == ExternalKind::Func;
                    memory |= export.name == "memory" && export.kind == ExternalKind::Memory;
                }
            }
            // The code is wasmtime's to read.
            Payload::CodeSectionStart { .. } => break,
            _ => {}
        }
    }
    match (entry, memory) {
        (true, true) => Ok(()),
        (false, _) => Err(Refused::Export { name: "_start".into() }),
        (_, false) => Err(Refused::Export { name: "memory".into() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(wat: &str, why: &str) {
        let wasm = wat::parse_str(wat).unwrap();
        assert_eq!(check(&wasm).unwrap_err().to_string(), why);
    }

    #[test]
    fn what_is_refused() {
        assert!(matches!(check(b""), Err(Refused::NotWasm { .. })));
        assert!(matches!(check(b"#!/bin/sh"), Err(Refused::NotWasm { .. })));
        assert_eq!(check(b"\0asm\x0d\0\x01\0"), Err(Refused::Component));
        refused(
            "(module (import \"env\" \"clock\" (func)))",
            "it imports `env` `clock`; only functions of `wasi_snapshot_preview1` are there",
        );
        refused(
            "(module (import \"wasi_snapshot_preview1\" \"fork\" (func)))",
            "it imports `wasi_snapshot_preview1` `fork`; only functions of `wasi_snapshot_preview1` are there",
        );
        refused(
            "(module (import \"wasi_snapshot_preview1\" \"fd_read\" (memory 1)))",
            "it imports `wasi_snapshot_preview1` `fd_read`; only functions of `wasi_snapshot_preview1` are there",
        );
        refused("(module (memory 1 1 shared))", "it has a shared memory; there are no threads");
        refused("(module (memory (export \"memory\") 1))", "it does not export `_start`");
        refused("(module (func (export \"_start\")))", "it does not export `memory`");
        let ok = "(module (memory (export \"memory\") 1) (func (export \"_start\")))";
        assert_eq!(check(&wat::parse_str(ok).unwrap()), Ok(()));
    }

    #[test]
    fn all_functions_of_the_standard() {
        assert_eq!(wasi::FUNCTIONS.len(), 46);
    }
}
