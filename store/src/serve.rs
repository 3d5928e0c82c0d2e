//! Serving journal and index to other processes of the same user (SPEC §9.8).
//!
//! ```text
//! accept ─▶ a thread each: whose process? ─▶ hello ─▶ while a sweep runs, wait ─▶ request ─▶ answer …
//! ```
//!
//! An answer is made whole before its first byte is sent, so nothing is locked while a client is
//! slow to read. What a client says is read strictly, and what others signed is verified again: a
//! client that breaks a rule of the wire is cut off, and one that asks for what breaks a rule of the
//! store is told so.
//!
//! Absent on purpose: archives, logs and modules, which every process reads and writes as files.

use std::{
    collections::BTreeMap,
    io::{self, BufReader, ErrorKind},
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use protocol::{
    evidence::{Evidence, UnverifiedEvidence},
    statement::Signed,
};
use rustix::event::{PollFd, PollFlags, poll};

use crate::{
    AppendError, DiskError, IndexError, KeepError, Kept, LookupError, Notice, OpenError, RecordError,
    RecordReadError, Store, VerifyReport,
    books::{Books, Here},
    client::{Fault, Remote, Unwelcome},
    disk::Doing as _,
    fact::Fact,
    socket::{self, SocketName},
    wire::{self, Answer, FRAME_BYTES, FULL_BYTES, Greeting, Hello, ITEMS, Part, Payload, Request, VERSION},
};

/// Processes that are served at once: a thread each.
pub const CLIENTS: usize = 64;

/// How long a client may take to say hello.
const HELLO_TIME: Duration = Duration::from_secs(5);

/// Longest hello, in bytes.
const HELLO_BYTES: usize = 64;

/// How long the end of serving waits for answers that are being made.
const STOP_TIME: Duration = Duration::from_secs(2);

/// The pause after which the end of serving looks again, and after which accepting is tried again
/// when there is no file descriptor or thread left.
const PAUSE: Duration = Duration::from_millis(5);

/// Why a store is not served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// It is itself a client of the process that has it open.
    #[error("another process has the store open and serves it")]
    Client,
    /// This process serves it already.
    #[error("the store is being served already")]
    Serving,
    /// The socket cannot be made.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// Serves a store until it is dropped. That takes up to two seconds: requests that are being
/// worked on are answered or, if they take longer, done without an answer.
pub struct Service {
    store: Arc<Store>,
    name: Option<SocketName>,
    /// Closed to end accepting.
    wake: Option<UnixStream>,
    accepting: Option<JoinHandle<Vec<JoinHandle<()>>>>,
}

/// Who is served.
#[derive(Default)]
pub(crate) struct Clients {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    serving: bool,
    stopping: bool,
    sweeping: bool,
    /// How many [`Busy`] there are.
    busy: usize,
    next: u64,
    connections: BTreeMap<u64, Connection>,
}

struct Connection {
    stream: UnixStream,
    /// Whether it was let in.
    welcome: bool,
}

/// While this lives, nobody else sweeps: see [`Store::busy`].
pub struct Busy(Arc<Store>);

/// Nobody else is let in until this is dropped.
pub(crate) struct Alone<'c>(&'c Clients);

impl Clients {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets nobody in any more, unless other processes than that of `asker` use the store: then says
    /// how many. What we ourselves sweep is for our own threads to agree on.
    pub(crate) fn alone(&self, asker: Option<u64>) -> Result<Alone<'_>, usize> {
        let mut state = self.lock();
        let clients = state.connections.iter().filter(|(id, it)| it.welcome && Some(**id) != asker).count();
        let others = clients + usize::from(asker.is_some() && state.busy > 0);
        if others > 0 {
            return Err(others);
        }
        state.sweeping = true;
        Ok(Alone(self))
    }

    /// A new connection, if there is room for it.
    fn add(&self, stream: &UnixStream) -> io::Result<Option<u64>> {
        let mut state = self.lock();
        if state.connections.len() >= CLIENTS {
            return Ok(None);
        }
        let id = state.next;
        state.next += 1;
        state.connections.insert(id, Connection { stream: stream.try_clone()?, welcome: false });
        Ok(Some(id))
    }

    /// Waits while a sweep runs, unless serving ends.
    fn after_sweep(&self) -> MutexGuard<'_, State> {
        let sweeps = |state: &mut State| state.sweeping && !state.stopping;
        self.changed.wait_while(self.lock(), sweeps).unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a connection in, when no sweep runs; false if serving ends.
    fn welcome(&self, id: u64) -> bool {
        let mut state = self.after_sweep();
        let stopping = state.stopping;
        match state.connections.get_mut(&id) {
            Some(connection) if !stopping => {
                connection.welcome = true;
                true
            }
            _ => false,
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        if let Books::Here(here) = &self.0.books {
            here.clients.lock().busy -= 1;
        }
    }
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        self.0.lock().sweeping = false;
        self.0.changed.notify_all();
    }
}

