//! Programs of the host: where they are, how they are started, what their failure says.
//!
//! Only this module starts child processes (and [`crate::disk`] one to clean up). Every child is
//! started by the calling task and ends with it: it is killed when its future is dropped, and
//! by the kernel when this process dies. It never looks at `PATH`: programs are taken from the
//! system's own directories.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};

/// Where programs are looked for, in this order.
const DIRECTORIES: [&str; 6] = [
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
];
/// How many lines of a failed program's talk are kept for the error.
const TAIL_LINES: usize = 30;
/// A longer line of talk is cut; the tools write no such lines.
const LINE_BYTES: usize = 2048;
/// Answers of package tools are kilobytes; more than this is not an answer.
const ANSWER_BYTES: u64 = 16 * 1024 * 1024;

/// A program that this crate starts, or needs to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum HostProgram {
    /// Reads the package lists.
    AptCache,
    /// Reads apt's configuration.
    AptConfig,
    /// Downloads packages and checks their signatures.
    AptGet,
    /// Unpacks a package.
    DpkgDeb,
    /// Stands in for root when there are no user namespaces.
    Fakechroot,
    /// Unpacks a compressed kernel.
    Gzip,
    /// Builds a Debian system.
    Mmdebstrap,
    /// Maps subordinate users into a user namespace.
    Newuidmap,
    /// Ties a child's life to ours.
    Setpriv,
    /// Makes namespaces.
    Unshare,
    /// Unpacks compressed kernels and kernel modules.
    Xz,
    /// Unpacks a compressed kernel.
    Zstd,
}

/// A program of the host that is missing or failed.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// It is not installed.
    #[error("the program `{program}` is not installed")]
    HostProgramMissing {
        /// Its name.
        program: &'static str,
        /// The Debian package that holds it.
        package: &'static str,
    },
    /// It could not be started, or talking to it failed.
    #[error("cannot run `{program}`")]
    Run {
        /// Its name.
        program: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// It ran and failed.
    #[error("`{program}` failed ({status}){}", quoted(stderr))]
    Failed {
        /// Its name.
        program: &'static str,
        /// How it ended.
        status: ExitStatus,
        /// The last lines that it wrote to its standard error.
        stderr: String,
    },
    /// It ran longer than any sensible run, and was killed.
    #[error(
        "`{program}` did not finish within {seconds} seconds{}",
        quoted(stderr)
    )]
    TimedOut {
        /// Its name.
        program: &'static str,
        /// The deadline.
        seconds: u64,
        /// The last lines that it wrote to its standard error.
        stderr: String,
    },
}

impl HostProgram {
    /// The name that it is started by.
    pub fn name(self) -> &'static str {
        match self {
            Self::AptCache => "apt-cache",
            Self::AptConfig => "apt-config",
            Self::AptGet => "apt-get",
            Self::DpkgDeb => "dpkg-deb",
            Self::Fakechroot => "fakechroot",
            Self::Gzip => "gzip",
            Self::Mmdebstrap => "mmdebstrap",
            Self::Newuidmap => "newuidmap",
            Self::Setpriv => "setpriv",
            Self::Unshare => "unshare",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
        }
    }

    /// The Debian package that holds it.
    pub fn package(self) -> &'static str {
        match self {
            Self::AptCache | Self::AptConfig | Self::AptGet => "apt",
            Self::DpkgDeb => "dpkg",
            Self::Fakechroot => "fakechroot",
            Self::Gzip => "gzip",
            Self::Mmdebstrap => "mmdebstrap",
            Self::Newuidmap => "uidmap",
            Self::Setpriv | Self::Unshare => "util-linux",
            Self::Xz => "xz-utils",
            Self::Zstd => "zstd",
        }
    }

    /// Its path, if it is installed.
    pub fn find(self) -> Option<PathBuf> {
        DIRECTORIES
            .iter()
            .map(|directory| Path::new(directory).join(self.name()))
            .find(|path| path.is_file())
    }

    /// Its path, or the error that names its package.
    pub fn require(self) -> Result<PathBuf, HostError> {
        self.find().ok_or(HostError::HostProgramMissing {
            program: self.name(),
            package: self.package(),
        })
    }
}

