//! Every request that is ever made to Firecracker.
//!
//! Owns their methods, paths and JSON forms (Firecracker 1.12). Never sends anything. The only file names are [`FileName`]s,
//! so no path of the host can reach Firecracker.

use serde::Serialize;

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// The version that runs.
    Version,
    /// Processors and memory.
    Machine(MachineConfig),
    /// Kernel, initial file system and kernel arguments.
    Boot(BootSource),
    /// A disk. The guest finds disks in the order of these requests.
    Drive(DriveConfig),
    /// The vsock.
    Vsock(VsockConfig),
    /// The source of random numbers.
    Entropy,
    /// The guest's first instruction.
    InstanceStart,
    /// Lets the processors run or stops them.
    Run(RunState),
    /// Writes a snapshot of a paused machine.
    SnapshotCreate(SnapshotCreate),
    /// Loads a snapshot in the place of a configuration.
    SnapshotLoad(SnapshotLoad),
}

impl Action {
    /// Method and path, to name the request in an error.
    pub(crate) fn name(&self) -> String {
        format!("{} {}", self.method(), self.path())
    }

    /// The method of HTTP.
    pub(crate) fn method(&self) -> &'static str {
        match self {
            Self::Version => "GET",
            Self::Run(_) => "PATCH",
            _ => "PUT",
        }
    }

    /// The path.
    pub(crate) fn path(&self) -> String {
        match self {
            Self::Version => "/version".into(),
            Self::Machine(_) => "/machine-config".into(),
            Self::Boot(_) => "/boot-source".into(),
            Self::Drive(drive) => format!("/drives/{}", drive.drive_id),
            Self::Vsock(_) => "/vsock".into(),
            Self::Entropy => "/entropy".into(),
            Self::InstanceStart => "/actions".into(),
            Self::Run(_) => "/vm".into(),
            Self::SnapshotCreate(_) => "/snapshot/create".into(),
            Self::SnapshotLoad(_) => "/snapshot/load".into(),
        }
    }

    /// The JSON body, if the request has one.
    pub(crate) fn body(&self) -> Option<String> {
        #[derive(Serialize)]
        struct Order {
            action_type: &'static str,
        }
        #[derive(Serialize)]
        struct Run {
            state: RunState,
        }
        let body = match self {
            Self::Version => return None,
            Self::Machine(body) => serde_json::to_string(body),
            Self::Boot(body) => serde_json::to_string(body),
            Self::Drive(body) => serde_json::to_string(body),
            Self::Vsock(body) => serde_json::to_string(body),
            Self::Entropy => Ok("{}".to_owned()),
            Self::InstanceStart => serde_json::to_string(&Order {
                action_type: "InstanceStart",
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
pub(crate) struct FileName(String);

impl FileName {
    /// Takes a name, or gives nothing if it could be anything but a file right there.
    pub(crate) fn new(name: impl Into<String>) -> Option<Self> {
        let name = name.into();
        let allowed = name
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.'));
        let plain = allowed && !name.is_empty() && !name.starts_with('.') && name.len() <= 64;
        plain.then_some(Self(name))
    }

    /// The name.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Processors and memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct MachineConfig {
    /// How many processors the guest sees.
    pub(crate) vcpu_count: u8,
    /// How much memory, in MiB.
    pub(crate) mem_size_mib: u32,
    /// Whether two of them look like one core.
    pub(crate) smt: bool,
    /// The pages of the host that the memory is made of.
    pub(crate) huge_pages: HugePages,
}

/// The pages of the host that a guest's memory is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum HugePages {
    /// Usual ones: only they can be shared with a snapshot's file.
    None,
}

/// Kernel, initial file system and kernel arguments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct BootSource {
    /// An uncompressed kernel.
    pub(crate) kernel_image_path: FileName,
    /// The initial file system.
    pub(crate) initrd_path: FileName,
    /// The kernel's command line.
    pub(crate) boot_args: String,
}

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct DriveConfig {
    /// Its name in requests: letters, digits and `_`.
    pub(crate) drive_id: String,
    /// The raw image.
    pub(crate) path_on_host: FileName,
    /// Whether Firecracker adds `root=` to the command line. Ours never does.
    pub(crate) is_root_device: bool,
    /// Whether the device refuses writes.
    pub(crate) is_read_only: bool,
    /// What a flush of the guest does.
    pub(crate) cache_type: CacheType,
    /// How the file is read and written.
    pub(crate) io_engine: IoEngine,
    /// The most that the guest reads and writes. A snapshot keeps it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rate_limiter: Option<RateLimiter>,
}

/// A bound on what passes through a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct RateLimiter {
    /// Bytes.
    pub(crate) bandwidth: TokenBucket,
}

/// So much in every time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct TokenBucket {
    /// How much.
    pub(crate) size: u64,
    /// The time, in milliseconds.
    pub(crate) refill_time: u64,
}

/// What a flush of the guest does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum CacheType {
    /// Nothing: the host's page cache outlives Firecracker.
    Unsafe,
}

/// How a disk's file is read and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum IoEngine {
    /// One request at a time, by system calls that wait.
    Sync,
}

/// The vsock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct VsockConfig {
    /// The guest's address.
    pub(crate) guest_cid: u32,
    /// The socket that Firecracker makes, on which the host says `CONNECT <port>`.
    pub(crate) uds_path: FileName,
}

/// Whether the processors run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum RunState {
    /// They stand.
    Paused,
    /// They run.
    Resumed,
}

/// A snapshot to write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct SnapshotCreate {
    /// How much of the memory is written.
    pub(crate) snapshot_type: SnapshotKind,
    /// Where the devices' and processors' state goes.
    pub(crate) snapshot_path: FileName,
    /// Where the memory goes.
    pub(crate) mem_file_path: FileName,
}

/// How much of the memory a snapshot holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum SnapshotKind {
    /// All of it.
    Full,
}

/// A snapshot to load.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct SnapshotLoad {
    /// The devices' and processors' state.
    pub(crate) snapshot_path: FileName,
    /// The memory.
    pub(crate) mem_backend: MemoryBackend,
    /// Whether the processors run at once.
    pub(crate) resume_vm: bool,
}

/// Where a loaded machine's memory comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct MemoryBackend {
    /// What kind of thing it is.
    pub(crate) backend_type: MemoryBackendType,
    /// Its name.
    pub(crate) backend_path: FileName,
}

/// What a loaded machine's memory comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum MemoryBackendType {
    /// A file that is mapped copy-on-write: clones share what they do not change.
    File,
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
        let actions = [
            Action::Version,
            Action::Machine(MachineConfig {
                vcpu_count: 2,
                mem_size_mib: 512,
                smt: false,
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
                rate_limiter: Some(RateLimiter {
                    bandwidth: TokenBucket {
                        size: 1_048_576,
                        refill_time: 1_000,
                    },
                }),
            }),
            Action::Vsock(VsockConfig {
                guest_cid: 3,
                uds_path: name("v.sock"),
            }),
            Action::Entropy,
            Action::InstanceStart,
            Action::Run(RunState::Paused),
            Action::Run(RunState::Resumed),
            Action::SnapshotCreate(SnapshotCreate {
                snapshot_type: SnapshotKind::Full,
                snapshot_path: name("snapshot-state"),
                mem_file_path: name("snapshot-memory"),
            }),
            Action::SnapshotLoad(SnapshotLoad {
                snapshot_path: name("state"),
                mem_backend: MemoryBackend {
                    backend_type: MemoryBackendType::File,
                    backend_path: name("memory"),
                },
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
