//! What a snapshot depends on: a machine restored on anything else would crash, or worse, not crash.
//!
//! Owns the list of facts and their comparison. Never decides what follows from a difference.

use crate::engine::Engine;
use crate::program::EngineIdentity;
use crate::qemu::Accelerator;
use crate::spec::{Access, FreedMemory, MachineSpec, Network};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;
use std::io::Read;

/// Changes whenever machines are made differently in a way that no other fact shows, as by another argument of the engine.
const FORM: u32 = 3;

/// How a machine without a network is told.
const NO_NETWORK: &str = "off";

/// Most that is read of `/proc/cpuinfo`: the first processor has about 2 KB.
const MAX_CPUINFO_BYTES: u64 = 64 * 1024;

/// What only the caller knows of a machine's files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Digest of the root image.
    pub root: String,
    /// Digest of the kernel.
    pub kernel: String,
    /// What tells the initial file system, and so the agent, from others.
    pub initramfs: String,
    /// What tells the empty disk that the guest writes to from others, for a machine that has written nothing of worth.
    #[serde(default)]
    pub blank_disk: Option<String>,
}

/// Everything that must be the same for a snapshot to be restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    form: u32,
    engine: String,
    engine_program: EngineIdentity,
    /// The release of the host's kernel, where the devices' state has something of it.
    #[serde(default)]
    host_kernel: Option<String>,
    cpu: HostCpu,
    origin: Origin,
    vcpus: u8,
    memory_mib: u32,
    network: String,
    freed_memory: FreedMemory,
    disks: Vec<String>,
    arguments: Vec<String>,
}

impl Facts {
    /// The facts of a machine on this host.
    pub fn of(spec: &MachineSpec, engine: &Engine, origin: Origin) -> Self {
        let disks = spec.disks.iter().map(|disk| {
            let access = match disk.access {
                Access::ReadOnly => ", read-only",
                Access::ReadWrite => "",
            };
            let rate = match (engine, disk.rate) {
                // A snapshot of its keeps the rate.
                (Engine::Firecracker(_), Some(rate)) => {
                    format!(", {} MiB/s", rate.mib_per_second())
                }
                (Engine::Firecracker(_), None) | (Engine::Qemu { .. }, _) => String::new(),
            };
            format!("{}{access}{rate}", disk.id)
        });
        Self {
            form: FORM,
            engine: engine.name().into(),
            engine_program: engine.identity().clone(),
            host_kernel: match engine {
                Engine::Qemu {
                    accelerator: Accelerator::Tcg,
                    ..
                } => None,
                // They write down features and registers of the processor as the kernel gave them.
                Engine::Qemu {
                    accelerator: Accelerator::Kvm,
                    ..
                }
                | Engine::Firecracker(_) => Some(kernel_release()),
            },
            // Under emulation the guest has the rate of the host's time stamp counter.
            cpu: HostCpu::read(),
            origin,
            vcpus: spec.vcpus.get(),
            memory_mib: spec.memory.get(),
            network: match spec.network {
                Network::Off => NO_NETWORK.into(),
                Network::User => "user".into(),
            },
            freed_memory: spec.freed_memory,
            disks: disks.collect(),
            arguments: spec
                .cmdline
                .iter()
                .map(|word| word.as_str().to_owned())
                .collect(),
        }
    }

    /// A name for machines of these facts: equal for equal ones, 16 hexadecimal digits.
    pub fn key(&self) -> String {
        let text = serde_json::to_vec(self).expect("facts are plain data");
        hexadecimal(&Sha256::digest(text)[..8])
    }

    /// How many MiB of memory the machine has.
    pub fn memory_mib(&self) -> u32 {
        self.memory_mib
    }

    /// How many virtual processors the machine has.
    pub fn vcpus(&self) -> u8 {
        self.vcpus
    }

    /// What becomes of memory that the guest frees.
    pub fn freed_memory(&self) -> FreedMemory {
        self.freed_memory
    }

    /// What only the caller knew of the machine's files.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Whether the machine has a network.
    pub fn has_network(&self) -> bool {
        self.network != NO_NETWORK
    }

    /// Whether the engine's program is still the one that the machine ran on.
    pub fn has_its_engine(&self) -> bool {
        self.engine_program.holds()
    }

    /// The engine's name.
    pub fn engine(&self) -> &str {
        &self.engine
    }

    /// The first fact in which `now` differs.
    pub fn difference(&self, now: &Self) -> Option<Difference> {
        let Self {
            form,
            engine,
            engine_program,
            host_kernel,
            cpu,
            origin,
            vcpus,
            memory_mib,
            network,
            freed_memory,
            disks,
            arguments,
        } = self;
        let pairs = [
            (
                "form of the snapshot",
                form.to_string(),
                now.form.to_string(),
            ),
            ("engine", engine.clone(), now.engine.clone()),
            (
                "engine's program",
                program(engine_program),
                program(&now.engine_program),
            ),
            (
                "host's kernel",
                host_kernel.clone().unwrap_or_default(),
                now.host_kernel.clone().unwrap_or_default(),
            ),
            ("processor", cpu.to_string(), now.cpu.to_string()),
            ("root image", origin.root.clone(), now.origin.root.clone()),
            ("kernel", origin.kernel.clone(), now.origin.kernel.clone()),
            (
                "agent",
                origin.initramfs.clone(),
                now.origin.initramfs.clone(),
            ),
            (
                "blank disk",
                origin.blank_disk.clone().unwrap_or_default(),
                now.origin.blank_disk.clone().unwrap_or_default(),
            ),
            (
                "number of virtual processors",
                vcpus.to_string(),
                now.vcpus.to_string(),
            ),
            (
                "memory in MiB",
                memory_mib.to_string(),
                now.memory_mib.to_string(),
            ),
            ("network", network.clone(), now.network.clone()),
            (
                "handling of freed memory",
                format!("{freed_memory:?}"),
                format!("{:?}", now.freed_memory),
            ),
            ("disks", disks.join("; "), now.disks.join("; ")),
            (
                "kernel arguments",
                arguments.join(" "),
                now.arguments.join(" "),
            ),
        ];
        let (what, then, now) = pairs.into_iter().find(|(_, then, now)| then != now)?;
        Some(Difference { what, then, now })
    }
}

