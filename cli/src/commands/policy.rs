//! `policy`: how many of whom must agree.

use std::{path::PathBuf, process::ExitCode};

use node::judgement::Judgement;
use protocol::{id::ActionId, name::Name};
use serde::Serialize;
use serde_json::{Value, json};
use store::Store;
use trust::policy::{Because, Preset, View};

use super::why;
use crate::{
    context::{Context, Project},
    exit::{CliError, Code},
    file,
    output::{self, Line, Style},
};

/// Longest policy file that is read, in bytes.
const POLICY_BYTES: u64 = 1 << 20;

/// See how many of whom must agree, and try another policy
#[derive(clap::Subcommand, Debug)]
pub(crate) enum PolicyCommand {
    /// Print the policy that is in force, and what to know about it
    Show,
    /// Choose a preset, if nothing is configured yet
    Use {
        /// local-only, solo, one, majority, two-thirds or strict
        preset: String,
    },
    /// Judge an action by another policy; exit codes as of `why`
    Test {
        /// Attribute of the project, or action (`act:…`)
        #[arg(value_name = "ATTR|act:…", default_value = "", hide_default_value = true)]
        target: String,
        #[command(flatten)]
        project: Project,
        /// Preset, or JSON file with a policy
        #[arg(long, value_name = "PRESET|FILE")]
        policy: String,
    },
    /// Say what would be decided differently by another policy
    Diff {
        /// Preset, or JSON file with a policy
        #[arg(value_name = "PRESET|FILE")]
        policy: String,
    },
}

impl PolicyCommand {
    pub(crate) fn run(self, context: &Context) -> Result<ExitCode, CliError> {
        match self {
            Self::Show => show(context)?,
            Self::Use { preset } => choose(context, &preset)?,
            Self::Test { target, project, policy } => {
                let store = context.store()?;
                let judgement = context.judgement(&store, Some(read(&policy)?))?;
                let action = super::target::find(context, &store, &project, &target)?.known()?;
                let verdict = judgement.verdict(&action, &why::package(&store, &action)?)?;
                if context.json {
                    let data = json!({ "action": action.to_string(), "verdict": verdict });
                    output::json("policyTest", &data)?;
                } else {
                    output::say(&verdict.to_string())?;
                }
                return Ok(why::code(&verdict.outcome));
            }
            Self::Diff { policy } => diff(context, &read(&policy)?)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// A policy by its name, or from a file.
pub(super) fn read(text: &str) -> Result<Value, CliError> {
    if Preset::named(text).is_some() {
        return Ok(Value::from(text));
    }
    let bytes = file::read(&PathBuf::from(text), POLICY_BYTES).map_err(|e| {
        let presets: Vec<_> = Preset::ALL.iter().map(|preset| preset.name()).collect();
        e.hint(format!("name a file, or one of {}", presets.join(", ")))
    })?;
    serde_json::from_slice(&bytes).map_err(|e| {
        CliError::of(Code::Policy, &e)
            .hint("a policy file has the JSON of the field `policy` of the configuration")
    })
}

fn show(context: &Context) -> Result<(), CliError> {
    let store = context.store()?;
    let configured = context.config()?.policy;
    let judgement = context.judgement(&store, None)?;
    let policy = judgement.policy();
    if context.json {
        let views: Vec<_> = policy
            .views()
            .map(|view| {
                json!({
                    "because": view.because(), "rule": view.rule().to_string(), "preset": view.preset(),
                    "dissent": view.dissent(), "witness": view.witness(),
                })
            })
            .collect();
        let data = json!({
            "file": context.config_file(), "configured": configured, "parts": views, "notes": policy.notes(),
        });
        return Ok(output::json("policy", &data)?);
    }
    let origin = match &configured {
        Some(_) => format!("from `{}`", context.config_file().display()),
        None => "the default".into(),
    };
    output::say(&Style::Dim.paint(&origin))?;
    for view in policy.views() {
        describe(&view).say()?;
    }
    for note in policy.notes() {
        output::say(&format!("note: {note}"))?;
    }
    Ok(())
}

/// A part of a policy, in a line.
pub(crate) fn describe(view: &View<'_>) -> Line {
    let of = match view.because() {
        Because::Everything => "everything".into(),
        Because::Override { package, .. } => format!("`{package}`"),
        Because::Exemption { package, until, why } => format!("`{package}`, exempt until {until}: {why}"),
    };
    let preset = view.preset().map_or_else(String::new, |preset| format!("{preset}: "));
    let (dissent, witness) = (json!(view.dissent()), json!(view.witness()));
    Line::new(format!(
        "{of}: {preset}{}; dissent: {}; witness: {}",
        view.rule(),
        dissent.as_str().unwrap_or_default(),
        witness.as_str().unwrap_or_default()
    ))
}

fn choose(context: &Context, preset: &str) -> Result<(), CliError> {
    let Some(preset) = Preset::named(preset) else {
        let presets: Vec<_> = Preset::ALL.iter().map(|preset| preset.name()).collect();
        return Err(CliError::new(Code::Usage, format!("there is no preset `{preset}`"))
            .hint(format!("the presets are {}", presets.join(", "))));
    };
    let path = context.config_file();
    let text = |preset: &Preset| {
        let preset = preset.name();
        format!(
            "// What is not said here has its default: see docs/config.md.\n{{\n  policy: '{preset}',\n}}\n"
        )
    };
    // One that was chosen here before, and that nobody has changed since, is replaced.
    let chosen = |known: String| Preset::ALL.iter().any(|preset| text(preset) == known);
    if path.exists() && !std::fs::read_to_string(path).is_ok_and(chosen) {
        let preset = preset.name();
        let what = format!("`{}` is yours, and is not changed by programs", path.display());
        return Err(
            CliError::new(Code::Policy, what).hint(format!("set its field `policy: '{preset}'` there"))
        );
    }
    let path = context.home.join("config.jsonnet");
    std::fs::create_dir_all(&context.home)?;
    file::write(&path, |file| Ok(file.write_all(text(&preset).as_bytes())?))?;
    context.tell(&format!("wrote `{}`", path.display()));
    Ok(())
}

fn diff(context: &Context, policy: &Value) -> Result<(), CliError> {
    let store = context.store()?;
    let now = context.judgement(&store, None)?;
    let then = context.judgement(&store, Some(policy.clone()))?;
    let changes = changes(&store, store.claimed()?, &now, &then)?;
    if context.json {
        return Ok(output::json("policyDiff", &changes)?);
    }
    for Change { action, package, now, then } in &changes {
        output::say(&format!("{now} -> {then}  {package}  {action}"))?;
    }
    context.tell(&format!("{} verdicts would change", changes.len()));
    Ok(())
}

/// A verdict that would be another one.
#[derive(Serialize)]
pub(crate) struct Change {
    pub(crate) action: String,
    pub(crate) package: Name,
    pub(crate) now: &'static str,
    pub(crate) then: &'static str,
}

/// What would be decided differently about these.
pub(crate) fn changes(
    store: &Store,
    actions: impl IntoIterator<Item = ActionId>,
    now: &Judgement,
    then: &Judgement,
) -> Result<Vec<Change>, CliError> {
    let mut changes = Vec::new();
    for action in actions {
        let package = why::package(store, &action)?;
        let (before, after) = (now.verdict(&action, &package)?, then.verdict(&action, &package)?);
        if before.outcome != after.outcome {
            let (now, then) = (why::mark(&before.outcome).2, why::mark(&after.outcome).2);
            changes.push(Change { action: action.to_string(), package, now, then });
        }
    }
    Ok(changes)
}
