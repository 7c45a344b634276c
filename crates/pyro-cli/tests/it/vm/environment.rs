//! An environment from nothing to a run, by two processes at once, and after a killed build.

use std::process::Command;
use std::time::Duration;

use pyro_testing::{World, traces};

/// A build beside a far mirror.
const BUILD_DEADLINE: Duration = Duration::from_mins(10);

fn empty() -> World {
    World::empty(env!("CARGO_BIN_EXE_pyro"))
}

fn install(world: &World) -> std::path::PathBuf {
    world
        .cache()
        .join("environments/linux-x86_64/debian_12-base-1.0.0")
}

#[test]
fn two_processes_build_once_after_a_third_was_killed() {
    let world = empty();
    let pull = || {
        let mut pyro = world.pyro(&["env", "pull", "debian:12-base", "--json"]);
        pyro.deadline(BUILD_DEADLINE);
        pyro
    };
    // Killed in the middle of the build, with the builder's children running.
    let mut killed = pull().start();
    killed.wait_for_stderr("extracting archives");
    killed.signal("KILL");
    drop(killed);
    traces::assert_none(&world);

    let first = pull().start();
    let second = pull().start();
    let (first, second) = (first.finish(), second.finish());
    for finished in [&first, &second] {
        assert_eq!(finished.code(), 0, "{}", finished.stderr_text());
        assert_eq!(finished.json()["installed"], true);
    }
    let phase = r#""phase":"root-image""#;
    let built = [&first, &second].map(|finished| finished.stderr_text().contains(phase));
    assert_eq!(
        built.iter().filter(|built| **built).count(),
        1,
        "{}{}",
        first.stderr_text(),
        second.stderr_text()
    );

    let directory = install(&world);
    let e2fsck = Command::new("e2fsck")
        .arg("-fn")
        .arg(directory.join("rootfs.ext4"))
        .output()
        .unwrap();
    assert!(
        e2fsck.status.success(),
        "{}",
        String::from_utf8_lossy(&e2fsck.stdout)
    );
    let manifest = std::fs::read_to_string(directory.join("environment.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    let sum = Command::new("sha256sum")
        .arg(directory.join("rootfs.ext4"))
        .output()
        .unwrap();
    let sum = String::from_utf8(sum.stdout).unwrap();
    let recorded = manifest["artifacts"]["rootfs.ext4"]["sha256"]
        .as_str()
        .unwrap();
    assert_eq!(
        recorded.trim_start_matches("sha256:"),
        sum.split(' ').next().unwrap()
    );

    let ran = world
        .pyro(&["run", "debian:12-base", "--", "cat", "/etc/debian_version"])
        .run();
    assert_eq!(ran.code(), 0, "{}", ran.stderr_text());
    assert!(
        ran.stdout_text().starts_with("12."),
        "{}",
        ran.stdout_text()
    );

    // Nothing of the killed build is left, and a prune finds nothing to do.
    let pruned = world.pyro(&["env", "prune", "--json"]).run().json();
    assert_eq!(pruned["count"], 0, "{pruned}");
    let listed = world.pyro(&["env", "list", "--json"]).run().json();
    let names: Vec<_> = listed["environments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|found| {
            (
                found["name"].as_str().unwrap(),
                found["installed"].as_bool().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        names,
        [
            ("debian:12", false),
            ("debian:12-base", true),
            ("debian:12-build", false),
            ("pyro:builder", false)
        ]
    );
}

#[test]
fn a_damaged_installation_is_built_again_by_the_next_run() {
    let world = World::with_own_environment(env!("CARGO_BIN_EXE_pyro"));
    let file = std::fs::File::options()
        .write(true)
        .open(world.root_image())
        .unwrap();
    file.set_len(1024 * 1024).unwrap();
    drop(file);
    let inspected = world
        .pyro(&["env", "inspect", "debian:12", "--json"])
        .run()
        .json();
    assert_eq!(inspected["installed"], false);
    assert!(inspected["invalid_reason"].is_string(), "{inspected}");
    let finished = world
        .run(&[], &["git", "--version"])
        .deadline(BUILD_DEADLINE)
        .run();
    assert_eq!(finished.code(), 0, "{}", finished.stderr_text());
    assert!(
        finished.stderr_text().contains("is installed but damaged"),
        "{}",
        finished.stderr_text()
    );
}

#[test]
fn an_ordinary_user_builds_and_runs() {
    if !rustix::process::geteuid().is_root() {
        // Then every other test here has shown it.
        return;
    }
    let user = "pyro-test-user";
    let script = format!(
        "id {user} >/dev/null 2>&1 || useradd --create-home --shell /bin/bash {user}; \
         install -m 755 '{program}' /home/{user}/pyro; \
         runuser -u {user} -- env -i HOME=/home/{user} PATH=/usr/bin:/bin \
         /home/{user}/pyro run debian:12-base --json -- sh -c 'id -u; uname -r'; \
         code=$?; runuser -u {user} -- sh -c 'ls -A /home/{user}/.local/state/pyro/machines /home/{user}/.local/state/pyro/run' >&2; \
         userdel --remove {user} >/dev/null 2>&1; exit $code",
        program = env!("CARGO_BIN_EXE_pyro"),
    );
    let output = Command::new("bash").args(["-c", &script]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{told}");
    let payload: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(
        payload["stdout"].as_str().unwrap().starts_with("0\n6.1"),
        "{payload}"
    );
}
