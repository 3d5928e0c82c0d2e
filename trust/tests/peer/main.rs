//! Peers among each other, in virtual time: what is said reaches everybody, whatever is lost, and
//! whoever lies pays for it.
//!
//! * `world.rs`: nodes, and what is on its way between them.
//! * `blobs.rs`: archives in pieces.
//! * `alone.rs`: one peer, to which something is said.
//! * `anything.rs`: one peer, to which anything may be said.

mod alone;
mod anything;
mod blobs;
mod wishes;
mod world;

use protocol::{
    evidence::{Evidence, Revocation, UnverifiedEvidence},
    feed::Head,
    id::{ActionId, NarHash},
    key::{AttesterKey, SigningKey},
    message::FeedHead,
    name::Name,
    output::{Output, Outputs},
    statement::{Attestation, Body, Platform, Signed, Statement},
};
use trust::{
    limits,
    peer::{Input, NodeId, Why},
};

use self::world::World;

fn signing_key(n: u8) -> SigningKey {
    SigningKey::from_bytes(&[n; 32])
}

fn key(n: u8) -> AttesterKey {
    AttesterKey::of(&signing_key(n))
}

fn node(n: u8) -> NodeId {
    NodeId([n; 32])
}

/// The statement behind `head` in the feed of attester `n`: that something gave the outputs `gave`.
fn say(head: &Head, n: u8, gave: u8) -> Signed {
    let output = Output { nar: NarHash::from_bytes([gave; 32]), size: 96 };
    let platform = |text: &str| Name::new(text).unwrap();
    let body = Body::Built(Attestation {
        action: ActionId::from_bytes([1; 32]),
        outputs: Outputs::from([(Name::out(), output)]),
        witness: None,
        platform: Platform { engine: platform("e"), arch: platform("a"), os: platform("o") },
    });
    let (seq, prev) = (head.len(), head.last());
    Statement { attester: key(n), seq, prev, time: 0, body }.sign(&signing_key(n)).unwrap()
}

/// A feed of `len` statements; feeds of another `taste` are forks from the statement `from` on.
fn feed(n: u8, len: u64, fork: Option<(u64, u8)>) -> Vec<Signed> {
    let mut head = Head::empty(key(n));
    let mut feed = Vec::new();
    for place in 0..len {
        let taste = fork.filter(|(from, _)| place >= *from).map_or(0, |(_, taste)| taste);
        let signed = say(&head, n, taste);
        head = head.follow(&signed).unwrap();
        feed.push(signed);
    }
    feed
}

fn statement(signed: &Signed) -> UnverifiedEvidence {
    Evidence::Statement(signed.clone()).into()
}

#[test]
fn feeds_are_complete_by_asking() {
    let mut world = World::new(3, &[7, 8]);
    world.has(1, feed(7, 1234, None));
    world.has(2, feed(8, 5, None));
    // Only in a line: what the third has, it has from the second.
    world.connect(1, 2);
    world.connect(2, 3);
    world.run(70_000);
    assert_eq!((world.lens(7), world.lens(8)), (vec![1234; 3], vec![5; 3]));
    assert_eq!(world.members[&3].peer.status().missing, 0);
    assert_eq!(world.disconnected, []);
}

#[test]
fn gossip_is_faster_and_not_needed() {
    for lost in [false, true] {
        let mut world = World::new(5, &[7]).everybody_connected();
        world.run(1000);
        world.gossip_is_lost = lost;
        let all = feed(7, 300, None);
        for signed in &all {
            world.made(1, statement(signed));
        }
        world.run(2000);
        let expected = if lost { vec![300, 0, 0, 0, 0] } else { vec![300; 5] };
        assert_eq!(world.lens(7), expected, "{lost}");
        world.run(62_000);
        assert_eq!(world.lens(7), [300; 5], "{lost}");
    }
}

#[test]
fn gossip_with_a_gap_is_asked_for() {
    let mut world = World::new(2, &[7]).everybody_connected();
    world.run(1000);
    let all = feed(7, 300, None);
    world.has(1, all[..299].to_vec());
    // Long before the next round.
    world.made(1, statement(&all[299]));
    world.run(1000);
    assert_eq!(world.lens(7), [300; 2]);
}

