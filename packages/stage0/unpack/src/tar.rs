//! Tar: ustar, with the long names of GNU and the extended headers of pax.
//!
//! Reading is strict where tools have come to differ, since what they differ in is what attacks
//! are made of: headers have right checksums, the end is marked, and nothing but zeros follows.

use std::io::{ErrorKind, Read};

use crate::compression::skip;
use crate::destination::Destination;
use crate::problem::{EntryProblem, Problem};

/// The unit that everything in a tar archive is filled up to.
pub(crate) const BLOCK_BYTES: usize = 512;

/// The longest extended header, in bytes: they have names of up to a few KiB, and keys that nobody
/// looks at.
const EXTENDED_BYTES: u64 = 1024 * 1024;

type Block = [u8; BLOCK_BYTES];

/// Whether a file that starts like this is a tar archive. An archive of nothing starts with zeros.
pub(crate) fn is_tar(start: &[u8]) -> bool {
    let Ok(block) = <&Block>::try_from(start) else {
        return false;
    };
    Header(block).has_ustar_magic() || Header(block).has_checksum() || is_zero(block)
}

/// Unpacks all entries, to the end of `archive`.
pub(crate) fn unpack(
    archive: &mut dyn Read,
    destination: &mut Destination<'_>,
) -> Result<(), EntryProblem> {
    let mut extended = Extended::default();
    loop {
        let block = block(archive)?;
        if is_zero(&block) {
            if extended != Extended::default() {
                return Err(Problem::Malformed("extended header without an entry").into());
            }
            return Ok(end(archive)?);
        }
        let header = Header(&block);
        let name = extended.path.clone().unwrap_or_else(|| header.name());
        let unpacked = if header.is_extended() {
            header
                .checked()
                .and_then(|()| extended.read(&header, archive))
        } else {
            let extended = std::mem::take(&mut extended);
            header
                .checked()
                .and_then(|()| entry(&header, &name, &extended, archive, destination))
        };
        unpacked.map_err(|problem| problem.of(&name))?;
    }
}

/// What the headers before an entry say about it.
#[derive(Default, PartialEq, Eq)]
struct Extended {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
}

impl Extended {
    fn read(&mut self, header: &Header<'_>, archive: &mut dyn Read) -> Result<(), Problem> {
        let size = header.size()?;
        if size > EXTENDED_BYTES {
            return Err(Problem::Unsupported("an extended header this long"));
        }
        let mut content = Vec::new();
        let read = (&mut *archive).take(size).read_to_end(&mut content);
        read.map_err(Problem::Read)?;
        if (content.len() as u64) < size {
            return Err(Problem::Truncated);
        }
        skip_padding(archive, size)?;
        match header.kind() {
            b'L' => self.path = Some(text(&content).to_vec()),
            b'K' => self.link = Some(text(&content).to_vec()),
            b'x' => self.read_pax(&content)?,
            _ => {
                // For the whole archive. What is usual here, the id of a commit, is of no use to us.
                let mut global = Self::default();
                global.read_pax(&content)?;
                if global != Self::default() {
                    return Err(Problem::Unsupported("a path or size for all entries"));
                }
            }
        }
        Ok(())
    }

