//! The network devices of this host.

use std::net::IpAddr;

use millrace_wire::LinkType;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::error::CaptureError;
use crate::mac::MacAddress;
use crate::routing::{LinkInfo, Routing};

/// The name that stands for every device, as with tcpdump.
pub const ANY: &str = "any";

/// A network device as it was when it was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its name, as `ip link` shows it.
    pub name: String,
    /// Its number in this network namespace.
    pub index: u32,
    /// Whether it is set up (`IFF_UP`).
    pub up: bool,
    /// Whether it is the loopback device.
    pub loopback: bool,
    /// The addresses it carries, without their prefix lengths.
    pub addresses: Vec<IpAddr>,
    /// The lengths of their prefixes, in the same order.
    pub prefixes: Vec<u8>,
    /// Its MAC address, if it has one.
    pub mac: Option<MacAddress>,
}

impl Device {
    /// All devices of this network namespace, in the kernel's order.
    pub fn list() -> Vec<Self> {
        pnet::datalink::interfaces()
            .into_iter()
            .map(|interface| Self {
                up: interface.is_up(),
                loopback: interface.is_loopback(),
                index: interface.index,
                addresses: interface.ips.iter().map(|network| network.ip()).collect(),
                mac: interface.mac.map(|mac| MacAddress::new(mac.octets())),
                prefixes: interface
                    .ips
                    .iter()
                    .map(|network| network.prefix())
                    .collect(),
                name: interface.name,
            })
            .collect()
    }

    /// The device of this name; an error that names the existing ones when there is none.
    pub fn find(name: &str) -> Result<Self, CaptureError> {
        let all = Self::list();
        match all.iter().find(|device| device.name == name) {
            Some(device) => Ok(device.clone()),
            None => Err(no_such_device(name, &all)),
        }
    }

    /// The devices of these names, in their order; [`ANY`] alone is each that is up and can be captured on.
    ///
    /// # Errors
    /// A name that no device has; it names those that exist.
    pub fn named(names: &[String]) -> Result<Vec<Self>, CaptureError> {
        if names != [ANY] {
            return names.iter().map(|name| Self::find(name)).collect();
        }
        let mut all = Self::list();
        all.retain(|device| device.up && is_captured(&device.name));
        Ok(all)
    }

    /// The devices on which packets to and from the given service addresses are seen: those that
    /// carry one of them. A service without an address (`None`, or the unspecified address)
    /// listens on all of them, so every device that is up and has an address counts.
    ///
    /// Local clients of an address reach it over loopback whichever device carries it, so
    /// loopback is only taken when the address itself is on it.
    pub fn carrying(services: &[Option<IpAddr>]) -> Vec<Self> {
        carrying(Self::list(), services)
    }

    /// For each of these addresses the name of the device that they are behind, as this host's routes say: the one that
    /// carries it, or by which it is reached without a gateway. `None`: none is known. (What a gateway leads to is no
    /// neighbour, and its packets may come by anywhere.)
    ///
    /// # Errors
    /// Where the kernel does not answer.
    pub fn towards(addresses: &[IpAddr]) -> Result<Vec<Option<String>>, CaptureError> {
        let all = Self::list();
        let mut routing = Routing::open().map_err(CaptureError::of("ask for routes"))?;
        let mut towards = |address: &IpAddr| {
            if let Some(own) = all.iter().find(|device| device.addresses.contains(address)) {
                return Some(own.name.clone());
            }
            let (hop, index) = routing.next_hop(*address, None).ok()?;
            let device = all.iter().find(|device| device.index == index);
            device
                .filter(|_| hop == *address)
                .map(|device| device.name.clone())
        };
        Ok(addresses.iter().map(&mut towards).collect())
    }

    /// The largest IP packet that a device sends unfragmented, in bytes.
    pub fn mtu(name: &str) -> Result<u32, CaptureError> {
        Ok(link_info(name)?.mtu)
    }
}

fn carrying(devices: Vec<Device>, services: &[Option<IpAddr>]) -> Vec<Device> {
    let everywhere = services
        .iter()
        .any(|address| address.is_none_or(|a| a.is_unspecified()));
    devices
        .into_iter()
        .filter(|device| {
            device.up
                && if everywhere {
                    !device.addresses.is_empty()
                } else {
                    device
                        .addresses
                        .iter()
                        .any(|a| services.contains(&Some(*a)))
                }
        })
        .collect()
}

/// Whether a device of this number is a bridge.
pub(crate) fn is_bridge(index: u32) -> bool {
    let link = Routing::open().and_then(|mut routing| routing.link_at(index));
    matches!(link, Ok(Some(link)) if link.is_bridge())
}

/// Whether frames of a device can be read here.
fn is_captured(name: &str) -> bool {
    link_info(name).is_ok_and(|link| link_type(name, &link).is_ok())
}

fn no_such_device(name: &str, all: &[Device]) -> CaptureError {
    let names: Vec<_> = all.iter().map(|device| device.name.as_str()).collect();
    CaptureError::NoSuchDevice {
        device: name.to_owned(),
        existing: names.join(", "),
    }
}

