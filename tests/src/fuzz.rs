//! What is true of every decoder whatever it is given: a function for each, which panics if it is not.
//!
//! ```text
//! tests/fuzz/targets/<name>.rs   libFuzzer looks for inputs that break one (docs/testing.md)
//! tests/replay.rs                every seed, and a fixed number of damaged ones, in every test run
//! tests/fuzz/seeds/<name>/       inputs to begin with; whatever once broke one is kept here
//! ```
//!
//! Refusing is always allowed, panicking never. What is accepted must be the same after writing and
//! reading it again, and must keep what the decoder promises. Each says whether it accepted: a target
//! that refuses all of its seeds looks at nothing.

use std::{collections::BTreeMap, path::PathBuf, sync::LazyLock};

use node::{
    build, eval, fetch,
    net::blob::{self, Body},
};
use protocol::{
    action::Action,
    derivation::Derivation,
    evidence::{self, Evidence, UnverifiedEvidence},
    glob::Glob,
    id::{ActionId, DerivationId, NarHash},
    key::{AttesterKey, parse_secret, secret_text},
    location::Location,
    message::{Answer, Gossip, RangeAnswer, RangeRequest, Request},
    name::{GuestPath, Name},
    nar::{Index, Node, NodeId, Writer},
    sri::Sri,
    statement::Unverified,
    ticket::Ticket,
    trace::Trace,
    wish::UnverifiedWish,
};
use serde_json::Value;
use store::{Fact, Notice, Store};
use trust::{
    ledger::Voters,
    policy::{Policy, Voter},
    roster::Roster,
    standing::Standings,
    verdict::judge,
};

/// A decoder and what it is tried with.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, here and for libFuzzer.
    pub name: &'static str,
    /// Whether the decoder accepts the input. Panics if it does not keep what it promises.
    pub check: fn(&[u8]) -> bool,
    /// Directories below `tests/` with inputs to begin with.
    pub seeds: &'static [&'static str],
    /// How many damaged inputs every test run tries.
    pub mutations: u32,
}

/// Damaged inputs for what takes microseconds.
const MANY: u32 = 20_000;

/// Damaged inputs for what opens a store.
const FEW: u32 = 400;

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "nar_read", check: nar_read, seeds: &["vectors/nar"], mutations: MANY },
    Target { name: "nar_lookup", check: nar_lookup, seeds: &["fuzz/seeds/nar_lookup"], mutations: MANY },
    Target { name: "derivation", check: derivation, seeds: &["vectors/derivation"], mutations: MANY },
    Target { name: "action", check: action, seeds: &["vectors/action"], mutations: MANY },
    Target { name: "name", check: name, seeds: &["fuzz/seeds/name"], mutations: MANY },
    Target { name: "glob", check: glob, seeds: &["fuzz/seeds/glob"], mutations: MANY },
    Target { name: "sri", check: sri, seeds: &["fuzz/seeds/sri"], mutations: MANY },
    Target { name: "location", check: location, seeds: &["fuzz/seeds/location"], mutations: MANY },
    Target { name: "id", check: id, seeds: &["fuzz/seeds/id"], mutations: MANY },
    Target { name: "fact", check: fact, seeds: &["fuzz/seeds/fact"], mutations: MANY },
    Target { name: "statement", check: statement, seeds: &["vectors/statement"], mutations: MANY },
    Target { name: "evidence", check: evidence, seeds: &["vectors/evidence"], mutations: MANY },
    Target { name: "message", check: message, seeds: &["vectors/message"], mutations: MANY },
    Target { name: "range", check: range, seeds: &["vectors/blob"], mutations: MANY },
    Target { name: "body", check: body, seeds: &["vectors/blob"], mutations: 2000 },
    Target { name: "wish", check: wish, seeds: &["vectors/wish"], mutations: MANY },
    Target { name: "trace", check: trace, seeds: &["vectors/trace"], mutations: MANY },
    Target { name: "ticket", check: ticket, seeds: &["vectors/ticket"], mutations: MANY },
    Target { name: "key", check: key, seeds: &["fuzz/seeds/key"], mutations: MANY },
    Target { name: "roster", check: roster, seeds: &["vectors/roster"], mutations: MANY },
    Target { name: "policy", check: policy, seeds: &["fuzz/seeds/policy"], mutations: MANY },
    Target { name: "journal", check: journal, seeds: &["fuzz/seeds/journal"], mutations: FEW },
    Target { name: "bundle", check: bundle, seeds: &["fuzz/seeds/bundle"], mutations: FEW },
    Target { name: "frames", check: frames, seeds: &["fuzz/seeds/frames"], mutations: MANY },
    Target { name: "answer", check: answer, seeds: &["fuzz/seeds/answer"], mutations: MANY },
    Target { name: "paths", check: paths, seeds: &["fuzz/seeds/paths"], mutations: MANY },
    Target { name: "jsonnet", check: jsonnet, seeds: &["fuzz/seeds/jsonnet"], mutations: MANY },
    Target { name: "index_page", check: index_page, seeds: &["fuzz/seeds/index_page"], mutations: MANY },
    Target { name: "module", check: module, seeds: &["fuzz/seeds/module"], mutations: MANY },
];

