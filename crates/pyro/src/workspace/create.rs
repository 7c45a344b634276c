//! Making a workspace: its record, its machine, its seed, its baseline.
//!
//! A failure or a kill at any step leaves nothing: the record says that it is being made until all is there.

use pyro_image::oci::PullPolicy;
use pyro_protocol::supervise::Start;

use super::events::Event;
use super::lock::{self, Locked};
use super::machine::{EGRESS, Launch};
use super::names::{self, Labels, Ttl};
use super::payload::{WorkspacePayload, WorkspaceSeed};
use super::place::Place;
use super::seed::{PackedSeed, SeedOptions};
use super::store::{Facts, Row, SnapshotRow, Transition};
use super::{BASELINE, Workspace, WorkspaceError, WorkspaceState, now};
use crate::environment::{EnvironmentOptions, ReadyEnvironment};
use crate::error::Error;
use crate::machine::{Machine, MachineOptions, new_id};
use crate::{ProgressSink, Pyro};

/// A workspace to be made.
#[derive(Clone, Debug)]
pub struct CreateOptions {
    /// The environment's name.
    pub environment: String,
    /// When the environment's image is looked up, if it is one.
    pub pull: PullPolicy,
    /// Virtual processors, 1 to 8.
    pub vcpu_count: u8,
    /// Memory in MiB, 256 to 32768.
    pub mem_mib: u32,
    /// When it stops if nobody uses it.
    pub ttl: Ttl,
    /// Whether the guest reaches the network.
    pub network: bool,
    /// What it begins with.
    pub seed: SeedOptions,
    /// What it is called: 1 to 120 characters.
    pub name: Option<String>,
    /// Its labels.
    pub labels: Labels,
    /// Boot it, although a template of it may be there to go on from.
    pub cold: bool,
}

impl CreateOptions {
    /// An empty workspace with the original's defaults: 1 processor, 1024 MiB, no network, ten minutes without use.
    pub fn new(environment: impl Into<String>) -> Self {
        let machine = MachineOptions::default();
        Self {
            environment: environment.into(),
            pull: PullPolicy::default(),
            vcpu_count: machine.vcpu_count,
            mem_mib: machine.mem_mib,
            ttl: Ttl::DEFAULT,
            network: false,
            seed: SeedOptions::default(),
            name: None,
            labels: Labels::new(),
            cold: false,
        }
    }
}

impl Pyro {
    /// Makes a workspace and starts it.
    ///
    /// # Errors
    /// Nothing is left of a workspace that could not be made.
    pub async fn create_workspace(
        &self,
        options: CreateOptions,
        progress: &ProgressSink,
    ) -> Result<WorkspacePayload, Error> {
        let name = options
            .name
            .as_deref()
            .map(names::workspace_name)
            .transpose()?;
        let labels = names::labels(&options.labels)?;
        MachineOptions {
            vcpu_count: options.vcpu_count,
            mem_mib: options.mem_mib,
            ..MachineOptions::default()
        }
        .check()?;
        self.reconcile().await;
        self.allow_running(None, 1, options.mem_mib).await?;
        self.allow_disk().await?;
        // Told before anything is fetched or started.
        let source = self.check_seed(&options.seed, progress).await?;
        // Making an environment is a large future, and rarely needed here.
        let environment = Box::pin(self.ready_environment(
            &options.environment,
            EnvironmentOptions {
                pull: options.pull,
                force: false,
            },
            progress,
        ))
        .await?;
        let (id, machine_id) = (new_id(), new_id());
        let at = now();
        let policy = if options.network { EGRESS } else { "off" };
        let row = Row {
            id: id.clone(),
            name,
            labels,
            facts: Facts {
                environment: environment.name.clone(),
                environment_version: environment.version.clone(),
                root_digest: environment.root_digest.to_string(),
                vcpu_count: options.vcpu_count,
                mem_mib: options.mem_mib,
                network_policy: policy.into(),
                defaults: environment.defaults.clone(),
                seed: WorkspaceSeed::empty(),
                seed_tar: None,
                parent: None,
            },
            ttl_seconds: options.ttl.seconds(),
            state: WorkspaceState::Creating,
            transition: Some(Transition::Create {
                machine_id: machine_id.clone(),
                kept: new_id(),
            }),
            disk: Some(Place::disk_name(&machine_id)),
            machine_id: Some(machine_id),
            stopped: None,
            created_at: at,
            last_activity_at: at,
            session_at: at,
            reset_count: 0,
            last_reset_at: None,
            last_sequence: 0,
        };
        let workspace = self.workspace_of(id);
        let lock = workspace.begin(&row).await?;
        let packing = self.pack_seed(source, progress);
        let made =
            Box::pin(workspace.make(row, &environment, packing, options.cold, progress)).await;
        if let Err(error) = made {
            // What cannot be removed now is when somebody looks again: its record still says that it was never made.
            let _ = workspace.forget().await;
            return Err(error);
        }
        drop(lock);
        workspace.log(&Event::Created).await;
        workspace.status().await
    }
}

