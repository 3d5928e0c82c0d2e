//! The bytes of a file that a build writes: in memory, and on disk when they become many.
//!
//! ```text
//! Memory   while all files together are below a limit
//! Arena    a piece of one unnamed file that all share: there may be a million of them
//! Disk     an unnamed file of its own, from a size on at which there can only be a few
//! ```
//!
//! Where bytes are cannot be observed: a guest sees the same, whatever the limits are.

use std::{
    collections::BTreeSet,
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// A file beyond this many bytes has a file of its own on disk: within the disk limit these are at
/// most some hundreds, as descriptors must be.
const SINGLE_BYTES: u64 = 64 << 20;

/// All files together may hold this many bytes in memory, so that a build's own memory stays small
/// beside the guest's.
const MEMORY_BYTES: u64 = 512 << 20;

/// The smallest piece of the arena; pieces are this times a power of two.
const PIECE_BYTES: u64 = 256;

/// Sizes of pieces: the largest is of 128 TiB, which no file that shares reaches.
const SIZES: usize = 40;

/// Bytes copied, or zeroed, at once.
const COPY_BYTES: usize = 256 << 10;

/// Where files spill to, and how much is held in memory.
pub(super) struct Spill {
    directory: PathBuf,
    memory_limit: u64,
    single: u64,
    in_memory: u64,
    arena: Arena,
}

impl Spill {
    /// Spills to unnamed files in `directory`.
    pub(super) fn new(directory: &Path) -> Self {
        Self::with_limits(directory, MEMORY_BYTES, SINGLE_BYTES)
    }

    /// The same with other limits than [`MEMORY_BYTES`] and [`SINGLE_BYTES`].
    pub(super) fn with_limits(directory: &Path, memory_limit: u64, single: u64) -> Self {
        let arena = Arena { file: None, end: 0, free: [const { BTreeSet::new() }; SIZES] };
        Self { directory: directory.to_owned(), memory_limit, single, in_memory: 0, arena }
    }

    /// A place for `len` bytes outside of memory.
    fn outside(&mut self, len: u64) -> io::Result<Content> {
        if len > self.single {
            return Ok(Content::Disk { file: tempfile::tempfile_in(&self.directory)?, len: 0 });
        }
        let file = match &self.arena.file {
            Some(file) => file.clone(),
            None => self.arena.file.insert(Arc::new(tempfile::tempfile_in(&self.directory)?)).clone(),
        };
        Ok(Content::Arena { file, piece: self.arena.take(len), len: 0 })
    }
}

/// The file that small files share, cut into pieces whose places are multiples of their sizes: two
/// halves that are free become one again (a buddy allocator), so a piece that is given back serves
/// any later one. The disk limit counts what is in the pieces; a piece is less than twice that.
struct Arena {
    file: Option<Arc<File>>,
    end: u64,
    /// Places of free pieces, by size.
    free: [BTreeSet<u64>; SIZES],
}

/// A piece of the arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    at: u64,
    size: usize,
}

impl Piece {
    fn bytes(self) -> u64 {
        PIECE_BYTES << self.size
    }
}

impl Arena {
    /// A piece for `len` bytes, with anything in it.
    fn take(&mut self, len: u64) -> Piece {
        let size = len.div_ceil(PIECE_BYTES).next_power_of_two().trailing_zeros() as usize;
        let found = (size..SIZES).find_map(|size| Some(Piece { at: self.free[size].pop_first()?, size }));
        let mut piece = found.unwrap_or_else(|| self.append(size));
        while piece.size > size {
            piece.size -= 1;
            self.free[piece.size].insert(piece.at + piece.bytes());
        }
        piece
    }

    /// A piece at the end; what must be skipped to get to a multiple of its size is free.
    fn append(&mut self, size: usize) -> Piece {
        while !self.end.is_multiple_of(PIECE_BYTES << size) {
            let size = (self.end / PIECE_BYTES).trailing_zeros() as usize;
            let skipped = Piece { at: self.end, size };
            self.end += skipped.bytes();
            self.give_back(skipped);
        }
        let piece = Piece { at: self.end, size };
        self.end += piece.bytes();
        piece
    }

    fn give_back(&mut self, mut piece: Piece) {
        while piece.size + 1 < SIZES && self.free[piece.size].remove(&(piece.at ^ piece.bytes())) {
            piece = Piece { at: piece.at & !piece.bytes(), size: piece.size + 1 };
        }
        self.free[piece.size].insert(piece.at);
    }
}

/// The bytes of one file.
pub(super) enum Content {
    Memory(Vec<u8>),
    Arena { file: Arc<File>, piece: Piece, len: u64 },
    Disk { file: File, len: u64 },
}

