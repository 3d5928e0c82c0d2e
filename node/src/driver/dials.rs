//! Whom to be connected to: the owner's peers, tried again until they are, with pauses that grow.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId, swarm::dial_opts::DialOpts};

use crate::net::peers::Peers;

/// Pause before a node is dialled again: at first, and at most, if there are few. A network that heals
/// is whole again after that.
const REDIAL: Duration = Duration::from_secs(1);
/// See [`REDIAL`].
const REDIAL_MOST: Duration = Duration::from_secs(5);

/// How many are few: of more, each waits longer, so that not more than some are dialled in a second.
const FEW: u32 = 16;

/// Nodes to be connected to.
#[derive(Default)]
pub(super) struct Dials {
    /// Those that are not in the file.
    more: Peers,
    dials: BTreeMap<PeerId, Dial>,
}

struct Dial {
    addresses: Vec<Multiaddr>,
    next: Instant,
    pause: Duration,
    /// Whether a dial has ended, well or not.
    tried: bool,
}

impl Dials {
    /// These are wanted whatever the file says.
    pub(super) fn new(more: Peers) -> Self {
        Self { more, dials: BTreeMap::new() }
    }

    /// The file says this now; returns those who are not wanted any more. A node does not dial itself.
    pub(super) fn set(&mut self, file: &Peers, own: &PeerId) -> Vec<PeerId> {
        let mut wanted = file.peers.clone();
        for (peer, addresses) in &self.more.peers {
            let all = wanted.entry(*peer).or_default();
            all.extend(
                addresses.iter().filter(|address| !all.contains(address)).cloned().collect::<Vec<_>>(),
            );
        }
        wanted.remove(own);
        let gone: Vec<_> = self.dials.keys().filter(|peer| !wanted.contains_key(peer)).copied().collect();
        self.dials.retain(|peer, _| wanted.contains_key(peer));
        for (peer, addresses) in wanted {
            let new = Dial { addresses: vec![], next: Instant::now(), pause: REDIAL, tried: false };
            let dial = self.dials.entry(peer).or_insert(new);
            if dial.addresses != addresses {
                (dial.addresses, dial.next) = (addresses, Instant::now());
            }
        }
        gone
    }

    /// Whether the owner wants to be connected to it.
    pub(super) fn wants(&self, peer: &PeerId) -> bool {
        self.dials.contains_key(peer)
    }

    /// All of them.
    pub(super) fn all(&self) -> impl Iterator<Item = &PeerId> {
        self.dials.keys()
    }

    /// A dial has ended.
    pub(super) fn ended(&mut self, peer: &PeerId, connected: bool) {
        if let Some(dial) = self.dials.get_mut(peer) {
            dial.tried = true;
            if connected {
                dial.pause = REDIAL;
            }
        }
    }

    /// Whether all were dialled that are not connected. Who connected by himself was never dialled.
    pub(super) fn tried(&self, is_connected: impl Fn(&PeerId) -> bool) -> bool {
        self.dials.iter().all(|(peer, dial)| dial.tried || is_connected(peer))
    }

    /// Those who are not connected, and whose turn it is.
    pub(super) fn due(&mut self, connected: &BTreeSet<PeerId>) -> Vec<DialOpts> {
        let now = Instant::now();
        let absent = self.dials.keys().filter(|peer| !connected.contains(peer)).count();
        let most = REDIAL_MOST * u32::try_from(absent).unwrap_or(u32::MAX).div_ceil(FEW).max(1);
        let mut due = Vec::new();
        for (peer, dial) in &mut self.dials {
            if connected.contains(peer) || dial.next > now {
                continue;
            }
            dial.next = now + dial.pause;
            dial.pause = (dial.pause * 2).min(most);
            due.push(DialOpts::peer_id(*peer).addresses(dial.addresses.clone()).build());
        }
        due
    }
}
