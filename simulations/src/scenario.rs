//! Scenarios: a claim, with its peers, its liars and its faults, as a file.
//!
//! Read strictly: an unknown key is an error, and so is a number that means nothing. All numbers are
//! whole, times in seconds unless a name says otherwise, shares in thousandths.

use std::collections::BTreeSet;

use protocol::name::Name;
use serde::Deserialize;
use trust::limits;

/// A scenario.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Scenario {
    /// What holds, in a sentence.
    pub claim: String,
    /// Nodes that are not hostile. Builders live on the first of them, one on each.
    pub nodes: usize,
    /// How many others a node dials, beside its two neighbours in a ring.
    pub links: usize,
    /// Nodes that execute what others say or wish, and sign what it gives: those behind the builders.
    /// They are in the roster, too.
    #[serde(default)]
    pub rebuilders: usize,
    /// Votes with which an action needs no more, for a rebuilder.
    #[serde(default = "three")]
    pub votes: usize,
    /// How long a rebuilder executes an action, from and to.
    #[serde(default = "seconds")]
    pub execution: [u64; 2],
    /// How long everything is built, said, lost and broken.
    pub trouble: u64,
    /// How long nothing is broken any more, before it is looked whether all is well.
    pub calm: u64,
    /// How many actions there are.
    pub actions: usize,
    /// Whether nodes fetch what they accept.
    #[serde(default)]
    pub fetch: bool,
    /// What is on its way.
    #[serde(default)]
    pub network: Network,
    /// What every node wants before it accepts.
    pub policy: Policy,
    /// Who builds: the roster of every node.
    #[serde(default)]
    pub builder: Vec<Builders>,
    /// Nodes that do not do what they should.
    #[serde(default)]
    pub hostile: Vec<Hostiles>,
    /// What breaks.
    #[serde(default)]
    pub fault: Vec<Fault>,
    /// What comes of it.
    #[serde(default)]
    pub expect: Expect,
}

/// How messages travel, and what clocks and disks do.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Network {
    /// Milliseconds that a message takes, from and to; one in a hundred takes ten times as long.
    pub latency: [u64; 2],
    /// Messages that never arrive, of a thousand.
    pub loss: u64,
    /// Milliseconds that a disk takes, from and to.
    pub disk: [u64; 2],
    /// How many thousandths clocks go too fast or too slow, at most.
    pub drift: u64,
    /// Bytes that a node sends in a millisecond.
    pub upload: u64,
}

impl Default for Network {
    fn default() -> Self {
        Self { latency: [5, 150], loss: 0, disk: [1, 20], drift: 0, upload: 4 << 10 }
    }
}

/// What every node wants before it accepts.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Policy {
    /// So many of the builders.
    pub at_least: usize,
    /// Who differ in these.
    #[serde(default)]
    pub distinct: Vec<Attribute>,
    /// What it means that somebody says something else.
    #[serde(default)]
    pub dissent: Dissent,
    /// What is wanted of the proof of execution.
    #[serde(default)]
    pub witness: Witness,
    /// Seconds after which everybody reveals what he got, if he commits to it before: then votes
    /// count of those alone whose commitment was here before anybody had revealed anything. No rule
    /// of the protocol: what it would buy is to be seen.
    pub reveal: Option<u64>,
}

/// In what voters differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Attribute {
    /// Who runs them.
    Operator,
    /// The processor's architecture.
    Arch,
}

/// See [`trust::policy::Dissent`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Dissent {
    /// Nothing is accepted.
    Hold,
    /// It is told.
    #[default]
    Alarm,
}

/// See [`trust::policy::WitnessRule`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Witness {
    /// Nothing.
    #[default]
    Any,
    /// There is one.
    Present,
    /// It was checked here.
    Verified,
}

/// Builders of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Builders {
    /// How many.
    pub count: usize,
    /// What they do.
    #[serde(rename = "as")]
    pub kind: BuilderKind,
    /// Who runs all of them; each runs himself if it is not said.
    pub operator: Option<String>,
    /// Their architecture.
    #[serde(default = "x86_64")]
    pub arch: String,
}

