//! Boots an environment under Firecracker, takes a snapshot and restores clones of it, and tells the times.
//!
//! `cargo run --release -p pyro-vm --example firecracker_clones -- <firecracker> <kernel> <initramfs> <root> <upper> [<clones>]`
//!
//! `root` is an environment's root image, `upper` a blank ext4 file, of which each machine gets a copy.

use pyro_vm::console::ConsoleLog;
use pyro_vm::disk::clone_sparse;
use pyro_vm::firecracker::{Firecracker, FirecrackerOptions, Vsock, restore, start};
use pyro_vm::snapshot::SnapshotFiles;
use pyro_vm::{
    Access, Disk, DiskId, KernelArgument, MachineId, MachineSpec, MachineUid, MemoryMib, Network,
    StartOptions, Vcpus,
};
use std::error::Error;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

const USAGE: &str =
    "usage: firecracker_clones <firecracker> <kernel> <initramfs> <root> <upper> [<clones>]";

/// Long enough for KVM that is itself emulated.
const DEADLINE: Duration = Duration::from_mins(1);

/// The machines' user number, where they have one.
const SLOT: u16 = 7;

#[tokio::main(flavor = "current_thread")]
#[expect(clippy::print_stdout, reason = "an example tells what it measured")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [program, kernel, initramfs, root, blank, rest @ ..] = &arguments[..] else {
        return Err(USAGE.into());
    };
    let clones = match rest {
        [] => 2,
        [count] => count
            .to_str()
            .and_then(|text| text.parse().ok())
            .ok_or(USAGE)?,
        _ => return Err(USAGE.into()),
    };
    let firecracker = Firecracker::locate(Some(program), None, OsStr::new(""))?;
    let folder = tempfile::tempdir()?;
    let upper = |name: &str| folder.path().join(format!("upper-{name}"));
    let spec = |name: &str| spec(kernel, initramfs, root, &upper(name));

    clone_sparse(blank, &upper("source"))?;
    let begin = Instant::now();
    let source = start(
        &firecracker,
        &spec("source")?,
        options(folder.path(), "source"),
    )
    .await?;
    println!("started after {:?}", begin.elapsed());
    let _console = ConsoleLog::spawn(source.console, &folder.path().join("console"))?;
    let command = r#"{"command":"uname -r; cat /sys/block/vd*/serial; df / | tail -1; echo x > /mark; sync"}"#;
    println!("{}", ask(&source.vsock, command).await?);
    println!("answered after {:?}", begin.elapsed());

    let files = SnapshotFiles {
        devices: folder.path().join("state"),
        memory: folder.path().join("memory"),
    };
    let mut machine = source.machine;
    let begin = Instant::now();
    machine.pause(DEADLINE).await?;
    machine.snapshot(&files, DEADLINE).await?;
    println!("snapshot after {:?}", begin.elapsed());
    machine.kill().await?;
    for number in 1..=clones {
        let name = format!("clone{number}");
        clone_sparse(&upper("source"), &upper(&name))?;
        let begin = Instant::now();
        let options = options(folder.path(), &name);
        let mut clone = restore(&firecracker, &spec(&name)?, &files, options).await?;
        println!("loaded after {:?}", begin.elapsed());
        clone.machine.resume(DEADLINE).await?;
        let command = format!(r#"{{"command":"cat /mark; echo {name} > /mark; cat /mark; sync"}}"#);
        println!("{}", ask(&clone.vsock, &command).await?);
        println!("answered after {:?}", begin.elapsed());
        clone.machine.kill().await?;
    }
    Ok(())
}

/// One request on a connection of its own, once the agent has answered a `hello`. Until then streams may be cut: before the
/// agent listens, and right after a clone went on, even after `OK`. A `hello` may be repeated, a command may not.
async fn ask(vsock: &Vsock, request: &str) -> Result<String, Box<dyn Error>> {
    let until = Instant::now() + DEADLINE;
    loop {
        match try_ask(vsock, r#"{"action":"hello"}"#).await? {
            Some(_) => return Ok(try_ask(vsock, request).await?.ok_or("the stream was cut")?),
            None if Instant::now() < until => tokio::time::sleep(Duration::from_millis(50)).await,
            None => return Err("nobody listens in the guest".into()),
        }
    }
}

async fn try_ask(vsock: &Vsock, request: &str) -> Result<Option<String>, Box<dyn Error>> {
    let mut stream = BufReader::new(UnixStream::connect(vsock.path()).await?);
    stream.write_all(b"CONNECT 5005\n").await?;
    let mut line = String::new();
    // A stream that is cut at once means that the agent is not there yet.
    if !matches!(stream.read_line(&mut line).await, Ok(1..)) {
        return Ok(None);
    }
    stream.write_all(format!("{request}\n").as_bytes()).await?;
    line.clear();
    if !matches!(stream.read_line(&mut line).await, Ok(1..)) {
        return Ok(None);
    }
    Ok(Some(line.trim_end().to_owned()))
}

fn options(folder: &Path, name: &str) -> FirecrackerOptions {
    FirecrackerOptions {
        start: StartOptions {
            uid: rustix::process::geteuid()
                .is_root()
                .then(|| MachineUid::for_slot(SLOT)),
            cgroup: None,
            tsc_khz: None,
            stderr_log: folder.join(format!("{name}.log")),
            ready_within: DEADLINE,
        },
        directory: folder.join(name),
    }
}

fn spec(
    kernel: &Path,
    initramfs: &Path,
    root: &Path,
    upper: &Path,
) -> Result<MachineSpec, Box<dyn Error>> {
    let disk = |id: &str, path: &Path, access| -> Result<Disk, Box<dyn Error>> {
        Ok(Disk {
            id: DiskId::new(id)?,
            path: path.into(),
            access,
            rate: None,
        })
    };
    Ok(MachineSpec {
        id: MachineId::new("f17ecac0de01")?,
        vcpus: Vcpus::new(1)?,
        memory: MemoryMib::new(256)?,
        kernel: kernel.into(),
        initramfs: initramfs.into(),
        cmdline: vec![
            KernelArgument::new("pyro.root=root")?,
            KernelArgument::new("pyro.upper=upper")?,
        ],
        // The upper one first: the guest is to find them by what it is told.
        disks: vec![
            disk("upper", upper, Access::ReadWrite)?,
            disk("root", root, Access::ReadOnly)?,
        ],
        network: Network::Off,
        freed_memory: pyro_vm::FreedMemory::Kept,
    })
}
