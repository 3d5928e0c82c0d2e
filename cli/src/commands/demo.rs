//! `demo`: what this program is for, shown with real nodes on this machine.
//!
//! Four machines, each with a store, a key and a node of its own, in processes of their own on the
//! loopback interface. What is shown is what the commands print. The lies are told with the same
//! functions that honest commands sign with: there is no command that lies.

mod machine;

use std::{fs, path::Path, process::ExitCode, sync::mpsc, time::Instant};

use node::attest;
use protocol::{
    evidence::Evidence,
    feed::Head,
    id::{ActionId, NarHash},
    key::AttesterKey,
    name::Name,
    output::{Output, Outputs},
    statement::{Attestation, Body, Statement},
};

use self::machine::{Built, Machine};
use crate::{
    context::Context,
    exit::{CliError, Code},
    output::{self, Style, duration},
};

/// The package set of the demonstration: nothing of it must be fetched.
const PROJECT: [(&str, &[u8]); 4] = [
    (
        "build.jsonnet",
        b"(import 'numbers.libsonnet')(import 'assize.libsonnet', (import 'assize.libsonnet').source('wat.wasm'))\n",
    ),
    ("numbers.libsonnet", include_bytes!("../../../packages/numbers/numbers.libsonnet")),
    ("numbers.wat", include_bytes!("../../../packages/numbers/numbers.wat")),
    ("wat.wasm", include_bytes!("../../../packages/stage0/seeds/wat.wasm")),
];

/// The same with a program in C, and clang to compile it with, which is fetched.
const WITH_CLANG: [(&str, &[u8]); 6] = [
    (
        "build.jsonnet",
        b"local assize = import 'assize.libsonnet';
local stage0 = { files: assize.source('files.wasm'), unpack: assize.source('unpack.wasm') };
local tools = assize.tools(stage0.files, stage0.unpack);
local compiler = (import 'clang.libsonnet')(assize, stage0, tools);
local cc = assize.c { clang:: compiler.clang, sysroot:: compiler.sysroot, tools:: tools, module:: 'llvm.core.wasm' };
(import 'numbers.libsonnet')(assize, assize.source('wat.wasm')) + { hello: (import 'hello/hello.libsonnet')(assize, cc) }
",
    ),
    ("clang.libsonnet", include_bytes!("../../../packages/clang.libsonnet")),
    ("hello/hello.libsonnet", include_bytes!("../../../packages/hello/hello.libsonnet")),
    ("hello/hello.c", include_bytes!("../../../packages/hello/hello.c")),
    ("files.wasm", include_bytes!("../../../packages/stage0/seeds/files.wasm")),
    ("unpack.wasm", include_bytes!("../../../packages/stage0/seeds/unpack.wasm")),
];

/// Whom dave believes: any two of three, unless one of them says something else.
const POLICY: &str = "{ policy: { rule: { atLeast: 2, of: ['alice', 'bob', 'carol'] }, dissent: 'hold' } }\n";

/// Show with real nodes on this machine what happens when builders agree, lie and copy
///
/// Starts four nodes, builds real packages, and leaves nothing behind. Needs no network.
#[derive(clap::Args, Debug)]
pub(crate) struct Demo {
    /// Build a program in C first, with clang, which is fetched and takes minutes to compile to machine code
    #[arg(long)]
    with_clang: bool,
}

impl Demo {
    pub(crate) fn run(self, context: &Context) -> Result<ExitCode, CliError> {
        if context.json {
            return Err(CliError::new(Code::Usage, "a demonstration is for people: it has no --json"));
        }
        // It goes when this ends, however that happens: by a signal, too.
        let dir = tempfile::Builder::new().prefix("assize-demo-").tempdir()?;
        let path = dir.path().to_owned();
        let (done, ended) = mpsc::sync_channel(1);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let story = std::thread::spawn(move || {
            let told = Story::begin(&path, self.with_clang).and_then(|story| story.tell());
            let _ = done.send(());
            told
        });
        let interrupted = runtime.block_on(async {
            let watched = tokio::task::spawn_blocking(move || ended.recv());
            tokio::select! {
                _ = watched => false,
                _ = tokio::signal::ctrl_c() => true,
            }
        });
        if interrupted {
            output::complain("interrupted");
            // The nodes end with this process, and write nothing that would be missed.
            let _ = dir.close();
            std::process::exit(130);
        }
        let told = story.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        dir.close()?;
        told.map(|()| ExitCode::SUCCESS)
    }
}

