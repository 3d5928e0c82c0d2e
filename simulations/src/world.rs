//! A world: nodes, what is on its way between them, and what happens to them, in virtual time.
//!
//! ```text
//! Scenario, Seed ─▶ World ── Event ──▶ Input ─▶ trust::peer::Peer ─▶ Effect ──▶ Event …
//!                                                                  └─▶ invariants
//! ```
//!
//! * `deeds.rs`: what nodes do when their peers ask for it, as a driver does.
//! * `builders.rs`: what is built and signed, by whom, and which of it is a lie.
//! * `rebuilders.rs`: what is executed because others said or wish it.
//! * `hostile.rs`: what hostile nodes say instead of what they should.
//! * `troubles.rs`: what happens to nodes and lines.
//!
//! One thread, one queue of events, in the order of their moments and, of equal ones, in the order
//! in which they came to be. Chance is drawn from the seed; there is no clock, and nothing is
//! visited in an order that depends on a hash.

mod builders;
mod deeds;
mod hostile;
mod rebuilders;
mod troubles;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use protocol::{
    evidence::UnverifiedEvidence,
    id::{ActionId, NarHash},
    key::AttesterKey,
    limits::PIECE_BYTES,
    message::{Answer, Request},
};
use trust::{
    peer::{Fate, Input, Piece},
    verdict::Outcome,
};

use self::{builders::Builder, rebuilders::Rebuilder};
use crate::{
    builds::{Execution, Graph, archive},
    faults::{self, Deed},
    invariants::{self, Violation},
    judge::Rules,
    measures::Measures,
    network::Network,
    node::{Node, Rumour},
    notary::{Notary, Sworn},
    scenario::{BuilderKind, Fault, HostileKind, Scenario},
    seed::Seed,
    trace::Trace,
    variant::Variant,
};

/// Milliseconds between two looks at the bounds of all nodes.
const LOOK: u64 = 5_000;

/// What came of a seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Report {
    /// Events that happened.
    pub events: u64,
    /// Messages that arrived.
    pub messages: u64,
    /// Statements and proofs that some node kept as new to it.
    pub kept: u64,
    /// Outputs that some node accepted.
    pub accepted: u64,
    /// Nodes that were refused for breaking the rules.
    pub refused: u64,
    /// Signatures that were checked: one for each distinct statement that no builder made here.
    pub signatures: u64,
    /// Actions that some rebuilder executed.
    pub rebuilt: u64,
    /// Copies that some rebuilder recognised.
    pub copies: u64,
}

impl std::ops::AddAssign for Report {
    fn add_assign(&mut self, other: Self) {
        self.events += other.events;
        self.messages += other.messages;
        self.kept += other.kept;
        self.accepted += other.accepted;
        self.refused += other.refused;
        self.signatures += other.signatures;
        self.rebuilt += other.rebuilt;
        self.copies += other.copies;
    }
}

/// Why a seed failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("event {event}, at {seconds}.{millis:03} s", seconds = at / 1000, millis = at % 1000)]
pub struct Failure {
    /// The number of the event.
    pub event: u64,
    /// Its moment, in milliseconds.
    pub at: u64,
    /// What must not be.
    #[source]
    pub violation: Violation,
}

