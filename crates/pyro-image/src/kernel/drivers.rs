//! Whether a kernel without modules can drive the devices of our machines.
//!
//! A driver that is compiled in leaves names and messages of its own in the image; one that is a
//! module, or left out, does not. So the uncompressed image is searched for one text of each.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::disk::DiskError;

/// What a guest needs, and a text that only its driver has.
const DRIVERS: [(&str, &[u8]); 5] = [
    ("virtio_mmio", b"virtio-mmio"),
    ("virtio_blk", b"virtblk"),
    ("virtio_console", b"virtio-ports"),
    ("overlay", b"overlayfs: "),
    ("ext4", b"EXT4-fs"),
];
/// Bytes that are searched at a time.
const CHUNK: usize = 1024 * 1024;
/// The longest text less one: what has to be kept of a chunk for the next.
const OVERLAP: usize = 16;

/// The drivers that an uncompressed kernel lacks. Reads all of it, blocking.
pub fn missing_drivers(vmlinux: &Path) -> Result<Vec<&'static str>, DiskError> {
    let failed = |source| DiskError::new("read", vmlinux, source);
    let mut file = File::open(vmlinux).map_err(failed)?;
    let mut missing = DRIVERS.to_vec();
    let mut buffer = vec![0; CHUNK];
    let mut kept = 0;
    loop {
        let count = file.read(&mut buffer[kept..]).map_err(failed)?;
        if count == 0 || missing.is_empty() {
            return Ok(missing.into_iter().map(|(name, _)| name).collect());
        }
        let end = kept + count;
        missing.retain(|(_, text)| !contains(&buffer[..end], text));
        kept = end.min(OVERLAP);
        buffer.copy_within(end - kept..end, 0);
    }
}

fn contains(bytes: &[u8], text: &[u8]) -> bool {
    let first = text[0];
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|&byte| byte == first) {
        rest = &rest[at..];
        if rest.starts_with(text) {
            return true;
        }
        rest = &rest[1..];
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drivers_are_found_wherever_they_stand() {
        let file = tempfile::NamedTempFile::new().unwrap();
        // One across the border of two chunks.
        let mut image = vec![b'v'; CHUNK - 4];
        image.extend(b"virtio-mmio\0EXT4-fs: x\0virtblk\0");
        image.resize(2 * CHUNK + 9, 0);
        image.extend(b"overlayfs: ");
        std::fs::write(file.path(), &image).unwrap();
        assert_eq!(missing_drivers(file.path()).unwrap(), ["virtio_console"]);
        image.extend(b"virtio-ports");
        std::fs::write(file.path(), &image).unwrap();
        assert!(missing_drivers(file.path()).unwrap().is_empty());
        std::fs::write(file.path(), b"").unwrap();
        assert_eq!(missing_drivers(file.path()).unwrap().len(), DRIVERS.len());
    }
}
