//! A layer with one file: a tar that is put together while it is read.
//!
//! Header, content, padding and end; only the content lies on a disk, perhaps. Names, times and
//! owners are the same for everybody.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use pyro_archive::tar::BLOCK;
use pyro_archive::tar::header::{Kind, Member, Time};
use rustix::fs::{Mode, OFlags};

use super::PublishError;
use crate::digest::{Hasher, Sha256Digest};
use crate::disk::DiskError;
use crate::progress::{self, ProgressSink};

/// Bytes read at a time.
const CHUNK: usize = 4 * 1024 * 1024;
/// Two blocks of zeros end a tar.
const END: u64 = 2 * BLOCK as u64;

/// A layer, its digest known.
#[derive(Debug)]
pub(crate) struct TarLayer {
    name: &'static str,
    header: Vec<u8>,
    content: Content,
    length: u64,
    digest: Sha256Digest,
}

#[derive(Debug)]
enum Content {
    Bytes(Vec<u8>),
    File {
        file: File,
        path: PathBuf,
        mark: Mark,
    },
}

/// What shows that a file was not touched.
type Mark = (u64, i64, i64, u64);

impl TarLayer {
    /// A layer with these bytes as its file.
    pub(super) fn of_bytes(name: &'static str, bytes: Vec<u8>) -> Self {
        let length = bytes.len() as u64;
        let mut layer = Self::new(name, Content::Bytes(bytes), length);
        let mut tar = vec![0; usize::try_from(layer.size()).expect("it is in memory")];
        layer.read_at(0, &mut tar).expect("memory can be read");
        layer.digest = Sha256Digest::of(&tar);
        layer
    }

    /// A layer with a file of this host. Reads all of it, blocking.
    pub(super) fn of_file(
        name: &'static str,
        path: &Path,
        progress: &ProgressSink,
    ) -> Result<Self, PublishError> {
        let failed = |source| PublishError::from(DiskError::new("read", path, source));
        // A pipe without a writer must not hold us up.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let opened = rustix::fs::open(path, flags, Mode::empty());
        let file = File::from(opened.map_err(|error| failed(error.into()))?);
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() || metadata.len() == 0 {
            return Err(PublishError::NotAFile {
                path: path.to_owned(),
            });
        }
        let mark = mark(&file).map_err(failed)?;
        let content = Content::File {
            file,
            path: path.to_owned(),
            mark,
        };
        let mut layer = Self::new(name, content, metadata.len());
        let mut hasher = Hasher::new();
        let mut chunk = vec![0; CHUNK];
        while hasher.length() < layer.size() {
            let count = layer.read_at(hasher.length(), &mut chunk)?;
            hasher.update(&chunk[..count]);
            progress::bytes(progress, name, hasher.length(), Some(layer.size()));
        }
        layer.check()?;
        layer.digest = hasher.finish();
        Ok(layer)
    }

    fn new(name: &'static str, content: Content, length: u64) -> Self {
        let member = Member {
            path: name.as_bytes(),
            kind: Kind::File(length),
            mode: 0o644,
            uid: 0,
            gid: 0,
            modified: Time::default(),
            attributes: &[],
        };
        let mut header = Vec::new();
        member.encode(&mut header);
        Self {
            name,
            header,
            content,
            length,
            digest: Sha256Digest::of(&[]),
        }
    }

    /// The file's name in the tar, and the layer's title.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// Digest of the tar, which is not compressed: also its `diff_id`.
    pub(crate) fn digest(&self) -> Sha256Digest {
        self.digest
    }

    /// Bytes of the tar.
    pub(crate) fn size(&self) -> u64 {
        let padded = self.length.next_multiple_of(BLOCK as u64);
        self.header.len() as u64 + padded + END
    }

    /// Fills `buffer` with the tar's bytes from `offset` on, unless the tar ends before. Returns
    /// how many there are. Blocking.
    pub(crate) fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, PublishError> {
        let left = self.size().saturating_sub(offset);
        let count = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let buffer = &mut buffer[..count];
        let mut filled = 0;
        while filled < count {
            filled += self.piece(offset + filled as u64, &mut buffer[filled..])?;
        }
        Ok(count)
    }

