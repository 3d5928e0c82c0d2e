//! `simulate`: scenarios, run from seeds, and seen again step by step. Prints; nothing else here does.
#![forbid(unsafe_code)]

use std::{
    fs,
    io::{self, Write as _},
    ops::Range,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use clap::{Parser, Subcommand};
use simulations::{
    figures::{Extent, Figure},
    scenario::{Scenario, ScenarioError},
    trace::Trace,
    variant::Variant,
    world::{Failure, Report, World},
};

/// Many peers in virtual time: networks that fail and peers that lie, from a seed
///
/// Exits with 0 if all that must hold does, and with 1 if it does not.
#[derive(Parser)]
#[command(name = "simulate", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a scenario from many seeds
    Run {
        /// The scenario's file
        scenario: PathBuf,
        /// The first seed, and the first that is not run
        #[arg(long, default_value = "0..100", value_parser = seeds, value_name = "A..B")]
        seeds: Range<u64>,
        /// How many at once
        #[arg(long, default_value_t = 1)]
        jobs: usize,
        /// A mistake that all nodes make
        #[arg(long, value_parser = variant)]
        variant: Option<Variant>,
    },
    /// Measure something in many worlds, print the table and write the picture
    Figure {
        /// Which
        #[arg(value_parser = figure)]
        figure: Figure,
        /// Where the SVG goes
        #[arg(long, value_name = "FILE")]
        svg: Option<PathBuf>,
        /// As little of it as a test draws
        #[arg(long)]
        small: bool,
    },
    /// Run one seed and print what happens, event by event
    ///
    /// A line has the number of the event, the moment in seconds, the node, and what happened.
    Replay {
        /// The scenario's file
        scenario: PathBuf,
        /// The seed
        seed: u64,
        /// The first event that is printed
        #[arg(long, default_value_t = 0, value_name = "N")]
        from: u64,
        /// The last event that happens; behind it, how every node is
        #[arg(long, value_name = "N")]
        until: Option<u64>,
        /// A mistake that all nodes make
        #[arg(long, value_parser = variant)]
        variant: Option<Variant>,
    },
}

/// Why nothing was run.
#[derive(Debug, thiserror::Error)]
enum SimulateError {
    #[error("cannot read `{path}`: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("`{path}`: {source}{}", because(.source))]
    Scenario { path: PathBuf, source: ScenarioError },
    #[error("cannot write: {0}")]
    Write(#[from] io::Error),
    #[error("cannot write `{path}`: {source}")]
    Picture { path: PathBuf, source: io::Error },
    #[error("a world of this figure fails, {0}: {violation}", violation = .0.violation)]
    Figure(#[from] Failure),
}

fn because(error: &ScenarioError) -> String {
    std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default()
}

fn seeds(text: &str) -> Result<Range<u64>, String> {
    let range = text.split_once("..").and_then(|(a, b)| Some(a.parse().ok()?..b.parse().ok()?));
    range.filter(|range: &Range<u64>| !range.is_empty()).ok_or_else(|| "not as in `0..100`".into())
}

fn variant(name: &str) -> Result<Variant, String> {
    let names = || Variant::ALL.map(Variant::name).join(", ");
    Variant::named(name).ok_or_else(|| format!("not one of {}", names()))
}

fn figure(name: &str) -> Result<Figure, String> {
    let names = || Figure::ALL.map(Figure::name).join(", ");
    Figure::named(name).ok_or_else(|| format!("not one of {}", names()))
}

fn main() -> ExitCode {
    match Cli::parse().command.run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("simulate: {error}");
            ExitCode::from(2)
        }
    }
}

impl Command {
    fn run(self) -> Result<ExitCode, SimulateError> {
        match self {
            Self::Run { scenario, seeds, jobs, variant } => run(&scenario, seeds, jobs, variant),
            Self::Figure { figure, svg, small } => draw(figure, svg, small),
            Self::Replay { scenario, seed, from, until, variant } => {
                replay(&scenario, seed, from, until, variant)
            }
        }
    }
}

