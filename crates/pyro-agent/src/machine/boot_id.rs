//! What programs read as the id of this boot, in `/proc/sys/kernel/random/boot_id`.
//!
//! The kernel makes its own once and never again, so that the clones of one memory snapshot
//! would share it. A file of ours covers it. A `/proc` that the guest mounts itself shows the
//! kernel's.

use std::io;

use rustix::rand::{GetRandomFlags, getrandom};
use sha2::{Digest, Sha256};

use super::cover::Cover;

const COVER: Cover = Cover {
    name: "boot_id",
    over: "/proc/sys/kernel/random/boot_id",
    mode: 0o444,
};

/// Renews the id. `apart` goes into it beside the kernel's random bytes: clones that have
/// different ones get different ids, also where the kernel's generator is not yet reseeded.
pub(super) fn renew(apart: &[u8]) -> io::Result<()> {
    COVER.renew(format!("{}\n", new_id(apart)?).as_bytes())
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
    let digits = format!("{:032x}", u128::from_be_bytes(bytes));
    let groups = [0..8, 8..12, 12..16, 16..20, 20..32];
    Ok(groups.map(|group| &digits[group]).join("-"))
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
