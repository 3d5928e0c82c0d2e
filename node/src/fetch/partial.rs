//! A file on its way: what has come of it, hashed as it comes, kept over interruptions.
//!
//! ```text
//! work/<algorithm>-<hex>.part    the bytes so far; locked by whoever adds to them
//! work/<algorithm>-<hex>.json    which URL they came from, and how to ask for the rest of the same
//! work/<algorithm>-<hex>         the whole file, verified
//! ```

use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Seek, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use protocol::sri::{Algorithm, Sri};
use serde::{Deserialize, Serialize};
use sha2::Digest;

use super::error::FetchError;

/// Bytes read from a file at a time.
const CHUNK: usize = 256 << 10;

/// How often a wait looks whether it should end.
pub(super) const TICK: Duration = Duration::from_millis(50);

/// How to ask for the rest of a file, and be told if it has become another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Origin {
    /// The BLAKE3 hash of the URL: URLs may hold secrets, and need not be read back.
    pub(super) url: String,
    /// A strong `ETag`, or a `Last-Modified`, for `If-Range`.
    pub(super) validator: String,
}

/// A file that is being fetched. One at a time per hash: the others wait.
#[derive(Debug)]
pub(super) struct Partial {
    expected: Sri,
    whole: PathBuf,
    part: PathBuf,
    note: PathBuf,
    file: File,
    length: u64,
    /// Of the first `length` bytes; `None` until those found on disk have been hashed.
    hasher: Option<Hasher>,
}

impl Partial {
    /// Opens what there is of the file with hash `expected` in `work`, alone.
    pub(super) fn open(work: &Path, expected: &Sri, cancel: &AtomicBool) -> Result<Self, FetchError> {
        fs::create_dir_all(work).map_err(disk(work))?;
        let hex = data_encoding::HEXLOWER.encode(expected.digest());
        let name = format!("{}-{hex}", expected.algorithm().name());
        let (part, note) = (work.join(format!("{name}.part")), work.join(format!("{name}.json")));
        let file = lock(&part, cancel)?;
        let length = file.metadata().map_err(disk(&part))?.len();
        Ok(Self {
            expected: expected.clone(),
            whole: work.join(name),
            part,
            note,
            file,
            length,
            hasher: None,
        })
    }

