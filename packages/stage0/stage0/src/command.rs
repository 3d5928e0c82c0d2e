//! Commands: how a tool gets its arguments and how it ends.
//!
//! | exit code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | not done; stderr says why in one line |
//! | 2 | the arguments make no sense; stderr says how they should look |

use std::env;
use std::error::Error;
use std::ffi::OsString;
use std::fmt;
use std::process::ExitCode;

/// Why a command did not do what it was asked.
///
/// Every error converts into [`Failure::Failed`], so that `?` does what is meant.
#[derive(Debug)]
pub enum Failure {
    /// The arguments make no sense. Holds the tool's usage, without the word "usage".
    Usage(&'static str),

    /// The work could not be done. Holds the error's message: all that is left to do is to say it.
    Failed(String),
}

impl<E: Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Failed(error.to_string())
    }
}

/// An argument that is not UTF-8, which is all that WASI has.
#[derive(Debug)]
pub struct NotUtf8 {
    /// Which argument it is, counted from 1.
    pub number: usize,
}

impl fmt::Display for NotUtf8 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "argument {} is not UTF-8", self.number)
    }
}

impl Error for NotUtf8 {}

/// The arguments of this process, without its name.
///
/// # Errors
///
/// [`NotUtf8`] names the first argument that can't be read.
pub fn arguments() -> Result<Vec<String>, NotUtf8> {
    env::args_os()
        .map(OsString::into_string)
        .enumerate()
        .skip(1)
        .map(|(number, argument)| argument.map_err(|_| NotUtf8 { number }))
        .collect()
}

/// Says on stderr why `name` failed, if it did, and gives its exit code.
pub fn exit(name: &str, result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Usage(usage)) => {
            eprintln!("usage: {usage}");
            ExitCode::from(2)
        }
        Err(Failure::Failed(message)) => {
            eprintln!("{name}: {}", one_line(&message));
            ExitCode::from(1)
        }
    }
}

/// Runs a tool that has one name only: its arguments through `run`, and the outcome to [`exit`].
pub fn run(name: &str, run: impl FnOnce(&[String]) -> Result<(), Failure>) -> ExitCode {
    let result = arguments().map_err(Failure::from);
    exit(name, result.and_then(|arguments| run(&arguments)))
}

/// `text` with control characters escaped, so that a hostile name can't forge lines of the log.
fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_forge_a_line() {
        assert_eq!(
            one_line("a\nfiles: all is well\u{1b}[1m"),
            r"a\nfiles: all is well\u{1b}[1m"
        );
        assert_eq!(one_line("häß`lich"), "häß`lich");
    }
}
