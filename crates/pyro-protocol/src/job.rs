//! Jobs: commands that outlive the stream that started them.
//!
//! An exec with `detach` answers a job's status at once. The job keeps the last bytes of each
//! output under absolute byte cursors, so that a client may come back, read on from where it
//! was, and see how much it missed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::code::ErrorReply;
use crate::limits::{MAX_JOB_READ, MAX_JOB_WAIT_MS, STDIN_WINDOW};
use crate::request::invalid;

/// What may be asked of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobRequest {
    /// Every job, oldest first.
    List,
    /// Bytes of an output.
    Read(JobRead),
    /// Wait for the end.
    Wait {
        /// The job.
        job_id: String,
        /// Longest wait, milliseconds.
        deadline_ms: u64,
    },
    /// Bytes for the standard input of a job that was started with `stdin`.
    Write {
        /// The job.
        job_id: String,
        /// The bytes.
        data: Vec<u8>,
        /// Whether the input ends behind them.
        close: bool,
    },
    /// A signal for the job's process group.
    Signal {
        /// The job.
        job_id: String,
        /// Its number.
        signal: u8,
    },
    /// End the job: TERM, and KILL two seconds later.
    End {
        /// The job.
        job_id: String,
    },
    /// Forget a job that has ended, and its output.
    Remove {
        /// The job.
        job_id: String,
    },
}

/// `job_read`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobRead {
    /// The job.
    pub job_id: String,
    /// Which output.
    pub stream: JobStream,
    /// Absolute position of the first byte wanted.
    pub cursor: u64,
    /// Most bytes to answer.
    pub max_bytes: usize,
    /// How long to wait for something behind the cursor, milliseconds.
    pub wait_ms: u64,
}

/// An output of a job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobStream {
    /// Standard output.
    #[default]
    Stdout,
    /// Standard error.
    Stderr,
}

/// A job as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobStatus {
    /// Its id.
    pub job_id: String,
    /// What it is doing.
    pub state: JobState,
    /// Process id in the guest; 0 if it was never started.
    pub pid: i32,
    /// Unix milliseconds of its start.
    pub started_at_ms: u64,
    /// Bytes that standard output had so far.
    pub stdout_bytes: u64,
    /// Bytes that standard error had so far.
    pub stderr_bytes: u64,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<crate::exec::ExecEnd>,
}

/// What a job is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// It runs.
    Running,
    /// It has ended, and its output is complete.
    Ended,
}

/// The answer to `job_read`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobOutput {
    /// The bytes as text; invalid UTF-8 is replaced.
    pub output: String,
    /// The bytes in base64, where they are not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_b64: Option<String>,
    /// Position of the first byte answered: behind the one asked for if bytes are gone.
    pub cursor: u64,
    /// Position behind the last byte answered: the next cursor.
    pub next_cursor: u64,
    /// Bytes that were wanted and are gone.
    pub dropped: u64,
    /// Whether more is there already.
    pub truncated: bool,
    /// What the job is doing.
    pub state: JobState,
}

impl JobOutput {
    /// The output `bytes` at `cursor`, cut at the end of a character while more may follow.
    pub fn new(bytes: &[u8], cursor: u64, asked: u64, truncated: bool, state: JobState) -> Self {
        let kept = if truncated || state == JobState::Running {
            whole_characters(bytes)
        } else {
            bytes.len()
        };
        let (bytes, cut) = bytes.split_at(kept);
        let text = String::from_utf8(bytes.to_vec());
        let (output, output_b64) = match text {
            Ok(text) => (text, None),
            Err(_) => (
                String::from_utf8_lossy(bytes).into_owned(),
                Some(STANDARD.encode(bytes)),
            ),
        };
        Self {
            output,
            output_b64,
            cursor,
            next_cursor: cursor + bytes.len() as u64,
            dropped: cursor.saturating_sub(asked),
            truncated: truncated || !cut.is_empty(),
            state,
        }
    }
}

/// How many of `bytes` end with a whole character; all of them if they are no UTF-8 anyway.
fn whole_characters(bytes: &[u8]) -> usize {
    match std::str::from_utf8(bytes) {
        // An error without a length is a character that is cut off at the end.
        Err(error) if error.error_len().is_none() && error.valid_up_to() > 0 => error.valid_up_to(),
        Ok(_) | Err(_) => bytes.len(),
    }
}

/// The fields of every job action.
#[derive(Deserialize)]
struct JobFields {
    #[serde(default)]
    job_id: Option<String>,
    #[serde(default)]
    stream: JobStream,
    #[serde(default)]
    cursor: u64,
    #[serde(default)]
    max_bytes: Option<usize>,
    #[serde(default)]
    wait_ms: u64,
    #[serde(default)]
    deadline_ms: Option<u64>,
    #[serde(default)]
    data: Option<String>,
    #[serde(default)]
    data_b64: Option<String>,
    #[serde(default)]
    close: bool,
    #[serde(default)]
    signal: Option<u8>,
}

