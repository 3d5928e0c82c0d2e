//! Whatever a crash or a bad disk leaves behind, opening heals it and says so.

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use protocol::id::NarHash;
use store::{Fact, NarFault, Notice, Realisation, Rebuilt, Store};
use support::{Random, action, archive, built, copy_dir, names, open};

const FACTS: u32 = 12;

/// A closed store of [`FACTS`] actions, each built, and of pins.
fn filled() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    let store = open(&home);
    for n in 0..FACTS {
        let a = action(n);
        store.record_all(&[Fact::Action(a.clone()), Fact::Built(built(&a, n as u8, n.into()))]).unwrap();
    }
    store.pin("all", &BTreeSet::from([NarHash::from_bytes([1; 32])])).unwrap();
    drop(store);
    // sled writes a snapshot when it opens what has grown.
    drop(open(&home));
    home
}

fn copy(home: &tempfile::TempDir) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    copy_dir(home.path(), copy.path());
    copy
}

fn reopen(home: &Path) -> Store {
    Store::open(home, |_| false).unwrap()
}

/// How many of the actions and of their realisations are found; each found one is right.
fn found(store: &Store) -> (u32, u32) {
    let (mut actions, mut builds) = (0, 0);
    for n in 0..FACTS {
        let a = action(n);
        if let Some(found) = store.action(&a.id()).unwrap() {
            assert_eq!(found, a);
            actions += 1;
        }
        if let Some(found) = store.realisation(&a.id()).unwrap() {
            assert_eq!(found, built(&a, n as u8, n.into()));
            builds += 1;
        }
    }
    (actions, builds)
}

fn all_there(store: &Store) {
    assert_eq!(found(store), (FACTS, FACTS));
    assert_eq!(store.pins().unwrap().len(), 1);
    assert_eq!(store.realisations().unwrap().count(), FACTS as usize);
    assert!(store.verify(false, |_, _| {}).unwrap().is_clean());
}

fn segment(home: &Path) -> PathBuf {
    home.join("journal/00000001.log")
}

/// Where each frame starts, and where the last one ends.
fn frames(bytes: &[u8]) -> Vec<usize> {
    let mut starts = vec![0];
    while let Some(at) = starts.last().copied().filter(|at| *at < bytes.len()) {
        let len = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        starts.push(at + 8 + len as usize);
    }
    starts
}

/// A journal that ends in the midst of a record, at every byte of the last three.
#[test]
fn torn_journal() {
    let home = filled();
    let bytes = fs::read(segment(home.path())).unwrap();
    let frames = frames(&bytes);
    for cut in frames[frames.len() - 4]..bytes.len() {
        let home = tempfile::tempdir().unwrap();
        // As a crash leaves it: the index has nothing that was not acknowledged.
        fs::create_dir(home.path().join("journal")).unwrap();
        fs::write(segment(home.path()), &bytes[..cut]).unwrap();
        let whole = frames.iter().rposition(|start| *start <= cut).unwrap();
        // The head is the first frame.
        let (actions, builds) = ((whole as u32) / 2, (whole as u32 - 1) / 2);
        let store = reopen(home.path());
        assert_eq!(found(&store), (actions.min(FACTS), builds.min(FACTS)), "cut at {cut}");
        let torn = store.notices().iter().filter(|n| matches!(n, Notice::TornTail { .. })).count();
        assert_eq!(torn, usize::from(frames[whole] != cut), "cut at {cut}: {:?}", store.notices());
        // It goes on where it was cut.
        let a = action(1000);
        store.record(&Fact::Action(a.clone())).unwrap();
        drop(store);
        let store = reopen(home.path());
        assert_eq!(store.notices(), []);
        assert_eq!(store.action(&a.id()).unwrap(), Some(a));
        assert!(store.verify(false, |_, _| {}).unwrap().is_clean());
    }
}

/// The journal was cut although what was cut had been acknowledged: the index is ahead of it.
#[test]
fn journal_behind_the_index() {
    let home = filled();
    let bytes = fs::read(segment(home.path())).unwrap();
    let frames = frames(&bytes);
    for cut in [frames[3], frames[frames.len() - 2], bytes.len() - 1] {
        let home = copy(&home);
        fs::write(segment(home.path()), &bytes[..cut]).unwrap();
        let store = reopen(home.path());
        let rebuilt = |n: &Notice| matches!(n, Notice::IndexRebuilt { why: Rebuilt::Mismatch, .. });
        assert!(store.notices().iter().any(rebuilt), "{:?}", store.notices());
        assert!(store.verify(false, |_, _| {}).unwrap().is_clean());
    }
}

