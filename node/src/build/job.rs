//! What the parent and its worker processes say to each other.
//!
//! The job goes in as JSON on stdin. What comes back on stdout is a sequence of frames, each a
//! kind byte, a length in 4 bytes (little-endian), and that many bytes.

use std::{collections::BTreeMap, io, path::PathBuf};

use protocol::statement::Ending;
use serde::{Deserialize, Serialize};

use super::{engine::Refused, errno::Abort, limits::Limits, recorder::Tracing};

/// A build for a worker.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    /// The action's canonical bytes.
    pub(crate) action: Vec<u8>,
    /// Where the archive of each input lies, by mount name.
    pub(crate) inputs: BTreeMap<String, PathBuf>,
    /// Compiled modules, by the guest path that a step runs.
    pub(crate) modules: BTreeMap<String, PathBuf>,
    pub(crate) limits: Limits,
    /// A private directory: spilled files go here, and the archives of the outputs.
    pub(crate) scratch: PathBuf,
    /// Whether a failed build leaves `/build`, `/tmp` and its outputs behind.
    pub(crate) keep_failed: bool,
    /// Whether a trace is left behind.
    pub(crate) tracing: Option<Tracing>,
}

/// What a worker says at the end.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    Built(Done),
    Failed(Failure),
}

/// What a worker says of a build that ended well.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Done {
    pub(crate) usage: Usage,
    /// The bytes of its [`protocol::witness::TranscriptHash`].
    pub(crate) transcript: [u8; 32],
}

/// What a build used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// The most bytes of linear memory and tables of one step.
    pub memory: u64,
    /// The most bytes in files at once.
    pub disk: u64,
}

/// Why a build failed, as its worker saw it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Failure {
    /// A step ended with another code than 0.
    #[error("step {step} (`{program}`) exited with code {code}")]
    Exit {
        /// Counted from 1.
        step: usize,
        /// Its `argv[0]`, or its module.
        program: String,
        /// The code.
        code: u32,
    },
    /// A step raised a signal.
    #[error("step {step} (`{program}`) raised signal {signal}")]
    Signal {
        /// Counted from 1.
        step: usize,
        /// Its `argv[0]`, or its module.
        program: String,
        /// The signal's number in WASI.
        signal: u8,
    },
    /// A step trapped.
    #[error("step {step} (`{program}`) trapped: {trap}")]
    Trap {
        /// Counted from 1.
        step: usize,
        /// Its `argv[0]`, or its module.
        program: String,
        /// What happened.
        trap: String,
        /// The wasm frames, innermost first.
        backtrace: Vec<String>,
        /// Whether every execution ends so. It need not where the stack ran out, whose frames are the
        /// engine's.
        certain: bool,
    },
    /// A limit was reached, or this machine failed.
    #[error("step {step} (`{program}`) reached {abort}")]
    Abort {
        /// Counted from 1.
        step: usize,
        /// Its `argv[0]`, or its module.
        program: String,
        /// What was reached.
        abort: Abort,
    },
    /// A step's module is missing.
    #[error("step {step}: there is no file `{path}`")]
    NoModule {
        /// Counted from 1.
        step: usize,
        /// The module.
        path: String,
    },
    /// A step's module is not run.
    #[error("step {step}: `{path}` is refused: {refused}")]
    Refused {
        /// Counted from 1.
        step: usize,
        /// The module.
        path: String,
        /// Why.
        refused: Refused,
    },
    /// The file for stdin, the file for stdout or the working directory of a step is not there.
    #[error("step {step}: {what} `{path}` cannot be used: {why}")]
    Place {
        /// Counted from 1.
        step: usize,
        /// Which of them.
        what: String,
        /// Its path.
        path: String,
        /// Why not.
        why: String,
    },
    /// An output cannot be archived.
    #[error("output `{output}`: {why}")]
    Output {
        /// Its name.
        output: String,
        /// Why not.
        why: String,
    },
    /// The worker could not begin.
    #[error("the build could not be set up: {0}")]
    Setup(String),
}

impl Failure {
    /// The step and its ending as an attester states them (SPEC §10.2); `None` if another machine
    /// may end otherwise.
    pub fn ending(&self) -> Option<(u32, Ending)> {
        let (step, ending) = match self {
            Self::Exit { step, code, .. } => (step, Ending::Exit(*code)),
            Self::Signal { step, signal, .. } => (step, Ending::Signal(*signal)),
            Self::Trap { step, certain: true, .. } => (step, Ending::Trap),
            Self::Trap { certain: false, .. }
            | Self::Abort { .. }
            | Self::NoModule { .. }
            | Self::Refused { .. }
            | Self::Place { .. }
            | Self::Output { .. }
            | Self::Setup(_) => return None,
        };
        Some((u32::try_from(*step).ok()?, ending))
    }
}

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Frame {
    /// Bytes of the log.
    Log = b'L',
    /// The number of the step that begins, from 1, as JSON.
    Step = b'S',
    /// The [`Answer`], as JSON; the last frame.
    Answer = b'A',
}

/// The longest frame a worker may send: the parent allocates no more.
pub(crate) const FRAME_BYTES: usize = 1 << 20;

/// Writes a frame.
pub(crate) fn send(to: &mut impl io::Write, kind: Frame, bytes: &[u8]) -> io::Result<()> {
    for piece in bytes.chunks(FRAME_BYTES) {
        to.write_all(&[kind as u8])?;
        to.write_all(&(piece.len() as u32).to_le_bytes())?;
        to.write_all(piece)?;
    }
    to.flush()
}
