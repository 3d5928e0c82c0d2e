//! `node`: this machine's part of the network.

use std::{
    fs::File,
    net::SocketAddr,
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Command as Process, ExitCode, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use node::{
    control::{Control, ControlError, Node},
    driver::{Command, Driver, DriverError, NodeStatus, Note},
    watch::{Event, Watch},
};
use protocol::key::AttesterKey;
use rustix::process::Signal;
use sd_notify::NotifyState;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use crate::{
    context::Context,
    dashboard::{Dashboard, Live},
    exit::{CliError, Code},
    log_file::LogFile,
    network::{self, COMMANDS, Log},
    output,
};

/// How long whoever still asks something may take at the end.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// How long a node may take to begin: it may have to rebuild an index.
const START: Duration = Duration::from_secs(300);

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
    /// Start one that runs on when this command has ended, with its log in `node.log` in the store's directory
    Start(Run),
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

    /// Answer /metrics, /health and /ready there over HTTP, as at 127.0.0.1:4721
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<SocketAddr>,

    /// Serve the dashboard there, at an address of this machine alone; `assize dashboard` tells where
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0", conflicts_with = "no_dashboard")]
    dashboard: SocketAddr,

    /// Serve no dashboard
    #[arg(long)]
    no_dashboard: bool,

    /// Write the log there, and not on stderr: 8 MiB of it, and as much in FILE.1
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,

    /// Rebuild what others attest or wish, as `assize watch` does, by what the configuration says of it
    #[arg(long)]
    watch: bool,

    /// End when the process that started it does
    #[arg(long, hide = true)]
    dies_with_parent: bool,
}

impl NodeCommand {
    pub(crate) fn run(self, context: &Context) -> Result<ExitCode, CliError> {
        match self {
            Self::Run(run) => run.run(context),
            Self::Start(run) => run.start(context),
            Self::Status => status(context),
            Self::Stop => stop(context),
        }
    }
}

impl Run {
    fn run(self, context: &Context) -> Result<ExitCode, CliError> {
        if self.dies_with_parent {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
                .map_err(std::io::Error::from)?;
        }
        let configured = context.config()?;
        let mut config = configured.network;
        if !self.listen.is_empty() {
            config.listen =
                Some(self.listen.iter().map(|text| super::peer::address(text)).collect::<Result<_, _>>()?);
        }
        if self.no_mdns {
            config.mdns = Some(false);
        }
        let more: Vec<_> =
            self.peer.iter().map(|text| super::peer::address(text)).collect::<Result<_, _>>()?;
        if self.watch {
            // Made now, so that its feed is one of this node's from the beginning.
            context.key()?;
        }
        let own = context.keys().load()?.map(|key| AttesterKey::of(&key));
        let (store, service) = context.own_store()?;
        let (commands, heard) = mpsc::channel(COMMANDS);
        let watch = match self.watch {
            true => {
                let node = Some(Node::Here(commands.clone()));
                let rebuilder = super::watch::rebuilder(context, &store, node, configured.watch.limits)?;
                Some(Watch::new(rebuilder, configured.watch))
            }
            false => None,
        };
        let file = self.log.as_deref().map(LogFile::open).transpose()?;
        let dashboard = (!self.no_dashboard).then_some(self.dashboard);
        let log = Arc::new(Mutex::new(Log { json: context.json, quiet: context.quiet, file }));
        let home = store.home().to_owned();
        // Not `Context::block_on`: Ctrl-C ends a node in order, like a signal to terminate.
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let ran = runtime.block_on(async {
            let driver = {
                let log = log.clone();
                let note = move |note| log.lock().unwrap_or_else(PoisonError::into_inner).note(&note);
                Driver::new(store.clone(), &config, &more, own, note)?
            };
            let dashboard = match dashboard {
                Some(address) => Some(Dashboard::bind(address).await?),
                None => None,
            };
            let control = Control::bind(&home, self.metrics).await?;
            let mut terminate = signal(SignalKind::terminate())?;
            let mut interrupt = signal(SignalKind::interrupt())?;
            let ended = commands.clone();
            tokio::spawn(async move {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                let _ = ended.send(Command::Stop).await;
            });
            tokio::spawn(alive(commands.clone()));
            let watches = watch.is_some();
            if let Some(watch) = watch {
                tokio::spawn(rebuild(watch, log, dashboard.as_ref().map(Dashboard::live)));
            }
            let controlled =
                tokio::spawn(control.serve(commands.clone(), dashboard.as_ref().map(Dashboard::url)));
            if let Some(dashboard) = dashboard {
                let node = Node::Here(commands);
                tokio::spawn(dashboard.serve(context.clone(), store, node, watches));
            }
            // There is nobody to be told, or there is.
            let _ = sd_notify::notify(&[NotifyState::Ready]);
            driver.run(heard).await;
            let _ = sd_notify::notify(&[NotifyState::Stopping]);
            // Whoever was asking has his answer, or none, and the name of the socket is gone.
            let _ = tokio::time::timeout(LAST_ANSWERS, controlled).await;
            Ok::<_, CliError>(())
        });
        runtime.shutdown_timeout(LAST_ANSWERS);
        drop(service);
        ran.map(|()| ExitCode::SUCCESS)
    }
}

