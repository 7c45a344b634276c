//! Looking at what is here now, for the comparison with what is recorded.
//!
//! Cheap: files are looked at, and no engine is started. What was found out about engines is
//! taken from whoever has asked anyway; templates are listed by the program that makes them.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use pyro_image::catalog::EntrySource;
use pyro_image::store::{InstallState, Installed};
use pyro_image::{CatalogEntry, Sha256Digest};
use pyro_protocol::supervise::{EngineChoice, ProbeReport};
use serde::Serialize;

use super::readiness::{
    EngineNow, KernelNow, Present, ReadinessCode, ReadinessReason, ReadinessStatus, RootNow,
    Wanted, compare,
};
use super::record::PreparedRecord;
use crate::environment::EnvironmentOptions;
use crate::environment::ensure::file_mark;
use crate::error::{Error, chain};
use crate::settings::Settings;
use crate::{Pyro, boot_files, progress};

/// The program of the only engine that there is.
const QEMU: &str = "qemu-system-x86_64";

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
    /// `network`, a preparation counts only if its machine had one. Starts no engine and fetches
    /// nothing: a host whose engines are broken is found out by [`Pyro::doctor`]. Blocks while it
    /// hashes files whose marks have changed.
    pub async fn readiness(&self, environment: &str, network: bool) -> Readiness {
        self.readiness_on(environment, Wanted::of_any_size(network), None)
            .await
    }

    /// As [`Self::readiness`], on a host whose engines were looked at.
    pub(crate) async fn readiness_on(
        &self,
        environment: &str,
        wanted: Wanted,
        probe: Option<&ProbeReport>,
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
                    hint: remedy(status, &entry.name, wanted.network),
                    prepared: recorded,
                    record_path: Some(records.path(&entry)),
                }
            }
            Err(reason) => self.unavailable(environment, [reason], None),
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

    /// What a machine would consist of; the error says why there cannot be one.
    async fn present(
        &self,
        entry: &CatalogEntry,
        wanted: Wanted,
        probe: Option<&ProbeReport>,
    ) -> Result<Present, ReadinessReason> {
        let engine = engine(self.settings(), probe).map_err(|reason| host_unusable(&reason))?;
        let state = self.store().installed(entry);
        let state = state.map_err(|error| host_unusable(&chain(&Error::from(error))))?;
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
            return Err(ReadinessReason::new(code, chain(&lost)));
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
            engine,
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

fn remedy(status: ReadinessStatus, environment: &str, network: bool) -> Option<String> {
    let flag = if network { " --network" } else { "" };
    match status {
        ReadinessStatus::Cold | ReadinessStatus::Stale => {
            Some(format!("run `pyro prepare {environment}{flag}`"))
        }
        ReadinessStatus::Warm | ReadinessStatus::Unavailable => None,
    }
}

fn host_unusable(reason: &str) -> ReadinessReason {
    ReadinessReason::new(
        ReadinessCode::HostUnusable,
        format!("no machine can run on this host: {reason}"),
    )
}

/// The engine that would run a machine; the error says why none would.
fn engine(settings: &Settings, probe: Option<&ProbeReport>) -> Result<EngineNow, String> {
    let program = probe
        .and_then(|probe| probe.qemu.clone())
        .or_else(|| engine_program(settings))
        .ok_or_else(|| format!("`{QEMU}` is not installed"))?;
    let choice = match (settings.engine, probe) {
        (EngineChoice::Auto, None) => None,
        (EngineChoice::Auto, Some(probe)) => Some(probe.chosen.ok_or("no engine works")?),
        (wanted, probe) => {
            let found = probe.into_iter().flat_map(|probe| &probe.engines);
            if let Some(broken) = found
                .filter(|found| found.engine == wanted)
                .find(|found| !found.usable)
            {
                return Err(broken.reason.clone());
            }
            Some(wanted)
        }
    };
    Ok(EngineNow {
        choice,
        mark: file_mark(&program),
        program,
        version: probe.and_then(|probe| probe.qemu_version.clone()),
    })
}

/// The program that a supervisor would start.
fn engine_program(settings: &Settings) -> Option<PathBuf> {
    let is_program = |path: &PathBuf| {
        path.metadata()
            .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
    };
    match &settings.qemu {
        Some(path) => Some(path.clone()).filter(is_program),
        None => std::env::split_paths(&settings.search_path)
            .filter(|directory| Path::is_absolute(directory))
            .map(|directory| directory.join(QEMU))
            .find(is_program),
    }
}
