//! The arguments that QEMU is called with.
//!
//! Owns every word of the argument list and the reasons for it. Never opens anything: files and sockets are descriptors that
//! the process inherits, so no path reaches QEMU, least of all one that a guest had a say in.

use super::Accelerator;
use crate::kernel_arguments;
use crate::memory::Mapping;
use crate::spec::{Access, Disk, DiskRate, FreedMemory, MachineSpec, Network};
use std::fmt::{Display, Write};
use std::os::fd::RawFd;

/// The machine type. `microvm` alone leaves out the interval timer, the interrupt controller and the clock, without which
/// emulated guests hang at boot (QEMU 7.2); ACPI is how a distribution kernel finds virtio devices.
pub(crate) const GUEST_MACHINE: &str = "microvm,pit=on,pic=on,rtc=on,acpi=on,isa-serial=on";

/// What a machine has beside: its memory is the object of that name, and its saved devices carry no description of
/// themselves, which the loader would demand and `xen-save-devices-state` does not write (QEMU 7.2).
const MEMORY_MACHINE: &str = "suppress-vmdesc=on,memory-backend=memory";

/// The name under which the guest finds the link among its virtio-serial ports.
const LINK_PORT: &str = "org.pyro.agent.0";

/// Kernel arguments of this engine's guests. `reboot=t` makes a reboot a triple fault, which `-no-reboot` turns
/// into the end of QEMU. `earlyprintk` lets the kernel's unpacker speak, which otherwise hangs
/// in silence on a damaged image; it costs no measurable time.
const KERNEL_ARGUMENTS: &[&str] = &["earlyprintk=ttyS0,115200", "reboot=t"];

/// Kernel arguments under emulation. Without the first and the rate of the time stamp counter, about every fourth boot hung
/// after "could not calculate TSC khz" (QEMU 7.2, Linux 6.1). The second leaves out waiting for timer interrupts that
/// come late on a busy host. Not `nosmp`: it divides by zero in `setup_local_APIC`.
const EMULATED_KERNEL_ARGUMENTS: &[&str] = &["lpj=4000000", "no_timer_check"];

/// The rate that is told where the host's is not known. The kernel notices that it is wrong and keeps time by ticks, of which
/// a busy host loses some: a guest was 4 s behind after 20.
const SOME_TSC_KHZ: u32 = 2_000_000;

/// Makes the kernel believe the rate: it has nothing to check it by but ticks.
const BELIEVE_TSC: &str = "tsc=reliable";

/// The emulated processor: all that the emulator can do but three things that cost it time. With ERMS
/// or FSRM the kernel copies by `rep movsb`, which is emulated byte by byte: leaving them out makes the
/// kernel's copies five times and its page faults nearly twice as fast. LA57 adds a level to each page
/// walk (QEMU 7.2).
const EMULATED_CPU: &str = "max,-la57,-erms,-fsrm";

/// The system calls that QEMU forbids itself once it is set up.
const SANDBOX: &str = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";

/// The descriptors that the process inherits for a machine, by their numbers in the process.
#[derive(Debug)]
pub(crate) struct Descriptors {
    pub(crate) memory: RawFd,
    pub(crate) mapping: Mapping,
    /// The saved devices that the machine goes on with; without them it boots.
    pub(crate) devices: Option<RawFd>,
    pub(crate) kernel: RawFd,
    pub(crate) initramfs: RawFd,
    pub(crate) console: RawFd,
    pub(crate) link: RawFd,
    pub(crate) qmp: RawFd,
    /// One for each disk of the specification, in its order.
    pub(crate) disks: Vec<RawFd>,
}

