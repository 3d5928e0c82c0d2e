//! The keys that sign (SPEC §10.1), and what they sign under.
//!
//! Everything signed begins with a context, a line of text of its own, so that no signature of one
//! kind of object is one of another. Verification is strict (RFC 8032 with the group equation
//! without cofactor, canonical points, no key of small order): `verify_strict` of ed25519-dalek.

use std::{fmt, str::FromStr};

use ed25519_dalek::{Signer as _, VerifyingKey};

use crate::{encode, id::BASE32};

pub use ed25519_dalek::SigningKey;

const CHECK_CONTEXT: &str = "assize 2026-11 key check";
const SECRET_CHECK_CONTEXT: &str = "assize 2026-11 secret key check";

/// Characters of a key's text behind `key:`: 32 bytes and 3 that check them.
const TEXT_LEN: usize = 56;

/// What an object is signed as: the beginning of what is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Context {
    /// An entry of a feed (SPEC §10.2).
    Statement,
    /// A successor's consent to follow another key (SPEC §10.5).
    Succession,
    /// The end of a key (SPEC §10.6).
    Revocation,
    /// Actions that somebody would like to be executed (SPEC §20).
    Wish,
    /// An in-toto statement in a DSSE envelope (SPEC §12.1).
    InToto,
}

impl Context {
    /// The beginning of what is signed.
    pub const fn line(self) -> &'static [u8] {
        match self {
            Self::Statement => b"assize 2026-11 statement\n",
            Self::Succession => b"assize 2026-11 succession\n",
            Self::Revocation => b"assize 2026-11 revocation\n",
            Self::Wish => b"assize 2026-11 wish\n",
            Self::InToto => b"DSSEv1 28 application/vnd.in-toto+json ",
        }
    }

    fn message(self, bytes: &[u8]) -> Vec<u8> {
        [self.line(), bytes].concat()
    }
}

/// Why a text is not the key of an attester.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not `key:` and 56 characters.
    #[error("expected `key:` and 56 characters, found `{start}…` of {found} characters")]
    Shape {
        /// The beginning of what was given, at most 16 characters.
        start: String,
        /// How many characters there were.
        found: usize,
    },
    /// A character outside `a-z2-7`.
    #[error("character {at} after `key:` is not one of a-z and 2-7")]
    Alphabet {
        /// Counted from 0 behind the colon.
        at: usize,
    },
    /// The check characters do not fit the others: a typing error.
    #[error("the key's last characters do not fit the others: it was not copied right")]
    Check,
    /// A key for which anybody can sign, or no key at all.
    #[error("a weak key: anybody can make signatures that it verifies")]
    Weak,
}

/// Why a signature was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// No point of the curve, or one of small order.
    #[error("`{0}` is a weak key")]
    Weak(AttesterKey),
    /// The signature is not that key's of these bytes.
    #[error("the signature is not that of `{0}`")]
    Forged(AttesterKey),
}

/// The public key of an attester.
///
/// Any 32 bytes can be held; [`Verifier::new`] and the text form refuse weak ones.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttesterKey([u8; 32]);

impl AttesterKey {
    /// What its text form begins with, without the colon.
    pub const KIND: &'static str = "key";

    /// The public half of a signing key.
    pub fn of(key: &SigningKey) -> Self {
        Self(key.verifying_key().to_bytes())
    }

    /// Takes the 32 bytes as they are.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The bytes by which typing errors are noticed: the first three of a hash of the key.
    fn check(&self) -> [u8; 3] {
        let hash = blake3::derive_key(CHECK_CONTEXT, &self.0);
        [hash[0], hash[1], hash[2]]
    }
}

impl fmt::Display for AttesterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [0; 35];
        bytes[..32].copy_from_slice(&self.0);
        bytes[32..].copy_from_slice(&self.check());
        write!(f, "{}:{}", Self::KIND, BASE32.encode(&bytes))
    }
}

impl fmt::Debug for AttesterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for AttesterKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let shape =
            || KeyError::Shape { start: text.chars().take(16).collect(), found: text.chars().count() };
        let body = text.strip_prefix("key:").filter(|body| body.len() == TEXT_LEN).ok_or_else(shape)?;
        let mut bytes = [0; 35];
        BASE32
            .decode_mut(body.as_bytes(), &mut bytes)
            .map_err(|partial| KeyError::Alphabet { at: partial.error.position })?;
        let mut key = [0; 32];
        key.copy_from_slice(&bytes[..32]);
        let key = Self(key);
        if key.check() != bytes[32..] {
            return Err(KeyError::Check);
        }
        Verifier::new(key).map_err(|_| KeyError::Weak)?;
        Ok(key)
    }
}

