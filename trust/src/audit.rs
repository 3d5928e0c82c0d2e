//! Disagreements (SPEC §21): what is said of one action that cannot all be true, and of whom it is
//! known that he cannot have executed it.
//!
//! ```text
//! statements about an action, own execution ── examine ──▶ Dispute: sides, who is on which, how grave
//! ```
//!
//! Nothing is decided here: who disagrees is shown, strangers too, and what no longer counts with the
//! reason. Whether something is accepted all the same is [`crate::verdict`]'s to say.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{
    key::AttesterKey,
    name::Name,
    output::Outputs,
    statement::{Ending, Platform, Signed},
};
use serde::Serialize;

use crate::{
    agreement::{self, sides},
    ledger::{Execution, Record, Said, Voters, WitnessState},
    roster::{self, SELF},
    standing::{Against, Standings},
};

/// How grave a disagreement is, the gravest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Severity {
    /// Those whom the roster names, this machine among them, got different outputs.
    Dissent,
    /// One of them says two different things, and withdrew neither.
    Contradiction,
    /// The witness of one of them is wrong: he did not execute what he attests.
    Witness,
    /// One of them says that it fails, and another one what it gave.
    Failure,
    /// Strangers say something else, or have not executed what they attest.
    Strangers,
}

/// An action about which people disagree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Dispute {
    /// All that is wrong, the gravest first.
    pub severities: BTreeSet<Severity>,
    /// The sides, the one with the most on it first.
    pub sides: Vec<Side>,
    /// When the last of it was said, in seconds since 1970, by the clock of whoever said it.
    pub last: u64,
}

/// Those who say the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Side {
    /// What they say.
    pub found: Found,
    /// Who, and when.
    pub says: Vec<Saying>,
}

/// What an execution is said to have come to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Found {
    /// Outputs.
    Built(Outputs),
    /// A failure.
    Failed {
        /// The step, from 1; 0 if none is to blame.
        step: u32,
        /// How.
        ending: Ending,
    },
}

/// That somebody says it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Saying {
    /// The roster's name for whoever says it; `None` for a stranger.
    pub who: Option<Name>,
    /// The key that signed it; `None` if it is what this machine did.
    pub key: Option<AttesterKey>,
    /// Its place in that key's feed.
    pub seq: Option<u64>,
    /// When, in seconds since 1970, by the clock of whoever says it.
    pub time: Option<u64>,
    /// Where it was executed, in the words of whoever says it.
    pub platform: Option<Platform>,
    /// What is known of the proof of execution.
    pub witness: WitnessState,
    /// Why it does not count, if it does not.
    pub against: Option<Against>,
}

impl Dispute {
    /// The gravest of what is wrong.
    pub fn severity(&self) -> Severity {
        *self.severities.first().expect("there is no dispute about nothing")
    }

    /// Everybody who says something, with what.
    pub fn sayings(&self) -> impl Iterator<Item = (&Saying, &Found)> {
        self.sides.iter().flat_map(|side| side.says.iter().map(move |saying| (saying, &side.found)))
    }

    /// The first output in which two sides differ.
    pub fn output(&self, one: &Found, other: &Found) -> Option<Name> {
        let nars = |found: &Found| -> Option<agreement::Result> {
            let Found::Built(outputs) = found else { return None };
            Some(outputs.iter().map(|(name, output)| (name.clone(), output.nar)).collect())
        };
        agreement::compare(&nars(one)?, &nars(other)?).map(|difference| difference.output)
    }
}

/// What an execution here says of somebody who spoke about the action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Support {
    /// It came to the same, and there is proof that he executed it.
    Proven,
    /// It came to the same.
    Supported,
    /// It came to the same, and he did not execute it.
    Copied,
    /// It came to something else.
    Refuted,
    /// It comes to something else each time, so nobody can be right or wrong.
    Undecided,
}

impl Support {
    /// Whether he is proven wrong: in what it came to, or in having executed it.
    pub fn is_against(self) -> bool {
        matches!(self, Self::Copied | Self::Refuted)
    }
}

impl Dispute {
    /// What an execution here that came to `found`, `None` if to something else each time, says of
    /// everybody else in the roster who has spoken and whose word still stands. Who says several
    /// things is judged by the worst of them.
    pub fn settled(&self, found: Option<&Found>) -> BTreeMap<Name, Support> {
        let mut settled = BTreeMap::new();
        for (saying, said) in self.sayings().filter(|(saying, _)| saying.against.is_none()) {
            let Some(who) = saying.who.as_ref().filter(|who| who.as_str() != SELF) else { continue };
            let support = match (found, saying.witness) {
                (None, _) => Support::Undecided,
                (Some(found), _) if found != said => Support::Refuted,
                (Some(_), WitnessState::Wrong) => Support::Copied,
                (Some(_), WitnessState::Verified) => Support::Proven,
                (Some(_), WitnessState::Absent | WitnessState::Unchecked | WitnessState::Known) => {
                    Support::Supported
                }
            };
            let worst = settled.entry(who.clone()).or_insert(support);
            *worst = support.max(*worst);
        }
        settled
    }
}

