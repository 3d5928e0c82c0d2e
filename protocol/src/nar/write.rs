//! Writing: directories, files and symlinks, in order, to an archive.

use std::io::{self, Read as _};

use super::{
    read::{Fault, name_fault, target_fault},
    wire::{MAGIC, padding, put},
};
use crate::limits;

/// Content is copied in pieces of this size: large enough for BLAKE3 to use wide vectors.
const COPY_BYTES: usize = 256 << 10;

/// Why an archive could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// What was to be written breaks a rule of SPEC §8; nothing of it was written.
    #[error("cannot be archived: {0}")]
    Rule(Fault),
    /// A file was shorter or longer than it was said to be.
    #[error("a file was announced with {announced} bytes and has {found}")]
    Length {
        /// Bytes announced.
        announced: u64,
        /// Bytes it had, counted up to one more than announced.
        found: u64,
    },
    /// The sink failed.
    #[error("cannot write the archive")]
    Io(#[from] io::Error),
}

/// Writes one archive to `W`.
///
/// The calls are the archive in prefix order: [`Writer::file`], [`Writer::symlink`], or
/// [`Writer::directory`], then for each entry [`Writer::entry`] and the entry's own calls, then
/// [`Writer::end`]; last [`Writer::finish`]. Entries come in ascending order of their names.
///
/// # Panics
///
/// When the calls are not in that order: that is a bug of the caller and no input can cause it.
pub struct Writer<W> {
    to: W,
    token: Vec<u8>,
    buffer: Vec<u8>,
    /// The name before, for each open directory.
    open: Vec<Option<Vec<u8>>>,
    /// Whether a node is due: at the start, and behind an entry's name.
    due: bool,
    nodes: usize,
}

impl<W: io::Write> Writer<W> {
    /// Begins an archive.
    pub fn new(to: W) -> Self {
        let mut token = Vec::new();
        put(&mut token, MAGIC);
        Self { to, token, buffer: Vec::new(), open: Vec::new(), due: true, nodes: 0 }
    }

    fn begin_node(&mut self, kind: &[u8]) -> Result<(), WriteError> {
        assert!(std::mem::take(&mut self.due), "no node is due here");
        if self.open.len() > limits::NAR_DEPTH {
            return Err(WriteError::Rule(Fault::TooDeep));
        }
        self.nodes += 1;
        if self.nodes > limits::NAR_NODES {
            return Err(WriteError::Rule(Fault::TooManyNodes));
        }
        for token in [b"(".as_slice(), b"type", kind] {
            put(&mut self.token, token);
        }
        Ok(())
    }

    fn end_node(&mut self) -> Result<(), WriteError> {
        put(&mut self.token, b")");
        if !self.open.is_empty() {
            put(&mut self.token, b")");
        }
        self.flush_token()
    }

    fn flush_token(&mut self) -> Result<(), WriteError> {
        self.to.write_all(&self.token)?;
        self.token.clear();
        Ok(())
    }

    /// A file of `len` bytes, which are all that `content` has.
    pub fn file(&mut self, executable: bool, len: u64, content: impl io::Read) -> Result<(), WriteError> {
        self.begin_node(b"regular")?;
        if executable {
            put(&mut self.token, b"executable");
            put(&mut self.token, b"");
        }
        put(&mut self.token, b"contents");
        self.token.extend_from_slice(&len.to_le_bytes());
        self.flush_token()?;
        let found = self.copy(len, content)?;
        if found != len {
            return Err(WriteError::Length { announced: len, found });
        }
        self.token.resize(padding(len) as usize, 0);
        self.end_node()
    }

    /// Copies at most `len` bytes, and counts one more if there is one: the file grew.
    fn copy(&mut self, len: u64, content: impl io::Read) -> Result<u64, WriteError> {
        let mut content = content.take(len.saturating_add(1));
        self.buffer.resize(COPY_BYTES, 0);
        let mut found = 0;
        loop {
            let n = match content.read(&mut self.buffer) {
                Ok(0) => return Ok(found),
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e.into()),
            };
            let pass = (len - found).min(n as u64) as usize;
            self.to.write_all(&self.buffer[..pass])?;
            found += n as u64;
        }
    }

    /// A symlink.
    pub fn symlink(&mut self, target: &[u8]) -> Result<(), WriteError> {
        if let Some(fault) = target_fault(target) {
            return Err(WriteError::Rule(fault));
        }
        self.begin_node(b"symlink")?;
        put(&mut self.token, b"target");
        put(&mut self.token, target);
        self.end_node()
    }

    /// A directory, open until [`Writer::end`].
    pub fn directory(&mut self) -> Result<(), WriteError> {
        self.begin_node(b"directory")?;
        self.open.push(None);
        Ok(())
    }

    /// The name of the next entry of the open directory; its node follows.
    pub fn entry(&mut self, name: &[u8]) -> Result<(), WriteError> {
        assert!(!self.due, "a node is due here");
        let Some(last) = self.open.last_mut() else { panic!("no directory is open") };
        if let Some(fault) = name_fault(name, last.as_deref()) {
            return Err(WriteError::Rule(fault));
        }
        *last = Some(name.to_vec());
        for token in [b"entry".as_slice(), b"(", b"name", name, b"node"] {
            put(&mut self.token, token);
        }
        self.due = true;
        Ok(())
    }

    /// Closes the open directory.
    pub fn end(&mut self) -> Result<(), WriteError> {
        assert!(!self.due, "a node is due here");
        assert!(self.open.pop().is_some(), "no directory is open");
        self.end_node()
    }

    /// Ends the archive and gives back the sink.
    pub fn finish(mut self) -> Result<W, WriteError> {
        assert!(self.open.is_empty() && !self.due, "the archive is not complete");
        self.to.flush()?;
        Ok(self.to)
    }
}

