//! The one loop between the world and [`trust::peer::Peer`]: whatever happens becomes one input,
//! and each effect one deed.
//!
//! ```text
//! swarm, streams, store, owner, clock ── Input ──▶ Peer::handle ── Effect ──▶ swarm, streams, store
//! ```
//!
//! Deeds that take time run as tasks and come back as events with the name of what they were for.
//! Both kinds are bounded: the peer asks for so much at once and no more, and what others ask for
//! gets one of [`SERVING`] places, or its stream is closed unheard.
//!
//! Nothing is decided here, but whom to dial and when: the owner's peers, until they are connected.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use futures::{AsyncWriteExt as _, StreamExt as _};
use libp2p::{
    Multiaddr, PeerId, Swarm,
    core::ConnectedPoint,
    gossipsub::{self, MessageAcceptance, MessageId},
    mdns,
    swarm::{SwarmEvent, dial_opts::DialOpts},
};
use libp2p_stream::IncomingStreams;
use protocol::{
    evidence::{Evidence, UnverifiedEvidence},
    feed::FeedError,
    key::{AttesterKey, SigningKey},
    limits,
    message::{Answer, FeedHead, Gossip, ProofsDigest, Request, fitting},
};
use serde::Serialize;
use store::{Kept, LookupError, Store};
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    time,
};
use trust::peer::{Effect, Fate, Input, NodeId, PATIENCE, Peer, Relay, Serve, Status, Time};

use crate::{
    judgement::{JudgementError, RosterFile},
    key::{KeyFileError, Keys},
    net::{
        self, Behaviour, BehaviourEvent, NetError, frame, node_id,
        peers::{self, PeersError, PeersFile},
    },
};

/// Events of tasks that wait for the loop; a task that finds it full waits.
const EVENTS: usize = 256;

/// Questions that are being answered at once: of all nodes, and of one.
const SERVING: usize = 128;
/// See [`SERVING`].
const SERVING_ONE: usize = 16;

/// How long another node may take to say what it wants, and to take the answer.
const HEARING: Duration = Duration::from_secs(10);

/// How often it is looked whether the store, the roster or the list of peers have changed.
const LOOK: Duration = Duration::from_millis(200);

/// Pause before a node is dialled again: at first, and at most.
const REDIAL: Duration = Duration::from_secs(1);
/// See [`REDIAL`].
const REDIAL_MOST: Duration = Duration::from_secs(60);

/// Statements that are told at once when the store has grown; the rest is had by asking.
const TOLD: usize = 1024;

