//! What breaks when, from the scenario and the seed.

use crate::{
    scenario::{Fault, Scenario},
    seed::Seed,
};

/// Milliseconds between two nodes that are cut off, or healed, one after the other: at most.
const STEP: u64 = 4_000;

/// Milliseconds for which all nodes of a swizzle are cut off together, from and to.
const TOGETHER: [u64; 2] = [1_000, 40_000];

/// Something that breaks or is mended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Deed {
    /// The network falls into these halves.
    Part { half: Vec<bool> },
    /// The halves are one again.
    Join,
    /// A node is cut off.
    Cut { node: usize },
    /// It is not any more.
    Mend { node: usize },
    /// A node is killed; whether it loses its disk.
    Stop { node: usize, empty: bool },
    /// It starts.
    Start { node: usize },
    /// A node leaves, for good.
    Leave { node: usize },
    /// A disk becomes slow.
    Slow { node: usize },
    /// And as it was.
    Fast { node: usize },
    /// Something on a disk is not what it was.
    Rot { node: usize },
}

/// All that breaks, with the moment, in the order in which the scenario says it.
pub(crate) fn plan(scenario: &Scenario, seed: &mut Seed) -> Vec<(u64, Deed)> {
    let trouble = scenario.trouble * 1000;
    let mut deeds = Vec::new();
    for fault in &scenario.fault {
        match fault {
            Fault::Partition { times, seconds } => {
                // One after the other: each has a share of the time.
                let share = trouble / (*times).max(1) as u64;
                for n in 0..*times as u64 {
                    let half = (0..scenario.all_nodes()).map(|_| seed.chance(500)).collect();
                    let length = millis(seed, *seconds).min(share);
                    let from = n * share + seed.between([0, share - length]);
                    deeds.extend([(from, Deed::Part { half }), (from + length, Deed::Join)]);
                }
            }
            Fault::Swizzle { times, nodes } => {
                for _ in 0..*times {
                    swizzle(scenario, *nodes, seed, &mut deeds);
                }
            }
            Fault::Crash { times, seconds } => {
                for _ in 0..*times {
                    let node = seed.below(scenario.nodes);
                    stop(node, false, *seconds, trouble, seed, &mut deeds);
                }
            }
            Fault::LoseDisk { times, seconds } => {
                // Who loses the disk and keeps the key is another story: see `BuilderKind::Restored`.
                let readers = scenario.nodes - scenario.attesters();
                for _ in 0..if readers == 0 { 0 } else { *times } {
                    let node = scenario.attesters() + seed.below(readers);
                    stop(node, true, *seconds, trouble, seed, &mut deeds);
                }
            }
            Fault::Arrive { times } => {
                for node in some_readers(scenario, *times, seed) {
                    let at = seed.between([0, trouble * 9 / 10]);
                    deeds.extend([(0, Deed::Stop { node, empty: true }), (at, Deed::Start { node })]);
                }
            }
            Fault::Leave { times } => {
                for node in some_readers(scenario, *times, seed) {
                    deeds.push((seed.between([0, trouble * 9 / 10]), Deed::Leave { node }));
                }
            }
            Fault::SlowDisk { times, seconds } => {
                for _ in 0..*times {
                    let (node, from) = (seed.below(scenario.nodes), seed.between([0, trouble]));
                    let to = from + millis(seed, *seconds);
                    deeds.extend([(from, Deed::Slow { node }), (to, Deed::Fast { node })]);
                }
            }
            Fault::Rot { times } => {
                for _ in 0..*times {
                    let (node, at) = (seed.below(scenario.nodes), seed.between([0, trouble]));
                    deeds.push((at, Deed::Rot { node }));
                }
            }
            // From the first moment on: there is no deed to it.
            Fault::Eclipse => {}
        }
    }
    // What would be mended later is mended by the calm.
    deeds.retain(|(at, _)| *at < trouble);
    deeds
}

/// Nodes that do not build, each once.
fn some_readers(scenario: &Scenario, count: usize, seed: &mut Seed) -> Vec<usize> {
    let mut readers: Vec<usize> = (scenario.attesters()..scenario.nodes).collect();
    seed.shuffle(&mut readers);
    readers.truncate(count);
    readers
}

fn millis(seed: &mut Seed, [from, to]: [u64; 2]) -> u64 {
    seed.between([from * 1000, to * 1000])
}

fn stop(
    node: usize,
    empty: bool,
    seconds: [u64; 2],
    trouble: u64,
    seed: &mut Seed,
    deeds: &mut Vec<(u64, Deed)>,
) {
    let from = seed.between([0, trouble]);
    let to = from + millis(seed, seconds);
    deeds.extend([(from, Deed::Stop { node, empty }), (to, Deed::Start { node })]);
}

/// Cuts nodes off one by one, and heals them one by one in another order.
fn swizzle(scenario: &Scenario, nodes: usize, seed: &mut Seed, deeds: &mut Vec<(u64, Deed)>) {
    let mut all: Vec<usize> = (0..scenario.nodes).collect();
    seed.shuffle(&mut all);
    all.truncate(nodes);
    let mut at = seed.between([0, scenario.trouble * 1000]);
    for node in &all {
        deeds.push((at, Deed::Cut { node: *node }));
        at += seed.between([0, STEP]);
    }
    at += seed.between(TOGETHER);
    seed.shuffle(&mut all);
    for node in all {
        deeds.push((at, Deed::Mend { node }));
        at += seed.between([0, STEP]);
    }
}
