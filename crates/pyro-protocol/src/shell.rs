//! Shells: the requests as they stand on the wire, their checked forms, and the replies.
//!
//! The five actions of the original keep their fields and defaults; a cursor counts bytes of
//! the redacted output. `resize_shell`, `list_shells`, `wait_shell` and `attach_shell` are
//! ours.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::code::{ErrorCode, ErrorReply};
use crate::exec::ExecRequest;
use crate::limits::{
    MAX_REDACT_BYTES, MAX_REDACT_VALUES, MAX_SHELL_ID, MAX_SHELL_PATTERN, MAX_SHELL_READ,
    MAX_SHELL_WAIT_MS,
};
use crate::request::invalid;

/// The actions of this module, for `hello` and for the parser.
pub const ACTIONS: &[&str] = &[
    "open_shell",
    "read_shell",
    "write_shell",
    "signal_shell",
    "close_shell",
    "resize_shell",
    "list_shells",
    "wait_shell",
    "attach_shell",
];

/// A checked request about shells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShellRequest {
    /// Start a shell on a new terminal.
    Open(OpenShell),
    /// Read output from a cursor on.
    Read(ReadShell),
    /// Send input.
    Write(WriteShell),
    /// Send a signal to what runs in the foreground.
    Signal {
        /// Which shell.
        shell_id: ShellId,
        /// Which signal.
        signal: ShellSignal,
    },
    /// End a shell with everything it started, and forget it.
    Close {
        /// Which shell.
        shell_id: ShellId,
    },
    /// Give the terminal another size.
    Resize {
        /// Which shell.
        shell_id: ShellId,
        /// The new size.
        size: WindowSize,
    },
    /// Tell all shells.
    List,
    /// Wait until something happens, then read.
    Wait(WaitShell),
    /// Output as it comes and input as frames.
    Attach {
        /// Which shell.
        shell_id: ShellId,
        /// Where the output begins.
        cursor: u64,
        /// Close the shell when the peer is gone, however it went.
        closes: bool,
    },
}

/// The name of a shell: `^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ShellId(String);

/// Columns and rows of a terminal, above zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowSize {
    /// Characters in a line.
    pub cols: u16,
    /// Lines.
    pub rows: u16,
}

/// `open_shell`, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenShell {
    /// The name of the new shell.
    pub shell_id: ShellId,
    /// Absolute working directory.
    pub cwd: String,
    /// Size of the terminal.
    pub size: WindowSize,
    /// Program and arguments in the place of a shell.
    pub argv: Option<Vec<String>>,
    /// Variables over those of the shell; names checked, no NUL in values.
    pub env: BTreeMap<String, String>,
    /// Values that the output must not show; never empty.
    pub redact_values: Vec<String>,
}

/// What a reply carries of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadRange {
    /// Position of the first byte.
    pub cursor: u64,
    /// Most characters, above zero.
    pub max_chars: usize,
}

/// `read_shell`, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadShell {
    /// Which shell.
    pub shell_id: ShellId,
    /// What to read.
    pub range: ReadRange,
}

/// `write_shell`, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteShell {
    /// Which shell.
    pub shell_id: ShellId,
    /// What to type.
    pub input: String,
    /// Whether a newline follows.
    pub append_newline: bool,
}

/// `wait_shell`, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitShell {
    /// Which shell.
    pub shell_id: ShellId,
    /// What to read in the end. A pattern is sought from its cursor on.
    pub range: ReadRange,
    /// Enough when no output came for so long, counted from the request at the earliest.
    pub idle: Option<Duration>,
    /// Enough when the output matches this regular expression.
    pub pattern: Option<String>,
    /// Longest wait.
    pub deadline: Duration,
}

/// The signals that the original sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ShellSignal {
    /// The terminal is gone.
    Hup,
    /// As Ctrl-C does.
    Int,
    /// End.
    Term,
    /// End at once.
    Kill,
}

/// Whether a shell runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShellState {
    /// It runs.
    Running,
    /// It ended and is kept until it is closed.
    Stopped,
}

/// What every reply about a shell begins with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShellSummary {
    /// Its name.
    pub shell_id: ShellId,
    /// The working directory in which it started.
    pub cwd: String,
    /// Columns of its terminal.
    pub cols: u16,
    /// Rows of its terminal.
    pub rows: u16,
    /// Whether it runs.
    pub state: ShellState,
    /// When it started, in seconds since the epoch.
    pub started_at: f64,
    /// When it ended.
    pub ended_at: Option<f64>,
    /// How it ended; negative: killed by that signal.
    pub exit_code: Option<i32>,
}

