//! `store`: what is kept, for how long, and whether it is whole.

use std::{collections::BTreeSet, fs::File, io, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use node::eval::Mode;
use protocol::id::{ActionId, NarHash};
use store::{AdmitError, Area, GcOptions, ImportError, Store};

use super::build::{Building, wanted};
use crate::{
    context::{Context, Project},
    exit::{CliError, Code},
    file,
    output::{self, Style, bytes, count},
    progress::Display,
};

/// Look after the store: space, pins, damage, export and import
#[derive(clap::Subcommand, Debug)]
pub(crate) enum StoreCommand {
    /// Say how much space is used for what
    Df,
    /// List what was built, the latest first
    Ls,
    /// Read everything and say what is damaged
    Verify {
        /// Move damaged archives aside and mend the index
        #[arg(long)]
        repair: bool,
    },
    /// Remove archives that are not pinned, and logs and compiled code that belong to nothing
    Gc {
        /// Only say what would go
        #[arg(long)]
        dry_run: bool,
        /// Keep what was made or used in the last N days
        #[arg(long, value_name = "DAYS")]
        older_than: Option<u32>,
    },
    /// Keep outputs when the store is collected
    Pin {
        /// What to call the pin
        name: String,
        /// Attributes, which are built if need be, or hashes (`nar:…`)
        #[arg(required = true, value_name = "ATTR|nar:…")]
        targets: Vec<String>,
        #[command(flatten)]
        project: Project,
    },
    /// Stop keeping what a pin keeps
    Unpin {
        /// What the pin is called
        name: String,
    },
    /// List the pins
    Pins,
    /// Write archives to a file that another store can import
    Export {
        /// Attributes, which are built if need be, or hashes (`nar:…`, `act:…`)
        #[arg(required = true, value_name = "ATTR|nar:…|act:…")]
        targets: Vec<String>,
        #[command(flatten)]
        project: Project,
        /// File to write; `-` for stdout
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
    },
    /// Take archives from a file that `export` wrote, or a single NAR; every hash is checked
    Import {
        /// File to read; `-` for stdin
        file: PathBuf,
    },
    /// Build the index anew from the journal
    Reindex,
}

/// The most bytes that one import takes.
const IMPORT_BYTES: u64 = 1 << 40;

impl StoreCommand {
    pub(crate) fn run(self, context: &Context) -> Result<ExitCode, CliError> {
        let store = context.store()?;
        match self {
            Self::Df => df(context, &store)?,
            Self::Ls => ls(context, &store)?,
            Self::Verify { repair } => return verify(context, &store, repair),
            Self::Gc { dry_run, older_than } => gc(context, &store, dry_run, older_than)?,
            Self::Pin { name, targets, project } => {
                let (nars, _) = find(context, &store, &project, &targets)?;
                if let Some(nar) = nars.iter().find(|nar| !store.contains(nar)) {
                    return Err(CliError::new(Code::NotFound, format!("{nar} is not in the store"))
                        .hint("list what is there with `assize store ls`"));
                }
                store.pin(&name, &nars)?;
                if context.json {
                    let nars: Vec<_> = nars.iter().map(ToString::to_string).collect();
                    output::json("pin", &serde_json::json!({ "name": name, "nars": nars }))?;
                } else {
                    context.tell(&format!("pinned {} as `{name}`", count(nars.len(), "archive")));
                }
            }
            Self::Unpin { name } => {
                if !store.unpin(&name)? {
                    return Err(CliError::new(Code::NotFound, format!("there is no pin `{name}`"))
                        .hint("list them with `assize store pins`"));
                }
                if context.json {
                    output::json("unpin", &serde_json::json!({ "name": name }))?;
                }
            }
            Self::Pins => pins(context, &store)?,
            Self::Export { targets, project, output } => {
                let (nars, actions) = find(context, &store, &project, &targets)?;
                export(context, &store, &nars, &actions, &output)?;
            }
            Self::Import { file } => import(context, &store, &file)?,
            Self::Reindex => {
                let notices = store.reindex().map_err(|e| CliError::of(Code::StoreDamaged, &e))?;
                let notices: Vec<_> = notices.iter().map(ToString::to_string).collect();
                if context.json {
                    output::json("reindex", &serde_json::json!({ "notices": notices }))?;
                } else {
                    notices.iter().for_each(|notice| context.tell(notice));
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn df(context: &Context, store: &Store) -> Result<(), CliError> {
    let usage = store.usage().map_err(|e| CliError::of(Code::Failed, &e))?;
    let areas = [
        ("archives", usage.nars),
        ("compiled", usage.modules),
        ("logs", usage.logs),
        ("journal", usage.journal),
        ("index", usage.index),
        ("temporary", usage.temp),
        ("partial", usage.partial),
        ("quarantine", usage.quarantine),
    ];
    if context.json {
        let data: serde_json::Map<_, _> = areas
            .iter()
            .map(|(name, area)| {
                ((*name).into(), serde_json::json!({ "files": area.files, "bytes": area.bytes }))
            })
            .collect();
        return Ok(output::json("df", &data)?);
    }
    for (name, Area { files, bytes: size }) in areas {
        output::say(&format!("{name:<10}  {files:>6} files  {:>10}", bytes(size)))?;
    }
    Ok(output::say(&format!("{:<10}  {:>12}  {:>10}", "all", "", bytes(usage.bytes())))?)
}

fn ls(context: &Context, store: &Store) -> Result<(), CliError> {
    let mut data = Vec::new();
    for realisation in store.realisations()? {
        let realisation = realisation?;
        for (output, made) in &realisation.outputs {
            let present = store.contains(&made.nar);
            if context.json {
                data.push(serde_json::json!({
                    "name": realisation.name.as_str(),
                    "output": output.as_str(),
                    "action": realisation.action.to_string(),
                    "nar": made.nar.to_string(),
                    "size": made.size,
                    "present": present,
                    "finished": realisation.finished,
                }));
            } else {
                let gone = if present { "" } else { "  (collected)" };
                output::say(&format!(
                    "{}  {}.{output}  {}{gone}",
                    made.nar,
                    realisation.name,
                    bytes(made.size)
                ))?;
            }
        }
    }
    if context.json {
        output::json("ls", &data)?;
    }
    Ok(())
}

fn verify(context: &Context, store: &Store, repair: bool) -> Result<ExitCode, CliError> {
    let report = store.verify(repair, |_, _| {}).map_err(|e| CliError::of(Code::StoreDamaged, &e))?;
    let clean = report.damaged.is_empty() && report.journal.is_empty() && report.index_faults == 0;
    if context.json {
        let damaged: Vec<_> = report
            .damaged
            .iter()
            .map(|nar| serde_json::json!({ "nar": nar.hash.to_string(), "fault": nar.fault.to_string() }))
            .collect();
        output::json(
            "verify",
            &serde_json::json!({
                "archives": report.nars,
                "bytes": report.nar_bytes,
                "facts": report.facts,
                "damaged": damaged,
                "foreign": report.foreign,
                "journal": report.journal.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "indexFaults": report.index_faults,
            }),
        )?;
    } else {
        for nar in &report.damaged {
            output::say(&format!("{} {}: {}", Style::Error.paint("damaged"), nar.hash, nar.fault))?;
        }
        for notice in report.journal.iter().chain(&report.repaired) {
            output::say(&output::plain(&notice.to_string()))?;
        }
        for path in &report.foreign {
            output::say(&output::plain(&format!("does not belong there: {}", path.display())))?;
        }
        let (nars, facts) = (count(report.nars, "archive"), count(report.facts, "fact"));
        output::say(&format!("{nars}, {}, {facts} read", bytes(report.nar_bytes)))?;
    }
    if clean || repair {
        return Ok(ExitCode::SUCCESS);
    }
    Err(CliError::new(Code::StoreDamaged, "the store is damaged")
        .hint("move damaged archives aside and mend the index with `assize store verify --repair`"))
}

fn gc(context: &Context, store: &Store, dry_run: bool, days: Option<u32>) -> Result<(), CliError> {
    let older_than = days.map(|days| Duration::from_secs(u64::from(days) * 24 * 3600));
    let report = store.gc(&GcOptions { dry_run, keep: BTreeSet::new(), older_than })?;
    if context.json {
        return Ok(output::json(
            "gc",
            &serde_json::json!({
                "dryRun": dry_run,
                "nars": report.nars.iter().map(|nar| nar.hash.to_string()).collect::<Vec<_>>(),
                "bytes": report.nar_bytes + report.logs.bytes + report.modules.bytes,
                "kept": report.kept.files,
            }),
        )?);
    }
    for nar in &report.nars {
        output::say(&format!("{}  {}", nar.hash, bytes(nar.size)))?;
    }
    let verb = if dry_run { "would free" } else { "freed" };
    let all = report.nar_bytes + report.logs.bytes + report.modules.bytes;
    context.tell(&format!(
        "{verb} {}: {}, {}, {} of compiled code; {} kept",
        bytes(all),
        count(report.nars.len(), "archive"),
        count(report.logs.files, "log"),
        count(report.modules.files, "file"),
        count(report.kept.files, "archive")
    ));
    Ok(())
}

fn pins(context: &Context, store: &Store) -> Result<(), CliError> {
    let pins = store.pins()?;
    if context.json {
        let data: serde_json::Map<_, _> = pins
            .iter()
            .map(|(name, nars)| {
                (name.clone(), nars.iter().map(ToString::to_string).collect::<Vec<_>>().into())
            })
            .collect();
        return Ok(output::json("pins", &data)?);
    }
    for (name, nars) in pins {
        for nar in nars {
            output::say(&output::plain(&format!("{nar}  {name}")))?;
        }
    }
    Ok(())
}

/// The archives and actions that are meant; attributes are built if need be.
fn find(
    context: &Context,
    store: &Arc<Store>,
    project: &Project,
    targets: &[String],
) -> Result<(BTreeSet<NarHash>, BTreeSet<ActionId>), CliError> {
    let (mut nars, mut actions) = (BTreeSet::new(), BTreeSet::new());
    for target in targets {
        if target.starts_with("nar:") {
            nars.insert(target.parse().map_err(|e: protocol::id::IdError| CliError::of(Code::Usage, &e))?);
        } else if target.starts_with("act:") {
            actions.insert(super::target::find(context, store, project, target)?.known()?);
        } else {
            let (root, evaluation) = context.evaluate(project, Some(target), Mode::Build)?;
            context.take_sources(store, &root, &evaluation)?;
            let building = Building { no_substitute: true, ..Building::default() };
            let display = Display::new(target.clone(), context.quiet, context.json);
            let realiser = context.realiser(store, building.how(context, false)?, display.observer());
            let realised = context.realise(&realiser, &evaluation)?;
            nars.extend(wanted(&evaluation, &realised).iter().map(|output| output.nar));
            actions.extend(realised.roots.values().map(|(action, _)| *action));
        }
    }
    Ok((nars, actions))
}

fn export(
    context: &Context,
    store: &Store,
    nars: &BTreeSet<NarHash>,
    actions: &BTreeSet<ActionId>,
    to: &std::path::Path,
) -> Result<(), CliError> {
    let failed = |e: store::ExportError| {
        CliError::of(Code::Failed, &e).hint("see what is there with `assize store ls`")
    };
    let exported = file::write(to, |file| store.export(nars, actions, file).map_err(failed))?;
    // With `-`, stdout is the bundle's.
    if context.json && !file::is_standard(to) {
        let data = serde_json::json!({ "nars": exported.nars, "actions": exported.actions, "bytes": exported.nar_bytes });
        return Ok(output::json("export", &data)?);
    }
    context.tell(&format!("exported {}, {}", count(exported.nars, "archive"), bytes(exported.nar_bytes)));
    Ok(())
}

fn import(context: &Context, store: &Store, file: &std::path::Path) -> Result<(), CliError> {
    let failed = |e: store::ImportError| {
        let (code, hint) = match &e {
            ImportError::ActionHash { .. } | ImportError::Nar { source: AdmitError::Hash { .. }, .. } => {
                (Code::HashMismatch, "get the file again; what was good of it is in the store")
            }
            ImportError::Admit(e) | ImportError::Nar { source: e, .. } if !e.blames_sender() => {
                (Code::Failed, "is there space on the disk of the store? `assize doctor` tells")
            }
            ImportError::Record(_) => {
                (Code::Failed, "is there space on the disk of the store? `assize doctor` tells")
            }
            ImportError::Admit(_) => {
                (Code::Failed, "name a file that `assize store export` or `assize nar dump` wrote")
            }
            ImportError::Foreign { .. } | ImportError::Action { .. } | ImportError::Nar { .. } => {
                (Code::Failed, "make it anew with `assize store export`; what came before is in the store")
            }
        };
        CliError::of(code, &e).hint(hint)
    };
    let imported = if file == std::path::Path::new("-") {
        store.import(io::stdin().lock(), IMPORT_BYTES).map_err(failed)?
    } else {
        let open = File::open(file).map_err(|e| CliError::unreadable(file, &e))?;
        store.import(open, IMPORT_BYTES).map_err(failed)?
    };
    if context.json {
        return Ok(output::json(
            "import",
            &serde_json::json!({
                "nars": imported.nars.iter().map(|nar| nar.hash.to_string()).collect::<Vec<_>>(),
                "actions": imported.actions.iter().map(ToString::to_string).collect::<Vec<_>>(),
            }),
        )?);
    }
    for nar in &imported.nars {
        output::say(&format!("{}  {}", nar.hash, bytes(nar.size)))?;
    }
    Ok(())
}
