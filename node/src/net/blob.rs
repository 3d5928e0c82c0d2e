//! Pieces of archives, and what proves them (SPEC §18): BLAKE3's own tree, in groups of 16 KiB.
//!
//! ```text
//! archive ─▶ Shelf::piece ─▶ body: [nodes of the tree, groups of bytes …] ─▶ read ─▶ bytes, each of which is proven
//! ```
//!
//! An archive's hash is the root of a tree over its bytes, so a part of it can be proven by the nodes
//! on the way down to it. Nothing is believed on either side: what the own disk has is proven, too,
//! when its tree is made, so that a node with a bad disk does not look like one that lies.
//!
//! Which nodes and groups there are, and in which order, is the library's to say. That they are what they
//! should be is looked at here, in place: each byte is copied once on its way out, and once on its way in.

use std::{
    collections::VecDeque,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bao_tree::{
    BaoTree, BlockSize, ChunkNum, ChunkRanges,
    io::{outboard::PreOrderMemOutboard, sync::Outboard as _},
    iter::BaoChunk,
};
use blake3::hazmat::{
    ChainingValue, HasherExt as _, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root,
};
use protocol::{
    id::NarHash,
    limits::{GROUP_BYTES, PIECE_BODY_BYTES, PIECE_BYTES},
    message::RangeRequest,
};
use store::{Archive, Store};

const _: () = assert!(PIECE_BYTES.is_multiple_of(GROUP_BYTES));

/// Groups of 2^4 chunks of BLAKE3, 1 KiB each.
const GROUP: BlockSize = BlockSize::from_chunk_log(4);
const _: () = assert!(GROUP.bytes() as u64 == GROUP_BYTES);

/// Archives whose trees are remembered, and bytes of these trees: a 256th of the archives.
const TREES: usize = 64;
const TREE_BYTES: usize = 64 << 20;

/// How hard compression tries: on a slow line that is worth more than a tenth of a second.
const LEVEL: i32 = 3;

/// Compression is kept if it saves an eighth.
const WORTH: usize = 8;

/// The trees of archives that were asked for lately.
#[derive(Default)]
pub(crate) struct Shelf {
    trees: Mutex<VecDeque<Arc<Tree>>>,
    /// Held while a tree is made: the next one often wants the same.
    making: Mutex<()>,
}

/// Bytes whose tree is not worth two threads.
const ALONE: usize = 1 << 20;

/// An archive and its tree.
struct Tree {
    nar: NarHash,
    archive: Archive,
    outboard: PreOrderMemOutboard,
}

/// What is sent for a piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body {
    /// Whether it is compressed.
    pub zstd: bool,
    /// It.
    pub bytes: Vec<u8>,
}

impl Shelf {
    /// The body of a piece; `None` if the archive is not there, has another size, or is damaged.
    pub(crate) fn piece(&self, store: &Store, request: &RangeRequest) -> Option<Body> {
        let tree = self.tree(store, &request.nar)?;
        if tree.archive.size() != request.size {
            return None;
        }
        let mut bytes = Vec::with_capacity(PIECE_BODY_BYTES as usize);
        for part in BaoTree::new(request.size, GROUP).ranges_pre_order_chunks_iter_ref(&chunks(request), 0) {
            match part {
                BaoChunk::Parent { node, .. } => {
                    let (left, right) = tree.outboard.load(node).ok()??;
                    bytes.extend_from_slice(left.as_bytes());
                    bytes.extend_from_slice(right.as_bytes());
                }
                BaoChunk::Leaf { start_chunk, size, .. } => {
                    let start = usize::try_from(start_chunk.to_bytes()).ok()?;
                    bytes.extend_from_slice(tree.archive.bytes().get(start..start + size)?);
                }
            }
        }
        if request.zstd
            && let Ok(short) = zstd::bulk::compress(&bytes, LEVEL)
            && short.len() < bytes.len() - bytes.len() / WORTH
        {
            return Some(Body { zstd: true, bytes: short });
        }
        Some(Body { zstd: false, bytes })
    }