    /// The whole file, if it is here from an earlier run and still has its hash.
    pub(super) fn verified(&self, cancel: &AtomicBool) -> Result<Option<PathBuf>, FetchError> {
        match File::open(&self.whole) {
            Ok(file) => {
                let mut hasher = Hasher::new(self.expected.algorithm());
                hash_file(file, &self.whole, &mut hasher, cancel)?;
                Ok((hasher.finish() == self.expected).then(|| self.whole.clone()))
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(disk(&self.whole)(e)),
        }
    }

    /// How many bytes there are.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Where to go on with a file from `url`: how many bytes there are, and their validator.
    pub(super) fn resumable(&self, url: &str) -> Option<(u64, String)> {
        if self.length == 0 {
            return None;
        }
        let origin: Origin = serde_json::from_slice(&fs::read(&self.note).ok()?).ok()?;
        (origin.url == key(url)).then_some((self.length, origin.validator))
    }

    /// Makes ready to add to what there is.
    pub(super) fn resume(&mut self, cancel: &AtomicBool) -> Result<(), FetchError> {
        if self.hasher.is_none() {
            let mut hasher = Hasher::new(self.expected.algorithm());
            self.file.rewind().map_err(disk(&self.part))?;
            hash_file(&self.file, &self.part, &mut hasher, cancel)?;
            self.hasher = Some(hasher);
        }
        Ok(())
    }

    /// Forgets what there is, and makes ready to begin with a file from `url`.
    pub(super) fn restart(&mut self, url: &str, validator: Option<String>) -> Result<(), FetchError> {
        // The note goes first: bytes must never stand beside the note of others.
        self.forget_origin()?;
        self.file.set_len(0).and_then(|()| self.file.rewind()).map_err(disk(&self.part))?;
        (self.length, self.hasher) = (0, Some(Hasher::new(self.expected.algorithm())));
        if let Some(validator) = validator {
            let text = serde_json::to_vec(&Origin { url: key(url), validator }).expect("two strings");
            fs::write(&self.note, text).map_err(disk(&self.note))?;
        }
        Ok(())
    }

    /// Adds bytes.
    pub(super) fn add(&mut self, bytes: &[u8]) -> Result<(), FetchError> {
        self.file.write_all(bytes).map_err(disk(&self.part))?;
        self.hasher.as_mut().expect("resumed or restarted").update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Takes a copy of a file of this machine, if it is no longer than `limit`.
    pub(super) fn copy(&mut self, path: &Path, limit: u64, cancel: &AtomicBool) -> Result<(), FetchError> {
        let mut file = File::open(path).map_err(disk(path))?;
        let found = file.metadata().map_err(disk(path))?.len();
        if found > limit {
            let location = path.display().to_string();
            return Err(FetchError::TooLong { location, found: Some(found), limit });
        }
        self.restart("", None)?;
        let mut chunk = vec![0; CHUNK];
        loop {
            check(cancel)?;
            match file.read(&mut chunk).map_err(disk(path))? {
                0 => return Ok(()),
                n => self.add(&chunk[..n])?,
            }
        }
    }

    /// Whether the file has its hash; `Err` is the hash it has instead, and then the file is gone.
    pub(super) fn verify(&mut self) -> Result<Result<PathBuf, Sri>, FetchError> {
        let found = self.hasher.take().expect("resumed or restarted").finish();
        self.forget_origin()?;
        if found != self.expected {
            self.file.set_len(0).and_then(|()| self.file.rewind()).map_err(disk(&self.part))?;
            self.length = 0;
            return Ok(Err(found));
        }
        fs::rename(&self.part, &self.whole).map_err(disk(&self.whole))?;
        Ok(Ok(self.whole.clone()))
    }

    /// Removes the file if it is empty, so that failures leave nothing behind.
    pub(super) fn close(self) {
        if self.length == 0 {
            let _ = fs::remove_file(&self.part);
            let _ = fs::remove_file(&self.note);
        }
    }

    fn forget_origin(&self) -> Result<(), FetchError> {
        match fs::remove_file(&self.note) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(disk(&self.note)(e)),
            _ => Ok(()),
        }
    }
}

/// Whether the caller has asked to stop.
pub(super) fn check(cancel: &AtomicBool) -> Result<(), FetchError> {
    if cancel.load(Ordering::Relaxed) { Err(FetchError::Cancelled) } else { Ok(()) }
}

/// An error of our disk.
pub(super) fn disk(path: &Path) -> impl Fn(std::io::Error) -> FetchError + '_ {
    |source| FetchError::Disk { path: path.to_owned(), source }
}

fn key(url: &str) -> String {
    blake3::hash(url.as_bytes()).to_hex().to_string()
}

/// Opens the file at `path` and waits until nobody else has it.
fn lock(path: &Path, cancel: &AtomicBool) -> Result<File, FetchError> {
    loop {
        let mut options = OpenOptions::new();
        let file =
            options.read(true).write(true).create(true).truncate(false).open(path).map_err(disk(path))?;
        loop {
            check(cancel)?;
            match file.try_lock() {
                Ok(()) => break,
                Err(fs::TryLockError::WouldBlock) => std::thread::sleep(TICK),
                Err(fs::TryLockError::Error(e)) => return Err(disk(path)(e)),
            }
        }
        // Whoever had it may have renamed or removed it: then the lock is on a file of another name.
        let held = file.metadata().map_err(disk(path))?.ino();
        if fs::metadata(path).is_ok_and(|there| there.ino() == held) {
            return Ok(file);
        }
    }
}

fn hash_file(
    mut file: impl Read,
    path: &Path,
    hasher: &mut Hasher,
    cancel: &AtomicBool,
) -> Result<(), FetchError> {
    let mut chunk = vec![0; CHUNK];
    loop {
        check(cancel)?;
        match file.read(&mut chunk).map_err(disk(path))? {
            0 => return Ok(()),
            n => hasher.update(&chunk[..n]),
        }
    }
}

