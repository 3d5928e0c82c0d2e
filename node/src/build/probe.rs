//! Ways in for tests that feed hostile bytes to what is private here. Not for programs.

use std::{
    io,
    path::Path,
    pin::pin,
    task::{Context, Poll, Waker},
};

use store::Archive;

use super::{
    frames::{self, FrameError},
    job::{Answer, Frame},
    vfs::{Id, Quota, ROOT, Vfs},
};

/// What a worker said up to its end, each frame as its kind and its bytes.
///
/// # Errors
///
/// The first frame that is not understood.
pub fn frames(mut bytes: &[u8]) -> Result<Vec<(u8, Vec<u8>)>, FrameError> {
    let mut found = Vec::new();
    loop {
        let next = pin!(frames::next(&mut bytes)).poll(&mut Context::from_waker(Waker::noop()));
        let Poll::Ready(next) = next else { unreachable!("bytes in memory are there at once") };
        let Some((kind, content)) = next? else { return Ok(found) };
        match kind {
            Frame::Log => {}
            Frame::Step => drop(serde_json::from_slice::<usize>(&content)?),
            Frame::Answer => drop(serde_json::from_slice::<Answer>(&content)?),
        }
        found.push((kind as u8, content));
    }
}

/// A file system with one archive in it.
pub struct Mounted {
    vfs: Vfs,
    /// The inode number of the archive's root.
    first: u64,
}

impl Mounted {
    /// Mounts the archive in the file at `path`.
    ///
    /// # Errors
    ///
    /// The file is no archive, or cannot be read.
    pub fn open(path: &Path, scratch: &Path) -> io::Result<Self> {
        let archive = Archive::open(path).map_err(io::Error::other)?;
        let mut vfs = Vfs::new(0, Quota { bytes: 1 << 20, files: 100 }, scratch);
        let directory = vfs.fixture("in", true);
        vfs.mount(directory, "x", archive);
        let root = vfs.find(ROOT, b"in/x", false).map_err(|e| io::Error::other(e.to_string()))?;
        let first = vfs.stat(root).inode;
        Ok(Self { vfs, first })
    }

    /// Where `path` leads from the directory `base` of the archive, which is an exact path: the
    /// place of a node in the archive, or `None` if a last component is not there.
    ///
    /// # Errors
    ///
    /// The number of WASI's error.
    pub fn resolve(&self, base: &[u8], path: &[u8], follow: bool) -> Result<Option<u64>, u16> {
        let base = [b"in/x/", base].concat();
        let base = self.vfs.find(ROOT, &base, false).map_err(|e| e as u16)?;
        let place = self.vfs.resolve(base, path, follow).map_err(|e| e as u16)?;
        let inode = |id: Id| self.vfs.stat(id).inode - self.first;
        Ok(place.node.map(inode))
    }
}
