//! The VMM of a machine and what it shows: its end, its console, whether it stands still.

use std::time::Duration;

use pyro_protocol::code::chain;
use pyro_protocol::supervise::{Failure, FailureCause};
use pyro_vm::RunningMachine;
use pyro_vm::console::{ConsoleLog, MAX_LINES};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use tokio::time::{Instant, interval, timeout};

use crate::diagnosis::{ConsoleVerdict, failure, read_console};

/// Time between two looks at the console for a guest that gave up without ending, and at a VMM that others use.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// After the VMM's end its console is read to its own end for no longer than this.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// How long the VMM may take to tell its state.
const STATE_DEADLINE: Duration = Duration::from_secs(1);

/// How long it may take to let the guest stand still or run on.
const RUN_STATE_DEADLINE: Duration = Duration::from_secs(10);

pub(super) struct Vmm {
    pub(super) machine: RunningMachine,
    pub(super) console: ConsoleLog,
    pub(super) started: Instant,
}

impl Vmm {
    /// Waits for the end of the VMM and of its console, and says how it ended. Cancel-safe.
    pub(super) async fn ended(&mut self) -> String {
        let exit = self.machine.wait().await;
        // What the guest said last is still on its way into the log.
        let _ = timeout(LAST_WORDS, self.console.ended()).await;
        match exit {
            Ok(exit) => exit.to_string(),
            Err(error) => format!("its end could not be read: {error}"),
        }
    }

    /// Waits for the end of the VMM's process while others use the VMM.
    pub(super) fn gone(&self) -> impl Future<Output = ()> + 'static {
        let pid = i32::try_from(self.machine.pid())
            .ok()
            .and_then(Pid::from_raw);
        async move {
            let Some(pid) = pid else {
                return std::future::pending().await;
            };
            // Only looked at: whoever waits for it gets its status later.
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
            let mut look = interval(LOOK_EVERY);
            while let Ok(None) = waitid(WaitId::Pid(pid), options) {
                look.tick().await;
            }
        }
    }

    /// Stops the guest. Stopping it twice is no error.
    pub(super) async fn pause(&mut self) -> Result<(), Box<Failure>> {
        let paused = self.machine.pause(RUN_STATE_DEADLINE).await;
        paused.map_err(|error| failure(FailureCause::Vmm, chain(&error)))
    }

    /// Lets the guest run on. One that runs is left alone.
    pub(super) async fn resume(&mut self) -> Result<(), Box<Failure>> {
        let resumed = self.machine.resume(RUN_STATE_DEADLINE).await;
        resumed.map_err(|error| failure(FailureCause::Vmm, chain(&error)))
    }

    /// Whether it stands still because the host could not write the guest's disk.
    pub(super) async fn stands_still(&mut self) -> bool {
        self.machine.stands_still(STATE_DEADLINE).await
    }

    /// Every line of the console that is kept.
    pub(super) fn console_lines(&self) -> Vec<String> {
        self.console.tail(MAX_LINES)
    }

    /// Waits until the VMM has ended, stands still, or its console shows that the guest will
    /// never come up.
    pub(super) async fn gave_up(&mut self) -> GaveUp {
        let mut look = interval(LOOK_EVERY);
        loop {
            tokio::select! {
                exit = self.ended() => return GaveUp::Ended(exit),
                _ = look.tick() => {}
            }
            if self.stands_still().await {
                return GaveUp::StandsStill;
            }
            if matches!(
                read_console(&self.console_lines()),
                ConsoleVerdict::Fatal { .. }
            ) {
                // The end that usually follows tells more.
                return match timeout(LOOK_EVERY, self.ended()).await {
                    Ok(exit) => GaveUp::Ended(exit),
                    Err(_) => GaveUp::Console,
                };
            }
        }
    }
}

/// Why a guest will not come up.
#[derive(Debug)]
pub(super) enum GaveUp {
    /// The VMM ended, so.
    Ended(String),
    /// The host could not write the guest's disk.
    StandsStill,
    /// The console says so, though the VMM runs on.
    Console,
}
