//! Every size and count limit of the formats (SPEC §2), with its reason.

/// Longest encoding of a derivation or an action, in bytes. A link step names every object it
/// links; 10,000 of them fit ten times.
pub const DERIVATION_BYTES: usize = 4 << 20;

/// Steps of one derivation.
pub const STEPS: usize = 4096;

/// Inputs of one derivation.
pub const INPUTS: usize = 16_384;

/// Outputs of one derivation; each is a directory of the guest's root.
pub const OUTPUTS: usize = 1024;

/// Longest mount name and longest label, in bytes.
pub const NAME_BYTES: usize = 128;

/// Longest path a guest may be given or may ask for, in bytes (as Linux `PATH_MAX`).
pub const PATH_BYTES: usize = 4096;

/// Longest pattern of [`crate::glob`], in bytes.
pub const GLOB_BYTES: usize = 1024;

/// Longest location a fetch may name, in bytes.
pub const LOCATION_BYTES: usize = 4096;

/// Deepest node of an archive, the root being at 0. Nix refuses the same; it keeps recursive
/// readers elsewhere safe (CVE-2026-44028).
pub const NAR_DEPTH: usize = 64;

/// Longest name of a directory entry, in bytes (as Linux `NAME_MAX`, and as Nix).
pub const NAR_NAME_BYTES: usize = 255;

/// Longest symlink target, in bytes (as Linux `PATH_MAX` without its NUL, and as Nix).
pub const NAR_TARGET_BYTES: usize = 4095;

/// Nodes of one archive. The index costs 48 bytes for each.
pub const NAR_NODES: usize = 1 << 22;

/// Longest encoding of a statement, in bytes: an attestation of [`OUTPUTS`] outputs with the longest names fits.
pub const STATEMENT_BYTES: usize = 256 << 10;

/// Longest evidence file, in bytes: a million statements of the usual 300 bytes.
pub const EVIDENCE_BYTES: u64 = 1 << 30;

/// Latest time of a statement, in seconds since 1970: the end of the year 9999, so that any time can be shown.
pub const LATEST_TIME: u64 = 253_402_300_799;

/// Longest request of a node, in bytes: a question about [`NARS`] archives fits.
pub const REQUEST_BYTES: usize = 9 << 10;

/// Archives in one question.
pub const NARS: usize = 256;

/// Bytes of a group of an archive, which is proven as one: as small as hashing them costs no more
/// than hashing the whole.
pub const GROUP_BYTES: u64 = 16 << 10;

/// Bytes of a piece of an archive, which is sent as one: what a liar can waste, and what is asked of
/// somebody else if it does not come.
pub const PIECE_BYTES: u64 = 1 << 20;

/// Longest body of a piece, in bytes, compressed or not: its 64 groups, the 63 nodes of the tree
/// between them, and at most 44 above, with 64 bytes each.
pub const PIECE_BODY_BYTES: u64 = PIECE_BYTES + (16 << 10);

/// Longest request for a piece, and longest answer before the piece, in bytes.
pub const RANGE_BYTES: usize = 64;

/// Longest answer of a node, in bytes: an equivocation of two longest statements fits.
pub const ANSWER_BYTES: usize = 1 << 20;

/// Longest end of a log that is answered with, in bytes: what failed stands there.
pub const LOG_BYTES: usize = 64 << 10;

/// Steps and calls in a trace, 8 bytes each: a compiler makes some ten thousand calls.
pub const TRACE_MARKS: usize = 1 << 23;

/// Longest gossip, in bytes: it is sent several times over, so larger things are left to be asked for.
pub const GOSSIP_BYTES: usize = 32 << 10;

/// Heads in one answer: 110 bytes each.
pub const HEADS: usize = 4096;

/// Statements and proofs in one answer, or in one gossip.
pub const ITEMS: usize = 1024;

/// Actions in one wish: 34 bytes each. It fits into one gossip.
pub const WISHES: usize = 256;

/// Addresses in a ticket, and bytes of one.
pub const TICKET_ADDRESSES: usize = 8;
/// See [`TICKET_ADDRESSES`].
pub const ADDRESS_BYTES: usize = 256;

/// Longest text of a ticket, in characters: the longest addresses fit, and a QR code has room for it.
pub const TICKET_BYTES: usize = 4096;

/// Derivations of one graph that is built, or resolved by hashes.
pub const GRAPH: usize = 1 << 20;
