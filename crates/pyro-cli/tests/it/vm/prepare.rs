//! An environment is cold, is prepared, is warm, and is stale as soon as something changes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use pyro_testing::{Finished, World, traces};
use serde_json::Value;

/// A world with an environment of its own: what is recorded lies beside it.
pub(super) fn own_world() -> World {
    World::with_own_environment(env!("CARGO_BIN_EXE_pyro"))
}

fn records(world: &World) -> PathBuf {
    world.cache().join("environments/linux-x86_64/.prepared")
}

fn doctor(world: &World, flags: &[&str]) -> Finished {
    let mut arguments = vec!["doctor", "--environment", "debian:12"];
    arguments.extend(flags);
    world.pyro(&arguments).run()
}

/// The state of the environment, with the codes of the reasons, and that doctor exits with `code`.
fn readiness(world: &World, flags: &[&str], code: i32) -> (String, Vec<String>) {
    let mut flags = flags.to_vec();
    flags.push("--json");
    let finished = doctor(world, &flags);
    assert_eq!(finished.code(), code, "{}", finished.stdout_text());
    let readiness = finished.json()["readiness"].clone();
    let status = readiness["status"].as_str().unwrap().to_owned();
    let reasons = readiness["reasons"].as_array().unwrap();
    let codes = reasons
        .iter()
        .map(|reason| reason["code"].as_str().unwrap().to_owned());
    (status, codes.collect())
}

fn state(status: &str, reasons: &[&str]) -> (String, Vec<String>) {
    (
        status.to_owned(),
        reasons.iter().map(|code| (*code).to_owned()).collect(),
    )
}

/// Prepares and gives the report and the talk; nothing may be left of the machine.
fn prepare(world: &World, flags: &[&str]) -> (Value, String) {
    let mut arguments = vec!["prepare", "debian:12", "--json"];
    arguments.extend(flags);
    let finished = world.pyro(&arguments).run();
    assert_eq!(
        finished.code(),
        0,
        "{}{}",
        finished.stdout_text(),
        finished.stderr_text()
    );
    traces::assert_none(world);
    let report = finished.json();
    assert_eq!(report["status"], "warm", "{report}");
    (report, finished.stderr_text())
}

