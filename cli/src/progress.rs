//! What is going on: a small tree that is repainted on a terminal, plain lines elsewhere.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{self, IsTerminal as _, Write as _},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use node::{
    attest::Attested,
    build::Progress as Building,
    fetch::Progress as Fetching,
    realise::{Event, Observer},
};
use protocol::id::DerivationId;

use crate::output::{Style, bytes, complain, duration, plain};

/// How often the tree is painted.
const FRAME: Duration = Duration::from_millis(100);

/// Elsewhere than on a terminal: how often one is told that something still runs.
const REMINDER: Duration = Duration::from_secs(10);

/// A name longer than this is cut.
const NAME: usize = 32;

struct Running {
    name: String,
    begun: Instant,
    fetches: bool,
    /// What it is doing.
    doing: String,
    /// The unfinished last line of its log.
    line: Vec<u8>,
    reminded: Instant,
}

#[derive(Default)]
struct State {
    running: BTreeMap<DerivationId, Running>,
    needed: usize,
    done: usize,
    failed: usize,
    /// Lines that were painted last and are to be painted over.
    painted: usize,
    /// What happened and is to be said above the tree.
    said: VecDeque<String>,
}

/// Shows what is going on while it is alive.
pub(crate) struct Display {
    shared: Arc<Shared>,
    painter: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    begun: Instant,
    root: String,
    mode: Mode,
    over: AtomicBool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Tree,
    Lines,
    Silent,
    /// One JSON object a line on stderr.
    Json,
}

impl Display {
    /// Shows progress of realising `root`.
    pub(crate) fn new(root: String, quiet: bool, json: bool) -> Self {
        let mode = match (quiet, json) {
            (true, _) => Mode::Silent,
            (_, true) => Mode::Json,
            _ if io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|t| t != "dumb") => {
                Mode::Tree
            }
            _ => Mode::Lines,
        };
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            begun: Instant::now(),
            root,
            mode,
            over: AtomicBool::new(false),
        });
        let ticking = shared.clone();
        let ticks = matches!(mode, Mode::Tree | Mode::Lines);
        let painter = ticks.then(|| std::thread::spawn(move || ticking.tick()));
        Self { shared, painter }
    }

    /// Who is to be told.
    pub(crate) fn observer(&self) -> Arc<dyn Observer> {
        self.shared.clone()
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        if let Some(painter) = self.painter.take() {
            painter.thread().unpark();
            let _ = painter.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tick(&self) {
        loop {
            let over = self.over.load(Ordering::Relaxed);
            match self.mode {
                Mode::Tree => self.paint(over),
                _ => self.remind(),
            }
            if over {
                return;
            }
            std::thread::park_timeout(FRAME);
        }
    }

    /// Something to be said once.
    fn say(&self, state: &mut State, line: String) {
        match self.mode {
            Mode::Tree => state.said.push_back(line),
            Mode::Lines => complain(&line),
            Mode::Silent | Mode::Json => {}
        }
    }

    fn remind(&self) {
        let mut state = self.lock();
        for running in state.running.values_mut() {
            if running.reminded.elapsed() >= REMINDER {
                running.reminded = Instant::now();
                let since = duration(running.begun.elapsed());
                complain(&format!(
                    "still {} {} ({since}) {}",
                    verb(running.fetches),
                    running.name,
                    running.doing
                ));
            }
        }
    }

    /// Paints what was said, then the tree: the root, what runs below it, and the counts.
    fn paint(&self, over: bool) {
        let (width, height) = terminal();
        let mut state = self.lock();
        let mut text = String::new();
        if state.painted > 0 {
            text.push_str(&format!("\x1b[{}A\x1b[J", state.painted));
        }
        for line in std::mem::take(&mut state.said) {
            text.push_str(&line);
            text.push('\n');
        }
        state.painted = 0;
        if !over && !state.running.is_empty() {
            let lines = self.tree(&state, width, (height / 3).max(3));
            state.painted = lines.len();
            for line in lines {
                text.push_str(&line);
                text.push('\n');
            }
        }
        // If the terminal is gone, so is whoever looked at it.
        let _ = io::stderr().lock().write_all(text.as_bytes());
    }

    fn tree(&self, state: &State, width: usize, height: usize) -> Vec<String> {
        let waiting = state.needed.saturating_sub(state.done + state.running.len() + state.failed);
        let mut lines = vec![format!("{} {}", Style::Dim.paint("⏸"), Style::Bold.paint(&self.root))];
        let shown = height.saturating_sub(3).max(1);
        let count = state.running.len();
        for (n, running) in state.running.values().take(shown).enumerate() {
            let branch = if n + 1 == count.min(shown) { "└─" } else { "├─" };
            let glyph = if running.fetches { "↓" } else { "▶" };
            let time = duration(running.begun.elapsed());
            let head = format!("{branch} {glyph} {} {time}  ", running.name);
            let room = width.saturating_sub(head.chars().count() + 1);
            let tail: String = running.doing.chars().take(room).collect();
            lines.push(format!(
                "{branch} {} {} {}  {}",
                Style::Busy.paint(glyph),
                running.name,
                Style::Dim.paint(&time),
                Style::Dim.paint(&tail)
            ));
        }
        if count > shown {
            lines.push(format!("   and {} more", count - shown));
        }
        lines.push(format!(
            "{} {} running, {} waiting, {} done{} {}",
            Style::Dim.paint("∑"),
            count,
            waiting,
            Style::Good.paint(&state.done.to_string()),
            if state.failed > 0 { format!(", {} failed", state.failed) } else { String::new() },
            Style::Dim.paint(&duration(self.begun.elapsed())),
        ));
        lines
    }

    fn emit(&self, derivation: &DerivationId, event: &Event<'_>) {
        let data = match event {
            Event::Began { name, action, fetches } => serde_json::json!({
                "event": "began", "name": name.as_str(), "action": action.to_string(), "fetches": fetches,
            }),
            Event::Ended(time) => serde_json::json!({ "event": "ended", "seconds": time.as_secs_f64() }),
            Event::Failed(error) => serde_json::json!({ "event": "failed", "message": error.to_string() }),
            Event::Attested(Attested::Contradicts { place }) => {
                serde_json::json!({ "event": "notAttested", "message": contradiction(*place) })
            }
            Event::NotAttested(error) => {
                serde_json::json!({ "event": "notAttested", "message": error.to_string() })
            }
            Event::Building(_) | Event::Fetching(_) | Event::Attested(_) => return,
        };
        let mut data = data;
        data["derivation"] = derivation.to_string().into();
        complain(&crate::output::envelope("progress", &data).to_string());
    }
}

fn contradiction(place: u64) -> String {
    format!("not attested: place {place} of this machine's feed says something else")
}

fn verb(fetches: bool) -> &'static str {
    if fetches { "fetching" } else { "building" }
}

