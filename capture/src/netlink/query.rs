//! The three questions: a device by name, the route to an address, a neighbour's MAC address.

use std::io;
use std::net::IpAddr;

use super::message::{attributes, u16_at, u32_at};
use super::socket::Netlink;

// Message and attribute types: linux/rtnetlink.h, linux/if_link.h, linux/neighbour.h.
const IFINFOMSG: usize = 16;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const RTMSG: usize = 12;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_VIA: u16 = 18;
const NDMSG: usize = 12;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
// linux/xfrm.h.
const XFRM_MSG_GETSPDINFO: u16 = 0x25;
const XFRM_FLAGS: usize = 4;
const XFRMA_SPD_INFO: u16 = 1;

/// What the kernel knows about a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LinkInfo {
    pub(crate) name: String,
    pub(crate) index: u32,
    /// `ARPHRD_*` of `linux/if_arp.h`.
    pub(crate) hardware_type: u16,
    pub(crate) up: bool,
    pub(crate) mtu: u32,
    /// `None` for devices whose addresses are not 6 bytes long, or that have none.
    pub(crate) mac: Option<[u8; 6]>,
}

/// How far the kernel is in finding a neighbour's MAC address (`NUD_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NeighbourState {
    /// The address may be used.
    Valid,
    /// The address may be used, but the kernel has not heard of it for a while.
    Stale,
    /// There is no answer (yet).
    Unresolved,
}

/// An entry of the neighbour table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Neighbour {
    pub(crate) state: NeighbourState,
    pub(crate) mac: Option<[u8; 6]>,
}

impl Netlink {
    /// A device by name; `None` when there is none.
    pub(crate) fn link(&mut self, name: &str) -> io::Result<Option<LinkInfo>> {
        let mut value = name.as_bytes().to_vec();
        value.push(0);
        match self.ask(libc::RTM_GETLINK, &[0; IFINFOMSG], &[(IFLA_IFNAME, &value)]) {
            Ok(body) => parse_link(body).map(Some).ok_or_else(malformed),
            Err(error) => match error.raw_os_error() {
                // ERANGE and EINVAL: longer than any name can be.
                Some(libc::ENODEV | libc::ERANGE | libc::EINVAL) => Ok(None),
                _ => Err(error),
            },
        }
    }