#[test]
fn a_partition_heals() {
    let mut world = World::new(4, &[7, 8]).everybody_connected();
    world.run(1000);
    for (a, b) in [(1, 3), (1, 4), (2, 3), (2, 4)] {
        world.disconnect(a, b);
    }
    for (n, who) in [(1, 7), (4, 8)] {
        feed(who, 10, None).iter().for_each(|signed| world.made(n, statement(signed)));
    }
    world.run(120_000);
    assert_eq!((world.lens(7), world.lens(8)), (vec![10, 10, 0, 0], vec![0, 0, 10, 10]));
    world.connect(2, 3);
    world.run(5000);
    assert_eq!((world.lens(7)[2], world.lens(8)[1]), (10, 10), "who is connected has it at once");
    world.run(60_000);
    assert_eq!((world.lens(7), world.lens(8)), (vec![10; 4], vec![10; 4]));
}

/// However two halves of the network came to have different feeds of one key, both learn of it.
#[test]
fn forks_are_found_and_told() {
    for (one, other, from) in [(10, 10, 9), (10, 10, 3), (10, 14, 9), (10, 14, 3), (14, 10, 0)] {
        let mut world = World::new(4, &[7]);
        world.connect(1, 2);
        world.connect(3, 4);
        world.has(1, feed(7, one, None));
        world.has(4, feed(7, other, Some((from, 1))));
        world.run(61_000);
        world.connect(2, 3);
        world.run(61_000);
        assert_eq!(world.convinced(7), [1, 2, 3, 4], "{one} {other} {from}");
        assert_eq!(world.disconnected, [], "nobody is to blame for what others signed");
        let before = world.requests;
        world.run(600_000);
        // Heads alone: each of three connections, both ways, ten times.
        assert_eq!(world.requests - before, 60, "there is nothing more to be asked");
    }
}

/// Who is between two forks sees at once that they are two.
#[test]
fn forks_are_found_between() {
    let mut world = World::new(3, &[7]);
    world.has(1, feed(7, 5, None));
    world.has(3, feed(7, 5, Some((4, 1))));
    world.connect(1, 2);
    world.connect(2, 3);
    world.run(2000);
    assert_eq!(world.convinced(7), [1, 2, 3]);
}

#[test]
fn proofs_reach_those_who_were_away() {
    let mut world = World::new(3, &[7]);
    world.connect(1, 2);
    world.has(1, feed(7, 3, None));
    world.run(1000);
    let revocation = Revocation::sign(&signing_key(7), 2);
    world.made(1, Evidence::Revocation(revocation).into());
    world.run(1000);
    world.connect(2, 3);
    world.run(1000);
    for member in world.members.values() {
        assert_eq!(member.memory.proofs[&key(7)], [Evidence::Revocation(revocation)]);
    }
}

#[test]
fn strangers_are_kept_within_bounds() {
    let mut world = World::new(2, &[7]).everybody_connected();
    world.has(1, feed(7, 3, None));
    world.has(1, feed(9, 30, None));
    world.run(61_000);
    assert_eq!(world.lens(9), [30; 2]);
    let status = world.members[&2].peer.status();
    assert_eq!((status.strangers, status.statements, status.feeds), (30, 33, 2));
    // A stranger who says more than all strangers may.
    let heads =
        vec![FeedHead { len: limits::STRANGERS_STATEMENTS, ..world.members[&1].memory.head(&key(9)) }];
    world.input(2, Input::Made { items: vec![], heads });
    world.has(1, feed(10, 5, None));
    world.has(1, feed(7, 4, None));
    world.run(61_000);
    assert_eq!((world.lens(10), world.lens(7)), (vec![5, 0], vec![4; 2]), "friends are kept all the same");
}

#[test]
fn who_does_not_answer_is_asked_no_more() {
    let mut world = World::new(3, &[7]);
    world.has(2, feed(7, 5, None));
    world.connect(1, 2);
    world.mute.insert(2);
    world.run(20_000);
    assert_eq!(world.lens(7), [0, 5, 0]);
    world.has(3, feed(7, 5, None));
    world.connect(1, 3);
    world.run(1000);
    assert_eq!(world.lens(7), [5; 3], "somebody else has it");
    world.run(20 * 60_000);
    assert!(world.disconnected.contains(&(1, 2, Why::Silent)), "{:?}", world.disconnected);
}
