//! The index: where in the journal each fact lies. It can be deleted at any time (SPEC §9.4).
//!
//! One sled tree, in which the mark of how far the journal is applied comes last. Integers are
//! big-endian, so that keys sort as numbers do.
//!
//! ```text
//! key                          value
//! 'a' action                   location of its Action        (12 bytes: segment, offset, length)
//! 'r' action                   location of its latest Built
//! 'o' location of a Built      action
//! 'm' nar action               location of a Built
//! 'p' name of a pin            location of its Pinned
//! 's' attester place/64        locations of the statements at 64 places of a feed, one after the other;
//!                              zeros where there is none
//! 'c' claim                    statements that speak of actions, by action: see `claims.rs`
//! 'd' action                   nothing: not all of them say the same of it
//! 'k' attester location        nothing: that evidence bears on what the key's word is worth
//! '!'                          Applied
//! ```
//!
//! What is known of sled 0.34.7 shapes this module: its flush is no fsync, so the index is believed
//! only if it cannot have lived through a power cut since it was last synced; it can panic on
//! damaged files, so every call is made under `catch_unwind`; values beyond 4 KiB can leak for
//! ever, so there are none; and it can stand still for ever if seven writes of its log are due at
//! once, so it is never given so much ([`AT_ONCE`]).

mod changes;
pub(crate) mod claims;
pub(crate) mod late;

use std::{
    collections::{BTreeSet, HashSet},
    fs::OpenOptions,
    io::{self, Read as _},
    ops::{Range, RangeInclusive},
    os::unix::fs::FileExt as _,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use protocol::{
    evidence::Evidence,
    id::{ActionId, NarHash},
    key::AttesterKey,
    statement::Body,
};

use self::{
    changes::Changes,
    claims::{Claim, Outcome},
};
use crate::{
    fact::Fact,
    journal::{Location, Placed},
};

/// Changes with the table above; an index of another version is rebuilt.
const VERSION: u8 = 3;

/// sled's default cache is 1 GiB.
const CACHE_BYTES: u64 = 64 << 20;

/// Entries that sled is given at once, and as many more if blocks are split; before it is given more, it
/// has to have written these.
///
/// Each segment of its log that is full (512 KiB), and what else is due of it, is written by one of seven
/// threads, which then waits for the lock of the segments' accounts. Who needs the next segment may
/// hold that lock, and wait for one of the seven to shorten the file. So sled stands still for ever if
/// seven writes were due before that; and there were fourteen of 4,096 entries, and a thousand of as
/// many one by one. An entry costs 1 to 2 KiB of log, and 10 KiB when others are moved for it.
const AT_ONCE: usize = 64;

/// Places of a feed whose statements are in one entry: a feed is dense, and each entry of sled's costs
/// as much as decoding ten statements. 768 bytes.
const BLOCK: u64 = 64;

/// Bytes of a location.
const LOCATION_BYTES: usize = 12;

/// How often opening is tried again while sled's lock is held, and the pause in between: 1 s.
const LOCK_TRIES: u32 = 200;
const LOCK_PAUSE: std::time::Duration = std::time::Duration::from_millis(5);

/// Why the index did not answer. It holds nothing that the journal does not: rebuild it.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// sled says so.
    #[error("the index failed")]
    Sled(#[source] sled::Error),
    /// sled panicked, as it does on some damage.
    #[error("the index is damaged: sled panicked")]
    Panicked,
    /// It failed before, and is of no use until the store is opened again.
    #[error("the index is closed, because it failed before")]
    Absent,
    /// A value has another form than the one it is written in.
    #[error("the index is damaged: a value has the wrong form")]
    Value,
}

impl IndexError {
    /// Whether the files are damaged, and not just the disk full or out of reach.
    pub(crate) fn is_damage(&self) -> bool {
        match self {
            Self::Panicked | Self::Absent | Self::Value => true,
            // The operating system's own words; sled's say `Other` or `UnexpectedEof`.
            Self::Sled(sled::Error::Io(e)) => e.raw_os_error().is_none(),
            Self::Sled(_) => true,
        }
    }
}

/// What the index needs to know of a fact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Gist {
    Built { action: ActionId, nars: Vec<NarHash> },
    Action(ActionId),
    Pinned(String),
    Unpinned(String),
    Statement { attester: AttesterKey, place: u64, claim: Option<(ActionId, Outcome)>, bears: bool },
    Bearing(AttesterKey),
}

