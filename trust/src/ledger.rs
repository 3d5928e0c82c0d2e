//! The ledger (SPEC §15.2): from what is known of an action to at most one claim of each voter.
//!
//! ```text
//! roster, standings, now ──▶ Voters ── claims(records, own execution) ──▶ Claims ──▶ verdict.rs
//! ```
//!
//! Signatures were checked before ([`protocol::statement::Signed`]); here it is decided whose vote
//! a statement is and whether it is one. What does not count stays visible, with the reason.
//!
//! A voter is a person, not a key: a key and its successors are one voter, and names whose keys go
//! on under one key are one voter, too.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use protocol::{
    id::ActionId,
    key::AttesterKey,
    name::Name,
    output::Outputs,
    statement::{Body, Ending, Platform, Signed},
    witness::{TranscriptHash, Witness},
};
use serde::Serialize;

use crate::{
    limits,
    roster::{self, Roster},
    seats::Seats,
    standing::{Against, Standing, Standings},
};

/// What a verified statement says of an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Of which action.
    pub action: ActionId,
    /// Who says it.
    pub attester: AttesterKey,
    /// At which place of its feed.
    pub seq: u64,
    /// What.
    pub said: Said,
}

/// What an attester says of an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// It executed it and got outputs.
    Built {
        /// All outputs.
        outputs: Outputs,
        /// Proof of execution, if there is one.
        witness: Option<Witness>,
        /// Where.
        platform: Platform,
    },
    /// It executed it and it failed.
    Failed {
        /// The step that failed, counted from 1; 0 if it is not the fault of one.
        step: u32,
        /// How.
        ending: Ending,
    },
}

impl Record {
    /// What a statement says of an action; `None` if it speaks of none.
    pub fn of(signed: &Signed) -> Option<Self> {
        let statement = signed.statement();
        let (action, said) = match &statement.body {
            Body::Built(built) => {
                let (outputs, platform) = (built.outputs.clone(), built.platform.clone());
                (built.action, Said::Built { outputs, witness: built.witness, platform })
            }
            Body::Failed(failed) => {
                (failed.action, Said::Failed { step: failed.step, ending: failed.ending })
            }
            Body::Retract { .. } | Body::Succeed { .. } => return None,
        };
        Some(Self { action, attester: statement.attester, seq: statement.seq, said })
    }
}

/// That this machine executed an action itself. What it has from others is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Execution {
    /// What it gave.
    pub outputs: Outputs,
    /// Where.
    pub platform: Platform,
    /// What the guest did, by which the witnesses of others can be checked; `None` if not kept.
    pub transcript: Option<TranscriptHash>,
}

/// What is known of an attestation's proof of execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum WitnessState {
    /// There is none.
    Absent,
    /// There is one, and nothing here to check it by.
    Unchecked,
    /// Likewise, but its voter is [known](Checked): others of its witnesses were checked here.
    Known,
    /// It is what this machine's own execution says it must be.
    Verified,
    /// It is not, although the outputs are the same: they were copied.
    Wrong,
}

impl WitnessState {
    /// Checks the witness of an attestation by an execution of the action on this machine. Of its
    /// attester nothing is asked here, so the answer is never [`WitnessState::Known`].
    ///
    /// Only one with the same outputs can tell: another execution has another transcript.
    pub fn of(record: &Record, own: Option<&Execution>) -> Self {
        let Said::Built { outputs, witness: Some(witness), .. } = &record.said else {
            return Self::Absent;
        };
        let own = own.filter(|own| own.outputs == *outputs).and_then(|own| own.transcript);
        match own.map(|transcript| transcript.witness(&record.attester, &record.action)) {
            None => Self::Unchecked,
            Some(expected) if expected == *witness => Self::Verified,
            Some(_) => Self::Wrong,
        }
    }
}

/// A vote: what one voter says that an action gives.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Claim {
    /// All outputs.
    pub outputs: Outputs,
    /// Whether its execution is proven.
    pub witness: WitnessState,
    /// Where it was executed, in the voter's words.
    pub platform: Platform,
    /// The key that signed it; `None` if it is what this machine did and not a statement.
    pub key: Option<AttesterKey>,
    /// Its place in that key's feed, likewise.
    pub seq: Option<u64>,
}

