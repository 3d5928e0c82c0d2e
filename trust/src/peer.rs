//! What a node does next (SPEC §17, §18): which feeds and archives it asks for, whom, what it passes
//! on, when it gives up.
//!
//! ```text
//! network, store, clock ── Input ──▶ Peer::handle ── Effect ──▶ network, store
//! ```
//!
//! * `input.rs`, `effect.rs`: all that a peer hears, and all that it asks for.
//! * `links.rs`: what is known of each connected node, and what it may cost.
//! * `blobs.rs`: archives, in pieces, from several nodes at once.
//! * `wishes.rs`: what others wish, and actions that are looked for.
//!
//! Feeds are complete by asking: heads when a node connects and every minute, then the statements
//! behind one's own end, from one node at a time, until nothing is missing. Gossip only makes it
//! faster, so nothing depends on a message that is lost. Nobody is believed: statements prove
//! themselves, and a head that is wrong costs one exchange and its teller a strike.
//!
//! No I/O, no clock, no randomness: the same inputs at the same times give the same effects, here,
//! in a simulation, and in a browser. Everything is bounded, by [`crate::limits`].

mod blobs;
mod effect;
mod input;
mod links;
mod seeks;
mod wishes;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use protocol::{
    evidence::{Evidence, UnverifiedEvidence},
    key::AttesterKey,
    limits,
    message::{Answer, FeedHead, Gossip, Request, fitting},
};

use self::{
    blobs::Blobs,
    links::{Link, Links, Said},
    seeks::Seeks,
    wishes::Wishes,
};
pub use self::{
    blobs::{GaveUp, Piece},
    effect::{Effect, Relay, Serve, Why},
    input::{Fate, Input, NodeId, Time},
    seeks::Sought,
};

use crate::limits::{
    HEADS_PAGES, OUTBOX, OUTBOX_BATCH, OUTBOX_DELAY, PATIENCE, PULLS, ROUND, STRANGERS, STRANGERS_STATEMENTS,
    TASKS,
};

/// One node's view of the others. See the header of this module.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Whose feeds are wanted whole.
    follow: BTreeSet<AttesterKey>,
    feeds: BTreeMap<AttesterKey, FeedHead>,
    /// Keys that broke the rules: nothing more of theirs is asked for.
    broken: BTreeSet<AttesterKey>,
    /// Feeds of which somebody said to have more. Those of which nobody has are found out in time.
    lacking: BTreeSet<AttesterKey>,
    /// Statements of those who are not followed.
    strangers: u64,
    links: Links,
    questions: BTreeMap<u64, Question>,
    tasks: BTreeMap<u64, Task>,
    outbox: VecDeque<(Time, UnverifiedEvidence)>,
    blobs: Blobs,
    wishes: Wishes,
    seeks: Seeks,
    /// When it is looked again whether somebody is slow.
    hurry: Option<Time>,
    /// Before then nothing is published.
    quiet: Time,
    /// The next question or task.
    next: u64,
}

/// Something that was asked.
#[derive(Debug, Clone)]
struct Question {
    node: NodeId,
    until: Time,
    request: Request,
}

/// Something that is being verified and kept.
#[derive(Debug, Clone)]
struct Task {
    from: NodeId,
    came: Came,
    /// The proofs in it, with their places.
    proofs: Vec<(usize, UnverifiedEvidence)>,
}

/// How something came.
#[derive(Debug, Clone)]
enum Came {
    /// As an answer about this feed, from this place on.
    Asked { attester: AttesterKey, from: u64 },
    /// As an answer about proofs.
    Proofs,
    /// As gossip.
    Gossip { message: u64 },
}

/// What a peer is doing, for people.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Connected nodes.
    pub connected: usize,
    /// Feeds that are followed.
    pub followed: usize,
    /// Feeds of which anything is known.
    pub feeds: usize,
    /// Statements in them.
    pub statements: u64,
    /// Of these, those of strangers.
    pub strangers: u64,
    /// Statements that connected nodes say to have and that are wanted here.
    pub missing: u64,
    /// Statements and proofs that wait to be published.
    pub outbox: usize,
    /// Archives that are being fetched.
    pub wanted: usize,
}

