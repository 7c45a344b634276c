//! The machine's own actions: connections to its ports, metrics, clock, entropy, identity,
//! rest before a snapshot, frozen file systems and revival after it, power-off.
//!
//! Owns their checked requests, which cannot be wrong any more, and their replies. Numbers
//! in replies are bytes, milliseconds or nanoseconds, as their names say.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::code::ErrorReply;
use crate::limits::{MAX_FREEZE_MS, MAX_HOSTNAME, MAX_MACHINE_WAIT_MS, MAX_SEED, MIN_SEED};
use crate::request::invalid;

mod metrics;
#[cfg(test)]
mod tests;

pub use metrics::{
    AgentMetrics, CpuMetrics, DiskMetrics, InterfaceMetrics, MemoryMetrics, Metrics, ProcessMetrics,
};

/// How long a connection to a guest's port may take when the request does not say.
const DEFAULT_CONNECT: Duration = Duration::from_secs(5);

/// How long a `sync` may take when the request does not say.
const DEFAULT_SYNC: Duration = Duration::from_secs(30);

/// How long a quiesced machine takes no new work when the request does not say.
const DEFAULT_HOLD: Duration = Duration::from_secs(10);

/// How long file systems stay frozen when the request does not say.
const DEFAULT_FREEZE: Duration = Duration::from_secs(10);

/// How long `quiesce` waits for the work in flight when the request does not say.
const DEFAULT_DRAIN: Duration = Duration::from_secs(2);

/// How long a power-off may take when the request does not say: long, because what is not
/// written back by then is lost, and below the 20 s after which the supervisor kills.
const DEFAULT_POWER_OFF: Duration = Duration::from_secs(18);

/// How long processes have between TERM and KILL when the request does not say.
const DEFAULT_TERM: Duration = Duration::from_secs(2);

/// `connect_tcp`, checked: a raw byte stream to a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectTcp {
    /// Where to connect to; tried in this order, never empty.
    pub addresses: Vec<IpAddr>,
    /// The port.
    pub port: NonZeroU16,
    /// For all tries together.
    pub timeout: Duration,
}

/// Random bytes from the host, of a length that is worth mixing in.
#[derive(Clone, PartialEq, Eq)]
pub struct Seed(Vec<u8>);

impl Seed {
    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Seed {
    /// Never the bytes: they are the guest's secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Seed({} bytes)", self.0.len())
    }
}

/// Who the machine is; what is absent stays as it was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Host name: letters, digits, hyphens and dots.
    pub hostname: Option<String>,
    /// Machine id: 32 lower-case hexadecimal digits, not all zero.
    pub machine_id: Option<String>,
}

/// `sync`, checked: write back what the root file system holds in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sync {
    /// How long the reply may take. The writing itself cannot be called off.
    pub timeout: Duration,
}

/// `quiesce`, checked: come to rest before a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quiesce {
    /// How long no new work is taken, from the request on.
    pub hold: Duration,
    /// How long to wait for the work in flight; at most `hold`.
    pub drain: Duration,
    /// Freeze the file systems too, until `hold` is over.
    pub freeze: bool,
}

/// `freeze`, checked: let nothing write to a disk and no process run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freeze {
    /// How long, from the request on, unless a `thaw` comes before.
    pub hold: Duration,
}

/// `revive`, checked: what a machine needs after a snapshot, before it takes work again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revive {
    /// Nanoseconds since the epoch.
    pub unix_ns: u64,
    /// Fresh random bytes.
    pub seed: Option<Seed>,
    /// The new identity.
    pub identity: Identity,
}

/// `power_off`, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PowerOff {
    /// How long everything may take, from the request to the end of the machine.
    pub deadline: Duration,
    /// How long processes have between TERM and KILL. Less when the deadline is near.
    pub term: Duration,
}

/// A reply that says that what was asked for is done, and the outcome beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done<T> {
    /// Always true; a failure is an [`ErrorReply`].
    pub ok: bool,
    /// The outcome's own fields.
    #[serde(flatten)]
    pub outcome: T,
}

impl<T> Done<T> {
    /// The reply with `outcome`.
    pub fn new(outcome: T) -> Self {
        Self { ok: true, outcome }
    }
}

/// Outcome of `set_clock`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockSet {
    /// The new time minus the old one.
    pub offset_ns: i64,
}

/// Outcome of `reseed_entropy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reseeded {
    /// Bytes mixed in.
    pub bytes: usize,
    /// Whether the kernel counted them and reseeded its generator at once. Where it did
    /// not, it draws on them at its next reseeding, within about a minute.
    pub credited: bool,
}

/// Outcome of `sync`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Synced {
    /// What it took.
    pub elapsed_ms: u64,
}

