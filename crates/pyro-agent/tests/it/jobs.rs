//! Jobs: started detached, read by cursor, fed, waited for, ended; tokens that run once.

use pyro_protocol::code::ErrorCode;
use pyro_protocol::limits::{JOB_RING_BYTES, MAX_JOBS, STDIN_WINDOW};
use serde_json::{Value, json};

use crate::guest::{Guest, with_guest};
use crate::processes::{eventually, runs};

async fn ask(guest: &Guest, request: Value) -> Value {
    guest.ask_line(&request.to_string()).await
}

/// Starts `command` as a job and gives its id.
async fn start(guest: &Guest, command: &str) -> String {
    let status = ask(
        guest,
        json!({"action": "exec", "command": command, "detach": true, "stdin": true}),
    )
    .await;
    assert_eq!(status["state"], "running", "{status}");
    status["job_id"].as_str().expect("an id").to_owned()
}

async fn wait(guest: &Guest, job_id: &str) -> Value {
    ask(
        guest,
        json!({"action": "job_wait", "job_id": job_id, "deadline_ms": 30_000}),
    )
    .await
}

async fn read(guest: &Guest, job_id: &str, cursor: u64) -> Value {
    let request =
        json!({"action": "job_read", "job_id": job_id, "cursor": cursor, "wait_ms": 30_000});
    ask(guest, request).await
}

#[test]
fn a_job_outlives_the_stream_that_started_it() {
    with_guest(async |guest| {
        let job = start(&guest, "echo early; read word; echo late $word; exit 3").await;
        let first = read(&guest, &job, 0).await;
        assert_eq!(
            (&first["output"], &first["next_cursor"]),
            (&json!("early\n"), &json!(6))
        );
        assert_eq!(first["state"], "running");
        let written = ask(
            &guest,
            json!({"action": "job_write", "job_id": job, "data": "bird\n", "close": true}),
        )
        .await;
        assert_eq!(written["accepted"], 5);
        let status = wait(&guest, &job).await;
        assert_eq!(
            (&status["state"], &status["end"]["exit_code"]),
            (&json!("ended"), &json!(3))
        );
        assert_eq!(status["stdout_bytes"], 16);
        let rest = read(&guest, &job, 6).await;
        assert_eq!(
            (&rest["output"], &rest["truncated"]),
            (&json!("late bird\n"), &json!(false))
        );
        // What has ended can be read again from the start, until it is forgotten.
        assert_eq!(read(&guest, &job, 0).await["output"], "early\nlate bird\n");
        let listed = ask(&guest, json!({"action": "job_list"})).await;
        assert_eq!(listed["jobs"][0]["job_id"], job.as_str());
        let started = listed["jobs"][0]["started_at_ms"].as_u64().unwrap();
        assert!(listed["unix_ms"].as_u64().unwrap() >= started);
        assert_eq!(
            ask(&guest, json!({"action": "job_remove", "job_id": job})).await["ok"],
            true
        );
        assert_eq!(
            wait(&guest, &job).await["code"],
            ErrorCode::NotFound.as_str()
        );
    });
}

#[test]
fn output_beyond_the_ring_says_how_much_is_gone() {
    with_guest(async |guest| {
        let total = JOB_RING_BYTES + 1_000_000;
        let job = start(
            &guest,
            &format!("head -c {total} /dev/zero | tr '\\0' x; echo end >&2"),
        )
        .await;
        let status = wait(&guest, &job).await;
        assert_eq!(status["stdout_bytes"], total);
        let first = read(&guest, &job, 0).await;
        assert_eq!(
            (&first["dropped"], &first["cursor"]),
            (&json!(1_000_000), &json!(1_000_000))
        );
        assert_eq!(first["truncated"], true);
        let request = json!({"action": "job_read", "job_id": job, "stream": "stderr"});
        assert_eq!(ask(&guest, request).await["output"], "end\n");
    });
}

#[test]
fn paging_gives_every_byte_once() {
    with_guest(async |guest| {
        let job = start(&guest, "seq 1 20000").await;
        let (mut cursor, mut text) = (0, String::new());
        loop {
            let request = json!({
                "action": "job_read", "job_id": job, "cursor": cursor, "max_bytes": 1000, "wait_ms": 30_000,
            });
            let page = ask(&guest, request).await;
            text.push_str(page["output"].as_str().unwrap());
            cursor = page["next_cursor"].as_u64().unwrap();
            if page["state"] == "ended" && page["truncated"] == false {
                break;
            }
        }
        let expected: Vec<String> = (1..=20_000).map(|number| format!("{number}\n")).collect();
        assert!(text == expected.concat(), "the pages differ from the whole");
    });
}

#[test]
fn a_wait_that_passes_its_deadline_is_no_error() {
    with_guest(async |guest| {
        let job = start(&guest, "sleep 1000").await;
        let request = json!({"action": "job_wait", "job_id": job, "deadline_ms": 20});
        assert_eq!(ask(&guest, request).await["state"], "running");
        let request = json!({"action": "job_remove", "job_id": job});
        assert_eq!(
            ask(&guest, request).await["code"],
            ErrorCode::FailedPrecondition.as_str()
        );
        let status = ask(&guest, json!({"action": "job_list"})).await;
        let pid = i32::try_from(status["jobs"][0]["pid"].as_i64().unwrap()).unwrap();
        assert!(runs(pid));
        assert_eq!(
            ask(
                &guest,
                json!({"action": "job_signal", "job_id": job, "signal": 15})
            )
            .await["ok"],
            true
        );
        let ended = wait(&guest, &job).await;
        assert_eq!(
            (&ended["end"]["signal"], &ended["end"]["exit_code"]),
            (&json!(15), &json!(143))
        );
        let late = ask(
            &guest,
            json!({"action": "job_signal", "job_id": job, "signal": 15}),
        )
        .await;
        assert_eq!(late["code"], ErrorCode::FailedPrecondition.as_str());
    });
}