impl Peer {
    /// A peer that knows these feeds, and that the keys in `broken` equivocated; it follows those
    /// in `follow`.
    pub fn new(
        follow: BTreeSet<AttesterKey>,
        feeds: impl IntoIterator<Item = FeedHead>,
        broken: BTreeSet<AttesterKey>,
    ) -> Self {
        let mut peer = Self {
            follow,
            feeds: BTreeMap::new(),
            broken,
            lacking: BTreeSet::new(),
            strangers: 0,
            links: Links::default(),
            questions: BTreeMap::new(),
            tasks: BTreeMap::new(),
            outbox: VecDeque::new(),
            blobs: Blobs::default(),
            wishes: Wishes::default(),
            seeks: Seeks::default(),
            hurry: None,
            quiet: Time(0),
            next: 0,
        };
        peer.learn(feeds, Time(0), &mut Vec::new());
        peer
    }

    /// Takes one input, at `now`, and says what to do about it. Times must not go back.
    pub fn handle(&mut self, input: Input, now: Time) -> Vec<Effect> {
        let mut effects = Vec::new();
        match input {
            Input::Connected { node } => self.connected(node, now, &mut effects),
            Input::Disconnected { node } => self.disconnected(node, now, &mut effects),
            Input::Asked { node, ticket, request } => self.asked(node, ticket, request, now, &mut effects),
            Input::Answered { question, answer } => self.answered(question, answer, now, &mut effects),
            Input::Heard { node, message, gossip } => self.heard(node, message, gossip, now, &mut effects),
            Input::Wished { node, message, wish } => self.wished(node, message, wish, now, &mut effects),
            Input::Wish { wish } => self.wish(wish, now, &mut effects),
            Input::Seek { sought } => self.seek(sought, now, &mut effects),
            Input::Kept { task, fates, heads } => self.kept(task, &fates, heads, now, &mut effects),
            Input::Made { items, heads } => {
                self.learn(heads, now, &mut effects);
                for item in items {
                    if let UnverifiedEvidence::Equivocation(_) = &item {
                        self.broken.insert(item.attester());
                    }
                    self.tell(item, now);
                }
            }
            Input::Follow { attesters } => {
                self.follow = attesters;
                self.count_strangers();
                // Whatever was of no interest before may be now.
                self.links.iter_mut().for_each(|(_, link)| link.round = now);
            }
            Input::Want { nar, size, missing } => self.want(nar, size, missing, &mut effects),
            Input::Unwant { nar } => self.unwant(nar, &mut effects),
            Input::Piece { task, piece } => self.piece(task, piece, now, &mut effects),
            Input::Admitted { nar, result } => self.admitted(nar, result, &mut effects),
            Input::Searched { nar } => self.searched(nar, now),
            Input::Tick => {}
        }
        // Before what it makes possible: to ask the next, or to look further.
        self.give_up(now, &mut effects);
        self.fetch(now, &mut effects);
        self.rounds(now, &mut effects);
        self.pull(now, &mut effects);
        self.publish(now, &mut effects);
        self.hurry = self.hurry(now);
        effects
    }

    /// When [`Input::Tick`] is due, unless something else happens before; `None`: never.
    pub fn wake(&self) -> Option<Time> {
        let questions = self.questions.values().map(|question| question.until);
        let rounds = self.links.iter().map(|(_, link)| link.round);
        let publish = self.outbox.front().map(|(since, _)| {
            let due = if self.outbox.len() < OUTBOX_BATCH { since.after(OUTBOX_DELAY) } else { *since };
            due.max(self.quiet)
        });
        questions.chain(rounds).chain(publish).chain(self.blobs.wake()).chain(self.hurry).min()
    }

    /// What it is doing.
    pub fn status(&self) -> Status {
        let missing = self.lacking.iter().map(|who| self.most_said(who).saturating_sub(self.len(who)));
        Status {
            connected: self.links.len(),
            followed: self.follow.len(),
            feeds: self.feeds.values().filter(|head| head.len > 0).count(),
            statements: self.feeds.values().map(|head| head.len).fold(0, u64::saturating_add),
            strangers: self.strangers,
            missing: missing.fold(0, u64::saturating_add),
            outbox: self.outbox.len(),
            wanted: self.blobs.len(),
        }
    }

    /// Whose feeds are wanted whole.
    pub fn followed(&self) -> &BTreeSet<AttesterKey> {
        &self.follow
    }

    /// Whether every connected node was asked for its heads, and all that those who answered said to
    /// have is here, or was refused.
    pub fn settled(&self, now: Time) -> bool {
        let about_feeds = |question: &Question| {
            !matches!(question.request, Request::Have { .. }) && Sought::by(&question.request).is_none()
        };
        self.links.iter().all(|(_, link)| link.round > now)
            && !self.questions.values().any(about_feeds)
            && self.tasks.is_empty()
            && self.lacking.is_empty()
    }

