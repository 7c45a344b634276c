//! A machine, seen from the client: ordered, awaited, used, stopped.
//!
//! Owns the client's end of the owner channel. While a machine with [`Lease::Owner`] has
//! this value it lives; when the value is dropped, or this process dies, the supervisor ends
//! the machine and leaves nothing.

use std::path::PathBuf;
use std::time::Duration;

use pyro_protocol::supervise::{
    ControlRequest, EndReason, Event, Expiry, Failure, Lease, MAX_LINE, MachineOrder, Ready, Role,
    Start,
};
use rustix::fs::{FlockOperation, flock};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::Child;
use tokio::time::timeout;

use crate::Pyro;
use crate::absolute::absolute;
use crate::agent_socket;
use crate::boot_files::BootFiles;
use crate::environment::{EnvironmentOptions, ReadyEnvironment, defaults};
use crate::error::Error;
use crate::exec::{Call, Exec, ExecOptions};
use crate::supervisor;

/// How old a machine becomes if nothing else is asked for.
pub(crate) const DEFAULT_TTL: Duration = Duration::from_mins(10);

/// Longest time from the VMM's start to the agent's hello.
const BOOT_DEADLINE: Duration = Duration::from_secs(30);

/// Size of the disk for what the guest writes, MiB. It is sparse.
const UPPER_MIB: u32 = 8 * 1024;

/// Longest time for a supervisor to clean up after it was asked to.
const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// Longest time for a supervisor to tell why a stream broke. Above its own heartbeat.
const REASON_DEADLINE: Duration = Duration::from_secs(20);

/// How a machine is made, apart from what it runs.
#[derive(Clone, Debug)]
pub struct MachineOptions {
    /// Virtual processors, 1 to 8.
    pub vcpu_count: u8,
    /// Memory in MiB, 256 to 32768.
    pub mem_mib: u32,
    /// The most that the guest reads and writes on each of its two disks, the image and what it
    /// writes itself, in MiB a second, 1 to 65536. No bound if absent.
    pub disk_mib_per_second: Option<u32>,
    /// Whether the guest gets a user-mode network card.
    pub network: bool,
    /// When the machine ends by itself.
    pub expiry: Expiry,
    /// Whether the machine ends with this process.
    pub lease: Lease,
    /// Boot it, although a template of it may be there to go on from.
    pub cold: bool,
    /// The disk that is to outlive the machine, if one is.
    pub keep: Option<Keep>,
}

/// What outlives a machine.
#[derive(Clone, Debug)]
pub struct Keep {
    /// Where the disk lies that the guest writes to, in a directory that only this user can open.
    pub disk: PathBuf,
    /// What the disk begins as.
    pub from: DiskOrigin,
    /// The file in which the supervisor writes down the end of the machine, as a
    /// [`EndRecord`](crate::EndRecord) in JSON, when nothing else of it is left.
    pub end_record: Option<PathBuf>,
}

/// What a disk that is kept begins as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskOrigin {
    /// As any machine's; nothing may be there. It is there when the machine is ready.
    New,
    /// As it is. The machine is booted from it.
    There,
    /// As a copy of this disk, which no machine may be writing to; nothing may be there. The machine is booted from it.
    CopyOf(PathBuf),
}

impl Default for MachineOptions {
    fn default() -> Self {
        Self {
            vcpu_count: 1,
            mem_mib: 1024,
            disk_mib_per_second: None,
            network: false,
            expiry: Expiry::at_age(DEFAULT_TTL),
            lease: Lease::Owner,
            cold: false,
            keep: None,
        }
    }
}

impl MachineOptions {
    /// Checks the options before anything is made.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if !(1..=8).contains(&self.vcpu_count) {
            return Err(Error::invalid(
                format!("{} virtual processors are not possible", self.vcpu_count),
                "give 1 to 8 with `--vcpu-count`",
            ));
        }
        if !(256..=32_768).contains(&self.mem_mib) {
            return Err(Error::invalid(
                format!("{} MiB of memory are not possible", self.mem_mib),
                "give 256 to 32768 with `--mem-mib`: below that the guest kernel does not boot",
            ));
        }
        if let Some(rate) = self.disk_mib_per_second
            && !(1..=65_536).contains(&rate)
        {
            return Err(Error::invalid(
                format!("{rate} MiB a second are not possible for a disk"),
                "give 1 to 65536 with `--disk-mib-per-second`",
            ));
        }
        Ok(())
    }
}

