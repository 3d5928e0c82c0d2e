//! Messages (SPEC §17, §18): what nodes say to each other about feeds and archives.
//!
//! ```text
//! Request ─▶ Answer           one of each on a stream of `/assize/query/1`
//! RangeRequest ─▶ RangeAnswer  on a stream of `/assize/blob/1`, and behind it the range
//! Gossip                      on the topic `/assize/feed/1`, to whoever listens
//! Wish                        likewise, on `/assize/wish/1` (`wish.rs`)
//! ```
//!
//! Nothing here is signed or believed. What comes in messages proves itself (statements,
//! revocations, equivocations, ranges, actions), or is a hint that costs an exchange if it is wrong
//! (heads, who has what, how long an input is).

use minicbor::{
    Decode, Decoder, Encode, Encoder,
    decode::Error as Malformed,
    encode::{Error as WriteFailed, Write},
};

use crate::{
    action::Action,
    encode::{self, DecodeError, elements, list, refuse},
    evidence::{Evidence, UnverifiedEvidence},
    id::{ActionId, NarHash, StatementId},
    key::AttesterKey,
    limits,
    name::Name,
};

/// The stream protocol of questions.
pub const QUERY: &str = "/assize/query/1";

/// The stream protocol of ranges.
pub const BLOB: &str = "/assize/blob/1";

/// The topic of gossip.
pub const FEED: &str = "/assize/feed/1";

/// The topic of wishes.
pub const WISH: &str = "/assize/wish/1";

/// What a node asks another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Which feeds do you have?
    Heads {
        /// Those behind this attester in the order of keys; all if `None`.
        after: Option<AttesterKey>,
    },
    /// What does this feed say?
    Statements {
        /// Whose feed.
        attester: AttesterKey,
        /// From this place on.
        from: u64,
    },
    /// What is known against this key?
    Proofs {
        /// Whose.
        attester: AttesterKey,
    },
    /// Which of these archives do you have?
    Have {
        /// Which: in order, at least one, at most [`limits::NARS`].
        nars: Vec<NarHash>,
    },
    /// What is executed that has this hash?
    Action {
        /// Which.
        action: ActionId,
    },
    /// What did it print when you executed it?
    Log {
        /// Which action.
        action: ActionId,
    },
}

/// What a node answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Where feeds end.
    Heads {
        /// In the order of keys, at most [`limits::HEADS`].
        heads: Vec<FeedHead>,
        /// Whether there are more behind the last.
        more: bool,
    },
    /// Statements in the order of their places, without a gap, as many as fit; or proofs. At most
    /// [`limits::ITEMS`]; empty if there are none.
    Items(Vec<UnverifiedEvidence>),
    /// Archives that are there, in order, of those that were asked for.
    Have(Vec<NarHash>),
    /// The action that was asked for.
    Action(Box<KnownAction>),
    /// What it printed when whoever answers executed it last: nobody's word but his.
    Log {
        /// The end of it, at most [`limits::LOG_BYTES`].
        end: Vec<u8>,
        /// How many bytes are before that.
        before: u64,
    },
    /// It is not there, or too long for an answer.
    Absent,
    /// Not now: ask somebody else, or later.
    Busy,
}

/// An action, and what helps to execute it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownAction {
    /// The action. Whether it is the one that was asked for, its hash says.
    pub action: Action,
    /// What people call what it makes: a hint.
    pub name: Option<Name>,
    /// The bytes of each input, in the order of their names, so that they can be asked for; 0 where
    /// that is not known. A wrong one cannot be proven by any piece (SPEC §18.1).
    pub sizes: Vec<u64>,
}

/// Where a feed ends, as somebody says. Nobody signs it: it is worth an exchange and no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeedHead {
    /// Whose feed.
    pub attester: AttesterKey,
    /// How many statements are known.
    pub len: u64,
    /// The last one; zeros if none is known.
    pub last: StatementId,
    /// What is known against the key.
    pub proofs: ProofsDigest,
}

/// A hash of all proofs against one key, equal for those who know the same; zeros for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ProofsDigest([u8; 32]);

/// What is told to whoever listens: statements and proofs that are new to the teller, at most
/// [`limits::ITEMS`], in [`limits::GOSSIP_BYTES`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gossip(pub Vec<UnverifiedEvidence>);

