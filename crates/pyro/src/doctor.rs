//! The host's check-up: what works here, what does not, and one remedy for each problem.
//!
//! Never fails to report: what cannot be found out is itself a finding.

mod abilities;

use std::path::{Path, PathBuf};

use pyro_image::host::HostProgram;
use pyro_image::recipe;
use pyro_protocol::code::ErrorCode;
use pyro_protocol::supervise::{EngineChoice, EngineFinding, JailLayer, ProbeReport};
use rustix::fs::{Access, access, statvfs};
use serde::Serialize;

pub use abilities::{Ability, AbilityName, EngineAbilities};

use crate::error::chain;
use crate::machine::MachineOptions;
use crate::prepare::{Readiness, ReadinessCode, ReadinessReason, Wanted};
use crate::{EnvironmentReport, Pyro, engine, supervisor};

/// Free bytes below which a disk is a problem: room for a build.
const LOW_SPACE: u64 = 3 * 1024 * 1024 * 1024;

/// The whole report. The first-level names are the original's.
#[derive(Clone, Debug, Serialize)]
pub struct DoctorReport {
    /// Operating system and processor.
    pub platform: String,
    /// Whether machines can run on this host.
    pub runtime_ok: bool,
    /// What is wrong, the worst first.
    pub issues: Vec<Issue>,
    /// `/dev/kvm`, as this user sees it.
    pub kvm: Kvm,
    /// What guests can be given of a network.
    pub networking: Networking,
    /// Engines, programs, places.
    pub runtime: Runtime,
    /// How ready the environment is that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readiness: Option<Readiness>,
}

/// What to look at besides the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DoctorOptions {
    /// Believe nothing that was remembered about engines.
    pub probe_again: bool,
    /// Tell also how ready this environment is.
    pub environment: Option<String>,
    /// How ready it is for machines with a network.
    pub network: bool,
    /// How ready it is for machines with so many virtual processors. Where this or the memory is
    /// absent, the other one is that of a usual machine; if both are, any size will do.
    pub vcpu_count: Option<u8>,
    /// How ready it is for machines with so many MiB of memory.
    pub mem_mib: Option<u32>,
}

impl DoctorOptions {
    fn wanted(&self) -> Wanted {
        let usual = MachineOptions::default();
        let is_sized = self.vcpu_count.is_some() || self.mem_mib.is_some();
        Wanted {
            network: self.network,
            size: is_sized.then(|| {
                (
                    self.vcpu_count.unwrap_or(usual.vcpu_count),
                    self.mem_mib.unwrap_or(usual.mem_mib),
                )
            }),
        }
    }
}

/// One problem.
#[derive(Clone, Debug, Serialize)]
pub struct Issue {
    /// Whether machines cannot run because of it.
    pub fatal: bool,
    /// Stable class.
    pub code: ErrorCode,
    /// One sentence.
    pub message: String,
    /// One remedy.
    pub hint: String,
}

/// `/dev/kvm`.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Kvm {
    /// It is there.
    pub exists: bool,
    /// This user may read it.
    pub readable: bool,
    /// This user may write it.
    pub writable: bool,
}

/// Networking.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Networking {
    /// Machines have no network unless one is asked for.
    pub enabled_by_default: bool,
    /// QEMU's user-mode network, which needs no rights.
    pub user_mode: bool,
    /// `/dev/net/tun` is there.
    pub tun_available: bool,
}

