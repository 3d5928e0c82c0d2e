//! Why an evaluation failed: one variant per rule, with the place in the author's text.
//!
//! Every error is made in the worker, crosses the pipe as JSON and arrives as the same value, but
//! for the few that only the parent can see (a time-out, a death).

use std::fmt;

use serde::{Deserialize, Serialize};

/// A place in a file of the project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct At {
    /// The file, relative to the project's root.
    pub file: String,
    /// Counted from 1; 0 if the file as a whole is meant.
    pub line: u32,
    /// In characters, counted from 1; 0 if the file as a whole is meant.
    pub column: u32,
}

impl At {
    /// The place of a byte of `text`.
    pub(super) fn of_byte(file: String, text: &str, byte: usize) -> Self {
        let byte = (0..=byte.min(text.len())).rev().find(|b| text.is_char_boundary(*b)).unwrap_or(0);
        let before = &text[..byte];
        let line = before.bytes().filter(|b| *b == b'\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        let fit = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Self { file, line: fit(line), column: fit(column) }
    }

    /// A file as a whole.
    pub(super) fn file(file: impl Into<String>) -> Self {
        Self { file: file.into(), line: 0, column: 0 }
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line == 0 { Ok(()) } else { write!(f, ":{}:{}", self.line, self.column) }
    }
}

/// Why an evaluation failed, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvalError {
    /// The innermost place in a file of the project that has to do with it.
    pub at: Option<At>,
    /// What is wrong.
    pub fault: Box<Fault>,
    /// How the evaluation came there, innermost first: `file:line:column: what`.
    pub trace: Vec<String>,
}

impl EvalError {
    /// What the author can do about it, if there is one thing.
    pub fn hint(&self) -> Option<String> {
        self.fault.hint()
    }

    /// The same without control characters, which could change what a terminal shows.
    pub(super) fn cleaned(self) -> Self {
        fn clean_all(value: &mut serde_json::Value) {
            match value {
                serde_json::Value::String(text) => *text = clean(text),
                serde_json::Value::Array(values) => values.iter_mut().for_each(clean_all),
                serde_json::Value::Object(fields) => fields.values_mut().for_each(clean_all),
                _ => {}
            }
        }
        let Ok(mut value) = serde_json::to_value(&self) else {
            return self;
        };
        clean_all(&mut value);
        serde_json::from_value(value).unwrap_or(self)
    }
}

/// Text without control characters.
pub(super) fn clean(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect()
}

impl fmt::Display for EvalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(at) = &self.at {
            write!(f, "{at}: ")?;
        }
        fmt::Display::fmt(&self.fault, f)
    }
}

impl std::error::Error for EvalError {}

