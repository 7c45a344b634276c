//! `exec`: the request as it stands on the wire, the checked form, and its outcomes.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::code::ErrorReply;
use crate::limits::{MAX_ARGS, MAX_ENV, MAX_ENV_NAME, MAX_PATH, MAX_TIMEOUT_MS};
use crate::request::invalid;

/// Time limit of a command that names none.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// Exit code that stands for a passed time limit.
pub const EXIT_TIMEOUT: i32 = 124;
/// Exit code of a command that was found and cannot be executed.
pub const EXIT_NOT_EXECUTABLE: i32 = 126;
/// Exit code of a command that does not exist.
pub const EXIT_NOT_FOUND: i32 = 127;
/// Added to the number of the signal that ended a command.
pub const EXIT_SIGNAL_BASE: i32 = 128;

/// An exec as it stands on the wire. The first three fields are the original's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ExecRequest {
    /// `"exec"`; absent in the original's requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// A command line for `/bin/sh -lc`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// Time limit in seconds; fractions allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<f64>,
    /// Variables added to the agent's environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<BTreeMap<String, String>>,
    /// Program and arguments, run without a shell. Excludes `command`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub argv: Option<Vec<String>>,
    /// `argv` in base64, for arguments that are not UTF-8. Excludes `argv`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub argv_b64: Option<Vec<String>>,
    /// Working directory; `/` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Time limit in milliseconds; wins over `timeout_seconds`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Answer with frames instead of one object.
    #[serde(default)]
    pub stream: bool,
    /// Standard input comes as frames; otherwise it is closed. Needs `stream`.
    #[serde(default)]
    pub stdin: bool,
}

/// What to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// A command line for `/bin/sh -lc`.
    Shell(String),
    /// Program and arguments; never empty, no NUL inside.
    Argv(Vec<Vec<u8>>),
}

/// How the outcome is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyForm {
    /// One object with both outputs, at the end.
    Collected,
    /// Frames as they come.
    Frames {
        /// Whether standard input comes as frames.
        stdin: bool,
    },
}

/// A checked exec.
#[derive(Clone, Debug, PartialEq)]
pub struct Exec {
    /// What to run.
    pub program: Program,
    /// Variables added to the agent's environment; names checked, no NUL in values.
    pub env: BTreeMap<String, String>,
    /// Absolute working directory.
    pub cwd: String,
    /// Wall-clock limit, above zero.
    pub timeout: Duration,
    /// How the outcome is told.
    pub reply: ReplyForm,
}

impl ExecRequest {
    /// The request that runs `argv` without a shell; base64 is used only where needed.
    pub fn argv(argv: &[Vec<u8>]) -> Self {
        let plain: Option<Vec<String>> = argv
            .iter()
            .map(|arg| String::from_utf8(arg.clone()).ok())
            .collect();
        let encoded = plain
            .is_none()
            .then(|| argv.iter().map(|arg| STANDARD.encode(arg)).collect());
        Self {
            action: Some("exec".into()),
            argv: plain,
            argv_b64: encoded,
            ..Self::default()
        }
    }

    /// The request that runs `command` through `/bin/sh -lc`.
    pub fn shell(command: impl Into<String>) -> Self {
        Self {
            action: Some("exec".into()),
            command: Some(command.into()),
            ..Self::default()
        }
    }

    /// Checks every field and bound.
    pub fn check(self) -> Result<Exec, ErrorReply> {
        let program = match (self.command, self.argv, self.argv_b64) {
            (Some(command), None, None) => Program::Shell(command),
            (None, None, None) => Program::Shell(String::new()),
            (None, Some(argv), None) => {
                Program::Argv(argv.into_iter().map(String::into_bytes).collect())
            }
            (None, None, Some(encoded)) => Program::Argv(
                encoded
                    .iter()
                    .map(|arg| STANDARD.decode(arg))
                    .collect::<Result<_, _>>()
                    .map_err(|error| invalid(format!("`argv_b64` is no base64: {error}")))?,
            ),
            _ => {
                return Err(invalid(
                    "`command`, `argv` and `argv_b64` exclude each other",
                ));
            }
        };
        check_program(&program)?;
        let env = self.env.unwrap_or_default();
        check_env(&env)?;
        let cwd = self.cwd.unwrap_or_else(|| "/".into());
        if !cwd.starts_with('/') || cwd.len() > MAX_PATH || cwd.contains('\0') {
            return Err(invalid("`cwd` must be an absolute path"));
        }
        let reply = match (self.stream, self.stdin) {
            (true, stdin) => ReplyForm::Frames { stdin },
            (false, false) => ReplyForm::Collected,
            (false, true) => return Err(invalid("`stdin` needs `stream`")),
        };
        Ok(Exec {
            program,
            env,
            cwd,
            timeout: timeout(self.timeout_ms, self.timeout_seconds)?,
            reply,
        })
    }
}

/// Whether `name` may name an environment variable: `^[A-Za-z_][A-Za-z0-9_]{0,63}$`.
pub fn is_env_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    bytes
        .first()
        .is_some_and(|b| b.is_ascii_alphabetic() || *b == b'_')
        && bytes.len() <= MAX_ENV_NAME
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || *b == b'_')
}

/// The collected reply: the original's four fields and ours beside them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecReply {
    /// Standard output, as text.
    pub stdout: String,
    /// Standard error, as text.
    pub stderr: String,
    /// The exit code; negative: killed by that signal.
    pub exit_code: i32,
    /// Wall time on the guest's monotonic clock.
    pub duration_ms: u64,
    /// The time limit passed.
    #[serde(default)]
    pub timed_out: bool,
    /// Output was dropped between head and tail.
    #[serde(default)]
    pub truncated: bool,
}

