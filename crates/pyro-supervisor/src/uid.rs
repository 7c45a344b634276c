//! The user that a machine's VMM runs as when root starts it: one of its own per machine.
//!
//! A slot is held by an abstract socket of its name. The kernel frees it with the process,
//! so that nothing is left to clean up however the supervisor ends.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use pyro_vm::MachineUid;

/// A slot, held while this lives.
#[derive(Debug)]
pub(crate) struct UidSlot {
    slot: u16,
    _name: UnixListener,
}

impl UidSlot {
    /// Takes a free slot if this process is root; an ordinary user's machines run as that
    /// user. `start` spreads the search.
    pub(crate) fn take_if_root(start: u16) -> io::Result<Option<Self>> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        for offset in 0..u16::MAX {
            let slot = start.wrapping_add(offset);
            let name = SocketAddr::from_abstract_name(format!("pyro/vmm-uid/{slot}"))?;
            match UnixListener::bind_addr(&name) {
                Ok(listener) => {
                    return Ok(Some(Self {
                        slot,
                        _name: listener,
                    }));
                }
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other("every user id for machines is taken"))
    }

    pub(crate) fn slot(&self) -> u16 {
        self.slot
    }

    pub(crate) fn uid(&self) -> MachineUid {
        MachineUid::for_slot(self.slot)
    }
}
