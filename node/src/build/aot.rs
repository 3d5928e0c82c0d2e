//! Loading compiled code: the one place of this crate with `unsafe`.

use std::path::Path;

use wasmtime::{Engine, Module};

/// Maps a compiled module.
///
/// # Errors
///
/// wasmtime's, when the file is missing or was compiled by another version or for another machine.
#[allow(unsafe_code)]
pub(crate) fn load(engine: &Engine, path: &Path) -> wasmtime::Result<Module> {
    // SAFETY: compiled code is as trusted as this program. It is only ever written by our own
    // compiler process into `modules/`, a directory of this user with mode 0700, under a name that
    // is renamed into place whole; its digest is compared by the parent before the path is handed
    // out (`modules.rs`), and no peer's bytes ever get there. wasmtime itself checks version,
    // target and configuration.
    unsafe { Module::deserialize_file(engine, path) }
}
