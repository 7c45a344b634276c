//! What the agent changes about the machine that it runs in, behind a seam: only the first
//! process of a machine gets at the real clock, entropy pool and names, so that an agent in
//! a test cannot change its host, not even as root.

use std::fmt::Debug;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use crate::clock;

/// The changeable parts of a machine. Every method may block.
pub trait Settings: Debug + Send + Sync {
    /// Sets the wall clock; returns the new time minus the old one in nanoseconds.
    fn set_clock(&self, unix_ns: u64) -> io::Result<i64>;

    /// Mixes `seed` into the kernel's entropy pool. Returns whether the kernel counted it
    /// and reseeded its generator at once.
    fn add_entropy(&self, seed: &[u8]) -> io::Result<bool>;

    /// Sets the kernel's host name.
    fn set_hostname(&self, name: &str) -> io::Result<()>;

    /// The root directory, whose `/etc` holds the names.
    fn root(&self) -> io::Result<&Path>;

    /// Writes the root file system back.
    fn sync(&self) -> io::Result<()>;
}

/// The settings that this process may change.
pub(crate) fn of_this_process() -> Arc<dyn Settings> {
    if rustix::process::getpid().is_init() {
        Arc::new(Guest { _private: () })
    } else {
        Arc::new(Elsewhere)
    }
}

/// A machine of ours, seen from its first process.
#[derive(Debug)]
struct Guest {
    _private: (),
}

impl Settings for Guest {
    fn set_clock(&self, unix_ns: u64) -> io::Result<i64> {
        Ok(clock::set_wall_clock(unix_ns)?)
    }

    /// A write to `/dev/urandom` goes into the input pool, uncounted: the generator, and
    /// with it `getrandom(2)`, draws on it at its next reseeding, which Linux does every 60
    /// seconds once the boot is over (5 s and up in the first minutes). Counting and
    /// reseeding at once take the ioctls `RNDADDENTROPY` and `RNDRESEEDCRNG`; rustix 1.1
    /// has no safe form of them and this crate allows no `unsafe` here. Until that reseeding
    /// two clones of one snapshot may draw the same bytes.
    fn add_entropy(&self, seed: &[u8]) -> io::Result<bool> {
        File::options()
            .write(true)
            .open("/dev/urandom")?
            .write_all(seed)?;
        Ok(false)
    }

    fn set_hostname(&self, name: &str) -> io::Result<()> {
        Ok(rustix::system::sethostname(name.as_bytes())?)
    }

    fn root(&self) -> io::Result<&Path> {
        Ok(Path::new("/"))
    }

    /// The root is an overlay, which passes the call on to the file system of its upper
    /// layer and hands back that one's write errors.
    fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(File::open("/")?)?)
    }
}

/// Not a machine of ours: nothing may be changed.
#[derive(Debug)]
struct Elsewhere;

impl Elsewhere {
    fn refuse<T>() -> io::Result<T> {
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "the agent is not the first process of a machine",
        ))
    }
}

impl Settings for Elsewhere {
    fn set_clock(&self, _unix_ns: u64) -> io::Result<i64> {
        Self::refuse()
    }

    fn add_entropy(&self, _seed: &[u8]) -> io::Result<bool> {
        Self::refuse()
    }

    fn set_hostname(&self, _name: &str) -> io::Result<()> {
        Self::refuse()
    }

    fn root(&self) -> io::Result<&Path> {
        Self::refuse()
    }

    fn sync(&self) -> io::Result<()> {
        Self::refuse()
    }
}
