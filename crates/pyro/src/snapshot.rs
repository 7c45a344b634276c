//! Machines that stand still, are kept, and go on: pause, resume, snapshot, restore, fork.
//!
//! A snapshot is a directory with the memory, the devices and the disk of a machine. Machines
//! that go on from it share its memory until they write to it, and its disk's blocks where the
//! file system can. Its form is the business of the supervisor, who makes and opens it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use pyro_protocol::supervise::{
    ControlReply, ControlRequest, Expiry, Lease, MAX_LINE, MachineStatus, SnapshotMade, Start,
};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::absolute::absolute;
use crate::environment::EnvironmentOptions;
use crate::error::Error;
use crate::machine::{DEFAULT_TTL, Machine, MachineOptions};
use crate::{ProgressSink, Pyro};

/// Longest time for a supervisor to pause a machine, let it run on, or live on.
const PAUSE_DEADLINE: Duration = Duration::from_secs(45);

/// Longest time to be told how a machine is. A machine that is only being asked answers at once.
const STATUS_DEADLINE: Duration = Duration::from_secs(10);

/// Longest time for a snapshot: more than the supervisor gives itself for the largest machine on a slow disk.
const SNAPSHOT_DEADLINE: Duration = Duration::from_hours(2);

/// Most children of one fork.
pub const MAX_CHILDREN: usize = 64;

/// Children that are started at a time: more only wait for each other.
pub(crate) const STARTS_AT_A_TIME: usize = 4;

/// How a machine is forked.
#[derive(Clone, Debug)]
pub struct ForkOptions {
    /// How many children, 1 to [`MAX_CHILDREN`].
    pub count: usize,
    /// What becomes of the others if one does not start.
    pub mode: ForkMode,
    /// Each child ends after this time.
    pub ttl: Duration,
    /// Whether the children end with this process.
    pub lease: Lease,
}

impl Default for ForkOptions {
    fn default() -> Self {
        let machine = MachineOptions::default();
        Self {
            count: 1,
            mode: ForkMode::AllOrNothing,
            ttl: DEFAULT_TTL,
            lease: machine.lease,
        }
    }
}

/// What becomes of the other children if one does not start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForkMode {
    /// They are ended, and the fork fails.
    AllOrNothing,
    /// They are there, and the fork tells of each.
    EachByItself,
}

/// The children of a fork.
#[derive(Debug)]
pub struct Forked {
    /// Each child that is ready, or why it is not.
    pub children: Vec<Result<Machine, Error>>,
    /// How long the source stood still, in milliseconds.
    pub paused_ms: u64,
}

impl Machine {
    /// Lets the guest stand still. Time stands still in it, too, until [`Machine::resume`].
    /// A machine that is paused still expires.
    pub async fn pause(&mut self) -> Result<(), Error> {
        self.control(&ControlRequest::Pause, PAUSE_DEADLINE)
            .await
            .map(drop)
    }

    /// Lets a paused guest run on, and sets its clock.
    pub async fn resume(&mut self) -> Result<(), Error> {
        self.control(&ControlRequest::Resume, PAUSE_DEADLINE)
            .await
            .map(drop)
    }

    /// Makes a snapshot in `directory`, which must not exist, below a directory that only this
    /// user can open. The machine runs on; one that is paused stays so. When this returns, the
    /// snapshot is on the disk; when it fails, nothing of it is left.
    pub async fn snapshot(&mut self, directory: &Path) -> Result<SnapshotMade, Error> {
        self.capture(directory, false).await
    }

    /// Lets the machine live on without this process, until it is stopped or its time is up.
    pub async fn detach(&mut self) -> Result<(), Error> {
        self.control(&ControlRequest::Detach, PAUSE_DEADLINE)
            .await
            .map(drop)
    }

    /// Copies the disk that the guest writes to, without the machine's memory, to the file `to`, which must not exist. A
    /// machine booted from the copy has nothing to recover. The machine runs on; one that is paused stays so. When this
    /// returns, the copy is on the host's disk; when it fails, nothing of it is left.
    pub async fn copy_disk(&mut self, to: &Path) -> Result<SnapshotMade, Error> {
        let to = absolute(to)?;
        let request = ControlRequest::CopyDisk { to };
        match self.control(&request, SNAPSHOT_DEADLINE).await? {
            ControlReply::Snapshot(made) => Ok(made),
            other => Err(answered_with("a copy of the disk", &other)),
        }
    }

    /// How the machine is. It is told also while the machine is busy, and is no use of it.
    pub async fn status(&mut self) -> Result<MachineStatus, Error> {
        let reply = self.control(&ControlRequest::Status, STATUS_DEADLINE).await;
        match reply? {
            ControlReply::Status(status) => Ok(status),
            other => Err(answered_with("a question for the status", &other)),
        }
    }

    /// Lets the machine end by itself at another time.
    pub async fn set_expiry(&mut self, expiry: Expiry) -> Result<(), Error> {
        let request = ControlRequest::SetExpiry { expiry };
        self.control(&request, PAUSE_DEADLINE).await.map(drop)
    }

    async fn capture(&mut self, directory: &Path, passing: bool) -> Result<SnapshotMade, Error> {
        let directory = absolute(directory)?;
        let request = ControlRequest::Snapshot { directory, passing };
        match self.control(&request, SNAPSHOT_DEADLINE).await? {
            ControlReply::Snapshot(made) => Ok(made),
            other => Err(answered_with("a snapshot", &other)),
        }
    }

