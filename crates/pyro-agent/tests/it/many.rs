//! Many streams: at once, and one after the other.

use std::time::Duration;

use pyro_protocol::exec::ExecRequest;
use pyro_protocol::frame::Kind;
use pyro_protocol::limits::MAX_BUDGET;
use rustix::process::{getpid, set_child_subreaper};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use crate::guest::{script, with_guest};
use crate::processes::{descriptors, eventually, runs, zombies};
use crate::soak::link;

#[test]
fn one_hung_stream_holds_no_other() {
    with_guest(async |guest| {
        let hung = guest.start(script("cat /dev/zero")).await;
        let mut others = Vec::new();
        for number in 0..63 {
            let command = format!("sleep 0.$(({number} % 7)); echo {number}; exit {number}");
            others.push(guest.start(script(&command)).await);
        }
        for (number, other) in (0..).zip(others) {
            let outcome = other.finish().await;
            assert_eq!(outcome.text(), format!("{number}\n"));
            assert_eq!(outcome.end.exit_code, number);
        }
        assert!(runs(hung.pid));
        let pid = hung.pid;
        drop(hung);
        eventually("the hung one is dead", || !runs(pid)).await;
        eventually("all are reaped", || zombies() == 0).await;
    });
}

#[test]
fn collected_output_of_many_commands_shares_one_budget() {
    with_guest(async |guest| {
        let place = tempfile::tempdir().expect("a directory");
        let mut running = Vec::new();
        for number in 0..64 {
            let guest = guest.again();
            // None ends before all have written, so that all copies live at the same time.
            let command = format!(
                "cd {}; echo {number}; yes | head -c 8000000; touch {number}; \
                 until test -e go; do sleep 0.1; done; echo end",
                place.path().display()
            );
            running.push(tokio::task::spawn_local(async move {
                guest.collect(&script(&command)).await
            }));
        }
        eventually("all have written", || {
            std::fs::read_dir(place.path())
                .expect("it is there")
                .count()
                == 64
        })
        .await;
        std::fs::write(place.path().join("go"), "").expect("it is ours");
        let mut kept = 0;
        for (number, reply) in running.into_iter().enumerate() {
            let reply = reply.await.expect("the peer goes on");
            assert!(reply.truncated, "{number}");
            assert!(reply.stdout.starts_with(&format!("{number}\n")));
            assert!(reply.stdout.ends_with("\ny\nend\n"), "{number}");
            kept += reply.stdout.len();
        }
        // Each alone would keep 4 MiB. The copies are counted twice; every command has its
        // last words besides.
        assert!(kept < MAX_BUDGET / 2 + 64 * 5000, "{kept} bytes");
    });
}

#[test]
fn long_requests_of_many_peers_share_one_budget() {
    with_guest(async |guest| {
        let mut long = Vec::new();
        for _ in 0..100 {
            let mut peer = guest.connect();
            peer.write_all(&vec![b' '; 100_000]).await.expect("read");
            long.push(peer);
        }
        guest.assert_serves().await;
        let mut refused = 0;
        for mut peer in long {
            let _ = peer.shutdown().await;
            let mut reply = String::new();
            peer.read_to_string(&mut reply).await.expect("text");
            refused += usize::from(reply.contains("limit_exceeded"));
        }
        assert!(refused > 50, "{refused}");
        let text = "x".repeat(1_000_000);
        let reply = guest
            .ask_line(&format!(r#"{{"action": "ping", "text": "{text}"}}"#))
            .await;
        assert_eq!(reply["ok"], true, "what was held is free again");
    });
}

#[test]
fn three_hundred_streams_at_once_hold_nobody_up() {
    with_guest(async |guest| {
        let opener = link(guest.agent.clone());
        let mut hung = Vec::new();
        for number in 0..300 {
            let mut stream = opener.open().await.expect("the link has room");
            let said: &[u8] = match number % 6 {
                0 => b"",
                1 => b"{\"action\": \"hel",
                2 => b"{\"argv\": [\"/bin/sleep\", \"100\"]}\n",
                3 => b"{\"argv\": [\"/bin/cat\", \"/dev/zero\"], \"stream\": true}\n",
                4 => b"{\"argv\": [\"/bin/cat\"], \"stream\": true, \"stdin\": true}\n",
                _ => b"{\"action\": \"ping\", \"reply_bytes\": 100000000}\n",
            };
            stream.write_all(said).await.expect("the agent reads");
            hung.push(stream);
        }
        let mut one = opener.open().await.expect("the link has room");
        one.write_all(b"{\"argv\": [\"/bin/echo\", \"served\"]}\n")
            .await
            .expect("the agent reads");
        let mut reply = String::new();
        one.read_to_string(&mut reply).await.expect("text");
        assert!(reply.contains("served"), "{reply}");
        drop(hung);
        eventually("all are reaped", || zombies() == 0).await;
        guest.assert_serves().await;
    });
}

#[test]
fn commands_run_at_the_same_time() {
    with_guest(async |guest| {
        let begin = Instant::now();
        let mut running = Vec::new();
        for _ in 0..16 {
            running.push(guest.start(script("sleep 1")).await);
        }
        for command in running {
            assert_eq!(command.finish().await.end.exit_code, 0);
        }
        assert!(begin.elapsed() < Duration::from_secs(8));
    });
}

#[test]
fn five_hundred_commands_leave_nothing_behind() {
    with_guest(async |guest| {
        guest.assert_serves().await;
        let before = descriptors();
        for round in 0..100 {
            assert_eq!(guest.run(script("exit 0")).await.end.exit_code, 0);
            assert_eq!(guest.collect(&script("exit 1")).await.exit_code, 1);
            let missing = ExecRequest::argv(&[b"/no/such/program".into()]);
            assert_eq!(guest.run(missing).await.end.exit_code, 127);
            let mut fed = guest
                .start(ExecRequest {
                    stdin: true,
                    ..script("exec cat")
                })
                .await;
            fed.send(Kind::StdinEnd, b"").await;
            assert_eq!(fed.finish().await.end.exit_code, 0);
            let left = guest.start(script("exec sleep 100")).await;
            assert!(left.pid > 0, "round {round}");
            drop(left);
        }
        eventually("all are reaped", || zombies() == 0).await;
        eventually("all descriptors are closed", || descriptors() <= before).await;
    });
}

#[test]
fn orphans_are_reaped_as_by_a_first_process() {
    set_child_subreaper(Some(getpid())).expect("any process may");
    with_guest(async |guest| {
        let outcome = guest
            .run(script("(sleep 0.3 & echo $!; sleep 0.2 & echo $!) & wait"))
            .await;
        assert_eq!(outcome.end.exit_code, 0);
        let pids: Vec<i32> = outcome
            .text()
            .lines()
            .map(|pid| pid.parse().expect("a pid"))
            .collect();
        assert_eq!(pids.len(), 2);
        eventually("the orphans are gone", || {
            !pids.iter().any(|pid| runs(*pid))
        })
        .await;
        eventually("they are reaped", || zombies() == 0).await;
        guest.assert_serves().await;
    });
}
