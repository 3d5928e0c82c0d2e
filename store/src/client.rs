//! Being a client of the process that has the store open (SPEC §9.8).
//!
//! One connection for one open [`crate::Store`], one request at a time on it. It is also what the
//! owner counts before it sweeps, so it stays for as long as the store is open here. When it fails
//! it is not made again: what was answered may have been of another owner's time.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    error::Error,
    fs::{File, OpenOptions},
    os::unix::net::UnixStream,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use protocol::{
    action::Action,
    evidence::Evidence,
    feed::Head,
    id::{ActionId, NarHash},
    key::{AttesterKey, SigningKey},
    statement::{Body, Signed, Statement},
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::{
    Found, GcOptions, GcReport, Home, KeepError, Kept, LookupError, Notice, Realisation, RecordError,
    SayError, VerifyReport,
    books::{entries, in_chunks},
    fact::{FACT_BYTES, Fact},
    journal::Location,
    wire::{self, Answer, FRAME_BYTES, FrameError, Greeting, Hello, ITEMS, Part, Payload, Request, VERSION},
};

/// Realisations that are asked for at once.
const BATCH: usize = 256;

/// Why the process that has the store open did not do what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ServedError {
    /// It ended, or stopped serving. Whether it did the last thing that was asked for is not known;
    /// whatever it had acknowledged is kept.
    #[error("the process that has the store open ended; run the command again")]
    Gone,
    /// It answers something else than what was asked.
    #[error("the process that has the store open gives no valid answers; end it, and run the command again")]
    Nonsense,
    /// It cannot be asked for so much at once.
    #[error("a request of more than the {limit} bytes that the process that has the store open takes")]
    TooLong {
        /// Bytes allowed.
        limit: usize,
    },
    /// It failed, or refused; its error, and the causes of that in `source`.
    #[error(transparent)]
    Failed(#[from] Remote),
}

/// An error of the process that has the store open, in its words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Remote {
    fault: Fault,
    text: String,
    source: Option<Box<Remote>>,
}

/// What kind of thing went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// What was asked for breaks a rule.
    Refused,
    /// The index failed; it can be rebuilt.
    Index,
    /// The journal is damaged.
    Damage,
    /// The disk failed.
    Disk,
    /// The disk, or a quota, is full.
    Full,
}

/// Why the process that has the store open does not serve us, though it serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unwelcome {
    /// It is of another version.
    #[error("it speaks version {owner} and we version {ours}: end it and start it anew")]
    Version {
        /// What it speaks.
        owner: u32,
        /// What we speak.
        ours: u32,
    },
    /// It has no room for one more.
    #[error("it serves {limit} processes already, and no more than that")]
    Full {
        /// How many it serves.
        limit: u32,
    },
    /// It is another user's.
    #[error("it serves processes of its own user only")]
    User,
}

/// Causes of one error that cross the wire.
pub(crate) const CAUSES: usize = 16;

impl Remote {
    pub(crate) fn new(fault: Fault, error: &dyn Error) -> Self {
        let (mut texts, mut next) = (Vec::new(), Some(error));
        while let Some(error) = next.filter(|_| texts.len() < CAUSES) {
            texts.push(wire::shortened(error.to_string()));
            next = error.source();
        }
        Self::read(fault, texts).unwrap_or(Self { fault, text: String::new(), source: None })
    }

    /// From the texts of an error and of its causes; `None` if there are none.
    pub(crate) fn read(fault: Fault, texts: Vec<String>) -> Option<Self> {
        let nest = |source: Option<Self>, text| Some(Self { fault, text, source: source.map(Box::new) });
        texts.into_iter().rev().fold(None, nest)
    }

    pub(crate) fn texts(&self) -> Vec<&str> {
        std::iter::successors(Some(self), |it| it.source.as_deref()).map(|it| &it.text[..]).collect()
    }

    /// What kind of thing it was.
    pub fn fault(&self) -> Fault {
        self.fault
    }
}

impl Fault {
    pub(crate) fn of_byte(byte: u8) -> Option<Self> {
        let all = [Self::Refused, Self::Index, Self::Damage, Self::Disk, Self::Full];
        all.into_iter().find(|fault| *fault as u8 == byte)
    }
}

