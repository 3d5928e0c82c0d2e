//! `dashboard`: where to see what the node knows.

use std::process::ExitCode;

use node::control::Node;

use crate::{
    context::Context,
    exit::{CliError, Code},
    output,
};

/// Print the address at which a browser of this machine shows what the node knows
///
/// The address has a token in it that lets a browser in until the node ends: it is for you alone.
#[derive(clap::Args, Debug)]
pub(crate) struct DashboardCommand {}

impl DashboardCommand {
    pub(crate) fn run(self, context: &Context) -> Result<ExitCode, CliError> {
        let node = Node::there(&context.home)?;
        let url = context.block_on(async move { node.dashboard().await })??;
        let url = url.ok_or_else(|| {
            CliError::new(Code::NotFound, "the node that runs has no dashboard")
                .hint("stop it with `assize node stop`, and start it without `--no-dashboard`")
        })?;
        match context.json {
            true => output::json("dashboard", &serde_json::json!({ "url": url }))?,
            false => output::say(&url)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}