impl From<Fault> for EvalError {
    fn from(fault: Fault) -> Self {
        Self { at: None, fault: Box::new(fault), trace: Vec::new() }
    }
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "kind", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum Fault {
    /// The text is not Jsonnet.
    #[error("syntax error: expected {expected}, found {found}")]
    Parse {
        /// What could have stood there.
        expected: String,
        /// What stands there.
        found: String,
    },
    /// Brackets or operators inside each other, more than the parser is trusted with.
    #[error("{what} nest {found} deep; at most {limit} are allowed")]
    TooDeep {
        /// Brackets, expressions, or the values of a document.
        what: String,
        /// How deep.
        found: usize,
        /// How deep it may be.
        limit: usize,
    },
    /// The parser tries alternatives again and again, for example in nested comprehensions.
    #[error(
        "parsing takes more than {seconds} s; are comprehensions nested, or is a deeply nested bracket wrong?"
    )]
    SlowToParse {
        /// What parsing may take.
        seconds: u64,
    },
    /// An error of the evaluation itself, `error` and `assert` included.
    #[error("{message}")]
    Runtime {
        /// What Jsonnet says.
        message: String,
        /// What it suggests.
        hint: Option<String>,
    },
    /// A value that needs itself.
    #[error("infinite recursion{}", .attribute.as_ref().map(|a| format!(" in `{a}`")).unwrap_or_default())]
    InfiniteRecursion {
        /// The attribute that was being evaluated.
        attribute: Option<String>,
    },
    /// Derivations that need each other.
    #[error("{}", cycle(.names))]
    Cycle {
        /// Their names; the first is the last.
        names: Vec<String>,
    },
    /// Calls inside each other, more than are allowed.
    #[error("more than {limit} calls inside each other")]
    CallsTooDeep {
        /// How many are allowed.
        limit: usize,
    },
    /// Not an attribute path.
    #[error("`{attribute}` is not an attribute path: {why}")]
    Attribute {
        /// What was given.
        attribute: String,
        /// What is wrong.
        why: String,
    },
    /// No such attribute.
    #[error("no attribute `{path}`")]
    MissingAttribute {
        /// The path, up to the part that is missing.
        path: String,
        /// The known attribute most like it.
        nearest: Option<String>,
        /// What there is, at most 50.
        known: Vec<String>,
    },
    /// An attribute of something that has none.
    #[error("no attribute `{path}`: `{parent}` is {found}")]
    NoAttributes {
        /// The path, up to the part that is missing.
        path: String,
        /// The path of what should have it.
        parent: String,
        /// What that is.
        found: String,
    },
    /// Nothing to build there.
    #[error("`{attribute}` is {found}, not a derivation")]
    NotADerivation {
        /// The path; `.` for the whole file.
        attribute: String,
        /// What it is.
        found: String,
    },
    /// There is nothing to build in the attribute.
    #[error("`{attribute}` is an object without derivations in it")]
    NoDerivations {
        /// The path; `.` for the whole file.
        attribute: String,
    },
    /// A field that nobody reads: most likely a spelling mistake.
    #[error("{what}: unknown field `{field}`")]
    UnknownField {
        /// Whose field.
        what: String,
        /// The field.
        field: String,
        /// The known field most like it.
        nearest: Option<String>,
        /// The fields there are.
        known: Vec<String>,
    },
    /// A field that must be there.
    #[error("{what}: the field `{field}` is missing")]
    MissingField {
        /// Whose field.
        what: String,
        /// The field.
        field: String,
    },
    /// A value of the wrong kind.
    #[error("{what}: `{field}` must be {expected}, but is {found}")]
    Value {
        /// Whose field.
        what: String,
        /// The field, with the path inside it.
        field: String,
        /// What is asked for.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A value of the right kind that breaks a rule.
    #[error("{what}: `{field}`: {rule}")]
    Rule {
        /// Whose field.
        what: String,
        /// The field, with the path inside it.
        field: String,
        /// The rule, as the format states it.
        rule: String,
    },
    /// The derivation as a whole breaks a rule of the format.
    #[error("derivation `{name}`: {rule}")]
    Derivation {
        /// Its name.
        name: String,
        /// The rule, as the format states it.
        rule: String,
    },
    /// A handle where text is wanted.
    #[error("{what} cannot become text")]
    Text {
        /// Which handle.
        what: String,
    },
    /// An import that is not allowed or does not work.
    #[error("cannot import `{path}`: {why}")]
    Import {
        /// As it was written.
        path: String,
        /// The rule, or what the operating system says.
        why: String,
    },
    /// A source that is not allowed or cannot be packed.
    #[error("cannot use `{path}` as a source: {why}")]
    Source {
        /// As it was written, or the file inside it.
        path: String,
        /// The rule, or what the operating system says.
        why: String,
    },
    /// A value that JSON cannot express.
    #[error("`{path}` is {found}, which JSON cannot express")]
    NotJson {
        /// Where it is in the value.
        path: String,
        /// What it is.
        found: String,
    },
    /// More derivations or text than an answer may have.
    #[error("the answer has more than {limit} bytes")]
    AnswerTooLong {
        /// Bytes allowed.
        limit: u64,
    },

    /// The wall clock or the processor time ran out.
    #[error("evaluation took more than {seconds} s{}", during(.doing))]
    TimedOut {
        /// What it may take.
        seconds: u64,
        /// What it was doing.
        doing: Option<String>,
    },
    /// Memory ran out.
    #[error("evaluation needs more than {} MiB of memory{}", .bytes >> 20, during(.doing))]
    OutOfMemory {
        /// What it may use.
        bytes: u64,
        /// What it was doing.
        doing: Option<String>,
    },
    /// The stack of the worker ran out.
    #[error("values nest too deep to be evaluated{}", during(.doing))]
    StackOverflow {
        /// What it was doing.
        doing: Option<String>,
    },
    /// The worker died of a signal for no reason that is known.
    #[error("the evaluator was killed by signal {signal}{}", during(.doing))]
    Crashed {
        /// The signal.
        signal: i32,
        /// What it was doing.
        doing: Option<String>,
    },
    /// The evaluator has a mistake: it panicked.
    #[error("the evaluator failed: {message}")]
    Panicked {
        /// What it said.
        message: String,
    },
    /// The worker could not be started or spoken to.
    #[error("cannot run the evaluator: {why}")]
    Worker {
        /// What the operating system says.
        why: String,
    },
    /// The worker's answer does not hold what it must.
    #[error("the evaluator's answer is damaged: {why}")]
    Answer {
        /// What is wrong with it.
        why: String,
    },
}

