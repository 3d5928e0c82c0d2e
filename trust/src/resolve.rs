//! Resolution (SPEC §16): what a whole graph of derivations gives, by hashes alone.
//!
//! ```text
//! derivations ─ leaves first ─▶ action ─ claims ─▶ verdict ─ accepted outputs ─▶ next action ─▶ …
//! ```
//!
//! To know what a derivation gives, only the hashes of its inputs must be known. So nothing is
//! downloaded on the way: what is accepted at one node goes into the action of the next, and bytes
//! are wanted only of the roots, and of what goes into a node that must be executed here.
//!
//! Outputs must be accepted at every node; agreement about the last one alone would leave room for
//! voters who disagree about what is in between.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{
    derivation::{Derivation, Kind},
    graph::{self, Graph, GraphError},
    id::{ActionId, DerivationId, NarHash},
    name::Name,
    output::{Output, Outputs},
};
use serde::Serialize;

use crate::{
    ledger::{Execution, Record, Voters},
    policy::{Place, Policy, View},
    verdict::{Outcome, Verdict, Vote, judge},
};

/// What this machine knows.
pub trait Known {
    /// How its look-ups fail.
    type Error;

    /// What verified statements say of an action, in any order. Those of strangers may be left out.
    fn records(&mut self, action: &ActionId) -> Result<Vec<Record>, Self::Error>;

    /// What this machine got when it executed the action; not what it has from others.
    fn execution(&mut self, action: &ActionId) -> Result<Option<Execution>, Self::Error>;

    /// Whether an archive is here.
    fn has(&mut self, nar: &NarHash) -> Result<bool, Self::Error>;
}

/// What a graph gives, as far as it can be known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Resolution {
    /// All derivations that the roots need, each behind those that it needs.
    pub nodes: Vec<Node>,
    /// What must be downloaded now: missing outputs of accepted nodes that are roots, or that a
    /// node needs that is to be executed now.
    pub download: BTreeMap<NarHash, u64>,
    /// What must be downloaded later, unless somebody whom the policy names speaks until then:
    /// missing outputs of accepted nodes that a blocked node needs. None of these is in `download`.
    pub download_later: BTreeMap<NarHash, u64>,
}

/// A derivation of the graph.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// Which.
    pub derivation: DerivationId,
    /// What people call it.
    pub name: Name,
    /// Whether it is one of the roots.
    pub root: bool,
    /// Whether executing it means to fetch a file and not to build.
    pub fetch: bool,
    /// What is known of it.
    pub state: State,
}

/// What is known of a derivation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum State {
    /// Its outputs are known.
    Accepted {
        /// Its action.
        action: ActionId,
        /// The outputs.
        outputs: Outputs,
        /// By whom.
        by: By,
        /// What was decided about what is claimed; when it was executed here, that may be anything.
        verdict: Verdict,
    },
    /// Its action is known and nothing is accepted: it is to be executed here, or waited for.
    Execute {
        /// Its action.
        action: ActionId,
        /// Why nothing is accepted: pending, disputed or untrusted.
        verdict: Verdict,
    },
    /// Not even its action is known.
    Blocked {
        /// Those whose outputs it needs and that are not accepted.
        on: Vec<DerivationId>,
    },
}

/// By whom outputs are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum By {
    /// This machine executed it.
    Here,
    /// Enough agree.
    Quorum,
}

/// Why a graph cannot be resolved.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError<E> {
    /// The derivations do not hold together.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// A look-up failed.
    #[error("looking up what is known failed")]
    Known(#[source] E),
}

/// Finds out what `roots` give, and what it takes to have it.
///
/// Each derivation is visited once; each action is looked up and judged once for each part of the
/// policy that applies to it. Takes memory linear in the graph, and time too, but for a logarithm.
///
/// # Errors
///
/// [`ResolveError`]. A disputed or unknown node is no error.
pub fn resolve<K: Known>(
    derivations: &BTreeMap<DerivationId, Derivation>,
    roots: &BTreeSet<DerivationId>,
    known: &mut K,
    voters: &Voters,
    policy: &Policy,
) -> Result<Resolution, ResolveError<K::Error>> {
    let graph = Graph::new(derivations, roots)?;
    let mut bench = Bench { known, voters, policy, judged: BTreeMap::new() };
    let mut states: Vec<Option<State>> = vec![None; graph.nodes().len()];
    let mut left: Vec<usize> = graph.nodes().iter().map(|node| node.needs.len()).collect();
    let mut ready: Vec<usize> = (0..left.len()).rev().filter(|n| left[*n] == 0).collect();
    let mut order = Vec::with_capacity(left.len());
    while let Some(n) = ready.pop() {
        states[n] = Some(bench.state(&graph, &states, n)?);
        order.push(n);
        for dependent in &graph.nodes()[n].needed_by {
            left[*dependent] -= 1;
            if left[*dependent] == 0 {
                ready.push(*dependent);
            }
        }
    }
    let (download, download_later) = downloads(&graph, &states, bench.known)?;
    let node = |n: usize| {
        let graph::Node { id, derivation, root, .. } = graph.nodes()[n];
        let fetch = matches!(derivation.kind(), Kind::Fetch(_));
        Some(Node { derivation: id, name: derivation.name().clone(), root, fetch, state: states[n].take()? })
    };
    let nodes = order.into_iter().filter_map(node).collect();
    Ok(Resolution { nodes, download, download_later })
}

/// What is judged, by whom; and what was judged already.
struct Bench<'a, K> {
    known: &'a mut K,
    voters: &'a Voters,
    policy: &'a Policy,
    /// Where what was found of an action is: the same for all derivations that resolve to it and to
    /// which the same part of the policy applies.
    judged: BTreeMap<(ActionId, Place), usize>,
}

