//! The host's disk is full.

use std::path::{Path, PathBuf};
use std::process::Command;

use pyro_testing::{Running, World, traces};
use serde_json::{Value, json};

use super::super::full_disk::{has_own_mounts, names, small_disk};
use super::super::world;
use super::{compare, done, done_or_refused, refusal, refusals, sh, source, tried, utf8};

/// More than the tests need.
const ROOMY: u64 = 1 << 30;

/// How often a disk is filled anew whose last bytes a guest took meanwhile.
const TRIES: usize = 20;

/// A disk that gets full and roomy again.
struct Disk(PathBuf);

impl Disk {
    fn new(at: &Path) -> Self {
        small_disk(at, ROOMY);
        Self(at.to_owned())
    }

    /// Leaves `spare` bytes.
    fn fill(&self, spare: u64) {
        let filled = (0..TRIES).any(|_| {
            let found = rustix::fs::statvfs(&self.0).unwrap();
            let used = (found.f_blocks - found.f_bfree) * found.f_frsize;
            self.remount(&format!("size={}", used + spare))
        });
        assert!(filled);
    }

    /// Leaves no room for the name of another file.
    fn fill_names(&self) {
        let filled = (0..TRIES).any(|_| {
            let found = rustix::fs::statvfs(&self.0).unwrap();
            self.remount(&format!("nr_inodes={}", found.f_files - found.f_ffree))
        });
        assert!(filled);
    }

    fn make_room(&self) {
        assert!(self.remount(&format!("size={ROOMY},nr_inodes=100000")));
    }

    fn remount(&self, options: &str) -> bool {
        let mounted = Command::new("mount")
            .args(["-o", &format!("remount,{options}")])
            .arg(&self.0)
            .output()
            .unwrap();
        mounted.status.success()
    }
}

/// What is kept of workspaces, by path.
fn kept(world: &World) -> Vec<PathBuf> {
    ["workspaces", "snapshots", "seeds"]
        .iter()
        .map(|name| world.state().join(name))
        .filter(|directory| directory.exists())
        .flat_map(|directory| names(&directory))
        .collect()
}

fn listed(world: &World) -> Vec<(String, String)> {
    let list = done(world, &["list"]);
    assert_eq!(list["damaged"], Value::Null, "{list}");
    let mut all: Vec<(String, String)> = list["workspaces"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| {
            let text = |name: &str| item[name].as_str().unwrap().to_owned();
            (text("name"), text("state"))
        })
        .collect();
    all.sort();
    all
}

/// The MCP server, spoken to line by line.
struct Mcp {
    server: Running,
    heard: Vec<u8>,
    calls: u64,
}

impl Mcp {
    fn start(world: &World) -> Self {
        let server = world.pyro(&["mcp", "serve", "--no-project-source"]);
        let mut mcp = Self {
            server: { server }.hold_stdin().start(),
            heard: Vec::new(),
            calls: 0,
        };
        let client = json!({"name": "test", "version": "1"});
        mcp.ask(
            "initialize",
            &json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client}),
        );
        mcp.say(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
        mcp
    }

    fn say(&mut self, message: &Value) {
        self.server.send(format!("{message}\n").as_bytes());
    }

    fn ask(&mut self, method: &str, params: &Value) -> Value {
        self.calls += 1;
        let id = self.calls;
        self.say(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
        loop {
            while let Some(end) = self.heard.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.heard.drain(..=end).collect();
                let mut message: Value = serde_json::from_slice(&line).unwrap();
                if message["id"] == id {
                    return message["result"].take();
                }
            }
            let more = self.server.wait_for_stdout();
            self.heard.extend(more);
        }
    }

    fn call(&mut self, tool: &str, arguments: &Value) -> Value {
        self.ask("tools/call", &json!({"name": tool, "arguments": arguments}))
    }
}

