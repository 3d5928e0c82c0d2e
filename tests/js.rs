//! A peer that nobody here wrote: js-libp2p connects with a node (SPEC §17) and hears what it says.
//!
//! `interop/peer.mjs` is all that it is told to do.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
};

use data_encoding::HEXLOWER;
use protocol::{
    evidence::UnverifiedEvidence,
    message::{self, Gossip},
    statement::Body,
};
use serde_json::Value;
use tests::{
    machine::{Machine, PATIENCE},
    npm::Script,
};

/// `interop/peer.mjs`, running. It ends by itself when this is dropped.
struct Peer {
    child: Child,
    lines: mpsc::Receiver<String>,
    _script: Script,
}

impl Peer {
    /// Starts one that connects with the node at `address`.
    fn start(address: &str) -> Self {
        let script = Script::new("interop", "peer.mjs");
        let mut command = script.command();
        command.arg(address).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("Node.js starts");
        let said = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let (to, lines) = mpsc::channel();
        thread::spawn(move || said.map_while(Result::ok).try_for_each(|line| to.send(line)));
        Self { child, lines, _script: script }
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
