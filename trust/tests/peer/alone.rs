//! One peer, to which anything may be said: what it answers, asks and passes on, and what others may
//! cost it.

use std::collections::BTreeSet;

use protocol::{
    evidence::{Equivocation, Evidence, Revocation, UnverifiedEvidence},
    id::{ActionId, NarHash, StatementId},
    key::AttesterKey,
    message::{Answer, FeedHead, Gossip, ProofsDigest, Request},
    statement::{Statement, Unverified},
};
use trust::{
    limits,
    peer::{Effect, Fate, GaveUp, Input, NodeId, Peer, Relay, Serve, Sought, Time, Why},
};

use super::{feed, key, node, signing_key, statement, world::Memory};

/// A peer that follows attester 7 and is connected to node 2, with what it asks of it first.
fn alone() -> (Peer, Vec<Effect>) {
    let mut peer = Peer::new(BTreeSet::from([key(7)]), [], BTreeSet::new());
    let effects = peer.handle(Input::Connected { node: node(2) }, Time(0));
    (peer, effects)
}

#[test]
fn heads_that_are_lies_cost_an_exchange() {
    let (mut peer, effects) = alone();
    let [Effect::Ask { question, request: Request::Heads { after: None }, .. }] = effects[..] else {
        panic!()
    };
    let head = FeedHead { len: u64::MAX, ..Memory::default().head(&key(7)) };
    let answer = Some(Answer::Heads { heads: vec![head], more: false });
    let effects = peer.handle(Input::Answered { question, answer }, Time(1));
    let [Effect::Ask { question, request: Request::Statements { from: 0, .. }, .. }] = effects[..] else {
        panic!("{effects:?}")
    };
    assert_eq!(peer.status().missing, u64::MAX);
    let effects = peer.handle(Input::Answered { question, answer: Some(Answer::Items(vec![])) }, Time(2));
    assert_eq!((effects, peer.status().missing), (vec![], 0));
}

#[test]
fn forgers_are_banished() {
    let (mut peer, _) = alone();
    let mut bytes = feed(7, 1, None)[0].bytes().to_vec();
    bytes[3] ^= 1;
    let forged = UnverifiedEvidence::Statement(Unverified::from_bytes(&bytes).unwrap());
    for n in 0..3 {
        let gossip = Some(Gossip(vec![forged.clone()]));
        let effects = peer.handle(Input::Heard { node: node(2), message: n, gossip }, Time(n));
        let [Effect::Keep { task, .. }] = effects[..] else { panic!("{effects:?}") };
        let kept = Input::Kept { task, fates: vec![Fate::Forged], heads: vec![] };
        let effects = peer.handle(kept, Time(n));
        assert!(effects.contains(&Effect::Relay { message: n, relay: Relay::Reject }));
        assert_eq!(effects.contains(&Effect::Disconnect { node: node(2), why: Why::Forged }), n == 2);
    }
    let again = |peer: &mut Peer, at| peer.handle(Input::Connected { node: node(2) }, Time(at));
    let end = limits::BANISHED + 2;
    for at in [10, end - 1] {
        assert_eq!(again(&mut peer, at), [Effect::Disconnect { node: node(2), why: Why::Banished }]);
    }
    assert!(matches!(again(&mut peer, end)[..], [Effect::Ask { .. }]), "not for ever");
}

/// An archive is given up while it is looked at as one, and wanted again before that has ended.
#[test]
fn what_became_of_an_earlier_want_ends_no_other() {
    let (mut peer, _) = alone();
    let nar = NarHash::from_bytes([1; 32]);
    let want = |missing| Input::Want { nar, size: protocol::limits::PIECE_BYTES, missing };
    let damaged = || Input::Admitted { nar, result: Err(GaveUp::Damaged) };
    let gave_up = Effect::GiveUp { nar, why: GaveUp::Damaged };
    assert!(peer.handle(want(BTreeSet::new()), Time(1)).contains(&Effect::Admit { nar }));
    peer.handle(Input::Unwant { nar }, Time(2));
    assert!(!peer.handle(damaged(), Time(2)).contains(&gave_up));
    peer.handle(want(BTreeSet::from([0])), Time(3));
    assert!(!peer.handle(damaged(), Time(4)).contains(&gave_up));
    peer.handle(Input::Unwant { nar }, Time(5));
    assert!(peer.handle(want(BTreeSet::new()), Time(6)).contains(&Effect::Admit { nar }));
    assert!(peer.handle(damaged(), Time(7)).contains(&gave_up));
}

