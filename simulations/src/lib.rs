//! Many builders in one thread, from a seed: what their results look like when some of them are
//! wrong.
//!
//! ```text
//! Graph of actions ─▶ each Builder executes it, honest or with a Fault ─▶ trust::agreement::sides
//! ```
//!
//! A simulated execution is a function of its action, as a real one is; a fault changes what one
//! builder gives for one action. Knows `protocol` and `trust` only.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use protocol::{id::NarHash, name::Name};
use trust::agreement;

/// A graph of actions: each has the places of those it takes inputs from, all before it.
#[derive(Debug, Clone)]
pub struct Graph(Vec<Vec<usize>>);

/// A small generator of numbers, the same on every machine (SplitMix64).
#[derive(Debug, Clone)]
pub struct Seed(pub u64);

impl Seed {
    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.draw() % n.max(1) as u64) as usize
    }
}

impl Graph {
    /// A graph of `n` actions with up to three inputs each.
    pub fn random(n: usize, seed: &mut Seed) -> Self {
        let inputs = |place: usize, seed: &mut Seed| {
            let count = if place == 0 { 0 } else { seed.below(4) };
            (0..count).map(|_| seed.below(place)).collect()
        };
        Self((0..n).map(|place| inputs(place, seed)).collect())
    }

    /// How many actions there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the output of `place` depends on that of `on`.
    pub fn depends(&self, place: usize, on: usize) -> bool {
        place == on || self.0[place].iter().any(|input| self.depends(*input, on))
    }

    /// What a builder gives that executes everything itself; `fault` is the place of an action
    /// that it miscompiles.
    pub fn execute(&self, fault: Option<usize>) -> Vec<NarHash> {
        let mut outputs: Vec<NarHash> = Vec::new();
        for (place, inputs) in self.0.iter().enumerate() {
            let mut action = format!("action {place}");
            for input in inputs {
                action.push_str(&outputs[*input].to_string());
            }
            if fault == Some(place) {
                action.push_str(" and a wrong instruction");
            }
            outputs.push(NarHash::of(action.as_bytes()));
        }
        outputs
    }
}

/// Who stands with whom about one action, when builder `n` has the fault `faults[n]`: the sides,
/// largest first, as lists of builders.
pub fn sides(graph: &Graph, faults: &[Option<usize>], place: usize) -> Vec<Vec<usize>> {
    let result = |fault: &Option<usize>| BTreeMap::from([(Name::out(), graph.execute(*fault)[place])]);
    let executions = faults.iter().enumerate().map(|(who, fault)| (who, result(fault)));
    agreement::sides(executions).into_iter().map(|(_, who)| who).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Honest builders agree about everything; a builder with a fault stands alone about exactly
    /// what depends on it; independent faults never agree with each other.
    #[test]
    fn faults_are_seen_where_they_matter_and_nowhere_else() {
        for seed in 0..200 {
            let mut seed = Seed(seed);
            let graph = Graph::random(2 + seed.below(12), &mut seed);
            let (one, other) = (seed.below(graph.len()), seed.below(graph.len()));
            let faults = [None, None, None, Some(one), Some(other)];
            for place in 0..graph.len() {
                let sides = sides(&graph, &faults, place);
                let (wrong_one, wrong_other) = (graph.depends(place, one), graph.depends(place, other));
                let mut honest = vec![0, 1, 2];
                honest.extend((!wrong_one).then_some(3));
                honest.extend((!wrong_other).then_some(4));
                assert_eq!(sides[0], honest, "the honest are the largest side");
                let alone = usize::from(wrong_one) + usize::from(wrong_other);
                let together = wrong_one && wrong_other && one == other;
                assert_eq!(sides.len() - 1, alone - usize::from(together));
            }
        }
    }
}
