//! One peer among nodes that say anything, at any moment: it ends all that it begins, within its bounds.
//!
//! Its own machine is honest: it verifies and keeps, and says what became of pieces and searches, late
//! perhaps. The others answer what they like, with numbers from the ends of counting.

use std::collections::{BTreeMap, BTreeSet};

use proptest::{collection::vec, option, prelude::*, sample::select};
use protocol::{
    evidence::{Evidence, Revocation, UnverifiedEvidence},
    id::{ActionId, NarHash, StatementId},
    limits::PIECE_BYTES,
    message::{Answer, FeedHead, Gossip, KnownAction, ProofsDigest, Request},
    statement::{Signed, Statement, Unverified},
    wish::{UnverifiedWish, Wish},
};
use trust::{
    limits,
    peer::{Effect, GaveUp, Input, Peer, Piece, Relay, Serve, Sought, Time},
};

use super::{feed, key, node, signing_key, statement, wishes::action, world::Memory};

/// Something that happens. Where one of several is meant, it is the one at that place, going round.
#[derive(Debug, Clone)]
enum Step {
    Connected(u8),
    Disconnected(u8),
    Asked(u8, Request),
    Answered(usize, Option<Answer>),
    /// The answer to a question that may never have been asked.
    AnsweredTo(u64, Answer),
    Heard(u8, Option<Vec<UnverifiedEvidence>>),
    Wished(u8, Option<UnverifiedWish>),
    Wish(u64),
    Made(u8),
    Seek(Sought),
    Follow(BTreeSet<u8>),
    Want(u8, u64),
    Unwant(u8),
    /// The machine has come to this task, piece, archive or search.
    Kept(usize),
    Piece(usize, Piece),
    Admitted(usize, Result<(), GaveUp>),
    Searched(usize),
    Wait(u64),
}

/// Numbers at which something may overflow, and others.
fn number() -> impl Strategy<Value = u64> + Clone {
    select(vec![0, 1, 2, 3, 4, 63, 64, 65, 1 << 32, 1 << 53, u64::MAX / 2, u64::MAX - 1, u64::MAX])
}

fn attester() -> impl Strategy<Value = u8> + Clone {
    // 7 and 8 are followed at first.
    7_u8..=10
}

/// The first statements of each feed, and of a fork of it.
fn said(who: u8) -> [Vec<Signed>; 2] {
    [feed(who, 4, None), feed(who, 4, Some((2, 1)))]
}

fn evidence() -> impl Strategy<Value = UnverifiedEvidence> + Clone {
    let honest = (attester(), 0_usize..2, 0_usize..4);
    let honest = honest.prop_map(|(who, fork, place)| statement(&said(who)[fork][place]));
    let anywhere = (attester(), number(), any::<bool>()).prop_map(|(who, seq, forged)| {
        let like = said(who)[0][1].statement().clone();
        let signed = Statement { seq: seq.max(1), ..like }.sign(&signing_key(who)).unwrap();
        let mut bytes = signed.bytes().to_vec();
        bytes[5] ^= u8::from(forged);
        UnverifiedEvidence::Statement(Unverified::from_bytes(&bytes).unwrap())
    });
    let revocation = (attester(), number()).prop_map(|(who, from)| {
        UnverifiedEvidence::from(Evidence::Revocation(Revocation::sign(&signing_key(who), from)))
    });
    prop_oneof![4 => honest, 2 => anywhere, 1 => revocation]
}

fn head() -> impl Strategy<Value = FeedHead> {
    let some = ProofsDigest::of([&Evidence::Revocation(Revocation::sign(&signing_key(7), 0))]);
    let last = select(vec![StatementId::from_bytes([0; 32]), said(7)[0][3].id(), said(7)[1][3].id()]);
    let proofs = select(vec![ProofsDigest::default(), some]);
    let head = |(who, len, last, proofs)| FeedHead { attester: key(who), len, last, proofs };
    (attester(), number(), last, proofs).prop_map(head)
}

fn request() -> impl Strategy<Value = Request> {
    prop_oneof![
        option::of(attester()).prop_map(|after| Request::Heads { after: after.map(key) }),
        (attester(), number()).prop_map(|(who, from)| Request::Statements { attester: key(who), from }),
        attester().prop_map(|who| Request::Proofs { attester: key(who) }),
        nars().prop_map(|nars| Request::Have { nars }),
        (1_u8..4).prop_map(|n| Request::Action { action: action(n).id() }),
        (1_u8..4).prop_map(|n| Request::Log { action: action(n).id() }),
    ]
}

