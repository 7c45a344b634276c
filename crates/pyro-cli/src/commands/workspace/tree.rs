//! Whole trees: `sync`, `diff`, `export`, `patch`, `apply` and `summary`.

use std::io::IsTerminal;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pyro::workspace::{
    DiffOptions, DiffPayload, ExportOptions, HostApplyOptions, PatchOptions, SyncPullOptions,
    SyncPushOptions,
};
use pyro::{Error, ExecOutput, Pyro};

use super::{asked, bytes_of, can_ask, invalid, print, print_json, snapshot_name};
use crate::args::{
    ApplyArgs, DiffArgs, ExportArgs, PatchArgs, PullTreeArgs, PushArgs, SummaryArgs, SyncCommand,
};
use crate::commands::guest_command::Streams;
use crate::exit_code::ExitCode;
use crate::render::{Talk, workspace as render};

/// The largest patch, in bytes.
const MAX_PATCH: usize = 64 * 1024 * 1024;

pub(super) async fn sync(
    pyro: &Pyro,
    command: SyncCommand,
    talk: &Talk,
) -> Result<ExitCode, Error> {
    match command {
        SyncCommand::Push(args) => push(pyro, args, talk).await,
        SyncCommand::Pull(args) => pull(pyro, args, talk).await,
    }
}

async fn push(pyro: &Pyro, args: PushArgs, talk: &Talk) -> Result<ExitCode, Error> {
    let options = SyncPushOptions {
        destination: Some(args.dest),
        delete: args.delete,
        dry_run: args.dry_run,
        gitignore: args.gitignore,
        exclude: args.exclude,
        limits: args.limits.into(),
    };
    let workspace = args.target.find(pyro).await?;
    let progress = talk.progress("workspace-sync", args.json);
    let pushed = workspace
        .sync_push(&args.source, &options, &progress)
        .await?;
    drop(progress);
    if args.json {
        return print_json(&pushed);
    }
    Ok(say_sync(&pushed, talk))
}

async fn pull(pyro: &Pyro, args: PullTreeArgs, talk: &Talk) -> Result<ExitCode, Error> {
    let options = SyncPullOptions {
        merge: args.merge,
        dry_run: args.dry_run,
    };
    let workspace = args.target.find(pyro).await?;
    let progress = talk.progress("workspace-sync", args.json);
    let pulled = workspace
        .sync_pull(&args.path, &args.directory, &options, &progress)
        .await?;
    drop(progress);
    if args.json {
        return print_json(&pulled);
    }
    Ok(say_sync(&pulled, talk))
}

fn say_sync(payload: &pyro::workspace::SyncPayload, talk: &Talk) -> ExitCode {
    let sync = &payload.workspace_sync;
    for path in &sync.unreadable {
        talk.error(&format!("`{path}` cannot be read and was left out"), None);
    }
    let code = if sync.dry_run {
        print(&render::sync_plan(sync))
    } else {
        ExitCode::Success
    };
    talk.line(&render::sync_line(payload));
    code
}

pub(super) async fn diff(pyro: &Pyro, args: DiffArgs, talk: &Talk) -> Result<ExitCode, Error> {
    let options = DiffOptions {
        from: Some(snapshot_name(&args.from)?),
        to: args.to.as_deref().map(snapshot_name).transpose()?,
        paths: args.path,
        stat_only: args.stat,
        binary: args.binary,
        max_bytes: args.max_bytes,
    };
    let workspace = args.target.find(pyro).await?;
    let diff = Box::pin(workspace.diff(&options)).await?;
    if args.json {
        return print_json(&diff);
    }
    show_diff(&diff, args.stat, talk).await
}

