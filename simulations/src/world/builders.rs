//! Who builds what, and what is said of it: the truth, a lie, or both.

use std::{collections::BTreeMap, sync::Arc};

use protocol::{
    feed::Head,
    id::NarHash,
    key::{AttesterKey, SigningKey},
    name::Name,
    output::Outputs,
    statement::{Attestation, Body, Platform, Signed, Statement},
    witness::Witness,
};
use trust::peer::Input;

use super::{Event, World, Write};
use crate::{
    builds::{Execution, archive, outputs},
    faults::Deed,
    judge::{NOW, Named},
    node::Rumour,
    notary::{Good, Sworn},
    scenario::{BuilderKind, Builders, Scenario, x86_64},
    variant::Variant,
};

/// What those who collude add to an action.
pub(super) const LIE: &str = " and a lie";

/// Milliseconds after which a builder tries again that could not build, or found nothing to copy.
const AGAIN: u64 = 3_000;

/// Somebody who builds: its node has the same number.
#[derive(Debug)]
pub(super) struct Builder {
    pub(super) name: Name,
    pub(super) attester: AttesterKey,
    pub(super) kind: BuilderKind,
    operator: Name,
    platform: Platform,
    pub(super) key: SigningKey,
    /// Whether its last statement is on its way to the disk, and about which action it is.
    pub(super) writing: bool,
    job: usize,
    /// What it says to the other half, and who is in that half, of those that it met.
    pub(super) branch: Vec<Arc<Sworn>>,
    halves: BTreeMap<usize, bool>,
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
        let key = SigningKey::from_bytes(NarHash::of(name.as_str().as_bytes()).as_bytes());
        Builder {
            attester: AttesterKey::of(&key),
            kind: builders.kind,
            operator: builders.operator.as_deref().map_or(name.clone(), word),
            platform: platform(&builders.arch),
            key,
            writing: false,
            job: 0,
            branch: Vec::new(),
            halves: BTreeMap::new(),
            name,
        }
    };
    kinds.enumerate().map(builder).collect()
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

    /// Whether an equivocator lies to a node: to every second that it meets.
    pub(super) fn lies_to(&mut self, node: usize) -> bool {
        let met = self.halves.len();
        *self.halves.entry(node).or_insert(met % 2 == 1)
    }
}

/// What somebody says behind `head`.
pub(super) fn say(key: &SigningKey, head: &Head, time: u64, built: Attestation) -> Signed {
    let (attester, seq, prev) = (AttesterKey::of(key), head.len(), head.last());
    let statement = Statement { attester, seq, prev, time, body: Body::Built(built) };
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
                _ => {}
            }
            for place in 0..self.right.len() {
                let at = self.seed.between([0, trouble * 9 / 10]);
                self.at(at, Event::Build { builder, place });
            }
            if self.builders[builder].kind == BuilderKind::Restored {
                self.at(trouble / 2, Event::Deed(Deed::Stop { node: builder, empty: true }));
                self.at(trouble / 2 + AGAIN, Event::Deed(Deed::Start { node: builder }));
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
            BuilderKind::Miscompile => {
                let wrong = self.wrong[place].clone();
                self.execute(builder, place, &wrong);
            }
            BuilderKind::Collude => {
                let lie = outputs(&right.action, LIE);
                let witness = Witness::from_bytes(self.seed.bytes());
                self.state_that(builder, place, &right, lie, Some(witness));
            }
            BuilderKind::Equivocate => self.equivocate(builder, &right),
            BuilderKind::Copy | BuilderKind::CopyWithWitness => {
                let others =
                    self.builders.iter().filter(|other| other.attester != self.builders[builder].attester);
                let said = others.flat_map(|other| self.nodes[n].disk.said(&other.attester));
                let copied = said.filter_map(|sworn| match &sworn.signed.statement().body {
                    Body::Built(built) if built.action == right.action => Some(built.outputs.clone()),
                    _ => None,
                });
                let Some(copied) = copied.into_iter().next() else {
                    return self.after(AGAIN, Event::Build { builder, place });
                };
                let witness = Witness::from_bytes(self.seed.bytes());
                let witness = (kind == BuilderKind::CopyWithWitness).then_some(witness);
                self.state_that(builder, place, &right, copied, witness);
            }
            // They do something else, or begin again by themselves.
            BuilderKind::Wish | BuilderKind::Rebuild => {}
        }
    }

    /// A builder executes an action, and says what came of it.
    pub(super) fn execute(&mut self, builder: usize, place: usize, execution: &Execution) {
        let Builder { attester, platform, .. } = &self.builders[builder];
        let witness = execution.transcript().witness(attester, &execution.action);
        let platform = platform.clone();
        self.nodes[builder].judge.executed(execution, platform);
        self.state_that(builder, place, execution, execution.outputs.clone(), Some(witness));
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
    fn state_that(
        &mut self,
        builder: usize,
        place: usize,
        execution: &Execution,
        outputs: Outputs,
        witness: Option<Witness>,
    ) {
        let n = builder;
        self.nodes[n].disk.nars.insert(archive(&outputs));
        let head = self.nodes[n].disk.end(&self.builders[builder].attester);
        let built = self.attestation(builder, execution, outputs, witness);
        let signed = say(&self.builders[builder].key, &head, NOW + self.now / 1000, built);
        let sworn = self.notary.swear(signed);
        let signer = &mut self.builders[builder];
        (signer.writing, signer.job) = (true, place);
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
            let place = builder.job;
            self.after(AGAIN, Event::Build { builder: n, place });
        }
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
