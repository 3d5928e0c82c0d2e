//! What a project may import: regular files under its root, and the library.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, OpenOptions},
    io::Read,
    os::unix::fs::OpenOptionsExt,
    path::{Component, Path, PathBuf},
    rc::Rc,
};

use jrsonnet_evaluator::{
    Error, ImportResolver, Result,
    parser::{SourceFile, SourcePath, SourceVirtual},
};
use jrsonnet_gcmodule::Trace;

use super::{
    error::{At, Fault},
    nesting::{self, Import, Kind},
    session::Session,
};

/// The name by which every file can import the library.
pub(super) const LIBRARY: &str = "assize.libsonnet";

const LIBRARY_TEXT: &str = include_str!("assize.libsonnet");

/// Longest file that may be imported, in bytes.
const FILE_BYTES: u64 = 4 << 20;

/// All imported files together, in bytes.
const TOTAL_BYTES: u64 = 64 << 20;

/// The file of the project that a source path names; `None` for the library.
pub(super) fn file_of(source: &SourcePath) -> Option<&Path> {
    source.downcast_ref::<SourceFile>().map(SourceFile::path)
}

/// Leads from the directory of `from` to `path`, both relative to the root.
///
/// Fails with a sentence if `path` is absolute or the result is outside of the root. The result is
/// canonical: no part of it is a symlink.
pub(super) fn resolve(root: &Path, from: &Path, path: &str) -> std::result::Result<PathBuf, String> {
    let relative = Path::new(path);
    for component in relative.components() {
        match component {
            Component::Normal(_) | Component::CurDir | Component::ParentDir => {}
            Component::RootDir | Component::Prefix(_) => {
                return Err("the path must be relative to the file that names it".into());
            }
        }
    }
    if path.is_empty() || path.contains('\0') {
        return Err("not a path".into());
    }
    let directory = root.join(from.parent().unwrap_or(Path::new("")));
    let canonical = fs::canonicalize(directory.join(relative)).map_err(|e| described(&e))?;
    match canonical.strip_prefix(root) {
        Ok(inside) => Ok(inside.to_owned()),
        Err(_) => Err("it is outside of the project".into()),
    }
}

/// What the operating system says, without a path of this machine.
pub(super) fn described(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".into(),
        _ => error.to_string(),
    }
}

/// Resolves and reads imports for the evaluator.
#[derive(Trace)]
pub(super) struct Imports {
    #[trace(skip)]
    session: Rc<Session>,
    /// Files that were read, until the evaluator asks for them.
    #[trace(skip)]
    read: RefCell<BTreeMap<PathBuf, Vec<u8>>>,
    /// Files that were found fit to be parsed, with their imports.
    #[trace(skip)]
    scanned: RefCell<BTreeMap<PathBuf, Vec<(Import, At)>>>,
    #[trace(skip)]
    counted: RefCell<BTreeSet<PathBuf>>,
    #[trace(skip)]
    total: Cell<u64>,
}

impl Imports {
    pub(super) fn new(session: Rc<Session>) -> Self {
        Self {
            session,
            read: RefCell::default(),
            scanned: RefCell::default(),
            counted: RefCell::default(),
            total: Cell::new(0),
        }
    }

    /// The import of `path` in `from`, if there is one that is spelled plainly.
    fn find(&self, from: &Path, path: &str) -> Option<(Import, At)> {
        let scanned = self.scanned.borrow();
        let mut same = scanned.get(from)?.iter().filter(|(import, _)| import.path == path);
        let first = same.next()?.clone();
        // A file that is imported in both ways is parsed.
        Some(same.find(|(import, _)| import.kind == Kind::Code).cloned().unwrap_or(first))
    }

