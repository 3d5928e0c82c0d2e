//! Wishes of others (SPEC §20).
//!
//! A wish weighs nothing: it may give a rebuilder something to do. So of each key the latest is
//! kept, for a while, of strangers no more than a few, and none more often than it makes sense to
//! say it again.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{
    key::AttesterKey,
    wish::{UnverifiedWish, Wish},
};

use super::{Effect, NodeId, Peer, Relay, Time, Why};
use crate::limits::{STRANGERS_WISHES, WISH_LIFE, WISH_PAUSE};

/// What others wish.
#[derive(Debug, Clone, Default)]
pub(super) struct Wishes {
    /// The latest of each key, and when it was heard.
    latest: BTreeMap<AttesterKey, (Wish, Time)>,
}

impl Wishes {
    /// Forgets what nobody has said again.
    fn forget(&mut self, now: Time) {
        self.latest.retain(|_, (_, heard)| heard.after(WISH_LIFE) > now);
    }

    /// Whether a wish may be news, before its signature is checked.
    fn wants(&self, wish: &UnverifiedWish, follow: &BTreeSet<AttesterKey>, now: Time) -> bool {
        match self.latest.get(&wish.attester()) {
            // To withdraw is no news to wait for, and wins nothing: the next one waits all the same.
            Some((known, heard)) => {
                let due = heard.after(WISH_PAUSE) <= now || wish.is_empty() && !known.actions().is_empty();
                wish.number() > known.number() && due
            }
            None if follow.contains(&wish.attester()) => true,
            None => {
                let strangers = self.latest.keys().filter(|key| !follow.contains(key)).count();
                strangers < STRANGERS_WISHES && !wish.is_empty()
            }
        }
    }
}

impl Peer {
    /// What is wished, by others and from here; what was withdrawn is there and empty.
    pub fn wishes(&self, now: Time) -> impl Iterator<Item = &Wish> {
        let fresh = move |heard: &Time| heard.after(WISH_LIFE) > now;
        self.wishes.latest.values().filter(move |(_, heard)| fresh(heard)).map(|(wish, _)| wish)
    }

    /// This node's owner wishes something.
    pub(super) fn wish(&mut self, wish: Wish, now: Time, effects: &mut Vec<Effect>) {
        self.wishes.forget(now);
        self.wishes.latest.insert(wish.attester(), (wish.clone(), now));
        effects.push(Effect::Proclaim { wish });
    }

    pub(super) fn wished(
        &mut self,
        node: NodeId,
        message: u64,
        wish: Option<UnverifiedWish>,
        now: Time,
        effects: &mut Vec<Effect>,
    ) {
        self.wishes.forget(now);
        let reject = Effect::Relay { message, relay: Relay::Reject };
        let Some(wish) = wish else {
            effects.push(reject);
            return self.strike(node, Why::Nonsense, now, effects);
        };
        let free = self.links.get_mut(&node).is_some_and(|link| link.wishes.take(1, now));
        let broken = self.broken.contains(&wish.attester());
        if !free || broken || !self.wishes.wants(&wish, &self.follow, now) {
            return effects.push(Effect::Relay { message, relay: Relay::Ignore });
        }
        match wish.verify() {
            Ok(wish) => {
                let before = self.wishes.latest.get(&wish.attester()).map(|(_, heard)| *heard);
                let heard = if wish.actions().is_empty() { before.unwrap_or(now) } else { now };
                self.wishes.latest.insert(wish.attester(), (wish, heard));
                effects.push(Effect::Relay { message, relay: Relay::Accept });
            }
            Err(_) => {
                effects.push(reject);
                self.strike(node, Why::Forged, now, effects);
            }
        }
    }
}
