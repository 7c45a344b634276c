//! What a machine begins with turns out to be of no use.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use pyro::{MachineOptions, StartKind};
use pyro_testing::{World, traces};
use serde_json::Value;

use super::lifecycle::{client, started};
use super::sdk::output;
use super::world;

/// Runs a command, and tells how the machine began.
fn ran(world: &World) -> (String, String) {
    let finished = world.run(&["--json"], &["echo", "done"]).run();
    assert_eq!(finished.code(), 0, "{}", finished.stderr_text());
    let report = finished.json();
    assert_eq!(report["stdout"], "done\n");
    let began = report["started"].as_str().unwrap().to_owned();
    (began, finished.stderr_text())
}

/// Writes down that the file `name` of the snapshot in `directory` is as it was made.
fn believe(directory: &Path, name: &str) {
    let manifest = directory.join("snapshot.json");
    let mut json: Value = serde_json::from_slice(&fs::read(&manifest).unwrap()).unwrap();
    let files = json["files"].as_array_mut().unwrap();
    let file = files.iter_mut().find(|file| file["name"] == name).unwrap();
    let found = fs::metadata(directory.join(name)).unwrap();
    let stamp = file["stamp"].as_object_mut().unwrap();
    assert_eq!(stamp.len(), 4, "{stamp:?}");
    let nanoseconds = |seconds: i64, rest: i64| seconds * 1_000_000_000 + rest;
    stamp["inode"] = found.ino().into();
    stamp["size"] = found.size().into();
    stamp["modified_ns"] = nanoseconds(found.mtime(), found.mtime_nsec()).into();
    stamp["changed_ns"] = nanoseconds(found.ctime(), found.ctime_nsec()).into();
    fs::write(&manifest, json.to_string()).unwrap();
}

#[test]
fn a_machine_boots_if_its_template_does_not_load() {
    let world = World::with_own_templates(env!("CARGO_BIN_EXE_pyro"));
    assert_eq!(ran(&world).0, "made");
    let listed = world.pyro(&["template", "list", "--json"]).run().json();
    let key = listed["templates"][0]["key"].as_str().unwrap().to_owned();
    let template = world.cache().join("templates").join(key);
    // As whole as any, by what is written down, and yet no state of any engine's devices.
    let devices = template.join("devices");
    let length = fs::metadata(&devices).unwrap().len();
    fs::write(&devices, vec![7; usize::try_from(length).unwrap()]).unwrap();
    believe(&template, "devices");
    let (began, told) = ran(&world);
    assert_eq!(began, "cold");
    assert!(told.contains("going on from the template"), "{told}");
    // Nobody meets it again.
    assert!(!template.exists());
    assert_eq!(ran(&world).0, "made");
    assert_eq!(ran(&world).0, "warm");
    traces::assert_none(&world);
}

#[tokio::test]
async fn only_a_disk_that_is_whole_is_booted_without_its_memory() {
    let world = world();
    let pyro = client(&world);
    let mut source = started(&pyro, &MachineOptions::default()).await;
    assert_eq!(output(&mut source, "echo kept > /root/kept").await.1, 0);
    source.pause().await.unwrap();
    let directory = world.state().join("paused");
    source.snapshot(&directory).await.unwrap();
    source.stop(false).await.unwrap();
    let smaller = MachineOptions {
        mem_mib: 512,
        ..MachineOptions::default()
    };
    let restore = async |options: &MachineOptions| {
        let quiet = pyro::progress::ignore();
        let restored = pyro.restore_machine("debian:12", &directory, true, options, &quiet);
        let mut machine = restored.await.unwrap();
        let ready = machine.wait_ready(|_| {}).await.cloned();
        (machine, ready)
    };
    let usual = MachineOptions::default();
    for (options, began) in [
        (&usual, StartKind::Restored),
        (&smaller, StartKind::BootedFromSnapshot),
    ] {
        let (mut machine, ready) = restore(options).await;
        assert_eq!(ready.unwrap().started, began);
        assert_eq!(output(&mut machine, "cat /root/kept").await.0, "kept\n");
        machine.stop(true).await.unwrap();
    }
    // As if the guest had not answered when it was paused.
    let manifest = directory.join("snapshot.json");
    let mut json: Value = serde_json::from_slice(&fs::read(&manifest).unwrap()).unwrap();
    assert_eq!(json["attached"]["written_back"], true);
    json["attached"]["written_back"] = false.into();
    fs::write(&manifest, json.to_string()).unwrap();
    let (machine, ready) = restore(&smaller).await;
    let text = pyro::error::chain(&ready.unwrap_err());
    assert!(
        text.contains("its disk is not whole without its memory"),
        "{text}"
    );
    drop(machine);
    traces::assert_none(&world);
}
