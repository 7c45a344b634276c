//! The guest's mounts: kernel file systems first, then the overlay that becomes the root.
//!
//! The image is mounted read-only and never changed; everything that the guest writes goes
//! to the upper disk.

use std::ffi::CString;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use pyro_archive::beneath::DIRECTORY;
use rustix::fs::Mode;
use rustix::mount::{MountFlags, OpenTreeFlags, mount, mount_move, open_tree};

use super::cmdline::RootDisks;
use super::disk;
use super::fault::Fault;
use super::spare;
use crate::serve::Layers;

const IMAGE: &str = "/pyro/image";
const UPPER: &str = "/pyro/upper";
const UPPER_LAYER: &str = "/pyro/upper/upper";
const CGROUPS: &str = "/sys/fs/cgroup";
const KEPT: &str = "/pyro/upper/agent";
const SPARE: &str = "/pyro/upper/spare";
const ROOT: &str = "/pyro/root";

/// Mounts what the boot itself needs.
pub(super) fn early() -> Result<(), Fault> {
    for (kind, at) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        kernel_fs(kind, at, MountFlags::empty(), None).map_err(Fault::kernel)?;
    }
    Ok(())
}

/// What the overlay that is the root was made of: outside of the tree that the guest sees.
pub(super) struct Below {
    /// A directory on the writable disk, to freeze it by.
    pub(super) disk: File,
    /// A directory of the agent's own on the writable disk, beside the overlay's: it stays and
    /// goes with the disk, and is in no tree that anybody sees.
    pub(super) kept: OwnedFd,
    /// The layers.
    pub(super) layers: Layers,
}

/// Makes the overlay of image and upper disk the root.
pub(super) fn enter_root(disks: &RootDisks) -> Result<Below, Fault> {
    mount_disk(&disks.image, IMAGE, MountFlags::RDONLY, c"")?;
    // Zeroing inode tables in the background would fill the sparse disk for nothing.
    mount_disk(&disks.upper, UPPER, MountFlags::NOATIME, c"noinit_itable")?;
    let disk = File::open(UPPER)
        .map_err(|error| Fault::image(format!("opening the upper disk: {error}")))?;
    for directory in [UPPER_LAYER, "/pyro/upper/work", KEPT, ROOT] {
        make_dir(directory).map_err(Fault::image)?;
    }
    // Whatever the kernel was built to do by itself: what was changed is told from the upper
    // layer, which says it all without redirections and copies of metadata alone.
    let options = c"lowerdir=/pyro/image,upperdir=/pyro/upper/upper,workdir=/pyro/upper/work,redirect_dir=nofollow,metacopy=off";
    spare::give_up(Path::new(SPARE));
    mount(c"overlay", ROOT, c"overlay", MountFlags::NOATIME, options)
        .map_err(|errno| Fault::kernel(format!("mounting the overlay: {errno}")))?;
    // A full disk that keeps none boots this time.
    let _ = spare::take(Path::new(SPARE));
    let open = |path: &str| {
        rustix::fs::open(path, DIRECTORY, Mode::empty())
            .map_err(|errno| Fault::agent(format!("opening {path}: {errno}")))
    };
    let below = Below {
        disk,
        kept: open(KEPT)?,
        layers: Layers {
            upper: open(UPPER_LAYER)?,
            lower: open(IMAGE)?,
        },
    };
    for at in ["/dev", "/proc", "/sys"] {
        let target = format!("{ROOT}{at}");
        make_dir(&target).map_err(Fault::image)?;
        mount_move(at, target.as_str())
            .map_err(|errno| Fault::agent(format!("moving {at}: {errno}")))?;
    }
    // The initramfs cannot be left by `pivot_root`: it is covered instead.
    let covered = rustix::process::chdir(ROOT)
        .and_then(|()| mount_move(".", "/"))
        .and_then(|()| rustix::process::chroot("."))
        .and_then(|()| rustix::process::chdir("/"));
    covered.map_err(|errno| Fault::agent(format!("entering the root: {errno}")))?;
    Ok(below)
}

/// Mounts what programs in the guest expect.
pub(super) fn late() -> Result<(), Fault> {
    let no_devices = MountFlags::NOSUID | MountFlags::NODEV;
    kernel_fs(
        "devpts",
        "/dev/pts",
        MountFlags::NOSUID,
        Some(c"mode=620,gid=5,ptmxmode=666"),
    )
    .map_err(Fault::kernel)?;
    for (kind, at, options) in [
        ("tmpfs", "/dev/shm", Some(c"mode=1777")),
        ("tmpfs", "/run", Some(c"mode=755")),
        ("cgroup2", CGROUPS, None),
    ] {
        kernel_fs(kind, at, no_devices, options).map_err(Fault::kernel)?;
    }
    let links = [
        ("/proc/self/fd", "/dev/fd"),
        ("/proc/self/fd/0", "/dev/stdin"),
        ("/proc/self/fd/1", "/dev/stdout"),
        ("/proc/self/fd/2", "/dev/stderr"),
    ];
    for (target, link) in links {
        // An image or a kernel that brings its own keeps it.
        let _ = std::os::unix::fs::symlink(target, link);
    }
    let _ = rustix::system::sethostname(b"pyro");
    Ok(())
}

/// The control groups as a mount of the agent's own, which nobody finds, covers or takes away.
/// `None` where the kernel has no such mounts.
pub(super) fn own_cgroups() -> Option<OwnedFd> {
    let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    open_tree(rustix::fs::CWD, CGROUPS, clone).ok()
}

/// Mounts the ext4 disk with the id `id` at `at`.
pub(super) fn mount_disk(
    id: &str,
    at: &str,
    flags: MountFlags,
    options: &std::ffi::CStr,
) -> Result<(), Fault> {
    let device = disk::find(id).ok_or_else(|| {
        if disk::has_driver() {
            Fault::image(format!("there is no disk `{id}`"))
        } else {
            Fault::kernel("this kernel has no driver for virtio disks, built in or as a module")
        }
    })?;
    make_dir(at).map_err(Fault::agent)?;
    let source = CString::new(device.as_os_str().as_bytes()).expect("a device name has no NUL");
    mount(source.as_c_str(), at, c"ext4", flags, options)
        .map_err(|errno| Fault::image(format!("mounting the disk `{id}` as ext4: {errno}")))
}

fn kernel_fs(
    kind: &str,
    at: &str,
    flags: MountFlags,
    options: Option<&std::ffi::CStr>,
) -> Result<(), String> {
    make_dir(at)?;
    mount(kind, at, kind, flags, options)
        .map_err(|errno| format!("mounting {kind} at {at}: {errno}"))
}

fn make_dir(path: &str) -> Result<(), String> {
    if Path::new(path).is_dir() {
        return Ok(());
    }
    fs::create_dir_all(path).map_err(|error| format!("making {path}: {error}"))
}
