//! Plots: a few lines over named places, as SVG for people and as a table.
//!
//! All numbers are whole, so that a plot is the same bytes on every machine. Colours follow the
//! reader's light or dark; lines differ in their marks, too.

use std::fmt::{self, Write};

/// Pixels.
const WIDTH: u64 = 720;
/// See [`WIDTH`].
const PANEL: u64 = 250;
const LEFT: u64 = 76;
const RIGHT: u64 = 20;
const TOP: u64 = 44;
const ABOVE: u64 = 30;
const BELOW: u64 = 46;
const LINE: u64 = 18;

/// Distances between marks of an axis, times a power of ten.
const STEPS: [u64; 3] = [1, 2, 5];

/// At most so many marks on an upright axis.
const MARKS: u64 = 6;

/// Colours of lines, in the light and in the dark.
const COLOURS: [(&str, &str); 6] = [
    ("#0b62c4", "#6cb0ff"),
    ("#b3460b", "#ff9d5c"),
    ("#1b7a3d", "#5fd08a"),
    ("#8a2a8c", "#dd8be0"),
    ("#7a6300", "#dcc14a"),
    ("#444c56", "#b6bec9"),
];

/// Panels below each other, with one legend for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plot {
    /// What it shows.
    pub title: &'static str,
    /// From the top.
    pub panels: Vec<Panel>,
}

/// Lines over places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Panel {
    /// What the upright axis counts.
    pub counts: &'static str,
    /// In what.
    pub unit: Unit,
    /// What the places are.
    pub over: &'static str,
    /// Their names, from the left.
    pub places: Vec<String>,
    /// What is drawn.
    pub lines: Vec<Line>,
}

/// One line: a value for each place, if there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its name.
    pub name: String,
    /// Its values.
    pub values: Vec<Option<u64>>,
}

/// What values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Thousandths of all, told as percent; the axis goes to all.
    Share,
    /// Milliseconds, told as seconds.
    Millis,
    /// Bytes, told as kB (1,000).
    Bytes,
    /// How many.
    Count,
}

impl Unit {
    /// A value, as it is told.
    fn told(self, value: u64) -> String {
        let tenths = |value: u64| match value % 10 {
            0 => (value / 10).to_string(),
            tenth => format!("{}.{tenth}", value / 10),
        };
        match self {
            Self::Share => format!("{} %", tenths(value)),
            Self::Millis => format!("{} s", tenths(value / 100)),
            Self::Bytes => format!("{} kB", tenths(value / 100)),
            Self::Count => value.to_string(),
        }
    }
}

impl Panel {
    /// The end of the upright axis, and the distance between its marks.
    fn scale(&self) -> (u64, u64) {
        let most = self.lines.iter().flat_map(|line| &line.values).flatten().copied().max().unwrap_or(0);
        let most = if self.unit == Unit::Share { 1000 } else { most.max(1) };
        let powers = std::iter::successors(Some(1u64), |power| power.checked_mul(10));
        let mut steps = powers.flat_map(|power| STEPS.map(|step| step.saturating_mul(power)));
        let step = steps.find(|step| most.div_ceil(*step) <= MARKS).unwrap_or(u64::MAX);
        (most.div_ceil(step) * step, step)
    }

    fn height(&self) -> u64 {
        ABOVE + LINE * self.lines.len().div_ceil(2) as u64 + PANEL + BELOW
    }

