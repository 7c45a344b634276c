//! The exit code is the guest's, with the shell's meanings for what the guest has no code for.

use std::time::Duration;

use super::world;

#[test]
fn the_guests_own_code_passes_through() {
    let world = world();
    for code in ["0", "1", "42", "255"] {
        let finished = world.run(&[], &["sh", "-c", &format!("exit {code}")]).run();
        assert_eq!(
            finished.code().to_string(),
            code,
            "{}",
            finished.stderr_text()
        );
    }
}

#[test]
fn a_signal_gives_128_and_its_number() {
    let finished = world()
        .run(&["--json"], &["sh", "-c", "kill -SEGV $$"])
        .run();
    assert_eq!(finished.code(), 139);
    assert_eq!(finished.json()["signal"], "SEGV");
}

#[test]
fn a_passed_limit_gives_124_and_keeps_the_partial_output() {
    let world = world();
    let command = "echo before; echo oops >&2; sleep 100; echo after";
    let finished = world
        .run(&["--timeout-seconds", "1.5", "--shell"], &[command])
        .run();
    assert_eq!(finished.code(), 124, "{}", finished.stderr_text());
    assert_eq!(finished.stdout_text(), "before\n");
    let told = finished.stderr_text();
    assert!(told.contains("oops\n"), "{told}");
    assert!(
        told.contains("time limit") && told.contains("--timeout-seconds"),
        "{told}"
    );
    assert!(
        finished.took < Duration::from_secs(20),
        "{:?}",
        finished.took
    );
}

#[test]
fn a_missing_command_gives_127_and_one_that_cannot_run_126() {
    let world = world();
    let missing = world.run(&[], &["no-such-program"]).run();
    assert_eq!(missing.code(), 127);
    assert!(
        missing
            .stderr_text()
            .contains("`no-such-program` does not exist in the guest"),
        "{}",
        missing.stderr_text()
    );
    let directory = world.run(&["--json"], &["/etc"]).run();
    assert_eq!(directory.code(), 126);
    assert_eq!(directory.json()["error"]["code"], "permission_denied");
}