impl JobRequest {
    /// The actions of this area.
    pub const ACTIONS: [&'static str; 7] = [
        "job_list",
        "job_read",
        "job_wait",
        "job_write",
        "job_signal",
        "job_end",
        "job_remove",
    ];

    /// Parses the fields of `action`, one of [`Self::ACTIONS`]; `None` for any other.
    pub fn parse(action: &str, fields: serde_json::Value) -> Option<Result<Self, ErrorReply>> {
        Self::ACTIONS.contains(&action).then(|| {
            serde_json::from_value(fields)
                .map_err(|error| invalid(format!("malformed request: {error}")))
                .and_then(|fields| Self::check(action, fields))
        })
    }

    fn check(action: &str, fields: JobFields) -> Result<Self, ErrorReply> {
        if action == "job_list" {
            return Ok(Self::List);
        }
        let job_id = fields
            .job_id
            .ok_or_else(|| invalid("`job_id` is missing"))?;
        Ok(match action {
            "job_read" => {
                let max_bytes = fields.max_bytes.unwrap_or(64 * 1024);
                if max_bytes == 0 || max_bytes > MAX_JOB_READ {
                    return Err(invalid(format!("`max_bytes` must be 1 to {MAX_JOB_READ}")));
                }
                Self::Read(JobRead {
                    job_id,
                    stream: fields.stream,
                    cursor: fields.cursor,
                    max_bytes,
                    wait_ms: bounded_wait(fields.wait_ms)?,
                })
            }
            "job_wait" => Self::Wait {
                job_id,
                deadline_ms: bounded_wait(fields.deadline_ms.unwrap_or(MAX_JOB_WAIT_MS))?,
            },
            "job_write" => {
                let data = match (fields.data, fields.data_b64) {
                    (Some(text), None) => text.into_bytes(),
                    (None, Some(encoded)) => STANDARD
                        .decode(encoded)
                        .map_err(|error| invalid(format!("`data_b64` is no base64: {error}")))?,
                    (None, None) => Vec::new(),
                    (Some(_), Some(_)) => {
                        return Err(invalid("`data` and `data_b64` exclude each other"));
                    }
                };
                if data.len() > STDIN_WINDOW {
                    return Err(invalid(format!("`data` exceeds {STDIN_WINDOW} bytes")));
                }
                Self::Write {
                    job_id,
                    data,
                    close: fields.close,
                }
            }
            "job_signal" => Self::Signal {
                job_id,
                signal: fields
                    .signal
                    .ok_or_else(|| invalid("`signal` is missing"))?,
            },
            "job_end" => Self::End { job_id },
            _ => Self::Remove { job_id },
        })
    }
}

fn bounded_wait(ms: u64) -> Result<u64, ErrorReply> {
    if ms > MAX_JOB_WAIT_MS {
        return Err(invalid(format!(
            "a wait of more than {MAX_JOB_WAIT_MS} ms: wait again instead"
        )));
    }
    Ok(ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn requests_are_checked() {
        let parse = |action: &str, fields| JobRequest::parse(action, fields).unwrap();
        assert_eq!(parse("job_list", json!({})), Ok(JobRequest::List));
        for (action, fields, part) in [
            ("job_wait", json!({}), "`job_id` is missing"),
            (
                "job_read",
                json!({"job_id": "a", "max_bytes": 0}),
                "`max_bytes`",
            ),
            (
                "job_read",
                json!({"job_id": "a", "stream": "stdin"}),
                "unknown variant",
            ),
            (
                "job_wait",
                json!({"job_id": "a", "deadline_ms": 99_999_999_999u64}),
                "wait again",
            ),
            (
                "job_write",
                json!({"job_id": "a", "data": "x", "data_b64": "eA=="}),
                "exclude each other",
            ),
            ("job_signal", json!({"job_id": "a"}), "`signal` is missing"),
        ] {
            let error = parse(action, fields).unwrap_err();
            assert!(error.error.contains(part), "{}", error.error);
        }
        assert!(JobRequest::parse("exec", json!({})).is_none());
    }

    #[test]
    fn a_character_on_a_border_waits_for_its_rest() {
        let euro = "a€".as_bytes();
        let first = JobOutput::new(&euro[..3], 10, 10, false, JobState::Running);
        assert_eq!(
            (first.output.as_str(), first.next_cursor, first.truncated),
            ("a", 11, true)
        );
        let last = JobOutput::new(&euro[..3], 10, 4, false, JobState::Ended);
        assert_eq!((last.output.as_str(), last.dropped), ("a\u{fffd}", 6));
        assert!(last.output_b64.is_some());
    }
}
