//! At the link layer, past the routing and the firewall of this host.

use std::net::IpAddr;
use std::os::fd::AsFd;

use millrace_wire::LinkType;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::SenderConfig;
use super::batch::Way;
use super::failure::Outcome;
use super::lane::Lane;
use super::raw::set_options;
use crate::device::{link_info, link_type};
use crate::error::CaptureError;
use crate::next_hop::{HopReader, NextHops};
use crate::sys::address::link_address;
use crate::sys::option::set_virtio_header;
use crate::sys::send_batch::SocketAddress;

/// Length of an Ethernet header.
const ETHERNET_HEADER: usize = 14;

/// A socket to send by at the link layer, as [`Sender::link`](super::Sender::link) takes it: next hops need a thread, and sockets are opened before the first one, as long as
/// the process has its privileges.
#[derive(Debug)]
pub struct LinkSocket(Lane);

impl LinkSocket {
    /// Opens one for this device, or for all that are Ethernets.
    ///
    /// # Errors
    /// No privilege, or no such device.
    pub fn open(config: &SenderConfig, device: Option<&str>) -> Result<Self, CaptureError> {
        let link_type = match device {
            Some(device) => link_type(device, &link_info(device)?)?,
            None => LinkType::Ethernet,
        };
        let (kind, headroom) = match link_type {
            LinkType::Ethernet => (SocketType::RAW, ETHERNET_HEADER),
            // The kernel puts the device's own header, if there is one, in front.
            _ => (SocketType::DGRAM, 0),
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // Protocol 0: this socket receives nothing.
        let fd = socket_with(AddressFamily::PACKET, kind, flags, None).map_err(
            CaptureError::on("open a packet socket", device.unwrap_or("any")),
        )?;
        set_options(&fd, config)?;
        // Without it packets are sent one by one.
        let joins = kind == SocketType::RAW && set_virtio_header(fd.as_fd()).is_ok();
        Ok(Self(Lane::new(fd, config, headroom, joins)))
    }
}

#[derive(Debug)]
pub(super) struct LinkRoute {
    lane: Lane,
    hops: HopReader,
}

impl LinkRoute {
    pub(super) fn new(socket: LinkSocket, hops: &NextHops) -> Self {
        Self {
            lane: socket.0,
            hops: hops.reader(),
        }
    }

    pub(super) fn push(
        &mut self,
        cookie: u64,
        destination: IpAddr,
        write: impl FnOnce(&mut [u8]) -> usize,
        outcome: &mut Outcome,
    ) {
        let destination = destination.to_canonical();
        let Some(hop) = self.hops.lookup(destination) else {
            return outcome.fail(cookie, destination, 0, libc::EHOSTUNREACH);
        };
        let protocol = match destination {
            IpAddr::V4(_) => libc::ETH_P_IP as u16,
            IpAddr::V6(_) => libc::ETH_P_IPV6 as u16,
        };
        let to = hop.destination.map(|mac| mac.octets());
        let mut header = [0; ETHERNET_HEADER];
        let macs = to
            .unwrap_or_default()
            .into_iter()
            .chain(hop.source.octets());
        for (to, from) in header.iter_mut().zip(macs.chain(protocol.to_be_bytes())) {
            *to = from;
        }
        let way = Way {
            destination,
            address: SocketAddress::Link(link_address(hop.device_index, protocol, to)),
            link_header: &header,
            hop: Some(hop),
        };
        self.lane.push(cookie, &way, write, outcome);
    }

    pub(super) fn flush(&mut self, outcome: &mut Outcome) {
        self.lane.flush(outcome);
    }

    pub(super) fn discard(&mut self) {
        self.lane.discard();
    }

    pub(super) fn buffer(&self) -> usize {
        self.lane.buffer()
    }
}
