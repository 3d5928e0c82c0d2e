//! What can be asked: one enum, one match, a line for each command.

use std::{path::PathBuf, process::ExitCode};

mod attest;
pub(crate) mod audit;
mod build;
mod dashboard;
mod demo;
pub(crate) mod doctor;
mod eval;
mod fetch;
mod fool;
mod key;
mod log;
mod manual;
mod nar;
mod node;
mod peer;
pub(crate) mod policy;
mod run;
mod show;
mod store;
mod target;
mod trust;
pub(crate) mod watch;
pub(crate) mod why;
mod worker;

use crate::{
    context::Context,
    exit::{CliError, Code},
    output::Colour,
};

/// Builds, runs and keeps software that is WebAssembly all the way down
///
/// Packages are derivations in Jsonnet; every compiler and every program built is a wasm module.
/// Builds see nothing but their inputs, so the same sources give the same bytes on every machine.
///
/// Exit codes: 0 done, 1 failed or bad input, 2 wrong usage, 3 evaluation error, 4 not found, 10 too
/// few have spoken, 11 disputed, 12 refused by the policy, 13 weak, forged or exposed key, 20 no
/// node runs, 21 store damaged, 100 build failed, 101 build timed out, 102 hash mismatch, 104 not deterministic.
#[derive(clap::Parser, Debug)]
#[command(name = "assize", version, max_term_width = 100, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,

    /// Print JSON: data on stdout, progress and errors on stderr
    #[arg(long, global = true)]
    json: bool,

    /// Say nothing but results and errors
    #[arg(short, long, global = true)]
    quiet: bool,

    /// When to use colours
    #[arg(long, global = true, value_enum, default_value_t = Colour::Auto, value_name = "WHEN")]
    color: Colour,

    /// Directory of the store [default: $ASSIZE_HOME, or the user's data directory]
    #[arg(long, global = true, value_name = "DIR")]
    home: Option<PathBuf>,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    Demo(demo::Demo),
    Build(build::Build),
    Fetch(fetch::Fetch),
    Run(run::Run),
    Eval(eval::Eval),
    Show(show::Show),
    Log(log::Log),
    Why(why::Why),
    WhoCanFoolMe(fool::WhoCanFoolMe),
    #[command(subcommand)]
    Attest(attest::AttestCommand),
    Watch(watch::Watch),
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    Dashboard(dashboard::DashboardCommand),
    #[command(subcommand)]
    Trust(trust::TrustCommand),
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    #[command(subcommand)]
    Key(key::KeyCommand),
    #[command(subcommand)]
    Node(node::NodeCommand),
    #[command(subcommand)]
    Peer(peer::PeerCommand),
    #[command(subcommand)]
    Store(store::StoreCommand),
    #[command(subcommand)]
    Nar(nar::NarCommand),
    Doctor(doctor::Doctor),
    Completions(manual::Completions),
    Man(manual::Man),
    #[command(subcommand, hide = true)]
    Worker(worker::Worker),
}

impl Cli {
    /// Runs what the command line says.
    pub(crate) fn main() -> ExitCode {
        match <Self as clap::Parser>::try_parse() {
            Ok(cli) => cli.run(),
            Err(error) => refuse(&error),
        }
    }

    fn run(self) -> ExitCode {
        self.color.decide();
        if let Command::Worker(worker) = self.command {
            return worker.run();
        }
        let json = self.json;
        let context = Context::new(self.home, json, self.quiet);
        match context.and_then(|context| dispatch(self.command, &context)) {
            Ok(code) => code,
            Err(error) => error.report(json),
        }
    }
}

/// Says what is wrong with the command line, or the help that was asked for.
fn refuse(error: &clap::Error) -> ExitCode {
    // Behind `--` are the arguments of a program.
    let json = std::env::args_os().take_while(|arg| arg != "--").any(|arg| arg == "--json");
    if !(json && error.use_stderr()) {
        error.exit();
    }
    let text = error.render().to_string();
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let what = lines.next().unwrap_or_default();
    let mut usage = CliError::new(Code::Usage, what.strip_prefix("error: ").unwrap_or(what));
    for line in lines.filter(|line| !line.starts_with("For more information")) {
        usage = usage.detail(line);
    }
    usage.hint("every command explains itself with `--help`").report(true)
}

fn dispatch(command: Command, context: &Context) -> Result<ExitCode, CliError> {
    match command {
        Command::Demo(command) => command.run(context),
        Command::Build(command) => command.run(context),
        Command::Fetch(command) => command.run(context),
        Command::Run(command) => command.run(context),
        Command::Eval(command) => command.run(context),
        Command::Show(command) => command.run(context),
        Command::Log(command) => command.run(context),
        Command::Why(command) => command.run(context),
        Command::WhoCanFoolMe(command) => command.run(context),
        Command::Attest(command) => command.run(context),
        Command::Watch(command) => command.run(context),
        Command::Audit(command) => command.run(context),
        Command::Dashboard(command) => command.run(context),
        Command::Trust(command) => command.run(context),
        Command::Policy(command) => command.run(context),
        Command::Key(command) => command.run(context),
        Command::Node(command) => command.run(context),
        Command::Peer(command) => command.run(context),
        Command::Store(command) => command.run(context),
        Command::Nar(command) => command.run(context),
        Command::Doctor(command) => command.run(context),
        Command::Completions(command) => command.run(),
        Command::Man(command) => command.run(context),
        Command::Worker(worker) => Ok(worker.run()),
    }
}
