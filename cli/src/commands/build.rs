//! `build`: make the outputs of derivations exist.

use std::{collections::BTreeMap, path::PathBuf, process::ExitCode, sync::Arc};

use node::{
    eval::{Evaluation, Mode},
    realise::{How, Realised, State},
    substitute::Substitutes,
};
use protocol::{
    id::{ActionId, NarHash},
    name::Name,
    output::Outputs,
};
use store::Store;

use crate::{
    context::{Context, Project, label},
    exit::{CliError, Code},
    network::{LocalNode, Reach},
    output::{self, Style},
    progress::Display,
};

/// How things are built: the same for every command that builds.
#[derive(clap::Args, Debug, Clone, Default)]
pub(crate) struct Building {
    /// Builds and fetches at once [default: one for each processor]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) jobs: Option<u16>,

    /// Keep the files of a failed build, in a directory of this name
    #[arg(long, value_name = "DIR", num_args = 0..=1, default_missing_value = "assize-failed")]
    pub(crate) keep_failed: Option<PathBuf>,

    /// After a failure, go on with what does not need what failed, and print what succeeded
    #[arg(short, long)]
    pub(crate) keep_going: bool,

    /// Use no network: what is not in the store cannot be fetched
    #[arg(long)]
    pub(crate) offline: bool,

    /// Take nothing that others built, whoever agrees on it
    #[arg(long)]
    pub(crate) no_substitute: bool,
}

impl Building {
    /// How to realise, by these flags and the owner's configuration.
    pub(crate) fn how(&self, context: &Context, again: bool) -> Result<How, CliError> {
        let config = context.config()?;
        let mut fetch = config.fetch.clone();
        fetch.offline |= self.offline;
        Ok(How {
            jobs: self.jobs.map_or_else(|| config.jobs(), usize::from),
            again,
            keep_going: self.keep_going,
            limits: config.limits,
            keep_failed: self.keep_failed.as_deref().map(std::path::absolute).transpose()?,
            fetch,
            substitutes: None,
            attester: if config.attests() { Some(context.key()?) } else { None },
        })
    }
}

impl Building {
    /// What others built, if anything of what was evaluated is not here, and that may be taken. The
    /// node that is asked lives for as long as the second of what is returned.
    pub(crate) fn substitutes(
        &self,
        context: &Context,
        store: &Arc<Store>,
        evaluation: &Evaluation,
    ) -> Result<(Option<Arc<Substitutes>>, Option<LocalNode>), CliError> {
        let nobody_else = context.roster().read()?.iter().next().is_none();
        if self.no_substitute || nobody_else || self.is_here(context, store, evaluation)? {
            return Ok((None, None));
        }
        let reach = if self.offline { Reach::Nobody } else { Reach::Peers };
        let (substitutes, local) = context.substitutes(store, reach)?;
        Ok((Some(Arc::new(substitutes)), local))
    }

    /// Whether all that was asked for was built here, and is here.
    fn is_here(
        &self,
        context: &Context,
        store: &Arc<Store>,
        evaluation: &Evaluation,
    ) -> Result<bool, CliError> {
        let roots = evaluation.roots.iter().map(|root| root.derivation).collect();
        let display = Display::new(String::new(), true, false);
        let realiser = context.realiser(store, self.how(context, false)?, display.observer());
        let known = realiser.known(&evaluation.derivations, &roots)?;
        let here = |(_, outputs): &State| {
            outputs.as_ref().is_some_and(|outputs| outputs.values().all(|output| store.contains(&output.nar)))
        };
        Ok(known.values().all(here))
    }
}

/// Build packages and print the hashes of their outputs
///
/// Evaluates ATTR in the project, builds what is not in the store yet, and prints a line for each
/// output: its hash, and which output it is. Without ATTR, everything in the file.
#[derive(clap::Args, Debug)]
pub(crate) struct Build {
    /// Attributes to build, as in `lua` or `libs.zlib`; `.` is the file's own value
    #[arg(value_name = "ATTR")]
    attributes: Vec<String>,

    #[command(flatten)]
    project: Project,

    #[command(flatten)]
    building: Building,

