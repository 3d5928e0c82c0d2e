//! Contents: what two files are, and who compares them.

use protocol::nar;
use serde::Serialize;

use super::{
    Budget, Bytes, Difference, Members, Sides, Text, Wasm, archive, bytes, limits, text, tree, wasm,
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

/// Why a file is not looked into, though it begins like one that could be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Unread {
    #[error("not a whole WebAssembly module")]
    Wasm(#[source] wasm::Damage),
    #[error("not a whole `ar` archive")]
    Members(#[source] archive::Damage),
    #[error("not a whole NAR")]
    Tree(#[source] nar::ReadError),
    #[error("an archive of {length} bytes in an archive; at most {max} are looked into", max = limits::NESTED_BYTES)]
    Large { length: usize },
    #[error("archives in archives in archives, too deep")]
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
        Ok(wasm::compare(left, right).map_err(Unread::Wasm)?.map(Content::Wasm))
    } else if both(archive::is_archive) {
        let found = budget.deeper(|budget| archive::compare(left, right, budget)).ok_or(Unread::Deep)?;
        Ok(found.map_err(Unread::Members)?.map(Content::Members))
    } else if both(is_nar) {
        budget.deeper(|budget| nested(left, right, budget)).ok_or(Unread::Deep)?.map(Some)
    } else if both(text::is_text) {
        Ok(text::compare(left, right).map(Content::Text))
    } else {
        Ok(None)
    }
}

/// Whether a file begins like a NAR.
fn is_nar(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x0d\0\0\0\0\0\0\0nix-archive-1\0\0\0")
}

fn nested(left: &[u8], right: &[u8], budget: &mut Budget) -> Result<Content, Unread> {
    let length = left.len().max(right.len());
    if length > limits::NESTED_BYTES {
        return Err(Unread::Large { length });
    }
    let left = tree::Archive::read(left).map_err(Unread::Tree)?;
    let right = tree::Archive::read(right).map_err(Unread::Tree)?;
    Ok(Content::Tree(tree::compare(&left, &right, budget)))
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
