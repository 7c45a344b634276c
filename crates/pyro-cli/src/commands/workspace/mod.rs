//! `pyro workspace`: machines that stay.

mod exec;
mod file;
mod history;
mod jobs;
mod life;
mod snapshot;
mod terminal;
mod tree;

use std::io::{BufRead, IsTerminal, Read, Write};
use std::path::Path;

use pyro::workspace::{Labels, MAX_WRITE, SnapshotName, Ttl, Workspace};
use pyro::{Error, Pyro};

use super::{invalid, print, print_json};
use crate::args::{
    FileCommand, JobsCommand, PatchCommand, SnapshotCommand, SyncCommand, Target, WorkspaceCommand,
};
use crate::exit_code::ExitCode;
use crate::render::Talk;
use crate::signals::Interrupts;

/// Whether the answer is to be JSON.
pub(super) fn json(command: &WorkspaceCommand) -> bool {
    match command {
        WorkspaceCommand::Create(args) => args.json,
        WorkspaceCommand::List(args) => args.json,
        WorkspaceCommand::Status(args)
        | WorkspaceCommand::Extend(args)
        | WorkspaceCommand::Start(args)
        | WorkspaceCommand::Stop(args)
        | WorkspaceCommand::Pause(args)
        | WorkspaceCommand::Resume(args) => args.json,
        WorkspaceCommand::Update(args) => args.json,
        WorkspaceCommand::Reset(args) => args.json,
        WorkspaceCommand::Fork(args) => args.json,
        WorkspaceCommand::Delete(args) => args.json,
        WorkspaceCommand::Exec(args) => args.json,
        WorkspaceCommand::Logs(args) => args.json,
        WorkspaceCommand::Jobs(command) => match command {
            JobsCommand::List(args) => args.json,
            JobsCommand::Logs(args) => args.job.json,
            JobsCommand::Wait(args) => args.job.json,
            JobsCommand::Signal(args) => args.job.json,
            JobsCommand::End(args) => args.json,
        },
        WorkspaceCommand::File(command) => match command {
            FileCommand::List(args) => args.json,
            FileCommand::Read(args) => args.json,
            FileCommand::Write(args) => args.json,
            FileCommand::Edit(args) => args.json,
            FileCommand::Grep(args) => args.json,
            FileCommand::Glob(args) => args.json,
        },
        WorkspaceCommand::Sync(command) => match command {
            SyncCommand::Push(args) => args.json,
            SyncCommand::Pull(args) => args.json,
        },
        WorkspaceCommand::Diff(args) => args.json,
        WorkspaceCommand::Export(args) => args.json,
        WorkspaceCommand::Patch(PatchCommand::Apply(args)) => args.json,
        WorkspaceCommand::Apply(args) => args.json,
        WorkspaceCommand::Summary(args) => args.json,
        WorkspaceCommand::Snapshot(command) => match command {
            SnapshotCommand::Create(args) => args.snapshot.json,
            SnapshotCommand::List(args) => args.json,
            SnapshotCommand::Delete(args) => args.json,
        },
    }
}

/// The code of a failure: where the guest's own code is passed on, ours must differ from it.
pub(super) fn failure(command: &WorkspaceCommand) -> ExitCode {
    match command {
        WorkspaceCommand::Exec(_) | WorkspaceCommand::Jobs(JobsCommand::Wait(_)) => {
            ExitCode::RunFailure
        }
        WorkspaceCommand::Create(_)
        | WorkspaceCommand::List(_)
        | WorkspaceCommand::Status(_)
        | WorkspaceCommand::Extend(_)
        | WorkspaceCommand::Start(_)
        | WorkspaceCommand::Stop(_)
        | WorkspaceCommand::Pause(_)
        | WorkspaceCommand::Resume(_)
        | WorkspaceCommand::Update(_)
        | WorkspaceCommand::Reset(_)
        | WorkspaceCommand::Fork(_)
        | WorkspaceCommand::Delete(_)
        | WorkspaceCommand::Logs(_)
        | WorkspaceCommand::Jobs(
            JobsCommand::List(_)
            | JobsCommand::Logs(_)
            | JobsCommand::Signal(_)
            | JobsCommand::End(_),
        )
        | WorkspaceCommand::File(_)
        | WorkspaceCommand::Sync(_)
        | WorkspaceCommand::Diff(_)
        | WorkspaceCommand::Export(_)
        | WorkspaceCommand::Patch(_)
        | WorkspaceCommand::Apply(_)
        | WorkspaceCommand::Summary(_)
        | WorkspaceCommand::Snapshot(_) => ExitCode::Failure,
    }
}

pub(super) async fn workspace(
    pyro: &Pyro,
    command: WorkspaceCommand,
    talk: &Talk,
    interrupts: &mut Interrupts,
) -> Result<ExitCode, Error> {
    // Futures of unlike sizes: the largest would be on the stack of each.
    match command {
        WorkspaceCommand::Exec(args) => Box::pin(exec::exec(pyro, args, talk, interrupts)).await,
        other => {
            let work = Box::pin(short(pyro, other, talk));
            tokio::select! {
                done = work => done,
                // Dropping it ends what it began.
                number = interrupts.next() => Ok(ExitCode::Signal(number)),
            }
        }
    }
}

