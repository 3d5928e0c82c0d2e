//! `docs/audit.md`, run: four nodes, one of which has an engine that miscompiles an instruction.

use std::{
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use protocol::{
    id::ActionId,
    name::Name,
    nar::dump_file,
    output::{Output, Outputs},
    witness::Witness,
};
use tests::{
    machine::{Machine, PATIENCE},
    manual::{Command, blocks, commands},
    miscompiler::{compiler, project},
    repository,
};

const ASSIZE: &str = env!("CARGO_BIN_EXE_assize");

const PEOPLE: [&str; 4] = ["alice", "bob", "mallory", "carol"];

/// The compiled code of the two compilers on a machine that has built both: of the right one, and of
/// the wrong one.
fn code(machine: &Machine) -> [PathBuf; 2] {
    let modules = machine.sandbox.home().join("modules");
    ["i32.add", "i32.sub"].map(|operator| {
        let hash = blake3::hash(&compiler(operator)).to_hex().to_string();
        let files =
            fs::read_dir(&modules).expect("the compiled modules").map(|file| file.expect("one").path());
        let is = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.starts_with(&hash) && name.ends_with(".cwasm")
        };
        files.into_iter().find(is).expect("it was compiled")
    })
}

fn copy(from: &Path, to: &Path) {
    for kind in ["cwasm", "b3"] {
        fs::copy(from.with_extension(kind), to.with_extension(kind)).expect("copied");
    }
}

/// Four machines whose nodes are connected and who trust each other.
fn four() -> [Machine; 4] {
    let machines = PEOPLE.map(|_| {
        let machine = Machine::new(ASSIZE);
        machine.sandbox.ok(["key", "show"]);
        project(&machine.sandbox);
        machine.start()
    });
    for one in &machines {
        for (name, other) in PEOPLE.iter().zip(&machines).filter(|(_, other)| other.address != one.address) {
            one.trusts(name, other);
            one.sandbox.ok(["peer", "add", &other.address]);
        }
    }
    machines
}

