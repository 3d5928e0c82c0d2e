//! Where files are: copying them, sorting them into outputs, linking, removing and listing them.
//!
//! Symlinks are copied as symlinks, target and all. What is to be copied is listed before anything
//! is written, so copying a directory into itself copies what was there before, and ends.

use std::error::Error;
use std::fmt;
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use stage0::glob::Selection;
use stage0::path::Relative;
use stage0::tree::{self, Entry, Kind, TreeError};

/// Why files were not put where they belong.
#[derive(Debug)]
pub enum PlaceError {
    /// A file or directory could not be used.
    Tree(TreeError),

    /// A path to copy into a directory has no last component to be called by there.
    Nameless(String),

    /// No file below `from` is selected for `into`.
    NothingSelected {
        /// Where was looked.
        from: PathBuf,
        /// The directory that would have remained empty.
        into: PathBuf,
    },
}

impl From<TreeError> for PlaceError {
    fn from(error: TreeError) -> Self {
        Self::Tree(error)
    }
}

impl fmt::Display for PlaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tree(error) => error.fmt(f),
            Self::Nameless(path) => write!(f, "{path}: has no name to be copied by"),
            Self::NothingSelected { from, into } => {
                let (from, into) = (from.display(), into.display());
                write!(f, "{from}: no file is selected for {into}")
            }
        }
    }
}

impl Error for PlaceError {}

/// One output of [`split`]: a directory and what belongs there.
#[derive(Debug)]
pub struct Group {
    name: String,
    selection: Selection,
}

impl Group {
    /// Reads `NAME=GLOB[,GLOB...]`. The name must be usable in the name of a directory.
    pub fn parse(text: &str) -> Option<Self> {
        let (name, globs) = text.split_once('=')?;
        let is_usable = !name.is_empty() && !globs.is_empty() && !name.contains('/');
        is_usable.then(|| Self {
            name: name.to_owned(),
            selection: Selection::new(globs.split(',')),
        })
    }

    /// `out` for the name `out`, and `out-NAME` for all others.
    fn directory(&self) -> String {
        match self.name.as_str() {
            "out" => "out".to_owned(),
            name => format!("out-{name}"),
        }
    }
}

/// Copies files, symlinks and whole directories, like `cp -R`.
///
/// They go *into* `to` if it is a directory, ends in `/`, or there is more than one `from`;
/// otherwise `to` is what the copy is called. Of a `from` that ends in `/.`, the contents are
/// copied and not the directory itself. Directories are merged with those that exist.
///
/// # Errors
///
/// [`PlaceError`] names the file. What was copied before stays.
pub fn copy(from: &[&str], to: &str) -> Result<(), PlaceError> {
    let goes_into = to.ends_with('/') || from.len() > 1 || Path::new(to).is_dir();
    let mut plans = Vec::new();
    for from in from {
        let to = if goes_into && !is_contents(from) {
            Path::new(to).join(name(from)?)
        } else {
            Path::new(to).to_owned()
        };
        let from = Path::new(from);
        let kind = tree::kind(from)?;
        let below = match kind {
            Kind::Directory => tree::walk(from)?,
            Kind::File | Kind::Symlink(_) => Vec::new(),
        };
        let path = Relative::default();
        plans.push((from, to, Entry { path, kind }, below));
    }
    for (from, to, top, below) in plans {
        tree::make_parent(&to)?;
        copy_entry(from, &to, &top)?;
        for entry in below {
            copy_entry(from, &to, &entry)?;
        }
    }
    Ok(())
}

/// Copies the files below `from` that `globs` select to the same places below `to`.
///
/// Symlinks count as files. Of the directories, only those that have a selected file are made.
///
/// # Errors
///
/// [`PlaceError::NothingSelected`] if there is nothing to copy, or what [`copy`] says.
pub fn select(from: &Path, to: &Path, globs: &[&str]) -> Result<(), PlaceError> {
    let found = tree::walk(from)?;
    let selection = Selection::new(globs.iter().copied());
    copy_selected(from, to, &found, &selection)
}

/// Sorts the files below `from` into the output directories of `groups`, which are in `root`.
///
/// A file goes to every group that selects it, and one that no group selects goes nowhere.
///
/// # Errors
///
/// [`PlaceError::NothingSelected`] if there is nothing for a group, or what [`copy`] says.
pub fn split(from: &Path, root: &Path, groups: &[Group]) -> Result<(), PlaceError> {
    let found = tree::walk(from)?;
    for group in groups {
        let to = root.join(group.directory());
        copy_selected(from, &to, &found, &group.selection)?;
    }
    Ok(())
}

