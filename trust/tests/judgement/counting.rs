//! The ways in which other systems were found to miscount.

use protocol::{
    key::{Context, Signature, SignatureError},
    statement::{Body, Unverified},
};
use serde_json::json;
use trust::{ledger::Record, roster::RosterError};

use crate::support::{Case, Feed, check, equivocation, key, name, roster, signing_key, statement};

const FIVE: &str = "a, b, c, d, e";

/// `100 / 3` percent, three times, is 99: unanimity failed.
#[test]
fn unanimity_is_not_rounded_to_99_percent() {
    let all = |n| json!({ "rule": { "atLeast": n, "of": ["a", "b", "c"] } });
    for rule in [json!("all"), json!(3)] {
        check(FIVE, all(rule.clone()), "a:1 b:1 c:1", "accepted 1");
        check(FIVE, all(rule), "a:1 b:1", "pending");
    }
    let six = "a g, b g, c g, d g, e g, f g";
    for (need, says, expected) in [
        ("two-thirds", "a:1 b:1 c:1 d:1", "accepted 1"),
        ("two-thirds", "a:1 b:1 c:1", "pending"),
        ("majority", "a:1 b:1 c:1 d:1", "accepted 1"),
        ("majority", "a:1 b:1 c:1", "pending"),
    ] {
        check(six, json!({ "rule": { "atLeast": need, "of": "g" } }), says, expected);
    }
}

/// A single voter who answered was all of those who answered.
#[test]
fn the_denominator_is_who_is_named_and_not_who_answered() {
    check(FIVE, json!("majority"), "a:1", "pending");
    check(FIVE, json!("majority"), "a:1 b:1 c:1", "pending");
    check(FIVE, json!("majority"), "a:1 b:1 c:1 d:1", "accepted 1");
    check(FIVE, json!("two-thirds"), "a:1 b:1 c:1", "pending");
    // Nor does it shrink when somebody is no longer trusted.
    check("a, b, c until=1, d until=1, e until=1", json!("majority"), "a:1 b:1", "pending");
}

/// Two against two was decided by the order of a hash table.
#[test]
fn a_tie_is_won_by_nobody() {
    let two = json!({ "rule": { "atLeast": 2, "of": ["a", "b", "c", "d"] }, "dissent": "ignore" });
    for says in ["a:1 b:1 c:2 d:2", "d:1 c:1 b:2 a:2", "a:2 c:1 b:2 d:1"] {
        check(FIVE, two.clone(), says, "disputed");
    }
    check(FIVE, json!("one"), "a:1 b:2", "disputed");
    check(FIVE, json!({ "preset": "one", "dissent": "ignore" }), "a:1 b:2", "disputed");
}

/// Those who did not answer were not even listed as missing.
#[test]
fn silence_is_not_agreement() {
    let case = Case::new(FIVE, json!("majority"), "a:1 b:1");
    assert_eq!(case.outcome(), "pending");
    assert_eq!(case.judge().reasoning.missing, ["c", "d", "e", "self"].map(name));
    check(FIVE, json!("majority"), "", "untrusted");
    check(FIVE, json!({ "rule": "a" }), "b:1 c:1 d:1 e:1", "untrusted");
}

