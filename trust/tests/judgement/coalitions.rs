//! Who could fool a policy, against trying everybody.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::{Value, json};
use trust::{
    coalition::{Exposure, blast_radius, weakest, who_can_fool},
    policy::Policy,
    verdict::Outcome,
};

use crate::support::{Case, Feed, NOW, cases, equivocation, name, roster};

/// The smallest coalition, as `a b`; `-` if there is none.
fn fools(people: &str, policy: Value) -> String {
    let policy = Policy::compile(&policy, &roster(people), NOW).unwrap();
    shown(&who_can_fool(&policy.for_package(&name("lua")), &BTreeMap::new()))
}

fn shown(exposure: &Exposure) -> String {
    match exposure {
        Exposure::Nobody => "-".into(),
        Exposure::Coalition { operators, smallest, .. } => {
            assert!(smallest);
            operators.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(" ")
        }
    }
}

#[test]
fn small_policies() {
    assert_eq!(fools("a, b", json!("local-only")), "-");
    assert_eq!(fools("a, b", json!("one")), "a");
    assert_eq!(fools("a, b mine", json!("solo")), "b");
    assert_eq!(fools("a, b", json!("majority")), "a b");
    assert_eq!(fools("a", json!("majority")), "-", "`self` is never a liar");
    assert_eq!(fools("", json!("majority")), "-");
    assert_eq!(fools("a, b, c, d", json!("majority")), "a b c");
    let two = |of: Value| json!({ "rule": { "atLeast": 2, "of": of } });
    assert_eq!(fools("a, b, c", two(json!(["a", "b", "self"]))), "a b");
    assert_eq!(fools("a g, b g, c", two(json!(["g", "c"]))), "a c");
    assert_eq!(fools("a, b until=1, c", two(json!("everyone"))), "a c");
    assert_eq!(fools("a, b until=1", two(json!("everyone"))), "-");
}

/// Keys of one operator are one party; but what voters say of their platforms costs a liar nothing.
#[test]
fn operators_count_and_platforms_do_not() {
    let people = "a op=x, b op=x, c op=y, d op=z";
    let rule = |need: usize, distinct: Value| json!({ "rule": { "atLeast": need, "of": "everyone", "distinct": distinct } });
    assert_eq!(fools(people, json!({ "rule": { "atLeast": 2, "of": "everyone" } })), "x");
    assert_eq!(fools(people, json!({ "rule": { "atLeast": 3, "of": "everyone" } })), "x y");
    assert_eq!(fools("a op=x, b op=y, c op=y", json!({ "rule": { "atLeast": 2, "of": "everyone" } })), "y");
    assert_eq!(fools(people, rule(2, json!("operator"))), "x y");
    assert_eq!(fools(people, rule(2, json!(["arch", "os", "engine"]))), "x");
    assert_eq!(fools(people, rule(3, json!("arch"))), "x y");
    assert_eq!(fools(people, json!("strict")), "x y z");
    let policy = Policy::compile(&rule(3, json!("arch")), &roster(people), NOW).unwrap();
    let exposure = who_can_fool(&policy.for_package(&name("lua")), &BTreeMap::new());
    let Exposure::Coalition { voters, .. } = &exposure else { panic!("{exposure:?}") };
    assert_eq!(voters, &["a", "b", "c"].map(name).into());
    assert_eq!((exposure.size(), Exposure::Nobody.size()), (Some(2), None));
}

/// What this machine verifies itself, nobody can fool it about.
#[test]
fn verified_witnesses() {
    assert_eq!(fools("a, b", json!({ "preset": "one", "witness": "verified" })), "-");
    assert_eq!(fools("a, b", json!({ "preset": "one", "witness": "present" })), "a");
}

#[test]
fn who_cannot_vote_cannot_fool() {
    let (mut one, mut other) = (Feed::of("a"), Feed::of("a"));
    let proof = equivocation(&one.built(1, '1'), &other.built(1, '2'));
    let case = Case::new("a, b", json!("one"), "").with(proof);
    let policy = Policy::compile(&case.policy, &case.roster, NOW).unwrap();
    let exposure = who_can_fool(&policy.for_package(&name("lua")), case.voters().mute());
    assert_eq!(shown(&exposure), "b");
}

