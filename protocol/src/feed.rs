//! Feeds (SPEC §10.3): an attester's statements in their order, each bound to the one before it.

use crate::{
    id::StatementId,
    key::AttesterKey,
    statement::{Body, Signed},
};

/// Where a feed ends, as far as it is known: what the next statement must fit to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    attester: AttesterKey,
    next: u64,
    last: StatementId,
    ended: bool,
}

/// Why a statement is not the next of a feed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FeedError {
    /// It is another attester's.
    #[error("a statement of `{found}` in the feed of `{expected}`")]
    Attester {
        /// Whose feed it is.
        expected: AttesterKey,
        /// Whose statement it is.
        found: AttesterKey,
    },
    /// There is a statement at its place already. If it is not the same one, both together are an
    /// equivocation.
    #[error("place {place} is taken: the feed has {len} statements")]
    Taken {
        /// Its place.
        place: u64,
        /// How many statements are known.
        len: u64,
    },
    /// Statements before it are missing.
    #[error("place {place}, but the feed has {len} statements: those between are missing")]
    Gap {
        /// Its place.
        place: u64,
        /// How many statements are known.
        len: u64,
    },
    /// It follows another statement than the one that is known to be before it: both together are
    /// an equivocation.
    #[error("place {place} follows {says}, but before it is {known}")]
    Fork {
        /// Its place.
        place: u64,
        /// What it says is before it.
        says: StatementId,
        /// What is before it.
        known: StatementId,
    },
    /// The attester went on under another key.
    #[error("the feed ended at place {last}: its attester went on under another key")]
    Ended {
        /// The place of the succession.
        last: u64,
    },
}

impl Head {
    /// The head of a feed of which nothing is known.
    pub const fn empty(attester: AttesterKey) -> Self {
        Self { attester, next: 0, last: StatementId::from_bytes([0; 32]), ended: false }
    }

    /// The head of a feed whose last statement is `last`.
    pub fn behind(last: &Signed) -> Self {
        let statement = last.statement();
        Self {
            attester: statement.attester,
            next: statement.seq.saturating_add(1),
            last: last.id(),
            ended: matches!(statement.body, Body::Succeed { .. }),
        }
    }

    /// Whose feed it is.
    pub fn attester(&self) -> AttesterKey {
        self.attester
    }

    /// How many statements there are: the place of the next one.
    pub fn len(&self) -> u64 {
        self.next
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.next == 0
    }

    /// The last statement; zeros if there is none.
    pub fn last(&self) -> StatementId {
        self.last
    }

    /// Whether the attester went on under another key, so that nothing can follow.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// The head behind `next`, if that is the next statement.
    ///
    /// # Errors
    ///
    /// [`FeedError`]; the feed is as it was.
    pub fn follow(&self, next: &Signed) -> Result<Self, FeedError> {
        let statement = next.statement();
        let (place, len) = (statement.seq, self.next);
        if statement.attester != self.attester {
            return Err(FeedError::Attester { expected: self.attester, found: statement.attester });
        }
        if place < len {
            return Err(FeedError::Taken { place, len });
        }
        if self.ended {
            return Err(FeedError::Ended { last: len - 1 });
        }
        if place > len {
            return Err(FeedError::Gap { place, len });
        }
        if statement.prev != self.last {
            return Err(FeedError::Fork { place, says: statement.prev, known: self.last });
        }
        Ok(Self::behind(next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        key::{Context, Signature, SigningKey},
        statement::{Statement, succession},
    };

    fn key(n: u8) -> SigningKey {
        SigningKey::from_bytes(&[n; 32])
    }

    fn next(head: &Head, who: u8, body: Body) -> Signed {
        let (seq, prev) = (head.len(), head.last());
        Statement { attester: AttesterKey::of(&key(who)), seq, prev, time: 0, body }.sign(&key(who)).unwrap()
    }

    fn retract(n: u64) -> Body {
        Body::Retract { first: n, last: n }
    }

    fn succeed(old: u8, new: u8) -> Body {
        let (old, successor) = (AttesterKey::of(&key(old)), AttesterKey::of(&key(new)));
        let consent = Signature::sign(&key(new), Context::Succession, &succession(&old, &successor));
        Body::Succeed { successor, consent }
    }

    #[test]
    fn order_is_kept() {
        let empty = Head::empty(AttesterKey::of(&key(1)));
        assert!(empty.is_empty() && !empty.ended());
        let first = next(&empty, 1, succeed(1, 9));
        let other = next(&Head::empty(AttesterKey::of(&key(2))), 2, succeed(2, 9));
        assert!(matches!(empty.follow(&other), Err(FeedError::Attester { .. })));
        let ended = empty.follow(&first).unwrap();
        assert_eq!((ended.len(), ended.last(), ended.ended()), (1, first.id(), true));
        assert!(!ended.is_empty());
        assert_eq!(ended.follow(&first), Err(FeedError::Taken { place: 0, len: 1 }));
        let after = next(&ended, 1, retract(0));
        assert_eq!(ended.follow(&after), Err(FeedError::Ended { last: 0 }));
        assert_eq!(empty.follow(&after), Err(FeedError::Gap { place: 1, len: 0 }));
        let forked = Head { last: StatementId::from_bytes([7; 32]), ended: false, ..ended };
        assert!(matches!(forked.follow(&after), Err(FeedError::Fork { place: 1, .. })));
    }
}