/// The reply to `read_shell`, and the output in others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShellOutput {
    /// The shell.
    #[serde(flatten)]
    pub summary: ShellSummary,
    /// Position of the first byte of `output`: the one asked for, brought into what is kept.
    pub cursor: u64,
    /// Position behind `output`.
    pub next_cursor: u64,
    /// The output as text; bytes that are no UTF-8 are replaced.
    pub output: String,
    /// More output is there.
    pub truncated: bool,
    /// Bytes at the beginning that are no longer kept. A `cursor` above the one asked for
    /// says that the bytes between were lost.
    #[serde(default)]
    pub dropped: u64,
}

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitReason {
    /// No output came for as long as asked.
    Idle,
    /// The output matched.
    Matched,
    /// The shell ended.
    Exited,
    /// The longest wait passed.
    Deadline,
}

/// The reply to `wait_shell`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShellWaited {
    /// Shell and output.
    #[serde(flatten)]
    pub output: ShellOutput,
    /// Why the wait ended.
    pub reason: WaitReason,
    /// Positions of the first byte that matched and of the first behind.
    #[serde(rename = "match")]
    pub matched: Option<(u64, u64)>,
}

/// Why an attached stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttachReason {
    /// The shell ended or was closed.
    Exited,
    /// The peer ended its direction; the shell lives on.
    Detached,
    /// The peer broke the protocol; the shell lives on.
    Refused,
}

/// The end frame of `attach_shell`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttachEnd {
    /// The shell.
    #[serde(flatten)]
    pub summary: ShellSummary,
    /// Why the stream ended.
    pub reason: AttachReason,
    /// Position behind the last byte sent: where to attach again.
    pub next_cursor: u64,
    /// What the peer did wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorReply>,
}

/// Progress frame of an attached stream: the peer was so slow that output was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachGap {
    /// Bytes that were lost here.
    pub lost: u64,
    /// Position of the next byte that comes.
    pub cursor: u64,
}

impl ShellId {
    /// Checks a name.
    pub fn parse(text: &str) -> Result<Self, ErrorReply> {
        let follows = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
        let bytes = text.as_bytes();
        let first = bytes.first().is_some_and(u8::is_ascii_alphanumeric);
        if first && bytes.len() <= MAX_SHELL_ID && bytes.iter().all(follows) {
            Ok(Self(text.into()))
        } else {
            Err(invalid(format!(
                "`shell_id` must be 1 to {MAX_SHELL_ID} letters, digits, `.`, `_` or `-` and \
                 begin with a letter or digit"
            )))
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ShellId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).map_err(|error| error.error)
    }
}

impl From<ShellId> for String {
    fn from(id: ShellId) -> Self {
        id.0
    }
}

impl ShellSignal {
    fn parse(name: &str) -> Result<Self, ErrorReply> {
        match name.to_ascii_uppercase().as_str() {
            "HUP" => Ok(Self::Hup),
            "INT" => Ok(Self::Int),
            "TERM" => Ok(Self::Term),
            "KILL" => Ok(Self::Kill),
            _ => Err(invalid("`signal` must be `HUP`, `INT`, `TERM` or `KILL`")),
        }
    }
}

impl ShellRequest {
    /// Parses a request whose `action` is one of [`ACTIONS`].
    pub(crate) fn parse(action: &str, value: Value) -> Result<Self, ErrorReply> {
        let fields: Fields = serde_json::from_value(value)
            .map_err(|error| invalid(format!("malformed request: {error}")))?;
        match action {
            "open_shell" => fields.open(),
            "read_shell" => Ok(Self::Read(ReadShell {
                range: fields.range()?,
                shell_id: fields.id()?,
            })),
            "write_shell" => Ok(Self::Write(WriteShell {
                shell_id: fields.id()?,
                input: fields.input.unwrap_or_default(),
                append_newline: fields.append_newline.unwrap_or(true),
            })),
            "signal_shell" => Ok(Self::Signal {
                shell_id: fields.id()?,
                signal: ShellSignal::parse(fields.signal.as_deref().unwrap_or("INT"))?,
            }),
            "close_shell" => Ok(Self::Close {
                shell_id: fields.id()?,
            }),
            "resize_shell" => match (fields.cols, fields.rows) {
                (Some(cols), Some(rows)) => Ok(Self::Resize {
                    shell_id: fields.id()?,
                    size: WindowSize::check(cols, rows)?,
                }),
                _ => Err(invalid("`cols` and `rows` are missing")),
            },
            "list_shells" => Ok(Self::List),
            "wait_shell" => fields.wait(),
            "attach_shell" => Ok(Self::Attach {
                shell_id: fields.id()?,
                cursor: fields.cursor(),
                closes: fields.closes.unwrap_or(false),
            }),
            _ => Err(ErrorReply::new(
                ErrorCode::Unsupported,
                "unknown action of shells",
            )),
        }
    }
}