impl serde::Serialize for AttesterKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

encode::bytes!(AttesterKey, "a key has 32 bytes");

/// Why a text is not a secret key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// Not `secret:` and 56 characters of a-z and 2-7.
    #[error("expected `secret:` and 56 characters of a-z and 2-7")]
    Shape,
    /// The check characters do not fit the others: a typing error.
    #[error("the last characters do not fit the others: it was not copied right")]
    Check,
}

/// A secret key as text, for its file and for paper: `secret:` and 56 characters.
pub fn secret_text(key: &SigningKey) -> String {
    let mut bytes = [0; 35];
    bytes[..32].copy_from_slice(key.as_bytes());
    bytes[32..].copy_from_slice(&secret_check(key.as_bytes()));
    format!("secret:{}", BASE32.encode(&bytes))
}

/// Reads what [`secret_text`] writes.
///
/// # Errors
///
/// [`SecretError`], which shows nothing of it.
pub fn parse_secret(text: &str) -> Result<SigningKey, SecretError> {
    let body =
        text.strip_prefix("secret:").filter(|body| body.len() == TEXT_LEN).ok_or(SecretError::Shape)?;
    let mut bytes = [0; 35];
    BASE32.decode_mut(body.as_bytes(), &mut bytes).map_err(|_| SecretError::Shape)?;
    let mut key = [0; 32];
    key.copy_from_slice(&bytes[..32]);
    match secret_check(&key) == bytes[32..] {
        true => Ok(SigningKey::from_bytes(&key)),
        false => Err(SecretError::Check),
    }
}

fn secret_check(key: &[u8; 32]) -> [u8; 3] {
    let hash = blake3::derive_key(SECRET_CHECK_CONTEXT, key);
    [hash[0], hash[1], hash[2]]
}

/// An Ed25519 signature: 64 bytes, not yet verified.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signature([u8; 64]);

impl Signature {
    /// Takes the 64 bytes as they are.
    pub const fn from_bytes(bytes: [u8; 64]) -> Self {
        Self(bytes)
    }

