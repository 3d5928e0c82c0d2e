//! The one pattern language (SPEC §5.4): excludes of a source, executables of an output.
//!
//! Pattern and path are split at `/`. A component `**` stands for any number of components, none
//! included; inside a component `*` stands for any bytes and `?` for one. All else is literal.
//! There are no classes, braces or escapes: a pattern must read the same to everybody.

use crate::limits;

/// Why a text is not a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GlobError {
    /// Empty, or with an empty component: it could match nothing.
    #[error("pattern `{0}` has an empty component")]
    Empty(String),
    /// Longer than [`limits::GLOB_BYTES`].
    #[error("pattern of {0} bytes; at most {max} are allowed", max = limits::GLOB_BYTES)]
    TooLong(usize),
}

/// A pattern over relative paths.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Glob(String);

impl std::str::FromStr for Glob {
    type Err = GlobError;

    fn from_str(text: &str) -> Result<Self, GlobError> {
        Self::new(text)
    }
}

impl<'de> serde::Deserialize<'de> for Glob {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <String as serde::Deserialize>::deserialize(deserializer)?;
        Self::new(text).map_err(serde::de::Error::custom)
    }
}

impl Glob {
    /// Checks a pattern.
    pub fn new(pattern: impl Into<String>) -> Result<Self, GlobError> {
        let pattern = pattern.into();
        if pattern.len() > limits::GLOB_BYTES {
            return Err(GlobError::TooLong(pattern.len()));
        }
        if pattern.split('/').any(str::is_empty) {
            return Err(GlobError::Empty(pattern));
        }
        Ok(Self(pattern))
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the whole of `path`, relative and `/`-separated, matches.
    ///
    /// Takes time proportional to the product of the lengths: a hostile pattern can't blow up.
    pub fn matches(&self, path: &[u8]) -> bool {
        let pattern: Vec<&[u8]> = self.0.as_bytes().split(|b| *b == b'/').collect();
        let path: Vec<&[u8]> = path.split(|b| *b == b'/').collect();
        wildcard(
            &pattern,
            &path,
            |p| *p == b"**",
            |p, c| wildcard(p, c, |b| *b == b'*', |p, c| *p == b'?' || p == c),
        )
    }
}

/// Matches `text` against `pattern`, in which elements for which `any` holds stand for any run.
///
/// The usual two-pointer walk: on a mismatch only the latest wildcard takes one more element,
/// which is enough, because an earlier one could only leave less to the later.
fn wildcard<T>(pattern: &[T], text: &[T], any: impl Fn(&T) -> bool, one: impl Fn(&T, &T) -> bool) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        if p < pattern.len() && any(&pattern[p]) {
            retry = Some((p + 1, t));
            p += 1;
        } else if p < pattern.len() && one(&pattern[p], &text[t]) {
            p += 1;
            t += 1;
        } else if let Some((after, from)) = retry {
            retry = Some((after, from + 1));
            p = after;
            t = from + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(any)
}

impl std::fmt::Display for Glob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, yes: &[&str], no: &[&str]) {
        let glob = Glob::new(pattern).unwrap();
        for path in yes {
            assert!(glob.matches(path.as_bytes()), "{pattern} should match {path}");
        }
        for path in no {
            assert!(!glob.matches(path.as_bytes()), "{pattern} should not match {path}");
        }
    }

    #[test]
    fn patterns() {
        check("*.c", &["a.c", ".c"], &["a.h", "d/a.c", "a.cc"]);
        check("**/*.c", &["a.c", "d/a.c", "d/e/a.c"], &["a.h"]);
        check("bin/**", &["bin", "bin/a", "bin/a/b"], &["sbin/a"]);
        check("a/**/b", &["a/b", "a/x/b", "a/x/y/b"], &["a", "b", "a/bx"]);
        check("a?c*", &["abc", "axcdef"], &["ac", "xabc"]);
        check("**", &["a", "a/b"], &[]);
        check("[a]{b}", &["[a]{b}"], &["ab"]);
    }

    #[test]
    fn refused() {
        for bad in ["", "/a", "a/", "a//b"] {
            assert!(matches!(Glob::new(bad), Err(GlobError::Empty(_))), "{bad}");
        }
        assert!(matches!(Glob::new("x".repeat(1025)), Err(GlobError::TooLong(1025))));
    }

    #[test]
    fn hostile_pattern_is_quick() {
        let glob = Glob::new("*a".repeat(500)).unwrap();
        assert!(!glob.matches(&[b'a'; 400]));
    }
}