/// What a node asks for on a stream of [`BLOB`]: a part of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RangeRequest {
    /// Which archive.
    pub nar: NarHash,
    /// Its bytes. If it has another number, nothing of it can be proven.
    pub size: u64,
    /// The number of the piece: the bytes from so many [`limits::PIECE_BYTES`] on, that many, or up
    /// to the archive's end.
    pub piece: u64,
    /// Whether it may come compressed.
    pub zstd: bool,
}

/// What is answered there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RangeAnswer {
    /// The range follows, with what proves it.
    Piece {
        /// Whether it is compressed.
        zstd: bool,
        /// How many bytes follow, at most [`limits::PIECE_BODY_BYTES`].
        len: u64,
    },
    /// It is not there.
    Absent,
    /// Not now: ask somebody else, or later.
    Busy,
}

/// How many pieces an archive of `size` bytes has.
pub fn pieces(size: u64) -> u64 {
    size.div_ceil(limits::PIECE_BYTES)
}

impl RangeRequest {
    /// Its canonical encoding.
    pub fn to_bytes(&self) -> Vec<u8> {
        encode::to_bytes(self)
    }

    /// Reads one of at most [`limits::RANGE_BYTES`].
    ///
    /// # Errors
    ///
    /// [`DecodeError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        encode::from_bytes(bytes, limits::RANGE_BYTES)
    }

    /// The bytes that are asked for.
    pub fn bytes(&self) -> std::ops::Range<u64> {
        let start = self.piece.saturating_mul(limits::PIECE_BYTES);
        start..start.saturating_add(limits::PIECE_BYTES).min(self.size)
    }
}

impl RangeAnswer {
    /// Its canonical encoding.
    pub fn to_bytes(&self) -> Vec<u8> {
        encode::to_bytes(self)
    }

    /// Reads one of at most [`limits::RANGE_BYTES`].
    ///
    /// # Errors
    ///
    /// [`DecodeError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        encode::from_bytes(bytes, limits::RANGE_BYTES)
    }
}

impl ProofsDigest {
    /// The digest of these proofs, in any order. Statements are no proofs, and are passed over.
    ///
    /// Whoever knows of the earliest revocation, and of some equivocation, knows all that counts: a
    /// digest of more would differ for ever among nodes that heard it in another order.
    pub fn of<'e>(proofs: impl IntoIterator<Item = &'e Evidence>) -> Self {
        let (mut revoked, mut equivocated) = (None::<u64>, false);
        for proof in proofs {
            match proof {
                Evidence::Statement(_) => {}
                Evidence::Equivocation(_) => equivocated = true,
                Evidence::Revocation(revocation) => {
                    let since = revocation.since();
                    revoked = Some(revoked.map_or(since, |known| known.min(since)));
                }
            }
        }
        let mut bytes = Vec::new();
        bytes.extend(revoked.iter().flat_map(|since| since.to_be_bytes()));
        bytes.extend(equivocated.then_some(0xff));
        match bytes.is_empty() {
            true => Self::default(),
            false => Self(blake3::derive_key("assize 2026-11 proofs", &bytes)),
        }
    }
}

impl Request {
    /// Its canonical encoding.
    pub fn to_bytes(&self) -> Vec<u8> {
        encode::to_bytes(self)
    }

    /// Reads one of at most [`limits::REQUEST_BYTES`].
    ///
    /// # Errors
    ///
    /// [`DecodeError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        encode::from_bytes(bytes, limits::REQUEST_BYTES)
    }
}

impl Answer {
    /// Its canonical encoding.
    pub fn to_bytes(&self) -> Vec<u8> {
        encode::to_bytes(self)
    }

    /// Reads one of at most [`limits::ANSWER_BYTES`].
    ///
    /// # Errors
    ///
    /// [`DecodeError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        encode::from_bytes(bytes, limits::ANSWER_BYTES)
    }
}

impl Gossip {
    /// Its canonical encoding.
    pub fn to_bytes(&self) -> Vec<u8> {
        encode::to_bytes(self)
    }

    /// Reads one of at most [`limits::GOSSIP_BYTES`].
    ///
    /// # Errors
    ///
    /// [`DecodeError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        encode::from_bytes(bytes, limits::GOSSIP_BYTES)
    }
}