/// Whether this process may open the sockets of this crate. Tried with a socket rather than read
/// from the process's capabilities: containers and security modules have a say too.
pub fn check_privilege() -> Result<(), CaptureError> {
    socket_with(
        AddressFamily::PACKET,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None,
    )
    .map(drop)
    .map_err(CaptureError::of("open a packet socket"))
}

/// What the kernel knows about a device, or an error that names the existing ones.
pub(crate) fn link_info(name: &str) -> Result<LinkInfo, CaptureError> {
    Routing::open()
        .and_then(|mut routing| routing.link(name))
        .map_err(CaptureError::on("read the properties", name))?
        .ok_or_else(|| no_such_device(name, &Device::list()))
}

/// How frames of a device begin when they are captured here.
///
/// Devices that are neither Ethernet nor loopback are captured from the IP header on (the kernel
/// strips what is before it), since tunnels and PPP do not all present their own header.
pub(crate) fn link_type(name: &str, link: &LinkInfo) -> Result<LinkType, CaptureError> {
    /// `ARPHRD_RAWIP` of `linux/if_arp.h`; not in the libc crate.
    const RAW_IP: u16 = 519;
    /// `ARPHRD_IP6GRE`; not in the libc crate.
    const IP6_GRE: u16 = 823;
    match link.hardware_type {
        libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK => Ok(LinkType::Ethernet),
        libc::ARPHRD_NONE
        | libc::ARPHRD_PPP
        | libc::ARPHRD_TUNNEL
        | libc::ARPHRD_TUNNEL6
        | libc::ARPHRD_SIT
        | libc::ARPHRD_IPGRE
        | libc::ARPHRD_INFINIBAND
        | RAW_IP
        | IP6_GRE => Ok(LinkType::RawIp),
        hardware_type => Err(CaptureError::UnsupportedDevice {
            device: name.to_owned(),
            hardware_type,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(name: &str, up: bool, addresses: &[&str]) -> Device {
        Device {
            name: name.to_owned(),
            index: 1,
            up,
            loopback: name == "lo",
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
            prefixes: vec![24; addresses.len()],
            mac: None,
        }
    }

    fn names(devices: &[Device]) -> Vec<&str> {
        devices.iter().map(|d| d.name.as_str()).collect()
    }

    fn host() -> Vec<Device> {
        vec![
            device("lo", true, &["127.0.0.1", "::1"]),
            device("eth0", true, &["198.18.0.1", "2001:db8::1"]),
            device("eth1", false, &["198.18.1.1"]),
            device("eth2", true, &[]),
        ]
    }

    #[test]
    fn a_service_is_looked_for_where_its_address_is() {
        let service = Some("2001:db8::1".parse().unwrap());
        assert_eq!(names(&carrying(host(), &[service])), ["eth0"]);
        let local = Some("127.0.0.1".parse().unwrap());
        assert_eq!(names(&carrying(host(), &[local])), ["lo"]);
        assert_eq!(names(&carrying(host(), &[service, local])), ["lo", "eth0"]);
    }

    #[test]
    fn a_service_without_an_address_is_on_every_device_that_is_up_and_has_one() {
        assert_eq!(names(&carrying(host(), &[None])), ["lo", "eth0"]);
        let unspecified = Some("0.0.0.0".parse().unwrap());
        assert_eq!(names(&carrying(host(), &[unspecified])), ["lo", "eth0"]);
    }

    #[test]
    fn an_address_that_is_nowhere_has_no_device() {
        assert!(carrying(host(), &[Some("198.18.9.9".parse().unwrap())]).is_empty());
    }

    #[test]
    fn any_is_every_device_that_is_up() {
        let any = Device::named(&["any".to_owned()]).unwrap();
        assert!(any.iter().any(|device| device.loopback));
        assert!(any.iter().all(|device| device.up));
        assert!(Device::named(&["lo".to_owned(), "no-such-dev".to_owned()]).is_err());
    }

    #[test]
    fn a_missing_device_is_named_together_with_those_that_exist() {
        let message = Device::find("no-such-dev").unwrap_err().to_string();
        assert!(
            message.contains("\"no-such-dev\"") && message.contains("lo"),
            "{message}"
        );
    }

    #[test]
    fn the_hardware_type_decides_how_frames_begin() {
        let link = |hardware_type| LinkInfo {
            name: "x".to_owned(),
            index: 1,
            hardware_type,
            up: true,
            mtu: 1500,
            kind: String::new(),
            mac: None,
        };
        assert_eq!(link_type("d", &link(1)).unwrap(), LinkType::Ethernet);
        assert_eq!(link_type("d", &link(772)).unwrap(), LinkType::Ethernet);
        assert_eq!(link_type("d", &link(0xfffe)).unwrap(), LinkType::RawIp);
        let message = link_type("can0", &link(280)).unwrap_err().to_string();
        assert!(
            message.contains("can0") && message.contains("280"),
            "{message}"
        );
    }
}
