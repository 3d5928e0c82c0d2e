//! Opening: one owner at a time, and repair of whatever the last one left behind.
//!
//! ```text
//! lock ─ taken ─▶ does its owner serve? ─▶ a client of it; else wait for either
//!  │
//!  └─▶ empty tmp/ ─▶ open index ─▶ is it of this journal, and up to where? ─▶ replay the rest
//!                           └ damaged: aside, begin anew      └ no: begin anew
//! ```

use std::{
    fmt,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Mutex,
    time::{Duration, Instant},
};

use crate::{
    Home, ServedError, Store, Unwelcome,
    books::{Books, Here},
    client::{Answered, Client, Door},
    disk::{self, DiskError, Doing as _, create_dir, sync_dir},
    index::{Index, IndexError, late::Late, remove_torn_snapshots},
    journal::{
        Journal,
        recover::{self, Survey},
    },
};

/// How often the lock and the socket are tried again while another process has the store open.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// How long an owner that is gone may still seem to hold the lock: a child that it started has all
/// its files until it executes another program.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

/// How long an owner may take to let us in before we say that we wait: it may be sweeping.
const HELLO_PATIENCE: Duration = Duration::from_secs(1);

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open, and we were not to wait.
    #[error("the store is in use{}", pid.map(|pid| format!(" by process {pid}")).unwrap_or_default())]
    Busy {
        /// That process, if it said.
        pid: Option<u32>,
    },
    /// The disk refused.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The index does not open, and a new one neither.
    #[error("the index cannot be opened")]
    Index(#[from] IndexError),
    /// The process that has it open serves others, but not us.
    #[error("the process that has the store open does not let us in")]
    Unwelcome(#[from] Unwelcome),
    /// The process that has it open did not do what was asked for, or did not say that it did.
    #[error(transparent)]
    Served(#[from] ServedError),
}

/// Something that was repaired while opening, or while verifying.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The end of the journal was not a whole record, as after a crash, and was cut off. It had
    /// not been acknowledged.
    TornTail {
        /// Number of the segment.
        segment: u32,
        /// Where it ends now.
        at: u32,
        /// Bytes that were cut off.
        cut: u32,
        /// A copy of the segment as it was, if what was cut off may once have been a record.
        saved: Option<PathBuf>,
    },
    /// Bytes in the midst of the journal were no records: facts are lost.
    JournalDamaged {
        /// Number of the segment.
        segment: u32,
        /// The first damaged byte.
        from: u32,
        /// The first byte behind.
        to: u32,
    },
    /// A damaged segment was written anew from its whole records.
    SegmentRewritten {
        /// Number of the segment.
        segment: u32,
        /// A copy of the segment as it was.
        saved: PathBuf,
    },
    /// A segment of the journal is not there: facts are lost.
    SegmentMissing {
        /// Number of the segment.
        segment: u32,
    },
    /// A whole record that is no fact known to this version: it is left alone.
    UnknownFact {
        /// Number of the segment.
        segment: u32,
        /// Where its frame starts.
        at: u32,
    },
    /// The index was built anew from the journal; nothing is lost.
    IndexRebuilt {
        /// Why.
        why: Rebuilt,
        /// From so many facts.
        facts: u64,
    },
    /// The index that could not be opened is here now.
    IndexSaved {
        /// In the quarantine.
        saved: PathBuf,
    },
    /// Something in `tmp/` cannot be removed. It does no harm.
    TempLeft {
        /// What.
        path: PathBuf,
    },
}

/// Why the index was built anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rebuilt {
    /// It was not there, or of another version, or was not synced before the machine went down.
    Unsynced,
    /// sled could not open it.
    Damaged,
    /// It failed in use.
    Failed,
    /// It is of another journal, or of one that went on differently.
    Mismatch,
    /// Places in the journal changed when damage was repaired.
    Moved,
    /// It was asked for.
    Asked,
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TornTail { segment, at, cut, saved } => {
                write!(f, "journal: cut {cut} bytes of an unfinished record off segment {segment} at {at}")?;
                saved.iter().try_for_each(|path| write!(f, "; a copy is {}", path.display()))
            }
            Self::JournalDamaged { segment, from, to } => {
                write!(
                    f,
                    "journal: segment {segment} is damaged from byte {from} to {to}; what was recorded there is lost"
                )
            }
            Self::SegmentRewritten { segment, saved } => {
                write!(
                    f,
                    "journal: segment {segment} was written anew; a copy of the damaged one is {}",
                    saved.display()
                )
            }
            Self::SegmentMissing { segment } => {
                write!(f, "journal: segment {segment} is not there; what was recorded in it is lost")
            }
            Self::UnknownFact { segment, at } => {
                write!(
                    f,
                    "journal: the record at byte {at} of segment {segment} is of a kind unknown to this version"
                )
            }
            Self::IndexRebuilt { why, facts } => {
                write!(f, "index: rebuilt from {facts} facts of the journal, because {why}")
            }
            Self::IndexSaved { saved } => write!(f, "index: the damaged one is {}", saved.display()),
            Self::TempLeft { path } => write!(f, "cannot remove {}", path.display()),
        }
    }
}

