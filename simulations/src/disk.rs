//! What a node keeps: the store, without a disk.
//!
//! What is here is durable. What is being written when a node dies is not here yet.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use protocol::{
    evidence::{Equivocation, Evidence},
    feed::{FeedError, Head},
    id::{ActionId, NarHash},
    key::AttesterKey,
    limits,
    message::{Answer, FeedHead, ProofsDigest, fitting},
};
use trust::peer::{Fate, Serve};

use crate::notary::{Good, Sworn};

/// What a node keeps.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk {
    feeds: BTreeMap<AttesterKey, Feed>,
    proofs: BTreeMap<AttesterKey, Vec<Arc<Evidence>>>,
    /// The statements of all feeds, by the action that they are about.
    about: BTreeMap<ActionId, Vec<Arc<Sworn>>>,
    /// Archives.
    pub(crate) nars: BTreeSet<NarHash>,
}

#[derive(Debug, Clone)]
struct Feed {
    head: Head,
    said: Vec<Arc<Sworn>>,
    /// The first place that cannot be read any more.
    rotten: Option<usize>,
}

impl Disk {
    /// Whose feeds are there, or against whom something is known.
    pub(crate) fn attesters(&self) -> BTreeSet<AttesterKey> {
        self.feeds.keys().chain(self.proofs.keys()).copied().collect()
    }

    /// What an attester said.
    pub(crate) fn said(&self, attester: &AttesterKey) -> &[Arc<Sworn>] {
        self.feeds.get(attester).map_or(&[], |feed| &feed.said)
    }

    /// What everybody said of an action, in the order in which it came.
    pub(crate) fn about(&self, action: &ActionId) -> &[Arc<Sworn>] {
        self.about.get(action).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn proofs(&self, attester: &AttesterKey) -> &[Arc<Evidence>] {
        self.proofs.get(attester).map_or(&[], Vec::as_slice)
    }

    /// Whether it is known that a key equivocated.
    pub(crate) fn equivocated(&self, attester: &AttesterKey) -> bool {
        self.proofs(attester).iter().any(|proof| matches!(**proof, Evidence::Equivocation(_)))
    }

    /// The first place of a key's feed that does not count, if it is known to be revoked.
    pub(crate) fn revoked(&self, attester: &AttesterKey) -> Option<u64> {
        let since = |proof: &Arc<Evidence>| match &**proof {
            Evidence::Revocation(revocation) => Some(revocation.since()),
            _ => None,
        };
        self.proofs(attester).iter().filter_map(since).min()
    }

    /// Where the feed of an attester ends.
    pub(crate) fn end(&self, attester: &AttesterKey) -> Head {
        self.feeds.get(attester).map_or(Head::empty(*attester), |feed| feed.head)
    }

    /// The same, as it is told to others.
    pub(crate) fn head(&self, attester: &AttesterKey) -> FeedHead {
        let head = self.end(attester);
        let proofs = self.proofs.get(attester).map(|proofs| ProofsDigest::of(proofs.iter().map(|p| &**p)));
        FeedHead {
            attester: *attester,
            len: head.len(),
            last: head.last(),
            proofs: proofs.unwrap_or_default(),
        }
    }

    /// Keeps what is good, as a store does.
    pub(crate) fn keep(&mut self, good: Good) -> Fate {
        match good {
            Good::Proof(proof) => self.keep_proof(proof),
            Good::Statement(sworn) => self.keep_statement(sworn),
        }
    }

    fn keep_proof(&mut self, proof: Arc<Evidence>) -> Fate {
        let says_as_much = |known: &Arc<Evidence>| match (&**known, &*proof) {
            (Evidence::Equivocation(_), Evidence::Equivocation(_)) => true,
            (Evidence::Revocation(known), Evidence::Revocation(proof)) => known.since() <= proof.since(),
            _ => false,
        };
        let known = self.proofs.entry(proof.attester()).or_default();
        if known.iter().any(says_as_much) {
            return Fate::Known;
        }
        known.push(proof);
        Fate::New
    }

    fn keep_statement(&mut self, sworn: Arc<Sworn>) -> Fate {
        let statement = sworn.signed.statement();
        let (attester, place) = (statement.attester, statement.seq);
        let empty = || Feed { head: Head::empty(attester), said: Vec::new(), rotten: None };
        let feed = self.feeds.entry(attester).or_insert_with(empty);
        let rival = match feed.head.follow(&sworn.signed) {
            Ok(head) => {
                feed.head = head;
                feed.said.push(sworn.clone());
                if let Some(record) = &sworn.record {
                    self.about.entry(record.action).or_default().push(sworn);
                }
                return Fate::New;
            }
            Err(FeedError::Gap { .. }) => return Fate::Missing { attester, place },
            Err(FeedError::Taken { place, .. }) => &feed.said[place as usize],
            Err(FeedError::Fork { place, .. }) => &feed.said[place as usize - 1],
            Err(FeedError::Attester { .. } | FeedError::Ended { .. }) => return Fate::Refused,
        };
        if rival.id == sworn.id {
            return Fate::Known;
        }
        let Ok(proof) = Equivocation::new(rival.signed.clone(), sworn.signed.clone()) else {
            return Fate::Refused;
        };
        self.keep_proof(Arc::new(Evidence::Equivocation(proof.clone())));
        Fate::Equivocation(proof)
    }

    /// What is told to somebody who asks.
    pub(crate) fn serve(&self, serve: Serve) -> Answer {
        let items: Vec<_> = match serve {
            Serve::Have { nars } => {
                return Answer::Have(nars.into_iter().filter(|nar| self.nars.contains(nar)).collect());
            }
            // What an action is a node knows from elsewhere.
            Serve::Sought(_) => return Answer::Absent,
            Serve::Statements { attester, from } => {
                let readable = self.feeds.get(&attester).and_then(|feed| feed.rotten);
                let said = self.said(&attester).iter().take(readable.unwrap_or(usize::MAX));
                said.skip(from as usize).take(limits::ITEMS).map(|sworn| sworn.to_item()).collect()
            }
            Serve::Proofs { attester } => {
                self.proofs(&attester).iter().map(|proof| (**proof).clone().into()).collect()
            }
        };
        let fits = fitting(&items, limits::ANSWER_BYTES);
        Answer::Items(items.into_iter().take(fits).collect())
    }

    /// A statement cannot be read any more.
    pub(crate) fn rot(&mut self, attester: &AttesterKey, place: usize) {
        if let Some(feed) = self.feeds.get_mut(attester) {
            feed.rotten = Some(feed.rotten.map_or(place, |other| other.min(place)));
        }
    }

    /// Whether something cannot be read any more.
    pub(crate) fn rotten(&self) -> bool {
        self.feeds.values().any(|feed| feed.rotten.is_some())
    }

    /// What opening a store does: feeds end before what cannot be read.
    pub(crate) fn scrub(&mut self) {
        for (attester, feed) in &mut self.feeds {
            let Some(place) = feed.rotten.take() else { continue };
            for lost in feed.said.drain(place..) {
                let about = lost.record.as_ref().and_then(|record| self.about.get_mut(&record.action));
                about.into_iter().for_each(|about| about.retain(|said| said.id != lost.id));
            }
            feed.head = feed.said.last().map_or(Head::empty(*attester), |last| Head::behind(&last.signed));
        }
    }
}
