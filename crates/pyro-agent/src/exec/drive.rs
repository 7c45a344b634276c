//! The loop that watches one command.
//!
//! ```text
//! running ──exit──▶ draining ──both outputs at their end, LINGER of silence, a limit──▶ done
//!    │ time limit, or the peer left: TERM to the group
//!    └──▶ ending ──exit──▶ what it started ends too ──nobody left, or KILL──▶ draining
//!            └── KILL_GRACE since the TERM: KILL ──exit──────────────────────────┘
//! ```
//!
//! A command that dies of a TERM which its peer sent goes the lower way from its exit on.
//!
//! Nothing in it waits for the peer: output that the peer does not take stops the reading of
//! more output, never the time limit or a kill. Draining ends with what the pipes hold at
//! that moment, so that no byte of the command itself is lost.

use std::collections::VecDeque;
use std::future::pending;
use std::time::Duration;

use pyro_protocol::code::{ErrorCode, ErrorReply};
use pyro_protocol::exec::{EXIT_TIMEOUT, Exec, ExecEnd};
use pyro_protocol::frame::{Frame, Kind};
use pyro_protocol::limits::STDIN_WINDOW;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::cgroup::Cgroup;
use super::pipes::{read_chunk, read_rest, take_chunk, write_stdin};
use super::reaper::{Exit, Reaper};
use super::{ended, spawn};
use crate::wire::Heard;

/// How long a command and what it started may take to end after TERM before it gets KILL.
const KILL_GRACE: Duration = Duration::from_secs(2);

/// Time between two looks at whether what a dead command started has ended too.
const LOOK: Duration = Duration::from_millis(10);

/// How long outputs that a dead command's children hold open may be silent before the
/// command is over. Output that comes within it is still delivered.
const LINGER: Duration = Duration::from_millis(500);

/// How long a dead command's children may go on talking before the command is over all the
/// same: a server that was left in the background must not hold it to its time limit.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// What a command sends to its peer.
#[derive(Debug)]
pub(crate) enum Output {
    /// It runs.
    Started {
        /// Its process id in the guest.
        pid: i32,
    },
    /// Bytes of standard output.
    Stdout(Vec<u8>),
    /// Bytes of standard error.
    Stderr(Vec<u8>),
    /// That many more bytes of standard input may be sent.
    Window(u32),
}

/// What comes from the peer.
pub(crate) struct Input {
    /// Frames; the end of the channel is the peer's leaving.
    pub(crate) frames: mpsc::Receiver<Heard>,
    /// Whether standard input comes with them.
    pub(crate) stdin: bool,
}

/// Runs `exec` to its end. Dropping the receiver of `output` cancels it.
pub(crate) async fn drive(
    reaper: &Reaper,
    exec: &Exec,
    input: Option<Input>,
    output: mpsc::Sender<Output>,
) -> ExecEnd {
    let start = Instant::now();
    let cgroup = Cgroup::create();
    let (frames, wants_stdin) = match input {
        Some(input) => (Some(input.frames), input.stdin),
        None => (None, false),
    };
    let spawned = match spawn::spawn(exec, wants_stdin, cgroup.as_ref()) {
        Ok(spawned) => spawned,
        Err(failed) => {
            // The header comes before every end, so that a reader needs one shape only.
            let _ = output.send(Output::Started { pid: 0 }).await;
            return ExecEnd {
                error: Some(failed.error),
                ..ended(Exit::Code(failed.exit_code))
            };
        }
    };
    // No await since the spawn: the reaper has not run.
    let exit = reaper.watch(spawned.pid);
    let watched = Watched {
        pid: spawned.pid,
        cgroup,
        exit: Some(exit),
        exited: None,
        stdout: pipe::Receiver::from_owned_fd(spawned.stdout).ok(),
        stderr: pipe::Receiver::from_owned_fd(spawned.stderr).ok(),
        stdin: spawned
            .stdin
            .and_then(|fd| pipe::Sender::from_owned_fd(fd).ok()),
        stdin_buffer: VecDeque::new(),
        stdin_ended: false,
        credit: 0,
        frames,
        ready: VecDeque::from([Output::Started {
            pid: spawned.pid.as_raw_nonzero().get(),
        }]),
        output,
        deadline: Some(start + exec.timeout),
        kill_at: None,
        look_at: None,
        peer_sent_term: None,
        linger_until: None,
        reading: Reading::On,
        timed_out: false,
        cancelled: false,
        fault: None,
    };
    let mut end = watched.run().await;
    end.duration_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    end
}