/// Whether the progress tells of a machine.
fn has_booted(talk: &str) -> bool {
    ["boot", "restore"]
        .iter()
        .any(|phase| talk.contains(&format!(r#""phase":"{phase}""#)))
}

/// A copy of the environment's kernel with another identity: its manifest has one byte more.
pub(super) fn other_kernel(world: &World) -> String {
    let kernels = fs::read_dir(world.cache().join("kernels")).unwrap();
    let kernel = kernels
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.join("manifest.json").is_file())
        .expect("a kernel is installed");
    let copy = world.home().join("kernel");
    let copied = Command::new("cp")
        .arg("-a")
        .args([&kernel, &copy])
        .status()
        .unwrap();
    assert!(copied.success());
    let manifest = copy.join("manifest.json");
    let mut text = fs::read_to_string(&manifest).unwrap();
    text.push('\n');
    fs::write(&manifest, text).unwrap();
    copy.display().to_string()
}

#[test]
fn cold_prepared_warm_stale_and_warm_again() {
    let world = own_world();
    assert_eq!(readiness(&world, &[], 3), state("cold", &["not_prepared"]));
    let told = doctor(&world, &[]).stdout_text();
    assert!(told.contains("Readiness of debian:12: cold\n"), "{told}");
    assert!(told.contains("run `pyro prepare debian:12`"), "{told}");

    let (first, talk) = prepare(&world, &[]);
    assert_eq!(first["reused"], false);
    assert!(has_booted(&talk), "{talk}");
    let record = &first["prepared"];
    for artifact in ["rootfs", "kernel", "agent"] {
        assert!(record["artifacts"][artifact].is_string(), "{record}");
    }
    for step in ["pull", "create", "boot", "exec", "delete"] {
        assert!(record["timings_ms"][step].is_u64(), "{record}");
    }
    assert!(record["timings_ms"]["boot"].as_u64().unwrap() > 0);
    assert!(record["firecracker_version"].is_null());
    assert_eq!(record["network_prepared"], false);
    assert_eq!(
        (&record["started"], &record["not_warm"]),
        (&"made".into(), &Value::Null)
    );
    assert_eq!(
        record["templates"][0]["key"], record["template"],
        "{record}"
    );
    let written = fs::read_to_string(first["record_path"].as_str().unwrap()).unwrap();
    assert_eq!(&serde_json::from_str::<Value>(&written).unwrap(), record);
    assert_eq!(readiness(&world, &[], 0), state("warm", &[]));
    assert_eq!(
        readiness(&world, &["--network"], 4),
        state("stale", &["network_not_prepared"])
    );

    // Again: no machine, the same proof, and people are told so.
    let (again, talk) = prepare(&world, &[]);
    assert_eq!(again["reused"], true);
    assert!(!has_booted(&talk), "{talk}");
    for field in ["prepared_at", "timings_ms", "artifacts"] {
        assert_eq!(again["prepared"][field], record[field]);
    }
    let told = world.pyro(&["prepare"]).run();
    assert_eq!(told.code(), 0, "{}", told.stderr_text());
    assert!(
        told.stdout_text()
            .starts_with("Prepared already: debian:12\nStatus: warm\n"),
        "{}",
        told.stdout_text()
    );
    assert!(
        told.stderr_text()
            .contains("[prepare] phase=environment debian:12"),
        "{}",
        told.stderr_text()
    );

    // Another kernel: stale until that one is proven, and then the first one is not any more.
    let kernel = other_kernel(&world);
    let with_kernel = ["--kernel", kernel.as_str()];
    let kernel_changed = state("stale", &["kernel_changed"]);
    assert_eq!(readiness(&world, &with_kernel, 4), kernel_changed);
    let (other, talk) = prepare(&world, &with_kernel);
    assert_eq!(other["reused"], false);
    assert!(has_booted(&talk), "{talk}");
    assert_eq!(readiness(&world, &with_kernel, 0), state("warm", &[]));
    assert_eq!(readiness(&world, &[], 4), kernel_changed);
    let told = doctor(&world, &[]).stdout_text();
    assert!(
        told.contains("Readiness of debian:12: stale (prepared 20"),
        "{told}"
    );
    assert!(told.contains("(kernel_changed)"), "{told}");

    // Damage is seen without a boot; with the environment goes the record.
    let image = fs::File::options()
        .write(true)
        .open(world.root_image())
        .unwrap();
    image.set_len(1024 * 1024).unwrap();
    drop(image);
    let (status, reasons) = readiness(&world, &[], 4);
    assert_eq!(status, "stale");
    assert_eq!(reasons[0], "environment_damaged");
    let removed = world.pyro(&["env", "remove", "debian:12"]).run();
    assert_eq!(removed.code(), 0, "{}", removed.stderr_text());
    assert_eq!(readiness(&world, &[], 3), state("cold", &["not_prepared"]));
    assert_eq!(fs::read_dir(records(&world)).unwrap().count(), 0);
}

#[test]
fn a_template_for_each_size_belongs_to_it() {
    let world = own_world();
    let (first, _) = prepare(&world, &[]);
    let key = first["prepared"]["template"].clone();
    assert!(key.is_string(), "{first}");
    let ran = world.run(&["--json"], &["true"]).run().json();
    assert_eq!(ran["started"], "warm", "{ran}");

    let (smaller, _) = prepare(&world, &["--mem-mib", "512"]);
    assert_eq!(smaller["reused"], false);
    assert_ne!(smaller["prepared"]["template"], key);
    assert_eq!(prepare(&world, &["--mem-mib", "512"]).0["reused"], true);
    // Doctor can be asked about a size as well; without one, any will do.
    let warm = state("warm", &[]);
    assert_eq!(readiness(&world, &["--mem-mib", "512"], 0), warm);
    let missing = state("stale", &["template_missing"]);
    let larger = ["--vcpu-count", "2", "--mem-mib", "512"];
    assert_eq!(readiness(&world, &larger, 4), missing);
    let told = doctor(&world, &larger).stdout_text();
    assert!(told.contains("--vcpu-count 2 --mem-mib 512`"), "{told}");
    assert_eq!(prepare(&world, &[]).0["reused"], true);
    let ran = world.run(&["--json", "--mem-mib", "512"], &["true"]).run();
    assert_eq!(ran.json()["started"], "warm");

    let (forced, _) = prepare(&world, &["--force"]);
    assert_eq!(forced["prepared"]["started"], "made");
    assert_eq!(forced["prepared"]["template"], key);

    let pruned = world.pyro(&["template", "prune", "--all"]).run();
    assert_eq!(pruned.code(), 0, "{}", pruned.stderr_text());
    let gone = state("stale", &["template_missing"]);
    assert_eq!(readiness(&world, &[], 4), gone);
    let (again, _) = prepare(&world, &[]);
    assert_eq!(
        (&again["reused"], &again["prepared"]["started"]),
        (&false.into(), &"made".into())
    );
    let directory = world.cache().join("templates").join(key.as_str().unwrap());
    fs::File::options()
        .write(true)
        .open(directory.join("memory"))
        .unwrap()
        .set_len(4096)
        .unwrap();
    let damaged = state("stale", &["template_damaged"]);
    assert_eq!(readiness(&world, &[], 4), damaged);
    let (mended, _) = prepare(&world, &[]);
    assert_eq!(mended["reused"], false);
    assert_eq!(readiness(&world, &[], 0), state("warm", &[]));

    // An engine that is not taken any more, although nothing else has changed.
    let engine = mended["prepared"]["engine"]["name"].as_str().unwrap();
    let record = mended["record_path"].as_str().unwrap();
    let text = fs::read_to_string(record).unwrap();
    fs::write(record, text.replace(engine, "firecracker")).unwrap();
    let changed = state("stale", &["engine_changed"]);
    assert_eq!(readiness(&world, &[], 4), changed);
    assert_eq!(prepare(&world, &[]).0["reused"], false);
    assert_eq!(readiness(&world, &[], 0), state("warm", &[]));
}

#[test]
fn a_network_is_proven_when_asked_for_and_an_engine_that_changes_is_noticed() {
    let world = own_world();
    // A QEMU that can be changed; the VMM's own user must reach it.
    let open = |path: &Path| {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    let qemu = world.home().join("qemu");
    let script = "#!/bin/sh\nexec qemu-system-x86_64 \"$@\"\n";
    let path = std::env::var("PATH").unwrap();
    let script = script.replace("exec ", &format!("PATH='{path}' exec "));
    fs::write(&qemu, &script).unwrap();
    open(&qemu);
    open(world.home());
    let prepare = |flags: &[&str]| {
        let mut arguments = vec!["prepare", "debian:12", "--json"];
        arguments.extend(flags);
        let finished = world.pyro(&arguments).env("PYRO_QEMU", &qemu).run();
        assert_eq!(
            finished.code(),
            0,
            "{}{}",
            finished.stdout_text(),
            finished.stderr_text()
        );
        traces::assert_none(&world);
        finished
    };
    assert_eq!(prepare(&[]).json()["prepared"]["network_prepared"], false);
    // What was proven without a network is no proof of one; the other way round it is.
    let networked = prepare(&["--network"]);
    assert_eq!(networked.json()["reused"], false);
    assert_eq!(networked.json()["prepared"]["network_prepared"], true);
    assert!(
        networked.stderr_text().contains(r#""phase":"network""#),
        "{}",
        networked.stderr_text()
    );
    assert_eq!(prepare(&["--network"]).json()["reused"], true);
    assert_eq!(prepare(&[]).json()["reused"], true);
    let forced = prepare(&["--force"]);
    assert_eq!(forced.json()["reused"], false);
    assert!(has_booted(&forced.stderr_text()));

    fs::write(&qemu, format!("{script}# newer\n")).unwrap();
    let finished = world
        .pyro(&["doctor", "--environment", "debian:12", "--json"])
        .env("PYRO_QEMU", &qemu)
        .run();
    assert_eq!(finished.code(), 4, "{}", finished.stdout_text());
    let readiness = &finished.json()["readiness"];
    assert_eq!(readiness["reasons"][0]["code"], "engine_program_changed");
    assert_eq!(prepare(&[]).json()["reused"], false);
}

#[test]
fn a_machine_that_does_not_come_up_leaves_no_record() {
    let world = own_world();
    prepare(&world, &[]);
    let kernel = {
        let directory = other_kernel(&world);
        let mut bytes = fs::read(Path::new(&directory).join("vmlinuz")).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle..middle + 4096].fill(0x5a);
        let path = world.home().join("broken");
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        path.display().to_string()
    };
    let finished = world
        .pyro(&["prepare", "debian:12", "--kernel", &kernel, "--json"])
        .run();
    assert_eq!(
        finished.code(),
        1,
        "{}{}",
        finished.stdout_text(),
        finished.stderr_text()
    );
    let answer = finished.json();
    assert_eq!(answer["ok"], false);
    assert_eq!(answer["error"]["details"]["cause"], "kernel", "{answer}");
    traces::assert_none(&world);
    // Also what was recorded before is not believed any more.
    assert_eq!(fs::read_dir(records(&world)).unwrap().count(), 0);
    assert_eq!(readiness(&world, &[], 3), state("cold", &["not_prepared"]));
}

#[test]
fn a_preparation_that_is_interrupted_leaves_nothing() {
    let world = own_world();
    prepare(&world, &[]);
    let mut running = world.pyro(&["prepare", "--force"]).start();
    running.wait_for_stderr("[prepare] phase=template vm_id=");
    running.signal("INT");
    assert_eq!(running.finish().code(), 128 + 2);
    traces::assert_none(&world);
    assert_eq!(fs::read_dir(records(&world)).unwrap().count(), 0);
}

#[test]
fn an_environment_without_any_program_is_proven() {
    let world = own_world();
    let root = world.home().join("root");
    fs::create_dir_all(root.join("etc")).unwrap();
    fs::write(root.join("etc/hostname"), "bare\n").unwrap();
    let name = format!("dir:{}", root.display());
    let finished = world.pyro(&["prepare", &name, "--json"]).run();
    assert_eq!(
        finished.code(),
        0,
        "{}{}",
        finished.stdout_text(),
        finished.stderr_text()
    );
    let report = finished.json();
    assert_eq!(
        (&report["status"], &report["reused"]),
        (&"warm".into(), &false.into())
    );
    assert_eq!(report["environment"], name);
    traces::assert_none(&world);
    // Records beside each other stay apart.
    assert_eq!(readiness(&world, &[], 3), state("cold", &["not_prepared"]));
}

#[test]
fn records_without_their_environment_are_cleared_away() {
    let world = World::empty(env!("CARGO_BIN_EXE_pyro"));
    let orphan = records(&world).join("debian_12-1.0.0.json");
    let lose = || {
        fs::create_dir_all(records(&world)).unwrap();
        fs::write(&orphan, "{}").unwrap();
    };
    lose();
    let report = world.pyro(&["gc", "--dry-run", "--json"]).run().json();
    assert_eq!(report["paths"][0], orphan.display().to_string());
    assert!(orphan.exists());
    assert_eq!(world.pyro(&["gc"]).run().code(), 0);
    assert!(!orphan.exists());
    lose();
    let pruned = world.pyro(&["env", "prune", "--dry-run"]).run();
    assert_eq!(pruned.code(), 0, "{}", pruned.stderr_text());
    assert!(orphan.exists());
    assert_eq!(world.pyro(&["env", "prune"]).run().code(), 0);
    assert!(!orphan.exists());
}

#[test]
fn what_cannot_be_prepared_is_unavailable() {
    let world = World::empty(env!("CARGO_BIN_EXE_pyro"));
    let ask = |environment: &str, path: Option<&str>| {
        let mut pyro = world.pyro(&["doctor", "--environment", environment, "--json"]);
        if let Some(path) = path {
            pyro.env("PATH", path);
        }
        let finished = pyro.run();
        assert_eq!(finished.code(), 1, "{}", finished.stdout_text());
        let readiness = finished.json()["readiness"].clone();
        assert_eq!(readiness["status"], "unavailable");
        assert!(readiness["hint"].is_string(), "{readiness}");
        readiness["reasons"][0]["code"].as_str().unwrap().to_owned()
    };
    assert_eq!(ask("nope", None), "environment_unknown");
    assert_eq!(ask("debian:12", Some("/nonexistent")), "host_unusable");
}