/// How what somebody said stands beside what others say and what was executed here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Stand {
    /// An execution here, or somebody else of the roster, says the same, and nobody otherwise.
    Agreed,
    /// Nobody else of the roster has spoken, and it was not executed here.
    Alone,
    /// Somebody else of the roster says something else, and it was not executed here.
    Disputed,
    /// An execution here came to the same, and proves that he did not execute it.
    Copied,
    /// An execution here came to something else.
    Refuted,
    /// It counts no more.
    Void,
}

impl Stand {
    /// All of them, the best first.
    pub const ALL: [Self; 6] =
        [Self::Agreed, Self::Alone, Self::Disputed, Self::Copied, Self::Refuted, Self::Void];
}

impl Dispute {
    /// How everything stands that others in the roster said.
    pub fn stands(&self) -> impl Iterator<Item = (&Name, &Saying, Stand)> {
        let standing = || self.sayings().filter(|(saying, _)| saying.against.is_none());
        let is_own = |saying: &Saying| saying.who.as_ref().is_some_and(|who| who.as_str() == SELF);
        let own = standing().find(|(saying, _)| is_own(saying)).map(|(_, found)| found);
        self.sayings().filter(move |(saying, _)| !is_own(saying)).filter_map(move |(saying, said)| {
            let who = saying.who.as_ref()?;
            let others =
                || standing().filter(|(other, _)| other.who.as_ref().is_some_and(|name| name != who));
            let stand = match own {
                _ if saying.against.is_some() => Stand::Void,
                Some(own) if own != said => Stand::Refuted,
                Some(_) if saying.witness == WitnessState::Wrong => Stand::Copied,
                Some(_) => Stand::Agreed,
                None if others().any(|(_, found)| found != said) => Stand::Disputed,
                None if others().next().is_none() => Stand::Alone,
                None => Stand::Agreed,
            };
            Some((who, saying, stand))
        })
    }
}

/// All that is said of one action, and what this machine found, by sides; and how grave it is if that
/// cannot all be true. `statements` are all about that action.
///
/// What does not count any more is there to be seen, and makes no dispute.
pub fn examine<'s>(
    statements: impl IntoIterator<Item = &'s Signed>,
    voters: &Voters,
    standings: &Standings,
    own: Option<&Execution>,
) -> Dispute {
    let mut said = Vec::new();
    for signed in statements {
        let statement = signed.statement();
        let Some(record) = Record::of(signed) else { continue };
        let against = standings.of(&record.attester).and_then(|standing| standing.against(record.seq));
        let (found, platform) = match &record.said {
            Said::Built { outputs, platform, .. } => (Found::Built(outputs.clone()), Some(platform.clone())),
            Said::Failed { step, ending } => (Found::Failed { step: *step, ending: *ending }, None),
        };
        let saying = Saying {
            who: voters.name_of(&record.attester).cloned(),
            key: Some(record.attester),
            seq: Some(record.seq),
            time: Some(statement.time),
            platform,
            witness: WitnessState::of(&record, own),
            against,
        };
        said.push((saying, found));
    }
    if let Some(own) = own {
        let saying = Saying {
            who: Some(roster::own()),
            key: None,
            seq: None,
            time: None,
            platform: Some(own.platform.clone()),
            witness: if own.transcript.is_some() { WitnessState::Verified } else { WitnessState::Absent },
            against: None,
        };
        said.push((saying, Found::Built(own.outputs.clone())));
    }
    let severities = severities(&said);
    let last = said.iter().filter_map(|(saying, _)| saying.time).max().unwrap_or_default();
    let side = |(found, says)| Side { found, says };
    Dispute { severities, sides: sides(said).into_iter().map(side).collect(), last }
}

fn severities(said: &[(Saying, Found)]) -> BTreeSet<Severity> {
    let counts = |(saying, _): &&(Saying, Found)| saying.against.is_none();
    let (known, strangers): (Vec<_>, Vec<_>) =
        said.iter().filter(counts).partition(|(saying, _)| saying.who.is_some());
    let built = |said: &[&(Saying, Found)]| -> BTreeSet<Found> {
        said.iter().map(|(_, found)| found.clone()).filter(|found| matches!(found, Found::Built(_))).collect()
    };
    let wrong = |said: &[&(Saying, Found)]| said.iter().any(|(s, _)| s.witness == WitnessState::Wrong);
    let mut by_name: BTreeMap<_, Vec<&(Saying, Found)>> = BTreeMap::new();
    for one in &known {
        by_name.entry(&one.0.who).or_default().push(one);
    }
    let outputs = built(&known);
    let contradiction = by_name.values().any(|said| built(said).len() > 1);
    // Who contradicts himself dissents from nobody by that alone.
    let sides: BTreeSet<_> =
        by_name.values().map(|said| built(said)).filter(|said| said.len() == 1).collect();
    let fails = known.iter().any(|(_, found)| matches!(found, Found::Failed { .. }));
    let others = built(&strangers);
    let strangers_differ = others.len() > 1 || !outputs.is_empty() && !others.is_subset(&outputs);
    let severities = [
        (Severity::Dissent, sides.len() > 1),
        (Severity::Contradiction, contradiction),
        (Severity::Witness, wrong(&known)),
        (Severity::Failure, fails && !outputs.is_empty()),
        (Severity::Strangers, strangers_differ || wrong(&strangers)),
    ];
    severities.into_iter().filter(|(_, is)| *is).map(|(severity, _)| severity).collect()
}
