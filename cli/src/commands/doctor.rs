//! `doctor`: is this machine fit, and if not, what to do.

use std::{path::Path, process::ExitCode};

use serde::Serialize;

use crate::{
    context::Context,
    exit::CliError,
    output::{self, Style, bytes},
};

/// Check this machine and the store, and say what to do about what is wrong
#[derive(clap::Args, Debug)]
pub(crate) struct Doctor {}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Good,
    Warning,
    Bad,
}

#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    state: State,
    found: String,
    /// The one command or deed that mends it.
    remedy: Option<String>,
}

impl Check {
    fn good(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, state: State::Good, found: found.into(), remedy: None }
    }

    fn not(state: State, name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name, state, found: found.into(), remedy: Some(remedy.into()) }
    }
}

/// Less free space than this is worth a warning: one large compiler and what it makes.
pub(crate) const SPACE: u64 = 4 << 30;

/// Less memory than this does not compile clang to machine code.
const MEMORY: u64 = 3 << 30;

impl Doctor {
    pub(crate) fn run(self, context: &Context) -> Result<ExitCode, CliError> {
        let mut checks = vec![engine(), memory(), processors(), config(context)];
        checks.extend(store(context));
        checks.extend(clients());
        let bad = checks.iter().any(|check| check.state == State::Bad);
        if context.json {
            output::json("doctor", &checks)?;
        } else {
            for check in &checks {
                let mark = match check.state {
                    State::Good => Style::Good.paint("✔"),
                    State::Warning => Style::Busy.paint("!"),
                    State::Bad => Style::Error.paint("✘"),
                };
                output::say(&format!("{mark} {:<12} {}", check.name, output::plain(&check.found)))?;
                if let Some(remedy) = &check.remedy {
                    let arrow = Style::Hint.paint("→");
                    output::say(&format!("  {:<12} {arrow} {}", "", output::plain(remedy)))?;
                }
            }
        }
        Ok(if bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

fn engine() -> Check {
    match node::build::engine() {
        Ok(engine) => {
            Check::good("engine", format!("wasmtime runs here, code {}", node::build::fingerprint(engine)))
        }
        Err(why) => Check::not(State::Bad, "engine", why, "use a 64-bit x86, ARM, RISC-V or s390x processor"),
    }
}

fn memory() -> Check {
    let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = info.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = available.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
    match kib.map(|kib| kib << 10) {
        None => Check::good("memory", "this system does not tell"),
        Some(free) if free >= MEMORY => Check::good("memory", format!("{} available", bytes(free))),
        Some(free) => Check::not(
            State::Warning,
            "memory",
            format!("{} available", bytes(free)),
            "close programs before compiling a large module such as clang for the first time",
        ),
    }
}

fn processors() -> Check {
    let n = std::thread::available_parallelism().map_or(1, usize::from);
    Check::good("processors", format!("{} at once", output::count(n, "build")))
}

fn config(context: &Context) -> Check {
    let path = context.config_file();
    match context.config() {
        Ok(_) if path.exists() => Check::good("config", path.display().to_string()),
        Ok(_) => Check::good("config", "defaults (there is no config file, and none is needed)"),
        Err(error) => {
            Check::not(State::Bad, "config", error.in_short().0, format!("mend `{}`", path.display()))
        }
    }
}

fn store(context: &Context) -> Vec<Check> {
    let mut checks = Vec::new();
    match context.store() {
        Err(error) => {
            let remedy = format!(
                "make `{}` writable, or choose another directory with --home",
                context.home.display()
            );
            checks.push(Check::not(State::Bad, "store", error.to_string(), remedy));
        }
        Ok(store) => match store.usage() {
            Ok(usage) => checks.push(Check::good(
                "store",
                format!(
                    "{}: {}, {}; with all else {}",
                    context.home.display(),
                    output::count(usage.nars.files, "archive"),
                    bytes(usage.nars.bytes),
                    bytes(usage.bytes())
                ),
            )),
            Err(error) => checks.push(Check::not(
                State::Bad,
                "store",
                error.to_string(),
                "look at the store with `assize store verify`",
            )),
        },
    }
    if let Some(free) = free_space(&context.home) {
        checks.push(if free >= SPACE {
            Check::good("disk", format!("{} free", bytes(free)))
        } else {
            Check::not(
                State::Warning,
                "disk",
                format!("{} free", bytes(free)),
                "free space: `assize store gc`",
            )
        });
    }
    checks
}

pub(crate) fn free_space(path: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(path).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// The clients of other ecosystems, which fetch `npm:`, `pypi:` and `crate:` locations.
fn clients() -> Vec<Check> {
    let clients = [("npm", "npm:", "Node.js"), ("pip", "pypi:", "Python"), ("cargo", "crate:", "Rust")];
    let check = |(client, scheme, brings): (&'static str, &str, &str)| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&path).map(|dir| dir.join(client)).find(|file| file.is_file());
        match found {
            Some(file) => Check::good(client, format!("{} fetches `{scheme}…`", file.display())),
            None => Check::not(
                State::Warning,
                client,
                format!("not found: `{scheme}…` is fetched only if a mirror is configured"),
                format!("install {brings}, or set `fetch.mirrors` in the config"),
            ),
        }
    };
    clients.map(check).into()
}
