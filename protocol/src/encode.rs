//! The canonical encoding: deterministic CBOR (RFC 8949 §4.2.1, SPEC §4), the only encoder and decoder.
//!
//! Structures are arrays in field order; lengths are definite; there are no maps, floats, tags or
//! unknown fields. minicbor accepts more than that, so a decoder here reads, demands the end of the
//! input, encodes again and compares: one value has one encoding. What is encoded again is compared
//! piece by piece and kept nowhere.

use std::convert::Infallible;

use minicbor::{Decode, Encode, encode::Write};

/// Why bytes are not the canonical encoding of a value.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Longer than the limit for its kind; nothing was parsed.
    #[error("{len} bytes, but at most {limit} are allowed")]
    TooLong {
        /// Bytes given.
        len: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// Not CBOR, or CBOR of another shape, or a value that breaks a rule of its type.
    #[error("not a valid encoding")]
    Malformed(#[source] minicbor::decode::Error),
    /// Bytes behind the end of the value.
    #[error("byte {at}: {rest} bytes behind the end")]
    Trailing {
        /// Where the value ends.
        at: usize,
        /// How many bytes follow.
        rest: usize,
    },
    /// Another spelling of the same value: a longer integer, an indefinite length, entries out of order.
    #[error("byte {at}: not the canonical form")]
    NotCanonical {
        /// The first byte that differs from the canonical encoding.
        at: usize,
    },
}

/// Encodes a value.
pub fn to_bytes<T: Encode<()>>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(encoded_len(value));
    into_memory(minicbor::encode(value, &mut bytes));
    bytes
}

/// How many bytes a value has when it is encoded.
pub(crate) fn encoded_len<T: Encode<()>>(value: &T) -> usize {
    let mut count = Count(0);
    into_memory(minicbor::encode(value, &mut count));
    count.0
}

/// Decodes a value from all of `bytes`, of which there may be at most `limit`.
///
/// # Errors
///
/// [`DecodeError`], which names the first offending byte. Accepting implies that
/// [`to_bytes`] gives back the same bytes.
pub fn from_bytes<'b, T: Decode<'b, ()> + Encode<()>>(
    bytes: &'b [u8],
    limit: usize,
) -> Result<T, DecodeError> {
    if bytes.len() > limit {
        return Err(DecodeError::TooLong { len: bytes.len(), limit });
    }
    let mut decoder = minicbor::Decoder::new(bytes);
    let value: T = decoder.decode().map_err(DecodeError::Malformed)?;
    if decoder.position() != bytes.len() {
        let at = decoder.position();
        return Err(DecodeError::Trailing { at, rest: bytes.len() - at });
    }
    let mut again = Compare { expected: bytes, at: 0, differs: false };
    into_memory(minicbor::encode(&value, &mut again));
    if again.differs || again.at != bytes.len() {
        return Err(DecodeError::NotCanonical { at: again.at });
    }
    Ok(value)
}

/// The result of writing to memory, which fails in no way; and no type of ours fails to encode.
fn into_memory(result: Result<(), minicbor::encode::Error<Infallible>>) {
    if let Err(never) = result {
        unreachable!("encoding to memory failed: {never}");
    }
}

/// Counts what is written.
struct Count(usize);

impl Write for Count {
    type Error = Infallible;

    fn write_all(&mut self, bytes: &[u8]) -> Result<(), Infallible> {
        self.0 += bytes.len();
        Ok(())
    }
}

/// Compares what is written with what is expected.
struct Compare<'b> {
    expected: &'b [u8],
    /// How many bytes were equal.
    at: usize,
    /// Whether the next one was not.
    differs: bool,
}

impl Write for Compare<'_> {
    type Error = Infallible;

    fn write_all(&mut self, bytes: &[u8]) -> Result<(), Infallible> {
        if !self.differs {
            let rest = &self.expected[self.at..];
            if rest.starts_with(bytes) {
                self.at += bytes.len();
            } else {
                self.at += rest.iter().zip(bytes).take_while(|(a, b)| a == b).count();
                self.differs = true;
            }
        }
        Ok(())
    }
}

