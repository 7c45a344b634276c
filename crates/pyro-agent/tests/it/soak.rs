//! Ten thousand operations of every kind over one link, many at a time, a third of them by
//! peers that leave at any moment: nothing grows.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use pyro_agent::serve::Agent;
use pyro_archive::tar::{BLOCK, header};
use pyro_link::{Opener, Session};
use pyro_protocol::request::BootTimes;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::timeout;

use crate::processes::{descriptors, eventually, zombies};

/// Operations that count, and those before that fill caches and pools.
const OPERATIONS: u32 = 10_000;
const WARM_UP: u32 = 2_000;

/// Peers at work at the same time.
const PEERS: u32 = 24;

/// Longest time that the whole may take.
const DEADLINE: Duration = Duration::from_secs(110);

/// Longest time that one answer may take: many shells may be closing at once.
const ANSWER: Duration = Duration::from_secs(30);

/// How much more memory the process may hold in the end: the pool's threads allocate in arenas of
/// their own, which come to their final size only after tens of thousands of operations (with one
/// arena, 1 to 4 MiB). A leak of 2 KiB in each operation would be more.
const GROWTH: u64 = 16 * 1024 * 1024;

#[test]
fn ten_thousand_operations_leave_nothing_behind() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime starts");
    let place = tempfile::tempdir().expect("a directory");
    LocalSet::new().block_on(&runtime, async {
        timeout(DEADLINE, soak(place.path()))
            .await
            .expect("the soak ends within its deadline");
    });
}

async fn soak(workspace: &Path) {
    let trees = tempfile::tempdir().expect("a directory");
    let kept = std::fs::File::open(trees.path()).expect("it is there");
    let agent = Agent::with_workspace(BootTimes::default(), workspace.to_owned())
        .expect("the reaper starts")
        .keeping_trees(kept.into());
    let opener = link(agent);
    work(&opener, WARM_UP).await;
    settle(&opener).await;
    let (files, memory) = (descriptors(), resident());
    work(&opener, OPERATIONS).await;
    settle(&opener).await;
    eventually("all descriptors are closed", || descriptors() <= files).await;
    eventually("all are reaped", || zombies() == 0).await;
    let grown = resident().saturating_sub(memory);
    assert!(grown < GROWTH, "{grown} bytes more than {memory}");
}

/// Serves `agent` over a link as in a machine; what opens streams to it.
pub(crate) fn link(agent: Agent) -> Opener {
    let (ours, theirs) = tokio::io::duplex(256 * 1024);
    let (host, opener, _) = Session::host(ours);
    let (guest, _opener, mut incoming) = Session::guest(theirs);
    spawn_local(host.run());
    spawn_local(guest.run());
    spawn_local(async move {
        while let Some(stream) = incoming.next().await {
            let agent = agent.clone();
            spawn_local(async move { agent.serve(stream).await });
        }
    });
    opener
}

/// Ids of jobs that somebody started.
type Jobs = Rc<RefCell<Vec<String>>>;

/// Does `count` operations.
async fn work(opener: &Opener, count: u32) {
    let left = Rc::new(Cell::new(count));
    let jobs = Jobs::default();
    let mut peers = Vec::new();
    for number in 0..PEERS {
        let (opener, left, jobs) = (opener.clone(), Rc::clone(&left), Rc::clone(&jobs));
        peers.push(spawn_local(async move {
            let random = Random::new(number);
            while let Some(next) = left.get().checked_sub(1) {
                left.set(next);
                one(&opener, &random, &jobs).await;
            }
        }));
    }
    for peer in peers {
        peer.await.expect("no peer panics");
    }
}

/// One stream: a whole exchange, or one that the peer breaks off.
async fn one(opener: &Opener, random: &Random, jobs: &Jobs) {
    let mut stream = opener.open().await.expect("the link holds");
    let (line, body) = operation(random, jobs);
    let mut bytes = line.to_string().into_bytes();
    bytes.push(b'\n');
    bytes.extend(body);
    match random.below(12) {
        // Half a request, and away.
        0 => {
            bytes.truncate(random.below(bytes.len()));
            let _ = stream.write_all(&bytes).await;
        }
        // Something else.
        1 => {
            for byte in &mut bytes {
                *byte = random.byte();
            }
            let _ = stream.write_all(&bytes).await;
            // The agent would wait for the end of the line.
            let _ = stream.shutdown().await;
            let mut reply = [0; 64];
            let _ = stream.read(&mut reply).await;
        }
        // A whole request, and away with the reply anywhere.
        2 | 3 => {
            let _ = stream.write_all(&bytes).await;
            let mut some = vec![0; random.below(4000)];
            let _ = timeout(Duration::from_millis(20), stream.read_exact(&mut some)).await;
        }
        _ => {
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
            let mut reply = Vec::new();
            let all = stream.read_to_end(&mut reply);
            if line["action"] == "attach_shell" {
                // It goes on for as long as the shell does.
                let _ = timeout(Duration::from_millis(20), all).await;
                return;
            }
            let read = timeout(ANSWER, all).await;
            read.unwrap_or_else(|_| panic!("no end to the answer to {line}"))
                .expect("the stream ends in order");
            assert!(!reply.is_empty(), "no answer to {line}");
            if line["detach"] == true
                && let Ok(status) = serde_json::from_slice::<Value>(&reply)
                && let Some(id) = status["job_id"].as_str()
            {
                jobs.borrow_mut().push(id.to_owned());
            }
            if line["action"] == "job_remove" {
                jobs.borrow_mut().retain(|id| line["job_id"] != *id);
            }
        }
    }
}

