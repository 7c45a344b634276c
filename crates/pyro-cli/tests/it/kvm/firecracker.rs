//! The product's kernel, initramfs and root image under a genuine Firecracker, without the product around it: what an engine can
//! build upon.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pyro_testing::World;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::world;

/// A boot takes seconds where KVM itself is emulated.
const DEADLINE: Duration = Duration::from_mins(2);

/// Time between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Devices are found over ACPI, so no `acpi=off`.
const BOOT_ARGUMENTS: &str = "console=ttyS0 quiet loglevel=4 panic=-1 reboot=t cryptomgr.notests \
                              pyro.root=vda pyro.upper=vdb";

/// A Firecracker process in a directory of its own, in which all of its files lie. Killed when dropped.
struct Firecracker {
    process: Child,
    directory: TempDir,
}

impl Firecracker {
    /// Starts it, with the root image of `world` as `root`.
    fn start(world: &World) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("fc-")
            .tempdir_in("/tmp")
            .unwrap();
        std::os::unix::fs::symlink(world.root_image(), directory.path().join("root")).unwrap();
        let console = File::create(directory.path().join("console")).unwrap();
        let process = Command::new(program())
            .args(["--api-sock", "api"])
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(console.try_clone().unwrap())
            .stderr(console)
            .spawn()
            .unwrap();
        let this = Self { process, directory };
        wait_for("its API", || {
            UnixStream::connect(this.path("api")).is_ok().then_some(())
        });
        this
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// One call of its API, which must succeed.
    fn call(&self, method: &str, path: &str, body: &Value) {
        let body = body.to_string();
        let mut stream = UnixStream::connect(self.path("api")).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        );
        write!(
            stream,
            "{head}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        assert!(
            line.starts_with("HTTP/1.1 204"),
            "{method} {path}: {line}{}",
            self.console()
        );
    }

    fn boot(&self, world: &World) {
        let (kernel, initramfs) = boot_files(world);
        let upper = self.path("upper");
        File::create(&upper).unwrap().set_len(1 << 30).unwrap();
        let made = Command::new("/usr/sbin/mke2fs")
            .args(["-q", "-F", "-t", "ext4"])
            .arg(&upper)
            .status();
        assert!(made.unwrap().success());
        self.call(
            "PUT",
            "/machine-config",
            &json!({"vcpu_count": 1, "mem_size_mib": 256}),
        );
        self.call(
            "PUT",
            "/boot-source",
            &json!({"kernel_image_path": kernel, "initrd_path": initramfs, "boot_args": BOOT_ARGUMENTS}),
        );
        for (id, read_only) in [("root", true), ("upper", false)] {
            let drive = json!({"drive_id": id, "path_on_host": id, "is_root_device": false, "is_read_only": read_only});
            self.call("PUT", &format!("/drives/{id}"), &drive);
        }
        self.call(
            "PUT",
            "/vsock",
            &json!({"guest_cid": 3, "uds_path": "vsock"}),
        );
        self.call("PUT", "/actions", &json!({"action_type": "InstanceStart"}));
    }

    fn pause(&self) {
        self.call("PATCH", "/vm", &json!({"state": "Paused"}));
    }

    fn resume(&self) {
        self.call("PATCH", "/vm", &json!({"state": "Resumed"}));
    }

    /// A stream to the agent, once it is there: Firecracker closes those that come before.
    fn connect(&self) -> BufReader<UnixStream> {
        wait_for("the agent", || {
            let mut stream = UnixStream::connect(self.path("vsock")).ok()?;
            stream.set_read_timeout(Some(DEADLINE)).unwrap();
            stream.write_all(b"CONNECT 5005\n").ok()?;
            let mut stream = BufReader::new(stream);
            let mut answer = String::new();
            stream.read_line(&mut answer).ok()?;
            answer.starts_with("OK ").then_some(stream)
        })
    }

    fn ask(&self, request: &Value) -> Value {
        let mut stream = self.connect();
        writeln!(stream.get_mut(), "{request}").unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        serde_json::from_str(&reply)
            .unwrap_or_else(|error| panic!("{error}: {reply}{}", self.console()))
    }

    fn shell(&self, command: &str) -> String {
        let reply = self.ask(&json!({"command": command}));
        assert_eq!(reply["exit_code"], 0, "{reply}");
        reply["stdout"].as_str().unwrap().to_owned()
    }

    fn console(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.path("console")).unwrap()).into_owned()
    }
}

