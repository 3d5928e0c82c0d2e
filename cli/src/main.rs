//! Voice of Assize: the one binary, and the one crate that prints.
//!
//! ```text
//! commands.rs    what can be asked, one file each below commands/
//! context.rs     the store, the evaluator and the builder, on demand
//! dashboard.rs   the same in a browser, of a node that runs
//! exit.rs        result ─▶ exit code, cause, hint
//! progress.rs    what is going on, on a terminal or line by line
//! output.rs      data on stdout: for people, or as JSON
//! ```
#![forbid(unsafe_code)]

mod commands;
mod context;
mod dashboard;
mod exit;
mod file;
mod log_file;
mod network;
mod output;
mod progress;

use std::process::ExitCode;

fn main() -> ExitCode {
    commands::Cli::main()
}
