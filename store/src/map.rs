//! Files as memory: the one place of this crate with `unsafe`.
//!
//! A mapping is sound as long as nobody changes or shortens the file below it. Two kinds of files
//! are mapped, and for both that holds as long as only this crate writes below the store's home:
//!
//! * archives in `cas/`: they get their name whole and with mode 0444, are never opened for
//!   writing afterwards, and are removed by unlinking, which leaves mappings alone;
//! * archives in `tmp/` (mode 0700) that are about to become the former: their one writer has
//!   handed the file over to us.
//!
//! Whoever writes below the home by other means can crash this process (SIGBUS) or feed it bytes
//! that differ from one reading to the next; so can whoever owns the disk.
#![allow(unsafe_code)]

use std::{fs::File, io, ops::Deref};

/// The content of a file.
#[derive(Debug)]
pub(crate) struct Map(memmap2::Mmap);

/// Maps the whole of `file`, which must be of one of the kinds above.
pub(crate) fn map(file: &File) -> io::Result<Map> {
    // SAFETY: nobody changes or shortens the file, for the reasons in the header of this module.
    unsafe { memmap2::Mmap::map(file) }.map(Map)
}

impl Map {
    /// Says that it is about to be read from front to back.
    pub(crate) fn read_ahead(&self) {
        // It is advice: nothing depends on its being taken.
        let _ = self.0.advise(memmap2::Advice::Sequential);
    }
}

impl Deref for Map {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
