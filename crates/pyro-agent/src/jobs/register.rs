//! The register: every job that runs or has ended and was not forgotten.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use pyro_protocol::code::{ErrorCode, ErrorReply};
use pyro_protocol::exec::{Exec, ExecEnd, ReplyForm};
use pyro_protocol::frame::Frame;
use pyro_protocol::job::{JobRead, JobState, JobStatus, JobStream};
use pyro_protocol::limits::{JOB_RING_BYTES, MAX_JOBS, MAX_TOKENS, STDIN_WINDOW};
use serde_json::json;
use tokio::sync::{mpsc, watch};

use crate::disk_ring::DiskRing;
use crate::exec::{Input, Output, Reaper, drive};
use crate::files::fault::io_at;
use crate::machine::Freezer;
use crate::wire::Heard;

/// Where the output of jobs lies in a machine: on its disk, which goes with it.
const DIRECTORY: &str = "/var/lib/pyro/jobs";

/// The same outside a machine, where an agent is only tested. The files have no names.
const DIRECTORY_OUTSIDE: &str = "/tmp";

/// Chunks of output that may wait for the ring.
const OUTPUT_QUEUE: usize = 4;

/// Frames that may wait for the command's loop.
const INPUT_QUEUE: usize = 16;

/// The jobs of one agent. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Jobs {
    directory: Rc<PathBuf>,
    freezer: Freezer,
    register: Rc<RefCell<Register>>,
}

#[derive(Debug, Default)]
struct Register {
    next: u64,
    /// By number, so that the oldest stand first.
    jobs: BTreeMap<u64, Rc<Job>>,
    /// Tokens of jobs that are remembered.
    tokens: HashMap<String, u64>,
    /// Tokens of commands without a job, the oldest first.
    ran: VecDeque<String>,
}

/// What a waiter looks at.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Change {
    pub(super) stdout: u64,
    pub(super) stderr: u64,
    pub(super) started: bool,
    pub(super) ended: bool,
}

/// One job.
#[derive(Debug)]
pub(super) struct Job {
    number: u64,
    pid: Cell<i32>,
    started_at_ms: u64,
    stdout: RefCell<DiskRing>,
    stderr: RefCell<DiskRing>,
    end: RefCell<Option<ExecEnd>>,
    /// Standard input that the command may still be sent.
    window: Cell<usize>,
    /// Gone once the job is to end: that cancels the command.
    frames: RefCell<Option<mpsc::Sender<Heard>>>,
    change: watch::Sender<Change>,
}

impl Jobs {
    /// No jobs yet. Their outputs are written while `freezer` lets them.
    pub(crate) fn new(freezer: Freezer) -> Self {
        let in_machine = rustix::process::getpid().is_init();
        let directory = if in_machine {
            DIRECTORY
        } else {
            DIRECTORY_OUTSIDE
        };
        Self {
            directory: Rc::new(directory.into()),
            freezer,
            register: Rc::default(),
        }
    }

    /// Starts a job, or answers the one that was started with the same token.
    pub(crate) async fn start(&self, reaper: &Reaper, exec: Exec) -> Result<JobStatus, ErrorReply> {
        // A new job needs rings, and they are on the disk.
        self.freezer.thawed().await;
        let known = exec.token.as_ref().and_then(|token| self.of_token(token));
        let job = match known {
            Some(job) => job,
            None => self.begin(reaper, exec)?,
        };
        // The sender lives in the job, which is held here.
        let _ = job
            .changes()
            .wait_for(|change| change.started || change.ended)
            .await;
        Ok(job.status())
    }

    /// Whether a command without a job was run with the same token; from now on it was.
    pub(crate) fn ran_before(&self, exec: &Exec) -> bool {
        let Some(token) = exec.token.as_ref() else {
            return false;
        };
        if matches!(exec.reply, ReplyForm::Detached { .. }) {
            return false;
        }
        let mut register = self.register.borrow_mut();
        if register.ran.contains(token) {
            return true;
        }
        register.ran.push_back(token.clone());
        let surplus = register.ran.len().saturating_sub(MAX_TOKENS);
        register.ran.drain(..surplus);
        false
    }

