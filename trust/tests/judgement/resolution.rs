//! Whole graphs, by hashes alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
};

use proptest::prelude::*;
use protocol::{
    derivation::{Build, Derivation, Fetch, Input, Limits, Recipe, Step},
    graph::GraphError,
    id::{ActionId, DerivationId, NarHash},
    name::{GuestPath, Name},
    output::{Output, Outputs},
    sri::{Algorithm, Sri},
};
use serde_json::{Value, json};
use trust::{
    ledger::{Execution, Record, Said, Voters},
    policy::Policy,
    resolve::{By, Known, Node, Resolution, ResolveError, State, resolve},
    standing::Standings,
};

use crate::support::{NOW, cases, key, name, platform, roster, short};

/// A graph, what people say of it, and what is here.
#[derive(Default)]
struct Graph {
    derivations: BTreeMap<DerivationId, Derivation>,
    ids: BTreeMap<String, DerivationId>,
    records: BTreeMap<ActionId, Vec<Record>>,
    executed: BTreeMap<ActionId, Execution>,
    here: BTreeSet<NarHash>,
    looked_up: Vec<ActionId>,
}

impl Known for Graph {
    type Error = Infallible;

    fn records(&mut self, action: &ActionId) -> Result<Vec<Record>, Infallible> {
        self.looked_up.push(*action);
        Ok(self.records.get(action).cloned().unwrap_or_default())
    }

    fn execution(&mut self, action: &ActionId) -> Result<Option<Execution>, Infallible> {
        Ok(self.executed.get(action).cloned())
    }

    fn has(&mut self, nar: &NarHash) -> Result<bool, Infallible> {
        Ok(self.here.contains(nar))
    }
}

/// A build that differs from others by `args`, and takes in the output `out` of others.
fn build(called: &str, args: &str, inputs: &[DerivationId]) -> Derivation {
    let input = |(n, derivation): (usize, &DerivationId)| {
        (name(&format!("i{n}")), Input::Output { derivation: *derivation, output: Name::out() })
    };
    let source = (name("src"), Input::Nar(NarHash::from_bytes([1; 32])));
    Derivation::build(Build {
        name: name(called),
        recipe: Recipe {
            steps: vec![Step {
                run: GuestPath::new("/in/src/x.wasm").unwrap(),
                args: vec![args.into()],
                stdin: None,
                stdout: None,
                cwd: None,
            }],
            env: BTreeMap::new(),
            stdin: "{}".into(),
            outputs: BTreeSet::from([Name::out(), name("dev")]),
            executable: BTreeSet::new(),
        },
        inputs: inputs.iter().enumerate().map(input).chain([source]).collect(),
        limits: Limits::default(),
    })
    .unwrap()
}

/// What executing an action gives, `lie` being empty if it is done right.
fn gives(action: ActionId, lie: &str, fetch: bool) -> Outputs {
    let names = if fetch { vec!["out"] } else { vec!["dev", "out"] };
    let output = |which: &str| {
        let nar = NarHash::of(format!("{action} {which} {lie}").as_bytes());
        (name(which), Output { nar, size: 100 + which.len() as u64 })
    };
    names.into_iter().map(output).collect()
}

impl Graph {
    /// `c:a b` builds `c` from `a` and `b`; `c!` is a fetch.
    fn new(text: &str) -> Self {
        let mut graph = Self::default();
        for node in text.split(',').map(str::trim) {
            let (called, inputs) = node.split_once(':').unwrap_or((node, ""));
            let inputs: Vec<_> = inputs.split_whitespace().map(|input| graph.ids[input]).collect();
            let derivation = match called.strip_suffix('!') {
                Some(called) => Derivation::fetch(Fetch {
                    name: name(called),
                    locations: vec!["https://example.org/a".into()],
                    sri: Sri::new(Algorithm::Blake3, called.bytes().cycle().take(32).collect()).unwrap(),
                    executable: false,
                })
                .unwrap(),
                None => build(called, called, &inputs),
            };
            graph.add(derivation);
        }
        graph
    }

    fn add(&mut self, derivation: Derivation) {
        self.ids.insert(derivation.name().to_string(), derivation.id());
        self.derivations.insert(derivation.id(), derivation);
    }

    fn resolve(&mut self, roots: &str, people: &str, policy: Value) -> Resolution {
        self.try_resolve(roots, people, policy).unwrap()
    }

    fn try_resolve(
        &mut self,
        roots: &str,
        people: &str,
        policy: Value,
    ) -> Result<Resolution, ResolveError<Infallible>> {
        let roots = roots.split_whitespace().map(|root| self.ids[root]).collect();
        let roster = roster(people);
        let voters = Voters::new(&roster, Some(key("self")), &Standings::default(), NOW);
        let policy = Policy::compile(&policy, &roster, NOW).unwrap();
        let derivations = self.derivations.clone();
        self.looked_up.clear();
        resolve(&derivations, &roots, self, &voters, &policy)
    }

