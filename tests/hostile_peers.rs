//! Honest nodes among hostile ones, which spam, lie about heads and archives, send garbage and other
//! bytes, and flood with streams of our protocols and of libp2p's: what is true reaches everybody, what is false nobody, and it costs
//! no more memory than is said.

use std::{collections::BTreeSet, time::Duration};

use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};
use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol, Swarm, SwarmBuilder,
    gossipsub::{self, IdentTopic, MessageAuthenticity, ValidationMode},
    noise,
    swarm::NetworkBehaviour,
    tcp, yamux,
};
use node::{driver::Fetched, key::Keys};
use protocol::{
    id::{ActionId, NarHash, StatementId},
    key::{AttesterKey, SigningKey},
    limits,
    message::{self, Answer, FeedHead, ProofsDigest, RangeAnswer, RangeRequest, Request},
    wish::Wish,
};
use tests::inside::{Inside, archive, attestation};
use tokio::time::{sleep, timeout};
use trust::limits::{STRANGERS_WISHES, WISH_PAUSE};

const HONEST: usize = 7;
const HOSTILE: usize = 3;
const STATEMENTS: u64 = 300;

/// About when this was written.
const NOW: u64 = 1_800_000_000;

const PATIENCE: Duration = Duration::from_secs(120);

/// Bytes of memory that all of them may take together, in this one process: ten nodes, of which
/// each may hold the pieces that it fetches and sends.
const MEMORY: u64 = 512 << 20;

#[derive(NetworkBehaviour)]
struct Evil {
    gossip: gossipsub::Behaviour,
    stream: libp2p_stream::Behaviour,
}

/// Protocols of libp2p that a node speaks, too.
const PING: StreamProtocol = StreamProtocol::new("/ipfs/ping/1.0.0");
const IDENTIFY: StreamProtocol = StreamProtocol::new("/ipfs/id/1.0.0");
const IDENTIFY_PUSH: StreamProtocol = StreamProtocol::new("/ipfs/id/push/1.0.0");
const KADEMLIA: StreamProtocol = StreamProtocol::new("/assize/kad/1");

const QUERY: StreamProtocol = StreamProtocol::new(message::QUERY);
const BLOB: StreamProtocol = StreamProtocol::new(message::BLOB);

fn evil_swarm() -> Swarm<Evil> {
    let config = gossipsub::ConfigBuilder::default()
        .validation_mode(ValidationMode::Anonymous)
        .max_transmit_size(limits::GOSSIP_BYTES + 1024)
        .build()
        .unwrap();
    let gossip = gossipsub::Behaviour::new(MessageAuthenticity::Anonymous, config).unwrap();
    let mut swarm = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|_| Evil { gossip, stream: libp2p_stream::Behaviour::new() })
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(PATIENCE))
        .build();
    for topic in [message::FEED, message::WISH] {
        swarm.behaviour_mut().gossip.subscribe(&IdentTopic::new(topic)).unwrap();
    }
    swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
    swarm
}

