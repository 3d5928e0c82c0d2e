//! Keys that succeed each other, and names that share them.

use serde_json::json;
use trust::{ledger::Mute, limits, standing::Standings};

use crate::support::{Case, Feed, equivocation, key, name, signing_key, statement};

const ONE: &str = "one";

#[test]
fn a_successor_is_the_same_voter() {
    let (mut a, mut next, mut last) = (Feed::of("a"), Feed::of("a2"), Feed::of("a3"));
    let said = [a.built(1, '1'), a.succeed("a2"), next.built(1, '1'), next.succeed("a3"), last.built(1, '1')];
    let case = Case::signed("a, b", json!(ONE), &said);
    assert_eq!((case.votes().as_str(), case.outcome().as_str()), ("a:1", "accepted 1"));
    assert_eq!(case.claims().vote(&name("a")).unwrap().key, Some(key("a3")), "the latest key's is shown");
    // Whichever key says something else, it is the same voter who contradicts himself.
    let other = last.built(1, '2');
    let case = Case::signed("a, b", json!(ONE), said.iter().chain([&other]));
    assert_eq!((case.votes().as_str(), case.reasons()["a"].len()), ("", 1));
    // Without the succession, it is a stranger.
    let case = Case::signed("a, b", json!(ONE), [&said[0], &said[2]]);
    assert_eq!((case.votes().as_str(), case.claims().strangers), ("a:1", 1));
}

