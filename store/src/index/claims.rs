//! Blocks of claims: what is said of actions, sorted, so many to an entry of sled's.
//!
//! ```text
//! 'c'              claims, sorted        the first block has no more than this as its key
//! 'c' claim        claims, sorted        any other is named by the claim that was its first once
//! claim:           action, location, outcome (60 bytes)
//! ```
//!
//! A block holds what is not smaller than its key and smaller than the next one's. One that is full is
//! split, so this is the lowest level of a tree whose others are sled's, and costs less by how much fewer
//! its entries are. Claims of one action are in the order of the journal: a new one comes behind
//! those that are here, so whether it says what they say is seen from the one before it.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use minicbor::Encoder;
use protocol::{
    id::ActionId,
    statement::{Body, Statement},
};

use super::{CLAIM, Index, IndexError, LOCATION_BYTES, location_bytes, read_location};
use crate::journal::Location;

/// Bytes of a claim.
const BYTES: usize = 32 + LOCATION_BYTES + OUTCOME_BYTES;

/// Enough that nobody finds an outcome that is taken for somebody else's.
const OUTCOME_BYTES: usize = 16;

/// Bytes that are enough for most outcomes while they are hashed: one output.
const OUTCOME_ROOM: usize = 128;

/// Claims of a block that is not split yet: 960 bytes. More would make adding a little cheaper, and
/// looking up dearer: sled reads sixteen entries for one.
const BLOCK: usize = 16;

/// What an execution is said to have come to, hashed: all but by whom, where, and how it is proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outcome([u8; OUTCOME_BYTES]);

/// That a statement says of an action what it came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) action: ActionId,
    pub(crate) at: Location,
    pub(crate) outcome: Outcome,
}

impl Outcome {
    /// Of what action a statement says what it came to, and what; `None` if it says no such thing.
    pub(crate) fn of(statement: &Statement) -> Option<(ActionId, Self)> {
        let mut e = Encoder::new(Vec::with_capacity(OUTCOME_ROOM));
        // Writing to a vector cannot fail.
        let (action, _) = match &statement.body {
            Body::Built(built) => (built.action, protocol::output::encode(&built.outputs, &mut e)),
            Body::Failed(failed) => (failed.action, e.encode((failed.step, failed.ending)).map(drop)),
            Body::Retract { .. } | Body::Succeed { .. } => return None,
        };
        let hash = blake3::hash(e.writer());
        Some((action, Self(*hash.as_bytes().first_chunk().expect("a hash is longer"))))
    }

    /// One of many.
    #[cfg(test)]
    pub(super) fn number(n: u32) -> Self {
        Self(std::array::from_fn(|at| n.to_le_bytes()[at % 4]))
    }
}

impl Claim {
    /// The key of a block of which it would be the first.
    pub(super) fn key(&self) -> Vec<u8> {
        [&[CLAIM], &self.bytes()[..]].concat()
    }

    fn bytes(&self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        bytes[..32].copy_from_slice(self.action.as_bytes());
        bytes[32..][..LOCATION_BYTES].copy_from_slice(&location_bytes(self.at));
        bytes[32 + LOCATION_BYTES..].copy_from_slice(&self.outcome.0);
        bytes
    }

    fn read(bytes: &[u8; BYTES]) -> Option<Self> {
        let (action, rest) = bytes.split_first_chunk::<32>()?;
        let (at, outcome) = rest.split_first_chunk::<LOCATION_BYTES>()?;
        Some(Self {
            action: ActionId::from_bytes(*action),
            at: read_location(at)?,
            outcome: Outcome(outcome.try_into().ok()?),
        })
    }
}

/// The claims of a block.
pub(super) fn read(block: &[u8]) -> Option<Vec<Claim>> {
    let (claims, []) = block.as_chunks() else { return None };
    claims.iter().map(Claim::read).collect()
}

/// A key behind all claims of an action.
pub(super) fn behind(action: &ActionId) -> Vec<u8> {
    [&[CLAIM], &action.as_bytes()[..], &[0xff; BYTES - 32]].concat()
}

