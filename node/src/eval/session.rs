//! What one evaluation keeps: which derivations were made, the sources packed, and the errors on their
//! way through Jsonnet.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use jrsonnet_evaluator::{
    Error,
    error::ErrorKind,
    parser::{Source, Span},
};
use protocol::{
    derivation::Derivation,
    glob::Glob,
    id::{DerivationId, NarHash},
    name::Name,
};

use super::{
    Pack, SourceUse,
    error::{At, EvalError, Fault, clean},
    handle::Base,
    imports::file_of,
};

/// Calls inside each other. Chains of derivations do not count (`handle::resolve`).
pub(super) const CALLS: usize = 4000;

/// Frames of a trace that are kept.
const FRAMES: usize = 20;

/// What a message of ours begins with on its way through Jsonnet; the number of a failure follows.
const MARK: char = '\u{1}';

/// Takes a derivation.
pub(super) type Made = Box<dyn FnMut(&[u8])>;

/// The state of one evaluation.
pub(super) struct Session {
    /// The project's root, canonical.
    pub(super) root: PathBuf,
    pub(super) watch: Arc<Watch>,
    pack: Pack,
    /// Takes the canonical encoding of every derivation that is made.
    made: RefCell<Made>,
    known: RefCell<BTreeSet<DerivationId>>,
    sources: RefCell<BTreeMap<(PathBuf, Vec<Glob>), NarHash>>,
    bases: RefCell<BTreeMap<BTreeSet<Name>, Base>>,
    failures: RefCell<Vec<(Option<At>, Fault)>>,
}

impl Session {
    pub(super) fn new(root: PathBuf, pack: Pack, watch: Arc<Watch>, made: Made) -> Self {
        Self {
            root,
            watch,
            pack,
            made: RefCell::new(made),
            known: RefCell::default(),
            sources: RefCell::default(),
            bases: RefCell::default(),
            failures: RefCell::default(),
        }
    }

    /// Hands over a derivation; equal ones are one.
    pub(super) fn register(&self, derivation: &Derivation) -> DerivationId {
        let (id, encoding) = derivation.identified();
        if self.known.borrow_mut().insert(id) {
            self.made.borrow_mut()(&encoding);
        }
        id
    }

    /// What the handles of derivations with these outputs extend, made by `make` if it is the first.
    pub(super) fn base(
        self: &Rc<Self>,
        outputs: BTreeSet<Name>,
        make: fn(&Rc<Self>, &BTreeSet<Name>) -> Base,
    ) -> Base {
        let base = |outputs: &BTreeSet<Name>| make(self, outputs);
        self.bases.borrow_mut().entry(outputs).or_insert_with_key(base).clone()
    }

    /// Hashes the files below `path`, which is relative to the root, once.
    pub(super) fn pack(&self, path: &Path, exclude: &[Glob]) -> Result<NarHash, Fault> {
        let key = (path.to_owned(), exclude.to_vec());
        if let Some(hash) = self.sources.borrow().get(&key) {
            return Ok(*hash);
        }
        let hash = (self.pack)(&self.root.join(path), exclude).map_err(|failed| {
            let inside = failed.path.strip_prefix(&self.root).unwrap_or(&failed.path);
            Fault::Source { path: inside.to_string_lossy().into_owned(), why: failed.cause }
        })?;
        self.sources.borrow_mut().insert(key, hash);
        Ok(hash)
    }

    /// The sources that were hashed.
    pub(super) fn sources(&self) -> Vec<SourceUse> {
        let sources = self.sources.borrow();
        let used = sources.iter().map(|((path, exclude), hash)| SourceUse {
            path: path.clone(),
            exclude: exclude.iter().map(ToString::to_string).collect(),
            hash: *hash,
        });
        used.collect()
    }

    /// An error that travels through Jsonnet; its place is the innermost call in the author's files.
    pub(super) fn fail(&self, fault: Fault) -> Error {
        self.fail_at(None, fault)
    }

    /// An error whose place is known better than by the calls that led to it.
    pub(super) fn fail_at(&self, at: Option<At>, fault: Fault) -> Error {
        let mut failures = self.failures.borrow_mut();
        failures.push((at, fault));
        ErrorKind::RuntimeError(format!("{MARK}{}", failures.len() - 1).into()).into()
    }

    /// What an error of Jsonnet means to the author.
    pub(super) fn explain(&self, error: &Error, attribute: Option<&str>) -> EvalError {
        let mut trace: Vec<String> = Vec::new();
        let mut innermost = None;
        for frame in &error.trace().0 {
            let Some(at) = frame.location.as_ref().and_then(place) else {
                continue;
            };
            trace.push(clean(&format!("{at}: {}", frame.desc)));
            innermost.get_or_insert(at);
            if trace.len() == FRAMES {
                break;
            }
        }
        let (known, fault) = self.fault(error.error(), attribute);
        EvalError { at: known.or(innermost), fault: Box::new(fault), trace }
    }

