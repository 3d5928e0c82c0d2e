//! The vectors of SPEC.md: files under `vectors/<section>/`, each with what a reader says of it.
//!
//! `<name>.nar`, `.drv`, `.act`, `.stm`, `.evidence`, `.request`, `.answer`, `.gossip`, `.range`, `.offer`, `.body`, `.ticket` or `.wish` has the bytes,
//! `<name>.expect` is `ok`, or the reader's error. `<name>.of` is what a body was asked for by.
//! With `ASSIZE_BLESS=1` missing `.expect` files are written, to be read and committed.

use std::{fs, path::Path};

use node::net::blob::Body;
use protocol::{
    action::Action,
    derivation::Derivation,
    evidence::{Evidence, UnverifiedEvidence},
    message::{Answer, Gossip, ProofsDigest, RangeAnswer, RangeRequest, Request},
    nar::Index,
    statement::Unverified,
    ticket::Ticket,
    trace::Trace,
    wish::UnverifiedWish,
};
use tests::{chain, repository, vectors};

fn verdict(path: &Path) -> Option<String> {
    let bytes = fs::read(path).unwrap();
    let result = match path.extension()?.to_str()? {
        "nar" => Index::read(&bytes).map(drop).map_err(|e| chain(&e)),
        "drv" => {
            Derivation::from_bytes(&bytes).map(|d| assert_eq!(d.to_bytes(), bytes)).map_err(|e| chain(&e))
        }
        "act" => Action::from_bytes(&bytes).map(|a| assert_eq!(a.to_bytes(), bytes)).map_err(|e| chain(&e)),
        "stm" => {
            let read = Unverified::from_bytes(&bytes).map_err(|e| chain(&e));
            read.and_then(|s| s.verify().map_err(|e| chain(&e))).map(|s| assert_eq!(s.bytes(), bytes))
        }
        "evidence" => evidence(&bytes),
        "request" => {
            Request::from_bytes(&bytes).map(|m| assert_eq!(m.to_bytes(), bytes)).map_err(|e| chain(&e))
        }
        "answer" => {
            Answer::from_bytes(&bytes).map(|m| assert_eq!(m.to_bytes(), bytes)).map_err(|e| chain(&e))
        }
        "gossip" => {
            Gossip::from_bytes(&bytes).map(|m| assert_eq!(m.to_bytes(), bytes)).map_err(|e| chain(&e))
        }
        "range" => {
            RangeRequest::from_bytes(&bytes).map(|m| assert_eq!(m.to_bytes(), bytes)).map_err(|e| chain(&e))
        }
        "offer" => {
            RangeAnswer::from_bytes(&bytes).map(|m| assert_eq!(m.to_bytes(), bytes)).map_err(|e| chain(&e))
        }
        "body" => {
            let request = RangeRequest::from_bytes(&fs::read(path.with_extension("of")).unwrap()).unwrap();
            let piece = node::net::blob::read(&request, Body { zstd: false, bytes });
            piece.map(drop).ok_or_else(|| "not the piece that was asked for".into())
        }
        "wish" => {
            let read = UnverifiedWish::from_bytes(&bytes).map_err(|e| chain(&e));
            read.and_then(|w| w.verify().map_err(|e| chain(&e))).map(|w| assert_eq!(w.to_bytes(), bytes))
        }
        "trace" => Trace::from_bytes(&bytes).map(|t| assert_eq!(t.to_bytes(), bytes)).map_err(|e| chain(&e)),
        "ticket" => {
            let text = String::from_utf8(bytes).unwrap();
            let read = text.parse::<Ticket>().map_err(|e| chain(&e));
            read.map(|ticket| assert_eq!(ticket.to_string(), text.to_lowercase()))
        }
        _ => return None,
    };
    Some(result.map_or_else(|error| error, |()| "ok".into()))
}

/// What a reader keeps of an evidence file, and what stops it.
fn evidence(bytes: &[u8]) -> Result<(), String> {
    let items = protocol::evidence::read(bytes).map_err(|e| chain(&e))?;
    for (n, item) in items.enumerate() {
        let checked = item.and_then(UnverifiedEvidence::verify);
        checked.map_err(|e| format!("behind {n} good items: {}", chain(&e)))?;
    }
    Ok(())
}

/// SPEC §17.1: the digest in a head is that of the proofs in an answer.
#[test]
fn proofs_have_their_digest() {
    let answer = |name: &str| {
        let path = repository().join("tests/vectors/message").join(name);
        Answer::from_bytes(&fs::read(path).unwrap()).unwrap()
    };
    let Answer::Items(items) = answer("ok_items.answer") else { panic!("items") };
    let proofs: Vec<Evidence> = items.into_iter().map(|item| item.verify().unwrap()).collect();
    let Answer::Heads { heads, .. } = answer("ok_heads.answer") else { panic!("heads") };
    assert_eq!(heads[0].proofs, ProofsDigest::of(&proofs));
}

#[test]
fn every_vector_says_what_is_expected() {
    let checked = vectors(verdict);
    assert!(checked >= 150, "only {checked} vectors were found");
}
