//! Disagreements as one HTML file: no scripts, nothing from elsewhere, every foreign text escaped.

use std::fmt::Write as _;

use trust::{audit::Severity, date::Day};

use super::{Disagreement, Equivocator, Findings, lines, saying, word};
use crate::output;

const STYLE: &str = "
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .25rem; }
code { font-family: ui-monospace, monospace; font-size: .85rem; overflow-wrap: anywhere; }
section { border-top: 1px solid #8886; } ul { margin: .25rem 0 1rem; }
.grave { color: #b3261e; font-weight: 600; } .slight { opacity: .75; font-weight: 600; }
@media (prefers-color-scheme: dark) { .grave { color: #f2b8b5; } }
";

/// Text of foreign origin between tags: nothing that a browser would obey, or a reader would not see.
fn text(foreign: &str) -> String {
    let mut safe = String::new();
    for c in output::plain(foreign).chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe
}

/// The whole file.
pub(super) fn html(found: &Findings) -> String {
    let mut page = String::new();
    let n = found.equivocations.len() + found.disputes.len();
    let all = match n {
        0 => "Nobody disagrees about anything that is known here.".into(),
        1 => "One disagreement is known here.".into(),
        n => format!("{n} disagreements are known here, the gravest first."),
    };
    // Writing to a string does not fail.
    let _ = write!(
        page,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>Disagreements</title>\
         <style>{STYLE}</style></head>\n<body><h1>Disagreements</h1><p>{all}</p>\n"
    );
    for Equivocator { key, who, places: [first, second] } in &found.equivocations {
        let who = who.as_ref().map_or("a stranger", |name| name.as_str());
        let _ = writeln!(
            page,
            "<section><h2><span class=\"grave\">equivocation</span> {}</h2><p>Said two things at the places \
             {first} and {second} of its feed: nothing it says counts.</p><p><code>{key}</code></p></section>",
            text(who)
        );
    }
    for Disagreement { action, package, dispute } in &found.disputes {
        let class = if dispute.severity() == Severity::Strangers { "slight" } else { "grave" };
        let words: Vec<_> = dispute.severities.iter().map(|severity| word(*severity)).collect();
        let _ = writeln!(
            page,
            "<section><h2><span class=\"{class}\">{}</span> {}</h2><p>Last said on {}. <code>{action}</code></p>",
            words.join(", "),
            text(package.as_str()),
            Day::of(dispute.last)
        );
        for side in &dispute.sides {
            for line in lines(&side.found) {
                let _ = writeln!(page, "<p><code>{}</code></p>", text(&line));
            }
            page.push_str("<ul>");
            for said in &side.says {
                let _ = write!(page, "<li>{}</li>", text(&saying(said)));
            }
            page.push_str("</ul>\n");
        }
        page.push_str("</section>\n");
    }
    page.push_str("</body></html>\n");
    page
}
