//! Text: files in UTF-8 without NUL, line by line.
//!
//! Lines that both have at the beginning and at the end are stepped over without being kept, so
//! two long texts with one difference cost their reading. Of what is between, `lines.rs` says what
//! changed.

mod lines;

use std::ops::Range;

use protocol::plain;
use serde::Serialize;

use self::lines::Change;
use super::{Sides, bytes, limits};

/// Where two texts differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Text {
    /// What differs, with the lines around it.
    pub hunks: Vec<Hunk>,
    /// Changed lines that are not shown, of those that were compared.
    pub omitted: Sides<u64>,
    /// Bytes that were not compared: what is behind more differences than can be looked at.
    pub uncompared: Sides<u64>,
}

/// Lines that differ, with some that do not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Hunk {
    /// Number of the first line, counted from 1.
    pub starts: Sides<u64>,
    /// The lines.
    pub lines: Vec<Line>,
}

/// A line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    /// Who has it.
    pub kind: LineKind,
    /// Its text without the end, plain (`protocol::plain`).
    pub text: String,
    /// Bytes that are left out before `text`.
    pub before: u64,
    /// Bytes that are left out after it.
    pub after: u64,
    /// Whether there is an end: the last line of a text may have none.
    pub ended: bool,
}

/// Who has a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum LineKind {
    /// Both.
    Common,
    /// The first.
    Left,
    /// The second.
    Right,
}

/// Whether a file is text.
pub(super) fn is_text(bytes: &[u8]) -> bool {
    !bytes.contains(&0) && str::from_utf8(bytes).is_ok()
}

/// Compares texts; `None` if they are the same, or not text.
pub(super) fn compare(left: &[u8], right: &[u8]) -> Option<Text> {
    let first = bytes::first(left, right)?;
    let (left, right) = (str::from_utf8(left).ok()?, str::from_utf8(right).ok()?);
    let between = Between::of(left, right, first);
    let (compared_left, rest_left) = compared(&left[between.from..between.to.left]);
    let (compared_right, rest_right) = compared(&right[between.from..between.to.right]);
    let changes = lines::changes(&compared_left, &compared_right);
    let compared = Sides { left: compared_left, right: compared_right };
    let mut page = Page { left, between: &between, compared: &compared, shown: 0, text: Text::new() };
    page.text.uncompared = Sides { left: rest_left as u64, right: rest_right as u64 };
    // Behind what was compared there may be more that differs, so its lines cannot be shown as common.
    page.hunks(&changes, rest_left + rest_right == 0);
    Some(page.text)
}

impl Text {
    fn new() -> Self {
        let none = Sides { left: 0, right: 0 };
        Self { hunks: Vec::new(), omitted: none, uncompared: none }
    }
}

/// What is between the lines that two texts have in common at their beginning and at their end.
struct Between {
    /// Where it begins, in both.
    from: usize,
    /// Lines before it.
    lines: u64,
    /// Where it ends.
    to: Sides<usize>,
}

impl Between {
    /// `first` is where the texts first differ.
    fn of(left: &str, right: &str, first: usize) -> Self {
        let bytes = left.as_bytes();
        let from = bytes[..first].iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let lines = bytes[..from].iter().filter(|b| **b == b'\n').count() as u64;
        let (a, b) = (&bytes[from..], &right.as_bytes()[from..]);
        let same = a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count();
        // The common end begins behind an end of line that both have.
        let tail = &a[a.len() - same..];
        let same = tail.iter().position(|b| *b == b'\n').map_or(0, |at| same - at - 1);
        let to = Sides { left: left.len() - same, right: right.len() - same };
        Self { from, lines, to }
    }
}

/// As many lines as are compared, and the bytes behind them.
fn compared(text: &str) -> (Vec<&str>, usize) {
    let lines: Vec<&str> = text.split_inclusive('\n').take(limits::TEXT_COMPARED).collect();
    let rest = text.len() - lines.iter().map(|line| line.len()).sum::<usize>();
    (lines, rest)
}

struct Page<'a> {
    left: &'a str,
    between: &'a Between,
    compared: &'a Sides<Vec<&'a str>>,
    shown: usize,
    text: Text,
}

