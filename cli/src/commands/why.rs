//! `why`: explain a verdict.

use std::{collections::BTreeMap, process::ExitCode};

use node::{eval::Mode, substitute};
use protocol::{id::ActionId, name::Name, output::Output};
use serde_json::json;
use store::Store;
use trust::{
    ledger::{Mute, Why as Uncounted, WitnessState},
    policy::Because,
    resolve::{By, Resolution, State},
    roster::SELF,
    verdict::{Kind, Node, Outcome, Reasoning, Says, Side, Verdict, Vote},
};

use super::{attest::describe_against, show::gave_nothing};
use crate::{
    context::{Context, Project},
    exit::{CliError, Code},
    output::{self, Line, Style},
};

/// Explain why outputs are accepted, disputed or undecided
///
/// Reads the local store and asks nobody. Exits with 0 if outputs are accepted, 10 if too few have
/// spoken, 11 if they disagree.
#[derive(clap::Args, Debug)]
pub(crate) struct Why {
    /// Attribute of the project, or action (`act:…`)
    #[arg(value_name = "ATTR|act:…", default_value = "", hide_default_value = true)]
    target: String,

    #[command(flatten)]
    project: Project,

    /// Say of everything that the attribute is built from what is known of it
    #[arg(long)]
    all: bool,
}

impl Why {
    pub(crate) fn run(self, context: &Context) -> Result<ExitCode, CliError> {
        let store = context.store()?;
        let judgement = context.judgement(&store, None)?;
        let (action, package) = if self.target.starts_with("act:") {
            let action = super::target::find(context, &store, &self.project, &self.target)?.known()?;
            (action, package(&store, &action)?)
        } else {
            let (_, evaluation) = context.evaluate(&self.project, Some(&self.target), Mode::Build)?;
            let only = super::target::only(&evaluation, &self.target)?;
            let resolution = judgement.resolve(&evaluation.derivations, &[only.derivation].into())?;
            if self.all {
                return all(context, &resolution);
            }
            // The root is behind all that it needs.
            let root =
                resolution.nodes.last().ok_or_else(|| CliError::new(Code::NotFound, "nothing there"))?;
            match &root.state {
                State::Accepted { action, .. } | State::Execute { action, .. } => {
                    (*action, root.name.clone())
                }
                State::Blocked { .. } => return all(context, &resolution),
            }
        };
        let verdict = judgement.verdict(&action, &package)?;
        if context.json {
            let data = json!({ "action": action.to_string(), "package": package, "verdict": verdict });
            output::json("why", &data)?;
        } else {
            explain(&action, &package, &verdict).iter().try_for_each(Line::say)?;
            if !matches!(verdict.outcome, Outcome::Accepted { .. }) && gave_nothing(&store, &action)? {
                context.tell(&format!("it was executed here, and gave nothing: `assize log {action}`"));
            } else if let Some(next) = next(&verdict) {
                output::complain(&format!("{}: {next}", Style::Hint.paint("hint")));
            }
        }
        Ok(code(&verdict.outcome))
    }
}

/// Says of each derivation what is known of it, and what it would take to have the root.
fn all(context: &Context, resolution: &Resolution) -> Result<ExitCode, CliError> {
    if context.json {
        output::json("resolution", resolution)?;
    }
    let names: BTreeMap<_, _> = resolution.nodes.iter().map(|node| (node.derivation, &node.name)).collect();
    let (mut execute, mut code) = (0, ExitCode::SUCCESS);
    for node in &resolution.nodes {
        let todo = if node.fetch { "fetch" } else { "build" };
        let line = match &node.state {
            State::Accepted { by: By::Here, .. } => {
                format!("{}  {}", Style::Good.paint("built here"), node.name)
            }
            State::Accepted { by: By::Quorum, verdict, .. } => {
                format!("{}  {}: {verdict}", Style::Good.paint("accepted"), node.name)
            }
            State::Execute { verdict, .. } => {
                execute += 1;
                code = self::code(&verdict.outcome);
                format!("{}  {}: {verdict}", Style::Busy.paint(&format!("to {todo}")), node.name)
            }
            State::Blocked { on } => {
                let on: Vec<_> =
                    on.iter().take(5).filter_map(|id| names.get(id)).map(|n| n.as_str()).collect();
                format!("{}  {}: waits for {}", Style::Dim.paint("to build"), node.name, on.join(", "))
            }
        };
        if !context.json {
            output::say(&line)?;
        }
    }
    let bytes = substitute::total(&resolution.download);
    context.tell(&format!(
        "{execute} to execute now; {}, {}, would be downloaded",
        output::count(resolution.download.len(), "archive"),
        output::bytes(bytes)
    ));
    Ok(code)
}

