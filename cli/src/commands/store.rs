//! `store`: what is kept, for how long, and whether it is whole.
use std::process::ExitCode;

use crate::{context::Context, exit::CliError};

/// Look after the store
#[derive(clap::Subcommand, Debug)]
pub(crate) enum StoreCommand {
    /// Say how much is where
    Df,
}

impl StoreCommand {
    pub(crate) fn run(self, context: &Context) -> Result<ExitCode, CliError> {
        let _ = context;
        Ok(ExitCode::SUCCESS)
    }
}
