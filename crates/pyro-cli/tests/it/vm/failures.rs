//! A machine that does not come up says why, with the console's last lines, how the VMM
//! ended and one remedy, and keeps the log.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use pyro_testing::{Finished, World, traces};
use serde_json::Value;

use super::world;

/// Runs with `--json` and gives the error object.
fn failure(
    world: &World,
    flags: &[&str],
    prepare: impl FnOnce(&mut pyro_testing::Pyro),
) -> (Finished, Value) {
    let mut flags = flags.to_vec();
    flags.push("--json");
    let mut pyro = world.run(&flags, &["true"]);
    prepare(&mut pyro);
    let finished = pyro.run();
    assert_eq!(
        finished.code(),
        125,
        "{}{}",
        finished.stdout_text(),
        finished.stderr_text()
    );
    let answer = finished.json();
    assert_eq!(answer["ok"], false);
    traces::assert_none(world);
    (finished, answer["error"].clone())
}

/// The kept console log of a failure.
fn kept_console(error: &Value) -> String {
    let logs = error["details"]["log_dir"]
        .as_str()
        .expect("the logs are kept");
    fs::read_to_string(format!("{logs}/console.log")).expect("the console's log is kept")
}

#[test]
fn a_missing_qemu_names_its_package() {
    let world = world();
    for (variable, value) in [("PYRO_QEMU", "/nonexistent/qemu"), ("PATH", "/nonexistent")] {
        let (finished, error) = failure(&world, &[], |pyro| {
            pyro.env(variable, value);
        });
        assert_eq!(error["code"], "host_unavailable", "{error}");
        assert!(
            error["hint"]
                .as_str()
                .unwrap()
                .contains("apt-get install qemu-system-x86"),
            "{error}"
        );
        assert!(
            finished.took < Duration::from_secs(2),
            "{:?}",
            finished.took
        );
    }
}

#[test]
fn a_file_that_is_no_kernel_is_refused_before_the_boot() {
    let world = world();
    let (finished, error) = failure(&world, &["--kernel", "/etc/passwd"], |_| {});
    assert_eq!(error["code"], "invalid_argument");
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .contains("`/etc/passwd` is not a kernel image"),
        "{error}"
    );
    assert!(
        finished.took < Duration::from_secs(2),
        "{:?}",
        finished.took
    );
}

/// A file for the guest's kernel, readable by the VMM's own user.
fn write_kernel(world: &World, bytes: &[u8]) -> String {
    let path = world.home().join("kernel");
    fs::write(&path, bytes).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    path.display().to_string()
}

fn vmlinuz(world: &World) -> Vec<u8> {
    let kernels = fs::read_dir(world.cache().join("kernels")).unwrap();
    let path = kernels
        .flatten()
        .map(|entry| entry.path().join("vmlinuz"))
        .find(|path| path.exists());
    fs::read(path.expect("a kernel is installed")).unwrap()
}

#[test]
fn a_corrupt_kernel_is_told_from_its_console() {
    let world = world();
    let mut bytes = vmlinuz(&world);
    let middle = bytes.len() / 2;
    bytes[middle..middle + 4096].fill(0x5a);
    let kernel = write_kernel(&world, &bytes);
    let (_, error) = failure(&world, &["--kernel", &kernel], |_| {});
    assert_eq!(error["details"]["cause"], "kernel", "{error}");
    assert!(
        error["hint"].as_str().unwrap().contains("PYRO_KERNEL"),
        "{error}"
    );
    assert!(
        !error["details"]["console_tail"]
            .as_array()
            .unwrap()
            .is_empty(),
        "{error}"
    );
    assert!(!kept_console(&error).is_empty());
}

#[test]
fn a_damaged_installed_kernel_is_noticed_and_replaced_by_a_good_one() {
    let world = World::with_own_environment(env!("CARGO_BIN_EXE_pyro"));
    for entry in fs::read_dir(world.cache().join("kernels"))
        .unwrap()
        .flatten()
    {
        for name in ["vmlinuz", "vmlinux"] {
            if let Ok(mut bytes) = fs::read(entry.path().join(name)) {
                bytes[100_000..104_096].fill(0x5a);
                fs::write(entry.path().join(name), bytes).unwrap();
            }
        }
    }
    let finished = world.run(&[], &["true"]).run();
    assert_eq!(finished.code(), 0, "{}", finished.stderr_text());
    assert!(
        finished.stderr_text().contains("phase=kernel-"),
        "{}",
        finished.stderr_text()
    );
}

#[test]
fn a_corrupt_image_ends_in_the_agents_own_words() {
    let world = World::with_own_environment(env!("CARGO_BIN_EXE_pyro"));
    // A copy has other marks than its original: looking at it once keeps the new ones.
    assert_eq!(world.pyro(&["env", "inspect", "debian:12"]).run().code(), 0);
    let image = world.root_image();
    let marks = fs::metadata(&image).unwrap().modified().unwrap();
    // Bit rot: the content changes, the file's marks do not.
    let file = fs::File::options().write(true).open(&image).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &vec![0; 65_536], 0).unwrap();
    file.set_modified(marks).unwrap();
    drop(file);
    let (_, error) = failure(&world, &[], |_| {});
    assert_eq!(error["details"]["cause"], "image", "{error}");
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .contains("the disk `root`"),
        "{error}"
    );
    assert!(
        error["hint"]
            .as_str()
            .unwrap()
            .contains("pyro env pull --force"),
        "{error}"
    );
    assert!(kept_console(&error).contains("pyro-agent: fatal: cause=image"));
}

