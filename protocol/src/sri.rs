//! The expected hash of a fetched file, as in Subresource Integrity (SPEC §5.3): `sha256-…`,
//! `sha512-…` (base64, padded), and our own `blake3-…`.

use std::{fmt, str::FromStr};

/// A hash function that a fetch may be pinned with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// SHA-256: the registries of Rust and Python publish it.
    Sha256,
    /// SHA-512: the registry of npm publishes it.
    Sha512,
    /// BLAKE3-256.
    Blake3,
}

impl Algorithm {
    /// Its name in the text form.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
            Self::Blake3 => "blake3",
        }
    }

    /// Bytes of its digest.
    pub const fn digest_bytes(self) -> usize {
        match self {
            Self::Sha256 | Self::Blake3 => 32,
            Self::Sha512 => 64,
        }
    }

    /// The algorithm of that name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Sha256, Self::Sha512, Self::Blake3].into_iter().find(|a| a.name() == name)
    }
}

/// A digest and what it is a digest with.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sri {
    algorithm: Algorithm,
    digest: Vec<u8>,
}

/// Why a text is not such a hash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SriError {
    /// Neither of the three names before the dash.
    #[error("expected `sha256-`, `sha512-` or `blake3-` and base64, found `{found}`")]
    Algorithm {
        /// The beginning of what was given.
        found: String,
    },
    /// Not base64 with its padding, or not in its canonical form.
    #[error("the part after `{algorithm}-` is not base64 with padding")]
    Base64 {
        /// The algorithm named.
        algorithm: &'static str,
    },
    /// The wrong length for the algorithm.
    #[error("a {algorithm} digest has {expected} bytes, found {found}")]
    Length {
        /// The algorithm named.
        algorithm: &'static str,
        /// Bytes it has.
        expected: usize,
        /// Bytes given.
        found: usize,
    },
}

impl Sri {
    /// Puts a digest together with its algorithm.
    pub fn new(algorithm: Algorithm, digest: Vec<u8>) -> Result<Self, SriError> {
        if digest.len() != algorithm.digest_bytes() {
            return Err(SriError::Length {
                algorithm: algorithm.name(),
                expected: algorithm.digest_bytes(),
                found: digest.len(),
            });
        }
        Ok(Self { algorithm, digest })
    }

    /// The hash function.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The digest, [`Algorithm::digest_bytes`] long.
    pub fn digest(&self) -> &[u8] {
        &self.digest
    }
}

impl FromStr for Sri {
    type Err = SriError;

    fn from_str(text: &str) -> Result<Self, SriError> {
        let unknown = || SriError::Algorithm { found: text.chars().take(16).collect() };
        let (name, body) = text.split_once('-').ok_or_else(unknown)?;
        let algorithm = Algorithm::named(name).ok_or_else(unknown)?;
        // The decoder also takes texts with padding that are joined: there is one text for each hash.
        let digest = data_encoding::BASE64
            .decode(body.as_bytes())
            .ok()
            .filter(|digest| data_encoding::BASE64.encode(digest) == body)
            .ok_or(SriError::Base64 { algorithm: algorithm.name() })?;
        Self::new(algorithm, digest)
    }
}

impl fmt::Display for Sri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.algorithm.name(), data_encoding::BASE64.encode(&self.digest))
    }
}

impl fmt::Debug for Sri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text() {
        let text = format!("sha256-{}", data_encoding::BASE64.encode(&[1; 32]));
        assert_eq!(text.parse::<Sri>().unwrap().to_string(), text);
        let err = |t: &str| t.parse::<Sri>().unwrap_err();
        assert!(matches!(err("md5-AAAA"), SriError::Algorithm { .. }));
        assert!(matches!(err("nothing"), SriError::Algorithm { .. }));
        assert!(matches!(err("sha256-AAA"), SriError::Base64 { .. }));
        let joined = [[1; 14].as_slice(), &[1; 18]].map(|part| data_encoding::BASE64.encode(part)).concat();
        assert!(matches!(err(&format!("sha256-{joined}")), SriError::Base64 { .. }));
        assert!(matches!(err("sha256-AAAA"), SriError::Length { expected: 32, found: 3, .. }));
    }
}