impl Observer for Shared {
    fn happened(&self, derivation: &DerivationId, event: Event<'_>) {
        if self.mode == Mode::Json {
            return self.emit(derivation, &event);
        }
        let mut state = self.lock();
        match event {
            Event::Began { name, fetches, .. } => {
                let name: String = name.as_str().chars().take(NAME).collect();
                if self.mode == Mode::Lines {
                    complain(&format!("{} {name}", verb(fetches)));
                }
                let now = Instant::now();
                let running =
                    Running { name, begun: now, fetches, doing: String::new(), line: vec![], reminded: now };
                state.running.insert(*derivation, running);
            }
            Event::Building(progress) => {
                let Some(running) = state.running.get_mut(derivation) else { return };
                if let Some(line) = running.build(progress) {
                    self.say(&mut state, line);
                }
            }
            Event::Fetching(progress) => {
                let Some(running) = state.running.get_mut(derivation) else { return };
                running.doing = match progress {
                    Fetching::Bytes { done, total: Some(total) } => {
                        format!("{} of {}", bytes(done), bytes(total))
                    }
                    Fetching::Bytes { done, total: None } => bytes(done),
                    Fetching::Trying { location } => plain(&location),
                    Fetching::Resuming { at } => format!("resuming at {}", bytes(at)),
                    Fetching::Verifying => "verifying".into(),
                    Fetching::Running { client } => format!("{client} looks it up"),
                };
            }
            Event::Ended(time) => {
                let Some(running) = state.running.remove(derivation) else { return };
                let past = if running.fetches { "fetched" } else { "built" };
                let time = Style::Dim.paint(&duration(time));
                self.say(&mut state, format!("{} {past} {} {time}", Style::Good.paint("✔"), running.name));
            }
            Event::Failed(_) => {
                let Some(running) = state.running.remove(derivation) else { return };
                state.failed += 1;
                let line = format!("{} {} {}", Style::Error.paint("✘"), verb(running.fetches), running.name);
                self.say(&mut state, format!("{line} failed"));
            }
            Event::Attested(Attested::Contradicts { place }) => {
                self.say(&mut state, format!("{} {}", Style::Busy.paint("!"), contradiction(*place)));
            }
            Event::NotAttested(error) => {
                let line = format!("{} not attested: {error}", Style::Busy.paint("!"));
                self.say(&mut state, line);
            }
            Event::Attested(_) => {}
        }
    }

    fn counted(&self, needed: usize, done: usize) {
        let mut state = self.lock();
        (state.needed, state.done) = (needed, done);
    }
}

impl Running {
    /// Takes a build's progress; a compilation is worth a line of its own, because it is long and
    /// happens once.
    fn build(&mut self, progress: Building<'_>) -> Option<String> {
        match progress {
            Building::Compiling { module, bytes: size } => {
                let name = module.rsplit('/').next().unwrap_or(module);
                self.doing = format!("compiling {name} to machine code ({}), once", bytes(size as u64));
                return Some(format!("  {}: {}", self.name, self.doing));
            }
            Building::Step { step, of } => self.doing = format!("step {step} of {of}"),
            Building::Log(log) => {
                self.line.extend_from_slice(log);
                let lines: Vec<_> = self.line.split(|b| *b == b'\n').collect();
                let last = lines.iter().rev().find(|line| !line.is_empty());
                if let Some(line) = last {
                    let line = &line[..line.len().min(400)];
                    self.doing = plain(&String::from_utf8_lossy(line).replace('\t', " "));
                }
                let rest = lines.last().map_or(0, |l| l.len()).min(400);
                self.line.drain(..self.line.len() - rest);
            }
        }
        None
    }
}

/// Columns and lines of the terminal.
fn terminal() -> (usize, usize) {
    match rustix::termios::tcgetwinsize(io::stderr()) {
        Ok(size) if size.ws_col > 0 => (size.ws_col.into(), size.ws_row.into()),
        _ => (80, 24),
    }
}
