//! What trust costs: statements verified and kept, verdicts, resolution, a store of many statements.
//!
//! ```text
//! cargo bench --workspace --profile dev --bench trust [-- NAME...]
//! ```
//!
//! Times are of the processor, over all threads of this process; docs/performance.md says more.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    hint::black_box,
    os::unix::fs::MetadataExt as _,
    path::Path,
    time::{Duration, Instant},
};

use ed25519_dalek::VerifyingKey;
use protocol::{
    derivation::{Build, Derivation, Input, Limits, Recipe, Step},
    evidence::Evidence,
    feed::Head,
    id::{ActionId, DerivationId, NarHash},
    key::{AttesterKey, Context, SigningKey, Verifier},
    name::{GuestPath, Name},
    output::{Output, Outputs},
    statement::{Attestation, Body, Platform, Signed, Statement, Unverified},
    witness::Witness,
};
use rustix::time::{ClockId, clock_gettime};
use store::{Kept, Store};
use trust::{
    ledger::{Execution, Record, Voters},
    policy::Policy,
    resolve::{Known, resolve},
    roster::{Attester, Roster},
    standing::Standings,
    verdict::{decide, judge},
};

/// Statements that are kept with one sync, as they come from a peer.
const BATCH: usize = 1024;

/// A measurement of that name.
type Bench = fn();

const BENCHES: &[(&str, Bench)] =
    &[("keep", keep), ("verdict", verdict), ("resolve", resolution), ("million", million)];

fn main() {
    if let Some(home) = std::env::var_os("ASSIZE_BENCH_WRITE") {
        return write_million(Path::new(&home));
    }
    // Cargo adds `--bench`.
    let wanted: Vec<_> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    for (name, bench) in BENCHES {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            bench();
        }
    }
}

/// How fast statements of one attester are verified and kept, beside their bare signatures.
fn keep() {
    let wire: Vec<Vec<u8>> = feed(1).take(32 * BATCH).map(|signed| signed.bytes().to_vec()).collect();
    let key = VerifyingKey::from_bytes(attester(1).as_bytes()).unwrap();
    for _ in 0..3 {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let verifier = Verifier::new(attester(1)).unwrap();
        let verify = |bytes: &Vec<u8>| Unverified::from_bytes(bytes).unwrap().verify_by(&verifier).unwrap();
        let [mut bare, mut verified, mut kept, mut wall] = [Duration::ZERO; 4];
        // In turn, so that whatever else the machine does slows down all three.
        for batch in wire.chunks(BATCH) {
            bare += cpu(|| {
                for bytes in batch {
                    let (signature, statement) = bytes.split_first_chunk::<64>().unwrap();
                    let message = [Context::Statement.line(), statement].concat();
                    key.verify_strict(&message, &ed25519_dalek::Signature::from_bytes(signature)).unwrap();
                }
            })
            .0;
            verified += cpu(|| batch.iter().for_each(|bytes| drop(black_box(verify(bytes))))).0;
            let (time, clock) = cpu(|| {
                let kept = store.keep(batch.iter().map(verify).map(Evidence::Statement)).unwrap();
                assert!(kept.iter().all(|kept| *kept == Kept::New));
            });
            (kept, wall) = (kept + time, wall + clock);
        }
        // With what the index was not given yet.
        let (time, clock) = cpu(|| drop(store));
        (kept, wall) = (kept + time, wall + clock);
        let rate = |time: Duration| wire.len() as f64 / time.as_secs_f64();
        println!(
            "keep: {:.0} bare verify_strict, {:.0} read and verified ({:.2}), {:.0} verified and kept ({:.2}) \
             per CPU second; {:.0} per second of time",
            rate(bare),
            rate(verified),
            bare.as_secs_f64() / verified.as_secs_f64(),
            rate(kept),
            bare.as_secs_f64() / kept.as_secs_f64(),
            rate(wall),
        );
    }
}

