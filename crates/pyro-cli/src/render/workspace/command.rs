//! Commands of workspaces: their history, and those that go on by themselves.

use std::fmt::Write;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pyro::workspace::{JobPayload, LogsPayload};
use pyro_protocol::job::{JobOutput, JobStream};

use super::super::printable;
use super::{number, yes_no};

/// Entries of `workspace logs`. Outputs are what a guest wrote: whatever would steer the terminal is made visible.
pub(crate) fn logs(logs: &LogsPayload) -> String {
    let mut text = String::new();
    for entry in &logs.entries {
        let command = &entry.command;
        let _ = write!(
            text,
            "#{} exit_code={} duration_ms={} cwd={}",
            command.sequence,
            number(command.exit_code),
            number(command.duration_ms),
            printable(&command.cwd)
        );
        if command.state != "ended" {
            let _ = write!(text, " state={}", command.state);
        }
        if let Some(job) = &entry.job_id {
            let _ = write!(text, " job_id={}", printable(job));
        }
        if entry.truncated {
            text.push_str(" truncated=yes");
        }
        let _ = writeln!(text, "\n$ {}", printable(&command.command));
        for output in [&entry.stdout, &entry.stderr] {
            for line in output.lines() {
                let _ = writeln!(text, "{}", line_of_guest(line));
            }
        }
    }
    text
}

/// A line of `workspace jobs`.
pub(crate) fn job(job: &JobPayload) -> String {
    format!(
        "[workspace-job] job_id={} sequence={} state={} exit_code={} duration_ms={} timed_out={} stdout_bytes={} stderr_bytes={} command={}\n",
        printable(&job.job_id),
        number(job.sequence),
        job.state,
        number(job.exit_code),
        number(job.duration_ms),
        yes_no(job.timed_out),
        job.stdout_bytes,
        job.stderr_bytes,
        job.command
            .as_deref()
            .map_or_else(|| "-".into(), super::value)
    )
}

/// The name of an output.
pub(crate) fn stream(stream: JobStream) -> &'static str {
    match stream {
        JobStream::Stdout => "standard output",
        JobStream::Stderr => "standard error",
    }
}

/// The bytes that a job wrote.
pub(crate) fn job_bytes(output: &JobOutput) -> Vec<u8> {
    let encoded = output.output_b64.as_deref();
    let decoded = encoded.and_then(|text| STANDARD.decode(text).ok());
    decoded.unwrap_or_else(|| output.output.clone().into_bytes())
}

/// A line of a guest, with its tabs.
pub(super) fn line_of_guest(line: &str) -> String {
    line.split('\t')
        .map(printable)
        .collect::<Vec<_>>()
        .join("\t")
}
