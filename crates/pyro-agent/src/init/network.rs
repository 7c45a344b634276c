//! The guest's network: loopback always, and the card of QEMU's user-mode network on
//! request. The addresses are those that QEMU's user-mode network hands out.

use std::fs;
use std::net::Ipv4Addr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::fault::Fault;
use super::netlink::Netlink;

const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
const RESOLVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);
const PREFIX_LEN: u8 = 24;

/// How long the card may take to appear after its driver was loaded.
const DEADLINE: Duration = Duration::from_secs(5);

/// Time between two looks.
const PAUSE: Duration = Duration::from_millis(2);

/// Brings up loopback.
pub(super) fn bring_up_loopback() -> Result<(), Fault> {
    let up = || -> rustix::io::Result<()> {
        Netlink::open()?.set_up(interface_index("lo").unwrap_or(1))
    };
    up().map_err(|errno| Fault::kernel(format!("bringing up loopback: {errno}")))
}

/// Brings up loopback and the card, and writes the resolver into the root file system.
pub(super) fn bring_up(write_resolver: bool) -> Result<(), Fault> {
    bring_up_loopback()?;
    let card = wait_for_card().ok_or_else(|| Fault::kernel("the network card did not appear"))?;
    let configure = || -> rustix::io::Result<()> {
        let mut netlink = Netlink::open()?;
        netlink.add_address(card, ADDRESS, PREFIX_LEN)?;
        netlink.set_up(card)?;
        netlink.add_default_route(GATEWAY, card)
    };
    configure().map_err(|errno| Fault::kernel(format!("configuring the network card: {errno}")))?;
    if write_resolver {
        // A dangling link, as systemd images carry, is replaced and not followed.
        let _ = fs::remove_file("/etc/resolv.conf");
        fs::write("/etc/resolv.conf", format!("nameserver {RESOLVER}\n"))
            .map_err(|error| Fault::image(format!("writing /etc/resolv.conf: {error}")))?;
    }
    Ok(())
}

fn wait_for_card() -> Option<u32> {
    let give_up = Instant::now() + DEADLINE;
    loop {
        let card = fs::read_dir("/sys/class/net")
            .ok()?
            .flatten()
            .find_map(|entry| {
                entry
                    .file_name()
                    .into_string()
                    .ok()
                    .filter(|name| name != "lo")
            });
        if let Some(index) = card.as_deref().and_then(interface_index) {
            return Some(index);
        }
        if Instant::now() >= give_up {
            return None;
        }
        sleep(PAUSE);
    }
}

fn interface_index(name: &str) -> Option<u32> {
    let text = fs::read_to_string(format!("/sys/class/net/{name}/ifindex")).ok()?;
    text.trim_end().parse().ok()
}
