//! Commands in workspaces, their history, and those that go on by themselves.

use std::ffi::OsString;

use clap::{Args as ClapArgs, Subcommand};

use super::{Target, TargetArgs};

#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line"
)]
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Exits with the command's own code, and as `pyro run` where there is none. Ctrl-C interrupts the \
command; a second one does not wait for its end.

Examples:
  pyro workspace exec fix-42 -- make test
  pyro workspace exec --last --shell -- 'cat src/*.c | wc -l'
  pyro workspace exec fix-42 --env CI=1 --cwd src --timeout-seconds 0.5 -- make
  tar c . | pyro workspace exec fix-42 -i -- tar x
  pyro workspace exec fix-42 -it -- bash
  pyro workspace exec fix-42 --detach -- npm run dev")]
pub(crate) struct ExecArgs {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Time limit of the command; fractions allowed [default: 30, with `--detach` none]
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    pub(crate) timeout_seconds: Option<f64>,
    /// Set a variable for the command; may be repeated
    #[arg(long, value_name = "K=V")]
    pub(crate) env: Vec<String>,
    /// Working directory in the guest, absolute or below the workspace's [default: /workspace]
    #[arg(long, value_name = "DIR")]
    pub(crate) cwd: Option<String>,
    /// User to run as, a name or number, and behind a colon a group [default: the image's, or
    /// root]
    #[arg(long, value_name = "USER")]
    pub(crate) user: Option<String>,
    /// Pass standard input to the command; otherwise it is empty
    #[arg(long, short, conflicts_with = "detach")]
    pub(crate) interactive: bool,
    /// Run it on a terminal of the guest, which this terminal becomes; as root, and without a time
    /// limit
    #[arg(
        long,
        short,
        conflicts_with_all = ["json", "detach", "timeout_seconds", "user"]
    )]
    pub(crate) tty: bool,
    /// Start it as a job, which goes on when `pyro` has ended, and print the job's id
    #[arg(long)]
    pub(crate) detach: bool,
    /// Run the arguments as one command line through `sh -lc`
    #[arg(long)]
    pub(crate) shell: bool,
    /// Print one JSON object instead of the live output
    #[arg(long)]
    pub(crate) json: bool,
    /// Refused: there are no secrets yet
    #[arg(long, value_name = "SECRET[=ENV]", hide = true)]
    pub(crate) secret_env: Vec<String>,
    /// Program and arguments
    #[arg(last = true, value_name = "ARG", required = true)]
    pub(crate) argv: Vec<OsString>,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
The history begins anew with each reset. Of each output the head and the tail \
are kept, 1 MiB together.

Examples:
  pyro workspace logs fix-42
  pyro workspace logs --last --after 12 --json")]
pub(crate) struct LogsArgs {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Only commands behind this number
    #[arg(long, default_value_t = 0, value_name = "SEQUENCE")]
    pub(crate) after: u64,
    /// Print one JSON object; `truncated` tells that there is more behind `next_sequence`
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum JobsCommand {
    /// List the jobs, the oldest first
    #[command(after_help = "Example: pyro workspace jobs list fix-42")]
    List(TargetArgs),
    /// Print what a job has written
    Logs(JobLogsArgs),
    /// Wait for the end of a job and exit with its code
    Wait(JobWaitArgs),
    /// Send a signal to a job's processes
    Signal(JobSignalArgs),
    /// End a job: TERM, and KILL two seconds later
    #[command(after_help = "Example: pyro workspace jobs end fix-42 JOB")]
    End(JobArgs),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct JobArgs {
    #[command(flatten)]
    pub(crate) target: Target,
    /// The job's id
    #[arg(value_name = "JOB")]
    pub(crate) job: String,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Its standard output goes to stdout and its standard error to stderr.

Examples:
  pyro workspace jobs logs fix-42 JOB
  pyro workspace jobs logs fix-42 JOB --follow
  pyro workspace jobs logs fix-42 JOB --stdout-cursor 4096 --json")]
pub(crate) struct JobLogsArgs {
    #[command(flatten)]
    pub(crate) job: JobArgs,
    /// First byte of standard output
    #[arg(long, default_value_t = 0, value_name = "BYTE")]
    pub(crate) stdout_cursor: u64,
    /// First byte of standard error
    #[arg(long, default_value_t = 0, value_name = "BYTE")]
    pub(crate) stderr_cursor: u64,
    /// Go on until the job has ended
    #[arg(long, conflicts_with = "json")]
    pub(crate) follow: bool,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Exits with the job's own code, and with 124 if it still runs when the time is over.

Example: pyro workspace jobs wait fix-42 JOB --timeout-seconds 60")]
pub(crate) struct JobWaitArgs {
    #[command(flatten)]
    pub(crate) job: JobArgs,
    /// Longest wait; fractions allowed [default: none]
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    pub(crate) timeout_seconds: Option<f64>,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "Example: pyro workspace jobs signal fix-42 JOB --signal INT")]
pub(crate) struct JobSignalArgs {
    #[command(flatten)]
    pub(crate) job: JobArgs,
    /// Signal: a name such as `INT`, or a number
    #[arg(long, default_value = "TERM", value_name = "SIGNAL")]
    pub(crate) signal: String,
}
