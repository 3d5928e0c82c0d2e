//! A rebuilder at work: what others attest and wish, executed here in the order of
//! [`trust::rebuild::Queue`], with limits, until it is stopped.
//!
//! ```text
//! feeds in the store, wishes ─ scan ─▶ Queue ─ next ─▶ Rebuilder ─▶ signed, or postponed, or refused
//! ```
//!
//! Statements come by themselves, if a node runs; here it is only looked what is new in the store.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    str::FromStr,
    sync::Arc,
    time::{Duration, Instant},
};

use protocol::{glob::Glob, id::ActionId, key::AttesterKey, name::Name, statement::Body};
use serde::Deserialize;
use store::LookupError;
use tokio::{
    task::{self, JoinSet, spawn_blocking},
    time,
};
use trust::{
    audit::Support,
    limits::REBUILDS,
    peer::Time,
    rebuild::{Need, Queue},
};

use crate::{
    attest,
    build::{Limits, Progress},
    judgement::{Judgement, JudgementError, RosterFile},
    rebuild::{RebuildError, Rebuilder, Rebuilt},
};

/// How often it is looked what is new, at most.
const LOOK: Duration = Duration::from_secs(1);

/// Statements of one feed that are looked at in one go.
const SCAN: usize = 10_000;

const DAY: u64 = 86_400;

/// What a rebuilder does, as its owner configures it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Config {
    /// Names and groups of the roster whose attestations are looked at; all if there are none.
    pub attesters: Vec<Name>,
    /// Patterns of package names; all packages if there are none.
    pub packages: Vec<Glob>,
    /// Whose wishes are listened to.
    pub wishes: Wishes,
    /// Votes with which an action needs no more.
    pub votes: usize,
    /// Executions at once.
    pub jobs: usize,
    /// What one execution may use.
    pub limits: Limits,
    /// When executions may begin; always if not given.
    pub hours: Option<Hours>,
    /// Seconds of execution in one day, after which nothing more begins; no bound if not given.
    pub seconds_per_day: Option<u64>,
}

impl Default for Config {
    /// Three votes: enough for `majority` and `two-thirds` of small rosters, and for `strict`.
    fn default() -> Self {
        Self {
            attesters: Vec::new(),
            packages: Vec::new(),
            wishes: Wishes::default(),
            votes: 3,
            jobs: 1,
            limits: Limits::default(),
            hours: None,
            seconds_per_day: None,
        }
    }
}

/// Whose wishes are listened to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Wishes {
    /// Nobody's.
    Nobody,
    /// Those of the roster.
    #[default]
    Roster,
    /// Everybody's.
    Anybody,
}

/// A part of each day, by the hours of UTC: from one to before another, past midnight if the second
/// is less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Hours {
    from: u64,
    to: u64,
}

/// Why a text is no part of a day.
#[derive(Debug, thiserror::Error)]
#[error("expected two different hours of UTC from 0 to 24, as in `22-6`, found `{found}`")]
pub struct HoursError {
    /// What was given.
    found: String,
}

impl FromStr for Hours {
    type Err = HoursError;

    fn from_str(text: &str) -> Result<Self, HoursError> {
        let hour = |text: &str| text.parse().ok().filter(|hour| *hour <= 24);
        let both = text.split_once('-').and_then(|(from, to)| Some((hour(from)?, hour(to)?)));
        match both {
            Some((from, to)) if from != to => Ok(Self { from, to }),
            _ => Err(HoursError { found: text.chars().take(16).collect() }),
        }
    }
}

impl TryFrom<String> for Hours {
    type Error = HoursError;

    fn try_from(text: String) -> Result<Self, HoursError> {
        text.parse()
    }
}

impl Hours {
    /// Whether it is that part of the day, `now` in seconds since 1970.
    fn contain(self, now: u64) -> bool {
        let hour = now % DAY / 3600;
        match self.from < self.to {
            true => (self.from..self.to).contains(&hour),
            false => hour >= self.from || hour < self.to,
        }
    }
}

