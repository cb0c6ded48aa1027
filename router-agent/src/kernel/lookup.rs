//! Asking the kernel where it would send a packet of this host (`RTM_GETROUTE`, as `ip route get`).

use std::fmt;
use std::io;
use std::net::IpAddr;

use super::numbers::{
    AF_INET, AF_INET6, IPPROTO_TCP, RTA_DPORT, RTA_DST, RTA_GATEWAY, RTA_IP_PROTO, RTA_OIF,
    RTA_SPORT, RTA_SRC, RTA_VIA, RTM_F_LOOKUP_TABLE, RTM_GETROUTE, RTMSG, RTN_BLACKHOLE, RTN_LOCAL,
};
use millrace_netlink::Netlink;
use millrace_netlink::message::{Attributes, address as ip, attributes, octets, u8_at, u32_at};

/// A TCP packet of this host, for a look-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lookup {
    /// Where to.
    pub to: IpAddr,
    /// The source, if it is chosen already.
    pub from: Option<IpAddr>,
    /// Source port, if there is one.
    pub source_port: Option<u16>,
    /// Destination port, if there is one.
    pub destination_port: Option<u16>,
}

impl Lookup {
    /// A packet to `to`, with nothing else known.
    pub fn to(to: IpAddr) -> Self {
        Self {
            to,
            from: None,
            source_port: None,
            destination_port: None,
        }
    }
}

impl fmt::Display for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ip route get {}", self.to)?;
        if let Some(from) = self.from {
            write!(f, " from {from}")?;
        }
        if self.source_port.is_some() || self.destination_port.is_some() {
            write!(f, " ipproto tcp")?;
        }
        if let Some(port) = self.source_port {
            write!(f, " sport {port}")?;
        }
        if let Some(port) = self.destination_port {
            write!(f, " dport {port}")?;
        }
        Ok(())
    }
}

/// What the kernel answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Out of a device, perhaps over a gateway.
    Out {
        /// Number of the device.
        link: u32,
        /// The next hop, if it is not the destination itself.
        gateway: Option<IpAddr>,
    },
    /// It is for this host itself.
    Local,
    /// Dropped in silence, by a blackhole route.
    Dropped,
    /// There is no way.
    NoRoute,
}

/// Asks.
///
/// # Errors
/// The kernel's, other than that there is no way.
pub(super) fn lookup(netlink: &mut Netlink, what: &Lookup) -> io::Result<Answer> {
    let (family, bits) = if what.to.is_ipv4() {
        (AF_INET, 32)
    } else {
        (AF_INET6, 128)
    };
    let from_bits = if what.from.is_some() { bits } else { 0 };
    let mut fixed = vec![family, bits, from_bits, 0, 0, 0, 0, 0];
    fixed.extend(RTM_F_LOOKUP_TABLE.to_ne_bytes());
    let mut attributes = Attributes::new().with(RTA_DST, &octets(what.to));
    if let Some(from) = what.from {
        attributes = attributes.with(RTA_SRC, &octets(from));
    }
    // A look-up without ports is that of a packet whose protocol nobody has looked at.
    if what.source_port.is_some() || what.destination_port.is_some() {
        attributes = attributes.with(RTA_IP_PROTO, &[IPPROTO_TCP]);
    }
    if let Some(port) = what.source_port {
        attributes = attributes.with(RTA_SPORT, &port.to_be_bytes());
    }
    if let Some(port) = what.destination_port {
        attributes = attributes.with(RTA_DPORT, &port.to_be_bytes());
    }
    match netlink.ask(RTM_GETROUTE, &fixed, &attributes) {
        Ok(body) => answer(&body).ok_or_else(|| io::ErrorKind::InvalidData.into()),
        Err(error) => match rustix::io::Errno::from_io_error(&error) {
            // A blackhole answers with EINVAL; a source that is not local does so too, and is
            // checked before.
            Some(rustix::io::Errno::INVAL) => Ok(Answer::Dropped),
            Some(
                rustix::io::Errno::NETUNREACH
                | rustix::io::Errno::HOSTUNREACH
                | rustix::io::Errno::ACCESS,
            ) => Ok(Answer::NoRoute),
            _ => Err(error),
        },
    }
}

fn answer(body: &[u8]) -> Option<Answer> {
    match u8_at(body, 7)? {
        RTN_LOCAL => return Some(Answer::Local),
        RTN_BLACKHOLE => return Some(Answer::Dropped),
        _ => {}
    }
    let (mut link, mut gateway) = (None, None);
    for (kind, value) in attributes(body, RTMSG) {
        match kind {
            RTA_OIF => link = u32_at(value, 0),
            RTA_GATEWAY => gateway = ip(value),
            RTA_VIA => gateway = ip(value.get(2..)?),
            _ => {}
        }
    }
    Some(Answer::Out {
        link: link?,
        gateway,
    })
}
