//! Compiled modules, kept from one build to the next.
//!
//! Compiling clang takes a minute and two, mapping the compiled code 15 ms. A compiled module is
//! machine code of this machine and never comes from anywhere else: a child process compiles it,
//! its digest lies beside it, and the digest is compared once in each process that uses it.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::{io::AsyncWriteExt, process::Command, sync::OnceCell};

use super::{
    engine::{self, Refused},
    frames::{self, FrameError},
    job::Frame,
};

/// The longest that compiling may take. clang takes two minutes on two busy cores.
const COMPILE_TIME: Duration = Duration::from_secs(1800);

/// Why there is no compiled module.
#[derive(Debug, thiserror::Error)]
pub enum ModuleError {
    /// It is not run.
    #[error("{0}")]
    Refused(Refused),
    /// The compiler process died: its memory ran out, or the engine has a bug.
    #[error("the compiler process ended without an answer ({0})")]
    Crashed(std::process::ExitStatus),
    /// The compiler process took too long.
    #[error("compiling took longer than {} s", COMPILE_TIME.as_secs())]
    TimedOut,
    /// The compiler process could not be talked to.
    #[error("cannot talk to the compiler process")]
    Talk(#[source] FrameError),
    /// The directory of compiled modules cannot be used.
    #[error("cannot use `{path}`")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// This machine cannot run wasmtime.
    #[error("wasmtime does not start: {0}")]
    Engine(String),
}

/// The compiled modules of a store.
pub struct Modules {
    directory: PathBuf,
    executable: PathBuf,
    /// One cell for each module in use, so that it is compiled and verified once.
    known: Mutex<HashMap<String, Arc<OnceCell<PathBuf>>>>,
}

impl Modules {
    /// Keeps compiled modules in `directory`; `executable` is this program, to be its own worker.
    pub fn new(directory: &Path, executable: &Path) -> Self {
        Self { directory: directory.into(), executable: executable.into(), known: Mutex::default() }
    }

    /// The file with the compiled code of `wasm`; `compiling` is called if it must be compiled first.
    ///
    /// # Errors
    ///
    /// [`ModuleError`]. [`ModuleError::Refused`] is the module's fault, the others are this machine's.
    pub async fn compiled(&self, wasm: &[u8], compiling: impl FnOnce()) -> Result<PathBuf, ModuleError> {
        let engine = engine::engine().map_err(ModuleError::Engine)?;
        let hash = blake3::Hasher::new().update_rayon(wasm).finalize().to_hex();
        let name = format!("{hash}-{}", engine::fingerprint(engine));
        let cell = {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.entry(name.clone()).or_default().clone()
        };
        let path = cell.get_or_try_init(|| self.obtain(&name, wasm, compiling)).await?;
        Ok(path.clone())
    }

    async fn obtain(
        &self,
        name: &str,
        wasm: &[u8],
        compiling: impl FnOnce(),
    ) -> Result<PathBuf, ModuleError> {
        let path = self.directory.join(format!("{name}.cwasm"));
        let digest = path.with_extension("b3");
        if intact(&path, &digest) {
            // The time of last use is what old modules are collected by; losing it is no harm.
            for file in [&path, &digest] {
                let _ = fs::File::open(file).and_then(|file| file.set_modified(SystemTime::now()));
            }
            return Ok(path);
        }
        compiling();
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| ModuleError::Io { path, source }
        };
        fs::create_dir_all(&self.directory).map_err(failed(&self.directory))?;
        let new = tempfile::NamedTempFile::new_in(&self.directory).map_err(failed(&self.directory))?;
        self.compile(wasm, new.path()).await?;
        let code = fs::read(new.path()).map_err(failed(new.path()))?;
        let hash = blake3::Hasher::new().update_rayon(&code).finalize().to_hex();
        fs::write(&digest, hash.as_str()).map_err(failed(&digest))?;
        new.persist(&path).map_err(|e| failed(&path)(e.error))?;
        Ok(path)
    }

    async fn compile(&self, wasm: &[u8], to: &Path) -> Result<(), ModuleError> {
        let mut child = Command::new(&self.executable)
            .args(["worker", "compile"])
            .arg(to)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| ModuleError::Io { path: self.executable.clone(), source })?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let answer = async {
            if let Some(mut input) = input {
                // A worker that refuses early closes its end; what it says then tells why.
                let _ = input.write_all(wasm).await;
            }
            let mut output = output.ok_or(FrameError::Closed)?;
            match frames::next(&mut output).await? {
                Some((Frame::Answer, bytes)) => Ok(serde_json::from_slice(&bytes)?),
                _ => Err(FrameError::Closed),
            }
        };
        match tokio::time::timeout(COMPILE_TIME, answer).await {
            Err(_) => Err(ModuleError::TimedOut),
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(refused))) => Err(ModuleError::Refused(refused)),
            Ok(Err(FrameError::Closed)) => match child.wait().await {
                Ok(status) => Err(ModuleError::Crashed(status)),
                Err(e) => Err(ModuleError::Talk(e.into())),
            },
            Ok(Err(error)) => Err(ModuleError::Talk(error)),
        }
    }
}

/// Whether a compiled module is whole: its digest is the one beside it.
fn intact(path: &Path, digest: &Path) -> bool {
    let Ok(expected) = fs::read_to_string(digest) else { return false };
    let mut hasher = blake3::Hasher::new();
    match hasher.update_mmap_rayon(path) {
        Ok(hasher) => hasher.finalize().to_hex().as_str() == expected,
        Err(_) => false,
    }
}
