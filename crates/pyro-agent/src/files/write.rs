//! `file_write`: replacing a file as a whole, or adding to it.
//!
//! New content is collected in a file of its own beside the old one and takes its name at
//! the end, so that a reader meets the old content or the new one and nothing between.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};

use pyro_protocol::code::ErrorCode;
use pyro_protocol::files::{ArtifactType, FileWrite, FileWritten};
use pyro_protocol::frame::Kind;
use rustix::fs::{AtFlags, Gid, Mode, OFlags, RenameFlags, Stat, Uid};
use rustix::io::Errno;
use tokio::io::AsyncRead;

use super::content;
use super::entry;
use super::fault::{Outcome, at, fault, io_at};
use super::place::Place;
use super::work::short;
use crate::wire;

/// What the names of unfinished files begin with: the original's word.
pub(super) const UNFINISHED: &str = ".pyro-workspace-write-";

/// Permission bits of a file that nobody said anything about.
const NEW_FILE_MODE: u32 = 0o644;

/// Names tried before giving up; more than one only after a crash left some behind.
const NAME_ATTEMPTS: usize = 1000;

static NEXT_NAME: AtomicU64 = AtomicU64::new(0);

/// What is asked of a write beside its content.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Manner {
    mode: Option<u32>,
    append: bool,
    must_not_exist: bool,
}

impl From<&FileWrite> for Manner {
    fn from(request: &FileWrite) -> Self {
        Self {
            mode: request.mode,
            append: request.append,
            must_not_exist: request.must_not_exist,
        }
    }
}

/// A file being written.
#[derive(Debug)]
pub(super) struct Writing {
    parent: OwnedFd,
    name: OsString,
    shown: Vec<u8>,
    file: File,
    /// The unfinished file; none when the content is added in place.
    unfinished: Option<OsString>,
    old: Option<Stat>,
    manner: Manner,
    written: u64,
}

impl Writing {
    /// Begins to write `place`, which is `name` in the directory `parent`.
    pub(super) fn begin(
        place: &Place,
        parent: OwnedFd,
        name: OsString,
        manner: Manner,
    ) -> Outcome<Self> {
        let shown = place.shown();
        let old = match rustix::fs::statat(&parent, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(old) => Some(old),
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(at(&shown)(errno)),
        };
        if let Some(old) = &old {
            if manner.must_not_exist {
                return Err(at(&shown)(Errno::EXIST));
            }
            replaceable(old, &shown)?;
        }
        let (file, unfinished) = if manner.append {
            let flags = OFlags::WRONLY
                | OFlags::APPEND
                | OFlags::CREATE
                | OFlags::NOFOLLOW
                | OFlags::NONBLOCK
                | OFlags::CLOEXEC;
            let mode = Mode::from_raw_mode(manner.mode.unwrap_or(NEW_FILE_MODE));
            let file = rustix::fs::openat(&parent, &name, flags, mode).map_err(at(&shown))?;
            let found = rustix::fs::fstat(&file).map_err(at(&shown))?;
            replaceable(&found, &shown)?;
            (file, None)
        } else {
            let (file, unfinished) = fresh(&parent).map_err(at(&shown))?;
            (file, Some(unfinished))
        };
        Ok(Self {
            parent,
            name,
            shown,
            file: File::from(file),
            unfinished,
            old,
            manner,
            written: 0,
        })
    }

