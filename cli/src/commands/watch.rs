//! `watch` and `attest rebuild`: execute what others attested, and sign what it gives.

use std::{process::ExitCode, sync::Arc};

use node::{
    attest::Attested,
    build::Limits,
    control::Node,
    rebuild::{Comparison, RebuildError, Rebuilder, Rebuilt},
    watch::{self, Config, Event, Hours, Wishes},
};
use protocol::{glob::Glob, id::ActionId, name::Name};
use serde_json::{Value, json};
use store::Store;

use super::attest;
use crate::{
    context::Context,
    exit::{CliError, Code},
    network::Reach,
    output::{self, Style},
};

/// Rebuild what others attest or wish, and sign what it gives, until it is stopped
///
/// First what is disputed, then what is wished, then what has the fewest votes; what others are
/// doing already comes last. Asks the node that runs, or runs one meanwhile. Each execution is
/// bounded; what exceeds a limit is refused and not tried again. The configuration (`watch`) says
/// the same as these flags, and `assize node run --watch` does it inside the node.
#[derive(clap::Args, Debug)]
pub(crate) struct Watch {
    /// Look at the attestations of these alone: names and groups of `assize trust list`
    #[arg(value_name = "NAME")]
    attesters: Vec<Name>,

    /// Rebuild packages with such names alone, as in `lua*`; may be given several times
    #[arg(long, value_name = "PATTERN")]
    package: Vec<Glob>,

    /// Whose wishes to listen to
    #[arg(long, value_name = "WHOSE")]
    wishes: Option<Whose>,

    /// Votes with which an action needs no more
    #[arg(long, value_name = "N")]
    votes: Option<usize>,

    /// Executions at once
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,

    /// Begin executions in this part of the day alone, by the hours of UTC, as in 22-6
    #[arg(long, value_name = "HOURS")]
    hours: Option<Hours>,

    /// Seconds that one execution may take
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<u64>,

    /// Seconds of execution in one day, after which nothing more begins
    #[arg(long, value_name = "SECONDS")]
    seconds_per_day: Option<u64>,

    /// MiB of memory that one execution may use
    #[arg(long, value_name = "MIB")]
    memory: Option<u64>,

    /// MiB that one execution may write, and MiB that its inputs may have
    #[arg(long, value_name = "MIB")]
    disk: Option<u64>,

    /// Do what is to be done now, and end
    #[arg(long)]
    once: bool,
}

/// Whose wishes.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Whose {
    /// Nobody's
    Nobody,
    /// Those of the roster
    Roster,
    /// Everybody's
    Anybody,
}

impl From<Whose> for Wishes {
    fn from(whose: Whose) -> Self {
        match whose {
            Whose::Nobody => Self::Nobody,
            Whose::Roster => Self::Roster,
            Whose::Anybody => Self::Anybody,
        }
    }
}

impl Watch {
    pub(crate) fn run(self, context: &Context) -> Result<ExitCode, CliError> {
        let store = context.store()?;
        let (node, _local) = context.node(&store, Reach::Anybody)?;
        let once = self.once;
        let config = self.over(context.config()?.watch);
        let rebuilder = rebuilder(context, &store, node, config.limits)?;
        let (json, quiet) = (context.json, context.quiet);
        let observe = move |event: Event<'_>| {
            if let Some(text) = text(&event, json, quiet) {
                output::complain(&text);
            }
        };
        context.block_on(watch::Watch::new(rebuilder, config).run(observe, once))??;
        Ok(ExitCode::SUCCESS)
    }

    /// What is configured, with what these flags say instead.
    fn over(self, mut config: Config) -> Config {
        const MIB: u64 = 1 << 20;
        if !self.attesters.is_empty() {
            config.attesters = self.attesters;
        }
        if !self.package.is_empty() {
            config.packages = self.package;
        }
        config.wishes = self.wishes.map_or(config.wishes, Wishes::from);
        config.votes = self.votes.unwrap_or(config.votes);
        config.jobs = self.jobs.map_or(config.jobs, usize::from);
        config.hours = self.hours.or(config.hours);
        config.seconds_per_day = self.seconds_per_day.or(config.seconds_per_day);
        let limits = &mut config.limits;
        limits.seconds = self.seconds.unwrap_or(limits.seconds);
        limits.memory = self.memory.map_or(limits.memory, |mib| mib.saturating_mul(MIB));
        limits.disk = self.disk.map_or(limits.disk, |mib| mib.saturating_mul(MIB));
        config
    }
}

