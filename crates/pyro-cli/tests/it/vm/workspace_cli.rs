//! Workspaces over the command line alone, in real machines.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use pyro_testing::{Finished, Running, World, traces};

use super::shapes::pretty;
use super::world;

/// `pyro workspace` with the words of `line`, which must succeed.
fn done(world: &World, line: &str) -> Finished {
    let finished = run(world, line);
    assert_eq!(finished.code(), 0, "{line}: {}", finished.stderr_text());
    finished
}

fn run(world: &World, line: &str) -> Finished {
    world.pyro(&words(line)).run()
}

fn words(line: &str) -> Vec<&str> {
    let words = line.split(' ').filter(|word| !word.is_empty());
    ["workspace"].into_iter().chain(words).collect()
}

fn stdout(world: &World, line: &str) -> String {
    done(world, line).stdout_text()
}

/// A command line for the guest's shell.
fn sh(world: &World, workspace: &str, line: &str) -> Finished {
    world
        .pyro(&["workspace", "exec", workspace, "--shell", "--", line])
        .run()
}

fn started(world: &World, workspace: &str, line: &str) -> Running {
    let mut running = world
        .pyro(&["workspace", "exec", workspace, "--shell", "--", line])
        .start();
    assert_eq!(running.wait_for_stdout(), b"up\n");
    running
}

/// Starts a command line as a job and gives its id.
fn detached(world: &World, workspace: &str, line: &str) -> String {
    let started = world
        .pyro(&[
            "workspace",
            "exec",
            workspace,
            "--detach",
            "--shell",
            "--",
            line,
        ])
        .run();
    assert_eq!(started.code(), 0, "{}", started.stderr_text());
    started.stdout_text().trim().to_owned()
}

/// Compares text with a snapshot, what differs from run to run replaced.
fn compare(name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    for (pattern, instead) in [
        (r"\b[0-9a-f]{12}\b", "ID"),
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "TIME"),
        (
            r"(duration_ms|disk_bytes|bytes_written|entry_count|paused_ms)=\d+",
            "$1=N",
        ),
        (r"[\d.]+ [KM]iB on disk", "SIZE on disk"),
    ] {
        settings.add_filter(pattern, instead);
    }
    settings.bind(|| insta::assert_snapshot!(name, text));
}

