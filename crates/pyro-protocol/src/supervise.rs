//! What a client and a machine's supervisor say to each other.
//!
//! A supervisor is started with one end of a socket pair as its standard input, the owner
//! channel. The client writes a [`MachineOrder`] on one line; the supervisor answers with
//! [`Event`] lines. Either side may later send [`ControlRequest`] lines, over the owner
//! channel or over `control.sock`. With [`Lease::Owner`] the end of the owner channel is
//! the end of the machine: the kernel closes it however the client dies.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::code::ErrorCode;

mod snapshot;

pub use snapshot::{
    ControlReply, MachineStatus, SnapshotMade, Start, StartKind, TemplateListing, TemplatesOrder,
    TemplatesReport, TemplatesToRemove,
};

/// Longest line on the owner channel or the control socket, in bytes.
pub const MAX_LINE: usize = 1024 * 1024;

/// Name of the socket that reaches the agent, in the machine's runtime directory.
pub const AGENT_SOCKET: &str = "agent.sock";
/// Name of the socket that takes control requests, in the machine's runtime directory.
pub const CONTROL_SOCKET: &str = "control.sock";
/// Name of the journal in the machine's directory.
pub const JOURNAL_FILE: &str = "machine.json";
/// Name of the lock in the machine's directory: held as long as its supervisor lives.
pub const LOCK_FILE: &str = "lock";
/// Name of the console log in the machine's directory.
pub const CONSOLE_FILE: &str = "console.log";
/// Name of the file with what the VMM printed, in the machine's directory.
pub const VMM_LOG_FILE: &str = "vmm.log";

/// A machine to be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineOrder {
    /// 12 lowercase hexadecimal digits.
    pub id: String,
    /// The engine asked for.
    pub engine: EngineChoice,
    /// The QEMU program; looked up in `search_path` when absent.
    pub qemu: Option<PathBuf>,
    /// The Firecracker program; looked up in `firecracker_installed`, then in `search_path` when absent.
    pub firecracker: Option<PathBuf>,
    /// Directory in which a Firecracker that was fetched lies, if it was.
    pub firecracker_installed: PathBuf,
    /// Directories to look for host programs, `:`-separated.
    pub search_path: String,
    /// Virtual processors, 1 to 8.
    pub vcpu_count: u8,
    /// Memory in MiB, 256 to 32768.
    pub mem_mib: u32,
    /// The most that the guest reads and writes on each disk, in MiB a second, 1 to 65536; no bound if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_mib_per_second: Option<u32>,
    /// The guest kernel.
    pub kernel: PathBuf,
    /// The initramfs with the agent.
    pub initramfs: PathBuf,
    /// What the machine is for.
    pub role: Role,
    /// Where the disk lies that the guest writes to, if it is to outlive the machine; else it is in the machine's own
    /// directory and goes with it. In a directory that only this user can open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_disk: Option<PathBuf>,
    /// The file in which the end of the machine is written down as an [`EndRecord`], for those who come later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_record: Option<PathBuf>,
    /// How it begins.
    pub start: Start,
    /// Whether the guest gets a user-mode network card.
    pub network: bool,
    /// When the machine ends by itself.
    pub expiry: Expiry,
    /// Longest time from the VMM's start to the agent's hello, in milliseconds.
    pub boot_deadline_ms: u64,
    /// Whether the machine ends with its owner.
    pub lease: Lease,
    /// Directory below which the machine's own directory is made.
    pub machines_dir: PathBuf,
    /// Directory below which the machine's runtime directory is made.
    pub runtime_dir: PathBuf,
    /// Directory that keeps the logs of failed machines.
    pub logs_dir: PathBuf,
    /// File that remembers which engines work on this host.
    pub probe_cache: PathBuf,
    /// Directory that keeps blank disks to be cloned.
    pub blank_dir: PathBuf,
}

/// Which engine runs a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EngineChoice {
    /// The best one that a real guest was seen to run on.
    Auto,
    /// QEMU with KVM.
    QemuKvm,
    /// QEMU with software emulation.
    QemuTcg,
    /// Firecracker, which runs on KVM alone.
    Firecracker,
}

impl EngineChoice {
    /// The name as users write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::QemuKvm => "qemu-kvm",
            Self::QemuTcg => "qemu-tcg",
            Self::Firecracker => "firecracker",
        }
    }

    /// The choice that is written so.
    pub fn named(name: &str) -> Option<Self> {
        let all = [Self::Auto, Self::QemuKvm, Self::QemuTcg, Self::Firecracker];
        all.into_iter().find(|choice| choice.as_str() == name)
    }
}

