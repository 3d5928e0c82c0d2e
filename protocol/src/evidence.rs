//! Proofs against a key, and the file in which what was signed is carried by hand (SPEC §10.5 to §10.7).
//!
//! An evidence file has statements of any attesters, revocations and equivocations, in any order.
//! Each item proves itself; the file proves nothing.

use minicbor::{
    Decoder, Encode, Encoder,
    decode::Error as Malformed,
    encode::{Error as WriteFailed, Write},
};

use crate::{
    encode::{self, DecodeError, elements, refuse},
    key::{AttesterKey, Context, Signature, SignatureError, SigningKey, Verifier},
    limits,
    statement::{Signed, Unverified},
};

/// The first line of an evidence file.
pub const MAGIC: &[u8] = b"assize evidence 1\n";

/// The longest encoding of an item: two statements and their frame.
const ITEM_BYTES: usize = 2 * limits::STATEMENT_BYTES + 256;

/// "This key is mine, and from this place of its feed on it no longer speaks for me."
///
/// Not an entry of the feed: it can be signed before it is needed, and published by whoever has it.
/// Of several revocations of a key the earliest place counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revocation {
    attester: AttesterKey,
    since: u64,
    signature: Signature,
}

impl Revocation {
    /// Signs a revocation of `key`: nothing at place `since` or behind it counts; 0 revokes all.
    pub fn sign(key: &SigningKey, since: u64) -> Self {
        let attester = AttesterKey::of(key);
        let signature = Signature::sign(key, Context::Revocation, &Self::message(&attester, since));
        Self { attester, since, signature }
    }

    /// Whose key.
    pub fn attester(&self) -> AttesterKey {
        self.attester
    }

    /// The first place that no longer counts.
    pub fn since(&self) -> u64 {
        self.since
    }

    fn message(attester: &AttesterKey, since: u64) -> [u8; 40] {
        let mut bytes = [0; 40];
        bytes[..32].copy_from_slice(attester.as_bytes());
        bytes[32..].copy_from_slice(&since.to_be_bytes());
        bytes
    }

    fn verify(&self) -> Result<(), SignatureError> {
        let message = Self::message(&self.attester, self.since);
        Verifier::new(self.attester)?.verify(Context::Revocation, &message, &self.signature)
    }
}

/// Two statements of one attester that cannot both be in one feed: the key is broken or lies.
///
/// Either both have the same place, or one has the place behind the other and does not follow it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Equivocation(Box<[Signed; 2]>);

/// Why two statements are no equivocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoEquivocation {
    /// They are not of one attester.
    #[error("the statements are of two attesters, `{first}` and `{second}`")]
    Attesters {
        /// The first statement's.
        first: AttesterKey,
        /// The second statement's.
        second: AttesterKey,
    },
    /// One feed may have both.
    #[error("one feed may have both, at its places {first} and {second}")]
    Compatible {
        /// The first statement's place.
        first: u64,
        /// The second statement's place.
        second: u64,
    },
}

impl Equivocation {
    /// Makes a proof of two statements, whichever comes first.
    ///
    /// # Errors
    ///
    /// [`NoEquivocation`] if they prove nothing.
    pub fn new(one: Signed, other: Signed) -> Result<Self, NoEquivocation> {
        // One proof has one form: by place, then by id.
        let key = |s: &Signed| (s.statement().seq, s.id());
        let (first, second) = if key(&one) <= key(&other) { (one, other) } else { (other, one) };
        let (a, b) = (first.statement(), second.statement());
        if a.attester != b.attester {
            return Err(NoEquivocation::Attesters { first: a.attester, second: b.attester });
        }
        let same_place = a.seq == b.seq && first.id() != second.id();
        let broken_chain = a.seq.checked_add(1) == Some(b.seq) && b.prev != first.id();
        match same_place || broken_chain {
            true => Ok(Self(Box::new([first, second]))),
            false => Err(NoEquivocation::Compatible { first: a.seq, second: b.seq }),
        }
    }