#[test]
fn the_daily_loop() {
    let world = world();
    let made = done(
        &world,
        "create debian:12 --name daily --label task=42 --ttl-seconds never --id-only",
    );
    let id = made.stdout_text().trim().to_owned();
    assert_eq!(id.len(), 12, "{id}");
    compare("created", &stdout(&world, "status daily"));
    compare("listed", &stdout(&world, "list"));

    // Commands: their own code, their streams byte for byte, their variables and directory.
    let failed = sh(&world, "daily", "echo out; echo err >&2; exit 3");
    assert_eq!((failed.code(), failed.stdout_text().as_str()), (3, "out\n"));
    compare("exec_talk", &failed.stderr_text());
    let bytes: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    let copied = world
        .pyro(&words("exec daily -q -i -- tee copy"))
        .stdin(bytes.clone())
        .run();
    assert!(copied.stdout == bytes && copied.stderr.is_empty());
    let told = stdout(&world, "exec daily --env A=b --cwd / -- sh -c env");
    assert!(told.contains("A=b\n") && told.contains("PWD=/\n"), "{told}");
    assert_eq!(run(&world, "exec daily -- no-such-program").code(), 127);
    assert_eq!(run(&world, "exec daily -- /etc/passwd").code(), 126);
    let late = run(&world, "exec daily --timeout-seconds 0.3 -- sleep 30");
    assert_eq!(late.code(), 124);
    assert!(
        late.stderr_text().contains("--timeout-seconds"),
        "{}",
        late.stderr_text()
    );
    assert_eq!(run(&world, "exec nope -- true").code(), 125);

    // Files. `--last` stands for the one that was just used.
    done(&world, "file write --last src/a.txt --text one");
    done(&world, "file edit --last src/a.txt --old one --new three");
    let read = done(&world, "file read daily src/a.txt");
    assert_eq!(read.stdout_text(), "three\n");
    compare("file_read_talk", &read.stderr_text());
    assert_eq!(
        stdout(
            &world,
            "file read daily src/a.txt --offset 1 --max-bytes 2 --content-only"
        ),
        "hr"
    );
    assert!(done(&world, "file read daily copy --content-only").stdout == bytes[..65_536]);
    assert_eq!(
        stdout(&world, "file list daily src"),
        "Workspace path: /workspace/src (recursive=no)\n/workspace/src/a.txt [file] size=5\n"
    );
    assert_eq!(
        stdout(&world, "file glob daily **/*.txt"),
        "/workspace/src/a.txt\n"
    );
    assert_eq!(
        stdout(&world, "file grep daily t.*e"),
        "/workspace/src/a.txt:1:three\n"
    );

    // A guest cannot steer the terminal by the name of a file or by what the history shows.
    let evil = sh(
        &world,
        "daily",
        "touch \"$(printf 'src/\\033[2J')\"; printf '\\033]0;x\\007'",
    );
    assert_eq!(evil.code(), 0);
    for shown in ["file list daily src", "logs daily"] {
        let shown = done(&world, shown).stdout;
        assert!(
            !shown.contains(&0x1b),
            "{}",
            String::from_utf8_lossy(&shown)
        );
    }
    let history = stdout(&world, "logs daily");
    assert!(history.starts_with("#1 exit_code=3 "), "{history}");
    assert!(
        history.contains("\n$ echo out; echo err >&2; exit 3\nout\nerr\n"),
        "{history}"
    );

    // Snapshots and resets.
    done(&world, "snapshot create daily good");
    compare("snapshots", &stdout(&world, "snapshot list daily"));
    sh(&world, "daily", "rm -rf /workspace/* /etc/hostname");
    done(&world, "reset daily --snapshot good");
    assert_eq!(
        stdout(&world, "file read daily src/a.txt --content-only"),
        "three"
    );
    assert_eq!(stdout(&world, "logs daily"), "No command was run\n");
    done(&world, "snapshot delete daily good");
    assert_eq!(run(&world, "reset daily --snapshot good").code(), 1);

    // Life.
    assert!(stdout(&world, "pause daily").contains("State: paused\n"));
    assert!(stdout(&world, "resume daily").contains("State: started\n"));
    assert!(stdout(&world, "stop daily").contains("State: stopped (stopped)\n"));
    let refused = run(&world, "exec daily -- true");
    assert_eq!(refused.code(), 125);
    assert!(
        refused.stderr_text().contains("pyro workspace start"),
        "{}",
        refused.stderr_text()
    );
    assert!(stdout(&world, "start daily").contains("State: started\n"));
    let update = format!(
        "update {} --name other --clear-label task --ttl-seconds 600",
        &id[..5]
    );
    let updated = stdout(&world, &update);
    assert!(updated.contains("Name: other\nLabels: -\n"), "{updated}");
    assert!(updated.contains("(after 600 s without use)"), "{updated}");
    done(&world, "extend other");
    assert_eq!(
        stdout(&world, "delete --last"),
        format!("Deleted workspace {id}\n")
    );
    traces::assert_none(&world);
    assert!(
        std::fs::read_dir(world.state().join("workspaces"))
            .unwrap()
            .next()
            .is_none()
    );
}

#[test]
fn json_keeps_its_shape() {
    let world = world();
    let json = |line: &str| run(&world, &format!("{line} --json")).json();
    insta::assert_snapshot!(
        "json_create",
        pretty(&json("create debian:12 --name j --label a=b"))
    );
    insta::assert_snapshot!(
        "json_exec",
        pretty(
            &world
                .pyro(&["workspace", "exec", "j", "--json", "--", "no-such"])
                .run()
                .json()
        )
    );
    insta::assert_snapshot!("json_list", pretty(&json("list")));
    insta::assert_snapshot!("json_status", pretty(&json("status j")));
    insta::assert_snapshot!("json_logs", pretty(&json("logs j")));
    insta::assert_snapshot!("json_write", pretty(&json("file write j a --text b")));
    insta::assert_snapshot!("json_edit", pretty(&json("file edit j a --old b --new c")));
    insta::assert_snapshot!("json_read", pretty(&json("file read j a")));
    insta::assert_snapshot!("json_files", pretty(&json("file list j")));
    insta::assert_snapshot!("json_grep", pretty(&json("file grep j c")));
    insta::assert_snapshot!("json_snapshot", pretty(&json("snapshot create j s")));
    insta::assert_snapshot!("json_snapshots", pretty(&json("snapshot list j")));
    insta::assert_snapshot!("json_snapshot_delete", pretty(&json("snapshot delete j s")));
    insta::assert_snapshot!("json_reset", pretty(&json("reset j")));
    let job = world
        .pyro(&[
            "workspace",
            "exec",
            "j",
            "--detach",
            "--json",
            "--",
            "sleep",
            "99",
        ])
        .run()
        .json();
    insta::assert_snapshot!("json_job", pretty(&job));
    insta::assert_snapshot!("json_jobs", pretty(&json("jobs list j")));
    let refused = json("status nope");
    assert_eq!(refused["error"]["code"], "not_found");
    insta::assert_snapshot!(
        "json_deleted",
        pretty(&json("delete --all --label a=b --yes"))
    );
}

