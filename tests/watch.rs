//! Rebuilders: real nodes on the loopback interface, and people who lie to them.

use node::attest;
use protocol::{
    action::{Action, BuildAction, FetchAction},
    derivation::{Recipe, Step},
    id::{ActionId, NarHash},
    name::{GuestPath, Name},
    nar,
    output::{Output, Outputs},
    sri::{Algorithm, Sri},
    witness::Witness,
};
use store::{Fact, Store};
use tests::machine::Machine;

const ASSIZE: &str = env!("CARGO_BIN_EXE_assize");

/// A machine that has a key and trusts `others`, and whose node, if it runs, is connected to them.
fn machine(others: &[(&str, &Machine)]) -> Machine {
    let machine = Machine::new(ASSIZE);
    machine.sandbox.ok(["key", "show"]);
    for (name, other) in others {
        machine.trusts(name, other);
        if !other.address.is_empty() {
            machine.sandbox.ok(["peer", "add", &other.address]);
        }
    }
    machine
}

fn action_of(machine: &Machine, attribute: &str) -> String {
    let shown = machine.sandbox.json(&["why", attribute]);
    shown["action"].as_str().expect("an action").to_owned()
}

/// Who waits for more votes asks for them, and a rebuilder who knows him gives his, from the leaves
/// to the root, by way of whoever has built it.
#[test]
fn a_wish_is_granted() {
    let alice = machine(&[]).start();
    let small = alice.sandbox.build("small");
    let bob = machine(&[("alice", &alice)]);
    // Nobody's attestations are of interest, but dave's wishes.
    bob.sandbox.configure("{ watch: { votes: 0 } }");
    let bob = bob.with("--watch").start();
    let dave = machine(&[("alice", &alice), ("bob", &bob)]);
    dave.sandbox.configure("{ policy: { rule: { atLeast: 2, of: ['alice', 'bob'] } } }");
    bob.trusts("dave", &dave);
    let dave = dave.start();
    let said = dave.sandbox.run(["fetch", "small", "--wait", "120"]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.out.starts_with(&small), "{}", said.out);
    assert!(said.err.contains("asking them to build it"), "{}", said.err);
    let names: Vec<_> = (0..2).map(|_| bob.hears("rebuilt")["name"].clone()).collect();
    assert_eq!(names, ["large", "small"]);
    // A stranger may wish what he likes.
    let erin = machine(&[("alice", &alice)]).start();
    erin.sandbox.ok(["peer", "add", &bob.address]);
    erin.sandbox.configure("{ policy: { rule: { atLeast: 2, of: ['alice', 'self'] } } }");
    alice.sandbox.build("a");
    erin.finds("a", 10);
    assert_eq!(erin.sandbox.run(["fetch", "a", "--wait", "5"]).code, 10);
    let list = bob.sandbox.ok(["attest", "list", "self"]);
    assert_eq!(list.lines().count(), 2, "{list}");
}

/// One command gives one's vote; what was executed before is not executed again.
#[test]
fn a_vote_is_one_command() {
    let alice = machine(&[]).start();
    alice.sandbox.build("small");
    let action = action_of(&alice, "small");
    let bob = machine(&[("alice", &alice)]);
    let said = bob.sandbox.run(["attest", "rebuild", &action]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.err.contains("executing small"), "{}", said.err);
    assert_eq!(said.out, format!("✔ small {action}: agrees with alice\n"));
    let again = bob.sandbox.json(&["attest", "rebuild", &action, "--offline"]);
    assert_eq!((&again["name"], &again["signed"]), (&"small".into(), &true.into()));
    assert_eq!(again["others"], serde_json::json!({ "alice": "proven" }));
    let unknown = ActionId::from_bytes([7; 32]).to_string();
    bob.sandbox.fails(&["attest", "rebuild", &unknown], 4, &["no connected node says what act:", "peer add"]);
    bob.sandbox.fails(&["attest", "rebuild", "act:x"], 2, &["act:x"]);
}

/// An action of one step that runs `program`.
fn action(store: &Store, program: &str) -> Action {
    let wasm = wat::parse_str(program).expect("a module");
    let archive = nar::dump_file(Vec::new(), true, wasm.len() as u64, &*wasm).expect("an archive");
    let nar = store.admit(&*archive, None, u64::MAX).expect("admitted").hash;
    let run = GuestPath::new("/in/program").expect("a path");
    Action::Build(BuildAction {
        recipe: Recipe {
            steps: vec![Step { run, args: vec!["program".into()], stdin: None, stdout: None, cwd: None }],
            env: [].into(),
            stdin: "{}".into(),
            outputs: [Name::out()].into(),
            executable: [].into(),
        },
        inputs: [(Name::new("program").expect("a name"), nar)].into(),
    })
}