/// What a machine is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Role {
    /// Run an environment: its image read-only, a fresh disk for what the guest writes.
    Environment {
        /// The root image.
        root_image: PathBuf,
        /// Digest of the root image.
        root_digest: String,
        /// Digest of the guest kernel.
        kernel_digest: String,
        /// Size of the fresh disk in MiB; it is sparse.
        upper_mib: u32,
        /// A file that the supervisor holds locked shared as long as it lives, so that nobody
        /// removes the environment meanwhile.
        use_lock: PathBuf,
    },
    /// Build a root image: layer tars read-only, an empty ext4 made to be filled.
    Builder {
        /// The layer tars, lowest first.
        layers: Vec<PathBuf>,
        /// The file to make: an ext4 with the layers in it.
        target: PathBuf,
        /// Size of the target in MiB; it is sparse.
        target_mib: u32,
    },
}

/// When a machine ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "after")]
pub enum Expiry {
    /// So many milliseconds after it was ordered.
    Age {
        /// The milliseconds.
        ttl_ms: u64,
    },
    /// So many milliseconds after it was last used. Open streams of clients, jobs that run and requests on the control
    /// socket other than [`ControlRequest::Status`] are use.
    Idle {
        /// The milliseconds.
        ttl_ms: u64,
    },
    /// Never.
    Never,
}

impl Expiry {
    /// When it is `ttl` old.
    pub fn at_age(ttl: Duration) -> Self {
        Self::Age {
            ttl_ms: millis(ttl),
        }
    }

    /// When it has been unused for `ttl`.
    pub fn when_idle_for(ttl: Duration) -> Self {
        Self::Idle {
            ttl_ms: millis(ttl),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What ends a machine besides its time to live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lease {
    /// The end of the owner channel.
    Owner,
    /// Only a stop request.
    Detached,
}

/// What a supervisor tells its owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum Event {
    /// The next stage of the start begins.
    Phase {
        /// `engine`, `template`, `disk`, `boot`, `restore`.
        phase: String,
    },
    /// The agent said hello; the machine is ready for work.
    Ready(Ready),
    /// The machine failed; the supervisor is cleaning up.
    Failed(Failure),
    /// The machine is gone and nothing of it is left but what `details` names.
    Ended {
        /// Why.
        reason: EndReason,
    },
}

/// A machine that is ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// The socket that reaches the agent.
    pub agent_socket: PathBuf,
    /// The socket that takes control requests.
    pub control_socket: PathBuf,
    /// The engine that runs the machine, never `auto`.
    pub engine: EngineChoice,
    /// Process id of the VMM.
    pub vmm_pid: u32,
    /// Milliseconds from the supervisor's start to the VMM's.
    pub prepare_ms: u64,
    /// How the machine began.
    pub started: StartKind,
    /// The template that it began from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// Why it did not begin from a template although it was to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_warm: Option<String>,
    /// Milliseconds from the VMM's start until the agent was ready for work.
    pub boot_ms: u64,
    /// Where the guest's own boot time went; that of the machine it goes on from, if any.
    pub guest_boot: crate::request::BootTimes,
    /// The guest kernel's release.
    pub kernel: String,
}

/// Why a machine is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// Somebody asked.
    Stopped,
    /// The owner is gone.
    OwnerGone,
    /// The time to live has passed.
    Expired,
    /// The guest powered itself off.
    PoweredOff,
    /// It failed; a [`Event::Failed`] came before.
    Failed,
}

/// The end of a machine, written down by its supervisor when nothing of it is left but the disk that it was to keep.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndRecord {
    /// The machine's id.
    pub machine_id: String,
    /// Why it is gone.
    pub reason: EndReason,
    /// Whether the guest had written everything back to its disk before.
    pub orderly: bool,
    /// Milliseconds since 1970.
    pub at_ms: u64,
    /// What failed, if anything did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

/// A failure with everything a reader needs to act on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Stable class.
    pub code: ErrorCode,
    /// One sentence.
    pub message: String,
    /// One remedy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Which part failed.
    pub cause: FailureCause,
    /// The last lines of the guest's console.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub console_tail: Vec<String>,
    /// How the VMM ended, with what it said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_reason: Option<String>,
    /// The kept logs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_dir: Option<PathBuf>,
}

/// The part of a machine that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureCause {
    /// A program or permission that the host lacks.
    Host,
    /// No engine runs guests here, or the one asked for does not.
    Engine,
    /// The VMM did not start or ended by itself.
    Vmm,
    /// The guest kernel did not come up.
    Kernel,
    /// The guest had too little memory.
    Memory,
    /// The root image or the upper disk is unusable.
    Image,
    /// The agent reported a fault.
    Agent,
    /// The link to the guest died.
    Link,
    /// A disk of the host is full or unwritable.
    Disk,
}

impl FailureCause {
    /// The word as it stands in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Engine => "engine",
            Self::Vmm => "vmm",
            Self::Kernel => "kernel",
            Self::Memory => "memory",
            Self::Image => "image",
            Self::Agent => "agent",
            Self::Link => "link",
            Self::Disk => "disk",
        }
    }
}

