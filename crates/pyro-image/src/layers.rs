//! The bytes of a layer: its tar, decoded, bounded, and compared with its `diff_id`.
//!
//! A layer is hostile until its last byte agrees. It must be compressed in the way that its media
//! type says, may decode to no more than the caller takes, and is read to its very end, because
//! the `diff_id` covers what stands behind the end of the tar as well. What a layer holds is not
//! looked at here, and nothing is written but what the caller writes. Everything here blocks.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::path::PathBuf;

use pyro_archive::codec::decode::{Compression, Decoder};
use pyro_archive::tar::{self, BLOCK};

use crate::digest::{Hasher, Sha256Digest};
use crate::disk::DiskError;
use crate::oci::{LayerBlob, LayerMediaType};

/// Bytes read and written at a time: large enough that system calls do not count beside the
/// decoding.
const CHUNK: usize = 256 * 1024;

/// A layer that cannot be read, or is not what it is said to be.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The blob could not be read.
    #[error(transparent)]
    Blob(DiskError),
    /// What receives the layer failed.
    #[error("cannot keep the layer {layer}")]
    Write {
        /// Digest of the blob.
        layer: Sha256Digest,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is compressed in another way than its media type says, or not at all.
    #[error("the layer {layer} is not what its type `{}` says", media_type.as_str())]
    NotAsSaid {
        /// Digest of the blob.
        layer: Sha256Digest,
        /// What it is said to be.
        media_type: LayerMediaType,
    },
    /// The compressed stream is damaged, or ends too early.
    #[error("the layer {layer} cannot be decoded as `{}`", media_type.as_str())]
    Corrupt {
        /// Digest of the blob.
        layer: Sha256Digest,
        /// What it is said to be.
        media_type: LayerMediaType,
        /// What the decoder says.
        #[source]
        source: io::Error,
    },
    /// It decodes to more than is taken.
    #[error("the layer {layer} has more than {limit} bytes once it is decoded")]
    TooLarge {
        /// Digest of the blob.
        layer: Sha256Digest,
        /// The limit in bytes.
        limit: u64,
    },
    /// What is inside the compression is not what the image's config names.
    #[error("the content of the layer {layer} should be {expected} and is {found}")]
    DiffIdMismatch {
        /// Digest of the blob.
        layer: Sha256Digest,
        /// The `diff_id` of the config.
        expected: Sha256Digest,
        /// What came.
        found: Sha256Digest,
    },
}

impl LayerError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Blob(error) => error.hint(),
            Self::Write { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                Some("free space on the file system that is written to".to_owned())
            }
            Self::Write { .. } => None,
            Self::TooLarge { .. } => Some("use a smaller image, or raise the limit".to_owned()),
            Self::NotAsSaid { .. } | Self::Corrupt { .. } | Self::DiffIdMismatch { .. } => {
                Some("ask who published the image to build it again".to_owned())
            }
        }
    }

    /// The layer's own error out of one that its reader gave, if it is one.
    pub fn from_read(error: io::Error) -> Result<Self, io::Error> {
        error.downcast()
    }
}

/// Writes a layer's tar to `out` and compares it with the layer's `diff_id`. Returns its bytes,
/// of which there are at most `max_bytes`. After an error `out` holds some part of what came.
pub fn unpack_layer(
    layer: &LayerBlob,
    out: &mut dyn Write,
    max_bytes: u64,
) -> Result<u64, LayerError> {
    let mut reader = LayerReader::open(layer, max_bytes)?;
    let failed = |source| LayerError::Write {
        layer: layer.digest,
        source,
    };
    let mut chunk = vec![0; CHUNK];
    loop {
        let count = reader.next_bytes(&mut chunk)?;
        if count == 0 {
            out.flush().map_err(failed)?;
            return reader.finish();
        }
        out.write_all(&chunk[..count]).map_err(failed)?;
    }
}

/// The decoded bytes of a layer, hashed as they pass. They count only once
/// [`finish`](Self::finish) has found that they agree.
///
/// As a [`Read`] it wraps its errors; [`LayerError::from_read`] gets them back.
pub struct LayerReader {
    layer: Sha256Digest,
    diff_id: Sha256Digest,
    media_type: LayerMediaType,
    max_bytes: u64,
    path: PathBuf,
    decoder: Decoder<BufReader<File>>,
    hasher: Hasher,
}

