//! Shells as the original's hosts drive them: the five legacy actions, their fields and
//! their errors.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::guest::{Guest, with_guest};

/// Fields that every reply about a shell has.
const SUMMARY: [&str; 8] = [
    "shell_id",
    "cwd",
    "cols",
    "rows",
    "state",
    "started_at",
    "ended_at",
    "exit_code",
];

impl Guest {
    /// Sends `action` about the shell `id` with the fields of `more`.
    pub(crate) async fn shell(&self, action: &str, id: &str, more: Value) -> Value {
        let mut request = more;
        request["action"] = action.into();
        request["shell_id"] = id.into();
        self.ask_line(&request.to_string()).await
    }

    /// Opens a shell in `/` and waits for its prompt.
    pub(crate) async fn open_shell(&self, id: &str, more: Value) -> Value {
        let mut more = more;
        if more.get("cwd").is_none() {
            more["cwd"] = "/".into();
        }
        // No colours and no bracketed paste in what the tests compare.
        if more.get("env").is_none() {
            more["env"] = json!({"TERM": "dumb"});
        }
        let opened = self.shell("open_shell", id, more).await;
        assert_eq!(opened["state"], "running", "{opened}");
        self.wait_for(id, 0, r"\$ $").await;
        opened
    }

    /// Waits for a match of `pattern` from `cursor` on; the position behind it.
    pub(crate) async fn wait_for(&self, id: &str, cursor: u64, pattern: &str) -> u64 {
        let order = json!({"cursor": cursor, "pattern": pattern, "deadline_ms": 20_000});
        let waited = self.shell("wait_shell", id, order).await;
        assert_eq!(waited["reason"], "matched", "`{pattern}`: {waited}");
        waited["match"][1].as_u64().expect("a match has two ends")
    }

    /// Types a line and waits for a match in what follows; the text from there on.
    pub(crate) async fn enter(&self, id: &str, line: &str, pattern: &str) -> String {
        let cursor = self.shell_end(id).await;
        let written = self.shell("write_shell", id, json!({"input": line})).await;
        assert_eq!(written["input_length"], line.chars().count(), "{written}");
        self.wait_for(id, cursor, pattern).await;
        text_from(self, id, cursor).await
    }

    /// Position behind the output so far.
    pub(crate) async fn shell_end(&self, id: &str) -> u64 {
        let order = json!({"cursor": u32::MAX});
        let read = self.shell("read_shell", id, order).await;
        read["next_cursor"].as_u64().expect("a cursor is a number")
    }

    /// Waits until the shell has ended.
    pub(crate) async fn wait_exit(&self, id: &str) -> Value {
        let waited = self
            .shell("wait_shell", id, json!({"deadline_ms": 20_000}))
            .await;
        assert_eq!(waited["reason"], "exited", "{waited}");
        waited
    }
}

/// Output from `cursor` on.
pub(crate) async fn text_from(guest: &Guest, id: &str, cursor: u64) -> String {
    let read = guest
        .shell("read_shell", id, json!({"cursor": cursor}))
        .await;
    read["output"].as_str().expect("output is text").into()
}

fn assert_fields(reply: &Value, more: &[&str]) {
    let mut expected: Vec<&str> = SUMMARY.iter().chain(more).copied().collect();
    expected.sort_unstable();
    let object = reply.as_object().expect("a reply is an object");
    let mut found: Vec<&str> = object.keys().map(String::as_str).collect();
    found.sort_unstable();
    assert_eq!(found, expected);
}