/// What executes for others on this machine.
pub(super) fn rebuilder(
    context: &Context,
    store: &Arc<Store>,
    node: Option<Node>,
    limits: Limits,
) -> Result<Rebuilder, CliError> {
    Ok(Rebuilder::new(context.builder(store), node, context.key()?, limits))
}

/// Executes these actions, once.
pub(super) fn rebuild(context: &Context, actions: &[ActionId], offline: bool) -> Result<ExitCode, CliError> {
    let store = context.store()?;
    let reach = if offline { Reach::Nobody } else { Reach::Anybody };
    let (node, _local) = context.node(&store, reach)?;
    let rebuilder = rebuilder(context, &store, node, context.config()?.watch.limits)?;
    let mut code = ExitCode::SUCCESS;
    for action in actions {
        let rebuilt = context.block_on(async {
            let found = rebuilder.find(*action).await?;
            context.tell(&format!("executing {} {action}", found.name()));
            rebuilder.rebuild(found, &|_| ()).await
        })?;
        let rebuilt = rebuilt.map_err(|error| of_rebuild(action, &error))?;
        let others = match &rebuilt {
            Rebuilt::Built { realisation, .. } => {
                Comparison::new(&context.judgement(&store, None)?, action, &realisation.outputs)?
            }
            Rebuilt::Failed { .. } => Comparison::default(),
        };
        match context.json {
            true => output::json("rebuilt", &as_json(action, &rebuilt, &others))?,
            false => output::say(&line(action, &rebuilt, &others))?,
        }
        code = match &rebuilt {
            Rebuilt::Failed { .. } => Code::BuildFailed.into(),
            Rebuilt::Built { .. } if !others.differ.is_empty() => Code::Disputed.into(),
            Rebuilt::Built { .. } => code,
        };
    }
    Ok(code)
}

pub(super) fn of_rebuild(action: &ActionId, error: &RebuildError) -> CliError {
    use node::build::BuildError;
    let (code, hint) = match error {
        RebuildError::Unknown { .. } | RebuildError::NoFile { .. } | RebuildError::Length { .. } => (
            Code::NotFound,
            "be connected to a node that executed it: `assize peer add TICKET`; `assize node status` shows who is".into(),
        ),
        RebuildError::TooLarge { .. } => {
            (Code::Failed, "raise `watch.limits.disk` in the configuration, if that is wanted".into())
        }
        RebuildError::Download(_) | RebuildError::Node(_) => {
            (Code::Unreachable, "see who is connected with `assize node status`".into())
        }
        RebuildError::Build(BuildError::TimedOut { .. }) => {
            (Code::TimedOut, "raise `watch.limits.seconds` in the configuration, if that is wanted".into())
        }
        RebuildError::Build(_) => (Code::BuildFailed, format!("all of its log: `assize log {action}`")),
        RebuildError::Realise(_) | RebuildError::Unstable => {
            (Code::NotDeterministic, format!("see what it does with `assize show {action}`"))
        }
        RebuildError::Attest(_) | RebuildError::Say(_) | RebuildError::Lookup(_) => {
            (Code::Failed, "is there space on the disk of the store? `assize doctor` tells".into())
        }
    };
    CliError::of(code, error).hint(hint)
}

/// Names in a row.
fn names<'n>(names: impl IntoIterator<Item = &'n Name>) -> String {
    let names: Vec<_> = names.into_iter().map(Name::as_str).collect();
    names.join(", ")
}

