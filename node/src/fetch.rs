//! Fetching: the one impure thing. Obtains a file and checks it against its hash.
//!
//! ```text
//! Fetch ── what is here already ── mirrors ── locations, in order ──▶ bytes ── hash ──▶ a file in `work`
//!              (cargo's cache)        │           │
//!                     http.rs ◀───────┴── URL ────┤
//!                     npm.rs, pypi.rs, cargo.rs ◀─┴── package: the ecosystem's own client says where
//! ```
//!
//! The hash (SPEC §5.3) is all that is believed: neither servers, nor mirrors, nor registries, nor
//! clients need to be honest, only present. So a wrong file costs one attempt, and the next location
//! is tried. Nothing that is fetched is executed, unpacked or parsed here.
//!
//! Blocking on purpose: a fetch is one thread that waits. Registries have no address in this code;
//! their clients are configured with one.

use std::{
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use protocol::{
    action::FetchAction,
    derivation::Fetch,
    location::Location,
    nar::{Node, NodeId},
};

use self::{
    http::Job,
    partial::{Partial, disk},
};

mod cargo;
mod client;
mod config;
mod error;
mod forward;
mod http;
mod npm;
mod partial;
#[doc(hidden)]
pub mod probe;
mod proxy;
mod pypi;

pub use self::{
    config::{Config, MirrorError, Mirrors, Prefix, Template},
    error::FetchError,
};

/// Bytes that must arrive in each stall time-out. Less is a server that keeps us waiting on purpose.
pub const STALL_BYTES: usize = 1024;

/// What a fetch is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Turns to a location, or to its mirror.
    Trying {
        /// Fit to be shown: a URL is without login and query.
        location: String,
    },
    /// Bytes have come; at most ten times a second, and at the end.
    Bytes {
        /// How many there are.
        done: u64,
        /// How many there will be, if the server says so.
        total: Option<u64>,
    },
    /// The server goes on where an earlier attempt ended.
    Resuming {
        /// Bytes that are here already.
        at: u64,
    },
    /// All is here; now its hash.
    Verifying,
    /// An ecosystem's client is running.
    Running {
        /// Which.
        client: &'static str,
    },
}

/// Obtains a file and checks it against its hash.
///
/// Tries what is on this machine, then each location in order, its mirror before itself. `work` is
/// a directory of the caller's that keeps half-fetched files for the next call; two fetches of one
/// hash take turns, also among processes. `progress` is called from this thread only. `cancel` is
/// looked at several times a second.
///
/// Returns the verified file, which is in `work` under its hash, for the caller to take in and
/// remove.
///
/// # Errors
///
/// The one location's [`FetchError`], or [`FetchError::Everywhere`] with each one's. Hostile servers
/// are expected here: files are bounded by [`Config::limit`], redirects, headers, pages and output of
/// clients by constants, waiting by time-outs.
///
/// # Source
///
/// SPEC §5.3.
pub fn fetch(
    fetch: &Fetch,
    config: &Config,
    work: &Path,
    progress: &mut dyn FnMut(Progress),
    cancel: &AtomicBool,
) -> Result<PathBuf, FetchError> {
    let locations = fetch.locations.iter().map(|text| text.parse()).collect::<Result<Vec<Location>, _>>();
    let locations = locations.map_err(FetchError::Location)?;
    let partial = Partial::open(work, &fetch.sri, cancel)?;
    let mut fetching = Fetching { fetch, work, partial, job: Job { config, progress, cancel } };
    let result = fetching.run(&locations);
    fetching.partial.close();
    result
}

/// Whether an archive is what a fetch gives: one file with that hash, executable or not as it says
/// (SPEC §5.3). What others got is no more believed than a server.
pub fn gives(action: &FetchAction, archive: &store::Archive) -> bool {
    let Node::File { executable, .. } = archive.index().node_of(NodeId::ROOT) else { return false };
    let content = archive.index().content(NodeId::ROOT, archive.bytes());
    executable == action.executable
        && content.is_some_and(|bytes| partial::hash(action.sri.algorithm(), bytes) == action.sri)
}

/// One fetch under way.
struct Fetching<'a> {
    fetch: &'a Fetch,
    work: &'a Path,
    partial: Partial,
    job: Job<'a>,
}

