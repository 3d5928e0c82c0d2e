//! Verification: everything is read again and compared, and on request repaired.
//!
//! ```text
//! cas/       every byte is hashed again; every archive is read strictly
//! journal/   every record: length, checksum, canonical form
//! index/     journal → index: every fact is found at its latest place
//!            index → journal: every entry has the fact it speaks of
//! ```

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::PoisonError,
};

use protocol::{
    id::NarHash,
    nar::{Index as NarIndex, ReadError},
};

use crate::{
    DiskError, IndexError, Notice, OpenError, Rebuilt, Store,
    books::{Books, Here},
    disk,
    disk::Doing as _,
    fact::Fact,
    index::{Gist, Index, IndexEntry, claims::Claim},
    journal::{Location, Placed, recover},
    nars::map_whole,
    open,
};

/// Bytes hashed at once: enough for all cores.
const HASH_BYTES: usize = 4 << 20;

/// What was found.
#[derive(Debug, Default)]
pub struct VerifyReport {
    /// Archives read.
    pub nars: u64,
    /// Bytes of these.
    pub nar_bytes: u64,
    /// Facts read.
    pub facts: u64,
    /// Archives that are not what their names say.
    pub damaged: Vec<DamagedNar>,
    /// Files among the archives that do not belong there.
    pub foreign: Vec<PathBuf>,
    /// Damage of the journal.
    pub journal: Vec<Notice>,
    /// Differences between index and journal.
    pub index_faults: u64,
    /// What was repaired, if that was asked for.
    pub repaired: Vec<Notice>,
}

/// A damaged archive.
#[derive(Debug)]
pub struct DamagedNar {
    /// The hash it is named by.
    pub hash: NarHash,
    /// What is wrong.
    pub fault: NarFault,
    /// Where it is now, if it was moved to the quarantine.
    pub moved: Option<PathBuf>,
}

/// What is wrong with an archive.
#[derive(Debug, thiserror::Error)]
pub enum NarFault {
    /// Other bytes than were admitted.
    #[error("its bytes are those of {found}")]
    Hash {
        /// What it hashes to.
        found: NarHash,
    },
    /// The right bytes, but no archive by today's rules.
    #[error("not a NAR archive")]
    Format(#[source] ReadError),
    /// It cannot be read.
    #[error(transparent)]
    Disk(DiskError),
}

impl VerifyReport {
    /// Whether nothing at all was wrong.
    pub fn is_clean(&self) -> bool {
        self.damaged.is_empty()
            && self.foreign.is_empty()
            && self.journal.is_empty()
            && self.index_faults == 0
    }
}

impl Store {
    /// Checks all that the store keeps. `progress` is told how many bytes of archives of how many
    /// are done.
    ///
    /// With `repair`, damaged archives and foreign files go to the quarantine, damaged segments of
    /// the journal are written anew from their whole records, and the index is rebuilt if it does
    /// not fit. Recording waits while the journal is checked.
    ///
    /// # Errors
    ///
    /// [`OpenError`], if checking or repairing itself fails; damage is no error.
    pub fn verify(
        &self,
        repair: bool,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<VerifyReport, OpenError> {
        let mut report = VerifyReport::default();
        self.verify_nars(repair, &mut report, &mut progress)?;
        match &self.books {
            Books::Here(here) => here.verify(repair, &mut report)?,
            Books::There(client) => client.verify(repair, &mut report)?,
        }
        Ok(report)
    }

    /// Drops the index and builds it anew from the journal; says what else was repaired by that.
    pub fn reindex(&self) -> Result<Vec<Notice>, OpenError> {
        let here = match &self.books {
            Books::Here(here) => here,
            Books::There(client) => return Ok(client.reindex()?),
        };
        let mut notices = Vec::new();
        here.renew(Rebuilt::Asked, &mut notices)?;
        Ok(notices)
    }

    fn verify_nars(
        &self,
        repair: bool,
        report: &mut VerifyReport,
        progress: &mut impl FnMut(u64, u64),
    ) -> Result<(), DiskError> {
        let (mut nars, foreign) = self.nars_here()?;
        nars.sort_by_key(|nar| nar.hash);
        let total = nars.iter().map(|nar| nar.size).sum();
        let mut buffer = vec![0; HASH_BYTES];
        progress(0, total);
        for nar in nars {
            let path = self.nar_path(&nar.hash);
            let checked = check(&nar.hash, &path, &mut buffer);
            report.nars += 1;
            report.nar_bytes += nar.size;
            progress(report.nar_bytes, total);
            if let Err(fault) = checked {
                // Swept meanwhile.
                if !self.contains(&nar.hash) {
                    continue;
                }
                let moved = if repair { Some(disk::quarantine(&path, &self.home.quarantine)?) } else { None };
                report.damaged.push(DamagedNar { hash: nar.hash, fault, moved });
            }
        }
        for path in &foreign {
            if repair {
                disk::quarantine(path, &self.home.quarantine)?;
            }
        }
        report.foreign = foreign;
        Ok(())
    }
}

impl Here {
    /// Checks the facts, and on request repairs what needs it.
    pub(crate) fn verify(&self, repair: bool, report: &mut VerifyReport) -> Result<(), OpenError> {
        self.verify_facts(report)?;
        if repair && (report.index_faults > 0 || !report.journal.is_empty()) {
            self.renew(Rebuilt::Failed, &mut report.repaired)?;
        }
        Ok(())
    }

