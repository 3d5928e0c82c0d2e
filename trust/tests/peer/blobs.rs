//! Archives in pieces: of several nodes at once, whoever is slow, lies, or goes.

use std::collections::BTreeSet;

use protocol::{
    id::NarHash,
    limits::{NARS, PIECE_BYTES},
    message::{Answer, Request},
};
use trust::{
    limits,
    peer::{Effect, GaveUp, Input, Peer, Piece, Time, Why},
};

use super::{node, world::World};

fn nar(n: u8) -> NarHash {
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

/// A peer with one connected node, which has archive 1.
fn with_one() -> (Peer, Vec<Effect>) {
    let mut peer = Peer::new(BTreeSet::new(), [], BTreeSet::new());
    peer.handle(Input::Connected { node: node(2) }, Time(0));
    let (size, missing) = (1000 * PIECE_BYTES, (0..1000).collect());
    let effects = peer.handle(Input::Want { nar: nar(1), size, missing }, Time(0));
    let [Effect::Ask { question, request: Request::Have { .. }, .. }] = effects[..] else {
        panic!("{effects:?}")
    };
    let answer = Some(Answer::Have(vec![nar(1)]));
    let effects = peer.handle(Input::Answered { question, answer }, Time(0));
    (peer, effects)
}

fn tasks(effects: &[Effect]) -> Vec<u64> {
    effects
        .iter()
        .filter_map(|e| if let Effect::Fetch { task, .. } = e { Some(*task) } else { None })
        .collect()
}

/// However fast a node is, it is asked for so many pieces at once and no more.
#[test]
fn what_is_asked_for_is_bounded() {
    let (mut peer, effects) = with_one();
    let mut asked = tasks(&effects);
    assert_eq!(asked.len(), 2);
    for at in 0..100 {
        let came = Input::Piece { task: asked.remove(0), piece: Piece::Came { bytes: PIECE_BYTES } };
        asked.extend(tasks(&peer.handle(came, Time(at))));
        assert!(asked.len() <= limits::PIECES_OF_ONE);
    }
    assert_eq!(asked.len(), limits::PIECES_OF_ONE);
    let most = (0..limits::WANTS as u32).map(|n| NarHash::of(&n.to_le_bytes()));
    for wanted in most.clone() {
        peer.handle(Input::Want { nar: wanted, size: 1, missing: [0].into() }, Time(100));
    }
    assert_eq!(peer.status().wanted, limits::WANTS);
    let one_more = Input::Want { nar: nar(9), size: 1, missing: [0].into() };
    let effects = peer.handle(one_more, Time(100));
    assert!(effects.contains(&Effect::GiveUp { nar: nar(9), why: GaveUp::TooMany }), "{effects:?}");
}

/// A node that sends nothing is left alone after a while, and so is one that is busy.
#[test]
fn failures_are_counted() {
    for (piece, limit) in [(Piece::Failed, limits::PIECE_FAILURES), (Piece::Busy, limits::PIECE_BUSY)] {
        let (mut peer, effects) = with_one();
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
    let (mut peer, effects) = with_one();
    assert_eq!(tasks(&effects).len(), 2);
    let effects = peer.handle(Input::Tick, Time(limits::PIECE_PATIENCE));
    assert_eq!(effects.iter().filter(|e| matches!(e, Effect::Cancel { .. })).count(), 2);
}

#[test]
fn a_full_disk_ends_it() {
    let (mut peer, effects) = with_one();
    let task = tasks(&effects)[0];
    let effects = peer.handle(Input::Piece { task, piece: Piece::Disk }, Time(1));
    assert!(effects.contains(&Effect::GiveUp { nar: nar(1), why: GaveUp::Disk }));
    assert!(effects.contains(&Effect::Cancel { task: tasks(&with_one().1)[1] }));
    assert_eq!(peer.status().wanted, 0);
}

/// Of what it was not asked about, a node says nothing.
#[test]
fn other_archives_are_nonsense() {
    let mut peer = Peer::new(BTreeSet::new(), [], BTreeSet::new());
    peer.handle(Input::Connected { node: node(2) }, Time(0));
    for round in 0..3 {
        let want = Input::Want { nar: nar(round), size: 1, missing: [0].into() };
        let effects = peer.handle(want, Time(0));
        let [Effect::Ask { question, .. }, ..] = effects[..] else { panic!("{effects:?}") };
        let answer = Some(Answer::Have(vec![nar(99)]));
        let effects = peer.handle(Input::Answered { question, answer }, Time(0));
        let out = Effect::Disconnect { node: node(2), why: Why::Nonsense };
        assert_eq!(effects.contains(&out), round == 2, "{effects:?}");
    }
}
