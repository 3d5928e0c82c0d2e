//! Bytes: what is shown of a file that nothing better is known of.

use serde::Serialize;

use super::{Sides, limits};

/// Where two sequences of bytes differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Bytes {
    /// How many there are.
    pub lengths: Sides<u64>,
    /// Offset of the first that differs, or that only one side has.
    pub first: u64,
    /// What is around it.
    pub windows: Sides<Window>,
    /// Why they are shown as bytes, where they look like something that is looked into.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unread: Option<String>,
}

/// Some bytes of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Window {
    /// Offset of the first.
    pub at: u64,
    /// They, in hexadecimal, two digits for each.
    pub hex: String,
}

/// Compares bytes; `None` if they are the same.
pub(super) fn compare(left: &[u8], right: &[u8]) -> Option<Bytes> {
    let first = first(left, right)?;
    // A row of context above the row of the difference.
    let at = (first & !15).saturating_sub(16);
    let window = |bytes: &[u8]| {
        let end = bytes.len().min(at + limits::WINDOW_BYTES);
        let shown = bytes.get(at..end).unwrap_or_default();
        Window { at: at as u64, hex: shown.iter().map(|byte| format!("{byte:02x}")).collect() }
    };
    Some(Bytes {
        lengths: lengths(left, right),
        first: first as u64,
        windows: Sides { left, right }.map(window),
        unread: None,
    })
}

pub(super) fn lengths(left: &[u8], right: &[u8]) -> Sides<u64> {
    Sides { left, right }.map(|bytes| bytes.len() as u64)
}

/// Offset of the first byte that differs; `None` if all are the same.
pub(super) fn first(left: &[u8], right: &[u8]) -> Option<usize> {
    /// Blocks are compared whole, which is as quick as memory.
    const BLOCK: usize = 4096;
    let common = left.len().min(right.len());
    let blocks = left[..common].chunks(BLOCK).zip(right[..common].chunks(BLOCK));
    for (n, (left, right)) in blocks.enumerate() {
        if left != right {
            let within = left.iter().zip(right).position(|(left, right)| left != right);
            return within.map(|within| n * BLOCK + within);
        }
    }
    (left.len() != right.len()).then_some(common)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_around_the_first_difference() {
        let check = |left: &[u8], right: &[u8], expected: Option<(u64, u64, usize, usize)>| {
            let found = compare(left, right);
            let shown = found.map(|b| {
                (b.first, b.windows.left.at, b.windows.left.hex.len() / 2, b.windows.right.hex.len() / 2)
            });
            assert_eq!(shown, expected);
        };
        check(b"", b"", None);
        check(b"same", b"same", None);
        check(b"abc", b"abd", Some((2, 0, 3, 3)));
        check(b"", b"abc", Some((0, 0, 0, 3)));
        let zeros = [0; 10_000];
        check(&zeros[..9000], &zeros, Some((9000, 8976, 24, 64)));
        let mut other = zeros;
        other[5001] = 1;
        check(&zeros, &other, Some((5001, 4976, 64, 64)));
    }
}
