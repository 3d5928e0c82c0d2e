//! Standings (SPEC §15.1): what is known against a key, from evidence.
//!
//! ```text
//! evidence (verified) ── apply ──▶ Standings ──▶ ledger.rs (which statements count)
//! ```
//!
//! A fold: the order of the evidence does not matter, nor whether some of it comes twice.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{
    evidence::Evidence,
    key::AttesterKey,
    statement::{Body, Signed},
};
use serde::Serialize;

/// What is known against one key. Memory is linear in the retractions that it signed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Standing {
    revoked: Option<u64>,
    equivocated: bool,
    /// Each retraction: its own place, the first and the last that it withdraws.
    retractions: BTreeSet<(u64, u64, u64)>,
    succession: Option<Succession>,
}

/// That a key's feed ended, by what is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Succession {
    /// The earliest place at which it did.
    at: u64,
    /// The key it went on under; `None` if it named several.
    successor: Option<AttesterKey>,
}

/// Why a statement of a key does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Against {
    /// The key signed two statements that exclude each other: nothing it says counts, for ever.
    Equivocated,
    /// The key was revoked, from this place on.
    Revoked {
        /// The first place that does not count.
        since: u64,
    },
    /// The key's feed ended there, or before.
    Ended {
        /// The place of the succession.
        at: u64,
    },
    /// It was withdrawn.
    Retracted {
        /// The place of the retraction.
        by: u64,
    },
}

impl Standing {
    fn apply(&mut self, evidence: &Evidence) {
        match evidence {
            Evidence::Revocation(revocation) => {
                let since = revocation.since();
                self.revoked = Some(self.revoked.map_or(since, |known| known.min(since)));
            }
            Evidence::Equivocation(equivocation) => {
                self.equivocated = true;
                for statement in equivocation.statements() {
                    self.hear(statement);
                }
            }
            Evidence::Statement(statement) => self.hear(statement),
        }
    }

    fn hear(&mut self, signed: &Signed) {
        let statement = signed.statement();
        match &statement.body {
            Body::Built(_) | Body::Failed(_) => {}
            Body::Retract { first, last } => {
                self.retractions.insert((statement.seq, *first, *last));
            }
            Body::Succeed { successor, .. } => {
                let heard = Succession { at: statement.seq, successor: Some(*successor) };
                self.succession = Some(self.succession.map_or(heard, |known| Succession {
                    at: known.at.min(heard.at),
                    // Which of several is the thief's cannot be seen from here.
                    successor: known.successor.filter(|known| known == successor),
                }));
            }
        }
    }

    /// Why the statement at a place does not count; `None` if nothing is known against it.
    pub fn against(&self, seq: u64) -> Option<Against> {
        self.against_all().or_else(|| self.against_place(seq)).or_else(|| {
            // A retraction withdraws only if it counts itself.
            let mut counting = self.retractions.iter().filter(|(by, ..)| self.against_place(*by).is_none());
            let by = counting.find(|(_, first, last)| (*first..=*last).contains(&seq))?.0;
            Some(Against::Retracted { by })
        })
    }

    /// Whether the key withdrew anything.
    pub fn has_retracted(&self) -> bool {
        !self.retractions.is_empty()
    }

    /// Why nothing of the key counts.
    pub fn against_all(&self) -> Option<Against> {
        if self.equivocated {
            return Some(Against::Equivocated);
        }
        (self.revoked == Some(0)).then_some(Against::Revoked { since: 0 })
    }

    fn against_place(&self, seq: u64) -> Option<Against> {
        if let Some(since) = self.revoked.filter(|since| *since <= seq) {
            return Some(Against::Revoked { since });
        }
        // Another statement at the place of the succession would be a fork. A revocation from before
        // that place on was answered above.
        let ended = self.succession.filter(|ended| ended.at <= seq)?;
        Some(Against::Ended { at: ended.at })
    }

    /// The key to go on with; `None` if there is none, several are named, or the naming does not
    /// count.
    pub fn successor(&self) -> Option<AttesterKey> {
        let ended = self.succession?;
        if self.equivocated || self.revoked.is_some_and(|since| since <= ended.at) {
            return None;
        }
        ended.successor
    }
}

/// What is known against keys.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Standings(BTreeMap<AttesterKey, Standing>);

impl Standings {
    /// Takes one item of evidence into account. Statements that say nothing about their own key
    /// (attestations, failures) change nothing.
    pub fn apply(&mut self, evidence: &Evidence) {
        if let Evidence::Statement(statement) = evidence
            && let Body::Built(_) | Body::Failed(_) = statement.statement().body
        {
            return;
        }
        self.0.entry(evidence.attester()).or_default().apply(evidence);
    }

    /// What is known against a key; `None` if nothing.
    pub fn of(&self, key: &AttesterKey) -> Option<&Standing> {
        self.0.get(key)
    }

    /// The keys against which something is known.
    pub fn iter(&self) -> impl Iterator<Item = (&AttesterKey, &Standing)> {
        self.0.iter()
    }
}

impl<'e> FromIterator<&'e Evidence> for Standings {
    fn from_iter<I: IntoIterator<Item = &'e Evidence>>(evidence: I) -> Self {
        let mut standings = Self::default();
        evidence.into_iter().for_each(|item| standings.apply(item));
        standings
    }
}
