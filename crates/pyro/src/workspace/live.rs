//! A machine of a workspace that lives on without us, seen through its sockets.
//!
//! It owns nothing of the machine: dropping it changes nothing.

use std::path::{Path, PathBuf};
use std::time::Duration;

use pyro_protocol::code::ErrorCode;
use pyro_protocol::supervise::{
    AGENT_SOCKET, CONTROL_SOCKET, ControlReply, ControlRequest, EndReason, EndRecord, LOCK_FILE,
    MAX_LINE, MachineStatus,
};
use rustix::fs::{FlockOperation, flock};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout};

use super::place::Place;
use super::store::Stopped;
use crate::error::Error;
use crate::exec::Call;
use crate::settings::Home;
use crate::{agent_socket, snapshot};

/// Longest time for a machine to end after it was asked to: an orderly power-off and what follows.
const STOP_DEADLINE: Duration = Duration::from_mins(1);

/// Longest time for a supervisor to tell how its machine is.
const STATUS_DEADLINE: Duration = Duration::from_secs(5);

/// Longest wait for what somebody who is dead had asked of a machine.
const REST_PATIENCE: Duration = Duration::from_mins(2);

/// Time between two looks at whether a machine is still busy.
const BUSY_LOOK: Duration = Duration::from_millis(50);

/// Longest time between the end of a machine's directory and the record of it.
const RECORD_PATIENCE: Duration = Duration::from_secs(2);

/// Time between two looks at whether a supervisor is gone.
const LOOK: Duration = Duration::from_millis(5);

/// A machine that may be there.
#[derive(Clone, Debug)]
pub(crate) struct Live {
    machine_id: String,
    lock: PathBuf,
    runtime: PathBuf,
}

impl Live {
    pub(crate) fn of(home: &Home, machine_id: &str) -> Self {
        Self {
            machine_id: machine_id.to_owned(),
            lock: home.machines().join(machine_id).join(LOCK_FILE),
            runtime: home.runtime.join(machine_id),
        }
    }

    /// Whether its supervisor lives: it holds a lock as long as it does.
    pub(crate) fn is_there(&self) -> bool {
        std::fs::File::open(&self.lock).is_ok_and(|lock| {
            // Shared, so that two who look do not take each other for a supervisor.
            flock(&lock, FlockOperation::NonBlockingLockShared).is_err()
        })
    }

    /// Waits until its supervisor is gone, for so long.
    pub(crate) async fn gone(&self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        while self.is_there() {
            if Instant::now() >= until {
                return false;
            }
            sleep(LOOK).await;
        }
        true
    }

    /// Sends a request to its agent.
    pub(crate) async fn call(&self, request: &Value) -> Result<Call, Error> {
        agent_socket::call(&self.runtime.join(AGENT_SOCKET), request).await
    }

    /// Asks its supervisor for something, and waits while that does something else.
    pub(crate) async fn control(
        &self,
        request: &ControlRequest,
        deadline: Duration,
    ) -> Result<ControlReply, Error> {
        let asking = async {
            loop {
                match self.ask_once(request).await {
                    // Who asked for that may have been killed; whoever drives a workspace does it alone.
                    Err(Error::Machine(failure)) if failure.code == ErrorCode::Conflict => {
                        sleep(BUSY_LOOK).await;
                    }
                    answered => return answered,
                }
            }
        };
        timeout(deadline, asking).await.unwrap_or_else(|_| {
            Err(Error::Supervisor {
                reason: format!("it did not answer within {} s", deadline.as_secs()),
            })
        })
    }

    async fn ask_once(&self, request: &ControlRequest) -> Result<ControlReply, Error> {
        let socket = self.runtime.join(CONTROL_SOCKET);
        match snapshot::exchange(&socket, request).await {
            Ok(ControlReply::Refused(failure)) => Err(Error::Machine(Box::new(failure))),
            Ok(reply) => Ok(reply),
            Err(error) => Err(Error::unreachable(&error)),
        }
    }

    /// Waits until what was asked of it before is done, even if who asked is dead: a snapshot is made to its end then, too.
    pub(crate) async fn at_rest(&self) {
        // It lives on without an owner already, so this changes nothing.
        let _ = self.control(&ControlRequest::Detach, REST_PATIENCE).await;
    }

    /// How it is.
    pub(crate) async fn status(&self) -> Option<MachineStatus> {
        match self
            .control(&ControlRequest::Status, STATUS_DEADLINE)
            .await
            .ok()?
        {
            ControlReply::Status(status) => Some(status),
            _ => None,
        }
    }

    /// Ends it, and waits until nothing of it is left but its disk. One that is gone already is no error.
    pub(crate) async fn stop(&self, orderly: bool) -> Result<(), Error> {
        if !self.is_there() {
            return Ok(());
        }
        let ask = async {
            let mut stream = UnixStream::connect(self.runtime.join(CONTROL_SOCKET)).await?;
            let mut line = serde_json::to_vec(&ControlRequest::Stop { orderly })?;
            line.push(b'\n');
            stream.write_all(&line).await?;
            // It says its end, then closes.
            let mut told = Vec::new();
            stream
                .take(MAX_LINE as u64)
                .read_to_end(&mut told)
                .await
                .map(drop)
        };
        let asked: Result<std::io::Result<()>, _> = timeout(STOP_DEADLINE, ask).await;
        if self.gone(STOP_DEADLINE).await {
            return Ok(());
        }
        let why = match asked {
            Ok(Err(error)) => error.to_string(),
            Ok(Ok(())) | Err(_) => "it did not end the machine".into(),
        };
        Err(Error::Supervisor { reason: why })
    }

    /// How it ended, which its supervisor wrote down unless it was killed.
    pub(crate) async fn end(&self, place: &Place) -> Stopped {
        let path = place.end_record(&self.machine_id);
        let read = || read_end(&path).filter(|record| record.machine_id == self.machine_id);
        let until = Instant::now() + RECORD_PATIENCE;
        let mut record = read();
        // A supervisor that was killed leaves its directory; one that ends removes that first, and writes last.
        while record.is_none() && !self.lock.exists() && Instant::now() < until {
            sleep(LOOK).await;
            record = read();
        }
        match record {
            Some(record) => Stopped {
                at: seconds(record.at_ms),
                reason: record.reason,
                orderly: record.orderly,
                failure: record.failure,
            },
            None => Stopped {
                at: super::now(),
                reason: EndReason::Failed,
                orderly: false,
                failure: None,
            },
        }
    }
}

fn read_end(path: &Path) -> Option<EndRecord> {
    let file = std::fs::File::open(path).ok()?;
    serde_json::from_reader(std::io::Read::take(file, MAX_LINE as u64)).ok()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "milliseconds since 1970 need 41 of the 53 bits"
)]
fn seconds(millis: u64) -> f64 {
    millis as f64 / 1000.0
}
