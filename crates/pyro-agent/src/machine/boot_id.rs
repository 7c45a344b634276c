//! What programs read as the id of this boot, in `/proc/sys/kernel/random/boot_id`.
//!
//! The kernel makes its own once and never again, so that the clones of one memory snapshot
//! would share it. A file of ours is mounted over it once, and later written anew in place:
//! no mounts pile up, and mount namespaces that the guest has made since see the new id, too.
//! A `/proc` that the guest mounts itself shows the kernel's.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{OFlags, PROC_SUPER_MAGIC, statfs};
use rustix::mount::{UnmountFlags, mount_bind, unmount};
use rustix::rand::{GetRandomFlags, getrandom};
use sha2::{Digest, Sha256};

const KERNELS: &str = "/proc/sys/kernel/random/boot_id";
const DIRECTORY: &str = "/run/pyro";
const OURS: &str = "/run/pyro/boot_id";

/// Renews the id. `apart` goes into it beside the kernel's random bytes: clones that have
/// different ones get different ids, also where the kernel's generator is not yet reseeded.
pub(super) fn renew(apart: &[u8]) -> io::Result<()> {
    let line = format!("{}\n", new_id(apart)?);
    if let Some(mounted) = mounted() {
        mounted.write_all_at(line.as_bytes(), 0)?;
        // The guest may have written more.
        return mounted.set_len(line.len() as u64);
    }
    make(&line)?;
    // Ours of before, whose file the guest has removed.
    if statfs(KERNELS)?.f_type != PROC_SUPER_MAGIC {
        unmount(KERNELS, UnmountFlags::DETACH)?;
    }
    Ok(mount_bind(OURS, KERNELS)?)
}

/// The file of ours, if it is what programs read.
fn mounted() -> Option<File> {
    let file = OpenOptions::new()
        .write(true)
        .custom_flags(no_follow())
        .open(OURS)
        .ok()?;
    let (ours, seen) = (file.metadata().ok()?, fs::metadata(KERNELS).ok()?);
    ((ours.dev(), ours.ino()) == (seen.dev(), seen.ino())).then_some(file)
}

fn make(line: &str) -> io::Result<()> {
    if !Path::new(DIRECTORY).is_dir() {
        fs::DirBuilder::new().mode(0o755).create(DIRECTORY)?;
    }
    match fs::remove_file(OURS) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).open(OURS)?;
    file.write_all(line.as_bytes())?;
    // The umask took its share at the creation.
    file.set_permissions(fs::Permissions::from_mode(0o444))
}

/// A UUID of version 4, as the kernel writes its own.
fn new_id(apart: &[u8]) -> io::Result<String> {
    let mut random = [0; 32];
    getrandom(&mut random, GetRandomFlags::empty())?;
    let hash = Sha256::new()
        .chain_update(random)
        .chain_update(apart)
        .finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash[..16]);
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let groups = [0..8, 8..12, 12..16, 16..20, 20..32];
    Ok(groups.map(|group| &digits[group]).join("-"))
}

fn no_follow() -> i32 {
    OFlags::NOFOLLOW.bits().cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_the_kernels_form_and_is_not_had_twice() {
        let ids = [new_id(b"").unwrap(), new_id(b"").unwrap()];
        assert_ne!(ids[0], ids[1]);
        for id in ids {
            let lengths: Vec<usize> = id.split('-').map(str::len).collect();
            assert_eq!(lengths, [8, 4, 4, 4, 12], "{id}");
            assert!(
                id.bytes()
                    .all(|byte| matches!(byte, b'-' | b'0'..=b'9' | b'a'..=b'f')),
                "{id}"
            );
            assert_eq!(&id[14..15], "4", "{id}");
            assert!("89ab".contains(&id[19..20]), "{id}");
        }
    }
}