/// Why it ends.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// There is no judgement.
    #[error(transparent)]
    Judgement(#[from] JudgementError),
    /// The store does not answer.
    #[error(transparent)]
    Lookup(#[from] LookupError),
}

/// Something worth a line.
#[derive(Debug)]
pub enum Event<'e> {
    /// An execution begins.
    Began {
        /// Of what.
        action: ActionId,
        /// What whoever knew it calls what it makes.
        name: &'e Name,
    },
    /// An execution goes on.
    Goes {
        /// Of what.
        action: ActionId,
        /// How.
        progress: Progress<'e>,
    },
    /// It is of no package that is watched.
    PassedOver {
        /// Which.
        action: ActionId,
        /// What it is called.
        name: &'e Name,
    },
    /// It was executed, and what it came to is signed.
    Rebuilt {
        /// Which.
        action: ActionId,
        /// What it came to.
        rebuilt: &'e Rebuilt,
        /// What that says of others.
        others: BTreeMap<Name, Support>,
    },
    /// It is not tried again on this machine.
    Refused {
        /// Which.
        action: ActionId,
        /// Why.
        error: &'e RebuildError,
    },
    /// It is tried again later.
    Postponed {
        /// Which.
        action: ActionId,
        /// Why.
        error: &'e RebuildError,
        /// In how long.
        wait: Duration,
    },
    /// So many wait.
    Waiting {
        /// How many.
        actions: usize,
    },
}

/// Actions, and who wishes them.
type Wished = BTreeMap<ActionId, BTreeSet<AttesterKey>>;

/// A rebuilder at work.
pub struct Watch {
    rebuilder: Arc<Rebuilder>,
    config: Arc<Config>,
    queue: Queue,
    /// Up to where each feed was looked at.
    seen: BTreeMap<AttesterKey, u64>,
    /// What is wished, and by whom.
    wished: Wished,
    /// What is not tried again.
    refused: BTreeSet<ActionId>,
    began: Instant,
    /// A day, in days since 1970, and the seconds of execution in it.
    spent: (u64, Duration),
}

impl Watch {
    /// What `rebuilder` is to do.
    pub fn new(rebuilder: Rebuilder, config: Config) -> Self {
        Self {
            queue: Queue::new(rebuilder.attester(), config.votes),
            rebuilder: Arc::new(rebuilder),
            config: Arc::new(config),
            seen: BTreeMap::new(),
            wished: Wished::new(),
            refused: BTreeSet::new(),
            began: Instant::now(),
            spent: (0, Duration::ZERO),
        }
    }

