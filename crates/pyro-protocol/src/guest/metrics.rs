//! The reply to `metrics`. What a kernel does not tell is null, never a guess.

use serde::{Deserialize, Serialize};

/// How the machine is doing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Time since the guest's kernel started, suspension included.
    pub uptime_ms: u64,
    /// Processors.
    pub cpu: CpuMetrics,
    /// Memory and swap.
    pub memory: MemoryMetrics,
    /// File systems: the root's, and the workspace's where there is one.
    pub disk: Vec<DiskMetrics>,
    /// Processes.
    pub processes: ProcessMetrics,
    /// Network interfaces, in the kernel's order.
    pub network: Vec<InterfaceMetrics>,
    /// The agent itself.
    pub agent: AgentMetrics,
}

/// Time of all processors together since the start, and the load.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CpuMetrics {
    /// Processors that are online.
    pub count: Option<usize>,
    /// In programs.
    pub user_ms: Option<u64>,
    /// In the kernel, interrupts included.
    pub system_ms: Option<u64>,
    /// Doing nothing.
    pub idle_ms: Option<u64>,
    /// Doing nothing while something waited for a disk.
    pub iowait_ms: Option<u64>,
    /// Taken by the host for others.
    pub steal_ms: Option<u64>,
    /// Mean number of tasks that ran or waited, over one minute.
    pub load1: Option<f64>,
    /// The same over five minutes.
    pub load5: Option<f64>,
    /// The same over fifteen minutes.
    pub load15: Option<f64>,
}

/// Memory in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryMetrics {
    /// What the kernel manages.
    pub total: Option<u64>,
    /// What programs can still have without swapping.
    pub available: Option<u64>,
    /// Unused altogether.
    pub free: Option<u64>,
    /// File contents, buffers not included.
    pub cached: Option<u64>,
    /// Raw disk blocks.
    pub buffers: Option<u64>,
    /// Waiting to be written back.
    pub dirty: Option<u64>,
    /// Size of the swap.
    pub swap_total: Option<u64>,
    /// Unused part of the swap.
    pub swap_free: Option<u64>,
}

/// A file system, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskMetrics {
    /// The directory that was asked about.
    pub mount: String,
    /// Its size.
    pub total: u64,
    /// What an ordinary user can still have.
    pub available: u64,
    /// Taken.
    pub used: u64,
    /// Files that it can hold; 0 where it has no such bound.
    pub inodes_total: u64,
    /// Of these, how many more.
    pub inodes_free: u64,
}

/// Processes, without the kernel's own threads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessMetrics {
    /// All, zombies included.
    pub total: Option<u64>,
    /// Running or ready to.
    pub running: Option<u64>,
    /// Ended and not yet waited for.
    pub zombies: Option<u64>,
}

/// What went through a network interface since it came up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceMetrics {
    /// Its name.
    pub name: String,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets received.
    pub rx_packets: u64,
    /// Packets sent.
    pub tx_packets: u64,
}

/// The agent itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentMetrics {
    /// Memory in use.
    pub rss_bytes: Option<u64>,
    /// Streams being served, the one that asks included.
    pub open_streams: usize,
    /// Open descriptors.
    pub open_descriptors: Option<usize>,
}
