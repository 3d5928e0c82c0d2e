//! Rules, compiled: a tree with people at its leaves.

use std::{collections::BTreeSet, fmt};

use protocol::{name::Name, statement::Platform};
use serde::Serialize;

use super::{Members, list};
use crate::roster::EVERYONE;

/// Who must agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// This attester, or `self`.
    Voter(Voter),
    /// So many of several.
    AtLeast(Box<AtLeast>),
}

/// An attester, or `self`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Voter {
    pub(super) name: Name,
    pub(super) seat: usize,
}

impl Voter {
    /// Its name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// The place of the name among those of the roster and `self`, in order.
    pub(crate) fn seat(&self) -> usize {
        self.seat
    }
}

/// So many of several rules must be met by those who agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AtLeast {
    pub(super) need: usize,
    pub(super) of: Vec<Rule>,
    pub(super) distinct: BTreeSet<Attribute>,
    pub(super) over: Over,
    pub(super) named: Option<Name>,
}

/// What an [`AtLeast`] ranges over, in the policy's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Over {
    /// All of the roster, and `self`.
    Everyone,
    /// The members of a group.
    Group(Name),
    /// A list of rules.
    List,
}

/// In what votes may have to differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Attribute {
    /// Who runs it, in the words of the roster.
    Operator,
    /// The processor's architecture, in the voter's words.
    Arch,
    /// The operating system, in the voter's words.
    Os,
    /// The wasm engine and its version, in the voter's words.
    Engine,
}

impl Attribute {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Operator, Self::Arch, Self::Os, Self::Engine];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Arch => "arch",
            Self::Os => "os",
            Self::Engine => "engine",
        }
    }

    fn of(self, platform: &Platform) -> Option<&Name> {
        match self {
            Self::Operator => None,
            Self::Arch => Some(&platform.arch),
            Self::Os => Some(&platform.os),
            Self::Engine => Some(&platform.engine),
        }
    }
}

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How somebody agrees with an output.
#[derive(Clone, Copy)]
pub(crate) enum Agreement<'a> {
    /// It executed the action there.
    On(&'a Platform),
    /// It might, on a platform like nobody else's.
    Anywhere,
}

/// How near an [`AtLeast`] is to being met.
pub(crate) struct Tally {
    /// Elements that are met.
    pub(crate) have: usize,
    /// Distinct values of each attribute that is to differ.
    pub(crate) distinct: Vec<(Attribute, usize)>,
}

impl Rule {
    /// Whether those for whom `agrees` gives something are enough. Once met, more are enough, too.
    pub(crate) fn met<'a>(
        &self,
        members: &Members,
        agrees: &impl Fn(&Voter) -> Option<Agreement<'a>>,
    ) -> bool {
        match self {
            Self::Voter(voter) => agrees(voter).is_some(),
            Self::AtLeast(rule) if rule.distinct.is_empty() => rule.have_enough(members, agrees),
            Self::AtLeast(rule) => rule.reached(&rule.tally(members, agrees)),
        }
    }

    /// Everybody whom it names.
    pub fn voters(&self) -> BTreeSet<&Voter> {
        self.leaves().collect()
    }

    /// The same, as often as it names them.
    pub(crate) fn leaves(&self) -> impl Iterator<Item = &Voter> {
        let mut left = vec![std::slice::from_ref(self).iter()];
        std::iter::from_fn(move || {
            loop {
                match left.last_mut()?.next() {
                    Some(Self::Voter(voter)) => return Some(voter),
                    Some(Self::AtLeast(rule)) => left.push(rule.of.iter()),
                    None => drop(left.pop()),
                }
            }
        })
    }
}

impl AtLeast {
    /// How many elements must be met, and how many values must differ.
    pub fn need(&self) -> usize {
        self.need
    }

    /// The elements.
    pub fn of(&self) -> &[Rule] {
        &self.of
    }

    /// In what those who agree must differ.
    pub fn distinct(&self) -> &BTreeSet<Attribute> {
        &self.distinct
    }

    /// What the elements are, in the policy's words.
    pub fn over(&self) -> &Over {
        &self.over
    }

    /// The name that the rule has in the policy.
    pub fn named(&self) -> Option<&Name> {
        self.named.as_ref()
    }

    pub(crate) fn tally<'a>(
        &self,
        members: &Members,
        agrees: &impl Fn(&Voter) -> Option<Agreement<'a>>,
    ) -> Tally {
        let have = self.of.iter().filter(|rule| rule.met(members, agrees)).count();
        let distinct = self.distinct.iter().map(|attribute| {
            let mut values: BTreeSet<&Name> = BTreeSet::new();
            let mut anywhere = 0;
            for voter in self.of.iter().flat_map(Rule::leaves).collect::<BTreeSet<_>>() {
                match (attribute, agrees(voter)) {
                    (_, None) => {}
                    (Attribute::Operator, Some(_)) => {
                        values.insert(&members[voter].operator);
                    }
                    (attribute, Some(Agreement::On(platform))) => values.extend(attribute.of(platform)),
                    (_, Some(Agreement::Anywhere)) => anywhere += 1,
                }
            }
            (*attribute, values.len() + anywhere)
        });
        Tally { have, distinct: distinct.collect() }
    }

    /// Whether enough elements are met, with a look at no more of them than that takes.
    fn have_enough<'a>(&self, members: &Members, agrees: &impl Fn(&Voter) -> Option<Agreement<'a>>) -> bool {
        let (mut wanted, mut left) = (self.need, self.of.len());
        for rule in &self.of {
            if wanted == 0 || wanted > left {
                break;
            }
            left -= 1;
            wanted -= usize::from(rule.met(members, agrees));
        }
        wanted == 0
    }

    pub(crate) fn reached(&self, tally: &Tally) -> bool {
        tally.have >= self.need && tally.distinct.iter().all(|(_, have)| *have >= self.need)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Voter(voter) => voter.name.fmt(f),
            Self::AtLeast(rule) => rule.fmt(f),
        }
    }
}

impl fmt::Display for AtLeast {
    /// One line, without what is nested deeper: `2 of 3: alice, bob, friends`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(named) = &self.named {
            write!(f, "{named}: ")?;
        }
        match &self.over {
            Over::Group(group) => write!(f, "{} of the {} of {group}", self.need, self.of.len())?,
            Over::Everyone => write!(f, "{} of the {} of {EVERYONE}", self.need, self.of.len())?,
            Over::List => {
                write!(f, "{} of {}", self.need, self.of.len())?;
                let names: Option<Vec<&Name>> = self.of.iter().map(Rule::name).collect();
                if let Some(names) = names {
                    write!(f, ": {}", list(names))?;
                }
            }
        }
        for attribute in &self.distinct {
            write!(f, ", with {} different values of `{attribute}`", self.need)?;
        }
        Ok(())
    }
}

impl Rule {
    /// The one name that stands for it in a policy, if there is one.
    fn name(&self) -> Option<&Name> {
        match self {
            Self::Voter(voter) => Some(&voter.name),
            Self::AtLeast(rule) => match &**rule {
                AtLeast { named: Some(name), .. } => Some(name),
                AtLeast { over: Over::Group(group), need: 1, distinct, .. } if distinct.is_empty() => {
                    Some(group)
                }
                _ => None,
            },
        }
    }
}