/// Engines, programs and places.
#[derive(Clone, Debug, Serialize)]
pub struct Runtime {
    /// Version of this program.
    pub version: String,
    /// Identity of the embedded guest agent.
    pub agent_build_id: String,
    /// What machines can do here.
    pub capabilities: Capabilities,
    /// The engine that `auto` means here.
    pub engine: Option<EngineChoice>,
    /// What was found about each engine, best first.
    pub engines: Vec<EngineFinding>,
    /// What each of them can do here.
    pub engine_abilities: Vec<EngineAbilities>,
    /// The layers of the jail that VMMs run in.
    pub jail: Vec<JailLayer>,
    /// The QEMU program.
    pub qemu: Option<PathBuf>,
    /// Its version.
    pub qemu_version: Option<String>,
    /// The Firecracker program.
    pub firecracker: Option<PathBuf>,
    /// Its version.
    pub firecracker_version: Option<String>,
    /// Host programs and where they are.
    pub programs: Vec<Program>,
    /// The newest installed guest kernel.
    pub kernel: Option<GuestKernel>,
    /// Version of the catalog.
    pub catalog_version: String,
    /// Directories and the room in them.
    pub places: Vec<Place>,
    /// Environments.
    pub environments: Vec<EnvironmentReport>,
    /// Machines whose supervisor died and which `pyro gc` would clear away.
    pub leftovers: usize,
}

/// What machines can do here, by the original's names.
#[derive(Clone, Debug, Serialize)]
pub struct Capabilities {
    /// A machine can boot.
    pub supports_vm_boot: bool,
    /// A command can run in it.
    pub supports_guest_exec: bool,
    /// It can have a network.
    pub supports_guest_network: bool,
    /// Why one of them is not so, if one is not.
    pub reason: Option<String>,
}

/// A program of the host.
#[derive(Clone, Debug, Serialize)]
pub struct Program {
    /// Its name.
    pub name: &'static str,
    /// The Debian package that has it.
    pub package: &'static str,
    /// Where it was found.
    pub path: Option<PathBuf>,
    /// What it is needed for.
    pub needed_for: &'static str,
}

/// A guest kernel in the store.
#[derive(Clone, Debug, Serialize)]
pub struct GuestKernel {
    /// Its digest.
    pub digest: String,
    /// Its release.
    pub release: Option<String>,
    /// Its directory.
    pub dir: PathBuf,
}

/// A directory.
#[derive(Clone, Debug, Serialize)]
pub struct Place {
    /// What lies there: `cache`, `environments`, `state`, `runtime`.
    pub name: &'static str,
    /// Where.
    pub path: PathBuf,
    /// Whether this user can write there, or make it.
    pub writable: bool,
    /// Free bytes on its file system for this user.
    pub free_bytes: Option<u64>,
}

impl Pyro {
    /// Checks the host, and how ready an environment is.
    pub async fn doctor(&self, options: &DoctorOptions) -> DoctorReport {
        let mut issues = Vec::new();
        let places = self.places(&mut issues);
        let probe = self.probe(options.probe_again, &mut issues).await;
        let programs = self.programs(&mut issues).await;
        let environments = self.environments(&mut issues);
        let kernel = self.guest_kernel(&mut issues);
        let leftovers = self.leftovers(&mut issues).await;
        issues.sort_by_key(|issue| !issue.fatal);
        let kvm = kvm();
        let readiness = match &options.environment {
            Some(name) => Some(
                self.readiness_here(name, options.wanted(), &probe, &issues)
                    .await,
            ),
            None => None,
        };
        let fatal = issues.iter().find(|issue| issue.fatal);
        let runtime_ok = fatal.is_none();
        let networked = engine::expected(self.settings().engine, true, &probe);
        DoctorReport {
            platform: pyro_image::catalog::PLATFORM.into(),
            runtime_ok,
            readiness,
            kvm,
            networking: Networking {
                enabled_by_default: false,
                user_mode: probe.qemu.is_some(),
                tun_available: Path::new("/dev/net/tun").exists(),
            },
            runtime: Runtime {
                version: env!("CARGO_PKG_VERSION").into(),
                agent_build_id: pyro_guest::AGENT_BUILD_ID.into(),
                capabilities: Capabilities {
                    supports_vm_boot: runtime_ok,
                    supports_guest_exec: runtime_ok,
                    supports_guest_network: runtime_ok && networked.is_ok(),
                    reason: fatal
                        .map(|issue| issue.message.clone())
                        .or_else(|| networked.err().map(|none| none.reason)),
                },
                engine: probe.chosen,
                engine_abilities: abilities::of(&probe.engines, &probe.jail),
                engines: probe.engines,
                jail: probe.jail,
                qemu: probe.qemu,
                qemu_version: probe.qemu_version,
                firecracker: probe.firecracker,
                firecracker_version: probe.firecracker_version,
                programs,
                kernel,
                catalog_version: self.settings().catalog.catalog_version.clone(),
                places,
                environments,
                leftovers,
            },
            issues,
        }
    }

