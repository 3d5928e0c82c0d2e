//! Reading: an archive's bytes to an index of where each file lies.
//!
//! Iterative, so that no depth of nesting reaches the stack, and without touching the content of
//! files, so that a mapped archive of any size is indexed in time proportional to its entries.

use super::wire::{MAGIC, padding};
use crate::limits;

/// Why bytes are not an archive, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("byte {at}: {fault}")]
pub struct ReadError {
    /// Offset of the token that breaks the rule, from the start of the archive.
    pub at: u64,
    /// The rule.
    pub fault: Fault,
}

/// The rules of SPEC §8 that bytes can break, one variant each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The archive stops inside a token.
    #[error("archive ends early")]
    EndsEarly,
    /// A length reaches beyond the end of the archive.
    #[error("a length of {length} bytes, but only {rest} are left")]
    Length {
        /// The length as it stands.
        length: u64,
        /// Bytes behind it.
        rest: u64,
    },
    /// Another token than the grammar wants here.
    #[error("expected {expected}, found {found}")]
    Token {
        /// What the grammar wants.
        expected: &'static str,
        /// The beginning of what stands there, escaped.
        found: String,
    },
    /// Padding that is not zero.
    #[error("padding is not zero")]
    Padding,
    /// The marker of an executable is not empty.
    #[error("the `executable` marker must be empty")]
    ExecutableMarker,
    /// A name without bytes.
    #[error("empty name")]
    NameEmpty,
    /// `.` or `..`.
    #[error("the name `{0}`")]
    NameDots(&'static str),
    /// A `/` in a name.
    #[error("a slash in a name")]
    NameSlash,
    /// A NUL in a name.
    #[error("a NUL in a name")]
    NameNul,
    /// A name beyond [`limits::NAR_NAME_BYTES`].
    #[error("a name of {0} bytes; at most {max} are allowed", max = limits::NAR_NAME_BYTES)]
    NameLong(u64),
    /// A name that is the one before.
    #[error("the name `{0}` twice in a directory")]
    Duplicate(String),
    /// A name that sorts before the one before it.
    #[error("the name `{name}` after `{after}`, which sorts behind it")]
    OutOfOrder {
        /// The name.
        name: String,
        /// The one before.
        after: String,
    },
    /// A symlink to nothing.
    #[error("empty symlink target")]
    TargetEmpty,
    /// A target beyond [`limits::NAR_TARGET_BYTES`].
    #[error("a symlink target of {0} bytes; at most {max} are allowed", max = limits::NAR_TARGET_BYTES)]
    TargetLong(u64),
    /// A NUL in a target.
    #[error("a NUL in a symlink target")]
    TargetNul,
    /// A node below [`limits::NAR_DEPTH`].
    #[error("nested deeper than {max}", max = limits::NAR_DEPTH)]
    TooDeep,
    /// More nodes than [`limits::NAR_NODES`].
    #[error("more than {max} nodes", max = limits::NAR_NODES)]
    TooManyNodes,
    /// Bytes behind the archive.
    #[error("{0} bytes behind the end of the archive")]
    Trailing(u64),
}

/// A node of an [`Index`], by its place in the archive; the root is [`NodeId::ROOT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u32);

impl NodeId {
    /// The node that the archive is of.
    pub const ROOT: Self = Self(0);

    /// Its place: 0 for the root, then in the order of the archive.
    pub fn place(self) -> u32 {
        self.0
    }
}

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Node {
    /// A file, whose content is `len` bytes of the archive from `at` on.
    File {
        /// Whether it is executable.
        executable: bool,
        /// Offset of its content in the archive.
        at: u64,
        /// Bytes of its content.
        len: u64,
    },
    /// A symlink, whose target is `len` bytes of the archive from `at` on.
    Symlink {
        /// Offset of its target in the archive.
        at: u64,
        /// Bytes of its target.
        len: u16,
    },
    /// A directory; [`Index::children`] lists it.
    Directory(Children),
}

