//! The scenarios, what they notice, and what is written about them.
//!
//! * `scenarios.rs`: every scenario holds.
//! * `variants.rs`: nodes that are broken on purpose are noticed.
//! * `replays.rs`: a seed is the same world, always.
//! * `figures.rs`: what is measured is measured again.
//! * `manual.rs`: `docs/simulations.md` is what happens.

mod figures;
mod manual;
mod replays;
mod scenarios;
mod variants;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use simulations::scenario::Scenario;

/// Asked at run time: whoever keeps what is compiled may have compiled it elsewhere.
fn repository() -> PathBuf {
    Path::new(&std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).parent().unwrap().to_owned()
}

/// All scenarios, by name, in order, but for those in `large/`, which take minutes.
fn all() -> Vec<(String, Scenario)> {
    let files = fs::read_dir(repository().join("simulations/scenarios")).unwrap();
    let mut paths: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    paths.retain(|path| path.is_file());
    paths.sort();
    let name = |path: &PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
    let read = |path: &PathBuf| Scenario::parse(&fs::read_to_string(path).unwrap()).unwrap();
    paths.iter().map(|path| (name(path), read(path))).collect()
}

fn scenario(name: &str) -> Scenario {
    all().into_iter().find(|(known, _)| known == name).unwrap_or_else(|| panic!("no scenario `{name}`")).1
}

/// Runs the program in the repository.
fn simulate(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_simulate"));
    command.args(arguments).current_dir(repository()).output().unwrap()
}
