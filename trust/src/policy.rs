//! Policies (SPEC §14): how many of whom must agree.
//!
//! ```text
//! policy of config.jsonnet (as JSON), Roster, now ── compile ──▶ Policy ── for_package ──▶ View ──▶ verdict.rs
//! ```
//!
//! A rule is a name, or so many of several rules. It is written with names of people, groups and
//! other rules; compiling replaces all of them, so what [`crate::verdict::judge`] sees is a tree
//! with people at its leaves, in which every threshold can be reached and nobody can be counted
//! twice by mistake.
//!
//! Absent on purpose: weights, negation (a rule that is met stays met when one more agrees), and
//! percentages of those who answered.

mod compile;
mod rule;

use std::{fmt, ops::Index};

use protocol::{glob::Glob, name::Name};
use serde::Serialize;
use serde_json::Value;

use crate::{
    date::Day,
    roster::{self, Roster, did_you_mean},
    seats::Seats,
};
pub(crate) use rule::Agreement;
pub use rule::{AtLeast, Attribute, Over, Rule, Voter};

/// A policy that has a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// Nobody but this machine.
    LocalOnly,
    /// This machine, or any attester of the group `mine`.
    Solo,
    /// Anybody of the roster.
    One,
    /// More than half of the roster and `self`, and at least two.
    Majority,
    /// Two thirds of the roster and `self`, and at least two.
    TwoThirds,
    /// As [`Preset::TwoThirds`], by three operators, on two architectures, with two engines.
    Strict,
}

impl Preset {
    /// All of them, from the most trusting to the least, but for the first, which trusts nobody.
    pub const ALL: [Self; 6] =
        [Self::LocalOnly, Self::Solo, Self::One, Self::Majority, Self::TwoThirds, Self::Strict];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::LocalOnly => "local-only",
            Self::Solo => "solo",
            Self::One => "one",
            Self::Majority => "majority",
            Self::TwoThirds => "two-thirds",
            Self::Strict => "strict",
        }
    }

    /// The one of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|preset| preset.name() == name)
    }

    /// What it does about dissent, unless something else is said.
    const fn dissent(self) -> Dissent {
        match self {
            Self::LocalOnly | Self::Solo | Self::Majority => Dissent::Alarm,
            // One voter who errs is all there is, or all there may be.
            Self::One | Self::TwoThirds | Self::Strict => Dissent::Hold,
        }
    }

    /// What it wants of witnesses, unless something else is said.
    const fn witness(self) -> WitnessRule {
        match self {
            Self::LocalOnly | Self::Solo | Self::One | Self::Majority | Self::TwoThirds => WitnessRule::Any,
            Self::Strict => WitnessRule::Present,
        }
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What it means that somebody of the roster, or `self`, names other outputs than those that
/// would be accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Dissent {
    /// Nothing is accepted until it is settled.
    Hold,
    /// They are accepted, and it is told of.
    Alarm,
    /// They are accepted.
    Ignore,
}

/// What is wanted of the proof of execution of a vote. One that is known to be wrong never counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum WitnessRule {
    /// Nothing.
    Any,
    /// There is one.
    Present,
    /// There is one, of somebody of whom another one was checked by an execution on this machine,
    /// and none was wrong.
    Known,
    /// It was checked itself, by an execution on this machine.
    Verified,
}

/// What must be so for outputs to be accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Terms {
    rule: Rule,
    dissent: Dissent,
    witness: WitnessRule,
    /// The preset that the rule is of.
    preset: Option<Preset>,
}

/// Somebody whom rules may name: an attester of the roster, or `self`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    /// Who runs it.
    pub(crate) operator: Name,
    /// Whether it does not vote any more.
    pub(crate) expired: bool,
}

/// Everybody whom rules may name, by seat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Members {
    pub(crate) seats: Seats,
    members: Vec<Member>,
    own: usize,
}

