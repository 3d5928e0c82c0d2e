//! Packing: a file, symlink or directory becomes an archive, byte for byte what
//! `nix-store --dump` writes (SPEC §8).
//!
//! The tree is walked with one open directory per level, each entry opened in its directory by its
//! name and without following symlinks, so that nothing outside the root is read, whatever is
//! moved meanwhile.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, BufWriter, Read, Write},
    os::unix::{
        ffi::{OsStrExt as _, OsStringExt as _},
        fs::{MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
};

use cap_std::{
    ambient_authority,
    fs::{Dir, OpenOptions},
};
use protocol::{
    glob::Glob,
    id::NarHash,
    nar::{Fault, WriteError, Writer},
};
use rustix::fs::OFlags;

use crate::disk::{DiskError, Doing as _};

/// The archive leaves in pieces of this size: large enough for BLAKE3 to use wide vectors.
const WRITE_BYTES: usize = 256 << 10;

/// What was packed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PackStats {
    /// How many files.
    pub files: u64,
    /// How many directories.
    pub directories: u64,
    /// How many symlinks.
    pub symlinks: u64,
    /// How many entries matched an exclude; what lies below them is not counted.
    pub excluded: u64,
    /// Bytes of the files.
    pub bytes: u64,
}

/// Why something could not be packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// The disk refused.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Neither file nor directory nor symlink.
    #[error("{} is a {kind}; only files, directories and symlinks can be packed", path.display())]
    Special {
        /// What.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// A file's length changed while it was read.
    #[error("{} changed while it was packed: {announced} bytes, then {found} or more", path.display())]
    Changed {
        /// Which file.
        path: PathBuf,
        /// Its length when it was opened.
        announced: u64,
        /// Bytes read, counted up to one more than that.
        found: u64,
    },
    /// It breaks a rule of archives: too deep, too many.
    #[error("{} cannot be packed", path.display())]
    Rule {
        /// What.
        path: PathBuf,
        /// Which rule.
        #[source]
        source: Fault,
    },
    /// Where the archive went to failed.
    #[error("cannot write the archive")]
    Sink(#[source] io::Error),
}

/// Writes the archive of `root` to `to`.
///
/// What matches a pattern of `exclude`, as a path relative to `root`, is left out with all that is
/// below it. A file is executable if its owner may execute it (as Nix has it). Nothing else of the metadata counts.
///
/// # Errors
///
/// [`PackError`], which names the path; `to` then has the beginning of an archive.
pub fn pack(root: &Path, exclude: &[Glob], to: impl Write) -> Result<PackStats, PackError> {
    let to = BufWriter::with_capacity(WRITE_BYTES, to);
    let mut pack = Pack { root, exclude, writer: Writer::new(to), stats: PackStats::default() };
    let kind = fs::symlink_metadata(root).doing("look at", root)?.file_type();
    if kind.is_symlink() {
        let target = fs::read_link(root).doing("read", root)?;
        pack.symlink(&[], target)?;
    } else if kind.is_dir() {
        let dir = Dir::open_ambient_dir(root, ambient_authority()).doing("open", root)?;
        pack.tree(dir)?;
    } else if kind.is_file() {
        let mut options = fs::OpenOptions::new();
        let file = options.read(true).custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32);
        pack.file(&[], file.open(root).doing("open", root)?)?;
    } else {
        return Err(PackError::Special { path: root.to_owned(), kind: special(kind) });
    }
    match pack.writer.finish() {
        Ok(_) => Ok(pack.stats),
        Err(WriteError::Io(e)) => Err(PackError::Sink(e)),
        Err(e) => unreachable!("finishing breaks no rule: {e}"),
    }
}

struct Pack<'a, W: Write> {
    root: &'a Path,
    exclude: &'a [Glob],
    writer: Writer<BufWriter<W>>,
    stats: PackStats,
}

