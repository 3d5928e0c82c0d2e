//! Differences: where two outputs of one action are not the same.
//!
//! ```text
//! two NARs ─▶ tree.rs ─▶ content.rs ─┬▶ text.rs      lines
//!              ▲                     ├▶ wasm.rs      sections, functions, instructions
//!              └── a NAR in a NAR ───┼▶ archive.rs   members of a static library, each again
//!                                    └▶ bytes.rs     all else, and whatever is damaged
//! Difference ─▶ render.rs ─▶ rows, and text, for people; JSON by serde
//! ```
//!
//! Pure: bytes in, a value out. The archives come from builders who disagree, so at least one of them
//! may be hostile. Nothing of theirs is shown that has not gone through [`protocol::plain`]; what is
//! looked at and what is reported is bounded (`limits.rs`); nothing is copied that grows with a file.
//!
//! Two archives that are not equal byte for byte always have a difference: where a format has
//! nothing to say, bytes are shown.
//!
//! Absent on purpose: compressed archives, which would have to be unpacked to be looked into.

mod archive;
mod bytes;
mod content;
mod limits;
mod render;
#[cfg(test)]
mod tests;
mod text;
mod tree;
mod wasm;

use std::fmt;

use protocol::nar;
use serde::Serialize;

pub use archive::{Field, Member, MemberChange, Members};
pub use bytes::{Bytes, Window};
pub use content::Content;
pub use render::{Place, Row};
pub use text::{Hunk, Line, LineKind, Text};
pub use tree::{Change, Entry, Kind};
pub use wasm::{Code, Detail, Instruction, Item, ItemKind, Section, Tally, Wasm};

/// The same of both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Sides<T> {
    /// Of the first archive.
    pub left: T,
    /// Of the second.
    pub right: T,
}

impl<T> Sides<T> {
    fn map<U>(self, of: impl Fn(T) -> U) -> Sides<U> {
        Sides { left: of(self.left), right: of(self.right) }
    }
}

impl<T: PartialEq> Sides<T> {
    /// Both, unless they are the same.
    fn differing(left: T, right: T) -> Option<Self> {
        (left != right).then_some(Self { left, right })
    }
}

/// One of the two archives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Side {
    /// The first.
    Left,
    /// The second.
    Right,
}

impl fmt::Display for Side {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(match self {
            Self::Left => "left",
            Self::Right => "right",
        })
    }
}

/// What is not the same in two archives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// Bytes of the archives.
    pub lengths: Sides<u64>,
    /// Entries that differ, in the order of the archive.
    pub entries: Vec<Entry>,
    /// Further entries that differ.
    pub omitted: u64,
}

impl Difference {
    /// Whether the archives are the same, byte for byte.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.omitted == 0
    }
}

/// Why archives cannot be compared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompareError {
    /// The first is not an archive (SPEC §8).
    #[error("the first is not an archive")]
    Left(#[source] nar::ReadError),
    /// The second is not an archive (SPEC §8).
    #[error("the second is not an archive")]
    Right(#[source] nar::ReadError),
}

/// Says where two archives differ, each of which is the whole of its bytes.
///
/// # Errors
///
/// [`CompareError`] if one of them is not a NAR. What is inside of them may be damaged or hostile as
/// it likes: nothing panics, and beside the bytes, which may be mapped files, at most 512 MiB are
/// taken for archives of 1 GiB.
pub fn compare(left: &[u8], right: &[u8]) -> Result<Difference, CompareError> {
    let left = tree::Archive::read(left).map_err(CompareError::Left)?;
    let right = tree::Archive::read(right).map_err(CompareError::Right)?;
    Ok(tree::compare(&left, &right, &mut Budget::new()))
}

/// What may still be reported.
struct Budget {
    entries: usize,
    opened: usize,
    depth: usize,
}

impl Budget {
    fn new() -> Self {
        Self { entries: limits::ENTRIES, opened: limits::OPENED, depth: limits::DEPTH }
    }

    /// Takes one of those that are left; `false` if none is.
    fn entry(&mut self) -> bool {
        take(&mut self.entries)
    }

    fn open(&mut self) -> bool {
        take(&mut self.opened)
    }

    /// Does something one archive deeper; `None` if that would be too deep.
    fn deeper<T>(&mut self, deed: impl FnOnce(&mut Self) -> T) -> Option<T> {
        if !take(&mut self.depth) {
            return None;
        }
        let done = deed(self);
        self.depth += 1;
        Some(done)
    }
}

fn take(left: &mut usize) -> bool {
    let some = *left > 0;
    *left = left.saturating_sub(1);
    some
}
