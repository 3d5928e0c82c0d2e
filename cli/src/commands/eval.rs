//! `eval`: what Jsonnet evaluates to.

use std::process::ExitCode;

use node::eval::Mode;

use crate::{
    context::{Context, Project},
    exit::CliError,
    output,
};

/// Evaluate the project and print JSON
///
/// Only the attribute asked for is evaluated. Nothing is built or fetched; derivations appear as
/// small objects with their ids.
#[derive(clap::Args, Debug)]
pub(crate) struct Eval {
    /// Attribute to evaluate [default: all]
    #[arg(value_name = "ATTR")]
    attribute: Option<String>,

    #[command(flatten)]
    project: Project,

    /// List the attributes instead, without evaluating derivations
    #[arg(short, long)]
    list: bool,
}

impl Eval {
    pub(crate) fn run(self, context: &Context) -> Result<ExitCode, CliError> {
        let mode = if self.list { Mode::List } else { Mode::Json };
        let (_, evaluation) = context.evaluate(&self.project, self.attribute.as_deref(), mode)?;
        if !self.list {
            let json = evaluation.json.unwrap_or_default();
            if context.json {
                let value: serde_json::Value = serde_json::from_str(&json).map_err(std::io::Error::other)?;
                output::json("eval", &value)?;
            } else {
                output::say(&json)?;
            }
        } else if context.json {
            output::json("list", &evaluation.attributes)?;
        } else {
            let width = evaluation.attributes.iter().map(|a| a.path.chars().count()).max().unwrap_or(0);
            for attribute in &evaluation.attributes {
                let text = attribute.description.as_deref().unwrap_or(&attribute.kind);
                output::say(&output::plain(&format!("{:width$}  {text}", attribute.path)))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
