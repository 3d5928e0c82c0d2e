//! `docs/audit.md`, run: four nodes, one of which has an engine that miscompiles an instruction.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use protocol::witness::Witness;
use tests::{
    machine::{Machine, PATIENCE},
    manual::{Command, blocks, commands},
    repository,
};

const ASSIZE: &str = env!("CARGO_BIN_EXE_assize");

const PEOPLE: [&str; 4] = ["alice", "bob", "mallory", "carol"];

/// A compiler that writes a module with two functions. The constant of one of them it computes with
/// `operator`.
fn compiler(operator: &str) -> Vec<u8> {
    let module = wat::parse_str(
        r#"(module
            (func $double (export "double") (param i32) (result i32) (i32.mul (local.get 0) (i32.const 2)))
            (func $triple (export "triple") (param i32) (result i32) (i32.mul (local.get 0) (i32.const 3))))"#,
    );
    let module = module.expect("a module");
    // i32.const 2, i32.mul
    let at = module.windows(3).position(|bytes| bytes == [0x41, 2, 0x6c]).expect("the constant") + 1;
    let data: String = module.iter().map(|byte| format!("\\{byte:02x}")).collect();
    let text = format!(
        r#"(module
            (import "wasi_snapshot_preview1" "path_open"
              (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 1)
            (data (i32.const 0) "out/double.wasm")
            (data (i32.const 1024) "{data}")
            (func (export "_start")
              (i32.store8 (i32.const {constant}) ({operator} (i32.const 1) (i32.const 1)))
              (drop (call $open (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 15) (i32.const 1)
                (i64.const 64) (i64.const 0) (i32.const 0) (i32.const 512)))
              (i32.store (i32.const 520) (i32.const 1024))
              (i32.store (i32.const 524) (i32.const {len}))
              (drop (call $write (i32.load (i32.const 512)) (i32.const 520) (i32.const 1) (i32.const 528)))))"#,
        constant = 1024 + at,
        len = module.len(),
    );
    wat::parse_str(text).expect("a compiler")
}

const PROJECT: &str = "
local assize = import 'assize.libsonnet';
local build(name, compiler) = assize.derivation({
  name: name, inputs: { compiler: assize.source(compiler) }, steps: [{ run: '/in/compiler', args: ['compiler'] }],
});
{ double: build('double', 'compiler.wasm'), miscompiled: build('miscompiled', 'miscompiler.wasm') }
";

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
        machine
            .sandbox
            .write("build.jsonnet", PROJECT)
            .write("compiler.wasm", compiler("i32.add"))
            .write("miscompiler.wasm", compiler("i32.sub"));
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
    other
        .sandbox
        .write("build.jsonnet", PROJECT)
        .write("compiler.wasm", compiler("i32.add"))
        .write("miscompiler.wasm", compiler("i32.sub"));
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
    assert!(html.starts_with("<!doctype html>") && html.contains("Nobody disagrees"), "{html}");
    assert!(!html.contains("<script") && !html.contains("http:") && !html.contains("https:"), "{html}");
}

/// Each kind of disagreement is listed by its name, filtered, and reported.
#[test]
fn disagreements_are_listed() {
    let machines = four();
    let [alice, bob, mallory, carol] = &machines;
    alice.sandbox.ok(["build", "double"]);
    // Mallory signs the outputs of what she never executed.
    // Too few have spoken.
    let shown = alice.sandbox.run(["why", "double", "--json"]).out;
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    let id = shown["data"]["action"].as_str().and_then(|action| action.parse().ok()).expect("an action");
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
    let is = |who: &str| {
        let verdicts = settled["verdicts"].as_array().expect("verdicts");
        verdicts.iter().find(|verdict| verdict["who"] == who).map(|verdict| verdict["is"].clone())
    };
    assert_eq!((is("alice"), is("mallory")), (Some("proven".into()), Some("copied".into())), "{settled}");
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
}