/// Why a node does not run.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// No network.
    #[error(transparent)]
    Net(#[from] NetError),
    /// No node key.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// No roster.
    #[error(transparent)]
    Judgement(#[from] JudgementError),
    /// No list of peers.
    #[error(transparent)]
    Peers(#[from] PeersError),
    /// The store does not answer.
    #[error(transparent)]
    Lookup(#[from] LookupError),
}

/// What the owner asks of a running node.
#[derive(Debug)]
pub enum Command {
    /// How is it?
    Status(oneshot::Sender<NodeStatus>),
    /// End.
    Stop,
}

/// How a node is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// The version of this program.
    pub version: &'static str,
    /// The node's id on the network.
    pub node: String,
    /// Its addresses, each with its id at the end.
    pub addresses: Vec<Multiaddr>,
    /// Seconds since it began.
    pub uptime: u64,
    /// Connected nodes, by id, with the address of each.
    pub peers: BTreeMap<String, Multiaddr>,
    /// Nodes that the owner wants to be connected to and that are not.
    pub absent: BTreeSet<String>,
    /// Feeds.
    pub feeds: Status,
}

/// Something worth a line in the log.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase", tag = "event", rename_all_fields = "camelCase")]
pub enum Note {
    /// It listens there.
    Listening {
        /// The address, with the node's id at the end.
        address: Multiaddr,
    },
    /// A node is connected.
    Connected {
        /// Which.
        node: String,
        /// Where.
        address: Multiaddr,
    },
    /// It is not any more.
    Disconnected {
        /// Which.
        node: String,
    },
    /// A node broke the rules too often.
    Banished {
        /// Which.
        node: String,
        /// What it did last.
        why: trust::peer::Why,
    },
    /// A key was caught saying two things at one place.
    Equivocation {
        /// Whose.
        attester: AttesterKey,
    },
    /// Something failed, and the node goes on.
    Trouble {
        /// What.
        what: String,
    },
}

/// A node that is to run.
pub struct Driver {
    swarm: Swarm<Behaviour>,
    streams: libp2p_stream::Control,
    incoming: IncomingStreams,
    store: Arc<Store>,
    peer: Peer,
    began: Instant,
    events: mpsc::Receiver<Event>,
    sender: mpsc::Sender<Event>,
    serving: Arc<Semaphore>,
    /// Whoever waits for an answer of ours.
    tickets: HashMap<u64, oneshot::Sender<Answer>>,
    /// Gossip that waits for the peer's word.
    held: HashMap<u64, (MessageId, PeerId)>,
    next: u64,
    connected: BTreeMap<PeerId, Link>,
    dials: BTreeMap<PeerId, Dial>,
    roster: Watched<RosterFile>,
    peers: Watched<PeersFile>,
    own: Option<AttesterKey>,
    note: Box<dyn FnMut(Note) + Send>,
}

/// A connected node.
struct Link {
    address: Multiaddr,
    /// Its share of the places for questions.
    serving: Arc<Semaphore>,
}

/// A node to be connected to.
struct Dial {
    addresses: Vec<Multiaddr>,
    next: Instant,
    pause: Duration,
}

/// A file, and when it was changed last as far as is known.
struct Watched<F> {
    file: F,
    path: PathBuf,
    changed: Option<SystemTime>,
}

impl<F> Watched<F> {
    fn new(file: F, path: PathBuf) -> Self {
        let changed = modified(&path);
        Self { file, path, changed }
    }

    /// Whether it was changed since this was last asked.
    fn is_new(&mut self) -> bool {
        let now = modified(&self.path);
        std::mem::replace(&mut self.changed, now) != now
    }
}

fn modified(path: &std::path::Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

/// What tasks come back with.
enum Event {
    Asked { node: NodeId, request: Request, reply: oneshot::Sender<Answer> },
    Answered { question: u64, answer: Option<Answer> },
    Kept { task: u64, kept: Result<(Vec<Fate>, Vec<FeedHead>), String> },
}

impl Driver {
    /// A node of the store in `store`, which listens. `note` is told what is worth a line.
    ///
    /// # Errors
    ///
    /// [`DriverError`].
    pub fn new(
        store: Arc<Store>,
        config: &net::Config,
        more_peers: &[Multiaddr],
        own: Option<AttesterKey>,
        note: impl FnMut(Note) + Send + 'static,
    ) -> Result<Self, DriverError> {
        let home = store.home().to_owned();
        let key: SigningKey = Keys::new(&home).node()?;
        let mut swarm = net::swarm(&key, config)?;
        swarm.behaviour_mut();
        let mut streams = swarm.behaviour().stream.new_control();
        let incoming = streams.accept(net::FEED).expect("nobody else accepts it");
        let (sender, events) = mpsc::channel(EVENTS);
        let (roster, peers) = (RosterFile::new(&home), PeersFile::new(&home));
        let follow = follow(&roster, own)?;
        let (mut heads, mut broken) = (Vec::new(), BTreeSet::new());
        store.touched();
        for attester in store.attesters()? {
            let (head, equivocated) = head(&store, &attester)?;
            heads.push(head);
            broken.extend(equivocated.then_some(attester));
        }
        let (roster_path, peers_path) = (roster.path().to_owned(), peers.path().to_owned());
        let mut driver = Self {
            swarm,
            streams,
            incoming,
            peer: Peer::new(follow, heads, broken),
            store,
            began: Instant::now(),
            events,
            sender,
            serving: Arc::new(Semaphore::new(SERVING)),
            tickets: HashMap::new(),
            held: HashMap::new(),
            next: 0,
            connected: BTreeMap::new(),
            dials: BTreeMap::new(),
            roster: Watched::new(roster, roster_path),
            peers: Watched::new(peers, peers_path),
            own,
            note: Box::new(note),
        };
        for address in more_peers {
            let (peer, rest) = peers::split(address)?;
            driver.want(peer, rest);
        }
        driver.read_peers()?;
        Ok(driver)
    }

    /// The node's id on the network.
    pub fn id(&self) -> PeerId {
        *self.swarm.local_peer_id()
    }

    /// Runs until it is told to stop, or until nobody can tell it anything any more.
    pub async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut look = time::interval(LOOK);
        look.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        loop {
            let wake = self.peer.wake().map_or(self.began + Duration::from_secs(3600), |at| {
                self.began + Duration::from_millis(at.0)
            });
            tokio::select! {
                event = self.swarm.select_next_some() => self.swarm_event(event),
                Some((peer, stream)) = self.incoming.next() => self.stream(peer, stream),
                Some(event) = self.events.recv() => self.event(event),
                command = commands.recv() => match command {
                    Some(Command::Status(reply)) => drop(reply.send(self.status())),
                    Some(Command::Stop) | None => return,
                },
                _ = look.tick() => self.look(),
                () = time::sleep_until(wake.into()) => self.input(Input::Tick),
            }
        }
    }

    fn now(&self) -> Time {
        Time(u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    fn trouble(&mut self, what: &dyn std::fmt::Display) {
        (self.note)(Note::Trouble { what: what.to_string() });
    }

    fn name(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn status(&self) -> NodeStatus {
        let id = self.id();
        let whole = |address: &Multiaddr| address.clone().with_p2p(id).unwrap_or_else(|other| other);
        NodeStatus {
            version: env!("CARGO_PKG_VERSION"),
            node: id.to_string(),
            addresses: self.swarm.listeners().map(whole).collect(),
            uptime: self.began.elapsed().as_secs(),
            peers: self
                .connected
                .iter()
                .map(|(peer, link)| (peer.to_string(), link.address.clone()))
                .collect(),
            absent: self
                .dials
                .keys()
                .filter(|peer| !self.connected.contains_key(peer))
                .map(ToString::to_string)
                .collect(),
            feeds: self.peer.status(),
        }
    }

    fn swarm_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::NewListenAddr { address, .. } => {
                let address = address.with_p2p(self.id()).unwrap_or_else(|other| other);
                (self.note)(Note::Listening { address });
            }
            SwarmEvent::ListenerError { error, .. } => self.trouble(&error),
            SwarmEvent::ConnectionEstablished { peer_id, endpoint, num_established, .. } => {
                if num_established.get() > 1 {
                    return;
                }
                let (ConnectedPoint::Dialer { address, .. }
                | ConnectedPoint::Listener { send_back_addr: address, .. }) = endpoint;
                let serving = Arc::new(Semaphore::new(SERVING_ONE));
                self.connected.insert(peer_id, Link { address: address.clone(), serving });
                if let Some(dial) = self.dials.get_mut(&peer_id) {
                    dial.pause = REDIAL;
                }
                (self.note)(Note::Connected { node: peer_id.to_string(), address });
                // With another kind of key it may listen, and nothing is asked of it.
                if let Some(node) = node_id::of_peer(&peer_id) {
                    self.input(Input::Connected { node });
                }
            }
            SwarmEvent::ConnectionClosed { peer_id, num_established: 0, .. } => {
                self.connected.remove(&peer_id);
                (self.note)(Note::Disconnected { node: peer_id.to_string() });
                if let Some(node) = node_id::of_peer(&peer_id) {
                    self.input(Input::Disconnected { node });
                }
            }
            SwarmEvent::Behaviour(BehaviourEvent::Gossip(gossipsub::Event::Message {
                propagation_source,
                message_id,
                message,
            })) => self.gossip(propagation_source, message_id, &message.data),
            SwarmEvent::Behaviour(BehaviourEvent::Mdns(mdns::Event::Discovered(found))) => {
                for (peer, address) in found {
                    // Once: whoever is in the neighbourhood says so again.
                    if !self.connected.contains_key(&peer) && !self.dials.contains_key(&peer) {
                        let dial = DialOpts::peer_id(peer).addresses(vec![address]).build();
                        let _ = self.swarm.dial(dial);
                    }
                }
            }
            _ => {}
        }
    }

    fn gossip(&mut self, source: PeerId, id: MessageId, data: &[u8]) {
        let Some(node) = node_id::of_peer(&source) else {
            let gossip = &mut self.swarm.behaviour_mut().gossip;
            gossip.report_message_validation_result(&id, &source, MessageAcceptance::Ignore);
            return;
        };
        let message = self.name();
        self.held.insert(message, (id, source));
        self.input(Input::Heard { node, message, items: Gossip::from_bytes(data).ok() });
    }

    /// A node opened a stream: it is heard, unless too many are.
    fn stream(&mut self, peer: PeerId, mut stream: libp2p::Stream) {
        let Some(node) = node_id::of_peer(&peer) else { return };
        let Some(link) = self.connected.get(&peer) else { return };
        let places =
            link.serving.clone().try_acquire_owned().ok().zip(self.serving.clone().try_acquire_owned().ok());
        let Some(places) = places else { return };
        let events = self.sender.clone();
        tokio::spawn(async move {
            let _places = places;
            let heard = time::timeout(HEARING, frame::read(&mut stream, limits::REQUEST_BYTES)).await;
            let Ok(Ok(bytes)) = heard else { return };
            let Ok(request) = Request::from_bytes(&bytes) else { return };
            if let Some(answer) = answer(events, node, request).await {
                let said = async {
                    frame::write(&mut stream, &answer.to_bytes()).await?;
                    stream.close().await
                };
                let _ = time::timeout(HEARING, said).await;
            }
        });
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Asked { node, request, reply } => {
                let ticket = self.name();
                self.tickets.insert(ticket, reply);
                self.input(Input::Asked { node, ticket, request });
            }
            Event::Answered { question, answer } => self.input(Input::Answered { question, answer }),
            Event::Kept { task, kept } => {
                let (fates, heads) = kept.unwrap_or_else(|why| {
                    self.trouble(&why);
                    (Vec::new(), Vec::new())
                });
                for fate in &fates {
                    if let Fate::Equivocation(proof) = fate {
                        (self.note)(Note::Equivocation { attester: proof.attester() });
                    }
                }
                self.input(Input::Kept { task, fates, heads });
            }
        }
    }

    fn input(&mut self, input: Input) {
        let now = self.now();
        for effect in self.peer.handle(input, now) {
            self.effect(effect);
        }
    }

    fn effect(&mut self, effect: Effect) {
        match effect {
            Effect::Ask { node, question, request } => self.ask(node, question, request),
            Effect::Answer { ticket, answer } => {
                if let Some(reply) = self.tickets.remove(&ticket) {
                    let _ = reply.send(answer);
                }
            }
            Effect::Serve { ticket, serve } => {
                let (reply, store) = (self.tickets.remove(&ticket), self.store.clone());
                tokio::task::spawn_blocking(move || {
                    let answer = look_up(&store, &serve).unwrap_or(Answer::Busy);
                    reply.map(|reply| reply.send(answer))
                });
            }
            Effect::Keep { task, items } => {
                let (store, events) = (self.store.clone(), self.sender.clone());
                tokio::task::spawn_blocking(move || {
                    let kept = keep(&store, items).map_err(|e| format!("cannot keep what came: {e}"));
                    let _ = events.blocking_send(Event::Kept { task, kept });
                });
            }
            Effect::Publish { gossip } => {
                // Nobody listens, or not fast enough: they ask within a minute.
                let _ = self.swarm.behaviour_mut().gossip.publish(net::topic(), gossip.to_bytes());
            }
            Effect::Relay { message, relay } => {
                let Some((id, source)) = self.held.remove(&message) else { return };
                let acceptance = match relay {
                    Relay::Accept => MessageAcceptance::Accept,
                    Relay::Ignore => MessageAcceptance::Ignore,
                    Relay::Reject => MessageAcceptance::Reject,
                };
                let gossip = &mut self.swarm.behaviour_mut().gossip;
                gossip.report_message_validation_result(&id, &source, acceptance);
            }
            Effect::Disconnect { node, why } => {
                let Some(peer) = node_id::peer(&node) else { return };
                (self.note)(Note::Banished { node: peer.to_string(), why });
                let _ = self.swarm.disconnect_peer_id(peer);
            }
        }
    }

    fn ask(&mut self, node: NodeId, question: u64, request: Request) {
        let (mut streams, events) = (self.streams.clone(), self.sender.clone());
        let Some(peer) = node_id::peer(&node) else { return };
        tokio::spawn(async move {
            let exchange = async {
                let mut stream = streams.open_stream(peer, net::FEED).await.map_err(io::Error::other)?;
                frame::write(&mut stream, &request.to_bytes()).await?;
                let bytes = frame::read(&mut stream, limits::ANSWER_BYTES).await?;
                Answer::from_bytes(&bytes).map_err(io::Error::other)
            };
            let answer = time::timeout(Duration::from_millis(PATIENCE), exchange).await;
            let answer = answer.ok().and_then(Result::ok);
            let _ = events.send(Event::Answered { question, answer }).await;
        });
    }

    /// Looks whether the owner, or another process, has changed anything.
    fn look(&mut self) {
        if self.roster.is_new() {
            match follow(&self.roster.file, self.own) {
                Ok(attesters) => self.input(Input::Follow { attesters }),
                // The old one goes on.
                Err(error) => self.trouble(&error),
            }
        }
        if self.peers.is_new()
            && let Err(error) = self.read_peers()
        {
            self.trouble(&error);
        }
        for attester in self.store.touched() {
            match grown(&self.store, &self.peer, &attester) {
                Ok(Some((items, head))) => self.input(Input::Made { items, heads: vec![head] }),
                Ok(None) => {}
                Err(error) => self.trouble(&error),
            }
        }
        self.dial();
    }

    fn read_peers(&mut self) -> Result<(), PeersError> {
        let listed = self.peers.file.read()?;
        for (peer, addresses) in listed.peers {
            let Ok(peer) = peer.parse() else { continue };
            addresses.into_iter().for_each(|address| self.want(peer, address));
        }
        Ok(())
    }

    fn want(&mut self, peer: PeerId, address: Multiaddr) {
        if peer == self.id() {
            return;
        }
        let new = || Dial { addresses: Vec::new(), next: Instant::now(), pause: REDIAL };
        let dial = self.dials.entry(peer).or_insert_with(new);
        if !dial.addresses.contains(&address) {
            dial.addresses.push(address);
            dial.next = Instant::now();
        }
    }

    /// Dials those who are wanted and not connected, and whose turn it is.
    fn dial(&mut self) {
        let now = Instant::now();
        for (peer, dial) in &mut self.dials {
            if self.connected.contains_key(peer) || dial.next > now {
                continue;
            }
            dial.next = now + dial.pause;
            dial.pause = (dial.pause * 2).min(REDIAL_MOST);
            let options = DialOpts::peer_id(*peer).addresses(dial.addresses.clone()).build();
            // It is tried again, whatever comes of it.
            let _ = self.swarm.dial(options);
        }
    }
}

/// Hands a request to the loop and waits for the answer.
async fn answer(events: mpsc::Sender<Event>, node: NodeId, request: Request) -> Option<Answer> {
    let (reply, answer) = oneshot::channel();
    events.send(Event::Asked { node, request, reply }).await.ok()?;
    answer.await.ok()
}

/// Whose feeds are wanted whole: of everybody in the roster, of those whom they name as their
/// successors later, and one's own.
fn follow(roster: &RosterFile, own: Option<AttesterKey>) -> Result<BTreeSet<AttesterKey>, JudgementError> {
    let roster = roster.read()?;
    Ok(roster.iter().map(|(_, attester)| attester.key).chain(own).collect())
}

/// Where a feed ends, and whether its key equivocated.
fn head(store: &Store, attester: &AttesterKey) -> Result<(FeedHead, bool), LookupError> {
    let (head, bearing) = (store.head(attester)?, store.bearing(attester)?);
    let equivocated = bearing.iter().any(|proof| matches!(proof, Evidence::Equivocation(_)));
    let proofs = ProofsDigest::of(&bearing);
    Ok((FeedHead { attester: *attester, len: head.len(), last: head.last(), proofs }, equivocated))
}

/// What the store has of an attester that the peer was not told of.
fn grown(
    store: &Store,
    peer: &Peer,
    attester: &AttesterKey,
) -> Result<Option<(Vec<UnverifiedEvidence>, FeedHead)>, LookupError> {
    let (now, _) = head(store, attester)?;
    let before = peer.head(attester);
    if before == Some(&now) {
        return Ok(None);
    }
    let from = before.map_or(0, |head| head.len);
    let mut items = Vec::new();
    for signed in store.statements(attester, from).take(TOLD) {
        items.push(Evidence::Statement(signed?).into());
    }
    if before.map(|head| head.proofs).unwrap_or_default() != now.proofs {
        items.extend(proofs(store, attester)?);
    }
    Ok(Some((items, now)))
}

fn proofs(store: &Store, attester: &AttesterKey) -> Result<Vec<UnverifiedEvidence>, LookupError> {
    let bearing = store.bearing(attester)?.into_iter();
    Ok(bearing.filter(|e| !matches!(e, Evidence::Statement(_))).map(UnverifiedEvidence::from).collect())
}

fn look_up(store: &Store, serve: &Serve) -> Result<Answer, LookupError> {
    let items = match serve {
        Serve::Statements { attester, from } => {
            let mut items = Vec::new();
            for signed in store.statements(attester, *from).take(limits::ITEMS) {
                items.push(Evidence::Statement(signed?).into());
            }
            items
        }
        Serve::Proofs { attester } => proofs(store, attester)?,
    };
    let n = fitting(&items, limits::ANSWER_BYTES);
    Ok(Answer::Items(items.into_iter().take(n).collect()))
}

/// Verifies and keeps what came from elsewhere.
fn keep(
    store: &Store,
    items: Vec<UnverifiedEvidence>,
) -> Result<(Vec<Fate>, Vec<FeedHead>), Box<dyn std::error::Error + Send + Sync>> {
    let about: BTreeSet<AttesterKey> = items.iter().map(UnverifiedEvidence::attester).collect();
    let verified: Vec<Option<Evidence>> = items.into_iter().map(|item| item.verify().ok()).collect();
    let mut kept = store.keep(verified.iter().flatten().cloned())?.into_iter();
    let fate = |evidence: &Option<Evidence>| match evidence {
        None => Fate::Forged,
        Some(evidence) => match kept.next() {
            Some(Kept::New) => Fate::New,
            Some(Kept::Known) => Fate::Known,
            Some(Kept::Equivocation(proof)) => Fate::Equivocation(proof),
            Some(Kept::Refused(FeedError::Gap { place, .. })) => {
                Fate::Missing { attester: evidence.attester(), place }
            }
            Some(Kept::Refused(_)) => Fate::Refused,
            None => Fate::Failed,
        },
    };
    let fates = verified.iter().map(fate).collect();
    let heads =
        about.iter().map(|attester| Ok(head(store, attester)?.0)).collect::<Result<_, LookupError>>()?;
    Ok((fates, heads))
}
