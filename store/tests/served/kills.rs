//! Processes at either end are killed: what was acknowledged to any of them is there.

use std::{
    collections::BTreeSet,
    io::Read as _,
    sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    time::Duration,
};

use store::{GcOptions, LookupError, ServedError, Store};

use super::{
    chain, claim, client, serve,
    support::{
        self, Random, archive,
        children::{first, home, output, said, say, start, this_binary, wait_for},
        key, names,
        things::{ATTESTER, Thing, is_whole},
    },
    until,
};

const SERVER_KILLS: u32 = 40;
const CLIENT_KILLS: u32 = 60;

fn thing(n: u32) -> Thing {
    Thing::new(n, 8_000)
}

/// Serves until its stdin ends, and does things of its own meanwhile.
#[test]
fn child_that_serves() {
    let Some(home) = home() else { return };
    let (store, _service) = serve(&home);
    let (first, ended) = (first(), AtomicBool::new(false));
    say("serving", first);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in (first..).take_while(|_| !ended.load(Relaxed)) {
                thing(n).keep(&store).unwrap();
                say("done", n);
            }
        });
        let _ = std::io::stdin().read(&mut [0]);
        ended.store(true, Relaxed);
    });
}

/// Does things, from two threads, until the server ends.
#[test]
fn child_that_works() {
    let Some(home) = home() else { return };
    let first = first();
    let store = client(&home);
    say("open", 0);
    let next = AtomicU32::new(first);
    let work = || loop {
        let n = next.fetch_add(1, Relaxed);
        match thing(n).keep(&store) {
            Ok(()) => say("done", n),
            Err(error) => return error,
        }
    };
    let errors =
        std::thread::scope(|scope| [scope.spawn(work), scope.spawn(work)].map(|t| t.join().unwrap()));
    for error in errors {
        println!("{}", chain(&*error));
    }
    // It stays gone.
    assert!(matches!(store.pins(), Err(LookupError::Served(ServedError::Gone))));
}

/// A server is killed while it and two clients work: what was acknowledged to any of them is there,
/// the clients are told clearly, and whoever comes next just opens the store.
#[test]
fn servers_are_killed() {
    let temp = tempfile::tempdir().unwrap();
    let (mut acknowledged, mut random) = (Vec::new(), Random::new());
    for kill in 0..SERVER_KILLS {
        let first = kill * 100_000;
        let mut server = start(this_binary(), "kills::child_that_serves", temp.path(), first);
        let mut server_out = output(&mut server);
        wait_for(&mut server_out, "serving");
        let mut clients =
            [1, 2].map(|n| start(this_binary(), "kills::child_that_works", temp.path(), first + n * 30_000));
        let mut outs = clients.each_mut().map(output);
        outs.iter_mut().for_each(|out| _ = wait_for(out, "open"));
        std::thread::sleep(Duration::from_micros(random.next() % 60_000));
        server.kill().unwrap();
        let mut done = said(server_out, "done").0;
        server.wait().unwrap();
        for (client, out) in clients.iter_mut().zip(outs) {
            let (numbers, text) = said(out, "done");
            done.extend(numbers);
            let clear = "the process that has the store open ended; run the command again";
            assert_eq!(text.matches(clear).count(), 2, "{text}");
            assert!(client.wait().unwrap().success());
        }
        let store = Store::open(temp.path(), |_| panic!("a dead process holds the lock")).unwrap();
        done.iter().for_each(|n| thing(*n).is_in(&store));
        is_whole(&store, ATTESTER);
        acknowledged.extend(done);
    }
    let store = Store::open(temp.path(), |_| false).unwrap();
    acknowledged.iter().for_each(|n| thing(*n).is_in(&store));
    assert!(store.verify(false, |_, _| {}).unwrap().is_clean());
    assert!(names(&temp.path().join("tmp")).is_empty());
    println!("{SERVER_KILLS} servers killed: {} acknowledged", acknowledged.len());
    assert!(acknowledged.len() > 100, "they were killed before they did anything");
}

/// Clients are killed: the server goes on, and what it acknowledged is there.
#[test]
fn clients_are_killed() {
    let temp = tempfile::tempdir().unwrap();
    let (store, service) = serve(temp.path());
    let (mut acknowledged, mut random) = (Vec::new(), Random::new());
    for kill in 0..CLIENT_KILLS {
        let mut child = start(this_binary(), "kills::child_that_works", temp.path(), kill * 10_000);
        let mut out = output(&mut child);
        wait_for(&mut out, "open");
        std::thread::sleep(Duration::from_micros(random.next() % 40_000));
        child.kill().unwrap();
        acknowledged.extend(said(out, "done").0);
        child.wait().unwrap();
        thing(kill * 10_000 + 9_999).keep(&store).unwrap();
    }
    acknowledged.iter().for_each(|n| thing(*n).is_in(&store));
    is_whole(&store, ATTESTER);
    // The dead are not counted.
    until(|| store.gc(&GcOptions { keep: BTreeSet::new(), dry_run: false, older_than: None }).is_ok());
    assert!(store.verify(false, |_, _| {}).unwrap().is_clean());
    println!("{CLIENT_KILLS} clients killed: {} acknowledged", acknowledged.len());
    drop(service);
}

/// Says things under one key.
#[test]
fn child_that_says() {
    let Some(home) = home() else { return };
    let (store, first) = (client(&home), first());
    for n in 0..100 {
        store.say(&key(1), 0, (0..1 + n % 3).map(|m| claim(first + n, m as u8))).unwrap();
    }
    say("said", 100);
}

/// Two processes and the owner say things with one key at the same time: one feed.
#[test]
fn one_feed_from_many_processes() {
    let temp = tempfile::tempdir().unwrap();
    let (store, _service) = serve(temp.path());
    let children = [1, 2].map(|n| start(this_binary(), "kills::child_that_says", temp.path(), n * 1000));
    for n in 0..100 {
        store.say(&key(1), 0, [claim(n, 0)]).unwrap();
    }
    for mut child in children {
        wait_for(&mut output(&mut child), "said");
        child.wait().unwrap();
    }
    assert_eq!(is_whole(&store, 1), 100 + 2 * (34 + 2 * 33 + 3 * 33));
    assert!(store.verify(false, |_, _| {}).unwrap().is_clean());
}

/// What a client has in `tmp/` outlives its server.
#[test]
fn temporary_files_of_the_living_stay() {
    let temp = tempfile::tempdir().unwrap();
    let mut server = start(this_binary(), "kills::child_that_serves", temp.path(), 0);
    wait_for(&mut output(&mut server), "serving");
    let client = client(temp.path());
    let file = client.temp().unwrap();
    server.kill().unwrap();
    server.wait().unwrap();
    until(|| client.pins().is_err());
    let (next, service) = serve(temp.path());
    assert!(file.path().exists());
    // It is read by nobody again, but admitting needs no server.
    let hash = client.admit(&archive(b"x")[..], None, 1000).unwrap().hash;
    assert!(next.contains(&hash));
    drop((service, next));
    std::mem::forget(file.into_temp_path());
    drop(client);
    support::open(&temp);
    assert!(names(&temp.path().join("tmp")).is_empty());
}
