//! What must hold, looked at from outside: of every node that does what it should, after every
//! event that can change it, or at the end.
//!
//! Votes are counted again here from what a node keeps, without the ledger, the policy and the
//! verdict of `trust`: two ways to the same answer.

use std::collections::BTreeSet;

use protocol::{
    evidence::UnverifiedEvidence,
    id::ActionId,
    key::AttesterKey,
    output::Outputs,
    statement::{Attestation, Body, Statement},
};
use trust::{
    limits,
    peer::{Status, Why},
    verdict::Side,
};

use crate::{
    builds::{Execution, archive, is_commitment},
    node::{Node, Rumour, Told},
    notary::Notary,
    scenario::{Accepted, Attribute, Expect, Fooled, Witness},
};

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A peer panics.
    #[error("the peer of n{node} panics")]
    Panic {
        /// Whose.
        node: usize,
    },
    /// Wrong outputs are accepted, and fewer lie than that takes.
    #[error("n{node} accepts wrong outputs of {action}")]
    Wrong {
        /// Who.
        node: usize,
        /// Of what.
        action: ActionId,
    },
    /// Outputs are accepted that too few name of those whom the policy names.
    #[error("n{node} accepts outputs of {action} that {have} voters name, and {need} are wanted")]
    Quorum {
        /// Who.
        node: usize,
        /// Of what.
        action: ActionId,
        /// Voters who name them.
        have: usize,
        /// Wanted.
        need: usize,
    },
    /// The vote of a key counts that is known to have equivocated.
    #[error("n{node} counts a vote of {attester} about {action}, and has a proof that it equivocated")]
    Equivocator {
        /// Who.
        node: usize,
        /// About what.
        action: ActionId,
        /// Whose vote.
        attester: AttesterKey,
    },
    /// A vote counts from a place on from which its key is known to be revoked.
    #[error("n{node} counts a vote of {attester} about {action}, which is revoked from place {since} on")]
    Revoked {
        /// Who.
        node: usize,
        /// About what.
        action: ActionId,
        /// Whose vote.
        attester: AttesterKey,
        /// The first place that does not count.
        since: u64,
    },
    /// Two outputs of one action are accepted.
    #[error("n{node} accepts two outputs of {action}")]
    Two {
        /// Who.
        node: usize,
        /// Of what.
        action: ActionId,
    },
    /// A builder that does what it should said two things at one place.
    #[error("{attester} equivocated, and its builder is honest")]
    HonestEquivocator {
        /// Whose key.
        attester: AttesterKey,
    },
    /// A node passes on what is forged or cannot be read.
    #[error("n{node} passes on what is forged or cannot be read")]
    Relayed {
        /// Who.
        node: usize,
    },
    /// Gossip is published faster than gossipsub takes it.
    #[error("n{node} publishes twice within {millis} ms")]
    Hasty {
        /// Who.
        node: usize,
        /// Milliseconds between.
        millis: u64,
    },
    /// A node that does what it should is refused by another.
    #[error("n{node} refuses n{other}, which is honest: {why:?}")]
    Innocent {
        /// Who.
        node: usize,
        /// Whom.
        other: usize,
        /// Why.
        why: Why,
    },
    /// A peer wants to be woken for what has passed.
    #[error("n{node} wants to be woken for what has passed")]
    Restless {
        /// Who.
        node: usize,
    },
    /// Something is not within its bounds.
    #[error("n{node} has {count} {what}, and {limit} are allowed")]
    Bound {
        /// Who.
        node: usize,
        /// Of what.
        what: &'static str,
        /// How many.
        count: u64,
        /// How many there may be.
        limit: u64,
    },
    /// At the end, nodes that do what they should are not connected.
    #[error("n{node} and n0 have no honest way to each other")]
    Apart {
        /// Which.
        node: usize,
    },
    /// At the end, two connected nodes keep something else of a feed that both follow.
    #[error("n{node} and n{other} keep something else of {attester}: {len} and {other_len} statements")]
    Differ {
        /// One.
        node: usize,
        /// The other.
        other: usize,
        /// Whose feed.
        attester: AttesterKey,
        /// How much the one has.
        len: u64,
        /// How much the other has.
        other_len: u64,
    },
    /// At the end, a proof is not known.
    #[error("n{node} knows of {known} builders that they equivocated, and {expected} did")]
    Proofs {
        /// Who.
        node: usize,
        /// How many it knows of.
        known: usize,
        /// How many there are.
        expected: usize,
    },
    /// At the end, a node has not accepted what it should.
    #[error("n{node} accepts {accepted} actions, and should {expected}")]
    Stuck {
        /// Who.
        node: usize,
        /// Of how many actions outputs are accepted.
        accepted: usize,
        /// Of how many they should be.
        expected: usize,
    },
    /// At the end, a node has not fetched what it accepted.
    #[error("n{node} lacks {lacking} archives of what it accepts")]
    Unfetched {
        /// Who.
        node: usize,
        /// How many.
        lacking: usize,
    },
    /// At the end, copies count.
    #[error("of all copies at all nodes, {share} of a thousand count, and at most {most} should")]
    Copies {
        /// How many do.
        share: u64,
        /// How many may.
        most: u64,
    },
    /// At the end, nobody was fooled, although enough lied.
    #[error("nobody was fooled, although enough lied")]
    NotFooled,
}