impl Gist {
    pub(crate) fn of(fact: &Fact) -> Self {
        match fact {
            Fact::Built(built) => {
                let nars = built.outputs.values().map(|output| output.nar).collect();
                Self::Built { action: built.action, nars }
            }
            Fact::Action(action) => Self::Action(action.id()),
            Fact::Pinned { name, .. } => Self::Pinned(name.clone()),
            Fact::Unpinned { name } => Self::Unpinned(name.clone()),
            Fact::Evidence(Evidence::Statement(signed)) => {
                let statement = signed.statement();
                Self::Statement {
                    attester: statement.attester,
                    place: statement.seq,
                    claim: Outcome::of(statement),
                    bears: matches!(statement.body, Body::Retract { .. } | Body::Succeed { .. }),
                }
            }
            Fact::Evidence(other) => Self::Bearing(other.attester()),
        }
    }
}

/// How far the journal is applied, and how to see that it is this journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Applied {
    /// The journal's id.
    pub(crate) journal: [u8; 16],
    /// Its last record that is applied.
    pub(crate) last: Location,
    /// The checksum of that record.
    pub(crate) crc: u32,
    /// When it was applied: the id of the machine's boot, zeros if unknown.
    pub(crate) boot: [u8; 16],
}

pub(crate) struct Index {
    /// `None` only while it is dropped.
    db: Option<sled::Db>,
    /// Beside the index: the `Applied` up to which it was synced when it was last closed.
    synced: PathBuf,
    boot: [u8; 16],
    dirty: AtomicBool,
}

const ACTION: u8 = b'a';
const REALISATION: u8 = b'r';
const ORDER: u8 = b'o';
const MAKER: u8 = b'm';
const PIN: u8 = b'p';
const STATEMENT: u8 = b's';
const CLAIM: u8 = b'c';
const DIVIDED: u8 = b'd';
const BEARING: u8 = b'k';
const APPLIED: &[u8] = b"!";

impl Index {
    /// Opens or creates the index in `dir`; `synced` is a small file beside it.
    pub(crate) fn open(dir: &Path, synced: PathBuf) -> Result<Self, IndexError> {
        let config = sled::Config::new().path(dir).cache_capacity(CACHE_BYTES).flush_every_ms(None);
        let mut patience = LOCK_TRIES;
        let db = loop {
            match guarded(|| config.open()) {
                // A sled that was closed a moment ago may hold its lock for a little longer, in a
                // thread of its own; its error for that is of no kind.
                Err(IndexError::Sled(sled::Error::Io(e)))
                    if e.kind() == io::ErrorKind::Other && patience > 0 =>
                {
                    patience -= 1;
                    std::thread::sleep(LOCK_PAUSE);
                }
                other => break other?,
            }
        };
        Ok(Self { db: Some(db), synced, boot: boot_id(), dirty: AtomicBool::new(false) })
    }

    fn ask<T>(&self, f: impl FnOnce(&sled::Db) -> sled::Result<T>) -> Result<T, IndexError> {
        match &self.db {
            Some(db) => guarded(|| f(db)),
            None => Err(IndexError::Absent),
        }
    }

    /// How far the journal is applied; `None` if nothing is, or if that cannot be believed.
    pub(crate) fn applied(&self) -> Result<Option<Applied>, IndexError> {
        let Some(value) = self.ask(|db| db.get(APPLIED))? else { return Ok(None) };
        if value.first() != Some(&VERSION) {
            return Ok(None);
        }
        let applied = Applied::read(&value).ok_or(IndexError::Value)?;
        let this_boot = applied.boot == self.boot && self.boot != [0; 16];
        let synced = || std::fs::read(&self.synced).is_ok_and(|mark| value == mark);
        Ok((this_boot || synced()).then_some(applied))
    }

    /// Whether nothing was ever applied to it.
    pub(crate) fn is_empty(&self) -> bool {
        self.ask(|db| Ok(db.is_empty())).unwrap_or(false)
    }

    /// Applies records, in the order of the journal. What they change is written in several batches, if it
    /// is much, and the mark behind them in the last: what was written without it is written again
    /// when the journal is replayed.
    pub(crate) fn apply(&self, journal: [u8; 16], records: &[Placed]) -> Result<(), IndexError> {
        let mut records = records.iter();
        while let Some(parts) = self.changes(journal, &mut records)? {
            parts.into_iter().try_for_each(|part| self.write(part))?;
        }
        Ok(())
    }

