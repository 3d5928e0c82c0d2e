//! What the owner of a store and its clients say to each other (SPEC §9.8).
//!
//! ```text
//! frame:    [length: u32 LE][canonical encoding], at most FRAME_BYTES
//! client    Hello, then Request …
//! owner     Welcome, then for each request frames of [more, Answer] up to one without more
//! ```
//!
//! Both ends are of one user, and still every byte is bounded before it is read and read strictly:
//! either end may be of another version, or dying. What was signed crosses as bytes; who reads it
//! decides whether signatures are checked. A secret key never crosses.

use std::{
    ffi::OsStr,
    io::{self, Read},
    os::unix::ffi::OsStrExt as _,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use minicbor::{
    Decode, Decoder, Encode, Encoder,
    decode::Error as Malformed,
    encode::{Error as WriteFailed, Write},
};
use protocol::{
    encode::{self, DecodeError, refuse},
    evidence::{Evidence, UnverifiedEvidence},
    feed::FeedError,
    id::{ActionId, NarHash},
    key::AttesterKey,
};

use crate::{
    Area, Found, GcOptions, Kept, Notice, Rebuilt, SweptNar,
    client::{CAUSES, Fault, Remote, Unwelcome},
    fact::FACT_BYTES,
    index::{location_bytes, read_location},
    journal::Location,
};

/// Changes with anything below, and with the encoding of facts.
pub(crate) const VERSION: u32 = 2;

/// Longest frame: one fact of any length, or many smaller things.
pub(crate) const FRAME_BYTES: usize = (2 << 20) + FACT_BYTES;

/// A frame of many things is ended behind the one with which it reaches this size.
pub(crate) const FULL_BYTES: usize = 1 << 20;

/// Memory that is taken for a frame before its first byte is there.
const READ_BYTES: usize = 64 << 10;

/// Things of various lengths in one frame: an empty one costs one byte there, and 24 in memory.
pub(crate) const ITEMS: usize = 1 << 16;

/// Longest prefix that can be the beginning of anything: a kind and 52 characters.
pub(crate) const TEXT_BYTES: usize = 4096;

/// What a client says first. Its form stays, whatever the version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) version: u32,
}

/// What the owner says to it. Its form stays, too.
pub(crate) type Welcome = Result<(), Unwelcome>;

/// The canonical encoding of something that is kept.
pub(crate) type Payload = Vec<u8>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Request {
    Action(ActionId),
    Realisation(ActionId),
    Knows(ActionId),
    /// Where the latest realisations are.
    Latest,
    /// The realisations at these places, or the first few of them.
    Built(Vec<Location>),
    Makers(NarHash),
    Pins,
    Find(String),
    Record(Vec<Payload>),
    Unpin(String),
    /// Evidence.
    Keep(Vec<Payload>),
    /// Statements, as evidence: all of them or none.
    Follow(Vec<Payload>),
    /// The last statement of a feed.
    Last(AttesterKey),
    Attesters,
    /// Some statements of a feed from a place on; none if there are none.
    Statements(AttesterKey, u64),
    Claims(ActionId),
    Claimed,
    Divided,
    Bearing(AttesterKey),
    Sweep(GcOptions),
    Verify {
        repair: bool,
    },
    Reindex,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Done,
    Whether(bool),
    Facts(Vec<Payload>),
    Ids(Vec<[u8; 32]>),
    Places(Vec<Location>),
    Found(Found),
    Kept(Vec<Kept>),
    Swept(Vec<SweptNar>),
    /// What else was swept: bytes of archives; logs, modules, temporary things; what was kept.
    Areas(u64, [Area; 4]),
    Notices(Vec<Notice>),
    /// Facts that were checked, and faults of the index.
    Checked(u64, u64),
    InUse(u64),
    Failed(Remote),
}

/// An answer, and whether more of it follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) more: bool,
    pub(crate) answer: Answer,
}

