//! A store that one process has open and others use: the same answers everywhere, whoever is killed.
//!
//! As in `crash.rs`, the tests start this very binary again, with `STORE_HOME` set, to run one of
//! the `child_…` functions.

mod support;

use std::{
    collections::BTreeSet,
    error::Error,
    fs::{self, Permissions},
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixStream, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use proptest::prelude::*;
use protocol::{
    evidence::{Evidence, Revocation},
    feed::Head,
    id::{ActionId, NarHash, StatementId},
    key::{AttesterKey, SigningKey},
    name::Name,
    statement::{Attestation, Body, Platform, Signed, Statement},
};
use store::{
    CLIENTS, Fact, Fault, GcOptions, KeepError, LookupError, OpenError, RecordError, SayError, ServeError,
    ServedError, Service, Store, Unwelcome,
};
use support::{action, archive, built, names, realisation};

const SERVER_KILLS: u32 = 40;
const CLIENT_KILLS: u32 = 60;

/// A hello of version 1.
const HELLO: &[u8] = b"\x0f\0\0\0\x82\x6cassize store\x01";

/// Opens a store of our own and serves it.
fn serve(home: &Path) -> (Arc<Store>, Service) {
    let store = Arc::new(Store::open(home, |_| panic!("nobody has it open")).unwrap());
    let service = store.serve().unwrap();
    (store, service)
}

fn client(home: &Path) -> Store {
    Store::open(home, |_| panic!("nobody serves")).unwrap()
}

fn key(n: u8) -> SigningKey {
    SigningKey::from_bytes(&[n; 32])
}

fn attester(n: u8) -> AttesterKey {
    AttesterKey::of(&key(n))
}

/// What is signed of action number `of`.
fn attestation(of: u32, gave: u8) -> Body {
    let realisation = built(&action(of), gave, 1);
    let platform = Platform::here(Name::new("none").unwrap());
    Body::Built(Attestation {
        action: realisation.action,
        outputs: realisation.outputs,
        witness: None,
        platform,
    })
}

fn statement(who: u8, seq: u64, prev: StatementId, body: Body) -> Signed {
    Statement { attester: attester(who), seq, prev, time: 0, body }.sign(&key(who)).unwrap()
}

/// An error and its causes.
fn chain(error: &dyn Error) -> String {
    let (mut text, mut next) = (error.to_string(), error.source());
    while let Some(cause) = next {
        text += &format!(": {cause}");
        next = cause.source();
    }
    text
}

/// Everything that a store answers, as text.
fn all(store: &Store) -> Vec<String> {
    fn show<T: std::fmt::Debug, E: Error>(result: Result<T, E>) -> String {
        match result {
            Ok(value) => format!("{value:?}"),
            Err(e) => chain(&e),
        }
    }
    let mut answers = vec![show(store.pins()), show(store.attesters()), show(store.claimed())];
    answers.extend(store.realisations().unwrap().map(show));
    for n in 0..8 {
        let id = action(u32::from(n)).id();
        answers.push(show(store.action(&id)));
        answers.push(show(store.realisation(&id)));
        answers.push(show(store.claims(&id)));
        answers.push(show(store.makers(&NarHash::from_bytes([n; 32]))));
        answers.push(show(store.head(&attester(n))));
        answers.push(show(store.bearing(&attester(n))));
        answers.extend(store.statements(&attester(n), 0).map(show));
        answers.extend(store.statements(&attester(n), 2).map(show));
        for len in [1, 2, 5, 52] {
            answers.push(show(store.find_prefix(&id.to_string()[4..4 + len])));
        }
    }
    for prefix in ["", "act:", "nar:a", "nonsense!", "act:b"] {
        answers.push(show(store.find_prefix(prefix)));
    }
    answers.push(show(store.find_prefix(&"a".repeat(10_000))));
    let report = store.verify(false, |_, _| {}).unwrap();
    answers.push(format!("{report:?}"));
    answers
}

#[derive(Debug, Clone)]
enum Deed {
    Action(u32),
    /// With or without the action before it.
    Built(u32, u8, bool),
    /// Without outputs.
    Nothing(u32),
    Pin(u8, Vec<u8>),
    PinBadly,
    Unpin(u8),
    Say(u8, Vec<(u32, u8)>),
    /// Statements of a feed that has forks: who, from which place, how many, of which branch.
    Keep(u8, u8, u8, u8),
    Revoke(u8, u64),
    Succeed(u8),
    Reindex,
    Sweep,
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        (0_u32..6).prop_map(Deed::Action),
        (0_u32..6, 0_u8..6, any::<bool>()).prop_map(|(a, n, with)| Deed::Built(a, n, with)),
        (0_u32..6).prop_map(Deed::Nothing),
        (0_u8..3, prop::collection::vec(0_u8..6, 0..4)).prop_map(|(name, nars)| Deed::Pin(name, nars)),
        Just(Deed::PinBadly),
        (0_u8..3).prop_map(Deed::Unpin),
        (1_u8..4, prop::collection::vec((0_u32..6, 0_u8..6), 0..4))
            .prop_map(|(who, what)| Deed::Say(who, what)),
        (4_u8..7, 0_u8..4, 0_u8..4, 0_u8..3)
            .prop_map(|(who, from, n, branch)| Deed::Keep(who, from, n, branch)),
        (1_u8..7, 0_u64..4).prop_map(|(who, since)| Deed::Revoke(who, since)),
        (1_u8..4).prop_map(Deed::Succeed),
        Just(Deed::Reindex),
        Just(Deed::Sweep),
    ]
}

