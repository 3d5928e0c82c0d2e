//! Times and bytes of whole worlds.

use super::Extent;
use crate::{
    measures::{Measures, percentile},
    plot::{Line, Panel, Plot, Unit},
    scenario::{Accepted, BuilderKind, Builders, Expect, Fault, Network, Policy, Scenario},
    trace::Trace,
    world::{Failure, World},
};

/// Voters that are wanted, of [`BUILDERS`].
const ENOUGH: usize = 3;
const BUILDERS: usize = 5;

/// A world in which nothing is wrong: builders are honest, and no message is lost.
fn calm(nodes: usize, actions: usize) -> Scenario {
    Scenario {
        claim: "It goes well".into(),
        nodes,
        links: 3,
        rebuilders: 0,
        votes: ENOUGH,
        execution: [1, 10],
        trouble: 120,
        calm: 300,
        actions,
        fetch: false,
        network: Network::default(),
        policy: Policy {
            at_least: ENOUGH,
            distinct: Vec::new(),
            dissent: Default::default(),
            witness: Default::default(),
            reveal: None,
        },
        builder: vec![builders(BUILDERS, BuilderKind::Honest)],
        hostile: Vec::new(),
        fault: Vec::new(),
        expect: Expect::default(),
    }
}

fn builders(count: usize, kind: BuilderKind) -> Builders {
    Builders { count, kind, operator: None, arch: "x86_64".into() }
}

/// What is measured of a scenario from so many seeds.
fn measure(scenario: &Scenario, seeds: u64) -> Result<Vec<Measures>, Failure> {
    (0..seeds).map(|seed| World::new(scenario, seed, None, Trace::off()).measure()).collect()
}

/// The lines of half, of ninety-nine of a hundred, and of all.
fn spread(all: Vec<Vec<u64>>) -> Vec<Line> {
    let line = |name: &str, hundredths| {
        let values = all.iter().map(|sorted| percentile(sorted, hundredths)).collect();
        Line { name: name.into(), values }
    };
    vec![line("half of them", 50), line("99 of 100", 99), line("the last", 100)]
}

fn sorted(all: impl IntoIterator<Item = u64>) -> Vec<u64> {
    let mut all: Vec<u64> = all.into_iter().collect();
    all.sort_unstable();
    all
}

fn names(all: &[usize]) -> Vec<String> {
    all.iter().map(usize::to_string).collect()
}

/// From the moment at which enough have spoken to acceptance.
pub(super) fn acceptance(extent: Extent) -> Result<Plot, Failure> {
    let sizes = extent.of(&[10, 20][..], &[10, 30, 100, 300, 1000]);
    let losses = extent.of(&[0, 200][..], &[0, 10, 20, 50, 100, 200]);
    let churns = extent.of(&[0, 40][..], &[0, 10, 20, 40, 80]);
    let seeds = extent.of(1, 3);
    let delays = |scenario: &Scenario| -> Result<Vec<u64>, Failure> {
        let measured = measure(scenario, seeds)?;
        Ok(sorted(measured.iter().flat_map(|measures| measures.delays(ENOUGH))))
    };
    let by_size: Result<Vec<_>, _> = sizes.iter().map(|nodes| delays(&calm(*nodes, 10))).collect();
    let lossy = |loss: &usize| {
        let network = Network { loss: *loss as u64, ..Network::default() };
        delays(&Scenario { network, calm: 600, ..calm(extent.of(10, 100), 10) })
    };
    let by_loss: Result<Vec<_>, _> = losses.iter().map(lossy).collect();
    let coming_and_going = |percent: &usize| {
        let nodes = extent.of(20, 100);
        let times = nodes * percent / 200;
        let fault = vec![Fault::Arrive { times }, Fault::Leave { times }];
        delays(&Scenario { fault, ..calm(nodes, 10) })
    };
    let by_churn: Result<Vec<_>, _> = churns.iter().map(coming_and_going).collect();
    let panel = |over, places, lines| Panel {
        counts: "from the third statement to acceptance at a node",
        unit: Unit::Millis,
        over,
        places,
        lines,
    };
    let percent = losses.iter().map(|loss| format!("{} %", loss / 10)).collect();
    let moved = churns.iter().map(|churn| format!("{churn} %")).collect();
    Ok(Plot {
        title: "How long it takes until a node accepts what enough have said",
        panels: vec![
            panel("nodes", names(sizes), spread(by_size?)),
            panel("of all messages are lost, among 100 nodes", percent, spread(by_loss?)),
            panel("of 100 nodes come or leave within two minutes", moved, spread(by_churn?)),
        ],
    })
}