    /// Reads a file, unless its text waits already.
    fn load(&self, path: &Path) -> std::result::Result<Vec<u8>, String> {
        if let Some(bytes) = self.read.borrow_mut().remove(path) {
            return Ok(bytes);
        }
        let open = |flags: rustix::fs::OFlags| -> std::io::Result<File> {
            let flags = i32::try_from(flags.bits()).unwrap_or(0);
            OpenOptions::new().read(true).custom_flags(flags).open(self.session.root.join(path))
        };
        // Without blocking, should it be a FIFO; and it is not a symlink, or was not a moment ago.
        let mut file =
            open(rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOFOLLOW).map_err(|e| described(&e))?;
        let meta = file.metadata().map_err(|e| described(&e))?;
        if meta.is_dir() {
            return Err("it is a directory".into());
        }
        if !meta.is_file() {
            return Err("it is not a regular file".into());
        }
        let mut bytes = Vec::new();
        file.by_ref().take(FILE_BYTES + 1).read_to_end(&mut bytes).map_err(|e| described(&e))?;
        if bytes.len() as u64 > FILE_BYTES {
            return Err(format!("it has more than {FILE_BYTES} bytes"));
        }
        if self.counted.borrow_mut().insert(path.to_owned()) {
            self.total.set(self.total.get() + bytes.len() as u64);
        }
        if self.total.get() > TOTAL_BYTES {
            return Err(format!("all imported files together have more than {TOTAL_BYTES} bytes"));
        }
        Ok(bytes)
    }

    /// Resolves an import; `kind` is `None` if the way it is spelled hides how it is imported.
    fn checked(&self, from: &Path, path: &str, kind: Option<Kind>, at: Option<At>) -> Result<SourcePath> {
        let resolved = resolve(&self.session.root, from, path)
            .map_err(|why| self.session.fail_at(at.clone(), Fault::Import { path: path.to_owned(), why }))?;
        if kind != Some(Kind::Data) && !self.scanned.borrow().contains_key(&resolved) {
            self.scan(&resolved, path, at, kind.is_some())?;
        }
        Ok(SourcePath::new(SourceFile::new(resolved)))
    }

    /// Sees to it that a file can be parsed, and remembers its imports.
    fn scan(&self, path: &Path, import: &str, at: Option<At>, parsed: bool) -> Result<()> {
        let failed = |why| self.session.fail_at(at.clone(), Fault::Import { path: import.to_owned(), why });
        let name = path.to_string_lossy().into_owned();
        let bytes = self.load(path).map_err(failed)?;
        let text = match std::str::from_utf8(&bytes) {
            Ok(text) => text,
            Err(_) => return Err(failed("it is not UTF-8".into())),
        };
        let imports = nesting::scan(text).map_err(|found| {
            let at = found.at(&name, text);
            self.session.fail_at(Some(at), found.fault())
        })?;
        let imports = imports.into_iter().map(|import| {
            let at = At::of_byte(name.clone(), text, import.byte);
            (import, at)
        });
        self.scanned.borrow_mut().insert(path.to_owned(), imports.collect());
        self.read.borrow_mut().insert(path.to_owned(), bytes);
        if parsed {
            self.session.watch.parsing(name);
        }
        Ok(())
    }
}

impl ImportResolver for Imports {
    fn resolve_from(&self, from: &SourcePath, path: &str) -> Result<SourcePath> {
        if path == LIBRARY {
            return Ok(SourcePath::new(SourceVirtual(LIBRARY.into())));
        }
        let from = file_of(from).unwrap_or(Path::new(""));
        let found = self.find(from, path);
        let kind = found.as_ref().map(|(import, _)| import.kind);
        self.checked(from, path, kind, found.map(|(_, at)| at))
    }

    /// Resolves the file where evaluation starts, relative to the root.
    fn resolve(&self, path: &Path) -> Result<SourcePath> {
        self.checked(Path::new(""), &path.to_string_lossy(), Some(Kind::Code), None)
    }

    fn load_file_contents(&self, resolved: &SourcePath) -> Result<Vec<u8>> {
        let Some(path) = file_of(resolved) else {
            return Ok(LIBRARY_TEXT.into());
        };
        self.load(path).map_err(|why| -> Error {
            self.session.fail(Fault::Import { path: path.to_string_lossy().into_owned(), why })
        })
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}
