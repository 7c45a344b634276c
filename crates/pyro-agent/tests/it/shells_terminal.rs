//! Shells have a true terminal: control characters, job control, sizes, and an end that
//! takes everything along.

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::guest::{Guest, with_guest};

#[test]
fn it_is_a_terminal() {
    with_guest(async |guest: Guest| {
        guest.open_shell("a", json!({})).await;
        let text = guest
            .enter(
                "a",
                "test -t 0 && test -t 1 && test -t 2 && echo is-$((40+2))",
                "is-42",
            )
            .await;
        assert!(text.contains("is-42\r\n"), "{text}");
        guest
            .enter("a", "echo > /dev/tty && echo ctty-$((40+2))", "ctty-42")
            .await;
        guest
            .enter(
                "a",
                "echo [$PS1][$PROMPT_COMMAND][$TERM][$-]",
                r"\[pyro\$ \]\[\]\[dumb\]\[[a-zA-Z]*i",
            )
            .await;
    });
}

#[test]
fn control_c_interrupts_what_runs() {
    with_guest(async |guest: Guest| {
        guest.open_shell("a", json!({})).await;
        for way in 0..3 {
            let cursor = guest.shell_end("a").await;
            guest
                .shell(
                    "write_shell",
                    "a",
                    json!({"input": "sh -c 'echo run\"\"ning; exec sleep 1000'; echo code-$?"}),
                )
                .await;
            // Between fork and the terminal's change of hands a Ctrl-C reaches bash alone.
            guest.wait_for("a", cursor, r"running\r\n").await;
            if way == 0 {
                let byte = json!({"input": "\u{3}", "append_newline": false});
                guest.shell("write_shell", "a", byte).await;
                guest.wait_for("a", cursor, r"\^C\r\npyro\$ $").await;
            } else if way == 1 {
                guest.shell("signal_shell", "a", json!({})).await;
                guest.wait_for("a", cursor, r"\r\n.*pyro\$ $").await;
            } else {
                guest
                    .shell("signal_shell", "a", json!({"signal": "TERM"}))
                    .await;
                guest.wait_for("a", cursor, "code-143").await;
            }
        }
        guest.enter("a", "echo al''ive", "alive").await;
    });
}

#[test]
fn jobs_can_be_controlled() {
    with_guest(async |guest: Guest| {
        guest.open_shell("a", json!({})).await;
        guest
            .enter("a", "sleep 1000 &", r"\[1\] \d+\r\npyro\$ $")
            .await;
        guest
            .enter("a", "jobs", r"\[1\]\+? +Running +sleep 1000 &")
            .await;
        let cursor = guest.shell_end("a").await;
        guest
            .shell("write_shell", "a", json!({"input": "sleep 999"}))
            .await;
        guest.wait_for("a", cursor, r"999\r\n").await;
        sleep(Duration::from_millis(150)).await;
        let stop = json!({"input": "\u{1a}", "append_newline": false});
        guest.shell("write_shell", "a", stop).await;
        guest
            .wait_for("a", cursor, r"Stopped +sleep 999\r\npyro\$ $")
            .await;
        guest
            .enter("a", "bg; kill %2 %1; wait; echo over-$((1+1))", "over-2")
            .await;
    });
}

#[test]
fn the_size_follows() {
    with_guest(async |guest: Guest| {
        guest.open_shell("a", json!({"cols": 91, "rows": 17})).await;
        guest.enter("a", "stty size", r"\n17 91\r").await;
        let resized = guest
            .shell("resize_shell", "a", json!({"cols": 133, "rows": 41}))
            .await;
        assert_eq!(
            (&resized["cols"], &resized["rows"]),
            (&json!(133), &json!(41))
        );
        guest.enter("a", "stty size", r"\n41 133\r").await;
        guest
            .enter("a", "trap 'echo winch-$((1+1))' WINCH", "pyro")
            .await;
        let cursor = guest.shell_end("a").await;
        guest
            .shell("resize_shell", "a", json!({"cols": 80, "rows": 24}))
            .await;
        guest.shell("write_shell", "a", json!({})).await;
        guest.wait_for("a", cursor, "winch-2").await;
    });
}

#[test]
fn the_exit_status_is_exact() {
    with_guest(async |guest: Guest| {
        for (line, code) in [
            ("exit 7", 7),
            ("kill -9 $$", -9),
            ("exec sh -c 'exit 200'", 200),
        ] {
            guest.open_shell("a", json!({})).await;
            guest
                .shell("write_shell", "a", json!({"input": line}))
                .await;
            let ended = guest.wait_exit("a").await;
            assert_eq!(ended["exit_code"], code, "{ended}");
            let text = ended["output"].as_str().expect("text");
            assert!(text.contains(line), "{text}");
            guest.shell("close_shell", "a", json!({})).await;
        }
    });
}

