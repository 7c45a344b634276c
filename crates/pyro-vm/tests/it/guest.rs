//! A guest of 60 bytes and a machine around it.

use pyro_vm::qemu::{QemuBegin, QemuStarted, start};
use pyro_vm::{
    Accelerator, Access, Disk, DiskId, FreedMemory, GuestMemory, MachineId, MachineSpec,
    MachineUid, MemoryMib, Network, Qemu, StartError, StartOptions, Vcpus,
};
use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What the guest prints first. Then it returns every byte that it gets, and powers off after a `q`.
pub(crate) const GREETING: &str = "guest runs\n";

/// Long enough for a busy host, short enough to see a hang.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) fn qemu() -> Qemu {
    Qemu::locate(None, OsStr::new("/usr/local/bin:/usr/bin")).unwrap()
}

pub(crate) fn uid(slot: u16) -> Option<MachineUid> {
    rustix::process::geteuid()
        .is_root()
        .then(|| MachineUid::for_slot(slot))
}

/// A folder that only its owner can enter, with the guest as the kernel.
pub(crate) struct World {
    pub(crate) folder: tempfile::TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o700)).unwrap();
        std::fs::write(folder.path().join("kernel"), kernel()).unwrap();
        std::fs::write(folder.path().join("initramfs"), [0; 512]).unwrap();
        for file in ["kernel", "initramfs"] {
            std::fs::set_permissions(folder.path().join(file), PermissionsExt::from_mode(0o644))
                .unwrap();
        }
        Self { folder }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn disk(&self, name: &str, access: Access) -> Disk {
        let path = self.path(name);
        if !path.exists() {
            let mut file = std::fs::File::create(&path).unwrap();
            file.set_permissions(PermissionsExt::from_mode(0o600))
                .unwrap();
            file.write_all(&[0; 4096]).unwrap();
        }
        Disk {
            id: DiskId::new(name).unwrap(),
            path,
            access,
            rate: None,
        }
    }

    /// Makes a file readable to everybody.
    pub(crate) fn readable(&self, name: &str) {
        std::fs::set_permissions(self.path(name), PermissionsExt::from_mode(0o644)).unwrap();
    }

    pub(crate) fn spec(&self, id: &str) -> MachineSpec {
        MachineSpec {
            id: MachineId::new(id).unwrap(),
            vcpus: Vcpus::new(1).unwrap(),
            memory: MemoryMib::new(256).unwrap(),
            kernel: self.path("kernel"),
            initramfs: self.path("initramfs"),
            cmdline: Vec::new(),
            disks: Vec::new(),
            network: Network::Off,
            freed_memory: FreedMemory::Returned,
        }
    }

    pub(crate) async fn start(&self, spec: &MachineSpec) -> Result<QemuStarted, StartError> {
        let memory = GuestMemory::unnamed(spec.memory).unwrap();
        self.begin(spec, QemuBegin::Boot { memory }).await
    }

    pub(crate) async fn begin(
        &self,
        spec: &MachineSpec,
        begin: QemuBegin,
    ) -> Result<QemuStarted, StartError> {
        start(
            &qemu(),
            Accelerator::Tcg,
            spec,
            begin,
            options(self.folder.path(), 7),
        )
        .await
    }
}

pub(crate) fn options(folder: &Path, slot: u16) -> StartOptions {
    StartOptions {
        uid: uid(slot),
        cgroup: None,
        tsc_khz: None,
        stderr_log: folder.join("stderr.log"),
        ready_within: DEADLINE,
    }
}

/// Where the file is loaded.
const BASE: u32 = 0x10_0000;

/// Where in the file the note is.
const NOTE: u32 = 64 + 2 * 56;

/// Where in the file the code begins.
const CODE: u32 = NOTE + 24;

/// Where the code runs.
pub(crate) const ENTRY: u32 = BASE + CODE;

/// The guest that returns what it gets.
fn kernel() -> Vec<u8> {
    const ZEROS: u32 = ENTRY + 46;
    const TEXT: u32 = ZEROS + 6;

    let mut code = vec![0xbe]; // mov esi, TEXT
    code.extend(TEXT.to_le_bytes());
    code.extend([0x66, 0xba, 0xf8, 0x03]); // mov dx, 0x3f8
    code.extend([0xac, 0x84, 0xc0, 0x74, 0x03, 0xee, 0xeb, 0xf8]); // out each byte up to a zero
    code.extend([0x66, 0xba, 0xfd, 0x03]); // mov dx, 0x3fd
    code.extend([0xec, 0xa8, 0x01, 0x74, 0xfb]); // wait for a byte
    code.extend([0x66, 0xba, 0xf8, 0x03, 0xec]); // mov dx, 0x3f8; in al, dx
    code.extend([0x3c, b'q', 0x74, 0x03]); // leave after a `q`
    code.extend([0xee, 0xeb, 0xeb]); // return the byte, wait for the next
    code.extend([0x0f, 0x01, 0x1d]); // lidt ZEROS
    code.extend(ZEROS.to_le_bytes());
    code.push(0xcc); // int3, for which there is no handler: triple fault
    code.extend([0; 6]);
    code.extend(GREETING.as_bytes());
    code.push(0);

    executable(&code)
}

/// An ELF file that an engine starts in 32-bit mode by its PVH note. It owns no stack and no memory but its own.
pub(crate) fn executable(code: &[u8]) -> Vec<u8> {
    let length = u64::from(CODE) + code.len() as u64;
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    file.extend([2, 0, 62, 0, 1, 0, 0, 0]); // executable, x86-64, version 1
    file.extend(u64::from(ENTRY).to_le_bytes());
    file.extend(64_u64.to_le_bytes()); // program headers
    file.extend([0; 12]); // no section headers, no flags
    file.extend([64, 0, 56, 0, 2, 0, 64, 0, 0, 0, 0, 0]); // sizes and numbers of headers
    let header = |kind: u32, flags: u32, offset: u32, size: u64| {
        let address = u64::from(BASE + offset);
        let mut bytes = [kind.to_le_bytes(), flags.to_le_bytes()].concat();
        for field in [u64::from(offset), address, address, size, size, 4] {
            bytes.extend(field.to_le_bytes());
        }
        bytes
    };
    file.extend(header(1, 7, 0, length)); // load
    file.extend(header(4, 4, NOTE, 24)); // note
    file.extend([4_u32, 8, 18].map(u32::to_le_bytes).concat()); // XEN_ELFNOTE_PHYS32_ENTRY
    file.extend(b"Xen\0");
    file.extend(u64::from(ENTRY).to_le_bytes());
    file.extend(code);
    file
}
