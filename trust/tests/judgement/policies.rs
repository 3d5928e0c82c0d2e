//! What a policy may say.

use serde_json::{Value, json};
use trust::{
    limits,
    policy::{Because, Policy},
    verdict::judge,
};

use crate::support::{Case, NOW, check, digit, name, roster, short};

const PEOPLE: &str = "alice friends, bob friends colleagues, carol colleagues, dave op=acme, erin op=acme";

fn compile(people: &str, policy: Value) -> Result<Policy, String> {
    Policy::compile(&policy, &roster(people), NOW).map_err(|error| error.to_string())
}

#[track_caller]
fn refused(policy: Value, expected: &str) {
    assert_eq!(compile(PEOPLE, policy).unwrap_err(), expected);
}

fn rule(rule: Value) -> Value {
    json!({ "rule": rule })
}

fn notes(people: &str, policy: Value) -> String {
    let notes = compile(people, policy).unwrap().notes().iter().map(ToString::to_string).collect::<Vec<_>>();
    notes.join("; ")
}

#[test]
fn presets() {
    let three = "a mine, b, c";
    check(three, json!("local-only"), "a:1 b:1 c:1", "untrusted");
    check(three, json!("local-only"), "self:1", "accepted 1");
    check(three, json!("solo"), "b:1 c:1", "untrusted");
    check(three, json!("solo"), "a:1", "accepted 1");
    check(three, json!("one"), "c:1", "accepted 1");
    check(three, json!("one"), "self:1", "accepted 1");
    check(three, json!("majority"), "a:1 b:1", "pending");
    check(three, json!("majority"), "a:1 b:1 c:1", "accepted 1");
    check(three, json!("majority"), "a:1 b:1 self:1", "accepted 1");
    check("a, b", json!("majority"), "a:1 b:1", "accepted 1");
    check("a, b", json!("majority"), "a:1", "pending");
    check("a", json!("majority"), "a:1", "pending");
    check("a", json!("majority"), "a:1 self:1", "accepted 1");
    check("", json!("majority"), "self:1", "accepted 1");
    check("a, b, c, d, e", json!("two-thirds"), "a:1 b:1 c:1", "pending");
    check("a, b, c, d, e", json!("two-thirds"), "a:1 b:1 c:1 d:1", "accepted 1");
    check("", json!("two-thirds"), "self:1", "accepted 1");
    check("a", json!("two-thirds"), "self:1", "pending");
}

#[test]
fn strict_wants_different_machines_of_different_people() {
    let people = "a, b, c, d op=c, e op=c";
    let strict = |says| Case::new(people, json!("strict"), says).outcome();
    assert_eq!(strict("a:1+@arm/l/v1 b:1+@amd/l/v2 c:1+@amd/l/v2 d:1+@amd/l/v2"), "accepted 1");
    assert_eq!(strict("a:1+@amd/l/v1 b:1+@amd/l/v2 c:1+@amd/l/v2 d:1+@amd/l/v2"), "pending");
    assert_eq!(strict("a:1+@arm/l/v2 b:1+@amd/l/v2 c:1+@amd/l/v2 d:1+@amd/l/v2"), "pending");
    assert_eq!(strict("a:1+@arm/l/v1 e:1+@amd/l/v2 c:1+@amd/l/v2 d:1+@amd/l/v2"), "pending");
    assert_eq!(strict("a:1+@arm/l/v1 b:1+@amd/l/v2 c:1+@amd/l/v2"), "pending", "three of six");
    assert_eq!(strict("a:1@arm/l/v1 b:1+@amd/l/v2 c:1+@amd/l/v2 d:1+@amd/l/v2"), "pending", "a witness");
    compile("a, b", json!("strict")).unwrap();
    let error = compile("a op=me, b op=me", json!("strict")).unwrap_err();
    assert_eq!(error, "policy: at least 3 operators, but those named have only 2");
}

#[test]
fn dissent() {
    let with = |preset: &str, dissent: &str| json!({ "preset": preset, "dissent": dissent });
    let says = "a:1 b:1 c:2";
    for (policy, expected, alarm) in [
        (json!("majority"), "accepted 1", true),
        (with("majority", "ignore"), "accepted 1", false),
        (with("majority", "hold"), "disputed", false),
        (json!("two-thirds"), "disputed", false),
    ] {
        let case = Case::new("a, b, c", policy, &format!("{says} self:1"));
        let verdict = case.judge();
        assert_eq!((short(&verdict).as_str(), verdict.reasoning.alarm), (expected, alarm));
        assert_eq!(verdict.dissenters().map(|vote| vote.voter.as_str()).collect::<Vec<_>>(), ["c"]);
    }
    // Also of somebody whom the rule does not name, and of this machine.
    let two = |of: Value| json!({ "rule": { "atLeast": 2, "of": of }, "dissent": "hold" });
    check("a, b, c", two(json!(["a", "b"])), says, "disputed");
    check("a, b, c", two(json!(["a", "b"])), "a:1 b:1 self:2", "disputed");
    // But not of somebody whose time is over, or a stranger.
    check("a, b, c until=1", two(json!(["a", "b"])), says, "accepted 1");
    check("a, b", two(json!(["a", "b"])), says, "accepted 1");
    // Nor is unanimity an alarm.
    assert!(!Case::new("a, b", json!("one"), "a:1 b:1").judge().reasoning.alarm);
}

