//! Paths inside a tree, for names that somebody else chose.
//!
//! A [`Relative`] is made only from a name that stays in its tree, so whoever holds one need not
//! ask again. Symlinks are another matter: what a name means on disk is checked where it is used.

use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};

/// The longest name of one file or directory, in bytes: what NAR and most file systems allow.
pub const NAME_BYTES: usize = 255;

/// A path inside a tree: components joined by `/`, none of them empty, `.`, `..`, longer than
/// [`NAME_BYTES`] or with a NUL byte. Without components it is the root of the tree.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Relative(String);

impl Relative {
    /// The path that `bytes` name. Empty and `.` components are dropped.
    ///
    /// # Errors
    ///
    /// [`PathFault`] says which rule the name breaks.
    ///
    /// # Example
    ///
    /// ```
    /// use stage0::path::{PathFault, Relative};
    ///
    /// assert_eq!(Relative::parse(b"./a//b/").unwrap().as_str(), "a/b");
    /// assert_eq!(Relative::parse(b"a/../b"), Err(PathFault::Upwards));
    /// ```
    pub fn parse(bytes: &[u8]) -> Result<Self, PathFault> {
        let text = str::from_utf8(bytes).map_err(|_| PathFault::NotUtf8)?;
        if text.contains('\0') {
            return Err(PathFault::Nul);
        }
        if text.starts_with('/') {
            return Err(PathFault::Absolute);
        }
        let mut path = Self::default();
        for component in text.split('/') {
            match component {
                "" | "." => {}
                ".." => return Err(PathFault::Upwards),
                name if name.len() > NAME_BYTES => return Err(PathFault::LongName),
                name => path.push(name),
            }
        }
        Ok(path)
    }

    /// The path as text; empty for the root.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the tree itself.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// How many components there are.
    pub fn depth(&self) -> usize {
        self.components().count()
    }

    /// The components, from the root down.
    pub fn components(&self) -> impl Iterator<Item = &str> {
        self.0.split('/').filter(|name| !name.is_empty())
    }

    /// All directories that this path lies in, from the first below the root down.
    pub fn ancestors(&self) -> impl Iterator<Item = Self> {
        self.0
            .match_indices('/')
            .map(|(end, _)| Self(self.0[..end].to_owned()))
    }

    /// The path without its first `count` components, or nothing if none would be left.
    pub fn without(&self, count: usize) -> Option<Self> {
        let mut stripped = Self::default();
        self.components()
            .skip(count)
            .for_each(|name| stripped.push(name));
        (!stripped.is_root()).then_some(stripped)
    }

    /// The path from `directory` on, if it is there or below.
    pub fn below(&self, directory: &Self) -> Option<Self> {
        let rest = self.0.strip_prefix(&directory.0)?;
        match rest.strip_prefix('/') {
            Some(below) => Some(Self(below.to_owned())),
            None if rest.is_empty() || directory.is_root() => Some(Self(rest.to_owned())),
            None => None,
        }
    }

    /// This path, then `other` inside it.
    #[must_use]
    pub fn join(&self, other: &Self) -> Self {
        let mut joined = self.clone();
        other.components().for_each(|name| joined.push(name));
        joined
    }

    /// Where this path is on disk, if its tree is at `root`.
    pub fn on(&self, root: &Path) -> PathBuf {
        if self.is_root() {
            root.to_owned()
        } else {
            root.join(&self.0)
        }
    }

    fn push(&mut self, name: &str) {
        if !self.0.is_empty() {
            self.0.push('/');
        }
        self.0.push_str(name);
    }
}

impl fmt::Display for Relative {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_root() { "." } else { &self.0 })
    }
}

/// Why a name is not a [`Relative`] path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathFault {
    /// It begins with `/`.
    Absolute,
    /// It has a `..` component.
    Upwards,
    /// A component is longer than [`NAME_BYTES`].
    LongName,
    /// It has a NUL byte.
    Nul,
    /// It is not UTF-8, which is all that WASI can name.
    NotUtf8,
}

impl fmt::Display for PathFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absolute => f.write_str("path is absolute"),
            Self::Upwards => f.write_str("path contains `..`"),
            Self::LongName => write!(f, "name is longer than {NAME_BYTES} bytes"),
            Self::Nul => f.write_str("path contains a NUL byte"),
            Self::NotUtf8 => f.write_str("path is not UTF-8"),
        }
    }
}

impl Error for PathFault {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_cleaned_or_refused() {
        check(b"a/b", Ok("a/b"));
        check(b"./a//./b/", Ok("a/b"));
        check(b"", Ok(""));
        check(b".", Ok(""));
        check(b"a/...", Ok("a/..."));
        check(br"a\..\b", Ok(r"a\..\b")); // No separator here.
        check(b"/", Err(PathFault::Absolute));
        check(b"/a", Err(PathFault::Absolute));
        check(b"..", Err(PathFault::Upwards));
        check(b"a/..", Err(PathFault::Upwards));
        check(b"a\0", Err(PathFault::Nul));
        check(b"\xff", Err(PathFault::NotUtf8));
        check(&[b'x'; 255], Ok(&"x".repeat(255)));
        check(&[b'x'; 256], Err(PathFault::LongName));
    }

    #[test]
    fn paths_come_apart() {
        let path = Relative::parse(b"a/b/c").unwrap();
        assert_eq!(path.depth(), 3);
        let above: Vec<_> = path.ancestors().map(|a| a.0).collect();
        assert_eq!(above, ["a", "a/b"]);
        assert_eq!(path.without(1).unwrap().as_str(), "b/c");
        assert_eq!(path.without(3), None);
        let below = |of: &[u8]| path.below(&Relative::parse(of).unwrap()).map(|p| p.0);
        assert_eq!(below(b"a/b").as_deref(), Some("c"));
        assert_eq!(below(b"a/b/c").as_deref(), Some(""));
        assert_eq!(below(b"").as_deref(), Some("a/b/c"));
        assert_eq!(below(b"a/b/c/d"), None);
        assert_eq!(
            Relative::parse(b"ab")
                .unwrap()
                .below(&Relative::parse(b"a").unwrap()),
            None
        );
    }

    proptest! {
        /// No name leads out of its tree, and reading a path again changes nothing.
        #[test]
        fn no_name_leads_out(bytes in prop::collection::vec(prop::sample::select(b"ab./\0\xff".to_vec()), 0..12)) {
            if let Ok(path) = Relative::parse(&bytes) {
                prop_assert!(path.on(Path::new("/tree")).starts_with("/tree"));
                prop_assert!(path.components().all(|name| name != ".."));
                prop_assert_eq!(Relative::parse(path.as_str().as_bytes()), Ok(path));
            }
        }
    }

    #[track_caller]
    fn check(bytes: &[u8], expected: Result<&str, PathFault>) {
        assert_eq!(
            Relative::parse(bytes).as_ref().map(Relative::as_str),
            expected.as_ref().copied()
        );
    }
}
