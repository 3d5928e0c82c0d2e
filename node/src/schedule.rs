//! Which derivation is built next: pure bookkeeping over a graph, with the store's knowledge passed in.
//!
//! ```text
//! hashes go up:    every dependency's outputs known ─▶ action ─▶ what it gives is known? ─▶ outputs known
//! demand goes down: to be executed ─▶ inputs whose bytes are not here are had, or executed, first
//! ```
//!
//! Knowing an output's hash is enough to go on; its bytes are wanted only by what really runs. So a
//! graph in which nothing changed costs one look-up a derivation and touches no file, and an input
//! that comes out the same stops the change there. Iterative throughout: a chain may be long.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use protocol::{
    action::Action,
    derivation::{Derivation, Input, Kind},
    graph::{self, Graph, GraphError},
    id::{ActionId, DerivationId, NarHash},
    name::Name,
    output::Outputs,
};
use trust::agreement::{self, Difference};

/// What the store knows.
pub trait Known {
    /// How its look-ups fail.
    type Error;
    /// What executing the action of this package gives, if that is known.
    fn outputs(&self, action: &Action, package: &Name) -> Result<Option<Outputs>, Self::Error>;
    /// Whether an archive is there.
    fn has(&self, nar: &NarHash) -> bool;
}

/// Why a graph cannot be scheduled.
#[derive(Debug, thiserror::Error)]
pub enum ScheduleError<E> {
    /// The derivations do not hold together.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// A source that is not in the store any more.
    #[error("the source {nar} of `{of}` is not in the store")]
    Source {
        /// The derivation.
        of: Name,
        /// The source.
        nar: NarHash,
    },
    /// Executing an action again gave something else.
    #[error("`{name}` was built again and gave another output `{output}`: {} before, {} now", shown(.before), shown(.now))]
    NotDeterministic {
        /// The derivation.
        name: Name,
        /// Its action.
        action: ActionId,
        /// The output.
        output: Name,
        /// What was recorded.
        before: Option<NarHash>,
        /// What came out now.
        now: Option<NarHash>,
    },
    /// The store failed.
    #[error("the store failed")]
    Known(#[source] E),
}

fn shown(nar: &Option<NarHash>) -> String {
    nar.map_or_else(|| "nothing".into(), |nar| nar.to_string())
}

/// Outputs as what executions are compared by.
fn nars(outputs: &Outputs) -> BTreeMap<Name, NarHash> {
    outputs.iter().map(|(name, output)| (name.clone(), output.nar)).collect()
}

/// An action whose outputs are to be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// Its place in the schedule, for [`Schedule::finished`].
    pub node: usize,
    /// The derivation.
    pub derivation: DerivationId,
    /// What is to be executed, if need be.
    pub action: Action,
    /// What it gives, if that is known and may be had from others: then its inputs are not here.
    pub substitute: Option<Outputs>,
}

/// How far a schedule is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counts<'d> {
    /// Executions that are known to be needed.
    pub needed: usize,
    /// Those of them that are done.
    pub done: usize,
    /// Derivations of which it is not known yet whether they are needed: their inputs are not known.
    pub undecided: usize,
    /// What is executed next, or may be, the soonest first; not all of it.
    pub next: Vec<&'d Name>,
}

/// Names that [`Counts::next`] has at most.
const NEXT: usize = 8;

/// How far a derivation is.
#[derive(Clone, Default)]
struct Node {
    /// Dependencies whose outputs are not known yet.
    unknown: usize,
    action: Option<Action>,
    outputs: Option<Outputs>,
    demanded: bool,
    /// Whether what it gives is to be had from others.
    substitute: bool,
    /// Dependencies that are executed first because their bytes are gone.
    awaiting: usize,
    /// Who awaits this one's bytes.
    awaited_by: Vec<usize>,
    done: bool,
}

/// The state of building a graph.
pub struct Schedule<'d> {
    graph: Graph<'d>,
    /// By the places of the graph.
    nodes: Vec<Node>,
    ready: VecDeque<usize>,
    /// Execute the roots although their outputs are known.
    again: bool,
    /// Have from others what is known and not here.
    substitute: bool,
    demanded: usize,
    done: usize,
    /// Nodes whose action is known.
    resolved: usize,
}

