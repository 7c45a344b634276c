//! Frozen file systems: who holds them, and who lets them go.
//!
//! ```text
//! thawed ──freeze──▶ freezing ──all of them──▶ frozen ──thaw, power off, time limit──▶ thawed
//!                       └────────── one that fails thaws those before ────────────────────┘
//! ```
//!
//! A thread of its own freezes, holds and thaws, so that neither a write that waits on a
//! frozen disk, in whatever thread of this process, nor a host that died can leave the
//! machine frozen. Whoever writes to a disk from the agent's one thread must wait for
//! [`Freezer::thawed`] before: a write to a frozen disk cannot be called off.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::mpsc;
use std::time::Instant;

use pyro_protocol::code::{ErrorCode, ErrorReply};
use tokio::sync::{oneshot, watch};
use tokio::time::timeout_at;

use super::disks::{Disk, Stopped};

/// Stack of the thread that holds: it makes system calls and nothing else.
const STACK: usize = 128 * 1024;

/// The frozen file systems of one agent, if there are some. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Freezer(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    frozen: watch::Sender<bool>,
    /// What the thread that holds listens to, once it holds something.
    orders: RefCell<Option<mpsc::Sender<Order>>>,
}

/// To thaw, and whom to tell.
type Order = oneshot::Sender<io::Result<()>>;

/// How many file systems were frozen, and how many only written back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) frozen: usize,
    pub(super) written_back: usize,
}

/// From here on nothing of the agent writes. Dropped when everything is thawed.
#[derive(Debug)]
pub(super) struct Freezing(Freezer);

impl Freezer {
    pub(super) fn new() -> Self {
        Self(Rc::new(Inner {
            frozen: watch::Sender::new(false),
            orders: RefCell::default(),
        }))
    }

    /// Waits until disks can be written. To be asked in the same poll as the write.
    pub(crate) async fn thawed(&self) {
        // The sender lives as long as this.
        let _ = self.0.frozen.subscribe().wait_for(|frozen| !frozen).await;
    }

    /// Fails while disks cannot be written.
    pub(super) fn check(&self) -> Result<(), ErrorReply> {
        if *self.0.frozen.borrow() {
            return Err(ErrorReply::new(
                ErrorCode::Conflict,
                "the file systems are frozen",
            ));
        }
        Ok(())
    }

    /// Makes the agent's own writers wait.
    pub(super) fn begin(&self) -> Result<Freezing, ErrorReply> {
        self.check()?;
        self.0.frozen.send_replace(true);
        Ok(Freezing(self.clone()))
    }

    /// Lets everything be written again. `None`: nothing was frozen.
    pub(super) async fn thaw(&self) -> Option<Result<(), ErrorReply>> {
        let told = self.order()?;
        // The thread that holds is gone when its time limit passed just now.
        let outcome = told.await.ok()?;
        self.thawed().await;
        Some(outcome.map_err(|error| reply("thawing", &error)))
    }

    /// As [`Freezer::thaw`], without waiting for it.
    pub(super) fn let_go(&self) {
        let _ = self.order();
    }

    fn order(&self) -> Option<oneshot::Receiver<io::Result<()>>> {
        let (order, told) = oneshot::channel();
        let orders = self.0.orders.borrow_mut().take()?;
        orders.send(order).ok()?;
        Some(told)
    }
}

impl Freezing {
    /// Freezes `disks` in this order and holds them until `until` at the latest.
    pub(super) async fn hold(
        self,
        disks: Vec<Box<dyn Disk>>,
        until: tokio::time::Instant,
    ) -> Result<Count, ErrorReply> {
        let (orders, listen) = mpsc::channel();
        let (tell, told) = oneshot::channel();
        let (ends, ended) = oneshot::channel::<()>();
        let limit = until.into_std();
        let freezer = self.0.clone();
        std::thread::Builder::new()
            .name("freezer".into())
            .stack_size(STACK)
            .spawn(move || {
                freeze_and_hold(&disks, limit, tell, &listen);
                drop(ends);
            })
            .map_err(|error| reply("starting a thread", &error))?;
        tokio::task::spawn_local(async move {
            let _ = ended.await;
            drop(self);
        });
        let count = match timeout_at(until, told).await {
            Ok(Ok(outcome)) => outcome.map_err(|error| reply("freezing", &error))?,
            // The thread thaws when it sees that nobody waits.
            Ok(Err(_)) | Err(_) => {
                return Err(ErrorReply::new(
                    ErrorCode::Timeout,
                    "freezing: not done before it had to end",
                ));
            }
        };
        *freezer.0.orders.borrow_mut() = Some(orders);
        Ok(count)
    }
}

impl Drop for Freezing {
    fn drop(&mut self) {
        self.0.0.orders.take();
        self.0.0.frozen.send_replace(false);
    }
}

/// The life of the thread that holds.
fn freeze_and_hold(
    disks: &[Box<dyn Disk>],
    until: Instant,
    tell: oneshot::Sender<io::Result<Count>>,
    orders: &mpsc::Receiver<Order>,
) {
    let (frozen, outcome) = freeze_all(disks);
    let is_frozen = outcome.is_ok();
    let is_told = tell.send(outcome).is_ok();
    let order = if is_frozen && is_told {
        let left = until.saturating_duration_since(Instant::now());
        orders.recv_timeout(left).ok()
    } else {
        None
    };
    let outcome = thaw_all(&frozen);
    if let Some(order) = order {
        // Nobody waits for a thaw that comes before the power goes.
        let _ = order.send(outcome);
    }
}

/// What was frozen, also where not everything could be.
fn freeze_all(disks: &[Box<dyn Disk>]) -> (Vec<&dyn Disk>, io::Result<Count>) {
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
    let count = Count {
        frozen: frozen.len(),
        written_back,
    };
    (frozen, Ok(count))
}

/// Thaws all, the last one frozen first; the first error of them.
fn thaw_all(frozen: &[&dyn Disk]) -> io::Result<()> {
    let mut outcome = Ok(());
    for disk in frozen.iter().rev() {
        outcome = outcome.and(disk.thaw());
    }
    outcome
}

fn reply(doing: &str, error: &io::Error) -> ErrorReply {
    let (code, why) = match error.kind() {
        io::ErrorKind::ResourceBusy => (
            ErrorCode::Conflict,
            "a file system is frozen already, by something in the machine".to_owned(),
        ),
        io::ErrorKind::InvalidInput => (
            ErrorCode::FailedPrecondition,
            "a file system was thawed already, by something in the machine".to_owned(),
        ),
        io::ErrorKind::Unsupported => (ErrorCode::FailedPrecondition, error.to_string()),
        _ => (ErrorCode::GuestError, error.to_string()),
    };
    ErrorReply::new(code, format!("{doing}: {why}"))
}
