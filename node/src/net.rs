//! The network: libp2p, with every knob that its defaults leave open set here.
//!
//! ```text
//! driver.rs ── dial, ask, publish ──▶ Swarm ── connected, asked, heard ──▶ driver.rs
//! ```
//!
//! * `node_id.rs`: node keys in libp2p's words and in ours.
//! * `frame.rs`: one message on a stream, bounded before it is read.
//! * `peers.rs`: the nodes that the owner wants to be connected to.
//!
//! What is believed is not decided here, nor what is passed on: gossip is held back until the
//! driver says what is to become of it.

pub(crate) mod frame;
pub(crate) mod node_id;
pub mod peers;

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

pub use libp2p::Multiaddr;
use libp2p::{
    StreamProtocol, Swarm, SwarmBuilder, connection_limits,
    gossipsub::{
        self, IdentTopic, MessageAuthenticity, MessageId, PeerScoreParams, PeerScoreThresholds,
        TopicScoreParams, ValidationMode, WhitelistSubscriptionFilter,
    },
    identify, mdns, memory_connection_limits, noise, ping,
    swarm::{NetworkBehaviour, behaviour::toggle::Toggle},
    tcp, yamux,
};
use protocol::{key::SigningKey, limits, message};
use serde::Deserialize;

/// Where a node listens if it is told nothing else.
pub const LISTEN: [&str; 4] = [
    "/ip4/0.0.0.0/tcp/4720",
    "/ip6/::/tcp/4720",
    "/ip4/0.0.0.0/udp/4720/quic-v1",
    "/ip6/::/udp/4720/quic-v1",
];

/// What `identify` calls this protocol family.
const FAMILY: &str = "/assize/1";

/// The stream protocol of feeds.
pub(crate) const FEED: StreamProtocol = StreamProtocol::new(message::FEED);

/// Connections, at most: being made from outside, made from outside, made from here, of one node, all.
const PENDING_IN: u32 = 16;
const INCOMING: u32 = 128;
const OUTGOING: u32 = 64;
const OF_ONE_NODE: u32 = 2;
const ALL: u32 = 192;

/// Memory of this process, in bytes, beyond which no more connections are made.
const MEMORY: usize = 2 << 30;

/// Streams on one connection that are not yet negotiated.
const NEGOTIATING: usize = 16;

/// A connection with no stream on it is kept for this long: feeds are asked for every minute.
const IDLE: Duration = Duration::from_secs(180);

/// Configuration of the network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Config {
    /// Addresses to listen on; [`LISTEN`] if not given.
    pub listen: Option<Vec<Multiaddr>>,
    /// Whether nodes in the same local network are looked for, and told of this one; they are if
    /// not given.
    pub mdns: Option<bool>,
}

impl Config {
    /// Where to listen.
    pub fn listen(&self) -> Vec<Multiaddr> {
        let default = || LISTEN.map(|address| address.parse().expect("an address")).to_vec();
        self.listen.clone().unwrap_or_else(default)
    }
}

/// Why there is no network.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// libp2p cannot be set up.
    #[error("cannot set up the network: {0}")]
    Setup(String),
    /// An address cannot be listened on.
    #[error("cannot listen on `{address}`")]
    Listen {
        /// The address.
        address: Multiaddr,
        /// Why not.
        #[source]
        source: libp2p::TransportError<std::io::Error>,
    },
}

/// All that this node speaks.
#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    limits: connection_limits::Behaviour,
    memory: memory_connection_limits::Behaviour,
    pub(crate) gossip: gossipsub::Behaviour<gossipsub::IdentityTransform, WhitelistSubscriptionFilter>,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    mdns: Toggle<mdns::tokio::Behaviour>,
    pub(crate) stream: libp2p_stream::Behaviour,
}

/// The topic of all feeds.
pub(crate) fn topic() -> IdentTopic {
    IdentTopic::new(message::FEED)
}