impl<'d> Schedule<'d> {
    /// Takes the part of `derivations` that `roots` need. With `again`, roots are executed even if
    /// what they give is known. With `substitute`, what is known and not here is to be had from others.
    ///
    /// # Errors
    ///
    /// [`GraphError`].
    pub fn new(
        derivations: &'d BTreeMap<DerivationId, Derivation>,
        roots: &BTreeSet<DerivationId>,
        again: bool,
        substitute: bool,
    ) -> Result<Self, GraphError> {
        let graph = Graph::new(derivations, roots)?;
        let node = |node: &graph::Node<'_>| Node { unknown: node.needs.len(), ..Node::default() };
        let (nodes, ready) = (graph.nodes().iter().map(node).collect(), VecDeque::new());
        Ok(Self { graph, nodes, ready, again, substitute, demanded: 0, done: 0, resolved: 0 })
    }

    fn derivation(&self, place: usize) -> &'d Derivation {
        self.graph.nodes()[place].derivation
    }

    /// Looks at what is known already; to be called once, before [`Schedule::take`].
    ///
    /// # Errors
    ///
    /// [`ScheduleError::Source`] and [`ScheduleError::Known`].
    pub fn begin<K: Known>(&mut self, known: &K) -> Result<(), ScheduleError<K::Error>> {
        let leaves = (0..self.nodes.len()).filter(|n| self.nodes[*n].unknown == 0).collect();
        self.resolve(leaves, known)
    }

    /// Resolves nodes all of whose dependencies are known, and then whatever that makes known.
    fn resolve<K: Known>(&mut self, mut left: Vec<usize>, known: &K) -> Result<(), ScheduleError<K::Error>> {
        while let Some(place) = left.pop() {
            let derivation = self.derivation(place);
            let action = derivation.resolve(|id, name| {
                let node = &self.nodes[self.graph.place(id)?];
                Some(node.outputs.as_ref()?.get(name)?.nar)
            });
            let Ok(action) = action else { unreachable!("all dependencies are known") };
            let outputs = known.outputs(&action, derivation.name()).map_err(ScheduleError::Known)?;
            self.nodes[place].action = Some(action);
            self.resolved += 1;
            let root = self.graph.nodes()[place].root;
            let execute = match &outputs {
                None => true,
                Some(outputs) => root && (self.again || !outputs.values().all(|o| known.has(&o.nar))),
            };
            if let Some(outputs) = outputs {
                left.extend(self.learn(place, outputs));
            }
            if execute {
                self.demand(place, known)?;
            }
        }
        Ok(())
    }

    /// The outputs of a node are known: returns the dependents that can now be resolved.
    fn learn(&mut self, place: usize, outputs: Outputs) -> Vec<usize> {
        if self.nodes[place].outputs.replace(outputs).is_some() {
            return Vec::new();
        }
        let mut ready = Vec::new();
        for dependent in &self.graph.nodes()[place].needed_by {
            self.nodes[*dependent].unknown -= 1;
            if self.nodes[*dependent].unknown == 0 {
                ready.push(*dependent);
            }
        }
        ready
    }

    /// A node is to be executed: first, whatever it needs the bytes of and has not.
    fn demand<K: Known>(&mut self, place: usize, known: &K) -> Result<(), ScheduleError<K::Error>> {
        let mut left = vec![place];
        while let Some(place) = left.pop() {
            if std::mem::replace(&mut self.nodes[place].demanded, true) {
                continue;
            }
            self.demanded += 1;
            let graph::Node { derivation, root, .. } = self.graph.nodes()[place];
            let node = &mut self.nodes[place];
            node.substitute = self.substitute && node.outputs.is_some() && !(root && self.again);
            let mut missing = BTreeSet::new();
            if let (false, Kind::Build(build)) = (node.substitute, derivation.kind()) {
                for input in build.inputs.values() {
                    match input {
                        Input::Nar(nar) if !known.has(nar) => {
                            let of = build.name.clone();
                            return Err(ScheduleError::Source { of, nar: *nar });
                        }
                        Input::Nar(_) => {}
                        Input::Output { derivation, output } => {
                            let Some(from) = self.graph.place(derivation) else { continue };
                            let outputs = self.nodes[from].outputs.as_ref();
                            let nar = outputs.and_then(|o| o.get(output)).map(|o| o.nar);
                            if !nar.is_some_and(|nar| known.has(&nar)) {
                                missing.insert(from);
                            }
                        }
                    }
                }
            }
            self.nodes[place].awaiting = missing.len();
            if missing.is_empty() {
                self.ready.push_back(place);
            }
            for from in missing {
                self.nodes[from].awaited_by.push(place);
                left.push(from);
            }
        }
        Ok(())
    }

    /// The next task, if one is ready.
    pub fn take(&mut self) -> Option<Task> {
        let node = self.ready.pop_front()?;
        let Node { action, outputs, substitute, .. } = &self.nodes[node];
        let (derivation, action, outputs) = (self.graph.nodes()[node].id, action.clone()?, outputs.clone());
        Some(Task { node, derivation, action, substitute: outputs.filter(|_| *substitute) })
    }

    /// What an action gives is not to be had from others, now or any more: it is to be executed.
    ///
    /// # Errors
    ///
    /// [`ScheduleError::Source`].
    pub fn not_had<K: Known>(&mut self, place: usize, known: &K) -> Result<(), ScheduleError<K::Error>> {
        // Nor is anything else asked for: whoever could be asked is gone, or has nothing.
        self.substitute = false;
        self.nodes[place].demanded = false;
        self.demanded -= 1;
        self.demand(place, known)
    }

    /// An action was executed.
    ///
    /// # Errors
    ///
    /// [`ScheduleError::NotDeterministic`] when it had been executed before and gave something
    /// else, and the errors of [`Schedule::begin`].
    pub fn finished<K: Known>(
        &mut self,
        place: usize,
        outputs: Outputs,
        known: &K,
    ) -> Result<(), ScheduleError<K::Error>> {
        let node = &self.nodes[place];
        if let (Some(before), Some(action)) = (&node.outputs, &node.action)
            && let Some(Difference { output, first, second }) =
                agreement::compare(&nars(before), &nars(&outputs))
        {
            let (name, action) = (self.derivation(place).name().clone(), action.id());
            return Err(ScheduleError::NotDeterministic { name, action, output, before: first, now: second });
        }
        self.nodes[place].done = true;
        self.done += 1;
        for waiting in std::mem::take(&mut self.nodes[place].awaited_by) {
            self.nodes[waiting].awaiting -= 1;
            if self.nodes[waiting].awaiting == 0 {
                self.ready.push_back(waiting);
            }
        }
        let ready = self.learn(place, outputs);
        self.resolve(ready, known)
    }

    /// How far it is. What is needed grows while hashes become known.
    pub fn counts(&self) -> Counts<'d> {
        // First what is ready, then what waits for that; leaves are behind their dependents here.
        let waits = |place: &usize| self.nodes[*place].demanded && self.nodes[*place].awaiting > 0;
        let undecided = |place: &usize| self.nodes[*place].action.is_none();
        let up = || (0..self.nodes.len()).rev();
        let later = up().filter(waits).chain(up().filter(undecided));
        let next = self.ready.iter().copied().chain(later).take(NEXT);
        let next = next.map(|place| self.derivation(place).name()).collect();
        let undecided = self.nodes.len() - self.resolved;
        Counts { needed: self.demanded, done: self.done, undecided, next }
    }

    /// How many derivations there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The action and the outputs of a derivation, as far as they are known.
    pub fn state(&self, id: &DerivationId) -> Option<(Option<&Action>, Option<&Outputs>)> {
        let node = &self.nodes[self.graph.place(id)?];
        Some((node.action.as_ref(), node.outputs.as_ref()))
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, convert::Infallible};

    use protocol::{
        derivation::{Build, Limits, Recipe, Step},
        name::GuestPath,
        output::Output,
    };

    use super::*;

    /// A derivation whose inputs are others, and whose only other content is its name and `salt`.
    fn derivation(name: &str, inputs: &[DerivationId], salt: &str) -> Derivation {
        let input = |id: &DerivationId| Input::Output { derivation: *id, output: Name::out() };
        Derivation::build(Build {
            name: Name::new(name).unwrap(),
            recipe: Recipe {
                steps: vec![Step {
                    run: GuestPath::new("/build/x").unwrap(),
                    args: vec![name.into(), salt.into()],
                    stdin: None,
                    stdout: None,
                    cwd: None,
                }],
                env: BTreeMap::new(),
                stdin: "{}".into(),
                outputs: BTreeSet::from([Name::out()]),
                executable: BTreeSet::new(),
            },
            inputs: inputs
                .iter()
                .enumerate()
                .map(|(n, id)| (Name::new(format!("i{n}")).unwrap(), input(id)))
                .collect(),
            limits: Limits::default(),
        })
        .unwrap()
    }

    #[derive(Default)]
    struct World {
        realised: RefCell<BTreeMap<ActionId, Outputs>>,
        bytes: RefCell<BTreeSet<NarHash>>,
    }

    impl Known for World {
        type Error = Infallible;
        fn outputs(&self, action: &Action, _: &Name) -> Result<Option<Outputs>, Infallible> {
            Ok(self.realised.borrow().get(&action.id()).cloned())
        }
        fn has(&self, nar: &NarHash) -> bool {
            self.bytes.borrow().contains(nar)
        }
    }

    fn graph(list: &[&Derivation]) -> BTreeMap<DerivationId, Derivation> {
        list.iter().map(|d| (d.id(), (*d).clone())).collect()
    }

    /// Builds everything, one after the other, and says what was executed. The output of an
    /// action is a function of its name and inputs, but not of its salt: a comment.
    fn run(
        world: &World,
        derivations: &BTreeMap<DerivationId, Derivation>,
        root: DerivationId,
    ) -> Vec<String> {
        let roots = BTreeSet::from([root]);
        let mut schedule = Schedule::new(derivations, &roots, false, false).unwrap();
        schedule.begin(world).unwrap();
        let mut executed = Vec::new();
        while let Some(task) = schedule.take() {
            let Action::Build(build) = &task.action else { unreachable!() };
            for nar in build.inputs.values() {
                assert!(world.has(nar), "an input's bytes are there before it is executed");
            }
            let name = &build.recipe.steps[0].args[0];
            let inputs: String = build.inputs.values().map(|n| n.to_string()).collect();
            let nar = NarHash::of(format!("{name}{inputs}").as_bytes());
            let outputs = Outputs::from([(Name::out(), Output { nar, size: 1 })]);
            world.bytes.borrow_mut().insert(nar);
            world.realised.borrow_mut().insert(task.action.id(), outputs.clone());
            executed.push(name.clone());
            schedule.finished(task.node, outputs, world).unwrap();
        }
        assert!(schedule.state(&root).unwrap().1.is_some(), "the root is known at the end");
        executed
    }

    #[test]
    fn only_what_changed_and_early_cutoff() {
        let world = World::default();
        let a = derivation("a", &[], "");
        let b = derivation("b", &[], "");
        let link = derivation("link", &[a.id(), b.id()], "");
        assert_eq!(run(&world, &graph(&[&a, &b, &link]), link.id()).len(), 3);
        assert_eq!(run(&world, &graph(&[&a, &b, &link]), link.id()), [""; 0]);
        // A comment changes the action of `a`, not its output: `link` is not executed.
        let a2 = derivation("a", &[], "comment");
        let link2 = derivation("link", &[a2.id(), b.id()], "");
        assert_eq!(run(&world, &graph(&[&a2, &b, &link2]), link2.id()), ["a"]);
        let a3 = derivation("a2", &[], "");
        let link3 = derivation("link", &[a3.id(), b.id()], "");
        assert_eq!(run(&world, &graph(&[&a3, &b, &link3]), link3.id()), ["a2", "link"]);
    }

    #[test]
    fn bytes_that_are_gone_are_made_again_only_for_what_runs() {
        let world = World::default();
        let a = derivation("a", &[], "");
        let b = derivation("b", &[a.id()], "");
        let c = derivation("c", &[b.id()], "");
        let all = graph(&[&a, &b, &c]);
        assert_eq!(run(&world, &all, c.id()), ["a", "b", "c"]);
        let c_nar = *world.bytes.borrow().iter().last().unwrap();
        world.bytes.borrow_mut().clear();
        // Nothing is there: all of it is executed again, from the bottom.
        assert_eq!(run(&world, &all, c.id()), ["a", "b", "c"]);
        world.bytes.borrow_mut().retain(|nar| {
            *nar == c_nar || world.realised.borrow().values().any(|o| o[&Name::out()].nar == *nar)
        });
        assert_eq!(run(&world, &all, c.id()), [""; 0]);
    }

    #[test]
    fn long_chains_and_shared_inputs() {
        let world = World::default();
        let mut all = BTreeMap::new();
        let mut last = derivation("d0", &[], "");
        all.insert(last.id(), last.clone());
        let base = last.id();
        for n in 1..5000 {
            last = derivation(&format!("d{n}"), &[last.id(), base], "");
            all.insert(last.id(), last.clone());
        }
        assert_eq!(run(&world, &all, last.id()).len(), 5000);
        assert_eq!(run(&world, &all, last.id()).len(), 0);
    }

    #[test]
    fn counts_say_what_is_next() {
        let world = World::default();
        let a = derivation("a", &[], "");
        let b = derivation("b", &[], "");
        let c = derivation("c", &[a.id(), b.id()], "");
        let d = derivation("d", &[c.id()], "");
        let all = graph(&[&a, &b, &c, &d]);
        let roots = BTreeSet::from([d.id()]);
        let mut schedule = Schedule::new(&all, &roots, false, false).unwrap();
        schedule.begin(&world).unwrap();
        let said = |schedule: &Schedule<'_>| {
            let Counts { needed, done, undecided, next } = schedule.counts();
            (needed, done, undecided, next.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(" "))
        };
        let (needed, done, undecided, next) = said(&schedule);
        assert_eq!((needed, done, undecided), (2, 0, 2));
        assert!(["a b c d", "b a c d"].contains(&&*next), "{next}");
        let finish = |schedule: &mut Schedule<'_>| {
            let task = schedule.take().unwrap();
            let nar = NarHash::of(&task.action.to_bytes());
            world.bytes.borrow_mut().insert(nar);
            let outputs = Outputs::from([(Name::out(), Output { nar, size: 1 })]);
            schedule.finished(task.node, outputs, &world).unwrap();
        };
        finish(&mut schedule);
        finish(&mut schedule);
        assert_eq!(said(&schedule), (3, 2, 1, "c d".into()));
        finish(&mut schedule);
        finish(&mut schedule);
        assert_eq!(said(&schedule), (4, 4, 0, String::new()));
    }

    #[test]
    fn another_result_is_noticed() {
        let world = World::default();
        let a = derivation("a", &[], "");
        let all = graph(&[&a]);
        run(&world, &all, a.id());
        let roots = BTreeSet::from([a.id()]);
        let mut schedule = Schedule::new(&all, &roots, true, false).unwrap();
        schedule.begin(&world).unwrap();
        let task = schedule.take().unwrap();
        let other = Output { nar: NarHash::of(b"other"), size: 1 };
        let error = schedule.finished(task.node, Outputs::from([(Name::out(), other)]), &world);
        assert!(matches!(error, Err(ScheduleError::NotDeterministic { .. })));
    }

    /// What is known is had from others without what it is made of; if it is not to be had, it is
    /// made of what it needs, as if nobody had said that it could be.
    #[test]
    fn what_others_have_is_not_executed() {
        for had in [true, false] {
            let world = World::default();
            let a = derivation("a", &[], "");
            let b = derivation("b", &[a.id()], "");
            let c = derivation("c", &[b.id()], "");
            let all = graph(&[&a, &b, &c]);
            run(&world, &all, b.id());
            world.bytes.borrow_mut().clear();
            let roots = BTreeSet::from([c.id()]);
            let mut schedule = Schedule::new(&all, &roots, false, true).unwrap();
            schedule.begin(&world).unwrap();
            let mut tasks = Vec::new();
            while let Some(task) = schedule.take() {
                let name = all[&task.derivation].name().to_string();
                tasks.push((name.clone(), task.substitute.is_some()));
                match task.substitute {
                    Some(_) if !had => schedule.not_had(task.node, &world).unwrap(),
                    substitute => {
                        let known = world.realised.borrow().get(&task.action.id()).cloned();
                        let new = Output { nar: NarHash::of(name.as_bytes()), size: 1 };
                        let outputs = substitute.or(known).unwrap_or([(Name::out(), new)].into());
                        world.bytes.borrow_mut().extend(outputs.values().map(|output| output.nar));
                        schedule.finished(task.node, outputs, &world).unwrap();
                    }
                }
            }
            let expected: &[(&str, bool)] = match had {
                true => &[("b", true), ("c", false)],
                false => &[("b", true), ("a", false), ("b", false), ("c", false)],
            };
            let tasks: Vec<_> = tasks.iter().map(|(name, substitute)| (&**name, *substitute)).collect();
            assert_eq!(tasks, expected);
        }
    }

    #[test]
    fn graphs_that_do_not_hold_together() {
        let a = derivation("a", &[], "");
        let b = derivation("b", &[a.id()], "");
        let roots = BTreeSet::from([b.id()]);
        let error = Schedule::new(&graph(&[&b]), &roots, false, false).err();
        assert!(matches!(error, Some(GraphError::Dangling { .. })));
    }
}