    /// Whose key.
    pub fn attester(&self) -> AttesterKey {
        self.0[0].statement().attester
    }

    /// The statements: the earlier place first.
    pub fn statements(&self) -> &[Signed; 2] {
        &self.0
    }
}

/// What an evidence file carries: each of it verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Evidence {
    /// A statement.
    Statement(Signed),
    /// The end of a key.
    Revocation(Revocation),
    /// A key that broke the rules.
    Equivocation(Equivocation),
}

/// A well-formed item with signatures that nobody has checked yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnverifiedEvidence {
    /// A statement.
    Statement(Unverified),
    /// The end of a key.
    Revocation(Revocation),
    /// Two statements that are said to exclude each other.
    Equivocation(Box<[Unverified; 2]>),
}

/// Why evidence was refused.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    /// It does not begin with [`MAGIC`].
    #[error("not an evidence file: it does not begin with `assize evidence 1`")]
    Magic,
    /// More than [`limits::EVIDENCE_BYTES`].
    #[error("{len} bytes, but at most {limit} are allowed", limit = limits::EVIDENCE_BYTES)]
    TooLong {
        /// Bytes given.
        len: u64,
    },
    /// An item is not well formed.
    #[error("the item at byte {at}")]
    Item {
        /// Where it begins.
        at: usize,
        /// Why not; offsets are counted from its beginning.
        #[source]
        source: DecodeError,
    },
    /// A signature is wrong.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// Two statements prove nothing.
    #[error(transparent)]
    Equivocation(#[from] NoEquivocation),
}

impl UnverifiedEvidence {
    /// Checks the signatures, and that an equivocation is one.
    ///
    /// # Errors
    ///
    /// [`EvidenceError::Signature`] or [`EvidenceError::Equivocation`].
    pub fn verify(self) -> Result<Evidence, EvidenceError> {
        match self {
            Self::Statement(statement) => Ok(Evidence::Statement(statement.verify()?)),
            Self::Revocation(revocation) => {
                revocation.verify()?;
                Ok(Evidence::Revocation(revocation))
            }
            Self::Equivocation(both) => {
                let [first, second] = *both;
                Ok(Evidence::Equivocation(Equivocation::new(first.verify()?, second.verify()?)?))
            }
        }
    }

    /// Takes it as verified, because it was before it was stored: for one's own disk alone.
    ///
    /// # Errors
    ///
    /// [`NoEquivocation`], which needs no signature to be seen.
    pub fn assume_verified(self) -> Result<Evidence, NoEquivocation> {
        match self {
            Self::Statement(statement) => Ok(Evidence::Statement(statement.assume_verified())),
            Self::Revocation(revocation) => Ok(Evidence::Revocation(revocation)),
            Self::Equivocation(both) => {
                let [first, second] = both.map(Unverified::assume_verified);
                Ok(Evidence::Equivocation(Equivocation::new(first, second)?))
            }
        }
    }

    /// Whose key it says to be about.
    pub fn attester(&self) -> AttesterKey {
        match self {
            Self::Statement(statement) => statement.statement().attester,
            Self::Revocation(revocation) => revocation.attester(),
            Self::Equivocation(both) => both[0].statement().attester,
        }
    }

    /// Reads one item of at most 512 KiB and a frame.
    ///
    /// # Errors
    ///
    /// [`DecodeError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        encode::from_bytes(bytes, ITEM_BYTES)
    }
}

/// As it is sent to others, who have to verify it themselves.
impl From<Evidence> for UnverifiedEvidence {
    fn from(evidence: Evidence) -> Self {
        match evidence {
            Evidence::Statement(statement) => Self::Statement(statement.into()),
            Evidence::Revocation(revocation) => Self::Revocation(revocation),
            Evidence::Equivocation(Equivocation(both)) => {
                Self::Equivocation(Box::new((*both).map(Unverified::from)))
            }
        }
    }
}

