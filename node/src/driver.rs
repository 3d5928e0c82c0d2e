//! The one loop between the world and [`trust::peer::Peer`]: whatever happens becomes one input,
//! and each effect one deed.
//!
//! ```text
//! swarm, streams, store, owner, clock ── Input ──▶ Peer::handle ── Effect ──▶ swarm, streams, store
//! ```
//!
//! * `kept.rs`: what the peer asks of the store.
//! * `blobs.rs`: archives on the way, in and out.
//! * `dials.rs`: whom to be connected to.
//! * `reach.rs`: by which addresses others reach this node, and where archives may be.
//! * `metrics.rs`: what is counted.
//!
//! Deeds that take time run as tasks and come back as events with the name of what they were for.
//! Both kinds are bounded: the peer asks for so much at once and no more, and what others ask for
//! gets one of [`SERVING`] or [`SENDING`] places, or is told that it is not its turn.
//!
//! Nothing is decided here, but whom to dial and when.

mod blobs;
mod dials;
mod kept;
mod metrics;
mod reach;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use futures::{AsyncWriteExt as _, StreamExt as _};
use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol, Swarm,
    core::ConnectedPoint,
    gossipsub::{self, MessageAcceptance, MessageId},
    swarm::{DialError, SwarmEvent},
};
use protocol::{
    id::NarHash,
    key::{AttesterKey, SigningKey},
    limits,
    message::{Answer, FeedHead, Gossip, RangeRequest, Request},
    statement::Body,
    wish::{UnverifiedWish, Wish},
};
use serde::{Deserialize, Serialize};
use store::{AdmitError, LookupError, Store};
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    task::spawn_blocking,
    time,
};
use trust::{
    limits::PATIENCE,
    peer::{Effect, Fate, GaveUp, Input, NodeId, Peer, Piece, Relay, Sought, Status, Time},
};

pub use self::blobs::Fetched;
use self::{
    blobs::{Fetches, Open, Upload},
    dials::Dials,
    metrics::Metrics,
    reach::Reach,
};
use crate::{
    judgement::{JudgementError, RosterFile},
    key::{KeyFileError, Keys},
    net::{
        self, Behaviour, BehaviourEvent, NetError,
        blob::Shelf,
        frame, node_id,
        peers::{Peers, PeersError, PeersFile},
        streams::Incoming,
    },
};

/// Events of tasks that wait for the loop; a task that finds it full waits.
const EVENTS: usize = 256;

/// Questions that are being answered at once: of all nodes, and of one.
const SERVING: usize = 128;
/// See [`SERVING`].
const SERVING_ONE: usize = 16;

/// Pieces that are being sent at once, each of which is in memory: to all nodes, and to one. Who has
/// a piece asks for the next before the place of the first is free.
const SENDING: usize = 64;
/// See [`SENDING`].
const SENDING_ONE: usize = 16;

/// Streams on which it is only said that it is not somebody's turn.
const REFUSING: usize = 64;

/// How long another node may take to say what it wants, and to take the answer.
const HEARING: Duration = Duration::from_secs(10);

/// How often it is looked whether the store, the roster or the list of peers have changed.
const LOOK: Duration = Duration::from_millis(200);

/// Who waits until everything that is to be had is here; and who waits for one action.
const SETTLERS: usize = 64;
const SEEKERS: usize = 16;

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
    /// What was counted, in the text format of OpenMetrics.
    Metrics(oneshot::Sender<String>),
    /// Say when all nodes that are wanted were dialled, and what those said that answered is here.
    Settle(oneshot::Sender<()>),
    /// Fetch an archive.
    Fetch {
        /// Which.
        nar: NarHash,
        /// Its bytes.
        size: u64,
        /// How far it is can be watched there, and it is fetched for as long as it is.
        reply: oneshot::Sender<watch::Receiver<Fetched>>,
    },
    /// Tell everybody what the owner wishes.
    Wish(Wish),
    /// What does everybody wish, the owner included?
    Wishes(oneshot::Sender<Vec<Wish>>),
    /// Ask others.
    Seek {
        /// For what.
        sought: Sought,
        /// The answer; `None` if no connected node has one.
        reply: oneshot::Sender<Option<Answer>>,
    },
    /// End.
    Stop,
}

