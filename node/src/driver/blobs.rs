//! Archives on the way, in and out: the files behind what the peer decides about pieces.

use std::{
    collections::{BTreeSet, HashMap},
    io,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use libp2p::Stream;
use protocol::{
    id::NarHash,
    limits::{PIECE_BYTES, RANGE_BYTES},
    message::{self, RangeAnswer, RangeRequest},
};
use serde::{Deserialize, Serialize};
use store::{AdmitError, Busy, DiskError, Partial, Store};
use tokio::{
    sync::{oneshot, watch},
    task::{AbortHandle, spawn_blocking},
    time,
};
use trust::peer::{GaveUp, Piece};

use super::HEARING;
use crate::net::{
    blob::{self, Body, Shelf},
    frame,
};

/// How long the other side may take to find a piece: of a long archive it has to make the tree first.
const FINDING: Duration = Duration::from_secs(60);

/// How long a stream may stand still while a piece crosses it.
const STILL: Duration = Duration::from_secs(15);

/// Bytes of a piece that are read, or written, before that is looked at.
const STEP: usize = 64 << 10;

/// What others are given of archives in a second. What a second leaves is not saved for the next.
pub(super) struct Upload {
    rate: Option<u64>,
    /// Bytes, below zero if what was let in is more than a second has.
    left: i64,
    at: Instant,
}

/// What a piece is expected to take.
const PIECE: i64 = PIECE_BYTES as i64;

impl Upload {
    /// So many bytes a second; as many as are wanted if `None`.
    pub(super) fn new(rate: Option<u64>, now: Instant) -> Self {
        Self { rate, left: PIECE, at: now }
    }

    /// Whether a piece may be sent now; if so, it counts.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let Some(rate) = self.rate else { return true };
        let rate = i64::try_from(rate).unwrap_or(i64::MAX);
        let passed = i64::try_from(now.duration_since(self.at).as_micros()).unwrap_or(i64::MAX);
        let new = i64::try_from(i128::from(rate) * i128::from(passed) / 1_000_000).unwrap_or(i64::MAX);
        // Too short a time gives nothing yet, and is not lost.
        if new > 0 {
            (self.left, self.at) = (self.left.saturating_add(new).min(rate), now);
        }
        let may = self.left > 0 && rate > 0;
        if may {
            self.left -= PIECE;
        }
        may
    }

    /// What was taken for a piece has sent so many bytes.
    pub(super) fn sent(&mut self, bytes: u64) {
        let unused = PIECE - i64::try_from(bytes).unwrap_or(i64::MAX);
        self.left = self.left.saturating_add(unused);
    }
}

/// How far an archive is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "state", rename_all_fields = "camelCase")]
pub enum Fetched {
    /// It comes.
    Coming {
        /// Pieces that are here.
        here: u64,
        /// All of its pieces.
        pieces: u64,
    },
    /// It is in the store.
    Done,
    /// It is not to be had.
    Failed {
        /// Why.
        why: GaveUp,
    },
}

/// Archives on the way here.
#[derive(Default)]
pub(super) struct Fetches {
    fetches: HashMap<NarHash, Fetching>,
    pieces: HashMap<u64, AbortHandle>,
}

struct Fetching {
    state: watch::Sender<Fetched>,
    /// `None` until it is open, and from when all pieces are here. Whoever writes may wait for the disk
    /// with this locked, so the loop does not lock it.
    partial: Arc<RwLock<Option<Open>>>,
    size: u64,
    here: u64,
    pieces: u64,
}

/// A file that grows; nobody sweeps meanwhile.
pub(super) struct Open {
    partial: Partial,
    busy: Busy,
}

impl Open {
    /// Opens what is there of an archive; `None` if it is whole. Blocks until nobody else has it open.
    pub(super) fn new(store: &Arc<Store>, nar: &NarHash, size: u64) -> Result<Option<Self>, DiskError> {
        let busy = store.busy();
        Ok(store.partial(nar, size)?.map(|partial| Self { partial, busy }))
    }

    /// Gives it its name. Blocks.
    fn admit(self, store: &Store) -> Result<(), AdmitError> {
        let Self { partial, busy } = self;
        let admitted = store.admit_partial(partial);
        drop(busy);
        admitted.map(drop)
    }
}

impl Fetches {
    /// How far an archive is that is being fetched.
    pub(super) fn watch(&self, nar: &NarHash) -> Option<watch::Receiver<Fetched>> {
        Some(self.fetches.get(nar)?.state.subscribe())
    }

