//! Sweeping: what nobody wants to keep goes.
//!
//! Archives do not refer to each other, so there is nothing to trace: what is pinned or named by
//! the caller stays, and the rest goes, the oldest first. Facts stay: that an action once gave
//! these hashes remains true, and makes it possible to fetch or rebuild what was swept.

use std::{
    collections::BTreeSet,
    fs::{self, File, Metadata},
    io,
    path::Path,
    sync::PoisonError,
    time::{Duration, SystemTime},
};

use protocol::id::{ActionId, NarHash};

use crate::{
    DiskError, LookupError, Store,
    books::{Books, Here},
    disk::{self, Doing as _},
};

/// Logs and temporary things younger than this may belong to something that is running.
const GRACE: Duration = Duration::from_secs(24 * 3600);

/// How long a compiled module may lie unused if [`GcOptions::older_than`] does not say: compiling
/// it again can take minutes.
const MODULE_AGE: Duration = Duration::from_secs(30 * 24 * 3600);

/// How long pieces of an archive may lie, if [`GcOptions::older_than`] does not say.
const PARTIAL_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// What to sweep.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GcOptions {
    /// Only say what would go.
    pub dry_run: bool,
    /// Archives to keep beside the pinned ones: what runs now, what is shared with peers.
    pub keep: BTreeSet<NarHash>,
    /// Keep what was admitted, or used, more recently than this.
    pub older_than: Option<Duration>,
}

/// What was swept, or would be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GcReport {
    /// Archives, the oldest first.
    pub nars: Vec<SweptNar>,
    /// Bytes of these.
    pub nar_bytes: u64,
    /// Logs of actions no output of which is left.
    pub logs: Area,
    /// Compiled modules that were not used.
    pub modules: Area,
    /// Left in `tmp/`, and pieces of archives that nobody went on to fetch.
    pub temp: Area,
    /// Archives that stay.
    pub kept: Area,
}

/// An archive that was swept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SweptNar {
    /// Its hash.
    pub hash: NarHash,
    /// Its bytes.
    pub size: u64,
    /// When it was last admitted.
    pub admitted: SystemTime,
}

/// A number of files and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Area {
    /// How many files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Area {
    pub(crate) fn add(&mut self, bytes: u64) {
        self.files += 1;
        self.bytes += bytes;
    }
}

impl GcReport {
    /// Bytes that were freed in all.
    pub fn bytes(&self) -> u64 {
        self.nar_bytes + self.logs.bytes + self.modules.bytes + self.temp.bytes
    }
}

impl Store {
    /// Sweeps archives that are neither pinned nor in [`GcOptions::keep`], and what hangs on them.
    ///
    /// An archive that is admitted while this runs stays; one that is open stays readable for who
    /// has it open. What other processes need is not known here: while any but us has the store
    /// open as a client, only a dry run is done, and so it is for a client while the owner is
    /// [`Store::busy`]; while a sweep runs, nobody is served anew. What our own threads need is
    /// for them to agree on; but an archive on its way ([`Store::partial`]) that one of them has open stays.
    ///
    /// # Errors
    ///
    /// [`LookupError`]. If it is [`LookupError::InUse`], or the pins cannot be read, nothing is swept.
    pub fn gc(&self, options: &GcOptions) -> Result<GcReport, LookupError> {
        match &self.books {
            Books::Here(here) => self.gc_for(here, None, options),
            Books::There(client) => {
                // What our other threads admit meanwhile would not be noted by the one that sweeps.
                let _naming = self.naming.lock().unwrap_or_else(PoisonError::into_inner);
                client.gc(options)
            }
        }
    }

    /// Sweeps for a client, or for ourselves.
    pub(crate) fn gc_for(
        &self,
        here: &Here,
        asker: Option<u64>,
        options: &GcOptions,
    ) -> Result<GcReport, LookupError> {
        let _sweeping = here.sweeping.lock().unwrap_or_else(PoisonError::into_inner);
        let _alone = match options.dry_run {
            true => None,
            false => Some(here.clients.alone(asker).map_err(|processes| LookupError::InUse { processes })?),
        };
        *self.naming.lock().unwrap_or_else(PoisonError::into_inner) = Some(BTreeSet::new());
        let report = self.sweep(options, SystemTime::now());
        *self.naming.lock().unwrap_or_else(PoisonError::into_inner) = None;
        report
    }

    fn sweep(&self, options: &GcOptions, start: SystemTime) -> Result<GcReport, LookupError> {
        let mut keep: BTreeSet<NarHash> = self.pins()?.into_values().flatten().collect();
        keep.extend(&options.keep);
        let mut report = GcReport::default();
        let mut unwanted = Vec::new();
        for nar in self.nars_here()?.0 {
            let old = is_older(start, nar.admitted, options.older_than.unwrap_or_default());
            if keep.contains(&nar.hash) || !old {
                report.kept.add(nar.size);
            } else {
                unwanted.push(nar);
            }
        }
        unwanted.sort_by_key(|nar| (nar.admitted, nar.hash));
        for nar in unwanted {
            if options.dry_run || self.unlink_nar(&nar.hash)? {
                report.nar_bytes += nar.size;
                report.nars.push(nar);
            } else {
                report.kept.add(nar.size);
            }
        }
        let swept: BTreeSet<NarHash> = report.nars.iter().map(|nar| nar.hash).collect();
        self.sweep_logs(options, start, &swept, &mut report)?;
        let age = options.older_than.unwrap_or(MODULE_AGE);
        report.modules = sweep_files(&self.home.modules, options.dry_run, |_, metadata| {
            is_older(start, last_use(metadata), age)
        })?;
        report.temp = sweep_files(&self.home.tmp, options.dry_run, |_, metadata| {
            is_older(start, last_use(metadata), GRACE)
        })?;
        let age = options.older_than.unwrap_or(PARTIAL_AGE);
        let partial = sweep_files(&self.home.partial, options.dry_run, |path, metadata| {
            // What somebody has open is locked.
            let free = || File::open(path).is_ok_and(|file| file.try_lock().is_ok());
            is_older(start, last_use(metadata), age) && free()
        })?;
        report.temp.files += partial.files;
        report.temp.bytes += partial.bytes;
        Ok(report)
    }

