//! Workspaces for people. What a guest or a user named is shown without control characters.

mod command;
mod file;
mod life;
mod tree;

pub(crate) use command::{job, job_bytes, logs, stream};
pub(crate) use file::{content, file_list, grep, paths, yes_no};
pub(crate) use life::{deleted, forked, list, reset, snapshot, summary_block};
pub(crate) use tree::{
    applied, diff_line, export_line, patch_line, patch_report, safe_lines, seed_line,
    seed_warnings, stat, sync_line, sync_plan,
};

use super::printable;

/// A number that may not be known.
pub(crate) fn number<T: ToString>(number: Option<T>) -> String {
    number.map_or_else(|| "-".into(), |number| number.to_string())
}

/// Text as the value of a `key=value`: in quotes if it would not be one word.
fn value(text: &str) -> String {
    let shown = printable(text);
    if shown.is_empty() || shown.contains([' ', '"', '=']) {
        return format!("\"{}\"", shown.replace('"', "\\\""));
    }
    shown
}