impl Content {
    pub(super) const fn empty() -> Self {
        Self::Memory(Vec::new())
    }

    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::Arena { len, .. } | Self::Disk { len, .. } => *len,
        }
    }

    /// Reads from `at`; fewer bytes than asked for only at the end.
    pub(super) fn read(&self, at: u64, to: &mut [u8]) -> io::Result<usize> {
        let left = self.len().saturating_sub(at);
        let n = left.min(to.len() as u64) as usize;
        match self {
            _ if n == 0 => {}
            Self::Memory(bytes) => to[..n].copy_from_slice(&bytes[at as usize..][..n]),
            Self::Arena { file, piece, .. } => file.read_exact_at(&mut to[..n], piece.at + at)?,
            Self::Disk { file, .. } => file.read_exact_at(&mut to[..n], at)?,
        }
        Ok(n)
    }

    /// Writes at `at`; a gap before it reads as zeros.
    pub(super) fn write(&mut self, at: u64, from: &[u8], spill: &mut Spill) -> io::Result<()> {
        if at > self.len() {
            self.resize(at, spill)?;
        }
        let end = at + from.len() as u64;
        self.make_room(end, spill)?;
        match self {
            Self::Memory(bytes) => {
                let (at, old) = (at as usize, bytes.len());
                let over = from.len().min(old - at);
                bytes[at..][..over].copy_from_slice(&from[..over]);
                bytes.extend_from_slice(&from[over..]);
                spill.in_memory += (bytes.len() - old) as u64;
            }
            Self::Arena { file, piece, len } => {
                file.write_all_at(from, piece.at + at)?;
                *len = end.max(*len);
            }
            Self::Disk { file, len } => {
                file.write_all_at(from, at)?;
                *len = end.max(*len);
            }
        }
        Ok(())
    }

    /// Cuts, or grows with zeros.
    pub(super) fn resize(&mut self, to: u64, spill: &mut Spill) -> io::Result<()> {
        self.make_room(to, spill)?;
        let old = self.len();
        match self {
            Self::Memory(bytes) => {
                bytes.resize(to as usize, 0);
                if to < old / 2 {
                    bytes.shrink_to_fit();
                }
                spill.in_memory = spill.in_memory - old + to;
            }
            Self::Arena { file, piece, len } => {
                // Its last user's bytes are there, or its own from before it was cut.
                let zeros = vec![0; COPY_BYTES.min(to.saturating_sub(old) as usize)];
                let mut at = old;
                while at < to {
                    let n = zeros.len().min((to - at) as usize);
                    file.write_all_at(&zeros[..n], piece.at + at)?;
                    at += n as u64;
                }
                *len = to;
            }
            Self::Disk { file, len } => {
                file.set_len(to)?;
                *len = to;
            }
        }
        self.draw_in(spill)
    }

    /// Moves it to where `len` bytes have room, if they have none where it is.
    fn make_room(&mut self, len: u64, spill: &mut Spill) -> io::Result<()> {
        let old = self.len();
        let fits = len <= old
            || match self {
                Self::Memory(_) => len <= spill.single && spill.in_memory - old + len <= spill.memory_limit,
                Self::Arena { piece, .. } => len <= piece.bytes(),
                Self::Disk { .. } => true,
            };
        if fits { Ok(()) } else { self.replace(spill.outside(len)?, spill) }
    }

    /// Gives up a place that has become much too large, above all a descriptor.
    fn draw_in(&mut self, spill: &mut Spill) -> io::Result<()> {
        let len = self.len();
        let place = match self {
            Self::Memory(_) => return Ok(()),
            Self::Arena { piece, .. } => piece.bytes(),
            Self::Disk { .. } => spill.single,
        };
        if len > place / 4 || (len > 0 && place == PIECE_BYTES) {
            return Ok(());
        }
        let new = if len == 0 { Self::empty() } else { spill.outside(len)? };
        self.replace(new, spill)
    }

    /// Becomes `new`, which is empty and has room for it.
    fn replace(&mut self, mut new: Self, spill: &mut Spill) -> io::Result<()> {
        let mut buffer = vec![0; COPY_BYTES.min(self.len() as usize)];
        while new.len() < self.len() {
            let n = self.read(new.len(), &mut buffer)?;
            new.write(new.len(), &buffer[..n], spill)?;
        }
        self.release(spill);
        *self = new;
        Ok(())
    }

    /// Gives back what it holds in memory and of the arena.
    pub(super) fn release(&self, spill: &mut Spill) {
        match self {
            Self::Memory(bytes) => spill.in_memory -= bytes.len() as u64,
            Self::Arena { piece, .. } => spill.arena.give_back(*piece),
            Self::Disk { .. } => {}
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MEMORY: u64 = 3000;
    const SINGLE: u64 = 4096;

    #[derive(Debug, Clone)]
    enum Op {
        Write { file: usize, at: u16, bytes: Vec<u8> },
        Resize { file: usize, to: u16 },
        Remove { file: usize },
    }

    const FILES: usize = 12;

    fn op() -> impl Strategy<Value = Op> {
        let bytes = (any::<u8>(), 0..700usize).prop_map(|(byte, len)| vec![byte; len]);
        prop_oneof![
            6 => (0..FILES, 0..6000u16, bytes).prop_map(|(file, at, bytes)| Op::Write { file, at, bytes }),
            2 => (0..FILES, 0..6000u16).prop_map(|(file, to)| Op::Resize { file, to }),
            1 => (0..FILES).prop_map(|file| Op::Remove { file }),
        ]
    }

    fn all(content: &Content) -> Vec<u8> {
        let mut bytes = vec![0; content.len() as usize];
        assert_eq!(content.read(0, &mut bytes).unwrap(), bytes.len());
        bytes
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Wherever the bytes are, they are the same; memory stays within its limit, and pieces of
        /// the arena do not overlap.
        #[test]
        fn files_are_what_was_written(ops in prop::collection::vec(op(), 1..150)) {
            let scratch = tempfile::tempdir().unwrap();
            let mut spill = Spill::with_limits(scratch.path(), MEMORY, SINGLE);
            let mut files: Vec<_> = (0..FILES).map(|_| (Content::empty(), Vec::<u8>::new())).collect();
            for op in &ops {
                match op {
                    Op::Write { file, at, bytes } => {
                        let (content, model) = &mut files[*file];
                        content.write(u64::from(*at), bytes, &mut spill).unwrap();
                        let end = usize::from(*at) + bytes.len();
                        model.resize(model.len().max(end), 0);
                        model[usize::from(*at)..end].copy_from_slice(bytes);
                    }
                    Op::Resize { file, to } => {
                        let (content, model) = &mut files[*file];
                        content.resize(u64::from(*to), &mut spill).unwrap();
                        model.resize(usize::from(*to), 0);
                    }
                    Op::Remove { file } => {
                        files[*file].0.release(&mut spill);
                        files[*file] = (Content::empty(), Vec::new());
                    }
                }
                let mut held = 0;
                for (content, model) in &files {
                    prop_assert_eq!(&all(content), model);
                    match content {
                        Content::Memory(bytes) => held += bytes.len() as u64,
                        Content::Arena { len, .. } => prop_assert!(*len <= SINGLE),
                        Content::Disk { len, .. } => prop_assert!(*len > SINGLE / 4),
                    }
                }
                prop_assert_eq!(spill.in_memory, held);
                prop_assert!(held <= MEMORY);
            }
            for (content, _) in &files {
                content.release(&mut spill);
            }
            // All of the arena is free again, in as few pieces as there can be.
            let free = (0..SIZES).map(|size| spill.arena.free[size].len() as u64 * (PIECE_BYTES << size));
            prop_assert_eq!(free.sum::<u64>(), spill.arena.end);
            prop_assert!(spill.arena.free.iter().map(BTreeSet::len).sum::<usize>() <= SIZES);
            prop_assert_eq!(spill.in_memory, 0);
        }
    }

    /// Many small files: neither memory nor descriptors grow with them, the arena at most as their
    /// rounded sizes do, and what is given back is used again.
    #[test]
    fn a_million_small_bytes_are_one_file() {
        let scratch = tempfile::tempdir().unwrap();
        let mut spill = Spill::with_limits(scratch.path(), MEMORY, SINGLE);
        let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let before = descriptors();
        let mut files: Vec<_> = (0..4000).map(|_| Content::empty()).collect();
        let fill = |files: &mut Vec<Content>, spill: &mut Spill| {
            for (n, content) in files.iter_mut().enumerate() {
                content.write(0, &(n as u32).to_le_bytes().repeat(70), spill).unwrap();
            }
        };
        fill(&mut files, &mut spill);
        assert!(spill.in_memory <= MEMORY);
        // Other tests run beside this one; they do not open thousands.
        assert!(descriptors() < before + 500);
        let end = spill.arena.end;
        assert!(end <= 4000 * 512, "{end} bytes for 4000 files of 280");
        for content in &mut files {
            content.resize(0, &mut spill).unwrap();
        }
        fill(&mut files, &mut spill);
        assert_eq!(spill.arena.end, end);
        for (n, content) in files.iter().enumerate() {
            assert_eq!(all(content), (n as u32).to_le_bytes().repeat(70));
        }
    }
}
