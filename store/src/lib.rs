//! The memory of a node: archives, and facts about what was built. It keeps; it does not judge.
//!
//! ```text
//! admit ──▶ nars.rs      cas/ab/cdef….nar     truth about bytes: named by their hash, never changed
//! record ─▶ journal.rs   journal/00000001.log truth about facts: appended, checksummed, synced
//!             └─▶ index.rs   index/            where each fact lies: a cache in sled, rebuilt at will
//! pack.rs   directory ──▶ archive              unpack.rs   archive ──▶ directory
//! gc.rs, verify.rs, bundle.rs, usage.rs        sweeping, checking, carrying elsewhere, counting
//! open.rs                                      one process at a time; repairs what a crash left
//! ```
//!
//! What was acknowledged survives a kill at any instant, and a power cut if the disk keeps what it
//! says it has synced. Nothing here needs a repair by hand: opening does it and says so in
//! [`Store::notices`].
//!
//! Blocking throughout; everything takes `&self` and may be called from many threads. Absent on
//! purpose: trust (what to believe is decided in `trust`), compression (archives are read in place).
#![deny(unsafe_code)]

mod bundle;
mod disk;
mod fact;
mod facts;
mod feeds;
mod gc;
mod index;
mod journal;
mod map;
mod nars;
mod open;
mod pack;
#[cfg(test)]
mod power;
mod unpack;
mod usage;
mod verify;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{Mutex, RwLock},
};

use protocol::{
    feed::Head,
    id::{ActionId, NarHash},
    key::AttesterKey,
};

pub use self::{
    bundle::{ExportError, Exported, ImportError, Imported},
    disk::DiskError,
    fact::{FACT_BYTES, Fact, PIN_NAME_BYTES, PIN_NARS, PinError, Realisation, check_pin},
    facts::{Found, LookupError, RecordError},
    feeds::{KeepError, Kept, SayError},
    gc::{Area, GcOptions, GcReport, SweptNar},
    index::IndexError,
    journal::{AppendError, RecordReadError},
    nars::{AdmitError, Admitted, Archive, ArchiveError, GetError},
    open::{Notice, OpenError, Rebuilt},
    pack::{HashingWriter, PackError, PackStats, pack},
    unpack::{UnpackError, UnpackStats, unpack},
    usage::Usage,
    verify::{DamagedNar, NarFault, VerifyReport},
};

/// An open store; the only one of its home, on this machine, until it is dropped.
pub struct Store {
    home: Home,
    notices: Vec<Notice>,
    /// `None` only while it is replaced, or if that failed.
    index: RwLock<Option<index::Index>>,
    journal: journal::Journal,
    /// Held for the instant in which an archive gets its name or loses it. While a sweep runs,
    /// what is admitted is noted here, so that it stays.
    naming: Mutex<Option<BTreeSet<NarHash>>>,
    /// Where the feeds end that were asked for; held while something is added to any.
    heads: Mutex<BTreeMap<AttesterKey, Head>>,
    /// Whose feeds or proofs have grown since [`Store::touched`] was last asked.
    touched: Mutex<BTreeSet<AttesterKey>>,
    /// Directories of `cas/` whose names are known to be durable.
    durable: Mutex<BTreeSet<PathBuf>>,
    /// Held by the one sweep that runs.
    sweeping: Mutex<()>,
    /// Locked; the last to be dropped.
    _lock: File,
}

/// Where things are.
#[derive(Debug, Clone)]
pub(crate) struct Home {
    pub(crate) root: PathBuf,
    pub(crate) cas: PathBuf,
    pub(crate) journal: PathBuf,
    pub(crate) index: PathBuf,
    pub(crate) logs: PathBuf,
    pub(crate) modules: PathBuf,
    pub(crate) tmp: PathBuf,
    pub(crate) quarantine: PathBuf,
}

impl Home {
    fn new(root: &Path) -> Self {
        let at = |name| root.join(name);
        Self {
            root: root.to_owned(),
            cas: at("cas"),
            journal: at("journal"),
            index: at("index"),
            logs: at("logs"),
            modules: at("modules"),
            tmp: at("tmp"),
            quarantine: at("quarantine"),
        }
    }

    /// Up to where the index was synced when it was last closed.
    pub(crate) fn synced(&self) -> PathBuf {
        self.root.join("index.synced")
    }

    /// Exists if the index failed in use and is to be rebuilt.
    pub(crate) fn stale(&self) -> PathBuf {
        self.root.join("index.stale")
    }

    pub(crate) fn nar(&self, hash: &NarHash) -> PathBuf {
        two_levels(&self.cas, &hash.to_hex(), "nar")
    }
}

/// `ab/cdef….suffix`: 256 directories, so that none gets too large.
fn two_levels(dir: &Path, hex: &str, suffix: &str) -> PathBuf {
    let (first, rest) = hex.split_at(2);
    dir.join(first).join(format!("{rest}.{suffix}"))
}

impl Store {
    /// What was repaired while opening.
    pub fn notices(&self) -> &[Notice] {
        &self.notices
    }

    /// The directory it is in.
    pub fn home(&self) -> &Path {
        &self.home.root
    }

    /// A new file in `tmp/`, for [`Store::admit_file`] or for scratch.
    pub fn temp(&self) -> io::Result<tempfile::NamedTempFile> {
        tempfile::Builder::new().prefix("file-").tempfile_in(&self.home.tmp)
    }

    /// A new directory in `tmp/`.
    pub fn temp_dir(&self) -> io::Result<tempfile::TempDir> {
        tempfile::Builder::new().prefix("dir-").tempdir_in(&self.home.tmp)
    }

    /// Where compiled modules are kept; their names and content are the business of `node`.
    pub fn modules_dir(&self) -> &Path {
        &self.home.modules
    }

    /// Where the log of an action's latest execution is, if there is one.
    pub fn log_path(&self, id: &ActionId) -> PathBuf {
        two_levels(&self.home.logs, &id.to_hex(), "log")
    }

    /// Creates the log of an action, empty. Logs are not synced: a crash may shorten them.
    pub fn create_log(&self, id: &ActionId) -> io::Result<File> {
        let path = self.log_path(id);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        File::create(path)
    }
}
