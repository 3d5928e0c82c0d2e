//! Archives on the way, in and out: the files behind what the peer decides about pieces.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use libp2p::{PeerId, Stream};
use protocol::{
    id::NarHash,
    limits::RANGE_BYTES,
    message::{RangeAnswer, RangeRequest},
};
use serde::{Deserialize, Serialize};
use store::{AdmitError, Busy, DiskError, Partial, Store};
use tokio::{
    sync::watch,
    task::{AbortHandle, spawn_blocking},
    time,
};
use trust::peer::{GaveUp, Piece};

use super::HEARING;
use crate::net::{
    self,
    blob::{self, Body, Shelf},
    frame,
};

/// How long the other side may take to find a piece: of a long archive it has to make the tree first.
const FINDING: Duration = Duration::from_secs(60);

/// How long a stream may stand still while a piece crosses it.
const STILL: Duration = Duration::from_secs(15);

/// Bytes of a piece that are read, or written, before that is looked at.
const STEP: usize = 64 << 10;

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
    partial: Arc<Mutex<Option<Open>>>,
    here: u64,
    pieces: u64,
}

/// A file that grows; nobody sweeps meanwhile.
pub(super) struct Open {
    partial: Partial,
    busy: Busy,
}

impl Open {
    /// Opens what is there of an archive. Blocks.
    pub(super) fn new(store: &Arc<Store>, nar: &NarHash, size: u64) -> Result<Self, DiskError> {
        Ok(Self { busy: store.busy(), partial: store.partial(nar, size)? })
    }

    pub(super) fn partial(&self) -> &Partial {
        &self.partial
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
    pub(super) fn begin(&mut self, nar: NarHash, pieces: u64) -> watch::Receiver<Fetched> {
        let (state, watch) = watch::channel(Fetched::Coming { here: 0, pieces });
        self.fetches.insert(nar, Fetching { state, partial: Arc::default(), here: 0, pieces });
        watch
    }

    /// Its file is open.
    pub(super) fn opened(&mut self, nar: &NarHash, open: Open) {
        if let Some(fetching) = self.fetches.get_mut(nar) {
            fetching.here = fetching.pieces - open.partial.left();
            // Nobody writes yet.
            *fetching.partial.lock().unwrap_or_else(PoisonError::into_inner) = Some(open);
            fetching.tell();
        }
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
    pub(super) fn file(&self, nar: &NarHash) -> Option<Arc<Mutex<Option<Open>>>> {
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

fn sync(partial: &Mutex<Option<Open>>) {
    if let Some(open) = &mut *partial.lock().unwrap_or_else(PoisonError::into_inner) {
        // If it is lost, it is fetched once more.
        let _ = open.partial.sync();
    }
}

/// Takes the file of an archive all of whose pieces are here and gives it its name. Blocks.
pub(super) fn admit(store: &Store, file: &Mutex<Option<Open>>) -> Result<(), AdmitError> {
    let open = file.lock().unwrap_or_else(PoisonError::into_inner).take();
    open.map_or(Ok(()), |open| open.admit(store))
}

/// Asks a node for a piece, verifies it, and keeps it.
pub(super) async fn fetch(
    mut streams: libp2p_stream::Control,
    peer: PeerId,
    request: RangeRequest,
    file: Arc<Mutex<Option<Open>>>,
) -> Piece {
    let body = match ask(&mut streams, peer, &request).await {
        Ok(Ok(body)) => body,
        Ok(Err(piece)) => return piece,
        Err(_) => return Piece::Failed,
    };
    let bytes = body.bytes.len() as u64;
    let kept = spawn_blocking(move || {
        let Some(piece) = blob::read(&request, body) else { return Piece::Wrong };
        match &mut *file.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(open) => match open.partial.write(request.piece, &piece) {
                Ok(()) => Piece::Came { bytes },
                Err(_) => Piece::Disk,
            },
            None => Piece::Failed,
        }
    });
    kept.await.unwrap_or(Piece::Failed)
}

async fn ask(
    streams: &mut libp2p_stream::Control,
    peer: PeerId,
    request: &RangeRequest,
) -> io::Result<Result<Body, Piece>> {
    let exchange = async {
        let mut stream = streams.open_stream(peer, net::BLOB).await.map_err(io::Error::other)?;
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
