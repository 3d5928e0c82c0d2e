//! `log`: what a build printed.

use std::{
    fs::File,
    io::{self, BufWriter, IsTerminal as _, Read, Write as _},
    process::ExitCode,
    sync::Arc,
};

use protocol::id::ActionId;
use store::Store;

use super::target;
use crate::{
    context::{Context, Project},
    exit::{CliError, Code},
    network::Reach,
    output,
};

/// Show what the latest execution of a build printed
///
/// On a terminal, control characters are shown, not obeyed.
#[derive(clap::Args, Debug)]
pub(crate) struct Log {
    /// Attribute, or action (`act:…`, or its beginning) [default: the file's own value]
    #[arg(value_name = "ATTR|act:…", default_value = "", hide_default_value = true)]
    target: String,

    #[command(flatten)]
    project: Project,

    /// Print the bytes of the log as they are, even on a terminal
    #[arg(long)]
    raw: bool,

    /// If it was not executed here, ask connected nodes for the end of what it printed there
    #[arg(long)]
    ask: bool,
}

impl Log {
    pub(crate) fn run(self, context: &Context) -> Result<ExitCode, CliError> {
        let store = context.store()?;
        let target = target::find(context, &store, &self.project, &self.target)?;
        let action = target.known()?;
        let log = match File::open(store.log_path(&action)) {
            Ok(log) => log,
            Err(e) if e.kind() == io::ErrorKind::NotFound && self.ask => {
                return self.print(context, &action, &*ask(context, &store, &action)?);
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(CliError::new(Code::NotFound, format!("there is no log of `{}`", target.label))
                    .hint("fetches have no log, and logs are collected with the store; others may have it: `--ask`"));
            }
            Err(e) => return Err(e.into()),
        };
        self.print(context, &action, log)
    }

    fn print(&self, context: &Context, action: &ActionId, mut log: impl Read) -> Result<ExitCode, CliError> {
        // A piece at a time: a log is as long as its limit, which is the owner's to set.
        let mut to = BufWriter::new(output::Stdout);
        if context.json {
            let data = serde_json::json!({ "action": action.to_string(), "log": "" });
            let envelope = output::envelope("log", &data).to_string();
            let (before, behind) = envelope.split_once(EMPTY).unwrap_or((&envelope, ""));
            write!(to, "{before}\"log\":\"")?;
            pieces(log, |text| {
                let quoted = serde_json::Value::from(text).to_string();
                to.write_all(&quoted.as_bytes()[1..quoted.len() - 1])
            })?;
            writeln!(to, "\"{behind}")?;
        } else if self.raw || !io::stdout().is_terminal() {
            io::copy(&mut log, &mut to)?;
        } else {
            pieces(log, |text| to.write_all(output::plain(text).as_bytes()))?;
        }
        to.flush()?;
        Ok(ExitCode::SUCCESS)
    }
}

/// The end of what an action printed elsewhere.
fn ask(context: &Context, store: &Arc<Store>, action: &ActionId) -> Result<Vec<u8>, CliError> {
    let (node, _local) = context.node(store, Reach::Anybody)?;
    let said = match node {
        Some(node) => context.block_on(node.log(*action))??,
        None => None,
    };
    let Some((end, before)) = said else {
        return Err(CliError::new(Code::NotFound, format!("nobody who is connected has a log of {action}"))
            .hint("execute it here: `assize attest rebuild act:…`"));
    };
    if before > 0 {
        context.tell(&format!("{} before this", output::bytes(before)));
    }
    Ok(end)
}

/// The field of the log in its envelope, before it is filled.
const EMPTY: &str = "\"log\":\"\"";

/// Bytes of a log that are in memory at once.
const PIECE_BYTES: usize = 64 << 10;

/// Reads text piece by piece; what is not UTF-8 becomes `U+FFFD`, as if it were read as a whole.
fn pieces(mut from: impl Read, mut each: impl FnMut(&str) -> io::Result<()>) -> io::Result<()> {
    let mut bytes = Vec::new();
    loop {
        let read = from.by_ref().take(PIECE_BYTES as u64).read_to_end(&mut bytes)?;
        // A character that is cut, at most three bytes of it, waits for its rest.
        let cut = match bytes.utf8_chunks().last() {
            Some(last) if read > 0 && is_cut(last.invalid()) => last.invalid().len(),
            _ => 0,
        };
        let rest = bytes.split_off(bytes.len() - cut);
        each(&String::from_utf8_lossy(&bytes))?;
        bytes = rest;
        if read == 0 {
            return Ok(());
        }
    }
}

/// Whether more bytes could make a character of these.
fn is_cut(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|e| e.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives a few bytes at a time.
    struct Drip<'b>(&'b [u8], usize);

    impl Read for Drip<'_> {
        fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
            let n = self.1.min(self.0.len()).min(to.len());
            to[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    #[test]
    fn pieces_read_as_the_whole() {
        for fill in [0, 1, 2, 3] {
            let text =
                [&b"x".repeat(PIECE_BYTES - fill)[..], "ü€😀".as_bytes(), b"\xff\xf0\x9f\xe2\x82"].concat();
            for drip in [1, 1000, text.len()] {
                let mut found = String::new();
                let each = |piece: &str| {
                    assert!(piece.len() <= 3 * (PIECE_BYTES + 3), "{} bytes at once", piece.len());
                    found.push_str(piece);
                    Ok(())
                };
                pieces(Drip(&text, drip), each).unwrap();
                assert_eq!(found, String::from_utf8_lossy(&text));
            }
        }
    }
}
