//! Who builds what, and what is said of it: the truth, a lie, or both.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use protocol::{
    evidence::{Revocation, UnverifiedEvidence},
    feed::Head,
    id::{ActionId, NarHash},
    key::{AttesterKey, Context, Signature, SigningKey},
    name::Name,
    output::Outputs,
    statement::{Attestation, Body, Platform, Signed, Statement, succession},
    witness::Witness,
};
use trust::peer::Input;

use super::{Event, World, Write, short};
use crate::{
    builds::{Execution, archive, commitment, is_commitment, outputs},
    faults::Deed,
    judge::{NOW, Named},
    node::Rumour,
    notary::{Good, Sworn},
    scenario::{BuilderKind, Builders, Scenario, x86_64},
    variant::Variant,
};

/// What those who collude add to an action.
pub(super) const LIE: &str = " and a lie";

/// Milliseconds after which a builder tries again that could not build.
const AGAIN: u64 = 3_000;

/// Milliseconds after which it is revealed what enough have committed to, so that the last of these
/// commitments is everywhere before.
const SETTLED: u64 = 5_000;

/// Somebody who builds: its node has the same number.
#[derive(Debug)]
pub(super) struct Builder {
    pub(super) name: Name,
    pub(super) attester: AttesterKey,
    /// The keys that this one succeeded.
    before: Vec<AttesterKey>,
    pub(super) kind: BuilderKind,
    operator: Name,
    platform: Platform,
    pub(super) key: SigningKey,
    /// Whether its last statement is on its way to the disk, and what it says.
    pub(super) writing: bool,
    job: Job,
    /// From which place on a thief signs.
    stolen: Option<u64>,
    /// What it has committed to and not revealed yet.
    unsaid: BTreeMap<ActionId, Attestation>,
    /// What it has copied, or is about to.
    copied: BTreeSet<ActionId>,
    /// What it says to the other half, and who is in that half, of those that it met.
    pub(super) branch: Vec<Arc<Sworn>>,
    halves: BTreeMap<usize, bool>,
}

/// What a builder does that ends with a statement.
#[derive(Debug, Clone, Copy)]
enum Job {
    /// It executes an action, by its place.
    Build { place: usize },
    /// It goes on under another key.
    Succeed,
}

/// The builders of a scenario.
pub(super) fn all(scenario: &Scenario) -> Vec<Builder> {
    let rebuilders =
        Builders { count: scenario.rebuilders, kind: BuilderKind::Rebuild, operator: None, arch: x86_64() };
    let kinds = scenario.builder.iter().chain([&rebuilders]);
    let kinds = kinds.flat_map(|builders| std::iter::repeat_n(builders, builders.count));
    let builder = |(n, builders): (usize, &Builders)| {
        let name = word(&match builders.kind {
            BuilderKind::Rebuild => format!("rebuilder-{n}"),
            _ => format!("builder-{n}"),
        });
        let key = key_of(name.as_str());
        Builder {
            attester: AttesterKey::of(&key),
            before: Vec::new(),
            kind: builders.kind,
            operator: builders.operator.as_deref().map_or(name.clone(), word),
            platform: platform(&builders.arch),
            key,
            writing: false,
            job: Job::Build { place: 0 },
            stolen: None,
            unsaid: BTreeMap::new(),
            copied: BTreeSet::new(),
            branch: Vec::new(),
            halves: BTreeMap::new(),
            name,
        }
    };
    kinds.enumerate().map(builder).collect()
}

fn key_of(name: &str) -> SigningKey {
    SigningKey::from_bytes(NarHash::of(name.as_bytes()).as_bytes())
}

/// The key under which a builder goes on.
fn successor(name: &Name) -> SigningKey {
    key_of(&format!("{name}, again"))
}

/// Scenarios are refused whose operators and architectures have no names.
fn word(text: &str) -> Name {
    Name::new(text).expect("a name")
}

fn platform(arch: &str) -> Platform {
    Platform { engine: word("engine"), arch: word(arch), os: word("linux") }
}

impl Builder {
    pub(super) fn named(&self) -> Named {
        Named { name: self.name.clone(), key: self.attester, operator: self.operator.clone() }
    }

    /// All keys by which it speaks, or spoke.
    pub(super) fn keys(&self) -> impl Iterator<Item = &AttesterKey> {
        self.before.iter().chain([&self.attester])
    }

    /// Whether an equivocator lies to a node: to every second that it meets.
    pub(super) fn lies_to(&mut self, node: usize) -> bool {
        let met = self.halves.len();
        *self.halves.entry(node).or_insert(met % 2 == 1)
    }
}

