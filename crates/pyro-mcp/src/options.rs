//! What a server is started with.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What a server is started with.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// Which tools it has.
    pub profile: Profile,
    /// The environment of workspaces that name none.
    pub environment: String,
    /// What workspaces begin with that name no seed.
    pub project: ProjectSource,
    /// The directory that relative paths of this host are below. It is allowed only as part of an allowed one.
    pub directory: PathBuf,
    /// Directories of this host that tools may read and write below, besides the project and the client's roots.
    pub allowed: Vec<PathBuf>,
    /// The longest that a command keeps a call waiting. Hosts give up after a minute.
    pub exec_wait: Duration,
    /// The most of each output, patch or listing in one result, in bytes.
    pub max_text: usize,
    /// The caller's environment variables, of which Git is passed what it needs to clone a repository.
    pub variables: Vec<(OsString, OsString)>,
}

impl ServeOptions {
    /// The usual server in `directory`, with the checkout that this is in as its project.
    pub fn new(directory: PathBuf) -> Self {
        Self {
            profile: Profile::WorkspaceCore,
            environment: "debian:12".into(),
            project: ProjectSource::detect(&directory),
            directory,
            allowed: Vec::new(),
            exec_wait: Duration::from_secs(50),
            max_text: 32 * 1024,
            variables: Vec::new(),
        }
    }
}

/// Which tools a server has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// One: a command in a machine that is thrown away.
    VmRun,
    /// The loop of making, using, comparing, exporting and resetting workspaces.
    WorkspaceCore,
}

impl Profile {
    /// The name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::VmRun => "vm-run",
            Self::WorkspaceCore => "workspace-core",
        }
    }
}

/// What workspaces begin with that name no seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProjectSource {
    /// Nothing.
    None,
    /// A directory of this host; what Git knows of it, if it is a checkout.
    Path(PathBuf),
    /// A repository, cloned for each workspace.
    Repository {
        /// Its address.
        url: String,
        /// A branch, a tag or a commit; none: its own default.
        git_ref: Option<String>,
    },
}

impl ProjectSource {
    /// The Git checkout that `directory` is in.
    pub fn detect(directory: &Path) -> Self {
        directory
            .ancestors()
            .find(|ancestor| ancestor.join(".git").exists())
            .map_or(Self::None, |top| Self::Path(top.to_owned()))
    }

    /// As a model is told of it: what follows "begins with".
    pub(crate) fn words(&self) -> String {
        match self {
            Self::None => "nothing".into(),
            Self::Path(path) => format!("the project {}", path.display()),
            Self::Repository { url, git_ref } => {
                let at = git_ref
                    .as_ref()
                    .map_or_else(String::new, |git_ref| format!("@{git_ref}"));
                format!("a clone of {url}{at}")
            }
        }
    }
}