#[test]
fn a_guest_that_panics_is_told_within_two_seconds() {
    let world = world();
    // The panic waits for a word: output that is on its way would go down with the guest.
    let command = "echo up; read word; echo c > /proc/sysrq-trigger; sleep 100";
    let mut running = world
        .run(&["-i", "--shell"], &[command])
        .hold_stdin()
        .start();
    assert_eq!(running.wait_for_stdout(), b"up\n");
    let begun = std::time::Instant::now();
    running.send(b"now\n");
    let finished = running.finish();
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
    let told = finished.stderr_text();
    assert_eq!(finished.code(), 125, "{told}");
    assert!(
        told.contains("the guest kernel panicked") && told.contains("sysrq triggered crash"),
        "{told}"
    );
    assert!(
        told.contains("cause: kernel") && told.contains("logs: "),
        "{told}"
    );
}

#[test]
fn a_command_that_takes_all_memory_is_killed_and_the_machine_lives() {
    let world = world();
    let command = "head -c 400M /dev/zero | tail -c 400M > /dev/null; echo code $?";
    let finished = world
        .run(&["--mem-mib", "256", "--shell"], &[command])
        .run();
    assert_eq!(finished.code(), 0, "{}", finished.stderr_text());
    assert_eq!(finished.stdout_text(), "code 137\n");
}

#[test]
fn a_link_that_goes_dead_is_noticed() {
    let world = world();
    let flags = ["--timeout-seconds", "90", "--shell"];
    let mut running = world.run(&flags, &["echo up; exec sleep 80"]).start();
    assert_eq!(running.wait_for_stdout(), b"up\n");
    let machine = fs::read_dir(world.runtime())
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .file_name();
    let [vmm] = traces::vmm(&machine.into_string().unwrap())[..] else {
        panic!("one VMM")
    };
    let stopped = std::process::Command::new("kill")
        .args(["-STOP", &vmm.to_string()])
        .status()
        .unwrap();
    assert!(stopped.success());
    let finished = running.finish();
    let told = finished.stderr_text();
    assert_eq!(finished.code(), 125, "{told}");
    assert!(
        told.contains("cause: link") && told.contains("did not answer within"),
        "{told}"
    );
    assert!(
        finished.took < Duration::from_secs(40),
        "{:?}",
        finished.took
    );
    traces::assert_none(&world);
}

#[test]
fn a_cache_without_rights_is_named() {
    let world = World::empty(env!("CARGO_BIN_EXE_pyro"));
    // A file where the directory should be stops root as well as others.
    fs::write(world.cache(), "").unwrap();
    let finished = world.run(&["--json"], &["true"]).run();
    assert_eq!(finished.code(), 125);
    let error = &finished.json()["error"];
    let told = error.to_string();
    assert!(
        told.contains(&world.cache().display().to_string()),
        "{told}"
    );
    if !is_root() {
        fs::remove_file(world.cache()).unwrap();
        fs::create_dir(world.cache()).unwrap();
        fs::set_permissions(world.cache(), fs::Permissions::from_mode(0o500)).unwrap();
        let denied = world.run(&["--json"], &["true"]).run().json();
        assert_eq!(denied["error"]["code"], "permission_denied", "{denied}");
        assert!(
            denied["error"]["hint"]
                .as_str()
                .unwrap()
                .contains("belong to you"),
            "{denied}"
        );
    }
}

/// `pyro run` with a state directory on a disk of `size`, as root: nobody else can mount it.
fn run_on_a_small_disk(world: &World, size: &str, command: &str) -> Value {
    let script = r#"mkdir -p "$1" && mount -t tmpfs -o "size=$2,mode=700" none "$1" \
        && exec "$0" run debian:12 --json --shell -- "$3""#;
    let output = std::process::Command::new("unshare")
        .args(["--mount", "bash", "-c", script, env!("CARGO_BIN_EXE_pyro")])
        .arg(world.state())
        .args([size, command])
        .env("PYRO_CACHE_DIR", world.cache())
        .env("PYRO_STATE_DIR", world.state())
        .env("PYRO_RUNTIME_DIR", world.runtime())
        .output()
        .unwrap();
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(125), "{answer}");
    traces::assert_none(world);
    answer["error"].clone()
}

#[test]
fn a_full_host_disk_is_named_before_the_boot() {
    if !is_root() {
        return;
    }
    let error = run_on_a_small_disk(&world(), "96k", "true");
    assert_eq!(error["code"], "no_space", "{error}");
    assert_eq!(error["details"]["cause"], "disk", "{error}");
    assert!(error["hint"].as_str().unwrap().contains("room"), "{error}");
}

#[test]
fn a_host_disk_that_fills_during_the_run_is_named() {
    if !is_root() {
        return;
    }
    let begun = std::time::Instant::now();
    let error = run_on_a_small_disk(
        &world(),
        "24m",
        "dd if=/dev/zero of=/big bs=1M count=100 conv=fsync; sleep 60",
    );
    assert_eq!(error["code"], "no_space", "{error}");
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .contains("could not write"),
        "{error}"
    );
    assert!(
        begun.elapsed() < Duration::from_secs(30),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn a_kernel_without_drivers_is_told_as_such() {
    let world = world();
    let kernel = write_kernel(&world, &vmlinuz(&world));
    let (_, error) = failure(&world, &["--kernel", &kernel], |_| {});
    assert_eq!(error["details"]["cause"], "kernel", "{error}");
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .contains("no driver for virtio devices"),
        "{error}"
    );
    let missing = failure(&world, &["--kernel", "/nonexistent"], |_| {}).1;
    assert_eq!(missing["code"], "not_found", "{missing}");
    assert!(
        missing["hint"].as_str().unwrap().contains("PYRO_KERNEL"),
        "{missing}"
    );
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