/// The whole argument list for a machine, without the program's name.
pub(crate) fn machine_arguments(
    spec: &MachineSpec,
    accelerator: Accelerator,
    tsc_khz: Option<u32>,
    fds: &Descriptors,
) -> Vec<String> {
    let mut arguments = Arguments::default();
    arguments
        .option("-name", format!("pyro-{}", spec.id))
        .option("-machine", format!("{GUEST_MACHINE},{MEMORY_MACHINE}"))
        .all(accelerator_arguments(accelerator))
        .option("-smp", spec.vcpus.get())
        .option("-m", format!("{}M", spec.memory.get()))
        .option("-object", memory(spec, fds))
        // As `suppress-vmdesc`: there is no such section in what is loaded.
        .option("-global", "migration.send-configuration=off")
        .option("-chardev", socket("console", fds.console))
        .option("-serial", "chardev:console")
        .option("-chardev", socket("link", fds.link))
        .option(
            "-device",
            Properties::of("virtio-serial-device").with("max_ports", 2),
        )
        .option(
            "-device",
            Properties::of("virtserialport")
                .with("chardev", "link")
                .with("name", LINK_PORT),
        )
        .option("-chardev", socket("qmp", fds.qmp))
        .option(
            "-mon",
            Properties::of("chardev=qmp").with("mode", "control"),
        );
    match fds.devices {
        // QEMU opens these two anew by name. That follows the descriptor, not the path, so the directories on the way may be
        // closed to its user, but the files themselves must be readable to it. `/dev/fdset` is not understood here (7.2).
        None => arguments
            .option("-kernel", format!("/dev/fd/{}", fds.kernel))
            .option("-initrd", format!("/dev/fd/{}", fds.initramfs))
            .option("-append", kernel_command_line(spec, accelerator, tsc_khz)),
        // Its kernel lies in its memory; QEMU would read the file into its own, too.
        Some(_) => arguments.flag("-S").option("-incoming", "defer"),
    };
    match spec.freed_memory {
        FreedMemory::Kept => {}
        // Nothing is ever asked of the guest, which reports by itself. One without the driver keeps what it has touched.
        FreedMemory::Returned => {
            arguments.option(
                "-device",
                Properties::of("virtio-balloon-device")
                    .with("free-page-reporting", "on")
                    .with("deflate-on-oom", "on"),
            );
        }
    }
    for (index, (disk, fd)) in spec.disks.iter().zip(&fds.disks).enumerate() {
        arguments.disk(index, disk, *fd);
    }
    match spec.network {
        Network::Off => arguments.option("-nic", "none"),
        Network::User => arguments
            .option(
                "-netdev",
                Properties::of("user")
                    .with("id", "net0")
                    .with("ipv6", "off"),
            )
            .option(
                "-device",
                Properties::of("virtio-net-device").with("netdev", "net0"),
            ),
    };
    arguments.words
}

/// The guest's memory. `/dev/fdset` is not understood here either (7.2).
fn memory(spec: &MachineSpec, fds: &Descriptors) -> Properties {
    let share = match fds.mapping {
        Mapping::Shared => "on",
        Mapping::CopyOnWrite => "off",
    };
    Properties::of("memory-backend-file")
        .with("id", "memory")
        .with("size", format!("{}M", spec.memory.get()))
        .with("mem-path", format!("/dev/fd/{}", fds.memory))
        .with("share", share)
}

/// The arguments that every QEMU of ours has: nothing by default, no way out, and the accelerator with its processor.
pub(crate) fn accelerator_arguments(accelerator: Accelerator) -> Vec<String> {
    let (accel, cpu) = match accelerator {
        Accelerator::Kvm => ("kvm", "host"),
        Accelerator::Tcg => ("tcg,thread=multi", EMULATED_CPU),
    };
    let mut arguments = Arguments::default();
    arguments
        .flag("-nodefaults")
        .flag("-no-user-config")
        .flag("-no-reboot")
        .option("-display", "none")
        .option("-sandbox", SANDBOX)
        .option("-accel", accel)
        .option("-cpu", cpu);
    arguments.words
}

/// A character device on an inherited socket.
pub(crate) fn socket(id: &str, fd: RawFd) -> Properties {
    Properties::of("socket").with("id", id).with("fd", fd)
}

/// An option's value in QEMU's form: a first word, then properties.
#[derive(Debug)]
pub(crate) struct Properties(String);

impl Properties {
    /// The first word.
    pub(crate) fn of(first: &str) -> Self {
        Self(first.to_owned())
    }

