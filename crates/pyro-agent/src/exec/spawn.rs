//! Starting a process. The only module of this crate that may hold `unsafe`.
//!
//! The process gets its own session and process group, its own cgroup, the standard files
//! given here and nothing else: every other descriptor of the agent is close-on-exec.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use pyro_protocol::code::{ErrorCode, ErrorReply};
use pyro_protocol::exec::{EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND, Exec, Program};
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use rustix::process::Pid;

use super::cgroup::Cgroup;

/// The environment that every command starts from.
const BASE_ENV: [(&str, &str); 5] = [
    (
        "PATH",
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ),
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

/// Starts `exec` in `cgroup`, with a pipe for its standard input if `stdin`.
pub(super) fn spawn(
    exec: &Exec,
    stdin: bool,
    cgroup: Option<&Cgroup>,
) -> Result<Spawned, NotStarted> {
    check_cwd(exec)?;
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
    prepare_child(&mut command, entrance);
    let child = command.spawn().map_err(|error| not_started(exec, &error))?;
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
fn prepare_child(command: &mut Command, cgroup_entrance: Option<File>) {
    let hook = move || {
        rustix::process::setsid()?;
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
        if let Some(entrance) = &cgroup_entrance {
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
        Ok(())
    };
    // SAFETY: the hook runs in the forked child of a process that may have other threads,
    // so it must only do what is async-signal-safe. It makes five direct system calls
    // through rustix, which allocates nothing for `CStr` paths and takes no lock, and it
    // moves no ownership across the fork. Safe code cannot do this: `std` offers process
    // groups but neither sessions nor cgroups.
    unsafe {
        command.pre_exec(hook);
    }
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
    pipe_with(PipeFlags::CLOEXEC).map_err(|errno| NotStarted {
        exit_code: EXIT_NOT_EXECUTABLE,
        error: ErrorReply::new(ErrorCode::GuestError, format!("making a pipe: {errno}")),
    })
}

fn check_cwd(exec: &Exec) -> Result<(), NotStarted> {
    match std::fs::metadata(&exec.cwd) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(bad_cwd(&exec.cwd, "it is not a directory")),
        Err(error) => Err(bad_cwd(&exec.cwd, &error.to_string())),
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

fn not_started(exec: &Exec, error: &io::Error) -> NotStarted {
    let program = match &exec.program {
        Program::Shell(_) => "/bin/sh".into(),
        Program::Argv(argv) => String::from_utf8_lossy(&argv[0]).into_owned(),
    };
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
