//! Evaluation: from Jsonnet text to derivations.
//!
//! ```text
//! evaluate ── Order ──▶ worker process: imports ─▶ nesting ─▶ jrsonnet ─▶ handle::resolve
//!     ▲                                                                        │
//!     └────────────── answer, checked anew (`wire.rs`) ◀───────────────────────┘
//! ```
//!
//! The evaluator runs in a process of its own, with limits, because Jsonnet has none: its parser
//! recurses, its programs need not end, and memory that can't be had aborts the process. Whatever
//! text is evaluated, the caller gets an [`Evaluation`] or an [`EvalError`], in bounded time.
//!
//! An evaluation is a function of the files below the root: there are no variables from outside,
//! no environment, no search path, and no absolute path ever becomes visible. The language that
//! authors see is documented in `docs/jsonnet.md`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use protocol::{
    derivation::Derivation,
    glob::Glob,
    id::{DerivationId, NarHash},
    name::Name,
};
use serde::{Deserialize, Serialize};

mod attribute;
mod error;
mod handle;
mod imports;
mod json;
mod library;
mod native;
mod nesting;
mod parent;
#[doc(hidden)]
pub mod probe;
mod read;
mod run;
mod session;
mod wire;
mod worker;

pub use error::{At, EvalError, Fault};
pub use parent::evaluate;
pub use worker::worker;

/// What to evaluate.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Request {
    /// The project's root, canonical. Nothing outside of it can be imported or be a source.
    pub root: PathBuf,
    /// The file where evaluation starts, relative to the root.
    pub file: PathBuf,
    /// The attribute of its value that is meant: `a.b.c`, or `a."x y".b`. The whole if not given.
    pub attribute: Option<String>,
    /// What is wanted of it.
    pub mode: Mode,
}

/// What is wanted of the selected value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// The derivations in it: itself, or those in its visible fields, however deep.
    Build,
    /// All of it as JSON. A handle becomes an object of its id and its name.
    Json,
    /// The names of its visible fields, and what each is; derivations are not evaluated.
    List,
}

/// What an evaluation may use.
#[derive(Debug, Clone)]
pub struct EvalLimits {
    /// By the wall clock, and of processor time as well.
    pub time: Duration,
    /// Bytes of memory.
    pub memory: u64,
    /// Bytes of the answer.
    pub answer: u64,
}

impl Default for EvalLimits {
    fn default() -> Self {
        Self { time: Duration::from_secs(60), memory: 2 << 30, answer: 512 << 20 }
    }
}

/// What an evaluation gives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Evaluation {
    /// [`Mode::Build`]: the derivations asked for, in the order of their paths.
    pub roots: Vec<Root>,
    /// Those and all that they need.
    pub derivations: BTreeMap<DerivationId, Derivation>,
    /// The sources that they need.
    pub sources: Vec<SourceUse>,
    /// [`Mode::Json`]: the text, indented by two.
    pub json: Option<String>,
    /// [`Mode::List`]: the fields.
    pub attributes: Vec<Attribute>,
}

/// A derivation that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// Its path in the file; empty if it is the file's own value.
    pub attribute: String,
    /// Its id.
    pub derivation: DerivationId,
    /// The output, if one of them was named.
    pub output: Option<Name>,
    /// Its author's `mainProgram`: what `run` runs.
    pub main: Option<String>,
    /// Its author's `description`.
    pub description: Option<String>,
}

/// Files of the project that a derivation has as an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceUse {
    /// Relative to the root; empty for the root itself.
    pub path: PathBuf,
    /// Patterns of what is left out, relative to the path.
    pub exclude: Vec<String>,
    /// The hash of their archive.
    pub hash: NarHash,
}

/// A field of an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attribute {
    /// Its path in the file.
    pub path: String,
    /// `derivation`, `output`, `source`, a type of Jsonnet, or `error`.
    pub kind: String,
    /// If it is a derivation: its author's `description`.
    pub description: Option<String>,
}

/// Hashes the archive of the files at a path, but for those that a pattern matches.
pub type Pack = fn(&Path, &[Glob]) -> Result<NarHash, PackFailed>;

/// Why a source could not be packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackFailed {
    /// The file that could not be packed.
    pub path: PathBuf,
    /// The rule it breaks, or what the operating system says.
    pub cause: String,
}

#[cfg(test)]
mod tests;
