//! The file system of a build (SPEC §7.2): archives mounted read-only, in place, and what the
//! build itself writes.
//!
//! ```text
//! /              fixed
//! /in/<name>     Packed: nodes of a mapped archive, never copied
//! /out /out-… /build /tmp    Made: nodes in memory, contents spill to disk
//! ```
//!
//! Everything a guest can observe here is a function of the action: entries are in byte order,
//! inode numbers follow the order of mounts and of creation, times come from the virtual clock.
//! Operations are those of POSIX on directory handles; paths are bytes and never leave their base.
//!
//! Absent on purpose: permissions, owners, devices, access times that move.

use std::{collections::BTreeMap, ops::Bound, path::Path};

use protocol::{limits, nar};
use store::Archive;

use super::{
    content::{Content, Reader, Spill},
    errno::{Abort, Errno, Stop},
};

/// Symlinks followed in one path before it counts as a loop (as Linux).
const SYMLINKS: usize = 40;

/// Bytes that a node counts for besides its content, so that a million empty files are not free.
const NODE_BYTES: u64 = 256;

type Result<T, E = Stop> = std::result::Result<T, E>;

/// A node: one that the build made, or one of a mounted archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Id {
    /// A place in the table of nodes.
    Made(u32),
    /// A node of an archive, by the mount's place.
    Packed(u32, nar::NodeId),
}

/// The root directory.
pub(crate) const ROOT: Id = Id::Made(0);

/// What a node is; the numbers are WASI's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum FileType {
    Unknown = 0,
    Directory = 3,
    Regular = 4,
    Symlink = 7,
}

/// What `stat` says of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) inode: u64,
    pub(crate) file_type: FileType,
    pub(crate) links: u64,
    pub(crate) size: u64,
    pub(crate) times: Times,
}

/// Times in nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Times {
    pub(crate) accessed: u64,
    pub(crate) modified: u64,
    pub(crate) changed: u64,
}

impl Times {
    pub(crate) const fn all(time: u64) -> Self {
        Self { accessed: time, modified: time, changed: time }
    }
}

/// Where a path led.
#[derive(Debug)]
pub(crate) struct Place {
    /// The directory that has, or could have, the last component; the base itself for `.`.
    parent: Id,
    /// The last component; empty when the path ends in `.`, `..` or at the base.
    name: Box<[u8]>,
    /// What is there.
    pub(crate) node: Option<Id>,
    /// Whether the path ended in `/`.
    pub(crate) slash: bool,
}

struct Made {
    inode: u64,
    links: u32,
    /// Descriptors that hold it.
    held: u32,
    times: Times,
    body: Body,
}

enum Body {
    Directory { entries: BTreeMap<Box<[u8]>, Id>, parent: Id, fixed: bool },
    File(Content),
    Symlink(Box<[u8]>),
}

struct Mount {
    archive: Archive,
    /// The inode number of its root.
    inode: u64,
}

/// How much a build may write.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Quota {
    /// Bytes of content and of nodes.
    pub(crate) bytes: u64,
    /// Nodes.
    pub(crate) files: u64,
}

/// The file system of one build.
pub(crate) struct Vfs {
    mounts: Vec<Mount>,
    made: Vec<Option<Made>>,
    free: Vec<u32>,
    next_inode: u64,
    epoch: u64,
    spill: Spill,
    quota: Quota,
    used_bytes: u64,
    used_files: u64,
    peak_bytes: u64,
}

impl Vfs {
    /// A root with nothing in it. `epoch` is the time of all that is there before the first step;
    /// large files spill to `scratch`.
    pub(crate) fn new(epoch: u64, quota: Quota, scratch: &Path) -> Self {
        let mut vfs = Self {
            mounts: Vec::new(),
            made: Vec::new(),
            free: Vec::new(),
            next_inode: 1,
            epoch,
            spill: Spill::new(scratch),
            quota,
            used_bytes: 0,
            used_files: 0,
            peak_bytes: 0,
        };
        let entries = BTreeMap::new();
        vfs.insert(Body::Directory { entries, parent: ROOT, fixed: true }, epoch);
        vfs
    }

