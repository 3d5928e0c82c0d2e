//! Many peers in one thread, in virtual time, from a seed: what holds while networks fail and peers
//! lie, and what comes of it when they do not any more.
//!
//! ```text
//! scenarios/*.toml ─▶ scenario ─▶ World ─▶ Report, or the Failure and how to see it again
//!                        seed ──┘   └─▶ Trace
//! ```
//!
//! * [`scenario`]: a claim, with its peers, liars and faults, as a file.
//! * [`world`]: nodes, what is on its way between them, and what happens to them.
//! * [`invariants`]: what must hold, looked at from outside.
//! * [`variant`]: nodes that are broken on purpose, which the scenarios must notice.
//! * [`trace`]: what happened, line by line.
//! * [`builds`]: what is built, and what a fault makes of it.
//! * [`figures`]: many worlds, and what is measured in them, as plots.
//! * [`measures`]: what is measured in one world.
//! * [`plot`]: lines over places, as SVG and as a table.
//! * [`seed`]: chance, the same on every machine.
//!
//! The peer, the ledger, the policy and the verdict are those of `trust`, as every node has them.
//! What is around them is a model: see `docs/simulations.md` for what it leaves out. Knows
//! `protocol` and `trust` only.
#![forbid(unsafe_code)]

pub mod builds;
mod disk;
mod faults;
pub mod figures;
pub mod invariants;
mod judge;
pub mod measures;
mod network;
mod node;
mod notary;
pub mod plot;
pub mod scenario;
pub mod seed;
pub mod trace;
pub mod variant;
pub mod world;