struct Watched {
    pid: Pid,
    cgroup: Option<Cgroup>,
    exit: Option<oneshot::Receiver<Exit>>,
    exited: Option<Exit>,
    stdout: Option<pipe::Receiver>,
    stderr: Option<pipe::Receiver>,
    stdin: Option<pipe::Sender>,
    stdin_buffer: VecDeque<u8>,
    stdin_ended: bool,
    credit: u32,
    frames: Option<mpsc::Receiver<Heard>>,
    /// What waits for room in the queue; nothing more is read meanwhile.
    ready: VecDeque<Output>,
    output: mpsc::Sender<Output>,
    deadline: Option<Instant>,
    kill_at: Option<Instant>,
    /// When to look again for what the dead command left; only until the KILL.
    look_at: Option<Instant>,
    peer_sent_term: Option<Instant>,
    linger_until: Option<Instant>,
    reading: Reading,
    timed_out: bool,
    cancelled: bool,
    /// What the peer did that nobody may.
    fault: Option<ErrorReply>,
}

impl Watched {
    async fn run(mut self) -> ExecEnd {
        while !self.done() {
            if self.ready.is_empty() && self.credit > 0 {
                let credit = std::mem::take(&mut self.credit);
                self.ready.push_back(Output::Window(credit));
            }
            let happened = self.wait().await;
            self.take_in(happened);
        }
        let mut end = ended(self.exited.unwrap_or(Exit::Signal(Signal::KILL.as_raw())));
        if self.timed_out {
            end.timed_out = true;
            end.exit_code = EXIT_TIMEOUT;
        }
        end.error = self.fault.take();
        end.usage = self.cgroup.as_ref().and_then(Cgroup::usage);
        end.output_left_open = self.stdout.is_some() || self.stderr.is_some();
        end
    }

    fn done(&self) -> bool {
        let drained =
            self.reading == Reading::Over || (self.stdout.is_none() && self.stderr.is_none());
        self.exited.is_some()
            && self.kill_at.is_none()
            && (self.cancelled || (self.ready.is_empty() && drained))
    }

    /// Waits for the next thing to happen.
    async fn wait(&mut self) -> Happened {
        let may_read = self.ready.is_empty();
        let has_stdin = self.stdin.is_some() && !self.stdin_buffer.is_empty();
        // What was told to end may be silent until it does.
        let linger = self
            .linger_until
            .filter(|_| may_read && self.kill_at.is_none());
        tokio::select! {
            exit = wait_exit(&mut self.exit), if self.exit.is_some() => Happened::Exited(exit),
            permit = self.output.reserve(), if !may_read => match permit {
                Ok(permit) => {
                    if let Some(ready) = self.ready.pop_front() {
                        permit.send(ready);
                    }
                    Happened::OutputTaken
                }
                Err(_) => Happened::PeerLeft,
            },
            () = self.output.closed(), if may_read && !self.cancelled => Happened::PeerLeft,
            chunk = read_chunk(&mut self.stdout), if may_read && self.stdout.is_some() => {
                Happened::Stdout(chunk)
            }
            chunk = read_chunk(&mut self.stderr), if may_read && self.stderr.is_some() => {
                Happened::Stderr(chunk)
            }
            frame = next_frame(&mut self.frames), if self.frames.is_some() => Happened::Frame(frame),
            written = write_stdin(&mut self.stdin, &self.stdin_buffer), if has_stdin => {
                Happened::StdinWritten(written)
            }
            () = until(self.deadline), if self.deadline.is_some() => Happened::TimeLimit,
            () = until(self.kill_at), if self.kill_at.is_some() => Happened::GraceOver,
            () = until(self.look_at), if self.look_at.is_some() => Happened::Look,
            () = until(linger), if linger.is_some() => Happened::Silence,
        }
    }

