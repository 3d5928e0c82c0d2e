//! `audit diff`: where the outputs differ that people name for an action.

use std::{collections::BTreeMap, path::PathBuf, process::ExitCode, sync::Arc};

use node::{
    control::Node,
    difference::{self, Difference},
    judgement::Judgement,
    substitute,
};
use protocol::{
    id::{ActionId, NarHash},
    name::Name,
    output::Output,
};
use serde_json::json;
use store::Store;
use trust::{
    audit::{Dispute, Found, Saying},
    roster::SELF,
};

use super::people;
use crate::{
    commands::attest,
    context::Context,
    dashboard::page,
    exit::{CliError, Code},
    file,
    network::Reach,
    output,
};

/// What somebody says of an action.
fn side_of<'d>(
    context: &Context,
    judgement: &Judgement,
    dispute: &'d Dispute,
    whose: &str,
) -> Result<&'d Found, CliError> {
    let key = match whose {
        SELF => None,
        whose => Some(attest::attester(context, whose)?),
    };
    let name = key.and_then(|key| judgement.voters().name_of(&key));
    let is = |saying: &Saying| match (key, name) {
        (None, _) => saying.who.as_ref().is_some_and(|who| who.as_str() == SELF),
        (Some(_), Some(name)) => saying.who.as_ref() == Some(name),
        (Some(key), None) => saying.key == Some(key),
    };
    let found = dispute.sayings().filter(|(saying, _)| is(saying)).map(|(_, found)| found).last();
    found.ok_or_else(|| {
        CliError::new(Code::NotFound, format!("`{whose}` says nothing of it"))
            .hint("see who says what with `assize audit show`")
    })
}

/// An output of which two have different archives.
pub(crate) struct Pair<'d> {
    /// Which.
    pub(crate) output: Name,
    /// One archive, and what is said of all outputs on its side.
    pub(crate) left: (Output, &'d Found),
    /// The other one.
    pub(crate) right: (Output, &'d Found),
}

impl<'d> Pair<'d> {
    /// The output of that name, or the first that differs, of these two sides, or of the two with
    /// the most people on them.
    pub(crate) fn of(
        dispute: &'d Dispute,
        between: Option<(&'d Found, &'d Found)>,
        output: Option<Name>,
    ) -> Result<Self, CliError> {
        let mut built =
            dispute.sides.iter().map(|side| &side.found).filter(|found| matches!(found, Found::Built(_)));
        let Some((one, other)) = between.or_else(|| built.next().zip(built.next())) else {
            return Err(CliError::new(Code::NotFound, "nobody names different outputs for it")
                .hint("see who says what with `assize audit show`"));
        };
        let name = output.or_else(|| dispute.output(one, other));
        let of = |found: &Found| match (found, &name) {
            (Found::Built(outputs), Some(name)) => outputs.get(name).copied(),
            _ => None,
        };
        match (name.clone(), of(one), of(other)) {
            (Some(output), Some(left), Some(right)) => {
                Ok(Self { output, left: (left, one), right: (right, other) })
            }
            _ => Err(CliError::new(Code::NotFound, "the two have no output that both name and that differs")
                .hint("see who says what with `assize audit show`")),
        }
    }

    /// What of it is not here, with its lengths.
    pub(crate) fn missing(&self, store: &Store) -> BTreeMap<NarHash, u64> {
        let both = [self.left.0, self.right.0];
        both.iter().filter(|o| !store.contains(&o.nar)).map(|o| (o.nar, o.size)).collect()
    }

    /// Where they differ, when both are here.
    pub(crate) fn compare(&self, store: &Store) -> Result<Difference, CliError> {
        let (left, right) = (store.open_nar(&self.left.0.nar)?, store.open_nar(&self.right.0.nar)?);
        difference::compare(left.bytes(), right.bytes()).map_err(|e| CliError::of(Code::Failed, &e))
    }
}

/// Has archives from whoever has them. Nothing is accepted by that.
pub(crate) async fn download(node: Option<&Node>, missing: &BTreeMap<NarHash, u64>) -> Result<(), CliError> {
    substitute::download(node, missing, |_, _| ()).await.map_err(|error| {
        CliError::of(Code::Unreachable, &error)
            .hint("be connected to who has it: `assize peer add TICKET`; its maker may not have kept it")
    })
}

/// `audit diff`.
pub(super) fn run(
    context: &Context,
    store: &Arc<Store>,
    action: &ActionId,
    between: &[String],
    output: Option<Name>,
    html: Option<PathBuf>,
    offline: bool,
) -> Result<ExitCode, CliError> {
    let judgement = context.judgement(store, None)?;
    let dispute = judgement.dispute(action)?;
    let between = match between {
        [one, other] => Some((
            side_of(context, &judgement, &dispute, one)?,
            side_of(context, &judgement, &dispute, other)?,
        )),
        _ => None,
    };
    let pair = Pair::of(&dispute, between, output)?;
    let missing = pair.missing(store);
    if !missing.is_empty() {
        let reach = if offline { Reach::Nobody } else { Reach::Anybody };
        let (node, _local) = context.node(store, reach)?;
        let bytes = missing.values().fold(0, |sum: u64, size| sum.saturating_add(*size));
        context.tell(&format!("downloading {} to compare", output::bytes(bytes)));
        context.block_on(download(node.as_ref(), &missing))??;
    }
    let difference = pair.compare(store)?;
    let who = |found: &Found| {
        let side = dispute.sides.iter().find(|side| side.found == *found);
        side.map_or_else(String::new, |side| people(&side.says))
    };
    let [left, right] = [pair.left.1, pair.right.1].map(|found| format!("{} of {}", pair.output, who(found)));
    if let Some(file) = html {
        let body = page::side_by_side(&left, &right, &difference.rows());
        let page = page::alone(&format!("Where they differ: {action}"), &body).into_string();
        file::write(&file, |to| Ok(to.write_all(page.as_bytes())?))?;
    } else if context.json {
        let data = json!({ "action": action.to_string(), "output": pair.output, "difference": difference });
        output::json("difference", &data)?;
    } else {
        output::say(&format!("--- {left}"))?;
        output::say(&format!("+++ {right}"))?;
        difference.to_string().lines().try_for_each(output::say)?;
    }
    Ok(ExitCode::SUCCESS)
}