    /// `who` builds all of the graph, and lies where it is said: each of `lies` is `name=lie`.
    fn build_all(&mut self, who: &str, lies: &str) {
        for (_, action, outputs) in self.execute(lies) {
            let said = Said::Built { outputs, witness: None, platform: platform("") };
            let record = Record { action, attester: key(who), seq: 0, said };
            self.records.entry(action).or_default().push(record);
        }
    }

    /// What is executed for `called`, when all is done right.
    fn honest(&self, called: &str) -> (ActionId, Outputs) {
        let all = self.execute("");
        let (_, action, outputs) = all.into_iter().find(|(name, ..)| name == called).unwrap();
        (action, outputs)
    }

    /// Executes everything, innermost first.
    fn execute(&self, lies: &str) -> Vec<(String, ActionId, Outputs)> {
        let mut done: BTreeMap<DerivationId, Outputs> = BTreeMap::new();
        let mut all = Vec::new();
        while done.len() < self.derivations.len() {
            for (id, derivation) in &self.derivations {
                let Ok(action) = derivation.resolve(|id, name| Some(done.get(id)?[name].nar)) else {
                    continue;
                };
                let called = derivation.name().to_string();
                let lie = lies.split_whitespace().find_map(|lie| lie.strip_prefix(&format!("{called}=")));
                let fetch = derivation.outputs().len() == 1;
                let outputs = gives(action.id(), lie.unwrap_or_default(), fetch);
                if done.insert(*id, outputs.clone()).is_none() {
                    all.push((called, action.id(), outputs));
                }
            }
        }
        all
    }

    fn executed_here(&mut self, called: &str) {
        let (action, outputs) = self.honest(called);
        self.here.extend(outputs.values().map(|output| output.nar));
        self.executed.insert(action, Execution { outputs, platform: platform(""), transcript: None });
    }

    fn download(&self, called: &str) -> BTreeMap<NarHash, u64> {
        self.honest(called).1.values().map(|output| (output.nar, output.size)).collect()
    }

    /// The one output of a node that others take in.
    fn out(&self, called: &str) -> BTreeMap<NarHash, u64> {
        let output = self.honest(called).1[&Name::out()];
        BTreeMap::from([(output.nar, output.size)])
    }
}

/// Each node as `name:state`, in order of names.
fn states(resolution: &Resolution) -> String {
    let state = |node: &Node| match &node.state {
        State::Accepted { by: By::Here, .. } => "here".into(),
        State::Accepted { by: By::Quorum, .. } => "accepted".into(),
        State::Execute { verdict, .. } => short(verdict),
        State::Blocked { on } => format!("blocked{}", on.len()),
    };
    let states: BTreeSet<_> =
        resolution.nodes.iter().map(|node| format!("{}:{}", node.name, state(node))).collect();
    states.into_iter().collect::<Vec<_>>().join(" ")
}

const TWO: &str = "a, b, c";

fn two() -> Value {
    json!({ "rule": { "atLeast": 2, "of": ["a", "b", "c"] } })
}

/// Nothing but the root is downloaded, whatever it was built with.
#[test]
fn only_the_root_is_downloaded() {
    let mut graph = Graph::new("src!, clang:src, lib:clang, app:clang lib, other:lib");
    for who in ["a", "b"] {
        graph.build_all(who, "");
    }
    let resolution = graph.resolve("app", TWO, two());
    assert_eq!(states(&resolution), "app:accepted clang:accepted lib:accepted src:accepted");
    assert!(resolution.complete() && resolution.execute().next().is_none());
    assert_eq!(resolution.download, graph.download("app"));
    assert!(resolution.download_later.is_empty());
    assert_eq!(resolution.download_bytes(), 206);
    assert_eq!(resolution.nodes.iter().filter(|node| node.root).count(), 1);
    assert_eq!(resolution.nodes.iter().filter(|node| node.fetch).count(), 1);
    let value = serde_json::to_value(&resolution).unwrap();
    assert_eq!(value["nodes"][0]["state"]["accepted"]["by"], "quorum");
    assert_eq!(value["download"].as_object().unwrap().len(), 2);
    // Nor is what is here already.
    graph.here.extend(graph.download("app").keys().skip(1));
    assert_eq!(graph.resolve("app", TWO, two()).download.len(), 1);
}

