//! Seats: everybody who may vote, numbered.
//!
//! Claims come from the roster and so does a policy, so that both mean the same by a number, and a
//! judge need not look up a thousand names. If they are of different rosters, names decide.

use std::sync::Arc;

use protocol::name::Name;

use crate::roster::{self, Roster};

/// The names of the roster and `self`, in order. The number of a name is its seat.
#[derive(Debug, Clone, Eq)]
pub(crate) struct Seats(Arc<[Name]>);

/// Names of one roster are the same in memory, which is seen sooner than that they are equal.
impl PartialEq for Seats {
    fn eq(&self, other: &Self) -> bool {
        let same = |(a, b): (&Name, &Name)| std::ptr::eq(a.as_str(), b.as_str()) || a == b;
        self.0.len() == other.0.len() && self.0.iter().zip(&*other.0).all(same)
    }
}

impl Seats {
    pub(crate) fn of(roster: &Roster) -> Self {
        let mut names: Vec<_> = roster.iter().map(|(name, _)| name.clone()).chain([roster::own()]).collect();
        names.sort();
        Self(names.into())
    }

    /// The seat of a name.
    pub(crate) fn find(&self, name: &Name) -> Option<usize> {
        self.0.binary_search(name).ok()
    }

    /// Whose seat it is.
    pub(crate) fn name(&self, seat: usize) -> &Name {
        &self.0[seat]
    }

    pub(crate) fn names(&self) -> impl ExactSizeIterator<Item = &Name> + Clone {
        self.0.iter()
    }
}