fn module(body: &str) -> String {
    format!(
        r#"(module
            (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
            (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 1)
            (data (i32.const 0) "\08\00\00\00\0d\00\00\00no \1b[31mluck\0a")
            (func $complain (drop (call $write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 64))))
            (func $start (export "_start") {body}))"#
    )
}

/// Somebody says of an action that it gave an archive that nobody made.
fn lie(liar: &Machine, action: impl FnOnce(&Store) -> Action) -> ActionId {
    let action = {
        let store = liar.store();
        let action = action(&store);
        store.record(&Fact::Action(action.clone())).expect("recorded");
        action
    };
    liar.says(action.id(), out(NarHash::of(b"a lie"), 1000), None);
    action.id()
}

fn out(nar: NarHash, size: u64) -> Outputs {
    [(Name::out(), Output { nar, size })].into()
}

/// Whoever made something up is found out, and so is whoever copied it; what fails is said to fail,
/// and accepts nothing; what is beyond the limits is left alone.
#[test]
fn liars_are_found_out() {
    let alice = machine(&[]).start();
    alice.sandbox.build("a");
    alice.sandbox.build("b");
    let (a, b) = (action_of(&alice, "a"), action_of(&alice, "b"));
    let mallory = machine(&[]);
    let act = |text: &str| text.parse::<ActionId>().expect("an action");
    // One is made up, and one copied.
    mallory.says(act(&a), out(NarHash::of(b"a lie"), 9), None);
    let copied = alice.store().realisation(&act(&b)).expect("known").expect("built").outputs;
    mallory.says(act(&b), copied, Some(Witness::from_bytes([3; 32])));
    let fails = lie(&mallory, |store| action(store, &module("(call $complain) (call $exit (i32.const 7))")));
    let traps = lie(&mallory, |store| action(store, &module("unreachable")));
    let loops = lie(&mallory, |store| action(store, &module("(loop $l (br $l))")));
    let grows = "(loop $l (drop (memory.grow (i32.const 100))) (br $l))";
    let grows = lie(&mallory, |store| action(store, &module(grows)));
    let recurses = lie(&mallory, |store| action(store, &module("(call $start)")));
    let mallory = mallory.start();

    let bob = machine(&[("alice", &alice), ("mallory", &mallory)]);
    let said = bob.sandbox.run(["watch", "--once", "--seconds", "5", "--memory", "64"]);
    assert_eq!(said.code, 0, "{}", said.err);
    let says = |what: &str| assert!(said.err.contains(what), "{what}\n{}", said.err);
    says(&format!("✘ a {a}: agrees with alice; differs from mallory"));
    says(&format!("✘ b {b}: agrees with alice; not executed by mallory, whose witness is wrong"));
    says(&format!("✘ {fails} fails: step 1 (`program`) exited with code 7 (signed)"));
    says(&format!("✘ {traps} fails: step 1 (`program`) trapped: "));
    says(&format!("! {loops} is refused: it took longer than 5 s"));
    says(&format!("! {grows} is refused: step 1 (`program`) reached the memory limit of"));
    // How deep the stack is, is the engine's affair: that says nothing about the action.
    says(&format!("! {recurses} is refused: step 1 (`program`) trapped: "));
    let own = bob.sandbox.ok(["attest", "list", "self"]);
    assert_eq!(own.lines().count(), 4, "{own}");
    assert!(own.contains(&format!("{fails} failed in step 1 with exit code 7")), "{own}");
    assert!(own.contains(&format!("{traps} failed in step 1 with a trap")), "{own}");
    // Once more, what was said is not said again, and the failure is informative: it accepts nothing.
    bob.sandbox.ok(["watch", "--once", "--seconds", "1", "--memory", "64"]);
    assert_eq!(bob.sandbox.ok(["attest", "list", "self"]).lines().count(), 4);
    assert_eq!(bob.sandbox.run(["why", &fails.to_string()]).code, 10);
    let said = bob.sandbox.run(["attest", "rebuild", &fails.to_string()]);
    assert_eq!((said.code, said.out.contains("(signed before)")), (100, true), "{}", said.err);

    // What it printed there is told to whoever asks, and of what nobody was told that it was executed, nothing.
    let bob = bob.start();
    alice.sandbox.ok(["peer", "add", &bob.address]);
    alice.sandbox.fails(&["log", &fails.to_string()], 4, &["there is no log", "--ask"]);
    assert_eq!(alice.sandbox.ok(["log", "--ask", &fails.to_string()]), "no \x1b[31mluck\n");
    let said = alice.sandbox.json(&["log", "--ask", &fails.to_string()]);
    assert_eq!(said["log"], "no \x1b[31mluck\n");
    alice.sandbox.fails(&["log", "--ask", &loops.to_string()], 4, &["nobody who is connected"]);

    // Who looks at alice alone, or at other packages, does less.
    let carol = machine(&[("alice", &alice), ("mallory", &mallory)]);
    let said = carol.sandbox.run(["watch", "alice", "--package", "[!b]", "--package", "a*", "--once"]);
    assert!(said.err.contains(&format!("not watched: b {b}")), "{}", said.err);
    assert_eq!(carol.sandbox.ok(["attest", "list", "self"]).lines().count(), 1);
    // Enough have spoken.
    let dan = machine(&[("alice", &alice), ("mallory", &mallory)]);
    dan.sandbox.ok(["watch", "--once", "--votes", "1", "--seconds", "1"]);
    assert_eq!(
        dan.sandbox.ok(["attest", "list", "self"]).lines().count(),
        1,
        "what is disputed is looked at"
    );
    let hour = (attest::now() % 86_400 / 3600 + 2) % 24;
    let other = format!("{hour}-{}", (hour + 1) % 24);
    dan.sandbox.ok(["watch", "--once", "--hours", &other]);
    dan.sandbox.ok(["watch", "--once", "--seconds-per-day", "0"]);
    assert_eq!(dan.sandbox.ok(["attest", "list", "self"]).lines().count(), 1);
    dan.sandbox.fails(&["watch", "--hours", "7"], 2, &["expected two different hours"]);
}

