//! Applying late: what was appended waits in memory, so that much of it is applied at once.
//!
//! ```text
//! Journal::append ─▶ wait ─▶ enough? asked? closed? ─▶ Index::apply, all of it
//! ```
//!
//! Writing a block costs sled the same whether one statement in it is new or ten. What waits is
//! durable, in the journal behind the mark of what is applied: if the process is killed, it is
//! replayed when the store is next opened. The index cannot be asked while something waits for it that
//! was to be in the answer, because nobody has it but through [`Late::all`] and [`Late::bearing`].

use std::sync::{Mutex, MutexGuard, PoisonError};

use protocol::key::AttesterKey;

use super::{Gist, Index, IndexError};
use crate::journal::{Location, Placed};

/// What may wait, as [`Gist::entries`] counts it. The more it is, the more of it has its place in one
/// block; but who asks first waits until all of it is applied, about a tenth of a second.
const ENTRIES: usize = 8192;

/// An index, and what is to be applied to it before it is asked.
pub(crate) struct Late {
    index: Index,
    /// The id of the journal whose records these are.
    journal: [u8; 16],
    /// Locked while it is applied, so that who asks meanwhile waits for that. `None` if it failed:
    /// nothing may be applied behind what is missing.
    waiting: Mutex<Option<Waiting>>,
}

/// Records in the order of the journal.
#[derive(Default)]
struct Waiting {
    records: Vec<Placed>,
    /// Of all these.
    entries: usize,
    /// Whether one of these bears on what a key's word is worth.
    bears: bool,
}

impl Late {
    pub(crate) fn new(index: Index, journal: [u8; 16]) -> Self {
        Self { index, journal, waiting: Mutex::new(Some(Waiting::default())) }
    }

    /// Takes records that follow in the journal those that it was given before. They wait, or are
    /// applied if there are enough.
    ///
    /// # Errors
    ///
    /// [`IndexError`], if applying fails, or failed before.
    pub(crate) fn wait(&self, records: impl IntoIterator<Item = Placed>) -> Result<(), IndexError> {
        let mut waiting = self.lock();
        for record in records {
            let list = waiting.as_mut().ok_or(IndexError::Absent)?;
            list.entries += record.gist.entries();
            list.bears |= record.gist.bears();
            list.records.push(record);
            if list.entries >= ENTRIES {
                self.apply(&mut waiting)?;
            }
        }
        Ok(())
    }

    /// The index, with all that came before this was called.
    ///
    /// # Errors
    ///
    /// [`IndexError`], if applying it fails, or failed before.
    pub(crate) fn all(&self) -> Result<&Index, IndexError> {
        self.apply(&mut self.lock())?;
        Ok(&self.index)
    }

    /// As [`Index::bearing`], of all that came before this was called. A node asks it of whomever it
    /// has just heard, so it lets wait what has nothing to do with the answer.
    ///
    /// # Errors
    ///
    /// [`IndexError`], as from [`Late::all`].
    pub(crate) fn bearing(&self, attester: &AttesterKey) -> Result<Vec<Location>, IndexError> {
        let mut waiting = self.lock();
        if waiting.as_ref().is_none_or(|waiting| waiting.bears) {
            self.apply(&mut waiting)?;
        }
        drop(waiting);
        self.index.bearing(attester)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn apply(&self, waiting: &mut Option<Waiting>) -> Result<(), IndexError> {
        // It is not put back if applying fails, or panics.
        let due = waiting.take().ok_or(IndexError::Absent)?;
        self.index.apply(self.journal, &due.records)?;
        *waiting = Some(Waiting::default());
        Ok(())
    }
}

impl Gist {
    /// Of how many entries of the index it is the cause, about.
    fn entries(&self) -> usize {
        match self {
            Self::Built { nars, .. } => 1 + nars.len(),
            Self::Action(_)
            | Self::Pinned(_)
            | Self::Unpinned(_)
            | Self::Statement { .. }
            | Self::Bearing(_) => 1,
        }
    }

