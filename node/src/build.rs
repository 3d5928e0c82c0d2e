//! Executing an action: wasm steps in a process of their own, over a file system that only they see.
//!
//! ```text
//! graph.rs ─▶ Builder::build ─▶ modules.rs   compiled code for the steps
//!                            ─▶ worker.rs    a child process: vfs.rs, wasi.rs, engine.rs
//!                            ─▶ store        the archives of the outputs, hashed here again
//! ```
//!
//! A build completes, with outputs that are a function of its action, or it aborts. Limits, crashes
//! and time-outs only ever abort, so that they may differ from machine to machine.

mod aot;
mod content;
mod engine;
mod errno;
mod frames;
mod job;
mod limits;
mod modules;
#[doc(hidden)]
pub mod probe;
mod recorder;
mod vfs;
mod wasi;
mod worker;

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use protocol::{
    action::{Action, BuildAction},
    id::ActionId,
    name::Name,
    output::Output,
    trace::Trace,
    witness::TranscriptHash,
};
use store::Store;
use tokio::{
    io::{AsyncRead, AsyncWriteExt},
    process::Command,
};

pub use engine::{Refused, check, engine, fingerprint};
pub use errno::Abort;
pub use frames::FrameError;
pub use job::{Failure, Usage};
pub use limits::Limits;
pub use modules::{ModuleError, Modules};
pub use recorder::{Call, Region};
pub use worker::{compile, main as worker_main};

pub(crate) use aot::load as load_compiled;
pub(crate) use errno::Errno;
pub use wasi::name as function_name;
pub(crate) use wasi::{MODULE, Mem};
pub(crate) use worker::frames as frames_of;

/// The stack of a thread that wasm runs on, in bytes.
pub(crate) const fn stack_bytes() -> usize {
    engine::THREAD_STACK_BYTES
}

use job::{Answer, Done, Frame, Job};
use recorder::Tracing;

/// Lines of a failed build's log that its error carries.
const TAIL_LINES: usize = 25;

/// Bytes of a failed build's log that its error carries at most.
const TAIL_BYTES: usize = 16 << 10;

/// What happens during a build.
#[derive(Debug)]
pub enum Progress<'p> {
    /// A module is compiled to machine code first; `bytes` is its size.
    Compiling {
        /// Its guest path.
        module: &'p str,
        /// Bytes of wasm.
        bytes: usize,
    },
    /// A step begins.
    Step {
        /// Counted from 1.
        step: usize,
        /// How many there are.
        of: usize,
    },
    /// The guest wrote to its log.
    Log(&'p [u8]),
}

/// What a build made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// By name, archived and in the store.
    pub outputs: BTreeMap<Name, Output>,
    /// What it used.
    pub usage: Usage,
    /// What its guests did, hashed.
    pub transcript: TranscriptHash,
    /// How long it took.
    pub took: Duration,
}

