//! `npm:`: the tarball of a package, by npm itself, so that `.npmrc` with its registries, proxies,
//! certificates and logins counts.
//!
//! `npm pack` of an exact version writes the tarball as the registry has it, and runs nothing of it:
//! scripts run for directories and git repositories only, and `--ignore-scripts` forbids them all.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use super::{Config, client::Client, error::FetchError, partial::disk};

/// The program, and what it is called in errors.
pub(super) const NAME: &str = "npm";

/// Lets npm write the tarball somewhere below `scratch`, and says where.
pub(super) fn pack(
    name: &str,
    version: &str,
    scratch: &Path,
    config: &Config,
    cancel: &AtomicBool,
) -> Result<PathBuf, FetchError> {
    // npm takes the nearest directory above that has a package.json for its project, and then the
    // project's `.npmrc` too: this one has neither.
    let (manifest, out) = (scratch.join("package.json"), scratch.join("out"));
    fs::write(&manifest, "{}").map_err(disk(&manifest))?;
    fs::create_dir(&out).map_err(disk(&out))?;
    let package = format!("{name}@{version}");
    let client = Client {
        name: NAME,
        programs: &[&[NAME]],
        dir: scratch,
        env: &[("NO_COLOR", "1"), ("npm_config_update_notifier", "false")],
        location: &format!("npm:{package}"),
        timeout: config.client_timeout,
    };
    client
        .run(&["pack", "--ignore-scripts", "--json", "--pack-destination", "out", "--", &package], cancel)?;
    let tarball = |path: &PathBuf| path.extension().is_some_and(|e| e == "tgz");
    let entries = fs::read_dir(&out).map_err(disk(&out))?;
    let mut tarballs = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(tarball);
    tarballs.next().ok_or(FetchError::ClientAnswer { client: NAME, what: "tarball" })
}

/// What npm calls the tarball of a package, and registries after it.
pub(super) fn file(name: &str, version: &str) -> String {
    let bare = name.rsplit_once('/').map_or(name, |(_, bare)| bare);
    format!("{bare}-{version}.tgz")
}