impl Page<'_> {
    /// Makes hunks of changes; `whole` if nothing was left uncompared.
    fn hunks(&mut self, changes: &[Change], whole: bool) {
        // Lines up to which the left side is shown, counted from the first compared; a hunk that is
        // open waits for the next change.
        let (mut done, mut open) = (0, false);
        for (n, Change { left, right }) in changes.iter().enumerate() {
            if self.shown >= limits::TEXT_SHOWN {
                self.text.omitted.left += left.len() as u64;
                self.text.omitted.right += right.len() as u64;
                continue;
            }
            let gap = left.start - done;
            let context = if open { gap } else { gap.min(limits::CONTEXT) };
            if !open {
                self.begin(left, right, context);
            }
            self.common(left.start - context..left.start);
            self.changed(left.clone(), right.clone());
            done = left.end;
            let next = changes.get(n + 1).map(|next| next.left.start);
            let near = next.is_some_and(|next| next - done <= 2 * limits::CONTEXT);
            open = near && self.shown < limits::TEXT_SHOWN;
            if !open {
                self.after(done, next, whole);
            }
        }
    }

    /// Opens a hunk, with the lines that are before everything that was compared, if it is near.
    fn begin(&mut self, before: &Range<usize>, after: &Range<usize>, context: usize) {
        let wanted = if context == before.start { limits::CONTEXT - context } else { 0 };
        let above: Vec<&str> =
            self.left[..self.between.from].split_inclusive('\n').rev().take(wanted).collect();
        let start = |at: usize| self.between.lines + 1 + (at - context) as u64 - above.len() as u64;
        let starts = Sides { left: start(before.start), right: start(after.start) };
        let lines = above.iter().rev().map(|line| whole_line(LineKind::Common, line)).collect();
        self.text.hunks.push(Hunk { starts, lines });
    }

    fn push(&mut self, line: Line) {
        if let Some(hunk) = self.text.hunks.last_mut() {
            hunk.lines.push(line);
        }
    }

    fn common(&mut self, lines: Range<usize>) {
        for at in lines {
            self.push(whole_line(LineKind::Common, self.compared.left[at]));
        }
    }

    /// The lines behind a hunk: of those that were compared, up to `next`, then of those that follow.
    fn after(&mut self, done: usize, next: Option<usize>, whole: bool) {
        let end = next.unwrap_or(self.compared.left.len());
        let context = (end - done).min(limits::CONTEXT);
        self.common(done..done + context);
        if next.is_none() && whole {
            let rest = self.left[self.between.to.left..].split_inclusive('\n');
            for line in rest.take(limits::CONTEXT - context) {
                self.push(whole_line(LineKind::Common, line));
            }
        }
    }

    /// The changed lines of a hunk, as many as may be shown, each cut to what differs from its counterpart.
    fn changed(&mut self, before: Range<usize>, after: Range<usize>) {
        let (left, right) = (&self.compared.left[before], &self.compared.right[after]);
        let most = limits::TEXT_SHOWN - self.shown;
        // If not all fit, some of both sides do.
        let from_left = left.len().min(most - right.len().min(most / 2));
        let from_right = right.len().min(most - from_left);
        for (n, line) in left[..from_left].iter().enumerate() {
            self.push(cut_line(LineKind::Left, line, right.get(n)));
        }
        for (n, line) in right[..from_right].iter().enumerate() {
            self.push(cut_line(LineKind::Right, line, left.get(n)));
        }
        self.shown += from_left + from_right;
        self.text.omitted.left += (left.len() - from_left) as u64;
        self.text.omitted.right += (right.len() - from_right) as u64;
    }
}

fn whole_line(kind: LineKind, line: &str) -> Line {
    cut_line(kind, line, None)
}