/// What happens.
#[derive(Debug)]
enum Event {
    /// A peer wanted to be woken.
    Wake { node: usize },
    /// A question arrives.
    Asked { node: usize, from: usize, connection: u64, question: u64, request: Request },
    /// An answer arrives.
    Answered { node: usize, from: usize, connection: u64, question: u64, answer: Answer },
    /// Gossip arrives.
    Heard { node: usize, from: usize, connection: u64, rumour: Arc<Rumour> },
    /// A piece of an archive arrives, or that it does not.
    Piece { node: usize, from: usize, connection: u64, task: u64, piece: Piece },
    /// A disk has done what it was told.
    Written { node: usize, life: u32, write: Write },
    /// A search has ended.
    Searched { node: usize, life: u32, nar: NarHash },
    /// A node connects to another.
    Dial { node: usize, other: usize, life: u32, wait: u64 },
    /// A node notices that a connection is dead.
    Broken { node: usize, other: usize, connection: u64 },
    /// A builder executes an action, by its place.
    Build { builder: usize, place: usize },
    /// A builder goes on under another key.
    Succeed { builder: usize },
    /// A builder's key is revoked at some node, by its owner or by a thief.
    Revoke { builder: usize, node: usize, owner: bool },
    /// A builder reveals what it committed to.
    Reveal { builder: usize, action: ActionId },
    /// A rebuilder looks what is new.
    Watch { node: usize, life: u32 },
    /// A rebuilder has executed an action.
    Rebuilt { node: usize, life: u32, action: ActionId },
    /// Somebody wishes for what it has not accepted.
    Wish { node: usize },
    /// A hostile node does something by itself.
    Mischief { node: usize },
    /// An archive is wanted again.
    Want { node: usize, action: ActionId },
    /// Something breaks or is mended.
    Deed(Deed),
    /// Nothing breaks any more.
    Calm,
    /// It is looked whether bounds hold.
    Look,
}

/// What a disk is told.
#[derive(Debug)]
enum Write {
    /// Verify, and keep.
    Keep { task: u64, items: Vec<UnverifiedEvidence> },
    /// Keep what this node's builder has signed, and whether it is told when that is done.
    Said { builder: usize, sworn: Arc<Sworn>, tell: bool },
    /// All pieces of an archive are there.
    Admit { nar: NarHash },
}

/// An event, and when.
#[derive(Debug)]
struct Due {
    at: u64,
    number: u64,
    event: Event,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// Nodes, what is on its way between them, and what happens to them.
#[derive(Debug)]
pub struct World<'w> {
    scenario: &'w Scenario,
    variant: Option<Variant>,
    trace: Trace<'w>,
    now: u64,
    events: BinaryHeap<Reverse<Due>>,
    /// Events that came to be.
    number: u64,
    nodes: Vec<Node>,
    builders: Vec<Builder>,
    network: Network,
    notary: Notary,
    /// What executing gives, and what it gives to those whose engine is wrong.
    right: Vec<Execution>,
    wrong: Vec<Execution>,
    /// All actions, and what executing them gives: none is wrong among these.
    actions: BTreeMap<ActionId, Execution>,
    rebuilders: BTreeMap<usize, Rebuilder>,
    /// Whose statement about what some rebuilder knows to be a copy.
    copies: BTreeSet<(AttesterKey, ActionId)>,
    seed: Seed,
    /// Inputs that follow from the one that is being handled.
    soon: VecDeque<(usize, Input)>,
    handling: bool,
    connections: u64,
    report: Report,
    /// Whether somebody who does what he should has accepted what is wrong.
    fooled: bool,
    violation: Option<Violation>,
    measures: Option<Measures>,
}