impl Drop for Firecracker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn the_packaged_kernel_boots_and_the_agent_serves_over_the_vsock() {
    let world = world();
    let machine = Firecracker::start(&world);
    machine.boot(&world);
    let hello = machine.ask(&json!({"action": "hello"}));
    assert_eq!(
        hello["build_id"],
        doctor(&world)["runtime"]["agent_build_id"]
    );
    assert_eq!(machine.shell("id -u; findmnt -no FSTYPE /"), "0\noverlay\n");
}

#[test]
fn a_snapshot_runs_on_in_several_machines_that_share_nothing() {
    let world = world();
    let source = Firecracker::start(&world);
    source.boot(&world);
    assert_eq!(source.shell("echo kept > /root/mark; echo up"), "up\n");
    let mut open = source.connect();
    source.pause();
    source.call(
        "PUT",
        "/snapshot/create",
        &json!({"snapshot_type": "Full", "snapshot_path": "state", "mem_file_path": "memory"}),
    );

    let clones = [Firecracker::start(&world), Firecracker::start(&world)];
    for clone in &clones {
        let copied = Command::new("cp")
            .arg("--sparse=always")
            .args([source.path("upper"), clone.path("upper")])
            .status();
        assert!(copied.unwrap().success());
        let memory = json!({"backend_path": source.path("memory"), "backend_type": "File"});
        clone.call(
            "PUT",
            "/snapshot/load",
            &json!({"snapshot_path": source.path("state"), "mem_backend": memory}),
        );
        clone.resume();
    }
    for (name, clone) in ["first", "second"].iter().zip(&clones) {
        assert_eq!(clone.shell("cat /root/mark"), "kept\n");
        clone.shell(&format!("echo {name} > /root/mark"));
    }
    source.resume();
    for (expected, machine) in [
        ("kept", &source),
        ("first", &clones[0]),
        ("second", &clones[1]),
    ] {
        assert_eq!(machine.shell("cat /root/mark"), format!("{expected}\n"));
    }

    // What was open across the snapshot is gone, in the source as well: whoever holds a stream must open it anew.
    let ended = writeln!(open.get_mut(), "{}", json!({"action": "hello"})).is_err()
        || !matches!(open.read(&mut [0; 1]), Ok(1..));
    assert!(ended, "a stream outlives a snapshot");
}

fn program() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .unwrap();
    let program = workspace.join("target/tools/firecracker-1.12.1/firecracker");
    assert!(
        program.is_file(),
        "Firecracker is not there; fetch it: `cargo xtask firecracker`"
    );
    program
}

fn doctor(world: &World) -> Value {
    world.pyro(&["doctor", "--json"]).run().json()
}

/// The uncompressed kernel of the store, and the initramfs with this agent, which a first machine made before the tests.
fn boot_files(world: &World) -> (PathBuf, PathBuf) {
    let runtime = &doctor(world)["runtime"];
    let kernel = Path::new(runtime["kernel"]["dir"].as_str().unwrap());
    let agent = runtime["agent_build_id"].as_str().unwrap();
    let digest = kernel.file_name().unwrap().to_str().unwrap();
    let initramfs = world
        .cache()
        .join(format!("initramfs/{agent}-{digest}.cpio"));
    assert!(
        initramfs.is_file(),
        "no machine was started before: `make test-kvm` does that"
    );
    (kernel.join("vmlinux"), initramfs)
}

fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let give_up = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < give_up, "waiting for {what}");
        std::thread::sleep(PAUSE);
    }
}
