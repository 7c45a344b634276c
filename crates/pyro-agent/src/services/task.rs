//! The task of one service: it alone decides what the service does next.
//!
//! ```text
//!            ┌───────────── Again: at its time, or at once on request ───────────┐
//!            ▼                                                                   │
//! start ─▶ running ──exit──▶ ending: what it started is ended too ──▶ Rest ──restart
//!            │ stop, restart, not ready in time, forgotten: TERM, and KILL after the grace
//! ```
//!
//! The record tells an end as soon as the process has ended; what the process left behind is
//! ended meanwhile and holds nothing up but the next start.

use std::future::pending;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use pyro_protocol::service::{ServiceRecord, ServiceState, StopReason};
use rustix::process::Signal;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::backoff::Backoff;
use super::logs::Stream;
use super::probe::{self, Prober};
use super::service::Service;
use crate::exec::{Exit, Happened, Process};

/// How long output that may begin a secret is held back while nothing follows.
const HOLD: Duration = Duration::from_millis(50);

/// How often what a dead service left behind is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// How long what was killed may take to be gone before it is no longer waited for.
const KILL_WAIT: Duration = Duration::from_secs(5);

/// Where an order's outcome is told: the record once the order is carried out.
type Done = oneshot::Sender<ServiceRecord>;

/// What a service's task is told to do. When the orders' channel closes, the service is
/// forgotten: it ends at once.
#[derive(Debug)]
pub(super) enum Order {
    /// End, and stay so. Done when nothing is left.
    Stop {
        /// Time between TERM and KILL, if it is another than the service's own.
        timeout: Option<Duration>,
        done: Done,
    },
    /// End if it runs, and start. Done when it is ready or has failed.
    Restart { done: Done },
    /// End what it left behind at once. Done when nothing is left.
    Clear { done: Done },
}

/// What comes next while no process runs.
#[derive(Clone, Copy, Debug)]
enum Plan {
    Rest,
    Again { at: Instant, by_itself: bool },
    Forgotten,
}

/// Why a running process is being ended.
#[derive(Clone, Copy, Debug)]
enum Why {
    Stop,
    Restart,
    NotReady,
    Forgotten,
}

/// The end of a process.
#[derive(Debug)]
struct Ended {
    exit: Exit,
    ran_for: Duration,
    why: Option<Why>,
    /// When what is left gets KILL, if TERM was sent.
    kill_at: Option<Instant>,
    killed: bool,
}

/// A service's task.
#[derive(Debug)]
pub(super) struct Task {
    service: Rc<Service>,
    prober: Prober,
    orders: mpsc::Receiver<Order>,
    backoff: Backoff,
    plan: Plan,
    /// Who waits until it is ready or has ended for good.
    on_ready: Vec<Done>,
    /// Who waits until nothing is left of it.
    on_settled: Vec<Done>,
}

impl Task {
    /// The task of a service that was just started; `done` is told when it is ready or has
    /// failed.
    pub(super) fn new(
        service: Rc<Service>,
        prober: Prober,
        orders: mpsc::Receiver<Order>,
        done: Done,
    ) -> Self {
        let backoff = Backoff::new(service.order.restart);
        Self {
            service,
            prober,
            orders,
            backoff,
            plan: Plan::Rest,
            on_ready: vec![done],
            on_settled: Vec::new(),
        }
    }

    /// Runs until the service is forgotten.
    pub(super) async fn run(mut self, process: Process) {
        self.live(process).await;
        loop {
            match self.plan {
                Plan::Forgotten => {
                    self.service.settle(true);
                    return;
                }
                Plan::Rest => {
                    self.service.settle(true);
                    self.tell_settled();
                    let order = self.orders.recv().await;
                    self.between(order);
                }
                Plan::Again { at, by_itself } => {
                    let order = tokio::select! {
                        () = sleep_until(at) => None,
                        order = self.orders.recv() => Some(order),
                    };
                    match order {
                        Some(order) => {
                            self.between(order);
                            // Nothing runs, so nothing is left.
                            self.tell_settled();
                        }
                        None => self.start_again(by_itself).await,
                    }
                }
            }
        }
    }

    async fn start_again(&mut self, by_itself: bool) {
        self.plan = Plan::Rest;
        self.prober.freezer.thawed().await;
        match Process::start(&self.prober.reaper, &self.service.order.exec) {
            Ok(process) => {
                self.service.started_again(process.pid(), by_itself);
                self.live(process).await;
            }
            Err(error) => {
                self.service.start_failed(error);
                self.tell_ready();
            }
        }
    }

