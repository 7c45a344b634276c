//! Commands on a terminal of the guest: one stream both ways, a size, and a code in the end.
//!
//! They stand in the history as any other. They end with who waits for them: dropping one, or being killed, ends it in the guest;
//! [`TerminalExec::close`] also writes its end down.

use pyro_protocol::capture::Capture;
use pyro_protocol::exec::EXIT_SIGNAL_BASE;
use pyro_protocol::frame::Kind;
use pyro_protocol::shell::{AttachEnd, AttachReason};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Workspace;
use super::exec::in_workspace;
use super::history::{MAX_OUTPUT, save_outputs};
use super::jobs::ask;
use super::live::Live;
use super::store::{CommandRecord, CommandState, Writer};
use crate::error::Error;
use crate::exec::{Call, ExecOptions, Program, StdinWriter};
use crate::machine::new_id;

/// Columns and rows of a terminal, above zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalSize {
    /// Characters in a line.
    pub cols: u16,
    /// Lines.
    pub rows: u16,
}

/// What a command on a terminal does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TerminalOutput {
    /// It wrote to its terminal.
    Bytes(Vec<u8>),
    /// It ended, with this code as a shell tells it; nothing follows.
    End {
        /// The code.
        exit_code: i32,
    },
}

/// A command that runs on a terminal.
#[derive(Debug)]
pub struct TerminalExec {
    workspace: Workspace,
    live: Live,
    call: Call,
    input: StdinWriter,
    shell_id: String,
    record: CommandRecord,
    output: Capture,
    begun: Instant,
}

impl Workspace {
    /// Starts a command on a new terminal, by default in the workspace's directory.
    ///
    /// # Errors
    /// It runs as root and without a time limit; arguments must be UTF-8.
    pub async fn exec_on_terminal(
        &self,
        options: &ExecOptions,
        size: TerminalSize,
    ) -> Result<TerminalExec, Error> {
        options.check()?;
        let live = self.live().await?;
        let facts = self.row().await?.facts;
        let options = in_workspace(&facts, options);
        if let Some(user) = options.user.as_deref().filter(|user| *user != "root") {
            return Err(Error::invalid(
                format!("a command on a terminal runs as root, not as `{user}`"),
                "run it without a terminal, or with `su` in the guest",
            ));
        }
        let argv = argv(&options.program)?;
        let mut record = self.begin_command(&options, Some(Writer::this())).await?;
        let shell_id = format!("exec-{}", new_id());
        let open = json!({
            "action": "open_shell", "shell_id": shell_id, "argv": argv, "cwd": options.cwd,
            "env": options.env, "cols": size.cols, "rows": size.rows,
        });
        let attach = json!({
            "action": "attach_shell", "shell_id": shell_id, "cursor": 0, "closes": true,
        });
        let begun = Instant::now();
        let opened = async {
            ask::<Value>(&live, &open).await?;
            live.call(&attach).await
        };
        match opened.await {
            Ok(call) => Ok(TerminalExec {
                workspace: self.clone(),
                live,
                input: call.input(),
                call,
                shell_id,
                record,
                output: Capture::with_limits(MAX_OUTPUT / 2, MAX_OUTPUT / 2),
                begun,
            }),
            Err(error) => {
                record.state = CommandState::Interrupted;
                self.end_command(&record).await?;
                self.explained(&live, Err(error)).await
            }
        }
    }
}

impl TerminalExec {
    /// The command's number in the workspace, from 1.
    pub fn sequence(&self) -> u64 {
        self.record.sequence
    }

    /// The writer of what is typed. A terminal has no end of input; Ctrl-D is a byte.
    pub fn input(&self) -> StdinWriter {
        self.input.clone()
    }

    /// Gives the terminal another size.
    pub async fn resize(&self, size: TerminalSize) -> Result<(), Error> {
        let request = json!({
            "action": "resize_shell", "shell_id": self.shell_id, "cols": size.cols, "rows": size.rows,
        });
        let answered = ask::<Value>(&self.live, &request).await;
        self.workspace
            .explained(&self.live, answered)
            .await
            .map(drop)
    }

    /// The next thing the command does. Its end is told when it is written down. Cancel-safe until then.
    pub async fn next(&mut self) -> Result<TerminalOutput, Error> {
        loop {
            let frame = match self.call.next_frame().await {
                Ok(frame) => frame,
                Err(error) => {
                    self.written(CommandState::Interrupted, None).await?;
                    return self.workspace.explained(&self.live, Err(error)).await;
                }
            };
            match frame.kind {
                Kind::Stdout => {
                    self.output.push(&frame.payload);
                    return Ok(TerminalOutput::Bytes(frame.payload));
                }
                Kind::Window => self.input.credit(&frame.payload)?,
                Kind::End => return self.ended(&frame.payload).await,
                Kind::Stderr | Kind::Stdin | Kind::StdinEnd | Kind::Signal | Kind::Progress => {}
            }
        }
    }

    async fn ended(&mut self, payload: &[u8]) -> Result<TerminalOutput, Error> {
        let end: AttachEnd =
            serde_json::from_slice(payload).map_err(|error| Error::unreachable(&error))?;
        match (end.reason, end.error) {
            (AttachReason::Exited, _) => {}
            (AttachReason::Detached | AttachReason::Refused, Some(error)) => {
                return Err(Error::Guest(error));
            }
            (AttachReason::Detached | AttachReason::Refused, None) => {
                return Err(Error::unreachable(&"it let go of the terminal"));
            }
        }
        let code = end.summary.exit_code.unwrap_or(0);
        let exit_code = if code < 0 {
            EXIT_SIGNAL_BASE.saturating_sub(code)
        } else {
            code
        };
        self.forget().await;
        self.workspace.sync(&self.live).await?;
        self.written(CommandState::Ended, Some(exit_code)).await?;
        Ok(TerminalOutput::End { exit_code })
    }

    /// Ends the command with everything it started.
    pub async fn close(mut self) -> Result<(), Error> {
        self.forget().await;
        self.written(CommandState::Interrupted, None).await
    }

    async fn forget(&self) {
        let request = json!({"action": "close_shell", "shell_id": self.shell_id});
        // A guest that is gone has forgotten it.
        let _ = self.live.call(&request).await;
    }

    async fn written(&mut self, state: CommandState, exit_code: Option<i32>) -> Result<(), Error> {
        self.record.state = state;
        self.record.exit_code = exit_code;
        let millis = self.begun.elapsed().as_millis();
        self.record.duration_ms = exit_code.map(|_| u64::try_from(millis).unwrap_or(u64::MAX));
        self.record.truncated = self.output.truncated();
        save_outputs(
            self.workspace.place().commands(),
            self.record.sequence,
            self.output.clone().into_bytes(),
            Vec::new(),
        )
        .await?;
        self.workspace.end_command(&self.record).await
    }
}

/// The command as words. What is not there is told on the terminal, by a shell.
fn argv(program: &Program) -> Result<Vec<String>, Error> {
    let words = match program {
        Program::Shell(line) => return Ok(vec!["/bin/sh".into(), "-lc".into(), line.clone()]),
        Program::Argv(words) => words,
    };
    let mut argv: Vec<String> = ["/bin/sh", "-c", "exec \"$@\"", "sh"]
        .map(str::to_owned)
        .into();
    for word in words {
        let word = String::from_utf8(word.clone())
            .map_err(|_| Error::invalid("an argument is no UTF-8", "run it without a terminal"))?;
        argv.push(word);
    }
    Ok(argv)
}