    /// Adds a property. A comma in the value is doubled, as QEMU demands.
    pub(crate) fn with(mut self, name: &str, value: impl Display) -> Self {
        let value = value.to_string().replace(',', ",,");
        write!(self.0, ",{name}={value}").expect("writing to a string cannot fail");
        self
    }
}

impl Display for Properties {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.0)
    }
}

fn kernel_command_line(
    spec: &MachineSpec,
    accelerator: Accelerator,
    tsc_khz: Option<u32>,
) -> String {
    let ours = kernel_arguments::FOR_ALL.iter().chain(KERNEL_ARGUMENTS);
    let mut words: Vec<String> = ours.map(|&word| word.into()).collect();
    if accelerator == Accelerator::Tcg {
        words.extend(EMULATED_KERNEL_ARGUMENTS.iter().map(|&word| word.into()));
        let khz = tsc_khz.unwrap_or(SOME_TSC_KHZ);
        words.push(format!("tsc_early_khz={khz}"));
        words.extend(tsc_khz.map(|_| BELIEVE_TSC.into()));
    }
    words.extend(spec.cmdline.iter().map(|word| word.as_str().to_owned()));
    words.join(" ")
}

#[derive(Debug, Default)]
struct Arguments {
    words: Vec<String>,
}

impl Arguments {
    fn flag(&mut self, name: &str) -> &mut Self {
        self.words.push(name.to_owned());
        self
    }

    fn option(&mut self, name: &str, value: impl Display) -> &mut Self {
        self.words.push(name.to_owned());
        self.words.push(value.to_string());
        self
    }

    fn all(&mut self, words: Vec<String>) -> &mut Self {
        self.words.extend(words);
        self
    }

    /// A node above `below` that keeps to a rate. The device keeps its state, so a restored machine may have another rate, or none.
    fn throttled(&mut self, index: usize, below: &str, read_only: &str, rate: DiskRate) -> String {
        let (group, node) = (format!("rate{index}"), format!("throttle{index}"));
        // In the other form the limits' names begin with `x-` (7.2).
        let object = serde_json::json!({
            "qom-type": "throttle-group",
            "id": group,
            "limits": {"bps-total": rate.bytes_per_second()},
        });
        self.option("-object", object).option(
            "-blockdev",
            Properties::of("driver=throttle")
                .with("node-name", &node)
                .with("read-only", read_only)
                .with("throttle-group", group)
                .with("file", below),
        );
        node
    }