    /// Unpack the output into a directory, which must not exist yet
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,

    /// Keep the outputs when the store is collected, under this name
    #[arg(long, value_name = "NAME")]
    pin: Option<String>,

    /// Build once more even if it was built, and compare
    #[arg(long, conflicts_with = "check")]
    rebuild: bool,

    /// Build N times and compare all outputs
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    check: Option<u16>,

    /// Only say what is in the store and what would be built
    #[arg(long, conflicts_with_all = ["rebuild", "check", "output", "pin"])]
    dry_run: bool,
}

impl Build {
    pub(crate) fn run(self, context: &Context) -> Result<ExitCode, CliError> {
        let mut all = Vec::new();
        let attributes =
            if self.attributes.is_empty() { vec![String::new()] } else { self.attributes.clone() };
        for attribute in attributes {
            all.push(context.evaluate(&self.project, Some(&attribute), Mode::Build)?);
        }
        let (root, evaluation) = merge(all);
        if evaluation.roots.is_empty() {
            return Err(CliError::new(Code::NotFound, "there is no derivation in that value")
                .hint("list what there is with `assize eval --list`"));
        }
        if let Some(to) = self.output.as_ref().filter(|to| to.symlink_metadata().is_ok()) {
            return Err(CliError::new(Code::Failed, format!("`{}` exists already", to.display()))
                .hint("name a directory that does not exist yet with -o"));
        }
        let store = context.store()?;
        context.take_sources(&store, &root, &evaluation)?;
        let title = title(&evaluation);
        if self.dry_run {
            return self.plan(context, &store, &evaluation);
        }
        let (substitutes, _local) = self.building.substitutes(context, &store, &evaluation)?;
        let times = self.check.unwrap_or(1);
        let again = self.rebuild || self.check.is_some();
        let mut outputs = Vec::new();
        for _ in 0..times {
            let how = How { substitutes: substitutes.clone(), ..self.building.how(context, again)? };
            let display = Display::new(title.clone(), context.quiet, context.json);
            let realiser = context.realiser(&store, how, display.observer());
            let (realised, error) = context.realise_some(&realiser, &evaluation)?;
            drop(display);
            outputs = wanted(&evaluation, &realised);
            if let Some(error) = error {
                if self.building.keep_going {
                    print(context, &outputs)?;
                }
                return Err(error);
            }
        }
        if let Some(n) = self.check {
            context.tell(&format!(
                "{} {}, the same outputs",
                Style::Good.paint("✔"),
                output::count(n, "build")
            ));
        }
        if again {
            outputs.iter_mut().for_each(|output| output.checked = Some(times));
        }
        if let Some(name) = &self.pin {
            let nars = outputs.iter().map(|output| output.nar).collect();
            store.pin(name, &nars)?;
        }
        if let Some(to) = &self.output {
            unpack(&store, &outputs, to)?;
        }
        print(context, &outputs)
    }