/// A verdict from the claims of a thousand people.
fn verdict() {
    let people: Vec<_> = (0..1000).collect();
    let (roster, voters) = friends(&people);
    let policy = Policy::by_default(&roster, NOW);
    let records: Vec<_> =
        people.iter().map(|n| record(*n, ActionId::from_bytes([7; 32]), *n < 600)).collect();
    let action = ActionId::from_bytes([7; 32]);
    let claims = voters.claims(&action, None, &records, None);
    let view = policy.for_package(&name("lua"));
    assert!(judge(&claims, &view).accepted().is_some());
    let micros = |runs: u32, work: &dyn Fn()| {
        let (time, _) = cpu(|| (0..runs).for_each(|_| work()));
        time.as_secs_f64() * 1e6 / f64::from(runs)
    };
    let decided = micros(20_000, &|| drop(black_box(decide(black_box(&claims), &view))));
    let judged = micros(1000, &|| drop(black_box(judge(black_box(&claims), &view))));
    let gathered = micros(1000, &|| drop(black_box(voters.claims(&action, None, &records, None))));
    println!(
        "verdict: {decided:.1} µs from {} claims, {judged:.0} µs with the reasons; the claims from the records {gathered:.0} µs",
        claims.votes().len()
    );
}

/// Ten thousand derivations, of which five people say the same.
fn resolution() {
    struct Said(BTreeMap<ActionId, Vec<Record>>);
    impl Known for Said {
        type Error = Infallible;
        fn records(&mut self, action: &ActionId) -> Result<Vec<Record>, Infallible> {
            let say = || (0..5).map(|who| record(who, *action, true)).collect();
            Ok(self.0.entry(*action).or_insert_with(say).clone())
        }
        fn execution(&mut self, _: &ActionId) -> Result<Option<Execution>, Infallible> {
            Ok(None)
        }
        fn has(&mut self, _: &NarHash) -> Result<bool, Infallible> {
            Ok(false)
        }
    }
    let (roster, voters) = friends(&[0, 1, 2, 3, 4]);
    let policy = Policy::by_default(&roster, NOW);
    let (derivations, root) = graph(10_000);
    let roots = BTreeSet::from([root]);
    let mut said = Said(BTreeMap::new());
    let mut run =
        || cpu(|| assert!(resolve(&derivations, &roots, &mut said, &voters, &policy).unwrap().complete())).0;
    // The first run is where people say something.
    run();
    let times = [run(), run(), run()].map(|time| format!("{:.3}", time.as_secs_f64())).join(", ");
    println!("resolve: {times} s for {} derivations", derivations.len());
}

/// A store with a million statements of ten attesters, written by a process of its own, so that
/// the memory is that of who opens it.
fn million() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = std::process::Command::new(std::env::current_exe().unwrap());
    assert!(writer.env("ASSIZE_BENCH_WRITE", dir.path()).status().unwrap().success());
    println!("million: {} MiB on disk", bytes(dir.path()) >> 20);
    let begun = Instant::now();
    let store = open(dir.path());
    println!("million: opened in {:.2} s, {} MiB resident", begun.elapsed().as_secs_f64(), resident());
    let begun = Instant::now();
    let divided = store.divided().unwrap();
    let claims: usize = divided.iter().map(|action| store.claims(action).unwrap().len()).sum();
    assert_eq!((divided.len(), claims), (1000, 10_000));
    println!(
        "million: {:.3} s to find the actions of which not all say the same, and what they say",
        begun.elapsed().as_secs_f64()
    );
    let begun = Instant::now();
    for n in 0..10_000_u64 {
        let found = store.claims(&action((n * 7919) % 100_000)).unwrap();
        assert_eq!(found.len(), 10);
    }
    println!("million: {:.0} µs to find the ten claims of an action", begun.elapsed().as_secs_f64() * 1e2);
    println!("million: {} MiB resident after it", resident());
    drop(store);
    std::fs::remove_dir_all(dir.path().join("index")).unwrap();
    let begun = Instant::now();
    let store = open(dir.path());
    println!("million: opened without its index in {:.1} s", begun.elapsed().as_secs_f64());
    drop(store);
}

fn write_million(home: &Path) {
    let store = open(home);
    let mut feeds: Vec<_> = (0..10).map(feed).collect();
    let (cpu_time, wall) = cpu(|| {
        for round in 0..1_000_000 / 10 / BATCH + 1 {
            for feed in &mut feeds {
                let left = 100_000 - (round * BATCH).min(100_000);
                let batch: Vec<_> = feed.take(BATCH.min(left)).map(Evidence::Statement).collect();
                store.keep(batch).unwrap();
            }
        }
    });
    println!(
        "million: signed and kept in {:.1} s of the processor, {:.1} s of time",
        cpu_time.as_secs_f64(),
        wall.as_secs_f64()
    );
    let (_, close) = cpu(|| drop(store));
    println!("million: closed in {:.2} s", close.as_secs_f64());
}

