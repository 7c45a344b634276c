//! The directory that one Firecracker process works in.
//!
//! Owns the directory, the names in it and who may change them. A file of the host stands in it as a link to a descriptor
//! that Firecracker inherits (`/proc/self/fd/N`): nothing is copied or mounted, the directories on the way to the file may be
//! closed to Firecracker's user, and another machine finds its own file under the same name, which is what a snapshot needs.
//!
//! Where Firecracker has a user of its own the directory is closed once the machine is set up: that user can make, rename and
//! remove nothing in it any more. So what the host opens there later is what was there before the guest's first instruction.
//! Where it runs as the calling user it owns the directory and could open it again whatever its mode, so the mode stays and
//! Landlock alone is the bar: see `docs/design/firecracker.md`.

use super::config::name;
use super::vsock::Vsock;
use crate::jail::MachineUid;
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid, fchmod, fchown};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The directory, open.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    directory: Arc<OwnedFd>,
    uid: Option<MachineUid>,
}

impl Place {
    /// Makes the directory at `path`, which must not exist, for Firecracker running as `uid` or as the calling user.
    pub(super) fn create(path: &Path, uid: Option<MachineUid>) -> io::Result<Self> {
        rustix::fs::mkdir(path, Mode::RWXU)?;
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
        let directory = rustix::fs::open(path, flags, Mode::empty())?;
        give(&directory, uid)?;
        Ok(Self {
            path: path.to_owned(),
            directory: Arc::new(directory),
            uid,
        })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The user that Firecracker runs as.
    pub(super) fn uid(&self) -> Option<MachineUid> {
        self.uid
    }

    /// Where the host reaches the control socket, however long the directory's path is.
    pub(super) fn api_socket(&self) -> PathBuf {
        let descriptor = self.directory.as_raw_fd();
        format!("/proc/self/fd/{descriptor}/{}", name::API).into()
    }

    /// The socket of the vsock.
    pub(super) fn vsock(&self) -> Vsock {
        Vsock::new(Arc::clone(&self.directory))
    }

    /// Puts a descriptor of the future process there under `name`.
    pub(super) fn link(&self, name: &str, inherited: &impl AsRawFd) -> io::Result<()> {
        let target = format!("/proc/self/fd/{}", inherited.as_raw_fd());
        Ok(rustix::fs::symlinkat(target, &self.directory, name)?)
    }

    /// Takes from Firecracker's user the right to change what is there, if that is another user than the caller.
    pub(super) fn close(&self) -> io::Result<()> {
        if self.uid.is_some() {
            give_back(&self.directory)?;
            fchmod(&self.directory, Mode::from_raw_mode(0o711))?;
        }
        Ok(())
    }

    /// Makes an empty file at `target` that Firecracker can write under `name`. Both are one file, so they must be on one
    /// file system.
    pub(super) fn offer(&self, name: &str, target: &Path) -> io::Result<File> {
        let file = File::options().write(true).create_new(true).open(target)?;
        let linked = give(&file, self.uid).and_then(|()| {
            fchmod(&file, Mode::RUSR | Mode::WUSR)?;
            rustix::fs::linkat(
                rustix::fs::CWD,
                target,
                &self.directory,
                name,
                AtFlags::empty(),
            )?;
            Ok(())
        });
        if let Err(error) = linked {
            let _ = std::fs::remove_file(target);
            return Err(error);
        }
        Ok(file)
    }

    /// Ends what [`Place::offer`] began. The file is the caller's then, readable to the users of other machines: what keeps
    /// everybody else away is the directory that it is in.
    pub(super) fn take_back(&self, name: &str, file: &File) -> io::Result<()> {
        self.withdraw(name)?;
        if self.uid.is_some() {
            give_back(file)?;
            fchmod(file, Mode::from_raw_mode(0o644))?;
        }
        Ok(())
    }

    /// Removes `name` from the directory.
    pub(super) fn withdraw(&self, name: &str) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(
            &self.directory,
            name,
            AtFlags::empty(),
        )?)
    }
}

/// Makes `uid` the owner, if there is one: the caller is root then.
pub(super) fn give(file: &impl AsFd, uid: Option<MachineUid>) -> io::Result<()> {
    if let Some(uid) = uid {
        fchown(
            file,
            Some(Uid::from_raw(uid.get())),
            Some(Gid::from_raw(uid.get())),
        )?;
    }
    Ok(())
}

fn give_back(file: &impl AsFd) -> io::Result<()> {
    Ok(fchown(file, Some(Uid::ROOT), Some(Gid::ROOT))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn uid() -> Option<MachineUid> {
        rustix::process::geteuid()
            .is_root()
            .then(|| MachineUid::for_slot(30))
    }

    #[test]
    fn a_closed_directory_belongs_to_the_caller_and_an_open_one_to_the_engine() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("fc");
        let place = Place::create(&path, uid()).unwrap();
        let caller = rustix::process::geteuid().as_raw();
        let engine = uid().map_or(caller, MachineUid::get);
        let owner = || path.metadata().unwrap();
        assert_eq!((owner().uid(), owner().mode() & 0o777), (engine, 0o700));
        place.close().unwrap();
        let group = rustix::process::getegid().as_raw();
        assert_eq!((owner().uid(), owner().gid()), (caller, group));
        assert_eq!(owner().mode() & 0o022, 0);
        let again = Place::create(&path, uid()).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
    }

    #[test]
    fn an_offered_file_is_one_file_and_comes_back() {
        let parent = tempfile::tempdir().unwrap();
        let place = Place::create(&parent.path().join("fc"), uid()).unwrap();
        let target = parent.path().join("memory");
        let file = place.offer("save-memory", &target).unwrap();
        std::fs::write(place.path().join("save-memory"), "x").unwrap();
        assert!(place.offer("save-memory", &target).is_err());
        place.take_back("save-memory", &file).unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"x");
        let caller = rustix::process::geteuid().as_raw();
        assert_eq!(target.metadata().unwrap().uid(), caller);
        assert_eq!(target.metadata().unwrap().nlink(), 1);
    }
}
