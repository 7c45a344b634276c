//! The life of an environment that is an image: shared, in use, damaged, repaired, removed.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};

use pyro_testing::traces;
use serde_json::json;

use super::{Images, busybox_layer, host};

#[test]
fn images_with_the_same_layers_share_a_root_image_and_are_removed_one_by_one() {
    let mut images = Images::new();
    let one = images.layout.add("one", &[busybox_layer()], json!({}));
    let two = images
        .layout
        .add("two", &[busybox_layer()], json!({"User": "7"}));
    let first = images.pull(&one).stderr_text();
    assert!(first.contains(r#""phase":"root-image""#), "{first}");
    let second = images.pull(&two).stderr_text();
    assert!(!second.contains(r#""phase":"root-image""#), "{second}");
    let inode = |name: &str| images.rootfs(name).metadata().unwrap().ino();
    assert_eq!(inode(&one), inode(&two));
    let listed = images.pyro(&["env", "list", "--json"]).run().json();
    for name in [&one, &two] {
        let mut listed = listed["environments"].as_array().unwrap().iter();
        let found = listed.find(|found| found["name"] == name.as_str());
        assert_eq!(found.unwrap()["installed"], true, "{found:?}");
    }

    // While a machine runs it stays, whoever asks.
    let mut running = images
        .pyro(&["run", &one, "--", "/bin/sh", "-c", "echo up; sleep 60"])
        .start();
    assert_eq!(running.wait_for_stdout(), b"up\n");
    let refused = images.pyro(&["env", "remove", &one, "--json"]).run();
    assert_eq!(refused.code(), 1);
    let error = &refused.json()["error"];
    assert_eq!(error["code"], "conflict", "{error}");
    assert!(error["message"].as_str().unwrap().contains(&one), "{error}");
    assert!(error["hint"].is_string(), "{error}");
    let pruned = images
        .pyro(&["env", "prune", "--all", "--json"])
        .run()
        .json();
    assert_eq!(pruned["in_use"], json!([one]), "{pruned}");
    assert_eq!(pruned["count"], 1, "{pruned}");
    running.signal("INT");
    running.finish();
    traces::assert_none(&images.world);

    assert_eq!(
        images.ran(&one, &[], &["/bin/echo", "still there"]),
        "still there"
    );
    let removed = images.pyro(&["env", "remove", &one, "--json"]).run();
    assert_eq!(removed.code(), 0, "{}", removed.stdout_text());
    let gone = images.pyro(&["env", "remove", &one, "--json"]).run();
    assert_eq!(gone.json()["error"]["code"], "not_found");
}

#[test]
fn what_nobody_used_for_long_is_pruned() {
    let mut images = Images::new();
    let old = images.layout.add("old", &[busybox_layer()], json!({}));
    let new = images
        .layout
        .add("new", &[busybox_layer()], json!({"User": "7"}));
    images.pull(&old);
    images.pull(&new);
    let old_rootfs = images.rootfs(&old);
    // Used a week ago, and installed then.
    let a_week_ago = ["touch", "-d", "7 days ago"];
    let use_lock = old_rootfs.with_file_name("use.lock");
    host(
        images.world.home(),
        &[&a_week_ago[..], &[use_lock.to_str().unwrap()]].concat(),
    );
    let prune = ["env", "prune", "--older-than", "6d", "--json"];
    let told = images.pyro(&prune).args(&["--dry-run"]).run().json();
    assert_eq!(told["count"], 1, "{told}");
    assert!(old_rootfs.is_file());
    let pruned = images.pyro(&prune).run().json();
    assert_eq!(
        pruned["deleted_environment_dirs"],
        told["deleted_environment_dirs"]
    );
    assert!(!old_rootfs.exists());
    images.rootfs(&new);
}

#[test]
fn a_flipped_byte_is_found_and_repaired_without_a_network() {
    let mut images = Images::new();
    let name = images.layout.add("image", &[busybox_layer()], json!({}));
    images.pull(&name);
    let verify = |code| {
        let verified = images.pyro(&["env", "verify", &name, "--json"]).run();
        assert_eq!(verified.code(), code, "{}", verified.stdout_text());
        verified.json()
    };
    verify(0);
    let rootfs = images.rootfs(&name);
    let metadata = rootfs.metadata().unwrap();
    let mut byte = [0];
    let file = File::options()
        .read(true)
        .write(true)
        .open(&rootfs)
        .unwrap();
    file.read_exact_at(&mut byte, 1024 * 1024).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 1024 * 1024).unwrap();
    // As a disk does it: nobody is told.
    file.set_modified(metadata.modified().unwrap()).unwrap();
    drop(file);
    let found = verify(1);
    let reason = found["environments"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("`rootfs.ext4`"), "{found}");

    // The blobs are kept: nothing is fetched again.
    let repaired = images.pyro(&["env", "pull", &name, "--offline"]).run();
    assert_eq!(repaired.code(), 0, "{}", repaired.stderr_text());
    verify(0);
    assert_eq!(images.ran(&name, &[], &["/bin/echo", "whole"]), "whole");

    // Damage that shows in the file's marks is noticed without being looked for.
    let file = File::options()
        .write(true)
        .open(images.rootfs(&name))
        .unwrap();
    file.write_all_at(b"damage", 1024 * 1024).unwrap();
    drop(file);
    let repaired = images.pyro(&["env", "pull", &name, "--offline"]).run();
    assert_eq!(repaired.code(), 0, "{}", repaired.stderr_text());
    let told = repaired.stderr_text();
    assert!(told.contains("is installed but damaged"), "{told}");
    verify(0);
    traces::assert_none(&images.world);
}
