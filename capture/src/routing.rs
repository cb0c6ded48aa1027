//! Questions to the kernel about devices, routes and neighbours (`rtnetlink(7)`), and one about IPsec.
//! What it answers is parsed with every length checked.

use std::io;
use std::net::IpAddr;

use millrace_netlink::Netlink;
use millrace_netlink::message::{
    Attributes, address as address_of, attributes, octets, text, u16_at, u32_at,
};

// Message and attribute types: linux/rtnetlink.h, linux/if_link.h, linux/neighbour.h.
const IFINFOMSG: usize = 16;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
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
    /// What made it, such as `bridge`; empty for what was found, such as network cards.
    pub(crate) kind: String,
    /// `None` for devices whose addresses are not 6 bytes long, or that have none.
    pub(crate) mac: Option<[u8; 6]>,
}

impl LinkInfo {
    /// Whether it is a bridge, whose ports others are behind.
    pub(crate) fn is_bridge(&self) -> bool {
        self.kind == "bridge"
    }
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

/// A connection to the kernel's routing subsystem, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub(crate) struct Routing(Netlink);

impl Routing {
    /// Opens it. Needs no privilege.
    pub(crate) fn open() -> io::Result<Self> {
        Netlink::route().map(Self)
    }

    /// A device by name; `None` when there is none.
    pub(crate) fn link(&mut self, name: &str) -> io::Result<Option<LinkInfo>> {
        let asked = Attributes::new().with_text(IFLA_IFNAME, name);
        match self.0.ask(libc::RTM_GETLINK, &[0; IFINFOMSG], &asked) {
            Ok(body) => parse_link(&body).map(Some).ok_or_else(malformed),
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
        match self.0.ask(libc::RTM_GETLINK, &fixed, &Attributes::new()) {
            Ok(body) => parse_link(&body).map(Some).ok_or_else(malformed),
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
        let mut fixed = [0; RTMSG];
        let prefix = if destination.is_ipv4() { 32 } else { 128 };
        for (to, from) in fixed.iter_mut().zip([family(destination), prefix]) {
            *to = from;
        }
        let mut asked = Attributes::new().with(RTA_DST, &octets(destination));
        if let Some(device) = device_index {
            asked = asked.with_u32(RTA_OIF, device);
        }
        let body = self.0.ask(libc::RTM_GETROUTE, &fixed, &asked)?;
        parse_route(&body, destination, device_index)
    }

    /// A neighbour on a device; `None` when the kernel has no entry for it.
    pub(crate) fn neighbour(
        &mut self,
        address: IpAddr,
        device_index: u32,
    ) -> io::Result<Option<Neighbour>> {
        let mut fixed = [0; NDMSG];
        let header = [family(address), 0, 0, 0]
            .into_iter()
            .chain(device_index.to_ne_bytes());
        for (to, from) in fixed.iter_mut().zip(header) {
            *to = from;
        }
        let asked = Attributes::new().with(NDA_DST, &octets(address));
        match self.0.ask(libc::RTM_GETNEIGH, &fixed, &asked) {
            Ok(body) => parse_neighbour(&body).map(Some).ok_or_else(malformed),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// How many IPsec policies there are for what leaves this host. The kernel tells those with CAP_NET_ADMIN.
pub(crate) fn outgoing_policies() -> io::Result<u32> {
    let mut netlink = Netlink::xfrm()?;
    let body = netlink.ask(XFRM_MSG_GETSPDINFO, &[0; XFRM_FLAGS], &Attributes::new())?;
    let info = attributes(&body, XFRM_FLAGS).find(|(attribute, _)| *attribute == XFRMA_SPD_INFO);
    // struct xfrmu_spdinfo of linux/xfrm.h: incnt, outcnt, ...
    let out = info.and_then(|(_, value)| u32_at(value, 4));
    out.ok_or_else(malformed)
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "unreadable netlink answer")
}

/// The address family of an address.
fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => libc::AF_INET as u8,
        IpAddr::V6(_) => libc::AF_INET6 as u8,
    }
}

fn parse_link(body: &[u8]) -> Option<LinkInfo> {
    let up = libc::IFF_UP.cast_unsigned();
    let mut link = LinkInfo {
        name: String::new(),
        hardware_type: u16_at(body, 2)?,
        index: u32_at(body, 4)?,
        up: u32_at(body, 8)? & up != 0,
        mtu: 0,
        kind: String::new(),
        mac: None,
    };
    for (attribute, value) in attributes(body, IFINFOMSG) {
        match attribute {
            IFLA_IFNAME => link.name = text(value),
            IFLA_LINKINFO => {
                let mut info = attributes(value, 0);
                let kind = info.find(|(attribute, _)| *attribute == IFLA_INFO_KIND);
                link.kind = kind.map_or_else(String::new, |(_, kind)| text(kind));
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
            RTA_GATEWAY => hop = address_of(value).ok_or_else(malformed)?,
            RTA_VIA => {
                // `struct rtvia`: the family, then the address.
                let octets = value.get(2..).unwrap_or_default();
                hop = address_of(octets).ok_or_else(malformed)?;
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
    use proptest::prelude::*;

    #[test]
    fn loopback_is_found_and_a_missing_device_is_not() {
        let mut routing = Routing::open().unwrap();
        let lo = routing.link("lo").unwrap().unwrap();
        assert_eq!(lo.hardware_type, libc::ARPHRD_LOOPBACK);
        assert_eq!(lo.mac, Some([0; 6]));
        assert!(lo.mtu >= 1500);
        assert_eq!(routing.link("no-such-dev").unwrap(), None);
        assert_eq!(
            routing
                .link("a-name-that-no-device-could-ever-have")
                .unwrap(),
            None
        );
    }

    #[test]
    fn a_neighbour_that_was_never_asked_for_has_no_entry() {
        let mut routing = Routing::open().unwrap();
        let lo = routing.link("lo").unwrap().unwrap();
        let address = "198.18.254.254".parse().unwrap();
        assert_eq!(routing.neighbour(address, lo.index).unwrap(), None);
    }

    proptest! {
        #[test]
        fn any_answer_is_read_or_refused(body in proptest::collection::vec(any::<u8>(), 0..120)) {
            let destination = IpAddr::from([198, 18, 0, 1]);
            let _ = (parse_link(&body), parse_neighbour(&body));
            let _ = (parse_route(&body, destination, None), parse_route(&body, destination, Some(2)));
        }
    }
}
