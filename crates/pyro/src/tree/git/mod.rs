//! Git of the host, started so that what it looks at cannot start anything else.
//!
//! A checkout's configuration may name programs: hooks, a file system monitor, filters, merge
//! drivers, transports. Each is switched off by a setting that comes later than the
//! checkout's, or by a variable that no setting can undo. The repository and its working tree
//! are named, so that neither `core.worktree` nor a directory above leads elsewhere. System
//! settings are not read, a user's own are (if the caller passes `HOME`): they are no part of
//! what is looked at.

mod child;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::TreeError;
pub(super) use child::Ended;

/// Variables of the caller that Git needs to reach a user's own repositories and settings.
const PASSED: [&str; 16] = [
    "HOME",
    "XDG_CONFIG_HOME",
    "SSH_AUTH_SOCK",
    "GIT_SSL_CAINFO",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "http_proxy",
    "https_proxy",
    "HTTPS_PROXY",
    "all_proxy",
    "ALL_PROXY",
    "no_proxy",
    "NO_PROXY",
    "USER",
    "LOGNAME",
    "TMPDIR",
];

/// What nobody below may set otherwise.
const SETTINGS: [(&str, &str); 13] = [
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.untrackedCache", "false"),
    ("core.askPass", ""),
    ("core.pager", "cat"),
    ("core.quotePath", "false"),
    ("credential.interactive", "false"),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    ("fetch.recurseSubmodules", "false"),
    ("submodule.recurse", "false"),
    ("apply.whitespace", "nowarn"),
    // Whose the files are does not matter where nothing that they say is started.
    ("safe.directory", "*"),
];

/// The Git of the host.
#[derive(Clone, Debug)]
pub struct HostGit {
    program: PathBuf,
    search_path: String,
    variables: Vec<(OsString, OsString)>,
    ssh: OsString,
}

/// How repositories are reached over SSH, unless the caller says otherwise.
const SSH: &str = "ssh";

/// A terminal that may be there belongs to somebody else.
const SSH_ASKS_NOBODY: &str = " -o BatchMode=yes";

impl HostGit {
    /// Looks for Git in the directories of `search_path`, which stand between colons.
    ///
    /// # Errors
    /// [`TreeError::NoGit`].
    pub fn find(search_path: &str) -> Result<Self, TreeError> {
        let program = search_path
            .split(':')
            .map(Path::new)
            // A relative directory would mean something else in a checkout.
            .filter(|directory| directory.is_absolute())
            .map(|directory| directory.join("git"))
            .find(|path| path.is_file())
            .ok_or(TreeError::NoGit)?;
        let absolute = |directory: &&str| directory.starts_with('/');
        let search_path: Vec<&str> = search_path.split(':').filter(absolute).collect();
        Ok(Self {
            program,
            search_path: search_path.join(":"),
            variables: Vec::new(),
            ssh: SSH.into(),
        })
    }

    /// Passes on what of these variables Git needs: the user's home, agents, proxies and
    /// certificates. Without them Git has no settings of a user.
    #[must_use]
    pub fn with_variables(mut self, variables: &[(OsString, OsString)]) -> Self {
        let is_passed = |name: &OsStr| PASSED.iter().any(|passed| name == *passed);
        self.variables = variables
            .iter()
            .filter(|(name, _)| is_passed(name))
            .cloned()
            .collect();
        let ssh = variables.iter().find(|(name, _)| name == "GIT_SSH_COMMAND");
        self.ssh = ssh.map_or(SSH.into(), |(_, command)| command.clone());
        self
    }

    /// One call of Git, for what is told as `doing`, that ends at `deadline`.
    pub(super) fn call(&self, doing: &'static str, deadline: Deadline) -> Call<'_> {
        Call {
            git: self,
            doing,
            deadline,
            directory: PathBuf::from("/"),
            repository: None,
            protocols: Protocols::None,
            arguments: Vec::new(),
            settings: Vec::new(),
            input: &[],
            outlives: false,
        }
    }
}

/// When a task of several calls is to be done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline {
    pub(super) at: Instant,
    pub(super) limit: Duration,
}

impl Deadline {
    pub(super) fn after(limit: Duration) -> Self {
        Self {
            at: Instant::now() + limit,
            limit,
        }
    }
}

/// How Git may reach other repositories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocols {
    /// Not at all.
    None,
    /// Over the network.
    Network,
    /// As files of this host.
    File,
}

impl Protocols {
    fn allowed(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Network => "https:http:ssh:git",
            Self::File => "file",
        }
    }
}

