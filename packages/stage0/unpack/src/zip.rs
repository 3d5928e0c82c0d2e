//! Zip: stored and deflated files, with the 64-bit sizes of Zip64.
//!
//! A zip file says everything twice: in its central directory, at the end, and before each file.
//! Tools that believe one or the other see different archives, so the two must agree on the name
//! and on how it is stored, and no two entries may share a byte.

use std::collections::BTreeMap;
use std::io::{BufRead, Read, Seek, SeekFrom};

use flate2::CrcReader;
use flate2::bufread::DeflateDecoder;

use crate::destination::{Destination, TARGET_BYTES};
use crate::problem::{EntryProblem, Problem};

const LOCAL: [u8; 4] = *b"PK\x03\x04";
const CENTRAL: [u8; 4] = *b"PK\x01\x02";
const END: [u8; 4] = *b"PK\x05\x06";
const END_64: [u8; 4] = *b"PK\x06\x06";
const LOCATOR_64: [u8; 4] = *b"PK\x06\x07";

const LOCAL_BYTES: usize = 30;
const CENTRAL_BYTES: usize = 46;
const END_BYTES: usize = 22;
const END_64_BYTES: usize = 56;
const LOCATOR_64_BYTES: usize = 20;

const MALFORMED: Problem = Problem::Malformed("directory of a zip file");

/// Whether a file that starts like this is a zip file. One of nothing has only its end.
pub(crate) fn is_zip(start: &[u8]) -> bool {
    start.starts_with(&LOCAL) || start.starts_with(&END)
}

/// Unpacks all entries, in the order of the central directory.
pub(crate) fn unpack<R: BufRead + Seek>(
    archive: &mut R,
    destination: &mut Destination<'_>,
) -> Result<(), EntryProblem> {
    let directory = Directory::find(archive)?;
    let mut used = Used::default();
    let mut at = directory.start;
    for _ in 0..directory.count {
        if at >= directory.end {
            return Err(MALFORMED.into());
        }
        let entry = Entry::read(archive, &mut at)?;
        entry
            .unpack(archive, directory.start, &mut used, destination)
            .map_err(|problem| problem.of(&entry.name))?;
    }
    if at != directory.end {
        return Err(MALFORMED.into());
    }
    Ok(())
}

/// Where the central directory is, and how many entries it has.
struct Directory {
    start: u64,
    end: u64,
    count: u64,
}

impl Directory {
    fn find<R: BufRead + Seek>(archive: &mut R) -> Result<Self, Problem> {
        let length = archive.seek(SeekFrom::End(0)).map_err(Problem::Read)?;
        let longest = (END_BYTES + usize::from(u16::MAX)) as u64;
        let tail_start = length.saturating_sub(longest);
        let mut tail = Vec::new();
        seek(archive, tail_start)?;
        archive.read_to_end(&mut tail).map_err(Problem::Read)?;

        // It ends with a comment of any length, so it is where the length fits.
        let (at, end) = tail
            .windows(END_BYTES)
            .enumerate()
            .rev()
            .find(|(at, end)| {
                let comment = usize::from(u16_at(end, 20));
                end.starts_with(&END) && at + END_BYTES + comment == tail.len()
            })
            .ok_or(Problem::Truncated)?;
        let mut limit = tail_start + at as u64;
        let mut count = u64::from(u16_at(end, 10));
        let mut size = u64::from(u32_at(end, 12));
        let mut start = u64::from(u32_at(end, 16));
        let mut is_one_disk = u16_at(end, 8) == u16_at(end, 10) && u16_at(end, 4) == u16_at(end, 6);

        let is_64 = count == u64::from(u16::MAX)
            || size == u64::from(u32::MAX)
            || start == u64::from(u32::MAX);
        if is_64 && let Some(locator_at) = limit.checked_sub(LOCATOR_64_BYTES as u64) {
            let locator: [u8; LOCATOR_64_BYTES] = bytes_at(archive, locator_at)?;
            if locator.starts_with(&LOCATOR_64) {
                limit = u64_at(&locator, 8);
                if limit > locator_at {
                    return Err(MALFORMED);
                }
                let end: [u8; END_64_BYTES] = bytes_at(archive, limit)?;
                if !end.starts_with(&END_64) {
                    return Err(MALFORMED);
                }
                count = u64_at(&end, 32);
                size = u64_at(&end, 40);
                start = u64_at(&end, 48);
                is_one_disk = u64_at(&end, 24) == count && u32_at(&end, 16) == u32_at(&end, 20);
            }
        }
        if !is_one_disk {
            return Err(Problem::Unsupported("a zip file in several parts"));
        }
        let end = start.checked_add(size).ok_or(MALFORMED)?;
        if end != limit {
            return Err(MALFORMED);
        }
        Ok(Self { start, end, count })
    }
}

