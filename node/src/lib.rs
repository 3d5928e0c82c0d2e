//! Hands: everything that touches the world. Async; all heavy dependencies are here; decides nothing.
//!
//! ```text
//! eval.rs ─▶ derivations ─▶ schedule.rs ─▶ realise.rs ─┬▶ build.rs   a wasm step, in a worker process
//!                                                      └▶ fetch.rs   a file, checked against its hash
//! ```
//!
//! * [`build`]: executes one action in a process of its own.
//! * [`fetch`]: obtains a file.
//! * [`schedule`]: what is built next; pure.
//! * [`realise`]: the loop around it.
#![deny(unsafe_code)]

pub mod build;
pub mod fetch;
mod process;
pub mod realise;
pub mod schedule;
