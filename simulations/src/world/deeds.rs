//! What a node does when its peer asks for it: one deed for each effect, as in the driver of a real
//! node.

use std::{collections::BTreeSet, sync::Arc};

use protocol::{
    evidence::{Evidence, UnverifiedEvidence},
    id::{ActionId, NarHash},
    limits::PIECE_BYTES,
    message::{Answer, FeedHead, Gossip, Request},
    wish::Wish,
};
use trust::{
    ledger::{Record, Said},
    peer::{Effect, Fate, GaveUp, Input, Piece, Relay, Serve, Sought, Why},
};

use super::{Builder, Event, World, Write, relays, short};
use crate::{
    builds::is_commitment,
    invariants::{self, Violation},
    node::{self, Rumour, Ticket, Told},
    notary::Good,
    scenario::HostileKind,
    variant::Variant,
};

/// Milliseconds between two pieces of gossip of one node, at least, as SPEC §17.2 has it.
const PACE: u64 = 50;

/// Milliseconds after which an archive that was given up is wanted again.
const AGAIN: u64 = 20_000;

/// Milliseconds that a search takes, from and to, and how many nodes it finds.
const SEARCH: [u64; 2] = [500, 3_000];
/// See [`SEARCH`].
const FOUND: usize = 3;

/// Milliseconds that a slow disk takes longer.
const SLOW_DISK: u64 = 2_000;

/// Milliseconds after which nobody waits for a piece any more.
const LATE: u64 = 120_000;

