//! One number that grows: a line that is painted over on a terminal, a line now and then elsewhere.

use std::{
    io::Write as _,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::{FRAME, Mode};
use crate::output::{bytes, complain, duration};

/// Elsewhere than on a terminal: how often something is said.
const PAUSE: Duration = Duration::from_secs(10);

/// Bytes that come.
pub(crate) struct Meter {
    what: &'static str,
    total: u64,
    mode: Mode,
    begun: Instant,
    said: Mutex<Instant>,
}

impl Meter {
    /// Nothing of `total` bytes has come yet.
    pub(crate) fn new(what: &'static str, total: u64, quiet: bool, json: bool) -> Self {
        let now = Instant::now();
        Self { what, total, mode: Mode::of(quiet, json), begun: now, said: Mutex::new(now) }
    }

    /// So many have come.
    pub(crate) fn set(&self, done: u64) {
        let pause = match self.mode {
            Mode::Tree => FRAME,
            Mode::Lines => PAUSE,
            Mode::Json | Mode::Silent => return,
        };
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.elapsed() < pause {
            return;
        }
        *said = Instant::now();
        let time = self.begun.elapsed();
        let rate = (done as f64 / time.as_secs_f64().max(0.001)) as u64;
        let line = format!(
            "{} {} of {}, {}/s ({})",
            self.what,
            bytes(done),
            bytes(self.total),
            bytes(rate),
            duration(time)
        );
        match self.mode {
            Mode::Tree => self.paint(&line),
            _ => complain(&line),
        }
    }

    fn paint(&self, line: &str) {
        // If the terminal is gone, so is whoever looked at it.
        let _ = write!(std::io::stderr().lock(), "\r\x1b[K{line}");
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if self.mode == Mode::Tree {
            self.paint("");
        }
    }
}
