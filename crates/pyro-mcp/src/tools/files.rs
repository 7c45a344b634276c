//! Files of a workspace.

use pyro::workspace::{FileEdit, GrepOptions, ReadOptions};
use serde_json::{Value, json};

use super::{Call, arguments, told};
use crate::cap;
use crate::failure::Failure;

/// Entries of one listing.
const MAX_ENTRIES: usize = 1000;

/// Matching lines of one search.
const MAX_MATCHES: usize = 200;

pub(super) async fn list(call: &Call<'_>, given: arguments::FileList) -> Result<Value, Failure> {
    let workspace = call.workspace(&given.workspace_id).await?;
    let listing = workspace.list_files(&given.path, given.recursive).await?;
    let behind = |path: &str| given.cursor.as_deref().is_none_or(|cursor| path > cursor);
    let wanted = listing.entries.iter().filter(|entry| behind(&entry.path));
    let mut entries: Vec<Value> = Vec::new();
    let mut held = 0;
    let mut last = None;
    let mut next_cursor = None;
    for entry in wanted {
        let mut shown = json!({
            "path": entry.path,
            "artifact_type": entry.artifact_type,
            "size_bytes": entry.size_bytes,
        });
        if let Some(target) = &entry.link_target {
            shown["link_target"] = target.as_str().into();
        }
        held += shown.to_string().len();
        if entries.len() == MAX_ENTRIES || (held > call.options().max_text && !entries.is_empty()) {
            next_cursor = last;
            break;
        }
        last = Some(entry.path.as_str());
        entries.push(shown);
    }
    Ok(json!({
        "workspace_id": listing.workspace_id,
        "path": listing.path,
        "recursive": listing.recursive,
        "entries": entries,
        "truncated": listing.truncated || next_cursor.is_some(),
        "next_cursor": next_cursor,
        "execution_mode": listing.execution_mode,
    }))
}

pub(super) async fn read(call: &Call<'_>, given: arguments::FileRead) -> Result<Value, Failure> {
    let workspace = call.workspace(&given.workspace_id).await?;
    let options = ReadOptions {
        offset: given.offset,
        max_bytes: given.max_bytes.min(pyro::workspace::DEFAULT_READ),
    };
    let file = workspace.read_file(&given.path, options).await?;
    let mut shown = told(&file)?;
    if file.content_b64.is_some() {
        // No text: what is told of it serves to see that.
        let (content, _) = cap::head(&file.content, call.options().max_text);
        shown["content"] = content.into();
        shown["binary"] = true.into();
        if let Some(fields) = shown.as_object_mut() {
            fields.remove("content_b64");
        }
    }
    Ok(shown)
}

pub(super) async fn write(call: &Call<'_>, given: arguments::FileWrite) -> Result<Value, Failure> {
    let workspace = call.workspace(&given.workspace_id).await?;
    told(&workspace.write_file(&given.path, &given.text).await?)
}

pub(super) async fn edit(call: &Call<'_>, given: arguments::FileEdit) -> Result<Value, Failure> {
    let workspace = call.workspace(&given.workspace_id).await?;
    let edit = FileEdit {
        old_text: given.old_text,
        new_text: given.new_text,
        replace_all: given.replace_all,
    };
    told(&workspace.edit_file(&given.path, &edit).await?)
}

pub(super) async fn grep(call: &Call<'_>, given: arguments::FileGrep) -> Result<Value, Failure> {
    let workspace = call.workspace(&given.workspace_id).await?;
    let options = GrepOptions {
        path: given.path,
        ignore_case: given.ignore_case,
        include: given.include.unwrap_or_default(),
        context: given.context,
        max_matches: MAX_MATCHES,
        ..GrepOptions::new(given.pattern)
    };
    let found = workspace.grep(&options).await?;
    let mut shown = told(&found)?;
    let mut held = 0;
    let fits = found.found.lines.iter().take_while(|line| {
        held += told(line).map_or(0, |line| line.to_string().len());
        held <= call.options().max_text
    });
    let fits = fits.count();
    if let Some(lines) = shown["lines"]
        .as_array_mut()
        .filter(|lines| lines.len() > fits)
    {
        lines.truncate(fits);
        shown["truncated"] = true.into();
    }
    Ok(shown)
}
