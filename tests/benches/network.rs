//! What nodes do to each other, measured: `cargo bench --workspace --profile dev --bench network`.
//!
//! All nodes are in this one process, on the loopback interface, so CPU seconds are of both ends.

use std::{
    hint::black_box,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use node::{
    control::Node,
    driver::{Command, Driver, Fetched, Note},
    net::{Config, Multiaddr},
};
use protocol::{
    id::{ActionId, NarHash},
    key::{AttesterKey, SigningKey},
    name::Name,
    nar,
    output::{Output, Outputs},
    statement::{Attestation, Body, Platform, Unverified},
};
use rustix::time::{ClockId, clock_gettime};
use store::Store;
use tokio::sync::mpsc;

struct Running {
    store: Arc<Store>,
    node: Node,
    address: Multiaddr,
    _commands: mpsc::Sender<Command>,
    _home: tempfile::TempDir,
}

async fn start(attesters: &[AttesterKey], peers: &[Multiaddr]) -> Running {
    let home = tempfile::tempdir().unwrap();
    let entry = |(n, key): (usize, &AttesterKey)| format!(r#""a{n}": {{ "key": "{key}" }}"#);
    let entries: Vec<_> = attesters.iter().enumerate().map(entry).collect();
    let roster = format!(r#"{{ "version": 1, "attesters": {{ {} }} }}"#, entries.join(", "));
    std::fs::write(home.path().join("trust.json"), roster).unwrap();
    let store = Arc::new(Store::open(home.path(), |_| false).unwrap());
    running(store, peers, home).await
}

async fn running(store: Arc<Store>, peers: &[Multiaddr], home: tempfile::TempDir) -> Running {
    let listen = Some(vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()]);
    let config = Config { listen, mdns: Some(false), ..Config::default() };
    let (listening, addresses) = std::sync::mpsc::channel();
    let listening = Mutex::new(listening);
    let note = move |note| {
        if let Note::Listening { address } = note {
            let _ = listening.lock().unwrap().send(address);
        }
    };
    let driver = Driver::new(store.clone(), &config, peers, None, note).unwrap();
    let (commands, heard) = mpsc::channel(16);
    tokio::spawn(driver.run(heard));
    let address = tokio::task::spawn_blocking(move || addresses.recv().unwrap()).await.unwrap();
    Running { store, node: Node::Here(commands.clone()), address, _commands: commands, _home: home }
}

/// CPU seconds of this process.
fn cpu() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn attestation(n: u64) -> Body {
    let name = |text: &str| Name::new(text).unwrap();
    let output = Output { nar: NarHash::of(&n.to_le_bytes()), size: 96 };
    Body::Built(Attestation {
        action: ActionId::from_bytes(*blake3::hash(&n.to_le_bytes()).as_bytes()),
        outputs: Outputs::from([(Name::out(), output)]),
        witness: None,
        platform: Platform { engine: name("none"), arch: name("none"), os: name("none") },
    })
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A node that was away comes back and has 100,000 statements to hear.
async fn catch_up() {
    const STATEMENTS: u64 = 100_000;
    let key = SigningKey::from_bytes(&[7; 32]);
    let attester = AttesterKey::of(&key);
    let home = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(home.path(), |_| false).unwrap());
    for from in (0..STATEMENTS).step_by(10_000) {
        store.say(&key, 0, (from..from + 10_000).map(attestation)).unwrap();
    }
    let bytes: Vec<_> =
        store.statements(&attester, 0).take(20_000).map(|s| s.unwrap().bytes().to_vec()).collect();
    let begun = cpu();
    for bytes in &bytes {
        black_box(Unverified::from_bytes(bytes).unwrap().verify().unwrap());
    }
    let bare = bytes.len() as f64 / (cpu() - begun);
    let full = running(store, &[], home).await;
    let (time, used) = (Instant::now(), cpu());
    let empty = start(&[attester], std::slice::from_ref(&full.address)).await;
    until(|| empty.store.head(&attester).unwrap().len() == STATEMENTS).await;
    let (time, used) = (time.elapsed().as_secs_f64(), cpu() - used);
    let rate = STATEMENTS as f64;
    println!(
        "catch-up: {STATEMENTS} statements in {time:.1} s, {:.0}/s; {:.0} per CPU second of both ends; read and verified alone {bare:.0}/s: {:.2} of it by the clock",
        rate / time,
        rate / used,
        rate / time / bare
    );
}

/// Ten nodes in a ring with chords; each says something a hundred times a second.
async fn gossip() {
    const NODES: usize = 10;
    const EACH: u64 = 1000;
    let keys: Vec<_> = (1..=NODES as u8).map(|n| SigningKey::from_bytes(&[n; 32])).collect();
    let attesters: Vec<_> = keys.iter().map(AttesterKey::of).collect();
    let mut nodes: Vec<Running> = Vec::new();
    for n in 0..NODES {
        let peers: Vec<_> =
            [1, 3].iter().filter_map(|back| n.checked_sub(*back)).map(|n| nodes[n].address.clone()).collect();
        nodes.push(start(&attesters, &peers).await);
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (time, used) = (Instant::now(), cpu());
    for (n, (key, node)) in keys.iter().zip(&nodes).enumerate() {
        let (key, store) = (key.clone(), node.store.clone());
        std::thread::spawn(move || {
            for m in 0..EACH / 10 {
                let next = time + Duration::from_millis(100 * m);
                std::thread::sleep(next.saturating_duration_since(Instant::now()));
                let bodies = (0..10).map(|k| attestation(((n as u64) << 32) + m * 10 + k));
                store.say(&key, 0, bodies).unwrap();
            }
        });
    }
    let all =
        |node: &Running| attesters.iter().all(|attester| node.store.head(attester).unwrap().len() == EACH);
    until(|| nodes.iter().all(all)).await;
    let (time, used) = (time.elapsed().as_secs_f64(), cpu() - used);
    println!(
        "gossip: {NODES} nodes, {} statements offered over {} s, all of them with everybody after {time:.1} s; {used:.1} CPU seconds",
        NODES as u64 * EACH,
        EACH / 100
    );
}

/// Archives, from one node and from several, beside plain TCP.
async fn transfer() {
    const SIZE: usize = 1 << 30;
    let mut content = vec![0; SIZE];
    blake3::Hasher::new().finalize_xof().fill(&mut content);
    let archive = Arc::new(nar::dump_file(Vec::new(), false, SIZE as u64, &content[..]).unwrap());
    drop(content);
    let size = archive.len() as u64;
    let mut providers = Vec::new();
    for _ in 0..4 {
        let node = start(&[], &[]).await;
        node.store.admit(&archive[..], None, u64::MAX).unwrap();
        providers.push(node);
    }
    let nar = NarHash::of(&archive);
    let plain = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let sent = archive.clone();
        let (time, used) = (Instant::now(), cpu());
        let sender = std::thread::spawn(move || listener.accept().unwrap().0.write_all(&sent).unwrap());
        let mut stream = TcpStream::connect(address).unwrap();
        let mut file = tempfile::tempfile().unwrap();
        let mut buffer = vec![0; 1 << 20];
        loop {
            let n = stream.read(&mut buffer).unwrap();
            if n == 0 {
                break;
            }
            file.write_all(&buffer[..n]).unwrap();
        }
        file.sync_all().unwrap();
        sender.join().unwrap();
        (time.elapsed().as_secs_f64(), cpu() - used)
    };
    let rate = |time: f64| size as f64 / time / 1e6;
    println!("plain TCP into a synced file: {:.0} MB/s, {:.2} CPU seconds", rate(plain.0), plain.1);
    for count in [1, 2, 4] {
        let peers: Vec<_> = providers[..count].iter().map(|node| node.address.clone()).collect();
        let node = start(&[], &peers).await;
        node.node.settle(Duration::from_secs(10)).await.unwrap();
        let (time, used) = (Instant::now(), cpu());
        assert_eq!(node.node.fetch(nar, size, |_| {}).await.unwrap(), Fetched::Done);
        let (time, used) = (time.elapsed().as_secs_f64(), cpu() - used);
        println!(
            "transfer of 1 GiB from {count}: {:.0} MB/s, {used:.2} CPU seconds; {:.2} of plain TCP's rate",
            rate(time),
            plain.0 / time
        );
    }
}

fn main() {
    let only: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let wanted = |name: &str| only.is_empty() || only.iter().any(|only| only == name);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        if wanted("catch-up") {
            catch_up().await;
        }
        if wanted("gossip") {
            gossip().await;
        }
        if wanted("transfer") {
            transfer().await;
        }
    });
}
