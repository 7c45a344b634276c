//! Machines with a vsock: the same kernel, initramfs and root image as any other, on a QEMU
//! that is started here, because the product gives no machine of QEMU's a vsock.
//!
//! The device's other end is the program `vhost-device-vsock`. It offers a Unix socket that
//! speaks as Firecracker's does: `CONNECT <port>`, then `OK <n>`.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::World;
use crate::world::target;

/// How long a boot under emulation on a busy host may take.
const DEADLINE: Duration = Duration::from_secs(90);

/// Time between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Size of the guest's memory in MiB.
const MEMORY_MIB: u32 = 512;

/// Size of the writable disk in bytes; it is sparse.
const UPPER_BYTES: u64 = 1 << 30;

/// What the agent prints once it takes connections over the vsock.
const HAS_VSOCK: &str = "pyro-agent: listening on the vsock";

/// The other ends of two machines' vsocks. Each machine can also connect to the other.
#[derive(Debug)]
pub struct VsockHost {
    _process: Process,
    directory: TempDir,
}

impl VsockHost {
    /// The addresses (CIDs) of the machines.
    pub const CIDS: [u32; 2] = [77, 78];

    /// Starts it.
    pub fn start() -> Self {
        let directory = directory();
        let mut command = Command::new(program());
        for cid in Self::CIDS {
            let vhost = vhost(&directory, cid);
            let socket = vsock(&directory, cid);
            command.arg("--vm").arg(format!(
                "guest-cid={cid},socket={},uds-path={}",
                vhost.display(),
                socket.display()
            ));
        }
        let process = Process::start(&mut command);
        wait_for("the vsocks' other end", || {
            Self::CIDS
                .iter()
                .all(|&cid| vhost(&directory, cid).exists())
        });
        Self {
            _process: process,
            directory,
        }
    }

    /// The socket behind which the ports of the machine `cid` are.
    pub fn socket(&self, cid: u32) -> PathBuf {
        vsock(&self.directory, cid)
    }
}

/// How the agent of a machine is reached.
#[derive(Clone, Copy, Debug)]
pub enum Carriers<'a> {
    /// Over a virtio-serial port and a vsock with the address (CID).
    Both(&'a VsockHost, u32),
    /// Over a vsock alone.
    Vsock(&'a VsockHost, u32),
    /// Not at all.
    None,
}

/// A machine that may have a vsock. Killed when dropped.
#[derive(Debug)]
pub struct VsockMachine {
    qemu: Process,
    directory: TempDir,
}

impl VsockMachine {
    /// Starts a machine from the initramfs for the agent's build `build_id`, which `world` has
    /// used before.
    pub fn start(world: &World, build_id: &str, carriers: Carriers<'_>) -> Self {
        let directory = directory();
        let at = |name: &str| directory.path().join(name).display().to_string();
        blank_disk(Path::new(&at("upper")));
        let (kernel, initramfs) = boot_files(world, build_id);
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args([
                "-machine",
                "microvm,pit=on,pic=on,rtc=on,acpi=on,isa-serial=on,memory-backend=memory",
            ])
            // The device's other end reads and writes the guest's memory.
            .arg("-object")
            .arg(format!(
                "memory-backend-memfd,id=memory,size={MEMORY_MIB}M,share=on"
            ))
            .args(["-m", &format!("{MEMORY_MIB}M"), "-smp", "1"])
            .args([
                "-accel",
                "tcg,thread=multi",
                "-cpu",
                "max,-la57,-erms,-fsrm",
            ])
            .args([
                "-nodefaults",
                "-no-user-config",
                "-no-reboot",
                "-display",
                "none",
            ])
            .arg("-kernel")
            .arg(kernel)
            .arg("-initrd")
            .arg(initramfs)
            .args([
                "-append",
                &[
                    // The kernel speaks, because nothing else tells when its vsock is there.
                    "console=ttyS0 loglevel=7 panic=-1 reboot=t cryptomgr.notests",
                    "tsc_early_khz=2000000 lpj=4000000 no_timer_check",
                    "pyro.root=root pyro.upper=upper",
                ]
                .join(" "),
            ])
            .args(["-serial", &format!("file:{}", at("console"))])
            .args(drive(
                "root",
                &world.root_image().display().to_string(),
                "on",
            ))
            .args(drive("upper", &at("upper"), "off"));
        let vsock = |host: &VsockHost, cid| vsock_device(&vhost(&host.directory, cid));
        match carriers {
            Carriers::Both(host, cid) => command.args(link(&at("link"))).args(vsock(host, cid)),
            Carriers::Vsock(host, cid) => command.args(vsock(host, cid)),
            Carriers::None => &mut command,
        };
        Self {
            qemu: Process::start(&mut command),
            directory,
        }
    }

    /// Everything on the console so far.
    pub fn console(&self) -> String {
        let text = fs::read(self.directory.path().join("console")).unwrap_or_default();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Waits until the agent answers on the link, which it does when all its carriers are
    /// there. The host then leaves the link again.
    pub fn wait_for_link(&self) {
        let (question, answer) = ("\0PYRO-LINK-1 H 00000000000000aa\n", "G 00000000000000aa\n");
        let mut link = None;
        wait_for("QEMU", || {
            link = UnixStream::connect(self.directory.path().join("link")).ok();
            link.is_some()
        });
        let mut link = link.expect("it was waited for");
        link.set_read_timeout(Some(PAUSE)).expect("a timeout");
        let mut heard = Vec::new();
        wait_for("the link", || {
            // Bytes are lost before the port is open, so it is asked again and again.
            let asked = link.write_all(question.as_bytes());
            asked.expect("QEMU holds the other end");
            let mut bytes = [0; 4096];
            let count = link.read(&mut bytes).unwrap_or_default();
            heard.extend_from_slice(&bytes[..count]);
            String::from_utf8_lossy(&heard).contains(answer)
        });
    }

    /// Waits until the agent takes connections over the vsock whose other end is `socket`.
    pub fn wait_for_vsock(&self, socket: &Path) {
        // A connection that comes before is lost on its way, or keeps the device's other end busy
        // for nothing (vhost-device-vsock 0.3.0).
        wait_for("the agent's vsock", || self.console().contains(HAS_VSOCK));
        wait_for("the agent", || {
            let Ok(mut stream) = UnixStream::connect(socket) else {
                return false;
            };
            stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
            stream.write_all(b"CONNECT 5005\n").is_ok()
                && matches!(stream.read(&mut [0; 2]), Ok(1..))
        });
    }

    /// Waits for the machine's own end.
    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        wait_for("the machine's end", || {
            status = self.qemu.0.try_wait().expect("QEMU can be waited for");
            status.is_some()
        });
        status.expect("it was waited for")
    }
}

#[expect(
    clippy::print_stderr,
    reason = "the test runner keeps what a failed test said"
)]
impl Drop for VsockMachine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the machine's console:\n{}", self.console());
        }
    }
}

