//! Judgement: what to make of what executions gave. Pure: no I/O, no async, no clock, no randomness.
//!
//! * [`agreement`]: whether executions of one action agree, and if not, which sides there are.
#![forbid(unsafe_code)]

pub mod agreement;
