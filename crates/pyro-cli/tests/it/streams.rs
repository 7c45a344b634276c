//! stdout is data, stderr is talk.

use pyro_testing::World;

#[test]
fn talk_never_reaches_stdout() {
    let world = World::empty(env!("CARGO_BIN_EXE_pyro"));
    // Commands that talk, fail or have nothing to say: none of it is data.
    for arguments in [
        &["run", "nope", "--", "true"][..],
        &["run", "debian:12", "--mem-mib", "1", "--", "true"],
        &["env", "pull", "nope"],
        &["prepare", "nope"],
        &["env", "inspect", "nope"],
        &["no-such-command"],
        &["workspace", "status", "nope"],
        &["workspace", "exec", "nope", "--", "true"],
        &["workspace", "status"],
    ] {
        let finished = world.pyro(arguments).run();
        assert_eq!(finished.stdout_text(), "", "{arguments:?}");
        assert!(!finished.stderr_text().is_empty(), "{arguments:?}");
    }
    // Where JSON was asked for, stdout is one JSON value and nothing else.
    for arguments in [
        &["run", "nope", "--json", "--", "true"][..],
        &["env", "list", "--json"],
        &["env", "inspect", "nope", "--json"],
        &["env", "prune", "--json"],
        &["gc", "--json"],
        &["prepare", "nope", "--json"],
        &["workspace", "list", "--json"],
        &["workspace", "status", "nope", "--json"],
        &["workspace", "status", "--json"],
        &["workspace", "exec", "nope", "--json", "--", "true"],
        &["workspace", "delete", "--all", "--json"],
        &["config", "show", "--json"],
        &["doctor", "--json"],
        &["doctor", "--environment", "debian:12", "--json"],
    ] {
        assert!(
            world.pyro(arguments).run().json().is_object(),
            "{arguments:?}"
        );
    }
    // Those who want no talk get none; errors are told all the same.
    let quiet = world.pyro(&["--quiet", "run", "nope", "--", "true"]).run();
    assert!(
        quiet.stderr_text().starts_with("[error] "),
        "{}",
        quiet.stderr_text()
    );
}
