//! The network as commands see it: the node that runs, or one in this process, and what it says.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use node::{
    control::Node,
    driver::{Command, Driver, Note, Reachable},
    net::{Config, peers::PeersFile},
    substitute::Substitutes,
};
use protocol::{
    id::ActionId,
    key::{AttesterKey, SigningKey},
    wish::Wish,
};
use store::Store;
use tokio::{runtime::Runtime, sync::mpsc, task::JoinHandle};

use crate::{context::Context, exit::CliError, log_file::LogFile, output};

/// Commands that wait to be taken by the node.
pub(crate) const COMMANDS: usize = 64;

/// How long a node of our own may take to end.
const END: Duration = Duration::from_secs(1);

/// How long others may take to say what they have to say before one goes on with what is here.
const SETTLE: Duration = Duration::from_secs(10);

/// The wish for these actions. Of two of one key the later one has the higher number.
pub(crate) fn wish(key: &SigningKey, actions: impl IntoIterator<Item = ActionId>) -> Wish {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Wish::sign(key, u64::try_from(now.as_millis()).unwrap_or(u64::MAX), actions)
}

/// Whom to ask for what others built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Nobody: what is here is what there is.
    Nobody,
    /// The node that runs, or else those whom the owner wants to be connected to.
    Peers,
    /// Also whoever is found in the neighbourhood.
    Anybody,
}

/// A node in this process, for a command that needs one and finds none.
pub(crate) struct LocalNode {
    commands: mpsc::Sender<Command>,
    runtime: Option<Runtime>,
    running: Option<JoinHandle<()>>,
}

impl LocalNode {
    /// Starts one that listens nowhere.
    pub(crate) fn start(context: &Context, store: &Arc<Store>) -> Result<Self, CliError> {
        let config = Config { listen: Some(Vec::new()), ..context.config()?.network };
        let own = context.keys().load()?.map(|key| AttesterKey::of(&key));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let (commands, heard) = mpsc::channel(COMMANDS);
        let mut log = Log { json: context.json, quiet: true, file: None };
        let note = move |note: Note| match note {
            Note::Equivocation { .. } | Note::Trouble { .. } | Note::Banished { .. } => log.note(&note),
            _ => {}
        };
        let running = {
            let _entered = runtime.enter();
            let driver = Driver::new(store.clone(), &config, &[], own, note)?;
            runtime.spawn(driver.run(heard))
        };
        Ok(Self { commands, runtime: Some(runtime), running: Some(running) })
    }

    /// The way to talk to it.
    pub(crate) fn node(&self) -> Node {
        Node::Here(self.commands.clone())
    }
}

impl Drop for LocalNode {
    fn drop(&mut self) {
        if let (Some(runtime), Some(running)) = (self.runtime.take(), self.running.take()) {
            // What is here of archives is noted; what takes longer is fetched again.
            let end = async {
                let _ = self.commands.send(Command::Stop).await;
                let _ = running.await;
            };
            let _ = runtime.block_on(async { tokio::time::timeout(END, end).await });
            runtime.shutdown_background();
        }
    }
}

impl Context {
    /// What others built, and the way to it. The node that is asked lives for as long as the second
    /// of what is returned.
    pub(crate) fn substitutes(
        &self,
        store: &Arc<Store>,
        reach: Reach,
    ) -> Result<(Substitutes, Option<LocalNode>), CliError> {
        let (node, local) = self.node(store, reach)?;
        Ok((Substitutes::new(self.judgement(store, None)?, node), local))
    }

    /// The way to others: by the node that runs, or by one of our own if it is clear whom to ask,
    /// which lives for as long as the second of what is returned. What they said so far is here when
    /// this returns, or they are slow.
    pub(crate) fn node(
        &self,
        store: &Arc<Store>,
        reach: Reach,
    ) -> Result<(Option<Node>, Option<LocalNode>), CliError> {
        let (node, local) = match (reach, Node::there(&self.home)) {
            (Reach::Nobody, _) => (None, None),
            (_, Ok(node)) => (Some(node), None),
            (Reach::Peers, Err(_)) if PeersFile::new(&self.home).read()?.peers.is_empty() => (None, None),
            (Reach::Peers | Reach::Anybody, Err(_)) => {
                let local = LocalNode::start(self, store)?;
                (Some(local.node()), Some(local))
            }
        };
        if let Some(node) = node.clone()
            && !self.block_on(async move { node.settle(SETTLE).await })??
        {
            self.tell(&format!("not everybody has answered within {} seconds", SETTLE.as_secs()));
        }
        Ok((node, local))
    }
}

/// Where a node's notes go.
pub(crate) struct Log {
    pub(crate) json: bool,
    /// Only trouble is worth a line.
    pub(crate) quiet: bool,
    /// Instead of stderr.
    pub(crate) file: Option<LogFile>,
}

impl Log {
    /// A line of the log.
    pub(crate) fn note(&mut self, note: &Note) {
        if self.json {
            return self.line(&output::envelope("node", note).to_string());
        }
        let line = match note {
            Note::Listening { address } => format!("listening on {address}"),
            Note::Reachable { reachable } => format!("reachable: {}", self::reachable(reachable)),
            Note::Fetched { nar } => format!("fetched {nar}"),
            Note::NotFetched { nar, why } => format!("cannot fetch {nar}: {why:?}"),
            Note::Connected { node, address } => format!("connected to {node} at {address}"),
            Note::Disconnected { node } => format!("disconnected from {node}"),
            Note::Banished { node, why } => format!("will not listen to {node} for a while: {why:?}"),
            Note::Equivocation { attester } => {
                format!("{attester} said two different things at one place: it counts no more")
            }
            Note::Trouble { what } => format!("trouble: {what}"),
        };
        if !self.quiet || matches!(note, Note::Trouble { .. } | Note::Equivocation { .. }) {
            self.line(&output::plain(&line));
        }
    }

    pub(crate) fn line(&mut self, line: &str) {
        match &mut self.file {
            Some(file) => file.write(line),
            None => output::complain(line),
        }
    }
}

/// Whether others can connect, for people.
pub(crate) fn reachable(reachable: &Reachable) -> String {
    let list = |addresses: &BTreeSet<_>| {
        let texts: Vec<_> = addresses.iter().map(ToString::to_string).collect();
        output::plain(&texts.join(", "))
    };
    match reachable {
        Reachable::Unknown => "nobody has tried yet".into(),
        Reachable::Yes { at } => format!("at {}", list(at)),
        Reachable::Relayed { at } => format!("by way of others, at {}", list(at)),
        Reachable::No { tried } => format!("no: others tried {}", list(tried)),
    }
}