/// Forks of a log were written to a log.
#[test]
fn a_fork_is_kept_and_counts_for_ever() {
    let (mut one, mut other) = (Feed::of("a"), Feed::of("a"));
    let (first, fork) = (one.built(1, '1'), other.built(2, '2'));
    let case = Case::signed("a", json!("one"), [&first, &fork]);
    assert_eq!(case.outcome(), "accepted 1", "nobody has put the two together yet");
    let case = case.with(equivocation(&first, &fork));
    assert_eq!(case.outcome(), "untrusted");
    // Also what it says later, and when the proof comes first.
    let later = one.built(1, '1');
    let mut case = Case::signed("a", json!("one"), [&later]);
    case.evidence.insert(0, equivocation(&fork, &first));
    assert_eq!(case.outcome(), "untrusted");
    assert!(case.reasons()["a"].contains(r#"{"against":"equivocated"}"#));
}

/// One key can make many signatures of one message, and each was a vote.
#[test]
fn signatures_are_not_keys() {
    let mut feed = Feed::of("a");
    let said = [feed.built(1, '1'), feed.built(1, '1'), feed.built(1, '1')];
    let case = Case::signed(FIVE, json!({ "rule": { "atLeast": 2, "of": ["a", "b"] } }), &said);
    assert_eq!((case.outcome().as_str(), case.votes().as_str()), ("pending", "a:1"));
    assert_eq!(case.claims().vote(&name("a")).unwrap().seq, Some(2), "the latest is the one that is shown");
    let case = Case::signed(FIVE, json!("one"), said.iter().rev());
    assert_eq!(case.claims().vote(&name("a")).unwrap().seq, Some(2), "whichever is heard first");
}

/// One key listed under two names had two votes.
#[test]
fn one_key_has_one_name() {
    let mut two = roster("a");
    let again = trust::roster::Attester::new(key("a"));
    assert!(matches!(two.add(name("z"), again), Err(RosterError::KeyTwice { .. })));
    let json =
        format!(r#"{{"version":1,"attesters":{{"a":{{"key":"{0}"}},"z":{{"key":"{0}"}}}}}}"#, key("a"));
    let error = trust::roster::Roster::parse(&json).unwrap_err();
    assert!(matches!(error, RosterError::KeyTwice { .. }), "{error}");
    // Nor is this machine somebody else beside itself.
    let mut mine = roster("a, b");
    mine.add(name("laptop"), trust::roster::Attester::new(key("self"))).unwrap();
    assert!(matches!(mine.check_own(&key("self")), Err(RosterError::Own { .. })));
    let case = Case { roster: mine, policy: json!("majority"), ..Case::new("", json!(""), "self:1 a:1") };
    assert_eq!((case.outcome().as_str(), case.votes().as_str()), ("pending", "a:1 self:1"));
}

/// Signers were counted together although they disagreed about what is in between.
#[test]
fn signers_of_different_outputs_are_not_added_up() {
    let two = json!({ "rule": { "atLeast": 2, "of": "everyone" } });
    check("a, b, c", two, "a:1 b:2", "pending");
    // An output is all outputs, with sizes: agreeing in one of them is no agreement.
    let mut case = Case::new("a, b", json!({ "rule": { "atLeast": 2, "of": ["a", "b"] } }), "a:1 b:1");
    assert_eq!(case.outcome(), "accepted 1");
    if let trust::ledger::Said::Built { outputs, .. } = &mut case.records[1].said {
        outputs.first_entry().unwrap().get_mut().size = 97;
    }
    assert_eq!(case.outcome(), "disputed");
}

/// Who said two things was still counted once.
#[test]
fn who_contradicts_himself_does_not_count() {
    let mut feed = Feed::of("a");
    let said = [feed.built(1, '1'), feed.built(1, '2')];
    let case = Case::signed("a, b", json!("one"), &said);
    assert_eq!((case.outcome().as_str(), case.votes().as_str()), ("untrusted", ""));
    assert_eq!(case.claims().uncounted.len(), 2);
    // He can still say which one he takes back.
    let mut all = said.to_vec();
    all.push(feed.retract(0, 0));
    let case = Case::signed("a, b", json!("one"), &all);
    assert_eq!((case.outcome().as_str(), case.votes().as_str()), ("accepted 2", "a:2"));
}

/// Old statements were played back.
#[test]
fn replays_change_nothing() {
    let mut feed = Feed::of("a");
    let (first, other) = (feed.built(1, '1'), feed.built(2, '9'));
    let withdrawn = feed.retract(0, 0);
    let again = [&first, &withdrawn, &first, &other, &first, &withdrawn, &first];
    let case = Case::signed("a", json!("one"), again);
    assert_eq!(case.outcome(), "untrusted", "it was withdrawn, whatever comes after it");
    assert_eq!(case.reasons()["a"].len(), 1);
    // What was said of one action is nothing about another.
    let case = Case::signed("a", json!("one"), [&other]);
    assert_eq!(case.outcome(), "untrusted");
}

/// What was signed before a revocation counts, what was signed after it does not.
#[test]
fn stale_statements_of_a_revoked_key_do_not_count() {
    let mut feed = Feed::of("a");
    let said = [feed.built(2, '1'), feed.built(1, '1')];
    let with = |since| Case::signed("a", json!("one"), &said).with(feed.revoke(since)).outcome();
    assert_eq!([with(0), with(1), with(2)], ["untrusted", "untrusted", "accepted 1"]);
    let both = Case::signed("a", json!("one"), &said).with(feed.revoke(2)).with(feed.revoke(1));
    assert_eq!(both.outcome(), "untrusted", "the earliest counts");
    let both = Case::signed("a", json!("one"), &said).with(feed.revoke(1)).with(feed.revoke(2));
    assert_eq!(both.outcome(), "untrusted");
}

/// What was signed as one thing was taken for another.
#[test]
fn a_statement_of_one_kind_is_none_of_another() {
    let mut feed = Feed::of("a");
    let signed = feed.built(1, '1');
    let unsigned = &signed.bytes()[64..];
    for context in [Context::Succession, Context::Revocation] {
        let forged = Signature::sign(&signing_key("a"), context, unsigned);
        let bytes = [forged.as_bytes(), unsigned].concat();
        let error = Unverified::from_bytes(&bytes).unwrap().verify().unwrap_err();
        assert!(matches!(error, SignatureError::Forged(_)));
    }
    // And a retraction, a succession or a failure is no vote.
    for signed in [feed.retract(0, 0), feed.succeed("b")] {
        assert_eq!(Record::of(&signed), None);
        assert!(matches!(signed.statement().body, Body::Retract { .. } | Body::Succeed { .. }));
    }
}

/// Failures were neither signed nor shown.
#[test]
fn failures_are_signed_and_shown_and_accept_nothing() {
    let (mut a, mut b) = (Feed::of("a"), Feed::of("b"));
    let said = [a.failed(1), b.failed(1)];
    let case = Case::signed("a, b", json!("one"), &said);
    assert_eq!(case.outcome(), "untrusted");
    assert!(case.reasons()["a"].contains(r#"{"failed":{"step":1,"ending":"trap"}}"#));
    // Nor do they stand against who got something.
    let built = Feed::of("c").built(1, '1');
    let case = Case::signed("a, b, c", json!("one"), said.iter().chain([&built]));
    assert_eq!(case.outcome(), "accepted 1");
}

/// Strangers weigh nothing, however many there are.
#[test]
fn strangers_do_not_count() {
    let mut case = Case::new("a", json!("one"), "a:1");
    for n in 0..10_000 {
        let mut record = case.records[0].clone();
        let mut bytes = [9; 32];
        bytes[..4].copy_from_slice(&u32::to_le_bytes(n));
        record.attester = protocol::key::AttesterKey::from_bytes(bytes);
        if let trust::ledger::Said::Built { outputs, .. } = &mut record.said {
            *outputs = crate::support::outputs('2');
        }
        case.records.push(record);
    }
    let verdict = case.judge();
    assert_eq!(
        (crate::support::short(&verdict).as_str(), verdict.reasoning.strangers),
        ("accepted 1", 10_000)
    );
    assert_eq!(verdict.reasoning.sides.len(), 1);
}

/// What one voter may have said a million times is told of twice.
#[test]
fn reasons_are_bounded() {
    let mut feed = Feed::of("a");
    let said: Vec<_> = (0..40).map(|n| feed.built(1, if n % 2 == 0 { '1' } else { '2' })).collect();
    let failed: Vec<_> = (0..9).map(|_| feed.failed(1)).collect();
    let mut case = Case::signed("a", json!("one"), said.iter().chain(&failed));
    let places = |case: &Case| case.claims().uncounted.iter().map(|u| u.seq.unwrap()).collect::<Vec<_>>();
    assert_eq!(places(&case), [38, 39, 47, 48], "two contradictions and two failures, the latest");
    case.evidence.push(statement(&feed.retract(0, 39)));
    assert_eq!(places(&case), [38, 39, 47, 48]);
    assert!(case.reasons()["a"].contains(r#"{"against":{"retracted":{"by":49}}}"#));
}
