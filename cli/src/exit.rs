//! From a result to an exit code, with the cause and the one safe next command.

use std::{error::Error, fmt, io, path::Path, process::ExitCode};

use crate::output::{self, Style};

/// Exit codes, as listed in `assize help`.
///
/// A file that is not what it must be is [`Code::Failed`]; only where a hash was given and is that of
/// other bytes it is [`Code::HashMismatch`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Code {
    Failed = 1,
    Usage = 2,
    Evaluation = 3,
    NotFound = 4,
    Pending = 10,
    Disputed = 11,
    Policy = 12,
    Key = 13,
    Unreachable = 20,
    StoreDamaged = 21,
    BuildFailed = 100,
    TimedOut = 101,
    HashMismatch = 102,
    NotDeterministic = 104,
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}

/// Why a command failed, in the words of an error message.
#[derive(Debug)]
pub(crate) struct CliError {
    pub(crate) code: Code,
    /// What failed, and why, in a line.
    what: String,
    /// Deeper causes, each a line.
    causes: Vec<String>,
    /// More to look at: a backtrace, the end of a log.
    details: Vec<String>,
    /// The one safe next thing to do.
    hint: Option<String>,
}

impl CliError {
    /// An error that is explained by itself.
    pub(crate) fn new(code: Code, what: impl fmt::Display) -> Self {
        Self { code, what: what.to_string(), causes: vec![], details: vec![], hint: None }
    }

    /// An error with its chain of causes.
    pub(crate) fn of(code: Code, error: &dyn Error) -> Self {
        Self::new(code, error).caused_by(error.source())
    }

    /// Adds a chain of causes, but for those that only repeat the one above them.
    pub(crate) fn caused_by(mut self, mut cause: Option<&dyn Error>) -> Self {
        while let Some(error) = cause {
            let text = error.to_string();
            let above = self.causes.last().unwrap_or(&self.what);
            if !above.contains(&text) {
                self.causes.push(text);
            }
            cause = error.source();
        }
        self
    }

    /// A file that cannot be read: not found if there is none.
    pub(crate) fn unreadable(path: &Path, error: &io::Error) -> Self {
        let code = match error.kind() {
            io::ErrorKind::NotFound => Code::NotFound,
            _ => Code::Failed,
        };
        let this = Self::new(code, format!("cannot read `{}`: {error}", path.display()));
        match code {
            Code::NotFound => this.hint("is the path spelled right? It is relative to the working directory"),
            _ => this,
        }
    }

