//! Disagreements (SPEC §21).

use std::collections::BTreeMap;

use protocol::{
    evidence::Evidence,
    key::AttesterKey,
    name::Name,
    statement::{Attestation, Body, Signed},
    witness::TranscriptHash,
};
use trust::{
    audit::{Dispute, Found, Severity, Stand, Support, examine},
    ledger::Execution,
    rebuild::Need,
    standing::Standings,
};

use super::support::*;

/// What this machine's own executions do.
fn transcript() -> TranscriptHash {
    TranscriptHash::from_bytes([5; 32])
}

/// What is said of action 1 by these people, of whom alice, bob and carol are in the roster, in
/// order: `bob:2` got the outputs 2, `bob:!` that it fails; with `+` behind it, the witness is right,
/// with `-` it is wrong. `self:1` is this machine's own execution.
fn dispute(says: &str, more: impl FnOnce(&mut BTreeMap<String, Feed>) -> Vec<Evidence>) -> Dispute {
    let mut feeds = BTreeMap::<String, Feed>::new();
    let (mut said, mut own) = (Vec::<Signed>::new(), None);
    for word in says.split_whitespace() {
        let (who, what) = word.split_once(':').unwrap();
        let mut what = what.chars();
        let digit = what.next().unwrap();
        if who == "self" {
            let transcript = Some(transcript());
            own = Some(Execution { outputs: outputs(digit), platform: platform(""), transcript });
            continue;
        }
        let mut witness = |key: &AttesterKey| match what.next() {
            Some('+') => Some(transcript().witness(key, &action(1))),
            Some('-') => Some(TranscriptHash::from_bytes([6; 32]).witness(key, &action(1))),
            _ => None,
        };
        let (outputs, witness) = (outputs(digit), witness(&key(who)));
        let feed = feeds.entry(who.into()).or_insert_with(|| Feed::of(who));
        said.push(match digit {
            '!' => feed.failed(1),
            _ => {
                let platform = platform("");
                feed.say(Body::Built(Attestation { action: action(1), outputs, witness, platform }))
            }
        });
    }
    let case = Case::new("alice, bob, carol", serde_json::json!("majority"), "");
    let standings: Standings = more(&mut feeds).iter().collect();
    examine(&said, &case.voters(), &standings, own.as_ref())
}

fn severities(says: &str) -> Vec<Severity> {
    dispute(says, |_| vec![]).severities.into_iter().collect()
}

#[test]
fn how_grave_it_is() {
    use Severity::{Contradiction, Dissent, Failure, Strangers, Witness};
    for (says, expected) in [
        ("alice:1 bob:1 carol:1", vec![]),
        ("alice:1", vec![]),
        ("alice:! bob:!", vec![]),
        ("alice:1 bob:2", vec![Dissent]),
        ("self:1 bob:2", vec![Dissent]),
        ("self:1 bob:1", vec![]),
        ("alice:1 alice:2", vec![Contradiction]),
        ("alice:1 alice:2 bob:1", vec![Contradiction]),
        ("alice:1 alice:2 bob:1 carol:3", vec![Dissent, Contradiction]),
        ("self:1 alice:1+ bob:1-", vec![Witness]),
        ("self:1 alice:2-", vec![Dissent]),
        ("alice:1 bob:!", vec![Failure]),
        ("alice:! self:1", vec![Failure]),
        ("alice:1 mallory:2", vec![Strangers]),
        ("mallory:1 trudy:2", vec![Strangers]),
        ("mallory:1 trudy:1", vec![]),
        ("mallory:2", vec![]),
        ("self:1 mallory:1-", vec![Strangers]),
        ("alice:1 bob:2 mallory:3", vec![Dissent, Strangers]),
        ("alice:1 mallory:!", vec![]),
    ] {
        assert_eq!(severities(says), expected, "{says}");
    }
}

#[test]
fn sides_show_who_says_what() {
    let dispute = dispute("alice:1 mallory:2 bob:1+ carol:! self:1", |_| vec![]);
    let side = |side: &trust::audit::Side| {
        let who = side.says.iter().map(|saying| saying.who.as_ref().map_or("?".into(), ToString::to_string));
        let what = match &side.found {
            Found::Built(outputs) => digit(outputs),
            Found::Failed { .. } => '!',
        };
        format!("{what}: {}", who.collect::<Vec<_>>().join(" "))
    };
    let sides: Vec<_> = dispute.sides.iter().map(side).collect();
    assert_eq!(sides, ["1: alice bob self", "2: ?", "!: carol"]);
    assert_eq!(dispute.severity(), Severity::Failure);
    let built = |digit| Found::Built(outputs(digit));
    assert_eq!(dispute.output(&built('1'), &built('2')), Some(name("out")));
    assert_eq!(dispute.output(&built('1'), &built('1')), None);
}

/// What was withdrawn, and what a key says that equivocated, is there to be seen and is no dispute.
#[test]
fn what_does_not_count_makes_no_dispute() {
    let retracted =
        dispute("alice:1 bob:2", |feeds| vec![statement(&feeds.get_mut("bob").unwrap().retract(0, 0))]);
    assert!(retracted.severities.is_empty() && retracted.sides.len() == 2);
    let against =
        |dispute: &Dispute| dispute.sayings().filter(|(saying, _)| saying.against.is_some()).count();
    assert_eq!(against(&retracted), 1);
    let equivocated = dispute("alice:1 mallory:2", |_| {
        let mut forks = [Feed::of("mallory"), Feed::of("mallory")];
        let (one, other) = (forks[0].built(1, '2'), forks[1].built(1, '3'));
        vec![equivocation(&one, &other)]
    });
    assert!(equivocated.severities.is_empty() && against(&equivocated) == 1);
}

