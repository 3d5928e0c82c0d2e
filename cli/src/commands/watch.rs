//! `watch` and `attest rebuild`: execute what others attested, and sign what it gives.

use std::{collections::BTreeMap, process::ExitCode, sync::Arc};

use node::{
    attest::Attested,
    build::Limits,
    control::Node,
    rebuild::{RebuildError, Rebuilder, Rebuilt},
    watch::{self, Config, Event, Hours, Wishes},
};
use protocol::{glob::Glob, id::ActionId, name::Name};
use serde_json::{Value, json};
use store::Store;
use trust::audit::Support;

use super::attest;
use crate::{
    context::Context,
    exit::{CliError, Code},
    network::Reach,
    output::{self, Line, Style},
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
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    votes: Option<u16>,

    /// Executions at once
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,

    /// Begin executions in this part of the day alone, by the hours of UTC, as in 22-6
    #[arg(long, value_name = "HOURS")]
    hours: Option<Hours>,

    /// Seconds that one execution may take
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    seconds: Option<u64>,

    /// Seconds of execution in one day, after which nothing more begins
    #[arg(long, value_name = "SECONDS")]
    seconds_per_day: Option<u64>,

    /// MiB of memory that one execution may use
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..))]
    memory: Option<u64>,

    /// MiB that one execution may write, and MiB that its inputs may have
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..))]
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
        let (once, named) = (self.once, !self.attesters.is_empty());
        let config = self.over(context.config()?.watch);
        let roster = context.roster().read()?;
        let known = |name: &&Name| roster.get(name).is_some() || roster.groups().contains(name);
        for name in config.attesters.iter().filter(|name| !known(name)) {
            let what = format!("no name and no group is called `{name}` here");
            if named {
                return Err(CliError::new(Code::NotFound, what).hint("list them with `assize trust list`"));
            }
            // Who is in the configuration may come later.
            context.tell(&what);
        }
        let rebuilder = rebuilder(context, &store, node, config.limits)?;
        let (json, quiet) = (context.json, context.quiet);
        let observe = move |event: Event<'_>| {
            if let Some(text) = text(&event, json, quiet) {
                output::complain(&text);
            }
        };
        if !once {
            let whose = match &config.attesters[..] {
                [] => "those who are trusted here".into(),
                names => names.iter().map(Name::as_str).collect::<Vec<_>>().join(", "),
            };
            context.tell(&format!("rebuilding what {whose} attest, until it is stopped"));
        }
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
        config.votes = self.votes.map_or(config.votes, usize::from);
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
        let dispute = context.judgement(&store, None)?.dispute(action)?;
        let others = dispute.settled(rebuilt.found().as_ref());
        match context.json {
            true => output::json("rebuilt", &as_json(action, &rebuilt, &others))?,
            false => line(action, &rebuilt, &others).say()?,
        }
        code = match &rebuilt {
            Rebuilt::Failed { .. } => Code::BuildFailed.into(),
            Rebuilt::Built { .. } if others.values().any(|said| *said == Support::Refuted) => {
                Code::Disputed.into()
            }
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
        RebuildError::NoTrace { .. } => {
            (Code::Usage, "leave `--record` and `--trace` out: two fetches cannot part".into())
        }
        RebuildError::Realise(_) | RebuildError::Unstable => {
            (Code::NotDeterministic, format!("see what it does with `assize show {action}`"))
        }
        RebuildError::Attest(_) | RebuildError::Say(_) | RebuildError::Lookup(_) => {
            (Code::Failed, "is there space on the disk of the store? `assize doctor` tells".into())
        }
    };
    CliError::of(code, error).hint(hint)
}

/// What an execution came to, in a line.
fn line(action: &ActionId, rebuilt: &Rebuilt, others: &BTreeMap<Name, Support>) -> Line {
    let realisation = match rebuilt {
        Rebuilt::Failed { failure, said } => {
            let said = if said.is_some() { "signed" } else { "signed before" };
            return Line::styled(Style::Error, "✘").and(format!(" {action} fails: {failure} ({said})"));
        }
        Rebuilt::Built { realisation, attested: Attested::Contradicts { place } } => {
            let name = &realisation.name;
            return Line::styled(Style::Error, "✘").and(format!(
                " {name} {action}: not signed, because place {place} of the feed says something else"
            ));
        }
        Rebuilt::Built { realisation, .. } => realisation,
    };
    let mut parts: Vec<String> = [
        ("agrees with ", "", &[Support::Proven, Support::Supported][..]),
        ("differs from ", "", &[Support::Refuted]),
        ("not executed by ", ", whose witness is wrong", &[Support::Copied]),
    ]
    .into_iter()
    .filter_map(|(before, after, kinds)| {
        let names =
            others.iter().filter(|(_, support)| kinds.contains(support)).map(|(name, _)| name.as_str());
        let names = names.collect::<Vec<_>>().join(", ");
        (!names.is_empty()).then(|| format!("{before}{names}{after}"))
    })
    .collect();
    if parts.is_empty() {
        parts.push("nobody else in the roster has spoken".into());
    }
    let mark = match others.values().any(|support| support.is_against()) {
        false => Line::styled(Style::Good, "✔"),
        true => Line::styled(Style::Error, "✘"),
    };
    mark.and(format!(" {} {action}: {}", realisation.name, parts.join("; ")))
}

fn as_json(action: &ActionId, rebuilt: &Rebuilt, others: &BTreeMap<Name, Support>) -> Value {
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
        return Some(output::envelope("watch", &data(event)?).to_string());
    }
    let matters = matches!(event, Event::Rebuilt { .. } | Event::Refused { .. });
    describe(event).filter(|_| matters || !quiet).map(|line| line.paint())
}

/// What happens, for people.
pub(crate) fn describe(event: &Event<'_>) -> Option<Line> {
    Some(match event {
        Event::Rebuilt { action, rebuilt, others } => line(action, rebuilt, others),
        Event::Refused { action, error } => {
            Line::styled(Style::Busy, "!").and(format!(" {action} is refused: {error}"))
        }
        Event::Began { action, name } => Line::new(format!("executing {name} {action}")),
        Event::PassedOver { action, name } => Line::new(format!("not watched: {name} {action}")),
        Event::Postponed { action, error, wait } => {
            Line::new(format!("{action} in {} s again: {error}", wait.as_secs()))
        }
        Event::Waiting { actions } => Line::new(format!("{actions} wait")),
        Event::Goes { .. } => return None,
    })
}

/// What happens, for programs.
fn data(event: &Event<'_>) -> Option<Value> {
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
        Event::Goes { .. } => return None,
    };
    data["event"] = kind.into();
    Some(data)
}

impl From<watch::WatchError> for CliError {
    fn from(error: watch::WatchError) -> Self {
        match error {
            watch::WatchError::Judgement(error) => error.into(),
            watch::WatchError::Lookup(error) => error.into(),
        }
    }
}