    /// Removes an archive, unless it was admitted since the sweep began; says whether it is gone.
    fn unlink_nar(&self, hash: &NarHash) -> Result<bool, DiskError> {
        let path = self.nar_path(hash);
        let naming = self.naming.lock().unwrap_or_else(PoisonError::into_inner);
        if naming.as_ref().is_some_and(|young| young.contains(hash)) {
            return Ok(false);
        }
        match fs::remove_file(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            other => other.doing("remove", &path)?,
        }
        Ok(true)
    }

    /// Removes logs of actions of which no output is left, and of actions that failed.
    fn sweep_logs(
        &self,
        options: &GcOptions,
        start: SystemTime,
        swept: &BTreeSet<NarHash>,
        report: &mut GcReport,
    ) -> Result<(), LookupError> {
        let age = options.older_than.unwrap_or(GRACE).max(GRACE);
        let mut failed = None;
        let here = |nar: &NarHash| !swept.contains(nar) && self.contains(nar);
        report.logs = sweep_files(&self.home.logs, options.dry_run, |path, metadata| {
            let Some(id) = log_name(path) else { return false };
            is_older(start, modified(metadata), age)
                && match self.realisation(&id) {
                    Ok(None) => true,
                    Ok(Some(built)) => !built.outputs.values().any(|output| here(&output.nar)),
                    Err(e) => {
                        failed.get_or_insert(e);
                        false
                    }
                }
        })?;
        failed.map_or(Ok(()), Err)
    }

    /// The archives that are here, and files in `cas/` that are none.
    pub(crate) fn nars_here(&self) -> Result<(Vec<SweptNar>, Vec<std::path::PathBuf>), DiskError> {
        let (mut nars, mut foreign) = (Vec::new(), Vec::new());
        disk::walk(&self.home.cas, &mut |path, metadata| match nar_name(&self.home.cas, path) {
            Some(hash) if metadata.is_file() => {
                nars.push(SweptNar { hash, size: metadata.len(), admitted: modified(metadata) });
            }
            _ => foreign.push(path.to_owned()),
        })?;
        Ok((nars, foreign))
    }
}

/// Removes the files below `dir` that are `unwanted`.
fn sweep_files(
    dir: &Path,
    dry_run: bool,
    mut unwanted: impl FnMut(&Path, &Metadata) -> bool,
) -> Result<Area, DiskError> {
    let (mut area, mut failed) = (Area::default(), Ok(()));
    disk::walk(dir, &mut |path, metadata| {
        if failed.is_ok() && unwanted(path, metadata) {
            area.add(metadata.len());
            if !dry_run {
                failed = fs::remove_file(path).doing("remove", path);
            }
        }
    })?;
    failed.map(|()| area)
}

/// The hash that `cas/ab/cdef….nar` is named by.
fn nar_name(cas: &Path, path: &Path) -> Option<NarHash> {
    // Not `cas/x/ab/cdef….nar`.
    let in_place = path.parent().and_then(Path::parent) == Some(cas);
    hex_name(path, "nar").filter(|_| in_place).and_then(|hex| NarHash::from_hex(&hex))
}

/// The action that `logs/ab/cdef….log` is named by.
fn log_name(path: &Path) -> Option<ActionId> {
    hex_name(path, "log").and_then(|hex| ActionId::from_hex(&hex))
}

fn hex_name(path: &Path, suffix: &str) -> Option<String> {
    let rest = path.file_name()?.to_str()?.strip_suffix(suffix)?.strip_suffix('.')?;
    let first = path.parent()?.file_name()?.to_str()?;
    (first.len() == 2).then(|| format!("{first}{rest}"))
}

fn is_older(now: SystemTime, then: SystemTime, age: Duration) -> bool {
    // A time in the future, as after a clock was set back, is young.
    now.duration_since(then).is_ok_and(|passed| passed >= age)
}

fn modified(metadata: &Metadata) -> SystemTime {
    metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH)
}

/// When a file was last written or, as exactly as the file system keeps it (mostly to a day), read.
fn last_use(metadata: &Metadata) -> SystemTime {
    modified(metadata).max(metadata.accessed().unwrap_or(SystemTime::UNIX_EPOCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is admitted between the listing and the unlinking stays.
    #[test]
    fn admitted_meanwhile() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path(), |_| false).unwrap();
        let archive = |n: u8| protocol::nar::dump_file(Vec::new(), false, 1, &[n][..]).unwrap();
        let admit = |n| store.admit(&archive(n)[..], None, 1000).unwrap().hash;
        let (old, again) = (admit(0), admit(1));
        *store.naming.lock().unwrap() = Some(BTreeSet::new());
        let new = admit(2);
        admit(1);
        assert_eq!([old, again, new].map(|hash| store.unlink_nar(&hash).unwrap()), [true, false, false]);
        assert_eq!([old, again, new].map(|hash| store.contains(&hash)), [false, true, true]);
    }
}
