//! Making the outputs of derivations exist: the loop around [`Schedule`].
//!
//! ```text
//! Schedule::take ─▶ task ─┬▶ build (a worker process) or fetch (a thread) ─▶ record, fsync'd ─┬▶ Schedule::finished
//!                         └▶ substitute: what enough others got, from them ──────────────────┘
//! ```
//!
//! What was recorded is known to the next run even if this one is killed: the worst that a crash
//! costs is the builds that were running.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use protocol::{
    action::Action,
    derivation::{Derivation, Fetch, Kind},
    id::{ActionId, DerivationId, NarHash},
    key::{AttesterKey, SigningKey},
    name::Name,
    nar,
    output::{Output, Outputs},
    witness::TranscriptHash,
};
use store::{Fact, LookupError, Realisation, Store};
use tokio::task::JoinSet;

use crate::{
    attest::{self, AttestError, Attested, Withdrawn},
    build::{self, BuildError, Builder, Limits},
    fetch::{self, FetchError},
    schedule::{Counts, Known, Schedule, ScheduleError, Task},
    substitute::{self, SubstituteError, Substitutes},
};

/// What happens while derivations are realised. Called from several threads.
pub trait Observer: Send + Sync {
    /// Something happened to a derivation's execution.
    fn happened(&self, derivation: &DerivationId, event: Event<'_>);
    /// How far all of it is.
    fn counted(&self, counts: &Counts<'_>);
}

/// What happened to one execution.
#[derive(Debug)]
pub enum Event<'e> {
    /// It began.
    Began {
        /// What people call it.
        name: &'e Name,
        /// What is executed.
        action: ActionId,
        /// Whether it fetches a file, or what others got, instead of building.
        fetches: bool,
    },
    /// The build goes on.
    Building(build::Progress<'e>),
    /// The fetch goes on.
    Fetching(fetch::Progress),
    /// What others got comes: so many of so many bytes.
    Substituting {
        /// Bytes that are here.
        done: u64,
        /// All of them.
        total: u64,
    },
    /// What others got is here, after that time.
    Substituted(Duration),
    /// It is not to be had from them: it is executed instead.
    NotSubstituted(&'e SubstituteError),
    /// It ended well, after that time.
    Ended(Duration),
    /// It failed.
    Failed(&'e RealiseError),
    /// What it gave is attested, or was before, or contradicts what was attested.
    Attested(&'e Attested),
    /// What it gave is kept, but could not be attested.
    NotAttested(&'e AttestError),
}

/// Why an execution gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum RealiseError {
    /// The build.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The fetch.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// What others got is not to be had.
    #[error(transparent)]
    Substitute(#[from] SubstituteError),
    /// What was fetched or built cannot be stored.
    #[error("cannot store the result")]
    Store(#[source] store::AdmitError),
    /// What was fetched cannot be archived.
    #[error("cannot archive the fetched file")]
    Archive(#[source] nar::WriteError),
    /// What was stored cannot be read.
    #[error("cannot read what was stored")]
    ReadBack(#[source] store::GetError),
    /// What others say a fetch gave has no output `out`.
    #[error("what others say was fetched has no output `out`")]
    NoFile,
    /// It was executed before with the same outputs, but the guest did something else on the way.
    #[error("two executions gave the same outputs in different ways: what the guest called differs")]
    Transcript,
    /// What is on record cannot be read.
    #[error("cannot read what is on record")]
    Lookup(#[source] LookupError),
    /// That it was built cannot be recorded.
    #[error("cannot record the result")]
    Record(#[source] store::RecordError),
    /// This machine failed.
    #[error("cannot {what}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// How derivations are realised.
#[derive(Debug, Clone)]
pub struct How {
    /// Executions at once.
    pub jobs: usize,
    /// Execute the roots even if what they give is known, and compare.
    pub again: bool,
    /// Go on with what does not need what failed.
    pub keep_going: bool,
    /// What each build may use at most.
    pub limits: Limits,
    /// A directory for the files of failed builds.
    pub keep_failed: Option<PathBuf>,
    /// How files are fetched.
    pub fetch: fetch::Config,
    /// What others got, if that may be taken.
    pub substitutes: Option<Arc<Substitutes>>,
    /// The key under which what is executed is attested; it is not if there is none.
    pub attester: Option<SigningKey>,
}

/// An execution that failed.
#[derive(Debug)]
pub struct Failed {
    /// The derivation.
    pub derivation: DerivationId,
    /// What people call it.
    pub name: Name,
    /// What was executed.
    pub action: ActionId,
    /// Why it failed.
    pub error: RealiseError,
}

/// What realising came to.
#[derive(Debug)]
pub struct Realised {
    /// The action and the outputs of each root that succeeded.
    pub roots: BTreeMap<DerivationId, (ActionId, Outputs)>,
    /// What was executed.
    pub executed: Vec<ActionId>,
    /// What was had from others.
    pub substituted: Vec<ActionId>,
    /// What failed.
    pub failed: Vec<Failed>,
}

/// The action and the outputs of a derivation, as far as they are known.
pub type State = (Option<ActionId>, Option<Outputs>);

/// What the store knows, and what enough others agree on, as a schedule asks.
struct Knowledge<'s> {
    store: &'s Store,
    withdrawn: Withdrawn,
    substitutes: Option<&'s Substitutes>,
}

impl Known for Knowledge<'_> {
    type Error = LookupError;

    fn outputs(&self, action: &Action, package: &Name) -> Result<Option<Outputs>, LookupError> {
        let id = action.id();
        let accepted = match (self.withdrawn.standing(self.store, &id)?, self.substitutes) {
            (Some(here), _) => return Ok(Some(here.outputs)),
            (None, Some(substitutes)) => substitutes.accepted(&id, package)?,
            (None, None) => None,
        };
        // What is here by another way is used without being fetched first, where it would be checked.
        let other = |outputs: &Outputs| match action {
            Action::Fetch(fetch) if outputs.values().all(|output| self.has(&output.nar)) => {
                substitute::verify(self.store, fetch, outputs).is_err()
            }
            Action::Fetch(_) | Action::Build(_) => false,
        };
        Ok(accepted.filter(|outputs| !other(outputs)))
    }

    fn has(&self, nar: &NarHash) -> bool {
        self.store.contains(nar)
    }
}

/// Realises derivations in one store.
pub struct Realiser {
    builder: Arc<Builder>,
    how: Arc<How>,
    observer: Arc<dyn Observer>,
}

impl Realiser {
    /// Puts together what is needed.
    pub fn new(builder: Arc<Builder>, how: How, observer: Arc<dyn Observer>) -> Self {
        Self { builder, how: Arc::new(how), observer }
    }

    /// What each root's action and outputs are as far as the store knows, without executing anything.
    ///
    /// # Errors
    ///
    /// The graph does not hold together, or the store fails.
    pub fn known(
        &self,
        derivations: &BTreeMap<DerivationId, Derivation>,
        roots: &BTreeSet<DerivationId>,
    ) -> Result<BTreeMap<DerivationId, State>, ScheduleError<LookupError>> {
        let mut schedule = Schedule::new(derivations, roots, false, self.substitutes())?;
        schedule.begin(&self.knowledge().map_err(ScheduleError::Known)?)?;
        let state = |id| match schedule.state(id) {
            Some((action, outputs)) => (action.map(Action::id), outputs.cloned()),
            None => (None, None),
        };
        Ok(roots.iter().map(|id| (*id, state(id))).collect())
    }

    /// Makes the outputs of `roots` exist. Executions that fail are reported in the result.
    ///
    /// # Errors
    ///
    /// The graph does not hold together, the store fails, or a build is not deterministic.
    pub async fn realise(
        &self,
        derivations: &BTreeMap<DerivationId, Derivation>,
        roots: &BTreeSet<DerivationId>,
    ) -> Result<Realised, ScheduleError<LookupError>> {
        let known = self.knowledge().map_err(ScheduleError::Known)?;
        let mut schedule = Schedule::new(derivations, roots, self.how.again, self.substitutes())?;
        schedule.begin(&known)?;
        let mut running = JoinSet::new();
        let (executed, substituted, failed) = (Vec::new(), Vec::new(), Vec::new());
        let mut realised = Realised { roots: BTreeMap::new(), executed, substituted, failed };
        loop {
            while running.len() < self.how.jobs && (realised.failed.is_empty() || self.how.keep_going) {
                let Some(task) = schedule.take() else { break };
                let derivation = derivations[&task.derivation].clone();
                running.spawn(self.execution(task, derivation));
            }
            self.observer.counted(&schedule.counts());
            let Some(ended) = running.join_next().await else { break };
            let (task, result) = match ended {
                Ok(ended) => ended,
                Err(panic) => std::panic::resume_unwind(panic.into_panic()),
            };
            match result {
                Ok(outputs) => {
                    let had = match task.substitute {
                        Some(_) => &mut realised.substituted,
                        None => &mut realised.executed,
                    };
                    had.push(task.action.id());
                    schedule.finished(task.node, outputs, &known)?;
                }
                Err(RealiseError::Substitute(_)) => schedule.not_had(task.node, &known)?,
                Err(error) => realised.failed.push(Failed {
                    derivation: task.derivation,
                    name: derivations[&task.derivation].name().clone(),
                    action: task.action.id(),
                    error,
                }),
            }
        }
        for root in roots {
            if let Some((Some(action), Some(outputs))) = schedule.state(root)
                && outputs.values().all(|output| self.builder.store().contains(&output.nar))
            {
                realised.roots.insert(*root, (action.id(), outputs.clone()));
            }
        }
        Ok(realised)
    }

    fn knowledge(&self) -> Result<Knowledge<'_>, LookupError> {
        let store: &Store = self.builder.store();
        let own = self.how.attester.as_ref().map(AttesterKey::of);
        let withdrawn = Withdrawn::by(store, own.as_ref())?;
        Ok(Knowledge { store, withdrawn, substitutes: self.how.substitutes.as_deref() })
    }

    /// Whether what is not here is to be had from others.
    fn substitutes(&self) -> bool {
        self.how.substitutes.as_ref().is_some_and(|substitutes| substitutes.reach_others())
    }

    /// Executes a task, or has what it gives from others, and records what it gave unless other outputs are on record: that is for
    /// the schedule to notice.
    fn execution(
        &self,
        task: Task,
        derivation: Derivation,
    ) -> impl Future<Output = (Task, Result<Outputs, RealiseError>)> + Send + 'static {
        let (builder, how, observer) = (self.builder.clone(), self.how.clone(), self.observer.clone());
        async move {
            let begun = Instant::now();
            let id = task.derivation;
            let fetches = task.substitute.is_some() || matches!(task.action, Action::Fetch(_));
            let (name, action) = (derivation.name(), task.action.id());
            observer.happened(&id, Event::Began { name, action, fetches });
            let executed = if let (Some(outputs), Some(substitutes)) = (&task.substitute, &how.substitutes) {
                let progress = |done, total| observer.happened(&id, Event::Substituting { done, total });
                let had = substitutes.fetch(builder.store(), &task.action, outputs, progress).await;
                observer.happened(
                    &id,
                    match &had {
                        Ok(()) => Event::Substituted(begun.elapsed()),
                        Err(error) => Event::NotSubstituted(error),
                    },
                );
                match (had, &task.action) {
                    (Err(error), _) => return (task, Err(error.into())),
                    (Ok(()), Action::Build(_)) => {
                        let outputs = outputs.clone();
                        return (task, Ok(outputs));
                    }
                    // To have the file is to have executed it, wherever it came from.
                    (Ok(()), Action::Fetch(_)) => fetched(builder.store(), outputs.clone()),
                }
            } else {
                execute(&builder, &how, &task, &derivation, &observer).await
            };
            let result = executed.and_then(|executed| {
                let recorded = record(
                    builder.store(),
                    how.attester.as_ref().map(AttesterKey::of).as_ref(),
                    &task.action,
                    Some(task.derivation),
                    derivation.name(),
                    &executed,
                    begun.elapsed(),
                )?;
                // That it is not signed is no reason to build it again: it can be signed later.
                if let (Some(key), Some(recorded)) = (&how.attester, recorded) {
                    match attest::attest(builder.store(), key, &recorded) {
                        Ok(attested) => observer.happened(&id, Event::Attested(&attested)),
                        Err(error) => observer.happened(&id, Event::NotAttested(&error)),
                    }
                }
                Ok(executed.outputs)
            });
            observer.happened(
                &id,
                match &result {
                    Ok(_) => Event::Ended(begun.elapsed()),
                    Err(error) => Event::Failed(error),
                },
            );
            (task, result)
        }
    }
}

/// What an execution gave.
#[derive(PartialEq, Eq)]
pub(crate) struct Executed {
    pub(crate) outputs: Outputs,
    pub(crate) transcript: TranscriptHash,
}

/// What executing a fetch gave whose file is in the store and is the one that is wanted.
pub(crate) fn fetched(store: &Store, outputs: Outputs) -> Result<Executed, RealiseError> {
    let Some(output) = outputs.get(&Name::out()) else { return Err(RealiseError::NoFile) };
    let archive = store.open_nar(&output.nar).map_err(RealiseError::ReadBack)?;
    Ok(Executed { transcript: TranscriptHash::of_fetched(archive.bytes()), outputs })
}

async fn execute(
    builder: &Builder,
    how: &Arc<How>,
    task: &Task,
    derivation: &Derivation,
    observer: &Arc<dyn Observer>,
) -> Result<Executed, RealiseError> {
    match (&task.action, derivation.kind()) {
        (Action::Build(action), Kind::Build(build)) => {
            let options = build::Options {
                limits: how.limits.within(&build.limits),
                keep_failed: how.keep_failed.as_ref().map(|to| to.join(build.name.as_str())),
            };
            let progress = |progress: build::Progress<'_>| {
                observer.happened(&task.derivation, Event::Building(progress))
            };
            let built = builder.build(action, &options, &progress).await?;
            Ok(Executed { outputs: built.outputs, transcript: built.transcript })
        }
        (_, Kind::Fetch(fetch)) => {
            // Dropped when this execution is: the thread then stops at its next piece.
            let cancel = Cancel(Arc::new(AtomicBool::new(false)));
            let (flag, store, how) = (cancel.0.clone(), builder.store().clone(), how.clone());
            let (fetch, observer, id) = (fetch.clone(), observer.clone(), task.derivation);
            let work = move || obtain(&store, &fetch, &how.fetch, &flag, &*observer, &id);
            match tokio::task::spawn_blocking(work).await {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic.into_panic()),
            }
        }
        (Action::Fetch(_), Kind::Build(_)) => unreachable!("a build resolves to a build"),
    }
}

/// Sets its flag when it is dropped.
struct Cancel(Arc<AtomicBool>);

impl Drop for Cancel {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Fetches a file, archives it and takes it into the store.
fn obtain(
    store: &Store,
    fetch: &Fetch,
    config: &fetch::Config,
    cancel: &AtomicBool,
    observer: &dyn Observer,
    id: &DerivationId,
) -> Result<Executed, RealiseError> {
    let io = |what| move |source| RealiseError::Io { what, source };
    let work = store.home().join("fetch");
    fs::create_dir_all(&work).map_err(io("make the directory for fetched files"))?;
    let mut progress = |progress| observer.happened(id, Event::Fetching(progress));
    let path = fetch::fetch(fetch, config, &work, &mut progress, cancel)?;
    let file = fs::File::open(&path).map_err(io("open the fetched file"))?;
    let len = file.metadata().map_err(io("open the fetched file"))?.len();
    let mut archive = store.temp().map_err(io("make a temporary file"))?;
    nar::dump_file(&mut archive, fetch.executable, len, file).map_err(RealiseError::Archive)?;
    let admitted = store.admit_file(archive, None).map_err(RealiseError::Store)?;
    fs::remove_file(&path).map_err(io("remove the fetched file"))?;
    fetched(store, Outputs::from([(Name::out(), Output { nar: admitted.hash, size: admitted.size })]))
}

/// Records what was executed, unless other outputs are on record that were not withdrawn by `own`:
/// then there is nothing to record.
pub(crate) fn record(
    store: &Store,
    own: Option<&AttesterKey>,
    action: &Action,
    derivation: Option<DerivationId>,
    name: &Name,
    executed: &Executed,
    took: Duration,
) -> Result<Option<Realisation>, RealiseError> {
    let id = action.id();
    let withdrawn = Withdrawn::by(store, own).map_err(RealiseError::Lookup)?;
    let known = withdrawn.standing(store, &id).map_err(RealiseError::Lookup)?;
    if let Some(known) = known {
        if known.outputs != executed.outputs {
            return Ok(None);
        }
        if known.transcript.is_some_and(|before| before != executed.transcript) {
            return Err(RealiseError::Transcript);
        }
    }
    let realisation = Realisation {
        action: id,
        derivation,
        name: name.clone(),
        outputs: executed.outputs.clone(),
        finished: attest::now(),
        millis: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        transcript: Some(executed.transcript),
    };
    let facts = [Fact::Action(action.clone()), Fact::Built(realisation.clone())];
    store.record_all(&facts).map_err(RealiseError::Record)?;
    Ok(Some(realisation))
}
