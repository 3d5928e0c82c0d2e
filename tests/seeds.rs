//! The committed seeds of stage 0 are what their source compiles to, bit for bit.
//!
//! `packages/stage0/REBUILD.md` says how and why; `packages/stage0/rebuild` does it.

use std::{fs, process::Command};

#[test]
fn seeds_rebuild_bit_for_bit() {
    let stage0 = tests::repository().join("packages/stage0");
    let version = Command::new("rustc").arg("-vV").output().expect("rustc runs");
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    assert!(
        version.contains("\nrelease: 1.95.0\n"),
        "the seeds were made by rustc 1.95.0 and can be compared with that version only \
         (`rustup run 1.95.0 cargo test`); this is:\n{version}"
    );
    let out = tempfile::tempdir().expect("a temporary directory");
    // Elsewhere than in the repository: the path must not matter.
    let copy = out.path().join("a copy");
    tests::copy(&stage0, &copy);
    let rebuilt = Command::new("bash")
        .arg(copy.join("rebuild"))
        .arg(out.path().join("seeds"))
        .env("JOBS", "2")
        .output()
        .expect("bash runs");
    let log = String::from_utf8_lossy(&rebuilt.stderr);
    assert!(rebuilt.status.success(), "is the target there? `rustup target add wasm32-wasip1`\n{log}");
    for seed in ["files.wasm", "unpack.wasm", "wat.wasm"] {
        let committed = fs::read(stage0.join("seeds").join(seed)).expect("the committed seed");
        let built = fs::read(out.path().join("seeds").join(seed)).expect("the rebuilt seed");
        assert!(committed == built, "{seed} is not what its source compiles to");
    }
}
