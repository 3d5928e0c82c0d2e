//! The bytes of a file that a build writes: in memory, and on disk when they become many.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// A file beyond this many bytes moves to disk, so that a build's own memory stays small beside
/// the guest's. Objects and programs are far below it.
const SPILL_BYTES: u64 = 64 << 20;

/// All files together may hold this many bytes in memory before those of some size move.
const MEMORY_BYTES: u64 = 512 << 20;

/// A file of at most this many bytes stays in memory: a descriptor for each would be too many.
const SMALL_BYTES: u64 = 1 << 20;

/// Where files spill to, and how much is held in memory.
pub(super) struct Spill {
    directory: PathBuf,
    in_memory: u64,
}

impl Spill {
    /// Spills to unnamed files in `directory`.
    pub(super) fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), in_memory: 0 }
    }
}

/// The bytes of one file.
pub(super) enum Content {
    Memory(Vec<u8>),
    Disk { file: File, len: u64 },
}

impl Content {
    pub(super) const fn empty() -> Self {
        Self::Memory(Vec::new())
    }

    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::Disk { len, .. } => *len,
        }
    }

    /// Reads from `at`; fewer bytes than asked for only at the end.
    pub(super) fn read(&self, at: u64, to: &mut [u8]) -> io::Result<usize> {
        let left = self.len().saturating_sub(at);
        let n = left.min(to.len() as u64) as usize;
        match self {
            Self::Memory(bytes) if n > 0 => to[..n].copy_from_slice(&bytes[at as usize..][..n]),
            Self::Memory(_) => {}
            Self::Disk { file, .. } => file.read_exact_at(&mut to[..n], at)?,
        }
        Ok(n)
    }

    /// Writes at `at`; a gap before it reads as zeros.
    pub(super) fn write(&mut self, at: u64, from: &[u8], spill: &mut Spill) -> io::Result<()> {
        let end = at + from.len() as u64;
        if end > self.len() {
            self.resize(end, spill)?;
        }
        match self {
            Self::Memory(bytes) => bytes[at as usize..][..from.len()].copy_from_slice(from),
            Self::Disk { file, .. } => file.write_all_at(from, at)?,
        }
        Ok(())
    }

    /// Cuts, or grows with zeros.
    pub(super) fn resize(&mut self, to: u64, spill: &mut Spill) -> io::Result<()> {
        if let Self::Memory(bytes) = self {
            let old = bytes.len() as u64;
            let grown = spill.in_memory - old + to;
            if to <= old || to <= SMALL_BYTES || (to <= SPILL_BYTES && grown <= MEMORY_BYTES) {
                bytes.resize(to as usize, 0);
                if to < old / 2 {
                    bytes.shrink_to_fit();
                }
                spill.in_memory = grown;
                return Ok(());
            }
            let file = tempfile::tempfile_in(&spill.directory)?;
            file.write_all_at(bytes, 0)?;
            spill.in_memory -= old;
            *self = Self::Disk { file, len: old };
        }
        if let Self::Disk { file, len } = self {
            file.set_len(to)?;
            *len = to;
        }
        Ok(())
    }

    /// Gives back what it holds in memory.
    pub(super) fn release(&self, spill: &mut Spill) {
        if let Self::Memory(bytes) = self {
            spill.in_memory -= bytes.len() as u64;
        }
    }
}

/// Reads a [`Content`] from its start.
pub(super) struct Reader<'c> {
    pub(super) content: &'c Content,
    pub(super) at: u64,
}

impl io::Read for Reader<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let n = self.content.read(self.at, to)?;
        self.at += n as u64;
        Ok(n)
    }
}