impl<'w> World<'w> {
    /// The world of a scenario and a seed; all nodes make the mistake `variant`, if there is one.
    pub fn new(scenario: &'w Scenario, seed: u64, variant: Option<Variant>, trace: Trace<'w>) -> Self {
        let root = Seed(seed);
        let mut seed = root.apart(1);
        let graph = Graph::random(scenario.actions, &mut seed);
        let fault = seed.below(scenario.actions);
        let (right, wrong) = (graph.execute(None), graph.execute(Some(fault)));
        let rightly = |e: &Execution| (e.action, Execution { outputs: e.truth.clone(), ..e.clone() });
        let actions = right.iter().chain(&wrong).map(rightly).collect();
        let builders = builders::all(scenario);
        let named = builders.iter().map(Builder::named).collect();
        let rules = Rules::new(&scenario.policy, named, variant);
        let follow: BTreeSet<AttesterKey> = builders.iter().map(|builder| builder.attester).collect();
        let mut nodes = Vec::new();
        let hostile = scenario.hostile.iter().flat_map(|h| std::iter::repeat_n(h.kind, h.count));
        let kinds = std::iter::repeat_n(None, scenario.nodes).chain(hostile.map(Some));
        for (n, kind) in kinds.enumerate() {
            let builds_well = builders.get(n).is_none_or(|builder| builder.kind.is_honest());
            let most = scenario.network.drift as i64;
            let drift = seed.between([0, 2 * scenario.network.drift]) as i64 - most;
            nodes.push(Node::new(&rules, &follow, kind, kind.is_none() && builds_well, drift));
        }
        let network = Network::new(&scenario.network, nodes.len(), root.apart(2));
        let mut world = Self {
            scenario,
            variant,
            trace,
            now: 0,
            events: BinaryHeap::new(),
            number: 0,
            nodes,
            builders,
            network,
            notary: Notary::default(),
            right,
            wrong,
            actions,
            rebuilders: BTreeMap::new(),
            copies: BTreeSet::new(),
            seed,
            soon: VecDeque::new(),
            handling: false,
            connections: 0,
            report: Report::default(),
            fooled: false,
            violation: None,
            measures: None,
        };
        world.know_each_other();
        world.plan_builds();
        for (at, deed) in faults::plan(scenario, &mut root.apart(3)) {
            world.at(at, Event::Deed(deed));
        }
        world.at(scenario.trouble * 1000, Event::Calm);
        world.at(LOOK, Event::Look);
        world
    }

    /// Lets everything happen, up to the event with the number `until`; if that is the last, it is
    /// also looked at what came of it all.
    ///
    /// # Errors
    ///
    /// [`Failure`]: the first thing that must not be.
    pub fn run(&mut self, until: Option<u64>) -> Result<Report, Failure> {
        let end = (self.scenario.trouble + self.scenario.calm) * 1000;
        let is_left =
            |events: &BinaryHeap<Reverse<Due>>| events.peek().is_some_and(|Reverse(due)| due.at < end);
        while is_left(&self.events)
            && let Some(Reverse(due)) = self.events.pop()
        {
            self.now = due.at;
            self.report.events += 1;
            self.happens(due.event);
            self.stop_if_violated()?;
            if until == Some(self.report.events) && is_left(&self.events) {
                return Ok(self.report);
            }
        }
        self.now = end;
        let expect = &self.scenario.expect;
        let at_the_end = invariants::at_the_end(&self.nodes, &self.right, expect, self.fooled);
        self.hold(at_the_end);
        if expect.copies.is_some() {
            let [counting, all] = self.votes(BuilderKind::copies);
            self.hold(invariants::copies(counting, all, expect));
        }
        self.stop_if_violated()?;
        self.report.signatures = self.notary.checks;
        Ok(self.report)
    }

    /// The same, to the end, with what was measured meanwhile.
    ///
    /// # Errors
    ///
    /// [`Failure`]: the first thing that must not be.
    pub fn measure(mut self) -> Result<Measures, Failure> {
        self.measures = Some(Measures::default());
        self.run(None)?;
        let (copies, own) = (self.votes(BuilderKind::copies), self.votes(BuilderKind::is_honest));
        Ok(Measures { copies, own, ..self.measures.take().unwrap_or_default() })
    }

    /// Votes of builders of some kinds at all nodes that do what they should: those that count, and all.
    fn votes(&self, kinds: fn(BuilderKind) -> bool) -> [u64; 2] {
        let [mut counting, mut all] = [0; 2];
        let mut said: BTreeMap<ActionId, BTreeSet<AttesterKey>> = BTreeMap::new();
        for (n, builder) in self.builders.iter().enumerate().filter(|(_, builder)| kinds(builder.kind)) {
            for record in builder.keys().flat_map(|key| self.nodes[n].disk.said(key)) {
                if let Some(record) = &record.record {
                    said.entry(record.action).or_default().insert(record.attester);
                }
            }
        }
        for (action, who) in &said {
            for node in self.nodes.iter().filter(|node| node.honest && !node.gone) {
                counting += node.judge.voters(action).intersection(who).count() as u64;
                all += who.len() as u64;
            }
        }
        [counting, all]
    }

