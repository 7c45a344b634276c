//! A machine that stands still: its processes do not run, and nothing writes to its disks.
//!
//! One thread decides and one freezes the disks, so that the first can always let the
//! processes go on, also when the disks make it wait: what serves a disk (FUSE, NBD) may be a
//! process that stands still.
//!
//! The processes stop first. A control group stops them where they would go back to their own
//! code, so that none holds what freezing a disk waits for, and none is stuck in a write.

use std::fmt::Debug;
use std::io;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use pyro_protocol::guest::Processes as Fate;
use tokio::sync::oneshot;

use super::disks::{Disk, Stopped};

/// Stack of each thread: they make system calls and little else.
const STACK: usize = 128 * 1024;

/// How long processes may take until they stand still: a busy one takes no longer than its
/// next turn on a processor. What waits for something that does not come takes longer.
const STOP_WITHIN: Duration = Duration::from_millis(500);

/// How long processes stand still for disks that do not freeze or thaw.
const STALL: Duration = Duration::from_secs(2);

/// The processes of a machine, apart from the agent. Dropping it lets them go on.
pub trait Processes: Debug + Send {
    /// Stops them all, and waits for that at most so long. No parent is told, and nobody
    /// new escapes.
    fn stop(&mut self, within: Duration) -> Fate;

    /// Lets go on what [`Processes::stop`] stopped.
    fn go_on(&mut self);
}

/// Processes that cannot be stopped.
#[derive(Debug)]
pub(super) struct Unstoppable;

impl Processes for Unstoppable {
    fn stop(&mut self, _within: Duration) -> Fate {
        Fate::Running
    }

    fn go_on(&mut self) {}
}

/// What stands still, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) frozen: usize,
    pub(super) written_back: usize,
    pub(super) processes: Fate,
}

/// What to let go, and whom to tell.
#[derive(Debug)]
pub(super) enum Order {
    /// The disks alone.
    Disks(Told),
    /// Everything. The last one.
    Everything(Told),
}

type Told = oneshot::Sender<io::Result<()>>;

/// Has `disks`, in this order, and `processes` stand still until `until` or an order, on a
/// thread of its own. `tell` gets the outcome; whoever dropped its other end is not waited
/// for. `ends` is dropped when everything goes on.
pub(super) fn hold(
    disks: Vec<Box<dyn Disk>>,
    processes: Box<dyn Processes>,
    until: Instant,
    tell: oneshot::Sender<io::Result<Count>>,
    orders: mpsc::Receiver<Order>,
    ends: oneshot::Sender<()>,
) -> io::Result<()> {
    thread("freezer", move || {
        let outcome = FrozenDisks::start(disks).map(|disks| {
            let still = Still {
                disks,
                processes,
                until,
            };
            still.run(tell, &orders);
        });
        // Then `tell` is gone, which is told as well.
        drop((outcome, ends));
    })
}

struct Still {
    disks: FrozenDisks,
    processes: Box<dyn Processes>,
    until: Instant,
}

impl Still {
    fn run(mut self, tell: oneshot::Sender<io::Result<Count>>, orders: &mpsc::Receiver<Order>) {
        let mut last = None;
        let is_still = if let Some(outcome) = self.stop() {
            let is_still = outcome.is_ok();
            tell.send(outcome).is_ok() && is_still
        } else {
            drop(tell);
            false
        };
        while is_still && last.is_none() {
            match orders.recv_timeout(self.left()) {
                Ok(Order::Disks(told)) => {
                    let _ = told.send(self.thaw());
                }
                Ok(Order::Everything(told)) => last = Some(told),
                Err(_) => break,
            }
        }
        // First: a disk may thaw no sooner.
        self.processes.go_on();
        let outcome = self.thaw();
        if let Some(told) = last {
            // Nobody waits for a thaw that comes before the power goes.
            let _ = told.send(outcome);
        }
    }

