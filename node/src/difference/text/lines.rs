//! Lines: which of two texts are the same.
//!
//! Myers' algorithm, even with the bounds that git puts on it, takes a time that grows with the
//! square of texts in which the same few lines come again and again: 20 s for 100,000 of them. So
//! lines that both texts have exactly once, in an order that both have, are taken as the same
//! first. What is between two of them is compared by Myers, in pieces that are never large.

use std::{collections::HashMap, ops::Range};

use imara_diff::{Algorithm, Diff, InternedInput};

/// Lines of a piece. Its comparison takes some milliseconds at most.
const PIECE: usize = 1000;

/// Lines of the left that are replaced by lines of the right; one of them may be none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) left: Range<usize>,
    pub(super) right: Range<usize>,
}

/// What changed from `left` to `right`, in order, with something common between any two changes.
pub(super) fn changes(left: &[&str], right: &[&str]) -> Vec<Change> {
    let mut changes = Changes(Vec::new());
    let (mut l, mut r) = (0, 0);
    for (to_left, to_right) in anchors(left, right).into_iter().chain([(left.len(), right.len())]) {
        // What is between two anchors, in pieces side by side.
        while l < to_left || r < to_right {
            let piece = l..to_left.min(l + PIECE);
            let other = r..to_right.min(r + PIECE);
            (l, r) = (piece.end, other.end);
            changes.piece(left, right, piece, other);
        }
        (l, r) = (to_left + 1, to_right + 1);
    }
    changes.0
}

struct Changes(Vec<Change>);

impl Changes {
    fn piece(&mut self, left: &[&str], right: &[&str], l: Range<usize>, r: Range<usize>) {
        if l.is_empty() || r.is_empty() {
            return self.push(Change { left: l, right: r });
        }
        let mut input = InternedInput::default();
        input.update_before(left[l.clone()].iter().copied());
        input.update_after(right[r.clone()].iter().copied());
        let mut diff = Diff::compute(Algorithm::Myers, &input);
        diff.postprocess_lines(&input);
        let at = |range: Range<u32>, from: usize| range.start as usize + from..range.end as usize + from;
        for hunk in diff.hunks() {
            self.push(Change { left: at(hunk.before, l.start), right: at(hunk.after, r.start) });
        }
    }

    /// Adds a change, which may be the rest of the one before.
    fn push(&mut self, change: Change) {
        match self.0.last_mut() {
            Some(last) if last.left.end == change.left.start && last.right.end == change.right.start => {
                (last.left.end, last.right.end) = (change.left.end, change.right.end);
            }
            _ => self.0.push(change),
        }
    }
}

/// Where a line is, and how often.
#[derive(Default)]
struct Seen {
    left: usize,
    right: usize,
    times_left: usize,
    times_right: usize,
}

/// Lines that both have once: the most of them that are in the same order in both.
fn anchors(left: &[&str], right: &[&str]) -> Vec<(usize, usize)> {
    let mut seen: HashMap<&str, Seen> = HashMap::new();
    for (at, line) in left.iter().enumerate() {
        let seen = seen.entry(line).or_default();
        (seen.left, seen.times_left) = (at, seen.times_left + 1);
    }
    for (at, line) in right.iter().enumerate() {
        if let Some(seen) = seen.get_mut(line) {
            (seen.right, seen.times_right) = (at, seen.times_right + 1);
        }
    }
    let once = left.iter().filter_map(|line| seen.get(line));
    let once = once.filter(|seen| seen.times_left == 1 && seen.times_right == 1);
    ascending(&once.map(|seen| (seen.left, seen.right)).collect::<Vec<_>>())
}

/// The longest part of pairs that ascend on the left, that ascends on the right as well.
fn ascending(pairs: &[(usize, usize)]) -> Vec<(usize, usize)> {
    // For each length, the pair that ends such a part with the smallest right; and before whom it is.
    let mut ends: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = Vec::with_capacity(pairs.len());
    for (n, (_, right)) in pairs.iter().enumerate() {
        let length = ends.partition_point(|end| pairs[*end].1 < *right);
        before.push(length.checked_sub(1).map(|shorter| ends[shorter]));
        match ends.get_mut(length) {
            Some(end) => *end = n,
            None => ends.push(n),
        }
    }
    let mut found = Vec::with_capacity(ends.len());
    let mut next = ends.last().copied();
    while let Some(n) = next {
        found.push(pairs[n]);
        next = before[n];
    }
    found.reverse();
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Lines outside of all changes, which must be the same on both sides.
    fn rest<'a>(lines: &[&'a str], changes: impl Iterator<Item = Range<usize>>) -> Vec<&'a str> {
        let mut changed = vec![false; lines.len()];
        changes.for_each(|range| changed[range].fill(true));
        lines.iter().zip(changed).filter(|(_, changed)| !changed).map(|(line, _)| *line).collect()
    }

    fn lines() -> impl Strategy<Value = Vec<&'static str>> {
        let line = prop::sample::select(vec!["a\n", "b\n", "c\n", "d\n", "e\n", "f\n", "g\n", "h\n", "\n"]);
        prop::collection::vec(line, 0..30)
    }

    proptest! {
        /// Where nothing changed both have the same lines, and changes are in order and apart.
        #[test]
        fn changes_are_all_that_changed(left in lines(), right in lines()) {
            let changes = changes(&left, &right);
            prop_assert_eq!(changes.is_empty(), left == right);
            for two in changes.windows(2) {
                prop_assert!(two[0].left.end < two[1].left.start && two[0].right.end < two[1].right.start);
            }
            let outside_left = rest(&left, changes.iter().map(|change| change.left.clone()));
            let outside_right = rest(&right, changes.iter().map(|change| change.right.clone()));
            prop_assert_eq!(outside_left, outside_right);
        }
    }

    /// Texts on which other algorithms take a time that grows with the square.
    #[test]
    fn no_text_takes_long() {
        let mix = |n: u64, by: u64, of: u64| (n.wrapping_mul(by) >> 33) % of;
        let (a, b) = (0x9e37_79b9_7f4a_7c15, 0xd1b5_4a32_d192_ed03);
        let check = |name: &str, left: &dyn Fn(u64) -> u64, right: &dyn Fn(u64) -> u64| {
            let text = |line: &dyn Fn(u64) -> u64| {
                (0..100_000).map(|n| format!("{}\n", line(n))).collect::<Vec<_>>()
            };
            let (left, right) = (text(left), text(right));
            let (left, right): (Vec<&str>, Vec<&str>) =
                (left.iter().map(|l| l.as_str()).collect(), right.iter().map(|l| l.as_str()).collect());
            let begun = std::time::Instant::now();
            assert!(!changes(&left, &right).is_empty());
            assert!(begun.elapsed().as_secs() < 8, "{name}: {:?}", begun.elapsed());
            println!("{name}: {:?}", begun.elapsed());
        };
        check("every second line", &|n| n * 2, &|n| n * 2 + n % 2);
        check("reversed", &|n| n, &|n| 100_000 - n);
        check("permuted", &|n| n, &|n| n * 7919 % 100_000);
        check("two lines", &|n| mix(n, a, 2), &|n| mix(n, b, 2));
        check("ten lines", &|n| mix(n, a, 10), &|n| mix(n, b, 10));
        check("a thousand lines", &|n| mix(n, a, 1000), &|n| mix(n, b, 1000));
        check("as many lines", &|n| mix(n, a, 100_000), &|n| mix(n, b, 100_000));
    }
}
