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

use super::NodeStatus;
use crate::net::BehaviourEvent;

/// All that is counted.
pub(super) struct Metrics {
    registry: Registry,
    libp2p: Libp2p,
    kept: Family<Of, Counter>,
    heard: Family<Of, Counter>,
    pieces: Family<Of, Counter>,
    banished: Family<Of, Counter>,
    gave_up: Family<Of, Counter>,
    received: Counter,
    sent: Counter,
    sent_pieces: Counter,
    gauges: Gauges,
}

/// What is said of a node when somebody asks.
#[derive(Default)]
struct Gauges {
    uptime: Gauge,
    connected: Gauge,
    absent: Gauge,
    neighbours: Gauge,
    followed: Gauge,
    feeds: Gauge,
    statements: Gauge,
    strangers: Gauge,
    missing: Gauge,
    outbox: Gauge,
    wanted: Gauge,
    reachable: Gauge,
}

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
        let metrics = Self {
            libp2p,
            kept: Family::default(),
            heard: Family::default(),
            pieces: Family::default(),
            banished: Family::default(),
            gave_up: Family::default(),
            received: Counter::default(),
            sent: Counter::default(),
            sent_pieces: Counter::default(),
            gauges: Gauges::default(),
            registry: Registry::default(),
        };
        ours.register("statements_kept", "Statements and proofs from other nodes", metrics.kept.clone());
        ours.register("gossip_heard", "Messages of gossip", metrics.heard.clone());
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
        let Gauges {
            uptime,
            connected,
            absent,
            neighbours,
            followed,
            feeds,
            statements,
            strangers,
            missing,
            outbox,
            wanted,
            reachable,
        } = &metrics.gauges;
        ours.register_with_unit("uptime", "Since the node began", Unit::Seconds, uptime.clone());
        for (name, help, gauge) in [
            ("nodes_connected", "Nodes that are connected", connected),
            ("nodes_absent", "Nodes that the owner wants and that are not connected", absent),
            ("nodes_neighbours", "Nodes found in the local network", neighbours),
            ("feeds_followed", "Feeds that are wanted whole", followed),
            ("feeds", "Feeds of which something is known", feeds),
            ("statements", "Statements in all feeds", statements),
            ("statements_strangers", "Statements in feeds that are not followed", strangers),
            ("statements_missing", "Statements that others have and that are wanted", missing),
            ("outbox", "Statements that wait to be published", outbox),
            ("archives_wanted", "Archives that are being fetched", wanted),
            ("reachable", "1 if others can connect to this node", reachable),
        ] {
            ours.register(name, help, gauge.clone());
        }
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
        let Gauges {
            uptime,
            connected,
            absent,
            neighbours,
            followed,
            feeds,
            statements,
            strangers,
            missing,
            outbox,
            wanted,
            reachable,
        } = &self.gauges;
        let can = matches!(status.reachable, super::Reachable::Yes { .. });
        for (gauge, value) in [
            (uptime, status.uptime),
            (connected, status.peers.len() as u64),
            (absent, status.absent.len() as u64),
            (neighbours, status.neighbours.len() as u64),
            (followed, status.feeds.followed as u64),
            (feeds, status.feeds.feeds as u64),
            (statements, status.feeds.statements),
            (strangers, status.feeds.strangers),
            (missing, status.feeds.missing),
            (outbox, status.feeds.outbox as u64),
            (wanted, status.feeds.wanted as u64),
            (reachable, u64::from(can)),
        ] {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
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