/// Demands an array of `len` elements.
pub(crate) fn array(d: &mut minicbor::Decoder<'_>, len: u64) -> Result<(), minicbor::decode::Error> {
    let at = d.position();
    let found = d.array()?;
    elements(at, found, len)
}

/// Demands that an array that begins at `at` and says to have `found` elements has `len`.
pub(crate) fn elements(at: usize, found: Option<u64>, len: u64) -> Result<(), minicbor::decode::Error> {
    match found {
        Some(found) if found == len => Ok(()),
        Some(found) => Err(refuse(at, format!("expected an array of {len} elements, found {found}"))),
        None => Err(refuse(at, "indefinite length")),
    }
}

/// An error at `at` in the words of our own rules.
pub fn refuse(at: usize, why: impl std::fmt::Display) -> minicbor::decode::Error {
    minicbor::decode::Error::message(why).at(at)
}

/// Encodes a type that is an array of bytes and no more as a byte string; `$what` is said of one of
/// another length.
macro_rules! bytes {
    ($type:ident, $what:literal) => {
        impl<C> minicbor::Encode<C> for $type {
            fn encode<W: minicbor::encode::Write>(
                &self,
                e: &mut minicbor::Encoder<W>,
                _: &mut C,
            ) -> Result<(), minicbor::encode::Error<W::Error>> {
                e.bytes(&self.0)?.ok()
            }
        }

        impl<'b, C> minicbor::Decode<'b, C> for $type {
            fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
                let at = d.position();
                d.bytes()?.try_into().map(Self).map_err(|_| $crate::encode::refuse(at, $what))
            }
        }
    };
}
pub(crate) use bytes;

/// A sequence as an array, bounded while it is read.
pub(crate) mod list {
    use super::{Decode, Encode, refuse};

    pub(crate) fn encode<W: minicbor::encode::Write, T: Encode<()>>(
        e: &mut minicbor::Encoder<W>,
        items: impl ExactSizeIterator<Item = T>,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.array(items.len() as u64)?;
        for item in items {
            e.encode(item)?;
        }
        Ok(())
    }

