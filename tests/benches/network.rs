//! What nodes do to each other, measured: `cargo bench --workspace --profile dev --bench network`.
//!
//! All nodes are in this one process, on the loopback interface, so CPU seconds are of both ends.

use std::{
    collections::BTreeSet,
    hint::black_box,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use node::{
    driver::Fetched,
    net::{Config, Multiaddr},
};
use protocol::{
    id::NarHash,
    key::{AttesterKey, SigningKey},
    statement::Unverified,
};
use rustix::time::{ClockId, clock_gettime};
use store::Store;
use tests::inside::{Inside, archive, attestation};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::tcp::{OwnedReadHalf, OwnedWriteHalf},
};

/// CPU seconds of this process.
fn cpu() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
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
    let store = Store::open(home.path(), |_| false).unwrap();
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
    drop(store);
    let full = Inside::over(home, &[], Config::default()).await;
    let (time, used) = (Instant::now(), cpu());
    let empty = Inside::start(&[attester], std::slice::from_ref(&full.address)).await;
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
    let mut nodes: Vec<Inside> = Vec::new();
    for n in 0..NODES {
        let peers: Vec<_> =
            [1, 3].iter().filter_map(|back| n.checked_sub(*back)).map(|n| nodes[n].address.clone()).collect();
        nodes.push(Inside::start(&attesters, &peers).await);
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
        |node: &Inside| attesters.iter().all(|attester| node.store.head(attester).unwrap().len() == EACH);
    until(|| nodes.iter().all(all)).await;
    let (time, used) = (time.elapsed().as_secs_f64(), cpu() - used);
    println!(
        "gossip: {NODES} nodes, {} statements offered over {} s, all of them with everybody after {time:.1} s; {used:.1} CPU seconds",
        NODES as u64 * EACH,
        EACH / 100
    );
}

/// Archives, from one node and from several, of which one may be slow, beside plain TCP and nginx.
async fn transfer() {
    let archive = Arc::new(archive(1 << 30));
    let size = archive.len() as u64;
    let nar = NarHash::of(&archive);
    let mut providers = Vec::new();
    for _ in 0..4 {
        let node = Inside::start(&[], &[]).await;
        node.store.admit(&archive[..], None, u64::MAX).unwrap();
        providers.push(node);
    }
    let (time, used) = (Instant::now(), cpu());
    plain(archive.clone());
    let (plain, used) = (time.elapsed().as_secs_f64(), cpu() - used);
    let rate = |time: f64| size as f64 / time / 1e6;
    println!("plain TCP into a synced file: {:.0} MB/s, {used:.2} CPU seconds", rate(plain));
    match nginx(&archive) {
        Some(time) => println!("nginx to curl, not synced: {:.0} MB/s", rate(time)),
        None => println!("nginx to curl: one of them is not installed"),
    }
    drop(archive);
    let slow = slow(&providers[0].address, 10 << 20).await;
    // Whoever gives an archive for the first time makes its tree before.
    let first = [1, 2, 4].map(|count| ("for the first time", count, None, 1));
    let cases = [(1, None), (2, None), (4, None), (2, Some(&slow)), (4, Some(&slow))];
    let again = cases.map(|(count, slow)| ("again", count, slow, 5));
    for (when, count, slow, times) in first.into_iter().chain(again) {
        let fast = providers[usize::from(slow.is_some())..count].iter().map(|node| &node.address);
        let peers: Vec<_> = slow.into_iter().chain(fast).cloned().collect();
        let mut runs = Vec::new();
        for _ in 0..times {
            let node = Inside::start(&[], &peers).await;
            node.node.settle(Duration::from_secs(10)).await.unwrap();
            let (time, used) = (Instant::now(), cpu());
            assert_eq!(node.node.fetch(nar, size, |_| {}).await.unwrap(), Fetched::Done);
            runs.push((rate(time.elapsed().as_secs_f64()), cpu() - used));
        }
        runs.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (median, used) = runs[runs.len() / 2];
        println!(
            "transfer of 1 GiB from {count}{}, {when}: {median:.0} MB/s ({:.0} to {:.0}), {used:.2} CPU seconds; \
             {:.2} of plain TCP's rate",
            if slow.is_some() { ", of which one gives 10 MiB a second" } else { "" },
            runs[0].0,
            runs[runs.len() - 1].0,
            median / rate(plain)
        );
    }
}

