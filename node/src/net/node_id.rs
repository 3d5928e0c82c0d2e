//! Node keys: what libp2p calls a peer id is here the 32 bytes of an ed25519 key.

use libp2p::{
    PeerId,
    identity::{Keypair, PublicKey, ed25519},
};
use protocol::key::SigningKey;
use trust::peer::NodeId;

/// What comes before the key in the peer id of an ed25519 key: an identity hash of 36 bytes, and in
/// it a protobuf message of kind and key (libp2p's peer-ids specification).
const PREFIX: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];

/// The node key in libp2p's words.
pub(crate) fn keypair(key: &SigningKey) -> Keypair {
    let mut secret = key.to_bytes();
    Keypair::ed25519_from_bytes(&mut secret).expect("32 bytes are a key")
}

/// The key behind a peer id; `None` if it is not an ed25519 key: such nodes are none of ours.
pub(crate) fn of_peer(peer: &PeerId) -> Option<NodeId> {
    let bytes = peer.to_bytes();
    Some(NodeId(bytes.strip_prefix(&PREFIX)?.try_into().ok()?))
}

/// The peer id of a key; `None` if it is no point of the curve.
pub(crate) fn peer(node: &NodeId) -> Option<PeerId> {
    let key = ed25519::PublicKey::try_from_bytes(&node.0).ok()?;
    Some(PublicKey::from(key).to_peer_id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let id = keypair(&SigningKey::from_bytes(&[7; 32])).public().to_peer_id();
        let node = of_peer(&id).unwrap();
        assert_eq!(node.0, *SigningKey::from_bytes(&[7; 32]).verifying_key().as_bytes());
        assert_eq!(peer(&node), Some(id));
        assert!(id.to_string().starts_with("12D3KooW"));
        let other = "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N".parse().unwrap();
        assert_eq!(of_peer(&other), None);
    }
}
