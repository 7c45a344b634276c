//! Making a root file system inside a builder machine.
//!
//! Owns `build_root`: the target disk is mounted, the layer disks are unpacked onto it, it
//! is written back and unmounted. The machine holds nothing else, so that a hostile layer
//! meets neither the host nor another image.

mod layer;

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use pyro_archive::extract::layer::Position;
use pyro_protocol::code::{ErrorCode, ErrorReply};
use pyro_protocol::frame::Kind;
use pyro_protocol::request::BuildRoot;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde_json::json;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::interval;

use crate::init::find_disk;
use crate::wire;
use layer::Reached;

const TARGET: &str = "/target";

/// Time between two progress frames.
const PROGRESS_EVERY: Duration = Duration::from_millis(250);

/// Serves `build_root`: a header line, progress frames, an end frame.
pub(crate) async fn build_root<W>(order: BuildRoot, writer: &mut W) -> std::io::Result<()>
where
    W: AsyncWrite + Unpin,
{
    wire::write_line(writer, &json!({"ok": true, "frames": true})).await?;
    let reached = Arc::new(Reached::default());
    let counted = Arc::clone(&reached);
    let mut work = tokio::task::spawn_blocking(move || build(&order, &counted));
    let mut tick = interval(PROGRESS_EVERY);
    let outcome = loop {
        tokio::select! {
            outcome = &mut work => break outcome,
            _ = tick.tick() => {
                let progress = serde_json::to_vec(&reached.read())?;
                wire::write_frame(writer, Kind::Progress, &progress).await?;
                writer.flush().await?;
            }
        }
    };
    match outcome {
        Ok(Ok(())) => wire::write_end(writer, &reached.read()).await,
        Ok(Err(error)) => wire::write_end(writer, &error).await,
        Err(panicked) => {
            let error = ErrorReply::new(
                ErrorCode::Internal,
                format!("the unpacking panicked: {panicked}"),
            );
            wire::write_end(writer, &error).await
        }
    }
}

fn build(order: &BuildRoot, reached: &Reached) -> Result<(), ErrorReply> {
    let target = disk(&order.target)?;
    std::fs::create_dir_all(TARGET).map_err(|error| failed("making the mount point", &error))?;
    mount(
        &target,
        TARGET,
        c"ext4",
        MountFlags::NOATIME,
        c"noinit_itable",
    )
    .map_err(|error| failed("mounting the target", &error))?;
    // The host made it; an image has no use for it.
    let _ = std::fs::remove_dir(format!("{TARGET}/lost+found"));
    let mut position = Position::Lowest;
    for (index, layer) in order.layers.iter().enumerate() {
        let device =
            File::open(disk(&layer.disk)?).map_err(|error| failed("opening a layer", &error))?;
        layer::put(device, layer, TARGET, position, reached).map_err(|error| {
            ErrorReply::new(error.code, format!("layer {}: {}", index + 1, error.error))
        })?;
        position = Position::Above;
    }
    unmount(TARGET, UnmountFlags::empty()).map_err(|error| failed("unmounting the target", &error))
}

fn disk(id: &str) -> Result<std::path::PathBuf, ErrorReply> {
    find_disk(id)
        .ok_or_else(|| ErrorReply::new(ErrorCode::NotFound, format!("there is no disk `{id}`")))
}

fn failed(what: &str, error: &dyn std::fmt::Display) -> ErrorReply {
    ErrorReply::new(ErrorCode::GuestError, format!("{what}: {error}"))
}
