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
    /// By id, as text.
    pub peers: BTreeMap<String, Vec<Multiaddr>>,
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

impl Peers {
    /// Adds an address, which ends with whose it is; false if it is there.
    ///
    /// # Errors
    ///
    /// [`PeersError::Nobody`] or [`PeersError::TooMany`].
    pub fn add(&mut self, address: &Multiaddr) -> Result<bool, PeersError> {
        let (peer, rest) = split(address)?;
        let id = peer.to_string();
        if self.peers.len() == NODES && !self.peers.contains_key(&id) {
            return Err(PeersError::TooMany { what: "nodes", found: NODES + 1, limit: NODES });
        }
        let known = self.peers.entry(id).or_default();
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

    #[test]
    fn addresses_say_whose_they_are() {
        let id = "12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5";
        let address = |text: &str| text.parse::<Multiaddr>().unwrap();
        let mut peers = Peers::default();
        assert!(peers.add(&address(&format!("/ip4/1.2.3.4/tcp/5/p2p/{id}"))).unwrap());
        assert!(!peers.add(&address(&format!("/ip4/1.2.3.4/tcp/5/p2p/{id}"))).unwrap());
        assert!(peers.add(&address(&format!("/dns/example.org/udp/5/quic-v1/p2p/{id}"))).unwrap());
        assert_eq!(peers.peers[id].len(), 2);
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
        let address = "/ip4/1.2.3.4/tcp/5/p2p/12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5";
        assert!(file.change(|peers| peers.add(&address.parse().unwrap())).unwrap());
        assert_eq!(file.read().unwrap().peers.len(), 1);
        std::fs::write(file.path(), "{}").unwrap();
        assert!(matches!(file.read(), Err(PeersError::Content { .. })));
    }
}
