//! What runs, what waits, what is done: from events, without a clock or a terminal.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use node::{
    attest::Attested, build::Progress as Building, fetch::Progress as Fetching, realise::Event,
    schedule::Counts,
};
use protocol::id::DerivationId;

use super::Line;
use crate::output::{Style, bytes, duration, plain};

/// Elsewhere than on a terminal: how often one is told that something still runs.
const REMINDER: Duration = Duration::from_secs(10);

/// Characters of a name; a longer one is cut.
const NAME: usize = 32;

/// Characters of a line of a log; a longer one is cut.
const LINE: usize = 400;

/// Lines of a log that are remembered.
pub(super) const TAIL: usize = 6;

/// All that is known of a realisation that goes on.
pub(super) struct State {
    pub(super) root: String,
    pub(super) begun: Instant,
    pub(super) running: BTreeMap<DerivationId, Running>,
    pub(super) failed: usize,
    pub(super) needed: usize,
    pub(super) done: usize,
    /// Derivations of which it is not known yet whether they are needed.
    pub(super) undecided: usize,
    /// What is executed next, as far as it is known.
    pub(super) next: Vec<String>,
}

/// An execution that goes on.
pub(super) struct Running {
    pub(super) name: String,
    pub(super) begun: Instant,
    pub(super) fetches: bool,
    /// What it is doing; a build that writes to its log does what its last line says.
    pub(super) doing: String,
    /// The last lines of its log, the latest at the end.
    pub(super) tail: VecDeque<String>,
    /// The unfinished last line of its log.
    line: Vec<u8>,
    reminded: Instant,
}

/// Something to be said once.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// That something began, which a tree shows anyway.
    Began(Line),
    /// Anything else.
    Worth(Line),
}

/// What is said if this machine's feed says something else of an action.
pub(super) fn contradiction(place: u64) -> String {
    format!("not attested: place {place} of this machine's feed says something else")
}

impl State {
    pub(super) fn new(root: String, now: Instant) -> Self {
        let (running, next) = (BTreeMap::new(), Vec::new());
        Self { root, begun: now, running, failed: 0, needed: 0, done: 0, undecided: 0, next }
    }

    /// What neither runs nor is over; of some it is undecided whether they are needed.
    pub(super) fn waiting(&self) -> usize {
        self.undecided + self.needed.saturating_sub(self.done + self.running.len() + self.failed)
    }

    pub(super) fn counted(&mut self, counts: &Counts<'_>) {
        (self.needed, self.done, self.undecided) = (counts.needed, counts.done, counts.undecided);
        self.next = counts.next.iter().map(|name| short(name.as_str())).collect();
    }

    /// Takes an event, and gives what is to be said of it.
    pub(super) fn happened(&mut self, id: &DerivationId, event: Event<'_>, now: Instant) -> Option<Said> {
        match event {
            Event::Began { name, fetches, .. } => {
                let name = short(name.as_str());
                let said = Line::default().plain(format!("{} {name}", verb(fetches)));
                let running = Running {
                    name,
                    begun: now,
                    fetches,
                    doing: String::new(),
                    tail: VecDeque::new(),
                    line: Vec::new(),
                    reminded: now,
                };
                self.running.insert(*id, running);
                Some(Said::Began(said))
            }
            Event::Building(progress) => self.running.get_mut(id)?.build(progress),
            Event::Fetching(progress) => {
                self.running.get_mut(id)?.doing = fetching(progress);
                None
            }
            Event::Substituting { done, total } => {
                self.running.get_mut(id)?.doing = format!("{} of {} from others", bytes(done), bytes(total));
                None
            }
            Event::NotSubstituted(error) => {
                self.running.remove(id)?;
                let line = Line::default().styled(Style::Busy, "!");
                Some(Said::Worth(line.plain(plain(&format!(" {error}: it is built here")))))
            }
            Event::Substituted(time) => self.ended(id, "had from others", time),
            Event::Ended(time) => {
                let past = if self.running.get(id)?.fetches { "fetched" } else { "built" };
                self.ended(id, past, time)
            }
            Event::Failed(_) => {
                let Running { name, fetches, .. } = self.running.remove(id)?;
                self.failed += 1;
                let line = Line::default().styled(Style::Error, "✘");
                Some(Said::Worth(line.plain(format!(" {} {name} failed", verb(fetches)))))
            }
            Event::Attested(Attested::Contradicts { place }) => {
                let line = Line::default().styled(Style::Busy, "!");
                Some(Said::Worth(line.plain(format!(" {}", contradiction(*place)))))
            }
            Event::Attested(_) => None,
            Event::NotAttested(error) => {
                let line = Line::default().styled(Style::Busy, "!");
                Some(Said::Worth(line.plain(format!(" not attested: {error}"))))
            }
        }
    }

