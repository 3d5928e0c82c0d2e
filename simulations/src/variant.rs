//! Nodes that are broken on purpose: whether the scenarios would see it.
//!
//! No variant changes `trust`. Each replaces something in the simulated node around
//! [`trust::peer::Peer`], with the effect that the named mistake in `trust`, in the store or in the
//! driver would have.

/// A mistake that all honest nodes of a world make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Variant {
    /// One voter less is enough: the policy that is compiled says so.
    ThresholdOffByOne,
    /// What is known of equivocations is kept from the judge.
    EquivocatorCounts,
    /// What is known of revocations is kept from the judge.
    RevokedCounts,
    /// Whoever goes on under another key is followed by the old one alone.
    FollowsNobodyNew,
    /// What a node was asked once it is not asked again: the driver swallows the question.
    NeverAsksAgain,
    /// What a node hears it passes on, whatever its peer says of it.
    RelaysEverything,
    /// What is signed is published before the disk has it.
    SpeaksBeforeDisk,
    /// Signatures are not checked.
    BelievesForgeries,
}

impl Variant {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::ThresholdOffByOne,
        Self::EquivocatorCounts,
        Self::RevokedCounts,
        Self::FollowsNobodyNew,
        Self::NeverAsksAgain,
        Self::RelaysEverything,
        Self::SpeaksBeforeDisk,
        Self::BelievesForgeries,
    ];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ThresholdOffByOne => "threshold-off-by-one",
            Self::EquivocatorCounts => "equivocator-counts",
            Self::RevokedCounts => "revoked-counts",
            Self::FollowsNobodyNew => "follows-nobody-new",
            Self::NeverAsksAgain => "never-asks-again",
            Self::RelaysEverything => "relays-everything",
            Self::SpeaksBeforeDisk => "speaks-before-disk",
            Self::BelievesForgeries => "believes-forgeries",
        }
    }

    /// The one of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|variant| variant.name() == name)
    }
}
