//! Metrics, against what the test itself reads.

use std::fs;

use pyro_protocol::guest::Metrics;
use serde_json::Value;

use crate::guest::with_guest;

async fn metrics(guest: &crate::guest::Guest) -> (Metrics, Value) {
    let reply = guest.ask_line(r#"{"action": "metrics"}"#).await;
    let parsed = serde_json::from_value(reply.clone()).expect("the reply has its shape");
    (parsed, reply)
}

#[test]
fn the_numbers_are_the_kernels() {
    with_guest(async |guest| {
        let (metrics, _) = metrics(&guest).await;
        let meminfo = fs::read_to_string("/proc/meminfo").expect("there is /proc");
        let total = meminfo
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:"))
            .and_then(|rest| rest.trim().strip_suffix(" kB"))
            .and_then(|kib| kib.parse::<u64>().ok())
            .expect("it tells the total");
        assert_eq!(metrics.memory.total, Some(total * 1024));
        assert!(metrics.memory.available <= metrics.memory.total);

        let cpus = fs::read_to_string("/proc/stat").expect("there is /proc");
        let cpus = cpus.lines().filter(|line| line.starts_with("cpu")).count() - 1;
        assert_eq!(metrics.cpu.count, Some(cpus));
        assert!(metrics.cpu.user_ms.is_some_and(|ms| ms > 0));
        assert!(metrics.cpu.load1.is_some_and(|load| load >= 0.0));

        let root = metrics.disk.first().expect("there is a root");
        assert_eq!(root.mount, "/");
        assert!(root.total > 0 && root.available <= root.total && root.used <= root.total);

        let names: Vec<_> = metrics.network.iter().map(|card| &card.name).collect();
        let table = fs::read_to_string("/proc/net/dev").expect("there is /proc");
        assert_eq!(names.len(), table.lines().count() - 2, "{names:?}");

        let processes = metrics.processes;
        assert!(processes.total.is_some_and(|total| total >= 1));
        assert!(processes.running <= processes.total);
        assert!(metrics.uptime_ms > 0);
    });
}

#[test]
fn the_agent_counts_its_streams() {
    with_guest(async |guest| {
        let (alone, _) = metrics(&guest).await;
        assert_eq!(alone.agent.open_streams, 1, "the one that asks");
        assert!(alone.agent.rss_bytes.is_some_and(|bytes| bytes > 100_000));
        assert!(alone.agent.open_descriptors.is_some_and(|count| count >= 3));
        let silent = [guest.connect(), guest.connect()];
        let (three, _) = metrics(&guest).await;
        assert_eq!(three.agent.open_streams, 3);
        drop(silent);
        tokio::task::yield_now().await;
        let (alone, reply) = metrics(&guest).await;
        assert_eq!(alone.agent.open_streams, 1);
        for part in ["cpu", "memory", "processes", "agent"] {
            assert!(reply[part].is_object(), "{part}");
        }
    });
}
