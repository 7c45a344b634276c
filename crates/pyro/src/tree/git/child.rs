//! A running Git: its pipes, its deadline and its end.
//!
//! One thread serves all three pipes, so that none can fill up while another is waited for; what must come to its end though we are
//! killed has files in their place. Git
//! and what it starts are a process group, which ends as a whole.

use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};

use super::Call;
use crate::tree::TreeError;

/// Lines of Git's talk that are kept for an error.
const TAIL_LINES: usize = 12;

/// Bytes of a line that are kept.
const LINE_BYTES: usize = 500;

/// Lines of Git's talk that are kept at all: `git apply` says one for each file.
const MAX_LINES: usize = 20_000;

/// Time between two tellings of progress, which Git writes a hundred times for each of its steps.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// Bytes read at a time.
const CHUNK: usize = 64 * 1024;

/// How Git ended.
#[derive(Debug)]
pub(in crate::tree) struct Ended {
    status: ExitStatus,
    doing: &'static str,
    /// What it said, cut to bounds.
    pub(in crate::tree) lines: VecDeque<String>,
}

impl Ended {
    pub(in crate::tree) fn is_success(&self) -> bool {
        self.status.success()
    }

    /// The end of what it said.
    pub(in crate::tree) fn last_lines(&self) -> Vec<String> {
        let skipped = self.lines.len().saturating_sub(TAIL_LINES);
        self.lines.iter().skip(skipped).cloned().collect()
    }

    /// An error unless it succeeded.
    pub(in crate::tree) fn success(self) -> Result<Self, TreeError> {
        if self.is_success() {
            return Ok(self);
        }
        Err(self.failure())
    }

    /// The error of one that failed.
    pub(in crate::tree) fn failure(&self) -> TreeError {
        TreeError::Git {
            doing: self.doing,
            last_lines: self.last_lines(),
        }
    }
}

/// A child that is killed with its group and reaped when it is dropped.
struct Group {
    child: Child,
    pid: Pid,
    reaped: bool,
}

