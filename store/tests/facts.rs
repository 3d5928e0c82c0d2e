//! Facts are found again, also by the next process.

mod support;

use std::collections::{BTreeMap, BTreeSet};

use protocol::{
    action::Action,
    id::{ActionId, NarHash},
};
use store::{Fact, Found, Realisation, RecordError, Store};
use support::{action, built, open};

#[test]
fn recorded_is_found_again() {
    let home = tempfile::tempdir().unwrap();
    let (a, b) = (action(1), action(2));
    let latest = [built(&a, 3, 30), built(&b, 2, 20)];
    {
        let store = open(&home);
        assert_eq!(store.action(&a.id()).unwrap(), None);
        assert_eq!(store.realisation(&a.id()).unwrap(), None);
        store.record(&Fact::Action(a.clone())).unwrap();
        store.record(&Fact::Built(built(&a, 1, 10))).unwrap();
        store.record_all(&[Fact::Action(b.clone()), Fact::Built(latest[1].clone())]).unwrap();
        store.record(&Fact::Built(latest[0].clone())).unwrap();
        store.pin("x", &BTreeSet::from([NarHash::from_bytes([1; 32])])).unwrap();
        store.pin("y", &BTreeSet::new()).unwrap();
        assert!(store.unpin("y").unwrap());
        assert!(!store.unpin("y").unwrap());
    }
    for _ in 0..3 {
        let store = open(&home);
        assert_eq!(store.action(&a.id()).unwrap(), Some(a.clone()));
        assert_eq!(store.realisation(&a.id()).unwrap().as_ref(), Some(&latest[0]));
        let all: Result<Vec<_>, _> = store.realisations().unwrap().collect();
        assert_eq!(all.unwrap(), latest);
        let makers = |n| store.makers(&NarHash::from_bytes([n; 32])).unwrap();
        assert_eq!([makers(1), makers(2), makers(3)], [[a.id()], [b.id()], [a.id()]]);
        let pins = BTreeMap::from([("x".to_owned(), BTreeSet::from([NarHash::from_bytes([1; 32])]))]);
        assert_eq!(store.pins().unwrap(), pins);
    }
}

#[test]
fn a_realisation_needs_its_action() {
    let home = tempfile::tempdir().unwrap();
    let store = open(&home);
    let a = action(1);
    let refused = store.record(&Fact::Built(built(&a, 1, 1)));
    assert!(matches!(refused, Err(RecordError::ActionMissing { action }) if action == a.id()));
    let none = Realisation { outputs: BTreeMap::new(), ..built(&a, 1, 1) };
    let refused = store.record_all(&[Fact::Action(a.clone()), Fact::Built(none)]);
    assert!(matches!(refused, Err(RecordError::Refused(_))));
    assert_eq!(store.action(&a.id()).unwrap(), None);
}

#[test]
fn prefixes() {
    let home = tempfile::tempdir().unwrap();
    let store = open(&home);
    let actions: Vec<Action> = (0..100).map(action).collect();
    for a in &actions {
        store.record_all(&[Fact::Action(a.clone()), Fact::Built(built(a, 7, 1))]).unwrap();
    }
    let ids: BTreeSet<ActionId> = actions.iter().map(Action::id).collect();
    for id in &ids {
        let text = id.to_string();
        for len in 5..=text.len() {
            let same = ids.iter().filter(|other| other.to_string().starts_with(&text[..len])).count();
            match store.find_prefix(&text[..len]).unwrap() {
                Found::Action(found) => assert_eq!((found, same), (*id, 1)),
                Found::Ambiguous(shown) => assert!(shown.len() == same.min(8) && same > 1),
                other => panic!("{other:?} for {}", &text[..len]),
            }
        }
    }
    let nar = NarHash::from_bytes([7; 32]);
    assert_eq!(store.find_prefix(&nar.to_string()[..10]).unwrap(), Found::Nar(nar));
    assert_eq!(store.find_prefix(&nar.to_string()[4..10]).unwrap(), Found::Nar(nar));
    for nothing in ["", "act:", "drv:a", "nar:zzzz", "act:A"] {
        assert_eq!(store.find_prefix(nothing).unwrap(), Found::Nothing, "{nothing}");
    }
}

#[test]
fn only_one_has_it_open() {
    let home = tempfile::tempdir().unwrap();
    let store = open(&home);
    let mut asked = None;
    let busy = Store::open(home.path(), |pid| {
        asked = pid;
        false
    });
    assert!(matches!(busy, Err(store::OpenError::Busy { pid }) if pid == Some(std::process::id())));
    assert_eq!(asked, Some(std::process::id()));
    let waiter = std::thread::spawn({
        let home = home.path().to_owned();
        move || Store::open(&home, |_| true).map(drop)
    });
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert!(!waiter.is_finished());
    drop(store);
    waiter.join().unwrap().unwrap();
}

/// Many callers at once: all of it is there, in an order that the journal fixes.
#[test]
fn callers_share_syncs() {
    let home = tempfile::tempdir().unwrap();
    let store = open(&home);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let store = &store;
            scope.spawn(move || {
                for n in 0..25 {
                    let a = action(thread * 25 + n);
                    store.record_all(&[Fact::Action(a.clone()), Fact::Built(built(&a, n as u8, 1))]).unwrap();
                    assert_eq!(store.realisation(&a.id()).unwrap(), Some(built(&a, n as u8, 1)));
                }
            });
        }
    });
    assert_eq!(store.realisations().unwrap().count(), 200);
}

#[test]
fn a_store_can_be_shared_by_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Store>();
    shared::<store::Archive>();
}
