//! Machines with nodes: real processes on the loopback interface.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use node::{attest, key::Keys};
use protocol::{
    id::ActionId,
    output::Outputs,
    statement::{Attestation, Body},
    witness::Witness,
};
use serde_json::Value;
use store::Store;

use crate::{Sandbox, repository};

/// How long anything may take that happens within a second when nothing else runs.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A machine: a store, a project, and perhaps a node that runs.
pub struct Machine {
    /// Its store and its project.
    pub sandbox: Sandbox,
    /// The node, if it runs.
    pub running: Option<Child>,
    log: Option<mpsc::Receiver<String>>,
    /// More flags for its node.
    flags: Vec<String>,
    /// The network namespace that its node runs in.
    namespace: Option<String>,
    /// Where the node listens, with its id at the end, once it has run.
    pub address: String,
}

impl Machine {
    /// With a project of three small packages, `a`, `b` and `c`; `large`, of some megabytes; and `small`,
    /// which is made of that.
    pub fn new(executable: &str) -> Self {
        let sandbox = Sandbox::new(executable);
        let seed = repository().join("packages/stage0/seeds/files.wasm");
        let mut large = vec![0; 5 << 20];
        blake3::Hasher::new().finalize_xof().fill(&mut large);
        sandbox.write("large.bin", large);
        sandbox.write("files.wasm", std::fs::read(seed).expect("the seed")).write(
            "build.jsonnet",
            "local assize = import 'assize.libsonnet';
             local write(name) = assize.derivation({
               name: name, inputs: { files: assize.source('files.wasm') },
               steps: [{ run: '/in/files', args: ['files', 'write', '--json-field', 'text', '/out/text'] }],
               stdin: { text: name },
             });
             local copy(name, of, path) = assize.derivation({
               name: name, inputs: { files: assize.source('files.wasm'), of: of },
               steps: [{ run: '/in/files', args: ['files', 'copy', path, '/out/' + name] }],
             });
             local large = copy('large', assize.source('large.bin'), '/in/of');
             { a: write('a'), b: write('b'), c: write('c'), large: large, small: copy('small', large, '/in/of') }",
        );
        Self { sandbox, running: None, log: None, flags: vec![], namespace: None, address: String::new() }
    }

    /// Its node is given this flag, too.
    pub fn with(mut self, flag: &str) -> Self {
        self.flags.push(flag.to_owned());
        self
    }

    /// Its node listens there.
    pub fn at(mut self, listen: &str) -> Self {
        listen.clone_into(&mut self.address);
        self
    }

    /// Its node runs in this network namespace, and listens there.
    pub fn inside(mut self, namespace: &str, listen: &str) -> Self {
        self.namespace = Some(namespace.to_owned());
        self.at(listen)
    }

    /// Starts a node, at the same address as before if there was one.
    pub fn start(mut self) -> Self {
        let listen = match self.address.split_once("/p2p/") {
            Some((address, _)) => address.to_owned(),
            None if self.address.is_empty() => "/ip4/127.0.0.1/tcp/0".into(),
            None => self.address.clone(),
        };
        let mut command = self.sandbox.command(["node", "run", "--no-mdns", "--json", "--listen", &listen]);
        command.args(&self.flags);
        if let Some(namespace) = &self.namespace {
            command = within(namespace, &command);
        }
        let mut child = command.stdout(Stdio::null()).spawn().expect("the program starts");
        let lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        let (to, log) = mpsc::channel();
        thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| to.send(line)));
        (self.running, self.log) = (Some(child), Some(log));
        let listening = self.hears("listening");
        self.address = listening["address"].as_str().expect("an address").to_owned();
        self
    }

    /// Waits for an event in the log.
    pub fn hears(&self, event: &str) -> Value {
        let log = self.log.as_ref().expect("it runs");
        let end = Instant::now() + PATIENCE;
        loop {
            let line = log.recv_timeout(end.saturating_duration_since(Instant::now()));
            let line = line.unwrap_or_else(|e| panic!("no `{event}`: {e}"));
            let line: Value = serde_json::from_str(&line).unwrap_or_default();
            if line["data"]["event"] == event {
                return line["data"].clone();
            }
        }
    }

    /// Its attester's key.
    pub fn key(&self) -> String {
        self.sandbox.ok(["key", "show"]).trim().to_owned()
    }

    /// Counts `other` by that name from now on.
    pub fn trusts(&self, name: &str, other: &Self) {
        self.sandbox.ok(["trust", "add", name, &other.key()]);
    }

    /// Its store, as a command has it.
    pub fn store(&self) -> Store {
        Store::open(self.sandbox.home(), |_| true).expect("the store")
    }

    /// Signs with its key that an action gave these outputs, whatever is true.
    pub fn says(&self, action: ActionId, outputs: Outputs, witness: Option<Witness>) {
        let store = self.store();
        let key = Keys::new(store.home()).load().expect("the key").expect("a key");
        let built = Attestation { action, outputs, witness, platform: attest::platform() };
        store.say(&key, attest::now(), [Body::Built(built)]).expect("said");
    }

    /// Fetches an attribute, of which nobody that it is connected to has anything: some other node is
    /// found, at once or a little later.
    pub fn finds_a_way_to(&self, attribute: &str, nar: &str) {
        let fetched = (0..20).any(|_| self.sandbox.run(["fetch", attribute]).out.starts_with(nar));
        assert!(fetched, "{}", self.sandbox.run(["fetch", attribute]).err);
    }

    /// Kills the node.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.running.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Waits until `why` of an attribute ends with that code.
    pub fn finds(&self, attribute: &str, code: i32) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            let said = self.sandbox.run(["why", attribute]);
            if said.code == code {
                return said.out;
            }
            assert!(
                Instant::now() < end,
                "{attribute}: {} and not {code}\n{}{}",
                said.code,
                said.out,
                said.err
            );
            thread::sleep(Duration::from_millis(100));
        }
    }
}

/// The same command in a network namespace.
fn within(namespace: &str, command: &Command) -> Command {
    let mut inside = Command::new("ip");
    inside.args(["netns", "exec", namespace]).arg(command.get_program()).args(command.get_args());
    inside.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    if let Some(directory) = command.get_current_dir() {
        inside.current_dir(directory);
    }
    inside.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    inside
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.kill();
        // One that was started in the background.
        if self.sandbox.home().join("node.sock").exists() {
            let _ = self.sandbox.run(["node", "stop"]);
        }
    }
}
