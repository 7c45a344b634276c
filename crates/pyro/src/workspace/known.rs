//! What lies in the directories of workspaces and what is known of it: names to be offered, and remains to be removed.

use std::path::{Path, PathBuf};

use super::lock::{self, Lock, Locked};
use super::store::connection;
use crate::Pyro;
use crate::error::Error;

impl Pyro {
    /// Ids and names of all workspaces, as they are written down: nothing is started, settled or asked.
    pub async fn known_workspaces(&self) -> Result<Vec<(String, Option<String>)>, Error> {
        let (rows, damaged) = self.db(|store| store.all()).await?;
        let known = rows.into_iter().map(|row| (row.id, row.name));
        let damaged = damaged.into_iter().map(|found| (found.id, None));
        Ok(known.chain(damaged).collect())
    }

    /// Removes directories of workspaces and snapshots, and seeds, that no record names, or with `dry_run` only tells them. Without
    /// `dry_run`, what processes that died had begun is brought to its end before.
    pub(crate) async fn remove_workspace_remains(
        &self,
        dry_run: bool,
    ) -> Result<Vec<PathBuf>, Error> {
        let home = &self.settings().home;
        // Opening a database that is not there would make one.
        if !home.workspace_database().exists() {
            return Ok(Vec::new());
        }
        if !dry_run {
            self.settle_workspaces().await?;
        }
        if !self.damaged_databases().is_empty() {
            // Whose record is in one of these is not nobody's.
            return Ok(Vec::new());
        }
        let mut remains = Vec::new();
        for (id, path) in directories(&home.workspaces()) {
            if let Some(lock) = self.forgotten(&id, &path).await? {
                if !dry_run {
                    self.workspace_of(id).place().remove()?;
                }
                drop(lock);
                remains.push(path);
            }
        }
        for (kept, path) in directories(&home.snapshots()) {
            let wanted = kept.clone();
            // It is written down before its directory is made, and as long as it is there.
            if !self.db(move |store| store.is_kept(&wanted)).await? {
                if !dry_run {
                    self.release_snapshot(&kept).await?;
                }
                remains.push(path);
            }
        }
        remains.extend(self.remove_seed_remains(dry_run).await?);
        Ok(remains)
    }

    /// The databases that were put aside because they were damaged.
    pub(super) fn damaged_databases(&self) -> Vec<PathBuf> {
        connection::aside(&self.settings().home.workspace_database())
    }

    /// The lock of a directory that is no workspace's. One that is being made has its lock before its record.
    async fn forgotten(&self, id: &str, directory: &Path) -> Result<Option<Lock>, Error> {
        let lock = match lock::try_take(&directory.join("lock"))? {
            Locked::Held(lock) => lock,
            Locked::Busy | Locked::Gone => return Ok(None),
        };
        let id = id.to_owned();
        let known = self.db(move |store| store.get(&id)).await?;
        Ok(known.is_none().then_some(lock))
    }
}

/// The directories in a directory by name, sorted. Names that are no UTF-8 are nobody's of ours.
fn directories(directory: &Path) -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut found: Vec<(String, PathBuf)> = entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
        .collect();
    found.sort();
    found
}
