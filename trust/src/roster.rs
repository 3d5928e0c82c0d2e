//! The roster (SPEC §13): who counts, by which name. The file is `trust.json`.
//!
//! ```text
//! trust.json ── parse ──▶ Roster ──▶ policy.rs (whom rules may name), ledger.rs (whose votes they are)
//!                └──────── to_json ◀── add, remove, regroup
//! ```
//!
//! A name is the owner's own word for a key, so nothing that arrives from outside can make or
//! change one. This machine is `self` and is not in the file.
//!
//! Absent on purpose: weights (groups and nested thresholds say the same, checkably), and trust in
//! whomever somebody trusted trusts.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use protocol::{
    key::{AttesterKey, KeyError},
    limits::LATEST_TIME,
    name::{Name, NameError},
};
use serde::{Deserialize, Deserializer, Serialize, de};

use crate::{limits, policy::Preset, suggest};

/// The version of the file.
const VERSION: u64 = 1;

/// The name of this node's own key and builds.
pub const SELF: &str = "self";

/// All of the roster, and `self`: what a rule may range over.
pub const EVERYONE: &str = "everyone";

/// Whether policies mean something by this name, so that nobody and no group can have it.
pub fn is_reserved(name: &str) -> bool {
    name == SELF || name == EVERYONE || Preset::named(name).is_some()
}

/// The name of this node's own key and builds.
pub(crate) fn own() -> Name {
    Name::new(SELF).expect("a name")
}

/// What the owner knows of an attester.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Attester {
    /// The key, or the first of those that succeeded each other.
    pub key: AttesterKey,
    /// The groups, at most [`limits::GROUPS`].
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub groups: BTreeSet<Name>,
    /// Who runs it; the attester's own name if not given. Keys of one operator are one party.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operator: Option<Name>,
    /// From when on it does not vote any more, in seconds since 1970. It still counts among
    /// those of whom a rule wants so many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
    /// For people, at most [`limits::NOTE_BYTES`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Attester {
    /// An attester of whom nothing but the key is known.
    pub fn new(key: AttesterKey) -> Self {
        Self { key, groups: BTreeSet::new(), operator: None, until: None, note: None }
    }

    /// Whether it does not vote any more at `now`, in seconds since 1970.
    pub fn expired(&self, now: u64) -> bool {
        self.until.is_some_and(|until| until <= now)
    }
}

/// Who counts. Every rule of SPEC §13 holds of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Roster(BTreeMap<Name, Attester>);