pub(crate) fn x86_64() -> String {
    "x86_64".into()
}

/// As `watch` has it, if it is not configured.
fn three() -> usize {
    3
}

fn seconds() -> [u64; 2] {
    [1, 10]
}

/// What a builder does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BuilderKind {
    /// It builds, and says what came of it.
    Honest,
    /// It names outputs that all who collude have agreed about.
    Collude,
    /// It says one thing to one half of its neighbours and another to the others, at one place.
    Equivocate,
    /// It signs what another said as soon as it hears it, without a witness.
    Copy,
    /// The same, with a witness that it made up.
    CopyWithWitness,
    /// It builds with an engine that is wrong about one action, like all of this kind.
    Miscompile,
    /// It loses its disk when half of the trouble is over, and goes on with its key all the same.
    Restored,
    /// It is honest, and goes on under another key when half of the trouble is over.
    Succeed,
    /// It is honest until its key is stolen, when half of the trouble is over. The thief names what
    /// all who collude have agreed about, and revokes the key from the end of its feed on, which
    /// changes nothing; the owner revokes it from the theft on, near the end of the trouble.
    Stolen,
    /// It executes nothing, and wishes each minute for all that it has not accepted.
    Wish,
    /// It rebuilds: [`Scenario::rebuilders`].
    #[serde(skip)]
    Rebuild,
}

impl BuilderKind {
    /// Whether whoever does that executes nothing and says what others say.
    pub(crate) fn copies(self) -> bool {
        matches!(self, Self::Copy | Self::CopyWithWitness)
    }

    /// Whether whoever does that does what it should.
    pub(crate) fn is_honest(self) -> bool {
        match self {
            Self::Honest | Self::Wish | Self::Rebuild | Self::Succeed => true,
            Self::Collude
            | Self::Equivocate
            | Self::Copy
            | Self::CopyWithWitness
            | Self::Miscompile
            | Self::Restored
            | Self::Stolen => false,
        }
    }
}

/// Hostile nodes of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Hostiles {
    /// How many.
    pub count: usize,
    /// What they do.
    #[serde(rename = "as")]
    pub kind: HostileKind,
    /// Keys of strangers that each has, of sybils alone.
    #[serde(default)]
    pub keys: usize,
}

/// What a hostile node does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostileKind {
    /// It takes what it is told and says that it has nothing.
    Withhold,
    /// It lies about heads, answers with something else, and sends other bytes.
    Poison,
    /// It sends forged and unreadable gossip and wishes, and asks without end.
    Spam,
    /// It wishes, with the keys of many strangers, for thousands of actions that nobody knows.
    FloodWishes,
    /// It speaks with the keys of many strangers, who all name the same wrong outputs.
    Sybil,
    /// It says again what it heard long ago, and tells of heads as they were.
    Replay,
    /// It takes, and has never time for anybody.
    FreeRide,
    /// It promises more of every feed than there is, and then says nothing, not even that it has no
    /// time.
    Silent,
    /// As [`HostileKind::Withhold`], for the node that is cut off from all others
    /// ([`Fault::Eclipse`]).
    Eclipse,
}

/// Something that breaks, so many times, at some moment of the trouble.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", tag = "kind")]
pub enum Fault {
    /// The network falls into two halves.
    Partition {
        /// How often.
        times: usize,
        /// For how long, from and to.
        seconds: [u64; 2],
    },
    /// Nodes are cut off one after the other, and come back in another order.
    Swizzle {
        /// How often.
        times: usize,
        /// How many.
        nodes: usize,
    },
    /// A node is killed, and starts again with its disk.
    Crash {
        /// How often.
        times: usize,
        /// How long it is down, from and to.
        seconds: [u64; 2],
    },
    /// A node that does not build is killed, and starts again with nothing.
    LoseDisk {
        /// How often.
        times: usize,
        /// How long it is down, from and to.
        seconds: [u64; 2],
    },
    /// A node that does not build is not there at first, and comes at some moment.
    Arrive {
        /// How many.
        times: usize,
    },
    /// A node that does not build leaves, for good. Who wanted to be connected to it finds another.
    Leave {
        /// How many.
        times: usize,
    },
    /// A disk takes two seconds longer for everything.
    SlowDisk {
        /// How often.
        times: usize,
        /// For how long, from and to.
        seconds: [u64; 2],
    },
    /// A record, or an archive, on a disk is not what it was. It is noticed when it is read.
    Rot {
        /// How often.
        times: usize,
    },
    /// All that one node is connected to is hostile ([`HostileKind::Eclipse`]): the last of those
    /// that are not.
    Eclipse,
}

