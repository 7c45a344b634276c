//! What a machine may have left behind: processes, directories, sockets, disks.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::World;

/// How long something may take to be gone after its owner was killed.
const GONE_WITHIN: Duration = Duration::from_secs(10);

/// Time between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Everything of the machines of `world` that is there now.
pub fn of(world: &World) -> Vec<String> {
    let mut found = Vec::new();
    for directory in [world.state().join("machines"), world.runtime()] {
        found.extend(
            entries(&directory)
                .iter()
                .map(|path| format!("path {}", path.display())),
        );
    }
    for process in processes()
        .iter()
        .filter(|process| process.belongs_to(world.home()))
    {
        found.push(format!(
            "process {} {}",
            process.pid,
            process.arguments.replace('\0', " ")
        ));
    }
    found
}

/// Process ids of the VMM of the machine `id`.
pub fn vmm(id: &str) -> Vec<u32> {
    let name = format!("pyro-{id}");
    pids(|process| {
        process
            .arguments
            .split('\0')
            .any(|argument| argument == name)
    })
}

/// Process ids of the VMMs of `world`.
pub fn vmms(world: &World) -> Vec<u32> {
    let machines = entries(&world.state().join("machines"));
    let ids = machines
        .iter()
        .filter_map(|path| path.file_name()?.to_str());
    ids.flat_map(vmm).collect()
}

/// The cgroups of the machines `ids`.
pub fn cgroups(ids: &BTreeSet<String>) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut groups = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(group) = groups.pop() {
        for path in entries(&group) {
            if !path.is_dir() {
                continue;
            }
            let name = path.file_name().and_then(|name| name.to_str());
            let id = name.and_then(|name| name.strip_prefix("pyro-"));
            if id.is_some_and(|id| ids.contains(id)) {
                found.push(path.clone());
            }
            groups.push(path);
        }
    }
    found
}

/// Where something is mounted below `home`.
pub fn mounts(home: &Path) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    points
        .map(PathBuf::from)
        .filter(|point| point.starts_with(home))
        .collect()
}

/// Process ids of the supervisors of `world`. A VMM bears its supervisor's name until it is executed, and is none.
pub fn supervisors(world: &World) -> Vec<u32> {
    let named = pids(|process| {
        process.arguments.contains("\0supervise\0machine") && process.belongs_to(world.home())
    });
    let is_child = |pid: &u32| parent(*pid).is_some_and(|parent| named.contains(&parent));
    named.iter().filter(|pid| !is_child(pid)).copied().collect()
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before may hold spaces and parentheses.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

/// Fails unless nothing of the machines of `world` is left within the deadline.
pub fn assert_none(world: &World) {
    wait_until(
        || of(world).is_empty(),
        || format!("left behind: {:#?}", of(world)),
    );
}

/// Waits until `done`; fails with `story` after the deadline.
pub fn wait_until(done: impl Fn() -> bool, story: impl Fn() -> String) {
    let give_up = Instant::now() + GONE_WITHIN;
    while !done() {
        assert!(Instant::now() < give_up, "{}", story());
        std::thread::sleep(PAUSE);
    }
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect()
}

struct Process {
    pid: u32,
    path: PathBuf,
    /// NUL-separated.
    arguments: String,
}

impl Process {
    /// Whether it has a file below `home` open: a supervisor its lock, a VMM its disk.
    fn belongs_to(&self, home: &Path) -> bool {
        entries(&self.path.join("fd"))
            .iter()
            .filter_map(|link| fs::read_link(link).ok())
            .any(|target| target.starts_with(home))
    }
}

fn pids(wanted: impl Fn(&Process) -> bool) -> Vec<u32> {
    processes()
        .iter()
        .filter(|process| wanted(process))
        .map(|process| process.pid)
        .collect()
}

/// Every process but this one. Zombies have no arguments and are left out.
fn processes() -> Vec<Process> {
    entries(Path::new("/proc"))
        .into_iter()
        .filter_map(|path| {
            let pid = path.file_name()?.to_str()?.parse().ok()?;
            let arguments = fs::read(path.join("cmdline")).ok()?;
            let arguments = String::from_utf8_lossy(&arguments).into_owned();
            Some(Process {
                pid,
                path,
                arguments,
            })
        })
        .filter(|process| process.pid != std::process::id() && !process.arguments.is_empty())
        .collect()
}
