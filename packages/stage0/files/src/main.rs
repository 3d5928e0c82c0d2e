//! `files`: see the library and README.md.

#![forbid(unsafe_code)]

use std::io;
use std::process::ExitCode;

use files::Streams;
use stage0::command::{self, Failure};

fn main() -> ExitCode {
    let arguments = command::arguments();
    let name = files::name(arguments.as_deref().unwrap_or_default());
    let mut streams = Streams {
        input: &mut io::stdin().lock(),
        output: &mut io::stdout().lock(),
    };
    let result = arguments
        .map_err(Failure::from)
        .and_then(|arguments| files::run(&arguments, &mut streams));
    command::exit(&name, result)
}
