//! `worker`: this program as its own worker process. Not for people.

use std::{path::PathBuf, process::ExitCode};

/// Worker processes
#[derive(clap::Subcommand, Debug)]
pub(crate) enum Worker {
    /// Evaluates the request on stdin
    Evaluate,
    /// Builds the job on stdin
    Build,
    /// Compiles the module on stdin
    Compile {
        /// File to write
        to: PathBuf,
    },
}

impl Worker {
    pub(crate) fn run(self) -> ExitCode {
        match self {
            Self::Evaluate => node::eval::worker(node::source::hash),
            Self::Build => node::build::worker_main(),
            Self::Compile { to } => node::build::compile(&to),
        }
    }
}
