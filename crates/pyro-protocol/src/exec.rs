//! `exec`: the request as it stands on the wire, the checked form, and its outcomes.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::code::ErrorReply;
use crate::limits::{
    MAX_ARGS, MAX_ENV, MAX_ENV_NAME, MAX_PATH, MAX_TIMEOUT_MS, MAX_TOKEN, MAX_USER,
};
use crate::request::invalid;

/// Time limit of a command that names none.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// File mode creation mask of a command that names none.
pub const DEFAULT_UMASK: u32 = 0o022;

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
    /// Standard input comes as frames, or by `job_write`; otherwise it is closed. Needs
    /// `stream` or `detach`.
    #[serde(default)]
    pub stdin: bool,
    /// Start a job and answer its status at once. Excludes `stream`; has no time limit unless
    /// one is given.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub detach: bool,
    /// User of the guest to run as: a name or number, and behind a colon a group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// File mode creation mask, octal; `022` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub umask: Option<String>,
    /// Resource limits, soft and hard alike, by the names of [`Rlimit`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rlimits: Option<BTreeMap<Rlimit, u64>>,
    /// Names this exec: the same token never runs a command twice. With `detach` the job of
    /// the first time is answered again, otherwise the second time is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
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
    /// A job's status, at once.
    Detached {
        /// Whether standard input comes by `job_write`.
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
    /// What names this exec, so that it never runs twice.
    pub token: Option<String>,
    /// User of the guest to run as; the agent's own, which is root, if absent.
    pub user: Option<String>,
    /// File mode creation mask, at most 0o777.
    pub umask: u32,
    /// Resource limits.
    pub rlimits: BTreeMap<Rlimit, u64>,
}

/// A resource of a process that can be limited, by the names of `getrlimit(2)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rlimit {
    /// Address space, bytes.
    As,
    /// Core file, bytes.
    Core,
    /// Processor time, seconds.
    Cpu,
    /// Data segment, bytes.
    Data,
    /// A file that is written, bytes.
    Fsize,
    /// Locked memory, bytes.
    Memlock,
    /// Open descriptors.
    Nofile,
    /// Processes of the user.
    Nproc,
    /// Stack, bytes.
    Stack,
}

impl Exec {
    /// Whether standard input is fed.
    pub fn stdin(&self) -> bool {
        match self.reply {
            ReplyForm::Collected => false,
            ReplyForm::Frames { stdin } | ReplyForm::Detached { stdin } => stdin,
        }
    }
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
        let reply = match (self.stream, self.detach, self.stdin) {
            (true, true, _) => return Err(invalid("`stream` and `detach` exclude each other")),
            (true, false, stdin) => ReplyForm::Frames { stdin },
            (false, true, stdin) => ReplyForm::Detached { stdin },
            (false, false, false) => ReplyForm::Collected,
            (false, false, true) => return Err(invalid("`stdin` needs `stream` or `detach`")),
        };
        if let Some(token) = &self.token
            && (token.is_empty() || token.len() > MAX_TOKEN)
        {
            return Err(invalid(format!("`token` must have 1 to {MAX_TOKEN} bytes")));
        }
        let umask = match self.umask.as_deref() {
            None => DEFAULT_UMASK,
            Some(octal) => u32::from_str_radix(octal, 8)
                .ok()
                .filter(|mask| *mask <= 0o777)
                .ok_or_else(|| invalid("`umask` must be octal and at most 777"))?,
        };
        if let Some(user) = &self.user
            && (user.is_empty() || user.len() > MAX_USER)
        {
            return Err(invalid(format!("`user` must have 1 to {MAX_USER} bytes")));
        }
        let longest = self.detach.then_some(MAX_TIMEOUT_MS);
        Ok(Exec {
            program,
            env,
            cwd,
            timeout: timeout(self.timeout_ms, self.timeout_seconds, longest)?,
            reply,
            token: self.token,
            user: self.user,
            umask,
            rlimits: self.rlimits.unwrap_or_default(),
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
    /// What the command and its children used, where the guest can tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// Why the command could not be run, or what its peer did that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorReply>,
}

/// What a command used, with everything it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Processor time in user space, milliseconds.
    pub user_ms: u64,
    /// Processor time in the kernel, milliseconds.
    pub system_ms: u64,
    /// Most memory at one time, bytes; absent where the kernel does not count it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory_bytes: Option<u64>,
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

fn timeout(
    ms: Option<u64>,
    seconds: Option<f64>,
    default_ms: Option<u64>,
) -> Result<Duration, ErrorReply> {
    let limit = match (ms, seconds) {
        (Some(ms), _) => Duration::from_millis(ms),
        (None, Some(seconds)) => Duration::try_from_secs_f64(seconds)
            .map_err(|_| invalid("`timeout_seconds` must be above zero"))?,
        (None, None) => default_ms.map_or(DEFAULT_TIMEOUT, Duration::from_millis),
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
            r#"{"command": "a", "stream": true, "detach": true}"#,
            r#"{"command": "a", "token": ""}"#,
            r#"{"command": "a", "user": ""}"#,
            r#"{"command": "a", "umask": "1777"}"#,
            r#"{"command": "a", "umask": "8"}"#,
        ] {
            assert!(checked(json).is_err(), "{json}");
        }
    }
}
