//! Running a program that was built: with the real world, but only what its user grants.
//!
//! Unlike a build this is not deterministic, so the standard implementation of WASI serves it. A
//! program gets stdin, stdout, stderr and its arguments; directories, variables and listening
//! sockets only by name.

mod net;

use std::path::{Path, PathBuf};

use tokio::sync::oneshot;
use wasmtime::{Linker, Module, Store, Trap, WasmBacktrace};
use wasmtime_wasi::{FsPerms, I32Exit, WasiCtxBuilder};

pub use net::{ListenError, Listener};

use crate::build::{engine, load_compiled, stack_bytes};

/// A directory that a program may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The directory.
    pub host: PathBuf,
    /// What the program knows it as.
    pub guest: String,
    /// Whether it may only be read.
    pub read_only: bool,
}

/// What a program is given.
#[derive(Debug, Default)]
pub struct Grants {
    /// Its arguments, its own name at the front.
    pub args: Vec<String>,
    /// Its environment; `LISTEN_FDS` and `LISTEN_FDNAMES` come with listeners, unless they are here.
    pub env: Vec<(String, String)>,
    /// Its directories.
    pub directories: Vec<Grant>,
    /// Its listening sockets, as descriptors from 3 on.
    pub listeners: Vec<Listener>,
}

/// Why a program did not run to its end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A directory cannot be opened.
    #[error("cannot grant `{path}`: {why}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// It trapped.
    #[error("the program trapped: {trap}")]
    Trap {
        /// What happened.
        trap: String,
        /// The wasm frames, innermost first.
        backtrace: Vec<String>,
    },
    /// It cannot be started.
    #[error("the program cannot be started: {0}")]
    Start(String),
}

/// Runs compiled code to its end and gives its exit code. One at a time, because stdin belongs to
/// the program.
///
/// The program has a thread to itself, which nothing can end but the program or the end of this
/// process: who drops the future has to exit. `refused` is called from it if the program asks for
/// a network and has no listener, the first time.
///
/// # Errors
///
/// [`RunError`].
pub async fn run(
    compiled: &Path,
    grants: Grants,
    refused: impl FnOnce() + Send + 'static,
) -> Result<i32, RunError> {
    let thread = std::thread::Builder::new().name("guest".into()).stack_size(stack_bytes());
    let compiled = compiled.to_owned();
    let (done, ended) = oneshot::channel();
    let guest = thread.spawn(move || {
        // If nobody waits any longer, this process is about to exit.
        let _ = done.send(on_thread(&compiled, grants, refused));
    });
    let guest = guest.map_err(|e| RunError::Start(e.to_string()))?;
    if let Ok(result) = ended.await {
        return result;
    }
    match guest.join() {
        Ok(()) => Err(RunError::Start("its thread ended".into())),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

fn on_thread(
    compiled: &Path,
    grants: Grants,
    refused: impl FnOnce() + Send + 'static,
) -> Result<i32, RunError> {
    let start = |e: wasmtime::Error| RunError::Start(format!("{e:#}"));
    let engine = engine().map_err(RunError::Start)?;
    let module: Module = load_compiled(engine, compiled).map_err(start)?;
    let mut builder = WasiCtxBuilder::new();
    builder.inherit_stdio().args(&grants.args).envs(&grants.env);
    for (name, value) in net::variables(&grants.listeners) {
        if !grants.env.iter().any(|(given, _)| *given == name) {
            builder.env(name, value);
        }
    }
    // The guest has this thread to itself.
    builder.allow_blocking_current_thread(true);
    for Grant { host, guest, read_only } in &grants.directories {
        let perms = if *read_only { FsPerms::ReadOnly } else { FsPerms::ReadWrite };
        builder
            .preopened_dir(host, guest, perms)
            .map_err(|e| RunError::Directory { path: host.clone(), why: e.root_cause().to_string() })?;
    }
    let mut linker = Linker::new(engine);
    net::define(&mut linker, !grants.listeners.is_empty()).map_err(start)?;
    let guest = net::Guest::new(builder.build_p1(), grants.listeners, grants.directories.len(), refused);
    let mut store = Store::new(engine, guest);
    let instance = linker.instantiate(&mut store, &module).map_err(start)?;
    let main = instance.get_typed_func::<(), ()>(&mut store, "_start").map_err(start)?;
    let Err(error) = main.call(&mut store, ()) else { return Ok(0) };
    if let Some(I32Exit(code)) = error.downcast_ref() {
        return Ok(*code);
    }
    let trap = match error.downcast_ref::<Trap>() {
        Some(trap) => trap.to_string(),
        None => error.root_cause().to_string(),
    };
    let backtrace = error.downcast_ref::<WasmBacktrace>().map(crate::build::frames_of).unwrap_or_default();
    Err(RunError::Trap { trap, backtrace })
}