/// An archive that is read is, written again, the same bytes; nothing of it lies outside of them.
pub fn nar_read(data: &[u8]) -> bool {
    let index = match Index::read(data) {
        Ok(index) => index,
        Err(error) => {
            assert!(error.at <= data.len() as u64, "{error}");
            return false;
        }
    };
    let mut writer = Writer::new(Vec::new());
    write(&index, NodeId::ROOT, data, &mut writer);
    assert_eq!(writer.finish().expect("a vector takes everything"), data);
    assert_eq!(index.walk(data).len(), index.len());
    true
}

/// A message of a node is, written again, the same bytes, and is of one kind only.
pub fn message(data: &[u8]) -> bool {
    let written = [
        Request::from_bytes(data).ok().map(|message| message.to_bytes()),
        Answer::from_bytes(data).ok().map(|message| message.to_bytes()),
        Gossip::from_bytes(data).ok().map(|message| message.to_bytes()),
    ];
    let written: Vec<_> = written.into_iter().flatten().collect();
    assert!(written.iter().all(|written| written == data));
    // `["heads", …]` of one kind has another length than of the other.
    assert!(written.len() <= 1);
    !written.is_empty()
}

/// What is said about a piece is, written again, the same bytes, and is of one kind only.
pub fn range(data: &[u8]) -> bool {
    let written = [
        RangeRequest::from_bytes(data).ok().map(|message| message.to_bytes()),
        RangeAnswer::from_bytes(data).ok().map(|message| message.to_bytes()),
    ];
    let written: Vec<_> = written.into_iter().flatten().collect();
    assert!(written.len() <= 1 && written.iter().all(|written| written == data));
    !written.is_empty()
}

/// A body is taken for a piece of an archive if it proves that piece, and for no other; compressed or
/// not, it is not read without bound. The archive is that of `vectors/blob/ok_one_piece`.
pub fn body(data: &[u8]) -> bool {
    let archive: Vec<u8> = (0..3_u32 * 4096 + 7).flat_map(u32::to_le_bytes).collect();
    let size = archive.len() as u64;
    let request = |zstd| RangeRequest { nar: NarHash::of(&archive), size, piece: 0, zstd };
    let read = |zstd| blob::read(&request(zstd), Body { zstd, bytes: data.to_vec() });
    let taken: Vec<_> = [false, true].into_iter().filter_map(read).collect();
    assert!(taken.iter().all(|piece| *piece == archive));
    !taken.is_empty()
}

