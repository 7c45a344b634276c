//! `pyro workspace exec --tty`: this terminal becomes that of the command.

use std::io::IsTerminal;

use pyro::workspace::{TerminalOutput, TerminalSize, Workspace};
use pyro::{Error, ExecOptions, ExecOutput};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::signal::unix::{SignalKind, signal};

use super::invalid;
use crate::commands::guest_command::{SIGPIPE, Streams, feed};
use crate::commands::internal;
use crate::exit_code::ExitCode;
use crate::render::Talk;
use crate::signals::Interrupts;

/// The size of a terminal that tells none.
const DEFAULT: TerminalSize = TerminalSize { cols: 80, rows: 24 };

pub(super) async fn run(
    workspace: &Workspace,
    options: &ExecOptions,
    talk: &Talk,
    interrupts: &mut Interrupts,
) -> Result<ExitCode, Error> {
    if !(std::io::stdin().is_terminal() && std::io::stdout().is_terminal()) {
        return Err(invalid(
            "`--tty` needs a terminal on standard input and output",
            "drop it; `-i` passes standard input on",
        ));
    }
    let mut resized = signal(SignalKind::window_change()).map_err(|error| internal(&error))?;
    let mut running = workspace.exec_on_terminal(options, size()).await?;
    let raw = Raw::enter()?;
    tokio::spawn(feed(running.input()));
    let mut streams = Streams::default();
    let exit_code = loop {
        let output = tokio::select! {
            output = running.next() => output?,
            _ = resized.recv() => {
                running.resize(size()).await?;
                continue;
            }
            number = interrupts.next() => {
                drop(raw);
                tokio::select! {
                    closed = running.close() => closed?,
                    _ = interrupts.next() => {}
                }
                return Ok(ExitCode::Signal(number));
            }
        };
        match output {
            TerminalOutput::End { exit_code } => break exit_code,
            TerminalOutput::Bytes(bytes) => {
                if streams.write(&ExecOutput::Stdout(bytes)).await.is_err() {
                    drop(raw);
                    running.close().await?;
                    return Ok(ExitCode::Signal(SIGPIPE));
                }
            }
        }
    };
    drop(raw);
    talk.line(&format!(
        "[workspace-exec] workspace_id={} sequence={} exit_code={exit_code}",
        workspace.id(),
        running.sequence()
    ));
    Ok(ExitCode::of_guest(exit_code))
}

fn size() -> TerminalSize {
    match tcgetwinsize(std::io::stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => TerminalSize {
            cols: size.ws_col,
            rows: size.ws_row,
        },
        Ok(_) | Err(_) => DEFAULT,
    }
}

/// This terminal without a will of its own; what it was before comes back when this is dropped.
struct Raw(Termios);

impl Raw {
    fn enter() -> Result<Self, Error> {
        let before = tcgetattr(std::io::stdin()).map_err(|error| internal(&error))?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(std::io::stdin(), OptionalActions::Now, &raw)
            .map_err(|error| internal(&error))?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Drain, &self.0);
    }
}
