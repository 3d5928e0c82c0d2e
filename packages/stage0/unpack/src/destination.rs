//! The destination: the one place that decides what an archive may do.
//!
//! Every ancestor of what is written is known to be a real directory, and whatever is written is
//! new. A symlink may go up only at the start of its target, and no further than to the root of the
//! destination: since it lies in a real directory, that part of it can be counted; and after it the
//! target only goes down, through directories and other symlinks of which the same is true. So no
//! symlink of an archive leads out, by whatever detour.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use stage0::glob::Selection;
use stage0::path::Relative;
use stage0::tree::{self, BUFFER_BYTES, Kind, TreeError};

use crate::problem::Problem;

/// The longest target of a symlink, in bytes: what NAR and Linux allow.
pub const TARGET_BYTES: usize = 4095;

/// What of an archive is wanted, and what it is to be called.
#[derive(Debug, Default)]
pub struct Choice {
    /// How many leading components are dropped; what has no more than these is not wanted.
    pub strip: usize,
    /// Which of the paths that are left are wanted.
    pub only: Selection,
    /// Of these pairs, the first whose left path the entry is, or is below, gives it the right one.
    pub rename: Vec<(Relative, Relative)>,
}

/// A directory that is being unpacked to.
pub struct Destination<'a> {
    root: PathBuf,
    choice: &'a Choice,
    /// All that is unpacked, and the directories that it needed.
    unpacked: BTreeMap<Relative, Unpacked>,
    has_entries: bool,
    has_chosen: bool,
    buffer: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unpacked {
    File,
    Directory,
    Symlink,
}

impl<'a> Destination<'a> {
    /// The directory `root`, which is made if it is missing.
    pub(crate) fn new(root: &Path, choice: &'a Choice) -> Result<Self, Problem> {
        tree::make_directory(root)?;
        Ok(Self {
            root: root.to_owned(),
            choice,
            unpacked: BTreeMap::new(),
            has_entries: false,
            has_chosen: false,
            buffer: vec![0; BUFFER_BYTES],
        })
    }

    /// Where an entry called `name` goes, or nothing if it is not wanted.
    pub(crate) fn choose(
        &mut self,
        name: &[u8],
        is_directory: bool,
    ) -> Result<Option<Relative>, Problem> {
        let path = Relative::parse(name)?;
        if path.is_root() {
            // `./`, which most archives of `.` begin with.
            return if is_directory {
                Ok(None)
            } else {
                Err(Problem::Nameless)
            };
        }
        self.has_entries = true;
        let place = self.place(&path);
        self.has_chosen |= place.is_some();
        match place {
            Some(place) if place.is_root() && is_directory => Ok(None),
            Some(place) if place.is_root() => Err(Problem::Nameless),
            place => Ok(place),
        }
    }

    /// Makes a directory. One may be in an archive more than once.
    pub(crate) fn directory(&mut self, path: &Relative) -> Result<(), Problem> {
        self.make_ancestors(path)?;
        match self.unpacked.get(path) {
            None => self.make_directory(path),
            Some(Unpacked::Directory) => Ok(()),
            Some(Unpacked::File | Unpacked::Symlink) => Err(Problem::Duplicate),
        }
    }

    /// Writes a file with all of `content`, and says how many bytes it had.
    pub(crate) fn file(&mut self, path: &Relative, content: &mut dyn Read) -> Result<u64, Problem> {
        self.make_room(path)?;
        let place = path.on(&self.root);
        let mut file = File::create_new(&place).map_err(|error| taken(&place, error))?;
        self.unpacked.insert(path.clone(), Unpacked::File);
        let mut total = 0;
        loop {
            match content.read(&mut self.buffer) {
                Ok(0) => return Ok(total),
                Ok(count) => {
                    file.write_all(&self.buffer[..count])
                        .map_err(TreeError::at(&place))?;
                    total += count as u64;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Problem::Read(error)),
            }
        }
    }

    /// Makes a symlink to `target`.
    pub(crate) fn symlink(&mut self, path: &Relative, target: &[u8]) -> Result<(), Problem> {
        let target = safe_target(path, target)?;
        self.make_room(path)?;
        let place = path.on(&self.root);
        tree::symlink(Path::new(target), &place).map_err(|error| taken(&place, error.source))?;
        self.unpacked.insert(path.clone(), Unpacked::Symlink);
        Ok(())
    }