impl World<'_> {
    pub(super) fn effect(&mut self, n: usize, effect: Effect) {
        match effect {
            Effect::Ask { node, question, request } => self.ask(n, node::place(&node), question, request),
            Effect::Answer { ticket, answer } => self.answer(n, ticket, answer),
            Effect::Serve { ticket, serve: Serve::Sought(Sought::Action(action)) } => {
                let answer = self.what_is(n, &action);
                self.answer(n, ticket, answer);
            }
            Effect::Serve { ticket, serve } => {
                let answer = self.nodes[n].disk.serve(serve);
                self.answer(n, ticket, answer);
            }
            Effect::Keep { task, items } => self.write(n, Write::Keep { task, items }),
            Effect::Publish { gossip } => self.publish(n, gossip),
            Effect::Proclaim { wish } => self.proclaim(n, wish),
            Effect::Sought { sought: Sought::Action(action), found } => {
                self.sought(n, action, found.is_some());
            }
            // Nobody here looks for a log.
            Effect::Sought { sought: Sought::Log(_), .. } => {}
            Effect::Relay { message, relay } => self.relay(n, message, relay),
            Effect::Fetch { task, node, nar, .. } => self.fetch(n, node::place(&node), task, nar),
            Effect::Cancel { task } => _ = self.nodes[n].fetching.remove(&task),
            Effect::Admit { nar } => self.write(n, Write::Admit { nar }),
            Effect::Search { nar } => {
                let (wait, life) = (self.seed.between(SEARCH), self.nodes[n].life);
                self.after(wait, Event::Searched { node: n, life, nar });
            }
            Effect::GiveUp { nar, why } => self.give_up(n, &nar, why),
            Effect::Disconnect { node, why } => self.refuse(n, node::place(&node), why),
        }
    }

    fn ask(&mut self, n: usize, other: usize, question: u64, request: Request) {
        if self.variant == Some(Variant::NeverAsksAgain)
            && !self.nodes[n].asked.insert((other, request.to_bytes()))
        {
            return;
        }
        let Some(connection) = self.nodes[n].links.get(&other).copied() else { return };
        self.line(n, || format!("asks n{other}: {}", request_words(&request)));
        if let Some(delay) = self.network.delay() {
            self.after(delay, Event::Asked { node: other, from: n, connection, question, request });
        }
    }

    /// A question has arrived.
    pub(super) fn asked(&mut self, n: usize, from: usize, connection: u64, question: u64, request: Request) {
        let node = &mut self.nodes[n];
        if node.hostile == Some(HostileKind::Silent) && !matches!(request, Request::Heads { .. }) {
            return;
        }
        node.next += 1;
        let ticket = node.next;
        node.tickets.insert(ticket, Ticket { from, connection, question });
        match self.lie(n, from, &request) {
            Some(answer) => self.answer(n, ticket, answer),
            None => self.input(n, Input::Asked { node: node::id(from), ticket, request }),
        }
    }

    pub(super) fn answer(&mut self, n: usize, ticket: u64, answer: Answer) {
        let Some(Ticket { from, connection, question }) = self.nodes[n].tickets.remove(&ticket) else {
            return;
        };
        if let Some(delay) = self.network.delay() {
            self.after(delay, Event::Answered { node: from, from: n, connection, question, answer });
        }
    }

    /// Tells a disk to do something; it does one thing after the other.
    pub(super) fn write(&mut self, n: usize, write: Write) {
        let takes = self.seed.between(self.scenario.network.disk);
        let node = &mut self.nodes[n];
        let takes = if node.slow { takes + SLOW_DISK } else { takes };
        node.disk_busy = node.disk_busy.max(self.now) + takes;
        let (at, life) = (node.disk_busy, node.life);
        self.at(at, Event::Written { node: n, life, write });
    }

    pub(super) fn written(&mut self, n: usize, write: Write) {
        match write {
            Write::Keep { task, items } => self.keep(n, task, &items),
            Write::Said { builder, sworn, tell } => {
                self.builders[builder].writing = false;
                self.nodes[n].disk.keep(Good::Statement(sworn.clone()));
                self.go_on_as_successor(builder, &sworn);
                let about = self.learn(n, &[Good::Statement(sworn.clone())]);
                if sworn.record.as_ref().is_some_and(|record| !is_only_committed(record)) {
                    self.measure_said(builder, &about);
                }
                if tell {
                    let heads = vec![self.nodes[n].disk.head(&sworn.signed.statement().attester)];
                    self.input(n, Input::Made { items: vec![sworn.to_item()], heads });
                }
                self.judge(n, about);
            }
            Write::Admit { nar } => {
                self.nodes[n].disk.nars.insert(nar);
                self.line(n, || format!("has fetched {}", short(&nar)));
                self.input(n, Input::Admitted { nar, result: Ok(()) });
            }
        }
    }

    /// A node has something new on its disk: what it makes of it, and whom it follows from now on.
    pub(super) fn learn(&mut self, n: usize, news: &[Good]) -> BTreeSet<ActionId> {
        let about = self.nodes[n].learn(news);
        let says_no_vote = |good: &Good| matches!(good, Good::Statement(sworn) if sworn.record.is_none());
        if news.iter().any(says_no_vote) && self.variant != Some(Variant::FollowsNobodyNew) {
            let attesters = self.nodes[n].judge.followed();
            self.input(n, Input::Follow { attesters });
        }
        about
    }

    fn measure_said(&mut self, builder: usize, about: &BTreeSet<ActionId>) {
        let Builder { attester, kind, .. } = &self.builders[builder];
        let Some(measures) = &mut self.measures else { return };
        for action in about {
            measures.said.entry(*action).or_default().push(self.now);
            if kind.copies() {
                measures.copied.insert((*attester, *action), self.now);
            }
        }
    }

    fn keep(&mut self, n: usize, task: u64, items: &[UnverifiedEvidence]) {
        let (mut fates, mut news) = (Vec::new(), Vec::new());
        for item in items {
            let good = match self.variant {
                Some(Variant::BelievesForgeries) => self.notary.believe(item),
                _ => self.notary.verify(item),
            };
            let fate = good.clone().map_or(Fate::Forged, |good| self.nodes[n].disk.keep(good));
            match (&fate, good) {
                (Fate::New, Some(good)) => news.push(good),
                (Fate::Equivocation(proof), _) => {
                    news.push(Good::Proof(Arc::new(Evidence::Equivocation(proof.clone()))));
                }
                _ => {}
            }
            fates.push(fate);
        }
        self.look_at_fates(n, items, &fates);
        let about: BTreeSet<_> = items.iter().map(UnverifiedEvidence::attester).collect();
        let heads: Vec<FeedHead> = about.iter().map(|attester| self.nodes[n].disk.head(attester)).collect();
        let judged = self.learn(n, &news);
        self.line(n, || format!("has looked at {} items, {} of them new", items.len(), news.len()));
        self.input(n, Input::Kept { task, fates, heads });
        self.judge(n, judged);
    }

    fn publish(&mut self, n: usize, gossip: Gossip) {
        let now = self.nodes[n].local(self.now).0;
        if let Some(before) = self.nodes[n].published.replace(now)
            && now - before < PACE
        {
            self.hold(Err(Violation::Hasty { node: n, millis: now - before }));
        }
        self.line(n, || format!("publishes {} items", gossip.0.len()));
        let rumour = Rumour::new(gossip);
        self.nodes[n].is_news(&rumour, self.now);
        self.spread(n, n, &rumour);
    }

    fn proclaim(&mut self, n: usize, wish: Wish) {
        self.line(n, || format!("wishes for {} actions", wish.actions().len()));
        let rumour = Rumour::of_wish(wish.into());
        self.nodes[n].is_news(&rumour, self.now);
        self.spread(n, n, &rumour);
    }

    /// Sends gossip to all that a node is connected to, but for the one from which it has it.
    fn spread(&mut self, n: usize, from: usize, rumour: &Arc<Rumour>) {
        if !relays(self.nodes[n].hostile) {
            return;
        }
        let to: Vec<usize> = self.nodes[n].links.keys().copied().filter(|other| *other != from).collect();
        for other in to {
            self.whisper(n, other, rumour.clone());
        }
    }

    /// Sends gossip to one node.
    pub(super) fn whisper(&mut self, n: usize, other: usize, rumour: Arc<Rumour>) {
        let Some(connection) = self.nodes[n].links.get(&other).copied() else { return };
        if let Some(delay) = self.network.delay() {
            self.after(delay, Event::Heard { node: other, from: n, connection, rumour });
        }
    }

    /// Gossip has arrived.
    pub(super) fn heard(&mut self, n: usize, from: usize, rumour: Arc<Rumour>) {
        let now = self.now;
        let node = &mut self.nodes[n];
        if !node.is_news(&rumour, now) {
            return;
        }
        if let Some(measures) = &mut self.measures {
            measures.rumours += 1;
        }
        node.next += 1;
        let (message, told) = (node.next, rumour.told.clone());
        node.held.insert(message, (from, rumour));
        self.line(n, || match &told {
            Told::Feeds(Some(gossip)) => format!("hears {} items from n{from}", gossip.0.len()),
            Told::Wish(Some(_)) => format!("hears a wish from n{from}"),
            Told::Feeds(None) | Told::Wish(None) => format!("hears nonsense from n{from}"),
        });
        let node = node::id(from);
        match told {
            Told::Feeds(gossip) => self.input(n, Input::Heard { node, message, gossip }),
            Told::Wish(wish) => self.input(n, Input::Wished { node, message, wish }),
        }
    }

    fn relay(&mut self, n: usize, message: u64, relay: Relay) {
        let Some((from, rumour)) = self.nodes[n].held.remove(&message) else { return };
        if relay == Relay::Accept || self.variant == Some(Variant::RelaysEverything) {
            if self.nodes[n].honest {
                let holds = invariants::relayed(n, &rumour, &mut self.notary);
                self.hold(holds);
            }
            self.spread(n, from, &rumour);
        }
    }

    /// Asks another node for a piece. What comes of it is decided at once, and arrives when the
    /// other's line has sent it.
    fn fetch(&mut self, n: usize, other: usize, task: u64, nar: NarHash) {
        let Some(connection) = self.nodes[n].links.get(&other).copied() else { return };
        self.nodes[n].fetching.insert(task);
        let lost = self.network.delay().is_none();
        let (there, back) = (self.network.reliable_delay(), self.network.reliable_delay());
        let provider = &mut self.nodes[other];
        let piece = match provider.hostile {
            _ if lost => Piece::Failed,
            Some(HostileKind::FreeRide) => Piece::Busy,
            Some(HostileKind::Poison) => Piece::Wrong,
            _ if !provider.up || !provider.disk.nars.contains(&nar) => Piece::Absent,
            _ => Piece::Came { bytes: PIECE_BYTES },
        };
        let sends =
            if let Piece::Came { .. } = piece { PIECE_BYTES / self.scenario.network.upload } else { 0 };
        let end = provider.line_busy.max(self.now + there) + sends;
        if end < self.now + LATE {
            provider.line_busy = end;
            self.at(end + back, Event::Piece { node: n, from: other, connection, task, piece });
        }
    }

    /// What a search finds: nodes that have the archive and can be reached.
    pub(super) fn found(&mut self, n: usize, nar: NarHash) {
        let has = |(_, node): &(usize, &node::Node)| node.up && node.disk.nars.contains(&nar);
        let mut others: Vec<usize> =
            self.nodes.iter().enumerate().filter(has).map(|(other, _)| other).collect();
        others.retain(|other| *other != n && self.network.reaches(n, *other));
        self.seed.shuffle(&mut others);
        for other in others.into_iter().take(FOUND) {
            self.dial_in(n, other, 0);
        }
    }

    fn give_up(&mut self, n: usize, nar: &NarHash, why: GaveUp) {
        self.line(n, || format!("gives up {}: {why:?}", short(nar)));
        let wanted = |outputs: &protocol::output::Outputs| crate::builds::archive(outputs) == *nar;
        let action = self.nodes[n].judge.accepted.iter().find(|(_, outputs)| wanted(outputs));
        if let Some(action) = action.map(|(action, _)| *action) {
            self.after(AGAIN, Event::Want { node: n, action });
        }
    }

    fn refuse(&mut self, n: usize, other: usize, why: Why) {
        self.report.refused += u64::from(why != Why::Banished);
        self.line(n, || format!("refuses n{other}: {why:?}"));
        // Who is cut off for long looks like one that is silent.
        let innocent = self.nodes[n].honest && self.nodes[other].honest;
        if innocent && matches!(why, Why::Forged | Why::Nonsense | Why::Wrong) {
            self.hold(Err(Violation::Innocent { node: n, other, why }));
        }
        self.close(n, other);
    }
}

fn is_only_committed(record: &Record) -> bool {
    matches!(&record.said, Said::Built { outputs, .. } if is_commitment(outputs))
}

fn request_words(request: &Request) -> String {
    match request {
        Request::Heads { .. } => "heads".into(),
        Request::Statements { attester, from } => format!("statements of {} from {from}", short(attester)),
        Request::Proofs { attester } => format!("proofs against {}", short(attester)),
        Request::Have { nars } => format!("which of {} archives", nars.len()),
        Request::Action { action } => format!("what {} is", short(action)),
        Request::Log { action } => format!("what {} printed", short(action)),
    }
}

pub(super) fn answer_words(answer: &Answer) -> String {
    match answer {
        Answer::Heads { heads, .. } => format!("{} heads", heads.len()),
        Answer::Items(items) => format!("{} items", items.len()),
        Answer::Have(nars) => format!("{} archives", nars.len()),
        Answer::Action(_) => "an action".into(),
        Answer::Log { .. } => "a log".into(),
        Answer::Absent => "nothing".into(),
        Answer::Busy => "busy".into(),
    }
}
