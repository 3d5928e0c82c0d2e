//! `judge` against another, naive judge, which reads the policy as it is written and tries subsets.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::{Value, json};
use trust::{
    policy::{Policy, PolicyFault},
    roster::Roster,
};

use crate::support::{Case, NOW, cases, digit, roster, short};

/// Somebody of the roster.
#[derive(Debug, Clone)]
struct Person {
    groups: Vec<&'static str>,
    operator: Option<&'static str>,
    expired: bool,
}

/// What somebody says: a digit, the architecture and the engine.
type Said = (char, &'static str, &'static str);

/// A case in the oracle's own terms.
#[derive(Debug, Clone)]
struct World {
    people: BTreeMap<&'static str, Person>,
    said: BTreeMap<&'static str, Said>,
    rule: Value,
    dissent: &'static str,
}

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

fn worlds() -> impl Strategy<Value = World> {
    let person = (
        prop::sample::subsequence(vec!["g", "h"], 0..=2),
        prop::option::weighted(0.3, prop::sample::select(vec!["x", "y", "a"])),
        prop::bool::weighted(0.1),
    );
    let person = person.prop_map(|(groups, operator, expired)| Person { groups, operator, expired });
    let people = prop::collection::vec(person, 4..=5).prop_map(|mut people| {
        // So that most rules name somebody.
        (people[0].groups, people[3].groups) = (vec!["g"], vec!["h"]);
        NAMES.into_iter().zip(people).collect::<BTreeMap<_, _>>()
    });
    let said = (
        prop::sample::select(vec!['1', '1', '1', '2', '3']),
        prop::sample::select(vec!["x86_64", "aarch64"]),
        prop::sample::select(vec!["v1", "v2"]),
    );
    let voters: Vec<&'static str> = NAMES.into_iter().chain(["self"]).collect();
    let said = prop::collection::btree_map(prop::sample::select(voters), said, 0..=6);
    let dissent = prop::sample::select(vec!["hold", "alarm", "ignore"]);
    (people, said, rules(), dissent).prop_map(|(people, mut said, rule, dissent)| {
        said.retain(|who, _| *who == "self" || people.contains_key(who));
        let mut world = World { people, said, rule, dissent };
        // What cannot be met is made so that it can, if that is easy.
        if !world.compiles() {
            let text = world.rule.to_string();
            let text = text.replace(r#""atLeast":2"#, r#""atLeast":1"#).replace("two-thirds", "all");
            world.rule = text.replace(r#""atLeast":3"#, r#""atLeast":"all""#).parse().unwrap();
        }
        world
    })
}

fn rules() -> impl Strategy<Value = Value> {
    let name = || prop::sample::select(vec!["a", "b", "c", "d", "self", "g", "h"]).prop_map(Value::from);
    let need = || {
        let words = ["majority", "two-thirds", "all"].map(Value::from);
        prop_oneof![
            prop::sample::select(vec![1, 1, 2, 2, 3]).prop_map(Value::from),
            prop::sample::select(words.to_vec())
        ]
    };
    let distinct = || {
        let one = prop::sample::subsequence(vec!["operator", "arch", "os", "engine"], 1..=2);
        prop::option::weighted(0.4, one)
    };
    let with = |need: Value, of: Value, distinct: Option<Vec<&str>>| match distinct {
        Some(distinct) => json!({ "atLeast": need, "of": of, "distinct": distinct }),
        None => json!({ "atLeast": need, "of": of }),
    };
    let whole = prop::sample::select(vec!["everyone", "g", "h"]).prop_map(Value::from);
    let flat = prop_oneof![
        whole,
        prop::collection::btree_set(prop::sample::select(vec!["a", "b", "c", "d", "self", "g"]), 1..=4)
            .prop_map(|set| json!(set))
    ];
    let flat = (need(), flat, distinct()).prop_map(move |(need, of, distinct)| with(need, of, distinct));
    let leaf = prop_oneof![name(), flat.clone(), flat];
    leaf.prop_recursive(2, 8, 3, move |inner| {
        (need(), prop::collection::vec(inner, 1..=3))
            .prop_map(|(need, of)| json!({ "atLeast": need, "of": of }))
    })
}

/// Every way to choose from `items`.
fn subsets<T: Copy>(items: &[T]) -> impl Iterator<Item = Vec<T>> {
    let chosen =
        |bits: usize| (0..items.len()).filter(move |n| bits >> n & 1 == 1).map(|n| items[n]).collect();
    (0..1usize << items.len()).map(chosen)
}

impl World {
    fn compiles(&self) -> bool {
        Policy::compile(&json!({ "rule": self.rule }), &self.roster(), NOW).is_ok()
    }

    fn names(&self) -> Vec<&str> {
        self.people.keys().copied().chain(["self"]).collect()
    }

    fn members(&self, group: &str) -> Vec<&str> {
        let in_group = self.people.iter().filter(|(_, person)| person.groups.contains(&group));
        in_group.map(|(who, _)| *who).collect()
    }

    fn can_vote(&self, who: &str) -> bool {
        who == "self" || !self.people[who].expired
    }

    /// Whether the rule is met by these, each with architecture and engine.
    fn met(&self, rule: &Value, by: &BTreeMap<&str, (String, String)>) -> bool {
        if let Some(name) = rule.as_str() {
            let direct = by.contains_key(name);
            return direct || self.members(name).iter().any(|member| by.contains_key(member));
        }
        let elements: Vec<Value> = match &rule["of"] {
            Value::String(all) if all == "everyone" => self.names().into_iter().map(Value::from).collect(),
            Value::String(group) => self.members(group).into_iter().map(Value::from).collect(),
            list => list.as_array().unwrap().clone(),
        };
        let enough = |k: usize| match &rule["atLeast"] {
            Value::String(word) => match word.as_str() {
                "majority" => 2 * k > elements.len(),
                "two-thirds" => 3 * k >= 2 * elements.len(),
                _ => k == elements.len(),
            },
            number => k as u64 >= number.as_u64().unwrap(),
        };
        let elements_refs: Vec<&Value> = elements.iter().collect();
        let by_elements = subsets(&elements_refs)
            .any(|chosen| enough(chosen.len()) && chosen.iter().all(|element| self.met(element, by)));
        let voters: BTreeSet<&str> = elements
            .iter()
            .filter_map(Value::as_str)
            .flat_map(|name| self.members(name).into_iter().chain([name]))
            .filter(|name| by.contains_key(name))
            .collect();
        let voters: Vec<&str> = voters.into_iter().collect();
        let none = Vec::new();
        let differ = rule["distinct"].as_array().unwrap_or(&none).iter().all(|attribute| {
            let value = |who: &str| match attribute.as_str().unwrap() {
                "operator" => self.operator(who).to_owned(),
                "arch" => by[who].0.clone(),
                "engine" => by[who].1.clone(),
                // Everybody who spoke has one; who might speak has any.
                _ if by[who].0.starts_with("any") => by[who].0.clone(),
                _ => "linux".into(),
            };
            subsets(&voters).any(|chosen| {
                let values: BTreeSet<String> = chosen.iter().map(|who| value(who)).collect();
                values.len() == chosen.len() && enough(chosen.len())
            })
        });
        by_elements && differ
    }

    fn operator<'w>(&'w self, who: &'w str) -> &'w str {
        self.people.get(who).and_then(|person| person.operator).unwrap_or(who)
    }

    fn counted(&self) -> BTreeMap<&'static str, Said> {
        self.said.iter().filter(|(who, _)| self.can_vote(who)).map(|(who, said)| (*who, *said)).collect()
    }

    fn named(&self, rule: &Value) -> BTreeSet<&str> {
        let of = |value: &Value| self.named(value).into_iter().map(str::to_owned).collect::<Vec<_>>();
        let names: Vec<String> = match rule {
            Value::String(name) if name == "everyone" => {
                self.names().into_iter().map(str::to_owned).collect()
            }
            Value::String(name) => {
                self.members(name).into_iter().chain([name.as_str()]).map(str::to_owned).collect()
            }
            Value::Array(list) => list.iter().flat_map(of).collect(),
            object => of(&object["of"]),
        };
        self.names().into_iter().filter(|who| names.iter().any(|name| name == who)).collect()
    }

    /// What another judge would say.
    fn expected(&self) -> String {
        let said = self.counted();
        let agree = |digit: char| {
            let agree = said.iter().filter(|(_, said)| said.0 == digit);
            agree
                .map(|(who, said)| (*who, (said.1.to_owned(), said.2.to_owned())))
                .collect::<BTreeMap<_, _>>()
        };
        let digits: BTreeSet<char> = said.values().map(|said| said.0).collect();
        let winners: Vec<char> =
            digits.iter().copied().filter(|d| self.met(&self.rule, &agree(*d))).collect();
        match winners[..] {
            [winner] if digits.len() == 1 || self.dissent != "hold" => return format!("accepted {winner}"),
            [] => {}
            _ => return "disputed".into(),
        }
        if !self.named(&self.rule).iter().any(|who| said.contains_key(who)) {
            return "untrusted".into();
        }
        let silent: Vec<&str> =
            self.names().into_iter().filter(|who| self.can_vote(who) && !said.contains_key(who)).collect();
        let possible = digits.iter().any(|digit| {
            subsets(&silent).any(|more| {
                let mut by = agree(*digit);
                by.extend(more.iter().map(|who| (*who, (format!("any{who}"), format!("any{who}")))));
                self.met(&self.rule, &by)
            })
        });
        if digits.len() > 1 && (self.dissent == "hold" || !possible) {
            "disputed".into()
        } else {
            "pending".into()
        }
    }

    fn roster(&self) -> Roster {
        let entries = self.people.iter().map(|(who, person)| {
            let operator = person.operator.map(|operator| format!("op={operator}")).unwrap_or_default();
            let until = if person.expired { "until=1" } else { "" };
            format!("{who} {} {operator} {until}", person.groups.join(" "))
        });
        roster(&entries.collect::<Vec<_>>().join(","))
    }

    fn case(&self) -> Case {
        let said = self
            .said
            .iter()
            .map(|(who, (digit, arch, engine))| format!("{who}:{digit}@{arch}/linux/{engine}"));
        let says = said.collect::<Vec<_>>().join(" ");
        let policy = json!({ "rule": self.rule, "dissent": self.dissent });
        Case { roster: self.roster(), policy, ..Case::new("", Value::Null, &says) }
    }
}

proptest! {
    #![proptest_config(cases(10_000))]

    /// SPEC §14, §15: the judge says what the naive judge says, in whatever order and how often it
    /// hears it, and whatever strangers say.
    #[test]
    fn as_the_oracle_says(world in worlds(), order in any::<u64>()) {
        let mut case = world.case();
        match Policy::compile(&case.policy, &case.roster, NOW) {
            Err(error) => {
                let expected = matches!(
                    error.fault,
                    PolicyFault::TooHigh { .. } | PolicyFault::Operators { .. } | PolicyFault::Twice { .. }
                        | PolicyFault::Unknown { .. } | PolicyFault::NoGroup(_)
                );
                prop_assert!(expected, "{error}");
                return Ok(());
            }
            Ok(policy) => {
                // What was compiled can be reached, if nobody's time is over.
                let all = world.names().into_iter().map(|who| {
                    let any = format!("any{who}");
                    (who, (any.clone(), any))
                });
                prop_assert!(world.met(&world.rule, &all.collect()));
                prop_assert_eq!(policy.notes().iter().any(|note| matches!(note, trust::policy::Note::Expired { .. })), {
                    let able = world.names().into_iter().filter(|who| world.can_vote(who));
                    let able = able.map(|who| (who, (format!("any{who}"), format!("any{who}"))));
                    !world.met(&world.rule, &able.collect())
                });
            }
        }
        let verdict = case.judge();
        prop_assert_eq!(short(&verdict), world.expected(), "{}", verdict);

        let mut more = case.records.clone();
        more.extend(case.records.iter().cloned().map(|mut record| {
            record.attester = protocol::key::AttesterKey::from_bytes([3; 32]);
            record
        }));
        more.extend(case.records.clone());
        for n in (1..more.len()).rev() {
            more.swap(n, (order.rotate_left(n as u32) % (n as u64 + 1)) as usize);
        }
        case.records = more;
        let mut again = case.judge();
        again.reasoning.strangers = 0;
        prop_assert_eq!(&again, &verdict);
    }

}

proptest! {
    #![proptest_config(cases(2_000))]

    /// Once accepted, outputs stay accepted when one more agrees; and when one who agreed falls
    /// silent, nothing else is accepted instead.
    #[test]
    fn one_more_who_agrees_changes_nothing(world in worlds(), who in prop::sample::select(NAMES.to_vec())) {
        if !world.compiles() || !world.people.contains_key(who) {
            return Ok(());
        }
        let case = world.case();
        let verdict = case.judge();
        let Some(outputs) = verdict.accepted() else { return Ok(()) };
        let mut more = world.clone();
        more.said.entry(who).or_insert((digit(outputs), "aarch64", "v2"));
        prop_assert_eq!(more.case().outcome(), short(&verdict));
        let mut fewer = world.clone();
        if fewer.said.get(who).is_some_and(|said| said.0 == digit(outputs)) {
            fewer.said.remove(who);
            let outcome = fewer.case().outcome();
            prop_assert!(outcome == short(&verdict) || !outcome.starts_with("accepted"), "{}", outcome);
        }
    }

    /// What is missing helps, and only what helps is listed: without those who are missing the
    /// rule stays unmet.
    #[test]
    fn who_is_missing_is_silent_and_named(world in worlds()) {
        if !world.compiles() {
            return Ok(());
        }
        let case = world.case();
        let verdict = case.judge();
        for missing in &verdict.reasoning.missing {
            prop_assert!(world.named(&world.rule).contains(missing.as_str()));
            prop_assert!(!world.said.contains_key(missing.as_str()), "{}", missing);
        }
        prop_assert!(verdict.accepted().is_none() || verdict.reasoning.missing.is_empty());
    }
}

/// Most worlds have a policy that can be compiled, and verdicts of every kind: or else the
/// properties above would say little.
#[test]
fn worlds_are_of_every_kind() {
    use proptest::{strategy::ValueTree, test_runner::TestRunner};
    let mut runner = TestRunner::deterministic();
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..2_000 {
        let world = worlds().new_tree(&mut runner).unwrap().current();
        let kind = if world.compiles() { world.case().outcome() } else { "refused".into() };
        *kinds.entry(kind.split(' ').next().unwrap().to_owned()).or_default() += 1;
    }
    assert!(kinds["refused"] < 1_000, "{kinds:?}");
    for kind in ["accepted", "pending", "disputed", "untrusted"] {
        assert!(kinds[kind] > 40, "{kinds:?}");
    }
}