/// A bit flipped anywhere, with the index gone: one record is lost, every other is found, and the
/// damaged segment is in the quarantine.
#[test]
fn flipped_bit_without_index() {
    let home = filled();
    let bytes = fs::read(segment(home.path())).unwrap();
    let frames = frames(&bytes);
    let last = frames[frames.len() - 2];
    // Every byte would do, but takes long; 13 meets each place of a frame often.
    for at in (0..bytes.len()).step_by(13) {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join("journal")).unwrap();
        let mut bytes = bytes.clone();
        bytes[at] ^= 1 << (at % 8);
        fs::write(segment(home.path()), &bytes).unwrap();
        let store = reopen(home.path());
        let (actions, builds) = found(&store);
        let lost = 2 * FACTS - actions - builds;
        // The head, or the pin at the end.
        let neither = at < frames[1] || at >= last;
        assert_eq!(lost, u32::from(!neither), "byte {at}");
        assert_eq!(store.pins().unwrap().len(), usize::from(at < last), "byte {at}");
        let kinds: Vec<_> = store.notices().iter().map(std::mem::discriminant).collect();
        assert!(!kinds.is_empty(), "byte {at}");
        if at < last {
            assert_eq!(names(&home.path().join("quarantine")), ["00000001.log"], "byte {at}");
        }
        assert!(store.verify(false, |_, _| {}).unwrap().is_clean());
        drop(store);
        assert_eq!(reopen(home.path()).notices(), []);
    }
}

/// A bit flipped anywhere, with the index in place: never a wrong answer; found by verification,
/// repaired on request.
#[test]
fn flipped_bit_with_index() {
    let home = filled();
    let bytes = fs::read(segment(home.path())).unwrap();
    for at in (0..bytes.len()).step_by(29) {
        let home = copy(&home);
        let mut bytes = bytes.clone();
        bytes[at] ^= 1 << (at % 8);
        fs::write(segment(home.path()), &bytes).unwrap();
        let store = reopen(home.path());
        let mut wrong = 0;
        for n in 0..FACTS {
            let a = action(n);
            match store.action(&a.id()) {
                Ok(found) => wrong += u32::from(found != Some(a.clone())),
                Err(_) => wrong += 1,
            }
            match store.realisation(&a.id()) {
                Ok(found) => wrong += u32::from(found != Some(built(&a, n as u8, n.into()))),
                Err(_) => wrong += 1,
            }
        }
        assert!(wrong <= 1, "byte {at}");
        let report = store.verify(true, |_, _| {}).unwrap();
        assert!(!report.is_clean() || !store.notices().is_empty(), "byte {at}");
        assert!(store.verify(false, |_, _| {}).unwrap().is_clean(), "byte {at}");
        let (actions, builds) = found(&store);
        assert!(actions + builds >= 2 * FACTS - 1);
        // It goes on.
        store.record(&Fact::Action(action(1000))).unwrap();
        drop(store);
        let store = reopen(home.path());
        assert_eq!(store.notices(), []);
        assert!(store.action(&action(1000).id()).unwrap().is_some());
    }
}