/// Why nothing was received.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("the connection failed")]
    Io(#[from] io::Error),
    #[error("no frame of the store's")]
    Malformed(#[from] DecodeError),
}

/// Encodes a frame; `None` if it is too long.
pub(crate) fn frame<T: Encode<()>>(value: &T) -> Option<Vec<u8>> {
    let payload = encode::to_bytes(value);
    if payload.len() > FRAME_BYTES {
        return None;
    }
    Some([&(payload.len() as u32).to_le_bytes(), &payload[..]].concat())
}

/// Sends a frame that [`frame`] made.
pub(crate) fn send(mut to: impl io::Write, frame: &[u8]) -> io::Result<()> {
    to.write_all(frame)
}

/// Receives a frame of at most `limit` bytes. Memory is taken as bytes come, not as they are announced.
pub(crate) fn receive<T>(mut from: impl Read, limit: usize) -> Result<T, FrameError>
where
    T: for<'b> Decode<'b, ()> + Encode<()>,
{
    let mut len = [0; 4];
    from.read_exact(&mut len)?;
    let len = u32::from_le_bytes(len) as usize;
    if len > limit {
        return Err(DecodeError::TooLong { len, limit }.into());
    }
    let mut bytes = Vec::with_capacity(len.min(READ_BYTES));
    if from.take(len as u64).read_to_end(&mut bytes)? < len {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    Ok(encode::from_bytes(&bytes, limit)?)
}

/// Splits things into as many lists as frames need; one empty list if there are none.
pub(crate) fn lists<T>(items: impl IntoIterator<Item = T>, size: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let (mut lists, mut bytes) = (vec![Vec::new()], 0);
    for item in items {
        if bytes >= FULL_BYTES || lists.last().is_some_and(|last| last.len() == ITEMS) {
            lists.push(Vec::new());
            bytes = 0;
        }
        bytes += size(&item);
        lists.last_mut().expect("there is always one").push(item);
    }
    lists
}

const MAGIC: &str = "assize store";

impl Encode<()> for Hello {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut ()) -> Result<(), WriteFailed<W::Error>> {
        e.array(2)?.str(MAGIC)?.u32(self.version)?.ok()
    }
}

impl<'b> Decode<'b, ()> for Hello {
    fn decode(d: &mut Decoder<'b>, _: &mut ()) -> Result<Self, Malformed> {
        let at = d.position();
        match (d.array()?, d.str()?) {
            (Some(2), MAGIC) => Ok(Self { version: d.u32()? }),
            _ => Err(refuse(at, "no greeting")),
        }
    }
}

/// `Welcome` on the wire.
pub(crate) struct Greeting(pub(crate) Welcome);

impl Encode<()> for Greeting {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut ()) -> Result<(), WriteFailed<W::Error>> {
        match self.0 {
            Ok(()) => e.array(1)?.u8(0)?.ok(),
            Err(Unwelcome::Version { owner, .. }) => e.array(2)?.u8(1)?.u32(owner)?.ok(),
            Err(Unwelcome::Full { limit }) => e.array(2)?.u8(2)?.u32(limit)?.ok(),
            Err(Unwelcome::User) => e.array(1)?.u8(3)?.ok(),
        }
    }
}

impl<'b> Decode<'b, ()> for Greeting {
    fn decode(d: &mut Decoder<'b>, _: &mut ()) -> Result<Self, Malformed> {
        let at = d.position();
        Ok(Self(match (d.array()?, d.u8()?) {
            (Some(1), 0) => Ok(()),
            (Some(2), 1) => Err(Unwelcome::Version { owner: d.u32()?, ours: VERSION }),
            (Some(2), 2) => Err(Unwelcome::Full { limit: d.u32()? }),
            (Some(1), 3) => Err(Unwelcome::User),
            _ => return Err(refuse(at, "no greeting")),
        }))
    }
}