/// How a node is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// The version of this program.
    pub version: String,
    /// The node's id on the network.
    pub node: String,
    /// Its addresses, each with its id at the end.
    pub addresses: Vec<Multiaddr>,
    /// Whether others can connect to it.
    pub reachable: Reachable,
    /// Seconds since it began.
    pub uptime: u64,
    /// Connected nodes, by id, with the address of each.
    pub peers: BTreeMap<String, Multiaddr>,
    /// Nodes that the owner wants to be connected to and that are not.
    pub absent: BTreeSet<String>,
    /// Nodes in the local network, by id, with an address of each.
    pub neighbours: BTreeMap<String, Multiaddr>,
    /// Feeds, and archives that are being fetched.
    pub feeds: Status,
}

/// Whether others can connect to a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "is", rename_all_fields = "camelCase")]
pub enum Reachable {
    /// Nobody has tried.
    Unknown,
    /// At these addresses.
    Yes {
        /// They were tried by others, or are said by the owner.
        at: BTreeSet<Multiaddr>,
    },
    /// Only by way of others.
    Relayed {
        /// These addresses.
        at: BTreeSet<Multiaddr>,
    },
    /// Others have tried, and could not.
    No {
        /// What they tried.
        tried: BTreeSet<Multiaddr>,
    },
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
    /// Whether it can be reached has changed.
    Reachable {
        /// Whether it can.
        reachable: Reachable,
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
    /// An archive is in the store.
    Fetched {
        /// Which.
        nar: NarHash,
    },
    /// An archive could not be had.
    NotFetched {
        /// Which.
        nar: NarHash,
        /// Why.
        why: GaveUp,
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
    store: Arc<Store>,
    peer: Peer,
    began: Instant,
    events: mpsc::Receiver<Event>,
    sender: mpsc::Sender<Event>,
    serving: Arc<Semaphore>,
    sending: Arc<Semaphore>,
    refusing: Arc<Semaphore>,
    upload: Upload,
    shelf: Arc<Shelf>,
    fetches: Fetches,
    /// Whoever waits for an answer of ours.
    tickets: HashMap<u64, oneshot::Sender<Answer>>,
    /// Gossip that waits for the peer's word.
    held: HashMap<u64, (MessageId, PeerId)>,
    settlers: Vec<oneshot::Sender<()>>,
    /// Whoever waits for an action that is looked for.
    seekers: BTreeMap<Sought, Vec<oneshot::Sender<Option<Answer>>>>,
    next: u64,
    connected: BTreeMap<PeerId, Link>,
    dials: Dials,
    reach: Reach,
    metrics: Metrics,
    roster: Watched<RosterFile>,
    peers: Watched<PeersFile>,
    own: Option<AttesterKey>,
    note: Box<dyn FnMut(Note) + Send>,
}

/// A connected node.
struct Link {
    address: Multiaddr,
    /// Its share of the places for questions, and of those for pieces.
    serving: Arc<Semaphore>,
    sending: Arc<Semaphore>,
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
    Opened { nar: NarHash, size: u64, open: Result<Option<Open>, String> },
    Piece { task: u64, nar: NarHash, piece: Piece },
    Admitted { nar: NarHash, result: Result<(), AdmitError> },
    Sent { bytes: u64 },
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
        let swarm = net::swarm(&key, config)?;
        let (sender, events) = mpsc::channel(EVENTS);
        let (roster, peers) = (RosterFile::new(&home), PeersFile::new(&home));
        let follow = kept::follow(&store, &roster, own)?;
        let (mut heads, mut broken) = (Vec::new(), BTreeSet::new());
        store.touched();
        for attester in store.attesters()? {
            let (head, equivocated) = kept::head(&store, &attester)?;
            heads.push(head);
            broken.extend(equivocated.then_some(attester));
        }
        let (roster_path, peers_path) = (roster.path().to_owned(), peers.path().to_owned());
        let mut more = Peers::default();
        for address in more_peers {
            more.add(address)?;
        }
        let mut driver = Self {
            swarm,
            peer: Peer::new(follow, heads, broken),
            store,
            began: Instant::now(),
            events,
            sender,
            serving: Arc::new(Semaphore::new(SERVING)),
            sending: Arc::new(Semaphore::new(SENDING)),
            refusing: Arc::new(Semaphore::new(REFUSING)),
            upload: Upload::new(config.upload, Instant::now()),
            shelf: Arc::default(),
            fetches: Fetches::default(),
            tickets: HashMap::new(),
            held: HashMap::new(),
            settlers: Vec::new(),
            seekers: BTreeMap::new(),
            next: 0,
            connected: BTreeMap::new(),
            dials: Dials::new(more),
            reach: Reach::default(),
            metrics: Metrics::new(),
            roster: Watched::new(roster, roster_path),
            peers: Watched::new(peers, peers_path),
            own,
            note: Box::new(note),
        };
        driver.read_peers()?;
        driver.provide_own(0)?;
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
                Some(event) = self.events.recv() => self.event(event),
                command = commands.recv() => match command {
                    Some(Command::Stop) | None => break,
                    Some(command) => self.command(command),
                },
                _ = look.tick() => self.look(),
                () = time::sleep_until(wake.into()) => self.input(Input::Tick),
            }
        }
        let fetches = self.fetches;
        let _ = spawn_blocking(move || fetches.sync()).await;
    }

    fn now(&self) -> Time {
        Time(u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    fn note(&mut self, note: Note) {
        (self.note)(note);
    }

    fn trouble(&mut self, what: &dyn std::fmt::Display) {
        self.note(Note::Trouble { what: what.to_string() });
    }

    fn name(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Status(reply) => _ = reply.send(self.status()),
            Command::Metrics(reply) => {
                let status = self.status();
                let _ = reply.send(self.metrics.text(&status));
            }
            Command::Settle(reply) => {
                self.settlers.retain(|settler| !settler.is_closed());
                // One too many is told at once, and sees for itself.
                if self.settlers.len() >= SETTLERS {
                    let _ = reply.send(());
                } else {
                    self.settlers.push(reply);
                }
            }
            Command::Fetch { nar, size, reply } => self.fetch(nar, size, reply),
            Command::Wish(wish) => self.input(Input::Wish { wish }),
            Command::Wishes(reply) => {
                let _ = reply.send(self.peer.wishes(self.now()).cloned().collect());
            }
            Command::Seek { sought, reply } => {
                let seekers = self.seekers.entry(sought).or_default();
                // One too many is told at once that it is not known.
                if seekers.len() < SEEKERS {
                    seekers.push(reply);
                    self.input(Input::Seek { sought });
                } else {
                    let _ = reply.send(None);
                }
            }
            // Taken before it comes here.
            Command::Stop => {}
        }
    }

    fn status(&self) -> NodeStatus {
        let id = self.id();
        let whole = |address: &Multiaddr| address.clone().with_p2p(id).unwrap_or_else(|other| other);
        let connected = self.connected.iter();
        let absent = self.dials.all().filter(|peer| !self.connected.contains_key(peer));
        NodeStatus {
            version: env!("CARGO_PKG_VERSION").into(),
            node: id.to_string(),
            addresses: self.swarm.listeners().map(whole).collect(),
            reachable: self.reach.reachable(),
            uptime: self.began.elapsed().as_secs(),
            peers: connected.map(|(peer, link)| (peer.to_string(), link.address.clone())).collect(),
            absent: absent.map(ToString::to_string).collect(),
            neighbours: self.reach.neighbours(),
            feeds: self.peer.status(),
        }
    }

    fn swarm_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        self.metrics.record(&event);
        match event {
            SwarmEvent::NewListenAddr { address, .. } => {
                let address = address.with_p2p(self.id()).unwrap_or_else(|other| other);
                self.note(Note::Listening { address });
            }
            SwarmEvent::ListenerError { error, .. } => self.trouble(&error),
            SwarmEvent::ConnectionEstablished { peer_id, endpoint, num_established, .. } => {
                self.dials.ended(&peer_id, true);
                let direct = !endpoint.is_relayed();
                let (ConnectedPoint::Dialer { address, .. }
                | ConnectedPoint::Listener { send_back_addr: address, .. }) = endpoint;
                if num_established.get() > 1 {
                    // The two have made a hole, and from now on need nobody between them.
                    if direct && let Some(link) = self.connected.get_mut(&peer_id) {
                        link.address = address;
                    }
                    return;
                }
                let link = Link {
                    address: address.clone(),
                    serving: Arc::new(Semaphore::new(SERVING_ONE)),
                    sending: Arc::new(Semaphore::new(SENDING_ONE)),
                };
                self.connected.insert(peer_id, link);
                self.note(Note::Connected { node: peer_id.to_string(), address });
                // With another kind of key it may listen, and nothing is asked of it.
                if let Some(node) = node_id::of_peer(&peer_id) {
                    self.input(Input::Connected { node });
                }
            }
            SwarmEvent::ConnectionClosed { peer_id, num_established: 0, .. } => {
                self.connected.remove(&peer_id);
                self.note(Note::Disconnected { node: peer_id.to_string() });
                if let Some(node) = node_id::of_peer(&peer_id) {
                    self.input(Input::Disconnected { node });
                }
            }
            SwarmEvent::OutgoingConnectionError { peer_id: Some(peer), error, .. } => {
                // That a dial goes on already says nothing about how it ends.
                if !matches!(error, DialError::DialPeerConditionFalse(_)) {
                    self.dials.ended(&peer, false);
                }
            }
            SwarmEvent::Behaviour(BehaviourEvent::Gossip(gossipsub::Event::Message {
                propagation_source,
                message_id,
                message,
            })) => self.gossip(propagation_source, message_id, &message),
            SwarmEvent::Behaviour(BehaviourEvent::Streams(Incoming { peer, protocol, stream })) => {
                if protocol == net::QUERY {
                    self.query(peer, stream);
                } else {
                    self.send(peer, stream);
                }
            }
            event => self.discovered(event),
        }
    }

    fn gossip(&mut self, source: PeerId, id: MessageId, heard: &gossipsub::Message) {
        let Some(node) = node_id::of_peer(&source) else {
            let gossip = &mut self.swarm.behaviour_mut().gossip;
            gossip.report_message_validation_result(&id, &source, MessageAcceptance::Ignore);
            return;
        };
        let message = self.name();
        self.held.insert(message, (id, source));
        self.input(if heard.topic == net::wishes().hash() {
            Input::Wished { node, message, wish: UnverifiedWish::from_bytes(&heard.data).ok() }
        } else {
            Input::Heard { node, message, gossip: Gossip::from_bytes(&heard.data).ok() }
        });
    }

    /// A node asks something: it is heard, unless too many are.
    fn query(&mut self, peer: PeerId, mut stream: Stream) {
        let Some(node) = node_id::of_peer(&peer) else { return };
        let Some(link) = self.connected.get(&peer) else { return };
        let one = link.serving.clone().try_acquire_owned().ok();
        let Some(places) = one.zip(self.serving.clone().try_acquire_owned().ok()) else { return };
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

    /// A node wants a piece of an archive: it gets one, unless too many do.
    fn send(&mut self, peer: PeerId, stream: Stream) {
        let Some(link) = self.connected.get(&peer) else { return };
        let one = link.sending.clone().try_acquire_owned().ok();
        let places = one.zip(self.sending.clone().try_acquire_owned().ok());
        let places = places.filter(|_| self.upload.take(Instant::now()));
        let refusal = match &places {
            Some(_) => None,
            None => match self.refusing.clone().try_acquire_owned() {
                Ok(place) => Some(place),
                Err(_) => return,
            },
        };
        let (store, shelf, events) = (self.store.clone(), self.shelf.clone(), self.sender.clone());
        tokio::spawn(async move {
            let bytes = blobs::serve(stream, store, shelf, refusal.is_some()).await;
            let sent = places.is_some();
            drop((places, refusal));
            if sent {
                let _ = events.send(Event::Sent { bytes }).await;
            }
        });
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Asked { node, request, reply } => {
                let ticket = self.name();
                self.tickets.insert(ticket, reply);
                self.metrics.is_asked();
                self.input(Input::Asked { node, ticket, request });
            }
            Event::Answered { question, answer } => self.input(Input::Answered { question, answer }),
            Event::Kept { task, kept } => {
                let (fates, heads) = kept.unwrap_or_else(|why| {
                    self.trouble(&why);
                    (Vec::new(), Vec::new())
                });
                for fate in &fates {
                    self.metrics.kept(fate);
                    if let Fate::Equivocation(proof) = fate {
                        self.note(Note::Equivocation { attester: proof.attester() });
                    }
                }
                self.input(Input::Kept { task, fates, heads });
            }
            Event::Opened { nar, size, open: Ok(Some(open)) } => {
                if let Some(missing) = self.fetches.opened(&nar, open) {
                    self.input(Input::Want { nar, size, missing });
                }
            }
            // Somebody else had it open, and has given it its name.
            Event::Opened { nar, open: Ok(None), .. } => self.fetches.end(&nar, Fetched::Done),
            Event::Opened { nar, open: Err(why), .. } => {
                self.trouble(&why);
                self.gave_up(nar, GaveUp::Disk);
            }
            Event::Piece { task, nar, piece } => {
                self.metrics.piece(piece);
                self.fetches.came(task, &nar, piece);
                self.input(Input::Piece { task, piece });
            }
            Event::Admitted { nar, result: Ok(()) } => {
                self.fetches.end(&nar, Fetched::Done);
                self.note(Note::Fetched { nar });
                self.reach.provide([nar]);
                self.input(Input::Admitted { nar, result: Ok(()) });
            }
            Event::Admitted { nar, result: Err(error) } => {
                self.trouble(&error);
                let why = if error.blames_sender() { GaveUp::Damaged } else { GaveUp::Disk };
                self.input(Input::Admitted { nar, result: Err(why) });
            }
            Event::Sent { bytes } => {
                self.upload.sent(bytes);
                self.metrics.sent(bytes);
            }
        }
    }

    fn input(&mut self, input: Input) {
        let now = self.now();
        for effect in self.peer.handle(input, now) {
            self.effect(effect);
        }
        self.settle();
    }

    fn effect(&mut self, effect: Effect) {
        match effect {
            Effect::Ask { node, question, request } => {
                self.metrics.asks();
                self.ask(node, question, request);
            }
            Effect::Answer { ticket, answer } => {
                if let Some(reply) = self.tickets.remove(&ticket) {
                    let _ = reply.send(answer);
                }
            }
            Effect::Serve { ticket, serve } => {
                let (reply, store, own) = (self.tickets.remove(&ticket), self.store.clone(), self.own);
                spawn_blocking(move || {
                    let answer = kept::look_up(&store, own.as_ref(), &serve).unwrap_or(Answer::Busy);
                    reply.map(|reply| reply.send(answer))
                });
            }
            Effect::Keep { task, items } => {
                let (store, events) = (self.store.clone(), self.sender.clone());
                spawn_blocking(move || {
                    let kept = kept::keep(&store, items).map_err(|e| format!("cannot keep what came: {e}"));
                    let _ = events.blocking_send(Event::Kept { task, kept });
                });
            }
            Effect::Publish { gossip } => {
                // Nobody listens, or not fast enough: they ask within a minute.
                let _ = self.swarm.behaviour_mut().gossip.publish(net::feeds(), gossip.to_bytes());
            }
            Effect::Proclaim { wish } => {
                // Nobody listens: whoever waits says it again.
                let _ = self.swarm.behaviour_mut().gossip.publish(net::wishes(), wish.to_bytes());
            }
            Effect::Sought { sought, found } => {
                for seeker in self.seekers.remove(&sought).unwrap_or_default() {
                    let _ = seeker.send(found.clone());
                }
            }
            Effect::Relay { message, relay } => {
                let Some((id, source)) = self.held.remove(&message) else { return };
                self.metrics.heard(relay);
                let acceptance = match relay {
                    Relay::Accept => MessageAcceptance::Accept,
                    Relay::Ignore => MessageAcceptance::Ignore,
                    Relay::Reject => MessageAcceptance::Reject,
                };
                let gossip = &mut self.swarm.behaviour_mut().gossip;
                gossip.report_message_validation_result(&id, &source, acceptance);
            }
            Effect::Fetch { task, node, nar, size, piece, zstd } => {
                let request = RangeRequest { nar, size, piece, zstd };
                self.fetch_piece(task, node, request);
            }
            Effect::Cancel { task } => self.fetches.cancel(task),
            Effect::Admit { nar } => {
                let Some(file) = self.fetches.file(&nar) else { return };
                let (store, events) = (self.store.clone(), self.sender.clone());
                spawn_blocking(move || {
                    let result = blobs::admit(&store, &file);
                    let _ = events.blocking_send(Event::Admitted { nar, result });
                });
            }
            Effect::Search { nar } => self.search(nar),
            Effect::GiveUp { nar, why } => self.gave_up(nar, why),
            Effect::Disconnect { node, why } => {
                let Some(peer) = node_id::peer(&node) else { return };
                self.metrics.banished(why);
                self.note(Note::Banished { node: peer.to_string(), why });
                let _ = self.swarm.disconnect_peer_id(peer);
            }
        }
    }

    fn ask(&mut self, node: NodeId, question: u64, request: Request) {
        let Some(peer) = node_id::peer(&node) else { return };
        let (stream, events) = (self.open(peer, net::QUERY), self.sender.clone());
        tokio::spawn(async move {
            let exchange = async {
                let mut stream = stream.await.map_err(io::Error::other)?;
                frame::write(&mut stream, &request.to_bytes()).await?;
                let bytes = frame::read(&mut stream, limits::ANSWER_BYTES).await?;
                Answer::from_bytes(&bytes).map_err(io::Error::other)
            };
            let answer = time::timeout(Duration::from_millis(PATIENCE), exchange).await;
            let answer = answer.ok().and_then(Result::ok);
            let _ = events.send(Event::Answered { question, answer }).await;
        });
    }

    /// A stream to a node; an error if it is gone or does not speak the protocol.
    fn open(&mut self, peer: PeerId, protocol: StreamProtocol) -> oneshot::Receiver<Stream> {
        self.swarm.behaviour_mut().streams.open(peer, protocol)
    }

    fn fetch(&mut self, nar: NarHash, size: u64, reply: oneshot::Sender<watch::Receiver<Fetched>>) {
        if let Some(watch) = self.fetches.watch(&nar) {
            let _ = reply.send(watch);
            return;
        }
        let _ = reply.send(self.fetches.begin(nar, size));
        if self.store.contains(&nar) {
            return self.fetches.end(&nar, Fetched::Done);
        }
        let (store, events) = (self.store.clone(), self.sender.clone());
        spawn_blocking(move || {
            let open = Open::new(&store, &nar, size).map_err(|e| e.to_string());
            let _ = events.blocking_send(Event::Opened { nar, size, open });
        });
    }

    fn fetch_piece(&mut self, task: u64, node: NodeId, request: RangeRequest) {
        let (Some(peer), Some(file)) = (node_id::peer(&node), self.fetches.file(&request.nar)) else {
            return;
        };
        let (stream, events) = (self.open(peer, net::BLOB), self.sender.clone());
        let fetching = tokio::spawn(async move {
            let piece = blobs::fetch(stream, request, file).await;
            let _ = events.send(Event::Piece { task, nar: request.nar, piece }).await;
        });
        self.fetches.coming(task, fetching.abort_handle());
    }

    fn gave_up(&mut self, nar: NarHash, why: GaveUp) {
        self.metrics.gave_up(why);
        self.fetches.end(&nar, Fetched::Failed { why });
        self.note(Note::NotFetched { nar, why });
    }

    /// Tells those who wait, if all that was to be had is here.
    fn settle(&mut self) {
        let tried = || self.dials.tried(|peer| self.connected.contains_key(peer));
        if !self.settlers.is_empty() && tried() && self.peer.settled(self.now()) {
            self.settlers.drain(..).for_each(|settler| _ = settler.send(()));
        }
    }

    /// Looks whether the owner, or another process, has changed anything.
    fn look(&mut self) {
        if self.roster.is_new() {
            self.follow();
        }
        if self.peers.is_new()
            && let Err(error) = self.read_peers()
        {
            self.trouble(&error);
        }
        for attester in self.store.touched() {
            let before = self.peer.head(&attester).map_or(0, |head| head.len);
            match kept::grown(&self.store, &self.peer, &attester) {
                Ok(Some((items, head))) => self.input(Input::Made { items, heads: vec![head] }),
                Ok(None) => {}
                Err(error) => self.trouble(&error),
            }
            // A key that ends names the one that goes on.
            let ended = || self.store.bearing(&attester).is_ok_and(|bearing| !bearing.is_empty());
            if self.peer.followed().contains(&attester) && ended() {
                self.follow();
            }
            if Some(attester) == self.own
                && let Err(error) = self.provide_own(before)
            {
                self.trouble(&error);
            }
        }
        for nar in self.fetches.unwatched() {
            self.input(Input::Unwant { nar });
            self.fetches.end(&nar, Fetched::Failed { why: GaveUp::Nowhere });
        }
        let connected = self.connected.keys().copied().collect();
        for options in self.dials.due(&connected) {
            // It is tried again, whatever comes of it.
            let _ = self.swarm.dial(options);
        }
        self.announce();
        self.settle();
    }

    /// Follows those who are to be followed now.
    fn follow(&mut self) {
        match kept::follow(&self.store, &self.roster.file, self.own) {
            Ok(attesters) if *self.peer.followed() == attesters => {}
            Ok(attesters) => self.input(Input::Follow { attesters }),
            // The old ones go on.
            Err(error) => self.trouble(&error),
        }
    }

    fn read_peers(&mut self) -> Result<(), PeersError> {
        let id = self.id();
        for gone in self.dials.set(&self.peers.file.read()?, &id) {
            let _ = self.swarm.disconnect_peer_id(gone);
        }
        Ok(())
    }

    /// Tells others which archives are here that this node built, of the last of its statements
    /// from one on.
    fn provide_own(&mut self, from: u64) -> Result<(), LookupError> {
        let Some(own) = self.own else { return Ok(()) };
        let len = self.peer.head(&own).map_or(0, |head| head.len);
        let from = from.max(len.saturating_sub(reach::OWN as u64));
        for signed in self.store.statements(&own, from) {
            if let Body::Built(built) = &signed?.statement().body {
                self.reach.provide(built.outputs.values().map(|output| output.nar));
            }
        }
        Ok(())
    }
}

/// Hands a request to the loop and waits for the answer.
async fn answer(events: mpsc::Sender<Event>, node: NodeId, request: Request) -> Option<Answer> {
    let (reply, answer) = oneshot::channel();
    events.send(Event::Asked { node, request, reply }).await.ok()?;
    answer.await.ok()
}
