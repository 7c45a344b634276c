//! Every request that is ever made to Firecracker.
//!
//! Owns their methods, paths and JSON forms (Firecracker 1.12). Never sends anything. The only file names are [`FileName`]s,
//! so no path of the host can reach Firecracker.

use serde::{Deserialize, Serialize};

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Who the process is and in what state.
    InstanceInfo,
    /// The version that runs.
    Version,
    /// Where log lines go.
    Logger(LoggerConfig),
    /// Where metrics go.
    Metrics(MetricsConfig),
    /// Processors and memory.
    Machine(MachineConfig),
    /// Kernel, initial file system and kernel arguments.
    Boot(BootSource),
    /// A disk. The guest finds disks in the order of these requests.
    Drive(DriveConfig),
    /// A network device on a tap device of the host.
    Network(NetworkInterface),
    /// The vsock.
    Vsock(VsockConfig),
    /// The balloon.
    Balloon(BalloonConfig),
    /// How much memory the balloon shall hold, while the guest runs.
    BalloonUpdate(BalloonUpdate),
    /// What the balloon's driver told last.
    BalloonStatistics,
    /// The source of random numbers.
    Entropy(EntropyConfig),
    /// The guest's first instruction.
    InstanceStart,
    /// Ctrl-Alt-Del on the guest's keyboard.
    SendCtrlAltDel,
    /// Lets the processors run or stops them.
    Run(RunState),
    /// Writes a snapshot of a paused machine.
    SnapshotCreate(SnapshotCreate),
    /// Loads a snapshot in the place of a configuration.
    SnapshotLoad(SnapshotLoad),
}

impl Action {
    /// Method and path, to name the request in an error.
    pub fn name(&self) -> String {
        format!("{} {}", self.method(), self.path())
    }

    /// The method of HTTP.
    pub fn method(&self) -> &'static str {
        match self {
            Self::InstanceInfo | Self::Version | Self::BalloonStatistics => "GET",
            Self::BalloonUpdate(_) | Self::Run(_) => "PATCH",
            _ => "PUT",
        }
    }

    /// The path.
    pub fn path(&self) -> String {
        match self {
            Self::InstanceInfo => "/".into(),
            Self::Version => "/version".into(),
            Self::Logger(_) => "/logger".into(),
            Self::Metrics(_) => "/metrics".into(),
            Self::Machine(_) => "/machine-config".into(),
            Self::Boot(_) => "/boot-source".into(),
            Self::Drive(drive) => format!("/drives/{}", drive.drive_id),
            Self::Network(network) => format!("/network-interfaces/{}", network.iface_id),
            Self::Vsock(_) => "/vsock".into(),
            Self::Balloon(_) | Self::BalloonUpdate(_) => "/balloon".into(),
            Self::BalloonStatistics => "/balloon/statistics".into(),
            Self::Entropy(_) => "/entropy".into(),
            Self::InstanceStart | Self::SendCtrlAltDel => "/actions".into(),
            Self::Run(_) => "/vm".into(),
            Self::SnapshotCreate(_) => "/snapshot/create".into(),
            Self::SnapshotLoad(_) => "/snapshot/load".into(),
        }
    }

    /// The JSON body, if the request has one.
    pub fn body(&self) -> Option<String> {
        #[derive(Serialize)]
        struct Order {
            action_type: &'static str,
        }
        #[derive(Serialize)]
        struct Run {
            state: RunState,
        }
        let body = match self {
            Self::InstanceInfo | Self::Version | Self::BalloonStatistics => return None,
            Self::Logger(body) => serde_json::to_string(body),
            Self::Metrics(body) => serde_json::to_string(body),
            Self::Machine(body) => serde_json::to_string(body),
            Self::Boot(body) => serde_json::to_string(body),
            Self::Drive(body) => serde_json::to_string(body),
            Self::Network(body) => serde_json::to_string(body),
            Self::Vsock(body) => serde_json::to_string(body),
            Self::Balloon(body) => serde_json::to_string(body),
            Self::BalloonUpdate(body) => serde_json::to_string(body),
            Self::Entropy(body) => serde_json::to_string(body),
            Self::InstanceStart => serde_json::to_string(&Order {
                action_type: "InstanceStart",
            }),
            Self::SendCtrlAltDel => serde_json::to_string(&Order {
                action_type: "SendCtrlAltDel",
            }),
            Self::Run(state) => serde_json::to_string(&Run { state: *state }),
            Self::SnapshotCreate(body) => serde_json::to_string(body),
            Self::SnapshotLoad(body) => serde_json::to_string(body),
        };
        Some(body.expect("plain structures of strings and numbers become JSON"))
    }
}

/// The name of a file in the directory that Firecracker works in: `a-z`, `0-9`, `-` and inner dots.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct FileName(String);

