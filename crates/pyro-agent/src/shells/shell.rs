//! One shell: what its requests and its task share.
//!
//! [`super::pump`] moves the bytes; here is what they move between. Nothing here waits.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use pyro_protocol::code::{ErrorCode, ErrorReply};
use pyro_protocol::limits::{SHELL_INPUT, SHELL_OUTPUT};
use pyro_protocol::redact::Redactor;
use pyro_protocol::ring::Ring;
use pyro_protocol::shell::{
    OpenShell, ReadRange, ShellId, ShellOutput, ShellSignal, ShellState, ShellSummary, WindowSize,
};
use rustix::process::{Pid, Signal, kill_process_group};
use rustix::termios::{Winsize, tcgetpgrp, tcsetwinsize};
use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::budget::Reserved;
use crate::clock::seconds;
use crate::exec::{Exit, Tree};
use crate::text::{decode, rest_of_character};

/// One shell.
#[derive(Debug)]
pub(super) struct Shell {
    id: ShellId,
    cwd: String,
    pid: Pid,
    tree: Tree,
    started_at: f64,
    size: Cell<WindowSize>,
    /// Our side of the terminal, while the shell runs.
    terminal: RefCell<Option<Rc<AsyncFd<OwnedFd>>>>,
    output: RefCell<Output>,
    /// Input that the terminal has not taken.
    input: RefCell<VecDeque<u8>>,
    /// Input came.
    pub(super) entered: Notify,
    /// Output came, input was taken, or the shell ended.
    changed: watch::Sender<()>,
    ended: Cell<Option<Ended>>,
    /// What the two buffers and the redactor may come to.
    _memory: Reserved,
}

/// The output: what is kept of it, and what hides the secrets before it is kept.
#[derive(Debug)]
struct Output {
    ring: Ring,
    redactor: Redactor,
    /// When bytes came last.
    last: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Ended {
    at: f64,
    exit_code: i32,
}

impl Shell {
    /// A shell that was just started as process `pid`.
    pub(super) fn new(
        order: OpenShell,
        pid: Pid,
        tree: Tree,
        terminal: Rc<AsyncFd<OwnedFd>>,
        memory: Reserved,
    ) -> Self {
        Self {
            id: order.shell_id,
            cwd: order.cwd,
            pid,
            tree,
            started_at: seconds(),
            size: Cell::new(order.size),
            terminal: RefCell::new(Some(terminal)),
            output: RefCell::new(Output {
                ring: Ring::new(SHELL_OUTPUT),
                redactor: Redactor::new(&order.redact_values),
                last: Instant::now(),
            }),
            input: RefCell::default(),
            entered: Notify::new(),
            changed: watch::Sender::new(()),
            ended: Cell::new(None),
            _memory: memory,
        }
    }

    pub(super) fn id(&self) -> &ShellId {
        &self.id
    }

    /// The leader of its session. Means nothing once the shell ended.
    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    pub(super) fn tree(&self) -> &Tree {
        &self.tree
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.get().is_some()
    }

    /// Tells of every change from now on.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    pub(super) fn summary(&self) -> ShellSummary {
        let ended = self.ended.get();
        let size = self.size.get();
        ShellSummary {
            shell_id: self.id.clone(),
            cwd: self.cwd.clone(),
            cols: size.cols,
            rows: size.rows,
            state: match ended {
                None => ShellState::Running,
                Some(_) => ShellState::Stopped,
            },
            started_at: self.started_at,
            ended_at: ended.map(|ended| ended.at),
            exit_code: ended.map(|ended| ended.exit_code),
        }
    }

    /// Output as text.
    pub(super) fn read(&self, range: ReadRange) -> ShellOutput {
        let output = self.output.borrow();
        let ring = &output.ring;
        let mut cursor = ring.clamp(range.cursor);
        // A character has at most four bytes.
        let bytes = ring.read(cursor, range.max_chars.saturating_mul(4));
        let skipped = if cursor > range.cursor {
            rest_of_character(&bytes)
        } else {
            0
        };
        cursor += skipped as u64;
        let decoded = decode(&bytes[skipped..], range.max_chars, self.has_ended());
        let next_cursor = cursor + decoded.length as u64;
        ShellOutput {
            summary: self.summary(),
            cursor,
            next_cursor,
            output: decoded.text,
            truncated: next_cursor < ring.end() && !decoded.at_half,
            dropped: ring.start(),
        }
    }

    /// Up to `most` bytes of output and the position of the first.
    pub(super) fn bytes(&self, cursor: u64, most: usize) -> (u64, Vec<u8>) {
        let output = self.output.borrow();
        let cursor = output.ring.clamp(cursor);
        (cursor, output.ring.read(cursor, most))
    }

    /// Position of the oldest byte that is kept.
    pub(super) fn dropped(&self) -> u64 {
        self.output.borrow().ring.start()
    }

    /// When output came last; nothing while some of it is held back, since it will show soon.
    pub(super) fn quiet_since(&self) -> Option<Instant> {
        let output = self.output.borrow();
        (!output.redactor.holds()).then_some(output.last)
    }

