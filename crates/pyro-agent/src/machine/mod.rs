//! The machine's own actions: what concerns the machine as a whole and no command in it.
//!
//! Owns the gate that takes a machine to rest and back (`gate`), its standing still (`freeze`:
//! who waits, `still`: who holds; `disks` and `cgroups`: what), the seam to what the agent changes about its machine (`settings`), metrics
//! and connections to ports. Everything
//! that may block runs beside the agent's one thread, a few at a time.

mod boot_id;
mod cgroups;
mod connect;
mod cover;
mod disks;
mod freeze;
mod gate;
mod identity;
mod ioctl;
mod metrics;
mod settings;
mod still;

use std::cell::Cell;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use pyro_protocol::code::{ErrorCode, ErrorReply};
use pyro_protocol::guest::{
    ClockSet, Done, Freeze, Frozen, Identity, Metrics, PowerOff, Processes as Fate, Quiesce,
    Quiesced, Reseeded, Revive, Revived, Seed, Sync, Synced, Thawed,
};
use pyro_protocol::request::Request;
use tokio::sync::{Notify, Semaphore};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout, timeout_at};

pub(crate) use connect::{connect, tcp as connect_tcp};
pub(crate) use disks::stop_disks;
pub use disks::{Disk, Stopped};
pub(crate) use freeze::Freezer;
use gate::Gate;
pub(crate) use gate::{Served, Working};
pub use settings::{Name, Settings};
pub(crate) use settings::{elsewhere, of_machine};
use still::Count;
pub use still::Processes;

/// Blocking jobs at a time, each on a thread of its own. More wait.
const BLOCKING_JOBS: usize = 4;

/// How long a short change to the machine may take: far above what the slowest does.
const CHANGE_DEADLINE: Duration = Duration::from_secs(10);

/// The machine that an agent serves in. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    settings: Arc<dyn Settings>,
    gate: Gate,
    freezer: Freezer,
    jobs: Arc<Semaphore>,
    power_off: Rc<PowerSwitch>,
}

#[derive(Debug, Default)]
struct PowerSwitch {
    end: Cell<Option<End>>,
    told: Notify,
}

/// How the machine is to end.
#[derive(Clone, Copy, Debug)]
pub struct End {
    /// When it must have ended.
    pub by: Instant,
    /// How long processes have between TERM and KILL, if `by` leaves the time.
    pub term: Duration,
}

impl Machine {
    /// A machine whose settings are reached through `settings`.
    pub(crate) fn with(settings: Arc<dyn Settings>) -> Self {
        Self {
            settings,
            gate: Gate::default(),
            freezer: Freezer::new(),
            jobs: Arc::new(Semaphore::new(BLOCKING_JOBS)),
            power_off: Rc::default(),
        }
    }

    /// Counts a stream until the guard is dropped.
    pub(crate) fn serve(&self) -> Served {
        self.gate.serve()
    }

    /// What whoever writes to the machine's disks has to ask before.
    pub(crate) fn freezer(&self) -> Freezer {
        self.freezer.clone()
    }

    /// Lets a request in. The guard counts it as work; the machine's own actions are none.
    pub(crate) fn admit(&self, request: &Request) -> Result<Option<Working>, ErrorReply> {
        if is_the_machines_own(request) {
            Ok(None)
        } else {
            self.gate.admit().map(Some)
        }
    }

    /// How the machine is doing.
    pub(crate) async fn metrics(&self) -> Result<Metrics, ErrorReply> {
        let streams = self.gate.streams();
        self.beside(CHANGE_DEADLINE, "reading the metrics", move |_| {
            Ok(metrics::read(Path::new("/proc"), streams))
        })
        .await
    }

    /// Sets the wall clock. Not on a thread of its own, which would take far longer than the
    /// two system calls: every start of a machine waits for this.
    pub(crate) fn set_clock(&self, unix_ns: u64) -> Result<Done<ClockSet>, ErrorReply> {
        let offset_ns = self.settings.set_clock(unix_ns).map_err(|error| {
            ErrorReply::new(code_of(&error), format!("setting the clock: {error}"))
        })?;
        Ok(Done::new(ClockSet { offset_ns }))
    }

    /// Mixes bytes of the host's into the entropy pool.
    pub(crate) async fn reseed(&self, seed: Seed) -> Result<Done<Reseeded>, ErrorReply> {
        self.beside(CHANGE_DEADLINE, "adding entropy", move |settings| {
            let seed = seed.as_bytes();
            let credited = settings.add_entropy(seed)?;
            let bytes = seed.len();
            Ok(Done::new(Reseeded { bytes, credited }))
        })
        .await
    }

