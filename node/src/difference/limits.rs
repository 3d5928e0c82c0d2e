//! How much of a difference is reported, and how much is looked at to find it.
//!
//! What is compared was made by strangers, one of whom may want the comparison to fail. Whatever
//! exceeds a limit here is counted instead of shown, or shown as bytes.

/// Entries of directories and members of archives that are reported, all together.
pub(super) const ENTRIES: usize = 1000;

/// Files whose contents are looked into; of further ones only the lengths are told.
pub(super) const OPENED: usize = 32;

/// Archives inside archives: an object in a library in an archive is the usual case.
pub(super) const DEPTH: usize = 4;

/// Longest archive inside an archive that is indexed: its index may take a third of its size.
pub(super) const NESTED_BYTES: usize = 128 << 20;

/// Bytes of a path that are shown.
pub(super) const PATH_BYTES: usize = 1024;

/// Bytes of any other name that are shown.
pub(super) const NAME_BYTES: usize = 256;

/// Lines on either side, common beginning and end left aside, that are compared: a second's work
/// at worst.
pub(super) const TEXT_COMPARED: usize = 100_000;

/// Lines of a text that are shown.
pub(super) const TEXT_SHOWN: usize = 200;

/// Bytes of a line that are shown.
pub(super) const LINE_BYTES: usize = 240;

/// Unchanged lines around changed ones.
pub(super) const CONTEXT: usize = 3;

/// Bytes of a file that are shown around the first difference, four rows of 16.
pub(super) const WINDOW_BYTES: usize = 64;

/// Members of an `ar` archive.
pub(super) const MEMBERS: usize = 1 << 16;

/// Sections of a module.
pub(super) const SECTIONS: usize = 1 << 14;

/// Functions of a module, as engines allow.
pub(super) const FUNCTIONS: usize = 1_000_000;

/// Imports, exports, globals, types, segments of a module, of each kind. Together with a
/// million functions, and the indices of two archives of as many entries as there may be, they are
/// reckoned to fit into the 512 MiB that [`super::compare`] speaks of.
pub(super) const ITEMS: usize = 1 << 16;

/// Longest module, in bytes. Reading an expression takes a byte for each block that is open, which
/// is half the module at worst.
pub(super) const MODULE_BYTES: usize = 512 << 20;

/// Longest section, in bytes, of those that are neither code nor data nor custom.
pub(super) const SECTION_BYTES: usize = 64 << 20;

/// Longest type section, in bytes. One type can take twenty times its bytes while it is read.
pub(super) const TYPES_BYTES: usize = 4 << 20;

/// Longest function, in bytes, as engines allow.
pub(super) const FUNCTION_BYTES: usize = 7_654_321;

/// Sections of a module that are reported.
pub(super) const SECTIONS_SHOWN: usize = 100;

/// Items of a module that are reported, of each kind.
pub(super) const ITEMS_SHOWN: usize = 50;

/// Functions of a module that are disassembled around their first difference.
pub(super) const DISASSEMBLED: usize = 3;

/// Instructions that are shown before the first that differs.
pub(super) const INSTRUCTIONS_BEFORE: usize = 5;

/// Instructions that are shown from the first that differs on.
pub(super) const INSTRUCTIONS_AFTER: usize = 8;

/// Bytes of an instruction's text that are shown.
pub(super) const INSTRUCTION_BYTES: usize = 160;
