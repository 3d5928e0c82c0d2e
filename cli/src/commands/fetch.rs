//! `fetch`: have what others built, once enough of them agree; build nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use node::{
    control::Node,
    eval::Mode,
    judgement::Judgement,
    realise::Realised,
    substitute::{self, Substitutes},
};
use protocol::{
    action::FetchAction,
    derivation::{Derivation, Kind},
    id::{ActionId, NarHash},
    output::Outputs,
};
use serde_json::json;
use store::Store;
use trust::{
    limits::WISH_PAUSE,
    resolve::{By, Resolution, State},
    verdict::{Outcome, Verdict},
};

use super::{
    build::{self, Wanted, merge, wanted},
    why,
};
use crate::{
    context::{Context, Project},
    exit::{CliError, Code},
    network::{self, Reach},
    output::{self, Style},
    progress::Meter,
};

/// How often it is looked whether somebody has spoken, at most.
const LOOK: Duration = Duration::from_secs(1);

/// How often the same is wished again: soon at first, because a node that has just begun is heard by
/// nobody yet, and each time twice as late, up to the last.
const AGAIN: Duration = Duration::from_millis(WISH_PAUSE);
const AGAIN_MOST: Duration = Duration::from_secs(60);

/// Derivations that are named when too few have spoken.
const NAMED: usize = 8;

/// Have what others built, once enough of them agree
///
/// Asks the node that runs, or runs one meanwhile; decides by what the attesters of the roster have
/// said, and downloads only what was asked for, from whoever has it. Builds nothing: `assize build`
/// does that for what nobody has, or too few agree on.
#[derive(clap::Args, Debug)]
pub(crate) struct Fetch {
    /// Attributes of the project, or actions (`act:…`)
    #[arg(value_name = "ATTR|act:…")]
    targets: Vec<String>,

    #[command(flatten)]
    project: Project,

    /// Wait until enough have spoken, for so many seconds if a number is given
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "31536000")]
    wait: Option<u32>,

    /// Decide by this policy, as in `one` or `strict`, or in a file, and not by the configured one
    #[arg(long, value_name = "POLICY")]
    policy: Option<String>,

    /// Unpack the output into a directory, which must not exist yet
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,

    /// Keep the outputs when the store is collected, under this name
    #[arg(long, value_name = "NAME")]
    pin: Option<String>,

    /// Only say what is accepted and what would be downloaded
    #[arg(long, conflicts_with_all = ["output", "pin"])]
    dry_run: bool,

    /// Use no network: have what is here and accepted
    #[arg(long)]
    offline: bool,
}

/// What was decided.
struct Plan {
    /// The outputs that were asked for, if all of them are accepted.
    outputs: Option<Vec<Wanted>>,
    /// What is not here of them.
    download: BTreeMap<NarHash, u64>,
    /// What was decided about each target, or about what it needs.
    lines: Vec<(String, Option<Verdict>)>,
    /// Actions that too few have spoken about.
    pending: BTreeSet<ActionId>,
    /// Fetches among the targets, with what others say that they give.
    fetches: Vec<(FetchAction, Outputs)>,
}

/// Asks others to build what is waited for, again and again: they remember it for a while.
struct Wisher<'s> {
    node: Option<&'s Node>,
    /// What was wished last, and when.
    last: Option<(BTreeSet<ActionId>, Instant)>,
    pause: Duration,
}

impl<'s> Wisher<'s> {
    fn new(substitutes: &'s Substitutes) -> Self {
        Self { node: substitutes.node(), last: None, pause: AGAIN }
    }

    fn wish(&mut self, context: &Context, wanted: BTreeSet<ActionId>) -> Result<(), CliError> {
        let Some(node) = self.node else { return Ok(()) };
        let same = self.last.as_ref().is_some_and(|(before, _)| *before == wanted);
        let pause = if same { self.pause } else { AGAIN };
        if self.last.as_ref().is_none_or(|(_, when)| when.elapsed() > pause) {
            self.pause = if same { (2 * pause).min(AGAIN_MOST) } else { AGAIN };
            let wish = network::wish(&context.key()?, wanted.iter().copied());
            context.block_on(node.wish(wish))??;
            self.last = Some((wanted, Instant::now()));
        }
        Ok(())
    }

    /// Wishes nothing any more. If that is not heard, the wish is forgotten some time.
    fn withdraw(&self, context: &Context) {
        if let (Some(node), Some(_)) = (self.node, &self.last)
            && let Ok(key) = context.key()
        {
            let _ = context.block_on(node.wish(network::wish(&key, [])));
        }
    }
}