impl Store {
    /// Serves this store to other processes of this user, which open it as its clients, until
    /// what is returned is dropped.
    ///
    /// # Errors
    ///
    /// [`ServeError`]; then others wait for us to end, as before.
    pub fn serve(self: &Arc<Self>) -> Result<Service, ServeError> {
        let Books::Here(here) = &self.books else { return Err(ServeError::Client) };
        if std::mem::replace(&mut here.clients.lock().serving, true) {
            return Err(ServeError::Serving);
        }
        let started = self.start();
        if started.is_err() {
            here.clients.lock().serving = false;
        }
        started
    }

    /// Says that this process uses archives that are not pinned: that it builds, or fetches. Until
    /// what is returned is dropped, no client's sweep removes any; if one runs, this waits for it.
    ///
    /// A client need not say so: that it has the store open is enough.
    pub fn busy(self: &Arc<Self>) -> Busy {
        if let Books::Here(here) = &self.books {
            here.clients.after_sweep().busy += 1;
        }
        Busy(self.clone())
    }

    fn start(self: &Arc<Self>) -> Result<Service, ServeError> {
        let socket = self.home.socket();
        // What had the name was of a process that is dead, since we have the lock.
        let (listener, name) = socket::listen(&socket)?;
        let (wake, asleep) = UnixStream::pair().doing("create a socket beside", &socket)?;
        let store = self.clone();
        let accepting = std::thread::Builder::new()
            .name("store".into())
            .spawn(move || accept(&store, &listener, &asleep))
            .doing("start a thread for", &socket)?;
        Ok(Service { store: self.clone(), name: Some(name), wake: Some(wake), accepting: Some(accepting) })
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let Books::Here(here) = &self.store.books else { return };
        // First, so that nobody comes any more.
        drop(self.name.take());
        drop(self.wake.take());
        let threads = self.accepting.take().and_then(|accepting| accepting.join().ok()).unwrap_or_default();
        let mut state = here.clients.lock();
        state.stopping = true;
        for connection in state.connections.values() {
            let _ = connection.stream.shutdown(Shutdown::Both);
        }
        drop(state);
        here.clients.changed.notify_all();
        let end = Instant::now() + STOP_TIME;
        while threads.iter().any(|thread| !thread.is_finished()) && Instant::now() < end {
            std::thread::sleep(PAUSE);
        }
        // One that is not finished works on a sweep or a check; it ends with that, or with the process.
        threads.into_iter().filter(JoinHandle::is_finished).for_each(|thread| _ = thread.join());
        let mut state = here.clients.lock();
        (state.serving, state.stopping) = (false, false);
    }
}

/// Accepts connections until `asleep` is closed at its other end; returns the threads that serve them.
fn accept(store: &Arc<Store>, listener: &UnixListener, asleep: &UnixStream) -> Vec<JoinHandle<()>> {
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    loop {
        let mut ready = [PollFd::new(listener, PollFlags::IN), PollFd::new(asleep, PollFlags::IN)];
        match poll(&mut ready, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => std::thread::sleep(PAUSE),
        }
        if !ready[1].revents().is_empty() {
            return threads;
        }
        match listener.accept() {
            Ok((stream, _)) => threads.extend(start_client(store, stream)),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => std::thread::sleep(PAUSE),
        }
        threads.retain(|thread| !thread.is_finished());
    }
}

