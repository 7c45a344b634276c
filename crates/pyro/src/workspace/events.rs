//! What happened to a workspace, an object a line, never changed.
//!
//! A log for people and reports: what counts stands in the database. It outlives resets and goes with the workspace.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;

use pyro_image::blocking::blocking;
use serde::Serialize;
use serde_json::{Value, json};

use super::{Workspace, now};
use crate::error::Error;

/// The most of a log that is read at once, in bytes.
const MAX_READ: u64 = 16 * 1024 * 1024;

/// Something that happened.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub(super) enum Event<'a> {
    Created,
    Started,
    Stopped,
    Paused,
    Resumed,
    Reset {
        snapshot: &'a str,
    },
    Forked {
        child: &'a str,
    },
    ForkedFrom {
        parent: &'a str,
    },
    SnapshotCreated {
        snapshot: &'a str,
    },
    SnapshotDeleted {
        snapshot: &'a str,
    },
    Command {
        sequence: u64,
        command: &'a str,
        exit_code: Option<i32>,
        duration_ms: Option<u64>,
    },
    FileWrite {
        path: &'a str,
        bytes: u64,
    },
    FileEdit {
        path: &'a str,
        replacements: u64,
    },
    PatchApply {
        files: u64,
    },
    SyncPush {
        source: &'a str,
        destination: &'a str,
        entries: u64,
    },
    SyncPull {
        source: &'a str,
        destination: &'a str,
        entries: u64,
    },
    Apply {
        checkout: &'a str,
        files: u64,
    },
    Export {
        path: &'a str,
        output_path: &'a str,
        entries: u64,
    },
}

impl Workspace {
    /// Adds an event to the log. One that cannot be written is no reason to fail what was done.
    pub(super) async fn log(&self, event: &Event<'_>) {
        let mut line = json!(event);
        line["at"] = json!(now());
        let mut text = line.to_string();
        text.push('\n');
        let path = self.place().events();
        let written = blocking(move || {
            std::fs::OpenOptions::new()
                .create(true)
                .append(true)
                .mode(0o600)
                .open(path)?
                .write_all(text.as_bytes())
        });
        let _ = written.await;
    }

    /// The events since the time `since`, the oldest first.
    pub async fn events(&self, since: f64) -> Result<Vec<Value>, Error> {
        let path = self.place().events();
        blocking(move || {
            let file = match std::fs::File::open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    return Ok(Vec::new());
                }
                Err(source) => {
                    return Err(Error::Io {
                        action: "read",
                        path,
                        source,
                    });
                }
            };
            let lines = BufReader::new(std::io::Read::take(file, MAX_READ)).lines();
            // A line that a killed process left half is none.
            let events = lines
                .map_while(Result::ok)
                .filter_map(|line| serde_json::from_str::<Value>(&line).ok())
                .filter(|event| event["at"].as_f64().is_some_and(|at| at >= since));
            Ok(events.collect())
        })
        .await
    }
}