/// The processor's time for `work`, over all threads, and the clock's.
fn cpu(work: impl FnOnce()) -> (Duration, Duration) {
    let used = || {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    };
    let (before, begun) = (used(), Instant::now());
    work();
    (used() - before, begun.elapsed())
}

fn open(home: &Path) -> Store {
    Store::open(home, |_| false).unwrap()
}

/// MiB of this process in memory.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    (statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4) >> 10
}

/// Bytes on disk below a directory.
fn bytes(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let size = |entry: std::fs::DirEntry| match entry.metadata().unwrap() {
        dir if dir.is_dir() => bytes(&entry.path()),
        file => file.blocks() * 512,
    };
    entries.map(size).sum()
}

const NOW: u64 = 1_800_000_000;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn signing_key(n: u64) -> SigningKey {
    let mut seed = [1; 32];
    seed[..8].copy_from_slice(&n.to_le_bytes());
    SigningKey::from_bytes(&seed)
}

fn attester(n: u64) -> AttesterKey {
    AttesterKey::of(&signing_key(n))
}

fn action(n: u64) -> ActionId {
    ActionId::from_bytes(*blake3::hash(&n.to_le_bytes()).as_bytes())
}

fn platform() -> Platform {
    Platform { engine: name("wasmtime-48.0.8"), arch: name("x86_64"), os: name("linux") }
}

fn outputs(action: &ActionId, honest: bool) -> Outputs {
    let nar = NarHash::of(&[&action.as_bytes()[..], &[u8::from(honest)]].concat());
    Outputs::from([(Name::out(), Output { nar, size: 4096 })])
}

fn attestation(action: ActionId, honest: bool) -> Attestation {
    let witness = Some(Witness::from_bytes([9; 32]));
    Attestation { action, outputs: outputs(&action, honest), witness, platform: platform() }
}

/// What attester `n` says, without an end: that it built actions 0, 1, 2 and so on. Attester 0 is wrong
/// about every hundredth.
fn feed(n: u64) -> impl Iterator<Item = Signed> {
    let key = signing_key(n);
    let mut head = Head::empty(attester(n));
    std::iter::from_fn(move || {
        let (attester, seq, prev) = (head.attester(), head.len(), head.last());
        let honest = n > 0 || seq % 100 > 0;
        let body = Body::Built(attestation(action(seq), honest));
        let signed = Statement { attester, seq, prev, time: NOW, body }.sign(&key).unwrap();
        head = head.follow(&signed).unwrap();
        Some(signed)
    })
}

fn record(who: u64, action: ActionId, honest: bool) -> Record {
    let Attestation { action, outputs, witness, platform } = attestation(action, honest);
    let said = trust::ledger::Said::Built { outputs, witness, platform };
    Record { action, attester: attester(who), seq: 0, said }
}

fn friends(people: &[u64]) -> (Roster, Voters) {
    let mut roster = Roster::default();
    for n in people {
        roster.add(name(&format!("p{n}")), Attester::new(attester(*n))).unwrap();
    }
    let voters = Voters::new(&roster, None, &Standings::default(), NOW);
    (roster, voters)
}

/// `count` builds, each of which needs the two before it.
fn graph(count: usize) -> (BTreeMap<DerivationId, Derivation>, DerivationId) {
    let mut derivations = BTreeMap::new();
    let mut before: Vec<DerivationId> = Vec::new();
    for n in 0..count {
        let inputs = before.iter().rev().take(2).enumerate();
        let input = |(at, derivation): (usize, &DerivationId)| {
            (name(&format!("i{at}")), Input::Output { derivation: *derivation, output: Name::out() })
        };
        let tool = (name("tool"), Input::Nar(NarHash::from_bytes([1; 32])));
        let step = Step {
            run: GuestPath::new("/in/tool/x.wasm").unwrap(),
            args: vec![n.to_string()],
            stdin: None,
            stdout: None,
            cwd: None,
        };
        let recipe = Recipe {
            steps: vec![step],
            env: BTreeMap::new(),
            stdin: "{}".into(),
            outputs: BTreeSet::from([Name::out()]),
            executable: BTreeSet::new(),
        };
        let inputs = inputs.map(input).chain([tool]).collect();
        let build = Build { name: name("node"), recipe, inputs, limits: Limits::default() };
        let derivation = Derivation::build(build).unwrap();
        before.push(derivation.id());
        derivations.insert(derivation.id(), derivation);
    }
    (derivations, *before.last().unwrap())
}
