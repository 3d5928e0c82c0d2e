//! Hashes that know what they are hashes of (SPEC §3).
//!
//! Each is 32 bytes of BLAKE3. As text it is `kind:` and 52 characters of base32 (RFC 4648, lower
//! case, no padding), so that two kinds can be neither confused nor pasted in each other's place.

use std::{fmt, str::FromStr};

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Another kind of id, or none (SPEC §3).
    #[error("expected an id that begins with `{expected}:`, found `{found}`")]
    Kind {
        /// The kind asked for.
        expected: &'static str,
        /// The beginning of what was given, at most 16 characters.
        found: String,
    },
    /// Not 52 characters after the colon (SPEC §3).
    #[error("expected 52 characters after `{kind}:`, found {found}")]
    Length {
        /// The kind asked for.
        kind: &'static str,
        /// How many characters there were.
        found: usize,
    },
    /// A character outside `a-z2-7`, or bits behind the 256th that are not zero (SPEC §3).
    #[error("character {at} after `{kind}:` is not one of a-z and 2-7, or not in its canonical form")]
    Alphabet {
        /// The kind asked for.
        kind: &'static str,
        /// Counted from 0 behind the colon.
        at: usize,
    },
}

fn parse(kind: &'static str, text: &str) -> Result<[u8; 32], IdError> {
    let body = text
        .strip_prefix(kind)
        .and_then(|rest| rest.strip_prefix(':'))
        .ok_or_else(|| IdError::Kind { expected: kind, found: text.chars().take(16).collect() })?;
    if body.len() != 52 {
        return Err(IdError::Length { kind, found: body.chars().count() });
    }
    let mut bytes = [0; 32];
    match BASE32.decode_mut(body.as_bytes(), &mut bytes) {
        Ok(_) => Ok(bytes),
        Err(partial) => Err(IdError::Alphabet { kind, at: partial.error.position }),
    }
}

/// RFC 4648 base32, lower case, without padding; non-zero trailing bits are refused.
pub(crate) static BASE32: std::sync::LazyLock<data_encoding::Encoding> = std::sync::LazyLock::new(|| {
    let mut spec = data_encoding::Specification::new();
    spec.symbols.push_str("abcdefghijklmnopqrstuvwxyz234567");
    spec.encoding().expect("the alphabet has 32 distinct symbols")
});

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// What its text form begins with, without the colon.
            pub const KIND: &'static str = $kind;

            /// Takes the 32 bytes as they are: any 32 bytes are an id of something.
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The 32 bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// The 32 bytes as 64 lower-case hexadecimal digits, for file names and `b3sum`.
            pub fn to_hex(&self) -> String {
                data_encoding::HEXLOWER.encode(&self.0)
            }

            /// Reads 64 lower-case hexadecimal digits; `None` if it is anything else.
            pub fn from_hex(text: &str) -> Option<Self> {
                let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).ok()?;
                Some(Self(bytes.try_into().ok()?))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}:{}", $kind, BASE32.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                parse($kind, text).map(Self)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        crate::encode::bytes!($name, "a hash has 32 bytes");
    };
}

id! {
    /// BLAKE3-256 of the bytes of a NAR archive, so that `b3sum x.nar` agrees: the output hash.
    NarHash, "nar"
}

id! {
    /// The hash of a derivation's encoding: a build as its author wrote it.
    DerivationId, "drv"
}

id! {
    /// The hash of an action's encoding: the input hash, which attestations speak of.
    ActionId, "act"
}

id! {
    /// The hash of a statement's bytes, without its signature.
    StatementId, "att"
}

impl NarHash {
    /// Hashes a whole archive.
    pub fn of(archive: &[u8]) -> Self {
        Self(*blake3::hash(archive).as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips_and_kinds_differ() {
        let nar = NarHash::from_bytes([7; 32]);
        assert_eq!(nar.to_string().parse(), Ok(nar));
        assert!(matches!(nar.to_string().parse::<ActionId>(), Err(IdError::Kind { .. })));
    }

    #[test]
    fn one_text_per_id() {
        let text = NarHash::from_bytes([0; 32]).to_string();
        // The last character carries one bit only; `b` would set a bit behind the 256th.
        let other = format!("{}b", &text[..text.len() - 1]);
        assert_eq!(other.parse::<NarHash>(), Err(IdError::Alphabet { kind: "nar", at: 51 }));
        assert!(matches!(text.to_uppercase().parse::<NarHash>(), Err(IdError::Kind { .. })));
        assert_eq!(
            text[..text.len() - 1].parse::<NarHash>(),
            Err(IdError::Length { kind: "nar", found: 51 })
        );
    }
}