/// How long it takes behind a partition until everybody has accepted everything.
pub(super) fn healing(extent: Extent) -> Result<Plot, Failure> {
    let lengths = extent.of(&[10, 60][..], &[10, 30, 60, 120, 300, 600, 1800]);
    let sizes = extent.of(&[10][..], &[20, 100, 500]);
    let healed = |nodes: usize, seconds: usize| -> Result<Option<u64>, Failure> {
        let seconds = seconds as u64;
        let fault = vec![Fault::Partition { times: 1, seconds: [seconds, seconds] }];
        let scenario = Scenario { trouble: seconds, fault, ..calm(nodes, 10) };
        let last = |measures: &Measures| measures.accepted.values().map(|[_, at]| *at).max();
        let last = measure(&scenario, extent.of(1, 9))?
            .iter()
            .filter_map(last)
            .map(|at| at.saturating_sub(seconds * 1000))
            .collect::<Vec<_>>();
        Ok(percentile(&sorted(last), 50))
    };
    let mut lines = Vec::new();
    for nodes in sizes {
        let values: Result<_, _> = lengths.iter().map(|seconds| healed(*nodes, *seconds)).collect();
        lines.push(Line { name: format!("{nodes} nodes"), values: values? });
    }
    let places = lengths.iter().map(|seconds| format!("{seconds} s")).collect();
    Ok(Plot {
        title: "How long it takes behind a partition until everybody has accepted everything",
        panels: vec![Panel {
            counts: "from the end of the partition, half of the seeds",
            unit: Unit::Millis,
            over: "the network was in two halves for",
            places,
            lines,
        }],
    })
}

/// What a node hears in ten minutes.
pub(super) fn traffic(extent: Extent) -> Result<Plot, Failure> {
    let sizes = extent.of(&[10, 20][..], &[10, 30, 100, 300, 1000, 3000, 10_000]);
    let actions = extent.of(&[5, 10][..], &[1, 20, 50, 100, 200, 500]);
    let heard = |scenario: &Scenario| -> Result<[u64; 2], Failure> {
        let measured = measure(&Scenario { calm: 480, ..scenario.clone() }, 1)?;
        let nodes = scenario.nodes as u64;
        Ok([measured[0].bytes / nodes, measured[0].messages / nodes])
    };
    let by_size: Result<Vec<_>, _> = sizes.iter().map(|nodes| heard(&calm(*nodes, 10))).collect();
    let by_actions = actions.iter().map(|actions| heard(&calm(extent.of(10, 100), *actions)));
    let by_actions: Result<Vec<_>, _> = by_actions.collect();
    let attestations: Vec<usize> = actions.iter().map(|actions| *actions * BUILDERS).collect();
    let (by_size, by_actions) = (by_size?, by_actions?);
    let panel = |counts, unit, over, places: &[usize], values: Vec<Option<u64>>| {
        let line = Line { name: "mean of all nodes".into(), values };
        Panel { counts, unit, over, places: names(places), lines: vec![line] }
    };
    let panels = |over, places: &[usize], all: &[[u64; 2]]| {
        let bytes = all.iter().map(|[bytes, _]| Some(*bytes)).collect();
        let messages = all.iter().map(|[_, messages]| Some(*messages)).collect();
        [
            panel("bytes that a node hears in ten minutes", Unit::Bytes, over, places, bytes),
            panel("messages that a node hears in ten minutes", Unit::Count, over, places, messages),
        ]
    };
    let by_size = panels("nodes, 50 attestations", sizes, &by_size);
    let by_actions = panels("attestations, 100 nodes", &attestations, &by_actions);
    Ok(Plot { title: "What a node hears", panels: by_size.into_iter().chain(by_actions).collect() })
}

/// What each of many attestations costs whoever hears it.
pub(super) fn attestations(extent: Extent) -> Result<Plot, Failure> {
    const NODES: usize = 10;
    /// Actions that each builder executes in a second.
    const RATE: u64 = 20;
    let all = extent.of(&[20, 40][..], &[200, 2_000, 20_000, 200_000]);
    let [mut bytes, mut messages] = [const { Vec::new() }; 2];
    for actions in all {
        let trouble = (*actions as u64 / RATE).max(60);
        let scenario = Scenario { trouble, calm: 300, ..calm(NODES, *actions) };
        let measured = measure(&scenario, 1)?;
        let heard = (actions * BUILDERS * NODES) as u64;
        bytes.push(Some(measured[0].bytes / heard));
        messages.push(Some(measured[0].messages * 100 / heard));
    }
    let places: Vec<usize> = all.iter().map(|actions| *actions * BUILDERS).collect();
    let panel = |counts, unit, values| {
        let line = Line { name: "mean of all nodes".into(), values };
        Panel { counts, unit, over: "attestations, 10 nodes", places: names(&places), lines: vec![line] }
    };
    Ok(Plot {
        title: "What a node hears of more and more attestations",
        panels: vec![
            panel("bytes for each attestation", Unit::Bytes, bytes),
            panel("messages for a hundred attestations", Unit::Count, messages),
        ],
    })
}

/// Nodes among which there are copycats.
const NODES: usize = 50;
/// More votes than there are voters: everything is executed.
const ALL: usize = NODES;

