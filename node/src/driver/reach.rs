//! By which addresses others reach this node, and where archives may be: what autonat, relays, mDNS
//! and the hash table say. All of it are hints; what they lead to proves itself.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use libp2p::{
    Multiaddr, PeerId, autonat, identify, kad,
    kad::store::RecordStore as _,
    mdns,
    multiaddr::Protocol,
    swarm::{SwarmEvent, dial_opts::DialOpts},
};
use protocol::id::NarHash;
use trust::peer::Input;

use super::{Driver, Note, Reachable};
use crate::net::{self, BehaviourEvent};

/// Archives of its own that a node tells others about.
pub(super) const OWN: usize = net::PROVIDED / 2;

/// Archives about which others are told at once.
const ANNOUNCED: usize = 4;

/// Nodes that are dialled because they may have an archive.
const FOUND: usize = 8;

/// Nodes of the local network that are remembered.
const NEIGHBOURS: usize = 256;

/// Addresses that one node may say it has.
const ADDRESSES: usize = 16;

/// Nodes by way of which this one can be reached, at once.
const RELAYS: usize = 2;

/// What is known of the way to this node, and of the ways to others.
#[derive(Default)]
pub(super) struct Reach {
    /// At these, others have connected, or the owner says so.
    at: BTreeSet<Multiaddr>,
    /// At these, others have tried to, and could not.
    tried: BTreeSet<Multiaddr>,
    relays: BTreeSet<PeerId>,
    neighbours: BTreeMap<PeerId, Multiaddr>,
    searches: HashMap<kad::QueryId, (NarHash, HashSet<PeerId>)>,
    /// Archives that others are still to be told about, and those that they were.
    to_announce: VecDeque<NarHash>,
    announced: HashSet<NarHash>,
}

impl Reach {
    pub(super) fn reachable(&self) -> Reachable {
        let (by_others, direct): (BTreeSet<_>, BTreeSet<_>) = self.at.iter().cloned().partition(relayed);
        match () {
            () if !direct.is_empty() => Reachable::Yes { at: direct },
            () if !by_others.is_empty() => Reachable::Relayed { at: by_others },
            () if !self.tried.is_empty() => Reachable::No { tried: self.tried.clone() },
            () => Reachable::Unknown,
        }
    }

    pub(super) fn neighbours(&self) -> BTreeMap<String, Multiaddr> {
        self.neighbours.iter().map(|(peer, address)| (peer.to_string(), address.clone())).collect()
    }

    /// Others are to be told that these are here.
    pub(super) fn provide(&mut self, nars: impl IntoIterator<Item = NarHash>) {
        for nar in nars {
            if self.announced.len() + self.to_announce.len() < OWN
                && !self.announced.contains(&nar)
                && !self.to_announce.contains(&nar)
            {
                self.to_announce.push_back(nar);
            }
        }
    }
}

