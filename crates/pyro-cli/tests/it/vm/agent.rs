//! The agent's newer actions where they matter: in a real machine, as its first process.

use std::path::Path;
use std::time::{Duration, Instant};

use pyro_testing::World;
use serde_json::{Value, json};

use super::legacy::{ask, machine};
use super::world;

fn wait(socket: &std::path::Path, started: &Value) -> Value {
    let job = &started["job_id"];
    assert!(job.is_string(), "{started}");
    ask(
        socket,
        &json!({"action": "job_wait", "job_id": job, "deadline_ms": 60_000}),
    )
}

#[test]
fn a_job_lives_on_after_its_stream_and_tells_what_it_used() {
    let world: World = world();
    let (_running, socket) = machine(&world);
    let command = "echo early; head -c 100000000 /dev/zero | tail -c 50000000 | wc -c";
    let request = json!({"action": "exec", "command": command, "detach": true, "token": "once"});
    let started = ask(&socket, &request);
    assert_eq!(
        ask(&socket, &request)["job_id"],
        started["job_id"],
        "the same token, the same job"
    );
    let ended = wait(&socket, &started);
    assert_eq!(ended["end"]["exit_code"], 0, "{ended}");
    let usage = &ended["end"]["usage"];
    assert!(
        usage["user_ms"].as_u64().unwrap() + usage["system_ms"].as_u64().unwrap() > 0,
        "{usage}"
    );
    assert!(
        usage["peak_memory_bytes"].as_u64().unwrap() > 40_000_000,
        "{usage}"
    );
    let output = ask(
        &socket,
        &json!({"action": "job_read", "job_id": started["job_id"]}),
    );
    assert_eq!(output["output"], "early\n50000000\n");
}

#[test]
fn a_command_runs_as_another_user_with_limits() {
    let world = world();
    let (_running, socket) = machine(&world);
    let request = json!({
        "command": "id -un; umask; ulimit -n; cat /etc/shadow",
        "user": "nobody", "umask": "027", "rlimits": {"nofile": 99},
    });
    let reply = ask(&socket, &request);
    assert_eq!(reply["stdout"], "nobody\n0027\n99\n", "{reply}");
    assert_ne!(reply["exit_code"], 0);
}

#[test]
fn ending_a_job_reaches_what_left_its_group() {
    let world = world();
    let (_running, socket) = machine(&world);
    let command = "setsid sh -c 'trap \"\" TERM; while :; do sleep 1; done' & echo $!; sleep 1000";
    let started = ask(
        &socket,
        &json!({"action": "exec", "command": command, "detach": true}),
    );
    let job = &started["job_id"];
    let read = json!({"action": "job_read", "job_id": job, "wait_ms": 30_000});
    let child = ask(&socket, &read)["output"]
        .as_str()
        .unwrap()
        .trim()
        .to_owned();
    ask(&socket, &json!({"action": "job_end", "job_id": job}));
    wait(&socket, &started);
    let gone = format!("while test -d /proc/{child}; do :; done; echo gone");
    assert_eq!(ask(&socket, &json!({"command": gone}))["stdout"], "gone\n");
}