    /// From a process's start until nothing is left of it.
    async fn live(&mut self, mut process: Process) {
        self.service.settle(false);
        if self.service.is_ready() {
            self.tell_ready();
        }
        let ended = self.watch(&mut process).await;
        let grace = ended.kill_at;
        self.tell_end(&ended);
        self.sweep(&mut process, grace).await;
    }

    /// Watches a process to its end.
    async fn watch(&mut self, process: &mut Process) -> Ended {
        let start = Instant::now();
        let order = &self.service.order;
        let mut ready_by = Some(start + order.ready_timeout);
        let mut probing: Option<Pin<Box<dyn Future<Output = ()>>>> = None;
        match probe::of(order) {
            Some(probe) => {
                let prober = self.prober.clone();
                let exec = order.exec.clone();
                probing = Some(Box::pin(prober.until_ready(
                    probe,
                    exec,
                    order.ready_interval,
                )));
            }
            None => ready_by = None,
        }
        let mut why: Option<Why> = None;
        let (mut kill_at, mut killed) = (None, false);
        let mut hold_until = start;
        loop {
            let holds = self.service.logs().hold();
            let forgotten = matches!(why, Some(Why::Forgotten));
            tokio::select! {
                happened = process.next() => match happened {
                    Happened::Exited(exit) => {
                        self.take_rest(process).await;
                        return Ended { exit, ran_for: start.elapsed(), why, kill_at, killed };
                    }
                    Happened::Stdout(bytes) => {
                        self.service.put(Stream::Stdout, &bytes).await;
                        hold_until = Instant::now() + HOLD;
                    }
                    Happened::Stderr(bytes) => {
                        self.service.put(Stream::Stderr, &bytes).await;
                        hold_until = Instant::now() + HOLD;
                    }
                },
                () = done(&mut probing), if probing.is_some() => {
                    (probing, ready_by) = (None, None);
                    self.service.ready();
                    self.tell_ready();
                }
                () = until(ready_by), if ready_by.is_some() => {
                    (probing, ready_by) = (None, None);
                    why = Some(Why::NotReady);
                    kill_at = Some(self.terminate(process, None));
                }
                order = self.orders.recv(), if !forgotten => {
                    let Some((because, timeout)) = self.ordered(order) else {
                        continue;
                    };
                    why = Some(because);
                    (probing, ready_by) = (None, None);
                    let at = self.terminate(process, timeout);
                    // The shortest grace counts.
                    kill_at = Some(kill_at.map_or(at, |before: Instant| before.min(at)));
                }
                () = until(kill_at), if kill_at.is_some() && !killed => {
                    killed = true;
                    process.kill();
                }
                () = sleep_until(hold_until), if holds => self.service.flush_logs().await,
            }
        }
    }

    /// Takes an order while a process runs: why it is to end, and the time for that if it is
    /// not the service's own.
    fn ordered(&mut self, order: Option<Order>) -> Option<(Why, Option<Duration>)> {
        match order {
            Some(Order::Stop { timeout, done }) => {
                self.on_settled.push(done);
                Some((Why::Stop, timeout))
            }
            Some(Order::Restart { done }) => {
                self.on_ready.push(done);
                Some((Why::Restart, None))
            }
            // It was for an earlier process: of that one nothing is left.
            Some(Order::Clear { done }) => {
                tell(&mut vec![done], &self.service);
                None
            }
            None => Some((Why::Forgotten, Some(Duration::ZERO))),
        }
    }

    /// Tells the end of a process, and plans what comes next.
    fn tell_end(&mut self, ended: &Ended) {
        let stopped = if ended.killed {
            StopReason::Sigkill
        } else {
            StopReason::Sigterm
        };
        let ready = self.service.is_ready();
        let failed = !ready || ended.exit != Exit::Code(0) || ended.why.is_some();
        let (state, reason) = match ended.why {
            None if ready => (ServiceState::Exited, None),
            None => (
                ServiceState::Failed,
                Some(StopReason::ProcessExitedBeforeReady),
            ),
            Some(Why::NotReady) => (ServiceState::Failed, Some(StopReason::ReadinessTimeout)),
            Some(Why::Stop | Why::Forgotten) => (ServiceState::Stopped, Some(stopped)),
            Some(Why::Restart) => (ServiceState::Restarting, Some(stopped)),
        };
        self.plan = match ended.why {
            Some(Why::Forgotten) => Plan::Forgotten,
            Some(Why::Stop) => Plan::Rest,
            Some(Why::Restart) => {
                self.backoff.reset();
                again(Duration::ZERO, false)
            }
            None | Some(Why::NotReady) => match self.backoff.after(ended.ran_for, failed) {
                Some(pause) => again(pause, true),
                None => Plan::Rest,
            },
        };
        let state = match self.plan {
            Plan::Again { .. } => ServiceState::Restarting,
            Plan::Rest | Plan::Forgotten => state,
        };
        self.service.ended(ended.exit, state, reason);
        if state.is_final() {
            self.tell_ready();
        }
    }