impl WindowSize {
    fn check(cols: i64, rows: i64) -> Result<Self, ErrorReply> {
        let size = |value: i64| u16::try_from(value).ok().filter(|size| *size > 0);
        match (size(cols), size(rows)) {
            (Some(cols), Some(rows)) => Ok(Self { cols, rows }),
            _ => Err(invalid("`cols` and `rows` must be from 1 to 65535")),
        }
    }
}

/// Every field of every request about shells. The original's hosts may send null for one
/// that they do not use.
#[derive(Deserialize)]
struct Fields {
    shell_id: Option<String>,
    cwd: Option<String>,
    argv: Option<Vec<String>>,
    cols: Option<i64>,
    rows: Option<i64>,
    env: Option<BTreeMap<String, String>>,
    redact_values: Option<Vec<String>>,
    cursor: Option<i64>,
    max_chars: Option<i64>,
    input: Option<String>,
    append_newline: Option<bool>,
    closes: Option<bool>,
    signal: Option<String>,
    idle_ms: Option<u64>,
    pattern: Option<String>,
    deadline_ms: Option<u64>,
}

impl Fields {
    fn id(&self) -> Result<ShellId, ErrorReply> {
        ShellId::parse(
            self.shell_id
                .as_deref()
                .ok_or_else(|| invalid("`shell_id` is missing"))?,
        )
    }

    /// Clamped, as in the original.
    fn cursor(&self) -> u64 {
        u64::try_from(self.cursor.unwrap_or(0)).unwrap_or(0)
    }

    fn range(&self) -> Result<ReadRange, ErrorReply> {
        let max_chars = usize::try_from(self.max_chars.unwrap_or(65_536)).unwrap_or(0);
        if max_chars == 0 {
            return Err(invalid("`max_chars` must be above zero"));
        }
        Ok(ReadRange {
            cursor: self.cursor(),
            max_chars: max_chars.min(MAX_SHELL_READ),
        })
    }

    fn open(self) -> Result<ShellRequest, ErrorReply> {
        let shell_id = self.id()?;
        let size = WindowSize::check(self.cols.unwrap_or(120), self.rows.unwrap_or(30))?;
        let mut redact_values = self.redact_values.unwrap_or_default();
        redact_values.retain(|value| !value.is_empty());
        let bytes: usize = redact_values.iter().map(String::len).sum();
        if redact_values.len() > MAX_REDACT_VALUES || bytes > MAX_REDACT_BYTES {
            return Err(invalid(format!(
                "`redact_values` exceeds {MAX_REDACT_VALUES} values or {MAX_REDACT_BYTES} bytes"
            )));
        }
        // Program, directory and variables obey the rules of an exec.
        let program = match &self.argv {
            Some(argv) => {
                let argv: Vec<Vec<u8>> = argv.iter().map(|word| word.clone().into()).collect();
                ExecRequest::argv(&argv)
            }
            None => ExecRequest::shell(""),
        };
        let checked = ExecRequest {
            cwd: Some(self.cwd.unwrap_or_else(|| "/workspace".into())),
            env: self.env,
            ..program
        }
        .check()?;
        Ok(ShellRequest::Open(OpenShell {
            shell_id,
            cwd: checked.cwd,
            size,
            argv: self.argv,
            env: checked.env,
            redact_values,
        }))
    }