    /// `None`: it had to end before it was done.
    fn stop(&mut self) -> Option<io::Result<Count>> {
        let mut fate = self.processes.stop(STOP_WITHIN.min(self.left()));
        self.disks.freeze();
        let frozen = match self.disks.frozen.recv_timeout(STALL.min(self.left())) {
            Ok(frozen) => frozen,
            Err(RecvTimeoutError::Disconnected) => return None,
            Err(RecvTimeoutError::Timeout) => {
                self.processes.go_on();
                let frozen = self.disks.frozen.recv_timeout(self.left()).ok()?;
                if frozen.is_ok() {
                    fate = self.processes.stop(STOP_WITHIN.min(self.left()));
                }
                frozen
            }
        };
        Some(frozen.map(|(frozen, written_back)| Count {
            frozen,
            written_back,
            processes: fate,
        }))
    }

    fn thaw(&mut self) -> io::Result<()> {
        self.disks.thaw();
        match self.disks.thawed.recv_timeout(STALL) {
            Ok(outcome) => outcome,
            Err(RecvTimeoutError::Timeout) => {
                self.processes.go_on();
                self.disks.thawed.recv().unwrap_or(Ok(()))
            }
            // They were thawed before.
            Err(RecvTimeoutError::Disconnected) => Ok(()),
        }
    }

    fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }
}

/// The thread that freezes disks, holds them and thaws them.
struct FrozenDisks {
    /// Told twice: to freeze, then to thaw. Dropped, it is told to thaw.
    turns: Option<mpsc::Sender<()>>,
    /// How many were frozen, and how many only written back.
    frozen: mpsc::Receiver<io::Result<(usize, usize)>>,
    thawed: mpsc::Receiver<io::Result<()>>,
}

impl FrozenDisks {
    fn start(disks: Vec<Box<dyn Disk>>) -> io::Result<Self> {
        let (turns, turn) = mpsc::channel();
        let (tell_frozen, frozen) = mpsc::channel();
        let (tell_thawed, thawed) = mpsc::channel();
        thread("disks", move || {
            if turn.recv().is_err() {
                return;
            }
            let (held, outcome) = freeze_all(&disks);
            let is_frozen = outcome.is_ok();
            if tell_frozen.send(outcome).is_ok() && is_frozen {
                let _ = turn.recv();
            }
            let _ = tell_thawed.send(thaw_all(&held));
        })?;
        Ok(Self {
            turns: Some(turns),
            frozen,
            thawed,
        })
    }

    fn freeze(&self) {
        if let Some(turns) = &self.turns {
            let _ = turns.send(());
        }
    }

    fn thaw(&mut self) {
        self.turns.take();
    }
}

/// What was frozen, also where not everything could be.
fn freeze_all(disks: &[Box<dyn Disk>]) -> (Vec<&dyn Disk>, io::Result<(usize, usize)>) {
    let mut frozen = Vec::new();
    let mut written_back = 0;
    for disk in disks {
        match disk.freeze() {
            Ok(Stopped::Frozen) => frozen.push(disk.as_ref()),
            Ok(Stopped::WrittenBack) => written_back += 1,
            Err(error) => return (frozen, Err(error)),
        }
    }
    if frozen.is_empty() {
        let error = io::Error::new(
            io::ErrorKind::Unsupported,
            "this machine has no disk that can be frozen",
        );
        return (frozen, Err(error));
    }
    let count = frozen.len();
    (frozen, Ok((count, written_back)))
}

/// Thaws all, the last one frozen first; the first error of them.
fn thaw_all(frozen: &[&dyn Disk]) -> io::Result<()> {
    let mut outcome = Ok(());
    for disk in frozen.iter().rev() {
        outcome = outcome.and(disk.thaw());
    }
    outcome
}

fn thread(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new()
        .name(name.into())
        .stack_size(STACK)
        .spawn(run)
        .map(drop)
}
