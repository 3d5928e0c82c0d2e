//! The attester's secret key on disk: made on first use, for its owner's eyes only.
//!
//! ```text
//! keys/attester             the key, as text; mode 0600
//! keys/node                 the node's address on the network, likewise
//! keys/attester.next        exists only while a key is being succeeded
//! keys/retired/<attester>   keys that were succeeded
//! ```
//!
//! It lies in the store's directory, because key and feed belong together: a key that goes on
//! without its feed would say two things at one place, which ends it (SPEC §10.6).

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use protocol::key::{AttesterKey, SecretError, SigningKey, parse_secret, secret_text};

/// Longest key file, in bytes: the text of a key and a line end.
const FILE_BYTES: u64 = 128;

/// Why a key cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The disk refused.
    #[error("cannot {what} `{path}`")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Others can read it.
    #[error("the key `{path}` can be read by others (mode {mode:o}, not 600)")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It is not a regular file of this user.
    #[error("the key `{path}` is not a file of this user")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// It holds no key.
    #[error("`{path}` holds no key")]
    Content {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: SecretError,
    },
    /// There is a key already, and a key is never replaced.
    #[error("there is a key already: `{path}` has that of {attester}")]
    Exists {
        /// The file.
        path: PathBuf,
        /// Whose key it is.
        attester: AttesterKey,
    },
    /// The system gives no random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(getrandom::Error),
}

/// Where keys are.
#[derive(Debug, Clone)]
pub struct Keys {
    dir: PathBuf,
}

impl Keys {
    /// The keys of the store in `home`.
    pub fn new(home: &Path) -> Self {
        Self { dir: home.join("keys") }
    }

    /// The file of the key.
    pub fn path(&self) -> PathBuf {
        self.dir.join("attester")
    }

    fn next(&self) -> PathBuf {
        self.dir.join("attester.next")
    }

    /// The key; `None` if none was made yet.
    ///
    /// # Errors
    ///
    /// [`KeyFileError`], also if others could have read it.
    pub fn load(&self) -> Result<Option<SigningKey>, KeyFileError> {
        read(&self.path())
    }

    /// The key, which is made if there is none; and whether it was.
    ///
    /// # Errors
    ///
    /// [`KeyFileError`].
    pub fn load_or_create(&self) -> Result<(SigningKey, bool), KeyFileError> {
        if let Some(key) = self.load()? {
            return Ok((key, false));
        }
        match self.create(&random()?) {
            Ok(key) => Ok((key, true)),
            // Another process was faster.
            Err(KeyFileError::Exists { .. }) => match self.load()? {
                Some(key) => Ok((key, false)),
                None => self.create(&random()?).map(|key| (key, true)),
            },
            Err(error) => Err(error),
        }
    }

    /// Keeps `key` as the key.
    ///
    /// # Errors
    ///
    /// [`KeyFileError::Exists`] if there is one, whichever it is.
    pub fn create(&self, key: &SigningKey) -> Result<SigningKey, KeyFileError> {
        self.write(&self.path(), key)?;
        Ok(key.clone())
    }

    /// The node key, which is an address on the network and signs nothing; made if there is none.
    ///
    /// # Errors
    ///
    /// [`KeyFileError`].
    pub fn node(&self) -> Result<SigningKey, KeyFileError> {
        let path = self.dir.join("node");
        if let Some(key) = read(&path)? {
            return Ok(key);
        }
        let key = random()?;
        self.write(&path, &key)?;
        Ok(key)
    }

    /// Makes a key that is to succeed the present one, and keeps it aside; the same one again if
    /// that was begun before.
    ///
    /// # Errors
    ///
    /// [`KeyFileError`].
    pub fn prepare_successor(&self) -> Result<SigningKey, KeyFileError> {
        if let Some(key) = read(&self.next())? {
            return Ok(key);
        }
        let key = random()?;
        self.write(&self.next(), &key)?;
        Ok(key)
    }

    /// The key that was kept aside, if a succession was begun.
    ///
    /// # Errors
    ///
    /// [`KeyFileError`].
    pub fn successor(&self) -> Result<Option<SigningKey>, KeyFileError> {
        read(&self.next())
    }

    /// Puts the successor in the key's place; the old key is kept in `retired/`.
    ///
    /// # Errors
    ///
    /// [`KeyFileError`]. It can be tried again, whatever had been done.
    pub fn succeed(&self) -> Result<(), KeyFileError> {
        let (path, next) = (self.path(), self.next());
        if let Some(old) = self.load()? {
            let retired = self.dir.join("retired");
            directory(&retired)?;
            let name = data_encoding::HEXLOWER.encode(AttesterKey::of(&old).as_bytes());
            let to = retired.join(name);
            if !to.exists() {
                self.write(&to, &old)?;
            }
        }
        fs::rename(&next, &path).map_err(io("rename", &next))?;
        sync(&self.dir)
    }

