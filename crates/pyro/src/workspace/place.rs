//! Where what belongs to a workspace lies on the host.
//!
//! Owns the names of files; nothing here is made of bytes of a guest.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::settings::Home;

/// Names of disks begin with it that outlive nothing.
const THROWN: &str = "thrown-";

/// A workspace's directory.
#[derive(Clone, Debug)]
pub(crate) struct Place(PathBuf);

impl Place {
    pub(crate) fn of(home: &Home, id: &str) -> Self {
        Self(home.workspaces().join(id))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Makes it, private to this user.
    pub(crate) fn make(&self) -> Result<(), Error> {
        for directory in [self.0.clone(), self.disks(), self.commands()] {
            make_private(&directory)?;
        }
        Ok(())
    }

    /// Removes it with all that is in it.
    pub(crate) fn remove(&self) -> Result<(), Error> {
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::Io {
                action: "remove",
                path: self.0.clone(),
                source: error,
            }),
            _ => Ok(()),
        }
    }

    /// As [`Place::remove`]; a kill leaves all of it or nothing that bears its name.
    pub(crate) fn remove_at_once(&self) -> Result<(), Error> {
        // No id: whoever clears up knows no workspace of that name.
        let aside = self.0.with_extension("removed");
        match fs::rename(&self.0, &aside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::Io {
                action: "remove",
                path: self.0.clone(),
                source: error,
            }),
            _ => Self(aside).remove(),
        }
    }

    /// Locked by whoever changes what the workspace is.
    pub(crate) fn lock(&self) -> PathBuf {
        self.0.join("lock")
    }

    /// The root image that the disk belongs to: a second name of the environment's.
    pub(crate) fn root_image(&self) -> PathBuf {
        self.0.join("root.ext4")
    }

    /// What the disk of a machine is called that is looked into and thrown away.
    pub(crate) fn thrown_name(machine_id: &str) -> String {
        format!("{THROWN}{machine_id}.ext4")
    }

    /// The machines that disks are there of which were to be thrown away.
    pub(crate) fn thrown(&self) -> Vec<String> {
        let entries = fs::read_dir(self.disks()).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        names
            .filter_map(|name| {
                let id = name.strip_prefix(THROWN)?.strip_suffix(".ext4")?;
                Some(id.to_owned())
            })
            .collect()
    }

    fn disks(&self) -> PathBuf {
        self.0.join("disks")
    }

    /// A disk that the guest writes to. It is called after the machine that it was made for.
    pub(crate) fn disk(&self, name: &str) -> PathBuf {
        self.disks().join(name)
    }

    /// What the disk of a machine is called.
    pub(crate) fn disk_name(machine_id: &str) -> String {
        format!("{machine_id}.ext4")
    }

    /// Where a machine's supervisor writes down its end.
    pub(crate) fn end_record(&self, machine_id: &str) -> PathBuf {
        self.0.join(format!("end-{machine_id}.json"))
    }

    /// Outputs of commands.
    pub(crate) fn commands(&self) -> PathBuf {
        self.0.join("commands")
    }

    /// What happened to it, a JSON object a line.
    pub(crate) fn events(&self) -> PathBuf {
        self.0.join("events.jsonl")
    }
}

pub(crate) fn make_private(directory: &Path) -> Result<(), Error> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|source| Error::Io {
            action: "make",
            path: directory.to_owned(),
            source,
        })
}

/// What a file or a tree takes on the disk, in bytes. A file with several names counts once here and once elsewhere, so the
/// second name of a root image is left out.
pub(crate) fn disk_usage(path: &Path) -> u64 {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return 0;
    };
    if !metadata.is_dir() {
        return if metadata.nlink() > 1 {
            0
        } else {
            metadata.blocks() * 512
        };
    }
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| disk_usage(&entry.path())).sum()
}
