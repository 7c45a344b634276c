//! A machine that is up: watched, paused, captured, until something ends it.

use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use pyro_link::Held;
use pyro_protocol::code::ErrorCode;
use pyro_protocol::supervise::{
    ControlReply, ControlRequest, EndReason, Expiry, Failure, FailureCause, Lease, MachineOrder,
};
use pyro_vm::snapshot::Durability;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, interval};

use super::lifetime::Lifetime;
use super::standstill::{freeze, go_on, stand_still};
use super::start::{Starting, expires_at};
use super::status::Status;
use super::{Ending, capture, copy_disk, until};
use crate::agent_call::{self, JobUse};
use crate::bridge::Streams;
use crate::channel::Heard;
use crate::diagnosis::{self, failure};
use crate::guest_link::GuestLink;

/// Time between two questions whether the agent is there.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(2);

/// How long the agent may take to answer one: generous, because a guest under software
/// emulation with hundreds of busy processes still lives.
const HEARTBEAT_DEADLINE: Duration = Duration::from_secs(15);

/// Time between two looks at whether the VMM stands still.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long a guest that is to be paused may take to write back and freeze.
const FREEZE_DEADLINE: Duration = Duration::from_secs(10);

/// How long the agent may take to tell its jobs.
const JOBS_DEADLINE: Duration = Duration::from_secs(15);

/// A machine that is up.
pub(super) struct InUse<'a> {
    order: &'a MachineOrder,
    starting: &'a mut Starting,
    link: GuestLink,
    lifetime: Lifetime,
    streams: watch::Receiver<Streams>,
    lease: Lease,
    paused: Option<Paused>,
}

/// A guest that stands still.
struct Paused {
    /// Whether its disks and processes did so before.
    frozen: bool,
    /// What keeps the link to it still.
    _held: Option<Held>,
}

/// What became of a machine's time.
enum TimeUp {
    /// It is over.
    Over,
    /// The machine was used once more, then.
    UsedAt(Instant),
}

/// What was asked of the machine.
enum Asked {
    ToEnd(Ending),
    ToDo(ControlRequest, Option<oneshot::Sender<ControlReply>>),
}

impl<'a> InUse<'a> {
    pub(super) fn new(
        order: &'a MachineOrder,
        starting: &'a mut Starting,
        link: GuestLink,
        lifetime: Lifetime,
        streams: watch::Receiver<Streams>,
    ) -> Self {
        Self {
            order,
            starting,
            link,
            lifetime,
            streams,
            lease: order.lease,
            paused: None,
        }
    }

    /// Does what is asked for, until something ends the machine.
    pub(super) async fn watch(
        mut self,
        heard: &mut mpsc::Receiver<Heard>,
    ) -> Result<Ending, Box<Failure>> {
        let mut look = interval(LOOK_EVERY);
        let mut heartbeat = self.heartbeat();
        let mut time_up = self.time_up();
        let dead_link = loop {
            let asked = tokio::select! {
                asked = hear(heard, self.lease) => asked,
                up = &mut time_up => match up {
                    TimeUp::Over => Asked::ToEnd(EXPIRED),
                    TimeUp::UsedAt(when) => {
                        self.lifetime.used_at(when);
                        time_up = self.time_up();
                        continue;
                    }
                },
                exit = self.starting.vmm_ended() => return self.starting.guest_ended(exit),
                reason = &mut heartbeat => break reason,
                _ = look.tick() => {
                    if let Some(failure) = self.starting.stands_still().await {
                        return Err(failure);
                    }
                    continue;
                }
            };
            let (request, reply) = match asked {
                Asked::ToEnd(ending) => return Ok(self.run_to_end(ending, false).await),
                // Before anything that shows that the machine is used.
                Asked::ToDo(ControlRequest::Status, reply) => {
                    self.status(false).tell_if(reply);
                    continue;
                }
                Asked::ToDo(request, reply) => (request, reply),
            };
            self.lifetime.used_at(Instant::now());
            let (lease, ends_anyhow) = (self.lease, self.lifetime.ends_anyhow());
            let status = self.status(true);
            let gone = self.starting.vmm_gone();
            let ended = tokio::select! {
                answer = self.answer(request) => {
                    if let Some(reply) = reply {
                        // Nobody waits any more, which changes nothing.
                        let _ = reply.send(answer);
                    }
                    None
                }
                ending = asked_to_end(heard, lease, Some(&status)) => Some(ending),
                () = until(ends_anyhow) => Some(EXPIRED),
                // Without it, what was asked for waits in vain until its deadline.
                () = gone => {
                    let exit = self.starting.vmm_ended().await;
                    return self.starting.guest_ended(exit);
                }
            };
            if let Some(ending) = ended {
                return Ok(self.run_to_end(ending, true).await);
            }
            self.lifetime.used_at(Instant::now());
            heartbeat = self.heartbeat();
            time_up = self.time_up();
        };
        // A link dies with its VMM: that is the better story, and it comes at once.
        if let Some(exit) = self.starting.vmm_ended_soon().await {
            return self.starting.guest_ended(exit);
        }
        let fallback = (FailureCause::Link, dead_link.as_str());
        Err(diagnosis::guest_failure(
            &self.starting.console_lines(),
            None,
            fallback,
        ))
    }

