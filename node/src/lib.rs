//! Hands of Assize: evaluates, fetches, builds and runs.

pub mod eval;
