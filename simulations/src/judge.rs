//! What a node makes of what it keeps: the verdicts of `trust`, asked again when something changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use protocol::{evidence::Evidence, id::ActionId, key::AttesterKey, name::Name, output::Outputs};
use serde_json::json;
use trust::{
    ledger::{self, Record, Said, Voters, Why},
    policy,
    rebuild::Need,
    roster::{Attester, Roster},
    standing::Standings,
    verdict::{Outcome, Verdict, decide, judge},
};

use crate::{
    builds::{Execution, commitment, is_commitment},
    disk::Disk,
    notary::{Good, Sworn},
    scenario::{Attribute, Dissent, Policy, Witness},
    variant::Variant,
};

/// The moment at which everything is judged, in seconds since 1970: nothing here expires.
pub(crate) const NOW: u64 = 1_800_000_000;

/// Somebody in the roster.
#[derive(Debug, Clone)]
pub(crate) struct Named {
    pub(crate) name: Name,
    pub(crate) key: AttesterKey,
    pub(crate) operator: Name,
}

/// What all nodes of a world judge by: one roster, one policy.
#[derive(Debug)]
pub(crate) struct Rules {
    policy: policy::Policy,
    roster: Roster,
    voters: Arc<Voters>,
    package: Name,
    pub(crate) wants: Policy,
    pub(crate) named: BTreeMap<AttesterKey, Named>,
    variant: Option<Variant>,
}

/// What one node has made of what it keeps.
#[derive(Debug, Clone)]
pub(crate) struct Judge {
    rules: Arc<Rules>,
    standings: Standings,
    voters: Arc<Voters>,
    records: BTreeMap<ActionId, Vec<Arc<Sworn>>>,
    own: BTreeMap<ActionId, Arc<ledger::Execution>>,
    /// Who has committed to what, and whether that was before anybody had revealed anything.
    commitments: BTreeMap<ActionId, BTreeMap<AttesterKey, (Outputs, bool)>>,
    /// Actions about which somebody has.
    revealed: BTreeSet<ActionId>,
    /// What it accepts now.
    pub(crate) accepted: BTreeMap<ActionId, Outputs>,
}

impl Rules {
    pub(crate) fn new(wants: &Policy, named: Vec<Named>, variant: Option<Variant>) -> Arc<Self> {
        let mut roster = Roster::default();
        for who in &named {
            let attester = Attester { operator: Some(who.operator.clone()), ..Attester::new(who.key) };
            roster.add(who.name.clone(), attester).expect("names and keys differ");
        }
        let need = match variant {
            Some(Variant::ThresholdOffByOne) => wants.at_least.saturating_sub(1).max(1),
            _ => wants.at_least,
        };
        let distinct: Vec<_> = wants.distinct.iter().map(|attribute| attribute.word()).collect();
        let names: Vec<_> = named.iter().map(|who| who.name.as_str()).collect();
        let mut rule = json!({ "atLeast": need, "of": names });
        if !distinct.is_empty() {
            rule["distinct"] = json!(distinct);
        }
        let policy =
            json!({ "rule": rule, "dissent": wants.dissent.word(), "witness": wants.witness.word() });
        let policy = policy::Policy::compile(&policy, &roster, NOW).expect("a scenario's policy is one");
        let voters = Arc::new(Voters::new(&roster, None, &Standings::default(), NOW));
        let named = named.into_iter().map(|who| (who.key, who)).collect();
        let package = Name::new("package").expect("a name");
        Arc::new(Self { policy, roster, voters, package, wants: wants.clone(), named, variant })
    }
}

impl Judge {
    pub(crate) fn new(rules: &Arc<Rules>) -> Self {
        Self {
            rules: rules.clone(),
            standings: Standings::default(),
            voters: rules.voters.clone(),
            records: BTreeMap::new(),
            own: BTreeMap::new(),
            commitments: BTreeMap::new(),
            revealed: BTreeSet::new(),
            accepted: BTreeMap::new(),
        }
    }

    pub(crate) fn rules(&self) -> &Rules {
        &self.rules
    }

    /// What this node got when it executed an action itself.
    pub(crate) fn execution(&self, action: &ActionId) -> Option<&ledger::Execution> {
        self.own.get(action).map(|own| &**own)
    }

    /// The node executed an action itself.
    pub(crate) fn executed(&mut self, execution: &Execution, platform: protocol::statement::Platform) {
        let (outputs, transcript) = (execution.outputs.clone(), Some(execution.transcript()));
        let own = Arc::new(ledger::Execution { outputs, platform, transcript });
        self.own.insert(execution.action, own);
    }

    /// All but what it executed itself, and what came before what: its node starts anew.
    pub(crate) fn forget(&mut self) {
        let (own, revealed) = (std::mem::take(&mut self.own), std::mem::take(&mut self.revealed));
        let commitments = std::mem::take(&mut self.commitments);
        *self = Self { own, commitments, revealed, ..Self::new(&self.rules) };
    }

