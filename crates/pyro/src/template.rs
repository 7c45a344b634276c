//! Templates, seen from the client: listed, pruned, and compared with what machines consist of now. Machines make and use
//! them by themselves.

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

/// What machines of an environment that is installed consist of now.
#[derive(Clone, Debug)]
struct Current {
    environment: String,
    /// Name of its directory.
    directory: String,
    root: Sha256Digest,
    /// `None`: not known.
    kernel: Option<Sha256Digest>,
}

impl Current {
    fn has_root_of(&self, template: &TemplateListing) -> bool {
        template.root_digest.as_ref() == Some(&self.root.to_string())
    }

    /// Whether its machines begin from the template, if nothing else is wrong with that.
    fn begins_from(&self, template: &TemplateListing) -> bool {
        let kernel = self.kernel.map(|kernel| kernel.to_string());
        self.has_root_of(template) && (kernel.is_none() || kernel == template.kernel_digest)
    }
}

impl Pyro {
    /// The templates that machines begin from, the last used first. One that no machine would begin from now has a reason.
    /// Environments with the same root image share their templates: one is listed under the environment that it was made
    /// for, or, where that is gone, under another one that uses it.
    pub async fn list_templates(&self) -> Result<Vec<TemplateListing>, Error> {
        Ok(self.templates_and_users().await?.0)
    }