impl Fetching<'_> {
    fn run(&mut self, locations: &[Location]) -> Result<PathBuf, FetchError> {
        if let Some(path) = self.partial.verified(self.job.cancel)? {
            return Ok(path);
        }
        for location in locations {
            if let Location::Crate { name, version } = location
                && let Ok(path) = self.cached_crate(name.as_str(), version.as_str(), location)
            {
                return Ok(path);
            }
        }
        if self.job.config.offline {
            return Err(FetchError::Offline { name: self.fetch.name.to_string() });
        }
        let mut attempts = Vec::new();
        for location in locations {
            let mirror = self.mirror(location);
            let tried = mirror.map(|url| (shown(&url), self.url(&url)));
            if let Some(path) = settle(tried, &mut attempts)? {
                return Ok(path);
            }
            let shown = match location {
                Location::Url(url) => shown(url.as_str()),
                package => package.to_string(),
            };
            let tried = Some((shown, self.location(location)));
            if let Some(path) = settle(tried, &mut attempts)? {
                return Ok(path);
            }
        }
        match attempts.len() {
            1 => Err(attempts.remove(0).1),
            _ => Err(FetchError::Everywhere { name: self.fetch.name.to_string(), attempts }),
        }
    }

    /// The URL of the mirror to ask before a location, if one is configured.
    fn mirror(&self, location: &Location) -> Option<String> {
        let mirrors = &self.job.config.mirrors;
        let (template, name, version, file) = match location {
            Location::Url(url) => return mirrors.rewrite(url.as_str()),
            Location::Npm { name, version } => {
                (&mirrors.npm, name, version, Some(npm::file(name.as_str(), version.as_str())))
            }
            Location::Pypi { name, version, file } => {
                (&mirrors.pypi, name, version, file.as_ref().map(ToString::to_string))
            }
            Location::Crate { name, version } => {
                (&mirrors.crates, name, version, Some(cargo::file(name.as_str(), version.as_str())))
            }
        };
        template.as_ref()?.fill(name.as_str(), version.as_str(), file.as_deref())
    }

    fn location(&mut self, location: &Location) -> Result<PathBuf, FetchError> {
        match location {
            Location::Url(url) => self.url(url.as_str()),
            Location::Npm { name, version } => self.npm(name.as_str(), version.as_str(), location),
            Location::Pypi { name, version, file } => {
                let file = file.as_ref().map(|f| f.as_str());
                self.pypi(name.as_str(), version.as_str(), file, location)
            }
            Location::Crate { name, version } => self.crates(name.as_str(), version.as_str(), location),
        }
    }

    fn url(&mut self, url: &str) -> Result<PathBuf, FetchError> {
        (self.job.progress)(Progress::Trying { location: shown(url) });
        let url = http::parse(url)?;
        self.download(&http::Client::new(self.job.config), &url, http::shown(&url))
    }

    fn npm(&mut self, name: &str, version: &str, location: &Location) -> Result<PathBuf, FetchError> {
        let scratch = self.run_client(npm::NAME, location)?;
        let tarball = npm::pack(name, version, scratch.path(), self.job.config, self.job.cancel)?;
        self.copy(&tarball, location)
    }

    fn pypi(
        &mut self,
        name: &str,
        version: &str,
        file: Option<&str>,
        location: &Location,
    ) -> Result<PathBuf, FetchError> {
        let scratch = self.run_client(pypi::NAME, location)?;
        let (sri, shown) = (&self.fetch.sri, location.to_string());
        let wanted = pypi::Wanted { name, version, file, sri, location: &shown };
        let (client, url) = pypi::find(&wanted, scratch.path(), &mut self.job)?;
        (self.job.progress)(Progress::Trying { location: http::shown(&url) });
        self.download(&client, &url, shown)
    }

    fn crates(&mut self, name: &str, version: &str, location: &Location) -> Result<PathBuf, FetchError> {
        let scratch = self.run_client(cargo::NAME, location)?;
        cargo::download(name, version, scratch.path(), self.job.config, self.job.cancel)?;
        self.cached_crate(name, version, location)
    }

    /// The copy in cargo's cache that has the hash.
    fn cached_crate(
        &mut self,
        name: &str,
        version: &str,
        location: &Location,
    ) -> Result<PathBuf, FetchError> {
        let mut result = Err(FetchError::ClientAnswer { client: cargo::NAME, what: "crate into its cache" });
        for copy in cargo::cached(name, version) {
            result = self.copy(&copy, location);
            if result.as_ref().map_or_else(FetchError::is_final, |_| true) {
                break;
            }
        }
        result
    }

    /// Announces a client, and makes the directory that it runs in, which is gone when dropped.
    fn run_client(
        &mut self,
        client: &'static str,
        location: &Location,
    ) -> Result<tempfile::TempDir, FetchError> {
        (self.job.progress)(Progress::Trying { location: location.to_string() });
        (self.job.progress)(Progress::Running { client });
        tempfile::Builder::new().prefix("client-").tempdir_in(self.work).map_err(disk(self.work))
    }

    fn download(
        &mut self,
        client: &http::Client,
        url: &url::Url,
        location: String,
    ) -> Result<PathBuf, FetchError> {
        loop {
            let resumed = http::download(client, url, &mut self.partial, &mut self.job)?;
            match self.verify(&location) {
                // Two halves of different files, although the server denied it: once more, whole.
                Err(FetchError::Hash { .. }) if resumed => {}
                result => return result,
            }
        }
    }

    fn copy(&mut self, path: &Path, location: &Location) -> Result<PathBuf, FetchError> {
        self.partial.copy(path, self.job.config.limit, self.job.cancel)?;
        self.verify(&location.to_string())
    }

    fn verify(&mut self, location: &str) -> Result<PathBuf, FetchError> {
        (self.job.progress)(Progress::Verifying);
        let (expected, location) = (self.fetch.sri.clone(), location.to_owned());
        self.partial.verify()?.map_err(|found| FetchError::Hash { expected, found, location })
    }
}

/// Passes on a file and an error after which there is no point in going on; keeps the others.
fn settle(
    tried: Option<(String, Result<PathBuf, FetchError>)>,
    attempts: &mut Vec<(String, FetchError)>,
) -> Result<Option<PathBuf>, FetchError> {
    match tried {
        None => Ok(None),
        Some((_, Ok(path))) => Ok(Some(path)),
        Some((_, Err(error))) if error.is_final() => Err(error),
        Some((location, Err(error))) => {
            attempts.push((location, error));
            Ok(None)
        }
    }
}

/// A URL as it may be shown.
fn shown(url: &str) -> String {
    http::parse(url).map_or_else(|error| error.to_string(), |url| http::shown(&url))
}
