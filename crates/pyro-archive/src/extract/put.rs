//! Making one member.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::rc::Rc;

use rustix::fs::{
    AtFlags, Dev, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use super::error::ExtractError;
use super::options::{Attributes, DirectoriesInTheWay, Modes, Owner, Times};
use super::parents::open;
use super::remove::remove;
use super::{Extractor, PIECE};
use crate::beneath::{DIRECTORY, Relative};
use crate::tar::read::{Reader, unwrapped};
use crate::tar::{Device, Kind, Member, Segment};

const FRESH_FILE: OFlags = OFlags::WRONLY
    .union(OFlags::CREATE)
    .union(OFlags::EXCL)
    .union(OFlags::CLOEXEC);

/// Mode of a file that is being made: nobody else's.
const UNFINISHED: Mode = Mode::from_raw_mode(0o600);

/// Set-id bits.
const SET_ID: u32 = 0o6000;

/// Attributes that an overlay keeps its own books with. What a layer or a peer says there
/// would be taken for the kernel's word.
const OVERLAY: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];

impl Extractor<'_> {
    /// The root's own member: what it says about the directory itself.
    pub(super) fn put_root(&mut self, member: &Member) -> Result<(), ExtractError> {
        if member.kind != Kind::Directory {
            return Err(ExtractError::name(
                &member.path,
                "the name is the root's, and it is no directory",
            ));
        }
        let failed = ExtractError::system(&member.path, "opening the root");
        let root = self.parents.root().directory();
        let root = rustix::fs::openat(root, ".", DIRECTORY, Mode::empty()).map_err(failed)?;
        self.set_owner(&root, member)?;
        self.set_attributes(&root, member)?;
        self.note_directory(&Relative::root(), member)
    }

    pub(super) fn put_at<R: Read>(
        &mut self,
        parent: &Rc<OwnedFd>,
        name: &OsStr,
        path: &Relative,
        member: &Member,
        reader: &mut Reader<R>,
    ) -> Result<(), ExtractError> {
        match &member.kind {
            Kind::File { .. } => self.put_file(parent, name, member, reader, None),
            Kind::Sparse { size, segments } => {
                self.put_file(parent, name, member, reader, Some((*size, segments)))
            }
            Kind::Directory => self.put_directory(parent, name, path, member),
            Kind::Symlink(target) => {
                let target = OsStr::from_bytes(target);
                self.made(parent, name, member, |parent, name| {
                    rustix::fs::symlinkat(target, parent, name)
                })?;
                self.finish_unopened(parent, name, member)
            }
            Kind::HardLink(target) => self.put_hard_link(parent, name, member, target),
            Kind::Fifo => self.put_node(parent, name, member, FileType::Fifo, 0),
            Kind::CharDevice(device) => {
                let device_type = FileType::CharacterDevice;
                self.put_node(parent, name, member, device_type, number(*device))
            }
            Kind::BlockDevice(device) => {
                let device_type = FileType::BlockDevice;
                self.put_node(parent, name, member, device_type, number(*device))
            }
        }
    }

    fn put_file<R: Read>(
        &mut self,
        parent: &OwnedFd,
        name: &OsStr,
        member: &Member,
        reader: &mut Reader<R>,
        sparse: Option<(u64, &[Segment])>,
    ) -> Result<(), ExtractError> {
        let file = self.made(parent, name, member, |parent, name| {
            rustix::fs::openat(parent, name, FRESH_FILE, UNFINISHED)
        })?;
        let filled = self.fill_file(File::from(file), member, reader, sparse);
        if filled.is_err() {
            // Half a file is worse than none.
            let _ = rustix::fs::unlinkat(parent, name, AtFlags::empty());
        }
        filled
    }

    fn fill_file<R: Read>(
        &mut self,
        mut file: File,
        member: &Member,
        reader: &mut Reader<R>,
        sparse: Option<(u64, &[Segment])>,
    ) -> Result<(), ExtractError> {
        match sparse {
            None => self.copy(&mut file, member, reader)?,
            Some((size, segments)) => self.copy_segments(&file, size, segments, member, reader)?,
        }
        let file = OwnedFd::from(file);
        // Owner before mode: a change of owner clears set-id bits. Attributes last: it
        // clears file capabilities too.
        self.set_owner(&file, member)?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(self.file_mode(member)))
            .map_err(ExtractError::system(&member.path, "setting its mode"))?;
        self.set_attributes(&file, member)?;
        match self.options.times {
            Times::Kept => rustix::fs::futimens(&file, &stamps(member.modified))
                .map_err(ExtractError::system(&member.path, "setting its time")),
            Times::Now => Ok(()),
        }
    }

    fn copy<R: Read>(
        &mut self,
        file: &mut File,
        member: &Member,
        reader: &mut Reader<R>,
    ) -> Result<(), ExtractError> {
        loop {
            let count = self.fill(reader, u64::MAX)?;
            if count == 0 {
                return Ok(());
            }
            file.write_all(&self.buffer[..count])
                .map_err(ExtractError::input_output(&member.path, "writing it"))?;
            self.progress.add_bytes(count as u64);
            self.progress.check()?;
        }
    }

    fn copy_segments<R: Read>(
        &mut self,
        file: &File,
        size: u64,
        segments: &[Segment],
        member: &Member,
        reader: &mut Reader<R>,
    ) -> Result<(), ExtractError> {
        for segment in segments {
            let (mut at, end) = (segment.offset, segment.offset + segment.length);
            while at < end {
                let count = self.fill(reader, end - at)?;
                file.write_all_at(&self.buffer[..count], at)
                    .map_err(ExtractError::input_output(&member.path, "writing it"))?;
                at += count as u64;
                self.progress.add_bytes(count as u64);
                self.progress.check()?;
            }
        }
        file.set_len(size)
            .map_err(ExtractError::input_output(&member.path, "sizing it"))
    }

    /// Reads content until the buffer is full, `most` bytes are there or the content ends.
    fn fill<R: Read>(&mut self, reader: &mut Reader<R>, most: u64) -> Result<usize, ExtractError> {
        let most = usize::try_from(most.min(reader.left())).map_or(PIECE, |most| most.min(PIECE));
        if self.buffer.len() < most {
            self.buffer.resize(PIECE, 0);
        }
        reader
            .content()
            .read_exact(&mut self.buffer[..most])
            .map_err(unwrapped)?;
        Ok(most)
    }

    fn put_directory(
        &mut self,
        parent: &Rc<OwnedFd>,
        name: &OsStr,
        path: &Relative,
        member: &Member,
    ) -> Result<(), ExtractError> {
        let failed = ExtractError::system(&member.path, "making the directory");
        // Ours alone and open to us while things are put into it.
        let mode = Mode::from_raw_mode((self.directory_mode(member) | 0o700) & 0o777);
        let directory = match rustix::fs::mkdirat(&**parent, name, mode) {
            Ok(()) => open(parent, name).map_err(failed)?,
            Err(Errno::EXIST) => match open(parent, name) {
                Ok(there) => there,
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    if let Some(there) = self.followed(path)? {
                        there
                    } else {
                        self.clear(parent, name, member)?;
                        rustix::fs::mkdirat(&**parent, name, mode).map_err(&failed)?;
                        open(parent, name).map_err(failed)?
                    }
                }
                Err(errno) => return Err(failed(errno)),
            },
            Err(errno) => return Err(failed(errno)),
        };
        self.set_owner(&directory, member)?;
        self.set_attributes(&directory, member)?;
        self.note_directory(path, member)?;
        self.parents.keep(path.to_bytes(), directory);
        Ok(())
    }

    /// The directory that a link in the place of a directory leads to, if the link stays.
    fn followed(&mut self, path: &Relative) -> Result<Option<OwnedFd>, ExtractError> {
        match self.options.directories_in_the_way {
            DirectoriesInTheWay::GiveWay => Ok(None),
            DirectoriesInTheWay::Stay => match self.parents.root().open_directory(path) {
                Ok(there) => Ok(Some(there)),
                Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
                Err(errno) => Err(ExtractError::system(&path.to_bytes(), "following it")(
                    errno,
                )),
            },
        }
    }

    fn put_hard_link(
        &mut self,
        parent: &OwnedFd,
        name: &OsStr,
        member: &Member,
        target: &[u8],
    ) -> Result<(), ExtractError> {
        let failed = ExtractError::system(&member.path, "linking");
        let target = self.path(target)?;
        let Some((above, target_name)) = target.split() else {
            return Err(ExtractError::name(
                &member.path,
                "it is a hard link to the root",
            ));
        };
        let link =
            |from: &OwnedFd| rustix::fs::linkat(from, target_name, parent, name, AtFlags::empty());
        let mut from = self.parents.find(&above);
        let mut linked = from
            .as_ref()
            .map_err(|errno| *errno)
            .and_then(|from| link(from));
        if let (Err(Errno::NOENT), Some(existing)) = (linked, &self.existing) {
            from = existing.open_directory(&above).map(Rc::new);
            linked = from
                .as_ref()
                .map_err(|errno| *errno)
                .and_then(|from| link(from));
        }
        match (linked, from) {
            (Ok(()), _) => Ok(()),
            (Err(Errno::EXIST), Ok(from)) => {
                let look = |directory: &OwnedFd, name: &OsStr| {
                    rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
                        .map(|found| (found.st_dev, found.st_ino))
                };
                let same = look(&from, target_name).map_err(&failed)?
                    == look(parent, name).map_err(&failed)?;
                if same {
                    return Ok(());
                }
                self.clear(parent, name, member)?;
                link(&from).map_err(failed)
            }
            (Err(errno), _) => Err(failed(errno)),
        }
    }

    fn put_node(
        &mut self,
        parent: &OwnedFd,
        name: &OsStr,
        member: &Member,
        kind: FileType,
        device: Dev,
    ) -> Result<(), ExtractError> {
        self.made(parent, name, member, |parent, name| {
            rustix::fs::mknodat(parent, name, kind, UNFINISHED, device)
        })?;
        let mode = Mode::from_raw_mode(self.file_mode(member));
        self.set_owner_unopened(parent, name, member)?;
        // Just made, so it is no symbolic link that could be followed.
        rustix::fs::chmodat(parent, name, mode, AtFlags::empty())
            .map_err(ExtractError::system(&member.path, "setting its mode"))?;
        self.set_time_unopened(parent, name, member)
    }

    /// Makes something with a name that must be free; what stands there gives way.
    fn made<T>(
        &mut self,
        parent: &OwnedFd,
        name: &OsStr,
        member: &Member,
        make: impl Fn(&OwnedFd, &OsStr) -> rustix::io::Result<T>,
    ) -> Result<T, ExtractError> {
        let failed = ExtractError::system(&member.path, "making it");
        match make(parent, name) {
            Err(Errno::EXIST) => {
                self.clear(parent, name, member)?;
                make(parent, name).map_err(failed)
            }
            made => made.map_err(failed),
        }
    }

    /// Takes away what stands in a place.
    fn clear(
        &mut self,
        parent: &OwnedFd,
        name: &OsStr,
        member: &Member,
    ) -> Result<(), ExtractError> {
        let failed = ExtractError::system(&member.path, "replacing what stands there");
        self.parents.forget();
        match self.options.directories_in_the_way {
            DirectoriesInTheWay::GiveWay => remove(parent, name).map_err(failed),
            DirectoriesInTheWay::Stay => {
                match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
                    Err(Errno::ISDIR) => Err(ExtractError::refused(
                        &member.path,
                        "a directory stands there",
                    )),
                    removed => removed.map_err(failed),
                }
            }
        }
    }

    fn finish_unopened(
        &self,
        parent: &OwnedFd,
        name: &OsStr,
        member: &Member,
    ) -> Result<(), ExtractError> {
        self.set_owner_unopened(parent, name, member)?;
        self.set_time_unopened(parent, name, member)
    }

    fn set_owner(&self, file: impl AsFd, member: &Member) -> Result<(), ExtractError> {
        let Some((uid, gid)) = self.owner(member) else {
            return Ok(());
        };
        rustix::fs::fchown(file, Some(uid), Some(gid))
            .map_err(ExtractError::system(&member.path, "setting its owner"))
    }

    fn set_owner_unopened(
        &self,
        parent: &OwnedFd,
        name: &OsStr,
        member: &Member,
    ) -> Result<(), ExtractError> {
        let Some((uid, gid)) = self.owner(member) else {
            return Ok(());
        };
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::chownat(parent, name, Some(uid), Some(gid), flags)
            .map_err(ExtractError::system(&member.path, "setting its owner"))
    }

    fn set_time_unopened(
        &self,
        parent: &OwnedFd,
        name: &OsStr,
        member: &Member,
    ) -> Result<(), ExtractError> {
        match self.options.times {
            Times::Kept => {
                let stamps = stamps(member.modified);
                rustix::fs::utimensat(parent, name, &stamps, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(ExtractError::system(&member.path, "setting its time"))
            }
            Times::Now => Ok(()),
        }
    }

    fn set_attributes(&mut self, file: &OwnedFd, member: &Member) -> Result<(), ExtractError> {
        for (name, value) in &member.xattrs {
            if self.options.attributes == Attributes::LeftOut
                || OVERLAY.iter().any(|prefix| name.starts_with(prefix))
            {
                self.summary.attributes_left_out += 1;
                continue;
            }
            match rustix::fs::fsetxattr(file, &name[..], value, XattrFlags::empty()) {
                Ok(()) => {}
                Err(Errno::OPNOTSUPP | Errno::PERM)
                    if self.options.attributes == Attributes::WherePossible =>
                {
                    self.summary.attributes_left_out += 1;
                }
                Err(errno) => {
                    return Err(ExtractError::system(&member.path, "setting an attribute")(
                        errno,
                    ));
                }
            }
        }
        Ok(())
    }

    fn note_directory(&mut self, path: &Relative, member: &Member) -> Result<(), ExtractError> {
        let mode = self.directory_mode(member);
        self.directories
            .note(path, mode, member.modified)
            .map_err(ExtractError::input_output(&member.path, "noting its time"))
    }

    fn owner(&self, member: &Member) -> Option<(Uid, Gid)> {
        let (uid, gid) = match self.options.owner {
            Owner::Process => return None,
            Owner::Archive => (member.uid, member.gid),
            Owner::Given { uid, gid } => (uid, gid),
        };
        Some((Uid::from_raw(uid), Gid::from_raw(gid)))
    }

    fn file_mode(&self, member: &Member) -> u32 {
        match self.options.modes {
            Modes::Kept => self.without_foreign_ids(member.mode),
            Modes::Usual if member.mode & 0o111 != 0 => 0o755,
            Modes::Usual => 0o644,
            Modes::Given { file, .. } => file,
        }
    }

    fn directory_mode(&self, member: &Member) -> u32 {
        match self.options.modes {
            Modes::Kept => self.without_foreign_ids(member.mode),
            Modes::Usual => 0o755,
            Modes::Given { directory, .. } => directory,
        }
    }

    /// Set-id bits are about the owner that the archive names, and nobody else.
    fn without_foreign_ids(&self, mode: u32) -> u32 {
        match self.options.owner {
            Owner::Archive => mode,
            Owner::Process | Owner::Given { .. } => mode & !SET_ID,
        }
    }
}

/// `modified` for both times that can be set.
pub(super) fn stamps(modified: Timespec) -> Timestamps {
    Timestamps {
        last_access: modified,
        last_modification: modified,
    }
}

fn number(device: Device) -> Dev {
    rustix::fs::makedev(device.major, device.minor)
}
