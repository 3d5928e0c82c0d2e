//! `audit`: who disagrees, about what, where the outputs differ, and who is right.

mod report;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
};

use node::{
    control::Node,
    difference,
    judgement::Judgement,
    rebuild::{RebuildError, Rebuilt},
    substitute,
};
use protocol::{
    evidence::{self, Evidence},
    glob::Glob,
    id::ActionId,
    key::AttesterKey,
    name::Name,
    output::Output,
    statement::Ending,
};
use serde::Serialize;
use serde_json::json;
use store::Store;
use trust::{
    audit::{Dispute, Found, Saying, Severity},
    date::Day,
    ledger::WitnessState,
    roster::SELF,
};

use super::{attest::describe_against, target, watch, why};
use crate::{
    context::{Context, Project},
    exit::{CliError, Code},
    file,
    network::{self, Reach},
    output::{self, Style},
};

/// Disagreements: list them, look at one, see where outputs differ, and settle who is right
#[derive(clap::Subcommand, Debug)]
pub(crate) enum AuditCommand {
    /// List what people disagree about, the gravest first
    List(Filter),
    /// Show who says what of an action, where, and since when
    Show {
        /// Attribute of the project, or action (`act:…`)
        #[arg(value_name = "ATTR|act:…")]
        target: String,
        #[command(flatten)]
        project: Project,
    },
    /// Show where the outputs differ that people name for an action
    ///
    /// Has both from whoever has them. What is had for this is not accepted by that.
    Diff {
        /// Attribute of the project, or action (`act:…`)
        #[arg(value_name = "ATTR|act:…")]
        target: String,
        /// Whose outputs, by the names of `assize trust list`, `self`, or keys [default: the two sides
        /// with the most people on them]
        #[arg(long, value_name = "NAME", num_args = 2)]
        between: Vec<String>,
        /// Which output [default: the first that differs]
        #[arg(long, value_name = "NAME")]
        output: Option<Name>,
        #[command(flatten)]
        project: Project,
        /// Use no network
        #[arg(long)]
        offline: bool,
    },
    /// Execute an action here, again and again, and say whom that supports
    ///
    /// Signs what it gives. Exits with 0 if what people say is settled by it, 100 if it fails, 104
    /// if executions on this machine differ.
    Settle {
        /// Attribute of the project, or action (`act:…`)
        #[arg(value_name = "ATTR|act:…")]
        target: String,
        /// Ask rebuilders for their votes, too: they come when they come
        #[arg(long, conflicts_with = "offline")]
        ask: bool,
        /// How often
        #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
        times: u32,
        /// Write what everybody signed about it there, which others check with `assize attest verify`
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        #[command(flatten)]
        project: Project,
        /// Use no network
        #[arg(long)]
        offline: bool,
    },
    /// Write all disagreements into one HTML file that needs nothing else
    Report {
        #[command(flatten)]
        filter: Filter,
        /// File to write; `-` for stdout
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
    },
}

/// Which disagreements.
#[derive(clap::Args, Debug)]
pub(crate) struct Filter {
    /// About packages with such names alone, as in `lua*`
    #[arg(long, value_name = "PATTERN")]
    package: Option<Glob>,
    /// In which this attester has a part: a name of `assize trust list`, `self`, or a key
    #[arg(long, value_name = "NAME|key:…")]
    attester: Option<String>,
    /// In which something was said on that day or later
    #[arg(long, value_name = "YYYY-MM-DD", value_parser = day)]
    since: Option<Day>,
    /// At least so grave
    #[arg(long, value_name = "SEVERITY")]
    severity: Option<Gravity>,
}

fn day(text: &str) -> Result<Day, String> {
    Day::parse(text).ok_or_else(|| format!("`{text}` is no day: expected YYYY-MM-DD"))
}

/// How grave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
enum Gravity {
    /// A key said two things at one place: it counts no more
    Equivocation,
    /// People of the roster got different outputs
    Dissent,
    /// Somebody of the roster says two things
    Contradiction,
    /// Somebody of the roster did not execute what he attests
    Witness,
    /// Somebody of the roster says that it fails
    Failure,
    /// Strangers say something else
    Strangers,
}

impl From<Severity> for Gravity {
    fn from(severity: Severity) -> Self {
        match severity {
            Severity::Dissent => Self::Dissent,
            Severity::Contradiction => Self::Contradiction,
            Severity::Witness => Self::Witness,
            Severity::Failure => Self::Failure,
            Severity::Strangers => Self::Strangers,
        }
    }
}