    fn tree(&self, store: &Store, nar: &NarHash) -> Option<Arc<Tree>> {
        if let Some(tree) = self.find(nar) {
            return Some(tree);
        }
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tree) = self.find(nar) {
            return Some(tree);
        }
        let archive = store.open_nar(nar).ok()?;
        let outboard = outboard(archive.bytes());
        if outboard.root.as_bytes() != nar.as_bytes() {
            return None;
        }
        let tree = Arc::new(Tree { nar: *nar, archive, outboard });
        let mut trees = self.lock();
        trees.push_front(tree.clone());
        let mut bytes = 0;
        let kept = trees.iter().take(TREES).take_while(|tree| {
            bytes += tree.outboard.data.len();
            bytes <= TREE_BYTES
        });
        // The one that is asked for, however large.
        let kept = kept.count().max(1);
        trees.truncate(kept);
        Some(tree)
    }

    fn find(&self, nar: &NarHash) -> Option<Arc<Tree>> {
        let mut trees = self.lock();
        let place = trees.iter().position(|tree| tree.nar == *nar)?;
        let tree = trees.remove(place)?;
        trees.push_front(tree.clone());
        Some(tree)
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<Tree>>> {
        self.trees.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The bytes that a body proves to be the piece that was asked for; `None` if it proves anything else.
pub fn read(request: &RangeRequest, body: Body) -> Option<Vec<u8>> {
    let mut body = match body.zstd {
        true => zstd::bulk::decompress(&body.bytes, PIECE_BODY_BYTES as usize).ok()?,
        false => body.bytes,
    };
    // What comes is to have the last of these.
    let mut hashes: Vec<ChainingValue> = vec![*request.nar.as_bytes()];
    // Bytes that were read, and of these the first, which are the piece.
    let (mut read, mut piece) = (0, 0);
    for part in BaoTree::new(request.size, GROUP).ranges_pre_order_chunks_iter_ref(&chunks(request), 0) {
        let expected = hashes.pop()?;
        match part {
            BaoChunk::Parent { is_root, left, right, .. } => {
                let (pair, _) = body.get(read..)?.split_first_chunk::<64>()?;
                let ([l, r], []) = pair.as_chunks::<32>() else { return None };
                if parent(l, r, is_root) != expected {
                    return None;
                }
                hashes.extend([right.then_some(*r), left.then_some(*l)].into_iter().flatten());
                read += pair.len();
            }
            BaoChunk::Leaf { start_chunk, size, is_root, .. } => {
                if group(start_chunk, body.get(read..read + size)?, is_root) != expected {
                    return None;
                }
                body.copy_within(read..read + size, piece);
                (read, piece) = (read + size, piece + size);
            }
        }
    }
    let Range { start, end } = request.bytes();
    (read == body.len() && piece as u64 == end - start).then(|| {
        body.truncate(piece);
        body
    })
}

/// The nodes of a tree, as [`PreOrderMemOutboard::create`] makes them, but on all cores, and without a copy
/// of the archive.
fn outboard(bytes: &[u8]) -> PreOrderMemOutboard {
    let tree = BaoTree::new(bytes.len() as u64, GROUP);
    let mut data = vec![0; tree.outboard_size() as usize];
    let root = subtree(0, bytes, true, &mut data).into();
    PreOrderMemOutboard { root, tree, data }
}

/// The hash of the part of a tree that begins with the byte `start`, and its nodes: itself, those to the
/// left, those to the right.
fn subtree(start: u64, bytes: &[u8], is_root: bool, nodes: &mut [u8]) -> ChainingValue {
    let Some((pair, below)) = nodes.split_first_chunk_mut::<64>() else {
        return group(ChunkNum::full_chunks(start), bytes, is_root);
    };
    let (left, right) = bytes.split_at(left_subtree_len(bytes.len() as u64) as usize);
    let (left_nodes, right_nodes) = below.split_at_mut((left.len() / GROUP.bytes() - 1) * pair.len());
    let mut left_hash = || subtree(start, left, false, left_nodes);
    let mut right_hash = || subtree(start + left.len() as u64, right, false, right_nodes);
    let (l, r) = match bytes.len() <= ALONE {
        true => (left_hash(), right_hash()),
        false => rayon::join(left_hash, right_hash),
    };
    pair[..32].copy_from_slice(&l);
    pair[32..].copy_from_slice(&r);
    parent(&l, &r, is_root)
}

/// The hash of a node of the tree.
fn parent(left: &ChainingValue, right: &ChainingValue, is_root: bool) -> ChainingValue {
    match is_root {
        true => *merge_subtrees_root(left, right, Mode::Hash).as_bytes(),
        false => merge_subtrees_non_root(left, right, Mode::Hash),
    }
}

/// The hash of a group of bytes.
fn group(start: ChunkNum, bytes: &[u8], is_root: bool) -> ChainingValue {
    match is_root {
        true => *blake3::hash(bytes).as_bytes(),
        false => blake3::Hasher::new().set_input_offset(start.to_bytes()).update(bytes).finalize_non_root(),
    }
}

/// A piece, in chunks of BLAKE3. Pieces are whole groups, so no group is cut.
fn chunks(request: &RangeRequest) -> ChunkRanges {
    let Range { start, end } = request.bytes();
    match end < request.size {
        true => ChunkRanges::from(ChunkNum::full_chunks(start)..ChunkNum::full_chunks(end)),
        false => ChunkRanges::from(ChunkNum::full_chunks(start)..),
    }
}

#[cfg(test)]
mod tests {
    use protocol::{message::pieces, nar};

    use super::*;

    /// An archive with a file of `len` bytes that do not repeat.
    fn archive(len: u64) -> Vec<u8> {
        let mut content = vec![0; len as usize];
        blake3::Hasher::new().finalize_xof().fill(&mut content);
        nar::dump_file(Vec::new(), false, len, &content[..]).unwrap()
    }

    fn with(bytes: &[u8]) -> (tempfile::TempDir, Store, NarHash) {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path(), |_| false).unwrap();
        let hash = store.admit(bytes, None, u64::MAX).unwrap().hash;
        (home, store, hash)
    }

    #[test]
    fn pieces_are_proven() {
        let shelf = Shelf::default();
        for len in [0, 1, GROUP_BYTES, PIECE_BYTES - 112, PIECE_BYTES, PIECE_BYTES + 1, 5 * PIECE_BYTES / 2] {
            let bytes = archive(len);
            let (_home, store, nar) = with(&bytes);
            let size = bytes.len() as u64;
            let mut all = Vec::new();
            for piece in 0..pieces(size) {
                let request = RangeRequest { nar, size, piece, zstd: false };
                let body = shelf.piece(&store, &request).unwrap();
                assert!(body.bytes.len() as u64 <= PIECE_BODY_BYTES);
                all.extend(read(&request, body).unwrap());
            }
            assert!(all == bytes, "{len}");
        }
    }

    #[test]
    fn trees_are_those_of_the_library() {
        let group = GROUP_BYTES as usize;
        let mut bytes = vec![0; 300 * group];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        let around = |len: usize| [len.saturating_sub(1), len, len + 1];
        let lens = [0, 1024, group, 2 * group, 3 * group, 64 * group, 65 * group, 200 * group];
        for len in lens.into_iter().flat_map(around) {
            assert_eq!(outboard(&bytes[..len]), PreOrderMemOutboard::create(&bytes[..len], GROUP), "{len}");
        }
    }

    /// Whatever is not the piece that was asked for is refused: every bit that is turned, every cut,
    /// another piece, another size, another archive.
    #[test]
    fn nothing_else_is_taken() {
        let bytes = archive(3 * PIECE_BYTES / 2);
        let (_home, store, nar) = with(&bytes);
        let (shelf, size) = (Shelf::default(), bytes.len() as u64);
        let request = RangeRequest { nar, size, piece: 1, zstd: false };
        let good = shelf.piece(&store, &request).unwrap().bytes;
        let takes =
            |request: &RangeRequest, bytes: Vec<u8>| read(request, Body { zstd: false, bytes }).is_some();
        assert!(takes(&request, good.clone()));
        for at in (0..good.len()).step_by(1009).chain(0..64) {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            assert!(!takes(&request, bad), "byte {at}");
        }
        for cut in (0..good.len()).step_by(4099).chain([good.len() - 1]) {
            assert!(!takes(&request, good[..cut].to_vec()), "{cut} bytes");
        }
        assert!(!takes(&request, [&good[..], b"x"].concat()), "more");
        assert!(!takes(&RangeRequest { piece: 0, ..request }, good.clone()));
        for other in [size - 1, size + 1, 2 * size] {
            let request = RangeRequest { size: other, ..request };
            assert!(!takes(&request, good.clone()), "{other} bytes");
            assert_eq!(shelf.piece(&store, &request), None);
        }
        let other = NarHash::of(b"another");
        assert!(!takes(&RangeRequest { nar: other, ..request }, good));
        assert_eq!(shelf.piece(&store, &RangeRequest { nar: other, ..request }), None);
    }

    #[test]
    fn what_is_short_comes_compressed_and_is_bounded() {
        let content = vec![b'a'; 100_000];
        let bytes = nar::dump_file(Vec::new(), false, 100_000, &content[..]).unwrap();
        let (_home, store, nar) = with(&bytes);
        let (shelf, size) = (Shelf::default(), bytes.len() as u64);
        let request = RangeRequest { nar, size, piece: 0, zstd: true };
        let body = shelf.piece(&store, &request).unwrap();
        assert!(body.zstd && body.bytes.len() < 10_000);
        assert_eq!(read(&request, body).unwrap(), bytes);
        let plain = shelf.piece(&store, &RangeRequest { zstd: false, ..request }).unwrap();
        assert!(!plain.zstd);
        let bomb = zstd::bulk::compress(&vec![0; 1 << 30], 1).unwrap();
        assert_eq!(read(&request, Body { zstd: true, bytes: bomb }), None);
        assert_eq!(read(&request, Body { zstd: true, bytes: b"none".to_vec() }), None);
        // What does not get shorter is sent as it is.
        let bytes = archive(100_000);
        let (_home, store, nar) = with(&bytes);
        let request = RangeRequest { nar, size: bytes.len() as u64, piece: 0, zstd: true };
        assert!(!shelf.piece(&store, &request).unwrap().zstd);
    }

    /// What the own disk has lost is not sent.
    #[test]
    fn damage_is_not_served() {
        let bytes = archive(PIECE_BYTES);
        let (_home, store, nar) = with(&bytes);
        let path = store.nar_path(&nar);
        let mut damaged = bytes.clone();
        damaged[500_000] ^= 1;
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, damaged).unwrap();
        let request = RangeRequest { nar, size: bytes.len() as u64, piece: 0, zstd: false };
        assert_eq!(Shelf::default().piece(&store, &request), None);
    }

    #[test]
    fn trees_are_bounded() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path(), |_| false).unwrap();
        let shelf = Shelf::default();
        for n in 0..TREES as u64 + 10 {
            let bytes = archive(n);
            let nar = store.admit(&bytes[..], None, 10_000).unwrap().hash;
            let request = RangeRequest { nar, size: bytes.len() as u64, piece: 0, zstd: false };
            assert!(shelf.piece(&store, &request).is_some());
        }
        assert_eq!(shelf.lock().len(), TREES);
    }
}
