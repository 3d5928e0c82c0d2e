//! What hostile nodes say instead of what they should, and what they do by themselves.

use std::sync::Arc;

use protocol::{
    evidence::{Evidence, Revocation, UnverifiedEvidence},
    feed::Head,
    id::{ActionId, NarHash, StatementId},
    key::{AttesterKey, SigningKey},
    limits,
    message::{Answer, FeedHead, Gossip, ProofsDigest, Request},
    name::Name,
    statement::{Attestation, Body, Platform, Statement, Unverified},
    wish::{UnverifiedWish, Wish},
};
use trust::peer::Input;

use super::{
    Event, World,
    builders::{LIE, say},
};
use crate::{
    builds::outputs,
    judge::NOW,
    node::{Rumour, Told},
    notary::Good,
    scenario::{BuilderKind, HostileKind},
};

/// Milliseconds between two mischiefs of one node, from and to.
const OFTEN: [u64; 2] = [300, 3_000];

/// Questions that a spammer asks of one node at once.
const QUESTIONS: u64 = 40;

/// Wishes that are told at once, and strangers of one node who wish.
const FLOOD: usize = 3;
/// See [`FLOOD`].
const FLOODERS: usize = 400;

/// Statements that are said again at once.
const OLD: usize = 8;

/// How often, of a thousand, a poisoner lies. It tells the truth otherwise, to be asked again.
const POISON: u64 = 400;

/// Actions about which the keys of strangers speak.
const STRANGE: usize = 2;