fn cycle(names: &[String]) -> String {
    match names {
        [name] => format!("the derivation `{name}` needs itself"),
        names => format!("derivations need each other: {}", names.join(" → ")),
    }
}

fn during(doing: &Option<String>) -> String {
    doing.as_ref().map(|d| format!(", while {d}")).unwrap_or_default()
}

impl Fault {
    /// What the author can do about it, if there is one thing.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Runtime { hint, .. } => hint.clone(),
            Self::MissingAttribute { nearest, known, .. } => did_you_mean(nearest, known, "attributes"),
            Self::UnknownField { nearest, known, .. } => did_you_mean(nearest, known, "fields"),
            Self::CallsTooDeep { .. } => Some("replace recursion by `std.foldl` or a comprehension".into()),
            Self::Text { .. } => Some(
                "name it in `inputs` and write the path at which that input is mounted, such as `/in/NAME`"
                    .into(),
            ),
            Self::NotADerivation { .. } => {
                Some("name an attribute that is a derivation; `assize eval` shows any value".into())
            }
            Self::NoDerivations { .. } => Some(
                "list what there is with `assize eval --list`; docs/jsonnet.md says how packages are written"
                    .into(),
            ),
            Self::SlowToParse { .. } | Self::Parse { .. } | Self::TooDeep { .. } => {
                Some("look at that place, and at the comma or bracket before it".into())
            }
            Self::InfiniteRecursion { .. } | Self::Cycle { .. } => {
                Some("break the cycle: nothing can be made from itself, not by way of others either".into())
            }
            Self::Attribute { .. } | Self::NoAttributes { .. } => Some(
                "list what there is with `assize eval --list`; quote a name with a dot: 'a.\"x.y\"'".into(),
            ),
            Self::MissingField { .. }
            | Self::Value { .. }
            | Self::Rule { .. }
            | Self::Derivation { .. }
            | Self::NotJson { .. } => Some("docs/jsonnet.md says what each function takes".into()),
            Self::Import { .. } | Self::Source { .. } => Some(
                "only files below the project's root can be used; --root names a higher directory".into(),
            ),
            Self::TimedOut { .. }
            | Self::OutOfMemory { .. }
            | Self::StackOverflow { .. }
            | Self::AnswerTooLong { .. } => {
                Some("is there a recursion, a loop or a text that grows without end?".into())
            }
            Self::Crashed { .. } | Self::Panicked { .. } | Self::Worker { .. } | Self::Answer { .. } => {
                Some("run it again; if it stays so, report it with the build file".into())
            }
        }
    }
}

fn did_you_mean(nearest: &Option<String>, known: &[String], what: &str) -> Option<String> {
    match nearest {
        Some(nearest) => Some(format!("did you mean `{nearest}`?")),
        None if known.is_empty() => None,
        None => Some(format!("the {what} are {}", known.join(", "))),
    }
}

/// The word most like `word`, if one is like it at all.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let allowed = (word.chars().count() / 3).max(1);
    let scored = known.into_iter().map(|k| (distance(word, k), k));
    scored.filter(|(d, _)| *d <= allowed).min().map(|(_, k)| k.to_owned())
}

/// How many insertions, deletions, replacements and swaps of neighbours lead from `a` to `b`.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(128).collect(), b.chars().take(128).collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<_>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let at = |byte| At::of_byte("a".into(), "xy\nü€z\n", byte).to_string();
        assert_eq!(at(0), "a:1:1");
        assert_eq!(at(3), "a:2:1");
        assert_eq!(at(8), "a:2:3");
        assert_eq!(at(4), "a:2:1"); // Inside ü.
        assert_eq!(at(99), "a:3:1");
    }

    #[test]
    fn nearest_word() {
        let known = ["name", "steps", "inputs", "outputs"];
        assert_eq!(nearest("step", known), Some("steps".into()));
        assert_eq!(nearest("inptus", known), Some("inputs".into()));
        assert_eq!(nearest("anme", known), Some("name".into()));
        assert_eq!(nearest("colour", known), None);
    }
}