    /// Where a feed ends, as far as it is kept here.
    pub fn head(&self, attester: &AttesterKey) -> Option<&FeedHead> {
        self.feeds.get(attester)
    }

    fn len(&self, attester: &AttesterKey) -> u64 {
        self.feeds.get(attester).map_or(0, |head| head.len)
    }

    fn learn(&mut self, heads: impl IntoIterator<Item = FeedHead>, now: Time, effects: &mut Vec<Effect>) {
        for head in heads {
            let before = self.feeds.insert(head.attester, head).map_or(0, |before| before.len);
            if !self.follow.contains(&head.attester) {
                self.strangers = self.strangers.saturating_add(head.len).saturating_sub(before);
            }
            self.compare(&head.attester, now, effects);
        }
    }

    fn count_strangers(&mut self) {
        let strangers = self.feeds.values().filter(|head| !self.follow.contains(&head.attester));
        self.strangers = strangers.map(|head| head.len).fold(0, u64::saturating_add);
    }

    /// Whether anything that `attester` says is wanted here.
    fn wants(&self, attester: &AttesterKey) -> bool {
        if self.broken.contains(attester) {
            return false;
        }
        self.follow.contains(attester)
            || self.strangers < STRANGERS_STATEMENTS
                && (self.feeds.contains_key(attester) || self.feeds.len() < self.follow.len() + STRANGERS)
    }

    fn connected(&mut self, node: NodeId, now: Time, effects: &mut Vec<Effect>) {
        if let Err(why) = self.links.open(node, self.blobs.wanted(), now) {
            effects.push(Effect::Disconnect { node, why });
        }
    }

    fn disconnected(&mut self, node: NodeId, now: Time, effects: &mut Vec<Effect>) {
        self.links.close(node);
        self.lost(node, effects);
        let gone = self.questions.extract_if(.., |_, question| question.node == node);
        for (_, question) in gone.collect::<Vec<_>>() {
            if let Some(sought) = Sought::by(&question.request) {
                self.seek_on(sought, now, effects);
            }
        }
    }

    /// Asks every node whose turn it is for its heads.
    fn rounds(&mut self, now: Time, effects: &mut Vec<Effect>) {
        let due: Vec<_> =
            self.links.iter().filter(|(_, link)| link.round <= now).map(|(node, _)| *node).collect();
        for node in due {
            let link = self.links.get_mut(&node).expect("it is connected");
            (link.round, link.pages) = (now.after(ROUND), HEADS_PAGES);
            self.ask(node, Request::Heads { after: None }, now, effects);
        }
    }

    fn ask(&mut self, node: NodeId, request: Request, now: Time, effects: &mut Vec<Effect>) {
        let Some(link) = self.links.get_mut(&node) else { return };
        link.asked += 1;
        let question = self.next;
        self.next += 1;
        let until = now.after(PATIENCE);
        self.questions.insert(question, Question { node, until, request: request.clone() });
        effects.push(Effect::Ask { node, question, request });
    }

    fn asked(&mut self, node: NodeId, ticket: u64, request: Request, now: Time, effects: &mut Vec<Effect>) {
        let free = self.links.get_mut(&node).is_some_and(|link| link.requests.take(1, now));
        effects.push(match request {
            _ if !free => Effect::Answer { ticket, answer: Answer::Busy },
            Request::Heads { after } => Effect::Answer { ticket, answer: self.heads(after) },
            Request::Statements { attester, from } if from < self.len(&attester) => {
                Effect::Serve { ticket, serve: Serve::Statements { attester, from } }
            }
            Request::Proofs { attester } if self.feeds.contains_key(&attester) => {
                Effect::Serve { ticket, serve: Serve::Proofs { attester } }
            }
            Request::Have { nars } => Effect::Serve { ticket, serve: Serve::Have { nars } },
            Request::Action { action } => {
                Effect::Serve { ticket, serve: Serve::Sought(Sought::Action(action)) }
            }
            Request::Log { action } => Effect::Serve { ticket, serve: Serve::Sought(Sought::Log(action)) },
            Request::Statements { .. } | Request::Proofs { .. } => {
                Effect::Answer { ticket, answer: Answer::Items(Vec::new()) }
            }
        });
    }

