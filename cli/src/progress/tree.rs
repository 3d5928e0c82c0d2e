//! The tree: what runs, with the ends of the logs where there is room, what comes next, and how much
//! there is of each; never more lines than the terminal can paint over.
//!
//! ```text
//! lua
//! ├─ ▶ lua-lvm 2.1 s  lvm.c:1200: warning: …
//! │      lvm.c:1100: note: …
//! ├─ ↓ zlib-src 0.3 s  120.0 KiB of 1.4 MiB
//! ├─ ⏸ lua-lapi
//! └─ ⏸ and 12 more
//! ∑ 2 running, 13 waiting, 20 done 6.0 s
//! ```
//!
//! What is done is said above the tree, a line each, and stays there. Of what waits for hashes that
//! are not known yet it is open whether it is executed at all: that is what *perhaps* means.

use std::time::Instant;

use super::{
    Line,
    state::{Running, State},
};
use crate::output::{Style, duration};

/// Names of what waits that are shown at most.
const NEXT: usize = 5;

/// Lines of the terminal that are left to what is said above.
const ABOVE: usize = 4;

/// The lines to paint, none if nothing runs. There are fewer than `height`, and none takes more than
/// `width` columns, so that they can be painted over.
pub(super) fn lines(state: &State, now: Instant, width: usize, height: usize) -> Vec<Line> {
    if state.running.is_empty() {
        return Vec::new();
    }
    // The last line of a terminal is where the cursor stands.
    let room = height.saturating_sub(ABOVE + 1).clamp(1, height.saturating_sub(1).max(1));
    let mut lines = Vec::new();
    if room > 2 {
        lines.push(Line::default().styled(Style::Bold, &state.root));
        branches(state, now, room - 2, &mut lines);
    }
    lines.push(sum(state, now));
    lines.into_iter().map(|line| cut(line, width.saturating_sub(1))).collect()
}

/// What hangs on the root, in at most `room` lines, at least one.
fn branches(state: &State, now: Instant, room: usize, lines: &mut Vec<Line>) {
    let mut running: Vec<_> = state.running.values().collect();
    running.sort_by_key(|running| running.begun);
    let waiting = state.waiting();
    let next = state.next.len().min(NEXT).min(waiting);
    // A line each for what runs, else for all but the last, which says how many they are.
    let shown = if running.len() <= room { running.len() } else { room - 1 };
    let mut left = room - shown - usize::from(running.len() > shown);
    let named = match left {
        _ if waiting <= next && next <= left => next,
        _ => next.min(left.saturating_sub(1)),
    };
    let more = waiting - named;
    left -= named.min(left);
    let says_more = more > 0 && left > 0;
    left -= usize::from(says_more);
    let mut branch =
        Branches { lines, left: shown + usize::from(running.len() > shown) + named + usize::from(says_more) };
    for (n, one) in running[..shown].iter().enumerate() {
        // What is left goes to the logs, evenly.
        let tail = (left / (shown - n)).min(earlier(one).len());
        left -= tail;
        branch.add(head(one, now));
        branch.below(earlier(one).iter().rev().take(tail).rev());
    }
    if running.len() > shown {
        branch.add(Line::default().plain(format!("and {} more", running.len() - shown)));
    }
    let wait = || Line::default().styled(Style::Dim, "⏸ ");
    for name in &state.next[..named] {
        branch.add(wait().plain(name));
    }
    if says_more {
        branch.add(wait().plain(if named > 0 {
            format!("and {more} more")
        } else {
            format!("{more} waiting")
        }));
    }
}

/// The lines of a log before the one that says what it does.
fn earlier(running: &Running) -> Vec<&str> {
    let tail = running.tail.iter().map(String::as_str);
    let mut tail: Vec<_> = tail.collect();
    if tail.last() == Some(&running.doing.as_str()) {
        tail.pop();
    }
    tail
}

fn head(running: &Running, now: Instant) -> Line {
    Line::default()
        .styled(Style::Busy, if running.fetches { "↓ " } else { "▶ " })
        .plain(format!("{} ", running.name))
        .styled(Style::Dim, format!("{}  {}", duration(now - running.begun), running.doing))
}

fn sum(state: &State, now: Instant) -> Line {
    let perhaps = match state.undecided {
        0 => String::new(),
        n => format!(" ({n} perhaps)"),
    };
    let mut line = Line::default()
        .styled(Style::Dim, "∑ ")
        .plain(format!("{} running, {} waiting{perhaps}, ", state.running.len(), state.waiting()))
        .styled(Style::Good, state.done.to_string())
        .plain(" done");
    if state.failed > 0 {
        line = line.plain(", ").styled(Style::Error, format!("{} failed", state.failed));
    }
    line.styled(Style::Dim, format!(" {}", duration(now - state.begun)))
}

/// Lines with the branches before them.
struct Branches<'l> {
    lines: &'l mut Vec<Line>,
    /// Branches that are still to come.
    left: usize,
}

impl Branches<'_> {
    fn add(&mut self, line: Line) {
        self.left = self.left.saturating_sub(1);
        self.push(if self.left == 0 { "└─ " } else { "├─ " }, line);
    }

    fn below<'s>(&mut self, lines: impl Iterator<Item = &'s &'s str>) {
        let trunk = if self.left == 0 { "       " } else { "│      " };
        lines.for_each(|line| self.push(trunk, Line::default().styled(Style::Dim, *line)));
    }

    fn push(&mut self, before: &str, Line(pieces): Line) {
        self.lines.push(Line([(None, before.to_owned())].into_iter().chain(pieces).collect()));
    }
}

