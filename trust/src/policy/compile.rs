//! From what the configuration says to a [`Policy`].
//!
//! Names are replaced by what they stand for, in one walk that counts depth and size as it goes,
//! so that a short policy of rules that mean each other twice cannot become a long one.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{glob::Glob, name::Name};
use serde_json::{Map, Value};

use super::{
    AtLeast, Attribute, Dissent, Exemption, Members, Note, Over, Override, Policy, PolicyError, PolicyFault,
    Preset, Rule, Terms, Voter, WitnessRule, rule::Agreement,
};
use crate::{
    date::Day,
    limits,
    roster::{self, EVERYONE, Roster, SELF},
    suggest,
};

const POLICY_FIELDS: [&str; 7] = ["preset", "rule", "dissent", "witness", "rules", "overrides", "exemptions"];
const OVERRIDE_FIELDS: [&str; 4] = ["package", "rule", "dissent", "witness"];
const EXEMPTION_FIELDS: [&str; 4] = ["package", "rule", "until", "why"];
const RULE_FIELDS: [&str; 3] = ["atLeast", "of", "distinct"];

/// The group whose members [`Preset::Solo`] believes: the owner's other machines.
const MINE: &str = "mine";

type Object = Map<String, Value>;

pub(super) struct Compiler<'a> {
    roster: &'a Roster,
    members: Members,
    now: u64,
    /// The named rules, as they are written.
    rules: BTreeMap<&'a str, &'a Value>,
    /// The named rules that are being replaced, outermost first.
    open: Vec<&'a str>,
    /// Nodes so far.
    nodes: usize,
    notes: Vec<Note>,
}

/// How many, in the policy's words.
enum Need {
    Number(u64),
    Majority,
    TwoThirds,
    All,
}

impl Need {
    /// How many that is of `n`, which is not 0. Exact: nothing is rounded but up.
    fn of(&self, n: usize) -> u64 {
        match self {
            Self::Number(need) => *need,
            Self::Majority => majority(n) as u64,
            Self::TwoThirds => two_thirds(n) as u64,
            Self::All => n as u64,
        }
    }
}

/// More than half.
fn majority(n: usize) -> usize {
    n / 2 + 1
}

/// No fewer than two thirds.
fn two_thirds(n: usize) -> usize {
    (2 * n).div_ceil(3)
}

fn fail<T>(at: &str, fault: PolicyFault) -> Result<T, PolicyError> {
    Err(PolicyError { at: at.to_owned(), fault })
}

fn expected<T>(at: &str, expected: &'static str, found: &Value) -> Result<T, PolicyError> {
    let found = match found {
        Value::Null => "null".into(),
        Value::Bool(_) | Value::Number(_) => format!("`{found}`"),
        Value::String(text) => format!("`{}`", text.chars().take(40).collect::<String>().escape_debug()),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "an object".into(),
    };
    fail(at, PolicyFault::Expected { expected, found })
}

fn object<'v>(value: &'v Value, at: &str, what: &'static str) -> Result<&'v Object, PolicyError> {
    match value {
        Value::Object(object) => Ok(object),
        other => expected(at, what, other),
    }
}

fn text<'v>(value: &'v Value, at: &str, what: &'static str) -> Result<&'v str, PolicyError> {
    match value {
        Value::String(text) => Ok(text),
        other => expected(at, what, other),
    }
}

fn elements<'v>(value: Option<&'v Value>, at: &str) -> Result<&'v [Value], PolicyError> {
    match value {
        None => Ok(&[]),
        Some(Value::Array(elements)) if elements.len() > limits::RULES => {
            fail(at, PolicyFault::TooMany { found: elements.len() })
        }
        Some(Value::Array(elements)) => Ok(elements),
        Some(other) => expected(at, "a list", other),
    }
}

