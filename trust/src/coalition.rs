//! Coalitions (SPEC §15.5): who could make this machine accept what is wrong.
//!
//! A policy bounds what liars can do, and by how much follows from the rule alone: the fewest
//! parties who, if they all lied alike about an action of which nobody else has spoken, would be
//! believed. A party is an operator, in the owner's words, with all keys that the owner gave it.
//!
//! Architecture, engine and operating system are the voters' own words. A liar says of them what
//! is wanted, so rules that want them to differ protect from common bugs and not from liars: here
//! they cost nobody anything.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{
    id::NarHash,
    name::Name,
    output::{Output, Outputs},
};
use serde::Serialize;

use crate::{
    ledger::{Claim, Claims, Mute},
    limits,
    policy::{Agreement, Members, Place, Policy, Rule, View, WitnessRule},
    roster::SELF,
    verdict::{Outcome, decide},
};

/// The smallest coalition that could fool a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Exposure {
    /// Nobody: nothing is accepted that this machine has not executed itself.
    Nobody,
    /// These operators, if they agree on a lie. There may be other coalitions of as many.
    Coalition {
        /// The operators.
        operators: BTreeSet<Name>,
        /// Their names in the roster.
        voters: BTreeSet<Name>,
        /// Whether no smaller coalition could. If not, the search was ended, and there may be one.
        smallest: bool,
    },
}

impl Exposure {
    /// How many operators it takes; `None` if no number is enough.
    pub fn size(&self) -> Option<usize> {
        match self {
            Self::Nobody => None,
            Self::Coalition { operators, .. } => Some(operators.len()),
        }
    }
}

/// Who could make this machine accept chosen outputs for an action of a package of which nobody
/// has spoken yet, this machine included.
///
/// `mute` are those who cannot vote ([`Claims::mute`]). Exact, unless it takes more than
/// [`limits::COALITION_WORK`].
pub fn who_can_fool(view: &View<'_>, mute: &BTreeMap<Name, Mute>) -> Exposure {
    if view.witness() == WitnessRule::Verified {
        // What this machine can verify, it has executed.
        return Exposure::Nobody;
    }
    let mut search = Search::new(view.rule(), view.members(), mute);
    let all: Vec<usize> = search.classes.iter().map(Vec::len).collect();
    if !search.met(&all) {
        return Exposure::Nobody;
    }
    let (chosen, smallest) = search.smallest(all);
    let operators = search.operators(&chosen);
    let operators: BTreeSet<Name> = operators.into_iter().cloned().collect();
    let voters = search.able.iter().filter(|(_, operator)| operators.contains(**operator));
    let voters = voters.map(|(name, _)| (*name).clone()).collect();
    Exposure::Coalition { operators, voters, smallest }
}

/// The package of a closure that takes the smallest coalition, the first of several; `None` if
/// there are no packages, or nobody can fool this machine about any of them.
///
/// To lie about a package it is enough to lie about anything that it is built from.
pub fn weakest<'n>(
    policy: &Policy,
    packages: impl IntoIterator<Item = &'n Name>,
    mute: &BTreeMap<Name, Mute>,
) -> Option<(&'n Name, Exposure)> {
    let mut known: BTreeMap<Place, Exposure> = BTreeMap::new();
    let mut weakest: Option<(&Name, Exposure)> = None;
    for package in packages {
        let view = policy.for_package(package);
        let exposure = known.entry(view.place()).or_insert_with(|| who_can_fool(&view, mute));
        let Some(size) = exposure.size() else { continue };
        if weakest.as_ref().and_then(|(_, least)| least.size()).is_none_or(|least| size < least) {
            weakest = Some((package, exposure.clone()));
        }
    }
    weakest
}

/// What of an action would be decided otherwise, if it were not for one voter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Blast {
    /// Which of the actions that were asked about, counted from 0.
    pub index: usize,
    /// What is decided.
    pub now: Outcome,
    /// What would be decided if the voter had said nothing.
    pub absent: Outcome,
    /// What would be decided if the voter had named other outputs.
    pub wrong: Outcome,
}

/// For which actions, each with what is claimed and what applies, acceptance hangs on one voter:
/// without its word, or with a word that nobody else says, it would be decided otherwise whether
/// outputs are accepted, or which. Actions of which nobody has spoken are for [`who_can_fool`].
pub fn blast_radius<'a>(
    voter: &Name,
    actions: impl IntoIterator<Item = (&'a Claims, View<'a>)>,
) -> Vec<Blast> {
    let accepted = |outcome: &Outcome| match outcome {
        Outcome::Accepted { outputs } => Some(outputs.clone()),
        Outcome::Pending | Outcome::Disputed | Outcome::Untrusted => None,
    };
    let mut blasts = Vec::new();
    for (index, (claims, view)) in actions.into_iter().enumerate() {
        // Who has not spoken yet may still say what nobody else does.
        let any = || claims.votes().next().map(|(_, claim)| claim);
        let Some(claim) = claims.vote(voter).or_else(any) else { continue };
        let other = Claim { outputs: unheard_of(claims, &claim.outputs), ..claim.clone() };
        let (without, with) = (claims.with(voter, None), claims.with(voter, Some(other)));
        let (now, absent, wrong) = (decide(claims, &view), decide(&without, &view), decide(&with, &view));
        if accepted(&absent) != accepted(&now) || accepted(&wrong) != accepted(&now) {
            blasts.push(Blast { index, now, absent, wrong });
        }
    }
    blasts
}