/// The entries of a directory, a range of the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Children {
    from: u32,
    to: u32,
}

impl Children {
    /// How many there are.
    pub fn len(self) -> usize {
        (self.to - self.from) as usize
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.from == self.to
    }
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    name_at: u64,
    name_len: u8,
    node: Node,
}

/// Where each file of an archive lies.
///
/// It borrows nothing: methods that speak of names and contents take the archive's bytes again,
/// which must be the bytes it was made from.
#[derive(Debug, Clone)]
pub struct Index {
    entries: Vec<Entry>,
    /// The children of all directories, each directory's in a row and sorted by name.
    children: Vec<NodeId>,
}

/// A directory that is being read.
struct Open {
    node: usize,
    children: Vec<NodeId>,
    /// The name before, as a range of the archive.
    last: Option<(usize, usize)>,
}

impl Index {
    /// Reads one archive, which is the whole of `bytes`.
    ///
    /// # Errors
    ///
    /// [`ReadError`]: the first rule of SPEC §8 that is broken, and the offset of the token that
    /// breaks it. Hostile input is expected: nothing panics, and memory stays under 64 bytes for
    /// each node that `bytes` has room for, at most [`limits::NAR_NODES`].
    ///
    /// ```
    /// let magic = b"\x0d\0\0\0\0\0\0\0nix-archive-1\0\0\0";
    /// let err = protocol::nar::Index::read(magic).unwrap_err();
    /// assert_eq!(err.to_string(), "byte 24: archive ends early");
    /// ```
    pub fn read(bytes: &[u8]) -> Result<Self, ReadError> {
        let mut read = Cursor { bytes, at: 0 };
        let mut index = Self { entries: Vec::new(), children: Vec::new() };
        let mut open: Vec<Open> = Vec::new();
        read.expect(MAGIC, "`nix-archive-1`")?;
        index.node(&mut read, (0, 0), &mut open)?;
        while let Some(directory) = open.last_mut() {
            let at = read.at;
            match read.token()? {
                b")" => {
                    let from = index.children.len() as u32;
                    index.children.append(&mut directory.children);
                    let to = index.children.len() as u32;
                    index.entries[directory.node].node = Node::Directory(Children { from, to });
                    open.pop();
                    if !open.is_empty() {
                        read.expect(b")", "`)` after an entry")?;
                    }
                }
                b"entry" => {
                    read.expect(b"(", "`(` of an entry")?;
                    read.expect(b"name", "`name`")?;
                    let name = read.name(directory.last)?;
                    directory.last = Some(name);
                    directory.children.push(NodeId(index.entries.len() as u32));
                    read.expect(b"node", "`node`")?;
                    if !index.node(&mut read, name, &mut open)? {
                        read.expect(b")", "`)` after an entry")?;
                    }
                }
                other => return Err(unexpected(at, "`entry` or `)`", other)),
            }
        }
        match read.rest() {
            0 => Ok(index),
            rest => Err(ReadError { at: read.at as u64, fault: Fault::Trailing(rest) }),
        }
    }

    /// Reads a node up to its end, or up to the first entry of a directory, which then is open and
    /// `true` is returned.
    fn node(
        &mut self,
        read: &mut Cursor<'_>,
        name: (usize, usize),
        open: &mut Vec<Open>,
    ) -> Result<bool, ReadError> {
        let start = read.at;
        let fail = |fault| Err(ReadError { at: start as u64, fault });
        if open.len() > limits::NAR_DEPTH {
            return fail(Fault::TooDeep);
        }
        if self.entries.len() >= limits::NAR_NODES {
            return fail(Fault::TooManyNodes);
        }
        read.expect(b"(", "`(`")?;
        read.expect(b"type", "`type`")?;
        let at = read.at;
        let node = match read.token()? {
            b"regular" => read.file()?,
            b"symlink" => read.symlink()?,
            b"directory" => Node::Directory(Children { from: 0, to: 0 }),
            other => return Err(unexpected(at, "`regular`, `symlink` or `directory`", other)),
        };
        let place = self.entries.len();
        self.entries.push(Entry { name_at: name.0 as u64, name_len: (name.1 - name.0) as u8, node });
        if let Node::Directory(_) = node {
            open.push(Open { node: place, children: Vec::new(), last: None });
            return Ok(true);
        }
        read.expect(b")", "`)`")?;
        Ok(false)
    }

