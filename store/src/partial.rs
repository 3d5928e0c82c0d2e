//! Archives that are on their way: pieces of a file that come in any order and survive a restart.
//!
//! ```text
//! partial/cdef….part   the bytes, as far as they are there
//! partial/cdef….have   a bit for each piece that was synced, and the BLAKE3 hash of these bits
//! ```
//!
//! Whoever writes a piece has verified it. That is not enough for an archive to get its name: all of
//! it is hashed once more on the way in, so what the disk lost in between costs one more download,
//! and nothing worse. Bits are written behind a sync of the bytes they speak of, which others go on
//! writing during: of a disk that keeps up, twice [`SYNC_BYTES`] are fetched again at most after a crash.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use protocol::{id::NarHash, limits, message};
use tempfile::{NamedTempFile, TempPath};

use crate::{
    AdmitError, Admitted, DiskError, Store,
    disk::{Doing as _, create_dir, sync_content},
};

/// Longest archive that comes in pieces, in bytes: a bit for each takes 128 KiB.
pub const PARTIAL_BYTES: u64 = 1 << 40;

/// Bytes that are written before they should be synced and noted.
const SYNC_BYTES: u64 = 64 << 20;

/// Bytes of the hash behind the bits.
const HASH_BYTES: usize = 32;

/// An archive of which some pieces are there. One has it open at a time; any number of threads write.
#[derive(Debug)]
pub struct Partial {
    nar: NarHash,
    size: u64,
    file: File,
    part: PathBuf,
    pieces: Mutex<Pieces>,
    /// Held while it is written to: the system lets one in at a time, and the others burn their time.
    writing: Mutex<()>,
    /// Held while it is synced and noted.
    syncing: Mutex<()>,
}

/// What is there.
#[derive(Debug)]
struct Pieces {
    have: Vec<u8>,
    left: u64,
    /// Bytes written since they were last synced.
    unsynced: u64,
    /// Syncing failed. The system says so once, and takes for written what it then forgets (fsync(2)), so
    /// nothing that was not synced before is believed any more.
    failed: bool,
}

impl Store {
    /// The pieces that are there of an archive of `size` bytes; none if nothing is. Returns `None` if it is
    /// whole, and in the store. Waits until nobody else has it open.
    ///
    /// # Errors
    ///
    /// The disk refused. An archive longer than [`PARTIAL_BYTES`] is refused as the disk would.
    pub fn partial(&self, nar: &NarHash, size: u64) -> Result<Option<Partial>, DiskError> {
        let dir = &self.home.partial;
        let part = dir.join(format!("{}.part", nar.to_hex()));
        if size > PARTIAL_BYTES {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge)).doing("receive", &part);
        }
        create_dir(dir, 0o700)?;
        let bits = message::pieces(size).div_ceil(8) as usize;
        let file = open_alone(&part)?;
        if self.contains(nar) {
            remove(&have(&part))?;
            remove(&part)?;
            return Ok(None);
        }
        // What is noted is of a file that is there, and has its length.
        let there = file.metadata().doing("look at", &part)?.len() == size;
        let noted = if there { read_bits(&part, bits) } else { None };
        if noted.is_none() {
            remove(&have(&part))?;
            file.set_len(0).doing("write", &part)?;
        }
        file.set_len(size).doing("write", &part)?;
        let have = noted.unwrap_or_else(|| vec![0; bits]);
        let mut pieces = Pieces { have, left: 0, unsynced: 0, failed: false };
        pieces.left = (0..message::pieces(size)).filter(|piece| !pieces.has(*piece)).count() as u64;
        let (pieces, writing, syncing) = (Mutex::new(pieces), Mutex::new(()), Mutex::new(()));
        Ok(Some(Partial { nar: *nar, size, file, part, pieces, writing, syncing }))
    }

    /// Keeps an archive all of whose pieces are there, durably. Whatever becomes of it, the pieces
    /// are gone, unless the disk failed before.
    ///
    /// # Errors
    ///
    /// [`AdmitError`]: it is no archive, or not that one, because the disk lost something or
    /// because pieces are missing.
    pub fn admit_partial(&self, partial: Partial) -> Result<Admitted, AdmitError> {
        partial.lock().sound().doing("sync", &partial.part)?;
        let Partial { nar, file, part, .. } = partial;
        // Locked until the note is gone, which would be the next one's.
        let lock = file.try_clone().doing("open", &part)?;
        if !is_named(&file, &part)? {
            Err(io::Error::from(io::ErrorKind::NotFound)).doing("find", &part)?;
        }
        let path = TempPath::try_from_path(part.clone()).doing("find", &part)?;
        let admitted = self.admit_file(NamedTempFile::from_parts(file, path), Some(nar));
        // Behind it, for a process that is killed while it hashes; and if it stays, nobody believes it.
        let _ = remove(&have(&part));
        drop(lock);
        admitted
    }
}