/// Bytes over TCP into a file, as fast as that goes.
fn plain(bytes: Arc<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let sender = std::thread::spawn(move || listener.accept().unwrap().0.write_all(&bytes).unwrap());
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
}

/// Seconds that curl takes to have `bytes` of nginx, if both are there.
fn nginx(bytes: &[u8]) -> Option<f64> {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    std::fs::write(path("archive"), bytes).unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = format!(
        "daemon off; master_process off; pid {}; error_log {}; events {{}} http {{ access_log off; sendfile on; server {{ listen 127.0.0.1:{port}; root {}; }} }}",
        path("pid"),
        path("log"),
        dir.path().display()
    );
    std::fs::write(path("config"), config).unwrap();
    let mut server = Command::new("nginx").args(["-c", &path("config"), "-e", &path("log")]).spawn().ok()?;
    let url = format!("http://127.0.0.1:{port}/archive");
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--fail", "--noproxy", "*", "--retry", "20", "--retry-connrefused"]);
    curl.args(["--output", &path("copy"), "--write-out", "%{time_total}", &url]);
    let said = curl.output().ok().filter(|said| said.status.success());
    let _ = server.kill();
    let _ = server.wait();
    String::from_utf8(said?.stdout).ok()?.parse().ok()
}

/// A node behind a line that gives so many bytes a second: the address of the line's other end.
async fn slow(address: &Multiaddr, rate: u64) -> Multiaddr {
    let text = address.to_string();
    let parts: Vec<&str> = text.split('/').collect();
    let (port, id) = (parts[4].parse::<u16>().unwrap(), parts[6]);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let here = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let far = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
            tokio::spawn(pass(near_in, far_out, rate));
            tokio::spawn(pass(far_in, near_out, rate));
        }
    });
    format!("/ip4/127.0.0.1/tcp/{here}/p2p/{id}").parse().unwrap()
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, rate: u64) {
    let mut buffer = vec![0; 32 << 10];
    let (begun, mut passed) = (Instant::now(), 0);
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        passed += n as u64;
        let due = Duration::from_millis(passed * 1000 / rate);
        tokio::time::sleep(due.saturating_sub(begun.elapsed())).await;
        if to.write_all(&buffer[..n]).await.is_err() {
            return;
        }
    }
}

/// Two hundred nodes, each of which knows three that were there before: how long something new takes
/// to reach all.
async fn spread() {
    const NODES: usize = 200;
    let key = SigningKey::from_bytes(&[7; 32]);
    let attester = AttesterKey::of(&key);
    let mut nodes: Vec<Inside> = Vec::new();
    for n in 0..NODES {
        let peers: BTreeSet<_> = (1..=3).filter(|_| n > 0).map(|k| (n * 7919 / k + k * 31) % n).collect();
        let peers: Vec<_> = peers.into_iter().map(|n| nodes[n].address.clone()).collect();
        nodes.push(Inside::start(&[attester], &peers).await);
    }
    // They connect to each other for a while, as the hash table has it.
    let idle = loop {
        let used = cpu();
        tokio::time::sleep(Duration::from_secs(10)).await;
        let share = (cpu() - used) / 10.0;
        if share < 0.5 {
            break share;
        }
    };
    let mut times = Vec::new();
    for n in 0..5_u64 {
        let (time, used) = (Instant::now(), cpu());
        nodes[(n as usize * 41) % NODES].store.say(&key, 0, [attestation(n)]).unwrap();
        for node in &nodes {
            until(|| node.store.head(&attester).unwrap().len() == n + 1).await;
        }
        times.push((time.elapsed().as_secs_f64(), cpu() - used));
    }
    times.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (time, used) = times[times.len() / 2];
    let worst = times.last().map_or(0.0, |(time, _)| *time);
    println!(
        "spread: {NODES} nodes, {idle:.2} cores when nothing happens, have one statement after {time:.2} s (median of five, {worst:.2} at most), {used:.2} CPU seconds"
    );
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
        if wanted("spread") {
            spread().await;
        }
        if wanted("transfer") {
            transfer().await;
        }
    });
}