/// Each node comes behind what it needs.
#[test]
fn nodes_are_in_order() {
    let mut graph = Graph::new("a, b:a, c:a b, d:c a, e:d b");
    let resolution = graph.resolve("e", TWO, two());
    let at: BTreeMap<_, _> =
        resolution.nodes.iter().enumerate().map(|(n, node)| (node.derivation, n)).collect();
    for node in &resolution.nodes {
        for needs in graph.derivations[&node.derivation].dependencies() {
            assert!(at[&needs] < at[&node.derivation]);
        }
    }
    assert_eq!(resolution.nodes.len(), 5);
}

#[test]
fn what_is_not_accepted_is_executed_and_blocks() {
    let mut graph = Graph::new("src!, tool:src, lib:tool, data!, app:lib data, top:app data");
    graph.build_all("a", "");
    graph.build_all("b", "lib=wrong");
    // `a` and `b` part at `lib`, and from there on have different actions.
    let resolution = graph.resolve("top", TWO, two());
    let expected = "app:blocked1 data:accepted lib:pending src:accepted tool:accepted top:blocked1";
    assert_eq!(states(&resolution), expected);
    assert!(!resolution.complete());
    let execute: Vec<_> = resolution.execute().map(|node| node.name.as_str()).collect();
    assert_eq!(execute, ["lib"]);
    let verdict = resolution.execute().next().unwrap().state.verdict().unwrap();
    assert_eq!(verdict.reasoning.missing, [name("c")]);
    assert_eq!(resolution.download, graph.out("tool"), "what goes into `lib`, and no other output of it");
    assert_eq!(resolution.download_later, graph.download("data"), "what goes into what is blocked");
    let blocked = resolution.nodes.iter().find(|node| node.name.as_str() == "app").unwrap();
    assert_eq!(blocked.state, State::Blocked { on: vec![graph.ids["lib"]] });
    assert_eq!((blocked.state.verdict(), blocked.state.outputs()), (None, None));
    // When it was executed here, the rest is known.
    graph.executed_here("lib");
    let resolution = graph.resolve("top", TWO, two());
    let expected = "app:pending data:accepted lib:here src:accepted tool:accepted top:blocked1";
    assert_eq!(states(&resolution), expected);
    assert_eq!(resolution.download, graph.download("data"));
    assert!(resolution.download_later.is_empty(), "nothing is in both");
}

/// Two agree about the root, but not about what it was made from.
#[test]
fn agreement_about_the_root_is_not_enough() {
    let mut graph = Graph::new("lib, app:lib");
    let (app, outputs) = graph.honest("app");
    for (who, lie) in [("a", ""), ("b", "lib=other")] {
        graph.build_all(who, lie);
        let said = Said::Built { outputs: outputs.clone(), witness: None, platform: platform("") };
        graph.records.entry(app).or_default().push(Record { action: app, attester: key(who), seq: 1, said });
    }
    let resolution = graph.resolve("app", "a, b", json!({ "rule": { "atLeast": "all", "of": ["a", "b"] } }));
    assert_eq!(states(&resolution), "app:blocked1 lib:disputed");
}

#[test]
fn what_was_executed_here_is_believed() {
    let mut graph = Graph::new("lib, app:lib");
    for who in ["a", "b"] {
        graph.build_all(who, "lib=wrong");
    }
    let resolution = graph.resolve("app", TWO, two());
    assert_eq!(states(&resolution), "app:accepted lib:accepted");
    graph.executed_here("lib");
    let resolution = graph.resolve("app", TWO, two());
    assert_eq!(states(&resolution), "app:untrusted lib:here", "the next action is another one");
    let lib = resolution.nodes.iter().find(|node| node.name.as_str() == "lib").unwrap();
    assert!(lib.state.verdict().unwrap().reasoning.alarm, "the others got something else");
    assert_eq!(lib.state.outputs(), Some(&graph.honest("lib").1));
    let dissent = |node: &Node| node.state.dissent().map(|vote| vote.voter.to_string()).collect::<Vec<_>>();
    assert_eq!(dissent(lib), ["a", "b"]);
    assert_eq!(dissent(resolution.nodes.last().unwrap()), [""; 0]);
    // But not what has other outputs than the action.
    let (action, _) = graph.honest("lib");
    graph.executed.get_mut(&action).unwrap().outputs.pop_first();
    assert_eq!(states(&graph.resolve("app", TWO, two())), "app:accepted lib:accepted");
}

/// Whoever names other outputs than the action has, says nothing of it.
#[test]
fn outputs_must_be_those_of_the_action() {
    let mut graph = Graph::new("lib, app:lib");
    for who in ["a", "b"] {
        graph.build_all(who, "");
    }
    let (action, _) = graph.honest("lib");
    for record in graph.records.get_mut(&action).unwrap() {
        if let Said::Built { outputs, .. } = &mut record.said {
            outputs.remove(&Name::out());
        }
    }
    assert_eq!(states(&graph.resolve("app", TWO, two())), "app:blocked1 lib:untrusted");
}

