//! The same answers for everybody, as if each had the store for itself.

use std::{collections::BTreeSet, error::Error, fmt::Debug, fs, io::Write as _};

use proptest::prelude::*;
use protocol::{
    evidence::{Evidence, Revocation},
    feed::Head,
    id::{NarHash, StatementId},
    key::{Context, Signature},
    statement::{Body, Statement, succession},
};
use store::{Fact, Fault, GcOptions, LookupError, ServedError, Store};

use super::{
    chain, claim, client, serve,
    support::{self, action, archive, attester, built, key, statement},
};

/// An answer, as text.
fn show<T: Debug, E: Error>(result: Result<T, E>) -> String {
    match result {
        Ok(value) => format!("{value:?}"),
        Err(e) => chain(&e),
    }
}

/// Everything that a store answers, as text.
fn all(store: &Store) -> Vec<String> {
    let mut answers = vec![show(store.pins()), show(store.attesters()), show(store.claimed())];
    answers.push(show(store.divided()));
    answers.extend(store.realisations().unwrap().map(show));
    for n in 0..8 {
        let id = action(u32::from(n)).id();
        answers.push(show(store.action(&id)));
        answers.push(show(store.realisation(&id)));
        answers.push(show(store.claims(&id)));
        answers.push(show(store.makers(&NarHash::from_bytes([n; 32]))));
        answers.push(show(store.head(&attester(n))));
        answers.push(show(store.bearing(&attester(n))));
        answers.extend(store.statements(&attester(n), 0).map(show));
        answers.extend(store.statements(&attester(n), 2).map(show));
        for len in [1, 2, 5, 52] {
            answers.push(show(store.find_prefix(&id.to_string()[4..4 + len])));
        }
    }
    for prefix in ["", "act:", "nar:a", "nonsense!", "act:b"] {
        answers.push(show(store.find_prefix(prefix)));
    }
    answers.push(show(store.find_prefix(&"a".repeat(10_000))));
    let report = store.verify(false, |_, _| {}).unwrap();
    answers.push(format!("{report:?}"));
    answers
}

#[derive(Debug, Clone)]
enum Deed {
    Action(u32),
    /// With or without the action before it.
    Built(u32, u8, bool),
    /// Without outputs.
    Nothing(u32),
    Pin(u8, Vec<u8>),
    PinBadly,
    Unpin(u8),
    Say(u8, Vec<(u32, u8)>),
    /// Statements of a feed that has forks: who, from which place, how many, of which branch.
    Keep(u8, u8, u8, u8),
    Revoke(u8, u64),
    Succeed(u8),
    Reindex,
    Sweep,
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        (0_u32..6).prop_map(Deed::Action),
        (0_u32..6, 0_u8..6, any::<bool>()).prop_map(|(a, n, with)| Deed::Built(a, n, with)),
        (0_u32..6).prop_map(Deed::Nothing),
        (0_u8..3, prop::collection::vec(0_u8..6, 0..4)).prop_map(|(name, nars)| Deed::Pin(name, nars)),
        Just(Deed::PinBadly),
        (0_u8..3).prop_map(Deed::Unpin),
        (1_u8..4, prop::collection::vec((0_u32..6, 0_u8..6), 0..4))
            .prop_map(|(who, what)| Deed::Say(who, what)),
        (4_u8..7, 0_u8..4, 0_u8..4, 0_u8..3)
            .prop_map(|(who, from, n, branch)| Deed::Keep(who, from, n, branch)),
        (1_u8..7, 0_u64..4).prop_map(|(who, since)| Deed::Revoke(who, since)),
        (1_u8..4).prop_map(Deed::Succeed),
        Just(Deed::Reindex),
        Just(Deed::Sweep),
    ]
}

