//! What the stage 0 tools share.
//!
//! ```text
//! glob.rs      which files are meant
//! path.rs      where a file may be: relative, and never upwards
//! tree.rs      what is in a directory, in byte order; making directories, files and symlinks
//! command.rs   arguments in, one line on stderr and an exit code out
//! ```
//!
//! Absent on purpose: permissions, owners and times, which neither WASI nor a build's output has.

#![forbid(unsafe_code)]

pub mod command;
pub mod glob;
pub mod path;
pub mod tree;