/// Two derivations that resolve to one action are looked up once; but what applies to a package
/// goes by its name.
#[test]
fn one_action_is_judged_once() {
    let mut graph = Graph::new("one:, two:");
    graph.derivations.clear();
    for called in ["one", "two", "three"] {
        graph.add(build(called, "the same", &[]));
    }
    graph.build_all("a", "");
    let policy = json!({ "rule": "a" });
    let resolution = graph.resolve("one two three", TWO, policy);
    assert_eq!(states(&resolution), "one:accepted three:accepted two:accepted");
    assert_eq!(graph.looked_up.len(), 1);
    assert_eq!(resolution.download.len(), 2);
    let policy = json!({ "rule": "a", "overrides": [{ "package": "two", "rule": "b" }] });
    assert_eq!(
        states(&graph.resolve("one two three", TWO, policy)),
        "one:accepted three:accepted two:untrusted"
    );
    assert_eq!(graph.looked_up.len(), 2);
}

#[test]
fn broken_graphs_are_refused() {
    let mut graph = Graph::new("lib, app:lib");
    let lib = graph.ids["lib"];
    let kept = graph.derivations.remove(&lib).unwrap();
    let error = graph.try_resolve("app", TWO, two()).unwrap_err();
    assert!(
        matches!(error, ResolveError::Graph(GraphError::Dangling { from, to }) if (from, to) == (graph.ids["app"], lib))
    );
    // Looked up by something else than its hash: it could need itself.
    let app = graph.derivations[&graph.ids["app"]].clone();
    graph.derivations.insert(lib, app);
    let error = graph.try_resolve("app", TWO, two()).unwrap_err();
    assert!(
        matches!(&error, ResolveError::Graph(GraphError::Circle(name)) if name.as_str() == "app"),
        "{error}"
    );
    graph.derivations.insert(lib, kept);
    let mut wants = build("wants", "x", &[]);
    if let protocol::derivation::Kind::Build(build) = wants.kind().clone() {
        let mut build = build;
        build.inputs.insert(name("doc"), Input::Output { derivation: lib, output: name("doc") });
        wants = Derivation::build(build).unwrap();
    }
    graph.add(wants);
    let error = graph.try_resolve("wants", TWO, two()).unwrap_err();
    assert_eq!(error.to_string(), "`wants` refers to the output `doc` of `lib`, which has no such output");
}

/// As long as a chain may be, the stack does not grow with it.
#[test]
fn long_chains_are_walked() {
    let mut graph = Graph::default();
    let mut last = None;
    for n in 0..3_000 {
        let derivation = build(&format!("n{n}"), "x", last.as_slice());
        last = Some(derivation.id());
        graph.add(derivation);
    }
    let resolution = graph.resolve("n2999", TWO, two());
    assert_eq!(resolution.nodes.len(), 3_000);
    assert_eq!(resolution.execute().count(), 1);
    assert_eq!(resolution.nodes.last().unwrap().name.as_str(), "n2999");
}

proptest! {
    #![proptest_config(cases(300))]

    /// However many lie and wherever: fewer than the threshold never make anything accepted that an
    /// honest machine would not get, and enough honest ones make everything accepted.
    #[test]
    fn liars_below_the_threshold_change_nothing(
        edges in prop::collection::vec(prop::collection::btree_set(0..8usize, 0..3), 2..8),
        lies in prop::collection::btree_set(0..8usize, 0..4),
        honest in 0..3usize,
    ) {
        let node = |(n, inputs): (usize, &BTreeSet<usize>)| {
            let inputs = inputs.iter().filter(|input| **input < n).map(|input| format!("n{input}"));
            format!("n{n}:{}", inputs.collect::<Vec<_>>().join(" "))
        };
        let text = edges.iter().enumerate().map(node).collect::<Vec<_>>().join(",");
        let mut graph = Graph::new(&text);
        let lies = lies.iter().map(|n| format!("n{n}=wrong")).collect::<Vec<_>>().join(" ");
        graph.build_all("c", &lies);
        for who in ["a", "b"].into_iter().take(honest) {
            graph.build_all(who, "");
        }
        let root = format!("n{}", edges.len() - 1);
        let resolution = graph.resolve(&root, TWO, two());
        for node in &resolution.nodes {
            if let Some(outputs) = node.state.outputs() {
                prop_assert_eq!(outputs, &graph.honest(node.name.as_str()).1);
            }
        }
        prop_assert!(honest < 2 || resolution.complete());
        if honest == 2 {
            prop_assert_eq!(resolution.download, graph.download(&root));
        }
    }
}
