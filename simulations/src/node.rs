//! A simulated node: the very peer of a real one, with a disk, a clock and a judge around it.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use protocol::{
    id::{ActionId, NarHash},
    key::AttesterKey,
    message::Gossip,
    wish::UnverifiedWish,
};
use trust::peer::{NodeId, Peer, Time};

use crate::{
    disk::Disk,
    judge::{Judge, Rules},
    notary::Good,
    scenario::HostileKind,
};

/// How long gossip is remembered, so that it is not looked at twice: as gossipsub does, twice as
/// long as it is on its way at most.
const REMEMBERED: u64 = 120_000;

/// The id of gossip: 20 bytes of its hash.
pub(crate) type RumourId = [u8; 20];

/// Gossip on its way.
#[derive(Debug)]
pub(crate) struct Rumour {
    pub(crate) id: RumourId,
    pub(crate) told: Told,
}

/// What gossip carries; `None` if it cannot be read.
#[derive(Debug, Clone)]
pub(crate) enum Told {
    Feeds(Option<Gossip>),
    Wish(Option<UnverifiedWish>),
}

impl Told {
    /// How many bytes it has; nonsense has none that count.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Feeds(gossip) => gossip.as_ref().map_or(0, |gossip| gossip.to_bytes().len()),
            Self::Wish(wish) => wish.as_ref().map_or(0, |wish| wish.to_bytes().len()),
        }
    }
}

impl Rumour {
    pub(crate) fn new(gossip: Gossip) -> Arc<Self> {
        Self::with_id_of(&gossip.to_bytes(), Told::Feeds(Some(gossip)))
    }

    pub(crate) fn of_wish(wish: UnverifiedWish) -> Arc<Self> {
        Self::with_id_of(&wish.to_bytes(), Told::Wish(Some(wish)))
    }

    fn with_id_of(bytes: &[u8], told: Told) -> Arc<Self> {
        let mut id = [0; 20];
        id.copy_from_slice(&NarHash::of(bytes).as_bytes()[..20]);
        Arc::new(Self { id, told })
    }
}

/// Who asked something, and by which name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ticket {
    pub(crate) from: usize,
    pub(crate) connection: u64,
    pub(crate) question: u64,
}

/// A simulated node.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) peer: Peer,
    pub(crate) disk: Disk,
    pub(crate) judge: Judge,
    /// What it does that it should not.
    pub(crate) hostile: Option<HostileKind>,
    /// Whether it, and whoever builds on it, does what it should.
    pub(crate) honest: bool,
    pub(crate) up: bool,
    /// Whether it has left, for good.
    pub(crate) gone: bool,
    /// How often it was started.
    pub(crate) life: u32,
    pub(crate) born: u64,
    /// How many thousandths its clock goes too fast.
    drift: i64,
    /// When it is to be woken.
    pub(crate) wake: Option<u64>,
    /// Whom it wants to be connected to, and to whom it is about to connect.
    pub(crate) wants: BTreeSet<usize>,
    pub(crate) dialling: BTreeSet<usize>,
    /// To whom it is connected, and by which connection.
    pub(crate) links: BTreeMap<usize, u64>,
    seen: BTreeSet<RumourId>,
    seen_at: VecDeque<(u64, RumourId)>,
    /// Gossip that waits for the peer's word.
    pub(crate) held: BTreeMap<u64, (usize, Arc<Rumour>)>,
    pub(crate) tickets: BTreeMap<u64, Ticket>,
    /// Names what it is asked, and what it hears.
    pub(crate) next: u64,
    /// Pieces that it waits for.
    pub(crate) fetching: BTreeSet<u64>,
    /// When its disk, and its line, have done what they were told.
    pub(crate) disk_busy: u64,
    pub(crate) line_busy: u64,
    pub(crate) slow: bool,
    /// When it published last, by its own clock.
    pub(crate) published: Option<u64>,
    /// What it asked before, if it never asks again.
    pub(crate) asked: BTreeSet<(usize, Vec<u8>)>,
}