/// At most 64 deep, or it would not have been read.
fn write(index: &Index, id: NodeId, data: &[u8], to: &mut Writer<Vec<u8>>) {
    let content = index.content(id, data);
    match index.node_of(id) {
        Node::File { executable, len, .. } => to.file(executable, len, content.expect("a file has content")),
        Node::Symlink { .. } => to.symlink(content.expect("a symlink has a target")),
        Node::Directory(children) => {
            to.directory().expect("it was read");
            for child in index.children(children) {
                to.entry(index.name(*child, data)).expect("its name was read");
                write(index, *child, data, to);
            }
            to.end()
        }
    }
    .expect("what is read can be written");
}

/// A byte with the length of a path, the path, an archive: looking up gives what walking gives.
pub fn nar_lookup(data: &[u8]) -> bool {
    let Some((path, archive)) = split(data) else { return false };
    let Ok(index) = Index::read(archive) else { return false };
    let tree: BTreeMap<_, _> = index.walk(archive).into_iter().collect();
    assert_eq!(tree.len(), index.len(), "two nodes have one path");
    for (path, id) in &tree {
        assert_eq!(index.lookup(path, archive), Some(*id));
    }
    let plain: Vec<_> = path.split(|b| *b == b'/').filter(|c| !c.is_empty()).collect();
    let found = index.lookup(path, archive);
    assert_eq!(found, tree.get(&plain.join(&b'/')).copied());
    found.is_some()
}

/// A byte with a length, as many bytes, the rest.
fn split(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = data.split_first()?;
    rest.split_at_checked(usize::from(*len))
}

/// A derivation has one encoding, and resolves to an action that has one.
pub fn derivation(data: &[u8]) -> bool {
    let Ok(derivation) = Derivation::from_bytes(data) else { return false };
    assert_eq!(derivation.to_bytes(), data);
    assert!(!derivation.outputs().is_empty());
    let unresolved = derivation.resolve(|_, _| None);
    assert_eq!(unresolved.is_err(), !derivation.dependencies().is_empty());
    let resolved = derivation.resolve(|_, _| Some(NarHash::from_bytes([7; 32])));
    action(&resolved.expect("every output is known").to_bytes())
}

/// An action has one encoding, and its document is one JSON object.
pub fn action(data: &[u8]) -> bool {
    let Ok(action) = Action::from_bytes(data) else { return false };
    assert_eq!(action.to_bytes(), data);
    if let Action::Build(build) = action {
        let document = build.stdin_document();
        let value: Value = serde_json::from_str(&document).expect("the document is JSON");
        let names = value["inputs"].as_object().expect("an object of mounts");
        assert_eq!(names.len(), build.inputs.len());
    }
    true
}

/// Names and paths of guests are what they are made of.
pub fn name(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let (name, path) = (Name::new(text), GuestPath::new(text));
    let accepted = name.is_ok() || path.is_ok();
    if let Ok(name) = name {
        assert_eq!(name.to_string(), text);
        assert!(GuestPath::new(name.input_mount()).is_ok() && GuestPath::new(name.output_mount()).is_ok());
    }
    if let Ok(path) = path {
        assert_eq!(path.to_string(), text);
        let joined: String = path.components().map(|c| format!("/{c}")).collect();
        assert!(joined == text || text == "/", "{text}");
        assert!(path.components().all(|c| c != "." && c != ".."));
        if let Some((input, below)) = path.in_input() {
            assert_eq!(format!("/in/{input}/{below}").trim_end_matches('/'), text);
        }
    }
    accepted
}

/// A pattern, a line feed, a path: matching agrees with its definition (SPEC §5.4).
pub fn glob(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let Some((pattern, path)) = text.split_once('\n') else { return false };
    let Ok(glob) = Glob::new(pattern) else { return false };
    assert_eq!(glob.as_str(), pattern);
    let pattern: Vec<&[u8]> = pattern.as_bytes().split(|b| *b == b'/').collect();
    let components: Vec<&[u8]> = path.as_bytes().split(|b| *b == b'/').collect();
    let one = |p: &&[u8], c: &&[u8]| definition(p, c, |b| *b == b'*', |p, c| *p == b'?' || p == c);
    let expected = definition(&pattern, &components, |p| *p == b"**", one);
    assert_eq!(glob.matches(path.as_bytes()), expected, "{pattern:?} on {path:?}");
    expected
}

