//! Frames: `[u32 LE len][u32 LE crc32c of the payload][payload]`, and finding them again among
//! damage.

use minicbor::{Encode as _, Encoder, decode::Error as Malformed};

use crate::fact::{FACT_BYTES, Fact};

/// Bytes of a frame before its payload.
pub(crate) const FRAME_BYTES: u32 = 8;

/// What stands in the head of a segment before its journal's id.
const HEAD: &str = "assize journal 1";

/// A whole record: its length is possible and its checksum right.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame<'b> {
    pub(crate) crc: u32,
    pub(crate) payload: &'b [u8],
}

/// What a stretch of a segment is.
#[derive(Debug)]
pub(crate) enum Piece<'b> {
    /// A record at `at`.
    Record { at: u32, frame: Frame<'b> },
    /// No record: damage, or an append that was not finished.
    Gap { from: u32, to: u32 },
}

/// Appends a frame to `bytes` and returns its checksum.
pub(crate) fn put(bytes: &mut Vec<u8>, payload: &[u8]) -> u32 {
    debug_assert!(!payload.is_empty() && payload.len() <= FACT_BYTES);
    let crc = crc32c::crc32c(payload);
    bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes.extend_from_slice(payload);
    crc
}

/// The whole record that `bytes` begin with.
///
/// An empty payload is none: a run of zeros, which is what a crash leaves, would be full of them.
pub(crate) fn whole(bytes: &[u8]) -> Option<Frame<'_>> {
    let (len, rest) = bytes.split_first_chunk::<4>()?;
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    let len = u32::from_le_bytes(*len) as usize;
    if len == 0 || len > FACT_BYTES {
        return None;
    }
    let frame = Frame { crc: u32::from_le_bytes(*crc), payload: rest.get(..len)? };
    (crc32c::crc32c(frame.payload) == frame.crc).then_some(frame)
}

/// Splits a segment's bytes, which start at its byte `start`, into records and gaps, which meet.
pub(crate) fn pieces(bytes: &[u8], start: u32) -> impl Iterator<Item = Piece<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        if at >= bytes.len() {
            return None;
        }
        let from = start + at as u32;
        if let Some(frame) = whole(&bytes[at..]) {
            at += FRAME_BYTES as usize + frame.payload.len();
            return Some(Piece::Record { at: from, frame });
        }
        at = (at + 1..bytes.len()).find(|at| plausible(&bytes[*at..])).unwrap_or(bytes.len());
        Some(Piece::Gap { from, to: start + at as u32 })
    })
}

/// Whether a record starts here, asked of every byte behind a gap: cheap for almost all of them.
fn plausible(bytes: &[u8]) -> bool {
    // Every payload is a CBOR array of 2 to 8 elements that begins with a small number.
    let Some([_, _, len2, 0, _, _, _, _, 0x82..=0x88, 0..=5]) = bytes.first_chunk::<10>() else {
        return false;
    };
    usize::from(*len2) <= FACT_BYTES >> 16
        && whole(bytes).is_some_and(|f| Fact::from_bytes(f.payload).is_ok() || read_head(f.payload).is_some())
}

/// The first record of a segment: which journal it is of, and its number.
pub(crate) fn head(id: [u8; 16], segment: u32) -> Vec<u8> {
    let mut payload = Vec::new();
    let mut e = Encoder::new(&mut payload);
    // Writing to a vector cannot fail.
    let _ = e.array(4).and_then(|e| e.u8(HEAD_KIND)).and_then(|e| e.str(HEAD));
    let _ = e.bytes(&id).and_then(|e| segment.encode(e, &mut ()));
    let mut bytes = Vec::new();
    put(&mut bytes, &payload);
    bytes
}

/// The kind number behind those of [`Fact`].
const HEAD_KIND: u8 = 4;

/// Reads the payload of a segment's first record.
pub(crate) fn read_head(payload: &[u8]) -> Option<([u8; 16], u32)> {
    let read = || -> Result<_, Malformed> {
        let mut d = minicbor::Decoder::new(payload);
        let known = d.array()? == Some(4) && d.u8()? == HEAD_KIND && d.str()? == HEAD;
        let id = <[u8; 16]>::try_from(d.bytes()?).map_err(|_| Malformed::message("id"))?;
        let segment = d.u32()?;
        Ok((known && d.position() == payload.len()).then_some((id, segment)))
    };
    read().ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(names: &[&str]) -> Vec<u8> {
        let mut bytes = head([1; 16], 1);
        for name in names {
            put(&mut bytes, &Fact::Unpinned { name: (*name).into() }.to_bytes());
        }
        bytes
    }

    fn names(bytes: &[u8]) -> Vec<String> {
        let record = |piece| match piece {
            Piece::Record { frame, .. } => match Fact::from_bytes(frame.payload) {
                Ok(Fact::Unpinned { name }) => Some(name),
                _ => None,
            },
            Piece::Gap { .. } => None,
        };
        pieces(bytes, 0).filter_map(record).collect()
    }

    /// A record of any kind is found again behind a damaged one.
    #[test]
    fn every_kind_is_found_behind_damage() {
        let damaged = Fact::Unpinned { name: "damaged".into() }.to_bytes();
        for fact in crate::fact::samples() {
            let mut bytes = head([1; 16], 1);
            let start = bytes.len();
            put(&mut bytes, &damaged);
            bytes[start + FRAME_BYTES as usize + 4] ^= 1;
            put(&mut bytes, &fact.to_bytes());
            let last = pieces(&bytes, 0).last();
            let found = matches!(last, Some(Piece::Record { frame, .. }) if frame.payload == fact.to_bytes());
            assert!(found, "{fact:?}");
        }
    }

    #[test]
    fn one_flip_costs_one_record() {
        let all = ["one", "two", "three", "four"];
        let bytes = segment(&all);
        assert_eq!(names(&bytes), all);
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut bytes = bytes.clone();
                bytes[at] ^= 1 << bit;
                let found = names(&bytes);
                let gaps = pieces(&bytes, 0).filter(|p| matches!(p, Piece::Gap { .. })).count();
                assert_eq!(gaps, 1, "byte {at} bit {bit}");
                assert!(found.len() >= all.len() - 1, "byte {at} bit {bit}: {found:?}");
                assert!(found.iter().all(|n| all.contains(&n.as_str())));
            }
        }
    }

    #[test]
    fn every_cut_keeps_the_prefix() {
        let all = ["one", "two", "three", "four"];
        let bytes = segment(&all);
        for cut in 0..bytes.len() {
            let found = names(&bytes[..cut]);
            assert_eq!(found, all[..found.len()]);
        }
    }

    #[test]
    fn zeros_are_no_records() {
        let mut bytes = segment(&["one"]);
        bytes.resize(bytes.len() + 4096, 0);
        bytes.extend(segment(&["two"]));
        assert_eq!(names(&bytes), ["one", "two"]);
    }

    #[test]
    fn head_round_trips() {
        let bytes = head([3; 16], 70_000);
        assert_eq!(read_head(whole(&bytes).unwrap().payload), Some(([3; 16], 70_000)));
    }
}