    /// What the next records change, in parts; `None` if there are no more.
    fn changes<'r>(
        &self,
        journal: [u8; 16],
        records: &mut impl Iterator<Item = &'r Placed>,
    ) -> Result<Option<Vec<sled::Batch>>, IndexError> {
        let (mut changes, mut last) = (Changes::new(self), None);
        while !changes.are_many()
            && let Some(record) = records.next()
        {
            changes.add(record)?;
            last = Some(record);
        }
        let applied = |last: &Placed| Applied { journal, last: last.at, crc: last.crc, boot: self.boot };
        Ok(last.map(|last| changes.finish(&applied(last))))
    }

    fn write(&self, batch: sled::Batch) -> Result<(), IndexError> {
        self.dirty.store(true, Relaxed);
        self.ask(|db| db.flush().and_then(|_| db.apply_batch(batch)))
    }

    pub(crate) fn action(&self, id: &ActionId) -> Result<Option<Location>, IndexError> {
        self.location(&key(ACTION, id.as_bytes()))
    }

    pub(crate) fn realisation(&self, id: &ActionId) -> Result<Option<Location>, IndexError> {
        self.location(&key(REALISATION, id.as_bytes()))
    }

    pub(crate) fn pin(&self, name: &str) -> Result<Option<Location>, IndexError> {
        self.location(&key(PIN, name.as_bytes()))
    }

    pub(crate) fn maker(&self, nar: &NarHash, id: &ActionId) -> Result<Option<Location>, IndexError> {
        self.location(&[&[MAKER], &nar.as_bytes()[..], id.as_bytes()].concat())
    }

    pub(crate) fn order(&self, at: Location) -> Result<Option<ActionId>, IndexError> {
        let value = self.ask(|db| db.get(key(ORDER, &location_bytes(at))))?;
        value.map(|v| id_at(&v, 0).map(ActionId::from_bytes)).transpose()
    }

    fn location(&self, key: &[u8]) -> Result<Option<Location>, IndexError> {
        let value = self.ask(|db| db.get(key))?;
        value.map(|v| read_location(&v).ok_or(IndexError::Value)).transpose()
    }

    /// The latest `Built` of every action, the latest first; of one that is recorded meanwhile, this or
    /// the one before it.
    pub(crate) fn latest(&self) -> Result<Vec<Location>, IndexError> {
        let (mut seen, mut latest) = (HashSet::new(), Vec::new());
        for entry in self.scan(vec![ORDER], true) {
            let (key, action) = entry?;
            if seen.insert(id_at(&action, 0)?) {
                latest.push(read_location(&key[1..]).ok_or(IndexError::Value)?);
            }
        }
        Ok(latest)
    }

    /// The actions that made an archive, in the order of their ids.
    pub(crate) fn makers(&self, nar: &NarHash) -> Result<Vec<ActionId>, IndexError> {
        self.scan(key(MAKER, nar.as_bytes()), false)
            .map(|entry| id_at(&entry?.0, 33).map(ActionId::from_bytes))
            .collect()
    }

    /// Every pin with the place of its fact.
    pub(crate) fn pins(&self) -> Result<Vec<(String, Location)>, IndexError> {
        let pin = |entry: Result<Pair, IndexError>| {
            let (key, value) = entry?;
            let name = String::from_utf8(key[1..].to_vec()).map_err(|_| IndexError::Value)?;
            Ok((name, read_location(&value).ok_or(IndexError::Value)?))
        };
        self.scan(vec![PIN], false).map(pin).collect()
    }

    /// Where a statement is.
    pub(crate) fn statement(
        &self,
        attester: &AttesterKey,
        place: u64,
    ) -> Result<Option<Location>, IndexError> {
        let block = self.ask(|db| db.get(block_key(attester, place)))?;
        let Some(at) = block.as_ref().and_then(|places| places.get(slot(place))) else { return Ok(None) };
        if is_none(at) { Ok(None) } else { read_location(at).map(Some).ok_or(IndexError::Value) }
    }

    /// The last statement of a feed.
    pub(crate) fn last_statement(&self, attester: &AttesterKey) -> Result<Option<Location>, IndexError> {
        let last = self.scan(key(STATEMENT, attester.as_bytes()), true).next().transpose()?;
        let at = |places: &[u8]| read_location(places.last_chunk::<LOCATION_BYTES>()?);
        last.map(|(_, places)| at(&places).ok_or(IndexError::Value)).transpose()
    }

    /// The statements of a feed from a place on, at most `limit`.
    pub(crate) fn statements(
        &self,
        attester: &AttesterKey,
        from: u64,
        limit: usize,
    ) -> Result<Vec<Location>, IndexError> {
        let range = block_key(attester, from)..=block_key(attester, u64::MAX);
        let mut found = Vec::new();
        let mut blocks = self.entries_in(range);
        while let Some((key, places)) = blocks.next().transpose()?.filter(|_| found.len() < limit) {
            let block = read_block(&key[1..], &places).ok_or(IndexError::Value)?;
            found.extend(block.into_iter().filter(|(_, place, _)| *place >= from).map(|(.., at)| at));
        }
        found.truncate(limit);
        Ok(found)
    }

    /// The attesters of whom there is a statement, or evidence against their key, behind `after`.
    pub(crate) fn attesters(&self, after: Option<&AttesterKey>) -> Result<Vec<AttesterKey>, IndexError> {
        let mut found = BTreeSet::new();
        for kind in [STATEMENT, BEARING] {
            let mut from = match after {
                Some(after) => [&[kind], &after.as_bytes()[..], &[0xff; 13]].concat(),
                None => vec![kind],
            };
            loop {
                let next = self.ask(|db| db.range(from.clone()..vec![kind + 1]).keys().next().transpose())?;
                let Some(next) = next else { break };
                let attester = AttesterKey::from_bytes(id_at(&next, 1)?);
                found.insert(attester);
                // Behind all that is known of this one.
                from = [&[kind], &attester.as_bytes()[..], &[0xff; 13]].concat();
            }
        }
        Ok(found.into_iter().collect())
    }

    /// What is said of an action, in the order of the journal.
    pub(crate) fn claims(&self, id: &ActionId) -> Result<Vec<Claim>, IndexError> {
        self.claims_while(id, || ())
    }

    /// `meanwhile`: called between two blocks.
    fn claims_while(&self, id: &ActionId, mut meanwhile: impl FnMut()) -> Result<Vec<Claim>, IndexError> {
        let mut found: Vec<Claim> = Vec::new();
        let Some((first, _)) = self.block_around(&key(CLAIM, id.as_bytes()))? else { return Ok(found) };
        // Forward: sled's iterator has read some entries before it gives them, and who splits a block
        // meanwhile moves claims up. They may come twice then, but none is overlooked.
        for entry in self.entries_in(first.to_vec()..=claims::behind(id)) {
            for claim in claims::read(&entry?.1).ok_or(IndexError::Value)? {
                if claim.action == *id && found.last().is_none_or(|last| last.at < claim.at) {
                    found.push(claim);
                }
            }
            meanwhile();
        }
        Ok(found)
    }

    /// Whether a claim is there, and then the one before it about the same action.
    pub(crate) fn claim(&self, claim: &Claim) -> Result<Option<Option<Claim>>, IndexError> {
        let Some((first, block)) = self.block_around(&claim.key())? else { return Ok(None) };
        let block = claims::read(&block).ok_or(IndexError::Value)?;
        let Some(at) = block.iter().position(|known| known == claim) else { return Ok(None) };
        let before = match at.checked_sub(1) {
            Some(at) => Some(block[at]),
            None => {
                let before = self.ask(|db| db.range(&[CLAIM][..]..&first[..]).next_back().transpose())?;
                let before = before.map(|(_, block)| claims::read(&block).ok_or(IndexError::Value));
                before.transpose()?.and_then(|block| block.last().copied())
            }
        };
        Ok(Some(before.filter(|before| before.action == claim.action)))
    }

    /// The actions of which somebody spoke.
    pub(crate) fn claimed(&self) -> Result<Vec<ActionId>, IndexError> {
        let mut found = Vec::new();
        for entry in self.scan(vec![CLAIM], false) {
            let block = claims::read(&entry?.1).ok_or(IndexError::Value)?;
            for claim in block {
                // Also if the block was split just now, and its upper half comes again.
                if found.last().is_none_or(|last| *last < claim.action) {
                    found.push(claim.action);
                }
            }
        }
        Ok(found)
    }

    /// The actions of which not everybody said the same.
    pub(crate) fn divided(&self) -> Result<Vec<ActionId>, IndexError> {
        self.scan(vec![DIVIDED], false).map(|entry| id_at(&entry?.0, 1).map(ActionId::from_bytes)).collect()
    }

    /// Whether not everybody said the same of an action.
    pub(crate) fn is_divided(&self, id: &ActionId) -> Result<bool, IndexError> {
        self.ask(|db| db.contains_key(key(DIVIDED, id.as_bytes())))
    }

    /// The last block of claims whose key is not behind `key`.
    fn block_around(&self, key: &[u8]) -> Result<Option<Pair>, IndexError> {
        self.ask(|db| db.range(&[CLAIM][..]..=key).next_back().transpose())
    }

    /// The evidence that bears on what a key's word is worth, in the order in which it came.
    pub(crate) fn bearing(&self, attester: &AttesterKey) -> Result<Vec<Location>, IndexError> {
        self.scan(key(BEARING, attester.as_bytes()), false)
            .map(|entry| read_location(&entry?.0[33..]).ok_or(IndexError::Value))
            .collect()
    }

    /// The first `limit` actions from `low` to `high`.
    pub(crate) fn actions_between(
        &self,
        low: &[u8; 32],
        high: &[u8; 32],
        limit: usize,
    ) -> Result<Vec<ActionId>, IndexError> {
        let range = key(ACTION, low)..=key(ACTION, high);
        let found = self.ask(|db| db.range(range).keys().take(limit).collect::<Result<Vec<_>, _>>())?;
        found.iter().map(|key| id_at(key, 1).map(ActionId::from_bytes)).collect()
    }

    /// Archives from `low` to `high` that facts speak of, at most `limit` of them.
    pub(crate) fn nars_between(
        &self,
        low: &[u8; 32],
        high: &[u8; 32],
        limit: usize,
    ) -> Result<Vec<NarHash>, IndexError> {
        let (mut from, end) = (key(MAKER, low), [&[MAKER], &high[..], &[0xff; 33]].concat());
        let mut found = Vec::new();
        while found.len() < limit {
            let next = self.ask(|db| db.range(from.clone()..end.clone()).keys().next().transpose())?;
            let Some(next) = next else { break };
            let nar = id_at(&next, 1)?;
            found.push(NarHash::from_bytes(nar));
            // Behind all makers of this one.
            from = [&[MAKER], &nar[..], &[0xff; 33]].concat();
        }
        Ok(found)
    }

    /// Every entry but the mark, taken apart: for verification.
    pub(crate) fn entries(&self) -> impl Iterator<Item = Result<IndexEntry, IndexError>> + '_ {
        self.scan(Vec::new(), false)
            .filter(|entry| !matches!(entry, Ok((key, _)) if **key == *APPLIED))
            .flat_map(|entry| match entry.map(|(key, value)| IndexEntry::read(&key, &value)) {
                Ok(Some(entries)) => entries.into_iter().map(Ok).collect(),
                Ok(None) => vec![Err(IndexError::Value)],
                Err(error) => vec![Err(error)],
            })
    }

    fn scan(&self, prefix: Vec<u8>, backwards: bool) -> impl Iterator<Item = Result<Pair, IndexError>> + '_ {
        guarded_iter(self.ask(|db| Ok(db.scan_prefix(prefix))), backwards)
    }

    fn entries_in(
        &self,
        keys: RangeInclusive<Vec<u8>>,
    ) -> impl Iterator<Item = Result<Pair, IndexError>> + '_ {
        guarded_iter(self.ask(|db| Ok(db.range(keys))), false)
    }
}

