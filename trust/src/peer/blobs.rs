//! Archives that are wanted here (SPEC §18.3): whom to ask for which piece, and when to give up.
//!
//! ```text
//! Want ─▶ who has it? ─▶ pieces, of several nodes at once ─▶ all there ─▶ Admit ─▶ done
//!            └─ nobody ─▶ Search ─ nobody ─▶ GiveUp
//! ```
//!
//! Each node is asked for as many pieces at once as it gives in two seconds. When none is left to be
//! asked for, a node with room takes over what another one is slow about; the first that comes counts.
//! Whoever sends something else than what was asked for is banished, and has wasted one piece.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{
    id::NarHash,
    limits::{NARS, PIECE_BYTES},
    message::Request,
};

use super::{Effect, NodeId, Peer, Time, Why, links::Link};
use crate::limits::{
    PIECE_BUSY, PIECE_FAILURES, PIECE_PATIENCE, PIECES, PIECES_OF_ONE, SEARCH_HOPE, SLOW, WANTS, ZSTD_BELOW,
};

/// What became of a piece that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    /// It came, was verified, and is kept. So many bytes crossed the line.
    Came {
        /// Bytes.
        bytes: u64,
    },
    /// The node does not have the archive.
    Absent,
    /// It has no time.
    Busy,
    /// What came is not a part of the archive.
    Wrong,
    /// Nothing came, or not all of it.
    Failed,
    /// This machine could not keep it.
    Disk,
}

/// Why an archive is not had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum GaveUp {
    /// Nobody who can be reached has it.
    Nowhere,
    /// This machine could not keep it.
    Disk,
    /// All pieces came, and what the disk has of them is something else.
    Damaged,
    /// Too much is wanted already.
    TooMany,
}

/// All that is wanted.
#[derive(Debug, Clone, Default)]
pub(super) struct Blobs {
    wants: BTreeMap<NarHash, Want>,
    /// Pieces that were asked for.
    coming: BTreeMap<u64, Coming>,
}

/// An archive that is wanted.
#[derive(Debug, Clone)]
struct Want {
    size: u64,
    /// Pieces that are not there and not asked for.
    left: BTreeSet<u64>,
    /// Pieces that are asked for, and of how many nodes.
    asked: BTreeMap<u64, usize>,
    /// Who has it, and how it failed to send a piece since the last that came.
    from: BTreeMap<NodeId, Failures>,
    search: Search,
}

/// How often something was not had of a node, one after the other.
#[derive(Debug, Clone, Copy, Default)]
struct Failures {
    failed: u32,
    busy: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Search {
    /// Not yet: there are others to be asked.
    No,
    /// It goes on.
    Yes,
    /// It has ended: whoever was found may still connect, until then.
    Until(Time),
    /// Nobody else will: if nobody has it who is asked now, it is given up.
    Over,
    /// All pieces are there, and are being looked at.
    Found,
}

/// A piece that was asked for.
#[derive(Debug, Clone)]
struct Coming {
    node: NodeId,
    nar: NarHash,
    piece: u64,
    since: Time,
}

impl Blobs {
    /// When something is due, if nothing happens before.
    pub(super) fn wake(&self) -> Option<Time> {
        let pieces = self.coming.values().map(|coming| coming.since.after(PIECE_PATIENCE));
        let searches = self.wants.values().filter_map(|want| match want.search {
            Search::Until(time) => Some(time),
            Search::No | Search::Yes | Search::Over | Search::Found => None,
        });
        pieces.chain(searches).min()
    }

    /// Archives that are wanted.
    pub(super) fn len(&self) -> usize {
        self.wants.len()
    }