/// Starts a thread for a connection. If there is none, or no room, the connection is closed.
fn start_client(store: &Arc<Store>, stream: UnixStream) -> Option<JoinHandle<()>> {
    let Books::Here(here) = &store.books else { return None };
    let Some(id) = here.clients.add(&stream).ok()? else {
        greet(&stream, Err(Unwelcome::Full { limit: CLIENTS as u32 }))?;
        return None;
    };
    let leaving = Leaving { store: store.clone(), id };
    let client = move || {
        if let Books::Here(here) = &leaving.store.books {
            // Whatever ended it, there is nobody to be told.
            let _ = serve(&leaving.store, here, id, &stream);
        }
    };
    std::thread::Builder::new().name("store client".into()).spawn(client).ok()
}

/// A connection that is taken off the list when its thread ends, however that happens.
struct Leaving {
    store: Arc<Store>,
    id: u64,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        if let Books::Here(here) = &self.store.books {
            here.clients.lock().connections.remove(&self.id);
        }
    }
}

/// `None` if the client is gone, or is cut off.
fn serve(store: &Store, here: &Here, id: u64, stream: &UnixStream) -> Option<()> {
    if !is_ours(stream) {
        return greet(stream, Err(Unwelcome::User));
    }
    stream.set_read_timeout(Some(HELLO_TIME)).ok()?;
    let mut from = BufReader::new(stream);
    let Hello { version } = wire::receive(&mut from, HELLO_BYTES).ok()?;
    if version != VERSION {
        return greet(stream, Err(Unwelcome::Version { owner: VERSION, ours: version }));
    }
    stream.set_read_timeout(None).ok()?;
    if !here.clients.welcome(id) {
        return None;
    }
    greet(stream, Ok(()))?;
    loop {
        let request = wire::receive(&mut from, FRAME_BYTES).ok()?;
        let answers = answer(store, here, id, request).unwrap_or_else(|Failure(answer)| vec![answer]);
        let last = answers.len() - 1;
        for (n, answer) in answers.into_iter().enumerate() {
            wire::send(stream, &wire::frame(&Part { more: n < last, answer })?).ok()?;
        }
    }
}

fn greet(stream: &UnixStream, welcome: wire::Welcome) -> Option<()> {
    wire::send(stream, &wire::frame(&Greeting(welcome))?).ok()
}

/// Whether the other end is a process of our user, or of root, who can do as he likes anyway.
fn is_ours(stream: &UnixStream) -> bool {
    rustix::net::sockopt::socket_peercred(stream)
        .is_ok_and(|peer| peer.uid == rustix::process::geteuid() || peer.uid.is_root())
}

/// What is answered instead.
struct Failure(Answer);

/// Does what is asked for; at least one answer.
fn answer(store: &Store, here: &Here, asker: u64, request: Request) -> Result<Vec<Answer>, Failure> {
    Ok(match request {
        Request::Action(id) => facts(store.action(&id)?.map(Fact::Action)),
        Request::Realisation(id) => facts(store.realisation(&id)?.map(Fact::Built)),
        Request::Knows(id) => vec![Answer::Whether(here.knows(&id)?)],
        Request::Latest => wire::lists(here.latest()?, |_| 16).into_iter().map(Answer::Places).collect(),
        Request::Built(places) => {
            facts(first_few(places.into_iter().map(|at| Ok(Fact::Built(here.built(at)?))))?)
        }
        Request::Makers(nar) => ids(store.makers(&nar)?.iter().map(|id| *id.as_bytes())),
        Request::Pins => facts(store.pins()?.into_iter().map(|(name, nars)| Fact::Pinned { name, nars })),
        Request::Find(text) => vec![Answer::Found(store.find_prefix(&text)?)],
        Request::Record(payloads) => {
            let facts = payloads.iter().map(|payload| fact(payload)).collect::<Result<Vec<_>, _>>()?;
            here.record_all(&facts)?;
            vec![Answer::Done]
        }
        Request::Unpin(name) => vec![Answer::Whether(store.unpin(&name)?)],
        Request::Keep(payloads) => {
            let evidence = payloads.iter().map(|payload| evidence(payload)).collect::<Result<Vec<_>, _>>()?;
            kept(store.keep(evidence)?)
        }
        Request::Follow(payloads) => {
            let said = payloads.iter().map(|payload| signed(payload)).collect::<Result<Vec<_>, _>>()?;
            vec![Answer::Whether(here.follow(said)?)]
        }
        Request::Last(attester) => facts(here.last(&attester)?.map(of_signed)),
        Request::Attesters => ids(store.attesters()?.iter().map(|key| *key.as_bytes())),
        Request::Statements(attester, from) => {
            facts(first_few(here.statements(attester, from).map(|signed| Ok(of_signed(signed?))))?)
        }
        Request::Claims(id) => facts(store.claims(&id)?.into_iter().map(of_signed)),
        Request::Claimed => ids(store.claimed()?.iter().map(|id| *id.as_bytes())),
        Request::Divided => ids(store.divided()?.iter().map(|id| *id.as_bytes())),
        Request::Bearing(attester) => facts(store.bearing(&attester)?.into_iter().map(Fact::Evidence)),
        Request::Sweep(options) => {
            let report = store.gc_for(here, Some(asker), &options)?;
            let areas = [report.logs, report.modules, report.temp, report.kept];
            let nars = wire::lists(report.nars, |_| 64).into_iter().map(Answer::Swept);
            nars.chain([Answer::Areas(report.nar_bytes, areas)]).collect()
        }
        Request::Verify { repair } => {
            let mut report = VerifyReport::default();
            here.verify(repair, &mut report)?;
            let checked = Answer::Checked(report.facts, report.index_faults);
            notices(report.journal).chain([checked]).chain(notices(report.repaired)).collect()
        }
        Request::Reindex => notices(store.reindex()?).collect(),
    })
}