/// A request and the bytes that follow it.
fn operation(random: &Random, jobs: &Jobs) -> (Value, Vec<u8>) {
    let name = format!("f{}", random.below(20));
    let shell = format!("s{}", random.below(6));
    let job = {
        let jobs = jobs.borrow();
        jobs.get(random.below(jobs.len()))
            .cloned()
            .unwrap_or_default()
    };
    let service = format!("v{}", random.below(4));
    let line = match random.below(30) {
        0 => json!({"action": "hello"}),
        1 => json!({"action": "ping", "reply_bytes": random.below(200_000)}),
        2 => json!({"action": "metrics"}),
        3 | 4 => json!({"argv": ["/bin/echo", "hello"]}),
        5 => json!({"argv": ["/bin/cat"], "stream": true, "stdin": true}),
        6 => json!({"argv": ["/bin/sh", "-c", "yes | head -c 300000; exit 3"], "stream": true}),
        7 => json!({"argv": ["/bin/sh", "-c", "sleep 0.2 & exec sleep 0.1"], "timeout_ms": 50}),
        8 => json!({"argv": ["/no/such"], "stream": true}),
        9 => json!({"argv": ["/bin/sh", "-c", "echo job; sleep 0.1"], "detach": true}),
        10 => json!({"action": "job_read", "job_id": job, "wait_ms": 10}),
        11 => json!({"action": "job_end", "job_id": job}),
        12 => json!({"action": "job_remove", "job_id": job}),
        13 => {
            json!({"action": "file_write", "path": name, "content": "x".repeat(random.below(9000))})
        }
        14 => json!({"action": "file_read", "path": name}),
        15 => json!({"action": "file_list", "path": ".", "recursive": true}),
        16 => json!({"action": "file_grep", "path": ".", "pattern": "x+y"}),
        17 => json!({"action": "open_shell", "shell_id": shell, "cwd": "/"}),
        18 => json!({"action": "write_shell", "shell_id": shell, "input": "echo hi"}),
        19 => json!({"action": "attach_shell", "shell_id": shell}),
        20 => json!({"action": "close_shell", "shell_id": shell}),
        21 => json!({"action": "tree_export", "path": ".", "compression": "gzip"}),
        22 => json!({"action": "export_archive"}),
        23 => json!({"action": "tree_index", "path": "."}),
        24 | 25 => {
            let body = archive(random);
            let line = json!({
                "action": "extract_archive", "archive_size": body.len(), "destination": format!("in/{name}"),
            });
            return (line, body);
        }
        26 => {
            json!({"action": "start_service", "service_name": service, "cwd": "/", "command": "echo up; exec sleep 9"})
        }
        27 => json!({"action": "logs_service", "service_name": service}),
        28 => json!({"action": "stop_service", "service_name": service}),
        _ => json!({"action": "file_remove", "path": name, "recursive": true}),
    };
    (line, Vec::new())
}

/// An archive of one file.
fn archive(random: &Random) -> Vec<u8> {
    let content = vec![random.byte(); random.below(30_000)];
    let member = header::Member {
        path: b"d/file",
        kind: header::Kind::File(content.len() as u64),
        mode: 0o644,
        uid: 0,
        gid: 0,
        modified: header::Time::default(),
        attributes: &[],
    };
    let mut bytes = Vec::new();
    member.encode(&mut bytes);
    bytes.extend(content);
    bytes.resize(bytes.len().next_multiple_of(BLOCK) + 2 * BLOCK, 0);
    bytes
}

/// Ends what outlives its stream.
async fn settle(opener: &Opener) {
    let shells = ask(opener, &json!({"action": "list_shells"})).await;
    for shell in shells["shells"].as_array().expect("a list") {
        ask(
            opener,
            &json!({"action": "close_shell", "shell_id": shell["shell_id"]}),
        )
        .await;
    }
    let services = ask(opener, &json!({"action": "list_services"})).await;
    for service in services["services"].as_array().expect("a list") {
        let name = &service["service_name"];
        for action in ["stop_service", "remove_service"] {
            ask(opener, &json!({"action": action, "service_name": name})).await;
        }
    }
    let jobs = ask(opener, &json!({"action": "job_list"})).await;
    for job in jobs["jobs"].as_array().expect("a list") {
        let id = &job["job_id"];
        ask(opener, &json!({"action": "job_end", "job_id": id})).await;
        ask(
            opener,
            &json!({"action": "job_wait", "job_id": id, "deadline_ms": 30_000}),
        )
        .await;
        ask(opener, &json!({"action": "job_remove", "job_id": id})).await;
    }
}

async fn ask(opener: &Opener, request: &Value) -> Value {
    let mut stream = opener.open().await.expect("the link holds");
    let line = format!("{request}\n");
    stream
        .write_all(line.as_bytes())
        .await
        .expect("the agent reads");
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.expect("text");
    serde_json::from_str(&reply).expect("JSON")
}

/// Resident memory of this process, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("there is a /proc");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line
        .expect("the kernel tells it")
        .trim()
        .trim_end_matches(" kB");
    number.parse::<u64>().expect("a number") * 1024
}

/// Chance that is the same in every run: xorshift.
struct Random(Cell<u64>);

impl Random {
    fn new(seed: u32) -> Self {
        Self(Cell::new(0x9e37_79b9_7f4a_7c15 ^ u64::from(seed) << 32))
    }

    fn next(&self) -> u64 {
        let mut x = self.0.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.0.set(x);
        x
    }

    fn below(&self, limit: usize) -> usize {
        usize::try_from(self.next() >> 11).expect("53 bits") % limit.max(1)
    }

    fn byte(&self) -> u8 {
        self.next().to_be_bytes()[0]
    }
}