/// Something that was said and is no vote.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Uncounted {
    /// Who said it.
    pub voter: Name,
    /// Why it does not count.
    pub why: Why,
    /// The key that signed it; `None` if it is what this machine did and not a statement.
    pub key: Option<AttesterKey>,
    /// Its place in that key's feed, likewise.
    pub seq: Option<u64>,
    /// What it says that the action gives; `None` if that it failed.
    pub outputs: Option<Outputs>,
}

/// Why something that was said is no vote.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Why {
    /// Whoever said it cannot vote.
    Mute(Mute),
    /// Something is known against the key.
    Against(Against),
    /// The voter says two different things and withdrew neither.
    Contradiction,
    /// The proof of execution is wrong: the outputs were copied.
    WrongWitness,
    /// It names other outputs than the action has.
    OtherOutputs,
    /// A failure, which accepts nothing.
    Failed {
        /// The step that failed, counted from 1; 0 if it is not the fault of one.
        step: u32,
        /// How.
        ending: Ending,
    },
}

/// Why somebody in the roster cannot vote.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Mute {
    /// The owner trusted it until then, in seconds since 1970.
    Expired {
        /// The first second at which it does not vote.
        until: u64,
    },
    /// It goes on under one key with somebody else: they are one voter, by the other's name.
    SameAs {
        /// The other's name.
        other: Name,
    },
    /// Its keys were followed [`limits::SUCCESSIONS`] times, and go on.
    TooManySuccessors,
    /// Nothing counts that its last key says.
    Against(Against),
}

/// All that is known of an action, by voter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    pub(crate) seats: Seats,
    /// One for each vote, in the order of seats.
    pub(crate) ballots: Vec<Ballot>,
    /// What the ballots are short for.
    votes: Vec<Claim>,
    /// The outputs for which there are votes, in order.
    pub(crate) sides: Vec<Outputs>,
    /// What does not count, in order; at most two of each voter for each reason, the latest.
    pub uncounted: Vec<Uncounted>,
    /// Who cannot vote at all.
    pub mute: BTreeMap<Name, Mute>,
    /// How many keys spoke that nobody here knows. For show: they weigh nothing.
    pub strangers: usize,
}

/// A vote, as short as it can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ballot {
    /// Whose.
    pub(crate) seat: usize,
    /// For which of [`Claims::sides`].
    pub(crate) side: usize,
    /// Whether its execution is proven.
    pub(crate) witness: WitnessState,
}

/// Whose witnesses this machine has checked, by what it executed itself (SPEC §15.2).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checked {
    /// Of whom at least one was right, or wrong.
    right: BTreeSet<Name>,
    wrong: BTreeSet<Name>,
}

impl Checked {
    /// Takes note of what the claims about an action show.
    pub fn note(&mut self, claims: &Claims) {
        for (ballot, claim) in claims.ballots.iter().zip(&claims.votes) {
            if claim.witness == WitnessState::Verified {
                self.right.insert(claims.seats.name(ballot.seat).clone());
            }
        }
        let wrong = claims.uncounted.iter().filter(|said| said.why == Why::WrongWitness);
        self.wrong.extend(wrong.map(|said| said.voter.clone()));
    }

    /// Whether a voter is known to execute: a witness of it was right, and none that stands is wrong.
    pub fn knows(&self, voter: &Name) -> bool {
        self.right.contains(voter) && !self.wrong.contains(voter)
    }
}

/// Whose votes are counted: the roster and `self`, with the keys that they speak by.
#[derive(Debug, Clone)]
pub struct Voters {
    seats: Seats,
    keys: BTreeMap<AttesterKey, Owner>,
    mute: BTreeMap<Name, Mute>,
    checked: Checked,
}

/// Whose a key is.
#[derive(Debug, Clone)]
struct Owner {
    name: Name,
    seat: usize,
    standing: Standing,
    /// How many keys of the voter were before it.
    nth: usize,
    /// Whether the voter votes by another name.
    elsewhere: Option<Mute>,
}

/// The keys of one name, each the successor of the one before.
struct Chain {
    keys: Vec<AttesterKey>,
    end: End,
}

/// How a chain of keys ends.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum End {
    /// At a key without a successor, or, when they follow each other in a circle, in that circle,
    /// which its least key stands for.
    At(AttesterKey),
    /// Beyond the limit.
    Beyond,
}

