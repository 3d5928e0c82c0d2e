//! Contents: what two files are, and who compares them.

use protocol::nar;
use serde::Serialize;

use super::{
    Budget, Bytes, Difference, Members, Side, Sides, Text, Wasm, archive, bytes, limits, text, tree, wasm,
};

/// Where the contents of two files differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Content {
    /// Both are text.
    Text(Text),
    /// Both are WebAssembly modules.
    Wasm(Wasm),
    /// Both are `ar` archives: static libraries.
    Members(Members),
    /// Both are NARs.
    Tree(Difference),
    /// All else.
    Bytes(Bytes),
    /// They were not looked into: too much else has been.
    Unopened {
        /// Their bytes.
        lengths: Sides<u64>,
    },
}

/// Why files are not looked into, though they begin like something that could be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Unread {
    #[error("the {side} one cannot be read as a WebAssembly module")]
    Wasm { side: Side, source: wasm::Damage },
    #[error("the {side} one cannot be read as an `ar` archive")]
    Members { side: Side, source: archive::Damage },
    #[error("the {side} one cannot be read as a NAR")]
    Tree { side: Side, source: nar::ReadError },
    #[error("an archive of {length} bytes in an archive; at most {max} are looked into", max = limits::NESTED_BYTES)]
    Large { length: usize },
    #[error("archives in archives, too deep")]
    Deep,
}

/// Compares the contents of two files; `None` if they are the same.
pub(super) fn compare(left: &[u8], right: &[u8], budget: &mut Budget) -> Option<Content> {
    if left == right {
        return None;
    }
    if !budget.open() {
        return Some(Content::Unopened { lengths: bytes::lengths(left, right) });
    }
    match structured(left, right, budget) {
        Ok(Some(content)) => Some(content),
        Ok(None) => bytes::compare(left, right).map(Content::Bytes),
        Err(why) => {
            let unread = Some(chain(&why));
            bytes::compare(left, right).map(|bytes| Content::Bytes(Bytes { unread, ..bytes }))
        }
    }
}

/// Compares by what both files are; `Ok(None)` if they are not alike, or if what differs is not
/// something that their format speaks of.
fn structured(left: &[u8], right: &[u8], budget: &mut Budget) -> Result<Option<Content>, Unread> {
    let both = |test: fn(&[u8]) -> bool| test(left) && test(right);
    if both(wasm::is_module) {
        let (left, right) =
            read(left, right, wasm::Module::read, |side, source| Unread::Wasm { side, source })?;
        Ok(wasm::compare(&left, &right).map(Content::Wasm))
    } else if both(archive::is_archive) {
        let (left, right) =
            read(left, right, archive::read, |side, source| Unread::Members { side, source })?;
        let found = budget.deeper(|budget| archive::compare(&left, &right, budget));
        Ok(found.ok_or(Unread::Deep)?.map(Content::Members))
    } else if both(is_nar) {
        let length = left.len().max(right.len());
        if length > limits::NESTED_BYTES {
            return Err(Unread::Large { length });
        }
        let (left, right) =
            read(left, right, tree::Archive::read, |side, source| Unread::Tree { side, source })?;
        let found = budget.deeper(|budget| tree::compare(&left, &right, budget));
        found.map(Content::Tree).map(Some).ok_or(Unread::Deep)
    } else if both(text::is_text) {
        Ok(text::compare(left, right).map(Content::Text))
    } else {
        Ok(None)
    }
}

/// Reads both files.
fn read<'a, T, E>(
    left: &'a [u8],
    right: &'a [u8],
    read: impl Fn(&'a [u8]) -> Result<T, E>,
    unread: impl Fn(Side, E) -> Unread,
) -> Result<(T, T), Unread> {
    let left = read(left).map_err(|why| unread(Side::Left, why))?;
    let right = read(right).map_err(|why| unread(Side::Right, why))?;
    Ok((left, right))
}

/// Whether a file begins like a NAR.
fn is_nar(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x0d\0\0\0\0\0\0\0nix-archive-1\0\0\0")
}

/// An error with its causes, plain.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    protocol::plain::line(&text)
}
