//! Stopping every process of the machine but this one, by the control groups' freezer.
//!
//! Not by signals: parents and shells hear of those. A frozen group stops its processes where
//! they would go back to their own code, and what they fork is stopped as well.
//!
//! The root group cannot be frozen. The agent stays in it, with the kernel's threads; every
//! group below it is frozen, and whatever else is in the root is moved into one.
//!
//! Names, numbers and counts of groups are the guest's: names are only opened beneath the
//! root, reads and lists are bounded, and what goes beyond is told as not stopped.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pyro_archive::beneath::DIRECTORY;
use pyro_protocol::guest::Processes as Fate;
use rustix::fs::{Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::still::Processes;

/// The group of the commands' groups; see `exec`.
const COMMANDS: &CStr = c"pyro";

/// The group of what was in the root. Beside those of the commands, because a group whose
/// resources are counted has groups or processes in it, never both.
const OTHERS: &CStr = c"others";

/// Most groups directly below the root: a handle each.
const MAX_GROUPS: usize = 128;

/// Most bytes of the root's list of processes that are read: some hundred thousand.
const MAX_LIST: u64 = 1024 * 1024;

/// Most bytes of a short file that are read.
const MAX_SHORT: u64 = 1024;

/// Looks for what came between two looks. Only what is not stopped can make more, so that
/// a second one that finds nothing is the rule.
const MAX_LOOKS: usize = 16;

/// Waits between looks whether processes stand still; each is twice as long as the one before.
const FIRST_NAP: Duration = Duration::from_micros(100);
const LONGEST_NAP: Duration = Duration::from_millis(5);

/// The processes in the groups below a root group.
#[derive(Debug)]
pub(super) struct Cgroups {
    root: Arc<OwnedFd>,
    /// The groups that were frozen here, not by the guest.
    stopped: Vec<OwnedFd>,
    /// Names of groups that need no second look.
    groups: BTreeSet<CString>,
    /// Processes of the root that stay there.
    kernel: BTreeSet<u32>,
    /// Whether all that was found could be stopped.
    all: bool,
}

impl Cgroups {
    /// The processes below `root`, the top of the control groups.
    pub(super) fn below(root: Arc<OwnedFd>) -> Self {
        Self {
            root,
            stopped: Vec::new(),
            groups: BTreeSet::new(),
            kernel: BTreeSet::new(),
            all: true,
        }
    }

    /// Whether everything stands still.
    fn try_stop(&mut self, until: Instant) -> io::Result<bool> {
        for _ in 0..MAX_LOOKS {
            let found = self.stop_groups()? | self.stop_others(until)?;
            if !self.stand_still(until) {
                return Ok(false);
            }
            if !found {
                return Ok(self.all);
            }
        }
        Ok(false)
    }

    /// Stops the groups that were not there before. Whether there were some.
    fn stop_groups(&mut self) -> io::Result<bool> {
        let mut found = false;
        // Anew, because the root may be a handle that only leads there (`O_PATH`).
        let root = rustix::fs::openat(&self.root, c".", DIRECTORY, Mode::empty())?;
        for entry in Dir::new(root)? {
            let entry = entry?;
            let name = entry.file_name();
            if entry.file_type() != FileType::Directory || name.to_bytes().starts_with(b".") {
                continue;
            }
            if self.groups.contains(name) {
                continue;
            }
            if self.groups.len() == MAX_GROUPS {
                self.all = false;
                break;
            }
            found = true;
            self.stop_group(name);
        }
        Ok(found)
    }

    /// Stops a group. One that the guest froze is left as it is, now and later.
    fn stop_group(&mut self, name: &CStr) {
        self.groups.insert(name.to_owned());
        let stop = || -> io::Result<Option<OwnedFd>> {
            let group = rustix::fs::openat(&self.root, name, DIRECTORY, Mode::empty())?;
            match read(&group, c"cgroup.freeze", MAX_SHORT) {
                Ok(state) if state.trim_ascii() == b"1" => return Ok(None),
                // Not gone: before Linux 5.2 there is no such file.
                Err(_) if read(&group, c"cgroup.events", MAX_SHORT).is_ok() => {
                    return Err(io::ErrorKind::Unsupported.into());
                }
                state => drop(state?),
            }
            write(&group, c"cgroup.freeze", b"1")?;
            Ok(Some(group))
        };
        match stop() {
            Ok(group) => self.stopped.extend(group),
            Err(error) if is_gone(&error) => {}
            Err(_) => self.all = false,
        }
    }

    /// Moves what is in the root and is neither this process nor the kernel's to where it is
    /// stopped. Whether there was some.
    fn stop_others(&mut self, until: Instant) -> io::Result<bool> {
        let own = std::process::id();
        let in_root = pids(&read(&self.root, c"cgroup.procs", MAX_LIST)?);
        if !in_root.contains(&own) {
            // The guest moved it, and would have it stopped with the rest. From where it is it
            // could not be seen that the others are.
            return Err(io::Error::other("the agent is not in the root group"));
        }
        let others: Vec<u32> = in_root
            .difference(&self.kernel)
            .copied()
            .filter(|pid| *pid != own)
            .collect();
        let mut found = false;
        for pid in others {
            if Instant::now() >= until {
                self.all = false;
                break;
            }
            if !runs_a_program(pid) {
                self.kernel.insert(pid);
                continue;
            }
            found = true;
            if self.move_away(pid).is_err() {
                self.all = false;
            }
        }
        Ok(found)
    }

    fn move_away(&mut self, pid: u32) -> io::Result<()> {
        make(&self.root, COMMANDS)?;
        if !self.groups.contains(COMMANDS) {
            self.stop_group(COMMANDS);
        }
        let commands = rustix::fs::openat(&self.root, COMMANDS, DIRECTORY, Mode::empty())?;
        make(&commands, OTHERS)?;
        let others = rustix::fs::openat(&commands, OTHERS, DIRECTORY, Mode::empty())?;
        match write(&others, c"cgroup.procs", pid.to_string().as_bytes()) {
            Err(error) if is_gone(&error) => Ok(()),
            outcome => outcome,
        }
    }

    /// Waits for the stopped groups to stand still. Whether they do.
    fn stand_still(&self, until: Instant) -> bool {
        let mut nap = FIRST_NAP;
        for group in &self.stopped {
            loop {
                match read(group, c"cgroup.events", MAX_SHORT) {
                    Ok(events) if is_frozen(&events) => break,
                    Err(error) if is_gone(&error) => break,
                    Ok(_) | Err(_) if Instant::now() >= until => return false,
                    Ok(_) | Err(_) => {}
                }
                std::thread::sleep(nap);
                nap = (nap * 2).min(LONGEST_NAP);
            }
        }
        true
    }

    /// Puts this process into the root, if the guest moved it away: else it would stop itself.
    fn come_home(&self) -> io::Result<()> {
        let in_root = pids(&read(&self.root, c"cgroup.procs", MAX_LIST)?);
        let own = std::process::id();
        if in_root.contains(&own) {
            return Ok(());
        }
        write(&self.root, c"cgroup.procs", own.to_string().as_bytes())
    }
}

impl Processes for Cgroups {
    fn stop(&mut self, within: Duration) -> Fate {
        self.go_on();
        let until = Instant::now() + within;
        if self.come_home().is_err() {
            return Fate::Running;
        }
        match self.try_stop(until) {
            Ok(true) => Fate::Stopped,
            Ok(false) | Err(_) if self.stopped.is_empty() => Fate::Running,
            Ok(false) | Err(_) => Fate::Partly,
        }
    }

    fn go_on(&mut self) {
        for group in self.stopped.drain(..) {
            // Only of a group that is gone it fails.
            let _ = write(&group, c"cgroup.freeze", b"0");
        }
        self.groups.clear();
        self.kernel.clear();
        self.all = true;
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        self.go_on();
    }
}

/// Makes a group, unless it is there.
fn make(parent: &OwnedFd, name: &CStr) -> io::Result<()> {
    match rustix::fs::mkdirat(parent, name, Mode::from(0o755)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn read(group: impl AsFd, name: &CStr, most: u64) -> io::Result<Vec<u8>> {
    let file = rustix::fs::openat(group, name, FILE | OFlags::RDONLY, Mode::empty())?;
    let mut bytes = Vec::new();
    File::from(file).take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn write(group: impl AsFd, name: &CStr, bytes: &[u8]) -> io::Result<()> {
    let file = rustix::fs::openat(group, name, FILE | OFlags::WRONLY, Mode::empty())?;
    // In one piece, or the kernel takes each for an order.
    File::from(file).write_all(bytes)
}

const FILE: OFlags = OFlags::CLOEXEC.union(OFlags::NOFOLLOW);

/// A group or a process that ended meanwhile.
fn is_gone(error: &io::Error) -> bool {
    let gone = [Errno::NOENT, Errno::NODEV, Errno::SRCH];
    gone.iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

fn is_frozen(events: &[u8]) -> bool {
    events
        .split(|byte| *byte == b'\n')
        .any(|line| line == b"frozen 1")
}

fn pids(list: &[u8]) -> BTreeSet<u32> {
    list.split(|byte| *byte == b'\n')
        .filter_map(|line| std::str::from_utf8(line).ok()?.parse().ok())
        .collect()
}

/// Whether a process runs a program. The kernel's threads, which cannot be stopped, do not, and
/// what has ended does not either. Not from its `stat`: reading fifty of those takes an
/// emulated machine 15 ms, and fifty of these links less than one.
fn runs_a_program(pid: u32) -> bool {
    std::fs::read_link(format!("/proc/{pid}/exe")).is_ok()
}

#[cfg(test)]
mod tests;
