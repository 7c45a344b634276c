//! What a machine is made of, checked once at the border.
//!
//! Owns the types of a specification and their limits. Never touches the file system: whether a path can be read is found out
//! when the machine starts.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;

/// Most disks that one machine can have: the machine type has 24 virtio slots, the link, the balloon and a network device take three,
/// and a builder machine with one disk per layer needs many.
pub const MAX_DISKS: usize = 20;

/// Longest list of extra kernel arguments in bytes. The kernel cuts its command line at 2,048 bytes; our own arguments take
/// less than a quarter of it.
pub const MAX_CMDLINE_BYTES: usize = 1_400;

/// Everything that is needed to start a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineSpec {
    /// The name by which a process that was left over is recognised.
    pub id: MachineId,
    /// How many virtual processors the guest sees.
    pub vcpus: Vcpus,
    /// How much memory the guest sees.
    pub memory: MemoryMib,
    /// The kernel: an uncompressed `vmlinux` (starts about 0.3 s sooner under emulation) or a `bzImage`.
    pub kernel: PathBuf,
    /// The initial file system, an uncompressed or compressed cpio archive.
    pub initramfs: PathBuf,
    /// Kernel arguments that are added to the engine's own.
    pub cmdline: Vec<KernelArgument>,
    /// The disks, told apart in the guest by their serial numbers, not by their order.
    pub disks: Vec<Disk>,
    /// Which network device the guest gets.
    pub network: Network,
    /// What becomes of memory that the guest frees.
    pub freed_memory: FreedMemory,
}

impl MachineSpec {
    /// Checks what no single field can know: the number of disks, that their names differ, the length of the command line.
    pub fn check(&self) -> Result<(), SpecError> {
        if self.disks.len() > MAX_DISKS {
            return Err(SpecError::TooManyDisks {
                count: self.disks.len(),
            });
        }
        for (index, disk) in self.disks.iter().enumerate() {
            if self.disks[..index]
                .iter()
                .any(|earlier| earlier.id == disk.id)
            {
                return Err(SpecError::DiskTwice {
                    id: disk.id.clone(),
                });
            }
        }
        let bytes: usize = self
            .cmdline
            .iter()
            .map(|argument| argument.as_str().len() + 1)
            .sum();
        if bytes > MAX_CMDLINE_BYTES {
            return Err(SpecError::CmdlineTooLong { bytes });
        }
        Ok(())
    }
}

/// A block device of the guest, backed by a raw file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// The serial number by which the guest finds the disk.
    pub id: DiskId,
    /// The raw image on the host.
    pub path: PathBuf,
    /// Whether the guest may write.
    pub access: Access,
    /// The most that the guest reads and writes on it; no bound if absent.
    pub rate: Option<DiskRate>,
}

/// Whether the guest may write to a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// The file is opened for reading and the device refuses writes.
    ReadOnly,
    /// The file is opened for reading and writing.
    ReadWrite,
}

/// Which network device the guest gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// None at all.
    Off,
    /// One device behind the engine's user-mode network stack.
    User,
}

/// What becomes of memory that the guest frees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FreedMemory {
    /// It stays with the engine until the machine ends.
    Kept,
    /// The guest reports it and the host has it back, unless the engine is Firecracker, which cannot. Never for a guest whose memory is a private mapping of a file that others
    /// use: the engine (QEMU 7.2) punches holes into that file, also when a guest does so unasked.
    Returned,
}

/// Identifies a machine on its host: 12 lowercase hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MachineId(String);