impl Evidence {
    /// Whose key it is about.
    pub fn attester(&self) -> AttesterKey {
        match self {
            Self::Statement(statement) => statement.statement().attester,
            Self::Revocation(revocation) => revocation.attester(),
            Self::Equivocation(equivocation) => equivocation.attester(),
        }
    }

    /// Its canonical encoding, as an item of an evidence file.
    pub fn to_bytes(&self) -> Vec<u8> {
        encode::to_bytes(self)
    }
}

/// Reads the items of an evidence file, which is all of `file`.
///
/// Yields up to the first item that is not well formed; that error is the last thing yielded. No
/// signature is checked: see [`UnverifiedEvidence::verify`].
///
/// # Errors
///
/// [`EvidenceError::Magic`] or [`EvidenceError::TooLong`].
pub fn read(
    file: &[u8],
) -> Result<impl Iterator<Item = Result<UnverifiedEvidence, EvidenceError>> + '_, EvidenceError> {
    if file.len() as u64 > limits::EVIDENCE_BYTES {
        return Err(EvidenceError::TooLong { len: file.len() as u64 });
    }
    if !file.starts_with(MAGIC) {
        return Err(EvidenceError::Magic);
    }
    let mut at = MAGIC.len();
    Ok(std::iter::from_fn(move || {
        if at == file.len() {
            return None;
        }
        let item = item(&file[at..]).map_err(|source| EvidenceError::Item { at, source });
        match item {
            Ok((item, len)) => {
                at += len;
                Some(Ok(item))
            }
            Err(error) => {
                at = file.len();
                Some(Err(error))
            }
        }
    }))
}

/// The item that `bytes` begin with, and its length.
fn item(bytes: &[u8]) -> Result<(UnverifiedEvidence, usize), DecodeError> {
    let bytes = &bytes[..bytes.len().min(ITEM_BYTES)];
    let mut decoder = Decoder::new(bytes);
    // Only how far it reaches; a value nested too deep is none of ours and is refused below.
    decoder.skip().map_err(DecodeError::Malformed)?;
    let len = decoder.position();
    Ok((UnverifiedEvidence::from_bytes(&bytes[..len])?, len))
}

const STATEMENT: &str = "statement";
const REVOCATION: &str = "revocation";
const EQUIVOCATION: &str = "equivocation";

impl<C> Encode<C> for Evidence {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), WriteFailed<W::Error>> {
        match self {
            Self::Statement(statement) => encode_item(e, &[statement.bytes()]),
            Self::Revocation(revocation) => encode_revocation(e, revocation),
            Self::Equivocation(equivocation) => {
                encode_item(e, &equivocation.statements().each_ref().map(Signed::bytes))
            }
        }
    }
}

impl<C> Encode<C> for UnverifiedEvidence {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), WriteFailed<W::Error>> {
        match self {
            Self::Statement(statement) => encode_item(e, &[statement.bytes()]),
            Self::Revocation(revocation) => encode_revocation(e, revocation),
            Self::Equivocation(both) => encode_item(e, &both.each_ref().map(Unverified::bytes)),
        }
    }
}

/// A statement, or two.
fn encode_item<W: Write>(e: &mut Encoder<W>, statements: &[&[u8]]) -> Result<(), WriteFailed<W::Error>> {
    let kind = if statements.len() == 1 { STATEMENT } else { EQUIVOCATION };
    e.array(1 + statements.len() as u64)?.str(kind)?;
    statements.iter().try_for_each(|bytes| e.bytes(bytes)?.ok())
}

fn encode_revocation<W: Write>(
    e: &mut Encoder<W>,
    revocation: &Revocation,
) -> Result<(), WriteFailed<W::Error>> {
    let Revocation { attester, since, signature } = revocation;
    e.array(4)?.str(REVOCATION)?.encode(attester)?.u64(*since)?.encode(signature)?.ok()
}

