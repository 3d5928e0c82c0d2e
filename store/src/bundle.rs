//! Carrying archives and actions elsewhere: a bundle (SPEC §9.6).
//!
//! A bundle is itself an archive, so that it needs no format of its own and any tool that reads
//! archives reads it: a directory of `actions/<hex of the action's id>` (its canonical encoding)
//! and `nars/<hex of the NAR hash>.nar`. Everything in it is named by its hash, so it does not
//! matter who made it. It has no realisations: what became of an action elsewhere is a claim, and
//! an import is not a judgement.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Read, Write},
};

use protocol::{
    action::Action,
    encode::DecodeError,
    id::{ActionId, NarHash},
    nar::{Fault, Index, Node, NodeId, WriteError, Writer},
};

use crate::{
    AdmitError, Admitted, DiskError, Fact, GetError, LookupError, RecordError, Store,
    disk::Doing as _,
    nars::{hash, map_whole},
    pack::Content,
};

/// The parts of a bundle, in order.
const ACTIONS: &[u8] = b"actions";
const NARS: &[u8] = b"nars";

/// Bytes written at once.
const WRITE_BYTES: usize = 256 << 10;

/// Why a bundle could not be written.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// An archive is not here; nothing was written.
    #[error(transparent)]
    Nar(#[from] GetError),
    /// An action is not known; nothing was written.
    #[error("{action} is not known here")]
    ActionMissing {
        /// Which.
        action: ActionId,
    },
    /// An action could not be looked up.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// An archive has not the bytes that were admitted. What was written is no bundle.
    #[error("{hash} is damaged on disk: its bytes are those of {found}")]
    Damaged {
        /// Which archive.
        hash: NarHash,
        /// What it hashes to.
        found: NarHash,
    },
    /// More than an archive has room for.
    #[error("too much for one bundle")]
    Rule(#[source] Fault),
    /// Our own disk refused.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Where the bundle went to failed.
    #[error("cannot write the bundle")]
    Sink(#[source] io::Error),
}

/// What was exported.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Exported {
    /// How many actions.
    pub actions: u64,
    /// How many archives.
    pub nars: u64,
    /// Bytes of the archives.
    pub nar_bytes: u64,
}

/// Why something could not be imported. What came before it in the bundle is kept.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// Not received whole, or too long, or no archive: nothing is kept.
    #[error(transparent)]
    Admit(#[from] AdmitError),
    /// Something that no bundle has.
    #[error("`{path}` does not belong in a bundle")]
    Foreign {
        /// Its path in the bundle, escaped.
        path: String,
    },
    /// The bytes named as an action are none.
    #[error("{action} is not an action")]
    Action {
        /// What it is named.
        action: ActionId,
        /// What is wrong with it.
        #[source]
        source: DecodeError,
    },
    /// An action under the name of another.
    #[error("{named} is really {found}")]
    ActionHash {
        /// What it is named.
        named: ActionId,
        /// What it is.
        found: ActionId,
    },
    /// An archive of the bundle was not admitted.
    #[error("{nar} was not admitted")]
    Nar {
        /// What it is named.
        nar: NarHash,
        /// Why.
        #[source]
        source: AdmitError,
    },
    /// The actions were not recorded.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// What was imported, or was there already.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Imported {
    /// Whether it was one plain archive and no bundle.
    pub plain: bool,
    /// Actions, in the order of their ids.
    pub actions: Vec<ActionId>,
    /// Archives, in the order of their hashes.
    pub nars: Vec<Admitted>,
}

impl Store {
    /// Writes a bundle of these archives and actions to `to`, in constant memory.
    ///
    /// Equal sets give equal bytes. Every archive is hashed on the way out.
    pub fn export(
        &self,
        nars: &BTreeSet<NarHash>,
        actions: &BTreeSet<ActionId>,
        to: impl Write,
    ) -> Result<Exported, ExportError> {
        // Before the first byte is written, as far as can be seen.
        for action in actions {
            if self.action(action)?.is_none() {
                return Err(ExportError::ActionMissing { action: *action });
            }
        }
        if let Some(hash) = nars.iter().find(|hash| !self.contains(hash)) {
            return Err(GetError::Missing { hash: *hash }.into());
        }
        let mut exported = Exported::default();
        let mut writer = Writer::new(io::BufWriter::with_capacity(WRITE_BYTES, to));
        writer.directory()?;
        writer.entry(ACTIONS)?;
        writer.directory()?;
        for id in actions {
            let action = self.action(id)?.ok_or(ExportError::ActionMissing { action: *id })?;
            let bytes = action.to_bytes();
            writer.entry(id.to_hex().as_bytes())?;
            writer.file(false, bytes.len() as u64, &bytes[..])?;
            exported.actions += 1;
        }
        writer.end()?;
        writer.entry(NARS)?;
        writer.directory()?;
        for hash in nars {
            writer.entry(format!("{}.nar", hash.to_hex()).as_bytes())?;
            exported.nar_bytes += self.export_nar(hash, &mut writer)?;
            exported.nars += 1;
        }
        writer.end()?;
        writer.end()?;
        writer.finish()?;
        Ok(exported)
    }

    /// Writes one archive as a file of the bundle, and returns its bytes.
    fn export_nar(&self, hash: &NarHash, writer: &mut Writer<impl Write>) -> Result<u64, ExportError> {
        let path = self.nar_path(hash);
        let file = File::open(&path).doing("open", &path)?;
        let size = file.metadata().doing("look at", &path)?.len();
        let mut content = Hashing { content: Content::new(file), hasher: blake3::Hasher::new() };
        let written = writer.file(false, size, &mut content);
        content.content.read_error().doing("read", &path)?;
        written?;
        let found = NarHash::from_bytes(*content.hasher.finalize().as_bytes());
        if found == *hash { Ok(size) } else { Err(ExportError::Damaged { hash: *hash, found }) }
    }

    /// Reads a bundle, or a single plain archive, of at most `limit` bytes, and keeps what is in
    /// it: archives, and actions as facts. Nothing is kept that is not what its name says.
    ///
    /// It is a bundle if its root is a directory of `actions` and `nars` and nothing else. It is
    /// written to `tmp/` first, so that takes as much room again.
    ///
    /// # Errors
    ///
    /// [`ImportError`], at the first thing that is wrong; what came before it stays.
    pub fn import(&self, mut from: impl Read, limit: u64) -> Result<Imported, ImportError> {
        let mut file = self.temp().doing("create a file in", &self.home.tmp).map_err(AdmitError::Disk)?;
        self.spool(&mut from, limit, &mut file)?;
        let map = map_whole(file.as_file(), file.path()).map_err(AdmitError::Disk)?;
        let index = Index::read(&map).map_err(AdmitError::Format)?;
        match parts(&index, &map) {
            None => {
                drop(map);
                let nars = vec![self.admit_file(file, None)?];
                Ok(Imported { plain: true, nars, ..Imported::default() })
            }
            Some(parts) => self.import_bundle(&index, &map, parts),
        }
    }

    fn import_bundle(
        &self,
        index: &Index,
        bytes: &[u8],
        [actions, nars]: [NodeId; 2],
    ) -> Result<Imported, ImportError> {
        let mut imported = Imported::default();
        let mut facts = Vec::new();
        let mut bad = None;
        for entry in entries(index, actions, bytes, ACTIONS) {
            match entry.and_then(read_action) {
                Ok((id, action)) => {
                    imported.actions.push(id);
                    facts.push(Fact::Action(action));
                }
                Err(e) => {
                    bad = Some(e);
                    break;
                }
            }
        }
        self.record_all(&facts)?;
        if let Some(bad) = bad {
            return Err(bad);
        }
        for entry in entries(index, nars, bytes, NARS) {
            let (path, name, content) = entry?;
            let named = name.strip_suffix(".nar").and_then(NarHash::from_hex);
            let nar = named.ok_or(ImportError::Foreign { path })?;
            let admitted =
                self.import_nar(nar, content).map_err(|source| ImportError::Nar { nar, source })?;
            imported.nars.push(admitted);
        }
        Ok(imported)
    }

    fn import_nar(&self, asked: NarHash, bytes: &[u8]) -> Result<Admitted, AdmitError> {
        let (received, size) = (hash(bytes), bytes.len() as u64);
        if received != asked {
            return Err(AdmitError::Hash { asked, received });
        }
        self.admit(bytes, Some(asked), size)
    }
}

/// A bundle's `actions` and `nars`, if it is one.
fn parts(index: &Index, bytes: &[u8]) -> Option<[NodeId; 2]> {
    let Node::Directory(children) = index.node_of(NodeId::ROOT) else { return None };
    let &[actions, nars] = index.children(children) else { return None };
    let named = index.name(actions, bytes) == ACTIONS && index.name(nars, bytes) == NARS;
    named.then_some([actions, nars])
}

type Entry<'b> = (String, &'b str, &'b [u8]);

/// The plain files of one part: path for people, name, content.
fn entries<'b>(
    index: &'b Index,
    part: NodeId,
    bytes: &'b [u8],
    name: &'static [u8],
) -> Box<dyn Iterator<Item = Result<Entry<'b>, ImportError>> + 'b> {
    let part_name = name.escape_ascii();
    let Node::Directory(children) = index.node_of(part) else {
        return Box::new(std::iter::once(Err(ImportError::Foreign { path: part_name.to_string() })));
    };
    Box::new(index.children(children).iter().map(move |child| {
        let name = index.name(*child, bytes);
        let path = format!("{part_name}/{}", name.escape_ascii());
        match (index.node_of(*child), std::str::from_utf8(name), index.content(*child, bytes)) {
            (Node::File { executable: false, .. }, Ok(name), Some(content)) => Ok((path, name, content)),
            _ => Err(ImportError::Foreign { path }),
        }
    }))
}

fn read_action((path, name, content): Entry<'_>) -> Result<(ActionId, Action), ImportError> {
    let named = ActionId::from_hex(name).ok_or(ImportError::Foreign { path })?;
    let action = Action::from_bytes(content);
    let action = action.map_err(|source| ImportError::Action { action: named, source })?;
    match action.id() {
        found if found == named => Ok((named, action)),
        found => Err(ImportError::ActionHash { named, found }),
    }
}

/// Hashes what is read through it.
struct Hashing {
    content: Content,
    hasher: blake3::Hasher,
}

impl Read for Hashing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.content.read(buffer)?;
        self.hasher.update(&buffer[..n]);
        Ok(n)
    }
}

impl From<WriteError> for ExportError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Rule(fault) => Self::Rule(fault),
            WriteError::Io(e) => Self::Sink(e),
            WriteError::Length { announced, found } => Self::Sink(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{announced} bytes became {found} while they were read"),
            )),
        }
    }
}
