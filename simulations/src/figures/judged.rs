//! What policies make of lies, and of bugs that many share: rosters, packages and votes from a seed,
//! judged as every node judges them.

use std::collections::BTreeMap;

use protocol::{
    id::ActionId,
    key::{AttesterKey, SigningKey},
    name::Name,
    output::Outputs,
    statement::Platform,
    witness::Witness,
};
use serde_json::{Value, json};
use trust::{
    ledger::{Record, Said, Voters},
    policy::Policy,
    roster::{Attester, Roster},
    standing::Standings,
    verdict::{Outcome, decide},
};

use super::Extent;
use crate::{
    builds::outputs,
    judge::NOW,
    plot::{Line, Panel, Plot, Unit},
    seed::Seed,
};

/// Attesters of the roster, each run by another operator.
const ATTESTERS: usize = 20;

/// Shares of the roster that are looked at, in percent.
const SHARES: [usize; 11] = [0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100];

/// Who is in the roster, and what each says about one package: two engines, two architectures.
struct Court {
    roster: Roster,
    voters: Voters,
    keys: Vec<AttesterKey>,
}

/// What becomes of packages.
#[derive(Debug, Clone, Copy, Default)]
struct Outcomes {
    wrong: u64,
    not: u64,
    all: u64,
}

impl Court {
    fn new() -> Self {
        let (mut roster, mut keys) = (Roster::default(), Vec::new());
        for n in 0..ATTESTERS {
            let mut secret = [7; 32];
            secret[0] = n as u8;
            let key = AttesterKey::of(&SigningKey::from_bytes(&secret));
            let name = |what: &str| Name::new(format!("{what}-{n}")).expect("a name");
            let attester = Attester { operator: Some(name("operator")), ..Attester::new(key) };
            roster.add(name("attester"), attester).expect("names and keys differ");
            keys.push(key);
        }
        let voters = Voters::new(&roster, None, &Standings::default(), NOW);
        Self { roster, voters, keys }
    }

    fn policy(&self, policy: &Value) -> Policy {
        Policy::compile(policy, &self.roster, NOW).expect("a figure's policy is one")
    }

    /// What becomes of `packages` packages, about each of which an attester speaks `speaks` times of
    /// a thousand. Those say something wrong of whom `wrong` says so: the same, because they have
    /// agreed, or share a bug. Those run the one engine of whom `engine` says so.
    fn judge(
        &self,
        policy: &Policy,
        packages: u64,
        speaks: u64,
        seed: &Seed,
        wrong: impl Fn(&[usize], usize) -> bool,
        engine: impl Fn(&[usize], usize) -> bool,
    ) -> Outcomes {
        let package = Name::new("package").expect("a name");
        let view = policy.for_package(&package);
        let mut all = Outcomes::default();
        for n in 0..packages {
            let mut seed = seed.apart(n);
            let action = ActionId::from_bytes(seed.bytes());
            let (truth, lie) = (outputs(&action, ""), outputs(&action, " and a lie"));
            // In which order the roster is: who is among the first so many is wrong.
            let mut order: Vec<usize> = (0..ATTESTERS).collect();
            seed.shuffle(&mut order);
            let mut records = Vec::new();
            for (who, attester) in self.keys.iter().enumerate() {
                let says: &Outputs = if wrong(&order, who) { &lie } else { &truth };
                let name = |text: &str| Name::new(text).expect("a name");
                let platform = Platform {
                    engine: name(if engine(&order, who) { "one" } else { "other" }),
                    arch: name(if who % 2 == 0 { "x86_64" } else { "aarch64" }),
                    os: name("linux"),
                };
                let witness = Some(Witness::from_bytes(seed.bytes()));
                let said = Said::Built { outputs: says.clone(), witness, platform };
                if seed.chance(speaks) {
                    records.push(Record { action, attester: *attester, seq: n, said });
                }
            }
            all.all += 1;
            match decide(&self.voters.claims(&action, None, records.iter(), None), &view) {
                Outcome::Accepted { outputs } => all.wrong += u64::from(outputs != truth),
                Outcome::Pending | Outcome::Disputed | Outcome::Untrusted => all.not += 1,
            }
        }
        all
    }
}

/// Whether somebody is among the first of this share of the roster, in this order.
fn among(order: &[usize], who: usize, percent: usize) -> bool {
    order[..ATTESTERS * percent / 100].contains(&who)
}

/// What becomes of more and more liars who all say the same, by preset.
pub(super) fn liars(extent: Extent) -> Plot {
    let court = Court::new();
    let policies =
        ["one", "majority", "two-thirds", "strict"].map(|preset| (preset, json!({ "preset": preset })));
    let mut policies = BTreeMap::from(policies.map(|(name, policy)| (name.to_owned(), policy)));
    policies.insert("3 of 20".into(), json!({ "rule": { "atLeast": 3, "of": "everyone" } }));
    let even = |_: &[usize], who: usize| who % 4 < 2;
    panels(
        "What becomes of packages when some lie, all in the same way, and nine of ten speak",
        "of 20 attesters lie",
        &policies,
        |policy, percent| {
            let packages = extent.of(20, 2000);
            court.judge(
                &court.policy(policy),
                packages,
                900,
                &Seed(1),
                |order, who| among(order, who, percent),
                even,
            )
        },
    )
}

/// What it buys that engines differ, when one of two is wrong about a package.
pub(super) fn diversity(extent: Extent) -> Plot {
    let court = Court::new();
    let two = |distinct: Value| json!({ "rule": { "atLeast": 2, "of": "everyone", "distinct": distinct } });
    let policies = BTreeMap::from([
        ("2 of 20".to_owned(), json!({ "rule": { "atLeast": 2, "of": "everyone" } })),
        ("2 of 20, two architectures".to_owned(), two(json!(["arch"]))),
        ("2 of 20, two engines".to_owned(), two(json!(["engine"]))),
        ("4 of 20".to_owned(), json!({ "rule": { "atLeast": 4, "of": "everyone" } })),
    ]);
    panels(
        "What becomes of packages when one of two engines is wrong, and one in four speaks",
        "of 20 attesters run the engine that is wrong",
        &policies,
        |policy, percent| {
            let packages = extent.of(20, 2000);
            let runs = |order: &[usize], who: usize| among(order, who, percent);
            court.judge(&court.policy(policy), packages, 250, &Seed(2), runs, runs)
        },
    )
}

/// Two panels: what is accepted and wrong, and what is not accepted.
fn panels(
    title: &'static str,
    over: &'static str,
    policies: &BTreeMap<String, Value>,
    judge: impl Fn(&Value, usize) -> Outcomes,
) -> Plot {
    let (mut wrong, mut not) = (Vec::new(), Vec::new());
    for (name, policy) in policies {
        let all: Vec<_> = SHARES.iter().map(|percent| judge(policy, *percent)).collect();
        let line = |of: fn(&Outcomes) -> u64| {
            let share = |outcomes: &Outcomes| Some(of(outcomes) * 1000 / outcomes.all.max(1));
            Line { name: name.clone(), values: all.iter().map(share).collect() }
        };
        wrong.push(line(|outcomes| outcomes.wrong));
        not.push(line(|outcomes| outcomes.not));
    }
    let places: Vec<_> = SHARES.iter().map(|percent| format!("{percent} %")).collect();
    let panel = |counts, lines| Panel { counts, unit: Unit::Share, over, places: places.clone(), lines };
    Plot { title, panels: vec![panel("accepted, and wrong", wrong), panel("not accepted", not)] }
}