impl Members {
    fn of(roster: &Roster, now: u64) -> Self {
        let seats = Seats::of(roster);
        let member = |name: &Name| match roster.get(name) {
            Some(attester) => {
                let operator = attester.operator.clone().unwrap_or_else(|| name.clone());
                Member { operator, expired: attester.expired(now) }
            }
            None => Member { operator: roster::own(), expired: false },
        };
        let members = seats.names().map(member).collect();
        let own = seats.find(&roster::own()).expect("it has a seat");
        Self { seats, members, own }
    }

    /// The seat of `self`.
    pub(crate) fn own(&self) -> usize {
        self.own
    }

    pub(crate) fn voter(&self, name: &Name) -> Option<Voter> {
        self.seats.find(name).map(|seat| Voter { name: name.clone(), seat })
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (&Name, &Member)> {
        self.seats.names().zip(&self.members)
    }
}

impl Index<&Voter> for Members {
    type Output = Member;

    fn index(&self, voter: &Voter) -> &Member {
        &self.members[voter.seat]
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Override {
    package: Glob,
    terms: Terms,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Exemption {
    package: Glob,
    rule: Rule,
    until: String,
    last_day: Day,
    why: String,
}

/// A policy, compiled: every rule can be met by the roster that it was compiled with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    terms: Terms,
    overrides: Vec<Override>,
    /// Those that are not over.
    exemptions: Vec<Exemption>,
    members: Members,
    notes: Vec<Note>,
}

/// Something that the owner of a policy should know, and that is no error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Note {
    /// There are not enough attesters for anything to be taken from others.
    OnlySelf {
        /// Where in the policy.
        at: String,
        /// The preset.
        preset: Preset,
        /// How many attesters there are.
        attesters: usize,
    },
    /// No attester whom the rule names can make it met without this machine's own build.
    NeedsSelf {
        /// Where in the policy.
        at: String,
    },
    /// The rule cannot be met until somebody's time is extended, or the rule is changed.
    Expired {
        /// Where in the policy.
        at: String,
        /// Whom it names that do not vote any more.
        expired: Vec<Name>,
    },
    /// An exemption is over and does not apply.
    ExemptionOver {
        /// Where in the policy.
        at: String,
        /// Which packages it was for.
        package: String,
        /// Its last day.
        until: String,
    },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OnlySelf { at, preset, attesters } => {
                write!(f, "{at}: `{preset}` takes nothing from others, because ")?;
                match attesters {
                    1.. if *preset == Preset::Solo => f.write_str("nobody is in the group `mine`"),
                    0 => f.write_str("nobody is trusted yet"),
                    1 => f.write_str("only one attester is trusted"),
                    n => write!(f, "only {n} attesters are trusted"),
                }
            }
            Self::NeedsSelf { at } => {
                write!(f, "{at}: nothing is accepted that this machine has not built itself")
            }
            Self::Expired { at, expired } => {
                write!(f, "{at}: cannot be met while these do not vote any more: {}", list(expired))
            }
            Self::ExemptionOver { at, package, until } => {
                write!(f, "{at}: the exemption of `{package}` ended with {until}")
            }
        }
    }
}

/// Names for people: at most eight.
pub(crate) fn list<'n>(names: impl IntoIterator<Item = &'n Name>) -> String {
    let names: Vec<&str> = names.into_iter().map(Name::as_str).collect();
    match names.len() {
        0..=8 => names.join(", "),
        n => format!("{} and {} more", names[..8].join(", "), n - 8),
    }
}

/// Why a policy was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {fault}")]
pub struct PolicyError {
    /// Where, as in `policy.rules.core.of[2]`.
    pub at: String,
    /// What is wrong there.
    pub fault: PolicyFault,
}