/// A line, of which at most [`limits::LINE_BYTES`] are shown, from a little before it differs from `other`.
fn cut_line(kind: LineKind, line: &str, other: Option<&&str>) -> Line {
    let text = line.strip_suffix('\n');
    let ended = text.is_some();
    let text = text.unwrap_or(line);
    let differs = other.and_then(|other| bytes::first(line.as_bytes(), other.as_bytes())).unwrap_or(0);
    let from = match text.len() > limits::LINE_BYTES {
        true => differs.saturating_sub(limits::LINE_BYTES / 4).min(text.len()),
        false => 0,
    };
    let from = text.floor_char_boundary(from);
    let to = text.floor_char_boundary(from + limits::LINE_BYTES);
    Line {
        kind,
        text: plain::line(&text[from..to]),
        before: from as u64,
        after: (text.len() - to) as u64,
        ended,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The hunks as `diff -u` would write them.
    fn shown(left: &str, right: &str) -> String {
        let Some(text) = compare(left.as_bytes(), right.as_bytes()) else { return String::new() };
        let mut shown = String::new();
        for hunk in &text.hunks {
            shown += &format!("@@{},{}\n", hunk.starts.left, hunk.starts.right);
            for line in &hunk.lines {
                let sign = match line.kind {
                    LineKind::Common => ' ',
                    LineKind::Left => '-',
                    LineKind::Right => '+',
                };
                shown += &format!("{sign}{}{}\n", line.text, if line.ended { "" } else { "$" });
            }
        }
        shown
    }

    fn numbers(range: Range<usize>) -> String {
        range.map(|n| format!("{n}\n")).collect()
    }

    #[test]
    fn hunks() {
        let check = |left: &str, right: &str, expected: &str| assert_eq!(shown(left, right), expected);
        check("a\n", "a\n", "");
        check("", "a\n", "@@1,1\n+a\n");
        check("a\nb\nc\n", "a\nx\nc\n", "@@1,1\n a\n-b\n+x\n c\n");
        check("a\nb", "a\nb\n", "@@1,1\n a\n-b$\n+b\n");
        check("a\r\nb\n", "a\nb\n", "@@1,1\n-a\\u{d}\n+a\n b\n");
        check("a\n\u{202e}b\n", "a\nb\n", "@@1,1\n a\n-\\u{202e}b\n+b\n");
        let (left, right) = (numbers(1..20), numbers(1..20).replace("5\n", "five\n"));
        let first = "@@2,2\n 2\n 3\n 4\n-5\n+five\n 6\n 7\n 8\n";
        let second = "@@12,12\n 12\n 13\n 14\n-15\n+1five\n 16\n 17\n 18\n";
        check(&left, &right, &[first, second].concat());
        let near = "@@1,1\n+0\n 1\n 2\n 3\n-4\n 5\n 6\n 7\n";
        check(&left, &["0\n", &left.replacen("4\n", "", 1)].concat(), near);
    }

    #[test]
    fn a_line_that_was_inserted_leaves_the_others_alone() {
        let right = numbers(1..10_000);
        let left = right.replacen("5000\n", "", 1);
        assert_eq!(shown(&left, &right), "@@4997,4997\n 4997\n 4998\n 4999\n+5000\n 5001\n 5002\n 5003\n");
    }

    #[test]
    fn long_lines_are_cut_to_what_differs() {
        let long = "x".repeat(10 << 20);
        let (left, right) = (format!("{long}a{long}\n"), format!("{long}b{long}\n"));
        let text = compare(left.as_bytes(), right.as_bytes()).unwrap();
        let [left, right] = &text.hunks[0].lines[..] else { panic!("{text:?}") };
        assert_eq!((left.text.len(), left.before), (limits::LINE_BYTES, (10 << 20) - 60));
        assert_eq!((&left.text[60..61], &right.text[60..61]), ("a", "b"));
        assert_eq!(left.before + left.after, (20 << 20) + 1 - 240);
    }

    #[test]
    fn what_is_too_much_is_counted() {
        let (left, right) = (numbers(0..1_000_000), numbers(1_000_000..2_000_000));
        let text = compare(left.as_bytes(), right.as_bytes()).unwrap();
        let lines: usize = text.hunks.iter().map(|hunk| hunk.lines.len()).sum();
        assert_eq!(lines, limits::TEXT_SHOWN);
        let compared = (limits::TEXT_COMPARED - limits::TEXT_SHOWN / 2) as u64;
        assert_eq!(text.omitted, Sides { left: compared, right: compared });
        assert_eq!(text.uncompared, Sides { left: 900_000 * 7, right: 900_000 * 8 });
    }
}
