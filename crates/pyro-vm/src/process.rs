//! Processes of machines that an earlier run left over.
//!
//! Owns recognising an engine's process by its arguments and ending exactly that process. Never ends a process by number
//! alone: numbers are given out again.

use crate::spec::MachineId;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::io::{self, Read};
use std::time::Duration;

/// Longest argument list that is read. Ours has a few thousand bytes, and the name stands first.
const MAX_ARGUMENT_BYTES: u64 = 64 * 1024;

/// A killed process is gone within milliseconds unless the kernel holds it in a system call.
const KILL_DEADLINE: Duration = Duration::from_secs(5);

/// A process that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeftoverProcess {
    /// Its number.
    pub pid: u32,
    /// When it started, in the kernel's clock ticks since boot.
    pub start_time: u64,
}

/// What [`kill_verified`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Killed {
    /// The process was there and is gone.
    Now,
    /// There is no such process, or its number belongs to a younger one.
    NotThere,
}

/// All processes that were started for the machine `id`: those whose arguments contain
/// `-name pyro-<id>`, as QEMU's do, or `--id pyro-<id>`, as Firecracker's.
pub fn find_leftover(id: &MachineId) -> io::Result<Vec<LeftoverProcess>> {
    let name = format!("pyro-{id}");
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        // A process that ends meanwhile is none that is left over.
        if is_named(pid, &name).unwrap_or(false)
            && let Ok(start_time) = start_time(pid)
        {
            found.push(LeftoverProcess { pid, start_time });
        }
    }
    Ok(found)
}

/// Kills the process `pid` if it is still the one that started at `start_time`, and waits until it is gone or a zombie that
/// its parent has to reap. Blocks for a few milliseconds, 5 s at the most.
pub fn kill_verified(pid: u32, start_time: u64) -> io::Result<Killed> {
    let Some(number) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return Ok(Killed::NotThere);
    };
    // The descriptor first, then the check: from then on both speak of the same process.
    let process = match pidfd_open(number, PidfdFlags::empty()) {
        Ok(process) => process,
        Err(rustix::io::Errno::SRCH) => return Ok(Killed::NotThere),
        Err(error) => return Err(error.into()),
    };
    match self::start_time(pid) {
        Ok(found) if found == start_time => {}
        Ok(_) => return Ok(Killed::NotThere),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Killed::NotThere),
        Err(error) => return Err(error),
    }
    match pidfd_send_signal(&process, Signal::KILL) {
        Ok(()) => {}
        Err(rustix::io::Errno::SRCH) => return Ok(Killed::NotThere),
        Err(error) => return Err(error.into()),
    }
    let deadline = Timespec::try_from(KILL_DEADLINE).expect("a few seconds fit");
    let ended = poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&deadline))?;
    if ended == 0 {
        Err(io::ErrorKind::TimedOut.into())
    } else {
        Ok(Killed::Now)
    }
}

/// Field 22 of `/proc/<pid>/stat`. The second field is the program's name in parentheses and may contain anything, so the
/// fields are counted from its last parenthesis.
pub(crate) fn start_time(pid: u32) -> io::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let field = stat
        .rsplit_once(')')
        .and_then(|(_, fields)| fields.split_whitespace().nth(19));
    field.and_then(|field| field.parse().ok()).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            "no start time in the process's state",
        )
    })
}

fn is_named(pid: u32, name: &str) -> io::Result<bool> {
    let mut arguments = Vec::new();
    let file = std::fs::File::open(format!("/proc/{pid}/cmdline"))?;
    file.take(MAX_ARGUMENT_BYTES).read_to_end(&mut arguments)?;
    let words: Vec<&[u8]> = arguments.split(|byte| *byte == 0).collect();
    Ok(words
        .windows(2)
        .any(|pair| matches!(pair[0], b"-name" | b"--id") && pair[1] == name.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command, Stdio};

    fn named(option: &str, name: &str) -> Child {
        // The words after the script become its arguments. `read` is the shell's own, so there is no grandchild.
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", "read line", option, name])
            .stdin(Stdio::piped());
        command.spawn().unwrap()
    }

    #[test]
    fn a_leftover_is_found_by_its_name_and_ended_once() {
        let id = MachineId::new("00000badcafe").unwrap();
        for option in ["-name", "--id"] {
            let mut ours = named(option, "pyro-00000badcafe");
            let mut other = named(option, "pyro-00000badcaff");
            // Spawning returns after the exec, so the arguments are there.
            let found = find_leftover(&id).unwrap();
            assert_eq!(found.len(), 1);
            let leftover = found[0];
            assert_eq!(leftover.pid, ours.id());
            assert_eq!(
                kill_verified(leftover.pid, leftover.start_time + 1).unwrap(),
                Killed::NotThere
            );
            assert!(
                ours.try_wait().unwrap().is_none(),
                "another start time is another process"
            );
            assert_eq!(
                kill_verified(leftover.pid, leftover.start_time).unwrap(),
                Killed::Now
            );
            ours.wait().unwrap();
            assert_eq!(
                kill_verified(leftover.pid, leftover.start_time).unwrap(),
                Killed::NotThere
            );
            assert!(find_leftover(&id).unwrap().is_empty());
            other.kill().unwrap();
            other.wait().unwrap();
        }
    }

    #[test]
    fn the_start_time_is_ours() {
        let first = start_time(std::process::id()).unwrap();
        assert_eq!(first, start_time(std::process::id()).unwrap());
        assert!(first > 0);
        assert_eq!(kill_verified(0, 1).unwrap(), Killed::NotThere);
        assert_eq!(kill_verified(u32::MAX, 1).unwrap(), Killed::NotThere);
    }
}