impl Encode<()> for Request {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut ()) -> Result<(), WriteFailed<W::Error>> {
        match self {
            Self::Action(id) => e.array(2)?.u8(0)?.encode(id)?.ok(),
            Self::Realisation(id) => e.array(2)?.u8(1)?.encode(id)?.ok(),
            Self::Knows(id) => e.array(2)?.u8(2)?.encode(id)?.ok(),
            Self::Latest => e.array(1)?.u8(3)?.ok(),
            Self::Built(places) => put(e.array(2)?.u8(4)?, places, put_place),
            Self::Makers(nar) => e.array(2)?.u8(5)?.encode(nar)?.ok(),
            Self::Pins => e.array(1)?.u8(6)?.ok(),
            Self::Find(text) => e.array(2)?.u8(7)?.str(text)?.ok(),
            Self::Record(facts) => put(e.array(2)?.u8(8)?, facts, put_bytes),
            Self::Unpin(name) => e.array(2)?.u8(9)?.str(name)?.ok(),
            Self::Keep(evidence) => put(e.array(2)?.u8(10)?, evidence, put_bytes),
            Self::Follow(said) => put(e.array(2)?.u8(11)?, said, put_bytes),
            Self::Last(attester) => e.array(2)?.u8(12)?.encode(attester)?.ok(),
            Self::Attesters => e.array(1)?.u8(13)?.ok(),
            Self::Statements(attester, from) => e.array(3)?.u8(14)?.encode(attester)?.u64(*from)?.ok(),
            Self::Claims(id) => e.array(2)?.u8(15)?.encode(id)?.ok(),
            Self::Claimed => e.array(1)?.u8(16)?.ok(),
            Self::Bearing(attester) => e.array(2)?.u8(17)?.encode(attester)?.ok(),
            Self::Sweep(GcOptions { dry_run, keep, older_than }) => {
                e.array(4)?.u8(18)?.bool(*dry_run)?;
                match older_than {
                    None => e.null()?,
                    Some(age) => e.array(2)?.u64(age.as_secs())?.u32(age.subsec_nanos())?,
                };
                e.array(keep.len() as u64)?;
                keep.iter().try_for_each(|nar| e.encode(nar)?.ok())
            }
            Self::Verify { repair } => e.array(2)?.u8(19)?.bool(*repair)?.ok(),
            Self::Reindex => e.array(1)?.u8(20)?.ok(),
            Self::Divided => e.array(1)?.u8(21)?.ok(),
        }
    }
}

impl<'b> Decode<'b, ()> for Request {
    fn decode(d: &mut Decoder<'b>, _: &mut ()) -> Result<Self, Malformed> {
        let at = d.position();
        Ok(match (d.array()?, d.u8()?) {
            (Some(2), 0) => Self::Action(d.decode()?),
            (Some(2), 1) => Self::Realisation(d.decode()?),
            (Some(2), 2) => Self::Knows(d.decode()?),
            (Some(1), 3) => Self::Latest,
            (Some(2), 4) => Self::Built(list(d, get_place)?),
            (Some(2), 5) => Self::Makers(d.decode()?),
            (Some(1), 6) => Self::Pins,
            (Some(2), 7) => Self::Find(get_text(d)?),
            (Some(2), 8) => Self::Record(list(d, get_bytes)?),
            (Some(2), 9) => Self::Unpin(get_text(d)?),
            (Some(2), 10) => Self::Keep(list(d, get_bytes)?),
            (Some(2), 11) => Self::Follow(list(d, get_bytes)?),
            (Some(2), 12) => Self::Last(d.decode()?),
            (Some(1), 13) => Self::Attesters,
            (Some(3), 14) => Self::Statements(d.decode()?, d.u64()?),
            (Some(2), 15) => Self::Claims(d.decode()?),
            (Some(1), 16) => Self::Claimed,
            (Some(2), 17) => Self::Bearing(d.decode()?),
            (Some(4), 18) => Self::Sweep(get_options(d)?),
            (Some(2), 19) => Self::Verify { repair: d.bool()? },
            (Some(1), 20) => Self::Reindex,
            (Some(1), 21) => Self::Divided,
            (_, kind) => return Err(refuse(at, format!("no request of kind {kind} has this length"))),
        })
    }
}

impl Encode<()> for Part {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut ()) -> Result<(), WriteFailed<W::Error>> {
        e.array(2)?.bool(self.more)?;
        match &self.answer {
            Answer::Done => e.array(1)?.u8(0)?.ok(),
            Answer::Whether(whether) => e.array(2)?.u8(1)?.bool(*whether)?.ok(),
            Answer::Facts(facts) => put(e.array(2)?.u8(2)?, facts, put_bytes),
            Answer::Ids(ids) => put(e.array(2)?.u8(3)?, ids, |e, id| e.bytes(id)?.ok()),
            Answer::Places(places) => put(e.array(2)?.u8(4)?, places, put_place),
            Answer::Found(found) => put_found(e.array(2)?.u8(5)?, found),
            Answer::Kept(kept) => put(e.array(2)?.u8(6)?, kept, put_kept),
            Answer::Swept(nars) => put(e.array(2)?.u8(7)?, nars, |e, nar| {
                e.array(3)?.encode(nar.hash)?.u64(nar.size)?.i64(nanos(nar.admitted))?.ok()
            }),
            Answer::Areas(bytes, areas) => {
                e.array(3)?.u8(8)?.u64(*bytes)?;
                put(e, areas, |e, area| e.array(2)?.u64(area.files)?.u64(area.bytes)?.ok())
            }
            Answer::Notices(notices) => put(e.array(2)?.u8(9)?, notices, put_notice),
            Answer::Checked(facts, faults) => e.array(3)?.u8(10)?.u64(*facts)?.u64(*faults)?.ok(),
            Answer::InUse(processes) => e.array(2)?.u8(11)?.u64(*processes)?.ok(),
            Answer::Failed(remote) => {
                e.array(3)?.u8(12)?.u8(remote.fault() as u8)?;
                put(e, &remote.texts(), |e, text| e.str(text)?.ok())
            }
        }
    }
}

