//! What can be wrong with an archive.

use std::error::Error;
use std::fmt;
use std::io::{self, ErrorKind};
use std::path::PathBuf;

use stage0::path::PathFault;
use stage0::tree::{Plain, TreeError};

/// Why an archive was not unpacked.
#[derive(Debug)]
pub struct UnpackError {
    /// The archive.
    pub archive: PathBuf,
    /// The entry that is to blame, as the archive calls it, if one is.
    pub entry: Option<String>,
    /// What is wrong.
    pub problem: Problem,
}

/// A problem, and the entry that has it.
#[derive(Debug)]
pub struct EntryProblem {
    /// The entry, as the archive calls it, if one is to blame.
    pub entry: Option<String>,
    /// What is wrong.
    pub problem: Problem,
}

/// A rule that an archive or its entry breaks, or what kept us from unpacking it.
#[derive(Debug)]
pub enum Problem {
    /// The archive can't be read, ends early, or its compression is damaged.
    Read(io::Error),
    /// A file can't be written.
    Write(TreeError),
    /// The archive is of no format that we know.
    UnknownFormat,
    /// The archive breaks its own format, in this way.
    Malformed(&'static str),
    /// The archive uses this part of its format, which we do not unpack.
    Unsupported(&'static str),
    /// The archive ends early, or without the mark of its end.
    Truncated,
    /// The checksum of a header or of a file does not match.
    Checksum,
    /// A file is longer or shorter than the archive says.
    Size,
    /// There is more after the end of the archive.
    TrailingData,
    /// The name is not one that can be in the destination.
    Path(PathFault),
    /// Something that is not a directory has no name.
    Nameless,
    /// The path leads through a symlink.
    ThroughLink,
    /// The path leads through a file.
    ThroughFile,
    /// The archive has unpacked something there already.
    Duplicate,
    /// Something was there before.
    Exists,
    /// A device, a pipe or a socket.
    Device,
    /// A symlink to somewhere outside the destination, or by a way that may lead there.
    LinkEscapes(String),
    /// A symlink whose target is empty, too long, or not a path.
    LinkTarget,
    /// A hard link to something that is not a file unpacked before.
    LinkMissing(String),
    /// The archive has entries, but none of them was wanted.
    NothingChosen,
}

impl Problem {
    /// This problem, as one of the entry that the archive calls `name`.
    pub(crate) fn of(self, name: &[u8]) -> EntryProblem {
        EntryProblem {
            entry: Some(String::from_utf8_lossy(name).into_owned()),
            problem: self,
        }
    }
}

impl From<Problem> for EntryProblem {
    fn from(problem: Problem) -> Self {
        let entry = None;
        Self { entry, problem }
    }
}

impl From<PathFault> for Problem {
    fn from(fault: PathFault) -> Self {
        Self::Path(fault)
    }
}

impl From<TreeError> for Problem {
    fn from(error: TreeError) -> Self {
        Self::Write(error)
    }
}

impl fmt::Display for UnpackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.archive.display())?;
        if let Some(entry) = &self.entry {
            write!(f, "{entry}: ")?;
        }
        self.problem.fmt(f)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => match error.kind() {
                ErrorKind::InvalidData | ErrorKind::InvalidInput | ErrorKind::Other => {
                    write!(f, "damaged: {error}")
                }
                _ => Plain(error).fmt(f),
            },
            Self::Write(error) => error.fmt(f),
            Self::UnknownFormat => f.write_str("not an archive of a known format"),
            Self::Malformed(how) => write!(f, "damaged: {how}"),
            Self::Unsupported(what) => write!(f, "{what}: not supported"),
            Self::Truncated => f.write_str("ends early"),
            Self::Checksum => f.write_str("checksum does not match"),
            Self::Size => f.write_str("size does not match"),
            Self::TrailingData => f.write_str("more data after the end of the archive"),
            Self::Path(fault) => fault.fmt(f),
            Self::Nameless => f.write_str("has no name"),
            Self::ThroughLink => f.write_str("path leads through a symlink"),
            Self::ThroughFile => f.write_str("path leads through a file"),
            Self::Duplicate => f.write_str("is in the archive twice"),
            Self::Exists => f.write_str("exists already"),
            Self::Device => f.write_str("is a device, a pipe or a socket"),
            Self::LinkEscapes(target) => {
                write!(f, "symlink may lead out of the destination, to `{target}`")
            }
            Self::LinkTarget => f.write_str("target of symlink is empty, too long or not UTF-8"),
            Self::LinkMissing(target) => {
                write!(
                    f,
                    "hard link to `{target}`, which is no file unpacked before"
                )
            }
            Self::NothingChosen => f.write_str("nothing in this archive was chosen"),
        }
    }
}

impl Error for UnpackError {}