    fn insert(&mut self, body: Body, now: u64) -> Id {
        let inode = self.next_inode;
        self.next_inode += 1;
        let made = Made { inode, links: 1, held: 0, times: Times::all(now), body };
        match self.free.pop() {
            Some(place) => {
                self.made[place as usize] = Some(made);
                Id::Made(place)
            }
            None => {
                self.made.push(Some(made));
                Id::Made(self.made.len() as u32 - 1)
            }
        }
    }

    /// Makes a directory below the root, for mounts or to be written to. For the host, before any guest.
    pub(crate) fn fixture(&mut self, name: &str, fixed: bool) -> Id {
        let (parent, epoch) = (ROOT, self.epoch);
        let id = self.insert(Body::Directory { entries: BTreeMap::new(), parent, fixed }, epoch);
        self.attach(ROOT, name.as_bytes(), id);
        id
    }

    /// Mounts an archive as an entry of a fixture.
    pub(crate) fn mount(&mut self, at: Id, name: &str, archive: Archive) {
        let inode = self.next_inode;
        self.next_inode += archive.index().len() as u64;
        self.mounts.push(Mount { archive, inode });
        self.attach(at, name.as_bytes(), Id::Packed(self.mounts.len() as u32 - 1, nar::NodeId::ROOT));
    }

    /// An anonymous file with that content, held once: what a step reads as its stdin.
    pub(crate) fn anonymous(&mut self, content: Vec<u8>) -> Result<Id> {
        let mut body = Content::empty();
        body.write(0, &content, &mut self.spill)?;
        let id = self.insert(Body::File(body), self.epoch);
        let made = self.made_mut(id);
        (made.links, made.held) = (0, 1);
        self.charge(content.len() as u64 + NODE_BYTES, 1)?;
        Ok(id)
    }

    fn attach(&mut self, directory: Id, name: &[u8], id: Id) {
        match &mut self.made_mut(directory).body {
            Body::Directory { entries, .. } => entries.insert(name.into(), id),
            _ => unreachable!("callers have checked that it is a directory"),
        };
    }

    fn made(&self, id: Id) -> &Made {
        match id {
            Id::Made(place) => self.made[place as usize].as_ref().expect("a live id"),
            Id::Packed(..) => unreachable!("callers have checked that it is made"),
        }
    }

    fn made_mut(&mut self, id: Id) -> &mut Made {
        match id {
            Id::Made(place) => self.made[place as usize].as_mut().expect("a live id"),
            Id::Packed(..) => unreachable!("callers have checked that it is made"),
        }
    }

    fn packed(&self, mount: u32, node: nar::NodeId) -> nar::Node {
        self.mounts[mount as usize].archive.index().node_of(node)
    }

    fn packed_content(&self, mount: u32, node: nar::NodeId) -> &[u8] {
        let archive = &self.mounts[mount as usize].archive;
        archive.index().content(node, archive.bytes()).unwrap_or_default()
    }

    fn charge(&mut self, bytes: u64, files: u64) -> Result<()> {
        self.used_bytes += bytes;
        self.used_files += files;
        self.peak_bytes = self.peak_bytes.max(self.used_bytes);
        if self.used_bytes > self.quota.bytes {
            return Err(Abort::Disk { limit: self.quota.bytes }.into());
        }
        if self.used_files > self.quota.files {
            return Err(Abort::Files { limit: self.quota.files }.into());
        }
        Ok(())
    }

    /// The most bytes that were in files at once.
    pub(crate) fn peak_bytes(&self) -> u64 {
        self.peak_bytes
    }

    // ---- Looking ----

    /// What a node is.
    pub(crate) fn file_type(&self, id: Id) -> FileType {
        match id {
            Id::Made(_) => match self.made(id).body {
                Body::Directory { .. } => FileType::Directory,
                Body::File(_) => FileType::Regular,
                Body::Symlink(_) => FileType::Symlink,
            },
            Id::Packed(mount, node) => match self.packed(mount, node) {
                nar::Node::Directory(_) => FileType::Directory,
                nar::Node::File { .. } => FileType::Regular,
                nar::Node::Symlink { .. } => FileType::Symlink,
            },
        }
    }