#[test]
fn a_feed_ends_with_its_succession() {
    let mut a = Feed::of("a");
    let (before, succession) = (a.built(1, '1'), a.succeed("a2"));
    // What a thief of the old key says behind it.
    let mut thief = Feed::of("a");
    let _ = (thief.built(1, '1'), thief.built(2, '1'));
    let behind = thief.built(1, '2');
    let case = Case::signed("a", json!(ONE), [&before, &succession, &behind]);
    assert_eq!(case.votes(), "a:1");
    assert!(case.reasons()["a"].contains(r#"{"against":{"ended":{"at":1}}}"#));
    // Nor what he says in its place.
    let mut thief = Feed::of("a");
    let _ = thief.built(2, '1');
    let beside = thief.built(1, '2');
    assert_eq!(Case::signed("a", json!(ONE), [&succession, &beside]).votes(), "");
}

#[test]
fn a_succession_that_does_not_count_is_not_followed() {
    let (mut a, mut next) = (Feed::of("a"), Feed::of("a2"));
    let said = [a.built(3, '1'), a.succeed("a2"), next.built(1, '1')];
    let with = |since| Case::signed("a", json!(ONE), &said).with(a.revoke(since)).votes();
    assert_eq!([with(0), with(1), with(2)], ["", "", "a:1"]);
    // Two successors: one of them is a thief's.
    let mut fork = Feed::of("a");
    let _ = fork.built(3, '1');
    let fork = fork.succeed("thief");
    let stolen = Feed::of("thief").built(1, '2');
    let all = [&said[0], &said[1], &said[2], &fork, &stolen];
    assert_eq!(Case::signed("a", json!(ONE), all).votes(), "");
    assert_eq!(Case::signed("a", json!(ONE), all.into_iter().rev()).votes(), "");
    let case = Case::signed("a", json!(ONE), &said).with(equivocation(&said[1], &fork));
    assert_eq!(case.votes(), "");
    assert!(matches!(case.voters().mute()[&name("a")], Mute::Against(_)));
}

/// A retraction and the end of a feed do nothing when they were signed by a thief.
#[test]
fn what_is_behind_a_revocation_does_nothing() {
    let mut a = Feed::of("a");
    let said = [a.built(1, '1'), a.retract(0, 0)];
    let case = |since| Case::signed("a", json!(ONE), &said).with(a.revoke(since)).votes();
    assert_eq!([case(2), case(1)], ["", "a:1"]);
    let mut b = Feed::of("b");
    let said = [b.built(1, '1'), b.succeed("c"), b_behind()];
    let case = |since| Case::signed("b", json!(ONE), &said).with(b.revoke(since)).reasons();
    assert!(case(9)["b"].contains(r#"{"against":{"ended":{"at":1}}}"#));
    assert!(case(1)["b"].contains(r#"{"against":{"revoked":{"since":1}}}"#));
}

fn b_behind() -> protocol::statement::Signed {
    let mut fork = Feed::of("b");
    let _ = (fork.built(1, '1'), fork.built(2, '1'));
    fork.built(1, '1')
}

#[test]
fn a_member_that_goes_on_as_another_has_one_vote() {
    let (mut a, mut b) = (Feed::of("a"), Feed::of("b"));
    let said = [a.built(1, '1'), a.succeed("b"), b.built(1, '1')];
    let two = json!({ "rule": { "atLeast": 2, "of": ["a", "b"] } });
    let case = Case::signed("a, b", two.clone(), &said);
    assert_eq!((case.outcome().as_str(), case.votes().as_str()), ("pending", "b:1"));
    assert_eq!(case.voters().mute()[&name("a")], Mute::SameAs { other: name("b") });
    assert!(case.judge().reasoning.missing.is_empty(), "`a` cannot speak for himself any more");
    // Two members who go on as a third key.
    let (mut a, mut b, mut c) = (Feed::of("a"), Feed::of("b"), Feed::of("c"));
    let said = [a.built(1, '1'), a.succeed("c"), b.built(1, '1'), b.succeed("c"), c.built(1, '1')];
    let case = Case::signed("a, b", two.clone(), &said);
    assert_eq!((case.outcome().as_str(), case.votes().as_str()), ("pending", "a:1"));
    assert_eq!(case.claims().vote(&name("a")).unwrap().key, Some(key("c")));
    // In a circle.
    let (mut a, mut b) = (Feed::of("a"), Feed::of("b"));
    let said = [a.built(1, '1'), a.succeed("b"), b.built(1, '1'), b.succeed("a")];
    let case = Case::signed("a, b", two, &said);
    assert_eq!((case.outcome().as_str(), case.votes().as_str()), ("pending", "a:1"));
    assert_eq!(case.voters().mute()[&name("b")], Mute::SameAs { other: name("a") });
}

/// The name nearest to the end of the chain votes; this machine always votes as itself.
#[test]
fn the_nearest_to_the_end_votes() {
    let (mut a, mut middle) = (Feed::of("a"), Feed::of("m"));
    let said = [a.succeed("m"), middle.succeed("z"), Feed::of("z").built(1, '1')];
    let case = Case::signed("a, m, z", json!(ONE), &said);
    assert_eq!(case.votes(), "z:1");
    let other = name("z");
    assert_eq!(case.voters().mute()[&name("a")], Mute::SameAs { other: other.clone() });
    assert_eq!(case.voters().mute()[&name("m")], Mute::SameAs { other });
    let case = Case::signed("a, m", json!(ONE), &said);
    assert_eq!(case.votes(), "m:1");
    let mut own = Feed::of("self");
    let said = [own.succeed("a"), Feed::of("a").built(1, '1')];
    let case = Case::signed("a", json!(ONE), &said);
    assert_eq!(case.votes(), "self:1");
    let case = case.built_here('2');
    assert_eq!(case.votes(), "", "what this machine does and what its key says are one voice");
}

#[test]
fn a_chain_ends_somewhere() {
    let links = |n: usize| {
        let who = |n: usize| if n == 0 { "a".to_owned() } else { format!("a{n}") };
        let mut said: Vec<_> = (0..n).map(|n| Feed::of(&who(n)).succeed(&who(n + 1))).collect();
        said.push(Feed::of(&who(n)).built(1, '1'));
        Case::signed("a", json!(ONE), &said)
    };
    assert_eq!(links(limits::SUCCESSIONS).votes(), "a:1");
    let beyond = links(limits::SUCCESSIONS + 1);
    assert_eq!(beyond.votes(), "");
    assert_eq!(beyond.voters().mute()[&name("a")], Mute::TooManySuccessors);
    assert_ne!(signing_key("a"), signing_key("a1"));
}

#[test]
fn the_order_of_evidence_does_not_matter() {
    let mut a = Feed::of("a");
    let said = [a.built(1, '1'), a.retract(0, 0), a.built(1, '2'), a.succeed("a2")];
    let case = Case::signed("a", json!(ONE), &said).with(a.revoke(4)).with(a.revoke(9));
    let standings = |evidence: &[protocol::evidence::Evidence]| evidence.iter().collect::<Standings>();
    let expected = standings(&case.evidence);
    let mut evidence = case.evidence.clone();
    for n in 0..evidence.len() {
        evidence.rotate_left(n + 1);
        evidence.swap(0, n);
        assert_eq!(standings(&evidence), expected);
        assert_eq!(standings(&[evidence.clone(), evidence.clone()].concat()), expected);
    }
    assert_eq!(case.votes(), "a:2");
    assert_eq!(expected.iter().count(), 1);
}

/// Whether a key withdrew anything is told apart from what else is known of it.
#[test]
fn who_has_withdrawn() {
    let mut a = Feed::of("a");
    let _ = a.built(1, '1');
    let said = [statement(&a.retract(0, 0)), statement(&a.succeed("a2")), a.revoke(9)];
    let withdrew = |evidence| {
        let standings: Standings = [evidence].into_iter().collect();
        standings.of(&key("a")).unwrap().has_retracted()
    };
    assert_eq!(said.each_ref().map(withdrew), [true, false, false]);
}

#[test]
fn whose_feeds_to_follow() {
    let said = [Feed::of("a").succeed("a2")];
    let case = Case::signed("a, b", json!(ONE), &said);
    let voters = case.voters();
    let mut keys: Vec<_> = voters.keys().map(|(key, name)| (name.to_string(), *key)).collect();
    keys.sort();
    let mut expected: Vec<_> = [("a", "a"), ("a", "a2"), ("b", "b"), ("self", "self")]
        .map(|(name, who)| (name.to_owned(), key(who)))
        .into();
    expected.sort();
    assert_eq!(keys, expected);
    assert_eq!(voters.name_of(&key("a2")), Some(&name("a")));
    assert_eq!(voters.name_of(&key("z")), None);
}
