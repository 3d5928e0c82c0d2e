//! Feeds and proofs against keys: what was signed, kept for good, each feed without a gap.
//!
//! A statement is durable when it is acknowledged, and so before anybody is told of it. Two
//! statements that cannot both be in one feed are kept as a proof, whichever came first stays in
//! the feed, and neither is ever dropped. What any of it is worth is not decided here.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{MutexGuard, PoisonError},
};

use protocol::{
    evidence::{Equivocation, Evidence},
    feed::{FeedError, Head},
    id::ActionId,
    key::{AttesterKey, SigningKey},
    statement::{Body, SignError, Signed, Statement},
};

use crate::{
    LookupError, RecordError, Store,
    books::{Books, Here},
    fact::Fact,
    index::Index,
};

/// Statements that are read at once by [`Store::statements`].
const BATCH: usize = 1024;

/// What became of something that was to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// It is new, and kept.
    New,
    /// It was here.
    Known,
    /// It contradicts what is here: both are kept as a proof against their attester.
    Equivocation(Equivocation),
    /// It does not fit to what is here, and is not kept.
    Refused(FeedError),
}

/// Why something signed was not kept.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// What is here cannot be read.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// It was not recorded.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// Why nothing was said.
#[derive(Debug, thiserror::Error)]
pub enum SayError {
    /// The feed is over.
    #[error(transparent)]
    Feed(#[from] FeedError),
    /// It is not a valid statement.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// It was not kept.
    #[error(transparent)]
    Keep(#[from] KeepError),
}

/// The feeds while something is added: what is new in this batch, and where each feed then ends.
struct Batch<'s> {
    here: &'s Here,
    heads: MutexGuard<'s, BTreeMap<AttesterKey, Head>>,
    grown: BTreeMap<AttesterKey, Grown>,
    facts: Vec<Fact>,
}

/// What a batch adds to a feed.
struct Grown {
    head: Head,
    /// Which of the facts are its last statements, in the order of their places.
    statements: Vec<usize>,
}

impl Store {
    /// Keeps what others signed, in this order: durably, when this returns, and with one sync.
    ///
    /// # Errors
    ///
    /// [`KeepError`]. If the disk fails, or we are killed, the first few may be kept.
    pub fn keep(&self, evidence: impl IntoIterator<Item = Evidence>) -> Result<Vec<Kept>, KeepError> {
        let here = match &self.books {
            Books::Here(here) => here,
            Books::There(client) => return client.keep(evidence),
        };
        let mut batch = here.batch();
        let kept = evidence.into_iter().map(|item| batch.add(item)).collect::<Result<_, _>>()?;
        batch.commit()?;
        Ok(kept)
    }

    /// Signs what is said next in the feed of `key`, and keeps it: durably, when this returns.
    /// `time` is in seconds since 1970.
    ///
    /// # Errors
    ///
    /// [`SayError`]; then nothing was said, unless the disk failed, or the process that serves us
    /// ended: then the feed tells.
    pub fn say(
        &self,
        key: &SigningKey,
        time: u64,
        bodies: impl IntoIterator<Item = Body>,
    ) -> Result<Vec<Signed>, SayError> {
        let here = match &self.books {
            Books::Here(here) => here,
            Books::There(client) => return client.say(key, time, bodies),
        };
        let attester = AttesterKey::of(key);
        let mut batch = here.batch();
        let mut said = Vec::new();
        for body in bodies {
            let head = batch.head(&attester).map_err(KeepError::from)?;
            let statement = Statement { attester, seq: head.len(), prev: head.last(), time, body };
            let signed = statement.sign(key)?;
            let next = head.follow(&signed)?;
            batch.push(signed.clone(), next);
            said.push(signed);
        }
        batch.commit().map_err(KeepError::from)?;
        Ok(said)
    }

    /// Where a feed ends.
    pub fn head(&self, attester: &AttesterKey) -> Result<Head, LookupError> {
        match &self.books {
            Books::Here(here) => here.batch().head(attester),
            Books::There(client) => client.head(attester),
        }
    }

    /// Whose feeds or proofs have grown since this was last asked, whoever added to them. Only the
    /// process that has the store open knows; its clients are told of nobody.
    pub fn touched(&self) -> BTreeSet<AttesterKey> {
        match &self.books {
            Books::Here(here) => {
                std::mem::take(&mut here.touched.lock().unwrap_or_else(PoisonError::into_inner))
            }
            Books::There(_) => BTreeSet::new(),
        }
    }