impl FileName {
    /// Takes a name, or gives nothing if it could be anything but a file right there.
    pub fn new(name: impl Into<String>) -> Option<Self> {
        let name = name.into();
        let allowed = name
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.'));
        let plain = allowed && !name.is_empty() && !name.starts_with('.') && name.len() <= 64;
        plain.then_some(Self(name))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Where log lines go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LoggerConfig {
    /// A file or named pipe that exists.
    pub log_path: FileName,
    /// What is logged.
    pub level: LogLevel,
}

/// From which weight on lines are logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum LogLevel {
    /// What failed.
    Error,
    /// And what is unusual.
    Warning,
    /// And what happens.
    Info,
}

/// Where metrics go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MetricsConfig {
    /// A file or named pipe that exists.
    pub metrics_path: FileName,
}

/// Processors and memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MachineConfig {
    /// How many processors the guest sees.
    pub vcpu_count: u8,
    /// How much memory, in MiB.
    pub mem_size_mib: u32,
    /// Whether two of them look like one core.
    pub smt: bool,
    /// Whether the pages that the guest changes are noted, for snapshots of the changes.
    pub track_dirty_pages: bool,
    /// The pages of the host that the memory is made of.
    pub huge_pages: HugePages,
}

/// The pages of the host that a guest's memory is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum HugePages {
    /// Usual ones: only they can be shared with a snapshot's file.
    None,
}

/// Kernel, initial file system and kernel arguments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BootSource {
    /// An uncompressed kernel.
    pub kernel_image_path: FileName,
    /// The initial file system.
    pub initrd_path: FileName,
    /// The kernel's command line.
    pub boot_args: String,
}

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DriveConfig {
    /// Its name in requests: letters, digits and `_`.
    pub drive_id: String,
    /// The raw image.
    pub path_on_host: FileName,
    /// Whether Firecracker adds `root=` to the command line. Ours never does.
    pub is_root_device: bool,
    /// Whether the device refuses writes.
    pub is_read_only: bool,
    /// What a flush of the guest does.
    pub cache_type: CacheType,
    /// How the file is read and written.
    pub io_engine: IoEngine,
    /// How much the guest may read and write, if that is bounded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limiter: Option<RateLimiter>,
}

/// What a flush of the guest does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum CacheType {
    /// Nothing: the host's page cache outlives Firecracker.
    Unsafe,
    /// It reaches the host's disk.
    Writeback,
}

/// How a disk's file is read and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum IoEngine {
    /// One request at a time, by system calls that wait.
    Sync,
}

/// A bound on bytes and on requests in a time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct RateLimiter {
    /// Bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<TokenBucket>,
    /// Requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ops: Option<TokenBucket>,
}

/// A bound: `size` in every `refill_time` milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct TokenBucket {
    /// How many.
    pub size: u64,
    /// What may be used once at the beginning, beside that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub one_time_burst: Option<u64>,
    /// In which time, in milliseconds.
    pub refill_time: u64,
}

/// A network device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NetworkInterface {
    /// Its name in requests: letters, digits and `_`.
    pub iface_id: String,
    /// The tap device of the host.
    pub host_dev_name: String,
    /// The guest's hardware address, or one that Firecracker chooses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guest_mac: Option<String>,
    /// What the guest may receive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rx_rate_limiter: Option<RateLimiter>,
    /// What the guest may send.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tx_rate_limiter: Option<RateLimiter>,
}

/// The vsock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VsockConfig {
    /// The guest's address.
    pub guest_cid: u32,
    /// The socket that Firecracker makes, on which the host says `CONNECT <port>`.
    pub uds_path: FileName,
}

/// The balloon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct BalloonConfig {
    /// How much memory it takes from the guest, in MiB.
    pub amount_mib: u32,
    /// Whether the guest may take it back before it runs out.
    pub deflate_on_oom: bool,
    /// How often the guest tells about its memory, in seconds; 0 is never.
    pub stats_polling_interval_s: u16,
}

/// How much memory the balloon shall hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct BalloonUpdate {
    /// In MiB.
    pub amount_mib: u32,
}

/// The source of random numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct EntropyConfig {
    /// How much the guest may take, if that is bounded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limiter: Option<RateLimiter>,
}

/// Whether the processors run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum RunState {
    /// They stand.
    Paused,
    /// They run.
    Resumed,
}

/// A snapshot to write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SnapshotCreate {
    /// How much of the memory is written.
    pub snapshot_type: SnapshotKind,
    /// Where the devices' and processors' state goes.
    pub snapshot_path: FileName,
    /// Where the memory goes.
    pub mem_file_path: FileName,
}

/// How much of the memory a snapshot holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum SnapshotKind {
    /// All of it.
    Full,
    /// What changed since the last snapshot; the rest of the file is holes. Needs [`DirtyPages::Tracked`].
    Diff,
}

/// Whether the pages that a guest changes are noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DirtyPages {
    /// They are, which takes a fault for the first change of each page after a snapshot.
    Tracked,
    /// They are not: every snapshot is full.
    Untracked,
}

