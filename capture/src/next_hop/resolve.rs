//! The background thread that asks the kernel.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use super::NextHopConfig;
use super::table::{Hop, Shared, Table};
use crate::mac::MacAddress;
use crate::routing::{LinkInfo, NeighbourState, Routing};
use crate::sys::option::bind_to_device;
use crate::wait::wait;

/// How soon to look again while an answer is missing: the kernel itself asks once a second.
const RETRY: Duration = Duration::from_millis(100);
/// The discard port (RFC 863): the packet is only to make the kernel look for the neighbour.
const DISCARD: u16 = 9;

pub(super) struct Resolver {
    config: NextHopConfig,
    routing: Routing,
    shared: Arc<Shared>,
}

impl Resolver {
    pub(super) fn new(config: NextHopConfig, routing: Routing, shared: Arc<Shared>) -> Self {
        Self {
            config,
            routing,
            shared,
        }
    }

    pub(super) fn run(mut self) {
        while !self.shared.is_stopped() {
            self.shared.waker.clear();
            let table = self.resolve_all();
            let complete = table.entries.values().all(Result::is_ok);
            self.shared.publish(table);
            let pause = if complete {
                self.config.refresh
            } else {
                RETRY.min(self.config.refresh)
            };
            if let Err(error) = wait(&[self.shared.waker.as_fd()], Some(pause)) {
                tracing::warn!(%error, "cannot wait for changes of next hops");
                std::thread::sleep(pause);
            }
        }
    }

    fn resolve_all(&mut self) -> Table {
        let link = self.config.device.clone().map(|device| self.link(&device));
        let mut table = Table::default();
        for destination in self.shared.wanted() {
            let hop = match &link {
                Some(Ok(link)) => self.resolve_on(destination, link),
                Some(Err(reason)) => Err(reason.clone()),
                None => way(&mut self.routing, destination)
                    .map_err(|no_way| no_way.to_string())
                    .and_then(|(gateway, link)| self.ask_for(gateway, &link)),
            };
            table.entries.insert(destination, hop);
        }
        table
    }

    /// The device to send from.
    fn link(&mut self, device: &str) -> Result<LinkInfo, String> {
        match self.routing.link(device) {
            Ok(Some(link)) if link.up => Ok(link),
            Ok(Some(_)) => Err(format!("device {device} is down")),
            Ok(None) => Err(format!("device {device} is gone")),
            Err(error) => Err(format!("cannot look at device {device}: {error}")),
        }
    }

    /// The next hop on this device.
    fn resolve_on(&mut self, destination: IpAddr, link: &LinkInfo) -> Result<Hop, String> {
        let device = &link.name;
        if let Some(fixed) = self.config.fixed.get(&destination) {
            let source = fixed.source.or(link.mac.map(MacAddress::new));
            return Ok(hop(link, source, Some(fixed.destination)));
        }
        match link.hardware_type {
            libc::ARPHRD_ETHER => {}
            libc::ARPHRD_LOOPBACK => {
                let own = link.mac.map(MacAddress::new);
                return Ok(hop(link, own, Some(MacAddress::default())));
            }
            _ => return Ok(hop(link, None, None)),
        }
        let (gateway, _) = self
            .routing
            .next_hop(destination, Some(link.index))
            .map_err(|error| format!("no route to {destination} through {device}: {error}"))?;
        self.ask_for(gateway, link)
    }

    /// Asks the kernel for the MAC address of a neighbour on an Ethernet.
    fn ask_for(&mut self, gateway: IpAddr, link: &LinkInfo) -> Result<Hop, String> {
        let device = &link.name;
        let neighbour = self
            .routing
            .neighbour(gateway, link.index)
            .map_err(|error| format!("cannot look up the neighbour {gateway}: {error}"))?;
        let (state, mac) = match neighbour {
            Some(neighbour) => (neighbour.state, neighbour.mac),
            None => (NeighbourState::Unresolved, None),
        };
        match state {
            NeighbourState::Valid => {}
            // Either way a packet makes the kernel ask: for the first time, or whether the
            // neighbour is still the same.
            NeighbourState::Stale | NeighbourState::Unresolved => {
                if let Err(error) = provoke(gateway, device, link.index) {
                    tracing::debug!(%gateway, device, %error, "cannot provoke neighbour discovery");
                    if state == NeighbourState::Unresolved {
                        return Err(format!(
                            "cannot ask for the MAC address of {gateway} on {device}: {error}"
                        ));
                    }
                }
            }
        }
        match (state, mac) {
            (NeighbourState::Valid | NeighbourState::Stale, Some(mac)) => {
                let own = link.mac.map(MacAddress::new);
                Ok(hop(link, own, Some(MacAddress::new(mac))))
            }
            (NeighbourState::Valid | NeighbourState::Stale, None)
            | (NeighbourState::Unresolved, _) => Err(format!(
                "{gateway} does not tell its MAC address on {device} (see `ip neigh show dev \
                 {device}`)"
            )),
        }
    }
}