fn fields(object: &Object, at: &str, known: &[&'static str]) -> Result<(), PolicyError> {
    match object.keys().find(|field| !known.contains(&field.as_str())) {
        None => Ok(()),
        Some(field) => {
            let meant = suggest::nearest(field, known.iter().copied());
            fail(at, PolicyFault::Field { field: field.chars().take(40).collect(), meant })
        }
    }
}

fn required<'v>(object: &'v Object, at: &str, field: &'static str) -> Result<&'v Value, PolicyError> {
    match object.get(field) {
        Some(value) => Ok(value),
        None => fail(at, PolicyFault::Missing(field)),
    }
}

fn package(object: &Object, at: &str) -> Result<Glob, PolicyError> {
    let pattern = text(required(object, at, "package")?, &format!("{at}.package"), "a pattern")?;
    Glob::new(pattern)
        .map_err(|error| PolicyError { at: format!("{at}.package"), fault: PolicyFault::Package(error) })
}

fn dissent(object: &Object, at: &str, default: Dissent) -> Result<Dissent, PolicyError> {
    let at = format!("{at}.dissent");
    match object.get("dissent") {
        None => Ok(default),
        Some(value) => match value.as_str() {
            Some("hold") => Ok(Dissent::Hold),
            Some("alarm") => Ok(Dissent::Alarm),
            Some("ignore") => Ok(Dissent::Ignore),
            Some(_) | None => expected(&at, "`hold`, `alarm` or `ignore`", value),
        },
    }
}

fn witness(object: &Object, at: &str, default: WitnessRule) -> Result<WitnessRule, PolicyError> {
    let at = format!("{at}.witness");
    match object.get("witness") {
        None => Ok(default),
        Some(value) => match value.as_str() {
            Some("any") => Ok(WitnessRule::Any),
            Some("present") => Ok(WitnessRule::Present),
            Some("known") => Ok(WitnessRule::Known),
            Some("verified") => Ok(WitnessRule::Verified),
            Some(_) | None => expected(&at, "`any`, `present`, `known` or `verified`", value),
        },
    }
}

impl<'a> Compiler<'a> {
    pub(super) fn new(roster: &'a Roster, now: u64) -> Self {
        let members = Members::of(roster, now);
        Self { roster, members, now, rules: BTreeMap::new(), open: vec![], nodes: 0, notes: vec![] }
    }

    pub(super) fn policy(mut self, policy: &'a Value) -> Result<Policy, PolicyError> {
        let at = "policy";
        let (mut overrides, mut exemptions) = (Vec::new(), Vec::new());
        let terms = match policy {
            Value::String(name) => match Preset::named(name) {
                Some(preset) => self.preset(preset, at)?,
                None => {
                    let meant = suggest::nearest(name, Preset::ALL.map(Preset::name));
                    return fail(at, PolicyFault::NoPreset { name: name.chars().take(40).collect(), meant });
                }
            },
            Value::Object(object) => {
                fields(object, at, &POLICY_FIELDS)?;
                self.rules(object.get("rules"))?;
                let terms = self.terms(object, at, None)?;
                for (n, value) in elements(object.get("overrides"), "policy.overrides")?.iter().enumerate() {
                    overrides.push(self.overriding(value, &format!("policy.overrides[{n}]"), &terms)?);
                }
                for (n, value) in elements(object.get("exemptions"), "policy.exemptions")?.iter().enumerate()
                {
                    exemptions.extend(self.exemption(value, &format!("policy.exemptions[{n}]"))?);
                }
                terms
            }
            other => return expected(at, "the name of a preset or an object", other),
        };
        Ok(Policy { terms, overrides, exemptions, members: self.members, notes: self.notes })
    }

    /// The named rules: each must be a rule, used or not.
    fn rules(&mut self, value: Option<&'a Value>) -> Result<(), PolicyError> {
        let at = "policy.rules";
        let Some(value) = value else { return Ok(()) };
        let rules = object(value, at, "an object of rules by name")?;
        if rules.len() > limits::RULES {
            return fail(at, PolicyFault::TooMany { found: rules.len() });
        }
        for (name, value) in rules {
            let parsed = Name::new(name.as_str());
            let parsed =
                parsed.map_err(|error| PolicyError { at: at.into(), fault: PolicyFault::Name(error) })?;
            let ambiguous = |other| fail(at, PolicyFault::Ambiguous { name: name.clone(), other });
            if roster::is_reserved(name) {
                return ambiguous("something else in policies");
            }
            if self.roster.get(&parsed).is_some() {
                return ambiguous("an attester");
            }
            if self.roster.group(&parsed).next().is_some() {
                return ambiguous("a group");
            }
            self.rules.insert(name, value);
        }
        for name in rules.keys() {
            self.named(name, &format!("{at}.{name}"), 0)?;
        }
        Ok(())
    }

    /// What a policy or an override says; `base` is the policy that an override is of.
    fn terms(&mut self, object: &'a Object, at: &str, base: Option<&Terms>) -> Result<Terms, PolicyError> {
        let mut terms = match (object.get("preset"), object.get("rule")) {
            (Some(_), Some(_)) => return fail(at, PolicyFault::Both("preset", "rule")),
            (None, None) => self.preset(Preset::Majority, at)?,
            (Some(value), None) => {
                let at = format!("{at}.preset");
                match value.as_str().and_then(Preset::named) {
                    Some(preset) => self.preset(preset, &at)?,
                    None => return expected(&at, "the name of a preset", value),
                }
            }
            (None, Some(value)) => {
                let at = format!("{at}.rule");
                match value.as_str().and_then(Preset::named) {
                    Some(preset) => self.preset(preset, &at)?,
                    None => {
                        let rule = self.rule(value, &at, 0)?;
                        self.note(&rule, &at);
                        let dissent = base.map_or(Dissent::Alarm, |base| base.dissent);
                        let witness = base.map_or(WitnessRule::Any, |base| base.witness);
                        Terms { rule, dissent, witness, preset: None }
                    }
                }
            }
        };
        terms.dissent = dissent(object, at, terms.dissent)?;
        terms.witness = witness(object, at, terms.witness)?;
        Ok(terms)
    }

    fn overriding(&mut self, value: &'a Value, at: &str, base: &Terms) -> Result<Override, PolicyError> {
        let object = object(value, at, "an object")?;
        fields(object, at, &OVERRIDE_FIELDS)?;
        required(object, at, "rule")?;
        Ok(Override { package: package(object, at)?, terms: self.terms(object, at, Some(base))? })
    }

    /// An exemption; `None` if it is over.
    fn exemption(&mut self, value: &'a Value, at: &str) -> Result<Option<Exemption>, PolicyError> {
        let object = object(value, at, "an object")?;
        fields(object, at, &EXEMPTION_FIELDS)?;
        let package = package(object, at)?;
        let rule_at = format!("{at}.rule");
        let rule = required(object, at, "rule")?;
        let notes = self.notes.len();
        let rule = match rule.as_str().and_then(Preset::named) {
            Some(preset) => self.preset(preset, &rule_at)?.rule,
            None => {
                let rule = self.rule(rule, &rule_at, 0)?;
                self.note(&rule, &rule_at);
                rule
            }
        };
        let until_at = format!("{at}.until");
        let until = text(required(object, at, "until")?, &until_at, "a day")?;
        let Some(last_day) = Day::parse(until) else {
            return fail(&until_at, PolicyFault::Date(until.chars().take(40).collect()));
        };
        let why_at = format!("{at}.why");
        let why = text(required(object, at, "why")?, &why_at, "a reason")?;
        if why.is_empty() || why.len() > limits::NOTE_BYTES || why.chars().any(char::is_control) {
            return fail(&why_at, PolicyFault::Why);
        }
        let until = until.to_owned();
        if last_day.is_over(self.now) {
            // What else there is to know of its rule is of no use any more.
            self.notes.truncate(notes);
            let package = package.as_str().to_owned();
            self.notes.push(Note::ExemptionOver { at: at.to_owned(), package, until });
            return Ok(None);
        }
        Ok(Some(Exemption { package, rule, until, last_day, why: why.to_owned() }))
    }

    fn preset(&mut self, preset: Preset, at: &str) -> Result<Terms, PolicyError> {
        let everyone = self.everyone();
        let (n, own) = (everyone.len(), self.voter(&roster::own()));
        let of_everyone =
            |need, distinct: &[Attribute]| at_least(need, everyone.clone(), distinct, Over::Everyone);
        let rule = match preset {
            Preset::LocalOnly => own,
            Preset::Solo => {
                let mine = Name::new(MINE).expect("a name");
                let mine = self.roster.group(&mine).map(|name| self.voter(name));
                at_least(1, [own].into_iter().chain(mine).collect(), &[], Over::List)
            }
            Preset::One => of_everyone(1, &[]),
            // Two of one could never be: a newcomer who builds alone must not meet an error.
            Preset::Majority | Preset::TwoThirds if n == 1 => own,
            Preset::Majority => of_everyone(majority(n).max(2), &[]),
            Preset::TwoThirds => of_everyone(two_thirds(n).max(2), &[]),
            Preset::Strict => {
                let operators = self.operators(&everyone);
                if operators < 3 {
                    return fail(at, PolicyFault::Operators { need: 3, of: operators });
                }
                let all = vec![
                    of_everyone(two_thirds(n), &[]),
                    of_everyone(3, &[Attribute::Operator]),
                    of_everyone(2, &[Attribute::Arch, Attribute::Engine]),
                ];
                at_least(all.len(), all, &[], Over::List)
            }
        };
        match preset {
            Preset::LocalOnly => {}
            Preset::One | Preset::Solo | Preset::Majority | Preset::TwoThirds
                if !self.met_by(&rule, |name, expired| !expired && name != SELF)
                    && !everyone.iter().any(|rule| self.expired(rule)) =>
            {
                self.notes.push(Note::OnlySelf { at: at.to_owned(), preset, attesters: n - 1 });
            }
            Preset::One | Preset::Solo | Preset::Majority | Preset::TwoThirds | Preset::Strict => {
                self.note(&rule, at);
            }
        }
        self.count(rule_nodes(&rule), at)?;
        let (dissent, witness) = (preset.dissent(), preset.witness());
        Ok(Terms { rule, dissent, witness, preset: Some(preset) })
    }

    /// Notes what an owner should know of a rule that is to be applied.
    fn note(&mut self, rule: &Rule, at: &str) {
        if !self.met_by(rule, |_, expired| !expired) {
            let expired = rule.voters().into_iter().filter(|voter| self.members[*voter].expired);
            let expired = expired.map(|voter| voter.name().clone()).collect();
            self.notes.push(Note::Expired { at: at.to_owned(), expired });
        } else if !self.met_by(rule, |name, expired| !expired && name != SELF) {
            self.notes.push(Note::NeedsSelf { at: at.to_owned() });
        }
    }

    /// Whether a rule is met when all agree for whom `who` (of name and expiry) holds.
    fn met_by(&self, rule: &Rule, who: impl Fn(&str, bool) -> bool) -> bool {
        rule.met(&self.members, &|voter| {
            who(voter.name().as_str(), self.members[voter].expired).then_some(Agreement::Anywhere)
        })
    }

    fn expired(&self, rule: &Rule) -> bool {
        rule.leaves().any(|voter| self.members[voter].expired)
    }

    /// A rule, with every name in it replaced; `depth` rules are around it.
    fn rule(&mut self, value: &'a Value, at: &str, depth: usize) -> Result<Rule, PolicyError> {
        if depth >= limits::RULE_DEPTH {
            return fail(at, PolicyFault::Deep);
        }
        match value {
            Value::String(name) => self.name(name, at, depth),
            Value::Object(object) => self.at_least(object, at, depth),
            other => expected(at, "a name, or an object with `atLeast` and `of`", other),
        }
    }

    /// What a name stands for.
    fn name(&mut self, name: &'a str, at: &str, depth: usize) -> Result<Rule, PolicyError> {
        if let Some(preset) = Preset::named(name) {
            return fail(at, PolicyFault::Preset(preset));
        }
        if name == EVERYONE {
            return fail(at, PolicyFault::Everyone);
        }
        if let Some(voter) = Name::new(name).ok().and_then(|name| self.members.voter(&name)) {
            self.count(1, at)?;
            return Ok(Rule::Voter(voter));
        }
        if let Some((group, members)) = self.group(name) {
            self.count(1 + members.len(), at)?;
            return Ok(at_least(1, members, &[], Over::Group(group)));
        }
        if self.rules.contains_key(name) {
            return self.named(name, at, depth + 1);
        }
        let groups = self.roster.groups();
        let names =
            self.members.seats.names().chain(groups).map(Name::as_str).chain(self.rules.keys().copied());
        let meant = suggest::nearest(name, names);
        fail(at, PolicyFault::Unknown { name: name.chars().take(40).collect(), meant })
    }

    /// What a named rule stands for; there is one of that name.
    fn named(&mut self, name: &'a str, at: &str, depth: usize) -> Result<Rule, PolicyError> {
        if let Some(first) = self.open.iter().position(|open| *open == name) {
            let circle = self.open[first..].iter().chain([&name]).map(|name| (*name).to_owned());
            return fail(at, PolicyFault::Circle(circle.collect()));
        }
        self.open.push(name);
        let mut rule = self.rule(self.rules[name], at, depth)?;
        self.open.pop();
        if let Rule::AtLeast(rule) = &mut rule {
            rule.named = Some(Name::new(name).expect("checked when the rules were read"));
        }
        Ok(rule)
    }

    fn at_least(&mut self, object: &'a Object, at: &str, depth: usize) -> Result<Rule, PolicyError> {
        fields(object, at, &RULE_FIELDS)?;
        self.count(1, at)?;
        let need_at = format!("{at}.atLeast");
        let need = match required(object, at, "atLeast")? {
            Value::String(text) if text == "majority" => Need::Majority,
            Value::String(text) if text == "two-thirds" => Need::TwoThirds,
            Value::String(text) if text == "all" => Need::All,
            value => match value.as_u64() {
                Some(0) => return fail(&need_at, PolicyFault::Zero),
                Some(number) => Need::Number(number),
                None => return expected(&need_at, "a number, `majority`, `two-thirds` or `all`", value),
            },
        };
        let of_at = format!("{at}.of");
        let (of, over) = self.of(required(object, at, "of")?, &of_at, depth)?;
        if of.is_empty() {
            return fail(&of_at, PolicyFault::Empty);
        }
        let (wanted, n) = (need.of(of.len()), of.len());
        let Some(need_n) = usize::try_from(wanted).ok().filter(|need| *need <= n) else {
            return fail(&need_at, PolicyFault::TooHigh { need: wanted, of: n });
        };
        let distinct = distinct(object, at)?;
        let distinct: Vec<_> = distinct.into_iter().collect();
        if need_n > 1 && !matches!(need, Need::All) {
            once(&of).map_err(|fault| PolicyError { at: of_at.clone(), fault })?;
        }
        if !distinct.is_empty() {
            self.check_distinct(&of, need_n, &distinct, at)?;
        }
        Ok(at_least(need_n, of, &distinct, over))
    }

    /// What a rule ranges over.
    fn of(&mut self, value: &'a Value, at: &str, depth: usize) -> Result<(Vec<Rule>, Over), PolicyError> {
        match value {
            Value::String(name) if name == EVERYONE => {
                let everyone = self.everyone();
                self.count(everyone.len(), at)?;
                Ok((everyone, Over::Everyone))
            }
            Value::String(name) => match self.group(name) {
                Some((group, members)) => {
                    self.count(members.len(), at)?;
                    Ok((members, Over::Group(group)))
                }
                None => fail(at, PolicyFault::NoGroup(name.chars().take(40).collect())),
            },
            Value::Array(elements) => {
                let mut of = Vec::new();
                for (n, element) in elements.iter().enumerate() {
                    of.push(self.rule(element, &format!("{at}[{n}]"), depth + 1)?);
                }
                Ok((of, Over::List))
            }
            other => expected(at, "a list, a group or `everyone`", other),
        }
    }

    fn check_distinct(
        &self,
        of: &[Rule],
        need: usize,
        distinct: &[Attribute],
        at: &str,
    ) -> Result<(), PolicyError> {
        let plain = |rule: &Rule| match rule {
            Rule::Voter(_) => true,
            Rule::AtLeast(rule) => rule.need == 1 && matches!(rule.over, Over::Group(_)),
        };
        if !of.iter().all(plain) {
            return fail(at, PolicyFault::Distinct);
        }
        let voters = of.iter().flat_map(Rule::leaves).collect::<BTreeSet<_>>().len();
        if voters < need {
            return fail(at, PolicyFault::TooHigh { need: need as u64, of: voters });
        }
        let operators = self.operators(of);
        if distinct.contains(&Attribute::Operator) && operators < need {
            return fail(at, PolicyFault::Operators { need, of: operators });
        }
        Ok(())
    }

    fn operators(&self, of: &[Rule]) -> usize {
        let voters = of.iter().flat_map(Rule::leaves);
        voters.map(|voter| &self.members[voter].operator).collect::<BTreeSet<_>>().len()
    }

    fn everyone(&self) -> Vec<Rule> {
        self.members.seats.names().map(|name| self.voter(name)).collect()
    }

    /// The rule that is one of the members.
    fn voter(&self, name: &Name) -> Rule {
        Rule::Voter(self.members.voter(name).expect("they have their seats from the same roster"))
    }

    /// A group and its members, if it is one.
    fn group(&self, name: &str) -> Option<(Name, Vec<Rule>)> {
        let group = Name::new(name).ok()?;
        let members: Vec<_> = self.roster.group(&group).map(|name| self.voter(name)).collect();
        (!members.is_empty()).then_some((group, members))
    }

    /// Takes note of so many more nodes.
    fn count(&mut self, nodes: usize, at: &str) -> Result<(), PolicyError> {
        self.nodes += nodes;
        if self.nodes > limits::RULE_NODES {
            return fail(at, PolicyFault::Large);
        }
        Ok(())
    }
}

fn at_least(need: usize, of: Vec<Rule>, distinct: &[Attribute], over: Over) -> Rule {
    let distinct = distinct.iter().copied().collect();
    Rule::AtLeast(Box::new(AtLeast { need, of, distinct, over, named: None }))
}

/// How many nodes a rule has.
fn rule_nodes(rule: &Rule) -> usize {
    match rule {
        Rule::Voter(_) => 1,
        Rule::AtLeast(rule) => 1 + rule.of.iter().map(rule_nodes).sum::<usize>(),
    }
}

/// In what those who agree must differ.
fn distinct(object: &Object, at: &str) -> Result<BTreeSet<Attribute>, PolicyError> {
    let at = format!("{at}.distinct");
    let Some(value) = object.get("distinct") else { return Ok(BTreeSet::new()) };
    let one = |value: &Value| {
        let named = Attribute::ALL.into_iter().find(|attribute| value.as_str() == Some(attribute.name()));
        named.map_or_else(|| expected(&at, "`operator`, `arch`, `os` or `engine`", value), Ok)
    };
    match value {
        Value::Array(values) if !values.is_empty() => values.iter().map(one).collect(),
        value => one(value).map(|attribute| BTreeSet::from([attribute])),
    }
}

/// That nobody is in two elements.
fn once(of: &[Rule]) -> Result<(), PolicyFault> {
    let mut seen: BTreeMap<&Voter, usize> = BTreeMap::new();
    for (n, rule) in of.iter().enumerate() {
        for voter in rule.voters() {
            if let Some(first) = seen.insert(voter, n) {
                let (first, second) = (first + 1, n + 1);
                return Err(PolicyFault::Twice { voter: voter.name().clone(), first, second });
            }
        }
    }
    Ok(())
}