/// Something that people disagree about.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Disagreement {
    action: String,
    package: Name,
    #[serde(flatten)]
    dispute: Dispute,
}

/// A key that said two things at one place.
#[derive(Serialize)]
struct Equivocator {
    key: AttesterKey,
    who: Option<Name>,
    places: [u64; 2],
}

/// All that is wrong, the gravest first.
#[derive(Serialize)]
struct Findings {
    equivocations: Vec<Equivocator>,
    disputes: Vec<Disagreement>,
}

impl AuditCommand {
    pub(crate) fn run(self, context: &Context) -> Result<ExitCode, CliError> {
        let store = context.store()?;
        match self {
            Self::List(filter) => list(context, &filter.find(context, &store)?)?,
            Self::Report { filter, output } => {
                let html = report::html(&filter.find(context, &store)?);
                file::write(&output, |to| Ok(to.write_all(html.as_bytes())?))?;
            }
            Self::Show { target, project } => {
                let action = target::find(context, &store, &project, &target)?.known()?;
                let dispute = context.judgement(&store, None)?.dispute(&action)?;
                show(context, &store, &action, &dispute)?;
            }
            Self::Diff { target, between, output, project, offline } => {
                let action = target::find(context, &store, &project, &target)?.known()?;
                return diff(context, &store, &action, &between, output, offline);
            }
            Self::Settle { target, ask, times, output, project, offline } => {
                let action = target::find(context, &store, &project, &target)?.known()?;
                let reach = if offline { Reach::Nobody } else { Reach::Anybody };
                let (node, _local) = context.node(&store, reach)?;
                if let (true, Some(node)) = (ask, &node) {
                    context.block_on(node.wish(network::wish(&context.key()?, [action])))??;
                }
                return settle(context, &store, &action, times, output, node);
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Filter {
    /// What there is of it in the store.
    fn find(&self, context: &Context, store: &Arc<Store>) -> Result<Findings, CliError> {
        let judgement = context.judgement(store, None)?;
        let attester =
            self.attester.as_deref().map(|text| super::attest::attester(context, text)).transpose()?;
        let name = attester.and_then(|key| judgement.voters().name_of(&key).cloned());
        let is_meant = |who: Option<&Name>, key: Option<AttesterKey>| match &name {
            _ if attester.is_none() => true,
            Some(name) => who == Some(name),
            None => key == attester,
        };
        let grave = |gravity: Gravity| self.severity.is_none_or(|least| gravity <= least);
        let mut equivocations = Vec::new();
        for key in store.attesters()?.into_iter().filter(|_| grave(Gravity::Equivocation)) {
            let who = judgement.voters().name_of(&key).cloned();
            for proof in store.bearing(&key)? {
                if let Evidence::Equivocation(proof) = proof
                    && is_meant(who.as_ref(), Some(key))
                {
                    let places = proof.statements().each_ref().map(|signed| signed.statement().seq);
                    equivocations.push(Equivocator { key, who: who.clone(), places });
                }
            }
        }
        let mut disputes = Vec::new();
        for action in store.claimed()? {
            let dispute = judgement.dispute(&action)?;
            let Some(worst) = dispute.severities.first() else { continue };
            let package = why::package(store, &action)?;
            let late = self.since.is_none_or(|since| Day::of(dispute.last) >= since);
            let named = self.package.as_ref().is_none_or(|glob| glob.matches(package.as_str().as_bytes()));
            let part = dispute.sayings().any(|(saying, _)| is_meant(saying.who.as_ref(), saying.key));
            if grave((*worst).into()) && late && named && part {
                disputes.push(Disagreement { action: action.to_string(), package, dispute });
            }
        }
        disputes.sort_by_key(|d| (d.dispute.severity(), std::cmp::Reverse(d.dispute.last)));
        Ok(Findings { equivocations, disputes })
    }
}

/// What a severity is called.
fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Dissent => "dissent",
        Severity::Contradiction => "contradiction",
        Severity::Witness => "witness",
        Severity::Failure => "failure",
        Severity::Strangers => "strangers",
    }
}

/// Whoever says something, each once.
fn people(says: &[Saying]) -> String {
    let names: BTreeSet<_> = says.iter().filter_map(|saying| saying.who.as_ref()).map(Name::as_str).collect();
    let strangers: BTreeSet<_> = says.iter().filter(|s| s.who.is_none()).filter_map(|s| s.key).collect();
    let mut parts: Vec<String> = names.into_iter().map(str::to_owned).collect();
    match strangers.len() {
        0 => {}
        1 => parts.push("a stranger".into()),
        n => parts.push(format!("{n} strangers")),
    }
    parts.join(", ")
}

fn list(context: &Context, found: &Findings) -> Result<(), CliError> {
    if context.json {
        return Ok(output::json("disagreements", found)?);
    }
    for Equivocator { key, who, places: [first, second] } in &found.equivocations {
        let who = who.as_ref().map_or("a stranger", Name::as_str);
        let places =
            if first == second { format!("place {first}") } else { format!("places {first} and {second}") };
        let word = Style::Error.paint("equivocation");
        output::say(&format!("{word}  {who}  {key}  said two things at {places}"))?;
    }
    for Disagreement { action, package, dispute } in &found.disputes {
        let sides: Vec<_> = dispute.sides.iter().map(|side| people(&side.says)).collect();
        let severity = word(dispute.severity());
        let style = if dispute.severity() == Severity::Strangers { Style::Dim } else { Style::Error };
        let day = Day::of(dispute.last);
        output::say(&format!(
            "{}  {package}  {action}  {}  {day}",
            style.paint(severity),
            sides.join(" ≠ ")
        ))?;
    }
    let n = found.equivocations.len() + found.disputes.len();
    context.tell(&match n {
        0 => "nobody disagrees about anything that is known here".into(),
        n => format!("{n} in all; look at one with `assize audit show act:…`"),
    });
    Ok(())
}

/// What somebody says that an action came to, in lines.
fn lines(found: &Found) -> Vec<String> {
    match found {
        Found::Built(outputs) => {
            let line = |(name, output): (&Name, &Output)| {
                format!("{name} {}  {}", output.nar, output::bytes(output.size))
            };
            outputs.iter().map(line).collect()
        }
        Found::Failed { step, ending } => vec![match ending {
            Ending::Exit(code) => format!("fails in step {step}, with exit code {code}"),
            Ending::Signal(signal) => format!("fails in step {step}, with signal {signal}"),
            Ending::Trap => format!("fails in step {step}, with a trap"),
            Ending::Unstable => "comes to something else each time".into(),
        }],
    }
}

fn witness(state: WitnessState) -> &'static str {
    match state {
        WitnessState::Absent => "no witness",
        WitnessState::Unchecked => "witness not checked here",
        WitnessState::Verified => "witness verified",
        WitnessState::Wrong => "WRONG witness: did not execute it",
    }
}

/// Who says something, where, and since when.
fn saying(saying: &Saying) -> String {
    let who = saying.who.as_ref().map_or("a stranger", Name::as_str);
    let platform = saying.platform.as_ref();
    let platform = platform.map_or_else(String::new, |p| format!("  {} {} {}", p.engine, p.arch, p.os));
    let since = saying.time.map_or_else(String::new, |time| format!("  {}", Day::of(time)));
    let place = match (saying.seq, saying.key) {
        (Some(seq), Some(key)) if saying.who.is_none() => format!("  {key} place {seq}"),
        (Some(seq), _) => format!("  place {seq}"),
        (None, _) => "  executed here".into(),
    };
    let against =
        saying.against.map_or_else(String::new, |a| format!("  (does not count: {})", describe_against(a)));
    format!("{who}{platform}  {}{since}{place}{against}", witness(saying.witness))
}

fn show(context: &Context, store: &Store, action: &ActionId, dispute: &Dispute) -> Result<(), CliError> {
    let package = why::package(store, action)?;
    if dispute.sides.is_empty() {
        return Err(CliError::new(Code::NotFound, format!("nobody has said anything of {action}"))
            .hint("hear what others say: `assize node start`"));
    }
    if context.json {
        let data = Disagreement { action: action.to_string(), package, dispute: dispute.clone() };
        return Ok(output::json("dispute", &data)?);
    }
    let words: Vec<_> = dispute.severities.iter().map(|severity| word(*severity)).collect();
    let words = match words.is_empty() {
        true => Style::Good.paint("no disagreement"),
        false => Style::Error.paint(&words.join(", ")),
    };
    output::say(&format!("{words}  {package}  {action}"))?;
    for side in &dispute.sides {
        lines(&side.found).iter().try_for_each(|line| output::say(line))?;
        side.says.iter().try_for_each(|said| output::say(&format!("    {}", saying(said))))?;
    }
    if !dispute.severities.is_empty() {
        output::complain(&format!(
            "{}: see where they differ with `assize audit diff {action}`, and who is right with `assize audit settle {action}`",
            Style::Hint.paint("hint")
        ));
    }
    Ok(())
}

/// What somebody says of an action.
fn side_of<'d>(
    context: &Context,
    judgement: &Judgement,
    dispute: &'d Dispute,
    whose: &str,
) -> Result<&'d Found, CliError> {
    let key = match whose {
        SELF => None,
        whose => Some(super::attest::attester(context, whose)?),
    };
    let name = key.and_then(|key| judgement.voters().name_of(&key));
    let is = |saying: &Saying| match (key, name) {
        (None, _) => saying.who.as_ref().is_some_and(|who| who.as_str() == SELF),
        (Some(_), Some(name)) => saying.who.as_ref() == Some(name),
        (Some(key), None) => saying.key == Some(key),
    };
    let found = dispute.sayings().filter(|(saying, _)| is(saying)).map(|(_, found)| found).last();
    found.ok_or_else(|| {
        CliError::new(Code::NotFound, format!("`{whose}` says nothing of it"))
            .hint("see who says what with `assize audit show`")
    })
}