fn kernel_release() -> String {
    rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned()
}

fn program(identity: &EngineIdentity) -> String {
    format!(
        "{} ({} bytes, of {} ns)",
        identity.path.display(),
        identity.size,
        identity.modified_ns
    )
}

/// A fact that is not what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Which.
    pub what: &'static str,
    /// What it was.
    pub then: String,
    /// What it is.
    pub now: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "its {} was `{}` and is now `{}`",
            self.what, self.then, self.now
        )
    }
}

/// The processor that a guest sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostCpu {
    model: String,
    /// Digest of the features, the microcode among them.
    features: String,
}

impl HostCpu {
    /// The processor of this host.
    pub fn read() -> Self {
        let mut text = String::new();
        if let Ok(file) = std::fs::File::open("/proc/cpuinfo") {
            // What cannot be read is a processor like any other that cannot be read.
            let _ = file.take(MAX_CPUINFO_BYTES).read_to_string(&mut text);
        }
        Self::parse(&text)
    }

    fn parse(cpuinfo: &str) -> Self {
        let first = cpuinfo.split("\n\n").next().unwrap_or_default();
        let field = |name: &str| {
            first
                .lines()
                .filter_map(|line| line.split_once(':'))
                .find(|(key, _)| key.trim() == name)
                .map_or("", |(_, value)| value.trim())
        };
        let told = [
            "vendor_id",
            "cpu family",
            "model",
            "stepping",
            "microcode",
            "flags",
        ];
        let features: Vec<&str> = told.iter().map(|name| field(name)).collect();
        Self {
            model: field("model name").to_owned(),
            features: hexadecimal(&Sha256::digest(features.join("\n"))[..8]),
        }
    }
}

impl fmt::Display for HostCpu {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} (features {})", self.model, self.features)
    }
}

pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        text
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::snapshot) fn facts() -> Facts {
        Facts {
            form: FORM,
            engine: "qemu-tcg".into(),
            engine_program: EngineIdentity {
                path: "/usr/bin/qemu".into(),
                size: 1,
                modified_ns: 2,
            },
            host_kernel: None,
            cpu: HostCpu::parse("model name: Y"),
            origin: Origin {
                root: "r".into(),
                kernel: "k".into(),
                initramfs: "i".into(),
                blank_disk: None,
            },
            vcpus: 1,
            memory_mib: 256,
            network: "off".into(),
            freed_memory: FreedMemory::Kept,
            disks: vec!["root, read-only".into(), "upper".into()],
            arguments: vec!["pyro.root=root".into()],
        }
    }

    type Change = (&'static str, fn(&mut Facts));

    #[test]
    fn every_fact_makes_a_difference() {
        let then = facts();
        assert_eq!(then.difference(&facts()), None);
        assert_eq!(then.key(), facts().key());
        let changes: [Change; 17] = [
            ("form of the snapshot", |facts| {
                facts.form += 1;
            }),
            ("engine", |facts| {
                facts.engine = "qemu-kvm".into();
            }),
            ("engine's program", |facts| {
                facts.engine_program.modified_ns += 1;
            }),
            ("engine's program", |facts| {
                facts.engine_program.size += 1;
            }),
            ("engine's program", |facts| {
                facts.engine_program.path = "/q".into();
            }),
            ("host's kernel", |facts| {
                facts.host_kernel = Some("6.1".into());
            }),
            ("processor", |facts| {
                facts.cpu.features = "x".into();
            }),
            ("root image", |facts| {
                facts.origin.root = "x".into();
            }),
            ("kernel", |facts| {
                facts.origin.kernel = "x".into();
            }),
            ("agent", |facts| {
                facts.origin.initramfs = "x".into();
            }),
            ("blank disk", |facts| {
                facts.origin.blank_disk = Some("x".into());
            }),
            ("number of virtual processors", |facts| {
                facts.vcpus += 1;
            }),
            ("memory in MiB", |facts| {
                facts.memory_mib += 1;
            }),
            ("network", |facts| {
                facts.network = "user".into();
            }),
            ("handling of freed memory", |facts| {
                facts.freed_memory = FreedMemory::Returned;
            }),
            ("disks", |facts| {
                facts.disks.reverse();
            }),
            ("kernel arguments", |facts| {
                facts.arguments.clear();
            }),
        ];
        for (what, change) in changes {
            let mut now = facts();
            change(&mut now);
            assert_eq!(then.difference(&now).unwrap().what, what);
            assert_ne!(then.key(), now.key(), "{what}");
        }
    }

    #[test]
    fn a_processor_is_told_by_its_features() {
        let text = "processor\t: 0\nvendor_id\t: X\nmodel name\t: Y 3000\nflags\t\t: a b\n\nprocessor\t: 1\n";
        let one = HostCpu::parse(text);
        assert_eq!(one.model, "Y 3000");
        assert_eq!(one, HostCpu::parse(&text.replace(": 1\n", ": 2\n")));
        assert_ne!(one, HostCpu::parse(&text.replace("a b", "a b c")));
        assert!(!HostCpu::read().model.is_empty());
    }
}