    /// Jobs whose command runs.
    pub(crate) fn running(&self) -> usize {
        let register = self.register.borrow();
        let jobs = register.jobs.values();
        jobs.filter(|job| job.end.borrow().is_none()).count()
    }

    pub(super) fn list(&self) -> Vec<JobStatus> {
        self.register
            .borrow()
            .jobs
            .values()
            .map(|job| job.status())
            .collect()
    }

    pub(super) fn get(&self, job_id: &str) -> Result<Rc<Job>, ErrorReply> {
        let number = job_id
            .strip_prefix("job-")
            .and_then(|number| number.parse().ok());
        number
            .and_then(|number: u64| self.register.borrow().jobs.get(&number).cloned())
            .ok_or_else(|| {
                let shown: String = job_id.chars().take(64).collect();
                ErrorReply::new(ErrorCode::NotFound, format!("there is no job `{shown}`"))
            })
    }

    /// Ends a job's command; the job stays to be read.
    pub(super) fn end(&self, job_id: &str) -> Result<serde_json::Value, ErrorReply> {
        self.get(job_id)?.frames.borrow_mut().take();
        Ok(json!({"ok": true}))
    }

    /// Forgets a job that has ended.
    pub(super) async fn remove(&self, job_id: &str) -> Result<serde_json::Value, ErrorReply> {
        // Its rings give their room back to the disk.
        self.freezer.thawed().await;
        let job = self.get(job_id)?;
        if job.end.borrow().is_none() {
            return Err(ErrorReply::new(
                ErrorCode::FailedPrecondition,
                format!("the job `{job_id}` runs; end it first"),
            ));
        }
        self.register.borrow_mut().forget(job.number);
        Ok(json!({"ok": true}))
    }

    fn of_token(&self, token: &str) -> Option<Rc<Job>> {
        let register = self.register.borrow();
        register.jobs.get(register.tokens.get(token)?).cloned()
    }

    fn begin(&self, reaper: &Reaper, exec: Exec) -> Result<Rc<Job>, ErrorReply> {
        self.register.borrow_mut().make_room()?;
        let rings = rings(&self.directory).map_err(io_at(b"the job's output"))?;
        let (frame_sender, frames) = mpsc::channel(INPUT_QUEUE);
        let job = self
            .register
            .borrow_mut()
            .add(rings, frame_sender, exec.token.clone());
        let watched = Rc::clone(&job);
        let reaper = reaper.clone();
        let freezer = self.freezer.clone();
        tokio::task::spawn_local(async move {
            watch_over(&reaper, &exec, frames, &watched, &freezer).await;
        });
        Ok(job)
    }
}

impl Register {
    /// Forgets the oldest job that has ended if there are too many.
    fn make_room(&mut self) -> Result<(), ErrorReply> {
        if self.jobs.len() < MAX_JOBS {
            return Ok(());
        }
        let oldest = self.jobs.values().find(|job| job.end.borrow().is_some());
        match oldest.map(|job| job.number) {
            Some(number) => {
                self.forget(number);
                Ok(())
            }
            None => Err(ErrorReply::new(
                ErrorCode::LimitExceeded,
                format!("{MAX_JOBS} jobs run already; end one first"),
            )),
        }
    }

    fn add(
        &mut self,
        (stdout, stderr): (DiskRing, DiskRing),
        frames: mpsc::Sender<Heard>,
        token: Option<String>,
    ) -> Rc<Job> {
        self.next += 1;
        let job = Rc::new(Job {
            number: self.next,
            pid: Cell::new(0),
            started_at_ms: unix_ms(),
            stdout: RefCell::new(stdout),
            stderr: RefCell::new(stderr),
            end: RefCell::new(None),
            window: Cell::new(STDIN_WINDOW),
            frames: RefCell::new(Some(frames)),
            change: watch::Sender::new(Change::default()),
        });
        self.jobs.insert(self.next, Rc::clone(&job));
        if let Some(token) = token {
            self.tokens.insert(token, self.next);
        }
        job
    }

    fn forget(&mut self, number: u64) {
        self.jobs.remove(&number);
        self.tokens.retain(|_, of| *of != number);
    }
}