    fn renew(&self, why: Rebuilt, notices: &mut Vec<Notice>) -> Result<(), OpenError> {
        let mut journal = self.journal.exclusive();
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        // Closed before its files are touched.
        *index = None;
        match open::recover(&self.home, Some(why), notices) {
            Ok((recovered, new)) => {
                journal.replace(recovered);
                *index = Some(new);
                Ok(())
            }
            Err(e) => {
                // The last segment may have been replaced by a better one: this one is not to be
                // written to any more.
                journal.give_up(io::Error::other("the journal was being repaired"));
                Err(e)
            }
        }
    }

    fn verify_facts(&self, report: &mut VerifyReport) -> Result<(), OpenError> {
        let journal = self.journal.exclusive();
        // If what waits cannot be applied, the index is not to be believed, whoever asked.
        let _ = self.indexed(|_| Ok(()));
        let end = journal.end();
        let segments = recover::segments(self.journal.dir())?;
        let mut pins = BTreeMap::new();
        let mut faults = 0;
        let survey = recover::survey(self.journal.dir(), &segments, (1, 0), Some(end), |placed, _| {
            let found = match &placed.gist {
                Gist::Pinned(name) => {
                    pins.insert(name.clone(), placed.at);
                    Ok(true)
                }
                Gist::Unpinned(name) => {
                    pins.remove(name);
                    Ok(true)
                }
                _ => self.peek(|index| is_found(index, placed)),
            };
            // An index that does not answer is as wrong as one that answers wrongly.
            faults += u64::from(!found.unwrap_or(false));
        })?;
        report.facts = survey.facts;
        report.journal = survey.damage(end);
        let known = self.peek(Index::pins).unwrap_or_default();
        faults += u64::from(known.into_iter().collect::<BTreeMap<_, _>>() != pins);
        let entries = self.peek(|index| {
            let wrong = |entry: Result<IndexEntry, IndexError>| match entry {
                Ok(entry) => !self.has_fact(&entry),
                Err(_) => true,
            };
            Ok(index.entries().filter_map(|entry| wrong(entry).then_some(())).count())
        });
        report.index_faults = faults + entries.map_or(1, |wrong| wrong as u64);
        drop(journal);
        Ok(())
    }

    /// Asks the index without noting that it failed: that is what we are about to report.
    fn peek<T>(&self, f: impl FnOnce(&Index) -> Result<T, IndexError>) -> Result<T, IndexError> {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        f(index.as_ref().ok_or(IndexError::Absent)?.all()?)
    }

