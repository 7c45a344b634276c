//! Boot and shutdown of the guest: the life of PID 1.
//!
//! ```text
//! kernel → early mounts → modules → root in place → network → carriers → serving → power off
//!              └──────────── any fault: one line on the console, then the power goes
//! ```
//!
//! Carriers are the link over virtio-serial and a vsock: whichever the machine has, or both.
//! PID 1 never returns: it ends by rebooting, which ends the machine, because every engine
//! runs its guests without a reboot.

mod carriers;
mod cmdline;
mod disk;
mod fault;
mod modules;
mod mounts;
mod netlink;
mod network;
mod port;
mod power;
mod spare;
mod vsock;

use std::future::pending;
use std::os::fd::OwnedFd;
use std::panic::AssertUnwindSafe;
use std::process::ExitCode;

use pyro_link::{Incoming, Session, sync};
use pyro_protocol::request::BootTimes;
use tokio::task::LocalSet;
use tokio::time::Instant;

use crate::clock;
use crate::machine::of_machine;
use crate::serve::Agent;
use carriers::Carriers;
use cmdline::Cmdline;
pub(crate) use disk::find as find_disk;
use fault::Fault;
use mounts::Below;
use port::LinkPort;
use power::Over;

/// Stack of each thread that blocks: less than a huge page, because the kernel gives one to a stack that could hold it, and the
/// agent then seems to take 2 MiB more as long as the thread is there.
const STACK: usize = 1536 * 1024;

/// Runs the machine from the first process to power-off. Returns only if even the reboot
/// failed, which the kernel answers with a panic.
pub fn run() -> ExitCode {
    let outcome = std::panic::catch_unwind(AssertUnwindSafe(boot_and_serve));
    match outcome {
        Ok(Ok(machine)) => power::off(machine),
        Ok(Err(fault)) => fault.report(),
        // The panic's own text is on the console already.
        Err(_) => Fault::agent("the agent panicked").report(),
    }
    power::restart()
}

fn boot_and_serve() -> Result<Over, Fault> {
    let mut boot = BootTimes {
        init_us: clock::since_boot_us(),
        ..BootTimes::default()
    };
    mounts::early()?;
    let cmdline = Cmdline::read()?;
    modules::load("/lib/pyro/boot")?;
    boot.modules_us = clock::since_boot_us();
    let carriers = Carriers::find()?;
    if carriers.have_vsock() {
        modules::load("/lib/pyro/vsock")?;
    }
    if cmdline.network {
        modules::load("/lib/pyro/network")?;
    }
    let below = match &cmdline.root {
        Some(disks) => Some(mounts::enter_root(disks)?),
        None => None,
    };
    let disk = match &below {
        Some(below) => below.disk.try_clone().map(Some),
        None => Ok(None),
    };
    let disk =
        disk.map_err(|source| Fault::agent(format!("holding the disk to stop it: {source}")))?;
    mounts::late()?;
    let cgroups = mounts::own_cgroups();
    boot.mounts_us = clock::since_boot_us();
    if cmdline.network {
        network::bring_up(cmdline.root.is_some())?;
    } else {
        network::bring_up_loopback()?;
    }
    power::shield_from_oom_killer();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_stack_size(STACK)
        .build()
        .map_err(|source| Fault::agent(format!("starting the runtime: {source}")))?;
    let outcome = LocalSet::new().block_on(
        &runtime,
        serve_until_power_off(boot, carriers, below, cgroups),
    );
    // Dropping it would wait for blocking work, however long a broken disk holds that up.
    runtime.shutdown_background();
    outcome.map(|by| Over { by, disk })
}

/// Serves the connections of the vsock, and session after session of the link: one that
/// breaks is started anew. Returns when the machine must have ended.
async fn serve_until_power_off(
    mut boot: BootTimes,
    carriers: Carriers,
    below: Option<Below>,
    cgroups: Option<OwnedFd>,
) -> Result<Instant, Fault> {
    // Before the link answers: a host that has both may then use both.
    let vsock = if carriers.have_vsock() {
        Some(vsock::Listener::bind()?)
    } else {
        None
    };
    let mut port = if carriers.have_link() {
        Some(LinkPort::open().await?)
    } else {
        None
    };
    boot.link_us = clock::since_boot_us();
    let (disk, trees) = match below {
        Some(below) => (Some(below.disk), Some((below.kept, below.layers))),
        None => (None, None),
    };
    let mut agent = Agent::with_settings(boot, of_machine(disk, cgroups))
        .map_err(|source| Fault::agent(format!("starting the reaper: {source}")))?;
    if let Some((kept, layers)) = trees {
        // Before anybody looks at the trees.
        tell_what_stays(&crate::archive::recover());
        agent = agent
            .keeping_trees(kept)
            .above_image(layers)
            .noting_imports();
    }
    let sessions = async {
        let Some(port) = &mut port else {
            return pending().await;
        };
        loop {
            sync::as_guest(port)
                .await
                .map_err(|source| Fault::agent(format!("the link's port failed: {source}")))?;
            let (session, _opener, incoming) = Session::guest(&mut *port);
            tokio::select! {
                _ended = session.run() => {}
                () = accept(&agent, incoming) => {}
            }
        }
    };
    let connections = async {
        let Some(listener) = &vsock else {
            return pending().await;
        };
        let serve = |connection| {
            let agent = agent.clone();
            async move { agent.serve(connection).await }
        };
        vsock::serve(listener, serve).await
    };
    let power_off = async {
        let end = agent.power_off_requested().await;
        // The reply must leave the port before the port's driver goes.
        tokio::time::sleep(power::REPLY_GRACE).await;
        // Streams go on meanwhile: a command's last words reach its peer, and nobody dies of
        // a pipe that the agent let go before the process had its TERM.
        power::end_processes(end).await;
        Ok(end.by)
    };
    tokio::select! {
        fault = sessions => fault,
        never = connections => match never {},
        end_by = power_off => end_by,
    }
}

/// Writes to the console which imports that were cut off could not be brought to their end.
#[expect(
    clippy::print_stderr,
    reason = "at this point there is nobody else to tell"
)]
fn tell_what_stays(imports: &[String]) {
    for import in imports {
        eprintln!("pyro-agent: an import that was cut off stays as it is: {import}");
    }
}

async fn accept(agent: &Agent, mut incoming: Incoming) {
    while let Some(stream) = incoming.next().await {
        let agent = agent.clone();
        tokio::task::spawn_local(async move { agent.serve(stream).await });
    }
}