impl Run {
    /// Starts another process that does the same, and waits until it can be talked to.
    fn start(self, context: &Context) -> Result<ExitCode, CliError> {
        if let Ok(node) = Node::there(&context.home) {
            let status = context.block_on(async move { node.status().await })??;
            context.tell(&format!("{} runs already", status.node));
            return Ok(ExitCode::SUCCESS);
        }
        let log = self.log.clone().unwrap_or_else(|| context.home.join("node.log"));
        std::fs::create_dir_all(&context.home)?;
        // Whatever it says before it has its log, or when it ends.
        let last_words = File::options().append(true).create(true).open(&log)?;
        let before = last_words.metadata()?.len();
        let mut command = Process::new(std::env::current_exe()?);
        command.arg("--home").arg(&context.home).args(["node", "run", "--log"]).arg(&log);
        command.args(self.listen.iter().flat_map(|address| ["--listen", address]));
        command.args(self.peer.iter().flat_map(|address| ["--peer", address]));
        command.args(self.no_mdns.then_some("--no-mdns"));
        command.args(self.watch.then_some("--watch"));
        match self.no_dashboard {
            true => command.arg("--no-dashboard"),
            false => command.arg("--dashboard").arg(self.dashboard.to_string()),
        };
        if let Some(metrics) = self.metrics {
            command.arg("--metrics").arg(metrics.to_string());
        }
        // In a group of its own, so that Ctrl-C here is not for it.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(last_words).process_group(0);
        let mut process = command.spawn()?;
        let begun = Instant::now();
        let node = loop {
            match Node::there(&context.home) {
                Ok(node) => break node,
                Err(_) if begun.elapsed() < START => std::thread::sleep(Duration::from_millis(20)),
                Err(error) => return Err(error.into()),
            }
            if process.try_wait()?.is_some() {
                let words = std::fs::read(&log)?;
                let words = words.get(usize::try_from(before).unwrap_or(0)..).unwrap_or_default();
                let mut error = CliError::new(Code::Failed, "the node has ended at once");
                for line in String::from_utf8_lossy(words).lines() {
                    error = error.detail(line);
                }
                return Err(error.hint(format!("its log is `{}`", log.display())));
            }
        };
        let status = context.block_on(async move { node.status().await })??;
        if context.json {
            output::json("status", &status)?;
            return Ok(ExitCode::SUCCESS);
        }
        status.addresses.iter().try_for_each(|address| output::say(&output::plain(&address.to_string())))?;
        context
            .tell(&format!("the node runs; its log is `{}`, and `assize node stop` ends it", log.display()));
        Ok(ExitCode::SUCCESS)
    }
}

/// Rebuilds for as long as the node runs. That it cannot is worth a line, and the node goes on.
async fn rebuild(watch: Watch, log: Arc<Mutex<Log>>, live: Option<Arc<Live>>) {
    let lock = |log: &Mutex<Log>, line: Option<String>| {
        if let Some(line) = line {
            log.lock().unwrap_or_else(PoisonError::into_inner).line(&line);
        }
    };
    let (json, quiet) = {
        let log = log.lock().unwrap_or_else(PoisonError::into_inner);
        (log.json, log.quiet)
    };
    let events = log.clone();
    let observe = move |event: Event<'_>| {
        lock(&events, super::watch::text(&event, json, quiet));
        if let Some(live) = &live {
            live.hear(&event);
        }
    };
    if let Err(error) = watch.run(observe, false).await {
        log.lock().unwrap_or_else(PoisonError::into_inner).note(&Note::Trouble { what: error.to_string() });
    }
}

/// Tells systemd that the loop goes round, as often as it wants to know.
async fn alive(commands: mpsc::Sender<Command>) {
    let Some(patience) = sd_notify::watchdog_enabled() else { return };
    let mut pause = tokio::time::interval(patience / 2);
    loop {
        pause.tick().await;
        if Node::Here(commands.clone()).status().await.is_err() {
            return;
        }
        let _ = sd_notify::notify(&[NotifyState::Watchdog]);
    }
}

fn status(context: &Context) -> Result<ExitCode, CliError> {
    let node = Node::there(&context.home)?;
    let status = context.block_on(async move { node.status().await })??;
    if context.json {
        output::json("status", &status)?;
        return Ok(ExitCode::SUCCESS);
    }
    let NodeStatus { node, addresses, reachable, peers, absent, neighbours, feeds, .. } = &status;
    let text = |text: &dyn std::fmt::Display| output::plain(&text.to_string());
    output::say(&format!("node       {}", text(node)))?;
    for address in addresses {
        output::say(&format!("address    {}", text(address)))?;
    }
    output::say(&format!("reachable  {}", network::reachable(reachable)))?;
    for (id, address) in peers {
        output::say(&format!("connected  {}  {}", text(id), text(address)))?;
    }
    for id in absent {
        output::say(&format!("absent     {}", text(id)))?;
    }
    for (id, address) in neighbours.iter().filter(|(id, _)| !peers.contains_key(*id)) {
        output::say(&format!("nearby     {}  {}", text(id), text(address)))?;
    }
    let missing = match feeds.missing {
        0 => String::new(),
        n => format!(", {n} missing"),
    };
    output::say(&format!(
        "feeds      {}, with {}{missing}; {} followed",
        feeds.feeds,
        output::count(feeds.statements, "statement"),
        feeds.followed
    ))?;
    if feeds.wanted > 0 {
        output::say(&format!("fetching   {}", output::count(feeds.wanted, "archive")))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn stop(context: &Context) -> Result<ExitCode, CliError> {
    let node = Node::there(&context.home)?;
    context.block_on(async move { node.stop().await })??;
    context.tell("stopped");
    Ok(ExitCode::SUCCESS)
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
                Self::new(Code::Unreachable, &error).hint("start one with `assize node start`")
            }
            ControlError::Address { .. } => Self::of(Code::Failed, &error)
                .hint("is the port in use? `--metrics 127.0.0.1:0` takes a free one"),
            ControlError::Socket(_) | ControlError::Answer(_) => Self::of(Code::Unreachable, &error),
        }
    }
}
