//! One service: what its requests and its task share. Only the task changes it; nothing here
//! waits.

use std::cell::{Cell, Ref, RefCell};
use std::path::Path;

use pyro_protocol::code::ErrorReply;
use pyro_protocol::exec::{EXIT_SIGNAL_BASE, Program};
use pyro_protocol::redact::Redactor;
use pyro_protocol::service::{
    LastExit, ReadLogs, Readiness, ServiceLogs, ServiceRecord, ServiceState, StartService,
    StopReason,
};
use tokio::sync::watch;

use super::logs::{Logs, Stream};
use crate::clock::seconds;
use crate::exec::Exit;
use crate::machine::Freezer;

/// One service.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) order: StartService,
    record: RefCell<ServiceRecord>,
    logs: RefCell<Logs>,
    /// It ended and nothing that it started is left.
    settled: Cell<bool>,
    /// Says when the logs can be written.
    freezer: Freezer,
    /// The record or the logs changed.
    changed: watch::Sender<()>,
}

impl Service {
    /// A service that was just started as process `pid`.
    pub(super) fn new(
        directory: &Path,
        freezer: Freezer,
        order: StartService,
        pid: i32,
    ) -> Result<Self, ErrorReply> {
        let logs = Logs::create(directory, &order)?;
        let started_at = seconds();
        let record = ServiceRecord {
            service_name: order.service_name.clone(),
            command: shown_command(&order),
            cwd: order.exec.cwd.clone(),
            state: ServiceState::Running,
            started_at,
            readiness: shown_readiness(&order),
            ready_at: order.readiness.is_none().then_some(started_at),
            ended_at: None,
            exit_code: None,
            pid,
            stop_reason: None,
            signal: None,
            restart: order.restart.when,
            restarts: 0,
            last_exit: None,
            version: 0,
            error: None,
        };
        Ok(Self {
            order,
            record: RefCell::new(record),
            logs: RefCell::new(logs),
            settled: Cell::new(false),
            freezer,
            changed: watch::Sender::new(()),
        })
    }

    pub(super) fn record(&self) -> ServiceRecord {
        self.record.borrow().clone()
    }

    pub(super) fn state(&self) -> ServiceState {
        self.record.borrow().state
    }

    pub(super) fn is_ready(&self) -> bool {
        self.record.borrow().ready_at.is_some()
    }

    pub(super) fn is_settled(&self) -> bool {
        self.settled.get()
    }

    pub(super) fn logs(&self) -> Ref<'_, Logs> {
        self.logs.borrow()
    }

    pub(super) fn read_logs(&self, read: &ReadLogs) -> Result<ServiceLogs, ErrorReply> {
        self.logs().read(read, self.record(), self.is_settled())
    }

    /// Tells of every change from now on.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Output came.
    pub(super) async fn put(&self, stream: Stream, bytes: &[u8]) {
        // The service waits meanwhile, as whatever writes to a frozen disk does.
        self.freezer.thawed().await;
        self.logs.borrow_mut().put(stream, bytes);
        self.changed.send_replace(());
    }

    /// Nobody can wait longer for output that is held back.
    pub(super) async fn flush_logs(&self) {
        self.freezer.thawed().await;
        self.logs.borrow_mut().flush();
        self.changed.send_replace(());
    }

    /// It was started again, by itself or on request.
    pub(super) fn started_again(&self, pid: i32, by_itself: bool) {
        self.change(|record| {
            record.last_exit = ended(record);
            record.state = ServiceState::Running;
            record.started_at = seconds();
            record.ready_at = record.readiness.is_none().then_some(record.started_at);
            record.ended_at = None;
            record.exit_code = None;
            record.signal = None;
            record.stop_reason = None;
            record.error = None;
            record.pid = pid;
            record.restarts = if by_itself { record.restarts + 1 } else { 0 };
        });
    }

    /// It could not be started again.
    pub(super) fn start_failed(&self, error: ErrorReply) {
        self.change(|record| {
            record.state = ServiceState::Failed;
            record.stop_reason = Some(StopReason::StartFailed);
            record.error = Some(error);
        });
    }

    pub(super) fn ready(&self) {
        self.change(|record| record.ready_at = Some(seconds()));
    }

    /// Its process ended.
    pub(super) fn ended(&self, exit: Exit, state: ServiceState, reason: Option<StopReason>) {
        self.change(|record| {
            record.state = state;
            record.stop_reason = reason;
            record.ended_at = Some(seconds());
            (record.exit_code, record.signal) = match exit {
                Exit::Code(code) => (Some(code), None),
                Exit::Signal(signal) => (Some(EXIT_SIGNAL_BASE + signal), Some(signal)),
            };
        });
    }

    /// What comes after an end was decided anew.
    pub(super) fn becomes(&self, state: ServiceState) {
        self.change(|record| record.state = state);
    }

    /// Whether it ended and nothing that it started is left.
    pub(super) fn settle(&self, settled: bool) {
        self.settled.set(settled);
        self.changed.send_replace(());
    }

    fn change(&self, change: impl FnOnce(&mut ServiceRecord)) {
        let mut record = self.record.borrow_mut();
        change(&mut record);
        record.version += 1;
        drop(record);
        self.changed.send_replace(());
    }
}

fn ended(record: &ServiceRecord) -> Option<LastExit> {
    Some(LastExit {
        ended_at: record.ended_at?,
        exit_code: record.exit_code?,
        signal: record.signal,
        stop_reason: record.stop_reason,
    })
}

/// The command as text, without the secrets that the logs must not show either.
fn shown_command(order: &StartService) -> String {
    let command = match &order.exec.program {
        Program::Shell(line) => line.clone().into_bytes(),
        Program::Argv(argv) => argv.join(&b' '),
    };
    shown(&command, &order.redact_values)
}

/// The readiness as it was asked for, without secrets.
fn shown_readiness(order: &StartService) -> Option<Readiness> {
    let shown = |text: &str| shown(text.as_bytes(), &order.redact_values);
    Some(match order.readiness.as_ref()? {
        Readiness::File { path } => Readiness::File { path: shown(path) },
        Readiness::Tcp { address } => Readiness::Tcp {
            address: shown(address),
        },
        Readiness::Http { url } => Readiness::Http { url: shown(url) },
        Readiness::Command { command } => Readiness::Command {
            command: shown(command),
        },
    })
}

fn shown(text: &[u8], secrets: &[String]) -> String {
    let mut redactor = Redactor::new(secrets);
    let mut shown = Vec::with_capacity(text.len());
    redactor.push(text, &mut shown);
    redactor.flush(&mut shown);
    String::from_utf8_lossy(&shown).into_owned()
}