/// Any damage to the index: everything is there, without a step by hand.
#[test]
fn the_index_heals_itself() {
    let home = filled();
    let snapshot = |home: &Path| {
        let names = names(&home.join("index"));
        home.join("index").join(names.iter().find(|n| n.starts_with("snap.")).unwrap())
    };
    type Damage = fn(&Path, &dyn Fn(&Path) -> PathBuf);
    let damages: [(&str, Damage); 12] = [
        ("missing", |home, _| fs::remove_dir_all(home.join("index")).unwrap()),
        ("without files", |home, _| {
            fs::remove_dir_all(home.join("index")).unwrap();
            fs::create_dir(home.join("index")).unwrap();
        }),
        ("a snapshot half written", |home, snapshot| {
            let bytes = fs::read(snapshot(home)).unwrap();
            fs::write(home.join("index/snap.00000000FFFFFFFF.generating"), &bytes[..bytes.len() / 2])
                .unwrap();
        }),
        ("an empty snapshot", |home, snapshot| fs::write(snapshot(home), b"").unwrap()),
        ("a torn snapshot", |home, snapshot| {
            let bytes = fs::read(snapshot(home)).unwrap();
            fs::write(snapshot(home), &bytes[..bytes.len() - 3]).unwrap();
        }),
        ("garbage as snapshot", |home, snapshot| fs::write(snapshot(home), [0x5a; 5000]).unwrap()),
        ("no snapshot", |home, snapshot| fs::remove_file(snapshot(home)).unwrap()),
        ("garbage as data", |home, _| fs::write(home.join("index/db"), [0x5a; 1 << 20]).unwrap()),
        ("zeros as data", |home, _| fs::write(home.join("index/db"), [0; 1 << 20]).unwrap()),
        ("no data", |home, _| fs::write(home.join("index/db"), b"").unwrap()),
        ("half the data", |home, _| {
            let bytes = fs::read(home.join("index/db")).unwrap();
            fs::write(home.join("index/db"), &bytes[..1000]).unwrap();
        }),
        ("garbage as configuration", |home, _| fs::write(home.join("index/conf"), [0xff; 60]).unwrap()),
    ];
    for (what, damage) in damages {
        let home = copy(&home);
        damage(home.path(), &snapshot);
        let store = reopen(home.path());
        all_there(&store);
        println!("{what}: {:?}", store.notices());
        drop(store);
        let store = reopen(home.path());
        assert_eq!(store.notices(), [], "{what}");
        all_there(&store);
    }
}

/// Random damage to any file of the index.
#[test]
fn random_damage_to_the_index() {
    let home = filled();
    let mut random = Random::new();
    for round in 0..60 {
        let home = copy(&home);
        let files: Vec<_> = names(&home.path().join("index")).into_iter().filter(|n| n != "blobs").collect();
        let path = home.path().join("index").join(&files[random.below(files.len())]);
        let mut bytes = fs::read(&path).unwrap();
        // Where sled has written something, mostly.
        let used = bytes.iter().rposition(|b| *b != 0).unwrap_or(0) + 1;
        for _ in 0..=random.below(20) {
            let at = random.below(used);
            bytes[at] ^= 1 << random.below(8);
        }
        fs::write(&path, bytes).unwrap();
        let store = reopen(home.path());
        let healthy = store.verify(false, |_, _| {}).unwrap().is_clean();
        if !healthy {
            // Damage that sled does not see when it opens is found here, and repaired.
            let report = store.verify(true, |_, _| {}).unwrap();
            assert!(report.index_faults > 0 && !report.repaired.is_empty(), "round {round}");
        }
        all_there(&store);
    }
}

#[test]
fn an_index_of_another_journal() {
    let (home, other) = (filled(), tempfile::tempdir().unwrap());
    drop(open(&other));
    {
        let store = open(&other);
        store.record(&Fact::Action(action(99))).unwrap();
    }
    for part in ["index", "index.synced"] {
        let (from, to) = (other.path().join(part), home.path().join(part));
        if from.is_dir() {
            fs::remove_dir_all(&to).unwrap();
            copy_dir(&from, &to);
        } else {
            fs::copy(&from, &to).unwrap();
        }
    }
    let store = reopen(home.path());
    let facts = u64::from(FACTS * 2 + 1);
    assert_eq!(store.notices(), [Notice::IndexRebuilt { why: Rebuilt::Mismatch, facts }]);
    all_there(&store);
    assert_eq!(store.action(&action(99).id()).unwrap(), None);
}

#[test]
fn a_missing_segment_is_told() {
    let home = filled();
    fs::rename(segment(home.path()), home.path().join("journal/00000002.log")).unwrap();
    fs::remove_dir_all(home.path().join("index")).unwrap();
    let store = reopen(home.path());
    assert!(store.notices().contains(&Notice::SegmentMissing { segment: 1 }));
    assert_eq!(found(&store), (FACTS, FACTS));
}

#[test]
fn reindexing() {
    let home = filled();
    let store = open(&home);
    let notices = store.reindex().unwrap();
    let facts = u64::from(FACTS * 2 + 1);
    assert_eq!(notices, [Notice::IndexRebuilt { why: Rebuilt::Asked, facts }]);
    all_there(&store);
    store.record(&Fact::Action(action(1000))).unwrap();
    drop(store);
    assert!(open(&home).action(&action(1000).id()).unwrap().is_some());
}