impl<K: Known> Bench<'_, K> {
    /// What is known of a derivation, when all that it needs was visited.
    fn state(
        &mut self,
        graph: &Graph<'_>,
        states: &[Option<State>],
        n: usize,
    ) -> Result<State, ResolveError<K::Error>> {
        let graph::Node { derivation, needs, .. } = &graph.nodes()[n];
        let outputs = |n: usize| states[n].as_ref()?.outputs();
        let resolved = derivation.resolve(|id, name| {
            let outputs = outputs(graph.place(id)?)?;
            Some(outputs.get(name)?.nar)
        });
        let Ok(resolved) = resolved else {
            let open = needs.iter().filter(|n| outputs(**n).is_none());
            let on = open.map(|n| graph.nodes()[*n].id).collect();
            return Ok(State::Blocked { on });
        };
        let action = resolved.id();
        let view = self.policy.for_package(derivation.name());
        let first = *self.judged.entry((action, view.place())).or_insert(n);
        if let Some(state) = &states[first] {
            return Ok(state.clone());
        }
        let (own, verdict) = self.judge(action, derivation, &view)?;
        Ok(match (own, &verdict.outcome) {
            (Some(outputs), _) => State::Accepted { action, outputs, by: By::Here, verdict },
            (None, Outcome::Accepted { outputs }) => {
                State::Accepted { action, outputs: outputs.clone(), by: By::Quorum, verdict }
            }
            (None, Outcome::Pending | Outcome::Disputed | Outcome::Untrusted) => {
                State::Execute { action, verdict }
            }
        })
    }

    fn judge(
        &mut self,
        action: ActionId,
        derivation: &Derivation,
        view: &View<'_>,
    ) -> Result<(Option<Outputs>, Verdict), ResolveError<K::Error>> {
        let names = derivation.outputs();
        let records = self.known.records(&action).map_err(ResolveError::Known)?;
        let own = self.known.execution(&action).map_err(ResolveError::Known)?;
        // What has other outputs than the action, this machine did not get from it.
        let own = own.filter(|own| names.iter().eq(own.outputs.keys()));
        let claims = self.voters.claims(&action, Some(&names), &records, own.as_ref());
        let verdict = judge(&claims, view);
        Ok((own.map(|own| own.outputs), verdict))
    }
}

/// What must be downloaded: now, and later.
type Downloads = (BTreeMap<NarHash, u64>, BTreeMap<NarHash, u64>);

fn downloads<K: Known>(
    graph: &Graph<'_>,
    states: &[Option<State>],
    known: &mut K,
) -> Result<Downloads, ResolveError<K::Error>> {
    let (mut now, mut later): (BTreeMap<NarHash, u64>, BTreeMap<NarHash, u64>) = Default::default();
    for (node, state) in graph.nodes().iter().zip(states) {
        let wanted = match state {
            Some(State::Accepted { outputs, .. }) if node.root => {
                now.extend(outputs.values().map(pair));
                continue;
            }
            Some(State::Execute { .. }) => &mut now,
            Some(State::Blocked { .. }) => &mut later,
            Some(State::Accepted { .. }) | None => continue,
        };
        for (id, output) in graph::inputs(node.derivation) {
            let outputs = graph.place(id).and_then(|n| states[n].as_ref()?.outputs());
            wanted.extend(outputs.and_then(|outputs| outputs.get(output)).map(pair));
        }
    }
    later.retain(|nar, _| !now.contains_key(nar));
    for set in [&mut now, &mut later] {
        let mut here = BTreeSet::new();
        for nar in set.keys() {
            if known.has(nar).map_err(ResolveError::Known)? {
                here.insert(*nar);
            }
        }
        set.retain(|nar, _| !here.contains(nar));
    }
    Ok((now, later))
}

fn pair(output: &Output) -> (NarHash, u64) {
    (output.nar, output.size)
}

impl State {
    /// The outputs, if they are known.
    pub fn outputs(&self) -> Option<&Outputs> {
        match self {
            Self::Accepted { outputs, .. } => Some(outputs),
            Self::Execute { .. } | Self::Blocked { .. } => None,
        }
    }

    /// Votes for other outputs than those that are accepted; for any, if none are.
    ///
    /// What was executed here is accepted whatever others got, so this is where their dissent is seen.
    pub fn dissent(&self) -> impl Iterator<Item = &Vote> {
        let sides = self.verdict().into_iter().flat_map(|verdict| &verdict.reasoning.sides);
        sides.filter(|side| Some(&side.outputs) != self.outputs()).flat_map(|side| &side.votes)
    }

    /// What was decided about what is claimed; `None` if not even the action is known.
    pub fn verdict(&self) -> Option<&Verdict> {
        match self {
            Self::Accepted { verdict, .. } | Self::Execute { verdict, .. } => Some(verdict),
            Self::Blocked { .. } => None,
        }
    }
}

impl Resolution {
    /// Whether the outputs of all roots are known, so that only bytes are missing. Those of all that
    /// they need are known, then.
    pub fn complete(&self) -> bool {
        self.nodes.iter().all(|node| node.state.outputs().is_some())
    }

    /// What is to be executed here now, unless it is waited for: what it needs is known.
    pub fn execute(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| matches!(node.state, State::Execute { .. }))
    }

    /// Bytes to download now.
    pub fn download_bytes(&self) -> u64 {
        self.download.values().fold(0, |sum, size| sum.saturating_add(*size))
    }
}
