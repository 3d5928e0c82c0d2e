//! What is carried elsewhere arrives whole, or is refused.

mod support;

use std::{collections::BTreeSet, io::Write as _};

use protocol::{
    id::{ActionId, NarHash},
    nar::{Index, Node, Writer},
};
use store::{AdmitError, ExportError, Fact, ImportError, Store};
use support::{action, archive, open};

/// A store with three archives and two actions, and their ids.
fn filled() -> (tempfile::TempDir, Store, BTreeSet<NarHash>, BTreeSet<ActionId>) {
    let home = tempfile::tempdir().unwrap();
    let store = open(&home);
    let nars = [0, 1, 2].map(|n| store.admit(&archive(&[n; 300])[..], None, 1000).unwrap().hash);
    let actions = [0, 1].map(action);
    store.record_all(&actions.clone().map(Fact::Action)).unwrap();
    (home, store, BTreeSet::from(nars), actions.iter().map(|a| a.id()).collect())
}

fn bundle() -> (Vec<u8>, BTreeSet<NarHash>, BTreeSet<ActionId>) {
    let (_home, store, nars, actions) = filled();
    let mut bytes = Vec::new();
    store.export(&nars, &actions, &mut bytes).unwrap();
    (bytes, nars, actions)
}

fn import(bytes: &[u8]) -> (tempfile::TempDir, Store, Result<store::Imported, ImportError>) {
    let home = tempfile::tempdir().unwrap();
    let store = open(&home);
    let imported = store.import(bytes, 1 << 20);
    (home, store, imported)
}

#[test]
fn round_trip() {
    let (bytes, nars, actions) = bundle();
    let index = Index::read(&bytes).unwrap();
    assert!(
        index.lookup(format!("nars/{}.nar", nars.first().unwrap().to_hex()).as_bytes(), &bytes).is_some()
    );
    let (_home, store, imported) = import(&bytes);
    let imported = imported.unwrap();
    assert!(!imported.plain);
    assert_eq!(imported.actions, actions.iter().copied().collect::<Vec<_>>());
    assert_eq!(imported.nars.iter().map(|a| a.hash).collect::<BTreeSet<_>>(), nars);
    for action in &actions {
        assert_eq!(store.action(action).unwrap().unwrap().id(), *action);
        assert_eq!(store.realisation(action).unwrap(), None);
    }
    // Again is no different, and what goes out is what came in.
    assert_eq!(store.import(&bytes[..], 1 << 20).unwrap(), imported);
    let mut again = Vec::new();
    let exported = store.export(&nars, &actions, &mut again).unwrap();
    assert!(again == bytes);
    assert_eq!((exported.actions, exported.nars), (2, 3));
    assert!(store.verify(false, |_, _| {}).unwrap().is_clean());
}

#[test]
fn an_empty_bundle_and_a_plain_archive() {
    let (_home, store, ..) = filled();
    let mut bytes = Vec::new();
    store.export(&BTreeSet::new(), &BTreeSet::new(), &mut bytes).unwrap();
    assert_eq!(import(&bytes).2.unwrap(), store::Imported::default());
    let plain = archive(b"hello");
    let (_home, store, imported) = import(&plain);
    let imported = imported.unwrap();
    assert!(imported.plain && imported.nars[0].hash == NarHash::of(&plain));
    assert!(store.contains(&NarHash::of(&plain)));
}

/// Whatever bit is flipped: nothing is kept that is not what its name says.
#[test]
fn tampered() {
    let (bytes, nars, actions) = bundle();
    let (home, store, _) = import(&archive(b"x"));
    let known = NarHash::of(&archive(b"x"));
    for at in (0..bytes.len()).step_by(5) {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1 << (at % 8);
        // A name of `actions` or `nars` changed makes it a plain archive like any other.
        match store.import(&bytes[..], 1 << 20) {
            Ok(imported) => assert!(imported.plain, "byte {at}"),
            Err(ImportError::Record(e)) => panic!("{e}"),
            Err(_) => {}
        }
    }
    let report = store.verify(false, |_, _| {}).unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert!(store.contains(&known));
    drop((home, nars, actions));
}

type Files<'a> = &'a [(&'a str, &'a [u8])];

