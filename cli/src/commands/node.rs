//! `node`: this machine's part of the network.

use std::{io::Write as _, process::ExitCode};

use node::{
    control::{self, ControlError},
    driver::{Driver, DriverError, Note},
};
use protocol::key::AttesterKey;

use crate::{
    context::Context,
    exit::{CliError, Code},
    output,
};

/// Commands that wait to be taken by the node.
const COMMANDS: usize = 64;

/// Run a node of the network, see how it is, stop it
///
/// A node keeps the feeds of everybody in the roster complete, passes on what is said, and serves
/// the store to the other commands of its user while it has it open.
#[derive(clap::Subcommand, Debug)]
pub(crate) enum NodeCommand {
    /// Run until it is stopped, in the foreground, with a log on stderr
    ///
    /// Prints its addresses, which others give to `assize peer add`. Listens on port 4720, unless
    /// the configuration or --listen says otherwise.
    Run(Run),
    /// Show whether a node runs, and what it knows
    Status,
    /// Stop the node that runs
    Stop,
}

/// How a node is run.
#[derive(clap::Args, Debug)]
pub(crate) struct Run {
    /// Listen here instead, as in /ip4/127.0.0.1/tcp/0; may be given several times
    #[arg(long, value_name = "ADDRESS")]
    listen: Vec<String>,

    /// Be connected to this node, too, whose address ends with /p2p/ID; may be given several times
    #[arg(long, value_name = "ADDRESS")]
    peer: Vec<String>,

    /// Look for no nodes in the local network
    #[arg(long)]
    no_mdns: bool,
}

impl NodeCommand {
    pub(crate) fn run(self, context: &Context) -> Result<ExitCode, CliError> {
        match self {
            Self::Run(run) => run.run(context),
            Self::Status => status(context),
            Self::Stop => stop(context),
        }
    }
}

impl Run {
    fn run(self, context: &Context) -> Result<ExitCode, CliError> {
        let mut config = context.config()?.network;
        if !self.listen.is_empty() {
            config.listen =
                Some(self.listen.iter().map(|text| super::peer::address(text)).collect::<Result<_, _>>()?);
        }
        if self.no_mdns {
            config.mdns = Some(false);
        }
        let more: Vec<_> =
            self.peer.iter().map(|text| super::peer::address(text)).collect::<Result<_, _>>()?;
        let own = context.keys().load()?.map(|key| AttesterKey::of(&key));
        let (store, service) = context.own_store()?;
        let (commands, heard) = tokio::sync::mpsc::channel(COMMANDS);
        let json = context.json;
        let (home, quiet) = (store.home().to_owned(), context.quiet);
        let note = move |note: Note| log(&note, json, quiet);
        let ended = commands.clone();
        context.block_on(async move {
            let driver = Driver::new(store, &config, &more, own, note)?;
            let socket = control::bind(&home)?;
            let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
            tokio::spawn(control::serve(socket, commands));
            tokio::spawn(async move {
                terminate.recv().await;
                let _ = ended.send(node::driver::Command::Stop).await;
            });
            driver.run(heard).await;
            // Whoever connects finds nobody, at once.
            let _ = std::fs::remove_file(control::socket(&home));
            drop(service);
            Ok::<_, CliError>(())
        })??;
        Ok(ExitCode::SUCCESS)
    }
}

/// A line of the log.
fn log(note: &Note, json: bool, quiet: bool) {
    if json {
        return output::complain(&output::envelope("node", note).to_string());
    }
    let line = match note {
        Note::Listening { address } => format!("listening on {address}"),
        Note::Connected { node, address } => format!("connected to {node} at {address}"),
        Note::Disconnected { node } => format!("disconnected from {node}"),
        Note::Banished { node, why } => format!("will not listen to {node} for a while: {why:?}"),
        Note::Equivocation { attester } => {
            format!("{attester} said two different things at one place: it counts no more")
        }
        Note::Trouble { what } => format!("trouble: {what}"),
    };
    if !quiet || matches!(note, Note::Trouble { .. } | Note::Equivocation { .. }) {
        output::complain(&output::plain(&line));
    }
    let _ = std::io::stderr().flush();
}

fn status(context: &Context) -> Result<ExitCode, CliError> {
    let status = ask(context, "GET", "/v1/status")?.unwrap_or_default();
    if context.json {
        output::json("status", &status)?;
        return Ok(ExitCode::SUCCESS);
    }
    let text = |value: &serde_json::Value| output::plain(value.as_str().unwrap_or_default());
    output::say(&format!("node       {}", text(&status["node"])))?;
    for address in status["addresses"].as_array().into_iter().flatten() {
        output::say(&format!("address    {}", text(address)))?;
    }
    let peers = status["peers"].as_object();
    for (id, address) in peers.into_iter().flatten() {
        output::say(&format!("connected  {}  {}", output::plain(id), text(address)))?;
    }
    for id in status["absent"].as_array().into_iter().flatten() {
        output::say(&format!("absent     {}", text(id)))?;
    }
    let feeds = &status["feeds"];
    let missing = match feeds["missing"].as_u64() {
        Some(0) | None => String::new(),
        Some(n) => format!(", {n} missing"),
    };
    output::say(&format!(
        "feeds      {}, with {} statements{missing}; {} followed",
        feeds["feeds"], feeds["statements"], feeds["followed"]
    ))?;
    Ok(ExitCode::SUCCESS)
}

fn stop(context: &Context) -> Result<ExitCode, CliError> {
    ask(context, "POST", "/v1/stop")?;
    // When the socket is gone, so is the node, but for the last lines of its end.
    let socket = control::socket(&context.home);
    let begun = std::time::Instant::now();
    while socket.exists() {
        if begun.elapsed().as_secs() > 10 {
            return Err(CliError::new(
                Code::Unreachable,
                "the node was told to stop, and has not in 10 seconds",
            ));
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    context.tell("stopped");
    Ok(ExitCode::SUCCESS)
}

fn ask(context: &Context, method: &str, path: &str) -> Result<Option<serde_json::Value>, CliError> {
    let answer = context.block_on(control::ask(&context.home, method, path))?;
    Ok(answer?)
}

impl From<DriverError> for CliError {
    fn from(error: DriverError) -> Self {
        match &error {
            DriverError::Net(_) => Self::of(Code::Failed, &error).hint(
                "is another node running, or the port in use? `--listen /ip4/0.0.0.0/tcp/0` takes a free one",
            ),
            DriverError::Lookup(_) => {
                Self::of(Code::StoreDamaged, &error).hint("look at the store with `assize store verify`")
            }
            DriverError::Key(_) => Self::of(Code::Key, &error),
            DriverError::Judgement(_) | DriverError::Peers(_) => Self::of(Code::Failed, &error),
        }
    }
}

impl From<ControlError> for CliError {
    fn from(error: ControlError) -> Self {
        match &error {
            ControlError::Nobody { .. } => {
                Self::new(Code::Unreachable, &error).hint("start one with `assize node run`")
            }
            ControlError::Socket { .. } | ControlError::Answer(_) => Self::of(Code::Unreachable, &error),
        }
    }
}