/// A node that listens.
///
/// # Errors
///
/// [`NetError`].
pub(crate) fn swarm(key: &SigningKey, config: &Config) -> Result<Swarm<Behaviour>, NetError> {
    let failed = |error: &dyn std::fmt::Display| NetError::Setup(error.to_string());
    let key = node_id::keypair(key);
    let local = key.public().to_peer_id();
    let gossip = gossip().map_err(|e| failed(&e))?;
    let mdns = match config.mdns {
        Some(false) => None,
        // Without it, nodes are found by their addresses all the same.
        Some(true) | None => mdns::tokio::Behaviour::new(mdns::Config::default(), local).ok(),
    };
    let limits = connection_limits::ConnectionLimits::default()
        .with_max_pending_incoming(Some(PENDING_IN))
        .with_max_established_incoming(Some(INCOMING))
        .with_max_established_outgoing(Some(OUTGOING))
        .with_max_established_per_peer(Some(OF_ONE_NODE))
        .with_max_established(Some(ALL));
    let identify = identify::Config::new(FAMILY.into(), key.public())
        .with_agent_version(format!("assize/{}", env!("CARGO_PKG_VERSION")));
    let behaviour = Behaviour {
        limits: connection_limits::Behaviour::new(limits),
        memory: memory_connection_limits::Behaviour::with_max_bytes(MEMORY),
        gossip,
        identify: identify::Behaviour::new(identify),
        ping: ping::Behaviour::default(),
        mdns: mdns.into(),
        stream: libp2p_stream::Behaviour::new(),
    };
    let mut swarm = SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)
        .map_err(|e| failed(&e))?
        .with_quic()
        .with_dns()
        .map_err(|e| failed(&e))?
        .with_behaviour(|_| behaviour)
        .map_err(|e| failed(&e))?
        .with_swarm_config(|config| {
            config.with_idle_connection_timeout(IDLE).with_max_negotiating_inbound_streams(NEGOTIATING)
        })
        .build();
    swarm.behaviour_mut().gossip.subscribe(&topic()).map_err(|e| failed(&e))?;
    for address in config.listen() {
        let listening = swarm.listen_on(address.clone());
        listening.map_err(|source| NetError::Listen { address, source })?;
    }
    Ok(swarm)
}

/// Gossip: nothing is passed on before it is looked at, nothing is queued without bound, and no
/// topic but ours exists.
fn gossip() -> Result<
    gossipsub::Behaviour<gossipsub::IdentityTransform, WhitelistSubscriptionFilter>,
    Box<dyn std::error::Error>,
> {
    let config = gossipsub::ConfigBuilder::default()
        // What is said is signed by who said it; who passes it on is of no interest.
        .validation_mode(ValidationMode::Anonymous)
        .validate_messages()
        .message_id_fn(|message| MessageId::from(&blake3::hash(&message.data).as_bytes()[..20]))
        .max_transmit_size(limits::GOSSIP_BYTES + 1024)
        .duplicate_cache_time(Duration::from_secs(300))
        .flood_publish(false)
        .connection_handler_queue_len(256)
        .publish_queue_duration(Duration::from_secs(30))
        .forward_queue_duration(Duration::from_secs(10))
        .build()?;
    let topic = topic().hash();
    let only_ours = WhitelistSubscriptionFilter(HashSet::from([topic.clone()]));
    let mut gossip = gossipsub::Behaviour::new_with_subscription_filter(
        MessageAuthenticity::Anonymous,
        config,
        only_ours,
    )?;
    let scores = TopicScoreParams {
        // In a quiet network nobody delivers much, and that is nobody's fault.
        mesh_message_deliveries_weight: 0.0,
        mesh_failure_penalty_weight: 0.0,
        // Three messages that were rejected, and a node is not listened to.
        invalid_message_deliveries_weight: -100.0,
        invalid_message_deliveries_decay: 0.99,
        ..TopicScoreParams::default()
    };
    let params = PeerScoreParams {
        topics: [(topic, scores)].into(),
        ip_colocation_factor_threshold: 8.0,
        ip_colocation_factor_whitelist: HashSet::from([
            IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(Ipv6Addr::LOCALHOST),
        ]),
        ..PeerScoreParams::default()
    };
    let thresholds = PeerScoreThresholds {
        gossip_threshold: -100.0,
        publish_threshold: -400.0,
        graylist_threshold: -800.0,
        ..PeerScoreThresholds::default()
    };
    gossip.with_peer_score(params, thresholds)?;
    Ok(gossip)
}
