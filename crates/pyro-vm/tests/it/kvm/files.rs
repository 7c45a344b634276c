//! Disks: whose they are and who may read them.

use super::world::{Then, started, world};
use pyro_vm::{Access, StartError};
use std::os::unix::fs::PermissionsExt;

#[tokio::test]
async fn a_writable_disk_belongs_to_one_machine_and_readers_share() {
    let world = world(&Then::Count);
    let mut first = world.spec("bbbbbbbbbb11");
    first.disks = vec![
        world.disk("root", Access::ReadOnly),
        world.disk("upper", Access::ReadWrite),
    ];
    world.readable("root");
    let mut second = world.spec("bbbbbbbbbb12");
    second.disks = vec![world.disk("root", Access::ReadOnly)];
    let mut running = started(&world, &first, "one").await.unwrap();
    let mut sharing = started(&world, &second, "two").await.unwrap();
    second.disks = vec![world.disk("upper", Access::ReadWrite)];
    let error = started(&world, &second, "three").await.unwrap_err();
    assert!(
        matches!(&error, StartError::DiskInUse { id, .. } if id.as_str() == "upper"),
        "{error}"
    );
    running.machine.kill().await.unwrap();
    sharing.machine.kill().await.unwrap();
    let mut again = started(&world, &first, "four").await.unwrap();
    again.machine.kill().await.unwrap();
}

#[tokio::test]
async fn a_shared_disk_must_be_readable_to_the_engines_user() {
    let world = world(&Then::Count);
    let mut spec = world.spec("bbbbbbbbbb13");
    spec.disks = vec![world.disk("root", Access::ReadOnly)];
    let result = started(&world, &spec, "fc").await;
    if rustix::process::geteuid().is_root() {
        let error = result.unwrap_err();
        assert!(error.hint().unwrap().contains("chmod a+r"), "{error}");
        let mode = world.path("root").metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "what is shared is never changed");
    } else {
        result.unwrap().machine.kill().await.unwrap();
    }
}
