//! The few calls that a supervisor makes to the agent itself. Everything else passes
//! through [`crate::bridge`] unseen.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pyro_protocol::code::ErrorReply;
use pyro_protocol::job::{JobState, JobStatus};
use pyro_protocol::request::Hello;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

use crate::guest_link::{ATTEMPT_EVERY, GuestLink};

/// Longest reply to one of these calls, in bytes: a list of as many jobs as an agent remembers has some 200 KiB.
const MAX_REPLY: u64 = 512 * 1024;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("the agent did not answer within {} ms", after.as_millis())]
    Timeout { after: Duration },
    #[error("the link to the guest is dead: {reason}")]
    Link { reason: String },
    #[error("the agent refused: {}", reply.error)]
    Refused { reply: ErrorReply },
    #[error("the agent answered something else: {reason}")]
    Malformed { reason: String },
}

pub(crate) async fn hello(link: &GuestLink, deadline: Duration) -> Result<Hello, CallError> {
    call(link, json!({"action": "hello"}), deadline).await
}

/// Says hello until it is answered: streams may be cut as long as the guest's driver does not know that it was started, captured
/// or restored. What must not be done twice comes after that.
pub(crate) async fn meet(link: &GuestLink, deadline: Duration) -> Result<Hello, CallError> {
    let answered = async {
        loop {
            match hello(link, deadline).await {
                Err(CallError::Link { .. } | CallError::Malformed { .. }) => {}
                other => return other,
            }
            sleep(ATTEMPT_EVERY).await;
        }
    };
    timeout(deadline, answered)
        .await
        .map_err(|_| CallError::Timeout { after: deadline })?
}

pub(crate) async fn ping(link: &GuestLink, deadline: Duration) -> Result<(), CallError> {
    call::<Value>(link, json!({"action": "ping"}), deadline)
        .await
        .map(drop)
}

/// What a guest is given when it begins to work, or goes on.
#[derive(Clone, Debug, Default)]
pub(crate) struct NewLife {
    /// Random bytes for its entropy pool.
    pub(crate) seed: Option<[u8; 32]>,
    /// 32 hexadecimal digits.
    pub(crate) machine_id: Option<String>,
    pub(crate) hostname: Option<String>,
}

/// Thaws what is frozen, sets the clock, and gives the guest what `life` has.
pub(crate) async fn revive(
    link: &GuestLink,
    unix_ns: u64,
    life: &NewLife,
    deadline: Duration,
) -> Result<(), CallError> {
    let request = json!({
        "action": "revive",
        "unix_ns": unix_ns,
        "seed_b64": life.seed.map(|seed| STANDARD.encode(seed)),
        "machine_id": life.machine_id,
        "hostname": life.hostname,
    });
    call::<Value>(link, request, deadline).await.map(drop)
}

/// Lets nothing write to the guest's disks, for `hold` at the most.
pub(crate) async fn freeze(
    link: &GuestLink,
    hold: Duration,
    deadline: Duration,
) -> Result<(), CallError> {
    let max_ms = u64::try_from(hold.as_millis()).unwrap_or(u64::MAX);
    let request = json!({"action": "freeze", "max_ms": max_ms});
    call::<Value>(link, request, deadline).await.map(drop)
}

/// Runs a command and forgets it.
pub(crate) async fn exec(
    link: &GuestLink,
    command: &str,
    deadline: Duration,
) -> Result<(), CallError> {
    let request = json!({"command": command, "timeout_seconds": deadline.as_secs()});
    call::<Value>(link, request, deadline).await.map(drop)
}

/// How jobs have used a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JobUse {
    /// Not at all.
    None,
    /// One runs.
    Running,
    /// The last one ended so long ago.
    EndedBefore(Duration),
}

#[derive(Debug, Deserialize)]
struct Jobs {
    jobs: Vec<JobStatus>,
    /// The guest's clock, by which their times are told: it may be far from the host's.
    unix_ms: u64,
}

/// Asks for the jobs.
pub(crate) async fn job_use(link: &GuestLink, deadline: Duration) -> Result<JobUse, CallError> {
    let request = json!({"action": "job_list"});
    let listed: Jobs = call(link, request, deadline).await?;
    Ok(use_by(&listed.jobs, listed.unix_ms))
}

fn use_by(jobs: &[JobStatus], unix_ms: u64) -> JobUse {
    if jobs.iter().any(|job| job.state == JobState::Running) {
        return JobUse::Running;
    }
    let ends = jobs.iter().filter_map(|job| {
        let end = job.end.as_ref()?;
        Some(job.started_at_ms.saturating_add(end.duration_ms))
    });
    match ends.max() {
        Some(last) => JobUse::EndedBefore(Duration::from_millis(unix_ms.saturating_sub(last))),
        None => JobUse::None,
    }
}

