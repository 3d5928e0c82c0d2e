//! Programs for Node.js that tests run, with their packages: installed by npm once, pinned by a
//! `package-lock.json`, into a directory that lasts.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use protocol::id::NarHash;

use crate::{cache, must, repository};

/// Refuses what is too old for the packages, which would fail without saying why.
const NODE: &str = "if (parseInt(process.versions.node) < 20) throw new Error(process.version)";

/// A script of a directory below `tests/`, beside a link to its packages, where Node.js looks for them.
pub struct Script {
    directory: tempfile::TempDir,
    name: String,
}

impl Script {
    /// The script `name` in `tests/folder`.
    pub fn new(folder: &str, name: &str) -> Self {
        let mut node = Command::new("node");
        node.args(["--eval", NODE]);
        must(node, "node (Node.js 20 or later)");
        let from = repository().join("tests").join(folder);
        let directory = tempfile::tempdir().expect("a temporary directory");
        fs::copy(from.join(name), directory.path().join(name)).expect("a temporary file");
        symlink(packages(&from), directory.path().join("node_modules")).expect("a link");
        Self { directory, name: name.to_owned() }
    }

    /// Runs it.
    pub fn command(&self) -> Command {
        let mut command = Command::new("node");
        command.arg(self.directory.path().join(&self.name));
        command
    }
}

/// The directory of the packages of the `package-lock.json` in `from`.
fn packages(from: &Path) -> PathBuf {
    let lock = fs::read(from.join("package-lock.json")).expect("the lock file");
    // Not an archive, but the same hash, as `b3sum` gives it.
    let home = cache().join(format!("js-{}", NarHash::of(&lock).to_hex()));
    let packages = home.join("node_modules");
    if packages.is_dir() {
        return packages;
    }
    // Another run may do the same at the same time: what is not whole yet has another name.
    let part = tempfile::tempdir_in(cache()).expect("a directory of the cache");
    for file in ["package.json", "package-lock.json"] {
        fs::copy(from.join(file), part.path().join(file)).expect("a file of the cache");
    }
    let mut npm = Command::new("npm");
    npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(part.path());
    must(npm, "npm, with a way to its registry");
    if let Err(error) = fs::rename(part.path(), &home) {
        assert!(packages.is_dir(), "{}: {error}", home.display());
    }
    packages
}