    pub(crate) fn decode<'b, T: Decode<'b, ()>, B: FromIterator<T>>(
        d: &mut minicbor::Decoder<'b>,
        limit: usize,
    ) -> Result<B, minicbor::decode::Error> {
        let at = d.position();
        let len = d.array()?.ok_or_else(|| refuse(at, "indefinite length"))?;
        if len > limit as u64 {
            return Err(refuse(at, format!("{len} elements, but at most {limit} are allowed")));
        }
        (0..len).map(|_| d.decode()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// SPEC §4: every other spelling of `[1, "a"]` is refused, and each for its own reason.
    #[test]
    fn one_spelling() {
        type Pair = (u8, String);
        let ok = [0x82, 0x01, 0x61, b'a'];
        assert_eq!(from_bytes::<Pair>(&ok, 4).unwrap(), (1, "a".into()));
        let at = |bytes: &[u8]| from_bytes::<Pair>(bytes, 64).unwrap_err().to_string();
        assert_eq!(at(&[0x82, 0x18, 0x01, 0x61, b'a']), "byte 1: not the canonical form");
        assert_eq!(at(&[0x98, 0x02, 0x01, 0x61, b'a']), "byte 0: not the canonical form");
        assert_eq!(at(&[0x82, 0x01, 0x61, b'a', 0, 0]), "byte 4: 2 bytes behind the end");
        assert_eq!(at(&[0x9f, 0x01, 0x61, b'a', 0xff]), "not a valid encoding");
        assert_eq!(at(&[0x82, 0x01, 0x7f, 0x61, b'a', 0xff]), "not a valid encoding");
        assert_eq!(at(&[0x82, 0x01, 0x78, 0x01, b'a']), "byte 2: not the canonical form");
        assert_eq!(at(&[0x82, 0x01, 0x62, b'a']), "not a valid encoding");
        assert_eq!(from_bytes::<Pair>(&ok, 3).unwrap_err().to_string(), "4 bytes, but at most 3 are allowed");
    }

    /// SPEC §4: what is sorted has one order, and the first byte that is out of it is named.
    #[test]
    fn one_order() {
        let at = |bytes: &[u8]| from_bytes::<BTreeSet<String>>(bytes, 64).map_err(|e| e.to_string());
        let all = BTreeSet::from(["aa".to_owned(), "ab".to_owned()]);
        assert_eq!(at(b"\x82\x62aa\x62ab"), Ok(all));
        assert_eq!(at(b"\x82\x62ab\x62aa"), Err("byte 3: not the canonical form".into()));
        assert_eq!(at(b"\x82\x62aa\x62aa"), Err("byte 0: not the canonical form".into()));
    }

    /// Reads one integer for each that it is to be, and writes another number of them.
    #[derive(Debug)]
    struct Uneven<const READ: usize, const WRITTEN: usize>(u8);

    impl<C, const READ: usize, const WRITTEN: usize> Encode<C> for Uneven<READ, WRITTEN> {
        fn encode<W: Write>(
            &self,
            e: &mut minicbor::Encoder<W>,
            _: &mut C,
        ) -> Result<(), minicbor::encode::Error<W::Error>> {
            (0..WRITTEN).try_for_each(|_| e.u8(self.0)?.ok())
        }
    }

    impl<'b, C, const READ: usize, const WRITTEN: usize> Decode<'b, C> for Uneven<READ, WRITTEN> {
        fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
            (0..READ).try_fold(Self(0), |_, _| d.u8().map(Self))
        }
    }

    /// What is encoded again is to be all that was read, and no more.
    #[test]
    fn a_part_is_not_the_whole() {
        let refused = |error: DecodeError| error.to_string();
        assert!(from_bytes::<Uneven<1, 1>>(&[7], 1).is_ok());
        let shorter = from_bytes::<Uneven<2, 1>>(&[7, 7], 2).map_err(refused).unwrap_err();
        assert_eq!(shorter, "byte 1: not the canonical form");
        let longer = from_bytes::<Uneven<1, 2>>(&[7], 1).map_err(refused).unwrap_err();
        assert_eq!(longer, "byte 1: not the canonical form");
    }

    #[test]
    fn lengths_are_those_of_the_bytes() {
        for value in ["", "a", &"a".repeat(1000)] {
            assert_eq!(encoded_len(&(1, value)), to_bytes(&(1, value)).len());
        }
    }

    /// SPEC §4: a list is bounded before it is read, and a structure has all of its fields.
    #[test]
    fn arrays_are_counted() {
        let list = |bytes: &[u8]| {
            let read = list::decode::<u8, Vec<u8>>(&mut minicbor::Decoder::new(bytes), 2);
            read.map_err(|e| e.to_string())
        };
        assert_eq!(list(&[0x81, 7]), Ok(vec![7]));
        assert_eq!(list(&[0x82, 7, 8]), Ok(vec![7, 8]));
        assert!(list(&[0x83, 7, 8, 9]).unwrap_err().contains("3 elements, but at most 2 are allowed"));
        assert!(list(&[0x9f, 7, 0xff]).unwrap_err().contains("indefinite length"));
        let fields = |bytes: &[u8]| array(&mut minicbor::Decoder::new(bytes), 2).map_err(|e| e.to_string());
        assert_eq!(fields(&[0x82]), Ok(()));
        assert!(fields(&[0x81]).unwrap_err().contains("expected an array of 2 elements, found 1"));
        assert!(fields(&[0x83]).unwrap_err().contains("expected an array of 2 elements, found 3"));
        assert!(fields(&[0x9f]).unwrap_err().contains("indefinite length"));
    }
}
