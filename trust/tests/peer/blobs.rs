//! Archives in pieces: of several nodes at once, whoever is slow, lies, or goes.

use std::collections::BTreeSet;

use protocol::{
    id::NarHash,
    limits::{NARS, PIECE_BYTES},
    message::{Answer, Request},
};
use trust::{
    limits,
    peer::{Effect, GaveUp, Input, NodeId, Peer, Piece, Time, Why},
};

use super::{node, world::World};

pub(super) fn nar(n: u8) -> NarHash {
    NarHash::from_bytes([n; 32])
}

/// Nodes of which all but the first have the archive 1, everybody connected.
fn world(count: u8) -> World {
    let mut world = World::new(count, &[]).everybody_connected();
    for n in 2..=count {
        world.members.get_mut(&n).unwrap().memory.nars.insert(nar(1));
    }
    world.run(1000);
    world
}

fn has(world: &World, n: u8) -> bool {
    world.members[&n].memory.nars.contains(&nar(1))
}

#[test]
fn pieces_come_of_several_nodes() {
    let mut world = world(4);
    world.want(1, nar(1), 100);
    world.run(5000);
    assert!(has(&world, 1));
    assert_eq!(world.sent.values().sum::<usize>(), 100);
    assert!(world.sent.values().all(|sent| (20..60).contains(sent)), "{:?}", world.sent);
    assert_eq!(world.members[&1].peer.status().wanted, 0);
}

/// Work moves from slow nodes to fast ones, so that one that hardly sends anything delays nobody.
#[test]
fn the_slow_delay_nobody() {
    let mut world = world(3);
    world.slow.insert(3, 60_000);
    world.want(1, nar(1), 200);
    // Alone, node 2 would take two seconds.
    world.run(6000);
    assert!(has(&world, 1));
    assert!(world.sent[&3] <= 2, "{:?}", world.sent);
    assert_eq!(world.disconnected, []);
}

/// Who sends something else has wasted the pieces that it was asked for, and is banished at once.
#[test]
fn liars_are_banished() {
    let mut world = world(5);
    world.liars = BTreeSet::from([2, 3, 4]);
    world.want(1, nar(1), 50);
    world.run(5000);
    assert!(has(&world, 1));
    let mut banished: Vec<_> = world.disconnected.clone();
    banished.sort();
    assert_eq!(banished, [2, 3, 4].map(|liar| (1, liar, Why::Wrong)));
    assert!([2, 3, 4].iter().all(|liar| world.sent[liar] <= 2), "{:?}", world.sent);
}

/// When all of them lie, that is the end of it, and nothing is kept.
#[test]
fn when_all_lie_nothing_is_had() {
    let mut world = world(4);
    world.liars = BTreeSet::from([2, 3, 4]);
    world.want(1, nar(1), 50);
    world.run(20_000);
    assert!(!has(&world, 1));
    assert_eq!(world.gave_up, [(1, nar(1), GaveUp::Nowhere)]);
}

#[test]
fn nodes_that_go_are_replaced() {
    let mut world = world(4);
    world.want(1, nar(1), 300);
    world.run(200);
    world.disconnect(1, 2);
    world.run(200);
    world.disconnect(1, 3);
    world.run(10_000);
    assert!(has(&world, 1));
    assert_eq!(world.disconnected, []);
}

/// What no connected node has is searched for; who is found is asked, and so is whoever comes by.
#[test]
fn what_nobody_has_is_searched_for() {
    for found in [false, true] {
        let mut world = World::new(3, &[]);
        world.connect(1, 2);
        world.members.get_mut(&3).unwrap().memory.nars.insert(nar(1));
        if found {
            world.found.insert(3);
        }
        world.want(1, nar(1), 3);
        world.run(limits::SEARCH_HOPE + 1000);
        assert_eq!((world.searches, has(&world, 1)), (1, found));
        let gave_up = (!found).then_some((1, nar(1), GaveUp::Nowhere));
        assert_eq!(world.gave_up, gave_up.into_iter().collect::<Vec<_>>());
    }
    let mut world = World::new(2, &[]);
    world.members.get_mut(&2).unwrap().memory.nars.insert(nar(1));
    world.want(1, nar(1), 3);
    world.run(limits::SEARCH_HOPE - 1000);
    world.connect(1, 2);
    world.run(1000);
    assert!(has(&world, 1));
}

