//! Trees into a machine and out of it, as streams of tar.
//!
//! Owns the client's end of `tree_import` and `tree_export`: bounded memory whatever the size,
//! both directions at once, and the check that what came is whole. It neither packs nor
//! unpacks: an archive comes from the caller and goes to the caller.

use std::pin::pin;
use std::time::Duration;

use pyro_protocol::archive::export::{TreeExport, TreeExportEnd};
use pyro_protocol::archive::import::{ImportEnd, ImportProgress, TreeImport};
use pyro_protocol::frame::{Frame, Kind};
use pyro_protocol::limits::FRAME_CHUNK;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::error::Error;
use crate::exec::Call;
use crate::machine::Machine;

/// Longest silence of the agent. It tells its progress four times a second while it works.
const SILENCE: Duration = Duration::from_mins(5);

impl Machine {
    /// Unpacks `archive` inside the guest. Dropping it cancels the import: a staged one leaves
    /// nothing then.
    ///
    /// # Errors
    /// [`Error::Stream`] if `archive` cannot be read, [`Error::Guest`] if the guest refuses it.
    pub async fn import(
        &mut self,
        request: &TreeImport,
        archive: impl AsyncRead,
        on_progress: impl FnMut(ImportProgress),
    ) -> Result<ImportEnd, Error> {
        let request = action("tree_import", request)?;
        let sent = match self.call(&request).await {
            Ok(mut call) => send(&mut call, archive, on_progress).await,
            Err(error) => Err(error),
        };
        self.explained(sent).await
    }

    /// Writes a tree of the guest to `out`, at most `limit` bytes of archive. Nothing of `out`
    /// counts unless this succeeds: its size and digest are compared in the end. Dropping it
    /// cancels the export.
    ///
    /// # Errors
    /// [`Error::Stream`] if `out` cannot be written, [`Error::Guest`] if the guest refuses,
    /// [`Error::Unreachable`] if more or something else came than the guest says.
    pub async fn export(
        &mut self,
        request: &TreeExport,
        out: impl AsyncWrite,
        limit: u64,
    ) -> Result<TreeExportEnd, Error> {
        let request = action("tree_export", request)?;
        let received = match self.call(&request).await {
            Ok(mut call) => receive(&mut call, out, limit).await,
            Err(error) => Err(error),
        };
        self.explained(received).await
    }

    /// Puts the reason in the place of an error that may come from the machine's end.
    async fn explained<T>(&mut self, outcome: Result<T, Error>) -> Result<T, Error> {
        match outcome {
            Err(error @ Error::Unreachable { .. }) if self.ready().is_some() => {
                Err(self.why_ended(error).await)
            }
            outcome => outcome,
        }
    }
}

/// The request `name` with the fields of `request`.
pub(crate) fn action(name: &str, request: &impl Serialize) -> Result<Value, Error> {
    let mut request = serde_json::to_value(request).map_err(|error| Error::unreachable(&error))?;
    request["action"] = Value::from(name);
    Ok(request)
}

/// Sends an archive as the input of an import that was called.
pub(crate) async fn send(
    call: &mut Call,
    archive: impl AsyncRead,
    mut on_progress: impl FnMut(ImportProgress),
) -> Result<ImportEnd, Error> {
    let input = call.input();
    let mut sending = pin!(async {
        let mut archive = pin!(archive);
        let mut chunk = vec![0; FRAME_CHUNK];
        loop {
            let count = archive.read(&mut chunk).await;
            match count.map_err(|source| Error::Stream {
                action: "read",
                source,
            })? {
                0 => return input.clone().close().await,
                count => input.write(&chunk[..count]).await?,
            }
        }
    });
    let mut is_sent = false;
    loop {
        let frame = tokio::select! {
            outcome = &mut sending, if !is_sent => {
                is_sent = true;
                match outcome {
                    Err(error @ Error::Stream { .. }) => return Err(error),
                    // An agent that takes no more says why in its last frame.
                    Ok(()) | Err(_) => continue,
                }
            }
            frame = next(call) => frame?,
        };
        match frame.kind {
            Kind::Window => input.credit(&frame.payload)?,
            Kind::Progress => on_progress(told(&frame)?),
            Kind::End => return told(&frame),
            _ => {}
        }
    }
}

