//! Looking at what is here now, for the comparison with what is recorded.
//!
//! Cheap: files are looked at. What was found out about engines is remembered, so that no guest
//! runs; templates are listed by the program that makes them.

use std::fmt::Write;
use std::path::PathBuf;

use pyro_image::catalog::EntrySource;
use pyro_image::store::{InstallState, Installed};
use pyro_image::{CatalogEntry, Sha256Digest};
use pyro_protocol::supervise::ProbeReport;
use serde::Serialize;

use super::readiness::{
    KernelNow, Present, ReadinessCode, ReadinessReason, ReadinessStatus, RootNow, Wanted, compare,
};
use super::record::{PreparedEngine, PreparedRecord};
use crate::environment::EnvironmentOptions;
use crate::error::{Error, chain};
use crate::machine::MachineOptions;
use crate::{Pyro, boot_files, engine, progress, supervisor};

/// How ready an environment is, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// The environment.
    pub environment: String,
    /// Its state.
    pub status: ReadinessStatus,
    /// Why it is not warm, the weightiest first. Empty if it is.
    pub reasons: Vec<ReadinessReason>,
    /// One remedy, if it is not warm and one is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// What the last preparation recorded.
    pub prepared: Option<PreparedRecord>,
    /// Where that is recorded.
    pub record_path: Option<PathBuf>,
}

impl Pyro {
    /// Compares what the last preparation of `environment` recorded with what is here. With
    /// `network`, a preparation counts only if its machine had one. Fetches nothing, and starts
    /// an engine only where nothing is remembered of it. Blocks while it hashes files whose marks
    /// have changed.
    pub async fn readiness(&self, environment: &str, network: bool) -> Readiness {
        let wanted = Wanted::of_any_size(network);
        match supervisor::probe(self.settings(), false).await {
            Ok(probe) => self.readiness_on(environment, wanted, &probe).await,
            Err(error) => {
                let reason = host_unusable(&chain(&error));
                self.unavailable(environment, [reason], error.hint())
            }
        }
    }

    /// As [`Self::readiness`], on a host whose engines were looked at.
    pub(crate) async fn readiness_on(
        &self,
        environment: &str,
        wanted: Wanted,
        probe: &ProbeReport,
    ) -> Readiness {
        let entry = match self.entry(environment) {
            Ok(entry) => entry,
            Err(error) => {
                let code = ReadinessCode::EnvironmentUnknown;
                let reason = ReadinessReason::new(code, chain(&error));
                return self.unavailable(environment, [reason], error.hint());
            }
        };
        let records = self.prepared_records();
        let recorded = records.read(&entry);
        match self.present(&entry, wanted, probe).await {
            Ok(present) => {
                let (status, reasons) = compare(recorded.as_ref(), &present);
                Readiness {
                    environment: entry.name.clone(),
                    status,
                    reasons,
                    hint: remedy(status, &entry.name, wanted),
                    prepared: recorded,
                    record_path: Some(records.path(&entry)),
                }
            }
            Err((reason, hint)) => self.unavailable(environment, [reason], hint),
        }
    }

    /// The answer where nothing can be prepared.
    pub(crate) fn unavailable(
        &self,
        environment: &str,
        reasons: impl IntoIterator<Item = ReadinessReason>,
        hint: Option<String>,
    ) -> Readiness {
        let records = self.prepared_records();
        let entry = self.entry(environment).ok();
        Readiness {
            environment: entry
                .as_ref()
                .map_or(environment, |entry| entry.name.as_str())
                .to_owned(),
            status: ReadinessStatus::Unavailable,
            reasons: reasons.into_iter().collect(),
            hint,
            prepared: entry.as_ref().and_then(|entry| records.read(entry)),
            record_path: entry.map(|entry| records.path(&entry)),
        }
    }

    /// What a machine would consist of; the error says why there cannot be one, with a remedy.
    async fn present(
        &self,
        entry: &CatalogEntry,
        wanted: Wanted,
        probe: &ProbeReport,
    ) -> Result<Present, (ReadinessReason, Option<String>)> {
        let engine = engine::expected(self.settings().engine, wanted.network, probe)
            .map_err(|none| (host_unusable(&none.reason), Some(none.hint)))?;
        let state = self.store().installed(entry);
        let state = state.map_err(|error| (host_unusable(&chain(&Error::from(error))), None))?;
        let installed = match state {
            InstallState::Valid(installed) => Ok(*installed),
            InstallState::Absent => Err(RootNow::Absent),
            InstallState::Invalid { reason } => Err(RootNow::Damaged { reason }),
        };
        if installed.is_err() && matches!(entry.source, EntrySource::Built) {
            let lost = Error::CannotMakeAgain {
                name: entry.name.clone(),
            };
            let code = ReadinessCode::EnvironmentUnknown;
            return Err((ReadinessReason::new(code, chain(&lost)), lost.hint()));
        }
        let kernel = self.kernel_now(installed.as_ref().ok());
        let root = match installed {
            Ok(installed) => self.root_now(entry, &installed).await,
            Err(root) => root,
        };
        Ok(Present {
            root,
            kernel,
            agent: pyro_guest::AGENT_BUILD_ID.into(),
            product_version: env!("CARGO_PKG_VERSION").into(),
            engine: PreparedEngine::of(engine, probe),
            wanted,
            // What cannot be listed is not there for machines either.
            templates: self.templates_on_disk().await.unwrap_or_default(),
        })
    }

