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
    derivation::{Derivation, Input, Kind},
    id::{ActionId, DerivationId, NarHash},
    name::Name,
    output::{Output, Outputs},
};
use serde::Serialize;

use crate::{
    ledger::{Execution, Record, Voters},
    limits,
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
    /// A derivation refers to one that is not in the graph.
    #[error("{from} refers to {to}, which is not known")]
    Dangling {
        /// The derivation, or the root itself.
        from: DerivationId,
        /// What it refers to.
        to: DerivationId,
    },
    /// A derivation refers to an output that another does not have.
    #[error("`{from}` refers to the output `{output}` of `{to}`, which has no such output")]
    NoOutput {
        /// The derivation.
        from: Name,
        /// Whose output it wants.
        to: Name,
        /// The output.
        output: Name,
    },
    /// More derivations than [`limits::GRAPH`].
    #[error("more than {limit} derivations", limit = limits::GRAPH)]
    TooMany,
    /// Derivations that need each other, which can only be if they were not looked up by what
    /// they hash to.
    #[error("`{0}` needs itself")]
    Circle(Name),
    /// A look-up failed.
    #[error("looking up what is known failed")]
    Known(#[source] E),
}

/// A derivation on the way.
struct Visit<'d> {
    id: DerivationId,
    derivation: &'d Derivation,
    needs: Vec<usize>,
    needed_by: Vec<usize>,
    /// How many of `needs` were not visited yet.
    left: usize,
    root: bool,
    state: Option<State>,
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
    let (mut visits, places) = gather(derivations, roots, limits::GRAPH)?;
    let mut bench = Bench { known, voters, policy, judged: BTreeMap::new() };
    let mut ready: Vec<usize> = (0..visits.len()).rev().filter(|n| visits[*n].left == 0).collect();
    let mut order = Vec::with_capacity(visits.len());
    while let Some(n) = ready.pop() {
        visits[n].state = Some(bench.state(&visits, &places, n)?);
        order.push(n);
        for dependent in visits[n].needed_by.clone() {
            visits[dependent].left -= 1;
            if visits[dependent].left == 0 {
                ready.push(dependent);
            }
        }
    }
    if let Some(stuck) = visits.iter().find(|visit| visit.state.is_none()) {
        return Err(ResolveError::Circle(stuck.derivation.name().clone()));
    }
    let (download, download_later) = downloads(&visits, &places, bench.known)?;
    let mut nodes: BTreeMap<usize, Node> = BTreeMap::new();
    for (n, visit) in visits.into_iter().enumerate() {
        let fetch = matches!(visit.derivation.kind(), Kind::Fetch(_));
        let Visit { id: derivation, root, state: Some(state), .. } = visit else { continue };
        nodes.insert(n, Node { derivation, name: visit.derivation.name().clone(), root, fetch, state });
    }
    let nodes = order.into_iter().filter_map(|n| nodes.remove(&n)).collect();
    Ok(Resolution { nodes, download, download_later })
}

type Places = BTreeMap<DerivationId, usize>;

/// The part of the graph that the roots need.
fn gather<'d, E>(
    derivations: &'d BTreeMap<DerivationId, Derivation>,
    roots: &BTreeSet<DerivationId>,
    limit: usize,
) -> Result<(Vec<Visit<'d>>, Places), ResolveError<E>> {
    let (mut visits, mut places) = (Vec::new(), Places::new());
    let mut left: Vec<_> = roots.iter().map(|id| (*id, *id)).collect();
    while let Some((from, id)) = left.pop() {
        if places.contains_key(&id) {
            continue;
        }
        let derivation = derivations.get(&id).ok_or(ResolveError::Dangling { from, to: id })?;
        if visits.len() == limit {
            return Err(ResolveError::TooMany);
        }
        places.insert(id, visits.len());
        left.extend(derivation.dependencies().into_iter().map(|to| (id, to)));
        let (root, state) = (roots.contains(&id), None);
        visits.push(Visit { id, derivation, needs: vec![], needed_by: vec![], left: 0, root, state });
    }
    for n in 0..visits.len() {
        for (to, output) in inputs(visits[n].derivation) {
            let to = visits[places[to]].derivation;
            if !to.outputs().contains(output) {
                let (from, to) = (visits[n].derivation.name().clone(), to.name().clone());
                return Err(ResolveError::NoOutput { from, to, output: output.clone() });
            }
        }
        for dependency in visits[n].derivation.dependencies() {
            let to = places[&dependency];
            visits[n].needs.push(to);
            visits[to].needed_by.push(n);
        }
        visits[n].left = visits[n].needs.len();
    }
    Ok((visits, places))
}

