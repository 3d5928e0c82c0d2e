use std::{env, ops::Range, thread};

use simulations::{
    invariants::Violation,
    scenario::{BuilderKind, Scenario},
    trace::Trace,
    world::{Report, World},
};

use super::{all, scenario};

/// Seeds of the mixed scenario: a minute and a half of one processor. `SIMULATE_SEEDS=1000` asks for
/// more, `SIMULATE_SEEDS=50000` for those of a release.
const MIXED: u64 = 400;

/// Seeds of every other scenario.
const EACH: u64 = 8;

/// Runs seeds on two threads; none may fail.
#[track_caller]
fn hold(name: &str, scenario: &Scenario, seeds: Range<u64>) -> Report {
    let half = |odd: u64| {
        let mut all = Report::default();
        for seed in seeds.clone().filter(|seed| seed % 2 == odd) {
            match World::new(scenario, seed, None, Trace::off()).run(None) {
                Ok(report) => all += report,
                Err(failure) => panic!(
                    "{name}, seed {seed}: {failure}: {}\nsimulate replay simulations/scenarios/{name}.toml {seed} --until {}",
                    failure.violation, failure.event
                ),
            }
        }
        all
    };
    thread::scope(|scope| {
        let other = scope.spawn(|| half(1));
        let mut all = half(0);
        all += other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        all
    })
}

#[test]
fn every_scenario_holds() {
    for (name, scenario) in all().iter().filter(|(name, _)| name != "mixed") {
        let report = hold(name, scenario, 0..EACH);
        assert!(report.messages > 1000 && report.kept > 100, "{name}: next to nothing happened: {report:?}");
    }
}

/// 30 nodes, six hostile ones, four builders who lie, and everything that breaks.
#[test]
fn everything_at_once_holds() {
    let seeds = env::var("SIMULATE_SEEDS").ok().map_or(MIXED, |seeds| seeds.parse().unwrap());
    let mixed = scenario("mixed");
    assert!(mixed.nodes >= 30 && mixed.fault.len() >= 6 && mixed.hostile.len() >= 6);
    let report = hold("mixed", &mixed, 0..seeds);
    // Liars are found out, and forgeries are looked at once for all.
    assert!(report.refused > seeds && report.signatures > 0, "{report:?}");
}

/// What `wishes.toml` shows is the doing of whoever wishes: who waits and does not say so goes on waiting.
#[test]
fn nothing_is_rebuilt_that_nobody_wishes() {
    let mut wishes = scenario("wishes");
    wishes.builder.retain(|builders| builders.kind != BuilderKind::Wish);
    let failure = World::new(&wishes, 1, None, Trace::off()).run(None).unwrap_err();
    assert!(matches!(failure.violation, Violation::Stuck { accepted: 0, expected: 10, .. }), "{failure:?}");
}

/// What `commitments.toml` shows is the doing of commitments: most copies count without.
#[test]
fn copies_count_where_nobody_commits() {
    let mut commitments = scenario("commitments");
    commitments.policy.reveal = None;
    let failure = World::new(&commitments, 1, None, Trace::off()).run(None).unwrap_err();
    assert!(matches!(failure.violation, Violation::Copies { share: 300.., most: 20 }), "{failure:?}");
}

/// What `fooled.toml` shows is not for want of looking: with one liar less, nobody is.
#[test]
fn the_limit_is_where_it_is_said_to_be() {
    let mut fooled = scenario("fooled");
    fooled.builder[1].count -= 1;
    fooled.builder[0].count += 1;
    let failure = World::new(&fooled, 1, None, Trace::off()).run(None).unwrap_err();
    assert_eq!(failure.violation.to_string(), "nobody was fooled, although enough lied");
}
