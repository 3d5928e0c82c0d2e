//! `who-can-fool-me`: whom one's policy believes, if they lie together.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::ExitCode,
    sync::Arc,
};

use node::{eval::Mode, judgement::Judgement};
use protocol::name::Name;
use serde_json::json;
use store::Store;
use trust::{
    coalition::{Exposure, blast_radius, weakest, who_can_fool},
    policy::{Because, Policy, View},
};

use super::why;
use crate::{
    context::{Context, Project},
    exit::{CliError, Code},
    output,
};

/// Packages that are named for each part of the policy.
const SHOWN: usize = 6;

/// Name the fewest whom this machine would believe if they lied together
///
/// With attributes: about anything that these are built from. With --attester: what would be
/// decided otherwise if one of those trusted were silent, or lied.
#[derive(clap::Args, Debug)]
pub(crate) struct WhoCanFoolMe {
    /// Attributes of the project
    #[arg(value_name = "ATTR")]
    attributes: Vec<String>,

    #[command(flatten)]
    project: Project,

    /// Say what hangs on one attester alone
    #[arg(long, value_name = "NAME", conflicts_with = "attributes")]
    attester: Option<Name>,
}

impl WhoCanFoolMe {
    pub(crate) fn run(self, context: &Context) -> Result<ExitCode, CliError> {
        let store = context.store()?;
        let judgement = context.judgement(&store, None)?;
        if let Some(attester) = &self.attester {
            return blast(context, &store, &judgement, attester);
        }
        let mute = judgement.voters().mute();
        if self.attributes.is_empty() {
            let parts = judgement.policy().views().map(|view| {
                let of = match view.because() {
                    Because::Everything => "anything".to_owned(),
                    Because::Override { package, .. } | Because::Exemption { package, .. } => {
                        format!("`{package}`")
                    }
                };
                (of, who_can_fool(&view, mute))
            });
            return print(context, parts.collect());
        }
        let mut exposures = Vec::new();
        for attribute in &self.attributes {
            let (_, evaluation) = context.evaluate(&self.project, Some(attribute), Mode::Build)?;
            let packages: BTreeSet<Name> =
                evaluation.derivations.values().map(|derivation| derivation.name().clone()).collect();
            let found = weakest(judgement.policy(), &packages, mute);
            let of = match &found {
                Some((package, _)) => format!("`{attribute}`, by way of `{package}`"),
                None => format!("`{attribute}`"),
            };
            exposures.push((of, found.map_or(Exposure::Nobody, |(_, exposure)| exposure)));
        }
        print(context, exposures)
    }
}

fn print(context: &Context, exposures: Vec<(String, Exposure)>) -> Result<ExitCode, CliError> {
    if context.json {
        let data: Vec<_> =
            exposures.iter().map(|(of, exposure)| json!({ "of": of, "exposure": exposure })).collect();
        output::json("exposure", &data)?;
        return Ok(ExitCode::SUCCESS);
    }
    for (of, exposure) in exposures {
        output::say(&match exposure {
            Exposure::Nobody => format!("about {of}: nobody; nothing is believed that was not built here"),
            Exposure::Coalition { operators, voters, smallest } => {
                let names = |names: &BTreeSet<Name>| {
                    let names: Vec<_> = names.iter().map(Name::as_str).collect();
                    names.join(", ")
                };
                let least = if smallest { "" } else { "at most " };
                let keys = if operators == voters {
                    String::new()
                } else {
                    format!(" (with the keys of {})", names(&voters))
                };
                format!("about {of}: {least}{} of them, as {}{keys}", operators.len(), names(&operators))
            }
        })?;
    }
    Ok(ExitCode::SUCCESS)
}

fn blast(
    context: &Context,
    store: &Arc<Store>,
    judgement: &Judgement,
    attester: &Name,
) -> Result<ExitCode, CliError> {
    if judgement.roster().get(attester).is_none() {
        return Err(CliError::new(Code::NotFound, format!("nobody is called `{attester}` here"))
            .hint("list names with `assize trust list`"));
    }
    let policy: &Policy = judgement.policy();
    let mut actions = Vec::new();
    for action in store.claimed()? {
        let package = why::package(store, &action)?;
        actions.push((action, judgement.claims(&action, None)?, package));
    }
    let cases: Vec<(_, View<'_>)> =
        actions.iter().map(|(_, claims, package)| (claims, policy.for_package(package))).collect();
    let blasts = blast_radius(attester, cases);
    if context.json {
        let data: Vec<_> = blasts
            .iter()
            .map(|blast| {
                let (action, _, package) = &actions[blast.index];
                json!({ "action": action.to_string(), "package": package, "now": blast.now,
                        "absent": blast.absent, "wrong": blast.wrong })
            })
            .collect();
        output::json("blastRadius", &data)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut packages: BTreeMap<&Name, usize> = BTreeMap::new();
    for blast in &blasts {
        *packages.entry(&actions[blast.index].2).or_default() += 1;
    }
    output::say(&format!(
        "{} of {} actions would be decided otherwise if `{attester}` were silent, or lied",
        blasts.len(),
        actions.len()
    ))?;
    for (package, count) in packages.iter().take(SHOWN) {
        output::say(&format!("  {package}: {count}"))?;
    }
    Ok(ExitCode::SUCCESS)
}
