//! Writing the entries of a layer beneath a root.
//!
//! Paths are resolved by [`pyro_archive::beneath`]. The last component is never followed: what stands
//! there is replaced.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use pyro_archive::beneath::{self, LeadsOut, Relative, Root};
use pyro_protocol::code::ErrorCode;
use rustix::fs::{
    AtFlags, Dev, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

/// What an entry is.
#[derive(Debug)]
pub(super) enum Node {
    File,
    Directory,
    Symlink(Vec<u8>),
    HardLink(Vec<u8>),
    Fifo,
    CharDevice(Dev),
    BlockDevice(Dev),
}

/// Whose it is, and what may be done with it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mode: u32,
}

/// Why an entry could not be written.
#[derive(Debug, thiserror::Error)]
pub(super) enum SinkError {
    #[error(transparent)]
    BadName(#[from] LeadsOut),
    #[error("opening its directory: {errno}")]
    Directory { errno: Errno },
    #[error("{what}: {errno}")]
    System { what: &'static str, errno: Errno },
    #[error("copying its bytes: {source}")]
    Copy {
        #[source]
        source: io::Error,
    },
}

impl SinkError {
    pub(super) fn code(&self) -> ErrorCode {
        match self {
            Self::BadName(_) => ErrorCode::InvalidArgument,
            Self::System { errno, .. } | Self::Directory { errno } if *errno == Errno::NOSPC => {
                ErrorCode::NoSpace
            }
            Self::System { .. } | Self::Directory { .. } => ErrorCode::GuestError,
            Self::Copy { source } if source.kind() == io::ErrorKind::StorageFull => {
                ErrorCode::NoSpace
            }
            Self::Copy { .. } => ErrorCode::GuestError,
        }
    }
}

impl From<Errno> for SinkError {
    /// What [`Root`] meets on the way to a directory.
    fn from(errno: Errno) -> Self {
        Self::Directory { errno }
    }
}

/// A root to write beneath.
pub(super) struct Sink {
    root: Root,
}

const FRESH_FILE: OFlags = OFlags::WRONLY
    .union(OFlags::CREATE)
    .union(OFlags::EXCL)
    .union(OFlags::CLOEXEC);

impl Sink {
    pub(super) fn open(root: &str) -> Result<Self, SinkError> {
        let root = Root::open(Path::new(root)).map_err(system("opening the root"))?;
        Ok(Self { root })
    }

    /// Writes one entry; `content` is read for files only.
    pub(super) fn put(
        &self,
        path: &[u8],
        node: &Node,
        content: &mut impl Read,
        owner: Owner,
        modified: Timespec,
        xattrs: &[(String, Vec<u8>)],
    ) -> Result<(), SinkError> {
        let path = Relative::parse(path)?;
        let Some((parents, name)) = path.split() else {
            // The root's own entry: only its owner and mode matter.
            return set_owner(self.root.directory(), owner);
        };
        let parent = self.directory(&parents)?;
        match node {
            Node::Directory => {
                let directory = make_directory(&parent, name)?;
                set_owner(&directory, owner)?;
                set_xattrs(&directory, xattrs)
            }
            Node::File => {
                remove(&parent, name)?;
                let file =
                    rustix::fs::openat(&parent, name, FRESH_FILE, Mode::from_raw_mode(0o600))
                        .map_err(system("creating the file"))?;
                let mut file = File::from(file);
                io::copy(content, &mut file).map_err(|source| SinkError::Copy { source })?;
                let file = OwnedFd::from(file);
                // Owner before mode: a change of owner clears setuid. Attributes last: it
                // clears file capabilities too.
                set_owner(&file, owner)?;
                set_xattrs(&file, xattrs)?;
                rustix::fs::futimens(&file, &times(modified)).map_err(system("setting its time"))
            }
            Node::Symlink(target) => {
                remove(&parent, name)?;
                rustix::fs::symlinkat(OsStr::from_bytes(target), &parent, name)
                    .map_err(system("creating the link"))?;
                finish_special(&parent, name, owner, modified, false)
            }
            Node::HardLink(target) => {
                let target = Relative::parse(target)?;
                let (target_parents, target_name) = target.split().ok_or(LeadsOut)?;
                let target_parent = self.directory(&target_parents)?;
                remove(&parent, name)?;
                rustix::fs::linkat(&target_parent, target_name, &parent, name, AtFlags::empty())
                    .map_err(system("linking"))
            }
            Node::Fifo => special(&parent, name, FileType::Fifo, 0, owner, modified),
            Node::CharDevice(device) => special(
                &parent,
                name,
                FileType::CharacterDevice,
                *device,
                owner,
                modified,
            ),
            Node::BlockDevice(device) => special(
                &parent,
                name,
                FileType::BlockDevice,
                *device,
                owner,
                modified,
            ),
        }
    }

    /// Sets the modification time of a directory that was put before.
    pub(super) fn set_directory_time(
        &self,
        path: &[u8],
        modified: Timespec,
    ) -> Result<(), SinkError> {
        let path = Relative::parse(path)?;
        let Some((parents, name)) = path.split() else {
            return rustix::fs::futimens(self.root.directory(), &times(modified))
                .map_err(system("setting its time"));
        };
        let parent = self.directory(&parents)?;
        match rustix::fs::utimensat(&parent, name, &times(modified), AtFlags::SYMLINK_NOFOLLOW) {
            // Replaced by a later entry.
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(system("setting its time")(errno)),
        }
    }

    /// Opens the directory at `path`, making what is missing.
    fn directory(&self, path: &Relative) -> Result<OwnedFd, SinkError> {
        self.root.open_or_make_directory(path, make_directory)
    }
}

fn make_directory(parent: &OwnedFd, name: &OsStr) -> Result<OwnedFd, SinkError> {
    match beneath::make_directory(parent, name) {
        // Something else stands there: it gives way, as in any later entry of a layer.
        Err(Errno::NOTDIR | Errno::LOOP) => {
            remove(parent, name)?;
            beneath::make_directory(parent, name)
        }
        made => made,
    }
    .map_err(system("making the directory"))
}

fn remove(parent: &OwnedFd, name: &OsStr) -> Result<(), SinkError> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        // An empty directory gives way too; a full one is an error of the layer.
        Err(Errno::ISDIR) => rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)
            .map_err(system("replacing a directory")),
        Err(errno) => Err(system("replacing what stands there")(errno)),
    }
}