#[test]
fn the_weakest_of_a_closure() {
    let policy = json!({
        "rule": { "atLeast": 3, "of": "everyone" },
        "overrides": [
            { "package": "data", "rule": "c" },
            { "package": "icons", "rule": "b" },
            { "package": "mine", "rule": "self" },
        ],
    });
    let policy = Policy::compile(&policy, &roster("a, b, c, d"), NOW).unwrap();
    let weakest = |packages: &[&str]| {
        let packages: Vec<_> = packages.iter().map(|package| name(package)).collect();
        weakest(&policy, &packages, &BTreeMap::new())
            .map(|(package, exposure)| format!("{package}: {}", shown(&exposure)))
    };
    assert_eq!(weakest(&["lua", "data", "icons"]).as_deref(), Some("data: c"), "the first of equals");
    assert_eq!(weakest(&["mine", "lua"]).as_deref(), Some("lua: a b c"));
    assert_eq!(weakest(&["mine"]), None);
    assert_eq!(weakest(&[]), None);
}

/// Also for more people than one can try all subsets of, as long as many are alike.
#[test]
fn large_rosters_are_exact_where_people_are_alike() {
    let people: Vec<_> = (0..300).map(|n| format!("p{n} g{}", n % 3)).collect();
    let policy = json!({ "rule": { "atLeast": "all", "of": [
        { "atLeast": "two-thirds", "of": "everyone" },
        { "atLeast": "majority", "of": "g1" },
        { "atLeast": "all", "of": "g2" },
    ] } });
    let policy = Policy::compile(&policy, &roster(&people.join(",")), NOW).unwrap();
    let exposure = who_can_fool(&policy.for_package(&name("lua")), &BTreeMap::new());
    assert!(matches!(exposure, Exposure::Coalition { smallest: true, .. }));
    assert_eq!(exposure.size(), Some(201));
}

/// Where nobody is like anybody else and the search would take for ever, it says that it gave up.
#[test]
fn a_search_that_is_too_long_says_so() {
    // A hundred people and a hundred pairs of them, one of each being wanted: a vertex cover.
    let people: Vec<_> = (0..100).map(|n| format!("p{n}")).collect();
    let pair = |n: usize, by: usize| json!({ "atLeast": 1, "of": [format!("p{n}"), format!("p{}", (n * by + 7) % 100)] });
    let pairs: Vec<_> = (0..100).flat_map(|n| [pair(n, 3), pair(n, 11), pair(n, 57)]).collect();
    let pairs = pairs.into_iter().collect::<Vec<_>>();
    let halves: Vec<_> = pairs.chunks(150).map(|half| json!({ "atLeast": "all", "of": half })).collect();
    let policy = json!({ "rule": { "atLeast": "all", "of": halves } });
    let policy = Policy::compile(&policy, &roster(&people.join(",")), NOW).unwrap();
    let exposure = who_can_fool(&policy.for_package(&name("lua")), &BTreeMap::new());
    let Exposure::Coalition { operators, smallest, .. } = exposure else { panic!() };
    assert!(!smallest && operators.len() < 100 && operators.len() > 20, "{}", operators.len());
}