/// A process that dies with its owner.
#[derive(Debug)]
struct Process(Child);

impl Process {
    fn start(command: &mut Command) -> Self {
        let program = command.get_program().to_owned();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        Self(child.unwrap_or_else(|error| panic!("starting {}: {error}", program.display())))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The program that is the vsock's other end; `xtask` looks in the same places.
fn program() -> PathBuf {
    let name = "vhost-device-vsock";
    std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .chain([target().join("tools/bin")])
        .map(|directory| directory.join(name))
        .find(|program| program.is_file())
        .unwrap_or_else(|| panic!("`{name}` is not there; build it: `cargo xtask vsock`"))
}

/// The kernel and the initramfs that machines of `world` boot.
fn boot_files(world: &World, build_id: &str) -> (PathBuf, PathBuf) {
    let directory = world.cache().join("initramfs");
    let (initramfs, kernel) = fs::read_dir(directory)
        .expect("a machine was started before")
        .flatten()
        .find_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let kernel = name
                .strip_prefix(&format!("{build_id}-"))?
                .strip_suffix(".cpio")?;
            (kernel != "bare").then(|| (entry.path(), kernel.to_owned()))
        })
        .expect("the initramfs of that machine");
    (
        world.cache().join("kernels").join(kernel).join("vmlinux"),
        initramfs,
    )
}

fn directory() -> TempDir {
    tempfile::Builder::new()
        .prefix("pyro-vsock-")
        .tempdir_in("/tmp")
        .expect("making a directory")
}

/// Where QEMU finds the other end of the vsock `cid`.
fn vhost(directory: &TempDir, cid: u32) -> PathBuf {
    directory.path().join(format!("vhost-{cid}"))
}

/// Where tests find it.
fn vsock(directory: &TempDir, cid: u32) -> PathBuf {
    directory.path().join(format!("vsock-{cid}"))
}

fn blank_disk(path: &Path) {
    let file = fs::File::create(path).expect("making a disk");
    file.set_len(UPPER_BYTES).expect("a sparse file");
    let made = Command::new("/usr/sbin/mke2fs")
        .args(["-q", "-F", "-t", "ext4"])
        .arg(path)
        .status()
        .expect("mke2fs runs");
    assert!(made.success(), "making a file system");
}

fn drive(id: &str, path: &str, read_only: &str) -> [String; 4] {
    [
        "-drive".into(),
        format!("id={id},file={path},format=raw,if=none,read-only={read_only},file.locking=off"),
        "-device".into(),
        format!("virtio-blk-device,drive={id},serial={id}"),
    ]
}

fn link(path: &str) -> [String; 6] {
    [
        "-chardev".into(),
        format!("socket,id=link,path={path},server=on,wait=off"),
        "-device".into(),
        "virtio-serial-device,max_ports=2".into(),
        "-device".into(),
        "virtserialport,chardev=link,name=org.pyro.agent.0".into(),
    ]
}

fn vsock_device(vhost: &Path) -> [String; 4] {
    [
        "-chardev".into(),
        format!("socket,id=vsock,path={}", vhost.display()),
        "-device".into(),
        "vhost-user-vsock-device,chardev=vsock".into(),
    ]
}

fn wait_for(what: &str, mut there: impl FnMut() -> bool) {
    let give_up = Instant::now() + DEADLINE;
    while !there() {
        assert!(Instant::now() < give_up, "waiting for {what}");
        std::thread::sleep(PAUSE);
    }
}
