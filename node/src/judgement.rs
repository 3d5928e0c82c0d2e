//! Where what is known meets what the owner says: the roster, the policy and the store, brought
//! before [`trust::verdict::judge`]. Nothing is decided here.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use protocol::{
    derivation::Derivation,
    id::{ActionId, DerivationId, NarHash},
    key::AttesterKey,
    name::Name,
};
use store::{LookupError, Realisation, Store};
use trust::{
    audit::{self, Dispute},
    ledger::{Checked, Claims, Execution, Record, Voters},
    policy::{Policy, PolicyError},
    resolve::{Known, Resolution, ResolveError, resolve},
    roster::{Roster, RosterError},
    standing::Standings,
    verdict::{Verdict, judge},
};

use crate::{
    attest::{self, Withdrawn},
    document,
};

/// Longest roster that is read, in bytes; [`Roster::parse`] has a limit of its own, which is lower.
const ROSTER_BYTES: u64 = 64 << 20;

/// Why there is no judgement.
#[derive(Debug, thiserror::Error)]
pub enum JudgementError {
    /// The disk refused.
    #[error("cannot {what} `{path}`")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The roster breaks a rule.
    #[error("`{path}` is not a roster")]
    Roster {
        /// The file.
        path: PathBuf,
        /// Which rule.
        #[source]
        source: RosterError,
    },
    /// The roster has this machine's own key.
    #[error(transparent)]
    Own(RosterError),
    /// The policy breaks a rule.
    #[error("the policy cannot be used")]
    Policy(#[from] PolicyError),
    /// The store does not answer.
    #[error(transparent)]
    Lookup(#[from] LookupError),
}

/// The file of the roster.
#[derive(Debug, Clone)]
pub struct RosterFile {
    path: PathBuf,
}

impl RosterFile {
    /// The roster of the store in `home`.
    pub fn new(home: &Path) -> Self {
        Self { path: home.join("trust.json") }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads it; an empty roster if there is no such file.
    ///
    /// # Errors
    ///
    /// [`JudgementError::Io`] or [`JudgementError::Roster`].
    pub fn read(&self) -> Result<Roster, JudgementError> {
        let text = document::read(&self.path, ROSTER_BYTES).map_err(|e| self.failed("read", e))?;
        let Some(text) = text else { return Ok(Roster::default()) };
        Roster::parse(&text).map_err(|source| JudgementError::Roster { path: self.path.clone(), source })
    }

    /// Changes it, whole or not at all, and one process at a time.
    ///
    /// # Errors
    ///
    /// [`JudgementError`], or what `change` fails with; then the file is as it was.
    pub fn change<T, E: From<JudgementError>>(
        &self,
        change: impl FnOnce(&mut Roster) -> Result<T, E>,
    ) -> Result<T, E> {
        let failed = |what, e| E::from(self.failed(what, e));
        document::change(&self.path, "trust.lock", failed, || {
            let mut roster = self.read()?;
            let result = change(&mut roster)?;
            Ok((result, roster.to_json()))
        })
    }

    fn failed(&self, what: &'static str, source: io::Error) -> JudgementError {
        JudgementError::Io { what, path: self.path.clone(), source }
    }
}

/// What is decided by: who counts, how many must agree, and what was said.
#[derive(Clone)]
pub struct Judgement {
    store: Arc<Store>,
    roster: Roster,
    voters: Voters,
    standings: Standings,
    policy: Policy,
    own: Option<AttesterKey>,
    withdrawn: Withdrawn,
}

impl Judgement {
    /// Brings together `roster`, the policy as the configuration has it (none: the default), and
    /// what the store knows against keys. `own` is this machine's key.
    ///
    /// # Errors
    ///
    /// [`JudgementError`].
    pub fn new(
        store: Arc<Store>,
        roster: Roster,
        policy: Option<&serde_json::Value>,
        own: Option<AttesterKey>,
    ) -> Result<Self, JudgementError> {
        if let Some(own) = &own {
            roster.check_own(own).map_err(JudgementError::Own)?;
        }
        let now = attest::now();
        let policy = match policy {
            Some(policy) => Policy::compile(policy, &roster, now)?,
            None => Policy::by_default(&roster, now),
        };
        let mut standings = Standings::default();
        for attester in store.attesters()? {
            store.bearing(&attester)?.iter().for_each(|evidence| standings.apply(evidence));
        }
        let mut voters = Voters::new(&roster, own, &standings, now);
        let withdrawn = Withdrawn::by(&store, own.as_ref())?;
        if policy.wants_known() {
            let checked = checked(&mut Knowledge(&store, &withdrawn), &voters)?;
            voters = voters.knowing(checked);
        }
        Ok(Self { store, roster, voters, standings, policy, own, withdrawn })
    }

    /// Who counts.
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    /// Whose votes are whose keys'.
    pub fn voters(&self) -> &Voters {
        &self.voters
    }

    /// How many must agree.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// This machine's key.
    pub fn own(&self) -> Option<&AttesterKey> {
        self.own.as_ref()
    }

    /// What is known of an action, by voter. `outputs` are the names of its outputs, if known.
    ///
    /// # Errors
    ///
    /// [`LookupError`].
    pub fn claims(&self, action: &ActionId, outputs: Option<&BTreeSet<Name>>) -> Result<Claims, LookupError> {
        let mut knowledge = Knowledge(&self.store, &self.withdrawn);
        let (records, own) = (knowledge.records(action)?, knowledge.execution(action)?);
        Ok(self.voters.claims(action, outputs, &records, own.as_ref()))
    }

    /// What is decided about an action of a package, and why.
    ///
    /// # Errors
    ///
    /// [`LookupError`].
    pub fn verdict(&self, action: &ActionId, package: &Name) -> Result<Verdict, LookupError> {
        Ok(judge(&self.claims(action, None)?, &self.policy.for_package(package)))
    }

    /// All that is said of an action, by sides, and how grave it is if they differ.
    ///
    /// # Errors
    ///
    /// [`LookupError`].
    pub fn dispute(&self, action: &ActionId) -> Result<Dispute, LookupError> {
        let own = Knowledge(&self.store, &self.withdrawn).execution(action)?;
        Ok(audit::examine(&self.store.claims(action)?, &self.voters, &self.standings, own.as_ref()))
    }

    /// What a graph gives, by hashes alone, and what it would take to have it.
    ///
    /// # Errors
    ///
    /// [`ResolveError`].
    pub fn resolve(
        &self,
        derivations: &BTreeMap<DerivationId, Derivation>,
        roots: &BTreeSet<DerivationId>,
    ) -> Result<Resolution, ResolveError<LookupError>> {
        resolve(derivations, roots, &mut Knowledge(&self.store, &self.withdrawn), &self.voters, &self.policy)
    }
}

/// What the store knows, as [`trust::resolve`] asks for it.
struct Knowledge<'s>(&'s Store, &'s Withdrawn);

impl Known for Knowledge<'_> {
    type Error = LookupError;

    fn records(&mut self, action: &ActionId) -> Result<Vec<Record>, LookupError> {
        Ok(self.0.claims(action)?.iter().filter_map(Record::of).collect())
    }

    fn execution(&mut self, action: &ActionId) -> Result<Option<Execution>, LookupError> {
        Ok(self.1.standing(self.0, action)?.map(|built| execution(&built)))
    }

    fn has(&mut self, nar: &NarHash) -> Result<bool, LookupError> {
        Ok(self.0.contains(nar))
    }
}

/// Whose witnesses can be checked by what was executed here: all of it is looked at.
fn checked(knowledge: &mut Knowledge<'_>, voters: &Voters) -> Result<Checked, LookupError> {
    let mut checked = Checked::default();
    for built in knowledge.0.realisations()? {
        let action = built?.action;
        if let Some(own) = knowledge.execution(&action)?.filter(|own| own.transcript.is_some()) {
            checked.note(&voters.claims(&action, None, &knowledge.records(&action)?, Some(&own)));
        }
    }
    Ok(checked)
}

fn execution(built: &Realisation) -> Execution {
    Execution { outputs: built.outputs.clone(), platform: attest::platform(), transcript: built.transcript }
}
