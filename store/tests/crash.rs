//! Killed at any instant, or with a full disk: what was acknowledged is there, and nothing needs a
//! step by hand.

mod support;

use std::{
    fs,
    path::Path,
    process::Command,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::{Duration, Instant},
};

use protocol::id::NarHash;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use store::{AdmitError, AppendError, Fact, Notice, RecordError, Store};
use support::{
    Random, action, archive,
    children::{first, home, output, said, say, start, this_binary},
    realisation,
    things::{ATTESTER, Thing, is_whole},
};

const KILLS: u32 = 500;

/// Numbers of things that one child makes.
const NUMBERS: u32 = 10_000;

fn thing(n: u32) -> Thing {
    Thing::new(n, 60_000)
}

/// Admits and records without end, from two threads.
#[test]
fn child_that_is_killed() {
    let Some(home) = home() else { return };
    let first = first();
    let store = Store::open(&home, |_| false).unwrap();
    let next = AtomicU32::new(first);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Relaxed);
                    assert!(n < first + NUMBERS);
                    thing(n).keep(&store).unwrap();
                    say("done", n);
                }
            });
        }
    });
}

#[test]
fn killed_again_and_again() {
    let temp = tempfile::tempdir().unwrap();
    let started = Instant::now();
    let (mut acknowledged, mut torn, mut rebuilt) = (Vec::new(), 0, 0);
    let mut random = Random::new();
    for kill in 0..KILLS {
        let mut child = start(this_binary(), "child_that_is_killed", temp.path(), kill * NUMBERS);
        // From before it opens the store to well into its work.
        std::thread::sleep(Duration::from_micros(random.next() % 60_000));
        child.kill().unwrap();
        let (done, _) = said(output(&mut child), "done");
        child.wait().unwrap();
        let store = Store::open(temp.path(), |_| panic!("a dead process holds the lock")).unwrap();
        for notice in store.notices() {
            match notice {
                Notice::TornTail { saved: None, .. } => torn += 1,
                Notice::IndexRebuilt { .. } => rebuilt += 1,
                other => panic!("kill {kill}: {other}"),
            }
        }
        done.iter().for_each(|n| thing(*n).is_in(&store));
        is_whole(&store, ATTESTER);
        acknowledged.extend(done);
    }
    let store = Store::open(temp.path(), |_| false).unwrap();
    assert_eq!(store.notices(), []);
    acknowledged.iter().for_each(|n| thing(*n).is_in(&store));
    let pins = store.pins().unwrap();
    assert!(acknowledged.iter().filter_map(|n| thing(*n).pin()).all(|pin| pins.contains_key(&pin)));
    let report = store.verify(false, |_, _| {}).unwrap();
    assert!(report.is_clean(), "{report:?}");
    println!(
        "{KILLS} kills in {:?}: {} acknowledged, {} archives, {torn} torn tails, {rebuilt} indexes rebuilt",
        started.elapsed(),
        acknowledged.len(),
        report.nars,
    );
    assert!(acknowledged.len() > 100, "the children were killed before they did anything");
}

/// Fills the disk, makes room, goes on.
#[test]
fn child_with_a_full_disk() {
    let Some(home) = home() else { return };
    // Room that can be made: by removing this, and by raising the limit. Sled takes 512 KiB at once.
    let ballast = home.join("ballast");
    fs::create_dir(&ballast).unwrap();
    for n in 0..4 {
        fs::write(ballast.join(n.to_string()), vec![1; 400_000]).unwrap();
    }
    let store = Store::open(&home.join("store"), |_| false).unwrap();
    let mut done = Vec::new();
    let mut full = [0, 0];
    // Archives until there is no room, then facts until there is no room for these either.
    for n in 0..NUMBERS {
        let bytes = archive(&n.to_le_bytes().repeat(5000));
        match store.admit(&bytes[..], None, u64::MAX) {
            Ok(_) if n < 400 => {}
            Ok(_) => break,
            Err(AdmitError::Disk(e)) if e.is_full() => {
                full[0] += 1;
                assert!(e.to_string().contains(home.to_str().unwrap()), "{e}");
                break;
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    for n in 0..NUMBERS {
        let a = action(n);
        let facts = [Fact::Action(a.clone()), Fact::Built(realisation(&a, NarHash::from_bytes([1; 32]), 1))];
        match store.record_all(&facts) {
            Ok(()) => done.push(n),
            Err(RecordError::Append(AppendError::Disk(e))) => {
                full[1] += 1;
                assert!(e.is_full() && e.path.ends_with("journal/00000001.log"), "{e:?}");
                break;
            }
            // Written, but sled could not: found again below.
            Err(RecordError::Unindexed(_)) => {
                done.push(n);
                full[1] += 1;
                break;
            }
            // sled could not even be asked.
            Err(RecordError::Index(_)) => {
                full[1] += 1;
                break;
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!(full[1], 1);
    say("archives refused", full[0]);
    fs::remove_dir_all(&ballast).unwrap();
    let maximum = getrlimit(Resource::Fsize).maximum;
    setrlimit(Resource::Fsize, Rlimit { current: maximum, maximum }).unwrap();
    drop(store);

    let store = Store::open(&home.join("store"), |_| false).unwrap();
    for n in &done {
        let a = action(*n);
        assert_eq!(store.action(&a.id()).unwrap(), Some(a.clone()));
        assert!(store.realisation(&a.id()).unwrap().is_some());
    }
    assert!(store.verify(false, |_, _| {}).unwrap().is_clean());
    let a = action(NUMBERS);
    store.record(&Fact::Action(a.clone())).unwrap();
    store.admit(&archive(b"small")[..], None, 1000).unwrap();
    say("healthy", done.len() as u32);
}

/// How many facts a child with a full disk has kept.
fn kept_by(child: Command, home: &Path) -> u32 {
    let mut child = start(child, "child_with_a_full_disk", home, 0);
    let (facts, _) = said(output(&mut child), "healthy");
    child.wait().unwrap();
    let [facts] = facts[..] else { panic!("the child failed") };
    facts
}

#[test]
fn full_disk() {
    let possible = Command::new("unshare").args(["--map-root-user", "--mount", "true"]).status();
    if !possible.is_ok_and(|status| status.success()) {
        return println!("not tested: no mount namespaces here; `file_size_limit` is");
    }
    let temp = tempfile::tempdir().unwrap();
    // A small file system of our own, in a namespace of its own, gone with the child.
    let mut shell = Command::new("unshare");
    shell.args(["--map-root-user", "--mount", "sh", "-c"]);
    shell.arg(r#"mount -t tmpfs -o size=6m none "$STORE_HOME" && exec "$0" "$@""#);
    shell.arg(std::env::current_exe().unwrap());
    let facts = kept_by(shell, temp.path());
    // Archives have taken all but the last few kilobytes; how soon sled wants more is its own affair.
    assert!(facts > 0, "{facts} facts");
}

#[test]
fn file_size_limit() {
    let temp = tempfile::tempdir().unwrap();
    let mut shell = Command::new("sh");
    // 600 KiB: less than sled wants in time, and than the journal grows to.
    shell.args(["-c", r#"trap '' XFSZ; ulimit -S -f 1200; exec "$0" "$@""#]);
    shell.arg(std::env::current_exe().unwrap());
    let facts = kept_by(shell, temp.path());
    assert!(facts > 10, "{facts} facts");
}