/// Does it, and says what came of it.
fn act(store: &Store, deed: &Deed) -> String {
    fn show<T: std::fmt::Debug, E: Error>(result: Result<T, E>) -> String {
        match result {
            Ok(value) => format!("{value:?}"),
            Err(e) => chain(&e),
        }
    }
    match deed {
        Deed::Action(n) => show(store.record(&Fact::Action(action(*n)))),
        Deed::Built(n, nar, with) => {
            let a = action(*n);
            let (first, second) = (Fact::Action(a.clone()), Fact::Built(built(&a, *nar, 1)));
            show(if *with { store.record_all(&[first, second]) } else { store.record(&second) })
        }
        Deed::Nothing(n) => {
            let mut nothing = built(&action(*n), 0, 1);
            nothing.outputs.clear();
            show(store.record_all(&[Fact::Action(action(*n)), Fact::Built(nothing)]))
        }
        Deed::Pin(name, nars) => {
            let nars = nars.iter().map(|n| NarHash::from_bytes([*n; 32])).collect();
            show(store.pin(&format!("pin {name}"), &nars))
        }
        Deed::PinBadly => show(store.pin("a\nb", &BTreeSet::new())),
        Deed::Unpin(name) => show(store.unpin(&format!("pin {name}"))),
        Deed::Say(who, what) => {
            show(store.say(&key(*who), 7, what.iter().map(|(of, gave)| attestation(*of, *gave))))
        }
        Deed::Keep(who, from, n, branch) => {
            let mut prev = StatementId::from_bytes([0; 32]);
            let feed: Vec<_> = (0..from + n)
                .map(|place| {
                    // The branches part at place 2.
                    let gave = if place < 2 { 0 } else { *branch };
                    let next = statement(*who, place.into(), prev, attestation(u32::from(place), gave));
                    prev = next.id();
                    Evidence::Statement(next)
                })
                .collect();
            show(store.keep(feed.into_iter().skip(usize::from(*from))))
        }
        Deed::Revoke(who, since) => {
            show(store.keep([Evidence::Revocation(Revocation::sign(&key(*who), *since))]))
        }
        Deed::Succeed(who) => {
            use protocol::{
                key::{Context, Signature},
                statement::succession,
            };
            let message = succession(&attester(*who), &attester(9));
            let consent = Signature::sign(&key(9), Context::Succession, &message);
            show(store.say(&key(*who), 7, [Body::Succeed { successor: attester(9), consent }]))
        }
        Deed::Reindex => show(store.reindex()),
        Deed::Sweep => show(store.gc(&GcOptions { dry_run: true, ..GcOptions::default() })),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever the owner and two clients do in turn, each is told the same as if it had the store
    /// for itself, and so is whoever opens it next.
    #[test]
    fn same_answers(deeds in prop::collection::vec((0_usize..3, deed()), 1..30)) {
        let (served, alone) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (owner, service) = serve(served.path());
        let (one, other) = (client(served.path()), client(served.path()));
        let alone = support::open(&alone);
        let users = [&*owner, &one, &other];
        for (who, deed) in &deeds {
            prop_assert_eq!(act(users[*who], deed), act(&alone, deed), "{} {:?}", who, deed);
        }
        let expected = all(&alone);
        for user in users {
            prop_assert_eq!(all(user), expected.clone());
        }
        drop((one, other, service, owner));
        prop_assert_eq!(all(&support::open(&served)), expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// The same at the same time: whatever order it happened in, all are told the same of it, each
    /// feed is whole, and nothing is damaged.
    #[test]
    fn at_the_same_time(deeds in prop::collection::vec(prop::collection::vec(deed(), 20), 3)) {
        let home = tempfile::tempdir().unwrap();
        let (owner, service) = serve(home.path());
        let (one, other) = (client(home.path()), client(home.path()));
        let users = [&*owner, &one, &other];
        std::thread::scope(|scope| {
            for (user, deeds) in users.iter().zip(&deeds) {
                scope.spawn(move || deeds.iter().for_each(|deed| drop(act(user, deed))));
            }
        });
        let expected = all(&owner);
        prop_assert_eq!(all(&one), expected.clone());
        prop_assert_eq!(all(&other), expected.clone());
        for who in 1..4 {
            let feed = other.statements(&attester(who), 0).map(Result::unwrap);
            let head = feed.fold(Head::empty(attester(who)), |head, next| head.follow(&next).unwrap());
            prop_assert_eq!(head, one.head(&attester(who)).unwrap());
        }
        let report = owner.verify(false, |_, _| {}).unwrap();
        prop_assert!(report.is_clean(), "{report:?}");
        drop((one, other, service, owner));
        prop_assert_eq!(all(&support::open(&home)), expected);
    }
}

/// Archives, logs and temporary files are used directly.
#[test]
fn files_are_shared() {
    let home = tempfile::tempdir().unwrap();
    let (owner, _service) = serve(home.path());
    let client = client(home.path());
    assert_eq!(client.notices(), []);
    assert_eq!((client.home(), client.modules_dir()), (owner.home(), owner.modules_dir()));
    let hash = client.admit(&archive(b"hello")[..], None, 1000).unwrap().hash;
    assert_eq!(owner.open_nar(&hash).unwrap().bytes(), archive(b"hello"));
    client.create_log(&action(1).id()).unwrap().write_all(b"log").unwrap();
    assert_eq!(fs::read(owner.log_path(&action(1).id())).unwrap(), b"log");
    let (a, b) = (client.usage().unwrap(), owner.usage().unwrap());
    assert_eq!((a.nars, a.logs, a.journal), (b.nars, b.logs, b.journal));
    // A bundle goes in and out through a client.
    client.record(&Fact::Action(action(1))).unwrap();
    let mut bundle = Vec::new();
    client.export(&BTreeSet::from([hash]), &BTreeSet::from([action(1).id()]), &mut bundle).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let (there, _service) = serve(elsewhere.path());
    let imported = self::client(elsewhere.path()).import(&bundle[..], 1 << 20).unwrap();
    assert_eq!((imported.actions.len(), imported.nars.len()), (1, 1));
    assert!(there.contains(&hash) && there.action(&action(1).id()).unwrap().is_some());
}

/// More than fits in one frame, in each way in which that can be.
#[test]
fn much_at_once() {
    let home = tempfile::tempdir().unwrap();
    let (owner, _service) = serve(home.path());
    let client = client(home.path());
    let facts: Vec<_> = (0..30_000)
        .flat_map(|n| [Fact::Action(action(n)), Fact::Built(built(&action(n), 1, n.into()))])
        .collect();
    client.record_all(&facts).unwrap();
    let nar = |name: u64, n: u64| {
        let mut bytes = [0; 32];
        bytes[..16].copy_from_slice(&[name.to_le_bytes(), n.to_le_bytes()].concat());
        NarHash::from_bytes(bytes)
    };
    for name in 0..4_u64 {
        let nars = (0..store::PIN_NARS as u64).map(|n| nar(name, n)).collect();
        client.pin(&format!("{name}"), &nars).unwrap();
    }
    let said = client.say(&key(1), 0, (0..20_000).map(|n| attestation(3, (n % 251) as u8))).unwrap();
    assert_eq!(said.len(), 20_000);
    assert_eq!(client.pins().unwrap(), owner.pins().unwrap());
    assert_eq!(client.makers(&NarHash::from_bytes([1; 32])).unwrap().len(), 30_000);
    let list = |store: &Store| store.realisations().unwrap().collect::<Result<Vec<_>, _>>().unwrap();
    assert_eq!(list(&client).len(), 30_000);
    assert!(list(&client) == list(&owner));
    assert!(client.claims(&action(3).id()).unwrap() == said);
    let feed = |from| client.statements(&attester(1), from).collect::<Result<Vec<_>, _>>().unwrap();
    assert!(feed(0) == said && feed(19_999) == said[19_999..] && feed(20_000).is_empty());
    // A feed that is kept elsewhere, and a rival for each of its places.
    let elsewhere = tempfile::tempdir().unwrap();
    let (_there, _service) = serve(elsewhere.path());
    let there = self::client(elsewhere.path());
    let kept = there.keep(said.iter().cloned().map(Evidence::Statement)).unwrap();
    assert!(kept.len() == 20_000 && kept.iter().all(|kept| *kept == store::Kept::New));
    let rivals = said.iter().take(5000).map(|signed| {
        let Statement { seq, prev, .. } = *signed.statement();
        Evidence::Statement(statement(1, seq, prev, attestation(4, 4)))
    });
    let kept = there.keep(rivals).unwrap();
    assert!(kept.len() == 5000 && kept.iter().all(|kept| matches!(kept, store::Kept::Equivocation(_))));
    assert_eq!(there.bearing(&attester(1)).unwrap().len(), 1);
    // Too much is refused before it is sent, and the connection is good for more.
    let keep = (0..300_000).map(|n| nar(9, n)).collect();
    let refused = client.gc(&GcOptions { dry_run: true, keep, ..GcOptions::default() });
    assert!(matches!(refused, Err(LookupError::Served(ServedError::TooLong { .. }))));
    assert_eq!(client.attesters().unwrap(), [attester(1)]);
}

/// What is damaged is told with its text and its kind, and the rest is found.
#[test]
fn damage_is_told() {
    let home = tempfile::tempdir().unwrap();
    let (owner, _service) = serve(home.path());
    let client = client(home.path());
    for n in 0..4 {
        let a = action(n);
        client.record_all(&[Fact::Action(a.clone()), Fact::Built(built(&a, 100 + n as u8, 1))]).unwrap();
        client.say(&key(1), 0, [attestation(n, 200 + n as u8)]).unwrap();
    }
    let path = home.path().join("journal/00000001.log");
    let mut bytes = fs::read(&path).unwrap();
    for nar in [[102; 32], [201; 32]] {
        let at = bytes.windows(32).position(|window| window == nar).unwrap();
        bytes[at] ^= 1;
    }
    fs::OpenOptions::new().write(true).open(&path).unwrap().write_all(&bytes).unwrap();
    let expected = all(&owner);
    assert!(expected.iter().any(|text| text.contains("is damaged at byte")), "{expected:#?}");
    assert_eq!(all(&client), expected);
    match client.realisation(&action(2).id()) {
        Err(LookupError::Served(ServedError::Failed(told))) => assert_eq!(told.fault(), Fault::Damage),
        other => panic!("{other:?}"),
    }
    let report = client.verify(true, |_, _| {}).unwrap();
    assert_eq!((report.journal.len(), report.repaired.len()), (2, 4), "{report:?}");
    assert!(client.verify(false, |_, _| {}).unwrap().is_clean());
    assert_eq!(client.realisations().unwrap().count(), 3);
    // The rest of the feed is there, and its head is where it was.
    assert_eq!(client.statements(&attester(1), 0).filter(Result::is_ok).count(), 3);
    assert_eq!(all(&client), all(&owner));
}

fn home() -> Option<PathBuf> {
    std::env::var_os("STORE_HOME").map(PathBuf::from)
}

fn number() -> u32 {
    std::env::var("STORE_FIRST").unwrap().parse().unwrap()
}

fn say(what: &str, n: u32) {
    let mut out = std::io::stdout().lock();
    // On a line of its own: the test harness begins one.
    writeln!(out, "\n{what} {n}").and_then(|()| out.flush()).unwrap();
}

fn start(mut command: Command, child: &str, home: &Path, first: u32) -> Child {
    command
        .args(["--exact", child, "--nocapture", "--test-threads=1"])
        .env("STORE_HOME", home)
        .env("STORE_FIRST", first.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

fn this_binary() -> Command {
    Command::new(std::env::current_exe().unwrap())
}

/// Waits until a child has said `what`.
fn wait_for(out: &mut BufReader<ChildStdout>, what: &str) -> u32 {
    let mut line = String::new();
    while out.read_line(&mut line).unwrap() > 0 {
        if let Some(n) = line.trim().strip_prefix(what) {
            return n.trim().parse().unwrap();
        }
        line.clear();
    }
    panic!("the child did not say `{what}`")
}

/// The numbers that a child has said `what` about, and what else it said last; waits for its end.
fn said(out: BufReader<ChildStdout>, what: &str) -> (Vec<u32>, String) {
    let (mut numbers, mut last) = (Vec::new(), String::new());
    for line in out.lines() {
        let line = line.unwrap();
        match line.strip_prefix(what) {
            Some(n) => numbers.push(n.trim().parse().unwrap()),
            None if !line.trim().is_empty() => last = line,
            None => {}
        }
    }
    (numbers, last)
}

fn output(child: &mut Child) -> BufReader<ChildStdout> {
    BufReader::new(child.stdout.take().unwrap())
}

/// Serves until its stdin ends, and does things of its own meanwhile.
#[test]
fn child_that_serves() {
    let Some(home) = home() else { return };
    let (store, _service) = serve(&home);
    let (first, ended) = (number(), AtomicBool::new(false));
    say("serving", first);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in (first..).take_while(|_| !ended.load(Relaxed)) {
                one_thing(&store, n).unwrap();
                say("done", n);
            }
        });
        let _ = std::io::stdin().read(&mut [0]);
        ended.store(true, Relaxed);
    });
}

/// Does things, from two threads, until the server ends.
#[test]
fn child_that_works() {
    let Some(home) = home() else { return };
    let first = number();
    let store = client(&home);
    say("open", 0);
    let next = AtomicU32::new(first);
    let work = || loop {
        let n = next.fetch_add(1, Relaxed);
        match one_thing(&store, n) {
            Ok(()) => say("done", n),
            Err(error) => return error,
        }
    };
    let errors =
        std::thread::scope(|scope| [scope.spawn(work), scope.spawn(work)].map(|t| t.join().unwrap()));
    for error in errors {
        println!("{}", chain(&*error));
    }
    // It stays gone.
    assert!(matches!(store.pins(), Err(LookupError::Served(ServedError::Gone))));
}

fn nar(n: u32) -> Vec<u8> {
    archive(&n.to_le_bytes().repeat(n.wrapping_mul(2654435761) as usize % 2000))
}

fn one_thing(store: &Store, n: u32) -> Result<(), Box<dyn Error + Send>> {
    fn fails(error: impl Error + Send + 'static) -> Box<dyn Error + Send> {
        Box::new(error)
    }
    let hash = store.admit(&nar(n)[..], None, u64::MAX).map_err(fails)?.hash;
    let a = action(n);
    store.record_all(&[Fact::Action(a.clone()), Fact::Built(realisation(&a, hash, 1))]).map_err(fails)?;
    // One feed for all of them.
    store.say(&key(7), 0, [attestation(n, 1)]).map_err(fails)?;
    if n.is_multiple_of(8) {
        store.pin(&format!("pin {n}"), &BTreeSet::from([hash])).map_err(fails)?;
    }
    Ok(())
}

fn is_there(store: &Store, n: u32) {
    let (a, hash) = (action(n), NarHash::of(&nar(n)));
    assert_eq!(store.open_nar(&hash).unwrap().bytes(), nar(n));
    assert_eq!(store.action(&a.id()).unwrap(), Some(a.clone()));
    assert_eq!(store.realisation(&a.id()).unwrap(), Some(realisation(&a, hash, 1)));
    let claims = store.claims(&a.id()).unwrap();
    assert_eq!(claims.iter().map(|c| &c.statement().body).collect::<Vec<_>>(), [&attestation(n, 1)]);
}

/// One feed without a gap or a fork.
fn is_whole(store: &Store, who: u8) -> u64 {
    let mut head = Head::empty(attester(who));
    for signed in store.statements(&attester(who), 0) {
        head = head.follow(&signed.unwrap()).unwrap();
    }
    assert_eq!(head, store.head(&attester(who)).unwrap());
    assert_eq!(store.bearing(&attester(who)).unwrap(), []);
    head.len()
}

/// A server is killed while it and two clients work: what was acknowledged to any of them is there,
/// the clients are told clearly, and whoever comes next just opens the store.
#[test]
fn servers_are_killed() {
    let temp = tempfile::tempdir().unwrap();
    let (mut acknowledged, mut random) = (Vec::new(), 88172645463325252_u64);
    for kill in 0..SERVER_KILLS {
        let first = kill * 100_000;
        let mut server = start(this_binary(), "child_that_serves", temp.path(), first);
        let mut server_out = output(&mut server);
        wait_for(&mut server_out, "serving");
        let mut clients =
            [1, 2].map(|n| start(this_binary(), "child_that_works", temp.path(), first + n * 30_000));
        let mut outs = clients.each_mut().map(output);
        outs.iter_mut().for_each(|out| _ = wait_for(out, "open"));
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        std::thread::sleep(Duration::from_micros(random % 60_000));
        server.kill().unwrap();
        let mut done = said(server_out, "done").0;
        server.wait().unwrap();
        for (client, out) in clients.iter_mut().zip(outs) {
            let mut text = String::new();
            for line in out.lines() {
                let line = line.unwrap();
                match line.strip_prefix("done ") {
                    Some(n) => done.push(n.parse().unwrap()),
                    None => text += &line,
                }
            }
            let clear = "the process that has the store open ended; run the command again";
            assert_eq!(text.matches(clear).count(), 2, "{text}");
            assert!(client.wait().unwrap().success());
        }
        let store = Store::open(temp.path(), |_| panic!("a dead process holds the lock")).unwrap();
        done.iter().for_each(|n| is_there(&store, *n));
        is_whole(&store, 7);
        acknowledged.extend(done);
    }
    let store = Store::open(temp.path(), |_| false).unwrap();
    acknowledged.iter().for_each(|n| is_there(&store, *n));
    assert!(store.verify(false, |_, _| {}).unwrap().is_clean());
    assert!(names(&temp.path().join("tmp")).is_empty());
    println!("{SERVER_KILLS} servers killed: {} acknowledged", acknowledged.len());
    assert!(acknowledged.len() > 100, "they were killed before they did anything");
}

/// Clients are killed: the server goes on, and what it acknowledged is there.
#[test]
fn clients_are_killed() {
    let temp = tempfile::tempdir().unwrap();
    let (store, service) = serve(temp.path());
    let (mut acknowledged, mut random) = (Vec::new(), 88172645463325252_u64);
    for kill in 0..CLIENT_KILLS {
        let mut child = start(this_binary(), "child_that_works", temp.path(), kill * 10_000);
        let mut out = output(&mut child);
        wait_for(&mut out, "open");
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        std::thread::sleep(Duration::from_micros(random % 40_000));
        child.kill().unwrap();
        acknowledged.extend(said(out, "done").0);
        child.wait().unwrap();
        one_thing(&store, kill * 10_000 + 9_999).unwrap();
    }
    acknowledged.iter().for_each(|n| is_there(&store, *n));
    is_whole(&store, 7);
    // The dead are not counted.
    until(|| store.gc(&GcOptions { keep: BTreeSet::new(), dry_run: false, older_than: None }).is_ok());
    assert!(store.verify(false, |_, _| {}).unwrap().is_clean());
    println!("{CLIENT_KILLS} clients killed: {} acknowledged", acknowledged.len());
    drop(service);
}

/// Says things under one key.
#[test]
fn child_that_says() {
    let Some(home) = home() else { return };
    let store = client(&home);
    for n in 0..100 {
        store.say(&key(1), 0, (0..1 + n % 3).map(|m| attestation(number() + n, m as u8))).unwrap();
    }
    say("said", 100);
}

/// Two processes and the owner say things with one key at the same time: one feed.
#[test]
fn one_feed_from_many_processes() {
    let temp = tempfile::tempdir().unwrap();
    let (store, _service) = serve(temp.path());
    let children = [1, 2].map(|n| start(this_binary(), "child_that_says", temp.path(), n * 1000));
    for n in 0..100 {
        store.say(&key(1), 0, [attestation(n, 0)]).unwrap();
    }
    for mut child in children {
        wait_for(&mut output(&mut child), "said");
        child.wait().unwrap();
    }
    assert_eq!(is_whole(&store, 1), 100 + 2 * (34 + 2 * 33 + 3 * 33));
    assert!(store.verify(false, |_, _| {}).unwrap().is_clean());
}

/// Tries for a minute.
#[track_caller]
fn until(mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < end, "not within a minute");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn garbage_is_cut_off() {
    let home = tempfile::tempdir().unwrap();
    let (_store, service) = serve(home.path());
    let client = client(home.path());
    let socket = home.path().join("store.sock");
    let frame = |bytes: &[u8]| [&(bytes.len() as u32).to_le_bytes(), bytes].concat();
    let behind_hello = |bytes: &[u8]| [HELLO, bytes].concat();
    let mut random = 88172645463325252_u64;
    let noise: Vec<u8> = (0..100_000)
        .map(|_| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random as u8
        })
        .collect();
    let deep = vec![0x81; 1 << 20];
    let empty = [&[0x82, 8, 0x9a, 0, 0x10, 0, 0][..], &vec![0x40; 1 << 20]].concat();
    for garbage in [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        b"\xff\xff\xff\xff".to_vec(),
        frame(b"\x82\x6cassize store\x18\x01"),
        noise.clone(),
        behind_hello(&noise),
        behind_hello(b"\xff\xff\xff\xff"),
        behind_hello(&frame(&[])),
        behind_hello(&frame(&noise)),
        behind_hello(&frame(&deep)),
        behind_hello(&frame(&empty)),
        // A request, and something behind it; one that is not in its shortest form; an unknown one.
        behind_hello(&frame(b"\x81\x03\x00")),
        behind_hello(&frame(b"\x81\x18\x03")),
        behind_hello(&frame(b"\x81\x18\x63")),
        // An array that says to be longer than memory.
        behind_hello(&frame(b"\x82\x08\x9b\xff\xff\xff\xff\xff\xff\xff\xff")),
    ] {
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        // It may be cut off before all of it is sent.
        let _ = stream.write_all(&garbage);
        let mut answer = Vec::new();
        let end = stream.read_to_end(&mut answer);
        assert!(!end.is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock), "still open");
        // At most a welcome.
        assert!(answer.len() <= 6, "{answer:x?}");
    }
    // A version that will be.
    let mut stream = UnixStream::connect(&socket).unwrap();
    stream.write_all(&frame(b"\x82\x6cassize store\x18\x63")).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, frame(&[0x82, 1, 1]));
    // A place in no journal, and a statement that nobody signed, are refused like anything else.
    let mut stream = UnixStream::connect(&socket).unwrap();
    stream.write_all(HELLO).unwrap();
    stream
        .write_all(&frame(&[&[0x82, 4, 0x81, 0x4c][..], &[0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 9]].concat()))
        .unwrap();
    let forged = statement(1, 0, StatementId::from_bytes([0; 32]), attestation(1, 1));
    let mut forged = Evidence::Statement(forged).to_bytes();
    *forged.last_mut().unwrap() ^= 1;
    let item = [&[0x82, 10, 0x81, 0x58, forged.len() as u8][..], &forged].concat();
    assert!(forged.len() < 256);
    stream.write_all(&frame(&item)).unwrap();
    let mut answers = [0; 6];
    stream.read_exact(&mut answers).unwrap();
    for _ in 0..2 {
        let mut len = [0; 4];
        stream.read_exact(&mut len).unwrap();
        let mut answer = vec![0; u32::from_le_bytes(len) as usize];
        stream.read_exact(&mut answer).unwrap();
        // No more parts; kind 12, with three elements.
        assert_eq!(answer[..4], [0x82, 0xf4, 0x83, 12], "{}", answer.escape_ascii());
    }
    assert_eq!(client.attesters().unwrap(), []);
    // Half a frame, and nobody who reads: the others do not notice.
    let mut silent = UnixStream::connect(&socket).unwrap();
    silent.write_all(&behind_hello(b"\xff\0\0\0half")).unwrap();
    let mut deaf = UnixStream::connect(&socket).unwrap();
    deaf.set_nonblocking(true).unwrap();
    let _ = deaf.write_all(&behind_hello(&frame(b"\x81\x03").repeat(100_000)));
    assert_eq!(client.attesters().unwrap(), []);
    let started = Instant::now();
    drop(service);
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[test]
fn only_so_many() {
    let home = tempfile::tempdir().unwrap();
    let (_store, _service) = serve(home.path());
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| client(home.path())).collect();
    match Store::open(home.path(), |_| panic!("it waits")).map(drop) {
        Err(OpenError::Unwelcome(full)) => {
            assert_eq!(full, Unwelcome::Full { limit: CLIENTS as u32 });
            assert_eq!(full.to_string(), "it serves 64 processes already, and no more than that");
        }
        other => panic!("{other:?}"),
    }
    clients.iter().for_each(|client| assert_eq!(client.attesters().unwrap(), []));
    clients.pop();
    until(|| Store::open(home.path(), |_| panic!("it waits")).is_ok());
}

