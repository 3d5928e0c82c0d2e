//! The errors of WASI preview 1, as the guest sees them.

/// `errno` of `wasi_snapshot_preview1`; the numbers are the standard's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
#[allow(missing_docs, reason = "the names are POSIX's")]
pub(crate) enum Errno {
    Again = 6,
    Badf = 8,
    Connaborted = 13,
    Connreset = 15,
    Exist = 20,
    Fault = 21,
    Hostunreach = 23,
    Intr = 27,
    Inval = 28,
    Io = 29,
    Isdir = 31,
    Loop = 32,
    Mfile = 33,
    Nametoolong = 37,
    Netdown = 38,
    Netunreach = 40,
    Nfile = 41,
    Nobufs = 42,
    Noent = 44,
    Nomem = 48,
    Notconn = 53,
    Notdir = 54,
    Notempty = 55,
    Notsock = 57,
    Notsup = 58,
    Perm = 63,
    Pipe = 64,
    Rofs = 69,
    Spipe = 70,
    Timedout = 73,
    Xdev = 75,
    Notcapable = 76,
}

impl std::fmt::Display for Errno {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Noent => "there is no such file or directory",
            Self::Notdir => "a part of the path is not a directory",
            Self::Isdir => "it is a directory",
            Self::Rofs => "it cannot be written to",
            Self::Loop => "its symlinks are a loop",
            Self::Notcapable => "it leads out of the file system",
            Self::Nametoolong => "its name is too long",
            other => return write!(f, "{other:?}"),
        })
    }
}

impl std::fmt::Display for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Errno(errno) => errno.fmt(f),
            Self::Abort(abort) => abort.fmt(f),
        }
    }
}

/// Why a call of the guest did not succeed: an error that it may handle, or the end of the build.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The guest gets this error and goes on.
    Errno(Errno),
    /// The build ends: what happened depends on this machine, so the guest must not see it.
    Abort(Abort),
}

/// Why a build is aborted. Never attested, never cached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, serde::Serialize, serde::Deserialize)]
pub enum Abort {
    /// More linear memory and tables than allowed.
    #[error("the memory limit of {limit} bytes")]
    Memory {
        /// Bytes allowed.
        limit: u64,
    },
    /// More bytes in files than allowed.
    #[error("the disk limit of {limit} bytes")]
    Disk {
        /// Bytes allowed.
        limit: u64,
    },
    /// More files, directories and symlinks than allowed.
    #[error("the limit of {limit} files")]
    Files {
        /// Number allowed.
        limit: u64,
    },
    /// More log than allowed.
    #[error("the log limit of {limit} bytes")]
    Log {
        /// Bytes allowed.
        limit: u64,
    },
    /// This machine failed: its disk, its memory, its pipe to the parent.
    #[error("a failure of this machine: {0}")]
    Host(String),
}

impl From<Errno> for Stop {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

impl From<Abort> for Stop {
    fn from(abort: Abort) -> Self {
        Self::Abort(abort)
    }
}

/// A failure of the host's own disk: the guest must not see it.
impl From<std::io::Error> for Stop {
    fn from(error: std::io::Error) -> Self {
        Self::Abort(Abort::Host(error.to_string()))
    }
}