/// What a rebuilder makes of what is said: nothing, if it has spoken; and those who have, or who wish
/// it, are not waited for.
#[test]
fn what_a_rebuilder_is_to_do() {
    let need = |says: &str, wishers: Option<&[&str]>| {
        let case = Case::new("alice, bob, carol", serde_json::json!("majority"), says);
        let spoken = case.records.iter().map(|record| record.attester).collect();
        let wishers = wishers.map(|wishers| wishers.iter().map(|who| key(who)).collect());
        let others = ["alice", "bob", "carol"].map(key);
        Need::of(&key("self"), &action(1), &case.claims(), &spoken, wishers.as_ref(), others)
    };
    let before = |says| need(says, None).unwrap().before;
    let nobody = need("", None).unwrap();
    assert_eq!((nobody.votes, nobody.disputed, nobody.wished), (0, false, false));
    assert_eq!(before("alice:1 bob:1 carol:1"), 0, "all have spoken");
    assert_eq!(need("", Some(&["alice", "bob", "carol"])).unwrap().before, 0, "all wish it");
    let without = ["alice:1", "bob:1", "carol:1"].map(before);
    assert_eq!(without.iter().sum::<usize>(), 2 * nobody.before, "each of those before is missed once");
    let both = need("alice:1 bob:2 mallory:3", Some(&[])).unwrap();
    assert_eq!((both.votes, both.disputed, both.wished), (2, true, true), "strangers are no voters");
    assert!(!need("alice:1 bob:1", None).unwrap().disputed, "they agree");
    assert_eq!(need("alice:1 self:1", None), None, "it has spoken");
}

#[test]
fn whom_an_execution_supports() {
    use Support::{Copied, Proven, Refuted, Supported, Undecided};
    let settled = |says: &str, found: Option<char>| {
        let found = found.map(|digit| Found::Built(outputs(digit)));
        let settled = dispute(says, |_| vec![]).settled(found.as_ref());
        settled.into_iter().map(|(who, support)| (who.to_string(), support)).collect::<Vec<_>>()
    };
    let said =
        |who: &[(&str, Support)]| who.iter().map(|(who, said)| ((*who).into(), *said)).collect::<Vec<_>>();
    let says = "self:1 alice:1+ bob:1 carol:2+ dave:1+";
    // Strangers and this machine itself are not among them.
    assert_eq!(settled(says, Some('1')), said(&[("alice", Proven), ("bob", Supported), ("carol", Refuted)]));
    assert_eq!(settled(says, None), said(&[("alice", Undecided), ("bob", Undecided), ("carol", Undecided)]));
    assert_eq!(settled("self:1 alice:1-", Some('1')), said(&[("alice", Copied)]));
    // A right witness of something else is something else; the worst of several sayings counts.
    assert_eq!(settled("self:1 alice:2 alice:1+", Some('1')), said(&[("alice", Refuted)]));
    assert_eq!(settled("self:1 alice:1- alice:2", Some('1')), said(&[("alice", Refuted)]));
    assert_eq!(settled("self:1 alice:!", Some('1')), said(&[("alice", Refuted)]));
    assert_eq!(settled("alice:1", Some('1')), said(&[("alice", Supported)]));
    // Nobody is wrong where each execution comes to something else.
    let against = [Proven, Supported, Copied, Refuted, Undecided].map(Support::is_against);
    assert_eq!(against, [false, false, true, true, false]);
}

#[test]
fn whose_word_is_worth_nothing_is_not_settled() {
    let retracted = dispute("alice:1 bob:2", |feeds| {
        let bob = feeds.get_mut("bob").unwrap();
        vec![Evidence::Statement(bob.retract(0, 0))]
    });
    let settled = retracted.settled(Some(&Found::Built(outputs('1'))));
    assert_eq!(settled.keys().map(ToString::to_string).collect::<Vec<_>>(), ["alice"]);
}

#[test]
fn how_it_stands_what_somebody_said() {
    use Stand::{Agreed, Alone, Copied, Disputed, Refuted, Void};
    let stands = |dispute: &Dispute| {
        let of = |(who, _, stand): (&Name, _, Stand)| (who.to_string(), stand);
        dispute.stands().map(of).collect::<BTreeMap<_, _>>()
    };
    for (says, expected) in [
        ("alice:1", vec![("alice", Alone)]),
        // A stranger is nobody's agreement, and no dissent.
        ("alice:1 dave:1", vec![("alice", Alone)]),
        ("alice:1 dave:2", vec![("alice", Alone)]),
        ("alice:1 bob:1", vec![("alice", Agreed), ("bob", Agreed)]),
        ("alice:1 bob:1 carol:2", vec![("alice", Disputed), ("bob", Disputed), ("carol", Disputed)]),
        // What is executed here settles it.
        ("self:1 alice:1 bob:2 carol:1-", vec![("alice", Agreed), ("bob", Refuted), ("carol", Copied)]),
        ("self:1 alice:!", vec![("alice", Refuted)]),
        ("self:1", vec![]),
    ] {
        let expected = expected.into_iter().map(|(who, stand)| (who.into(), stand)).collect();
        assert_eq!(stands(&dispute(says, |_| vec![])), expected, "{says}");
    }
    let withdrawn = dispute("alice:1 bob:2", |feeds| {
        let bob = feeds.get_mut("bob").unwrap();
        vec![Evidence::Statement(bob.retract(0, 0))]
    });
    assert_eq!(stands(&withdrawn), [("alice".into(), Alone), ("bob".into(), Void)].into());
}
