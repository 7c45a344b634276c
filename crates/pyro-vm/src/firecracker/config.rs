//! From a specification to the requests that configure Firecracker.
//!
//! Owns the kernel arguments, the names of files in Firecracker's directory and the order of disks. Never opens anything.

use super::api::{
    Action, BootSource, CacheType, DriveConfig, FileName, HugePages, IoEngine, MachineConfig,
    MemoryBackend, MemoryBackendType, RateLimiter, SnapshotLoad, TokenBucket, VsockConfig,
};
use crate::kernel_arguments;
use crate::machine::StartError;
use crate::spec::{Access, Disk, KernelArgument, MachineSpec, Network};

/// The guest's address on its vsock, the same in every machine: each has a socket of its own on the host.
pub const GUEST_CID: u32 = 3;

/// Most disks of one machine. Every virtio device takes one of 19 interrupt lines (Firecracker 1.12), and so do the vsock, the
/// source of random numbers and the generation counter.
pub const MAX_DRIVES: usize = 14;

/// The time in which a disk's rate is a bound, in milliseconds.
const RATE_MS: u64 = 1_000;

/// The engine's name in errors.
const ENGINE: &str = "Firecracker";

/// Kernel arguments of this engine's guests. `reboot=k` is the one way to end that Firecracker knows: a reset by the keyboard
/// controller. Without the `i8042` ones the kernel looks half a second for a mouse.
/// Devices are found through ACPI, which a distribution's kernel needs, so neither `pci=off` nor `acpi=off`.
const KERNEL_ARGUMENTS: &[&str] = &[
    "8250.nr_uarts=1",
    "reboot=k",
    "i8042.noaux",
    "i8042.nomux",
    "i8042.dumbkbd",
];

/// The word that tells the guest's agent the ids of the disks in the order of their devices.
const DISKS_ARGUMENT: &str = "pyro.disks";

/// Names in Firecracker's directory. A snapshot keeps those of the disks and of the vsock, so they never change.
pub(super) mod name {
    pub(in crate::firecracker) const API: &str = "api.sock";
    pub(in crate::firecracker) const VSOCK: &str = "v.sock";
    pub(in crate::firecracker) const LOG: &str = "log";
    pub(in crate::firecracker) const KERNEL: &str = "kernel";
    pub(in crate::firecracker) const INITRD: &str = "initrd";
    pub(in crate::firecracker) const LOAD_STATE: &str = "load-state";
    pub(in crate::firecracker) const LOAD_MEMORY: &str = "load-memory";
    pub(in crate::firecracker) const SAVE_STATE: &str = "save-state";
    pub(in crate::firecracker) const SAVE_MEMORY: &str = "save-memory";
}

/// Refuses what Firecracker lacks.
pub(super) fn check(spec: &MachineSpec) -> Result<(), StartError> {
    spec.check()?;
    if spec.network == Network::User {
        return Err(StartError::Unsupported {
            engine: ENGINE,
            feature: "a network without rights on the host",
            hint: "use QEMU for machines with a network",
        });
    }
    if spec.disks.len() > MAX_DRIVES {
        return Err(StartError::Unsupported {
            engine: ENGINE,
            feature: "that many disks",
            hint: "use QEMU for machines with more than 14 disks",
        });
    }
    Ok(())
}

/// The requests that come before the guest's first instruction, in their order.
pub(super) fn boot_requests(spec: &MachineSpec) -> Vec<Action> {
    let mut requests = vec![
        Action::Machine(MachineConfig {
            vcpu_count: spec.vcpus.get(),
            mem_size_mib: spec.memory.get(),
            smt: false,
            huge_pages: HugePages::None,
        }),
        Action::Boot(BootSource {
            kernel_image_path: known(name::KERNEL),
            initrd_path: known(name::INITRD),
            boot_args: kernel_command_line(spec),
        }),
    ];
    requests.extend(
        spec.disks
            .iter()
            .enumerate()
            .map(|(index, disk)| drive(index, disk)),
    );
    // No balloon, whatever is to become of freed memory: this engine's gives back what it is told to hold, and nobody tells.
    requests.extend([
        Action::Entropy,
        Action::Vsock(VsockConfig {
            guest_cid: GUEST_CID,
            uds_path: known(name::VSOCK),
        }),
    ]);
    requests
}

/// The request that loads a snapshot. The machine stands afterwards.
pub(super) fn load_request() -> Action {
    Action::SnapshotLoad(SnapshotLoad {
        snapshot_path: known(name::LOAD_STATE),
        mem_backend: MemoryBackend {
            backend_type: MemoryBackendType::File,
            backend_path: known(name::LOAD_MEMORY),
        },
        resume_vm: false,
    })
}

