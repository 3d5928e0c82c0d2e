//! Nodes, and what is on its way between them, in virtual time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use protocol::{
    evidence::{Equivocation, Evidence, UnverifiedEvidence},
    feed::{FeedError, Head},
    id::NarHash,
    key::AttesterKey,
    limits::PIECE_BYTES,
    message::{Answer, FeedHead, Gossip, ProofsDigest, Request, pieces},
    statement::Signed,
    wish::UnverifiedWish,
};
use trust::peer::{Effect, Fate, GaveUp, Input, Peer, Piece, Relay, Serve, Time, Why};

use super::{key, node};

/// How long a message is on its way, in milliseconds.
const DELAY: u64 = 20;

/// What a store does, without a disk.
#[derive(Default)]
pub(super) struct Memory {
    pub(super) feeds: BTreeMap<AttesterKey, Vec<Signed>>,
    pub(super) proofs: BTreeMap<AttesterKey, Vec<Evidence>>,
    /// Archives.
    pub(super) nars: BTreeSet<NarHash>,
}

impl Memory {
    pub(super) fn head(&self, attester: &AttesterKey) -> FeedHead {
        let last = self.feeds.get(attester).and_then(|feed| feed.last());
        let head = last.map_or(Head::empty(*attester), Head::behind);
        let proofs = ProofsDigest::of(self.proofs.get(attester).into_iter().flatten());
        FeedHead { attester: *attester, len: head.len(), last: head.last(), proofs }
    }

    pub(super) fn keep(&mut self, item: UnverifiedEvidence) -> Fate {
        let evidence = match item.verify() {
            Ok(evidence) => evidence,
            Err(_) => return Fate::Forged,
        };
        let signed = match evidence {
            Evidence::Statement(signed) => signed,
            proof => {
                let known = self.proofs.entry(proof.attester()).or_default();
                if known.contains(&proof) {
                    return Fate::Known;
                }
                known.push(proof);
                return Fate::New;
            }
        };
        let statement = signed.statement();
        let (attester, place) = (statement.attester, statement.seq);
        let feed = self.feeds.entry(attester).or_default();
        let head = feed.last().map_or(Head::empty(attester), Head::behind);
        let rival = match head.follow(&signed) {
            Ok(_) => {
                feed.push(signed);
                return Fate::New;
            }
            Err(FeedError::Gap { .. }) => return Fate::Missing { attester, place },
            Err(FeedError::Taken { place, .. }) => &feed[place as usize],
            Err(FeedError::Fork { place, .. }) => &feed[place as usize - 1],
            Err(_) => return Fate::Refused,
        };
        if rival.id() == signed.id() {
            return Fate::Known;
        }
        match Equivocation::new(rival.clone(), signed) {
            Ok(proof) => {
                self.proofs.entry(attester).or_default().push(Evidence::Equivocation(proof.clone()));
                Fate::Equivocation(proof)
            }
            Err(_) => Fate::Refused,
        }
    }
}

pub(super) struct Member {
    pub(super) peer: Peer,
    pub(super) memory: Memory,
    connected: BTreeSet<u8>,
    /// Gossip that was seen, as gossipsub remembers it.
    seen: BTreeSet<Vec<u8>>,
}

/// Nodes, and what is on its way between them.
pub(super) struct World {
    pub(super) now: u64,
    pub(super) members: BTreeMap<u8, Member>,
    /// When, to whom, what.
    coming: VecDeque<(u64, u8, Message)>,
    /// Gossip that each node holds until its peer has said what becomes of it.
    held: BTreeMap<(u8, u64), (u8, Told)>,
    next: u64,
    pub(super) gossip_is_lost: bool,
    pub(super) mute: BTreeSet<u8>,
    pub(super) disconnected: Vec<(u8, u8, Why)>,
    /// Requests that were answered.
    pub(super) requests: usize,
    /// Milliseconds that a node takes to send a piece, one after the other; 10 if it is not said.
    pub(super) slow: BTreeMap<u8, u64>,
    /// Nodes that send something else.
    pub(super) liars: BTreeSet<u8>,
    /// When the last of the pieces will be sent that a node was asked for.
    sending: BTreeMap<u8, u64>,
    cancelled: BTreeSet<(u8, u64)>,
    /// Pieces that were sent, by whom.
    pub(super) sent: BTreeMap<u8, usize>,
    pub(super) gave_up: Vec<(u8, NarHash, GaveUp)>,
    /// Who is found by a search, and connected to.
    pub(super) found: BTreeSet<u8>,
    pub(super) searches: usize,
}

