//! How fast the store is on this machine: `cargo run -p store --example measure -- HOME [TREE]`.
//!
//! HOME is created and filled if it is new; TREE is packed and hashed, and so much is all.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use protocol::{
    action::{Action, FetchAction},
    id::NarHash,
    name::Name,
    nar,
    output::Output,
};
use store::{Fact, HashingWriter, Realisation, Store, pack};

fn main() {
    let mut args = std::env::args().skip(1);
    let (Some(home), tree) = (args.next(), args.next()) else {
        return println!("measure HOME [TREE]");
    };
    if let Some(tree) = tree {
        return packing(Path::new(&tree));
    }
    let home = Path::new(&home);
    opening(home);
    facts(home, 1, 500);
    facts(home, 8, 500);
    opening(home);
    archives(home, 1000, 20_000);
    archives(home, 4, 256 << 20);
    let store = Store::open(home, |_| false).unwrap();
    timed("reindex", || store.reindex().unwrap().len());
    let bytes = store.usage().unwrap().nars.bytes;
    let took = timed("verify", || store.verify(false, |_, _| {}).unwrap().is_clean());
    println!("    {:.2} GB/s", bytes as f64 / took.as_secs_f64() / 1e9);
}

fn timed<T: std::fmt::Debug>(what: &str, f: impl FnOnce() -> T) -> Duration {
    let start = Instant::now();
    let result = f();
    let took = start.elapsed();
    println!("{what}: {result:?} in {took:?}");
    took
}

fn opening(home: &Path) {
    for _ in 0..5 {
        let start = Instant::now();
        let store = Store::open(home, |_| false).unwrap();
        let opened = start.elapsed();
        for notice in store.notices() {
            println!("{notice}");
        }
        let start = Instant::now();
        drop(store);
        println!("open {opened:?}, close {:?}", start.elapsed());
    }
}

fn facts(home: &Path, threads: u64, each: u64) {
    let store = Store::open(home, |_| false).unwrap();
    let took = timed(&format!("{threads} threads record {each} builds each"), || {
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let store = &store;
                scope.spawn(move || (0..each).for_each(|n| fact(store, threads << 40 | thread << 32 | n)));
            }
        });
    });
    println!("    {:.0} builds/s", (threads * each) as f64 / took.as_secs_f64());
}

fn fact(store: &Store, n: u64) {
    let hash = *blake3::hash(&n.to_le_bytes()).as_bytes();
    let sri = format!("sha256-{}", data_encoding::BASE64.encode(&hash)).parse().unwrap();
    let action = Action::Fetch(FetchAction { sri, executable: false });
    let built = Realisation {
        action: action.id(),
        derivation: None,
        name: Name::new("x").unwrap(),
        outputs: BTreeMap::from([(Name::out(), Output { nar: NarHash::from_bytes(hash), size: n })]),
        finished: n,
        millis: n,
        transcript: None,
    };
    store.record_all(&[Fact::Action(action), Fact::Built(built)]).unwrap();
}

fn archives(home: &Path, count: u64, size: usize) {
    let store = Store::open(home, |_| false).unwrap();
    let archive = |n: u64| {
        let content: Vec<u8> = n.to_le_bytes().repeat(size / 8);
        nar::dump_file(Vec::new(), false, content.len() as u64, &content[..]).unwrap()
    };
    let mut spent = Duration::ZERO;
    for n in 0..count {
        let bytes = archive(n);
        let start = Instant::now();
        store.admit(&bytes[..], None, u64::MAX).unwrap();
        spent += start.elapsed();
    }
    let rate = (count * size as u64) as f64 / spent.as_secs_f64() / 1e6;
    println!("admit {count} archives of {size}: {spent:?}, {rate:.0} MB/s");
}

fn packing(tree: &Path) {
    for _ in 0..3 {
        let start = Instant::now();
        let mut to = HashingWriter::sink();
        let stats = pack(tree, &[], &mut to).unwrap();
        let (_, hash, size) = to.finish();
        let took = start.elapsed();
        println!("{hash} {stats:?} in {took:?}, {:.2} GB/s", size as f64 / took.as_secs_f64() / 1e9);
    }
}