impl ServedError {
    /// What kind of thing went wrong in the process that has the store open; `None` if it went wrong
    /// on the way there or back.
    pub fn fault(&self) -> Option<Fault> {
        match self {
            Self::Failed(remote) => Some(remote.fault),
            Self::Gone | Self::Nonsense | Self::TooLong { .. } => None,
        }
    }

    /// Whether this concerns only the one fact that was asked for.
    fn is_local(&self) -> bool {
        matches!(self.fault(), Some(Fault::Damage | Fault::Disk))
    }
}

/// A connection on which we have said hello.
pub(crate) struct Door {
    stream: UnixStream,
    present: File,
}

/// What became of it.
pub(crate) enum Answered {
    In(Client),
    /// There is nobody any more.
    Nobody,
}

/// How long the rest of a greeting may take that has begun.
const GREETING_TIME: Duration = Duration::from_secs(5);

impl Door {
    /// Says hello to whoever serves the store in `home`; `None` if nobody does.
    pub(crate) fn knock(home: &Home) -> Option<Self> {
        if !home.socket().exists() {
            return None;
        }
        // Before there can be anything of ours in `tmp/`. Who has it for himself empties `tmp/`.
        let mut options = OpenOptions::new();
        let present =
            options.read(true).write(true).create(true).truncate(false).open(home.clients()).ok()?;
        present.lock_shared().ok()?;
        let stream = crate::socket::connect(&home.socket()).ok()?;
        let hello = wire::frame(&Hello { version: VERSION })?;
        // If it refuses everybody, it has answered already, and does not listen.
        let _ = wire::send(&stream, &hello);
        Some(Self { stream, present })
    }

    /// Waits for the answer; `None` if there is none in time.
    pub(crate) fn answer(&mut self, patience: Duration) -> Result<Option<Answered>, crate::OpenError> {
        let timeout = Timespec::try_from(patience).ok();
        loop {
            match poll(&mut [PollFd::new(&self.stream, PollFlags::IN)], timeout.as_ref()) {
                Ok(0) => return Ok(None),
                Ok(_) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return Ok(Some(Answered::Nobody)),
            }
        }
        let (Ok(stream), Ok(present)) = (self.stream.try_clone(), self.present.try_clone()) else {
            return Ok(Some(Answered::Nobody));
        };
        let timed = stream.set_read_timeout(Some(GREETING_TIME)).is_ok();
        match wire::receive::<Greeting>(&stream, FRAME_BYTES) {
            Ok(Greeting(Ok(()))) if timed && stream.set_read_timeout(None).is_ok() => {
                let client = Client { connection: Mutex::new(Some(stream)), present };
                Ok(Some(Answered::In(client)))
            }
            Ok(Greeting(Ok(()))) | Err(FrameError::Io(_)) => Ok(Some(Answered::Nobody)),
            Ok(Greeting(Err(unwelcome))) => Err(unwelcome.into()),
            Err(FrameError::Malformed(_)) => Err(ServedError::Nonsense.into()),
        }
    }
}

pub(crate) struct Client {
    /// `None` when it has failed.
    connection: Mutex<Option<UnixStream>>,
    /// Locked, shared: who opens the store next leaves `tmp/` alone.
    #[expect(dead_code, reason = "held, not read")]
    present: File,
}

/// An answer to another question.
struct Wrong;

impl Client {
    /// Asks, and gives `each` every part of the answer.
    fn ask(
        &self,
        request: &Request,
        mut each: impl FnMut(Answer) -> Result<(), Wrong>,
    ) -> Result<(), ServedError> {
        let frame = wire::frame(request).ok_or(ServedError::TooLong { limit: FRAME_BYTES })?;
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        // Given back when the answer was read to its end.
        let stream = connection.take().ok_or(ServedError::Gone)?;
        wire::send(&stream, &frame).map_err(|_| ServedError::Gone)?;
        loop {
            let part: Part = wire::receive(&stream, FRAME_BYTES).map_err(|error| match error {
                FrameError::Io(_) => ServedError::Gone,
                FrameError::Malformed(_) => ServedError::Nonsense,
            })?;
            match (part.more, part.answer) {
                (false, Answer::Failed(remote)) => {
                    *connection = Some(stream);
                    return Err(remote.into());
                }
                (more, answer) => {
                    each(answer).map_err(|Wrong| ServedError::Nonsense)?;
                    if !more {
                        *connection = Some(stream);
                        return Ok(());
                    }
                }
            }
        }
    }