/// A key and its value.
type Pair = (sled::IVec, sled::IVec);

/// Ends behind the first error.
fn guarded_iter(
    mut iter: Result<sled::Iter, IndexError>,
    backwards: bool,
) -> impl Iterator<Item = Result<Pair, IndexError>> {
    let mut failed = false;
    std::iter::from_fn(move || {
        if failed {
            return None;
        }
        let next = match &mut iter {
            Ok(iter) => {
                guarded(|| if backwards { iter.next_back() } else { iter.next() }.transpose()).transpose()
            }
            Err(_) => Some(Err(IndexError::Panicked)),
        };
        failed = matches!(next, Some(Err(_)));
        next
    })
}

impl Drop for Index {
    /// Closes sled, which writes out and syncs its file, and notes up to where that was.
    fn drop(&mut self) {
        let dirty = self.dirty.load(Relaxed);
        let mark = if dirty { self.ask(|db| db.get(APPLIED)).ok().flatten() } else { None };
        let db = self.db.take();
        // sled panics if its sync fails.
        let closed = catch_unwind(AssertUnwindSafe(move || drop(db))).is_ok();
        if let (true, Some(mark)) = (closed, mark) {
            // If this is lost, the next boot rebuilds the index: no harm.
            // Overwritten in place: shortening a file makes some file systems write it out at once.
            let file = OpenOptions::new().write(true).create(true).truncate(false).open(&self.synced);
            let _ = file.and_then(|file| file.write_all_at(&mark, 0));
        }
    }
}

