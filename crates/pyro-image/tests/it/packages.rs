//! The real kernel package and real layers.

use std::fs;
use std::process::Command;
use std::time::Instant;

use pyro_image::kernel::ModuleLoad;
use pyro_image::{Catalog, Kernel, KernelStore, Progress, ProgressSink, build_layer};
use std::sync::Arc;

#[expect(clippy::print_stdout, reason = "the measurements of a run by hand")]
fn talk() -> ProgressSink {
    let start = Instant::now();
    Arc::new(move |event: Progress| {
        println!("{:7.2} {event:?}", start.elapsed().as_secs_f32());
    })
}

fn assert_send<T: Send>(value: T) -> T {
    value
}

#[test]
fn the_work_may_move_between_threads() {
    let dir = tempfile::tempdir().unwrap();
    let store = KernelStore::new(dir.path());
    let catalog = Catalog::builtin();
    let entry = catalog.get("debian:12").unwrap();
    let sink = pyro_image::progress::ignore();
    drop(assert_send(store.ensure(&sink)));
    drop(assert_send(build_layer(
        entry,
        dir.path(),
        dir.path(),
        &sink,
    )));
}

#[tokio::test]
#[ignore = "fetches the kernel package"]
async fn the_packaged_kernel_is_installed_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = KernelStore::new(dir.path().join("kernels"));
    let kernel = store.ensure(&talk()).await.unwrap();
    let names = |load| {
        kernel
            .modules_for(load)
            .map(|module| module.name.as_str())
            .collect::<Vec<_>>()
    };
    println!("{:#?}", kernel.manifest);
    let boot = names(&[ModuleLoad::Boot]);
    let position = |name| boot.iter().position(|&one| one == name).unwrap();
    assert!(position("virtio_ring") < position("virtio_mmio"));
    assert!(boot.contains(&"overlay") && boot.contains(&"virtio_console"));
    assert!(names(&[ModuleLoad::Network]).ends_with(&["virtio_net"]));
    assert!(names(&[ModuleLoad::Vsock]).ends_with(&["vmw_vsock_virtio_transport"]));
    for module in &kernel.modules {
        assert!(module.path.is_file());
    }

    let start = Instant::now();
    assert_eq!(store.ensure(&talk()).await.unwrap(), kernel);
    println!("second look: {:?}", start.elapsed());
    assert_eq!(store.verify(kernel.digest).unwrap(), kernel);
    assert_eq!(store.update(&talk()).await.unwrap(), kernel);
    assert_eq!(store.digests().unwrap(), [kernel.digest]);
    assert!(store.remove_stale_staging(true).unwrap().is_empty());
    let bare = Kernel::from_override(&kernel.vmlinuz).unwrap();
    assert_eq!(bare.release, kernel.release);
}

#[tokio::test]
#[ignore = "fetches and unpacks a whole system"]
async fn a_layer_is_built_the_same_twice() {
    let catalog = Catalog::builtin();
    let entry = catalog.get("debian:12-base").unwrap();
    let mut digests = Vec::new();
    for _ in 0..2 {
        let dir = tempfile::tempdir().unwrap();
        let tar = dir.path().join("layer.tar");
        let layer = build_layer(entry, &tar, dir.path(), &talk()).await.unwrap();
        assert_eq!(fs::metadata(&tar).unwrap().len(), layer.size);
        let list = Command::new("tar").arg("-tf").arg(&tar).output().unwrap();
        let list = String::from_utf8(list.stdout).unwrap();
        for path in ["./workspace/", "./etc/machine-id", "./usr/bin/bash"] {
            assert!(list.lines().any(|line| line == path), "{path}");
        }
        for path in [
            "./usr/share/man/man1/ls.1.gz",
            "./etc/apt/apt.conf.d/99mmdebstrap",
        ] {
            assert!(!list.lines().any(|line| line == path), "{path}");
        }
        digests.push(layer.sha256);
    }
    assert_eq!(digests[0], digests[1]);
}