/// A machine.
#[derive(Debug)]
pub struct Machine {
    id: String,
    /// What it runs, and how it was asked for. Keeps the environment in place until the
    /// supervisor has a hold of its own, and longer. A builder has none.
    pub(crate) runs: Option<(ReadyEnvironment, MachineOptions)>,
    supervisor: Child,
    events: BufReader<OwnedReadHalf>,
    line: Vec<u8>,
    requests: OwnedWriteHalf,
    ready: Option<Ready>,
    failure: Option<Box<Failure>>,
    ended: Option<EndReason>,
}

impl Pyro {
    /// Orders a machine that runs `environment`, making the environment if it is missing.
    /// Returns as soon as the supervisor has the order: see [`Machine::wait_ready`].
    pub async fn order_machine(
        &self,
        environment: &str,
        options: &MachineOptions,
        progress: &crate::ProgressSink,
    ) -> Result<Machine, Error> {
        options.check()?;
        self.reconcile().await;
        let environment = self
            .ready_environment(environment, EnvironmentOptions::default(), progress)
            .await?;
        Machine::of(self, &environment, options)
    }

    /// A start from a template; `anew`: from one that is made for it.
    pub(crate) fn warm(&self, environment: &ReadyEnvironment, anew: bool) -> Start {
        Start::Warm {
            templates_dir: self.settings().home.templates(),
            max_bytes: self.settings().max_template_bytes,
            environment: environment.name.clone(),
            anew,
        }
    }

    /// Clears away machines whose supervisor was killed, if there are any. Looking costs
    /// microseconds; a failure is left to `gc` and `doctor`.
    pub(crate) async fn reconcile(&self) {
        if self.has_dead_machines() {
            let _ = supervisor::sweep(self.settings(), false).await;
        }
    }

    fn has_dead_machines(&self) -> bool {
        let Ok(entries) = std::fs::read_dir(self.settings().home.machines()) else {
            return false;
        };
        entries.flatten().any(|entry| {
            let lock = entry.path().join(pyro_protocol::supervise::LOCK_FILE);
            match std::fs::File::open(lock) {
                // Shared, so that two looks do not take each other for a live supervisor.
                Ok(lock) => flock(&lock, FlockOperation::NonBlockingLockShared).is_ok(),
                // Killed at its birth; the sweep knows how young is too young to tell.
                Err(error) => error.kind() == std::io::ErrorKind::NotFound,
            }
        })
    }
}

impl Machine {
    pub(crate) fn of(
        pyro: &Pyro,
        environment: &ReadyEnvironment,
        options: &MachineOptions,
    ) -> Result<Self, Error> {
        let start = match options.keep.as_ref().map(|keep| &keep.from) {
            Some(DiskOrigin::There) => Start::KeptDisk,
            Some(DiskOrigin::CopyOf(disk)) => Start::CopyOfDisk {
                disk: absolute(disk)?,
            },
            Some(DiskOrigin::New) | None if options.cold => Start::Cold,
            Some(DiskOrigin::New) | None => pyro.warm(environment, false),
        };
        Self::begin(pyro, environment, start, options)
    }

    /// Orders a machine that runs `environment` and begins with `start`.
    pub(crate) fn begin(
        pyro: &Pyro,
        environment: &ReadyEnvironment,
        start: Start,
        options: &MachineOptions,
    ) -> Result<Self, Error> {
        Self::begin_as(new_id(), pyro, environment, start, options)
    }

    /// As [`Machine::begin`], under an id that somebody has written down before.
    pub(crate) fn begin_as(
        id: String,
        pyro: &Pyro,
        environment: &ReadyEnvironment,
        start: Start,
        options: &MachineOptions,
    ) -> Result<Self, Error> {
        let role = Role::Environment {
            root_image: environment.rootfs.clone(),
            root_digest: environment.root_digest.to_string(),
            kernel_digest: environment.boot.kernel_digest.to_string(),
            upper_mib: UPPER_MIB,
            use_lock: environment.hold.path().to_owned(),
        };
        let boot = environment.boot.clone();
        let mut machine = Self::order_as(id, pyro, role, start, boot, options)?;
        machine.runs = Some((environment.clone(), options.clone()));
        Ok(machine)
    }

    pub(crate) fn order(
        pyro: &Pyro,
        role: Role,
        start: Start,
        boot: BootFiles,
        options: &MachineOptions,
    ) -> Result<Self, Error> {
        Self::order_as(new_id(), pyro, role, start, boot, options)
    }