/// Whether what a node accepts may be accepted.
pub(crate) fn accepted(
    number: usize,
    node: &Node,
    action: &ActionId,
    outputs: &Outputs,
    truth: Option<&Outputs>,
    fooled: Fooled,
) -> Result<(), Violation> {
    let action = *action;
    let sides = node.judge.verdict(&action).reasoning.sides;
    may_count(number, node, &action, &sides)?;
    if sides.iter().filter(|side| side.met).count() > 1 {
        return Err(Violation::Two { node: number, action });
    }
    let need = node.judge.rules().wants.at_least;
    let have = voters(node, &action, outputs);
    if have < need {
        return Err(Violation::Quorum { node: number, action, have, need });
    }
    if let Some(before) = node.judge.accepted.get(&action)
        && before != outputs
        && voters(node, &action, before) >= need
    {
        return Err(Violation::Two { node: number, action });
    }
    if fooled == Fooled::Never && truth != Some(outputs) {
        return Err(Violation::Wrong { node: number, action });
    }
    Ok(())
}

/// Whether the votes about an action are of those against whom the node knows nothing.
fn may_count(number: usize, node: &Node, action: &ActionId, sides: &[Side]) -> Result<(), Violation> {
    let action = *action;
    for vote in sides.iter().flat_map(|side| &side.votes) {
        let Some(attester) = vote.key else { continue };
        if node.disk.equivocated(&attester) {
            return Err(Violation::Equivocator { node: number, action, attester });
        }
        if let Some(since) = node.disk.revoked(&attester).filter(|since| vote.seq >= Some(*since)) {
            return Err(Violation::Revoked { node: number, action, attester, since });
        }
    }
    Ok(())
}

/// How many of those whom the policy names say that an action gives these outputs, as far as the
/// node keeps it: keys that succeed each other are one, and so are people of one operator, or of one
/// architecture, if they are to differ.
fn voters(node: &Node, action: &ActionId, outputs: &Outputs) -> usize {
    let rules = node.judge.rules();
    let mut agree = 0;
    let mut values = vec![BTreeSet::new(); rules.wants.distinct.len()];
    for (key, named) in &rules.named {
        let said: Vec<(&AttesterKey, &Attestation)> =
            keys(node, *key).iter().flat_map(|key| of_key(node, action, key)).collect();
        let Some((key, last)) = said.last() else { continue };
        if said.iter().any(|(_, built)| built.outputs != *outputs) || !proven(node, key, last) {
            continue;
        }
        agree += 1;
        for (attribute, values) in rules.wants.distinct.iter().zip(&mut values) {
            values.insert(match attribute {
                Attribute::Operator => named.operator.clone(),
                Attribute::Arch => last.platform.arch.clone(),
            });
        }
    }
    values.iter().map(BTreeSet::len).fold(agree, usize::min)
}

