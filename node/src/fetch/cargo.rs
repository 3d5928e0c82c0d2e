//! `crate:`: the archive of a crate, by cargo itself, so that its configuration counts: registries,
//! source replacement, proxies, certificates and logins.
//!
//! cargo has no command that downloads one crate. `cargo info` (cargo 1.82) does it in passing: it
//! brings that crate alone into cargo's cache, without its dependencies, checked against the
//! registry's index, and builds nothing. It does not know yanked versions, which a pinned hash must
//! survive: `cargo fetch` brings those, and the crate's dependencies with them, if a lock file says
//! that they were chosen before. The cache is looked at first: a copy with the right hash is as
//! good as any.

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
    let package = format!("{name}@{version}");
    let client = Client {
        name: NAME,
        programs: &[&[NAME]],
        dir: scratch,
        env: &[("CARGO_TERM_COLOR", "never"), ("CARGO_TERM_PROGRESS_WHEN", "never")],
        location: &format!("crate:{package}"),
        timeout: config.client_timeout,
    };
    // An empty workspace, so that cargo does not look for one in the directories above.
    write(scratch, "Cargo.toml", "[workspace]\n")?;
    match client.run(&["info", "--", &package], cancel) {
        Err(error @ FetchError::ClientFailed { .. }) => match locked(&client, name, version, cancel) {
            Err(FetchError::ClientFailed { .. } | FetchError::ClientAnswer { .. }) => Err(error),
            other => other,
        },
        other => other.map(drop),
    }
}

/// Brings a crate that may be yanked, as the dependency of a package that has it in its lock file.
fn locked(client: &Client, name: &str, version: &str, cancel: &AtomicBool) -> Result<(), FetchError> {
    let manifest = format!(
        "[workspace]\n[package]\nname = \"assize-fetch\"\nversion = \"0.0.0\"\nedition = \"2021\"\n\
         [lib]\npath = \"lib.rs\"\n\
         [dependencies]\n{name} = {{ version = \"={version}\", default-features = false }}\n"
    );
    write(client.dir, "Cargo.toml", &manifest)?;
    write(client.dir, "lib.rs", "")?;
    let metadata = client.run(&["metadata", "--no-deps", "--format-version", "1"], cancel)?;
    let source = registry(&metadata).ok_or(FetchError::ClientAnswer { client: NAME, what: "registry" })?;
    let lock = format!(
        "version = 3\n\
         [[package]]\nname = \"assize-fetch\"\nversion = \"0.0.0\"\ndependencies = [\"{name}\"]\n\
         [[package]]\nname = \"{name}\"\nversion = \"{version}\"\nsource = \"{source}\"\n"
    );
    write(client.dir, "Cargo.lock", &lock)?;
    client.run(&["fetch"], cancel).map(drop)
}

/// How cargo names the registry that a dependency without one comes from.
fn registry(metadata: &str) -> Option<String> {
    let metadata: serde_json::Value = serde_json::from_str(metadata).ok()?;
    let source = metadata["packages"][0]["dependencies"][0]["source"].as_str()?;
    let plain = source.chars().all(|c| c.is_ascii_graphic() && !['"', '\\'].contains(&c));
    plain.then(|| source.to_owned())
}

fn write(dir: &Path, name: &str, text: &str) -> Result<(), FetchError> {
    let path = dir.join(name);
    fs::write(&path, text).map_err(disk(&path))
}

/// What cargo calls the archive of a crate.
pub(super) fn file(name: &str, version: &str) -> String {
    format!("{name}-{version}.crate")
}