    /// How every node is, in a line each.
    pub fn state(&self) -> String {
        let mut lines = String::new();
        for (n, node) in self.nodes.iter().enumerate() {
            let status = node.peer.status();
            let is = match (node.up, node.hostile) {
                (false, _) => "down".to_owned(),
                (true, Some(kind)) => format!("{kind:?}").to_lowercase(),
                (true, None) => "up".to_owned(),
            };
            let builds = self.builders.get(n).map_or("", |builder| builder.name.as_str());
            lines.push_str(&format!(
                "n{n:<3} {is:<9} {builds:<9} connected {:>3}  statements {:>4}  missing {:>3}  accepted {:>3}\n",
                node.links.len(),
                status.statements,
                status.missing,
                node.judge.accepted.len(),
            ));
        }
        lines
    }

    fn stop_if_violated(&mut self) -> Result<(), Failure> {
        match self.violation.take() {
            None => Ok(()),
            Some(violation) => Err(Failure { event: self.report.events, at: self.now, violation }),
        }
    }

    /// Notes the first thing that does not hold.
    fn hold(&mut self, holds: Result<(), Violation>) {
        if let Err(violation) = holds {
            self.violation.get_or_insert(violation);
        }
    }

    fn line<D: std::fmt::Display>(&mut self, node: usize, what: impl FnOnce() -> D) {
        self.trace.line(self.report.events, self.now, node, what);
    }

    fn at(&mut self, at: u64, event: Event) {
        self.number += 1;
        self.events.push(Reverse(Due { at, number: self.number, event }));
    }

    fn after(&mut self, millis: u64, event: Event) {
        self.at(self.now + millis, event);
    }

