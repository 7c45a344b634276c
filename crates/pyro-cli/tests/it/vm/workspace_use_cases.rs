//! What people do with several workspaces at once, with code that they do not trust, and every morning: over the command line
//! alone.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use pyro_testing::{Finished, World, traces};
use serde_json::Value;

use super::prepare::own_world;
use super::workspace_story::{FIX, done, git, project, run};
use super::world;

/// A fix as right as [`FIX`].
const OTHER_FIX: &str = "\
--- a/src/add.sh
+++ b/src/add.sh
@@ -1,3 +1,3 @@
 #!/bin/sh
 # Adds two numbers.
-echo $(($1 - $2))
+expr $1 + $2
";

fn json(world: &World, arguments: &[&str]) -> Value {
    done(world, &[arguments, &["--json"]].concat()).json()
}

fn test(world: &World, name: &str) -> i32 {
    run(world, &["exec", name, "--", "sh", "test.sh"]).code()
}

/// What is found by its name among the listed.
fn labels_of<'a>(list: &'a Value, name: &str) -> &'a Value {
    let workspaces = list["workspaces"].as_array().unwrap();
    let found = workspaces.iter().find(|item| item["name"] == name);
    &found.unwrap_or_else(|| panic!("{name}: {list}"))["labels"]
}

#[test]
fn several_attempts_at_the_same_bug_know_nothing_of_each_other() {
    let world = world();
    let project = project(&world);
    let home = project.to_str().unwrap();
    let create = |name: &str, attempt: &str| {
        let words = ["workspace", "create", "debian:12", "--mem-mib", "256"];
        let seed = [
            "--seed-path",
            home,
            "--git",
            "--name",
            name,
            "--label",
            "bug=7",
        ];
        let label = ["--label", attempt, "--json"];
        world.pyro(&[&words[..], &seed, &label].concat()).start()
    };
    let attempts = [("one", "try=1"), ("two", "try=2"), ("three", "try=3")];
    let made = attempts.map(|(name, label)| create(name, label));
    for made in made.map(pyro_testing::Running::finish) {
        let made = made.json();
        assert_eq!(made["execution_mode"], "guest_vsock", "{made}");
        assert_eq!(made["workspace_seed"]["mode"], "git_checkout", "{made}");
    }

    // Whoever comes back later finds them by their names and labels.
    let list = json(&world, &["list"]);
    assert_eq!(list["count"], 3);
    let labels = serde_json::json!({"bug": "7", "try": "2"});
    assert_eq!(labels_of(&list, "two"), &labels);

    for (name, patch) in [("one", FIX), ("two", OTHER_FIX)] {
        done(&world, &["patch", "apply", name, "--patch", patch]);
    }
    let line = [
        "exec",
        "three",
        "--shell",
        "--",
        "rm src/add.sh; echo given up > notes",
    ];
    done(&world, &line);
    let running = attempts.map(|(name, _)| {
        let words = ["workspace", "exec", name, "--", "sh", "test.sh"];
        world.pyro(&words).start()
    });
    let codes = running.map(|running| running.finish().code());
    assert_eq!(codes, [0, 0, 1]);

    let diff = |name: &str| done(&world, &["diff", name]).stdout_text();
    let (one, two, three) = (diff("one"), diff("two"), diff("three"));
    assert!(
        one.contains("+echo $(($1 + $2))\n") && !one.contains("expr"),
        "{one}"
    );
    assert!(
        two.contains("+expr $1 + $2\n") && !two.contains("$(($1 + "),
        "{two}"
    );
    assert!(
        three.contains("deleted file") && three.contains("+given up\n"),
        "{three}"
    );
    for name in ["one", "two"] {
        assert_eq!(run(&world, &["file", "read", name, "notes"]).code(), 1);
    }

    // What becomes of one changes none of the others, nor the checkout.
    done(&world, &["reset", "three"]);
    assert_eq!(diff("three"), "");
    assert_eq!((diff("one"), diff("two")), (one, two));
    done(
        &world,
        &["update", "two", "--name", "chosen", "--label", "state=done"],
    );
    let list = json(&world, &["list"]);
    let labels = serde_json::json!({"bug": "7", "try": "2", "state": "done"});
    assert_eq!(labels_of(&list, "chosen"), &labels);
    assert_eq!(git(&project, &["status", "--short"]), "?? untracked\n");
    let out = world.home().join("fixed.sh");
    let output = out.to_str().unwrap();
    done(
        &world,
        &["export", "chosen", "src/add.sh", "--output", output],
    );
    assert!(
        fs::read_to_string(&out)
            .unwrap()
            .ends_with("expr $1 + $2\n")
    );

    for (name, left) in [("try=1", 2), ("try=3", 1)] {
        done(&world, &["delete", "--all", "--label", name, "--yes"]);
        assert_eq!(json(&world, &["list"])["count"], left);
    }
    assert_eq!(test(&world, "chosen"), 0);
    done(&world, &["delete", "chosen"]);
    traces::assert_none(&world);
}

