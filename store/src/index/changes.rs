//! What records change in the index, gathered until it is written in one batch.

use std::collections::{BTreeMap, btree_map};

use protocol::key::AttesterKey;

use super::{
    ACTION, APPLIED, Applied, BEARING, DIVIDED, Gist, Index, IndexError, LOCATION_BYTES, MAKER, ORDER, PIN,
    REALISATION, block_key,
    claims::{Blocks, Claim},
    key, location_bytes, slot,
};
use crate::journal::Placed;

/// Longest value, see the header of `index.rs`; ours are much shorter.
const VALUE_BYTES: usize = 4096;

/// Entries that are changed at once, about: 4 MiB of them, which are in memory twice meanwhile.
const MANY: usize = 4096;

pub(super) struct Changes<'i> {
    index: &'i Index,
    batch: Batch,
    /// Entries of the batch.
    entries: usize,
    /// Pins that are gone.
    unpinned: Vec<String>,
    /// Blocks of statements, by feed and place.
    feeds: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Blocks of statements, by action.
    claims: Blocks<'i>,
}

/// What sled is given at once.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) sled: sled::Batch,
    /// Of keys and values.
    pub(super) bytes: usize,
}

impl<'i> Changes<'i> {
    pub(super) fn new(index: &'i Index) -> Self {
        Self {
            index,
            batch: Batch::default(),
            entries: 0,
            unpinned: Vec::new(),
            feeds: BTreeMap::new(),
            claims: Blocks::new(index),
        }
    }

    /// Whether they should be written before there are more.
    pub(super) fn are_many(&self) -> bool {
        self.entries + self.unpinned.len() + self.feeds.len() + self.claims.changed() >= MANY
    }

    pub(super) fn add(&mut self, Placed { at: location, gist, .. }: &Placed) -> Result<(), IndexError> {
        let at = location_bytes(*location);
        match gist {
            Gist::Action(id) => self.put(key(ACTION, id.as_bytes()), &at),
            Gist::Built { action, nars } => {
                self.put(key(REALISATION, action.as_bytes()), &at);
                self.put(key(ORDER, &at), action.as_bytes());
                for nar in nars {
                    self.put([&[MAKER], &nar.as_bytes()[..], action.as_bytes()].concat(), &at);
                }
            }
            Gist::Pinned(name) => {
                self.unpinned.retain(|n| n != name);
                self.put(key(PIN, name.as_bytes()), &at);
            }
            Gist::Unpinned(name) => self.unpinned.push(name.clone()),
            Gist::Statement { attester, place, claim, bears } => {
                self.place(attester, *place, &at)?;
                if let Some((action, outcome)) = *claim {
                    self.claims.add(&Claim { action, at: *location, outcome })?;
                }
                if *bears {
                    self.put(bearing(attester, &at), &[]);
                }
            }
            Gist::Bearing(attester) => self.put(bearing(attester, &at), &[]),
        }
        Ok(())
    }

    /// Notes where a statement is, in a block that is read if it is not among those that are changed.
    fn place(
        &mut self,
        attester: &AttesterKey,
        place: u64,
        at: &[u8; LOCATION_BYTES],
    ) -> Result<(), IndexError> {
        let places = match self.feeds.entry(block_key(attester, place)) {
            btree_map::Entry::Occupied(known) => known.into_mut(),
            btree_map::Entry::Vacant(unread) => {
                let known = self.index.ask(|db| db.get(unread.key()))?;
                unread.insert(known.map(|places| places.to_vec()).unwrap_or_default())
            }
        };
        let slot = slot(place);
        places.resize(places.len().max(slot.end), 0);
        places[slot].copy_from_slice(at);
        Ok(())
    }

    fn put(&mut self, key: Vec<u8>, value: &[u8]) {
        self.entries += 1;
        self.batch.put(key, value);
    }

    /// All of it, and the mark of how far the journal is applied with it.
    pub(super) fn finish(self, applied: &Applied) -> Batch {
        let Self { mut batch, unpinned, feeds, claims, .. } = self;
        feeds.into_iter().for_each(|(block, places)| batch.put(block, &places));
        let (blocks, divided) = claims.finish();
        blocks.for_each(|(block, claims)| batch.put(block, &claims));
        divided.iter().for_each(|action| batch.put(key(DIVIDED, action.as_bytes()), &[]));
        batch.put(APPLIED.to_vec(), &applied.bytes());
        // A batch keeps the last word on each key, and these are the last words on theirs.
        unpinned.iter().for_each(|name| batch.sled.remove(key(PIN, name.as_bytes())));
        batch
    }
}

impl Batch {
    fn put(&mut self, key: Vec<u8>, value: &[u8]) {
        assert!(value.len() <= VALUE_BYTES, "the index holds small values only");
        self.bytes += key.len() + value.len();
        self.sled.insert(key, value);
    }
}

fn bearing(attester: &AttesterKey, at: &[u8; LOCATION_BYTES]) -> Vec<u8> {
    [&key(BEARING, attester.as_bytes())[..], at].concat()
}