/// The exit code of a verdict.
pub(crate) fn code(outcome: &Outcome) -> ExitCode {
    match outcome {
        Outcome::Accepted { .. } => ExitCode::SUCCESS,
        Outcome::Pending | Outcome::Untrusted => Code::Pending.into(),
        Outcome::Disputed => Code::Disputed.into(),
    }
}

/// How a verdict looks: its colour, a sign, and a word.
pub(crate) fn mark(outcome: &Outcome) -> (Style, &'static str, &'static str) {
    match outcome {
        Outcome::Accepted { .. } => (Style::Good, "✔", "accepted"),
        Outcome::Pending => (Style::Busy, "·", "pending"),
        Outcome::Untrusted => (Style::Busy, "·", "unknown"),
        Outcome::Disputed => (Style::Error, "✘", "disputed"),
    }
}

/// The package that an action is of: what it was called when it was built here. One that was never
/// built here has no name that its attesters could not have chosen.
pub(crate) fn package(store: &Store, action: &ActionId) -> Result<Name, CliError> {
    let known = store.realisation(action)?.map(|built| built.name);
    Ok(known.unwrap_or_else(Name::unknown))
}

/// A verdict, and how it came about.
pub(crate) fn explain(action: &ActionId, package: &Name, verdict: &Verdict) -> Vec<Line> {
    let Verdict { outcome, reasoning } = verdict;
    let word = match mark(outcome) {
        (Style::Good, _, word) if reasoning.alarm => {
            Line::styled(Style::Busy, format!("{word}, with dissent"))
        }
        (style, _, word) => Line::styled(style, word),
    };
    let mut lines = vec![word.and(format!("  {package}  {action}")), Line::new(because(reasoning))];
    tree(&reasoning.rule, 0, &mut lines);
    for side in &reasoning.sides {
        lines.push(self::side(side));
        lines.extend(side.votes.iter().map(|vote| Line::new(self::vote(vote)).at(2)));
    }
    for uncounted in &reasoning.uncounted {
        let place = uncounted.seq.map_or_else(String::new, |seq| format!(", place {seq}"));
        let why = match &uncounted.why {
            Uncounted::Mute(mute) => self::mute(mute),
            Uncounted::Against(against) => describe_against(*against),
            Uncounted::Contradiction => "says two things and withdrew neither".into(),
            Uncounted::WrongWitness => "its proof of execution is wrong: it copied".into(),
            Uncounted::OtherOutputs => "names other outputs than the action has".into(),
            Uncounted::Failed { step, .. } => format!("it failed there, in step {step}"),
        };
        lines.push(Line::new(format!("not counted: {}{place}: {why}", uncounted.voter)));
    }
    if reasoning.strangers > 0 {
        lines.push(Line::new(format!("{} strangers spoke, and weigh nothing", reasoning.strangers)));
    }
    lines
}