/// Whether all of `text` matches, by what each element of the pattern can reach: no backtracking,
/// so nothing in common with the matcher under test.
fn definition<T>(pattern: &[T], text: &[T], any: impl Fn(&T) -> bool, one: impl Fn(&T, &T) -> bool) -> bool {
    // Whether the pattern so far matches the first `n` elements.
    let mut reached = vec![false; text.len() + 1];
    reached[0] = true;
    for element in pattern {
        if any(element) {
            let first = reached.iter().position(|r| *r).unwrap_or(reached.len());
            reached[first..].fill(true);
        } else {
            for n in (0..text.len()).rev() {
                reached[n + 1] = reached[n] && one(element, &text[n]);
            }
            reached[0] = false;
        }
    }
    reached[text.len()]
}

/// A hash in SRI form has one text.
pub fn sri(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let Ok(sri) = text.parse::<Sri>() else { return false };
    assert_eq!(sri.to_string(), text);
    assert_eq!(sri.digest().len(), sri.algorithm().digest_bytes());
    true
}

/// A location has one text, and its parts are safe where they go: to command lines and file names.
pub fn location(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let Ok(location) = text.parse::<Location>() else { return false };
    assert_eq!(location.to_string(), text);
    let words = match &location {
        Location::Url(_) => vec![],
        Location::Npm { name, version } | Location::Crate { name, version } => vec![name, version],
        Location::Pypi { name, version, file } => {
            [Some(name), Some(version), file.as_ref()].into_iter().flatten().collect()
        }
    };
    for word in words {
        let safe = |c: char| c.is_ascii_graphic() && !"\"'\\`$;&|<>(){}[]*?".contains(c);
        let word = word.as_str();
        assert!(!word.is_empty() && !word.starts_with('-') && word.chars().all(safe), "{word:?}");
        assert!(!word.split('/').any(|part| part == ".." || part == "."), "{word:?}");
    }
    let name = location.suggested_name();
    assert!(name.is_empty() || Name::new(&name).is_ok(), "{name:?}");
    true
}

/// There is one text for each id, of one kind.
pub fn id(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let read = [
        text.parse::<NarHash>().ok().map(|id| (id.to_string(), id.to_hex())),
        text.parse::<DerivationId>().ok().map(|id| (id.to_string(), id.to_hex())),
        text.parse::<ActionId>().ok().map(|id| (id.to_string(), id.to_hex())),
    ];
    assert!(read.iter().flatten().count() <= 1, "{text} is of two kinds");
    for (again, hex) in read.iter().flatten() {
        assert_eq!(again, text);
        assert_eq!(NarHash::from_hex(hex).map(|id| id.to_hex()).as_ref(), Some(hex));
    }
    let hex = NarHash::from_hex(text);
    if let Some(id) = hex {
        assert_eq!(id.to_hex(), text);
    }
    hex.is_some() || read.iter().any(Option::is_some)
}

/// A fact of the journal has one encoding.
pub fn fact(data: &[u8]) -> bool {
    let Ok(fact) = Fact::from_bytes(data) else { return false };
    assert_eq!(fact.to_bytes(), data);
    true
}

/// The statements of the vectors that verify. Nobody can make others.
pub const GENUINE: [&[u8]; 5] = [
    include_bytes!("../vectors/statement/ok_built.stm"),
    include_bytes!("../vectors/statement/ok_built_without_witness.stm"),
    include_bytes!("../vectors/statement/ok_failed.stm"),
    include_bytes!("../vectors/statement/ok_retract.stm"),
    include_bytes!("../vectors/statement/ok_succeed.stm"),
];

/// A statement has one encoding, and what was not signed does not verify.
pub fn statement(data: &[u8]) -> bool {
    let Ok(unverified) = Unverified::from_bytes(data) else { return false };
    assert_eq!(unverified.bytes(), data);
    assert_eq!(unverified.statement().to_bytes(), data[64..]);
    let Ok(signed) = unverified.verify() else { return false };
    assert!(GENUINE.contains(&data), "a forgery: {:?}", signed.statement());
    true
}