/// The outputs of others that a derivation takes in.
fn inputs(derivation: &Derivation) -> impl Iterator<Item = (&DerivationId, &Name)> {
    let inputs = match derivation.kind() {
        Kind::Build(build) => Some(build.inputs.values()),
        Kind::Fetch(_) => None,
    };
    inputs.into_iter().flatten().filter_map(|input| match input {
        Input::Output { derivation, output } => Some((derivation, output)),
        Input::Nar(_) => None,
    })
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
        visits: &[Visit<'_>],
        places: &Places,
        n: usize,
    ) -> Result<State, ResolveError<K::Error>> {
        let derivation = visits[n].derivation;
        let resolved = derivation.resolve(|id, name| {
            let outputs = visits[*places.get(id)?].state.as_ref()?.outputs()?;
            Some(outputs.get(name)?.nar)
        });
        let Ok(resolved) = resolved else {
            let open = |n: &&usize| visits[**n].state.as_ref().is_none_or(|state| state.outputs().is_none());
            let on = visits[n].needs.iter().filter(open).map(|n| visits[*n].id).collect();
            return Ok(State::Blocked { on });
        };
        let action = resolved.id();
        let view = self.policy.for_package(derivation.name());
        let first = *self.judged.entry((action, view.place())).or_insert(n);
        if let Some(state) = &visits[first].state {
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
    visits: &[Visit<'_>],
    places: &Places,
    known: &mut K,
) -> Result<Downloads, ResolveError<K::Error>> {
    let (mut now, mut later): (BTreeMap<NarHash, u64>, BTreeMap<NarHash, u64>) = Default::default();
    for visit in visits {
        let wanted = match &visit.state {
            Some(State::Accepted { outputs, .. }) if visit.root => {
                now.extend(outputs.values().map(pair));
                continue;
            }
            Some(State::Execute { .. }) => &mut now,
            Some(State::Blocked { .. }) => &mut later,
            Some(State::Accepted { .. }) | None => continue,
        };
        for (id, output) in inputs(visit.derivation) {
            let outputs = visits[places[id]].state.as_ref().and_then(State::outputs);
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

#[cfg(test)]
mod tests {
    use protocol::{derivation::Fetch, sri::Sri};

    use super::*;

    fn fetch(name: &str) -> Derivation {
        let digest = vec![7; 32];
        Derivation::fetch(Fetch {
            name: Name::new(name).unwrap(),
            locations: vec!["https://example.org/a".into()],
            sri: Sri::new(protocol::sri::Algorithm::Blake3, digest).unwrap(),
            executable: false,
        })
        .unwrap()
    }

    #[test]
    fn graphs_are_bounded() {
        let derivations: BTreeMap<_, _> = ["a", "b", "c"].map(fetch).map(|d| (d.id(), d)).into();
        let roots = derivations.keys().copied().collect();
        let gathered = |limit| gather::<()>(&derivations, &roots, limit).map(|(visits, _)| visits.len());
        assert_eq!(gathered(3).unwrap(), 3);
        assert!(matches!(gathered(2), Err(ResolveError::TooMany)));
    }
}
