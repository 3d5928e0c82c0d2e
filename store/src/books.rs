//! The books: journal and index, which one process at a time has open, or the way to that process.
//!
//! Locks are taken in this order: the heads of feeds, the journal's tail, the index, what waits
//! for it. Who has a later one waits for no earlier one.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    sync::{Mutex, PoisonError, RwLock},
};

use protocol::{evidence::Evidence, feed::Head, id::ActionId, key::AttesterKey, statement::Signed};

use crate::{
    Home, IndexError, LookupError, Realisation, RecordError, RecordReadError,
    client::Client,
    fact::{FACT_BYTES, Fact, check_pin},
    index::{Gist, Index, late::Late},
    journal::{Entry, Journal, Location},
    serve::Clients,
};

/// Bytes of facts that are given to the journal at once.
const CHUNK_BYTES: usize = 16 << 20;

/// Where journal and index are.
pub(crate) enum Books {
    /// In this process, which has them for itself.
    Here(Box<Here>),
    /// In the process that serves them to us.
    There(Client),
}

/// Journal and index, open.
pub(crate) struct Here {
    pub(crate) home: Home,
    /// `None` only while it is replaced, or if that failed.
    pub(crate) index: RwLock<Option<Late>>,
    pub(crate) journal: Journal,
    /// Where the feeds end that were asked for; held while something is added to any.
    pub(crate) heads: Mutex<BTreeMap<AttesterKey, Head>>,
    /// Whose feeds or proofs have grown since [`crate::Store::touched`] was last asked.
    pub(crate) touched: Mutex<BTreeSet<AttesterKey>>,
    /// Held by the one sweep that runs.
    pub(crate) sweeping: Mutex<()>,
    /// Who is being served.
    pub(crate) clients: Clients,
    /// Locked; the last to be dropped.
    _lock: File,
}

impl Here {
    pub(crate) fn new(home: Home, index: Late, journal: Journal, lock: File) -> Self {
        Self {
            home,
            index: RwLock::new(Some(index)),
            journal,
            heads: Mutex::default(),
            touched: Mutex::default(),
            sweeping: Mutex::default(),
            clients: Clients::default(),
            _lock: lock,
        }
    }

    /// Asks the index, which has all that was recorded before. If it fails, it is rebuilt at the next
    /// opening.
    pub(crate) fn indexed<T>(
        &self,
        f: impl FnOnce(&Index) -> Result<T, IndexError>,
    ) -> Result<T, IndexError> {
        self.with_index(|index| f(index.all()?))
    }

    /// Where the evidence is that bears on what a key's word is worth.
    pub(crate) fn bearing_at(&self, attester: &AttesterKey) -> Result<Vec<Location>, IndexError> {
        self.with_index(|index| index.bearing(attester))
    }

    fn with_index<T>(&self, f: impl FnOnce(&Late) -> Result<T, IndexError>) -> Result<T, IndexError> {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        let result = index.as_ref().ok_or(IndexError::Absent).and_then(f);
        if result.is_err() {
            // While it cannot be replaced by another one.
            self.home.condemn_index();
        }
        result
    }

    /// As [`crate::Store::record_all`].
    pub(crate) fn record_all(&self, facts: &[Fact]) -> Result<(), RecordError> {
        let entries = entries(facts, |id| Ok(self.knows(id)?))?;
        in_chunks(entries, CHUNK_BYTES, usize::MAX, |chunk| self.append(chunk))
    }

    fn append(&self, entries: Vec<Entry>) -> Result<(), RecordError> {
        let mut indexed = Ok(());
        self.journal.append(entries, |placed| indexed = self.with_index(|index| index.wait(placed)))?;
        indexed.map_err(RecordError::Unindexed)
    }

    /// Whether an action is recorded.
    pub(crate) fn knows(&self, id: &ActionId) -> Result<bool, IndexError> {
        self.indexed(|index| index.action(id)).map(|at| at.is_some())
    }

    /// Where the latest realisation of every action is, the latest recorded first.
    pub(crate) fn latest(&self) -> Result<Vec<Location>, IndexError> {
        self.indexed(Index::latest)
    }

    pub(crate) fn built(&self, at: Location) -> Result<Realisation, RecordReadError> {
        match self.journal.read(at)? {
            Fact::Built(built) => Ok(built),
            _ => Err(other(at)),
        }
    }

    pub(crate) fn evidence(&self, at: Location) -> Result<Evidence, LookupError> {
        match self.journal.read(at)? {
            Fact::Evidence(evidence) => Ok(evidence),
            _ => Err(other(at).into()),
        }
    }

    pub(crate) fn signed(&self, at: Location) -> Result<Signed, LookupError> {
        match self.evidence(at)? {
            Evidence::Statement(signed) => Ok(signed),
            _ => Err(other(at).into()),
        }
    }

    /// The last statement of a feed.
    pub(crate) fn last(&self, attester: &AttesterKey) -> Result<Option<Signed>, LookupError> {
        let at = self.indexed(|index| index.last_statement(attester))?;
        at.map(|at| self.signed(at)).transpose()
    }
}

impl Drop for Here {
    /// Applies what waits, or there would be something to replay when the store is next opened.
    fn drop(&mut self) {
        let _ = self.indexed(|_| Ok(()));
    }
}

/// Checks facts that are to be recorded in this order, and encodes those that are not known yet.
pub(crate) fn entries(
    facts: &[Fact],
    mut knows: impl FnMut(&ActionId) -> Result<bool, RecordError>,
) -> Result<Vec<Entry>, RecordError> {
    let mut entries = Vec::new();
    let mut actions = BTreeSet::new();
    for fact in facts {
        let gist = Gist::of(fact);
        match (&gist, fact) {
            // Once is enough.
            (Gist::Action(id), _) if !actions.insert(*id) || knows(id)? => continue,
            (Gist::Built { action, .. }, _) if !actions.contains(action) && !knows(action)? => {
                return Err(RecordError::ActionMissing { action: *action });
            }
            (_, Fact::Pinned { name, nars }) => check_pin(name, nars.len())?,
            (_, Fact::Unpinned { name }) => check_pin(name, 0)?,
            _ => {}
        }
        let payload = fact.to_bytes();
        // What is signed was read from such bytes, or would not have been signed.
        if !matches!(fact, Fact::Evidence(_)) {
            Fact::from_bytes(&payload).map_err(RecordError::Refused)?;
        }
        entries.push(Entry { payload, gist });
    }
    Ok(entries)
}

/// Gives entries away in their order, in chunks of about `bytes` and at most `count`.
pub(crate) fn in_chunks(
    entries: Vec<Entry>,
    bytes: usize,
    count: usize,
    mut give: impl FnMut(Vec<Entry>) -> Result<(), RecordError>,
) -> Result<(), RecordError> {
    let mut entries = entries.into_iter().peekable();
    while entries.peek().is_some() {
        let (mut size, mut taken) = (0, 0);
        let chunk = std::iter::from_fn(|| {
            size += entries.peek()?.payload.len();
            taken += 1;
            let full = size > bytes.max(FACT_BYTES) || taken > count;
            if full { None } else { entries.next() }
        });
        give(chunk.collect())?;
    }
    Ok(())
}

pub(crate) fn other(at: Location) -> RecordReadError {
    RecordReadError::Other { segment: at.segment, offset: at.offset }
}