    fn is_directory(&self, id: Id) -> bool {
        self.file_type(id) == FileType::Directory
    }

    fn inode(&self, id: Id) -> u64 {
        match id {
            Id::Made(_) => self.made(id).inode,
            Id::Packed(mount, node) => self.mounts[mount as usize].inode + u64::from(node.place()),
        }
    }

    /// What `stat` says.
    pub(crate) fn stat(&self, id: Id) -> Stat {
        let (links, size, times) = match id {
            Id::Made(_) => {
                let made = self.made(id);
                let size = match &made.body {
                    Body::Directory { .. } => 0,
                    Body::File(content) => content.len(),
                    Body::Symlink(target) => target.len() as u64,
                };
                (u64::from(made.links), size, made.times)
            }
            Id::Packed(mount, node) => {
                (1, self.packed_content(mount, node).len() as u64, Times::all(self.epoch))
            }
        };
        Stat { inode: self.inode(id), file_type: self.file_type(id), links, size, times }
    }

    fn child(&self, directory: Id, name: &[u8]) -> Option<Id> {
        match directory {
            Id::Made(_) => match &self.made(directory).body {
                Body::Directory { entries, .. } => entries.get(name).copied(),
                _ => None,
            },
            Id::Packed(mount, node) => {
                let archive = &self.mounts[mount as usize].archive;
                let nar::Node::Directory(children) = self.packed(mount, node) else { return None };
                let found = archive.index().child(children, name, archive.bytes())?;
                Some(Id::Packed(mount, found))
            }
        }
    }

    /// The target of a symlink.
    pub(crate) fn target(&self, id: Id) -> Option<&[u8]> {
        match id {
            Id::Made(_) => match &self.made(id).body {
                Body::Symlink(target) => Some(target),
                _ => None,
            },
            Id::Packed(mount, node) => match self.packed(mount, node) {
                nar::Node::Symlink { .. } => Some(self.packed_content(mount, node)),
                _ => None,
            },
        }
    }