    /// What is wanted, for a node that was not asked yet.
    pub(super) fn wanted(&self) -> BTreeSet<NarHash> {
        self.wants.keys().copied().collect()
    }
}

impl Link {
    /// How many pieces it may be asked for at once: what it gives in two seconds.
    fn room(&self) -> usize {
        let two_seconds = usize::try_from(2 * self.speed / PIECE_BYTES);
        match self.speed {
            0 => 2,
            _ => two_seconds.unwrap_or(usize::MAX).clamp(1, PIECES_OF_ONE),
        }
    }
}

impl Peer {
    pub(super) fn want(
        &mut self,
        nar: NarHash,
        size: u64,
        missing: BTreeSet<u64>,
        effects: &mut Vec<Effect>,
    ) {
        if self.blobs.wants.contains_key(&nar) {
            return;
        }
        if self.blobs.wants.len() >= WANTS {
            return effects.push(Effect::GiveUp { nar, why: GaveUp::TooMany });
        }
        let (asked, from) = (BTreeMap::new(), BTreeMap::new());
        self.blobs.wants.insert(nar, Want { size, left: missing, asked, from, search: Search::No });
        self.links.iter_mut().for_each(|(_, link)| _ = link.have.insert(nar));
        self.admit(nar, effects);
    }

    pub(super) fn unwant(&mut self, nar: NarHash, effects: &mut Vec<Effect>) {
        self.blobs.wants.remove(&nar);
        self.links.iter_mut().for_each(|(_, link)| _ = link.have.remove(&nar));
        self.cancel(|coming| coming.nar == nar, effects);
    }

    /// Asks for what is needed no more to be left alone.
    fn cancel(&mut self, which: impl Fn(&Coming) -> bool, effects: &mut Vec<Effect>) {
        let tasks: Vec<u64> =
            self.blobs.coming.iter().filter(|(_, coming)| which(coming)).map(|(task, _)| *task).collect();
        for task in tasks {
            self.take_coming(task);
            effects.push(Effect::Cancel { task });
        }
    }

    /// A piece is not asked for any more.
    fn take_coming(&mut self, task: u64) -> Option<Coming> {
        let coming = self.blobs.coming.remove(&task)?;
        if let Some(link) = self.links.get_mut(&coming.node) {
            link.pieces = link.pieces.saturating_sub(1);
        }
        let want = self.blobs.wants.get_mut(&coming.nar);
        if let Some(want) = want
            && let Some(times) = want.asked.get_mut(&coming.piece)
        {
            *times -= 1;
            if *times == 0 {
                want.asked.remove(&coming.piece);
                want.left.insert(coming.piece);
            }
        }
        Some(coming)
    }

    /// A node says which archives it has, of those that it was asked for.
    pub(super) fn has(
        &mut self,
        node: NodeId,
        asked: &[NarHash],
        nars: &[NarHash],
        now: Time,
        effects: &mut Vec<Effect>,
    ) {
        if nars.iter().any(|nar| asked.binary_search(nar).is_err()) {
            return self.strike(node, Why::Nonsense, now, effects);
        }
        if let Some(link) = self.links.get_mut(&node) {
            link.busy = 0;
        }
        for nar in nars {
            if let Some(want) = self.blobs.wants.get_mut(nar) {
                want.from.entry(node).or_default();
            }
        }
    }

    /// A node has no time to say what it has: it is asked again, but not for ever.
    pub(super) fn has_no_time(&mut self, node: NodeId, asked: Vec<NarHash>, now: Time) {
        let wanted = asked.into_iter().filter(|nar| self.blobs.wants.contains_key(nar));
        if let Some(link) = self.links.get_mut(&node) {
            link.busy += 1;
            if link.busy < PIECE_BUSY {
                link.have.extend(wanted);
            }
            link.rest = now.after(SLOW);
        }
    }

    /// A node is gone.
    pub(super) fn lost(&mut self, node: NodeId, effects: &mut Vec<Effect>) {
        self.blobs.wants.values_mut().for_each(|want| _ = want.from.remove(&node));
        self.cancel(|coming| coming.node == node, effects);
    }

