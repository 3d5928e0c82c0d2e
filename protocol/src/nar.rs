//! The archive in which files come and go: Nix's NAR, made strict (SPEC §8).
//!
//! ```text
//! read.rs   bytes ──▶ Index: where each file lies, to be read in place
//! write.rs  directories, files, symlinks in order ──▶ bytes
//! wire.rs   the tokens both are made of
//! ```
//!
//! One tree has one archive, byte for byte what `nix-store --dump` writes, so its hash is the hash
//! of the tree. The reader accepts nothing else: an archive is accepted only if writing its index
//! again gives back the same bytes.

mod read;
mod wire;
mod write;

pub use read::{Children, Fault, Index, Node, NodeId, ReadError};
pub use write::{WriteError, Writer, dump_file};
