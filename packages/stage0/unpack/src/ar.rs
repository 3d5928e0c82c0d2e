//! Ar: static libraries, and the outside of `.deb` packages.
//!
//! Members have plain names, or long ones in the way of GNU or of BSD. Symbol tables are left out.

use std::io::{ErrorKind, Read};

use crate::compression::skip;
use crate::destination::Destination;
use crate::problem::{EntryProblem, Problem};

const MAGIC: &[u8] = b"!<arch>\n";

const HEADER_BYTES: usize = 60;

/// The longest table of names, in bytes. It is held in memory.
const NAMES_BYTES: u64 = 1024 * 1024;

/// Whether a file that starts like this is an ar archive.
pub(crate) fn is_ar(start: &[u8]) -> bool {
    start.starts_with(MAGIC)
}

/// Unpacks all members, to the end of `archive`.
pub(crate) fn unpack(
    archive: &mut dyn Read,
    destination: &mut Destination<'_>,
) -> Result<(), EntryProblem> {
    let mut magic = [0; MAGIC.len()];
    archive.read_exact(&mut magic).map_err(Problem::Read)?;
    let mut long_names = Vec::new();
    while let Some(header) = header(archive)? {
        let field = header[..16].trim_ascii_end();
        member(&header, field, &mut long_names, archive, destination)?;
    }
    Ok(())
}

fn member(
    header: &[u8; HEADER_BYTES],
    field: &[u8],
    long_names: &mut Vec<u8>,
    archive: &mut dyn Read,
    destination: &mut Destination<'_>,
) -> Result<(), EntryProblem> {
    let of = |problem: Problem| problem.of(field);
    if header[58..] != *b"`\n" {
        return Err(of(Problem::Malformed("header of a member")));
    }
    let size = number(&header[48..58]).ok_or_else(|| of(Problem::Malformed("size of a member")))?;
    let mut content_size = size;
    let name = match field {
        b"/" | b"/SYM64/" => None,
        b"//" => {
            *long_names = text(archive, size).map_err(of)?;
            content_size = 0;
            None
        }
        [b'#', b'1', b'/', length @ ..] => {
            let length = number(length).filter(|length| *length <= size);
            let length = length.ok_or_else(|| of(Problem::Malformed("length of a name")))?;
            content_size = size - length;
            let name = text(archive, length).map_err(of)?;
            let end = name.iter().position(|byte| *byte == 0);
            Some(name[..end.unwrap_or(name.len())].to_vec())
        }
        [b'/', offset @ ..] => {
            let name = number(offset).and_then(|offset| {
                let rest = long_names.get(usize::try_from(offset).ok()?..)?;
                rest.split(|byte| *byte == b'\n').next()
            });
            let name = name.ok_or_else(|| of(Problem::Malformed("place of a name")))?;
            Some(name.strip_suffix(b"/").unwrap_or(name).to_vec())
        }
        name => Some(name.strip_suffix(b"/").unwrap_or(name).to_vec()),
    };
    let name = name.filter(|name| !name.starts_with(b"__.SYMDEF"));
    content(name.as_deref(), content_size, archive, destination)
        .and_then(|()| skip(archive, size % 2).map_err(Problem::Read))
        .map_err(|problem| problem.of(name.as_deref().unwrap_or(field)))
}

fn content(
    name: Option<&[u8]>,
    size: u64,
    archive: &mut dyn Read,
    destination: &mut Destination<'_>,
) -> Result<(), Problem> {
    let path = match name {
        Some(name) => destination.choose(name, false)?,
        None => None,
    };
    let Some(path) = path else {
        return skip(archive, size).map_err(Problem::Read);
    };
    let written = destination.file(&path, &mut (&mut *archive).take(size))?;
    if written < size {
        return Err(Problem::Truncated);
    }
    Ok(())
}

/// The next header, or nothing at the end: ar does not mark it.
fn header(archive: &mut dyn Read) -> Result<Option<[u8; HEADER_BYTES]>, Problem> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES);
    let limit = HEADER_BYTES as u64;
    let read = archive.take(limit).read_to_end(&mut bytes);
    read.map_err(Problem::Read)?;
    if bytes.is_empty() {
        return Ok(None);
    }
    let header = bytes.try_into().map_err(|_| Problem::Truncated)?;
    Ok(Some(header))
}

fn text(archive: &mut dyn Read, size: u64) -> Result<Vec<u8>, Problem> {
    if size > NAMES_BYTES {
        return Err(Problem::Unsupported("names this long"));
    }
    let mut text = Vec::new();
    let read = archive.take(size).read_to_end(&mut text);
    read.map_err(Problem::Read)?;
    if (text.len() as u64) < size {
        return Err(Problem::Read(ErrorKind::UnexpectedEof.into()));
    }
    Ok(text)
}

/// A decimal number with blanks after it.
fn number(field: &[u8]) -> Option<u64> {
    let digits = str::from_utf8(field.trim_ascii_end()).ok()?;
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| is_number)
}
