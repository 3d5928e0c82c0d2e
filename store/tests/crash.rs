//! Killed at any instant, or with a full disk: what was acknowledged is there, and nothing needs a
//! step by hand.
//!
//! The tests start this very binary again, with `STORE_HOME` set, to run one of the `child_…`
//! functions below, which do nothing otherwise. A child says on stdout what the store has
//! acknowledged.

mod support;

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::{Duration, Instant},
};

use protocol::{
    feed::Head,
    id::NarHash,
    key::{AttesterKey, SigningKey},
    name::Name,
    statement::{Attestation, Body, Platform},
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use store::{AdmitError, AppendError, Fact, Notice, RecordError, Store};
use support::{action, archive, realisation};

const KILLS: u32 = 500;

/// Numbers of things that one child makes.
const NUMBERS: u32 = 10_000;

/// The archive number `n`, of 100 bytes to 60 KB.
fn nar(n: u32) -> Vec<u8> {
    let len = n.wrapping_mul(2654435761) % 60_000;
    archive(&n.to_le_bytes().repeat(len as usize / 4))
}

fn home() -> Option<PathBuf> {
    std::env::var_os("STORE_HOME").map(PathBuf::from)
}

fn say(what: &str, n: u32) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{what} {n}").and_then(|()| out.flush()).unwrap();
}

fn start(mut command: Command, child: &str, home: &std::path::Path, first: u32) -> Child {
    command
        .args(["--exact", child, "--nocapture", "--test-threads=1"])
        .env("STORE_HOME", home)
        .env("STORE_FIRST", first.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn this_binary() -> Command {
    Command::new(std::env::current_exe().unwrap())
}

/// The numbers that `child` has said `what` about; waits for its end.
fn said(child: &mut Child, what: &str) -> Vec<u32> {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let number =
        |line: std::io::Result<String>| line.unwrap().strip_prefix(what)?.strip_prefix(' ')?.parse().ok();
    let numbers = lines.filter_map(number).collect();
    child.wait().unwrap();
    numbers
}

/// Admits and records without end, from two threads.
#[test]
fn child_that_is_killed() {
    let Some(home) = home() else { return };
    let first: u32 = std::env::var("STORE_FIRST").unwrap().parse().unwrap();
    let store = Store::open(&home, |_| false).unwrap();
    let next = AtomicU32::new(first);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Relaxed);
                    assert!(n < first + NUMBERS);
                    one_thing(&store, n);
                    say("done", n);
                }
            });
        }
    });
}

fn one_thing(store: &Store, n: u32) {
    let bytes = nar(n);
    let hash = NarHash::of(&bytes);
    if n.is_multiple_of(2) {
        store.admit(&bytes[..], Some(hash), u64::MAX).unwrap();
    } else {
        let mut file = store.temp().unwrap();
        file.write_all(&bytes).unwrap();
        store.admit_file(file, None).unwrap();
    }
    let a = action(n);
    store.record_all(&[Fact::Action(a.clone()), Fact::Built(realisation(&a, hash, 1))]).unwrap();
    store.say(&attester(), 0, [attestation(n)]).unwrap();
    if n.is_multiple_of(8) {
        store.pin(&format!("pin {n}"), &BTreeSet::from([hash])).unwrap();
    }
}

fn attester() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

/// What is signed about thing number `n`.
fn attestation(n: u32) -> Body {
    let realisation = realisation(&action(n), NarHash::of(&nar(n)), 1);
    let platform = Platform::here(Name::new("none").unwrap());
    Body::Built(Attestation {
        action: realisation.action,
        outputs: realisation.outputs,
        witness: None,
        platform,
    })
}

fn is_there(store: &Store, n: u32) {
    let a = action(n);
    let hash = NarHash::of(&nar(n));
    assert_eq!(store.open_nar(&hash).unwrap().bytes().len(), nar(n).len());
    assert_eq!(store.action(&a.id()).unwrap(), Some(a.clone()));
    assert_eq!(store.realisation(&a.id()).unwrap(), Some(realisation(&a, hash, 1)));
    let said = store.claims(&a.id()).unwrap();
    assert_eq!(said.iter().map(|signed| &signed.statement().body).collect::<Vec<_>>(), [&attestation(n)]);
}

/// Every statement follows the one before it, however often the attester was killed.
fn is_whole(store: &Store) {
    let mut head = Head::empty(AttesterKey::of(&attester()));
    for signed in store.statements(&head.attester(), 0) {
        head = head.follow(&signed.unwrap()).unwrap();
    }
    assert_eq!(head, store.head(&head.attester()).unwrap());
}

#[test]
fn killed_again_and_again() {
    let temp = tempfile::tempdir().unwrap();
    let started = Instant::now();
    let (mut acknowledged, mut torn, mut rebuilt) = (Vec::new(), 0, 0);
    let mut random = 88172645463325252_u64;
    for kill in 0..KILLS {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let mut child = start(this_binary(), "child_that_is_killed", temp.path(), kill * NUMBERS);
        // From before it opens the store to well into its work.
        std::thread::sleep(Duration::from_micros(random % 60_000));
        child.kill().unwrap();
        let done = said(&mut child, "done");
        let store = Store::open(temp.path(), |_| panic!("a dead process holds the lock")).unwrap();
        for notice in store.notices() {
            match notice {
                Notice::TornTail { saved: None, .. } => torn += 1,
                Notice::IndexRebuilt { .. } => rebuilt += 1,
                other => panic!("kill {kill}: {other}"),
            }
        }
        for n in &done {
            is_there(&store, *n);
        }
        is_whole(&store);
        acknowledged.extend(done);
    }
    let store = Store::open(temp.path(), |_| false).unwrap();
    assert_eq!(store.notices(), []);
    for n in &acknowledged {
        is_there(&store, *n);
    }
    let pins = store.pins().unwrap();
    assert!(
        acknowledged.iter().filter(|n| n.is_multiple_of(8)).all(|n| pins.contains_key(&format!("pin {n}")))
    );
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
            Err(RecordError::Index(_)) => {
                done.push(n);
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
    let mut child = start(shell, "child_with_a_full_disk", temp.path(), 0);
    let [facts] = said(&mut child, "healthy")[..] else { panic!("the child failed") };
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
    let mut child = start(shell, "child_with_a_full_disk", temp.path(), 0);
    let [facts] = said(&mut child, "healthy")[..] else { panic!("the child failed") };
    assert!(facts > 10, "{facts} facts");
}