    /// A disk: the descriptor as a set, the file, its format, the device. The format is said, never guessed, because a guest
    /// could write a header that names host files. Locking is off because the caller holds a lock through the descriptor.
    fn disk(&mut self, index: usize, disk: &Disk, fd: RawFd) {
        let file = format!("file{index}");
        let format = format!("disk{index}");
        let read_only = match disk.access {
            Access::ReadOnly => "on",
            Access::ReadWrite => "off",
        };
        let node = |driver: &str, name: &str| {
            let node = Properties::of(&format!("driver={driver}"))
                .with("node-name", name)
                .with("read-only", read_only);
            // The guest's flushes end in the host's page cache: that outlives QEMU. A disk that is to outlive a crash of the
            // host is written back by whoever keeps it, at the end of the machine.
            let node = node.with("cache.no-flush", "on");
            match disk.access {
                Access::ReadOnly => node,
                Access::ReadWrite => node.with("discard", "unmap"),
            }
        };
        let set = index + 1;
        self.option(
            "-add-fd",
            Properties::of(&format!("fd={fd}")).with("set", set),
        )
        .option(
            "-blockdev",
            node("file", &file)
                .with("filename", format!("/dev/fdset/{set}"))
                .with("locking", "off"),
        )
        .option("-blockdev", node("raw", &format).with("file", &file));
        let drive = match disk.rate {
            None => format,
            Some(rate) => self.throttled(index, &format, read_only, rate),
        };
        self.option(
            "-device",
            Properties::of("virtio-blk-device")
                .with("drive", &drive)
                .with("serial", &disk.id),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{DiskId, KernelArgument, MachineId, MemoryMib, Vcpus};
    use std::path::PathBuf;

    fn spec() -> MachineSpec {
        MachineSpec {
            id: MachineId::new("0123456789ab").unwrap(),
            vcpus: Vcpus::new(1).unwrap(),
            memory: MemoryMib::new(512).unwrap(),
            kernel: "/kernel".into(),
            initramfs: "/initramfs".into(),
            cmdline: vec![KernelArgument::new("pyro.root=root").unwrap()],
            disks: Vec::new(),
            network: Network::Off,
            freed_memory: FreedMemory::Kept,
        }
    }

    fn arguments(spec: &MachineSpec, accelerator: Accelerator) -> String {
        let memory = (Mapping::Shared, None);
        arguments_with(spec, accelerator, memory)
    }

    fn arguments_with(
        spec: &MachineSpec,
        accelerator: Accelerator,
        (mapping, devices): (Mapping, Option<RawFd>),
    ) -> String {
        let disks = (0..spec.disks.len())
            .map(|index| 20 + RawFd::try_from(index).unwrap())
            .collect();
        let fds = Descriptors {
            memory: 15,
            mapping,
            devices,
            kernel: 10,
            initramfs: 11,
            console: 12,
            link: 13,
            qmp: 14,
            disks,
        };
        let words = machine_arguments(spec, accelerator, Some(2_600_001), &fds);
        // One option with its value on a line.
        words.join(" ").replace(" -", "\n-")
    }

    #[test]
    fn emulated() {
        insta::assert_snapshot!(arguments(&spec(), Accelerator::Tcg));
    }

    #[test]
    fn with_kvm() {
        insta::assert_snapshot!(arguments(&spec(), Accelerator::Kvm));
    }

    #[test]
    fn restored() {
        let memory = (Mapping::CopyOnWrite, Some(16));
        insta::assert_snapshot!(arguments_with(&spec(), Accelerator::Tcg, memory));
    }

    #[test]
    fn with_a_network() {
        insta::assert_snapshot!(arguments(
            &MachineSpec {
                network: Network::User,
                ..spec()
            },
            Accelerator::Tcg
        ));
    }

    #[test]
    fn with_freed_memory_returned() {
        insta::assert_snapshot!(arguments(
            &MachineSpec {
                freed_memory: FreedMemory::Returned,
                ..spec()
            },
            Accelerator::Tcg
        ));
    }

    #[test]
    fn with_a_disk_that_keeps_to_a_rate() {
        let disks = vec![Disk {
            id: DiskId::new("upper").unwrap(),
            path: PathBuf::new(),
            access: Access::ReadWrite,
            rate: Some(DiskRate::new(50).unwrap()),
        }];
        insta::assert_snapshot!(arguments(
            &MachineSpec { disks, ..spec() },
            Accelerator::Tcg
        ));
    }

    #[test]
    fn with_two_disks() {
        let disk = |id: &str, access| Disk {
            id: DiskId::new(id).unwrap(),
            path: "/secret,path".into(),
            access,
            rate: None,
        };
        let disks = vec![
            disk("root", Access::ReadOnly),
            disk("upper", Access::ReadWrite),
        ];
        let list = arguments(&MachineSpec { disks, ..spec() }, Accelerator::Tcg);
        assert!(!list.contains("secret"), "no path may reach QEMU");
        insta::assert_snapshot!(list);
    }

    #[test]
    fn an_unknown_rate_is_told_and_not_to_be_believed() {
        let line = kernel_command_line(&spec(), Accelerator::Tcg, None);
        assert!(line.contains(" tsc_early_khz=2000000 ") && !line.contains(BELIEVE_TSC));
        let line = kernel_command_line(&spec(), Accelerator::Kvm, Some(1));
        assert!(!line.contains("tsc"), "{line}");
    }

    #[test]
    fn a_comma_cannot_end_a_value() {
        assert_eq!(
            Properties::of("socket")
                .with("path", "a,server=on")
                .to_string(),
            "socket,path=a,,server=on"
        );
    }
}
