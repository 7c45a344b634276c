//! `file_copy`: a file or a tree, with modes, owners, times, links and attributes.
//!
//! The copy is made under a name of its own beside its place and renamed at the end: a copy
//! that fails or whose peer leaves is taken away again.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use pyro_protocol::code::ErrorCode;
use pyro_protocol::files::{ArtifactType, FileCount, FileMove};
use pyro_protocol::limits::{MAX_COPY_LINKS, MAX_TREE_DEPTH};
use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, RenameFlags, ResolveFlags, Stat, Timespec,
    Timestamps, Uid,
};
use rustix::io::Errno;

use super::content;
use super::entry;
use super::fault::{Outcome, at, fault, io_at};
use super::place::Place;
use super::remove::discard;
use super::work::Cancel;
use super::write::unfinished;
use pyro_archive::beneath::DIRECTORY;

/// Copies `place` to `to`.
pub(super) fn copy(
    place: &Place,
    to: &Place,
    request: &FileMove,
    cancel: &Cancel,
) -> Outcome<FileCount> {
    let shown = to.shown();
    let source = place.parent()?;
    let stat = place.stat(false)?;
    let is_directory = entry::artifact_type(&stat) == ArtifactType::Directory;
    let parent = if request.create_parents {
        to.parent_made()?
    } else {
        to.parent()?
    };
    match rustix::fs::statat(&parent, to.name()?, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(there) => {
            let onto_directory = entry::artifact_type(&there) == ArtifactType::Directory;
            if !request.replace {
                return Err(at(&shown)(Errno::EXIST));
            }
            if is_directory || onto_directory {
                return Err(fault(
                    ErrorCode::FailedPrecondition,
                    &shown,
                    "exists, and only a file can be replaced by a file",
                ));
            }
        }
        Err(Errno::NOENT) => {}
        Err(errno) => return Err(at(&shown)(errno)),
    }
    let parent_stat = rustix::fs::fstat(&parent).map_err(at(&shown))?;
    // Holds the name until the copy takes it; a directory, as nothing opens that for writing.
    let ((), stage) =
        unfinished(|name| rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o700)))
            .map_err(at(&shown))?;
    let stage = Stage {
        parent: &parent,
        name: stage,
    };
    let directory = rustix::fs::openat(
        &parent,
        &stage.name,
        DIRECTORY | OFlags::NOFOLLOW,
        Mode::empty(),
    )
    .map_err(at(&shown))?;
    let staged = rustix::fs::fstat(&directory).map_err(at(&shown))?;
    let mut copying = Copying {
        from: place.shown(),
        to: &shown,
        cancel,
        stage: &directory,
        stage_id: (staged.st_dev, staged.st_ino),
        parent_id: (parent_stat.st_dev, parent_stat.st_ino),
        links: HashMap::new(),
        entries: 0,
        bytes: 0,
    };
    let name = to.name()?;
    copying.entry(&source, place.name()?, &directory, name, b"", 0)?;
    let (entries, bytes) = (copying.entries, copying.bytes);
    let flags = if request.replace {
        RenameFlags::empty()
    } else {
        RenameFlags::NOREPLACE
    };
    rustix::fs::renameat_with(&directory, name, &parent, name, flags).map_err(at(&shown))?;
    Ok(FileCount {
        path: entry::text(&shown).0,
        entries,
        bytes,
    })
}

/// The directory that the copy is made in; gone at the end, whatever came of it.
struct Stage<'a> {
    parent: &'a OwnedFd,
    name: OsString,
}

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        discard(self.parent, &self.name);
    }
}

struct Copying<'a> {
    from: Vec<u8>,
    to: &'a [u8],
    cancel: &'a Cancel,
    stage: &'a OwnedFd,
    stage_id: (u64, u64),
    parent_id: (u64, u64),
    /// Where in the stage the first name of a file with several lies.
    links: HashMap<(u64, u64), Vec<u8>>,
    entries: u64,
    bytes: u64,
}