impl fmt::Display for Rebuilt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unsynced => "it was missing, old or not closed before the machine went down",
            Self::Damaged => "it was damaged",
            Self::Failed => "it had failed in use",
            Self::Mismatch => "it did not fit the journal",
            Self::Moved => "the journal was repaired",
            Self::Asked => "that was asked for",
        })
    }
}

impl Store {
    /// Opens the store in `home`, creating it if there is none, and repairs what needs it.
    ///
    /// If another process has it open and serves it, what is returned is a client of that one, with
    /// nothing repaired, and good for as long as that one lives. If it does not serve, or just now
    /// lets nobody in because it sweeps, `waiting` is called once with that process's id; if it
    /// returns true, this waits for as long as it takes.
    ///
    /// # Errors
    ///
    /// [`OpenError`]. Damage is no error: it is repaired, and [`Store::notices`] says what was.
    pub fn open(home: &Path, waiting: impl FnMut(Option<u32>) -> bool) -> Result<Self, OpenError> {
        let home = Home::new(home);
        create_dir(&home.root, 0o755)?;
        let lock = match enter(&home, waiting)? {
            Entered::Owner(lock) => lock,
            Entered::Client(client) => return Ok(Self::new(home, Vec::new(), Books::There(client))),
        };
        for dir in [&home.cas, &home.journal, &home.logs, &home.modules] {
            create_dir(dir, 0o755)?;
        }
        for dir in [&home.tmp, &home.quarantine] {
            create_dir(dir, 0o700)?;
        }
        // Whoever made them may have been killed before they were durable.
        sync_dir(&home.root)?;
        let mut notices = empty_unless_used(&home)?;
        let (journal, index) = recover(&home, None, &mut notices)?;
        let here = Here::new(home.clone(), index, journal, lock);
        Ok(Self::new(home, notices, Books::Here(Box::new(here))))
    }

    fn new(home: Home, notices: Vec<Notice>, books: Books) -> Self {
        Self { home, notices, books, naming: Mutex::default(), durable: Mutex::default() }
    }
}

enum Entered {
    /// With the lock.
    Owner(File),
    Client(Client),
}