    fn order_as(
        id: String,
        pyro: &Pyro,
        role: Role,
        start: Start,
        boot: BootFiles,
        options: &MachineOptions,
    ) -> Result<Self, Error> {
        options.check()?;
        let settings = pyro.settings();
        let keep = options.keep.as_ref();
        let kept_disk = keep.map(|keep| absolute(&keep.disk)).transpose()?;
        let end_record = keep
            .and_then(|keep| keep.end_record.as_deref())
            .map(absolute)
            .transpose()?;
        let order = MachineOrder {
            id,
            engine: settings.engine,
            qemu: settings.qemu.clone(),
            firecracker: settings.firecracker.clone(),
            firecracker_installed: settings.home.installed_firecracker(),
            search_path: settings.search_path.clone(),
            vcpu_count: options.vcpu_count,
            mem_mib: options.mem_mib,
            disk_mib_per_second: options.disk_mib_per_second,
            kernel: boot.kernel,
            initramfs: boot.initramfs,
            role,
            start,
            network: options.network,
            kept_disk,
            end_record,
            expiry: options.expiry,
            boot_deadline_ms: u64::try_from(BOOT_DEADLINE.as_millis()).unwrap_or(u64::MAX),
            lease: options.lease,
            machines_dir: settings.home.machines(),
            runtime_dir: settings.home.runtime.clone(),
            logs_dir: settings.home.logs(),
            probe_cache: settings.home.probe_cache(),
            blank_dir: settings.home.blank_disks(),
        };
        let broken = |error: std::io::Error| Error::Supervisor {
            reason: error.to_string(),
        };
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(broken)?;
        ours.set_nonblocking(true).map_err(broken)?;
        let mut line = serde_json::to_vec(&order).map_err(|error| broken(error.into()))?;
        line.push(b'\n');
        // Fits into the socket's buffer: an order is some hundreds of bytes.
        std::io::Write::write_all(&mut &ours, &line).map_err(broken)?;
        let supervisor = supervisor::start(settings, theirs.into())?;
        let (events, requests) = UnixStream::from_std(ours).map_err(broken)?.into_split();
        Ok(Self {
            id: order.id,
            runs: None,
            supervisor,
            events: BufReader::new(events),
            line: Vec::new(),
            requests,
            ready: None,
            failure: None,
            ended: None,
        })
    }

    /// The machine's id: 12 lowercase hexadecimal digits.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What the supervisor told of the ready machine; `None` before.
    pub fn ready(&self) -> Option<&Ready> {
        self.ready.as_ref()
    }

    /// Waits until the machine is ready; `on_phase` hears the stages of its start. May be
    /// dropped and called again.
    pub async fn wait_ready(&mut self, mut on_phase: impl FnMut(&str)) -> Result<&Ready, Error> {
        while let Some(phase) = self.next_phase().await? {
            on_phase(&phase);
        }
        self.ready.as_ref().ok_or(Error::Ended {
            why: "it never became ready",
        })
    }

    /// The next stage of the start; `None` when the machine is ready. Cancel-safe.
    pub(crate) async fn next_phase(&mut self) -> Result<Option<String>, Error> {
        while self.ready.is_none() {
            if let Some(reason) = self.ended {
                return Err(self.end_error(reason));
            }
            match self.next_event().await? {
                Event::Phase { phase } => return Ok(Some(phase)),
                Event::Ready(_) | Event::Failed(_) | Event::Ended { .. } => {}
            }
        }
        Ok(None)
    }

    /// Starts a command. What the options leave open is as the environment's image says.
    pub async fn exec(&mut self, options: &ExecOptions) -> Result<Exec, Error> {
        let options = match &self.runs {
            Some((environment, _)) => &defaults::apply(&environment.defaults, options),
            None => options,
        };
        let request = options.request()?;
        let call = match self.call(&request).await {
            Ok(call) => call,
            Err(error @ Error::Guest(_)) => return Err(error),
            Err(error) => return Err(self.why_ended(error).await),
        };
        Ok(Exec::new(call, options))
    }

    /// Waits for the end of the machine and tells its reason.
    pub async fn wait_end(&mut self) -> Result<EndReason, Error> {
        loop {
            if let Some(reason) = self.ended {
                return Ok(reason);
            }
            self.next_event().await?;
        }
    }