    fn heads(&self, after: Option<AttesterKey>) -> Answer {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        let mut behind = self.feeds.range((from, Unbounded)).map(|(_, head)| *head);
        let heads: Vec<_> = behind.by_ref().take(limits::HEADS).collect();
        Answer::Heads { heads, more: behind.next().is_some() }
    }

    fn answered(&mut self, question: u64, answer: Option<Answer>, now: Time, effects: &mut Vec<Effect>) {
        // Too late, or of a node that is gone: whoever was to do something about it has given up.
        let Some(Question { node, request, .. }) = self.questions.remove(&question) else { return };
        let Some(link) = self.links.get_mut(&node) else { return };
        link.asked = link.asked.saturating_sub(1);
        link.asked_have &= !matches!(request, Request::Have { .. });
        if let Some(sought) = Sought::by(&request) {
            return self.sought(node, sought, answer, now, effects);
        }
        match (request, answer) {
            (Request::Heads { after }, Some(Answer::Heads { heads, more })) => {
                if heads.first().is_some_and(|head| after >= Some(head.attester)) {
                    return self.strike(node, Why::Nonsense, now, effects);
                }
                self.told(node, heads, more, now, effects);
            }
            (Request::Have { nars: asked }, Some(Answer::Have(nars))) => {
                self.has(node, &asked, &nars, now, effects);
            }
            (Request::Statements { attester, from }, Some(Answer::Items(items))) => {
                let fits = |(n, item): (usize, &UnverifiedEvidence)| {
                    matches!(item,
                    UnverifiedEvidence::Statement(s)
                        if s.statement().attester == attester && s.statement().seq == from + n as u64)
                };
                if items.is_empty() {
                    // It had said that there was something. That may have been of another moment.
                    link.said.remove(&attester);
                } else if items.iter().enumerate().all(fits) {
                    self.keep(node, items, Came::Asked { attester, from }, effects);
                } else {
                    link.said.remove(&attester);
                    self.strike(node, Why::Nonsense, now, effects);
                }
            }
            (Request::Proofs { attester }, Some(Answer::Items(items))) => {
                let proof = |item: &UnverifiedEvidence| {
                    !matches!(item, UnverifiedEvidence::Statement(_)) && item.attester() == attester
                };
                if items.iter().all(proof) {
                    if !items.is_empty() {
                        self.keep(node, items, Came::Proofs, effects);
                    }
                } else {
                    self.strike(node, Why::Nonsense, now, effects);
                }
            }
            (Request::Have { nars }, Some(Answer::Busy)) => self.has_no_time(node, nars, now),
            (Request::Statements { attester, .. }, Some(Answer::Busy) | None) => {
                // Somebody else may have it. This one says so again in its next heads.
                link.said.remove(&attester);
            }
            (_, Some(Answer::Busy) | None) => {}
            (_, Some(_)) => self.strike(node, Why::Nonsense, now, effects),
        }
    }

    /// What a node says to have.
    fn told(&mut self, node: NodeId, heads: Vec<FeedHead>, more: bool, now: Time, effects: &mut Vec<Effect>) {
        let last = heads.last().map(|head| head.attester);
        for head in heads {
            if !self.wants(&head.attester) {
                continue;
            }
            self.said(node, head.attester, Said { len: head.len, last: Some(head.last) });
            self.compare(&head.attester, now, effects);
            let known = self.feeds.get(&head.attester).copied();
            let Some(link) = self.links.get_mut(&node) else { return };
            if head.proofs != known.map(|known| known.proofs).unwrap_or_default() && link.news(head) {
                self.ask(node, Request::Proofs { attester: head.attester }, now, effects);
            }
        }
        let link = self.links.get_mut(&node).filter(|link| link.pages > 1);
        if let (true, Some(last), Some(link)) = (more, last, link) {
            link.pages -= 1;
            self.ask(node, Request::Heads { after: Some(last) }, now, effects);
        }
    }

    /// Notes what a node says to have of a feed.
    fn said(&mut self, node: NodeId, attester: AttesterKey, said: Said) {
        if let Some(link) = self.links.get_mut(&node) {
            link.say(attester, said);
        }
        if said.len > self.len(&attester) {
            self.lacking.insert(attester);
        }
    }

