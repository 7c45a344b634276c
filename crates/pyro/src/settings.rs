//! Where everything lies and what runs it. Plain values: whoever embeds the SDK decides
//! where they come from.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pyro_image::catalog::PLATFORM;
use pyro_image::oci::RegistrySettings;
use pyro_image::policy::Policy;
use pyro_image::runtime::Release;
use pyro_image::{Catalog, EnvironmentStore, KernelStore, RuntimeStore};
use pyro_protocol::supervise::EngineChoice;

use crate::tree::Unfinished;

/// Everything the SDK must be told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The directories.
    pub home: Home,
    /// The `pyro` program, which also runs supervisors.
    pub program: PathBuf,
    /// Directories to look for QEMU and other host programs, `:`-separated.
    pub search_path: String,
    /// A QEMU to use instead of the one in the search path.
    pub qemu: Option<PathBuf>,
    /// A Firecracker to use instead of the installed one and the one in the search path.
    pub firecracker: Option<PathBuf>,
    /// A kernel to use instead of the environment's: an image, or a directory as in the
    /// kernel store.
    pub kernel: Option<PathBuf>,
    /// The engine for machines.
    pub engine: EngineChoice,
    /// The environments that can be asked for by name.
    pub catalog: Catalog,
    /// How registries are reached.
    pub registries: RegistrySettings,
    /// Which images may be used.
    pub policy: Arc<Policy>,
    /// Nothing is fetched over the network: what is not there is an error.
    pub offline: bool,
    /// The most bytes of an image's layers together once they are decoded; see
    /// [`MAX_IMAGE_BYTES`].
    pub max_image_bytes: u64,
    /// The most that all templates together may take on the disk, in bytes; see
    /// [`MAX_TEMPLATE_BYTES`].
    pub max_template_bytes: u64,
    /// How many workspaces there may be and what they may take.
    pub workspace_limits: WorkspaceLimits,
}

/// How many workspaces there may be and what they may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkspaceLimits {
    /// Workspaces in all, those that are stopped too.
    pub workspaces: u64,
    /// Workspaces whose machine runs or is paused.
    pub running: u64,
    /// Memory of those together, in MiB, as they were given it.
    pub memory_mib: u64,
    /// What workspaces, snapshots and seeds may take on the disk together, in bytes.
    pub disk_bytes: u64,
    /// How long a workspace that stopped because nobody used it is kept.
    pub grace: Duration,
}

impl Default for WorkspaceLimits {
    fn default() -> Self {
        Self {
            workspaces: 200,
            running: 32,
            memory_mib: 64 * 1024,
            disk_bytes: 64 * 1024 * 1024 * 1024,
            grace: Duration::from_hours(7 * 24),
        }
    }
}

/// Room for some dozens of templates of about 100 MB.
pub const MAX_TEMPLATE_BYTES: u64 = 4 * 1024 * 1024 * 1024;

/// Beyond every image in use, and less than what fills a disk unnoticed.
pub const MAX_IMAGE_BYTES: u64 = 64 * 1024 * 1024 * 1024;

impl Settings {
    /// Settings with the product's own catalog, direct registries and the best engine. `program`
    /// is the `pyro` to start supervisors with, `search_path` the directories to look for QEMU in.
    pub fn new(home: Home, program: PathBuf, search_path: String) -> Self {
        Self {
            home,
            program,
            search_path,
            qemu: None,
            firecracker: None,
            kernel: None,
            engine: EngineChoice::Auto,
            catalog: Catalog::builtin(),
            registries: RegistrySettings::default(),
            policy: Arc::default(),
            offline: false,
            max_image_bytes: MAX_IMAGE_BYTES,
            max_template_bytes: MAX_TEMPLATE_BYTES,
            workspace_limits: WorkspaceLimits::default(),
        }
    }

    /// The store of environments.
    pub fn environment_store(&self) -> EnvironmentStore {
        EnvironmentStore::new(&self.home.environments, PLATFORM, self.catalog.clone())
    }
}

/// The directories, all private to the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    /// What can be made again: kernels, blank disks, initramfs.
    pub cache: PathBuf,
    /// Installed environments; by default below `cache`.
    pub environments: PathBuf,
    /// What cannot: machines, logs, what was found out about this host.
    pub state: PathBuf,
    /// Sockets. Its path must be short: a socket's path has at most 107 bytes.
    pub runtime: PathBuf,
}

impl Home {
    /// Directories below the three given ones.
    pub fn new(cache: PathBuf, state: PathBuf, runtime: PathBuf) -> Self {
        Self {
            environments: cache.join("environments"),
            cache,
            state,
            runtime,
        }
    }

    /// The store of guest kernels.
    pub fn kernel_store(&self) -> KernelStore {
        KernelStore::new(self.cache.join("kernels"))
    }

    /// The store of engines that were fetched.
    pub fn runtime_store(&self) -> RuntimeStore {
        RuntimeStore::new(self.cache.join("runtime"))
    }

    /// Where the Firecracker of this version is, once it was fetched.
    pub fn installed_firecracker(&self) -> PathBuf {
        self.runtime_store().directory_of(&Release::firecracker())
    }

    /// Initramfs files, one per agent build and kernel.
    pub fn initramfs(&self) -> PathBuf {
        self.cache.join("initramfs")
    }

    /// Blank disks to be cloned.
    pub fn blank_disks(&self) -> PathBuf {
        self.cache.join("blank")
    }

    /// Machines that have booted, kept so that others go on from them.
    pub fn templates(&self) -> PathBuf {
        self.cache.join("templates")
    }

    /// One directory per live machine.
    pub fn machines(&self) -> PathBuf {
        self.state.join("machines")
    }

    /// Logs of machines that failed.
    pub fn logs(&self) -> PathBuf {
        self.state.join("logs")
    }

    /// What is known of workspaces.
    pub fn workspace_database(&self) -> PathBuf {
        self.state.join("workspaces.db")
    }

    /// One directory per workspace.
    pub fn workspaces(&self) -> PathBuf {
        self.state.join("workspaces")
    }

    /// Snapshots of workspaces, which several of them may share.
    pub fn snapshots(&self) -> PathBuf {
        self.state.join("snapshots")
    }

    /// What workspaces began with, as tars named by their digest, which several of them may share.
    pub fn seeds(&self) -> PathBuf {
        self.state.join("seeds")
    }

    /// What is being put in its place on this host: exports and pulls.
    pub fn unfinished(&self) -> Unfinished {
        Unfinished::noted_in(&self.state.join("unfinished"))
    }

    /// What was found out about the engines of this host.
    pub fn probe_cache(&self) -> PathBuf {
        self.state.join("engines.json")
    }
}