    /// Removes templates. Machines that were made of them are not disturbed. What is only asked for as a template of one
    /// environment stays if another one that is installed uses it.
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
        let (templates, users) = self.templates_and_users().await?;
        let doomed = templates.into_iter().filter(|one| {
            let unused = now.saturating_sub(one.used_at);
            let old = options
                .older_than
                .is_some_and(|age| unused >= age.as_secs());
            let wanted = options.all || old;
            match &environment {
                Some(name) => goes_with(one, name, None, wanted, &users),
                None => wanted || one.reason.is_some(),
            }
        });
        self.remove_templates(doomed.collect(), options.dry_run)
            .await
    }

    /// Removes the templates of an environment that is not installed any more and had the root image `root`, as far as no
    /// other one uses them.
    pub(crate) async fn remove_templates_of(
        &self,
        environment: &str,
        root: Option<Sha256Digest>,
    ) -> Result<TemplatePruneResult, Error> {
        let (templates, users) = self.templates_and_users().await?;
        let doomed = templates
            .into_iter()
            .filter(|one| goes_with(one, environment, root, true, &users));
        self.remove_templates(doomed.collect(), false).await
    }

    /// The templates that no machine begins from without the environments in these directories.
    pub(crate) async fn templates_without(
        &self,
        directories: &[String],
    ) -> Result<Vec<TemplateListing>, Error> {
        let (mut templates, mut users) = self.templates_and_users().await?;
        users.retain(|user| !directories.contains(&user.directory));
        templates
            .retain(|one| one.reason.is_some() || !users.iter().any(|user| user.begins_from(one)));
        Ok(templates)
    }

    /// The templates, and the environments whose machines may begin from them.
    async fn templates_and_users(&self) -> Result<(Vec<TemplateListing>, Vec<Current>), Error> {
        let mut templates = self.templates_on_disk().await?;
        let users = if templates.is_empty() {
            Vec::new()
        } else {
            self.current()?
        };
        for one in &mut templates {
            if one.reason.is_none() {
                one.reason = outdated(one, &users);
            }
            let is_user = |user: &&Current| user.begins_from(one);
            let made_for = |user: &Current| one.environment.as_ref() == Some(&user.environment);
            if let Some(user) = users.iter().find(is_user)
                && !users.iter().filter(is_user).any(made_for)
            {
                one.environment = Some(user.environment.clone());
            }
        }
        Ok((templates, users))
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

    /// The environments that are installed. One that cannot be looked at has no machines.
    fn current(&self) -> Result<Vec<Current>, Error> {
        let store = self.store();
        let mut found = Vec::new();
        for entry in store.entries()? {
            if let Ok(InstallState::Valid(installed)) = store.installed(&entry) {
                found.push(Current {
                    root: installed.root_digest(),
                    kernel: self.kernel_digest_now(&installed),
                    directory: entry.directory_name(),
                    environment: entry.name,
                });
            }
        }
        Ok(found)
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
fn outdated(template: &TemplateListing, installed: &[Current]) -> Option<String> {
    let made_for = |one: &Current| template.environment.as_ref() == Some(&one.environment);
    let initramfs = template.initramfs.as_deref().unwrap_or_default();
    let why = if !installed.iter().any(|one| one.has_root_of(template)) {
        if installed.iter().any(made_for) {
            "its environment has another root image now"
        } else {
            "its environment is not installed any more"
        }
    } else if !installed.iter().any(|one| one.begins_from(template)) {
        "its environment's guest kernel is another one now"
    } else if !boot_files::is_current(initramfs) {
        "it runs another build of the guest agent"
    } else {
        return None;
    };
    Some(why.into())
}

/// Whether a template is removed when those of `environment` are, which had the root image `root` if it was removed just
/// now: what is of no use to anybody, and if `usable` what no other environment uses.
fn goes_with(
    template: &TemplateListing,
    environment: &str,
    root: Option<Sha256Digest>,
    usable: bool,
    installed: &[Current],
) -> bool {
    let mut users = installed.iter().filter(|one| one.begins_from(template));
    let is_its_own = template.environment.as_deref() == Some(environment)
        || users.clone().any(|user| user.environment == environment)
        || root.is_some_and(|root| template.root_digest.as_ref() == Some(&root.to_string()));
    let is_only_its_own = users.all(|user| user.environment == environment);
    is_its_own && (template.reason.is_some() || (usable && is_only_its_own))
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

    fn installed(environment: &str, root: &[u8], kernel: Option<&[u8]>) -> Current {
        Current {
            environment: environment.into(),
            directory: format!("{environment}-1"),
            root: Sha256Digest::of(root),
            kernel: kernel.map(Sha256Digest::of),
        }
    }

    #[test]
    fn what_no_machine_would_begin_from_has_a_reason() {
        let current = [installed("debian:12", b"root", Some(b"kernel"))];
        let agent = pyro_guest::AGENT_BUILD_ID;
        let good = template(b"root", b"kernel", agent);
        assert_eq!(outdated(&good, &current), None);
        let unknown = [installed("debian:12", b"root", None)];
        assert_eq!(outdated(&good, &unknown), None);
        let cases = [
            (good, &[][..], "not installed"),
            (template(b"other", b"kernel", agent), &current, "root image"),
            (template(b"root", b"other", agent), &current, "guest kernel"),
            (template(b"root", b"kernel", "older"), &current, "agent"),
        ];
        for (template, current, part) in cases {
            let told = outdated(&template, current).unwrap();
            assert!(told.contains(part), "{told}");
        }
    }

    #[test]
    fn what_several_environments_share_goes_with_the_last() {
        let agent = pyro_guest::AGENT_BUILD_ID;
        let shared = template(b"root", b"kernel", agent);
        let mut both = vec![
            installed("debian:12", b"root", Some(b"kernel")),
            installed("tools", b"root", Some(b"kernel")),
        ];
        assert!(!goes_with(&shared, "debian:12", None, true, &both));
        assert!(!goes_with(&shared, "tools", None, true, &both));
        // It is the other's as well, whoever it was made for.
        let tools = both.split_off(1);
        assert_eq!(outdated(&shared, &tools), None);
        assert!(goes_with(&shared, "tools", None, true, &tools));
        assert!(!goes_with(&shared, "tools", None, false, &tools));
        assert!(!goes_with(&shared, "debian:12", None, true, &tools));
        let root = Some(Sha256Digest::of(b"root"));
        assert!(goes_with(&shared, "tools", root, true, &[]));
        assert!(!goes_with(&shared, "another", None, true, &[]));
        // What nobody begins from any more is nobody's.
        let broken = TemplateListing {
            reason: Some("it is half".into()),
            ..shared
        };
        assert!(goes_with(&broken, "debian:12", None, false, &tools));
        // One with another kernel does not share it.
        let other = installed("other", b"root", Some(b"newer"));
        let both = [tools[0].clone(), other];
        let good = template(b"root", b"kernel", agent);
        assert!(goes_with(&good, "tools", None, true, &both));
    }
}
