//! How pages look: one frame for all, and the pieces that several have.
//!
//! Everything between tags goes through [`maud`], which escapes it, and what is of foreign origin
//! through [`output::plain`] first, so that a browser obeys nothing and a reader sees all.

use maud::{DOCTYPE, Markup, PreEscaped, Render, html};
use node::difference::{Place, Row};
use protocol::id::ActionId;

use crate::{
    exit::CliError,
    output::{self, Line, Style},
};

pub(super) const STYLE: &str = include_str!("style.css");
pub(super) const SCRIPT: &str = include_str!("live.js");
pub(super) const ICON: &str = include_str!("icon.svg");

/// The pages, as the head of each lists them.
const PAGES: [(&str, &str); 7] = [
    ("/", "Overview"),
    ("/packages", "Packages"),
    ("/disagreements", "Disagreements"),
    ("/attesters", "Attesters"),
    ("/builds", "Builds"),
    ("/policy", "Policy"),
    ("/peers", "Peers"),
];

/// Characters of one foreign text that are shown: nobody reads more in a page.
const SHOWN: usize = 4096;

/// Text of foreign origin.
pub(crate) struct Plain<T>(pub(crate) T);

impl<T: AsRef<str>> Render for Plain<T> {
    fn render_to(&self, buffer: &mut String) {
        let text = self.0.as_ref();
        let cut = text.char_indices().nth(SHOWN).map_or(text.len(), |(at, _)| at);
        output::plain(&text[..cut]).render_to(buffer);
        if cut < text.len() {
            buffer.push('…');
        }
    }
}

/// A page. `here` is the address of the one in the head that it belongs to; a page that is `live`
/// changes while it is looked at.
pub(super) fn frame(title: &str, here: &str, live: bool, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) " · Assize" }
                link rel="icon" href="/icon.svg";
                link rel="stylesheet" href="/style.css";
                @if live { script src="/live.js" defer {} }
            }
            body {
                a.skip href="#content" { "Skip to the content" }
                header {
                    nav aria-label="Pages" {
                        ul {
                            @for (address, name) in PAGES {
                                li { a href=(address) aria-current=[(address == here).then_some("page")] { (name) } }
                            }
                        }
                    }
                }
                main id="content" tabindex="-1" data-live[live] {
                    h1 { (title) }
                    (body)
                }
            }
        }
    }
}

/// A page in one file that needs nothing else.
pub(crate) fn alone(title: &str, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body { main { h1 { (title) } (body) } }
        }
    }
}

/// That something failed, with what to do.
pub(super) fn failed(error: &CliError) -> Markup {
    let (what, hint) = error.in_short();
    html! {
        p.error role="alert" { (Plain(what)) }
        @if let Some(hint) = hint { p { (Plain(hint)) } }
    }
}

fn class(style: Style) -> &'static str {
    match style {
        Style::Error => "error",
        Style::Hint => "hint",
        Style::Good => "good",
        Style::Busy => "busy",
        Style::Dim => "dim",
        Style::Bold => "bold",
    }
}

/// Text in a style.
pub(super) fn styled(style: Style, text: &str) -> Markup {
    html! { span class=(class(style)) { (Plain(text)) } }
}

fn line(line: &Line) -> Markup {
    html! {
        @for (style, text) in &line.parts {
            @match style {
                Some(style) => (styled(*style, text)),
                None => (Plain(text)),
            }
        }
    }
}

/// Lines, as a terminal shows them.
pub(crate) fn lines<'l>(all: impl IntoIterator<Item = &'l Line>) -> Markup {
    html! {
        ul.lines {
            @for one in all { li class={ "d" (one.depth.min(8)) } { (line(one)) } }
        }
    }
}

/// A link to what is known of an action.
pub(super) fn action(action: &str) -> Markup {
    let short = action.get(..16).unwrap_or(action);
    html! { a href={ "/packages/" (action) } title=(action) { code { (short) "…" } } }
}

/// The action in an address.
pub(super) fn parse(text: &str) -> Result<ActionId, CliError> {
    text.parse().map_err(|e: protocol::id::IdError| {
        CliError::of(crate::exit::Code::NotFound, &e).hint("follow a link of one of the pages")
    })
}

/// A table that scrolls by itself where the screen is too narrow for it.
pub(super) fn table(caption: &str, heads: &[&str], rows: &[Markup]) -> Markup {
    html! {
        div.scroll role="region" aria-label=(caption) tabindex="0" {
            table {
                caption { (caption) }
                thead { tr { @for head in heads { th scope="col" { (head) } } } }
                tbody { @for row in rows { tr { (row) } } }
            }
        }
    }
}

/// The last lines of what a build printed, of so many at most.
pub(super) fn log(name: &str, text: &[u8], most: usize) -> Markup {
    let text = String::from_utf8_lossy(text);
    let lines: Vec<_> = text.lines().collect();
    html! {
        div.log tabindex="0" role="region" aria-label=(name) {
            @for line in &lines[lines.len().saturating_sub(most)..] { (Plain(line)) "\n" }
        }
    }
}

/// Links to the other parts of a list that is shown in parts. `address` ends where the number goes.
pub(super) fn parts(address: &str, part: usize, of: usize) -> Markup {
    html! {
        @if of > 1 {
            nav.parts aria-label="Parts of the list" {
                @if part > 1 { a rel="prev" href={ (address) (part - 1) } { "Before" } }
                span { "Part " (part) " of " (of) }
                @if part < of { a rel="next" href={ (address) (part + 1) } { "Next" } }
            }
        }
    }
}

/// A difference, the one archive beside the other.
pub(crate) fn side_by_side(left: &str, right: &str, rows: &[Row]) -> Markup {
    let mut shown = Vec::new();
    let mut at = 0;
    while let Some(row) = rows.get(at) {
        let side = |place| rows[at..].iter().take_while(move |row| row.place == place);
        match row.place {
            Place::Above => {
                shown.push(
                    html! { td.above colspan="2" class={ "d" (row.depth.min(8)) } { (Plain(&row.text)) } },
                );
                at += 1;
            }
            Place::Both => {
                shown.push(html! { td { (Plain(&row.text)) } td { (Plain(&row.text)) } });
                at += 1;
            }
            Place::Left | Place::Right => {
                let lefts: Vec<_> = side(Place::Left).collect();
                let rights: Vec<_> =
                    rows[at + lefts.len()..].iter().take_while(|row| row.place == Place::Right).collect();
                for n in 0..lefts.len().max(rights.len()) {
                    let cell = |row: Option<&&Row>, sign: &str, class: &str| {
                        html! {
                            @match row {
                                Some(row) => td class=(class) { span.sign { (sign) } (Plain(&row.text)) },
                                None => td {},
                            }
                        }
                    };
                    shown.push(
                        html! { (cell(lefts.get(n), "−", "left")) (cell(rights.get(n), "+", "right")) },
                    );
                }
                at += lefts.len() + rights.len();
            }
        }
    }
    html! { div.diff { (table("The one archive beside the other", &[left, right], &shown)) } }
}