impl<'b> Decode<'b, ()> for Part {
    fn decode(d: &mut Decoder<'b>, _: &mut ()) -> Result<Self, Malformed> {
        let at = d.position();
        if d.array()? != Some(2) {
            return Err(refuse(at, "no part of an answer"));
        }
        let more = d.bool()?;
        let answer = match (d.array()?, d.u8()?) {
            (Some(1), 0) => Answer::Done,
            (Some(2), 1) => Answer::Whether(d.bool()?),
            (Some(2), 2) => Answer::Facts(list(d, get_bytes)?),
            (Some(2), 3) => Answer::Ids(list(d, get_id)?),
            (Some(2), 4) => Answer::Places(list(d, get_place)?),
            (Some(2), 5) => Answer::Found(get_found(d)?),
            (Some(2), 6) => Answer::Kept(list(d, get_kept)?),
            (Some(2), 7) => Answer::Swept(list(d, get_swept)?),
            (Some(3), 8) => Answer::Areas(d.u64()?, get_areas(d)?),
            (Some(2), 9) => Answer::Notices(list(d, get_notice)?),
            (Some(3), 10) => Answer::Checked(d.u64()?, d.u64()?),
            (Some(2), 11) => Answer::InUse(d.u64()?),
            (Some(3), 12) => {
                let at = d.position();
                let fault = Fault::of_byte(d.u8()?).ok_or_else(|| refuse(at, "no kind of fault"))?;
                let texts = list(d, get_text)?;
                let remote = if texts.len() <= CAUSES { Remote::read(fault, texts) } else { None };
                Answer::Failed(remote.ok_or_else(|| refuse(at, "no error"))?)
            }
            (_, kind) => return Err(refuse(at, format!("no answer of kind {kind} has this length"))),
        };
        Ok(Self { more, answer })
    }
}

fn put<W: Write, T>(
    e: &mut Encoder<W>,
    items: &[T],
    mut each: impl FnMut(&mut Encoder<W>, &T) -> Result<(), WriteFailed<W::Error>>,
) -> Result<(), WriteFailed<W::Error>> {
    e.array(items.len() as u64)?;
    items.iter().try_for_each(|item| each(e, item))
}

/// Reads an array of at most [`ITEMS`] elements.
fn list<'b, T>(
    d: &mut Decoder<'b>,
    mut each: impl FnMut(&mut Decoder<'b>) -> Result<T, Malformed>,
) -> Result<Vec<T>, Malformed> {
    let at = d.position();
    match d.array()? {
        // Pushed one by one: an announced length takes no memory.
        Some(len) if len <= ITEMS as u64 => {
            let mut items = Vec::new();
            for _ in 0..len {
                items.push(each(d)?);
            }
            Ok(items)
        }
        _ => Err(refuse(at, format!("not an array of at most {ITEMS} elements"))),
    }
}

fn put_bytes<W: Write>(e: &mut Encoder<W>, bytes: &Payload) -> Result<(), WriteFailed<W::Error>> {
    e.bytes(bytes)?.ok()
}

fn get_bytes(d: &mut Decoder<'_>) -> Result<Payload, Malformed> {
    Ok(d.bytes()?.to_owned())
}

fn get_text(d: &mut Decoder<'_>) -> Result<String, Malformed> {
    let at = d.position();
    match d.str()? {
        text if text.len() <= TEXT_BYTES => Ok(text.to_owned()),
        text => Err(refuse(at, format!("a text of {} bytes", text.len()))),
    }
}

/// As much of a text as [`get_text`] takes.
pub(crate) fn shortened(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(TEXT_BYTES));
    text
}

fn put_place<W: Write>(e: &mut Encoder<W>, at: &Location) -> Result<(), WriteFailed<W::Error>> {
    e.bytes(&location_bytes(*at))?.ok()
}

