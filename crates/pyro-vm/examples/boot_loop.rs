//! Boots a Linux kernel until its initramfs answers on the link, many times, and tells the times.
//!
//! `cargo run --release -p pyro-vm --example boot_loop -- <kernel> <initramfs> [<boots>]`
//!
//! The initramfs loads its virtio modules and writes a line to the port of the link.

use pyro_vm::console::ConsoleLog;
use pyro_vm::qemu::{QemuBegin, start};
use pyro_vm::{
    Accelerator, Access, Disk, DiskId, FreedMemory, GuestMemory, MachineId, MachineSpec,
    MachineUid, MemoryMib, Network, Qemu, StartOptions, Vcpus,
};
use std::error::Error;
use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, BufReader};

const USAGE: &str = "usage: boot_loop <kernel> <initramfs> [<boots>]";

/// As many as show a hang that comes once in a few dozen boots.
const BOOTS: usize = 60;

/// Long enough for a busy host, short enough to see a hang.
const DEADLINE: Duration = Duration::from_secs(20);

/// The machine's user number, where it has one.
const SLOT: u16 = 7;

struct Boot {
    until_engine: Duration,
    until_link: Duration,
}

#[tokio::main(flavor = "current_thread")]
#[expect(clippy::print_stdout, reason = "an example tells what it measured")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(kernel), Some(initramfs)) = (arguments.next(), arguments.next()) else {
        return Err(USAGE.into());
    };
    let count = match arguments.next().as_deref().map(OsStr::to_str) {
        None => BOOTS,
        Some(text) => text.and_then(|text| text.parse().ok()).ok_or(USAGE)?,
    };

    let folder = tempfile::tempdir()?;
    fs::set_permissions(&folder, Permissions::from_mode(0o700))?;
    let spec = spec(folder.path(), Path::new(&kernel), Path::new(&initramfs))?;
    let mut boots = Vec::new();
    for number in 1..=count {
        let boot = boot(&spec, folder.path()).await;
        boots.push(boot.map_err(|error| format!("boot {number}: {error}"))?);
    }
    if boots.is_empty() {
        return Err(USAGE.into());
    }
    boots.sort_unstable_by_key(|boot| boot.until_link);
    let (first, last) = (&boots[0], &boots[count - 1]);
    let median = &boots[count / 2];
    println!(
        "start to link: minimum {:?}, median {:?}, maximum {:?}",
        first.until_link, median.until_link, last.until_link
    );
    println!("of these until QEMU answers: {:?}", median.until_engine);
    Ok(())
}

/// Copies the boot files into the folder, because a machine's user cannot reach them elsewhere.
fn spec(folder: &Path, kernel: &Path, initramfs: &Path) -> Result<MachineSpec, Box<dyn Error>> {
    for (from, name) in [(kernel, "kernel"), (initramfs, "initramfs")] {
        let to = folder.join(name);
        fs::copy(from, &to).map_err(|error| format!("{}: {error}", from.display()))?;
        fs::set_permissions(&to, Permissions::from_mode(0o644))?;
    }
    let disk = |name: &str, access| -> Result<Disk, Box<dyn Error>> {
        let path = folder.join(name);
        fs::write(&path, [0; 4096])?;
        fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        Ok(Disk {
            id: DiskId::new(name)?,
            path,
            access,
            rate: None,
        })
    };
    Ok(MachineSpec {
        id: MachineId::new("aaaaaaaaaa10")?,
        vcpus: Vcpus::new(1)?,
        memory: MemoryMib::new(256)?,
        kernel: folder.join("kernel"),
        initramfs: folder.join("initramfs"),
        cmdline: Vec::new(),
        disks: vec![
            disk("root", Access::ReadOnly)?,
            disk("upper", Access::ReadWrite)?,
        ],
        network: Network::Off,
        freed_memory: FreedMemory::Returned,
    })
}

async fn boot(spec: &MachineSpec, folder: &Path) -> Result<Boot, Box<dyn Error>> {
    let qemu = Qemu::locate(None, OsStr::new("/usr/local/bin:/usr/bin"))?;
    let options = StartOptions {
        uid: rustix::process::geteuid()
            .is_root()
            .then(|| MachineUid::for_slot(SLOT)),
        cgroup: None,
        tsc_khz: None,
        stderr_log: folder.join("stderr.log"),
        ready_within: DEADLINE,
    };
    let memory = GuestMemory::unnamed(spec.memory)?;
    let begun = Instant::now();
    let begin = QemuBegin::Boot { memory };
    let mut started = start(&qemu, Accelerator::Tcg, spec, begin, options).await?;
    let until_engine = begun.elapsed();
    let log = ConsoleLog::spawn(started.console, &folder.join("console.log"))?;
    let mut line = String::new();
    let mut answer = BufReader::new(started.link);
    let read = tokio::time::timeout(DEADLINE, answer.read_line(&mut line)).await;
    let until_link = begun.elapsed();
    started.machine.kill().await?;
    if !matches!(read, Ok(Ok(1..))) {
        let tail = log.tail(20).join("\n");
        return Err(format!("no answer on the link; the console says:\n{tail}").into());
    }
    Ok(Boot {
        until_engine,
        until_link,
    })
}