impl Job {
    pub(super) fn status(&self) -> JobStatus {
        let end = self.end.borrow().clone();
        JobStatus {
            job_id: format!("job-{}", self.number),
            state: if end.is_some() {
                JobState::Ended
            } else {
                JobState::Running
            },
            pid: self.pid.get(),
            started_at_ms: self.started_at_ms,
            stdout_bytes: self.stdout.borrow().end(),
            stderr_bytes: self.stderr.borrow().end(),
            end,
        }
    }

    pub(super) fn changes(&self) -> watch::Receiver<Change> {
        self.change.subscribe()
    }

    /// The bytes asked for, where they begin, and whether more is there.
    pub(super) fn read(&self, read: &JobRead) -> Result<(u64, Vec<u8>, bool), ErrorReply> {
        let ring = match read.stream {
            JobStream::Stdout => self.stdout.borrow(),
            JobStream::Stderr => self.stderr.borrow(),
        };
        let (cursor, bytes) = ring.read(read.cursor, read.max_bytes).map_err(|error| {
            ErrorReply::new(
                ErrorCode::GuestError,
                format!("reading the job's output: {error}"),
            )
        })?;
        let more = cursor + (bytes.len() as u64) < ring.end();
        Ok((cursor, bytes, more))
    }

    /// Takes `count` bytes of the room for standard input, all or none.
    pub(super) fn take_window(&self, count: usize) -> Result<(), ErrorReply> {
        match self.window.get().checked_sub(count) {
            Some(left) => {
                self.window.set(left);
                Ok(())
            }
            None => Err(ErrorReply::new(
                ErrorCode::LimitExceeded,
                format!(
                    "the command has taken its input only so far that {} bytes fit",
                    self.window.get()
                ),
            )),
        }
    }

    pub(super) fn send(&self, frame: Frame) -> Result<(), ErrorReply> {
        let sent = match &*self.frames.borrow() {
            Some(frames) => frames.try_send(Ok(frame)).is_ok(),
            None => false,
        };
        if sent {
            Ok(())
        } else {
            Err(ErrorReply::new(
                ErrorCode::FailedPrecondition,
                "the job is ending or takes nothing at the moment",
            ))
        }
    }

    fn take(&self, output: Output) {
        match output {
            Output::Started { pid } => {
                self.pid.set(pid);
                self.change.send_modify(|change| change.started = true);
            }
            // A full disk loses output, never the command.
            Output::Stdout(bytes) => {
                let _ = self.stdout.borrow_mut().append(&bytes);
                let end = self.stdout.borrow().end();
                self.change.send_modify(|change| change.stdout = end);
            }
            Output::Stderr(bytes) => {
                let _ = self.stderr.borrow_mut().append(&bytes);
                let end = self.stderr.borrow().end();
                self.change.send_modify(|change| change.stderr = end);
            }
            Output::Window(credit) => {
                let credit = usize::try_from(credit).unwrap_or(usize::MAX);
                self.window
                    .set(self.window.get().saturating_add(credit).min(STDIN_WINDOW));
            }
        }
    }
}

async fn watch_over(
    reaper: &Reaper,
    exec: &Exec,
    frames: mpsc::Receiver<Heard>,
    job: &Job,
    freezer: &Freezer,
) {
    let (sender, mut output) = mpsc::channel(OUTPUT_QUEUE);
    let stdin = exec.stdin();
    let collect = async {
        while let Some(chunk) = output.recv().await {
            // The command waits meanwhile, as whatever writes to a frozen disk does.
            freezer.thawed().await;
            job.take(chunk);
        }
    };
    freezer.thawed().await;
    let (end, ()) = tokio::join!(
        drive(reaper, exec, Some(Input { frames, stdin }), sender),
        collect
    );
    *job.end.borrow_mut() = Some(end);
    job.frames.borrow_mut().take();
    job.change.send_modify(|change| change.ended = true);
}

fn rings(directory: &Path) -> std::io::Result<(DiskRing, DiskRing)> {
    std::fs::create_dir_all(directory)?;
    Ok((
        DiskRing::create(directory, JOB_RING_BYTES)?,
        DiskRing::create(directory, JOB_RING_BYTES)?,
    ))
}

/// The wall clock, milliseconds.
pub(super) fn unix_ms() -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
