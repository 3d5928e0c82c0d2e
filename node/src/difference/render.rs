//! A difference as rows for people, and these as text.
//!
//! Everything of foreign origin in a [`Difference`] is plain already; nothing is added here but words.

use std::fmt::{self, Display};

use super::{
    Bytes, Change, Code, Content, Detail, Difference, Field, Hunk, Item, ItemKind, Kind, LineKind,
    MemberChange, Members, Section, Side, Sides, Text, Wasm, Window,
};

/// Where a row of a difference belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// It says something about what is below it.
    Above,
    /// It is the same on both sides.
    Both,
    /// Only the first archive has it.
    Left,
    /// Only the second has it.
    Right,
}

/// A row of a difference, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// How deep it is below what it is a part of.
    pub depth: usize,
    /// Where it belongs.
    pub place: Place,
    /// What it says, in one line.
    pub text: String,
}

impl Difference {
    /// All of it in rows, in order.
    pub fn rows(&self) -> Vec<Row> {
        let mut page = Page { rows: Vec::new(), depth: 0 };
        page.difference(self);
        page.rows
    }
}

impl Display for Difference {
    /// Writes one line or more for each entry, what is inside of it indented.
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rows().iter().try_for_each(|row| {
            let indent = row.depth * 2;
            let sign = match row.place {
                Place::Above => "",
                Place::Both => " ",
                Place::Left => "-",
                Place::Right => "+",
            };
            writeln!(to, "{:indent$}{sign}{}", "", row.text)
        })
    }
}

struct Page {
    rows: Vec<Row>,
    depth: usize,
}

impl Page {
    fn line(&mut self, line: impl Display) {
        self.row(Place::Above, line);
    }

    fn row(&mut self, place: Place, text: impl Display) {
        self.rows.push(Row { depth: self.depth, place, text: text.to_string() });
    }

    fn inside(&mut self, write: impl FnOnce(&mut Self)) {
        self.depth += 1;
        write(self);
        self.depth -= 1;
    }

    fn difference(&mut self, difference: &Difference) {
        for entry in &difference.entries {
            self.line(&entry.path);
            self.inside(|page| entry.changes.iter().for_each(|change| page.change(change)));
        }
        self.omitted(difference.omitted, "entries that differ");
    }

    fn omitted(&mut self, count: u64, what: &str) {
        if count > 0 {
            self.line(format_args!("… and {count} more {what}"));
        }
    }

    fn change(&mut self, change: &Change) {
        match change {
            Change::Only { side, kind, size } => {
                let size = match kind {
                    Kind::File | Kind::Symlink => bytes(*size),
                    Kind::Directory => format!("{size} entries below it"),
                };
                self.line(format_args!("only on the {}: a {}, {size}", side, noun(*kind)));
            }
            Change::Kind(Sides { left, right }) => {
                self.line(format_args!("a {} on the left, a {} on the right", noun(*left), noun(*right)));
            }
            Change::Target(targets) => self.sides("symlink to ", targets),
            Change::Executable(Sides { left, .. }) => {
                let side = if *left { Side::Left } else { Side::Right };
                self.line(format_args!("executable only on the {}", side));
            }
            Change::Content(content) => self.content(content),
        }
    }

    fn sides(&mut self, what: &str, Sides { left, right }: &Sides<String>) {
        self.row(Place::Left, format_args!(" {what}{left}"));
        self.row(Place::Right, format_args!(" {what}{right}"));
    }

    fn content(&mut self, content: &Content) {
        match content {
            Content::Text(text) => self.text(text),
            Content::Wasm(wasm) => self.wasm(wasm),
            Content::Members(members) => self.members(members),
            Content::Tree(difference) => {
                self.line("archives that differ:");
                self.inside(|page| page.difference(difference));
            }
            Content::Bytes(found) => self.bytes(found),
            Content::Unopened { lengths } => {
                self.line(format_args!("contents differ, {}; not looked into", both(lengths)));
            }
        }
    }

    fn text(&mut self, text: &Text) {
        text.hunks.iter().for_each(|hunk| self.hunk(hunk));
        let Sides { left, right } = text.omitted;
        if left + right > 0 {
            self.line(format_args!("… and {left} more lines only on the left, {right} only on the right"));
        }
        if text.uncompared.left + text.uncompared.right > 0 {
            self.line(format_args!("… and {} behind them that were not compared", both(&text.uncompared)));
        }
    }

    fn hunk(&mut self, hunk: &Hunk) {
        let count = |other| hunk.lines.iter().filter(|line| line.kind != other).count();
        let (left, right) = (count(LineKind::Right), count(LineKind::Left));
        self.line(format_args!("@@ -{},{left} +{},{right} @@", hunk.starts.left, hunk.starts.right));
        for line in &hunk.lines {
            let place = match line.kind {
                LineKind::Common => Place::Both,
                LineKind::Left => Place::Left,
                LineKind::Right => Place::Right,
            };
            let (mut before, mut after) = (String::new(), String::new());
            if line.before > 0 {
                before = format!("[… {} …] ", bytes(line.before));
            }
            if line.after > 0 {
                after = format!(" [… {} …]", bytes(line.after));
            }
            self.row(place, format_args!("{before}{}{after}", line.text));
            if !line.ended {
                self.line("\\ no end of line at the end of the file");
            }
        }
    }

    fn members(&mut self, members: &Members) {
        for member in &members.members {
            self.line(format_args!("member {}", member.name));
            self.inside(|page| match &member.change {
                MemberChange::Only { side, size } => {
                    page.line(format_args!("only on the {}, {}", side, bytes(*size)));
                }
                MemberChange::Differs { fields, content } => {
                    for Field { name, values } in fields {
                        page.sides(&format!("{name} "), values);
                    }
                    if let Some(content) = content {
                        page.content(content);
                    }
                }
            });
        }
        self.omitted(members.omitted, "members that differ");
        if members.reordered {
            self.line("members are in another order");
        }
    }

