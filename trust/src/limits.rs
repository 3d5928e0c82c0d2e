//! Every limit of the judgement (SPEC §13 to §16), with its reason.

/// Longest `trust.json`, in bytes: the longest entries, [`ATTESTERS`] times, fit.
pub const ROSTER_BYTES: usize = 8 << 20;

/// Attesters of a roster. One person knows fewer; a public list of rebuilders has some dozens.
pub const ATTESTERS: usize = 1024;

/// Groups that one attester is in.
pub const GROUPS: usize = 32;

/// Longest note of a roster and longest reason of an exemption, in bytes.
pub const NOTE_BYTES: usize = 1024;

/// Keys that are followed from one to its successor: a new one each year, for a life.
pub const SUCCESSIONS: usize = 64;

/// Named rules of a policy; so many overrides and so many exemptions, too.
pub const RULES: usize = 256;

/// How deep rules may be nested, when names are replaced by what they stand for.
pub const RULE_DEPTH: usize = 16;

/// Rules of a policy altogether, each attester counted wherever one is meant, when names are
/// replaced by what they stand for: `everyone`, at the limit, in sixty rules.
pub const RULE_NODES: usize = 65_536;

/// Derivations of one graph that is resolved.
pub const GRAPH: usize = 1 << 20;

/// Nodes of a rule that the search for the smallest coalition looks at, before it gives what it
/// has as an upper bound: about a second.
pub const COALITION_WORK: usize = 10_000_000;