/// What a key says of an action, in order, as far as nothing is known against it.
fn of_key<'n>(
    node: &'n Node,
    action: &ActionId,
    key: &AttesterKey,
) -> Vec<(&'n AttesterKey, &'n Attestation)> {
    let statements = node.disk.about(action).iter().map(|sworn| sworn.signed.statement());
    let own = statements.filter(|said| said.attester == *key && counts(node, said));
    let said = own.filter_map(|said| match &said.body {
        Body::Built(built) if !is_commitment(&built.outputs) => Some((&said.attester, built)),
        _ => None,
    });
    said.collect()
}

fn counts(node: &Node, said: &Statement) -> bool {
    let (attester, disk) = (&said.attester, &node.disk);
    !disk.equivocated(attester) && disk.revoked(attester).is_none_or(|since| said.seq < since)
}

/// A key, and those that succeeded it.
fn keys(node: &Node, first: AttesterKey) -> Vec<AttesterKey> {
    let mut keys = vec![first];
    // It is the last that a key says.
    let next = |key: &AttesterKey| {
        let last = node.disk.said(key).last()?.signed.statement();
        match last.body {
            Body::Succeed { successor, .. } if counts(node, last) => Some(successor),
            _ => None,
        }
    };
    while let Some(key) = keys.last().and_then(next).filter(|key| !keys.contains(key)) {
        keys.push(key);
    }
    keys
}

fn proven(node: &Node, attester: &AttesterKey, built: &Attestation) -> bool {
    let own = node.judge.execution(&built.action).filter(|own| own.outputs == built.outputs);
    let expected = own.and_then(|own| own.transcript).map(|t| t.witness(attester, &built.action));
    match (built.witness, expected) {
        (Some(witness), Some(expected)) => witness == expected,
        (Some(_), None) => node.judge.rules().wants.witness != Witness::Verified,
        (None, _) => node.judge.rules().wants.witness == Witness::Any,
    }
}

/// Whether gossip may be passed on.
pub(crate) fn relayed(node: usize, rumour: &Rumour, notary: &mut Notary) -> Result<(), Violation> {
    let good = |item: &UnverifiedEvidence| notary.verify(item).is_some();
    match &rumour.told {
        Told::Feeds(Some(gossip)) if gossip.0.iter().all(good) => Ok(()),
        Told::Wish(Some(wish)) if notary.wish(wish) => Ok(()),
        Told::Feeds(_) | Told::Wish(_) => Err(Violation::Relayed { node }),
    }
}

/// Whether a peer's memory is within its bounds, and that of a rebuilder: `wishes` are remembered,
/// and `queue` actions wait.
pub(crate) fn bounds(
    node: usize,
    status: &Status,
    followed: usize,
    wishes: usize,
    queue: usize,
) -> Result<(), Violation> {
    let feeds = followed + limits::STRANGERS;
    // What is being verified when a bound is reached still comes in: gossip, and answers.
    let told = limits::TASKS * limits::OUTBOX_BATCH;
    let (more_feeds, more) = (told + limits::PULLS, told + limits::PULLS * protocol::limits::ITEMS);
    for (what, count, limit) in [
        ("statements of strangers", status.strangers, limits::STRANGERS_STATEMENTS + more as u64),
        ("feeds", status.feeds as u64, (feeds + more_feeds) as u64),
        ("items in the outbox", status.outbox as u64, limits::OUTBOX as u64),
        ("wanted archives", status.wanted as u64, limits::WANTS as u64),
        ("wishes", wishes as u64, (followed + limits::STRANGERS_WISHES) as u64),
        ("actions to rebuild", queue as u64, limits::REBUILDS as u64),
    ] {
        if count > limit {
            return Err(Violation::Bound { node, what, count, limit });
        }
    }
    Ok(())
}