    /// A device by number; `None` when there is none.
    pub(crate) fn link_at(&mut self, index: u32) -> io::Result<Option<LinkInfo>> {
        let mut fixed = [0; IFINFOMSG];
        for (to, from) in fixed.iter_mut().skip(4).zip(index.to_ne_bytes()) {
            *to = from;
        }
        match self.ask(libc::RTM_GETLINK, &fixed, &[]) {
            Ok(body) => parse_link(body).map(Some).ok_or_else(malformed),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The next hop on the way to `destination`, out of a device if one is given: the gateway, or the destination
    /// itself when it is on the link; and the number of the device that the way leads out of.
    pub(crate) fn next_hop(
        &mut self,
        destination: IpAddr,
        device_index: Option<u32>,
    ) -> io::Result<(IpAddr, u32)> {
        let (family, octets) = encode(destination);
        let mut fixed = [0; RTMSG];
        let prefix = if destination.is_ipv4() { 32 } else { 128 };
        for (to, from) in fixed.iter_mut().zip([family, prefix]) {
            *to = from;
        }
        let device = device_index.unwrap_or_default().to_ne_bytes();
        let mut asked: Vec<(u16, &[u8])> = vec![(RTA_DST, &octets)];
        if device_index.is_some() {
            asked.push((RTA_OIF, &device));
        }
        let body = self.ask(libc::RTM_GETROUTE, &fixed, &asked)?;
        parse_route(body, destination, device_index)
    }

    /// How many IPsec policies there are for what leaves this host. For a socket of [`Netlink::open_xfrm`].
    pub(crate) fn outgoing_policies(&mut self) -> io::Result<u32> {
        let body = self.ask(XFRM_MSG_GETSPDINFO, &[0; XFRM_FLAGS], &[])?;
        let info = attributes(body, XFRM_FLAGS).find(|(attribute, _)| *attribute == XFRMA_SPD_INFO);
        // struct xfrmu_spdinfo of linux/xfrm.h: incnt, outcnt, ...
        let out = info.and_then(|(_, value)| u32_at(value, 4));
        out.ok_or_else(malformed)
    }

    /// A neighbour on a device; `None` when the kernel has no entry for it.
    pub(crate) fn neighbour(
        &mut self,
        address: IpAddr,
        device_index: u32,
    ) -> io::Result<Option<Neighbour>> {
        let (family, octets) = encode(address);
        let mut fixed = [0; NDMSG];
        let header = [family, 0, 0, 0]
            .into_iter()
            .chain(device_index.to_ne_bytes());
        for (to, from) in fixed.iter_mut().zip(header) {
            *to = from;
        }
        match self.ask(libc::RTM_GETNEIGH, &fixed, &[(NDA_DST, &octets)]) {
            Ok(body) => parse_neighbour(body).map(Some).ok_or_else(malformed),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "unreadable netlink answer")
}

/// Address family and address, as netlink carries them.
fn encode(address: IpAddr) -> (u8, Vec<u8>) {
    match address {
        IpAddr::V4(a) => (libc::AF_INET as u8, a.octets().to_vec()),
        IpAddr::V6(a) => (libc::AF_INET6 as u8, a.octets().to_vec()),
    }
}

/// An address by its length.
fn decode(octets: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(octets) {
        return Some(octets.into());
    }
    <[u8; 16]>::try_from(octets).ok().map(IpAddr::from)
}

fn parse_link(body: &[u8]) -> Option<LinkInfo> {
    let up = libc::IFF_UP.cast_unsigned();
    let mut link = LinkInfo {
        name: String::new(),
        hardware_type: u16_at(body, 2)?,
        index: u32_at(body, 4)?,
        up: u32_at(body, 8)? & up != 0,
        mtu: 0,
        mac: None,
    };
    for (attribute, value) in attributes(body, IFINFOMSG) {
        match attribute {
            IFLA_IFNAME => {
                let name = value.split(|byte| *byte == 0).next().unwrap_or_default();
                link.name = String::from_utf8_lossy(name).into_owned();
            }
            IFLA_MTU => link.mtu = u32_at(value, 0)?,
            IFLA_ADDRESS => link.mac = value.try_into().ok(),
            _ => {}
        }
    }
    Some(link)
}

fn parse_route(
    body: &[u8],
    destination: IpAddr,
    device_index: Option<u32>,
) -> io::Result<(IpAddr, u32)> {
    let route_type = *body.get(7).ok_or_else(malformed)?;
    if !matches!(
        route_type,
        libc::RTN_UNICAST | libc::RTN_LOCAL | libc::RTN_BROADCAST
    ) {
        return Err(io::ErrorKind::NetworkUnreachable.into());
    }
    let mut hop = destination;
    let mut device = device_index;
    for (attribute, value) in attributes(body, RTMSG) {
        match attribute {
            RTA_GATEWAY => hop = decode(value).ok_or_else(malformed)?,
            RTA_VIA => {
                let octets = value.get(2..).unwrap_or_default();
                hop = decode(octets).ok_or_else(malformed)?;
            }
            // The kernel may answer with a route out of another device, such as one that a policy
            // rule insists on; the MAC address of that hop would be wrong here.
            RTA_OIF => {
                let leads_out_of = u32_at(value, 0);
                if device_index.is_some_and(|wanted| Some(wanted) != leads_out_of) {
                    return Err(io::ErrorKind::NetworkUnreachable.into());
                }
                device = leads_out_of;
            }
            _ => {}
        }
    }
    device.map(|device| (hop, device)).ok_or_else(malformed)
}

fn parse_neighbour(body: &[u8]) -> Option<Neighbour> {
    let bits = u16_at(body, 8)?;
    let state = if bits & (libc::NUD_REACHABLE | libc::NUD_PERMANENT | libc::NUD_NOARP) != 0 {
        NeighbourState::Valid
    } else if bits & (libc::NUD_STALE | libc::NUD_DELAY | libc::NUD_PROBE) != 0 {
        NeighbourState::Stale
    } else {
        NeighbourState::Unresolved
    };
    let mac = attributes(body, NDMSG)
        .find(|(attribute, _)| *attribute == NDA_LLADDR)
        .and_then(|(_, value)| value.try_into().ok());
    Some(Neighbour { state, mac })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_found_and_a_missing_device_is_not() {
        let mut netlink = Netlink::open().unwrap();
        let lo = netlink.link("lo").unwrap().unwrap();
        assert_eq!(lo.hardware_type, libc::ARPHRD_LOOPBACK);
        assert_eq!(lo.mac, Some([0; 6]));
        assert!(lo.mtu >= 1500);
        assert_eq!(netlink.link("no-such-dev").unwrap(), None);
        assert_eq!(
            netlink
                .link("a-name-that-no-device-could-ever-have")
                .unwrap(),
            None
        );
    }

    #[test]
    fn a_neighbour_that_was_never_asked_for_has_no_entry() {
        let mut netlink = Netlink::open().unwrap();
        let lo = netlink.link("lo").unwrap().unwrap();
        let address = "198.18.254.254".parse().unwrap();
        assert_eq!(netlink.neighbour(address, lo.index).unwrap(), None);
    }
}