impl Driver {
    /// Takes what is said about ways.
    pub(super) fn discovered(&mut self, event: SwarmEvent<BehaviourEvent>) {
        let before = self.reach.reachable();
        match event {
            SwarmEvent::ExternalAddrConfirmed { address } => {
                self.reach.tried.remove(&address);
                self.reach.at.insert(address);
                // Whoever was told before does not know it.
                let announced = std::mem::take(&mut self.reach.announced);
                self.reach.to_announce.extend(announced);
            }
            SwarmEvent::ExternalAddrExpired { address } => _ = self.reach.at.remove(&address),
            SwarmEvent::Behaviour(BehaviourEvent::Reach(autonat::v2::client::Event {
                tested_addr,
                result: Err(_),
                ..
            })) => {
                if self.reach.tried.len() < ADDRESSES && !self.reach.at.contains(&tested_addr) {
                    self.reach.tried.insert(tested_addr);
                }
                self.reserve();
            }
            SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received {
                peer_id,
                info,
                ..
            })) => self.identified(peer_id, info),
            SwarmEvent::Behaviour(BehaviourEvent::Mdns(mdns::Event::Discovered(found))) => {
                for (peer, address) in found {
                    self.neighbour(peer, address);
                }
            }
            SwarmEvent::Behaviour(BehaviourEvent::Mdns(mdns::Event::Expired(gone))) => {
                for (peer, address) in gone {
                    if self.reach.neighbours.get(&peer) == Some(&address) {
                        self.reach.neighbours.remove(&peer);
                    }
                }
            }
            SwarmEvent::Behaviour(BehaviourEvent::Kad(event)) => self.hash_table(event),
            _ => {}
        }
        let reachable = self.reach.reachable();
        if reachable != before {
            self.note(Note::Reachable { reachable });
        }
    }

    fn neighbour(&mut self, peer: PeerId, address: Multiaddr) {
        // Once: whoever is in the neighbourhood says so again.
        if !self.connected.contains_key(&peer) && !self.dials.wants(&peer) {
            let _ = self.swarm.dial(DialOpts::peer_id(peer).addresses(vec![address.clone()]).build());
        }
        if self.reach.neighbours.len() < NEIGHBOURS {
            self.reach.neighbours.entry(peer).or_insert(address);
        }
    }

    fn identified(&mut self, peer: PeerId, info: identify::Info) {
        let behaviour = self.swarm.behaviour_mut();
        if behaviour.kad.protocol_names().iter().any(|name| info.protocols.contains(name)) {
            for address in info.listen_addrs.into_iter().take(ADDRESSES) {
                behaviour.kad.add_address(&peer, address);
            }
        }
        if info.protocols.contains(&net::RELAY_HOP) {
            self.reach.relays.insert(peer);
            self.reserve();
        }
    }

    /// If this node cannot be reached, it asks others to pass on who wants to.
    fn reserve(&mut self) {
        let Reachable::No { .. } = self.reach.reachable() else { return };
        let relays = self.reach.relays.iter().filter_map(|relay| Some((*relay, self.connected.get(relay)?)));
        // Not by way of somebody who is reached by way of somebody.
        let relays = relays.filter(|(_, link)| !relayed(&link.address));
        let relays = relays.take(RELAYS).map(|(relay, link)| {
            let without = link.address.iter().filter(|part| !matches!(part, Protocol::P2p(_)));
            without.collect::<Multiaddr>().with(Protocol::P2p(relay)).with(Protocol::P2pCircuit)
        });
        for address in relays.collect::<Vec<_>>() {
            let there = self.swarm.listeners().any(|listener| listener == &address);
            if !there && let Err(error) = self.swarm.listen_on(address) {
                self.trouble(&error);
            }
        }
    }

    /// Looks in the hash table for who has an archive.
    pub(super) fn search(&mut self, nar: NarHash) {
        let query = self.swarm.behaviour_mut().kad.get_providers(net::provider_key(&nar));
        self.reach.searches.insert(query, (nar, HashSet::new()));
    }

    fn hash_table(&mut self, event: kad::Event) {
        match event {
            kad::Event::InboundRequest {
                request: kad::InboundRequest::AddProvider { record: Some(record) },
                // Archives, and nothing else that somebody would like to have kept.
            } if record.key.as_ref().len() == blake3::OUT_LEN => {
                let _ = self.swarm.behaviour_mut().kad.store_mut().add_provider(record);
            }
            kad::Event::OutboundQueryProgressed {
                id,
                result: kad::QueryResult::GetProviders(result),
                step,
                ..
            } => {
                if let Ok(kad::GetProvidersOk::FoundProviders { providers, .. }) = result {
                    self.found(id, providers);
                }
                if step.last
                    && let Some((nar, _)) = self.reach.searches.remove(&id)
                {
                    self.input(Input::Searched { nar });
                }
            }
            _ => {}
        }
    }

    fn found(&mut self, query: kad::QueryId, providers: HashSet<PeerId>) {
        let own = self.id();
        let Some((_, dialled)) = self.reach.searches.get_mut(&query) else { return };
        for peer in providers {
            if peer != own && dialled.len() < FOUND && dialled.insert(peer) {
                // The hash table knows the addresses for as long as the search goes on.
                let _ = self.swarm.dial(peer);
            }
        }
    }

    /// Tells others about some of the archives that are here.
    pub(super) fn announce(&mut self) {
        // As long as nobody is known who would remember it, it waits.
        if self.reach.to_announce.is_empty()
            || self.swarm.behaviour_mut().kad.kbuckets().all(|bucket| bucket.is_empty())
        {
            return;
        }
        for _ in 0..ANNOUNCED {
            let Some(nar) = self.reach.to_announce.pop_front() else { return };
            if self.store.contains(&nar)
                && self.swarm.behaviour_mut().kad.start_providing(net::provider_key(&nar)).is_ok()
            {
                self.reach.announced.insert(nar);
            }
        }
    }
}

/// Whether an address leads through another node.
fn relayed(address: &Multiaddr) -> bool {
    address.iter().any(|part| part == Protocol::P2pCircuit)
}
