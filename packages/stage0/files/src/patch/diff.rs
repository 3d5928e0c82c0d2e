//! Reading unified diffs, as `diff -u`, `git diff` and `git format-patch` write them.
//!
//! Text around the diffs, such as a commit message, is passed over.

use std::error::Error;
use std::fmt;

use stage0::path::{PathFault, Relative};

/// All changes of one file.
#[derive(Debug)]
pub(super) struct FileDiff<'a> {
    /// The line of the patch with the file's header, counted from 1.
    pub(super) line: usize,
    pub(super) change: Change,
    pub(super) hunks: Vec<Hunk<'a>>,
}

/// What happens to a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    Modify(Relative),
    Create(Relative),
    Delete(Relative),
    Rename { from: Relative, to: Relative },
    Copy { from: Relative, to: Relative },
}

impl Change {
    /// The name to call the file by.
    pub(super) fn name(&self) -> &Relative {
        match self {
            Self::Modify(name) | Self::Create(name) | Self::Delete(name) => name,
            Self::Rename { to, .. } | Self::Copy { to, .. } => to,
        }
    }
}

/// Some lines, and what takes their place. Each line has its `\n`, if it has one.
#[derive(Debug)]
pub(super) struct Hunk<'a> {
    /// The line of the patch with the hunk's header, counted from 1.
    pub(super) line: usize,
    /// The line that its old lines start at; the line before, if there are none.
    pub(super) old_start: usize,
    pub(super) old: Vec<&'a [u8]>,
    pub(super) new: Vec<&'a [u8]>,
}

impl Hunk<'_> {
    /// How many lines of the file its header expects before it.
    pub(super) fn first_line(&self) -> usize {
        if self.old.is_empty() {
            self.old_start
        } else {
            self.old_start.saturating_sub(1)
        }
    }
}

/// A patch that can't be applied, whatever the files are.
#[derive(Debug, PartialEq, Eq)]
pub struct DiffError {
    /// The line of the patch, counted from 1.
    pub line: usize,
    /// What is wrong there.
    pub fault: DiffFault,
}

/// What is wrong with a patch.
#[derive(Debug, PartialEq, Eq)]
pub enum DiffFault {
    /// There is no unified diff in it.
    Empty,
    /// A hunk follows no header of a file.
    HunkWithoutFile,
    /// A line that begins like the header of a hunk does not go on like one.
    HunkHeader,
    /// A line in a hunk begins with none of ` `, `+`, `-` and `\`, or the hunk has other counts of
    /// lines than its header says.
    HunkLine,
    /// The patch ends within a hunk.
    Truncated,
    /// The file has changed in a way that only a binary patch could tell.
    Binary,
    /// A name is in quotes, because it has unusual characters.
    QuotedName,
    /// A name has too few components to drop as many as are to be dropped.
    ShortName,
    /// A name leads out of the patched directory, or can't be a name.
    Name(PathFault),
}

impl fmt::Display for DiffError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.line)?;
        match &self.fault {
            DiffFault::Empty => f.write_str("no unified diff in this file"),
            DiffFault::HunkWithoutFile => f.write_str("hunk without a file"),
            DiffFault::HunkHeader => f.write_str("malformed header of a hunk"),
            DiffFault::HunkLine => f.write_str("malformed line in a hunk"),
            DiffFault::Truncated => f.write_str("patch ends within a hunk"),
            DiffFault::Binary => f.write_str("binary patches can't be applied"),
            DiffFault::QuotedName => f.write_str("quoted names can't be read"),
            DiffFault::ShortName => f.write_str("name has too few components to strip"),
            DiffFault::Name(fault) => fault.fmt(f),
        }
    }
}

impl Error for DiffError {}

/// Reads all diffs in `bytes`, dropping `strip` components from the start of each name.
pub(super) fn read(bytes: &[u8], strip: usize) -> Result<Vec<FileDiff<'_>>, DiffError> {
    let mut reader = Reader {
        lines: bytes.split_inclusive(|byte| *byte == b'\n').collect(),
        next: 0,
        strip,
    };
    let mut diffs = Vec::new();
    while let Some(line) = reader.peek() {
        if line.starts_with(b"diff --git ") {
            diffs.extend(reader.git_diff()?);
        } else if reader.at_names() {
            diffs.push(reader.plain_diff()?);
        } else if line.starts_with(b"@@ -") {
            return Err(reader.fault(DiffFault::HunkWithoutFile));
        } else if is_binary(line) {
            return Err(reader.fault(DiffFault::Binary));
        } else {
            reader.next += 1;
        }
    }
    if diffs.is_empty() {
        reader.next = 0;
        return Err(reader.fault(DiffFault::Empty));
    }
    Ok(diffs)
}

/// What git says about a file before its names.
#[derive(Default)]
struct GitHeader {
    /// The rename or copy, if it is one.
    moved: Option<Change>,
    is_created: bool,
    is_deleted: bool,
}

