//! The layout of the initramfs: the agent as `/init`, a console for its standard files, and
//! the kernel modules in the order in which they are to be loaded.

use std::io::{self, Write};

use crate::AGENT;
use crate::cpio::Writer;

/// A kernel module for the initramfs.
#[derive(Clone, Copy, Debug)]
pub struct Module<'a> {
    /// Its name, without directory and extension.
    pub name: &'a str,
    /// The uncompressed module.
    pub content: &'a [u8],
}

/// The modules of a guest kernel, each list in load order.
#[derive(Clone, Copy, Debug)]
pub struct Modules<'a> {
    /// Loaded at every boot.
    pub boot: &'a [Module<'a>],
    /// Loaded when the machine has a network card.
    pub network: &'a [Module<'a>],
    /// Loaded when the machine has a vsock.
    pub vsock: &'a [Module<'a>],
}

/// Writes the initramfs that boots the agent.
pub fn write<W: Write>(out: W, modules: &Modules<'_>) -> io::Result<W> {
    let mut archive = Writer::new(out);
    for directory in [
        "dev",
        "proc",
        "sys",
        "run",
        "lib",
        "lib/pyro",
        "lib/pyro/boot",
        "lib/pyro/network",
        "lib/pyro/vsock",
    ] {
        archive.directory(directory)?;
    }
    // Without it the kernel starts `/init` with no standard files at all.
    archive.char_device("dev/console", 0o600, 5, 1)?;
    archive.file("init", 0o755, AGENT)?;
    for (directory, list) in [
        ("boot", modules.boot),
        ("network", modules.network),
        ("vsock", modules.vsock),
    ] {
        for (index, module) in list.iter().enumerate() {
            let path = format!("lib/pyro/{directory}/{index:02}-{}.ko", module.name);
            archive.file(&path, 0o644, module.content)?;
        }
    }
    archive.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agent_is_static_and_free_of_name_services() {
        // A static glibc loads code at run time for these: the guest may have another libc.
        let text = String::from_utf8_lossy(AGENT);
        for symbol in ["getaddrinfo", "getpwnam", "libnss_"] {
            assert!(!text.contains(symbol), "{symbol}");
        }
        let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        std::fs::write(&path, AGENT).unwrap();
        let ldd = std::process::Command::new("ldd")
            .arg(&path)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&ldd.stdout).into_owned()
            + &String::from_utf8_lossy(&ldd.stderr);
        assert!(
            said.contains("statically linked") || said.contains("not a dynamic executable"),
            "{said}"
        );
    }

    #[test]
    fn modules_stand_in_load_order() {
        let boot = [
            Module {
                name: "virtio",
                content: b"a",
            },
            Module {
                name: "virtio_blk",
                content: b"b",
            },
        ];
        let vsock = [Module {
            name: "vsock",
            content: b"c",
        }];
        let archive = write(
            Vec::new(),
            &Modules {
                boot: &boot,
                network: &[],
                vsock: &vsock,
            },
        )
        .unwrap();
        let text = String::from_utf8_lossy(&archive);
        let first = text.find("lib/pyro/boot/00-virtio.ko").unwrap();
        let second = text.find("lib/pyro/boot/01-virtio_blk.ko").unwrap();
        assert!(first < second);
        assert!(text.contains("lib/pyro/vsock/00-vsock.ko"));
    }
}