#[test]
fn what_goes_on_by_itself_is_looked_after_by_its_id() {
    let world = world();
    done(&world, "create debian:12 --name jobs");
    let job = detached(&world, "jobs", "echo one; echo two >&2; exit 7");
    assert_eq!(run(&world, &format!("jobs wait jobs {job}")).code(), 7);
    let logs = done(&world, &format!("jobs logs jobs {job}"));
    assert_eq!(logs.stdout_text(), "one\n");
    assert!(
        logs.stderr_text().ends_with("two\n"),
        "{}",
        logs.stderr_text()
    );
    let list = stdout(&world, "jobs list jobs");
    assert!(
        list.contains(" sequence=1 state=ended exit_code=7 "),
        "{list}"
    );

    let job = detached(&world, "jobs", "exec sleep 1000");
    assert_eq!(
        run(
            &world,
            &format!("jobs wait jobs {job} --timeout-seconds 0.2")
        )
        .code(),
        124
    );
    done(&world, &format!("jobs signal jobs {job} --signal INT"));
    assert_eq!(run(&world, &format!("jobs wait jobs {job}")).code(), 130);

    // Followed to its end, which somebody else brings about.
    let job = detached(&world, "jobs", "echo up; exec sleep 1000");
    let mut follower = world
        .pyro(&words(&format!("jobs logs jobs {job} --follow")))
        .start();
    assert_eq!(follower.wait_for_stdout(), b"up\n");
    done(&world, &format!("jobs end jobs {job}"));
    assert_eq!(follower.finish().code(), 0);

    // Each of the children goes on with the job that its source had.
    let job = detached(&world, "jobs", "exec sleep 1000");
    let ids = stdout(
        &world,
        "fork jobs --count 2 --name child --label n=1 --id-only",
    );
    assert_eq!(ids.lines().count(), 2, "{ids}");
    for child in ["child-1", "child-2"] {
        done(&world, &format!("jobs end {child} {job}"));
    }
    assert_eq!(
        run(&world, &format!("jobs wait jobs {job} --timeout-seconds 0")).code(),
        124
    );
    let offered = world
        .pyro(&["--", "pyro", "workspace", "status", "child"])
        .env("PYRO_COMPLETE", "bash")
        .env("_CLAP_COMPLETE_INDEX", "3")
        .env("_CLAP_IFS", "\n")
        .run();
    assert_eq!(offered.stdout_text(), "child-1\nchild-2");
    let deleted = stdout(&world, "delete --all --label n=1 --yes");
    assert_eq!(deleted.lines().count(), 2, "{deleted}");
    done(&world, "delete jobs");
    traces::assert_none(&world);
}

#[test]
fn an_interrupt_ends_the_command_and_not_the_workspace() {
    let world = world();
    done(&world, "create debian:12 --name i");
    let running = started(
        &world,
        "i",
        "trap 'echo bye; exit 0' INT; echo up; while :; do sleep 0.1; done",
    );
    running.signal("INT");
    let finished = running.finish();
    assert_eq!(finished.code(), 130, "{}", finished.stderr_text());
    assert!(
        finished.stdout_text().ends_with("bye\n"),
        "{}",
        finished.stdout_text()
    );

    // One that does not listen is not waited for when a second signal comes.
    let mut running = started(
        &world,
        "i",
        "trap '' INT TERM; echo up; while :; do echo go >&2; sleep 0.1; done",
    );
    running.signal("INT");
    running.wait_for_stderr("go");
    running.signal("INT");
    let finished = running.finish();
    assert_eq!(finished.code(), 130, "{}", finished.stderr_text());

    // Whoever has enough of the output ends the command.
    let program = format!(
        "{} workspace exec i -q -- yes | head -n 1",
        env!("CARGO_BIN_EXE_pyro")
    );
    let mut pipe = piped(&world, &format!("set -o pipefail; {program}"));
    let mut shown = String::new();
    pipe.stdout
        .take()
        .unwrap()
        .read_to_string(&mut shown)
        .unwrap();
    assert_eq!(shown, "y\n");
    assert_eq!(pipe.wait().unwrap().code(), Some(141));
    // A listing that is not read to its end is no error.
    let program = env!("CARGO_BIN_EXE_pyro");
    for line in ["logs i", "status i", "file read i log"] {
        sh(&world, "i", "seq 1 20000 | tee log");
        let mut pipe = piped(
            &world,
            &format!("set -o pipefail; {program} workspace {line} -q | head -c 1 > /dev/null"),
        );
        assert_eq!(pipe.wait().unwrap().code(), Some(0), "{line}");
    }
    let left = "while pgrep -x yes || pgrep -x sleep; do :; done; echo none";
    assert_eq!(
        sh(&world, "i", left).stdout_text().lines().last(),
        Some("none")
    );
    done(&world, "delete i");
    traces::assert_none(&world);
}

