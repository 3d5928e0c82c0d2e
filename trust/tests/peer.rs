//! Peers among each other, in virtual time: what is said reaches everybody, whatever is lost, and
//! whoever lies pays for it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use protocol::{
    evidence::{Equivocation, Evidence, Revocation, UnverifiedEvidence},
    feed::{FeedError, Head},
    id::{ActionId, NarHash},
    key::{AttesterKey, SigningKey},
    message::{Answer, FeedHead, Gossip, ProofsDigest, Request},
    name::Name,
    output::{Output, Outputs},
    statement::{Attestation, Body, Platform, Signed, Statement, Unverified},
};
use trust::peer::{Effect, Fate, Input, NodeId, Peer, Relay, Serve, Time, Why};

/// How long a message is on its way, in milliseconds.
const DELAY: u64 = 20;

fn signing_key(n: u8) -> SigningKey {
    SigningKey::from_bytes(&[n; 32])
}

fn key(n: u8) -> AttesterKey {
    AttesterKey::of(&signing_key(n))
}

fn node(n: u8) -> NodeId {
    NodeId([n; 32])
}

/// The statement behind `head` in the feed of attester `n`: that something gave the outputs `gave`.
fn say(head: &Head, n: u8, gave: u8) -> Signed {
    let output = Output { nar: NarHash::from_bytes([gave; 32]), size: 96 };
    let platform = |text: &str| Name::new(text).unwrap();
    let body = Body::Built(Attestation {
        action: ActionId::from_bytes([1; 32]),
        outputs: Outputs::from([(Name::out(), output)]),
        witness: None,
        platform: Platform { engine: platform("e"), arch: platform("a"), os: platform("o") },
    });
    let (seq, prev) = (head.len(), head.last());
    Statement { attester: key(n), seq, prev, time: 0, body }.sign(&signing_key(n)).unwrap()
}

/// A feed of `len` statements; feeds of another `taste` are forks from the statement `from` on.
fn feed(n: u8, len: u64, fork: Option<(u64, u8)>) -> Vec<Signed> {
    let mut head = Head::empty(key(n));
    let mut feed = Vec::new();
    for place in 0..len {
        let taste = fork.filter(|(from, _)| place >= *from).map_or(0, |(_, taste)| taste);
        let signed = say(&head, n, taste);
        head = head.follow(&signed).unwrap();
        feed.push(signed);
    }
    feed
}

/// What a store does, without a disk.
#[derive(Default)]
struct Memory {
    feeds: BTreeMap<AttesterKey, Vec<Signed>>,
    proofs: BTreeMap<AttesterKey, Vec<Evidence>>,
}

impl Memory {
    fn head(&self, attester: &AttesterKey) -> FeedHead {
        let last = self.feeds.get(attester).and_then(|feed| feed.last());
        let head = last.map_or(Head::empty(*attester), Head::behind);
        let proofs = ProofsDigest::of(self.proofs.get(attester).into_iter().flatten());
        FeedHead { attester: *attester, len: head.len(), last: head.last(), proofs }
    }