#[test]
fn the_five_actions_have_the_fields_of_the_original() {
    with_guest(async |guest: Guest| {
        let opened = guest
            .open_shell("0123456789ab", json!({"cwd": "/tmp"}))
            .await;
        assert_fields(&opened, &[]);
        assert_eq!(opened["cwd"], "/tmp");
        assert_eq!(
            (&opened["cols"], &opened["rows"]),
            (&json!(120), &json!(30))
        );
        assert!(opened["started_at"].as_f64().expect("a time") > 1e9);
        assert_eq!(
            (&opened["ended_at"], &opened["exit_code"]),
            (&json!(null), &json!(null))
        );

        let written = guest
            .shell(
                "write_shell",
                "0123456789ab",
                json!({"input": "pwd; echo é"}),
            )
            .await;
        assert_fields(&written, &["input_length", "append_newline"]);
        assert_eq!(
            (&written["input_length"], &written["append_newline"]),
            (&json!(11), &json!(true))
        );

        guest
            .wait_for("0123456789ab", 0, r"\r\n/tmp\r\né\r\npyro\$ $")
            .await;
        let read = guest.shell("read_shell", "0123456789ab", json!({})).await;
        assert_fields(
            &read,
            &["cursor", "next_cursor", "output", "truncated", "dropped"],
        );
        assert_eq!(read["output"], "pyro$ pwd; echo é\r\n/tmp\r\né\r\npyro$ ");
        assert_eq!(
            (&read["cursor"], &read["truncated"]),
            (&json!(0), &json!(false))
        );

        let signalled = guest
            .shell("signal_shell", "0123456789ab", json!({"signal": "int"}))
            .await;
        assert_fields(&signalled, &["signal"]);
        assert_eq!(signalled["signal"], "INT");

        let closed = guest.shell("close_shell", "0123456789ab", json!({})).await;
        assert_fields(&closed, &["closed"]);
        assert_eq!(
            (&closed["closed"], &closed["state"]),
            (&json!(true), &json!("stopped"))
        );
        assert!(closed["ended_at"].as_f64() >= closed["started_at"].as_f64());
        let gone = guest.shell("read_shell", "0123456789ab", json!({})).await;
        assert_eq!(gone["code"], "not_found", "{gone}");
    });
}

