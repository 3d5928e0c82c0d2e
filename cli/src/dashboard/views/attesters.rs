//! `/attesters`: the record of everybody who counts.

use std::collections::BTreeMap;

use maud::{Markup, html};
use protocol::name::Name;
use trust::audit::Stand;

use crate::{
    dashboard::{
        page::{self, Plain},
        plot,
        survey::{Survey, Tally},
    },
    exit::{CliError, Code},
    output::{Line, Style},
};

/// What it is called how something stands.
pub(super) fn word(stand: Stand) -> &'static str {
    match stand {
        Stand::Agreed => "agreed",
        Stand::Alone => "alone",
        Stand::Disputed => "disputed",
        Stand::Copied => "copied",
        Stand::Refuted => "refuted",
        Stand::Void => "void",
    }
}

/// What the words mean.
const MEANINGS: [&str; Stand::ALL.len()] = [
    "an execution here, or somebody else in the roster, got the same, and nobody something else",
    "nobody else in the roster has spoken, and it was not executed here",
    "somebody else in the roster got something else, and it was not executed here",
    "an execution here proves that it was not executed by whoever attests it",
    "an execution here came to something else",
    "withdrawn, or of a key that counts no more",
];

fn numbers(tally: &Tally) -> Markup {
    html! {
        @for count in tally.stands { td.number { (count) } }
        td.number { (tally.verified) }
        td.number { (tally.unproven) }
    }
}

fn heads(first: &'static str) -> Vec<&'static str> {
    let words = Stand::ALL.map(word);
    [first].into_iter().chain(words).chain(["witnesses verified", "without witness"]).collect()
}

/// `/attesters`
pub(in crate::dashboard) fn list(survey: &Survey) -> Markup {
    let row = |(name, months): (&Name, &BTreeMap<String, Tally>)| {
        html! {
            td { a href={ "/attesters/" (name.as_str()) } { (Plain(name.as_str())) } }
            (numbers(&Tally::sum(months.values())))
        }
    };
    let rows: Vec<_> = survey.records.iter().map(row).collect();
    html! {
        @if rows.is_empty() {
            p { "The roster is empty: nobody's word counts here but this machine's. " code { "assize trust add NAME TICKET" } " changes that." }
        } @else {
            (page::table("Attesters", &heads("Name"), &rows))
        }
        dl {
            @for (stand, meaning) in Stand::ALL.into_iter().zip(MEANINGS) {
                dt { strong { (word(stand)) } }
                dd { (meaning) }
            }
        }
    }
}

/// `/attesters/NAME`
pub(in crate::dashboard) fn show(survey: &Survey, name: &str) -> Result<(String, Markup), CliError> {
    let found = survey.records.iter().find(|(one, _)| one.as_str() == name);
    let Some((name, months)) = found else {
        return Err(CliError::new(Code::NotFound, "nobody is called that here")
            .hint("see who is on the page of attesters"));
    };
    let sum = Tally::sum(months.values());
    let mut about = Vec::new();
    if let Some(attester) = survey.judgement.roster().get(name) {
        about.push(Line::new(attester.key.to_string()));
        if let Some(operator) = &attester.operator {
            about.push(Line::new(format!("run by {operator}")));
        }
        let groups: Vec<_> = attester.groups.iter().map(Name::as_str).collect();
        if !groups.is_empty() {
            about.push(Line::new(format!("in {}", groups.join(", "))));
        }
        about.extend(attester.note.as_ref().map(Line::new));
    }
    let wrong = sum.stands[3] + sum.stands[4];
    about.push(match wrong {
        0 if sum.verified > 0 => Line::styled(Style::Good, "✔")
            .and(format!(" proven to have executed what it attests: {} of its attestations", sum.verified)),
        0 => Line::styled(Style::Busy, "·").and(" nothing of it was checked by an execution here"),
        n => Line::styled(Style::Error, "✘")
            .and(format!(" proven wrong by executions here: {n} of its attestations")),
    });
    let bars: Vec<_> = months
        .iter()
        .map(|(month, tally)| plot::Bar { name: month.clone(), parts: tally.stands.into() })
        .collect();
    let rows: Vec<_> =
        months.iter().rev().map(|(month, tally)| html! { td { (month) } (numbers(tally)) }).collect();
    let body = html! {
        (page::lines(&about))
        p { a href={ "/disagreements?attester=" (name.as_str()) } { "Disagreements in which it has a part" } }
        h2 { "Record" }
        @if bars.is_empty() {
            p { "Nothing that it said is known here." }
        } @else {
            (plot::bars("How what it said stands, by the month in which it was said", &Stand::ALL.map(word), &bars))
            (page::table("Record by month", &heads("Month"), &rows))
        }
        p { "To count it no more: " code { "assize trust remove " (name.as_str()) } "." }
    };
    Ok((name.as_str().to_owned(), body))
}