/// Many archives at once: asked about together, had one and all.
#[test]
fn many_are_asked_about_together() {
    let mut world = World::new(2, &[]).everybody_connected();
    let all: Vec<_> = (0..1000_u32).map(|n| NarHash::of(&n.to_le_bytes())).collect();
    world.members.get_mut(&2).unwrap().memory.nars.extend(&all);
    world.run(1000);
    let before = world.requests;
    all.iter().for_each(|nar| world.want(1, *nar, 1));
    world.run(60_000);
    assert_eq!(world.members[&1].memory.nars.len(), 1000);
    assert!(world.requests - before <= 2 * 1000_usize.div_ceil(NARS) + 4, "{}", world.requests - before);
}

/// A peer that wants archive 1 of so many pieces; each of `nodes` is connected and has it. With what
/// it asks of them.
fn wants(pieces: u64, nodes: &[u8]) -> (Peer, Vec<Effect>) {
    let mut peer = Peer::new(BTreeSet::new(), [], BTreeSet::new());
    for n in nodes {
        peer.handle(Input::Connected { node: node(*n) }, Time(0));
    }
    let effects = peer.handle(want(1, pieces), Time(0));
    let answer = |question| {
        let answer = Some(Answer::Have(vec![nar(1)]));
        peer.handle(Input::Answered { question, answer }, Time(0))
    };
    let effects = questions(&effects).into_iter().flat_map(answer).collect();
    (peer, effects)
}

fn want(n: u8, pieces: u64) -> Input {
    Input::Want { nar: nar(n), size: pieces * PIECE_BYTES, missing: (0..pieces).collect() }
}

/// The questions who has something; nothing else is wanted.
#[track_caller]
fn questions(effects: &[Effect]) -> Vec<u64> {
    let question = |effect: &Effect| match effect {
        Effect::Ask { question, request: Request::Have { .. }, .. } => *question,
        other => panic!("{other:?}"),
    };
    effects.iter().map(question).collect()
}

fn tasks(effects: &[Effect]) -> Vec<u64> {
    effects
        .iter()
        .filter_map(|e| if let Effect::Fetch { task, .. } = e { Some(*task) } else { None })
        .collect()
}

/// What is asked for: of whom, which archive, which piece.
fn fetches(effects: &[Effect]) -> Vec<(NodeId, NarHash, u64)> {
    let fetch = |effect: &Effect| match effect {
        Effect::Fetch { node, nar, piece, .. } => Some((*node, *nar, *piece)),
        _ => None,
    };
    effects.iter().filter_map(fetch).collect()
}

fn came(task: u64) -> Input {
    Input::Piece { task, piece: Piece::Came { bytes: PIECE_BYTES } }
}

/// A node is asked for as many pieces at once as it sends in two seconds, as far as that is known.
#[test]
fn as_many_as_in_two_seconds() {
    let (mut peer, effects) = wants(1000, &[2]);
    let mut asked = tasks(&effects);
    assert_eq!(asked.len(), 2);
    assert_eq!(peer.wake(), Some(Time(limits::PATIENCE)), "there is nothing to be done until it answers");
    // The one that was asked for first comes, and so many more are asked for.
    for (at, more) in [
        (1000, 3),  // Two were on the way, one needed a second: two in a second, four in two.
        (2000, 1),  // Four on the way, two seconds: as fast.
        (5000, 0),  // Four, four seconds: half as fast, of which a quarter counts: 1.75 in a second.
        (5000, 1),  // Three, four seconds: 1.5 in a second.
        (13000, 0), // Three, twelve seconds: hardly more than one in a second.
    ] {
        let effects = peer.handle(came(asked.remove(0)), Time(at));
        assert_eq!((at, effects.len()), (at, more));
        asked.extend(tasks(&effects));
    }
}

