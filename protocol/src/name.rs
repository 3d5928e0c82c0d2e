//! Strings that were checked once (SPEC §5.1): mount names, labels and guest paths.

use std::{fmt, sync::Arc};

use crate::{encode::refuse, limits};

/// Why a text is not a name or a path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Empty.
    #[error("a name must not be empty")]
    Empty,
    /// Too long for its kind.
    #[error("`{start}…` has {found} bytes; at most {limit} are allowed")]
    TooLong {
        /// Its first characters.
        start: String,
        /// Bytes given.
        found: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// A character that names do not have.
    #[error(
        "`{name}` has the character {character:?}; names are made of letters, digits and `_.+-`, and begin with a letter, a digit or `_`"
    )]
    Character {
        /// The name.
        name: String,
        /// The first such character.
        character: char,
    },
    /// Not absolute.
    #[error("`{0}` must begin with `/`")]
    Relative(String),
    /// With an empty component, `.`, `..` or a NUL.
    #[error("`{0}` must be a plain path: no `//`, `.`, `..`, NUL or `/` at the end")]
    NotPlain(String),
    /// Not below a place where a guest may find it.
    #[error("`{path}` must be below {allowed}")]
    Outside {
        /// The path.
        path: String,
        /// The places.
        allowed: &'static str,
    },
}

fn too_long(text: &str, limit: usize) -> NameError {
    NameError::TooLong { start: text.chars().take(32).collect(), found: text.len(), limit }
}

/// The name of an input (`/in/<name>`), an output (`/out-<name>`), or what people call a derivation.
///
/// 1 to [`limits::NAME_BYTES`] of `A-Z a-z 0-9 _ . + -`, the first a letter, a digit or `_`.
///
/// A clone shares the text: a name is in every vote, claim and reason that it has a part in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

impl Name {
    /// Checks a name.
    pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
        let text = text.into();
        let Some(first) = text.chars().next() else {
            return Err(NameError::Empty);
        };
        if text.len() > limits::NAME_BYTES {
            return Err(too_long(&text, limits::NAME_BYTES));
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let bad = text.chars().find(|c| !(plain(*c) || ['.', '+', '-'].contains(c)));
        match bad.or_else(|| (!plain(first)).then_some(first)) {
            Some(character) => Err(NameError::Character { name: text, character }),
            None => Ok(Self(text.into())),
        }
    }

    /// The output that a derivation has if it says nothing else: `out`.
    pub fn out() -> Self {
        Self("out".into())
    }

    /// What a package is called of which nobody here knows the name: `_`.
    pub fn unknown() -> Self {
        Self("_".into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Where an output of this name is mounted: `/out`, or `/out-<name>`.
    pub fn output_mount(&self) -> String {
        if &*self.0 == "out" { "/out".into() } else { format!("/out-{}", self.0) }
    }

    /// Where an input of this name is mounted: `/in/<name>`.
    pub fn input_mount(&self) -> String {
        format!("/in/{}", self.0)
    }
}

/// An absolute, plain path in a guest's file system, at most [`limits::PATH_BYTES`] long.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GuestPath(String);

impl GuestPath {
    /// Checks a path.
    pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
        let text = text.into();
        if text.len() > limits::PATH_BYTES {
            return Err(too_long(&text, limits::PATH_BYTES));
        }
        let Some(rest) = text.strip_prefix('/') else {
            return Err(NameError::Relative(text));
        };
        let plain = |c: &str| {
            !c.is_empty() && c != "." && c != ".." && c.len() <= limits::NAR_NAME_BYTES && !c.contains('\0')
        };
        if rest.is_empty() || rest.split('/').all(plain) {
            return Ok(Self(text));
        }
        Err(NameError::NotPlain(text))
    }

    /// The path, which begins with `/`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its components, none for the root.
    pub fn components(&self) -> impl Iterator<Item = &str> {
        self.0.split('/').filter(|c| !c.is_empty())
    }

    /// The input it lies in and the path below that input, empty for the input itself.
    pub fn in_input(&self) -> Option<(&str, &str)> {
        let rest = self.0.strip_prefix("/in/")?;
        Some(rest.split_once('/').unwrap_or((rest, "")))
    }
}

/// So that a set of names can be asked for a text; the two have the same order.
impl std::borrow::Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

macro_rules! as_text {
    ($type:ident) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl std::str::FromStr for $type {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(deserializer)?;
                Self::new(text).map_err(serde::de::Error::custom)
            }
        }

        impl<C> minicbor::Encode<C> for $type {
            fn encode<W: minicbor::encode::Write>(
                &self,
                e: &mut minicbor::Encoder<W>,
                _: &mut C,
            ) -> Result<(), minicbor::encode::Error<W::Error>> {
                e.str(&self.0)?.ok()
            }
        }

        impl<'b, C> minicbor::Decode<'b, C> for $type {
            fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
                let at = d.position();
                Self::new(d.str()?).map_err(|e| refuse(at, e))
            }
        }
    };
}

as_text!(Name);
as_text!(GuestPath);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "out", "lua-5.4.9", "_x", "c++", "0"] {
            Name::new(good).unwrap();
        }
        assert_eq!(Name::new(""), Err(NameError::Empty));
        for (bad, c) in [(".", '.'), ("-x", '-'), ("a/b", '/'), ("é", 'é'), ("a b", ' '), ("a\0", '\0')] {
            assert_eq!(Name::new(bad), Err(NameError::Character { name: bad.into(), character: c }));
        }
        assert!(Name::new("x".repeat(128)).is_ok());
        assert!(matches!(Name::new("x".repeat(129)), Err(NameError::TooLong { found: 129, .. })));
    }

    #[test]
    fn paths() {
        for good in ["/", "/in/a", "/build/ü.c"] {
            GuestPath::new(good).unwrap();
        }
        assert!(matches!(GuestPath::new("in"), Err(NameError::Relative(_))));
        for bad in ["//", "/a/", "/a//b", "/.", "/a/../b", "/a\0b"] {
            assert!(matches!(GuestPath::new(bad), Err(NameError::NotPlain(_))), "{bad:?}");
        }
        assert_eq!(GuestPath::new("/in/a/b/c").unwrap().in_input(), Some(("a", "b/c")));
        assert_eq!(GuestPath::new("/in/a").unwrap().in_input(), Some(("a", "")));
        assert_eq!(GuestPath::new("/build/a").unwrap().in_input(), None);
    }
}
