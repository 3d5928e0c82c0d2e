//! What others built, fetched from them: real nodes on the loopback interface.

use std::path::Path;

use protocol::id::NarHash;
use tests::machine::Machine;

const ASSIZE: &str = env!("CARGO_BIN_EXE_assize");

const TWO_OF_THREE: &str = "{ policy: { rule: { atLeast: 2, of: ['alice', 'bob', 'carol'] } } }";

/// Three machines, whose keys are made and whose nodes run, and a fourth that trusts two of three
/// and is to be connected to them.
fn builders() -> ([Machine; 3], Machine) {
    let builders = [(); 3].map(|()| Machine::new(ASSIZE));
    let dave = Machine::new(ASSIZE);
    for builder in &builders {
        builder.sandbox.ok(["key", "show"]);
    }
    let builders = builders.map(Machine::start);
    for (name, builder) in ["alice", "bob", "carol"].iter().zip(&builders) {
        dave.trusts(name, builder);
        dave.sandbox.ok(["peer", "add", &builder.address]);
    }
    dave.sandbox.configure(TWO_OF_THREE);
    (builders, dave)
}

/// Nothing is taken before two of three agree, and then it is taken from whoever has it, and not
/// built; with a node that runs, and without one.
#[test]
fn two_of_three_are_enough() {
    let ([alice, bob, _carol], mut dave) = builders();
    for node_runs in [false, true] {
        let attribute = if node_runs { "small" } else { "large" };
        if node_runs {
            dave = dave.start();
        }
        let nar = alice.sandbox.build(attribute);
        let said = dave.sandbox.run(["fetch", attribute]);
        assert_eq!(said.code, 10, "{}", said.err);
        assert!(said.err.contains("too few have spoken"), "{}", said.err);
        assert_eq!(bob.sandbox.build(attribute), nar);
        let planned = dave.sandbox.run(["fetch", attribute, "--dry-run", "--wait", "60"]);
        assert_eq!(planned.code, 0, "{}", planned.err);
        assert!(planned.err.contains("1 archive to download, 5.0 MiB"), "{}", planned.err);
        assert!(planned.err.contains("accepted"), "{}", planned.err);
        let said = dave.sandbox.run(["fetch", attribute, "--pin", attribute]);
        assert_eq!(said.code, 0, "{}", said.err);
        assert!(said.out.starts_with(&format!("{nar}  {attribute}  5.0 MiB")), "{}", said.out);
        // Once more, there is nothing to do.
        let said = dave.sandbox.run(["fetch", attribute, "--offline"]);
        assert_eq!((said.code, said.err.contains("download")), (0, false), "{}", said.err);
    }
    // What it is made of was not needed.
    let have = dave.sandbox.json(&["store", "df"]);
    assert_eq!(have["archives"]["files"], 2, "{have}");
    dave.sandbox.ok(["store", "verify"]);
}

/// Clocks that are a day off on whole machines, ahead and behind, are nobody's business: places
/// order a feed, and how long to wait is measured.
#[test]
fn clocks_a_day_off() {
    let Some(library) = libfaketime() else {
        return println!("not tested: `libfaketime` is not installed (Debian: faketime)");
    };
    let [alice, bob, dave] = ["-1d", "+1d", "+0"].map(|offset| {
        let mut machine = Machine::new(ASSIZE);
        for (name, value) in [("LD_PRELOAD", library), ("FAKETIME", offset), ("DONT_FAKE_MONOTONIC", "1")] {
            machine.sandbox.set(name, value);
        }
        machine.sandbox.ok(["key", "show"]);
        machine.start()
    });
    for (name, builder) in [("alice", &alice), ("bob", &bob)] {
        dave.trusts(name, builder);
        dave.sandbox.ok(["peer", "add", &builder.address]);
    }
    dave.sandbox.configure("{ policy: { rule: { atLeast: 'all', of: ['alice', 'bob'] } } }");
    for attribute in ["small", "large"] {
        let nar = alice.sandbox.build(attribute);
        assert_eq!(bob.sandbox.build(attribute), nar);
        let said = dave.sandbox.run(["fetch", attribute, "--wait", "60"]);
        assert_eq!(said.code, 0, "{}", said.err);
        assert!(said.out.starts_with(&nar), "{}", said.out);
    }
    // They do tell different times.
    let days: Vec<_> = [&alice, &bob].map(said_at).into();
    assert!(days[0] + 40 * 3600 < days[1], "{days:?}");
}

/// The second at which a machine says it made its first statement.
fn said_at(machine: &Machine) -> u64 {
    let key = machine.key().parse().expect("a key");
    let first = machine.store().statements(&key, 0).next().expect("a statement").expect("a store");
    first.statement().time
}

/// What makes programs believe in another time, where Debian puts it.
fn libfaketime() -> Option<&'static str> {
    [
        "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
        "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
    ]
    .into_iter()
    .find(|path| Path::new(path).exists())
}