/// Archives are compressed on a line that is known to be slow.
#[test]
fn slow_lines_are_spared() {
    for (bytes, expected) in [(limits::ZSTD_BELOW / 2 - 1, true), (limits::ZSTD_BELOW / 2, false)] {
        let zstd = |effects: &[Effect]| -> Vec<bool> {
            let zstd = effects.iter().filter_map(|e| match e {
                Effect::Fetch { zstd, .. } => Some(*zstd),
                _ => None,
            });
            zstd.collect()
        };
        let (mut peer, effects) = wants(1000, &[2]);
        assert_eq!(zstd(&effects), [false; 2]);
        // One of two pieces in a second.
        let came = Input::Piece { task: tasks(&effects)[0], piece: Piece::Came { bytes } };
        let then = zstd(&peer.handle(came, Time(1000)));
        assert!(!then.is_empty() && then.iter().all(|zstd| *zstd == expected), "{then:?}");
    }
}

/// What a node is slow about, another one sends as well, and the first that comes counts.
#[test]
fn slow_pieces_are_asked_for_twice() {
    let (mut peer, effects) = wants(1, &[2, 3]);
    assert_eq!(fetches(&effects), [(node(2), nar(1), 0)]);
    let of_slow = tasks(&effects)[0];
    assert_eq!(peer.wake(), Some(Time(200)), "somebody may be slow");
    let late = 2 * limits::SLOW;
    assert_eq!(peer.handle(Input::Tick, Time(late - 1)), []);
    let effects = peer.handle(Input::Tick, Time(late));
    assert_eq!(fetches(&effects), [(node(3), nar(1), 0)]);
    let of_other = tasks(&effects)[0];
    // Not of a third.
    let effects = peer.handle(Input::Connected { node: node(4) }, Time(late));
    let asked = effects.iter().find_map(|e| match e {
        Effect::Ask { question, request: Request::Have { .. }, .. } => Some(*question),
        _ => None,
    });
    let answer = Input::Answered { question: asked.unwrap(), answer: Some(Answer::Have(vec![nar(1)])) };
    assert_eq!(peer.handle(answer, Time(late)), []);
    assert_eq!(peer.handle(Input::Tick, Time(2 * late)), []);
    let effects = peer.handle(came(of_other), Time(2 * late));
    assert_eq!(effects, [Effect::Cancel { task: of_slow }, Effect::Admit { nar: nar(1) }]);
    // Nobody is needed any more.
    assert_eq!(peer.wake(), Some(Time(limits::PATIENCE)));
    for n in [2, 3, 4] {
        assert_eq!(peer.handle(Input::Disconnected { node: node(n) }, Time(2 * late)), []);
    }
}

/// How long a piece may take depends on how long another node needs.
#[test]
fn slow_is_who_takes_twice_as_long() {
    let (mut peer, effects) = wants(3, &[2, 3]);
    assert_eq!(fetches(&effects), [(node(2), nar(1), 0), (node(2), nar(1), 1), (node(3), nar(1), 2)]);
    assert_eq!(peer.handle(came(tasks(&effects)[2]), Time(500)), []);
    assert_eq!(peer.handle(Input::Tick, Time(999)), []);
    let effects = peer.handle(Input::Tick, Time(1000));
    assert_eq!(fetches(&effects), [(node(3), nar(1), 0), (node(3), nar(1), 1)]);
}

/// Nobody can be slow where all has been asked of the only node, or there is more to be asked for.
#[test]
fn nobody_is_slow() {
    for (pieces, nodes) in [(1, &[2][..]), (1000, &[2, 3])] {
        assert_eq!(wants(pieces, nodes).0.wake(), Some(Time(limits::PATIENCE)), "{pieces}");
    }
}

