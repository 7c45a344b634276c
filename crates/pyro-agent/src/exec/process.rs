//! A process that lives on its own, without a peer: started, listened to, ended as a whole.
//!
//! Dropping it kills it with everything it started, so that nobody who forgets one leaves
//! something behind.

use pyro_protocol::code::ErrorReply;
use pyro_protocol::exec::Exec;
use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, getpgid, kill_process_group, test_kill_process, test_kill_process_group,
};
use tokio::net::unix::pipe;
use tokio::sync::oneshot;

use super::cgroup::Cgroup;
use super::drive::wait_exit;
use super::pipes::{read_chunk, read_rest, take_chunk};
use super::reaper::{Exit, Reaper};
use super::session::{members, signal_all};
use super::spawn;

/// A process and everything it started.
#[derive(Debug)]
pub(crate) struct Process {
    pid: Pid,
    cgroup: Option<Cgroup>,
    exit: Option<oneshot::Receiver<Exit>>,
    stdout: Option<pipe::Receiver>,
    stderr: Option<pipe::Receiver>,
}

/// What a process does.
#[derive(Debug)]
pub(crate) enum Happened {
    /// Bytes on standard output.
    Stdout(Vec<u8>),
    /// Bytes on standard error.
    Stderr(Vec<u8>),
    /// It ended. What it started may live on, and its outputs may hold more.
    Exited(Exit),
}

impl Process {
    /// Starts `exec`, without standard input.
    pub(crate) fn start(reaper: &Reaper, exec: &Exec) -> Result<Self, ErrorReply> {
        let cgroup = Cgroup::create();
        let spawned = spawn::spawn(exec, false, cgroup.as_ref()).map_err(|failed| failed.error)?;
        // No await since the spawn: the reaper has not run.
        let exit = reaper.watch(spawned.pid);
        Ok(Self {
            pid: spawned.pid,
            cgroup,
            exit: Some(exit),
            stdout: pipe::Receiver::from_owned_fd(spawned.stdout).ok(),
            stderr: pipe::Receiver::from_owned_fd(spawned.stderr).ok(),
        })
    }

    /// Its number.
    pub(crate) fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Waits for the next thing to happen; for ever once nothing can. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Happened {
        loop {
            tokio::select! {
                chunk = read_chunk(&mut self.stdout), if self.stdout.is_some() => {
                    if let Some(bytes) = take_chunk(chunk, &mut self.stdout) {
                        return Happened::Stdout(bytes);
                    }
                }
                chunk = read_chunk(&mut self.stderr), if self.stderr.is_some() => {
                    if let Some(bytes) = take_chunk(chunk, &mut self.stderr) {
                        return Happened::Stderr(bytes);
                    }
                }
                exit = wait_exit(&mut self.exit), if self.exit.is_some() => {
                    self.exit = None;
                    return Happened::Exited(exit);
                }
                else => return std::future::pending().await,
            }
        }
    }

    /// What its outputs hold now, without waiting.
    pub(crate) fn take_rest(&mut self) -> (Vec<u8>, Vec<u8>) {
        (
            read_rest(&mut self.stdout).concat(),
            read_rest(&mut self.stderr).concat(),
        )
    }

    /// Sends `signal` to it and to everything it started.
    pub(crate) fn signal_all(&self, signal: Signal) {
        if !self.number_is_a_strangers() {
            // An empty group is what we want.
            let _ = kill_process_group(self.pid, signal);
        }
        // What left the group, as far as it can be found.
        let all = match &self.cgroup {
            Some(cgroup) => cgroup.members(),
            None => members(self.pid, self.exit.is_none()),
        };
        let left = |pid: &Pid| getpgid(Some(*pid)).is_ok_and(|group| group != self.pid);
        signal_all(&all.into_iter().filter(left).collect::<Vec<_>>(), signal);
    }

    /// Kills it and everything it started.
    pub(crate) fn kill(&self) {
        self.signal_all(Signal::KILL);
        if let Some(cgroup) = &self.cgroup {
            cgroup.kill();
        }
    }

    /// Whether it and everything it started have ended.
    pub(crate) fn is_gone(&self) -> bool {
        self.exit.is_none()
            && self.cgroup.as_ref().is_none_or(|cgroup| cgroup.members().is_empty())
            // The quick question first; it takes the dead for living until they are reaped.
            && (test_kill_process_group(self.pid) == Err(Errno::SRCH)
                || members(self.pid, true).is_empty())
    }

    /// Whether the number names somebody else by now: the process itself was reaped, and a
    /// number that lives is nobody's group of ours.
    fn number_is_a_strangers(&self) -> bool {
        self.exit.is_none() && test_kill_process(self.pid).is_ok()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.is_gone() {
            self.kill();
        }
    }
}