#[test]
fn the_last_output_before_the_end_is_whole() {
    with_guest(async |guest: Guest| {
        for _ in 0..10 {
            guest.open_shell("a", json!({})).await;
            guest
                .shell("write_shell", "a", json!({"input": "exec seq 20000"}))
                .await;
            let ended = guest.wait_exit("a").await;
            let order = json!({"max_chars": 1_000_000});
            let read = guest.shell("read_shell", "a", order).await;
            let text = read["output"].as_str().expect("text");
            assert!(
                text.ends_with("19999\r\n20000\r\n"),
                "{}",
                ended["exit_code"]
            );
            guest.shell("close_shell", "a", json!({})).await;
        }
    });
}

#[test]
fn closing_takes_the_whole_tree() {
    with_guest(async |guest: Guest| {
        guest.open_shell("a", json!({})).await;
        guest
            .enter("a", "nohup sleep 1001 >/dev/null 2>&1 &", r"\d+\r\npyro")
            .await;
        guest
            .enter("a", "(trap '' HUP; sleep 1002; true) &", r"\d+\r\npyro")
            .await;
        guest
            .enter("a", "sleep 1003 & kill -STOP $!", r"\d+\r\n.*pyro")
            .await;
        let text = guest
            .enter("a", "echo [$(jobs -p | tr '\\n' ' ')]", r"\n\[[\d ]+\]")
            .await;
        let list = text
            .split_once("\n[")
            .and_then(|(_, rest)| rest.split_once(']'));
        let (pids, _) = list.expect("the list is there");
        let pids: Vec<&str> = pids.split_whitespace().collect();
        assert_eq!(pids.len(), 3, "{text}");
        let began = Instant::now();
        guest.shell("close_shell", "a", json!({})).await;
        assert!(began.elapsed() < Duration::from_secs(3));
        let gone = Instant::now() + Duration::from_secs(3);
        for pid in pids {
            while is_alive(pid) {
                assert!(Instant::now() < gone, "{pid} is left");
                sleep(Duration::from_millis(10)).await;
            }
        }
    });
}

#[test]
fn a_shell_that_ignores_the_hang_up_is_killed() {
    with_guest(async |guest: Guest| {
        guest.open_shell("a", json!({})).await;
        guest
            .enter("a", "trap '' HUP TERM INT; echo set-$((1+1))", "set-2")
            .await;
        let began = Instant::now();
        // Closing holds up nobody else.
        let close = guest.shell("close_shell", "a", json!({}));
        let (closed, ()) = tokio::join!(close, guest.assert_serves());
        assert_eq!(closed["exit_code"], -9, "{closed}");
        assert!(began.elapsed() >= Duration::from_secs(5));
    });
}

#[test]
fn input_that_nobody_reads_is_refused_and_never_hangs() {
    with_guest(async |guest: Guest| {
        guest.open_shell("a", json!({})).await;
        guest
            .enter("a", "stty raw -echo; echo raw; exec sleep 1000", "raw")
            .await;
        let piece = json!({"input": "x".repeat(100_000), "append_newline": false});
        let mut refused = None;
        for count in 0..12 {
            let reply = guest.shell("write_shell", "a", piece.clone()).await;
            if reply["code"] == "limit_exceeded" {
                refused = Some(count);
                break;
            }
        }
        assert!(refused.is_some_and(|count| count >= 2), "{refused:?}");
        let end = guest.shell_end("a").await;
        guest
            .shell("signal_shell", "a", json!({"signal": "KILL"}))
            .await;
        assert_eq!(guest.wait_exit("a").await["exit_code"], -9);
        assert_eq!(guest.shell_end("a").await, end);
    });
}

#[test]
fn much_input_arrives_whole() {
    with_guest(async |guest: Guest| {
        guest.open_shell("a", json!({})).await;
        guest
            .enter(
                "a",
                "stty raw -echo; echo ready; head -c 200000 | md5sum; stty sane",
                "ready",
            )
            .await;
        sleep(Duration::from_millis(100)).await;
        let text: String = (0..200_000_u32)
            .map(|n| char::from(b'a' + (n % 23) as u8))
            .collect();
        let cursor = guest.shell_end("a").await;
        guest
            .shell(
                "write_shell",
                "a",
                json!({"input": text, "append_newline": false}),
            )
            .await;
        guest.wait_for("a", cursor, r"[0-9a-f]{32}  -").await;
    });
}

fn is_alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid).join("stat"));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}
