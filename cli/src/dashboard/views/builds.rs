//! `/builds`: what the rebuilder of this node does.

use maud::{Markup, html};
use node::attest;

use crate::{
    dashboard::{
        live::Seen,
        page::{self, Plain},
    },
    output::{self, Line},
};

/// `/builds`
pub(in crate::dashboard) fn builds(seen: &Seen, watches: bool) -> Markup {
    let now = attest::now();
    let ago = |time: u64| output::duration(std::time::Duration::from_secs(now.saturating_sub(time)));
    let events: Vec<_> = seen
        .events
        .iter()
        .map(|(time, line)| {
            let mut shown = Line::new(format!("{} ago  ", ago(*time)));
            shown.parts.extend(line.parts.iter().cloned());
            shown
        })
        .collect();
    html! {
        @if !watches {
            p { "This node rebuilds nothing for others. " code { "assize node run --watch" } " does; what commands of their own build is not shown here." }
        }
        h2 { "Now" }
        @if seen.executions.is_empty() { p { "Nothing is executed; " (seen.waiting) " wait." } }
        @for (action, execution) in &seen.executions {
            section {
                h3 { (Plain(execution.name.as_str())) }
                p { (page::action(&action.to_string())) " for " (output::duration(execution.begun.elapsed())) ": " (Plain(&execution.doing)) }
                @if !execution.log.is_empty() {
                    (page::log(&format!("Log of {}", execution.name), &execution.log, 25))
                }
            }
        }
        h2 { "Lately" }
        @if events.is_empty() { p { "Nothing has happened yet." } } @else { (page::lines(&events)) }
    }
}