/// A directory that somebody sent, and a secret of this host beside it that it asks for in every way it knows.
fn untrusted(world: &World) -> std::path::PathBuf {
    let secret = world.home().join("secret");
    fs::write(&secret, "of this host\n").unwrap();
    let sent = world.home().join("sent");
    fs::create_dir_all(sent.join(".git/hooks")).unwrap();
    let marker = world.home().join("escaped");
    let hook = format!("#!/bin/sh\ntouch {}\n", marker.display());
    for name in ["post-checkout", "post-index-change", "pre-commit"] {
        let path = sent.join(".git/hooks").join(name);
        fs::write(&path, &hook).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    symlink(&secret, sent.join("config")).unwrap();
    symlink("../secret", sent.join("readme")).unwrap();
    fs::write(sent.join("\u{1b}]0;owned\u{7}name"), "").unwrap();
    let setup = format!(
        "#!/bin/sh\ntouch {0}\necho stolen > /workspace/../../{0}\ntrue > /dev/tcp/1.1.1.1/53\n\
         cat config readme\nls /sys/class/net\n",
        marker.display()
    );
    fs::write(sent.join("setup.sh"), setup).unwrap();
    sent
}

fn inspects(world: &World, arguments: &[&str]) -> Finished {
    let finished = run(world, arguments);
    assert!(
        !finished.stdout.contains(&0x1b) && !finished.stderr.contains(&0x1b),
        "{arguments:?} steers the terminal"
    );
    finished
}

#[test]
fn what_somebody_sent_is_looked_at_without_running_it_here() {
    let world = world();
    let sent = untrusted(&world);
    let home = sent.to_str().unwrap();
    let create = ["create", "debian:12", "--name", "look", "--seed-path", home];
    let made = json(&world, &create);
    // There is no way out of it, without anybody having asked for that.
    assert_eq!(made["network_policy"], "off", "{made}");
    assert_eq!(made["network_enabled"], false, "{made}");
    assert_eq!(made["execution_mode"], "guest_vsock", "{made}");

    let list = ["file", "list", "look", "--recursive"];
    let listed = inspects(&world, &list).stdout_text();
    for shown in ["/workspace/setup.sh [file]", "/workspace/config [symlink]"] {
        assert!(listed.contains(shown), "{listed}");
    }
    let script = inspects(&world, &["file", "read", "look", "setup.sh"]).stdout_text();
    assert!(script.contains("cat config readme"), "{script}");
    // Its links lead to nothing of this host.
    for link in ["config", "readme"] {
        let read = inspects(&world, &["file", "read", "look", link]);
        assert_eq!(read.code(), 1);
        assert!(!read.stdout_text().contains("of this host"));
    }

    // The smallest command that tells something, and then what it does when it is run.
    let line =
        "find . -type f -not -path './.git/*' | sort > report; sh setup.sh >> report 2>&1; true";
    let ran = inspects(&world, &["exec", "look", "--shell", "--json", "--", line]).json();
    assert_eq!(ran["execution_mode"], "guest_vsock", "{ran}");
    assert_eq!(ran["exit_code"], 0, "{ran}");
    let out = world.home().join("out");
    fs::create_dir(&out).unwrap();
    let output = out.join("report");
    let export = [
        "export",
        "look",
        "report",
        "--output",
        output.to_str().unwrap(),
    ];
    inspects(&world, &export);
    let report = fs::read_to_string(&output).unwrap();
    assert!(report.contains("./setup.sh\n"), "{report}");
    assert!(report.ends_with("\nlo\n"), "it has a network: {report}");
    assert!(!report.contains("of this host"), "{report}");

    // Only the report has come out, and nothing has happened here.
    let came: Vec<_> = fs::read_dir(&out)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(came, [output]);
    assert!(!world.home().join("escaped").exists());
    assert_eq!(
        fs::read_to_string(world.home().join("secret")).unwrap(),
        "of this host\n"
    );
    // A link that is exported stays a link, and is not written through.
    let link = out.join("link");
    inspects(
        &world,
        &[
            "export",
            "look",
            "config",
            "--output",
            link.to_str().unwrap(),
        ],
    );
    assert_eq!(fs::read_link(&link).unwrap(), world.home().join("secret"));
    let through = [
        "export",
        "look",
        "report",
        "--output",
        link.to_str().unwrap(),
    ];
    assert_eq!(inspects(&world, &through).code(), 1);
    inspects(&world, &["diff", "look", "--stat"]);
    inspects(&world, &["summary", "look"]);
    done(&world, &["delete", "look"]);
    traces::assert_none(&world);
}

/// Connects as a host does that was told by `config`, and gives what the server says of itself.
fn connected(world: &World, config: &Value, directory: &Path) -> Value {
    let server = &config["mcpServers"]["pyro"];
    assert_eq!(server["command"], env!("CARGO_BIN_EXE_pyro"));
    let words = server["args"].as_array().unwrap();
    let words: Vec<&str> = words.iter().map(|word| word.as_str().unwrap()).collect();
    let hello = serde_json::json!({
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"},
        },
    });
    let told = world.pyro(&words).stdin(format!("{hello}\n")).run().json();
    let says = told["result"]["instructions"].as_str().unwrap();
    assert!(says.contains(directory.to_str().unwrap()), "{says}");
    told["result"].clone()
}

