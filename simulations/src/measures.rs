//! What is measured in a world while it runs, for figures.

use std::collections::BTreeMap;

use protocol::{id::ActionId, key::AttesterKey};

/// What is measured. Times are virtual, in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Measures {
    /// When attesters said what an action gives, in order.
    pub said: BTreeMap<ActionId, Vec<u64>>,
    /// Which node accepted outputs of which action when, in order.
    pub accepted: Vec<(usize, ActionId, u64)>,
    /// When somebody said what he copied.
    pub copied: BTreeMap<(AttesterKey, ActionId), u64>,
    /// When the first rebuilder saw that.
    pub recognised: BTreeMap<(AttesterKey, ActionId), u64>,
    /// Messages that arrived at all nodes.
    pub messages: u64,
    /// Their bytes, without what the transport adds.
    pub bytes: u64,
}

impl Measures {
    /// How long nodes took to accept an action, from the moment at which as many as `enough` had
    /// spoken about it, shortest first.
    pub fn delays(&self, enough: usize) -> Vec<u64> {
        let delay = |(_, action, at): &(usize, ActionId, u64)| {
            Some(at.saturating_sub(*self.said.get(action)?.get(enough - 1)?))
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
            accepted: vec![(0, action, 45), (1, action, 25)],
            ..Measures::default()
        };
        assert_eq!((measures.delays(2), measures.delays(3)), (vec![5, 25], vec![0, 15]));
        assert_eq!([50, 99, 100].map(|n| percentile(&[1, 2, 3], n)), [Some(2), Some(2), Some(3)]);
        assert_eq!(percentile(&[], 50), None);
    }
}
