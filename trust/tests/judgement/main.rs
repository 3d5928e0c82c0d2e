//! Judgement, from signed statements to verdicts.
//!
//! * [`counting`]: the ways in which other systems were found to miscount, each as a test.
//! * [`chains`]: keys that succeed each other, and names that share them.
//! * [`policies`]: what a policy may say.
//! * [`manual`]: the examples of `docs/policy.md`.
//! * [`resolution`]: whole graphs, by hashes alone.
//! * [`coalitions`]: who could fool a policy, against trying everybody.
//! * [`oracle`]: `judge` against another, naive judge, ten thousand random cases at a time.

mod chains;
mod coalitions;
mod counting;
mod disputes;
mod manual;
mod oracle;
mod policies;
mod resolution;
mod support;
