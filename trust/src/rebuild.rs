//! What a rebuilder executes next (SPEC §20.2).
//!
//! ```text
//! statements, wishes ── offer ──▶ Queue ── next ──▶ execution ── done / again ──▶ Queue
//! ```
//!
//! First what is disputed, then what is wished, then what has the fewest votes. Rebuilders who know
//! each other's keys share the work without talking: each action is first the turn of those whose
//! keys score highest for it ([`turn`]), as many as votes are missing; the others follow after a
//! while, in case those are away. Nothing here is believed, or decides anything but the order.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use protocol::{id::ActionId, key::AttesterKey, wish::turn};

use crate::{
    ledger::Claims,
    limits::{
        REBUILD_FAILURES, REBUILD_PAUSE, REBUILD_PAUSE_MOST, REBUILD_TURN, REBUILD_TURN_WISHED, REBUILDS,
    },
    peer::Time,
};

/// What is known of an action that might be executed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Need {
    /// Voters who attested it.
    pub votes: usize,
    /// Whether they name different outputs.
    pub disputed: bool,
    /// Whether somebody who is listened to wishes it.
    pub wished: bool,
    /// How many others come first: it is more their turn.
    pub before: usize,
}

impl Need {
    /// What a rebuilder with the key `own` is to do about an action; `None` if it has spoken about it.
    ///
    /// `spoken` are all who have, strangers too; `wishers` those who wish it, if anybody who is
    /// listened to does; `others` all who may execute it as well.
    pub fn of(
        own: &AttesterKey,
        action: &ActionId,
        claims: &Claims,
        spoken: &BTreeSet<AttesterKey>,
        wishers: Option<&BTreeSet<AttesterKey>>,
        others: impl IntoIterator<Item = AttesterKey>,
    ) -> Option<Self> {
        if spoken.contains(own) {
            return None;
        }
        let wishes = |key: &AttesterKey| wishers.is_some_and(|wishers| wishers.contains(key));
        let may = others.into_iter().filter(|key| !spoken.contains(key) && !wishes(key));
        let before = before(own, may, action);
        let (votes, disputed) = (claims.votes().count(), claims.sides.len() > 1);
        Some(Self { votes, disputed, wished: wishers.is_some(), before })
    }
}

/// Actions that wait to be executed by one rebuilder.
#[derive(Debug, Clone)]
pub struct Queue {
    own: AttesterKey,
    /// How many votes each action is to have.
    enough: usize,
    actions: BTreeMap<ActionId, Entry>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    need: Need,
    /// How much it is this rebuilder's turn.
    turn: [u8; 32],
    since: Time,
    /// Not before then.
    rest: Time,
    failures: u32,
    running: bool,
}

impl Queue {
    /// An empty queue of the rebuilder with the key `own`, for whom an action with `enough` votes
    /// needs no more.
    pub fn new(own: AttesterKey, enough: usize) -> Self {
        Self { own, enough, actions: BTreeMap::new() }
    }

    /// An action may need executing, or what is known of it has changed. Whether it is in the
    /// queue: it is not if it needs nothing, or if [`REBUILDS`] others wait.
    pub fn offer(&mut self, action: ActionId, need: Need, now: Time) -> bool {
        let full = self.is_full();
        let needed = need.disputed || need.wished || need.votes < self.enough;
        match self.actions.get_mut(&action) {
            Some(entry) if needed || entry.running => {
                entry.need = need;
                true
            }
            Some(_) => {
                self.actions.remove(&action);
                false
            }
            None if !needed || full => false,
            None => {
                let turn = turn(&self.own, &action);
                let entry = Entry { need, turn, since: now, rest: now, failures: 0, running: false };
                self.actions.insert(action, entry);
                true
            }
        }
    }

    /// The action whose turn it is, which is running from now on.
    pub fn next(&mut self, now: Time) -> Option<ActionId> {
        let enough = self.enough;
        let due = self.actions.iter().filter(|(_, entry)| !entry.running && entry.due(enough) <= now);
        let order = |(action, entry): &(&ActionId, &Entry)| {
            let Need { votes, disputed, wished, .. } = entry.need;
            (Reverse(disputed), Reverse(wished), votes, Reverse(entry.turn), **action)
        };
        let (action, _) = due.min_by_key(order)?;
        let action = *action;
        self.actions.get_mut(&action).expect("it was just found").running = true;
        Some(action)
    }

    /// When [`Queue::next`] has something, if nothing else happens; `None`: nothing waits.
    pub fn wake(&self) -> Option<Time> {
        self.actions.values().filter(|entry| !entry.running).map(|entry| entry.due(self.enough)).min()
    }

    /// An action was executed, or is not to be.
    pub fn done(&mut self, action: &ActionId) {
        self.actions.remove(action);
    }

    /// An action could not be executed, for a reason that may pass. When it is tried again; `None`
    /// if it has failed [`REBUILD_FAILURES`] times and is left alone.
    pub fn again(&mut self, action: &ActionId, now: Time) -> Option<Time> {
        let entry = self.actions.get_mut(action)?;
        entry.failures += 1;
        if entry.failures >= REBUILD_FAILURES {
            self.actions.remove(action);
            return None;
        }
        let pause = REBUILD_PAUSE.saturating_mul(1 << (2 * (entry.failures - 1)).min(32));
        entry.rest = now.after(pause.min(REBUILD_PAUSE_MOST));
        entry.running = false;
        Some(entry.rest)
    }

    /// How many actions wait, or run.
    pub fn len(&self) -> usize {
        self.actions.len()
    }

    /// Whether none does.
    pub fn is_empty(&self) -> bool {
        self.actions.is_empty()
    }

    /// Whether no more are taken.
    pub fn is_full(&self) -> bool {
        self.actions.len() >= REBUILDS
    }
}