    fn wasm(&mut self, wasm: &Wasm) {
        wasm.sections.iter().for_each(|section| self.section(section));
        self.omitted(wasm.omitted_sections, "sections that differ");
        for tally in &wasm.tallies {
            let of_kind = wasm.items.iter().filter(|item| item.kind == tally.kind);
            let mut shown = 0;
            for item in of_kind {
                self.item(item);
                shown += 1;
            }
            self.omitted(
                tally.count().saturating_sub(shown),
                &format!("{}s that differ", item_noun(tally.kind)),
            );
        }
    }

    fn section(&mut self, section: &Section) {
        let custom = if section.custom { "custom " } else { "" };
        let name = &section.name;
        let said = match section.lengths {
            Sides { left: Some(left), right: Some(right) } => both(&Sides { left, right }),
            Sides { left: Some(left), right: None } => format!("only on the left, {}", bytes(left)),
            Sides { left: None, right } => format!("only on the right, {}", bytes(right.unwrap_or(0))),
        };
        let same = if section.renumbered { "; the same, with other indices" } else { "" };
        self.line(format_args!("{custom}section {name}: {said}{same}"));
        if let Some(found) = &section.bytes {
            self.inside(|page| page.bytes(found));
        }
    }

    fn item(&mut self, item: &Item) {
        let name = if item.name.is_empty() { String::new() } else { format!(" ${}", item.name) };
        let (noun, name) = (item_noun(item.kind), &name);
        match item.indices {
            Sides { left: Some(left), right: Some(right) } if left == right => {
                self.line(format_args!("{noun} {left}{name}"));
            }
            Sides { left: Some(left), right: Some(right) } => {
                self.line(format_args!("{noun} {left}{name}, {right} on the right"));
            }
            Sides { left: Some(left), right: None } => {
                self.line(format_args!("{noun} {left}{name}: only on the left"));
            }
            Sides { left: None, right } => {
                self.line(format_args!("{noun} {}{name}: only on the right", right.unwrap_or(0)));
            }
        }
        self.inside(|page| item.details.iter().for_each(|detail| page.detail(detail)));
    }

    fn detail(&mut self, detail: &Detail) {
        match detail {
            Detail::Declared(said) => self.sides("", said),
            Detail::Bytes(found) => self.bytes(found),
            Detail::Code(code) => self.code(code),
            Detail::Length(lengths) => self.line(format_args!("{}; not disassembled", both(lengths))),
        }
    }

    fn code(&mut self, code: &Code) {
        let number = code.common.saturating_add(1);
        self.line(format_args!("{}; instruction {number} is the first that differs", both(&code.lengths)));
        let shown = code.shown as usize;
        let (before, left) = code.windows.left.split_at(shown.min(code.windows.left.len()));
        let (_, right) = code.windows.right.split_at(shown.min(code.windows.right.len()));
        // What is the same again at the end is context.
        let pairs = left.iter().rev().zip(right.iter().rev());
        let after = pairs.take_while(|(left, right)| left.text == right.text).count();
        let (left, after) = left.split_at(left.len() - after);
        let right = &right[..right.len() - after.len()];
        let all = [(Place::Both, before), (Place::Left, left), (Place::Right, right), (Place::Both, after)];
        for (place, instructions) in all {
            for instruction in instructions {
                self.row(place, format_args!(" {:#08x}  {}", instruction.at, instruction.text));
            }
        }
    }

    fn bytes(&mut self, found: &Bytes) {
        if let Some(why) = &found.unread {
            self.line(format_args!("compared as bytes: {why}"));
        }
        self.line(format_args!("{}; the first that differs is {:#x}", both(&found.lengths), found.first));
        for (place, window) in [(Place::Left, &found.windows.left), (Place::Right, &found.windows.right)] {
            self.window(place, window);
        }
    }

    /// Rows of 16 bytes, in hexadecimal and as ASCII.
    fn window(&mut self, place: Place, window: &Window) {
        let digits = window.hex.as_bytes().chunks_exact(2);
        let bytes: Vec<u8> =
            digits.filter_map(|two| u8::from_str_radix(str::from_utf8(two).ok()?, 16).ok()).collect();
        for (n, row) in bytes.chunks(16).enumerate() {
            let hex: Vec<_> = row.iter().map(|byte| format!("{byte:02x}")).collect();
            let seen = |byte: &u8| if byte.is_ascii_graphic() || *byte == b' ' { *byte as char } else { '.' };
            let seen: String = row.iter().map(seen).collect();
            let at = window.at + 16 * n as u64;
            self.row(place, format_args!(" {at:#08x}  {:47}  {seen}", hex.join(" ")));
        }
    }
}

fn noun(kind: Kind) -> &'static str {
    match kind {
        Kind::File => "file",
        Kind::Symlink => "symlink",
        Kind::Directory => "directory",
    }
}

fn item_noun(kind: ItemKind) -> &'static str {
    match kind {
        ItemKind::Import => "import",
        ItemKind::Function => "function",
        ItemKind::Global => "global",
        ItemKind::Export => "export",
        ItemKind::Element => "element segment",
        ItemKind::Data => "data segment",
    }
}

fn bytes(count: u64) -> String {
    format!("{count} bytes")
}

fn both(Sides { left, right }: &Sides<u64>) -> String {
    if left == right { format!("{left} bytes on both sides") } else { format!("{left} and {right} bytes") }
}
