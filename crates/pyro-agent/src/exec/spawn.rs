//! Starting a process. The only module of this crate that may hold `unsafe`.
//!
//! The process gets its own session and process group, its own cgroup, the standard files
//! given here and nothing else: every other descriptor of the agent is close-on-exec.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use pyro_protocol::code::{ErrorCode, ErrorReply};
use pyro_protocol::exec::{
    DEFAULT_UMASK, EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND, Exec, Program, Rlimit,
};
use rustix::fs::Mode;
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use rustix::process::{Pid, Resource, ioctl_tiocsctty, setrlimit};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{InputModes, OptionalActions, Winsize, tcgetattr, tcsetattr, tcsetwinsize};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use tokio::io::unix::AsyncFd;

use super::cgroup::Cgroup;
use super::identity::Identity;

/// Where commands are looked for.
pub(crate) const BASE_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The environment that every command starts from.
const BASE_ENV: [(&str, &str); 5] = [
    ("PATH", BASE_PATH),
    ("HOME", "/root"),
    ("USER", "root"),
    ("LOGNAME", "root"),
    ("LANG", "C.UTF-8"),
];

/// Room in the pipe of each output, in bytes. The kernel takes memory only for what is in it.
pub(super) const OUTPUT_PIPE_BYTES: usize = 256 * 1024;

/// A process that was just started.
pub(super) struct Spawned {
    pub(super) pid: Pid,
    pub(super) stdin: Option<OwnedFd>,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
}

/// A process that could not be started, and the exit code that says so in a shell.
pub(super) struct NotStarted {
    pub(super) exit_code: i32,
    pub(super) error: ErrorReply,
}

/// A process that was just started as the leader of a session with a terminal.
pub(crate) struct OnTerminal {
    pub(crate) pid: Pid,
    /// Our side of the terminal; it never blocks.
    pub(crate) terminal: AsyncFd<OwnedFd>,
    pub(crate) tree: Tree,
}

/// Everything that a process started, however far it went from it.
#[derive(Debug)]
pub(crate) struct Tree {
    cgroup: Option<Cgroup>,
}

impl Tree {
    /// Kills all of it that a cgroup holds.
    pub(crate) fn kill(&self) {
        if let Some(cgroup) = &self.cgroup {
            cgroup.kill();
        }
    }
}

/// Starts `argv` on a new terminal, which becomes its controlling one, with `env` over the
/// environment that every command starts from.
pub(crate) fn spawn_on_terminal(
    argv: &[String],
    env: &BTreeMap<String, String>,
    cwd: &str,
    size: Winsize,
) -> Result<OnTerminal, ErrorReply> {
    let (program, arguments) = argv.split_first().expect("a shell has a program");
    let cgroup = Cgroup::create();
    let spawn = || {
        check_cwd(cwd)?;
        let (terminal, child_terminal) =
            open_terminal(size).map_err(|errno| no_resource("opening a terminal", &errno))?;
        let terminal =
            watched(terminal).map_err(|error| no_resource("watching a terminal", &error))?;
        let copy = || {
            child_terminal
                .try_clone()
                .map_err(|error| no_resource("opening a terminal", &error))
        };
        let mut command = Command::new(program);
        command.args(arguments).env_clear().envs(BASE_ENV);
        command.envs(env).current_dir(cwd);
        command.stdin(copy()?).stdout(copy()?).stderr(copy()?);
        let entrance = cgroup.as_ref().and_then(|cgroup| cgroup.entrance().ok());
        let setup = ChildSetup {
            cgroup_entrance: entrance,
            terminal: Some(child_terminal),
            ..ChildSetup::default()
        };
        prepare_child(&mut command, setup);
        let child = command
            .spawn()
            .map_err(|error| not_started(program, &error))?;
        Ok((Pid::from_child(&child), terminal))
    };
    let (pid, terminal) = spawn().map_err(|failed: NotStarted| failed.error)?;
    Ok(OnTerminal {
        pid,
        terminal,
        tree: Tree { cgroup },
    })
}

/// Both sides of a new terminal: ours and the child's.
fn open_terminal(size: Winsize) -> rustix::io::Result<(OwnedFd, OwnedFd)> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let ours = openpt(flags)?;
    grantpt(&ours)?;
    unlockpt(&ours)?;
    // Not by its name, which the guest may have put something else at.
    let theirs = ioctl_tiocgptpeer(&ours, flags)?;
    tcsetwinsize(&theirs, size)?;
    let mut modes = tcgetattr(&theirs)?;
    // So that erasing takes a whole character where no line editor runs.
    modes.input_modes |= InputModes::IUTF8;
    tcsetattr(&theirs, OptionalActions::Now, &modes)?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    Ok((ours, theirs))
}

