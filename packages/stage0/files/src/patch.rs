//! Patches: unified diffs, applied exactly or not at all.
//!
//! ```text
//! patch file --diff.rs--> changes of files with hunks --apply.rs--> new contents --patch--> disk
//! ```
//!
//! A hunk is looked for in the whole file, nearest to where its header says first, but its context
//! must be there exactly: no fuzz. All hunks of all patches are applied in memory before the first
//! file is written, so that a patch which fails leaves the directory as it was.
//!
//! Absent on purpose: binary patches, modes, reversed patches, `.rej` files.

mod apply;
mod diff;

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use stage0::path::Relative;
use stage0::tree::{self, Kind, TreeError};

use diff::{Change, FileDiff};
pub use diff::{DiffError, DiffFault};

/// How many leading components of names in a patch are dropped unless said otherwise: the `a/` and
/// `b/` that git and most people put there.
pub const STRIP: usize = 1;

/// Why a directory was not patched.
#[derive(Debug)]
pub enum PatchError {
    /// A file or directory could not be used.
    Tree(TreeError),

    /// A patch file is not a unified diff that can be applied.
    Diff {
        /// The patch file.
        patch: PathBuf,
        /// Which line, and why.
        source: DiffError,
    },

    /// A file is not as the patch expects it.
    File {
        /// The patch file.
        patch: PathBuf,
        /// Its line with the header of the file or of the hunk.
        line: usize,
        /// The file, relative to the patched directory.
        file: Relative,
        /// What is wrong with it.
        fault: FileFault,
    },
}

/// How a file is not as a patch expects it.
#[derive(Debug)]
pub enum FileFault {
    /// The file does not exist.
    Missing,
    /// The file is to be created, but exists already.
    Exists,
    /// The path is, or leads through, something that is not a file.
    NotAFile,
    /// The file is to be deleted, but has more than the patch takes away.
    NotEmpty,
    /// The lines that a hunk expects are nowhere in the file, or not after the hunk before.
    HunkFails {
        /// Which hunk of the file, counted from 1.
        hunk: usize,
        /// Where its header expects them: a line of the file.
        expected: usize,
    },
}

impl From<TreeError> for PatchError {
    fn from(error: TreeError) -> Self {
        Self::Tree(error)
    }
}

impl fmt::Display for PatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tree(error) => error.fmt(f),
            Self::Diff { patch, source } => write!(f, "{}:{source}", patch.display()),
            Self::File {
                patch,
                line,
                file,
                fault,
            } => write!(f, "{}:{line}: {file}: {fault}", patch.display()),
        }
    }
}

impl fmt::Display for FileFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("no such file"),
            Self::Exists => f.write_str("exists already"),
            Self::NotAFile => f.write_str("not a file, or not in a directory"),
            Self::NotEmpty => f.write_str("is not empty after its deletion"),
            Self::HunkFails { hunk, expected } => {
                write!(
                    f,
                    "hunk {hunk} does not apply (expected at line {expected})"
                )
            }
        }
    }
}

impl Error for PatchError {}

/// Applies the unified diffs in the files `patches`, in order, to the directory `dir`.
///
/// `strip` components are dropped from the start of each name in them. A name that then leads out
/// of `dir`, or through a symlink, is refused.
///
/// # Errors
///
/// [`PatchError`] names the patch, its line, the file and the hunk. If it is not a
/// [`PatchError::Tree`], nothing was written.
pub fn patch(dir: &Path, patches: &[&str], strip: usize) -> Result<(), PatchError> {
    if !fs::metadata(dir).map_err(TreeError::at(dir))?.is_dir() {
        return Err(TreeError::at(dir)(ErrorKind::NotADirectory.into()).into());
    }
    let mut changed = Changed::new(dir);
    for patch in patches.iter().map(Path::new) {
        let bytes = fs::read(patch).map_err(TreeError::at(patch))?;
        let diffs = diff::read(&bytes, strip).map_err(|source| PatchError::Diff {
            patch: patch.to_owned(),
            source,
        })?;
        for diff in &diffs {
            changed.apply(diff).map_err(|problem| match problem {
                Problem::Tree(error) => PatchError::Tree(error),
                Problem::File { line, file, fault } => PatchError::File {
                    patch: patch.to_owned(),
                    line,
                    file,
                    fault,
                },
            })?;
        }
    }
    Ok(changed.write()?)
}