/// Building takes what others agree on, and builds the rest; unless that is not wanted.
#[test]
fn a_build_takes_what_others_built() {
    let ([alice, bob, carol], dave) = builders();
    let dave = dave.start();
    for builder in [&alice, &bob] {
        builder.sandbox.build("large");
    }
    let nar = carol.sandbox.build("small");
    dave.finds("large", 0);
    let said = dave.sandbox.run(["build", "small"]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.out.starts_with(&nar), "{}", said.out);
    let (had, built) = (said.err.contains("✔ had from others large"), said.err.contains("✔ built small"));
    assert!(had && built && !said.err.contains("built large"), "{}", said.err);
    // It is not signed what was not executed.
    let list = dave.sandbox.ok(["attest", "list"]);
    assert!(list.lines().any(|line| line.ends_with("  self  1 statement")), "{list}");

    let erin = Machine::new(ASSIZE);
    erin.trusts("alice", &alice);
    erin.trusts("bob", &bob);
    erin.sandbox.configure("{ policy: { rule: { atLeast: 2, of: ['alice', 'bob'] } } }");
    erin.sandbox.ok(["peer", "add", &alice.address]);
    erin.sandbox.ok(["peer", "add", &bob.address]);
    assert_eq!(erin.sandbox.executed("a"), ["a"]);
    let said = erin.sandbox.run(["build", "small", "--no-substitute"]);
    assert!(said.err.contains("✔ built large") && said.err.contains("✔ built small"), "{}", said.err);
}

/// Who is gone is replaced by who is there; when nobody has it, that is said, and building helps.
#[test]
fn providers_come_and_go() {
    let ([mut alice, mut bob, carol], dave) = builders();
    for builder in [&alice, &bob] {
        builder.sandbox.build("large");
    }
    let dave = dave.start();
    dave.finds("large", 0);
    alice.kill();
    bob.kill();
    let said = dave.sandbox.run(["fetch", "large"]);
    assert_eq!(said.code, 20, "{}", said.err);
    assert!(said.err.contains("nobody who can be reached has it"), "{}", said.err);
    // Whoever has it may say so: that carol has no vote in this does not matter.
    carol.sandbox.build("large");
    dave.sandbox.ok(["fetch", "large"]);
    let said = dave.sandbox.run(["build", "large"]);
    assert_eq!((said.code, said.err.contains("built")), (0, false), "{}", said.err);
    let said = dave.sandbox.run(["build", "small"]);
    assert!(said.err.contains("✔ built small"), "{}", said.err);
}

/// A provider whose archive is damaged sends nothing of it. If that is so of all, it is not to be had,
/// and nothing of it is kept; as soon as one has it whole, it is.
#[test]
fn damage_is_nobodys_archive() {
    let ([alice, bob, _carol], dave) = builders();
    let nar = alice.sandbox.build("large");
    bob.sandbox.build("large");
    let hex = nar.parse::<NarHash>().expect("a hash").to_hex();
    let path =
        |who: &Machine| who.sandbox.home().join("cas").join(&hex[..2]).join(format!("{}.nar", &hex[2..]));
    let whole = std::fs::read(path(&alice)).expect("the archive");
    let put = |who: &Machine, bytes: &[u8]| {
        std::fs::remove_file(path(who)).expect("a file");
        std::fs::write(path(who), bytes).expect("a file");
    };
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 1;
    put(&alice, &damaged);
    put(&bob, &damaged);
    let dave = dave.start();
    dave.finds("large", 0);
    let said = dave.sandbox.run(["fetch", "large"]);
    assert_eq!(said.code, 20, "{}", said.err);
    assert!(said.err.contains("nobody who can be reached has it"), "{}", said.err);
    assert!(said.err.contains("assize build"), "{}", said.err);
    assert!(!path(&dave).exists());
    put(&bob, &whole);
    dave.sandbox.ok(["fetch", "large"]);
    dave.sandbox.ok(["store", "verify"]);
}

/// Who has an archive is found by way of a node that has nothing of it, and that alone was named.
#[test]
fn what_no_neighbour_has_is_found() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port");
    let listen = format!("/ip4/127.0.0.1/tcp/{}", free.port());
    let hub = Machine::new(ASSIZE);
    hub.sandbox.configure(&format!("{{ network: {{ external: ['{listen}'], listen: ['{listen}'] }} }}"));
    let hub = hub.at(&listen).start();
    let alice = Machine::new(ASSIZE);
    alice.sandbox.ok(["key", "show"]);
    alice.sandbox.ok(["peer", "add", &hub.address]);
    let alice = alice.start();
    // Whether she can be reached, the hub finds out for her.
    assert_eq!(alice.hears("reachable")["reachable"]["is"], "yes");
    let dave = Machine::new(ASSIZE);
    dave.trusts("alice", &alice);
    dave.sandbox.configure("{ policy: 'one' }");
    dave.sandbox.ok(["peer", "add", &hub.address]);
    let dave = dave.start();
    let nar = alice.sandbox.build("large");
    dave.finds("large", 0);
    dave.finds_a_way_to("large", &nar);
    assert_eq!(hub.sandbox.json(&["store", "df"])["archives"]["files"], 0);
}