/// The name of a disk's file.
pub(super) fn disk_name(disk: &Disk) -> FileName {
    known(&format!("disk-{}", disk.id))
}

/// A name of ours as a file name.
pub(super) fn known(name: &str) -> FileName {
    FileName::new(name).expect("our names and disk ids are of the allowed characters")
}

fn drive(index: usize, disk: &Disk) -> Action {
    Action::Drive(DriveConfig {
        drive_id: format!("disk{index}"),
        path_on_host: disk_name(disk),
        is_root_device: false,
        is_read_only: disk.access == Access::ReadOnly,
        // The guest's flushes end in the host's page cache: that outlives Firecracker. A disk that is to outlive a crash of
        // the host is written back by whoever keeps it, at the end of the machine.
        cache_type: CacheType::Unsafe,
        io_engine: IoEngine::Sync,
        rate_limiter: disk.rate.map(|rate| RateLimiter {
            bandwidth: TokenBucket {
                size: rate.bytes_per_second(),
                refill_time: RATE_MS,
            },
        }),
    })
}

fn kernel_command_line(spec: &MachineSpec) -> String {
    let ours = kernel_arguments::FOR_ALL.iter().chain(KERNEL_ARGUMENTS);
    let mut words: Vec<String> = ours.map(ToString::to_string).collect();
    if !spec.disks.is_empty() {
        let ids: Vec<&str> = spec.disks.iter().map(|disk| disk.id.as_str()).collect();
        words.push(format!("{DISKS_ARGUMENT}={}", ids.join(",")));
    }
    words.extend(
        spec.cmdline
            .iter()
            .map(KernelArgument::as_str)
            .map(str::to_owned),
    );
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{DiskId, DiskRate, FreedMemory, MachineId, MemoryMib, Vcpus};
    use std::fmt::Write;

    fn spec(disks: &[&str]) -> MachineSpec {
        let disk = |(index, id): (usize, &&str)| Disk {
            id: DiskId::new(*id).unwrap(),
            path: "/secret,path".into(),
            access: if index == 0 {
                Access::ReadOnly
            } else {
                Access::ReadWrite
            },
            rate: None,
        };
        MachineSpec {
            id: MachineId::new("0123456789ab").unwrap(),
            vcpus: Vcpus::new(2).unwrap(),
            memory: MemoryMib::new(512).unwrap(),
            kernel: "/secret/kernel".into(),
            initramfs: "/secret/initramfs".into(),
            cmdline: vec![KernelArgument::new("pyro.root=root").unwrap()],
            disks: disks.iter().enumerate().map(disk).collect(),
            network: Network::Off,
            freed_memory: FreedMemory::Kept,
        }
    }

    fn text(requests: &[Action]) -> String {
        let mut text = String::new();
        for request in requests {
            let body = request.body().unwrap_or_default();
            writeln!(text, "{}\n  {body}", request.name()).unwrap();
        }
        assert!(!text.contains("secret"), "no path may reach Firecracker");
        text
    }

    #[test]
    fn with_a_disk_that_keeps_to_a_rate() {
        let mut spec = spec(&["upper"]);
        spec.disks[0].rate = Some(DiskRate::new(50).unwrap());
        insta::assert_snapshot!(text(&boot_requests(&spec)));
    }

    #[test]
    fn with_two_disks() {
        insta::assert_snapshot!(text(&boot_requests(&spec(&["root", "upper"]))));
    }

    #[test]
    fn without_disks() {
        insta::assert_snapshot!(text(&boot_requests(&spec(&[]))));
    }

    #[test]
    fn from_a_snapshot() {
        insta::assert_snapshot!(text(&[load_request()]));
    }

    #[test]
    fn no_machine_has_a_balloon() {
        let freed = |freed_memory| MachineSpec {
            freed_memory,
            ..spec(&["root"])
        };
        let kept = boot_requests(&freed(FreedMemory::Kept));
        assert_eq!(kept, boot_requests(&freed(FreedMemory::Returned)));
        assert!(!text(&kept).contains("balloon"));
    }

    #[test]
    fn what_it_lacks_is_refused() {
        let mut spec = spec(&["root"]);
        assert!(check(&spec).is_ok());
        spec.network = Network::User;
        let error = check(&spec).unwrap_err();
        assert_eq!(
            error.to_string(),
            "Firecracker does not support a network without rights on the host"
        );
        assert!(error.hint().unwrap().contains("QEMU"));
        let ids: Vec<String> = (0..=MAX_DRIVES).map(|index| index.to_string()).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        assert!(matches!(
            check(&self::spec(&ids)),
            Err(StartError::Unsupported { .. })
        ));
        assert!(check(&self::spec(&ids[1..])).is_ok());
    }
}
