//! The protocols that are libp2p's, and their knobs.
//!
//! | protocol | what for | what bounds it |
//! |---|---|---|
//! | connection limits | whoever connects | [`INCOMING`] and its neighbours, [`MEMORY`] |
//! | gossipsub | what is new | nothing is passed on before it is looked at; scores |
//! | identify, ping | who is there | libp2p's own limits |
//! | kademlia | where an archive may be | provider records only, [`PROVIDED`] keys, a day |
//! | mDNS | who is in the neighbourhood | dialled once |
//! | autonat 2 | whether this node can be reached | eight addresses |
//! | relay, dcutr | nodes that cannot be reached | 128 KiB and two minutes for a circuit |
//! | our own | questions, pieces of archives | `driver.rs` |

use std::{
    collections::HashSet,
    error::Error,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use libp2p::{
    PeerId, StreamProtocol, autonat, connection_limits, dcutr,
    gossipsub::{
        self, IdentTopic, MessageAuthenticity, MessageId, PeerScoreParams, PeerScoreThresholds,
        TopicScoreParams, ValidationMode, WhitelistSubscriptionFilter,
    },
    identify,
    identity::Keypair,
    kad::{self, store::MemoryStore},
    mdns, ping, relay,
    swarm::{NetworkBehaviour, behaviour::toggle::Toggle},
};
use protocol::{id::NarHash, limits, message};

use super::{BLOB, Config, QUERY, memory, streams};

/// What `identify` calls this protocol family.
const FAMILY: &str = "/assize/1";

/// The protocol of the distributed hash table.
const KAD: StreamProtocol = StreamProtocol::new("/assize/kad/1");

/// What a node speaks that relays for others.
pub(crate) const RELAY_HOP: StreamProtocol = relay::HOP_PROTOCOL_NAME;

/// Connections, at most: being made from outside, made from outside, made from here, of one node, all.
const PENDING_IN: u32 = 16;
const INCOMING: u32 = 128;
const OUTGOING: u32 = 64;
const OF_ONE_NODE: u32 = 2;
const ALL: u32 = 192;

/// Memory of this process, in bytes and without pages of files, beyond which no more connections are made.
const MEMORY: u64 = 2 << 30;

/// Archives of which this node tells, or remembers, who has them.
pub(crate) const PROVIDED: usize = 16_384;

/// How long who has what is remembered, and how often it is said anew.
const PROVIDER_LIFE: Duration = Duration::from_secs(24 * 3600);
const PROVIDER_AGAIN: Duration = Duration::from_secs(8 * 3600);

/// How long a search in the hash table may take.
const SEARCH: Duration = Duration::from_secs(10);

/// All that this node speaks.
#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    limits: connection_limits::Behaviour,
    memory: memory::Behaviour,
    pub(crate) gossip: gossipsub::Behaviour<gossipsub::IdentityTransform, WhitelistSubscriptionFilter>,
    pub(crate) kad: kad::Behaviour<MemoryStore>,
    reach: autonat::v2::client::Behaviour,
    reach_others: autonat::v2::server::Behaviour,
    relayed: relay::client::Behaviour,
    relay: Toggle<relay::Behaviour>,
    dcutr: dcutr::Behaviour,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    mdns: Toggle<mdns::tokio::Behaviour>,
    pub(crate) streams: streams::Behaviour,
}

/// The topic of all feeds.
pub(crate) fn feeds() -> IdentTopic {
    IdentTopic::new(message::FEED)
}

/// The topic of wishes.
pub(crate) fn wishes() -> IdentTopic {
    IdentTopic::new(message::WISH)
}

/// What an archive is called in the hash table.
pub(crate) fn provider_key(nar: &NarHash) -> kad::RecordKey {
    kad::RecordKey::new(nar.as_bytes())
}

impl Behaviour {
    /// The protocols of the node with this key.
    ///
    /// # Errors
    ///
    /// A knob does not go where it is turned to.
    pub(crate) fn new(
        key: &Keypair,
        relayed: relay::client::Behaviour,
        config: &Config,
    ) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let local = key.public().to_peer_id();
        let mdns = match config.mdns {
            Some(false) => None,
            // Without it, nodes are found by their addresses all the same.
            Some(true) | None => mdns::tokio::Behaviour::new(mdns::Config::default(), local).ok(),
        };
        let relay = match config.relay {
            Some(false) => None,
            Some(true) | None => Some(relay::Behaviour::new(local, relay::Config::default())),
        };
        let limits = connection_limits::ConnectionLimits::default()
            .with_max_pending_incoming(Some(PENDING_IN))
            .with_max_established_incoming(Some(INCOMING))
            .with_max_established_outgoing(Some(OUTGOING))
            .with_max_established_per_peer(Some(OF_ONE_NODE))
            .with_max_established(Some(ALL));
        let identify = identify::Config::new(FAMILY.into(), key.public())
            .with_agent_version(format!("assize/{}", env!("CARGO_PKG_VERSION")));
        Ok(Self {
            limits: connection_limits::Behaviour::new(limits),
            memory: memory::Behaviour::new(MEMORY),
            gossip: gossip()?,
            kad: kademlia(local),
            reach: autonat::v2::client::Behaviour::default(),
            reach_others: autonat::v2::server::Behaviour::default(),
            relayed,
            relay: relay.into(),
            dcutr: dcutr::Behaviour::new(local),
            identify: identify::Behaviour::new(identify),
            ping: ping::Behaviour::default(),
            mdns: mdns.into(),
            streams: streams::Behaviour::new(vec![BLOB, QUERY]),
        })
    }
}

/// Who has what: hints, which nobody believes, so nobody is asked to keep anything else.
fn kademlia(local: PeerId) -> kad::Behaviour<MemoryStore> {
    let mut config = kad::Config::new(KAD);
    config
        .set_query_timeout(SEARCH)
        .disjoint_query_paths(true)
        // What others put here comes to the driver first.
        .set_record_filtering(kad::StoreInserts::FilterBoth)
        .set_provider_record_ttl(Some(PROVIDER_LIFE))
        .set_provider_publication_interval(Some(PROVIDER_AGAIN));
    let store = kad::store::MemoryStoreConfig {
        max_records: 0,
        max_value_bytes: 0,
        max_provided_keys: PROVIDED,
        ..kad::store::MemoryStoreConfig::default()
    };
    kad::Behaviour::with_config(local, MemoryStore::with_config(local, store), config)
}

/// Gossip: nothing is passed on before it is looked at, nothing is queued without bound, and no
/// topic but ours exists.
fn gossip() -> Result<
    gossipsub::Behaviour<gossipsub::IdentityTransform, WhitelistSubscriptionFilter>,
    Box<dyn std::error::Error + Send + Sync>,
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
    let topics = [feeds().hash(), wishes().hash()];
    let only_ours = WhitelistSubscriptionFilter(topics.iter().cloned().collect());
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
        topics: topics.map(|topic| (topic, scores.clone())).into(),
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
