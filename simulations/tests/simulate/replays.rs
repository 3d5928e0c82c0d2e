use std::thread;

use simulations::{trace::Trace, variant::Variant, world::World};

use super::{scenario, simulate};

fn trace(name: &str, seed: u64) -> Vec<u8> {
    let (scenario, mut lines) = (scenario(name), Vec::new());
    World::new(&scenario, seed, None, Trace::to(&mut lines, 0)).run(None).unwrap();
    lines
}

/// The same seed is the same trace, byte for byte, also in another thread and another process.
#[test]
fn a_seed_is_one_world() {
    for (name, seed) in [("mixed", 1), ("mixed", 2), ("crashes", 3), ("poisoners", 4)] {
        let first = trace(name, seed);
        let second = thread::scope(|scope| scope.spawn(|| trace(name, seed)).join().unwrap());
        assert!(first == second, "{name}, seed {seed}");
        assert_ne!(first, trace(name, seed + 1));
        let elsewhere =
            simulate(&["replay", &format!("simulations/scenarios/{name}.toml"), &seed.to_string()]);
        assert!(elsewhere.status.success() && elsewhere.stdout == first, "{name}, seed {seed}");
    }
}

/// Not to look changes nothing.
#[test]
fn a_world_does_not_know_that_it_is_watched() {
    let (mixed, mut lines) = (scenario("mixed"), Vec::new());
    let watched = World::new(&mixed, 7, None, Trace::to(&mut lines, 0)).run(None);
    assert_eq!(watched, World::new(&mixed, 7, None, Trace::off()).run(None));
}

/// What a failing seed prints leads to the same failure, at the same event.
#[test]
fn a_failure_can_be_seen_again() {
    let run =
        ["run", "simulations/scenarios/partitions.toml", "--seeds", "0..4", "--variant", "never-asks-again"];
    let failed = simulate(&run);
    assert_eq!(failed.status.code(), Some(1));
    let said = String::from_utf8(failed.stdout).unwrap();
    let mut lines = said
        .lines()
        .filter(|line| line.starts_with("seed "))
        .zip(said.lines().filter_map(|line| line.strip_prefix("  simulate ")));
    let (failure, command) = lines.next().unwrap();
    let again = simulate(&command.split(' ').collect::<Vec<_>>());
    assert_eq!(again.status.code(), Some(1));
    let again = String::from_utf8(again.stdout).unwrap();
    let (_, what) = failure.split_once(" fails: ").unwrap();
    assert_eq!(again.lines().last().unwrap(), what);
}

/// `--from` and `--until` cut the trace, and change nothing of it.
#[test]
fn a_trace_is_stepped_through() {
    let file = "simulations/scenarios/quorum.toml";
    let whole = String::from_utf8(trace("quorum", 5)).unwrap();
    let number = |line: &str| line.split_whitespace().next().unwrap().parse::<u64>().unwrap();
    let part: Vec<&str> = whole.lines().filter(|line| (100..=120).contains(&number(line))).collect();
    let stepped = simulate(&["replay", file, "5", "--from", "100", "--until", "120"]);
    let stepped = String::from_utf8(stepped.stdout).unwrap();
    let (lines, state) = stepped.split_at(stepped.find("\nn0 ").unwrap() + 1);
    assert_eq!(lines.lines().collect::<Vec<_>>(), part);
    assert_eq!(state.lines().count(), scenario("quorum").all_nodes());
}

#[test]
fn what_makes_no_sense_is_refused() {
    for (arguments, why) in [
        (&["run", "nowhere.toml"][..], "cannot read `nowhere.toml`"),
        (&["run", "Cargo.toml"], "`Cargo.toml`: not a scenario: TOML parse error"),
        (&["run", "x", "--seeds", "3..3"], "not as in `0..100`"),
        (&["run", "x", "--variant", "good"], "threshold-off-by-one"),
    ] {
        let refused = simulate(arguments);
        let said = String::from_utf8(refused.stderr).unwrap();
        assert_eq!((refused.status.code(), refused.stdout), (Some(2), vec![]));
        assert!(said.contains(why), "{said}");
    }
    assert!(Variant::ALL.iter().all(|variant| Variant::named(variant.name()) == Some(*variant)));
}