    /// Renews the machine's names, which are on its disk.
    pub(crate) async fn set_identity(&self, identity: Identity) -> Result<Done<()>, ErrorReply> {
        self.freezer.check()?;
        self.beside(CHANGE_DEADLINE, "renewing the identity", move |settings| {
            identity::set(settings, &identity)?;
            if identity.machine_id.is_some() {
                identity::renew_boot_id(settings, &identity);
            }
            Ok(Done::new(()))
        })
        .await
    }

    /// Writes the root file system back.
    pub(crate) async fn sync(&self, order: Sync) -> Result<Done<Synced>, ErrorReply> {
        let start = Instant::now();
        self.sync_within(order.timeout).await?;
        let elapsed_ms = elapsed_ms(start);
        Ok(Done::new(Synced { elapsed_ms }))
    }

    /// Takes no new work, waits for what is in flight, writes the root file system back and
    /// freezes it if so ordered. A failure opens the gate again. `running` tells the jobs and
    /// the shells that run, which no stream holds.
    pub(crate) async fn quiesce(
        &self,
        order: Quiesce,
        running: impl FnOnce() -> (usize, usize, usize),
    ) -> Result<Done<Quiesced>, ErrorReply> {
        let start = Instant::now();
        let until = start + order.hold;
        if order.freeze {
            self.freezer.check()?;
        }
        self.gate.rest_until(until)?;
        // Work that goes on is no failure: the reply tells how much.
        let _ = timeout_at(start + order.drain, self.gate.drained()).await;
        let open_streams = self.gate.work();
        let (running_jobs, running_shells, running_services) = running();
        let stilled = async {
            let left = until.saturating_duration_since(Instant::now());
            self.sync_within(left).await?;
            if order.freeze {
                let count = self.freeze_until(until).await?;
                Ok((count.frozen, count.processes))
            } else {
                Ok((0, Fate::Running))
            }
        };
        match stilled.await {
            Ok((frozen, processes)) => Ok(Done::new(Quiesced {
                open_streams,
                running_jobs,
                running_shells,
                running_services,
                frozen,
                processes,
                elapsed_ms: elapsed_ms(start),
            })),
            Err(error) => {
                self.gate.open();
                Err(error)
            }
        }
    }

    /// Lets no process run and nothing write to a disk until the order's time is over.
    pub(crate) async fn freeze(&self, order: Freeze) -> Result<Done<Frozen>, ErrorReply> {
        let start = Instant::now();
        let count = self.freeze_until(start + order.hold).await?;
        Ok(Done::new(Frozen {
            frozen: count.frozen,
            written_back: count.written_back,
            processes: count.processes,
            elapsed_ms: elapsed_ms(start),
        }))
    }

    /// Lets processes run and disks be written again.
    pub(crate) async fn thaw(&self) -> Result<Done<Thawed>, ErrorReply> {
        let start = Instant::now();
        match self.freezer.thaw().await {
            Some(outcome) => outcome.map(|()| {
                let elapsed_ms = elapsed_ms(start);
                Done::new(Thawed { elapsed_ms })
            }),
            None => Err(ErrorReply::new(
                ErrorCode::FailedPrecondition,
                "no file systems are frozen; a freeze that was is past its time limit",
            )),
        }
    }

    /// Clock and entropy; then disks can be written, which the names after them may need; then
    /// processes go on, so that none draws a random number before; then work is taken again.
    /// After a failure the gate stays as it is: a machine that was to rest does so until its
    /// deadline, and so do its processes if it has not got the entropy that was to come.
    pub(crate) async fn revive(&self, order: Revive) -> Result<Done<Revived>, ErrorReply> {
        let is_seeded = order.seed.is_some();
        let disks = self.freezer.disks();
        let revived = self
            .beside(CHANGE_DEADLINE, "reviving the machine", move |settings| {
                let offset_ns = settings.set_clock(order.unix_ns)?;
                let credited = match &order.seed {
                    Some(seed) => Some(settings.add_entropy(seed.as_bytes())?),
                    None => None,
                };
                let rest = || {
                    let thawed = disks.thaw()?;
                    identity::set(settings, &order.identity)
                        .map_err(|error| failed("reviving the machine", &error))?;
                    if order.seed.is_some() || order.identity.machine_id.is_some() {
                        identity::renew_boot_id(settings, &order.identity);
                    }
                    Ok(thawed)
                };
                Ok(rest().map(|thawed| Revived {
                    offset_ns,
                    thawed,
                    credited,
                }))
            })
            .await;
        let revived = match revived {
            Err(error) if is_seeded => return Err(error),
            other => other,
        };
        let went_on = self.freezer.thaw().await.transpose();
        let revived = revived??;
        went_on?;
        self.gate.open();
        Ok(Done::new(revived))
    }

