//! From an order to the machine that the engine is told to make.

use std::path::Path;

use pyro_protocol::supervise::{MachineOrder, Role, Start};
use pyro_vm::{
    Access, Disk, DiskId, DiskRate, FreedMemory, KernelArgument, MachineId, MachineSpec, MemoryMib,
    Network, SpecError, Vcpus,
};

/// The machine `id` of `order`, which writes to the disk `upper` if it runs an environment.
///
/// Memory that the guest frees stays with the engine where it is a private mapping of a file that
/// others use: see [`FreedMemory`].
///
/// The ids of the disks and the words of the command line are the agent's too: `init::cmdline`
/// there reads them.
pub(super) fn machine(
    order: &MachineOrder,
    id: &MachineId,
    upper: &Path,
    freed_memory: FreedMemory,
) -> Result<MachineSpec, SpecError> {
    let rate = order.disk_mib_per_second.map(DiskRate::new).transpose()?;
    let disk = |id: &str, path: &Path, access| -> Result<Disk, SpecError> {
        Ok(Disk {
            id: DiskId::new(id)?,
            path: path.to_owned(),
            access,
            rate,
        })
    };
    let mut cmdline = Vec::new();
    let mut disks = Vec::new();
    match &order.role {
        Role::Environment { root_image, .. } => {
            disks.push(disk("root", root_image, Access::ReadOnly)?);
            disks.push(disk("upper", upper, Access::ReadWrite)?);
            cmdline.push(KernelArgument::new("pyro.root=root")?);
            cmdline.push(KernelArgument::new("pyro.upper=upper")?);
        }
        Role::Builder { layers, target, .. } => {
            disks.push(disk("target", target, Access::ReadWrite)?);
            for (index, layer) in layers.iter().enumerate() {
                disks.push(disk(&format!("layer-{index}"), layer, Access::ReadOnly)?);
            }
        }
    }
    let network = if order.network {
        cmdline.push(KernelArgument::new("pyro.net=user")?);
        Network::User
    } else {
        Network::Off
    };
    Ok(MachineSpec {
        id: id.clone(),
        vcpus: Vcpus::new(order.vcpu_count)?,
        memory: MemoryMib::new(order.mem_mib)?,
        kernel: order.kernel.clone(),
        initramfs: order.initramfs.clone(),
        cmdline,
        disks,
        network,
        freed_memory,
    })
}

/// What becomes of memory that the guest frees, in a machine that is not gone on with from a snapshot of another kind.
pub(super) fn freed_memory(order: &MachineOrder) -> FreedMemory {
    match order.start {
        Start::Cold | Start::KeptDisk | Start::CopyOfDisk { .. } => FreedMemory::Returned,
        Start::Warm { .. } | Start::Snapshot { .. } => FreedMemory::Kept,
    }
}