    /// Begins with an archive, whose file is still to be opened.
    pub(super) fn begin(&mut self, nar: NarHash, size: u64) -> watch::Receiver<Fetched> {
        let pieces = message::pieces(size);
        let (state, watch) = watch::channel(Fetched::Coming { here: 0, pieces });
        self.fetches.insert(nar, Fetching { state, partial: Arc::default(), size, here: 0, pieces });
        watch
    }

    /// Its file is open. Returns the pieces that are missing; `None` if nobody waits for it any more.
    pub(super) fn opened(&mut self, nar: &NarHash, open: Open) -> Option<BTreeSet<u64>> {
        // Another may have begun meanwhile, with another size.
        let fetching = self.fetches.get_mut(nar).filter(|fetching| fetching.size == open.partial.size())?;
        let missing = open.partial.missing();
        fetching.here = fetching.pieces - missing.len() as u64;
        // Nobody writes yet.
        *fetching.partial.write().unwrap_or_else(PoisonError::into_inner) = Some(open);
        fetching.tell();
        Some(missing)
    }

    /// A piece is on its way.
    pub(super) fn coming(&mut self, task: u64, handle: AbortHandle) {
        self.pieces.insert(task, handle);
    }

    /// A piece has come, or not.
    pub(super) fn came(&mut self, task: u64, nar: &NarHash, piece: Piece) {
        self.pieces.remove(&task);
        if let (Some(fetching), Piece::Came { .. }) = (self.fetches.get_mut(nar), piece) {
            // One may come twice, of two nodes.
            fetching.here = fetching.pieces.min(fetching.here + 1);
            fetching.tell();
        }
    }

    pub(super) fn cancel(&mut self, task: u64) {
        if let Some(handle) = self.pieces.remove(&task) {
            handle.abort();
        }
    }

    /// The file of an archive, for a piece.
    pub(super) fn file(&self, nar: &NarHash) -> Option<Arc<RwLock<Option<Open>>>> {
        Some(self.fetches.get(nar)?.partial.clone())
    }

    /// It is done with; whoever watches is told.
    pub(super) fn end(&mut self, nar: &NarHash, state: Fetched) {
        if let Some(fetching) = self.fetches.remove(nar) {
            fetching.state.send_replace(state);
            // What is there is there the next time, too.
            spawn_blocking(move || sync(&fetching.partial));
        }
    }

    /// Archives that nobody waits for any more.
    pub(super) fn unwatched(&self) -> Vec<NarHash> {
        let unwatched = |(_, fetching): &(&NarHash, &Fetching)| fetching.state.is_closed();
        self.fetches.iter().filter(unwatched).map(|(nar, _)| *nar).collect()
    }

    /// Makes what is there outlive this process. Blocks.
    pub(super) fn sync(&self) {
        self.fetches.values().for_each(|fetching| sync(&fetching.partial));
    }
}

impl Fetching {
    /// Tells how far it is.
    fn tell(&self) {
        self.state.send_replace(Fetched::Coming { here: self.here, pieces: self.pieces });
    }
}

fn sync(partial: &RwLock<Option<Open>>) {
    if let Some(open) = &*partial.read().unwrap_or_else(PoisonError::into_inner) {
        // If it is lost, it is fetched once more; nothing is admitted that could not be synced.
        let _ = open.partial.sync();
    }
}

/// Takes the file of an archive all of whose pieces are here and gives it its name. Blocks.
pub(super) fn admit(store: &Store, file: &RwLock<Option<Open>>) -> Result<(), AdmitError> {
    let open = file.write().unwrap_or_else(PoisonError::into_inner).take();
    open.map_or(Ok(()), |open| open.admit(store))
}

/// Asks a node for a piece, verifies it, and keeps it.
pub(super) async fn fetch(
    stream: oneshot::Receiver<Stream>,
    request: RangeRequest,
    file: Arc<RwLock<Option<Open>>>,
) -> Piece {
    let body = match ask(stream, &request).await {
        Ok(Ok(body)) => body,
        Ok(Err(piece)) => return piece,
        Err(_) => return Piece::Failed,
    };
    let bytes = body.bytes.len() as u64;
    let kept = spawn_blocking(move || {
        let Some(piece) = blob::read(&request, body) else { return Piece::Wrong };
        let written = match &*file.read().unwrap_or_else(PoisonError::into_inner) {
            Some(open) => open.partial.write(request.piece, &piece),
            None => return Piece::Failed,
        };
        match written {
            Ok(due) => {
                if due {
                    // More comes meanwhile.
                    spawn_blocking(move || sync(&file));
                }
                Piece::Came { bytes }
            }
            Err(_) => Piece::Disk,
        }
    });
    kept.await.unwrap_or(Piece::Failed)
}