fn nar(n: u8) -> NarHash {
    NarHash::from_bytes([n; 32])
}

fn nars() -> impl Strategy<Value = Vec<NarHash>> {
    prop::collection::btree_set(1_u8..5, 0..4).prop_map(|nars| nars.into_iter().map(nar).collect())
}

fn answer() -> impl Strategy<Value = Answer> {
    let feed = (attester(), 0_usize..2, 0_usize..4)
        .prop_map(|(who, fork, from)| Answer::Items(said(who)[fork][from..].iter().map(statement).collect()));
    prop_oneof![
        3 => (vec(head(), 0..4), any::<bool>()).prop_map(|(heads, more)| Answer::Heads { heads, more }),
        3 => feed,
        2 => vec(evidence(), 0..4).prop_map(Answer::Items),
        3 => nars().prop_map(Answer::Have),
        1 => (1_u8..4, number()).prop_map(|(n, size)| {
            Answer::Action(Box::new(KnownAction { action: action(n), name: None, sizes: vec![size] }))
        }),
        1 => number().prop_map(|before| Answer::Log { end: b"log".to_vec(), before }),
        1 => Just(Answer::Absent),
        1 => Just(Answer::Busy),
    ]
}

fn wish() -> impl Strategy<Value = UnverifiedWish> {
    (attester(), number(), any::<bool>()).prop_map(|(who, number, forged)| {
        let actions = (1..3).map(|n| ActionId::from_bytes([n; 32]));
        let mut bytes = Wish::sign(&signing_key(who), number, actions).to_bytes();
        if forged {
            *bytes.last_mut().unwrap() ^= 1;
        }
        UnverifiedWish::from_bytes(&bytes).unwrap()
    })
}

fn step() -> impl Strategy<Value = Step> {
    let other = || 2_u8..7;
    let sought = (1_u8..4, any::<bool>()).prop_map(|(n, log)| match log {
        true => Sought::Log(action(n).id()),
        false => Sought::Action(action(n).id()),
    });
    let piece = select(vec![
        Piece::Came { bytes: 0 },
        Piece::Came { bytes: PIECE_BYTES },
        Piece::Absent,
        Piece::Busy,
        Piece::Wrong,
        Piece::Failed,
        Piece::Disk,
    ]);
    let millis = select(vec![0, 1, 49, 50, 1000, 5000, 10_000, 30_000, 60_000, 120_000, 600_000]);
    prop_oneof![
        6 => other().prop_map(Step::Connected),
        2 => other().prop_map(Step::Disconnected),
        3 => (other(), request()).prop_map(|(n, request)| Step::Asked(n, request)),
        12 => (0_usize..50, option::weighted(0.9, answer())).prop_map(|(n, a)| Step::Answered(n, a)),
        1 => (number(), answer()).prop_map(|(n, answer)| Step::AnsweredTo(n, answer)),
        6 => (other(), option::weighted(0.95, vec(evidence(), 0..4))).prop_map(|(n, g)| Step::Heard(n, g)),
        2 => (other(), option::weighted(0.9, wish())).prop_map(|(n, wish)| Step::Wished(n, wish)),
        1 => number().prop_map(Step::Wish),
        1 => attester().prop_map(Step::Made),
        2 => sought.prop_map(Step::Seek),
        1 => prop::collection::btree_set(attester(), 0..3).prop_map(Step::Follow),
        3 => (1_u8..5, 0_u64..6).prop_map(|(n, pieces)| Step::Want(n, pieces)),
        1 => (1_u8..5).prop_map(Step::Unwant),
        6 => (0_usize..20).prop_map(Step::Kept),
        6 => (0_usize..50, piece).prop_map(|(n, piece)| Step::Piece(n, piece)),
        2 => (0_usize..5, select(vec![Ok(()), Err(GaveUp::Damaged), Err(GaveUp::Disk)]))
            .prop_map(|(n, result)| Step::Admitted(n, result)),
        2 => (0_usize..5).prop_map(Step::Searched),
        4 => millis.prop_map(Step::Wait),
    ]
}

/// The peer, its machine, and what has not ended.
struct Machine {
    peer: Peer,
    memory: Memory,
    now: u64,
    next: u64,
    connected: BTreeSet<u8>,
    /// Questions, by node.
    asks: BTreeMap<u64, u8>,
    /// What is to be kept.
    tasks: BTreeMap<u64, Vec<UnverifiedEvidence>>,
    pieces: BTreeSet<u64>,
    wanted: BTreeSet<NarHash>,
    admits: BTreeSet<NarHash>,
    searches: BTreeSet<NarHash>,
    sought: BTreeSet<Sought>,
    /// Gossip of which the network wants to know whether it is passed on.
    held: BTreeSet<u64>,
    /// Whoever asks.
    tickets: BTreeSet<u64>,
}

