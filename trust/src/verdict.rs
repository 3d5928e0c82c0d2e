//! Verdicts (SPEC §15.3): whether outputs are accepted, and why.
//!
//! ```text
//! ledger.rs ── Claims ──▶ judge ──▶ Verdict ──▶ resolve.rs (is it taken?), `assize why` (explain it)
//! policy.rs ── View ───────┘
//! ```
//!
//! [`decide`] is the only place where that is decided, and [`judge`] is the same with the reasons.
//! Its claims are verified and one of each
//! voter (`ledger.rs` sees to both), so no signature, clock or network appears here, and equal
//! claims give equal verdicts on every machine.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use protocol::{key::AttesterKey, name::Name, output::Outputs, statement::Platform};
use serde::Serialize;

use crate::{
    ledger::{Claims, Mute, Uncounted, WitnessState},
    policy::{Agreement, Attribute, Because, Dissent, Member, Preset, Rule, View, Voter, WitnessRule, list},
};

/// What is decided about an action, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// What is decided.
    pub outcome: Outcome,
    /// Why.
    pub reasoning: Reasoning,
}

/// What is decided about an action.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Outcome {
    /// These are its outputs.
    Accepted {
        /// All of them.
        outputs: Outputs,
    },
    /// Too few agree, and more could.
    Pending,
    /// Several outputs are named, and that has to be settled first.
    Disputed,
    /// Nobody whom the rule names has voted.
    Untrusted,
}

/// How a verdict came about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reasoning {
    /// Why this rule.
    pub because: Because,
    /// The preset that it is of.
    pub preset: Option<Preset>,
    /// What dissent does.
    pub dissent: Dissent,
    /// What is wanted of witnesses.
    pub witness: WitnessRule,
    /// The outputs that are named, each with its voters: first those for which the rule is met,
    /// then those with more votes.
    pub sides: Vec<Side>,
    /// The rule, as it stands with the first side.
    pub rule: Node,
    /// Who could bring the first side nearer by agreeing, and has no vote; empty if accepted.
    pub missing: Vec<Name>,
    /// Whether outputs are accepted although somebody names others, and the owner wants to know.
    pub alarm: bool,
    /// What was said and is no vote.
    pub uncounted: Vec<Uncounted>,
    /// How many keys spoke that nobody here knows.
    pub strangers: usize,
}

/// One of the outputs that are named.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Side {
    /// All outputs of the action.
    pub outputs: Outputs,
    /// Whether the rule is met by its voters.
    pub met: bool,
    /// Who names them, in order of names.
    pub votes: Vec<Vote>,
}

/// That somebody names outputs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Vote {
    /// Who.
    pub voter: Name,
    /// Where it was executed, in the voter's words.
    pub platform: Platform,
    /// Whether its execution is proven.
    pub witness: WitnessState,
    /// Whether that is enough for the vote to count for these outputs. It is dissent from others
    /// in any case.
    pub counts: bool,
    /// The key that signed it; `None` if it is what this machine did and not a statement.
    pub key: Option<AttesterKey>,
    /// Its place in that key's feed, likewise.
    pub seq: Option<u64>,
}

/// A rule, as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// The rule in a line.
    pub rule: String,
    /// Whether it is met.
    pub met: bool,
    /// What it is.
    pub is: Kind,
}

/// What a rule is, and how it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Kind {
    /// One voter.
    Voter {
        /// What it says.
        says: Says,
    },
    /// So many of several.
    AtLeast {
        /// How many are met.
        have: usize,
        /// How many must be.
        need: usize,
        /// In what those who agree must differ, and how many different values there are.
        distinct: BTreeMap<Attribute, usize>,
        /// The elements.
        of: Vec<Node>,
    },
}

/// What a voter says of outputs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Says {
    /// That it got them.
    Agrees,
    /// That it got them, but without the witness that is wanted.
    Unproven,
    /// That it got others.
    Differs,
    /// Nothing that counts.
    Nothing,
    /// Nothing, and it cannot.
    Mute(Mute),
}

/// Decides about an action, by what is claimed of it and what applies to its package.
///
/// Total. Does not depend on the order in which anything was heard. The claim of somebody who is
/// not of the roster that the policy was compiled with is passed over.
pub fn decide(claims: &Claims, view: &View<'_>) -> Outcome {
    let bench = Bench::new(claims, view);
    bench.outcome(&bench.sides())
}

/// Decides as [`decide`] does, and says why.
pub fn judge(claims: &Claims, view: &View<'_>) -> Verdict {
    let bench = Bench::new(claims, view);
    let sides = bench.sides();
    let outcome = bench.outcome(&sides);
    let accepted = matches!(outcome, Outcome::Accepted { .. });
    let rule = bench.node(view.rule(), sides.first().map(|backing| backing.side));
    let mut missing = BTreeSet::new();
    if !accepted {
        collect_missing(view.rule(), &rule, &mut missing);
    }
    let reasoning = Reasoning {
        because: view.because(),
        preset: view.preset(),
        dissent: view.dissent(),
        witness: view.witness(),
        alarm: accepted && sides.len() > 1 && view.dissent() == Dissent::Alarm,
        sides: bench.show(&sides),
        rule,
        missing: missing.into_iter().cloned().collect(),
        uncounted: claims.uncounted.clone(),
        strangers: claims.strangers,
    };
    Verdict { outcome, reasoning }
}

