//! Wishes, and actions that are looked for (SPEC §20).

use std::collections::BTreeSet;

use protocol::{
    action::{Action, FetchAction},
    id::ActionId,
    key::SigningKey,
    message::{Answer, KnownAction, Request},
    wish::{UnverifiedWish, Wish},
};
use trust::{
    limits::{BANISHED, PATIENCE, SEEKS, STRANGERS_WISHES, WISH_LIFE, WISH_PAUSE, WISHES},
    peer::{Effect, Input, NodeId, Peer, Relay, Serve, Sought, Time, Why},
};

use super::{key, node, signing_key, world::World};

/// A peer that follows attester 7 and is connected to these nodes.
fn connected(nodes: &[u8]) -> Peer {
    let mut peer = Peer::new(BTreeSet::from([key(7)]), [], BTreeSet::new());
    for n in nodes {
        peer.handle(Input::Connected { node: node(*n) }, Time(0));
    }
    peer
}

pub(super) fn action(n: u8) -> Action {
    let sri = protocol::sri::Sri::new(protocol::sri::Algorithm::Blake3, vec![n; 32]).unwrap();
    Action::Fetch(FetchAction { sri, executable: false })
}

fn wish(who: u8, number: u64) -> Wish {
    Wish::sign(&signing_key(who), number, [action(1).id()])
}

/// What is said of gossip with this wish, from node 2.
fn hear(peer: &mut Peer, wish: impl Into<UnverifiedWish>, now: u64) -> Relay {
    let heard = Input::Wished { node: node(2), message: 9, wish: Some(wish.into()) };
    let relays = peer.handle(heard, Time(now)).into_iter().filter_map(|effect| match effect {
        Effect::Relay { message: 9, relay } => Some(relay),
        _ => None,
    });
    relays.last().unwrap()
}

fn wished(peer: &Peer, now: u64) -> Vec<u64> {
    peer.wishes(Time(now)).map(Wish::number).collect()
}

#[test]
fn the_latest_wish_of_a_key_counts_for_a_while() {
    let mut peer = connected(&[2]);
    assert_eq!(hear(&mut peer, wish(7, 5), 0), Relay::Accept);
    assert_eq!(hear(&mut peer, wish(7, 6), WISH_PAUSE - 1), Relay::Ignore, "too soon");
    assert_eq!(hear(&mut peer, wish(7, 5), WISH_PAUSE), Relay::Ignore, "the same");
    assert_eq!(hear(&mut peer, wish(7, 4), WISH_PAUSE), Relay::Ignore, "an older one");
    assert_eq!(hear(&mut peer, wish(7, 6), WISH_PAUSE), Relay::Accept);
    assert_eq!(wished(&peer, WISH_PAUSE + WISH_LIFE - 1), [6]);
    assert_eq!(wished(&peer, WISH_PAUSE + WISH_LIFE), [0; 0]);
    let none = |number| Wish::sign(&signing_key(7), number, []);
    assert_eq!(hear(&mut peer, none(7), WISH_PAUSE + 1), Relay::Accept, "withdrawn at once");
    assert!(peer.wishes(Time(WISH_PAUSE + 1)).all(|wish| wish.actions().is_empty()));
    assert_eq!(hear(&mut peer, none(8), WISH_PAUSE + 2), Relay::Ignore, "withdrawn once more");
    assert_eq!(hear(&mut peer, wish(7, 9), 2 * WISH_PAUSE - 1), Relay::Ignore, "too soon after the last");
    assert_eq!(hear(&mut peer, wish(7, 9), 2 * WISH_PAUSE), Relay::Accept);
}

#[test]
fn strangers_wishes_are_bounded_and_those_of_the_followed_are_not() {
    let mut peer = connected(&[2]);
    let stranger = |n: usize| {
        let mut bytes = [3; 32];
        bytes[..8].copy_from_slice(&(n as u64).to_le_bytes());
        Wish::sign(&SigningKey::from_bytes(&bytes), 1, [action(1).id()])
    };
    for n in 0..STRANGERS_WISHES {
        assert_eq!(hear(&mut peer, stranger(n), 0), Relay::Accept, "{n}");
    }
    assert_eq!(hear(&mut peer, stranger(STRANGERS_WISHES), 0), Relay::Ignore);
    assert_eq!(hear(&mut peer, wish(7, 1), 0), Relay::Accept);
    assert_eq!(peer.wishes(Time(0)).count(), STRANGERS_WISHES + 1);
    // What is over makes room.
    assert_eq!(hear(&mut peer, stranger(STRANGERS_WISHES), WISH_LIFE), Relay::Accept);
    assert_eq!(peer.wishes(Time(WISH_LIFE)).count(), 1);
}

