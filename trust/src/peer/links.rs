//! What is known of each connected node, and what it may cost.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{
    id::{NarHash, StatementId},
    key::AttesterKey,
    message::{FeedHead, ProofsDigest},
};

use super::{NodeId, Time, Why};
use crate::limits::{BANISHED, BANISHED_NODES, GOSSIP, REQUESTS, SAID, STRIKE_LIFE, STRIKES, WISHES};

/// All connected nodes.
#[derive(Debug, Clone, Default)]
pub(super) struct Links {
    links: BTreeMap<NodeId, Link>,
    /// Until when.
    banished: BTreeMap<NodeId, Time>,
}

/// A connected node.
#[derive(Debug, Clone)]
pub(super) struct Link {
    /// What it says to have of each feed that is wanted here.
    pub(super) said: BTreeMap<AttesterKey, Said>,
    /// Proofs it was asked for.
    proofs: BTreeSet<(AttesterKey, ProofsDigest)>,
    /// When it is asked for heads next.
    pub(super) round: Time,
    /// Answers with heads that are still read in this round.
    pub(super) pages: u32,
    /// Questions that it has not answered yet.
    pub(super) asked: u32,
    /// Archives that it is still to be asked about, and whether it was asked about others just now.
    pub(super) have: BTreeSet<NarHash>,
    pub(super) asked_have: bool,
    /// How often it had no time to say what it has, one after the other.
    pub(super) busy: u32,
    /// Pieces that it was asked for and that have not come.
    pub(super) pieces: usize,
    /// Bytes that it sends in a second; 0 if that is not known.
    pub(super) speed: u64,
    /// It is not asked for pieces before then.
    pub(super) rest: Time,
    strikes: u32,
    /// How many of them are for silence.
    silences: u32,
    /// Since when they are as many: one is forgotten each [`STRIKE_LIFE`].
    struck: Time,
    pub(super) requests: Bucket,
    pub(super) gossip: Bucket,
    pub(super) wishes: Bucket,
}

/// Where a feed ends, as a node says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Said {
    pub(super) len: u64,
    /// The last statement, if it said which.
    pub(super) last: Option<StatementId>,
}

impl Links {
    /// A node is connected. `wanted` are archives that it is to be asked about.
    pub(super) fn open(&mut self, node: NodeId, wanted: BTreeSet<NarHash>, now: Time) -> Result<(), Why> {
        self.banished.retain(|_, until| *until > now);
        if self.banished.contains_key(&node) {
            return Err(Why::Banished);
        }
        self.links.entry(node).or_insert(Link {
            said: BTreeMap::new(),
            proofs: BTreeSet::new(),
            round: now,
            pages: 0,
            asked: 0,
            have: wanted,
            asked_have: false,
            busy: 0,
            pieces: 0,
            speed: 0,
            rest: now,
            strikes: 0,
            silences: 0,
            struck: now,
            requests: Bucket::new(REQUESTS),
            gossip: Bucket::new(GOSSIP),
            wishes: Bucket::new(WISHES),
        });
        Ok(())
    }

    pub(super) fn close(&mut self, node: NodeId) {
        self.links.remove(&node);
    }

    /// Counts something against a node; whether it is to go.
    pub(super) fn strike(&mut self, node: NodeId, why: Why, now: Time) -> bool {
        let Some(link) = self.links.get_mut(&node) else { return false };
        link.forget(now);
        link.silences += u32::from(why == Why::Silent);
        link.strikes += match why {
            Why::Wrong => STRIKES,
            Why::Forged | Why::Nonsense => 4,
            Why::Silent | Why::Banished => 1,
        };
        let out = link.strikes >= STRIKES;
        if out && self.banished.len() < BANISHED_NODES {
            self.banished.insert(node, now.after(BANISHED));
        }
        out
    }

    pub(super) fn get(&self, node: &NodeId) -> Option<&Link> {
        self.links.get(node)
    }

    pub(super) fn get_mut(&mut self, node: &NodeId) -> Option<&mut Link> {
        self.links.get_mut(node)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&NodeId, &Link)> {
        self.links.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&NodeId, &mut Link)> {
        self.links.iter_mut()
    }

    pub(super) fn len(&self) -> usize {
        self.links.len()
    }
}

impl Link {
    /// What counts against it.
    pub(super) fn strikes(&self, now: Time) -> u32 {
        let forgotten = now.0.saturating_sub(self.struck.0) / STRIKE_LIFE;
        self.strikes.saturating_sub(u32::try_from(forgotten).unwrap_or(u32::MAX))
    }

    /// What was long ago does not count, or every line would break that lasts long enough.
    fn forget(&mut self, now: Time) {
        self.strikes = self.strikes(now);
        self.silences = self.silences.min(self.strikes);
        let since = now.0.saturating_sub(self.struck.0) % STRIKE_LIFE;
        self.struck = if self.strikes == 0 { now } else { Time(now.0 - since) };
    }

    /// It had what it was asked for, and that was news: a bad line is no bad node.
    pub(super) fn helped(&mut self) {
        if self.silences > 0 {
            (self.silences, self.strikes) = (self.silences - 1, self.strikes.saturating_sub(1));
        }
    }

    /// Notes what it says to have of a feed.
    pub(super) fn say(&mut self, attester: AttesterKey, said: Said) {
        if self.said.len() < SAID || self.said.contains_key(&attester) {
            self.said.insert(attester, said);
        }
    }

    /// Whether it was not asked for these proofs before.
    pub(super) fn news(&mut self, head: FeedHead) -> bool {
        self.proofs.len() < SAID && self.proofs.insert((head.attester, head.proofs))
    }
}

/// So much at once, and so much again each second.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bucket {
    most: u64,
    rate: u64,
    /// Thousandths.
    left: u64,
    at: Time,
}

impl Bucket {
    const fn new((most, rate): (u64, u64)) -> Self {
        Self { most, rate, left: most * 1000, at: Time(0) }
    }

    /// Takes `n`, if there are so many.
    pub(super) fn take(&mut self, n: u64, now: Time) -> bool {
        let passed = now.0.saturating_sub(self.at.0);
        self.left = self.left.saturating_add(passed.saturating_mul(self.rate)).min(self.most * 1000);
        self.at = now;
        match self.left.checked_sub(n.saturating_mul(1000)) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets() {
        let mut bucket = Bucket::new((3, 1));
        assert!(bucket.take(2, Time(0)) && bucket.take(1, Time(0)) && !bucket.take(1, Time(999)));
        assert!(bucket.take(1, Time(1000)) && !bucket.take(1, Time(1999)));
        assert!(!bucket.take(4, Time(1_000_000)) && bucket.take(3, Time(1_000_000)));
        assert!(bucket.take(0, Time(0)), "a clock that went back does no harm");
    }
}