/// What is judged, and by what.
struct Bench<'a> {
    claims: &'a Claims,
    view: &'a View<'a>,
    /// How everybody stands whom rules may name, by seat.
    stands: Vec<Stand>,
}

/// How somebody stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stand {
    /// It has no vote any more.
    Out,
    /// It has said nothing that counts.
    Silent,
    /// It votes for one of [`Claims::sides`].
    For {
        side: usize,
        /// The place of its ballot.
        ballot: usize,
        /// Whether the proof of execution is enough.
        proven: bool,
    },
}

/// What stands behind one of [`Claims::sides`].
struct Backing {
    side: usize,
    /// Whether the rule is met.
    met: bool,
    /// Voters whose proof of execution is enough.
    votes: usize,
}

impl<'a> Bench<'a> {
    fn new(claims: &'a Claims, view: &'a View<'a>) -> Self {
        let members = view.members();
        let stand = |(_, member): (_, &Member)| if member.expired { Stand::Out } else { Stand::Silent };
        let mut stands: Vec<_> = members.iter().map(stand).collect();
        let same = claims.seats == members.seats;
        for (n, ballot) in claims.ballots.iter().enumerate() {
            let seat =
                if same { Some(ballot.seat) } else { members.seats.find(claims.seats.name(ballot.seat)) };
            let Some(seat) = seat.filter(|seat| stands[*seat] == Stand::Silent) else { continue };
            // What this machine says, it need not prove to itself.
            let proven = match (view.witness(), ballot.witness) {
                (_, WitnessState::Wrong) => false,
                (WitnessRule::Any, _) | (_, WitnessState::Verified) => true,
                (WitnessRule::Present, WitnessState::Unchecked)
                | (WitnessRule::Present | WitnessRule::Known, WitnessState::Known) => true,
                (WitnessRule::Present, WitnessState::Absent)
                | (WitnessRule::Known, WitnessState::Absent | WitnessState::Unchecked)
                | (WitnessRule::Verified, _) => seat == members.own(),
            };
            stands[seat] = Stand::For { side: ballot.side, ballot: n, proven };
        }
        Self { claims, view, stands }
    }

    /// The sides that somebody takes: first those for which the rule is met, then those with more
    /// votes, and of equal ones the lesser outputs.
    fn sides(&self) -> Vec<Backing> {
        let mut votes: Vec<Option<usize>> = vec![None; self.claims.sides.len()];
        for stand in &self.stands {
            if let Stand::For { side, proven, .. } = *stand {
                *votes[side].get_or_insert(0) += usize::from(proven);
            }
        }
        let taken =
            votes.into_iter().enumerate().filter_map(|(side, votes)| votes.map(|votes| (side, votes)));
        let backing = |(side, votes)| {
            let met = self.view.rule().met(self.view.members(), &|voter| self.agrees(voter, side));
            Backing { side, met, votes }
        };
        let mut sides: Vec<_> = taken.map(backing).collect();
        sides.sort_by_key(|backing| std::cmp::Reverse((backing.met, backing.votes)));
        sides
    }

    fn outcome(&self, sides: &[Backing]) -> Outcome {
        let winners = sides.iter().filter(|backing| backing.met).count();
        match (winners, sides.first()) {
            (1, Some(first)) if sides.len() == 1 || self.view.dissent() != Dissent::Hold => {
                Outcome::Accepted { outputs: self.claims.sides[first.side].clone() }
            }
            (1.., _) => Outcome::Disputed,
            (0, _) if !self.named_has_voted() => Outcome::Untrusted,
            (0, _)
                if sides.len() > 1 && !sides.iter().any(|backing| self.could_be_accepted(backing.side)) =>
            {
                Outcome::Disputed
            }
            (0, _) => Outcome::Pending,
        }
    }