impl Partial {
    /// The archive.
    pub fn nar(&self) -> &NarHash {
        &self.nar
    }

    /// Its bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The pieces that are not there.
    pub fn missing(&self) -> BTreeSet<u64> {
        let pieces = self.lock();
        (0..message::pieces(self.size)).filter(|piece| !pieces.has(*piece)).collect()
    }

    /// How many are not there.
    pub fn left(&self) -> u64 {
        self.lock().left
    }

    /// Writes a piece that was verified, and says whether so much was written that it should be synced.
    ///
    /// # Errors
    ///
    /// The disk refused; then the piece is not there.
    ///
    /// # Panics
    ///
    /// If the archive has no such piece, or it is of another length.
    pub fn write(&self, piece: u64, bytes: &[u8]) -> Result<bool, DiskError> {
        let start = piece * limits::PIECE_BYTES;
        assert!(start < self.size, "piece {piece} of {} bytes", self.size);
        assert_eq!(bytes.len() as u64, limits::PIECE_BYTES.min(self.size - start), "piece {piece}");
        let pieces = self.lock();
        pieces.sound().doing("sync", &self.part)?;
        if pieces.has(piece) {
            return Ok(false);
        }
        drop(pieces);
        let writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.file.write_all_at(bytes, start).doing("write", &self.part)?;
        drop(writing);
        let mut pieces = self.lock();
        // Two may have written the same.
        if !pieces.has(piece) {
            pieces.have[(piece / 8) as usize] |= 1 << (piece % 8);
            pieces.left -= 1;
            pieces.unsynced += bytes.len() as u64;
        }
        // The last one is synced when the archive gets its name.
        Ok(pieces.unsynced >= SYNC_BYTES && pieces.left > 0 && self.syncing.try_lock().is_ok())
    }

    /// Makes what is there outlive this process, and the machine's end. Others may write meanwhile.
    ///
    /// # Errors
    ///
    /// The disk refused.
    pub fn sync(&self) -> Result<(), DiskError> {
        let _syncing = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut pieces = self.lock();
        pieces.sound().doing("sync", &self.part)?;
        if std::mem::take(&mut pieces.unsynced) == 0 {
            return Ok(());
        }
        let mut note = pieces.have.clone();
        drop(pieces);
        let synced = sync_content(&self.file);
        self.lock().failed |= synced.is_err();
        synced.doing("sync", &self.part)?;
        note.extend(blake3::hash(&note).as_bytes());
        let have = have(&self.part);
        let new = have.with_extension("new");
        fs::write(&new, note).doing("write", &new)?;
        // Not synced: a crash may take the note back, and so it may be of an earlier moment.
        fs::rename(&new, &have).doing("rename to", &have)
    }