fn diff(
    context: &Context,
    store: &Arc<Store>,
    action: &ActionId,
    between: &[String],
    output: Option<Name>,
    offline: bool,
) -> Result<ExitCode, CliError> {
    let judgement = context.judgement(store, None)?;
    let dispute = judgement.dispute(action)?;
    let built: Vec<&Found> = dispute
        .sides
        .iter()
        .map(|side| &side.found)
        .filter(|found| matches!(found, Found::Built(_)))
        .collect();
    let (one, other) = match (between, built.as_slice()) {
        ([one, other], _) => {
            (side_of(context, &judgement, &dispute, one)?, side_of(context, &judgement, &dispute, other)?)
        }
        (_, [one, other, ..]) => (*one, *other),
        _ => {
            return Err(CliError::new(Code::NotFound, "nobody names different outputs for it")
                .hint(format!("see who says what with `assize audit show {action}`")));
        }
    };
    let name = output.or_else(|| dispute.output(one, other));
    let of = |found: &Found| match (found, &name) {
        (Found::Built(outputs), Some(name)) => outputs.get(name).copied(),
        _ => None,
    };
    let (Some(name), Some(left), Some(right)) = (name.clone(), of(one), of(other)) else {
        return Err(CliError::new(Code::NotFound, "the two have no output that both name and that differs")
            .hint(format!("see who says what with `assize audit show {action}`")));
    };
    let reach = if offline { Reach::Nobody } else { Reach::Anybody };
    let missing: BTreeMap<_, _> =
        [left, right].iter().filter(|o| !store.contains(&o.nar)).map(|o| (o.nar, o.size)).collect();
    if !missing.is_empty() {
        let (node, _local) = context.node(store, reach)?;
        let bytes = missing.values().fold(0, |sum: u64, size| sum.saturating_add(*size));
        context.tell(&format!("downloading {} to compare", output::bytes(bytes)));
        let had = context.block_on(substitute::download(node.as_ref(), &missing, |_, _| ()))?;
        had.map_err(|error| {
            CliError::of(Code::Unreachable, &error)
                .hint("be connected to who has it: `assize peer add TICKET`; its maker may not have kept it")
        })?;
    }
    let (left, right) = (store.open_nar(&left.nar)?, store.open_nar(&right.nar)?);
    let difference =
        difference::compare(left.bytes(), right.bytes()).map_err(|e| CliError::of(Code::Failed, &e))?;
    if context.json {
        output::json(
            "difference",
            &json!({ "action": action.to_string(), "output": name, "difference": difference }),
        )?;
    } else {
        let who = |found: &Found| {
            let side = dispute.sides.iter().find(|side| side.found == *found);
            side.map_or_else(String::new, |side| people(&side.says))
        };
        output::say(&format!("--- {name} of {}", who(one)))?;
        output::say(&format!("+++ {name} of {}", who(other)))?;
        difference.to_string().lines().try_for_each(output::say)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn settle(
    context: &Context,
    store: &Arc<Store>,
    action: &ActionId,
    times: u32,
    to: Option<PathBuf>,
    node: Option<Node>,
) -> Result<ExitCode, CliError> {
    let rebuilder = watch::rebuilder(context, store, node, context.config()?.watch.limits)?;
    let settled = context.block_on(async {
        let found = rebuilder.find(*action).await?;
        let often = if times == 1 { "once".into() } else { format!("{times} times") };
        context.tell(&format!("executing {} {often}", found.name()));
        rebuilder.settle(found, times, &|_| ()).await
    })?;
    let found = match settled {
        Ok(Rebuilt::Built { realisation, .. }) => Some(Found::Built(realisation.outputs)),
        Ok(Rebuilt::Failed { failure, .. }) => {
            failure.ending().map(|(step, ending)| Found::Failed { step, ending })
        }
        Err(RebuildError::Unstable) => None,
        Err(error) => return Err(watch::of_rebuild(action, &error)),
    };
    let judgement = context.judgement(store, None)?;
    let dispute = judgement.dispute(action)?;
    if let Some(to) = to {
        let statements = store.claims(action)?;
        file::write(&to, |file| {
            file.write_all(evidence::MAGIC)?;
            let items = statements.into_iter().map(Evidence::Statement);
            items.map(|item| item.to_bytes()).try_for_each(|bytes| Ok(file.write_all(&bytes)?))
        })?;
    }
    let verdicts = verdicts(&dispute, found.as_ref());
    if context.json {
        let verdicts: Vec<_> =
            verdicts.iter().map(|(who, verdict)| json!({ "who": who, "is": verdict })).collect();
        output::json(
            "settled",
            &json!({ "action": action.to_string(), "found": found, "verdicts": verdicts }),
        )?;
    } else {
        match &found {
            None => output::say(&format!("{} executions on this machine differ", Style::Error.paint("✘")))?,
            Some(found) => lines(found).iter().try_for_each(|line| output::say(&format!("here: {line}")))?,
        }
        for (who, verdict) in &verdicts {
            let (style, sign, text) = verdict.words();
            output::say(&format!("{} {who}: {text}", style.paint(sign)))?;
        }
        let wrong: Vec<_> = verdicts
            .iter()
            .filter(|(who, verdict)| who.as_str() != SELF && matches!(verdict, Is::Refuted | Is::Copied))
            .map(|(who, _)| who.as_str())
            .collect();
        if let [who, ..] = wrong.as_slice() {
            output::complain(&format!(
                "{}: whoever is wrong can withdraw it (`assize attest retract`); to count {who} no more: `assize trust remove {who}`",
                Style::Hint.paint("hint")
            ));
        }
    }
    Ok(match found {
        Some(Found::Built(_)) => ExitCode::SUCCESS,
        Some(Found::Failed { .. }) => Code::BuildFailed.into(),
        None => Code::NotDeterministic.into(),
    })
}

/// What an execution says of somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum Is {
    /// It came to the same here, and there is proof that he executed it.
    Proven,
    /// It came to the same here.
    Supported,
    /// It came to the same here, and he did not execute it.
    Copied,
    /// It came to something else here.
    Refuted,
    /// It comes to something else each time, so nobody can be right or wrong.
    Undecided,
}

impl Is {
    fn words(self) -> (Style, &'static str, &'static str) {
        match self {
            Self::Proven => (Style::Good, "✔", "got the same, and has executed it"),
            Self::Supported => (Style::Good, "✔", "got the same; nothing proves that it was executed"),
            Self::Copied => {
                (Style::Error, "✘", "names the same, and has not executed it: the witness is wrong")
            }
            Self::Refuted => {
                (Style::Error, "✘", "names something else, which execution here does not support")
            }
            Self::Undecided => (Style::Busy, "·", "cannot be right or wrong"),
        }
    }
}

/// What an execution says of everybody in the roster who has spoken, and whose word still stands.
fn verdicts(dispute: &Dispute, found: Option<&Found>) -> BTreeMap<Name, Is> {
    let mut verdicts = BTreeMap::new();
    for (saying, said) in dispute.sayings().filter(|(saying, _)| saying.against.is_none()) {
        let Some(who) = saying.who.clone().filter(|_| saying.key.is_some()) else { continue };
        let is = match (found, saying.witness) {
            (None, _) => Is::Undecided,
            (Some(found), _) if found != said => Is::Refuted,
            (Some(_), WitnessState::Wrong) => Is::Copied,
            (Some(_), WitnessState::Verified) => Is::Proven,
            (Some(_), WitnessState::Absent | WitnessState::Unchecked) => Is::Supported,
        };
        let known = verdicts.entry(who).or_insert(is);
        // Who says several things is judged by the worst.
        if matches!(is, Is::Refuted | Is::Copied) {
            *known = is;
        }
    }
    verdicts
}