    /// Draws it, from `top` on.
    fn draw(&self, top: u64, svg: &mut String) -> fmt::Result {
        let up = top + ABOVE + LINE * self.lines.len().div_ceil(2) as u64;
        let (down, right) = (up + PANEL, WIDTH - RIGHT);
        let (most, step) = self.scale();
        let x = |place: usize| {
            let last = self.places.len().saturating_sub(1).max(1) as u64;
            LEFT + 24 + (right - LEFT - 48) * place as u64 / last
        };
        let y = |value: u64| {
            down - u64::try_from(u128::from(PANEL) * u128::from(value) / u128::from(most)).unwrap_or(PANEL)
        };
        writeln!(svg, r#"<text class="what" x="{LEFT}" y="{}">{}</text>"#, top + 14, escaped(self.counts))?;
        for (n, line) in self.lines.iter().enumerate() {
            let (x, y) = (LEFT + 8 + (n as u64 % 2) * 310, top + ABOVE + LINE * (n as u64 / 2));
            mark(n, x, y, svg)?;
            writeln!(svg, r#"<text x="{}" y="{}">{}</text>"#, x + 12, y + 4, escaped(&line.name))?;
        }
        for value in (0..=most / step).map(|n| n * step) {
            let (y, told) = (y(value), self.unit.told(value));
            writeln!(svg, r#"<line class="grid" x1="{LEFT}" y1="{y}" x2="{right}" y2="{y}"/>"#)?;
            writeln!(svg, r#"<text class="end" x="{}" y="{}">{told}</text>"#, LEFT - 8, y + 4)?;
        }
        for (place, name) in self.places.iter().enumerate() {
            writeln!(
                svg,
                r#"<text class="middle" x="{}" y="{}">{}</text>"#,
                x(place),
                down + 18,
                escaped(name)
            )?;
        }
        let middle = LEFT + (right - LEFT) / 2;
        writeln!(
            svg,
            r#"<text class="middle what" x="{middle}" y="{}">{}</text>"#,
            down + 38,
            escaped(self.over)
        )?;
        for (n, line) in self.lines.iter().enumerate() {
            let points = line.values.iter().enumerate();
            let points: Vec<(u64, u64)> =
                points.filter_map(|(place, value)| Some((x(place), y((*value)?)))).collect();
            let path: Vec<_> = points.iter().map(|(x, y)| format!("{x},{y}")).collect();
            writeln!(svg, r#"<polyline class="c{}" points="{}"/>"#, n % COLOURS.len(), path.join(" "))?;
            points.iter().try_for_each(|(x, y)| mark(n, *x, *y, svg))?;
        }
        Ok(())
    }

    /// A line for each place.
    fn table(&self, out: &mut String) -> fmt::Result {
        writeln!(out, "{}", self.counts)?;
        let mut rows = vec![vec![self.over.to_owned()]];
        rows[0].extend(self.lines.iter().map(|line| line.name.clone()));
        for (place, name) in self.places.iter().enumerate() {
            let told = |line: &Line| {
                let value = line.values.get(place).copied().flatten();
                value.map_or("-".into(), |value| self.unit.told(value))
            };
            rows.push([name.clone()].into_iter().chain(self.lines.iter().map(told)).collect());
        }
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..=self.lines.len()).map(width).collect();
        for row in &rows {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:>width$}"));
            writeln!(out, "{}", cells.collect::<Vec<_>>().join("  "))?;
        }
        Ok(())
    }
}

impl Plot {
    /// As an SVG file.
    pub fn svg(&self) -> String {
        let mut svg = String::new();
        self.draw(&mut svg).expect("strings take everything");
        svg
    }

    fn draw(&self, svg: &mut String) -> fmt::Result {
        let height = TOP + self.panels.iter().map(Panel::height).sum::<u64>();
        writeln!(
            svg,
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img">"#
        )?;
        writeln!(svg, "<title>{}</title>\n<style>", escaped(self.title))?;
        style(svg, "#ffffff", "#1f2328", "#d5dae0", |(light, _)| light)?;
        writeln!(svg, "@media (prefers-color-scheme: dark) {{")?;
        style(svg, "#15181d", "#e2e6eb", "#3a414b", |(_, dark)| dark)?;
        writeln!(svg, "}}\n</style>")?;
        writeln!(svg, r#"<rect class="paper" width="{WIDTH}" height="{height}"/>"#)?;
        writeln!(svg, r#"<text class="title" x="16" y="26">{}</text>"#, escaped(self.title))?;
        let mut top = TOP;
        for panel in &self.panels {
            panel.draw(top, svg)?;
            top += panel.height();
        }
        writeln!(svg, "</svg>")
    }
}

/// The table of each panel.
impl fmt::Display for Plot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = format!("{}\n", self.title);
        for panel in &self.panels {
            text.push('\n');
            panel.table(&mut text)?;
        }
        f.write_str(&text)
    }
}

fn style(
    svg: &mut String,
    paper: &str,
    ink: &str,
    grid: &str,
    of: impl Fn((&'static str, &'static str)) -> &'static str,
) -> fmt::Result {
    writeln!(svg, ".paper {{ fill: {paper} }} .grid {{ stroke: {grid} }}")?;
    writeln!(svg, "text {{ fill: {ink}; font: 12px sans-serif }} .title {{ font: bold 15px sans-serif }}")?;
    writeln!(
        svg,
        ".what {{ font: bold 12px sans-serif }} .middle {{ text-anchor: middle }} .end {{ text-anchor: end }}"
    )?;
    writeln!(svg, "polyline {{ fill: none; stroke-width: 2 }}")?;
    for (n, both) in COLOURS.into_iter().enumerate() {
        let colour = of(both);
        writeln!(svg, ".c{n} {{ stroke: {colour} }} .m{n} {{ fill: {colour} }}")?;
    }
    Ok(())
}

/// What a line has at its points: another shape for each.
fn mark(line: usize, x: u64, y: u64, svg: &mut String) -> fmt::Result {
    let (l, r, u, d) = (x - 4, x + 4, y - 4, y + 4);
    match line % COLOURS.len() {
        0 => writeln!(svg, r#"<circle class="m0" cx="{x}" cy="{y}" r="4"/>"#),
        1 => writeln!(svg, r#"<rect class="m1" x="{l}" y="{u}" width="8" height="8"/>"#),
        n => {
            let points = match n {
                2 => format!("{l},{d} {r},{d} {x},{u}"),
                3 => format!("{l},{y} {x},{u} {r},{y} {x},{d}"),
                4 => format!("{l},{u} {r},{u} {x},{d}"),
                _ => format!("{l},{} {r},{} {r},{} {l},{}", y - 2, y - 2, y + 2, y + 2),
            };
            writeln!(svg, r#"<polygon class="m{n}" points="{points}"/>"#)
        }
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panel(unit: Unit, values: &[u64]) -> Panel {
        let places = values.iter().map(u64::to_string).collect();
        let line = Line { name: "a < b".into(), values: values.iter().copied().map(Some).collect() };
        Panel { counts: "seconds", unit, over: "nodes", places, lines: vec![line] }
    }

    #[test]
    fn axes_end_behind_what_is_most() {
        for (most, expected) in [(0, (1, 1)), (6, (6, 1)), (7, (8, 2)), (61, (80, 20)), (1234, (1500, 500))] {
            assert_eq!(panel(Unit::Count, &[1, most]).scale(), expected, "{most}");
        }
        assert_eq!(panel(Unit::Share, &[3]).scale(), (1000, 200));
    }

    #[test]
    fn tables_and_pictures_say_the_same() {
        let plot = Plot { title: "Time", panels: vec![panel(Unit::Millis, &[100, 2050])] };
        assert_eq!(plot.to_string(), "Time\n\nseconds\nnodes  a < b\n  100  0.1 s\n 2050    2 s\n");
        let svg = plot.svg();
        assert!(svg.contains("a &lt; b") && svg.contains("prefers-color-scheme: dark"));
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        assert_eq!(svg.matches("<circle").count(), 3, "the legend, and two points");
    }
}
