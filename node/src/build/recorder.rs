//! What is recorded of an execution: always its transcript, and on request where it went.
//!
//! ```text
//! wasi.rs ── step, call ──▶ Recorder ──▶ TranscriptHash ─▶ Done
//!                             └─ if asked ──▶ scratch/trace, scratch/call ─▶ Builder::trace
//! ```

use std::{io, path::Path};

use protocol::{
    id::ActionId,
    trace::{Event, Trace},
    witness::{Transcript, TranscriptHash},
};
use serde::{Deserialize, Serialize};

use super::wasi;

/// Regions of a call that are shown, and bytes of each.
const REGIONS: usize = 16;
const REGION_BYTES: usize = 256;

/// That an execution is to leave its trace.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Tracing {
    /// The mark of the call that is to be shown.
    pub(crate) call: Option<usize>,
}

/// A call of a guest, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// The function's name.
    pub function: String,
    /// Its arguments, in the standard's order; addresses are the guest's.
    pub arguments: Vec<u64>,
    /// What it returned.
    pub errno: u16,
    /// What it took from the guest's memory and gave (SPEC §11.1): the first of them.
    pub regions: Vec<Region>,
}

/// A part of a guest's memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Region {
    /// Its length in bytes.
    pub len: usize,
    /// How it begins, with everything escaped that is not printable ASCII.
    pub start: String,
}

/// Records what guests do.
pub(crate) struct Recorder {
    transcript: Transcript,
    traced: Option<Traced>,
}

struct Traced {
    tracing: Tracing,
    trace: Trace,
    call: Option<Call>,
}

impl Recorder {
    pub(crate) fn new(action: &ActionId, tracing: Option<Tracing>) -> Self {
        let traced = tracing.map(|tracing| Traced { tracing, trace: Trace::new(*action), call: None });
        Self { transcript: Transcript::new(action), traced }
    }

    /// A step begins, counted from 0.
    pub(crate) fn step(&mut self, number: u32) {
        self.transcript.step(number);
        if let Some(traced) = &mut self.traced {
            traced.trace.push(Event::Step, &self.transcript);
        }
    }

    /// A call has returned, or will not: as [`Transcript::call`].
    pub(crate) fn call<'m>(
        &mut self,
        function: u8,
        arguments: &[u64],
        errno: u16,
        regions: impl Iterator<Item = &'m [u8]> + Clone,
    ) {
        self.transcript.call(function, arguments, errno, regions.clone());
        let Some(Traced { tracing, trace, call }) = &mut self.traced else { return };
        if tracing.call == Some(trace.len()) {
            let region = |bytes: &[u8]| {
                let start = bytes[..bytes.len().min(REGION_BYTES)].escape_ascii().to_string();
                Region { len: bytes.len(), start }
            };
            let function = wasi::name(function).unwrap_or_default().to_owned();
            let regions = regions.take(REGIONS).map(region).collect();
            *call = Some(Call { function, arguments: arguments.to_vec(), errno, regions });
        }
        trace.push(Event::Call(function), &self.transcript);
    }

    pub(crate) fn finish(&self) -> TranscriptHash {
        self.transcript.finish()
    }

    /// Leaves the trace in a directory, if there is one.
    pub(crate) fn leave(&self, scratch: &Path) -> io::Result<()> {
        let Some(Traced { trace, call, .. }) = &self.traced else { return Ok(()) };
        std::fs::write(scratch.join("trace"), trace.to_bytes())?;
        match call {
            Some(call) => std::fs::write(scratch.join("call"), serde_json::to_vec(call)?),
            None => Ok(()),
        }
    }
}
