//! The formats of Assize, in the order in which a build meets them.
//!
//! ```text
//! derivation ── resolve ──▶ action ── execute ──▶ NAR ── hash ──▶ NarHash
//! (author)                  (input hash)          (output)        (output hash)
//! ```
//!
//! * [`limits`]: every size and count limit, in one table.
//! * [`id`]: hashes that know what they are hashes of.
//! * [`encode`]: the canonical encoding, the only encoder and decoder.
//! * [`name`]: mount names, guest paths, labels: strings that were checked once.
//! * [`glob`]: the one pattern language, for excludes and executables.
//! * [`sri`]: the expected hash of a fetched file.
//! * [`location`]: where it can be fetched from.
//! * [`derivation`]: a build as its author wrote it; its inputs may be other derivations.
//! * [`action`]: a derivation with every input replaced by a hash: what is executed.
//! * [`nar`]: the archive in which files come and go.
//!
//! Pure on purpose: no I/O, no clock, no randomness, no async. Everything here compiles for
//! `wasm32-unknown-unknown`, so that a browser can check what a node can check.
#![forbid(unsafe_code)]

pub mod action;
pub mod derivation;
pub mod encode;
pub mod glob;
pub mod id;
pub mod limits;
pub mod location;
pub mod name;
pub mod nar;
pub mod sri;