/// What is wrong with a policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyFault {
    /// Another type of value, or another word, than is wanted.
    #[error("expected {expected}, found {found}")]
    Expected {
        /// What is wanted.
        expected: &'static str,
        /// What there is.
        found: String,
    },
    /// A preset that there is not.
    #[error("`{name}` is no preset{}", did_you_mean(.meant))]
    NoPreset {
        /// The name.
        name: String,
        /// What may have been meant.
        meant: Option<String>,
    },
    /// A field that means nothing.
    #[error("unknown field `{field}`{}", did_you_mean(.meant))]
    Field {
        /// The field.
        field: String,
        /// What may have been meant.
        meant: Option<String>,
    },
    /// A field that must be there.
    #[error("the field `{0}` is missing")]
    Missing(&'static str),
    /// Two fields of which only one may be there.
    #[error("`{0}` and `{1}` exclude each other")]
    Both(&'static str, &'static str),
    /// A name of nobody, no group and no rule.
    #[error("`{name}` is no attester, group or rule{}", did_you_mean(.meant))]
    Unknown {
        /// The name.
        name: String,
        /// What may have been meant.
        meant: Option<String>,
    },
    /// A name that stands for two things.
    #[error("the rule `{name}` has the name of {other}")]
    Ambiguous {
        /// The name.
        name: String,
        /// What else has it.
        other: &'static str,
    },
    /// A preset inside a rule.
    #[error("`{0}` is a whole policy and cannot be a part of a rule")]
    Preset(Preset),
    /// `everyone` where one is wanted.
    #[error("`everyone` goes with `atLeast`, as in {{ atLeast: 1, of: 'everyone' }}")]
    Everyone,
    /// Something other than a group behind `of`.
    #[error("`of` wants a list, a group or `everyone`; `{0}` is none")]
    NoGroup(String),
    /// A rule that is always met.
    #[error("a rule that nobody has to agree with accepts anything")]
    Zero,
    /// A rule over nobody.
    #[error("`of` is empty")]
    Empty,
    /// More than there are.
    #[error("at least {need} of {of}, which can never be")]
    TooHigh {
        /// How many are wanted.
        need: u64,
        /// How many there are.
        of: usize,
    },
    /// More operators than there are.
    #[error("at least {need} operators, but those named have only {of}")]
    Operators {
        /// How many are wanted.
        need: usize,
        /// How many there are.
        of: usize,
    },
    /// One voter in two elements of which a number must be met.
    #[error(
        "`{voter}` is in element {first} and in element {second}, and would be counted twice; with \
         `atLeast: 'all'` each element is to be met for itself"
    )]
    Twice {
        /// Who.
        voter: Name,
        /// Counted from 1.
        first: usize,
        /// Counted from 1.
        second: usize,
    },
    /// `distinct` over something other than names and groups.
    #[error("with `distinct`, `of` has attesters and groups only")]
    Distinct,
    /// Rules that mean each other.
    #[error("rules in a circle: {}", .0.join(" → "))]
    Circle(Vec<String>),
    /// Rules in rules in rules.
    #[error("rules are nested deeper than {limit}", limit = crate::limits::RULE_DEPTH)]
    Deep,
    /// Too much altogether.
    #[error("more than {limit} rules, with names replaced by what they stand for", limit = crate::limits::RULE_NODES)]
    Large,
    /// Too many elements of a list.
    #[error("{found} elements, but at most {limit} are allowed", limit = crate::limits::RULES)]
    TooMany {
        /// How many there are.
        found: usize,
    },
    /// Not a name.
    #[error(transparent)]
    Name(protocol::name::NameError),
    /// Not a pattern.
    #[error(transparent)]
    Package(protocol::glob::GlobError),
    /// Not a day.
    #[error("expected a day, as in `2027-01-31`, found `{0}`")]
    Date(String),
    /// No reason, a long one, or one that would do something to a terminal.
    #[error("expected a reason of 1 to {limit} bytes without control characters", limit = crate::limits::NOTE_BYTES)]
    Why,
}

/// Which part of a policy applies to a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    overriding: Option<usize>,
    exemption: Option<usize>,
}

/// What of a policy applies to one package.
#[derive(Debug, Clone, Copy)]
pub struct View<'p> {
    policy: &'p Policy,
    place: Place,
}

