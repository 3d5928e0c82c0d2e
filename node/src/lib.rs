//! Hands: everything that touches the world. Async; all heavy dependencies are here; decides nothing.
//!
//! ```text
//! eval.rs ─▶ derivations ─▶ schedule.rs ─▶ realise.rs ─┬▶ build.rs   a wasm step, in a worker process
//!                                                      └▶ fetch.rs   a file, checked against its hash
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
//! * [`run`]: runs what was built, with what its user grants.
//! * [`config`]: what the owner says.
#![deny(unsafe_code)]

pub mod attest;
pub mod build;
pub mod config;
pub mod eval;
pub mod fetch;
pub mod judgement;
pub mod key;
mod process;
pub mod realise;
pub mod run;
pub mod schedule;
pub mod source;
