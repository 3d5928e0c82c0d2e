//! Figures: many worlds, and what is measured in them, as plots.
//!
//! * `judged.rs`: what judges make of lies and bugs. The network is not in it, because it does not
//!   change the verdict of whoever knows everything.
//! * `measured.rs`: times and bytes of whole worlds.
//!
//! A figure is the same, to the byte, whenever it is drawn. Small ones are drawn in a test; the
//! whole ones are kept in `docs/figures/`.

mod judged;
mod measured;

use crate::{plot::Plot, world::Failure};

/// A figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Figure {
    /// What becomes of more and more liars, by policy.
    Liars,
    /// What it buys that engines differ, when one of them is wrong.
    Diversity,
    /// How long acceptance takes, by nodes and by loss.
    Acceptance,
    /// How long it takes behind a partition.
    Healing,
    /// Bytes and messages, by nodes and by attestations.
    Traffic,
    /// Bytes and messages for each of up to a million attestations.
    Attestations,
    /// How soon copies are recognised.
    Copycats,
    /// What it would buy, and cost, that everybody commits to what he got before he reveals it.
    Commitments,
}

/// How much of a figure is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// So little that it takes a second.
    Small,
    /// All.
    Whole,
}

impl Figure {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Liars,
        Self::Diversity,
        Self::Acceptance,
        Self::Healing,
        Self::Traffic,
        Self::Attestations,
        Self::Copycats,
        Self::Commitments,
    ];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Liars => "liars",
            Self::Diversity => "diversity",
            Self::Acceptance => "acceptance",
            Self::Healing => "healing",
            Self::Traffic => "traffic",
            Self::Attestations => "attestations",
            Self::Copycats => "copycats",
            Self::Commitments => "commitments",
        }
    }

    /// The one of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|figure| figure.name() == name)
    }

    /// Draws it.
    ///
    /// # Errors
    ///
    /// [`Failure`], if something does not hold in one of its worlds that must.
    pub fn draw(self, extent: Extent) -> Result<Plot, Failure> {
        match self {
            Self::Liars => Ok(judged::liars(extent)),
            Self::Diversity => Ok(judged::diversity(extent)),
            Self::Acceptance => measured::acceptance(extent),
            Self::Healing => measured::healing(extent),
            Self::Traffic => measured::traffic(extent),
            Self::Attestations => measured::attestations(extent),
            Self::Copycats => measured::copycats(extent),
            Self::Commitments => measured::commitments(extent),
        }
    }
}

impl Extent {
    /// What a small figure has, or a whole one.
    fn of<T>(self, small: T, whole: T) -> T {
        match self {
            Self::Small => small,
            Self::Whole => whole,
        }
    }
}
