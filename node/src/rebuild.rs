//! Rebuilding: executing what others executed, to corroborate it or to refute it.
//!
//! ```text
//! input hash ─ Node::seek ─▶ action ─ download ─▶ its inputs ─ Builder ─▶ outputs: recorded, attested
//!                                                                   └──▶ a failure: stated
//! ```
//!
//! Nothing here is believed. An action is what its hash says, and so are its inputs; what executing
//! it gives is this machine's own finding, whoever wished for it and whatever others got. A hostile
//! action costs what [`Limits`] allow, once.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use protocol::{
    action::{Action, FetchAction},
    id::{ActionId, NarHash},
    key::{AttesterKey, SigningKey},
    message::KnownAction,
    name::Name,
    output::Outputs,
    statement::{self, Body, Ending, Signed},
    trace::Trace,
};
use store::{LookupError, Realisation, SayError, Store};
use trust::audit::Found;

use crate::{
    attest::{self, AttestError, Attested, Withdrawn},
    build::{self, BuildError, Builder, Failure, Limits},
    control::{ControlError, Node},
    realise::{self, Executed, RealiseError},
    substitute::{self, SubstituteError},
};

/// What an execution came to.
#[derive(Debug)]
pub enum Rebuilt {
    /// It gave outputs.
    Built {
        /// What is recorded of it.
        realisation: Realisation,
        /// What became of its attestation.
        attested: Attested,
    },
    /// It failed, as it would anywhere.
    Failed {
        /// How.
        failure: Failure,
        /// The statement that says so, unless it was said before.
        said: Option<Box<Signed>>,
    },
}

impl Rebuilt {
    /// What it came to, as attesters say it.
    pub fn found(&self) -> Option<Found> {
        match self {
            Self::Built { realisation, .. } => Some(Found::Built(realisation.outputs.clone())),
            Self::Failed { failure, .. } => {
                failure.ending().map(|(step, ending)| Found::Failed { step, ending })
            }
        }
    }
}

