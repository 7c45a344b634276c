//! Trees between this host and a workspace, and what changed in one.

use pyro::tree::{Links, Overwrite};
use pyro::workspace::{DiffOptions, ExportFormat, ExportOptions, PatchOptions, SyncPushOptions};
use serde_json::Value;

use super::{Call, arguments, told};
use crate::cap;
use crate::confine::Purpose;
use crate::failure::Failure;
use crate::options::ProjectSource;

/// How much of the patch that was applied is told again, in bytes.
const MAX_ECHO: usize = 1024;

/// Changed paths in one result.
const MAX_ENTRIES: usize = 300;

pub(super) async fn sync_push(
    call: &Call<'_>,
    given: arguments::SyncPush,
) -> Result<Value, Failure> {
    let source = call.host_path(&given.source_path, Purpose::Read).await?;
    let workspace = call.workspace(&given.workspace_id).await?;
    let options = SyncPushOptions {
        destination: Some(given.dest),
        // Of a checkout nobody wants what its own Git ignores.
        gitignore: ProjectSource::detect(&source) != ProjectSource::None,
        ..SyncPushOptions::default()
    };
    let mut sync = told(
        &workspace
            .sync_push(&source, &options, &call.told.sink())
            .await?,
    )?;
    cap::values(&mut sync);
    Ok(sync)
}

pub(super) async fn export(call: &Call<'_>, given: arguments::Export) -> Result<Value, Failure> {
    let output = call.host_path(&given.output_path, Purpose::Write).await?;
    let workspace = call.workspace(&given.workspace_id).await?;
    // What is there belongs to the user. The output was judged without links: one that another export puts there now would lead
    // it out.
    let options = ExportOptions {
        format: ExportFormat::Tree,
        overwrite: Overwrite::Refuse,
        links: Links::Refuse,
    };
    let (paths, sink) = ([given.path], call.told.sink());
    told(&Box::pin(workspace.export(&paths, &output, &options, &sink)).await?)
}

pub(super) async fn patch_apply(
    call: &Call<'_>,
    given: arguments::PatchApply,
) -> Result<Value, Failure> {
    let workspace = call.workspace(&given.workspace_id).await?;
    let options = PatchOptions {
        fuzz: given.fuzz,
        ..PatchOptions::default()
    };
    let mut done = told(
        &workspace
            .apply_patch(given.patch.as_bytes(), &options)
            .await?,
    )?;
    done["patch"] = cap::head_and_tail(&given.patch, MAX_ECHO).0.into();
    cap::values(&mut done);
    Ok(done)
}

pub(super) async fn diff(call: &Call<'_>, given: arguments::Diff) -> Result<Value, Failure> {
    let workspace = call.workspace(&given.workspace_id).await?;
    let options = DiffOptions {
        paths: given.paths.unwrap_or_default(),
        ..DiffOptions::default()
    };
    let diff = Box::pin(workspace.diff(&options)).await?;
    let mut shown = told(&diff)?;
    let from = cap::boundary(&diff.patch, given.cursor);
    let (page, more) = cap::head(&diff.patch[from..], call.options().max_text);
    let next = more.then_some(from + page.len());
    shown["patch"] = page.into();
    shown["next_cursor"] = next.into();
    let is_first = from == 0;
    let entries = shown["entries"].as_array_mut();
    let mut cut = false;
    if let Some(entries) = entries {
        cut = is_first && entries.len() > MAX_ENTRIES;
        entries.truncate(if is_first { MAX_ENTRIES } else { 0 });
        // The patch is told once.
        for fields in entries.iter_mut().filter_map(Value::as_object_mut) {
            fields.remove("text_patch");
        }
    }
    if let Some(fields) = shown.as_object_mut() {
        fields.remove("patch_b64");
    }
    shown["truncated"] = (diff.truncated || cut || more).into();
    Ok(shown)
}
