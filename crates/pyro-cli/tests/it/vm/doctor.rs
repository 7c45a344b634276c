//! `doctor` reports in every condition, and engines are probed once.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use pyro_testing::World;

use super::world;

#[test]
fn a_good_host_passes_and_says_why_each_engine_was_taken_or_not() {
    let world = world();
    let finished = world.pyro(&["doctor", "--json"]).run();
    assert_eq!(finished.code(), 0, "{}", finished.stdout_text());
    let report = finished.json();
    assert_eq!(report["runtime_ok"], true);
    assert_eq!(report["platform"], "linux-x86_64");
    let engines = report["runtime"]["engines"].as_array().unwrap();
    assert_eq!(engines.len(), 3);
    for engine in engines {
        assert!(!engine["reason"].as_str().unwrap().is_empty());
        assert!(engine["elapsed_ms"].as_u64().unwrap() < 3000, "{engine}");
    }
    let abilities = &report["runtime"]["engine_abilities"];
    for (engine, found) in engines.iter().zip(abilities.as_array().unwrap()) {
        assert_eq!(engine["engine"], found["engine"]);
        for name in ["network", "snapshots", "warm_start", "fork"] {
            let mut all = found["abilities"].as_array().unwrap().iter();
            let ability = all.find(|one| one["name"] == name).unwrap();
            let lacks = name == "network" && engine["engine"] == "firecracker";
            let can = engine["usable"] == true && !lacks;
            assert_eq!(ability["available"], can, "{ability}");
            assert!(!ability["reason"].as_str().unwrap().is_empty());
        }
    }
    let tcg = &engines[2];
    assert_eq!(
        (&tcg["engine"], &tcg["usable"]),
        (&"qemu-tcg".into(), &true.into())
    );
    for field in [
        "programs",
        "places",
        "environments",
        "kernel",
        "qemu_version",
        "capabilities",
    ] {
        assert!(!report["runtime"][field].is_null(), "{field}");
    }
    let text = world.pyro(&["doctor"]).run().stdout_text();
    for part in [
        "Runtime: PASS",
        "taken by `auto`",
        "\n  warm_start: yes: ",
        "\n  memory_given_back: yes: by machines that are started cold",
        "Environment debian:12: installed",
        "Issues",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn a_probe_is_remembered() {
    let world = world();
    let probed = world.pyro(&["doctor", "--json"]).run();
    assert_eq!(probed.code(), 0);
    let remembered = std::fs::read_to_string(world.state().join("engines.json")).unwrap();
    assert!(remembered.contains("boot"), "{remembered}");
    // The second look starts no machine: the finding tells the time of the first.
    let again = world.pyro(&["doctor", "--json"]).run().json();
    assert_eq!(
        again["runtime"]["engines"],
        probed.json()["runtime"]["engines"]
    );
    assert_eq!(
        std::fs::read_to_string(world.state().join("engines.json")).unwrap(),
        remembered
    );
}

#[test]
fn a_host_without_qemu_fails_with_one_remedy() {
    let world = World::empty(env!("CARGO_BIN_EXE_pyro"));
    let finished = world
        .pyro(&["doctor", "--json"])
        .env("PATH", "/nonexistent")
        .run();
    assert_eq!(finished.code(), 1);
    let report = finished.json();
    assert_eq!(report["runtime_ok"], false);
    let issue = &report["issues"][0];
    assert_eq!(issue["fatal"], true);
    assert!(
        issue["hint"]
            .as_str()
            .unwrap()
            .contains("apt-get install qemu-system-x86"),
        "{issue}"
    );
}

#[test]
fn each_engine_has_its_program_and_the_one_that_is_asked_for_decides() {
    let world = world();
    let program = world.home().join("firecracker");
    fs::write(&program, "#!/bin/sh\necho 'Firecracker v1.12.1'\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let doctor = |flags: &[&str]| {
        let mut arguments = vec!["doctor"];
        arguments.extend(flags);
        world
            .pyro(&arguments)
            .env("PYRO_FIRECRACKER", &program)
            .run()
    };
    let runtime = doctor(&["--json"]).json()["runtime"].clone();
    assert_eq!(runtime["firecracker"], program.display().to_string());
    assert_eq!(runtime["firecracker_version"], "1.12.1");
    let told = doctor(&[]).stdout_text();
    let line = format!("\nFirecracker: {}, 1.12.1\n", program.display());
    assert!(told.contains(&line), "{told}");

    let emulated = doctor(&["--engine", "qemu-tcg", "--json"]);
    assert_eq!(emulated.code(), 0, "{}", emulated.stdout_text());
    assert_eq!(
        emulated.json()["runtime"]["capabilities"]["supports_guest_network"],
        true
    );
    let refused = world
        .pyro(&["doctor", "--engine", "firecracker", "--json"])
        .env("PYRO_FIRECRACKER", world.home().join("none"))
        .run();
    assert_eq!(refused.code(), 1, "{}", refused.stdout_text());
    let issue = refused.json()["issues"][0].clone();
    let message = issue["message"].as_str().unwrap();
    assert!(message.contains("`firecracker`"), "{issue}");
    assert!(issue["hint"].as_str().unwrap().contains("runtime install"));
}

#[test]
fn an_unwritable_home_is_an_issue_and_no_crash() {
    let world = World::empty(env!("CARGO_BIN_EXE_pyro"));
    std::fs::write(world.home().join("file"), "").unwrap();
    let state = world.home().join("file/state");
    let finished = world
        .pyro(&["doctor", "--json"])
        .env("PYRO_STATE_DIR", state)
        .run();
    assert_eq!(finished.code(), 1, "{}", finished.stderr_text());
    let told = finished.stdout_text();
    assert!(told.contains("the state directory"), "{told}");
    assert!(finished.took < Duration::from_secs(30));
}