    /// The entries of a directory whose names sort behind `after`: name, inode, type.
    pub(crate) fn entries<'v>(
        &'v self,
        directory: Id,
        after: Option<&'v [u8]>,
    ) -> Box<dyn Iterator<Item = (&'v [u8], Id)> + 'v> {
        match directory {
            Id::Made(_) => {
                let Body::Directory { entries, .. } = &self.made(directory).body else {
                    return Box::new(std::iter::empty());
                };
                let from = after.map_or(Bound::Unbounded, Bound::Excluded);
                let range = entries.range::<[u8], _>((from, Bound::Unbounded));
                Box::new(range.map(|(name, id)| (&**name, *id)))
            }
            Id::Packed(mount, node) => {
                let archive = &self.mounts[mount as usize].archive;
                let nar::Node::Directory(children) = self.packed(mount, node) else {
                    return Box::new(std::iter::empty());
                };
                let children = archive.index().children(children);
                let name = |id| archive.index().name(id, archive.bytes());
                let from = after.map_or(0, |after| children.partition_point(|c| name(*c) <= after));
                Box::new(children[from..].iter().map(move |c| (name(*c), Id::Packed(mount, *c))))
            }
        }
    }

    /// The inode numbers that `.` and `..` have in a directory.
    pub(crate) fn dots(&self, directory: Id) -> (u64, u64) {
        let this = self.inode(directory);
        match directory {
            Id::Made(_) => match self.made(directory) {
                Made { body: Body::Directory { parent, .. }, links: 1.., .. } => (this, self.inode(*parent)),
                // A removed directory, still open: its parent may be gone as well.
                _ => (this, this),
            },
            // Archives know no parents; `..` of a mounted directory is not looked up by number.
            Id::Packed(..) => (this, this),
        }
    }

    /// Follows `path` from the directory `base`, and, if `follow` says so, the symlink at its end.
    ///
    /// A path never leaves its base: `..` at the base, and an absolute symlink unless the base is
    /// the root, is [`Errno::Notcapable`].
    pub(crate) fn resolve(&self, base: Id, path: &[u8], follow: bool) -> Result<Place, Errno> {
        self.walk(base, path, follow, true)
    }

    /// Follows `path` to where a name is to be added or removed: a symlink at its end is that name,
    /// even before a `/`, as Linux has it.
    pub(crate) fn place(&self, base: Id, path: &[u8]) -> Result<Place, Errno> {
        self.walk(base, path, false, false)
    }

    fn walk(&self, base: Id, path: &[u8], follow: bool, through_slash: bool) -> Result<Place, Errno> {
        if path.is_empty() {
            return Err(Errno::Noent);
        }
        if path.len() > limits::PATH_BYTES {
            return Err(Errno::Nametoolong);
        }
        if path.contains(&0) {
            return Err(Errno::Inval);
        }
        if path[0] == b'/' {
            return Err(Errno::Notcapable);
        }
        let mut left: Vec<&[u8]> = path.split(|b| *b == b'/').rev().collect();
        let mut trail = vec![base];
        let mut followed = 0;
        let mut slash = false;
        while let Some(name) = left.pop() {
            let here = trail[trail.len() - 1];
            if !self.is_directory(here) {
                return Err(Errno::Notdir);
            }
            // A `/` at the end leaves empty components only.
            let last = left.iter().all(|c| c.is_empty());
            match name {
                b"" | b"." => {
                    if last {
                        let (name, node) = (Box::default(), Some(here));
                        return Ok(Place { parent: here, name, node, slash: true });
                    }
                    continue;
                }
                b".." => {
                    trail.pop();
                    let Some(here) = trail.last() else { return Err(Errno::Notcapable) };
                    if last {
                        let (name, node) = (Box::default(), Some(*here));
                        return Ok(Place { parent: *here, name, node, slash: true });
                    }
                    continue;
                }
                _ if name.len() > limits::NAR_NAME_BYTES => return Err(Errno::Nametoolong),
                _ => {}
            }
            slash = slash || (last && !left.is_empty());
            let node = self.child(here, name);
            if let Some(target) = node.and_then(|id| self.target(id))
                && (!last || follow || (slash && through_slash))
            {
                followed += 1;
                if followed > SYMLINKS {
                    return Err(Errno::Loop);
                }
                if target[0] == b'/' {
                    if base != ROOT {
                        return Err(Errno::Notcapable);
                    }
                    trail.truncate(1);
                }
                left.extend(target.split(|b| *b == b'/').rev());
                continue;
            }
            match node {
                _ if last => {
                    if slash && node.is_some_and(|id| !self.is_directory(id)) {
                        return Err(Errno::Notdir);
                    }
                    return Ok(Place { parent: here, name: name.into(), node, slash });
                }
                Some(id) => trail.push(id),
                None => return Err(Errno::Noent),
            }
        }
        // Only a symlink to `/` (or to slashes alone) runs out of components without a return.
        let here = trail[trail.len() - 1];
        Ok(Place { parent: here, name: Box::default(), node: Some(here), slash: true })
    }

    /// The node that a path leads to.
    pub(crate) fn find(&self, base: Id, path: &[u8], follow: bool) -> Result<Id, Errno> {
        self.resolve(base, path, follow)?.node.ok_or(Errno::Noent)
    }

    // ---- Changing ----

    /// Whether entries of a directory may be added and removed.
    fn writable(&self, directory: Id) -> Result<(), Errno> {
        match directory {
            Id::Packed(..) => Err(Errno::Rofs),
            Id::Made(_) => match &self.made(directory).body {
                Body::Directory { fixed: true, .. } => Err(Errno::Rofs),
                Body::Directory { .. } if self.made(directory).links == 0 => Err(Errno::Noent),
                Body::Directory { .. } => Ok(()),
                _ => Err(Errno::Notdir),
            },
        }
    }

    fn add(&mut self, place: &Place, body: Body, now: u64) -> Result<Id> {
        if place.node.is_some() {
            return Err(Errno::Exist.into());
        }
        self.writable(place.parent)?;
        let bytes = match &body {
            Body::Symlink(target) => target.len() as u64,
            _ => 0,
        };
        self.charge(bytes + NODE_BYTES, 1)?;
        let id = self.insert(body, now);
        self.attach(place.parent, &place.name, id);
        self.touch(place.parent, now);
        Ok(id)
    }

    fn touch(&mut self, id: Id, now: u64) {
        let times = &mut self.made_mut(id).times;
        (times.modified, times.changed) = (now, now);
    }

    /// Makes an empty file.
    pub(crate) fn create(&mut self, place: &Place, now: u64) -> Result<Id> {
        if place.slash {
            return Err(Errno::Isdir.into());
        }
        self.add(place, Body::File(Content::empty()), now)
    }

    /// Makes an empty directory.
    pub(crate) fn make_directory(&mut self, place: &Place, now: u64) -> Result<Id> {
        let (entries, parent) = (BTreeMap::new(), place.parent);
        self.add(place, Body::Directory { entries, parent, fixed: false }, now)
    }

    /// Makes a symlink.
    pub(crate) fn make_symlink(&mut self, place: &Place, target: &[u8], now: u64) -> Result<()> {
        if target.is_empty() {
            return Err(Errno::Noent.into());
        }
        if target.contains(&0) {
            return Err(Errno::Inval.into());
        }
        if target.len() > limits::NAR_TARGET_BYTES {
            return Err(Errno::Nametoolong.into());
        }
        if place.slash && place.node.is_none() {
            return Err(Errno::Noent.into());
        }
        self.add(place, Body::Symlink(target.into()), now).map(drop)
    }

    /// Gives a file one more name.
    pub(crate) fn link(&mut self, id: Id, place: &Place, now: u64) -> Result<()> {
        if place.node.is_some() {
            return Err(Errno::Exist.into());
        }
        if place.slash {
            return Err(Errno::Noent.into());
        }
        if self.is_directory(id) {
            return Err(Errno::Perm.into());
        }
        self.writable(place.parent)?;
        let Id::Made(_) = id else { return Err(Errno::Xdev.into()) };
        if self.made(id).links == 0 {
            return Err(Errno::Noent.into());
        }
        self.charge(NODE_BYTES, 1)?;
        let made = self.made_mut(id);
        made.links += 1;
        made.times.changed = now;
        self.attach(place.parent, &place.name, id);
        self.touch(place.parent, now);
        Ok(())
    }

    /// Removes a name of a file or a symlink.
    pub(crate) fn unlink(&mut self, place: &Place, now: u64) -> Result<()> {
        let Some(id) = place.node else { return Err(Errno::Noent.into()) };
        if self.is_directory(id) {
            return Err(Errno::Isdir.into());
        }
        self.writable(place.parent)?;
        self.detach(place, now);
        self.forget_name(id, now);
        Ok(())
    }

    /// Removes an empty directory.
    pub(crate) fn remove_directory(&mut self, place: &Place, now: u64) -> Result<()> {
        let Some(id) = place.node else { return Err(Errno::Noent.into()) };
        if !self.is_directory(id) {
            return Err(Errno::Notdir.into());
        }
        if place.name.is_empty() {
            return Err(Errno::Inval.into());
        }
        self.writable(place.parent)?;
        if self.entries(id, None).next().is_some() {
            return Err(Errno::Notempty.into());
        }
        self.detach(place, now);
        self.forget_name(id, now);
        Ok(())
    }

    fn detach(&mut self, place: &Place, now: u64) {
        if let Body::Directory { entries, .. } = &mut self.made_mut(place.parent).body {
            entries.remove(&place.name);
        }
        self.touch(place.parent, now);
    }

    /// A name of `id` is gone; without names and holders, so is the node.
    fn forget_name(&mut self, id: Id, now: u64) {
        let made = self.made_mut(id);
        made.links -= 1;
        made.times.changed = now;
        if made.links > 0 {
            // The node was charged once for each name.
            self.used_bytes -= NODE_BYTES;
            self.used_files -= 1;
        }
        self.collect(id);
    }

    fn collect(&mut self, id: Id) {
        let Id::Made(place) = id else { return };
        let made = self.made(id);
        if made.links > 0 || made.held > 0 {
            return;
        }
        let bytes = self.len(id);
        if let Some(Made { body: Body::File(content), .. }) = self.made[place as usize].take() {
            content.release(&mut self.spill);
        }
        self.used_bytes -= bytes + NODE_BYTES;
        self.used_files -= 1;
        self.free.push(place);
    }

    /// Gives the node at `from` the name `to`, replacing what is there.
    pub(crate) fn rename(&mut self, from: &Place, to: &Place, now: u64) -> Result<()> {
        let Some(id) = from.node else { return Err(Errno::Noent.into()) };
        if from.name.is_empty() || to.name.is_empty() {
            return Err(Errno::Inval.into());
        }
        let directory = self.is_directory(id);
        if to.slash && !directory {
            return Err(Errno::Notdir.into());
        }
        self.writable(from.parent)?;
        self.writable(to.parent)?;
        if directory && self.is_below(to.parent, id) {
            return Err(Errno::Inval.into());
        }
        if let Some(old) = to.node {
            if old == id {
                return Ok(());
            }
            match (directory, self.is_directory(old)) {
                (true, false) => return Err(Errno::Notdir.into()),
                (false, true) => return Err(Errno::Isdir.into()),
                (true, true) if self.entries(old, None).next().is_some() => {
                    return Err(Errno::Notempty.into());
                }
                _ => {}
            }
            self.detach(to, now);
            self.forget_name(old, now);
        }
        self.detach(from, now);
        self.attach(to.parent, &to.name, id);
        self.touch(to.parent, now);
        let made = self.made_mut(id);
        made.times.changed = now;
        if let Body::Directory { parent, .. } = &mut made.body {
            *parent = to.parent;
        }
        Ok(())
    }

    /// Whether `id` is `top` or lies below it.
    fn is_below(&self, mut id: Id, top: Id) -> bool {
        loop {
            if id == top {
                return true;
            }
            match (id, id != ROOT) {
                (Id::Made(_), true) => match &self.made(id).body {
                    Body::Directory { parent, .. } => id = *parent,
                    _ => return false,
                },
                _ => return false,
            }
        }
    }

    /// Keeps a node although its last name may go: a descriptor is open.
    pub(crate) fn hold(&mut self, id: Id) {
        if let Id::Made(_) = id {
            self.made_mut(id).held += 1;
        }
    }

    /// A descriptor was closed.
    pub(crate) fn release(&mut self, id: Id) {
        if let Id::Made(_) = id {
            self.made_mut(id).held -= 1;
            self.collect(id);
        }
    }

    // ---- Contents ----

    /// Bytes of a file.
    pub(crate) fn len(&self, id: Id) -> u64 {
        self.stat(id).size
    }

    /// Reads from `at`; fewer bytes than asked for only at the end.
    pub(crate) fn read(&self, id: Id, at: u64, to: &mut [u8]) -> Result<usize> {
        match id {
            Id::Made(_) => match &self.made(id).body {
                Body::File(content) => Ok(content.read(at, to)?),
                _ => Err(Errno::Isdir.into()),
            },
            Id::Packed(mount, node) => {
                if self.is_directory(id) {
                    return Err(Errno::Isdir.into());
                }
                let content = self.packed_content(mount, node);
                let rest = content.get(at.min(content.len() as u64) as usize..).unwrap_or_default();
                let n = rest.len().min(to.len());
                to[..n].copy_from_slice(&rest[..n]);
                Ok(n)
            }
        }
    }

    /// Writes all of `from` at `at`.
    pub(crate) fn write(&mut self, id: Id, at: u64, from: &[u8], now: u64) -> Result<()> {
        if from.is_empty() {
            return Ok(());
        }
        let end = at.checked_add(from.len() as u64).filter(|e| *e <= i64::MAX as u64);
        let Some(end) = end else { return Err(Errno::Inval.into()) };
        if end > self.len(id) {
            self.charge(end - self.len(id), 0)?;
        }
        let (content, spill) = self.content_mut(id)?;
        content.write(at, from, spill)?;
        self.touch(id, now);
        Ok(())
    }

    /// Cuts a file, or grows it with zeros.
    pub(crate) fn resize(&mut self, id: Id, to: u64, now: u64) -> Result<()> {
        if to > i64::MAX as u64 {
            return Err(Errno::Inval.into());
        }
        let old = self.len(id);
        if to > old {
            self.charge(to - old, 0)?;
        }
        let (content, spill) = self.content_mut(id)?;
        content.resize(to, spill)?;
        self.used_bytes -= old.saturating_sub(to);
        self.touch(id, now);
        Ok(())
    }

    fn content_mut(&mut self, id: Id) -> Result<(&mut Content, &mut Spill)> {
        let Id::Made(place) = id else { return Err(Errno::Rofs.into()) };
        match self.made[place as usize].as_mut().map(|made| &mut made.body) {
            Some(Body::File(content)) => Ok((content, &mut self.spill)),
            _ => Err(Errno::Isdir.into()),
        }
    }

    /// Whether a file's content may be changed.
    pub(crate) fn changeable(&self, id: Id) -> bool {
        matches!(id, Id::Made(_))
    }

    /// Sets times that are given.
    pub(crate) fn set_times(
        &mut self,
        id: Id,
        accessed: Option<u64>,
        modified: Option<u64>,
        now: u64,
    ) -> Result<()> {
        let Id::Made(_) = id else { return Err(Errno::Rofs.into()) };
        let times = &mut self.made_mut(id).times;
        times.accessed = accessed.unwrap_or(times.accessed);
        times.modified = modified.unwrap_or(times.modified);
        times.changed = now;
        Ok(())
    }

    /// All of a file's content, for the host: a module that a step wrote.
    pub(crate) fn read_all(&self, id: Id) -> Result<Vec<u8>> {
        let mut bytes = vec![0; self.len(id) as usize];
        self.read(id, 0, &mut bytes)?;
        Ok(bytes)
    }

    // ---- To an archive ----

    /// Writes a directory that the build made as an archive. A file is executable when it begins
    /// with the magic of wasm or when `executable` says so of its path below `top` (SPEC §7.5).
    ///
    /// # Errors
    ///
    /// [`nar::WriteError`]: the tree breaks a limit of archives, or the sink fails.
    pub(crate) fn pack(
        &self,
        top: Id,
        to: impl std::io::Write,
        executable: impl Fn(&[u8]) -> bool,
    ) -> Result<(), nar::WriteError> {
        /// What is left to be written: a node with its name and path, or the end of a directory.
        enum Left {
            Node(Id, Box<[u8]>, Vec<u8>),
            End,
        }
        let mut writer = nar::Writer::new(to);
        let mut left = vec![Left::Node(top, Box::default(), Vec::new())];
        while let Some(next) = left.pop() {
            let Left::Node(id, name, path) = next else {
                writer.end()?;
                continue;
            };
            if id != top {
                writer.entry(&name)?;
            }
            if let Some(target) = self.target(id) {
                writer.symlink(target)?;
                continue;
            }
            if !self.is_directory(id) {
                self.pack_file(id, &path, &mut writer, &executable)?;
                continue;
            }
            writer.directory()?;
            left.push(Left::End);
            let first = left.len();
            for (name, child) in self.entries(id, None) {
                let path = if path.is_empty() { name.to_vec() } else { [&path, name].join(&b'/') };
                left.push(Left::Node(child, name.into(), path));
            }
            left[first..].reverse();
        }
        writer.finish().map(drop)
    }

    fn pack_file(
        &self,
        id: Id,
        path: &[u8],
        to: &mut nar::Writer<impl std::io::Write>,
        executable: impl Fn(&[u8]) -> bool,
    ) -> Result<(), nar::WriteError> {
        let mut magic = [0; 4];
        let wasm = matches!(self.read(id, 0, &mut magic), Ok(4)) && magic == *b"\0asm";
        let executable = wasm || executable(path);
        match id {
            Id::Made(_) => match &self.made(id).body {
                Body::File(content) => to.file(executable, content.len(), Reader { content, at: 0 }),
                _ => unreachable!("callers have checked that it is a file"),
            },
            Id::Packed(mount, node) => {
                let content = self.packed_content(mount, node);
                to.file(executable, content.len() as u64, content)
            }
        }
    }
}

#[cfg(test)]
mod tests;