impl Copying<'_> {
    fn entry(
        &mut self,
        source: &OwnedFd,
        name: &OsStr,
        target: &OwnedFd,
        new_name: &OsStr,
        above: &[u8],
        depth: usize,
    ) -> Outcome<()> {
        self.cancel.check()?;
        let stat =
            rustix::fs::statat(source, name, AtFlags::SYMLINK_NOFOLLOW).map_err(at(&self.from))?;
        let kind = entry::artifact_type(&stat);
        let staged = [above, new_name.as_bytes()].concat();
        let several = stat.st_nlink > 1 && kind != ArtifactType::Directory;
        let id = (stat.st_dev, stat.st_ino);
        self.entries += 1;
        if several && self.link(id, target, new_name) {
            return Ok(());
        }
        match kind {
            ArtifactType::Directory => {
                self.directory(source, name, target, new_name, &staged, depth)?;
            }
            ArtifactType::File => self.file(source, name, target, new_name)?,
            ArtifactType::Symlink => {
                let text =
                    rustix::fs::readlinkat(source, name, Vec::new()).map_err(at(&self.from))?;
                rustix::fs::symlinkat(&text, target, new_name).map_err(at(self.to))?;
                self.set_unopened(target, new_name, &stat)?;
            }
            ArtifactType::Fifo
            | ArtifactType::Socket
            | ArtifactType::CharDevice
            | ArtifactType::BlockDevice => {
                let file_type = FileType::from_raw_mode(stat.st_mode);
                let mode = Mode::from_raw_mode(entry::mode(&stat));
                rustix::fs::mknodat(target, new_name, file_type, mode, stat.st_rdev)
                    .map_err(at(self.to))?;
                self.set_unopened(target, new_name, &stat)?;
            }
        }
        if several && self.links.len() < MAX_COPY_LINKS {
            self.links.insert(id, staged);
        }
        Ok(())
    }

    /// Links to what was copied of the same file before; whether that is so.
    fn link(&self, id: (u64, u64), target: &OwnedFd, new_name: &OsStr) -> bool {
        let Some(first) = self.links.get(&id) else {
            return false;
        };
        let slash = first.iter().rposition(|byte| *byte == b'/');
        let (above, name) = match slash {
            Some(slash) => (&first[..slash], &first[slash + 1..]),
            None => (&b"."[..], &first[..]),
        };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let linked = rustix::fs::openat2(
            self.stage,
            OsStr::from_bytes(above),
            DIRECTORY,
            Mode::empty(),
            resolve,
        )
        .and_then(|directory| {
            let name = OsStr::from_bytes(name);
            rustix::fs::linkat(&directory, name, target, new_name, AtFlags::empty())
        });
        // Too many links, or the first was taken away: then it is copied again.
        linked.is_ok()
    }

    fn directory(
        &mut self,
        source: &OwnedFd,
        name: &OsStr,
        target: &OwnedFd,
        new_name: &OsStr,
        staged: &[u8],
        depth: usize,
    ) -> Outcome<()> {
        if depth >= MAX_TREE_DEPTH {
            return Err(fault(
                ErrorCode::LimitExceeded,
                &self.from,
                &format!("goes deeper than {MAX_TREE_DEPTH} levels"),
            ));
        }
        let flags = DIRECTORY | OFlags::NOFOLLOW;
        let from =
            rustix::fs::openat(source, name, flags, Mode::empty()).map_err(at(&self.from))?;
        let stat = rustix::fs::fstat(&from).map_err(at(&self.from))?;
        if [self.parent_id, self.stage_id].contains(&(stat.st_dev, stat.st_ino)) {
            return Err(fault(
                ErrorCode::InvalidArgument,
                self.to,
                "lies in what is to be copied",
            ));
        }
        rustix::fs::mkdirat(target, new_name, Mode::from_raw_mode(0o700)).map_err(at(self.to))?;
        let to = rustix::fs::openat(target, new_name, flags, Mode::empty()).map_err(at(self.to))?;
        let above = [staged, b"/"].concat();
        for item in Dir::read_from(&from).map_err(at(&self.from))? {
            let item = item.map_err(at(&self.from))?;
            let name = item.file_name().to_bytes();
            if !matches!(name, b"." | b"..") {
                let name = OsStr::from_bytes(name);
                match self.entry(&from, name, &to, name, &above, depth + 1) {
                    // It vanished since the directory was read.
                    Err(error) if error.code == ErrorCode::NotFound => {}
                    other => other?,
                }
            }
        }
        content::set_attributes(&from, &to, &stat).map_err(at(self.to))
    }

    fn file(
        &mut self,
        source: &OwnedFd,
        name: &OsStr,
        target: &OwnedFd,
        new_name: &OsStr,
    ) -> Outcome<()> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let from =
            rustix::fs::openat(source, name, flags, Mode::empty()).map_err(at(&self.from))?;
        let stat = rustix::fs::fstat(&from).map_err(at(&self.from))?;
        if !FileType::from_raw_mode(stat.st_mode).is_file() {
            return Err(fault(
                ErrorCode::Conflict,
                &self.from,
                "is being changed by somebody else",
            ));
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let to = rustix::fs::openat(target, new_name, flags, Mode::from_raw_mode(0o600))
            .map_err(at(self.to))?;
        let cancel = self.cancel;
        content::copy(&from, &to, &stat, || cancel.check().is_err()).map_err(io_at(self.to))?;
        cancel.check()?;
        content::set_attributes(&from, &to, &stat).map_err(at(self.to))?;
        self.bytes += entry::size(&stat);
        Ok(())
    }

    /// Owner and times of what cannot be opened.
    fn set_unopened(&self, target: &OwnedFd, name: &OsStr, stat: &Stat) -> Outcome<()> {
        let owner = Some(Uid::from_raw(stat.st_uid));
        let group = Some(Gid::from_raw(stat.st_gid));
        match rustix::fs::chownat(target, name, owner, group, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(()) | Err(Errno::PERM) => {}
            Err(errno) => return Err(at(self.to)(errno)),
        }
        if entry::artifact_type(stat) != ArtifactType::Symlink {
            // `mknod` heeds the umask. What stands here was made a moment ago in a directory
            // that only root may enter.
            let mode = Mode::from_raw_mode(entry::mode(stat));
            rustix::fs::chmodat(target, name, mode, AtFlags::empty()).map_err(at(self.to))?;
        }
        rustix::fs::utimensat(target, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(at(self.to))
    }
}

/// The times of `stat`, to be set.
pub(super) fn times(stat: &Stat) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: stat.st_atime,
            tv_nsec: i64::try_from(stat.st_atime_nsec).unwrap_or(0),
        },
        last_modification: Timespec {
            tv_sec: stat.st_mtime,
            tv_nsec: i64::try_from(stat.st_mtime_nsec).unwrap_or(0),
        },
    }
}