/// What a freeze made of the processes in the machine, the agent aside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Processes {
    /// All stand still until the thaw.
    Stopped,
    /// They were told to, and some were not yet seen to: in the middle of a system call that
    /// cannot be interrupted, or where they cannot be stopped.
    Partly,
    /// They run: the machine has no control groups that can be frozen, or nobody asked for it.
    #[default]
    Running,
}

/// Outcome of `freeze`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frozen {
    /// File systems that are frozen, the root's among them.
    pub frozen: usize,
    /// File systems on disks that cannot be frozen; they are written back.
    pub written_back: usize,
    /// What became of the processes.
    #[serde(default)]
    pub processes: Processes,
    /// What it took.
    pub elapsed_ms: u64,
}

/// Outcome of `thaw`: the processes go on, and all that was frozen takes writes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thawed {
    /// What it took.
    pub elapsed_ms: u64,
}

/// Outcome of `quiesce`: the root file system is written back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quiesced {
    /// Streams with work that went on when the wait for them was over; 0 is full rest.
    pub open_streams: usize,
    /// Jobs whose command runs, whatever streams there are.
    #[serde(default)]
    pub running_jobs: usize,
    /// Shells whose program runs, whether or not somebody is attached.
    #[serde(default)]
    pub running_shells: usize,
    /// Services whose process lives.
    #[serde(default)]
    pub running_services: usize,
    /// As in [`Frozen`]; 0 unless asked for.
    #[serde(default)]
    pub frozen: usize,
    /// As in [`Frozen`].
    #[serde(default)]
    pub processes: Processes,
    /// What it took.
    pub elapsed_ms: u64,
}

/// Outcome of `revive`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revived {
    /// The new time minus the old one.
    pub offset_ns: i64,
    /// Whether file systems were frozen until now. False where they were to be: the time
    /// limit passed before.
    #[serde(default)]
    pub thawed: bool,
    /// As in [`Reseeded`]; absent when no seed came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credited: Option<bool>,
}

#[derive(Deserialize)]
pub(crate) struct ConnectTcpRequest {
    port: u16,
    host: Option<String>,
    #[serde(default)]
    any_host: bool,
    connect_timeout_ms: Option<u64>,
}

impl ConnectTcpRequest {
    pub(crate) fn check(self) -> Result<ConnectTcp, ErrorReply> {
        let port = NonZeroU16::new(self.port).ok_or_else(|| invalid("`port` must not be 0"))?;
        let host = self.host.as_deref().unwrap_or("127.0.0.1");
        let addresses = if host == "localhost" {
            // The agent resolves no names; this one means the same everywhere.
            vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
        } else {
            let address: IpAddr = host
                .parse()
                .map_err(|_| invalid("`host` must be an IP address or `localhost`"))?;
            vec![address.to_canonical()]
        };
        if !self.any_host && !addresses.iter().all(IpAddr::is_loopback) {
            return Err(invalid(
                "`host` is no loopback address, and `any_host` is not set",
            ));
        }
        let timeout = wait(
            "connect_timeout_ms",
            self.connect_timeout_ms,
            DEFAULT_CONNECT,
        )?;
        Ok(ConnectTcp {
            addresses,
            port,
            timeout,
        })
    }
}

#[derive(Deserialize)]
pub(crate) struct SeedRequest {
    seed_b64: String,
}

impl SeedRequest {
    pub(crate) fn check(self) -> Result<Seed, ErrorReply> {
        seed(&self.seed_b64)
    }
}

#[derive(Deserialize)]
pub(crate) struct IdentityRequest {
    hostname: Option<String>,
    machine_id: Option<String>,
}

impl IdentityRequest {
    pub(crate) fn check(self) -> Result<Identity, ErrorReply> {
        if self.hostname.is_none() && self.machine_id.is_none() {
            return Err(invalid("neither `hostname` nor `machine_id` is given"));
        }
        identity(self.hostname, self.machine_id)
    }
}

#[derive(Deserialize)]
pub(crate) struct SyncRequest {
    timeout_ms: Option<u64>,
}

impl SyncRequest {
    pub(crate) fn check(self) -> Result<Sync, ErrorReply> {
        let timeout = wait("timeout_ms", self.timeout_ms, DEFAULT_SYNC)?;
        Ok(Sync { timeout })
    }
}

#[derive(Deserialize)]
pub(crate) struct QuiesceRequest {
    max_ms: Option<u64>,
    drain_ms: Option<u64>,
    #[serde(default)]
    freeze: bool,
}

