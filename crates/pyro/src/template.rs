//! Templates, seen from the client: listed and pruned. Machines make and use them by themselves.

use std::time::Duration;

use pyro_protocol::supervise::{TemplateListing, TemplatesOrder, TemplatesToRemove};
use serde::Serialize;

use crate::error::Error;
use crate::{Pyro, supervisor};

/// Which templates to remove.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TemplatePruneOptions {
    /// Those of this environment; of every one if absent.
    pub environment: Option<String>,
    /// Those that no machine was made of for so long; all if zero.
    pub unused_for: Duration,
    /// Only tell.
    pub dry_run: bool,
}

/// What was removed, or would be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TemplatePruneResult {
    /// Whether nothing was removed.
    pub dry_run: bool,
    /// The templates.
    pub removed: Vec<TemplateListing>,
    /// What they took on the disk, in bytes.
    pub freed_bytes: u64,
}

impl Pyro {
    /// The templates that machines begin from, the last used first.
    pub async fn list_templates(&self) -> Result<Vec<TemplateListing>, Error> {
        let order = TemplatesOrder {
            templates_dir: self.settings().home.templates(),
            remove: None,
        };
        Ok(supervisor::templates(self.settings(), &order)
            .await?
            .templates)
    }

    /// Removes templates. Machines that were made of them are not disturbed.
    pub async fn prune_templates(
        &self,
        options: TemplatePruneOptions,
    ) -> Result<TemplatePruneResult, Error> {
        let order = TemplatesOrder {
            templates_dir: self.settings().home.templates(),
            remove: Some(TemplatesToRemove {
                environment: options.environment,
                unused_secs: options.unused_for.as_secs(),
                dry_run: options.dry_run,
            }),
        };
        let report = supervisor::templates(self.settings(), &order).await?;
        Ok(TemplatePruneResult {
            dry_run: options.dry_run,
            freed_bytes: report.removed.iter().map(|one| one.bytes).sum(),
            removed: report.removed,
        })
    }
}
