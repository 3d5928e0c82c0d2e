//! Compressed files: recognising and reading them.
//!
//! All of them are read to the end of the last stream or frame, concatenated ones included, and
//! every checksum in them is compared.

use std::error::Error;
use std::io::{self, BufRead, ErrorKind, Read};
use std::path::Path;

use bzip2::bufread::MultiBzDecoder;
use flate2::bufread::MultiGzDecoder;
use lzma_rust2::XzReader;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// The largest window that an archive may ask for, in KiB: what `zstd --long` and `xz -9` need,
/// with some room; an archive of a few bytes could ask for 4 GiB.
const WINDOW_KIB: u32 = 160 * 1024;

/// How a file is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    Gzip,
    Xz,
    Bzip2,
    Zstd,
}

impl Compression {
    /// How a file that starts like this is compressed, if it is.
    pub(crate) fn of(start: &[u8]) -> Option<Self> {
        match start {
            [0x1f, 0x8b, 8, ..] => Some(Self::Gzip),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Self::Xz),
            // Then a block, or the end, by the digits of pi or of its square root.
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, ..]
            | [b'B', b'Z', b'h', b'1'..=b'9', 0x17, 0x72, ..] => Some(Self::Bzip2),
            // A frame, or one to skip.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some(Self::Zstd),
            _ => None,
        }
    }

    /// What is compressed in `file`.
    pub(crate) fn reader<'a>(self, file: impl BufRead + 'a) -> Box<dyn Read + 'a> {
        match self {
            Self::Gzip => Box::new(MultiGzDecoder::new(file)),
            Self::Xz => Box::new(XzReader::new_mem_limit(file, true, WINDOW_KIB)),
            Self::Bzip2 => Box::new(MultiBzDecoder::new(file)),
            Self::Zstd => Box::new(ZstdReader::new(file)),
        }
    }

    /// What to call the content of the compressed file `archive`: the same, without its suffix.
    pub(crate) fn content_name(self, archive: &Path) -> String {
        let suffix = match self {
            Self::Gzip => ".gz",
            Self::Xz => ".xz",
            Self::Bzip2 => ".bz2",
            Self::Zstd => ".zst",
        };
        let name = archive.file_name().unwrap_or_default().to_string_lossy();
        match name.strip_suffix(suffix) {
            Some(stem) if !stem.is_empty() => stem.to_owned(),
            _ => name.into_owned(),
        }
    }
}

/// Reads all frames of a Zstandard file and compares their checksums, both of which the decoder
/// leaves to its user.
struct ZstdReader<R> {
    source: R,
    decoder: FrameDecoder,
    is_in_frame: bool,
    /// How many bytes of this frame were read.
    total: u64,
}

impl<R: BufRead> ZstdReader<R> {
    fn new(source: R) -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(u64::from(WINDOW_KIB) * 1024);
        Self {
            source,
            decoder,
            is_in_frame: false,
            total: 0,
        }
    }

    /// Goes on to the next frame, if there is one.
    fn start_frame(&mut self) -> io::Result<bool> {
        while !self.source.fill_buf()?.is_empty() {
            match self.decoder.reset(&mut self.source) {
                Ok(()) => {
                    self.is_in_frame = true;
                    self.total = 0;
                    return Ok(true);
                }
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => skip(&mut self.source, u64::from(length))?,
                Err(error) => return Err(plain(error)),
            }
        }
        Ok(false)
    }

    fn read_frame(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
            self.decoder
                .decode_blocks(&mut self.source, BlockDecodingStrategy::UptoBlocks(1))
                .map_err(plain)?;
        }
        let count = self.decoder.read(buffer)?;
        self.total += count as u64;
        Ok(count)
    }

    fn end_frame(&mut self) -> io::Result<()> {
        self.is_in_frame = false;
        // The decoder says 0 if the frame does not tell its size.
        let size = self.decoder.content_size();
        let has_size = size == 0 || size == self.total;
        let checksum = self.decoder.get_checksum_from_data();
        let has_checksum = checksum.is_none() || checksum == self.decoder.get_calculated_checksum();
        if has_size && has_checksum {
            Ok(())
        } else {
            let fault = "size or checksum of a frame does not match";
            Err(io::Error::new(ErrorKind::InvalidData, fault))
        }
    }
}

impl<R: BufRead> Read for ZstdReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        while self.is_in_frame || self.start_frame()? {
            let count = self.read_frame(buffer)?;
            if count > 0 {
                return Ok(count);
            }
            self.end_frame()?;
        }
        Ok(0)
    }
}

/// Reads and forgets `count` bytes.
pub(crate) fn skip(source: &mut dyn Read, count: u64) -> io::Result<()> {
    let skipped = io::copy(&mut source.take(count), &mut io::sink())?;
    if skipped < count {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

/// The decoder's error as one of I/O; an early end, wherever in it, as such.
fn plain(error: FrameDecoderError) -> io::Error {
    let mut cause: Option<&(dyn Error + 'static)> = Some(&error);
    while let Some(inner) = cause {
        if let Some(inner) = inner.downcast_ref::<io::Error>()
            && inner.kind() == ErrorKind::UnexpectedEof
        {
            return ErrorKind::UnexpectedEof.into();
        }
        cause = inner.source();
    }
    io::Error::new(ErrorKind::InvalidData, error.to_string())
}