enum Message {
    Piece { from: u8, task: u64, piece: Piece },
    Searched { nar: NarHash },
    Request { from: u8, question: u64, request: Request },
    Answer { question: u64, answer: Option<Answer> },
    Gossip { from: u8, told: Told },
}

/// What gossip carries.
#[derive(Clone)]
enum Told {
    Feeds(Gossip),
    Wish(UnverifiedWish),
}

impl Told {
    fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Feeds(gossip) => gossip.to_bytes(),
            Self::Wish(wish) => wish.to_bytes(),
        }
    }
}

impl World {
    /// Nodes 1 to `count`, each following all attesters of `follow`.
    pub(super) fn new(count: u8, follow: &[u8]) -> Self {
        let follow: BTreeSet<_> = follow.iter().map(|n| key(*n)).collect();
        let member = || Member {
            peer: Peer::new(follow.clone(), [], BTreeSet::new()),
            memory: Memory::default(),
            connected: BTreeSet::new(),
            seen: BTreeSet::new(),
        };
        Self {
            now: 0,
            members: (1..=count).map(|n| (n, member())).collect(),
            coming: VecDeque::new(),
            held: BTreeMap::new(),
            next: 0,
            gossip_is_lost: false,
            mute: BTreeSet::new(),
            disconnected: Vec::new(),
            requests: 0,
            slow: BTreeMap::new(),
            liars: BTreeSet::new(),
            sending: BTreeMap::new(),
            cancelled: BTreeSet::new(),
            sent: BTreeMap::new(),
            gave_up: Vec::new(),
            found: BTreeSet::new(),
            searches: 0,
        }
    }

    pub(super) fn everybody_connected(mut self) -> Self {
        let all: Vec<u8> = self.members.keys().copied().collect();
        for a in &all {
            for b in &all {
                if a < b {
                    self.connect(*a, *b);
                }
            }
        }
        self
    }

    pub(super) fn connect(&mut self, a: u8, b: u8) {
        for (a, b) in [(a, b), (b, a)] {
            self.members.get_mut(&a).unwrap().connected.insert(b);
            self.input(a, Input::Connected { node: node(b) });
        }
    }

    pub(super) fn disconnect(&mut self, a: u8, b: u8) {
        for (a, b) in [(a, b), (b, a)] {
            if self.members.get_mut(&a).unwrap().connected.remove(&b) {
                self.input(a, Input::Disconnected { node: node(b) });
            }
        }
    }

    /// Node `n` has these statements, without anybody having sent them.
    pub(super) fn has(&mut self, n: u8, feed: Vec<Signed>) {
        let attester = feed[0].statement().attester;
        let member = self.members.get_mut(&n).unwrap();
        member.memory.feeds.insert(attester, feed);
        let heads = vec![member.memory.head(&attester)];
        self.input(n, Input::Made { items: vec![], heads });
    }

    /// Node `n` says something, or has it from its owner.
    pub(super) fn made(&mut self, n: u8, item: UnverifiedEvidence) {
        let attester = item.attester();
        let member = self.members.get_mut(&n).unwrap();
        member.memory.keep(item.clone());
        let heads = vec![member.memory.head(&attester)];
        self.input(n, Input::Made { items: vec![item], heads });
    }

