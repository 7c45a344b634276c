//! A Linux kernel boots until its initramfs answers on the link, many times.
//!
//! Needs files that are too large to keep here, so the test runs only when asked for:
//! `PYRO_TEST_KERNEL=vmlinux PYRO_TEST_INITRAMFS=initramfs cargo test -p pyro-vm --test it boot -- --ignored --nocapture`.
//! The initramfs loads its virtio modules and writes a line to the port of the link.

use crate::guest::{DEADLINE, World};
use pyro_vm::Access;
use std::time::Instant;
use tokio::io::{AsyncBufReadExt, BufReader};

#[tokio::test]
#[ignore = "needs a kernel and an initramfs, named in PYRO_TEST_KERNEL and PYRO_TEST_INITRAMFS"]
async fn sixty_boots_in_a_row() {
    let world = World::new();
    let named = |name: &str| std::env::var_os(name).expect(name);
    std::fs::copy(named("PYRO_TEST_KERNEL"), world.path("kernel")).unwrap();
    std::fs::copy(named("PYRO_TEST_INITRAMFS"), world.path("initramfs")).unwrap();
    let mut spec = world.spec("aaaaaaaaaa10");
    spec.disks = vec![
        world.disk("root", Access::ReadOnly),
        world.disk("upper", Access::ReadWrite),
    ];
    let mut times = Vec::new();
    for boot in 0..60 {
        let start = Instant::now();
        let mut started = world.start(&spec).await.unwrap();
        let set_up = start.elapsed();
        let log = pyro_vm::console::ConsoleLog::spawn(started.console, &world.path("console.log"))
            .unwrap();
        let mut line = String::new();
        let mut answer = BufReader::new(started.link);
        let read = tokio::time::timeout(DEADLINE, answer.read_line(&mut line)).await;
        assert!(
            matches!(read, Ok(Ok(1..))),
            "boot {boot} hangs: {:#?}",
            log.tail(20)
        );
        times.push((start.elapsed(), set_up));
        started.machine.kill().await.unwrap();
    }
    times.sort_unstable();
    println!(
        "start to link: minimum {:?}, median {:?}, maximum {:?}",
        times[0].0, times[30].0, times[59].0
    );
    println!(
        "of these until QEMU answers, at the median: {:?}",
        times[30].1
    );
}