fn facts(facts: impl IntoIterator<Item = Fact>) -> Vec<Answer> {
    let payloads = facts.into_iter().map(|fact| fact.to_bytes());
    wire::lists(payloads, Payload::len).into_iter().map(Answer::Facts).collect()
}

fn ids(ids: impl Iterator<Item = [u8; 32]>) -> Vec<Answer> {
    wire::lists(ids, |_| 34).into_iter().map(Answer::Ids).collect()
}

fn kept(kept: Vec<Kept>) -> Vec<Answer> {
    let size = |kept: &Kept| match kept {
        Kept::Equivocation(proof) => proof.statements().iter().map(|signed| signed.bytes().len()).sum(),
        Kept::New | Kept::Known | Kept::Refused(_) => 96,
    };
    wire::lists(kept, size).into_iter().map(Answer::Kept).collect()
}

fn notices(notices: Vec<Notice>) -> impl Iterator<Item = Answer> {
    // A path is at most that long.
    wire::lists(notices, |_| 4096).into_iter().map(Answer::Notices)
}

/// As many of the facts as fill a frame, up to the first that cannot be read, which is an error
/// only if it is the first of all: the client asks for the rest by itself.
fn first_few(found: impl Iterator<Item = Result<Fact, LookupError>>) -> Result<Vec<Fact>, LookupError> {
    let (mut facts, mut bytes) = (Vec::new(), 0);
    for fact in found {
        match fact {
            Ok(fact) => {
                bytes += fact.to_bytes().len();
                facts.push(fact);
            }
            Err(error) if facts.is_empty() => return Err(error),
            Err(_) => break,
        }
        if bytes >= FULL_BYTES || facts.len() == ITEMS {
            break;
        }
    }
    Ok(facts)
}

fn of_signed(signed: Signed) -> Fact {
    Fact::Evidence(Evidence::Statement(signed))
}

/// A fact from a client: what was signed is verified.
fn fact(payload: &[u8]) -> Result<Fact, Failure> {
    match Fact::from_bytes(payload).map_err(|e| refused(&e))? {
        Fact::Evidence(item) => Ok(Fact::Evidence(evidence(&item.to_bytes())?)),
        fact => Ok(fact),
    }
}

fn evidence(payload: &[u8]) -> Result<Evidence, Failure> {
    let item = UnverifiedEvidence::from_bytes(payload).map_err(|e| refused(&e))?;
    item.verify().map_err(|e| refused(&e))
}

fn signed(payload: &[u8]) -> Result<Signed, Failure> {
    match evidence(payload)? {
        Evidence::Statement(signed) => Ok(signed),
        Evidence::Revocation(_) | Evidence::Equivocation(_) => Err(refused(&NoStatement)),
    }
}

