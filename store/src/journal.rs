//! The journal: facts in append-only segments; the truth about them (SPEC §9.2).
//!
//! ```text
//! frame.rs    [len][crc][payload]: finding records in bytes, whole or damaged
//! recover.rs  opening: cuts a torn tail, rewrites a damaged segment
//! journal.rs  appending: group commit; reading one record back
//! ```
//!
//! A record is acknowledged only after `fdatasync`. Callers that come while one is running share
//! the next. A failed append is taken back, so the journal stays valid; after a failed
//! `fdatasync` nobody can know what is on the disk, so nothing more is written until the store is
//! opened again (the kernel reports such a failure once and then forgets it).

pub(crate) mod frame;
pub(crate) mod recover;

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
};

use self::frame::FRAME_BYTES;
use crate::{
    disk::{DiskError, Doing as _, sync_content, sync_dir},
    fact::Fact,
    index::Gist,
};

/// A segment that has reached this size is not appended to: 64 MiB, so that reading one whole
/// fits in memory.
pub(crate) const SEGMENT_BYTES: u32 = 64 << 20;

/// Where a record lies. Ordered as the journal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Location {
    pub(crate) segment: u32,
    /// Of the frame, from the start of the segment.
    pub(crate) offset: u32,
    /// Of the payload.
    pub(crate) len: u32,
}

impl Location {
    /// Behind the record.
    pub(crate) fn end(self) -> u32 {
        self.offset + FRAME_BYTES + self.len
    }
}

/// A record as it was appended or found.
#[derive(Debug, Clone)]
pub(crate) struct Placed {
    pub(crate) at: Location,
    pub(crate) crc: u32,
    pub(crate) gist: Gist,
}