#[test]
fn files_are_written_listed_searched_and_removed() {
    let world = world();
    let (_running, socket) = machine(&world);
    let write = json!({
        "action": "file_write", "path": "src/a.txt", "content": "one\ntwo\n", "create_parents": true, "mode": 0o600,
    });
    assert_eq!(ask(&socket, &write)["created"], true);
    let listed = ask(
        &socket,
        &json!({"action": "file_list", "path": ".", "recursive": true}),
    );
    assert!(listed["entries"].is_array(), "{listed}");
    let paths: Vec<&str> = listed["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["path"].as_str().unwrap())
        .collect();
    assert_eq!(
        paths,
        ["/workspace/src", "/workspace/src/a.txt"],
        "{listed}"
    );
    let found = ask(
        &socket,
        &json!({"action": "file_grep", "path": ".", "pattern": "^tw"}),
    );
    assert_eq!(found["lines"][0]["line_number"], 2, "{found}");
    let escaped = ask(
        &socket,
        &json!({"action": "file_read", "path": "../etc/passwd", "text": true}),
    );
    assert_eq!(escaped["code"], "invalid_argument", "{escaped}");
    let legacy = ask(
        &socket,
        &json!({"action": "write_workspace_file", "path": "b", "text": "x"}),
    );
    assert_eq!(legacy["bytes_written"], 1, "{legacy}");
    let removed = ask(
        &socket,
        &json!({"action": "file_remove", "path": "src", "recursive": true}),
    );
    assert_eq!(removed["entries"], 2, "{removed}");
}

#[test]
fn a_shell_has_a_terminal_and_survives_its_streams() {
    let world = world();
    let (_running, socket) = machine(&world);
    let opened = ask(
        &socket,
        &json!({"action": "open_shell", "shell_id": "s", "cwd": "/", "redact_values": ["hunter2"]}),
    );
    assert_eq!(opened["state"], "running", "{opened}");
    let write = |input: &str| {
        ask(
            &socket,
            &json!({"action": "write_shell", "shell_id": "s", "input": input}),
        )
    };
    // A Ctrl-C that comes before the shell has set itself up would end it.
    let prompt = json!({"action": "wait_shell", "shell_id": "s", "cursor": 0, "pattern": r"pyro\$ ", "deadline_ms": 60_000});
    assert_eq!(ask(&socket, &prompt)["reason"], "matched");
    // Nor one that comes before what was entered has the terminal: it would reach bash alone.
    write("sh -c 'echo run\"\"ning; exec sleep 1000'");
    let runs = json!({"action": "wait_shell", "shell_id": "s", "cursor": 0, "pattern": r"running\r\n", "deadline_ms": 60_000});
    assert_eq!(ask(&socket, &runs)["reason"], "matched");
    ask(
        &socket,
        &json!({"action": "write_shell", "shell_id": "s", "input": "\u{3}", "append_newline": false}),
    );
    write("test -t 0 && stty size && echo hunter2 && echo do''ne");
    let waited = ask(
        &socket,
        &json!({"action": "wait_shell", "shell_id": "s", "cursor": 0, "pattern": "done", "deadline_ms": 60_000}),
    );
    assert_eq!(waited["reason"], "matched", "{waited}");
    let output = waited["output"].as_str().unwrap();
    assert!(
        output.contains("30 120") && output.contains("[REDACTED]") && !output.contains("hunter2"),
        "{output}"
    );
    write("exit 7");
    let ended = ask(
        &socket,
        &json!({"action": "wait_shell", "shell_id": "s", "cursor": 0, "deadline_ms": 60_000}),
    );
    assert_eq!(
        (&ended["state"], &ended["exit_code"]),
        (&json!("stopped"), &json!(7)),
        "{ended}"
    );
}

/// Waits until the agent holds no more memory than an idle one may: what it does at this moment
/// may take more.
fn idle_and_small(socket: &std::path::Path) {
    let give_up = Instant::now() + Duration::from_secs(30);
    loop {
        let agent = ask(socket, &json!({"action": "metrics"}))["agent"].clone();
        if agent["rss_bytes"].as_u64().unwrap() < 4 * 1024 * 1024 {
            return;
        }
        assert!(Instant::now() < give_up, "{agent}");
    }
}

#[test]
fn the_machine_tells_how_it_is_and_takes_a_new_name() {
    let world = world();
    let (_running, socket) = machine(&world);
    let metrics = ask(&socket, &json!({"action": "metrics"}));
    assert_eq!(metrics["cpu"]["count"], 1, "{metrics}");
    idle_and_small(&socket);
    // What a large reply took is given back.
    let large = ask(
        &socket,
        &json!({"command": "head -c 3000000 /dev/zero | base64"}),
    );
    assert!(large["stdout"].as_str().unwrap().len() > 4_000_000);
    idle_and_small(&socket);
    let named = json!({"action": "set_identity", "hostname": "box", "machine_id": "0123456789abcdef0123456789abcdef"});
    assert_eq!(ask(&socket, &named)["ok"], true);
    let told = ask(
        &socket,
        &json!({"command": "hostname; cat /etc/machine-id"}),
    );
    assert_eq!(told["stdout"], "box\n0123456789abcdef0123456789abcdef\n");
    boot_ids_are_renewed(&socket, &named);
    // A server in the guest, reached through the link alone.
    let server = "perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(Listen => 1, LocalAddr => \"127.0.0.1\", \
                  LocalPort => 8080); print \"up\\n\"; close STDOUT; $c = $s->accept; print $c \"hi \".<$c>'";
    let job = ask(
        &socket,
        &json!({"action": "exec", "command": server, "detach": true}),
    )["job_id"]
        .clone();
    let up = ask(
        &socket,
        &json!({"action": "job_read", "job_id": job, "wait_ms": 60_000}),
    );
    assert_eq!(up["output"], "up\n", "{up}");
    let (mut stream, _) = super::legacy::connect(&socket, 5005);
    std::io::Write::write_all(
        &mut stream,
        b"{\"action\": \"connect_tcp\", \"port\": 8080}\nthere\n",
    )
    .unwrap();
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut stream, &mut answer).unwrap();
    assert_eq!(answer, "{\"ok\":true}\nhi there\n");
}

