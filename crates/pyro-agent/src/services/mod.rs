//! Services: named background processes that outlive the stream that started them.
//!
//! Owns the register of services. Each service is one task that alone changes it ([`task`]);
//! requests send it orders and read its record. The machine's are the services, not a peer's:
//! no peer's leaving ends a start, a stop or a restart that was asked for.

mod backoff;
mod follow;
mod http;
mod logs;
mod probe;
mod service;
mod task;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use pyro_protocol::code::{ErrorCode, ErrorReply};
use pyro_protocol::limits::MAX_SERVICES;
use pyro_protocol::service::{
    ServiceName, ServiceRecord, ServiceRequest, ServiceState, ServiceWaited, StartService,
    WaitService, WaitUntil, WaitedReason,
};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::exec::{Process, Reaper};
use crate::files::Files;
use crate::machine::Freezer;
use crate::wire::{self, object};
use probe::Prober;
use service::Service;
use task::{Order, Task};

/// Where the logs lie in a machine: on its disk, which goes with it. `/run` is memory.
const DIRECTORY: &str = "/var/lib/pyro/services";

/// The same outside a machine, where an agent is only tested. The files have no names.
const DIRECTORY_OUTSIDE: &str = "/tmp";

/// Orders that may wait for a service's task, which never makes them wait for long.
const ORDER_QUEUE: usize = 16;

/// How much longer than its own time limits a service may take to carry out an order.
const SLACK: Duration = Duration::from_secs(15);

/// The services of one agent. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Services {
    prober: Prober,
    directory: Rc<PathBuf>,
    freezer: Freezer,
    register: Rc<RefCell<Register>>,
}

#[derive(Debug, Default)]
struct Register {
    started: u64,
    services: BTreeMap<ServiceName, Entry>,
}

/// A service and the way to its task, which ends when this is dropped.
#[derive(Debug)]
struct Entry {
    number: u64,
    service: Rc<Service>,
    orders: mpsc::Sender<Order>,
}

impl Services {
    /// No services yet.
    pub(crate) fn new(reaper: Reaper, files: Files, freezer: Freezer) -> Self {
        let directory = if rustix::process::getpid().is_init() {
            DIRECTORY
        } else {
            DIRECTORY_OUTSIDE
        };
        Self {
            prober: Prober {
                reaper,
                files,
                freezer: freezer.clone(),
            },
            directory: Rc::new(directory.into()),
            freezer,
            register: Rc::default(),
        }
    }

