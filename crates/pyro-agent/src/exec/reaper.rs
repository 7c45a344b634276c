//! Reaping: PID 1 inherits every orphan, so one task collects every dead child and tells
//! whoever waits for it.
//!
//! It waits for *any* child, therefore nothing else in this process may wait for one. A
//! child is registered in the same poll in which it is spawned, before this task can run.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use rustix::process::{Pid, WaitOptions, wait};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// With this code.
    Code(i32),
    /// Killed by this signal.
    Signal(i32),
}

/// Handle to the task that reaps. Clones share it.
#[derive(Clone, Debug)]
pub struct Reaper {
    waiting: Rc<RefCell<HashMap<Pid, oneshot::Sender<Exit>>>>,
}

impl Reaper {
    /// Starts the task on the current `LocalSet`.
    pub fn start() -> std::io::Result<Self> {
        let mut children = signal(SignalKind::child())?;
        let reaper = Self {
            waiting: Rc::default(),
        };
        let task = reaper.clone();
        tokio::task::spawn_local(async move {
            while children.recv().await.is_some() {
                task.collect();
            }
        });
        Ok(reaper)
    }

    /// Registers a child that was spawned in this very poll.
    pub(crate) fn watch(&self, pid: Pid) -> oneshot::Receiver<Exit> {
        let (sender, receiver) = oneshot::channel();
        self.waiting.borrow_mut().insert(pid, sender);
        receiver
    }

    fn collect(&self) {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            let exit = match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => Exit::Code(code),
                (None, Some(signal)) => Exit::Signal(signal),
                // Stopped or continued: not asked for, and not an end.
                (None, None) => continue,
            };
            if let Some(sender) = self.waiting.borrow_mut().remove(&pid) {
                // Nobody may be waiting any more after a cancelled stream.
                let _ = sender.send(exit);
            }
        }
    }
}
