//! Whether the machine stands still, for those in the agent who would move: who lets it, and
//! who waits for it.
//!
//! ```text
//! moves ──freeze──▶ stands still ──thaw, power off, time limit──▶ moves
//!                        └──revive: disks, names──▶ processes ──▶ moves
//! ```
//!
//! Threads of their own hold it (`still`), so that neither a write that waits on a frozen
//! disk, in whatever thread of this process, nor a host that died can leave the machine
//! frozen. Whoever writes to a disk from the agent's one thread must wait for
//! [`Freezer::thawed`] before: a write to a frozen disk cannot be called off. So must whoever
//! starts a process: it would be stopped before it is the program that it is to be, and with
//! it the agent, which waits for that.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::mpsc;

use pyro_protocol::code::{ErrorCode, ErrorReply};
use tokio::sync::{oneshot, watch};
use tokio::time::timeout_at;

use super::disks::Disk;
use super::still::{self, Count, Order, Processes};

/// The stillness of one agent's machine. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Freezer(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    still: watch::Sender<bool>,
    /// What the thread that holds listens to, once it holds something.
    orders: RefCell<Option<mpsc::Sender<Order>>>,
}

/// From here on nothing of the agent writes or starts anything. Dropped when everything goes
/// on.
#[derive(Debug)]
pub(super) struct Freezing(Freezer);

/// The frozen disks, for another thread. See [`Freezer::disks`].
#[derive(Debug)]
pub(super) struct Disks(Option<mpsc::Sender<Order>>);

impl Freezer {
    pub(super) fn new() -> Self {
        Self(Rc::new(Inner {
            still: watch::Sender::new(false),
            orders: RefCell::default(),
        }))
    }

    /// Waits until disks can be written and processes run. To be asked in the same poll as the
    /// write or the start.
    pub(crate) async fn thawed(&self) {
        // The sender lives as long as this.
        let _ = self.0.still.subscribe().wait_for(|still| !still).await;
    }

    /// Fails while something stands still.
    pub(super) fn check(&self) -> Result<(), ErrorReply> {
        if *self.0.still.borrow() {
            return Err(ErrorReply::new(
                ErrorCode::Conflict,
                "the file systems are frozen",
            ));
        }
        Ok(())
    }

    /// Makes the agent's own writers and starters wait.
    pub(super) fn begin(&self) -> Result<Freezing, ErrorReply> {
        self.check()?;
        self.0.still.send_replace(true);
        Ok(Freezing(self.clone()))
    }

    /// Lets everything go on. `None`: nothing stood still.
    pub(super) async fn thaw(&self) -> Option<Result<(), ErrorReply>> {
        let told = self.let_go()?;
        // The thread that holds is gone when its time limit passed just now.
        let outcome = told.await.ok()?;
        self.thawed().await;
        Some(outcome.map_err(|error| reply("thawing", &error)))
    }

    /// As [`Freezer::thaw`], without waiting for it.
    pub(super) fn let_go(&self) -> Option<oneshot::Receiver<io::Result<()>>> {
        let (told, outcome) = oneshot::channel();
        let orders = self.0.orders.borrow_mut().take()?;
        orders.send(Order::Everything(told)).ok()?;
        Some(outcome)
    }

    /// What thaws the disks alone, while processes stand still.
    pub(super) fn disks(&self) -> Disks {
        Disks(self.0.orders.borrow().clone())
    }
}

impl Disks {
    /// Lets them be written again; whether they could not until now. Blocks.
    pub(super) fn thaw(self) -> Result<bool, ErrorReply> {
        let (told, outcome) = oneshot::channel();
        let Some(Ok(())) = self.0.map(|orders| orders.send(Order::Disks(told))) else {
            return Ok(false);
        };
        match outcome.blocking_recv() {
            Ok(outcome) => outcome
                .map(|()| true)
                .map_err(|error| reply("thawing", &error)),
            // The time limit passed just now.
            Err(_) => Ok(false),
        }
    }
}

impl Freezing {
    /// Has `processes` and `disks`, in this order, stand still until `until` at the latest.
    pub(super) async fn hold(
        self,
        disks: Vec<Box<dyn Disk>>,
        processes: Box<dyn Processes>,
        until: tokio::time::Instant,
    ) -> Result<Count, ErrorReply> {
        let (orders, listen) = mpsc::channel();
        let (tell, told) = oneshot::channel();
        let (ends, ended) = oneshot::channel::<()>();
        let freezer = self.0.clone();
        still::hold(disks, processes, until.into_std(), tell, listen, ends)
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
        self.0.0.still.send_replace(false);
    }
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
