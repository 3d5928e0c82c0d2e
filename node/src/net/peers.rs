//! The nodes that the owner wants to be connected to: `peers.json`, changed by `assize peer`.
//!
//! Being connected gives nobody a vote: that is for `trust.json` to say.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};
use serde::{Deserialize, Serialize};

use trust::peer::NodeId;

use super::node_id;
use crate::document;

/// Longest file, in bytes.
const FILE_BYTES: u64 = 1 << 20;

/// Nodes in the file, and addresses of one.
const NODES: usize = 1024;
const ADDRESSES: usize = 16;

/// Why the file, or an address, cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PeersError {
    /// The disk refused.
    #[error("cannot {what} `{path}`")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The file says something else.
    #[error("`{path}` is not understood")]
    Content {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: serde_json::Error,
    },
    /// An address that does not say whose it is.
    #[error("`{0}` does not end with `/p2p/` and the id of a node")]
    Nobody(Multiaddr),
    /// Too many.
    #[error("{found} {what}, but at most {limit} are allowed")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        found: usize,
        /// How many are allowed.
        limit: usize,
    },
}

/// Nodes with their addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peers {
    /// By id.
    #[serde(with = "by_id")]
    pub peers: BTreeMap<PeerId, Vec<Multiaddr>>,
}

/// Ids as texts, and what is read is within the limits.
mod by_id {
    use std::collections::BTreeMap;

    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    use super::{ADDRESSES, Multiaddr, NODES, PeerId};