    /// Writes a key to a file of its own: whole, synced, and never over another.
    fn write(&self, path: &Path, key: &SigningKey) -> Result<(), KeyFileError> {
        directory(&self.dir)?;
        let mut file = tempfile::Builder::new()
            .prefix(".new-")
            .permissions(fs::Permissions::from_mode(0o600))
            .tempfile_in(&self.dir)
            .map_err(io("write in", &self.dir))?;
        file.write_all(format!("{}\n", secret_text(key)).as_bytes()).map_err(io("write", path))?;
        file.as_file().sync_all().map_err(io("write", path))?;
        match file.persist_noclobber(path) {
            Ok(_) => sync(path.parent().unwrap_or(&self.dir)),
            Err(e) if e.error.kind() == io::ErrorKind::AlreadyExists => match read(path)? {
                Some(found) => {
                    Err(KeyFileError::Exists { path: path.into(), attester: AttesterKey::of(&found) })
                }
                None => Err(io("write", path)(e.error)),
            },
            Err(e) => Err(io("write", path)(e.error)),
        }
    }
}

/// A new key.
fn random() -> Result<SigningKey, KeyFileError> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(KeyFileError::Random)?;
    Ok(SigningKey::from_bytes(&seed))
}

fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> KeyFileError {
    let path = path.to_owned();
    move |source| KeyFileError::Io { what, path, source }
}

fn directory(dir: &Path) -> Result<(), KeyFileError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io("make", dir))
}

fn sync(dir: &Path) -> Result<(), KeyFileError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(io("sync", dir))
}

fn read(path: &Path) -> Result<Option<SigningKey>, KeyFileError> {
    // Without following a link, and without waiting for a pipe.
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let file = match OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(io("read", path))?,
    };
    let metadata = file.metadata().map_err(io("read", path))?;
    let user = rustix::process::geteuid().as_raw();
    if !metadata.is_file() || (metadata.uid() != user && user != 0) {
        return Err(KeyFileError::Foreign { path: path.into() });
    }
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyFileError::Exposed { path: path.into(), mode });
    }
    let mut text = String::new();
    file.take(FILE_BYTES).read_to_string(&mut text).map_err(io("read", path))?;
    match parse_secret(text.trim_end()) {
        Ok(key) => Ok(Some(key)),
        Err(source) => Err(KeyFileError::Content { path: path.into(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_once_and_only_ours() {
        let home = tempfile::tempdir().unwrap();
        let keys = Keys::new(home.path());
        assert!(keys.load().unwrap().is_none());
        let (key, made) = keys.load_or_create().unwrap();
        assert!(made);
        let (again, made) = keys.load_or_create().unwrap();
        assert!(!made && again.to_bytes() == key.to_bytes());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&keys.path()), mode(&home.path().join("keys"))), (0o600, 0o700));
        assert!(matches!(keys.create(&random().unwrap()), Err(KeyFileError::Exists { .. })));
        assert_eq!(keys.load().unwrap().unwrap().to_bytes(), key.to_bytes());
    }

    #[test]
    fn what_is_no_key_of_ours_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let keys = Keys::new(home.path());
        keys.load_or_create().unwrap();
        let path = keys.path();
        let text = fs::read_to_string(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(keys.load(), Err(KeyFileError::Exposed { mode: 0o640, .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        for bad in ["", "secret:", &text[1..], &text.replace(text.chars().nth(20).unwrap(), "_")] {
            fs::write(&path, bad).unwrap();
            assert!(matches!(keys.load(), Err(KeyFileError::Content { .. })), "{bad:?}");
        }
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        assert!(matches!(keys.load(), Err(KeyFileError::Io { .. })));
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(matches!(keys.load(), Err(KeyFileError::Foreign { .. })));
    }

    /// A succession may stop after each of its steps, and be begun again.
    #[test]
    fn succession_is_resumed() {
        let home = tempfile::tempdir().unwrap();
        let keys = Keys::new(home.path());
        let (old, _) = keys.load_or_create().unwrap();
        let new = keys.prepare_successor().unwrap();
        assert_eq!(keys.prepare_successor().unwrap().to_bytes(), new.to_bytes());
        // As if it had stopped between the two writes of `succeed`.
        let retired = home.path().join("keys/retired");
        directory(&retired).unwrap();
        keys.write(&retired.join(data_encoding::HEXLOWER.encode(AttesterKey::of(&old).as_bytes())), &old)
            .unwrap();
        keys.succeed().unwrap();
        assert_eq!(keys.load().unwrap().unwrap().to_bytes(), new.to_bytes());
        assert!(keys.successor().unwrap().is_none());
        assert_eq!(fs::read_dir(&retired).unwrap().count(), 1);
    }
}
