//! Small things of which the store can be full.
//!
//! * [`children`]: processes that use a store, and can be killed.
//! * [`things`]: all that a store keeps of one build, to be found again after a kill.
#![allow(dead_code)] // Every test takes what it needs.

pub(crate) mod children;
pub(crate) mod things;

use std::{collections::BTreeMap, fs, path::Path};

use protocol::{
    action::{Action, FetchAction},
    id::{NarHash, StatementId},
    key::{AttesterKey, SigningKey},
    name::Name,
    nar,
    output::Output,
    statement::{Attestation, Body, Platform, Signed, Statement},
};
use store::{Realisation, Store};

/// Opens a store that needs no repair.
pub(crate) fn open(home: &tempfile::TempDir) -> Store {
    let store = Store::open(home.path(), |_| false).unwrap();
    assert_eq!(store.notices(), []);
    store
}

/// The action number `n`.
pub(crate) fn action(n: u32) -> Action {
    let mut hash = [0; 32];
    hash[..4].copy_from_slice(&n.to_le_bytes());
    let sri = format!("sha256-{}", data_encoding::BASE64.encode(&hash)).parse().unwrap();
    Action::Fetch(FetchAction { sri, executable: false })
}

/// What became of it: an archive by the hash of 32 times `nar`.
pub(crate) fn built(action: &Action, nar: u8, finished: u64) -> Realisation {
    realisation(action, NarHash::from_bytes([nar; 32]), finished)
}

/// What became of it.
pub(crate) fn realisation(action: &Action, nar: NarHash, finished: u64) -> Realisation {
    Realisation {
        action: action.id(),
        derivation: None,
        name: Name::new("hello").unwrap(),
        outputs: BTreeMap::from([(Name::out(), Output { nar, size: 112 })]),
        finished,
        millis: 5,
        transcript: None,
    }
}

/// The key number `n`.
pub(crate) fn key(n: u8) -> SigningKey {
    SigningKey::from_bytes(&[n; 32])
}

/// Whose it is.
pub(crate) fn attester(n: u8) -> AttesterKey {
    AttesterKey::of(&key(n))
}

/// What is signed of it.
pub(crate) fn attestation(realisation: Realisation) -> Body {
    Body::Built(Attestation {
        action: realisation.action,
        outputs: realisation.outputs,
        witness: None,
        platform: Platform::here(Name::new("none").unwrap()),
    })
}

/// A statement at any place, which no store would have signed.
pub(crate) fn statement(who: u8, seq: u64, prev: StatementId, body: Body) -> Signed {
    Statement { attester: attester(who), seq, prev, time: 0, body }.sign(&key(who)).unwrap()
}

/// The archive of a file.
pub(crate) fn archive(content: &[u8]) -> Vec<u8> {
    nar::dump_file(Vec::new(), false, content.len() as u64, content).unwrap()
}

/// Copies a directory with all that is in it.
pub(crate) fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// The names in a directory, sorted.
pub(crate) fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = entries.collect();
    names.sort();
    names
}

/// Numbers without a pattern, the same in every run.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new() -> Self {
        Self(88172645463325252)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}
