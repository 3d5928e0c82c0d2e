//! `audit`: who disagrees, about what, where the outputs differ, and who is right.

pub(crate) mod diff;
mod report;
mod settle;

use std::{collections::BTreeSet, fmt::Display, path::PathBuf, process::ExitCode, sync::Arc};

use node::judgement::Judgement;
use protocol::{
    evidence::Evidence, glob::Glob, id::ActionId, key::AttesterKey, name::Name, output::Output,
    statement::Ending,
};
use serde::Serialize;
use store::Store;
use trust::{
    audit::{Dispute, Found, Saying, Severity},
    date::Day,
    ledger::WitnessState,
};

use super::{attest::describe_against, target, why};
use crate::{
    context::{Context, Project},
    exit::{CliError, Code},
    file,
    network::{self, Reach},
    output::{self, Line, Style},
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
        /// Write it there as an HTML file that needs nothing else, one side beside the other
        #[arg(long, value_name = "FILE")]
        html: Option<PathBuf>,
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
        /// Write the trace of an execution here, for somebody who got something else
        #[arg(long, value_name = "FILE")]
        record: Option<PathBuf>,
        /// Say at which host call executions here part from the one of which that is the trace
        #[arg(long, value_name = "FILE")]
        trace: Vec<PathBuf>,
        #[command(flatten)]
        project: Project,
        /// Use no network
        #[arg(long)]
        offline: bool,
    },
    /// Write all disagreements into one HTML file that needs nothing else, or with --json as JSON
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
pub(crate) struct Disagreement {
    pub(crate) action: String,
    pub(crate) package: Name,
    #[serde(flatten)]
    pub(crate) dispute: Dispute,
}

/// A key that said two things at one place.
#[derive(Serialize)]
pub(crate) struct Equivocator {
    pub(crate) key: AttesterKey,
    pub(crate) who: Option<Name>,
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
            Self::Report { filter, output: to } => {
                let found = filter.find(context, &store)?;
                let report = match context.json {
                    true => output::envelope("disagreements", &found).to_string(),
                    false => report::html(&found),
                };
                file::write(&to, |to| Ok(to.write_all(report.as_bytes())?))?;
            }
            Self::Show { target, project } => {
                let action = target::find(context, &store, &project, &target)?.known()?;
                let dispute = context.judgement(&store, None)?.dispute(&action)?;
                show(context, &store, &action, &dispute)?;
            }
            Self::Diff { target, between, output, html, project, offline } => {
                let action = target::find(context, &store, &project, &target)?.known()?;
                return diff::run(context, &store, &action, &between, output, html, offline);
            }
            Self::Settle { target, ask, times, output, record, trace, project, offline } => {
                let action = target::find(context, &store, &project, &target)?.known()?;
                let reach = if offline { Reach::Nobody } else { Reach::Anybody };
                let (node, _local) = context.node(&store, reach)?;
                if let (true, Some(node)) = (ask, &node) {
                    context.block_on(node.wish(network::wish(&context.key()?, [action])))??;
                }
                let files = settle::Files { statements: output, record, traces: trace };
                return settle::run(context, &store, &action, times, files, node);
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Filter {
    /// What there is of it in the store.
    fn find(&self, context: &Context, store: &Arc<Store>) -> Result<Findings, CliError> {
        let judgement = context.judgement(store, None)?;
        let mut disputes = Vec::new();
        for action in suspects(store)? {
            let dispute = judgement.dispute(&action)?;
            if !dispute.severities.is_empty() {
                let package = why::package(store, &action)?;
                disputes.push(Disagreement { action: action.to_string(), package, dispute });
            }
        }
        let mut found = Findings { equivocations: equivocations(&judgement, store)?, disputes };
        let attester =
            self.attester.as_deref().map(|text| super::attest::attester(context, text)).transpose()?;
        self.sift(&judgement, attester, &mut found);
        found.disputes.sort_by_key(Disagreement::order);
        Ok(found)
    }

    /// Leaves what is meant.
    fn sift(&self, judgement: &Judgement, attester: Option<AttesterKey>, found: &mut Findings) {
        let name = attester.and_then(|key| judgement.voters().name_of(&key));
        let is_meant = |who: Option<&Name>, key: Option<AttesterKey>| match name {
            _ if attester.is_none() => true,
            Some(name) => who == Some(name),
            None => key == attester,
        };
        let grave = |gravity: Gravity| self.severity.is_none_or(|least| gravity <= least);
        found
            .equivocations
            .retain(|one| grave(Gravity::Equivocation) && is_meant(one.who.as_ref(), Some(one.key)));
        found.disputes.retain(|Disagreement { package, dispute, .. }| {
            grave(dispute.severity().into())
                && self.since.is_none_or(|since| Day::of(dispute.last) >= since)
                && self.package.as_ref().is_none_or(|glob| glob.matches(package.as_str().as_bytes()))
                && dispute.sayings().any(|(saying, _)| is_meant(saying.who.as_ref(), saying.key))
        });
    }
}

impl Disagreement {
    /// The gravest first, and of these the latest.
    pub(crate) fn order(&self) -> (Severity, std::cmp::Reverse<u64>) {
        (self.dispute.severity(), std::cmp::Reverse(self.dispute.last))
    }
}

/// The actions about which people can disagree: of which they say different things, and what was
/// executed here, which may be another thing, or prove that somebody did not execute it.
fn suspects(store: &Store) -> Result<BTreeSet<ActionId>, CliError> {
    let mut suspects: BTreeSet<_> = store.divided()?.into_iter().collect();
    for built in store.realisations()? {
        suspects.insert(built?.action);
    }
    Ok(suspects)
}

/// The keys that said two things at one place.
pub(crate) fn equivocations(judgement: &Judgement, store: &Store) -> Result<Vec<Equivocator>, CliError> {
    let mut found = Vec::new();
    for key in store.attesters()? {
        for proof in store.bearing(&key)? {
            if let Evidence::Equivocation(proof) = proof {
                let who = judgement.voters().name_of(&key).cloned();
                let places = proof.statements().each_ref().map(|signed| signed.statement().seq);
                found.push(Equivocator { key, who, places });
            }
        }
    }
    Ok(found)
}

/// What a severity is called.
pub(crate) fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Dissent => "dissent",
        Severity::Contradiction => "contradiction",
        Severity::Witness => "witness",
        Severity::Failure => "failure",
        Severity::Strangers => "strangers",
    }
}