impl Voters {
    /// Finds out who speaks with which keys at `now`, in seconds since 1970.
    ///
    /// `own` is this node's key; `None` if it has none.
    pub fn new(roster: &Roster, own: Option<AttesterKey>, standings: &Standings, now: u64) -> Self {
        let seats = Seats::of(roster);
        let mut mute = BTreeMap::new();
        let mut chains: BTreeMap<Name, Chain> = BTreeMap::new();
        let own = own.map(|key| (roster::own(), key));
        for (name, key) in own.into_iter().chain(roster.iter().map(|(n, a)| (n.clone(), a.key))) {
            let chain = Chain::follow(key, standings);
            if chain.end == End::Beyond {
                mute.insert(name.clone(), Mute::TooManySuccessors);
            }
            chains.insert(name, chain);
        }
        for (name, other) in same(&chains) {
            mute.insert(name, Mute::SameAs { other });
        }
        let mut keys = BTreeMap::new();
        // Those who vote take their keys first; what is left was only of those who do not.
        let elsewhere = |name: &Name| mute.get(name).cloned();
        let (voting, others): (Vec<_>, Vec<_>) =
            chains.iter().partition(|(name, _)| elsewhere(name).is_none());
        for (name, chain) in voting.into_iter().chain(others) {
            for (nth, key) in chain.keys.iter().enumerate() {
                let standing = standings.of(key).cloned().unwrap_or_default();
                let seat = seats.find(name).expect("everybody has one");
                let owner = Owner { name: name.clone(), seat, standing, nth, elsewhere: elsewhere(name) };
                keys.entry(*key).or_insert(owner);
            }
        }
        for (name, chain) in &chains {
            let last = chain.keys.last().and_then(|key| standings.of(key));
            if let Some(against) = last.and_then(Standing::against_all) {
                mute.entry(name.clone()).or_insert(Mute::Against(against));
            }
        }
        for (name, attester) in roster.iter() {
            if let Some(until) = attester.until.filter(|_| attester.expired(now)) {
                mute.insert(name.clone(), Mute::Expired { until });
            }
        }
        Self { seats, keys, mute, checked: Checked::default() }
    }

    /// The same, of whom witnesses were checked: an unchecked one of somebody who is known is
    /// [`WitnessState::Known`] in claims from now on.
    #[must_use]
    pub fn knowing(self, checked: Checked) -> Self {
        Self { checked, ..self }
    }

    /// Whose a key is; `None` if a stranger's.
    pub fn name_of(&self, key: &AttesterKey) -> Option<&Name> {
        self.keys.get(key).map(|owner| &owner.name)
    }

    /// Keys by which somebody in the roster, or this node, speaks: whose feeds to follow.
    pub fn keys(&self) -> impl Iterator<Item = (&AttesterKey, &Name)> {
        self.keys.iter().map(|(key, owner)| (key, &owner.name))
    }

    /// Who cannot vote, and why.
    pub fn mute(&self) -> &BTreeMap<Name, Mute> {
        &self.mute
    }

