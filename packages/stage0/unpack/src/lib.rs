//! `unpack ARCHIVE DEST`: unpacks archives, and believes none of them.
//!
//! ```text
//! archive --compression.rs--> bytes --tar.rs, zip.rs, ar.rs--> entries --destination.rs--> files
//! ```
//!
//! The format is recognised by what the archive contains, never by its name. Everything streams:
//! of an archive of any size, only buffers, the window of its compression and the names of its
//! entries are in memory.
//!
//! What an archive may do is decided in [`destination`] alone, for all formats: nothing is written
//! outside the destination, through a symlink, or twice. An archive that is damaged or ends early
//! is an error, even if all wanted files came out of it; what was written by then stays.
//!
//! Absent on purpose: permissions, owners and times, which neither WASI nor a build's output has.

#![forbid(unsafe_code)]

mod ar;
mod compression;
pub mod destination;
mod problem;
mod tar;
mod zip;

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read, Seek};
use std::path::Path;

use stage0::command::Failure;
use stage0::glob::Selection;
use stage0::path::Relative;
use stage0::tree::BUFFER_BYTES;

use compression::Compression;
use destination::{Choice, Destination};
pub use problem::{EntryProblem, Problem, UnpackError};

const USAGE: &str = "unpack ARCHIVE DEST [--strip N] [--only GLOB]... [--rename FROM=TO]...";

/// What the command line asks for.
struct Order<'a> {
    archive: &'a Path,
    dest: &'a Path,
    choice: Choice,
}

/// Unpacks what the command line asks for.
///
/// # Errors
///
/// [`Failure::Usage`] if it makes no sense, or [`Failure::Failed`] with what an [`UnpackError`] says.
pub fn run(arguments: &[String]) -> Result<(), Failure> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let order = Order::parse(&arguments).ok_or(Failure::Usage(USAGE))?;
    Ok(unpack(order.archive, order.dest, &order.choice)?)
}

/// Unpacks what `choice` wants of the file `archive` into the directory `dest`, which is made if it
/// is missing.
///
/// # Errors
///
/// [`UnpackError`] names the archive, the entry and the rule that it breaks.
pub fn unpack(archive: &Path, dest: &Path, choice: &Choice) -> Result<(), UnpackError> {
    entries(archive, dest, choice).map_err(|EntryProblem { entry, problem }| UnpackError {
        archive: archive.to_owned(),
        entry,
        problem,
    })
}

/// Recognises the format of `archive` and gives all its entries to the destination.
fn entries(archive: &Path, dest: &Path, choice: &Choice) -> Result<(), EntryProblem> {
    let mut file = open(archive)?;
    let mut destination = Destination::new(dest, choice)?;
    let start = start(&mut file)?;
    file.rewind().map_err(Problem::Read)?;
    if zip::is_zip(&start) {
        zip::unpack(&mut file, &mut destination)?;
    } else if ar::is_ar(&start) {
        ar::unpack(&mut file, &mut destination)?;
    } else if let Some(compression) = Compression::of(&start) {
        let mut content = BufReader::with_capacity(BUFFER_BYTES, compression.reader(file));
        let start = self::start(&mut content)?;
        let mut content = start.as_slice().chain(content);
        if tar::is_tar(&start) {
            tar::unpack(&mut content, &mut destination)?;
        } else {
            single(
                &compression.content_name(archive),
                &mut content,
                &mut destination,
            )?;
        }
    } else if tar::is_tar(&start) {
        tar::unpack(&mut file, &mut destination)?;
    } else {
        return Err(Problem::UnknownFormat.into());
    }
    Ok(destination.finish()?)
}

fn open(archive: &Path) -> Result<BufReader<File>, Problem> {
    if archive.is_dir() {
        return Err(Problem::Read(ErrorKind::IsADirectory.into()));
    }
    let file = File::open(archive).map_err(Problem::Read)?;
    Ok(BufReader::with_capacity(BUFFER_BYTES, file))
}

/// Enough of the start to recognise any format, or all of what is shorter.
fn start(reader: &mut dyn Read) -> Result<Vec<u8>, Problem> {
    let mut start = Vec::with_capacity(tar::BLOCK_BYTES);
    let limit = tar::BLOCK_BYTES as u64;
    let read = reader.take(limit).read_to_end(&mut start);
    read.map_err(Problem::Read)?;
    Ok(start)
}

/// One compressed file, which is no archive.
fn single(
    name: &str,
    content: &mut dyn Read,
    destination: &mut Destination<'_>,
) -> Result<(), EntryProblem> {
    let mut unpack = || {
        if let Some(path) = destination.choose(name.as_bytes(), false)? {
            destination.file(&path, content)?;
        }
        Ok(())
    };
    unpack().map_err(|problem: Problem| problem.of(name.as_bytes()))
}

impl<'a> Order<'a> {
    fn parse(arguments: &[&'a str]) -> Option<Self> {
        let mut places = Vec::new();
        let (mut strip, mut only, mut rename) = (None, Vec::new(), Vec::new());
        let mut rest = arguments;
        while !rest.is_empty() {
            rest = match rest {
                ["--strip", count, rest @ ..] if strip.is_none() => {
                    strip = Some(count.parse().ok()?);
                    rest
                }
                ["--only", glob, rest @ ..] => {
                    only.push(*glob);
                    rest
                }
                ["--rename", names, rest @ ..] => {
                    let (from, to) = names.split_once('=')?;
                    let path = |name: &str| Relative::parse(name.as_bytes()).ok();
                    rename.push((path(from)?, path(to)?));
                    rest
                }
                [place, rest @ ..] if !place.starts_with("--") => {
                    places.push(Path::new(*place));
                    rest
                }
                _ => return None,
            };
        }
        let [archive, dest] = places[..] else {
            return None;
        };
        Some(Self {
            archive,
            dest,
            choice: Choice {
                strip: strip.unwrap_or(0),
                only: Selection::new(only),
                rename,
            },
        })
    }
}
