//! The model beside what it is a model of: the same thirty nodes, and the same two hundred statements,
//! in a simulated world and as real nodes with real stores, in this process, on the loopback
//! interface: `cargo bench --workspace --profile dev --bench reality`. What it says is in
//! docs/simulations.md.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use protocol::key::{AttesterKey, SigningKey};
use simulations::{
    measures::{Measures, percentile},
    scenario::Scenario,
    trace::Trace,
    world::World,
};
use tests::inside::{Inside, attestation};
use tokio::time::{sleep, sleep_until};

const NODES: usize = 30;
const BUILDERS: usize = 5;
const ACTIONS: usize = 40;
/// Seconds in which all is said, and seconds in which nothing is.
const TROUBLE: u64 = 20;
const CALM: u64 = 60;

/// What is compared; counts are of all nodes, times in milliseconds.
struct Seen {
    /// From the moment at which all builders had spoken of an action until a node had heard all of them.
    delays: Vec<u64>,
    /// Gossip that was new to the node that heard it.
    rumours: u64,
    questions: u64,
    bytes: u64,
    /// The last two, for a minute in which nobody says anything.
    idle_questions: u64,
    idle_bytes: u64,
}

fn simulated(seed: u64) -> Seen {
    let measure = |actions: usize, trouble: u64, calm: u64| -> Measures {
        let scenario = format!(
            r#"claim = "the model beside real nodes"
               nodes = {NODES}
               links = 2
               trouble = {trouble}
               calm = {calm}
               actions = {actions}
               network.latency = [0, 1]
               network.disk = [1, 3]
               network.upload = 1000000
               policy.atLeast = {BUILDERS}
               [[builder]]
               count = {BUILDERS}
               as = "honest""#
        );
        let scenario = Scenario::parse(&scenario).expect("a scenario");
        World::new(&scenario, seed, None, Trace::off()).measure().expect("nothing that must not be")
    };
    let short = measure(ACTIONS, TROUBLE, CALM);
    let long = measure(ACTIONS, TROUBLE, CALM + 60);
    Seen {
        delays: short.delays(BUILDERS),
        rumours: short.rumours,
        questions: short.questions,
        bytes: short.bytes,
        idle_questions: long.questions - short.questions,
        idle_bytes: long.bytes - short.bytes,
    }
}

/// Bytes that the loopback interface has carried, with all that TCP adds.
fn carried() -> u64 {
    let text = std::fs::read_to_string("/proc/net/dev").expect("Linux");
    let line = text.lines().find_map(|line| line.trim().strip_prefix("lo:")).expect("the interface");
    line.split_whitespace().next().and_then(|bytes| bytes.parse().ok()).expect("a number")
}

async fn sum(nodes: &[Inside], name: &str) -> u64 {
    let mut sum = 0;
    for node in nodes {
        sum += node.counted(name).await;
    }
    sum
}

async fn real() -> Seen {
    let keys: Vec<_> = (1..=BUILDERS as u8).map(|n| SigningKey::from_bytes(&[n; 32])).collect();
    let attesters: Vec<_> = keys.iter().map(AttesterKey::of).collect();
    let mut nodes: Vec<Inside> = Vec::new();
    for n in 0..NODES {
        let peers: BTreeSet<_> = (1..=3).filter(|_| n > 0).map(|k| (n * 7919 / k + k * 31) % n).collect();
        let peers: Vec<_> = peers.into_iter().map(|n| nodes[n].address.clone()).collect();
        nodes.push(Inside::start(&attesters, &peers).await);
    }
    // They find each other for a while.
    sleep(Duration::from_secs(60)).await;
    let count = async |nodes: &[Inside]| {
        [
            sum(nodes, "assize_gossip_heard_total").await,
            sum(nodes, "assize_questions_answered_total").await,
            carried(),
        ]
    };
    let before = count(&nodes).await;
    let begun = Instant::now();
    // Builders speak of the same actions in the same order, each at moments of its own.
    let all = (ACTIONS * BUILDERS) as u64;
    let mut said = vec![[0; BUILDERS]; ACTIONS];
    let mut heard = vec![vec![None; ACTIONS]; NODES];
    let mut delays = Vec::new();
    let mut next = 0;
    while delays.len() < NODES * ACTIONS || begun.elapsed().as_secs() < TROUBLE + CALM {
        while next < all && begun.elapsed().as_millis() as u64 >= next * TROUBLE * 1000 / all {
            let (action, builder) = ((next / BUILDERS as u64) as usize, (next % BUILDERS as u64) as usize);
            nodes[builder].store.say(&keys[builder], 0, [attestation(action as u64)]).expect("said");
            said[action][builder] = begun.elapsed().as_millis() as u64;
            next += 1;
        }
        if delays.len() < NODES * ACTIONS {
            for (node, heard) in nodes.iter().zip(&mut heard) {
                let heads = attesters.iter().map(|attester| node.store.head(attester).expect("a head").len());
                let least = heads.min().unwrap_or(0) as usize;
                for (action, heard) in heard.iter_mut().enumerate().take(least).filter(|(_, h)| h.is_none()) {
                    let now = begun.elapsed().as_millis() as u64;
                    *heard = Some(now);
                    delays.push(now.saturating_sub(*said[action].iter().max().unwrap_or(&0)));
                }
            }
        }
        sleep(Duration::from_millis(10)).await;
    }
    let after = count(&nodes).await;
    sleep_until(tokio::time::Instant::now() + Duration::from_secs(60)).await;
    let idle = count(&nodes).await;
    delays.sort_unstable();
    Seen {
        delays,
        rumours: after[0] - before[0],
        questions: after[1] - before[1],
        bytes: after[2] - before[2],
        idle_questions: idle[1] - after[1],
        idle_bytes: idle[2] - after[2],
    }
}

fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let real = runtime.block_on(real());
    let model = simulated(1);
    let row = |what: &str, model: f64, real: f64| {
        println!("{what:<60} {model:>10.1} {real:>10.1} {:>8.2}", real / model);
    };
    println!("{:<60} {:>10} {:>10} {:>8}", "", "model", "real", "factor");
    for (name, hundredths) in [("half", 50), ("99 of 100", 99), ("all", 100)] {
        let at = |seen: &Seen| percentile(&seen.delays, hundredths).unwrap_or(0) as f64;
        row(&format!("ms until {name} of the nodes have heard all builders"), at(&model), at(&real));
    }
    let per_node = |n: u64| n as f64 / NODES as f64;
    row("gossip that is new, a node", per_node(model.rumours), per_node(real.rumours));
    row("questions, a node", per_node(model.questions), per_node(real.questions));
    row("kB, a node", per_node(model.bytes) / 1e3, per_node(real.bytes) / 1e3);
    row("questions in a quiet minute, a node", per_node(model.idle_questions), per_node(real.idle_questions));
    row("kB in a quiet minute, a node", per_node(model.idle_bytes) / 1e3, per_node(real.idle_bytes) / 1e3);
}