/// Whoever says something, each once.
pub(crate) fn people(says: &[Saying]) -> String {
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
    found.equivocations.iter().try_for_each(|one| equivocation(one).say())?;
    found.disputes.iter().try_for_each(|one| disagreement(one).say())?;
    let n = found.equivocations.len() + found.disputes.len();
    context.tell(&match n {
        0 => "nobody disagrees about anything that is known here".into(),
        n => format!("{n} in all; look at one with `assize audit show act:…`"),
    });
    Ok(())
}

pub(crate) fn equivocation(Equivocator { key, who, places: [first, second] }: &Equivocator) -> Line {
    let who = who.as_ref().map_or("a stranger", Name::as_str);
    let places =
        if first == second { format!("place {first}") } else { format!("places {first} and {second}") };
    Line::styled(Style::Error, "equivocation").and(format!("  {who}  {key}  said two things at {places}"))
}

pub(crate) fn disagreement(Disagreement { action, package, dispute }: &Disagreement) -> Line {
    let sides: Vec<_> = dispute.sides.iter().map(|side| people(&side.says)).collect();
    let severity = dispute.severity();
    let style = if severity == Severity::Strangers { Style::Dim } else { Style::Error };
    let day = Day::of(dispute.last);
    Line::styled(style, word(severity)).and(format!("  {package}  {action}  {}  {day}", sides.join(" ≠ ")))
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
        WitnessState::Unchecked | WitnessState::Known => "witness not checked here",
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

/// Who says what of an action.
pub(crate) fn describe(action: &impl Display, package: &Name, dispute: &Dispute) -> Vec<Line> {
    let words: Vec<_> = dispute.severities.iter().map(|severity| word(*severity)).collect();
    let words = match words.is_empty() {
        true => Line::styled(Style::Good, "no disagreement"),
        false => Line::styled(Style::Error, words.join(", ")),
    };
    let mut all = vec![words.and(format!("  {package}  {action}"))];
    for side in &dispute.sides {
        all.extend(lines(&side.found).into_iter().map(Line::new));
        all.extend(side.says.iter().map(|said| Line::new(saying(said)).at(2)));
    }
    all
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
    describe(action, &package, dispute).iter().try_for_each(Line::say)?;
    if !dispute.severities.is_empty() {
        output::complain(&format!(
            "{}: see where they differ with `assize audit diff {action}`, and who is right with `assize audit settle {action}`",
            Style::Hint.paint("hint")
        ));
    }
    Ok(())
}
