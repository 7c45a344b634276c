//! The arguments of the QEMU that is the lab.
//!
//! Pure: owns every word of the list and the reason for it.

use std::path::Path;

use super::options::Options;

/// Command line of the lab's kernel. What slows emulation down and protects nothing here is off. The TSC's speed is told, because
/// measuring it fails now and then under emulation, and then the boot hangs.
const KERNEL_ARGUMENTS: &str = "console=ttyS0 quiet panic=-1 mitigations=off cryptomgr.notests \
                                tsc_early_khz=2000000 lpj=4000000 no_timer_check";

/// All that the emulator can do, virtualization by SVM with it, but three things that cost it time: LA57 adds a level to each page
/// walk, and with ERMS or FSRM kernels copy by `rep movsb`, which is emulated byte by byte.
const PROCESSOR: &str = "max,-la57,-erms,-fsrm";

/// Size of what is kept of translated code, in MiB: a kernel, its guests and their kernels.
const TRANSLATED_MIB: u32 = 512;

/// The streams out of the lab, each a port and a socket of this name.
pub(super) const STREAMS: [&str; 3] = ["stdout", "stderr", "status"];

/// The files of one lab.
#[derive(Debug)]
pub(super) struct Files<'a> {
    pub(super) kernel: &'a Path,
    pub(super) initramfs: &'a Path,
    pub(super) console: &'a Path,
    /// A directory with the order.
    pub(super) order: &'a Path,
    /// The directory that holds the kernel's directory of modules.
    pub(super) modules: &'a Path,
    /// A directory with a listening socket for each stream.
    pub(super) sockets: &'a Path,
}

/// The words after the program's name. The scratch disk is standard input.
pub(super) fn list(options: &Options, files: &Files<'_>) -> Vec<String> {
    let mut words: Vec<String> = [
        "-nodefaults",
        "-no-user-config",
        "-no-reboot",
        "-display",
        "none",
        "-nic",
        "none",
    ]
    .map(str::to_owned)
    .into();
    let mut option = |name: &str, value: String| words.extend([name.to_owned(), value]);
    option("-machine", "q35".into());
    option(
        "-accel",
        format!("tcg,thread=multi,tb-size={TRANSLATED_MIB}"),
    );
    option("-cpu", PROCESSOR.into());
    option("-smp", options.cpus.to_string());
    option("-m", format!("{}M", options.memory_mib));
    option("-kernel", files.kernel.display().to_string());
    option("-initrd", files.initramfs.display().to_string());
    option("-append", KERNEL_ARGUMENTS.into());
    option(
        "-chardev",
        format!("file,id=console,path={}", value(files.console)),
    );
    option("-serial", "chardev:console".into());
    for (tag, path) in [
        ("host", Path::new("/")),
        ("order", files.order),
        ("modules", files.modules),
    ] {
        // Inode numbers of several file systems under one root must not meet.
        let sharing = "security_model=none,readonly=on,multidevs=remap";
        option(
            "-virtfs",
            format!("local,mount_tag={tag},path={},{sharing}", value(path)),
        );
    }
    // Nobody reads the disk once the lab has ended, so nothing is ever flushed.
    let disk = "file=/dev/fd/0,format=raw,if=virtio,cache=unsafe,discard=unmap,file.locking=off";
    option("-drive", disk.into());
    option("-device", "virtio-rng-pci".into());
    option("-device", "virtio-serial-pci".into());
    for name in STREAMS {
        let socket = value(&files.sockets.join(name));
        option("-chardev", format!("socket,id={name},path={socket}"));
        option(
            "-device",
            format!("virtserialport,chardev={name},name={name}"),
        );
    }
    words
}

/// A path as the value of a property: QEMU wants commas doubled.
fn value(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

#[cfg(test)]
pub(super) fn sample() -> Vec<String> {
    let files = Files {
        kernel: Path::new("/lab/vmlinuz"),
        initramfs: Path::new("/run/initramfs"),
        console: Path::new("/run/console"),
        order: Path::new("/run/a,b"),
        modules: Path::new("/lab/modules"),
        sockets: Path::new("/tmp/s"),
    };
    list(&Options::of(vec!["true".into()]), &files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_list() {
        let text = sample().join(" ").replace(" -", "\n-");
        assert_eq!(
            text,
            "\
-nodefaults
-no-user-config
-no-reboot
-display none
-nic none
-machine q35
-accel tcg,thread=multi,tb-size=512
-cpu max,-la57,-erms,-fsrm
-smp 2
-m 3072M
-kernel /lab/vmlinuz
-initrd /run/initramfs
-append console=ttyS0 quiet panic=-1 mitigations=off cryptomgr.notests tsc_early_khz=2000000 lpj=4000000 no_timer_check
-chardev file,id=console,path=/run/console
-serial chardev:console
-virtfs local,mount_tag=host,path=/,security_model=none,readonly=on,multidevs=remap
-virtfs local,mount_tag=order,path=/run/a,,b,security_model=none,readonly=on,multidevs=remap
-virtfs local,mount_tag=modules,path=/lab/modules,security_model=none,readonly=on,multidevs=remap
-drive file=/dev/fd/0,format=raw,if=virtio,cache=unsafe,discard=unmap,file.locking=off
-device virtio-rng-pci
-device virtio-serial-pci
-chardev socket,id=stdout,path=/tmp/s/stdout
-device virtserialport,chardev=stdout,name=stdout
-chardev socket,id=stderr,path=/tmp/s/stderr
-device virtserialport,chardev=stderr,name=stderr
-chardev socket,id=status,path=/tmp/s/status
-device virtserialport,chardev=status,name=status"
        );
    }
}
