//! People, feeds and cases in a few words.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Mutex,
};

use proptest::test_runner::Config as ProptestConfig;
use protocol::{
    evidence::{Equivocation, Evidence, Revocation},
    feed::Head,
    id::{ActionId, NarHash},
    key::{AttesterKey, Context, Signature, SigningKey},
    name::Name,
    output::{Output, Outputs},
    statement::{Attestation, Body, Ending, Failure, Platform, Signed, Statement, succession},
    witness::Witness,
};
use serde_json::Value;
use trust::{
    ledger::{Checked, Claims, Execution, Record, Voters},
    policy::Policy,
    roster::{Attester, Roster},
    standing::Standings,
    verdict::{Outcome, Verdict, judge},
};

/// The moment at which all cases are judged.
pub(crate) const NOW: u64 = 1_800_000_000;

/// How many cases a property is tried with, unless `PROPTEST_CASES` says otherwise.
pub(crate) fn cases(cases: u32) -> ProptestConfig {
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => ProptestConfig::default(),
        None => ProptestConfig { cases, ..ProptestConfig::default() },
    }
}

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// The key of a person; also of people who are in no roster.
pub(crate) fn signing_key(who: &str) -> SigningKey {
    let mut seed = [0; 32];
    seed[..who.len()].copy_from_slice(who.as_bytes());
    SigningKey::from_bytes(&seed)
}

/// Their public half, which is made once: the oracle asks for it a million times.
pub(crate) fn key(who: &str) -> AttesterKey {
    static KEYS: Mutex<BTreeMap<String, AttesterKey>> = Mutex::new(BTreeMap::new());
    let mut keys = KEYS.lock().unwrap();
    *keys.entry(who.to_owned()).or_insert_with(|| AttesterKey::of(&signing_key(who)))
}

pub(crate) fn action(n: u8) -> ActionId {
    ActionId::from_bytes([n; 32])
}

/// The outputs that a digit stands for.
pub(crate) fn outputs(digit: char) -> Outputs {
    Outputs::from([(Name::out(), Output { nar: NarHash::from_bytes([digit as u8; 32]), size: 96 })])
}

pub(crate) fn digit(outputs: &Outputs) -> char {
    outputs[&Name::out()].nar.as_bytes()[0] as char
}

/// `arch/os/engine`, of which what is left out is like everybody else's.
pub(crate) fn platform(text: &str) -> Platform {
    let mut parts = text.split('/').filter(|part| !part.is_empty());
    let mut next = |default| name(parts.next().unwrap_or(default));
    Platform { arch: next("x86_64"), os: next("linux"), engine: next("wasmtime-48.0.8") }
}

/// `alice friends colleagues op=acme until=5, bob friends`.
pub(crate) fn roster(text: &str) -> Roster {
    let mut roster = Roster::default();
    for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        let mut words = entry.split_whitespace();
        let who = words.next().unwrap();
        let mut attester = Attester::new(key(who));
        for word in words {
            match word.split_once('=') {
                Some(("op", operator)) => attester.operator = Some(name(operator)),
                Some(("until", until)) => attester.until = Some(until.parse().unwrap()),
                Some(other) => panic!("{other:?}"),
                None => drop(attester.groups.insert(name(word))),
            }
        }
        roster.add(name(who), attester).unwrap();
    }
    roster
}

/// What people say of action 1: `alice:1@aarch64/linux/v8` got the outputs `1` there; with `+`
/// behind the digit there is a witness.
pub(crate) fn records(text: &str) -> Vec<Record> {
    let said = |word: &str| {
        let (word, at) = word.split_once('@').unwrap_or((word, ""));
        let (who, what) = word.split_once(':').unwrap();
        let witness = what.ends_with('+').then(|| Witness::from_bytes([7; 32]));
        let outputs = outputs(what.chars().next().unwrap());
        let said = trust::ledger::Said::Built { outputs, witness, platform: platform(at) };
        Record { action: action(1), attester: key(who), seq: 0, said }
    };
    text.split_whitespace().map(said).collect()
}

/// An attester that signs a feed.
pub(crate) struct Feed {
    key: SigningKey,
    head: Head,
}

impl Feed {
    pub(crate) fn of(who: &str) -> Self {
        Self { key: signing_key(who), head: Head::empty(key(who)) }
    }

    pub(crate) fn say(&mut self, body: Body) -> Signed {
        let statement = Statement {
            attester: self.head.attester(),
            seq: self.head.len(),
            prev: self.head.last(),
            time: 0,
            body,
        };
        let signed = statement.sign(&self.key).unwrap();
        self.head = self.head.follow(&signed).unwrap();
        signed
    }

    /// "I executed action `n` and got the outputs `digit`."
    pub(crate) fn built(&mut self, n: u8, digit: char) -> Signed {
        let (outputs, platform) = (outputs(digit), platform(""));
        self.say(Body::Built(Attestation { action: action(n), outputs, witness: None, platform }))
    }