    fn take_in(&mut self, happened: Happened) {
        match happened {
            Happened::Exited(exit) => {
                self.exit = None;
                self.exited = Some(exit);
                self.linger_again();
                let drained = Instant::now() + DRAIN_LIMIT;
                self.deadline = self.deadline.map(|deadline| deadline.min(drained));
                self.end_the_rest(exit);
            }
            Happened::OutputTaken => self.linger_again(),
            Happened::Stdout(chunk) => {
                let chunk = take_chunk(chunk, &mut self.stdout).map(Output::Stdout);
                self.ready.extend(chunk);
                self.linger_again();
            }
            Happened::Stderr(chunk) => {
                let chunk = take_chunk(chunk, &mut self.stderr).map(Output::Stderr);
                self.ready.extend(chunk);
                self.linger_again();
            }
            Happened::Frame(Some(Ok(frame))) => {
                if let Err(fault) = self.take_frame(&frame) {
                    self.refuse(fault);
                }
            }
            Happened::Frame(Some(Err(fault))) => self.refuse(fault),
            Happened::Frame(None) | Happened::PeerLeft => self.peer_left(),
            Happened::StdinWritten(written) => self.stdin_written(written.ok()),
            Happened::TimeLimit if self.exited.is_some() => {
                self.take_rest();
                self.stop_reading();
            }
            Happened::TimeLimit => {
                self.timed_out = true;
                self.terminate();
            }
            Happened::GraceOver => {
                self.kill();
                self.grace_is_over();
            }
            Happened::Look => self.look_for_the_rest(),
            Happened::Silence => {
                self.take_rest();
                if self.ready.is_empty() {
                    self.stop_reading();
                } else {
                    // This loop was silent, not the outputs.
                    self.linger_again();
                }
            }
        }
    }

    fn linger_again(&mut self) {
        if self.exited.is_some() {
            self.linger_until = Some(Instant::now() + LINGER);
        }
    }

    /// Takes what the outputs hold now.
    fn take_rest(&mut self) {
        let stdout = read_rest(&mut self.stdout);
        let stderr = read_rest(&mut self.stderr);
        self.ready.extend(stdout.into_iter().map(Output::Stdout));
        self.ready.extend(stderr.into_iter().map(Output::Stderr));
    }

    fn stop_reading(&mut self) {
        self.reading = Reading::Over;
        self.deadline = None;
        self.linger_until = None;
    }

    /// Cancels the command of a peer that broke the protocol. It is told why, if it still
    /// listens.
    fn refuse(&mut self, fault: ErrorReply) {
        self.fault = Some(fault);
        self.peer_left();
    }

    fn peer_left(&mut self) {
        self.frames = None;
        self.ready.clear();
        // Every output that finds no taker says again that the peer left; the grace began
        // with the first.
        let again = std::mem::replace(&mut self.cancelled, true);
        if self.exited.is_none() && !again {
            self.terminate();
        }
    }

    /// Gives what the command started the rest of its grace, if the command was to end.
    fn end_the_rest(&mut self, exit: Exit) {
        let was_told = self.timed_out || self.cancelled;
        let died_of_term = exit == Exit::Signal(Signal::TERM.as_raw());
        if let Some(sent) = self.peer_sent_term
            && died_of_term
            && !was_told
        {
            self.kill_at = Some(sent + KILL_GRACE);
        } else if !was_told {
            return;
        } else if self.kill_at.is_none() {
            // It had its KILL; so has what it started since.
            self.kill();
            self.grace_is_over();
            return;
        }
        self.look_for_the_rest();
    }

    fn look_for_the_rest(&mut self) {
        if self.is_alone() {
            self.grace_is_over();
        } else {
            self.look_at = Some(Instant::now() + LOOK);
        }
    }

    fn grace_is_over(&mut self) {
        self.kill_at = None;
        self.look_at = None;
        if self.exited.is_some() {
            // What even a KILL does not reach must not talk for ever.
            self.deadline = Some(Instant::now() + KILL_GRACE);
            self.linger_again();
        }
    }