/// The end frame of a streamed exec.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecEnd {
    /// The exit code as a shell tells it: 124 after a timeout, 126 or 127 when the command
    /// could not be started, 128 + n after signal n.
    pub exit_code: i32,
    /// The signal that ended the command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// The time limit passed and the command was killed.
    pub timed_out: bool,
    /// Wall time on the guest's monotonic clock.
    pub duration_ms: u64,
    /// The command ended while a process that it left behind kept an output open.
    #[serde(default)]
    pub output_left_open: bool,
    /// Why the command could not be run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorReply>,
}

/// The name of a signal number on Linux x86-64, without `SIG`, for the common ones.
pub fn signal_name(number: i32) -> Option<&'static str> {
    Some(match number {
        1 => "HUP",
        2 => "INT",
        3 => "QUIT",
        4 => "ILL",
        5 => "TRAP",
        6 => "ABRT",
        7 => "BUS",
        8 => "FPE",
        9 => "KILL",
        10 => "USR1",
        11 => "SEGV",
        12 => "USR2",
        13 => "PIPE",
        14 => "ALRM",
        15 => "TERM",
        24 => "XCPU",
        25 => "XFSZ",
        31 => "SYS",
        _ => return None,
    })
}

fn check_program(program: &Program) -> Result<(), ErrorReply> {
    match program {
        Program::Shell(command) if command.contains('\0') => {
            Err(invalid("`command` holds a NUL byte"))
        }
        Program::Shell(_) => Ok(()),
        Program::Argv(argv) if argv.is_empty() || argv.len() > MAX_ARGS => {
            Err(invalid(format!("`argv` must hold 1 to {MAX_ARGS} strings")))
        }
        Program::Argv(argv) if argv[0].is_empty() => Err(invalid("`argv` names no program")),
        Program::Argv(argv) if argv.iter().any(|arg| arg.contains(&0)) => {
            Err(invalid("`argv` holds a NUL byte"))
        }
        Program::Argv(_) => Ok(()),
    }
}

fn check_env(env: &BTreeMap<String, String>) -> Result<(), ErrorReply> {
    if env.len() > MAX_ENV {
        return Err(invalid(format!(
            "`env` holds more than {MAX_ENV} variables"
        )));
    }
    for (name, value) in env {
        if !is_env_name(name) {
            return Err(invalid(format!(
                "`{}` is no name for an environment variable",
                name.chars().take(MAX_ENV_NAME).collect::<String>()
            )));
        }
        if value.contains('\0') {
            return Err(invalid(format!("the value of `{name}` holds a NUL byte")));
        }
    }
    Ok(())
}

fn timeout(ms: Option<u64>, seconds: Option<f64>) -> Result<Duration, ErrorReply> {
    let limit = match (ms, seconds) {
        (Some(ms), _) => Duration::from_millis(ms),
        (None, Some(seconds)) => Duration::try_from_secs_f64(seconds)
            .map_err(|_| invalid("`timeout_seconds` must be above zero"))?,
        (None, None) => DEFAULT_TIMEOUT,
    };
    if limit.is_zero() || limit > Duration::from_millis(MAX_TIMEOUT_MS) {
        return Err(invalid(
            "the timeout must be above zero and below ten years",
        ));
    }
    Ok(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(json: &str) -> Result<Exec, ErrorReply> {
        serde_json::from_str::<ExecRequest>(json).unwrap().check()
    }

    #[test]
    fn the_original_request_works_unchanged() {
        let exec =
            checked(r#"{"command": "true", "timeout_seconds": 5, "env": {"A": "b"}}"#).unwrap();
        assert_eq!(exec.program, Program::Shell("true".into()));
        assert_eq!(exec.timeout, Duration::from_secs(5));
        assert_eq!(exec.env["A"], "b");
        assert_eq!(exec.reply, ReplyForm::Collected);
        assert_eq!(checked("{}").unwrap().timeout, DEFAULT_TIMEOUT);
    }

    #[test]
    fn argv_keeps_every_byte() {
        for argv in [
            vec![b"ls".to_vec(), b"\xff".to_vec()],
            vec![b"ls".to_vec(), b"a".to_vec()],
        ] {
            let request = ExecRequest::argv(&argv);
            let json = serde_json::to_string(&request).unwrap();
            assert_eq!(checked(&json).unwrap().program, Program::Argv(argv));
        }
    }

    #[test]
    fn what_cannot_be_run_is_refused() {
        for json in [
            r#"{"argv": []}"#,
            r#"{"argv": [""]}"#,
            r#"{"argv": ["a\u0000"]}"#,
            r#"{"argv": ["a"], "command": "b"}"#,
            r#"{"argv_b64": ["%"]}"#,
            r#"{"command": "a", "env": {"1A": "x"}}"#,
            r#"{"command": "a", "env": {"A": "x\u0000"}}"#,
            r#"{"command": "a", "cwd": "tmp"}"#,
            r#"{"command": "a", "timeout_ms": 0}"#,
            r#"{"command": "a", "timeout_seconds": -1}"#,
            r#"{"command": "a", "timeout_seconds": 1e300}"#,
            r#"{"command": "a", "stdin": true}"#,
        ] {
            assert!(checked(json).is_err(), "{json}");
        }
    }
}