    /// What is fatal for machines is fatal for every environment.
    async fn readiness_here(
        &self,
        environment: &str,
        wanted: Wanted,
        probe: &ProbeReport,
        issues: &[Issue],
    ) -> Readiness {
        let fatal: Vec<_> = issues
            .iter()
            .filter(|issue| issue.fatal)
            .map(|issue| ReadinessReason {
                code: ReadinessCode::HostUnusable,
                message: issue.message.clone(),
            })
            .collect();
        if fatal.is_empty() {
            self.readiness_on(environment, wanted, probe).await
        } else {
            let hint = issues.iter().find(|issue| issue.fatal);
            self.unavailable(environment, fatal, hint.map(|issue| issue.hint.clone()))
        }
    }

    fn places(&self, issues: &mut Vec<Issue>) -> Vec<Place> {
        let home = &self.settings().home;
        let places = [
            ("cache", &home.cache),
            ("environments", &home.environments),
            ("state", &home.state),
            ("runtime", &home.runtime),
        ];
        places
            .map(|(name, path)| {
                let place = place(name, path);
                if !place.writable {
                    issues.push(Issue {
                        fatal: true,
                        code: ErrorCode::PermissionDenied,
                        message: format!(
                            "the {name} directory `{}` cannot be written",
                            path.display()
                        ),
                        hint: format!("make `{}` yours and writable", path.display()),
                    });
                } else if name == "environments"
                    && place.free_bytes.is_some_and(|free| free < LOW_SPACE)
                {
                    issues.push(Issue {
                        fatal: false,
                        code: ErrorCode::NoSpace,
                        message: format!("less than 3 GiB are free at `{}`", path.display()),
                        hint: "make room, or set `PYRO_CACHE_DIR` to a larger disk".into(),
                    });
                }
                place
            })
            .to_vec()
    }

    async fn probe(&self, again: bool, issues: &mut Vec<Issue>) -> ProbeReport {
        let report = match supervisor::probe(self.settings(), again).await {
            Ok(report) => report,
            Err(error) => ProbeReport {
                chosen: None,
                qemu: None,
                qemu_version: None,
                firecracker: None,
                firecracker_version: None,
                engines: vec![EngineFinding {
                    engine: EngineChoice::Auto,
                    usable: false,
                    reason: chain(&error),
                    hint: error.hint(),
                    elapsed_ms: 0,
                }],
                jail: Vec::new(),
            },
        };
        if let Err(none) = engine::expected(self.settings().engine, false, &report) {
            issues.push(Issue {
                fatal: true,
                code: ErrorCode::HostUnavailable,
                message: none.reason,
                hint: none.hint,
            });
        }
        report
    }

