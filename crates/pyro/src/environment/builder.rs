//! The builder machine: layers become a root image inside a machine that has nothing else.
//!
//! The host never opens the layers' entries and never mounts the result.

use std::num::NonZero;
use std::time::Duration;

use pyro_image::{Kernel, Progress, ProgressSink, Staging};
use pyro_protocol::code::ErrorCode;
use pyro_protocol::frame::Kind;
use pyro_protocol::request::{BuildProgress, BuildRoot, LayerDisk};
use pyro_protocol::supervise::{Expiry, Lease, Role, Start};
use serde_json::Value;

use super::layers::LayersFile;
use crate::Pyro;
use crate::boot_files::BootFiles;
use crate::error::Error;
use crate::machine::{Machine, MachineOptions};

/// Size of a builder machine, MiB.
const BUILDER_MEM_MIB: u32 = 1024;

/// Virtual processors of a builder machine, as far as the host has them: while one unpacks, the
/// other one writes back.
const BUILDER_VCPUS: usize = 2;

/// Longest life of a builder machine.
const BUILDER_TTL: Duration = Duration::from_hours(1);

/// Longest silence of a builder: it tells its progress four times a second.
const BUILDER_SILENCE: Duration = Duration::from_mins(5);

/// Room in a root image beyond its layers, MiB. The image is sparse: room costs nothing.
const ROOT_SLACK_MIB: u64 = 256;

/// Sizes of the root image to try, in times of the layers' bytes. Twice is enough for every
/// image in use. A block of 512 bytes in a tar can become one of 4096 and an inode beside it.
const SIZES: [u64; 2] = [2, 9];

impl Pyro {
    /// Unpacks layers into the root image of a staging directory, and removes them.
    pub(super) async fn build_root_image(
        &self,
        staging: &Staging,
        kernel: &Kernel,
        layers: &LayersFile,
        progress: &ProgressSink,
    ) -> Result<(), Error> {
        let failed = |source| Error::Io {
            action: "remove",
            path: layers.path.clone(),
            source,
        };
        let mut built = Ok(());
        for times in SIZES {
            built = self.unpack(staging, kernel, layers, times, progress).await;
            match &built {
                Err(Error::Guest(reply)) if reply.code == ErrorCode::NoSpace => {
                    std::fs::remove_file(staging.rootfs()).map_err(failed)?;
                }
                _ => break,
            }
        }
        built?;
        std::fs::remove_file(&layers.path).map_err(failed)
    }

    async fn unpack(
        &self,
        staging: &Staging,
        kernel: &Kernel,
        layers: &LayersFile,
        times: u64,
        progress: &ProgressSink,
    ) -> Result<(), Error> {
        let bytes = layers.bytes();
        progress(Progress::Phase {
            phase: "root-image".into(),
            detail: format!(
                "unpacking {} MiB inside a builder machine",
                bytes / 1024 / 1024
            ),
        });
        let role = Role::Builder {
            layers: vec![layers.path.clone()],
            target: staging.rootfs(),
            target_mib: target_mib(bytes, times),
        };
        let vcpus = std::thread::available_parallelism().map_or(1, NonZero::get);
        let options = MachineOptions {
            vcpu_count: u8::try_from(vcpus.min(BUILDER_VCPUS)).unwrap_or(1),
            mem_mib: BUILDER_MEM_MIB,
            expiry: Expiry::at_age(BUILDER_TTL),
            lease: Lease::Owner,
            ..MachineOptions::default()
        };
        let boot = BootFiles::prepare(self.settings(), kernel)?;
        let mut machine = Machine::order(self, role, Start::Cold, boot, &options)?;
        let built = async {
            machine.wait_ready(|_| {}).await?;
            fill(&mut machine, layers, progress).await
        }
        .await;
        // The unmount inside has written everything back; an orderly end flushes the rest.
        let stopped = machine.stop(true).await;
        built?;
        stopped.map(drop)
    }
}

/// Has the agent unpack the layers, and passes its progress on.
async fn fill(
    machine: &mut Machine,
    layers: &LayersFile,
    progress: &ProgressSink,
) -> Result<(), Error> {
    let order = BuildRoot {
        target: "target".into(),
        layers: layers
            .parts
            .iter()
            .map(|part| LayerDisk {
                disk: "layer-0".into(),
                offset: part.offset,
                size: part.size,
            })
            .collect(),
    };
    let mut request = serde_json::to_value(order).map_err(|error| Error::unreachable(&error))?;
    request["action"] = Value::from("build_root");
    let mut call = machine.call(&request).await?;
    loop {
        let frame = match tokio::time::timeout(BUILDER_SILENCE, call.next_frame()).await {
            Ok(Ok(frame)) => frame,
            Ok(Err(error)) => return Err(machine.why_ended(error).await),
            Err(_) => {
                return Err(Error::Unreachable {
                    reason: "the builder fell silent".into(),
                });
            }
        };
        let outcome: Value = match frame.kind {
            Kind::Progress | Kind::End => serde_json::from_slice(&frame.payload)
                .map_err(|error| Error::unreachable(&error))?,
            _ => continue,
        };
        if outcome.get("error").is_some() {
            let reply =
                serde_json::from_value(outcome).map_err(|error| Error::unreachable(&error))?;
            return Err(Error::Guest(reply));
        }
        let reached: BuildProgress =
            serde_json::from_value(outcome).map_err(|error| Error::unreachable(&error))?;
        progress(Progress::Bytes {
            what: "root-image".into(),
            done: reached.bytes,
            total: Some(layers.bytes()),
        });
        if frame.kind == Kind::End {
            return Ok(());
        }
    }
}

fn target_mib(layer_bytes: u64, times: u64) -> u32 {
    let mib = layer_bytes
        .div_ceil(1024 * 1024)
        .saturating_mul(times)
        .saturating_add(ROOT_SLACK_MIB);
    u32::try_from(mib).unwrap_or(u32::MAX)
}
