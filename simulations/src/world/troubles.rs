//! What happens to nodes and lines: connections that open, break and close, nodes that stop and
//! start, and the calm behind it.

use protocol::key::AttesterKey;
use trust::peer::Input;

use super::{Event, World};
use crate::{builds::archive, faults::Deed, node, scenario::BuilderKind};

/// Milliseconds until a node is dialled again, at first and at most: as the driver has it.
const REDIAL: u64 = 1_000;
/// See [`REDIAL`].
const REDIAL_MOST: u64 = 5_000;

/// Milliseconds after which a node notices that a connection is dead, at most. One in two is
/// noticed at once.
const NOTICED: u64 = 20_000;

impl World<'_> {
    pub(super) fn dial_in(&mut self, n: usize, other: usize, wait: u64) {
        self.dial_later(n, other, wait, REDIAL);
    }

    /// Dials once for each two nodes at a time; `again` is how long it waits if that fails.
    fn dial_later(&mut self, n: usize, other: usize, wait: u64, again: u64) {
        let node = &mut self.nodes[n];
        if node.up && node.dialling.insert(other) {
            let life = node.life;
            self.after(wait, Event::Dial { node: n, other, life, wait: again });
        }
    }

    pub(super) fn dial(&mut self, n: usize, other: usize, wait: u64) {
        self.nodes[n].dialling.remove(&other);
        if self.nodes[n].links.contains_key(&other) {
            return;
        }
        if !self.nodes[other].up || !self.network.reaches(n, other) {
            if self.nodes[n].wants.contains(&other) {
                self.dial_later(n, other, wait, (2 * wait).min(REDIAL_MOST));
            }
            return;
        }
        // What the other one has not noticed yet, it notices now.
        if self.nodes[other].links.contains_key(&n) {
            self.close(other, n);
        }
        self.connections += 1;
        for (a, b) in [(n, other), (other, n)] {
            self.nodes[a].links.insert(b, self.connections);
        }
        for (a, b) in [(n, other), (other, n)] {
            self.line(a, || format!("is connected to n{b}"));
            self.input(a, Input::Connected { node: node::id(b) });
        }
    }

    /// Closes a connection, on both sides.
    pub(super) fn close(&mut self, a: usize, b: usize) {
        for (a, b) in [(a, b), (b, a)] {
            if self.nodes[a].links.remove(&b).is_none() {
                continue;
            }
            self.line(a, || format!("is not connected to n{b} any more"));
            self.input(a, Input::Disconnected { node: node::id(b) });
            if self.nodes[a].wants.contains(&b) {
                let wait = self.seed.between([REDIAL, REDIAL_MOST]);
                self.dial_later(a, b, wait, REDIAL);
            }
        }
    }

    /// A node notices that a connection is dead, if it still is.
    pub(super) fn broken(&mut self, n: usize, other: usize, connection: u64) {
        let theirs = self.nodes[other].links.get(&n);
        let dead = !self.network.reaches(n, other) || theirs != Some(&connection);
        if self.nodes[n].links.get(&other) == Some(&connection) && dead {
            self.close(n, other);
        }
    }

    /// Connections of a node that are dead are noticed, sooner or later.
    fn notice(&mut self, n: usize) {
        let links: Vec<_> = self.nodes[n].links.iter().map(|(other, c)| (*other, *c)).collect();
        for (other, connection) in links {
            let dead = !self.network.reaches(n, other) || !self.nodes[other].links.contains_key(&n);
            if dead {
                let wait = if self.seed.chance(500) { 0 } else { self.seed.between([0, NOTICED]) };
                self.after(wait, Event::Broken { node: n, other, connection });
            }
        }
    }

    fn all_notice(&mut self) {
        (0..self.nodes.len()).for_each(|n| self.notice(n));
    }

    pub(super) fn deed(&mut self, deed: Deed) {
        match deed {
            Deed::Part { half } => {
                self.line(0, || "the network falls into two halves");
                self.network.part(half);
                self.all_notice();
            }
            Deed::Join => {
                self.line(0, || "the halves are one again");
                self.network.join();
            }
            Deed::Cut { node } => {
                self.line(node, || "is cut off");
                self.network.cut(node);
                self.all_notice();
            }
            Deed::Mend { node } => {
                self.line(node, || "is not cut off any more");
                self.network.mend(node);
            }
            Deed::Stop { node, empty } => self.stop(node, empty),
            Deed::Start { node } => self.start(node),
            Deed::Leave { node } => self.leave(node),
            Deed::Slow { node } => self.nodes[node].slow = true,
            Deed::Fast { node } => self.nodes[node].slow = false,
            Deed::Rot { node } => self.rot(node),
        }
    }

    fn stop(&mut self, n: usize, empty: bool) {
        if !self.nodes[n].up {
            return;
        }
        self.line(n, || if empty { "is killed, and its disk is lost" } else { "is killed" });
        self.nodes[n].stop(empty);
        self.builder_is_killed(n);
        self.rebuilders.remove(&n);
        self.all_notice();
    }

    /// A node leaves for good. Whoever wanted to be connected to it finds another, as a search would.
    fn leave(&mut self, n: usize) {
        self.line(n, || "leaves");
        self.stop(n, true);
        self.nodes[n].gone = true;
        for other in 0..self.nodes.len() {
            if self.nodes[other].wants.remove(&n) {
                let found: Vec<usize> = (0..self.scenario.nodes).collect();
                let found = found.into_iter().filter(|found| *found != other && !self.nodes[*found].gone);
                if let Some(found) = self.seed.pick(&found.collect::<Vec<_>>()) {
                    self.nodes[other].wants.insert(found);
                    self.dial_in(other, found, REDIAL);
                }
            }
        }
    }

    fn start(&mut self, n: usize) {
        if self.nodes[n].up || self.nodes[n].gone {
            return;
        }
        self.line(n, || "starts");
        let about = self.nodes[n].start(self.now);
        if self.builders.get(n).is_some_and(|builder| builder.kind == BuilderKind::Rebuild) {
            self.begin_to_rebuild(n);
        }
        for other in self.nodes[n].wants.clone() {
            self.dial_in(n, other, REDIAL);
        }
        self.input(n, Input::Tick);
        self.judge(n, about);
        // Who has lost what it said, and does not know it, goes on at once.
        let restored = self.builders.get(n).is_some_and(|builder| builder.kind == BuilderKind::Restored);
        if restored && self.nodes[n].disk.said(&self.builders[n].attester).is_empty() {
            self.build(n, 0);
        }
    }

    /// A record, or an archive, is not what it was. What the node's own builder said is on two
    /// disks: without it a builder must not go on, and that is another story.
    fn rot(&mut self, n: usize) {
        let own = self.builders.get(n).map(|builder| builder.attester);
        let nars: Vec<_> = self.nodes[n].disk.nars.iter().copied().collect();
        if let Some(nar) = self.seed.pick(&nars).filter(|_| self.seed.chance(500)) {
            self.nodes[n].disk.nars.remove(&nar);
            return self.line(n, || "has a rotten archive");
        }
        let others = self.nodes[n].disk.attesters().into_iter().filter(|attester| Some(*attester) != own);
        let others: Vec<AttesterKey> = others.collect();
        if let Some(attester) = self.seed.pick(&others) {
            let place = self.seed.below(self.nodes[n].disk.said(&attester).len());
            self.nodes[n].disk.rot(&attester, place);
            self.line(n, || format!("cannot read statement {place} of {} any more", super::short(&attester)));
        }
    }

    /// Nothing breaks any more: lines are mended, nodes start, owners have their disks looked at.
    pub(super) fn calm(&mut self) {
        self.line(0, || "it is calm");
        self.network.heal();
        for n in 0..self.nodes.len() {
            self.nodes[n].slow = false;
            if self.nodes[n].disk.rotten() {
                self.stop(n, false);
            }
            self.start(n);
            for action in self.nodes[n].judge.accepted.keys().copied().collect::<Vec<_>>() {
                self.want(n, &action);
            }
        }
        // What was built here and is rotten is built again.
        for node in self.nodes.iter_mut().filter(|node| node.honest) {
            let built =
                self.actions.values().filter(|execution| node.judge.execution(&execution.action).is_some());
            node.disk.nars.extend(built.map(|execution| archive(&execution.outputs)));
        }
    }
}