/// What comes of it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Expect {
    /// What every node has accepted at the end.
    pub accepted: Accepted,
    /// Whether so many lie that wrong outputs are accepted: then it must happen.
    pub fooled: Fooled,
    /// Whether every node has fetched all that it accepted.
    pub fetched: bool,
    /// How many of the builders everybody knows to have equivocated.
    pub equivocators: usize,
    /// How many of a thousand votes may be copies that count: of all that were copied, at all nodes.
    pub copies: Option<u64>,
}

impl Default for Expect {
    fn default() -> Self {
        Self { accepted: Accepted::All, fooled: Fooled::Never, fetched: false, equivocators: 0, copies: None }
    }
}

/// Whether somebody accepts wrong outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Fooled {
    /// Nobody, ever.
    Never,
    /// Somebody does, and nobody any more at the end.
    Meanwhile,
    /// Somebody does at the end.
    Finally,
}

/// Of how many actions outputs are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Accepted {
    /// All.
    All,
    /// Whatever comes of it.
    Some,
    /// None, ever.
    None,
}

/// Why a file is no scenario.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// It cannot be read.
    #[error("not a scenario")]
    Read(#[source] Box<toml::de::Error>),
    /// The parts do not fit together.
    #[error("{0}")]
    Sense(#[from] Nonsense),
}

/// What does not fit together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Nonsense {
    /// Too few nodes.
    #[error(
        "{nodes} nodes, but there must be 3, one for each of {builders} builders, and one more for each rebuilder ({rebuilders})"
    )]
    Nodes {
        /// Nodes.
        nodes: usize,
        /// Builders.
        builders: usize,
        /// Rebuilders.
        rebuilders: usize,
    },
    /// More voters are wanted than there are, or none.
    #[error("{at_least} of {attesters} builders and rebuilders are wanted")]
    Threshold {
        /// Wanted.
        at_least: usize,
        /// Builders and rebuilders.
        attesters: usize,
    },
    /// More than a roster has room for.
    #[error("{attesters} builders and rebuilders, but a roster has at most {limit}", limit = limits::ATTESTERS)]
    Roster {
        /// Builders and rebuilders.
        attesters: usize,
    },
    /// Operators must differ, and there are too few.
    #[error("{at_least} operators are wanted, of {operators}")]
    Operators {
        /// Wanted.
        at_least: usize,
        /// Operators.
        operators: usize,
    },
    /// An operator or an architecture is no name (SPEC §5.1).
    #[error("an operator or an architecture is no name, of the builders in place {place}")]
    Name {
        /// Which builders, from 1.
        place: usize,
    },
    /// Only sybils have keys, and they have.
    #[error("`keys` are for hostile nodes `as = \"sybil\"`, and for no others")]
    Keys,
    /// From more to less.
    #[error("from {from} to {to} is no range")]
    Range {
        /// The first.
        from: u64,
        /// The last.
        to: u64,
    },
    /// More than all.
    #[error("{share} of a thousand")]
    Share {
        /// The share.
        share: u64,
    },
    /// No time, no actions, or no upload.
    #[error("`{field}` is 0")]
    Zero {
        /// Which.
        field: &'static str,
    },
    /// More is to break than there is.
    #[error("{wanted} nodes are to be cut off, of {nodes}")]
    Swizzle {
        /// To be cut off.
        wanted: usize,
        /// Nodes.
        nodes: usize,
    },
    /// More nodes are to come, or to leave, than there are.
    #[error("{wanted} nodes are to come or to leave, of {readers} that do not build")]
    Readers {
        /// To come, or to leave.
        wanted: usize,
        /// Nodes that do not build.
        readers: usize,
    },
    /// One without the other.
    #[error("an eclipse needs hostile nodes `as = \"eclipse\"`, and they need it")]
    Eclipse,
}

