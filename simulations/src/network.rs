//! What is between nodes: how long messages take, what is lost, who is cut off from whom.

use crate::{scenario::Network as Model, seed::Seed};

/// How much longer the slowest messages take, and how many of a thousand do.
const SLOWEST: u64 = 10;
/// See [`SLOWEST`].
const SLOW: u64 = 10;

/// What is between the nodes of a world.
#[derive(Debug)]
pub(crate) struct Network {
    model: Model,
    seed: Seed,
    /// How often each node is cut off from everybody.
    cut: Vec<u32>,
    /// In which half each node is.
    half: Vec<bool>,
    /// The node that only those reach that are in on it, and from which node on they are.
    eclipse: Option<(usize, usize)>,
}

impl Network {
    pub(crate) fn new(model: &Model, nodes: usize, seed: Seed) -> Self {
        Self { model: model.clone(), seed, cut: vec![0; nodes], half: vec![false; nodes], eclipse: None }
    }

    /// Whether messages between two nodes arrive, if they are not lost.
    pub(crate) fn reaches(&self, a: usize, b: usize) -> bool {
        let hidden = self
            .eclipse
            .is_some_and(|(victim, hostile)| (a == victim && b < hostile) || (b == victim && a < hostile));
        self.cut[a] == 0 && self.cut[b] == 0 && self.half[a] == self.half[b] && !hidden
    }

    /// Milliseconds that the next message takes; `None` if it is lost.
    pub(crate) fn delay(&mut self) -> Option<u64> {
        if self.seed.chance(self.model.loss) {
            return None;
        }
        Some(self.reliable_delay())
    }

    /// The same, for what is sent again until it arrives.
    pub(crate) fn reliable_delay(&mut self) -> u64 {
        let times = if self.seed.chance(SLOW) { SLOWEST } else { 1 };
        times * self.seed.between(self.model.latency)
    }

    pub(crate) fn cut(&mut self, node: usize) {
        self.cut[node] += 1;
    }

    pub(crate) fn mend(&mut self, node: usize) {
        self.cut[node] = self.cut[node].saturating_sub(1);
    }

    /// The network falls into halves: which of them each node is in.
    pub(crate) fn part(&mut self, half: Vec<bool>) {
        self.half = half;
    }

    /// The halves are one again.
    pub(crate) fn join(&mut self) {
        self.half.fill(false);
    }

    /// Only nodes from `hostile` on reach `victim`.
    pub(crate) fn eclipse(&mut self, victim: usize, hostile: usize) {
        self.eclipse = Some((victim, hostile));
    }

    /// Nothing is cut off any more.
    pub(crate) fn heal(&mut self) {
        self.cut.fill(0);
        self.join();
        self.eclipse = None;
    }
}
