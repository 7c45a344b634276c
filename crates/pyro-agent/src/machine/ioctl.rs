//! The four ioctls that rustix has no safe form of. One of the modules of this crate that may
//! hold `unsafe`; see `docs/design/agent-ioctls.md`.
//!
//! Owns the numbers and layouts of `linux/fs.h` and `linux/random.h`; decides nothing.

use std::ffi::c_int;
use std::fs::File;

use pyro_protocol::limits::MAX_SEED;
use rustix::io::Errno;
use rustix::ioctl::{NoArg, Opcode, Setter, ioctl, opcode};

const FIFREEZE: Opcode = opcode::read_write::<c_int>(b'X', 119);
const FITHAW: Opcode = opcode::read_write::<c_int>(b'X', 120);
const RNDADDENTROPY: Opcode = opcode::write::<[c_int; 2]>(b'R', 3);
const RNDRESEEDCRNG: Opcode = opcode::none(b'R', 7);

/// Writes the file system of `inside` back and stops all writing to it. `EBUSY`: it is frozen
/// already; `EOPNOTSUPP`: it cannot be.
#[expect(unsafe_code, reason = "an ioctl without a safe form")]
pub(super) fn freeze(inside: &File) -> rustix::io::Result<()> {
    // SAFETY: the number must be one whose argument the kernel neither reads nor writes.
    // `FIFREEZE` is answered by the kernel's VFS for every file system (`do_vfs_ioctl`), never
    // by a driver, and `ioctl_fsfreeze` takes no argument although the number announces an
    // `int`. rustix 1.1 has no safe form of it.
    unsafe { ioctl(inside, NoArg::<FIFREEZE>::new()) }
}

/// Lets the file system of `inside` be written again. `EINVAL`: it is not frozen.
#[expect(unsafe_code, reason = "an ioctl without a safe form")]
pub(super) fn thaw(inside: &File) -> rustix::io::Result<()> {
    // SAFETY: as for `FIFREEZE`: answered by the VFS alone, and `ioctl_fsthaw` takes no
    // argument. rustix 1.1 has no safe form of it.
    unsafe { ioctl(inside, NoArg::<FITHAW>::new()) }
}

/// Mixes `seed`, of at most [`MAX_SEED`] bytes, into the entropy pool behind `random`, which
/// must be `/dev/urandom`, and counts all of its bits.
#[expect(unsafe_code, reason = "an ioctl without a safe form")]
pub(super) fn add_entropy(random: &File, seed: &[u8]) -> rustix::io::Result<()> {
    let mut info = PoolInfo {
        entropy_count: 0,
        buf_size: 0,
        buf: [0; MAX_SEED],
    };
    info.buf
        .get_mut(..seed.len())
        .ok_or(Errno::INVAL)?
        .copy_from_slice(seed);
    info.buf_size = c_int::try_from(seed.len()).map_err(|_| Errno::INVAL)?;
    info.entropy_count = info.buf_size * 8;
    // SAFETY: the kernel must do with the pointer what its type allows. `random_ioctl` reads
    // two `int`s at it and then `buf_size` bytes behind them, which is `PoolInfo` in the
    // layout of C with at least that many bytes, as was just checked; it writes nothing. A
    // file that is no such device answers `ENOTTY`, or has another meaning for the number:
    // the caller opens the device by its number. rustix 1.1 has no safe form of it.
    unsafe { ioctl(random, Setter::<RNDADDENTROPY, PoolInfo>::new(info)) }
}

/// Has the kernel's generator draw on the pool behind `random` now, and not at its next turn.
#[expect(unsafe_code, reason = "an ioctl without a safe form")]
pub(super) fn reseed(random: &File) -> rustix::io::Result<()> {
    // SAFETY: the number must be one without an argument. `RNDRESEEDCRNG` is `_IO('R', 7)`,
    // and `random_ioctl` ignores the argument. rustix 1.1 has no safe form of it.
    unsafe { ioctl(random, NoArg::<RNDRESEEDCRNG>::new()) }
}

/// `struct rand_pool_info` with its bytes.
#[repr(C)]
struct PoolInfo {
    /// Bits to count.
    entropy_count: c_int,
    /// Bytes in `buf`.
    buf_size: c_int,
    buf: [u8; MAX_SEED],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_kernels_headers() {
        // x86-64, from `linux/fs.h` and `linux/random.h`.
        assert_eq!(FIFREEZE, 0xc004_5877);
        assert_eq!(FITHAW, 0xc004_5878);
        assert_eq!(RNDADDENTROPY, 0x4008_5203);
        assert_eq!(RNDRESEEDCRNG, 0x5207);
        assert_eq!(std::mem::offset_of!(PoolInfo, buf), 8);
    }

    #[test]
    fn what_is_no_device_refuses_them() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(add_entropy(&file, &[1; 32]), Err(Errno::NOTTY));
        assert_eq!(add_entropy(&file, &[1; MAX_SEED + 1]), Err(Errno::INVAL));
        assert_eq!(reseed(&file), Err(Errno::NOTTY));
    }
}