#[test]
fn blast_radius_of_a_key() {
    let radius = |policy: Value, who: &str, says: &[&str]| {
        let people = "a, b, c";
        let policy = Policy::compile(&policy, &roster(people), NOW).unwrap();
        let claims: Vec<_> = says.iter().map(|says| Case::new(people, json!(null), says).claims()).collect();
        let view = policy.for_package(&name("lua"));
        let blasts = blast_radius(&name(who), claims.iter().map(|claims| (claims, view)));
        let outcome = |outcome: &Outcome| match outcome {
            Outcome::Accepted { outputs } => {
                let digit = crate::support::digit(outputs);
                if digit.is_control() { "?".into() } else { digit.to_string() }
            }
            Outcome::Pending => "pending".into(),
            Outcome::Disputed => "disputed".into(),
            Outcome::Untrusted => "untrusted".into(),
        };
        let show = |blast: &trust::coalition::Blast| {
            let (now, absent, wrong) = (outcome(&blast.now), outcome(&blast.absent), outcome(&blast.wrong));
            format!("{}: {now} {absent} {wrong}", blast.index)
        };
        blasts.iter().map(show).collect::<Vec<_>>().join("; ")
    };
    let two = |dissent: &str| json!({ "rule": { "atLeast": 2, "of": ["a", "b", "c"] }, "dissent": dissent });
    let says = ["a:1 b:1", "b:1 c:1", "a:1 b:1 c:1", "a:1", ""];
    assert_eq!(radius(two("alarm"), "a", &says), "0: 1 pending pending");
    assert_eq!(
        radius(two("hold"), "a", &says),
        "0: 1 pending disputed; 1: 1 1 disputed; 2: 1 1 disputed",
        "who can hold everything up is in everything"
    );
    assert_eq!(radius(json!({ "rule": "a" }), "a", &["a:1"]), "0: 1 untrusted ?");
    assert_eq!(radius(json!({ "rule": "a" }), "a", &["a:\0"]), "0: ? untrusted ?");
    // What is said wrong is what nobody says, whatever that is.
    assert_eq!(radius(two("alarm"), "a", &["a:1 b:\0 c:1"]), "0: 1 pending disputed");
    assert_eq!(radius(two("alarm"), "a", &["a:1 b:\u{1} c:1"]), "0: 1 pending disputed");
    // Somebody who holds up what would be accepted without him.
    assert_eq!(radius(two("hold"), "c", &["a:1 b:1 c:2"]), "0: disputed 1 disputed");
}

proptest! {
    #![proptest_config(cases(1_000))]

    /// No smaller set of operators is enough, and this one is: every set is tried, by judging what
    /// they would say.
    #[test]
    fn as_small_as_can_be(
        operators in prop::collection::vec(0..4usize, 5),
        groups in prop::collection::vec(prop::bool::ANY, 5),
        needs in prop::collection::vec(1..4usize, 3),
        distinct in prop::bool::ANY,
    ) {
        let names = ["a", "b", "c", "d", "e"];
        let person = |n: usize| {
            let group = if groups[n] || n < 2 { "g" } else { "" };
            format!("{} {group} op=o{}", names[n], operators[n])
        };
        let people = (0..5).map(person).collect::<Vec<_>>().join(",");
        let mut of_everyone = json!({ "atLeast": needs[0], "of": "everyone" });
        if distinct {
            of_everyone["distinct"] = json!(["operator", "arch"]);
        }
        let of = json!([of_everyone, { "atLeast": needs[1].min(2), "of": "g" }, { "atLeast": 2, "of": ["c", "d", "g"] }]);
        let rule = json!({ "atLeast": if needs[2] == 1 { json!(1) } else { json!("all") }, "of": of });
        let Ok(policy) = Policy::compile(&json!({ "rule": rule }), &roster(&people), NOW) else { return Ok(()) };
        let view = policy.for_package(&name("lua"));
        let enough = |chosen: &BTreeSet<String>| {
            let lie = |n: usize| {
                let lies = chosen.contains(&format!("o{}", operators[n]));
                if lies { format!("{}:1@arch{n}", names[n]) } else { String::new() }
            };
            let says = (0..5).map(lie).collect::<Vec<_>>().join(" ");
            let claims = Case::new(&people, json!(null), &says).claims();
            trust::verdict::judge(&claims, &view).accepted().is_some()
        };
        let all: Vec<String> = operators.iter().map(|n| format!("o{n}")).collect::<BTreeSet<_>>().into_iter().collect();
        let least = (0..1usize << all.len())
            .map(|bits| (0..all.len()).filter(|n| bits >> n & 1 == 1).map(|n| all[n].clone()).collect())
            .filter(enough)
            .map(|chosen: BTreeSet<String>| chosen.len())
            .min();
        let exposure = who_can_fool(&view, &BTreeMap::new());
        prop_assert_eq!(exposure.size(), least);
        if let Exposure::Coalition { operators, voters, smallest } = exposure {
            prop_assert!(smallest);
            prop_assert!(enough(&operators.iter().map(ToString::to_string).collect()));
            prop_assert!(voters.len() >= operators.len());
        }
    }
}