/// An evidence file is what its items are; each that verifies is written as it was read, or, if it
/// is an equivocation, in its one order.
pub fn evidence(data: &[u8]) -> bool {
    let Ok(items) = evidence::read(data) else { return false };
    let mut verified = false;
    for item in items.flatten() {
        let Ok(good) = item.verify() else { continue };
        verified = true;
        let again = UnverifiedEvidence::from_bytes(&good.to_bytes()).expect("what is written is read");
        assert_eq!(again.verify().expect("what verified verifies"), good);
    }
    verified
}

/// A wish has one form, and only its attester makes another of it.
pub fn wish(data: &[u8]) -> bool {
    let wish = UnverifiedWish::from_bytes(data);
    wish.is_ok_and(|wish| {
        assert_eq!(wish.to_bytes(), data);
        wish.verify().is_ok()
    })
}

/// A trace has one form, and parts from no copy of itself.
pub fn trace(data: &[u8]) -> bool {
    let trace = Trace::from_bytes(data);
    trace.is_ok_and(|trace| {
        assert_eq!(trace.to_bytes(), data);
        trace.first_difference(&trace).is_none()
    })
}

/// A ticket has one text, in small letters or in large ones.
pub fn ticket(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let ticket = text.parse::<Ticket>();
    ticket.inspect(|ticket| assert_eq!(ticket.to_string(), text.to_ascii_lowercase())).is_ok()
}

/// A key has one text.
pub fn key(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let (key, secret) = (text.parse::<AttesterKey>(), parse_secret(text));
    let again = key.iter().map(AttesterKey::to_string).chain(secret.iter().map(secret_text));
    again.inspect(|again| assert_eq!(again, text)).count() > 0
}

/// A roster that is accepted stays the same when it is written and read.
pub fn roster(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let Ok(roster) = Roster::parse(text) else { return false };
    assert_eq!(Roster::parse(&roster.to_json()).ok(), Some(roster));
    true
}

/// The roster of a vector, and its time.
static ROSTER: LazyLock<(Roster, u64)> = LazyLock::new(|| {
    let case: Value =
        serde_json::from_str(include_str!("../vectors/policy/ok_everything.json")).expect("JSON");
    let roster = Roster::parse(&case["roster"].to_string()).expect("a roster");
    (roster, case["now"].as_u64().expect("a time"))
});

/// A policy, for a roster of five. One that is accepted never takes outputs that nobody named, and
/// counts nobody but the five and `self`.
pub fn policy(data: &[u8]) -> bool {
    let Ok(value) = serde_json::from_slice::<Value>(data) else { return false };
    let (roster, now) = &*ROSTER;
    let policy = match Policy::compile(&value, roster, *now) {
        Ok(policy) => policy,
        Err(error) => {
            assert!(error.at.starts_with("policy"), "{error}");
            return false;
        }
    };
    let nothing = Voters::new(roster, None, &Standings::default(), *now).claims(
        &ActionId::from_bytes([7; 32]),
        None,
        [],
        None,
    );
    for view in policy.views() {
        let verdict = judge(&nothing, &view);
        assert!(verdict.accepted().is_none(), "nobody has to agree: {verdict}");
        let known = |voter: &Voter| voter.name().as_str() == "self" || roster.get(voter.name()).is_some();
        assert!(view.rule().voters().into_iter().all(known), "{}", view.rule());
    }
    assert!(policy.notes().iter().all(|note| note.to_string().starts_with("policy")));
    true
}