/// Something else where a statement was to be.
#[derive(Debug, thiserror::Error)]
#[error("not a statement")]
struct NoStatement;

fn refused(error: &dyn std::error::Error) -> Failure {
    Failure(Answer::Failed(Remote::new(Fault::Refused, error)))
}

impl Failure {
    fn new(fault: Fault, error: &dyn std::error::Error) -> Self {
        Self(Answer::Failed(Remote::new(fault, error)))
    }
}

fn of_disk(error: &DiskError) -> Fault {
    if error.is_full() { Fault::Full } else { Fault::Disk }
}

impl From<IndexError> for Failure {
    fn from(error: IndexError) -> Self {
        Self::new(Fault::Index, &error)
    }
}

impl From<RecordReadError> for Failure {
    fn from(error: RecordReadError) -> Self {
        LookupError::from(error).into()
    }
}

impl From<LookupError> for Failure {
    fn from(error: LookupError) -> Self {
        let fault = match &error {
            LookupError::InUse { processes } => return Self(Answer::InUse(*processes as u64)),
            LookupError::Index(_) => Fault::Index,
            LookupError::Journal(RecordReadError::Disk(e)) | LookupError::Disk(e) => of_disk(e),
            LookupError::Journal(_) => Fault::Damage,
            LookupError::Served(_) => Fault::Refused,
        };
        Self::new(fault, &error)
    }
}

impl From<RecordError> for Failure {
    fn from(error: RecordError) -> Self {
        let fault = match &error {
            RecordError::ActionMissing { .. } | RecordError::Refused(_) | RecordError::Pin(_) => {
                Fault::Refused
            }
            RecordError::Append(AppendError::Disk(e) | AppendError::Refused(e)) => of_disk(e),
            RecordError::Index(_) | RecordError::Unindexed(_) => Fault::Index,
            RecordError::Served(_) => Fault::Refused,
        };
        Self::new(fault, &error)
    }
}

impl From<KeepError> for Failure {
    fn from(error: KeepError) -> Self {
        match error {
            KeepError::Lookup(error) => error.into(),
            KeepError::Record(error) => error.into(),
        }
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        let fault = match &error {
            OpenError::Disk(e) => of_disk(e),
            OpenError::Index(_) => Fault::Index,
            OpenError::Busy { .. } | OpenError::Unwelcome(_) | OpenError::Served(_) => Fault::Refused,
        };
        Self::new(fault, &error)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    use super::*;

    /// Tries for a minute.
    #[track_caller]
    fn until(condition: impl Fn() -> bool) {
        let end = Instant::now() + Duration::from_secs(60);
        while !condition() {
            assert!(Instant::now() < end, "not within a minute");
            std::thread::sleep(PAUSE);
        }
    }

    /// Who comes while a sweep runs waits for its end, and is told that it waits.
    #[test]
    fn nobody_is_let_in_while_a_sweep_runs() {
        let home = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(home.path(), |_| false).unwrap());
        let service = store.serve().unwrap();
        let Books::Here(here) = &store.books else { panic!("a client") };
        let alone = here.clients.alone(None).unwrap();
        assert!(matches!(Store::open(home.path(), |_| false), Err(OpenError::Busy { .. })));
        let (waits, is_in) = (AtomicBool::new(false), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let client = Store::open(home.path(), |_| !waits.swap(true, Relaxed)).unwrap();
                is_in.store(true, Relaxed);
                assert_eq!(client.attesters().unwrap(), []);
            });
            until(|| waits.load(Relaxed));
            assert!(!is_in.load(Relaxed));
            drop(alone);
        });
        // Nor does one who waits keep serving from ending. Those who were let in have left as soon as
        // their threads have seen it.
        let nobody = || here.clients.lock().connections.is_empty();
        until(nobody);
        let alone = here.clients.alone(None);
        assert!(alone.is_ok());
        std::thread::scope(|scope| {
            let opening = scope.spawn(|| Store::open(home.path(), |_| false).map(drop));
            until(|| !nobody());
            drop(service);
            assert!(matches!(opening.join().unwrap(), Err(OpenError::Busy { .. })));
        });
        drop(alone);
    }
}