/// Why a roster was refused, or a change of one.
#[derive(Debug, thiserror::Error)]
pub enum RosterError {
    /// More than [`limits::ROSTER_BYTES`].
    #[error("{found} bytes, but at most {limit} are allowed", limit = limits::ROSTER_BYTES)]
    TooLong {
        /// Bytes given.
        found: usize,
    },
    /// Not JSON of this shape.
    #[error("not a roster")]
    Json(#[source] serde_json::Error),
    /// A file of a later program.
    #[error("version {found} of the file, but this program reads version {VERSION}")]
    Version {
        /// What the file says.
        found: u64,
    },
    /// Too many attesters.
    #[error("{found} attesters, but at most {limit} are allowed", limit = limits::ATTESTERS)]
    TooMany {
        /// How many there are.
        found: usize,
    },
    /// A name that is none.
    #[error("not a name")]
    Name(#[source] NameError),
    /// A name that policies mean something else by.
    #[error("`{name}` means something else in policies: choose another name")]
    Reserved {
        /// The name.
        name: Name,
    },
    /// The text of a key is none, or a weak one.
    #[error("the key of `{name}`")]
    Key {
        /// Whose.
        name: Name,
        /// Why it is no key.
        #[source]
        source: KeyError,
    },
    /// A key for which anybody can sign.
    #[error("the key of `{name}` is weak: anybody can make signatures that it verifies")]
    Weak {
        /// Whose.
        name: Name,
    },
    /// One key under two names would have two votes.
    #[error("`{first}` and `{second}` have one key, {key}")]
    KeyTwice {
        /// The key.
        key: AttesterKey,
        /// Who has it.
        first: Name,
        /// Who would have it, too.
        second: Name,
    },
    /// This machine's own key is `self`, and would have two votes.
    #[error("`{name}` has this machine's own key, which counts as `self`: remove `{name}`")]
    Own {
        /// Who has it.
        name: Name,
    },
    /// Two attesters of one name.
    #[error("`{name}` is there already, with the key {first}; the other key is {second}")]
    NameTwice {
        /// The name.
        name: Name,
        /// The key that it stands for.
        first: AttesterKey,
        /// The key that it would stand for.
        second: AttesterKey,
    },
    /// An attester and a group of one name.
    #[error("`{name}` is an attester, and a group that `{member}` is in: one of them needs another name")]
    NameIsGroup {
        /// The name.
        name: Name,
        /// Who is in the group.
        member: Name,
    },
    /// Too many groups.
    #[error("`{name}` is in {found} groups; at most {limit} are allowed", limit = limits::GROUPS)]
    TooManyGroups {
        /// Whose.
        name: Name,
        /// How many there are.
        found: usize,
    },
    /// A group twice in one list.
    #[error("`{name}` is in the group `{group}` twice")]
    GroupTwice {
        /// Whose.
        name: Name,
        /// The group.
        group: Name,
    },
    /// A time that cannot be shown.
    #[error("`{name}` is trusted until {until}, which is behind the year 9999 ({LATEST_TIME})")]
    Until {
        /// Whose.
        name: Name,
        /// Seconds since 1970.
        until: u64,
    },
    /// A note that is too long.
    #[error("the note about `{name}` has {found} bytes; at most {limit} are allowed", limit = limits::NOTE_BYTES)]
    NoteTooLong {
        /// Whose.
        name: Name,
        /// Bytes given.
        found: usize,
    },
    /// A note that would do something to a terminal.
    #[error("the note about `{name}` has the control character {character:?}")]
    NoteControl {
        /// Whose.
        name: Name,
        /// The first such character.
        character: char,
    },
    /// Nobody has the name.
    #[error("there is no attester `{name}`{}", did_you_mean(.meant))]
    Unknown {
        /// The name.
        name: Name,
        /// What may have been meant.
        meant: Option<String>,
    },
}

/// The end of a message about a name that is not known.
pub(crate) fn did_you_mean(meant: &Option<String>) -> String {
    meant.as_ref().map_or_else(String::new, |meant| format!("; did you mean `{meant}`?"))
}

/// The file as it is read, before it is checked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u64,
    #[serde(default)]
    attesters: Pairs,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    key: String,
    #[serde(default)]
    groups: Vec<String>,
    operator: Option<String>,
    until: Option<u64>,
    note: Option<String>,
}

/// An object whose fields are kept as they come: a map would keep the last of two equal names.
#[derive(Default)]
struct Pairs(Vec<(String, Entry)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Pairs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of attesters by name")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }

        deserializer.deserialize_map(Visitor)
    }
}

impl Roster {
    /// Reads `trust.json`.
    ///
    /// # Errors
    ///
    /// [`RosterError`], the first rule of SPEC §13 that the file breaks, in the order of the file.
    pub fn parse(json: &str) -> Result<Self, RosterError> {
        if json.len() > limits::ROSTER_BYTES {
            return Err(RosterError::TooLong { found: json.len() });
        }
        let file: File = serde_json::from_str(json).map_err(RosterError::Json)?;
        if file.version != VERSION {
            return Err(RosterError::Version { found: file.version });
        }
        let mut roster = Self::default();
        for (name, entry) in file.attesters.0 {
            let name = Name::new(name).map_err(RosterError::Name)?;
            roster.add(name.clone(), entry.check(&name)?)?;
        }
        Ok(roster)
    }