/// Runs a command of the manual until it does what the manual says, which takes as long as what
/// somebody said takes to be heard.
fn play(machine: &Machine, command: &Command<'_>, action: &str) {
    let end = Instant::now() + PATIENCE;
    let words = command.line.strip_prefix("assize ").expect("a command").replace("\"$ACTION\"", action);
    loop {
        let said = machine.sandbox.run(words.split(' '));
        if command.fits(said.code, &said.out) {
            return;
        }
        let reads = ["assize audit list", "assize audit show", "assize why", "assize attest rebuild"];
        let may_change = reads.iter().any(|read| command.line.starts_with(read));
        assert!(may_change && Instant::now() < end, "{command:#?}\n{}\n{}{}", said.code, said.out, said.err);
        thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn the_manual_is_what_happens() {
    let manual = fs::read_to_string(repository().join("docs/audit.md")).expect("the manual");
    let machines = four();
    let [alice, _, mallory, carol] = &machines;
    let [policy, watch] = blocks(&manual, "jsonnet")[..] else { panic!("two configurations") };
    carol.sandbox.configure(policy);
    // Mallory's engine has compiled both, and takes one for the other.
    let miscompiles = |machine: &Machine| {
        machine.sandbox.configure("{ attest: false }");
        machine.sandbox.ok(["build", "miscompiled"]);
        machine.sandbox.ok(["build", "double"]);
        machine.sandbox.configure("{}");
        code(machine)
    };
    let other = Machine::new(ASSIZE);
    project(&other.sandbox);
    let [right, wrong] = miscompiles(&other);
    let modules = mallory.sandbox.home().join("modules");
    fs::create_dir_all(&modules).expect("the compiled modules");
    let hers = modules.join(right.file_name().expect("a name"));
    copy(&wrong, &hers);

    let commands = commands(&manual, &PEOPLE);
    assert!(commands.len() >= 14, "{}", commands.len());
    let mut action = String::new();
    for command in &commands {
        let n = PEOPLE.iter().position(|who| *who == command.who).expect("one of them");
        if command.line.starts_with("assize attest retract") {
            // A new version of her engine.
            copy(&right, &hers);
        }
        play(&machines[n], command, &action);
        if command.line.contains("--record") {
            // She sends it to Carol.
            let trace = |machine: &Machine| machine.sandbox.project().join("mallory.trace");
            fs::copy(trace(mallory), trace(carol)).expect("copied");
        }
        if command.line == "assize audit diff double" {
            carol.sandbox.ok(["audit", "diff", "double", "--html", "diff.html"]);
            let html = fs::read_to_string(carol.sandbox.project().join("diff.html")).expect("the page");
            assert!(html.contains("out of mallory") && html.contains("i32.const 0"), "{html}");
        }
        if command.line == "assize why double" {
            let shown = carol.sandbox.json(&["why", "double"]);
            shown["action"].as_str().expect("an action").clone_into(&mut action);
        }
    }
    // The same of two archives of the store, or in files.
    let nars: Vec<_> = [alice, &other].iter().map(|who| who.sandbox.ok(["build", "double"])).collect();
    let nars: Vec<_> = nars.iter().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(carol.sandbox.run(["nar", "diff", nars[0], nars[1]]).code, 0);
    let wrong = other.sandbox.ok(["build", "miscompiled"]);
    let wrong = wrong.split(' ').next().expect("an archive");
    let said = other.sandbox.run(["nar", "diff", nars[1], wrong]);
    assert!(said.code == 1 && said.out.contains("+ 0x000031  i32.const 0"), "{}", said.out);
    carol.sandbox.configure(watch);
    carol.sandbox.ok(["watch", "--once"]);

    // What is not there, and what is hostile.
    carol.sandbox.fails(
        &["audit", "diff", "miscompiled"],
        4,
        &["nobody names different outputs", "audit show"],
    );
    carol.sandbox.fails(&["audit", "show", "miscompiled"], 4, &["nobody has said anything"]);
    carol.sandbox.fails(
        &["audit", "diff", "double", "--between", "alice", "zoe"],
        4,
        &["nobody is called `zoe`"],
    );
    carol.sandbox.fails(&["audit", "list", "--since", "yesterday"], 2, &["is no day"]);
    carol.sandbox.ok(["audit", "report", "-o", "report.html"]);
    let html = fs::read_to_string(carol.sandbox.project().join("report.html")).expect("the report");
    assert!(html.starts_with("<!DOCTYPE html>") && html.contains("Nobody disagrees"), "{html}");
    assert!(!html.contains("<script") && !html.contains("http:") && !html.contains("https:"), "{html}");
}

/// The package's action, of which too few may have spoken.
fn action(machine: &Machine) -> ActionId {
    let shown = machine.sandbox.run(["why", "double", "--json"]).out;
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    shown["data"]["action"].as_str().and_then(|action| action.parse().ok()).expect("an action")
}

/// Each kind of disagreement is listed by its name, filtered, and reported.
#[test]
fn disagreements_are_listed() {
    let machines = four();
    let [alice, bob, mallory, carol] = &machines;
    alice.sandbox.ok(["build", "double"]);
    // Mallory signs the outputs of what she never executed.
    let id = action(alice);
    let copied = alice.store().realisation(&id).expect("known").expect("built").outputs;
    mallory.says(id, copied, Some(Witness::from_bytes([7; 32])));
    carol.sandbox.ok(["build", "double"]);
    let find = |args: &[&str]| {
        let end = Instant::now() + PATIENCE;
        loop {
            let found = carol.sandbox.json(&[&["audit", "list"], args].concat());
            // Alice, Mallory, and her own word and deed.
            let says = found["disputes"][0]["sides"][0]["says"].as_array().map_or(0, Vec::len);
            if says == 4 || Instant::now() > end {
                return found;
            }
            thread::sleep(Duration::from_millis(200));
        }
    };
    let found = find(&[]);
    assert_eq!(found["disputes"][0]["severities"], serde_json::json!(["witness"]), "{found}");
    assert_eq!(found["disputes"][0]["package"], "double");
    let none = |args: &[&str]| {
        let found = carol.sandbox.json(&[&["audit", "list"], args].concat());
        assert_eq!(found["disputes"], serde_json::json!([]), "{args:?}");
    };
    none(&["--package", "triple"]);
    none(&["--attester", "bob"]);
    none(&["--severity", "dissent"]);
    none(&["--since", "9000-01-01"]);
    find(&["--package", "d*", "--attester", "mallory", "--severity", "witness", "--since", "2020-01-01"]);
    let settled = carol.sandbox.json(&["audit", "settle", "double", "--times", "1", "--offline"]);
    let said = serde_json::json!({ "alice": "proven", "mallory": "copied" });
    assert_eq!(settled["settled"], said, "{settled}");
    // Bob, who has done nothing so far, rebuilds what is wished, and nothing else.
    bob.sandbox.configure("{ watch: { votes: 0 } }");
    let end = Instant::now() + PATIENCE;
    while bob.sandbox.ok(["attest", "list", "self"]).is_empty() {
        assert!(Instant::now() < end, "nobody asked him");
        carol.sandbox.ok(["audit", "settle", "double", "--times", "1", "--ask"]);
        bob.sandbox.ok(["watch", "--once", "--package", "double"]);
    }
    carol.sandbox.ok(["audit", "report", "-o", "report.html"]);
    let html = fs::read_to_string(carol.sandbox.project().join("report.html")).expect("the report");
    assert!(html.contains("WRONG witness") && html.contains("mallory"), "{html}");
    carol.sandbox.ok(["audit", "report", "--json", "-o", "report.json"]);
    let json = fs::read_to_string(carol.sandbox.project().join("report.json")).expect("the report");
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["data"]["disputes"][0]["package"], "double");
}

/// Outputs of 48 MiB, or of as many as `AUDIT_MIB` says, that differ in their last byte: fetched and
/// compared in pieces (docs/performance.md has what that takes of memory).
#[test]
fn large_outputs_are_compared() {
    let mib = std::env::var("AUDIT_MIB").map_or(48, |mib| mib.parse().expect("a number"));
    let machines = four();
    let [alice, _, mallory, carol] = &machines;
    carol.sandbox.ok(["build", "double"]);
    let action = action(carol);
    for (machine, last) in [(alice, [1]), (mallory, [2])] {
        let len = mib << 20;
        let content = io::repeat(0).take(len - 1).chain(&last[..]);
        let mut file = tempfile::NamedTempFile::new_in(machine.sandbox.home()).expect("a file");
        dump_file(io::BufWriter::new(&mut file), false, len, content).expect("an archive");
        let admitted = machine.store().admit_file(file, None).expect("room for it");
        let output = Output { nar: admitted.hash, size: admitted.size };
        machine.says(action, Outputs::from([(Name::out(), output)]), None);
    }
    carol.finds("double", 11);
    let found = carol.sandbox.ok(["audit", "diff", "double", "--between", "alice", "mallory"]);
    assert!(found.contains(&format!("{:x}", (mib << 20) - 16)), "{found}");
}
