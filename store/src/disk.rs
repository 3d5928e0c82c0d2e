//! The few deeds on files that all of the store needs, and the one way in which they fail.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// What the disk refused, and where.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot {doing} {}", path.display())]
pub struct DiskError {
    /// The deed, as a verb.
    pub doing: &'static str,
    /// The file or directory.
    pub path: PathBuf,
    /// What the operating system said. Shared, because one failed write may concern many callers.
    #[source]
    pub source: Arc<io::Error>,
}

impl DiskError {
    pub(crate) fn new(doing: &'static str, path: &Path, source: io::Error) -> Self {
        Self { doing, path: path.to_owned(), source: Arc::new(source) }
    }

    /// Whether the disk, a quota or a size limit is full: freeing space helps.
    pub fn is_full(&self) -> bool {
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        matches!(self.source.kind(), StorageFull | QuotaExceeded | FileTooLarge)
    }
}

/// Says of an [`io::Error`] what was being done, and where.
pub(crate) trait Doing<T> {
    fn doing(self, deed: &'static str, path: &Path) -> Result<T, DiskError>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, doing: &'static str, path: &Path) -> Result<T, DiskError> {
        self.map_err(|e| DiskError::new(doing, path, e))
    }
}

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(path: &Path) -> Result<(), DiskError> {
    #[cfg(test)]
    crate::power::directory(path, false);
    File::open(path).and_then(|dir| dir.sync_all()).doing("sync", path)?;
    #[cfg(test)]
    crate::power::directory(path, true);
    Ok(())
}

/// Makes the content of a file durable, and all that is known of it.
///
/// All syncs of the store are these three: `power.rs` watches them.
pub(crate) fn sync_file(file: &File) -> io::Result<()> {
    #[cfg(test)]
    crate::power::file(file, false);
    file.sync_all()?;
    #[cfg(test)]
    crate::power::file(file, true);
    Ok(())
}

/// Makes the content of a file durable, and its length.
pub(crate) fn sync_content(file: &File) -> io::Result<()> {
    #[cfg(test)]
    crate::power::file(file, false);
    file.sync_data()?;
    #[cfg(test)]
    crate::power::file(file, true);
    Ok(())
}

/// Creates a directory and its parents, with this mode, durably: what is synced in a directory is lost
/// with the directory's own name.
pub(crate) fn create_dir(path: &Path, mode: u32) -> Result<(), DiskError> {
    use std::os::unix::fs::DirBuilderExt as _;
    let new: Vec<_> = path.ancestors().take_while(|at| !at.as_os_str().is_empty() && !at.is_dir()).collect();
    fs::DirBuilder::new().recursive(true).mode(mode).create(path).doing("create", path)?;
    let parent = |at: &&Path| match at.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new(".").to_owned(),
        Some(parent) => parent.to_owned(),
        None => Path::new("/").to_owned(),
    };
    new.iter().map(parent).try_for_each(|parent| sync_dir(&parent))
}

/// The entries of a directory with their names; none if it does not exist.
pub(crate) fn list(path: &Path) -> Result<Vec<fs::DirEntry>, DiskError> {
    let entries = match fs::read_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.doing("list", path)?,
    };
    entries.collect::<Result<_, _>>().doing("list", path)
}

/// Moves `what` into the directory `quarantine` under a name that is free, and says which.
pub(crate) fn quarantine(what: &Path, quarantine: &Path) -> Result<PathBuf, DiskError> {
    let to = free_name(what, quarantine);
    fs::rename(what, &to).doing("move aside", what)?;
    Ok(to)
}

/// Copies the file `what` into `quarantine` under a name that is free, and says which.
pub(crate) fn save_copy(what: &Path, quarantine: &Path) -> Result<PathBuf, DiskError> {
    let to = free_name(what, quarantine);
    fs::copy(what, &to).doing("copy", what)?;
    Ok(to)
}

/// A path in `dir` that does not exist: the name of `what`, with a number behind it if need be.
fn free_name(what: &Path, dir: &Path) -> PathBuf {
    let name = what.file_name().unwrap_or_default();
    let plain = dir.join(name);
    let numbered = (1u32..).map(|n| {
        let mut name = name.to_owned();
        name.push(format!(".{n}"));
        dir.join(name)
    });
    let mut candidates = std::iter::once(plain).chain(numbered);
    candidates.find(|p| p.symlink_metadata().is_err()).unwrap_or_default()
}

/// Shows every file below `dir` that is not a directory. What vanishes meanwhile is left out.
pub(crate) fn walk(dir: &Path, each: &mut dyn FnMut(&Path, &fs::Metadata)) -> Result<(), DiskError> {
    let mut left = vec![dir.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in list(&dir)? {
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => left.push(entry.path()),
                Ok(metadata) => each(&entry.path(), &metadata),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e).doing("look at", &entry.path()),
            }
        }
    }
    Ok(())
}