/// A bundle of these parts, each a name and files.
fn handmade(parts: &[(&str, Files<'_>)]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    writer.directory().unwrap();
    for (part, files) in parts {
        writer.entry(part.as_bytes()).unwrap();
        writer.directory().unwrap();
        for (name, content) in *files {
            writer.entry(name.as_bytes()).unwrap();
            writer.file(false, content.len() as u64, *content).unwrap();
        }
        writer.end().unwrap();
    }
    writer.end().unwrap();
    writer.finish().unwrap()
}

#[test]
fn each_fault_by_its_name() {
    let (a, b) = (action(1), action(2));
    let good = archive(b"good");
    let name = format!("{}.nar", NarHash::of(&good).to_hex());
    let zeros = "0".repeat(64);
    let zeros_nar = format!("{zeros}.nar");

    let (_h, _, e) = import(&handmade(&[("actions", &[(&a.id().to_hex(), &b.to_bytes())]), ("nars", &[])]));
    assert!(matches!(e, Err(ImportError::ActionHash { named, found }) if (named, found) == (a.id(), b.id())));
    let (_h, _, e) = import(&handmade(&[("actions", &[(&zeros, b"x")]), ("nars", &[])]));
    assert!(matches!(e, Err(ImportError::Action { .. })));
    let (_h, _, e) = import(&handmade(&[("actions", &[("README", b"x")]), ("nars", &[])]));
    assert!(matches!(e, Err(ImportError::Foreign { path }) if path == "actions/README"));
    let (_h, _, e) = import(&handmade(&[("actions", &[]), ("nars", &[("x\x1b.nar", b"x")])]));
    assert!(matches!(e, Err(ImportError::Foreign { path }) if path == "nars/x\\x1b.nar"));

    // Right hash, but no archive.
    let name_x = format!("{}.nar", NarHash::of(b"x").to_hex());
    let (_h, store, e) = import(&handmade(&[("actions", &[]), ("nars", &[(&name_x, b"x")])]));
    assert!(matches!(e, Err(ImportError::Nar { source: AdmitError::Format(_), .. })));
    assert!(!store.contains(&NarHash::of(b"x")));

    // What came before the bad entry stays.
    let mut files = vec![(name.as_str(), &good[..]), (zeros_nar.as_str(), &b"x"[..])];
    files.sort();
    let last = files[0].0 == name;
    let bytes = handmade(&[("actions", &[(&a.id().to_hex(), &a.to_bytes())]), ("nars", &files)]);
    let (_h, store, e) = import(&bytes);
    assert!(matches!(e, Err(ImportError::Nar { source: AdmitError::Hash { .. }, .. })));
    assert!(store.action(&a.id()).unwrap().is_some());
    assert_eq!(store.contains(&NarHash::of(&good)), last);
    assert!(!store.contains(&NarHash::from_bytes([0; 32])));

    let (bytes, ..) = bundle();
    let (_h, store, e) = import(&bytes[..bytes.len() - 1]);
    assert!(matches!(e, Err(ImportError::Admit(AdmitError::Format(_)))));
    assert_eq!(store.usage().unwrap().nars.files, 0);
    let e = store.import(&bytes[..], bytes.len() as u64 - 1);
    assert!(matches!(e, Err(ImportError::Admit(AdmitError::TooLong { .. }))));
}

#[test]
fn exporting_what_is_not_there_or_not_right() {
    let (_home, store, nars, actions) = filled();
    let missing = NarHash::from_bytes([0; 32]);
    let mut out = Vec::new();
    let e = store.export(&BTreeSet::from([missing]), &actions, &mut out);
    assert!(matches!(e, Err(ExportError::Nar(_))) && out.is_empty());
    let e = store.export(&nars, &BTreeSet::from([action(7).id()]), &mut out);
    assert!(matches!(e, Err(ExportError::ActionMissing { .. })) && out.is_empty());

    let hash = *nars.first().unwrap();
    let path = store.nar_path(&hash);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[100] ^= 1;
    std::fs::remove_file(&path).unwrap();
    std::fs::File::create(&path).unwrap().write_all(&bytes).unwrap();
    let e = store.export(&nars, &actions, &mut out);
    assert!(matches!(e, Err(ExportError::Damaged { hash: found, .. }) if found == hash));
    let index = Index::read(&bytes).unwrap();
    assert!(matches!(index.node_of(protocol::nar::NodeId::ROOT), Node::File { .. }));
}
