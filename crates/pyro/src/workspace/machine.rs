//! Starting the machine of a workspace.

use pyro_protocol::supervise::{Expiry, Lease, Start};

use super::names::Ttl;
use super::store::{Facts, Row};
use super::{Workspace, WorkspaceError};
use crate::ProgressSink;
use crate::environment::{EnvironmentOptions, ReadyEnvironment};
use crate::error::Error;
use crate::machine::{DiskOrigin, Keep, Machine, MachineOptions};

/// A machine to be started.
#[derive(Debug)]
pub(super) struct Launch<'a> {
    pub(super) machine_id: &'a str,
    /// File name of its disk.
    pub(super) disk: &'a str,
    pub(super) start: Start,
    pub(super) ttl: Ttl,
    pub(super) facts: &'a Facts,
}

/// The policy of a workspace whose guest has a network.
pub(super) const EGRESS: &str = "egress";

impl Workspace {
    /// Starts a machine and waits until it is ready. It ends with this process until it is detached.
    pub(super) async fn launch(
        &self,
        environment: &ReadyEnvironment,
        launch: Launch<'_>,
        progress: &ProgressSink,
    ) -> Result<Machine, Error> {
        let place = self.place();
        let options = MachineOptions {
            vcpu_count: launch.facts.vcpu_count,
            mem_mib: launch.facts.mem_mib,
            network: launch.facts.network_policy == EGRESS,
            lease: Lease::Owner,
            expiry: expiry(launch.ttl),
            keep: Some(Keep {
                disk: place.disk(launch.disk),
                // The start says what the disk begins as.
                from: DiskOrigin::New,
                end_record: Some(place.end_record(launch.machine_id)),
            }),
            ..MachineOptions::default()
        };
        let id = launch.machine_id.to_owned();
        let mut machine = Machine::begin_as(id, &self.pyro, environment, launch.start, &options)?;
        let told = progress.clone();
        machine
            .wait_ready(move |phase| {
                told(crate::Progress::Phase {
                    phase: phase.to_owned().into(),
                    detail: String::new(),
                });
            })
            .await?;
        Ok(machine)
    }

    /// The environment that a workspace's disk belongs to: its root image lies with the workspace, so that it outlives a
    /// removal or another version of the environment.
    pub(super) async fn own_environment(
        &self,
        row: &Row,
        progress: &ProgressSink,
    ) -> Result<ReadyEnvironment, Error> {
        let root = self.place().root_image();
        // Making an environment is a large future, and rarely needed here.
        let ready = Box::pin(self.pyro.ready_environment(
            &row.facts.environment,
            EnvironmentOptions::default(),
            progress,
        ))
        .await?;
        if ready.root_digest.to_string() == row.facts.root_digest {
            return Ok(ready);
        }
        if !root.is_file() {
            return Err(WorkspaceError::RootImageGone {
                id: self.id.clone(),
                environment: row.facts.environment.clone(),
            }
            .into());
        }
        let root_digest = row
            .facts
            .root_digest
            .parse()
            .map_err(|_| WorkspaceError::Damaged {
                id: self.id.clone(),
                reason: "`root_digest` is no digest".into(),
            })?;
        Ok(ReadyEnvironment {
            rootfs: root,
            root_digest,
            version: row.facts.environment_version.clone(),
            ..ready
        })
    }

    /// Gives the environment's root image a second name in the workspace's directory.
    pub(super) fn keep_root_image(&self, environment: &ReadyEnvironment) {
        // On another file system there is no second name; then the workspace lives as long as the image.
        let _ = std::fs::hard_link(&environment.rootfs, self.place().root_image());
    }
}

/// When the machine of a workspace ends by itself.
pub(super) fn expiry(ttl: Ttl) -> Expiry {
    match ttl {
        Ttl::Idle(ttl) => Expiry::Idle {
            ttl_ms: u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX),
        },
        Ttl::Never => Expiry::Never,
    }
}