    /// The attesters of whom anything is known, in the order of their keys.
    pub fn attesters(&self) -> Result<Vec<AttesterKey>, LookupError> {
        match &self.books {
            Books::Here(here) => Ok(here.indexed(|index| index.attesters(None))?),
            Books::There(client) => Ok(client.attesters()?),
        }
    }

    /// The statements of a feed, from a place on.
    pub fn statements(
        &self,
        attester: &AttesterKey,
        from: u64,
    ) -> impl Iterator<Item = Result<Signed, LookupError>> + '_ {
        let found: Box<dyn Iterator<Item = _> + Send + '_> = match &self.books {
            Books::Here(here) => Box::new(here.statements(*attester, from)),
            Books::There(client) => Box::new(client.statements(*attester, from)),
        };
        found
    }

    /// What attesters said of an action: attestations and failures, by attester and place.
    pub fn claims(&self, action: &ActionId) -> Result<Vec<Signed>, LookupError> {
        match &self.books {
            Books::Here(here) => {
                let claims = here.indexed(|index| index.claims(action))?;
                let mut found: Vec<_> =
                    claims.into_iter().map(|claim| here.signed(claim.at)).collect::<Result<_, _>>()?;
                found.sort_by_key(|signed| (signed.statement().attester, signed.statement().seq));
                Ok(found)
            }
            Books::There(client) => client.claims(action),
        }
    }

    /// The actions of which some attester spoke, in the order of their ids.
    pub fn claimed(&self) -> Result<Vec<ActionId>, LookupError> {
        match &self.books {
            Books::Here(here) => Ok(here.indexed(Index::claimed)?),
            Books::There(client) => Ok(client.claimed()?),
        }
    }

    /// The actions of which attesters, or one of them at several places, said different things, in the
    /// order of their ids: other outputs, another failure. Whether their word still counts, and what
    /// was found here, is not looked at.
    pub fn divided(&self) -> Result<Vec<ActionId>, LookupError> {
        match &self.books {
            Books::Here(here) => Ok(here.indexed(Index::divided)?),
            Books::There(client) => Ok(client.divided()?),
        }
    }

    /// What bears on the worth of a key's word, in the order in which it came: its revocations,
    /// equivocations, retractions and succession.
    pub fn bearing(&self, attester: &AttesterKey) -> Result<Vec<Evidence>, LookupError> {
        match &self.books {
            Books::Here(here) => here.bearing(attester),
            Books::There(client) => client.bearing(attester),
        }
    }
}

impl Here {
    fn bearing(&self, attester: &AttesterKey) -> Result<Vec<Evidence>, LookupError> {
        let places = self.bearing_at(attester)?;
        places.into_iter().map(|at| self.evidence(at)).collect()
    }

    /// Keeps statements that were signed to follow what is known of their one feed: all of them, or
    /// none and false, if something else came first.
    pub(crate) fn follow(&self, said: Vec<Signed>) -> Result<bool, KeepError> {
        let mut batch = self.batch();
        for signed in said {
            let Ok(next) = batch.head(&signed.statement().attester)?.follow(&signed) else {
                return Ok(false);
            };
            batch.push(signed, next);
        }
        batch.commit()?;
        Ok(true)
    }

    pub(crate) fn statements(
        &self,
        attester: AttesterKey,
        from: u64,
    ) -> impl Iterator<Item = Result<Signed, LookupError>> + '_ {
        let mut next = Some(from);
        let mut ready = Vec::new().into_iter();
        std::iter::from_fn(move || {
            loop {
                if let Some(at) = ready.next() {
                    return Some(self.signed(at));
                }
                let from = next?;
                match self.indexed(|index| index.statements(&attester, from, BATCH)) {
                    Ok(places) => {
                        next = (places.len() == BATCH).then(|| from + BATCH as u64);
                        ready = places.into_iter();
                        if ready.len() == 0 {
                            return None;
                        }
                    }
                    Err(error) => {
                        next = None;
                        return Some(Err(error.into()));
                    }
                }
            }
        })
    }

    fn batch(&self) -> Batch<'_> {
        Batch {
            here: self,
            heads: self.heads.lock().unwrap_or_else(PoisonError::into_inner),
            grown: BTreeMap::new(),
            facts: Vec::new(),
        }
    }
}

impl Grown {
    /// Which of the facts is the statement at a place, if this batch adds it.
    fn statement(&self, place: u64) -> Option<usize> {
        let first = self.head.len() - self.statements.len() as u64;
        self.statements.get(usize::try_from(place.checked_sub(first)?).ok()?).copied()
    }
}