impl<'b, C> minicbor::Decode<'b, C> for UnverifiedEvidence {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, Malformed> {
        let at = d.position();
        let len = d.array()?;
        match d.str()? {
            STATEMENT => {
                elements(at, len, 2)?;
                Ok(Self::Statement(statement(d)?))
            }
            REVOCATION => {
                elements(at, len, 4)?;
                let (attester, since, signature) = (d.decode()?, d.u64()?, d.decode()?);
                Ok(Self::Revocation(Revocation { attester, since, signature }))
            }
            EQUIVOCATION => {
                elements(at, len, 3)?;
                Ok(Self::Equivocation(Box::new([statement(d)?, statement(d)?])))
            }
            other => Err(refuse(at, format!("unknown kind of evidence `{other}`"))),
        }
    }
}

fn statement(d: &mut Decoder<'_>) -> Result<Unverified, Malformed> {
    let at = d.position();
    let bytes = d.bytes()?;
    Unverified::from_bytes(bytes).map_err(|error| match std::error::Error::source(&error) {
        Some(source) => refuse(at, format!("{error}: {source}")),
        None => refuse(at, error),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        id::{ActionId, NarHash, StatementId},
        name::Name,
        output::{Output, Outputs},
        statement::{Attestation, Body, Platform, Statement},
    };

    fn key(n: u8) -> SigningKey {
        SigningKey::from_bytes(&[n; 32])
    }

    fn attester(n: u8) -> AttesterKey {
        AttesterKey::of(&key(n))
    }

    fn outputs(digit: u8) -> Outputs {
        Outputs::from([(Name::out(), Output { nar: NarHash::from_bytes([digit; 32]), size: 1 })])
    }

    /// What attester `who` says at a place, behind the statement before.
    fn said(who: u8, before: Option<&Signed>, outputs: Outputs) -> Signed {
        let (action, witness) = (ActionId::from_bytes([1; 32]), None);
        let platform = Platform::here(Name::new("wasmtime-48.0.8").unwrap());
        let statement = Statement {
            attester: attester(who),
            seq: before.map_or(0, |before| before.statement().seq + 1),
            prev: before.map_or(StatementId::from_bytes([0; 32]), Signed::id),
            time: 0,
            body: Body::Built(Attestation { action, outputs, witness, platform }),
        };
        statement.sign(&key(who)).unwrap()
    }

    fn equivocation(one: &Signed, other: &Signed) -> Evidence {
        Evidence::Equivocation(Equivocation::new(one.clone(), other.clone()).unwrap())
    }

    fn file(items: &[Evidence]) -> Vec<u8> {
        [MAGIC.to_vec(), items.iter().flat_map(Evidence::to_bytes).collect()].concat()
    }

    /// SPEC §12: a file has its items, and each proves itself.
    #[test]
    fn what_is_written_is_read() {
        let (one, other) = (said(1, None, outputs(1)), said(1, None, outputs(2)));
        let (revocation, all) = (Revocation::sign(&key(2), 7), Revocation::sign(&key(3), 0));
        assert_eq!((revocation.attester(), revocation.since(), all.since()), (attester(2), 7, 0));
        let items = [
            Evidence::Statement(one.clone()),
            Evidence::Revocation(revocation),
            Evidence::Revocation(all),
            equivocation(&one, &other),
        ];
        assert_eq!(items.each_ref().map(Evidence::attester), [1, 2, 3, 1].map(attester));
        let file = file(&items);
        let read: Vec<_> = read(&file).unwrap().map(Result::unwrap).collect();
        let stored: Vec<_> = read.iter().map(|item| item.clone().assume_verified().unwrap()).collect();
        assert_eq!(stored, items);
        let verified: Vec<_> = read.into_iter().map(|item| item.verify().unwrap()).collect();
        assert_eq!(verified, items);
    }

    /// SPEC §12: what comes before an item that is none is kept, and nothing behind it is read.
    #[test]
    fn reading_ends_where_it_goes_wrong() {
        let good = Evidence::Statement(said(1, None, outputs(1)));
        let mut damaged = file(&[good.clone(), good.clone()]);
        let at = damaged.len();
        damaged.extend([0x81, 0x01]);
        damaged.extend(good.to_bytes());
        let read: Vec<_> = read(&damaged).unwrap().collect();
        let [Ok(_), Ok(_), Err(EvidenceError::Item { at: found, .. })] = read.as_slice() else {
            panic!("{read:?}");
        };
        assert_eq!(*found, at);
    }

    /// SPEC §2 and §12: a file has a first line and an end. (The memory is never touched.)
    #[test]
    fn files_are_bounded() {
        let refused = |file: &[u8]| read(file).err().map(|error| error.to_string());
        let magic = Some("not an evidence file: it does not begin with `assize evidence 1`".to_owned());
        assert_eq!(refused(MAGIC), None);
        assert_eq!(refused(&MAGIC[1..]), magic);
        let longest = limits::EVIDENCE_BYTES as usize;
        let zeros = vec![0; longest + 1];
        assert_eq!(refused(&zeros[..longest]), magic);
        let long = format!("{} bytes, but at most {longest} are allowed", longest + 1);
        assert_eq!(refused(&zeros), Some(long));
        // Two statements, and a frame of 256 bytes.
        let item = |len| UnverifiedEvidence::from_bytes(&zeros[..len]).unwrap_err();
        assert!(matches!(item((512 << 10) + 256), DecodeError::Malformed(_)));
        assert!(matches!(item((512 << 10) + 257), DecodeError::TooLong { .. }));
    }

    /// Two statements as long as they can be are proof like others.
    #[test]
    fn long_statements_are_carried() {
        let longest = |digit| {
            let name = |n| Name::new(format!("{n:0>width$}", width = limits::NAME_BYTES)).unwrap();
            let output = Output { nar: NarHash::from_bytes([digit; 32]), size: u64::MAX };
            let outputs: BTreeMap<_, _> = (0..limits::OUTPUTS).map(|n| (name(n), output)).collect();
            said(1, None, outputs)
        };
        let proof = equivocation(&longest(1), &longest(2));
        let read = UnverifiedEvidence::from_bytes(&proof.to_bytes()).unwrap();
        assert_eq!(read.verify().unwrap(), proof);
    }

    /// SPEC §10.6: only who has the key revokes it, and from a place that he names.
    #[test]
    fn revocations_are_checked() {
        let revocation = Revocation::sign(&key(1), 7);
        let forged =
            [Revocation { since: 8, ..revocation }, Revocation { attester: attester(2), ..revocation }];
        for forged in forged {
            let error = UnverifiedEvidence::Revocation(forged).verify().unwrap_err();
            assert_eq!(error.to_string(), SignatureError::Forged(forged.attester).to_string());
        }
    }

    /// SPEC §10.6: the same place twice, or a place that does not follow the one before it.
    #[test]
    fn what_one_feed_cannot_have() {
        let (first, other) = (said(1, None, outputs(1)), said(1, None, outputs(2)));
        let second = said(1, Some(&first), outputs(1));
        let third = said(1, Some(&second), outputs(1));
        let stranger = said(2, None, outputs(1));
        for (one, another, proof) in [
            (&first, &other, true),
            (&other, &second, true),
            (&first, &first, false),
            (&first, &second, false),
            (&first, &third, false),
            (&other, &third, false),
            (&first, &stranger, false),
        ] {
            let both = |a: &Signed, b: &Signed| Equivocation::new(a.clone(), b.clone());
            let (forth, back) = (both(one, another), both(another, one));
            assert_eq!(forth.is_ok(), proof, "{forth:?}");
            assert_eq!(forth.clone().ok(), back.ok());
            if let Ok(proof) = forth {
                assert!(proof.statements()[0].statement().seq <= proof.statements()[1].statement().seq);
            }
        }
    }
}
