//! Manuals that are run: whose command is whose, and what it must print.

/// A command of a manual.
#[derive(Debug)]
pub struct Command<'m> {
    /// Whose machine: what is before `$ `.
    pub who: &'m str,
    /// What is typed.
    pub line: &'m str,
    /// What it prints: `…` is anything, and a line of it any lines.
    pub expected: Vec<&'m str>,
    /// What it exits with, as `[exit code N]` in the last line says.
    pub code: i32,
}

impl Command<'_> {
    /// Whether it did what the manual says.
    pub fn fits(&self, code: i32, out: &str) -> bool {
        let found: Vec<_> = out.lines().collect();
        code == self.code && fits(&self.expected, &found)
    }
}

/// The blocks of one kind in a manual.
pub fn blocks<'m>(manual: &'m str, kind: &str) -> Vec<&'m str> {
    let open = format!("```{kind}\n");
    manual.split(&open).skip(1).map(|rest| rest.split("```").next().unwrap_or_default()).collect()
}

/// The commands of `people` in the console blocks of a manual.
///
/// # Panics
///
/// When a block does not begin with a command.
pub fn commands<'m>(manual: &'m str, people: &[&str]) -> Vec<Command<'m>> {
    let mut commands = Vec::new();
    for block in blocks(manual, "console") {
        let first = commands.len();
        for line in block.lines() {
            match line.split_once("$ ").filter(|(who, _)| people.contains(who)) {
                Some((who, line)) => commands.push(Command { who, line, expected: vec![], code: 0 }),
                None => {
                    assert!(commands.len() > first, "a block begins with `{line}`");
                    let command = commands.last_mut().expect("one is there");
                    let code = line.strip_prefix("[exit code ").and_then(|line| line.strip_suffix(']'));
                    match code.and_then(|code| code.parse().ok()) {
                        Some(code) => command.code = code,
                        None => command.expected.push(line),
                    }
                }
            }
        }
    }
    commands
}

fn fits(expected: &[&str], found: &[&str]) -> bool {
    match (expected, found) {
        ([], []) => true,
        (["…", rest @ ..], _) => (0..=found.len()).any(|n| fits(rest, &found[n..])),
        ([first, rest @ ..], [line, lines @ ..]) => fits_line(first, line) && fits(rest, lines),
        _ => false,
    }
}

fn fits_line(expected: &str, found: &str) -> bool {
    let mut pieces = expected.split('…');
    let Some(mut left) = found.strip_prefix(pieces.next().unwrap_or_default()) else { return false };
    let rest: Vec<_> = pieces.collect();
    let Some((last, middle)) = rest.split_last() else { return left.is_empty() };
    for piece in middle {
        match left.find(piece) {
            Some(at) => left = &left[at + piece.len()..],
            None => return false,
        }
    }
    left.ends_with(last)
}
