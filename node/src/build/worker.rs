//! The process in which a build runs: one action, its steps in order, over one file system.
//!
//! ```text
//! stdin: Job ─▶ mount inputs ─▶ for each step: load, run ─▶ archive outputs ─▶ stdout: Answer
//! ```
//!
//! It lowers its own limits before it reads a byte of anything foreign, and dies with its parent.
//! It knows nothing of the store but the archives and modules it was given.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _, Write as _},
    path::Path,
    process::ExitCode,
};

use protocol::{
    action::{Action, BuildAction},
    derivation::Step,
    glob::Glob,
    name::GuestPath,
};
use wasmtime::{Linker, Module, Store, Trap, WasmBacktrace};

use super::{
    aot,
    engine::{self, THREAD_STACK_BYTES},
    errno::Abort,
    job::{Answer, Done, Failure, Frame, Job, Usage, send},
    limits::{Limiter, Limits},
    recorder::Recorder,
    vfs::{Id, Quota, ROOT, Vfs},
    wasi::{self, EPOCH, End, Guest, Start, World, preopens},
};
use crate::process;

/// The longest job a worker reads: an action with thousands of inputs and their paths.
const JOB_BYTES: u64 = 64 << 20;

/// The most wasm frames of a backtrace.
const BACKTRACE_FRAMES: usize = 32;

/// Host memory beside the guest's: the engine, the index of inputs, files before they spill.
const HOST_BYTES: u64 = 4 << 30;