    /// Whether nothing is left of what the command started, as far as a kill would reach.
    fn is_alone(&self) -> bool {
        test_kill_process_group(self.pid) == Err(Errno::SRCH)
            && self.cgroup.as_ref().is_none_or(Cgroup::is_empty)
    }

    fn terminate(&mut self) {
        self.deadline = None;
        self.kill_at = Some(Instant::now() + KILL_GRACE);
        self.signal(Signal::TERM);
    }

    fn kill(&self) {
        self.signal(Signal::KILL);
        if let Some(cgroup) = &self.cgroup {
            cgroup.kill();
        }
    }

    fn signal(&self, signal: Signal) {
        // An empty group is what we want.
        let _ = kill_process_group(self.pid, signal);
    }

    fn take_frame(&mut self, frame: &Frame) -> Result<(), ErrorReply> {
        match frame.kind {
            Kind::Stdin => {
                self.stdin_buffer.extend(&frame.payload);
                if self.stdin_buffer.len() > STDIN_WINDOW {
                    // It would fill our memory.
                    return Err(ErrorReply::new(
                        ErrorCode::LimitExceeded,
                        format!("more than {STDIN_WINDOW} bytes of standard input wait"),
                    ));
                }
                if self.stdin.is_none() {
                    self.discard_stdin();
                }
            }
            Kind::StdinEnd => {
                self.stdin_ended = true;
                self.close_stdin_if_done();
            }
            Kind::Signal => {
                let number = frame.payload.first().copied().unwrap_or(0);
                let signal = Signal::from_named_raw(i32::from(number)).ok_or_else(|| {
                    ErrorReply::new(
                        ErrorCode::InvalidArgument,
                        format!("there is no signal {number}"),
                    )
                })?;
                if self.exited.is_none() {
                    if signal == Signal::TERM {
                        self.peer_sent_term = Some(Instant::now());
                    }
                    self.signal(signal);
                }
            }
            Kind::End | Kind::Stdout | Kind::Stderr | Kind::Window | Kind::Progress => {
                return Err(ErrorReply::new(
                    ErrorCode::InvalidArgument,
                    format!("{:?} is no frame for a command", frame.kind),
                ));
            }
        }
        Ok(())
    }

    fn stdin_written(&mut self, written: Option<usize>) {
        if let Some(count) = written {
            self.stdin_buffer.drain(..count);
            self.credit += u32::try_from(count).expect("a chunk is smaller than 4 GiB");
            self.close_stdin_if_done();
        } else {
            // The command closed its input: what comes is taken and dropped.
            self.stdin = None;
            self.discard_stdin();
        }
    }

    fn discard_stdin(&mut self) {
        let count = u32::try_from(self.stdin_buffer.len()).expect("bounded by the window");
        self.stdin_buffer.clear();
        self.credit += count;
    }

    fn close_stdin_if_done(&mut self) {
        if self.stdin_ended && self.stdin_buffer.is_empty() {
            self.stdin = None;
        }
    }
}

/// Whether outputs that are still open are read.
#[derive(PartialEq, Eq)]
enum Reading {
    On,
    Over,
}

/// One thing that a command's loop waits for.
enum Happened {
    Exited(Exit),
    OutputTaken,
    Stdout(std::io::Result<Vec<u8>>),
    Stderr(std::io::Result<Vec<u8>>),
    Frame(Option<Heard>),
    PeerLeft,
    StdinWritten(std::io::Result<usize>),
    TimeLimit,
    GraceOver,
    Look,
    Silence,
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => pending().await,
    }
}

pub(super) async fn wait_exit(exit: &mut Option<oneshot::Receiver<Exit>>) -> Exit {
    match exit {
        // A reaper that is gone means that this process is going too.
        Some(exit) => exit.await.unwrap_or(Exit::Signal(Signal::KILL.as_raw())),
        None => pending().await,
    }
}

async fn next_frame(frames: &mut Option<mpsc::Receiver<Heard>>) -> Option<Heard> {
    match frames {
        Some(frames) => frames.recv().await,
        None => pending().await,
    }
}