/// Blocks while claims are added to them.
pub(super) struct Blocks<'i> {
    index: &'i Index,
    changed: BTreeMap<Vec<u8>, Vec<[u8; BYTES]>>,
    /// Those that were split off, and the block that each was in before.
    halves: BTreeMap<Vec<u8>, Vec<u8>>,
    /// How many were split off one block.
    split: BTreeMap<Vec<u8>, usize>,
    /// How many at most.
    most: usize,
    /// Of which something else is said now than before.
    divided: BTreeSet<ActionId>,
}

impl<'i> Blocks<'i> {
    pub(super) fn new(index: &'i Index) -> Self {
        Self {
            index,
            changed: BTreeMap::new(),
            halves: BTreeMap::new(),
            split: BTreeMap::new(),
            most: 0,
            divided: BTreeSet::new(),
        }
    }

    pub(super) fn add(&mut self, claim: &Claim) -> Result<(), IndexError> {
        let bytes = claim.bytes();
        let key = self.around([&[CLAIM], &bytes[..]].concat())?;
        let block = self.changed.get_mut(&key).ok_or(IndexError::Value)?;
        let at = match block.binary_search(&bytes) {
            // It is applied once more.
            Ok(_) => return Ok(()),
            Err(at) => at,
        };
        let before = at.checked_sub(1).and_then(|before| Claim::read(&block[before]));
        if before.is_some_and(|before| before.action == claim.action && before.outcome != claim.outcome) {
            self.divided.insert(claim.action);
        }
        block.insert(at, bytes);
        if block.len() > BLOCK {
            let upper = block.split_off(BLOCK / 2);
            let half = [&[CLAIM], &upper[0][..]].concat();
            let whole = self.halves.get(&key).cloned().unwrap_or(key);
            let count = self.split.entry(whole.clone()).or_default();
            *count += 1;
            self.most = self.most.max(*count);
            self.halves.insert(half.clone(), whole);
            self.changed.insert(half, upper);
        }
        Ok(())
    }

    /// The key of the block in which a claim belongs, which is among those that are changed.
    fn around(&mut self, claim: Vec<u8>) -> Result<Vec<u8>, IndexError> {
        let not_behind = (Bound::Unbounded, Bound::Included(&claim[..]));
        let nearest = self.changed.range::<[u8], _>(not_behind).next_back();
        if let Some((key, block)) = nearest
            && block.last().is_some_and(|last| claim[1..] <= last[..])
        {
            // What lies between two claims of one block is in no other: sled need not be asked.
            return Ok(key.clone());
        }
        let nearest = nearest.map(|(key, _)| key);
        let known = self.index.block_around(&claim)?;
        match (nearest, known) {
            (Some(nearest), Some((key, _))) if **nearest >= *key => Ok(nearest.clone()),
            (_, Some((key, block))) => {
                let (claims, []) = block.as_chunks() else { return Err(IndexError::Value) };
                // With room for those that come.
                let mut block = Vec::with_capacity(BLOCK + 1);
                block.extend_from_slice(claims);
                self.changed.insert(key.to_vec(), block);
                Ok(key.to_vec())
            }
            (Some(nearest), None) => Ok(nearest.clone()),
            (None, None) => {
                self.changed.insert(vec![CLAIM], Vec::new());
                Ok(vec![CLAIM])
            }
        }
    }

    /// How many blocks were split off one, at most.
    pub(super) fn most_split(&self) -> usize {
        self.most
    }

    /// How many entries are changed.
    pub(super) fn changed(&self) -> usize {
        self.changed.len() + self.divided.len()
    }

    /// What is to be written: blocks in the order of their keys, and whether they are the half of the one
    /// before; and the actions that are divided.
    pub(super) fn finish(self) -> (impl Iterator<Item = (Vec<u8>, Vec<u8>, bool)>, BTreeSet<ActionId>) {
        let Self { changed, halves, divided, .. } = self;
        let blocks = changed.into_iter().map(move |(key, claims)| {
            let is_half = halves.contains_key(&key);
            (key, claims.into_flattened(), is_half)
        });
        (blocks, divided)
    }
}