    /// The reason for which a stream to the machine broke: the machine's failure if it has
    /// one, else `error`.
    pub async fn why_ended(&mut self, error: Error) -> Error {
        match timeout(REASON_DEADLINE, self.wait_end()).await {
            Ok(Ok(reason)) => self.end_error(reason),
            Ok(Err(better)) => better,
            Err(_) => error,
        }
    }

    /// Ends the machine and waits until nothing of it is left. `orderly` lets the guest write
    /// back and power off; otherwise it is cut, which is quicker.
    pub async fn stop(mut self, orderly: bool) -> Result<EndReason, Error> {
        let request = ControlRequest::Stop { orderly };
        let mut line = serde_json::to_vec(&request).map_err(|error| Error::unreachable(&error))?;
        line.push(b'\n');
        // A supervisor that is gone already has told its end before.
        let _ = self.requests.write_all(&line).await;
        let reason =
            timeout(STOP_DEADLINE, self.wait_end())
                .await
                .map_err(|_| Error::Supervisor {
                    reason: "it did not end the machine".into(),
                })?;
        // Told just before its exit; reaping it keeps this process free of zombies.
        let _ = timeout(STOP_DEADLINE, self.supervisor.wait()).await;
        match (reason, self.failure.take()) {
            (_, Some(failure)) => Err(Error::Machine(failure)),
            (reason, None) => reason,
        }
    }

    pub(crate) async fn call(&mut self, request: &Value) -> Result<Call, Error> {
        let socket = match &self.ready {
            Some(ready) => ready.agent_socket.clone(),
            None => {
                return Err(Error::Ended {
                    why: "it is not ready",
                });
            }
        };
        agent_socket::call(&socket, request).await
    }

    /// The agent's answer to a request that it answers with one line.
    pub(crate) async fn ask(&mut self, request: &Value) -> Result<Value, Error> {
        match self.call(request).await {
            Ok(call) => Ok(call.into_header()),
            Err(error @ Error::Guest(_)) => Err(error),
            Err(error) => Err(self.why_ended(error).await),
        }
    }

    async fn next_event(&mut self) -> Result<Event, Error> {
        let limit = u64::try_from(MAX_LINE).unwrap_or(u64::MAX);
        let read = (&mut self.events)
            .take(limit)
            .read_until(b'\n', &mut self.line)
            .await;
        let line = std::mem::take(&mut self.line);
        if !matches!(read, Ok(count) if count > 0) {
            return Err(self.supervisor_died().await);
        }
        let event: Event = serde_json::from_slice(&line).map_err(|error| Error::Supervisor {
            reason: format!("it said something else: {error}"),
        })?;
        match &event {
            Event::Phase { .. } => {}
            Event::Ready(ready) => self.ready = Some(ready.clone()),
            Event::Failed(failure) => self.failure = Some(Box::new(self.named(failure.clone()))),
            Event::Ended { reason } => self.ended = Some(*reason),
        }
        Ok(event)
    }

    /// A supervisor does not know the environment's name; its hints leave a place for it.
    fn named(&self, failure: Failure) -> Failure {
        let hint = match &self.runs {
            Some((environment, _)) => failure
                .hint
                .map(|hint| hint.replace("ENVIRONMENT", &environment.name)),
            None => failure.hint,
        };
        Failure { hint, ..failure }
    }

    async fn supervisor_died(&mut self) -> Error {
        let status = timeout(STOP_DEADLINE, self.supervisor.wait()).await;
        let how = match status {
            Ok(Ok(status)) => status.to_string(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it closed its channel and did not end".into(),
        };
        Error::Supervisor {
            reason: format!("it ended without a word ({how})"),
        }
    }

    /// Whoever asks again is told the same.
    fn end_error(&self, reason: EndReason) -> Error {
        match (self.failure.clone(), reason) {
            (Some(failure), _) => Error::Machine(failure),
            (None, EndReason::Expired) => Error::Expired,
            (None, EndReason::Stopped) => Error::Ended {
                why: "somebody stopped it",
            },
            (None, EndReason::OwnerGone) => Error::Ended {
                why: "its owner left",
            },
            (None, EndReason::PoweredOff) => Error::Ended {
                why: "the guest powered itself off",
            },
            (None, EndReason::Failed) => Error::Ended {
                why: "it failed without a reason",
            },
        }
    }
}

/// 48 random bits as 12 hexadecimal digits.
pub(crate) fn new_id() -> String {
    // The standard library's hash keys come from the system's random source.
    use std::hash::{BuildHasher, Hasher, RandomState};
    let random = RandomState::new().build_hasher().finish();
    format!("{:012x}", random >> 16)
}
