//! `trust`: whose word counts here, by the owner's own names for them.

use std::{collections::BTreeSet, path::PathBuf, process::ExitCode, sync::Arc};

use node::{attest::now, judgement::JudgementError};
use protocol::{id::ActionId, key::AttesterKey, name::Name, ticket::Ticket};
use serde_json::json;
use store::Store;
use trust::{
    date::Day,
    roster::{Attester, Roster, RosterError},
    verdict::Outcome,
};

use crate::{
    context::Context,
    exit::{CliError, Code},
    file,
    output::{self, Style},
};

/// Longest roster that is imported, in bytes.
const ROSTER_BYTES: u64 = 16 << 20;

/// Actions that are named when something is in doubt.
const SHOWN: usize = 10;

/// Say whose attestations count here
///
/// Names are your own: nobody else can make or change one. To be connected with somebody is not to
/// trust him; how many of those trusted must agree is for the policy (`assize policy`).
#[derive(clap::Subcommand, Debug)]
pub(crate) enum TrustCommand {
    /// Count what a key signs, under a name
    Add {
        /// What you call it
        name: Name,
        /// Its key, as `assize key show` prints it there, or a ticket that has it
        #[arg(value_name = "KEY|TICKET", value_parser = key_or_ticket)]
        key: AttesterKey,
        /// A group it belongs to; can be given several times
        #[arg(short, long = "group", value_name = "GROUP")]
        groups: Vec<Name>,
        /// Who runs it, if somebody runs several
        #[arg(long, value_name = "NAME")]
        operator: Option<Name>,
        /// The last day on which it counts, as YYYY-MM-DD
        #[arg(long, value_name = "DATE", value_parser = day)]
        until: Option<Day>,
        /// A remark for yourself
        #[arg(long, value_name = "TEXT")]
        note: Option<String>,
    },
    /// List whose word counts
    List,
    /// Stop counting what a name signs, and say what is in doubt now
    Remove {
        /// What you call it
        name: Name,
    },
    /// Say which groups a name belongs to; without groups, none
    Group {
        /// What you call it
        name: Name,
        /// All its groups
        groups: Vec<Name>,
    },
    /// Print the roster, for somebody else to import
    Export,
    /// Add the names of a file that `export` wrote; what clashes with a name or key here is an error
    Import {
        /// File to read; `-` for stdin
        file: PathBuf,
    },
}

fn key_or_ticket(text: &str) -> Result<AttesterKey, String> {
    if !text.to_ascii_lowercase().starts_with("peer:") {
        return text.parse().map_err(|e: protocol::key::KeyError| e.to_string());
    }
    let ticket: Ticket = text.parse().map_err(|e: protocol::ticket::TicketError| e.to_string())?;
    let key = ticket.attester.ok_or("the ticket names no key: its owner builds nothing, or has not yet")?;
    // What is typed is checked; so is what a ticket says.
    key.to_string().parse().map_err(|e: protocol::key::KeyError| e.to_string())
}

fn day(text: &str) -> Result<Day, String> {
    Day::parse(text).ok_or_else(|| "not a day as YYYY-MM-DD".into())
}

/// What a change of the roster fails with.
enum Failed {
    Judgement(JudgementError),
    Roster(RosterError),
}

impl From<JudgementError> for Failed {
    fn from(error: JudgementError) -> Self {
        Self::Judgement(error)
    }
}

impl From<RosterError> for Failed {
    fn from(error: RosterError) -> Self {
        Self::Roster(error)
    }
}

impl From<Failed> for CliError {
    fn from(error: Failed) -> Self {
        match error {
            Failed::Judgement(error) => error.into(),
            Failed::Roster(error) => error.into(),
        }
    }
}

