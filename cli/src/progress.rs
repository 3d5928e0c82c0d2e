//! What is going on: a small tree that is repainted on a terminal, plain lines elsewhere.
//!
//! ```text
//! state.rs  events ─▶ what runs, waits, is done; what is to be said once      pure
//! tree.rs   state, width, height ─▶ lines                                     pure
//! meter.rs  one number that grows
//! here      a thread that paints the lines over those before
//! ```

mod meter;
mod state;
mod tree;

use std::{
    collections::VecDeque,
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
    realise::{Event, Observer},
    schedule::Counts,
};
use protocol::id::DerivationId;

pub(crate) use self::meter::Meter;
use self::state::{Said, State};
use crate::output::{Style, complain};

/// How often the tree is painted.
const FRAME: Duration = Duration::from_millis(100);

/// Shows what is going on while it is alive.
pub(crate) struct Display {
    shared: Arc<Shared>,
    painter: Option<JoinHandle<()>>,
}

struct Shared {
    screen: Mutex<Screen>,
    mode: Mode,
    over: AtomicBool,
}

struct Screen {
    state: State,
    /// Lines that were painted last and are to be painted over.
    painted: usize,
    /// What happened and is to be said above the tree.
    said: VecDeque<Line>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Tree,
    Lines,
    Silent,
    /// One JSON object a line on stderr.
    Json,
}

impl Mode {
    fn of(quiet: bool, json: bool) -> Self {
        match (quiet, json) {
            (true, _) => Self::Silent,
            (_, true) => Self::Json,
            _ if io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|t| t != "dumb") => {
                Self::Tree
            }
            _ => Self::Lines,
        }
    }
}

/// A line in pieces, each in its style.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Line(Vec<(Option<Style>, String)>);

impl Line {
    fn plain(self, text: impl Into<String>) -> Self {
        self.piece(None, text)
    }

    fn styled(self, style: Style, text: impl Into<String>) -> Self {
        self.piece(Some(style), text)
    }

    fn piece(mut self, style: Option<Style>, text: impl Into<String>) -> Self {
        self.0.push((style, text.into()));
        self
    }

    /// The line without its styles.
    #[cfg(test)]
    fn text(&self) -> String {
        self.0.iter().map(|(_, text)| text.as_str()).collect()
    }

    fn painted(&self) -> String {
        self.0.iter().map(|(style, text)| style.map_or_else(|| text.clone(), |s| s.paint(text))).collect()
    }
}

impl Display {
    /// Shows progress of realising `root`.
    pub(crate) fn new(root: String, quiet: bool, json: bool) -> Self {
        let mode = Mode::of(quiet, json);
        let screen = Screen { state: State::new(root, Instant::now()), painted: 0, said: VecDeque::new() };
        let shared = Arc::new(Shared { screen: Mutex::new(screen), mode, over: AtomicBool::new(false) });
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
    fn lock(&self) -> MutexGuard<'_, Screen> {
        self.screen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tick(&self) {
        loop {
            let over = self.over.load(Ordering::Relaxed);
            match self.mode {
                Mode::Tree => self.paint(over),
                _ => self.lock().state.reminders(Instant::now()).iter().for_each(|line| complain(line)),
            }
            if over {
                return;
            }
            std::thread::park_timeout(FRAME);
        }
    }

    /// Paints what was said, then the tree.
    fn paint(&self, over: bool) {
        let (width, height) = terminal();
        let mut screen = self.lock();
        let mut text = String::new();
        if screen.painted > 0 {
            text.push_str(&format!("\x1b[{}A\x1b[J", screen.painted));
        }
        for line in std::mem::take(&mut screen.said) {
            text.push_str(&line.painted());
            text.push('\n');
        }
        let lines = if over { Vec::new() } else { tree::lines(&screen.state, Instant::now(), width, height) };
        screen.painted = lines.len();
        for line in lines {
            text.push_str(&line.painted());
            text.push('\n');
        }
        // If the terminal is gone, so is whoever looked at it.
        let _ = io::stderr().lock().write_all(text.as_bytes());
    }

    fn emit(&self, derivation: &DerivationId, event: &Event<'_>) {
        let data = match event {
            Event::Began { name, action, fetches } => serde_json::json!({
                "event": "began", "name": name.as_str(), "action": action.to_string(), "fetches": fetches,
            }),
            Event::Ended(time) => serde_json::json!({ "event": "ended", "seconds": time.as_secs_f64() }),
            Event::Failed(error) => serde_json::json!({ "event": "failed", "message": error.to_string() }),
            Event::Attested(Attested::Contradicts { place }) => {
                serde_json::json!({ "event": "notAttested", "message": state::contradiction(*place) })
            }
            Event::NotAttested(error) => {
                serde_json::json!({ "event": "notAttested", "message": error.to_string() })
            }
            Event::Substituted(time) => {
                serde_json::json!({ "event": "substituted", "seconds": time.as_secs_f64() })
            }
            Event::NotSubstituted(error) => {
                serde_json::json!({ "event": "notSubstituted", "message": error.to_string() })
            }
            Event::Building(_) | Event::Fetching(_) | Event::Substituting { .. } | Event::Attested(_) => {
                return;
            }
        };
        let mut data = data;
        data["derivation"] = derivation.to_string().into();
        complain(&crate::output::envelope("progress", &data).to_string());
    }
}

impl Observer for Shared {
    fn happened(&self, derivation: &DerivationId, event: Event<'_>) {
        if self.mode == Mode::Json {
            return self.emit(derivation, &event);
        }
        let mut screen = self.lock();
        let said = screen.state.happened(derivation, event, Instant::now());
        match (self.mode, said) {
            (Mode::Tree, Some(Said::Worth(line))) => screen.said.push_back(line),
            (Mode::Lines, Some(Said::Worth(line) | Said::Began(line))) => complain(&line.painted()),
            _ => {}
        }
    }

    fn counted(&self, counts: &Counts<'_>) {
        self.lock().state.counted(counts);
    }
}

/// Columns and lines of the terminal.
fn terminal() -> (usize, usize) {
    match rustix::termios::tcgetwinsize(io::stderr()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
        _ => (80, 24),
    }
}