/// Runs the job on stdin; the body of `assize worker build`.
pub fn main() -> ExitCode {
    process::die_with_parent();
    let mut text = Vec::new();
    if io::stdin().take(JOB_BYTES).read_to_end(&mut text).is_err() {
        return ExitCode::FAILURE;
    }
    let Ok(job) = serde_json::from_slice::<Job>(&text) else { return ExitCode::FAILURE };
    process::limit_self(job.limits.memory.saturating_add(HOST_BYTES));
    process::raise_descriptors();
    let thread = std::thread::Builder::new().name("guest".into()).stack_size(THREAD_STACK_BYTES);
    let answer = match thread.spawn(move || build(&job)).map(std::thread::JoinHandle::join) {
        Ok(Ok(Ok(done))) => Answer::Built(done),
        Ok(Ok(Err(failure))) => Answer::Failed(*failure),
        Ok(Err(_panic)) => return ExitCode::FAILURE,
        Err(error) => Answer::Failed(Failure::Setup(error.to_string())),
    };
    let Ok(bytes) = serde_json::to_vec(&answer) else { return ExitCode::FAILURE };
    match send(&mut io::stdout(), Frame::Answer, &bytes) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

type Result<T, E = Box<Failure>> = std::result::Result<T, E>;

fn setup(why: impl std::fmt::Display) -> Box<Failure> {
    Box::new(Failure::Setup(why.to_string()))
}

fn build(job: &Job) -> Result<Done> {
    let action = match Action::from_bytes(&job.action) {
        Ok(action @ Action::Build(_)) => action,
        Ok(Action::Fetch(_)) => return Err(setup("a fetch is not built")),
        Err(error) => return Err(setup(error)),
    };
    let id = action.id();
    let Action::Build(build) = &action else { return Err(setup("a fetch is not built")) };
    let (vfs, outputs) = mount(build, job)?;
    let log = Box::new(Pipe { left: job.limits.log, limit: job.limits.log });
    let mut world = World::new(vfs, log, &id, Recorder::new(&id, job.tracing));
    let mut usage = Usage::default();
    let mut loaded = BTreeMap::new();
    for (n, step) in build.recipe.steps.iter().enumerate() {
        world.recorder.step(n as u32);
        let _ = send(&mut io::stdout(), Frame::Step, (n + 1).to_string().as_bytes());
        let run = Run { step, number: n + 1, build, job };
        let (after, result) = run.run(world, &mut loaded, &mut usage);
        world = after;
        usage.disk = usage.disk.max(world.vfs.peak_bytes());
        if let Err(failure) = result {
            if job.keep_failed {
                // What cannot be archived is not kept; the failure is what matters.
                let _ = keep(&world.vfs, &job.scratch, &job.limits);
            }
            world.recorder.leave(&job.scratch).map_err(setup)?;
            return Err(failure);
        }
    }
    for (name, id) in &outputs {
        archive(&world.vfs, *id, build, &job.limits, &job.scratch.join(format!("{name}.nar")))
            .map_err(|why| Failure::Output { output: name.clone(), why })?;
    }
    world.recorder.leave(&job.scratch).map_err(setup)?;
    Ok(Done { usage, transcript: *world.recorder.finish().as_bytes() })
}

/// Lays out the root: inputs, outputs, `/build`, `/tmp` (SPEC §7.2).
fn mount(build: &BuildAction, job: &Job) -> Result<(Vfs, Vec<(String, Id)>)> {
    let quota = Quota { bytes: job.limits.disk, files: job.limits.files };
    let mut vfs = Vfs::new(EPOCH, quota, &job.scratch);
    let inputs = vfs.fixture("in", true);
    for name in build.inputs.keys() {
        let path = job.inputs.get(name.as_str()).ok_or_else(|| setup(format!("no archive of `{name}`")))?;
        let archive = store::Archive::open(path).map_err(setup)?;
        vfs.mount(inputs, name.as_str(), archive);
    }
    vfs.fixture("build", false);
    vfs.fixture("tmp", false);
    let mut outputs = Vec::new();
    for name in &build.recipe.outputs {
        let id = vfs.fixture(&name.output_mount()[1..], false);
        outputs.push((name.to_string(), id));
    }
    Ok((vfs, outputs))
}

fn archive(
    vfs: &Vfs,
    top: Id,
    build: &BuildAction,
    limits: &Limits,
    to: &Path,
) -> std::result::Result<(), String> {
    let globs = build.recipe.executable.iter().map(Glob::new).collect::<Result<Vec<_>, _>>();
    let globs = globs.map_err(|e| e.to_string())?;
    let file = File::create(to).map_err(|e| e.to_string())?;
    let to = io::BufWriter::with_capacity(1 << 20, Capped { to: file, left: archive_bytes(limits) });
    vfs.pack(top, to, |path| globs.iter().any(|g| g.matches(path))).map_err(|e| match e {
        protocol::nar::WriteError::Io(error) => error.to_string(),
        other => other.to_string(),
    })
}

/// Leaves what a failed build wrote as `kept-<directory>.nar`.
fn keep(vfs: &Vfs, scratch: &Path, limits: &Limits) -> io::Result<()> {
    for (name, id) in vfs.entries(ROOT, None) {
        if name == b"in" {
            continue;
        }
        let path = scratch.join(format!("kept-{}.nar", String::from_utf8_lossy(name)));
        let to = Capped { to: File::create(&path)?, left: archive_bytes(limits) };
        if vfs.pack(id, io::BufWriter::new(to), |_| false).is_err() {
            std::fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// What an archive may take: files count once in the file system and once for each name in an
/// archive, so hard links could make it much larger. Twice the disk limit has room for the
/// archive's own bytes.
fn archive_bytes(limits: &Limits) -> u64 {
    limits.disk.saturating_mul(2).saturating_add(1 << 20)
}

/// A sink that takes so many bytes and no more.
struct Capped {
    to: File,
    left: u64,
}

impl io::Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.left {
            return Err(io::Error::other("its archive is beyond the disk limit"));
        }
        let n = self.to.write(bytes)?;
        self.left -= n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// The log, as frames to the parent.
struct Pipe {
    left: u64,
    limit: u64,
}

impl wasi::Log for Pipe {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Abort> {
        let pass = self.left.min(bytes.len() as u64) as usize;
        self.left -= pass as u64;
        send(&mut io::stdout().lock(), Frame::Log, &bytes[..pass]).map_err(|e| Abort::Host(e.to_string()))?;
        if pass < bytes.len() {
            return Err(Abort::Log { limit: self.limit });
        }
        Ok(())
    }
}

/// One step about to run.
struct Run<'j> {
    step: &'j Step,
    number: usize,
    build: &'j BuildAction,
    job: &'j Job,
}

impl Run<'_> {
    fn program(&self) -> String {
        self.step.args.first().cloned().unwrap_or_else(|| self.step.run.to_string())
    }

    fn place(&self, what: &str, path: &GuestPath, why: impl std::fmt::Display) -> Box<Failure> {
        let (what, path, why) = (what.into(), path.to_string(), why.to_string());
        Box::new(Failure::Place { step: self.number, what, path, why })
    }

    /// Runs the step; gives back the world whatever happened, to be looked at.
    fn run(
        &self,
        mut world: World,
        loaded: &mut BTreeMap<GuestPath, Module>,
        usage: &mut Usage,
    ) -> (World, Result<()>) {
        let module = match self.module(&world.vfs, loaded) {
            Ok(module) => module,
            Err(failure) => return (world, Err(failure)),
        };
        let start = match self.start(&mut world) {
            Ok(start) => start,
            Err(failure) => return (world, Err(failure)),
        };
        let limiter = Limiter::new(self.job.limits.memory);
        let mut store = Store::new(module.engine(), Guest::new(world, limiter, start));
        store.limiter(|guest| &mut guest.limiter);
        let result = call(&mut store, &module);
        let guest = store.into_data();
        usage.memory = usage.memory.max(guest.limiter.peak());
        (guest.into_world(), result.map_err(|e| Box::new(self.failure(&e))))
    }

    /// The module: compiled by the parent when it is in an input, here when a step wrote it.
    fn module(&self, vfs: &Vfs, loaded: &mut BTreeMap<GuestPath, Module>) -> Result<Module> {
        let path = &self.step.run;
        if let Some(module) = loaded.get(path) {
            return Ok(module.clone());
        }
        let engine = engine::engine().map_err(setup)?;
        if let Some(compiled) = self.job.modules.get(path.as_str()) {
            let module = aot::load(engine, compiled).map_err(|e| setup(format!("{e:#}")))?;
            loaded.insert(path.clone(), module.clone());
            return Ok(module);
        }
        let (step, path) = (self.number, path.to_string());
        let refused = |refused| Box::new(Failure::Refused { step, path: path.clone(), refused });
        let id = vfs.find(ROOT, &path.as_bytes()[1..], true);
        if id.is_ok_and(|id| vfs.len(id) > MODULE_BYTES) {
            return Err(refused(engine::Refused::Invalid(format!("it has more than {MODULE_BYTES} bytes"))));
        }
        let bytes = id.map_err(Into::into).and_then(|id| vfs.read_all(id));
        let bytes = bytes.map_err(|_| Box::new(Failure::NoModule { step, path: path.clone() }))?;
        engine::check(&bytes).map_err(refused)?;
        // Not kept: a later step may write another module to the same path.
        Module::new(engine, &bytes).map_err(|e| refused(engine::Refused::Invalid(format!("{e:#}"))))
    }

    fn start(&self, world: &mut World) -> Result<Start> {
        let step = self.step;
        let below = |path: &GuestPath| path.as_str().as_bytes()[1..].to_vec();
        let cwd = step.cwd.as_ref();
        let preopens = preopens(&world.vfs, cwd.map(GuestPath::as_str))
            .map_err(|e| self.place("the directory", cwd.unwrap_or(&step.run), e))?;
        let stdin = match &step.stdin {
            None => {
                let document = self.build.stdin_document().into_bytes();
                world.vfs.anonymous(document).map_err(setup)?
            }
            Some(path) => {
                let id = world.vfs.find(ROOT, &below(path), true);
                let id = id.map_err(|e| self.place("stdin", path, e))?;
                world.vfs.hold(id);
                id
            }
        };
        let stdout = match &step.stdout {
            None => None,
            Some(path) => Some(create(world, &below(path)).map_err(|e| self.place("stdout", path, e))?),
        };
        let mut env: Vec<_> = self.build.recipe.env.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        if let Some(cwd) = cwd
            && !self.build.recipe.env.contains_key("PWD")
        {
            env.push(("PWD".into(), cwd.to_string()));
        }
        Ok(Start { args: step.args.clone(), env, stdin, stdout, preopens })
    }

    fn failure(&self, error: &wasmtime::Error) -> Failure {
        let (step, program) = (self.number, self.program());
        match error.downcast_ref::<End>() {
            Some(End::Exit(code)) => return Failure::Exit { step, program, code: *code },
            Some(End::Signal(signal)) => {
                return Failure::Signal { step, program, signal: *signal };
            }
            Some(End::Abort(abort)) => {
                return Failure::Abort { step, program, abort: abort.clone() };
            }
            None => {}
        }
        let (trap, certain) = match error.downcast_ref::<Trap>() {
            Some(trap) => (trap.to_string(), *trap != Trap::StackOverflow),
            None => (error.root_cause().to_string(), false),
        };
        let backtrace = error.downcast_ref::<WasmBacktrace>().map(frames).unwrap_or_default();
        Failure::Trap { step, program, trap, backtrace, certain }
    }
}

/// Creates or truncates the file that a step's stdout becomes, and the directories above it; held.
fn create(world: &mut World, path: &[u8]) -> std::result::Result<Id, super::errno::Stop> {
    let now = world.now();
    let vfs = &mut world.vfs;
    for (at, _) in path.iter().enumerate().filter(|(_, b)| **b == b'/') {
        let place = vfs.resolve(ROOT, &path[..at], true)?;
        if place.node.is_none() {
            vfs.make_directory(&place, now)?;
        }
    }
    let place = vfs.resolve(ROOT, path, true)?;
    let id = match place.node {
        Some(id) => {
            vfs.resize(id, 0, now)?;
            id
        }
        None => vfs.create(&place, now)?,
    };
    vfs.hold(id);
    Ok(id)
}

/// Calls `_start`; a return is an exit with 0.
fn call(store: &mut Store<Guest>, module: &Module) -> wasmtime::Result<()> {
    let mut linker = Linker::new(module.engine());
    wasi::define(&mut linker)?;
    let run = |store: &mut Store<Guest>| {
        let instance = linker.instantiate(&mut *store, module)?;
        store.data_mut().memory = instance.get_memory(&mut *store, "memory");
        instance.get_typed_func::<(), ()>(&mut *store, "_start")?.call(&mut *store, ())
    };
    match run(store) {
        Err(error) if matches!(error.downcast_ref(), Some(End::Exit(0))) => Ok(()),
        other => other,
    }
}

/// The wasm frames of a trap, innermost first: offset and name.
pub(crate) fn frames(backtrace: &WasmBacktrace) -> Vec<String> {
    let frame = |frame: &wasmtime::FrameInfo| {
        let name = frame.func_name().map_or_else(
            || format!("wasm-function[{}]", frame.func_index()),
            |name| name.escape_debug().take(200).collect(),
        );
        match frame.module_offset() {
            Some(at) => format!("{at:#x} {name}"),
            None => name,
        }
    };
    backtrace.frames().iter().take(BACKTRACE_FRAMES).map(frame).collect()
}

/// Compiles the module on stdin to the file that is named as argument; the body of
/// `assize worker compile`. What it says on stdout is a [`Frame::Answer`] of `Result<(), Refused>`.
pub fn compile(to: &Path) -> ExitCode {
    process::die_with_parent();
    process::limit_self(COMPILE_BYTES);
    let mut wasm = Vec::new();
    if io::stdin().take(MODULE_BYTES).read_to_end(&mut wasm).is_err() {
        return ExitCode::FAILURE;
    }
    let compiled = engine::check(&wasm).and_then(|()| {
        let engine = engine::engine().map_err(engine::Refused::Invalid)?;
        engine.precompile_module(&wasm).map_err(|e| engine::Refused::Invalid(format!("{e:#}")))
    });
    let written = compiled.map(|code| File::create(to).and_then(|mut file| file.write_all(&code)));
    let answer = match written {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_disk)) => return ExitCode::FAILURE,
        Err(refused) => Err(refused),
    };
    let Ok(bytes) = serde_json::to_vec(&answer) else { return ExitCode::FAILURE };
    match send(&mut io::stdout(), Frame::Answer, &bytes) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// The largest module that is compiled.
const MODULE_BYTES: u64 = 1 << 30;

/// Memory for compiling: clang's 75 MB take 1.9 GB.
const COMPILE_BYTES: u64 = 8 << 30;