/// However many agree about a fetch, it is the file with the hash that the derivation names, or it is
/// not taken.
#[test]
fn no_quorum_makes_another_file_of_a_fetch() {
    let hash = blake3::hash(b"what is wanted");
    let sri = Sri::new(Algorithm::Blake3, hash.as_bytes().to_vec()).expect("a hash");
    let project = format!(
        "local assize = import 'assize.libsonnet';
         {{ file: assize.fetch({{ name: 'file', urls: ['http://127.0.0.1:1/file'], hash: '{sri}' }}) }}"
    );
    let fetch = Action::Fetch(FetchAction { sri, executable: false });
    let says = |machine: &Machine, content: &[u8]| {
        let archive = nar::dump_file(Vec::new(), false, content.len() as u64, content).expect("an archive");
        let kept = {
            let store = machine.store();
            store.record(&Fact::Action(fetch.clone())).expect("recorded");
            store.admit(&*archive, None, u64::MAX).expect("admitted")
        };
        machine.says(fetch.id(), out(kept.hash, kept.size), None);
    };
    let [mallory, alice] = [(); 2].map(|()| machine(&[]));
    says(&mallory, b"something else");
    says(&alice, b"what is wanted");
    let (mallory, alice) = (mallory.start(), alice.start());
    let dave = machine(&[("mallory", &mallory), ("alice", &alice)]);
    dave.sandbox.write("build.jsonnet", project);
    let dave = dave.start();
    let believe = |who: &str| dave.sandbox.configure(&format!("{{ policy: {{ rule: '{who}' }} }}"));
    believe("mallory");
    dave.finds("file", 0);
    dave.sandbox.fails(&["fetch", "file"], 102, &["others agree on nar:", "is not the file with the hash"]);
    // Now the archive is here, and is not taken for what it is not.
    let said = dave.sandbox.run(["build", "file"]);
    assert!(said.code != 0 && said.err.contains("127.0.0.1:1"), "{} {}", said.code, said.err);
    believe("alice");
    let said = dave.sandbox.run(["build", "file"]);
    assert_eq!((said.code, said.err.contains("had from others file")), (0, true), "{}", said.err);
    // To have the file is to have executed the fetch.
    let own = dave.sandbox.ok(["attest", "list", "self"]);
    assert!(own.contains(&format!("{} gave out", fetch.id())), "{own}");
    // A rebuilder has it in the same way, of those who have it, and not of those who lie.
    let bob = machine(&[("mallory", &mallory), ("alice", &alice)]);
    let said = bob.sandbox.run(["attest", "rebuild", &fetch.id().to_string()]);
    assert_eq!(
        (said.code, said.out.contains("agrees with alice; differs from mallory")),
        (11, true),
        "{}",
        said.err
    );
}