/// Does it, and says what came of it.
fn act(store: &Store, deed: &Deed) -> String {
    match deed {
        Deed::Action(n) => show(store.record(&Fact::Action(action(*n)))),
        Deed::Built(n, nar, with) => {
            let a = action(*n);
            let (first, second) = (Fact::Action(a.clone()), Fact::Built(built(&a, *nar, 1)));
            show(if *with { store.record_all(&[first, second]) } else { store.record(&second) })
        }
        Deed::Nothing(n) => {
            let mut nothing = built(&action(*n), 0, 1);
            nothing.outputs.clear();
            show(store.record_all(&[Fact::Action(action(*n)), Fact::Built(nothing)]))
        }
        Deed::Pin(name, nars) => {
            let nars = nars.iter().map(|n| NarHash::from_bytes([*n; 32])).collect();
            show(store.pin(&format!("pin {name}"), &nars))
        }
        Deed::PinBadly => show(store.pin("a\nb", &BTreeSet::new())),
        Deed::Unpin(name) => show(store.unpin(&format!("pin {name}"))),
        Deed::Say(who, what) => {
            show(store.say(&key(*who), 7, what.iter().map(|(of, gave)| claim(*of, *gave))))
        }
        Deed::Keep(who, from, n, branch) => {
            let mut prev = StatementId::from_bytes([0; 32]);
            let feed: Vec<_> = (0..from + n)
                .map(|place| {
                    // The branches part at place 2.
                    let gave = if place < 2 { 0 } else { *branch };
                    let next = statement(*who, place.into(), prev, claim(u32::from(place), gave));
                    prev = next.id();
                    Evidence::Statement(next)
                })
                .collect();
            show(store.keep(feed.into_iter().skip(usize::from(*from))))
        }
        Deed::Revoke(who, since) => {
            show(store.keep([Evidence::Revocation(Revocation::sign(&key(*who), *since))]))
        }
        Deed::Succeed(who) => {
            let message = succession(&attester(*who), &attester(9));
            let consent = Signature::sign(&key(9), Context::Succession, &message);
            show(store.say(&key(*who), 7, [Body::Succeed { successor: attester(9), consent }]))
        }
        Deed::Reindex => show(store.reindex()),
        Deed::Sweep => show(store.gc(&GcOptions { dry_run: true, ..GcOptions::default() })),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever the owner and two clients do in turn, each is told the same as if it had the store
    /// for itself, and so is whoever opens it next.
    #[test]
    fn same_answers(deeds in prop::collection::vec((0_usize..3, deed()), 1..30)) {
        let (served, alone) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (owner, service) = serve(served.path());
        let (one, other) = (client(served.path()), client(served.path()));
        let alone = support::open(&alone);
        let users = [&*owner, &one, &other];
        for (who, deed) in &deeds {
            prop_assert_eq!(act(users[*who], deed), act(&alone, deed), "{} {:?}", who, deed);
        }
        let expected = all(&alone);
        for user in users {
            prop_assert_eq!(all(user), expected.clone());
        }
        drop((one, other, service, owner));
        prop_assert_eq!(all(&support::open(&served)), expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// The same at the same time: whatever order it happened in, all are told the same of it, each
    /// feed is whole, and nothing is damaged.
    #[test]
    fn at_the_same_time(deeds in prop::collection::vec(prop::collection::vec(deed(), 20), 3)) {
        let home = tempfile::tempdir().unwrap();
        let (owner, service) = serve(home.path());
        let (one, other) = (client(home.path()), client(home.path()));
        let users = [&*owner, &one, &other];
        std::thread::scope(|scope| {
            for (user, deeds) in users.iter().zip(&deeds) {
                scope.spawn(move || deeds.iter().for_each(|deed| drop(act(user, deed))));
            }
        });
        let expected = all(&owner);
        prop_assert_eq!(all(&one), expected.clone());
        prop_assert_eq!(all(&other), expected.clone());
        for who in 1..4 {
            let feed = other.statements(&attester(who), 0).map(Result::unwrap);
            let head = feed.fold(Head::empty(attester(who)), |head, next| head.follow(&next).unwrap());
            prop_assert_eq!(head, one.head(&attester(who)).unwrap());
        }
        let report = owner.verify(false, |_, _| {}).unwrap();
        prop_assert!(report.is_clean(), "{report:?}");
        drop((one, other, service, owner));
        prop_assert_eq!(all(&support::open(&home)), expected);
    }
}

/// Archives, logs and temporary files are used directly.
#[test]
fn files_are_shared() {
    let home = tempfile::tempdir().unwrap();
    let (owner, _service) = serve(home.path());
    let client = client(home.path());
    assert_eq!(client.notices(), []);
    assert_eq!((client.home(), client.modules_dir()), (owner.home(), owner.modules_dir()));
    let hash = client.admit(&archive(b"hello")[..], None, 1000).unwrap().hash;
    assert_eq!(owner.open_nar(&hash).unwrap().bytes(), archive(b"hello"));
    client.create_log(&action(1).id()).unwrap().write_all(b"log").unwrap();
    assert_eq!(fs::read(owner.log_path(&action(1).id())).unwrap(), b"log");
    let (a, b) = (client.usage().unwrap(), owner.usage().unwrap());
    assert_eq!((a.nars, a.logs, a.journal), (b.nars, b.logs, b.journal));
    // A bundle goes in and out through a client.
    client.record(&Fact::Action(action(1))).unwrap();
    let mut bundle = Vec::new();
    client.export(&BTreeSet::from([hash]), &BTreeSet::from([action(1).id()]), &mut bundle).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let (there, _service) = serve(elsewhere.path());
    let imported = super::client(elsewhere.path()).import(&bundle[..], 1 << 20).unwrap();
    assert_eq!((imported.actions.len(), imported.nars.len()), (1, 1));
    assert!(there.contains(&hash) && there.action(&action(1).id()).unwrap().is_some());
}

/// More than fits in one frame, in each way in which that can be.
#[test]
fn much_at_once() {
    let home = tempfile::tempdir().unwrap();
    let (owner, _service) = serve(home.path());
    let client = client(home.path());
    let facts: Vec<_> = (0..30_000)
        .flat_map(|n| [Fact::Action(action(n)), Fact::Built(built(&action(n), 1, n.into()))])
        .collect();
    client.record_all(&facts).unwrap();
    let nar = |name: u64, n: u64| {
        let mut bytes = [0; 32];
        bytes[..16].copy_from_slice(&[name.to_le_bytes(), n.to_le_bytes()].concat());
        NarHash::from_bytes(bytes)
    };
    for name in 0..4_u64 {
        let nars = (0..store::PIN_NARS as u64).map(|n| nar(name, n)).collect();
        client.pin(&format!("{name}"), &nars).unwrap();
    }
    let said = client.say(&key(1), 0, (0..20_000).map(|n| claim(3, (n % 251) as u8))).unwrap();
    assert_eq!(said.len(), 20_000);
    assert_eq!(client.pins().unwrap(), owner.pins().unwrap());
    assert_eq!(client.makers(&NarHash::from_bytes([1; 32])).unwrap().len(), 30_000);
    let list = |store: &Store| store.realisations().unwrap().collect::<Result<Vec<_>, _>>().unwrap();
    assert_eq!(list(&client).len(), 30_000);
    assert!(list(&client) == list(&owner));
    assert!(client.claims(&action(3).id()).unwrap() == said);
    let feed = |from| client.statements(&attester(1), from).collect::<Result<Vec<_>, _>>().unwrap();
    assert!(feed(0) == said && feed(19_999) == said[19_999..] && feed(20_000).is_empty());
    // A feed that is kept elsewhere, and a rival for each of its places.
    let elsewhere = tempfile::tempdir().unwrap();
    let (_there, _service) = serve(elsewhere.path());
    let there = super::client(elsewhere.path());
    let kept = there.keep(said.iter().cloned().map(Evidence::Statement)).unwrap();
    assert!(kept.len() == 20_000 && kept.iter().all(|kept| *kept == store::Kept::New));
    let rivals = said.iter().take(5000).map(|signed| {
        let Statement { seq, prev, .. } = *signed.statement();
        Evidence::Statement(statement(1, seq, prev, claim(4, 4)))
    });
    let kept = there.keep(rivals).unwrap();
    assert!(kept.len() == 5000 && kept.iter().all(|kept| matches!(kept, store::Kept::Equivocation(_))));
    assert_eq!(there.bearing(&attester(1)).unwrap().len(), 1);
    // Too much is refused before it is sent, and the connection is good for more.
    let keep = (0..300_000).map(|n| nar(9, n)).collect();
    let refused = client.gc(&GcOptions { dry_run: true, keep, ..GcOptions::default() });
    assert!(matches!(refused, Err(LookupError::Served(ServedError::TooLong { .. }))));
    assert_eq!(client.attesters().unwrap(), [attester(1)]);
}

/// What is damaged is told with its text and its kind, and the rest is found.
#[test]
fn damage_is_told() {
    let home = tempfile::tempdir().unwrap();
    let (owner, _service) = serve(home.path());
    let client = client(home.path());
    for n in 0..4 {
        let a = action(n);
        client.record_all(&[Fact::Action(a.clone()), Fact::Built(built(&a, 100 + n as u8, 1))]).unwrap();
        client.say(&key(1), 0, [claim(n, 200 + n as u8)]).unwrap();
    }
    let path = home.path().join("journal/00000001.log");
    let mut bytes = fs::read(&path).unwrap();
    for nar in [[102; 32], [201; 32]] {
        let at = bytes.windows(32).position(|window| window == nar).unwrap();
        bytes[at] ^= 1;
    }
    fs::OpenOptions::new().write(true).open(&path).unwrap().write_all(&bytes).unwrap();
    let expected = all(&owner);
    assert!(expected.iter().any(|text| text.contains("is damaged at byte")), "{expected:#?}");
    assert_eq!(all(&client), expected);
    match client.realisation(&action(2).id()) {
        Err(LookupError::Served(ServedError::Failed(told))) => assert_eq!(told.fault(), Fault::Damage),
        other => panic!("{other:?}"),
    }
    let report = client.verify(true, |_, _| {}).unwrap();
    assert_eq!((report.journal.len(), report.repaired.len()), (2, 4), "{report:?}");
    assert!(client.verify(false, |_, _| {}).unwrap().is_clean());
    assert_eq!(client.realisations().unwrap().count(), 3);
    // The rest of the feed is there, and its head is where it was.
    assert_eq!(client.statements(&attester(1), 0).filter(Result::is_ok).count(), 3);
    assert_eq!(all(&client), all(&owner));
}
