//! Proof of execution (SPEC §11): how what a guest did is hashed, and what is published of it.
//!
//! ```text
//! calls of the guest ──▶ Transcript ──▶ TranscriptHash (stays at home)
//!                                          └─ with an attester's key ──▶ Witness (published)
//! ```
//!
//! Execution is deterministic, so everybody who executed an action has the same transcript and can
//! compute what the witness of every attester must be. From a witness nobody gets back to the
//! transcript, or to a witness of his own. What this does not show: that two people did not share a
//! transcript, or that the attester's own machine did the work.

use std::fmt;

use crate::{encode, id::ActionId, key::AttesterKey};

const TRANSCRIPT: &str = "assize 2026-11 transcript";
const FETCHED: &str = "assize 2026-11 fetched";
const WITNESS: &str = "assize 2026-11 witness";

/// Ends the regions of a call; no region is that long.
const END: [u8; 8] = [0xff; 8];

/// Marks that a step begins; no function has this number.
pub(crate) const STEP: u8 = 0xff;

/// The hash of what a guest did. A secret: who has it can vouch for an execution that was not his.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TranscriptHash([u8; 32]);

impl TranscriptHash {
    /// Takes the 32 bytes as they are.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The transcript of a fetch, which executes nothing: a hash of the archive that is not its NAR
    /// hash, and so not to be had without the archive.
    pub fn of_fetched(archive: &[u8]) -> Self {
        Self(blake3::derive_key(FETCHED, archive))
    }

    /// What the witness of `attester` for `action` must be.
    pub fn witness(&self, attester: &AttesterKey, action: &ActionId) -> Witness {
        let mut hasher = blake3::Hasher::new_derive_key(WITNESS);
        hasher.update(&self.0).update(attester.as_bytes()).update(action.as_bytes());
        Witness(*hasher.finalize().as_bytes())
    }
}

impl fmt::Debug for TranscriptHash {
    /// Does not show it: logs are published.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TranscriptHash(secret)")
    }
}

/// What an attestation says to show that its attester executed the action.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Witness([u8; 32]);

impl Witness {
    /// Takes the 32 bytes as they are.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

/// Hashes what a guest does, call by call (SPEC §11.1).
#[derive(Debug, Clone)]
pub struct Transcript(blake3::Hasher);

impl Transcript {
    /// The transcript of an execution that did nothing yet.
    pub fn new(action: &ActionId) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(TRANSCRIPT);
        hasher.update(action.as_bytes());
        Self(hasher)
    }

    /// A step begins, counted from 0.
    pub fn step(&mut self, number: u32) {
        self.0.update(&[STEP]).update(&number.to_le_bytes());
    }

    /// A call: the number of its function (below 255), its arguments, what it returned, and the
    /// regions of the guest's memory that it read from or wrote to (SPEC §11.1, table), as they
    /// are when it returns.
    pub fn call<'m>(
        &mut self,
        function: u8,
        arguments: &[u64],
        errno: u16,
        regions: impl IntoIterator<Item = &'m [u8]>,
    ) {
        debug_assert_ne!(function, STEP, "functions are numbered from 0");
        self.0.update(&[function]);
        for argument in arguments {
            self.0.update(&argument.to_le_bytes());
        }
        self.0.update(&errno.to_le_bytes());
        for region in regions {
            self.0.update(&(region.len() as u64).to_le_bytes()).update(region);
        }
        self.0.update(&END);
    }

    /// The hash of all that was done.
    pub fn finish(&self) -> TranscriptHash {
        TranscriptHash(*self.0.finalize().as_bytes())
    }
}

encode::bytes!(Witness, "a witness has 32 bytes");
encode::bytes!(TranscriptHash, "a transcript has 32 bytes");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::NarHash;

    fn action(n: u8) -> ActionId {
        ActionId::from_bytes([n; 32])
    }

    /// SPEC §11.1: no two sequences of calls have one transcript.
    #[test]
    fn transcripts_differ() {
        let transcript = |f: &dyn Fn(&mut Transcript)| {
            let mut t = Transcript::new(&action(1));
            f(&mut t);
            *t.finish().as_bytes()
        };
        let region = |bytes: &'static [u8]| [bytes].into_iter();
        let all = [
            transcript(&|_| {}),
            transcript(&|t| t.step(0)),
            transcript(&|t| t.step(1)),
            transcript(&|t| t.call(1, &[], 0, [])),
            transcript(&|t| t.call(2, &[], 0, [])),
            transcript(&|t| t.call(1, &[7], 0, [])),
            transcript(&|t| t.call(1, &[], 8, [])),
            transcript(&|t| t.call(1, &[], 0, region(b""))),
            transcript(&|t| t.call(1, &[], 0, region(b"a"))),
            transcript(&|t| t.call(1, &[], 0, region(b"ab"))),
            transcript(&|t| t.call(1, &[], 0, [b"a".as_slice(), b"b"])),
            transcript(&|t| {
                t.call(1, &[], 0, region(b"a"));
                t.call(1, &[], 0, region(b"b"));
            }),
        ];
        for (n, one) in all.iter().enumerate() {
            assert!(all[n + 1..].iter().all(|other| other != one), "{n}");
        }
        assert_ne!(Transcript::new(&action(1)).finish(), Transcript::new(&action(2)).finish());
    }

    /// SPEC §11.2: a witness is good for one attester and one action.
    #[test]
    fn witnesses_are_personal() {
        let transcript = Transcript::new(&action(1)).finish();
        let (a, b) = (AttesterKey::from_bytes([1; 32]), AttesterKey::from_bytes([2; 32]));
        assert_ne!(transcript.witness(&a, &action(1)), transcript.witness(&b, &action(1)));
        assert_ne!(transcript.witness(&a, &action(1)), transcript.witness(&a, &action(2)));
        assert_eq!(transcript.witness(&a, &action(1)), transcript.witness(&a, &action(1)));
        assert_ne!(TranscriptHash::of_fetched(b"x").as_bytes(), NarHash::of(b"x").as_bytes());
    }

    #[test]
    fn a_witness_is_shown_and_a_transcript_is_not() {
        assert_eq!(format!("{:?}", Witness::from_bytes([7; 32])), "07".repeat(32));
        assert_eq!(format!("{:?}", TranscriptHash::from_bytes([7; 32])), "TranscriptHash(secret)");
    }
}
