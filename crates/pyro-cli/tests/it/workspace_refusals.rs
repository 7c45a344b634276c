//! What `pyro workspace` refuses before anything is made.

use pyro_testing::World;

fn refused(line: &str, code: i32, message: &str, hint: &str) {
    let world = World::empty(env!("CARGO_BIN_EXE_pyro"));
    let arguments: Vec<&str> = ["workspace"].into_iter().chain(line.split(' ')).collect();
    let finished = world.pyro(&arguments).run();
    let told = finished.stderr_text();
    assert_eq!(finished.code(), code, "{line}: {told}");
    assert!(told.contains(message), "{line}: {told}");
    assert!(told.contains(hint), "{line}: {told}");
    assert_eq!(finished.stdout_text(), "", "{line}");
    assert!(!world.cache().exists(), "{line} left a cache behind");
    assert!(!world.state().exists(), "{line} left a state behind");
}

#[test]
fn what_is_not_there_yet_says_so() {
    let flag = |flags: &str, told: &str| {
        refused(&format!("create debian:12 {flags}"), 1, told, "hint: ");
    };
    flag("--allow-host-compat", "never run on the host");
    flag("--secret A=b", "no secrets yet");
    flag("--secret-file A=/b", "no secrets yet");
    flag(
        "--network-policy egress+published-ports",
        "cannot be published yet",
    );
    flag(
        "--network-policy Egress+Published-Ports",
        "cannot be published yet",
    );
    refused(
        "exec w --secret-env A -- sh",
        125,
        "no secrets yet",
        "hint: ",
    );
}

#[test]
fn values_out_of_range_are_refused() {
    refused(
        "create debian:12 --ttl-seconds 59",
        1,
        "59 seconds",
        "or `never`",
    );
    refused(
        "create debian:12 --ttl-seconds 604801",
        1,
        "604801 seconds",
        "or `never`",
    );
    refused(
        "create debian:12 --ttl-seconds soon",
        1,
        "`soon`",
        "or `never`",
    );
    refused(
        "create debian:12 --label task",
        1,
        "`task` is no `KEY=VALUE`",
        "--label task=42",
    );
    refused("exec w --timeout-seconds 0 -- true", 125, "above zero", "");
    refused(
        "exec w --timeout-seconds -1 -- true",
        125,
        "no time limit",
        "above zero",
    );
    refused(
        "exec w --env NOPE -- true",
        125,
        "`NOPE` is no `K=V`",
        "--env NAME=value",
    );
    refused(
        "snapshot create w .hidden",
        1,
        "no name of a snapshot",
        "beginning with",
    );
    refused(
        "snapshot create w image",
        1,
        "no name of a snapshot",
        "not `image`",
    );
    refused("reset w --snapshot a/b", 1, "no name of a snapshot", "");
    refused(
        "jobs signal w j --signal NOPE",
        1,
        "`NOPE` is no signal",
        "`INT`",
    );
    refused(
        "file write w a --text-file /no/such",
        1,
        "cannot read `/no/such`",
        "",
    );
    refused(
        "create debian:12 --seed-path /no/such",
        1,
        "/no/such",
        "hint: ",
    );
    refused("diff w --from a/b", 1, "no name of a snapshot", "");
    refused(
        "patch apply w --patch-file /no/such",
        1,
        "cannot read `/no/such`",
        "",
    );
    refused("delete --all", 1, "nobody to ask", "--yes");
}

#[test]
fn a_wrong_command_line_is_refused() {
    for line in [
        "exec w",
        "exec w --",
        "exec -- true",
        "exec w --detach -i -- cat",
        "exec w -t --detach -- cat",
        "exec w -t --timeout-seconds 3 -- cat",
        "status",
        "status --last w",
        "create debian:12 --network-policy lan",
        "update w --name a --clear-name",
        "delete",
        "delete w --all",
        "delete w --label a=b",
        "file write w a",
        "file write w a --text b --text-file c",
        "file edit w a --old b",
        "create debian:12 --seed-path . --repo-url https://host/a",
        "create debian:12 --git",
        "create debian:12 --seed-path . --untracked",
        "create debian:12 --repo-ref main",
        "sync push w",
        "export w a",
        "export w --output b",
        "patch apply w",
        "patch apply w --patch a --patch-file b",
        "no-such-command",
    ] {
        refused(line, 2, "error: ", "");
    }
}

#[test]
fn wrong_usage_is_one_object_where_json_is_wanted() {
    let world = World::empty(env!("CARGO_BIN_EXE_pyro"));
    let finished = world.pyro(&["workspace", "status", "--json"]).run();
    assert_eq!(finished.code(), 2);
    assert_eq!(finished.stderr_text(), "");
    let answer = finished.json();
    assert_eq!(answer["ok"], false);
    assert_eq!(answer["error"]["code"], "invalid_argument");
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(message.contains("<ID>"), "{message}");
    for line in [
        "workspace create debian:12 --json --id-only",
        "workspace file read w a --content-only --json",
        "no-such-command --json",
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        let finished = world.pyro(&words).run();
        assert_eq!(finished.code(), 2);
        assert_eq!(
            finished.json()["error"]["code"],
            "invalid_argument",
            "{line}"
        );
    }
    // What belongs to the guest's command is not ours.
    let finished = world
        .pyro(&["workspace", "exec", "--", "ls", "--json"])
        .run();
    assert_eq!(finished.stdout_text(), "");
    assert_eq!(finished.code(), 2);
}

#[test]
fn a_workspace_that_is_not_there_is_named() {
    let world = World::empty(env!("CARGO_BIN_EXE_pyro"));
    for (arguments, code) in [
        (&["workspace", "status", "nope"][..], 1),
        (&["workspace", "exec", "nope", "--", "true"], 125),
        (&["workspace", "delete", "nope"], 1),
    ] {
        let finished = world.pyro(arguments).run();
        assert_eq!(finished.code(), code);
        let stderr = finished.stderr_text();
        assert!(stderr.contains("there is no workspace `nope`"), "{stderr}");
        assert!(stderr.contains("pyro workspace list"), "{stderr}");
    }
    let finished = world.pyro(&["workspace", "status", "--last"]).run();
    assert_eq!(finished.code(), 1, "{}", finished.stderr_text());
}

#[test]
fn texts_may_begin_with_a_hyphen() {
    let world = World::empty(env!("CARGO_BIN_EXE_pyro"));
    for arguments in [
        &["patch", "apply", "w", "--patch", "--- a/x\n+++ b/x\n"][..],
        &["file", "write", "w", "a", "--text", "- item"],
        &["file", "edit", "w", "a", "--old", "-1", "--new", "--two"],
    ] {
        let arguments: Vec<&str> = ["workspace"].iter().chain(arguments).copied().collect();
        let finished = world.pyro(&arguments).run();
        let told = finished.stderr_text();
        assert!(told.contains("there is no workspace `w`"), "{told}");
    }
}