    pub(crate) fn detail(mut self, line: impl Into<String>) -> Self {
        self.details.push(line.into());
        self
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What failed, and what to do.
    pub(crate) fn in_short(&self) -> (String, Option<&str>) {
        let what = std::iter::once(&self.what).chain(&self.causes);
        (what.map(String::as_str).collect::<Vec<_>>().join(": "), self.hint.as_deref())
    }

    /// Says it on stderr and gives the exit code.
    pub(crate) fn report(&self, json: bool) -> ExitCode {
        if json {
            let error = serde_json::json!({
                "code": self.code as u8,
                "message": self.what,
                "causes": self.causes,
                "details": self.details,
                "hint": self.hint,
            });
            output::complain(&output::envelope("error", &error).to_string());
        } else {
            output::complain(&format!("{}: {}", Style::Error.paint("error"), output::plain(&self.what)));
            for cause in &self.causes {
                output::complain(&format!("  {} {}", Style::Dim.paint("because"), output::plain(cause)));
            }
            for detail in &self.details {
                output::complain(&format!("  {} {}", Style::Dim.paint("│"), output::plain(detail)));
            }
            if let Some(hint) = &self.hint {
                output::complain(&format!("{}: {}", Style::Hint.paint("hint"), output::plain(hint)));
            }
        }
        self.code.into()
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl From<std::io::Error> for CliError {
    fn from(error: std::io::Error) -> Self {
        Self::of(Code::Failed, &error)
    }
}

impl From<store::LookupError> for CliError {
    fn from(error: store::LookupError) -> Self {
        of_lookup(&error)
    }
}

/// What could not be looked up in the store.
fn of_lookup(error: &store::LookupError) -> CliError {
    match error {
        store::LookupError::InUse { .. } => CliError::of(Code::Failed, error)
            .hint("see meanwhile what would go with `assize store gc --dry-run`"),
        // It says itself what to do.
        store::LookupError::Served(served) if !is_trouble(served) => CliError::of(Code::Failed, error),
        _ => CliError::of(Code::StoreDamaged, error).hint("look at the store with `assize store verify`"),
    }
}

/// Whether the process that has the store open has trouble with its disk, and not we with it.
fn is_trouble(error: &store::ServedError) -> bool {
    error.fault().is_some_and(|fault| fault != store::Fault::Refused)
}

impl From<store::RecordError> for CliError {
    fn from(error: store::RecordError) -> Self {
        match &error {
            store::RecordError::Pin(_) => Self::of(Code::Usage, &error)
                .hint("a pin's name is 1 to 1,024 bytes of text without control characters"),
            // It says itself what to do.
            store::RecordError::Served(served) if !is_trouble(served) => Self::of(Code::Failed, &error),
            _ => Self::of(Code::Failed, &error)
                .hint("is there space on the disk of the store? `assize doctor` tells"),
        }
    }
}

impl From<store::GetError> for CliError {
    fn from(error: store::GetError) -> Self {
        match &error {
            store::GetError::Missing { .. } => Self::of(Code::NotFound, &error),
            store::GetError::Damaged { .. } => Self::of(Code::StoreDamaged, &error)
                .hint("move damaged archives aside with `assize store verify --repair`"),
            store::GetError::Disk(_) => Self::of(Code::Failed, &error),
        }
    }
}

impl From<node::key::KeyFileError> for CliError {
    fn from(error: node::key::KeyFileError) -> Self {
        use node::key::KeyFileError;
        let hint = match &error {
            KeyFileError::Exposed { path, .. } => {
                format!("if nobody else has read it: chmod 600 {}; else `assize key rotate`", path.display())
            }
            KeyFileError::Content { .. } => "restore it from a copy with `assize key restore DIR`".into(),
            KeyFileError::Exists { path, .. } => {
                format!("to use another key here, move `{}` and its store away first", path.display())
            }
            KeyFileError::Io { .. } | KeyFileError::Foreign { .. } | KeyFileError::Random(_) => {
                return Self::of(Code::Failed, &error);
            }
        };
        Self::of(Code::Key, &error).hint(hint)
    }
}

impl From<node::judgement::JudgementError> for CliError {
    fn from(error: node::judgement::JudgementError) -> Self {
        use node::judgement::JudgementError;
        match &error {
            JudgementError::Io { .. } => Self::of(Code::Failed, &error),
            JudgementError::Roster { path, .. } => {
                Self::of(Code::Policy, &error).hint(format!("mend or remove `{}`", path.display()))
            }
            JudgementError::Own(_) => Self::of(Code::Policy, &error)
                .hint("this machine counts as `self`: take the other name out with `assize trust remove`"),
            JudgementError::Policy(_) => Self::of(Code::Policy, &error).hint(
                "see whom rules may name with `assize trust list`, and mend `policy` in the configuration",
            ),
            JudgementError::Lookup(lookup) => of_lookup(lookup),
        }
    }
}

impl From<trust::roster::RosterError> for CliError {
    fn from(error: trust::roster::RosterError) -> Self {
        Self::of(Code::Policy, &error).hint("see who is trusted with `assize trust list`")
    }
}

impl From<store::KeepError> for CliError {
    fn from(error: store::KeepError) -> Self {
        match error {
            store::KeepError::Lookup(error) => error.into(),
            store::KeepError::Record(error) => error.into(),
        }
    }
}

impl From<store::SayError> for CliError {
    fn from(error: store::SayError) -> Self {
        match error {
            store::SayError::Keep(error) => error.into(),
            store::SayError::Feed(_) => Self::of(Code::Failed, &error)
                .hint("this key was succeeded by another: `assize key show` names the present one"),
            store::SayError::Sign(_) => Self::of(Code::Failed, &error),
        }
    }
}

impl From<node::attest::AttestError> for CliError {
    fn from(error: node::attest::AttestError) -> Self {
        match error {
            node::attest::AttestError::Lookup(error) => error.into(),
            node::attest::AttestError::Say(error) => error.into(),
            node::attest::AttestError::Void { .. } => Self::of(Code::Failed, &error)
                .hint("`assize key rotate` makes another key, which others have to be given"),
        }
    }
}

impl From<node::eval::EvalError> for CliError {
    fn from(error: node::eval::EvalError) -> Self {
        let code = match *error.fault {
            node::eval::Fault::MissingAttribute { .. } | node::eval::Fault::NoDerivations { .. } => {
                Code::NotFound
            }
            _ => Code::Evaluation,
        };
        let mut this = Self::new(code, &error);
        this.details = error.trace.iter().take(8).cloned().collect();
        this.hint = error.hint();
        this
    }
}

impl<E: Error + 'static> From<node::schedule::ScheduleError<E>> for CliError {
    fn from(error: node::schedule::ScheduleError<E>) -> Self {
        use node::schedule::ScheduleError;
        match &error {
            ScheduleError::NotDeterministic { action, .. } => {
                Self::of(Code::NotDeterministic, &error).hint(not_deterministic(action))
            }
            ScheduleError::Graph(_) => Self::of(Code::Evaluation, &error),
            ScheduleError::Source { .. } => Self::of(Code::NotFound, &error),
            ScheduleError::Known(_) => {
                Self::of(Code::StoreDamaged, &error).hint("look at the store with `assize store verify`")
            }
        }
    }
}

impl From<trust::resolve::ResolveError<store::LookupError>> for CliError {
    fn from(error: trust::resolve::ResolveError<store::LookupError>) -> Self {
        use trust::resolve::ResolveError;
        match error {
            ResolveError::Known(error) => error.into(),
            ResolveError::Graph(_) => Self::of(Code::Evaluation, &error),
        }
    }
}

/// Characters shown of each line of a failed build's log.
const TAIL_CHARACTERS: usize = 240;

/// An execution that failed.
pub(crate) fn of_failed(failed: &node::realise::Failed) -> CliError {
    use node::{
        build::{BuildError, Failure},
        realise::RealiseError,
    };
    let verb = if matches!(failed.error, RealiseError::Fetch(_)) { "fetch" } else { "build" };
    let code = match &failed.error {
        RealiseError::Build(BuildError::TimedOut { .. }) => Code::TimedOut,
        RealiseError::Build(_) => Code::BuildFailed,
        RealiseError::Fetch(fetch) if fetch.is_mismatch() => Code::HashMismatch,
        RealiseError::Transcript => Code::NotDeterministic,
        _ => Code::Failed,
    };
    let what = format!("cannot {verb} `{}`: {}", failed.name, failed.error);
    let mut error = CliError::new(code, what).caused_by(failed.error.source());
    match &failed.error {
        RealiseError::Fetch(fetch) => {
            error.hint = fetch.hint();
        }
        RealiseError::Build(build) => {
            if let BuildError::Failed { failure: Failure::Trap { backtrace, .. }, .. } = build {
                error.details.extend(backtrace.iter().map(|frame| format!("at {frame}")));
            }
            if let BuildError::Failed { tail, .. }
            | BuildError::TimedOut { tail, .. }
            | BuildError::Crashed { tail, .. } = build
            {
                error.details.extend(tail.lines().map(|line| line.chars().take(TAIL_CHARACTERS).collect()));
            }
            error.hint = Some(match build {
                BuildError::Failed { kept: Some(kept), .. } => {
                    format!(
                        "its files are in `{}`; all of its log: `assize log {}`",
                        kept.display(),
                        failed.action
                    )
                }
                BuildError::Failed { .. } => format!(
                    "all of its log: `assize log {}`; to look at its files, build with `--keep-failed`",
                    failed.action
                ),
                BuildError::TimedOut { .. } => {
                    "if it needs longer, raise `limits.seconds` of the derivation".into()
                }
                _ => format!("all of its log: `assize log {}`", failed.action),
            });
        }
        RealiseError::Transcript => error.hint = Some(not_deterministic(&failed.action)),
        _ => {}
    }
    error
}

fn not_deterministic(action: &protocol::id::ActionId) -> String {
    format!(
        "see what it does with `assize show {action}`; a difference between runs of one action is a bug of assize itself"
    )
}
