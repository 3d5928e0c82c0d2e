//! Unpacking: an archive becomes a file, symlink or directory.
//!
//! Everything is created in a directory that was just created here and is held open, by a name
//! that the archive's reader has checked to be one, and never over something that exists; symlinks
//! are created and not followed. So nothing outside the target is touched (CVE-2024-45593).

use std::{
    ffi::OsStr,
    io::{self, Write as _},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use cap_std::{
    ambient_authority,
    fs::{Dir, DirBuilder, DirBuilderExt as _, OpenOptions, OpenOptionsExt as _},
};
use protocol::nar::{Index, Node, NodeId};
use rustix::fs::OFlags;

use crate::{
    Archive,
    disk::{DiskError, Doing as _},
    pack::open_in,
};

/// What was unpacked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UnpackStats {
    /// How many files.
    pub files: u64,
    /// How many directories.
    pub directories: u64,
    /// How many symlinks.
    pub symlinks: u64,
    /// Bytes of the files.
    pub bytes: u64,
}

/// Why something could not be unpacked. What was created before is left.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The target is there already.
    #[error("{} exists already", path.display())]
    Exists {
        /// The target.
        path: PathBuf,
    },
    /// The target's path does not end in a name.
    #[error("{} does not end in a name", path.display())]
    NoName {
        /// The target.
        path: PathBuf,
    },
    /// The archive has two names here that this file system takes for the same, as one that
    /// ignores case does.
    #[error("{} is, to this file system, the name of another entry of the archive", path.display())]
    Collision {
        /// The later of the two.
        path: PathBuf,
    },
    /// The disk refused.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

impl Archive {
    /// Unpacks it, as [`unpack`] does.
    pub fn unpack(&self, to: &Path) -> Result<UnpackStats, UnpackError> {
        unpack(self.bytes(), self.index(), to)
    }
}

/// Creates at `to`, which must not exist in a directory that does, what the archive holds.
///
/// `index` is that of `bytes`. Executable files get mode 0755, others 0644, directories 0755, less
/// what the umask takes away. Nothing is synced.
///
/// # Errors
///
/// [`UnpackError`], which names the path.
pub fn unpack(bytes: &[u8], index: &Index, to: &Path) -> Result<UnpackStats, UnpackError> {
    let name = to.file_name().ok_or_else(|| UnpackError::NoName { path: to.to_owned() })?;
    let parent = match to.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let dir = Dir::open_ambient_dir(parent, ambient_authority()).doing("open", parent)?;
    let mut unpack = Unpack { bytes, index, stats: UnpackStats::default() };
    let mut open = Vec::new();
    match unpack.node(&dir, name, NodeId::ROOT, to) {
        Err(UnpackError::Collision { path }) => return Err(UnpackError::Exists { path }),
        other => open.extend(other?),
    }
    // Not recursive: each open level is on this stack, of at most 64.
    let mut path = to.to_owned();
    while let Some((dir, children)) = open.last_mut() {
        let Some((child, rest)) = children.split_first() else {
            open.pop();
            path.pop();
            continue;
        };
        *children = rest;
        let name = OsStr::from_bytes(index.name(*child, bytes));
        path.push(name);
        match unpack.node(dir, name, *child, &path)? {
            Some(level) => open.push(level),
            None => _ = path.pop(),
        }
    }
    Ok(unpack.stats)
}

struct Unpack<'a> {
    bytes: &'a [u8],
    index: &'a Index,
    stats: UnpackStats,
}

impl<'a> Unpack<'a> {
    /// Creates one entry; of a directory, gives back what is to be created in it.
    fn node(
        &mut self,
        dir: &Dir,
        name: &OsStr,
        id: NodeId,
        path: &Path,
    ) -> Result<Option<(Dir, &'a [NodeId])>, UnpackError> {
        let content = self.index.content(id, self.bytes).unwrap_or_default();
        let level = match self.index.node_of(id) {
            Node::File { executable, .. } => {
                let mut options = OpenOptions::new();
                options.write(true).create_new(true).mode(if executable { 0o755 } else { 0o644 });
                let mut file = created(dir.open_with(name, &options), path)?;
                file.write_all(content).doing("write", path)?;
                self.stats.files += 1;
                self.stats.bytes += content.len() as u64;
                None
            }
            Node::Symlink { .. } => {
                created(dir.symlink_contents(OsStr::from_bytes(content), name), path)?;
                self.stats.symlinks += 1;
                None
            }
            Node::Directory(children) => {
                created(dir.create_dir_with(name, DirBuilder::new().mode(0o755)), path)?;
                self.stats.directories += 1;
                let dir = Dir::from_std_file(open_in(dir, name, OFlags::DIRECTORY).doing("open", path)?);
                Some((dir, self.index.children(children)))
            }
        };
        Ok(level)
    }
}

fn created<T>(result: io::Result<T>, path: &Path) -> Result<T, UnpackError> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            Err(UnpackError::Collision { path: path.to_owned() })
        }
        other => Ok(other.doing("create", path)?),
    }
}
