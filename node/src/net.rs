//! The network: libp2p, with every knob that its defaults leave open set here.
//!
//! ```text
//! driver.rs ── dial, ask, publish ──▶ Swarm ── connected, asked, heard ──▶ driver.rs
//! ```
//!
//! * `behaviour.rs`: the protocols that are libp2p's, and their knobs.
//! * `node_id.rs`: node keys in libp2p's words and in ours.
//! * `memory.rs`: no connections beyond some memory.
//! * `streams.rs`: streams of our own protocols.
//! * `frame.rs`: one message on a stream, bounded before it is read.
//! * `blob.rs`: pieces of archives, and what proves them.
//! * `peers.rs`: the nodes that the owner wants to be connected to.
//!
//! What is believed is not decided here, nor what is passed on: gossip is held back until the
//! driver says what is to become of it.

mod behaviour;
pub mod blob;
pub(crate) mod frame;
mod memory;
pub(crate) mod node_id;
pub mod peers;
pub(crate) mod streams;

use std::time::Duration;

pub use libp2p::{Multiaddr, PeerId};
use libp2p::{StreamProtocol, Swarm, SwarmBuilder, noise, tcp, yamux};
use protocol::{key::SigningKey, message};
use serde::Deserialize;

pub(crate) use self::behaviour::{
    Behaviour, BehaviourEvent, PROVIDED, RELAY_HOP, feeds, provider_key, wishes,
};

/// Where a node listens if it is told nothing else.
pub const LISTEN: [&str; 4] = [
    "/ip4/0.0.0.0/tcp/4720",
    "/ip6/::/tcp/4720",
    "/ip4/0.0.0.0/udp/4720/quic-v1",
    "/ip6/::/udp/4720/quic-v1",
];

/// The stream protocol of questions.
pub(crate) const QUERY: StreamProtocol = StreamProtocol::new(message::QUERY);

/// The stream protocol of pieces.
pub(crate) const BLOB: StreamProtocol = StreamProtocol::new(message::BLOB);

/// Streams on one connection that are not yet negotiated.
const NEGOTIATING: usize = 16;

/// A dial that has come to nothing by then has failed. Less than the 10 s that autonat's clients wait
/// for whoever dials back: behind a router that drops what strangers send, a node would never hear
/// that it cannot be reached.
const CONNECTING: Duration = Duration::from_secs(6);

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
    /// Addresses at which others reach this node, if its owner knows: a port that is forwarded, a
    /// name. Whether it can be reached is found out otherwise.
    pub external: Vec<Multiaddr>,
    /// Whether nodes that cannot be reached may be reached by way of this one, within narrow
    /// bounds, once it can be reached itself; they may if not given.
    pub relay: Option<bool>,
    /// Bytes of archives that others are given in a second, all of them together; as many as they
    /// take if not given.
    pub upload: Option<u64>,
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

/// A node that listens.
///
/// # Errors
///
/// [`NetError`].
pub(crate) fn swarm(key: &SigningKey, config: &Config) -> Result<Swarm<Behaviour>, NetError> {
    let failed = |error: &dyn std::fmt::Display| NetError::Setup(error.to_string());
    let mut swarm = SwarmBuilder::with_existing_identity(node_id::keypair(key))
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)
        .map_err(|e| failed(&e))?
        .with_quic()
        .with_dns()
        .map_err(|e| failed(&e))?
        .with_relay_client(noise::Config::new, yamux::Config::default)
        .map_err(|e| failed(&e))?
        .with_behaviour(|key, relay| {
            Behaviour::new(key, relay, config).map_err(|e| e as Box<dyn std::error::Error + Send + Sync>)
        })
        .map_err(|e| failed(&e))?
        .with_swarm_config(|config| {
            config.with_idle_connection_timeout(IDLE).with_max_negotiating_inbound_streams(NEGOTIATING)
        })
        .with_connection_timeout(CONNECTING)
        .build();
    for topic in [feeds(), wishes()] {
        swarm.behaviour_mut().gossip.subscribe(&topic).map_err(|e| failed(&e))?;
    }
    for address in config.listen() {
        let listening = swarm.listen_on(address.clone());
        listening.map_err(|source| NetError::Listen { address, source })?;
    }
    config.external.iter().for_each(|address| swarm.add_external_address(address.clone()));
    Ok(swarm)
}