fn get_place(d: &mut Decoder<'_>) -> Result<Location, Malformed> {
    let at = d.position();
    read_location(d.bytes()?).ok_or_else(|| refuse(at, "no place in a journal"))
}

fn get_id(d: &mut Decoder<'_>) -> Result<[u8; 32], Malformed> {
    let at = d.position();
    d.bytes()?.try_into().map_err(|_| refuse(at, "no id"))
}

fn get_options(d: &mut Decoder<'_>) -> Result<GcOptions, Malformed> {
    let dry_run = d.bool()?;
    let at = d.position();
    let older_than = match d.datatype()? {
        minicbor::data::Type::Null => {
            d.null()?;
            None
        }
        _ => match (d.array()?, d.u64()?, d.u32()?) {
            (Some(2), secs, nanos) if nanos < 1_000_000_000 => Some(Duration::new(secs, nanos)),
            _ => return Err(refuse(at, "no span of time")),
        },
    };
    let at = d.position();
    let len = d.array()?.ok_or_else(|| refuse(at, "indefinite length"))?;
    // Of one length, so that the frame is the limit.
    let keep = (0..len).map(|_| d.decode()).collect::<Result<_, _>>()?;
    Ok(GcOptions { dry_run, keep, older_than })
}

fn put_found<W: Write>(e: &mut Encoder<W>, found: &Found) -> Result<(), WriteFailed<W::Error>> {
    match found {
        Found::Nothing => e.array(1)?.u8(0)?.ok(),
        Found::Action(id) => e.array(2)?.u8(1)?.encode(id)?.ok(),
        Found::Nar(hash) => e.array(2)?.u8(2)?.encode(hash)?.ok(),
        Found::Ambiguous(texts) => put(e.array(2)?.u8(3)?, texts, |e, text| e.str(text)?.ok()),
    }
}

fn get_found(d: &mut Decoder<'_>) -> Result<Found, Malformed> {
    let at = d.position();
    Ok(match (d.array()?, d.u8()?) {
        (Some(1), 0) => Found::Nothing,
        (Some(2), 1) => Found::Action(d.decode()?),
        (Some(2), 2) => Found::Nar(d.decode()?),
        (Some(2), 3) => Found::Ambiguous(list(d, get_text)?),
        _ => return Err(refuse(at, "nothing that a prefix can find")),
    })
}

fn put_kept<W: Write>(e: &mut Encoder<W>, kept: &Kept) -> Result<(), WriteFailed<W::Error>> {
    match kept {
        Kept::New => e.array(1)?.u8(0)?.ok(),
        Kept::Known => e.array(1)?.u8(1)?.ok(),
        Kept::Equivocation(proof) => {
            e.array(2)?.u8(2)?.bytes(&Evidence::Equivocation(proof.clone()).to_bytes())?.ok()
        }
        Kept::Refused(FeedError::Attester { expected, found }) => {
            e.array(3)?.u8(3)?.encode(expected)?.encode(found)?.ok()
        }
        Kept::Refused(FeedError::Taken { place, len }) => e.array(3)?.u8(4)?.u64(*place)?.u64(*len)?.ok(),
        Kept::Refused(FeedError::Gap { place, len }) => e.array(3)?.u8(5)?.u64(*place)?.u64(*len)?.ok(),
        Kept::Refused(FeedError::Fork { place, says, known }) => {
            e.array(4)?.u8(6)?.u64(*place)?.encode(says)?.encode(known)?.ok()
        }
        Kept::Refused(FeedError::Ended { last }) => e.array(2)?.u8(7)?.u64(*last)?.ok(),
    }
}

fn get_kept(d: &mut Decoder<'_>) -> Result<Kept, Malformed> {
    let at = d.position();
    Ok(match (d.array()?, d.u8()?) {
        (Some(1), 0) => Kept::New,
        (Some(1), 1) => Kept::Known,
        (Some(2), 2) => match evidence(d.bytes()?) {
            Some(Evidence::Equivocation(proof)) => Kept::Equivocation(proof),
            _ => return Err(refuse(at, "no equivocation")),
        },
        (Some(3), 3) => Kept::Refused(FeedError::Attester { expected: d.decode()?, found: d.decode()? }),
        (Some(3), 4) => Kept::Refused(FeedError::Taken { place: d.u64()?, len: d.u64()? }),
        (Some(3), 5) => Kept::Refused(FeedError::Gap { place: d.u64()?, len: d.u64()? }),
        (Some(4), 6) => {
            let (place, says, known) = (d.u64()?, d.decode()?, d.decode()?);
            Kept::Refused(FeedError::Fork { place, says, known })
        }
        (Some(2), 7) => Kept::Refused(FeedError::Ended { last: d.u64()? }),
        _ => return Err(refuse(at, "nothing that becomes of evidence")),
    })
}