/// Takes the lock, and writes our id into it, or becomes a client of the process that has it.
fn enter(home: &Home, mut waiting: impl FnMut(Option<u32>) -> bool) -> Result<Entered, OpenError> {
    let path = home.root.join("lock");
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(false).open(&path);
    let file = file.doing("open", &path)?;
    let (mut asked, begun) = (false, Instant::now());
    let mut patient = || {
        if !asked && begun.elapsed() >= LOCK_PATIENCE {
            let mut owner = [0; 16];
            let len = file.read_at(&mut owner, 0).unwrap_or(0);
            let pid = std::str::from_utf8(&owner[..len]).ok().and_then(|text| text.trim().parse().ok());
            asked = waiting(pid);
            return if asked { Ok(()) } else { Err(OpenError::Busy { pid }) };
        }
        Ok(())
    };
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(e)) => return Err(DiskError::new("lock", &path, e).into()),
        }
        if let Some(mut door) = Door::knock(home) {
            loop {
                match door.answer(HELLO_PATIENCE)? {
                    Some(Answered::In(client)) => return Ok(Entered::Client(client)),
                    // It ended, or stops serving.
                    Some(Answered::Nobody) => break,
                    None => patient()?,
                }
            }
        }
        patient()?;
        std::thread::sleep(LOCK_PAUSE);
    }
    // For people only, so a full disk is no reason to fail. Of one length, because shortening a
    // file makes some file systems write it out at once.
    let _ = file.write_all_at(format!("{:<10}\n", std::process::id()).as_bytes(), 0);
    Ok(Entered::Owner(file))
}

/// Empties `tmp/`, unless a client of an owner that died may still have something there.
fn empty_unless_used(home: &Home) -> Result<Vec<Notice>, DiskError> {
    let path = home.clients();
    let mut options = OpenOptions::new();
    let file =
        options.read(true).write(true).create(true).truncate(false).open(&path).doing("open", &path)?;
    match file.try_lock() {
        Ok(()) => empty(&home.tmp),
        Err(TryLockError::WouldBlock) => Ok(Vec::new()),
        Err(TryLockError::Error(e)) => Err(DiskError::new("lock", &path, e)),
    }
}

/// Removes all that is in `tmp/`: nobody else uses the store, so nobody needs it.
fn empty(tmp: &Path) -> Result<Vec<Notice>, DiskError> {
    let mut left = Vec::new();
    for entry in disk::list(tmp)? {
        let path = entry.path();
        let removed = match entry.file_type() {
            Ok(kind) if kind.is_dir() => fs::remove_dir_all(&path),
            _ => fs::remove_file(&path),
        };
        if removed.is_err() {
            left.push(Notice::TempLeft { path });
        }
    }
    Ok(left)
}

/// Opens index and journal and makes them agree. With `rebuild`, the index is made anew.
pub(crate) fn recover(
    home: &Home,
    rebuild: Option<Rebuilt>,
    notices: &mut Vec<Notice>,
) -> Result<(Journal, Late), OpenError> {
    let rebuild = rebuild.or_else(|| home.discarded().exists().then_some(Rebuilt::Failed));
    if rebuild.is_some() {
        discard_index(home)?;
    }
    let (mut index, mut why) = match open_index(home, notices)? {
        (index, None) => (index, rebuild),
        (index, damaged) => (index, rebuild.or(damaged)),
    };
    let segments = recover::segments(&home.journal)?;
    let known = recover::id(&home.journal, &segments)?;
    let id = match known {
        Some(id) => id,
        None => random_id()?,
    };
    let mut from = (1, 0);
    match index.applied() {
        Ok(Some(applied)) if applied.journal == id && recover::holds(&home.journal, &applied)? => {
            from = (applied.last.segment, applied.last.end());
        }
        Ok(Some(_)) => {
            why = why.or(Some(Rebuilt::Mismatch));
            index = fresh_index(index, home)?;
        }
        Ok(None) => {
            why = why.or(Some(Rebuilt::Unsynced));
            index = fresh_index(index, home)?;
        }
        Err(_) => {
            why = why.or(Some(Rebuilt::Damaged));
            index = fresh_index(index, home)?;
        }
    }
    let (mut survey, mut index) = replay(home, &segments, from, id, index)?;
    if !survey.gaps.is_empty() {
        why = Some(Rebuilt::Moved);
        // Before places change, not after: we may die in between.
        drop(index);
        discard_index(home)?;
        repair(home, id, &survey, notices)?;
        let (fresh, _) = open_index(home, notices)?;
        (survey, index) = replay(home, &recover::segments(&home.journal)?, (1, 0), id, fresh)?;
    }
    if let Some(torn) = survey.torn {
        let saved = recover::save_torn(&home.journal, &home.quarantine, torn)?;
        let (segment, at, to) = torn;
        notices.push(Notice::TornTail { segment, at, cut: to - at, saved });
    }
    notices.extend(survey.missing.iter().map(|segment| Notice::SegmentMissing { segment: *segment }));
    notices.extend(
        survey.unknown.iter().map(|(segment, at)| Notice::UnknownFact { segment: *segment, at: *at }),
    );
    let tail = recover::tail(&home.journal, id, &survey)?;
    if let Some(why) = why
        && (survey.facts > 0 || why == Rebuilt::Asked)
    {
        notices.push(Notice::IndexRebuilt { why, facts: survey.facts });
    }
    Ok((Journal::new(home.journal.clone(), id, tail), index))
}