async fn receive(stream: &mut Stream) -> std::io::Result<Vec<u8>> {
    let mut len = [0; 4];
    stream.read_exact(&mut len).await?;
    let mut bytes = vec![0; u32::from_be_bytes(len).min(1 << 20) as usize];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

async fn send(stream: &mut Stream, bytes: &[u8]) -> std::io::Result<()> {
    stream.write_all(&(bytes.len() as u32).to_be_bytes()).await?;
    stream.write_all(bytes).await?;
    stream.flush().await
}

/// Says to have everything of everybody, and gives something else, or nothing.
async fn lie(mut stream: Stream, about: AttesterKey, n: u64) -> std::io::Result<()> {
    let request = receive(&mut stream).await?;
    let answer = match Request::from_bytes(&request) {
        Ok(Request::Heads { .. }) => {
            let last = StatementId::from_bytes([7; 32]);
            let head = FeedHead { attester: about, len: u64::MAX - n, last, proofs: ProofsDigest::default() };
            Answer::Heads { heads: vec![head], more: true }.to_bytes()
        }
        Ok(Request::Have { nars }) => Answer::Have(nars).to_bytes(),
        Ok(_) if n.is_multiple_of(2) => vec![0xff; 1000],
        Ok(_) => Answer::Items(Vec::new()).to_bytes(),
        Err(_) => Vec::new(),
    };
    send(&mut stream, &answer).await
}

/// Sends as many bytes as were asked for, and others.
async fn sell(mut stream: Stream) -> std::io::Result<()> {
    let request = RangeRequest::from_bytes(&receive(&mut stream).await?).map_err(std::io::Error::other)?;
    let bytes = vec![0x5a; (request.bytes().end - request.bytes().start) as usize];
    let answer = RangeAnswer::Piece { zstd: false, len: bytes.len() as u64 };
    send(&mut stream, &answer.to_bytes()).await?;
    stream.write_all(&bytes).await?;
    stream.flush().await
}

/// Opens streams without end: some say nothing, some say too much, some ask for what they never take.
async fn flood(mut streams: libp2p_stream::Control, to: PeerId, nar: NarHash, size: u64) {
    let mut held = Vec::new();
    for n in 0_u64.. {
        let protocol = if n.is_multiple_of(2) { QUERY } else { BLOB };
        let Ok(Ok(mut stream)) = timeout(Duration::from_secs(5), streams.open_stream(to, protocol)).await
        else {
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        let said = match n % 5 {
            0 => stream.write_all(&[0xff; 64]).await,
            1 => {
                let request = RangeRequest { nar, size, piece: n % message::pieces(size), zstd: false };
                send(&mut stream, &request.to_bytes()).await
            }
            2 => send(&mut stream, &[0x80; 100]).await,
            3 => stream.write_all(&[0, 0, 0, 64, 1, 2, 3]).await,
            _ => Ok(()),
        };
        if said.is_ok() && held.len() < 500 {
            held.push(stream);
        }
        tokio::task::yield_now().await;
    }
}

/// A field of a protocol buffer that has bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    [&varint(u64::from(number) << 3 | 2), &varint(bytes.len() as u64), bytes].concat()
}

fn varint(mut n: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while n >= 0x80 {
        bytes.push(n as u8 | 0x80);
        n >>= 7;
    }
    bytes.push(n as u8);
    bytes
}

/// With its length before it.
fn delimited(message: &[u8]) -> Vec<u8> {
    [&varint(message.len() as u64), message].concat()
}

/// What a hash table is told, well-formed: that we have an archive nobody knows of; a value, which
/// nobody is to keep; a search whose answer is not read; and all of it over and over.
fn told_to_the_table(n: u64, ours: PeerId) -> Vec<u8> {
    let key = field(2, &[&n.to_le_bytes()[..], &[0; 24]].concat());
    let of_type = |kind: u8| vec![1 << 3, kind];
    let address: Multiaddr = format!("/ip4/127.0.0.1/tcp/{}", 1 + n % 60_000).parse().unwrap();
    let us = [field(1, &ours.to_bytes()), field(2, &address.to_vec())].concat();
    let message = match n % 3 {
        0 => [of_type(2), key, field(9, &us)].concat(),
        1 => {
            let record = [field(1, &n.to_le_bytes()), field(2, &[0x77; 8000])].concat();
            [of_type(0), key, field(3, &record)].concat()
        }
        _ => [of_type(4), key].concat(),
    };
    delimited(&message)
}

/// Floods with what libp2p itself speaks: pings without a pause, addresses over and over, more
/// questions than are answered.
async fn babble(mut streams: libp2p_stream::Control, to: PeerId, ours: PeerId) {
    let mut held = Vec::new();
    for n in 0_u64.. {
        let protocol = [PING, IDENTIFY, IDENTIFY_PUSH, KADEMLIA][(n % 4) as usize].clone();
        let Ok(Ok(mut stream)) =
            timeout(Duration::from_secs(5), streams.open_stream(to, protocol.clone())).await
        else {
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        let talk = async {
            for m in 0..50 {
                let said = match () {
                    () if protocol == PING => vec![m; 32],
                    () if protocol == IDENTIFY => return Ok(()),
                    () if protocol == IDENTIFY_PUSH => {
                        let address = |k: u64| {
                            let address = format!("/ip4/10.0.{}.{}/tcp/1", n % 250, k % 250);
                            field(2, &address.parse::<Multiaddr>().unwrap().to_vec())
                        };
                        delimited(&(0..200).flat_map(address).collect::<Vec<_>>())
                    }
                    () => told_to_the_table(n * 50 + u64::from(m), ours),
                };
                stream.write_all(&said).await?;
                stream.flush().await?;
            }
            Ok::<_, std::io::Error>(())
        };
        let said = timeout(Duration::from_secs(2), talk).await;
        if !matches!(said, Ok(Err(_))) && held.len() < 500 {
            held.push(stream);
        }
        tokio::task::yield_now().await;
    }
}

async fn evil(honest: Vec<Multiaddr>, about: AttesterKey, nar: NarHash, size: u64) {
    let mut swarm = evil_swarm();
    let mut control = swarm.behaviour().stream.new_control();
    let (mut queries, mut blobs) = (control.accept(QUERY).unwrap(), control.accept(BLOB).unwrap());
    for address in honest {
        let peer = address.iter().last();
        if let Some(libp2p::multiaddr::Protocol::P2p(peer)) = peer {
            tokio::spawn(flood(control.clone(), peer, nar, size));
            tokio::spawn(babble(control.clone(), peer, *swarm.local_peer_id()));
        }
        swarm.dial(address).unwrap();
    }
    let mut spam = tokio::time::interval(Duration::from_millis(5));
    let mut n = 0_u64;
    loop {
        tokio::select! {
            _ = swarm.select_next_some() => {}
            Some((_, stream)) = queries.next() => { tokio::spawn(lie(stream, about, n)); }
            Some((_, stream)) = blobs.next() => { tokio::spawn(sell(stream)); }
            _ = spam.tick() => {
                let data = [&n.to_le_bytes()[..], &[0x99; 30_000]].concat();
                let gossip = &mut swarm.behaviour_mut().gossip;
                let _ = gossip.publish(IdentTopic::new(message::FEED), data);
                // Good wishes of somebody new each time.
                let mut secret = [9; 32];
                secret[..8].copy_from_slice(&n.to_le_bytes());
                let wish = Wish::sign(&SigningKey::from_bytes(&secret), n, [ActionId::from_bytes(secret)]);
                let _ = gossip.publish(IdentTopic::new(message::WISH), wish.to_bytes());
            }
        }
        n += 1;
    }
}

/// The most memory that this process has had, in bytes, if the system says.
fn memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let waits = async {
        while !condition() {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, waits).await.unwrap_or_else(|_| panic!("not in time: {what}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn three_of_ten_are_hostile() {
    let key = SigningKey::from_bytes(&[7; 32]);
    let alice = AttesterKey::of(&key);
    let mut honest: Vec<Inside> = Vec::new();
    for n in 0..HONEST {
        // Each knows the one before: in a line, so that everything has a long way.
        let peers: Vec<_> = n.checked_sub(1).map(|n| honest[n].address.clone()).into_iter().collect();
        honest.push(Inside::start(&[alice], &peers).await);
    }
    // The one has something, the other end of the line wants it.
    let (first, last) = (&honest[0], &honest[HONEST - 1]);
    let archive = archive(12 << 20);
    let nar = first.store.admit(&archive[..], None, u64::MAX).unwrap().hash;
    let size = archive.len() as u64;
    honest[1].store.admit(&archive[..], None, u64::MAX).unwrap();
    let addresses: Vec<_> = honest.iter().map(|node| node.address.clone()).collect();
    let hostile: Vec<_> =
        (0..HOSTILE).map(|_| tokio::spawn(evil(addresses.clone(), alice, nar, size))).collect();
    // They are at it before anything is said.
    sleep(Duration::from_secs(1)).await;
    for n in 0..STATEMENTS {
        // A clock that is a day off, or many years, is nobody's business: places order a feed.
        let day = 86_400 * (n % 3);
        first.store.say(&key, NOW - 86_400 + day, [attestation(n)]).unwrap();
        if n.is_multiple_of(50) {
            sleep(Duration::from_millis(100)).await;
        }
    }
    for (n, node) in honest.iter().enumerate() {
        let all = || node.store.head(&alice).unwrap().len() == STATEMENTS;
        until(&format!("node {n} has all statements"), all).await;
        // And nothing but these.
        assert_eq!(node.store.attesters().unwrap(), [alice]);
        assert_eq!(node.store.bearing(&alice).unwrap(), []);
    }
    // The last is connected to none of those who have it, and asks one who is.
    let near = &honest[2];
    let fetched = timeout(PATIENCE, near.node.fetch(nar, size, |_| {})).await.unwrap().unwrap();
    assert_eq!(fetched, Fetched::Done);
    assert!(near.store.open_nar(&nar).unwrap().bytes() == archive);
    until("who sends other bytes is banished", || !near.banished.lock().unwrap().is_empty()).await;
    let peer = |node: &Inside| Keys::new(node.store.home()).node().unwrap().verifying_key().to_bytes();
    let names: BTreeSet<_> = honest
        .iter()
        .filter_map(|node| node::net::peers::id_of(&peer(node)))
        .map(|id| id.to_string())
        .collect();
    for node in &honest {
        let banished = node.banished.lock().unwrap();
        assert!(banished.is_disjoint(&names), "an honest node was banished: {banished:?}");
    }
    // What she wishes is heard at the other end, among the wishes of strangers, which are few.
    let wished = async {
        for number in 1.. {
            first.node.wish(Wish::sign(&key, number, [ActionId::from_bytes([1; 32])])).await.unwrap();
            sleep(Duration::from_millis(WISH_PAUSE + 500)).await;
            let wishes = last.node.wishes().await.unwrap();
            assert!(wishes.len() <= STRANGERS_WISHES + 1, "{}", wishes.len());
            if wishes.contains_key(&alice) {
                return;
            }
        }
    };
    timeout(PATIENCE, wished).await.expect("a wish is heard");
    if let Some(memory) = memory() {
        assert!(memory < MEMORY, "{} MiB", memory >> 20);
        eprintln!("{} MiB at most", memory >> 20);
    }
    hostile.iter().for_each(tokio::task::JoinHandle::abort);
    for node in [first, last] {
        node.stop().await;
    }
}