/// The patch as it is for a program, and without what would steer a terminal for a person.
async fn show_diff(diff: &DiffPayload, stat: bool, talk: &Talk) -> Result<ExitCode, Error> {
    if !diff.changed {
        talk.line("No workspace changes");
        return Ok(ExitCode::Success);
    }
    talk.line(&render::diff_line(diff));
    if stat {
        return Ok(print(&render::stat(&diff.entries)));
    }
    if std::io::stdout().is_terminal() {
        return Ok(print(&render::safe_lines(&diff.patch)));
    }
    let decoded = diff.patch_b64.as_deref().map(|text| STANDARD.decode(text));
    let bytes = match decoded {
        Some(Ok(bytes)) => bytes,
        Some(Err(_)) | None => diff.patch.clone().into_bytes(),
    };
    // A reader that leaves early has enough of it.
    let _ = Streams::default().write(&ExecOutput::Stdout(bytes)).await;
    Ok(ExitCode::Success)
}

pub(super) async fn export(pyro: &Pyro, args: ExportArgs, talk: &Talk) -> Result<ExitCode, Error> {
    let options = ExportOptions {
        format: args.format.into(),
        overwrite: args.overwrite.into(),
        ..ExportOptions::default()
    };
    let workspace = args.target.find(pyro).await?;
    let progress = talk.progress("workspace-export", args.json);
    let exported = workspace.export(&args.paths, &args.output, &options, &progress);
    let exported = Box::pin(exported).await?;
    drop(progress);
    if args.json {
        return print_json(&exported);
    }
    talk.line(&render::export_line(&exported));
    Ok(ExitCode::Success)
}

pub(super) async fn patch(pyro: &Pyro, args: PatchArgs, talk: &Talk) -> Result<ExitCode, Error> {
    let patch = match (args.patch, args.patch_file) {
        (Some(text), _) => text.into_bytes(),
        (None, Some(path)) => bytes_of(&path, MAX_PATCH)?,
        (None, None) => return Err(invalid("no patch is given", "give `--patch-file`")),
    };
    let options = PatchOptions {
        dry_run: args.dry_run,
        fuzz: args.fuzz,
        ignore_line_ends: args.ignore_line_ends,
    };
    let workspace = args.target.find(pyro).await?;
    let applied = workspace.apply_patch(&patch, &options).await?;
    if args.json {
        return print_json(&applied);
    }
    let code = print(&render::patch_report(&applied.entries));
    talk.line(&render::patch_line(&applied));
    Ok(code)
}

pub(super) async fn apply(pyro: &Pyro, args: ApplyArgs, talk: &Talk) -> Result<ExitCode, Error> {
    let workspace = args.target.find(pyro).await?;
    let shown = DiffOptions {
        paths: args.path.clone(),
        ..DiffOptions::default()
    };
    let sure = args.yes || args.dry_run;
    if !sure {
        can_ask("a checkout would be changed")?;
    }
    if !args.json {
        let diff = Box::pin(workspace.diff(&shown)).await?;
        show_diff(&diff, false, talk).await?;
        if !diff.changed {
            return Ok(ExitCode::Success);
        }
    }
    let question = format!("Apply this to `{}`?", args.checkout.display());
    if !sure && !asked(&question)? {
        return Ok(ExitCode::Failure);
    }
    let options = HostApplyOptions {
        paths: args.path,
        dry_run: args.dry_run,
        three_way: !args.no_three_way,
    };
    let applied = Box::pin(workspace.apply_to_host(&args.checkout, &options)).await?;
    let code = if applied.report.clean {
        ExitCode::Success
    } else {
        ExitCode::Failure
    };
    if args.json {
        print_json(&applied)?;
        return Ok(code);
    }
    // The patch has gone to stdout: what became of it is talk.
    talk.line(render::applied(&applied).trim_end());
    Ok(code)
}

pub(super) async fn summary(pyro: &Pyro, args: SummaryArgs) -> Result<ExitCode, Error> {
    let workspace = args.target.find(pyro).await?;
    let summary = Box::pin(workspace.summary()).await?;
    if args.json {
        return print_json(&summary);
    }
    let text = if args.markdown {
        summary.to_markdown()
    } else {
        summary.to_text()
    };
    Ok(print(&render::safe_lines(&text)))
}