fn because(reasoning: &Reasoning) -> String {
    let preset = reasoning.preset.map_or_else(|| "the policy".into(), |preset| format!("policy `{preset}`"));
    match &reasoning.because {
        Because::Everything => format!("by {preset}:"),
        Because::Override { package, .. } => format!("by {preset}, as overridden for `{package}`:"),
        Because::Exemption { package, until, why } => {
            format!("by the exemption of `{package}` until {until} ({}):", output::plain(why))
        }
    }
}

fn tree(node: &Node, depth: usize, lines: &mut Vec<Line>) {
    let mark = if node.met { Line::styled(Style::Good, "✔") } else { Line::styled(Style::Dim, "·") };
    let line = mark.and(format!(" {}: ", node.rule)).at(depth);
    match &node.is {
        Kind::Voter { says } => lines.push(match says {
            Says::Agrees => line.and("agrees"),
            Says::Unproven => line.and("agrees, without the witness that is wanted"),
            Says::Differs => line.and_styled(Style::Error, "got something else"),
            Says::Nothing => line.and("not heard from"),
            Says::Mute(mute) => line.and(self::mute(mute)),
        }),
        Kind::AtLeast { have, need, distinct, of } => {
            let distinct: Vec<_> =
                distinct.iter().map(|(attribute, count)| format!("{count} different {attribute}")).collect();
            let distinct =
                if distinct.is_empty() { String::new() } else { format!(" ({})", distinct.join(", ")) };
            lines.push(line.and(format!("{have} of the {need} needed{distinct}")));
            of.iter().for_each(|node| tree(node, depth + 1, lines));
        }
    }
}

fn mute(mute: &Mute) -> String {
    match mute {
        Mute::Expired { until } => {
            format!("trusted until {} only", trust::date::Day::of(until.saturating_sub(1)))
        }
        Mute::SameAs { other } => format!("has one key with `{other}`, and votes by that name"),
        Mute::TooManySuccessors => "its key was succeeded too often".into(),
        Mute::Against(against) => describe_against(*against),
    }
}

fn side(side: &Side) -> Line {
    let of = |(name, output): (&Name, &Output)| match *name == Name::out() {
        true => output.nar.to_string(),
        false => format!("{name} {}", output.nar),
    };
    let outputs: Vec<_> = side.outputs.iter().map(of).collect();
    let mark = if side.met { Line::styled(Style::Good, "✔") } else { Line::styled(Style::Dim, "·") };
    mark.and(format!(" {}", outputs.join(", ")))
}

fn vote(vote: &Vote) -> String {
    let witness = match vote.witness {
        WitnessState::Absent => "no witness",
        WitnessState::Unchecked => "witness not checked here",
        WitnessState::Known => "witness not checked here, but others of its maker were",
        WitnessState::Verified => "witness verified",
        WitnessState::Wrong => "WRONG witness",
    };
    let platform = &vote.platform;
    let place = vote.seq.map_or_else(|| "built here".into(), |seq| format!("place {seq}"));
    format!("{}  {} {} {}  {witness}  {place}", vote.voter, platform.engine, platform.arch, platform.os)
}

/// The one thing to do next.
pub(crate) fn next(verdict: &Verdict) -> Option<String> {
    let Verdict { outcome, reasoning } = verdict;
    let others = reasoning.missing.iter().map(Name::as_str).filter(|name| *name != SELF);
    let others: Vec<_> = others.take(5).collect();
    match outcome {
        Outcome::Accepted { .. } => None,
        Outcome::Pending | Outcome::Untrusted => Some(match (others.is_empty(), reasoning.missing.is_empty()) {
            (true, true) => "see what the policy wants with `assize policy show`".into(),
            (true, false) => "build it here with `assize build`: this machine is one of them".into(),
            (false, _) => {
                let who = others.join(" or ");
                format!("hear what {who} says: `assize node start`, or `assize attest import` with a file")
            }
        }),
        Outcome::Disputed => Some(
            "build it here and see who is right with `assize build --rebuild`; stop counting who is wrong with `assize trust remove`"
                .into(),
        ),
    }
}
