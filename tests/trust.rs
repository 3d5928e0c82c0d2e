//! `docs/trust.md`, run: three people and their files; and what else is between keys and people.

use std::{collections::BTreeMap, fs, path::PathBuf, process::Command};

use protocol::{
    evidence::{self, Evidence, UnverifiedEvidence},
    id::{ActionId, NarHash, StatementId},
    key::{AttesterKey, SigningKey, parse_secret},
    name::Name,
    output::Output,
    statement::{Attestation, Body, Platform, Signed, Statement},
};
use tests::{
    manual::{blocks, commands},
    repository,
};

/// A directory with the project, and one for each person in it.
struct Place {
    dir: tempfile::TempDir,
}

/// What a command did.
struct Done {
    code: i32,
    out: String,
    err: String,
}

impl Place {
    fn new(project: &str) -> Self {
        let place = Self { dir: tempfile::tempdir().unwrap() };
        fs::write(place.path("build.jsonnet"), project).unwrap();
        for tool in ["files.wasm", "unpack.wasm"] {
            fs::copy(repository().join("packages/stage0/seeds").join(tool), place.path(tool)).unwrap();
        }
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs a line of shell as somebody.
    fn shell(&self, who: &str, line: &str) -> Done {
        let script = format!("assize() {{ \"$ASSIZE\" \"$@\"; }}\n{line}");
        let output = Command::new("sh")
            .args(["-c", &script])
            .current_dir(self.dir.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.path("home"))
            .env("ASSIZE", env!("CARGO_BIN_EXE_assize"))
            .env("ASSIZE_HOME", self.path(who))
            .output()
            .unwrap();
        Done {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    #[track_caller]
    fn ok(&self, who: &str, line: &str) -> String {
        let done = self.shell(who, line);
        assert_eq!(done.code, 0, "{who}$ {line}\n{}{}", done.out, done.err);
        done.out
    }

    fn key(&self, who: &str) -> SigningKey {
        parse_secret(fs::read_to_string(self.path(who).join("keys/attester")).unwrap().trim_end()).unwrap()
    }

    /// The statements of a file.
    fn statements(&self, file: &str) -> Vec<Signed> {
        let bytes = fs::read(self.path(file)).unwrap();
        let items = evidence::read(&bytes).unwrap();
        let item = |item: UnverifiedEvidence| match item.verify().unwrap() {
            Evidence::Statement(signed) => Some(signed),
            Evidence::Revocation(_) | Evidence::Equivocation(_) => None,
        };
        items.filter_map(|i| item(i.unwrap())).collect()
    }

    fn write(&self, file: &str, statements: &[Signed]) {
        let items = statements.iter().map(|s| Evidence::Statement(s.clone()).to_bytes());
        fs::write(
            self.path(file),
            [evidence::MAGIC.to_vec()].into_iter().chain(items).collect::<Vec<_>>().concat(),
        )
        .unwrap();
    }

    /// Signs, behind what is in `file`, or in the place of its last statement, that an action gave
    /// something made up.
    fn forge(&self, who: &str, action: ActionId, file: &str, again: bool) {
        let mut feed = self.statements(file);
        if again {
            feed.pop();
        }
        let key = self.key(who);
        let (seq, prev) = match feed.last() {
            Some(last) => (last.statement().seq + 1, last.id()),
            None => (0, StatementId::from_bytes([0; 32])),
        };
        let output = Output { nar: NarHash::of(format!("made up {again}").as_bytes()), size: 1 };
        let body = Body::Built(Attestation {
            action,
            outputs: BTreeMap::from([(Name::out(), output)]),
            witness: Some(protocol::witness::Witness::from_bytes([7; 32])),
            platform: Platform::here(Name::new("wasmtime-48.0.8").unwrap()),
        });
        let statement = Statement { attester: AttesterKey::of(&key), seq, prev, time: 0, body };
        feed.push(statement.sign(&key).unwrap());
        self.write(file, &feed);
    }
}

#[test]
fn the_manual_is_what_happens() {
    let manual = fs::read_to_string(repository().join("docs/trust.md")).unwrap();
    let place = Place::new(blocks(&manual, "jsonnet")[0]);
    let commands = commands(&manual, &["alice", "bob", "carol", "dave"]);
    assert!(commands.len() > 30, "only {} commands were found", commands.len());
    for command in commands {
        let (who, line) = (command.who, command.line);
        if let Some(forged) = line.strip_prefix("forge ") {
            let words: Vec<_> = forged.split(' ').collect();
            let shown: serde_json::Value =
                serde_json::from_str(&place.shell("carol", &format!("assize why {} --json", words[0])).out)
                    .unwrap();
            let action = shown["data"]["action"].as_str().unwrap().parse().unwrap();
            place.forge(who, action, words[1], words.contains(&"--again"));
            continue;
        }
        let done = place.shell(who, line);
        let told = format!("{}{}", done.out, done.err);
        assert!(command.fits(done.code, &done.out), "{command:#?}\n{}\n{told}", done.code);
    }
}

const PROJECT: &str = "
local assize = import 'assize.libsonnet';
local tools = assize.tools(assize.source('files.wasm'), assize.source('unpack.wasm'));
{
  a: tools.write({ name: 'a', file: 'a.txt', text: 'a\\n' }),
  b: tools.select({ name: 'b', from: $.a, globs: ['*.txt'] }),
}
";

/// What others attested is resolved from the leaves on, and nothing is built or fetched for it.
#[test]
fn a_graph_is_resolved_by_hashes() {
    let place = Place::new(PROJECT);
    for who in ["alice", "bob"] {
        place.ok(who, "assize build b");
        place.ok(who, &format!("assize attest export -o {who}.evidence"));
        let key = place.ok(who, "assize key show");
        place.ok("carol", &format!("assize trust add {who} {key}"));
    }
    let unknown = place.shell("carol", "assize why --all b");
    assert_eq!(unknown.code, 10, "{}", unknown.err);
    assert!(
        unknown.out.contains("to build  a: ") && unknown.out.contains("to build  b: waits for a"),
        "{}",
        unknown.out
    );
    for who in ["alice", "bob"] {
        place.ok("carol", &format!("assize attest import {who}.evidence"));
    }
    let known = place.ok("carol", "assize why --all b");
    assert_eq!(known.matches("accepted").count(), 4, "{known}");
    // One of the two withdraws what it said of `a`: then nothing can be known of `b`, though both
    // still say the same of it.
    place.ok("bob", "assize attest retract 0");
    let again = place.shell("bob", "assize attest retract 0");
    assert_eq!((again.code, &*again.err), (0, "it counts no more already\n"));
    place.ok("bob", "assize attest export -o bob.evidence");
    place.ok("carol", "assize attest import bob.evidence");
    let blocked = place.shell("carol", "assize why --all b");
    assert!(blocked.out.contains("to build  b: waits for a"), "{}", blocked.out);
    // It says it again, since it did build it.
    place.ok("bob", "assize attest publish");
    place.ok("bob", "assize attest export -o bob.evidence");
    place.ok("carol", "assize attest import bob.evidence");
    assert_eq!(place.ok("carol", "assize why --all b"), known);
}

/// A key is never shown, replaced or read by others; a copy of it goes on where it was.
#[test]
fn keys_are_kept() {
    let place = Place::new(PROJECT);
    assert_eq!(place.shell("alice", "assize key backup copy").code, 4);
    place.ok("alice", "assize build b");
    let key = place.ok("alice", "assize key show");
    place.ok("alice", "assize key backup copy");
    assert_eq!(place.shell("alice", "assize key backup copy").code, 1);
    assert_eq!(place.shell("alice", "assize key restore copy").code, 13);
    place.ok("elsewhere", "assize key restore copy");
    assert_eq!(place.ok("elsewhere", "assize key show"), key);
    // It builds the same again, and has nothing new to say.
    place.ok("elsewhere", "assize build b");
    assert_eq!(place.ok("elsewhere", "assize attest list self").lines().count(), 2);
    place.ok("elsewhere", "chmod 644 elsewhere/keys/attester");
    let exposed = place.shell("elsewhere", "assize build b");
    assert_eq!(exposed.code, 13);
    assert!(exposed.err.contains("mode 644, not 600") && exposed.err.contains("hint: "), "{}", exposed.err);
    let mut slip = key.trim_end().to_owned();
    let other = if &slip[30..31] == "q" { "p" } else { "q" };
    slip.replace_range(30..31, other);
    let refused = place.shell("alice", &format!("assize trust add carol {slip}"));
    assert_eq!(refused.code, 2);
    assert!(refused.err.contains("was not copied right") || refused.err.contains("weak"), "{}", refused.err);
    let own = place.shell("alice", &format!("assize trust add me {key}"));
    assert_eq!(own.code, 12, "{}", own.err);
    // With a key that was revoked nothing is signed, and it names no successor.
    place.ok("elsewhere", "chmod 600 elsewhere/keys/attester");
    assert_eq!(place.shell("elsewhere", "assize key revoke").code, 2);
    place.ok("elsewhere", "assize key revoke --now");
    let built = place.shell("elsewhere", "assize build --rebuild b");
    assert_eq!(built.code, 0, "{}", built.err);
    let void = place.shell("elsewhere", "assize attest publish");
    assert_eq!(void.code, 1);
    assert!(void.err.contains("was revoked from place 0 on"), "{}", void.err);
    assert_eq!(place.ok("elsewhere", "assize attest list self").lines().count(), 2);
    let rotated = place.shell("elsewhere", "assize key rotate");
    assert_eq!(rotated.code, 0, "{}", rotated.err);
    assert!(rotated.err.contains("can name no successor"), "{}", rotated.err);
    place.ok("elsewhere", "assize attest publish");
    assert_eq!(place.ok("elsewhere", "assize attest list self").lines().count(), 2);
}

/// What a machine said with its keys is its own.
#[test]
fn a_key_before_is_no_stranger() {
    let place = Place::new(PROJECT);
    place.ok("alice", "assize build b");
    for _ in 0..2 {
        place.ok("alice", "assize key rotate");
    }
    place.ok("alice", "assize attest publish");
    let mut feeds: Vec<_> = place.ok("alice", "assize attest list").lines().map(str::to_owned).collect();
    feeds.iter_mut().for_each(|line| *line = line.split_once("  ").unwrap().1.to_owned());
    feeds.sort();
    assert_eq!(feeds.len(), 3, "{feeds:?}");
    assert!(feeds[0].starts_with("self  2 statements"), "{feeds:?}");
    assert!(feeds[1..].iter().all(|line| line.starts_with("self, before  ")), "{feeds:?}");
}

/// A preset is chosen as often as one likes, until the file is somebody's.
#[test]
fn another_preset_is_chosen() {
    let place = Place::new(PROJECT);
    for preset in ["two-thirds", "one", "solo"] {
        place.ok("alice", &format!("assize policy use {preset}"));
    }
    assert!(place.ok("alice", "assize policy show").contains("everything: solo: "));
    place.ok("alice", "echo '// mine' >> alice/config.jsonnet");
    let mine = place.shell("alice", "assize policy use one");
    assert_eq!(mine.code, 12, "{}", mine.err);
    assert!(mine.err.contains("is yours"), "{}", mine.err);
}

/// What is not signed, because of a crash or on purpose, is signed later, and once.
#[test]
fn what_is_owed_is_signed_later() {
    let place = Place::new(PROJECT);
    fs::create_dir_all(place.path("alice")).unwrap();
    fs::write(place.path("alice/config.jsonnet"), "{ attest: false }").unwrap();
    place.ok("alice", "assize build b");
    assert_eq!(place.ok("alice", "assize attest list"), "");
    assert_eq!(place.ok("alice", "assize attest publish").lines().count(), 2);
    assert_eq!(place.ok("alice", "assize attest publish"), "");
    assert_eq!(place.ok("alice", "assize attest list self").lines().count(), 2);
}

/// Bytes that are no evidence, or not all of it.
#[test]
fn bad_evidence_is_refused() {
    let place = Place::new(PROJECT);
    place.ok("alice", "assize build b");
    place.ok("alice", "assize attest export -o good.evidence");
    let good = fs::read(place.path("good.evidence")).unwrap();
    fs::write(place.path("cut.evidence"), &good[..good.len() - 5]).unwrap();
    let mut forged = good.clone();
    *forged.last_mut().unwrap() ^= 1;
    fs::write(place.path("forged.evidence"), forged).unwrap();
    fs::write(place.path("none.evidence"), b"hello").unwrap();
    for (file, code) in [("cut", 1), ("forged", 1), ("none", 1), ("absent", 4)] {
        for command in ["verify", "import"] {
            let done = place.shell("carol", &format!("assize attest {command} {file}.evidence"));
            assert!(done.code == code || done.code == 13, "{command} {file}: {} {}", done.code, done.err);
            assert!(done.err.starts_with("error: ") || done.err.contains("\nerror: "), "{}", done.err);
        }
    }
    // What was good of the cut file is kept, and the rest comes later.
    assert_eq!(place.ok("carol", "assize attest import good.evidence"), "1 new, 1 known\n");
}