    /// Asks those who have as many statements of a feed and another last one: both prove a fork.
    fn compare(&mut self, attester: &AttesterKey, now: Time, effects: &mut Vec<Effect>) {
        let Some(known) = self.feeds.get(attester).copied().filter(|known| known.len > 0) else { return };
        let rival = |link: &Link| {
            let said = link.said.get(attester);
            said.is_some_and(|said| said.len == known.len && said.last.is_some_and(|last| last != known.last))
        };
        let rivals = self.links.iter().filter(|(_, link)| rival(link)).map(|(node, _)| *node);
        for node in rivals.collect::<Vec<_>>() {
            if let Some(link) = self.links.get_mut(&node) {
                link.said.remove(attester);
            }
            if self.wants(attester) {
                self.ask(
                    node,
                    Request::Statements { attester: *attester, from: known.len - 1 },
                    now,
                    effects,
                );
            }
        }
    }

    fn most_said(&self, attester: &AttesterKey) -> u64 {
        let said = self.links.iter().filter_map(|(_, link)| link.said.get(attester));
        said.map(|said| said.len).max().unwrap_or(0)
    }

    /// Asks for what is missing: each feed of one node, the least busy that says to have more.
    fn pull(&mut self, now: Time, effects: &mut Vec<Effect>) {
        let mut busy: BTreeSet<AttesterKey> = BTreeSet::new();
        for question in self.questions.values() {
            if let Request::Statements { attester, .. } = question.request {
                busy.insert(attester);
            }
        }
        for task in self.tasks.values() {
            if let Came::Asked { attester, .. } = task.came {
                busy.insert(attester);
            }
        }
        let mut free = PULLS.saturating_sub(busy.len());
        if free == 0 {
            return;
        }
        // Those who are followed first; and of those who said to have something, first who has kept
        // his word so far, or a few who did not could take all places for half a minute each time.
        let (wanted, strangers): (BTreeSet<AttesterKey>, BTreeSet<_>) =
            self.lacking.difference(&busy).partition(|attester| self.follow.contains(attester));
        for (all, trusted) in [(&wanted, true), (&wanted, false), (&strangers, true), (&strangers, false)] {
            for attester in all {
                if free == 0 {
                    return;
                }
                if busy.contains(attester) || !self.lacking.contains(attester) {
                    continue;
                }
                let len = self.len(attester);
                let has = |link: &Link| link.said.get(attester).is_some_and(|said| said.len > len);
                let from = self.links.iter().filter(|(_, link)| has(link));
                let from = from.min_by_key(|(node, link)| (link.strikes(now), link.asked, **node));
                let Some((node, link)) = from.filter(|_| self.wants(attester)) else {
                    self.lacking.remove(attester);
                    continue;
                };
                if trusted && link.strikes(now) > 0 {
                    continue;
                }
                self.ask(*node, Request::Statements { attester: *attester, from: len }, now, effects);
                busy.insert(*attester);
                free -= 1;
            }
        }
    }

    fn heard(
        &mut self,
        node: NodeId,
        message: u64,
        gossip: Option<Gossip>,
        now: Time,
        effects: &mut Vec<Effect>,
    ) {
        let Some(Gossip(items)) = gossip else {
            effects.push(Effect::Relay { message, relay: Relay::Reject });
            return self.strike(node, Why::Nonsense, now, effects);
        };
        let free = self.links.get_mut(&node).is_some_and(|link| link.gossip.take(items.len() as u64, now));
        // All of it is kept or nothing: what is beyond the bounds does not come in beside what is wanted.
        let wanted = items.iter().all(|item| self.wants(&item.attester()))
            && !items.iter().all(|item| self.is_known(item));
        if !free || !wanted || self.tasks.len() >= TASKS {
            // Whoever it is about says it again when asked.
            return effects.push(Effect::Relay { message, relay: Relay::Ignore });
        }
        self.keep(node, items, Came::Gossip { message }, effects);
    }

    /// Whether it is the last statement of a feed, as happens to all gossip that comes twice.
    fn is_known(&self, item: &UnverifiedEvidence) -> bool {
        let UnverifiedEvidence::Statement(item) = item else { return false };
        let statement = item.statement();
        let head = self.feeds.get(&statement.attester);
        head.is_some_and(|head| statement.seq.checked_add(1) == Some(head.len) && item.id() == head.last)
    }

    fn keep(&mut self, from: NodeId, items: Vec<UnverifiedEvidence>, came: Came, effects: &mut Vec<Effect>) {
        let task = self.next;
        self.next += 1;
        let proofs = items.iter().cloned().enumerate();
        let proofs = proofs.filter(|(_, item)| !matches!(item, UnverifiedEvidence::Statement(_))).collect();
        self.tasks.insert(task, Task { from, came, proofs });
        effects.push(Effect::Keep { task, items });
    }