#[test]
fn a_morning_begins_with_a_prepared_environment_and_every_attempt_with_a_reset() {
    let world = own_world();
    let doctor = |code: i32| {
        let told = world
            .pyro(&["doctor", "--environment", "debian:12", "--json"])
            .run();
        assert_eq!(told.code(), code, "{}", told.stdout_text());
        told.json()["readiness"]["status"].clone()
    };
    assert_eq!(doctor(3), "cold");
    let prepared = world.pyro(&["prepare", "debian:12", "--json"]).run();
    assert_eq!(prepared.code(), 0, "{}", prepared.stderr_text());
    assert_eq!(doctor(0), "warm");

    let project = project(&world);
    let home = project.to_str().unwrap();
    let words = ["host", "print-config", "generic", "--project-path", home];
    let config = world.pyro(&words).run().json();
    let server = connected(&world, &config, &project);
    assert_eq!(server["serverInfo"]["name"], "pyro_mcp");

    let made = json(
        &world,
        &[
            "create",
            "debian:12",
            "--name",
            "day",
            "--seed-path",
            home,
            "--git",
        ],
    );
    assert_eq!(made["execution_mode"], "guest_vsock", "{made}");
    for attempt in 1..=2 {
        assert_eq!(test(&world, "day"), 1);
        done(&world, &["patch", "apply", "day", "--patch", FIX]);
        assert_eq!(test(&world, "day"), 0);
        let reset = json(&world, &["reset", "day"]);
        assert_eq!(reset["reset_count"], attempt, "{reset}");
        assert_eq!(done(&world, &["diff", "day"]).stdout_text(), "");
    }
    done(&world, &["delete", "day"]);
    assert_eq!(doctor(0), "warm");
    traces::assert_none(&world);
}