/// Archives that come at the same time have nothing to do with each other.
#[test]
fn two_at_once() {
    let (mut peer, effects) = wants(2, &[2, 3]);
    let first = tasks(&effects);
    let asked = questions(&peer.handle(want(2, 2), Time(0)));
    let answer = |question, nars| Input::Answered { question, answer: Some(Answer::Have(nars)) };
    assert_eq!(peer.handle(answer(asked[0], vec![]), Time(0)), []);
    let effects = peer.handle(answer(asked[1], vec![nar(2)]), Time(0));
    assert_eq!(fetches(&effects), [(node(3), nar(2), 0), (node(3), nar(2), 1)]);
    let second = tasks(&effects);
    assert_eq!(peer.handle(came(first[0]), Time(10)), []);
    assert_eq!(peer.handle(came(first[1]), Time(10)), [Effect::Admit { nar: nar(1) }]);
    // Until something is wanted no more.
    let cancelled: Vec<_> = second.iter().map(|task| Effect::Cancel { task: *task }).collect();
    assert_eq!(peer.handle(Input::Unwant { nar: nar(2) }, Time(10)), cancelled);
    assert_eq!(peer.handle(came(second[0]), Time(10)), []);
    assert_eq!(peer.status().wanted, 1);
}

/// Who has no time to say what it has is asked again, and nobody looks elsewhere meanwhile.
#[test]
fn the_busy_are_asked_again() {
    let mut peer = Peer::new(BTreeSet::new(), [], BTreeSet::new());
    peer.handle(Input::Connected { node: node(2) }, Time(0));
    let asked = questions(&peer.handle(want(1, 1), Time(0)));
    assert_eq!(asked.len(), 1);
    let busy = Input::Answered { question: asked[0], answer: Some(Answer::Busy) };
    assert_eq!(peer.handle(busy, Time(10)), []);
    let rested = 10 + limits::SLOW;
    assert_eq!(peer.wake(), Some(Time(rested)));
    assert_eq!(peer.handle(Input::Tick, Time(rested - 1)), []);
    assert_eq!(questions(&peer.handle(Input::Tick, Time(rested))).len(), 1);
}

/// Who has never time is not waited for without end: it is looked elsewhere, or given up.
#[test]
fn the_busy_are_not_asked_for_ever() {
    let mut peer = Peer::new(BTreeSet::new(), [], BTreeSet::new());
    let mut effects = peer.handle(Input::Connected { node: node(2) }, Time(0));
    effects.extend(peer.handle(want(1, 1), Time(0)));
    let mut now = Time(0);
    while now < Time(3_600_000) {
        for effect in std::mem::take(&mut effects) {
            let Effect::Ask { question, .. } = effect else {
                return assert_eq!(effect, Effect::Search { nar: nar(1) });
            };
            effects.extend(peer.handle(Input::Answered { question, answer: Some(Answer::Busy) }, now));
        }
        if effects.is_empty() {
            now = peer.wake().unwrap();
            effects = peer.handle(Input::Tick, now);
        }
    }
    panic!("for an hour a node that has never time keeps an archive from being looked for");
}

/// Whoever was found has so long to connect, and no longer.
#[test]
fn hope_ends() {
    let mut peer = Peer::new(BTreeSet::new(), [], BTreeSet::new());
    assert_eq!(peer.handle(want(1, 1), Time(0)), [Effect::Search { nar: nar(1) }]);
    assert_eq!(peer.handle(Input::Searched { nar: nar(1) }, Time(10)), []);
    let end = 10 + limits::SEARCH_HOPE;
    assert_eq!(peer.wake(), Some(Time(end)));
    assert_eq!(peer.handle(Input::Tick, Time(end - 1)), []);
    let given_up = Effect::GiveUp { nar: nar(1), why: GaveUp::Nowhere };
    assert_eq!(peer.handle(Input::Tick, Time(end)), [given_up]);
}

/// However fast a node is, it is asked for so many pieces at once and no more.
#[test]
fn what_is_asked_for_is_bounded() {
    let (mut peer, effects) = wants(1000, &[2]);
    let mut asked = tasks(&effects);
    assert_eq!(asked.len(), 2);
    for at in 0..100 {
        let effects = peer.handle(came(asked.remove(0)), Time(at));
        asked.extend(tasks(&effects));
        assert!(asked.len() <= limits::PIECES_OF_ONE);
    }
    assert_eq!(asked.len(), limits::PIECES_OF_ONE);
    let most = (0..limits::WANTS as u32).map(|n| NarHash::of(&n.to_le_bytes()));
    for wanted in most.clone() {
        peer.handle(Input::Want { nar: wanted, size: 1, missing: [0].into() }, Time(100));
    }
    assert_eq!(peer.status().wanted, limits::WANTS);
    let effects = peer.handle(want(9, 1), Time(100));
    assert!(effects.contains(&Effect::GiveUp { nar: nar(9), why: GaveUp::TooMany }), "{effects:?}");
}

