//! Files of workspaces.

use std::fmt::Write;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pyro::workspace::{FileListPayload, FileReadPayload};
use pyro_protocol::files::{ArtifactType, GrepReply};

use super::super::printable;
use super::command::line_of_guest;

/// A truth as a word.
pub(crate) fn yes_no(truth: bool) -> &'static str {
    if truth { "yes" } else { "no" }
}

/// `workspace file list`.
pub(crate) fn file_list(list: &FileListPayload) -> String {
    let mut text = format!(
        "Workspace path: {} (recursive={})\n",
        printable(&list.path),
        yes_no(list.recursive)
    );
    for entry in &list.entries {
        let _ = write!(
            text,
            "{} [{}] size={}",
            printable(&entry.path),
            kind(entry.artifact_type),
            entry.size_bytes
        );
        if let Some(target) = &entry.link_target {
            let _ = write!(text, " -> {}", printable(target));
        }
        text.push('\n');
    }
    if list.truncated {
        text.push_str("There are more\n");
    }
    text
}

/// `workspace file glob`.
pub(crate) fn paths(list: &FileListPayload) -> String {
    let paths = list
        .entries
        .iter()
        .map(|entry| format!("{}\n", printable(&entry.path)));
    paths.collect()
}

/// The bytes of `workspace file read`.
pub(crate) fn content(read: &FileReadPayload) -> Vec<u8> {
    let encoded = read.content_b64.as_deref();
    let decoded = encoded.and_then(|text| STANDARD.decode(text).ok());
    decoded.unwrap_or_else(|| read.content.clone().into_bytes())
}

/// `workspace file grep`, in the form of `grep -n`.
pub(crate) fn grep(found: &GrepReply) -> String {
    let mut text = String::new();
    for line in &found.lines {
        let mark = if line.context { '-' } else { ':' };
        let _ = writeln!(
            text,
            "{}{mark}{}{mark}{}",
            printable(&line.path),
            line.line_number,
            line_of_guest(&line.line)
        );
    }
    text
}

/// What something is.
pub(super) fn kind(artifact: ArtifactType) -> &'static str {
    match artifact {
        ArtifactType::File => "file",
        ArtifactType::Directory => "directory",
        ArtifactType::Symlink => "symlink",
        ArtifactType::Fifo => "fifo",
        ArtifactType::Socket => "socket",
        ArtifactType::CharDevice => "char_device",
        ArtifactType::BlockDevice => "block_device",
    }
}