impl Fetch {
    pub(crate) fn run(self, context: &Context) -> Result<ExitCode, CliError> {
        if let Some(to) = self.output.as_ref().filter(|to| to.symlink_metadata().is_ok()) {
            return Err(CliError::new(Code::Failed, format!("`{}` exists already", to.display()))
                .hint("name a directory that does not exist yet with -o"));
        }
        let (actions, attributes): (Vec<_>, Vec<_>) =
            self.targets.iter().cloned().partition(|target| target.starts_with("act:"));
        let attributes = match attributes.is_empty() && actions.is_empty() {
            true => vec![String::new()],
            false => attributes,
        };
        let mut all = Vec::new();
        for attribute in attributes {
            all.push(context.evaluate(&self.project, Some(&attribute), Mode::Build)?);
        }
        let (_, evaluation) = merge(all);
        let store = context.store()?;
        let mut ids = Vec::new();
        for text in &actions {
            ids.push(super::target::find(context, &store, &self.project, text)?.known()?);
        }
        let reach = if self.offline { Reach::Nobody } else { Reach::Anybody };
        let (substitutes, _local) = context.substitutes(&store, reach)?;
        let policy = self.policy.as_deref().map(super::policy::read).transpose()?;
        let begun = Instant::now();
        let mut told = false;
        let mut wisher = Wisher::new(&substitutes);
        let plan = loop {
            let judgement = context.judgement(&store, policy.clone())?;
            let looked = Instant::now();
            let plan = self.plan(&store, &judgement, &evaluation, &ids)?;
            let waited = self.wait.is_none_or(|most| begun.elapsed().as_secs() >= u64::from(most));
            if plan.outputs.is_some() || waited {
                break plan;
            }
            if !std::mem::replace(&mut told, true) {
                self.explain(context, &plan)?;
                context.tell("waiting for those who have not spoken, and asking them to build it");
            }
            wisher.wish(context, plan.pending)?;
            std::thread::sleep(LOOK.max(4 * looked.elapsed()));
        };
        wisher.withdraw(context);
        if !self.dry_run || !context.json {
            self.explain(context, &plan)?;
        }
        let bytes = substitute::total(&plan.download);
        if self.dry_run && context.json {
            let lines: Vec<_> = plan
                .lines
                .iter()
                .map(|(name, verdict)| json!({ "name": name, "verdict": verdict }))
                .collect();
            let download: BTreeMap<_, _> =
                plan.download.iter().map(|(nar, size)| (nar.to_string(), size)).collect();
            output::json("plan", &json!({ "targets": lines, "download": download }))?;
        }
        let Some(outputs) = plan.outputs else { return refuse(&plan.lines) };
        if !plan.download.is_empty() {
            let n = plan.download.len();
            let archives = if n == 1 { "archive" } else { "archives" };
            context.tell(&format!("{n} {archives} to download, {}", output::bytes(bytes)));
        }
        if self.dry_run {
            return Ok(ExitCode::SUCCESS);
        }
        download(context, &substitutes, &plan.download, bytes)?;
        for (fetch, outputs) in &plan.fetches {
            substitute::verify(&store, fetch, outputs).map_err(|error| {
                CliError::of(Code::HashMismatch, &error)
                    .hint("see who says so with `assize why`, and fetch it yourself with `assize build`")
            })?;
        }
        if let Some(name) = &self.pin {
            store.pin(name, &outputs.iter().map(|output| output.nar).collect())?;
        }
        if let Some(to) = &self.output {
            build::unpack(&store, &outputs, to)?;
        }
        build::print(context, &outputs)
    }

