//! What is built: a graph of actions, and what executing it gives, rightly and with a fault.
//!
//! A simulated execution is a function of its action, as a real one is. A fault changes what one
//! builder gives for one action, and what depends on it is another action then: who has the fault
//! does not speak of the same things any more.

use std::collections::BTreeMap;

use protocol::{
    action::{Action, FetchAction},
    id::{ActionId, NarHash},
    key::AttesterKey,
    limits::PIECE_BYTES,
    name::Name,
    output::{Output, Outputs},
    sri::{Algorithm, Sri},
    witness::TranscriptHash,
};
use trust::agreement;

use crate::seed::Seed;

/// Pieces of the largest simulated archive.
const PIECES: u64 = 3;

/// A graph of actions: each has the places of those it takes inputs from, all before it.
#[derive(Debug, Clone)]
pub struct Graph(Vec<Vec<usize>>);

/// One execution of an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Execution {
    /// What was executed.
    pub action: ActionId,
    /// The same, as it is told to whoever asks: a fetch, since nothing else about it matters here.
    pub what: Action,
    /// What came of it.
    pub outputs: Outputs,
    /// What comes of it on a machine without a fault.
    pub truth: Outputs,
}

impl Execution {
    /// What the guest did. Whoever executes the action has it, and nobody else.
    pub fn transcript(&self) -> TranscriptHash {
        let did = [self.action.as_bytes().as_slice(), b" was executed"].concat();
        TranscriptHash::from_bytes(*NarHash::of(&did).as_bytes())
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
    pub fn execute(&self, fault: Option<usize>) -> Vec<Execution> {
        let mut executions: Vec<Execution> = Vec::new();
        for (place, inputs) in self.0.iter().enumerate() {
            let mut text = format!("action {place}");
            for input in inputs {
                text.push_str(&archive(&executions[*input].outputs).to_string());
            }
            let digest = NarHash::of(text.as_bytes()).as_bytes().to_vec();
            let sri = Sri::new(Algorithm::Blake3, digest).expect("a digest of that algorithm");
            let what = Action::Fetch(FetchAction { sri, executable: false });
            let action = what.id();
            let truth = outputs(&action, "");
            let gave = if fault == Some(place) {
                outputs(&action, " and a wrong instruction")
            } else {
                truth.clone()
            };
            executions.push(Execution { action, what, outputs: gave, truth });
        }
        executions
    }
}

/// What an action gives to somebody who adds `more` to it.
pub fn outputs(action: &ActionId, more: &str) -> Outputs {
    let nar = NarHash::of(&[action.as_bytes(), more.as_bytes()].concat());
    let pieces = 1 + u64::from(nar.as_bytes()[0]) % PIECES;
    Outputs::from([(Name::out(), Output { nar, size: pieces * PIECE_BYTES })])
}

/// What somebody says who has got these outputs and does not say yet which: a hash of them and of
/// his key, by a name that no output has.
pub(crate) fn commitment(outputs: &Outputs, attester: &AttesterKey) -> Outputs {
    let nar = NarHash::of(&[archive(outputs).as_bytes(), attester.as_bytes().as_slice()].concat());
    Outputs::from([(committed(), Output { nar, size: 1 })])
}

/// Whether somebody says no more than that he has got something.
pub(crate) fn is_commitment(outputs: &Outputs) -> bool {
    outputs.contains_key(&committed())
}

fn committed() -> Name {
    Name::new("commitment").expect("a name")
}

/// The archive of the one output that simulated actions have.
pub(crate) fn archive(outputs: &Outputs) -> NarHash {
    outputs.values().next().expect("there is one").nar
}

/// Who stands with whom about one action, when builder `n` has the fault `faults[n]`: the sides,
/// largest first, as lists of builders.
pub fn sides(graph: &Graph, faults: &[Option<usize>], place: usize) -> Vec<Vec<usize>> {
    let result = |fault: &Option<usize>| {
        let archive = archive(&graph.execute(*fault)[place].outputs);
        BTreeMap::from([(Name::out(), archive)])
    };
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

    /// A fault is wrong about one action. What comes behind it is another action, rightly executed.
    #[test]
    fn a_fault_is_one_wrong_output() {
        let graph = Graph::random(20, &mut Seed(7));
        let right = graph.execute(None);
        for fault in 0..graph.len() {
            for (place, execution) in graph.execute(Some(fault)).iter().enumerate() {
                assert_eq!(execution.outputs != execution.truth, place == fault);
                let same = place == fault || !graph.depends(place, fault);
                assert_eq!(execution.action == right[place].action, same);
            }
        }
    }
}