/// As another user: tries the socket, and says what it was told.
#[test]
fn child_of_another_user() {
    let Some(home) = home() else { return };
    let Ok(mut stream) = UnixStream::connect(home.join("store.sock")) else { return say("closed", 0) };
    let _ = stream.write_all(HELLO);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    say("answered", answer.last().copied().unwrap_or(255).into());
}

#[test]
fn another_user() {
    let temp = tempfile::tempdir().unwrap();
    let binary = temp.path().join("test");
    fs::copy(std::env::current_exe().unwrap(), &binary).unwrap();
    for path in [temp.path(), &binary] {
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }
    let home = temp.path().join("home");
    let (_store, _service) = serve(&home);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&home.join("store.sock")), 0o600);
    let nobody = || {
        let mut command = Command::new(&binary);
        command.uid(65534).gid(65534);
        command
    };
    if !nobody().arg("--list").stdout(Stdio::null()).status().is_ok_and(|status| status.success()) {
        return println!("not tested: `another_user` needs root");
    }
    let mut child = start(nobody(), "child_of_another_user", &home, 0);
    wait_for(&mut output(&mut child), "closed");
    child.wait().unwrap();
    // Even if the socket's mode were wrong.
    fs::set_permissions(home.join("store.sock"), Permissions::from_mode(0o666)).unwrap();
    let mut child = start(nobody(), "child_of_another_user", &home, 0);
    assert_eq!(wait_for(&mut output(&mut child), "answered"), 3);
    child.wait().unwrap();
}