/// One entry, for verification.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum IndexEntry {
    Action(ActionId, Location),
    Realisation(ActionId, Location),
    Order(Location, ActionId),
    Maker(NarHash, ActionId, Location),
    Pin(String, Location),
    Statement(AttesterKey, u64, Location),
    Claim(Claim),
    Divided(ActionId),
    Bearing(AttesterKey, Location),
}

impl IndexEntry {
    /// What an entry says; of a block, each thing in it.
    fn read(key: &[u8], value: &[u8]) -> Option<Vec<Self>> {
        let (kind, rest) = key.split_first()?;
        let action = |bytes: &[u8]| Some(ActionId::from_bytes(bytes.try_into().ok()?));
        Some(vec![match *kind {
            ACTION => Self::Action(action(rest)?, read_location(value)?),
            REALISATION => Self::Realisation(action(rest)?, read_location(value)?),
            ORDER => Self::Order(read_location(rest)?, action(value)?),
            MAKER => {
                let (nar, rest) = rest.split_first_chunk::<32>()?;
                Self::Maker(NarHash::from_bytes(*nar), action(rest)?, read_location(value)?)
            }
            STATEMENT => {
                let block = read_block(rest, value)?.into_iter();
                return Some(
                    block.map(|(attester, place, at)| Self::Statement(attester, place, at)).collect(),
                );
            }
            CLAIM => return Some(claims::read(value)?.into_iter().map(Self::Claim).collect()),
            DIVIDED => Self::Divided(action(rest)?),
            BEARING => {
                let (attester, at) = rest.split_first_chunk::<32>()?;
                Self::Bearing(AttesterKey::from_bytes(*attester), read_location(at)?)
            }
            PIN => Self::Pin(String::from_utf8(rest.to_vec()).ok()?, read_location(value)?),
            _ => return None,
        }])
    }
}