#[expect(
    unsafe_code,
    reason = "the safe constructor takes what may close its descriptor behind our back"
)]
fn watched(terminal: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor must stay open and the same while it is registered. An
    // `OwnedFd` owns it alone, gives out no way to change it through a shared reference,
    // and the `AsyncFd` owns that. Safe code would not do: tokio 1.54 deprecates `new`.
    unsafe { AsyncFd::register(terminal) }.map_err(io::Error::from)
}

/// Starts `exec` in `cgroup`, with a pipe for its standard input if `stdin`.
pub(super) fn spawn(
    exec: &Exec,
    stdin: bool,
    cgroup: Option<&Cgroup>,
) -> Result<Spawned, NotStarted> {
    check_cwd(&exec.cwd)?;
    let mut command = command(exec);
    let (stdout, child_stdout) = output_pipe()?;
    let (stderr, child_stderr) = output_pipe()?;
    command.stdout(child_stdout).stderr(child_stderr);
    let stdin = if stdin {
        let (child_stdin, stdin) = pipe()?;
        command.stdin(child_stdin);
        Some(stdin)
    } else {
        command.stdin(Stdio::null());
        None
    };
    let entrance = cgroup.and_then(|cgroup| cgroup.entrance().ok());
    let setup = ChildSetup {
        cgroup_entrance: entrance,
        umask: exec.umask,
        rlimits: rlimits(exec),
        identity: identity(exec, &mut command)?,
        ..ChildSetup::default()
    };
    prepare_child(&mut command, setup);
    let child = command
        .spawn()
        .map_err(|error| not_started(&program_name(exec), &error))?;
    Ok(Spawned {
        pid: Pid::from_child(&child),
        stdin,
        stdout,
        stderr,
    })
}

fn command(exec: &Exec) -> Command {
    let mut command = match &exec.program {
        Program::Shell(line) => {
            let mut command = Command::new("/bin/sh");
            command.arg("-lc").arg(line);
            command
        }
        Program::Argv(argv) => {
            let mut argv = argv.iter().cloned().map(std::ffi::OsString::from_vec);
            let mut command = Command::new(argv.next().expect("checked when parsed: never empty"));
            command.args(argv);
            command
        }
    };
    command
        .env_clear()
        .envs(BASE_ENV)
        .envs(&exec.env)
        .current_dir(&exec.cwd);
    command
}

#[expect(
    unsafe_code,
    reason = "only a hook between fork and exec can set up the child itself"
)]
fn prepare_child(command: &mut Command, setup: ChildSetup) {
    let hook = move || {
        rustix::process::setsid()?;
        if let Some(terminal) = &setup.terminal {
            ioctl_tiocsctty(terminal)?;
        }
        rustix::process::umask(Mode::from_raw_mode(setup.umask));
        if let Some(entrance) = &setup.cgroup_entrance {
            rustix::io::write(entrance, b"0")?;
        }
        // The agent is shielded from the out-of-memory killer; what it runs is not.
        if let Ok(score) = rustix::fs::open(
            c"/proc/self/oom_score_adj",
            rustix::fs::OFlags::WRONLY,
            rustix::fs::Mode::empty(),
        ) {
            // Refused where this is not the first process of a machine.
            let _ = rustix::io::write(&score, b"0");
        }
        for (resource, limit) in &setup.rlimits {
            let both = rustix::process::Rlimit {
                current: Some(*limit),
                maximum: Some(*limit),
            };
            setrlimit(*resource, both)?;
        }
        // Last: what came before needs the agent's rights. The groups first, because they
        // cannot be set without rights either.
        if let Some(identity) = &setup.identity {
            set_thread_groups(&identity.groups)?;
            set_thread_res_gid(identity.gid, identity.gid, identity.gid)?;
            set_thread_res_uid(identity.uid, identity.uid, identity.uid)?;
        }
        Ok(())
    };
    // SAFETY: the hook runs in the forked child of a process that may have other threads,
    // so it must only do what is async-signal-safe. It makes direct system calls only,
    // through rustix, which allocates nothing for `CStr` paths and takes no lock; what it
    // reads was made before the fork, and it moves no ownership across it. The calls that
    // set ids act on one thread, and the forked child has one. Safe code cannot do this: `std` offers process
    // groups but neither sessions nor terminals nor cgroups.
    unsafe {
        command.pre_exec(hook);
    }
}

