//! What was done in a workspace: its commands, as many as fit into one result, and the summary.

use serde_json::{Value, json};

use super::run::cap_outputs;
use super::{Call, arguments, told};
use crate::cap;
use crate::failure::Failure;

/// How many of a result's bytes the output of one command may take: an eighth.
const SHARE: usize = 8;

pub(super) async fn logs(call: &Call<'_>, given: arguments::Logs) -> Result<Value, Failure> {
    let workspace = call.workspace(&given.workspace_id).await?;
    let logs = workspace.logs(given.after_sequence).await?;
    let max = call.options().max_text;
    let mut next = given.after_sequence;
    let mut truncated = logs.truncated;
    let mut held = 0;
    let mut entries = Vec::new();
    for entry in &logs.entries {
        let mut shown = told(entry)?;
        cap_outputs(&mut shown, max / SHARE);
        held += shown.to_string().len();
        if held > max && !entries.is_empty() {
            truncated = true;
            break;
        }
        next = entry.command.sequence;
        entries.push(shown);
    }
    Ok(json!({
        "workspace_id": logs.workspace_id,
        "count": entries.len(),
        "entries": entries,
        "truncated": truncated,
        "next_sequence": next,
    }))
}

pub(super) async fn summary(
    call: &Call<'_>,
    given: arguments::OfWorkspace,
) -> Result<Value, Failure> {
    let workspace = call.workspace(&given.workspace_id).await?;
    let mut summary = told(&Box::pin(workspace.summary()).await?)?;
    cap::values(&mut summary);
    Ok(summary)
}