/// What comes faster than it can be verified is left to be asked for, and nobody is blamed.
#[test]
fn floods_are_ignored() {
    let (mut peer, _) = alone();
    let all = feed(7, 1000, None);
    let mut kept = 0;
    for n in 0..100 {
        let gossip = Some(Gossip(all.iter().map(statement).collect()));
        for effect in peer.handle(Input::Heard { node: node(2), message: n, gossip }, Time(0)) {
            match effect {
                Effect::Keep { .. } => kept += 1,
                Effect::Relay { relay, .. } => assert_eq!(relay, Relay::Ignore),
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(kept, limits::TASKS);
    let ask = |ticket| Input::Asked { node: node(2), ticket, request: Request::Heads { after: None } };
    let busy = (0..2000).filter(|n| {
        let effects = peer.handle(ask(*n), Time(0));
        matches!(effects[..], [Effect::Answer { answer: Answer::Busy, .. }])
    });
    assert_eq!(busy.count(), 2000 - 512);
}

#[test]
fn what_cannot_be_read_is_rejected() {
    let (mut peer, effects) = alone();
    let [Effect::Ask { question, .. }] = effects[..] else { panic!() };
    let effects = peer.handle(Input::Heard { node: node(2), message: 1, gossip: None }, Time(0));
    assert_eq!(effects, [Effect::Relay { message: 1, relay: Relay::Reject }]);
    // An answer to another question, then statements of another feed, or of another place.
    let mut answer = Answer::Items(vec![]);
    assert_eq!(peer.handle(Input::Answered { question, answer: Some(answer) }, Time(0)), []);
    let (mut peer, effects) = alone();
    let [Effect::Ask { mut question, .. }] = effects[..] else { panic!() };
    let others =
        [feed(8, 3, None), feed(7, 3, None)[1..].to_vec(), feed(7, 3, None).into_iter().rev().collect()];
    let mut now = 0;
    for (n, items) in others.into_iter().enumerate() {
        let head = FeedHead { len: 3, ..Memory::default().head(&key(7)) };
        answer = Answer::Heads { heads: vec![head], more: false };
        let effects = peer.handle(Input::Answered { question, answer: Some(answer) }, Time(now));
        let [Effect::Ask { question: asked, .. }] = effects[..] else { panic!("{effects:?}") };
        let answer = Answer::Items(items.iter().map(statement).collect());
        let effects = peer.handle(Input::Answered { question: asked, answer: Some(answer) }, Time(now));
        if n == 2 {
            assert_eq!(effects, [Effect::Disconnect { node: node(2), why: Why::Nonsense }]);
            break;
        }
        assert_eq!(effects, []);
        now += limits::ROUND;
        let effects = peer.handle(Input::Tick, Time(now));
        let [Effect::Ask { question: asked, .. }] = effects[..] else { panic!("{effects:?}") };
        question = asked;
    }
}

/// Where the feed of attester `n` ends after `len` statements, as somebody says.
fn head(n: u8, len: u64) -> FeedHead {
    head_of(key(n), len)
}

fn head_of(attester: AttesterKey, len: u64) -> FeedHead {
    let last = StatementId::from_bytes([len as u8; 32]);
    FeedHead { attester, len, last, proofs: ProofsDigest::default() }
}

/// Strangers, as many as one likes.
fn stranger(n: u32) -> AttesterKey {
    let mut bytes = [9; 32];
    bytes[..4].copy_from_slice(&n.to_be_bytes());
    AttesterKey::from_bytes(bytes)
}

fn made(heads: Vec<FeedHead>) -> Input {
    Input::Made { items: vec![], heads }
}

fn answered(question: u64, answer: Answer) -> Input {
    Input::Answered { question, answer: Some(answer) }
}

fn heads(heads: Vec<FeedHead>) -> Answer {
    Answer::Heads { heads, more: false }
}

/// What is asked, of whom.
fn asked(effects: &[Effect]) -> Vec<(u8, u64, Request)> {
    let ask = |effect: &Effect| match effect {
        Effect::Ask { node, question, request } => Some((node.0[0], *question, request.clone())),
        _ => None,
    };
    effects.iter().filter_map(ask).collect()
}

/// Whose statements are asked for, of whom.
fn pulled(effects: &[Effect]) -> Vec<(u8, AttesterKey)> {
    let pull = |(node, _, request)| match request {
        Request::Statements { attester, .. } => Some((node, attester)),
        _ => None,
    };
    asked(effects).into_iter().filter_map(pull).collect()
}

#[test]
fn questions_are_answered() {
    let (mut peer, _) = alone();
    peer.handle(made(vec![head(7, 3), head(8, 0)]), Time(0));
    assert_eq!((peer.head(&key(7)), peer.head(&key(9))), (Some(&head(7, 3)), None));
    assert_eq!((peer.followed(), peer.status().feeds), (&BTreeSet::from([key(7)]), 1));
    let mut answer =
        |request| match &peer.handle(Input::Asked { node: node(2), ticket: 5, request }, Time(0))[..] {
            [effect] => effect.clone(),
            other => panic!("{other:?}"),
        };
    let nothing = Effect::Answer { ticket: 5, answer: Answer::Items(vec![]) };
    let statements = |n, from| Request::Statements { attester: key(n), from };
    let serve = |serve| Effect::Serve { ticket: 5, serve };
    assert_eq!(answer(statements(7, 2)), serve(Serve::Statements { attester: key(7), from: 2 }));
    assert_eq!(answer(statements(7, 3)), nothing);
    assert_eq!(answer(statements(9, 0)), nothing);
    assert_eq!(answer(Request::Proofs { attester: key(8) }), serve(Serve::Proofs { attester: key(8) }));
    assert_eq!(answer(Request::Proofs { attester: key(9) }), nothing);
    let mut all = [head(7, 3), head(8, 0)];
    all.sort_by_key(|head| head.attester);
    for (after, expected) in
        [(None, &all[..]), (Some(all[0].attester), &all[1..]), (Some(all[1].attester), &[])]
    {
        let answer = answer(Request::Heads { after });
        assert_eq!(answer, Effect::Answer { ticket: 5, answer: heads(expected.to_vec()) });
    }
}

/// A peer has settled when it has asked everybody and waits for nothing more.
#[test]
fn settling() {
    assert!(Peer::new(BTreeSet::new(), [], BTreeSet::new()).settled(Time(0)));
    let (mut peer, effects) = alone();
    assert!(!peer.settled(Time(0)), "it waits for heads");
    let effects = peer.handle(answered(asked(&effects)[0].1, heads(vec![head(7, 1)])), Time(1));
    assert!(!peer.settled(Time(1)), "it waits for statements");
    let items = Answer::Items(vec![statement(&feed(7, 1, None)[0])]);
    let effects = peer.handle(answered(asked(&effects)[0].1, items), Time(2));
    let [Effect::Keep { task, .. }] = effects[..] else { panic!("{effects:?}") };
    assert!(!peer.settled(Time(2)), "it waits for the disk");
    let kept = Input::Kept { task, fates: vec![Fate::New], heads: vec![head(7, 1)] };
    assert_eq!(peer.handle(kept, Time(3)), []);
    assert!(peer.settled(Time(3)));
    assert!(!peer.settled(Time(limits::ROUND)), "it is to ask again");
    let want = Input::Want { nar: super::blobs::nar(1), size: 1, missing: [0].into() };
    assert_eq!(peer.handle(want, Time(4)).len(), 1);
    assert!(peer.settled(Time(4)), "archives are something else");
}

/// Whoever is followed from now on is asked for at once, and is no stranger any more.
#[test]
fn following_later() {
    let (mut peer, _) = alone();
    peer.handle(made(vec![head(7, 3), head(8, 5), head(9, 4)]), Time(1));
    assert_eq!(peer.status().strangers, 9);
    let follow = Input::Follow { attesters: [key(8)].into() };
    assert_eq!(asked(&peer.handle(follow, Time(2)))[0].2, Request::Heads { after: None });
    assert_eq!((peer.status().strangers, peer.status().statements), (7, 12));
}

/// What nobody has shown to be of use is kept of so many strangers, and more of those who are known.
#[test]
fn strangers_are_so_many() {
    for (room, expected) in [(1, 3), (0, 2)] {
        let (mut peer, effects) = alone();
        let known = 1 + limits::STRANGERS as u32 - room;
        peer.handle(made((0..known).map(|n| head_of(stranger(n), 1)).collect()), Time(0));
        let said = vec![head_of(stranger(0), 2), head_of(stranger(known), 1), head(7, 1)];
        let effects = peer.handle(answered(asked(&effects)[0].1, heads(said)), Time(0));
        assert_eq!(effects.len(), expected, "{effects:?}");
        assert_eq!(pulled(&effects)[0], (2, key(7)), "who is followed comes first");
    }
}

/// So many feeds are asked for at once, of those who are asked for less.
#[test]
fn work_is_shared() {
    let all: Vec<_> = (1..=10).map(|n| head(n, 1)).collect();
    let mut peer = Peer::new(all.iter().map(|head| head.attester).collect(), [], BTreeSet::new());
    let rounds = [2, 3].map(|n| asked(&peer.handle(Input::Connected { node: node(n) }, Time(0)))[0].1);
    let first = peer.handle(answered(rounds[0], heads(all.clone())), Time(0));
    assert_eq!((first.len(), pulled(&first).len()), (limits::PULLS, limits::PULLS));
    assert_eq!(peer.handle(answered(rounds[1], heads(all)), Time(0)), []);
    // One is done with, another is asked for.
    let next = peer.handle(answered(asked(&first)[0].1, Answer::Items(vec![])), Time(0));
    assert!(matches!(pulled(&next)[..], [(3, _)]), "{next:?}");
    // What a node that is gone was asked for, the other is.
    let next = peer.handle(Input::Disconnected { node: node(2) }, Time(0));
    assert_eq!(pulled(&next).len(), limits::PULLS - 1);
    // Its own questions stay.
    let next = peer.handle(answered(asked(&next)[0].1, Answer::Items(vec![])), Time(0));
    assert_eq!(pulled(&next).len(), 1);
}

/// What cannot be kept is not asked for again.
#[test]
fn what_is_of_no_use_is_not_asked_for_again() {
    for fate in [Fate::Refused, Fate::Failed, Fate::Known] {
        let (mut peer, effects) = alone();
        let effects = peer.handle(answered(asked(&effects)[0].1, heads(vec![head(7, 2)])), Time(0));
        let items = Answer::Items(vec![statement(&feed(7, 1, None)[0])]);
        let effects = peer.handle(answered(asked(&effects)[0].1, items), Time(0));
        let [Effect::Keep { task, .. }] = effects[..] else { panic!("{effects:?}") };
        let kept = Input::Kept { task, fates: vec![fate], heads: vec![head(7, 0)] };
        assert_eq!(peer.handle(kept, Time(0)), []);
        assert_eq!(peer.status().missing, 0);
    }
}

/// An empty feed has no last statement that could be another one.
#[test]
fn nothing_is_no_fork() {
    let (mut peer, effects) = alone();
    peer.handle(made(vec![head(7, 0)]), Time(0));
    let other = FeedHead { last: StatementId::from_bytes([1; 32]), ..head(7, 0) };
    assert_eq!(peer.handle(answered(asked(&effects)[0].1, heads(vec![other])), Time(0)), []);
}

/// A node that always has more to say is not listened to for ever.
#[test]
fn endless_heads() {
    let (mut peer, effects) = alone();
    let (mut question, mut pages) = (asked(&effects)[0].1, 0);
    loop {
        pages += 1;
        let heads = vec![head_of(stranger(pages), 0)];
        let effects = peer.handle(answered(question, Answer::Heads { heads, more: true }), Time(0));
        let [(2, next, Request::Heads { after: Some(_) })] = asked(&effects)[..] else { break };
        question = next;
    }
    assert_eq!(pages, limits::HEADS_PAGES);
    // Who begins again has nothing more to say.
    let (mut peer, effects) = alone();
    let mut page = |question, n| {
        let answer = Answer::Heads { heads: vec![head_of(stranger(n), 0)], more: true };
        asked(&peer.handle(answered(question, answer), Time(0)))
    };
    let again = page(asked(&effects)[0].1, 2)[0].1;
    assert_eq!(page(again, 1), []);
}

/// What one node says to have is remembered within bounds.
#[test]
fn one_node_says_so_much() {
    let (mut peer, effects) = alone();
    let proofs = ProofsDigest::of(&[Evidence::Revocation(Revocation::sign(&signing_key(7), 0))]);
    let heads = |len| -> Vec<FeedHead> {
        (0..=limits::SAID as u32).map(|n| FeedHead { proofs, ..head_of(stranger(n), len) }).collect()
    };
    let answer = Answer::Heads { heads: heads(1), more: false };
    let effects = peer.handle(answered(asked(&effects)[0].1, answer), Time(0));
    assert_eq!(peer.status().missing, limits::SAID as u64);
    let about_proofs = |effects: &[Effect]| {
        asked(effects).iter().filter(|(_, _, request)| matches!(request, Request::Proofs { .. })).count()
    };
    assert_eq!(about_proofs(&effects), limits::SAID);
}

/// Proofs that a node says to have and does not give are asked for once.
#[test]
fn proofs_are_asked_for_once() {
    let proof = Evidence::Revocation(Revocation::sign(&signing_key(7), 0));
    let other = Evidence::Revocation(Revocation::sign(&signing_key(8), 0));
    let said = FeedHead { proofs: ProofsDigest::of([&proof]), ..head(7, 0) };
    let (mut peer, effects) = alone();
    let effects = peer.handle(answered(asked(&effects)[0].1, heads(vec![said])), Time(0));
    let [(2, question, Request::Proofs { .. })] = asked(&effects)[..] else { panic!("{effects:?}") };
    assert_eq!(peer.handle(answered(question, Answer::Items(vec![])), Time(0)), []);
    let round = asked(&peer.handle(Input::Tick, Time(limits::ROUND)));
    assert_eq!(peer.handle(answered(round[0].1, heads(vec![said])), Time(limits::ROUND)), []);
    // Something else than proofs, and proofs about somebody else, are three strikes.
    let others = [statement(&feed(7, 1, None)[0]), other.into(), statement(&feed(8, 1, None)[0])];
    let (mut peer, effects) = alone();
    let mut question = asked(&effects)[0].1;
    for (n, item) in others.into_iter().enumerate() {
        let proofs = ProofsDigest::of(&[Evidence::Revocation(Revocation::sign(&signing_key(7), n as u64))]);
        let now = Time(limits::ROUND * n as u64);
        let effects = peer.handle(answered(question, heads(vec![FeedHead { proofs, ..said }])), now);
        let effects = peer.handle(answered(asked(&effects)[0].1, Answer::Items(vec![item])), now);
        assert_eq!(effects.is_empty(), n < 2, "{effects:?}");
        let effects = peer.handle(Input::Tick, now.after(limits::ROUND));
        question = asked(&effects).first().map_or(0, |asked| asked.1);
    }
}

/// What becomes of gossip at once; `None` if it is verified first.
fn heard(peer: &mut Peer, items: Vec<UnverifiedEvidence>) -> Option<Relay> {
    let heard = Input::Heard { node: node(2), message: 1, gossip: Some(Gossip(items)) };
    peer.handle(heard, Time(0)).into_iter().find_map(|effect| match effect {
        Effect::Relay { message: 1, relay } => Some(relay),
        _ => None,
    })
}

/// Gossip that is no news is not verified again.
#[test]
fn known_gossip_is_ignored() {
    let (mut peer, _) = alone();
    let (known, fork) = (feed(7, 2, None), feed(7, 1, Some((0, 1))));
    let mut memory = Memory::default();
    memory.feeds.insert(key(7), known[..1].to_vec());
    peer.handle(made(vec![memory.head(&key(7))]), Time(0));
    assert_eq!(heard(&mut peer, vec![statement(&known[0])]), Some(Relay::Ignore));
    assert_eq!(heard(&mut peer, vec![statement(&known[1])]), None);
    assert_eq!(heard(&mut peer, vec![statement(&fork[0])]), None);
    // Nor is what a key says that broke the rules.
    let proof = Evidence::Equivocation(Equivocation::new(known[0].clone(), fork[0].clone()).unwrap());
    peer.handle(Input::Made { items: vec![proof.into()], heads: vec![] }, Time(0));
    assert_eq!(heard(&mut peer, vec![statement(&known[1])]), Some(Relay::Ignore));
}

/// The last place that a statement may say to have is followed by none.
#[test]
fn gossip_from_the_end_of_counting() {
    let (mut peer, _) = alone();
    let known = feed(7, 1, None);
    peer.handle(made(vec![head(7, 1)]), Time(0));
    let statement = Statement { seq: u64::MAX, prev: known[0].id(), ..known[0].statement().clone() };
    let last = Evidence::Statement(statement.sign(&signing_key(7)).unwrap());
    assert_eq!(heard(&mut peer, vec![last.into()]), None);
}

/// One node may gossip so much, however fast it is verified here.
#[test]
fn gossip_of_one_node_is_bounded() {
    let (mut peer, _) = alone();
    let items: Vec<_> = feed(7, 1000, None).iter().map(statement).collect();
    let mut relays = Vec::new();
    for message in 0..=limits::GOSSIP.0 / 1000 {
        let gossip = Some(Gossip(items.clone()));
        match peer.handle(Input::Heard { node: node(2), message, gossip }, Time(0))[..] {
            [Effect::Keep { task, .. }] => {
                let kept = Input::Kept { task, fates: vec![Fate::Known; 1000], heads: vec![] };
                peer.handle(kept, Time(0));
            }
            [Effect::Relay { message, relay: Relay::Ignore }] => relays.push(message),
            ref other => panic!("{other:?}"),
        }
    }
    assert_eq!(relays, [limits::GOSSIP.0 / 1000]);
}

/// What is said is published in batches: full ones at once, others after a while, none too soon
/// after another.
#[test]
fn batches() {
    let mut peer = Peer::new(BTreeSet::from([key(7)]), [], BTreeSet::new());
    let mut all = feed(7, 2000, None).into_iter().cycle().map(|signed| statement(&signed));
    let mut say = |peer: &mut Peer, n: usize, now| {
        let items = all.by_ref().take(n).collect();
        peer.handle(Input::Made { items, heads: vec![] }, Time(now))
    };
    let published = |effects: &[Effect]| match effects {
        [Effect::Publish { gossip: Gossip(items) }] => items.len(),
        other => panic!("{other:?}"),
    };
    let (full, delay) = (limits::OUTBOX_BATCH, limits::OUTBOX_DELAY);
    assert_eq!((published(&say(&mut peer, full, 0)), peer.wake()), (full, None));
    assert_eq!((say(&mut peer, 1, 20), peer.wake()), (vec![], Some(Time(20 + delay))));
    assert_eq!((say(&mut peer, full - 1, 21), peer.wake()), (vec![], Some(Time(delay))));
    assert_eq!(peer.handle(Input::Tick, Time(delay - 1)), []);
    assert_eq!(published(&peer.handle(Input::Tick, Time(delay))), full);
    // Long after the last one.
    assert_eq!((say(&mut peer, 1, 1000), peer.wake()), (vec![], Some(Time(1000 + delay))));
    assert_eq!(peer.handle(Input::Tick, Time(1000 + delay - 1)), []);
    assert_eq!(published(&peer.handle(Input::Tick, Time(1000 + delay))), 1);
    // More than it has room for is left to be asked for.
    assert_eq!(published(&say(&mut peer, limits::OUTBOX + 100, 2000)), full);
    assert_eq!(peer.status().outbox, limits::OUTBOX - full);
}

/// Whoever breaks the rules is remembered, but not a whole network of them.
#[test]
fn the_banished_are_so_many() {
    let mut peer = Peer::new(BTreeSet::new(), [], BTreeSet::new());
    let name = |n: usize| {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&(n as u64).to_le_bytes());
        NodeId(bytes)
    };
    let mut comes = |n, nonsense| {
        let node = name(n);
        let effects = peer.handle(Input::Connected { node }, Time(0));
        let out = (0..nonsense).any(|message| {
            let effects = peer.handle(Input::Heard { node, message, gossip: None }, Time(0));
            effects.contains(&Effect::Disconnect { node, why: Why::Nonsense })
        });
        peer.handle(Input::Disconnected { node }, Time(0));
        (effects == [Effect::Disconnect { node, why: Why::Banished }], out)
    };
    assert_eq!([comes(0, 1), comes(0, 2), comes(0, 0)], [(false, false); 3], "a few are forgotten");
    for n in 0..=limits::BANISHED_NODES {
        assert_eq!(comes(n, 3), (false, true), "{n}");
    }
    assert_eq!(comes(0, 0), (true, false));
    assert_eq!(comes(limits::BANISHED_NODES - 1, 0), (true, false));
    assert_eq!(comes(limits::BANISHED_NODES, 0), (false, false));
}

#[test]
fn nodes_are_told_apart() {
    assert_eq!(format!("{:?}", NodeId([0xa1; 32])), "a1a1a1a1");
}

/// What strangers say is not kept beyond the bounds because it comes beside something that is wanted.
#[test]
fn strangers_do_not_come_in_by_the_way() {
    let (mut peer, _) = alone();
    let known = feed(7, 2, None);
    let mut memory = Memory::default();
    memory.feeds.insert(key(7), known.clone());
    let full = (0..=limits::STRANGERS as u32).map(|n| head_of(stranger(n), 100));
    peer.handle(made(full.chain([memory.head(&key(7))]).collect()), Time(0));
    assert!(peer.status().strangers > limits::STRANGERS_STATEMENTS);
    let of_stranger = statement(&feed(8, 1, None)[0]);
    assert_eq!(heard(&mut peer, vec![of_stranger.clone()]), Some(Relay::Ignore));
    // An old statement of somebody who is followed, and known, is enough.
    let gossip = Some(Gossip(vec![statement(&known[0]), of_stranger.clone()]));
    let effects = peer.handle(Input::Heard { node: node(2), message: 1, gossip }, Time(0));
    let keeps = |e: &Effect| matches!(e, Effect::Keep { items, .. } if items.contains(&of_stranger));
    assert!(!effects.iter().any(keeps), "{effects:?}");
}

/// A node that falls silent is refused, also when it owes several answers at that moment.
#[test]
fn silence_about_many_things_at_once() {
    let all: Vec<_> = (1..=8).map(|n| head(n, 1)).collect();
    let mut peer = Peer::new(all.iter().map(|head| head.attester).collect(), [], BTreeSet::new());
    let mut effects = peer.handle(Input::Connected { node: node(2) }, Time(0));
    for round in 0..2 {
        // It says what it has, and nothing of it: eight questions are late in the same moment.
        let now = Time(round * limits::ROUND);
        let question = asked(&effects)[0].1;
        let pulls = peer.handle(answered(question, heads(all.clone())), now);
        assert_eq!(pulled(&pulls).len(), limits::PULLS);
        effects = peer.handle(Input::Tick, now.after(limits::PATIENCE));
        if round == 0 {
            assert_eq!(effects, [], "eight strikes are not twelve");
            effects = peer.handle(Input::Tick, Time(limits::ROUND));
        }
    }
    assert_eq!(effects, [Effect::Disconnect { node: node(2), why: Why::Silent }]);
}

/// A bad line is no bad node: an answer that brings something new takes back one silence.
#[test]
fn who_helps_may_be_silent_once_more() {
    for helps in [true, false] {
        let all: Vec<_> = (1..=8).map(|n| head(n, 1)).collect();
        let mut peer = Peer::new(all.iter().map(|head| head.attester).collect(), [], BTreeSet::new());
        let question = asked(&peer.handle(Input::Connected { node: node(2) }, Time(0)))[0].1;
        peer.handle(answered(question, heads(all.clone())), Time(0));
        peer.handle(Input::Tick, Time(limits::PATIENCE));
        // Eight silences. In the next round four questions are answered, perhaps one with what is new.
        let now = Time(limits::ROUND);
        let question = asked(&peer.handle(Input::Tick, now))[0].1;
        let pulls = asked(&peer.handle(answered(question, heads(all)), now));
        let is_first = |request: &Request| matches!(request, Request::Statements { attester, .. } if *attester == key(1));
        let (first, others): (Vec<_>, Vec<_>) =
            pulls.into_iter().partition(|(.., request)| is_first(request));
        let items = if helps { vec![statement(&feed(1, 1, None)[0])] } else { vec![] };
        let effects = peer.handle(answered(first[0].1, Answer::Items(items)), now);
        if let [Effect::Keep { task, .. }] = effects[..] {
            peer.handle(Input::Kept { task, fates: vec![Fate::New], heads: vec![head(1, 1)] }, now);
        }
        for (_, question, _) in &others[..3] {
            peer.handle(answered(*question, Answer::Items(vec![])), now);
        }
        let effects = peer.handle(Input::Tick, now.after(limits::PATIENCE));
        let refused = effects.contains(&Effect::Disconnect { node: node(2), why: Why::Silent });
        assert_eq!(refused, !helps, "{effects:?}");
    }
}

/// Nonsense from node 2, which answers everything else with nothing; whether it is refused for that.
fn nonsense(peer: &mut Peer, now: u64) -> bool {
    let effects = peer.handle(Input::Heard { node: node(2), message: 1, gossip: None }, Time(now));
    for (_, question, _) in asked(&effects) {
        peer.handle(answered(question, heads(vec![])), Time(now));
    }
    effects.contains(&Effect::Disconnect { node: node(2), why: Why::Nonsense })
}

/// Who was silent once and talked nonsense twice is forgiven the silence, however often it helps.
#[test]
fn nonsense_is_not_made_good_by_helping() {
    let mut peer = Peer::new(BTreeSet::from([key(1)]), [], BTreeSet::new());
    peer.handle(Input::Connected { node: node(2) }, Time(0));
    peer.handle(Input::Tick, Time(limits::PATIENCE));
    assert!(!nonsense(&mut peer, limits::PATIENCE) && !nonsense(&mut peer, limits::PATIENCE));
    let now = Time(limits::ROUND);
    let question = asked(&peer.handle(Input::Tick, now))[0].1;
    let mut effects = peer.handle(answered(question, heads(vec![head(1, 2)])), now);
    for (len, said) in (1..).zip(&feed(1, 2, None)) {
        let question = asked(&effects)[0].1;
        effects = peer.handle(answered(question, Answer::Items(vec![statement(said)])), now);
        let [Effect::Keep { task, .. }] = effects[..] else { panic!("{effects:?}") };
        effects = peer.handle(Input::Kept { task, fates: vec![Fate::New], heads: vec![head(1, len)] }, now);
    }
    assert!(nonsense(&mut peer, now.0), "eight and four are twelve");
}

/// One strike is forgotten each [`limits::STRIKE_LIFE`], however they came: nonsense is four, and
/// twelve are too many.
#[test]
fn strikes_are_forgotten_one_by_one() {
    const LIFE: u64 = limits::STRIKE_LIFE;
    for (moments, refused) in [
        ([0, 0, 0], true),
        ([0, 0, LIFE - 1], true),
        ([0, 0, LIFE], false),
        // It is forgotten at its time, though there was another one meanwhile.
        ([0, LIFE - 1, LIFE - 1], true),
        ([0, LIFE - 1, LIFE], false),
        // What is forgotten long ago does not count against what comes.
        ([4 * LIFE, 4 * LIFE, 5 * LIFE - 1], true),
        ([4 * LIFE, 4 * LIFE, 5 * LIFE], false),
    ] {
        let (mut peer, effects) = alone();
        peer.handle(answered(asked(&effects)[0].1, heads(vec![])), Time(0));
        assert_eq!(moments.map(|now| nonsense(&mut peer, now)), [false, false, refused], "{moments:?}");
    }
    // Four in forty minutes, for days.
    let (mut peer, effects) = alone();
    peer.handle(answered(asked(&effects)[0].1, heads(vec![])), Time(0));
    assert!((0..200).all(|n| !nonsense(&mut peer, 4 * LIFE * n)));
}

/// Of those who say to have a feed, who broke no rule is asked for it, however busy; and so is the
/// other when his last strike is forgotten.
#[test]
fn who_has_no_strikes_is_asked_first() {
    let forgotten = 4 * limits::STRIKE_LIFE;
    for (now, first) in [(limits::ROUND, 3), (forgotten - 1, 3), (forgotten, 2)] {
        let (mut peer, effects) = alone();
        peer.handle(answered(asked(&effects)[0].1, heads(vec![])), Time(0));
        assert!(!nonsense(&mut peer, 0));
        let now = Time(now);
        let rounds = asked(&peer.handle(Input::Connected { node: node(3) }, now));
        let say = |peer: &mut Peer, n| {
            let round = rounds.iter().find(|(of, ..)| *of == n).unwrap().1;
            asked(&peer.handle(answered(round, heads(vec![head(7, 5)])), now))
        };
        // The one is asked, for there is nobody else; then the other says so, too, and has much to do.
        let first_part = say(&mut peer, 2)[0].1;
        assert_eq!(say(&mut peer, 3), []);
        let action = ActionId::from_bytes([1; 32]);
        let mut sought = asked(&peer.handle(Input::Seek { sought: Sought::Action(action) }, now));
        if sought[0].0 == 2 {
            sought = asked(&peer.handle(answered(sought[0].1, Answer::Absent), now));
        }
        assert!(matches!(sought[..], [(3, _, Request::Action { .. })]), "{sought:?}");
        let items = Answer::Items(vec![statement(&feed(7, 1, None)[0])]);
        let effects = peer.handle(answered(first_part, items), now);
        let [Effect::Keep { task, .. }] = effects[..] else { panic!("{effects:?}") };
        let kept = Input::Kept { task, fates: vec![Fate::New], heads: vec![head(7, 1)] };
        assert_eq!(pulled(&peer.handle(kept, now)), [(first, key(7))], "{now:?}");
    }
}

/// Whoever promises much and has strikes takes no place from what somebody without any has.
#[test]
fn feeds_of_those_without_strikes_come_first() {
    let mut all: Vec<_> = (1..=18).map(|n| head(n, 1)).collect();
    all.sort_by_key(|head| head.attester);
    let mut peer = Peer::new(all.iter().map(|head| head.attester).collect(), [], BTreeSet::new());
    let [liar, honest, silent] =
        [2, 3, 4].map(|n| asked(&peer.handle(Input::Connected { node: node(n) }, Time(0)))[0].1);
    peer.handle(Input::Heard { node: node(2), message: 1, gossip: None }, Time(0));
    let say = |peer: &mut Peer, round, said: &[FeedHead]| {
        pulled(&peer.handle(answered(round, heads(said.to_vec())), Time(0)))
    };
    assert_eq!(say(&mut peer, silent, &all[10..]).len(), limits::PULLS);
    assert_eq!([say(&mut peer, liar, &all[..8]), say(&mut peer, honest, &all[8..10])], [[], []]);
    assert_eq!(pulled(&peer.handle(Input::Tick, Time(limits::PATIENCE - 1))), []);
    // The places are free.
    let expected = [(3, 8), (3, 9), (2, 0), (2, 1), (2, 2), (2, 3), (2, 4), (2, 5)];
    let expected = expected.map(|(node, place): (u8, usize)| (node, all[place].attester));
    assert_eq!(pulled(&peer.handle(Input::Tick, Time(limits::PATIENCE))), expected);
}