    async fn control(
        &mut self,
        request: &ControlRequest,
        deadline: Duration,
    ) -> Result<ControlReply, Error> {
        let socket = match self.ready() {
            Some(ready) => ready.control_socket.clone(),
            None => {
                return Err(Error::Ended {
                    why: "it is not ready",
                });
            }
        };
        let answered = timeout(deadline, exchange(&socket, request)).await;
        match answered {
            Ok(Ok(ControlReply::Refused(failure))) => Err(Error::Machine(Box::new(failure))),
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(error)) => Err(self.why_ended(Error::unreachable(&error)).await),
            Err(_) => Err(Error::Supervisor {
                reason: format!("it did not answer within {} s", deadline.as_secs()),
            }),
        }
    }
}

fn answered_with(asked: &str, reply: &ControlReply) -> Error {
    Error::Supervisor {
        reason: format!("it answered {asked} with {reply:?}"),
    }
}

pub(crate) async fn exchange(
    socket: &Path,
    request: &ControlRequest,
) -> std::io::Result<ControlReply> {
    let mut stream = UnixStream::connect(socket).await?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    let mut answer = Vec::new();
    let limit = u64::try_from(MAX_LINE).unwrap_or(u64::MAX);
    BufReader::new(stream)
        .take(limit)
        .read_until(b'\n', &mut answer)
        .await?;
    // The end of the machine comes as another line; the owner channel tells it better.
    Ok(serde_json::from_slice(&answer)?)
}

impl Pyro {
    /// Orders a machine that goes on from the snapshot in `directory`, which must be one of
    /// `environment` with the same options. With `or_boot`, a snapshot that does not fit here
    /// any more, as after an update of the engine, is booted from its disk instead.
    pub async fn restore_machine(
        &self,
        environment: &str,
        directory: &Path,
        or_boot: bool,
        options: &MachineOptions,
        progress: &ProgressSink,
    ) -> Result<Machine, Error> {
        options.check()?;
        self.reconcile().await;
        let environment = self
            .ready_environment(environment, EnvironmentOptions::default(), progress)
            .await?;
        let directory = absolute(directory)?;
        let start = Start::Snapshot { directory, or_boot };
        Machine::begin(self, &environment, start, options)
    }

    /// Makes children of a running machine: each goes on from where the machine is now, with
    /// names, random numbers and a time to live of its own. The machine stands still only while
    /// it is captured. Jobs, shells and services go on in every child; commands whose caller
    /// was connected end there.
    pub async fn fork(&self, source: &mut Machine, options: &ForkOptions) -> Result<Forked, Error> {
        if !(1..=MAX_CHILDREN).contains(&options.count) {
            return Err(Error::invalid(
                format!("{} children are not possible", options.count),
                format!("ask for 1 to {MAX_CHILDREN}"),
            ));
        }
        let Some((environment, machine_options)) = source.runs.clone() else {
            return Err(Error::invalid(
                "only a machine that runs an environment can be forked",
                "fork another machine",
            ));
        };
        // In the machine's own directory: it goes with it, whatever happens to us.
        let directory = self
            .settings()
            .home
            .machines()
            .join(source.id())
            .join(format!("fork-{}", crate::machine::new_id()));
        let made = source.capture(&directory, true).await?;
        let child_options = MachineOptions {
            expiry: Expiry::at_age(options.ttl),
            // Until all are there they end with us.
            lease: Lease::Owner,
            // There is one machine to a disk.
            keep: None,
            ..machine_options
        };
        let snapshot = Parent {
            pyro: self,
            environment,
            directory,
            options: child_options,
        };
        let mut children = Vec::new();
        for first in (0..options.count).step_by(STARTS_AT_A_TIME) {
            let count = STARTS_AT_A_TIME.min(options.count - first);
            let batch = futures_util::future::join_all((0..count).map(|_| snapshot.child())).await;
            children.extend(batch);
            let failed = children.iter().any(Result::is_err);
            if failed && options.mode == ForkMode::AllOrNothing {
                break;
            }
        }
        // It goes with the source: children that do not find it have failed for the source's reason.
        let is_lost = !snapshot.directory.is_dir();
        // Whoever goes on from it has its files open.
        let _ = std::fs::remove_dir_all(&snapshot.directory);
        if is_lost {
            for child in &mut children {
                if let Err(error) = child {
                    let unexplained = Error::unreachable(error);
                    *error = source.why_ended(unexplained).await;
                }
            }
        }
        let whole = options.mode == ForkMode::EachByItself || children.iter().all(Result::is_ok);
        if whole && options.lease == Lease::Detached {
            for child in &mut children {
                if let Ok(machine) = child
                    && let Err(error) = machine.detach().await
                {
                    *child = Err(error);
                }
            }
        }
        if options.mode == ForkMode::AllOrNothing
            && let Some(at) = children.iter().position(Result::is_err)
        {
            let failed = children.swap_remove(at);
            let ends = children
                .into_iter()
                .flatten()
                .map(|child| child.stop(false));
            // They are thrown away; their supervisors clean up even if this cannot be waited for.
            let _ = futures_util::future::join_all(ends).await;
            return Err(failed.expect_err("it was found as one that failed"));
        }
        Ok(Forked {
            children,
            paused_ms: made.paused_ms,
        })
    }
}

/// What children are made of.
struct Parent<'a> {
    pyro: &'a Pyro,
    environment: crate::environment::ReadyEnvironment,
    directory: PathBuf,
    options: MachineOptions,
}

impl Parent<'_> {
    async fn child(&self) -> Result<Machine, Error> {
        let start = Start::Snapshot {
            directory: self.directory.clone(),
            or_boot: false,
        };
        let mut child = Machine::begin(self.pyro, &self.environment, start, &self.options)?;
        child.wait_ready(|_| {}).await?;
        Ok(child)
    }
}
