//! `audit settle`: whom an execution on this machine supports.

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use node::{control::Node, rebuild::RebuildError};
use protocol::{
    evidence::{self, Evidence},
    id::ActionId,
};
use serde_json::json;
use store::Store;
use trust::audit::{Found, Support};

use super::lines;
use crate::{
    commands::watch,
    context::Context,
    exit::{CliError, Code},
    file,
    output::{self, Style},
};

/// `audit settle`.
pub(super) fn run(
    context: &Context,
    store: &Arc<Store>,
    action: &ActionId,
    times: u32,
    to: Option<PathBuf>,
    node: Option<Node>,
) -> Result<ExitCode, CliError> {
    let rebuilder = watch::rebuilder(context, store, node, context.config()?.watch.limits)?;
    let settled = context.block_on(async {
        let found = rebuilder.find(*action).await?;
        let often = if times == 1 { "once".into() } else { format!("{times} times") };
        context.tell(&format!("executing {} {often}", found.name()));
        rebuilder.settle(found, times, &|_| ()).await
    })?;
    let found = match settled {
        Ok(rebuilt) => rebuilt.found(),
        Err(RebuildError::Unstable) => None,
        Err(error) => return Err(watch::of_rebuild(action, &error)),
    };
    let judgement = context.judgement(store, None)?;
    let dispute = judgement.dispute(action)?;
    if let Some(to) = to {
        let statements = store.claims(action)?;
        file::write(&to, |file| {
            file.write_all(evidence::MAGIC)?;
            let items = statements.into_iter().map(Evidence::Statement);
            items.map(|item| item.to_bytes()).try_for_each(|bytes| Ok(file.write_all(&bytes)?))
        })?;
    }
    let settled = dispute.settled(found.as_ref());
    if context.json {
        output::json(
            "settled",
            &json!({ "action": action.to_string(), "found": found, "settled": settled }),
        )?;
    } else {
        match &found {
            None => output::say(&format!("{} executions on this machine differ", Style::Error.paint("✘")))?,
            Some(found) => lines(found).iter().try_for_each(|line| output::say(&format!("here: {line}")))?,
        }
        for (who, support) in &settled {
            let (style, sign, text) = words(*support);
            output::say(&format!("{} {who}: {text}", style.paint(sign)))?;
        }
        if let Some((who, _)) = settled.iter().find(|(_, support)| support.is_against()) {
            output::complain(&format!(
                "{}: whoever is wrong can withdraw it (`assize attest retract`); to count {who} no more: `assize trust remove {who}`",
                Style::Hint.paint("hint")
            ));
        }
    }
    Ok(match found {
        Some(Found::Built(_)) => ExitCode::SUCCESS,
        Some(Found::Failed { .. }) => Code::BuildFailed.into(),
        None => Code::NotDeterministic.into(),
    })
}

fn words(support: Support) -> (Style, &'static str, &'static str) {
    match support {
        Support::Proven => (Style::Good, "✔", "got the same, and has executed it"),
        Support::Supported => (Style::Good, "✔", "got the same; nothing proves that it was executed"),
        Support::Copied => {
            (Style::Error, "✘", "names the same, and has not executed it: the witness is wrong")
        }
        Support::Refuted => {
            (Style::Error, "✘", "names something else, which execution here does not support")
        }
        Support::Undecided => (Style::Busy, "·", "cannot be right or wrong"),
    }
}