    /// The file, the same for equal rosters, with a newline at its end.
    pub fn to_json(&self) -> String {
        #[derive(Serialize)]
        struct File<'a> {
            version: u64,
            attesters: &'a BTreeMap<Name, Attester>,
        }
        let file = File { version: VERSION, attesters: &self.0 };
        let text = serde_json::to_string_pretty(&file).expect("names are strings, and nothing else can fail");
        text + "\n"
    }

    /// Adds an attester. Nothing is ever replaced: remove it first.
    ///
    /// # Errors
    ///
    /// [`RosterError`]; the roster is as it was.
    pub fn add(&mut self, name: Name, attester: Attester) -> Result<(), RosterError> {
        if is_reserved(name.as_str()) {
            return Err(RosterError::Reserved { name });
        }
        if let Some(first) = self.0.get(&name) {
            return Err(RosterError::NameTwice { name, first: first.key, second: attester.key });
        }
        if let Some(first) = self.name_of(&attester.key) {
            return Err(RosterError::KeyTwice { key: attester.key, first: first.clone(), second: name });
        }
        if protocol::key::Verifier::new(attester.key).is_err() {
            return Err(RosterError::Weak { name });
        }
        let member = self.group(&name).next().cloned();
        if let Some(member) = member {
            return Err(RosterError::NameIsGroup { name, member });
        }
        self.check_groups(&name, &attester.groups)?;
        if let Some(until) = attester.until.filter(|until| *until > LATEST_TIME) {
            return Err(RosterError::Until { name, until });
        }
        let note = attester.note.as_deref().unwrap_or_default();
        if note.len() > limits::NOTE_BYTES {
            return Err(RosterError::NoteTooLong { name, found: note.len() });
        }
        if let Some(character) = note.chars().find(|c| c.is_control()) {
            return Err(RosterError::NoteControl { name, character });
        }
        if self.0.len() == limits::ATTESTERS {
            return Err(RosterError::TooMany { found: limits::ATTESTERS + 1 });
        }
        self.0.insert(name, attester);
        Ok(())
    }

    /// Removes an attester, and returns what was known of it.
    ///
    /// # Errors
    ///
    /// [`RosterError::Unknown`].
    pub fn remove(&mut self, name: &Name) -> Result<Attester, RosterError> {
        self.0.remove(name).ok_or_else(|| self.unknown(name))
    }

    /// Puts an attester into these groups and no others.
    ///
    /// # Errors
    ///
    /// [`RosterError`]; the roster is as it was.
    pub fn regroup(&mut self, name: &Name, groups: BTreeSet<Name>) -> Result<(), RosterError> {
        self.check_groups(name, &groups)?;
        match self.0.get_mut(name) {
            Some(attester) => {
                attester.groups = groups;
                Ok(())
            }
            None => Err(self.unknown(name)),
        }
    }

    fn check_groups(&self, name: &Name, groups: &BTreeSet<Name>) -> Result<(), RosterError> {
        if groups.len() > limits::GROUPS {
            return Err(RosterError::TooManyGroups { name: name.clone(), found: groups.len() });
        }
        for group in groups {
            if is_reserved(group.as_str()) {
                return Err(RosterError::Reserved { name: group.clone() });
            }
            if group == name || self.0.contains_key(group) {
                return Err(RosterError::NameIsGroup { name: group.clone(), member: name.clone() });
            }
        }
        Ok(())
    }

    fn unknown(&self, name: &Name) -> RosterError {
        let meant = suggest::nearest(name.as_str(), self.0.keys().map(Name::as_str));
        RosterError::Unknown { name: name.clone(), meant }
    }

    /// That none of the attesters is this node itself.
    ///
    /// # Errors
    ///
    /// [`RosterError::Own`].
    pub fn check_own(&self, key: &AttesterKey) -> Result<(), RosterError> {
        match self.name_of(key) {
            Some(name) => Err(RosterError::Own { name: name.clone() }),
            None => Ok(()),
        }
    }

    /// The attester of that name.
    pub fn get(&self, name: &Name) -> Option<&Attester> {
        self.0.get(name)
    }

    /// The name of that key.
    pub fn name_of(&self, key: &AttesterKey) -> Option<&Name> {
        self.0.iter().find_map(|(name, attester)| (attester.key == *key).then_some(name))
    }

    /// All attesters, in order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&Name, &Attester)> {
        self.0.iter()
    }

    /// The members of a group, in order of their names; none if there is no such group.
    pub fn group(&self, group: &Name) -> impl Iterator<Item = &Name> {
        let members = self.0.iter().filter(move |(_, attester)| attester.groups.contains(group));
        members.map(|(name, _)| name)
    }

    /// All groups.
    pub fn groups(&self) -> BTreeSet<&Name> {
        self.0.values().flat_map(|attester| &attester.groups).collect()
    }

    /// How many attesters there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Entry {
    /// What `name`'s entry says, as far as it can be seen without the others.
    fn check(self, name: &Name) -> Result<Attester, RosterError> {
        let key = self.key.parse().map_err(|source| RosterError::Key { name: name.clone(), source })?;
        let mut groups = BTreeSet::new();
        for group in self.groups {
            let group = Name::new(group).map_err(RosterError::Name)?;
            if !groups.insert(group.clone()) {
                return Err(RosterError::GroupTwice { name: name.clone(), group });
            }
        }
        let operator = self.operator.map(Name::new).transpose().map_err(RosterError::Name)?;
        Ok(Attester { key, groups, operator, until: self.until, note: self.note })
    }
}

