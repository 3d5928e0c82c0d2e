//! Derivations and what they need, from roots down: what is built, and what is resolved by hashes.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    derivation::{Derivation, Input, Kind},
    id::DerivationId,
    limits,
    name::Name,
};

/// The part of a set of derivations that some roots need. In memory it takes some words for each
/// derivation and for each edge.
#[derive(Debug, Clone)]
pub struct Graph<'d> {
    nodes: Vec<Node<'d>>,
    places: BTreeMap<DerivationId, usize>,
}

/// A derivation and its neighbours, by their places in [`Graph::nodes`].
#[derive(Debug, Clone)]
pub struct Node<'d> {
    /// What it is known by.
    pub id: DerivationId,
    /// It.
    pub derivation: &'d Derivation,
    /// Whether it is one of the roots.
    pub root: bool,
    /// What it needs, each once.
    pub needs: Vec<usize>,
    /// What needs it, each once.
    pub needed_by: Vec<usize>,
}

/// Why derivations do not hold together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// A derivation refers to one that is not there.
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
}

impl<'d> Graph<'d> {
    /// What `roots` need of `derivations`.
    ///
    /// # Errors
    ///
    /// [`GraphError`].
    pub fn new(
        derivations: &'d BTreeMap<DerivationId, Derivation>,
        roots: &BTreeSet<DerivationId>,
    ) -> Result<Self, GraphError> {
        let mut graph = Self::gather(derivations, roots, limits::GRAPH)?;
        graph.connect()?;
        match graph.stuck() {
            Some(name) => Err(GraphError::Circle(name.clone())),
            None => Ok(graph),
        }
    }

    fn gather(
        derivations: &'d BTreeMap<DerivationId, Derivation>,
        roots: &BTreeSet<DerivationId>,
        limit: usize,
    ) -> Result<Self, GraphError> {
        let mut graph = Self { nodes: Vec::new(), places: BTreeMap::new() };
        let mut left: Vec<_> = roots.iter().map(|id| (*id, *id)).collect();
        while let Some((from, id)) = left.pop() {
            if graph.places.contains_key(&id) {
                continue;
            }
            let derivation = derivations.get(&id).ok_or(GraphError::Dangling { from, to: id })?;
            if graph.nodes.len() == limit {
                return Err(GraphError::TooMany);
            }
            graph.places.insert(id, graph.nodes.len());
            left.extend(derivation.dependencies().into_iter().map(|to| (id, to)));
            let (needs, needed_by) = (Vec::new(), Vec::new());
            graph.nodes.push(Node { id, derivation, root: roots.contains(&id), needs, needed_by });
        }
        Ok(graph)
    }

    fn connect(&mut self) -> Result<(), GraphError> {
        for n in 0..self.nodes.len() {
            let derivation = self.nodes[n].derivation;
            for (to, output) in inputs(derivation) {
                let to = self.nodes[self.places[to]].derivation;
                if !to.outputs().contains(output) {
                    let (from, to) = (derivation.name().clone(), to.name().clone());
                    return Err(GraphError::NoOutput { from, to, output: output.clone() });
                }
            }
            for dependency in derivation.dependencies() {
                let to = self.places[&dependency];
                self.nodes[n].needs.push(to);
                self.nodes[to].needed_by.push(n);
            }
        }
        Ok(())
    }

    /// A derivation that is never reached from the leaves up.
    fn stuck(&self) -> Option<&Name> {
        let mut left: Vec<usize> = self.nodes.iter().map(|node| node.needs.len()).collect();
        let mut ready: Vec<usize> = (0..left.len()).filter(|n| left[*n] == 0).collect();
        while let Some(n) = ready.pop() {
            for dependent in &self.nodes[n].needed_by {
                left[*dependent] -= 1;
                if left[*dependent] == 0 {
                    ready.push(*dependent);
                }
            }
        }
        let stuck = left.iter().position(|left| *left > 0)?;
        Some(self.nodes[stuck].derivation.name())
    }

    /// All of them; those that are needed only by others are behind one that needs them.
    pub fn nodes(&self) -> &[Node<'d>] {
        &self.nodes
    }

    /// Where a derivation is in [`Graph::nodes`].
    pub fn place(&self, id: &DerivationId) -> Option<usize> {
        self.places.get(id).copied()
    }
}

/// The outputs of others that a derivation takes in.
pub fn inputs(derivation: &Derivation) -> impl Iterator<Item = (&DerivationId, &Name)> {
    let inputs = match derivation.kind() {
        Kind::Build(build) => Some(build.inputs.values()),
        Kind::Fetch(_) => None,
    };
    inputs.into_iter().flatten().filter_map(|input| match input {
        Input::Output { derivation, output } => Some((derivation, output)),
        Input::Nar(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{derivation::Fetch, sri::Sri};

    fn fetch(name: &str) -> Derivation {
        let digest = vec![7; 32];
        Derivation::fetch(Fetch {
            name: Name::new(name).unwrap(),
            locations: vec!["https://example.org/a".into()],
            sri: Sri::new(crate::sri::Algorithm::Blake3, digest).unwrap(),
            executable: false,
        })
        .unwrap()
    }

    #[test]
    fn graphs_are_bounded() {
        let derivations: BTreeMap<_, _> = ["a", "b", "c"].map(fetch).map(|d| (d.id(), d)).into();
        let roots = derivations.keys().copied().collect();
        let gathered = |limit| Graph::gather(&derivations, &roots, limit).map(|graph| graph.nodes.len());
        assert_eq!(gathered(3), Ok(3));
        assert_eq!(gathered(2), Err(GraphError::TooMany));
    }
}