    /// How many nodes there are, the root included.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Never: an archive has a root.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What a node is.
    pub fn node_of(&self, id: NodeId) -> Node {
        self.entries[id.0 as usize].node
    }

    /// A node's name in its directory; empty for the root.
    pub fn name<'b>(&self, id: NodeId, bytes: &'b [u8]) -> &'b [u8] {
        let entry = &self.entries[id.0 as usize];
        &bytes[entry.name_at as usize..][..entry.name_len as usize]
    }

    /// The entries of a directory, sorted by name.
    pub fn children(&self, of: Children) -> &[NodeId] {
        &self.children[of.from as usize..of.to as usize]
    }

    /// The entry of that name in a directory.
    pub fn child(&self, of: Children, name: &[u8], bytes: &[u8]) -> Option<NodeId> {
        let children = self.children(of);
        let found = children.binary_search_by(|c| self.name(*c, bytes).cmp(name)).ok()?;
        Some(children[found])
    }

    /// The node at a relative path, symlinks not followed; the root for an empty path.
    pub fn lookup(&self, path: &[u8], bytes: &[u8]) -> Option<NodeId> {
        let mut id = NodeId::ROOT;
        for name in path.split(|b| *b == b'/').filter(|c| !c.is_empty()) {
            let Node::Directory(children) = self.node_of(id) else {
                return None;
            };
            id = self.child(children, name, bytes)?;
        }
        Some(id)
    }

    /// Every node with its path from the root (empty for the root itself), in archive order.
    pub fn walk(&self, bytes: &[u8]) -> Vec<(Vec<u8>, NodeId)> {
        let mut found = Vec::with_capacity(self.len());
        let mut left = vec![(Vec::new(), NodeId::ROOT)];
        while let Some((path, id)) = left.pop() {
            if let Node::Directory(children) = self.node_of(id) {
                for child in self.children(children).iter().rev() {
                    let name = self.name(*child, bytes);
                    let path = if path.is_empty() { name.to_vec() } else { [&path, name].join(&b'/') };
                    left.push((path, *child));
                }
            }
            found.push((path, id));
        }
        found
    }

    /// The content of a file or the target of a symlink; `None` for a directory.
    pub fn content<'b>(&self, id: NodeId, bytes: &'b [u8]) -> Option<&'b [u8]> {
        let (at, len) = match self.node_of(id) {
            Node::File { at, len, .. } => (at, len),
            Node::Symlink { at, len } => (at, u64::from(len)),
            Node::Directory(_) => return None,
        };
        Some(&bytes[at as usize..][..len as usize])
    }
}

struct Cursor<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl<'b> Cursor<'b> {
    fn rest(&self) -> u64 {
        (self.bytes.len() - self.at) as u64
    }

    fn fail<T>(&self, fault: Fault) -> Result<T, ReadError> {
        Err(ReadError { at: self.at as u64, fault })
    }

