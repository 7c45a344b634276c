//! The phases of a start.
//!
//! Owns their order and their names, and what follows when a template is of no use. What each does lies in the modules beside.

use pyro_protocol::supervise::{Failure, MachineOrder, Start};
use tokio::task::spawn_blocking;

use super::disks::DiskSource;
use super::fault::unwritable;
use super::origin::Origin;
use super::start::Starting;
use super::{engine, origin, template};
use crate::templates::Templates;

/// The phases of a start, in order.
pub(super) const PHASES: [Phase; 5] = [
    Phase::Engine,
    Phase::Origin,
    Phase::Template,
    Phase::Disk,
    Phase::Begin,
];

/// A phase of the start.
#[derive(Clone, Copy, Debug)]
pub(super) enum Phase {
    /// Open the snapshot that is ordered, and choose the engine, by probing if nothing is remembered.
    Engine,
    /// Find out what it begins with.
    Origin,
    /// Make a template, if there is none that fits.
    Template,
    /// Make the disk that the machine needs.
    Disk,
    /// Start the VMM and wait for the agent.
    Begin,
}

impl Phase {
    /// The name under which it is told; what takes no time is not.
    pub(super) fn name(self, starting: &Starting) -> Option<&'static str> {
        match self {
            Self::Engine => Some("engine"),
            Self::Origin => None,
            Self::Template => starting.origin.wants_template().then_some("template"),
            Self::Disk => Some("disk"),
            Self::Begin => Some(if starting.origin.is_restored() {
                "restore"
            } else {
                "boot"
            }),
        }
    }

    pub(super) async fn run(
        self,
        order: &MachineOrder,
        starting: &mut Starting,
    ) -> Result<(), Box<Failure>> {
        match self {
            Self::Engine => {
                starting.ordered = origin::open_ordered(order).await?;
                starting.engine = Some(engine::choose(order, starting).await?);
                Ok(())
            }
            Self::Origin => origin::find(order, starting).await,
            Self::Template => template::make_if_wanted(order, starting).await,
            Self::Disk => starting.make_disk(order, starting.origin.disk()).await,
            Self::Begin => begin(order, starting).await,
        }
    }
}

/// Runs the machine. One that does not go on from its template is booted instead: it is the template that may be at fault, so
/// that nobody goes on from it again.
async fn begin(order: &MachineOrder, starting: &mut Starting) -> Result<(), Box<Failure>> {
    let began = starting.begin_to_run(order).await;
    let (Err(failure), Some(key)) = (&began, starting.origin.template()) else {
        return began;
    };
    starting.not_warm = Some(format!("going on from the template: {}", failure.message));
    starting.end_vmm().await;
    starting.origin = Origin::Blank;
    if let Start::Warm {
        templates_dir,
        max_bytes,
        ..
    } = &order.start
    {
        let templates = Templates::new(templates_dir.clone(), *max_bytes);
        // One that stays is tried once more.
        let _ = spawn_blocking(move || templates.remove(&key)).await;
    }
    let upper = starting.upper.path();
    std::fs::remove_file(upper)
        .map_err(|error| unwritable("removing the disk of a template", upper, &error))?;
    starting.make_disk(order, DiskSource::Blank).await?;
    starting.begin_to_run(order).await
}