/// An entry of the central directory.
struct Entry {
    name: Vec<u8>,
    method: u16,
    flags: u16,
    crc: u32,
    packed: u64,
    size: u64,
    /// Where its local header is.
    offset: u64,
    /// The type bits of its Unix mode, or 0 if it has none.
    kind: u32,
}

impl Entry {
    /// Reads the entry at `at`, and moves `at` to the next.
    fn read<R: BufRead + Seek>(archive: &mut R, at: &mut u64) -> Result<Self, Problem> {
        let header: [u8; CENTRAL_BYTES] = bytes_at(archive, *at)?;
        if !header.starts_with(&CENTRAL) {
            return Err(MALFORMED);
        }
        let name = bytes(archive, u16_at(&header, 28))?;
        let extra = bytes(archive, u16_at(&header, 30))?;
        let comment = u16_at(&header, 32);
        *at += (CENTRAL_BYTES + name.len() + extra.len()) as u64 + u64::from(comment);
        let is_unix = matches!(header[5], 3 | 19); // Unix, macOS.
        let mut entry = Self {
            name,
            flags: u16_at(&header, 8),
            method: u16_at(&header, 10),
            crc: u32_at(&header, 16),
            packed: u64::from(u32_at(&header, 20)),
            size: u64::from(u32_at(&header, 24)),
            offset: u64::from(u32_at(&header, 42)),
            kind: if is_unix {
                u32_at(&header, 38) >> 16 & 0o170_000
            } else {
                0
            },
        };
        entry.read_64(&extra)?;
        Ok(entry)
    }

    /// Takes from the Zip64 field what has no room in 32 bits.
    fn read_64(&mut self, mut extra: &[u8]) -> Result<(), Problem> {
        while let Some((head, rest)) = extra.split_at_checked(4) {
            let length = usize::from(u16_at(head, 2));
            let (mut field, rest) = rest.split_at_checked(length).ok_or(MALFORMED)?;
            extra = rest;
            if u16_at(head, 0) != 1 {
                continue;
            }
            for number in [&mut self.size, &mut self.packed, &mut self.offset] {
                if *number == u64::from(u32::MAX) {
                    let (value, rest) = field.split_first_chunk().ok_or(MALFORMED)?;
                    *number = u64::from_le_bytes(*value);
                    field = rest;
                }
            }
        }
        Ok(())
    }

    /// Unpacks it, if it is wanted. What is before `limit` is files.
    fn unpack<R: BufRead + Seek>(
        &self,
        archive: &mut R,
        limit: u64,
        used: &mut Used,
        destination: &mut Destination<'_>,
    ) -> Result<(), Problem> {
        const DIRECTORY: u32 = 0o040_000;
        const FILE: u32 = 0o100_000;
        const SYMLINK: u32 = 0o120_000;

        self.seek_content(archive, limit, used)?;
        let is_directory = self.name.ends_with(b"/") || self.kind == DIRECTORY;
        let Some(path) = destination.choose(&self.name, is_directory)? else {
            return Ok(());
        };
        if is_directory {
            if self.size != 0 {
                return Err(Problem::Size);
            }
            return destination.directory(&path);
        }
        match self.kind {
            0 | FILE => self.content(archive, |content| destination.file(&path, content)),
            SYMLINK => {
                let mut target = Vec::new();
                self.content(archive, |content| {
                    let limit = TARGET_BYTES as u64 + 1;
                    let read = content.take(limit).read_to_end(&mut target);
                    read.map(|count| count as u64).map_err(Problem::Read)
                })?;
                destination.symlink(&path, &target)
            }
            _ => Err(Problem::Device),
        }
    }