    fn ended(&mut self, id: &DerivationId, past: &str, time: Duration) -> Option<Said> {
        let Running { name, .. } = self.running.remove(id)?;
        let line = Line::default().styled(Style::Good, "✔").plain(format!(" {past} {name} "));
        Some(Said::Worth(line.styled(Style::Dim, duration(time))))
    }

    /// A line for each execution of which nothing was said for [`REMINDER`].
    pub(super) fn reminders(&mut self, now: Instant) -> Vec<String> {
        let due = self.running.values_mut().filter(|running| now - running.reminded >= REMINDER);
        let line = |running: &mut Running| {
            running.reminded = now;
            let since = duration(now - running.begun);
            format!("still {} {} ({since}) {}", verb(running.fetches), running.name, running.doing)
        };
        due.map(line).collect()
    }
}

fn verb(fetches: bool) -> &'static str {
    if fetches { "fetching" } else { "building" }
}

fn short(name: &str) -> String {
    name.chars().take(NAME).collect()
}

fn fetching(progress: Fetching) -> String {
    match progress {
        Fetching::Bytes { done, total: Some(total) } => format!("{} of {}", bytes(done), bytes(total)),
        Fetching::Bytes { done, total: None } => bytes(done),
        Fetching::Trying { location } => plain(&location),
        Fetching::Resuming { at } => format!("resuming at {}", bytes(at)),
        Fetching::Verifying => "verifying".into(),
        Fetching::Running { client } => format!("{client} looks it up"),
    }
}

impl Running {
    /// Takes a build's progress; a compilation is worth a line of its own, because it is long and
    /// happens once.
    fn build(&mut self, progress: Building<'_>) -> Option<Said> {
        match progress {
            Building::Compiling { module, bytes: size } => {
                let name = module.rsplit('/').next().unwrap_or(module);
                self.doing =
                    plain(&format!("compiling {name} to machine code ({}), once", bytes(size as u64)));
                return Some(Said::Worth(Line::default().plain(format!("  {}: {}", self.name, self.doing))));
            }
            Building::Step { step, of } => self.doing = format!("step {step} of {of}"),
            Building::Log(log) => self.log(log),
        }
        None
    }

    fn log(&mut self, log: &[u8]) {
        let mut lines = log.split(|b| *b == b'\n');
        // There is a first one always: the rest of the line that is unfinished.
        self.extend(lines.next().unwrap_or_default());
        for next in lines {
            self.finish_line();
            self.extend(next);
        }
        let unfinished = shown(&self.line);
        if let Some(last) = unfinished.or_else(|| self.tail.back().cloned()) {
            self.doing = last;
        }
    }

    fn extend(&mut self, bytes: &[u8]) {
        let room = LINE.saturating_sub(self.line.len());
        self.line.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn finish_line(&mut self) {
        if let Some(line) = shown(&self.line) {
            self.tail.push_back(line);
            if self.tail.len() > TAIL {
                self.tail.pop_front();
            }
        }
        self.line.clear();
    }
}

/// A line of a log as it may go to a terminal; nothing if there is nothing in it.
fn shown(line: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(line).replace('\t', " ");
    let text = text.trim_end();
    (!text.is_empty()).then(|| plain(text))
}

#[cfg(test)]
pub(super) mod tests {
    use node::realise::RealiseError;
    use protocol::{id::ActionId, name::Name};

    use super::*;

