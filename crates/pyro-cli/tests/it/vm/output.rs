//! Output is byte-exact, live, with stdout and stderr apart.

use std::time::Duration;

use super::world;

/// Bytes of the large outputs.
const LARGE: usize = 100_000_000;

/// A stream without repetition that both sides can make: the numbers from 1, a line each.
pub(super) fn numbers(bytes: usize) -> Vec<u8> {
    let mut expected = Vec::with_capacity(bytes + 16);
    for number in 1u64.. {
        expected.extend_from_slice(number.to_string().as_bytes());
        expected.push(b'\n');
        if expected.len() >= bytes {
            break;
        }
    }
    expected.truncate(bytes);
    expected
}

#[test]
fn a_hundred_megabytes_come_byte_exact() {
    let command = format!("seq 1 100000000 | head -c {LARGE}");
    let finished = world()
        .run(&["--timeout-seconds", "200", "--shell"], &[&command])
        .deadline(Duration::from_secs(220))
        .run();
    assert_eq!(finished.code(), 0, "{}", finished.stderr_text());
    assert_eq!(finished.stdout.len(), LARGE);
    assert!(finished.stdout == numbers(LARGE), "the bytes differ");
}

#[test]
fn binary_output_is_not_touched() {
    // Every byte value, in and out.
    let bytes: Vec<u8> = (0..=255).cycle().take(1_000_000).collect();
    let finished = world().run(&["-i"], &["cat"]).stdin(bytes.clone()).run();
    assert_eq!(finished.code(), 0, "{}", finished.stderr_text());
    assert!(finished.stdout == bytes, "the bytes differ");
}

#[test]
fn one_line_of_ten_megabytes() {
    let finished = world()
        .run(&["--shell"], &["head -c 10000000 /dev/zero | tr '\\0' x"])
        .run();
    assert_eq!(finished.code(), 0, "{}", finished.stderr_text());
    assert_eq!(finished.stdout.len(), 10_000_000);
    assert!(finished.stdout.iter().all(|byte| *byte == b'x'));
}

#[test]
fn ten_thousand_lines_on_each_stream() {
    let command = "i=0; while [ $i -lt 10000 ]; do i=$((i+1)); echo out $i; echo err $i >&2; done";
    let finished = world().run(&["--quiet", "--shell"], &[command]).run();
    let expect = |name: &str| {
        let lines: Vec<String> = (1..=10_000)
            .map(|i| {
                format!(
                    "{name} {i}
"
                )
            })
            .collect();
        lines.concat()
    };
    assert_eq!(finished.code(), 0);
    assert!(finished.stdout_text() == expect("out"));
    assert!(finished.stderr_text() == expect("err"));
}

#[test]
fn output_comes_while_the_command_runs() {
    let mut running = world()
        .run(&["--shell"], &["echo early; exec sleep 60"])
        .start();
    assert_eq!(running.wait_for_stdout(), b"early\n");
}

#[test]
fn output_after_the_parents_exit_is_delivered() {
    let finished = world()
        .run(&["--shell"], &["(sleep 0.2; echo late) & echo early"])
        .run();
    assert_eq!(finished.stdout_text(), "early\nlate\n");
}

#[test]
fn a_background_child_that_keeps_the_pipe_does_not_hold_the_run() {
    let finished = world()
        .run(&["--json", "--shell"], &["sleep 100 & echo done; exit 5"])
        .run();
    let payload = finished.json();
    assert_eq!(finished.code(), 5);
    assert_eq!(payload["stdout"], "done\n");
    assert_eq!(payload["output_left_open"], true);
    assert!(
        finished.took < Duration::from_secs(25),
        "{:?}",
        finished.took
    );
}

#[test]
fn a_reader_that_leaves_early_ends_the_run_quietly() {
    let world = world();
    let mut shell = std::process::Command::new("bash");
    let script = r#""$0" run debian:12 --quiet -- yes | head -n 1; echo "${PIPESTATUS[0]}""#;
    shell
        .args(["-c", script, env!("CARGO_BIN_EXE_pyro")])
        .env("PYRO_CACHE_DIR", world.cache())
        .env("PYRO_STATE_DIR", world.state())
        .env("PYRO_RUNTIME_DIR", world.runtime());
    let output = shell.output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "y\n141\n");
    pyro_testing::traces::assert_none(&world);
}
