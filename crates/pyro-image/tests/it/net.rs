//! The real kernel package, from the package mirror.

use std::sync::Arc;
use std::time::Instant;

use pyro_image::kernel::{KernelFormat, ModuleLoad};
use pyro_image::{Kernel, KernelStore, Progress, ProgressSink};

#[expect(clippy::print_stdout, reason = "the measurements of a run by hand")]
fn talk() -> ProgressSink {
    let start = Instant::now();
    Arc::new(move |event: Progress| {
        println!("{:7.2} {event:?}", start.elapsed().as_secs_f32());
    })
}

#[tokio::test]
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
    let uncompressed = Kernel::from_override(kernel.boot_image()).unwrap();
    assert_eq!(uncompressed.format, KernelFormat::Elf);
}