    fn plan(
        &self,
        store: &Store,
        judgement: &Judgement,
        evaluation: &node::eval::Evaluation,
        actions: &[ActionId],
    ) -> Result<Plan, CliError> {
        let roots: BTreeSet<_> = evaluation.roots.iter().map(|root| root.derivation).collect();
        let resolution = judgement.resolve(&evaluation.derivations, &roots)?;
        let mut lines = lines(&resolution);
        let execute = resolution.nodes.iter().filter_map(|node| match &node.state {
            State::Execute { action, .. } => Some(*action),
            State::Accepted { .. } | State::Blocked { .. } => None,
        });
        let mut pending: BTreeSet<_> = execute.collect();
        let mut accepted =
            resolution.nodes.iter().filter(|node| node.root).all(|node| node.state.outputs().is_some());
        let mut fetches = Vec::new();
        let mut had = Realised {
            roots: BTreeMap::new(),
            executed: Vec::new(),
            substituted: Vec::new(),
            failed: Vec::new(),
        };
        for node in resolution.nodes.iter().filter(|node| node.root) {
            if let State::Accepted { action, outputs, .. } = &node.state {
                had.roots.insert(node.derivation, (*action, outputs.clone()));
                let derivation = evaluation.derivations.get(&node.derivation);
                if let Some(Kind::Fetch(fetch)) = derivation.map(Derivation::kind) {
                    let fetch = FetchAction { sri: fetch.sri.clone(), executable: fetch.executable };
                    fetches.push((fetch, outputs.clone()));
                }
            }
        }
        let mut outputs = wanted(evaluation, &had);
        for action in actions {
            let verdict = judgement.verdict(action, &why::package(store, action)?)?;
            let own = store.realisation(action)?.map(|built| built.outputs);
            let decided: Option<Outputs> = match &verdict.outcome {
                Outcome::Accepted { outputs } => own.or_else(|| Some(outputs.clone())),
                Outcome::Pending | Outcome::Disputed | Outcome::Untrusted => own,
            };
            match decided {
                Some(decided) => outputs.extend(build::of_action(action, &decided)),
                None => {
                    accepted = false;
                    pending.insert(*action);
                }
            }
            lines.push((action.to_string(), Some(verdict)));
        }
        let missing = outputs.iter().filter(|output| !store.contains(&output.nar));
        let download = missing.map(|output| (output.nar, output.size)).collect();
        Ok(Plan { outputs: accepted.then_some(outputs), download, lines, pending, fetches })
    }

    fn explain(&self, context: &Context, plan: &Plan) -> Result<(), CliError> {
        let needed = |verdict: &Option<Verdict>| {
            plan.outputs.is_some()
                || !matches!(verdict, Some(Verdict { outcome: Outcome::Accepted { .. }, .. }))
        };
        let lines: Vec<_> = plan.lines.iter().filter(|(_, verdict)| needed(verdict)).collect();
        for (name, verdict) in lines.iter().take(NAMED) {
            let line = match verdict {
                None => format!("{} {name}: built here", Style::Good.paint("✔")),
                Some(verdict) => {
                    let (style, sign, _) = why::mark(&verdict.outcome);
                    format!("{} {name}: {verdict}", style.paint(sign))
                }
            };
            context.tell(&line);
        }
        if lines.len() > NAMED {
            context.tell(&format!("and {} more", lines.len() - NAMED));
        }
        Ok(())
    }
}

/// A line for each root, and for all that is not accepted and whose inputs are: what they wait for.
fn lines(resolution: &Resolution) -> Vec<(String, Option<Verdict>)> {
    let line = |node: &trust::resolve::Node| match &node.state {
        State::Accepted { by: By::Here, .. } if node.root => Some((node.name.to_string(), None)),
        State::Accepted { verdict, .. } if node.root => Some((node.name.to_string(), Some(verdict.clone()))),
        State::Execute { verdict, .. } => Some((node.name.to_string(), Some(verdict.clone()))),
        State::Accepted { .. } | State::Blocked { .. } => None,
    };
    resolution.nodes.iter().filter_map(line).collect()
}

/// Too few agree: whose turn it is.
fn refuse(lines: &[(String, Option<Verdict>)]) -> Result<ExitCode, CliError> {
    let disputed = |(_, verdict): &&(String, Option<Verdict>)| {
        matches!(verdict, Some(Verdict { outcome: Outcome::Disputed, .. }))
    };
    if let Some((name, _)) = lines.iter().find(disputed) {
        return Err(CliError::new(Code::Disputed, format!("`{name}` is disputed, so nothing is taken"))
            .hint(
                "see who says what with `assize why`; build it here with `assize build` and see who is right",
            ));
    }
    Err(CliError::new(Code::Pending, "too few have spoken, so nothing is taken")
        .hint("wait for them with `assize fetch --wait`, or build what is missing here with `assize build`"))
}

fn download(
    context: &Context,
    substitutes: &Substitutes,
    missing: &BTreeMap<NarHash, u64>,
    bytes: u64,
) -> Result<(), CliError> {
    let meter = Meter::new("downloading", bytes, context.quiet, context.json);
    let fetched =
        context.block_on(async { substitutes.fetch_all(missing, |done, _| meter.set(done)).await })?;
    drop(meter);
    fetched.map_err(|error| {
        CliError::of(Code::Unreachable, &error)
            .hint("build it here with `assize build`, or connect to those who have it with `assize peer add`")
    })
}