    fn keep(&mut self, item: UnverifiedEvidence) -> Fate {
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

struct Member {
    peer: Peer,
    memory: Memory,
    connected: BTreeSet<u8>,
    /// Gossip that was seen, as gossipsub remembers it.
    seen: BTreeSet<Vec<u8>>,
}

/// Nodes, and what is on its way between them.
struct World {
    now: u64,
    members: BTreeMap<u8, Member>,
    /// When, to whom, what.
    coming: VecDeque<(u64, u8, Message)>,
    /// Gossip that each node holds until its peer has said what becomes of it.
    held: BTreeMap<(u8, u64), (u8, Gossip)>,
    next: u64,
    gossip_is_lost: bool,
    mute: BTreeSet<u8>,
    disconnected: Vec<(u8, u8, Why)>,
    /// Requests that were answered.
    requests: usize,
}

enum Message {
    Request { from: u8, question: u64, request: Request },
    Answer { question: u64, answer: Option<Answer> },
    Gossip { from: u8, gossip: Gossip },
}

impl World {
    /// Nodes 1 to `count`, each following all attesters of `follow`.
    fn new(count: u8, follow: &[u8]) -> Self {
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
        }
    }

    fn everybody_connected(mut self) -> Self {
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

    fn connect(&mut self, a: u8, b: u8) {
        for (a, b) in [(a, b), (b, a)] {
            self.members.get_mut(&a).unwrap().connected.insert(b);
            self.input(a, Input::Connected { node: node(b) });
        }
    }

    fn disconnect(&mut self, a: u8, b: u8) {
        for (a, b) in [(a, b), (b, a)] {
            if self.members.get_mut(&a).unwrap().connected.remove(&b) {
                self.input(a, Input::Disconnected { node: node(b) });
            }
        }
    }

    /// Node `n` has these statements, without anybody having sent them.
    fn has(&mut self, n: u8, feed: Vec<Signed>) {
        let attester = feed[0].statement().attester;
        let member = self.members.get_mut(&n).unwrap();
        member.memory.feeds.insert(attester, feed);
        let heads = vec![member.memory.head(&attester)];
        self.input(n, Input::Made { items: vec![], heads });
    }

    /// Node `n` says something, or has it from its owner.
    fn made(&mut self, n: u8, item: UnverifiedEvidence) {
        let attester = item.attester();
        let member = self.members.get_mut(&n).unwrap();
        member.memory.keep(item.clone());
        let heads = vec![member.memory.head(&attester)];
        self.input(n, Input::Made { items: vec![item], heads });
    }

    fn input(&mut self, n: u8, input: Input) {
        let effects = self.members.get_mut(&n).unwrap().peer.handle(input, Time(self.now));
        for effect in effects {
            self.effect(n, effect);
        }
    }

    fn send(&mut self, to: u8, message: Message) {
        self.coming.push_back((self.now + DELAY, to, message));
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
            Effect::Publish { gossip } => self.spread(n, n, gossip),
            Effect::Relay { message, relay } => {
                let (from, gossip) = self.held.remove(&(n, message)).unwrap();
                if relay == Relay::Accept {
                    self.spread(n, from, gossip);
                }
            }
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

    fn spread(&mut self, n: u8, from: u8, gossip: Gossip) {
        self.members.get_mut(&n).unwrap().seen.insert(gossip.to_bytes());
        if self.gossip_is_lost {
            return;
        }
        for to in self.members[&n].connected.clone() {
            if to != from {
                self.send(to, Message::Gossip { from: n, gossip: gossip.clone() });
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
            Message::Answer { question, answer } => self.input(to, Input::Answered { question, answer }),
            Message::Gossip { from, gossip } => {
                let member = self.members.get_mut(&to).unwrap();
                if !member.connected.contains(&from) || !member.seen.insert(gossip.to_bytes()) {
                    return;
                }
                self.next += 1;
                let message = self.next;
                self.held.insert((to, message), (from, gossip.clone()));
                self.input(to, Input::Heard { node: node(from), message, items: Some(gossip) });
            }
        }
    }

    /// Lets so many milliseconds go by.
    fn run(&mut self, millis: u64) {
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
    fn lens(&self, who: u8) -> Vec<usize> {
        self.members.values().map(|m| m.memory.feeds.get(&key(who)).map_or(0, Vec::len)).collect()
    }

    /// The nodes that hold a proof that attester `who` equivocated.
    fn convinced(&self, who: u8) -> Vec<u8> {
        let proof = |member: &Member| {
            let proofs = member.memory.proofs.get(&key(who)).into_iter().flatten();
            proofs.into_iter().any(|proof| matches!(proof, Evidence::Equivocation(_)))
        };
        self.members.iter().filter(|(_, member)| proof(member)).map(|(n, _)| *n).collect()
    }
}

fn statement(signed: &Signed) -> UnverifiedEvidence {
    Evidence::Statement(signed.clone()).into()
}

#[test]
fn feeds_are_complete_by_asking() {
    let mut world = World::new(3, &[7, 8]);
    world.has(1, feed(7, 1234, None));
    world.has(2, feed(8, 5, None));
    // Only in a line: what the third has, it has from the second.
    world.connect(1, 2);
    world.connect(2, 3);
    world.run(70_000);
    assert_eq!((world.lens(7), world.lens(8)), (vec![1234; 3], vec![5; 3]));
    assert_eq!(world.members[&3].peer.status().missing, 0);
    assert_eq!(world.disconnected, []);
}

#[test]
fn gossip_is_faster_and_not_needed() {
    for lost in [false, true] {
        let mut world = World::new(5, &[7]).everybody_connected();
        world.run(1000);
        world.gossip_is_lost = lost;
        let all = feed(7, 300, None);
        for signed in &all {
            world.made(1, statement(signed));
        }
        world.run(2000);
        let expected = if lost { vec![300, 0, 0, 0, 0] } else { vec![300; 5] };
        assert_eq!(world.lens(7), expected, "{lost}");
        world.run(62_000);
        assert_eq!(world.lens(7), [300; 5], "{lost}");
    }
}

#[test]
fn gossip_with_a_gap_is_asked_for() {
    let mut world = World::new(2, &[7]).everybody_connected();
    world.run(1000);
    let all = feed(7, 300, None);
    world.has(1, all[..299].to_vec());
    // Long before the next round.
    world.made(1, statement(&all[299]));
    world.run(1000);
    assert_eq!(world.lens(7), [300; 2]);
}

#[test]
fn a_partition_heals() {
    let mut world = World::new(4, &[7, 8]).everybody_connected();
    world.run(1000);
    for (a, b) in [(1, 3), (1, 4), (2, 3), (2, 4)] {
        world.disconnect(a, b);
    }
    for (n, who) in [(1, 7), (4, 8)] {
        feed(who, 10, None).iter().for_each(|signed| world.made(n, statement(signed)));
    }
    world.run(120_000);
    assert_eq!((world.lens(7), world.lens(8)), (vec![10, 10, 0, 0], vec![0, 0, 10, 10]));
    world.connect(2, 3);
    world.run(5000);
    assert_eq!((world.lens(7)[2], world.lens(8)[1]), (10, 10), "who is connected has it at once");
    world.run(60_000);
    assert_eq!((world.lens(7), world.lens(8)), (vec![10; 4], vec![10; 4]));
}

/// However two halves of the network came to have different feeds of one key, both learn of it.
#[test]
fn forks_are_found_and_told() {
    for (one, other, from) in [(10, 10, 9), (10, 10, 3), (10, 14, 9), (10, 14, 3), (14, 10, 0)] {
        let mut world = World::new(4, &[7]);
        world.connect(1, 2);
        world.connect(3, 4);
        world.has(1, feed(7, one, None));
        world.has(4, feed(7, other, Some((from, 1))));
        world.run(61_000);
        world.connect(2, 3);
        world.run(61_000);
        assert_eq!(world.convinced(7), [1, 2, 3, 4], "{one} {other} {from}");
        assert_eq!(world.disconnected, [], "nobody is to blame for what others signed");
        let before = world.requests;
        world.run(600_000);
        // Heads alone: each of three connections, both ways, ten times.
        assert_eq!(world.requests - before, 60, "there is nothing more to be asked");
    }
}

/// Who is between two forks sees at once that they are two.
#[test]
fn forks_are_found_between() {
    let mut world = World::new(3, &[7]);
    world.has(1, feed(7, 5, None));
    world.has(3, feed(7, 5, Some((4, 1))));
    world.connect(1, 2);
    world.connect(2, 3);
    world.run(2000);
    assert_eq!(world.convinced(7), [1, 2, 3]);
}

#[test]
fn proofs_reach_those_who_were_away() {
    let mut world = World::new(3, &[7]);
    world.connect(1, 2);
    world.has(1, feed(7, 3, None));
    world.run(1000);
    let revocation = Revocation::sign(&signing_key(7), 2);
    world.made(1, Evidence::Revocation(revocation).into());
    world.run(1000);
    world.connect(2, 3);
    world.run(1000);
    for member in world.members.values() {
        assert_eq!(member.memory.proofs[&key(7)], [Evidence::Revocation(revocation)]);
    }
}

#[test]
fn strangers_are_kept_within_bounds() {
    let mut world = World::new(2, &[7]).everybody_connected();
    world.has(1, feed(7, 3, None));
    world.has(1, feed(9, 30, None));
    world.run(61_000);
    assert_eq!(world.lens(9), [30; 2]);
    let status = world.members[&2].peer.status();
    assert_eq!((status.strangers, status.statements, status.feeds), (30, 33, 2));
    // A stranger who says more than all strangers may.
    let heads =
        vec![FeedHead { len: trust::peer::STRANGERS_STATEMENTS, ..world.members[&1].memory.head(&key(9)) }];
    world.input(2, Input::Made { items: vec![], heads });
    world.has(1, feed(10, 5, None));
    world.has(1, feed(7, 4, None));
    world.run(61_000);
    assert_eq!((world.lens(10), world.lens(7)), (vec![5, 0], vec![4; 2]), "friends are kept all the same");
}

#[test]
fn who_does_not_answer_is_asked_no_more() {
    let mut world = World::new(3, &[7]);
    world.has(2, feed(7, 5, None));
    world.connect(1, 2);
    world.mute.insert(2);
    world.run(20_000);
    assert_eq!(world.lens(7), [0, 5, 0]);
    world.has(3, feed(7, 5, None));
    world.connect(1, 3);
    world.run(1000);
    assert_eq!(world.lens(7), [5; 3], "somebody else has it");
    world.run(20 * 60_000);
    assert!(world.disconnected.contains(&(1, 2, Why::Silent)), "{:?}", world.disconnected);
}

/// A peer by itself, to which anything may be said.
fn alone() -> (Peer, Vec<Effect>) {
    let mut peer = Peer::new(BTreeSet::from([key(7)]), [], BTreeSet::new());
    let effects = peer.handle(Input::Connected { node: node(2) }, Time(0));
    (peer, effects)
}

#[test]
fn heads_that_are_lies_cost_an_exchange() {
    let (mut peer, effects) = alone();
    let [Effect::Ask { question, request: Request::Heads { after: None }, .. }] = effects[..] else {
        panic!()
    };
    let head = FeedHead { len: u64::MAX, ..Memory::default().head(&key(7)) };
    let answer = Some(Answer::Heads { heads: vec![head], more: false });
    let effects = peer.handle(Input::Answered { question, answer }, Time(1));
    let [Effect::Ask { question, request: Request::Statements { from: 0, .. }, .. }] = effects[..] else {
        panic!("{effects:?}")
    };
    assert_eq!(peer.status().missing, u64::MAX);
    let effects = peer.handle(Input::Answered { question, answer: Some(Answer::Items(vec![])) }, Time(2));
    assert_eq!((effects, peer.status().missing), (vec![], 0));
}

#[test]
fn forgers_are_banished() {
    let (mut peer, _) = alone();
    let mut bytes = feed(7, 1, None)[0].bytes().to_vec();
    bytes[3] ^= 1;
    let forged = UnverifiedEvidence::Statement(Unverified::from_bytes(&bytes).unwrap());
    for n in 0..3 {
        let items = Some(Gossip(vec![forged.clone()]));
        let effects = peer.handle(Input::Heard { node: node(2), message: n, items }, Time(n));
        let [Effect::Keep { task, .. }] = effects[..] else { panic!("{effects:?}") };
        let kept = Input::Kept { task, fates: vec![Fate::Forged], heads: vec![] };
        let effects = peer.handle(kept, Time(n));
        assert!(effects.contains(&Effect::Relay { message: n, relay: Relay::Reject }));
        assert_eq!(effects.contains(&Effect::Disconnect { node: node(2), why: Why::Forged }), n == 2);
    }
    let again = |peer: &mut Peer, at| peer.handle(Input::Connected { node: node(2) }, Time(at));
    assert_eq!(again(&mut peer, 10), [Effect::Disconnect { node: node(2), why: Why::Banished }]);
    let later = trust::peer::BANISHED + 10;
    assert!(matches!(again(&mut peer, later)[..], [Effect::Ask { .. }]), "not for ever");
}

/// What comes faster than it can be verified is left to be asked for, and nobody is blamed.
#[test]
fn floods_are_ignored() {
    let (mut peer, _) = alone();
    let all = feed(7, 1000, None);
    let mut kept = 0;
    for n in 0..100 {
        let items = Some(Gossip(all.iter().map(statement).collect()));
        for effect in peer.handle(Input::Heard { node: node(2), message: n, items }, Time(0)) {
            match effect {
                Effect::Keep { .. } => kept += 1,
                Effect::Relay { relay, .. } => assert_eq!(relay, Relay::Ignore),
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(kept, trust::peer::TASKS);
    let ask = |ticket| Input::Asked { node: node(2), ticket, request: Request::Heads { after: None } };
    let busy = (0..2000).filter(|n| {
        let effects = peer.handle(ask(*n), Time(0));
        matches!(effects[..], [Effect::Answer { answer: Answer::Busy, .. }])
    });
    assert_eq!(busy.count(), 2000 - 512);
}

#[test]
fn what_cannot_be_read_is_rejected() {
    let (mut peer, effects) = alone();
    let [Effect::Ask { question, .. }] = effects[..] else { panic!() };
    let effects = peer.handle(Input::Heard { node: node(2), message: 1, items: None }, Time(0));
    assert_eq!(effects, [Effect::Relay { message: 1, relay: Relay::Reject }]);
    // An answer to another question, then statements of another feed, or of another place.
    let mut answer = Answer::Items(vec![]);
    assert_eq!(peer.handle(Input::Answered { question, answer: Some(answer) }, Time(0)), []);
    let (mut peer, effects) = alone();
    let [Effect::Ask { mut question, .. }] = effects[..] else { panic!() };
    let others =
        [feed(8, 3, None), feed(7, 3, None)[1..].to_vec(), feed(7, 3, None).into_iter().rev().collect()];
    let mut now = 0;
    for (n, items) in others.into_iter().enumerate() {
        let head = FeedHead { len: 3, ..Memory::default().head(&key(7)) };
        answer = Answer::Heads { heads: vec![head], more: false };
        let effects = peer.handle(Input::Answered { question, answer: Some(answer) }, Time(now));
        let [Effect::Ask { question: asked, .. }] = effects[..] else { panic!("{effects:?}") };
        let answer = Answer::Items(items.iter().map(statement).collect());
        let effects = peer.handle(Input::Answered { question: asked, answer: Some(answer) }, Time(now));
        if n == 2 {
            assert_eq!(effects, [Effect::Disconnect { node: node(2), why: Why::Nonsense }]);
            break;
        }
        assert_eq!(effects, []);
        now += trust::peer::ROUND;
        let effects = peer.handle(Input::Tick, Time(now));
        let [Effect::Ask { question: asked, .. }] = effects[..] else { panic!("{effects:?}") };
        question = asked;
    }
}
