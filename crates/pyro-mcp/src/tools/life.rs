//! Workspaces as wholes: listed, told of, renamed, reset, deleted.

use pyro::workspace::SnapshotName;
use serde_json::{Value, json};

use super::{Call, arguments, told};
use crate::failure::Failure;

/// Workspaces in one listing.
const PAGE: usize = 50;

pub(super) async fn list(call: &Call<'_>, given: arguments::List) -> Result<Value, Failure> {
    let all = call.server.pyro.list_workspaces().await?;
    let page: Vec<_> = all
        .workspaces
        .iter()
        .skip(given.cursor)
        .take(PAGE)
        .collect();
    let next = given.cursor.saturating_add(page.len());
    let mut listing = json!({
        "count": all.count,
        "workspaces": page,
        "next_cursor": (next < all.workspaces.len()).then_some(next),
    });
    if !all.damaged.is_empty() {
        listing["damaged"] = told(&all.damaged)?;
    }
    Ok(listing)
}

pub(super) async fn update(call: &Call<'_>, given: arguments::Update) -> Result<Value, Failure> {
    let workspace = call.workspace(&given.workspace_id).await?;
    let update = pyro::workspace::Update {
        name: given.name,
        clear_name: given.clear_name,
        labels: given.labels.unwrap_or_default(),
        clear_labels: given.clear_labels.unwrap_or_default(),
        ttl: None,
    };
    told(&workspace.update(update).await?)
}

pub(super) async fn status(
    call: &Call<'_>,
    given: arguments::OfWorkspace,
) -> Result<Value, Failure> {
    told(&call.workspace(&given.workspace_id).await?.status().await?)
}

pub(super) async fn reset(call: &Call<'_>, given: arguments::Reset) -> Result<Value, Failure> {
    let snapshot = SnapshotName::parse(&given.snapshot)?;
    let workspace = call.workspace(&given.workspace_id).await?;
    told(&workspace.reset(&snapshot, &call.told.sink()).await?)
}

pub(super) async fn delete(
    call: &Call<'_>,
    given: arguments::OfWorkspace,
) -> Result<Value, Failure> {
    told(&call.workspace(&given.workspace_id).await?.delete().await?)
}
