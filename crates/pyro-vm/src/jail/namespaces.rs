//! The namespaces of the engine, and a root file system with nothing in it but the view.
//!
//! Owns the plan, made before the fork, and its execution, which makes system calls only. Everything up to the change of the
//! root is undone by the end of the process, so a step that the host refuses costs the layer and not the machine.
//!
//! There is no process id namespace: see `docs/design/jail.md`.

use super::enter::{make_read_only, unshare};
use super::view::{Entry, View, WORKPLACE};
use crate::spec::Network;
use rustix::fs::{CWD, Mode, OFlags, mkdirat, open, symlinkat};
use rustix::io::{Errno, Result, write};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive,
    mount_change, unmount,
};
use rustix::process::{chdir, pivot_root};
use rustix::thread::UnshareFlags;
use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Directories that every system has, over one of which the new root is built, out of sight of all others.
const BASES: [&str; 6] = ["/tmp", "/mnt", "/media", "/srv", "/var", "/home"];

/// The new root holds directories, links and places to mount on, and no data.
const ROOT_OPTIONS: &std::ffi::CStr = c"size=256k,nr_inodes=256,mode=0755";

const DIRECTORY: Mode = Mode::from_raw_mode(0o755);

/// The namespaces to enter.
#[derive(Debug)]
pub(super) struct Namespaces {
    flags: UnshareFlags,
    maps: Option<Maps>,
    pub(super) root: Option<Root>,
}

impl Namespaces {
    /// Of their own: mounts, System V and POSIX message queues, the host's name, the network unless the guest has one. An
    /// ordinary user needs a user namespace for that, with nobody but the user in it.
    pub(super) fn new(view: &View, network: Network, as_root: bool) -> Self {
        let mut flags = UnshareFlags::NEWNS | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS;
        if network == Network::Off {
            flags |= UnshareFlags::NEWNET;
        }
        if !as_root {
            flags |= UnshareFlags::NEWUSER;
        }
        Self {
            flags,
            maps: (!as_root).then(Maps::of_the_caller),
            root: Root::plan(view),
        }
    }

    /// Enters them.
    pub(super) fn enter(&self) -> Result<()> {
        unshare(self.flags)?;
        match &self.maps {
            Some(maps) => maps.write(),
            None => Ok(()),
        }
    }

    /// Makes the view the root. The directory after that is the workplace, or its top.
    pub(super) fn change_root(&self) -> Result<RootChange> {
        let Some(root) = &self.root else {
            return Ok(RootChange::Refused(Errno::NOENT));
        };
        match root.build() {
            Ok(()) => root.pivot().map(|()| RootChange::Done),
            Err(refused) => Ok(RootChange::Refused(refused)),
        }
    }
}

/// What became of the change of the root.
#[derive(Debug, Clone, Copy)]
pub(super) enum RootChange {
    Done,
    /// Nothing changed.
    Refused(Errno),
}

/// The one user and the one group of a user namespace.
#[derive(Debug)]
struct Maps {
    uid: String,
    gid: String,
}

impl Maps {
    fn of_the_caller() -> Self {
        let one = |id: u32| format!("{id} {id} 1\n");
        Self {
            uid: one(rustix::process::geteuid().as_raw()),
            gid: one(rustix::process::getegid().as_raw()),
        }
    }

    fn write(&self) -> Result<()> {
        for (path, text) in [
            (c"/proc/self/setgroups", "deny"),
            (c"/proc/self/uid_map", self.uid.as_str()),
            (c"/proc/self/gid_map", self.gid.as_str()),
        ] {
            let file = open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
            write(&file, text.as_bytes())?;
        }
        Ok(())
    }
}

/// How the new root is made.
#[derive(Debug)]
pub(super) struct Root {
    base: CString,
    steps: Vec<Step>,
    /// Mounted last, because it alone can be written to.
    workplace: Option<Workplace>,
}

/// The directory that the engine works in.
#[derive(Debug)]
struct Workplace {
    from: CString,
    /// Before the root is changed.
    at: CString,
    /// After that.
    within: CString,
}

#[derive(Debug)]
enum Step {
    Directory(CString),
    EmptyFile(CString),
    Link { at: CString, to: CString },
    BindTree { from: CString, at: CString },
    Bind { from: CString, at: CString },
}

