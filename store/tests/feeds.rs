//! Feeds and proofs: kept without a gap, found again after every way to open the store.

mod support;

use std::collections::BTreeMap;

use protocol::{
    evidence::{Evidence, Revocation},
    feed::FeedError,
    id::{ActionId, NarHash, StatementId},
    name::Name,
    output::Output,
    statement::{Attestation, Body, Ending, Failure, Platform, Signed},
    witness::Witness,
};
use store::{Kept, Store};
use support::{attester, key, statement};

fn action(n: u8) -> ActionId {
    ActionId::from_bytes([n; 32])
}

fn platform() -> Platform {
    Platform::here(Name::new("wasmtime-48.0.8").unwrap())
}

fn built(of: u8, gave: u8) -> Body {
    let output = Output { nar: NarHash::from_bytes([gave; 32]), size: 112 };
    let outputs = BTreeMap::from([(Name::out(), output)]);
    Body::Built(Attestation { action: action(of), outputs, witness: None, platform: platform() })
}

fn failed(of: u8) -> Body {
    Body::Failed(Failure { action: action(of), step: 1, ending: Ending::Trap, platform: platform() })
}

fn of_feed(store: &Store, who: u8) -> Vec<Signed> {
    store.statements(&attester(who), 0).collect::<Result<_, _>>().unwrap()
}

/// Statements are found by feed and by action, whatever happened to the index.
#[test]
fn said_and_found() {
    let home = tempfile::tempdir().unwrap();
    let store = support::open(&home);
    let said = store.say(&key(1), 7, [built(1, 1), failed(2), Body::Retract { first: 0, last: 0 }]).unwrap();
    store.say(&key(2), 8, [built(1, 2)]).unwrap();
    let check = |store: &Store| {
        assert_eq!(of_feed(store, 1), said);
        let head = store.head(&attester(1)).unwrap();
        assert_eq!((head.len(), head.last()), (3, said[2].id()));
        let claims: Vec<_> = store.claims(&action(1)).unwrap();
        let by = |n| claims.iter().filter(|c| c.statement().attester == attester(n)).count();
        assert_eq!((claims.len(), by(1), by(2)), (2, 1, 1));
        assert_eq!(store.claims(&action(2)).unwrap(), [said[1].clone()]);
        assert_eq!(store.claims(&action(3)).unwrap(), []);
        assert_eq!(store.claimed().unwrap(), [action(1), action(2)]);
        let mut both = [attester(1), attester(2)];
        both.sort();
        assert_eq!(store.attesters().unwrap(), both);
        assert_eq!(store.bearing(&attester(1)).unwrap(), [Evidence::Statement(said[2].clone())]);
        assert!(store.verify(false, |_, _| {}).unwrap().is_clean());
    };
    check(&store);
    store.reindex().unwrap();
    check(&store);
    drop(store);
    check(&support::open(&home));
    std::fs::remove_dir_all(home.path().join("index")).unwrap();
    check(&Store::open(home.path(), |_| false).unwrap());
}

/// Of what not everybody says the same, in one batch or in several: outputs and failures, not proofs.
#[test]
fn divided() {
    let home = tempfile::tempdir().unwrap();
    let store = support::open(&home);
    let say = |who, bodies: Vec<Body>| drop(store.say(&key(who), 0, bodies).unwrap());
    let proven = |body: Body| match body {
        Body::Built(built) => {
            Body::Built(Attestation { witness: Some(Witness::from_bytes([1; 32])), ..built })
        }
        other => other,
    };
    assert_eq!(store.divided().unwrap(), []);
    say(1, (1..=6).map(|n| built(n, n)).collect());
    say(2, vec![proven(built(1, 1)), built(2, 9), failed(3), failed(7), failed(8)]);
    say(3, vec![built(1, 1), failed(7), built(8, 8), built(9, 1), built(9, 2)]);
    // One of these comes after more than a block of those who agree.
    say(4, (0..200).map(|_| built(4, 4)).collect());
    say(5, (0..200).map(|_| built(5, 5)).chain([built(5, 6)]).collect());
    // What is withdrawn was said.
    say(1, vec![Body::Retract { first: 1, last: 1 }]);
    let check = |store: &Store| {
        assert_eq!(store.divided().unwrap(), [2, 3, 5, 8, 9].map(action));
        assert_eq!(store.claims(&action(4)).unwrap().len(), 201);
        assert!(store.verify(false, |_, _| {}).unwrap().is_clean());
    };
    check(&store);
    store.reindex().unwrap();
    check(&store);
    drop(store);
    std::fs::remove_dir_all(home.path().join("index")).unwrap();
    check(&Store::open(home.path(), |_| false).unwrap());
}

