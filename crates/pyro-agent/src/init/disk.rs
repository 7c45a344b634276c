//! Finding a disk by the id that the host gave it.
//!
//! QEMU tells the id as the disk's serial number. Firecracker cannot: there the host says on
//! the kernel's command line, as `pyro.disks=root,upper`, which ids its disks have, in their
//! order. That is the order of their devices on the virtio bus; the names that the kernel
//! gives (`vda`, `vdb`) follow the order in which a driver took them, which is another matter.
//! Where nobody says anything, as in environments of other makers, the id is the device's name.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a disk may take to appear after its driver was loaded.
const DEADLINE: Duration = Duration::from_secs(5);

/// Time between two looks.
const PAUSE: Duration = Duration::from_millis(2);

/// Where the kernel lists what its virtio transports found, driver or not.
const DEVICES: &str = "/sys/bus/virtio/devices";

/// Virtio's number of a disk.
const DISK: &str = "0x0002";

/// The word on the command line that tells the disks' order.
const ORDER: &str = "pyro.disks";

/// The device node of the disk with the id `id`.
pub(crate) fn find(id: &str) -> Option<PathBuf> {
    let cmdline = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let order = order(&cmdline);
    let give_up = Instant::now() + DEADLINE;
    loop {
        let found = match &order {
            Some(order) => by_order(Path::new(DEVICES), order, id),
            None => by_serial(id),
        };
        if let Some(found) = found {
            return Some(found);
        }
        if Instant::now() >= give_up || !has_driver() {
            return None;
        }
        sleep(PAUSE);
    }
}

/// Whether the kernel can drive the engine's disks at all.
pub(super) fn has_driver() -> bool {
    Path::new("/sys/bus/virtio/drivers/virtio_blk").exists()
}

fn by_serial(id: &str) -> Option<PathBuf> {
    for entry in fs::read_dir("/sys/block").ok()?.flatten() {
        let name = entry.file_name();
        let serial = fs::read_to_string(entry.path().join("serial")).unwrap_or_default();
        if serial.trim_end() == id || name == *id {
            return Some(PathBuf::from("/dev").join(name));
        }
    }
    None
}

/// The ids of the disks in their order, if the command line tells them.
fn order(cmdline: &str) -> Option<Vec<&str>> {
    let (_, ids) = cmdline
        .split_ascii_whitespace()
        .filter_map(|word| word.split_once('='))
        .find(|(key, _)| *key == ORDER)?;
    Some(ids.split(',').collect())
}

/// The node of the disk at the place of `id` in `order`, once a driver has taken it.
fn by_order(devices: &Path, order: &[&str], id: &str) -> Option<PathBuf> {
    let place = order.iter().position(|one| *one == id)?;
    let mut numbers: Vec<u32> = fs::read_dir(devices)
        .ok()?
        .flatten()
        .filter(|entry| {
            fs::read_to_string(entry.path().join("device"))
                .is_ok_and(|number| number.trim_end() == DISK)
        })
        .filter_map(|entry| {
            let name = entry.file_name();
            name.to_str()?.strip_prefix("virtio")?.parse().ok()
        })
        .collect();
    // All of them, or it could be the place of another one.
    if numbers.len() < order.len() {
        return None;
    }
    numbers.sort_unstable();
    let device = devices.join(format!("virtio{}", numbers[place]));
    let node = fs::read_dir(device.join("block")).ok()?.flatten().next()?;
    Some(Path::new("/dev").join(node.file_name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_tells_the_order() {
        assert_eq!(
            order("quiet pyro.disks=root,upper pyro.root=root"),
            Some(vec!["root", "upper"])
        );
        assert_eq!(order("quiet pyro.root=root"), None);
    }

    #[test]
    fn a_disk_is_found_by_its_place_on_the_bus_whatever_its_name() {
        let devices = tempfile::tempdir().unwrap();
        let add = |number: u32, kind: &str, node: Option<&str>| {
            let device = devices.path().join(format!("virtio{number}"));
            fs::create_dir(&device).unwrap();
            fs::write(device.join("device"), format!("{kind}\n")).unwrap();
            if let Some(node) = node {
                fs::create_dir_all(device.join("block").join(node)).unwrap();
            }
        };
        let find = |id: &str| by_order(devices.path(), &["root", "upper", "seed"], id);
        add(10, DISK, Some("vda"));
        add(0, "0x0005", None);
        add(2, DISK, Some("vdb"));
        assert_eq!(find("root"), None, "one is still missing");
        // No driver has taken it yet.
        add(9, DISK, None);
        assert_eq!(find("root"), Some("/dev/vdb".into()));
        assert_eq!(find("upper"), None);
        assert_eq!(find("seed"), Some("/dev/vda".into()));
        fs::create_dir_all(devices.path().join("virtio9/block/vdc")).unwrap();
        assert_eq!(find("upper"), Some("/dev/vdc".into()));
        assert_eq!(find("vda"), None);
    }
}