    /// Copies the file that the archive called `target`: WASI can't keep a link to it apart.
    pub(crate) fn hard_link(&mut self, path: &Relative, target: &[u8]) -> Result<(), Problem> {
        let name = Relative::parse(target)?;
        let original = self
            .place(&name)
            .filter(|original| self.unpacked.get(original) == Some(&Unpacked::File))
            .ok_or_else(|| Problem::LinkMissing(name.to_string()))?;
        let original = original.on(&self.root);
        let mut content = File::open(&original).map_err(TreeError::at(&original))?;
        self.file(path, &mut content)?;
        Ok(())
    }

    /// To be called after the last entry.
    pub(crate) fn finish(&self) -> Result<(), Problem> {
        if self.has_entries && !self.has_chosen {
            return Err(Problem::NothingChosen);
        }
        Ok(())
    }

    fn place(&self, path: &Relative) -> Option<Relative> {
        let path = path.without(self.choice.strip)?;
        if !self.choice.only.has(path.as_str()) {
            return None;
        }
        let renamed = self.choice.rename.iter().find_map(|(from, to)| {
            let below = path.below(from)?;
            Some(to.join(&below))
        });
        Some(renamed.unwrap_or(path))
    }

    /// Makes sure that something new can be made at `path`.
    fn make_room(&mut self, path: &Relative) -> Result<(), Problem> {
        self.make_ancestors(path)?;
        if self.unpacked.contains_key(path) {
            return Err(Problem::Duplicate);
        }
        Ok(())
    }

    /// Makes sure that all ancestors of `path` are real directories.
    fn make_ancestors(&mut self, path: &Relative) -> Result<(), Problem> {
        for ancestor in path.ancestors() {
            match self.unpacked.get(&ancestor) {
                None => self.make_directory(&ancestor)?,
                Some(Unpacked::Directory) => {}
                Some(Unpacked::File) => return Err(Problem::ThroughFile),
                Some(Unpacked::Symlink) => return Err(Problem::ThroughLink),
            }
        }
        Ok(())
    }

    /// Makes a directory that is not unpacked yet, in one that is real.
    fn make_directory(&mut self, path: &Relative) -> Result<(), Problem> {
        let place = path.on(&self.root);
        match tree::kind(&place) {
            Ok(Kind::Directory) => {}
            Ok(Kind::File) => return Err(Problem::ThroughFile),
            Ok(Kind::Symlink(_)) => return Err(Problem::ThroughLink),
            Err(error) if error.source.kind() == ErrorKind::NotFound => {
                fs::create_dir(&place).map_err(TreeError::at(&place))?;
            }
            Err(error) => return Err(error.into()),
        }
        self.unpacked.insert(path.clone(), Unpacked::Directory);
        Ok(())
    }
}

/// `target` as text, if a symlink at `path` to it can't lead out of the destination.
fn safe_target<'t>(path: &Relative, target: &'t [u8]) -> Result<&'t str, Problem> {
    let text = str::from_utf8(target).map_err(|_| Problem::LinkTarget)?;
    if text.is_empty() || text.len() > TARGET_BYTES || text.contains('\0') {
        return Err(Problem::LinkTarget);
    }
    let escapes = || Problem::LinkEscapes(text.to_owned());
    if text.starts_with('/') {
        return Err(escapes());
    }
    let mut room = path.depth() - 1; // How far up it may still go.
    for component in text.split('/') {
        match component {
            "" | "." => {}
            ".." => room = room.checked_sub(1).ok_or_else(escapes)?,
            _ => room = 0, // What comes next may itself be a symlink.
        }
    }
    Ok(text)
}

fn taken(place: &Path, error: std::io::Error) -> Problem {
    match error.kind() {
        ErrorKind::AlreadyExists => Problem::Exists,
        _ => Problem::Write(TreeError::at(place)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symlinks_go_up_first_and_not_too_far() {
        check("l", "a", true);
        check("l", "a/b", true);
        check("l", ".", true);
        check("a/l", "..", true);
        check("a/l", "../b", true);
        check("a/b/l", ".././../c", true);
        check("l", "..", false);
        check("a/l", "../..", false);
        check("a/l", "../../a", false);
        check("a/b/l", "c/..", false); // `c` may be a symlink to `../..`.
        check("a/b/l", "../c/..", false);
        check("l", "/a", false);
        check("l", "", false);
        check("l", "a\0b", false);
        check("l", &"x".repeat(TARGET_BYTES), true);
        check("l", &"x".repeat(TARGET_BYTES + 1), false);
    }

    #[track_caller]
    fn check(path: &str, target: &str, is_safe: bool) {
        let path = Relative::parse(path.as_bytes()).unwrap();
        assert_eq!(safe_target(&path, target.as_bytes()).is_ok(), is_safe);
    }
}