    /// The claims about an action.
    ///
    /// `outputs` are the names of its outputs, if they are known; `records` is what is known of it,
    /// in any order, as often as you like, and records of other actions are passed over; `own` is
    /// what this machine got when it executed it.
    pub fn claims<'r>(
        &self,
        action: &ActionId,
        outputs: Option<&BTreeSet<Name>>,
        records: impl IntoIterator<Item = &'r Record>,
        own: Option<&'r Execution>,
    ) -> Claims {
        let mut strangers = BTreeSet::new();
        let mut heard: BTreeMap<usize, Heard<'_>> = BTreeMap::new();
        for record in records.into_iter().filter(|record| record.action == *action) {
            let Some(owner) = self.keys.get(&record.attester) else {
                strangers.insert(record.attester);
                continue;
            };
            let voter = heard.entry(owner.seat).or_default();
            let place = (owner.nth, record.seq);
            match self.claim(owner, record, outputs, own) {
                Ok((outputs, vote)) => voter.vote(outputs, place, vote),
                Err(why) => voter.uncounted.push((place, Uncounted::of(owner, record, why))),
            }
        }
        if let Some(own) = own {
            // Behind every place of every feed: it is what this machine found last.
            let own_seat = self.seats.find(&roster::own()).expect("everybody has one");
            let voter = heard.entry(own_seat).or_default();
            let vote =
                Vote { witness: WitnessState::Verified, platform: &own.platform, key: None, seq: None };
            voter.vote(&own.outputs, (usize::MAX, u64::MAX), vote);
        }
        let (mut votes, mut uncounted) = (Vec::new(), Vec::new());
        for (seat, voter) in heard {
            votes.extend(voter.conclude(self.seats.name(seat), &mut uncounted).map(|claim| (seat, claim)));
        }
        uncounted.sort();
        Claims::new(self.seats.clone(), votes, uncounted, self.mute.clone(), strangers.len())
    }

    /// What a record claims, or why it is no claim.
    fn claim<'r>(
        &self,
        owner: &Owner,
        record: &'r Record,
        names: Option<&BTreeSet<Name>>,
        own: Option<&Execution>,
    ) -> Result<(&'r Outputs, Vote<'r>), Why> {
        if let Some(mute) = &owner.elsewhere {
            return Err(Why::Mute(mute.clone()));
        }
        if let Some(expired @ Mute::Expired { .. }) = self.mute.get(&owner.name) {
            return Err(Why::Mute(expired.clone()));
        }
        if let Some(against) = owner.standing.against(record.seq) {
            return Err(Why::Against(against));
        }
        match &record.said {
            Said::Failed { step, ending } => Err(Why::Failed { step: *step, ending: *ending }),
            Said::Built { outputs, .. } if names.is_some_and(|names| !names.iter().eq(outputs.keys())) => {
                Err(Why::OtherOutputs)
            }
            Said::Built { outputs, platform, .. } => {
                let (key, seq) = (Some(record.attester), Some(record.seq));
                let witness = match WitnessState::of(record, own) {
                    WitnessState::Unchecked if self.checked.knows(&owner.name) => WitnessState::Known,
                    state => state,
                };
                Ok((outputs, Vote { witness, platform, key, seq }))
            }
        }
    }
}

impl Claims {
    /// `votes` are in the order of seats, one of each.
    fn new(
        seats: Seats,
        votes: Vec<(usize, Claim)>,
        uncounted: Vec<Uncounted>,
        mute: BTreeMap<Name, Mute>,
        strangers: usize,
    ) -> Self {
        let sides: BTreeSet<&Outputs> = votes.iter().map(|(_, claim)| &claim.outputs).collect();
        let sides: Vec<Outputs> = sides.into_iter().cloned().collect();
        let ballot = |(seat, claim): &(usize, Claim)| {
            let side = sides.binary_search(&claim.outputs).expect("it is one of them");
            Ballot { seat: *seat, side, witness: claim.witness }
        };
        let ballots = votes.iter().map(ballot).collect();
        let votes = votes.into_iter().map(|(_, claim)| claim).collect();
        Self { seats, ballots, votes, sides, uncounted, mute, strangers }
    }

    /// The votes: at most one of each, in the order of names.
    pub fn votes(&self) -> impl ExactSizeIterator<Item = (&Name, &Claim)> {
        self.ballots.iter().zip(&self.votes).map(|(ballot, claim)| (self.seats.name(ballot.seat), claim))
    }

    /// The vote of somebody.
    pub fn vote(&self, voter: &Name) -> Option<&Claim> {
        let seat = self.seats.find(voter)?;
        self.ballots.binary_search_by_key(&seat, |ballot| ballot.seat).ok().map(|n| &self.votes[n])
    }

    /// The same, but with another vote of one voter, or with none. A voter who is not of the roster
    /// has none.
    pub fn with(&self, voter: &Name, vote: Option<Claim>) -> Self {
        let seat = self.seats.find(voter);
        let mut votes: BTreeMap<usize, Claim> =
            self.ballots.iter().map(|ballot| ballot.seat).zip(self.votes.iter().cloned()).collect();
        match (seat, vote) {
            (Some(seat), Some(vote)) => drop(votes.insert(seat, vote)),
            (Some(seat), None) => drop(votes.remove(&seat)),
            (None, _) => {}
        }
        let (seats, votes) = (self.seats.clone(), votes.into_iter().collect());
        Self::new(seats, votes, self.uncounted.clone(), self.mute.clone(), self.strangers)
    }

    /// The vote behind a ballot, by its place.
    pub(crate) fn claim(&self, n: usize) -> &Claim {
        &self.votes[n]
    }
}