/// The first of `items` that fit into one answer, or one gossip, of `limit` bytes; at least one.
pub fn fitting(items: &[UnverifiedEvidence], limit: usize) -> usize {
    // A frame of 64 bytes is more than any of ours.
    let mut left = limit - 64;
    let mut fits = |item: &UnverifiedEvidence| {
        let len = encode::encoded_len(item);
        let fits = len <= left;
        left = left.saturating_sub(len);
        fits
    };
    items.iter().take(limits::ITEMS).map_while(|item| fits(item).then_some(())).count().max(1)
}

const HEADS: &str = "heads";
const STATEMENTS: &str = "statements";
const PROOFS: &str = "proofs";
const ITEMS: &str = "items";
const HAVE: &str = "have";
const HERE: &str = "here";
const ACTION: &str = "action";
const LOG: &str = "log";
const PIECE: &str = "piece";
const ABSENT: &str = "absent";
const BUSY: &str = "busy";

/// Archives, in order, each once.
fn nars(d: &mut Decoder<'_>) -> Result<Vec<NarHash>, Malformed> {
    let at = d.position();
    let nars: Vec<NarHash> = list::decode(d, limits::NARS)?;
    match nars.is_sorted_by(|a, b| a < b) {
        true => Ok(nars),
        false => Err(refuse(at, "archives are not in the order of their hashes")),
    }
}

impl Encode<()> for Request {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut ()) -> Result<(), WriteFailed<W::Error>> {
        match self {
            Self::Heads { after } => e.array(2)?.str(HEADS)?.encode(after)?.ok(),
            Self::Statements { attester, from } => {
                e.array(3)?.str(STATEMENTS)?.encode(attester)?.u64(*from)?.ok()
            }
            Self::Proofs { attester } => e.array(2)?.str(PROOFS)?.encode(attester)?.ok(),
            Self::Have { nars } => {
                e.array(2)?.str(HAVE)?;
                list::encode(e, nars.iter())
            }
            Self::Action { action } => e.array(2)?.str(ACTION)?.encode(action)?.ok(),
            Self::Log { action } => e.array(2)?.str(LOG)?.encode(action)?.ok(),
        }
    }
}

impl<'b> Decode<'b, ()> for Request {
    fn decode(d: &mut Decoder<'b>, _: &mut ()) -> Result<Self, Malformed> {
        let at = d.position();
        let len = d.array()?;
        match d.str()? {
            HEADS => {
                elements(at, len, 2)?;
                Ok(Self::Heads { after: d.decode()? })
            }
            STATEMENTS => {
                elements(at, len, 3)?;
                Ok(Self::Statements { attester: d.decode()?, from: d.u64()? })
            }
            PROOFS => {
                elements(at, len, 2)?;
                Ok(Self::Proofs { attester: d.decode()? })
            }
            HAVE => {
                elements(at, len, 2)?;
                let nars = nars(d)?;
                if nars.is_empty() {
                    return Err(refuse(at, "a question about nothing"));
                }
                Ok(Self::Have { nars })
            }
            ACTION => {
                elements(at, len, 2)?;
                Ok(Self::Action { action: d.decode()? })
            }
            LOG => {
                elements(at, len, 2)?;
                Ok(Self::Log { action: d.decode()? })
            }
            other => Err(refuse(at, format!("unknown request `{other}`"))),
        }
    }
}

impl Encode<()> for Answer {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut ()) -> Result<(), WriteFailed<W::Error>> {
        match self {
            Self::Heads { heads, more } => {
                e.array(3)?.str(HEADS)?;
                list::encode(e, heads.iter())?;
                e.bool(*more)?.ok()
            }
            Self::Items(items) => {
                e.array(2)?.str(ITEMS)?;
                list::encode(e, items.iter())
            }
            Self::Have(nars) => {
                e.array(2)?.str(HERE)?;
                list::encode(e, nars.iter())
            }
            Self::Action(known) => {
                let KnownAction { action, name, sizes } = &**known;
                e.array(4)?.str(ACTION)?.encode(action)?.encode(name)?;
                list::encode(e, sizes.iter())
            }
            Self::Log { end, before } => e.array(3)?.str(LOG)?.bytes(end)?.u64(*before)?.ok(),
            Self::Absent => e.array(1)?.str(ABSENT)?.ok(),
            Self::Busy => e.array(1)?.str(BUSY)?.ok(),
        }
    }
}