/// A snapshot to load.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SnapshotLoad {
    /// The devices' and processors' state.
    pub snapshot_path: FileName,
    /// The memory.
    pub mem_backend: MemoryBackend,
    /// Whether pages are noted from now on that the guest changes.
    pub enable_diff_snapshots: bool,
    /// Whether the processors run at once.
    pub resume_vm: bool,
}

/// Where a loaded machine's memory comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MemoryBackend {
    /// What kind of thing it is.
    pub backend_type: MemoryBackendType,
    /// Its name.
    pub backend_path: FileName,
}

/// What a loaded machine's memory comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum MemoryBackendType {
    /// A file that is mapped copy-on-write: clones share what they do not change.
    File,
}

/// Who a process is and in what state.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct InstanceInfo {
    /// The name it was started with.
    pub id: String,
    /// Its state.
    pub state: InstanceState,
    /// Its version, such as `1.12.1`.
    pub vmm_version: String,
}

/// The state of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum InstanceState {
    /// It takes a configuration or a snapshot.
    #[serde(rename = "Not started")]
    NotStarted,
    /// The guest runs.
    Running,
    /// The guest stands.
    Paused,
}

/// What the balloon's driver in the guest told last. What it has not told is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct BalloonStatistics {
    /// How much it shall hold, in MiB.
    pub target_mib: u32,
    /// How much it holds, in MiB.
    pub actual_mib: u32,
    /// What the guest does not use at all, in bytes.
    #[serde(default)]
    pub free_memory: Option<u64>,
    /// All that the guest sees, in bytes.
    #[serde(default)]
    pub total_memory: Option<u64>,
    /// What new programs in the guest could have without swapping, in bytes.
    #[serde(default)]
    pub available_memory: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write;

    fn name(text: &str) -> FileName {
        FileName::new(text).unwrap()
    }

    #[test]
    fn every_request() {
        let limiter = RateLimiter {
            bandwidth: Some(TokenBucket {
                size: 1_000_000,
                one_time_burst: Some(5),
                refill_time: 1_000,
            }),
            ops: None,
        };
        let actions = [
            Action::InstanceInfo,
            Action::Version,
            Action::Logger(LoggerConfig {
                log_path: name("log"),
                level: LogLevel::Warning,
            }),
            Action::Metrics(MetricsConfig {
                metrics_path: name("metrics"),
            }),
            Action::Machine(MachineConfig {
                vcpu_count: 2,
                mem_size_mib: 512,
                smt: false,
                track_dirty_pages: true,
                huge_pages: HugePages::None,
            }),
            Action::Boot(BootSource {
                kernel_image_path: name("kernel"),
                initrd_path: name("initrd"),
                boot_args: "console=ttyS0 \"x\"".into(),
            }),
            Action::Drive(DriveConfig {
                drive_id: "disk0".into(),
                path_on_host: name("disk-root"),
                is_root_device: false,
                is_read_only: true,
                cache_type: CacheType::Unsafe,
                io_engine: IoEngine::Sync,
                rate_limiter: Some(limiter),
            }),
            Action::Network(NetworkInterface {
                iface_id: "net0".into(),
                host_dev_name: "tap0".into(),
                guest_mac: None,
                rx_rate_limiter: None,
                tx_rate_limiter: Some(limiter),
            }),
            Action::Vsock(VsockConfig {
                guest_cid: 3,
                uds_path: name("v.sock"),
            }),
            Action::Balloon(BalloonConfig {
                amount_mib: 0,
                deflate_on_oom: true,
                stats_polling_interval_s: 1,
            }),
            Action::BalloonUpdate(BalloonUpdate { amount_mib: 64 }),
            Action::BalloonStatistics,
            Action::Entropy(EntropyConfig::default()),
            Action::InstanceStart,
            Action::SendCtrlAltDel,
            Action::Run(RunState::Paused),
            Action::Run(RunState::Resumed),
            Action::SnapshotCreate(SnapshotCreate {
                snapshot_type: SnapshotKind::Diff,
                snapshot_path: name("snapshot-state"),
                mem_file_path: name("snapshot-memory"),
            }),
            Action::SnapshotLoad(SnapshotLoad {
                snapshot_path: name("state"),
                mem_backend: MemoryBackend {
                    backend_type: MemoryBackendType::File,
                    backend_path: name("memory"),
                },
                enable_diff_snapshots: false,
                resume_vm: false,
            }),
        ];
        let mut text = String::new();
        for action in &actions {
            let body = action.body().unwrap_or_default();
            writeln!(text, "{}\n  {body}", action.name()).unwrap();
        }
        insta::assert_snapshot!(text);
    }

    #[test]
    fn a_file_name_is_no_path() {
        for good in ["v.sock", "disk-root", "a"] {
            assert!(FileName::new(good).is_some(), "{good}");
        }
        for bad in ["", ".", "..", "/a", "a/b", "../a", "A", "a b", "a\0"] {
            assert!(FileName::new(bad).is_none(), "{bad:?}");
        }
    }
}