    pub(super) fn piece(&mut self, task: u64, piece: Piece, now: Time, effects: &mut Vec<Effect>) {
        let at_once = self.blobs.coming.get(&task).and_then(|coming| self.links.get(&coming.node));
        let at_once = at_once.map_or(1, |link| link.pieces);
        // It was cancelled.
        let Some(Coming { node, nar, piece: number, since }) = self.take_coming(task) else { return };
        let Some(want) = self.blobs.wants.get_mut(&nar) else { return };
        match piece {
            Piece::Came { bytes } => {
                want.left.remove(&number);
                want.asked.remove(&number);
                want.from.entry(node).and_modify(|failures| *failures = Failures::default());
                if let Some(link) = self.links.get_mut(&node) {
                    let millis = now.0.saturating_sub(since.0).max(1);
                    let speed = bytes.saturating_mul(1000).saturating_mul(at_once as u64) / millis;
                    link.speed = if link.speed == 0 { speed } else { (3 * link.speed + speed) / 4 }.max(1);
                }
                // Whoever else was asked for it need not send it.
                self.cancel(|coming| coming.nar == nar && coming.piece == number, effects);
                self.admit(nar, effects);
            }
            Piece::Absent => _ = want.from.remove(&node),
            Piece::Busy | Piece::Failed => {
                if let Some(failures) = want.from.get_mut(&node) {
                    match piece {
                        Piece::Busy => failures.busy += 1,
                        _ => failures.failed += 1,
                    }
                    if failures.failed >= PIECE_FAILURES || failures.busy >= PIECE_BUSY {
                        want.from.remove(&node);
                    }
                }
                if let Some(link) = self.links.get_mut(&node) {
                    link.rest = now.after(SLOW);
                }
            }
            Piece::Wrong => self.strike(node, Why::Wrong, now, effects),
            Piece::Disk => self.give_up_want(nar, GaveUp::Disk, effects),
        }
    }

    /// When all pieces are there, they are looked at as one.
    fn admit(&mut self, nar: NarHash, effects: &mut Vec<Effect>) {
        let Some(want) = self.blobs.wants.get_mut(&nar) else { return };
        if want.left.is_empty() && want.asked.is_empty() && want.search != Search::Found {
            want.search = Search::Found;
            effects.push(Effect::Admit { nar });
        }
    }

    /// The archive is in the store, or something is wrong with what came of it.
    pub(super) fn admitted(&mut self, nar: NarHash, result: Result<(), GaveUp>, effects: &mut Vec<Effect>) {
        match result {
            Ok(()) => self.unwant(nar, effects),
            // Unless that was what an earlier want came to, which was given up.
            Err(why) if self.blobs.wants.get(&nar).is_some_and(|want| want.search == Search::Found) => {
                self.give_up_want(nar, why, effects);
            }
            Err(_) => {}
        }
    }

    fn give_up_want(&mut self, nar: NarHash, why: GaveUp, effects: &mut Vec<Effect>) {
        self.unwant(nar, effects);
        effects.push(Effect::GiveUp { nar, why });
    }

    /// A search beyond the connected nodes has ended; whoever was found is being connected to.
    pub(super) fn searched(&mut self, nar: NarHash, now: Time) {
        if let Some(want) = self.blobs.wants.get_mut(&nar)
            && want.search == Search::Yes
        {
            want.search = Search::Until(now.after(SEARCH_HOPE));
        }
    }

    /// Asks nodes what they have, and for pieces; gives up what nobody has.
    pub(super) fn fetch(&mut self, now: Time, effects: &mut Vec<Effect>) {
        let late = |(_, coming): &(&u64, &Coming)| coming.since.after(PIECE_PATIENCE) <= now;
        let late: Vec<u64> = self.blobs.coming.iter().filter(late).map(|(task, _)| *task).collect();
        for task in late {
            effects.push(Effect::Cancel { task });
            self.piece(task, Piece::Failed, now, effects);
        }
        self.ask_who_has(now, effects);
        self.ask_for_pieces(now, effects);
        self.search(now, effects);
    }

    fn ask_who_has(&mut self, now: Time, effects: &mut Vec<Effect>) {
        let open = |link: &Link| !link.have.is_empty() && !link.asked_have && link.rest <= now;
        let nodes: Vec<_> = self.links.iter().filter(|(_, l)| open(l)).map(|(node, _)| *node).collect();
        for node in nodes {
            let Some(link) = self.links.get_mut(&node) else { continue };
            let nars: Vec<_> = link.have.iter().take(NARS).copied().collect();
            nars.iter().for_each(|nar| _ = link.have.remove(nar));
            link.asked_have = true;
            self.ask(node, Request::Have { nars }, now, effects);
        }
    }

