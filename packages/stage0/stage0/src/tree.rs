//! Trees on disk: what is in a directory, and how something gets there.
//!
//! Everything is listed in byte order of names, so what a tool writes does not depend on the order
//! in which a host happens to list a directory. Symlinks are never followed while listing.

use std::error::Error;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use crate::path::Relative;

/// How much is read at once: enough to make calls rare, little enough to be on no scale.
pub const BUFFER_BYTES: usize = 64 * 1024;

/// One thing in a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it is in its tree.
    pub path: Relative,
    /// What it is.
    pub kind: Kind,
}

/// What something in a tree is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symlink, and what it points to.
    Symlink(PathBuf),
}

/// A file or directory that could not be used.
#[derive(Debug)]
pub struct TreeError {
    /// What could not be used.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

impl TreeError {
    /// What to give to `map_err` for things done with `path`.
    pub fn at(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self {
            path: path.to_owned(),
            source,
        }
    }
}

impl fmt::Display for TreeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), Plain(&self.source))
    }
}

impl Error for TreeError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.source)
    }
}

/// An I/O error in words that are the same on every host: without the host's error numbers, which
/// under WASI mean something else than where the tests run.
#[derive(Debug)]
pub struct Plain<'a>(pub &'a io::Error);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0.kind() {
            ErrorKind::NotFound => "no such file",
            ErrorKind::AlreadyExists => "exists already",
            ErrorKind::PermissionDenied => "not permitted",
            ErrorKind::ReadOnlyFilesystem => "is read-only",
            ErrorKind::IsADirectory => "is a directory",
            ErrorKind::NotADirectory => "not a directory",
            ErrorKind::DirectoryNotEmpty => "directory not empty",
            ErrorKind::UnexpectedEof => "ends early",
            _ => {
                let text = self.0.to_string();
                return f.write_str(text.split(" (os error").next().unwrap_or(&text));
            }
        })
    }
}

/// What `path` is; a symlink is not followed.
///
/// # Errors
///
/// If it does not exist, or is something that a build knows nothing of, such as a device.
pub fn kind(path: &Path) -> Result<Kind, TreeError> {
    let kind = fs::symlink_metadata(path)
        .map_err(TreeError::at(path))?
        .file_type();
    if kind.is_file() {
        Ok(Kind::File)
    } else if kind.is_dir() {
        Ok(Kind::Directory)
    } else if kind.is_symlink() {
        fs::read_link(path)
            .map(Kind::Symlink)
            .map_err(TreeError::at(path))
    } else {
        Err(TreeError {
            path: path.to_owned(),
            source: io::Error::other("not a file, directory or symlink"),
        })
    }
}

/// All that is below `root`: a directory before what it has, names in byte order. The root itself
/// is not listed.
///
/// # Errors
///
/// If a directory can't be read, or a name in it is not a [`Relative`] path.
pub fn walk(root: &Path) -> Result<Vec<Entry>, TreeError> {
    let mut found = Vec::new();
    let mut waiting = children(root, &Relative::default())?; // The next one last.
    while let Some(path) = waiting.pop() {
        let kind = kind(&path.on(root))?;
        if kind == Kind::Directory {
            waiting.extend(children(root, &path)?);
        }
        found.push(Entry { path, kind });
    }
    Ok(found)
}

/// What is directly in `directory`, in reverse byte order.
fn children(root: &Path, directory: &Relative) -> Result<Vec<Relative>, TreeError> {
    let place = directory.on(root);
    let mut children = Vec::new();
    for entry in fs::read_dir(&place).map_err(TreeError::at(&place))? {
        let name = entry.map_err(TreeError::at(&place))?.file_name();
        let name = Relative::parse(name.as_encoded_bytes()).map_err(|fault| TreeError {
            path: place.join(&name),
            source: io::Error::new(ErrorKind::InvalidData, fault),
        })?;
        children.push(directory.join(&name));
    }
    children.sort_unstable_by(|a, b| b.cmp(a)); // They differ in the last component only.
    Ok(children)
}

/// Makes the directory `path` and those above it, as far as they are missing.
///
/// # Errors
///
/// If one can't be made, or is something else already.
pub fn make_directory(path: &Path) -> Result<(), TreeError> {
    let is_there = path.as_os_str().is_empty() || path.is_dir();
    if is_there {
        return Ok(());
    }
    make_parent(path)?;
    fs::create_dir(path).map_err(|error| {
        TreeError::at(path)(match error.kind() {
            ErrorKind::AlreadyExists => ErrorKind::NotADirectory.into(),
            _ => error,
        })
    })
}

/// Makes the directory that `path` is to be in.
///
/// # Errors
///
/// As [`make_directory`].
pub fn make_parent(path: &Path) -> Result<(), TreeError> {
    path.parent().map_or(Ok(()), make_directory)
}

/// Copies the bytes of the file `from` to the file `to`, whose directory exists.
///
/// # Errors
///
/// If either can't be used; the error names which.
pub fn copy_file(from: &Path, to: &Path) -> Result<(), TreeError> {
    let mut reader = File::open(from).map_err(TreeError::at(from))?;
    let mut writer = File::create(to).map_err(TreeError::at(to))?;
    append(&mut reader, from, &mut writer, to)
}

/// Copies all of `reader`, which is `from`, to `writer`, which is `to`.
///
/// # Errors
///
/// If either fails; the error names which.
pub fn append(
    reader: &mut dyn Read,
    from: &Path,
    writer: &mut dyn Write,
    to: &Path,
) -> Result<(), TreeError> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => writer
                .write_all(&buffer[..count])
                .map_err(TreeError::at(to))?,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(TreeError::at(from)(error)),
        }
    }
}

/// Makes the symlink `path`, which points to `target`.
///
/// # Errors
///
/// If it can't be made, or something is there already.
pub fn symlink(target: &Path, path: &Path) -> Result<(), TreeError> {
    #[expect(
        deprecated,
        reason = "the only stable function of std that makes a symlink under WASI"
    )]
    fs::soft_link(target, path).map_err(TreeError::at(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_listed_in_byte_order_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        make_directory(&root.join("a/deep")).unwrap();
        make_directory(&root.join("empty")).unwrap();
        for name in ["a-b", "a/z", "a/deep/x", "Z", "ä"] {
            fs::write(root.join(name), name).unwrap();
        }
        symlink(Path::new("a"), &root.join("link")).unwrap();
        let found: Vec<_> = walk(root)
            .unwrap()
            .into_iter()
            .map(|entry| match entry.kind {
                Kind::File => entry.path.to_string(),
                Kind::Directory => format!("{}/", entry.path),
                Kind::Symlink(to) => format!("{} -> {}", entry.path, to.display()),
            })
            .collect();
        assert_eq!(
            found,
            [
                "Z",
                "a/",
                "a/deep/",
                "a/deep/x",
                "a/z",
                "a-b",
                "empty/",
                "link -> a",
                "ä"
            ]
        );
    }

    #[test]
    fn errors_name_the_path_in_plain_words() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("x");
        assert_eq!(
            kind(&missing).unwrap_err().to_string(),
            format!("{}: no such file", missing.display())
        );
        fs::write(&missing, "").unwrap();
        assert_eq!(
            make_directory(&missing.join("y")).unwrap_err().to_string(),
            format!("{}: not a directory", missing.display())
        );
    }
}