    fn done(&self, request: &Request) -> Result<(), ServedError> {
        self.ask(request, |answer| match answer {
            Answer::Done => Ok(()),
            _ => Err(Wrong),
        })
    }

    fn whether(&self, request: &Request) -> Result<bool, ServedError> {
        let mut found = false;
        self.ask(request, |answer| match answer {
            Answer::Whether(whether) => {
                found = whether;
                Ok(())
            }
            _ => Err(Wrong),
        })?;
        Ok(found)
    }

    fn facts(&self, request: &Request) -> Result<Vec<Fact>, ServedError> {
        let mut found = Vec::new();
        self.ask(request, |answer| match answer {
            Answer::Facts(facts) => {
                for fact in facts {
                    found.push(Fact::from_bytes(&fact).map_err(|_| Wrong)?);
                }
                Ok(())
            }
            _ => Err(Wrong),
        })?;
        Ok(found)
    }

    fn evidence(&self, request: &Request) -> Result<Vec<Evidence>, ServedError> {
        let evidence = |fact| match fact {
            Fact::Evidence(evidence) => Ok(evidence),
            _ => Err(ServedError::Nonsense),
        };
        self.facts(request)?.into_iter().map(evidence).collect()
    }

    fn signed(&self, request: &Request) -> Result<Vec<Signed>, ServedError> {
        let signed = |evidence| match evidence {
            Evidence::Statement(signed) => Ok(signed),
            _ => Err(ServedError::Nonsense),
        };
        self.evidence(request)?.into_iter().map(signed).collect()
    }

    fn ids<T>(&self, request: &Request, of: fn([u8; 32]) -> T) -> Result<Vec<T>, ServedError> {
        let mut found = Vec::new();
        self.ask(request, |answer| match answer {
            Answer::Ids(ids) => {
                found.extend(ids.into_iter().map(of));
                Ok(())
            }
            _ => Err(Wrong),
        })?;
        Ok(found)
    }

    pub(crate) fn action(&self, id: &ActionId) -> Result<Option<Action>, LookupError> {
        match self.facts(&Request::Action(*id))?.pop() {
            None => Ok(None),
            Some(Fact::Action(action)) if action.id() == *id => Ok(Some(action)),
            Some(_) => Err(ServedError::Nonsense.into()),
        }
    }

    pub(crate) fn realisation(&self, id: &ActionId) -> Result<Option<Realisation>, LookupError> {
        match self.facts(&Request::Realisation(*id))?.pop() {
            None => Ok(None),
            Some(Fact::Built(built)) if built.action == *id => Ok(Some(built)),
            Some(_) => Err(ServedError::Nonsense.into()),
        }
    }