/// Why nothing was executed, or nothing can be said about it.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// Nobody says what it is.
    #[error("no connected node says what {action} is")]
    Unknown {
        /// The action.
        action: ActionId,
    },
    /// An input is not here, and nobody says how long it is.
    #[error("nobody says how long the input {nar} is, so it cannot be asked for")]
    Length {
        /// The input.
        nar: NarHash,
    },
    /// Its inputs are larger than a build may be.
    #[error("its inputs have {bytes} bytes, but at most {limit} are allowed")]
    TooLarge {
        /// All that would be downloaded.
        bytes: u64,
        /// What is allowed.
        limit: u64,
    },
    /// It is a fetch, and no archive that others have of it is the file with its hash.
    #[error("nobody has the file that {action} is about")]
    NoFile {
        /// The action.
        action: ActionId,
    },
    /// It is a fetch, which executes nothing that could be traced.
    #[error("{action} is a fetch, of which there is no trace")]
    NoTrace {
        /// The action.
        action: ActionId,
    },
    /// What it needs is not to be had.
    #[error(transparent)]
    Download(#[from] SubstituteError),
    /// There is no node to ask, or it does not answer.
    #[error(transparent)]
    Node(#[from] ControlError),
    /// It was not executed to its end.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// What it gave is not kept.
    #[error(transparent)]
    Realise(#[from] RealiseError),
    /// Two executions on this machine differ.
    #[error("two executions on this machine differ")]
    Unstable,
    /// What it gave is kept and not signed.
    #[error(transparent)]
    Attest(#[from] AttestError),
    /// That it failed is not signed.
    #[error("cannot sign that it failed")]
    Say(#[from] SayError),
    /// The store does not answer.
    #[error(transparent)]
    Lookup(#[from] LookupError),
}

impl RebuildError {
    /// Whether it is of no use to try again on this machine, with these limits.
    pub fn is_final(&self) -> bool {
        match self {
            Self::TooLarge { .. } | Self::NoTrace { .. } | Self::Unstable => true,
            Self::Build(error) => match error {
                BuildError::Failed { failure, .. } => !matches!(
                    failure,
                    Failure::Abort { abort: build::Abort::Host(_), .. } | Failure::Setup(_)
                ),
                BuildError::TimedOut { .. } | BuildError::Module { .. } => true,
                BuildError::Crashed { .. }
                | BuildError::Input { .. }
                | BuildError::Admit { .. }
                | BuildError::Talk(_)
                | BuildError::Io { .. } => false,
            },
            Self::Unknown { .. }
            | Self::Length { .. }
            | Self::NoFile { .. }
            | Self::Download(_)
            | Self::Node(_)
            | Self::Realise(_)
            | Self::Attest(_)
            | Self::Say(_)
            | Self::Lookup(_) => false,
        }
    }
}

/// Executes what others executed.
pub struct Rebuilder {
    builder: Builder,
    node: Option<Node>,
    key: SigningKey,
    limits: Limits,
}

/// What one execution came to.
enum Execution {
    Built(Executed),
    /// How, and the step and the ending as they are stated.
    Failed(Failure, (u32, Ending)),
}

/// An action that is to be executed, before anything was spent on it.
#[derive(Debug, Clone)]
pub struct Subject {
    id: ActionId,
    known: KnownAction,
}

impl Subject {
    /// What whoever knew it calls what it makes: a hint.
    pub fn name(&self) -> Name {
        self.known.name.clone().unwrap_or_else(Name::unknown)
    }
}

impl Rebuilder {
    /// A rebuilder that asks others through `node`, if there is one, gives each build `limits`, and
    /// signs with `key`.
    pub fn new(builder: Builder, node: Option<Node>, key: SigningKey, limits: Limits) -> Self {
        Self { builder, node, key, limits }
    }

    /// The store of what it executes.
    pub fn store(&self) -> &Arc<Store> {
        self.builder.store()
    }

    /// Its key.
    pub fn attester(&self) -> AttesterKey {
        AttesterKey::of(&self.key)
    }

    /// The way to others.
    pub fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }

    /// Finds out what an action is: from the store, or from others.
    ///
    /// # Errors
    ///
    /// [`RebuildError::Unknown`], or what failed on the way.
    pub async fn find(&self, id: ActionId) -> Result<Subject, RebuildError> {
        let known = self.store().action(&id)?;
        let whole = |action: &Action| action.inputs().all(|nar| self.store().contains(nar));
        // Without its inputs it is of use only if others say how long these are.
        if let Some(action) = known.filter(|action| whole(action) || self.node.is_none()) {
            let name = self.store().realisation(&id)?.map(|built| built.name);
            let sizes = vec![0; action.inputs().count()];
            return Ok(Subject { id, known: KnownAction { action, name, sizes } });
        }
        let sought = match &self.node {
            Some(node) => node.seek(id).await?,
            None => None,
        };
        let known = sought.ok_or(RebuildError::Unknown { action: id })?;
        Ok(Subject { id, known: *known })
    }

    /// Executes an action and signs what it came to. `progress` hears of the build.
    ///
    /// What was executed here before is not executed again, but signed.
    ///
    /// # Errors
    ///
    /// [`RebuildError`]; then nothing was signed.
    pub async fn rebuild(
        &self,
        subject: Subject,
        progress: &(dyn Fn(build::Progress<'_>) + Send + Sync),
    ) -> Result<Rebuilt, RebuildError> {
        let Subject { id, known } = subject;
        let withdrawn = Withdrawn::by(self.store(), Some(&self.attester()))?;
        let on_record = withdrawn.standing(self.store(), &id)?;
        if let Some(realisation) = on_record.filter(|known| known.transcript.is_some()) {
            let attested = attest::attest(self.store(), &self.key, &realisation)?;
            return Ok(Rebuilt::Built { realisation, attested });
        }
        let begun = Instant::now();
        let execution = self.execute(&id, &known, progress).await?;
        self.conclude(&id, known, execution, begun.elapsed())
    }

    /// Executes an action so many times, at least once, whatever is on record, and signs what it came
    /// to; if that was not always the same, that it is unstable.
    ///
    /// # Errors
    ///
    /// [`RebuildError::Unstable`], and then that is signed; another one, and then nothing is.
    pub async fn settle(
        &self,
        subject: Subject,
        times: u32,
        progress: &(dyn Fn(build::Progress<'_>) + Send + Sync),
    ) -> Result<Rebuilt, RebuildError> {
        let Subject { id, known } = subject;
        let begun = Instant::now();
        let first = self.execute(&id, &known, progress).await?;
        for _ in 1..times {
            let again = self.execute(&id, &known, progress).await?;
            let same = match (&first, &again) {
                (Execution::Built(one), Execution::Built(other)) => one == other,
                (Execution::Failed(.., one), Execution::Failed(.., other)) => one == other,
                (Execution::Built(_), Execution::Failed(..))
                | (Execution::Failed(..), Execution::Built(_)) => false,
            };
            if !same {
                self.say_failed(&id, 0, Ending::Unstable)?;
                return Err(RebuildError::Unstable);
            }
        }
        let took = begun.elapsed() / times.max(1);
        let concluded = self.conclude(&id, known, first, took);
        if matches!(concluded, Err(RebuildError::Unstable)) {
            self.say_failed(&id, 0, Ending::Unstable)?;
        }
        concluded
    }

    /// Executes an action once more, for nothing but its trace; and, if that is asked for, for the
    /// call at mark `call`.
    ///
    /// # Errors
    ///
    /// [`RebuildError`]; [`RebuildError::NoTrace`] of a fetch.
    pub async fn trace(
        &self,
        subject: &Subject,
        call: Option<usize>,
        progress: &(dyn Fn(build::Progress<'_>) + Send + Sync),
    ) -> Result<(Trace, Option<build::Call>), RebuildError> {
        let Action::Build(build) = &subject.known.action else {
            return Err(RebuildError::NoTrace { action: subject.id });
        };
        self.download_inputs(&subject.known).await?;
        Ok(self.builder.trace(build, self.limits, call, progress).await?)
    }

    /// Executes an action once.
    async fn execute(
        &self,
        id: &ActionId,
        known: &KnownAction,
        progress: &(dyn Fn(build::Progress<'_>) + Send + Sync),
    ) -> Result<Execution, RebuildError> {
        let build = match &known.action {
            Action::Fetch(fetch) => return Ok(Execution::Built(self.have(id, fetch).await?)),
            Action::Build(build) => build,
        };
        self.download_inputs(known).await?;
        let options = build::Options { limits: self.limits, keep_failed: None };
        match self.builder.build(build, &options, progress).await {
            Ok(built) => {
                Ok(Execution::Built(Executed { outputs: built.outputs, transcript: built.transcript }))
            }
            Err(BuildError::Failed { failure, tail, kept }) => match failure.ending() {
                Some(ending) => Ok(Execution::Failed(failure, ending)),
                None => Err(BuildError::Failed { failure, tail, kept }.into()),
            },
            Err(error) => Err(error.into()),
        }
    }

    /// Records and signs what an execution came to.
    fn conclude(
        &self,
        id: &ActionId,
        known: KnownAction,
        execution: Execution,
        took: Duration,
    ) -> Result<Rebuilt, RebuildError> {
        let executed = match execution {
            Execution::Built(executed) => executed,
            Execution::Failed(failure, (step, ending)) => {
                let said = self.say_failed(id, step, ending)?;
                return Ok(Rebuilt::Failed { failure, said });
            }
        };
        let name = known.name.unwrap_or_else(Name::unknown);
        let recorded = realise::record(
            self.store(),
            Some(&self.attester()),
            &known.action,
            None,
            &name,
            &executed,
            took,
        );
        let realisation = match recorded {
            Ok(recorded) => recorded.ok_or(RebuildError::Unstable)?,
            Err(RealiseError::Transcript) => return Err(RebuildError::Unstable),
            Err(error) => return Err(error.into()),
        };
        let attested = attest::attest(self.store(), &self.key, &realisation)?;
        Ok(Rebuilt::Built { realisation, attested })
    }

    /// Has the inputs of an action that are not here.
    async fn download_inputs(&self, known: &KnownAction) -> Result<(), RebuildError> {
        let inputs = known.action.inputs().zip(&known.sizes);
        let missing: BTreeMap<_, _> =
            inputs.filter(|(nar, _)| !self.store().contains(nar)).map(|(nar, size)| (*nar, *size)).collect();
        if let Some((nar, _)) = missing.iter().find(|(_, size)| **size == 0) {
            return Err(RebuildError::Length { nar: *nar });
        }
        self.download(&missing).await
    }

    async fn download(&self, missing: &BTreeMap<NarHash, u64>) -> Result<(), RebuildError> {
        let bytes = missing.values().fold(0, |sum: u64, size| sum.saturating_add(*size));
        if bytes > self.limits.disk {
            return Err(RebuildError::TooLarge { bytes, limit: self.limits.disk });
        }
        Ok(substitute::download(self.node.as_ref(), missing, |_, _| ()).await?)
    }

    /// Executes a fetch: has its file from others, of whom some say how its archive is called. That
    /// it is the file, its own hash says.
    async fn have(&self, id: &ActionId, fetch: &FetchAction) -> Result<Executed, RebuildError> {
        let mut candidates = BTreeSet::<Outputs>::new();
        for signed in self.store().claims(id)? {
            if let Body::Built(built) = &signed.statement().body {
                candidates.insert(built.outputs.clone());
            }
        }
        let mut failed = RebuildError::NoFile { action: *id };
        for outputs in candidates {
            let missing = outputs.values().filter(|output| !self.store().contains(&output.nar));
            let missing = missing.map(|output| (output.nar, output.size)).collect();
            match self.download(&missing).await {
                Ok(()) => {}
                Err(error) => {
                    failed = error;
                    continue;
                }
            }
            if substitute::verify(self.store(), fetch, &outputs).is_ok() {
                return Ok(realise::fetched(self.store(), outputs)?);
            }
        }
        Err(failed)
    }

    /// Says that an action fails, unless that was said.
    fn say_failed(
        &self,
        action: &ActionId,
        step: u32,
        ending: Ending,
    ) -> Result<Option<Box<Signed>>, RebuildError> {
        let failure = statement::Failure { action: *action, step, ending, platform: attest::platform() };
        let own = self.attester();
        let same = |signed: &Signed| {
            let statement = signed.statement();
            statement.attester == own && statement.body == Body::Failed(failure.clone())
        };
        if self.store().claims(action)?.iter().any(same) {
            return Ok(None);
        }
        let said = self.store().say(&self.key, attest::now(), [Body::Failed(failure.clone())])?;
        Ok(said.into_iter().next().map(Box::new))
    }
}
