//! What is said about machines that do not begin with a boot, and about those that are kept.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Failure;

/// How a machine begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Start {
    /// With its kernel.
    Cold,
    /// As a copy of one that has booted, the template; made first if there is none.
    Warm {
        /// Directory below which templates are kept.
        templates_dir: PathBuf,
        /// What all templates together may take, in bytes. Those unused for the longest time
        /// go first.
        max_bytes: u64,
        /// The environment, as lists of templates name it.
        environment: String,
        /// Whether a template that is there is removed first and made again.
        #[serde(default)]
        anew: bool,
    },
    /// With its kernel, on the disk that it keeps, which is there.
    KeptDisk,
    /// With its kernel, on a copy of a disk.
    CopyOfDisk {
        /// The disk.
        disk: PathBuf,
    },
    /// From a snapshot.
    Snapshot {
        /// Its directory.
        directory: PathBuf,
        /// Whether a snapshot that cannot be gone on from is booted from its disk instead.
        or_boot: bool,
    },
}

/// How a machine began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartKind {
    /// With its kernel.
    Cold,
    /// As a copy of a template that was there.
    Warm,
    /// As a copy of a template that was made for it.
    Made,
    /// From a snapshot.
    Restored,
    /// With its kernel, on the disk of a snapshot that could not be gone on from.
    BootedFromSnapshot,
    /// With its kernel, on a disk that was there.
    BootedFromDisk,
}

impl StartKind {
    /// The word as it stands in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Warm => "warm",
            Self::Made => "made",
            Self::Restored => "restored",
            Self::BootedFromSnapshot => "booted_from_snapshot",
            Self::BootedFromDisk => "booted_from_disk",
        }
    }
}

/// The answer to a request on the control socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "reply")]
pub enum ControlReply {
    /// The machine lives on without its owner.
    Detached,
    /// The guest stands still.
    Paused,
    /// It runs.
    Resumed,
    /// The snapshot, or the copy of the disk, is there.
    Snapshot(SnapshotMade),
    /// How the machine is.
    Status(MachineStatus),
    /// It ends by itself at the other time.
    ExpirySet,
    /// Nothing was changed.
    Refused(Failure),
}

/// How a machine is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineStatus {
    /// Whether the guest stands still.
    pub paused: bool,
    /// Streams of clients that are open.
    pub open_streams: u32,
    /// Milliseconds since it was last used; 0 while it is.
    pub idle_ms: u64,
    /// Milliseconds until it ends by itself, if it stays unused; absent if it never does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_ms: Option<u64>,
    /// Process id of the VMM.
    pub vmm_pid: u32,
    /// Memory of the VMM in bytes, what it shares with others counted in part (PSS), where that can be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
}

/// A snapshot that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotMade {
    /// Where it is.
    pub directory: PathBuf,
    /// What it takes on the disk, in bytes.
    pub bytes: u64,
    /// How long the guest stood still, in milliseconds.
    pub paused_ms: u64,
    /// How long it took until the snapshot was whole, in milliseconds.
    pub took_ms: u64,
}

/// What `pyro supervise templates` reads: which templates, and what to do with them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplatesOrder {
    /// Directory below which templates are kept.
    pub templates_dir: PathBuf,
    /// Which to remove; none if absent.
    pub remove: Option<TemplatesToRemove>,
}

/// Which templates to remove.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplatesToRemove {
    /// Their names. One that is not there is none.
    pub keys: Vec<String>,
    /// Only tell.
    pub dry_run: bool,
}

/// What `pyro supervise templates` prints.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplatesReport {
    /// Those that are there, the last used first.
    pub templates: Vec<TemplateListing>,
    /// Those that were removed, or would be.
    pub removed: Vec<TemplateListing>,
}

/// A template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateListing {
    /// Its name: 16 hexadecimal digits.
    pub key: String,
    /// The environment that it runs; absent if the template cannot be opened.
    pub environment: Option<String>,
    /// Digest of that environment's root image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_digest: Option<String>,
    /// Digest of the guest kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_digest: Option<String>,
    /// Name of the initramfs, which tells the agent's build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initramfs: Option<String>,
    /// Whether its machines have a network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<bool>,
    /// The engine that can go on from it.
    pub engine: Option<String>,
    /// Its virtual processors.
    pub vcpu_count: Option<u8>,
    /// Its memory in MiB.
    pub mem_mib: Option<u32>,
    /// What it takes on the disk, in bytes.
    pub bytes: u64,
    /// When it was made, in seconds since 1970.
    pub created_at: Option<u64>,
    /// When a machine was last made of it, in seconds since 1970.
    pub used_at: u64,
    /// Why it cannot be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
