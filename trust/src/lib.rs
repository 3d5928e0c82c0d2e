//! Judgement: who counts, how many must agree, what is accepted and why.
//!
//! ```text
//! trust.json ─▶ roster ─┬───────────▶ policy ── View ──┐
//! evidence ─▶ standing ─┴▶ ledger ── Claims ───────────┴▶ verdict ─▶ resolve (a whole graph)
//!                          ▲ records of one action                └▶ coalition (who could fool it)
//! ```
//!
//! * [`limits`]: every limit, in one table.
//! * [`roster`]: who counts, by which name.
//! * [`standing`]: what is known against a key.
//! * [`ledger`]: from what is known of an action to at most one claim of each voter.
//! * [`policy`]: how many of whom must agree.
//! * [`verdict`]: whether outputs are accepted; the only place where that is decided.
//! * [`resolve`]: a whole graph, by hashes alone.
//! * [`coalition`]: who could make this machine accept what is wrong.
//! * [`peer`]: what a node asks others, tells them, and passes on.
//! * [`rebuild`]: what a rebuilder executes next.
//! * [`audit`]: who disagrees about an action, and how grave that is.
//! * [`agreement`]: whether executions of one action agree, and if not, which sides there are.
//!
//! Pure on purpose: no I/O, no async, no clock, no randomness. Everything here compiles for
//! `wasm32-unknown-unknown`, so that a browser can judge what a node can judge.
#![forbid(unsafe_code)]

pub mod agreement;
pub mod audit;
pub mod coalition;
pub mod date;
pub mod ledger;
pub mod limits;
pub mod peer;
pub mod policy;
pub mod rebuild;
pub mod resolve;
pub mod roster;
mod seats;
pub mod standing;
mod suggest;
pub mod verdict;