/// What the directory will be: files with their new contents, or without any if deleted.
struct Changed<'a> {
    dir: &'a Path,
    files: BTreeMap<Relative, Option<Vec<u8>>>,
}

enum Problem {
    Tree(TreeError),
    File {
        line: usize,
        file: Relative,
        fault: FileFault,
    },
}

impl<'a> Changed<'a> {
    fn new(dir: &'a Path) -> Self {
        let files = BTreeMap::new();
        Self { dir, files }
    }

    fn apply(&mut self, diff: &FileDiff<'_>) -> Result<(), Problem> {
        let (old, new) = match &diff.change {
            Change::Modify(file) => (Some(file), Some(file)),
            Change::Create(file) => (None, Some(file)),
            Change::Delete(file) => (Some(file), None),
            Change::Rename { from, to } | Change::Copy { from, to } => (Some(from), Some(to)),
        };
        let problem = |file: &Relative, line, fault| {
            let file = file.clone();
            Problem::File { line, file, fault }
        };
        let before = match old {
            Some(file) => self
                .content(file, diff.line)?
                .ok_or_else(|| problem(file, diff.line, FileFault::Missing))?,
            None => Vec::new(),
        };
        let after = apply::hunks(&diff.hunks, &before).map_err(|failed| {
            let fault = FileFault::HunkFails {
                hunk: failed + 1,
                expected: diff.hunks[failed].old_start,
            };
            problem(diff.change.name(), diff.hunks[failed].line, fault)
        })?;
        if let Some(file) = new
            && old != Some(file)
            && self.content(file, diff.line)?.is_some()
        {
            return Err(problem(file, diff.line, FileFault::Exists));
        }
        match &diff.change {
            Change::Delete(file) if !after.is_empty() => {
                return Err(problem(file, diff.line, FileFault::NotEmpty));
            }
            Change::Delete(file) => drop(self.files.insert(file.clone(), None)),
            Change::Rename { from, to } => {
                self.files.insert(from.clone(), None);
                self.files.insert(to.clone(), Some(after));
            }
            Change::Modify(file) | Change::Create(file) | Change::Copy { to: file, .. } => {
                self.files.insert(file.clone(), Some(after));
            }
        }
        Ok(())
    }

    /// The content that `file` has by now, if it exists.
    fn content(&self, file: &Relative, line: usize) -> Result<Option<Vec<u8>>, Problem> {
        if let Some(content) = self.files.get(file) {
            return Ok(content.clone());
        }
        let not_a_file = || Problem::File {
            line,
            file: file.clone(),
            fault: FileFault::NotAFile,
        };
        for directory in file.ancestors() {
            match found(&directory.on(self.dir)).map_err(Problem::Tree)? {
                Some(Kind::Directory) => {}
                Some(Kind::File | Kind::Symlink(_)) => return Err(not_a_file()),
                None => return Ok(None),
            }
        }
        let path = file.on(self.dir);
        match found(&path).map_err(Problem::Tree)? {
            Some(Kind::File) => fs::read(&path)
                .map(Some)
                .map_err(|error| Problem::Tree(TreeError::at(&path)(error))),
            Some(Kind::Directory | Kind::Symlink(_)) => Err(not_a_file()),
            None => Ok(None),
        }
    }

    /// Puts everything on disk. Deletions come first, so that a directory can take a file's place.
    fn write(self) -> Result<(), TreeError> {
        for (file, _) in self.files.iter().filter(|(_, content)| content.is_none()) {
            let path = file.on(self.dir);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(TreeError::at(&path)(error));
                }
                _ => {} // Not there: created by one patch and deleted by the next.
            }
        }
        for (file, content) in self.files {
            if let Some(content) = content {
                let path = file.on(self.dir);
                tree::make_parent(&path)?;
                fs::write(&path, content).map_err(TreeError::at(&path))?;
            }
        }
        Ok(())
    }
}

/// What is at `path`, if there is anything.
fn found(path: &Path) -> Result<Option<Kind>, TreeError> {
    match tree::kind(path) {
        Ok(kind) => Ok(Some(kind)),
        Err(error) if is_absent(&error.source) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}
