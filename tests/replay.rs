//! Every target of `tests/src/fuzz.rs` on all of its seeds, and on a fixed number of damaged ones.
//!
//! The damage depends on nothing but the seeds, so a failure here is the same everywhere. What
//! breaks is shown; kept as a file in `fuzz/seeds/<target>/` it is tried in every run.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
};

use protocol::evidence;
use store::Fact;
use tests::{
    fuzz::{TARGETS, Target},
    mutation::{Random, mutated},
    repository,
};

fn here() -> PathBuf {
    repository().join("tests")
}

fn seeds(target: &Target) -> Vec<(String, Vec<u8>)> {
    let mut seeds = Vec::new();
    let kept = format!("fuzz/seeds/{}", target.name);
    for directory in target.seeds.iter().copied().chain((!target.seeds.contains(&&*kept)).then_some(&*kept)) {
        let Ok(entries) = fs::read_dir(here().join(directory)) else { continue };
        let paths = entries.map(|entry| entry.unwrap().path());
        let inputs = paths.filter(|path| path.extension().is_none_or(|e| e != "expect"));
        seeds.extend(inputs.map(|path| (path.display().to_string(), fs::read(path).unwrap())));
    }
    seeds.sort();
    assert!(!seeds.is_empty(), "{} has no seeds", target.name);
    seeds
}

/// Seeds with what the vectors have of evidence, as facts: of which the store keeps a journal. Missing
/// ones are written with `ASSIZE_BLESS=1`.
#[test]
fn seeds_have_the_evidence_of_the_vectors() {
    let file = fs::read(here().join("vectors/evidence/ok_all.evidence")).unwrap();
    let items = evidence::read(&file).unwrap().map(|item| item.unwrap().verify().unwrap());
    let facts: Vec<_> = items.map(|item| Fact::Evidence(item).to_bytes()).collect();
    for (name, n) in [("statement", 0), ("revocation", 2), ("equivocation", 3)] {
        derived(&format!("fuzz/seeds/fact/{name}"), &facts[n]);
    }
    // Behind the head of another segment.
    let other = fs::read(here().join("fuzz/seeds/journal/three_facts")).unwrap();
    let mut segment = other[..8 + usize::from(other[0])].to_vec();
    for fact in facts {
        segment.extend((fact.len() as u32).to_le_bytes());
        segment.extend(crc32c::crc32c(&fact).to_le_bytes());
        segment.extend(fact);
    }
    derived("fuzz/seeds/journal/evidence", &segment);
}

fn derived(path: &str, bytes: &[u8]) {
    let file = here().join(path);
    if !file.exists() && std::env::var_os("ASSIZE_BLESS").is_some() {
        fs::write(&file, bytes).unwrap();
    }
    assert!(fs::read(&file).is_ok_and(|found| found == bytes), "{path} is not what the vectors have");
}

fn replay(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("a target of that name");
    let seeds = seeds(target);
    let accepted = seeds.iter().filter(|(path, seed)| check(target, seed, path)).count();
    assert!(accepted > 0, "{name} refuses all of its {} seeds, so it looks at nothing", seeds.len());
    let mut random = Random::new(name.bytes().map(u64::from).sum());
    for n in 0..target.mutations as usize {
        let (path, seed) = &seeds[n % seeds.len()];
        let (_, other) = &seeds[n / seeds.len() % seeds.len()];
        check(target, &mutated(seed, other, &mut random), &format!("damage {n} of {path}"));
    }
}

/// Whether the target accepts the input.
fn check(target: &Target, input: &[u8], what: &str) -> bool {
    let checked = catch_unwind(AssertUnwindSafe(|| (target.check)(input)));
    checked.unwrap_or_else(|_| panic!("{} fails on {what}: b\"{}\"", target.name, input.escape_ascii()))
}

macro_rules! replayed {
    ($($name:ident)*) => {
        $(#[test] fn $name() { replay(stringify!($name)); })*

        /// Here, for libFuzzer and in the table are the same targets.
        #[test]
        fn every_target_is_replayed_and_fuzzed() {
            let known: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(known, [$(stringify!($name)),*]);
            let manifest = fs::read_to_string(here().join("fuzz/Cargo.toml")).unwrap();
            for name in &known {
                let binary = format!("[[bin]]\nname = \"{name}\"\npath = \"targets/{name}.rs\"\n");
                assert!(manifest.contains(&binary), "fuzz/Cargo.toml has no {name}");
                let body = fs::read_to_string(here().join(format!("fuzz/targets/{name}.rs"))).unwrap();
                assert!(body.contains(&format!("tests::fuzz::{name}(data)")), "{body}");
            }
            assert_eq!(manifest.matches("[[bin]]").count(), known.len());
        }
    };
}

replayed! {
    nar_read nar_lookup derivation action name glob sri location id fact statement evidence message range body wish trace ticket key roster policy
    journal bundle frames answer paths jsonnet index_page module
}
