//! What changed in a workspace, put into a checkout of the host.

use std::path::Path;

use pyro_image::blocking::blocking;
use serde::Serialize;

use super::Workspace;
use super::diff::{DiffEntry, DiffOptions, DiffSummary};
use super::events::Event;
use crate::error::Error;
use crate::tree::{ApplyMode, ApplyReport, HostGit, apply_to_checkout};

/// How changes are put into a checkout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostApplyOptions {
    /// Only what one of these patterns matches.
    pub paths: Vec<String>,
    /// Only tell what would happen.
    pub dry_run: bool,
    /// Merge with what changed in the checkout since, as `git apply --3way` does.
    pub three_way: bool,
}

impl Default for HostApplyOptions {
    fn default() -> Self {
        Self {
            paths: Vec::new(),
            dry_run: false,
            three_way: true,
        }
    }
}

/// What became of a checkout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HostApplyPayload {
    /// The workspace.
    pub workspace_id: String,
    /// The checkout.
    pub checkout: String,
    /// Whether it was only tried.
    pub dry_run: bool,
    /// What changed in the workspace.
    pub summary: DiffSummary,
    /// The same, entry by entry.
    pub entries: Vec<DiffEntry>,
    /// What became of the patch.
    pub report: ApplyReport,
}

impl Workspace {
    /// Puts what changed since the baseline into the checkout at `checkout`, with `git apply`: all of it or nothing, unless
    /// merging leaves conflicts.
    pub async fn apply_to_host(
        &self,
        checkout: &Path,
        options: &HostApplyOptions,
    ) -> Result<HostApplyPayload, Error> {
        let checkout = crate::absolute::absolute(checkout)?;
        let diffed = self
            .diffed(&DiffOptions {
                paths: options.paths.clone(),
                binary: true,
                max_bytes: usize::MAX,
                ..DiffOptions::default()
            })
            .await?;
        let search_path = self.pyro.settings().search_path.clone();
        let (at, patch) = (checkout.clone(), diffed.patch);
        let mode = ApplyMode {
            dry_run: options.dry_run,
            three_way: options.three_way,
        };
        let report = if diffed.summary.total == 0 {
            ApplyReport {
                clean: true,
                changed: false,
                files: Vec::new(),
                messages: Vec::new(),
            }
        } else {
            blocking(move || {
                let git = HostGit::find(&search_path)?;
                apply_to_checkout(&at, &patch, &git, mode)
            })
            .await?
        };
        if report.changed && !options.dry_run {
            self.log(&Event::Apply {
                checkout: &checkout.display().to_string(),
                files: report.files.len() as u64,
            })
            .await;
        }
        Ok(HostApplyPayload {
            workspace_id: self.id.clone(),
            checkout: checkout.display().to_string(),
            dry_run: options.dry_run,
            summary: diffed.summary,
            entries: diffed.entries,
            report,
        })
    }
}
