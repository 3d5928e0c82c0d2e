//! What is printed: data on stdout, talk on stderr, nothing that a terminal would obey.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal as _, Write as _},
    sync::OnceLock,
};

use protocol::plain::is_plain;
use serde::Serialize;

/// Whether stderr and stdout take colours: decided once, by `--color`, NO_COLOR and the terminal.
static COLOURS: OnceLock<bool> = OnceLock::new();

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Colour {
    /// On a terminal, unless NO_COLOR is set or TERM is `dumb`
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

impl Colour {
    pub(crate) fn decide(self) {
        let set = |name| std::env::var_os(name).is_some_and(|v| !v.is_empty());
        let yes = match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto if set("NO_COLOR") || std::env::var_os("TERM").is_some_and(|t| t == "dumb") => false,
            Self::Auto => set("CLICOLOR_FORCE") || io::stderr().is_terminal(),
        };
        let _ = COLOURS.set(yes);
    }
}

/// What a piece of text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Error,
    Hint,
    Good,
    Busy,
    Dim,
    Bold,
}

impl Style {
    /// The text with the colours of the style, if there are colours.
    pub(crate) fn paint(self, text: &str) -> String {
        use anstyle::{AnsiColor, Style as Ansi};
        if !COLOURS.get().copied().unwrap_or(false) {
            return text.to_owned();
        }
        let style = match self {
            Self::Error => AnsiColor::Red.on_default().bold(),
            Self::Hint => AnsiColor::Cyan.on_default().bold(),
            Self::Good => AnsiColor::Green.on_default(),
            Self::Busy => AnsiColor::Yellow.on_default(),
            Self::Dim => Ansi::new().dimmed(),
            Self::Bold => Ansi::new().bold(),
        };
        format!("{style}{text}{style:#}")
    }
}

/// A line for people, of which parts have a style; a terminal and a page of the dashboard show it
/// alike. Its text may be of foreign origin.
#[derive(Debug, Clone, Default)]
pub(crate) struct Line {
    /// How deep it is below what it belongs to.
    pub(crate) depth: usize,
    /// Its parts, in order.
    pub(crate) parts: Vec<(Option<Style>, String)>,
}

impl Line {
    /// One without a style.
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self::default().and(text)
    }

    /// One that begins with a style.
    pub(crate) fn styled(style: Style, text: impl Into<String>) -> Self {
        Self { depth: 0, parts: vec![(Some(style), text.into())] }
    }

    /// With more text behind it.
    pub(crate) fn and(mut self, text: impl Into<String>) -> Self {
        self.parts.push((None, text.into()));
        self
    }

    /// With more text behind it, in a style.
    pub(crate) fn and_styled(mut self, style: Style, text: impl Into<String>) -> Self {
        self.parts.push((Some(style), text.into()));
        self
    }

    /// So deep.
    pub(crate) fn at(mut self, depth: usize) -> Self {
        self.depth = depth;
        self
    }

    /// As a terminal shows it.
    pub(crate) fn paint(&self) -> String {
        let mut line = "  ".repeat(self.depth);
        for (style, text) in &self.parts {
            let text = plain(text);
            line.push_str(&style.map_or_else(|| text.clone(), |style| style.paint(&text)));
        }
        line
    }

    /// Prints it as data.
    pub(crate) fn say(&self) -> io::Result<()> {
        say(&self.paint())
    }
}

/// Text of foreign origin without anything that a terminal would obey, or a reader would not see.
pub(crate) fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\t' => plain.push(c),
            c if is_plain(c) => plain.push(c),
            c => {
                let _ = write!(plain, "\\u{{{:x}}}", c as u32);
            }
        }
    }
    plain
}

/// A versioned envelope, the same for every command.
pub(crate) fn envelope(kind: &str, data: &impl Serialize) -> serde_json::Value {
    serde_json::json!({ "v": 1, "kind": kind, "data": data })
}

/// Prints data as JSON.
pub(crate) fn json(kind: &str, data: &impl Serialize) -> io::Result<()> {
    say(&envelope(kind, data).to_string())
}

/// Prints a line of data. That the reader has gone away is not an error: `assize … | head`.
pub(crate) fn say(line: &str) -> io::Result<()> {
    raw(format!("{line}\n").as_bytes())
}

/// Prints bytes of data as they are.
pub(crate) fn raw(bytes: &[u8]) -> io::Result<()> {
    Stdout.write_all(bytes)?;
    Stdout.flush()
}

/// Stdout, whose reader may go away without that being an error.
pub(crate) struct Stdout;

impl io::Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        end_if_closed(io::stdout().lock().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        end_if_closed(io::stdout().lock().flush())
    }
}

fn end_if_closed<T>(result: io::Result<T>) -> io::Result<T> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        other => other,
    }
}

/// Prints a line of talk. If stderr is closed, there is nobody to tell.
pub(crate) fn complain(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Bytes for people: `312 B`, `4.2 KiB`, `27.1 MiB`.
pub(crate) fn bytes(n: u64) -> String {
    let mut value = n as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{n} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

/// How many there are of what is named in the singular: `1 archive`, `2 archives`.
pub(crate) fn count(n: impl TryInto<u64>, one: &str) -> String {
    match n.try_into().unwrap_or(u64::MAX) {
        1 => format!("1 {one}"),
        n => format!("{n} {one}s"),
    }
}

/// A time for people: `0.4 s`, `12 s`, `3 min 05 s`.
pub(crate) fn duration(time: std::time::Duration) -> String {
    match time.as_secs() {
        0..10 => format!("{:.1} s", time.as_secs_f64()),
        s @ 10..60 => format!("{s} s"),
        s => format!("{} min {:02} s", s / 60, s % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_obey_nothing() {
        assert_eq!(plain("a\x1b[31mb\u{202e}c\r\n\td\u{7f}"), "a\\u{1b}[31mb\\u{202e}c\\u{d}\n\td\\u{7f}");
    }

    #[test]
    fn amounts() {
        assert_eq!(
            [bytes(0), bytes(1023), bytes(1024), bytes(5 << 30)],
            ["0 B", "1023 B", "1.0 KiB", "5.0 GiB"]
        );
        let seconds = std::time::Duration::from_secs;
        assert_eq!(
            [duration(seconds(3)), duration(seconds(42)), duration(seconds(65))],
            ["3.0 s", "42 s", "1 min 05 s"]
        );
    }
}