impl Batch<'_> {
    fn head(&mut self, attester: &AttesterKey) -> Result<Head, LookupError> {
        let grown = self.grown.get(attester).map(|grown| &grown.head);
        if let Some(head) = grown.or_else(|| self.heads.get(attester)) {
            return Ok(*head);
        }
        let head = self.here.last(attester)?.map_or(Head::empty(*attester), |last| Head::behind(&last));
        self.heads.insert(*attester, head);
        Ok(head)
    }

    fn statement(&self, attester: &AttesterKey, place: u64) -> Result<Option<Signed>, LookupError> {
        let fact = self.grown.get(attester).and_then(|grown| grown.statement(place)).map(|n| &self.facts[n]);
        if let Some(Fact::Evidence(Evidence::Statement(signed))) = fact {
            return Ok(Some(signed.clone()));
        }
        let at = self.here.indexed(|index| index.statement(attester, place))?;
        at.map(|at| self.here.signed(at)).transpose()
    }

    fn push(&mut self, signed: Signed, next: Head) {
        let new = || Grown { head: next, statements: Vec::new() };
        let grown = self.grown.entry(next.attester()).or_insert_with(new);
        grown.head = next;
        grown.statements.push(self.facts.len());
        self.facts.push(Fact::Evidence(Evidence::Statement(signed)));
    }

    fn add(&mut self, item: Evidence) -> Result<Kept, LookupError> {
        let signed = match item {
            Evidence::Statement(signed) => signed,
            proof => return self.add_proof(proof),
        };
        let head = self.head(&signed.statement().attester)?;
        let refused = match head.follow(&signed) {
            Ok(next) => {
                self.push(signed, next);
                return Ok(Kept::New);
            }
            Err(refused) => refused,
        };
        // What is heard twice is the last one mostly, and the index need not be asked.
        if !head.is_empty() && head.last() == signed.id() {
            return Ok(Kept::Known);
        }
        let rival = match refused {
            FeedError::Taken { place, .. } => Some(place),
            FeedError::Fork { place, .. } => Some(place - 1),
            FeedError::Attester { .. } | FeedError::Gap { .. } | FeedError::Ended { .. } => None,
        };
        let known = match rival {
            Some(place) => self.statement(&head.attester(), place)?,
            None => None,
        };
        match known {
            Some(known) if known.id() == signed.id() => Ok(Kept::Known),
            Some(known) => match Equivocation::new(known, signed) {
                Ok(proof) => {
                    self.add_proof(Evidence::Equivocation(proof.clone()))?;
                    Ok(Kept::Equivocation(proof))
                }
                Err(_) => Ok(Kept::Refused(refused)),
            },
            None => Ok(Kept::Refused(refused)),
        }
    }

    /// Keeps a proof, unless one is here that says as much: one equivocation ends a key, and the
    /// earliest revocation is the one that counts. So nobody can fill a disk with proofs.
    fn add_proof(&mut self, proof: Evidence) -> Result<Kept, LookupError> {
        let says_as_much = |known: &Evidence| match (known, &proof) {
            (Evidence::Equivocation(known), Evidence::Equivocation(proof)) => {
                known.attester() == proof.attester()
            }
            (Evidence::Revocation(known), Evidence::Revocation(proof)) => {
                known.attester() == proof.attester() && known.since() <= proof.since()
            }
            _ => false,
        };
        let in_batch = self.facts.iter().any(|fact| matches!(fact, Fact::Evidence(e) if says_as_much(e)));
        if in_batch || self.here.bearing(&proof.attester())?.iter().any(says_as_much) {
            return Ok(Kept::Known);
        }
        self.facts.push(Fact::Evidence(proof));
        Ok(Kept::New)
    }

    fn commit(mut self) -> Result<(), RecordError> {
        if self.facts.is_empty() {
            return Ok(());
        }
        let result = self.here.record_all(&self.facts);
        match &result {
            Ok(()) => {
                let about = |fact: &Fact| match fact {
                    Fact::Evidence(evidence) => Some(evidence.attester()),
                    _ => None,
                };
                let mut touched = self.here.touched.lock().unwrap_or_else(PoisonError::into_inner);
                touched.extend(self.facts.iter().filter_map(about));
                self.heads.extend(self.grown.into_iter().map(|(attester, grown)| (attester, grown.head)));
            }
            // How much of it is kept is for the index to say.
            Err(_) => self.heads.clear(),
        }
        result
    }
}