impl HostError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::HostProgramMissing { package, .. } => Some(format!("apt-get install {package}")),
            Self::Failed { stderr, .. } if refuses_namespaces(stderr) => Some(
                "allow unprivileged user namespaces (sysctl `kernel.unprivileged_userns_clone=1`, \
                 or `kernel.apparmor_restrict_unprivileged_userns=0`), or run as root"
                    .to_owned(),
            ),
            Self::Failed { stderr, .. } if is_offline(stderr) => {
                Some("check that the package mirror can be reached".to_owned())
            }
            Self::TimedOut { .. } => {
                Some("check that the package mirror can be reached, and try again".to_owned())
            }
            Self::Run { .. } | Self::Failed { .. } => None,
        }
    }
}

/// One run of a program, being prepared.
pub(crate) struct Invocation {
    program: HostProgram,
    wrapper: Vec<OsString>,
    arguments: Vec<OsString>,
    variables: Vec<(&'static str, OsString)>,
    directory: Option<PathBuf>,
    deadline: Duration,
}

/// A started program with its pipes.
pub(crate) struct Running {
    program: &'static str,
    child: Child,
    deadline: tokio::time::Instant,
    seconds: u64,
}

impl Invocation {
    pub(crate) fn new(program: HostProgram, deadline: Duration) -> Self {
        Self {
            program,
            wrapper: Vec::new(),
            arguments: Vec::new(),
            variables: Vec::new(),
            directory: None,
            deadline,
        }
    }

    /// Starts the program through this command, such as `unshare` with its options.
    pub(crate) fn wrapped(mut self, wrapper: Vec<OsString>) -> Self {
        self.wrapper = wrapper;
        self
    }

    pub(crate) fn args<S: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.arguments
            .extend(arguments.into_iter().map(|text| text.as_ref().to_owned()));
        self
    }

    pub(crate) fn env(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.variables.push((name, value.into()));
        self
    }

    pub(crate) fn current_dir(mut self, directory: &Path) -> Self {
        self.directory = Some(directory.to_owned());
        self
    }

    /// Starts the program with both outputs piped and no input.
    pub(crate) fn start(self) -> Result<Running, HostError> {
        let setpriv = HostProgram::Setpriv.require()?;
        let program = self.program.require()?;
        let mut command = Command::new(setpriv);
        command
            .args(["--pdeathsig", "KILL", "--"])
            .args(&self.wrapper)
            .arg(program)
            .args(&self.arguments)
            .env("PATH", DIRECTORIES.join(":"))
            .env("LC_ALL", "C.UTF-8")
            .envs(self.variables)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        if let Some(directory) = self.directory {
            command.current_dir(directory);
        }
        let name = self.program.name();
        let child = command.spawn().map_err(|source| HostError::Run {
            program: name,
            source,
        })?;
        Ok(Running {
            program: name,
            child,
            deadline: tokio::time::Instant::now() + self.deadline,
            seconds: self.deadline.as_secs(),
        })
    }

    /// Runs the program to its end and gives its standard output.
    pub(crate) async fn answer(self) -> Result<String, HostError> {
        let mut answer = Vec::new();
        let running = self.start()?;
        running
            .finish(
                async |stdout| {
                    stdout
                        .take(ANSWER_BYTES)
                        .read_to_end(&mut answer)
                        .await
                        .map(|_| ())
                },
                |_| {},
            )
            .await?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }
}

impl Running {
    /// Drives the program to its end: `on_output` reads its standard output, `on_line` sees each
    /// line of its standard error. A failure of either kills the program.
    pub(crate) async fn finish<O>(
        mut self,
        on_output: O,
        mut on_line: impl FnMut(&str),
    ) -> Result<(), HostError>
    where
        O: AsyncFnOnce(&mut tokio::process::ChildStdout) -> io::Result<()>,
    {
        let program = self.program;
        let failed = |source| HostError::Run { program, source };
        let mut stdout = self.child.stdout.take().expect("stdout is piped");
        let stderr = self.child.stderr.take().expect("stderr is piped");
        let mut tail = VecDeque::new();
        let talk = async {
            each_line(stderr, |line| {
                on_line(line);
                if tail.len() == TAIL_LINES {
                    tail.pop_front();
                }
                tail.push_back(line.to_owned());
            })
            .await
        };
        let work = async {
            tokio::try_join!(
                async {
                    on_output(&mut stdout).await?;
                    // Read on after a bounded answer, so that the program does not block.
                    tokio::io::copy(&mut stdout, &mut tokio::io::sink()).await?;
                    io::Result::Ok(())
                },
                talk,
            )?;
            self.child.wait().await
        };
        let ended = tokio::time::timeout_at(self.deadline, work).await;
        let stderr = Vec::from(tail).join("\n");
        match ended {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(HostError::Failed {
                program,
                status,
                stderr,
            }),
            Ok(Err(error)) => Err(failed(error)),
            Err(_) => Err(HostError::TimedOut {
                program,
                seconds: self.seconds,
                stderr,
            }),
        }
    }
}

