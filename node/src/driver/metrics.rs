//! What is counted, beside what libp2p counts, in one registry and its text format (OpenMetrics).

use libp2p::{
    metrics::{Metrics as Libp2p, Recorder as _},
    swarm::SwarmEvent,
};
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};
use trust::peer::{Fate, GaveUp, Piece, Relay, Why};

use super::{NodeStatus, Reachable};
use crate::net::BehaviourEvent;

/// All that is counted.
pub(super) struct Metrics {
    registry: Registry,
    libp2p: Libp2p,
    kept: Family<Of, Counter>,
    heard: Family<Of, Counter>,
    asked: Counter,
    answered: Counter,
    pieces: Family<Of, Counter>,
    banished: Family<Of, Counter>,
    gave_up: Family<Of, Counter>,
    received: Counter,
    sent: Counter,
    sent_pieces: Counter,
    gauges: Vec<(Gauge, Value)>,
}

/// What is said of a node when somebody asks: a name, what it means, and where it is found.
type Said = (&'static str, &'static str, Value);
type Value = fn(&NodeStatus) -> u64;

/// In seconds.
const UPTIME: Said = ("uptime", "Since the node began", |status| status.uptime);

/// Plain numbers.
const SAID: [Said; 11] = [
    ("nodes_connected", "Nodes that are connected", |status| status.peers.len() as u64),
    ("nodes_absent", "Nodes that the owner wants and that are not connected", |status| {
        status.absent.len() as u64
    }),
    ("nodes_neighbours", "Nodes found in the local network", |status| status.neighbours.len() as u64),
    ("feeds_followed", "Feeds that are wanted whole", |status| status.feeds.followed as u64),
    ("feeds", "Feeds of which something is known", |status| status.feeds.feeds as u64),
    ("statements", "Statements in all feeds", |status| status.feeds.statements),
    ("statements_strangers", "Statements in feeds that are not followed", |status| status.feeds.strangers),
    ("statements_missing", "Statements that others have and that are wanted", |status| status.feeds.missing),
    ("outbox", "Statements that wait to be published", |status| status.feeds.outbox as u64),
    ("archives_wanted", "Archives that are being fetched", |status| status.feeds.wanted as u64),
    ("reachable", "1 if others can connect to this node", |status| {
        u64::from(matches!(status.reachable, Reachable::Yes { .. }))
    }),
];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
    result: Result,
}

/// How something ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "they are the labels")]
enum Result {
    new,
    known,
    equivocation,
    missing,
    refused,
    forged,
    failed,
    accepted,
    ignored,
    rejected,
    came,
    absent,
    busy,
    wrong,
    disk,
    nonsense,
    silent,
    banished,
    nowhere,
    damaged,
    too_many,
}

impl Metrics {
    pub(super) fn new() -> Self {
        let mut registry = Registry::default();
        let libp2p = Libp2p::new(&mut registry);
        let ours = registry.sub_registry_with_prefix("assize");
        let mut metrics = Self {
            libp2p,
            kept: Family::default(),
            heard: Family::default(),
            asked: Counter::default(),
            answered: Counter::default(),
            pieces: Family::default(),
            banished: Family::default(),
            gave_up: Family::default(),
            received: Counter::default(),
            sent: Counter::default(),
            sent_pieces: Counter::default(),
            gauges: Vec::new(),
            registry: Registry::default(),
        };
        ours.register("statements_kept", "Statements and proofs from other nodes", metrics.kept.clone());
        ours.register("gossip_heard", "Messages of gossip", metrics.heard.clone());
        ours.register("questions_asked", "Questions to other nodes", metrics.asked.clone());
        ours.register("questions_answered", "Questions of other nodes", metrics.answered.clone());
        ours.register("pieces_fetched", "Pieces of archives that were asked for", metrics.pieces.clone());
        ours.register("nodes_banished", "Nodes that broke the rules", metrics.banished.clone());
        ours.register("fetches_failed", "Archives that were not had", metrics.gave_up.clone());
        let bytes = || Unit::Bytes;
        let fetched = metrics.received.clone();
        ours.register_with_unit("pieces_fetched", "Bytes of pieces, as they came", bytes(), fetched);
        ours.register_with_unit(
            "pieces_sent",
            "Bytes of pieces that were sent",
            bytes(),
            metrics.sent.clone(),
        );
        ours.register("pieces_sent", "Pieces of archives that were sent", metrics.sent_pieces.clone());
        let mut gauge = |(name, help, value): Said, unit: Option<Unit>| {
            let gauge = Gauge::default();
            match unit {
                Some(unit) => ours.register_with_unit(name, help, unit, gauge.clone()),
                None => ours.register(name, help, gauge.clone()),
            }
            metrics.gauges.push((gauge, value));
        };
        gauge(UPTIME, Some(Unit::Seconds));
        SAID.into_iter().for_each(|said| gauge(said, None));
        Self { registry, ..metrics }
    }

