//! Finding a disk by the id that the host gave it.
//!
//! QEMU tells the id as the disk's serial number. Where an engine cannot, the id is the
//! device's name.

use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a disk may take to appear after its driver was loaded.
const DEADLINE: Duration = Duration::from_secs(5);

/// Time between two looks.
const PAUSE: Duration = Duration::from_millis(2);

/// The device node of the disk with the id `id`.
pub(crate) fn find(id: &str) -> Option<PathBuf> {
    let give_up = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look(id) {
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

fn look(id: &str) -> Option<PathBuf> {
    for entry in std::fs::read_dir("/sys/block").ok()?.flatten() {
        let name = entry.file_name();
        let serial = std::fs::read_to_string(entry.path().join("serial")).unwrap_or_default();
        if serial.trim_end() == id || name == *id {
            return Some(PathBuf::from("/dev").join(name));
        }
    }
    None
}