/// A call of Git that is being prepared.
#[derive(Debug)]
pub(super) struct Call<'a> {
    git: &'a HostGit,
    doing: &'static str,
    deadline: Deadline,
    directory: PathBuf,
    repository: Option<PathBuf>,
    protocols: Protocols,
    arguments: Vec<OsString>,
    settings: Vec<(OsString, OsString)>,
    input: &'a [u8],
    outlives: bool,
}

impl<'a> Call<'a> {
    /// Works in the checkout whose top level is `top`.
    pub(super) fn checkout(self, top: &Path) -> Self {
        Self {
            directory: top.to_owned(),
            repository: Some(top.join(".git")),
            ..self
        }
    }

    /// Works in `directory`, where Git finds the repository itself.
    pub(super) fn directory(self, directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            ..self
        }
    }

    /// Lets it reach other repositories.
    pub(super) fn protocols(mut self, protocols: Protocols) -> Self {
        self.protocols = protocols;
        self
    }

    pub(super) fn args<S: Into<OsString>>(
        mut self,
        arguments: impl IntoIterator<Item = S>,
    ) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Settings that win over all others but ours.
    pub(super) fn settings(
        mut self,
        settings: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Self {
        self.settings.extend(settings);
        self
    }

    /// What it reads.
    pub(super) fn input(mut self, input: &'a [u8]) -> Self {
        self.input = input;
        self
    }

    /// Lets it come to its end though we are killed: it reads and writes files that nobody needs to be there for. What it writes is
    /// handed out when it has ended.
    pub(super) fn outliving_us(mut self) -> Self {
        self.outlives = true;
        self
    }

    /// Runs it, handing out what it writes. However it ended is told; it is killed at its
    /// deadline and when `take` fails.
    pub(super) fn run(
        self,
        take: impl FnMut(&[u8]) -> Result<(), TreeError>,
        say: impl FnMut(&str),
    ) -> Result<Ended, TreeError> {
        child::run(&self, take, say)
    }

    /// Runs it, and gives what it wrote, at most `limit` bytes.
    pub(super) fn output(self, limit: usize) -> Result<(Ended, Vec<u8>), TreeError> {
        let doing = self.doing;
        let mut output = Vec::new();
        let ended = self.run(
            |bytes| {
                if output.len() + bytes.len() > limit {
                    return Err(TreeError::GitOutput { doing, limit });
                }
                output.extend_from_slice(bytes);
                Ok(())
            },
            |_| {},
        )?;
        Ok((ended, output))
    }

    /// The variables that Git runs with, and no others.
    fn environment(&self) -> Vec<(OsString, OsString)> {
        let mut variables: Vec<(OsString, OsString)> = Vec::new();
        let mut set = |name: &str, value: &OsStr| variables.push((name.into(), value.into()));
        if !self.git.variables.iter().any(|(name, _)| name == "HOME") {
            set("HOME", OsStr::new("/nonexistent"));
            set("GIT_CONFIG_GLOBAL", OsStr::new("/dev/null"));
        }
        for (name, value) in [
            ("PATH", self.git.search_path.as_str()),
            ("LC_ALL", "C"),
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_ATTR_NOSYSTEM", "1"),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_OPTIONAL_LOCKS", "0"),
            // Objects that are missing are not fetched behind our back.
            ("GIT_NO_LAZY_FETCH", "1"),
            // Wins over `protocol.*.allow` of any file.
            ("GIT_ALLOW_PROTOCOL", self.protocols.allowed()),
            ("GIT_TEMPLATE_DIR", ""),
            ("GIT_EDITOR", "false"),
        ] {
            set(name, OsStr::new(value));
        }
        let mut ssh = self.git.ssh.clone();
        ssh.push(SSH_ASKS_NOBODY);
        set("GIT_SSH_COMMAND", &ssh);
        if let Some(repository) = &self.repository {
            set("GIT_DIR", repository.as_os_str());
            set("GIT_WORK_TREE", self.directory.as_os_str());
        } else {
            let above = self.directory.parent().unwrap_or(Path::new("/"));
            set("GIT_CEILING_DIRECTORIES", above.as_os_str());
        }
        let fixed = SETTINGS.map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let settings: Vec<_> = self.settings.iter().cloned().chain(fixed).collect();
        set("GIT_CONFIG_COUNT", OsStr::new(&settings.len().to_string()));
        // Not as arguments: a name that holds `=` would be cut there.
        for (at, (name, value)) in settings.iter().enumerate() {
            set(&format!("GIT_CONFIG_KEY_{at}"), name);
            set(&format!("GIT_CONFIG_VALUE_{at}"), value);
        }
        // The user's own come last: none of their names is one that protects.
        variables.extend(self.git.variables.iter().cloned());
        variables
    }
}