    /// Takes the next bytes of the content.
    pub(super) fn put(&mut self, bytes: &[u8]) -> Outcome<()> {
        self.file.write_all(bytes).map_err(io_at(&self.shown))?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Gives the content its name.
    pub(super) fn finish(mut self) -> Outcome<FileWritten> {
        let shown = self.shown.clone();
        self.set_attributes().map_err(at(&shown))?;
        if let Some(unfinished) = &self.unfinished {
            let flags = if self.manner.must_not_exist {
                RenameFlags::NOREPLACE
            } else {
                RenameFlags::empty()
            };
            rustix::fs::renameat_with(&self.parent, unfinished, &self.parent, &self.name, flags)
                .map_err(at(&shown))?;
            self.unfinished = None;
        }
        let stat = rustix::fs::fstat(&self.file).map_err(at(&shown))?;
        Ok(FileWritten {
            path: entry::text(&shown).0,
            size_bytes: entry::size(&stat),
            bytes_written: self.written,
            mode: entry::mode(&stat),
            created: self.old.is_none(),
        })
    }

    fn set_attributes(&self) -> rustix::io::Result<()> {
        let fresh = self.unfinished.is_some() || self.old.is_none();
        let mode = match (self.manner.mode, &self.old) {
            (Some(mode), _) => mode,
            (None, Some(old)) => entry::mode(old),
            (None, None) => NEW_FILE_MODE,
        };
        if let (true, Some(old)) = (self.unfinished.is_some(), &self.old) {
            let mine = rustix::fs::fstat(&self.file)?;
            if (mine.st_uid, mine.st_gid) != (old.st_uid, old.st_gid) {
                let owner = Some(Uid::from_raw(old.st_uid));
                rustix::fs::fchown(&self.file, owner, Some(Gid::from_raw(old.st_gid)))?;
            }
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            match rustix::fs::openat(&self.parent, &self.name, flags, Mode::empty()) {
                // Capabilities are for the content that had them; a write in place drops
                // them too.
                Ok(old) => {
                    let stays = |name: &[u8]| name != b"security.capability";
                    content::copy_xattrs(&old, &self.file, stays)?;
                }
                // Taken away meanwhile.
                Err(Errno::NOENT | Errno::LOOP) => {}
                Err(errno) => return Err(errno),
            }
        }
        if fresh || self.manner.mode.is_some() {
            // After the owner, whose change takes set-user-id away, and after the attributes,
            // of which an access list brings a mode of its own.
            rustix::fs::fchmod(&self.file, Mode::from_raw_mode(mode))?;
        }
        Ok(())
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        if let Some(unfinished) = &self.unfinished {
            let _ = rustix::fs::unlinkat(&self.parent, unfinished, AtFlags::empty());
        }
    }
}

/// Takes the content of `writing` from the peer's frames.
pub(super) async fn receive<R>(mut writing: Writing, reader: &mut R) -> Outcome<FileWritten>
where
    R: AsyncRead + Unpin,
{
    loop {
        let Ok(Some(frame)) = wire::read_frame(reader).await else {
            return Err(fault(
                ErrorCode::Cancelled,
                &writing.shown,
                "is not written: the content ended before its end frame",
            ));
        };
        match frame.kind {
            Kind::Stdin => {
                // No thread is held while the peer is slow.
                writing = short(move || {
                    writing.put(&frame.payload)?;
                    Ok(writing)
                })
                .await?;
            }
            Kind::StdinEnd => return short(move || writing.finish()).await,
            Kind::End
            | Kind::Stdout
            | Kind::Stderr
            | Kind::Signal
            | Kind::Window
            | Kind::Progress => {
                return Err(fault(
                    ErrorCode::InvalidArgument,
                    &writing.shown,
                    "is not written: a frame came that carries no content",
                ));
            }
        }
    }
}

/// A new file in `parent` under a name of its own.
fn fresh(parent: &OwnedFd) -> rustix::io::Result<(OwnedFd, OsString)> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    unfinished(|name| rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o600)))
}

/// Makes something under a name that nothing has.
pub(super) fn unfinished<T>(
    make: impl Fn(&OsStr) -> rustix::io::Result<T>,
) -> rustix::io::Result<(T, OsString)> {
    for _ in 0..NAME_ATTEMPTS {
        let number = NEXT_NAME.fetch_add(1, Ordering::Relaxed);
        let name = OsString::from(format!("{UNFINISHED}{}-{number}", std::process::id()));
        match make(&name) {
            Ok(made) => return Ok((made, name)),
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::EXIST)
}

fn replaceable(old: &Stat, shown: &[u8]) -> Outcome<()> {
    let what = match entry::artifact_type(old) {
        ArtifactType::File => return Ok(()),
        ArtifactType::Directory => "is a directory",
        ArtifactType::Symlink => "is a symbolic link; write to its target, or remove it first",
        ArtifactType::Fifo
        | ArtifactType::Socket
        | ArtifactType::CharDevice
        | ArtifactType::BlockDevice => "is no regular file",
    };
    Err(fault(ErrorCode::FailedPrecondition, shown, what))
}
