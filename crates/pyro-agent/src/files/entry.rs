//! What stands at a path, as a peer is told.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pyro_protocol::files::{ArtifactType, FileEntry};
use rustix::fs::{AtFlags, FileType, Stat};

/// The type that the mode of `stat` tells.
pub(crate) fn artifact_type(stat: &Stat) -> ArtifactType {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => ArtifactType::Directory,
        FileType::Symlink => ArtifactType::Symlink,
        FileType::Fifo => ArtifactType::Fifo,
        FileType::Socket => ArtifactType::Socket,
        FileType::CharacterDevice => ArtifactType::CharDevice,
        FileType::BlockDevice => ArtifactType::BlockDevice,
        FileType::RegularFile | FileType::Unknown => ArtifactType::File,
    }
}

/// Permission bits.
pub(crate) fn mode(stat: &Stat) -> u32 {
    stat.st_mode & 0o7777
}

/// Bytes of a file.
pub(crate) fn size(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

/// Nanoseconds since the epoch; a time that does not fit is the nearest that does.
pub(crate) fn mtime_ns(stat: &Stat) -> i64 {
    let nanoseconds = i64::try_from(stat.st_mtime_nsec).unwrap_or(0);
    stat.st_mtime
        .saturating_mul(1_000_000_000)
        .saturating_add(nanoseconds)
}

/// `path` as text, and in base64 if it is no UTF-8.
pub(crate) fn text(path: &[u8]) -> (String, Option<String>) {
    match std::str::from_utf8(path) {
        Ok(text) => (text.into(), None),
        Err(_) => (
            String::from_utf8_lossy(path).into_owned(),
            Some(STANDARD.encode(path)),
        ),
    }
}

/// The entry for `path` with its `stat` and the text of a link.
pub(crate) fn entry(path: &[u8], stat: &Stat, link: Option<&[u8]>) -> FileEntry {
    let (path, path_b64) = text(path);
    let artifact_type = artifact_type(stat);
    FileEntry {
        path,
        path_b64,
        artifact_type,
        size_bytes: match artifact_type {
            ArtifactType::File | ArtifactType::Symlink => size(stat),
            ArtifactType::Directory
            | ArtifactType::Fifo
            | ArtifactType::Socket
            | ArtifactType::CharDevice
            | ArtifactType::BlockDevice => 0,
        },
        mode: mode(stat),
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime_ns: mtime_ns(stat),
        link_target: link.map(|link| String::from_utf8_lossy(link).into_owned()),
    }
}

/// The entry for `name` in `directory`, shown as `path`.
pub(crate) fn entry_at(
    directory: &OwnedFd,
    name: &OsStr,
    path: &[u8],
) -> rustix::io::Result<FileEntry> {
    let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let link = match artifact_type(&stat) {
        ArtifactType::Symlink => {
            Some(rustix::fs::readlinkat(directory, name, Vec::new())?.into_bytes())
        }
        _ => None,
    };
    Ok(entry(path, &stat, link.as_deref()))
}