/// Makes the symlink `path`, and the directory it is in, pointing to `target`.
///
/// # Errors
///
/// If it can't be made, or something is there already.
pub fn link(target: &Path, path: &Path) -> Result<(), TreeError> {
    tree::make_parent(path)?;
    tree::symlink(target, path)
}

/// Removes the file, the symlink, or the directory with all that is in it.
///
/// # Errors
///
/// If it does not exist or can't be removed.
pub fn remove(path: &Path) -> Result<(), TreeError> {
    match tree::kind(path)? {
        Kind::Directory => fs::remove_dir_all(path),
        Kind::File | Kind::Symlink(_) => fs::remove_file(path),
    }
    .map_err(TreeError::at(path))
}

/// Writes a line for all that is below `dir`: `file`, `directory/` or `link -> target`, in byte
/// order, a directory before what it has.
///
/// # Errors
///
/// If a directory can't be read, or `output` fails.
pub fn list(dir: &Path, output: &mut dyn Write) -> Result<(), TreeError> {
    let to_output = Path::new("output");
    for Entry { path, kind } in tree::walk(dir)? {
        match kind {
            Kind::File => writeln!(output, "{path}"),
            Kind::Directory => writeln!(output, "{path}/"),
            Kind::Symlink(target) => writeln!(output, "{path} -> {}", target.display()),
        }
        .map_err(TreeError::at(to_output))?;
    }
    output.flush().map_err(TreeError::at(to_output))
}

/// Whether `from` means what is in a directory.
fn is_contents(from: &str) -> bool {
    from == "." || from.ends_with("/.") || from.ends_with("/./")
}

/// What `from` is called in a directory that it is copied into.
fn name(from: &str) -> Result<&str, PlaceError> {
    let last = from.trim_end_matches('/').rsplit('/').next();
    last.filter(|name| !["", ".", ".."].contains(name))
        .ok_or_else(|| PlaceError::Nameless(from.to_owned()))
}

fn copy_selected(
    from: &Path,
    to: &Path,
    found: &[Entry],
    selection: &Selection,
) -> Result<(), PlaceError> {
    let mut selected = found
        .iter()
        .filter(|entry| entry.kind != Kind::Directory && selection.has(entry.path.as_str()))
        .peekable();
    if selected.peek().is_none() {
        return Err(PlaceError::NothingSelected {
            from: from.to_owned(),
            into: to.to_owned(),
        });
    }
    for entry in selected {
        tree::make_parent(&entry.path.on(to))?;
        copy_entry(from, to, entry)?;
    }
    Ok(())
}

/// Copies one entry of the tree `from` to the tree `to`, where its parent exists.
fn copy_entry(from: &Path, to: &Path, entry: &Entry) -> Result<(), TreeError> {
    let (from, to) = (entry.path.on(from), entry.path.on(to));
    match &entry.kind {
        Kind::Directory => tree::make_directory(&to),
        Kind::Symlink(target) => tree::symlink(target, &to),
        Kind::File if is_same(&from, &to) => Err(TreeError {
            path: to,
            source: io::Error::new(ErrorKind::InvalidInput, "is what is to be copied to it"),
        }),
        Kind::File => tree::copy_file(&from, &to),
    }
}

/// Whether two paths name one file by the same components; opening it for writing would empty it.
pub(crate) fn is_same(a: &Path, b: &Path) -> bool {
    a.components().eq(b.components())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_named_by_the_last_component() {
        let name = |from| name(from).ok();
        assert_eq!(name("/in/src"), Some("src"));
        assert_eq!(name("src/"), Some("src"));
        assert_eq!(name("/"), None);
        assert_eq!(name("/in/.."), None);
    }

    #[test]
    fn groups_are_read() {
        let directory = |text| Group::parse(text).map(|group| group.directory());
        assert_eq!(directory("out=**").as_deref(), Some("out"));
        assert_eq!(directory("dev=*.h,lib/**").as_deref(), Some("out-dev"));
        assert_eq!(directory("dev"), None);
        assert_eq!(directory("dev="), None);
        assert_eq!(directory("=*"), None);
        assert_eq!(directory("a/b=*"), None);
    }
}