async fn ask(stream: oneshot::Receiver<Stream>, request: &RangeRequest) -> io::Result<Result<Body, Piece>> {
    let exchange = async {
        let mut stream = stream.await.map_err(io::Error::other)?;
        frame::write(&mut stream, &request.to_bytes()).await?;
        let answer = frame::read(&mut stream, RANGE_BYTES).await?;
        Ok::<_, io::Error>((stream, answer))
    };
    let (mut stream, answer) = time::timeout(FINDING, exchange).await??;
    let (zstd, len) = match RangeAnswer::from_bytes(&answer) {
        Ok(RangeAnswer::Piece { zstd, len }) => (zstd, len),
        Ok(RangeAnswer::Absent) => return Ok(Err(Piece::Absent)),
        Ok(RangeAnswer::Busy) => return Ok(Err(Piece::Busy)),
        Err(_) => return Ok(Err(Piece::Wrong)),
    };
    if zstd && !request.zstd {
        return Ok(Err(Piece::Wrong));
    }
    let mut bytes = vec![0; len as usize];
    for step in bytes.chunks_mut(STEP) {
        time::timeout(STILL, stream.read_exact(step)).await??;
    }
    Ok(Ok(Body { zstd, bytes }))
}

/// Answers on a stream that another node has opened. `busy`: says only that it is not its turn. Returns
/// how many bytes of an archive were sent.
pub(super) async fn serve(mut stream: Stream, store: Arc<Store>, shelf: Arc<Shelf>, busy: bool) -> u64 {
    let heard = time::timeout(HEARING, frame::read(&mut stream, RANGE_BYTES)).await;
    let Ok(Ok(bytes)) = heard else { return 0 };
    let Ok(request) = RangeRequest::from_bytes(&bytes) else { return 0 };
    let body = match busy {
        true => None,
        false => spawn_blocking(move || shelf.piece(&store, &request)).await.ok().flatten(),
    };
    let answer = match &body {
        Some(Body { zstd, bytes }) => RangeAnswer::Piece { zstd: *zstd, len: bytes.len() as u64 },
        None if busy => RangeAnswer::Busy,
        None => RangeAnswer::Absent,
    };
    let said = async {
        time::timeout(STILL, frame::write(&mut stream, &answer.to_bytes())).await??;
        for step in body.iter().flat_map(|body| body.bytes.chunks(STEP)) {
            time::timeout(STILL, stream.write_all(step)).await??;
        }
        time::timeout(STILL, stream.close()).await?
    };
    // If whoever asked is gone, or too slow, he asks again.
    let said: io::Result<()> = said.await;
    body.filter(|_| said.is_ok()).map_or(0, |body| body.bytes.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that are given in `seconds` to whoever asks a hundred times in each.
    fn given(rate: Option<u64>, seconds: u64, bytes: u64) -> u64 {
        let begun = Instant::now();
        let mut upload = Upload::new(rate, begun);
        let mut given = 0;
        for n in 0..100 * seconds {
            while given < u64::MAX / 2 && upload.take(begun + Duration::from_millis(10 * n)) {
                upload.sent(bytes);
                given += bytes;
                if rate.is_none() {
                    break;
                }
            }
        }
        given
    }

    #[test]
    fn no_more_is_given_than_the_owner_says() {
        for rate in [10_000, 1 << 20, 50 << 20] {
            for bytes in [1_000, PIECE_BYTES] {
                let given = given(Some(rate), 100, bytes);
                assert!(given <= 100 * rate + PIECE_BYTES + bytes, "{rate}: {given}");
                assert!(given >= 98 * rate, "{rate}: {given}");
            }
        }
        assert_eq!(given(Some(0), 100, 1_000), 0);
        assert_eq!(given(None, 1, PIECE_BYTES), 100 * PIECE_BYTES);
    }

    #[test]
    fn a_long_pause_is_not_saved_up() {
        let begun = Instant::now();
        let mut upload = Upload::new(Some(2 * PIECE_BYTES), begun);
        let later = begun + Duration::from_secs(3600);
        assert_eq!((0..100).filter(|_| upload.take(later)).count(), 2);
    }

    /// A file may be open only when the fetch that it was for has ended.
    #[test]
    fn a_file_is_for_its_own_fetch() {
        let home = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(home.path(), |_| false).unwrap());
        let nar = NarHash::from_bytes([1; 32]);
        let open = |size| Open::new(&store, &nar, size).unwrap().unwrap();
        let mut fetches = Fetches::default();
        assert_eq!(fetches.opened(&nar, open(PIECE_BYTES)), None);
        let _watch = fetches.begin(nar, PIECE_BYTES);
        assert_eq!(fetches.opened(&nar, open(3 * PIECE_BYTES)), None);
        assert_eq!(fetches.opened(&nar, open(PIECE_BYTES)), Some(BTreeSet::from([0])));
    }
}