impl Scenario {
    /// Reads one.
    ///
    /// # Errors
    ///
    /// [`ScenarioError`].
    pub fn parse(text: &str) -> Result<Self, ScenarioError> {
        let scenario: Self = toml::from_str(text).map_err(|error| ScenarioError::Read(Box::new(error)))?;
        scenario.check()?;
        Ok(scenario)
    }

    /// How many builders there are.
    pub fn builders(&self) -> usize {
        self.builder.iter().map(|builders| builders.count).sum()
    }

    /// How many nodes have a key of their own: builders, and rebuilders behind them.
    pub fn attesters(&self) -> usize {
        self.builders() + self.rebuilders
    }

    /// How many nodes there are, the hostile ones included, which come last.
    pub fn all_nodes(&self) -> usize {
        self.nodes + self.hostile.iter().map(|hostiles| hostiles.count).sum::<usize>()
    }

    /// The group that a hostile node is of, by the number of the node.
    pub(crate) fn group_of(&self, node: usize) -> Option<&Hostiles> {
        let each = self.hostile.iter().flat_map(|hostiles| std::iter::repeat_n(hostiles, hostiles.count));
        each.into_iter().nth(node.checked_sub(self.nodes)?)
    }

    fn check(&self) -> Result<(), Nonsense> {
        let (nodes, builders, rebuilders) = (self.nodes, self.builders(), self.rebuilders);
        if nodes < 3 || builders + rebuilders > nodes {
            return Err(Nonsense::Nodes { nodes, builders, rebuilders });
        }
        let at_least = self.policy.at_least;
        let attesters = self.attesters();
        if at_least == 0 || at_least > attesters {
            return Err(Nonsense::Threshold { at_least, attesters });
        }
        if attesters > limits::ATTESTERS {
            return Err(Nonsense::Roster { attesters });
        }
        let is_name = |text: &String| Name::new(text.as_str()).is_ok();
        let named =
            |builders: &Builders| is_name(&builders.arch) && builders.operator.as_ref().is_none_or(is_name);
        if let Some(place) = self.builder.iter().position(|builders| !named(builders)) {
            return Err(Nonsense::Name { place: place + 1 });
        }
        let alone = self.builder.iter().filter(|builders| builders.operator.is_none());
        let shared: BTreeSet<_> =
            self.builder.iter().filter_map(|builders| builders.operator.as_ref()).collect();
        let operators = shared.len() + alone.map(|builders| builders.count).sum::<usize>() + rebuilders;
        if self.policy.distinct.contains(&Attribute::Operator) && operators < at_least {
            return Err(Nonsense::Operators { at_least, operators });
        }
        let sybil = |hostiles: &Hostiles| hostiles.kind == HostileKind::Sybil;
        if self.hostile.iter().any(|hostiles| sybil(hostiles) != (hostiles.keys > 0)) {
            return Err(Nonsense::Keys);
        }
        for share in [self.network.loss, self.network.drift, self.expect.copies.unwrap_or(0)] {
            if share >= 1000 {
                return Err(Nonsense::Share { share });
            }
        }
        let zeros =
            [("trouble", self.trouble), ("actions", self.actions as u64), ("upload", self.network.upload)];
        if let Some((field, _)) = zeros.into_iter().find(|(_, value)| *value == 0) {
            return Err(Nonsense::Zero { field });
        }
        range(self.network.latency)?;
        range(self.network.disk)?;
        range(self.execution)?;
        for fault in &self.fault {
            match fault {
                Fault::Partition { seconds, .. }
                | Fault::Crash { seconds, .. }
                | Fault::LoseDisk { seconds, .. }
                | Fault::SlowDisk { seconds, .. } => range(*seconds)?,
                Fault::Swizzle { nodes: wanted, .. } if *wanted > nodes => {
                    return Err(Nonsense::Swizzle { wanted: *wanted, nodes });
                }
                Fault::Arrive { times } | Fault::Leave { times } if *times > nodes - attesters => {
                    return Err(Nonsense::Readers { wanted: *times, readers: nodes - attesters });
                }
                Fault::Swizzle { .. }
                | Fault::Arrive { .. }
                | Fault::Leave { .. }
                | Fault::Rot { .. }
                | Fault::Eclipse => {}
            }
        }
        let hostile = self.hostile.iter().any(|hostiles| hostiles.kind == HostileKind::Eclipse);
        if hostile != self.fault.contains(&Fault::Eclipse) {
            return Err(Nonsense::Eclipse);
        }
        Ok(())
    }
}

