//! The tokens of the archive: a length in 8 bytes, little-endian, the bytes, zeros up to a
//! multiple of 8 (SPEC §8.1).

/// The first token.
pub(super) const MAGIC: &[u8] = b"nix-archive-1";

/// Bytes of padding behind `len` bytes.
pub(super) const fn padding(len: u64) -> u64 {
    (8 - len % 8) % 8
}

/// Appends a token.
pub(super) fn put(to: &mut Vec<u8>, token: &[u8]) {
    to.extend_from_slice(&(token.len() as u64).to_le_bytes());
    to.extend_from_slice(token);
    to.extend_from_slice(&[0; 8][..padding(token.len() as u64) as usize]);
}
