//! A QEMU process that runs.
//!
//! Owns it from its start to its reaping, and its control connection. Never speaks over the link and never reads the console.

use super::qmp::{Qmp, QmpError};
use crate::console::ConsoleLog;
use crate::machine::{ExitReason, exit_reason};
use crate::memory::{self, GuestMemory};
use std::fs::File;
use std::io;
use std::os::unix::net::UnixStream as StdStream;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::process::Child;

/// What a QEMU machine begins with.
#[derive(Debug)]
pub enum QemuBegin {
    /// Its kernel, in empty memory.
    Boot {
        /// The memory.
        memory: GuestMemory,
    },
    /// Where another machine of an equal specification was paused. It stands still until [`QemuMachine::resume`].
    Restore {
        /// The other machine's memory, or a copy of it.
        memory: GuestMemory,
        /// What [`QemuMachine::save_devices`] wrote, opened for reading.
        devices: File,
    },
}

/// What a successful start yields.
#[derive(Debug)]
pub struct QemuStarted {
    /// The engine's process.
    pub machine: QemuMachine,
    /// The byte stream to the guest's port `org.pyro.agent.0`.
    pub link: UnixStream,
    /// The guest's serial console. Somebody must read it, or the guest stops at its next line: see [`ConsoleLog`].
    pub console: UnixStream,
}

/// A QEMU process with its control connection. Dropping it kills the process.
#[derive(Debug)]
pub struct QemuMachine {
    pub(super) pid: u32,
    pub(super) start_time: u64,
    pub(super) child: Child,
    pub(super) qmp: Qmp<UnixStream>,
    pub(super) stderr: ConsoleLog,
    pub(super) memory: GuestMemory,
    /// The engine's end of the link; ours holds it until the engine's end is known.
    pub(super) link_peer: Option<StdStream>,
}

impl QemuMachine {
    /// The process id of the engine.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// When the process started, in the kernel's clock ticks since boot. Together with the process id it names the process
    /// for [`crate::process::kill_verified`], even after the number was given to another one.
    pub fn start_time(&self) -> u64 {
        self.start_time
    }

    /// The control connection.
    pub fn qmp(&mut self) -> &mut Qmp<UnixStream> {
        &mut self.qmp
    }

    /// Stops the guest. What it has written to its disks is with the host then.
    pub async fn pause(&mut self, deadline: Duration) -> Result<(), QmpError> {
        self.qmp.stop(deadline).await
    }

    /// Lets a paused or restored guest run on.
    pub async fn resume(&mut self, deadline: Duration) -> Result<(), QmpError> {
        self.qmp.cont(deadline).await
    }

    /// Writes the state of the paused machine's devices to `to`, which is open for writing only.
    pub async fn save_devices(&mut self, to: &File, deadline: Duration) -> Result<(), QmpError> {
        self.qmp.save_devices(to, deadline).await
    }

    /// Whether the engine has passed on to the guest all that was written to the link.
    pub fn link_is_drained(&self) -> io::Result<bool> {
        match &self.link_peer {
            Some(peer) => Ok(rustix::io::ioctl_fionread(peer)? == 0),
            None => Ok(true),
        }
    }

    /// What copies the paused machine's memory. To be called on a thread that may block, while the machine stands still.
    ///
    /// Needs the right to look into the engine's process: its user's, or root with `CAP_SYS_PTRACE`.
    pub fn copy_memory(&self) -> io::Result<impl FnOnce(&File) -> io::Result<()> + Send + 'static> {
        let (memory, pid) = (self.memory.try_clone()?, self.pid);
        Ok(move |to: &File| memory::copy(&memory, pid, to))
    }

    /// Waits until the engine ends, for whatever reason. May be dropped and called again.
    pub async fn wait(&mut self) -> io::Result<ExitReason> {
        let status = self.child.wait().await?;
        // The link ends with the engine.
        self.link_peer = None;
        Ok(exit_reason(status, &self.stderr).await)
    }

    /// Ends the engine at once and reaps it. The guest learns nothing of it.
    pub async fn kill(&mut self) -> io::Result<ExitReason> {
        // An error here means that the process ended by itself, which `wait` then reports.
        let _ = self.child.start_kill();
        self.wait().await
    }

    /// Asks the engine to end, which flushes its disks, and kills it if it has not after `deadline`.
    pub async fn quit(&mut self, deadline: Duration) -> io::Result<ExitReason> {
        let asked = async {
            // Whether the request failed or not, only the end of the process counts.
            let _ = self.qmp.quit(deadline).await;
            self.child.wait().await
        };
        match tokio::time::timeout(deadline, asked).await {
            Ok(status) => {
                self.link_peer = None;
                Ok(exit_reason(status?, &self.stderr).await)
            }
            Err(_) => self.kill().await,
        }
    }
}
