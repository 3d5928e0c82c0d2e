//! Reading what a worker process says, on the parent's side: bounded, whatever the worker does.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

use super::job::{FRAME_BYTES, Frame};

/// Why what a worker said was not understood.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// It ended without an answer.
    #[error("it ended without an answer")]
    Closed,
    /// The pipe failed.
    #[error("the pipe failed")]
    Io(#[from] io::Error),
    /// A frame of no known kind.
    #[error("a frame of kind {0}")]
    Kind(u8),
    /// A frame longer than is allowed.
    #[error("a frame of {0} bytes")]
    TooLong(u32),
    /// An answer that is not what it should be.
    #[error("an answer that is not understood")]
    Answer(#[from] serde_json::Error),
}

/// Reads the next frame; `None` at the end.
pub(crate) async fn next(
    from: &mut (impl AsyncRead + Unpin),
) -> Result<Option<(Frame, Vec<u8>)>, FrameError> {
    let mut head = [0; 5];
    match from.read_exact(&mut head).await {
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(e) => return Err(e.into()),
    }
    let kind = match head[0] {
        b'L' => Frame::Log,
        b'S' => Frame::Step,
        b'A' => Frame::Answer,
        other => return Err(FrameError::Kind(other)),
    };
    let len = u32::from_le_bytes([head[1], head[2], head[3], head[4]]);
    if len as usize > FRAME_BYTES {
        return Err(FrameError::TooLong(len));
    }
    let mut bytes = vec![0; len as usize];
    match from.read_exact(&mut bytes).await {
        Ok(_) => Ok(Some((kind, bytes))),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Err(FrameError::Closed),
        Err(e) => Err(e.into()),
    }
}