impl Applied {
    fn bytes(&self) -> Vec<u8> {
        [&[VERSION], &self.journal[..], &location_bytes(self.last), &self.crc.to_be_bytes(), &self.boot]
            .concat()
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (_version, rest) = bytes.split_first()?;
        let (journal, rest) = rest.split_first_chunk::<16>()?;
        let (last, rest) = rest.split_first_chunk::<12>()?;
        let (crc, rest) = rest.split_first_chunk::<4>()?;
        Some(Self {
            journal: *journal,
            last: read_location(last)?,
            crc: u32::from_be_bytes(*crc),
            boot: rest.try_into().ok()?,
        })
    }
}

fn guarded<T>(f: impl FnOnce() -> sled::Result<T>) -> Result<T, IndexError> {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(result) => result.map_err(IndexError::Sled),
        Err(_) => Err(IndexError::Panicked),
    }
}

fn key(kind: u8, rest: &[u8]) -> Vec<u8> {
    [&[kind], rest].concat()
}

/// Of the statements at [`BLOCK`] places of a feed, `place` among them.
fn block_key(attester: &AttesterKey, place: u64) -> Vec<u8> {
    [&[STATEMENT], &attester.as_bytes()[..], &(place / BLOCK).to_be_bytes()].concat()
}

/// Where in its block the location of a statement is.
fn slot(place: u64) -> Range<usize> {
    let start = (place % BLOCK) as usize * LOCATION_BYTES;
    start..start + LOCATION_BYTES
}

