//! Three messages of the kernel's route netlink, written by hand.
//!
//! The kernel cannot configure itself here (Debian's has no `IP_PNP`), and the old ioctls
//! would need `unsafe`. Layouts: `rtnetlink(7)`.

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::net::{recv, sendto, socket_with};

const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const NLMSG_ERROR: u16 = 2;

const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_CREATE: u16 = 0x400;

const AF_INET: u8 = 2;
const IFF_UP: u32 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_BOOT: u8 = 3;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RTN_UNICAST: u8 = 1;

/// A socket to the kernel's routing.
pub(super) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

impl Netlink {
    pub(super) fn open() -> rustix::io::Result<Self> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            // Protocol 0 of this family is the kernel's routing, NETLINK_ROUTE.
            None,
        )?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    /// Sets the interface `index` up.
    pub(super) fn set_up(&mut self, index: u32) -> rustix::io::Result<()> {
        // ifinfomsg: family, pad, type, index, flags, mask of the flags to change.
        let mut body = vec![0; 4];
        body.extend_from_slice(&index.to_ne_bytes());
        body.extend_from_slice(&IFF_UP.to_ne_bytes());
        body.extend_from_slice(&IFF_UP.to_ne_bytes());
        self.request(RTM_NEWLINK, 0, &body)
    }

    /// Gives the interface `index` an address.
    pub(super) fn add_address(
        &mut self,
        index: u32,
        address: Ipv4Addr,
        prefix_len: u8,
    ) -> rustix::io::Result<()> {
        // ifaddrmsg: family, prefix length, flags, scope, index.
        let mut body = vec![AF_INET, prefix_len, 0, RT_SCOPE_UNIVERSE];
        body.extend_from_slice(&index.to_ne_bytes());
        attribute(&mut body, IFA_LOCAL, &address.octets());
        attribute(&mut body, IFA_ADDRESS, &address.octets());
        self.request(RTM_NEWADDR, NLM_F_CREATE, &body)
    }

    /// Sends what has no other route to `gateway` over the interface `index`.
    pub(super) fn add_default_route(
        &mut self,
        gateway: Ipv4Addr,
        index: u32,
    ) -> rustix::io::Result<()> {
        // rtmsg: family, two prefix lengths, tos, table, protocol, scope, type, flags.
        let mut body = vec![
            AF_INET,
            0,
            0,
            0,
            RT_TABLE_MAIN,
            RTPROT_BOOT,
            RT_SCOPE_UNIVERSE,
            RTN_UNICAST,
        ];
        body.extend_from_slice(&0u32.to_ne_bytes());
        attribute(&mut body, RTA_GATEWAY, &gateway.octets());
        attribute(&mut body, RTA_OIF, &index.to_ne_bytes());
        self.request(RTM_NEWROUTE, NLM_F_CREATE, &body)
    }

    fn request(&mut self, kind: u16, flags: u16, body: &[u8]) -> rustix::io::Result<()> {
        self.sequence += 1;
        let length = u32::try_from(16 + body.len()).expect("a message of some dozens of bytes");
        let mut message = Vec::with_capacity(16 + body.len());
        message.extend_from_slice(&length.to_ne_bytes());
        message.extend_from_slice(&kind.to_ne_bytes());
        message.extend_from_slice(&(NLM_F_REQUEST | NLM_F_ACK | flags).to_ne_bytes());
        message.extend_from_slice(&self.sequence.to_ne_bytes());
        message.extend_from_slice(&0u32.to_ne_bytes());
        message.extend_from_slice(body);
        let kernel = SocketAddrNetlink::new(0, 0);
        sendto(&self.socket, &message, SendFlags::empty(), &kernel)?;
        self.acknowledged()
    }

    fn acknowledged(&self) -> rustix::io::Result<()> {
        let mut reply = [0u8; 1024];
        let (length, _) = recv(&self.socket, &mut reply, RecvFlags::empty())?;
        // nlmsghdr (16 bytes), then nlmsgerr: a negative errno, 0 for success.
        if length < 20 || u16::from_ne_bytes([reply[4], reply[5]]) != NLMSG_ERROR {
            return Err(Errno::PROTO);
        }
        match i32::from_ne_bytes([reply[16], reply[17], reply[18], reply[19]]) {
            0 => Ok(()),
            error => Err(Errno::from_raw_os_error(-error)),
        }
    }
}

/// Appends an attribute, padded to four bytes.
fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).expect("a value of some bytes");
    body.extend_from_slice(&length.to_ne_bytes());
    body.extend_from_slice(&kind.to_ne_bytes());
    body.extend_from_slice(value);
    body.resize(body.len().next_multiple_of(4), 0);
}