#[test]
fn a_flood_of_wishes_costs_no_signature() {
    let mut peer = connected(&[2]);
    let forged = || {
        let mut bytes = wish(9, 1).to_bytes();
        *bytes.last_mut().unwrap() ^= 1;
        UnverifiedWish::from_bytes(&bytes).unwrap()
    };
    assert_eq!(hear(&mut peer, wish(7, 1), 0), Relay::Accept);
    for _ in 1..WISHES.0 {
        assert_eq!(hear(&mut peer, wish(7, 1), 0), Relay::Ignore);
    }
    assert_eq!(hear(&mut peer, forged(), 0), Relay::Ignore, "not looked at");
    assert_eq!(hear(&mut peer, forged(), 1000 / WISHES.1 + 1), Relay::Reject, "looked at");
}

#[test]
fn who_forges_wishes_is_banished() {
    let mut peer = connected(&[2]);
    let garbage = |message| Input::Wished { node: node(2), message, wish: None };
    for n in 0..3 {
        let effects = peer.handle(garbage(n), Time(n));
        assert!(effects.contains(&Effect::Relay { message: n, relay: Relay::Reject }));
        assert_eq!(effects.contains(&Effect::Disconnect { node: node(2), why: Why::Nonsense }), n == 2);
    }
    let back = peer.handle(Input::Connected { node: node(2) }, Time(BANISHED));
    assert_eq!(back, [Effect::Disconnect { node: node(2), why: Why::Banished }]);
}

#[test]
fn own_wishes_are_told() {
    let mut peer = connected(&[]);
    let effects = peer.handle(Input::Wish { wish: wish(1, 3) }, Time(5));
    assert_eq!(effects, [Effect::Proclaim { wish: wish(1, 3) }]);
    assert_eq!(wished(&peer, 5), [3]);
}

/// Whom it asks for an action, in these effects.
fn asks(effects: &[Effect]) -> Option<(NodeId, u64)> {
    effects.iter().find_map(|effect| match effect {
        Effect::Ask { node, question, request: Request::Action { .. } | Request::Log { .. } } => {
            Some((*node, *question))
        }
        _ => None,
    })
}

fn answer(peer: &mut Peer, question: u64, answer: Option<Answer>) -> Vec<Effect> {
    answer_at(peer, question, answer, 1)
}

fn answer_at(peer: &mut Peer, question: u64, answer: Option<Answer>, now: u64) -> Vec<Effect> {
    peer.handle(Input::Answered { question, answer }, Time(now))
}

fn known(n: u8) -> Box<KnownAction> {
    Box::new(KnownAction { action: action(n), name: None, sizes: vec![] })
}

#[test]
fn nodes_are_asked_one_after_the_other_until_one_knows() {
    let mut peer = connected(&[2, 3, 4, 5]);
    let wanted = action(1).id();
    let seek = |peer: &mut Peer| peer.handle(Input::Seek { sought: Sought::Action(wanted) }, Time(1));
    let (first, question) = asks(&seek(&mut peer)).unwrap();
    assert_eq!(first, node(2));
    assert_eq!(asks(&seek(&mut peer)), None, "it is looked for already");
    let (second, question) = asks(&answer(&mut peer, question, Some(Answer::Absent))).unwrap();
    assert_eq!(second, node(3));
    // Another action than was asked for.
    let (third, _) = asks(&answer(&mut peer, question, Some(Answer::Action(known(2))))).unwrap();
    assert_eq!(third, node(4));
    let effects = peer.handle(Input::Disconnected { node: node(4) }, Time(1));
    let (fourth, question) = asks(&effects).unwrap();
    assert_eq!(fourth, node(5));
    let effects = answer(&mut peer, question, Some(Answer::Action(known(1))));
    assert_eq!(
        effects,
        [Effect::Sought { sought: Sought::Action(wanted), found: Some(Answer::Action(known(1))) }]
    );
    // The next time it is not the same node that is asked first.
    assert_eq!(asks(&seek(&mut peer)).unwrap().0, node(2));
}

