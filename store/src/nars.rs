//! Archives: files named by the hash of their bytes (SPEC §9.1).
//!
//! The way in is tmp → hash and strict check → mode 0444 → fsync → rename → fsync of the
//! directory; there is no other. So whatever has a name is whole, and what was admitted is there
//! after a power cut. Reading maps the file; that its bytes still have its name's hash is checked
//! by `verify`, not on every reading.

use std::{
    fs::{self, File, Permissions},
    io::{self, Read, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError},
    time::SystemTime,
};

use protocol::{id::NarHash, nar};
use tempfile::NamedTempFile;

use crate::{
    Store,
    disk::{DiskError, Doing as _, sync_content, sync_dir, sync_file},
    map::{self, Map},
};

/// Bytes read at once on the way in: large enough for BLAKE3 to use wide vectors.
const READ_BYTES: usize = 256 << 10;

/// From here on, hashing with all cores pays.
const RAYON_BYTES: usize = 1 << 20;

/// From here on, a file is synced while it is hashed: less is not worth a thread, nor a second sync.
const SYNC_MEANWHILE: usize = 16 << 20;

/// What was admitted, or was there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admitted {
    /// The archive's hash.
    pub hash: NarHash,
    /// Its bytes.
    pub size: u64,
}

/// Why an archive was not admitted. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum AdmitError {
    /// The bytes are no archive (SPEC §8).
    #[error("not a NAR archive")]
    Format(#[source] nar::ReadError),
    /// The bytes are another archive than the one that was asked for.
    #[error("asked for {asked}, received {received}")]
    Hash {
        /// What was asked for.
        asked: NarHash,
        /// What came.
        received: NarHash,
    },
    /// More bytes than were allowed.
    #[error("more than the {limit} bytes that are allowed")]
    TooLong {
        /// Bytes allowed.
        limit: u64,
    },
    /// Whoever gave us the bytes stopped.
    #[error("the archive was not received whole")]
    Source(#[source] io::Error),
    /// Our own disk refused.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

impl AdmitError {
    /// Whether the bytes were wrong, and not our disk or the line.
    pub fn blames_sender(&self) -> bool {
        match self {
            Self::Format(_) | Self::Hash { .. } | Self::TooLong { .. } => true,
            Self::Source(_) | Self::Disk(_) => false,
        }
    }
}

/// Why an archive could not be read.
#[derive(Debug, thiserror::Error)]
pub enum GetError {
    /// It is not here.
    #[error("{hash} is not in the store")]
    Missing {
        /// What was asked for.
        hash: NarHash,
    },
    /// The file is no archive any more.
    #[error("{hash} is damaged on disk")]
    Damaged {
        /// What was asked for.
        hash: NarHash,
        /// The first rule that is broken.
        #[source]
        source: nar::ReadError,
    },
    /// The disk refused.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// Why a file could not be read as an archive.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It is no archive.
    #[error("not a NAR archive")]
    Format(#[from] nar::ReadError),
    /// The disk refused, or there is no such file.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// An archive in a file, mapped. Clones share the mapping, which outlives the file's removal.
///
/// It does not know its hash: whoever opened it by one does.
#[derive(Debug, Clone)]
pub struct Archive(Arc<Mapped>);

#[derive(Debug)]
struct Mapped {
    map: Map,
    index: nar::Index,
}

impl Archive {
    /// Maps the archive in the file at `path`, which must not be written to any more by anybody.
    ///
    /// # Errors
    ///
    /// [`ArchiveError`]: there is no such file, or it is no archive.
    pub fn open(path: &Path) -> Result<Self, ArchiveError> {
        let file = File::open(path).doing("open", path)?;
        let map = map_whole(&file, path)?;
        let index = nar::Index::read(&map)?;
        Ok(Self(Arc::new(Mapped { map, index })))
    }

    /// The archive's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0.map
    }

    /// Where each file lies in them.
    pub fn index(&self) -> &nar::Index {
        &self.0.index
    }

    /// How many bytes it has.
    pub fn size(&self) -> u64 {
        self.0.map.len() as u64
    }
}

impl Store {
    /// Where an archive is, or would be.
    pub fn nar_path(&self, hash: &NarHash) -> PathBuf {
        self.home.nar(hash)
    }

    /// Whether an archive is here.
    pub fn contains(&self, hash: &NarHash) -> bool {
        self.nar_path(hash).is_file()
    }

    /// Reads an archive of at most `limit` bytes to its end and keeps it, durably.
    ///
    /// # Errors
    ///
    /// [`AdmitError`]: it is no archive, or not the `expected` one, or too long, or reading or
    /// writing failed. Then nothing of it is kept.
    pub fn admit(
        &self,
        mut reader: impl Read,
        expected: Option<NarHash>,
        limit: u64,
    ) -> Result<Admitted, AdmitError> {
        let mut file = self.temp().doing("create a file in", &self.home.tmp)?;
        let hash = self.spool(&mut reader, limit, &mut file)?;
        self.check_and_name(file, hash, expected, None)
    }

    /// Copies at most `limit` bytes to a file and returns their hash.
    pub(crate) fn spool(
        &self,
        reader: &mut impl Read,
        limit: u64,
        file: &mut NamedTempFile,
    ) -> Result<NarHash, AdmitError> {
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; READ_BYTES];
        let mut size = 0;
        loop {
            let n = fill(reader, &mut buffer).map_err(AdmitError::Source)?;
            if n == 0 {
                return Ok(NarHash::from_bytes(*hasher.finalize().as_bytes()));
            }
            size += n as u64;
            if size > limit {
                return Err(AdmitError::TooLong { limit });
            }
            hasher.update(&buffer[..n]);
            file.write_all(&buffer[..n]).doing("write", file.path())?;
        }
    }

    /// Keeps an archive that is already in a file made by [`Store::temp`], durably.
    ///
    /// The file must not be written to any more by anybody.
    pub fn admit_file(&self, file: NamedTempFile, expected: Option<NarHash>) -> Result<Admitted, AdmitError> {
        let map = map_whole(file.as_file(), file.path())?;
        let hash = match map.len() < SYNC_MEANWHILE {
            true => hash(&map),
            false => std::thread::scope(|scope| {
                let synced = scope.spawn(|| sync_content(file.as_file()));
                let hash = hash(&map);
                // An error of the disk is told once, so it must not get lost.
                let synced = synced.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()));
                synced.doing("sync", file.path()).map(|()| hash)
            })?,
        };
        self.check_and_name(file, hash, expected, Some(map))
    }

    fn check_and_name(
        &self,
        file: NamedTempFile,
        hash: NarHash,
        expected: Option<NarHash>,
        map: Option<Map>,
    ) -> Result<Admitted, AdmitError> {
        if let Some(asked) = expected
            && asked != hash
        {
            return Err(AdmitError::Hash { asked, received: hash });
        }
        let map = match map {
            Some(map) => map,
            None => map_whole(file.as_file(), file.path())?,
        };
        nar::Index::read(&map).map_err(AdmitError::Format)?;
        let size = map.len() as u64;
        drop(map);
        self.name(file, hash, size)?;
        Ok(Admitted { hash, size })
    }

    /// Gives a checked file its name, unless it has it already.
    fn name(&self, file: NamedTempFile, hash: NarHash, size: u64) -> Result<(), DiskError> {
        let to = self.nar_path(&hash);
        let dir = to.parent().unwrap_or(&self.home.cas);
        self.make_durable(dir)?;
        if self.touch(&to, hash, size)? {
            // Whoever named it may not have synced the directory yet.
            return sync_dir(dir);
        }
        let path = file.path().to_owned();
        file.as_file().set_permissions(Permissions::from_mode(0o444)).doing("protect", &path)?;
        sync_file(file.as_file()).doing("sync", &path)?;
        let mut naming = self.naming.lock().unwrap_or_else(PoisonError::into_inner);
        file.persist(&to).map_err(|e| e.error).doing("rename to", &to)?;
        naming.iter_mut().for_each(|young| _ = young.insert(hash));
        drop(naming);
        sync_dir(dir)
    }

    /// Makes a directory of `cas/` and its name durable, once for each: that it exists does not say
    /// so, because whoever made it may have been killed, or may not have come to syncing it yet.
    fn make_durable(&self, dir: &Path) -> Result<(), DiskError> {
        let mut durable = self.durable.lock().unwrap_or_else(PoisonError::into_inner);
        if !durable.contains(dir) {
            fs::create_dir_all(dir).doing("create", dir)?;
            sync_dir(&self.home.cas)?;
            durable.insert(dir.to_owned());
        }
        Ok(())
    }

    /// Marks an archive that is here with the right size as admitted just now; false if it is not.
    fn touch(&self, path: &Path, hash: NarHash, size: u64) -> Result<bool, DiskError> {
        let mut naming = self.naming.lock().unwrap_or_else(PoisonError::into_inner);
        let file = match File::open(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            other => other.doing("open", path)?,
        };
        if file.metadata().doing("look at", path)?.len() != size {
            return Ok(false);
        }
        file.set_modified(SystemTime::now()).doing("touch", path)?;
        naming.iter_mut().for_each(|young| _ = young.insert(hash));
        Ok(true)
    }

    /// Opens an archive for reading in place. That its bytes have this hash is not checked.
    ///
    /// # Errors
    ///
    /// [`GetError`]: it is not here, or is damaged in a way that shows without hashing it.
    pub fn open_nar(&self, hash: &NarHash) -> Result<Archive, GetError> {
        Archive::open(&self.nar_path(hash)).map_err(|error| match error {
            ArchiveError::Format(source) => GetError::Damaged { hash: *hash, source },
            ArchiveError::Disk(e) if e.source.kind() == io::ErrorKind::NotFound => {
                GetError::Missing { hash: *hash }
            }
            ArchiveError::Disk(e) => e.into(),
        })
    }
}