    /// Goes to where its content is, past a local header that must say the same.
    fn seek_content<R: BufRead + Seek>(
        &self,
        archive: &mut R,
        limit: u64,
        used: &mut Used,
    ) -> Result<(), Problem> {
        const ENCRYPTED: u16 = 1 | 1 << 6 | 1 << 13;
        if self.flags & ENCRYPTED != 0 {
            return Err(Problem::Unsupported("encryption"));
        }
        let header: [u8; LOCAL_BYTES] = bytes_at(archive, self.offset)?;
        let name = bytes(archive, u16_at(&header, 26))?;
        let agrees =
            header.starts_with(&LOCAL) && name == self.name && u16_at(&header, 8) == self.method;
        if !agrees {
            return Err(Problem::Malformed("two headers that disagree"));
        }
        let extra = u16_at(&header, 28);
        let start = self.offset + (LOCAL_BYTES + name.len()) as u64 + u64::from(extra);
        let end = start.checked_add(self.packed).filter(|end| *end <= limit);
        let end = end.ok_or(MALFORMED)?;
        used.add(self.offset, end)?;
        seek(archive, start)
    }

    /// Gives its content to `take`, which says how many bytes it was, and checks that it was right.
    fn content<R: BufRead>(
        &self,
        archive: &mut R,
        take: impl FnOnce(&mut dyn Read) -> Result<u64, Problem>,
    ) -> Result<(), Problem> {
        let mut packed = archive.take(self.packed);
        // One more than there should be, to notice if there is.
        let limit = self.size.saturating_add(1);
        let (size, crc) = match self.method {
            0 => {
                let mut content = CrcReader::new(packed.take(limit));
                (take(&mut content)?, content.crc().sum())
            }
            8 => {
                let mut content = CrcReader::new(DeflateDecoder::new(&mut packed).take(limit));
                let size = take(&mut content)?;
                if size == self.size && content.get_ref().get_ref().total_in() != self.packed {
                    return Err(Problem::Size);
                }
                (size, content.crc().sum())
            }
            _ => return Err(Problem::Unsupported("this method of compression")),
        };
        if size != self.size {
            return Err(Problem::Size);
        }
        if crc != self.crc {
            return Err(Problem::Checksum);
        }
        Ok(())
    }
}

/// Which parts of the archive belong to entries. A small archive could otherwise have a gigabyte of
/// files that are all the same bytes.
#[derive(Default)]
struct Used(BTreeMap<u64, u64>);

impl Used {
    fn add(&mut self, start: u64, end: u64) -> Result<(), Problem> {
        let before = self.0.range(..end).next_back();
        if before.is_some_and(|(_, other_end)| *other_end > start) {
            return Err(Problem::Malformed("two entries that overlap"));
        }
        self.0.insert(start, end);
        Ok(())
    }
}

fn seek(archive: &mut impl Seek, at: u64) -> Result<(), Problem> {
    archive.seek(SeekFrom::Start(at)).map_err(Problem::Read)?;
    Ok(())
}

fn bytes_at<const N: usize>(archive: &mut (impl Read + Seek), at: u64) -> Result<[u8; N], Problem> {
    seek(archive, at)?;
    let mut bytes = [0; N];
    archive.read_exact(&mut bytes).map_err(Problem::Read)?;
    Ok(bytes)
}

fn bytes(archive: &mut impl Read, count: u16) -> Result<Vec<u8>, Problem> {
    let mut bytes = vec![0; usize::from(count)];
    archive.read_exact(&mut bytes).map_err(Problem::Read)?;
    Ok(bytes)
}

/// The number at `at` in a header, which is longer.
fn u16_at(header: &[u8], at: usize) -> u16 {
    u16::from(header[at]) | u16::from(header[at + 1]) << 8
}

fn u32_at(header: &[u8], at: usize) -> u32 {
    u32::from(u16_at(header, at)) | u32::from(u16_at(header, at + 2)) << 16
}

fn u64_at(header: &[u8], at: usize) -> u64 {
    u64::from(u32_at(header, at)) | u64::from(u32_at(header, at + 4)) << 32
}
