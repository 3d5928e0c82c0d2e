//! All that a peer hears.

use std::{collections::BTreeSet, fmt};

use protocol::{
    evidence::{Equivocation, UnverifiedEvidence},
    id::NarHash,
    key::AttesterKey,
    message::{Answer, FeedHead, Gossip, Request},
    wish::{UnverifiedWish, Wish},
};

use super::{GaveUp, Piece, Sought};

/// Milliseconds of a clock that never goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub u64);

impl Time {
    /// So many milliseconds later.
    pub fn after(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis))
    }
}

/// A node on the network: the 32 bytes of its ed25519 node key, which is no attester key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub [u8; 32]);

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A node is connected, by one connection or several, that was not.
    Connected {
        /// Which.
        node: NodeId,
    },
    /// Its last connection is gone.
    Disconnected {
        /// Which.
        node: NodeId,
    },
    /// A node asks something.
    Asked {
        /// Which.
        node: NodeId,
        /// Names the question in the effect that answers it.
        ticket: u64,
        /// What it asks.
        request: Request,
    },
    /// What became of an [`Effect::Ask`](super::Effect::Ask).
    Answered {
        /// The question.
        question: u64,
        /// The answer; `None` if there is none, or one that cannot be read.
        answer: Option<Answer>,
    },
    /// A node passes on gossip.
    Heard {
        /// The node it comes from, which need not have said it first.
        node: NodeId,
        /// Names it in the effect that says whether it is passed on.
        message: u64,
        /// The gossip; `None` if it cannot be read.
        gossip: Option<Gossip>,
    },
    /// What became of an [`Effect::Keep`](super::Effect::Keep).
    Kept {
        /// The task.
        task: u64,
        /// Of each item, in order.
        fates: Vec<Fate>,
        /// Where the feeds end now that it was about.
        heads: Vec<FeedHead>,
    },
    /// This node said something, or its owner brought something by hand: it is kept already.
    Made {
        /// What.
        items: Vec<UnverifiedEvidence>,
        /// Where the feeds end now that it is about.
        heads: Vec<FeedHead>,
    },
    /// A node passes on a wish.
    Wished {
        /// The node it comes from, which need not have said it first.
        node: NodeId,
        /// Names it in the effect that says whether it is passed on.
        message: u64,
        /// The wish; `None` if it cannot be read.
        wish: Option<UnverifiedWish>,
    },
    /// This node's owner wishes something.
    Wish {
        /// What.
        wish: Wish,
    },
    /// Somebody here wants to know what others may know.
    Seek {
        /// What.
        sought: Sought,
    },
    /// Whose feeds are followed from now on.
    Follow {
        /// All of them.
        attesters: BTreeSet<AttesterKey>,
    },
    /// An archive is wanted.
    Want {
        /// Which.
        nar: NarHash,
        /// Its bytes.
        size: u64,
        /// Its pieces that are not here.
        missing: BTreeSet<u64>,
    },
    /// It is not wanted any more.
    Unwant {
        /// Which.
        nar: NarHash,
    },
    /// What became of an [`Effect::Fetch`](super::Effect::Fetch).
    Piece {
        /// The task.
        task: u64,
        /// What became of it.
        piece: Piece,
    },
    /// What became of an [`Effect::Admit`](super::Effect::Admit).
    Admitted {
        /// The archive.
        nar: NarHash,
        /// Whether it is in the store.
        result: Result<(), GaveUp>,
    },
    /// An [`Effect::Search`](super::Effect::Search) has ended: whoever was found is being connected to.
    Searched {
        /// The archive.
        nar: NarHash,
    },
    /// Nothing, but that time goes by.
    Tick,
}

/// What became of something signed that came from elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It is new, and kept.
    New,
    /// It was here.
    Known,
    /// It contradicts what is here, and both are kept as a proof.
    Equivocation(Equivocation),
    /// It is signed, but statements before it are missing.
    Missing {
        /// Whose it is.
        attester: AttesterKey,
        /// Its place.
        place: u64,
    },
    /// It is signed, and does not fit in another way, as behind the end of a feed.
    Refused,
    /// A signature is wrong, or a proof proves nothing: whoever passes that on has not looked.
    Forged,
    /// This machine failed to keep it.
    Failed,
}