    pub(super) fn input(&mut self, n: u8, input: Input) {
        let effects = self.members.get_mut(&n).unwrap().peer.handle(input, Time(self.now));
        for effect in effects {
            self.effect(n, effect);
        }
    }

    fn send(&mut self, to: u8, message: Message) {
        self.send_at(self.now + DELAY, to, message);
    }

    fn send_at(&mut self, at: u64, to: u8, message: Message) {
        let place = self.coming.partition_point(|(other, ..)| *other <= at);
        self.coming.insert(place, (at, to, message));
    }

    /// Node `n` wants an archive of so many pieces.
    pub(super) fn want(&mut self, n: u8, nar: NarHash, count: u64) {
        let missing = (0..pieces(count * PIECE_BYTES)).collect();
        self.input(n, Input::Want { nar, size: count * PIECE_BYTES, missing });
    }

    fn effect(&mut self, n: u8, effect: Effect) {
        match effect {
            Effect::Ask { node, question, request } => {
                self.send(node.0[0], Message::Request { from: n, question, request });
            }
            Effect::Answer { ticket, answer } => self.answer(n, ticket, answer),
            Effect::Serve { ticket, serve } => {
                let memory = &self.members[&n].memory;
                let items = match serve {
                    Serve::Have { nars } => {
                        let nars = nars.into_iter().filter(|nar| memory.nars.contains(nar)).collect();
                        return self.answer(n, ticket, Answer::Have(nars));
                    }
                    Serve::Sought(_) => return self.answer(n, ticket, Answer::Absent),
                    Serve::Statements { attester, from } => {
                        let feed = memory.feeds[&attester].iter().skip(from as usize).take(100);
                        feed.map(|signed| Evidence::Statement(signed.clone()).into()).collect()
                    }
                    Serve::Proofs { attester } => {
                        let proofs = memory.proofs.get(&attester).into_iter().flatten();
                        proofs.map(|proof| proof.clone().into()).collect()
                    }
                };
                self.answer(n, ticket, Answer::Items(items));
            }
            Effect::Keep { task, items } => {
                let memory = &mut self.members.get_mut(&n).unwrap().memory;
                let about: BTreeSet<_> = items.iter().map(UnverifiedEvidence::attester).collect();
                let fates = items.into_iter().map(|item| memory.keep(item)).collect();
                let heads = about.iter().map(|attester| memory.head(attester)).collect();
                self.input(n, Input::Kept { task, fates, heads });
            }
            Effect::Publish { gossip } => self.spread(n, n, Told::Feeds(gossip)),
            Effect::Proclaim { wish } => self.spread(n, n, Told::Wish(wish.into())),
            // What is looked for is not here: wishes.rs has one peer for that.
            Effect::Sought { .. } => {}
            Effect::Relay { message, relay } => {
                let (from, told) = self.held.remove(&(n, message)).unwrap();
                if relay == Relay::Accept {
                    self.spread(n, from, told);
                }
            }
            Effect::Fetch { task, node, nar, .. } => {
                let from = node.0[0];
                let begun = self.sending.get(&from).copied().unwrap_or_default().max(self.now + DELAY);
                let end = begun + self.slow.get(&from).copied().unwrap_or(10);
                let piece = match () {
                    () if !self.members[&from].memory.nars.contains(&nar) => Piece::Absent,
                    () if self.liars.contains(&from) => Piece::Wrong,
                    () => Piece::Came { bytes: PIECE_BYTES },
                };
                *self.sent.entry(from).or_default() += 1;
                self.sending.insert(from, end);
                self.send_at(end + DELAY, n, Message::Piece { from, task, piece });
            }
            Effect::Cancel { task } => _ = self.cancelled.insert((n, task)),
            Effect::Admit { nar } => {
                self.members.get_mut(&n).unwrap().memory.nars.insert(nar);
                self.input(n, Input::Admitted { nar, result: Ok(()) });
            }
            Effect::Search { nar } => {
                self.searches += 1;
                for other in self.found.clone() {
                    self.connect(n, other);
                }
                self.send(n, Message::Searched { nar });
            }
            Effect::GiveUp { nar, why } => self.gave_up.push((n, nar, why)),
            Effect::Disconnect { node, why } => {
                self.disconnected.push((n, node.0[0], why));
                self.disconnect(n, node.0[0]);
            }
        }
    }