impl TrustCommand {
    pub(crate) fn run(self, context: &Context) -> Result<ExitCode, CliError> {
        match self {
            Self::Add { name, key, groups, operator, until, note } => {
                let groups = groups.into_iter().collect();
                let until = until.map(Day::end);
                let attester = Attester { key, groups, operator, until, note };
                let own = context.keys().load()?.map(|key| AttesterKey::of(&key));
                context.roster().change(|roster| {
                    roster.add(name.clone(), attester)?;
                    own.map_or(Ok(()), |own| roster.check_own(&own)).map_err(Failed::from)
                })?;
                print(context, |n| *n == name)?;
                notes(context)?;
            }
            Self::List => print(context, |_| true)?,
            Self::Remove { name } => remove(context, &name)?,
            Self::Group { name, groups } => {
                let groups: BTreeSet<Name> = groups.into_iter().collect();
                context
                    .roster()
                    .change(|roster| roster.regroup(&name, groups.clone()).map_err(Failed::from))?;
                print(context, |n| *n == name)?;
            }
            Self::Export => output::raw(context.roster().read()?.to_json().as_bytes())?,
            Self::Import { file } => import(context, &file)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn print(context: &Context, wanted: impl Fn(&Name) -> bool) -> Result<(), CliError> {
    let roster = context.roster().read()?;
    let chosen: Vec<_> = roster.iter().filter(|(name, _)| wanted(name)).collect();
    if context.json {
        let data: Vec<_> = chosen.iter().map(|(name, a)| json!({ "name": name, "attester": a })).collect();
        return Ok(output::json("trust", &data)?);
    }
    for (name, attester) in chosen {
        let mut line = format!("{name}  {}", attester.key);
        for group in &attester.groups {
            line += &format!("  @{group}");
        }
        if let Some(operator) = &attester.operator {
            line += &format!("  run by {operator}");
        }
        if let Some(until) = attester.until {
            let until = Day::of(until.saturating_sub(1));
            line += &match attester.expired(now()) {
                true => format!("  {}", Style::Busy.paint(&format!("counted until {until}"))),
                false => format!("  until {until}"),
            };
        }
        if let Some(note) = &attester.note {
            line += &format!("  # {}", output::plain(note));
        }
        output::say(&line)?;
    }
    Ok(())
}

/// Says what the owner of the policy should know, now that the roster is another.
fn notes(context: &Context) -> Result<(), CliError> {
    let policy = context.config()?.policy;
    let roster = context.roster().read()?;
    let policy = match &policy {
        Some(policy) => trust::policy::Policy::compile(policy, &roster, now()),
        None => Ok(trust::policy::Policy::by_default(&roster, now())),
    };
    match policy {
        Ok(policy) => policy.notes().iter().for_each(|note| context.tell(&format!("note: {note}"))),
        Err(error) => context.tell(&format!("note: {error}")),
    }
    Ok(())
}

/// The actions that are accepted, with their outputs, or not.
fn accepted(context: &Context, store: &Arc<Store>) -> Result<BTreeSet<ActionId>, CliError> {
    let judgement = match context.judgement(store, None) {
        Ok(judgement) => judgement,
        // With a policy that cannot be used nothing is accepted.
        Err(error) if error.code == Code::Policy => return Ok(BTreeSet::new()),
        Err(error) => return Err(error),
    };
    let mut accepted = BTreeSet::new();
    for action in store.claimed()? {
        let package = super::why::package(store, &action)?;
        if matches!(judgement.verdict(&action, &package)?.outcome, Outcome::Accepted { .. }) {
            accepted.insert(action);
        }
    }
    Ok(accepted)
}

fn remove(context: &Context, name: &Name) -> Result<(), CliError> {
    let store = context.store()?;
    let before = accepted(context, &store)?;
    context.roster().change(|roster| roster.remove(name).map_err(Failed::from))?;
    let after = accepted(context, &store)?;
    let doubtful: Vec<_> = before.difference(&after).collect();
    if context.json {
        let doubtful: Vec<_> = doubtful.iter().map(ToString::to_string).collect();
        return Ok(output::json("removed", &json!({ "name": name, "inDoubt": doubtful }))?);
    }
    if doubtful.is_empty() {
        context.tell(&format!("`{name}` counts no more; nothing that was accepted changes"));
        return Ok(());
    }
    context.tell(&format!("`{name}` counts no more; accepted before, and in doubt now: {}", doubtful.len()));
    for action in doubtful.iter().take(SHOWN) {
        let package = super::why::package(&store, action)?;
        match package == Name::unknown() {
            true => output::say(&action.to_string())?,
            false => output::say(&format!("{action}  {package}"))?,
        }
    }
    if let Some(more) = doubtful.len().checked_sub(SHOWN + 1) {
        context.tell(&format!("and {} more; `assize why act:…` explains each", more + 1));
    }
    Ok(())
}

fn import(context: &Context, path: &std::path::Path) -> Result<(), CliError> {
    let bytes = file::read(path, ROSTER_BYTES)?;
    let text = String::from_utf8(bytes).map_err(|e| CliError::of(Code::Failed, &e))?;
    let others = Roster::parse(&text)?;
    let count = context.roster().change(|roster| {
        let mut added = 0;
        for (name, attester) in others.iter() {
            // The same again is no clash.
            if roster.get(name) != Some(attester) {
                roster.add(name.clone(), attester.clone())?;
                added += 1;
            }
        }
        Ok::<_, Failed>(added)
    })?;
    if context.json {
        return Ok(output::json("import", &json!({ "added": count }))?);
    }
    context.tell(&format!("{count} names are new"));
    notes(context)
}
