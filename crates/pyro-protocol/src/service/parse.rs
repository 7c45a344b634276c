//! From the fields of a request to its checked form.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::{
    FollowService, LogCursors, LogStart, ReadLogs, Readiness, RestartPolicy, RestartWhen,
    ServiceName, ServiceRequest, StartService, WaitService, WaitUntil,
};
use crate::code::{ErrorCode, ErrorReply};
use crate::exec::{Exec, ExecRequest, Program, Rlimit};
use crate::limits::{
    DEFAULT_SERVICE_LOG, MAX_REDACT_BYTES, MAX_REDACT_VALUES, MAX_SERVICE_INTERVAL_MS,
    MAX_SERVICE_LOG, MAX_SERVICE_LOG_READ, MAX_SERVICE_ORDER, MAX_SERVICE_READY_MS,
    MAX_SERVICE_RESTART_DELAY_MS, MAX_SERVICE_RESTARTS, MAX_SERVICE_STOP_MS, MAX_SERVICE_WAIT_MS,
    MIN_SERVICE_LOG,
};
use crate::request::invalid;

/// Time to become ready, in seconds, of a service that names none.
const DEFAULT_READY_SECONDS: f64 = 30.0;

/// Pause between two looks at the readiness, in milliseconds.
const DEFAULT_INTERVAL_MS: u64 = 500;

/// Time between TERM and KILL, in milliseconds.
const DEFAULT_STOP_MS: u64 = 5000;

/// Automatic restarts in a row.
const DEFAULT_RESTARTS: u32 = 10;

/// Pause before the first automatic restart, in milliseconds.
const DEFAULT_RESTART_DELAY_MS: u64 = 500;

impl ServiceRequest {
    /// Parses a request whose `action` is one of [`super::ACTIONS`].
    pub(crate) fn parse(action: &str, value: Value) -> Result<Self, ErrorReply> {
        let mut fields: Fields = serde_json::from_value(value)
            .map_err(|error| invalid(format!("malformed request: {error}")))?;
        Ok(match action {
            "list_services" => Self::List,
            "start_service" => Self::Start(Box::new(fields.start()?)),
            "status_service" => Self::Status {
                service_name: fields.name()?,
            },
            "logs_service" => Self::Logs(ReadLogs {
                service_name: fields.name()?,
                from: fields.log_start()?,
                max_bytes: fields.max_bytes()?,
            }),
            "stop_service" => Self::Stop {
                service_name: fields.name()?,
                stop_timeout: fields.stop_timeout()?,
            },
            "wait_service" => Self::Wait(fields.wait()?),
            "restart_service" => Self::Restart {
                service_name: fields.name()?,
            },
            "remove_service" => Self::Remove {
                service_name: fields.name()?,
            },
            "follow_service" => Self::Follow(FollowService {
                service_name: fields.name()?,
                from: fields.log_start()?,
            }),
            _ => {
                return Err(ErrorReply::new(
                    ErrorCode::Unsupported,
                    "unknown action of services",
                ));
            }
        })
    }
}

/// Every field of every request about services. The original's hosts may send null for one
/// that they do not use.
#[derive(Deserialize)]
struct Fields {
    service_name: Option<String>,
    command: Option<String>,
    argv: Option<Vec<String>>,
    argv_b64: Option<Vec<String>>,
    cwd: Option<String>,
    env: Option<BTreeMap<String, String>>,
    user: Option<String>,
    umask: Option<String>,
    rlimits: Option<BTreeMap<Rlimit, u64>>,
    readiness: Option<Value>,
    ready_timeout_seconds: Option<f64>,
    ready_interval_ms: Option<u64>,
    redact_values: Option<Vec<String>>,
    restart: Option<RestartWhen>,
    max_restarts: Option<u32>,
    restart_delay_ms: Option<u64>,
    log_bytes: Option<u64>,
    stop_timeout_ms: Option<u64>,
    tail_lines: Option<u64>,
    since: Option<LogCursors>,
    max_bytes: Option<usize>,
    until: Option<String>,
    version: Option<u64>,
    deadline_ms: Option<u64>,
}

impl Fields {
    fn name(&self) -> Result<ServiceName, ErrorReply> {
        ServiceName::parse(
            self.service_name
                .as_deref()
                .ok_or_else(|| invalid("`service_name` is missing"))?,
        )
    }

    fn start(&mut self) -> Result<StartService, ErrorReply> {
        let service_name = self.name()?;
        let exec = self.exec()?;
        let readiness = self.readiness()?;
        check_size(&exec, readiness.as_ref())?;
        let ready_timeout = Duration::try_from_secs_f64(
            self.ready_timeout_seconds.unwrap_or(DEFAULT_READY_SECONDS),
        )
        .ok()
        .filter(|limit| !limit.is_zero())
        .filter(|limit| *limit <= Duration::from_millis(MAX_SERVICE_READY_MS))
        .ok_or_else(|| {
            let most = MAX_SERVICE_READY_MS / 1000;
            invalid(format!(
                "`ready_timeout_seconds` must be above zero and at most {most}"
            ))
        })?;
        let interval = self.ready_interval_ms.unwrap_or(DEFAULT_INTERVAL_MS);
        let log_bytes = self.log_bytes.unwrap_or(DEFAULT_SERVICE_LOG);
        within("ready_interval_ms", interval, 1, MAX_SERVICE_INTERVAL_MS)?;
        within("log_bytes", log_bytes, MIN_SERVICE_LOG, MAX_SERVICE_LOG)?;
        Ok(StartService {
            service_name,
            exec,
            readiness,
            ready_timeout,
            ready_interval: Duration::from_millis(interval),
            redact_values: self.redact_values()?,
            restart: self.restart()?,
            log_bytes,
            stop_timeout: self
                .stop_timeout()?
                .unwrap_or(Duration::from_millis(DEFAULT_STOP_MS)),
        })
    }