/// What somebody says of an action behind `head`.
pub(super) fn say(key: &SigningKey, head: &Head, time: u64, built: Attestation) -> Signed {
    sign(key, head, time, Body::Built(built))
}

fn sign(key: &SigningKey, head: &Head, time: u64, body: Body) -> Signed {
    let (attester, seq, prev) = (AttesterKey::of(key), head.len(), head.last());
    let statement = Statement { attester, seq, prev, time, body };
    statement.sign(key).expect("a simulated statement is one")
}

impl World<'_> {
    /// When who builds what.
    pub(super) fn plan_builds(&mut self) {
        // Everything is said while there is trouble, but for what could not be.
        let trouble = self.scenario.trouble * 1000;
        for builder in 0..self.builders.len() {
            match self.builders[builder].kind {
                BuilderKind::Rebuild => {
                    self.begin_to_rebuild(builder);
                    continue;
                }
                BuilderKind::Wish => {
                    self.begin_to_wish(builder);
                    continue;
                }
                // When there is something to copy.
                BuilderKind::Copy | BuilderKind::CopyWithWitness => continue,
                _ => {}
            }
            for place in 0..self.right.len() {
                let when = match self.builders[builder].kind {
                    // Half by its owner, half by the thief.
                    BuilderKind::Stolen if place % 2 == 0 => [0, trouble / 2 - 1],
                    BuilderKind::Stolen => [trouble / 2, trouble * 9 / 10],
                    _ => [0, trouble * 9 / 10],
                };
                let at = self.seed.between(when);
                self.at(at, Event::Build { builder, place });
            }
            match self.builders[builder].kind {
                BuilderKind::Restored => {
                    self.at(trouble / 2, Event::Deed(Deed::Stop { node: builder, empty: true }));
                    self.at(trouble / 2 + AGAIN, Event::Deed(Deed::Start { node: builder }));
                }
                BuilderKind::Succeed => self.at(trouble / 2, Event::Succeed { builder }),
                BuilderKind::Stolen => self.plan_revocations(builder),
                _ => {}
            }
        }
    }

    pub(super) fn build(&mut self, builder: usize, place: usize) {
        let (kind, n) = (self.builders[builder].kind, builder);
        if !self.nodes[n].up || self.builders[builder].writing {
            return self.after(AGAIN, Event::Build { builder, place });
        }
        let right = self.right[place].clone();
        match kind {
            BuilderKind::Honest | BuilderKind::Restored => self.execute(builder, place, &right),
            BuilderKind::Succeed => self.execute(builder, place, &right),
            BuilderKind::Stolen if self.now < self.scenario.trouble * 1000 / 2 => {
                self.execute(builder, place, &right);
            }
            BuilderKind::Miscompile => {
                let wrong = self.wrong[place].clone();
                self.execute(builder, place, &wrong);
            }
            BuilderKind::Collude | BuilderKind::Stolen => {
                if kind == BuilderKind::Stolen {
                    let end = self.nodes[n].disk.end(&self.builders[builder].attester).len();
                    self.builders[builder].stolen.get_or_insert(end);
                }
                let lie = outputs(&right.action, LIE);
                let witness = Witness::from_bytes(self.seed.bytes());
                self.claim(builder, place, &right, lie, Some(witness));
            }
            BuilderKind::Equivocate => self.equivocate(builder, &right),
            BuilderKind::Copy | BuilderKind::CopyWithWitness => {
                let Some(copied) = self.to_copy(builder, &right.action) else { return };
                let witness = Witness::from_bytes(self.seed.bytes());
                let witness = (kind == BuilderKind::CopyWithWitness).then_some(witness);
                self.claim(builder, place, &right, copied, witness);
            }
            // They do something else, or begin again by themselves.
            BuilderKind::Wish | BuilderKind::Rebuild => {}
        }
    }

    /// What somebody else says that an action gives.
    fn to_copy(&self, builder: usize, action: &ActionId) -> Option<Outputs> {
        let is_other = |sworn: &Sworn| {
            let attester = sworn.signed.statement().attester;
            attester != self.builders[builder].attester
                && self.builders.iter().any(|b| b.attester == attester)
        };
        let others = self.nodes[builder].disk.about(action).iter().filter(|sworn| is_other(sworn));
        let mut outputs = others.filter_map(|sworn| match &sworn.signed.statement().body {
            Body::Built(built) if !is_commitment(&built.outputs) => Some(&built.outputs),
            _ => None,
        });
        outputs.next().cloned()
    }

    /// Who copies does it as soon as there is something to copy.
    pub(super) fn copy_what_is_new(&mut self, n: usize, about: &BTreeSet<ActionId>) {
        if !self.builders.get(n).is_some_and(|builder| builder.kind.copies()) {
            return;
        }
        for action in about {
            let place = self.right.iter().position(|execution| execution.action == *action);
            if let Some(place) = place.filter(|_| self.to_copy(n, action).is_some())
                && self.builders[n].copied.insert(*action)
            {
                self.after(0, Event::Build { builder: n, place });
            }
        }
    }

    /// A builder executes an action, and says what came of it.
    pub(super) fn execute(&mut self, builder: usize, place: usize, execution: &Execution) {
        let Builder { attester, platform, .. } = &self.builders[builder];
        let witness = execution.transcript().witness(attester, &execution.action);
        let platform = platform.clone();
        self.nodes[builder].judge.executed(execution, platform);
        if let Some(measures) = &mut self.measures {
            measures.executed.entry(execution.action).or_insert(self.now);
        }
        self.claim(builder, place, execution, execution.outputs.clone(), Some(witness));
    }

    /// A builder says that an action gave something, or commits to it and says so later.
    fn claim(
        &mut self,
        builder: usize,
        place: usize,
        execution: &Execution,
        outputs: Outputs,
        witness: Option<Witness>,
    ) {
        self.nodes[builder].disk.nars.insert(archive(&outputs));
        let built = self.attestation(builder, execution, outputs, witness);
        let Some(seconds) = self.scenario.policy.reveal else {
            return self.state_that(builder, place, built);
        };
        let (action, attester) = (built.action, self.builders[builder].attester);
        let outputs = commitment(&built.outputs, &attester);
        self.state_that(builder, place, Attestation { outputs, witness: None, ..built.clone() });
        self.builders[builder].unsaid.insert(action, built);
        self.after(seconds * 1000, Event::Reveal { builder, action });
    }

    /// A builder reveals what it committed to, if it has not.
    pub(super) fn reveal(&mut self, builder: usize, action: ActionId) {
        let Some(built) = self.builders[builder].unsaid.get(&action) else { return };
        if !self.nodes[builder].up || self.builders[builder].writing {
            return self.after(AGAIN, Event::Reveal { builder, action });
        }
        let built = built.clone();
        self.builders[builder].unsaid.remove(&action);
        let place = self.right.iter().position(|execution| execution.action == action);
        self.state_that(builder, place.unwrap_or(0), built);
    }

    /// Who waits for others to commit themselves reveals soon what enough have committed to.
    pub(super) fn reveal_soon(&mut self, n: usize, about: &BTreeSet<ActionId>) {
        let enough = self.scenario.policy.at_least;
        for action in about {
            let waits = self.builders.get(n).is_some_and(|builder| builder.unsaid.contains_key(action));
            if waits && self.nodes[n].judge.committed(action) >= enough {
                self.after(SETTLED, Event::Reveal { builder: n, action: *action });
            }
        }
    }

    fn attestation(
        &self,
        builder: usize,
        execution: &Execution,
        outputs: Outputs,
        witness: Option<Witness>,
    ) -> Attestation {
        let platform = self.builders[builder].platform.clone();
        Attestation { action: execution.action, outputs, witness, platform }
    }

    /// A builder signs that an action gave something, and publishes it when its disk has it.
    fn state_that(&mut self, builder: usize, place: usize, built: Attestation) {
        self.utter(builder, Job::Build { place }, Body::Built(built));
    }

    fn utter(&mut self, builder: usize, job: Job, body: Body) {
        let n = builder;
        let head = self.nodes[n].disk.end(&self.builders[builder].attester);
        let signed = sign(&self.builders[builder].key, &head, NOW + self.now / 1000, body);
        let sworn = self.notary.swear(signed);
        let signer = &mut self.builders[builder];
        (signer.writing, signer.job) = (true, job);
        self.line(n, || format!("signs statement {} of its own", head.len()));
        let hasty = self.variant == Some(Variant::SpeaksBeforeDisk);
        self.write(n, Write::Said { builder, sworn: sworn.clone(), tell: !hasty });
        if hasty {
            let mut disk = self.nodes[n].disk.clone();
            disk.keep(Good::Statement(sworn.clone()));
            let heads = vec![disk.head(&self.builders[builder].attester)];
            self.input(n, Input::Made { items: vec![sworn.to_item()], heads });
        }
    }

    /// The node of a builder is killed: what is not on its disk was not said, and is done again.
    pub(super) fn builder_is_killed(&mut self, n: usize) {
        if let Some(builder) = self.builders.get_mut(n)
            && std::mem::take(&mut builder.writing)
        {
            let again = match builder.job {
                Job::Build { place } => Event::Build { builder: n, place },
                Job::Succeed => Event::Succeed { builder: n },
            };
            self.after(AGAIN, again);
        }
    }

    /// A builder says that it goes on under another key.
    pub(super) fn succeed(&mut self, builder: usize) {
        if !self.nodes[builder].up || self.builders[builder].writing {
            return self.after(AGAIN, Event::Succeed { builder });
        }
        let Builder { name, attester, .. } = &self.builders[builder];
        let key = successor(name);
        let successor = AttesterKey::of(&key);
        let consent = Signature::sign(&key, Context::Succession, &succession(attester, &successor));
        self.line(builder, || format!("goes on as {}", short(&successor)));
        self.utter(builder, Job::Succeed, Body::Succeed { successor, consent });
    }

    /// A statement of a builder's own is on its disk: if it is the last under this key, it takes the
    /// other.
    pub(super) fn go_on_as_successor(&mut self, builder: usize, sworn: &Sworn) {
        if let Body::Succeed { successor: attester, .. } = sworn.signed.statement().body {
            let builder = &mut self.builders[builder];
            builder.key = successor(&builder.name);
            builder.before.push(std::mem::replace(&mut builder.attester, attester));
        }
    }

    /// A thief and the owner revoke a key that is stolen at once: some hear the one first.
    fn plan_revocations(&mut self, builder: usize) {
        let at = self.scenario.trouble * 1000 * 95 / 100;
        self.at(at, Event::Revoke { builder, node: builder, owner: false });
        // The owner's other machine.
        let first = self.builders.len();
        let node = first + self.seed.below(self.scenario.nodes - first);
        self.at(at, Event::Revoke { builder, node, owner: true });
    }

    /// A key is revoked: by its owner from the theft on, by a thief from the end of its feed on.
    pub(super) fn revoke(&mut self, builder: usize, n: usize, owner: bool) {
        if !self.nodes[n].up {
            return self.after(AGAIN, Event::Revoke { builder, node: n, owner });
        }
        let Builder { attester, key, stolen, .. } = &self.builders[builder];
        let (attester, end) = (*attester, self.nodes[builder].disk.end(attester).len());
        let since = stolen.filter(|_| owner).unwrap_or(end);
        let item = UnverifiedEvidence::Revocation(Revocation::sign(key, since));
        let Some(good) = self.notary.verify(&item) else { return };
        self.line(n, || format!("hears that {} is revoked from place {since} on", short(&attester)));
        self.nodes[n].disk.keep(good.clone());
        let about = self.learn(n, &[good]);
        let heads = vec![self.nodes[n].disk.head(&attester)];
        self.input(n, Input::Made { items: vec![item], heads });
        self.judge(n, about);
    }

    /// A builder tells one half of its neighbours the truth, and the other, at the same place, a lie.
    fn equivocate(&mut self, builder: usize, execution: &Execution) {
        let n = builder;
        let attester = self.builders[builder].attester;
        let (one, time) = (self.nodes[n].disk.end(&attester), NOW + self.now / 1000);
        let other = self.builders[builder]
            .branch
            .last()
            .map_or(Head::empty(attester), |last| Head::behind(&last.signed));
        let lie = outputs(&execution.action, LIE);
        let witness = Some(execution.transcript().witness(&attester, &execution.action));
        let truth = self.attestation(builder, execution, execution.outputs.clone(), witness);
        let lie = self.attestation(builder, execution, lie, witness);
        let key = self.builders[builder].key.clone();
        let truth = self.notary.swear(say(&key, &one, time, truth));
        let lie = self.notary.swear(say(&key, &other, time, lie));
        self.builders[builder].branch.push(lie.clone());
        self.nodes[n].disk.keep(Good::Statement(truth.clone()));
        let heads = vec![self.nodes[n].disk.head(&attester)];
        self.line(n, || format!("says two things at place {}", one.len()));
        self.input(n, Input::Made { items: Vec::new(), heads });
        let rumours = [truth, lie].map(|sworn| Rumour::new(protocol::message::Gossip(vec![sworn.to_item()])));
        let links: Vec<usize> = self.nodes[n].links.keys().copied().collect();
        for link in links {
            let half = usize::from(self.builders[builder].lies_to(link));
            self.whisper(n, link, rumours[half].clone());
        }
    }
}