impl MachineId {
    /// Takes 12 lowercase hexadecimal digits.
    pub fn new(text: impl Into<String>) -> Result<Self, SpecError> {
        let text = text.into();
        let hexadecimal = text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if text.len() == 12 && hexadecimal {
            Ok(Self(text))
        } else {
            Err(SpecError::MachineId { text })
        }
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MachineId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// A number of virtual processors, 1 to 8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vcpus(u8);

impl Vcpus {
    /// Takes 1 to 8.
    pub fn new(count: u8) -> Result<Self, SpecError> {
        if (1..=8).contains(&count) {
            Ok(Self(count))
        } else {
            Err(SpecError::Vcpus { count })
        }
    }

    /// The number.
    pub fn get(self) -> u8 {
        self.0
    }
}

/// An amount of guest memory in MiB, 256 to 32,768.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryMib(u32);

impl MemoryMib {
    /// Takes 256 to 32,768.
    pub fn new(mib: u32) -> Result<Self, SpecError> {
        if (256..=32_768).contains(&mib) {
            Ok(Self(mib))
        } else {
            Err(SpecError::Memory { mib })
        }
    }

    /// The number of MiB.
    pub fn get(self) -> u32 {
        self.0
    }
}

/// How much is read from and written to a disk together, in MiB a second: 1 to 65,536.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskRate(u32);

impl DiskRate {
    /// Takes 1 to 65,536 MiB a second.
    pub fn new(mib_per_second: u32) -> Result<Self, SpecError> {
        if (1..=65_536).contains(&mib_per_second) {
            Ok(Self(mib_per_second))
        } else {
            Err(SpecError::DiskRate { mib_per_second })
        }
    }

    /// MiB a second.
    pub fn mib_per_second(self) -> u32 {
        self.0
    }

    /// Bytes a second.
    pub fn bytes_per_second(self) -> u64 {
        u64::from(self.0) << 20
    }
}

/// The serial number of a disk: 1 to 20 of `a-z`, `0-9` and `-`. Virtio carries no more than 20 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DiskId(String);

impl DiskId {
    /// Takes 1 to 20 of `a-z`, `0-9` and `-`.
    pub fn new(text: impl Into<String>) -> Result<Self, SpecError> {
        let text = text.into();
        let allowed = text
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
        if (1..=20).contains(&text.len()) && allowed {
            Ok(Self(text))
        } else {
            Err(SpecError::DiskId { text })
        }
    }

    /// The serial number.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DiskId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// One word of the kernel's command line, such as `pyro.root=root`: printable ASCII without space and quotation mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelArgument(String);

impl KernelArgument {
    /// Takes one word.
    pub fn new(text: impl Into<String>) -> Result<Self, SpecError> {
        let text = text.into();
        // A quotation mark would let one argument swallow the next; `--` ends the kernel's own arguments.
        let allowed = text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'"');
        let word = !text.is_empty() && allowed && text != "--";
        if word {
            Ok(Self(text))
        } else {
            Err(SpecError::KernelArgument { text })
        }
    }

    /// The word.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A value that no machine can have.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum SpecError {
    /// Not 1 to 65,536.
    #[error("{mib_per_second} MiB a second is not between 1 and 65536")]
    DiskRate {
        /// What was given.
        mib_per_second: u32,
    },
    /// Not 12 lowercase hexadecimal digits.
    #[error("machine id {text:?} is not 12 lowercase hexadecimal digits")]
    MachineId {
        /// What was given.
        text: String,
    },
    /// Not 1 to 8.
    #[error("{count} virtual processors are not between 1 and 8")]
    Vcpus {
        /// What was given.
        count: u8,
    },
    /// Not 256 to 32,768.
    #[error("{mib} MiB of memory are not between 256 and 32768")]
    Memory {
        /// What was given.
        mib: u32,
    },
    /// Not a serial number.
    #[error("disk id {text:?} is not 1 to 20 of `a-z`, `0-9` and `-`")]
    DiskId {
        /// What was given.
        text: String,
    },
    /// Not one word of a kernel command line.
    #[error("kernel argument {text:?} is not one printable word without quotation marks")]
    KernelArgument {
        /// What was given.
        text: String,
    },
    /// Two disks with one serial number.
    #[error("two disks are called `{id}`")]
    DiskTwice {
        /// Their name.
        id: DiskId,
    },
    /// More disks than the machine has room for.
    #[error("{count} disks are more than the {MAX_DISKS} that a machine can have")]
    TooManyDisks {
        /// How many were given.
        count: usize,
    },
    /// More kernel arguments than the kernel reads.
    #[error("{bytes} bytes of kernel arguments are more than {MAX_CMDLINE_BYTES}")]
    CmdlineTooLong {
        /// How long they are together.
        bytes: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_what_is_allowed_and_refuses_its_neighbours() {
        assert!(MachineId::new("0123456789ab").is_ok());
        for id in [
            "",
            "0123456789a",
            "0123456789abc",
            "0123456789AB",
            "0123456789a/",
        ] {
            assert!(MachineId::new(id).is_err(), "{id}");
        }
        assert!(Vcpus::new(1).is_ok() && Vcpus::new(8).is_ok());
        assert!(Vcpus::new(0).is_err() && Vcpus::new(9).is_err());
        assert!(MemoryMib::new(256).is_ok() && MemoryMib::new(32_768).is_ok());
        assert!(MemoryMib::new(255).is_err() && MemoryMib::new(32_769).is_err());
        assert!(DiskId::new("layer-12345678901234").is_ok());
        for id in ["", "layer-123456789012345", "a,b", "A", "a b"] {
            assert!(DiskId::new(id).is_err(), "{id}");
        }
        assert!(KernelArgument::new("pyro.root=root,ro").is_ok());
        for word in ["", "a b", "a\"b", "a\nb", "--", "é"] {
            assert!(KernelArgument::new(word).is_err(), "{word}");
        }
    }

    #[test]
    fn check_sees_what_no_field_can_know() {
        let disk = |id: &str| Disk {
            id: DiskId::new(id).unwrap(),
            path: PathBuf::new(),
            access: Access::ReadOnly,
            rate: None,
        };
        let mut spec = MachineSpec {
            id: MachineId::new("0123456789ab").unwrap(),
            vcpus: Vcpus::new(1).unwrap(),
            memory: MemoryMib::new(256).unwrap(),
            kernel: PathBuf::new(),
            initramfs: PathBuf::new(),
            cmdline: Vec::new(),
            disks: vec![disk("a"), disk("b")],
            network: Network::Off,
            freed_memory: FreedMemory::Returned,
        };
        assert_eq!(spec.check(), Ok(()));
        spec.disks.push(disk("a"));
        assert_eq!(
            spec.check(),
            Err(SpecError::DiskTwice {
                id: DiskId::new("a").unwrap()
            })
        );
        spec.disks = (0..=MAX_DISKS)
            .map(|number| disk(&number.to_string()))
            .collect();
        assert_eq!(
            spec.check(),
            Err(SpecError::TooManyDisks {
                count: MAX_DISKS + 1
            })
        );
        spec.disks.clear();
        spec.cmdline = vec![KernelArgument::new("x".repeat(699)).unwrap(); 2];
        assert_eq!(spec.check(), Ok(()));
        spec.cmdline.push(KernelArgument::new("y").unwrap());
        assert_eq!(
            spec.check(),
            Err(SpecError::CmdlineTooLong { bytes: 1_402 })
        );
    }
}