#[test]
fn nobody_knows() {
    let wanted = action(1).id();
    let nobody = [Effect::Sought { sought: Sought::Action(wanted), found: None }];
    assert_eq!(connected(&[]).handle(Input::Seek { sought: Sought::Action(wanted) }, Time(1)), nobody);
    let mut peer = connected(&[2]);
    for silence in [None, Some(Answer::Busy), Some(Answer::Absent)] {
        let (_, question) =
            asks(&peer.handle(Input::Seek { sought: Sought::Action(wanted) }, Time(1))).unwrap();
        assert_eq!(answer(&mut peer, question, silence), nobody);
    }
    let (_, question) = asks(&peer.handle(Input::Seek { sought: Sought::Action(wanted) }, Time(1))).unwrap();
    let effects = answer(&mut peer, question, Some(Answer::Have(vec![])));
    assert_eq!(effects, nobody, "an answer to something else");
}

/// Whoever knew the last one is behind all others the next time, so that each has its turn.
#[test]
fn who_knows_is_asked_in_turn() {
    let mut peer = connected(&[2, 3, 4]);
    let sought = Sought::Action(action(1).id());
    for turn in [2, 3, 4, 2] {
        let (asked, question) = asks(&peer.handle(Input::Seek { sought }, Time(1))).unwrap();
        assert_eq!(asked, node(turn));
        let found = Some(Answer::Action(known(1)));
        let effects = answer(&mut peer, question, found.clone());
        assert_eq!(effects, [Effect::Sought { sought, found }]);
    }
}

/// A node that was silent once does not hold up whoever looks for something the next time.
#[test]
fn the_silent_are_asked_last() {
    let mut peer = connected(&[2, 3]);
    let ask = |peer: &mut Peer, n, now| {
        asks(&peer.handle(Input::Seek { sought: Sought::Action(action(n).id()) }, Time(now))).unwrap().0
    };
    assert_eq!(ask(&mut peer, 1, 1), node(2));
    let (next, question) = asks(&peer.handle(Input::Tick, Time(PATIENCE + 1))).unwrap();
    assert_eq!(next, node(3));
    answer_at(&mut peer, question, Some(Answer::Absent), PATIENCE + 2);
    assert_eq!(ask(&mut peer, 2, PATIENCE + 3), node(3));
}

#[test]
fn too_much_is_not_looked_for() {
    let mut peer = connected(&[2]);
    let seek = |peer: &mut Peer, n: usize| {
        peer.handle(Input::Seek { sought: Sought::Action(ActionId::from_bytes([n as u8; 32])) }, Time(1))
    };
    for n in 0..SEEKS {
        assert!(asks(&seek(&mut peer, n)).is_some());
    }
    let action = ActionId::from_bytes([SEEKS as u8; 32]);
    assert_eq!(seek(&mut peer, SEEKS), [Effect::Sought { sought: Sought::Action(action), found: None }]);
}

#[test]
fn others_are_told_what_an_action_is() {
    let mut peer = connected(&[2]);
    let action = action(1).id();
    let sought = [
        (Request::Action { action }, Sought::Action(action)),
        (Request::Log { action }, Sought::Log(action)),
    ];
    for (request, sought) in sought {
        let effects = peer.handle(Input::Asked { node: node(2), ticket: 4, request }, Time(1));
        assert_eq!(effects, [Effect::Serve { ticket: 4, serve: Serve::Sought(sought) }]);
    }
}

#[test]
fn wishes_cross_the_network() {
    let mut world = World::new(4, &[]);
    (1..4).for_each(|n| world.connect(n, n + 1));
    world.input(1, Input::Wish { wish: wish(1, 1) });
    world.run(1000);
    for n in 1..=4 {
        assert_eq!(wished(&world.members[&n].peer, world.now), [1], "node {n}");
    }
}

/// What an action is and what it printed are two questions, and neither answers the other.
#[test]
fn a_log_is_looked_for_like_an_action() {
    let mut peer = connected(&[2, 3, 4]);
    let action = action(1).id();
    let log = || Answer::Log { end: b"a".to_vec(), before: 0 };
    let (_, about_log) = asks(&peer.handle(Input::Seek { sought: Sought::Log(action) }, Time(1))).unwrap();
    let (_, about_action) =
        asks(&peer.handle(Input::Seek { sought: Sought::Action(action) }, Time(1))).unwrap();
    let (next, about_log) = asks(&answer(&mut peer, about_log, Some(Answer::Action(known(1))))).unwrap();
    assert_eq!(next, node(3));
    let (_, about_action) = asks(&answer(&mut peer, about_action, Some(log()))).unwrap();
    let effects = answer(&mut peer, about_log, Some(log()));
    assert_eq!(effects, [Effect::Sought { sought: Sought::Log(action), found: Some(log()) }]);
    let effects = answer(&mut peer, about_action, Some(Answer::Action(known(1))));
    let found = Some(Answer::Action(known(1)));
    assert_eq!(effects, [Effect::Sought { sought: Sought::Action(action), found }]);
}
