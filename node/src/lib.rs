//! Hands: everything that touches the world. Async; all heavy dependencies are here; decides nothing.
//!
//! ```text
//! eval.rs ─▶ derivations ─▶ schedule.rs ─▶ realise.rs ─┬▶ build.rs   a wasm step, in a worker process
//!                                                      └▶ fetch.rs   a file, checked against its hash
//! net.rs (other nodes) ◀─▶ driver.rs ◀─▶ trust::peer         control.rs (the owner) ─▶ driver.rs
//! ```
//!
//! * [`eval`]: Jsonnet to derivations, in a process of its own.
//! * [`source`]: files of a project.
//! * [`build`]: executes one action in a process of its own.
//! * [`fetch`]: obtains a file.
//! * [`key`]: the attester's key on disk.
//! * [`attest`]: signing what was built here.
//! * [`judgement`]: roster, policy and store, brought before the judge.
//! * [`schedule`]: what is built next; pure.
//! * [`realise`]: the loop around it.
//! * [`substitute`]: what others built, once enough of them agree.
//! * [`rebuild`]: what others built, executed to see whether it is true; [`watch`]: over and over.
//! * [`difference`]: where two outputs of one action are not the same; pure.
//! * [`run`]: runs what was built, with what its user grants.
//! * [`config`]: what the owner says.
//! * [`net`]: libp2p, hardened.
//! * [`driver`]: the loop between the world and the peer's state machine, `trust::peer`.
//! * [`control`]: how other processes talk to a running node.
#![deny(unsafe_code)]

pub mod attest;
pub mod build;
pub mod config;
pub mod control;
pub mod difference;
mod document;
pub mod driver;
pub mod eval;
pub mod fetch;
pub mod judgement;
pub mod key;
pub mod net;
mod process;
pub mod realise;
pub mod rebuild;
pub mod run;
pub mod schedule;
pub mod source;
pub mod substitute;
pub mod watch;