impl Node {
    pub(crate) fn new(
        rules: &Arc<Rules>,
        follow: &BTreeSet<AttesterKey>,
        hostile: Option<HostileKind>,
        honest: bool,
        drift: i64,
    ) -> Self {
        Self {
            peer: Peer::new(follow.clone(), [], BTreeSet::new()),
            disk: Disk::default(),
            judge: Judge::new(rules),
            hostile,
            honest,
            up: true,
            gone: false,
            life: 0,
            born: 0,
            drift,
            wake: None,
            wants: BTreeSet::new(),
            dialling: BTreeSet::new(),
            links: BTreeMap::new(),
            seen: BTreeSet::new(),
            seen_at: VecDeque::new(),
            held: BTreeMap::new(),
            tickets: BTreeMap::new(),
            next: 0,
            fetching: BTreeSet::new(),
            disk_busy: 0,
            line_busy: 0,
            slow: false,
            published: None,
            asked: BTreeSet::new(),
        }
    }

    /// The peer's own time: from its start, by its own clock.
    pub(crate) fn local(&self, now: u64) -> Time {
        Time((now.saturating_sub(self.born)).saturating_mul(self.rate()) / 1000)
    }

    /// The first moment at which its clock shows `time`.
    pub(crate) fn global(&self, time: Time) -> u64 {
        self.born.saturating_add(time.0.saturating_mul(1000).div_ceil(self.rate()))
    }

    fn rate(&self) -> u64 {
        1000u64.saturating_add_signed(self.drift)
    }

    /// Whether gossip was not seen yet; now it was.
    pub(crate) fn is_news(&mut self, rumour: &Rumour, now: u64) -> bool {
        while let Some((_, old)) = self.seen_at.front().filter(|(at, _)| at + REMEMBERED < now) {
            self.seen.remove(old);
            self.seen_at.pop_front();
        }
        let news = self.seen.insert(rumour.id);
        if news {
            self.seen_at.push_back((now, rumour.id));
        }
        news
    }

    /// It is killed, with all that is not on its disk.
    pub(crate) fn stop(&mut self, empty: bool) {
        self.up = false;
        self.wake = None;
        self.links.clear();
        self.dialling.clear();
        self.seen.clear();
        self.seen_at.clear();
        self.held.clear();
        self.tickets.clear();
        self.fetching.clear();
        self.asked.clear();
        (self.disk_busy, self.line_busy, self.published) = (0, 0, None);
        if empty {
            self.disk = Disk::default();
        }
    }

    /// It starts with what its disk has: the actions about which there may be a verdict.
    pub(crate) fn start(&mut self, now: u64) -> BTreeSet<ActionId> {
        self.disk.scrub();
        (self.up, self.born, self.life) = (true, now, self.life + 1);
        let attesters = self.disk.attesters();
        let broken = attesters.iter().filter(|attester| self.disk.equivocated(attester)).copied().collect();
        let heads: Vec<_> = attesters.iter().map(|attester| self.disk.head(attester)).collect();
        let mut known = Vec::new();
        for attester in &attesters {
            known.extend(self.disk.said(attester).iter().cloned().map(Good::Statement));
            known.extend(self.disk.proofs(attester).iter().cloned().map(Good::Proof));
        }
        self.judge.forget();
        let about = self.learn(&known);
        self.peer = Peer::new(self.judge.followed(), heads, broken);
        about
    }

    /// Makes of what is new what its judge makes of it.
    pub(crate) fn learn(&mut self, news: &[Good]) -> BTreeSet<ActionId> {
        self.judge.learn(news, &self.disk)
    }
}

/// A node's name on the network.
pub(crate) fn id(node: usize) -> NodeId {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&(node as u64).to_be_bytes());
    NodeId(bytes)
}

/// The node of that name.
pub(crate) fn place(id: &NodeId) -> usize {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&id.0[..8]);
    u64::from_be_bytes(bytes) as usize
}
