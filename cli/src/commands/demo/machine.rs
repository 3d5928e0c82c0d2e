//! A machine of the demonstration: a store of its own, a node of its own, commands that are real
//! processes.

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use node::key::Keys;
use protocol::{
    id::{ActionId, IdError, NarHash},
    key::{AttesterKey, SigningKey},
};
use serde_json::Value;
use store::Store;

use crate::exit::{CliError, Code};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A store, and a node that ends with this.
pub(super) struct Machine {
    pub(super) name: &'static str,
    home: PathBuf,
    project: PathBuf,
    node: Option<Child>,
    pub(super) address: String,
}

impl Machine {
    /// With a store below `dir`; compiled modules are shared between machines.
    pub(super) fn new(name: &'static str, dir: &Path, config: &str) -> Result<Self, CliError> {
        let (home, modules) = (dir.join(name), dir.join("modules"));
        std::fs::create_dir_all(&home)?;
        std::fs::create_dir_all(&modules)?;
        std::os::unix::fs::symlink(modules, home.join("modules"))?;
        std::fs::write(home.join("config.jsonnet"), config)?;
        Ok(Self { name, home, project: dir.join("project"), node: None, address: String::new() })
    }

    /// Starts its node, which ends when this program does.
    pub(super) fn start(&mut self) -> Result<(), CliError> {
        let mut command = self.command(&["--json", "node", "run", "--dies-with-parent", "--no-mdns"]);
        command.args(["--listen", "/ip4/127.0.0.1/tcp/0"]).stdout(Stdio::null());
        let mut node = command.spawn()?;
        let lines = node.stderr.take().map(|log| BufReader::new(log).lines());
        self.node = Some(node);
        let (to, listening) = mpsc::sync_channel(1);
        std::thread::spawn(move || {
            // To its end, so that the node never waits for a reader; only the first address is wanted.
            let lines = lines.into_iter().flatten().map_while(Result::ok);
            lines.filter_map(|line| listens(&line)).for_each(|address| _ = to.try_send(address));
        });
        let silent =
            |_| CliError::new(Code::Unreachable, format!("the node of {} does not listen", self.name));
        self.address = listening.recv_timeout(PATIENCE).map_err(silent)?;
        Ok(())
    }

    fn command(&self, args: &[&str]) -> Command {
        // Itself, however it was found.
        let mut command = Command::new(std::env::current_exe().unwrap_or_else(|_| "assize".into()));
        command.arg("--home").arg(&self.home).args(args).current_dir(&self.project);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).env("NO_COLOR", "1");
        command
    }

    /// Runs a command, whatever its exit code.
    pub(super) fn run(&self, args: &[&str]) -> Result<Output, CliError> {
        Ok(self.command(args).output()?)
    }

    /// Runs a command that must succeed, and gives what it prints.
    pub(super) fn ok(&self, args: &[&str]) -> Result<String, CliError> {
        let output = self.run(args)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        if output.status.success() {
            return Ok(text(&output.stdout));
        }
        let mut error = CliError::new(
            Code::Failed,
            format!("{}$ assize {}: {}", self.name, args.join(" "), output.status),
        );
        for line in text(&output.stderr).lines() {
            error = error.detail(line);
        }
        Err(error)
    }

    /// Builds a package: its action, its output, and how long it took.
    pub(super) fn build(&self, package: &str) -> Result<Built, CliError> {
        let begun = Instant::now();
        let said: Value = serde_json::from_str(&self.ok(&["--json", "build", "--no-substitute", package])?)
            .unwrap_or_default();
        let text = |field: &str| said["data"][0][field].as_str().unwrap_or_default();
        let failed = |e: IdError| CliError::of(Code::Failed, &e);
        let action = text("action").parse().map_err(failed)?;
        Ok(Built { action, nar: text("nar").parse().map_err(failed)?, took: begun.elapsed() })
    }

    /// Runs a command until it prints `what`, and gives what it prints.
    pub(super) fn until(&self, args: &[&str], what: &str) -> Result<String, CliError> {
        let end = Instant::now() + PATIENCE;
        loop {
            let output = self.run(args)?;
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            if said.contains(what) {
                return Ok(said);
            }
            if Instant::now() > end {
                let what = format!("{}$ assize {}: no `{what}`", self.name, args.join(" "));
                return Err(CliError::new(Code::Failed, what).detail(said));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    pub(super) fn secret(&self) -> Result<SigningKey, CliError> {
        Ok(Keys::new(&self.home).load_or_create()?.0)
    }

    pub(super) fn key(&self) -> Result<AttesterKey, CliError> {
        Ok(AttesterKey::of(&self.secret()?))
    }

    /// Its store, by way of its node.
    pub(super) fn store(&self) -> Result<Store, CliError> {
        Store::open(&self.home, |_| true).map_err(|e| CliError::of(Code::Failed, &e))
    }
}

/// What a build gave.
pub(super) struct Built {
    pub(super) action: ActionId,
    pub(super) nar: NarHash,
    pub(super) took: Duration,
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(mut node) = self.node.take() {
            // Its store goes, too: it need not end in order.
            let _ = node.kill();
            let _ = node.wait();
        }
    }
}

/// The address that a line of a node's log says it listens at.
fn listens(line: &str) -> Option<String> {
    let line: Value = serde_json::from_str(line).ok()?;
    let address = line["data"]["address"].as_str().filter(|_| line["data"]["event"] == "listening");
    address.map(str::to_owned)
}