/// A node that sends nothing is left alone after a while, and so is one that is busy.
#[test]
fn failures_are_counted() {
    for (piece, limit) in [(Piece::Failed, limits::PIECE_FAILURES), (Piece::Busy, limits::PIECE_BUSY)] {
        let (mut peer, effects) = wants(1000, &[2]);
        let (mut asked, mut now, mut failed) = (tasks(&effects), 0, 0);
        while let Some(task) = asked.pop() {
            now += limits::SLOW;
            asked.extend(tasks(&peer.handle(Input::Piece { task, piece }, Time(now))));
            failed += 1;
            now += limits::SLOW;
            asked.extend(tasks(&peer.handle(Input::Tick, Time(now))));
        }
        assert!((limit..=limit + 1).contains(&failed), "{failed}");
    }
    // One that says nothing at all.
    let (mut peer, effects) = wants(1000, &[2]);
    assert_eq!(tasks(&effects).len(), 2);
    let effects = peer.handle(Input::Tick, Time(limits::PIECE_PATIENCE));
    assert_eq!(effects.iter().filter(|e| matches!(e, Effect::Cancel { .. })).count(), 2);
}

#[test]
fn a_full_disk_ends_it() {
    let (mut peer, effects) = wants(1000, &[2]);
    let task = tasks(&effects)[0];
    let effects = peer.handle(Input::Piece { task, piece: Piece::Disk }, Time(1));
    assert!(effects.contains(&Effect::GiveUp { nar: nar(1), why: GaveUp::Disk }));
    assert!(effects.contains(&Effect::Cancel { task: tasks(&wants(1000, &[2]).1)[1] }));
    assert_eq!(peer.status().wanted, 0);
}

/// Of what it was not asked about, a node says nothing.
#[test]
fn other_archives_are_nonsense() {
    let mut peer = Peer::new(BTreeSet::new(), [], BTreeSet::new());
    peer.handle(Input::Connected { node: node(2) }, Time(0));
    for round in 0..3 {
        let effects = peer.handle(want(round, 1), Time(0));
        let [Effect::Ask { question, .. }, ..] = effects[..] else { panic!("{effects:?}") };
        let answer = Some(Answer::Have(vec![nar(99)]));
        let effects = peer.handle(Input::Answered { question, answer }, Time(0));
        let out = Effect::Disconnect { node: node(2), why: Why::Nonsense };
        assert_eq!(effects.contains(&out), round == 2, "{effects:?}");
    }
}

/// Nothing is due at a moment that has passed: whoever waits for it would not wait at all.
#[test]
fn nothing_is_due_in_the_past() {
    let mut peer = Peer::new(BTreeSet::new(), [], BTreeSet::new());
    let (size, missing) = (1000 * PIECE_BYTES, (0..1000).collect());
    let effects = peer.handle(Input::Want { nar: nar(1), size, missing }, Time(0));
    assert_eq!(effects, [Effect::Search { nar: nar(1) }]);
    peer.handle(Input::Searched { nar: nar(1) }, Time(0));
    let effects = peer.handle(Input::Connected { node: node(2) }, Time(1));
    let question = effects.iter().find_map(|e| match e {
        Effect::Ask { question, request: Request::Have { .. }, .. } => Some(*question),
        _ => None,
    });
    let hoped = Time(limits::SEARCH_HOPE);
    peer.handle(Input::Tick, hoped);
    assert!(peer.wake() > Some(hoped), "who is asked has not answered");
    let answer = Some(Answer::Have(vec![nar(1)]));
    peer.handle(Input::Answered { question: question.unwrap(), answer }, hoped);
    let later = hoped.after(100);
    peer.handle(Input::Tick, later);
    assert!(peer.wake() > Some(later), "the pieces come");
}