    fn fault(&self, error: &ErrorKind, attribute: Option<&str>) -> (Option<At>, Fault) {
        let runtime = |message: String, hint| {
            (
                None,
                Fault::Runtime { message: clean(&message), hint: Option::map(hint, |h: String| clean(&h)) },
            )
        };
        match error {
            ErrorKind::RuntimeError(message) => {
                let number = message.strip_prefix(MARK).and_then(|n| n.parse::<usize>().ok());
                match number.and_then(|n| self.failures.borrow().get(n).cloned()) {
                    Some(failure) => failure,
                    None => runtime(message.to_string(), None),
                }
            }
            ErrorKind::ImportSyntaxError { path, error } => {
                let text = path.code();
                let at = At::of_byte(name_of(path), text, error.location.offset);
                let found = text.get(error.location.offset..).and_then(|rest| rest.chars().next());
                let found = found.map_or("the end".into(), |c| format!("`{}`", c.escape_debug()));
                (Some(at), Fault::Parse { expected: expected(&error.expected.to_string()), found })
            }
            ErrorKind::InfiniteRecursionDetected => {
                (None, Fault::InfiniteRecursion { attribute: attribute.map(str::to_owned) })
            }
            ErrorKind::StackOverflow => (None, Fault::CallsTooDeep { limit: CALLS }),
            ErrorKind::NoSuchField(name, similar) => {
                runtime(format!("no field `{name}`"), suggestion(similar))
            }
            ErrorKind::VariableIsNotDefined(name, similar) => {
                runtime(format!("`{name}` is not defined"), suggestion(similar))
            }
            ErrorKind::ImportBadFileUtf8(path) => {
                let path = file_of(path).unwrap_or(Path::new("")).to_string_lossy().into_owned();
                (None, Fault::Import { path, why: "it is not UTF-8".into() })
            }
            other => {
                let text = other.to_string();
                match text.split_once('\n') {
                    Some((message, rest)) => runtime(message.to_owned(), Some(rest.to_owned())),
                    None => runtime(text, None),
                }
            }
        }
    }
}

fn suggestion<T: std::fmt::Display>(similar: &[T]) -> Option<String> {
    similar.first().map(|s| format!("did you mean `{s}`?"))
}

/// The first few of what the parser could have read.
fn expected(all: &str) -> String {
    let all = all.strip_prefix("one of ").unwrap_or(all);
    let parts: Vec<&str> = all.split(", ").collect();
    match parts.len() {
        0..=6 => all.to_owned(),
        more => format!("{} or {} others", parts[..6].join(", "), more - 6),
    }
}

/// The name under which messages speak of a file.
fn name_of(source: &Source) -> String {
    match file_of(source.source_path()) {
        Some(path) => path.to_string_lossy().into_owned(),
        None => source.source_path().to_string(),
    }
}

/// The place of a piece of text, if it is in a file of the project.
pub(super) fn place(span: &Span) -> Option<At> {
    file_of(span.0.source_path())?;
    Some(At::of_byte(name_of(&span.0), span.0.code(), span.1 as usize))
}

/// What an evaluation is doing, for somebody who watches it from another thread.
#[derive(Default)]
pub(super) struct Watch {
    parsing: Mutex<Option<(String, Instant)>>,
    report: bool,
}

impl Watch {
    /// Says on stderr as well what is done (`worker.rs`).
    pub(super) fn reporting() -> Self {
        Self { report: true, ..Self::default() }
    }

    /// A file is about to be parsed.
    pub(super) fn parsing(&self, file: String) {
        if self.report {
            super::worker::report(&format!("parsing {file}"));
        }
        *self.parsing.lock().unwrap_or_else(PoisonError::into_inner) = Some((file, Instant::now()));
    }

    /// A file was parsed.
    pub(super) fn parsed(&self) {
        let was = self.parsing.lock().unwrap_or_else(PoisonError::into_inner).take();
        if self.report && was.is_some() {
            super::worker::report("");
        }
    }

    /// The file that has been parsed for longer than `limit`, if there is one.
    pub(super) fn parsing_longer_than(&self, limit: Duration) -> Option<String> {
        let parsing = self.parsing.lock().unwrap_or_else(PoisonError::into_inner);
        parsing.as_ref().filter(|(_, since)| since.elapsed() > limit).map(|(file, _)| file.clone())
    }
}