    async fn programs(&self, issues: &mut Vec<Issue>) -> Vec<Program> {
        let mke2fs = self.find_program("mke2fs");
        if mke2fs.is_none() {
            issues.push(Issue {
                fatal: true,
                code: ErrorCode::HostUnavailable,
                message: "`mke2fs` is not installed; every machine's disk is made with it".into(),
                hint: "install it with `apt-get install e2fsprogs`".into(),
            });
        }
        if let Err(error) = recipe::check_host().await {
            issues.push(Issue {
                fatal: false,
                code: ErrorCode::HostUnavailable,
                message: format!("environments cannot be built here: {}", chain(&error)),
                hint: error.hint().unwrap_or_else(|| "see the message".into()),
            });
        }
        let of_host = |program: HostProgram, needed_for| Program {
            name: program.name(),
            package: program.package(),
            path: program.find(),
            needed_for,
        };
        vec![
            Program {
                name: "mke2fs",
                package: "e2fsprogs",
                path: mke2fs,
                needed_for: "every machine's disk",
            },
            of_host(HostProgram::Mmdebstrap, "building environments"),
            of_host(
                HostProgram::AptGet,
                "fetching the guest kernel and packages",
            ),
            of_host(HostProgram::DpkgDeb, "unpacking the guest kernel's package"),
            of_host(HostProgram::Setpriv, "ending builds with their process"),
            of_host(HostProgram::Newuidmap, "building environments without root"),
        ]
    }

    fn find_program(&self, name: &str) -> Option<PathBuf> {
        std::env::split_paths(&self.settings().search_path)
            .chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from))
            .map(|directory| directory.join(name))
            .find(|path| path.is_file())
    }

    fn environments(&self, issues: &mut Vec<Issue>) -> Vec<EnvironmentReport> {
        match self.list_environments() {
            Ok(listing) => {
                for found in &listing.environments {
                    if let Some(reason) = &found.invalid_reason {
                        issues.push(Issue {
                            fatal: false,
                            code: ErrorCode::DigestMismatch,
                            message: format!(
                                "the environment `{}` is damaged: {reason}",
                                found.name
                            ),
                            hint: format!("build it again with `pyro env pull {}`", found.name),
                        });
                    }
                }
                listing.environments
            }
            Err(error) => {
                issues.push(Issue {
                    fatal: false,
                    code: error.code(),
                    message: format!("the environments cannot be listed: {}", chain(&error)),
                    hint: error.hint().unwrap_or_else(|| "see the message".into()),
                });
                Vec::new()
            }
        }
    }

    fn guest_kernel(&self, issues: &mut Vec<Issue>) -> Option<GuestKernel> {
        match self.settings().home.kernel_store().latest() {
            Ok(kernel) => kernel.map(|kernel| GuestKernel {
                digest: kernel.digest.to_string(),
                release: kernel.release,
                dir: kernel.dir,
            }),
            Err(error) => {
                issues.push(Issue {
                    fatal: false,
                    code: ErrorCode::Internal,
                    message: format!("the guest kernels cannot be listed: {}", chain(&error)),
                    hint: error.hint().unwrap_or_else(|| "see the message".into()),
                });
                None
            }
        }
    }

    async fn leftovers(&self, issues: &mut Vec<Issue>) -> usize {
        let Ok(swept) = supervisor::sweep(self.settings(), true).await else {
            return 0;
        };
        if !swept.machines.is_empty() {
            issues.push(Issue {
                fatal: false,
                code: ErrorCode::FailedPrecondition,
                message: format!(
                    "machines left over by killed supervisors: {}",
                    swept.machines.len()
                ),
                hint: "clear them away with `pyro gc`".into(),
            });
        }
        swept.machines.len()
    }
}

fn kvm() -> Kvm {
    let allowed = |how| access("/dev/kvm", how).is_ok();
    Kvm {
        exists: allowed(Access::EXISTS),
        readable: allowed(Access::READ_OK),
        writable: allowed(Access::WRITE_OK),
    }
}

fn place(name: &'static str, path: &Path) -> Place {
    // What does not exist yet is made in its nearest ancestor.
    let existing = path.ancestors().find(|ancestor| ancestor.exists());
    Place {
        name,
        path: path.to_owned(),
        writable: existing
            .is_some_and(|found| found.is_dir() && access(found, Access::WRITE_OK).is_ok()),
        free_bytes: existing
            .and_then(|found| statvfs(found).ok())
            .map(|found| found.f_bavail.saturating_mul(found.f_frsize)),
    }
}