/// However many there are, and in whatever order they come, all are found.
#[test]
fn many_claims() {
    let home = tempfile::tempdir().unwrap();
    let store = support::open(&home);
    let of = |n: u64| ActionId::from_bytes(*blake3::hash(&n.to_le_bytes()).as_bytes());
    let says = |n: u64, gave: u8| match built(0, gave) {
        Body::Built(built) => Body::Built(Attestation { action: of(n), ..built }),
        other => other,
    };
    // The second says of every seventh something else.
    let bodies = |who: u8| (0..1000).map(move |n| says(n, if n % 7 == 0 { who } else { 0 }));
    store.say(&key(1), 0, bodies(1)).unwrap();
    let mut second: Vec<_> = bodies(2).rev().collect();
    for batch in [1, 10, 100, second.len() - 111] {
        store.say(&key(2), 0, second.drain(..batch)).unwrap();
    }
    let check = |store: &Store| {
        let (mut all, mut differ): (Vec<_>, Vec<_>) = ((0..1000).map(of).collect(), vec![]);
        all.sort();
        differ.extend((0..1000).step_by(7).map(of));
        differ.sort();
        assert_eq!((store.claimed().unwrap(), store.divided().unwrap()), (all.clone(), differ));
        assert!(all.iter().all(|action| store.claims(action).unwrap().len() == 2));
        assert!(store.verify(false, |_, _| {}).unwrap().is_clean());
    };
    check(&store);
    store.reindex().unwrap();
    check(&store);
}

/// What a feed cannot have behind what is here is refused, and nothing of it kept.
#[test]
fn gaps_are_refused_and_copies_known() {
    let home = tempfile::tempdir().unwrap();
    let (here, there) = (support::open(&home), tempfile::tempdir().unwrap());
    let there = support::open(&there);
    let said = there.say(&key(1), 0, (0..5).map(|n| built(n, n))).unwrap();
    let keep = |n: usize| here.keep([Evidence::Statement(said[n].clone())]).unwrap().remove(0);
    assert_eq!(keep(1), Kept::Refused(FeedError::Gap { place: 1, len: 0 }));
    assert_eq!(keep(0), Kept::New);
    assert_eq!(keep(0), Kept::Known);
    assert_eq!(keep(3), Kept::Refused(FeedError::Gap { place: 3, len: 1 }));
    // All at once, in order: what fits is kept.
    let all = here.keep(said.iter().cloned().map(Evidence::Statement)).unwrap();
    assert_eq!(all, [Kept::Known, Kept::New, Kept::New, Kept::New, Kept::New]);
    assert_eq!(of_feed(&here, 1), said);
    assert_eq!(here.statements(&attester(1), 3).count(), 2);
}

/// Two statements at one place are a proof, which stays; the feed goes on as it was first heard.
#[test]
fn forks_are_kept_as_proofs() {
    let home = tempfile::tempdir().unwrap();
    let store = support::open(&home);
    let said = store.say(&key(1), 0, [built(0, 0), built(1, 1), built(2, 2)]).unwrap();
    let rival = statement(1, 1, said[0].id(), built(1, 9));
    let Kept::Equivocation(proof) = &store.keep([Evidence::Statement(rival.clone())]).unwrap()[0] else {
        panic!("not seen");
    };
    assert_eq!(proof.attester(), attester(1));
    assert_eq!(store.bearing(&attester(1)).unwrap(), [Evidence::Equivocation(proof.clone())]);
    assert_eq!(of_feed(&store, 1), said);
    // Once is enough: a key that equivocates a million times costs one proof.
    for n in 10..20 {
        store.keep([Evidence::Statement(statement(1, 1, said[0].id(), built(1, n)))]).unwrap();
    }
    assert_eq!(store.bearing(&attester(1)).unwrap().len(), 1);

    // In one batch; and where the next statement follows another one.
    let fork = statement(2, 1, StatementId::from_bytes([9; 32]), built(1, 1));
    let first = statement(2, 0, StatementId::from_bytes([0; 32]), built(0, 0));
    let kept = store.keep([first, fork].map(Evidence::Statement)).unwrap();
    assert!(matches!(&kept[..], [Kept::New, Kept::Equivocation(_)]));
    // A proof that others made.
    let [a, b] = [3, 4].map(|n| statement(3, 0, StatementId::from_bytes([0; 32]), built(0, n)));
    let proof = Evidence::Equivocation(protocol::evidence::Equivocation::new(a, b).unwrap());
    assert_eq!(store.keep([proof.clone(), proof]).unwrap(), [Kept::New, Kept::Known]);
    assert!(store.verify(false, |_, _| {}).unwrap().is_clean());
}

/// The earliest revocation is kept; later ones say nothing new.
#[test]
fn revocations() {
    let home = tempfile::tempdir().unwrap();
    let store = support::open(&home);
    let revoke =
        |since| store.keep([Evidence::Revocation(Revocation::sign(&key(1), since))]).unwrap().remove(0);
    assert_eq!(
        [revoke(7), revoke(9), revoke(7), revoke(3)],
        [Kept::New, Kept::Known, Kept::Known, Kept::New]
    );
    assert_eq!(store.attesters().unwrap(), [attester(1)]);
    assert_eq!(store.head(&attester(1)).unwrap().len(), 0);
}

/// Many threads speak under one key: one feed, no place twice.
#[test]
fn one_feed_from_many_threads() {
    let home = tempfile::tempdir().unwrap();
    let store = support::open(&home);
    std::thread::scope(|scope| {
        for t in 0..8 {
            let store = &store;
            scope.spawn(move || (0..25).for_each(|n| drop(store.say(&key(1), 0, [built(t, n)]).unwrap())));
        }
    });
    let feed = of_feed(&store, 1);
    assert_eq!(feed.len(), 200);
    assert!(feed.iter().enumerate().all(|(n, s)| s.statement().seq == n as u64));
    assert_eq!(store.bearing(&attester(1)).unwrap(), []);
}
