//! `wat`: see the library and README.md.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    stage0::command::run("wat", assembler::run)
}
