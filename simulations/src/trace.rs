//! What happened, line by line: the same for the same seed, to the byte.

use std::{fmt, io::Write};

/// Where lines go, if anywhere.
pub struct Trace<'w> {
    to: Option<&'w mut dyn Write>,
    /// Events before this one leave no line.
    from: u64,
    /// Whether a line could not be written.
    failed: bool,
}

impl<'w> Trace<'w> {
    /// No lines.
    pub fn off() -> Self {
        Self { to: None, from: 0, failed: false }
    }

    /// Lines of all events from the one with this number on.
    pub fn to(to: &'w mut dyn Write, from: u64) -> Self {
        Self { to: Some(to), from, failed: false }
    }

    /// Whether a line could not be written; there are no lines behind that one.
    pub fn failed(&self) -> bool {
        self.failed
    }

    /// A line about something that happened at a node in the event of that number.
    pub(crate) fn line<D: fmt::Display>(
        &mut self,
        event: u64,
        now: u64,
        node: usize,
        what: impl FnOnce() -> D,
    ) {
        let Some(to) = self.to.as_deref_mut().filter(|_| event >= self.from) else { return };
        let (seconds, millis) = (now / 1000, now % 1000);
        if writeln!(to, "{event:>7} {seconds:>5}.{millis:03} n{node:<3} {}", what()).is_err() {
            (self.to, self.failed) = (None, true);
        }
    }
}

impl fmt::Debug for Trace<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trace").field("on", &self.to.is_some()).field("from", &self.from).finish()
    }
}
