//! How long opening and closing a store takes.
use std::{path::Path, time::Instant};

fn main() {
    let home = std::env::args().nth(1).unwrap();
    for _ in 0..8 {
        let start = Instant::now();
        let store = store::Store::open(Path::new(&home), |_| false).unwrap();
        let opened = start.elapsed();
        for notice in store.notices() {
            println!("{notice}");
        }
        let start = Instant::now();
        if std::env::args().nth(2).is_some() {
            store.pin("x", &Default::default()).unwrap();
        }
        let pinned = start.elapsed();
        let start = Instant::now();
        drop(store);
        println!("open {opened:?}, pin {pinned:?}, close {:?}", start.elapsed());
    }
}