    /// Takes no more work and has the machine ended as ordered. Of several orders the
    /// shortest times count.
    pub(crate) fn order_power_off(&self, order: PowerOff) {
        self.gate.close_for_good();
        // What waits to write to a frozen disk could not be ended.
        let _ = self.freezer.let_go();
        let mut end = End {
            by: Instant::now() + order.deadline,
            term: order.term,
        };
        if let Some(before) = self.power_off.end.get() {
            end.by = end.by.min(before.by);
            end.term = end.term.min(before.term);
        }
        self.power_off.end.set(Some(end));
    }

    /// The order has been answered.
    pub(crate) fn tell_power_off(&self) {
        self.power_off.told.notify_one();
    }

    /// Waits for an order to power off that has been answered.
    pub(crate) async fn power_off_requested(&self) -> End {
        self.power_off.told.notified().await;
        self.power_off
            .end
            .get()
            .expect("an order is told after it was given")
    }

    async fn freeze_until(&self, until: Instant) -> Result<Count, ErrorReply> {
        let freezing = self.freezer.begin()?;
        // Before anything stands still that may have to answer.
        let (disks, processes) = self
            .beside(CHANGE_DEADLINE, "looking for disks", |settings| {
                Ok((settings.disks()?, settings.processes()))
            })
            .await?;
        freezing.hold(disks, processes, until).await
    }

    async fn sync_within(&self, limit: Duration) -> Result<(), ErrorReply> {
        self.beside(limit, "writing the root file system back", |settings| {
            settings.sync()
        })
        .await
    }

    /// Does `work` on a thread beside the agent's. After `limit` the reply no longer waits
    /// for it; the work itself cannot be called off and keeps its place among the jobs.
    async fn beside<T, F>(&self, limit: Duration, doing: &str, work: F) -> Result<T, ErrorReply>
    where
        T: Send + 'static,
        F: FnOnce(&dyn Settings) -> io::Result<T> + Send + 'static,
    {
        let jobs = Arc::clone(&self.jobs);
        let settings = Arc::clone(&self.settings);
        let done = async {
            let permit = jobs
                .acquire_owned()
                .await
                .expect("the semaphore is never closed");
            spawn_blocking(move || {
                let _permit = permit;
                work(settings.as_ref())
            })
            .await
        };
        match timeout(limit, done).await {
            Ok(Ok(Ok(outcome))) => Ok(outcome),
            Ok(Ok(Err(error))) => Err(failed(doing, &error)),
            Ok(Err(panicked)) => Err(ErrorReply::new(
                ErrorCode::Internal,
                format!("{doing}: {panicked}"),
            )),
            Err(_elapsed) => Err(ErrorReply::new(
                ErrorCode::Timeout,
                format!("{doing}: not done within {} ms", limit.as_millis()),
            )),
        }
    }
}

/// Whether a request is served in every state of the gate. What is not listed is work.
fn is_the_machines_own(request: &Request) -> bool {
    matches!(
        request,
        Request::Hello
            | Request::Ping { .. }
            | Request::Metrics
            | Request::SetClock { .. }
            | Request::ReseedEntropy(_)
            | Request::SetIdentity(_)
            | Request::Sync(_)
            | Request::Quiesce(_)
            | Request::Freeze(_)
            | Request::Thaw
            | Request::Revive(_)
            | Request::PowerOff(_)
    )
}

fn failed(doing: &str, error: &io::Error) -> ErrorReply {
    ErrorReply::new(code_of(error), format!("{doing}: {error}"))
}

fn code_of(error: &io::Error) -> ErrorCode {
    match error.kind() {
        io::ErrorKind::Unsupported => ErrorCode::FailedPrecondition,
        io::ErrorKind::StorageFull => ErrorCode::NoSpace,
        _ => ErrorCode::GuestError,
    }
}

fn elapsed_ms(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)
}
