//! Applying hunks to the content of one file.

use super::diff::Hunk;

/// `content` with all of `hunks` applied, in their order.
///
/// # Errors
///
/// The index of the first hunk whose old lines are nowhere at or after the end of the one before.
pub(super) fn hunks(hunks: &[Hunk<'_>], content: &[u8]) -> Result<Vec<u8>, usize> {
    let lines: Vec<&[u8]> = content.split_inclusive(|byte| *byte == b'\n').collect();
    let mut after = Vec::with_capacity(content.len());
    let mut done = 0; // Lines that are copied or replaced.
    let mut expected_shift = 0; // By how many lines the hunk before was off.
    for (index, hunk) in hunks.iter().enumerate() {
        let at = position(hunk, &lines, done, expected_shift).ok_or(index)?;
        expected_shift = at as isize - hunk.first_line() as isize;
        after.extend(lines[done..at].iter().copied().flatten());
        after.extend(hunk.new.iter().copied().flatten());
        done = at + hunk.old.len();
    }
    after.extend(lines[done..].iter().copied().flatten());
    Ok(after)
}

/// Where in `lines`, not before `from`, the old lines of `hunk` are: the place that is nearest to
/// where its header says, shifted by `shift`. Of two at one distance, the later.
fn position(hunk: &Hunk<'_>, lines: &[&[u8]], from: usize, shift: isize) -> Option<usize> {
    let last = lines.len().checked_sub(hunk.old.len())?;
    if hunk.old.is_empty() {
        // Nothing to recognise the place by, so it must be right.
        let expected = hunk.first_line().checked_add_signed(shift)?;
        return (from <= expected && expected <= last).then_some(expected);
    }
    let expected = hunk.first_line().saturating_add_signed(shift);
    if from > last {
        return None;
    }
    let expected = expected.clamp(from, last);
    (0..=last - from)
        .flat_map(|distance| {
            [
                expected.checked_add(distance),
                expected.checked_sub(distance),
            ]
        })
        .flatten()
        .filter(|at| (from..=last).contains(at))
        .find(|at| lines[*at..].starts_with(&hunk.old))
}