    /// Does what `request` asks and writes the reply.
    pub(crate) async fn answer<R, W>(
        &self,
        request: ServiceRequest,
        reader: R,
        writer: &mut W,
    ) -> std::io::Result<()>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        if let ServiceRequest::Follow(order) = &request {
            return match self.find(&order.service_name) {
                Ok((service, _)) => follow::follow(&service, order, reader, writer).await,
                Err(error) => wire::write_line(writer, &error).await,
            };
        }
        wire::tell(writer, self.reply(request).await).await
    }

    /// Ends every service, the one started last first, with `grace` between TERM and KILL,
    /// and starts none of them again. Waits for nothing.
    pub(crate) fn stop_all(&self, grace: Duration) {
        let register = self.register.borrow();
        let mut entries: Vec<&Entry> = register.services.values().collect();
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.number));
        for entry in entries {
            let (done, _nobody_waits) = oneshot::channel();
            let orders = entry.orders.clone();
            let timeout = Some(grace);
            tokio::task::spawn_local(async move {
                // A task that is gone has nothing left to stop.
                let _ = orders.send(Order::Stop { timeout, done }).await;
            });
        }
    }

    /// How many have a process that lives.
    pub(crate) fn running(&self) -> usize {
        let register = self.register.borrow();
        let services = register.services.values();
        services
            .filter(|entry| entry.service.state() == ServiceState::Running)
            .count()
    }

    /// The reply to a request that gets one line.
    async fn reply(&self, request: ServiceRequest) -> Result<Value, ErrorReply> {
        match request {
            ServiceRequest::Start(order) => object(&self.start(*order).await?, json!({})),
            ServiceRequest::Status { service_name } => {
                object(&self.find(&service_name)?.0.record(), json!({}))
            }
            ServiceRequest::Logs(order) => {
                let (service, _) = self.find(&order.service_name)?;
                object(&service.read_logs(&order)?, json!({}))
            }
            ServiceRequest::Stop {
                service_name,
                stop_timeout,
            } => {
                let (service, orders) = self.find(&service_name)?;
                let limit = stop_timeout.unwrap_or(service.order.stop_timeout);
                let stop = |done| Order::Stop {
                    timeout: stop_timeout,
                    done,
                };
                let record = if service.state().is_final() {
                    service.record()
                } else {
                    carry_out(&orders, stop, limit).await?
                };
                object(&record, json!({}))
            }
            ServiceRequest::List => {
                let register = self.register.borrow();
                let services: Vec<ServiceRecord> = register
                    .services
                    .values()
                    .map(|entry| entry.service.record())
                    .collect();
                let running = |record: &&ServiceRecord| record.state == ServiceState::Running;
                Ok(json!({
                    "count": services.len(),
                    "running_count": services.iter().filter(running).count(),
                    "services": services,
                }))
            }
            ServiceRequest::Wait(order) => object(&self.wait(&order).await?, json!({})),
            ServiceRequest::Restart { service_name } => {
                let (service, orders) = self.find(&service_name)?;
                let order = &service.order;
                let limit = order.stop_timeout + order.ready_timeout + order.stop_timeout;
                let record = carry_out(&orders, |done| Order::Restart { done }, limit).await?;
                object(&record, json!({}))
            }
            ServiceRequest::Remove { service_name } => self.remove(&service_name).await,
            ServiceRequest::Follow(_) => unreachable!("answered with frames"),
        }
    }

    async fn start(&self, order: StartService) -> Result<ServiceRecord, ErrorReply> {
        let name = order.service_name.clone();
        if let Ok((service, orders)) = self.find(&name)
            && service.state().is_final()
            && !service.is_settled()
        {
            // What the last one left behind may hold the new one's ports.
            carry_out(&orders, |done| Order::Clear { done }, Duration::ZERO).await?;
        }
        let limit = order.ready_timeout + order.stop_timeout + SLACK;
        // Its logs are made on the disk, and an older service's may have to go.
        self.freezer.thawed().await;
        let (service, ready) = self.begin(order)?;
        // A service that is started again and again is told as it stands when its time for
        // the first start has passed.
        Ok(match timeout(limit, ready).await {
            Ok(Ok(record)) => record,
            Ok(Err(_)) | Err(_) => service.record(),
        })
    }

    /// Starts a service and its task. Waits for nothing, so that of two starts of one name
    /// one is refused.
    fn begin(
        &self,
        order: StartService,
    ) -> Result<(Rc<Service>, oneshot::Receiver<ServiceRecord>), ErrorReply> {
        let mut register = self.register.borrow_mut();
        let name = order.service_name.clone();
        register.make_room(&name)?;
        let process = Process::start(&self.prober.reaper, &order.exec)?;
        let service = Rc::new(Service::new(
            &self.directory,
            self.freezer.clone(),
            order,
            process.pid(),
        )?);
        let (orders, received) = mpsc::channel(ORDER_QUEUE);
        let (done, ready) = oneshot::channel();
        let task = Task::new(Rc::clone(&service), self.prober.clone(), received, done);
        tokio::task::spawn_local(task.run(process));
        register.started += 1;
        let entry = Entry {
            number: register.started,
            service: Rc::clone(&service),
            orders,
        };
        register.services.insert(name, entry);
        Ok((service, ready))
    }

    async fn wait(&self, order: &WaitService) -> Result<ServiceWaited, ErrorReply> {
        let (service, _) = self.find(&order.service_name)?;
        let mut changes = service.changes();
        let happened = async {
            loop {
                changes.mark_unchanged();
                let record = service.record();
                if let Some(reason) = reason(&record, order.until) {
                    return ServiceWaited { record, reason };
                }
                if changes.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        Ok(timeout(order.deadline, happened)
            .await
            .unwrap_or_else(|_elapsed| ServiceWaited {
                record: service.record(),
                reason: WaitedReason::Deadline,
            }))
    }

    async fn remove(&self, name: &ServiceName) -> Result<Value, ErrorReply> {
        let (service, orders) = self.find(name)?;
        let still_ended = |services: &Self| {
            let (now, _) = services.find(name)?;
            if Rc::ptr_eq(&now, &service) && now.state().is_final() {
                return Ok(());
            }
            Err(ErrorReply::new(
                ErrorCode::FailedPrecondition,
                format!("the service `{}` runs; stop it first", name.as_str()),
            ))
        };
        still_ended(self)?;
        if !service.is_settled() {
            carry_out(&orders, |done| Order::Clear { done }, Duration::ZERO).await?;
            still_ended(self)?;
        }
        self.freezer.thawed().await;
        self.register.borrow_mut().services.remove(name);
        object(&service.record(), json!({"removed": true}))
    }

    fn find(&self, name: &ServiceName) -> Result<(Rc<Service>, mpsc::Sender<Order>), ErrorReply> {
        let register = self.register.borrow();
        match register.services.get(name) {
            Some(entry) => Ok((Rc::clone(&entry.service), entry.orders.clone())),
            None => Err(ErrorReply::new(
                ErrorCode::NotFound,
                format!("there is no service `{}`", name.as_str()),
            )),
        }
    }
}

impl Register {
    /// Makes sure that there may be a service `name`: forgets the oldest that has ended if
    /// there are too many.
    fn make_room(&mut self, name: &ServiceName) -> Result<(), ErrorReply> {
        if let Some(entry) = self.services.get(name) {
            if entry.service.state().is_final() {
                return Ok(());
            }
            return Err(ErrorReply::new(
                ErrorCode::AlreadyExists,
                format!("the service `{}` is running", name.as_str()),
            ));
        }
        if self.services.len() < MAX_SERVICES {
            return Ok(());
        }
        let ended = self
            .services
            .iter()
            .filter(|(_, entry)| entry.service.state().is_final());
        let oldest = ended.min_by_key(|(_, entry)| entry.number);
        match oldest.map(|(name, _)| name.clone()) {
            Some(name) => {
                self.services.remove(&name);
                Ok(())
            }
            None => Err(ErrorReply::new(
                ErrorCode::LimitExceeded,
                format!("{MAX_SERVICES} services run already; stop one first"),
            )),
        }
    }
}

/// Why a wait for `until` is over, if it is.
fn reason(record: &ServiceRecord, until: WaitUntil) -> Option<WaitedReason> {
    let over = match until {
        WaitUntil::Ready => record.ready_at.map(|_| WaitedReason::Ready),
        WaitUntil::Ended => None,
        WaitUntil::Changed(seen) => (record.version != seen).then_some(WaitedReason::Changed),
    };
    over.or_else(|| record.state.is_final().then_some(WaitedReason::Ended))
}

/// Has a service's task carry out an order, within the order's own time `limit` and some.
async fn carry_out(
    orders: &mpsc::Sender<Order>,
    order: impl FnOnce(oneshot::Sender<ServiceRecord>) -> Order,
    limit: Duration,
) -> Result<ServiceRecord, ErrorReply> {
    let (done, outcome) = oneshot::channel();
    let forgotten = || ErrorReply::new(ErrorCode::NotFound, "the service was removed meanwhile");
    orders.send(order(done)).await.map_err(|_| forgotten())?;
    match timeout(limit + SLACK, outcome).await {
        Ok(outcome) => outcome.map_err(|_| forgotten()),
        Err(_elapsed) => Err(ErrorReply::new(
            ErrorCode::Timeout,
            "the service did not end in time, not even after KILL",
        )),
    }
}