    pub(crate) fn failed(&mut self, n: u8) -> Signed {
        let (step, ending, platform) = (1, Ending::Trap, platform(""));
        self.say(Body::Failed(Failure { action: action(n), step, ending, platform }))
    }

    pub(crate) fn retract(&mut self, first: u64, last: u64) -> Signed {
        self.say(Body::Retract { first, last })
    }

    pub(crate) fn succeed(&mut self, who: &str) -> Signed {
        let both = succession(&self.head.attester(), &key(who));
        let consent = Signature::sign(&signing_key(who), Context::Succession, &both);
        self.say(Body::Succeed { successor: key(who), consent })
    }

    pub(crate) fn revoke(&self, since: u64) -> Evidence {
        Evidence::Revocation(Revocation::sign(&self.key, since))
    }
}

pub(crate) fn equivocation(one: &Signed, other: &Signed) -> Evidence {
    Evidence::Equivocation(Equivocation::new(one.clone(), other.clone()).unwrap())
}

pub(crate) fn statement(signed: &Signed) -> Evidence {
    Evidence::Statement(signed.clone())
}

/// A case to be judged.
#[derive(Default)]
pub(crate) struct Case {
    pub(crate) roster: Roster,
    pub(crate) policy: Value,
    pub(crate) records: Vec<Record>,
    pub(crate) evidence: Vec<Evidence>,
    pub(crate) own: Option<Execution>,
    pub(crate) checked: Checked,
}

impl Case {
    pub(crate) fn new(people: &str, policy: Value, says: &str) -> Self {
        Self { roster: roster(people), policy, records: records(says), ..Self::default() }
    }

    /// A case of signed statements: those that speak of an action are records, all are evidence.
    pub(crate) fn signed<'s>(
        people: &str,
        policy: Value,
        said: impl IntoIterator<Item = &'s Signed>,
    ) -> Self {
        let mut case = Self::new(people, policy, "");
        for signed in said {
            case.records.extend(Record::of(signed));
            case.evidence.push(statement(signed));
        }
        case
    }

    pub(crate) fn with(mut self, evidence: Evidence) -> Self {
        self.evidence.push(evidence);
        self
    }

    /// This machine built it, too.
    pub(crate) fn built_here(mut self, digit: char) -> Self {
        self.own = Some(Execution { outputs: outputs(digit), platform: platform(""), transcript: None });
        self
    }

    /// Witnesses were checked of other actions.
    pub(crate) fn knowing(mut self, checked: Checked) -> Self {
        self.checked = checked;
        self
    }

    pub(crate) fn voters(&self) -> Voters {
        let standings: Standings = self.evidence.iter().collect();
        Voters::new(&self.roster, Some(key("self")), &standings, NOW).knowing(self.checked.clone())
    }

    pub(crate) fn claims(&self) -> Claims {
        let names = BTreeSet::from([Name::out()]);
        self.voters().claims(&action(1), Some(&names), &self.records, self.own.as_ref())
    }

    pub(crate) fn judge(&self) -> Verdict {
        let policy = Policy::compile(&self.policy, &self.roster, NOW).unwrap();
        judge(&self.claims(), &policy.for_package(&name("lua")))
    }

    /// `accepted 1`, `pending`, `disputed` or `untrusted`.
    pub(crate) fn outcome(&self) -> String {
        short(&self.judge())
    }

    /// Who votes for what, as `alice:1 bob:2`.
    pub(crate) fn votes(&self) -> String {
        let claims = self.claims();
        let votes = claims.votes().map(|(who, claim)| format!("{who}:{}", digit(&claim.outputs)));
        votes.collect::<Vec<_>>().join(" ")
    }

    /// Why what was said does not count, each reason once, by voter, in the words of JSON.
    pub(crate) fn reasons(&self) -> BTreeMap<String, BTreeSet<String>> {
        let mut reasons: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for uncounted in self.claims().uncounted {
            let why = serde_json::to_string(&uncounted.why).unwrap();
            reasons.entry(uncounted.voter.to_string()).or_default().insert(why);
        }
        reasons
    }
}

pub(crate) fn short(verdict: &Verdict) -> String {
    match &verdict.outcome {
        Outcome::Accepted { outputs } => format!("accepted {}", digit(outputs)),
        Outcome::Pending => "pending".into(),
        Outcome::Disputed => "disputed".into(),
        Outcome::Untrusted => "untrusted".into(),
    }
}

/// Judges `says` by `policy` with the roster `people`.
#[track_caller]
pub(crate) fn check(people: &str, policy: Value, says: &str, expected: &str) {
    let case = Case::new(people, policy, says);
    assert_eq!(case.outcome(), expected, "{}", case.judge());
}