    /// Whether a message of that connection still arrives.
    fn arrives(&self, node: usize, from: usize, connection: u64) -> bool {
        self.nodes[node].links.get(&from) == Some(&connection) && self.network.reaches(node, from)
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Wake { node } => {
                if self.nodes[node].wake == Some(self.now) {
                    self.nodes[node].wake = None;
                    self.input(node, Input::Tick);
                }
            }
            Event::Asked { node, from, connection, question, request } => {
                if self.arrives(node, from, connection) {
                    self.count(|| request.to_bytes().len());
                    if let Some(measures) = &mut self.measures {
                        measures.questions += 1;
                    }
                    self.asked(node, from, connection, question, request);
                }
            }
            Event::Answered { node, from, connection, question, answer } => {
                if self.arrives(node, from, connection) {
                    self.count(|| answer.to_bytes().len());
                    self.line(node, || format!("is answered by n{from}: {}", deeds::answer_words(&answer)));
                    self.input(node, Input::Answered { question, answer: Some(answer) });
                }
            }
            Event::Heard { node, from, connection, rumour } => {
                if self.arrives(node, from, connection) {
                    self.count(|| rumour.told.bytes());
                    self.heard(node, from, rumour);
                }
            }
            Event::Piece { node, from, connection, task, piece } => {
                if self.arrives(node, from, connection) && self.nodes[node].fetching.remove(&task) {
                    self.count(|| PIECE_BYTES as usize);
                    self.line(node, || format!("gets a piece of n{from}: {piece:?}"));
                    self.input(node, Input::Piece { task, piece });
                }
            }
            Event::Written { node, life, write } => {
                if self.alive(node, life) {
                    self.written(node, write);
                }
            }
            Event::Searched { node, life, nar } => {
                if self.alive(node, life) {
                    self.found(node, nar);
                    self.input(node, Input::Searched { nar });
                }
            }
            Event::Dial { node, other, life, wait } => {
                if self.alive(node, life) {
                    self.dial(node, other, wait);
                }
            }
            Event::Broken { node, other, connection } => self.broken(node, other, connection),
            Event::Build { builder, place } => self.build(builder, place),
            Event::Succeed { builder } => self.succeed(builder),
            Event::Revoke { builder, node, owner } => self.revoke(builder, node, owner),
            Event::Reveal { builder, action } => self.reveal(builder, action),
            Event::Watch { node, life } => {
                if self.alive(node, life) {
                    self.watch(node);
                }
            }
            Event::Rebuilt { node, life, action } => {
                if self.alive(node, life) {
                    self.rebuilt(node, action);
                }
            }
            Event::Wish { node } => self.wish(node),
            Event::Mischief { node } => self.mischief(node),
            Event::Want { node, action } => self.want(node, &action),
            Event::Deed(deed) => self.deed(deed),
            Event::Calm => self.calm(),
            Event::Look => {
                self.after(LOOK, Event::Look);
                // Who has the keys of a thousand strangers himself is beyond what is allowed.
                for n in 0..self.scenario.nodes {
                    let peer = &self.nodes[n].peer;
                    let (status, followed) = (peer.status(), peer.followed().len());
                    let wishes = peer.wishes(self.nodes[n].local(self.now)).count();
                    let queue = self.rebuilders.get(&n).map_or(0, Rebuilder::waiting);
                    self.hold(invariants::bounds(n, &status, followed, wishes, queue));
                }
            }
        }
    }

    /// A message arrives, of so many bytes.
    fn count(&mut self, bytes: impl FnOnce() -> usize) {
        self.report.messages += 1;
        if let Some(measures) = &mut self.measures {
            measures.messages += 1;
            measures.bytes += bytes() as u64;
        }
    }

    fn alive(&self, node: usize, life: u32) -> bool {
        self.nodes[node].up && self.nodes[node].life == life
    }

    /// Gives a peer an input, and does what it wants done, and what follows from that.
    fn input(&mut self, node: usize, input: Input) {
        self.soon.push_back((node, input));
        if std::mem::replace(&mut self.handling, true) {
            return;
        }
        while let Some((n, input)) = self.soon.pop_front() {
            let node = &mut self.nodes[n];
            if !node.up {
                continue;
            }
            let local = node.local(self.now);
            // Whatever state it is in then, nothing more happens in this world.
            let handled = catch_unwind(AssertUnwindSafe(|| node.peer.handle(input, local)));
            let Ok(effects) = handled else {
                self.hold(Err(Violation::Panic { node: n }));
                break;
            };
            effects.into_iter().for_each(|effect| self.effect(n, effect));
            self.set_alarm(n);
        }
        self.handling = false;
    }

    fn set_alarm(&mut self, n: usize) {
        let node = &self.nodes[n];
        let Some(wake) = node.peer.wake().filter(|_| node.up) else { return };
        if wake <= node.local(self.now) {
            return self.hold(Err(Violation::Restless { node: n }));
        }
        let at = node.global(wake);
        // An alarm that is set too early is looked at again then.
        if node.wake.is_none_or(|set| at < set) {
            self.nodes[n].wake = Some(at);
            self.at(at, Event::Wake { node: n });
        }
    }

    /// Something new is kept about these actions: a node judges them again.
    fn judge(&mut self, n: usize, about: BTreeSet<ActionId>) {
        self.hear_of(n, &about);
        self.copy_what_is_new(n, &about);
        self.reveal_soon(n, &about);
        for action in about {
            let Outcome::Accepted { outputs } = self.nodes[n].judge.decide(&action) else {
                self.nodes[n].judge.accepted.remove(&action);
                continue;
            };
            if self.nodes[n].honest {
                let truth = self.actions.get(&action).map(|execution| &execution.truth);
                let fooled = self.scenario.expect.fooled;
                self.fooled |= truth != Some(&outputs);
                let holds = invariants::accepted(n, &self.nodes[n], &action, &outputs, truth, fooled);
                self.hold(holds);
            }
            let nar = archive(&outputs);
            if self.nodes[n].judge.accepted.insert(action, outputs).is_none() {
                self.report.accepted += 1;
                if let Some(measures) = &mut self.measures {
                    measures.accepted.entry((n, action)).or_insert([self.nodes[n].born, self.now]);
                }
                self.line(n, || format!("accepts {} of {}", short(&nar), short(&action)));
                self.want(n, &action);
            }
        }
    }

    /// A node wants the archive of what it accepts, if it has it not.
    fn want(&mut self, n: usize, action: &ActionId) {
        let node = &self.nodes[n];
        if !self.scenario.fetch || !node.up || node.hostile.is_some() {
            return;
        }
        let Some(output) = node.judge.accepted.get(action).and_then(|outputs| outputs.values().next()) else {
            return;
        };
        if node.disk.nars.contains(&output.nar) {
            return;
        }
        let (nar, size) = (output.nar, output.size);
        let missing = (0..protocol::message::pieces(size)).collect();
        self.line(n, || format!("wants {}", short(&nar)));
        self.input(n, Input::Want { nar, size, missing });
    }

    /// Looks at what came of something that was kept.
    fn look_at_fates(&mut self, n: usize, items: &[UnverifiedEvidence], fates: &[Fate]) {
        for (item, fate) in items.iter().zip(fates) {
            self.report.kept += u64::from(matches!(fate, Fate::New | Fate::Equivocation(_)));
            let proof = matches!(fate, Fate::Equivocation(_))
                || matches!((item, fate), (UnverifiedEvidence::Equivocation(_), Fate::New));
            let attester = item.attester();
            if proof {
                self.line(n, || format!("has a proof against {}", short(&attester)));
                let honest = self.builders.iter().filter(|builder| builder.kind.is_honest());
                if honest.flat_map(Builder::keys).any(|key| *key == attester) {
                    self.hold(Err(Violation::HonestEquivocator { attester }));
                }
            }
        }
    }
}