    /// Whether the file is as it was when it was hashed; bytes that were read before count then.
    pub(crate) fn check(&self) -> Result<(), PublishError> {
        let Content::File { file, path, mark } = &self.content else {
            return Ok(());
        };
        match self::mark(file) {
            Ok(now) if now == *mark => Ok(()),
            Ok(_) => Err(self.changed()),
            Err(source) => Err(DiskError::new("read", path, source).into()),
        }
    }

    /// The error that says that its file was changed.
    pub(crate) fn changed(&self) -> PublishError {
        let path = match &self.content {
            Content::File { path, .. } => path.clone(),
            Content::Bytes(_) => self.name.into(),
        };
        PublishError::SourceChanged { path }
    }

    /// The bytes at an offset within the tar, up to the end of its part.
    fn piece(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, PublishError> {
        let header = self.header.len() as u64;
        if let Some(rest) = usize::try_from(offset)
            .ok()
            .and_then(|at| self.header.get(at..))
            .filter(|rest| !rest.is_empty())
        {
            let count = rest.len().min(buffer.len());
            buffer[..count].copy_from_slice(&rest[..count]);
            return Ok(count);
        }
        let at = offset - header;
        let left = self.length.saturating_sub(at);
        if left == 0 {
            buffer.fill(0);
            return Ok(buffer.len());
        }
        let count = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let buffer = &mut buffer[..count];
        match &self.content {
            Content::Bytes(bytes) => {
                let at = usize::try_from(at).expect("it is in memory");
                buffer.copy_from_slice(&bytes[at..at + count]);
            }
            Content::File { file, path, .. } => {
                file.read_exact_at(buffer, at).map_err(|source| {
                    if source.kind() == io::ErrorKind::UnexpectedEof {
                        self.changed()
                    } else {
                        DiskError::new("read", path, source).into()
                    }
                })?;
            }
        }
        Ok(count)
    }
}

fn mark(file: &File) -> io::Result<Mark> {
    let metadata = file.metadata()?;
    Ok((
        metadata.len(),
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.ino(),
    ))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn whole(layer: &TarLayer, step: usize) -> Vec<u8> {
        let mut tar = Vec::new();
        let mut chunk = vec![1; step];
        loop {
            let count = layer.read_at(tar.len() as u64, &mut chunk).unwrap();
            if count == 0 {
                return tar;
            }
            tar.extend_from_slice(&chunk[..count]);
        }
    }

    #[test]
    fn a_file_and_its_bytes_make_the_same_tar_in_pieces_of_any_size() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let content: Vec<u8> = (0..1300_u32).map(|number| (number % 251) as u8).collect();
        file.write_all(&content).unwrap();
        let of_file = TarLayer::of_file("vmlinux", file.path(), &progress::ignore()).unwrap();
        let of_bytes = TarLayer::of_bytes("vmlinux", content);
        assert_eq!(of_file.digest(), of_bytes.digest());
        assert_eq!(of_file.size(), 512 + 1536 + 1024);
        let tar = whole(&of_file, 4096);
        assert_eq!(Sha256Digest::of(&tar), of_file.digest());
        for step in [1, 511, 513, 1299] {
            assert_eq!(whole(&of_file, step), tar);
            assert_eq!(whole(&of_bytes, step), tar);
        }
    }

    #[test]
    fn a_file_that_changes_is_noticed() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let opened = |file: &tempfile::NamedTempFile| {
            TarLayer::of_file("vmlinux", file.path(), &progress::ignore())
        };
        let empty = opened(&file).unwrap_err();
        assert!(matches!(empty, PublishError::NotAFile { .. }), "{empty}");
        file.write_all(&[1; 4096]).unwrap();
        let layer = opened(&file).unwrap();
        layer.check().unwrap();
        file.as_file().set_len(100).unwrap();
        let error = layer.read_at(512, &mut [0; 4096]).unwrap_err();
        assert!(matches!(error, PublishError::SourceChanged { .. }));
        let error = layer.check().unwrap_err();
        assert!(matches!(error, PublishError::SourceChanged { .. }));
    }
}