    /// Ends what a dead process left behind.
    async fn sweep(&mut self, process: &mut Process, grace: Option<Instant>) {
        let mut gone = process.is_gone();
        let mut kill_at = match grace {
            Some(at) => Some(at),
            None if gone => None,
            None => Some(self.terminate(process, None)),
        };
        let mut give_up = None;
        let mut look_at = Instant::now() + LOOK;
        while !gone {
            let forgotten = matches!(self.plan, Plan::Forgotten);
            if forgotten && give_up.is_none() {
                kill_at = Some(Instant::now());
            }
            tokio::select! {
                happened = process.next() => match happened {
                    Happened::Stdout(bytes) => self.service.put(Stream::Stdout, &bytes).await,
                    Happened::Stderr(bytes) => self.service.put(Stream::Stderr, &bytes).await,
                    // It has ended already.
                    Happened::Exited(_) => {}
                },
                () = sleep_until(look_at) => {
                    gone = process.is_gone();
                    look_at = Instant::now() + LOOK;
                }
                () = until(kill_at), if kill_at.is_some() => {
                    kill_at = None;
                    process.kill();
                    give_up = Some(Instant::now() + KILL_WAIT);
                }
                () = until(give_up), if give_up.is_some() => break,
                order = self.orders.recv(), if !forgotten => {
                    if self.between(order) && give_up.is_none() {
                        kill_at = Some(Instant::now());
                    }
                }
            }
        }
        self.take_rest(process).await;
        self.tell_settled();
    }

    /// Takes an order while no process runs; whether what is left must go at once.
    fn between(&mut self, order: Option<Order>) -> bool {
        match order {
            Some(Order::Stop { done, .. }) => {
                self.on_settled.push(done);
                if let Plan::Again { .. } = self.plan {
                    self.plan = Plan::Rest;
                    self.service.becomes(ServiceState::Stopped);
                    self.tell_ready();
                }
                false
            }
            Some(Order::Restart { done }) => {
                self.on_ready.push(done);
                self.backoff.reset();
                self.plan = again(Duration::ZERO, false);
                self.service.becomes(ServiceState::Restarting);
                true
            }
            Some(Order::Clear { done }) => {
                self.on_settled.push(done);
                true
            }
            None => {
                self.plan = Plan::Forgotten;
                true
            }
        }
    }

    /// Sends TERM to everything; when KILL is due.
    fn terminate(&self, process: &Process, timeout: Option<Duration>) -> Instant {
        process.signal_all(Signal::TERM);
        // A stopped process acts on TERM only when it goes on.
        process.signal_all(Signal::CONT);
        Instant::now() + timeout.unwrap_or(self.service.order.stop_timeout)
    }

    async fn take_rest(&self, process: &mut Process) {
        let (stdout, stderr) = process.take_rest();
        self.service.put(Stream::Stdout, &stdout).await;
        self.service.put(Stream::Stderr, &stderr).await;
        self.service.flush_logs().await;
    }

    fn tell_ready(&mut self) {
        tell(&mut self.on_ready, &self.service);
    }

    fn tell_settled(&mut self) {
        tell(&mut self.on_settled, &self.service);
    }
}

/// A start after `pause`.
fn again(pause: Duration, by_itself: bool) -> Plan {
    Plan::Again {
        at: Instant::now() + pause,
        by_itself,
    }
}

fn tell(waiting: &mut Vec<Done>, service: &Service) {
    for done in waiting.drain(..) {
        // A peer that left waits no more.
        let _ = done.send(service.record());
    }
}

async fn done(probing: &mut Option<Pin<Box<dyn Future<Output = ()>>>>) {
    match probing {
        Some(probing) => probing.await,
        None => pending().await,
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}