impl Group {
    fn wait(&mut self) -> std::io::Result<ExitStatus> {
        let status = self.child.wait()?;
        self.reaped = true;
        Ok(status)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.reaped {
            // Not reaped, so the number is still theirs.
            let _ = rustix::process::kill_process_group(self.pid, Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

pub(super) fn run(
    call: &Call<'_>,
    mut take: impl FnMut(&[u8]) -> Result<(), TreeError>,
    mut say: impl FnMut(&str),
) -> Result<Ended, TreeError> {
    let program = call.git.program.clone();
    let failed = |source: std::io::Error| TreeError::Io {
        action: "run",
        path: program.clone(),
        source,
    };
    let mut command = Command::new(&call.git.program);
    command
        .args(&call.arguments)
        .env_clear()
        .envs(call.environment())
        .current_dir(&call.directory)
        .process_group(0);
    let files = if call.outlives {
        Some(Files::of(call.input).map_err(failed)?)
    } else {
        None
    };
    if let Some(files) = &files {
        files.give_to(&mut command).map_err(failed)?;
    } else {
        let stdin = if call.input.is_empty() {
            Stdio::null()
        } else {
            Stdio::piped()
        };
        command
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
    }
    let child = command.spawn().map_err(failed)?;
    let pid = Pid::from_child(&child);
    let mut group = Group {
        child,
        pid,
        reaped: false,
    };
    let mut stdin = group.child.stdin.take().map(OwnedFd::from);
    let mut stdout = group.child.stdout.take().map(OwnedFd::from);
    let mut stderr = group.child.stderr.take().map(OwnedFd::from);
    for pipe in [&stdin, &stdout, &stderr].into_iter().flatten() {
        let flags = rustix::fs::fcntl_getfl(pipe).map_err(|errno| failed(errno.into()))?;
        rustix::fs::fcntl_setfl(pipe, flags | OFlags::NONBLOCK)
            .map_err(|errno| failed(errno.into()))?;
    }
    let end = rustix::process::pidfd_open(pid, PidfdFlags::empty())
        .map_err(|errno| failed(errno.into()))?;
    let mut input = call.input;
    let mut talk = Talk::default();
    let mut buffer = vec![0; CHUNK];
    let mut ended = false;
    while !ended {
        let left = call.deadline.at.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(TreeError::GitTimeout {
                doing: call.doing,
                seconds: call.deadline.limit.as_secs(),
                last_lines: talk.last_lines(),
            });
        }
        let mut waited = vec![PollFd::new(&end, PollFlags::IN)];
        for pipe in [&stdout, &stderr].into_iter().flatten() {
            waited.push(PollFd::new(pipe, PollFlags::IN));
        }
        if let Some(pipe) = &stdin {
            waited.push(PollFd::new(pipe, PollFlags::OUT));
        }
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        match poll(&mut waited, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(failed(errno.into())),
        }
        // Looked at before the pipes: what it wrote before its end is there then.
        ended = !waited[0].revents().is_empty();
        drop(waited);
        drain(&mut stdout, &mut buffer, &mut take, failed, ended)?;
        let mut hear = |bytes: &[u8]| {
            talk.add(bytes, &mut say);
            Ok(())
        };
        drain(&mut stderr, &mut buffer, &mut hear, failed, ended)?;
        feed(&mut stdin, &mut input);
    }
    if let Some(files) = files {
        files.read(
            &mut buffer,
            &mut take,
            &mut |bytes| talk.add(bytes, &mut say),
            failed,
        )?;
    }
    talk.end_line(&mut say);
    let status = group.wait().map_err(failed)?;
    Ok(Ended {
        status,
        doing: call.doing,
        lines: talk.lines,
    })
}

/// What a program reads and writes where nobody need be there for it: files without a name.
struct Files {
    input: File,
    output: File,
    talk: File,
}

impl Files {
    fn of(input: &[u8]) -> std::io::Result<Self> {
        let new = || -> std::io::Result<File> {
            let file = rustix::fs::memfd_create("git", MemfdFlags::CLOEXEC)?;
            Ok(File::from(file))
        };
        let files = Self {
            input: new()?,
            output: new()?,
            talk: new()?,
        };
        files.input.write_all_at(input, 0)?;
        Ok(files)
    }

    fn give_to(&self, command: &mut Command) -> std::io::Result<()> {
        command
            .stdin(self.input.try_clone()?)
            .stdout(self.output.try_clone()?)
            .stderr(self.talk.try_clone()?);
        Ok(())
    }

    /// Hands out what was written. The program has ended, or what it left behind must not be waited for.
    fn read(
        &self,
        buffer: &mut [u8],
        take: &mut impl FnMut(&[u8]) -> Result<(), TreeError>,
        hear: &mut impl FnMut(&[u8]),
        failed: impl Fn(std::io::Error) -> TreeError,
    ) -> Result<(), TreeError> {
        let mut each = |file: &File, take: &mut dyn FnMut(&[u8]) -> Result<(), TreeError>| {
            let mut at = 0;
            loop {
                match file.read_at(buffer, at).map_err(&failed)? {
                    0 => return Ok(()),
                    count => {
                        take(&buffer[..count])?;
                        at += count as u64;
                    }
                }
            }
        };
        each(&self.output, take)?;
        each(&self.talk, &mut |bytes| {
            hear(bytes);
            Ok(())
        })
    }
}

/// Reads what there is: once, or to its end if nothing more will come.
fn drain(
    pipe: &mut Option<OwnedFd>,
    buffer: &mut [u8],
    take: &mut impl FnMut(&[u8]) -> Result<(), TreeError>,
    failed: impl Fn(std::io::Error) -> TreeError,
    to_the_end: bool,
) -> Result<(), TreeError> {
    while let Some(open) = pipe {
        match rustix::io::read(open.as_fd(), &mut *buffer) {
            Ok(0) => *pipe = None,
            Ok(count) => take(&buffer[..count])?,
            Err(Errno::AGAIN) => return Ok(()),
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(failed(errno.into())),
        }
        if !to_the_end {
            return Ok(());
        }
    }
    Ok(())
}

/// Writes as much of the input as the pipe takes, and closes it behind the last.
fn feed(pipe: &mut Option<OwnedFd>, input: &mut &[u8]) {
    while let Some(open) = pipe {
        match rustix::io::write(open.as_fd(), input) {
            Ok(count) => *input = &input[count..],
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN) => return,
            // It takes no more; why, it says itself.
            Err(_) => *input = &[],
        }
        if input.is_empty() {
            *pipe = None;
        }
    }
}

/// What a program says, by lines; progress that it writes over itself is a line now and then.
#[derive(Debug, Default)]
struct Talk {
    lines: VecDeque<String>,
    line: Vec<u8>,
    /// When progress was last told.
    told: Option<Instant>,
}

impl Talk {
    fn add(&mut self, bytes: &[u8], say: &mut impl FnMut(&str)) {
        for byte in bytes {
            match byte {
                b'\n' => self.end_line(say),
                b'\r' => {
                    if self
                        .told
                        .is_none_or(|told| told.elapsed() >= PROGRESS_EVERY)
                    {
                        self.told = Some(Instant::now());
                        say(&text(&self.line));
                    }
                    self.line.clear();
                }
                _ if self.line.len() < LINE_BYTES => self.line.push(*byte),
                _ => {}
            }
        }
    }

    fn end_line(&mut self, say: &mut impl FnMut(&str)) {
        let line = text(&self.line);
        self.line.clear();
        if line.is_empty() {
            return;
        }
        say(&line);
        if self.lines.len() == MAX_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    fn last_lines(&self) -> Vec<String> {
        let skipped = self.lines.len().saturating_sub(TAIL_LINES);
        self.lines.iter().skip(skipped).cloned().collect()
    }
}

/// A line as it may be shown: it may come from a server.
fn text(line: &[u8]) -> String {
    let line = String::from_utf8_lossy(line);
    let clean = line.chars().filter(|letter| !letter.is_control());
    without_credentials(clean.collect::<String>().trim())
}

/// A line without the users and passwords of its addresses.
fn without_credentials(line: &str) -> String {
    let mut parts = line.split("://");
    let mut clean = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let ends = |letter: char| matches!(letter, '/' | '\'' | '"' | '`' | ' ');
        let (authority, rest) = part.split_at(part.find(ends).unwrap_or(part.len()));
        let host = authority
            .rsplit_once('@')
            .map_or(authority, |(_, host)| host);
        clean.extend(["://", host, rest]);
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_told_now_and_then_and_whole_lines_always() {
        let mut talk = Talk::default();
        let mut said = Vec::new();
        let mut say = |line: &str| said.push(line.to_owned());
        talk.add(b"1%\r2%\r3%\rdone\nnext 1%\rlast\n", &mut say);
        assert_eq!(said, ["1%", "done", "last"]);
        assert_eq!(talk.lines, ["done", "last"]);
    }

    #[test]
    fn lines_tell_no_credentials() {
        for (line, clean) in [
            (
                "fatal: 'https://me:pass@host/a@b' and ssh://t@h",
                "fatal: 'https://host/a@b' and ssh://h",
            ),
            ("https://token@host: gone", "https://host: gone"),
            ("me@host:a and no address", "me@host:a and no address"),
        ] {
            assert_eq!(without_credentials(line), clean);
        }
        let mut talk = Talk::default();
        let mut said = Vec::new();
        talk.add(b"10%\rdone\n\x1b[31mred\n", &mut |line| {
            said.push(line.to_owned());
        });
        assert_eq!(said, ["10%", "done", "[31mred"]);
        assert_eq!(talk.last_lines(), ["done", "[31mred"]);
    }
}