#[test]
fn ending_a_job_ends_its_whole_group() {
    with_guest(async |guest| {
        let job = start(
            &guest,
            "trap '' TERM; sleep 1000 & echo $!; while :; do sleep 0.05; done",
        )
        .await;
        let child: i32 = read(&guest, &job, 0).await["output"]
            .as_str()
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        assert!(runs(child));
        assert_eq!(
            ask(&guest, json!({"action": "job_end", "job_id": job})).await["ok"],
            true
        );
        assert_eq!(wait(&guest, &job).await["end"]["signal"], 9);
        eventually("the child is dead", || !runs(child)).await;
    });
}

#[test]
fn a_command_that_cannot_run_is_a_job_that_has_ended() {
    with_guest(async |guest| {
        let request = json!({"action": "exec", "argv": ["no-such-program"], "detach": true});
        let status = ask(&guest, request).await;
        let job = status["job_id"].as_str().expect("an id");
        let ended = wait(&guest, job).await;
        assert_eq!(ended["end"]["exit_code"], 127);
        assert_eq!(ended["end"]["error"]["code"], ErrorCode::NotFound.as_str());
    });
}

#[test]
fn the_same_token_never_runs_twice() {
    with_guest(async |guest| {
        let directory = tempfile::tempdir().unwrap();
        let mark = directory.path().join("mark");
        let command = format!("echo ran >> {}", mark.display());
        let detached = json!({"action": "exec", "command": command, "detach": true, "token": "t1"});
        let first = ask(&guest, detached.clone()).await;
        let again = ask(&guest, detached).await;
        assert_eq!(first["job_id"], again["job_id"]);
        wait(&guest, first["job_id"].as_str().unwrap()).await;
        let collected = json!({"action": "exec", "command": command, "token": "t2"});
        assert_eq!(ask(&guest, collected.clone()).await["exit_code"], 0);
        assert_eq!(
            ask(&guest, collected).await["code"],
            ErrorCode::AlreadyExists.as_str()
        );
        assert_eq!(std::fs::read_to_string(mark).unwrap(), "ran\nran\n");
    });
}

#[test]
fn input_is_taken_only_as_far_as_it_fits() {
    with_guest(async |guest| {
        let job = start(&guest, "read never; exec sleep 1000 < /dev/null").await;
        // What the pipe holds is taken by the command; the rest fills the window.
        let data = "x".repeat(STDIN_WINDOW);
        let write = json!({"action": "job_write", "job_id": job, "data": data});
        let mut refused = None;
        for _ in 0..8 {
            let answer = ask(&guest, write.clone()).await;
            if answer["code"].is_string() {
                refused = Some(answer);
                break;
            }
        }
        let refused = refused.expect("a command that reads nothing fills its window");
        assert_eq!(refused["code"], ErrorCode::LimitExceeded.as_str());
        ask(&guest, json!({"action": "job_end", "job_id": job})).await;
        wait(&guest, &job).await;
    });
}

#[test]
fn jobs_are_bounded_in_number() {
    with_guest(async |guest| {
        for _ in 0..MAX_JOBS + 10 {
            let job = start_quick(&guest).await;
            wait(&guest, &job).await;
        }
        let jobs = ask(&guest, json!({"action": "job_list"})).await;
        assert_eq!(jobs["jobs"].as_array().unwrap().len(), MAX_JOBS);
        // The oldest were forgotten first.
        assert_eq!(
            wait(&guest, "job-1").await["code"],
            ErrorCode::NotFound.as_str()
        );
    });
}

async fn start_quick(guest: &Guest) -> String {
    let status = ask(
        guest,
        json!({"action": "exec", "argv": ["true"], "detach": true}),
    )
    .await;
    status["job_id"].as_str().expect("an id").to_owned()
}

#[test]
fn ids_that_are_none_are_refused() {
    with_guest(async |guest| {
        for job in ["", "job-", "job-99", "../x", "job-18446744073709551616"] {
            assert_eq!(
                wait(&guest, job).await["code"],
                ErrorCode::NotFound.as_str(),
                "{job}"
            );
        }
    });
}

#[test]
fn a_wait_ends_when_its_peer_leaves() {
    with_guest(async |guest| {
        let sleep = json!({"argv": ["sleep", "100"], "detach": true});
        let job = ask(&guest, sleep).await["job_id"].clone();
        let shell = json!({"action": "open_shell", "shell_id": "a", "cwd": "/"});
        assert_eq!(ask(&guest, shell).await["state"], "running");
        for wait in [
            json!({"action": "job_wait", "job_id": job, "deadline_ms": 600_000}),
            json!({"action": "job_read", "job_id": job, "wait_ms": 600_000}),
            json!({"action": "wait_shell", "shell_id": "a", "pattern": "never", "deadline_ms": 600_000}),
        ] {
            // Ends its direction and still listens.
            let reply = guest.ask(format!("{wait}\n").as_bytes()).await;
            let reply: Value = serde_json::from_slice(&reply).expect("JSON");
            assert_eq!(reply["code"], "cancelled", "{wait}: {reply}");
        }
        assert_eq!(
            ask(&guest, json!({"action": "job_end", "job_id": job})).await["ok"],
            true
        );
    });
}
