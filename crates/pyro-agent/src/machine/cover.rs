//! Files of ours that cover others: what a machine is given anew without a change to its disk.
//!
//! A file in memory is mounted over the other once, and later written anew in place: no mounts pile up, mount namespaces
//! that the guest has made since see the new content, too, and comparisons of the root with its image see no change. The
//! guest can write to the file and remove it; then it is made and mounted again.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::mount::{UnmountFlags, mount_bind, unmount};

const DIRECTORY: &str = "/run/pyro";

/// A file that covers another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cover {
    /// Its name among ours.
    pub(super) name: &'static str,
    /// What it covers: a regular file.
    pub(super) over: &'static str,
    /// Its permissions.
    pub(super) mode: u32,
}

impl Cover {
    /// Has programs read `line` there.
    pub(super) fn renew(self, line: &[u8]) -> io::Result<()> {
        if let Some(mounted) = self.mounted() {
            mounted.write_all_at(line, 0)?;
            // The guest may have written more.
            return mounted.set_len(line.len() as u64);
        }
        self.make(line)?;
        // One of ours of before, whose file the guest has removed.
        if self.is_covered()? {
            unmount(self.over, UnmountFlags::DETACH)?;
        }
        Ok(mount_bind(self.ours(), self.over)?)
    }

    fn ours(self) -> PathBuf {
        Path::new(DIRECTORY).join(self.name)
    }

    /// The file of ours, if it is what programs read.
    fn mounted(self) -> Option<File> {
        let file = OpenOptions::new()
            .write(true)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(self.ours())
            .ok()?;
        let (ours, seen) = (file.metadata().ok()?, fs::metadata(self.over).ok()?);
        ((ours.dev(), ours.ino()) == (seen.dev(), seen.ino())).then_some(file)
    }

    /// Whether it lies on the file system that ours are on.
    fn is_covered(self) -> io::Result<bool> {
        Ok(fs::metadata(self.over)?.dev() == fs::metadata(DIRECTORY)?.dev())
    }

    fn make(self, line: &[u8]) -> io::Result<()> {
        if !Path::new(DIRECTORY).is_dir() {
            fs::DirBuilder::new().mode(0o755).create(DIRECTORY)?;
        }
        let path = self.ours();
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
        file.write_all(line)?;
        // The umask took its share at the creation.
        file.set_permissions(fs::Permissions::from_mode(self.mode))
    }
}
