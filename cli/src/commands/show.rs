//! `show`: what a derivation is, and what became of it.

use std::process::ExitCode;

use protocol::{action::Action, id::ActionId};
use serde_json::{Value, json};
use store::Store;

use super::target;
use crate::{
    context::{Context, Project},
    exit::{CliError, Code},
    output::{self, Style, bytes},
};

/// Show an action: what is executed, from which inputs, and what it gave
#[derive(clap::Args, Debug)]
pub(crate) struct Show {
    /// Attribute, or action (`act:…`, or its beginning) [default: the file's own value]
    #[arg(value_name = "ATTR|act:…", default_value = "", hide_default_value = true)]
    target: String,

    #[command(flatten)]
    project: Project,
}

impl Show {
    pub(crate) fn run(self, context: &Context) -> Result<ExitCode, CliError> {
        let store = context.store()?;
        let target = target::find(context, &store, &self.project, &self.target)?;
        let id = target.known()?;
        let realisation = store.realisation(&id)?;
        let Some(action) = store.action(&id)? else {
            let label = &target.label;
            let (what, hint) = match gave_nothing(&store, &id)? {
                true => {
                    ("was executed here, and gave nothing", format!("what it said: `assize log {label}`"))
                }
                false => ("was not built yet", format!("build it: `assize build {label}`")),
            };
            return Err(CliError::new(Code::NotFound, format!("`{label}` ({id}) {what}")).hint(hint));
        };
        let outputs: Value = realisation.iter().flat_map(|r| &r.outputs).map(|(name, output)| {
            json!({ "name": name.as_str(), "nar": output.nar.to_string(), "size": output.size, "present": store.contains(&output.nar) })
        }).collect();
        let described = describe(&action);
        if context.json {
            output::json(
                "show",
                &json!({
                    "action": id.to_string(),
                    "name": realisation.as_ref().map(|r| r.name.to_string()),
                    "derivation": realisation.as_ref().and_then(|r| r.derivation).map(|d| d.to_string()),
                    "finished": realisation.as_ref().map(|r| r.finished),
                    "millis": realisation.as_ref().map(|r| r.millis),
                    "what": described,
                    "outputs": outputs,
                }),
            )?;
            return Ok(ExitCode::SUCCESS);
        }
        let name = realisation.as_ref().map_or(target.label.clone(), |r| r.name.to_string());
        output::say(&format!("{}  {id}", Style::Bold.paint(&name)))?;
        for (name, nar) in inputs(&action) {
            output::say(&format!("  in   {name}  {nar}"))?;
        }
        for line in steps(&action) {
            output::say(&output::plain(&format!("  run  {line}")))?;
        }
        for output in realisation.iter().flat_map(|r| &r.outputs) {
            let (name, output) = output;
            let gone = if store.contains(&output.nar) { "" } else { "  (collected)" };
            output::say(&format!("  out  {name}  {}  {}{gone}", output.nar, bytes(output.size)))?;
        }
        if let Some(r) = &realisation {
            let took = output::duration(std::time::Duration::from_millis(r.millis));
            output::say(&format!("  took {took}"))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn inputs(action: &Action) -> Vec<(String, String)> {
    match action {
        Action::Build(build) => build.inputs.iter().map(|(n, h)| (n.to_string(), h.to_string())).collect(),
        Action::Fetch(fetch) => vec![("file".into(), fetch.sri.to_string())],
    }
}

fn steps(action: &Action) -> Vec<String> {
    let Action::Build(build) = action else { return Vec::new() };
    build
        .recipe
        .steps
        .iter()
        .map(|step| {
            let args: Vec<_> = step.args.iter().skip(1).map(String::as_str).collect();
            format!("{} {}", step.run, args.join(" "))
        })
        .collect()
}

fn describe(action: &Action) -> Value {
    match action {
        Action::Build(build) => json!({
            "kind": "build",
            "inputs": build.inputs.iter().map(|(n, h)| (n.to_string(), json!(h.to_string()))).collect::<serde_json::Map<_, _>>(),
            "steps": build.recipe.steps.iter().map(|step| json!({
                "run": step.run.as_str(),
                "args": step.args,
                "stdin": step.stdin.as_ref().map(|p| p.as_str()),
                "stdout": step.stdout.as_ref().map(|p| p.as_str()),
                "cwd": step.cwd.as_ref().map(|p| p.as_str()),
            })).collect::<Value>(),
            "env": build.recipe.env,
            "stdin": build.stdin_document(),
            "outputs": build.recipe.outputs.iter().map(|o| o.as_str()).collect::<Vec<_>>(),
            "executable": build.recipe.executable,
        }),
        Action::Fetch(fetch) => json!({
            "kind": "fetch",
            "hash": fetch.sri.to_string(),
            "executable": fetch.executable,
        }),
    }
}

/// Whether an action was executed here and gave nothing: it failed, was stopped, or goes on. It has a log.
pub(super) fn gave_nothing(store: &Store, action: &ActionId) -> Result<bool, CliError> {
    Ok(store.realisation(action)?.is_none() && store.log_path(action).exists())
}
