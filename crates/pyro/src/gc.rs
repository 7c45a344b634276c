//! Clearing away what killed processes left over.
//!
//! Everything here is recognised by who owns it, never by its age: a machine by the lock of
//! its supervisor, a build by the lock of its environment, a workspace by its record and its lock, a file
//! by the build it was for.

use std::path::{Path, PathBuf};

use pyro_image::blocking::blocking;
use pyro_protocol::supervise::SweptMachine;
use serde::Serialize;

use crate::error::Error;
use crate::{Pyro, boot_files, supervisor};

/// What was found, and removed unless only reported.
#[derive(Clone, Debug, Default, Serialize)]
pub struct GcReport {
    /// Whether nothing was removed.
    pub dry_run: bool,
    /// Machines whose supervisor is gone, with their processes and directories.
    pub machines: Vec<SweptMachine>,
    /// Builds whose process is gone, records of preparations without their environment, templates
    /// that a killed process was making or removing, directories of workspaces, snapshots and seeds
    /// that no record names, hidden directories of exports and pulls, and initramfs files of other builds of the agent.
    pub paths: Vec<PathBuf>,
}

impl GcReport {
    /// Whether there was nothing to do.
    pub fn is_empty(&self) -> bool {
        self.machines.is_empty() && self.paths.is_empty()
    }
}

impl Pyro {
    /// Removes what is left over, or with `dry_run` only tells what it would.
    pub async fn gc(&self, dry_run: bool) -> Result<GcReport, Error> {
        let swept = supervisor::sweep(self.settings(), dry_run).await?;
        let home = &self.settings().home;
        let mut paths: Vec<PathBuf> = self
            .store()
            .remove_stale_staging(dry_run)?
            .into_iter()
            .map(|stale| stale.path)
            .collect();
        paths.extend(home.kernel_store().remove_stale_staging(dry_run)?);
        paths.extend(self.prepared_records().remove_orphans(dry_run)?);
        paths.extend(self.remove_template_remains(dry_run));
        paths.extend(self.remove_workspace_remains(dry_run).await?);
        paths.extend(self.unfinished_places(dry_run).await);
        paths.extend(old_initramfs(&home.initramfs(), dry_run));
        Ok(GcReport {
            dry_run,
            machines: swept.machines,
            paths,
        })
    }
}

impl Pyro {
    /// Brings to its end what processes that died were putting in its place on this host.
    pub(crate) async fn finish_unfinished(&self) {
        self.unfinished_places(false).await;
    }

    /// The same, and tells the hidden directories that are gone by that, or with `dry_run` only tells them.
    async fn unfinished_places(&self, dry_run: bool) -> Vec<PathBuf> {
        let unfinished = self.settings().home.unfinished();
        blocking(move || {
            if dry_run {
                unfinished.left()
            } else {
                unfinished.finish()
            }
        })
        .await
    }
}

fn old_initramfs(directory: &Path, dry_run: bool) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut old: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            // A partial file belongs to a writer that may still be at it.
            !name.starts_with(".partial-") && !boot_files::is_current(&name)
        })
        .map(|entry| entry.path())
        .collect();
    old.sort();
    if !dry_run {
        // A machine that still boots from it has it open.
        old.retain(|path| std::fs::remove_file(path).is_ok());
    }
    old
}