#[cfg(test)]
mod tests {
    use protocol::key::SigningKey;

    use super::*;

    fn key(n: u8) -> AttesterKey {
        AttesterKey::of(&SigningKey::from_bytes(&[n; 32]))
    }

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn groups(text: &str) -> BTreeSet<Name> {
        text.split_whitespace().map(name).collect()
    }

    /// `a` with key 1 in the group `g`, `b` with key 2.
    fn roster() -> Roster {
        let mut roster = Roster::default();
        roster.add(name("a"), Attester { groups: groups("g"), ..Attester::new(key(1)) }).unwrap();
        roster.add(name("b"), Attester::new(key(2))).unwrap();
        roster
    }

    #[test]
    fn written_and_read() {
        let mut all = Attester { groups: groups("h g"), ..Attester::new(key(3)) };
        (all.operator, all.until, all.note) = (Some(name("op")), Some(LATEST_TIME), Some("é".into()));
        let mut roster = roster();
        roster.add(name("c"), all).unwrap();
        let text = roster.to_json();
        assert_eq!(Roster::parse(&text).unwrap(), roster);
        assert_eq!(Roster::parse(&text).unwrap().to_json(), text);
        assert!(text.ends_with("}\n") && text.starts_with("{\n  \"version\": 1,\n"));
        assert_eq!(Roster::parse("{\"version\":1}").unwrap(), Roster::default());
        assert_eq!((roster.len(), roster.is_empty(), Roster::default().is_empty()), (3, false, true));
        assert_eq!(roster.groups(), BTreeSet::from([&name("g"), &name("h")]));
        assert_eq!(roster.group(&name("g")).map(Name::as_str).collect::<Vec<_>>(), ["a", "c"]);
    }

    /// SPEC §13: a name never replaces another, and a key has one name.
    #[test]
    fn nothing_is_replaced() {
        let mut roster = roster();
        let before = roster.clone();
        let error = roster.add(name("a"), Attester::new(key(9))).unwrap_err();
        assert!(
            matches!(error, RosterError::NameTwice { first, second, .. } if (first, second) == (key(1), key(9)))
        );
        let error = roster.add(name("z"), Attester::new(key(1))).unwrap_err();
        assert!(error.to_string().starts_with("`a` and `z` have one key, key:"), "{error}");
        assert_eq!(roster, before);
    }

