//! Clearing away machines whose supervisor died.
//!
//! A machine is dead when its lock is free. Its VMM died with its supervisor by the kernel's
//! hand; one that is found alive all the same is killed, by identity and never by number
//! alone.

use std::fs;
use std::path::Path;

use pyro_protocol::supervise::{SweepOrder, SweepReport, SweptMachine};
use pyro_vm::process::{find_leftover, kill_verified};
use pyro_vm::{CgroupPath, MachineId};

use crate::journal::{self, MachineDir, REMOVED};
use crate::templates::Templates;

/// Clears away every dead machine, or tells which it would.
pub fn run(order: &SweepOrder) -> SweepReport {
    let report = sweep_machines(order);
    if !order.dry_run {
        remove_halves(&order.machines_dir);
        // After the machines, whose locks they are.
        Templates::new(order.templates_dir.clone(), u64::MAX).remove_remains();
    }
    report
}

fn sweep_machines(order: &SweepOrder) -> SweepReport {
    let Ok(entries) = fs::read_dir(&order.machines_dir) else {
        return SweepReport::default();
    };
    let mut machines: Vec<SweptMachine> = entries
        .flatten()
        .filter_map(|entry| sweep_one(&entry.path(), order.dry_run))
        .collect();
    machines.sort_by(|a, b| a.id.cmp(&b.id));
    SweepReport { machines }
}

/// Removes what killed processes were about to remove.
fn remove_halves(machines: &Path) {
    for entry in fs::read_dir(machines).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(REMOVED) {
            // What cannot be removed now is tried again the next time.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn sweep_one(path: &Path, dry_run: bool) -> Option<SweptMachine> {
    let id = path.file_name()?.to_str()?.to_owned();
    let machine = MachineId::new(id.as_str()).ok()?;
    let mut swept = SweptMachine {
        id,
        processes: Vec::new(),
        directories: Vec::new(),
        error: None,
    };
    let directory = match MachineDir::adopt(path) {
        Ok(Some(directory)) => directory,
        Ok(None) => return None,
        Err(error) => {
            swept.error = Some(format!("taking over `{}`: {error}", path.display()));
            return Some(swept);
        }
    };
    let leftover = find_leftover(&machine).unwrap_or_default();
    swept.processes = leftover.iter().map(|process| process.pid).collect();
    swept.directories.push(path.to_owned());
    // Built by our own supervisor, but read from a file: only a directory of this machine's
    // name is ever removed.
    let (runtime_dir, unfinished, cgroup) = directory
        .read()
        .map(|journal| {
            (
                Some(journal.runtime_dir),
                journal.unfinished,
                journal.cgroup,
            )
        })
        .unwrap_or_default();
    let cgroup = cgroup.and_then(|path| CgroupPath::of(&machine, path));
    let runtime_dir =
        runtime_dir.filter(|runtime| runtime.is_absolute() && runtime.ends_with(machine.as_str()));
    let partial = format!(".partial-{machine}");
    let unfinished = unfinished.into_iter().filter(|path| {
        let name = path.file_name().and_then(|name| name.to_str());
        path.is_absolute() && name.is_some_and(|name| name.starts_with(&partial))
    });
    let elsewhere: Vec<_> = runtime_dir
        .into_iter()
        .chain(unfinished)
        .filter(|path| path.exists())
        .collect();
    swept.directories.extend(elsewhere.iter().cloned());
    swept.directories.extend(
        cgroup
            .as_ref()
            .map(|group| group.as_path().to_owned())
            .filter(|group| group.exists()),
    );
    if dry_run {
        return Some(swept);
    }
    let mut failed = None;
    for process in leftover {
        failed = kill_verified(process.pid, process.start_time)
            .err()
            .or(failed);
    }
    if let Some(cgroup) = cgroup {
        failed = cgroup.remove().err().or(failed);
    }
    for path in elsewhere {
        failed = journal::remove(&path).err().or(failed);
    }
    if failed.is_none() {
        failed = directory.remove().err();
    }
    swept.error = failed.map(|error| error.to_string());
    Some(swept)
}