/// Writes an archive of a single file.
pub fn dump_file<W: io::Write>(
    to: W,
    executable: bool,
    len: u64,
    content: impl io::Read,
) -> Result<W, WriteError> {
    let mut writer = Writer::new(to);
    writer.file(executable, len, content)?;
    writer.finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Index, Node, NodeId};
    use super::*;

    #[derive(Debug, Clone)]
    enum Tree {
        File(bool, Vec<u8>),
        Symlink(Vec<u8>),
        Directory(std::collections::BTreeMap<Vec<u8>, Tree>),
    }

    fn tree() -> impl Strategy<Value = Tree> {
        let leaf = prop_oneof![
            (any::<bool>(), prop::collection::vec(any::<u8>(), 0..40)).prop_map(|(x, c)| Tree::File(x, c)),
            prop::collection::vec(1..=255u8, 1..20).prop_map(Tree::Symlink),
        ];
        let name = prop::collection::vec(any::<u8>(), 1..12)
            .prop_filter("a legal name", |n| name_fault(n, None).is_none());
        leaf.prop_recursive(6, 64, 6, move |inner| {
            prop::collection::btree_map(name.clone(), inner, 0..6).prop_map(Tree::Directory)
        })
    }

    fn write(tree: &Tree, to: &mut Writer<Vec<u8>>) {
        match tree {
            Tree::File(x, content) => to.file(*x, content.len() as u64, &content[..]).unwrap(),
            Tree::Symlink(target) => to.symlink(target).unwrap(),
            Tree::Directory(entries) => {
                to.directory().unwrap();
                for (name, entry) in entries {
                    to.entry(name).unwrap();
                    write(entry, to);
                }
                to.end().unwrap();
            }
        }
    }

    fn rewrite(index: &Index, id: NodeId, bytes: &[u8], to: &mut Writer<Vec<u8>>) {
        match index.node_of(id) {
            Node::File { executable, len, .. } => {
                to.file(executable, len, index.content(id, bytes).unwrap()).unwrap();
            }
            Node::Symlink { .. } => to.symlink(index.content(id, bytes).unwrap()).unwrap(),
            Node::Directory(children) => {
                to.directory().unwrap();
                for child in index.children(children) {
                    to.entry(index.name(*child, bytes)).unwrap();
                    rewrite(index, *child, bytes, to);
                }
                to.end().unwrap();
            }
        }
    }

    fn again(index: &Index, bytes: &[u8]) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new());
        rewrite(index, NodeId::ROOT, bytes, &mut writer);
        writer.finish().unwrap()
    }

    proptest! {
        /// SPEC §8: reading and writing are inverse.
        #[test]
        fn read_inverts_write(tree in tree()) {
            let mut writer = Writer::new(Vec::new());
            write(&tree, &mut writer);
            let bytes = writer.finish().unwrap();
            let index = Index::read(&bytes).unwrap();
            prop_assert_eq!(again(&index, &bytes), bytes);
        }

        /// SPEC §8: whatever is accepted is what a writer would have written; nothing panics.
        #[test]
        fn accepted_means_canonical(tree in tree(), flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
            let mut writer = Writer::new(Vec::new());
            write(&tree, &mut writer);
            let mut bytes = writer.finish().unwrap();
            for (at, value) in flips {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            if let Ok(index) = Index::read(&bytes) {
                prop_assert_eq!(again(&index, &bytes), bytes);
            }
        }
    }

    #[test]
    fn every_truncation_is_refused() {
        let mut writer = Writer::new(Vec::new());
        writer.directory().unwrap();
        writer.entry(b"a").unwrap();
        writer.file(true, 5, &b"hello"[..]).unwrap();
        writer.entry(b"b").unwrap();
        writer.symlink(b"a").unwrap();
        writer.end().unwrap();
        let bytes = writer.finish().unwrap();
        assert!(Index::read(&bytes).is_ok());
        for cut in 0..bytes.len() {
            assert!(Index::read(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn file_length_is_kept() {
        let write = |len| dump_file(Vec::new(), false, len, &b"hello"[..]);
        assert!(write(5).is_ok());
        assert!(matches!(write(4), Err(WriteError::Length { announced: 4, found: 5 })));
        assert!(matches!(write(6), Err(WriteError::Length { announced: 6, found: 5 })));
    }

    #[test]
    fn depth_at_the_limit() {
        let nest = |depth: usize| {
            let mut writer = Writer::new(Vec::new());
            for _ in 0..depth {
                writer.directory().unwrap();
                writer.entry(b"d").unwrap();
            }
            writer.file(false, 0, &b""[..]).map(|()| {
                for _ in 0..depth {
                    writer.end().unwrap();
                }
                writer.finish().unwrap()
            })
        };
        assert!(Index::read(&nest(64).unwrap()).is_ok());
        assert!(matches!(nest(65), Err(WriteError::Rule(Fault::TooDeep))));
    }
}