#[test]
fn a_terminal_becomes_that_of_the_command() {
    let world = world();
    done(&world, "create debian:12 --name t");
    let program = env!("CARGO_BIN_EXE_pyro");
    // `script` is the terminal; `-e` hands the code on.
    let on_terminal = |line: &str, input: &str| {
        let line = format!("stty rows 33 cols 101; exec {program} workspace exec t {line}");
        let mut run = shell(&world, "script -qec \"$LINE\" /dev/null")
            .env("LINE", line)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = run.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).unwrap();
        let mut shown = String::new();
        run.stdout
            .take()
            .unwrap()
            .read_to_string(&mut shown)
            .unwrap();
        (run.wait().unwrap().code(), shown)
    };
    let (code, shown) = on_terminal("-t -- sh -c 'test -t 0 && stty size; exit 7'", "");
    assert_eq!(code, Some(7), "{shown}");
    assert!(shown.starts_with("33 101\r\n"), "{shown}");
    let (code, shown) = on_terminal(
        "-qit --env A=b -- sh -c 'read a; echo got $a $A $TERM'",
        "word\n",
    );
    assert_eq!(code, Some(0), "{shown}");
    assert!(
        shown.ends_with("\r\ngot word b xterm-256color\r\n"),
        "{shown}"
    );
    assert_eq!(on_terminal("-qt -- no-such-program", "").0, Some(127));
    assert_eq!(on_terminal("-qt --shell -- 'kill -9 $$'", "").0, Some(137));
    // It stands in the history as any other, and leaves no shell behind.
    let logs = stdout(&world, "logs t");
    assert!(logs.starts_with("#1 exit_code=7 "), "{logs}");
    let refused = run(&world, "exec t -t -- true");
    assert_eq!(refused.code(), 125);
    assert!(
        refused.stderr_text().contains("needs a terminal"),
        "{}",
        refused.stderr_text()
    );
    done(&world, "delete t");
    traces::assert_none(&world);
}

fn piped(world: &World, line: &str) -> std::process::Child {
    shell(world, line).stdin(Stdio::null()).spawn().unwrap()
}

fn shell(world: &World, line: &str) -> Command {
    let mut shell = Command::new("bash");
    shell
        .args(["-c", line])
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .envs(world.variables())
        .stdout(Stdio::piped());
    shell
}

#[test]
fn clients_work_side_by_side() {
    let world = world();
    done(&world, "create debian:12 --name shared");
    let first = started(
        &world,
        "shared",
        "echo up; until test -e go; do sleep 0.05; done; cat go",
    );
    // The second answers what the first waits for.
    done(&world, "file write shared go --text now");
    let first = first.finish();
    assert_eq!((first.code(), first.stdout_text().as_str()), (0, "now"));
    let all: Vec<_> = (0..4)
        .map(|n| {
            world
                .pyro(&words(&format!("exec shared -q -- echo {n}")))
                .deadline(Duration::from_mins(1))
                .start()
        })
        .collect();
    for (n, running) in all.into_iter().enumerate() {
        assert_eq!(running.finish().stdout_text(), format!("{n}\n"));
    }
    // Each has a number of its own.
    let logs = run(&world, "logs shared --json").json();
    let numbers: Vec<u64> = logs["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["sequence"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5]);
    // What nobody names is cleared away, and what somebody uses stays.
    let stray = world.state().join("workspaces/0123456789ab");
    let kept = world.state().join("snapshots/0123456789ab");
    std::fs::create_dir_all(stray.join("disks")).unwrap();
    std::fs::create_dir_all(&kept).unwrap();
    done(&world, "snapshot create shared s");
    let told = world.pyro(&["gc", "--dry-run"]).run().stdout_text();
    assert!(
        told.contains("workspaces/0123456789ab\n") && told.contains("snapshots/0123456789ab\n"),
        "{told}"
    );
    assert!(stray.exists() && kept.exists());
    world.pyro(&["gc"]).run();
    assert!(!stray.exists() && !kept.exists());
    done(&world, "reset shared --snapshot s");
    assert_eq!(stdout(&world, "file read shared go --content-only"), "now");
    done(&world, "delete shared");
    traces::assert_none(&world);
}