/// The machines, and what is told of them.
struct Story {
    alice: Machine,
    bob: Machine,
    carol: Machine,
    dave: Machine,
    begun: Instant,
    first: &'static str,
}

impl Story {
    fn begin(dir: &Path, with_clang: bool) -> Result<Self, CliError> {
        let begun = Instant::now();
        let project = dir.join("project");
        let files = PROJECT.iter().chain(with_clang.then_some(&WITH_CLANG).into_iter().flatten());
        for (name, content) in files {
            let path = project.join(name);
            fs::create_dir_all(path.parent().unwrap_or(&project))?;
            fs::write(path, content)?;
        }
        let builder = |name| Machine::new(name, dir, "{}\n");
        let (alice, bob, carol) = (builder("alice")?, builder("bob")?, builder("carol")?);
        let dave = Machine::new("dave", dir, POLICY)?;
        let first = if with_clang { "hello" } else { "primes" };
        let mut story = Self { alice, bob, carol, dave, begun, first };
        story.connect()?;
        Ok(story)
    }

    fn connect(&mut self) -> Result<(), CliError> {
        say("Four machines, each with a store, a key and a node of its own:")?;
        say("")?;
        for machine in [&mut self.alice, &mut self.bob, &mut self.carol] {
            // Who has a key when his node begins tells others what he builds.
            let key = machine.key()?;
            machine.start()?;
            say(&format!("  {:<6} {key}  builds and signs", machine.name))?;
        }
        for machine in [&self.alice, &self.bob, &self.carol] {
            self.dave.ok(&["trust", "add", machine.name, &machine.key()?.to_string()])?;
            self.dave.ok(&["peer", "add", &machine.address])?;
        }
        self.dave.start()?;
        say(&format!("  {:<6} believes any two of these three, unless one of them disagrees", self.dave.name))
    }

    fn tell(&self) -> Result<(), CliError> {
        self.agree()?;
        let squares = self.lie()?;
        self.equivocate(&squares)?;
        self.copy()?;
        self.end()
    }

    fn agree(&self) -> Result<(), CliError> {
        let first = self.first;
        chapter(1, "Three machines build the same package, and get the same bytes.")?;
        for machine in [&self.alice, &self.bob, &self.carol] {
            let Built { nar, took, .. } = machine.build(first)?;
            say(&format!("  {:<6} {nar}  {first}  {}", machine.name, Style::Dim.paint(&duration(took))))?;
        }
        chapter(2, "Dave builds nothing. He takes what two of the three agree on.")?;
        self.dave.until(&["why", first], "carol: agrees")?;
        self.command(&self.dave, &["why", first], |line| {
            line.contains("accepted") || line.contains("agrees")
        })?;
        self.command(&self.dave, &["fetch", first], |_| true)
    }

    /// Carol signs what she made up.
    fn lie(&self) -> Result<Built, CliError> {
        chapter(3, "Alice and bob build `squares`. Carol lies: she signs a hash that she made up.")?;
        let squares = self.alice.build("squares")?;
        self.bob.build("squares")?;
        let lie = attestation(squares.action, NarHash::of(b"a lie"));
        self.carol.store()?.say(&self.carol.secret()?, attest::now(), [Body::Built(lie)])?;
        self.dave.until(&["why", "squares"], "    carol  ")?;
        self.dave.until(&["why", "squares"], "    alice  ")?;
        self.dave.until(&["why", "squares"], "    bob  ")?;
        self.command(&self.dave, &["fetch", "squares"], |_| false)?;
        say(
            "  Dave takes nothing that is disputed. Execution is deterministic, so he need not ask: he builds it.",
        )?;
        self.dave.build("squares")?;
        self.command(&self.dave, &["why", "squares"], |line| {
            ["alice  ", "bob  ", "carol  ", "self  "].iter().any(|who| line.trim_start().starts_with(who))
                || line.starts_with(['✔', '·'])
        })?;
        Ok(squares)
    }

