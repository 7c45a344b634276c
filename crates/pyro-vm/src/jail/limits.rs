//! The resource limits of the engine's process.
//!
//! Owns the numbers. The address space is not limited: the guest's memory is mapped there, and the engine reserves far more of
//! it than it uses. What a machine takes of the host's memory is limited by its cgroup.

use rustix::process::{Resource, Rlimit, setrlimit};
use std::fs;
use std::os::fd::RawFd;

/// Most descriptors that the engine may open. It needs about 40, and a few for each disk.
const MAX_DESCRIPTORS: u64 = 512;

/// Most processes and threads of a user id that one machine has for itself: a thread for each processor, up to 64 that wait for
/// disks, a few for itself. An ordinary user's id is shared with all that the user runs, so nothing is said there.
pub(super) const MAX_THREADS: u64 = 256;

/// A file that no inherited one is as large as, such as one that a state is saved to, may grow to this.
const MIN_FILE_BYTES: u64 = 1 << 30;

/// The limits, worked out before the fork.
#[derive(Debug)]
pub(super) struct Limits(Vec<(Resource, u64)>);

impl Limits {
    /// Files never grow beyond the largest one that is inherited, or that is announced in bytes.
    pub(super) fn new(inherit: &[RawFd], announced: u64, own_uid: bool) -> Self {
        let largest = inherit
            .iter()
            .filter_map(|descriptor| fs::metadata(format!("/proc/self/fd/{descriptor}")).ok())
            .filter(fs::Metadata::is_file)
            .map(|metadata| metadata.len())
            .fold(announced.max(MIN_FILE_BYTES), u64::max);
        let mut limits = vec![
            (Resource::Core, 0),
            (Resource::Nofile, MAX_DESCRIPTORS),
            (Resource::Fsize, largest),
        ];
        if own_uid {
            limits.push((Resource::Nproc, MAX_THREADS));
        }
        Self(limits)
    }

    /// Sets them for this process. Makes system calls only.
    pub(super) fn set(&self) -> rustix::io::Result<()> {
        for &(resource, limit) in &self.0 {
            setrlimit(
                resource,
                Rlimit {
                    current: Some(limit),
                    maximum: Some(limit),
                },
            )?;
        }
        Ok(())
    }
}
