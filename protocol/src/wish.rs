//! Wishes (SPEC §20): "I would like others to execute these actions, and to say what they got."
//!
//! A wish is signed, so that a rebuilder can listen to those whom its owner knows, however far away
//! they are. It is no statement about anything, in no feed, and not kept: the latest of each
//! attester counts, for a while.

use minicbor::{
    Decode, Decoder, Encode, Encoder,
    decode::Error as Malformed,
    encode::{Error as WriteFailed, Write},
};

use crate::{
    encode::{self, DecodeError, array, list, refuse},
    id::ActionId,
    key::{AttesterKey, Context, Signature, SignatureError, SigningKey, Verifier},
    limits,
};

/// All that one attester wishes, its signature verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    unsigned: Unsigned,
    signature: Signature,
}

/// A well-formed wish whose signature nobody has checked yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnverifiedWish(Wish);

/// What is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Unsigned {
    attester: AttesterKey,
    number: u64,
    actions: Vec<ActionId>,
}

impl Wish {
    /// Signs the wish for `actions`, of which the first [`limits::WISHES`] in the order of their
    /// hashes are taken; none withdraws what was wished before. Of two wishes of one key the one
    /// with the higher `number` counts.
    pub fn sign(key: &SigningKey, number: u64, actions: impl IntoIterator<Item = ActionId>) -> Self {
        let actions: std::collections::BTreeSet<_> = actions.into_iter().collect();
        let actions = actions.into_iter().take(limits::WISHES).collect();
        let unsigned = Unsigned { attester: AttesterKey::of(key), number, actions };
        let signature = Signature::sign(key, Context::Wish, &encode::to_bytes(&unsigned));
        Self { unsigned, signature }
    }

    /// Whose.
    pub fn attester(&self) -> AttesterKey {
        self.unsigned.attester
    }

    /// Which of its wishes it is.
    pub fn number(&self) -> u64 {
        self.unsigned.number
    }

    /// What is to be executed, in the order of the hashes.
    pub fn actions(&self) -> &[ActionId] {
        &self.unsigned.actions
    }

    /// Its canonical encoding.
    pub fn to_bytes(&self) -> Vec<u8> {
        encode::to_bytes(self)
    }
}

/// How much an action is this attester's turn, compared with others: those for whom it is the
/// highest execute it first (rendezvous hashing), so that work spreads over rebuilders who do not
/// talk to each other, and nobody picks what he votes on.
pub fn turn(attester: &AttesterKey, action: &ActionId) -> [u8; 32] {
    let both = [*attester.as_bytes(), *action.as_bytes()].concat();
    blake3::derive_key("assize 2026-11 rebuilder", &both)
}

impl UnverifiedWish {
    /// Reads one of at most [`limits::GOSSIP_BYTES`].
    ///
    /// # Errors
    ///
    /// [`DecodeError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        encode::from_bytes(bytes, limits::GOSSIP_BYTES)
    }

    /// Its canonical encoding.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.to_bytes()
    }

    /// Whose it says to be.
    pub fn attester(&self) -> AttesterKey {
        self.0.attester()
    }

    /// Which of its wishes it says to be.
    pub fn number(&self) -> u64 {
        self.0.number()
    }

    /// Whether it says to withdraw what was wished before.
    pub fn is_empty(&self) -> bool {
        self.0.actions().is_empty()
    }

    /// Checks the signature.
    ///
    /// # Errors
    ///
    /// [`SignatureError`].
    pub fn verify(self) -> Result<Wish, SignatureError> {
        let signed = encode::to_bytes(&self.0.unsigned);
        Verifier::new(self.attester())?.verify(Context::Wish, &signed, &self.0.signature)?;
        Ok(self.0)
    }
}

impl From<Wish> for UnverifiedWish {
    fn from(wish: Wish) -> Self {
        Self(wish)
    }
}

impl Unsigned {
    fn encode_fields<W: Write>(&self, e: &mut Encoder<W>) -> Result<(), WriteFailed<W::Error>> {
        e.encode(self.attester)?.u64(self.number)?;
        list::encode(e, self.actions.iter())
    }
}

impl Encode<()> for Unsigned {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut ()) -> Result<(), WriteFailed<W::Error>> {
        self.encode_fields(e.array(3)?)
    }
}

impl Encode<()> for Wish {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut ()) -> Result<(), WriteFailed<W::Error>> {
        self.unsigned.encode_fields(e.array(4)?)?;
        e.encode(self.signature)?.ok()
    }
}

impl Encode<()> for UnverifiedWish {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut ()) -> Result<(), WriteFailed<W::Error>> {
        e.encode(&self.0)?.ok()
    }
}

impl<'b> Decode<'b, ()> for UnverifiedWish {
    fn decode(d: &mut Decoder<'b>, _: &mut ()) -> Result<Self, Malformed> {
        let at = d.position();
        array(d, 4)?;
        let (attester, number) = (d.decode()?, d.u64()?);
        let actions: Vec<ActionId> = list::decode(d, limits::WISHES)?;
        if !actions.is_sorted_by(|a, b| a < b) {
            return Err(refuse(at, "actions are not in the order of their hashes"));
        }
        Ok(Self(Wish { unsigned: Unsigned { attester, number, actions }, signature: d.decode()? }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> SigningKey {
        SigningKey::from_bytes(&[n; 32])
    }

    fn action(n: u32) -> ActionId {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        ActionId::from_bytes(bytes)
    }

    #[test]
    fn round_trips() {
        for actions in [vec![], vec![action(2), action(1), action(2)], (0..1000).map(action).collect()] {
            let wish = Wish::sign(&key(1), 7, actions);
            let read = UnverifiedWish::from_bytes(&wish.to_bytes()).unwrap();
            assert_eq!((read.attester(), read.number()), (AttesterKey::of(&key(1)), 7));
            assert_eq!(read.verify().unwrap(), wish);
            assert!(wish.actions().len() <= limits::WISHES && wish.actions().is_sorted());
        }
    }

    #[test]
    fn refused() {
        let wish = Wish::sign(&key(1), 7, [action(1), action(2)]);
        let changed = |change: fn(&mut Wish)| {
            let mut wish = wish.clone();
            change(&mut wish);
            wish.to_bytes()
        };
        let twice = changed(|wish| wish.unsigned.actions = vec![action(1), action(1)]);
        let many = changed(|wish| wish.unsigned.actions = (0..=limits::WISHES as u32).map(action).collect());
        for bytes in [twice, many] {
            assert!(UnverifiedWish::from_bytes(&bytes).is_err());
        }
        for forged in [
            changed(|wish| wish.unsigned.number = 8),
            changed(|wish| wish.unsigned.attester = AttesterKey::of(&key(2))),
            changed(|wish| wish.unsigned.actions.truncate(1)),
        ] {
            assert!(UnverifiedWish::from_bytes(&forged).unwrap().verify().is_err());
        }
    }

    #[test]
    fn the_longest_fits_into_gossip() {
        let longest = Wish::sign(&key(1), u64::MAX, (0..limits::WISHES as u32).map(action));
        assert!(longest.to_bytes().len() <= limits::GOSSIP_BYTES);
    }
}