    pub(crate) fn realisations(
        &self,
    ) -> Result<impl Iterator<Item = Result<Realisation, LookupError>> + Send + '_, LookupError> {
        let mut places = VecDeque::new();
        self.ask(&Request::Latest, |answer| match answer {
            Answer::Places(found) => {
                places.extend(found);
                Ok(())
            }
            _ => Err(Wrong),
        })?;
        let mut ready = VecDeque::new();
        Ok(std::iter::from_fn(move || {
            if ready.is_empty() && !places.is_empty() {
                match self.built(&mut places) {
                    Ok(found) => ready.extend(found),
                    Err(error) => return Some(Err(error.into())),
                }
            }
            ready.pop_front().map(Ok)
        }))
    }

    /// The realisations at the first few places, and takes these places out. If none is read, the
    /// first place is taken out, or all of them, if no other can be read either.
    fn built(&self, places: &mut VecDeque<Location>) -> Result<Vec<Realisation>, ServedError> {
        let batch: Vec<_> = places.iter().take(BATCH).copied().collect();
        let limit = batch.len();
        let realisation = |fact| match fact {
            Fact::Built(built) => Ok(built),
            _ => Err(ServedError::Nonsense),
        };
        let found = self.facts(&Request::Built(batch));
        let found = found.and_then(|facts| facts.into_iter().map(realisation).collect::<Result<Vec<_>, _>>());
        match found {
            Ok(found) if (1..=limit).contains(&found.len()) => {
                places.drain(..found.len());
                Ok(found)
            }
            Err(error) if error.is_local() => {
                places.pop_front();
                Err(error)
            }
            other => {
                places.clear();
                other.and(Err(ServedError::Nonsense))
            }
        }
    }

    pub(crate) fn makers(&self, nar: &NarHash) -> Result<Vec<ActionId>, ServedError> {
        self.ids(&Request::Makers(*nar), ActionId::from_bytes)
    }

    pub(crate) fn record_all(&self, facts: &[Fact]) -> Result<(), RecordError> {
        // All are checked before the first is sent: if one is refused, none is recorded.
        let entries = entries(facts, |id| Ok(self.whether(&Request::Knows(*id))?))?;
        in_chunks(entries, FACT_BYTES, ITEMS, |chunk| {
            let payloads = chunk.into_iter().map(|entry| entry.payload).collect();
            Ok(self.done(&Request::Record(payloads))?)
        })
    }

    pub(crate) fn unpin(&self, name: &str) -> Result<bool, ServedError> {
        self.whether(&Request::Unpin(name.to_owned()))
    }

    pub(crate) fn pins(&self) -> Result<BTreeMap<String, BTreeSet<NarHash>>, LookupError> {
        let pin = |fact| match fact {
            Fact::Pinned { name, nars } => Ok((name, nars)),
            _ => Err(ServedError::Nonsense.into()),
        };
        self.facts(&Request::Pins)?.into_iter().map(pin).collect()
    }

    pub(crate) fn find_prefix(&self, text: &str) -> Result<Found, ServedError> {
        if text.len() > wire::TEXT_BYTES {
            return Ok(Found::Nothing);
        }
        let mut found = Found::Nothing;
        self.ask(&Request::Find(text.to_owned()), |answer| match answer {
            Answer::Found(it) => {
                found = it;
                Ok(())
            }
            _ => Err(Wrong),
        })?;
        Ok(found)
    }

    pub(crate) fn keep(&self, evidence: impl IntoIterator<Item = Evidence>) -> Result<Vec<Kept>, KeepError> {
        let mut kept = Vec::new();
        let payloads = evidence.into_iter().map(|item| item.to_bytes());
        for list in wire::lists(payloads, Payload::len) {
            if list.is_empty() {
                continue;
            }
            let asked = kept.len() + list.len();
            self.ask(&Request::Keep(list), |answer| match answer {
                Answer::Kept(found) => {
                    kept.extend(found);
                    Ok(())
                }
                _ => Err(Wrong),
            })
            .map_err(RecordError::from)?;
            if kept.len() != asked {
                return Err(RecordError::from(ServedError::Nonsense).into());
            }
        }
        Ok(kept)
    }

    /// Signs behind the head that the owner names, and signs anew what it does not keep, because
    /// something was said in between. What it did not keep is shown to nobody.
    pub(crate) fn say(
        &self,
        key: &SigningKey,
        time: u64,
        bodies: impl IntoIterator<Item = Body>,
    ) -> Result<Vec<Signed>, SayError> {
        let attester = AttesterKey::of(key);
        let bodies: Vec<_> = bodies.into_iter().collect();
        let mut said: Vec<Signed> = Vec::new();
        while said.len() < bodies.len() {
            let mut head = self.head(&attester).map_err(KeepError::from)?;
            let mut next = Vec::new();
            // All of it, so that nothing is said if something of it cannot be.
            for body in &bodies[said.len()..] {
                let body = body.clone();
                let statement = Statement { attester, seq: head.len(), prev: head.last(), time, body };
                let signed = statement.sign(key)?;
                head = head.follow(&signed)?;
                next.push(signed);
            }
            for list in wire::lists(next, |signed| signed.bytes().len()) {
                let payloads = list.iter().map(|signed| Evidence::Statement(signed.clone()).to_bytes());
                let follows = self.whether(&Request::Follow(payloads.collect()));
                if !follows.map_err(|error| KeepError::from(RecordError::from(error)))? {
                    break;
                }
                said.extend(list);
            }
        }
        Ok(said)
    }

    pub(crate) fn head(&self, attester: &AttesterKey) -> Result<Head, LookupError> {
        match self.signed(&Request::Last(*attester))?.pop() {
            None => Ok(Head::empty(*attester)),
            Some(last) if last.statement().attester == *attester => Ok(Head::behind(&last)),
            Some(_) => Err(ServedError::Nonsense.into()),
        }
    }

    pub(crate) fn attesters(&self) -> Result<Vec<AttesterKey>, ServedError> {
        self.ids(&Request::Attesters, AttesterKey::from_bytes)
    }

    pub(crate) fn statements(
        &self,
        attester: AttesterKey,
        from: u64,
    ) -> impl Iterator<Item = Result<Signed, LookupError>> + Send + '_ {
        let mut next = Some(from);
        let mut ready = VecDeque::new();
        std::iter::from_fn(move || {
            if let Some(signed) = ready.pop_front() {
                return Some(Ok(signed));
            }
            let from = next?;
            match self.signed(&Request::Statements(attester, from)) {
                Ok(page) => {
                    let last = page.last()?.statement().seq;
                    next = last.checked_add(1).filter(|_| last >= from);
                    ready = page.into();
                    ready.pop_front().map(Ok)
                }
                Err(error) => {
                    next = from.checked_add(1).filter(|_| error.is_local());
                    Some(Err(error.into()))
                }
            }
        })
    }

    pub(crate) fn claims(&self, action: &ActionId) -> Result<Vec<Signed>, LookupError> {
        Ok(self.signed(&Request::Claims(*action))?)
    }

    pub(crate) fn claimed(&self) -> Result<Vec<ActionId>, ServedError> {
        self.ids(&Request::Claimed, ActionId::from_bytes)
    }

    pub(crate) fn divided(&self) -> Result<Vec<ActionId>, ServedError> {
        self.ids(&Request::Divided, ActionId::from_bytes)
    }

    pub(crate) fn bearing(&self, attester: &AttesterKey) -> Result<Vec<Evidence>, LookupError> {
        Ok(self.evidence(&Request::Bearing(*attester))?)
    }

    pub(crate) fn gc(&self, options: &GcOptions) -> Result<GcReport, LookupError> {
        let (mut report, mut in_use) = (GcReport::default(), None);
        self.ask(&Request::Sweep(options.clone()), |answer| {
            match answer {
                Answer::Swept(nars) => report.nars.extend(nars),
                Answer::Areas(bytes, [logs, modules, temp, kept]) => {
                    report = GcReport {
                        nars: std::mem::take(&mut report.nars),
                        nar_bytes: bytes,
                        logs,
                        modules,
                        temp,
                        kept,
                    };
                }
                Answer::InUse(processes) => in_use = Some(processes as usize),
                _ => return Err(Wrong),
            }
            Ok(())
        })?;
        match in_use {
            Some(processes) => Err(LookupError::InUse { processes }),
            None => Ok(report),
        }
    }

    pub(crate) fn verify(&self, repair: bool, report: &mut VerifyReport) -> Result<(), ServedError> {
        let mut checked = false;
        self.ask(&Request::Verify { repair }, |answer| {
            match answer {
                Answer::Notices(notices) if checked => report.repaired.extend(notices),
                Answer::Notices(notices) => report.journal.extend(notices),
                Answer::Checked(facts, faults) => {
                    (report.facts, report.index_faults) = (facts, faults);
                    checked = true;
                }
                _ => return Err(Wrong),
            }
            Ok(())
        })?;
        if checked { Ok(()) } else { Err(ServedError::Nonsense) }
    }

    pub(crate) fn reindex(&self) -> Result<Vec<Notice>, ServedError> {
        let mut notices = Vec::new();
        self.ask(&Request::Reindex, |answer| match answer {
            Answer::Notices(found) => {
                notices.extend(found);
                Ok(())
            }
            _ => Err(Wrong),
        })?;
        Ok(notices)
    }
}