struct Reader<'a> {
    lines: Vec<&'a [u8]>,
    next: usize,
    strip: usize,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<&'a [u8]> {
        self.lines.get(self.next).copied()
    }

    /// The error `fault` at the next line.
    fn fault(&self, fault: DiffFault) -> DiffError {
        let line = self.next + 1;
        DiffError { line, fault }
    }

    fn at_names(&self) -> bool {
        let starts = |ahead: usize, prefix: &[u8]| {
            let line = self.lines.get(self.next + ahead);
            line.is_some_and(|line| line.starts_with(prefix))
        };
        starts(0, b"--- ") && starts(1, b"+++ ")
    }

    /// From `--- ` on.
    fn plain_diff(&mut self) -> Result<FileDiff<'a>, DiffError> {
        let line = self.next + 1;
        let (old, is_created) = file_name(self.lines[self.next]);
        let (new, is_deleted) = file_name(self.lines[self.next + 1]);
        let change = if is_created {
            Change::Create(name(new, self.strip, line + 1)?)
        } else if is_deleted {
            Change::Delete(name(old, self.strip, line)?)
        } else {
            Change::Modify(name(new, self.strip, line + 1)?)
        };
        self.next += 2;
        let hunks = self.hunks()?;
        Ok(FileDiff {
            line,
            change,
            hunks,
        })
    }

    /// From `diff --git ` on. A change of the mode alone is no change.
    fn git_diff(&mut self) -> Result<Option<FileDiff<'a>>, DiffError> {
        let line = self.next + 1;
        let names = &trim(self.lines[self.next])[b"diff --git ".len()..];
        self.next += 1;
        let header = self.git_header()?;
        let (change, hunks) = if self.at_names() {
            let diff = self.plain_diff()?;
            (header.moved.unwrap_or(diff.change), diff.hunks)
        } else if let Some(moved) = header.moved {
            (moved, Vec::new())
        } else if header.is_created || header.is_deleted {
            // An empty file has no hunks, and so no names but those in the first line.
            let fault = DiffFault::QuotedName;
            let both = same_name(names).ok_or(DiffError { line, fault })?;
            let name = name(both, self.strip, line)?;
            let change = if header.is_created {
                Change::Create(name)
            } else {
                Change::Delete(name)
            };
            (change, Vec::new())
        } else {
            return Ok(None);
        };
        Ok(Some(FileDiff {
            line,
            change,
            hunks,
        }))
    }

    /// The lines between `diff --git ` and the names or the next diff.
    fn git_header(&mut self) -> Result<GitHeader, DiffError> {
        let mut header = GitHeader::default();
        let (mut from, mut to, mut is_copy) = (None, None, false);
        // Renames and copies are told without the `a/` and `b/` that the other names have.
        let strip = self.strip.saturating_sub(1);
        while let Some(line) = self.peek().map(trim) {
            self.next += 1;
            if let Some(old) = line.strip_prefix(b"rename from ") {
                from = Some(name(old, strip, self.next)?);
            } else if let Some(new) = line.strip_prefix(b"rename to ") {
                to = Some(name(new, strip, self.next)?);
            } else if let Some(old) = line.strip_prefix(b"copy from ") {
                is_copy = true;
                from = Some(name(old, strip, self.next)?);
            } else if let Some(new) = line.strip_prefix(b"copy to ") {
                to = Some(name(new, strip, self.next)?);
            } else if line.starts_with(b"new file mode ") {
                header.is_created = true;
            } else if line.starts_with(b"deleted file mode ") {
                header.is_deleted = true;
            } else if is_binary(line) {
                self.next -= 1;
                return Err(self.fault(DiffFault::Binary));
            } else if !is_extended(line) {
                self.next -= 1;
                break;
            }
        }
        header.moved = from.zip(to).map(|(from, to)| {
            if is_copy {
                Change::Copy { from, to }
            } else {
                Change::Rename { from, to }
            }
        });
        Ok(header)
    }

    fn hunks(&mut self) -> Result<Vec<Hunk<'a>>, DiffError> {
        let mut hunks = Vec::new();
        while self.peek().is_some_and(|line| line.starts_with(b"@@ -")) {
            hunks.push(self.hunk()?);
        }
        if hunks.is_empty() {
            return Err(self.fault(DiffFault::HunkHeader));
        }
        Ok(hunks)
    }

    fn hunk(&mut self) -> Result<Hunk<'a>, DiffError> {
        let header = self.lines[self.next];
        let (old_start, mut old_left, mut new_left) =
            ranges(header).ok_or_else(|| self.fault(DiffFault::HunkHeader))?;
        let mut hunk = Hunk {
            line: self.next + 1,
            old_start,
            old: Vec::new(),
            new: Vec::new(),
        };
        self.next += 1;
        // Which of its sides the last line is on: those that a `\` is about.
        let mut sides = (false, false);
        loop {
            let line = self.peek();
            if let Some(b'\\') = line.and_then(|line| line.first()) {
                if sides.0 {
                    drop_newline(&mut hunk.old);
                }
                if sides.1 {
                    drop_newline(&mut hunk.new);
                }
                sides = (false, false);
                self.next += 1;
                continue;
            }
            if old_left == 0 && new_left == 0 {
                return Ok(hunk);
            }
            let line = line.ok_or_else(|| self.fault(DiffFault::Truncated))?;
            let (text, is_old, is_new) = match line {
                [b' ', text @ ..] => (text, true, true),
                [b'-', text @ ..] => (text, true, false),
                [b'+', text @ ..] => (text, false, true),
                // Mail programs and editors take the blank from an empty line of context.
                b"\n" | b"\r\n" => (line, true, true),
                _ => return Err(self.fault(DiffFault::HunkLine)),
            };
            let has_room = (!is_old || old_left > 0) && (!is_new || new_left > 0);
            if !has_room {
                return Err(self.fault(DiffFault::HunkLine));
            }
            if is_old {
                hunk.old.push(text);
                old_left -= 1;
            }
            if is_new {
                hunk.new.push(text);
                new_left -= 1;
            }
            sides = (is_old, is_new);
            self.next += 1;
        }
    }
}