pub(crate) async fn power_off(link: &GuestLink, deadline: Duration) -> Result<(), CallError> {
    call::<Value>(link, json!({"action": "power_off"}), deadline)
        .await
        .map(drop)
}

async fn call<T: for<'de> Deserialize<'de>>(
    link: &GuestLink,
    request: Value,
    deadline: Duration,
) -> Result<T, CallError> {
    let reply = timeout(deadline, exchange(link, request))
        .await
        .map_err(|_| CallError::Timeout { after: deadline })??;
    let value: Value = serde_json::from_slice(&reply).map_err(|error| CallError::Malformed {
        reason: error.to_string(),
    })?;
    if value.get("error").is_some() {
        let reply = serde_json::from_value(value).map_err(|error| CallError::Malformed {
            reason: error.to_string(),
        })?;
        return Err(CallError::Refused { reply });
    }
    serde_json::from_value(value).map_err(|error| CallError::Malformed {
        reason: error.to_string(),
    })
}

async fn exchange(link: &GuestLink, request: Value) -> Result<Vec<u8>, CallError> {
    let dead = |error: &dyn std::fmt::Display| CallError::Link {
        reason: error.to_string(),
    };
    let mut stream = link.open().await.map_err(|error| dead(&error))?;
    let line = format!("{request}\n");
    stream
        .write_all(line.as_bytes())
        .await
        .map_err(|error| dead(&error))?;
    stream.flush().await.map_err(|error| dead(&error))?;
    let mut reply = Vec::new();
    stream
        .take(MAX_REPLY)
        .read_to_end(&mut reply)
        .await
        .map_err(|error| dead(&error))?;
    Ok(reply)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pyro_link::Session;

    /// A guest that answers every request with `reply` and does not stop there.
    fn guest_that_answers(reply: Vec<u8>) -> GuestLink {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let (host, link, _) = Session::host(ours);
        let (guest, _, mut incoming) = Session::guest(theirs);
        tokio::spawn(host.run());
        tokio::spawn(guest.run());
        tokio::spawn(async move {
            while let Some(mut stream) = incoming.next().await {
                let _ = stream.write_all(&reply).await;
                let _ = stream.shutdown().await;
            }
        });
        GuestLink::Session(link)
    }

    #[tokio::test]
    async fn a_reply_beyond_its_bound_is_refused() {
        let mut long = br#"{"generation": 1, "version": ""#.to_vec();
        long.resize(1024 * 1024, b'x');
        long.extend_from_slice(br#""}"#);
        let error = hello(&guest_that_answers(long), Duration::from_secs(10))
            .await
            .unwrap_err();
        assert!(matches!(error, CallError::Malformed { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_refusal_and_a_silence_are_told_apart() {
        let refused = guest_that_answers(br#"{"error": "no", "code": "unsupported"}"#.to_vec());
        let error = ping(&refused, Duration::from_secs(10)).await.unwrap_err();
        assert_eq!(error.to_string(), "the agent refused: no");
        let (ours, _silent) = tokio::io::duplex(1024);
        let (host, link, _) = Session::host(ours);
        tokio::spawn(host.run());
        let link = GuestLink::Session(link);
        let error = ping(&link, Duration::from_millis(10)).await.unwrap_err();
        assert!(matches!(error, CallError::Timeout { .. }), "{error}");
    }

    #[test]
    fn jobs_use_a_guest_until_the_last_one_ends() {
        let job = |state, started_at_ms, duration_ms: Option<u64>| {
            let end = duration_ms.map(|duration_ms| {
                json!({"exit_code": 0, "timed_out": false, "duration_ms": duration_ms})
            });
            serde_json::from_value::<JobStatus>(json!({
                "job_id": "j", "state": state, "pid": 1, "started_at_ms": started_at_ms,
                "stdout_bytes": 0, "stderr_bytes": 0, "end": end,
            }))
            .unwrap()
        };
        let long = job("ended", 1000, Some(700));
        let late = job("ended", 1500, Some(100));
        let ended = JobUse::EndedBefore(Duration::from_millis(300));
        assert_eq!(use_by(&[long.clone(), late.clone()], 2000), ended);
        let ahead = JobUse::EndedBefore(Duration::ZERO);
        assert_eq!(
            use_by(std::slice::from_ref(&long), 5),
            ahead,
            "a clock that was set back"
        );
        let running = job("running", 1, None);
        assert_eq!(use_by(&[long, running, late], 2000), JobUse::Running);
        assert_eq!(use_by(&[], 2000), JobUse::None);
    }
}