    /// Asks the agent again and again whether it is there; returns what was found when it is not. One that is paused is not
    /// asked.
    fn heartbeat(&self) -> Pin<Box<dyn Future<Output = String>>> {
        let (link, paused) = (self.link.clone(), self.paused.is_some());
        Box::pin(async move {
            if paused {
                return std::future::pending().await;
            }
            let mut beat = interval(HEARTBEAT_EVERY);
            loop {
                beat.tick().await;
                if let Err(error) = agent_call::ping(&link, HEARTBEAT_DEADLINE).await {
                    return error.to_string();
                }
            }
        })
    }

    /// Waits until the machine's time seems to be up, and asks the agent then whether jobs have used it meanwhile. One that is
    /// paused is not asked: nothing runs in it.
    fn time_up(&self) -> Pin<Box<dyn Future<Output = TimeUp>>> {
        let (link, paused) = (self.link.clone(), self.paused.is_some());
        let (lifetime, mut streams) = (self.lifetime, self.streams.clone());
        Box::pin(async move {
            loop {
                unused(&lifetime, &mut streams).await;
                match lifetime.expiry() {
                    Expiry::Idle { .. } if !paused => {}
                    Expiry::Idle { .. } | Expiry::Age { .. } | Expiry::Never => {
                        return TimeUp::Over;
                    }
                }
                let used = match agent_call::job_use(&link, JOBS_DEADLINE).await {
                    Ok(used) => used,
                    // Whether it lives is the heartbeat's question.
                    Err(_) => JobUse::Running,
                };
                let when = match used {
                    JobUse::None => None,
                    JobUse::Running => Some(Instant::now()),
                    JobUse::EndedBefore(ago) => Instant::now().checked_sub(ago),
                };
                let mut known = lifetime;
                when.inspect(|when| known.used_at(*when));
                let now = Instant::now();
                match (known.ends(*streams.borrow()), when) {
                    (Some(ends), _) if ends <= now => return TimeUp::Over,
                    (_, Some(when)) => return TimeUp::UsedAt(when),
                    // A stream was opened meanwhile.
                    (_, None) => {}
                }
            }
        })
    }

    fn status(&self, busy: bool) -> Status {
        Status {
            paused: self.paused.is_some(),
            busy,
            lifetime: self.lifetime,
            streams: self.streams.clone(),
            vmm_pid: self.starting.journal.vmm.map_or(0, |vmm| vmm.pid),
        }
    }

    /// Only a guest that runs can end in order. One that stands still, or was being captured, is let go on.
    async fn run_to_end(&mut self, ending: Ending, interrupted: bool) -> Ending {
        if ending.orderly
            && (interrupted || self.paused.is_some())
            && let Some(vmm) = &mut self.starting.vmm
            && vmm.resume().await.is_ok()
        {
            self.paused = None;
            // One that does not go on is killed in the end.
            let _ = go_on(&self.link).await;
        }
        ending
    }

    async fn answer(&mut self, request: ControlRequest) -> ControlReply {
        let done = match request {
            ControlRequest::Detach => {
                self.lease = Lease::Detached;
                Ok(ControlReply::Detached)
            }
            ControlRequest::Pause => self.pause().await.map(|()| ControlReply::Paused),
            ControlRequest::Resume => self.resume().await.map(|()| ControlReply::Resumed),
            ControlRequest::Snapshot { directory, passing } => {
                self.snapshot(&directory, passing).await
            }
            ControlRequest::CopyDisk { to } => {
                let paused = self.paused.as_ref().map(|paused| paused.frozen);
                copy_disk::copy(self.order, self.starting, &to, paused)
                    .await
                    .map(ControlReply::Snapshot)
            }
            ControlRequest::SetExpiry { expiry } => {
                self.set_expiry(expiry).map(|()| ControlReply::ExpirySet)
            }
            ControlRequest::Stop { .. } => unreachable!("a stop is heard as one"),
            ControlRequest::Status => unreachable!("it is told at once"),
        };
        match done {
            Ok(reply) => reply,
            Err(failure) => ControlReply::Refused(*self.reason(failure).await),
        }
    }

    /// Why something could not be done: the end of the VMM, if that is what `failure` came from.
    async fn reason(&mut self, failure: Box<Failure>) -> Box<Failure> {
        if failure.cause == FailureCause::Host {
            return failure;
        }
        match self.starting.vmm_ended_soon().await {
            Some(exit) => self.starting.guest_ended(exit).err().unwrap_or(failure),
            None => failure,
        }
    }

    fn set_expiry(&mut self, expiry: Expiry) -> Result<(), Box<Failure>> {
        let journal = &mut self.starting.journal;
        let before = journal.expires_at;
        journal.expires_at = expires_at(journal.created_at, expiry);
        if let Err(failure) = self.starting.write_journal() {
            self.starting.journal.expires_at = before;
            return Err(failure);
        }
        self.lifetime.set(expiry, Instant::now());
        Ok(())
    }