/// What holds at the end, when nothing was broken for a while; whether anybody was ever `fooled`.
pub(crate) fn at_the_end(
    nodes: &[Node],
    truth: &[Execution],
    expect: &Expect,
    fooled: bool,
) -> Result<(), Violation> {
    let honest: Vec<usize> = (0..nodes.len()).filter(|n| nodes[*n].honest && !nodes[*n].gone).collect();
    let Some(first) = honest.first() else { return Ok(()) };
    connected(nodes, *first, &honest)?;
    for node in &honest {
        converged(nodes, *first, *node)?;
        let known = &nodes[*node].judge.rules().named;
        let known = known.keys().filter(|key| nodes[*node].disk.equivocated(key)).count();
        if known != expect.equivocators {
            return Err(Violation::Proofs { node: *node, known, expected: expect.equivocators });
        }
        live(*node, &nodes[*node], truth, expect)?;
    }
    let wrong = |node: usize| {
        let accepted = &nodes[node].judge.accepted;
        let is_wrong = |of: &&Execution| accepted.get(&of.action).is_some_and(|outputs| *outputs != of.truth);
        truth.iter().find(is_wrong).map(|execution| (node, execution.action))
    };
    match (expect.fooled, honest.into_iter().find_map(wrong)) {
        (Fooled::Meanwhile, None) if !fooled => Err(Violation::NotFooled),
        (Fooled::Finally, None) => Err(Violation::NotFooled),
        (Fooled::Finally, Some(_)) | (_, None) => Ok(()),
        (_, Some((node, action))) => Err(Violation::Wrong { node, action }),
    }
}

fn connected(nodes: &[Node], first: usize, honest: &[usize]) -> Result<(), Violation> {
    let mut reached = BTreeSet::from([first]);
    let mut left = vec![first];
    while let Some(node) = left.pop() {
        let others = nodes[node].links.keys().filter(|other| nodes[**other].honest);
        left.extend(others.copied().filter(|other| reached.insert(*other)));
    }
    match honest.iter().find(|node| !reached.contains(node)) {
        Some(node) => Err(Violation::Apart { node: *node }),
        None => Ok(()),
    }
}

/// Two nodes know the same of every feed that they follow. Of a key that equivocated that is the
/// proof, and nothing else is of interest.
fn converged(nodes: &[Node], other: usize, node: usize) -> Result<(), Violation> {
    for attester in nodes[node].peer.followed().union(nodes[other].peer.followed()) {
        let (here, there) = (nodes[node].disk.head(attester), nodes[other].disk.head(attester));
        let broken = [node, other].map(|n| nodes[n].disk.equivocated(attester));
        if here != there && broken != [true, true] {
            let (len, other_len) = (here.len, there.len);
            return Err(Violation::Differ { node, other, attester: *attester, len, other_len });
        }
    }
    Ok(())
}

/// How many copies count, of a thousand: `counting` of `all`.
pub(crate) fn copies(counting: u64, all: u64, expect: &Expect) -> Result<(), Violation> {
    let (share, most) = (counting * 1000 / all.max(1), expect.copies.unwrap_or(1000));
    if share > most { Err(Violation::Copies { share, most }) } else { Ok(()) }
}

fn live(number: usize, node: &Node, truth: &[Execution], expect: &Expect) -> Result<(), Violation> {
    let accepted = &node.judge.accepted;
    for action in accepted.keys() {
        may_count(number, node, action, &node.judge.verdict(action).reasoning.sides)?;
    }
    let count = truth.iter().filter(|execution| accepted.contains_key(&execution.action)).count();
    let expected = match expect.accepted {
        Accepted::All => truth.len(),
        Accepted::Some => count,
        Accepted::None => 0,
    };
    if count != expected {
        return Err(Violation::Stuck { node: number, accepted: count, expected });
    }
    let lacking = accepted.values().filter(|outputs| !node.disk.nars.contains(&archive(outputs)));
    let lacking = lacking.count();
    if expect.fetched && lacking > 0 {
        return Err(Violation::Unfetched { node: number, lacking });
    }
    Ok(())
}