    /// What became of something that came from elsewhere.
    fn kept(
        &mut self,
        task: u64,
        fates: &[Fate],
        heads: Vec<FeedHead>,
        now: Time,
        effects: &mut Vec<Effect>,
    ) {
        let Some(Task { from, came, proofs }) = self.tasks.remove(&task) else { return };
        self.learn(heads, now, effects);
        for (n, proof) in proofs {
            let fate = fates.get(n);
            if let (UnverifiedEvidence::Equivocation(_), Some(Fate::New | Fate::Known)) = (&proof, fate) {
                self.broken.insert(proof.attester());
            }
            // What was asked for is news to others, as it was here; gossip is passed on anyway.
            if let (Came::Proofs, Some(Fate::New)) = (&came, fate) {
                self.tell(proof, now);
            }
        }
        for fate in fates {
            match fate {
                Fate::Equivocation(proof) => {
                    self.broken.insert(proof.attester());
                    // It is news to everybody, whoever found it.
                    self.tell(Evidence::Equivocation(proof.clone()).into(), now);
                }
                Fate::Missing { attester, place } => {
                    self.said(from, *attester, Said { len: place.saturating_add(1), last: None });
                }
                Fate::New | Fate::Known | Fate::Refused | Fate::Forged | Fate::Failed => {}
            }
        }
        let any = |wanted: fn(&Fate) -> bool| fates.iter().any(wanted);
        let forged = any(|fate| matches!(fate, Fate::Forged));
        match came {
            Came::Gossip { message } => {
                let news =
                    |fate: &Fate| matches!(fate, Fate::New | Fate::Missing { .. } | Fate::Equivocation(_));
                let relay = match (forged, any(news)) {
                    (true, _) => Relay::Reject,
                    (false, true) => Relay::Accept,
                    (false, false) => Relay::Ignore,
                };
                effects.push(Effect::Relay { message, relay });
            }
            Came::Asked { attester, from: place } => {
                let got = self.len(&attester) > place;
                if let Some(link) = self.links.get_mut(&from) {
                    match got {
                        true if any(|fate| matches!(fate, Fate::New)) => link.helped(),
                        true => {}
                        // What it has does not go on from what is here: there is nothing to be had.
                        false => _ = link.said.remove(&attester),
                    }
                }
            }
            Came::Proofs => {}
        }
        if forged {
            self.strike(from, Why::Forged, now, effects);
        }
    }

    /// Takes back what nobody answered in time.
    fn give_up(&mut self, now: Time, effects: &mut Vec<Effect>) {
        let late: Vec<u64> =
            self.questions.iter().filter(|(_, q)| q.until <= now).map(|(question, _)| *question).collect();
        for question in late {
            // Whoever was refused for the one before is not asked anything any more.
            let Some(node) = self.questions.get(&question).map(|question| question.node) else { continue };
            self.answered(question, None, now, effects);
            self.strike(node, Why::Silent, now, effects);
        }
    }

    fn strike(&mut self, node: NodeId, why: Why, now: Time, effects: &mut Vec<Effect>) {
        if self.links.strike(node, why, now) {
            self.disconnected(node, now, effects);
            effects.push(Effect::Disconnect { node, why });
        }
    }

    /// Puts something into the outbox, unless it is full: then it is left to be asked for.
    fn tell(&mut self, item: UnverifiedEvidence, now: Time) {
        if self.outbox.len() < OUTBOX {
            self.outbox.push_back((now, item));
        }
    }

    fn publish(&mut self, now: Time, effects: &mut Vec<Effect>) {
        let Some((since, _)) = self.outbox.front() else { return };
        let due = self.outbox.len() >= OUTBOX_BATCH || since.after(OUTBOX_DELAY) <= now;
        if !due || now < self.quiet {
            return;
        }
        let batch: Vec<_> = self.outbox.iter().take(OUTBOX_BATCH).map(|(_, item)| item.clone()).collect();
        let n = fitting(&batch, limits::GOSSIP_BYTES);
        self.outbox.drain(..n);
        self.quiet = now.after(OUTBOX_DELAY);
        let gossip = Gossip(batch.into_iter().take(n).collect());
        // A statement that fits into no gossip is had by asking.
        if gossip.to_bytes().len() <= limits::GOSSIP_BYTES {
            effects.push(Effect::Publish { gossip });
        }
    }
}