fn nth<T: Copy + Ord>(of: impl IntoIterator<Item = T>, n: usize) -> Option<T> {
    let all: Vec<T> = of.into_iter().collect();
    (!all.is_empty()).then(|| all[n % all.len()])
}

impl Machine {
    fn new() -> Self {
        Self {
            peer: Peer::new(BTreeSet::from([key(7), key(8)]), [], BTreeSet::new()),
            memory: Memory::default(),
            now: 0,
            next: 0,
            connected: BTreeSet::new(),
            asks: BTreeMap::new(),
            tasks: BTreeMap::new(),
            pieces: BTreeSet::new(),
            wanted: BTreeSet::new(),
            admits: BTreeSet::new(),
            searches: BTreeSet::new(),
            sought: BTreeSet::new(),
            held: BTreeSet::new(),
            tickets: BTreeSet::new(),
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn step(&mut self, step: Step) {
        let input = match step {
            Step::Connected(n) if self.connected.insert(n) => Input::Connected { node: node(n) },
            Step::Disconnected(n) if self.connected.remove(&n) => {
                self.asks.retain(|_, of| *of != n);
                Input::Disconnected { node: node(n) }
            }
            Step::Asked(n, request) if self.connected.contains(&n) => {
                let ticket = self.number();
                self.tickets.insert(ticket);
                Input::Asked { node: node(n), ticket, request }
            }
            Step::Answered(n, answer) => {
                let Some(question) = nth(self.asks.keys().copied(), n) else { return };
                self.asks.remove(&question);
                Input::Answered { question, answer }
            }
            Step::AnsweredTo(question, answer) => {
                self.asks.remove(&question);
                Input::Answered { question, answer: Some(answer) }
            }
            Step::Heard(n, items) if self.connected.contains(&n) => {
                let message = self.number();
                self.held.insert(message);
                Input::Heard { node: node(n), message, gossip: items.map(Gossip) }
            }
            Step::Wished(n, wish) if self.connected.contains(&n) => {
                let message = self.number();
                self.held.insert(message);
                Input::Wished { node: node(n), message, wish }
            }
            Step::Wish(number) => Input::Wish { wish: Wish::sign(&signing_key(7), number, []) },
            Step::Made(who) => {
                let next = self.memory.feeds.get(&key(who)).map_or(0, Vec::len);
                let Some(item) = said(who)[0].get(next).map(statement) else { return };
                self.memory.keep(item.clone());
                Input::Made { items: vec![item], heads: vec![self.memory.head(&key(who))] }
            }
            Step::Seek(sought) => {
                self.sought.insert(sought);
                Input::Seek { sought }
            }
            Step::Follow(who) => Input::Follow { attesters: who.into_iter().map(key).collect() },
            Step::Want(n, pieces) => {
                self.wanted.insert(nar(n));
                Input::Want { nar: nar(n), size: pieces * PIECE_BYTES, missing: (0..pieces).collect() }
            }
            Step::Unwant(n) => {
                self.wanted.remove(&nar(n));
                self.admits.remove(&nar(n));
                Input::Unwant { nar: nar(n) }
            }
            Step::Kept(n) => {
                let Some(task) = nth(self.tasks.keys().copied(), n) else { return };
                let items = self.tasks.remove(&task).unwrap();
                let about: BTreeSet<_> = items.iter().map(UnverifiedEvidence::attester).collect();
                let fates = items.into_iter().map(|item| self.memory.keep(item)).collect();
                let heads = about.iter().map(|attester| self.memory.head(attester)).collect();
                Input::Kept { task, fates, heads }
            }
            Step::Piece(n, piece) => {
                let Some(task) = nth(self.pieces.iter().copied(), n) else { return };
                self.pieces.remove(&task);
                Input::Piece { task, piece }
            }
            Step::Admitted(n, result) => {
                let Some(nar) = nth(self.admits.iter().copied(), n) else { return };
                self.admits.remove(&nar);
                if result.is_ok() {
                    self.wanted.remove(&nar);
                }
                Input::Admitted { nar, result }
            }
            Step::Searched(n) => {
                let Some(nar) = nth(self.searches.iter().copied(), n) else { return };
                self.searches.remove(&nar);
                Input::Searched { nar }
            }
            Step::Wait(millis) => return self.wait(millis),
            // Of a node that is connected, or is not, already.
            Step::Connected(_)
            | Step::Disconnected(_)
            | Step::Asked(..)
            | Step::Heard(..)
            | Step::Wished(..) => return,
        };
        self.input(input);
    }

    fn input(&mut self, input: Input) {
        let effects = self.peer.handle(input, Time(self.now));
        effects.into_iter().for_each(|effect| self.effect(effect));
        let status = self.peer.status();
        assert!(self.tasks.len() <= limits::TASKS + limits::PULLS + status.connected, "{}", self.tasks.len());
        assert!(self.pieces.len() <= limits::PIECES);
        assert!(status.outbox <= limits::OUTBOX);
        assert_eq!(status.wanted, self.wanted.len());
        assert_eq!(status.connected, self.connected.len());
    }

    fn effect(&mut self, effect: Effect) {
        match effect {
            Effect::Ask { node, question, .. } => {
                let [n, ..] = node.0;
                assert!(self.connected.contains(&n), "{n} is not connected");
                assert_eq!(self.asks.insert(question, n), None);
            }
            Effect::Answer { ticket, .. } => assert!(self.tickets.remove(&ticket)),
            Effect::Serve { ticket, serve } => {
                assert!(self.tickets.remove(&ticket));
                if let Serve::Statements { attester, from } = serve {
                    assert!(from < self.memory.head(&attester).len);
                }
            }
            Effect::Keep { task, items } => assert_eq!(self.tasks.insert(task, items), None),
            Effect::Publish { gossip: Gossip(items) } => {
                items.into_iter().for_each(|item| drop(item.verify().expect("published unverified")));
            }
            Effect::Proclaim { .. } => {}
            Effect::Sought { sought, .. } => assert!(self.sought.remove(&sought)),
            Effect::Relay { message, relay: Relay::Accept | Relay::Ignore | Relay::Reject } => {
                assert!(self.held.remove(&message), "said twice");
            }
            Effect::Fetch { task, nar, .. } => {
                assert!(self.wanted.contains(&nar) && self.pieces.insert(task));
            }
            Effect::Cancel { task } => _ = self.pieces.remove(&task),
            Effect::Admit { nar } => assert!(self.wanted.contains(&nar) && self.admits.insert(nar)),
            // It may be wanted again before a search has ended that nobody needed any more.
            Effect::Search { nar } => _ = self.searches.insert(nar),
            Effect::GiveUp { nar, .. } => {
                assert!(self.wanted.remove(&nar));
                self.admits.remove(&nar);
            }
            Effect::Disconnect { node, .. } => {
                let [n, ..] = node.0;
                self.connected.remove(&n);
                self.asks.retain(|_, of| *of != n);
            }
        }
    }

    /// Time goes by, and whenever something is due, it is looked after.
    fn wait(&mut self, millis: u64) {
        let end = self.now + millis;
        while let Some(Time(due)) = self.peer.wake().filter(|due| due.0 <= end) {
            self.now = self.now.max(due);
            self.input(Input::Tick);
            let next = self.peer.wake();
            assert!(next > Some(Time(self.now)) || next.is_none(), "{next:?} is due at {}", self.now);
        }
        self.now = end;
    }

    /// The machine does what it was told; the others say nothing more.
    fn rest(&mut self) {
        for _ in 0..100 {
            while !self.tasks.is_empty() {
                self.step(Step::Kept(0));
            }
            while !self.pieces.is_empty() {
                self.step(Step::Piece(0, Piece::Failed));
            }
            while !self.admits.is_empty() {
                self.step(Step::Admitted(0, Err(GaveUp::Damaged)));
            }
            while !self.searches.is_empty() {
                self.step(Step::Searched(0));
            }
            self.wait(limits::PATIENCE);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_said_all_ends(steps in vec(step(), 1..150)) {
        let mut machine = Machine::new();
        steps.into_iter().for_each(|step| machine.step(step));
        machine.rest();
        prop_assert!(machine.tickets.is_empty(), "who asks is answered");
        prop_assert!(machine.held.is_empty(), "gossip waits to be passed on: {:?}", machine.held);
        prop_assert!(machine.sought.is_empty(), "looked for without end: {:?}", machine.sought);
        prop_assert!(machine.wanted.is_empty(), "wanted without end: {:?}", machine.wanted);
        prop_assert_eq!(machine.peer.status().missing, 0, "waits for what nobody gives");
        prop_assert_eq!(machine.peer.status().outbox, 0);
    }
}
