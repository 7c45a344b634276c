//! Reading one layer tar and handing its entries to the sink.
//!
//! Owns the order of things: directories get their times at the end, because what is put
//! into them moves those. Never touches a path itself; [`super::sink`] does.

use std::fs::File;
use std::io::{self, Read};
use std::sync::atomic::Ordering;

use pyro_protocol::code::ErrorCode;
use rustix::fs::Timespec;
use tar::{Archive, Entry, EntryType};

use super::Counters;
use super::sink::{Node, Owner, Sink, SinkError};

/// Name of an overlay whiteout in an image layer.
const WHITEOUT_PREFIX: &[u8] = b".wh.";

/// PAX records that carry extended attributes.
const XATTR_PREFIX: &str = "SCHILY.xattr.";

/// Why a layer could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub(super) enum LayerError {
    /// The bytes are no sound archive.
    #[error("the archive is damaged: {source}")]
    Archive {
        #[source]
        source: io::Error,
    },
    /// An entry of a kind that a root file system has no place for.
    #[error("`{path}` is an entry of the unsupported kind {kind:?}")]
    UnsupportedEntry { path: String, kind: EntryType },
    /// An entry could not be written.
    #[error("`{path}`: {source}")]
    Entry {
        path: String,
        #[source]
        source: SinkError,
    },
}

impl LayerError {
    pub(super) fn code(&self) -> ErrorCode {
        match self {
            Self::Archive { .. } => ErrorCode::GuestError,
            Self::UnsupportedEntry { .. } => ErrorCode::Unsupported,
            Self::Entry { source, .. } => source.code(),
        }
    }
}

/// Unpacks the first `size` bytes of `device`, a tar, below `root`.
pub(super) fn unpack(
    device: File,
    size: u64,
    root: &str,
    counters: &Counters,
) -> Result<(), LayerError> {
    let sink = Sink::open(root).map_err(|source| entry_error(b"/", source))?;
    let mut archive = Archive::new(Counted {
        inner: device.take(size),
        counters,
    });
    let mut directories: Vec<(Vec<u8>, Timespec)> = Vec::new();
    for entry in archive.entries().map_err(archive_error)? {
        let mut entry = entry.map_err(archive_error)?;
        if entry.header().entry_type().is_pax_global_extensions() {
            // Remarks of the archiver, such as the commit that it packed.
            continue;
        }
        let path = entry.path_bytes().into_owned();
        let node = node(&mut entry, &path)?;
        let modified = modified(&entry)?;
        let owner = owner(&entry)?;
        let xattrs = xattrs(&mut entry)?;
        if matches!(node, Node::Directory) {
            directories.push((path.clone(), modified));
        }
        sink.put(&path, &node, &mut entry, owner, modified, &xattrs)
            .map_err(|source| entry_error(&path, source))?;
        counters.entries.fetch_add(1, Ordering::Relaxed);
    }
    for (path, modified) in &directories {
        sink.set_directory_time(path, *modified)
            .map_err(|source| entry_error(path, source))?;
    }
    Ok(())
}

fn node<R: Read>(entry: &mut Entry<'_, R>, path: &[u8]) -> Result<Node, LayerError> {
    let kind = entry.header().entry_type();
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let unsupported = || LayerError::UnsupportedEntry {
        path: shown(path),
        kind,
    };
    if name.starts_with(WHITEOUT_PREFIX) {
        return Err(unsupported());
    }
    let link = || {
        entry
            .link_name_bytes()
            .map(std::borrow::Cow::into_owned)
            .unwrap_or_default()
    };
    Ok(match kind {
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Node::File,
        EntryType::Directory => Node::Directory,
        EntryType::Symlink => Node::Symlink(link()),
        EntryType::Link => Node::HardLink(link()),
        EntryType::Fifo => Node::Fifo,
        EntryType::Char | EntryType::Block => {
            let major = entry
                .header()
                .device_major()
                .map_err(archive_error)?
                .unwrap_or(0);
            let minor = entry
                .header()
                .device_minor()
                .map_err(archive_error)?
                .unwrap_or(0);
            let device = rustix::fs::makedev(major, minor);
            if kind == EntryType::Char {
                Node::CharDevice(device)
            } else {
                Node::BlockDevice(device)
            }
        }
        _ => return Err(unsupported()),
    })
}

fn owner<R: Read>(entry: &Entry<'_, R>) -> Result<Owner, LayerError> {
    let header = entry.header();
    let id = |value: io::Result<u64>| -> Result<u32, LayerError> {
        let value = value.map_err(archive_error)?;
        u32::try_from(value).map_err(|error| archive_error(io::Error::other(error)))
    };
    Ok(Owner {
        uid: id(header.uid())?,
        gid: id(header.gid())?,
        mode: header.mode().map_err(archive_error)? & 0o7777,
    })
}

fn modified<R: Read>(entry: &Entry<'_, R>) -> Result<Timespec, LayerError> {
    let seconds = entry.header().mtime().map_err(archive_error)?;
    Ok(Timespec {
        tv_sec: i64::try_from(seconds).unwrap_or(i64::MAX),
        tv_nsec: 0,
    })
}

fn xattrs<R: Read>(entry: &mut Entry<'_, R>) -> Result<Vec<(String, Vec<u8>)>, LayerError> {
    let mut found = Vec::new();
    if let Some(records) = entry.pax_extensions().map_err(archive_error)? {
        for record in records {
            let record = record.map_err(archive_error)?;
            if let Ok(key) = record.key()
                && let Some(name) = key.strip_prefix(XATTR_PREFIX)
            {
                found.push((name.to_owned(), record.value_bytes().to_owned()));
            }
        }
    }
    Ok(found)
}

fn archive_error(source: io::Error) -> LayerError {
    LayerError::Archive { source }
}

fn entry_error(path: &[u8], source: SinkError) -> LayerError {
    LayerError::Entry {
        path: shown(path),
        source,
    }
}

fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).chars().take(256).collect()
}

/// Counts the bytes that are read.
struct Counted<'a, R> {
    inner: R,
    counters: &'a Counters,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.counters
            .bytes
            .fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}