/// A world of two builders, three copycats and some rebuilders.
fn copied(extent: Extent, rebuilders: usize, votes: usize) -> Scenario {
    let builder = vec![builders(2, BuilderKind::Honest), builders(3, BuilderKind::CopyWithWitness)];
    let expect = Expect { accepted: Accepted::Some, ..Expect::default() };
    // Rebuilders stop when half of the calm is over.
    Scenario { rebuilders, votes, calm: extent.of(600, 3600), builder, expect, ..calm(NODES, 10) }
}

/// Shares of [`NODES`] that rebuild.
fn rebuilding(extent: Extent) -> (&'static [usize], Vec<String>) {
    let rebuilders = extent.of(&[1, 4][..], &[1, 2, 5, 10, 20, 40]);
    (rebuilders, rebuilders.iter().map(|n| format!("{} %", n * 100 / NODES)).collect())
}

/// How soon copies are recognised, and how many never are.
pub(super) fn copycats(extent: Extent) -> Result<Plot, Failure> {
    let (rebuilders, places) = rebuilding(extent);
    let votes = extent.of(&[3, ALL][..], &[3, 6, ALL]);
    let (mut took, mut never) = (Vec::new(), Vec::new());
    for votes in votes {
        let (mut half, mut left) = (Vec::new(), Vec::new());
        for rebuilders in rebuilders {
            let measured = measure(&copied(extent, *rebuilders, *votes), extent.of(1, 3))?;
            half.push(percentile(&sorted(measured.iter().flat_map(Measures::recognitions)), 50));
            let copied: usize = measured.iter().map(|measures| measures.copied.len()).sum();
            let recognised: usize = measured.iter().map(|measures| measures.recognised.len()).sum();
            left.push(Some((copied.saturating_sub(recognised) * 1000 / copied.max(1)) as u64));
        }
        let name = match votes {
            &ALL => "whatever votes there are".to_owned(),
            votes => format!("below {votes} votes"),
        };
        took.push(Line { name: name.clone(), values: half });
        never.push(Line { name, values: left });
    }
    let panel = |counts, unit, lines| rebuilt(counts, unit, &places, lines);
    Ok(Plot {
        title: "Copies of three copycats, and rebuilders who execute what has too few votes",
        panels: vec![
            panel("from a copy to its first recognition, half of those recognised", Unit::Millis, took),
            panel("copies that nobody recognises in half an hour", Unit::Share, never),
        ],
    })
}

fn rebuilt(counts: &'static str, unit: Unit, places: &[String], lines: Vec<Line>) -> Panel {
    Panel { counts, unit, over: "of 50 nodes rebuild", places: places.to_vec(), lines }
}

/// What it would buy, and cost, that everybody commits to what he got before he reveals it.
pub(super) fn commitments(extent: Extent) -> Result<Plot, Failure> {
    let (rebuilders, places) = rebuilding(extent);
    // Whether there are copycats, and when is revealed what was committed to.
    let lines = extent.of(
        &[(true, None), (true, Some(10))][..],
        &[(false, None), (true, None), (true, Some(10)), (true, Some(60)), (true, Some(300))],
    );
    let [mut copies, mut lost, mut never, mut took] = [const { Vec::new() }; 4];
    for (copycats, reveal) in lines {
        let name = match reveal {
            None if !copycats => "nobody commits, nor copies".to_owned(),
            None => "nobody commits".to_owned(),
            Some(seconds) => format!("revealed after {seconds} s"),
        };
        let [mut counting, mut lacking, mut stuck, mut half] = [const { Vec::new() }; 4];
        for rebuilders in rebuilders {
            let mut scenario = copied(extent, *rebuilders, ALL);
            scenario.policy.reveal = *reveal;
            scenario.builder.retain(|builders| *copycats || !builders.kind.copies());
            let seeds = extent.of(1, 3);
            let measured = measure(&scenario, seeds)?;
            let share = |of: fn(&Measures) -> [u64; 2]| {
                let sum = |n: usize| measured.iter().map(|measures| of(measures)[n]).sum::<u64>();
                sum(0) * 1000 / sum(1).max(1)
            };
            counting.push(Some(share(|measures| measures.copies)));
            lacking.push(Some(1000 - share(|measures| measures.own)));
            let accepted: usize = measured.iter().map(|measures| measures.accepted.len()).sum();
            let all = seeds * (scenario.nodes * scenario.actions) as u64;
            stuck.push(Some(1000 - accepted as u64 * 1000 / all));
            half.push(percentile(&sorted(measured.iter().flat_map(Measures::delays_of_executed)), 50));
        }
        copies.push(Line { name: name.clone(), values: counting });
        lost.push(Line { name: name.clone(), values: lacking });
        never.push(Line { name: name.clone(), values: stuck });
        took.push(Line { name, values: half });
    }
    Ok(Plot {
        title: "Copies of three copycats, if votes count of those alone who committed in time",
        panels: vec![
            rebuilt("copies that count, at all nodes", Unit::Share, &places, copies),
            rebuilt("votes of those who executed that do not count", Unit::Share, &places, lost),
            rebuilt("never accepted, of all actions at all nodes", Unit::Share, &places, never),
            rebuilt("from the first execution to acceptance, half of them", Unit::Millis, &places, took),
        ],
    })
}