    /// Reads a token, whatever its length: a slice of the archive.
    fn token(&mut self) -> Result<&'b [u8], ReadError> {
        let (from, to) = self.span()?;
        Ok(&self.bytes[from..to])
    }

    /// Reads a token: the range of its bytes.
    fn span(&mut self) -> Result<(usize, usize), ReadError> {
        let Some(length) = self.bytes[self.at..].first_chunk::<8>() else {
            return self.fail(Fault::EndsEarly);
        };
        let length = u64::from_le_bytes(*length);
        let rest = self.rest() - 8;
        if length > rest {
            return self.fail(Fault::Length { length, rest });
        }
        let from = self.at + 8;
        let to = from + length as usize;
        let end = to + padding(length) as usize;
        let Some(zeros) = self.bytes.get(to..end) else {
            return self.fail(Fault::EndsEarly);
        };
        if zeros.iter().any(|b| *b != 0) {
            return Err(ReadError { at: to as u64, fault: Fault::Padding });
        }
        self.at = end;
        Ok((from, to))
    }

    fn expect(&mut self, token: &[u8], expected: &'static str) -> Result<(), ReadError> {
        let at = self.at;
        match self.token()? {
            found if found == token => Ok(()),
            found => Err(unexpected(at, expected, found)),
        }
    }

    /// Reads the name of an entry, which must sort behind `last`.
    fn name(&mut self, last: Option<(usize, usize)>) -> Result<(usize, usize), ReadError> {
        let start = self.at as u64;
        let (from, to) = self.span()?;
        let name = &self.bytes[from..to];
        let last = last.map(|(from, to)| &self.bytes[from..to]);
        match name_fault(name, last) {
            None => Ok((from, to)),
            Some(fault) => Err(ReadError { at: start, fault }),
        }
    }

    /// Reads a file behind its `regular`.
    fn file(&mut self) -> Result<Node, ReadError> {
        let mut at = self.at;
        let mut token = self.token()?;
        let executable = token == b"executable";
        if executable {
            let marker = self.at;
            if !self.token()?.is_empty() {
                return Err(ReadError { at: marker as u64, fault: Fault::ExecutableMarker });
            }
            at = self.at;
            token = self.token()?;
        }
        if token != b"contents" {
            let wanted = if executable { "`contents`" } else { "`executable` or `contents`" };
            return Err(unexpected(at, wanted, token));
        }
        let (from, to) = self.span()?;
        Ok(Node::File { executable, at: from as u64, len: (to - from) as u64 })
    }

    /// Reads a symlink behind its `symlink`.
    fn symlink(&mut self) -> Result<Node, ReadError> {
        self.expect(b"target", "`target`")?;
        let start = self.at as u64;
        let (from, to) = self.span()?;
        match target_fault(&self.bytes[from..to]) {
            None => Ok(Node::Symlink { at: from as u64, len: (to - from) as u16 }),
            Some(fault) => Err(ReadError { at: start, fault }),
        }
    }
}

/// Which rule a name breaks, where `last` is the name before it.
pub(super) fn name_fault(name: &[u8], last: Option<&[u8]>) -> Option<Fault> {
    let shown = |name: &[u8]| name.escape_ascii().to_string();
    match name {
        b"" => return Some(Fault::NameEmpty),
        b"." => return Some(Fault::NameDots(".")),
        b".." => return Some(Fault::NameDots("..")),
        _ => {}
    }
    if name.len() > limits::NAR_NAME_BYTES {
        return Some(Fault::NameLong(name.len() as u64));
    }
    if name.contains(&b'/') {
        return Some(Fault::NameSlash);
    }
    if name.contains(&0) {
        return Some(Fault::NameNul);
    }
    match last {
        Some(last) if last == name => Some(Fault::Duplicate(shown(name))),
        Some(last) if last > name => Some(Fault::OutOfOrder { name: shown(name), after: shown(last) }),
        _ => None,
    }
}

/// Which rule a symlink's target breaks.
pub(super) fn target_fault(target: &[u8]) -> Option<Fault> {
    if target.is_empty() {
        return Some(Fault::TargetEmpty);
    }
    if target.len() > limits::NAR_TARGET_BYTES {
        return Some(Fault::TargetLong(target.len() as u64));
    }
    target.contains(&0).then_some(Fault::TargetNul)
}

fn unexpected(at: usize, expected: &'static str, found: &[u8]) -> ReadError {
    let shown = match found {
        b"" => "an empty token".into(),
        short if short.len() <= 32 => format!("`{}`", short.escape_ascii()),
        long => format!("`{}…`", long[..32].escape_ascii()),
    };
    ReadError { at: at as u64, fault: Fault::Token { expected, found: shown } }
}