    /// The derivation number `n`.
    pub(in super::super) fn id(n: u8) -> DerivationId {
        DerivationId::from_bytes([n; 32])
    }

    /// Begins to build, or to fetch, the derivation `n`.
    pub(in super::super) fn begin(state: &mut State, n: u8, name: &str, fetches: bool, now: Instant) {
        let (name, action) = (Name::new(name).unwrap(), ActionId::from_bytes([n; 32]));
        let said = state.happened(&id(n), Event::Began { name: &name, action, fetches }, now);
        assert!(matches!(said, Some(Said::Began(_))));
    }

    /// What the derivation `n` writes to its log.
    pub(in super::super) fn log(state: &mut State, n: u8, text: &str) {
        let event = Event::Building(Building::Log(text.as_bytes()));
        assert_eq!(state.happened(&id(n), event, Instant::now()), None);
    }

    #[track_caller]
    fn says(said: Option<Said>, expected: &str) {
        let Some(Said::Worth(line)) = said else { panic!("{said:?}") };
        assert_eq!(line.text(), expected);
    }

    #[test]
    fn executions_come_and_go() {
        let now = Instant::now();
        let mut state = State::new("all".into(), now);
        let names = ["c", "d"].map(|name| Name::new(name).unwrap());
        state.counted(&Counts { needed: 5, done: 0, undecided: 3, next: names.iter().collect() });
        begin(&mut state, 1, "a", false, now);
        begin(&mut state, 2, "b", true, now);
        assert_eq!((state.waiting(), state.undecided, state.next.len()), (6, 3, 2));
        says(state.happened(&id(2), Event::Ended(Duration::from_millis(1500)), now), "✔ fetched b 1.5 s");
        let error = RealiseError::Io { what: "look", source: std::io::Error::other("no") };
        says(state.happened(&id(1), Event::Failed(&error), now), "✘ building a failed");
        state.counted(&Counts { needed: 5, done: 1, undecided: 0, next: vec![] });
        assert_eq!((state.running.len(), state.failed, state.waiting()), (0, 1, 3));
        // What nobody began is nothing.
        assert_eq!(state.happened(&id(9), Event::Ended(Duration::ZERO), now), None);
        let compiling = Building::Compiling { module: "/in/x/bin/x.wasm", bytes: 2048 };
        begin(&mut state, 3, "c", false, now);
        let said = state.happened(&id(3), Event::Building(compiling), now);
        says(said, "  c: compiling x.wasm to machine code (2.0 KiB), once");
    }

    #[test]
    fn the_end_of_a_log_is_remembered() {
        let now = Instant::now();
        let mut state = State::new("all".into(), now);
        begin(&mut state, 1, "a", false, now);
        let doing = |state: &State| state.running[&id(1)].doing.clone();
        log(&mut state, 1, "one\ntw");
        assert_eq!(doing(&state), "tw");
        log(&mut state, 1, "o\n\n  \n");
        assert_eq!(doing(&state), "two");
        assert_eq!(state.running[&id(1)].tail, ["one", "two"]);
        log(&mut state, 1, "\x1b[31mred\ttape\r\n");
        assert_eq!(doing(&state), "\\u{1b}[31mred tape");
        for n in 0..100 {
            log(&mut state, 1, &format!("{n}\n"));
        }
        assert_eq!(
            state.running[&id(1)].tail.iter().map(String::as_str).collect::<Vec<_>>().join(" "),
            "94 95 96 97 98 99"
        );
        // However long a line is, little of it is kept.
        log(&mut state, 1, &"x".repeat(1 << 20));
        assert_eq!(doing(&state).len(), LINE);
    }

    #[test]
    fn one_is_reminded_now_and_then() {
        let begun = Instant::now();
        let mut state = State::new("all".into(), begun);
        begin(&mut state, 1, "a", false, begun);
        let at = |seconds| begun + Duration::from_secs(seconds);
        assert_eq!(state.reminders(at(9)), [""; 0]);
        assert_eq!(state.reminders(at(12)), ["still building a (12 s) "]);
        assert_eq!(state.reminders(at(21)), [""; 0]);
        assert_eq!(state.reminders(at(22)).len(), 1);
    }
}
