//! Output in the streaming form: every byte, in order, apart.

use std::io::Read;

use pyro_protocol::exec::ExecRequest;
use pyro_protocol::frame::Kind;

use crate::guest::{script, with_guest};

/// Lines of `mark` and a number, counted from zero.
fn numbered(mark: &str, count: usize) -> String {
    let lines: Vec<String> = (0..count)
        .map(|number| format!("{mark}{number}\n"))
        .collect();
    lines.concat()
}

#[test]
fn a_hundred_megabytes_arrive_as_they_were_written() {
    let directory = tempfile::tempdir().expect("a directory");
    let copy = directory.path().join("copy");
    with_guest(async |guest| {
        let outcome = guest
            .run(script(&format!(
                "head -c 100000000 /dev/urandom | tee {}",
                copy.display()
            )))
            .await;
        assert_eq!(outcome.end.exit_code, 0);
        assert_eq!(outcome.stdout.len(), 100_000_000);
        let mut file = std::fs::File::open(&copy).expect("the copy is there");
        let mut chunk = vec![0; 1024 * 1024];
        let mut rest = &outcome.stdout[..];
        loop {
            let count = file.read(&mut chunk).expect("the copy is readable");
            if count == 0 {
                break;
            }
            assert!(rest.starts_with(&chunk[..count]), "the bytes differ");
            rest = &rest[count..];
        }
        assert!(rest.is_empty());
    });
}

#[test]
fn a_long_line_arrives_whole() {
    with_guest(async |guest| {
        let outcome = guest
            .run(script("head -c 10000000 /dev/zero | tr '\\0' a; echo"))
            .await;
        let (newline, line) = outcome.stdout.split_last().expect("output");
        assert_eq!(*newline, b'\n');
        assert_eq!(line.len(), 10_000_000);
        assert!(line.iter().all(|byte| *byte == b'a'));
    });
}

#[test]
fn many_lines_arrive_in_order() {
    with_guest(async |guest| {
        // One write per line.
        let outcome = guest
            .run(script(
                "i=0; while [ $i -lt 10000 ]; do echo $i; i=$((i+1)); done",
            ))
            .await;
        assert_eq!(outcome.text(), numbered("", 10_000));
    });
}

#[test]
fn bytes_that_are_no_text_stay_what_they_are() {
    with_guest(async |guest| {
        let outcome = guest
            .run(script(r"printf '\000\001\377\376\n\r\000'"))
            .await;
        assert_eq!(outcome.stdout, b"\0\x01\xff\xfe\n\r\0");
    });
}

#[test]
fn the_two_outputs_stay_apart() {
    with_guest(async |guest| {
        let outcome = guest
            .run(script(
                "i=0; while [ $i -lt 1000 ]; do echo o$i; echo e$i >&2; i=$((i+1)); done",
            ))
            .await;
        assert_eq!(outcome.text(), numbered("o", 1000));
        assert_eq!(outcome.stderr, numbered("e", 1000).into_bytes());
    });
}

#[test]
fn both_outputs_may_be_large_at_once() {
    with_guest(async |guest| {
        let outcome = guest
            .run(script(
                "head -c 5000000 /dev/zero >&2 & head -c 5000000 /dev/zero; wait",
            ))
            .await;
        assert_eq!(outcome.stdout.len(), 5_000_000);
        assert_eq!(outcome.stderr.len(), 5_000_000);
    });
}

#[test]
fn no_output_is_no_frame() {
    with_guest(async |guest| {
        let mut running = guest.start(script("exit 0")).await;
        let frame = running.next().await.expect("an end");
        assert_eq!(frame.kind, Kind::End);
        let end: serde_json::Value = serde_json::from_slice(&frame.payload).expect("JSON");
        let fields: Vec<_> = end.as_object().expect("an object").keys().collect();
        assert_eq!(
            fields,
            ["duration_ms", "exit_code", "output_left_open", "timed_out"]
        );
        assert_eq!(running.next().await, None);
    });
}

#[test]
fn output_comes_while_the_command_runs() {
    with_guest(async |guest| {
        let request = ExecRequest {
            stdin: true,
            ..script("echo first; read line; echo $line")
        };
        let mut running = guest.start(request).await;
        assert_eq!(running.next_text().await, "first\n");
        running.send(Kind::Stdin, b"second\n").await;
        assert_eq!(running.finish().await.text(), "second\n");
    });
}

#[test]
fn a_command_that_closes_its_outputs_runs_on() {
    with_guest(async |guest| {
        let outcome = guest
            .run(script("exec >/dev/null 2>&1; sleep 0.3; exit 7"))
            .await;
        assert_eq!(outcome.end.exit_code, 7);
        assert!(outcome.end.duration_ms >= 300);
        assert!(!outcome.end.output_left_open);
    });
}
