//! The formats of Assize, in the order in which a build meets them.
//!
//! ```text
//! derivation ── resolve ──▶ action ── execute ──▶ NAR ── hash ──▶ NarHash
//! (author)                  (input hash)          (output)        (output hash)
//!                               └─────── statement: "I executed it and got this", signed ──▶ feed
//! ```
//!
//! * [`limits`]: every size and count limit, in one table.
//! * [`id`]: hashes that know what they are hashes of.
//! * [`encode`]: the canonical encoding, the only encoder and decoder.
//! * [`plain`]: text of foreign origin, made fit to be shown.
//! * [`name`]: mount names, guest paths, labels: strings that were checked once.
//! * [`glob`]: the one pattern language, for excludes and executables.
//! * [`sri`]: the expected hash of a fetched file.
//! * [`location`]: where a fetched file may be had.
//! * [`derivation`]: a build as its author wrote it; its inputs may be other derivations.
//! * [`graph`]: derivations and what they need.
//! * [`action`]: a derivation with every input replaced by a hash: what is executed.
//! * [`output`]: what executing an action gave.
//! * [`nar`]: the archive in which files come and go.
//! * [`witness`]: proof of execution: how what a guest did is hashed.
//! * [`key`]: the keys that sign, and what they sign under.
//! * [`statement`]: what an attester says, signed.
//! * [`feed`]: an attester's statements in their order, hash-chained.
//! * [`intoto`]: an attestation in the words of other tools.
//! * [`evidence`]: proofs against a key, and the file in which statements are carried by hand.
//! * [`message`]: what nodes say to each other.
//! * [`wish`]: what somebody would like to be executed, signed.
//! * [`ticket`]: what people give each other so that their nodes are connected.
//!
//! Pure on purpose: no I/O, no clock, no randomness, no async. Everything here compiles for
//! `wasm32-unknown-unknown`, so that a browser can check what a node can check.
#![forbid(unsafe_code)]

pub mod action;
pub mod derivation;
pub mod encode;
pub mod evidence;
pub mod feed;
pub mod glob;
pub mod graph;
pub mod id;
pub mod intoto;
pub mod key;
pub mod limits;
pub mod location;
pub mod message;
pub mod name;
pub mod nar;
pub mod output;
pub mod plain;
pub mod sri;
pub mod statement;
pub mod ticket;
pub mod trace;
pub mod wish;
pub mod witness;
