//! What is known of everything, for the lists and plots: taken in one pass over the store, when
//! somebody looks and in the background, so that a page is never later for a store being large.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use node::{attest, judgement::Judgement};
use protocol::{id::ActionId, name::Name};
use store::{Store, Usage};
use tokio::{
    sync::{Notify, watch},
    task, time,
};
use trust::{audit::Stand, date::Day, ledger::WitnessState, verdict::Outcome};

use crate::{
    commands::{
        audit::{self, Disagreement, Equivocator},
        why,
    },
    context::Context,
    exit::CliError,
};

/// Actions that are looked at; a store that knows more shows these.
const ACTIONS: usize = 500_000;

/// Disagreements that are listed, the gravest.
const DISPUTES: usize = 5_000;

/// Months that are told apart; what is older is added to the first of them.
const MONTHS: usize = super::plot::BARS;

/// How long a page waits for a pass that began when it was asked for, and how long the first one does.
const PATIENCE: Duration = Duration::from_millis(60);
const FIRST: Duration = Duration::from_secs(5);

/// A pass that took longer than this is followed by a pause of so many times its length.
const SHORT: Duration = Duration::from_millis(200);
const PAUSE: u32 = 20;

/// One that is known.
pub(super) struct Package {
    pub(super) name: Name,
    pub(super) action: ActionId,
    pub(super) outcome: Outcome,
    /// Who votes for what has most.
    pub(super) votes: usize,
    /// The verdict in a line.
    pub(super) verdict: String,
}

/// How what somebody said stands, counted.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    /// By [`Stand`], in the order of [`Stand::ALL`].
    pub(super) stands: [u64; Stand::ALL.len()],
    /// Proofs of execution that were found right.
    pub(super) verified: u64,
    /// Attestations without one.
    pub(super) unproven: u64,
}

impl Tally {
    fn add(&mut self, stand: Stand, witness: WitnessState) {
        let counts = Stand::ALL.iter().zip(&mut self.stands);
        counts.filter(|(one, _)| **one == stand).for_each(|(_, count)| *count += 1);
        self.verified += u64::from(witness == WitnessState::Verified);
        self.unproven += u64::from(witness == WitnessState::Absent);
    }

    pub(super) fn sum<'t>(all: impl IntoIterator<Item = &'t Self>) -> Self {
        all.into_iter().fold(Self::default(), |mut sum, one| {
            sum.stands.iter_mut().zip(one.stands).for_each(|(sum, count)| *sum += count);
            sum.verified += one.verified;
            sum.unproven += one.unproven;
            sum
        })
    }
}

/// What is known, at one time.
pub(super) struct Survey {
    /// By what it was judged.
    pub(super) judgement: Judgement,
    /// How long it took.
    pub(super) took: Duration,
    /// In the order of their names.
    pub(super) packages: Vec<Package>,
    pub(super) equivocations: Vec<Equivocator>,
    /// The gravest first.
    pub(super) disputes: Vec<Disagreement>,
    /// Of everybody else in the roster, by month, as in `2026-11`.
    pub(super) records: BTreeMap<Name, BTreeMap<String, Tally>>,
    /// What the store takes on the disk.
    pub(super) usage: Option<Usage>,
    /// Actions that are known beyond those that were looked at.
    pub(super) beyond: usize,
}

impl Survey {
    fn take(context: &Context, store: &Arc<Store>) -> Result<Self, CliError> {
        let begun = Instant::now();
        let time = attest::now();
        let judgement = context.judgement(store, None)?;
        let mut actions = store.claimed()?;
        for built in store.realisations()? {
            actions.push(built?.action);
        }
        actions.sort_unstable();
        actions.dedup();
        let beyond = actions.len().saturating_sub(ACTIONS);
        actions.truncate(ACTIONS);
        let mut records: BTreeMap<Name, BTreeMap<String, Tally>> = BTreeMap::new();
        for (name, _) in judgement.roster().iter() {
            records.entry(name.clone()).or_default();
        }
        let (mut packages, mut disputes) = (Vec::new(), Vec::new());
        for action in actions {
            let name = why::package(store, &action)?;
            let dispute = judgement.dispute(&action)?;
            for (who, saying, stand) in dispute.stands() {
                // Nobody's clock makes a month that has not come.
                let day = Day::of(saying.time.unwrap_or(time).min(time)).to_string();
                let months = records.entry(who.clone()).or_default();
                let month = day.get(..7).unwrap_or(&day).to_owned();
                months.entry(month).or_default().add(stand, saying.witness);
                if months.len() > MONTHS
                    && let (Some((_, oldest)), Some(mut next)) = (months.pop_first(), months.first_entry())
                {
                    let sum = Tally::sum([&oldest, next.get()]);
                    next.insert(sum);
                }
            }
            let verdict = judgement.verdict(&action, &name)?;
            packages.push(Package {
                votes: verdict.reasoning.sides.first().map_or(0, |side| side.votes.len()),
                verdict: verdict.to_string(),
                outcome: verdict.outcome,
                name: name.clone(),
                action,
            });
            if !dispute.severities.is_empty() {
                disputes.push(Disagreement { action: action.to_string(), package: name, dispute });
            }
            if disputes.len() >= 2 * DISPUTES {
                disputes.sort_by_key(Disagreement::order);
                disputes.truncate(DISPUTES);
            }
        }
        packages.sort_by(|one, other| (&one.name, one.action).cmp(&(&other.name, other.action)));
        disputes.sort_by_key(Disagreement::order);
        disputes.truncate(DISPUTES);
        let equivocations = audit::equivocations(&judgement, store)?;
        let usage = store.usage().ok();
        let took = begun.elapsed();
        Ok(Self { judgement, took, packages, equivocations, disputes, records, usage, beyond })
    }
}

/// The latest survey, or why there is none.
type Latest = Option<Arc<Result<Survey, CliError>>>;

/// Takes surveys when they are wanted.
pub(super) struct Surveyor {
    wanted: Arc<Notify>,
    latest: watch::Receiver<Latest>,
}

impl Surveyor {
    /// Begins, and works for as long as this lives.
    pub(super) fn start(context: Context, store: Arc<Store>) -> Self {
        let wanted = Arc::new(Notify::new());
        let (to, latest) = watch::channel(None);
        let heard = wanted.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = heard.notified() => {}
                    () = to.closed() => return,
                }
                let begun = Instant::now();
                let (context, store) = (context.clone(), store.clone());
                let Ok(survey) = task::spawn_blocking(move || Survey::take(&context, &store)).await else {
                    return;
                };
                to.send_replace(Some(Arc::new(survey)));
                if begun.elapsed() > SHORT {
                    time::sleep(begun.elapsed() * PAUSE).await;
                }
            }
        });
        Self { wanted, latest }
    }

    /// The latest survey: one that was begun now, if that is done at once. `None` if there was
    /// none yet.
    pub(super) async fn latest(&self) -> Latest {
        let mut latest = self.latest.clone();
        let patience = if latest.borrow_and_update().is_some() { PATIENCE } else { FIRST };
        self.wanted.notify_one();
        let _ = time::timeout(patience, latest.changed()).await;
        latest.borrow().clone()
    }
}
