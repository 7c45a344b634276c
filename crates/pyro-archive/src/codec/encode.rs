//! Compressing a stream.
//!
//! What comes out is collected in a vector that the caller empties, so that nothing here waits
//! for whoever takes it. There is one level of each format, the quickest: the ends of the link
//! are on one host, and a guest may be emulated.

use std::io::{self, Write};

use flate2::write::GzEncoder;
use ruzstd::encoding::{CompressionLevel, compress};

/// Bytes that a zstd frame holds: as much is collected before it is compressed.
const ZSTD_FRAME: usize = 512 * 1024;

/// How a stream is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Not at all.
    Plain,
    /// One gzip member without name or time.
    Gzip,
    /// Zstandard frames one after another, which every reader takes for one stream.
    Zstd,
}

/// Compresses what is written to it.
#[derive(Debug)]
pub struct Encoder(State);

#[derive(Debug)]
enum State {
    Plain(Vec<u8>),
    Gzip(Box<GzEncoder<Vec<u8>>>),
    Zstd { waiting: Vec<u8>, out: Vec<u8> },
}

impl Encoder {
    /// An empty stream.
    pub fn new(format: Format) -> Self {
        Self(match format {
            Format::Plain => State::Plain(Vec::new()),
            Format::Gzip => {
                let fast = flate2::Compression::fast();
                State::Gzip(Box::new(GzEncoder::new(Vec::new(), fast)))
            }
            Format::Zstd => State::Zstd {
                waiting: Vec::new(),
                out: Vec::new(),
            },
        })
    }

    /// The bytes that are ready and were not taken; to be emptied now and then.
    pub fn ready(&mut self) -> &mut Vec<u8> {
        match &mut self.0 {
            State::Plain(out) | State::Zstd { out, .. } => out,
            State::Gzip(encoder) => encoder.get_mut(),
        }
    }

    /// Ends the stream: everything is [`ready`](Self::ready), and nothing can be added.
    pub fn finish(&mut self) -> io::Result<()> {
        match &mut self.0 {
            State::Plain(_) => Ok(()),
            State::Gzip(encoder) => encoder.try_finish(),
            State::Zstd { waiting, out } => {
                zstd_frame(waiting, out);
                Ok(())
            }
        }
    }
}

impl Write for Encoder {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            State::Plain(out) => out.extend_from_slice(bytes),
            State::Gzip(encoder) => return encoder.write(bytes),
            State::Zstd { waiting, out } => {
                waiting.extend_from_slice(bytes);
                if waiting.len() >= ZSTD_FRAME {
                    zstd_frame(waiting, out);
                }
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn zstd_frame(waiting: &mut Vec<u8>, out: &mut Vec<u8>) {
    if !waiting.is_empty() {
        compress(&waiting[..], out, CompressionLevel::Fastest);
        waiting.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    /// What the program `argv` makes of `bytes`.
    fn through(argv: &[&str], bytes: &[u8]) -> Vec<u8> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let output = Command::new(argv[0])
            .args(&argv[1..])
            .stdin(Stdio::from(file.reopen().unwrap()))
            .output()
            .unwrap();
        assert!(output.status.success(), "{argv:?}: {output:?}");
        output.stdout
    }

    fn encoded(format: Format, pieces: &[&[u8]]) -> Vec<u8> {
        let mut encoder = Encoder::new(format);
        let mut taken = Vec::new();
        for piece in pieces {
            encoder.write_all(piece).unwrap();
            taken.append(encoder.ready());
        }
        encoder.finish().unwrap();
        taken.append(encoder.ready());
        taken
    }

    #[test]
    fn gzip_and_zstd_read_it() {
        // Repetitive, incompressible and empty stretches, over several frames.
        let mut random = 1_u64;
        let noise: Vec<u8> = (0..700_000)
            .map(|_| {
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                random.to_be_bytes()[0]
            })
            .collect();
        let text = b"the same words over and over again\n".repeat(40_000);
        let zeros = vec![0; 300_000];
        let pieces: [&[u8]; 5] = [&text, b"", &noise, &zeros, b"end"];
        let whole = pieces.concat();
        for (format, program) in [(Format::Gzip, "gzip"), (Format::Zstd, "zstd")] {
            let bytes = encoded(format, &pieces);
            assert!(bytes.len() < noise.len() + whole.len() / 10, "{format:?}");
            assert!(through(&[program, "-dc"], &bytes) == whole, "{format:?}");
            assert_eq!(bytes, encoded(format, &pieces), "{format:?}");
        }
        assert!(encoded(Format::Plain, &pieces) == whole);
        assert_eq!(through(&["gzip", "-dc"], &encoded(Format::Gzip, &[])), b"");
    }
}
