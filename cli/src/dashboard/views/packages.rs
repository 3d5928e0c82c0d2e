//! `/packages`: what is known of each, and why.

use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
};

use maud::{Markup, html};
use protocol::id::ActionId;
use serde::Deserialize;
use store::Store;

use super::{outcome, part};
use crate::{
    commands::{audit, why},
    dashboard::{
        page::{self, Plain},
        survey::{Package, Survey},
    },
    exit::CliError,
};

/// Bytes of the end of a log that are shown.
const LOG_BYTES: u64 = 64 << 10;

/// Which are asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::dashboard) struct Wanted {
    /// A part of the name or of the action.
    q: String,
    /// What their verdict is called; all if empty.
    outcome: String,
    part: usize,
}

/// `/packages`
pub(in crate::dashboard) fn list(survey: &Survey, wanted: &Wanted) -> Markup {
    const OUTCOMES: [&str; 4] = ["accepted", "pending", "disputed", "unknown"];
    let is_wanted = |package: &&Package| {
        (wanted.outcome.is_empty() || why::mark(&package.outcome).2 == wanted.outcome)
            && (wanted.q.is_empty()
                || package.name.as_str().contains(&wanted.q)
                || package.action.to_string().starts_with(&wanted.q))
    };
    let found: Vec<_> = survey.packages.iter().filter(is_wanted).collect();
    let (shown, number, of) = part(&found, wanted.part);
    let row = |package: &&Package| {
        html! {
            td { a href={ "/packages/" (package.action) } { (Plain(package.name.as_str())) } }
            td { (outcome(&package.outcome)) }
            td { (Plain(&package.verdict)) }
            td.number { (package.votes) }
            td { (page::action(&package.action.to_string())) }
        }
    };
    let rows: Vec<_> = shown.iter().map(row).collect();
    let query: String = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("q", &wanted.q)
        .append_pair("outcome", &wanted.outcome)
        .finish();
    html! {
        form method="get" action="/packages" role="search" {
            label { "Name, or beginning of an action" input type="search" name="q" value=(Plain(&wanted.q)) maxlength="128"; }
            label {
                "Verdict"
                select name="outcome" {
                    option value="" { "all" }
                    @for word in OUTCOMES { option value=(word) selected[word == wanted.outcome] { (word) } }
                }
            }
            button { "Show" }
        }
        p { (found.len()) " found. One that was never built here has no name that its attesters could not have chosen, and is called " code { "_" } "." }
        (page::table("Packages", &["Package", "Verdict", "Why", "Votes", "Action"], &rows))
        (page::parts(&format!("/packages?{query}&part="), number, of))
    }
}

/// `/packages/act:…`
pub(in crate::dashboard) fn show(
    survey: &Survey,
    store: &Store,
    action: &ActionId,
) -> Result<(String, Markup), CliError> {
    let package = why::package(store, action)?;
    let verdict = survey.judgement.verdict(action, &package)?;
    let dispute = survey.judgement.dispute(action)?;
    let log = log(store, action)?;
    let body = html! {
        h2 { "Verdict" }
        (page::lines(&why::explain(action, &package, &verdict)))
        @if let Some(next) = why::next(&verdict) { p { "Next: " (Plain(next)) "." } }
        h2 { "Who says what" }
        @if dispute.sides.is_empty() {
            p { "Nobody has said anything of it." }
        } @else {
            (page::lines(&audit::describe(action, &package, &dispute)))
        }
        @if !dispute.severities.is_empty() {
            p { a href={ "/disagreements/" (action) } { "See where they differ" } }
        }
        @if let Some(log) = log {
            h2 { "Log" }
            p { "What its latest execution here printed, or the end of it." }
            (page::log("Log", &log, 500))
        }
    };
    Ok((package.as_str().to_owned(), body))
}

/// The end of the log of an action.
fn log(store: &Store, action: &ActionId) -> Result<Option<Vec<u8>>, CliError> {
    let mut file = match File::open(store.log_path(action)) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_BYTES)))?;
    let mut end = Vec::new();
    file.take(LOG_BYTES).read_to_end(&mut end)?;
    Ok(Some(end))
}
