//! One message on a stream: its length in four bytes, the most significant first, and its bytes.

use std::io;

use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Reads a message of at most `limit` bytes.
///
/// # Errors
///
/// The stream failed or ended, or the message is longer: then nothing of it was read.
pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin), limit: usize) -> io::Result<Vec<u8>> {
    let mut len = [0; 4];
    stream.read_exact(&mut len).await?;
    let len = u32::from_be_bytes(len) as usize;
    if len > limit {
        let why = format!("a message of {len} bytes, but at most {limit} are allowed");
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    let mut bytes = Vec::new();
    // Grows with what comes, so that a length alone costs nothing.
    stream.take(len as u64).read_to_end(&mut bytes).await?;
    if bytes.len() < len {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes)
}

/// Writes a message.
///
/// # Errors
///
/// The stream failed.
pub(crate) async fn write(stream: &mut (impl AsyncWrite + Unpin), message: &[u8]) -> io::Result<()> {
    let len = u32::try_from(message.len()).map_err(io::Error::other)?;
    stream.write_all(&len.to_be_bytes()).await?;
    stream.write_all(message).await?;
    stream.flush().await
}

#[cfg(test)]
mod tests {
    use futures::io::Cursor;

    use super::*;

    #[tokio::test]
    async fn bounded() {
        let mut written = Cursor::new(Vec::new());
        write(&mut written, b"hello").await.unwrap();
        let bytes = written.into_inner();
        assert_eq!(read(&mut Cursor::new(&bytes), 5).await.unwrap(), b"hello");
        assert_eq!(read(&mut Cursor::new(&bytes), 4).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        let cut = read(&mut Cursor::new(&bytes[..8]), 5).await.unwrap_err();
        assert_eq!(cut.kind(), io::ErrorKind::UnexpectedEof);
    }
}