    /// Carol says two things at one place of her feed, to two different people.
    fn equivocate(&self, squares: &Built) -> Result<(), CliError> {
        chapter(4, "Carol wants her lie back, and tells bob that she never said it.")?;
        let (secret, store) = (self.carol.secret()?, self.carol.store()?);
        let key = AttesterKey::of(&secret);
        let lie = store.head(&key)?.len().saturating_sub(1);
        let mut before = Head::empty(key);
        for said in store.statements(&key, 0).take(usize::try_from(lie).unwrap_or(usize::MAX)) {
            before = before.follow(&said?).map_err(|e| CliError::of(Code::Failed, &e))?;
        }
        let body = Body::Built(attestation(squares.action, squares.nar));
        let other =
            Statement { attester: key, seq: before.len(), prev: before.last(), time: attest::now(), body };
        let other = other.sign(&secret).map_err(|e| CliError::of(Code::Failed, &e))?;
        self.bob.store()?.keep([Evidence::Statement(other)])?;
        self.dave.until(&["why", "squares"], "not counted: carol")?;
        self.command(&self.dave, &["why", "squares"], |line| line.contains("not counted"))?;
        say("  Both are signed, for one place of one feed: a proof that every node keeps and passes on.")
    }

    /// Bob signs what alice published, without building it.
    fn copy(&self) -> Result<(), CliError> {
        chapter(5, "Bob saves himself the work: he signs what alice got from `cubes`, without building it.")?;
        let cubes = self.alice.build("cubes")?;
        self.bob_copies(&cubes)?;
        self.dave.until(&["why", "cubes"], "bob: agrees")?;
        say(
            "  Two agree. But a signature comes with a proof of execution, which cannot be copied, and whoever",
        )?;
        say("  executes the same can check everybody's. Dave does:")?;
        self.dave.build("cubes")?;
        self.command(&self.dave, &["why", "cubes"], |line| {
            line.contains("not counted: bob") || line.trim_start().starts_with("alice  ")
        })
    }

    fn bob_copies(&self, cubes: &Built) -> Result<(), CliError> {
        let alice = self.alice.key()?;
        // What he has of alice, he has by way of dave.
        let store = self.bob.store()?;
        let begun = Instant::now();
        let copied = loop {
            let claims = store.claims(&cubes.action)?;
            let of_alice = claims.iter().find(|said| said.statement().attester == alice);
            match of_alice.map(|said| said.statement().body.clone()) {
                Some(Body::Built(copied)) => break copied,
                _ if begun.elapsed().as_secs() > 60 => {
                    return Err(CliError::new(Code::Failed, "bob does not hear what alice says"));
                }
                _ => std::thread::sleep(std::time::Duration::from_millis(50)),
            }
        };
        store.say(&self.bob.secret()?, attest::now(), [Body::Built(copied)])?;
        Ok(())
    }

    fn end(&self) -> Result<(), CliError> {
        say("")?;
        say("  who    signed  what came out")?;
        for (machine, what) in [
            (&self.alice, "honest: her proofs of execution are right"),
            (&self.bob, "copied `cubes`: his proof of execution is wrong, and that vote does not count"),
            (&self.carol, "lied, then said two things at one place: her key counts no more, anywhere"),
        ] {
            let key = machine.key()?;
            let said = self.dave.store()?.head(&key)?.len();
            say(&format!("  {:<6} {said:>6}  {what}", machine.name))?;
        }
        say("")?;
        say(&format!(
            "That took {}. Nothing of it is left. Your own: `assize node run`, and docs/network.md.",
            duration(self.begun.elapsed())
        ))
    }

    /// Shows a command and those lines of what it prints that are `shown`, and of its errors.
    fn command(
        &self,
        machine: &Machine,
        args: &[&str],
        shown: impl Fn(&str) -> bool,
    ) -> Result<(), CliError> {
        say(&format!("  {}", Style::Bold.paint(&format!("{}$ assize {}", machine.name, args.join(" ")))))?;
        let output = machine.run(args)?;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        for line in err.lines().filter(|line| line.starts_with("error") || shown(line)) {
            say(&format!("    {}", output::plain(line)))?;
        }
        for line in out.lines().filter(|line| shown(line)) {
            say(&format!("    {}", output::plain(line)))?;
        }
        Ok(())
    }
}

fn say(line: &str) -> Result<(), CliError> {
    Ok(output::say(line)?)
}

fn chapter(n: usize, title: &str) -> Result<(), CliError> {
    say("")?;
    say(&Style::Bold.paint(&format!("{n}. {title}")))
}

/// That an action gave this, without a proof of execution.
fn attestation(action: ActionId, nar: NarHash) -> Attestation {
    let outputs = Outputs::from([(Name::out(), Output { nar, size: 352 })]);
    Attestation { action, outputs, witness: None, platform: attest::platform() }
}
