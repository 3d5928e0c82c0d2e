//! What commands like `show` and `log` are pointed at: an attribute, or an action by its id.

use node::eval::{Evaluation, Mode, Root};
use protocol::id::ActionId;
use store::{Found, Store};

use super::build::Building;
use crate::{
    context::{Context, Project, label},
    exit::{CliError, Code},
    progress::Display,
};

/// An action that something is asked about, with what it is called.
pub(crate) struct Target {
    pub(crate) label: String,
    /// `None` when an input of it has not been built yet, so that it is not known.
    pub(crate) action: Option<ActionId>,
}

/// Finds the action that `text` means: `act:…`, an unambiguous beginning of that, or an attribute
/// of the project whose inputs are built.
pub(crate) fn find(
    context: &Context,
    store: &std::sync::Arc<Store>,
    project: &Project,
    text: &str,
) -> Result<Target, CliError> {
    // A whole id needs no record: an action that failed has a log.
    if let Ok(action) = text.parse() {
        return Ok(Target { label: text.into(), action: Some(action) });
    }
    if text.starts_with("act:") {
        return match store.find_prefix(text)? {
            Found::Action(action) => Ok(Target { label: text.into(), action: Some(action) }),
            Found::Ambiguous { .. } => {
                Err(CliError::new(Code::NotFound, format!("`{text}` is the beginning of several actions"))
                    .hint("give more of its characters"))
            }
            _ => Err(CliError::new(Code::NotFound, format!("no action `{text}` is known here"))
                .hint("name an attribute instead, or build it first")),
        };
    }
    let (root, evaluation) = context.evaluate(project, Some(text), Mode::Build)?;
    let only = only(&evaluation, text)?;
    context.take_sources(store, &root, &evaluation)?;
    let building = Building { offline: true, no_substitute: true, ..Building::default() };
    let display = Display::new(String::new(), true, false);
    let realiser = context.realiser(store, building.how(context, false)?, display.observer());
    let known = realiser.known(&evaluation.derivations, &[only.derivation].into())?;
    let action = known.get(&only.derivation).and_then(|(action, _)| *action);
    Ok(Target { label: label(only, &evaluation), action })
}

/// The derivation that an attribute is, if it is one.
pub(crate) fn only<'e>(evaluation: &'e Evaluation, attribute: &str) -> Result<&'e Root, CliError> {
    match evaluation.roots.as_slice() {
        [only] => Ok(only),
        roots => {
            let what = match attribute {
                "" => format!("the project is {} derivations, and one is to be named", roots.len()),
                _ => format!("`{attribute}` is {} derivations, not one", roots.len()),
            };
            Err(CliError::new(Code::Usage, what).hint("list attributes with `assize eval --list`"))
        }
    }
}

impl Target {
    /// The action, which must be known.
    pub(crate) fn known(&self) -> Result<ActionId, CliError> {
        self.action.ok_or_else(|| {
            CliError::new(Code::NotFound, format!("the inputs of `{}` are not built yet", self.label))
                .hint(format!("build it: `assize build {}`", self.label))
        })
    }
}