/// `text`, which is on `line`, without its first `strip` components.
fn name(text: &[u8], strip: usize, line: usize) -> Result<Relative, DiffError> {
    let fault = |fault| DiffError { line, fault };
    if text.starts_with(b"\"") {
        return Err(fault(DiffFault::QuotedName));
    }
    let mut rest = text;
    for _ in 0..strip {
        let slash = rest.iter().position(|byte| *byte == b'/');
        rest = &rest[slash.ok_or(fault(DiffFault::ShortName))?..];
        while let Some(after) = rest.strip_prefix(b"/") {
            rest = after;
        }
    }
    let name = Relative::parse(rest).map_err(|cause| fault(DiffFault::Name(cause)))?;
    if name.is_root() {
        return Err(fault(DiffFault::ShortName));
    }
    Ok(name)
}

/// `\ No newline at end of file`.
fn drop_newline(lines: &mut [&[u8]]) {
    if let Some(last) = lines.last_mut() {
        *last = last.strip_suffix(b"\n").unwrap_or(last);
    }
}

/// Where the old lines start, and how many old and new lines there are:
/// `@@ -start[,count] +start[,count] @@`.
fn ranges(header: &[u8]) -> Option<(usize, usize, usize)> {
    let header = String::from_utf8_lossy(header);
    let header = header.strip_prefix("@@ -")?;
    let (ranges, _) = header.split_once(" @@")?;
    let (old, new) = ranges.split_once(" +")?;
    let (old_start, old_count) = range(old)?;
    let (_, new_count) = range(new)?;
    (old_start > 0 || old_count == 0).then_some((old_start, old_count, new_count))
}

fn range(text: &str) -> Option<(usize, usize)> {
    let (start, count) = text.split_once(',').unwrap_or((text, "1"));
    // A `u32` keeps sums of them far from overflow.
    let number = |text: &str| text.parse::<u32>().ok().map(|number| number as usize);
    Some((number(start)?, number(count)?))
}

/// The name in a line that begins with `--- ` or `+++ `, and whether it says that there is no such
/// file: by `/dev/null`, or by the start of the epoch in some time zone, which is what
/// `diff -N` writes.
fn file_name(line: &[u8]) -> (&[u8], bool) {
    let line = &trim(line)[4..];
    let tab = line.iter().position(|byte| *byte == b'\t');
    let (name, time) = line.split_at(tab.unwrap_or(line.len()));
    let time = time.trim_ascii();
    let is_absent = name == b"/dev/null"
        || time.starts_with(b"1970-01-01 ")
        || time.starts_with(b"1969-12-31 ");
    (name, is_absent)
}

/// The one name in `a/NAME b/NAME`, with its prefix.
fn same_name(names: &[u8]) -> Option<&[u8]> {
    let middle = names.len() / 2;
    let (old, new) = names.split_at(middle);
    let new = new.strip_prefix(b" ")?;
    (old.strip_prefix(b"a/")? == new.strip_prefix(b"b/")?).then_some(new)
}

fn is_extended(line: &[u8]) -> bool {
    const KNOWN: [&[u8]; 5] = [
        b"index ",
        b"old mode ",
        b"new mode ",
        b"similarity index ",
        b"dissimilarity index ",
    ];
    KNOWN.iter().any(|known| line.starts_with(known))
}

fn is_binary(line: &[u8]) -> bool {
    let line = trim(line);
    line == b"GIT binary patch"
        || (line.starts_with(b"Binary files ") && line.ends_with(b" differ"))
}

/// `line` without its end.
fn trim(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}