/// Calls `on_line` for each line; carriage returns end lines too, as progress meters write them.
async fn each_line(
    stream: impl AsyncRead + Unpin,
    mut on_line: impl FnMut(&str),
) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        let buffer = reader.fill_buf().await?;
        if buffer.is_empty() {
            break;
        }
        let end = buffer.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
        let part = &buffer[..end.unwrap_or(buffer.len())];
        let room = LINE_BYTES.saturating_sub(line.len()).min(part.len());
        line.extend_from_slice(&part[..room]);
        let used = end.map_or(buffer.len(), |end| end + 1);
        reader.consume(used);
        if end.is_some() && !line.is_empty() {
            on_line(&String::from_utf8_lossy(&line));
            line.clear();
        }
    }
    if !line.is_empty() {
        on_line(&String::from_utf8_lossy(&line));
    }
    Ok(())
}

fn quoted(stderr: &str) -> String {
    if stderr.is_empty() {
        String::new()
    } else {
        format!(", its last lines:\n{stderr}")
    }
}

fn refuses_namespaces(stderr: &str) -> bool {
    stderr
        .lines()
        .any(|line| line.starts_with("unshare:") && line.contains("Operation not permitted"))
}

fn is_offline(stderr: &str) -> bool {
    [
        "Temporary failure resolving",
        "Could not resolve",
        "Could not connect",
        "Unable to connect",
        "Connection timed out",
        "Connection failed",
    ]
    .iter()
    .any(|sign| stderr.contains(sign))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn lines_end_at_both_kinds_of_return_and_are_cut() {
        let long = "x".repeat(LINE_BYTES * 2);
        let text = format!("one\r\ntwo\n\n{long}\nlast");
        let mut lines = Vec::new();
        each_line(text.as_bytes(), |line| lines.push(line.to_owned()))
            .await
            .unwrap();
        assert_eq!(lines, ["one", "two", &long[..LINE_BYTES], "last"]);
    }

    #[tokio::test]
    async fn an_answer_is_the_standard_output() {
        let answer = Invocation::new(HostProgram::DpkgDeb, DEADLINE)
            .args(["--version"])
            .answer()
            .await
            .unwrap();
        assert!(answer.contains("dpkg-deb"));
    }

    #[tokio::test]
    async fn a_failure_carries_the_last_lines() {
        let error = Invocation::new(HostProgram::DpkgDeb, DEADLINE)
            .args(["--info", "/nothing/here.deb"])
            .answer()
            .await
            .unwrap_err();
        assert!(error.to_string().contains("/nothing/here.deb"), "{error}");
        assert!(error.hint().is_none());
    }

    #[tokio::test]
    async fn a_deadline_kills() {
        let wrapper = ["sh", "-c", "echo slow >&2; sleep 60", "sh"];
        let error = Invocation::new(HostProgram::DpkgDeb, Duration::from_millis(300))
            .wrapped(wrapper.map(OsString::from).into())
            .answer()
            .await
            .unwrap_err();
        let HostError::TimedOut { stderr, .. } = error else {
            panic!("{error}");
        };
        assert_eq!(stderr, "slow");
    }

    #[test]
    fn hints_name_the_cure() {
        let missing = HostError::HostProgramMissing {
            program: "mmdebstrap",
            package: "mmdebstrap",
        };
        assert_eq!(missing.hint().unwrap(), "apt-get install mmdebstrap");
        assert!(refuses_namespaces(
            "unshare: unshare failed: Operation not permitted"
        ));
        assert!(is_offline("W: Temporary failure resolving 'mirror'"));
    }
}
