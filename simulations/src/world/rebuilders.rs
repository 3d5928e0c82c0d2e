//! Rebuilders, and whoever wishes that they do something: what others say or wish is executed in the
//! order of [`trust::rebuild::Queue`], and what it gives is signed.
//!
//! As a real rebuilder does it: once a second it looks what is new, and executes one action at a
//! time. What an action is it asks of the nodes that it is connected to.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{
    id::ActionId,
    key::AttesterKey,
    message::{Answer, KnownAction},
    wish::Wish,
};
use trust::{
    peer::{Input, Sought},
    rebuild::Queue,
};

use super::{Event, World, short};
use crate::scenario::BuilderKind;

/// Milliseconds between two looks at what is new.
const LOOK: u64 = 1_000;

/// Milliseconds after which whoever waits says so again.
const WISH: u64 = 60_000;

/// Actions, and who wishes them.
type Wished = BTreeMap<ActionId, BTreeSet<AttesterKey>>;

/// What a rebuilder is doing. Nothing of it is on its disk.
#[derive(Debug)]
pub(super) struct Rebuilder {
    queue: Queue,
    /// Actions about which something was heard since it looked last.
    news: BTreeSet<ActionId>,
    wished: Wished,
    /// Whether it executes something, or looks for what it is.
    running: bool,
}

impl Rebuilder {
    /// How many actions wait, or run.
    pub(super) fn waiting(&self) -> usize {
        self.queue.len()
    }
}

impl World<'_> {
    /// A rebuilder begins with what its disk has.
    pub(super) fn begin_to_rebuild(&mut self, n: usize) {
        let queue = Queue::new(self.builders[n].attester, self.scenario.votes);
        let rebuilder = Rebuilder { queue, news: BTreeSet::new(), wished: Wished::new(), running: false };
        self.rebuilders.insert(n, rebuilder);
        self.after(LOOK, Event::Watch { node: n, life: self.nodes[n].life });
    }

    /// A node hears something about these actions.
    pub(super) fn hear_of(&mut self, n: usize, about: &BTreeSet<ActionId>) {
        let Some(rebuilder) = self.rebuilders.get_mut(&n) else { return };
        rebuilder.news.extend(about);
        about.iter().for_each(|action| self.look_for_copies(n, action));
    }

    /// A rebuilder looks what is new.
    pub(super) fn watch(&mut self, n: usize) {
        self.after(LOOK, Event::Watch { node: n, life: self.nodes[n].life });
        let own = self.builders[n].attester;
        let node = &self.nodes[n];
        let now = node.local(self.now);
        let mut wished = Wished::new();
        for wish in node.peer.wishes(now) {
            let who = wish.attester();
            if who != own && node.judge.rules().named.contains_key(&who) {
                wish.actions().iter().for_each(|action| _ = wished.entry(*action).or_default().insert(who));
            }
        }
        let Some(rebuilder) = self.rebuilders.get_mut(&n) else { return };
        let before = std::mem::replace(&mut rebuilder.wished, wished);
        let wished = &rebuilder.wished;
        let mut changed = std::mem::take(&mut rebuilder.news);
        changed.extend(wished.keys().filter(|action| !before.contains_key(action)));
        changed.extend(before.keys().filter(|action| !wished.contains_key(action)));
        for action in changed {
            match node.judge.need(&own, &action, wished.get(&action)) {
                Some(need) => _ = rebuilder.queue.offer(action, need, now),
                None => rebuilder.queue.done(&action),
            }
        }
        self.rebuild(n);
    }

    /// A rebuilder begins with the next action, if it has time; near the end it does not, so that
    /// what is said comes to an end.
    fn rebuild(&mut self, n: usize) {
        let over = (self.scenario.trouble + self.scenario.calm / 2) * 1000;
        let now = self.nodes[n].local(self.now);
        let Some(rebuilder) = self.rebuilders.get_mut(&n).filter(|rebuilder| !rebuilder.running) else {
            return;
        };
        if self.now < over
            && let Some(action) = rebuilder.queue.next(now)
        {
            rebuilder.running = true;
            self.input(n, Input::Seek { sought: Sought::Action(action) });
        }
    }

    /// Somebody told a rebuilder what an action is, or nobody did.
    pub(super) fn sought(&mut self, n: usize, action: ActionId, found: bool) {
        let (now, life) = (self.nodes[n].local(self.now), self.nodes[n].life);
        let Some(rebuilder) = self.rebuilders.get_mut(&n) else { return };
        if !found {
            rebuilder.running = false;
            rebuilder.queue.again(&action, now);
            return self.line(n, || format!("is told by nobody what {} is", short(&action)));
        }
        self.line(n, || format!("executes {}", short(&action)));
        let [from, to] = self.scenario.execution.map(|seconds| seconds * 1000);
        let takes = self.seed.between([from, to]);
        self.after(takes, Event::Rebuilt { node: n, life, action });
    }

    /// A rebuilder has executed an action, and says what came of it when its disk is ready for that.
    pub(super) fn rebuilt(&mut self, n: usize, action: ActionId) {
        if self.builders[n].writing {
            return self.after(LOOK, Event::Rebuilt { node: n, life: self.nodes[n].life, action });
        }
        if let Some(rebuilder) = self.rebuilders.get_mut(&n) {
            rebuilder.running = false;
            rebuilder.queue.done(&action);
        }
        self.report.rebuilt += 1;
        let execution = self.actions[&action].clone();
        self.execute(n, 0, &execution);
        self.judge(n, BTreeSet::from([action]));
        self.rebuild(n);
    }

    /// Whether a rebuilder sees that somebody copied what he says of an action.
    fn look_for_copies(&mut self, n: usize, action: &ActionId) {
        for attester in self.nodes[n].judge.copycats(action) {
            if self.copies.insert((attester, *action)) {
                self.report.copies += 1;
                if let Some(measures) = &mut self.measures {
                    measures.recognised.insert((attester, *action), self.now);
                }
                self.line(n, || format!("sees that {} copied {}", short(&attester), short(action)));
            }
        }
    }

    /// What a node says an action is: who executed it, accepts it or wishes it has evaluated it, and
    /// a commitment says what it is about, or nobody could execute that in time.
    pub(super) fn what_is(&self, n: usize, action: &ActionId) -> Answer {
        let judge = &self.nodes[n].judge;
        let builder = self.builders.get(n);
        let wishes = builder.is_some_and(|builder| builder.kind == BuilderKind::Wish);
        let has_it = judge.execution(action).is_some() || judge.accepted.contains_key(action);
        let knows = has_it || wishes || judge.committed(action) > 0;
        match self.actions.get(action).filter(|_| knows) {
            Some(execution) => Answer::Action(Box::new(KnownAction {
                action: execution.what.clone(),
                name: None,
                sizes: Vec::new(),
            })),
            None => Answer::Absent,
        }
    }

    /// Somebody begins to wish, in the first minute.
    pub(super) fn begin_to_wish(&mut self, n: usize) {
        let wait = self.seed.between([0, WISH]);
        self.after(wait, Event::Wish { node: n });
    }

    /// Somebody wishes for what it has not accepted.
    pub(super) fn wish(&mut self, n: usize) {
        self.after(WISH, Event::Wish { node: n });
        let accepted = &self.nodes[n].judge.accepted;
        let lacking = self.right.iter().map(|execution| execution.action);
        let lacking: Vec<_> = lacking.filter(|action| !accepted.contains_key(action)).collect();
        if !lacking.is_empty() {
            let wish = Wish::sign(&self.builders[n].key, self.now, lacking);
            self.input(n, Input::Wish { wish });
        }
    }
}