    fn lock(&self) -> MutexGuard<'_, Pieces> {
        self.pieces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pieces {
    fn sound(&self) -> io::Result<()> {
        match self.failed {
            true => Err(io::Error::other("it failed before")),
            false => Ok(()),
        }
    }

    fn has(&self, piece: u64) -> bool {
        let byte = usize::try_from(piece / 8).ok().and_then(|at| self.have.get(at));
        byte.is_some_and(|byte| byte >> (piece % 8) & 1 == 1)
    }
}

/// Opens a file once nobody else has it open; one that was emptied while it is hashed would be no less
/// than the end of the process (mmap(2)).
fn open_alone(part: &Path) -> Result<File, DiskError> {
    loop {
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(part).doing("open", part)?;
        file.lock().doing("lock", part)?;
        // Whoever had it open may have given it another name, or removed it.
        if is_named(&file, part)? {
            return Ok(file);
        }
    }
}

/// Whether a name is that of an open file.
fn is_named(file: &File, name: &Path) -> Result<bool, DiskError> {
    let file = file.metadata().doing("look at", name)?;
    Ok(fs::metadata(name).is_ok_and(|named| (named.dev(), named.ino()) == (file.dev(), file.ino())))
}

fn have(part: &Path) -> PathBuf {
    part.with_extension("have")
}

/// The bits, if they are whole.
fn read_bits(part: &Path, len: usize) -> Option<Vec<u8>> {
    let path = have(part);
    if fs::metadata(&path).ok()?.len() != (len + HASH_BYTES) as u64 {
        return None;
    }
    let mut bits = fs::read(path).ok()?;
    let hash = bits.split_off(len);
    (hash == blake3::hash(&bits).as_bytes()).then_some(bits)
}

fn remove(path: &Path) -> Result<(), DiskError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.doing("remove", path),
    }
}

#[cfg(test)]
mod tests {
    use protocol::nar;

    use super::*;

    const PIECE: usize = limits::PIECE_BYTES as usize;

    fn archive() -> Vec<u8> {
        let content: Vec<u8> = (0..2 * PIECE + PIECE / 2).map(|n| (n / 7) as u8).collect();
        nar::dump_file(Vec::new(), false, content.len() as u64, &content[..]).unwrap()
    }

    fn write(partial: &Partial, bytes: &[u8], piece: u64) {
        let start = piece as usize * PIECE;
        partial.write(piece, &bytes[start..bytes.len().min(start + PIECE)]).unwrap();
    }

    fn open(store: &Store, bytes: &[u8]) -> Partial {
        store.partial(&NarHash::of(bytes), bytes.len() as u64).unwrap().unwrap()
    }

    fn files(store: &Store) -> usize {
        fs::read_dir(&store.home.partial).unwrap().count()
    }