impl Chain {
    fn follow(first: AttesterKey, standings: &Standings) -> Self {
        let mut keys = vec![first];
        let mut last = first;
        while let Some(next) = standings.of(&last).and_then(Standing::successor) {
            if let Some(at) = keys.iter().position(|key| *key == next) {
                let least = *keys[at..].iter().min().expect("it has at least `next`");
                return Self { keys, end: End::At(least) };
            }
            if keys.len() > limits::SUCCESSIONS {
                return Self { keys, end: End::Beyond };
            }
            keys.push(next);
            last = next;
        }
        Self { keys, end: End::At(last) }
    }
}

/// Names that vote by another name: of those whose chains end at one key, all but `self`; or
/// without that, all but the one that begins nearest to the end, or the least of equally near ones.
fn same(chains: &BTreeMap<Name, Chain>) -> Vec<(Name, Name)> {
    let mut ends: BTreeMap<&End, Vec<(bool, usize, &Name)>> = BTreeMap::new();
    for (name, chain) in chains.iter().filter(|(_, chain)| chain.end != End::Beyond) {
        let rank = (name.as_str() != roster::SELF, chain.keys.len(), name);
        ends.entry(&chain.end).or_default().push(rank);
    }
    let mut same = Vec::new();
    for mut names in ends.into_values() {
        names.sort();
        let (_, _, voting) = names[0];
        same.extend(names[1..].iter().map(|(_, _, name)| ((*name).clone(), voting.clone())));
    }
    same
}

/// A place in what a voter said: which of its keys, and where in that key's feed.
type Place = (usize, u64);

/// A [`Claim`] to outputs, as it was said.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Vote<'r> {
    witness: WitnessState,
    platform: &'r Platform,
    key: Option<AttesterKey>,
    seq: Option<u64>,
}

/// What one voter said of one action.
#[derive(Default)]
struct Heard<'r> {
    /// The latest claim to each outputs.
    votes: BTreeMap<&'r Outputs, (Place, Vote<'r>)>,
    uncounted: Vec<(Place, Uncounted)>,
}

impl<'r> Heard<'r> {
    fn vote(&mut self, outputs: &'r Outputs, place: Place, vote: Vote<'r>) {
        let known = self.votes.entry(outputs).or_insert((place, vote));
        *known = (*known).max((place, vote));
    }

    /// The vote of the voter of that name, if it has one; what is none goes to `uncounted`.
    fn conclude(mut self, name: &Name, uncounted: &mut Vec<Uncounted>) -> Option<Claim> {
        let mut vote = None;
        let contradiction = self.votes.len() > 1;
        for (outputs, (place, Vote { witness, platform, key, seq })) in self.votes {
            let outputs = outputs.clone();
            let why = if contradiction {
                Why::Contradiction
            } else if witness == WitnessState::Wrong {
                Why::WrongWitness
            } else {
                vote = Some(Claim { outputs, witness, platform: platform.clone(), key, seq });
                continue;
            };
            let uncounted = Uncounted { voter: name.clone(), why, key, seq, outputs: Some(outputs) };
            self.uncounted.push((place, uncounted));
        }
        // Of what may have been said a million times, the latest two for each reason are kept.
        self.uncounted.sort_by(|a, b| (a.1.why.kind(), Reverse(a)).cmp(&(b.1.why.kind(), Reverse(b))));
        self.uncounted.dedup();
        let mut kept: BTreeMap<u8, usize> = BTreeMap::new();
        for (_, said) in self.uncounted {
            let kept = kept.entry(said.why.kind()).or_default();
            if *kept < 2 {
                *kept += 1;
                uncounted.push(said);
            }
        }
        vote
    }
}

impl Why {
    /// What is kept apart when there is too much.
    fn kind(&self) -> u8 {
        match self {
            Self::Mute(_) => 0,
            Self::Against(_) => 1,
            Self::Contradiction => 2,
            Self::WrongWitness => 3,
            Self::OtherOutputs => 4,
            Self::Failed { .. } => 5,
        }
    }
}

impl Uncounted {
    fn of(owner: &Owner, record: &Record, why: Why) -> Self {
        let outputs = match &record.said {
            Said::Built { outputs, .. } => Some(outputs.clone()),
            Said::Failed { .. } => None,
        };
        let (key, seq) = (Some(record.attester), Some(record.seq));
        Self { voter: owner.name.clone(), why, key, seq, outputs }
    }
}
