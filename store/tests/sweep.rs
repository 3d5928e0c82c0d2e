//! Sweeping keeps what is wanted; counting counts what is there.

mod support;

use std::{
    collections::BTreeSet,
    fs::File,
    io::Write as _,
    time::{Duration, SystemTime},
};

use protocol::id::NarHash;
use store::{Fact, GcOptions, Store};
use support::{action, archive, open, realisation};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Admits an archive, as if that had been some days ago.
fn admit(store: &Store, content: &[u8], days: u32) -> NarHash {
    let hash = store.admit(&archive(content)[..], None, 1 << 20).unwrap().hash;
    age(&store.nar_path(&hash), days);
    hash
}

fn age(path: &std::path::Path, days: u32) {
    let then = SystemTime::now() - DAY * days;
    let times = std::fs::FileTimes::new().set_modified(then).set_accessed(then);
    File::open(path).unwrap().set_times(times).unwrap();
}

#[test]
fn pinned_and_kept_stay() {
    let home = tempfile::tempdir().unwrap();
    let store = open(&home);
    let hashes: Vec<_> = (0..6).map(|n| admit(&store, &[n; 100], 10 - u32::from(n))).collect();
    store.pin("a", &BTreeSet::from([hashes[0], hashes[1]])).unwrap();
    store.pin("b", &BTreeSet::from([hashes[2]])).unwrap();
    store.unpin("b").unwrap();
    let keep = BTreeSet::from([hashes[5]]);
    let mut options = GcOptions { dry_run: true, keep, older_than: None };

    let would = store.gc(&options).unwrap();
    assert!(hashes.iter().all(|hash| store.contains(hash)));
    options.dry_run = false;
    let open_before = store.open_nar(&hashes[2]).unwrap();
    let did = store.gc(&options).unwrap();
    assert_eq!(did, would);
    // The oldest first.
    assert_eq!(did.nars.iter().map(|nar| nar.hash).collect::<Vec<_>>(), hashes[2..5]);
    assert_eq!((did.nar_bytes, did.kept.files), (3 * archive(&[0; 100]).len() as u64, 3));
    let here: Vec<_> = hashes.iter().map(|hash| store.contains(hash)).collect();
    assert_eq!(here, [true, true, false, false, false, true]);
    assert_eq!(NarHash::of(open_before.bytes()), hashes[2]);

    assert!(store.gc(&options).unwrap().nars.is_empty());
    drop(store);
    let store = open(&home);
    assert!(store.verify(false, |_, _| {}).unwrap().is_clean());
    assert!(store.contains(&hashes[0]));
}

#[test]
fn young_ones_stay_and_admitting_makes_young() {
    let home = tempfile::tempdir().unwrap();
    let store = open(&home);
    let (old, young, again) = (admit(&store, b"1", 20), admit(&store, b"2", 5), admit(&store, b"3", 20));
    store.admit(&archive(b"3")[..], None, 1000).unwrap();
    let options = GcOptions { older_than: Some(DAY * 10), ..GcOptions::default() };
    store.gc(&options).unwrap();
    assert_eq!([old, young, again].map(|hash| store.contains(&hash)), [false, true, true]);
}

#[test]
fn logs_and_modules_follow() {
    let home = tempfile::tempdir().unwrap();
    let store = open(&home);
    let (kept, swept) = (admit(&store, b"kept", 9), admit(&store, b"swept", 9));
    store.pin("kept", &BTreeSet::from([kept])).unwrap();
    let actions = [0, 1, 2, 3].map(action);
    for (a, nar) in [(&actions[0], kept), (&actions[1], swept), (&actions[3], swept)] {
        store.record_all(&[Fact::Action(a.clone()), Fact::Built(realisation(a, nar, 1))]).unwrap();
    }
    for (n, a) in actions.iter().enumerate() {
        store.create_log(&a.id()).unwrap().write_all(b"hello\n").unwrap();
        // The last is of a build that runs now.
        age(&store.log_path(&a.id()), if n == 3 { 0 } else { 2 });
    }
    for (name, days) in [("used", 2), ("unused", 40)] {
        let path = store.modules_dir().join(name);
        std::fs::write(&path, b"12345").unwrap();
        age(&path, days);
    }
    let usage = store.usage().unwrap();
    assert_eq!((usage.nars.files, usage.logs.files, usage.logs.bytes, usage.modules.files), (2, 4, 24, 2));
    assert!(usage.journal.bytes > 0 && usage.index.bytes > 0 && usage.bytes() > 0);

    let report = store.gc(&GcOptions::default()).unwrap();
    assert_eq!((report.logs.files, report.modules.files), (2, 1));
    assert_eq!(report.bytes(), report.nar_bytes + 12 + 5);
    // That of the swept output goes, and that of the build that failed.
    assert_eq!(actions.map(|a| store.log_path(&a.id()).exists()), [true, false, false, true]);
    assert!(store.modules_dir().join("used").exists());
    assert!(!store.modules_dir().join("unused").exists());
    // What it was is still known.
    assert_eq!(store.makers(&swept).unwrap().len(), 2);
}