/// Evidence from the owner, who has verified it: as from our own disk.
fn evidence(bytes: &[u8]) -> Option<Evidence> {
    UnverifiedEvidence::from_bytes(bytes).ok()?.assume_verified().ok()
}

fn get_swept(d: &mut Decoder<'_>) -> Result<SweptNar, Malformed> {
    let at = d.position();
    if d.array()? != Some(3) {
        return Err(refuse(at, "no archive that was swept"));
    }
    Ok(SweptNar { hash: d.decode()?, size: d.u64()?, admitted: time(d.i64()?) })
}

fn get_areas(d: &mut Decoder<'_>) -> Result<[Area; 4], Malformed> {
    let at = d.position();
    let areas = list(d, |d| match (d.position(), d.array()?) {
        (_, Some(2)) => Ok(Area { files: d.u64()?, bytes: d.u64()? }),
        (at, _) => Err(refuse(at, "no area")),
    })?;
    areas.try_into().map_err(|_| refuse(at, "not four areas"))
}

/// In nanoseconds since 1970, from 1677 to 2262.
fn nanos(time: SystemTime) -> i64 {
    let clamped = |span: Duration| i64::try_from(span.as_nanos()).unwrap_or(i64::MAX);
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => clamped(after),
        Err(before) => -clamped(before.duration()),
    }
}

fn time(nanos: i64) -> SystemTime {
    let span = Duration::from_nanos(nanos.unsigned_abs());
    let epoch = SystemTime::UNIX_EPOCH;
    let time = if nanos < 0 { epoch.checked_sub(span) } else { epoch.checked_add(span) };
    time.unwrap_or(epoch)
}

fn put_notice<W: Write>(e: &mut Encoder<W>, notice: &Notice) -> Result<(), WriteFailed<W::Error>> {
    match notice {
        Notice::TornTail { segment, at, cut, saved } => {
            e.array(5)?.u8(0)?.u32(*segment)?.u32(*at)?.u32(*cut)?;
            match saved {
                None => e.null()?.ok(),
                Some(path) => put_path(e, path),
            }
        }
        Notice::JournalDamaged { segment, from, to } => {
            e.array(4)?.u8(1)?.u32(*segment)?.u32(*from)?.u32(*to)?.ok()
        }
        Notice::SegmentRewritten { segment, saved } => put_path(e.array(3)?.u8(2)?.u32(*segment)?, saved),
        Notice::SegmentMissing { segment } => e.array(2)?.u8(3)?.u32(*segment)?.ok(),
        Notice::UnknownFact { segment, at } => e.array(3)?.u8(4)?.u32(*segment)?.u32(*at)?.ok(),
        Notice::IndexRebuilt { why, facts } => e.array(3)?.u8(5)?.u8(*why as u8)?.u64(*facts)?.ok(),
        Notice::IndexSaved { saved } => put_path(e.array(2)?.u8(6)?, saved),
        Notice::TempLeft { path } => put_path(e.array(2)?.u8(7)?, path),
    }
}

fn get_notice(d: &mut Decoder<'_>) -> Result<Notice, Malformed> {
    let at = d.position();
    Ok(match (d.array()?, d.u8()?) {
        (Some(5), 0) => {
            let (segment, at, cut) = (d.u32()?, d.u32()?, d.u32()?);
            let saved = match d.datatype()? {
                minicbor::data::Type::Null => {
                    d.null()?;
                    None
                }
                _ => Some(get_path(d)?),
            };
            Notice::TornTail { segment, at, cut, saved }
        }
        (Some(4), 1) => Notice::JournalDamaged { segment: d.u32()?, from: d.u32()?, to: d.u32()? },
        (Some(3), 2) => Notice::SegmentRewritten { segment: d.u32()?, saved: get_path(d)? },
        (Some(2), 3) => Notice::SegmentMissing { segment: d.u32()? },
        (Some(3), 4) => Notice::UnknownFact { segment: d.u32()?, at: d.u32()? },
        (Some(3), 5) => Notice::IndexRebuilt { why: get_why(d)?, facts: d.u64()? },
        (Some(2), 6) => Notice::IndexSaved { saved: get_path(d)? },
        (Some(2), 7) => Notice::TempLeft { path: get_path(d)? },
        _ => return Err(refuse(at, "no notice")),
    })
}