    fn ask_for_pieces(&mut self, now: Time, effects: &mut Vec<Effect>) {
        let wanted: Vec<NarHash> = self.blobs.wants.keys().copied().collect();
        for nar in wanted {
            // The fastest first; each in turn, so that all of them have something to do.
            let mut from: Vec<NodeId> = self.blobs.wants[&nar].from.keys().copied().collect();
            from.sort_by_key(|node| std::cmp::Reverse(self.links.get(node).map_or(0, |link| link.speed)));
            loop {
                let mut asked = false;
                for node in &from {
                    if self.blobs.coming.len() >= PIECES {
                        return;
                    }
                    asked |= self.ask_for_piece(nar, *node, now, effects);
                }
                if !asked {
                    break;
                }
            }
        }
    }

    /// Asks a node for one more piece, if it has room, and there is one for it.
    fn ask_for_piece(&mut self, nar: NarHash, node: NodeId, now: Time, effects: &mut Vec<Effect>) -> bool {
        let Some(link) = self.links.get(&node).filter(|link| link.pieces < link.room() && link.rest <= now)
        else {
            return false;
        };
        let (speed, zstd) = (link.speed, link.speed > 0 && link.speed < ZSTD_BELOW);
        let want = &self.blobs.wants[&nar];
        let Some(piece) = want.left.first().copied().or_else(|| self.slow_piece(nar, node, speed, now))
        else {
            return false;
        };
        let task = self.next;
        self.next += 1;
        let size = want.size;
        if let Some(want) = self.blobs.wants.get_mut(&nar) {
            want.left.remove(&piece);
            *want.asked.entry(piece).or_default() += 1;
        }
        if let Some(link) = self.links.get_mut(&node) {
            link.pieces += 1;
        }
        self.blobs.coming.insert(task, Coming { node, nar, piece, since: now });
        effects.push(Effect::Fetch { task, node, nar, size, piece, zstd });
        true
    }

    /// A piece that another node is slow about: it takes twice as long already as this one would.
    fn slow_piece(&self, nar: NarHash, node: NodeId, speed: u64, now: Time) -> Option<u64> {
        let usual = (PIECE_BYTES * 1000).checked_div(speed).map_or(SLOW, |millis| millis.max(50));
        let want = self.blobs.wants.get(&nar)?;
        let of_others = self.blobs.coming.values().filter(|coming| coming.nar == nar && coming.node != node);
        let slow = of_others.filter(|coming| coming.since.after(2 * usual) <= now);
        // Of two at once at most.
        let slow = slow.filter(|coming| want.asked.get(&coming.piece) == Some(&1));
        slow.min_by_key(|coming| (coming.since, coming.piece)).map(|coming| coming.piece)
    }

    /// Looks further for what no connected node has, and gives up when that has ended, too.
    fn search(&mut self, now: Time, effects: &mut Vec<Effect>) {
        for want in self.blobs.wants.values_mut() {
            if matches!(want.search, Search::Until(time) if time <= now) {
                want.search = Search::Over;
            }
        }
        let nobody = |want: &Want| want.from.is_empty() && want.search != Search::Found;
        let wants = self.blobs.wants.iter().filter(|(_, want)| nobody(want));
        for nar in wants.map(|(nar, _)| *nar).collect::<Vec<_>>() {
            let asked = |request: &Request| matches!(request, Request::Have { nars } if nars.contains(&nar));
            let open = self.links.iter().any(|(_, link)| link.have.contains(&nar))
                || self.questions.values().any(|question| asked(&question.request));
            let Some(want) = self.blobs.wants.get_mut(&nar).filter(|_| !open) else { continue };
            match want.search {
                Search::No => {
                    want.search = Search::Yes;
                    effects.push(Effect::Search { nar });
                }
                Search::Over => self.give_up_want(nar, GaveUp::Nowhere, effects),
                Search::Yes | Search::Until(_) | Search::Found => {}
            }
        }
    }

    /// When a piece that somebody is slow about may be taken over, at the earliest.
    pub(super) fn hurry(&self, now: Time) -> Option<Time> {
        let idle = self.blobs.wants.values().any(|want| want.left.is_empty() && want.from.len() > 1);
        let resting = self.links.iter().map(|(_, link)| link.rest).filter(|rest| *rest > now).min();
        let waits = self.blobs.wants.values().any(|want| !want.left.is_empty());
        let rest = resting.filter(|_| waits);
        let look = (idle && !self.blobs.coming.is_empty()).then(|| now.after(200));
        rest.into_iter().chain(look).min()
    }
}