/// Opens the index; one that sled cannot open goes to the quarantine, and a new one is opened.
fn open_index(home: &Home, notices: &mut Vec<Notice>) -> Result<(Index, Option<Rebuilt>), OpenError> {
    remove_torn_snapshots(&home.index).doing("clean up", &home.index)?;
    match Index::open(&home.index, home.synced()) {
        Ok(index) => Ok((index, None)),
        Err(e) if e.is_damage() => {
            let saved = disk::quarantine(&home.index, &home.quarantine)?;
            notices.push(Notice::IndexSaved { saved });
            Ok((Index::open(&home.index, home.synced())?, Some(Rebuilt::Damaged)))
        }
        Err(e) => Err(e.into()),
    }
}

/// Closes an index that is worth nothing and opens an empty one.
fn fresh_index(index: Index, home: &Home) -> Result<Index, OpenError> {
    if index.is_empty() {
        return Ok(index);
    }
    drop(index);
    discard_index(home)?;
    Ok(Index::open(&home.index, home.synced())?)
}

/// Removes the index's files, which sled does not have open.
pub(crate) fn discard_index(home: &Home) -> Result<(), DiskError> {
    let discarded = home.discarded();
    let there = |done: io::Result<()>| match done {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    there(fs::remove_dir_all(&discarded)).doing("remove", &discarded)?;
    // Renamed first: an index of which only some files are left must not be opened.
    there(fs::rename(&home.index, &discarded)).doing("move aside", &home.index)?;
    there(fs::remove_dir_all(&discarded)).doing("remove", &discarded)
}

/// Copies damaged segments to the quarantine and writes them anew.
fn repair(home: &Home, id: [u8; 16], survey: &Survey, notices: &mut Vec<Notice>) -> Result<(), DiskError> {
    let lost = survey.gaps.iter().filter(|(_, from, to)| from != to);
    notices.extend(lost.map(|(segment, from, to)| Notice::JournalDamaged {
        segment: *segment,
        from: *from,
        to: *to,
    }));
    for segment in survey.damaged() {
        let saved = recover::rewrite(&home.journal, segment, id, &home.tmp, &home.quarantine)?;
        notices.push(Notice::SegmentRewritten { segment, saved });
    }
    Ok(())
}

/// Applies the journal from `from` on to the index.
fn replay(
    home: &Home,
    segments: &[u32],
    from: (u32, u32),
    id: [u8; 16],
    index: Index,
) -> Result<(Survey, Late), OpenError> {
    let index = Late::new(index, id);
    let mut applied = Ok(());
    let survey = recover::survey(&home.journal, segments, from, None, |placed, _| {
        if applied.is_ok() {
            applied = index.wait([placed.clone()]);
        }
    })?;
    if let Err(error) = applied.and_then(|()| index.all().map(drop)) {
        home.condemn_index();
        return Err(error.into());
    }
    Ok((survey, index))
}

/// A name for a new journal that no other journal has.
fn random_id() -> Result<[u8; 16], DiskError> {
    let path = Path::new("/dev/urandom");
    let mut id = [0; 16];
    File::open(path).and_then(|mut file| file.read_exact(&mut id)).doing("read", path)?;
    Ok(id)
}