    /// Whether the journal has the fact that an entry of the index speaks of.
    fn has_fact(&self, entry: &IndexEntry) -> bool {
        let gist = |at: &Location| self.journal.read(*at).map(|fact: Fact| Gist::of(&fact));
        match entry {
            IndexEntry::Action(id, at) => matches!(gist(at), Ok(Gist::Action(found)) if found == *id),
            IndexEntry::Realisation(id, at) | IndexEntry::Order(at, id) => {
                matches!(gist(at), Ok(Gist::Built { action, .. }) if action == *id)
            }
            IndexEntry::Maker(nar, id, at) => {
                matches!(gist(at), Ok(Gist::Built { action, nars }) if action == *id && nars.contains(nar))
            }
            IndexEntry::Statement(attester, place, at) => {
                matches!(gist(at), Ok(Gist::Statement { attester: a, place: p, .. }) if (a, p) == (*attester, *place))
            }
            IndexEntry::Claim(Claim { action, at, outcome }) => {
                matches!(gist(at), Ok(Gist::Statement { claim, .. }) if claim == Some((*action, *outcome)))
            }
            IndexEntry::Divided(id) => self.peek(|index| index.claims(id)).is_ok_and(|said| differ(&said)),
            IndexEntry::Bearing(attester, at) => match gist(at) {
                Ok(Gist::Statement { attester: a, bears, .. }) => bears && a == *attester,
                Ok(Gist::Bearing(a)) => a == *attester,
                _ => false,
            },
            IndexEntry::Pin(name, at) => matches!(gist(at), Ok(Gist::Pinned(found)) if found == *name),
        }
    }
}

/// Whether the index has a fact at its place, or at a later one that says more recent things.
fn is_found(index: &Index, placed: &Placed) -> Result<bool, IndexError> {
    let reached = |at: Option<Location>| at.is_some_and(|at| at >= placed.at);
    Ok(match &placed.gist {
        Gist::Action(id) => reached(index.action(id)?),
        Gist::Built { action, nars } => {
            let mut found = reached(index.realisation(action)?) && index.order(placed.at)? == Some(*action);
            for nar in nars {
                found &= reached(index.maker(nar, action)?);
            }
            found
        }
        Gist::Statement { attester, place, claim, bears } => {
            let mut found = index.statement(attester, *place)? == Some(placed.at);
            if let Some((action, outcome)) = *claim {
                // Whether all are the same where it says so is looked at with the index's own entries.
                let before = index.claim(&Claim { action, at: placed.at, outcome })?;
                found &= before.is_some();
                if before.flatten().is_some_and(|before| before.outcome != outcome) {
                    found &= index.is_divided(&action)?;
                }
            }
            found && (!bears || index.bearing(attester)?.contains(&placed.at))
        }
        Gist::Bearing(attester) => index.bearing(attester)?.contains(&placed.at),
        Gist::Pinned(_) | Gist::Unpinned(_) => true,
    })
}

/// Whether claims about one action are not all the same.
fn differ(claims: &[Claim]) -> bool {
    claims.windows(2).any(|two| two[0].outcome != two[1].outcome)
}

/// Reads and checks an archive. By reading, not by mapping: a bad sector is then an error.
fn check(hash: &NarHash, path: &Path, buffer: &mut [u8]) -> Result<(), NarFault> {
    let mut file = File::open(path).doing("open", path).map_err(NarFault::Disk)?;
    let mut hasher = blake3::Hasher::new();
    loop {
        match file.read(buffer) {
            Ok(0) => break,
            Ok(n) => _ = hasher.update_rayon(&buffer[..n]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e).doing("read", path).map_err(NarFault::Disk),
        }
    }
    let found = NarHash::from_bytes(*hasher.finalize().as_bytes());
    if found != *hash {
        return Err(NarFault::Hash { found });
    }
    let map = map_whole(&file, path).map_err(NarFault::Disk)?;
    NarIndex::read(&map).map_err(NarFault::Format)?;
    Ok(())
}