impl World<'_> {
    /// What a node answers that does not say what it should; `None` if its peer is to answer.
    pub(super) fn lie(&mut self, n: usize, from: usize, request: &Request) -> Option<Answer> {
        let equivocates = |builder: &super::Builder| builder.kind == BuilderKind::Equivocate;
        if self.builders.get(n).is_some_and(equivocates) {
            return self.two_faced(n, from, request);
        }
        match self.nodes[n].hostile? {
            HostileKind::Withhold | HostileKind::Eclipse => Some(nothing(request)),
            HostileKind::FreeRide => Some(Answer::Busy),
            HostileKind::Poison => self.seed.chance(POISON).then(|| self.poison(n, request)),
            HostileKind::Replay => self.as_it_was(n, request),
            HostileKind::Silent => self.promise(n, request),
            HostileKind::Spam | HostileKind::FloodWishes | HostileKind::Sybil => None,
        }
    }

    /// An equivocator shows each half of the others what it said to that half.
    fn two_faced(&mut self, n: usize, from: usize, request: &Request) -> Option<Answer> {
        let builder = self.builders.get_mut(n).filter(|builder| !builder.branch.is_empty())?;
        if !builder.lies_to(from) {
            return None;
        }
        match request {
            Request::Heads { after: None } => {
                let head = |attester: AttesterKey| {
                    let mut head = self.nodes[n].disk.head(&attester);
                    if attester == builder.attester {
                        (head.len, head.proofs) = (builder.branch.len() as u64, ProofsDigest::default());
                        head.last = builder.branch.last().map_or(head.last, |last| last.id);
                    }
                    head
                };
                let heads = self.nodes[n].disk.attesters().into_iter().map(head).collect();
                Some(Answer::Heads { heads, more: false })
            }
            Request::Statements { attester, from } if *attester == builder.attester => {
                let said = builder.branch.iter().skip(*from as usize);
                Some(Answer::Items(said.map(|sworn| sworn.to_item()).collect()))
            }
            Request::Proofs { attester } if *attester == builder.attester => Some(Answer::Items(Vec::new())),
            Request::Heads { .. }
            | Request::Statements { .. }
            | Request::Proofs { .. }
            | Request::Have { .. }
            | Request::Action { .. }
            | Request::Log { .. } => None,
        }
    }

    /// Heads that promise too much, statements that are forged, of somebody else, or of elsewhere,
    /// proofs that prove nothing, archives that it has not.
    fn poison(&mut self, n: usize, request: &Request) -> Answer {
        match request {
            Request::Heads { after } => {
                let mut keys: Vec<_> = self.builders.iter().map(|builder| builder.attester).collect();
                keys.sort();
                keys.retain(|key| Some(*key) > *after);
                let heads = keys.into_iter().map(|key| self.wrong_head(n, key)).collect();
                Answer::Heads { heads, more: false }
            }
            Request::Statements { attester, from } => {
                let others = self.builders.iter().map(|builder| builder.attester);
                let other = others.filter(|other| other != attester).max();
                let items = match (self.seed.below(4), other) {
                    (0, _) => Vec::new(),
                    (1, Some(other)) => self.items(n, &other),
                    (2, _) => self.items(n, attester).into_iter().rev().collect(),
                    _ => self.forged(n, *attester, *from).into_iter().collect(),
                };
                Answer::Items(items)
            }
            Request::Proofs { attester } => {
                let same = self.nodes[n].disk.said(attester).first().map(|sworn| {
                    let statement = || Unverified::from(sworn.signed.clone());
                    UnverifiedEvidence::Equivocation(Box::new([statement(), statement()]))
                });
                Answer::Items(same.into_iter().collect())
            }
            Request::Have { nars } => Answer::Have(nars.clone()),
            Request::Action { .. } | Request::Log { .. } => Answer::Absent,
        }
    }

    fn wrong_head(&mut self, n: usize, attester: AttesterKey) -> FeedHead {
        let head = self.nodes[n].disk.head(&attester);
        let last = StatementId::from_bytes(self.seed.bytes());
        match self.seed.below(4) {
            0 => FeedHead { len: head.len + 1 + self.seed.below(1000) as u64, last, ..head },
            1 => FeedHead { len: u64::MAX, last, ..head },
            2 => {
                let key = SigningKey::from_bytes(&self.seed.bytes());
                let proofs = ProofsDigest::of([&Evidence::Revocation(Revocation::sign(&key, 0))]);
                FeedHead { proofs, ..head }
            }
            _ => FeedHead { last, ..head },
        }
    }

    fn items(&self, n: usize, attester: &AttesterKey) -> Vec<UnverifiedEvidence> {
        self.nodes[n].disk.said(attester).iter().map(|sworn| sworn.to_item()).collect()
    }

    /// A statement that nobody signed, at a place of somebody's feed.
    fn forged(&mut self, n: usize, attester: AttesterKey, seq: u64) -> Option<UnverifiedEvidence> {
        let said = self.nodes[n].disk.said(&attester);
        let before = usize::try_from(seq).ok()?.checked_sub(1).map(|place| said.get(place));
        let prev = match before {
            Some(before) => before?.id,
            None => StatementId::from_bytes([0; 32]),
        };
        let action = self.right[self.seed.below(self.right.len())].action;
        let built =
            Attestation { action, outputs: outputs(&action, LIE), witness: None, platform: anywhere() };
        let statement = Statement { attester, seq, prev, time: NOW, body: Body::Built(built) };
        let signature = [self.seed.bytes(), self.seed.bytes()].concat();
        let bytes = [signature, statement.to_bytes()].concat();
        Some(UnverifiedEvidence::Statement(Unverified::from_bytes(&bytes).ok()?))
    }

    /// Heads of feeds that are a little longer than they are: everybody asks for that.
    fn promise(&mut self, n: usize, request: &Request) -> Option<Answer> {
        let Request::Heads { after: None } = request else { return None };
        let last = StatementId::from_bytes(self.seed.bytes());
        let disk = &self.nodes[n].disk;
        let more = |attester| {
            let head = disk.head(&attester);
            FeedHead { len: head.len + 10, last, ..head }
        };
        Some(Answer::Heads { heads: disk.attesters().into_iter().map(more).collect(), more: false })
    }

    /// Heads as they were when half of each feed was known.
    fn as_it_was(&self, n: usize, request: &Request) -> Option<Answer> {
        let Request::Heads { after: None } = request else { return None };
        let disk = &self.nodes[n].disk;
        let old = |attester: AttesterKey| {
            let said = disk.said(&attester);
            let said = &said[..said.len() / 2];
            let last = said.last().map_or(StatementId::from_bytes([0; 32]), |last| last.id);
            FeedHead { attester, len: said.len() as u64, last, proofs: ProofsDigest::default() }
        };
        Some(Answer::Heads { heads: disk.attesters().into_iter().map(old).collect(), more: false })
    }

    /// A hostile node does something by itself.
    pub(super) fn mischief(&mut self, n: usize) {
        let Some(kind) = self.nodes[n].hostile else { return };
        match kind {
            HostileKind::Spam => self.spam(n),
            HostileKind::FloodWishes => self.flood_wishes(n),
            HostileKind::Replay => self.replay(n),
            // Once: from then on its own peer tells of it.
            HostileKind::Sybil => return self.speak_with_many_keys(n),
            HostileKind::Withhold
            | HostileKind::Poison
            | HostileKind::FreeRide
            | HostileKind::Silent
            | HostileKind::Eclipse => {
                return;
            }
        }
        let wait = self.seed.between(OFTEN);
        self.after(wait, Event::Mischief { node: n });
    }

    fn links(&self, n: usize) -> Vec<(usize, u64)> {
        self.nodes[n].links.iter().map(|(other, connection)| (*other, *connection)).collect()
    }

    /// Gossip that is sent again has another id, or nobody would look at it.
    fn fresh(&mut self, told: Told) -> Arc<Rumour> {
        let mut id = [0; 20];
        id.copy_from_slice(&self.seed.bytes()[..20]);
        Arc::new(Rumour { id, told })
    }

    fn spam(&mut self, n: usize) {
        let victim = self.builders[self.seed.below(self.builders.len())].attester;
        let seq = self.nodes[n].disk.end(&victim).len();
        let forged = self.forged(n, victim, seq).map(|item| Gossip(vec![item]));
        let wish = Wish::sign(&self.builders[0].key, self.now, [self.right[0].action]);
        let wish = forged_wish(&wish);
        let told = [Told::Feeds(forged), Told::Feeds(None), Told::Wish(wish), Told::Wish(None)];
        let rumours = told.map(|told| self.fresh(told));
        for (other, connection) in self.links(n) {
            let rumour = rumours[self.seed.below(rumours.len())].clone();
            self.whisper(n, other, rumour);
            for question in 0..QUESTIONS {
                // Answers are of no interest: no question of its peer has such a number.
                let (question, request) = (u64::MAX - question, Request::Heads { after: None });
                let delay = self.network.reliable_delay();
                self.after(delay, Event::Asked { node: other, from: n, connection, question, request });
            }
        }
    }

    fn replay(&mut self, n: usize) {
        let builder = self.builders[self.seed.below(self.builders.len())].attester;
        let items = self.items(n, &builder);
        let old: Vec<_> = items.into_iter().take(OLD).collect();
        if old.is_empty() {
            return;
        }
        let rumour = self.fresh(Told::Feeds(Some(Gossip(old))));
        for (other, _) in self.links(n) {
            self.whisper(n, other, rumour.clone());
        }
    }

    /// Wishes of some strangers of many, each for as many actions as fit, that are nothing.
    fn flood_wishes(&mut self, n: usize) {
        for _ in 0..FLOOD {
            let name = format!("stranger {} of {n}", self.seed.below(FLOODERS));
            let key = SigningKey::from_bytes(NarHash::of(name.as_bytes()).as_bytes());
            let seed = &mut self.seed;
            let actions: Vec<_> = (0..limits::WISHES).map(|_| ActionId::from_bytes(seed.bytes())).collect();
            let rumour = Rumour::of_wish(Wish::sign(&key, self.now, actions).into());
            for (other, _) in self.links(n) {
                self.whisper(n, other, rumour.clone());
            }
        }
    }

    fn speak_with_many_keys(&mut self, n: usize) {
        let count = self.scenario.group_of(n).map_or(0, |hostiles| hostiles.keys);
        let (mut items, mut heads) = (Vec::new(), Vec::new());
        for stranger in 0..count {
            let name = format!("stranger {stranger} of {n}");
            let key = SigningKey::from_bytes(NarHash::of(name.as_bytes()).as_bytes());
            let attester = AttesterKey::of(&key);
            let mut head = Head::empty(attester);
            for place in 0..STRANGE.min(self.right.len()) {
                let action = self.right[place].action;
                let lie = outputs(&action, LIE);
                let built = Attestation { action, outputs: lie, witness: None, platform: anywhere() };
                let sworn = self.notary.swear(say(&key, &head, NOW, built));
                head = Head::behind(&sworn.signed);
                items.push(sworn.to_item());
                self.nodes[n].disk.keep(Good::Statement(sworn));
            }
            heads.push(self.nodes[n].disk.head(&attester));
        }
        self.line(n, || format!("speaks with {count} keys"));
        self.input(n, Input::Made { items, heads });
    }
}

/// The same, with another signature.
fn forged_wish(wish: &Wish) -> Option<UnverifiedWish> {
    let mut bytes = wish.to_bytes();
    *bytes.last_mut()? ^= 1;
    UnverifiedWish::from_bytes(&bytes).ok()
}

fn nothing(request: &Request) -> Answer {
    match request {
        Request::Heads { .. } => Answer::Heads { heads: Vec::new(), more: false },
        Request::Statements { .. } | Request::Proofs { .. } => Answer::Items(Vec::new()),
        Request::Have { .. } => Answer::Have(Vec::new()),
        Request::Action { .. } | Request::Log { .. } => Answer::Absent,
    }
}

fn anywhere() -> Platform {
    let unknown = Name::unknown;
    Platform { engine: unknown(), arch: unknown(), os: unknown() }
}
