//! `crate:`: the archive of a crate, by cargo itself, so that its configuration counts: registries,
//! source replacement, proxies, certificates and logins.
//!
//! cargo has no command that downloads one crate. `cargo info` (cargo 1.82) does it in passing: it
//! brings that crate alone into cargo's cache, without its dependencies, checked against the
//! registry's index, and builds nothing. The cache is also looked at first: a copy with the right
//! hash is as good as any.

use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use super::{Config, client::Client, error::FetchError, partial::disk};

/// The program, and what it is called in errors.
pub(super) const NAME: &str = "cargo";

/// The copies in cargo's cache, one for each registry that has been used.
pub(super) fn cached(name: &str, version: &str) -> Vec<PathBuf> {
    let home = env::var_os("CARGO_HOME").filter(|h| !h.is_empty()).map(PathBuf::from);
    let Some(home) = home.or_else(|| Some(env::home_dir()?.join(".cargo"))) else {
        return Vec::new();
    };
    let registries = fs::read_dir(home.join("registry/cache")).into_iter().flatten();
    let copies = registries.filter_map(|r| Some(r.ok()?.path().join(file(name, version))));
    let mut copies: Vec<_> = copies.filter(|copy| copy.is_file()).collect();
    copies.sort();
    copies
}

/// Lets cargo bring the crate into its cache.
pub(super) fn download(
    name: &str,
    version: &str,
    scratch: &Path,
    config: &Config,
    cancel: &AtomicBool,
) -> Result<(), FetchError> {
    // An empty workspace, so that cargo does not look for one in the directories above.
    let manifest = scratch.join("Cargo.toml");
    fs::write(&manifest, "[workspace]\n").map_err(disk(&manifest))?;
    let package = format!("{name}@{version}");
    let client = Client {
        name: NAME,
        programs: &[&[NAME]],
        dir: scratch,
        env: &[("CARGO_TERM_COLOR", "never"), ("CARGO_TERM_PROGRESS_WHEN", "never")],
        location: &format!("crate:{package}"),
        timeout: config.client_timeout,
    };
    client.run(&["info", "--", &package], cancel).map(drop)
}

/// What cargo calls the archive of a crate.
pub(super) fn file(name: &str, version: &str) -> String {
    format!("{name}-{version}.crate")
}
