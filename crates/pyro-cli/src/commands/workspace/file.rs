//! `pyro workspace file`.

use pyro::workspace::{FileEdit, FileReadPayload, GrepOptions, ReadOptions};
use pyro::{Error, ExecOutput, Pyro};

use super::{print, print_json, text};
use crate::args::{EditArgs, FileCommand, GrepArgs, ReadArgs, WriteArgs};
use crate::commands::guest_command::Streams;
use crate::exit_code::ExitCode;
use crate::render::{Talk, printable, workspace as render};

pub(super) async fn file(
    pyro: &Pyro,
    command: FileCommand,
    talk: &Talk,
) -> Result<ExitCode, Error> {
    match command {
        FileCommand::List(args) => {
            let workspace = args.target.find(pyro).await?;
            let list = workspace.list_files(&args.path, args.recursive).await?;
            if args.json {
                return print_json(&list);
            }
            Ok(print(&render::file_list(&list)))
        }
        FileCommand::Read(args) => read(pyro, args, talk).await,
        FileCommand::Write(args) => write(pyro, args, talk).await,
        FileCommand::Edit(args) => edit(pyro, args, talk).await,
        FileCommand::Grep(args) => grep(pyro, args, talk).await,
        FileCommand::Glob(args) => {
            let workspace = args.target.find(pyro).await?;
            let found = workspace.glob(&args.path, &args.patterns, args.all).await?;
            if args.json {
                return print_json(&found);
            }
            Ok(print(&render::paths(&found)))
        }
    }
}

async fn read(pyro: &Pyro, args: ReadArgs, talk: &Talk) -> Result<ExitCode, Error> {
    let workspace = args.target.find(pyro).await?;
    let options = ReadOptions {
        offset: args.offset,
        max_bytes: args.max_bytes,
    };
    let read = workspace.read_file(&args.path, options).await?;
    if args.json {
        return print_json(&read);
    }
    let mut bytes = render::content(&read);
    if args.content_only {
        return shown(bytes).await;
    }
    if bytes.last().is_some_and(|last| *last != b'\n') {
        bytes.push(b'\n');
    }
    let code = shown(bytes).await?;
    let FileReadPayload {
        workspace_id,
        size_bytes,
        offset,
        execution_mode,
        ..
    } = &read;
    talk.line(&format!(
        "[workspace-file-read] workspace_id={workspace_id} path={} size_bytes={size_bytes} offset={offset} truncated={} execution_mode={execution_mode}",
        printable(&read.path),
        render::yes_no(read.truncated)
    ));
    Ok(code)
}

async fn shown(bytes: Vec<u8>) -> Result<ExitCode, Error> {
    // A reader that leaves early has enough of it.
    let _ = Streams::default().write(&ExecOutput::Stdout(bytes)).await;
    Ok(ExitCode::Success)
}

async fn write(pyro: &Pyro, args: WriteArgs, talk: &Talk) -> Result<ExitCode, Error> {
    let content = text(args.text, args.text_file.as_deref())?;
    let workspace = args.target.find(pyro).await?;
    let written = workspace.write_file(&args.path, &content).await?;
    if args.json {
        return print_json(&written);
    }
    talk.line(&format!(
        "[workspace-file-write] workspace_id={} path={} size_bytes={} bytes_written={} created={} execution_mode={}",
        written.workspace_id,
        printable(&written.path),
        written.size_bytes,
        written.bytes_written,
        render::yes_no(written.created),
        written.execution_mode
    ));
    Ok(ExitCode::Success)
}

async fn edit(pyro: &Pyro, args: EditArgs, talk: &Talk) -> Result<ExitCode, Error> {
    let edit = FileEdit {
        old_text: text(args.old, args.old_file.as_deref())?,
        new_text: text(args.new, args.new_file.as_deref())?,
        replace_all: args.replace_all,
    };
    let workspace = args.target.find(pyro).await?;
    let edited = workspace.edit_file(&args.path, &edit).await?;
    if args.json {
        return print_json(&edited);
    }
    talk.line(&format!(
        "[workspace-file-edit] workspace_id={} path={} replacements={} size_bytes={} execution_mode={}",
        edited.workspace_id,
        printable(&edited.path),
        edited.replacements,
        edited.size_bytes,
        edited.execution_mode
    ));
    Ok(ExitCode::Success)
}

async fn grep(pyro: &Pyro, args: GrepArgs, talk: &Talk) -> Result<ExitCode, Error> {
    let workspace = args.target.find(pyro).await?;
    let options = GrepOptions {
        path: args.path,
        fixed: args.fixed,
        ignore_case: args.ignore_case,
        include: args.include,
        exclude: args.exclude,
        all: args.all,
        context: args.context,
        max_matches: args.max_matches,
        ..GrepOptions::new(args.pattern)
    };
    let grep = workspace.grep(&options).await?;
    if args.json {
        return print_json(&grep);
    }
    let code = print(&render::grep(&grep.found));
    talk.line(&format!(
        "[workspace-file-grep] workspace_id={} matches={} files_matched={} files_searched={} truncated={} execution_mode={}",
        grep.workspace_id,
        grep.found.matches,
        grep.found.files_matched,
        grep.found.files_searched,
        render::yes_no(grep.found.truncated),
        grep.execution_mode
    ));
    Ok(code)
}
