//! Looking whether a service is ready. An error of any kind means "not yet"; a look is
//! bounded in time and memory, and leaves no process behind.

use std::time::Duration;

use pyro_protocol::exec::{Exec, Program};
use pyro_protocol::service::{HttpUrl, Probe, StartService};
use tokio::time::{sleep, timeout};

use super::http::ask;
use crate::exec::{Exit, Happened, Process, Reaper};
use crate::files::Files;
use crate::machine::{Freezer, connect};

/// How long a command may take.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);

/// Most redirects that are followed: more are a circle.
const MAX_REDIRECTS: usize = 5;

/// What looks need.
#[derive(Clone, Debug)]
pub(super) struct Prober {
    pub(super) reaper: Reaper,
    pub(super) files: Files,
    pub(super) freezer: Freezer,
}

impl Prober {
    /// Looks again and again until a look succeeds. May be dropped at any moment.
    pub(super) async fn until_ready(self, probe: Probe, exec: Exec, interval: Duration) {
        while !self.look(&probe, &exec).await {
            sleep(interval).await;
        }
    }

    async fn look(&self, probe: &Probe, exec: &Exec) -> bool {
        match probe {
            Probe::File(path) => self.files.exists(path).await,
            Probe::Tcp(order) => connect(order).await.is_ok(),
            Probe::Http(url) => timeout(url.connect.timeout, answers(url))
                .await
                .unwrap_or(false),
            Probe::Command(command) => {
                let exec = Exec {
                    program: Program::Shell(command.clone()),
                    ..exec.clone()
                };
                self.freezer.thawed().await;
                timeout(COMMAND_TIMEOUT, succeeds(&self.reaper, &exec))
                    .await
                    .unwrap_or(false)
            }
        }
    }
}

/// What an order's readiness asks to be looked at.
pub(super) fn of(order: &StartService) -> Option<Probe> {
    // Checked when the order was parsed: it reads the same again.
    order.readiness.as_ref()?.probe().ok()
}

/// Whether a server answers with a status from 200 to 399. A redirect to where we cannot
/// ask, another scheme or a name, is such an answer itself.
async fn answers(url: &HttpUrl) -> bool {
    let mut url = url.clone();
    for _ in 0..=MAX_REDIRECTS {
        let Ok(stream) = connect(&url.connect).await else {
            return false;
        };
        let Ok(answer) = ask(stream, &url).await else {
            return false;
        };
        let further = match answer.status {
            301 | 302 | 303 | 307 | 308 => answer.location,
            _ => None,
        };
        match further.and_then(|location| url.redirect(&location)) {
            Some(next) => url = next,
            None => return (200..400).contains(&answer.status),
        }
    }
    false
}

/// Whether a command exits with 0. What it says is dropped, what it leaves behind is killed.
async fn succeeds(reaper: &Reaper, exec: &Exec) -> bool {
    let Ok(mut process) = Process::start(reaper, exec) else {
        return false;
    };
    loop {
        match process.next().await {
            Happened::Exited(exit) => return exit == Exit::Code(0),
            Happened::Stdout(_) | Happened::Stderr(_) => {}
        }
    }
}
