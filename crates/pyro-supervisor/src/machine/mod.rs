//! The life of one machine.
//!
//! ```text
//! ordered ─▶ journal ─▶ engine ─▶ template ─▶ disk ─▶ VMM ─▶ agent ─▶ ready ◀─▶ paused ─▶ ending ─▶ gone
//!     └─────────┴──────────┴─────────┴─────────┴──────┴───────┴── stop, owner gone, expiry, failure ──┘
//! ```
//!
//! One task owns all of it. Whatever ends the machine, the same steps follow: kill and reap
//! the VMM, hand over the disk that is kept, keep the logs of a failure, remove everything else, write down the end, tell who
//! listens.

mod boot;
mod capture;
mod copy_disk;
mod disks;
mod end;
mod engine;
mod fault;
mod in_use;
mod lifetime;
mod origin;
mod phase;
mod session;
mod spec;
mod standstill;
mod start;
mod status;
mod template;
mod upper;
mod vmm;
mod work;

pub(crate) use origin::Note;

use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pyro_protocol::supervise::{EndReason, Event, Failure, FailureCause, MachineOrder};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use crate::agent_call;
use crate::bridge::{self, Streams};
use crate::channel::{EventSender, Heard, Owner, serve_control};
use crate::diagnosis;
use crate::guest_link::GuestLink;
use in_use::InUse;
use lifetime::Lifetime;
use start::Starting;

/// How long a client may take to send its order.
const ORDER_DEADLINE: Duration = Duration::from_secs(10);

/// How long an orderly power-off may take before the VMM is killed.
const POWER_OFF_DEADLINE: Duration = Duration::from_secs(20);

/// Runs a supervisor whose standard input is the owner channel. Returns when the machine is
/// gone.
///
/// Must run on the main thread: the kernel kills the VMM with the thread that started it.
pub fn run() -> ExitCode {
    // The terminal's signals go to the client, which decides; failing means that this
    // process leads a session already.
    let _ = rustix::process::setsid();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let Ok(runtime) = runtime else {
        return ExitCode::FAILURE;
    };
    match runtime.block_on(supervise()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

async fn supervise() -> std::io::Result<()> {
    let begun = Instant::now();
    let owner =
        std::os::unix::net::UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    owner.set_nonblocking(true)?;
    let mut owner = Owner::new(UnixStream::from_std(owner)?);
    let line = tokio::time::timeout(ORDER_DEADLINE, owner.order()).await??;
    let order: Result<MachineOrder, _> = serde_json::from_slice(&line);
    let (mut events, heard, requests) = owner.listen();
    let order = match order {
        Ok(order) => order,
        Err(error) => {
            let failure = diagnosis::failure(
                FailureCause::Host,
                format!("the order is malformed: {error}"),
            );
            events.send(&Event::Failed(*failure)).await;
            events
                .send(&Event::Ended {
                    reason: EndReason::Failed,
                })
                .await;
            return Ok(());
        }
    };
    let life = Life {
        lifetime: Lifetime::new(order.expiry, begun),
        order,
        begun,
        events,
        heard,
        requests,
    };
    life.run().await;
    Ok(())
}

/// What ends a machine that was asked to end.
#[derive(Clone, Copy, Debug)]
struct Ending {
    reason: EndReason,
    orderly: bool,
}

struct Life {
    order: MachineOrder,
    begun: Instant,
    lifetime: Lifetime,
    events: EventSender,
    heard: mpsc::Receiver<Heard>,
    requests: mpsc::Sender<Heard>,
}

impl Life {
    async fn run(mut self) {
        let mut starting = match Starting::begin(&self.order) {
            Ok(starting) => starting,
            Err(failure) => {
                end::write_down(&self.order, EndReason::Failed, false, Some(&failure));
                self.events.send(&Event::Failed(*failure)).await;
                self.events
                    .send(&Event::Ended {
                        reason: EndReason::Failed,
                    })
                    .await;
                return;
            }
        };
        let (ended_sender, ended) = watch::channel(None);
        let outcome = self.start_and_watch(&mut starting, ended).await;
        let reason = match &outcome {
            Ok(reason) => *reason,
            Err(_) => EndReason::Failed,
        };
        let orderly = starting.left_in_order();
        let cleaned = end::clean_up(starting, &self.order, outcome.is_err(), orderly).await;
        let failure = outcome.err().map(|failure| Failure {
            log_dir: cleaned.log_dir,
            ..*failure
        });
        end::write_down(&self.order, reason, cleaned.orderly, failure.as_ref());
        if let Some(failure) = failure {
            self.events.send(&Event::Failed(failure)).await;
        }
        let event = Event::Ended { reason };
        self.events.send(&event).await;
        if ended_sender.send(Some(event)).is_ok() {
            // Lets the control connections pass it on before this process ends.
            tokio::task::yield_now().await;
        }
    }

    async fn start_and_watch(
        &mut self,
        starting: &mut Starting,
        ended: watch::Receiver<Option<Event>>,
    ) -> Result<EndReason, Box<Failure>> {
        for phase in phase::PHASES {
            if let Some(name) = phase.name(starting) {
                let phase = name.into();
                self.events.send(&Event::Phase { phase }).await;
            }
            let ends_anyhow = self.lifetime.ends_anyhow();
            let ending = tokio::select! {
                done = phase.run(&self.order, starting) => {
                    done?;
                    continue;
                }
                ending = in_use::asked_to_end(&mut self.heard, self.order.lease, None) => ending,
                () = until(ends_anyhow) => Ending { reason: EndReason::Expired, orderly: false },
            };
            // Nothing runs in it yet that an orderly end could save.
            return Ok(ending.reason);
        }
        let up = starting.up(self.begun)?;
        self.lifetime.used_at(Instant::now());
        let (opened, streams) = watch::channel(Streams::default());
        tokio::spawn(bridge::serve(up.agent_listener, up.link.clone(), opened));
        tokio::spawn(serve_control(
            up.control_listener,
            self.requests.clone(),
            ended,
        ));
        self.events.send(&Event::Ready(up.ready)).await;
        let link = up.link.clone();
        let in_use = InUse::new(&self.order, starting, link, self.lifetime, streams);
        let ending = in_use.watch(&mut self.heard).await?;
        if ending.orderly {
            power_off(starting, &up.link).await;
        }
        Ok(ending.reason)
    }
}

/// Waits until `at`; for ever if there is no such time.
async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

async fn power_off(starting: &mut Starting, link: &GuestLink) {
    let whole = async {
        if agent_call::power_off(link, POWER_OFF_DEADLINE)
            .await
            .is_ok()
        {
            let _ = starting.vmm_ended().await;
        }
    };
    // What did not end by then is killed by the cleaning up.
    let _ = tokio::time::timeout(POWER_OFF_DEADLINE, whole).await;
}

fn unix_nanos() -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}