/// Another boot id with each machine id, also after the guest took ours away; one mount in all.
fn boot_ids_are_renewed(socket: &Path, named: &Value) {
    let say = |command: &str| ask(socket, &json!({"command": command}))["stdout"].clone();
    let look = "cat /proc/sys/kernel/random/boot_id; stat -c %a /proc/sys/kernel/random/boot_id; \
                grep -c boot_id /proc/self/mountinfo";
    let mut seen = vec![say(look)];
    for round in 0..4 {
        if round == 2 {
            say("rm -r /run/pyro");
        }
        assert_eq!(ask(socket, named)["ok"], true);
        let told = say(look);
        let lines: Vec<&str> = told.as_str().unwrap().lines().collect();
        assert_eq!(
            (lines[0].len(), &lines[1..]),
            (36, &["444", "1"][..]),
            "{told}"
        );
        assert!(!seen.contains(&told), "{told}");
        seen.push(told);
    }
}

#[test]
fn frozen_disks_stop_what_writes_and_nothing_else() {
    let world = world();
    let (_running, socket) = machine(&world);
    // One that has left the commands' groups, in a machine whose agent was put into another.
    let ticks = "mkdir /sys/fs/cgroup/mine; echo 1 > /sys/fs/cgroup/mine/cgroup.procs; echo $$ > /sys/fs/cgroup/cgroup.procs; \
                 i=0; while :; do i=$((i+1)); echo $i > /run/ticks.new; mv /run/ticks.new /run/ticks; done";
    ask(
        &socket,
        &json!({"action": "exec", "command": ticks, "detach": true}),
    );
    let tick = || {
        let read = json!({"action": "file_read", "root": "/run", "path": "ticks", "text": true});
        ask(&socket, &read)["content"].clone()
    };
    while tick().is_null() {}
    let freeze = json!({"action": "freeze", "max_ms": 60_000});
    let frozen = ask(&socket, &freeze);
    assert_eq!(frozen["frozen"], 1, "{frozen}");
    assert_eq!(frozen["processes"], "stopped", "{frozen}");
    assert_eq!(ask(&socket, &freeze)["code"], "conflict");
    let stopped = tick();
    // It stays unanswered for as long as the disk is frozen; all that follows overtakes it.
    let (mut writes, _) = super::legacy::connect(&socket, 5005);
    let command = b"{\"command\": \"echo new > /root/file; cat /root/file\"}\n";
    std::io::Write::write_all(&mut writes, command).unwrap();
    let (mut uploads, _) = super::legacy::connect(&socket, 5005);
    let upload = b"{\"action\": \"file_write\", \"path\": \"up\", \"content\": \"x\"}\n";
    std::io::Write::write_all(&mut uploads, upload).unwrap();
    for own in ["hello", "ping", "metrics", "sync"] {
        let reply = ask(&socket, &json!({"action": own}));
        assert_eq!(reply["code"], Value::Null, "{own}: {reply}");
    }
    let looks =
        json!({"action": "file_read", "root": "/etc", "path": "debian_version", "text": true});
    let seen = ask(&socket, &looks);
    assert!(
        seen["content"].as_str().unwrap().starts_with("12"),
        "{seen}"
    );
    assert_eq!(tick(), stopped);
    writes.set_nonblocking(true).unwrap();
    let early = std::io::Read::read(&mut writes, &mut [0; 1]).unwrap_err();
    assert_eq!(early.kind(), std::io::ErrorKind::WouldBlock);
    writes.set_nonblocking(false).unwrap();
    let thawed = ask(&socket, &json!({"action": "thaw"}));
    assert_eq!(thawed["ok"], true, "{thawed}");
    for (stream, part) in [
        (&mut writes, "\"stdout\":\"new\\n\""),
        (&mut uploads, "\"bytes_written\":1"),
    ] {
        let mut reply = String::new();
        std::io::Read::read_to_string(stream, &mut reply).unwrap();
        assert!(reply.contains(part), "{reply}");
    }
    while tick() == stopped {}
    let again = ask(&socket, &json!({"action": "thaw"}));
    assert_eq!(again["code"], "failed_precondition", "{again}");
}