fn special(
    parent: &OwnedFd,
    name: &OsStr,
    kind: FileType,
    device: Dev,
    owner: Owner,
    modified: Timespec,
) -> Result<(), SinkError> {
    remove(parent, name)?;
    rustix::fs::mknodat(parent, name, kind, Mode::from_raw_mode(owner.mode), device)
        .map_err(system("creating the node"))?;
    finish_special(parent, name, owner, modified, true)
}

fn finish_special(
    parent: &OwnedFd,
    name: &OsStr,
    owner: Owner,
    modified: Timespec,
    has_mode: bool,
) -> Result<(), SinkError> {
    let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
    rustix::fs::chownat(
        parent,
        name,
        Some(uid),
        Some(gid),
        AtFlags::SYMLINK_NOFOLLOW,
    )
    .map_err(system("setting its owner"))?;
    if has_mode {
        // Just made here, so it is no symlink that could be followed.
        rustix::fs::chmodat(
            parent,
            name,
            Mode::from_raw_mode(owner.mode),
            AtFlags::empty(),
        )
        .map_err(system("setting its mode"))?;
    }
    rustix::fs::utimensat(parent, name, &times(modified), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(system("setting its time"))
}

fn set_owner(file: &OwnedFd, owner: Owner) -> Result<(), SinkError> {
    rustix::fs::fchown(
        file,
        Some(Uid::from_raw(owner.uid)),
        Some(Gid::from_raw(owner.gid)),
    )
    .map_err(system("setting its owner"))?;
    rustix::fs::fchmod(file, Mode::from_raw_mode(owner.mode)).map_err(system("setting its mode"))
}

fn set_xattrs(file: &OwnedFd, xattrs: &[(String, Vec<u8>)]) -> Result<(), SinkError> {
    for (name, value) in xattrs {
        rustix::fs::fsetxattr(file, name.as_str(), value, XattrFlags::empty())
            .map_err(system("setting an attribute"))?;
    }
    Ok(())
}

fn times(modified: Timespec) -> Timestamps {
    Timestamps {
        last_access: modified,
        last_modification: modified,
    }
}

fn system(what: &'static str) -> impl Fn(Errno) -> SinkError {
    move |errno| SinkError::System { what, errno }
}