impl<'b> Decode<'b, ()> for Answer {
    fn decode(d: &mut Decoder<'b>, _: &mut ()) -> Result<Self, Malformed> {
        let at = d.position();
        let len = d.array()?;
        match d.str()? {
            HEADS => {
                elements(at, len, 3)?;
                let heads: Vec<FeedHead> = list::decode(d, limits::HEADS)?;
                if !heads.is_sorted_by(|a, b| a.attester < b.attester) {
                    return Err(refuse(at, "heads are not in the order of their keys"));
                }
                Ok(Self::Heads { heads, more: d.bool()? })
            }
            ITEMS => {
                elements(at, len, 2)?;
                Ok(Self::Items(list::decode(d, limits::ITEMS)?))
            }
            HERE => {
                elements(at, len, 2)?;
                Ok(Self::Have(nars(d)?))
            }
            ACTION => {
                elements(at, len, 4)?;
                let (action, name): (Action, _) = (d.decode()?, d.decode()?);
                let sizes: Vec<u64> = list::decode(d, limits::INPUTS)?;
                let inputs = action.inputs().count();
                if sizes.len() != inputs {
                    return Err(refuse(at, format!("{} lengths of {inputs} inputs", sizes.len())));
                }
                Ok(Self::Action(Box::new(KnownAction { action, name, sizes })))
            }
            LOG => {
                elements(at, len, 3)?;
                let end = d.bytes()?.to_vec();
                if end.len() > limits::LOG_BYTES {
                    return Err(refuse(at, format!("{} bytes of a log", end.len())));
                }
                Ok(Self::Log { end, before: d.u64()? })
            }
            ABSENT => elements(at, len, 1).map(|()| Self::Absent),
            BUSY => {
                elements(at, len, 1)?;
                Ok(Self::Busy)
            }
            other => Err(refuse(at, format!("unknown answer `{other}`"))),
        }
    }
}

impl Encode<()> for RangeRequest {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut ()) -> Result<(), WriteFailed<W::Error>> {
        let Self { nar, size, piece, zstd } = self;
        e.array(5)?.str(PIECE)?.encode(nar)?.u64(*size)?.u64(*piece)?.bool(*zstd)?.ok()
    }
}

impl<'b> Decode<'b, ()> for RangeRequest {
    fn decode(d: &mut Decoder<'b>, _: &mut ()) -> Result<Self, Malformed> {
        let at = d.position();
        let len = d.array()?;
        match d.str()? {
            PIECE => elements(at, len, 5)?,
            other => return Err(refuse(at, format!("unknown request `{other}`"))),
        }
        let (nar, size, piece) = (d.decode()?, d.u64()?, d.u64()?);
        if piece >= pieces(size) {
            return Err(refuse(at, format!("piece {piece} of {size} bytes, which have {}", pieces(size))));
        }
        Ok(Self { nar, size, piece, zstd: d.bool()? })
    }
}

impl Encode<()> for RangeAnswer {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut ()) -> Result<(), WriteFailed<W::Error>> {
        match self {
            Self::Piece { zstd, len } => e.array(3)?.str(PIECE)?.bool(*zstd)?.u64(*len)?.ok(),
            Self::Absent => e.array(1)?.str(ABSENT)?.ok(),
            Self::Busy => e.array(1)?.str(BUSY)?.ok(),
        }
    }
}

impl<'b> Decode<'b, ()> for RangeAnswer {
    fn decode(d: &mut Decoder<'b>, _: &mut ()) -> Result<Self, Malformed> {
        let at = d.position();
        let len = d.array()?;
        match d.str()? {
            PIECE => {
                elements(at, len, 3)?;
                let (zstd, len) = (d.bool()?, d.u64()?);
                if len > limits::PIECE_BODY_BYTES {
                    let limit = limits::PIECE_BODY_BYTES;
                    return Err(refuse(at, format!("{len} bytes follow, but at most {limit} are allowed")));
                }
                Ok(Self::Piece { zstd, len })
            }
            ABSENT => elements(at, len, 1).map(|()| Self::Absent),
            BUSY => elements(at, len, 1).map(|()| Self::Busy),
            other => Err(refuse(at, format!("unknown answer `{other}`"))),
        }
    }
}

encode::bytes!(ProofsDigest, "a digest has 32 bytes");

impl Encode<()> for FeedHead {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut ()) -> Result<(), WriteFailed<W::Error>> {
        let Self { attester, len, last, proofs } = self;
        e.array(4)?.encode(attester)?.u64(*len)?.encode(last)?.encode(proofs)?.ok()
    }
}