fn range([from, to]: [u64; 2]) -> Result<(), Nonsense> {
    if from > to { Err(Nonsense::Range { from, to }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = "
        claim = 'It goes well'
        nodes = 4
        links = 1
        trouble = 10
        calm = 10
        actions = 2
        policy.atLeast = 2
        [[builder]]
        count = 3
        as = 'honest'
    ";

    #[test]
    fn scenarios_are_read_strictly() {
        let small = Scenario::parse(SMALL).unwrap();
        assert_eq!((small.builders(), small.all_nodes(), small.network), (3, 4, Network::default()));
        let refused = |from: &str, to: &str| {
            let error = Scenario::parse(&SMALL.replace(from, to)).unwrap_err();
            std::error::Error::source(&error).map_or(error.to_string(), ToString::to_string)
        };
        for (from, to, why) in [
            ("nodes = 4", "nodes = 4\nmany = 5", "unknown field `many`"),
            ("links = 1", "", "missing field `links`"),
            ("links = 1", "links = -1", "-1"),
            ("'honest'", "'good'", "unknown variant `good`"),
            ("nodes = 4", "nodes = 2", "2 nodes, but there must be 3, one for each of 3"),
            ("nodes = 4", "nodes = 4\nrebuilders = 2", "for each rebuilder (2)"),
            ("atLeast = 2", "atLeast = 4", "4 of 3 builders and rebuilders"),
            ("atLeast = 2", "atLeast = 0", "0 of 3 builders and rebuilders"),
            ("actions = 2", "actions = 2\nexecution = [2, 1]", "from 2 to 1"),
            ("as = 'honest'", "as = 'honest'\narch = 'not a name'", "place 1"),
            ("count = 3", "count = 3\noperator = 'a/b'", "place 1"),
            (
                "[[builder]]",
                "policy.distinct = ['operator']\n[[builder]]\noperator = 'acme'",
                "2 operators are wanted, of 1",
            ),
            ("[[builder]]", "[[hostile]]\ncount = 1\nas = 'spam'\nkeys = 2\n[[builder]]", "`keys` are for"),
            ("[[builder]]", "[[hostile]]\ncount = 1\nas = 'sybil'\n[[builder]]", "`keys` are for"),
            ("trouble = 10", "trouble = 0", "`trouble` is 0"),
            ("policy", "network.latency = [2, 1]\npolicy", "from 2 to 1"),
            ("policy", "network.loss = 1000\npolicy", "1000 of a thousand"),
            (
                "[[builder]]",
                "[[fault]]\nkind = 'rot'\ntimes = 1\nnodes = 2\n[[builder]]",
                "unknown field `nodes`",
            ),
            (
                "[[builder]]",
                "[[fault]]\nkind = 'swizzle'\ntimes = 1\nnodes = 5\n[[builder]]",
                "5 nodes are to be cut",
            ),
            (
                "[[builder]]",
                "[[fault]]\nkind = 'leave'\ntimes = 2\n[[builder]]",
                "2 nodes are to come or to leave, of 1",
            ),
            ("[[builder]]", "[[fault]]\nkind = 'eclipse'\n[[builder]]", "an eclipse needs"),
            ("[[builder]]", "[[hostile]]\ncount = 1\nas = 'eclipse'\n[[builder]]", "an eclipse needs"),
        ] {
            assert!(refused(from, to).contains(why), "{}", refused(from, to));
        }
    }
}
