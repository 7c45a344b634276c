//! What every guest's kernel is told, whatever engine runs it.
//!
//! Owns those words and the reasons for them. What depends on an engine's devices is the engine's.

/// `panic=-1` makes a panic a reboot, which ends the machine. The self-tests of the kernel's cryptography take 0.3 s of an
/// emulated boot. What the kernel does not know it puts into the environment of the first process: the one for glibc's
/// allocator makes it give memory back after large replies (glibc 2.36; after one of 4 MB an agent holds 4.3 MB with a
/// megabyte that may stay, and 4.0 with a quarter of one).
pub(crate) const FOR_ALL: &[&str] = &[
    "console=ttyS0",
    "quiet",
    "loglevel=4",
    "panic=-1",
    "cryptomgr.notests",
    "MALLOC_TRIM_THRESHOLD_=262144",
];