    #[test]
    fn pieces_come_in_any_order_and_survive() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path(), |_| false).unwrap();
        let bytes = archive();
        let hash = NarHash::of(&bytes);
        let partial = open(&store, &bytes);
        assert_eq!(partial.missing(), BTreeSet::from([0, 1, 2]));
        write(&partial, &bytes, 2);
        partial.sync().unwrap();
        // Not synced: it is not there after a crash.
        write(&partial, &bytes, 0);
        drop(partial);
        let partial = open(&store, &bytes);
        assert_eq!((partial.left(), partial.missing()), (2, BTreeSet::from([0, 1])));
        write(&partial, &bytes, 1);
        write(&partial, &bytes, 1);
        write(&partial, &bytes, 0);
        assert_eq!(partial.left(), 0);
        assert!(!store.contains(&hash));
        store.admit_partial(partial).unwrap();
        assert_eq!(store.open_nar(&hash).unwrap().bytes(), bytes);
        assert_eq!(files(&store), 0);
    }

    #[test]
    fn many_write_while_it_is_synced() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path(), |_| false).unwrap();
        let bytes = archive();
        let partial = open(&store, &bytes);
        std::thread::scope(|scope| {
            for piece in [0, 1, 2, 2, 1, 0] {
                let (partial, bytes) = (&partial, &bytes);
                scope.spawn(move || write(partial, bytes, piece));
                scope.spawn(move || partial.sync().unwrap());
            }
        });
        partial.sync().unwrap();
        assert_eq!(partial.left(), 0);
        drop(partial);
        let partial = open(&store, &bytes);
        assert_eq!(partial.left(), 0);
        store.admit_partial(partial).unwrap();
    }

    /// Emptied now, the file would end this process, which has mapped it.
    #[test]
    fn nobody_opens_what_is_hashed() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path(), |_| false).unwrap();
        let bytes: Vec<u8> = archive().repeat(20);
        let bytes = nar::dump_file(Vec::new(), false, bytes.len() as u64, &bytes[..]).unwrap();
        let partial = open(&store, &bytes);
        (0..message::pieces(partial.size())).for_each(|piece| write(&partial, &bytes, piece));
        std::thread::scope(|scope| {
            scope.spawn(|| store.admit_partial(partial).unwrap());
            for _ in 0..3 {
                scope.spawn(|| {
                    assert!(store.partial(&NarHash::of(&bytes), bytes.len() as u64).unwrap().is_none());
                });
            }
        });
        assert_eq!(store.open_nar(&NarHash::of(&bytes)).unwrap().bytes(), bytes);
        assert_eq!(files(&store), 0);
    }

    /// Its name would be somebody else's file by the time it is admitted.
    #[test]
    fn what_is_open_is_not_swept() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path(), |_| false).unwrap();
        let bytes = archive();
        let partial = open(&store, &bytes);
        (0..3).for_each(|piece| write(&partial, &bytes, piece));
        let all = crate::GcOptions { older_than: Some(std::time::Duration::ZERO), ..Default::default() };
        store.gc(&all).unwrap();
        assert!(partial.part.exists());
        store.admit_partial(partial).unwrap();
        assert_eq!(store.open_nar(&NarHash::of(&bytes)).unwrap().bytes(), bytes);
        // Whose name is gone is not admitted by it.
        store.gc(&all).unwrap();
        let partial = open(&store, &bytes);
        (0..3).for_each(|piece| write(&partial, &bytes, piece));
        fs::remove_file(&partial.part).unwrap();
        let other = open(&store, &bytes);
        assert!(matches!(store.admit_partial(partial), Err(AdmitError::Disk(_))));
        drop(other);
        assert_eq!(open(&store, &bytes).left(), 3);
        // What nobody has open is.
        store.gc(&all).unwrap();
        assert_eq!(files(&store), 0);
    }

    /// The system forgets what it could not write, and that it could not: only who was told knows.
    #[test]
    fn what_could_not_be_synced_is_not_believed() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path(), |_| false).unwrap();
        let bytes = archive();
        let mut partial = open(&store, &bytes);
        write(&partial, &bytes, 0);
        partial.sync().unwrap();
        write(&partial, &bytes, 1);
        // Nothing can be synced there.
        let whole = std::mem::replace(&mut partial.file, File::create("/dev/null").unwrap());
        assert!(partial.sync().is_err());
        partial.file = whole;
        assert!(partial.sync().is_err());
        assert!(partial.write(2, &bytes[2 * PIECE..]).is_err());
        assert!(matches!(store.admit_partial(partial), Err(AdmitError::Disk(_))));
        assert_eq!(open(&store, &bytes).missing(), BTreeSet::from([1, 2]));
    }

    /// What the disk lost is found out before the archive has its name.
    #[test]
    fn what_is_damaged_gets_no_name() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path(), |_| false).unwrap();
        let bytes = archive();
        let hash = NarHash::of(&bytes);
        let all = |partial: &Partial| (0..3).for_each(|piece| write(partial, &bytes, piece));
        let partial = open(&store, &bytes);
        all(&partial);
        partial.sync().unwrap();
        partial.file.write_all_at(b"x", 99).unwrap();
        assert!(matches!(store.admit_partial(partial), Err(AdmitError::Hash { .. })));
        assert_eq!((files(&store), store.contains(&hash)), (0, false));
        // Nor is a note believed that is torn, or of a file that is gone or has another length.
        let part = store.home.partial.join(format!("{}.part", hash.to_hex()));
        let spoil: [&dyn Fn(); 3] =
            [&|| fs::write(have(&part), b"\x07").unwrap(), &|| fs::remove_file(&part).unwrap(), &|| {
                File::options().write(true).open(&part).unwrap().set_len(5).unwrap()
            }];
        for spoil in spoil {
            let partial = open(&store, &bytes);
            assert_eq!(partial.left(), 3);
            all(&partial);
            partial.sync().unwrap();
            drop(partial);
            assert_eq!(open(&store, &bytes).left(), 0);
            spoil();
        }
        assert_eq!(open(&store, &bytes).left(), 3);
        assert!(store.partial(&hash, PARTIAL_BYTES + 1).unwrap_err().is_full());
    }
}
