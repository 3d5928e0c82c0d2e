//! All that a peer asks for.

use protocol::{
    evidence::UnverifiedEvidence,
    id::NarHash,
    key::AttesterKey,
    message::{Answer, Gossip, Request},
    wish::Wish,
};

use super::{GaveUp, NodeId, Sought};

/// Something to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Ask a node. Whatever becomes of it comes back as [`Input::Answered`](super::Input::Answered),
    /// which may be never.
    Ask {
        /// Whom.
        node: NodeId,
        /// Names the question.
        question: u64,
        /// What.
        request: Request,
    },
    /// Answer a question.
    Answer {
        /// Which.
        ticket: u64,
        /// What to say.
        answer: Answer,
    },
    /// Answer a question from the store.
    Serve {
        /// Which question.
        ticket: u64,
        /// What to look up.
        serve: Serve,
    },
    /// Verify and keep what came from elsewhere, then say so with [`Input::Kept`](super::Input::Kept).
    Keep {
        /// Names it.
        task: u64,
        /// What.
        items: Vec<UnverifiedEvidence>,
    },
    /// Tell everybody who listens.
    Publish {
        /// What.
        gossip: Gossip,
    },
    /// Tell everybody who listens what is wished here.
    Proclaim {
        /// What.
        wish: Wish,
    },
    /// What became of an [`Input::Seek`](super::Input::Seek).
    Sought {
        /// What was looked for.
        sought: Sought,
        /// The answer; `None` if no connected node has one.
        found: Option<Answer>,
    },
    /// Say what is to become of gossip that was heard.
    Relay {
        /// Which.
        message: u64,
        /// Whether it is passed on.
        relay: Relay,
    },
    /// Ask a node for a piece of an archive, verify it and keep it, then say so with
    /// [`Input::Piece`](super::Input::Piece).
    Fetch {
        /// Names it.
        task: u64,
        /// Whom.
        node: NodeId,
        /// Which archive.
        nar: NarHash,
        /// Its bytes.
        size: u64,
        /// Which piece.
        piece: u64,
        /// Whether it may come compressed.
        zstd: bool,
    },
    /// Do not wait for a piece any more, and say nothing of it.
    Cancel {
        /// What was asked for.
        task: u64,
    },
    /// All pieces are here: put them into the store as one, and say so with
    /// [`Input::Admitted`](super::Input::Admitted).
    Admit {
        /// Which archive.
        nar: NarHash,
    },
    /// No connected node has an archive: look further, connect to whoever may have it, and say with
    /// [`Input::Searched`](super::Input::Searched) when the search has ended.
    Search {
        /// Which archive.
        nar: NarHash,
    },
    /// An archive is not to be had.
    GiveUp {
        /// Which.
        nar: NarHash,
        /// Why.
        why: GaveUp,
    },
    /// Close all connections to a node.
    Disconnect {
        /// Which.
        node: NodeId,
        /// Why.
        why: Why,
    },
}

/// What is looked up for others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Serve {
    /// Statements of a feed, from a place on, as many as fit into an answer.
    Statements {
        /// Whose.
        attester: AttesterKey,
        /// From there.
        from: u64,
    },
    /// Which of these archives are here.
    Have {
        /// In order.
        nars: Vec<NarHash>,
    },
    /// What others look for.
    Sought(Sought),
    /// All proofs against a key.
    Proofs {
        /// Whose.
        attester: AttesterKey,
    },
}

/// Whether gossip is passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relay {
    /// It is.
    Accept,
    /// It is not, and that is nobody's fault.
    Ignore,
    /// It is not, and whoever sent it should not have.
    Reject,
}

/// What a node did wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Why {
    /// It passed on something with a wrong signature.
    Forged,
    /// What it said cannot be read, or answers something else.
    Nonsense,
    /// What it sent is not a part of the archive that it was asked for.
    Wrong,
    /// It does not answer.
    Silent,
    /// It did so before, not long ago.
    Banished,
}