fn hop(link: &LinkInfo, source: Option<MacAddress>, destination: Option<MacAddress>) -> Hop {
    Hop {
        device_index: link.index,
        source: source.unwrap_or_default(),
        destination,
        joins_up_to: if cuts(link) { link.mtu } else { 0 },
    }
}

/// Whether a device is known to have super-segments cut. A packet socket takes the IP header to be where the device's own
/// header ends (`hard_header_len`), which the kernel does not tell: it is behind 14 bytes on plain Ethernets, and not on
/// VLANs, nor with some USB adapters.
fn cuts(link: &LinkInfo) -> bool {
    const PLAIN: [&str; 4] = ["veth", "bridge", "bond", "team"];
    match link.kind.as_str() {
        "" => {
            let bus = format!("/sys/class/net/{}/device/subsystem", link.name);
            let bus = std::fs::read_link(bus).ok();
            !bus.is_some_and(|bus| bus.ends_with("usb"))
        }
        kind => PLAIN.contains(&kind),
    }
}

/// Why nothing can be sent to a destination over whichever Ethernet its route leads out of.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoWay {
    /// There is a route, and it leads elsewhere.
    #[error("{0}")]
    OtherThanEthernet(String),
    /// It is not known where.
    #[error("{0}")]
    Unknown(String),
}

/// The next hop to a destination and the Ethernet that it is on, as the kernel's routes have it.
pub(super) fn way(routing: &mut Routing, destination: IpAddr) -> Result<(IpAddr, LinkInfo), NoWay> {
    let (gateway, index) = routing
        .next_hop(destination, None)
        .map_err(|error| NoWay::Unknown(format!("no route to {destination}: {error}")))?;
    let link = match routing.link_at(index) {
        Ok(Some(link)) => link,
        Ok(None) => return Err(NoWay::Unknown(format!("device {index} is gone"))),
        Err(error) => {
            let reason = format!("cannot look at device {index}: {error}");
            return Err(NoWay::Unknown(reason));
        }
    };
    if link.hardware_type != libc::ARPHRD_ETHER {
        return Err(NoWay::OtherThanEthernet(format!(
            "the route to {destination} leads out of {}, which is no Ethernet",
            link.name
        )));
    }
    if !link.up {
        return Err(NoWay::Unknown(format!("device {} is down", link.name)));
    }
    Ok((gateway, link))
}

/// Sends an empty datagram to a neighbour.
fn provoke(neighbour: IpAddr, device: &str, device_index: u32) -> std::io::Result<()> {
    let (local, remote) = match neighbour {
        IpAddr::V4(_) => (
            SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::from((neighbour, DISCARD)),
        ),
        IpAddr::V6(address) => (
            SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
            // Gateways are often link-local addresses, which need the device.
            SocketAddr::from(SocketAddrV6::new(address, DISCARD, 0, device_index)),
        ),
    };
    let socket = UdpSocket::bind(local)?;
    socket.set_nonblocking(true)?;
    bind_to_device(socket.as_fd(), device)?;
    socket.send_to(&[], remote)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn super_segments_leave_only_devices_whose_header_is_that_of_a_plain_ethernet() {
        let cuts = |kind: &str| {
            cuts(&LinkInfo {
                name: "none".to_owned(),
                index: 7,
                hardware_type: libc::ARPHRD_ETHER,
                up: true,
                mtu: 1500,
                kind: kind.to_owned(),
                mac: None,
            })
        };
        for kind in ["", "veth", "bridge", "bond", "team"] {
            assert!(cuts(kind), "{kind}");
        }
        for kind in ["vlan", "macvlan", "ipvlan", "vxlan", "whatever comes"] {
            assert!(!cuts(kind), "{kind}");
        }
    }
}