    fn plan(
        &self,
        context: &Context,
        store: &std::sync::Arc<Store>,
        evaluation: &Evaluation,
    ) -> Result<ExitCode, CliError> {
        let how = self.building.how(context, false)?;
        let display = Display::new(String::new(), true, false);
        let realiser = context.realiser(store, how, display.observer());
        let roots = evaluation.roots.iter().map(|r| r.derivation).collect();
        let known = realiser.known(&evaluation.derivations, &roots)?;
        let mut data = Vec::new();
        let mut missing = None;
        for root in &evaluation.roots {
            let (action, outputs) = known.get(&root.derivation).cloned().unwrap_or_default();
            let there = outputs.is_some_and(|o| o.values().all(|o| store.contains(&o.nar)));
            let attribute = label(root, evaluation);
            if !there {
                missing.get_or_insert_with(|| attribute.clone());
            }
            data.push(serde_json::json!({
                "attribute": attribute,
                "derivation": root.derivation.to_string(),
                "action": action.map(|a| a.to_string()),
                "state": if there { "present" } else { "to build" },
            }));
            if !context.json {
                output::say(&format!("{}  {attribute}", if there { "present " } else { "to build" }))?;
            }
        }
        if context.json {
            output::json("plan", &data)?;
        } else if let Some(attribute) = missing {
            context.tell(&format!("all that it takes: `assize why --all {attribute}`"));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// What several attributes evaluated to, as one.
pub(crate) fn merge(all: Vec<(PathBuf, Evaluation)>) -> (PathBuf, Evaluation) {
    let mut merged = Evaluation::default();
    let mut root = PathBuf::new();
    for (path, evaluation) in all {
        root = path;
        merged.roots.extend(evaluation.roots);
        merged.derivations.extend(evaluation.derivations);
        merged.sources.extend(evaluation.sources);
    }
    (root, merged)
}

pub(crate) fn title(evaluation: &Evaluation) -> String {
    let names: Vec<_> = evaluation.roots.iter().map(|root| label(root, evaluation)).collect();
    match names.as_slice() {
        [first, second, third, _, ..] => format!("{first}, {second}, {third} and {} more", names.len() - 3),
        few => few.join(", "),
    }
}

/// An output that was asked for.
#[derive(Debug, serde::Serialize)]
pub(crate) struct Wanted {
    attribute: String,
    output: String,
    #[serde(serialize_with = "as_text")]
    pub(crate) nar: NarHash,
    pub(crate) size: u64,
    action: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    derivation: Option<String>,
    /// How many executions gave this, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    checked: Option<u16>,
}

impl Wanted {
    /// Whether it is the output that is meant when none is named.
    pub(crate) fn is_default(&self) -> bool {
        self.output == Name::out().as_str()
    }
}

fn as_text<S: serde::Serializer>(value: &NarHash, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(value)
}

/// The outputs that were asked for: the named one, or all of a derivation.
pub(crate) fn wanted(evaluation: &Evaluation, realised: &Realised) -> Vec<Wanted> {
    let mut wanted = Vec::new();
    for root in &evaluation.roots {
        let Some((action, outputs)) = realised.roots.get(&root.derivation) else { continue };
        let chosen: BTreeMap<_, _> = match &root.output {
            Some(name) => outputs.iter().filter(|(n, _)| *n == name).collect(),
            None => outputs.iter().collect(),
        };
        for (name, output) in chosen {
            wanted.push(Wanted {
                attribute: label(root, evaluation),
                output: name.to_string(),
                nar: output.nar,
                size: output.size,
                action: action.to_string(),
                derivation: Some(root.derivation.to_string()),
                checked: None,
            });
        }
    }
    wanted
}

/// All outputs of an action that was asked for by its hash.
pub(crate) fn of_action(action: &ActionId, outputs: &Outputs) -> impl Iterator<Item = Wanted> {
    outputs.iter().map(|(name, output)| Wanted {
        attribute: action.to_string(),
        output: name.to_string(),
        nar: output.nar,
        size: output.size,
        action: action.to_string(),
        derivation: None,
        checked: None,
    })
}

pub(crate) fn print(context: &Context, outputs: &[Wanted]) -> Result<ExitCode, CliError> {
    if context.json {
        output::json("build", &outputs)?;
        return Ok(ExitCode::SUCCESS);
    }
    for Wanted { attribute, output, nar, size, .. } in outputs {
        let which =
            if output == Name::out().as_str() { attribute.clone() } else { format!("{attribute}.{output}") };
        output::say(&format!("{nar}  {which}  {}", output::bytes(*size)))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Unpacks the one output, or several into a directory each.
pub(crate) fn unpack(store: &Store, outputs: &[Wanted], to: &std::path::Path) -> Result<(), CliError> {
    let unpack_one = |nar: &NarHash, to: &std::path::Path| {
        store.open_nar(nar)?.unpack(to).map_err(|e| {
            CliError::of(Code::Failed, &e).hint("name a directory that does not exist, on a disk with space")
        })
    };
    if let [only] = outputs {
        unpack_one(&only.nar, to)?;
        return Ok(());
    }
    std::fs::create_dir_all(to)?;
    for output in outputs {
        unpack_one(
            &output.nar,
            &to.join(format!("{}.{}", output.attribute, output.output).replace('/', "%2F")),
        )?;
    }
    Ok(())
}