/// The bytes are the only segment of a journal: the store opens, has every fact up to the first
/// damage, and needs no second repair.
pub fn journal(data: &[u8]) -> bool {
    let home = scratch();
    let directory = home.path().join("journal");
    std::fs::create_dir(&directory).expect("a directory for the journal");
    std::fs::write(directory.join("00000001.log"), data).expect("a segment");
    let open = || Store::open(home.path(), |_| false);
    let store = open().expect("whatever the journal is, the store opens");
    let mut pins = BTreeMap::new();
    let facts = intact(data);
    let accepted = !facts.is_empty();
    for fact in facts {
        match fact {
            Fact::Action(action) => assert_eq!(store.action(&action.id()).ok().flatten(), Some(action)),
            // The latest counts, which may lie behind the damage.
            Fact::Built(built) => assert!(store.realisation(&built.action).ok().flatten().is_some()),
            Fact::Pinned { name, nars } => drop(pins.insert(name, nars)),
            Fact::Unpinned { name } => drop(pins.remove(&name)),
            // In whatever order they are: what is said of an action is found by it.
            Fact::Evidence(Evidence::Statement(signed)) => {
                let attester = signed.statement().attester;
                assert!(store.attesters().expect("the index is whole").contains(&attester));
            }
            Fact::Evidence(other) => {
                assert!(!store.bearing(&other.attester()).expect("the index is whole").is_empty());
            }
        }
    }
    let found = store.pins().expect("the index is whole");
    if store.notices().iter().all(|notice| matches!(notice, Notice::IndexRebuilt { .. })) {
        assert_eq!(found, pins);
    }
    store.record(&Fact::Unpinned { name: "later".into() }).expect("the journal goes on");
    drop(store);
    let again = open().expect("it opens again");
    let unknown =
        |notice: &Notice| matches!(notice, Notice::UnknownFact { .. } | Notice::SegmentMissing { .. });
    assert!(again.notices().iter().all(unknown), "{:?}", again.notices());
    assert_eq!(again.pins().expect("the index is whole"), found);
    accepted
}

/// The facts of a segment before anything that is no frame: its format (SPEC §9.2) read anew.
fn intact(mut bytes: &[u8]) -> Vec<Fact> {
    let mut facts = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<8>() {
        let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let Some(payload) = rest.get(..number(0) as usize) else { break };
        if payload.is_empty() || payload.len() > store::FACT_BYTES || crc32c::crc32c(payload) != number(4) {
            break;
        }
        facts.extend(Fact::from_bytes(payload));
        bytes = &rest[payload.len()..];
    }
    facts
}

/// What is imported is what its names say.
pub fn bundle(data: &[u8]) -> bool {
    // The store would refuse the rest for the same reason, after writing it to disk.
    if Index::read(data).is_err() {
        return false;
    }
    let home = scratch();
    let store = Store::open(home.path(), |_| false).expect("a new store");
    let imported = store.import(data, 1 << 20);
    let accepted = imported.is_ok();
    match imported {
        Ok(imported) => {
            assert!(!imported.plain || imported.nars.len() == 1);
            for nar in &imported.nars {
                let archive = store.open_nar(&nar.hash).expect("it was imported");
                assert_eq!((NarHash::of(archive.bytes()), archive.size()), (nar.hash, nar.size));
            }
            for id in &imported.actions {
                let action = store.action(id).expect("the index is whole").expect("it was imported");
                assert_eq!(action.id(), *id);
            }
        }
        Err(error) => drop(error.to_string()),
    }
    assert!(store.verify(false, |_, _| {}).expect("the store can be read").is_clean());
    accepted
}

/// Frames of a worker are understood one by one: what is understood is what was said.
pub fn frames(data: &[u8]) -> bool {
    let Ok(frames) = build::probe::frames(data) else { return false };
    let mut again = Vec::new();
    for (kind, content) in frames {
        again.push(kind);
        again.extend((content.len() as u32).to_le_bytes());
        again.extend(content);
    }
    // Less than a frame's head at the end is an end.
    assert!(data.starts_with(&again) && data.len() - again.len() < 5);
    !again.is_empty()
}

/// An evaluation that is accepted stays the same when it is passed on.
pub fn answer(data: &[u8]) -> bool {
    let Ok(again) = eval::probe::answer(data) else { return false };
    assert_eq!(eval::probe::answer(&again).ok().as_ref(), Some(&again));
    true
}