    fn agrees(&self, voter: &Voter, with: usize) -> Option<Agreement<'a>> {
        match self.stands[voter.seat()] {
            Stand::For { side, ballot, proven: true } if side == with => {
                Some(Agreement::On(&self.claims.claim(ballot).platform))
            }
            Stand::For { .. } | Stand::Silent | Stand::Out => None,
        }
    }

    /// Whether one of several sides would be accepted if everybody agreed who has no vote.
    fn could_be_accepted(&self, side: usize) -> bool {
        let silent = |voter: &Voter| {
            self.stands[voter.seat()] == Stand::Silent && !self.claims.mute.contains_key(voter.name())
        };
        let met = || {
            self.view.rule().met(self.view.members(), &|voter| {
                self.agrees(voter, side).or(silent(voter).then_some(Agreement::Anywhere))
            })
        };
        self.view.dissent() != Dissent::Hold && met()
    }

    fn named_has_voted(&self) -> bool {
        self.view.rule().leaves().any(|voter| matches!(self.stands[voter.seat()], Stand::For { .. }))
    }

    /// The sides, for people.
    fn show(&self, sides: &[Backing]) -> Vec<Side> {
        let mut votes: Vec<Vec<Vote>> = vec![Vec::new(); self.claims.sides.len()];
        for ((name, _), stand) in self.view.members().iter().zip(&self.stands) {
            if let Stand::For { side, ballot, proven } = *stand {
                let claim = self.claims.claim(ballot);
                votes[side].push(Vote {
                    voter: name.clone(),
                    platform: claim.platform.clone(),
                    witness: claim.witness,
                    counts: proven,
                    key: claim.key,
                    seq: claim.seq,
                });
            }
        }
        let show = |backing: &Backing| Side {
            outputs: self.claims.sides[backing.side].clone(),
            met: backing.met,
            votes: std::mem::take(&mut votes[backing.side]),
        };
        sides.iter().map(show).collect()
    }

    /// How a rule stands with a side. Rules are not nested deep (`policy.rs` sees to it).
    fn node(&self, rule: &Rule, side: Option<usize>) -> Node {
        let agrees = |voter: &Voter| side.and_then(|side| self.agrees(voter, side));
        let (met, is) = match rule {
            Rule::Voter(voter) => {
                let says = self.says(voter, side);
                (says == Says::Agrees, Kind::Voter { says })
            }
            Rule::AtLeast(rule) => {
                let tally = rule.tally(self.view.members(), &agrees);
                let met = rule.reached(&tally);
                let of = rule.of().iter().map(|rule| self.node(rule, side)).collect();
                let distinct = tally.distinct.into_iter().collect();
                (met, Kind::AtLeast { have: tally.have, need: rule.need(), distinct, of })
            }
        };
        Node { rule: rule.to_string(), met, is }
    }

    fn says(&self, voter: &Voter, with: Option<usize>) -> Says {
        match self.stands[voter.seat()] {
            Stand::For { side, .. } if Some(side) != with => Says::Differs,
            Stand::For { proven: true, .. } => Says::Agrees,
            Stand::For { proven: false, .. } => Says::Unproven,
            Stand::Silent | Stand::Out => {
                let mute = self.claims.mute.get(voter.name());
                mute.map_or(Says::Nothing, |mute| Says::Mute(mute.clone()))
            }
        }
    }
}

/// Who has no vote and can have one, in the parts of a rule that are not met.
fn collect_missing<'r>(rule: &'r Rule, node: &Node, missing: &mut BTreeSet<&'r Name>) {
    match (rule, &node.is) {
        _ if node.met => {}
        (Rule::Voter(voter), Kind::Voter { says: Says::Nothing }) => drop(missing.insert(voter.name())),
        (Rule::Voter(_), _) => {}
        (Rule::AtLeast(rule), Kind::AtLeast { of, .. }) => {
            for (rule, node) in rule.of().iter().zip(of) {
                collect_missing(rule, node, missing);
            }
        }
        (Rule::AtLeast(_), Kind::Voter { .. }) => {}
    }
}

impl Verdict {
    /// The outputs, if they are accepted.
    pub fn accepted(&self) -> Option<&Outputs> {
        match &self.outcome {
            Outcome::Accepted { outputs } => Some(outputs),
            Outcome::Pending | Outcome::Disputed | Outcome::Untrusted => None,
        }
    }

    /// Who names other outputs than those that are accepted, or than the first side if none are.
    pub fn dissenters(&self) -> impl Iterator<Item = &Vote> {
        self.reasoning.sides.iter().skip(1).flat_map(|side| &side.votes)
    }
}

impl fmt::Display for Verdict {
    /// One line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Reasoning { sides, missing, rule, .. } = &self.reasoning;
        let voters = |side: &Side| list(side.votes.iter().map(|vote| &vote.voter));
        match &self.outcome {
            Outcome::Accepted { .. } => {
                let first = sides.first().map(voters).unwrap_or_default();
                let verb =
                    if sides.first().is_some_and(|side| side.votes.len() > 1) { "agree" } else { "says so" };
                write!(f, "accepted: {first} {verb} ({})", rule.rule)?;
            }
            Outcome::Pending => {
                write!(f, "pending: {}", rule.rule)?;
                if let Kind::AtLeast { have, need, .. } = &rule.is
                    && have < need
                {
                    write!(f, ", have {have}")?;
                }
            }
            Outcome::Disputed => {
                f.write_str("disputed: ")?;
                for (n, side) in sides.iter().enumerate() {
                    let separator = if n == 0 { "" } else { " against " };
                    write!(f, "{separator}{}", voters(side))?;
                }
            }
            Outcome::Untrusted => write!(f, "untrusted: nobody whom the rule names has voted")?,
        }
        if self.accepted().is_some() && sides.len() > 1 {
            let word = if self.reasoning.alarm { "ALARM, " } else { "" };
            let dissenters: Vec<_> = self.dissenters().map(|vote| &vote.voter).collect();
            write!(f, "; {word}{} got something else", list(dissenters))?;
        }
        if !missing.is_empty() {
            write!(f, "; no vote yet from {}", list(missing))?;
        }
        Ok(())
    }
}
