//! The confinement of the engine's process: what happens between fork and exec.
//!
//! Owns what the engine starts with: its user id, namespaces, root file system, rules, limits and file descriptors, and that it
//! dies with the thread that started it. Never chooses what the engine is or what it is told; the engine's own system call
//! filter is its `-sandbox` argument.
//!
//! A process that escapes from the engine finds itself without capabilities and unable to gain any, with no descriptor but
//! those of its machine, in a file system that holds nothing but programs, and without a network unless its guest has one.
//! Where the host refuses a layer the machine runs without it, and [`layers()`] tells.

mod cgroup;
mod enter;
mod identity;
mod landlock;
mod layers;
mod limits;
mod namespaces;
#[cfg(test)]
mod tests;
mod view;

pub use cgroup::{CgroupPath, NoCgroup};
pub use identity::MachineUid;
pub use layers::{Layer, layers};

use crate::spec::Network;
use identity::Identity;
use limits::Limits;
use namespaces::Namespaces;
use std::os::fd::{OwnedFd, RawFd};
use std::path::Path;
use std::process::Command;
use view::View;

/// What an engine is given.
#[derive(Debug)]
pub(crate) struct JailPlan<'a> {
    /// The program, by an absolute path without symbolic links.
    pub(crate) program: &'a Path,
    /// The user to become: needed for root, impossible for others.
    pub(crate) uid: Option<MachineUid>,
    /// A group to be in besides. The group of root is passed over.
    pub(crate) group: Option<u32>,
    /// Of all descriptors, only these survive; they keep their numbers. Files among them may be opened anew through
    /// `/proc/self/fd`, in the mode in which they are open.
    pub(crate) inherit: Vec<RawFd>,
    /// Device files that may be opened for reading and writing.
    pub(crate) devices: &'a [&'a Path],
    /// With [`Network::User`] the engine keeps the host's network.
    pub(crate) network: Network,
    /// The file by which the engine enters its cgroup.
    pub(crate) cgroup: Option<OwnedFd>,
    /// The directory that the engine works in.
    pub(crate) workplace: Option<Workplace<'a>>,
}

/// A directory in which the engine makes sockets and writes files that the host has put there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Workplace<'a> {
    /// By an absolute path without symbolic links. The command's current directory must be the same one: it is where the
    /// engine begins on a host that refuses the change of the root.
    pub(crate) path: &'a Path,
    /// How large a file may become, in bytes.
    pub(crate) largest_file: u64,
}

/// A jail that is ready to be entered.
#[derive(Debug)]
pub(crate) struct Jail {
    entry: enter::Entry,
}

impl Jail {
    /// Prepares everything that can be prepared before the fork.
    pub(crate) fn new(plan: JailPlan<'_>) -> Result<Self, JailError> {
        let identity = Identity::new(plan.uid, plan.group)?;
        let workplace = plan.workplace.map(|place| place.path);
        let view = View::of(plan.program, plan.devices, plan.network, workplace);
        let largest_file = plan.workplace.map_or(0, |place| place.largest_file);
        Ok(Self {
            entry: enter::Entry {
                parent: rustix::process::getpid(),
                limits: Limits::new(&plan.inherit, largest_file, identity.is_some()),
                namespaces: Some(Namespaces::new(&view, plan.network, identity.is_some())),
                ruleset: landlock::ruleset(&view, &plan.inherit, plan.network)?,
                inherit: plan.inherit,
                cgroup: plan.cgroup,
                identity,
                report: None,
            },
        })
    }

    /// Has the child write into `pipe` how far it got, before it executes the program.
    fn reporting_to(mut self, pipe: OwnedFd) -> Self {
        self.entry.report = Some(pipe);
        self
    }

    /// Has `command` enter the jail before it executes the program.
    pub(crate) fn confine(self, command: &mut Command) {
        enter::before_exec(command, self.entry);
    }
}

/// Why a jail cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JailError {
    #[error("only root can run the engine as another user")]
    NotRoot,
    #[error("the engine must not run as root")]
    RootWithoutUid,
    #[error("making the rules of what the engine may open")]
    Rules {
        #[from]
        source: ::landlock::RulesetError,
    },
}