/// Maps a file. An empty one too, as no bytes.
pub(crate) fn map_whole(file: &File, path: &Path) -> Result<Map, DiskError> {
    map::map(file).doing("map", path)
}

/// The hash of an archive's bytes, with as many cores as pays.
pub(crate) fn hash(bytes: &[u8]) -> NarHash {
    let mut hasher = blake3::Hasher::new();
    if bytes.len() >= RAYON_BYTES {
        hasher.update_rayon(bytes)
    } else {
        hasher.update(bytes)
    };
    NarHash::from_bytes(*hasher.finalize().as_bytes())
}

/// Reads until the buffer is full or the reader at its end.
fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A store in a directory of its own, both removed in the end.
    fn store() -> (tempfile::TempDir, Store) {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path(), |_| false).unwrap();
        assert_eq!(store.notices(), []);
        (home, store)
    }

    fn archive(content: &[u8]) -> Vec<u8> {
        nar::dump_file(Vec::new(), false, content.len() as u64, content).unwrap()
    }

    #[test]
    fn admitted_is_found() {
        let (_home, store) = store();
        let bytes = archive(b"hello");
        let hash = NarHash::of(&bytes);
        assert!(matches!(store.open_nar(&hash), Err(GetError::Missing { .. })));
        let expected = Admitted { hash, size: bytes.len() as u64 };
        for _ in 0..2 {
            assert_eq!(store.admit(&bytes[..], Some(hash), 1000).unwrap(), expected);
        }
        let mut file = store.temp().unwrap();
        file.write_all(&bytes).unwrap();
        assert_eq!(store.admit_file(file, None).unwrap(), expected);
        let found = store.open_nar(&hash).unwrap();
        assert_eq!((found.bytes(), found.index().len()), (&bytes[..], 1));
        let mode = fs::metadata(store.nar_path(&hash)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o444);
        assert_eq!(fs::read_dir(&store.home.tmp).unwrap().count(), 0);
    }

    #[test]
    fn refused_leaves_nothing() {
        let (_home, store) = store();
        let bytes = archive(b"hello");
        let other = NarHash::from_bytes([0; 32]);
        let admit = |bytes: &[u8], expected, limit| store.admit(bytes, expected, limit).unwrap_err();
        assert!(matches!(admit(&bytes, Some(other), 1000), AdmitError::Hash { asked, .. } if asked == other));
        assert!(matches!(admit(&bytes[1..], None, 1000), AdmitError::Format(_)));
        assert!(matches!(admit(&bytes, None, bytes.len() as u64 - 1), AdmitError::TooLong { .. }));
        assert!(matches!(admit(b"", None, 1000), AdmitError::Format(_)));
        assert!(matches!(store.admit_file(store.temp().unwrap(), None), Err(AdmitError::Format(_))));
        for dir in [&store.home.cas, &store.home.tmp] {
            assert_eq!(fs::read_dir(dir).unwrap().count(), 0);
        }
    }

    #[test]
    fn a_shortened_archive_is_replaced() {
        let (_home, store) = store();
        let bytes = archive(b"hello");
        let hash = store.admit(&bytes[..], None, 1000).unwrap().hash;
        fs::remove_file(store.nar_path(&hash)).unwrap();
        fs::write(store.nar_path(&hash), b"short").unwrap();
        assert!(matches!(store.open_nar(&hash), Err(GetError::Damaged { .. })));
        store.admit(&bytes[..], None, 1000).unwrap();
        assert_eq!(store.open_nar(&hash).unwrap().bytes(), bytes);
    }
}