/// At most `width` columns of a line. What is not ASCII, nor one of our own marks, may take two.
fn cut(Line(pieces): Line, width: usize) -> Line {
    let columns = |c: char| if c.is_ascii() || "├└│─▶↓⏸∑…".contains(c) { 1 } else { 2 };
    let mut left = width;
    let mut cut = Vec::new();
    for (style, text) in pieces {
        let fits = |c: &char| {
            let fits = columns(*c) <= left;
            left = if fits { left - columns(*c) } else { 0 };
            fits
        };
        cut.push((style, text.chars().take_while(fits).collect()));
    }
    Line(cut)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use node::schedule::Counts;
    use protocol::name::Name;

    use super::{
        super::state::tests::{begin, log},
        *,
    };

    /// A build of `running` and `waiting` that began three seconds ago.
    fn state(running: &[&str], waiting: &[&str], more: usize) -> (State, Instant) {
        let begun = Instant::now();
        let mut state = State::new("all".into(), begun);
        let names: Vec<_> = waiting.iter().map(|name| Name::new(*name).unwrap()).collect();
        let needed = running.len() + waiting.len() + more;
        state.counted(&Counts { needed: needed + 7, done: 7, undecided: 0, next: names.iter().collect() });
        for (n, name) in running.iter().enumerate() {
            begin(&mut state, n as u8, name, false, begun + Duration::from_millis(n as u64));
        }
        (state, begun + Duration::from_secs(3))
    }

    #[track_caller]
    fn check((state, now): &(State, Instant), width: usize, height: usize, expected: &str) {
        let found: Vec<_> = lines(state, *now, width, height).iter().map(Line::text).collect();
        let expected: Vec<_> =
            expected.lines().map(|line| line.trim_start_matches(' ')).filter(|l| !l.is_empty()).collect();
        assert_eq!(found.iter().map(|line| line.trim_start()).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn what_runs_and_what_waits() {
        check(
            &state(&["a", "b"], &["c", "d"], 0),
            80,
            24,
            "
            all
            ├─ ▶ a 3.0 s\u{20}\u{20}
            ├─ ▶ b 3.0 s\u{20}\u{20}
            ├─ ⏸ c
            └─ ⏸ d
            ∑ 2 running, 2 waiting, 7 done 3.0 s",
        );
        check(
            &state(&["a"], &["b", "c", "d", "e", "f", "g", "h"], 90),
            80,
            24,
            "
            all
            ├─ ▶ a 3.0 s\u{20}\u{20}
            ├─ ⏸ b
            ├─ ⏸ c
            ├─ ⏸ d
            ├─ ⏸ e
            ├─ ⏸ f
            └─ ⏸ and 92 more
            ∑ 1 running, 97 waiting, 7 done 3.0 s",
        );
        check(&state(&[], &["b"], 0), 80, 24, "");
        let (mut perhaps, now) = state(&["a"], &["b"], 0);
        perhaps.undecided = 12;
        check(
            &(perhaps, now),
            80,
            24,
            "
            all
            ├─ ▶ a 3.0 s\u{20}\u{20}
            ├─ ⏸ b
            └─ ⏸ and 12 more
            ∑ 1 running, 13 waiting (12 perhaps), 7 done 3.0 s",
        );
    }

    #[test]
    fn logs_get_what_room_there_is() {
        let (mut one, now) = state(&["a"], &["b"], 0);
        log(&mut one, 0, "1\n2\n3\n4\n");
        let one = (one, now);
        check(
            &one,
            80,
            24,
            "
            all
            ├─ ▶ a 3.0 s  4
            │      1
            │      2
            │      3
            └─ ⏸ b
            ∑ 1 running, 1 waiting, 7 done 3.0 s",
        );
        check(
            &one,
            80,
            10,
            "
            all
            ├─ ▶ a 3.0 s  4
            │      3
            └─ ⏸ b
            ∑ 1 running, 1 waiting, 7 done 3.0 s",
        );
        check(
            &one,
            80,
            8,
            "
            all
            └─ ▶ a 3.0 s  4
            ∑ 1 running, 1 waiting, 7 done 3.0 s",
        );
        check(
            &one,
            14,
            8,
            "
            all
            └─ ▶ a 3.0 s\u{20}
            ∑ 1 running,\u{20}",
        );
    }

    #[test]
    fn more_than_fits_is_counted() {
        let names: Vec<_> = (0..50).map(|n| format!("n{n}")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        check(
            &state(&names, &["w"], 10),
            80,
            10,
            "
            all
            ├─ ▶ n0 3.0 s\u{20}\u{20}
            ├─ ▶ n1 3.0 s\u{20}\u{20}
            └─ and 48 more
            ∑ 50 running, 11 waiting, 7 done 3.0 s",
        );
    }

    /// Whatever there is and however small the terminal, what is painted can be painted over.
    #[test]
    fn the_terminal_is_never_too_small() {
        let names: Vec<_> = (0..40).map(|n| format!("name-{n}")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        for running in 1..40 {
            for waiting in [0, 1, 3, 20] {
                let (mut state, now) = state(&names[..running], &names[..waiting], waiting * 3);
                for n in 0..running {
                    log(&mut state, n as u8, &"日本語 and more\n".repeat(n % 8));
                }
                for height in 1..40 {
                    for width in [1, 2, 10, 80] {
                        let lines = lines(&state, now, width, height);
                        assert!(lines.len() < height.max(2), "{} lines on {height}", lines.len());
                        for line in &lines {
                            let text = line.text();
                            let wide = text.chars().filter(|c| ('\u{3000}'..'\u{a000}').contains(c)).count();
                            assert!(text.chars().count() + wide < width.max(2), "{text:?} on {width}");
                        }
                    }
                }
            }
        }
    }
}