/// What a child sets up about itself between fork and exec.
struct ChildSetup {
    cgroup_entrance: Option<File>,
    terminal: Option<OwnedFd>,
    umask: u32,
    rlimits: Vec<(Resource, u64)>,
    identity: Option<Identity>,
}

impl Default for ChildSetup {
    fn default() -> Self {
        Self {
            cgroup_entrance: None,
            terminal: None,
            umask: DEFAULT_UMASK,
            rlimits: Vec::new(),
            identity: None,
        }
    }
}

fn rlimits(exec: &Exec) -> Vec<(Resource, u64)> {
    let resource = |limit: &Rlimit| match limit {
        Rlimit::As => Resource::As,
        Rlimit::Core => Resource::Core,
        Rlimit::Cpu => Resource::Cpu,
        Rlimit::Data => Resource::Data,
        Rlimit::Fsize => Resource::Fsize,
        Rlimit::Memlock => Resource::Memlock,
        Rlimit::Nofile => Resource::Nofile,
        Rlimit::Nproc => Resource::Nproc,
        Rlimit::Stack => Resource::Stack,
    };
    exec.rlimits
        .iter()
        .map(|(limit, value)| (resource(limit), *value))
        .collect()
}

/// The user to run as, whose home and name the environment tells unless the caller did.
fn identity(exec: &Exec, command: &mut Command) -> Result<Option<Identity>, NotStarted> {
    let Some(user) = &exec.user else {
        return Ok(None);
    };
    let identity = Identity::find(user).map_err(|error| NotStarted {
        exit_code: EXIT_NOT_EXECUTABLE,
        error,
    })?;
    let told = [
        ("HOME", &identity.home),
        ("USER", &identity.name),
        ("LOGNAME", &identity.name),
    ];
    command.envs(
        told.into_iter()
            .filter(|(name, _)| !exec.env.contains_key(*name)),
    );
    Ok(Some(identity))
}

/// A pipe with room for more than the kernel's 64 KiB, so that a command that writes much
/// and the agent that reads it take turns less often.
fn output_pipe() -> Result<(OwnedFd, OwnedFd), NotStarted> {
    let (reader, writer) = pipe()?;
    // Less room is no fault.
    let _ = fcntl_setpipe_size(&writer, OUTPUT_PIPE_BYTES);
    Ok((reader, writer))
}

fn pipe() -> Result<(OwnedFd, OwnedFd), NotStarted> {
    pipe_with(PipeFlags::CLOEXEC).map_err(|errno| no_resource("making a pipe", &errno))
}

fn no_resource(doing: &str, error: &dyn std::error::Error) -> NotStarted {
    NotStarted {
        exit_code: EXIT_NOT_EXECUTABLE,
        error: ErrorReply::new(ErrorCode::GuestError, format!("{doing}: {error}")),
    }
}

fn check_cwd(cwd: &str) -> Result<(), NotStarted> {
    match std::fs::metadata(cwd) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(bad_cwd(cwd, "it is not a directory")),
        Err(error) => Err(bad_cwd(cwd, &error.to_string())),
    }
}

fn bad_cwd(cwd: &str, why: &str) -> NotStarted {
    NotStarted {
        exit_code: EXIT_NOT_EXECUTABLE,
        error: ErrorReply::new(
            ErrorCode::NotFound,
            format!("the working directory `{cwd}` cannot be entered: {why}"),
        ),
    }
}

fn program_name(exec: &Exec) -> String {
    match &exec.program {
        Program::Shell(_) => "/bin/sh".into(),
        Program::Argv(argv) => String::from_utf8_lossy(&argv[0]).into_owned(),
    }
}

fn not_started(program: &str, error: &io::Error) -> NotStarted {
    let (exit_code, code) = match error.kind() {
        io::ErrorKind::NotFound => (EXIT_NOT_FOUND, ErrorCode::NotFound),
        io::ErrorKind::PermissionDenied => (EXIT_NOT_EXECUTABLE, ErrorCode::PermissionDenied),
        _ => (EXIT_NOT_EXECUTABLE, ErrorCode::GuestError),
    };
    let message = if exit_code == EXIT_NOT_FOUND {
        format!("`{program}` does not exist in the guest")
    } else {
        format!("`{program}` cannot be executed: {error}")
    };
    NotStarted {
        exit_code,
        error: ErrorReply::new(code, message),
    }
}