/// Nobody can break the tie any more: waiting is of no use.
#[test]
fn what_cannot_be_reached_any_more_is_disputed() {
    let two = json!({ "rule": { "atLeast": 2, "of": ["a", "b", "c"] } });
    check("a, b, c", two.clone(), "a:1 b:2", "pending");
    check("a, b, c", two.clone(), "a:1 b:2 c:3", "disputed");
    check("a, b, c until=1", two, "a:1 b:2", "disputed");
    check("a, b", json!({ "rule": { "atLeast": "all", "of": ["a", "b"] } }), "a:1 b:2", "disputed");
}

#[test]
fn witnesses() {
    use protocol::witness::{TranscriptHash, Witness};
    use trust::ledger::{Checked, Execution, Said};

    let with = |rule: &str| json!({ "rule": "alice", "witness": rule });
    for (rule, says, expected) in [
        ("any", "alice:1", "accepted 1"),
        ("any", "alice:1+", "accepted 1"),
        ("present", "alice:1", "pending"),
        ("present", "alice:1+", "accepted 1"),
        ("known", "alice:1", "pending"),
        ("known", "alice:1+", "pending"),
        ("verified", "alice:1", "pending"),
        ("verified", "alice:1+", "pending"),
    ] {
        check("alice", with(rule), says, expected);
    }
    // This machine's own word needs no proof to itself.
    for rule in ["any", "present", "known", "verified"] {
        check("alice", json!({ "rule": "self", "witness": rule }), "self:1", "accepted 1");
    }
    // Unproven or not, somebody of the roster got something else.
    let hold = json!({ "rule": { "atLeast": 1, "of": ["a"] }, "witness": "present", "dissent": "hold" });
    check("a, b", hold, "a:1+ b:2", "disputed");

    let transcript = TranscriptHash::from_bytes([5; 32]);
    let case = |digit: char, witness: Witness, policy: &str| {
        let mut case = Case::new("alice", with(policy), "alice:1+").built_here(digit);
        case.own = case.own.map(|own| Execution { transcript: Some(transcript), ..own });
        let right = transcript.witness(&crate::support::key("alice"), &crate::support::action(1));
        if let Said::Built { witness: said, .. } = &mut case.records[0].said {
            *said = Some(if witness == Witness::from_bytes([1; 32]) { right } else { witness });
        }
        case
    };
    let (right, wrong) = (Witness::from_bytes([1; 32]), Witness::from_bytes([2; 32]));
    assert_eq!(case('1', right, "verified").outcome(), "accepted 1");
    for policy in ["any", "present", "known", "verified"] {
        let copied = case('1', wrong, policy);
        assert_eq!(copied.outcome(), "untrusted", "{policy}");
        assert!(copied.reasons()["alice"].contains(r#""wrongWitness""#));
    }
    // Whoever was found to execute something else is known, until one of its witnesses is wrong.
    let found = |witnesses: &[Witness]| {
        let mut checked = Checked::default();
        for witness in witnesses {
            checked.note(&case('1', *witness, "any").claims());
        }
        let unchecked = Case::new("alice", with("known"), "alice:1+").knowing(checked);
        (unchecked.outcome(), unchecked.votes())
    };
    let alone = "alice:1".to_owned();
    assert_eq!(found(&[]), ("pending".into(), alone.clone()));
    assert_eq!(found(&[right]), ("accepted 1".into(), alone.clone()));
    assert_eq!(found(&[wrong]), ("pending".into(), alone.clone()));
    assert_eq!(found(&[wrong, right]), ("pending".into(), alone));
    // Who is known must give a witness all the same.
    let mut silent = Checked::default();
    silent.note(&case('1', right, "any").claims());
    assert_eq!(Case::new("alice", with("known"), "alice:1").knowing(silent).outcome(), "pending");

    // Another execution has another transcript: nothing can be said of the witness.
    assert_eq!(case('2', wrong, "any").votes(), "alice:1 self:2");
    assert_eq!(case('2', wrong, "verified").outcome(), "disputed");
}

#[test]
fn named_rules_groups_and_nesting() {
    let policy = json!({
        "rules": {
            "core": { "atLeast": 2, "of": ["alice", "carol", "acme"] },
            "acme": { "atLeast": 1, "of": ["dave", "erin"] },
        },
        "rule": { "atLeast": "all", "of": ["core", "friends"] },
    });
    check(PEOPLE, policy.clone(), "alice:1 carol:1", "accepted 1");
    check(PEOPLE, policy.clone(), "erin:1 carol:1", "pending");
    check(PEOPLE, policy.clone(), "erin:1 carol:1 bob:1", "accepted 1");
    check(PEOPLE, policy.clone(), "erin:1 dave:1 bob:1", "pending");
    let verdict = Case::new(PEOPLE, policy, "erin:1 dave:1 bob:1").judge();
    assert_eq!(verdict.reasoning.missing, ["alice", "carol"].map(name));
    let text = verdict.to_string();
    assert_eq!(text, "pending: 2 of 2: core, friends, have 1; no vote yet from alice, carol");
    // A group behind `of` is its members; a group in a list is any of them.
    check(PEOPLE, rule(json!({ "atLeast": "all", "of": "friends" })), "alice:1", "pending");
    check(PEOPLE, rule(json!({ "atLeast": "all", "of": ["friends"] })), "alice:1", "accepted 1");
    check(PEOPLE, rule(json!("friends")), "bob:1", "accepted 1");
}

#[test]
fn distinct() {
    let exactly = json!({ "atLeast": 2, "of": ["carol", "dave"], "distinct": "operator" });
    check(PEOPLE, rule(exactly), "carol:1 dave:1", "accepted 1");
    let acme = |attribute: Value| rule(json!({ "atLeast": 2, "of": "everyone", "distinct": attribute }));
    check(PEOPLE, acme(json!("operator")), "dave:1 erin:1", "pending");
    check(PEOPLE, acme(json!("operator")), "dave:1 erin:1 alice:1", "accepted 1");
    let both = acme(json!(["arch", "engine"]));
    check(PEOPLE, both.clone(), "alice:1@x/l/v1 bob:1@x/l/v2", "pending");
    check(PEOPLE, both.clone(), "alice:1@x/l/v1 bob:1@y/l/v1", "pending");
    check(PEOPLE, both, "alice:1@x/l/v1 bob:1@y/l/v1 carol:1@x/l/v2", "accepted 1");
    check(PEOPLE, acme(json!("os")), "alice:1@x/linux/v bob:1@x/linux/v", "pending");
    check(PEOPLE, acme(json!("os")), "alice:1@x/linux/v bob:1@x/macos/v", "accepted 1");
}

#[test]
fn overrides_and_exemptions() {
    let policy = json!({
        "rule": { "atLeast": 2, "of": "everyone" },
        "dissent": "hold",
        "overrides": [
            { "package": "lua-*", "rule": "bob", "dissent": "ignore" },
            { "package": "lua*", "rule": "alice" },
            { "package": "gcc", "rule": "strict" },
        ],
        "exemptions": [
            { "package": "old", "rule": "alice", "until": "2020-01-01", "why": "over" },
            { "package": "zlib", "rule": "carol", "until": "2999-12-31", "why": "only she builds it" },
            { "package": "lua-5", "rule": "carol", "until": "2999-12-31", "why": "first" },
        ],
    });
    let policy = compile(PEOPLE, policy).unwrap();
    let outcome = |package: &str, says: &str| {
        let claims = Case::new(PEOPLE, Value::Null, says).claims();
        let view = policy.for_package(&name(package));
        (short(&judge(&claims, &view)), view.because())
    };
    assert_eq!(outcome("sqlite", "alice:1").0, "pending");
    assert_eq!(outcome("lua-cjson", "bob:1 alice:2").0, "accepted 1", "dissent is ignored there");
    assert_eq!(outcome("lua", "alice:1 bob:2").0, "disputed", "dissent is what is said for everything");
    assert_eq!(outcome("lua", "alice:1").0, "accepted 1");
    assert_eq!(outcome("old", "alice:1"), ("pending".into(), Because::Everything));
    let (zlib, because) = outcome("zlib", "carol:1");
    assert_eq!(zlib, "accepted 1");
    assert!(matches!(because, Because::Exemption { why, .. } if why == "only she builds it"));
    // An exemption changes who must agree, and nothing else of what applies.
    assert_eq!(outcome("lua-5", "carol:1 bob:2").0, "accepted 1");
    assert_eq!(policy.for_package(&name("gcc")).preset().map(|p| p.name()), Some("strict"));
    assert!(matches!(outcome("gcc", "").1, Because::Override { index: 2, .. }));
    let notes: Vec<_> = policy.notes().iter().map(ToString::to_string).collect();
    assert_eq!(notes, ["policy.exemptions[0]: the exemption of `old` ended with 2020-01-01"]);
    assert_eq!(policy.views().count(), 1 + 3 + 2);
    assert_eq!(policy.views().filter(|view| view.preset().is_some()).count(), 1);
}

#[test]
fn an_exemption_lasts_through_its_last_day() {
    let policy = json!({
        "rule": "alice",
        "exemptions": [{ "package": "x", "rule": "bob", "until": "2027-01-15", "why": "a test" }],
    });
    // 2027-01-15T00:00:00Z.
    for (now, lasts) in [(NOW, true), (1_800_057_599, true), (1_800_057_600, false)] {
        let policy = Policy::compile(&policy, &roster(PEOPLE), now).unwrap();
        assert_eq!(policy.notes().is_empty(), lasts, "{now}");
    }
}

/// What its owner should know is said once, whether the rule is a preset's or not; of an exemption that
/// is over, only that.
#[test]
fn exemptions_are_noted_once() {
    let noted = |people: &str, rule: &str, until: &str| {
        let exemption = json!({ "package": "x", "rule": rule, "until": until, "why": "a test" });
        notes(people, json!({ "preset": "local-only", "exemptions": [exemption] }))
    };
    let nobody = "`one` takes nothing from others, because nobody is trusted yet";
    let expired = "cannot be met while these do not vote any more: a, b, c";
    let alone = "nothing is accepted that this machine has not built itself";
    let three = "a until=1, b until=1, c until=1";
    for (people, rule, note) in [
        ("", "one", format!("policy.exemptions[0].rule: {nobody}")),
        (three, "strict", format!("policy.exemptions[0].rule: {expired}")),
        ("", "self", format!("policy.exemptions[0].rule: {alone}")),
        ("", "local-only", String::new()),
    ] {
        assert_eq!(noted(people, rule, "2999-12-31"), note, "{rule}");
        let over = "policy.exemptions[0]: the exemption of `x` ended with 2020-01-01";
        assert_eq!(noted(people, rule, "2020-01-01"), over, "{rule}");
    }
}

#[test]
fn what_owners_should_know() {
    assert_eq!(
        notes("", json!("majority")),
        "policy: `majority` takes nothing from others, because nobody is trusted yet"
    );
    assert_eq!(
        notes("a", json!("majority")),
        "policy: `majority` takes nothing from others, because only one attester is trusted"
    );
    assert_eq!(notes("a, b", json!("majority")), "");
    assert_eq!(
        notes("", json!("one")),
        "policy: `one` takes nothing from others, because nobody is trusted yet"
    );
    assert_eq!(notes("a", json!("one")), "");
    assert_eq!(
        notes("a", json!("solo")),
        "policy: `solo` takes nothing from others, because nobody is in the group `mine`"
    );
    assert_eq!(notes("a mine", json!("solo")), "");
    assert_eq!(notes("", json!("local-only")), "");
    assert_eq!(
        notes("a", json!("two-thirds")),
        "policy: `two-thirds` takes nothing from others, because only one attester is trusted"
    );
    assert_eq!(
        notes("a", rule(json!({ "atLeast": "all", "of": "everyone" }))),
        "policy.rule: nothing is accepted that this machine has not built itself"
    );
    assert_eq!(
        notes("a, b until=1, c until=1", rule(json!({ "atLeast": 2, "of": ["a", "b", "c"] }))),
        "policy.rule: cannot be met while these do not vote any more: b, c"
    );
    assert_eq!(
        notes("a until=1", json!("one")),
        "policy: nothing is accepted that this machine has not built itself"
    );
    assert_eq!(Policy::by_default(&roster("a, b"), NOW), compile("a, b", json!("majority")).unwrap());
}

#[test]
fn refusals() {
    refused(json!(7), "policy: expected the name of a preset or an object, found `7`");
    refused(json!("majorty"), "policy: `majorty` is no preset; did you mean `majority`?");
    refused(json!({ "prset": "one" }), "policy: unknown field `prset`; did you mean `preset`?");
    refused(json!({ "preset": "one", "rule": "bob" }), "policy: `preset` and `rule` exclude each other");
    refused(json!({ "preset": 1 }), "policy.preset: expected the name of a preset, found `1`");
    refused(
        json!({ "dissent": "shrug" }),
        "policy.dissent: expected `hold`, `alarm` or `ignore`, found `shrug`",
    );
    refused(
        json!({ "witness": [] }),
        "policy.witness: expected `any`, `present`, `known` or `verified`, found a list",
    );
    refused(rule(json!("bbo")), "policy.rule: `bbo` is no attester, group or rule");
    refused(
        rule(json!("friend")),
        "policy.rule: `friend` is no attester, group or rule; did you mean `friends`?",
    );
    refused(
        rule(json!("everyone")),
        "policy.rule: `everyone` goes with `atLeast`, as in { atLeast: 1, of: 'everyone' }",
    );
    refused(
        rule(json!(null)),
        "policy.rule: expected a name, or an object with `atLeast` and `of`, found null",
    );
    let at_least = |need: Value, of: Value| rule(json!({ "atLeast": need, "of": of }));
    refused(rule(json!({ "of": ["bob"] })), "policy.rule: the field `atLeast` is missing");
    refused(rule(json!({ "atLeast": 1 })), "policy.rule: the field `of` is missing");
    refused(
        at_least(json!(0), json!(["bob"])),
        "policy.rule.atLeast: a rule that nobody has to agree with accepts anything",
    );
    refused(
        at_least(json!("most"), json!(["bob"])),
        "policy.rule.atLeast: expected a number, `majority`, `two-thirds` or `all`, found `most`",
    );
    refused(
        at_least(json!(1.5), json!(["bob"])),
        "policy.rule.atLeast: expected a number, `majority`, `two-thirds` or `all`, found `1.5`",
    );
    refused(at_least(json!(1), json!([])), "policy.rule.of: `of` is empty");
    refused(
        at_least(json!(1), json!("alice")),
        "policy.rule.of: `of` wants a list, a group or `everyone`; `alice` is none",
    );
    refused(
        at_least(json!(1), json!({})),
        "policy.rule.of: expected a list, a group or `everyone`, found an object",
    );
    refused(at_least(json!(3), json!("friends")), "policy.rule.atLeast: at least 3 of 2, which can never be");
    refused(
        at_least(json!(u64::MAX), json!("friends")),
        "policy.rule.atLeast: at least 18446744073709551615 of 2, which can never be",
    );
    refused(
        at_least(json!(1), json!(["alice", "strict"])),
        "policy.rule.of[1]: `strict` is a whole policy and cannot be a part of a rule",
    );
    // One voter in two elements.
    let twice = "and would be counted twice; with `atLeast: 'all'` each element is to be met for itself";
    refused(
        at_least(json!(2), json!(["bob", "carol", "bob"])),
        &format!("policy.rule.of: `bob` is in element 1 and in element 3, {twice}"),
    );
    refused(
        at_least(json!(2), json!(["friends", "colleagues"])),
        &format!("policy.rule.of: `bob` is in element 1 and in element 2, {twice}"),
    );
    compile(PEOPLE, at_least(json!("all"), json!(["friends", "colleagues"]))).unwrap();
    compile(PEOPLE, at_least(json!(1), json!(["friends", "colleagues"]))).unwrap();
    // What can never differ enough.
    let distinct = |need: Value, of: Value, distinct: Value| {
        rule(json!({ "atLeast": need, "of": of, "distinct": distinct }))
    };
    refused(
        distinct(json!(2), json!(["dave", "erin"]), json!("operator")),
        "policy.rule: at least 2 operators, but those named have only 1",
    );
    refused(
        distinct(json!("all"), json!(["bob", "bob"]), json!("arch")),
        "policy.rule: at least 2 of 1, which can never be",
    );
    refused(
        distinct(json!(1), json!(["bob"]), json!("country")),
        "policy.rule.distinct: expected `operator`, `arch`, `os` or `engine`, found `country`",
    );
    refused(
        distinct(json!(1), json!(["bob"]), json!([])),
        "policy.rule.distinct: expected `operator`, `arch`, `os` or `engine`, found a list",
    );
    let nested = json!([{ "atLeast": 2, "of": "friends" }]);
    refused(
        distinct(json!(1), nested, json!("arch")),
        "policy.rule: with `distinct`, `of` has attesters and groups only",
    );
}

#[test]
fn refusals_of_named_rules() {
    let rules = |rules: Value| json!({ "rules": rules });
    refused(rules(json!([])), "policy.rules: expected an object of rules by name, found a list");
    refused(rules(json!({ "bob": "alice" })), "policy.rules: the rule `bob` has the name of an attester");
    refused(rules(json!({ "friends": "alice" })), "policy.rules: the rule `friends` has the name of a group");
    refused(
        rules(json!({ "one": "alice" })),
        "policy.rules: the rule `one` has the name of something else in policies",
    );
    refused(rules(json!({ "x": "nobody" })), "policy.rules.x: `nobody` is no attester, group or rule");
    refused(rules(json!({ "x": "x" })), "policy.rules.x: rules in a circle: x → x");
    let circle = json!({ "x": { "atLeast": 1, "of": ["bob", "y"] }, "y": "z", "z": "x" });
    refused(rules(circle), "policy.rules.x.of[1]: rules in a circle: x → y → z → x");
    assert!(
        compile(PEOPLE, rules(json!({ "-": "bob" })))
            .unwrap_err()
            .starts_with("policy.rules: `-` has the character")
    );
    let many: serde_json::Map<_, _> = (0..limits::RULES).map(|n| (format!("r{n}"), json!("bob"))).collect();
    compile(PEOPLE, rules(Value::Object(many))).unwrap();
    let many: serde_json::Map<_, _> = (0..=limits::RULES).map(|n| (format!("r{n}"), json!("bob"))).collect();
    refused(rules(Value::Object(many)), "policy.rules: 257 elements, but at most 256 are allowed");
}

#[test]
fn refusals_of_overrides_and_exemptions() {
    let overrides = |value: Value| json!({ "overrides": value });
    refused(overrides(json!({})), "policy.overrides: expected a list, found an object");
    refused(overrides(json!([1])), "policy.overrides[0]: expected an object, found `1`");
    refused(overrides(json!([{ "package": "x" }])), "policy.overrides[0]: the field `rule` is missing");
    refused(overrides(json!([{ "rule": "bob" }])), "policy.overrides[0]: the field `package` is missing");
    refused(
        overrides(json!([{ "rule": "bob", "package": "" }])),
        "policy.overrides[0].package: pattern `` has an empty component",
    );
    refused(
        overrides(json!([{ "rule": "nobody", "package": "x" }])),
        "policy.overrides[0].rule: `nobody` is no attester, group or rule",
    );
    refused(
        overrides(json!([{ "rule": "bob", "package": "x", "why": "" }])),
        "policy.overrides[0]: unknown field `why`",
    );
    compile(PEOPLE, overrides(json!(vec![json!({ "rule": "bob", "package": "x" }); limits::RULES]))).unwrap();
    refused(
        overrides(json!(vec![json!({ "rule": "bob", "package": "x" }); 257])),
        "policy.overrides: 257 elements, but at most 256 are allowed",
    );
    let exemption = |field: &str, value: Value| {
        let mut exemption = json!({ "package": "x", "rule": "bob", "until": "2999-01-01", "why": "so" });
        exemption[field] = value;
        json!({ "exemptions": [exemption] })
    };
    compile(PEOPLE, exemption("why", json!("x".repeat(limits::NOTE_BYTES)))).unwrap();
    let why = "policy.exemptions[0].why: expected a reason of 1 to 1024 bytes without control characters";
    refused(exemption("why", json!("")), why);
    refused(exemption("why", json!("\u{1b}[31m")), why);
    refused(exemption("why", json!("x".repeat(limits::NOTE_BYTES + 1))), why);
    refused(
        exemption("until", json!("tomorrow")),
        "policy.exemptions[0].until: expected a day, as in `2027-01-31`, found `tomorrow`",
    );
    refused(
        exemption("rule", json!({ "atLeast": 9, "of": "friends" })),
        "policy.exemptions[0].rule.atLeast: at least 9 of 2, which can never be",
    );
    // An exemption that is over must still mean something.
    let mut over = exemption("rule", json!("nobody"));
    over["exemptions"][0]["until"] = json!("2020-01-01");
    refused(over, "policy.exemptions[0].rule: `nobody` is no attester, group or rule");
}

/// However a policy is nested, it is refused before it costs much.
#[test]
fn hostile_nesting_is_bounded() {
    let mut deep = json!("bob");
    for _ in 1..limits::RULE_DEPTH {
        deep = json!({ "atLeast": 1, "of": [deep] });
    }
    compile(PEOPLE, rule(deep.clone())).unwrap();
    let deeper = json!({ "atLeast": 1, "of": [deep] });
    let at = format!("policy.rule{}", ".of[0]".repeat(limits::RULE_DEPTH));
    refused(rule(deeper), &format!("{at}: rules are nested deeper than 16"));
    // Rules that each mean the one before twice: 2^n.
    let doubled = |n: usize| {
        let mut rules = serde_json::Map::new();
        rules.insert("r0".into(), json!("bob"));
        for n in 1..=n {
            let before = format!("r{}", n - 1);
            rules.insert(format!("r{n}"), json!({ "atLeast": "all", "of": [before, before] }));
        }
        json!({ "rules": rules })
    };
    compile(PEOPLE, doubled(7)).unwrap();
    assert!(compile(PEOPLE, doubled(8)).unwrap_err().ends_with("rules are nested deeper than 16"));
    // Rules that each are the one before.
    let chain = |n: usize| {
        let mut rules = serde_json::Map::new();
        rules.insert("r0".into(), json!("bob"));
        rules.extend((1..=n).map(|n| (format!("r{n}"), json!(format!("r{}", n - 1)))));
        json!({ "rules": rules })
    };
    compile(PEOPLE, chain(limits::RULE_DEPTH - 1)).unwrap();
    assert!(compile(PEOPLE, chain(limits::RULE_DEPTH)).unwrap_err().ends_with("deeper than 16"));
    // Each group of two is three, and the whole one more.
    let groups = |n: usize| compile(PEOPLE, rule(json!({ "atLeast": 1, "of": vec!["friends"; n] })));
    assert_eq!(1 + 21_845 * 3, limits::RULE_NODES);
    groups(21_845).unwrap();
    assert!(groups(21_846).unwrap_err().contains("more than 65536 rules"));
    // A preset counts for what it stands for: with a hundred and one voters, `strict` is 307.
    let people: Vec<_> = (0..100).map(|n| format!("p{n}")).collect();
    let people = roster(&people.join(","));
    let strict = |n: usize| {
        let overrides = vec![json!({ "package": "x", "rule": "strict" }); n];
        Policy::compile(&json!({ "preset": "local-only", "overrides": overrides }), &people, NOW)
    };
    assert_eq!((limits::RULE_NODES - 1) / 307, 213);
    strict(213).unwrap();
    assert!(strict(214).unwrap_err().to_string().contains("more than 65536 rules"));
    let wide = json!(vec![json!({ "atLeast": 1, "of": "everyone" }); 20_000]);
    let error = compile(PEOPLE, rule(json!({ "atLeast": 1, "of": wide }))).unwrap_err();
    assert!(error.ends_with("more than 65536 rules, with names replaced by what they stand for"), "{error}");
}

/// What `--json` shows.
#[test]
fn verdicts_as_json() {
    let policy = json!({
        "rule": { "atLeast": 2, "of": "everyone", "distinct": ["arch", "operator"] },
        "exemptions": [{ "package": "lua", "rule": { "atLeast": 2, "of": "friends", "distinct": "arch" }, "until": "2999-12-31", "why": "x" }],
    });
    let case = Case::new(PEOPLE, policy, "alice:1@x86_64 carol:2");
    let verdict = serde_json::to_value(case.judge()).unwrap();
    assert_eq!(verdict["outcome"], "pending");
    let reasoning = &verdict["reasoning"];
    assert_eq!(
        reasoning["because"],
        json!({ "exemption": { "package": "lua", "until": "2999-12-31", "why": "x" } })
    );
    assert_eq!(reasoning["preset"], Value::Null);
    assert_eq!(reasoning["missing"], json!(["bob"]));
    let rule = &reasoning["rule"];
    assert_eq!(rule["rule"], "2 of the 2 of friends, with 2 different values of `arch`");
    assert_eq!(rule["met"], false);
    let is = &rule["is"]["atLeast"];
    assert_eq!((&is["have"], &is["need"], &is["distinct"]), (&json!(1), &json!(2), &json!({ "arch": 1 })));
    assert_eq!(is["of"][0], json!({ "rule": "alice", "met": true, "is": { "voter": { "says": "agrees" } } }));
    assert_eq!(is["of"][1], json!({ "rule": "bob", "met": false, "is": { "voter": { "says": "nothing" } } }));
    let side = &reasoning["sides"][0];
    assert_eq!(side["votes"][0]["platform"]["arch"], "x86_64");
    assert_eq!(side["votes"][0]["witness"], "absent");
    assert_eq!(side["outputs"]["out"]["size"], 96);
    let accepted = Case::new(PEOPLE, json!("one"), "alice:1").judge();
    let value = serde_json::to_value(&accepted).unwrap();
    let nar = value["outcome"]["accepted"]["outputs"]["out"]["nar"].as_str().unwrap();
    assert_eq!(Ok(accepted.accepted().unwrap()[&name("out")].nar), nar.parse());
    assert_eq!(value["reasoning"]["preset"], "one");
}

/// How the rule stands, for each voter.
#[test]
fn what_everybody_says() {
    let policy = json!({ "rule": { "atLeast": 5, "of": ["a", "b", "c", "d", "e"] }, "witness": "present" });
    let verdict = Case::new("a, b, c, d, e until=1", policy, "a:1+ b:1 c:2+").judge();
    let value = serde_json::to_value(verdict).unwrap();
    let of = value["reasoning"]["rule"]["is"]["atLeast"]["of"].as_array().unwrap();
    let says: Vec<_> = of.iter().map(|node| &node["is"]["voter"]["says"]).collect();
    let expired = json!({ "mute": { "expired": { "until": 1 } } });
    assert_eq!(says, [&json!("agrees"), &json!("unproven"), &json!("differs"), &json!("nothing"), &expired]);
    assert_eq!(value["reasoning"]["missing"], json!(["d"]));
}

/// Whoever comes nearest is shown first, whatever the outputs hash to.
#[test]
fn sides_in_order() {
    let sides = |says: &str| {
        let policy =
            json!({ "rule": { "atLeast": 4, "of": ["a", "b", "c", "d", "e"] }, "witness": "present" });
        let sides = Case::new("a, b, c, d, e", policy, says).judge().reasoning.sides;
        sides.iter().map(|side| digit(&side.outputs)).collect::<String>()
    };
    assert_eq!(sides("a:1+ b:2+ c:2+"), "21");
    assert_eq!(sides("a:1+ b:2+ c:2+ d:3+ e:3+"), "231", "of equal ones the lesser");
    assert_eq!(sides("a:1 b:1 c:2+"), "21", "what is not proven is no vote");
    assert_eq!(sides("a:1 b:2"), "12");
}

/// Nobody helps by agreeing where enough agree already.
#[test]
fn only_who_is_wanted_is_missing() {
    let policy = rule(json!({ "atLeast": "all", "of": ["friends", "carol"] }));
    let verdict = Case::new(PEOPLE, policy, "alice:1").judge();
    assert_eq!(verdict.reasoning.missing, [name("carol")]);
}

/// The judge passes over claims of those who have no vote, whoever made them claims.
#[test]
fn claims_of_nobody() {
    let policy =
        Policy::compile(&rule(json!({ "atLeast": 1, "of": ["a", "b"] })), &roster("a, b until=1"), NOW);
    let policy = policy.unwrap();
    let view = policy.for_package(&name("lua"));
    let claims = Case::new("a, b, z", Value::Null, "a:1 b:2 z:3").claims();
    let verdict = judge(&claims, &view);
    assert_eq!((short(&verdict).as_str(), verdict.reasoning.sides.len()), ("accepted 1", 1));
    assert_eq!(short(&judge(&claims.with(&name("a"), None), &view)), "untrusted");
}

/// A verdict in a line.
#[test]
fn verdicts_in_a_line() {
    let line = |policy: Value, says: &str| Case::new("a, b, c", policy, says).judge().to_string();
    let two = |dissent: &str| json!({ "rule": { "atLeast": 2, "of": ["a", "b", "c"] }, "dissent": dissent });
    for (dissent, says, expected) in [
        ("alarm", "a:1 b:1", "accepted: a, b agree (2 of 3: a, b, c)"),
        ("alarm", "a:1 b:1 c:2", "accepted: a, b agree (2 of 3: a, b, c); ALARM, c got something else"),
        ("ignore", "a:1 b:1 c:2", "accepted: a, b agree (2 of 3: a, b, c); c got something else"),
        ("hold", "a:1 b:1 c:2", "disputed: a, b against c"),
        ("alarm", "a:1", "pending: 2 of 3: a, b, c, have 1; no vote yet from b, c"),
        ("alarm", "a:1 b:2", "pending: 2 of 3: a, b, c, have 1; no vote yet from c"),
        ("alarm", "", "untrusted: nobody whom the rule names has voted; no vote yet from a, b, c"),
    ] {
        assert_eq!(line(two(dissent), says), expected);
    }
    assert_eq!(line(rule(json!("a")), "a:1"), "accepted: a says so (a)");
    let distinct =
        json!({ "rule": { "atLeast": 1, "of": [{ "atLeast": 2, "of": ["a", "b"], "distinct": "arch" }] } });
    assert_eq!(line(distinct, "a:1 b:1"), "pending: 1 of 1, have 0");
    let distinct = json!({ "rule": { "atLeast": 2, "of": ["a", "b"], "distinct": "arch" } });
    assert_eq!(line(distinct, "a:1 b:1"), "pending: 2 of 2: a, b, with 2 different values of `arch`");
    let many: Vec<_> = (0..10).map(|n| format!("p{n}")).collect();
    let all = json!({ "rule": { "atLeast": "all", "of": many } });
    let verdict = Case::new(&many.join(","), all, "").judge().to_string();
    assert!(verdict.ends_with("no vote yet from p0, p1, p2, p3, p4, p5, p6, p7 and 2 more"), "{verdict}");
    let eight = json!({ "rule": { "atLeast": "all", "of": many[..8] } });
    let verdict = Case::new(&many.join(","), eight, "").judge().to_string();
    assert!(verdict.ends_with("no vote yet from p0, p1, p2, p3, p4, p5, p6, p7"), "{verdict}");
}

/// What `assize policy show` has to go by.
#[test]
fn rules_can_be_looked_at() {
    use trust::policy::{Attribute, Over, Rule};

    let policy = json!({
        "rules": { "core": { "atLeast": 2, "of": "everyone", "distinct": ["os", "arch"] } },
        "rule": { "atLeast": 1, "of": ["core", "alice", "friends"] },
    });
    let policy = compile(PEOPLE, policy).unwrap();
    let view = policy.for_package(&name("lua"));
    assert_eq!(view.rule().to_string(), "1 of 3: core, alice, friends");
    let Rule::AtLeast(any) = view.rule() else { panic!() };
    assert_eq!((any.need(), any.over(), any.named()), (1, &Over::List, None));
    let [Rule::AtLeast(core), Rule::Voter(alice), Rule::AtLeast(friends)] = any.of() else { panic!() };
    assert_eq!(core.named(), Some(&name("core")));
    assert_eq!(core.distinct().iter().copied().collect::<Vec<_>>(), [Attribute::Arch, Attribute::Os]);
    assert_eq!((core.need(), core.over(), core.of().len()), (2, &Over::Everyone, 6));
    let text =
        "core: 2 of the 6 of everyone, with 2 different values of `arch`, with 2 different values of `os`";
    assert_eq!(core.to_string(), text);
    assert_eq!((alice.name(), friends.over()), (&name("alice"), &Over::Group(name("friends"))));
    assert_eq!(friends.to_string(), "1 of the 2 of friends");
    assert_eq!(view.rule().voters().len(), 6);
    // What has no name is only counted.
    let nested = json!({ "atLeast": 1, "of": "friends", "distinct": "arch" });
    let policy = compile(PEOPLE, rule(json!({ "atLeast": 1, "of": ["carol", nested] }))).unwrap();
    assert_eq!(policy.for_package(&name("lua")).rule().to_string(), "1 of 2");
}