    /// Records of the form `LENGTH KEY=VALUE\n`, where the length is of the whole record.
    fn read_pax(&mut self, mut content: &[u8]) -> Result<(), Problem> {
        const MALFORMED: Problem = Problem::Malformed("extended header of pax");
        while !content.is_empty() {
            let blank = content.iter().position(|byte| *byte == b' ');
            let (length, _) = content.split_at(blank.ok_or(MALFORMED)?);
            let length = decimal(length).ok_or(MALFORMED)?;
            let (record, rest) = usize::try_from(length)
                .ok()
                .and_then(|length| content.split_at_checked(length))
                .ok_or(MALFORMED)?;
            content = rest;
            let record = record.strip_suffix(b"\n").ok_or(MALFORMED)?;
            let record = record.get(blank.ok_or(MALFORMED)? + 1..).ok_or(MALFORMED)?;
            let equals = record.iter().position(|byte| *byte == b'=');
            let (key, value) = record.split_at(equals.ok_or(MALFORMED)?);
            let value = &value[1..];
            let is_used = [&b"path"[..], b"linkpath", b"size"].contains(&key);
            if is_used && value.is_empty() {
                return Err(MALFORMED);
            }
            match key {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"size" => self.size = Some(decimal(value).ok_or(MALFORMED)?),
                _ if key.starts_with(b"GNU.sparse.") => {
                    return Err(Problem::Unsupported("a sparse file"));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Unpacks one entry, whose header is read.
fn entry(
    header: &Header<'_>,
    name: &[u8],
    extended: &Extended,
    archive: &mut dyn Read,
    destination: &mut Destination<'_>,
) -> Result<(), Problem> {
    let size = match extended.size {
        Some(size) => size,
        None => header.size()?,
    };
    let link = extended.link.clone().unwrap_or_else(|| header.link());
    match header.kind() {
        // Before ustar, a directory was a file with a `/` at its end.
        0 | b'0' if name.ends_with(b"/") && size == 0 => directory(name, destination),
        0 | b'0' | b'7' => file(name, size, archive, destination),
        b'1' | b'2' | b'5' if size != 0 => Err(Problem::Unsupported("content without a file")),
        b'1' => match destination.choose(name, false)? {
            Some(path) => destination.hard_link(&path, &link),
            None => Ok(()),
        },
        b'2' => match destination.choose(name, false)? {
            Some(path) => destination.symlink(&path, &link),
            None => Ok(()),
        },
        b'5' => directory(name, destination),
        b'3' | b'4' | b'6' => match destination.choose(name, false)? {
            Some(_) => Err(Problem::Device),
            None => Ok(()),
        },
        b'S' => Err(Problem::Unsupported("a sparse file")),
        b'V' => {
            skip(archive, size).map_err(Problem::Read)?; // The name of the volume.
            skip_padding(archive, size)
        }
        _ => Err(Problem::Unsupported("an entry of this type")),
    }
}

fn directory(name: &[u8], destination: &mut Destination<'_>) -> Result<(), Problem> {
    match destination.choose(name, true)? {
        Some(path) => destination.directory(&path),
        None => Ok(()),
    }
}

fn file(
    name: &[u8],
    size: u64,
    archive: &mut dyn Read,
    destination: &mut Destination<'_>,
) -> Result<(), Problem> {
    match destination.choose(name, false)? {
        Some(path) => {
            let written = destination.file(&path, &mut (&mut *archive).take(size))?;
            if written < size {
                return Err(Problem::Truncated);
            }
        }
        None => skip(archive, size).map_err(Problem::Read)?,
    }
    skip_padding(archive, size)
}

/// A block with the metadata of an entry.
struct Header<'a>(&'a Block);

impl Header<'_> {
    fn checked(&self) -> Result<(), Problem> {
        if self.has_checksum() {
            return Ok(());
        }
        Err(Problem::Checksum)
    }

    /// Whether the sum of all bytes, those of the checksum taken as blanks, is the one it says.
    fn has_checksum(&self) -> bool {
        let sum: u64 = self.0.iter().copied().map(u64::from).sum();
        let own: u64 = self.0[148..156].iter().copied().map(u64::from).sum();
        let blanks = 8 * u64::from(b' ');
        number(&self.0[148..156]) == Some(sum - own + blanks)
    }

    fn has_ustar_magic(&self) -> bool {
        self.0[257..262] == *b"ustar"
    }

    fn kind(&self) -> u8 {
        self.0[156]
    }

    /// Whether this is about the next entry, or about all.
    fn is_extended(&self) -> bool {
        matches!(self.kind(), b'L' | b'K' | b'x' | b'g')
    }

    fn name(&self) -> Vec<u8> {
        let name = text(&self.0[..100]);
        let prefix = text(&self.0[345..500]);
        // GNU has other things there, and a magic that ends in blanks.
        let has_prefix = self.0[257..263] == *b"ustar\0" && !prefix.is_empty();
        if has_prefix {
            [prefix, name].join(&b'/')
        } else {
            name.to_vec()
        }
    }

    fn link(&self) -> Vec<u8> {
        text(&self.0[157..257]).to_vec()
    }

    fn size(&self) -> Result<u64, Problem> {
        number(&self.0[124..136]).ok_or(Problem::Malformed("size in a header"))
    }
}

/// The next block. There is always one, since the end is marked by a block.
fn block(archive: &mut dyn Read) -> Result<Block, Problem> {
    let mut block = [0; BLOCK_BYTES];
    match archive.read_exact(&mut block) {
        Ok(()) => Ok(block),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Err(Problem::Truncated),
        Err(error) => Err(Problem::Read(error)),
    }
}

/// Reads what follows the first block of zeros: more zeros, as tapes had it, and nothing else.
/// Reading to the end also checks the checksum of the compression.
fn end(archive: &mut dyn Read) -> Result<(), Problem> {
    let mut buffer = vec![0; 16 * BLOCK_BYTES];
    loop {
        match archive.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) if is_zero(&buffer[..count]) => {}
            Ok(_) => return Err(Problem::TrailingData),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(Problem::Read(error)),
        }
    }
}

fn skip_padding(archive: &mut dyn Read, size: u64) -> Result<(), Problem> {
    let block = BLOCK_BYTES as u64;
    skip(archive, (block - size % block) % block).map_err(Problem::Read)
}

/// What is before the first NUL.
fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// A number in a header: octal digits between blanks and NULs, or, with the highest bit set, binary.
fn number(field: &[u8]) -> Option<u64> {
    if let [0x80, binary @ ..] = field {
        let (high, low) = binary.split_last_chunk::<8>()?;
        return is_zero(high).then(|| u64::from_be_bytes(*low));
    }
    let is_blank = |byte: &u8| matches!(byte, b' ' | 0);
    let start = field.iter().position(|byte| !is_blank(byte));
    let digits = &field[start.unwrap_or(field.len())..];
    let end = digits.iter().position(is_blank).unwrap_or(digits.len());
    let (digits, rest) = digits.split_at(end);
    let is_number =
        rest.iter().all(is_blank) && digits.iter().all(|byte| (b'0'..=b'7').contains(byte));
    // At most twelve digits of three bits.
    is_number.then(|| {
        digits
            .iter()
            .fold(0, |number, digit| number << 3 | u64::from(digit - b'0'))
    })
}

fn decimal(digits: &[u8]) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    str::from_utf8(digits)
        .ok()?
        .parse()
        .ok()
        .filter(|_| is_number)
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}