/// A directory that is being packed.
struct Level {
    dir: Dir,
    /// Bytes of its path, relative to the root.
    path: usize,
    entries: std::vec::IntoIter<(OsString, Kind)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    Directory,
    Symlink,
    Other(&'static str),
}

impl<W: Write> Pack<'_, W> {
    /// Packs a directory. Not recursive: each open level is on a stack, of at most 64, because the
    /// writer refuses what is deeper.
    fn tree(&mut self, root: Dir) -> Result<(), PackError> {
        let mut path = Vec::new();
        let mut open = vec![self.enter(root, &path)?];
        while let Some(level) = open.last_mut() {
            path.truncate(level.path);
            let Some((name, kind)) = level.entries.next() else {
                self.writer.end().map_err(|e| self.failed(&path, e))?;
                open.pop();
                continue;
            };
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name.as_bytes());
            if self.exclude.iter().any(|glob| glob.matches(&path)) {
                self.stats.excluded += 1;
                continue;
            }
            self.writer.entry(name.as_bytes()).map_err(|e| self.failed(&path, e))?;
            match kind {
                Kind::File => {
                    let file = open_in(&level.dir, &name, OFlags::NONBLOCK);
                    self.file(&path, file.doing("open", &self.at(&path))?)?;
                }
                Kind::Symlink => {
                    let target = level.dir.read_link_contents(&name);
                    self.symlink(&path, target.doing("read", &self.at(&path))?)?;
                }
                Kind::Directory => {
                    let dir = open_in(&level.dir, &name, OFlags::DIRECTORY);
                    let dir = Dir::from_std_file(dir.doing("open", &self.at(&path))?);
                    let level = self.enter(dir, &path)?;
                    open.push(level);
                }
                Kind::Other(kind) => return Err(PackError::Special { path: self.at(&path), kind }),
            }
        }
        Ok(())
    }

    fn enter(&mut self, dir: Dir, path: &[u8]) -> Result<Level, PackError> {
        self.writer.directory().map_err(|e| self.failed(path, e))?;
        self.stats.directories += 1;
        let list = || -> io::Result<Vec<(OsString, Kind)>> {
            let entry = |entry: io::Result<cap_std::fs::DirEntry>| {
                let entry = entry?;
                Ok((entry.file_name(), kind(entry.file_type()?)))
            };
            dir.entries()?.map(entry).collect()
        };
        let mut entries = list().doing("list", &self.at(path))?;
        // By the bytes of the names, which on Unix is how `OsString` compares.
        entries.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        Ok(Level { dir, path: path.len(), entries: entries.into_iter() })
    }

    fn file(&mut self, path: &[u8], file: File) -> Result<(), PackError> {
        let metadata = file.metadata().doing("look at", &self.at(path))?;
        if !metadata.is_file() {
            let kind = special(metadata.file_type());
            return Err(PackError::Special { path: self.at(path), kind });
        }
        let executable = metadata.mode() & 0o100 != 0;
        let mut content = Content { file, failed: None };
        let written = self.writer.file(executable, metadata.len(), &mut content);
        if let Some(e) = content.failed {
            return Err(Err::<(), _>(e).doing("read", &self.at(path)).unwrap_err().into());
        }
        written.map_err(|e| self.failed(path, e))?;
        self.stats.files += 1;
        self.stats.bytes += metadata.len();
        Ok(())
    }

    fn symlink(&mut self, path: &[u8], target: PathBuf) -> Result<(), PackError> {
        self.writer.symlink(target.as_os_str().as_bytes()).map_err(|e| self.failed(path, e))?;
        self.stats.symlinks += 1;
        Ok(())
    }

    fn failed(&self, path: &[u8], error: WriteError) -> PackError {
        match error {
            WriteError::Rule(source) => PackError::Rule { path: self.at(path), source },
            WriteError::Length { announced, found } => {
                PackError::Changed { path: self.at(path), announced, found }
            }
            WriteError::Io(e) => PackError::Sink(e),
        }
    }

    /// The path as the user would write it.
    fn at(&self, path: &[u8]) -> PathBuf {
        if path.is_empty() {
            return self.root.to_owned();
        }
        self.root.join(OsString::from_vec(path.to_vec()))
    }
}

/// A file's content, which keeps its error, so that it is not taken for one of the sink.
struct Content {
    file: File,
    failed: Option<io::Error>,
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer).inspect_err(|e| {
            if e.kind() != io::ErrorKind::Interrupted {
                self.failed =
                    Some(e.raw_os_error().map_or_else(|| e.kind().into(), io::Error::from_raw_os_error));
            }
        })
    }
}

/// Opens an entry of a directory for reading, if it is not a symlink.
pub(crate) fn open_in(dir: &Dir, name: impl AsRef<Path>, flags: OFlags) -> io::Result<File> {
    use cap_std::fs::OpenOptionsExt as _;
    let mut options = OpenOptions::new();
    options.read(true).custom_flags((OFlags::NOFOLLOW | flags).bits() as i32);
    dir.open_with(name, &options).map(cap_std::fs::File::into_std)
}

fn kind(of: cap_std::fs::FileType) -> Kind {
    use cap_std::fs::FileTypeExt as _;
    match of {
        _ if of.is_file() => Kind::File,
        _ if of.is_dir() => Kind::Directory,
        _ if of.is_symlink() => Kind::Symlink,
        _ if of.is_fifo() => Kind::Other("fifo"),
        _ if of.is_socket() => Kind::Other("socket"),
        _ if of.is_char_device() || of.is_block_device() => Kind::Other("device"),
        _ => Kind::Other("special file"),
    }
}

/// What to call a file that is not packed.
fn special(of: fs::FileType) -> &'static str {
    use std::os::unix::fs::FileTypeExt as _;
    match of {
        _ if of.is_fifo() => "fifo",
        _ if of.is_socket() => "socket",
        _ if of.is_char_device() || of.is_block_device() => "device",
        _ => "special file",
    }
}

/// Hashes and counts what is written through it; `W` is [`io::Sink`] if only the hash is wanted.
#[derive(Debug)]
pub struct HashingWriter<W = io::Sink> {
    to: W,
    hasher: blake3::Hasher,
    size: u64,
}

impl<W: Write> HashingWriter<W> {
    /// Hashes what goes to `to`.
    pub fn new(to: W) -> Self {
        Self { to, hasher: blake3::Hasher::new(), size: 0 }
    }

    /// Gives back the sink, the hash of all that was written and its number of bytes.
    pub fn finish(self) -> (W, NarHash, u64) {
        (self.to, NarHash::from_bytes(*self.hasher.finalize().as_bytes()), self.size)
    }
}

impl HashingWriter {
    /// Hashes only.
    pub fn sink() -> Self {
        Self::new(io::sink())
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.to.write(bytes)?;
        self.hasher.update(&bytes[..n]);
        self.size += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}