    fn wait(self) -> Result<ShellRequest, ErrorReply> {
        let deadline_ms = self
            .deadline_ms
            .ok_or_else(|| invalid("`deadline_ms` is missing"))?;
        if deadline_ms > MAX_SHELL_WAIT_MS {
            return Err(invalid(format!(
                "`deadline_ms` exceeds {MAX_SHELL_WAIT_MS}"
            )));
        }
        if self.idle_ms == Some(0) {
            return Err(invalid("`idle_ms` must be above zero"));
        }
        if let Some(pattern) = &self.pattern
            && pattern.len() > MAX_SHELL_PATTERN
        {
            return Err(invalid(format!(
                "`pattern` exceeds {MAX_SHELL_PATTERN} bytes"
            )));
        }
        Ok(ShellRequest::Wait(WaitShell {
            shell_id: self.id()?,
            range: self.range()?,
            // An idle time beyond the deadline is never reached.
            idle: self
                .idle_ms
                .map(|ms| Duration::from_millis(ms.min(MAX_SHELL_WAIT_MS + 1))),
            pattern: self.pattern,
            deadline: Duration::from_millis(deadline_ms),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Request;

    fn parse(line: &str) -> Result<ShellRequest, ErrorReply> {
        match Request::parse(line.as_bytes())? {
            Request::Shell(request) => Ok(request),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_defaults_are_the_originals() {
        let Ok(ShellRequest::Open(open)) = parse(r#"{"action": "open_shell", "shell_id": "a"}"#)
        else {
            panic!("no open");
        };
        assert_eq!(
            (open.cwd.as_str(), open.size.cols, open.size.rows),
            ("/workspace", 120, 30)
        );
        assert!(open.env.is_empty() && open.redact_values.is_empty());
        let Ok(ShellRequest::Read(read)) = parse(r#"{"action": "read_shell", "shell_id": "a"}"#)
        else {
            panic!("no read");
        };
        assert_eq!((read.range.cursor, read.range.max_chars), (0, 65_536));
        let Ok(ShellRequest::Write(write)) = parse(r#"{"action": "write_shell", "shell_id": "a"}"#)
        else {
            panic!("no write");
        };
        assert_eq!((write.input.as_str(), write.append_newline), ("", true));
        for (field, expected) in [
            ("", ShellSignal::Int),
            (r#", "signal": "kill""#, ShellSignal::Kill),
        ] {
            let line = format!(r#"{{"action": "signal_shell", "shell_id": "a"{field}}}"#);
            assert!(
                matches!(parse(&line), Ok(ShellRequest::Signal { signal, .. }) if signal == expected)
            );
        }
    }

    #[test]
    fn names_are_checked() {
        for name in ["a", "0123456789ab", "A.b_c-d", &"x".repeat(MAX_SHELL_ID)] {
            assert_eq!(ShellId::parse(name).unwrap().as_str(), name);
        }
        for name in [
            "",
            ".a",
            "-",
            "a/b",
            "../x",
            "a b",
            "é",
            "a\n",
            &"x".repeat(65),
        ] {
            assert!(ShellId::parse(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn malformed_requests_are_named() {
        for (rest, part) in [
            (r#""open_shell""#, "`shell_id` is missing"),
            (r#""open_shell", "shell_id": "a", "cols": 0"#, "`cols`"),
            (r#""open_shell", "shell_id": "a", "cols": -1"#, "`cols`"),
            (r#""open_shell", "shell_id": "a", "rows": 70000"#, "`rows`"),
            (r#""open_shell", "shell_id": "a", "cwd": "x"#, "JSON"),
            (r#""open_shell", "shell_id": "a", "cwd": "x""#, "`cwd`"),
            (r#""open_shell", "shell_id": "a", "env": {"1": ""}"#, "`1`"),
            (
                r#""read_shell", "shell_id": "a", "max_chars": 0"#,
                "`max_chars`",
            ),
            (
                r#""signal_shell", "shell_id": "a", "signal": "USR1""#,
                "`signal`",
            ),
            (r#""resize_shell", "shell_id": "a", "cols": 3"#, "`rows`"),
            (r#""wait_shell", "shell_id": "a""#, "`deadline_ms`"),
            (
                r#""wait_shell", "shell_id": "a", "deadline_ms": 99999999"#,
                "`deadline_ms` exceeds",
            ),
            (
                r#""wait_shell", "shell_id": "a", "deadline_ms": 1, "idle_ms": 0"#,
                "`idle_ms`",
            ),
        ] {
            let error = parse(&format!(r#"{{"action": {rest}}}"#)).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidArgument, "{rest}");
            assert!(error.error.contains(part), "{rest}: {}", error.error);
        }
    }
}