    /// Something new is kept: the actions about which another verdict is possible now.
    /// What was said before by a key that nobody knew to be somebody's is on `disk`.
    pub(crate) fn learn(&mut self, news: &[Good], disk: &Disk) -> BTreeSet<ActionId> {
        let mut about = BTreeSet::new();
        let mut changed = false;
        for good in news {
            match good {
                Good::Statement(sworn) => match &sworn.record {
                    Some(record) => about.extend(self.hear(record, sworn)),
                    None => {
                        self.standings.apply(&Evidence::Statement(sworn.signed.clone()));
                        changed = true;
                    }
                },
                Good::Proof(proof) if self.is_deaf_to(proof) => {}
                Good::Proof(proof) => {
                    self.standings.apply(proof);
                    changed = true;
                }
            }
        }
        if changed {
            let before = self.followed();
            self.voters = Arc::new(Voters::new(&self.rules.roster, None, &self.standings, NOW));
            for sworn in self.followed().difference(&before).flat_map(|key| disk.said(key)) {
                about.extend(sworn.record.as_ref().and_then(|record| self.hear(record, sworn)));
            }
            about.extend(self.records.keys());
        }
        about
    }

    /// Whose feeds its node is to follow.
    pub(crate) fn followed(&self) -> BTreeSet<AttesterKey> {
        self.voters.keys().map(|(key, _)| *key).collect()
    }

    /// Takes note of a statement of somebody in the roster: the action that it is about.
    fn hear(&mut self, record: &Record, sworn: &Arc<Sworn>) -> Option<ActionId> {
        self.voters.name_of(&record.attester)?;
        if self.is_vote(record) {
            self.records.entry(record.action).or_default().push(sworn.clone());
        }
        Some(record.action)
    }

    fn is_deaf_to(&self, proof: &Evidence) -> bool {
        match proof {
            Evidence::Equivocation(_) => self.rules.variant == Some(Variant::EquivocatorCounts),
            Evidence::Revocation(_) => self.rules.variant == Some(Variant::RevokedCounts),
            Evidence::Statement(_) => false,
        }
    }

    /// Whether a statement is a vote; if it is a commitment, or what comes of one, that is noted.
    fn is_vote(&mut self, record: &Record) -> bool {
        let (Record { action, attester, .. }, Said::Built { outputs, .. }) = (record, &record.said) else {
            return true;
        };
        if self.rules.wants.reveal.is_none() {
            return true;
        }
        if is_commitment(outputs) {
            let in_time = !self.revealed.contains(action);
            let all = self.commitments.entry(*action).or_default();
            all.entry(*attester).or_insert_with(|| (outputs.clone(), in_time));
            return false;
        }
        self.revealed.insert(*action);
        let committed = self.commitments.get(action).and_then(|all| all.get(attester));
        committed.is_some_and(|(to, in_time)| *in_time && *to == commitment(outputs, attester))
    }

    /// How many have committed to what an action gives.
    pub(crate) fn committed(&self, action: &ActionId) -> usize {
        self.commitments.get(action).map_or(0, BTreeMap::len)
    }

    /// Whose votes about an action count.
    pub(crate) fn voters(&self, action: &ActionId) -> BTreeSet<AttesterKey> {
        let sides = self.verdict(action).reasoning.sides;
        let votes = sides.into_iter().flat_map(|side| side.votes);
        votes.filter(|vote| vote.counts).filter_map(|vote| vote.key).collect()
    }

    /// What is decided about an action.
    pub(crate) fn decide(&self, action: &ActionId) -> Outcome {
        decide(&self.claims(action), &self.rules.policy.for_package(&self.rules.package))
    }

    /// The same, with the reasons.
    pub(crate) fn verdict(&self, action: &ActionId) -> Verdict {
        judge(&self.claims(action), &self.rules.policy.for_package(&self.rules.package))
    }

    /// What a rebuilder with the key `own` is to do about an action that these others wish: nothing,
    /// if it has spoken.
    pub(crate) fn need(
        &self,
        own: &AttesterKey,
        action: &ActionId,
        wishers: Option<&BTreeSet<AttesterKey>>,
    ) -> Option<Need> {
        let records = self.records.get(action).into_iter().flatten();
        let committed = self.commitments.get(action).into_iter().flat_map(BTreeMap::keys).copied();
        let spoken = records.map(|sworn| sworn.signed.statement().attester).chain(committed).collect();
        Need::of(own, action, &self.claims(action), &spoken, wishers, self.rules.named.keys().copied())
    }

    /// Who copied what he says of an action, as far as this node can tell.
    pub(crate) fn copycats(&self, action: &ActionId) -> Vec<AttesterKey> {
        let uncounted = self.claims(action).uncounted;
        let copied = uncounted.into_iter().filter(|said| said.why == Why::WrongWitness);
        copied.filter_map(|said| said.key).collect()
    }

    fn claims(&self, action: &ActionId) -> ledger::Claims {
        let records =
            self.records.get(action).into_iter().flatten().filter_map(|sworn| sworn.record.as_ref());
        self.voters.claims(action, None, records, self.execution(action))
    }
}

impl Attribute {
    fn word(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Arch => "arch",
        }
    }
}

impl Dissent {
    fn word(self) -> &'static str {
        match self {
            Self::Hold => "hold",
            Self::Alarm => "alarm",
        }
    }
}

impl Witness {
    fn word(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::Present => "present",
            Self::Verified => "verified",
        }
    }
}