    /// Tickets are questions of one asker: both in a number.
    fn answer(&mut self, _n: u8, ticket: u64, answer: Answer) {
        self.requests += 1;
        let (to, question) = ((ticket >> 32) as u8, ticket & 0xffff_ffff);
        self.send(to, Message::Answer { question, answer: Some(answer) });
    }

    fn spread(&mut self, n: u8, from: u8, told: Told) {
        self.members.get_mut(&n).unwrap().seen.insert(told.to_bytes());
        if self.gossip_is_lost {
            return;
        }
        for to in self.members[&n].connected.clone() {
            if to != from {
                self.send(to, Message::Gossip { from: n, told: told.clone() });
            }
        }
    }

    fn deliver(&mut self, to: u8, message: Message) {
        match message {
            Message::Request { from, question, request } => {
                if self.mute.contains(&to) || !self.members[&to].connected.contains(&from) {
                    return;
                }
                let ticket = u64::from(from) << 32 | question;
                self.input(to, Input::Asked { node: node(from), ticket, request });
            }
            Message::Piece { from, task, piece } => {
                let there = self.members[&to].connected.contains(&from);
                if there && !self.cancelled.remove(&(to, task)) {
                    self.input(to, Input::Piece { task, piece });
                }
            }
            Message::Searched { nar } => self.input(to, Input::Searched { nar }),
            Message::Answer { question, answer } => self.input(to, Input::Answered { question, answer }),
            Message::Gossip { from, told } => {
                let member = self.members.get_mut(&to).unwrap();
                if !member.connected.contains(&from) || !member.seen.insert(told.to_bytes()) {
                    return;
                }
                self.next += 1;
                let message = self.next;
                self.held.insert((to, message), (from, told.clone()));
                let node = node(from);
                self.input(
                    to,
                    match told {
                        Told::Feeds(gossip) => Input::Heard { node, message, gossip: Some(gossip) },
                        Told::Wish(wish) => Input::Wished { node, message, wish: Some(wish) },
                    },
                );
            }
        }
    }

    /// Lets so many milliseconds go by.
    pub(super) fn run(&mut self, millis: u64) {
        let end = self.now + millis;
        loop {
            let message = self.coming.front().map(|(at, ..)| *at);
            let wake = self.members.values().filter_map(|member| member.peer.wake()).map(|at| at.0).min();
            let Some(at) = message.into_iter().chain(wake).min().filter(|at| *at <= end) else { break };
            self.now = self.now.max(at);
            if message == Some(at) {
                let (_, to, message) = self.coming.pop_front().unwrap();
                self.deliver(to, message);
            } else {
                let due = |member: &Member| member.peer.wake().is_some_and(|wake| wake.0 <= at);
                let due: Vec<u8> = self.members.iter().filter(|(_, m)| due(m)).map(|(n, _)| *n).collect();
                due.into_iter().for_each(|n| self.input(n, Input::Tick));
            }
        }
        self.now = end;
    }

    /// How many statements of attester `who` each node has, in order.
    pub(super) fn lens(&self, who: u8) -> Vec<usize> {
        self.members.values().map(|m| m.memory.feeds.get(&key(who)).map_or(0, Vec::len)).collect()
    }

    /// The nodes that hold a proof that attester `who` equivocated.
    pub(super) fn convinced(&self, who: u8) -> Vec<u8> {
        let proof = |member: &Member| {
            let proofs = member.memory.proofs.get(&key(who)).into_iter().flatten();
            proofs.into_iter().any(|proof| matches!(proof, Evidence::Equivocation(_)))
        };
        self.members.iter().filter(|(_, member)| proof(member)).map(|(n, _)| *n).collect()
    }
}