/// Any flipped byte of an archive is found, named, and with repair moved out of the way.
#[test]
fn flipped_bytes_in_archives() {
    let home = tempfile::tempdir().unwrap();
    let store = open(&home);
    let archives: Vec<_> = (0..20_u8).map(|n| archive(&vec![n; usize::from(n) * 10])).collect();
    let hashes: Vec<_> = archives.iter().map(|a| store.admit(&a[..], None, 1 << 20).unwrap().hash).collect();
    let report = store.verify(false, |_, _| {}).unwrap();
    assert!(report.is_clean());
    assert_eq!(report.nar_bytes, archives.iter().map(|a| a.len() as u64).sum::<u64>());
    for (n, (archive, hash)) in archives.iter().zip(&hashes).enumerate() {
        let path = store.nar_path(hash);
        for at in (0..archive.len()).step_by(archive.len() / 8) {
            let mut bytes = archive.clone();
            bytes[at] ^= 1 << (n % 8);
            fs::remove_file(&path).unwrap();
            fs::write(&path, &bytes).unwrap();
            let report = store.verify(false, |_, _| {}).unwrap();
            let [damaged] = &report.damaged[..] else { panic!("{report:?}") };
            assert_eq!(damaged.hash, *hash);
            assert!(matches!(damaged.fault, NarFault::Hash { found } if found == NarHash::of(&bytes)));
        }
        fs::write(&path, archive).unwrap();
    }
    assert!(store.verify(false, |_, _| {}).unwrap().is_clean());
    for hash in &hashes {
        fs::write(store.nar_path(hash), b"garbage").unwrap();
    }
    let report = store.verify(true, |_, _| {}).unwrap();
    assert_eq!(report.damaged.len(), 20);
    assert!(report.damaged.iter().all(|d| d.moved.as_ref().is_some_and(|path| path.exists())));
    fs::write(home.path().join("cas/stray"), b"x").unwrap();
    let report = store.verify(true, |_, _| {}).unwrap();
    assert_eq!((report.foreign.len(), report.nars), (1, 0));
    assert!(store.verify(false, |_, _| {}).unwrap().is_clean());
    store.admit(&archives[0][..], Some(hashes[0]), 1 << 20).unwrap();
}

#[test]
fn progress_reaches_the_total() {
    let home = tempfile::tempdir().unwrap();
    let store = open(&home);
    for n in 0..5 {
        store.admit(&archive(&[n; 100])[..], None, 1 << 20).unwrap();
    }
    let mut seen = Vec::new();
    store.verify(false, |done, total| seen.push((done, total))).unwrap();
    assert_eq!(seen.len(), 6);
    assert!(seen.is_sorted());
    assert_eq!(seen[5].0, seen[5].1);
}

/// What a process left in `tmp/` when it was killed.
#[test]
fn temporary_things_go() {
    let home = tempfile::tempdir().unwrap();
    drop(open(&home));
    let deep = (0..200).fold(home.path().join("tmp/dir-x"), |path, _| path.join("d"));
    fs::create_dir_all(deep).unwrap();
    fs::write(home.path().join("tmp/file-y"), b"x").unwrap();
    std::os::unix::fs::symlink("/etc", home.path().join("tmp/link")).unwrap();
    drop(open(&home));
    assert!(names(&home.path().join("tmp")).is_empty());
    assert!(Path::new("/etc/passwd").exists());
}

/// Segments roll, and everything in all of them is found, with and without the index.
#[test]
fn many_segments() {
    let home = tempfile::tempdir().unwrap();
    let big = |n: u64| -> BTreeSet<NarHash> {
        (0..60_000_u64).map(|i| NarHash::of(&[n.to_le_bytes(), i.to_le_bytes()].concat())).collect()
    };
    let mut pins = BTreeMap::new();
    let store = open(&home);
    for n in 0..70 {
        let nars = big(n);
        let name = format!("pin {}", n % 3);
        store.pin(&name, &nars).unwrap();
        pins.insert(name, nars);
    }
    let a = action(1);
    let last: Realisation = built(&a, 1, 1);
    store.record_all(&[Fact::Action(a.clone()), Fact::Built(last.clone())]).unwrap();
    assert_eq!(names(&home.path().join("journal")), ["00000001.log", "00000002.log", "00000003.log"]);
    let check = |store: &Store| {
        assert_eq!(store.pins().unwrap(), pins);
        assert_eq!(store.realisation(&a.id()).unwrap().as_ref(), Some(&last));
    };
    check(&store);
    drop(store);
    check(&open(&home));
    fs::remove_dir_all(home.path().join("index")).unwrap();
    check(&reopen(home.path()));
}