    /// The 64 bytes.
    pub const fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }

    /// Signs `bytes` as what `context` says.
    pub fn sign(key: &SigningKey, context: Context, bytes: &[u8]) -> Self {
        Self(key.sign(&context.message(bytes)).to_bytes())
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

encode::bytes!(Signature, "a signature has 64 bytes");

/// A key made ready to verify many signatures.
#[derive(Debug, Clone, Copy)]
pub struct Verifier {
    key: AttesterKey,
    point: VerifyingKey,
}

impl Verifier {
    /// Refuses weak keys.
    ///
    /// # Errors
    ///
    /// [`SignatureError::Weak`] if the bytes are no point, not its canonical form, or of small order.
    pub fn new(key: AttesterKey) -> Result<Self, SignatureError> {
        let weak = SignatureError::Weak(key);
        let point = VerifyingKey::from_bytes(&key.0).map_err(|_| weak)?;
        // Another spelling of a point would be another key that says the same.
        if point.is_weak() || point.to_edwards().compress().to_bytes() != key.0 {
            return Err(weak);
        }
        Ok(Self { key, point })
    }

    /// The key.
    pub fn key(&self) -> AttesterKey {
        self.key
    }

    /// Whether `signature` is this key's of `bytes`, signed as what `context` says.
    ///
    /// # Errors
    ///
    /// [`SignatureError::Forged`].
    pub fn verify(
        &self,
        context: Context,
        bytes: &[u8],
        signature: &Signature,
    ) -> Result<(), SignatureError> {
        let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
        self.point
            .verify_strict(&context.message(bytes), &signature)
            .map_err(|_| SignatureError::Forged(self.key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> SigningKey {
        SigningKey::from_bytes(&[n; 32])
    }

    /// SPEC §10.1: one text per key, and every slip of one character is noticed.
    #[test]
    fn text_is_checked() {
        let attester = AttesterKey::of(&key(1));
        let text = attester.to_string();
        assert_eq!(text.parse(), Ok(attester));
        for at in 4..text.len() {
            for c in "abcdefghijklmnopqrstuvwxyz234567".chars().filter(|c| !text[at..].starts_with(*c)) {
                let mut slip = text.clone();
                slip.replace_range(at..=at, &c.to_string());
                assert_eq!(slip.parse::<AttesterKey>(), Err(KeyError::Check), "{at} {c}");
            }
        }
        for at in 4..text.len() - 1 {
            let mut swapped: Vec<_> = text.chars().collect();
            swapped.swap(at, at + 1);
            let swapped: String = swapped.into_iter().collect();
            assert!(swapped == text || swapped.parse::<AttesterKey>().is_err());
        }
        let shape = |text: &str| matches!(text.parse::<AttesterKey>(), Err(KeyError::Shape { .. }));
        assert!(
            shape("")
                && shape("key:")
                && shape(&text[4..])
                && shape(&text[..59])
                && shape(&text.to_uppercase())
        );
        let upper = format!("key:{}", text[4..].to_uppercase());
        assert!(matches!(upper.parse::<AttesterKey>(), Err(KeyError::Alphabet { .. })));
    }

    /// SPEC §10.1: a secret key has one text, too, which is none of a public key's.
    #[test]
    fn secrets_are_checked() {
        let text = secret_text(&key(1));
        assert_eq!(parse_secret(&text).map(|key| key.to_bytes()), Ok([1; 32]));
        for at in "secret:".len()..text.len() {
            let mut slip = text.clone();
            slip.replace_range(at..=at, if text[at..].starts_with('a') { "b" } else { "a" });
            assert_eq!(parse_secret(&slip).err(), Some(SecretError::Check), "{at}");
        }
        let upper = format!("secret:{}", text["secret:".len()..].to_uppercase());
        let public = AttesterKey::of(&key(1)).to_string();
        for other in ["", "secret:", &text[..text.len() - 1], &format!("{text}a"), &upper, &public] {
            assert_eq!(parse_secret(other).err(), Some(SecretError::Shape), "{other}");
        }
    }

    #[test]
    fn keys_and_signatures_are_shown_as_text() {
        let attester = AttesterKey::of(&key(1));
        assert_eq!(format!("{attester:?}"), attester.to_string());
        assert_eq!(format!("{:?}", Signature::from_bytes([7; 64])), "07".repeat(64));
    }

    /// SPEC §10.1: keys that verify what nobody signed.
    #[test]
    fn weak_keys_are_refused() {
        // The identity, the point of order 2, and a spelling of the identity that is not canonical.
        let mut identity = [0; 32];
        identity[0] = 1;
        let mut order_two = [0xff; 32];
        (order_two[0], order_two[31]) = (0xec, 0x7f);
        let mut spelled = [0xff; 32];
        (spelled[0], spelled[31]) = (0xee, 0x7f);
        for bytes in [identity, order_two, spelled, [0; 32]] {
            let weak = AttesterKey::from_bytes(bytes);
            assert_eq!(Verifier::new(weak).err(), Some(SignatureError::Weak(weak)));
            assert_eq!(weak.to_string().parse::<AttesterKey>(), Err(KeyError::Weak));
        }
    }

    /// SPEC §10.1: a signature of one kind of object is none of another.
    #[test]
    fn contexts_are_apart() {
        let all =
            [Context::Statement, Context::Succession, Context::Revocation, Context::Wish, Context::InToto];
        let verifier = Verifier::new(AttesterKey::of(&key(1))).unwrap();
        for signed in all {
            let signature = Signature::sign(&key(1), signed, b"x");
            for read in all {
                assert_eq!(verifier.verify(read, b"x", &signature).is_ok(), signed == read);
            }
            assert!(all.iter().all(|c| *c == signed || !c.line().starts_with(signed.line())));
        }
    }

    /// SPEC §10.1: a signature has one form. `s + L` verifies in lenient libraries.
    #[test]
    fn signatures_are_not_malleable() {
        const ORDER: [u8; 32] = [
            0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14,
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
        ];
        let mut signature = Signature::sign(&key(1), Context::Statement, b"x");
        let mut carry = 0;
        for (byte, order) in signature.0[32..].iter_mut().zip(ORDER) {
            let sum = u16::from(*byte) + u16::from(order) + carry;
            (*byte, carry) = (sum as u8, sum >> 8);
        }
        let verifier = Verifier::new(AttesterKey::of(&key(1))).unwrap();
        assert!(verifier.verify(Context::Statement, b"x", &signature).is_err());
    }
}