    /// Program, directory, variables and rights obey the rules of an exec.
    fn exec(&mut self) -> Result<Exec, ErrorReply> {
        let exec = ExecRequest {
            command: self.command.take(),
            argv: self.argv.take(),
            argv_b64: self.argv_b64.take(),
            cwd: Some(self.cwd.take().unwrap_or_else(|| "/workspace".into())),
            env: self.env.take(),
            user: self.user.take(),
            umask: self.umask.take(),
            rlimits: self.rlimits.take(),
            ..ExecRequest::default()
        }
        .check()?;
        match &exec.program {
            Program::Shell(line) if line.trim().is_empty() => Err(invalid("`command` is missing")),
            Program::Shell(_) | Program::Argv(_) => Ok(exec),
        }
    }

    fn readiness(&mut self) -> Result<Option<Readiness>, ErrorReply> {
        let Some(mut value) = self.readiness.take() else {
            return Ok(None);
        };
        // As the original's hosts do before they send it.
        if let Some(Value::String(kind)) = value.get_mut("type") {
            *kind = kind.trim().to_ascii_lowercase();
        }
        let readiness: Readiness = serde_json::from_value(value)
            .map_err(|error| invalid(format!("malformed `readiness`: {error}")))?;
        readiness.probe()?;
        Ok(Some(readiness))
    }

    fn redact_values(&mut self) -> Result<Vec<String>, ErrorReply> {
        let mut values = self.redact_values.take().unwrap_or_default();
        values.retain(|value| !value.is_empty());
        let bytes: usize = values.iter().map(String::len).sum();
        if values.len() > MAX_REDACT_VALUES || bytes > MAX_REDACT_BYTES {
            return Err(invalid(format!(
                "`redact_values` exceeds {MAX_REDACT_VALUES} values or {MAX_REDACT_BYTES} bytes"
            )));
        }
        Ok(values)
    }

    fn restart(&self) -> Result<RestartPolicy, ErrorReply> {
        let most = self.max_restarts.unwrap_or(DEFAULT_RESTARTS);
        let delay = self.restart_delay_ms.unwrap_or(DEFAULT_RESTART_DELAY_MS);
        within("max_restarts", most.into(), 0, MAX_SERVICE_RESTARTS.into())?;
        within("restart_delay_ms", delay, 1, MAX_SERVICE_RESTART_DELAY_MS)?;
        Ok(RestartPolicy {
            when: self.restart.unwrap_or_default(),
            most,
            delay: Duration::from_millis(delay),
        })
    }

    fn stop_timeout(&self) -> Result<Option<Duration>, ErrorReply> {
        if let Some(ms) = self.stop_timeout_ms {
            within("stop_timeout_ms", ms, 0, MAX_SERVICE_STOP_MS)?;
        }
        Ok(self.stop_timeout_ms.map(Duration::from_millis))
    }

    fn log_start(&self) -> Result<LogStart, ErrorReply> {
        match (self.tail_lines, self.since) {
            (None, None) => Ok(LogStart::Kept),
            (Some(lines), None) => Ok(LogStart::Tail(lines)),
            (None, Some(cursors)) => Ok(LogStart::Since(cursors)),
            (Some(_), Some(_)) => Err(invalid("`tail_lines` and `since` exclude each other")),
        }
    }

    fn max_bytes(&self) -> Result<usize, ErrorReply> {
        let max_bytes = self.max_bytes.unwrap_or(MAX_SERVICE_LOG_READ);
        if max_bytes == 0 || max_bytes > MAX_SERVICE_LOG_READ {
            return Err(invalid(format!(
                "`max_bytes` must be 1 to {MAX_SERVICE_LOG_READ}"
            )));
        }
        Ok(max_bytes)
    }

    fn wait(&self) -> Result<WaitService, ErrorReply> {
        let until = match (self.until.as_deref().unwrap_or("ended"), self.version) {
            ("ready", None) => WaitUntil::Ready,
            ("ended", None) => WaitUntil::Ended,
            ("changed", Some(version)) => WaitUntil::Changed(version),
            ("changed", None) => return Err(invalid("`changed` needs the `version` last seen")),
            _ => {
                return Err(invalid(
                    "`until` must be `ready`, `ended`, or `changed` with a `version`",
                ));
            }
        };
        let deadline = self
            .deadline_ms
            .ok_or_else(|| invalid("`deadline_ms` is missing"))?;
        within("deadline_ms", deadline, 0, MAX_SERVICE_WAIT_MS)?;
        Ok(WaitService {
            service_name: self.name()?,
            until,
            deadline: Duration::from_millis(deadline),
        })
    }
}

fn within(name: &str, value: u64, least: u64, most: u64) -> Result<(), ErrorReply> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(invalid(format!("`{name}` must be {least} to {most}")))
}

fn check_size(exec: &Exec, readiness: Option<&Readiness>) -> Result<(), ErrorReply> {
    let program: usize = match &exec.program {
        Program::Shell(line) => line.len(),
        Program::Argv(argv) => argv.iter().map(Vec::len).sum(),
    };
    let env = exec
        .env
        .iter()
        .map(|(name, value)| name.len() + value.len());
    let readiness = readiness.map_or(0, Readiness::size);
    if program + env.sum::<usize>() + readiness > MAX_SERVICE_ORDER {
        return Err(invalid(format!(
            "command, variables and readiness exceed {MAX_SERVICE_ORDER} bytes"
        )));
    }
    Ok(())
}
