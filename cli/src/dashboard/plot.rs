//! Plots: bars that are stacked of parts, as SVG.

use maud::{Markup, html};

/// Bars that are drawn at most: the last ones.
pub(super) const BARS: usize = 24;

/// A bar: its name, and the lengths of its parts.
pub(super) struct Bar {
    pub(super) name: String,
    pub(super) parts: Vec<u64>,
}

const WIDTH: usize = 720;
const HEIGHT: usize = 180;
/// Below the bars, for their names, and left of them, for the scale.
const BELOW: usize = 20;
const LEFT: usize = 56;

/// A plot of what `title` says, with a legend of the `parts`.
pub(super) fn bars(title: &str, parts: &[&str], bars: &[Bar]) -> Markup {
    let bars = &bars[bars.len().saturating_sub(BARS)..];
    let longest = bars.iter().map(|bar| bar.parts.iter().sum::<u64>()).max().unwrap_or(0).max(1);
    let step = (WIDTH - LEFT) / bars.len().max(1);
    let height = |n: u64| n as f64 / longest as f64 * (HEIGHT - BELOW - 8) as f64;
    let mut drawn = Vec::new();
    for (n, bar) in bars.iter().enumerate() {
        let (x, mut y) = (LEFT + n * step, (HEIGHT - BELOW) as f64);
        for (kind, part) in bar.parts.iter().enumerate().filter(|(_, part)| **part > 0) {
            y -= height(*part);
            drawn.push(html! {
                rect class={ "k" (kind) } x=(x) y={ (format!("{y:.1}")) } width=((step * 4 / 5).clamp(1, 48))
                    height=(format!("{:.1}", height(*part).max(1.0))) {}
            });
        }
        // As many names as there is room for.
        if n % bars.len().div_ceil(10).max(1) == 0 {
            drawn.push(html! { text x=(x) y=(HEIGHT - 5) { (bar.name) } });
        }
    }
    html! {
        figure {
            svg.plot viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img" aria-label=(title) {
                line.axis x1=(LEFT - 6) x2=(WIDTH) y1=(HEIGHT - BELOW) y2=(HEIGHT - BELOW) {}
                text x="0" y="14" { (longest) }
                text x="0" y=(HEIGHT - BELOW) { "0" }
                @for shape in &drawn { (shape) }
            }
            figcaption { (title) }
            @if parts.len() > 1 {
                ul.legend {
                    @for (kind, part) in parts.iter().enumerate() {
                        li {
                            svg viewBox="0 0 10 10" aria-hidden="true" { rect class={ "k" (kind) } width="10" height="10" {} }
                            (part)
                        }
                    }
                }
            }
        }
    }
}