impl LayerReader {
    /// Opens a layer in the store and looks whether it is compressed as its media type says. It
    /// may decode to `max_bytes` bytes.
    pub fn open(layer: &LayerBlob, max_bytes: u64) -> Result<Self, LayerError> {
        let failed = |source| LayerError::Blob(DiskError::new("read", &layer.path, source));
        let mut input = BufReader::with_capacity(CHUNK, File::open(&layer.path).map_err(failed)?);
        let not_as_said = || LayerError::NotAsSaid {
            layer: layer.digest,
            media_type: layer.media_type,
        };
        let compression = match layer.media_type {
            LayerMediaType::Plain => Compression::None,
            LayerMediaType::Gzip => Compression::Gzip,
            LayerMediaType::Zstd => Compression::Zstd,
        };
        if compression == Compression::None && !is_tar(input.fill_buf().map_err(failed)?) {
            return Err(not_as_said());
        }
        let decoder = Decoder::new(input, compression).map_err(|error| {
            if error.kind() == io::ErrorKind::InvalidData {
                not_as_said()
            } else {
                failed(error)
            }
        })?;
        Ok(Self {
            layer: layer.digest,
            diff_id: layer.diff_id,
            media_type: layer.media_type,
            max_bytes,
            path: layer.path.clone(),
            decoder,
            hasher: Hasher::new(),
        })
    }

    /// Decoded bytes so far.
    pub fn decoded(&self) -> u64 {
        self.hasher.length()
    }

    /// Reads what is left and compares all of it with the `diff_id`. Returns the bytes of the
    /// whole.
    pub fn finish(mut self) -> Result<u64, LayerError> {
        let mut chunk = vec![0; CHUNK];
        while self.next_bytes(&mut chunk)? > 0 {}
        let found = self.hasher.finish();
        if found != self.diff_id {
            return Err(LayerError::DiffIdMismatch {
                layer: self.layer,
                expected: self.diff_id,
                found,
            });
        }
        Ok(self.hasher.length())
    }

    /// Reads some bytes, none at the end only.
    fn next_bytes(&mut self, buffer: &mut [u8]) -> Result<usize, LayerError> {
        let count = loop {
            match self.decoder.read(buffer) {
                Ok(count) => break count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(error)),
            }
        };
        self.hasher.update(&buffer[..count]);
        if self.hasher.length() > self.max_bytes {
            return Err(LayerError::TooLarge {
                layer: self.layer,
                limit: self.max_bytes,
            });
        }
        Ok(count)
    }

    fn failed(&self, source: io::Error) -> LayerError {
        // The kernel speaks in numbers, the decoders do not.
        if source.raw_os_error().is_some() {
            return LayerError::Blob(DiskError::new("read", &self.path, source));
        }
        LayerError::Corrupt {
            layer: self.layer,
            media_type: self.media_type,
            source,
        }
    }
}

impl Read for LayerReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.next_bytes(buffer).map_err(io::Error::other)
    }
}

/// Whether a file begins as a tar does: with a header, or with the zeros of an empty one.
fn is_tar(head: &[u8]) -> bool {
    head.first_chunk::<BLOCK>()
        .is_some_and(|block| tar::is_header(block) || block.iter().all(|byte| *byte == 0))
}

#[cfg(test)]
mod tests {
    use pyro_archive::codec::encode::{Encoder, Format};

    use super::*;

    const KINDS: [(Format, LayerMediaType); 3] = [
        (Format::Plain, LayerMediaType::Plain),
        (Format::Gzip, LayerMediaType::Gzip),
        (Format::Zstd, LayerMediaType::Zstd),
    ];

    struct World {
        dir: tempfile::TempDir,
    }

    impl World {
        fn new() -> Self {
            Self {
                dir: tempfile::tempdir().unwrap(),
            }
        }

        fn layer(&self, blob: &[u8], tar: &[u8], media_type: LayerMediaType) -> LayerBlob {
            let digest = Sha256Digest::of(blob);
            let path = self.dir.path().join(digest.hex());
            std::fs::write(&path, blob).unwrap();
            LayerBlob {
                digest,
                diff_id: Sha256Digest::of(tar),
                size: blob.len() as u64,
                media_type,
                title: None,
                path,
            }
        }
    }

    fn tar(size: usize) -> Vec<u8> {
        use pyro_archive::tar::header::{Kind, Member, Time};
        use pyro_archive::tar::write::Writer;
        let mut writer = Writer::new(Vec::new());
        let member = Member {
            path: b"file",
            kind: Kind::File(size as u64),
            mode: 0o644,
            uid: 0,
            gid: 0,
            modified: Time::default(),
            attributes: &[],
        };
        writer.member(&member).unwrap();
        writer.content(&vec![7; size]).unwrap();
        writer.finish().unwrap();
        writer.into_inner()
    }