    /// Whether it bears on what its attester's word is worth.
    fn bears(&self) -> bool {
        match self {
            Self::Statement { bears, .. } => *bears,
            Self::Bearing(_) => true,
            Self::Built { .. } | Self::Action(_) | Self::Pinned(_) | Self::Unpinned(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        path::{Path, PathBuf},
    };

    use protocol::{
        evidence::{Evidence, Revocation},
        feed::Head,
        id::{ActionId, NarHash},
        key::SigningKey,
        name::Name,
        statement::{Body, Ending, Failure, Platform, Signed, Statement},
    };

    use super::*;
    use crate::{
        KeepError, Kept, LookupError, Notice, Rebuilt, RecordError, Store,
        books::{Books, Here},
        disk,
        index::{AT_ONCE, Applied, CLAIM, DIVIDED, changes::Changes, claims::Outcome},
    };

    fn id(n: u32) -> [u8; 32] {
        *blake3::hash(&n.to_le_bytes()).as_bytes()
    }

    /// Record number `n`: what one of three attesters says of one of many actions, or another fact.
    fn record(n: u32) -> Placed {
        let attester = AttesterKey::from_bytes(id(n % 3));
        let gist = match n % 50 {
            0 => Gist::Action(ActionId::from_bytes(id(n))),
            1 => Gist::Built {
                action: ActionId::from_bytes(id(n % 1000)),
                nars: (0..n % 100).map(|nar| NarHash::from_bytes(id(nar))).collect(),
            },
            2 => Gist::Pinned(format!("pin {}", n % 30)),
            3 => Gist::Unpinned(format!("pin {}", n % 40)),
            4 => Gist::Bearing(attester),
            5 => Gist::Statement { attester, place: u64::from(n / 3), claim: None, bears: true },
            _ => {
                let claim = Some((ActionId::from_bytes(id(n % 5000)), Outcome::number(n % 7)));
                Gist::Statement { attester, place: u64::from(n / 3), claim, bears: false }
            }
        };
        Placed { at: Location { segment: 1, offset: n * 100, len: 10 }, crc: n, gist }
    }

    /// Every entry, whatever blocks they are in.
    fn entries(index: &Index) -> BTreeSet<String> {
        index.entries().map(|entry| format!("{:?}", entry.unwrap())).collect()
    }

    /// Whatever waits for how long, and whoever asks when: the same is found.
    #[test]
    fn waiting_changes_nothing() {
        let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let index = |dir: &tempfile::TempDir| {
            Index::open(&dir.path().join("index"), dir.path().join("mark")).unwrap()
        };
        let (late, prompt) = (Late::new(index(&dirs[0]), [1; 16]), index(&dirs[1]));
        let entries_that_wait = || late.lock().as_ref().unwrap().entries;
        let mut n = 0;
        for (step, asked) in [(1, false), (700, true), (63, false), (20_000, false), (5, true), (9000, false)]
        {
            let records: Vec<_> = (n..n + step).map(record).collect();
            late.wait(records.iter().cloned()).unwrap();
            assert!(entries_that_wait() < ENTRIES);
            records.chunks(100).for_each(|few| prompt.apply([1; 16], few).unwrap());
            n += step;
            let attester = AttesterKey::from_bytes(id(1));
            assert_eq!(late.bearing(&attester).unwrap(), prompt.bearing(&attester).unwrap());
            if asked {
                assert_eq!(entries(late.all().unwrap()), entries(&prompt));
                assert_eq!(entries_that_wait(), 0);
            }
        }
        assert_eq!(entries(late.all().unwrap()), entries(&prompt));
        let applied = prompt.applied().unwrap();
        assert_eq!(applied.map(|applied| applied.last.offset), Some((n - 1) * 100));
        assert_eq!(late.index.applied().unwrap(), applied);
    }

    /// Killed between two parts: what was known before is found, and nothing twice; and when the journal
    /// is replayed, all of it is.
    #[test]
    fn half_of_it_is_written() {
        const BEFORE: u32 = 9000;
        let records: Vec<_> = (0..12_000).map(record).collect();
        let actions = || (0..5000).map(|n| ActionId::from_bytes(id(n)));
        let index = |dir: &tempfile::TempDir| {
            Index::open(&dir.path().join("index"), dir.path().join("mark")).unwrap()
        };
        let whole = tempfile::tempdir().unwrap();
        let whole = index(&whole);
        let begun = tempfile::tempdir().unwrap();
        let first = index(&begun);
        let (before, rest) = records.split_at(BEFORE as usize);
        [&whole, &first].iter().for_each(|index| index.apply([1; 16], before).unwrap());
        let known: Vec<_> = actions().map(|action| whole.claims(&action).unwrap()).collect();
        let (latest, applied) = (whole.latest().unwrap().len(), whole.applied().unwrap());
        whole.apply([1; 16], rest).unwrap();
        drop(first);
        let count = {
            let copy = killed(begun.path());
            parts(&index(&copy), rest).len()
        };
        assert!(count > 9, "{count}");
        for written in 0..count {
            let copy = killed(begun.path());
            let index = index(&copy);
            parts(&index, rest).into_iter().take(written).for_each(|part| index.write(part).unwrap());
            assert_eq!(index.applied().unwrap(), applied);
            assert!(index.latest().unwrap().len() >= latest);
            for (action, known) in actions().zip(&known) {
                let found = index.claims(&action).unwrap();
                assert!(found.is_sorted_by(|a, b| a.at.offset < b.at.offset), "{written}: {found:?}");
                assert!(found.starts_with(known), "{written}: {found:?}, not {known:?}");
            }
            index.apply([1; 16], rest).unwrap();
            assert_eq!(entries(&index), entries(&whole), "{written}");
        }
    }

    /// What the records change, as it is written.
    fn parts(index: &Index, records: &[Placed]) -> Vec<sled::Batch> {
        let mut changes = Changes::new(index);
        records.iter().for_each(|record| changes.add(record).unwrap());
        let last = records.last().unwrap();
        changes.finish(&Applied { journal: [1; 16], last: last.at, crc: last.crc, boot: [0; 16] })
    }

    /// The most that there can be at once, however many blocks one becomes.
    #[test]
    fn parts_are_small() {
        let [applied, counted] = [(); 2].map(|()| {
            let dir = tempfile::tempdir().unwrap();
            (Index::open(&dir.path().join("index"), dir.path().join("mark")).unwrap(), dir)
        });
        // All about one action, so that one block becomes many.
        let said = |n: u32| {
            let claim = Some((ActionId::from_bytes(id(0)), Outcome::number(1)));
            let attester = AttesterKey::from_bytes(id(n % 3));
            let gist = Gist::Statement { attester, place: u64::from(n / 3), claim, bears: false };
            Placed { at: Location { segment: 1, offset: n * 100, len: 10 }, crc: n, gist }
        };
        let records: Vec<_> = (0..3000).map(said).collect();
        let (mut rest, mut most) = (records.iter(), 0);
        while let Some(parts) = applied.0.changes([1; 16], &mut rest).unwrap() {
            for part in parts {
                counted.0.ask(|db| db.clear()).unwrap();
                counted.0.write(part.clone()).unwrap();
                most = most.max(counted.0.ask(|db| Ok(db.len())).unwrap());
                applied.0.write(part).unwrap();
            }
        }
        // One block and those that it became, and the mark.
        assert!((AT_ONCE + 1..=2 * AT_ONCE + 1).contains(&most), "{most}");
        assert_eq!(applied.0.claims(&ActionId::from_bytes(id(0))).unwrap().len(), 3000);
    }

    /// Of those that are realised again meanwhile, none is missing.
    #[test]
    fn the_latest_lack_nothing_meanwhile() {
        const ACTIONS: u32 = 500;
        let dir = tempfile::tempdir().unwrap();
        let index = Index::open(&dir.path().join("index"), dir.path().join("mark")).unwrap();
        let built = |n: u32| Placed {
            at: Location { segment: 1, offset: n * 100, len: 10 },
            crc: n,
            gist: Gist::Built { action: ActionId::from_bytes(id(n % ACTIONS)), nars: Vec::new() },
        };
        let first: Vec<_> = (0..ACTIONS).map(built).collect();
        index.apply([1; 16], &first).unwrap();
        std::thread::scope(|scope| {
            let again = scope.spawn(|| {
                (ACTIONS..6 * ACTIONS).for_each(|n| {
                    index.apply([1; 16], &[built(n)]).unwrap();
                })
            });
            while !again.is_finished() {
                assert_eq!(index.latest().unwrap().len(), ACTIONS as usize);
            }
        });
    }

    /// What is missing in the index is told of, and mended.
    #[test]
    fn what_the_index_lacks_is_found() {
        let lacks: [fn(&Store); 2] = [|store| remove(store, &[DIVIDED]), |store| remove(store, &[CLAIM])];
        for lack in lacks {
            let home = tempfile::tempdir().unwrap();
            let store = open(home.path());
            // Twice of one action, and not the same.
            let action = ActionId::from_bytes([9; 32]);
            let ends = [Ending::Trap, Ending::Exit(1)].map(|ending| {
                let platform = Platform::here(Name::new("none").unwrap());
                Body::Failed(Failure { action, step: 1, ending, platform })
            });
            store.say(&key(), 0, ends).unwrap();
            assert!(store.verify(false, |_, _| {}).unwrap().is_clean());
            lack(&store);
            assert!(!store.verify(false, |_, _| {}).unwrap().is_clean());
            store.verify(true, |_, _| {}).unwrap();
            assert!(store.verify(false, |_, _| {}).unwrap().is_clean());
        }
    }

    /// Removes the entries of a kind.
    fn remove(store: &Store, kind: &[u8]) {
        let keys = |db: &sled::Db| db.scan_prefix(kind).keys().collect::<Result<Vec<_>, _>>();
        let remove = |db: &sled::Db| keys(db)?.into_iter().try_for_each(|key| db.remove(key).map(drop));
        here(store).indexed(|index| index.ask(remove)).unwrap();
    }

    fn key() -> SigningKey {
        SigningKey::from_bytes(&[1; 32])
    }

    fn attester() -> AttesterKey {
        AttesterKey::of(&key())
    }

    /// The first of a feed.
    fn said(count: u8) -> Vec<Signed> {
        let mut head = Head::empty(attester());
        let mut next = |n| {
            let platform = Platform::here(Name::new("none").unwrap());
            let action = ActionId::from_bytes([n; 32]);
            let body = Body::Failed(Failure { action, step: 1, ending: Ending::Trap, platform });
            let (attester, seq, prev) = (head.attester(), head.len(), head.last());
            let signed = Statement { attester, seq, prev, time: 0, body }.sign(&key()).unwrap();
            head = head.follow(&signed).unwrap();
            signed
        };
        (0..count).map(&mut next).collect()
    }

    fn open(home: &Path) -> Store {
        Store::open(home, |_| false).unwrap()
    }

    fn here(store: &Store) -> &Here {
        match &store.books {
            Books::Here(here) => here,
            Books::There(_) => panic!("a client"),
        }
    }

    fn waiting(store: &Store) -> usize {
        here(store).index.read().unwrap().as_ref().unwrap().lock().as_ref().unwrap().records.len()
    }

    fn keep(store: &Store, said: &[Signed]) -> Result<Vec<Kept>, KeepError> {
        store.keep(said.iter().cloned().map(Evidence::Statement))
    }

    fn found(store: &Store) -> Vec<Signed> {
        store.statements(&attester(), 0).collect::<Result<_, _>>().unwrap()
    }

    /// Who follows a feed lets it wait, as long as he asks no more than a node asks of all that it hears.
    #[test]
    fn a_feed_that_is_followed_waits() {
        let home = tempfile::tempdir().unwrap();
        let store = open(home.path());
        let said = said(200);
        for (n, few) in said.chunks(10).enumerate() {
            assert_eq!(keep(&store, few).unwrap(), [const { Kept::New }; 10]);
            // The last one is heard again, from somebody else.
            assert_eq!(keep(&store, &few[9..]).unwrap(), [Kept::Known]);
            assert_eq!(store.head(&attester()).unwrap().last(), few[9].id());
            assert_eq!(store.bearing(&attester()).unwrap(), []);
            assert_eq!(waiting(&store), (n + 1) * 10);
        }
        let revocation = Evidence::Revocation(Revocation::sign(&key(), 1));
        assert_eq!(store.keep([revocation.clone()]).unwrap(), [Kept::New]);
        assert_eq!(waiting(&store), 201);
        assert_eq!(store.bearing(&attester()).unwrap(), [revocation]);
        assert_eq!(waiting(&store), 0);
        assert_eq!(found(&store), said);
    }

    /// As a process leaves it that is killed between an append and its application.
    fn killed(home: &Path) -> tempfile::TempDir {
        let left = tempfile::tempdir().unwrap();
        disk::walk(home, &mut |path, _| {
            let to = left.path().join(path.strip_prefix(home).unwrap());
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            std::fs::copy(path, to).unwrap();
        })
        .unwrap();
        left
    }

    fn applied(home: &Path) -> Option<Location> {
        let index = Index::open(&home.join("index"), PathBuf::from("none")).unwrap();
        index.applied().unwrap().map(|applied| applied.last)
    }

    #[test]
    fn what_waits_is_replayed() {
        let home = tempfile::tempdir().unwrap();
        let said = said(250);
        keep(&open(home.path()), &said[..100]).unwrap();
        let store = open(home.path());
        said[100..].chunks(50).for_each(|few| drop(keep(&store, few).unwrap()));
        let left = killed(home.path());
        let before = applied(left.path());
        let opened = open(left.path());
        assert_eq!(opened.notices(), []);
        assert_eq!(opened.head(&attester()).unwrap().len(), 250);
        assert_eq!(found(&opened), said);
        assert!(opened.verify(false, |_, _| {}).unwrap().is_clean());
        drop(opened);
        // Who closes a store leaves nothing to be replayed.
        assert_eq!(waiting(&store), 150);
        drop(store);
        let after = applied(home.path());
        assert!(before < after, "nothing waited: {before:?}, {after:?}");
        assert_eq!(applied(left.path()), after);
    }

    /// Sees to it that nothing that is said can be applied.
    fn spoil(store: &Store) {
        here(store).indexed(|index| index.ask(|db| db.insert([CLAIM], &b"no claims"[..]))).unwrap();
    }

    /// What waits cannot be applied: nothing is applied behind it, nobody gets half an answer, and
    /// the next opening finds all of it, and what was recorded in spite of an error.
    #[test]
    fn what_waits_cannot_be_applied() {
        for asked in [false, true] {
            let home = tempfile::tempdir().unwrap();
            let store = open(home.path());
            let said = said(30);
            keep(&store, &said[..5]).unwrap();
            spoil(&store);
            keep(&store, &said[5..10]).unwrap();
            let mut recorded = 10;
            if asked {
                let absent = |error: &LookupError| matches!(error, LookupError::Index(IndexError::Absent));
                let first = store.claimed().unwrap_err();
                assert!(matches!(first, LookupError::Index(IndexError::Value)), "{first:?}");
                assert!(absent(&store.attesters().unwrap_err()));
                assert!(absent(&store.bearing(&attester()).unwrap_err()));
                let error = keep(&store, &said[10..20]).unwrap_err();
                assert!(
                    matches!(error, KeepError::Record(RecordError::Unindexed(IndexError::Absent))),
                    "{error:?}"
                );
                recorded = 20;
                // Where the feed ends is not known any more.
                let error = keep(&store, &said[20..]).unwrap_err();
                assert!(matches!(&error, KeepError::Lookup(error) if absent(error)));
                assert!(!store.verify(false, |_, _| {}).unwrap().is_clean());
            }
            drop(store);
            let store = open(home.path());
            let rebuilt = Notice::IndexRebuilt { why: Rebuilt::Failed, facts: recorded as u64 };
            assert_eq!(store.notices(), [rebuilt], "asked: {asked}");
            assert_eq!(found(&store), said[..recorded]);
            assert!(store.verify(false, |_, _| {}).unwrap().is_clean());
        }
    }

    /// Rebuilding makes it good, for who has the store open.
    #[test]
    fn what_could_not_be_applied_is_found_after_rebuilding() {
        let rebuilds: [fn(&Store); 2] =
            [|store| drop(store.reindex().unwrap()), |store| drop(store.verify(true, |_, _| {}).unwrap())];
        for rebuild in rebuilds {
            let home = tempfile::tempdir().unwrap();
            let store = open(home.path());
            let said = said(20);
            spoil(&store);
            keep(&store, &said[..10]).unwrap();
            rebuild(&store);
            assert_eq!(store.claimed().unwrap().len(), 10);
            keep(&store, &said[10..]).unwrap();
            assert_eq!(store.claimed().unwrap().len(), 20);
            drop(store);
            assert_eq!(open(home.path()).notices(), []);
        }
    }
}