/// Whether nothing is there.
fn is_none(slot: &[u8]) -> bool {
    slot.iter().all(|byte| *byte == 0)
}

/// The statements of a block, by what comes behind the kind in its key, and its value.
fn read_block(key: &[u8], places: &[u8]) -> Option<Vec<(AttesterKey, u64, Location)>> {
    let (attester, block) = read_placed(key)?;
    let slots = places.chunks(LOCATION_BYTES).enumerate().filter(|(_, at)| !is_none(at));
    let first = block.checked_mul(BLOCK)?;
    slots.map(|(n, at)| Some((attester, first.checked_add(n as u64)?, read_location(at)?))).collect()
}

fn read_placed(bytes: &[u8]) -> Option<(AttesterKey, u64)> {
    let (attester, place) = bytes.split_first_chunk::<32>()?;
    Some((AttesterKey::from_bytes(*attester), u64::from_be_bytes(place.try_into().ok()?)))
}

fn id_at(key: &[u8], at: usize) -> Result<[u8; 32], IndexError> {
    key.get(at..).and_then(|rest| rest.first_chunk::<32>()).copied().ok_or(IndexError::Value)
}

pub(crate) fn location_bytes(at: Location) -> [u8; LOCATION_BYTES] {
    let mut bytes = [0; LOCATION_BYTES];
    bytes[..4].copy_from_slice(&at.segment.to_be_bytes());
    bytes[4..8].copy_from_slice(&at.offset.to_be_bytes());
    bytes[8..].copy_from_slice(&at.len.to_be_bytes());
    bytes
}

pub(crate) fn read_location(bytes: &[u8]) -> Option<Location> {
    let bytes: &[u8; LOCATION_BYTES] = bytes.try_into().ok()?;
    let at = |i: usize| u32::from_be_bytes([bytes[i], bytes[i + 1], bytes[i + 2], bytes[i + 3]]);
    let location = Location { segment: at(0), offset: at(4), len: at(8) };
    // What follows may compute where it ends.
    location.offset.checked_add(location.len)?.checked_add(64)?;
    Some(location)
}

