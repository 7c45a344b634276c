//! The processes of a session, as the kernel tells them.

use rustix::process::{Pid, Signal, kill_process};

/// The living processes of the session that `leader` began.
///
/// After the leader's end its number may belong to a stranger as soon as the session is
/// empty, so a leader that is alive although it ended (`leader_ended`) means that the session
/// is another one.
pub(crate) fn members(leader: Pid, leader_ended: bool) -> Vec<Pid> {
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let mut members = Vec::new();
    for process in processes.flatten() {
        let Some(pid) = process
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
            .and_then(Pid::from_raw)
        else {
            continue;
        };
        // Gone meanwhile, or no process.
        let Ok(stat) = std::fs::read_to_string(process.path().join("stat")) else {
            continue;
        };
        if session_of(&stat) == Some(leader) {
            if pid == leader && leader_ended {
                return Vec::new();
            }
            members.push(pid);
        }
    }
    members
}

/// Sends `signal` to each of `processes`.
pub(crate) fn signal_all(processes: &[Pid], signal: Signal) {
    for pid in processes {
        // Gone is what we want.
        let _ = kill_process(*pid, signal);
    }
}

/// The session in a line of `/proc/<pid>/stat`, unless the process is dead. The name in it
/// may hold anything, so the fields count from its last parenthesis.
fn session_of(stat: &str) -> Option<Pid> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    // Behind the parent and the process group.
    Pid::from_raw(fields.nth(2)?.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_lie() {
        assert_eq!(session_of("7 (a) Z 1 2 3) S 5 6 42 0"), Pid::from_raw(42));
        assert_eq!(session_of("7 (a) Z 5 6 42 0"), None);
        assert_eq!(session_of("7 (a"), None);
    }
}