    async fn root_now(&self, entry: &CatalogEntry, installed: &Installed) -> RootNow {
        // By the default policy no registry is asked.
        let options = EnvironmentOptions::default();
        let unheard = progress::ignore();
        match self.is_current(entry, installed, options, &unheard).await {
            Ok(true) => RootNow::Installed {
                digest: installed.root_digest(),
            },
            Ok(false) => RootNow::SourceChanged {
                reason: format!(
                    "`{}` is not what it was installed from any more",
                    entry.name
                ),
            },
            Err(error) => RootNow::SourceChanged {
                reason: format!(
                    "what it was installed from cannot be read: {}",
                    chain(&error)
                ),
            },
        }
    }

    /// The kernel that a machine of an installed environment would boot, if one is known.
    pub(crate) fn kernel_digest_now(&self, installed: &Installed) -> Option<Sha256Digest> {
        match self.kernel_now(Some(installed)) {
            KernelNow::Found { digest } => Some(digest),
            KernelNow::OfEnvironment | KernelNow::Missing { .. } => None,
        }
    }

    fn kernel_now(&self, installed: Option<&Installed>) -> KernelNow {
        match boot_files::replacement(self.settings()) {
            Ok(Some(kernel)) => {
                return KernelNow::Found {
                    digest: kernel.digest,
                };
            }
            Ok(None) => {}
            Err(error) => {
                return KernelNow::Missing {
                    reason: chain(&error),
                };
            }
        }
        let Some(installed) = installed else {
            return KernelNow::OfEnvironment;
        };
        let kernels = self.settings().home.kernel_store();
        let own = installed.manifest.kernel_digest;
        match own.map(|digest| kernels.open(digest)) {
            Some(Ok(kernel)) => KernelNow::Found {
                digest: kernel.digest,
            },
            // As when the environment is made ready: the newest takes its place.
            Some(Err(_)) | None => match kernels.latest() {
                Ok(Some(kernel)) => KernelNow::Found {
                    digest: kernel.digest,
                },
                Ok(None) => KernelNow::Missing {
                    reason: "none is installed".into(),
                },
                Err(error) => KernelNow::Missing {
                    reason: chain(&Error::from(error)),
                },
            },
        }
    }
}

fn remedy(status: ReadinessStatus, environment: &str, wanted: Wanted) -> Option<String> {
    if let ReadinessStatus::Warm | ReadinessStatus::Unavailable = status {
        return None;
    }
    let mut command = format!("pyro prepare {environment}");
    if wanted.network {
        command.push_str(" --network");
    }
    let usual = MachineOptions::default();
    if let Some((vcpu_count, mem_mib)) = wanted.size {
        if vcpu_count != usual.vcpu_count {
            let _ = write!(command, " --vcpu-count {vcpu_count}");
        }
        if mem_mib != usual.mem_mib {
            let _ = write!(command, " --mem-mib {mem_mib}");
        }
    }
    Some(format!("run `{command}`"))
}

fn host_unusable(reason: &str) -> ReadinessReason {
    ReadinessReason::new(
        ReadinessCode::HostUnusable,
        format!("no machine can run on this host: {reason}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remedy_is_for_the_machines_that_were_asked_about() {
        let remedy = |network, size| {
            let wanted = Wanted { network, size };
            remedy(ReadinessStatus::Stale, "debian:12", wanted).unwrap()
        };
        assert_eq!(remedy(false, None), "run `pyro prepare debian:12`");
        assert_eq!(
            remedy(false, Some((1, 1024))),
            "run `pyro prepare debian:12`"
        );
        assert_eq!(
            remedy(true, Some((2, 512))),
            "run `pyro prepare debian:12 --network --vcpu-count 2 --mem-mib 512`"
        );
        let wanted = Wanted::of_any_size(false);
        assert_eq!(
            super::remedy(ReadinessStatus::Warm, "debian:12", wanted),
            None
        );
    }
}