impl Root {
    /// `None` if nothing can serve as the base.
    fn plan(view: &View) -> Option<Self> {
        let base = BASES.iter().map(Path::new).find(|base| {
            fs::symlink_metadata(base).is_ok_and(|found| found.is_dir()) && view.is_outside(base)
        })?;
        let mut plan = Plan {
            base,
            made: BTreeSet::new(),
            steps: Vec::new(),
            workplace: None,
        };
        for entry in &view.entries {
            plan.add(entry)?;
        }
        // Of the processes of the host only this one is to be seen.
        plan.bind(Path::new("/proc/self"), Path::new("/proc/self"), true)?;
        plan.add(&Entry::Link {
            at: "/dev/fd".into(),
            to: "/proc/self/fd".into(),
        })?;
        Some(Self {
            base: c_string(base)?,
            steps: plan.steps,
            workplace: plan.workplace,
        })
    }

    fn build(&self) -> Result<()> {
        rustix::process::umask(Mode::from_raw_mode(0o022));
        // What is mounted here must reach nobody else.
        mount_change(
            c"/",
            MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
        )?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        mount(c"tmpfs", &*self.base, c"tmpfs", flags, ROOT_OPTIONS)?;
        for step in &self.steps {
            step.take()?;
        }
        make_read_only(&self.base)?;
        match &self.workplace {
            Some(place) => mount_bind(&*place.from, &*place.at),
            None => Ok(()),
        }
    }

    fn pivot(&self) -> Result<()> {
        chdir(&*self.base)?;
        // The old root is put on top of the new one, then taken away with all that is mounted in it.
        pivot_root(c".", c".")?;
        unmount(c".", UnmountFlags::DETACH)?;
        chdir(
            self.workplace
                .as_ref()
                .map_or(c"/", |place| place.within.as_c_str()),
        )
    }
}

impl Step {
    fn take(&self) -> Result<()> {
        match self {
            Self::Directory(at) => mkdirat(CWD, &**at, DIRECTORY),
            Self::EmptyFile(at) => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                open(&**at, flags, Mode::from_raw_mode(0o444)).map(drop)
            }
            Self::Link { at, to } => symlinkat(&**to, CWD, &**at),
            Self::BindTree { from, at } => mount_bind_recursive(&**from, &**at),
            Self::Bind { from, at } => mount_bind(&**from, &**at),
        }
    }
}

struct Plan<'a> {
    base: &'a Path,
    made: BTreeSet<std::path::PathBuf>,
    steps: Vec<Step>,
    workplace: Option<Workplace>,
}

impl Plan<'_> {
    fn add(&mut self, entry: &Entry) -> Option<()> {
        match entry {
            Entry::Tree(path) => {
                self.directories(path)?;
                let at = self.within(path)?;
                self.steps.push(Step::BindTree {
                    from: c_string(path)?,
                    at,
                });
            }
            Entry::File { at, from } => self.bind(from, at, false)?,
            Entry::Device { path, .. } => self.bind(path, path, false)?,
            Entry::Link { at, to } => {
                self.directories(at.parent()?)?;
                let at = self.within(at)?;
                self.steps.push(Step::Link {
                    at,
                    to: c_string(to)?,
                });
            }
            Entry::Workplace(path) => {
                let at = Path::new(WORKPLACE);
                self.directories(at)?;
                self.workplace = Some(Workplace {
                    from: c_string(path)?,
                    at: self.within(at)?,
                    within: c_string(at)?,
                });
            }
        }
        Some(())
    }

    fn bind(&mut self, from: &Path, at: &Path, directory: bool) -> Option<()> {
        if directory {
            self.directories(at)?;
        } else {
            self.directories(at.parent()?)?;
            let place = self.within(at)?;
            self.steps.push(Step::EmptyFile(place));
        }
        let at = self.within(at)?;
        self.steps.push(Step::Bind {
            from: c_string(from)?,
            at,
        });
        Some(())
    }

    /// Plans `path` and its parents, those that are not planned yet.
    fn directories(&mut self, path: &Path) -> Option<()> {
        let Some(parent) = path.parent() else {
            return Some(());
        };
        if self.made.contains(path) {
            return Some(());
        }
        self.directories(parent)?;
        let place = self.within(path)?;
        self.steps.push(Step::Directory(place));
        self.made.insert(path.to_owned());
        Some(())
    }

    fn within(&self, path: &Path) -> Option<CString> {
        c_string(&self.base.join(path.strip_prefix("/").ok()?))
    }
}

impl View {
    /// Whether nothing that is to be mounted comes from below `base`, which will be covered.
    fn is_outside(&self, base: &Path) -> bool {
        self.entries.iter().all(|entry| match entry {
            Entry::Tree(path)
            | Entry::Device { path, .. }
            | Entry::File { from: path, .. }
            | Entry::Workplace(path) => !path.starts_with(base),
            Entry::Link { .. } => true,
        })
    }
}

fn c_string(path: &Path) -> Option<CString> {
    CString::new(path.as_os_str().as_bytes()).ok()
}