/// A byte that chooses a directory, a byte with the length of a path, the path, an archive: from
/// that directory the path never leaves it, whatever symlinks the archive has.
pub fn paths(data: &[u8]) -> bool {
    let Some((choice, rest)) = data.split_first() else { return false };
    let Some((path, archive)) = split(rest) else { return false };
    let Ok(index) = Index::read(archive) else { return false };
    let tree = index.walk(archive);
    let directories: Vec<_> = tree.iter().filter(|(_, id)| is_directory(&index, *id)).collect();
    if directories.is_empty() {
        return false;
    }
    let base = &directories[usize::from(*choice) % directories.len()].0;
    let scratch = scratch();
    let file = scratch.path().join("nar");
    std::fs::write(&file, archive).expect("an archive");
    let mounted = build::probe::Mounted::open(&file, scratch.path()).expect("it was read");
    let symlink = |id: NodeId| matches!(index.node_of(id), Node::Symlink { .. });
    let mut accepted = false;
    for follow in [false, true] {
        let Ok(Some(found)) = mounted.resolve(base, path, follow) else { continue };
        accepted = true;
        let (found, id) = tree.iter().find(|(_, id)| u64::from(id.place()) == found).expect("in the archive");
        let below = found
            .strip_prefix(&base[..])
            .is_some_and(|rest| base.is_empty() || rest.first().is_none_or(|b| *b == b'/'));
        assert!(below, "{} leads out of {}", path.escape_ascii(), base.escape_ascii());
        assert!(!follow || !symlink(*id), "a symlink at the end was not followed");
    }
    // Without symlinks and dots it is a lookup.
    let plain = path.split(|b| *b == b'/').all(|c| !matches!(c, b"" | b"." | b".."));
    if plain && path.len() < 255 && !path.contains(&0) && !tree.iter().any(|(_, id)| symlink(*id)) {
        let whole = if base.is_empty() { path.to_vec() } else { [base, path].join(&b'/') };
        let expected = index.lookup(&whole, archive).map(|id| u64::from(id.place()));
        assert_eq!(mounted.resolve(base, path, true).ok().flatten(), expected);
    }
    accepted
}

fn is_directory(index: &Index, id: NodeId) -> bool {
    matches!(index.node_of(id), Node::Directory(_))
}

/// Imports are found where the text has the keyword.
pub fn jsonnet(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let Ok(imports) = eval::probe::imports(text) else { return false };
    let mut behind = 0;
    for (_, at) in imports {
        assert!(at >= behind && text.as_bytes()[at..].starts_with(b"import"), "byte {at}");
        behind = at + 1;
    }
    behind > 0
}

/// Whatever a page of an index says, files are fetched by http only, and the login of the index goes
/// to its own origin only.
pub fn index_page(data: &[u8]) -> bool {
    // A page may have a login of its own; it does not know the one of the index, unless it guesses.
    let guessed = data.contains(&b'\\') || data.windows(6).any(|w| w == b"secret");
    let urls = fetch::probe::index_page(data);
    for url in &urls {
        assert!(url.starts_with("https://") || url.starts_with("http://"), "{url}");
        if guessed {
            continue;
        }
        assert!(
            !url.contains("user:secret@") || url.starts_with("https://user:secret@example.org/"),
            "{url}"
        );
    }
    !urls.is_empty()
}

/// A module is refused or accepted, but never a panic.
pub fn module(data: &[u8]) -> bool {
    let accepted = build::check(data).is_ok();
    assert!(!accepted || data.starts_with(b"\0asm"));
    accepted
}

/// In memory if there is such a place: stores sync what they write.
fn scratch() -> tempfile::TempDir {
    let memory = PathBuf::from("/dev/shm");
    let base = if memory.is_dir() { memory } else { std::env::temp_dir() };
    tempfile::tempdir_in(base).expect("a temporary directory")
}
