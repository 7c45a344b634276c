//! The client's end of the actions about trees: lines in frames, counts at the end.
//!
//! Knows no machine: it is handed a stream. What the guest says is bounded here and parsed by whoever asked.

use std::time::Duration;

use pyro_protocol::code::ErrorReply;
use pyro_protocol::frame::Kind;
use pyro_protocol::index::{TreeEnd, TreeProgress};
use serde_json::Value;
use tokio::time::timeout;

use crate::error::Error;
use crate::exec::Call;

/// Longest silence of the agent: it tells its progress while it walks.
const SILENCE: Duration = Duration::from_mins(5);

/// Longest line: a path and a link's text in base64 beside their text, twice.
const MAX_LINE: usize = 64 * 1024;

/// Follows a reply about a tree to its end. `on_line` is given each line without its end.
pub(crate) async fn follow(
    mut call: Call,
    mut on_line: impl FnMut(&[u8]) -> Result<(), Error>,
    mut on_progress: impl FnMut(TreeProgress),
) -> Result<TreeEnd, Error> {
    let mut partial = Vec::new();
    loop {
        let frame =
            timeout(SILENCE, call.next_frame())
                .await
                .map_err(|_| Error::Unreachable {
                    reason: "the walk of a tree fell silent".into(),
                })??;
        match frame.kind {
            Kind::Stdout => {
                partial.extend_from_slice(&frame.payload);
                let mut begin = 0;
                while let Some(length) = partial[begin..].iter().position(|byte| *byte == b'\n') {
                    on_line(&partial[begin..begin + length])?;
                    begin += length + 1;
                }
                partial.drain(..begin);
                if partial.len() > MAX_LINE {
                    return Err(Error::Unreachable {
                        reason: "a line about a tree is too long".into(),
                    });
                }
            }
            Kind::Progress => {
                if let Ok(progress) = serde_json::from_slice(&frame.payload) {
                    on_progress(progress);
                }
            }
            Kind::End => return end(&frame.payload),
            Kind::Stderr | Kind::Stdin | Kind::StdinEnd | Kind::Signal | Kind::Window => {}
        }
    }
}

fn end(payload: &[u8]) -> Result<TreeEnd, Error> {
    let value: Value =
        serde_json::from_slice(payload).map_err(|error| Error::unreachable(&error))?;
    if value.get("error").is_some() {
        let reply: ErrorReply =
            serde_json::from_value(value).map_err(|error| Error::unreachable(&error))?;
        return Err(Error::Guest(reply));
    }
    serde_json::from_value(value).map_err(|error| Error::unreachable(&error))
}
