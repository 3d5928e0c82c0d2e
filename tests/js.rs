//! A peer that nobody here wrote: js-libp2p connects with a node (SPEC §17) and hears what it says.
//!
//! npm installs it once, pinned by `interop/package-lock.json`, into a directory that lasts;
//! `interop/peer.mjs` is all that it is told to do.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::symlink,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
};

use data_encoding::HEXLOWER;
use protocol::{
    evidence::UnverifiedEvidence,
    id::NarHash,
    message::{self, Gossip},
    statement::Body,
};
use serde_json::Value;
use tests::{
    cache,
    machine::{Machine, PATIENCE},
    must, repository,
};

/// Refuses what is too old for js-libp2p, which would fail without saying why.
const NODE: &str = "if (parseInt(process.versions.node) < 20) throw new Error(process.version)";

/// The directory of the packages of `package-lock.json`.
fn packages() -> PathBuf {
    let interop = repository().join("tests/interop");
    let lock = fs::read(interop.join("package-lock.json")).expect("the lock file");
    // Not an archive, but the same hash, as `b3sum` gives it.
    let home = cache().join(format!("js-{}", NarHash::of(&lock).to_hex()));
    let packages = home.join("node_modules");
    if packages.is_dir() {
        return packages;
    }
    // Another run may do the same at the same time: what is not whole yet has another name.
    let part = tempfile::tempdir_in(cache()).expect("a directory of the cache");
    for file in ["package.json", "package-lock.json"] {
        fs::copy(interop.join(file), part.path().join(file)).expect("a file of the cache");
    }
    let mut npm = Command::new("npm");
    npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(part.path());
    must(npm, "npm, with a way to its registry");
    if let Err(error) = fs::rename(part.path(), &home) {
        assert!(packages.is_dir(), "{}: {error}", home.display());
    }
    packages
}

/// `interop/peer.mjs`, running. It ends by itself when this is dropped.
struct Peer {
    child: Child,
    lines: mpsc::Receiver<String>,
    /// Its script, and a link to its packages, which Node.js looks for beside the script.
    _directory: tempfile::TempDir,
}

impl Peer {
    /// Starts one that connects with the node at `address`.
    fn start(address: &str) -> Self {
        let mut node = Command::new("node");
        node.args(["--eval", NODE]);
        must(node, "node (Node.js 20 or later)");
        let directory = tempfile::tempdir().expect("a temporary directory");
        let script = directory.path().join("peer.mjs");
        fs::copy(repository().join("tests/interop/peer.mjs"), &script).expect("a temporary file");
        symlink(packages(), directory.path().join("node_modules")).expect("a link");
        let mut command = Command::new("node");
        command.arg(script).arg(address).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("Node.js starts");
        let said = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let (to, lines) = mpsc::channel();
        thread::spawn(move || said.map_while(Result::ok).try_for_each(|line| to.send(line)));
        Self { child, lines, _directory: directory }
    }

    /// Waits for what it says next, which must be that event.
    fn says(&self, event: &str) -> Value {
        let line = self.lines.recv_timeout(PATIENCE);
        let line = line.unwrap_or_else(|error| panic!("no `{event}`: {error}"));
        let line: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(line["event"], event, "{line}");
        line
    }

    /// Ends it, when it must have nothing more to say.
    fn end(mut self) {
        drop(self.child.stdin.take());
        assert_eq!(self.lines.recv_timeout(PATIENCE), Err(RecvTimeoutError::Disconnected));
        assert_eq!(self.child.wait().expect("a process").code(), Some(0));
    }
}

/// It knows the node for what it is, and what the node tells it is signed by the node's owner.
#[test]
fn another_implementation_hears_what_is_built() {
    let machine = Machine::new(env!("CARGO_BIN_EXE_assize"));
    // What a node tells is what its own key said, which it looks for when it begins.
    let key = machine.key();
    let machine = machine.start();
    let peer = Peer::start(&machine.address);
    peer.says("connected");
    machine.hears("connected");
    let identified = peer.says("identified");
    assert!(identified["agent"].as_str().is_some_and(|agent| agent.starts_with("assize/")), "{identified}");
    let protocols = identified["protocols"].as_array().expect("protocols");
    for protocol in [message::QUERY, message::BLOB] {
        assert!(protocols.iter().any(|spoken| spoken == protocol), "{identified}");
    }
    peer.says("subscribed");
    assert_eq!(peer.says("ping")["ok"], true);

    let nar = machine.sandbox.build("a");
    let gossip = peer.says("gossip");
    let bytes = HEXLOWER.decode(gossip["hex"].as_str().expect("digits").as_bytes()).expect("digits");
    assert_eq!(gossip["bytes"], bytes.len());
    let Gossip(items) = Gossip::from_bytes(&bytes).expect("gossip");
    let [UnverifiedEvidence::Statement(statement)] = &items[..] else { panic!("{items:?}") };
    let signed = statement.clone().verify().expect("a good signature");
    assert_eq!(signed.statement().attester.to_string(), key);
    let Body::Built(attestation) = &signed.statement().body else { panic!("{signed:?}") };
    let nars: Vec<_> = attestation.outputs.values().map(|output| output.nar.to_string()).collect();
    assert_eq!(nars, [nar]);
    peer.end();
}