impl<'b> Decode<'b, ()> for FeedHead {
    fn decode(d: &mut Decoder<'b>, _: &mut ()) -> Result<Self, Malformed> {
        encode::array(d, 4)?;
        Ok(Self { attester: d.decode()?, len: d.u64()?, last: d.decode()?, proofs: d.decode()? })
    }
}

impl Encode<()> for Gossip {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut ()) -> Result<(), WriteFailed<W::Error>> {
        list::encode(e, self.0.iter())
    }
}

impl<'b> Decode<'b, ()> for Gossip {
    fn decode(d: &mut Decoder<'b>, _: &mut ()) -> Result<Self, Malformed> {
        let at = d.position();
        let items: Vec<_> = list::decode(d, limits::ITEMS)?;
        if items.is_empty() {
            return Err(refuse(at, "gossip about nothing"));
        }
        Ok(Self(items))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{action::FetchAction, evidence::Revocation, key::SigningKey};

    fn revocation(n: u8, since: u64) -> Revocation {
        Revocation::sign(&SigningKey::from_bytes(&[n; 32]), since)
    }

    fn nar(n: u8) -> NarHash {
        NarHash::from_bytes([n; 32])
    }

    fn fetch() -> Action {
        let sri = format!("sha256-{}", data_encoding::BASE64.encode(&[1; 32])).parse().unwrap();
        Action::Fetch(FetchAction { sri, executable: true })
    }

    fn head(n: u8) -> FeedHead {
        let attester = AttesterKey::from_bytes([n; 32]);
        FeedHead { attester, len: 7, last: StatementId::from_bytes([1; 32]), proofs: ProofsDigest::default() }
    }

    #[test]
    fn logs_are_bounded() {
        let log = |len| Answer::Log { end: vec![b'x'; len], before: 1 };
        let longest = log(limits::LOG_BYTES);
        assert_eq!(Answer::from_bytes(&longest.to_bytes()).unwrap(), longest);
        assert!(Answer::from_bytes(&log(limits::LOG_BYTES + 1).to_bytes()).is_err());
    }

    #[test]
    fn round_trips() {
        let attester = AttesterKey::from_bytes([9; 32]);
        for request in [
            Request::Heads { after: None },
            Request::Heads { after: Some(attester) },
            Request::Statements { attester, from: u64::MAX },
            Request::Proofs { attester },
            Request::Have { nars: vec![nar(1), nar(2)] },
            Request::Action { action: ActionId::from_bytes([3; 32]) },
        ] {
            assert_eq!(Request::from_bytes(&request.to_bytes()).unwrap(), request);
        }
        let item = UnverifiedEvidence::Revocation(revocation(1, 3));
        for answer in [
            Answer::Heads { heads: vec![head(1), head(2)], more: true },
            Answer::Items(vec![item.clone()]),
            Answer::Items(vec![]),
            Answer::Have(vec![]),
            Answer::Have(vec![nar(1), nar(2)]),
            Answer::Action(Box::new(KnownAction { action: fetch(), name: None, sizes: vec![] })),
            Answer::Action(Box::new(KnownAction { action: fetch(), name: Some(Name::out()), sizes: vec![] })),
            Answer::Absent,
            Answer::Busy,
        ] {
            assert_eq!(Answer::from_bytes(&answer.to_bytes()).unwrap(), answer);
        }
        let range = RangeRequest { nar: nar(1), size: u64::MAX, piece: pieces(u64::MAX) - 1, zstd: true };
        assert_eq!(RangeRequest::from_bytes(&range.to_bytes()).unwrap(), range);
        let (zstd, len) = (true, limits::PIECE_BODY_BYTES);
        for answer in [RangeAnswer::Piece { zstd, len }, RangeAnswer::Absent, RangeAnswer::Busy] {
            assert_eq!(RangeAnswer::from_bytes(&answer.to_bytes()).unwrap(), answer);
        }
        let gossip = Gossip(vec![item]);
        assert_eq!(Gossip::from_bytes(&gossip.to_bytes()).unwrap(), gossip);
    }

    #[test]
    fn refused() {
        let heads = |heads| Answer::from_bytes(&Answer::Heads { heads, more: false }.to_bytes());
        assert!(heads(vec![head(2), head(1)]).is_err(), "out of order");
        assert!(heads(vec![head(1), head(1)]).is_err(), "twice");
        assert!(heads((0..=limits::HEADS as u32).map(|_| head(1)).collect()).is_err(), "too many");
        assert!(Gossip::from_bytes(&Gossip(vec![]).to_bytes()).is_err(), "about nothing");
        let have = |nars| Request::from_bytes(&Request::Have { nars }.to_bytes());
        assert!(have(vec![]).is_err() && have(vec![nar(2), nar(1)]).is_err());
        assert!(Answer::from_bytes(&Answer::Have(vec![nar(1), nar(1)]).to_bytes()).is_err(), "twice");
        let sized = KnownAction { action: fetch(), name: None, sizes: vec![1] };
        assert!(
            Answer::from_bytes(&Answer::Action(Box::new(sized)).to_bytes()).is_err(),
            "a fetch has no inputs"
        );
        let range = |size, piece| {
            RangeRequest::from_bytes(&RangeRequest { nar: nar(1), size, piece, zstd: false }.to_bytes())
        };
        assert!(range(1, 0).is_ok() && range(1, 1).is_err() && range(0, 0).is_err());
        assert!(range(limits::PIECE_BYTES, 1).is_err() && range(limits::PIECE_BYTES + 1, 1).is_ok());
        let piece = RangeAnswer::Piece { zstd: false, len: limits::PIECE_BODY_BYTES + 1 };
        assert!(RangeAnswer::from_bytes(&piece.to_bytes()).is_err());
    }

    #[test]
    fn ranges() {
        let range = |size, piece| RangeRequest { nar: nar(1), size, piece, zstd: false }.bytes();
        let whole = limits::PIECE_BYTES;
        assert_eq!(
            (range(5, 0), range(whole + 5, 0), range(whole + 5, 1)),
            (0..5, 0..whole, whole..whole + 5)
        );
        assert_eq!(range(u64::MAX, pieces(u64::MAX) - 1).end, u64::MAX);
    }

    /// The largest of everything fits into its message.
    #[test]
    fn limits_fit() {
        let heads = (0..limits::HEADS as u32).map(|n| {
            let mut key = [0xff; 32];
            key[..4].copy_from_slice(&n.to_be_bytes());
            FeedHead { attester: AttesterKey::from_bytes(key), len: u64::MAX, ..head(1) }
        });
        let bytes = Answer::Heads { heads: heads.collect(), more: true }.to_bytes();
        assert!(bytes.len() <= limits::ANSWER_BYTES, "{}", bytes.len());
        Answer::from_bytes(&bytes).unwrap();
        const { assert!(2 * limits::STATEMENT_BYTES + 512 <= limits::ANSWER_BYTES, "an equivocation fits") };
        let longest = Request::Statements { attester: AttesterKey::from_bytes([9; 32]), from: u64::MAX };
        assert!(longest.to_bytes().len() <= limits::REQUEST_BYTES);
        let most = (0..limits::NARS as u32).map(|n| NarHash::of(&n.to_le_bytes()));
        let most = Request::Have { nars: most.collect() };
        assert!(most.to_bytes().len() <= limits::REQUEST_BYTES);
        let longest = RangeRequest { nar: nar(1), size: u64::MAX, piece: u64::MAX - 1, zstd: true };
        assert!(longest.to_bytes().len() <= limits::RANGE_BYTES);
    }

    #[test]
    fn digests_are_of_the_earliest_revocation() {
        let proofs = [revocation(1, 3), revocation(1, 2)].map(Evidence::Revocation);
        let digest = ProofsDigest::of(&proofs);
        assert_eq!(digest, ProofsDigest::of(proofs.iter().rev()));
        assert_eq!(digest, ProofsDigest::of(&proofs[1..]), "whoever knows the earliest needs no other");
        assert_ne!(digest, ProofsDigest::of(&proofs[..1]));
        assert_eq!(ProofsDigest::of([]), ProofsDigest::default());
    }

    #[test]
    fn as_many_as_fit() {
        let items = vec![UnverifiedEvidence::Revocation(revocation(1, 3)); 3000];
        assert_eq!(fitting(&items, limits::ANSWER_BYTES), limits::ITEMS);
        let n = fitting(&items, limits::GOSSIP_BYTES);
        assert!(n < limits::ITEMS && Gossip(items[..n].to_vec()).to_bytes().len() <= limits::GOSSIP_BYTES);
        assert_eq!(fitting(&items, 65), 1, "at least one");
    }
}
