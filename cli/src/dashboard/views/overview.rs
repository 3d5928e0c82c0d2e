//! `/` and `/peers`: how this node is.

use std::{collections::BTreeMap, path::Path};

use maud::{Markup, html};
use node::driver::NodeStatus;
use trust::audit::Stand;

use super::attesters;
use crate::{
    commands::{doctor, why},
    dashboard::{
        live::Seen,
        page::{self, Plain},
        plot,
        survey::{Survey, Tally},
    },
    network, output,
    output::{Line, Style},
};

/// `/`
pub(in crate::dashboard) fn overview(
    survey: &Survey,
    home: &Path,
    status: &NodeStatus,
    seen: &Seen,
) -> Markup {
    let mut outcomes = BTreeMap::<&str, u64>::new();
    for package in &survey.packages {
        *outcomes.entry(why::mark(&package.outcome).2).or_default() += 1;
    }
    let count = |word: &str| outcomes.get(word).copied().unwrap_or(0);
    let free = doctor::free_space(home);
    let facts: [(&str, String, Option<&str>); 8] = [
        ("accepted", count("accepted").to_string(), Some("/packages?outcome=accepted")),
        ("pending", count("pending").to_string(), Some("/packages?outcome=pending")),
        ("disputed", count("disputed").to_string(), Some("/packages?outcome=disputed")),
        (
            "disagreements",
            (survey.disputes.len() + survey.equivocations.len()).to_string(),
            Some("/disagreements"),
        ),
        ("peers", status.peers.len().to_string(), Some("/peers")),
        ("statements", status.feeds.statements.to_string(), Some("/attesters")),
        ("executing, and waiting", format!("{}, {}", seen.executions.len(), seen.waiting), Some("/builds")),
        (
            "in the store",
            survey.usage.as_ref().map_or_else(|| "?".into(), |usage| output::bytes(usage.bytes())),
            None,
        ),
    ];
    let mut months = BTreeMap::<&str, Vec<&Tally>>::new();
    for (month, tally) in survey.records.values().flatten() {
        months.entry(month).or_default().push(tally);
    }
    let bars: Vec<_> = months
        .into_iter()
        .map(|(month, all)| plot::Bar { name: month.into(), parts: Tally::sum(all).stands.into() })
        .collect();
    html! {
        ul.facts {
            @for (what, value, link) in &facts {
                li {
                    strong { (Plain(value)) }
                    @match link { Some(link) => a href=(link) { (what) }, None => (what) }
                }
            }
        }
        h2 { "Health" }
        (page::lines(&health(survey, status, free)))
        h2 { "What others said, by month" }
        @if bars.is_empty() {
            p { "Nobody in the roster has said anything yet. Who counts is yours to say: " code { "assize trust add NAME TICKET" } "." }
        } @else {
            (plot::bars("How what the roster's people said stands, by the month in which they said it", &Stand::ALL.map(attesters::word), &bars))
        }
        p.dim {
            "Version " (status.version) ", running for " (output::duration(std::time::Duration::from_secs(status.uptime)))
            ". The store was looked through in " (survey.took.as_millis()) " ms."
            @if survey.beyond > 0 { " It knows " (survey.beyond) " more actions, which are not in these lists." }
        }
    }
}

fn health(survey: &Survey, status: &NodeStatus, free: Option<u64>) -> Vec<Line> {
    let line = |good: bool, text: String| match good {
        true => Line::styled(Style::Good, "✔").and(format!(" {text}")),
        false => Line::styled(Style::Busy, "!").and(format!(" {text}")),
    };
    let mut lines = vec![
        line(
            status.absent.is_empty(),
            match status.absent.len() {
                0 => "every node that is wanted is connected".into(),
                n => format!("{n} nodes that are wanted are not connected"),
            },
        ),
        line(true, format!("reachable: {}", network::reachable(&status.reachable))),
        line(
            status.feeds.missing == 0,
            match status.feeds.missing {
                0 => "all that others are known to have said is here".into(),
                n => format!("{n} statements are still to come"),
            },
        ),
        line(
            survey.equivocations.is_empty(),
            match survey.equivocations.len() {
                0 => "nobody was caught saying two things at one place".into(),
                n => format!("{n} times somebody was caught saying two things at one place"),
            },
        ),
    ];
    if let Some(free) = free {
        lines.push(line(free >= doctor::SPACE, format!("{} free on the disk", output::bytes(free))));
    }
    lines
}

/// `/peers`
pub(in crate::dashboard) fn peers(status: &NodeStatus) -> Markup {
    let row = |id: &str, address: &str, style, word: &str| {
        html! {
            td { (page::styled(style, word)) }
            td { code { (Plain(id)) } }
            td { code { (Plain(address)) } }
        }
    };
    let mut rows = Vec::new();
    for (id, address) in &status.peers {
        rows.push(row(id, &address.to_string(), Style::Good, "✔ connected"));
    }
    for id in &status.absent {
        rows.push(row(id, "", Style::Busy, "! absent"));
    }
    for (id, address) in status.neighbours.iter().filter(|(id, _)| !status.peers.contains_key(*id)) {
        rows.push(row(id, &address.to_string(), Style::Dim, "· nearby"));
    }
    html! {
        p { "This node is " code { (Plain(&status.node)) } ". Whoever is connected is not trusted by that: who counts is on the page of " a href="/attesters" { "attesters" } "." }
        ul { @for address in &status.addresses { li { code { (Plain(address.to_string())) } } } }
        (page::table("Peers", &["State", "Node", "Address"], &rows))
        p { "Invite somebody with " code { "assize peer invite" } "." }
    }
}
