//! Templates, seen from the client: listed, pruned, and compared with what machines consist of now. Machines make and use
//! them by themselves.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pyro_image::Sha256Digest;
use pyro_image::store::InstallState;
use pyro_protocol::supervise::{
    TemplateListing, TemplatesOrder, TemplatesReport, TemplatesToRemove,
};
use serde::Serialize;

use crate::error::Error;
use crate::{Pyro, boot_files, supervisor};

/// Which templates to remove: those that cannot be used any more, and more if so asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TemplatePruneOptions {
    /// Only those of this environment; of every one if absent.
    pub environment: Option<String>,
    /// All of them.
    pub all: bool,
    /// Also those that no machine was made of for so long.
    pub older_than: Option<Duration>,
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

/// What machines of an environment consist of now; no root image if it is not installed.
#[derive(Clone, Copy)]
struct Current {
    root: Option<Sha256Digest>,
    /// `None`: not known.
    kernel: Option<Sha256Digest>,
}

impl Pyro {
    /// The templates that machines begin from, the last used first. One that no machine would begin from now has a reason.
    pub async fn list_templates(&self) -> Result<Vec<TemplateListing>, Error> {
        let mut templates = self.templates_on_disk().await?;
        let mut current = BTreeMap::new();
        for one in &mut templates {
            if let (None, Some(name)) = (&one.reason, &one.environment) {
                let current = *current
                    .entry(name.clone())
                    .or_insert_with(|| self.current(name));
                one.reason = outdated(one, current);
            }
        }
        Ok(templates)
    }

    /// Removes templates. Machines that were made of them are not disturbed.
    pub async fn prune_templates(
        &self,
        options: TemplatePruneOptions,
    ) -> Result<TemplatePruneResult, Error> {
        let environment = match &options.environment {
            Some(name) => Some(self.entry(name)?.name),
            None => None,
        };
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let templates = self.list_templates().await?;
        let doomed = templates.into_iter().filter(|one| {
            let unused = now.saturating_sub(one.used_at);
            let asked = environment.is_none() || one.environment == environment;
            let old = options
                .older_than
                .is_some_and(|age| unused >= age.as_secs());
            asked && (options.all || old || one.reason.is_some())
        });
        self.remove_templates(doomed.collect(), options.dry_run)
            .await
    }

    /// Removes what `doomed` lists.
    pub(crate) async fn remove_templates(
        &self,
        doomed: Vec<TemplateListing>,
        dry_run: bool,
    ) -> Result<TemplatePruneResult, Error> {
        let remove = TemplatesToRemove {
            keys: doomed.iter().map(|one| one.key.clone()).collect(),
            dry_run,
        };
        let report = if doomed.is_empty() {
            TemplatesReport::default()
        } else {
            self.ask_for_templates(Some(remove)).await?
        };
        let removed: Vec<_> = doomed
            .into_iter()
            .filter(|one| report.removed.iter().any(|gone| gone.key == one.key))
            .collect();
        Ok(TemplatePruneResult {
            dry_run,
            freed_bytes: removed.iter().map(|one| one.bytes).sum(),
            removed,
        })
    }

    /// The templates, with reasons only where they cannot be opened or their engine's program has changed.
    pub(crate) async fn templates_on_disk(&self) -> Result<Vec<TemplateListing>, Error> {
        // No program is started to find nothing.
        if !self.settings().home.templates().is_dir() {
            return Ok(Vec::new());
        }
        Ok(self.ask_for_templates(None).await?.templates)
    }

    async fn ask_for_templates(
        &self,
        remove: Option<TemplatesToRemove>,
    ) -> Result<TemplatesReport, Error> {
        let order = TemplatesOrder {
            templates_dir: self.settings().home.templates(),
            remove,
        };
        supervisor::templates(self.settings(), &order).await
    }

    fn current(&self, environment: &str) -> Current {
        let installed = self
            .entry(environment)
            .ok()
            .and_then(|entry| self.store().installed(&entry).ok());
        match installed {
            Some(InstallState::Valid(installed)) => Current {
                root: Some(installed.root_digest()),
                kernel: self.kernel_digest_now(&installed),
            },
            _ => Current {
                root: None,
                kernel: None,
            },
        }
    }

    /// What a killed process was making or removing. Unless `dry_run`, it is removed.
    pub(crate) fn remove_template_remains(&self, dry_run: bool) -> Vec<PathBuf> {
        let home = &self.settings().home;
        let Ok(entries) = std::fs::read_dir(home.templates()) else {
            return Vec::new();
        };
        let machines = home.machines();
        let mut remains: Vec<PathBuf> = entries
            .flatten()
            .filter(|entry| {
                let name = entry.file_name();
                let name = name.to_string_lossy();
                // A machine that lives has a directory, and one that is dead is swept with what it was making.
                name.starts_with(".removed-")
                    || name
                        .strip_prefix(".partial-")
                        .is_some_and(|id| !id.is_empty() && !machines.join(id).exists())
            })
            .map(|entry| entry.path())
            .collect();
        remains.sort();
        if !dry_run {
            remains.retain(|path| std::fs::remove_dir_all(path).is_ok());
        }
        remains
    }
}

/// Why no machine would begin from the template.
fn outdated(template: &TemplateListing, current: Current) -> Option<String> {
    let differs = |had: &Option<String>, now: Option<Sha256Digest>| {
        now.is_some_and(|now| had.as_ref() != Some(&now.to_string()))
    };
    let initramfs = template.initramfs.as_deref().unwrap_or_default();
    let why = if current.root.is_none() {
        "its environment is not installed any more"
    } else if differs(&template.root_digest, current.root) {
        "its environment has another root image now"
    } else if differs(&template.kernel_digest, current.kernel) {
        "its environment's guest kernel is another one now"
    } else if !boot_files::is_current(initramfs) {
        "it runs another build of the guest agent"
    } else {
        return None;
    };
    Some(why.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(root: &[u8], kernel: &[u8], agent: &str) -> TemplateListing {
        TemplateListing {
            key: "0123456789abcdef".into(),
            environment: Some("debian:12".into()),
            root_digest: Some(Sha256Digest::of(root).to_string()),
            kernel_digest: Some(Sha256Digest::of(kernel).to_string()),
            initramfs: Some(format!("{agent}-bare.cpio")),
            network: Some(false),
            engine: Some("qemu-tcg".into()),
            vcpu_count: Some(1),
            mem_mib: Some(1024),
            bytes: 1,
            created_at: Some(1),
            used_at: 1,
            reason: None,
        }
    }

    #[test]
    fn what_no_machine_would_begin_from_has_a_reason() {
        let current = Current {
            root: Some(Sha256Digest::of(b"root")),
            kernel: Some(Sha256Digest::of(b"kernel")),
        };
        let agent = pyro_guest::AGENT_BUILD_ID;
        let good = template(b"root", b"kernel", agent);
        assert_eq!(outdated(&good, current), None);
        let unknown = Current {
            kernel: None,
            ..current
        };
        assert_eq!(outdated(&good, unknown), None);
        let gone = Current {
            root: None,
            ..current
        };
        let cases = [
            (good, gone, "not installed"),
            (template(b"other", b"kernel", agent), current, "root image"),
            (template(b"root", b"other", agent), current, "guest kernel"),
            (template(b"root", b"kernel", "older"), current, "agent"),
        ];
        for (template, current, part) in cases {
            let told = outdated(&template, current).unwrap();
            assert!(told.contains(part), "{told}");
        }
    }
}