/// Outputs like those that somebody claims, which nobody claims.
fn unheard_of(claims: &Claims, like: &Outputs) -> Outputs {
    let mut outputs = like.clone();
    // Of as many hashes as there are votes, and one more, one is new.
    for n in 0..=claims.votes().len() as u64 {
        if claims.votes().all(|(_, claim)| claim.outputs != outputs) {
            break;
        }
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&n.to_le_bytes());
        for Output { nar, .. } in outputs.values_mut() {
            *nar = NarHash::from_bytes(hash);
        }
    }
    outputs
}

/// The search for the smallest coalition.
///
/// Operators whose keys are in the same places of the rule can stand for each other, so what is
/// searched is how many of each class take part.
struct Search<'a> {
    rule: &'a Rule,
    members: &'a Members,
    /// Who can vote, with the operator.
    able: BTreeMap<&'a Name, &'a Name>,
    classes: Vec<Vec<&'a Name>>,
    /// Nodes of the rule.
    nodes: usize,
    /// Nodes that were looked at.
    work: usize,
}

impl<'a> Search<'a> {
    fn new(rule: &'a Rule, members: &'a Members, mute: &BTreeMap<Name, Mute>) -> Self {
        let able: BTreeMap<&Name, &Name> = members
            .iter()
            .filter(|(name, member)| name.as_str() != SELF && !member.expired && !mute.contains_key(*name))
            .map(|(name, member)| (name, &member.operator))
            .collect();
        // Where each operator's keys are: the rules right above them, with how many there.
        let mut places: BTreeMap<&Name, BTreeMap<usize, usize>> = BTreeMap::new();
        let (mut left, mut nodes) = (vec![(rule, 0)], 0);
        while let Some((rule, above)) = left.pop() {
            nodes += 1;
            match rule {
                Rule::Voter(voter) => {
                    if let Some(operator) = able.get(voter.name()) {
                        *places.entry(operator).or_default().entry(above).or_default() += 1;
                    }
                }
                Rule::AtLeast(rule) => left.extend(rule.of().iter().map(|rule| (rule, nodes))),
            }
        }
        let mut classes: BTreeMap<BTreeMap<usize, usize>, Vec<&Name>> = BTreeMap::new();
        for (operator, places) in places {
            classes.entry(places).or_default().push(operator);
        }
        Self { rule, members, able, classes: classes.into_values().collect(), nodes, work: 0 }
    }

    fn operators(&self, chosen: &[usize]) -> BTreeSet<&'a Name> {
        self.classes.iter().zip(chosen).flat_map(|(class, n)| class[..*n].iter().copied()).collect()
    }

    /// Whether so many of each class are enough, all saying whatever is wanted of platforms.
    fn met(&mut self, chosen: &[usize]) -> bool {
        self.work += self.nodes;
        let operators = self.operators(chosen);
        self.rule.met(self.members, &|voter| {
            let operator = self.able.get(voter.name())?;
            operators.contains(*operator).then_some(Agreement::Anywhere)
        })
    }

    /// The fewest that are enough, and whether it is certain that no fewer are; `all` are enough.
    fn smallest(&mut self, all: Vec<usize>) -> (Vec<usize>, bool) {
        let mut enough = all;
        // First some coalition from which nobody can be spared.
        for class in 0..enough.len() {
            while enough[class] > 0 {
                enough[class] -= 1;
                if !self.met(&enough) {
                    enough[class] += 1;
                    break;
                }
            }
        }
        // Then every size below it, the smallest first.
        for size in 1..enough.iter().sum() {
            match self.of_size(&mut Vec::new(), size) {
                Found::Enough(chosen) => return (chosen, true),
                Found::Nothing => {}
                Found::TooLong => return (enough, false),
            }
        }
        (enough, true)
    }

    /// Looks for a coalition of `left` more, in the classes behind those that `chosen` is about.
    fn of_size(&mut self, chosen: &mut Vec<usize>, left: usize) -> Found {
        if self.work >= limits::COALITION_WORK {
            return Found::TooLong;
        }
        let class = chosen.len();
        // Not even as many of every other class as are left would be enough.
        let rest: Vec<usize> = self.classes[class..].iter().map(|class| class.len().min(left)).collect();
        let most = [chosen.as_slice(), &rest].concat();
        if !self.met(&most) {
            return Found::Nothing;
        }
        if rest.iter().sum::<usize>() == left {
            return Found::Enough(most);
        }
        let Some(next) = self.classes.get(class) else { return Found::Nothing };
        for n in (0..=next.len().min(left)).rev() {
            chosen.push(n);
            let found = self.of_size(chosen, left - n);
            chosen.pop();
            match found {
                Found::Nothing => {}
                Found::Enough(_) | Found::TooLong => return found,
            }
        }
        Found::Nothing
    }
}

/// What a search found.
enum Found {
    Enough(Vec<usize>),
    Nothing,
    TooLong,
}
