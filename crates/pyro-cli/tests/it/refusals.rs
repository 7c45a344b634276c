//! Bad input is refused before anything is made, with the cause and one remedy.

use pyro_testing::World;

fn world() -> World {
    World::empty(env!("CARGO_BIN_EXE_pyro"))
}

/// Runs and expects `code` and, on stderr, both texts.
fn refused(arguments: &[&str], code: i32, message: &str, hint: &str) {
    let world = world();
    let finished = world.pyro(arguments).run();
    let told = finished.stderr_text();
    assert_eq!(finished.code(), code, "{told}");
    assert!(told.contains(message), "{told}");
    assert!(told.contains(hint), "{told}");
    assert_eq!(finished.stdout_text(), "");
    assert!(
        !world.cache().exists(),
        "a refused call left a cache behind"
    );
    assert!(
        !world.state().exists(),
        "a refused call left a state behind"
    );
}

#[test]
fn an_unknown_environment_lists_the_known_ones() {
    let known = "debian:12, debian:12-base, debian:12-build, pyro:builder";
    refused(
        &["run", "nope", "--", "true"],
        125,
        "unknown environment `nope`",
        known,
    );
    refused(
        &["env", "pull", "nope"],
        1,
        "unknown environment `nope`",
        known,
    );
    refused(&["prepare", "nope"], 1, "unknown environment `nope`", known);
    refused(
        &["env", "inspect", "nope"],
        1,
        "unknown environment `nope`",
        known,
    );
}

#[test]
fn json_mode_answers_an_error_object() {
    let finished = world().pyro(&["run", "nope", "--json", "--", "true"]).run();
    assert_eq!(finished.code(), 125);
    assert_eq!(
        finished.stderr_text(),
        "[run] phase=create environment=nope\n"
    );
    let answer = finished.json();
    assert_eq!(answer["ok"], false);
    assert_eq!(answer["error"]["code"], "not_found");
    assert_eq!(answer["error"]["retryable"], false);
    assert!(
        answer["error"]["hint"]
            .as_str()
            .unwrap()
            .contains("debian:12")
    );
}

#[test]
fn numbers_out_of_range_are_refused() {
    let run = |flags: &[&str], message: &str, hint: &str| {
        let mut arguments = vec!["run", "debian:12"];
        arguments.extend(flags);
        arguments.extend(["--", "true"]);
        refused(&arguments, 125, message, hint);
    };
    run(
        &["--timeout-seconds", "0"],
        "the timeout must be above zero",
        "",
    );
    run(&["--timeout-seconds", "-1"], "no time limit", "above zero");
    run(&["--ttl-seconds", "0"], "time to live", "at least 1 second");
    run(&["--vcpu-count", "9"], "9 virtual processors", "1 to 8");
    run(&["--mem-mib", "255"], "255 MiB", "256 to 32768");
    run(&["--env", "NOPE"], "`NOPE` is no `K=V`", "--env NAME=value");
    run(&["--env", "1A=x"], "`1A` is no name", "");
    run(&["--workdir", "tmp"], "absolute path", "");
    run(
        &["--allow-host-compat"],
        "never run on the host",
        "drop the flag",
    );
}

#[test]
fn a_command_must_be_given_where_no_image_has_one() {
    for (environment, told) in [
        ("debian:12", "`debian:12` has none"),
        ("dir:/", "`dir:/` has none"),
    ] {
        let finished = world().pyro(&["run", environment]).run();
        assert_eq!(finished.code(), 125);
        let stderr = finished.stderr_text();
        assert!(stderr.contains(told), "{stderr}");
        assert!(stderr.contains("behind `--`"), "{stderr}");
    }
}

#[test]
fn relative_directories_of_ours_are_refused() {
    let world = world();
    let finished = world
        .pyro(&["env", "list"])
        .env("PYRO_CACHE_DIR", "cache")
        .run();
    assert_eq!(finished.code(), 1);
    assert!(
        finished
            .stderr_text()
            .contains("`PYRO_CACHE_DIR` is the relative path")
    );
}