    fn encoded(bytes: &[u8], format: Format) -> Vec<u8> {
        let mut encoder = Encoder::new(format);
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap();
        std::mem::take(encoder.ready())
    }

    fn unpacked(layer: &LayerBlob, max_bytes: u64) -> Result<Vec<u8>, LayerError> {
        let mut out = Vec::new();
        let length = unpack_layer(layer, &mut out, max_bytes)?;
        assert_eq!(length, out.len() as u64);
        Ok(out)
    }

    #[test]
    fn every_kind_of_layer_decodes_to_its_tar() {
        let world = World::new();
        let mut tar = tar(3 * CHUNK + 5);
        // What stands behind the end belongs to the layer as well.
        tar.extend_from_slice(&[0; 10 * BLOCK]);
        for (format, media_type) in KINDS {
            let layer = world.layer(&encoded(&tar, format), &tar, media_type);
            assert_eq!(unpacked(&layer, tar.len() as u64).unwrap(), tar);
            let error = unpacked(&layer, tar.len() as u64 - 1).unwrap_err();
            assert!(matches!(error, LayerError::TooLarge { .. }), "{error}");
        }
    }

    #[test]
    fn a_type_that_lies_is_told_by_its_name() {
        let world = World::new();
        let tar = tar(10);
        for (format, _) in KINDS {
            for (other, media_type) in KINDS {
                let blob = encoded(&tar, format);
                let read = unpacked(&world.layer(&blob, &tar, media_type), 1 << 20);
                if format == other {
                    read.unwrap();
                    continue;
                }
                let error = read.unwrap_err();
                assert!(matches!(error, LayerError::NotAsSaid { .. }), "{error}");
                assert!(error.to_string().contains(media_type.as_str()), "{error}");
            }
        }
        for blob in [&b""[..], b"no tar"] {
            let error = unpacked(&world.layer(blob, blob, LayerMediaType::Plain), 99).unwrap_err();
            assert!(matches!(error, LayerError::NotAsSaid { .. }), "{error}");
        }
    }

    #[test]
    fn damage_is_found_wherever_it_is() {
        let world = World::new();
        let tar = tar(CHUNK);
        for (format, media_type) in KINDS {
            let blob = encoded(&tar, format);
            let cut = world.layer(&blob[..blob.len() - 1], &tar, media_type);
            let error = unpacked(&cut, 1 << 20).unwrap_err();
            if media_type == LayerMediaType::Plain {
                assert!(matches!(error, LayerError::DiffIdMismatch { .. }));
            } else {
                assert!(matches!(error, LayerError::Corrupt { .. }), "{error:?}");
                assert!(error.hint().is_some());
            }
            let other = world.layer(&blob, b"other", media_type);
            let error = unpacked(&other, 1 << 20).unwrap_err();
            let LayerError::DiffIdMismatch {
                expected, found, ..
            } = error
            else {
                panic!("{error:?}");
            };
            assert_eq!(expected, Sha256Digest::of(b"other"));
            assert_eq!(found, Sha256Digest::of(&tar));
        }
        let behind = [&encoded(&tar, Format::Gzip), &b"more"[..]].concat();
        let error = unpacked(&world.layer(&behind, &tar, LayerMediaType::Gzip), 1 << 20);
        assert!(matches!(error, Err(LayerError::Corrupt { .. })));
    }

    #[test]
    fn a_full_disk_is_the_writers_fault() {
        let world = World::new();
        let tar = tar(10);
        let layer = world.layer(&tar, &tar, LayerMediaType::Plain);
        let mut full = File::options().write(true).open("/dev/full").unwrap();
        let error = unpack_layer(&layer, &mut full, 1 << 20).unwrap_err();
        assert!(matches!(error, LayerError::Write { .. }), "{error}");
        assert!(error.hint().unwrap().contains("free space"));
    }

    #[test]
    fn a_reader_gives_its_own_error_back() {
        let world = World::new();
        let tar = tar(10);
        let layer = world.layer(&tar, &tar, LayerMediaType::Plain);
        let mut reader = LayerReader::open(&layer, 100).unwrap();
        let error = io::copy(&mut reader, &mut io::sink()).unwrap_err();
        let error = LayerError::from_read(error).unwrap();
        assert!(matches!(error, LayerError::TooLarge { limit: 100, .. }));
    }
}
