//! `pyro workspace snapshot`.

use pyro::{Error, Pyro};

use super::{print, print_json, snapshot_name};
use crate::args::SnapshotCommand;
use crate::exit_code::ExitCode;
use crate::render::{Talk, workspace as render};

pub(super) async fn snapshot(
    pyro: &Pyro,
    command: SnapshotCommand,
    talk: &Talk,
) -> Result<ExitCode, Error> {
    match command {
        SnapshotCommand::Create(args) => {
            let name = snapshot_name(&args.snapshot.name)?;
            let workspace = args.snapshot.target.find(pyro).await?;
            let made = workspace.create_snapshot(&name, args.memory).await?;
            if args.snapshot.json {
                return print_json(&made);
            }
            let code = print(&render::snapshot(&made.snapshot));
            talk.line(&format!(
                "[workspace-snapshot-create] workspace_id={} snapshot_name={} kind={} entry_count={} bytes_written={} disk_bytes={} paused_ms={} execution_mode={}",
                made.workspace_id,
                made.snapshot.snapshot_name,
                made.snapshot.kind,
                made.snapshot.entry_count,
                made.snapshot.bytes_written,
                made.snapshot.disk_bytes,
                made.paused_ms,
                made.execution_mode,
            ));
            Ok(code)
        }
        SnapshotCommand::List(args) => {
            let list = args.target.find(pyro).await?.list_snapshots().await?;
            if args.json {
                return print_json(&list);
            }
            Ok(print(
                &list
                    .snapshots
                    .iter()
                    .map(render::snapshot)
                    .collect::<String>(),
            ))
        }
        SnapshotCommand::Delete(args) => {
            let name = snapshot_name(&args.name)?;
            let workspace = args.target.find(pyro).await?;
            let deleted = workspace.delete_snapshot(&name).await?;
            if args.json {
                return print_json(&deleted);
            }
            Ok(print(&format!(
                "Deleted snapshot {} of workspace {}\n",
                deleted.snapshot_name, deleted.workspace_id
            )))
        }
    }
}