    /// Rebuilds until it is dropped; with `once`, until nothing is to be done now. `observe` hears
    /// what happens.
    ///
    /// # Errors
    ///
    /// [`WatchError`].
    pub async fn run(
        mut self,
        observe: impl Fn(Event<'_>) + Send + Sync + 'static,
        once: bool,
    ) -> Result<(), WatchError> {
        let observe = Arc::new(observe);
        let mut running = JoinSet::new();
        let mut actions = HashMap::new();
        let mut waiting = 0;
        loop {
            let looked = Instant::now();
            self.scan().await?;
            while running.len() < self.config.jobs && self.may_begin() {
                let Some(action) = self.queue.next(self.now()) else { break };
                let task = execute(self.rebuilder.clone(), self.config.clone(), observe.clone(), action);
                actions.insert(running.spawn(task).id(), action);
            }
            if waiting != self.queue.len() {
                waiting = self.queue.len();
                observe(Event::Waiting { actions: waiting });
            }
            if once && running.is_empty() {
                return Ok(());
            }
            let pause = LOOK.max(4 * looked.elapsed());
            let ended = match running.is_empty() {
                true => None,
                false => time::timeout(pause, running.join_next_with_id()).await.ok().flatten(),
            };
            match ended {
                Some(Ok((id, (took, result)))) => {
                    let action = actions.remove(&id).expect("every task is of an action");
                    self.spend(took);
                    self.ended(action, result, &*observe)?;
                }
                Some(Err(panic)) => std::panic::resume_unwind(panic.into_panic()),
                None if running.is_empty() => time::sleep(pause).await,
                None => {}
            }
        }
    }

    /// Who counts now.
    fn judgement(&self) -> Result<Judgement, JudgementError> {
        let store = self.rebuilder.store();
        let roster = RosterFile::new(store.home()).read()?;
        Judgement::new(store.clone(), roster, None, Some(self.rebuilder.attester()))
    }

    fn now(&self) -> Time {
        Time(u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// Whether an execution may begin at this hour, and on this day.
    fn may_begin(&self) -> bool {
        let now = attest::now();
        let spent = if self.spent.0 == now / DAY { self.spent.1.as_secs() } else { 0 };
        self.config.hours.is_none_or(|hours| hours.contain(now))
            && self.config.seconds_per_day.is_none_or(|most| spent < most)
    }

    fn spend(&mut self, took: Duration) {
        let today = attest::now() / DAY;
        if self.spent.0 != today {
            self.spent = (today, Duration::ZERO);
        }
        self.spent.1 += took;
    }

    /// Looks what is new.
    async fn scan(&mut self) -> Result<(), WatchError> {
        let judgement = task::block_in_place(|| self.judgement())?;
        let wishes = match (self.config.wishes, self.rebuilder.node()) {
            (Wishes::Nobody, _) | (_, None) => BTreeMap::new(),
            // A node that does not answer now is asked again.
            (Wishes::Roster | Wishes::Anybody, Some(node)) => node.wishes().await.unwrap_or_default(),
        };
        let own = self.rebuilder.attester();
        let listened = |attester: &AttesterKey| {
            *attester != own
                && (self.config.wishes == Wishes::Anybody || judgement.voters().name_of(attester).is_some())
        };
        let mut wished = Wished::new();
        for (attester, actions) in wishes.into_iter().filter(|(attester, _)| listened(attester)) {
            for action in actions {
                wished.entry(action).or_default().insert(attester);
            }
        }
        // What is wished no more is looked at as well.
        let news = |these: &Wished, others: &Wished| -> Vec<ActionId> {
            these.keys().filter(|action| !others.contains_key(action)).copied().collect()
        };
        let changed = [news(&wished, &self.wished), news(&self.wished, &wished)].concat();
        let changed = changed.into_iter().take(REBUILDS).collect();
        self.wished = wished;
        let (seen, config, rebuilder) = (self.seen.clone(), self.config.clone(), self.rebuilder.clone());
        let (wished, room) = (self.wished.clone(), REBUILDS - self.queue.len());
        let looked = spawn_blocking(move || {
            let news = News { seen, actions: changed };
            news.look(&rebuilder, &config, &judgement, &wished, room)
        });
        let (seen, needs) = match looked.await {
            Ok(looked) => looked?,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        };
        self.seen = seen;
        let now = self.now();
        for (action, need) in needs {
            match need.filter(|_| !self.refused.contains(&action)) {
                Some(need) => _ = self.queue.offer(action, need, now),
                None => self.queue.done(&action),
            }
        }
        Ok(())
    }

    fn ended(
        &mut self,
        action: ActionId,
        result: Result<Option<Rebuilt>, RebuildError>,
        observe: &impl Fn(Event<'_>),
    ) -> Result<(), WatchError> {
        let error = match &result {
            Ok(Some(rebuilt)) => {
                let judgement = task::block_in_place(|| self.judgement())?;
                let others = judgement.dispute(&action)?.settled(rebuilt.found().as_ref());
                observe(Event::Rebuilt { action, rebuilt, others });
                self.queue.done(&action);
                return Ok(());
            }
            Ok(None) => {
                self.refuse(action);
                return Ok(());
            }
            Err(error) => error,
        };
        let now = self.now();
        match self.queue.again(&action, now).filter(|_| !error.is_final()) {
            Some(at) => {
                let wait = Duration::from_millis(at.0.saturating_sub(now.0));
                observe(Event::Postponed { action, error, wait });
            }
            None => {
                observe(Event::Refused { action, error });
                self.refuse(action);
            }
        }
        Ok(())
    }

    /// Leaves an action alone for as long as this process lives.
    fn refuse(&mut self, action: ActionId) {
        self.queue.done(&action);
        if self.refused.len() < REBUILDS {
            self.refused.insert(action);
        }
    }
}

/// Finds out what an action is and executes it, unless it is of no package that is watched; and how
/// long that took.
async fn execute(
    rebuilder: Arc<Rebuilder>,
    config: Arc<Config>,
    observe: Arc<impl Fn(Event<'_>) + Send + Sync>,
    action: ActionId,
) -> (Duration, Result<Option<Rebuilt>, RebuildError>) {
    let subject = match rebuilder.find(action).await {
        Ok(subject) => subject,
        Err(error) => return (Duration::ZERO, Err(error)),
    };
    let name = subject.name();
    let watched = |package: &Glob| package.matches(name.as_str().as_bytes());
    if !config.packages.is_empty() && !config.packages.iter().any(watched) {
        observe(Event::PassedOver { action, name: &name });
        return (Duration::ZERO, Ok(None));
    }
    observe(Event::Began { action, name: &name });
    let begun = Instant::now();
    let progress = |progress: Progress<'_>| observe(Event::Goes { action, progress });
    let rebuilt = rebuilder.rebuild(subject, &progress).await;
    (begun.elapsed(), rebuilt.map(Some))
}

/// What is new in the store.
struct News {
    seen: BTreeMap<AttesterKey, u64>,
    actions: BTreeSet<ActionId>,
}

type Needs = (BTreeMap<AttesterKey, u64>, Vec<(ActionId, Option<Need>)>);

impl News {
    /// Looks at what was said since, and what that means for each action: nothing, if this machine
    /// has spoken.
    fn look(
        mut self,
        rebuilder: &Rebuilder,
        config: &Config,
        judgement: &Judgement,
        wished: &Wished,
        room: usize,
    ) -> Result<Needs, LookupError> {
        let store = rebuilder.store();
        let own = rebuilder.attester();
        for (key, name) in judgement.voters().keys() {
            let groups = || judgement.roster().get(name).map(|attester| &attester.groups);
            let named = |who: &Name| who == name || groups().is_some_and(|groups| groups.contains(who));
            let followed = config.attesters.is_empty() || config.attesters.iter().any(named);
            if *key == own || !followed {
                continue;
            }
            let seen = self.seen.entry(*key).or_default();
            if store.head(key)?.len() <= *seen {
                continue;
            }
            for signed in store.statements(key, *seen).take(SCAN) {
                // What the queue has no room for is looked at later.
                if self.actions.len() >= room {
                    break;
                }
                let signed = signed?;
                *seen = signed.statement().seq.saturating_add(1);
                match &signed.statement().body {
                    Body::Built(built) => _ = self.actions.insert(built.action),
                    Body::Failed(failed) => _ = self.actions.insert(failed.action),
                    Body::Retract { .. } | Body::Succeed { .. } => {}
                }
            }
        }
        let mut needs = Vec::new();
        for action in self.actions {
            let claims = store.claims(&action)?;
            let spoken = claims.iter().map(|signed| signed.statement().attester).collect();
            let others = judgement.voters().keys().map(|(key, _)| *key);
            let claims = judgement.claims(&action, None)?;
            let need = Need::of(&own, &action, &claims, &spoken, wished.get(&action), others);
            needs.push((action, need));
        }
        Ok((self.seen, needs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_of_a_day() {
        let at = |hour: u64| 20_000 * DAY + hour * 3600 + 1800;
        let hours = |text: &str| -> Vec<u64> {
            let hours: Hours = text.parse().unwrap();
            (0..24).filter(|hour| hours.contain(at(*hour))).collect()
        };
        assert_eq!(hours("1-3"), [1, 2]);
        assert_eq!(hours("22-2"), [0, 1, 22, 23]);
        assert_eq!(hours("0-24").len(), 24);
        for wrong in ["", "-", "1", "1-1", "1-25", "a-b", "-1-2", "1-2-3"] {
            assert!(wrong.parse::<Hours>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn configured() {
        let read = |json: &str| serde_json::from_str::<Config>(json);
        assert_eq!(read("{}").unwrap(), Config::default());
        let config =
            read(r#"{ "packages": ["lua*"], "wishes": "anybody", "hours": "22-6", "votes": 2 }"#).unwrap();
        assert_eq!((config.wishes, config.votes), (Wishes::Anybody, 2));
        for wrong in [r#"{ "hours": "6" }"#, r#"{ "packages": [""] }"#, r#"{ "wish": "anybody" }"#] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