    pub(super) fn serialize<S: Serializer>(
        peers: &BTreeMap<PeerId, Vec<Multiaddr>>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_map(peers.iter().map(|(id, addresses)| (id.to_string(), addresses)))
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>>(
        from: D,
    ) -> Result<BTreeMap<PeerId, Vec<Multiaddr>>, D::Error> {
        let read = BTreeMap::<String, Vec<Multiaddr>>::deserialize(from)?;
        if read.len() > NODES || read.values().any(|addresses| addresses.len() > ADDRESSES) {
            let what = format!("more than {NODES} nodes, or than {ADDRESSES} addresses of one");
            return Err(D::Error::custom(what));
        }
        let peer = |(id, addresses): (String, _)| match id.parse() {
            Ok(id) => Ok((id, addresses)),
            Err(_) => Err(D::Error::custom(format!("`{id}` is not the id of a node"))),
        };
        read.into_iter().map(peer).collect()
    }
}

/// The node at the end of an address, and the address without it.
///
/// # Errors
///
/// [`PeersError::Nobody`].
pub fn split(address: &Multiaddr) -> Result<(PeerId, Multiaddr), PeersError> {
    let mut rest = address.clone();
    match rest.pop() {
        Some(Protocol::P2p(peer)) if !rest.is_empty() => Ok((peer, rest)),
        _ => Err(PeersError::Nobody(address.clone())),
    }
}

/// The id of the node with this key; `None` if it is no key.
pub fn id_of(key: &[u8; 32]) -> Option<PeerId> {
    node_id::peer(&NodeId(*key))
}

/// The key of a node; `None` if it has another kind of key.
pub fn key_of(id: &PeerId) -> Option<[u8; 32]> {
    node_id::of_peer(id).map(|node| node.0)
}

/// An address without the node's id at its end.
pub fn without_node(address: &Multiaddr) -> Multiaddr {
    let mut rest = address.clone();
    match rest.pop() {
        Some(Protocol::P2p(_)) => rest,
        _ => address.clone(),
    }
}

/// Whether an address means the machine itself.
pub fn is_loopback(address: &Multiaddr) -> bool {
    address.iter().any(|part| match part {
        Protocol::Ip4(ip) => ip.is_loopback(),
        Protocol::Ip6(ip) => ip.is_loopback(),
        _ => false,
    })
}

impl Peers {
    /// Adds an address, which ends with whose it is; false if it is there.
    ///
    /// # Errors
    ///
    /// [`PeersError::Nobody`] or [`PeersError::TooMany`].
    pub fn add(&mut self, address: &Multiaddr) -> Result<bool, PeersError> {
        let (peer, rest) = split(address)?;
        if self.peers.len() == NODES && !self.peers.contains_key(&peer) {
            return Err(PeersError::TooMany { what: "nodes", found: NODES + 1, limit: NODES });
        }
        let known = self.peers.entry(peer).or_default();
        if known.contains(&rest) {
            return Ok(false);
        }
        if known.len() == ADDRESSES {
            return Err(PeersError::TooMany { what: "addresses", found: ADDRESSES + 1, limit: ADDRESSES });
        }
        known.push(rest);
        Ok(true)
    }
}

/// The file.
#[derive(Debug, Clone)]
pub struct PeersFile {
    path: PathBuf,
}

impl PeersFile {
    /// The file of the store in `home`.
    pub fn new(home: &Path) -> Self {
        Self { path: home.join("peers.json") }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads it; nobody if there is no such file.
    ///
    /// # Errors
    ///
    /// [`PeersError`].
    pub fn read(&self) -> Result<Peers, PeersError> {
        let text = document::read(&self.path, FILE_BYTES).map_err(|e| self.failed("read", e))?;
        let Some(text) = text else { return Ok(Peers::default()) };
        serde_json::from_str(&text).map_err(|source| PeersError::Content { path: self.path.clone(), source })
    }

    /// Changes it, whole or not at all, and one process at a time.
    ///
    /// # Errors
    ///
    /// [`PeersError`]; then the file is as it was.
    pub fn change<T>(
        &self,
        change: impl FnOnce(&mut Peers) -> Result<T, PeersError>,
    ) -> Result<T, PeersError> {
        let failed = |what, e| self.failed(what, e);
        document::change(&self.path, "peers.lock", failed, || {
            let mut peers = self.read()?;
            let result = change(&mut peers)?;
            let text = serde_json::to_string_pretty(&peers).expect("texts and lists of texts");
            Ok((result, text + "\n"))
        })
    }

    fn failed(&self, what: &'static str, source: io::Error) -> PeersError {
        PeersError::Io { what, path: self.path.clone(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5";

    #[test]
    fn addresses_say_whose_they_are() {
        let id = ID;
        let address = |text: &str| text.parse::<Multiaddr>().unwrap();
        let mut peers = Peers::default();
        assert!(peers.add(&address(&format!("/ip4/1.2.3.4/tcp/5/p2p/{id}"))).unwrap());
        assert!(!peers.add(&address(&format!("/ip4/1.2.3.4/tcp/5/p2p/{id}"))).unwrap());
        assert!(peers.add(&address(&format!("/dns/example.org/udp/5/quic-v1/p2p/{id}"))).unwrap());
        assert_eq!(peers.peers[&id.parse().unwrap()].len(), 2);
        for bad in ["/ip4/1.2.3.4/tcp/5".to_owned(), format!("/p2p/{id}")] {
            assert!(matches!(peers.add(&address(&bad)), Err(PeersError::Nobody(_))), "{bad}");
        }
        for n in 2..ADDRESSES {
            peers.add(&address(&format!("/ip4/1.2.3.4/tcp/{n}0/p2p/{id}"))).unwrap();
        }
        let more = peers.add(&address(&format!("/ip4/1.2.3.4/tcp/9/p2p/{id}")));
        assert!(matches!(more, Err(PeersError::TooMany { what: "addresses", .. })));
    }

    #[test]
    fn the_file_is_changed_whole() {
        let home = tempfile::tempdir().unwrap();
        let file = PeersFile::new(home.path());
        assert_eq!(file.read().unwrap(), Peers::default());
        let address = format!("/ip4/1.2.3.4/tcp/5/p2p/{ID}");
        assert!(file.change(|peers| peers.add(&address.parse().unwrap())).unwrap());
        assert_eq!(file.read().unwrap().peers.len(), 1);
        let many = vec!["\"/ip4/1.2.3.4/tcp/5\""; ADDRESSES + 1].join(", ");
        for bad in
            ["{}", r#"{ "peers": { "nobody": [] } }"#, &format!("{{\"peers\": {{\"{ID}\": [{many}]}}}}")]
        {
            std::fs::write(file.path(), bad).unwrap();
            assert!(matches!(file.read(), Err(PeersError::Content { .. })), "{bad}");
        }
    }
}