    async fn pause(&mut self) -> Result<(), Box<Failure>> {
        if let (None, Some(vmm), Some(guest)) =
            (&self.paused, &mut self.starting.vmm, &self.starting.guest)
        {
            // A guest whose agent does not answer is paused as it is.
            let frozen = freeze(&self.link, FREEZE_DEADLINE).await.is_ok();
            let held = stand_still(vmm, guest).await?;
            self.paused = Some(Paused {
                frozen,
                _held: held,
            });
        }
        Ok(())
    }

    async fn resume(&mut self) -> Result<(), Box<Failure>> {
        if self.paused.is_none() {
            return Ok(());
        }
        if let Some(vmm) = &mut self.starting.vmm {
            vmm.resume().await?;
        }
        self.paused = None;
        go_on(&self.link).await
    }

    async fn snapshot(
        &mut self,
        directory: &Path,
        passing: bool,
    ) -> Result<ControlReply, Box<Failure>> {
        let durability = if passing {
            Durability::Passing
        } else {
            Durability::Durable
        };
        let paused = self.paused.as_ref().map(|paused| paused.frozen);
        capture::snapshot(self.order, self.starting, directory, durability, paused)
            .await
            .map(ControlReply::Snapshot)
    }
}

/// The end of a machine whose time is up.
const EXPIRED: Ending = Ending {
    reason: EndReason::Expired,
    orderly: true,
};

/// Waits until the machine's time is up as far as its streams tell.
async fn unused(lifetime: &Lifetime, streams: &mut watch::Receiver<Streams>) {
    loop {
        let ends = lifetime.ends(*streams.borrow_and_update());
        tokio::select! {
            () = until(ends) => return,
            changed = streams.changed() => {
                // Its sender is there as long as the socket is served.
                if changed.is_err() {
                    return until(ends).await;
                }
            }
        }
    }
}

/// Waits for what is asked for.
async fn hear(heard: &mut mpsc::Receiver<Heard>, lease: Lease) -> Asked {
    loop {
        match heard.recv().await {
            Some(Heard::Request(ControlRequest::Stop { orderly }, _)) => {
                return Asked::ToEnd(Ending {
                    reason: EndReason::Stopped,
                    orderly,
                });
            }
            Some(Heard::Request(request, reply)) => return Asked::ToDo(request, reply),
            Some(Heard::OwnerGone) if lease == Lease::Owner => {
                return Asked::ToEnd(Ending {
                    reason: EndReason::OwnerGone,
                    orderly: false,
                });
            }
            Some(Heard::OwnerGone) => {}
            // Not while this process holds a sender of its own.
            None => std::future::pending().await,
        }
    }
}

/// Waits for a request to end a machine that can do nothing else at the moment but tell how it is.
pub(super) async fn asked_to_end(
    heard: &mut mpsc::Receiver<Heard>,
    lease: Lease,
    status: Option<&Status>,
) -> Ending {
    loop {
        match (hear(heard, lease).await, status) {
            (Asked::ToEnd(ending), _) => return ending,
            (Asked::ToDo(ControlRequest::Status, reply), Some(status)) => status.tell_if(reply),
            (Asked::ToDo(_, reply), _) => {
                let busy = failure(
                    FailureCause::Host,
                    "the machine is busy with another request",
                );
                let busy = Failure {
                    code: ErrorCode::Conflict,
                    hint: Some("ask again when that is done".into()),
                    ..*busy
                };
                if let Some(reply) = reply {
                    let _ = reply.send(ControlReply::Refused(busy));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_busy_machine_tells_how_it_is_and_refuses_the_rest() {
        let (ask, mut heard) = mpsc::channel(4);
        let (_opened, streams) = watch::channel(Streams::default().opened());
        let begun = Instant::now() - Duration::from_mins(1);
        let status = Status {
            paused: false,
            busy: true,
            lifetime: Lifetime::new(Expiry::Idle { ttl_ms: 5000 }, begun),
            streams,
            vmm_pid: std::process::id(),
        };
        let busy =
            tokio::spawn(
                async move { asked_to_end(&mut heard, Lease::Detached, Some(&status)).await },
            );
        let asked = async |request| {
            let (reply, answer) = oneshot::channel();
            let heard = Heard::Request(request, Some(reply));
            ask.send(heard).await.unwrap();
            answer.await
        };
        let told = asked(ControlRequest::Status).await.unwrap();
        let ControlReply::Status(told) = told else {
            panic!("{told:?}")
        };
        assert_eq!((told.open_streams, told.idle_ms), (1, 0));
        assert_eq!(told.expires_in_ms, Some(5000));
        assert!(told.memory_bytes.is_some());
        let ControlReply::Refused(refused) = asked(ControlRequest::Pause).await.unwrap() else {
            panic!("it was done")
        };
        assert_eq!(refused.code, ErrorCode::Conflict);
        // That is told by the end itself.
        asked(ControlRequest::Stop { orderly: true })
            .await
            .unwrap_err();
        let ending = busy.await.unwrap();
        assert_eq!((ending.reason, ending.orderly), (EndReason::Stopped, true));
    }
}
