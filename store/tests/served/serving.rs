//! How serving begins and ends, for how many it is, and what it costs.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Instant,
};

use protocol::{
    evidence::{Evidence, Revocation},
    id::ActionId,
};
use store::{
    CLIENTS, Fact, GcOptions, KeepError, LookupError, OpenError, RecordError, SayError, ServeError,
    ServedError, Store, Unwelcome,
};

use super::{
    claim, client, serve,
    support::{action, archive, built, key},
    until,
};

/// Serving ends and begins again; who waits gets in either way.
#[test]
fn serving_ends() {
    let home = tempfile::tempdir().unwrap();
    let (owner, service) = serve(home.path());
    assert!(matches!(owner.serve().map(drop), Err(ServeError::Serving)));
    let lost = Arc::new(client(home.path()));
    assert!(matches!(lost.serve().map(drop), Err(ServeError::Client)));
    drop(service);
    assert!(!home.path().join("store.sock").exists());
    assert!(matches!(lost.attesters(), Err(LookupError::Served(ServedError::Gone))));
    let refused = lost.record(&Fact::Action(action(1)));
    assert!(matches!(refused, Err(RecordError::Served(ServedError::Gone))));
    let refused = lost.keep([Evidence::Revocation(Revocation::sign(&key(1), 0))]);
    assert!(matches!(refused, Err(KeepError::Record(RecordError::Served(ServedError::Gone)))));
    let refused = lost.say(&key(1), 0, [claim(1, 1)]);
    assert!(matches!(
        refused,
        Err(SayError::Keep(KeepError::Lookup(LookupError::Served(ServedError::Gone))))
    ));
    // Nobody serves, so it is as before.
    assert!(
        matches!(Store::open(home.path(), |_| false), Err(OpenError::Busy { pid: Some(pid) }) if pid == std::process::id())
    );
    let asked = AtomicU32::new(0);
    let waiting = |_| asked.fetch_add(1, Relaxed) == 0;
    let (first, second) = std::thread::scope(|scope| {
        let first = scope.spawn(|| Store::open(home.path(), waiting).unwrap());
        until(|| asked.load(Relaxed) == 1);
        let service = owner.serve().unwrap();
        let first = first.join().unwrap();
        first.record(&Fact::Action(action(1))).unwrap();
        asked.store(0, Relaxed);
        drop(service);
        let second = scope.spawn(|| Store::open(home.path(), waiting).unwrap());
        until(|| asked.load(Relaxed) == 1);
        drop(owner);
        (first, second.join().unwrap())
    });
    assert!(first.attesters().is_err());
    assert!(second.action(&action(1).id()).unwrap().is_some());
}

#[test]
fn sweeps_are_for_one() {
    let home = tempfile::tempdir().unwrap();
    let (owner, _service) = serve(home.path());
    let (one, other) = (client(home.path()), client(home.path()));
    let admit = |store: &Store, n: u8| store.admit(&archive(&[n; 50])[..], None, 1000).unwrap().hash;
    let hashes = [admit(&owner, 0), admit(&one, 1), admit(&other, 2)];
    one.pin("kept", &BTreeSet::from([hashes[0]])).unwrap();
    let options = GcOptions { keep: BTreeSet::from([hashes[1]]), ..GcOptions::default() };
    let dry = GcOptions { dry_run: true, ..options.clone() };
    let in_use = |store: &Store, n: usize| match store.gc(&options) {
        Err(error @ LookupError::InUse { processes }) => {
            assert_eq!(processes, n);
            error.to_string()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(in_use(&owner, 2), "the store is in use by 2 other processes: sweep when they have ended");
    assert_eq!(in_use(&one, 1), "the store is in use by 1 other process: sweep when it has ended");
    let would = other.gc(&dry).unwrap();
    assert_eq!(would, owner.gc(&dry).unwrap());
    assert!(hashes.iter().all(|hash| owner.contains(hash)));
    drop(other);
    until(|| one.gc(&dry).is_ok() && !matches!(one.gc(&options), Err(LookupError::InUse { .. })));
    assert_eq!(hashes.map(|hash| owner.contains(&hash)), [true, true, false]);
    assert_eq!(would.nars.iter().map(|nar| nar.hash).collect::<Vec<_>>(), [hashes[2]]);
    in_use(&owner, 1);
    // The owner counts while it says so; its own sweeps are its own affair.
    let busy = [owner.busy(), owner.busy()];
    in_use(&one, 1);
    drop(busy);
    one.gc(&options).unwrap();
    drop(one);
    let _busy = owner.busy();
    until(|| owner.gc(&options).is_ok());
}

#[test]
fn only_so_many() {
    let home = tempfile::tempdir().unwrap();
    let (_store, _service) = serve(home.path());
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| client(home.path())).collect();
    match Store::open(home.path(), |_| panic!("it waits")).map(drop) {
        Err(OpenError::Unwelcome(full)) => {
            assert_eq!(full, Unwelcome::Full { limit: CLIENTS as u32 });
            assert_eq!(full.to_string(), "it serves 64 processes already, and no more than that");
        }
        other => panic!("{other:?}"),
    }
    clients.iter().for_each(|client| assert_eq!(client.attesters().unwrap(), []));
    clients.pop();
    until(|| Store::open(home.path(), |_| panic!("it waits")).is_ok());
}

/// A path that is too long for the address of a socket.
#[test]
fn deep_home() {
    let temp = tempfile::tempdir().unwrap();
    let home = temp.path().join("d".repeat(100)).join("e".repeat(100));
    let (owner, _service) = serve(&home);
    client(&home).record(&Fact::Action(action(1))).unwrap();
    assert!(owner.action(&action(1).id()).unwrap().is_some());
}

/// A client's questions, by the second; what the owner needs for them beside it.
#[test]
fn latency() {
    const QUESTIONS: u32 = 20_000;
    let home = tempfile::tempdir().unwrap();
    let (owner, _service) = serve(home.path());
    let client = client(home.path());
    let ids: Vec<ActionId> = (0..100).map(|n| action(n).id()).collect();
    for n in 0..100 {
        client.record_all(&[Fact::Action(action(n)), Fact::Built(built(&action(n), 1, 1))]).unwrap();
    }
    for (who, store) in [("owner", &*owner), ("client", &client)] {
        let started = Instant::now();
        for n in 0..QUESTIONS {
            assert!(store.realisation(&ids[n as usize % 100]).unwrap().is_some());
        }
        let each = started.elapsed() / QUESTIONS;
        println!("{who}: {each:?} for a realisation, {:.0} in a second", 1.0 / each.as_secs_f64());
    }
    let started = Instant::now();
    (0..1000).for_each(|_| drop(super::client(home.path())));
    println!("client: {:?} for opening and closing", started.elapsed() / 1000);
}