/// What may be asked of a running supervisor. On the control socket everything but a stop is
/// answered by a [`ControlReply`]; on the owner channel nothing is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "request")]
pub enum ControlRequest {
    /// End the machine. Answered by [`Event::Ended`] when nothing of it is left.
    Stop {
        /// Let the guest sync and power off instead of cutting it.
        orderly: bool,
    },
    /// Let the guest stand still.
    Pause,
    /// Let a paused guest run on, with the right time.
    Resume,
    /// Let the machine live on without its owner, as [`Lease::Detached`] does from the beginning.
    Detach,
    /// Tell how the machine is. This is no use of it.
    Status,
    /// Let the machine end by itself at another time.
    SetExpiry {
        /// When.
        expiry: Expiry,
    },
    /// Copy the disk that the guest writes to, written back and frozen, and wait until the copy is on the host's disk.
    CopyDisk {
        /// The copy: a file that does not exist, in a directory of this user's.
        to: PathBuf,
    },
    /// Make a snapshot of the machine, which runs on.
    Snapshot {
        /// Where: a directory that does not exist, in one of this user's.
        directory: PathBuf,
        /// Whether it need not outlive this start of the host. Then nothing waits for the disk.
        passing: bool,
    },
}

/// What is written down of a machine before anything of it is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    /// Version of this form.
    pub schema: u32,
    /// The machine's id.
    pub id: String,
    /// Process id of the supervisor.
    pub supervisor_pid: u32,
    /// The machine's runtime directory, outside its own.
    pub runtime_dir: PathBuf,
    /// Slot of the user that the VMM runs as; absent when not started by root.
    pub uid_slot: Option<u32>,
    /// The cgroup that the VMM gets, where it may have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<PathBuf>,
    /// The VMM, once it runs.
    pub vmm: Option<VmmIdentity>,
    /// Files and directories that are being made and not finished: to be removed with
    /// the machine. Their names contain its id.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unfinished: Vec<PathBuf>,
    /// Unix seconds of the order.
    pub created_at: u64,
    /// Unix seconds at which the machine ends by itself; absent if that depends on its use, or never happens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
}

/// A process identified beyond the reuse of its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmmIdentity {
    /// Process id.
    pub pid: u32,
    /// Start time in clock ticks since boot: field 22 of `/proc/<pid>/stat`.
    pub start_time: u64,
}

/// What `pyro supervise probe` reads: where to look.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeOrder {
    /// The QEMU program; looked up in `search_path` when absent.
    pub qemu: Option<PathBuf>,
    /// The Firecracker program; looked up in `firecracker_installed`, then in `search_path` when absent.
    pub firecracker: Option<PathBuf>,
    /// Directory in which a Firecracker that was fetched lies, if it was.
    pub firecracker_installed: PathBuf,
    /// Directories to look for host programs, `:`-separated.
    pub search_path: String,
    /// File that remembers which engines work on this host.
    pub probe_cache: PathBuf,
    /// Forget what is remembered and probe again.
    pub again: bool,
}

/// What `pyro supervise sweep` reads: where dead machines may lie.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SweepOrder {
    /// Directory below which machines have their own.
    pub machines_dir: PathBuf,
    /// Directory of the templates, of which they may have left locks and halves.
    pub templates_dir: PathBuf,
    /// Report only.
    pub dry_run: bool,
}

/// What `pyro supervise sweep` prints: machines whose supervisor is gone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SweepReport {
    /// Machines that were cleaned up, or would be.
    pub machines: Vec<SweptMachine>,
}

/// A machine whose supervisor is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SweptMachine {
    /// Its id.
    pub id: String,
    /// Process ids of its VMM that still ran.
    pub processes: Vec<u32>,
    /// Its directories.
    pub directories: Vec<PathBuf>,
    /// Why it could not be cleaned up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What `pyro supervise probe` prints: which engines run guests on this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeReport {
    /// The engine that `auto` means here.
    pub chosen: Option<EngineChoice>,
    /// The QEMU program found.
    pub qemu: Option<PathBuf>,
    /// Its version line.
    pub qemu_version: Option<String>,
    /// The Firecracker program found.
    #[serde(default)]
    pub firecracker: Option<PathBuf>,
    /// Its version.
    #[serde(default)]
    pub firecracker_version: Option<String>,
    /// One finding per engine, best first.
    pub engines: Vec<EngineFinding>,
    /// The layers of the VMM's jail.
    #[serde(default)]
    pub jail: Vec<JailLayer>,
}

/// One layer of the jail that VMMs run in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JailLayer {
    /// `user`, `namespaces`, `root`, `landlock` or `cgroup`.
    pub name: String,
    /// Whether VMMs get it here.
    pub on: bool,
    /// What it does, or why it is missing.
    pub reason: String,
    /// How to switch it on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// What a probe found out about one engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineFinding {
    /// The engine.
    pub engine: EngineChoice,
    /// Whether a real guest ran.
    pub usable: bool,
    /// Why, or why not.
    pub reason: String,
    /// One remedy, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// What the probe took.
    pub elapsed_ms: u64,
}
