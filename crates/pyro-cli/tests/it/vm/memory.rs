//! Memory that a guest frees, seen from the host.

use pyro_testing::traces;

use super::world;

/// What the guest takes and frees, in KiB.
const TAKEN: u64 = 200 * 1024;

/// The part of it that is expected to move: reports are made of larger pieces of free memory, and QEMU takes some itself.
const SEEN: u64 = TAKEN / 10 * 7;

fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    line.unwrap()
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap()
}

#[test]
fn what_a_guest_frees_the_host_has_back() {
    let world = world();
    let script = "test -e /sys/bus/virtio/drivers/virtio_balloon || { echo no driver; exit 9; }
        echo up; read go
        head -c 200M /dev/urandom > /dev/shm/taken; echo taken; read go
        rm /dev/shm/taken; echo freed; read go";
    let mut running = world
        .run(
            &["--cold", "--interactive", "--shell", "--mem-mib", "512"],
            &[script],
        )
        .hold_stdin()
        .start();
    assert_eq!(
        running.wait_for_stdout(),
        b"up\n",
        "an environment from before has a kernel without the driver: remove the shared test cache"
    );
    let id = std::fs::read_dir(world.state().join("machines"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .file_name();
    let [vmm] = traces::vmm(id.to_str().unwrap())[..] else {
        panic!("one VMM")
    };
    let before = resident_kib(vmm);
    running.send(b"go\n");
    assert_eq!(running.wait_for_stdout(), b"taken\n");
    let taken = resident_kib(vmm);
    assert!(taken > before + SEEN, "{before} KiB, then {taken} KiB");
    running.send(b"go\n");
    assert_eq!(running.wait_for_stdout(), b"freed\n");
    traces::wait_until(
        || resident_kib(vmm) + SEEN < taken,
        || format!("{taken} KiB, and after freeing {} KiB", resident_kib(vmm)),
    );
    running.send(b"go\n");
    assert_eq!(running.finish().code(), 0);
}