/// Removes what sled 0.34.7 stumbles over when it is opened: snapshots that were being written
/// when their process died, which it would take for whole ones. Returns how many.
pub(crate) fn remove_torn_snapshots(dir: &Path) -> io::Result<usize> {
    let mut removed = 0;
    let entries = match std::fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(0),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_string_lossy().ends_with(".generating") {
            std::fs::remove_file(entry.path())?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Which boot of the machine this is; zeros if it does not say.
fn boot_id() -> [u8; 16] {
    #[cfg(test)]
    if let Some(simulated) = crate::power::boot() {
        return simulated;
    }
    let read = || -> Option<[u8; 16]> {
        let mut text = String::new();
        let file = std::fs::File::open("/proc/sys/kernel/random/boot_id").ok()?;
        file.take(64).read_to_string(&mut text).ok()?;
        let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
        let bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect();
        bytes.try_into().ok()
    };
    read().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After another boot, only what was synced before is believed.
    #[test]
    fn a_boot_between() {
        let dir = tempfile::tempdir().unwrap();
        let (path, mark) = (dir.path().join("index"), dir.path().join("mark"));
        let open = |boot| {
            let mut index = Index::open(&path, mark.clone()).unwrap();
            index.boot = [boot; 16];
            index
        };
        let record = |offset| Placed {
            at: Location { segment: 1, offset, len: 10 },
            crc: 7,
            gist: Gist::Unpinned("x".into()),
        };
        let index = open(1);
        assert_eq!(index.applied().unwrap(), None);
        index.apply([5; 16], &[record(40)]).unwrap();
        // Within one boot, a crash of the process takes nothing away.
        assert_eq!(index.applied().unwrap().unwrap().last.offset, 40);
        drop(index);
        assert_eq!(open(2).applied().unwrap().unwrap().last.offset, 40);
        let index = open(2);
        index.apply([5; 16], &[record(80)]).unwrap();
        drop(index);
        // As if the machine had gone down before it was closed.
        std::fs::remove_file(&mark).unwrap();
        assert_eq!(open(2).applied().unwrap().unwrap().last.offset, 80);
        assert_eq!(open(3).applied().unwrap(), None);
    }
    /// Bytes that this process gave the system to write.
    #[cfg(target_os = "linux")]
    fn written() -> usize {
        let io = std::fs::read_to_string("/proc/self/io").unwrap();
        let line = io.lines().find_map(|line| line.strip_prefix("wchar: ")).unwrap();
        line.parse().unwrap()
    }

    fn id(n: u32) -> [u8; 32] {
        *blake3::hash(&n.to_le_bytes()).as_bytes()
    }

    fn said(n: u32, action: [u8; 32]) -> Placed {
        Placed {
            at: Location { segment: 1, offset: n * 100, len: 10 },
            crc: n,
            gist: Gist::Statement {
                attester: AttesterKey::from_bytes(id(n % 3000)),
                place: u64::from(n / 3000),
                claim: Some((ActionId::from_bytes(action), Outcome::number(1))),
                bears: false,
            },
        }
    }

    /// Others add claims to a block, which is split, while somebody reads the next one.
    #[test]
    fn no_claim_is_overlooked_meanwhile() {
        let dir = tempfile::tempdir().unwrap();
        let index = Index::open(&dir.path().join("index"), dir.path().join("mark")).unwrap();
        let mut n = 0;
        let mut say = |action| {
            n += 1;
            said(n, action)
        };
        // An action, and one whose claims come right before its own.
        let last = |n, byte| {
            let mut action = id(n);
            action[31] = byte;
            action
        };
        let pairs: Vec<_> = (0..300).map(|n| (last(n, 1), last(n, 0))).collect();
        for round in 0..20 {
            let mut records = Vec::new();
            for (action, before) in &pairs {
                records.push(say(*action));
                if round < 3 {
                    records.push(say(*before));
                }
            }
            index.apply([1; 16], &records).unwrap();
        }
        for (action, before) in &pairs {
            let action = ActionId::from_bytes(*action);
            let mut steps = 0;
            let meanwhile = || {
                steps += 1;
                if steps < 3 {
                    let more: Vec<_> = (0..16).map(|_| say(*before)).collect();
                    index.apply([1; 16], &more).unwrap();
                }
            };
            let found = index.claims_while(&action, meanwhile).unwrap();
            assert_eq!(found.len(), 20);
            assert_eq!(found, index.claims(&action).unwrap());
        }
    }

    /// In a process of its own, since the others write as well.
    #[cfg(target_os = "linux")]
    #[test]
    fn child_writes() {
        let Some(home) = std::env::var_os("INDEX_HOME").map(PathBuf::from) else { return };
        let index = Index::open(&home.join("index"), home.join("mark")).unwrap();
        let mut most = 0;
        let mut write = |records: &[Placed]| {
            let mut records = records.iter();
            while let Some(parts) = index.changes([1; 16], &mut records).unwrap() {
                for part in parts {
                    let before = written();
                    index.write(part).unwrap();
                    index.ask(|db| db.flush()).unwrap();
                    most = most.max(written() - before);
                }
            }
        };
        // All over the keys; in their order; and of one action alone, and then of one block.
        write(&(0..20_000).map(|n| said(n, id(n))).collect::<Vec<_>>());
        let ascending = |n: u32| std::array::from_fn(|at| n.to_be_bytes().get(at).copied().unwrap_or(7));
        write(&(20_000..30_000).map(|n| said(n, ascending(n))).collect::<Vec<_>>());
        write(&(30_000..40_000).map(|n| said(n, id(0))).collect::<Vec<_>>());
        let near = |n: u32| {
            let mut near = id(9);
            near[28..].copy_from_slice(&n.to_be_bytes());
            near
        };
        write(&(40_000..50_000).map(|n| said(n, near(n))).collect::<Vec<_>>());
        println!("\nmost: {most}");
    }

    /// Of sled's seven threads enough are left.
    #[cfg(target_os = "linux")]
    #[test]
    fn what_sled_is_given_at_once_fits_in_two_segments() {
        let home = tempfile::tempdir().unwrap();
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "index::tests::child_writes", "--nocapture"])
            .env("INDEX_HOME", home.path())
            .output()
            .unwrap();
        let said = String::from_utf8(child.stdout).unwrap();
        let most = said.lines().find_map(|line| line.strip_prefix("most: ")?.parse::<usize>().ok());
        let most = most.unwrap_or_else(|| panic!("{said}"));
        assert!((AT_ONCE * 200..2 * (512 << 10)).contains(&most), "{most}");
    }
}
