//! What `run` and `workspace exec` have in common: what a command is told, and its streams.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use pyro::{Error, ErrorCode, ExecOutput, Program, StdinWriter};
use pyro_protocol::code::ErrorReply;
use pyro_protocol::exec::EXIT_NOT_EXECUTABLE;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

use super::invalid;
use crate::render::Talk;

/// Bytes of standard input read at a time.
const STDIN_CHUNK: usize = 64 * 1024;

/// Chunks of standard input that may wait.
const STDIN_QUEUE: usize = 2;

/// Number of the signal that a write to a pipe without a reader raises.
pub(super) const SIGPIPE: u8 = 13;

/// The time that an option tells.
pub(super) fn seconds(given: f64) -> Result<Duration, Error> {
    Duration::try_from_secs_f64(given).map_err(|_| {
        invalid(
            format!("`{given}` seconds are no time limit"),
            "give a number above zero",
        )
    })
}

/// The variables that `--env` gives.
pub(super) fn variables(given: &[String]) -> Result<BTreeMap<String, String>, Error> {
    let pair = |pair: &String| match pair.split_once('=') {
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => Err(invalid(
            format!("`{pair}` is no `K=V`"),
            "write `--env NAME=value`",
        )),
    };
    given.iter().map(pair).collect()
}

/// The command behind the dashes, if there is one.
pub(super) fn program(argv: Vec<OsString>, shell: bool) -> Result<Option<Program>, Error> {
    if argv.is_empty() && shell {
        return Err(invalid(
            "`--shell` needs a command line",
            "write it behind `--`",
        ));
    }
    let argv: Vec<Vec<u8>> = argv.into_iter().map(OsStringExt::into_vec).collect();
    if !shell {
        return Ok((!argv.is_empty()).then_some(Program::Argv(argv)));
    }
    let line = String::from_utf8(argv.join(&b' ')).map_err(|_| {
        invalid(
            "the command line is not UTF-8",
            "drop `--shell` to pass arguments as they are",
        )
    })?;
    Ok(Some(Program::Shell(line)))
}

/// The answer to `--allow-host-compat`.
pub(super) fn host_compat_refused() -> Error {
    invalid(
        "`--allow-host-compat` is refused: an agent's commands never run on the host",
        "drop the flag; without KVM the machine runs under software emulation",
    )
}

/// What an end of a command has besides a code.
pub(super) struct Trouble<'a> {
    pub(super) exit_code: i32,
    pub(super) timed_out: bool,
    pub(super) signal: Option<&'a str>,
    pub(super) error: Option<&'a ErrorReply>,
}

/// Tells it.
pub(super) fn say_trouble(talk: &Talk, prefix: &str, trouble: &Trouble<'_>) {
    if trouble.timed_out {
        talk.error(
            "the command passed its time limit and was ended",
            Some("give it longer with `--timeout-seconds`"),
        );
    }
    if let Some(error) = trouble.error {
        let hint = match (trouble.exit_code, error.code) {
            // Its user or its directory is missing.
            (EXIT_NOT_EXECUTABLE, ErrorCode::NotFound) => {
                "name another one with `--user` or `--workdir`, or add it to the image"
            }
            _ => "check the name; shell syntax needs `--shell`, other programs another environment",
        };
        talk.error(&error.error, Some(hint));
    }
    if let Some(signal) = trouble.signal.filter(|_| !trouble.timed_out) {
        talk.line(&format!(
            "[{prefix}] the command was ended by signal {signal}"
        ));
    }
}

/// Standard output and error, written without blocking the signals' handling.
pub(super) struct Streams {
    stdout: tokio::io::Stdout,
    stderr: tokio::io::Stderr,
}

impl Default for Streams {
    fn default() -> Self {
        Self {
            stdout: tokio::io::stdout(),
            stderr: tokio::io::stderr(),
        }
    }
}

impl Streams {
    /// Writes what the command wrote.
    pub(super) async fn write(&mut self, output: &ExecOutput) -> std::io::Result<()> {
        match output {
            ExecOutput::Stdout(bytes) => {
                self.stdout.write_all(bytes).await?;
                self.stdout.flush().await
            }
            ExecOutput::Stderr(bytes) => {
                self.stderr.write_all(bytes).await?;
                self.stderr.flush().await
            }
            ExecOutput::End(_) => Ok(()),
        }
    }
}

/// Passes our standard input on. A thread reads, because a read of a terminal cannot be
/// interrupted; it ends with the process.
pub(super) async fn feed(stdin: StdinWriter) {
    let (sender, mut chunks) = mpsc::channel::<Vec<u8>>(STDIN_QUEUE);
    std::thread::spawn(move || {
        let mut input = std::io::stdin().lock();
        loop {
            let mut chunk = vec![0; STDIN_CHUNK];
            match input.read(&mut chunk) {
                Ok(0) | Err(_) => return,
                Ok(count) => chunk.truncate(count),
            }
            if sender.blocking_send(chunk).is_err() {
                return;
            }
        }
    });
    while let Some(chunk) = chunks.recv().await {
        if stdin.write(&chunk).await.is_err() {
            // The command is over; its end is told elsewhere.
            return;
        }
    }
    let _ = stdin.close().await;
}
