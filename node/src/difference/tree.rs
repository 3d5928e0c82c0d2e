//! Trees: the entries of two archives, side by side.

use std::cmp::Ordering;

use protocol::{
    nar::{Children, Index, Node, NodeId, ReadError},
    plain,
};
use serde::Serialize;

use super::{Budget, Content, Difference, Side, Sides, bytes, content, limits};

/// An entry that is not the same in both archives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Its path from the root, plain (`protocol::plain`); `.` for the root.
    pub path: String,
    /// What is not the same: one thing, or of a file both the bit and the content.
    pub changes: Vec<Change>,
}

/// What is not the same in an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Change {
    /// Only one archive has it.
    Only {
        /// Which.
        side: Side,
        /// What it is.
        kind: Kind,
        /// Bytes of a file or of a symlink's target; entries below a directory.
        size: u64,
    },
    /// A file on one side, say, and a directory on the other.
    Kind(Sides<Kind>),
    /// Another target of a symlink, plain.
    Target(Sides<String>),
    /// Executable on one side only.
    Executable(Sides<bool>),
    /// Other bytes of a file.
    Content(Content),
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// A file.
    File,
    /// A symlink.
    Symlink,
    /// A directory.
    Directory,
}

impl Kind {
    fn of(node: Node) -> Self {
        match node {
            Node::File { .. } => Self::File,
            Node::Symlink { .. } => Self::Symlink,
            Node::Directory(_) => Self::Directory,
        }
    }
}

/// An archive and where everything is in it.
pub(super) struct Archive<'a> {
    bytes: &'a [u8],
    index: Index,
}

impl<'a> Archive<'a> {
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, ReadError> {
        Ok(Self { bytes, index: Index::read(bytes)? })
    }

    fn node(&self, id: NodeId) -> Node {
        self.index.node_of(id)
    }

    fn name(&self, id: NodeId) -> &'a [u8] {
        self.index.name(id, self.bytes)
    }

    /// The content of a file or the target of a symlink.
    fn content(&self, id: NodeId) -> &'a [u8] {
        self.index.content(id, self.bytes).unwrap_or_default()
    }

    /// Entries below a directory, whatever their depth.
    fn below(&self, children: Children) -> u64 {
        let (mut count, mut left) = (0, vec![children]);
        while let Some(children) = left.pop() {
            count += children.len() as u64;
            left.extend(self.index.children(children).iter().filter_map(|id| match self.node(*id) {
                Node::Directory(children) => Some(children),
                Node::File { .. } | Node::Symlink { .. } => None,
            }));
        }
        count
    }

    fn size(&self, id: NodeId) -> u64 {
        match self.node(id) {
            Node::File { .. } | Node::Symlink { .. } => self.content(id).len() as u64,
            Node::Directory(children) => self.below(children),
        }
    }
}

/// Compares two archives.
pub(super) fn compare(left: &Archive<'_>, right: &Archive<'_>, budget: &mut Budget) -> Difference {
    let lengths = bytes::lengths(left.bytes, right.bytes);
    let found = Difference { lengths, entries: Vec::new(), omitted: 0 };
    let mut walk = Walk { left, right, path: Vec::new(), budget, found };
    if left.bytes != right.bytes {
        walk.both(NodeId::ROOT, NodeId::ROOT);
    }
    walk.found
}

struct Walk<'w, 'a> {
    left: &'w Archive<'a>,
    right: &'w Archive<'a>,
    path: Vec<u8>,
    budget: &'w mut Budget,
    found: Difference,
}

impl Walk<'_, '_> {
    /// Compares two nodes of one path. Recursion ends at `protocol::limits::NAR_DEPTH`.
    fn both(&mut self, left: NodeId, right: NodeId) {
        match (self.left.node(left), self.right.node(right)) {
            (Node::Directory(left), Node::Directory(right)) => self.directories(left, right),
            (Node::Symlink { .. }, Node::Symlink { .. }) => {
                let targets = Sides { left: self.left.content(left), right: self.right.content(right) };
                if targets.left != targets.right {
                    let shown = targets.map(|target| plain::name(target, limits::PATH_BYTES));
                    self.report(|_| vec![Change::Target(shown)]);
                }
            }
            (Node::File { executable: x, .. }, Node::File { executable: y, .. }) => {
                let executable = Sides::differing(x, y);
                let (left, right) = (self.left.content(left), self.right.content(right));
                if executable.is_some() || left != right {
                    self.report(|budget| {
                        let content = content::compare(left, right, budget).map(Change::Content);
                        executable.map(Change::Executable).into_iter().chain(content).collect()
                    });
                }
            }
            (left, right) => {
                let kinds = Sides { left, right }.map(Kind::of);
                self.report(|_| vec![Change::Kind(kinds)]);
            }
        }
    }

    /// Compares two directories, whose entries are sorted.
    fn directories(&mut self, left: Children, right: Children) {
        let (a, b) = (self.left, self.right);
        let (mut left, mut right) = (a.index.children(left), b.index.children(right));
        loop {
            let order = match (left.first(), right.first()) {
                (None, None) => return,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(l), Some(r)) => a.name(*l).cmp(b.name(*r)),
            };
            match order {
                Ordering::Less => self.only(Side::Left, step(&mut left)),
                Ordering::Greater => self.only(Side::Right, step(&mut right)),
                Ordering::Equal => {
                    let (l, r) = (step(&mut left), step(&mut right));
                    self.below(a.name(l), |walk| walk.both(l, r));
                }
            }
        }
    }

    fn only(&mut self, side: Side, id: NodeId) {
        let archive = match side {
            Side::Left => self.left,
            Side::Right => self.right,
        };
        self.below(archive.name(id), |walk| {
            walk.report(|_| {
                vec![Change::Only { side, kind: Kind::of(archive.node(id)), size: archive.size(id) }]
            });
        });
    }

    /// Does something with the path of an entry.
    fn below(&mut self, name: &[u8], deed: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        if length > 0 {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name);
        deed(self);
        self.path.truncate(length);
    }

    /// Reports an entry, or counts it.
    fn report(&mut self, changes: impl FnOnce(&mut Budget) -> Vec<Change>) {
        if !self.budget.entry() {
            self.found.omitted += 1;
            return;
        }
        let path = match self.path.as_slice() {
            b"" => ".".into(),
            path => plain::name(path, limits::PATH_BYTES),
        };
        let changes = changes(self.budget);
        self.found.entries.push(Entry { path, changes });
    }
}

/// Takes the first of what is left, of which there is one.
fn step(left: &mut &[NodeId]) -> NodeId {
    let first = left[0];
    *left = &left[1..];
    first
}