    #[test]
    fn names_and_groups_are_apart() {
        let mut roster = roster();
        let error = roster.add(name("g"), Attester::new(key(9))).unwrap_err();
        assert!(
            matches!(&error, RosterError::NameIsGroup { name, member } if name.as_str() == "g" && member.as_str() == "a")
        );
        let with = |text| Attester { groups: groups(text), ..Attester::new(key(9)) };
        for bad in ["z", "b"] {
            let error = roster.add(name("z"), with(bad)).unwrap_err();
            assert!(matches!(error, RosterError::NameIsGroup { .. }), "{bad}");
        }
        for reserved in ["self", "everyone", "majority", "local-only"] {
            assert!(matches!(roster.add(name("z"), with(reserved)), Err(RosterError::Reserved { .. })));
            assert!(matches!(roster.add(name(reserved), with("g")), Err(RosterError::Reserved { .. })));
            assert!(matches!(
                roster.regroup(&name("a"), groups(reserved)),
                Err(RosterError::Reserved { .. })
            ));
        }
    }

    #[test]
    fn members_come_and_go() {
        let mut roster = roster();
        roster.regroup(&name("a"), groups("h")).unwrap();
        assert_eq!(roster.get(&name("a")).unwrap().groups, groups("h"));
        let error = roster.regroup(&name("aa"), groups("h")).unwrap_err();
        assert_eq!(error.to_string(), "there is no attester `aa`; did you mean `a`?");
        assert_eq!(roster.remove(&name("a")).unwrap().key, key(1));
        assert!(matches!(roster.remove(&name("a")), Err(RosterError::Unknown { .. })));
        assert_eq!(roster.name_of(&key(1)), None);
        roster.check_own(&key(1)).unwrap();
        assert!(matches!(roster.check_own(&key(2)), Err(RosterError::Own { name }) if name.as_str() == "b"));
    }

    #[test]
    fn limits_hold() {
        let mut roster = Roster::default();
        let mut with = Attester::new(key(1));
        with.groups = (0..=limits::GROUPS).map(|n| name(&format!("g{n}"))).collect();
        let error = roster.add(name("a"), with.clone()).unwrap_err();
        assert!(matches!(error, RosterError::TooManyGroups { found, .. } if found == limits::GROUPS + 1));
        with.groups.pop_first();
        with.until = Some(LATEST_TIME + 1);
        assert!(matches!(roster.add(name("a"), with.clone()), Err(RosterError::Until { .. })));
        with.until = Some(LATEST_TIME);
        with.note = Some("x".repeat(limits::NOTE_BYTES + 1));
        assert!(matches!(roster.add(name("a"), with.clone()), Err(RosterError::NoteTooLong { .. })));
        with.note = Some("\u{1b}[2J".into());
        assert!(matches!(roster.add(name("a"), with.clone()), Err(RosterError::NoteControl { .. })));
        with.note = Some("x".repeat(limits::NOTE_BYTES));
        roster.add(name("a"), with).unwrap();
        assert!(matches!(
            roster.add(name("w"), Attester::new(AttesterKey::from_bytes([0; 32]))),
            Err(RosterError::Weak { .. })
        ));
        for n in 1..limits::ATTESTERS {
            let mut seed = [7; 32];
            seed[..8].copy_from_slice(&n.to_le_bytes());
            let key = AttesterKey::of(&SigningKey::from_bytes(&seed));
            roster.add(name(&format!("m{n}")), Attester::new(key)).unwrap();
        }
        assert!(matches!(roster.add(name("z"), Attester::new(key(9))), Err(RosterError::TooMany { .. })));
        let fits = Roster::parse(&roster.to_json()).unwrap();
        assert_eq!(fits.len(), limits::ATTESTERS);
        let long = " ".repeat(limits::ROSTER_BYTES + 1);
        assert!(matches!(Roster::parse(&long), Err(RosterError::TooLong { .. })));
        assert!(matches!(Roster::parse(&long[1..]), Err(RosterError::Json(_))));
    }

    #[test]
    fn expiry_is_a_moment() {
        let mut attester = Attester::new(key(1));
        assert!(!attester.expired(u64::MAX));
        attester.until = Some(10);
        assert!(!attester.expired(9) && attester.expired(10) && attester.expired(11));
    }
}