fn read(path: &Path) -> Result<Scenario, SimulateError> {
    let path = path.to_owned();
    match fs::read_to_string(&path) {
        Ok(text) => Scenario::parse(&text).map_err(|source| SimulateError::Scenario { path, source }),
        Err(source) => Err(SimulateError::File { path, source }),
    }
}

fn run(
    path: &Path,
    seeds: Range<u64>,
    jobs: usize,
    variant: Option<Variant>,
) -> Result<ExitCode, SimulateError> {
    let scenario = read(path)?;
    let done = run_all(&scenario, seeds.clone(), jobs, variant);
    let mut out = io::stdout().lock();
    writeln!(out, "{}", scenario.claim)?;
    let mut all = Report::default();
    let mut failures = Vec::new();
    for (seed, result) in done {
        match result {
            Ok(report) => all += report,
            Err(failure) => failures.push((seed, failure)),
        }
    }
    let with = variant.map(|variant| format!(" --variant {}", variant.name())).unwrap_or_default();
    for (seed, failure) in &failures {
        writeln!(out, "seed {seed} fails: {failure}: {}", failure.violation)?;
        writeln!(out, "  simulate replay {} {seed} --until {}{with}", path.display(), failure.event)?;
    }
    let Range { start, end } = seeds;
    let Report { events, messages, kept, accepted, refused, signatures, rebuilt, copies } = all;
    let count = end - start;
    writeln!(out, "{count} seeds from {start}, {} failed", failures.len())?;
    if (failures.len() as u64) < count {
        write!(
            out,
            "{events} events, {messages} messages, {kept} items kept, {accepted} outputs accepted, "
        )?;
        writeln!(out, "{refused} nodes refused, {signatures} signatures checked")?;
        if rebuilt > 0 {
            writeln!(out, "{rebuilt} actions rebuilt, {copies} copies recognised by rebuilders")?;
        }
    }
    Ok(if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs seeds, some at once; what came of each, in order.
fn run_all(
    scenario: &Scenario,
    seeds: Range<u64>,
    jobs: usize,
    variant: Option<Variant>,
) -> Vec<(u64, Result<Report, Failure>)> {
    let next = AtomicU64::new(seeds.start);
    let done = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        break;
                    }
                    let result = World::new(scenario, seed, variant, Trace::off()).run(None);
                    done.lock().expect("no thread panics with it").push((seed, result));
                }
            });
        }
    });
    let mut done = done.into_inner().expect("no thread panics with it");
    done.sort_by_key(|(seed, _)| *seed);
    done
}

fn draw(figure: Figure, svg: Option<PathBuf>, small: bool) -> Result<ExitCode, SimulateError> {
    let plot = figure.draw(if small { Extent::Small } else { Extent::Whole })?;
    if let Some(path) = svg {
        fs::write(&path, plot.svg()).map_err(|source| SimulateError::Picture { path, source })?;
    }
    write!(io::stdout().lock(), "{plot}")?;
    Ok(ExitCode::SUCCESS)
}

fn replay(
    path: &Path,
    seed: u64,
    from: u64,
    until: Option<u64>,
    variant: Option<Variant>,
) -> Result<ExitCode, SimulateError> {
    let scenario = read(path)?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut lines = Vec::new();
    let (result, state) = {
        let trace = if until.is_some() { Trace::to(&mut lines, from) } else { Trace::to(&mut out, from) };
        let mut world = World::new(&scenario, seed, variant, trace);
        (world.run(until), world.state())
    };
    out.write_all(&lines)?;
    if until.is_some() {
        out.write_all(state.as_bytes())?;
    }
    let code = match result {
        Ok(_) => ExitCode::SUCCESS,
        Err(failure) => {
            writeln!(out, "{failure}: {}", failure.violation)?;
            ExitCode::FAILURE
        }
    };
    out.flush()?;
    Ok(code)
}