impl Entry {
    /// When it may run: those who come first get a while each to do it, as far as their votes
    /// are needed.
    fn due(&self, enough: usize) -> Time {
        let missing = enough.saturating_sub(self.need.votes).max(1);
        let turns = u64::try_from((self.need.before + 1).saturating_sub(missing)).unwrap_or(u64::MAX);
        let turn = if self.need.wished { REBUILD_TURN_WISHED } else { REBUILD_TURN };
        self.rest.max(self.since.after(turn.saturating_mul(turns)))
    }
}

/// Of how many of `others` it is more the turn than of `own`.
fn before(own: &AttesterKey, others: impl IntoIterator<Item = AttesterKey>, action: &ActionId) -> usize {
    let mine = turn(own, action);
    others.into_iter().filter(|other| turn(other, action) > mine).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> AttesterKey {
        AttesterKey::from_bytes([n; 32])
    }

    fn action(n: u16) -> ActionId {
        let mut bytes = [7; 32];
        bytes[..2].copy_from_slice(&n.to_be_bytes());
        ActionId::from_bytes(bytes)
    }

    fn votes(votes: usize) -> Need {
        Need { votes, ..Need::default() }
    }

    const NOW: Time = Time(1000);

    #[test]
    fn what_is_needed_most_comes_first() {
        let mut queue = Queue::new(key(1), 3);
        let wished = Need { wished: true, ..votes(2) };
        let disputed = Need { disputed: true, ..votes(9) };
        assert!(!queue.offer(action(0), votes(3), NOW), "it has enough");
        for (n, need) in [(1, votes(2)), (2, votes(1)), (3, wished), (4, disputed)] {
            assert!(queue.offer(action(n), need, NOW));
        }
        let order: Vec<_> = std::iter::from_fn(|| queue.next(NOW)).collect();
        assert_eq!(order, [4, 3, 2, 1].map(action));
        assert_eq!((queue.len(), queue.wake()), (4, None), "all run");
        order.iter().for_each(|action| queue.done(action));
        assert!(queue.is_empty());
    }

    #[test]
    fn what_others_did_meanwhile_is_not_needed() {
        let mut queue = Queue::new(key(1), 2);
        assert!(queue.offer(action(1), votes(1), NOW) && queue.offer(action(2), votes(1), NOW));
        assert!(!queue.offer(action(1), votes(2), NOW));
        assert_eq!((queue.next(NOW), queue.next(NOW)), (Some(action(2)), None));
        assert!(queue.offer(action(2), votes(2), NOW), "it runs, and ends as it will");
    }

    #[test]
    fn rebuilders_share_the_work() {
        let keys: Vec<_> = (1..=5).map(key).collect();
        let mut at_once = BTreeMap::new();
        for own in &keys {
            let mut queue = Queue::new(*own, 3);
            for n in 0..200 {
                let before = before(own, keys.iter().copied(), &action(n));
                queue.offer(action(n), Need { before, ..votes(1) }, NOW);
            }
            let mine: Vec<_> = std::iter::from_fn(|| queue.next(NOW)).collect();
            assert!((40..120).contains(&mine.len()), "{}", mine.len());
            mine.iter().for_each(|action| *at_once.entry(*action).or_insert(0) += 1);
            // The others are away: after a while it is everybody's turn.
            let later = NOW.after(3 * REBUILD_TURN);
            assert_eq!(mine.len() + std::iter::from_fn(|| queue.next(later)).count(), 200);
        }
        assert!(at_once.len() == 200 && at_once.values().all(|n| *n == 2), "two votes are missing of each");
    }

    #[test]
    fn the_turn_comes_to_the_millisecond() {
        for (need, turns, turn) in [
            (Need { before: 3, ..votes(1) }, 3, REBUILD_TURN),
            (Need { before: 3, ..votes(0) }, 2, REBUILD_TURN),
            (Need { before: 3, wished: true, ..votes(9) }, 3, REBUILD_TURN_WISHED),
            (Need { before: 0, ..votes(1) }, 0, REBUILD_TURN),
        ] {
            let mut queue = Queue::new(key(1), 2);
            assert!(queue.offer(action(1), need, NOW));
            let due = NOW.after(turns * turn);
            assert_eq!(queue.wake(), Some(due));
            assert!(turns == 0 || queue.next(Time(due.0 - 1)).is_none());
            assert_eq!(queue.next(due), Some(action(1)));
        }
    }

    #[test]
    fn what_fails_is_left_alone_for_longer_and_longer() {
        let mut queue = Queue::new(key(1), 2);
        queue.offer(action(1), votes(0), NOW);
        let mut now = NOW;
        let mut pauses = Vec::new();
        while let Some(action) = queue.next(now) {
            let Some(rest) = queue.again(&action, now) else { break };
            assert_eq!((queue.next(Time(rest.0 - 1)), queue.wake()), (None, Some(rest)));
            pauses.push(rest.0 - now.0);
            now = rest;
        }
        assert_eq!(pauses.len() as u32, REBUILD_FAILURES - 1);
        assert!(
            pauses.is_sorted() && pauses[0] == REBUILD_PAUSE && *pauses.last().unwrap() <= REBUILD_PAUSE_MOST
        );
        assert!(queue.is_empty() && queue.again(&action(1), now).is_none());
    }

    #[test]
    fn the_queue_is_bounded() {
        let mut queue = Queue::new(key(1), 1);
        for n in 0..REBUILDS {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&n.to_be_bytes());
            assert!(!queue.is_full() && queue.offer(ActionId::from_bytes(bytes), votes(0), NOW));
        }
        assert!(queue.is_full() && !queue.offer(action(1), votes(0), NOW));
    }
}
