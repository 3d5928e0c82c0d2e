//! Every limit of the judgement (SPEC §13 to §16) and of the peer (SPEC §17, §18), with its reason.
//! Times are in milliseconds.

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

/// Nodes of a rule that the search for the smallest coalition looks at, before it gives what it
/// has as an upper bound: about a second.
pub const COALITION_WORK: usize = 10_000_000;

/// How long an answer may take.
pub const PATIENCE: u64 = 30_000;

/// How often heads are asked of every connected node.
pub const ROUND: u64 = 60_000;

/// Answers with heads that are read of one node in one round: sixteen times what two nodes that
/// keep all feeds they may have can say.
pub const HEADS_PAGES: u32 = 16;

/// Feeds that are asked for at once.
pub const PULLS: usize = 8;

/// Batches of statements that are being verified at once; more gossip than that is left to be asked for.
pub const TASKS: usize = 16;

/// Feeds of strangers that are kept, and statements of all of them together. They weigh nothing:
/// this is what a node does for others, within bounds.
pub const STRANGERS: usize = 1024;
/// See [`STRANGERS`].
pub const STRANGERS_STATEMENTS: u64 = 100_000;

/// Statements and proofs that wait to be published; what is more is left to be asked for.
pub const OUTBOX: usize = 4096;

/// How many go into one gossip, unless they have waited for [`OUTBOX_DELAY`], and the
/// least time between two gossips. Gossipsub drops silently what comes faster.
pub const OUTBOX_BATCH: usize = 64;
/// See [`OUTBOX_BATCH`].
pub const OUTBOX_DELAY: u64 = 50;

/// Strikes after which a node is banished. Forgery and nonsense are never honest, but may be a bug
/// of an honest version, and are four; silence may be a bad line, and is one; who sends something
/// else than the archive that was asked for has all twelve at once.
pub const STRIKES: u32 = 12;

/// How long it takes until one strike is forgotten.
pub const STRIKE_LIFE: u64 = 600_000;

/// How long a node is refused that broke the rules too often, and how many such
/// nodes are remembered.
pub const BANISHED: u64 = 600_000;
/// See [`BANISHED`].
pub const BANISHED_NODES: usize = 1024;

/// Feeds of which one node may say that it has them.
pub const SAID: usize = 1 << 16;

/// Requests of one node: a burst, and how many are allowed again each second.
pub const REQUESTS: (u64, u64) = (512, 64);

/// Statements and proofs in the gossip of one node, likewise: a signature takes 40 µs to check.
pub const GOSSIP: (u64, u64) = (20_000, 2_000);

/// Archives that are wanted at once.
pub const WANTS: usize = 4096;

/// Pieces that are asked for at once, of all nodes: each is in memory while it comes.
pub const PIECES: usize = 64;

/// Pieces that one node is asked for at once.
pub const PIECES_OF_ONE: usize = 8;

/// How long a piece may take: at 10 KiB a second, the slowest line that is of any use.
pub const PIECE_PATIENCE: u64 = 120_000;

/// Pieces that may fail one after the other before a node is not asked for that archive any more.
pub const PIECE_FAILURES: u32 = 3;

/// Likewise for a node that has no time.
pub const PIECE_BUSY: u32 = 60;

/// How long a node that failed, or was busy, is left alone; and how long a piece may take at a node
/// whose speed is not known before another is asked for it.
pub const SLOW: u64 = 1_000;

/// How long whoever was found by a search has to connect.
pub const SEARCH_HOPE: u64 = 5_000;

/// Bytes a second below which a line is so slow that compressing pays.
pub const ZSTD_BELOW: u64 = 16 << 20;

/// How long a wish is remembered, and how often one attester may say one: whoever waits says it
/// again each minute.
pub const WISH_LIFE: u64 = 900_000;
/// See [`WISH_LIFE`].
pub const WISH_PAUSE: u64 = 10_000;

/// Wishes of strangers that are remembered: 9 KiB each.
pub const STRANGERS_WISHES: usize = 256;

/// Wishes in the gossip of one node: a burst, and how many are heard again each second. Those of a
/// thousand attesters who all wait fit.
pub const WISHES: (u64, u64) = (1024, 32);

/// Actions that are looked for at once.
pub const SEEKS: usize = 64;

/// Actions that wait to be rebuilt.
pub const REBUILDS: usize = 1 << 16;

/// How long a rebuilder waits for each of those whose turn it is before him; and if somebody waits
/// for the result.
pub const REBUILD_TURN: u64 = 600_000;
/// See [`REBUILD_TURN`].
pub const REBUILD_TURN_WISHED: u64 = 20_000;

/// How long an action that could not be executed is left alone: so long at first, four times as long
/// each time, never longer than that; and how often it is tried.
pub const REBUILD_PAUSE: u64 = 60_000;
/// See [`REBUILD_PAUSE`].
pub const REBUILD_PAUSE_MOST: u64 = 86_400_000;
/// See [`REBUILD_PAUSE`].
pub const REBUILD_FAILURES: u32 = 8;
