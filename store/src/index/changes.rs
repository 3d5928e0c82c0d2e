//! What records change in the index, gathered until it is written.

use std::collections::{BTreeMap, btree_map};

use protocol::key::AttesterKey;

use super::{
    ACTION, APPLIED, AT_ONCE, Applied, BEARING, DIVIDED, Gist, Index, IndexError, LOCATION_BYTES, MAKER,
    ORDER, PIN, REALISATION, block_key,
    claims::{Blocks, Claim},
    key, location_bytes, slot,
};
use crate::journal::Placed;

/// Longest value, see the header of `index.rs`; ours are much shorter.
const VALUE_BYTES: usize = 4096;

/// Entries that are changed together, about: 4 MiB of them, which are in memory twice meanwhile.
const MANY: usize = 4096;

pub(super) struct Changes<'i> {
    index: &'i Index,
    parts: Parts,
    /// Pins that are gone.
    unpinned: Vec<String>,
    /// Blocks of statements, by feed and place.
    feeds: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Blocks of statements, by action.
    claims: Blocks<'i>,
}

/// What sled is given, one part after the other.
#[derive(Default)]
struct Parts {
    full: Vec<sled::Batch>,
    last: sled::Batch,
    in_last: usize,
}

impl<'i> Changes<'i> {
    pub(super) fn new(index: &'i Index) -> Self {
        Self {
            index,
            parts: Parts::default(),
            unpinned: Vec::new(),
            feeds: BTreeMap::new(),
            claims: Blocks::new(index),
        }
    }

    /// Whether they should be written before there are more: because of what they take in memory, or
    /// because one block became so many that all are too much for one part.
    pub(super) fn are_many(&self) -> bool {
        self.parts.entries() + self.unpinned.len() + self.feeds.len() + self.claims.changed() >= MANY
            || self.claims.most_split() >= AT_ONCE
    }

    pub(super) fn add(&mut self, Placed { at: location, gist, .. }: &Placed) -> Result<(), IndexError> {
        let at = location_bytes(*location);
        match gist {
            Gist::Action(id) => self.parts.put(key(ACTION, id.as_bytes()), &at),
            Gist::Built { action, nars } => {
                self.parts.put(key(REALISATION, action.as_bytes()), &at);
                self.parts.put(key(ORDER, &at), action.as_bytes());
                for nar in nars {
                    self.parts.put([&[MAKER], &nar.as_bytes()[..], action.as_bytes()].concat(), &at);
                }
            }
            Gist::Pinned(name) => {
                self.unpinned.retain(|n| n != name);
                self.parts.put(key(PIN, name.as_bytes()), &at);
            }
            Gist::Unpinned(name) => self.unpinned.push(name.clone()),
            Gist::Statement { attester, place, claim, bears } => {
                self.place(attester, *place, &at)?;
                if let Some((action, outcome)) = *claim {
                    self.claims.add(&Claim { action, at: *location, outcome })?;
                }
                if *bears {
                    self.parts.put(bearing(attester, &at), &[]);
                }
            }
            Gist::Bearing(attester) => self.parts.put(bearing(attester, &at), &[]),
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

    /// All of it, and the mark of how far the journal is applied behind it. If only some parts are written,
    /// all that was known before is found, and writing all of them later comes to the same.
    pub(super) fn finish(self, applied: &Applied) -> Vec<sled::Batch> {
        let Self { mut parts, unpinned, feeds, claims, .. } = self;
        // The last words on these keys.
        unpinned.iter().for_each(|name| parts.remove(key(PIN, name.as_bytes())));
        feeds.into_iter().for_each(|(block, places)| parts.put(block, &places));
        let (blocks, divided) = claims.finish();
        // Before the claims, since who adds a claim again does not find out whether it divided them.
        divided.iter().for_each(|action| parts.put(key(DIVIDED, action.as_bytes()), &[]));
        for (block, claims, is_half) in blocks {
            // What is taken out of one block is written into the next one in the same part.
            if is_half { parts.put_beside(block, &claims) } else { parts.put(block, &claims) }
        }
        parts.put_beside(APPLIED.to_vec(), &applied.bytes());
        let Parts { mut full, last, .. } = parts;
        full.push(last);
        full
    }
}

impl Parts {
    /// Of all of them, about.
    fn entries(&self) -> usize {
        self.full.len() * AT_ONCE + self.in_last
    }

    fn put(&mut self, key: Vec<u8>, value: &[u8]) {
        self.make_room();
        self.put_beside(key, value);
    }

    /// In the same part as the one before.
    fn put_beside(&mut self, key: Vec<u8>, value: &[u8]) {
        assert!(value.len() <= VALUE_BYTES, "the index holds small values only");
        self.in_last += 1;
        self.last.insert(key, value);
    }

    fn remove(&mut self, key: Vec<u8>) {
        self.make_room();
        self.in_last += 1;
        self.last.remove(key);
    }

    fn make_room(&mut self) {
        if self.in_last >= AT_ONCE {
            self.full.push(std::mem::take(&mut self.last));
            self.in_last = 0;
        }
    }
}

fn bearing(attester: &AttesterKey, at: &[u8; LOCATION_BYTES]) -> Vec<u8> {
    [&key(BEARING, attester.as_bytes())[..], at].concat()
}
