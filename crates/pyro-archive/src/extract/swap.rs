//! A directory that is replaced as a whole: whoever opens it finds the old one or the new one.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, RenameFlags};
use rustix::io::Errno;

use super::options::{Options, Progress};
use super::parents::open;
use super::remove::remove;
use super::stage::UNFINISHED;
use super::{ExtractError, Extractor, Summary, fresh_name};
use crate::beneath::Root;

/// A directory that does not have its name yet. Dropped, it leaves nothing behind.
#[derive(Debug)]
pub struct Swap {
    parent: OwnedFd,
    name: OsString,
    /// Name of the new directory, and after the swap of the old one.
    other: OsString,
}

impl Swap {
    /// Makes a directory of mode 0700 that is to be `name` in `parent`.
    pub fn open(parent: OwnedFd, name: &OsStr) -> Result<Self, ExtractError> {
        let failed = failed(name, "making the staging directory");
        let other = fresh_name(UNFINISHED, |other| {
            rustix::fs::mkdirat(&parent, other, Mode::RWXU)?;
            Ok(other.to_owned())
        });
        Ok(Self {
            name: name.to_owned(),
            other: other.map_err(failed)?,
            parent,
        })
    }

    /// An extractor into the new directory.
    pub fn extractor<'a>(
        &self,
        options: Options,
        progress: &'a Progress,
    ) -> Result<Extractor<'a>, ExtractError> {
        let failed = failed(&self.name, "opening the staging directory");
        let inner = open(&self.parent, &self.other).map_err(failed)?;
        Extractor::new(Root::from_directory(inner), options, progress)
    }

    /// Gives the new directory its name, and removes what had it.
    pub fn commit(self, mut extractor: Extractor<'_>) -> Result<Summary, ExtractError> {
        extractor.finish()?;
        let rename = |flags| {
            let (new, name) = (&self.other, &self.name);
            rustix::fs::renameat_with(&self.parent, new, &self.parent, name, flags)
        };
        match rename(RenameFlags::EXCHANGE) {
            Err(Errno::NOENT) => rename(RenameFlags::NOREPLACE),
            swapped => swapped,
        }
        .map_err(failed(&self.name, "taking its place"))?;
        Ok(extractor.summary().clone())
    }
}

impl Drop for Swap {
    fn drop(&mut self) {
        // Nobody is left to be told.
        let _ = remove(&self.parent, &self.other);
    }
}

fn failed(name: &OsStr, what: &'static str) -> impl Fn(Errno) -> ExtractError {
    ExtractError::system(name.as_encoded_bytes(), what)
}