#[test]
fn a_frozen_disk_thaws_by_itself() {
    let world = world();
    let (_running, socket) = machine(&world);
    // A job whose output comes while its ring cannot be written.
    let talks = json!({"action": "exec", "command": "while :; do echo talk; done", "detach": true});
    let job = ask(&socket, &talks)["job_id"].clone();
    let frozen = ask(&socket, &json!({"action": "freeze", "max_ms": 2_000}));
    assert_eq!(frozen["ok"], true, "{frozen}");
    let reply = ask(
        &socket,
        &json!({"command": "echo late > /root/file && cat /root/file"}),
    );
    assert_eq!(reply["stdout"], "late\n", "{reply}");
    let again = ask(&socket, &json!({"action": "thaw"}));
    assert_eq!(again["code"], "failed_precondition", "{again}");
    assert_eq!(
        ask(&socket, &json!({"action": "job_end", "job_id": job}))["ok"],
        true
    );
}

#[test]
fn a_machine_rests_frozen_and_comes_back_with_fresh_entropy() {
    let world = world();
    let (running, socket) = machine(&world);
    let rest = json!({"action": "quiesce", "freeze": true, "drain_ms": 1, "max_ms": 60_000});
    let rested = ask(&socket, &rest);
    assert_eq!(rested["frozen"], 1, "{rested}");
    let refused = ask(&socket, &json!({"command": "true"}));
    assert_eq!(refused["code"], "conflict", "{refused}");
    let seed = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
    let revive = json!({
        "action": "revive", "unix_ns": 1_700_000_000_000_000_000u64, "seed_b64": seed, "hostname": "again",
    });
    let revived = ask(&socket, &revive);
    assert_eq!(
        (&revived["thawed"], &revived["credited"]),
        (&json!(true), &json!(true)),
        "{revived}"
    );
    assert_eq!(
        ask(&socket, &json!({"command": "hostname"}))["stdout"],
        "again\n"
    );
    // A machine that is frozen when it is told to end does not wait for the time limit.
    assert_eq!(
        ask(&socket, &json!({"action": "freeze", "max_ms": 60_000}))["ok"],
        true
    );
    assert_eq!(ask(&socket, &json!({"action": "power_off"}))["ok"], true);
    running.finish();
}