#[test]
fn every_operation_works_or_says_that_the_disk_is_full() {
    if !has_own_mounts() {
        return;
    }
    let world = world();
    let disk = Disk::new(&world.state());
    let source = source(&world);
    let create = ["create", "debian:12", "--mem-mib", "256", "--ttl-seconds"];
    let created = |more: &[&'static str]| [&create[..], &["never"], more].concat();
    let seeded = [&created(&["--name", "w", "--seed-path"])[..], &[&source]].concat();
    done(&world, &seeded);
    done(&world, &created(&["--name", "s"]));
    done(&world, &["stop", "s"]);
    sh(&world, "w", "echo new > b; sync");
    done(&world, &["snapshot", "create", "w", "one"]);
    let before = kept(&world);
    let mut mcp = Mcp::start(&world);

    disk.fill(0);
    for words in [
        &["list"][..],
        &["status", "w"],
        &["status", "s"],
        &["logs", "w"],
        &["jobs", "list", "w"],
        &["snapshot", "list", "w"],
        &["file", "list", "w"],
        &["file", "read", "w", "b"],
        &["file", "grep", "w", "o.e"],
        &["file", "glob", "w", "*"],
    ] {
        done(&world, words);
    }
    let (out, pulled) = (
        utf8(&world.state().join("out")),
        utf8(&world.state().join("pulled")),
    );
    let unseeded = created(&["--name", "c"]);
    let again = [&created(&["--name", "d", "--seed-path"])[..], &[&source]].concat();
    let told = refusals(
        &world,
        &[
            &["export", "w", "d", "--output", &out],
            &["sync", "pull", "w", "d", &pulled],
            &["exec", "w", "--", "touch", "half"],
            &["exec", "w", "--detach", "--", "touch", "half"],
            &["update", "w", "--label", "x=y"],
            &["pause", "w"],
            &["snapshot", "create", "w", "two"],
            &["snapshot", "create", "w", "three", "--memory"],
            &["fork", "w"],
            &["reset", "w"],
            &["start", "s"],
            &unseeded,
            &again,
        ],
    );
    compare(&world, "host_full", &told);
    // Work is brought out to where there is room, although nothing can be noted of that.
    let elsewhere = world.home().join("elsewhere");
    done(
        &world,
        &["export", "w", "d/big", "--output", &utf8(&elsewhere)],
    );
    let big = std::fs::read(Path::new(&source).join("d/big")).unwrap();
    assert!(std::fs::read(&elsewhere).unwrap() == big);
    let status = mcp.call("workspace_status", &json!({"workspace_id": "w"}));
    assert_ne!(status["isError"], true, "{status}");
    let ran = json!({"workspace_id": "w", "command": "touch half"});
    let ran = mcp.call("workspace_exec", &ran);
    assert_eq!(ran["structuredContent"]["code"], "no_space", "{ran}");
    let collected = world.pyro(&["gc", "--json"]).run();
    assert_eq!(collected.code(), 0, "{}", collected.stdout_text());
    for words in [&["diff", "w"][..], &["summary", "w"], &["extend", "w"]] {
        done_or_refused(&world, words);
    }
    // A guest that writes cannot go on.
    let patch = "--- /dev/null\n+++ b/half\n@@ -0,0 +1 @@\n+half\n";
    for words in [
        &["file", "write", "w", "half", "--text", "half"][..],
        &["file", "edit", "w", "a", "--old", "one", "--new", "two"],
        &["patch", "apply", "w", "--patch", patch],
        &["sync", "push", "w", &source, "--dest", "half"],
        &["stop", "w"],
    ] {
        refusal(&world, words);
    }
    let stopped = done(&world, &["status", "w"]);
    assert_eq!(stopped["state"], "stopped", "{stopped}");
    assert_eq!(stopped["last_error"]["code"], "no_space", "{stopped}");
    let as_they_are = [("s", "stopped"), ("w", "stopped")].map(|(a, b)| (a.into(), b.into()));
    assert_eq!(listed(&world), as_they_are);
    assert_eq!(kept(&world), before);
    assert!(!Path::new(&out).exists() && !Path::new(&pulled).exists());

    disk.make_room();
    done(&world, &["start", "w"]);
    done(&world, &["start", "s"]);
    let found = "cat a b; sha256sum < d/big; ls";
    let found = sh(&world, "w", found);
    assert!(
        found.starts_with("one\nnew\n") && found.ends_with("\na\nb\nd\n"),
        "{found}"
    );
    done(&world, &["export", "w", "d/big", "--output", &out]);
    assert!(std::fs::read(&out).unwrap() == big);
    let ran = json!({"workspace_id": "w", "command": "echo more > b"});
    let ran = mcp.call("workspace_exec", &ran);
    assert_eq!(ran["structuredContent"]["exit_code"], 0, "{ran}");
    done(&world, &["reset", "w", "--snapshot", "one"]);
    assert_eq!(sh(&world, "w", "cat b"), "new\n");
    done(&world, &["stop", "s"]);

    // What is deleted makes the room that its record needs.
    drop(mcp);
    std::fs::remove_file(&out).unwrap();
    disk.fill(0);
    done(&world, &["delete", "w"]);
    disk.fill(0);
    done(&world, &["delete", "s"]);
    assert_eq!(listed(&world), []);
    disk.make_room();
    assert_eq!(kept(&world), Vec::<PathBuf>::new());
    traces::assert_none(&world);
}

#[test]
fn a_command_that_ends_is_told_and_a_guest_that_cannot_write_is_stopped() {
    if !has_own_mounts() {
        return;
    }
    let world = world();
    let disk = Disk::new(&world.state());
    let create = ["create", "debian:12", "--mem-mib", "256", "--name", "w"];
    done(&world, &create);
    sh(&world, "w", "echo kept > kept");

    // It began when there was room for its record.
    let line = "echo up; read line; head -c 300000 /dev/zero | tr '\\0' x; exit 3";
    let words = ["workspace", "exec", "w", "-i", "--shell", "--", line];
    let mut running = world.pyro(&words).hold_stdin().start();
    assert_eq!(running.wait_for_stdout(), b"up\n");
    disk.fill(0);
    running.send(b"\n");
    let ended = running.finish();
    assert_eq!(ended.code(), 3, "{}", ended.stderr_text());
    assert_eq!(ended.stdout.len(), 300_000);
    let logs = done(&world, &["logs", "w"]);
    let entry = &logs["entries"][1];
    assert_eq!(entry["stdout"], "", "half an output is kept: {entry}");
    disk.make_room();
    let logs = done(&world, &["logs", "w"]);
    let entry = &logs["entries"][1];
    let (code, state) = (&entry["exit_code"], &entry["state"]);
    assert!(*code == 3 || *state == "interrupted", "{entry}");

    disk.fill(1 << 20);
    let line = "head -c 8M /dev/urandom > lost; sync; echo synced";
    let words = ["exec", "w", "--shell", "--", line];
    let told = tried(&world, &words);
    let error = &told.json()["error"];
    assert_eq!((told.code(), &error["code"]), (125, &json!("no_space")));
    let told = format!("{}\nhint: {}\n", error["message"], error["hint"]);
    compare(&world, "guest_of_a_full_host", &told);
    disk.make_room();
    done(&world, &["start", "w"]);
    assert_eq!(sh(&world, "w", "cat kept"), "kept\n");

    // No room for a name is less than no room for a byte.
    done(&world, &["stop", "w"]);
    disk.fill_names();
    assert_eq!(listed(&world), [("w".into(), "stopped".into())]);
    let told = refusals(&world, &[&["start", "w"], &["create", "debian:12"]]);
    compare(&world, "host_without_names", &told);
    done(&world, &["delete", "w"]);
    disk.make_room();
    assert_eq!(listed(&world), []);
    assert_eq!(kept(&world), Vec::<PathBuf>::new());
    traces::assert_none(&world);
}