#[test]
fn sweeps_are_for_one() {
    let home = tempfile::tempdir().unwrap();
    let (owner, _service) = serve(home.path());
    let (one, other) = (client(home.path()), client(home.path()));
    let admit = |store: &Store, n: u8| store.admit(&archive(&[n; 50])[..], None, 1000).unwrap().hash;
    let hashes = [admit(&owner, 0), admit(&one, 1), admit(&other, 2)];
    one.pin("kept", &BTreeSet::from([hashes[0]])).unwrap();
    let options = GcOptions { keep: BTreeSet::from([hashes[1]]), ..GcOptions::default() };
    let dry = GcOptions { dry_run: true, ..options.clone() };
    let in_use = |store: &Store, n: usize| match store.gc(&options) {
        Err(error @ LookupError::InUse { processes }) => {
            assert_eq!(processes, n);
            error.to_string()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(in_use(&owner, 2), "the store is in use by 2 other processes: sweep when they have ended");
    assert_eq!(in_use(&one, 1), "the store is in use by 1 other process: sweep when it has ended");
    let would = other.gc(&dry).unwrap();
    assert_eq!(would, owner.gc(&dry).unwrap());
    assert!(hashes.iter().all(|hash| owner.contains(hash)));
    drop(other);
    until(|| one.gc(&dry).is_ok() && !matches!(one.gc(&options), Err(LookupError::InUse { .. })));
    assert_eq!(hashes.map(|hash| owner.contains(&hash)), [true, true, false]);
    assert_eq!(would.nars.iter().map(|nar| nar.hash).collect::<Vec<_>>(), [hashes[2]]);
    in_use(&owner, 1);
    // The owner counts while it says so; its own sweeps are its own affair.
    let busy = [owner.busy(), owner.busy()];
    in_use(&one, 1);
    drop(busy);
    one.gc(&options).unwrap();
    drop(one);
    let _busy = owner.busy();
    until(|| owner.gc(&options).is_ok());
}

/// What a client has in `tmp/` outlives its server.
#[test]
fn temporary_files_of_the_living_stay() {
    let temp = tempfile::tempdir().unwrap();
    let mut server = start(this_binary(), "child_that_serves", temp.path(), 0);
    wait_for(&mut output(&mut server), "serving");
    let client = client(temp.path());
    let file = client.temp().unwrap();
    server.kill().unwrap();
    server.wait().unwrap();
    until(|| client.pins().is_err());
    let (next, service) = serve(temp.path());
    assert!(file.path().exists());
    // It is read by nobody again, but admitting needs no server.
    let hash = client.admit(&archive(b"x")[..], None, 1000).unwrap().hash;
    assert!(next.contains(&hash));
    drop((service, next));
    std::mem::forget(file.into_temp_path());
    drop(client);
    support::open(&temp);
    assert!(names(&temp.path().join("tmp")).is_empty());
}

/// Serving ends and begins again; who waits gets in either way.
#[test]
fn serving_ends() {
    let home = tempfile::tempdir().unwrap();
    let (owner, service) = serve(home.path());
    assert!(matches!(owner.serve().map(drop), Err(ServeError::Serving)));
    let lost = Arc::new(client(home.path()));
    assert!(matches!(lost.serve().map(drop), Err(ServeError::Client)));
    drop(service);
    assert!(!home.path().join("store.sock").exists());
    assert!(matches!(lost.attesters(), Err(LookupError::Served(ServedError::Gone))));
    let refused = lost.record(&Fact::Action(action(1)));
    assert!(matches!(refused, Err(RecordError::Served(ServedError::Gone))));
    let refused = lost.keep([Evidence::Revocation(Revocation::sign(&key(1), 0))]);
    assert!(matches!(refused, Err(KeepError::Record(RecordError::Served(ServedError::Gone)))));
    let refused = lost.say(&key(1), 0, [attestation(1, 1)]);
    assert!(matches!(
        refused,
        Err(SayError::Keep(KeepError::Lookup(LookupError::Served(ServedError::Gone))))
    ));
    // Nobody serves, so it is as before.
    assert!(
        matches!(Store::open(home.path(), |_| false), Err(OpenError::Busy { pid: Some(pid) }) if pid == std::process::id())
    );
    let asked = AtomicU32::new(0);
    let waiting = |_| asked.fetch_add(1, Relaxed) == 0;
    let (first, second) = std::thread::scope(|scope| {
        let first = scope.spawn(|| Store::open(home.path(), waiting).unwrap());
        until(|| asked.load(Relaxed) == 1);
        let service = owner.serve().unwrap();
        let first = first.join().unwrap();
        first.record(&Fact::Action(action(1))).unwrap();
        asked.store(0, Relaxed);
        drop(service);
        let second = scope.spawn(|| Store::open(home.path(), waiting).unwrap());
        until(|| asked.load(Relaxed) == 1);
        drop(owner);
        (first, second.join().unwrap())
    });
    assert!(first.attesters().is_err());
    assert!(second.action(&action(1).id()).unwrap().is_some());
}

/// A path that is too long for the address of a socket.
#[test]
fn deep_home() {
    let temp = tempfile::tempdir().unwrap();
    let home = temp.path().join("d".repeat(100)).join("e".repeat(100));
    let (owner, _service) = serve(&home);
    client(&home).record(&Fact::Action(action(1))).unwrap();
    assert!(owner.action(&action(1).id()).unwrap().is_some());
}

/// A client's questions, by the second; what the owner needs for them beside it.
#[test]
fn latency() {
    const QUESTIONS: u32 = 20_000;
    let home = tempfile::tempdir().unwrap();
    let (owner, _service) = serve(home.path());
    let client = client(home.path());
    let ids: Vec<ActionId> = (0..100).map(|n| action(n).id()).collect();
    for n in 0..100 {
        client.record_all(&[Fact::Action(action(n)), Fact::Built(built(&action(n), 1, 1))]).unwrap();
    }
    for (who, store) in [("owner", &*owner), ("client", &client)] {
        let started = Instant::now();
        for n in 0..QUESTIONS {
            assert!(store.realisation(&ids[n as usize % 100]).unwrap().is_some());
        }
        let each = started.elapsed() / QUESTIONS;
        println!("{who}: {each:?} for a realisation, {:.0} in a second", 1.0 / each.as_secs_f64());
    }
    let started = Instant::now();
    (0..1000).for_each(|_| drop(self::client(home.path())));
    println!("client: {:?} for opening and closing", started.elapsed() / 1000);
}
