//! `/disagreements`: who disagrees about what, and where the outputs differ.

use maud::{Markup, html};
use node::substitute;
use protocol::id::ActionId;
use serde::Deserialize;
use store::Store;
use trust::{
    audit::{Found, Severity},
    date::Day,
};

use super::part;
use crate::{
    commands::{
        audit::{self, Disagreement, diff::Pair},
        why,
    },
    dashboard::{
        page::{self, Plain},
        survey::Survey,
    },
    exit::CliError,
    output::{self, Style},
};

/// Which are asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::dashboard) struct Wanted {
    /// In which this one of the roster has a part; all if empty.
    attester: String,
    part: usize,
}

/// `/disagreements`
pub(in crate::dashboard) fn list(survey: &Survey, wanted: &Wanted) -> Markup {
    let has_part = |d: &&Disagreement| {
        let mut names = d.dispute.sayings().filter_map(|(saying, _)| saying.who.as_ref());
        wanted.attester.is_empty() || names.any(|name| name.as_str() == wanted.attester)
    };
    let found: Vec<_> = survey.disputes.iter().filter(has_part).collect();
    let (shown, number, of) = part(&found, wanted.part);
    let row = |Disagreement { action, package, dispute }: &&Disagreement| {
        let severity = dispute.severity();
        let style = if severity == Severity::Strangers { Style::Dim } else { Style::Error };
        let sides: Vec<_> = dispute.sides.iter().map(|side| audit::people(&side.says)).collect();
        html! {
            td { (page::styled(style, audit::word(severity))) }
            td { a href={ "/disagreements/" (action) } { (Plain(package.as_str())) } }
            td { (Plain(sides.join(" ≠ "))) }
            td { (Day::of(dispute.last).to_string()) }
            td { (page::action(action)) }
        }
    };
    let rows: Vec<_> = shown.iter().map(row).collect();
    let equivocations: Vec<_> = survey.equivocations.iter().map(audit::equivocation).collect();
    html! {
        form method="get" action="/disagreements" {
            label {
                "In which has a part"
                select name="attester" {
                    option value="" { "anybody" }
                    @for name in survey.records.keys() {
                        option value=(name.as_str()) selected[name.as_str() == wanted.attester] { (Plain(name.as_str())) }
                    }
                }
            }
            button { "Show" }
        }
        @if !equivocations.is_empty() {
            h2 { "Caught saying two things at one place" }
            (page::lines(&equivocations))
        }
        @if found.is_empty() {
            p { "Nobody disagrees about anything that is known here." }
        } @else {
            (page::table("Disagreements, the gravest first", &["What", "Package", "Between", "Last said", "Action"], &rows))
            (page::parts(&format!("/disagreements?attester={}&part=", wanted.attester), number, of))
        }
    }
}

/// `/disagreements/act:…`
pub(in crate::dashboard) fn show(
    survey: &Survey,
    store: &Store,
    action: &ActionId,
) -> Result<(String, Markup), CliError> {
    let package = why::package(store, action)?;
    let dispute = survey.judgement.dispute(action)?;
    let pair = Pair::of(&dispute, None, None);
    let difference = match &pair {
        Ok(pair) if pair.missing(store).is_empty() => Some(pair.compare(store)?),
        _ => None,
    };
    let who = |found: &Found| {
        let side = dispute.sides.iter().find(|side| side.found == *found);
        side.map_or_else(String::new, |side| output::plain(&audit::people(&side.says)))
    };
    let body = html! {
        (page::lines(&audit::describe(action, &package, &dispute)))
        p { a href={ "/packages/" (action) } { "The verdict, and why" } }
        h2 { "Where they differ" }
        @match (&pair, difference) {
            (Err(error), _) => (page::failed(error)),
            (Ok(pair), None) => {
                p { "Not all of it is here. What is had to compare it is accepted by nobody for that." }
                form method="post" action={ "/disagreements/" (action) "/download" } {
                    button { "Download " (output::bytes(substitute::total(&pair.missing(store)))) " to compare" }
                }
            }
            (Ok(pair), Some(difference)) => {
                p { "Output " code { (Plain(pair.output.as_str())) } "." }
                (page::side_by_side(&who(pair.left.1), &who(pair.right.1), &difference.rows()))
            }
        }
        h2 { "Who is right" }
        p { "Execution on a machine of yours tells: " code { "assize audit settle " (action) } "." }
        p { "Whoever is wrong can withdraw it with " code { "assize attest retract" } "; to count somebody no more: " code { "assize trust remove NAME" } "." }
    };
    Ok((format!("{} in dispute", output::plain(package.as_str())), body))
}
