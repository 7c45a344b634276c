//! Metrics out of `/proc` and `statvfs`. A file that is missing or says something unexpected
//! costs its own numbers only; everything read is bounded.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use pyro_protocol::guest::{
    AgentMetrics, CpuMetrics, DiskMetrics, InterfaceMetrics, MemoryMetrics, Metrics, ProcessMetrics,
};
use rustix::time::{ClockId, clock_gettime};

/// The file systems that are told about, where they exist.
const DISKS: [&str; 2] = ["/", "/workspace"];

/// Most bytes read of one file in `/proc`. What is wanted stands at its beginning.
const MAX_FILE: u64 = 64 * 1024;

/// Most processes looked at, zombies included: far above what a machine's memory holds.
const MAX_PROCESSES: usize = 64 * 1024;

/// Most network interfaces told about.
const MAX_INTERFACES: usize = 64;

/// Most descriptors counted.
const MAX_DESCRIPTORS: usize = 1024 * 1024;

/// Milliseconds of one tick in `/proc/stat`: `USER_HZ` is 100 on every architecture of ours.
const TICK_MS: u64 = 10;

/// Flag of a thread of the kernel in `/proc/<pid>/stat`, `PF_KTHREAD`.
const KERNEL_THREAD: u64 = 0x0020_0000;

/// How the machine is doing, by the `/proc` at `proc`. May block.
pub(super) fn read(proc: &Path, open_streams: usize) -> Metrics {
    Metrics {
        uptime_ms: uptime_ms(),
        cpu: cpu(proc),
        memory: memory(proc),
        disk: DISKS.iter().filter_map(|mount| disk(mount)).collect(),
        processes: processes(proc),
        network: network(proc),
        agent: AgentMetrics {
            rss_bytes: keyed(&proc.join("self/status")).get("VmRSS").copied(),
            open_streams,
            open_descriptors: std::fs::read_dir(proc.join("self/fd"))
                .ok()
                // The listing itself holds one.
                .map(|entries| entries.take(MAX_DESCRIPTORS).count().saturating_sub(1)),
        },
    }
}

fn uptime_ms() -> u64 {
    let up = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(up.tv_sec).unwrap_or(0);
    seconds * 1000 + u64::try_from(up.tv_nsec).unwrap_or(0) / 1_000_000
}

fn cpu(proc: &Path) -> CpuMetrics {
    let stat = text(&proc.join("stat")).unwrap_or_default();
    let ticks: Vec<u64> = stat
        .lines()
        .next()
        .and_then(|line| line.strip_prefix("cpu "))
        .map(|line| numbers(line).collect())
        .unwrap_or_default();
    // proc(5): user nice system idle iowait irq softirq steal …
    let sum = |fields: &[usize]| {
        let parts: Option<Vec<u64>> = fields.iter().map(|at| ticks.get(*at).copied()).collect();
        parts.map(|parts| parts.iter().sum::<u64>() * TICK_MS)
    };
    let online = stat
        .lines()
        .skip(1)
        .take_while(|line| line.starts_with("cpu"))
        .count();
    let load = text(&proc.join("loadavg")).unwrap_or_default();
    let mut load = load.split(' ').map(|word| word.parse().ok());
    CpuMetrics {
        count: Some(online).filter(|count| *count > 0),
        user_ms: sum(&[0, 1]),
        system_ms: sum(&[2, 5, 6]),
        idle_ms: sum(&[3]),
        iowait_ms: sum(&[4]),
        steal_ms: sum(&[7]),
        load1: load.next().flatten(),
        load5: load.next().flatten(),
        load15: load.next().flatten(),
    }
}

fn memory(proc: &Path) -> MemoryMetrics {
    let found = keyed(&proc.join("meminfo"));
    let bytes = |name: &str| found.get(name).copied();
    MemoryMetrics {
        total: bytes("MemTotal"),
        available: bytes("MemAvailable"),
        free: bytes("MemFree"),
        cached: bytes("Cached"),
        buffers: bytes("Buffers"),
        dirty: bytes("Dirty"),
        swap_total: bytes("SwapTotal"),
        swap_free: bytes("SwapFree"),
    }
}

fn disk(mount: &str) -> Option<DiskMetrics> {
    let stat = rustix::fs::statvfs(mount).ok()?;
    let block = stat.f_frsize;
    Some(DiskMetrics {
        mount: mount.to_owned(),
        total: stat.f_blocks.saturating_mul(block),
        available: stat.f_bavail.saturating_mul(block),
        used: stat
            .f_blocks
            .saturating_sub(stat.f_bfree)
            .saturating_mul(block),
        inodes_total: stat.f_files,
        inodes_free: stat.f_ffree,
    })
}

