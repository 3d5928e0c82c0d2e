//! Disagreements as one HTML file: no scripts, nothing from elsewhere, every foreign text escaped.

use maud::html;

use super::{Disagreement, Findings, describe, equivocation};
use crate::dashboard::page::{self, Plain};

/// The whole file.
pub(super) fn html(found: &Findings) -> String {
    let n = found.equivocations.len() + found.disputes.len();
    let equivocations: Vec<_> = found.equivocations.iter().map(equivocation).collect();
    let body = html! {
        p {
            @match n {
                0 => "Nobody disagrees about anything that is known here.",
                1 => "One disagreement is known here.",
                n => { (n) " disagreements are known here, the gravest first." }
            }
        }
        @if !equivocations.is_empty() {
            h2 { "Caught saying two things at one place: nothing of it counts" }
            (page::lines(&equivocations))
        }
        @for Disagreement { action, package, dispute } in &found.disputes {
            h2 { (Plain(package.as_str())) }
            (page::lines(&describe(action, package, dispute)))
        }
    };
    page::alone("Disagreements", &body).into_string()
}
