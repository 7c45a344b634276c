//! Reading what may be compressed.
//!
//! Tells plain, gzip and zstd by their first bytes; streams of several members or frames are
//! one. Memory is bounded whatever the stream asks for: 32 KiB of window for gzip, at most
//! [`MAX_ZSTD_WINDOW`] for zstd. How much comes out is for the reader to bound.

use std::io::{self, BufRead, Cursor, Read};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use crate::bounds::MAX_ZSTD_WINDOW;
use crate::tar::{self, BLOCK};

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// What a stream is said to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Whatever its first bytes tell.
    #[default]
    Auto,
    /// Not compressed.
    None,
    /// One gzip member or several.
    Gzip,
    /// One zstd frame or several.
    Zstd,
}

/// Why a stream cannot be decoded. Comes inside an [`io::Error`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It is compressed in a way that is not supported.
    #[error("the archive is compressed with {name}; send it plain, or with gzip or zstd")]
    Unsupported {
        /// In which.
        name: &'static str,
    },
    /// It is not what it was said to be.
    #[error("the archive is not compressed with {name}, as was said")]
    NotAsSaid {
        /// What was said.
        name: &'static str,
    },
    /// Decoding it would take too much memory.
    #[error(
        "the archive needs a zstd window of {requested} bytes, and {limit} is the limit; compress it without `--long` or `--ultra`"
    )]
    Window {
        /// Bytes that it asks for.
        requested: u64,
        /// Bytes that are allowed.
        limit: u64,
    },
    /// It is no sound zstd stream.
    #[error("the zstd stream is damaged: {what}")]
    Zstd {
        /// What the decoder says.
        what: String,
    },
}

impl From<DecodeError> for io::Error {
    fn from(error: DecodeError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

/// The plain bytes of a stream.
#[derive(Debug)]
pub struct Decoder<R: BufRead>(Form<R>);

/// A stream whose first bytes were looked at.
type Looked<R> = io::Chain<Cursor<Vec<u8>>, R>;

#[derive(Debug)]
enum Form<R: BufRead> {
    Plain(Looked<R>),
    Gzip(Box<MultiGzDecoder<Looked<R>>>),
    Zstd(Box<Zstd<Looked<R>>>),
}

impl<R: BufRead> Decoder<R> {
    /// Looks at the first bytes of `input`, which is said to be `compression`.
    pub fn new(mut input: R, compression: Compression) -> io::Result<Self> {
        let mut head = Vec::with_capacity(BLOCK);
        (&mut input).take(BLOCK as u64).read_to_end(&mut head)?;
        let form = match compression {
            Compression::Auto => detect(&head)?,
            Compression::None => Compression::None,
            Compression::Gzip if !head.starts_with(GZIP) => {
                return Err(DecodeError::NotAsSaid { name: "gzip" }.into());
            }
            Compression::Zstd if !is_zstd(&head) => {
                return Err(DecodeError::NotAsSaid { name: "zstd" }.into());
            }
            said @ (Compression::Gzip | Compression::Zstd) => said,
        };
        let looked = Cursor::new(head).chain(input);
        Ok(Self(match form {
            Compression::Auto | Compression::None => Form::Plain(looked),
            Compression::Gzip => Form::Gzip(Box::new(MultiGzDecoder::new(looked))),
            Compression::Zstd => Form::Zstd(Box::new(Zstd::new(looked))),
        }))
    }

    /// Whether the stream is not compressed.
    pub fn is_plain(&self) -> bool {
        matches!(self.0, Form::Plain(_))
    }
}

impl<R: BufRead> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Form::Plain(plain) => plain.read(buffer),
            Form::Gzip(gzip) => gzip.read(buffer),
            Form::Zstd(zstd) => zstd.read(buffer),
        }
    }
}

/// What the first bytes of a stream say that it is.
fn detect(head: &[u8]) -> io::Result<Compression> {
    // A name at the start of a plain archive may look like anything.
    if let Ok(block) = <&[u8; BLOCK]>::try_from(head)
        && tar::is_header(block)
    {
        return Ok(Compression::None);
    }
    if head.starts_with(GZIP) {
        return Ok(Compression::Gzip);
    }
    if is_zstd(head) {
        return Ok(Compression::Zstd);
    }
    for (magic, name) in [
        (&b"\xfd7zXZ\0"[..], "xz"),
        (b"BZh", "bzip2"),
        (b"LZIP", "lzip"),
        (b"\x1f\x9d", "compress"),
        (b"\x04\x22\x4d\x18", "lz4"),
        (b"PK\x03\x04", "zip"),
    ] {
        if head.starts_with(magic) {
            return Err(DecodeError::Unsupported { name }.into());
        }
    }
    Ok(Compression::None)
}

/// Whether a zstd frame begins here, be it one to skip.
fn is_zstd(head: &[u8]) -> bool {
    let skippable = matches!(head, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..]);
    head.starts_with(ZSTD) || skippable
}

/// The frames of a zstd stream, one after the other.
struct Zstd<R> {
    input: R,
    decoder: FrameDecoder,
    in_frame: bool,
}

impl<R> std::fmt::Debug for Zstd<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Zstd").finish_non_exhaustive()
    }
}

impl<R: BufRead> Zstd<R> {
    fn new(input: R) -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(MAX_ZSTD_WINDOW);
        Self {
            input,
            decoder,
            in_frame: false,
        }
    }

    /// Begins the next frame; whether there is one.
    fn begin(&mut self) -> io::Result<bool> {
        loop {
            if self.input.fill_buf()?.is_empty() {
                return Ok(false);
            }
            match self.decoder.reset(&mut self.input) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let length = u64::from(length);
                    let skipped = io::copy(&mut (&mut self.input).take(length), &mut io::sink())?;
                    if skipped < length {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error) => return Err(told(&error)),
            }
        }
    }

    /// Checks what the frame says about its own content.
    fn end(&self) -> io::Result<()> {
        let said = self.decoder.get_checksum_from_data();
        if said.is_some() && said != self.decoder.get_calculated_checksum() {
            return Err(DecodeError::Zstd {
                what: "the checksum is wrong".into(),
            }
            .into());
        }
        Ok(())
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.in_frame {
                if !self.begin()? {
                    return Ok(0);
                }
                self.in_frame = true;
            }
            if self.decoder.can_collect() > 0 {
                return self.decoder.read(buffer);
            }
            if self.decoder.is_finished() {
                self.end()?;
                self.in_frame = false;
                continue;
            }
            // A block at a time: what it yields is at most 128 KiB.
            self.decoder
                .decode_blocks(&mut self.input, BlockDecodingStrategy::UptoBlocks(1))
                .map_err(|error| told(&error))?;
        }
    }
}

fn told(error: &FrameDecoderError) -> io::Error {
    if let FrameDecoderError::WindowSizeTooBig { requested, max } = error {
        return DecodeError::Window {
            requested: *requested,
            limit: *max,
        }
        .into();
    }
    // What the input says is not the stream's fault; an end that comes too early is one
    // kind of it.
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        if let Some(input) = inner.downcast_ref::<io::Error>() {
            return io::Error::from(input.kind());
        }
        source = inner.source();
    }
    DecodeError::Zstd {
        what: error.to_string(),
    }
    .into()
}