/// The hash of some bytes, by one of the three functions.
pub(super) fn hash(algorithm: Algorithm, bytes: &[u8]) -> Sri {
    let mut hasher = Hasher::new(algorithm);
    hasher.update(bytes);
    hasher.finish()
}

/// Any of the three hash functions.
#[derive(Debug)]
enum Hasher {
    Sha256(sha2::Sha256),
    Sha512(sha2::Sha512),
    Blake3(Box<blake3::Hasher>),
}

impl Hasher {
    fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => Self::Sha512(sha2::Sha512::new()),
            Algorithm::Blake3 => Self::Blake3(Box::default()),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(h) => h.update(bytes),
            Self::Sha512(h) => h.update(bytes),
            Self::Blake3(h) => drop(h.update(bytes)),
        }
    }

    fn finish(self) -> Sri {
        let (algorithm, digest) = match self {
            Self::Sha256(h) => (Algorithm::Sha256, h.finalize().to_vec()),
            Self::Sha512(h) => (Algorithm::Sha512, h.finalize().to_vec()),
            Self::Blake3(h) => (Algorithm::Blake3, h.finalize().as_bytes().to_vec()),
        };
        Sri::new(algorithm, digest).expect("a digest has its algorithm's length")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static NEVER: AtomicBool = AtomicBool::new(false);

    #[test]
    fn bytes_survive_and_are_hashed_once_whole() {
        for sri in [
            "sha256-ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=",
            "sha512-3a81oZNherrMQXNJriBBMRLm+k6JqX6iCp7u5ktV05ohkpkqJ0/BqDa6PCOj/uu9RU1EI2Q86A4qmslPpUyknw==",
            "blake3-ZDezrDhGUTP/tjt1JzqNtUjFWEZdedsD/TWcbNW9nYU=",
        ] {
            let dir = tempfile::tempdir().unwrap();
            let mut partial = open(&dir, sri);
            partial.restart("http://a/", Some("\"1\"".into())).unwrap();
            partial.add(b"a").unwrap();
            drop(partial);

            let mut partial = open(&dir, sri);
            assert_eq!(partial.resumable("http://b/"), None);
            assert_eq!(partial.resumable("http://a/"), Some((1, "\"1\"".into())));
            partial.resume(&NEVER).unwrap();
            partial.add(b"bc").unwrap();
            let found = partial.verify().unwrap();
            match found {
                Ok(path) => assert_eq!(fs::read(path).unwrap(), b"abc"),
                Err(other) => panic!("{other}"),
            }
            assert!(open(&dir, sri).verified(&NEVER).unwrap().is_some());
        }
    }

    #[test]
    fn another_file_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let sri = "sha256-ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=";
        let mut partial = open(&dir, sri);
        partial.restart("http://a/", Some("x".into())).unwrap();
        partial.add(b"abd").unwrap();
        assert_ne!(partial.verify().unwrap().unwrap_err().to_string(), sri);
        partial.close();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_damaged_whole_file_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let partial = open(&dir, "sha256-ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=");
        fs::write(&partial.whole, "abd").unwrap();
        assert_eq!(partial.verified(&NEVER).unwrap(), None);
    }

    #[test]
    fn one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let sri = "sha256-ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=";
        let first = open(&dir, sri);
        let cancel = AtomicBool::new(true);
        let second = Partial::open(dir.path(), &sri.parse().unwrap(), &cancel);
        assert!(matches!(second, Err(FetchError::Cancelled)));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| open(&dir, sri).length());
            std::thread::sleep(TICK);
            first.close(); // Removes the file that the other waits for: it must open a new one.
            assert_eq!(waiting.join().unwrap(), 0);
        });
        assert!(dir.path().read_dir().unwrap().count() == 1);
    }

    fn open(dir: &tempfile::TempDir, sri: &str) -> Partial {
        Partial::open(dir.path(), &sri.parse().unwrap(), &NEVER).unwrap()
    }
}