fn get_why(d: &mut Decoder<'_>) -> Result<Rebuilt, Malformed> {
    use Rebuilt::{Asked, Damaged, Failed, Mismatch, Moved, Unsynced};
    let at = d.position();
    let byte = d.u8()?;
    let all = [Unsynced, Damaged, Failed, Mismatch, Moved, Asked];
    all.into_iter().find(|why| *why as u8 == byte).ok_or_else(|| refuse(at, "no reason to rebuild"))
}

fn put_path<W: Write>(e: &mut Encoder<W>, path: &std::path::Path) -> Result<(), WriteFailed<W::Error>> {
    e.bytes(path.as_os_str().as_bytes())?.ok()
}

fn get_path(d: &mut Decoder<'_>) -> Result<PathBuf, Malformed> {
    Ok(PathBuf::from(OsStr::from_bytes(d.bytes()?)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use protocol::{
        evidence::Equivocation,
        id::StatementId,
        key::SigningKey,
        statement::{Body, Statement},
    };

    use super::*;

    fn requests() -> Vec<Request> {
        let (id, nar) = (ActionId::from_bytes([1; 32]), NarHash::from_bytes([2; 32]));
        let attester = AttesterKey::of(&SigningKey::from_bytes(&[3; 32]));
        let at = Location { segment: 1, offset: 40, len: 7 };
        let options = GcOptions {
            dry_run: true,
            keep: BTreeSet::from([nar]),
            older_than: Some(Duration::new(7, 999_999_999)),
        };
        vec![
            Request::Action(id),
            Request::Realisation(id),
            Request::Knows(id),
            Request::Latest,
            Request::Built(vec![at, at]),
            Request::Makers(nar),
            Request::Pins,
            Request::Find("act:b".into()),
            Request::Record(vec![vec![1, 2], vec![]]),
            Request::Unpin("pin".into()),
            Request::Keep(vec![vec![1]]),
            Request::Follow(vec![]),
            Request::Last(attester),
            Request::Attesters,
            Request::Statements(attester, u64::MAX),
            Request::Claims(id),
            Request::Claimed,
            Request::Divided,
            Request::Bearing(attester),
            Request::Sweep(options),
            Request::Sweep(GcOptions::default()),
            Request::Verify { repair: true },
            Request::Reindex,
        ]
    }

    fn kept() -> Vec<Kept> {
        let key = SigningKey::from_bytes(&[3; 32]);
        let attester = AttesterKey::of(&key);
        let id = StatementId::from_bytes([4; 32]);
        let [one, other] = [1, 2].map(|time| {
            let body = Body::Retract { first: 0, last: 0 };
            let statement = Statement { attester, seq: 1, prev: id, time, body };
            statement.sign(&key).unwrap()
        });
        let refused = [
            FeedError::Attester { expected: attester, found: attester },
            FeedError::Taken { place: 1, len: 2 },
            FeedError::Gap { place: 3, len: 2 },
            FeedError::Fork { place: 1, says: id, known: id },
            FeedError::Ended { last: 9 },
        ];
        let mut kept: Vec<_> = refused.map(Kept::Refused).into();
        kept.extend([Kept::New, Kept::Known, Kept::Equivocation(Equivocation::new(one, other).unwrap())]);
        kept
    }

    fn notices() -> Vec<Notice> {
        let path = PathBuf::from(OsStr::from_bytes(b"/a/\xff"));
        let rebuilt = |why| Notice::IndexRebuilt { why, facts: 300 };
        vec![
            Notice::TornTail { segment: 1, at: 2, cut: 3, saved: None },
            Notice::TornTail { segment: 1, at: 2, cut: 3, saved: Some(path.clone()) },
            Notice::JournalDamaged { segment: 1, from: 2, to: 70_000 },
            Notice::SegmentRewritten { segment: 1, saved: path.clone() },
            Notice::SegmentMissing { segment: 1 },
            Notice::UnknownFact { segment: 1, at: 2 },
            rebuilt(Rebuilt::Unsynced),
            rebuilt(Rebuilt::Damaged),
            rebuilt(Rebuilt::Failed),
            rebuilt(Rebuilt::Mismatch),
            rebuilt(Rebuilt::Moved),
            rebuilt(Rebuilt::Asked),
            Notice::IndexSaved { saved: path.clone() },
            Notice::TempLeft { path },
        ]
    }

    fn parts() -> Vec<Part> {
        let (id, nar) = (ActionId::from_bytes([1; 32]), NarHash::from_bytes([2; 32]));
        let at = Location { segment: 1, offset: 40, len: 7 };
        let swept = |admitted| SweptNar { hash: nar, size: 9, admitted };
        let failed = |fault| {
            Answer::Failed(Remote::read(fault, vec!["what".into(), "why".into(), "whence".into()]).unwrap())
        };
        let answers = vec![
            Answer::Done,
            Answer::Whether(true),
            Answer::Facts(vec![vec![1, 2], vec![3]]),
            Answer::Ids(vec![[5; 32], [6; 32]]),
            Answer::Places(vec![at]),
            Answer::Found(Found::Nothing),
            Answer::Found(Found::Action(id)),
            Answer::Found(Found::Nar(nar)),
            Answer::Found(Found::Ambiguous(vec!["a".into(), "b".into()])),
            Answer::Kept(kept()),
            Answer::Swept([i64::MIN + 1, -1, 0, 1, i64::MAX].map(|nanos| swept(time(nanos))).into()),
            Answer::Areas(7, [1, 2, 3, 4].map(|n| Area { files: n, bytes: n * 1000 })),
            Answer::Notices(notices()),
            Answer::Checked(1, 2),
            Answer::InUse(3),
            failed(Fault::Refused),
            failed(Fault::Index),
            failed(Fault::Damage),
            failed(Fault::Disk),
            failed(Fault::Full),
        ];
        [true, false]
            .into_iter()
            .flat_map(|more| answers.iter().map(move |answer| (more, answer.clone())))
            .map(|(more, answer)| Part { more, answer })
            .collect()
    }

    fn check<T>(value: &T)
    where
        T: for<'b> Decode<'b, ()> + Encode<()> + PartialEq + std::fmt::Debug,
    {
        let bytes = frame(value).unwrap();
        assert_eq!(receive::<T>(&bytes[..], FRAME_BYTES).unwrap(), *value);
        for at in 0..bytes.len() {
            assert!(receive::<T>(&bytes[..at], FRAME_BYTES).is_err(), "cut at {at}");
            for bit in 0..8 {
                let mut bytes = bytes.clone();
                bytes[at] ^= 1 << bit;
                if let Ok(other) = receive::<T>(&bytes[..], FRAME_BYTES) {
                    // Signatures are looked at by nobody here.
                    let again = frame(&other).unwrap();
                    assert_eq!(again, bytes[..again.len()]);
                }
            }
        }
    }

    #[test]
    fn round_trips_and_no_bytes_panic() {
        check(&Hello { version: VERSION });
        requests().iter().for_each(check);
        parts().iter().for_each(check);
        let full = Err(Unwelcome::Full { limit: 64 });
        let version = Err(Unwelcome::Version { owner: 9, ours: VERSION });
        for welcome in [Ok(()), full, version, Err(Unwelcome::User)] {
            let bytes = frame(&Greeting(welcome)).unwrap();
            assert_eq!(receive::<Greeting>(&bytes[..], 100).unwrap().0, welcome);
        }
    }

    #[test]
    fn lists_fit_into_frames() {
        let sizes = |items: &[usize]| -> Vec<Vec<usize>> { lists(items.iter().copied(), |size| *size) };
        assert_eq!(sizes(&[]), [Vec::<usize>::new()]);
        assert_eq!(sizes(&[1, 2]), [[1, 2]]);
        let (half, whole) = (FULL_BYTES / 2, FULL_BYTES);
        assert_eq!(sizes(&[half, half, half, whole, 1]), [vec![half, half], vec![half, whole], vec![1]]);
        assert_eq!(sizes(&[whole; 3]), [[whole]; 3]);
        assert_eq!(sizes(&vec![0; ITEMS + 1]).iter().map(Vec::len).collect::<Vec<_>>(), [ITEMS, 1]);
        // The longest frame that `lists` can give.
        let facts = vec![vec![0; FULL_BYTES - 1 - (ITEMS - 2)], vec![0; FACT_BYTES]];
        let facts = facts.into_iter().chain(std::iter::repeat_n(vec![0], ITEMS - 2)).collect();
        assert!(frame(&Part { more: false, answer: Answer::Facts(facts) }).is_some());
    }
}
