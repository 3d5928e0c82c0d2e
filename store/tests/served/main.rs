//! A store that one process has open and others use.
//!
//! * [`answers`]: the same for everybody, as if each had the store for itself.
//! * [`serving`]: how it begins and ends, and for how many.
//! * [`kills`]: whoever is killed, what was acknowledged is there.
//! * [`hostile`]: garbage, silence, other users.

mod answers;
mod hostile;
mod kills;
mod serving;
#[path = "../support/mod.rs"]
mod support;

use std::{
    error::Error,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use protocol::statement::Body;
use store::{Service, Store};
use support::{action, attestation, built};

/// Opens a store of our own and serves it.
fn serve(home: &Path) -> (Arc<Store>, Service) {
    let store = Arc::new(Store::open(home, |_| panic!("nobody has it open")).unwrap());
    let service = store.serve().unwrap();
    (store, service)
}

fn client(home: &Path) -> Store {
    Store::open(home, |_| panic!("nobody serves")).unwrap()
}

/// That action number `of` gave the archive by the hash of 32 times `gave`.
fn claim(of: u32, gave: u8) -> Body {
    attestation(built(&action(of), gave, 1))
}

/// An error and its causes.
fn chain(error: &dyn Error) -> String {
    let (mut text, mut next) = (error.to_string(), error.source());
    while let Some(cause) = next {
        text += &format!(": {cause}");
        next = cause.source();
    }
    text
}

/// Tries for a minute.
#[track_caller]
fn until(mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < end, "not within a minute");
        std::thread::sleep(Duration::from_millis(5));
    }
}