impl QuiesceRequest {
    pub(crate) fn check(self) -> Result<Quiesce, ErrorReply> {
        let hold = if self.freeze {
            freeze(self.max_ms)?
        } else {
            wait("max_ms", self.max_ms, DEFAULT_HOLD)?
        };
        let drain = match self.drain_ms {
            Some(0) => Duration::ZERO,
            None => DEFAULT_DRAIN.min(hold),
            drain_ms @ Some(_) => wait("drain_ms", drain_ms, DEFAULT_DRAIN)?,
        };
        if drain > hold {
            return Err(invalid("`drain_ms` exceeds `max_ms`"));
        }
        Ok(Quiesce {
            hold,
            drain,
            freeze: self.freeze,
        })
    }
}

#[derive(Deserialize)]
pub(crate) struct FreezeRequest {
    max_ms: Option<u64>,
}

impl FreezeRequest {
    pub(crate) fn check(self) -> Result<Freeze, ErrorReply> {
        Ok(Freeze {
            hold: freeze(self.max_ms)?,
        })
    }
}

#[derive(Deserialize)]
pub(crate) struct ReviveRequest {
    unix_ns: u64,
    seed_b64: Option<String>,
    hostname: Option<String>,
    machine_id: Option<String>,
}

impl ReviveRequest {
    pub(crate) fn check(self) -> Result<Revive, ErrorReply> {
        Ok(Revive {
            unix_ns: self.unix_ns,
            seed: self.seed_b64.as_deref().map(seed).transpose()?,
            identity: identity(self.hostname, self.machine_id)?,
        })
    }
}

#[derive(Deserialize)]
pub(crate) struct PowerOffRequest {
    deadline_ms: Option<u64>,
    term_ms: Option<u64>,
}

impl PowerOffRequest {
    pub(crate) fn check(self) -> Result<PowerOff, ErrorReply> {
        let deadline = wait("deadline_ms", self.deadline_ms, DEFAULT_POWER_OFF)?;
        let term = match self.term_ms {
            None => DEFAULT_TERM.min(deadline),
            term_ms @ Some(_) => wait("term_ms", term_ms, DEFAULT_TERM)?,
        };
        if term > deadline {
            return Err(invalid("`term_ms` exceeds `deadline_ms`"));
        }
        Ok(PowerOff { deadline, term })
    }
}

fn seed(seed_b64: &str) -> Result<Seed, ErrorReply> {
    let bytes = STANDARD
        .decode(seed_b64)
        .map_err(|_| invalid("`seed_b64` is no base64"))?;
    if !(MIN_SEED..=MAX_SEED).contains(&bytes.len()) {
        return Err(invalid(format!(
            "`seed_b64` must hold {MIN_SEED} to {MAX_SEED} bytes"
        )));
    }
    Ok(Seed(bytes))
}

fn identity(hostname: Option<String>, machine_id: Option<String>) -> Result<Identity, ErrorReply> {
    if hostname.as_deref().is_some_and(|name| !is_hostname(name)) {
        return Err(invalid(format!(
            "`hostname` must be 1 to {MAX_HOSTNAME} letters, digits, hyphens and dots, \
             with no hyphen or dot at the border of a label"
        )));
    }
    let machine_id = machine_id.map(|id| id.to_ascii_lowercase());
    if machine_id.as_deref().is_some_and(|id| !is_machine_id(id)) {
        return Err(invalid(
            "`machine_id` must be 32 hexadecimal digits that are not all zero",
        ));
    }
    Ok(Identity {
        hostname,
        machine_id,
    })
}

fn is_hostname(name: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    name.len() <= MAX_HOSTNAME && name.split('.').all(is_label)
}

fn is_machine_id(id: &str) -> bool {
    id.len() == 32
        && id.bytes().all(|byte| byte.is_ascii_hexdigit())
        && id.bytes().any(|byte| byte != b'0')
}

/// How long file systems may be frozen.
fn freeze(max_ms: Option<u64>) -> Result<Duration, ErrorReply> {
    match max_ms {
        None => Ok(DEFAULT_FREEZE),
        Some(ms) if (1..=MAX_FREEZE_MS).contains(&ms) => Ok(Duration::from_millis(ms)),
        Some(_) => Err(invalid(format!(
            "`max_ms` of frozen file systems must be 1 to {MAX_FREEZE_MS}"
        ))),
    }
}

fn wait(name: &str, ms: Option<u64>, default: Duration) -> Result<Duration, ErrorReply> {
    match ms {
        None => Ok(default),
        Some(ms) if (1..=MAX_MACHINE_WAIT_MS).contains(&ms) => Ok(Duration::from_millis(ms)),
        Some(_) => Err(invalid(format!(
            "`{name}` must be 1 to {MAX_MACHINE_WAIT_MS}"
        ))),
    }
}