/// What an execution came to, in a line.
fn line(action: &ActionId, rebuilt: &Rebuilt, others: &Comparison) -> String {
    let realisation = match rebuilt {
        Rebuilt::Failed { failure, said } => {
            let said = if said.is_some() { "signed" } else { "signed before" };
            let failed = output::plain(&failure.to_string());
            return format!("{} {action} fails: {failed} ({said})", Style::Error.paint("✘"));
        }
        Rebuilt::Built { realisation, attested: Attested::Contradicts { place } } => {
            let name = &realisation.name;
            return format!(
                "{} {name} {action}: not signed, because place {place} of the feed says something else",
                Style::Error.paint("✘")
            );
        }
        Rebuilt::Built { realisation, .. } => realisation,
    };
    let mut parts = Vec::new();
    if !others.agree.is_empty() {
        parts.push(format!("agrees with {}", names(&others.agree)));
    }
    if !others.differ.is_empty() {
        parts.push(format!("differs from {}", names(&others.differ)));
    }
    if !others.copied.is_empty() {
        parts.push(format!("not executed by {}, whose witness is wrong", names(&others.copied)));
    }
    if parts.is_empty() {
        parts.push("nobody else in the roster has spoken".into());
    }
    let (style, sign) = match others.differ.is_empty() && others.copied.is_empty() {
        true => (Style::Good, "✔"),
        false => (Style::Error, "✘"),
    };
    format!("{} {} {action}: {}", style.paint(sign), realisation.name, parts.join("; "))
}

fn as_json(action: &ActionId, rebuilt: &Rebuilt, others: &Comparison) -> Value {
    match rebuilt {
        Rebuilt::Built { realisation, attested } => json!({
            "action": action.to_string(),
            "name": realisation.name,
            "outputs": realisation.outputs,
            "signed": !matches!(attested, Attested::Contradicts { .. }),
            "others": others,
        }),
        Rebuilt::Failed { failure, said } => json!({
            "action": action.to_string(),
            "failed": failure.to_string(),
            "statement": said.as_ref().map(|signed| attest::describe(signed)),
        }),
    }
}

/// What happens, as a line of a log, unless it is not worth one.
pub(super) fn text(event: &Event<'_>, json: bool, quiet: bool) -> Option<String> {
    if json {
        return Some(envelope(event));
    }
    let text = match event {
        Event::Rebuilt { action, rebuilt, others } => return Some(line(action, rebuilt, others)),
        Event::Refused { action, error } => {
            let error = output::plain(&error.to_string());
            return Some(format!("{} {action} is refused: {error}", Style::Busy.paint("!")));
        }
        Event::Began { action, name } => format!("executing {name} {action}"),
        Event::PassedOver { action, name } => format!("not watched: {name} {action}"),
        Event::Postponed { action, error, wait } => {
            let error = output::plain(&error.to_string());
            format!("{action} in {} s again: {error}", wait.as_secs())
        }
        Event::Waiting { actions } => format!("{actions} wait"),
    };
    (!quiet).then_some(text)
}

fn envelope(event: &Event<'_>) -> String {
    let (kind, mut data) = match event {
        Event::Began { action, name } => ("began", json!({ "action": action.to_string(), "name": name })),
        Event::PassedOver { action, name } => {
            ("passedOver", json!({ "action": action.to_string(), "name": name }))
        }
        Event::Rebuilt { action, rebuilt, others } => ("rebuilt", as_json(action, rebuilt, others)),
        Event::Refused { action, error } => {
            ("refused", json!({ "action": action.to_string(), "message": error.to_string() }))
        }
        Event::Postponed { action, error, wait } => (
            "postponed",
            json!({ "action": action.to_string(), "message": error.to_string(), "seconds": wait.as_secs() }),
        ),
        Event::Waiting { actions } => ("waiting", json!({ "actions": actions })),
    };
    data["event"] = kind.into();
    output::envelope("watch", &data).to_string()
}

impl From<watch::WatchError> for CliError {
    fn from(error: watch::WatchError) -> Self {
        match error {
            watch::WatchError::Judgement(error) => error.into(),
            watch::WatchError::Lookup(error) => error.into(),
        }
    }
}
