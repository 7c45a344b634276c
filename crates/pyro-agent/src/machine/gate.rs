//! Whether the agent takes new work, and what is in flight.
//!
//! ```text
//! open ──quiesce──▶ at rest ──revive, or its deadline──▶ open
//!   └───────────────────┴──────power off──▶ closed for good
//! ```
//!
//! Work is every stream but those of the machine's own actions, which are served in every
//! state: they are what takes a machine to rest and back.

use std::cell::Cell;
use std::rc::Rc;

use pyro_protocol::code::{ErrorCode, ErrorReply};
use tokio::sync::Notify;
use tokio::time::Instant;

/// The gate of one agent. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Gate(Rc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Cell<State>,
    streams: Cell<usize>,
    work: Cell<usize>,
    /// Told whenever work ends.
    work_ended: Notify,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Open,
    AtRest {
        until: Instant,
    },
    ClosedForGood,
}

/// A stream that is being served.
#[derive(Debug)]
pub(crate) struct Served(Gate);

/// Work in flight.
#[derive(Debug)]
pub(crate) struct Working(Gate);

impl Gate {
    /// Counts a stream until the guard is dropped.
    pub(super) fn serve(&self) -> Served {
        self.0.streams.set(self.0.streams.get() + 1);
        Served(self.clone())
    }

    /// Lets work in, unless the gate is shut.
    pub(super) fn admit(&self) -> Result<Working, ErrorReply> {
        match self.0.state.get() {
            State::AtRest { until } if Instant::now() < until => {
                // A code that says: the same again may succeed.
                return Err(ErrorReply::new(
                    ErrorCode::Conflict,
                    "the machine is at rest for a snapshot and takes no new work",
                ));
            }
            State::ClosedForGood => {
                return Err(ErrorReply::new(
                    ErrorCode::FailedPrecondition,
                    "the machine is powering off",
                ));
            }
            State::Open | State::AtRest { .. } => {}
        }
        self.0.work.set(self.0.work.get() + 1);
        Ok(Working(self.clone()))
    }

    /// Takes no new work until then.
    pub(super) fn rest_until(&self, until: Instant) -> Result<(), ErrorReply> {
        if matches!(self.0.state.get(), State::ClosedForGood) {
            return Err(ErrorReply::new(
                ErrorCode::FailedPrecondition,
                "the machine is powering off",
            ));
        }
        self.0.state.set(State::AtRest { until });
        Ok(())
    }

    /// Takes work again, unless the machine is powering off.
    pub(super) fn open(&self) {
        if !matches!(self.0.state.get(), State::ClosedForGood) {
            self.0.state.set(State::Open);
        }
    }

    /// Takes no work any more.
    pub(super) fn close_for_good(&self) {
        self.0.state.set(State::ClosedForGood);
    }

    /// Waits until no work is in flight.
    pub(super) async fn drained(&self) {
        while self.work() > 0 {
            self.0.work_ended.notified().await;
        }
    }

    /// Streams with work.
    pub(super) fn work(&self) -> usize {
        self.0.work.get()
    }

    /// Streams being served.
    pub(super) fn streams(&self) -> usize {
        self.0.streams.get()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let streams = &self.0.0.streams;
        streams.set(streams.get() - 1);
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        let inner = &self.0.0;
        inner.work.set(inner.work.get() - 1);
        inner.work_ended.notify_waiters();
    }
}