    /// Queues input, all of it or none.
    pub(super) fn enter(&self, bytes: &[u8]) -> Result<(), ErrorReply> {
        self.check_running()?;
        if self.input.borrow().len() + bytes.len() > SHELL_INPUT {
            return Err(ErrorReply::new(
                ErrorCode::LimitExceeded,
                format!(
                    "the shell `{}` has not read its input; at most {SHELL_INPUT} bytes wait",
                    self.id.as_str()
                ),
            ));
        }
        self.enter_some(bytes);
        Ok(())
    }

    /// Queues as much input as there is room for, and says how much. A shell that ended
    /// takes and drops everything.
    pub(super) fn enter_some(&self, bytes: &[u8]) -> usize {
        if self.has_ended() {
            return bytes.len();
        }
        let mut input = self.input.borrow_mut();
        let count = bytes.len().min(SHELL_INPUT - input.len());
        input.extend(&bytes[..count]);
        if count > 0 {
            self.entered.notify_one();
        }
        count
    }

    pub(super) fn has_input(&self) -> bool {
        !self.input.borrow().is_empty()
    }

    /// Lets `write` take from the front of the queue; it says how much it took.
    pub(super) fn take_input(
        &self,
        write: impl FnOnce(&[u8]) -> rustix::io::Result<usize>,
    ) -> rustix::io::Result<usize> {
        let mut input = self.input.borrow_mut();
        let taken = write(input.as_slices().0)?;
        input.drain(..taken);
        drop(input);
        self.changed.send_replace(());
        Ok(taken)
    }

    /// Output came.
    pub(super) fn put(&self, bytes: &[u8]) {
        let mut output = self.output.borrow_mut();
        let Output {
            ring,
            redactor,
            last,
        } = &mut *output;
        *last = Instant::now();
        let mut clean = Vec::with_capacity(bytes.len());
        redactor.push(bytes, &mut clean);
        ring.push(&clean);
        drop(output);
        self.changed.send_replace(());
    }

    /// Whether output is held back because it may be the beginning of a secret.
    pub(super) fn holds_output(&self) -> bool {
        self.output.borrow().redactor.holds()
    }

    /// Nobody can wait longer for what is held back.
    pub(super) fn flush(&self) {
        let mut output = self.output.borrow_mut();
        let mut clean = Vec::new();
        output.redactor.flush(&mut clean);
        output.ring.push(&clean);
        drop(output);
        self.changed.send_replace(());
    }

    /// The process ended and its output is complete.
    pub(super) fn end(&self, exit: Exit) {
        self.flush();
        self.ended.set(Some(Ended {
            at: seconds(),
            exit_code: match exit {
                Exit::Code(code) => code,
                Exit::Signal(signal) => -signal,
            },
        }));
        self.terminal.replace(None);
        self.input.replace(VecDeque::new());
        self.changed.send_replace(());
    }

    /// Gives the terminal another size; the kernel tells what runs in the foreground.
    pub(super) fn resize(&self, size: WindowSize) -> Result<(), ErrorReply> {
        let terminal = self.running_terminal()?;
        tcsetwinsize(&*terminal, winsize(size)).map_err(|errno| {
            ErrorReply::new(
                ErrorCode::GuestError,
                format!("resizing the terminal: {errno}"),
            )
        })?;
        self.size.set(size);
        Ok(())
    }

    /// Signals what runs in the foreground, and the shell itself unless it is `INT`, which
    /// must end the command and not the shell's own waiting for it.
    ///
    /// The original's shell had no job control, so that its one process group was both.
    pub(super) fn signal(&self, signal: ShellSignal) -> Result<(), ErrorReply> {
        let terminal = self.running_terminal()?;
        let number = match signal {
            ShellSignal::Hup => Signal::HUP,
            ShellSignal::Int => Signal::INT,
            ShellSignal::Term => Signal::TERM,
            ShellSignal::Kill => Signal::KILL,
        };
        self.signal_groups(&terminal, number, signal != ShellSignal::Int);
        Ok(())
    }

    /// Signals what runs in the foreground by number, as a frame of an attached peer asks.
    pub(super) fn signal_foreground(&self, signal: Signal) {
        if let Ok(terminal) = self.running_terminal() {
            self.signal_groups(&terminal, signal, false);
        }
    }

    fn signal_groups(&self, terminal: &AsyncFd<OwnedFd>, signal: Signal, shell_too: bool) {
        let foreground = tcgetpgrp(terminal).ok();
        if let Some(group) = foreground {
            // An empty group is no fault.
            let _ = kill_process_group(group, signal);
        }
        if foreground != Some(self.pid) && (shell_too || foreground.is_none()) {
            let _ = kill_process_group(self.pid, signal);
        }
    }

    fn running_terminal(&self) -> Result<Rc<AsyncFd<OwnedFd>>, ErrorReply> {
        self.terminal.borrow().clone().ok_or_else(|| self.stopped())
    }

    fn check_running(&self) -> Result<(), ErrorReply> {
        if self.has_ended() {
            Err(self.stopped())
        } else {
            Ok(())
        }
    }

    fn stopped(&self) -> ErrorReply {
        ErrorReply::new(
            ErrorCode::FailedPrecondition,
            format!("the shell `{}` has stopped", self.id.as_str()),
        )
    }
}

/// `size` as the kernel takes it.
pub(super) fn winsize(size: WindowSize) -> Winsize {
    Winsize {
        ws_row: size.rows,
        ws_col: size.cols,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}
