//! Hands: everything that touches the world. Async; all heavy dependencies are here; decides nothing.
//!
//! * [`build`]: executes one action in a process of its own.
#![deny(unsafe_code)]

pub mod build;
mod process;
pub mod schedule;
