//! The four file actions of the original's version 3.11, with its fields and its rules.
//!
//! Ours differ where the original loses something: a write keeps the mode of the file, and a
//! listing tells of pipes, sockets and devices instead of failing.

use std::ops::ControlFlow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pyro_protocol::code::ErrorCode;
use pyro_protocol::files::{ArtifactType, FileEntry, LegacyRead};
use pyro_protocol::limits::{MAX_LEGACY_BYTES, MAX_LEGACY_ENTRIES};
use rustix::fs::{AtFlags, OFlags};
use serde_json::{Value, json};

use super::entry::{self, entry_at};
use super::fault::{Outcome, at, fault};
use super::list::{prefix, stat};
use super::place::Place;
use super::read::Reading;
use super::walk::{Found, Order, Visitor, Walk};
use super::work::Cancel;
use super::write::{Manner, Writing};
use pyro_archive::beneath::DIRECTORY;

/// `list_workspace`.
pub(super) fn list(place: &Place, recursive: bool, cancel: &Cancel) -> Outcome<Value> {
    let itself = stat(place, false)?;
    let mut entries = Entries {
        place,
        told: Vec::new(),
        bytes: 0,
    };
    if itself.artifact_type == ArtifactType::Directory {
        let directory = place
            .open_at(DIRECTORY | OFlags::NOFOLLOW)
            .map_err(at(&place.shown()))?;
        let walk = Walk {
            order: Order::Names,
            max_depth: if recursive { usize::MAX } else { 1 },
            after: None,
            one_mount: false,
            cancel,
        };
        walk.run(&directory, &prefix(place), &mut entries)?;
    } else {
        entries.told.push(told(&itself));
    }
    Ok(json!({
        "path": itself.path,
        "artifact_type": itself.artifact_type,
        "entries": entries.told,
    }))
}

struct Entries<'a> {
    place: &'a Place,
    told: Vec<Value>,
    bytes: usize,
}

impl Visitor for Entries<'_> {
    fn visit(&mut self, found: &Found<'_>) -> Outcome<ControlFlow<()>> {
        let shown = self.place.show(found.path);
        let Ok(entry) = entry_at(found.directory, found.name, &shown) else {
            // It vanished since the directory was read.
            return Ok(ControlFlow::Continue(()));
        };
        self.bytes += entry.path.len() + entry.link_target.as_ref().map_or(0, String::len);
        if self.told.len() == MAX_LEGACY_ENTRIES || self.bytes > MAX_LEGACY_BYTES {
            return Err(fault(
                ErrorCode::LimitExceeded,
                &self.place.shown(),
                "holds more than one reply can list; use `file_list`",
            ));
        }
        self.told.push(told(&entry));
        Ok(ControlFlow::Continue(()))
    }
}

fn told(entry: &FileEntry) -> Value {
    json!({
        "path": entry.path,
        "artifact_type": entry.artifact_type,
        "size_bytes": entry.size_bytes,
        "link_target": entry.link_target,
    })
}

/// `read_workspace_file`.
pub(super) fn read(place: &Place, request: &LegacyRead) -> Outcome<Value> {
    let reading = Reading::open(place, false)?;
    let most = usize::try_from(request.max_bytes).unwrap_or(usize::MAX - 1);
    let bytes = reading.read(0, most.saturating_add(1))?;
    if bytes.len() > most {
        return Err(fault(
            ErrorCode::LimitExceeded,
            &reading.shown,
            &format!("is larger than {most} bytes"),
        ));
    }
    Ok(json!({
        "path": entry::text(&reading.shown).0,
        "size_bytes": bytes.len(),
        "content_b64": STANDARD.encode(bytes),
    }))
}

/// `write_workspace_file`.
pub(super) fn write(place: &Place, text: &str) -> Outcome<Value> {
    let parent = place.parent_without_links()?;
    let name = place.name()?.to_owned();
    let mut writing = Writing::begin(place, parent, name, Manner::default())?;
    writing.put(text.as_bytes())?;
    let written = writing.finish()?;
    Ok(json!({
        "path": written.path,
        "size_bytes": written.size_bytes,
        "bytes_written": written.bytes_written,
    }))
}

/// `delete_workspace_path`.
pub(super) fn delete(place: &Place) -> Outcome<Value> {
    let shown = place.shown();
    let name = place.name()?;
    let parent = place.parent()?;
    rustix::fs::unlinkat(parent, name, AtFlags::empty()).map_err(at(&shown))?;
    Ok(json!({"path": entry::text(&shown).0, "deleted": true}))
}
