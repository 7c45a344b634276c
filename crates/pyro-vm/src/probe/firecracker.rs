//! Finding out whether Firecracker runs guests, where no QEMU can be asked.
//!
//! Owns the boot of a guest that prints a line and resets itself. It proves that Firecracker starts, that KVM executes
//! instructions in protected mode and that devices answer; it does not climb to user mode as QEMU's guest does.

use super::{Finding, OK_LINE, quote, with_sources};
use crate::firecracker::{Firecracker, FirecrackerOptions, FirecrackerStarted, start};
use crate::jail::MachineUid;
use crate::machine::{End, ExitReason, StartError, StartOptions};
use crate::qemu::Accelerator;
use crate::spec::{FreedMemory, MachineId, MachineSpec, MemoryMib, Network, Vcpus};
use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::time::Instant;

/// Where the guest is loaded.
const BASE: u32 = 0x10_0000;

/// Where in its file the note is that says where it begins, and where the code is.
const NOTE: u32 = 64 + 2 * 56;
const CODE: u32 = NOTE + 24;

/// Most that is kept of what the guest prints.
const MAX_OUTPUT_BYTES: u64 = 4096;

/// Boots the guest within `deadline`, in the new directory `directory`, which stays.
pub(super) async fn probe_firecracker(
    firecracker: &Firecracker,
    deadline: Duration,
    uid: Option<MachineUid>,
    directory: &Path,
) -> Finding {
    let started = Instant::now();
    let run = tokio::time::timeout(deadline, run(firecracker, deadline, uid, directory)).await;
    let (usable, reason) = match run {
        Ok(Ok((said, end))) => judge(&said, &end),
        Ok(Err(error)) => (false, with_sources(&error)),
        Err(_) => (
            false,
            format!(
                "/dev/kvm opens, but Firecracker's probe guest did not run within {} ms",
                deadline.as_millis()
            ),
        ),
    };
    Finding {
        accelerator: Accelerator::Kvm,
        usable,
        reason,
        elapsed_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
    }
}

fn judge(said: &str, end: &ExitReason) -> (bool, String) {
    if said.lines().any(|line| line.trim_end() == OK_LINE) && end.end == End::Code(0) {
        return (true, "Firecracker's probe guest ran".to_owned());
    }
    (
        false,
        format!(
            "Firecracker's probe guest ran wrongly: {end}, it said `{}`",
            quote(said)
        ),
    )
}

async fn run(
    firecracker: &Firecracker,
    deadline: Duration,
    uid: Option<MachineUid>,
    directory: &Path,
) -> Result<(String, ExitReason), StartError> {
    let host = |what| move |source| StartError::Host { what, source };
    let files = write_files(directory).map_err(host("write the probe guest"))?;
    let spec = MachineSpec {
        id: MachineId::new("000000000000").expect("these are twelve digits"),
        vcpus: Vcpus::new(1)?,
        memory: MemoryMib::new(256)?,
        kernel: files.0,
        initramfs: files.1,
        cmdline: Vec::new(),
        disks: Vec::new(),
        network: Network::Off,
        freed_memory: FreedMemory::Kept,
    };
    let options = FirecrackerOptions {
        start: StartOptions {
            uid,
            cgroup: None,
            // Only an emulated guest is told.
            tsc_khz: None,
            stderr_log: directory.join("log"),
            ready_within: deadline,
        },
        directory: directory.join("machine"),
    };
    let FirecrackerStarted {
        mut machine,
        console,
        ..
    } = start(firecracker, &spec, options).await?;
    let mut said = String::new();
    // What is no text was not printed by our guest, which the missing line shows.
    let _ = console
        .take(MAX_OUTPUT_BYTES)
        .read_to_string(&mut said)
        .await;
    let end = machine.wait().await.map_err(host("wait for the engine"))?;
    Ok((said, end))
}

fn write_files(directory: &Path) -> io::Result<(std::path::PathBuf, std::path::PathBuf)> {
    DirBuilder::new().mode(0o700).create(directory)?;
    let write = |name: &str, bytes: &[u8]| {
        let path = directory.join(name);
        std::fs::write(&path, bytes)?;
        std::fs::set_permissions(&path, Permissions::from_mode(0o644))?;
        Ok::<_, io::Error>(path)
    };
    // Firecracker wants an initial file system; the guest never looks.
    Ok((write("kernel", &guest())?, write("initramfs", &[0; 512])?))
}

/// An ELF file that is started in 32-bit mode by its PVH note, prints the line and resets the machine through the keyboard
/// controller. It uses no stack and no memory but its own.
fn guest() -> Vec<u8> {
    const TEXT_AT: usize = 1;
    let mut code = vec![0xbe, 0, 0, 0, 0]; // mov esi, the text
    code.extend([0x66, 0xba, 0xf8, 0x03]); // mov dx, 0x3f8
    code.extend([0xac, 0x84, 0xc0, 0x74, 0x03, 0xee, 0xeb, 0xf8]); // out each byte up to a zero
    code.extend([0xb0, 0xfe, 0xe6, 0x64, 0xeb, 0xfe]); // out 0x64, 0xfe; stay
    let text = BASE + CODE + u32::try_from(code.len()).expect("a few bytes");
    code[TEXT_AT..][..4].copy_from_slice(&text.to_le_bytes());
    code.extend(OK_LINE.as_bytes());
    code.extend(b"\n\0");

    let entry = u64::from(BASE + CODE);
    let length = u64::from(CODE) + code.len() as u64;
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    file.extend([2, 0, 62, 0, 1, 0, 0, 0]); // executable, x86-64, version 1
    file.extend(entry.to_le_bytes());
    file.extend(64_u64.to_le_bytes()); // program headers
    file.extend([0; 12]); // no section headers, no flags
    file.extend([64, 0, 56, 0, 2, 0, 64, 0, 0, 0, 0, 0]); // sizes and numbers of headers
    for (kind, flags, offset, size) in [(1_u32, 7_u32, 0, length), (4, 4, NOTE, 24)] {
        let address = u64::from(BASE + offset);
        file.extend([kind.to_le_bytes(), flags.to_le_bytes()].concat());
        for field in [u64::from(offset), address, address, size, size, 4] {
            file.extend(field.to_le_bytes());
        }
    }
    file.extend([4_u32, 8, 18].map(u32::to_le_bytes).concat()); // XEN_ELFNOTE_PHYS32_ENTRY
    file.extend(b"Xen\0");
    file.extend(entry.to_le_bytes());
    file.extend(code);
    file
}
