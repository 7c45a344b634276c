//! What is being put in its place on this host, noted so that it comes to its end though its process is killed.
//!
//! Owns the two ledgers: of directories that are merged into, which go on to their end, and of hidden directories beside places that
//! something new is to take, which are removed. Whoever uses workspaces next does both.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use pyro_archive::extract::ledger::{Ledger, Record};
use pyro_archive::extract::{Noting, Survives, recover};

use super::place;

/// The notes of one user. Clones share them.
#[derive(Clone, Debug)]
pub struct Unfinished {
    merges: Ledger,
    places: Ledger,
}

/// A hidden directory that is about to be made. Dropped, it is noted no more.
#[derive(Debug)]
pub(super) enum Hidden {
    /// Whoever comes next removes it if this process is killed.
    Noted(Record),
    /// There was no room to note it. Work is brought out of a workspace all the same: a directory that stays behind if this
    /// process is killed in the midst is the lesser harm.
    Unnoted(OsString),
}

impl Hidden {
    pub(super) fn name(&self) -> &OsStr {
        match self {
            Self::Noted(record) => record.name(),
            Self::Unnoted(name) => name,
        }
    }
}

impl Unfinished {
    /// Notes in `directory`, which is made when it is first needed.
    pub fn noted_in(directory: &Path) -> Self {
        Self {
            merges: Ledger::new(directory.join("merges")),
            places: Ledger::new(directory.join("places")),
        }
    }

    /// Brings to its end what processes that died had begun, and tells which hidden directories are gone by that. What cannot be
    /// brought to its end now stays noted. Blocks.
    pub fn finish(&self) -> Vec<PathBuf> {
        let mut gone: Vec<PathBuf> = recover(&self.merges)
            .into_iter()
            .filter(|recovered| recovered.outcome.is_ok())
            .map(|recovered| recovered.path)
            .collect();
        for left in self.places.left() {
            let path = left.at.join(&left.name);
            match place::clear(&left) {
                Ok(()) => gone.push(path),
                Err(_) => left.record.keep(),
            }
        }
        gone.sort();
        gone
    }

    /// The hidden directories that [`Unfinished::finish`] would remove.
    pub fn left(&self) -> Vec<PathBuf> {
        let mut paths = Vec::new();
        for ledger in [&self.merges, &self.places] {
            for left in ledger.left() {
                paths.push(left.at.join(&left.name));
                left.record.keep();
            }
        }
        paths.sort();
        paths
    }

    pub(super) fn of_merges(&self) -> Noting {
        Noting {
            ledger: self.merges.clone(),
            survives: Survives::Process,
        }
    }

    /// Notes that a hidden directory is about to be made beside `place`, for which the last `made` directories above it are made.
    pub(super) fn note_place(&self, place: &Path, made: usize) -> std::io::Result<Hidden> {
        let above = place.parent().unwrap_or(Path::new("/"));
        let name = place.file_name().unwrap_or_default().as_bytes();
        let below = [format!("{made}/").as_bytes(), name].concat();
        match self.places.note(place::HIDDEN, above, &below) {
            Ok(record) => Ok(Hidden::Noted(record)),
            Err(error) => match error.kind() {
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                    Ok(Hidden::Unnoted(Ledger::name(place::HIDDEN)))
                }
                _ => Err(error),
            },
        }
    }
}