async fn short(pyro: &Pyro, command: WorkspaceCommand, talk: &Talk) -> Result<ExitCode, Error> {
    match command {
        WorkspaceCommand::Create(args) => Box::pin(life::create(pyro, *args, talk)).await,
        WorkspaceCommand::List(args) => life::list(pyro, &args).await,
        WorkspaceCommand::Status(args) => {
            let status = args.target.find(pyro).await?.status().await?;
            life::show(&status, args.json)
        }
        WorkspaceCommand::Extend(args) => {
            let status = args.target.find(pyro).await?.extend().await?;
            life::show(&status, args.json)
        }
        WorkspaceCommand::Start(args) => {
            let workspace = args.target.find(pyro).await?;
            let progress = talk.progress("workspace-start", args.json);
            let status = workspace.start(&progress).await?;
            drop(progress);
            life::show(&status, args.json)
        }
        WorkspaceCommand::Stop(args) => {
            let status = args.target.find(pyro).await?.stop().await?;
            life::show(&status, args.json)
        }
        WorkspaceCommand::Pause(args) => {
            let status = args.target.find(pyro).await?.pause().await?;
            life::show(&status, args.json)
        }
        WorkspaceCommand::Resume(args) => {
            let status = args.target.find(pyro).await?.resume().await?;
            life::show(&status, args.json)
        }
        WorkspaceCommand::Update(args) => life::update(pyro, args).await,
        WorkspaceCommand::Reset(args) => Box::pin(life::reset(pyro, args, talk)).await,
        WorkspaceCommand::Fork(args) => Box::pin(life::fork(pyro, args, talk)).await,
        WorkspaceCommand::Delete(args) => life::delete(pyro, args).await,
        WorkspaceCommand::Logs(args) => history::logs(pyro, args).await,
        WorkspaceCommand::Jobs(command) => jobs::jobs(pyro, command, talk).await,
        WorkspaceCommand::File(command) => file::file(pyro, command, talk).await,
        WorkspaceCommand::Snapshot(command) => snapshot::snapshot(pyro, command, talk).await,
        WorkspaceCommand::Sync(command) => Box::pin(tree::sync(pyro, command, talk)).await,
        WorkspaceCommand::Diff(args) => Box::pin(tree::diff(pyro, args, talk)).await,
        WorkspaceCommand::Export(args) => Box::pin(tree::export(pyro, args, talk)).await,
        WorkspaceCommand::Patch(PatchCommand::Apply(args)) => {
            Box::pin(tree::patch(pyro, args, talk)).await
        }
        WorkspaceCommand::Apply(args) => Box::pin(tree::apply(pyro, args, talk)).await,
        WorkspaceCommand::Summary(args) => Box::pin(tree::summary(pyro, args)).await,
        // It handles signals itself.
        WorkspaceCommand::Exec(_) => Ok(ExitCode::Success),
    }
}

impl Target {
    /// The workspace that is meant.
    pub(super) async fn find(&self, pyro: &Pyro) -> Result<Workspace, Error> {
        if self.last {
            return pyro.last_workspace().await;
        }
        pyro.workspace(&self.id).await
    }
}

/// The time to live that `--ttl-seconds` gives.
fn ttl(given: &str) -> Result<Ttl, Error> {
    if given == "never" {
        return Ok(Ttl::Never);
    }
    let seconds = given.parse().map_err(|_| {
        invalid(
            format!("`{given}` is no time to live"),
            "give 60 to 604800 seconds, or `never`",
        )
    })?;
    Ttl::idle_seconds(seconds)
}

/// The labels that `--label` gives.
fn labels(given: &[String]) -> Result<Labels, Error> {
    let pair = |pair: &String| match pair.split_once('=') {
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
        None => Err(invalid(
            format!("`{pair}` is no `KEY=VALUE`"),
            "write `--label task=42`",
        )),
    };
    given.iter().map(pair).collect()
}

/// Refuses what must be asked where there is nobody to ask.
fn can_ask(what: &str) -> Result<(), Error> {
    if std::io::stdin().is_terminal() && std::io::stderr().is_terminal() {
        return Ok(());
    }
    Err(invalid(
        format!("{what}, and there is nobody to ask"),
        "give `--yes`",
    ))
}

/// Asks whoever sits at the terminal.
fn asked(question: &str) -> Result<bool, Error> {
    can_ask(question)?;
    let mut stderr = std::io::stderr();
    let mut answer = String::new();
    let asked = write!(stderr, "{question} [y/N] ");
    let read = asked.and_then(|()| std::io::stdin().lock().read_line(&mut answer));
    Ok(read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn snapshot_name(given: &str) -> Result<SnapshotName, Error> {
    SnapshotName::parse(given)
}

fn no_secrets(option: &str) -> Error {
    invalid(
        format!("`{option}` is refused: workspaces have no secrets yet"),
        "drop it",
    )
}

/// A text of the command line, or that of a file of this host. `-` is standard input.
fn text(given: Option<String>, file: Option<&Path>) -> Result<String, Error> {
    if let Some(text) = given {
        return Ok(text);
    }
    let path = file.unwrap_or(Path::new("-"));
    let bytes = bytes_of(path, MAX_WRITE)?;
    String::from_utf8(bytes).map_err(|_| {
        invalid(
            format!("`{}` is no UTF-8 text", path.display()),
            "send other files with a command: `pyro workspace exec ID -i -- tee FILE`",
        )
    })
}

/// The bytes of a file of this host, `limit` at most. `-` is standard input.
fn bytes_of(path: &Path, limit: usize) -> Result<Vec<u8>, Error> {
    let failed = |source| Error::Io {
        action: "read",
        path: path.to_owned(),
        source,
    };
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    if path == Path::new("-") {
        std::io::stdin().lock().take(most).read_to_end(&mut bytes)
    } else {
        let file = std::fs::File::open(path).map_err(failed)?;
        file.take(most).read_to_end(&mut bytes)
    }
    .map_err(failed)?;
    if bytes.len() > limit {
        return Err(invalid(
            format!("`{}` has more than {limit} bytes", path.display()),
            "give less at once",
        ));
    }
    Ok(bytes)
}