/// Receives the archive of an export that was called, at most `limit` bytes of it.
pub(crate) async fn receive(
    call: &mut Call,
    out: impl AsyncWrite,
    limit: u64,
) -> Result<TreeExportEnd, Error> {
    let failed = |source| Error::Stream {
        action: "write",
        source,
    };
    let mut out = pin!(out);
    let mut hasher = Sha256::new();
    let mut size = 0_u64;
    loop {
        let frame = next(call).await?;
        match frame.kind {
            Kind::Stdout => {
                size += frame.payload.len() as u64;
                if size > limit {
                    return Err(Error::Unreachable {
                        reason: format!("its archive exceeds {limit} bytes"),
                    });
                }
                hasher.update(&frame.payload);
                out.write_all(&frame.payload).await.map_err(failed)?;
            }
            Kind::End => {
                let end: TreeExportEnd = told(&frame)?;
                let digest = hasher.finalize();
                let digest = digest.iter().fold("sha256:".to_owned(), |text, byte| {
                    format!("{text}{byte:02x}")
                });
                if (end.archive_size, &end.digest) != (size, &digest) {
                    return Err(Error::Unreachable {
                        reason: "its archive is another than it says".into(),
                    });
                }
                out.flush().await.map_err(failed)?;
                return Ok(end);
            }
            _ => {}
        }
    }
}

/// The next frame. Cancel-safe.
async fn next(call: &mut Call) -> Result<Frame, Error> {
    match timeout(SILENCE, call.next_frame()).await {
        Ok(frame) => frame,
        Err(_) => Err(Error::Unreachable {
            reason: "the transfer fell silent".into(),
        }),
    }
}

/// What a frame with an object says.
fn told<T: DeserializeOwned>(frame: &Frame) -> Result<T, Error> {
    let object: Value =
        serde_json::from_slice(&frame.payload).map_err(|error| Error::unreachable(&error))?;
    if object.get("error").is_some() {
        let reply = serde_json::from_value(object).map_err(|error| Error::unreachable(&error))?;
        return Err(Error::Guest(reply));
    }
    serde_json::from_value(object).map_err(|error| Error::unreachable(&error))
}

#[cfg(test)]
mod tests {
    use pyro_protocol::frame::encode;
    use serde_json::json;
    use tokio::net::UnixStream;

    use super::*;

    /// A call to a peer that answers with these frames and reads whatever comes.
    async fn call(frames: Vec<u8>) -> Call {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        tokio::spawn(async move {
            let _ = theirs
                .write_all(b"{\"ok\": true, \"frames\": true}\n")
                .await;
            let _ = theirs.write_all(&frames).await;
            let _ = theirs.shutdown().await;
            let mut rest = Vec::new();
            let _ = theirs.read_to_end(&mut rest).await;
        });
        Call::start(ours, &Value::Null).await.unwrap()
    }

    fn end(object: &Value) -> Vec<u8> {
        encode(Kind::End, object.to_string().as_bytes())
    }

    fn export_end(size: u64, digest: &str) -> Vec<u8> {
        let none = json!({"count": 0, "paths": []});
        end(&json!({
            "entry_count": 1, "bytes_written": 3, "archive_size": size, "digest": digest,
            "skipped": none, "changed": none, "vanished": none, "unreadable": none,
        }))
    }

    #[tokio::test]
    async fn an_archive_that_is_not_whole_is_refused() {
        let abc = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let archive = encode(Kind::Stdout, b"abc");
        let outcome = async |rest: Vec<u8>, limit| {
            let mut out = Vec::new();
            let mut call = call([archive.clone(), rest].concat()).await;
            let received = receive(&mut call, &mut out, limit).await;
            received.map(|_| out).map_err(|error| error.to_string())
        };
        assert_eq!(outcome(export_end(3, abc), 3).await.unwrap(), b"abc");
        for (rest, limit, part) in [
            (export_end(3, abc), 2, "exceeds 2 bytes"),
            (export_end(4, abc), 3, "another"),
            (export_end(3, &abc.replace('b', "c")), 3, "another"),
            (Vec::new(), 3, "broke off"),
            (
                end(&json!({"error": "no room", "code": "no_space"})),
                3,
                "no room",
            ),
        ] {
            let error = outcome(rest, limit).await.unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }

    #[tokio::test]
    async fn a_refused_import_tells_the_reason_of_the_guest() {
        // It grants no window, so the archive cannot be sent to its end.
        let refusal = end(&json!({"error": "no room", "code": "no_space"}));
        let error = send(&mut call(refusal).await, tokio::io::repeat(7), |_| {})
            .await
            .unwrap_err();
        assert_eq!(error.to_string(), "no room");
    }

    #[tokio::test]
    async fn an_archive_that_cannot_be_read_ends_the_import() {
        struct Broken;
        impl AsyncRead for Broken {
            fn poll_read(
                self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
                _: &mut tokio::io::ReadBuf<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                std::task::Poll::Ready(Err(std::io::Error::other("gone")))
            }
        }
        let progress = encode(Kind::Progress, br#"{"entries": 1, "bytes": 2}"#);
        let error = send(&mut call(progress).await, Broken, |_| {})
            .await
            .unwrap_err();
        assert!(
            matches!(error, Error::Stream { action: "read", .. })
                || error.to_string().contains("broke off")
        );
    }
}
