//! Real nodes, in processes of their own, on the loopback interface: what they tell each other.

use std::{
    io::{Read as _, Write as _},
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
    machine.sandbox.fails(&["node", "status"], 20, &["no node runs", "assize node start"]);
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

/// The manual's two machines and six commands, as they stand there.
#[test]
fn two_machines_six_commands() {
    let manual = std::fs::read_to_string(repository().join("docs/network.md")).expect("the manual");
    let machines = [("alice$ ", Machine::new(ASSIZE)), ("bob$ ", Machine::new(ASSIZE))];
    let (mut ran, mut ticket) = (0, String::new());
    let mut lines = manual.lines().peekable();
    while let Some(line) = lines.next() {
        let said = |(prompt, machine)| Some((line.strip_prefix(prompt)?, machine));
        let Some((command, machine)) = machines.iter().map(|(p, m)| (*p, m)).find_map(said) else { continue };
        let words = command.strip_prefix("assize ").expect("a command").split(' ');
        let mut words: Vec<_> =
            words.map(|word| if word == "peer:…" { &ticket } else { word }.to_owned()).collect();
        if command == "assize node start" {
            // Where nobody else listens.
            words.extend(["--no-mdns", "--listen", "/ip4/127.0.0.1/tcp/0"].map(str::to_owned));
        }
        let mut process = machine.sandbox.command(&words);
        process.current_dir(repository());
        let done = tests::said(process);
        assert_eq!(done.code, 0, "{command}\n{}{}", done.out, done.err);
        if let Some(shown) = lines.next_if(|line| !line.contains("$ ") && *line != "```") {
            assert!(done.out.starts_with(shown.trim_end_matches('…')), "{command}\n{}", done.out);
        }
        if command == "assize peer invite" {
            ticket = done.out.trim().to_owned();
        }
        ran += 1;
    }
    assert_eq!(ran, 6);
    let [(_, alice), (_, bob)] = &machines;
    assert_eq!(bob.sandbox.json(&["store", "ls"]).as_array().map_or(0, Vec::len), 0, "he built nothing");
    alice.sandbox.ok(["node", "start"]);
    let qr = alice.sandbox.run(["peer", "invite", "--qr"]);
    assert!(qr.err.lines().count() > 20 && qr.out.starts_with("peer:"), "{}", qr.err);
    bob.sandbox.fails(&["peer", "add", &ticket[..ticket.len() - 1]], 2, &["not all of it", "peer invite"]);
    alice.sandbox.ok(["node", "stop"]);
    alice.sandbox.fails(&["peer", "invite"], 20, &["no node runs", "assize node start"]);
    alice.sandbox.fails(&["node", "start", "--listen", "/ip4/127.0.0.1"], 1, &["cannot listen", "node.log"]);
}

/// The other commands of the manual are those that are run here.
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

/// Whoever supervises a node is told that it is ready, that it goes on, and that it ends; whoever
/// collects numbers gets them.
#[test]
fn it_is_looked_after() {
    let machine = Machine::new(ASSIZE);
    let socket = machine.sandbox.project().join("notify");
    let told = std::os::unix::net::UnixDatagram::bind(&socket).expect("a socket");
    told.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    // One that is free; nobody else takes it at once.
    let metrics = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port");
    let metrics = metrics.to_string();
    let mut command = machine.sandbox.command([
        "node",
        "run",
        "--no-mdns",
        "--listen",
        "/ip4/127.0.0.1/tcp/0",
        "--metrics",
        &metrics,
    ]);
    command.env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", "200000");
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let mut node = command.spawn().expect("the program starts");
    let mut said = [0; 256];
    let mut next = || {
        let len = told.recv(&mut said).expect("something is said");
        String::from_utf8_lossy(&said[..len]).into_owned()
    };
    assert!(next().contains("READY=1"));
    (0..3).for_each(|_| assert!(next().contains("WATCHDOG=1")));
    let get = |path: &str| {
        let mut stream = std::net::TcpStream::connect(&metrics).expect("it listens");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n").expect("it hears");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        answer
    };
    let counted = get("/metrics");
    assert!(counted.starts_with("HTTP/1.1 200 OK\r\n") && counted.ends_with("# EOF\n"), "{counted}");
    let kinds: Vec<_> = counted.lines().filter(|line| line.starts_with("# HELP ")).collect();
    assert!(kinds.len() >= 30, "{}: {kinds:#?}", kinds.len());
    for name in ["assize_uptime_seconds", "assize_feeds_followed", "assize_pieces_sent_bytes", "libp2p_"] {
        assert!(kinds.iter().any(|line| line.contains(name)), "{name}: {kinds:#?}");
    }
    assert!(get("/health").ends_with("\r\n\r\nok\n") && get("/ready").ends_with("\r\n\r\nready\n"));
    assert!(get("/v1/stop").starts_with("HTTP/1.1 404 "), "that is for the owner alone");
    // SIGINT ends it as SIGTERM does.
    let pid = rustix::process::Pid::from_child(&node);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it runs");
    while !next().contains("STOPPING=1") {}
    assert_eq!(node.wait().expect("it ran").code(), Some(0));
    for socket in ["node.sock", "store.sock"] {
        assert!(!machine.sandbox.home().join(socket).exists(), "{socket} is left");
    }
    // The unit names commands that exist, with flags that they have.
    let unit = std::fs::read_to_string(repository().join("docs/assize.service")).expect("the unit");
    for line in unit.lines().filter(|line| line.starts_with("Exec")) {
        let words = line.split_once("/assize ").expect("our program").1.split(' ').chain(["--help"]);
        machine.sandbox.ok(words);
    }
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