/// Why a build gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The build itself failed.
    #[error("{failure}")]
    Failed {
        /// How.
        failure: Failure,
        /// The end of its log.
        tail: String,
        /// Where its files were left, if that was asked for.
        kept: Option<PathBuf>,
    },
    /// It took longer than it may.
    #[error("it took longer than {seconds} s")]
    TimedOut {
        /// Seconds allowed.
        seconds: u64,
        /// The end of its log.
        tail: String,
    },
    /// The worker process died: it was killed, or the engine has a bug.
    #[error("the worker process ended without an answer ({status})")]
    Crashed {
        /// How it ended.
        status: ExitStatus,
        /// The end of its log.
        tail: String,
    },
    /// A step's module cannot be compiled.
    #[error("step {step}: `{module}` cannot be used")]
    Module {
        /// Counted from 1.
        step: usize,
        /// Its guest path.
        module: String,
        /// Why not.
        #[source]
        source: ModuleError,
    },
    /// The store does not have an input.
    #[error("input `{input}` is not in the store")]
    Input {
        /// Its mount name.
        input: Name,
        /// Why not.
        #[source]
        source: store::GetError,
    },
    /// An output was not taken by the store.
    #[error("output `{output}` cannot be stored")]
    Admit {
        /// Its name.
        output: Name,
        /// Why not.
        #[source]
        source: store::AdmitError,
    },
    /// The worker process could not be talked to.
    #[error("cannot talk to the worker process")]
    Talk(#[source] FrameError),
    /// This machine's disk failed, or is full.
    #[error("cannot {what}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

fn io(what: &'static str) -> impl FnOnce(io::Error) -> BuildError {
    move |source| BuildError::Io { what, source }
}

/// Builds actions for one store.
pub struct Builder {
    store: Arc<Store>,
    modules: Modules,
    executable: PathBuf,
}

/// How an action is to be built.
#[derive(Debug, Clone)]
pub struct Options {
    /// What it may use.
    pub limits: Limits,
    /// Where the files of a failed build are left.
    pub keep_failed: Option<PathBuf>,
}

impl Builder {
    /// `executable` is this program, which is its own worker.
    pub fn new(store: Arc<Store>, executable: &Path) -> Self {
        let modules = Modules::new(store.modules_dir(), executable);
        Self { store, modules, executable: executable.into() }
    }

    /// The store it builds for.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// The compiled modules.
    pub fn modules(&self) -> &Modules {
        &self.modules
    }

    /// Builds an action. All its inputs must be in the store; its outputs will be. Nothing is
    /// recorded: what the outputs mean is the caller's to say.
    ///
    /// # Errors
    ///
    /// [`BuildError`]; the log is kept in any case.
    pub async fn build(
        &self,
        build: &BuildAction,
        options: &Options,
        progress: &(dyn Fn(Progress<'_>) + Send + Sync),
    ) -> Result<Built, BuildError> {
        let begun = Instant::now();
        let (scratch, ended) = self.execute(build, options, None, progress).await?;
        let done = ended?;
        let outputs = self.admit(build, scratch.path()).await?;
        let transcript = TranscriptHash::from_bytes(done.transcript);
        Ok(Built { outputs, usage: done.usage, transcript, took: begun.elapsed() })
    }

    /// Executes an action for nothing but its trace, also if it fails; and, if that is asked for, for
    /// the call at mark `call`. Its inputs must be in the store.
    ///
    /// # Errors
    ///
    /// [`BuildError`], if it had to be broken off.
    pub async fn trace(
        &self,
        build: &BuildAction,
        limits: Limits,
        call: Option<usize>,
        progress: &(dyn Fn(Progress<'_>) + Send + Sync),
    ) -> Result<(Trace, Option<Call>), BuildError> {
        let options = Options { limits, keep_failed: None };
        let (scratch, ended) = self.execute(build, &options, Some(Tracing { call }), progress).await?;
        match ended {
            Ok(_) => {}
            Err(BuildError::Failed { failure, .. }) if failure.ending().is_some() => {}
            Err(error) => return Err(error),
        }
        // The worker has run foreign code.
        let read = |name: &str| -> io::Result<Vec<u8>> {
            let mut bytes = Vec::new();
            let file = fs::File::open(scratch.path().join(name))?;
            file.take(Trace::MAX_BYTES + 1).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        let trace = read("trace").and_then(|bytes| Trace::from_bytes(&bytes).map_err(invalid));
        let trace = trace.map_err(io("read the trace"))?;
        let call = match call {
            Some(_) => read("call").ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()),
            None => None,
        };
        Ok((trace, call))
    }

    /// Executes an action: where its files are, and what its worker says.
    async fn execute(
        &self,
        build: &BuildAction,
        options: &Options,
        tracing: Option<Tracing>,
        progress: &(dyn Fn(Progress<'_>) + Send + Sync),
    ) -> Result<(tempfile::TempDir, Result<Done, BuildError>), BuildError> {
        let action = Action::Build(build.clone());
        let id = action.id();
        let scratch = self.store.temp_dir().map_err(io("make a temporary directory"))?;
        let mut inputs = BTreeMap::new();
        for (name, hash) in &build.inputs {
            if !self.store.contains(hash) {
                let source = store::GetError::Missing { hash: *hash };
                return Err(BuildError::Input { input: name.clone(), source });
            }
            inputs.insert(name.to_string(), self.store.nar_path(hash));
        }
        let job = Job {
            action: action.to_bytes(),
            inputs,
            modules: self.compile(build, progress).await?,
            limits: options.limits,
            scratch: scratch.path().to_owned(),
            keep_failed: options.keep_failed.is_some(),
            tracing,
        };
        let mut log = Log::new(&self.store, &id)?;
        let steps = build.recipe.steps.len();
        let seconds = options.limits.seconds;
        let work = self.work(&job, steps, &mut log, progress);
        let answer = tokio::time::timeout(Duration::from_secs(seconds), work).await;
        let tail = log.tail();
        let ended = match answer {
            Err(_) => Err(BuildError::TimedOut { seconds, tail }),
            Ok(Ok(Answer::Built(done))) => Ok(done),
            Ok(Ok(Answer::Failed(failure))) => {
                let kept = match &options.keep_failed {
                    // The failure is what matters, even if its files cannot be kept.
                    Some(to) => keep(scratch.path(), &unused(to)).ok(),
                    None => None,
                };
                Err(BuildError::Failed { failure, tail, kept })
            }
            Ok(Err(Ended::Crashed(status))) => Err(BuildError::Crashed { status, tail }),
            Ok(Err(Ended::Error(error))) => Err(error),
        };
        Ok((scratch, ended))
    }

    /// Compiled code for every step whose module is in an input.
    async fn compile(
        &self,
        build: &BuildAction,
        progress: &(dyn Fn(Progress<'_>) + Send + Sync),
    ) -> Result<BTreeMap<String, PathBuf>, BuildError> {
        let mut compiled = BTreeMap::new();
        for (n, step) in build.recipe.steps.iter().enumerate() {
            let module = step.run.as_str();
            let Some((input, path)) = step.run.in_input() else { continue };
            if compiled.contains_key(module) {
                continue;
            }
            let Some((name, hash)) = build.inputs.iter().find(|(n, _)| n.as_str() == input) else {
                continue;
            };
            let archive = self.store.open_nar(hash);
            let archive = archive.map_err(|source| BuildError::Input { input: name.clone(), source })?;
            // A path through symlinks is for the worker, which has the whole file system.
            let found = archive.index().lookup(path.as_bytes(), archive.bytes());
            let Some(wasm) = found.and_then(|id| archive.index().content(id, archive.bytes())) else {
                continue;
            };
            let compiling = || progress(Progress::Compiling { module, bytes: wasm.len() });
            let code = self.modules.compiled(wasm, compiling).await.map_err(|source| BuildError::Module {
                step: n + 1,
                module: module.into(),
                source,
            })?;
            compiled.insert(module.to_owned(), code);
        }
        Ok(compiled)
    }

    /// Runs the worker and listens to it until its answer.
    async fn work(
        &self,
        job: &Job,
        steps: usize,
        log: &mut Log,
        progress: &(dyn Fn(Progress<'_>) + Send + Sync),
    ) -> Result<Answer, Ended> {
        let mut child = Command::new(&self.executable)
            .args(["worker", "build"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(io("start a worker process"))?;
        let (Some(mut input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(BuildError::Talk(FrameError::Closed).into());
        };
        let text = serde_json::to_vec(job).map_err(|e| BuildError::Talk(e.into()))?;
        // A worker that dies before it has read its job shows in how it ended.
        let _ = input.write_all(&text).await;
        drop(input);
        let mut output = tokio::io::BufReader::new(output);
        match listen(&mut output, steps, log, progress).await {
            Ok(answer) => Ok(answer),
            Err(BuildError::Talk(FrameError::Closed)) => {
                Err(Ended::Crashed(child.wait().await.map_err(io("wait for a worker process"))?))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Takes the archives that the worker left into the store: hashed and checked here, because
    /// the worker had run foreign code.
    async fn admit(&self, build: &BuildAction, scratch: &Path) -> Result<BTreeMap<Name, Output>, BuildError> {
        let mut outputs = BTreeMap::new();
        for name in &build.recipe.outputs {
            let path = scratch.join(format!("{name}.nar"));
            let file = fs::File::open(&path).map_err(io("open an output"))?;
            let path = tempfile::TempPath::try_from_path(path).map_err(io("open an output"))?;
            let file = tempfile::NamedTempFile::from_parts(file, path);
            let store = self.store.clone();
            let admitted = tokio::task::spawn_blocking(move || store.admit_file(file, None)).await;
            let admitted = admitted
                .map_err(|e| BuildError::Io { what: "store an output", source: e.into() })?
                .map_err(|source| BuildError::Admit { output: name.clone(), source })?;
            outputs.insert(name.clone(), Output { nar: admitted.hash, size: admitted.size });
        }
        Ok(outputs)
    }
}

/// How a worker's work ended without an answer.
enum Ended {
    Crashed(ExitStatus),
    Error(BuildError),
}

impl From<BuildError> for Ended {
    fn from(error: BuildError) -> Self {
        Self::Error(error)
    }
}

async fn listen(
    from: &mut (impl AsyncRead + Unpin),
    steps: usize,
    log: &mut Log,
    progress: &(dyn Fn(Progress<'_>) + Send + Sync),
) -> Result<Answer, BuildError> {
    loop {
        match frames::next(from).await.map_err(BuildError::Talk)? {
            Some((Frame::Log, bytes)) => {
                log.append(&bytes)?;
                progress(Progress::Log(&bytes));
            }
            Some((Frame::Step, bytes)) => {
                let step = serde_json::from_slice(&bytes).map_err(|e| BuildError::Talk(e.into()))?;
                progress(Progress::Step { step, of: steps });
            }
            Some((Frame::Answer, bytes)) => {
                return serde_json::from_slice(&bytes).map_err(|e| BuildError::Talk(e.into()));
            }
            None => return Err(BuildError::Talk(FrameError::Closed)),
        }
    }
}

/// A path like this one that does not exist yet.
fn unused(path: &Path) -> PathBuf {
    let numbered = |n| PathBuf::from(format!("{}-{n}", path.display()));
    let candidates = std::iter::once(path.to_owned()).chain((2..1000).map(numbered));
    candidates.into_iter().find(|path| !path.exists()).unwrap_or_else(|| path.to_owned())
}

/// Unpacks what a failed build left behind.
fn keep(scratch: &Path, to: &Path) -> Result<PathBuf, BuildError> {
    let failed = io("keep the files of the failed build");
    let result = (|| {
        fs::create_dir_all(to)?;
        for entry in fs::read_dir(scratch)? {
            let path = entry?.path();
            let name = path.file_stem().and_then(|n| n.to_str()).unwrap_or_default();
            if let Some(directory) = name.strip_prefix("kept-") {
                let archive = store::Archive::open(&path).map_err(io::Error::other)?;
                archive.unpack(&to.join(directory)).map_err(io::Error::other)?;
            }
        }
        Ok(to.to_owned())
    })();
    result.map_err(failed)
}

/// The log of a build: a file of the store, and its end in memory.
struct Log {
    file: fs::File,
    tail: Vec<u8>,
}

impl Log {
    fn new(store: &Store, id: &ActionId) -> Result<Self, BuildError> {
        let file = store.create_log(id).map_err(io("create the log"))?;
        Ok(Self { file, tail: Vec::new() })
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), BuildError> {
        io::Write::write_all(&mut self.file, bytes).map_err(io("write the log"))?;
        self.tail.extend_from_slice(bytes);
        if self.tail.len() > 2 * TAIL_BYTES {
            self.tail.drain(..self.tail.len() - TAIL_BYTES);
        }
        Ok(())
    }

    /// The last lines.
    fn tail(&self) -> String {
        let text = String::from_utf8_lossy(&self.tail[self.tail.len().saturating_sub(TAIL_BYTES)..]);
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }
}