#[test]
fn errors_are_told() {
    with_guest(async |guest: Guest| {
        guest.open_shell("a", json!({})).await;
        for (action, id, more, code) in [
            ("open_shell", "a", json!({"cwd": "/"}), "already_exists"),
            (
                "open_shell",
                "../a",
                json!({"cwd": "/"}),
                "invalid_argument",
            ),
            ("open_shell", "b", json!({"cwd": "/no/such"}), "not_found"),
            (
                "open_shell",
                "b",
                json!({"cwd": "/etc/passwd"}),
                "not_found",
            ),
            (
                "open_shell",
                "b",
                json!({"cwd": "/", "rows": 0}),
                "invalid_argument",
            ),
            (
                "open_shell",
                "b",
                json!({"cwd": "/", "env": {"A-B": ""}}),
                "invalid_argument",
            ),
            (
                "open_shell",
                "b",
                json!({"cwd": "/", "redact_values": [1]}),
                "invalid_argument",
            ),
            ("read_shell", "nobody", json!({}), "not_found"),
            ("write_shell", "nobody", json!({}), "not_found"),
            ("signal_shell", "nobody", json!({}), "not_found"),
            ("close_shell", "nobody", json!({}), "not_found"),
            (
                "resize_shell",
                "nobody",
                json!({"cols": 1, "rows": 1}),
                "not_found",
            ),
            (
                "wait_shell",
                "nobody",
                json!({"deadline_ms": 1}),
                "not_found",
            ),
            ("attach_shell", "nobody", json!({}), "not_found"),
            (
                "signal_shell",
                "a",
                json!({"signal": "STOP"}),
                "invalid_argument",
            ),
            (
                "wait_shell",
                "a",
                json!({"deadline_ms": 1, "pattern": "("}),
                "invalid_argument",
            ),
            (
                "wait_shell",
                "a",
                json!({"deadline_ms": 1, "pattern": "((a{100}){100}){100}"}),
                "invalid_argument",
            ),
        ] {
            let reply = guest.shell(action, id, more.clone()).await;
            assert_eq!(reply["code"], code, "{action} {more}: {reply}");
            assert!(reply["error"].is_string());
        }
        guest.enter("a", "exit 7", "exit\r\n").await;
        let ended = guest.wait_exit("a").await;
        assert_eq!(
            (&ended["state"], &ended["exit_code"]),
            (&json!("stopped"), &json!(7))
        );
        for (action, more) in [
            ("write_shell", json!({"input": "x"})),
            ("signal_shell", json!({})),
            ("resize_shell", json!({"cols": 1, "rows": 1})),
        ] {
            let reply = guest.shell(action, "a", more).await;
            assert_eq!(reply["code"], "failed_precondition", "{action}: {reply}");
        }
        // The end is kept until the shell is closed.
        let listed = guest.ask_line(r#"{"action": "list_shells"}"#).await;
        assert_eq!(listed["shells"][0]["exit_code"], 7, "{listed}");
        assert_eq!(
            guest.shell("close_shell", "a", json!({})).await["exit_code"],
            7
        );
        guest.assert_serves().await;
    });
}

#[test]
fn a_cursor_pages_through_characters() {
    with_guest(async |guest: Guest| {
        guest.open_shell("a", json!({})).await;
        guest
            .enter("a", "printf 'a%.0s€é' 1 2 3", r"é[^']*é[^']*épyro")
            .await;
        let whole = guest.shell("read_shell", "a", json!({})).await;
        let (mut cursor, mut text, mut pages) = (json!(0), String::new(), 0);
        loop {
            let order = json!({"cursor": cursor, "max_chars": 5});
            let page = guest.shell("read_shell", "a", order).await;
            let output = page["output"].as_str().expect("text");
            assert!(output.chars().count() <= 5);
            assert_eq!(page["cursor"], cursor);
            text.push_str(output);
            cursor = page["next_cursor"].clone();
            pages += 1;
            if page["truncated"] == false {
                break;
            }
        }
        assert!(pages > 5);
        assert_eq!(text, whole["output"].as_str().expect("text"));
        assert_eq!(cursor, whole["next_cursor"]);
        // Beyond the end and before the beginning are brought into what is there.
        let beyond = guest
            .shell("read_shell", "a", json!({"cursor": 1_000_000}))
            .await;
        assert_eq!(
            (&beyond["cursor"], &beyond["output"]),
            (&cursor, &json!(""))
        );
        let before = guest.shell("read_shell", "a", json!({"cursor": -5})).await;
        assert_eq!(before["output"], whole["output"]);
    });
}

#[test]
fn old_output_is_dropped_and_counted() {
    with_guest(async |guest: Guest| {
        guest.open_shell("a", json!({})).await;
        guest
            .enter("a", "seq 300000; echo done-$((1+1))", "done-2")
            .await;
        guest.wait_for("a", 0, r"done-2\r\npyro\$ $").await;
        let read = guest
            .shell("read_shell", "a", json!({"max_chars": 2_000_000}))
            .await;
        let dropped = read["dropped"].as_u64().expect("a count");
        assert!(dropped > 0);
        assert_eq!(read["cursor"], dropped);
        let output = read["output"].as_str().expect("text");
        assert_eq!(output.len(), 1024 * 1024);
        assert!(output.ends_with("299999\r\n300000\r\ndone-2\r\npyro$ "));
    });
}

#[test]
fn sixty_four_shells_and_no_more() {
    with_guest(async |guest: Guest| {
        for number in 0..64 {
            let reply = guest
                .shell("open_shell", &format!("s{number}"), json!({"cwd": "/"}))
                .await;
            assert_eq!(reply["state"], "running", "{reply}");
        }
        let refused = guest.shell("open_shell", "more", json!({"cwd": "/"})).await;
        assert_eq!(refused["code"], "limit_exceeded");
        for number in 0..64 {
            let id = format!("s{number}");
            guest
                .shell(
                    "write_shell",
                    &id,
                    json!({"input": format!("echo n$((1000+{number}))")}),
                )
                .await;
        }
        for number in 0..64 {
            guest
                .wait_for(&format!("s{number}"), 0, &format!("n{}", 1000 + number))
                .await;
        }
        let listed = guest.ask_line(r#"{"action": "list_shells"}"#).await;
        assert_eq!(listed["shells"].as_array().expect("a list").len(), 64);
        guest.shell("close_shell", "s7", json!({})).await;
        guest.open_shell("more", json!({})).await;
    });
}

#[test]
fn nothing_is_left_of_a_hundred_shells() {
    with_guest(async |guest: Guest| {
        let descriptors = || std::fs::read_dir("/proc/self/fd").expect("proc").count();
        guest.open_shell("first", json!({})).await;
        guest.shell("close_shell", "first", json!({})).await;
        let before = descriptors();
        for round in 0..100 {
            let opened = guest.shell("open_shell", "a", json!({"cwd": "/"})).await;
            assert_eq!(opened["state"], "running", "{opened}");
            if round % 4 == 0 {
                guest.enter("a", "exit 3", "exit").await;
                assert_eq!(guest.wait_exit("a").await["exit_code"], 3);
            }
            let closed = guest.shell("close_shell", "a", json!({})).await;
            assert_eq!(closed["state"], "stopped");
        }
        assert_eq!(descriptors(), before);
        let deadline = Instant::now() + Duration::from_secs(5);
        while children() > 0 {
            assert!(Instant::now() < deadline, "children are left");
            sleep(Duration::from_millis(20)).await;
        }
    });
}

/// Children of this process, the dead ones included.
fn children() -> usize {
    std::fs::read_to_string("/proc/thread-self/children")
        .expect("the kernel tells the children")
        .split_whitespace()
        .count()
}