fn processes(proc: &Path) -> ProcessMetrics {
    let Ok(entries) = std::fs::read_dir(proc) else {
        return ProcessMetrics::default();
    };
    let states = entries
        .flatten()
        .filter(|entry| {
            let name = entry.file_name();
            name.as_encoded_bytes().iter().all(u8::is_ascii_digit)
        })
        .take(MAX_PROCESSES)
        .filter_map(|entry| program_state(&bytes(&entry.path().join("stat"))?));
    let (mut total, mut running, mut zombies) = (0, 0, 0);
    for state in states {
        total += 1;
        match state {
            b'R' => running += 1,
            b'Z' => zombies += 1,
            // Asleep in one way or another.
            _ => {}
        }
    }
    if total == 0 {
        // Not even the agent: there is no `/proc` here.
        return ProcessMetrics::default();
    }
    ProcessMetrics {
        total: Some(total),
        running: Some(running),
        zombies: Some(zombies),
    }
}

/// State letter of a process that is no thread of the kernel, out of its `stat`.
fn program_state(stat: &[u8]) -> Option<u8> {
    // The name in parentheses is the program's own choice and may hold anything.
    let name_end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(stat.get(name_end + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    // After the state: ppid pgrp session tty_nr tpgid flags.
    let flags: u64 = fields.nth(5)?.parse().ok()?;
    (flags & KERNEL_THREAD == 0).then_some(state)
}

fn network(proc: &Path) -> Vec<InterfaceMetrics> {
    let table = text(&proc.join("net/dev")).unwrap_or_default();
    table
        .lines()
        .filter_map(interface)
        .take(MAX_INTERFACES)
        .collect()
}

/// One line of `/proc/net/dev`: eight numbers received, then eight sent. The two head lines
/// hold none.
fn interface(line: &str) -> Option<InterfaceMetrics> {
    let (name, rest) = line.rsplit_once(':')?;
    let found: Vec<u64> = numbers(rest).collect();
    Some(InterfaceMetrics {
        name: name.trim().to_owned(),
        rx_bytes: *found.first()?,
        rx_packets: *found.get(1)?,
        tx_bytes: *found.get(8)?,
        tx_packets: *found.get(9)?,
    })
}

/// A file of lines `Name:  123 kB`, in bytes.
fn keyed(path: &Path) -> HashMap<String, u64> {
    let lines = text(path).unwrap_or_default();
    lines
        .lines()
        .filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            let kib: u64 = value.trim().strip_suffix(" kB")?.parse().ok()?;
            Some((name.to_owned(), kib.saturating_mul(1024)))
        })
        .collect()
}

fn numbers(text: &str) -> impl Iterator<Item = u64> {
    text.split_ascii_whitespace()
        .map_while(|word| word.parse().ok())
}

fn text(path: &Path) -> Option<String> {
    Some(String::from_utf8_lossy(&bytes(path)?).into_owned())
}

fn bytes(path: &Path) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)
        .ok()?
        .take(MAX_FILE)
        .read_to_end(&mut content)
        .ok()?;
    Some(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_proc_gives_nulls() {
        let proc = tempfile::tempdir().unwrap();
        let metrics = read(proc.path(), 3);
        assert_eq!(metrics.cpu, CpuMetrics::default());
        assert_eq!(metrics.memory, MemoryMetrics::default());
        assert_eq!(metrics.processes, ProcessMetrics::default());
        assert_eq!(metrics.network, []);
        assert_eq!(
            metrics.agent,
            AgentMetrics {
                open_streams: 3,
                ..AgentMetrics::default()
            }
        );
    }

    #[test]
    fn known_texts_are_read() {
        let proc = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &[u8]| {
            let path = proc.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        put(
            "stat",
            b"cpu  1 2 3 4 5 6 7 8 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\ncpu3 0 0\nintr 1 2\n",
        );
        put("loadavg", b"0.50 0.25 nonsense 1/2 3\n");
        put(
            "meminfo",
            b"MemTotal: 2048 kB\nMemFree: garbage\nHugePages_Total: 7\n",
        );
        put("net/dev", b"Inter-|   Receive\n face |bytes packets\n  eth0: 10 1 0 0 0 0 0 0 20 2 0 0 0 0 0 0\n broken: 1 2\n");
        put("1/stat", b"1 (init) S 0 1 1 0 -1 4194560 9\n");
        put("2/stat", b"2 (kthreadd) S 0 0 0 0 -1 2129984 0\n");
        put("3/stat", b"3 (a) R (b \xff) Z 1 1 1 0 -1 4194560 0\n");
        put("4/stat", b"4 (cut");
        let metrics = read(proc.path(), 0);
        assert_eq!(
            metrics.cpu,
            CpuMetrics {
                count: Some(2),
                user_ms: Some(30),
                system_ms: Some(160),
                idle_ms: Some(40),
                iowait_ms: Some(50),
                steal_ms: Some(80),
                load1: Some(0.5),
                load5: Some(0.25),
                load15: None,
            }
        );
        assert_eq!(metrics.memory.total, Some(2 * 1024 * 1024));
        assert_eq!(metrics.memory.free, None);
        assert_eq!(
            metrics.processes,
            ProcessMetrics {
                total: Some(2),
                running: Some(0),
                zombies: Some(1),
            }
        );
        assert_eq!(
            metrics.network,
            [InterfaceMetrics {
                name: "eth0".into(),
                rx_bytes: 10,
                tx_bytes: 20,
                rx_packets: 1,
                tx_packets: 2,
            }]
        );
    }
}
