//! What is measured in a world while it runs, for figures.

use std::collections::BTreeMap;

use protocol::{id::ActionId, key::AttesterKey};

/// What is measured. Times are virtual, in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Measures {
    /// When an action was executed first.
    pub executed: BTreeMap<ActionId, u64>,
    /// When attesters said what an action gives, in order.
    pub said: BTreeMap<ActionId, Vec<u64>>,
    /// Which node accepted outputs of which action first: when it had been started, and when it did.
    pub accepted: BTreeMap<(usize, ActionId), [u64; 2]>,
    /// When somebody said what he copied.
    pub copied: BTreeMap<(AttesterKey, ActionId), u64>,
    /// When the first rebuilder saw that.
    pub recognised: BTreeMap<(AttesterKey, ActionId), u64>,
    /// Copies at all nodes that do what they should, at the end: those that count, and all.
    pub copies: [u64; 2],
    /// The same of votes of those who executed.
    pub own: [u64; 2],
    /// Messages that arrived at all nodes.
    pub messages: u64,
    /// Gossip among them that was new to the node, and questions.
    pub rumours: u64,
    /// See [`Measures::rumours`].
    pub questions: u64,
    /// Their bytes, without what the transport adds.
    pub bytes: u64,
}

impl Measures {
    /// How long nodes took to accept an action, from the moment at which as many as `enough` had
    /// spoken about it, shortest first. Of a node that was started later, from then on.
    pub fn delays(&self, enough: usize) -> Vec<u64> {
        self.took(|action| self.said.get(action)?.get(enough - 1).copied())
    }

    /// The same, from the first execution of the action on.
    pub fn delays_of_executed(&self) -> Vec<u64> {
        self.took(|action| self.executed.get(action).copied())
    }

    fn took(&self, from: impl Fn(&ActionId) -> Option<u64>) -> Vec<u64> {
        let delay = |((_, action), [born, at]): (&(usize, ActionId), &[u64; 2])| {
            Some(at.saturating_sub(from(action)?.max(*born)))
        };
        let mut delays: Vec<u64> = self.accepted.iter().filter_map(delay).collect();
        delays.sort_unstable();
        delays
    }

    /// How long copies stood before a rebuilder recognised them, shortest first.
    pub fn recognitions(&self) -> Vec<u64> {
        let took = |(copy, at): (_, &u64)| Some(at.saturating_sub(*self.copied.get(copy)?));
        let mut all: Vec<u64> = self.recognised.iter().filter_map(took).collect();
        all.sort_unstable();
        all
    }
}

/// The one at so many hundredths of the way, of what is sorted.
pub fn percentile(sorted: &[u64], hundredths: usize) -> Option<u64> {
    let last = sorted.len().checked_sub(1)?;
    Some(sorted[last * hundredths / 100])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_count_from_the_moment_when_enough_had_spoken() {
        let action = ActionId::from_bytes([1; 32]);
        let measures = Measures {
            said: BTreeMap::from([(action, vec![10, 20, 30])]),
            executed: BTreeMap::from([(action, 5)]),
            accepted: BTreeMap::from([((0, action), [0, 45]), ((1, action), [22, 25])]),
            ..Measures::default()
        };
        assert_eq!((measures.delays(2), measures.delays(3)), (vec![3, 25], vec![0, 15]));
        assert_eq!(measures.delays_of_executed(), [3, 40]);
        assert_eq!([50, 99, 100].map(|n| percentile(&[1, 2, 3], n)), [Some(2), Some(2), Some(3)]);
        assert_eq!(percentile(&[], 50), None);
    }
}
