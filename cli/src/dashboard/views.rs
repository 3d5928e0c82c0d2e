//! The pages: what each shows, and nothing of how it is asked for.

pub(super) mod attesters;
pub(super) mod builds;
pub(super) mod disagreements;
pub(super) mod overview;
pub(super) mod packages;
pub(super) mod policy;

use maud::Markup;
use trust::verdict::Outcome;

use super::page;
use crate::commands::why;

/// Rows of a list in one part.
const ROWS: usize = 100;

/// One part of a list, counted from 1, and how many there are.
fn part<T>(all: &[T], part: usize) -> (&[T], usize, usize) {
    let of = all.len().div_ceil(ROWS).max(1);
    let part = part.clamp(1, of);
    (all.chunks(ROWS).nth(part - 1).unwrap_or_default(), part, of)
}

/// What an outcome is called, with its sign.
fn outcome(outcome: &Outcome) -> Markup {
    let (style, sign, word) = why::mark(outcome);
    page::styled(style, &format!("{sign} {word}"))
}
