//! `log`: what a build printed.

use std::{io::IsTerminal as _, process::ExitCode};

use super::target;
use crate::{
    context::{Context, Project},
    exit::{CliError, Code},
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
}

impl Log {
    pub(crate) fn run(self, context: &Context) -> Result<ExitCode, CliError> {
        let store = context.store()?;
        let target = target::find(context, &store, &self.project, &self.target)?;
        let action = target.known()?;
        let log = match std::fs::read(store.log_path(&action)) {
            Ok(log) => log,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(CliError::new(Code::NotFound, format!("there is no log of `{}`", target.label))
                    .hint("fetches have no log, and logs are collected with the store; `assize build --rebuild` makes it anew"));
            }
            Err(e) => return Err(e.into()),
        };
        if context.json {
            output::json(
                "log",
                &serde_json::json!({ "action": action.to_string(), "log": String::from_utf8_lossy(&log) }),
            )?;
        } else if self.raw || !std::io::stdout().is_terminal() {
            output::raw(&log)?;
        } else {
            output::raw(output::plain(&String::from_utf8_lossy(&log)).as_bytes())?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
