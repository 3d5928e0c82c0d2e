//! Real nodes, in processes of their own, on the loopback interface: what they tell each other.

use std::{
    thread,
    time::{Duration, Instant},
};

use tests::{
    Sandbox,
    machine::{Machine, PATIENCE},
    repository,
};

const ASSIZE: &str = env!("CARGO_BIN_EXE_assize");

/// Two build, the third learns of it from them, and accepts by two of two.
#[test]
fn what_two_build_a_third_accepts() {
    let (alice, bob, carol) = (Machine::new(ASSIZE), Machine::new(ASSIZE), Machine::new(ASSIZE));
    alice.sandbox.build("a");
    let alice = alice.start();
    let bob = bob.start();
    carol.trusts("alice", &alice);
    bob.sandbox.build("b");
    carol.trusts("bob", &bob);
    carol.sandbox.configure("{ policy: { rule: { atLeast: 2, of: ['alice', 'bob'] } } }");
    assert_eq!(carol.sandbox.run(["why", "a"]).code, 10);
    // In a line: what carol has of bob, she has by way of alice.
    carol.sandbox.ok(["peer", "add", &alice.address]);
    bob.sandbox.ok(["peer", "add", &alice.address]);
    let carol = carol.start();
    carol.hears("connected");
    bob.hears("connected");
    // Alice said so before, bob says so now, while his node runs.
    bob.sandbox.build("a");
    let reasons = carol.finds("a", 0);
    assert!(reasons.contains("alice") && reasons.contains("bob"), "{reasons}");
    let status = carol.sandbox.json(&["node", "status"]);
    assert_eq!(status["feeds"]["followed"], 2);
    assert_eq!(status["feeds"]["missing"], 0);
    assert_eq!(status["peers"].as_object().map(|peers| peers.len()), Some(1));

    // A node that was away has it all when it is back.
    let mut carol = carol;
    carol.kill();
    alice.sandbox.build("c");
    bob.sandbox.build("c");
    let carol = carol.start();
    carol.finds("c", 0);
    carol.sandbox.ok(["store", "verify"]);
}

/// What one said to some, and something else to others, reaches both, and ends the key.
#[test]
fn an_equivocator_is_found_out() {
    let (alice, bob, carol) = (Machine::new(ASSIZE), Machine::new(ASSIZE), Machine::new(ASSIZE));
    let mallory = Machine::new(ASSIZE);
    // The same key in two stores: each has a feed of its own.
    mallory.sandbox.build("a");
    let twin = Machine::new(ASSIZE);
    mallory.sandbox.ok(["key", "backup", "backup"]);
    let backup = mallory.sandbox.project().join("backup");
    twin.sandbox.ok(["key", "restore", backup.to_str().expect("a path")]);
    mallory.sandbox.build("b");
    twin.sandbox.build("c");
    for machine in [&alice, &bob, &carol] {
        machine.trusts("mallory", &mallory);
    }
    let (mallory, twin) = (mallory.start(), twin.start());
    alice.sandbox.ok(["peer", "add", &mallory.address]);
    bob.sandbox.ok(["peer", "add", &twin.address]);
    let (alice, bob) = (alice.start(), bob.start());
    alice.sandbox.configure("{ policy: 'one' }");
    bob.sandbox.configure("{ policy: 'one' }");
    alice.finds("b", 0);
    bob.finds("c", 0);
    carol.sandbox.ok(["peer", "add", &alice.address]);
    carol.sandbox.ok(["peer", "add", &bob.address]);
    carol.sandbox.configure("{ policy: 'one' }");
    let carol = carol.start();
    // Everybody is told, whoever found it.
    for machine in [&alice, &bob, &carol] {
        let reasons = machine.finds("a", 10);
        assert!(reasons.contains("mallory"), "{reasons}");
    }
}

/// One node for one store, and a clear word about it; an orderly end; nothing left.
#[test]
fn nodes_begin_and_end() {
    let machine = Machine::new(ASSIZE);
    machine.sandbox.fails(&["node", "status"], 20, &["no node runs", "assize node run"]);
    machine.sandbox.fails(&["node", "stop"], 20, &["no node runs"]);
    let mut machine = machine.start();
    machine.sandbox.fails(
        &["node", "run", "--no-mdns", "--listen", "/ip4/127.0.0.1/tcp/0"],
        1,
        &["another process has the store open", "assize node stop"],
    );
    // All other commands go on.
    machine.sandbox.build("a");
    assert_eq!(machine.sandbox.json(&["store", "ls"]).as_array().map(Vec::len), Some(1));
    let id = machine.address.rsplit('/').next().expect("an id").to_owned();
    let end = Instant::now() + PATIENCE;
    loop {
        let status = machine.sandbox.json(&["node", "status"]);
        assert_eq!(status["node"], id.as_str());
        if status["feeds"]["statements"] == 1 {
            break;
        }
        assert!(Instant::now() < end, "{status}");
        thread::sleep(Duration::from_millis(100));
    }
    machine.sandbox.ok(["node", "stop"]);
    let ended = machine.running.as_mut().expect("it ran").wait().expect("a process");
    assert_eq!(ended.code(), Some(0));
    machine.sandbox.ok(["store", "verify"]);
    // Killed, it leaves sockets behind, which are in nobody's way.
    let mut machine = machine.start();
    machine.kill();
    machine.sandbox.fails(&["node", "status"], 20, &["no node runs"]);
    machine.sandbox.ok(["store", "verify"]);
    machine.start().sandbox.ok(["node", "status"]);
}

/// The commands of the manual are those that are run here.
#[test]
fn the_manual_says_what_is_tested() {
    let manual = std::fs::read_to_string(repository().join("docs/network.md")).expect("the manual");
    let commands: Vec<_> = manual.lines().filter_map(|line| line.strip_prefix("$ ")).collect();
    let [run, add, status] = commands[..] else { panic!("{commands:?}") };
    assert_eq!((run, status), ("assize node run", "assize node status"));
    assert!(add.starts_with("assize peer add /ip4/"), "{add}");
    // Each listens where the manual says, unless it is told otherwise.
    let sandbox = Sandbox::new(ASSIZE);
    assert!(sandbox.ok(["node", "run", "--help"]).contains("port 4720"));
    assert!(node::net::LISTEN.iter().all(|address| address.contains("/4720")));
}

#[test]
fn addresses_and_peers() {
    let machine = Machine::new(ASSIZE);
    let id = "12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5";
    machine.sandbox.fails(&["peer", "add", "example.org"], 2, &["no address", "/p2p/"]);
    machine.sandbox.fails(
        &["peer", "add", "/ip4/192.0.2.1/tcp/4720"],
        2,
        &["does not end with", "whole address"],
    );
    machine.sandbox.ok(["peer", "add", &format!("/ip4/192.0.2.1/tcp/4720/p2p/{id}")]);
    assert_eq!(machine.sandbox.ok(["peer", "list"]), format!("{id}  /ip4/192.0.2.1/tcp/4720\n"));
    machine.sandbox.fails(&["peer", "remove", "nobody"], 4, &["no node `nobody`"]);
    machine.sandbox.ok(["peer", "remove", id]);
    assert_eq!(machine.sandbox.ok(["peer", "list"]), "");
    machine.sandbox.fails(&["node", "run", "--listen", "/ip4/127.0.0.1"], 1, &["cannot listen"]);
}
