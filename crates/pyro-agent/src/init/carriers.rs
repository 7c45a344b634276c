//! Which carriers the machine has for the agent's streams.
//!
//! Owns the look at the machine's devices; never opens one. Not a word on the kernel's
//! command line, which could say other than the machine has.

use std::fs;
use std::path::Path;

use super::fault::Fault;

/// Where the kernel lists what its virtio transports found, driver or not.
const DEVICES: &str = "/sys/bus/virtio/devices";

/// Virtio's number of a console device, whose ports include the link's.
const CONSOLE: &str = "0x0003";

/// Virtio's number of a socket device.
const VSOCK: &str = "0x0013";

/// What the agent is reached over: at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carriers {
    /// The link over a virtio-serial port.
    Link,
    /// A vsock.
    Vsock,
    /// Both at once.
    Both,
}

impl Carriers {
    /// Looks at this machine. The driver of its virtio transport must be loaded.
    pub(super) fn find() -> Result<Self, Fault> {
        let devices = Path::new(DEVICES);
        Self::among(devices).ok_or_else(|| {
            // Every machine of ours has some: a kernel that shows none cannot drive them.
            let none = fs::read_dir(devices).map_or(true, |mut found| found.next().is_none());
            Fault::kernel(if none {
                "this kernel has no driver for virtio devices, built in or as a module"
            } else {
                "the machine has no virtio-serial port and no vsock to be reached over"
            })
        })
    }

    /// Whether the link is among them.
    pub(super) fn have_link(self) -> bool {
        matches!(self, Self::Link | Self::Both)
    }

    /// Whether a vsock is among them.
    pub(super) fn have_vsock(self) -> bool {
        matches!(self, Self::Vsock | Self::Both)
    }

    fn among(devices: &Path) -> Option<Self> {
        let numbers: Vec<String> = fs::read_dir(devices)
            .ok()?
            .flatten()
            .filter_map(|entry| fs::read_to_string(entry.path().join("device")).ok())
            .collect();
        let has = |number| numbers.iter().any(|one| one.trim_end() == number);
        match (has(CONSOLE), has(VSOCK)) {
            (true, false) => Some(Self::Link),
            (false, true) => Some(Self::Vsock),
            (true, true) => Some(Self::Both),
            (false, false) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_devices_tell_the_carriers() {
        // A disk, a network card, then what matters.
        let among = |numbers: &[&str]| {
            let devices = tempfile::tempdir().unwrap();
            for (index, number) in ["0x0002", "0x0001"].iter().chain(numbers).enumerate() {
                let device = devices.path().join(format!("virtio{index}"));
                fs::create_dir(&device).unwrap();
                fs::write(device.join("device"), format!("{number}\n")).unwrap();
            }
            Carriers::among(devices.path())
        };
        assert_eq!(among(&["0x0003"]), Some(Carriers::Link));
        assert_eq!(among(&["0x0013"]), Some(Carriers::Vsock));
        assert_eq!(among(&["0x0013", "0x0003"]), Some(Carriers::Both));
        assert_eq!(among(&[]), None);
        assert_eq!(Carriers::among(Path::new("/no/such/directory")), None);
    }
}
