//! `/policy`: what is wanted, and what another policy would change.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use maud::{Markup, html};
use serde::Deserialize;
use serde_json::json;
use store::Store;
use trust::policy::Preset;

use super::part;
use crate::{
    commands::policy::{self, Change},
    context::Context,
    dashboard::{
        page::{self, Plain},
        survey::Survey,
    },
    exit::CliError,
};

/// How long verdicts are tried by another policy: so that the page comes at once, or if all are wanted.
const TRIAL: Duration = Duration::from_millis(60);
const LONG_TRIAL: Duration = Duration::from_secs(50);

/// The policy that is tried.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::dashboard) struct Wanted {
    /// A preset, or `k` for so many of everybody.
    rule: String,
    k: Option<usize>,
    /// Whether all packages are tried, however long that takes.
    all: bool,
    part: usize,
}

/// `/policy`
pub(in crate::dashboard) fn policy(
    context: &Context,
    store: &Arc<Store>,
    survey: &Survey,
    wanted: &Wanted,
) -> Result<Markup, CliError> {
    let views: Vec<_> = survey.judgement.policy().views().map(|view| policy::describe(&view)).collect();
    // Everybody in the roster, and this machine.
    let everybody = survey.records.len() + 1;
    let k = wanted.k.unwrap_or(1).clamp(1, everybody);
    let tried = match wanted.rule.as_str() {
        "" => None,
        "k" => Some(json!({ "rule": { "atLeast": k, "of": "everyone" } })),
        preset => Some(json!(preset)),
    };
    let changes = match tried {
        None => None,
        Some(policy) => {
            let then = context.judgement(store, Some(policy))?;
            let (begun, trial) = (Instant::now(), if wanted.all { LONG_TRIAL } else { TRIAL });
            let mut tried = 0;
            let packages = survey.packages.iter().take_while(|_| begun.elapsed() < trial);
            let actions = packages.inspect(|_| tried += 1).map(|package| package.action);
            let changes = policy::changes(store, actions, &survey.judgement, &then)?;
            Some((changes, tried))
        }
    };
    Ok(html! {
        h2 { "In force" }
        (page::lines(&views))
        h2 { "Try another one" }
        p { "Nothing is changed by this: it says what would be decided otherwise." }
        form method="get" action="/policy" {
            label {
                "Rule"
                select name="rule" {
                    option value="k" selected[wanted.rule == "k"] { "so many of everybody" }
                    @for preset in Preset::ALL {
                        option value=(preset.name()) selected[wanted.rule == preset.name()] { (preset.name()) }
                    }
                }
            }
            label {
                "So many, of " (everybody)
                input type="number" name="k" min="1" max=(everybody) value=(k);
            }
            button { "Try" }
        }
        @if let Some((changes, tried)) = changes {
            (changed(&changes, wanted, k, everybody))
            @if tried < survey.packages.len() {
                p {
                    "Of " (survey.packages.len()) " packages the first " (tried) " were tried. "
                    @if !wanted.all { a href={ "/policy?rule=" (wanted.rule) "&k=" (k) "&all=true" } { "Try all, however long it takes" } }
                }
            }
        }
    })
}

fn changed(changes: &[Change], wanted: &Wanted, k: usize, everybody: usize) -> Markup {
    let rule = match wanted.rule.as_str() {
        "k" => format!("{k} of {everybody}"),
        preset => preset.to_owned(),
    };
    let lost = changes.iter().filter(|change| change.now == "accepted").count();
    let won = changes.iter().filter(|change| change.then == "accepted").count();
    let packages = |n: usize| if n == 1 { "one package".into() } else { format!("{n} packages") };
    let (shown, number, of) = part(changes, wanted.part);
    let row = |change: &Change| {
        html! {
            td { a href={ "/packages/" (change.action) } { (Plain(change.package.as_str())) } }
            td { (change.now) }
            td { (change.then) }
            td { (page::action(&change.action)) }
        }
    };
    let rows: Vec<_> = shown.iter().map(row).collect();
    html! {
        p role="status" {
            "With " strong { (Plain(rule)) } " you would lose " (packages(lost)) " and win " (packages(won)) "; "
            (changes.len()) " verdicts would be others."
        }
        @if !rows.is_empty() {
            (page::table("Verdicts that would be others", &["Package", "Now", "Then", "Action"], &rows))
            (page::parts(&format!("/policy?rule={}&k={k}&all={}&part=", wanted.rule, wanted.all), number, of))
        }
    }
}