impl World<'_> {
    /// Who wants to be connected to whom, and begins.
    fn know_each_other(&mut self) {
        let (honest, all) = (self.scenario.nodes, self.nodes.len());
        let eclipse = self.scenario.fault.contains(&Fault::Eclipse);
        let (victim, first) = (honest - 1, honest);
        for n in 0..all {
            let mut wants = BTreeSet::new();
            if n < honest {
                wants.insert((n + 1) % honest);
                wants.extend((0..self.scenario.links).map(|_| self.seed.below(all)));
            } else {
                wants.extend((0..self.scenario.links + 2).map(|_| self.seed.below(honest)));
            }
            if self.nodes[n].hostile == Some(HostileKind::Eclipse) {
                wants.insert(victim);
            }
            wants.remove(&n);
            self.nodes[n].wants = wants;
        }
        if eclipse {
            self.network.eclipse(victim, first);
        }
        for n in 0..all {
            for other in self.nodes[n].wants.clone() {
                let wait = self.seed.between([0, 1000]);
                self.dial_in(n, other, wait);
            }
            if self.nodes[n].hostile.is_some() {
                let wait = self.seed.between([1000, 5000]);
                self.after(wait, Event::Mischief { node: n });
            }
        }
    }
}

/// An id, as short as people can tell it from others.
fn short(id: &impl std::fmt::Display) -> String {
    id.to_string().chars().take(10).collect()
}

/// Whether nodes of a kind, hostile or not, pass on gossip.
fn relays(kind: Option<HostileKind>) -> bool {
    match kind {
        None
        | Some(
            HostileKind::Poison
            | HostileKind::Spam
            | HostileKind::FloodWishes
            | HostileKind::Sybil
            | HostileKind::Replay,
        ) => true,
        Some(HostileKind::Withhold | HostileKind::FreeRide | HostileKind::Silent | HostileKind::Eclipse) => {
            false
        }
    }
}