/// Why a record could not be appended.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AppendError {
    /// The disk refused; what was appended in part has been taken back.
    #[error("the journal was not written")]
    Disk(#[source] DiskError),
    /// The disk refused in a way after which its content is unknown; open the store again.
    #[error("the journal takes no more until the store is opened again")]
    Refused(#[source] DiskError),
}

/// Why a record could not be read back.
#[derive(Debug, thiserror::Error)]
pub enum RecordReadError {
    /// The disk refused.
    #[error("the journal cannot be read")]
    Disk(#[source] DiskError),
    /// The frame at this place is not that of a whole record.
    #[error("segment {segment} of the journal is damaged at byte {offset}")]
    Frame {
        /// Number of the segment.
        segment: u32,
        /// Where its frame starts.
        offset: u32,
    },
    /// The record is whole, but not a fact that this version knows.
    #[error("segment {segment} of the journal has no fact at byte {offset}")]
    Fact {
        /// Number of the segment.
        segment: u32,
        /// Where its frame starts.
        offset: u32,
        /// What is wrong with it.
        #[source]
        source: protocol::encode::DecodeError,
    },
    /// The record is a fact, but another one than the index said.
    #[error("segment {segment} of the journal has another fact at byte {offset}")]
    Other {
        /// Number of the segment.
        segment: u32,
        /// Where its frame starts.
        offset: u32,
    },
}

/// A record that is to be appended.
pub(crate) struct Entry {
    pub(crate) payload: Vec<u8>,
    pub(crate) gist: Gist,
}

pub(crate) struct Journal {
    dir: PathBuf,
    /// The first record of the first segment names it.
    id: Mutex<[u8; 16]>,
    state: Mutex<State>,
    turn: Condvar,
    /// Open segments, for reading. At most as many as there are segments.
    readers: Mutex<HashMap<u32, Arc<File>>>,
}

struct State {
    queue: Vec<Entry>,
    /// What those in `queue` wait for.
    batch: Arc<Batch>,
    /// `None` while somebody writes, or has the journal for himself.
    tail: Option<Tail>,
}

#[derive(Default)]
struct Batch {
    outcome: OnceLock<Result<(), AppendError>>,
}

/// The end of the last segment.
pub(crate) struct Tail {
    pub(crate) file: File,
    pub(crate) segment: u32,
    /// Bytes that are durable: the segment is exactly this long between appends.
    pub(crate) len: u32,
    /// Set when it is not known any more what the disk holds.
    broken: Option<DiskError>,
}

/// The journal's tail, taken out: nobody appends meanwhile.
pub(crate) struct Exclusive<'j> {
    journal: &'j Journal,
    tail: Option<Tail>,
}

pub(crate) fn segment_path(dir: &Path, segment: u32) -> PathBuf {
    dir.join(format!("{segment:08}.log"))
}

impl Journal {
    pub(crate) fn new(dir: PathBuf, id: [u8; 16], tail: Tail) -> Self {
        let state = State { queue: Vec::new(), batch: Arc::default(), tail: Some(tail) };
        Self {
            dir,
            id: Mutex::new(id),
            state: Mutex::new(state),
            turn: Condvar::new(),
            readers: Mutex::default(),
        }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn id(&self) -> [u8; 16] {
        *lock(&self.id)
    }

    /// Appends `entries` in this order and returns when they are durable and `then` is done.
    ///
    /// Calls that come while the disk is busy are written together, by one of the callers, whose
    /// `then` serves all. `then` sees every record once and in the order of the journal.
    pub(crate) fn append(
        &self,
        entries: Vec<Entry>,
        then: impl FnOnce(Vec<Placed>),
    ) -> Result<(), AppendError> {
        let mut state = lock(&self.state);
        state.queue.extend(entries);
        let batch = state.batch.clone();
        loop {
            if let Some(outcome) = batch.outcome.get() {
                return outcome.clone();
            }
            let Some(tail) = state.tail.take() else {
                state = self.turn.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            // Nobody has taken the queue since we joined it, or our outcome would be there.
            let queue = std::mem::take(&mut state.queue);
            state.batch = Arc::default();
            drop(state);
            // Gives the tail back, whatever happens.
            let mut exclusive = Exclusive { journal: self, tail: Some(tail) };
            let outcome = exclusive.write(queue).map(then);
            let _ = batch.outcome.set(outcome.clone());
            drop(exclusive);
            return outcome;
        }
    }

    /// Waits until nobody appends, and keeps it so.
    pub(crate) fn exclusive(&self) -> Exclusive<'_> {
        let mut state = lock(&self.state);
        loop {
            match state.tail.take() {
                Some(tail) => return Exclusive { journal: self, tail: Some(tail) },
                None => state = self.turn.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// Reads the fact at `at`.
    pub(crate) fn read(&self, at: Location) -> Result<Fact, RecordReadError> {
        let Location { segment, offset, len } = at;
        let path = segment_path(&self.dir, segment);
        let damaged = RecordReadError::Frame { segment, offset };
        if len as usize > crate::fact::FACT_BYTES {
            return Err(damaged);
        }
        let file = self.reader(segment, &path).map_err(RecordReadError::Disk)?;
        let mut bytes = vec![0; (FRAME_BYTES + len) as usize];
        match file.read_exact_at(&mut bytes, u64::from(offset)) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Err(damaged),
            Err(e) => return Err(RecordReadError::Disk(DiskError::new("read", &path, e))),
        }
        match frame::whole(&bytes) {
            Some(frame) if frame.payload.len() == len as usize => Fact::from_bytes(frame.payload)
                .map_err(|source| RecordReadError::Fact { segment, offset, source }),
            _ => Err(damaged),
        }
    }

    fn reader(&self, segment: u32, path: &Path) -> Result<Arc<File>, DiskError> {
        let mut readers = lock(&self.readers);
        if let Some(file) = readers.get(&segment) {
            return Ok(file.clone());
        }
        let file = Arc::new(File::open(path).doing("open", path)?);
        readers.insert(segment, file.clone());
        Ok(file)
    }
}

impl Exclusive<'_> {
    /// The last segment and its length.
    pub(crate) fn end(&self) -> (u32, u32) {
        self.tail.as_ref().map_or((0, 0), |tail| (tail.segment, tail.len))
    }

    /// Replaces the journal by one that was recovered anew from the same directory.
    pub(crate) fn replace(&mut self, by: Journal) {
        *lock(&self.journal.id) = by.id();
        lock(&self.journal.readers).clear();
        self.tail = by.state.into_inner().unwrap_or_else(PoisonError::into_inner).tail;
    }

    /// Makes the journal refuse all writes until the store is opened again.
    pub(crate) fn give_up(&mut self, why: io::Error) {
        if let Some(tail) = &mut self.tail {
            tail.broken = Some(DiskError::new("write", &self.journal.dir, why));
        }
    }

    fn write(&mut self, queue: Vec<Entry>) -> Result<Vec<Placed>, AppendError> {
        match &mut self.tail {
            None => Ok(Vec::new()),
            Some(tail) => tail.append(&self.journal.dir, self.journal.id(), queue),
        }
    }
}

impl Drop for Exclusive<'_> {
    fn drop(&mut self) {
        lock(&self.journal.state).tail = self.tail.take();
        self.journal.turn.notify_all();
    }
}

impl Tail {
    pub(crate) fn new(file: File, segment: u32, len: u32) -> Self {
        Self { file, segment, len, broken: None }
    }

    /// Creates segment number `segment`, with its head, durably.
    pub(crate) fn create(dir: &Path, id: [u8; 16], segment: u32) -> Result<Self, DiskError> {
        let path = segment_path(dir, segment);
        let mut options = OpenOptions::new();
        // An earlier attempt that failed may have left it, without a whole record.
        let file = options.read(true).write(true).create(true).truncate(true).open(&path);
        let file = file.doing("create", &path)?;
        let head = frame::head(id, segment);
        file.write_all_at(&head, 0).and_then(|()| sync_content(&file)).doing("write", &path)?;
        sync_dir(dir)?;
        Ok(Self::new(file, segment, head.len() as u32))
    }

    fn append(&mut self, dir: &Path, id: [u8; 16], queue: Vec<Entry>) -> Result<Vec<Placed>, AppendError> {
        if let Some(cause) = &self.broken {
            return Err(AppendError::Refused(cause.clone()));
        }
        if self.len >= SEGMENT_BYTES {
            *self = Self::create(dir, id, self.segment + 1).map_err(AppendError::Disk)?;
        }
        let size = |entry: &Entry| FRAME_BYTES as usize + entry.payload.len();
        let mut bytes = Vec::with_capacity(queue.iter().map(size).sum());
        let mut placed = Vec::with_capacity(queue.len());
        for entry in queue {
            let offset = self.len + bytes.len() as u32;
            let crc = frame::put(&mut bytes, &entry.payload);
            let at = Location { segment: self.segment, offset, len: entry.payload.len() as u32 };
            placed.push(Placed { at, crc, gist: entry.gist });
        }
        let path = segment_path(dir, self.segment);
        if let Err(cause) = self.file.write_all_at(&bytes, u64::from(self.len)).doing("write", &path) {
            return Err(self.take_back(cause));
        }
        if let Err(cause) = sync_content(&self.file).doing("sync", &path) {
            // The unacknowledged is removed if that is possible, but nothing is written behind it.
            let _ = self.file.set_len(u64::from(self.len));
            self.broken = Some(cause.clone());
            return Err(AppendError::Refused(cause));
        }
        self.len += bytes.len() as u32;
        Ok(placed)
    }

    /// Removes what a failed write has left behind the last good record.
    fn take_back(&mut self, cause: DiskError) -> AppendError {
        match self.file.set_len(u64::from(self.len)) {
            Ok(()) => AppendError::Disk(cause),
            Err(_) => {
                self.broken = Some(cause.clone());
                AppendError::Refused(cause)
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str) -> Entry {
        let fact = Fact::Unpinned { name: name.into() };
        Entry { payload: fact.to_bytes(), gist: Gist::of(&fact) }
    }

    fn journal(dir: &Path) -> Journal {
        Journal::new(dir.to_owned(), [1; 16], Tail::create(dir, [1; 16], 1).unwrap())
    }

    #[test]
    fn appended_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let journal = journal(dir.path());
        let mut placed = Vec::new();
        journal.append(vec![entry("a"), entry("b")], |p| placed = p).unwrap();
        assert_eq!(journal.read(placed[1].at).unwrap(), Fact::Unpinned { name: "b".into() });
        for wrong in [
            Location { offset: placed[1].at.offset + 1, ..placed[1].at },
            Location { len: placed[1].at.len - 1, ..placed[1].at },
            Location { len: u32::MAX - 200, ..placed[1].at },
            Location { offset: u32::MAX - 200, ..placed[1].at },
        ] {
            assert!(matches!(journal.read(wrong), Err(RecordReadError::Frame { .. })), "{wrong:?}");
        }
    }

    /// When it is not known any more what the disk holds, nothing more is written, by anybody.
    #[test]
    fn after_a_failure_that_cannot_be_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let journal = journal(dir.path());
        journal.append(vec![entry("a")], |_| {}).unwrap();
        // Neither writing nor shortening succeeds on a file that is open for reading only.
        let path = segment_path(dir.path(), 1);
        let before = std::fs::read(&path).unwrap();
        let mut exclusive = journal.exclusive();
        let (segment, len) = exclusive.end();
        exclusive.tail = Some(Tail::new(File::open(&path).unwrap(), segment, len));
        drop(exclusive);
        for _ in 0..2 {
            let refused = journal.append(vec![entry("b")], |_| panic!("nothing was appended"));
            assert!(matches!(refused, Err(AppendError::Refused(cause)) if cause.path == path));
        }
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }
}