    pub(super) fn record(&self, event: &SwarmEvent<BehaviourEvent>) {
        self.libp2p.record(event);
        match event {
            SwarmEvent::Behaviour(BehaviourEvent::Gossip(event)) => self.libp2p.record(event),
            SwarmEvent::Behaviour(BehaviourEvent::Identify(event)) => self.libp2p.record(event),
            SwarmEvent::Behaviour(BehaviourEvent::Kad(event)) => self.libp2p.record(event),
            SwarmEvent::Behaviour(BehaviourEvent::Ping(event)) => self.libp2p.record(event),
            SwarmEvent::Behaviour(BehaviourEvent::Relay(event)) => self.libp2p.record(event),
            SwarmEvent::Behaviour(BehaviourEvent::Dcutr(event)) => self.libp2p.record(event),
            _ => {}
        }
    }

    pub(super) fn kept(&self, fate: &Fate) {
        count(
            &self.kept,
            match fate {
                Fate::New => Result::new,
                Fate::Known => Result::known,
                Fate::Equivocation(_) => Result::equivocation,
                Fate::Missing { .. } => Result::missing,
                Fate::Refused => Result::refused,
                Fate::Forged => Result::forged,
                Fate::Failed => Result::failed,
            },
        );
    }

    pub(super) fn heard(&self, relay: Relay) {
        count(
            &self.heard,
            match relay {
                Relay::Accept => Result::accepted,
                Relay::Ignore => Result::ignored,
                Relay::Reject => Result::rejected,
            },
        );
    }

    /// A question goes out.
    pub(super) fn asks(&self) {
        self.asked.inc();
    }

    /// A question comes in.
    pub(super) fn is_asked(&self) {
        self.answered.inc();
    }

    pub(super) fn piece(&self, piece: Piece) {
        count(
            &self.pieces,
            match piece {
                Piece::Came { bytes } => {
                    self.received.inc_by(bytes);
                    Result::came
                }
                Piece::Absent => Result::absent,
                Piece::Busy => Result::busy,
                Piece::Wrong => Result::wrong,
                Piece::Failed => Result::failed,
                Piece::Disk => Result::disk,
            },
        );
    }

    pub(super) fn sent(&self, bytes: u64) {
        self.sent.inc_by(bytes);
        self.sent_pieces.inc_by(u64::from(bytes > 0));
    }

    pub(super) fn banished(&self, why: Why) {
        count(
            &self.banished,
            match why {
                Why::Forged => Result::forged,
                Why::Nonsense => Result::nonsense,
                Why::Wrong => Result::wrong,
                Why::Silent => Result::silent,
                Why::Banished => Result::banished,
            },
        );
    }

    pub(super) fn gave_up(&self, why: GaveUp) {
        count(
            &self.gave_up,
            match why {
                GaveUp::Nowhere => Result::nowhere,
                GaveUp::Disk => Result::disk,
                GaveUp::Damaged => Result::damaged,
                GaveUp::TooMany => Result::too_many,
            },
        );
    }

    /// All of it as text.
    pub(super) fn text(&self, status: &NodeStatus) -> String {
        for (gauge, value) in &self.gauges {
            gauge.set(i64::try_from(value(status)).unwrap_or(i64::MAX));
        }
        let mut out = String::new();
        // Writing to memory does not fail.
        let _ = text::encode(&mut out, &self.registry);
        out
    }
}

fn count(family: &Family<Of, Counter>, result: Result) {
    family.get_or_create(&Of { result }).inc();
}
