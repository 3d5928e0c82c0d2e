//! The memory of a node: archives, and facts about what was built. It keeps; it does not judge.
//!
//! ```text
//! admit ──▶ nars.rs      cas/ab/cdef….nar     truth about bytes: named by their hash, never changed
//! record ─▶ journal.rs   journal/00000001.log truth about facts: appended, checksummed, synced
//!             └─▶ index.rs   index/            where each fact lies: a cache in sled, rebuilt at will
//! partial.rs pieces ──▶ nars.rs                archives that are on their way
//! pack.rs   directory ──▶ archive              unpack.rs   archive ──▶ directory
//! gc.rs, verify.rs, bundle.rs, usage.rs        sweeping, checking, carrying elsewhere, counting
//! open.rs                                      one owner at a time; repairs what a crash left
//! books.rs   journal and index: here, or with the owner ◀─ client.rs ─ wire.rs ─ serve.rs
//! ```
//!
//! One process at a time owns journal and index. If it serves them ([`Store::serve`]), every other
//! process of the same user that opens the store is its client, with the same functions: archives,
//! logs and modules are files, which all use directly; facts are asked for over a socket.
//!
//! What was acknowledged survives a kill at any instant, and a power cut if the disk keeps what it
//! says it has synced. Nothing here needs a repair by hand: opening does it and says so in
//! [`Store::notices`].
//!
//! Blocking throughout; everything takes `&self` and may be called from many threads. Absent on
//! purpose: trust (what to believe is decided in `trust`), compression (archives are read in place).
#![deny(unsafe_code)]

mod books;
mod bundle;
mod client;
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
mod partial;
#[cfg(test)]
mod power;
mod serve;
pub mod socket;
mod unpack;
mod usage;
mod verify;
mod wire;

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Mutex,
};

use protocol::id::{ActionId, NarHash};

pub use self::{
    bundle::{ExportError, Exported, ImportError, Imported},
    client::{Fault, Remote, ServedError, Unwelcome},
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
    partial::{PARTIAL_BYTES, Partial},
    serve::{Busy, CLIENTS, ServeError, Service},
    unpack::{UnpackError, UnpackStats, unpack},
    usage::Usage,
    verify::{DamagedNar, NarFault, VerifyReport},
};

/// An open store: the only owner of its home on this machine, until it is dropped, or a client of it.
pub struct Store {
    home: Home,
    notices: Vec<Notice>,
    books: books::Books,
    /// Held for the instant in which an archive gets its name or loses it. While a sweep runs,
    /// what is admitted is noted here, so that it stays.
    naming: Mutex<Option<BTreeSet<NarHash>>>,
    /// Directories of `cas/` whose names are known to be durable.
    durable: Mutex<BTreeSet<PathBuf>>,
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
    pub(crate) partial: PathBuf,
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
            partial: at("partial"),
            quarantine: at("quarantine"),
        }
    }

    /// Up to where the index was synced when it was last closed.
    pub(crate) fn synced(&self) -> PathBuf {
        self.root.join("index.synced")
    }

    /// Where an index lies that is not to be used any more.
    pub(crate) fn discarded(&self) -> PathBuf {
        self.root.join("index.discarded")
    }

    /// Sees to it that the index, which failed, is not believed when the store is next opened: sled
    /// may have written the mark of a batch without the rest of it. By a rename, which also a full
    /// disk allows; a process that has the index open does not notice.
    pub(crate) fn condemn_index(&self) {
        // If this fails too, the index is damaged when it is opened, or fails again.
        let _ = std::fs::rename(&self.index, self.discarded());
    }

    /// Where the owner listens, if it serves.
    pub(crate) fn socket(&self) -> PathBuf {
        self.root.join("store.sock")
    }

    /// Locked, shared, by every client for as long as it may have something in `tmp/`.
    pub(crate) fn clients(&self) -> PathBuf {
        self.root.join("clients.lock")
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