impl Workspace {
    /// Makes the directory, takes the lock, and writes the record: from now on somebody cleans up whatever happens.
    pub(super) async fn begin(&self, row: &Row) -> Result<lock::Lock, Error> {
        let begun = self.write_first(row).await;
        if begun.is_err() {
            // No record names it. What cannot be removed now is by who clears up.
            let _ = self.place().remove();
        }
        begun
    }

    async fn write_first(&self, row: &Row) -> Result<lock::Lock, Error> {
        let lock = loop {
            self.place().make()?;
            match lock::take(&self.place().lock()).await? {
                Locked::Held(lock) => break lock,
                // Whoever clears away what no record names was quicker.
                Locked::Gone => {}
                Locked::Busy => {
                    return Err(WorkspaceError::Busy {
                        id: self.id.clone(),
                    }
                    .into());
                }
            }
        };
        let most = self.pyro.settings().workspace_limits.workspaces;
        let written = row.clone();
        if self
            .pyro
            .db(move |store| store.insert(&written, most))
            .await?
        {
            Ok(lock)
        } else {
            Err(self.pyro.too_many())
        }
    }

    async fn make(
        &self,
        mut row: Row,
        environment: &ReadyEnvironment,
        packing: impl Future<Output = Result<Option<PackedSeed>, Error>>,
        cold: bool,
        progress: &ProgressSink,
    ) -> Result<(), Error> {
        self.keep_root_image(environment);
        let start = if cold {
            Start::Cold
        } else {
            self.pyro.warm(environment, false)
        };
        let Some(Transition::Create { machine_id, kept }) = row.transition.clone() else {
            return Err(self.not_found());
        };
        let launch = Launch {
            machine_id: &machine_id,
            disk: &Place::disk_name(&machine_id),
            start,
            ttl: Ttl::of_seconds(row.ttl_seconds),
            facts: &row.facts,
        };
        // The seed is packed while the machine starts.
        let (machine, packed) =
            tokio::try_join!(self.launch(environment, launch, progress), packing)?;
        let mut machine = machine;
        let baseline = self
            .seed(&mut machine, packed.as_ref(), &kept, progress)
            .await?;
        // Held until the record names it.
        if let Some(packed) = &packed {
            row.facts.seed = packed.seed.clone();
            row.facts.seed_tar = Some(packed.digest.clone());
        }
        machine.detach().await?;
        drop(machine);
        row.state = WorkspaceState::Started;
        row.transition = None;
        let id = self.id.clone();
        self.pyro
            .db(move |store| {
                store.add_snapshot(&id, &baseline)?;
                store.set_made(&row)
            })
            .await
    }

    /// Puts the seed into the guest, and makes the baseline of it.
    async fn seed(
        &self,
        machine: &mut Machine,
        packed: Option<&PackedSeed>,
        kept: &str,
        progress: &ProgressSink,
    ) -> Result<SnapshotRow, Error> {
        let tree = self.fill(machine, packed, progress).await?;
        let mut baseline = SnapshotRow {
            name: BASELINE.into(),
            created_at: now(),
            entry_count: tree.as_ref().map_or(0, |tree| tree.entries),
            tree_bytes: tree.as_ref().map_or(0, |tree| tree.bytes),
            kept: None,
            with_memory: false,
            generation: tree.map(|tree| tree.generation.to_string()),
        };
        if packed.is_some() {
            let directory = self.pyro.settings().home.snapshots();
            super::place::make_private(&directory)?;
            machine.snapshot(&directory.join(kept)).await?;
            baseline.kept = Some(kept.to_owned());
            baseline.with_memory = true;
        }
        Ok(baseline)
    }
}