/// Why a rule applies to a package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Because {
    /// It is the rule for everything.
    Everything,
    /// An override is for this package.
    Override {
        /// Its place in the list, counted from 0.
        index: usize,
        /// Its pattern.
        package: String,
    },
    /// An exemption is for this package.
    Exemption {
        /// Its pattern.
        package: String,
        /// Its last day.
        until: String,
        /// The reason.
        why: String,
    },
}

impl Policy {
    /// Compiles what the configuration says.
    ///
    /// `policy` is the field's value: a preset's name or an object; `now` is in seconds since 1970.
    ///
    /// # Errors
    ///
    /// [`PolicyError`], the first rule of SPEC §14 that is broken. A preset never fails for want of
    /// attesters, but for [`Preset::Strict`]: it takes nothing from others and has a [`Note`].
    pub fn compile(policy: &Value, roster: &Roster, now: u64) -> Result<Self, PolicyError> {
        compile::Compiler::new(roster, now).policy(policy)
    }

    /// The policy of somebody who said nothing: [`Preset::Majority`].
    pub fn by_default(roster: &Roster, now: u64) -> Self {
        let value = Value::from(Preset::Majority.name());
        Self::compile(&value, roster, now).expect("`majority` fails with no roster")
    }

    /// What applies to the package of that name: the first exemption whose pattern matches; or else
    /// the first override; or else what is said for everything.
    pub fn for_package(&self, package: &Name) -> View<'_> {
        let package = package.as_str().as_bytes();
        let exemption = self.exemptions.iter().position(|e| e.package.matches(package));
        let overriding = self.overrides.iter().position(|o| o.package.matches(package));
        View { policy: self, place: Place { overriding, exemption } }
    }

    /// Whether it depends on whose witnesses were checked before ([`crate::ledger::Checked`]).
    pub fn wants_known(&self) -> bool {
        self.views().any(|view| view.witness() == WitnessRule::Known)
    }

    /// What its owner should know.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// All parts of the policy, each with the reason for which it would apply.
    pub fn views(&self) -> impl Iterator<Item = View<'_>> {
        let overrides = (0..self.overrides.len()).map(|n| Place { overriding: Some(n), exemption: None });
        let exemptions = (0..self.exemptions.len()).map(|n| Place { overriding: None, exemption: Some(n) });
        let everything = std::iter::once(Place { overriding: None, exemption: None });
        everything.chain(overrides).chain(exemptions).map(|place| View { policy: self, place })
    }
}

impl<'p> View<'p> {
    fn terms(&self) -> &'p Terms {
        self.place.overriding.map_or(&self.policy.terms, |n| &self.policy.overrides[n].terms)
    }

    /// Who must agree.
    pub fn rule(&self) -> &'p Rule {
        match self.place.exemption {
            Some(n) => &self.policy.exemptions[n].rule,
            None => &self.terms().rule,
        }
    }

    /// What dissent does.
    pub fn dissent(&self) -> Dissent {
        self.terms().dissent
    }

    /// What is wanted of witnesses.
    pub fn witness(&self) -> WitnessRule {
        self.terms().witness
    }

    /// The preset that the rule is of.
    pub fn preset(&self) -> Option<Preset> {
        if self.place.exemption.is_some() { None } else { self.terms().preset }
    }

    /// Why this applies.
    pub fn because(&self) -> Because {
        if let Some(exemption) = self.place.exemption.map(|n| &self.policy.exemptions[n]) {
            let (package, until) = (exemption.package.as_str().into(), exemption.until.clone());
            return Because::Exemption { package, until, why: exemption.why.clone() };
        }
        match self.place.overriding {
            Some(index) => {
                Because::Override { index, package: self.policy.overrides[index].package.as_str().into() }
            }
            None => Because::Everything,
        }
    }

    pub(crate) fn members(&self) -> &'p Members {
        &self.policy.members
    }

    /// Equal for packages to which the same applies.
    pub(crate) fn place(&self) -> Place {
        self.place
    }
}
