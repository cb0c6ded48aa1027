//! Tunnels that mirrors, clouds and balancers deliver packets in: what is inside.

use std::collections::BTreeSet;

use crate::field::{u8_at, u16_at};
use crate::link_type::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, LinkType, MPLS, PPPOE_SESSION};

/// Protocol number of UDP (IANA).
pub const UDP: u8 = 17;
/// Protocol numbers (IANA): IPv4 and IPv6 in IP (RFC 2003, RFC 2473), GRE.
const IPV4_IN_IP: u8 = 4;
const IPV6_IN_IP: u8 = 41;
const GRE: u8 = 47;

/// Ports (IANA), and the one that Linux and flannel use for VXLAN.
const VXLAN_PORTS: [u16; 2] = [4789, 8472];
const GENEVE_PORT: u16 = 6081;
const GUE_PORT: u16 = 6080;
const GTP_U_PORT: u16 = 2152;

const UDP_HEADER: usize = 8;
const VXLAN_HEADER: usize = 8;
const GENEVE_HEADER: usize = 8;
/// VXLAN's flag "I": the network identifier is valid.
const VALID_ID: u8 = 0x08;

/// Protocol types of GRE and GENEVE besides those of IP: Ethernet, ERSPAN II and III.
const ETHERNET: u16 = 0x6558;
const ERSPAN_II: u16 = 0x88be;
const ERSPAN_III: u16 = 0x22eb;

/// GTP-U's message type of a user's packet (3GPP TS 29.281, 6.1).
const GTP_PDU: u8 = 255;

/// Which tunnels are followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnels {
    /// By kind.
    pub kinds: Vec<Tunnel>,
    /// UDP ports of VXLAN.
    pub vxlan_ports: Vec<u16>,
}

impl Tunnels {
    /// None: a packet counts as it is addressed. For a host that captures its own traffic, where a tunnel is a
    /// stranger's.
    pub const fn none() -> Self {
        Self {
            kinds: Vec::new(),
            vxlan_ports: Vec::new(),
        }
    }

    /// Every kind, VXLAN on its usual ports. For recordings.
    pub fn all() -> Self {
        Self {
            kinds: Tunnel::ALL.to_vec(),
            vxlan_ports: VXLAN_PORTS.to_vec(),
        }
    }

    /// Whether a kind is followed.
    pub fn has(&self, tunnel: Tunnel) -> bool {
        self.kinds.contains(&tunnel)
    }

    /// IP protocols, UDP left out, that may bear one of them, sorted: a first, coarse choice for filters.
    pub fn protocols(&self) -> Vec<u8> {
        let is_borne = |protocol: &u8| match *protocol {
            GRE => self.has(Tunnel::Gre) || self.has(Tunnel::Erspan),
            _ => self.has(Tunnel::IpInIp),
        };
        let known = [IPV4_IN_IP, IPV6_IN_IP, GRE];
        known.into_iter().filter(is_borne).collect()
    }

    /// UDP ports that one of them is sent to, sorted.
    pub fn udp_ports(&self) -> Vec<u16> {
        let fixed = [
            (Tunnel::Geneve, GENEVE_PORT),
            (Tunnel::Gue, GUE_PORT),
            (Tunnel::GtpU, GTP_U_PORT),
        ];
        let fixed = fixed.into_iter().filter(|(kind, _)| self.has(*kind));
        let vxlan = self.vxlan_ports.iter().filter(|_| self.has(Tunnel::Vxlan));
        let ports = fixed.map(|(_, port)| port).chain(vxlan.copied());
        ports.collect::<BTreeSet<u16>>().into_iter().collect()
    }

    /// EtherTypes that bear one of them, sorted.
    pub fn ethertypes(&self) -> Vec<u16> {
        let mpls = MPLS.into_iter().filter(|_| self.has(Tunnel::Mpls));
        let pppoe = [PPPOE_SESSION].into_iter();
        mpls.chain(pppoe.filter(|_| self.has(Tunnel::Pppoe)))
            .collect()
    }
}

/// A kind of tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tunnel {
    /// Ethernet in UDP (RFC 7348).
    Vxlan,
    /// Ethernet or IP in UDP (RFC 8926).
    Geneve,
    /// IP or Ethernet in GRE (RFC 2784, RFC 2890).
    Gre,
    /// Ethernet in GRE, as switches mirror it: II and III (draft-foschiano-erspan).
    Erspan,
    /// IP in IP (RFC 2003, RFC 2473).
    IpInIp,
    /// IP in UDP, as balancers use it: variants 0 and 1 (draft-ietf-intarea-gue).
    Gue,
    /// Packets of mobile users in UDP (3GPP TS 29.281).
    GtpU,
    /// Label stacks (RFC 3032).
    Mpls,
    /// PPP sessions (RFC 2516).
    Pppoe,
}

impl Tunnel {
    /// Every kind.
    pub const ALL: [Self; 9] = [
        Self::Vxlan,
        Self::Geneve,
        Self::Gre,
        Self::Erspan,
        Self::IpInIp,
        Self::Gue,
        Self::GtpU,
        Self::Mpls,
        Self::Pppoe,
    ];

    /// Its name in options.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vxlan => "vxlan",
            Self::Geneve => "geneve",
            Self::Gre => "gre",
            Self::Erspan => "erspan",
            Self::IpInIp => "ipip",
            Self::Gue => "gue",
            Self::GtpU => "gtp-u",
            Self::Mpls => "mpls",
            Self::Pppoe => "pppoe",
        }
    }
}

/// Whether packets of an IP protocol may be tunnels that are followed, so that their fragments are worth collecting.
pub(crate) fn may_be(tunnels: &Tunnels, protocol: u8) -> bool {
    !tunnels.kinds.is_empty() && matches!(protocol, IPV4_IN_IP | UDP | IPV6_IN_IP | GRE)
}

/// What is inside an IP packet with this protocol: how it begins, and its bytes.
pub(crate) fn inside<'a>(
    tunnels: &Tunnels,
    protocol: u8,
    payload: &'a [u8],
) -> Option<(LinkType, &'a [u8])> {
    let (kind, link, inner) = match protocol {
        IPV4_IN_IP | IPV6_IN_IP => (Tunnel::IpInIp, LinkType::RawIp, payload),
        GRE => in_gre(payload)?,
        UDP => in_udp(tunnels, payload)?,
        _ => return None,
    };
    tunnels.has(kind).then_some((link, inner))
}

/// The port that a UDP datagram goes to, if the protocol is UDP.
pub(crate) fn udp_port(protocol: u8, payload: &[u8]) -> Option<u16> {
    u16_at(payload, 2).filter(|_| protocol == UDP)
}

fn in_udp<'a>(tunnels: &Tunnels, datagram: &'a [u8]) -> Option<(Tunnel, LinkType, &'a [u8])> {
    let data = datagram.get(UDP_HEADER..)?;
    match u16_at(datagram, 2)? {
        port if tunnels.vxlan_ports.contains(&port) => {
            let valid = u8_at(data, 0)? & VALID_ID != 0;
            let frame = data.get(VXLAN_HEADER..).filter(|_| valid)?;
            Some((Tunnel::Vxlan, LinkType::Ethernet, frame))
        }
        GENEVE_PORT => {
            let first = u8_at(data, 0)?;
            let options = usize::from(first & 0x3f) * 4;
            let link = of_type(u16_at(data, 2)?).filter(|_| first >> 6 == 0)?;
            Some((Tunnel::Geneve, link, data.get(GENEVE_HEADER + options..)?))
        }
        GUE_PORT => match u8_at(data, 0)? >> 6 {
            // Without a header of its own: IP begins with 4 or 6.
            1 => Some((Tunnel::Gue, LinkType::RawIp, data)),
            0 => {
                let (first, protocol) = (u8_at(data, 0)?, u8_at(data, 1)?);
                let is_control = first & 0x20 != 0;
                let is_ip = matches!(protocol, IPV4_IN_IP | IPV6_IN_IP) && !is_control;
                let header = 4 + usize::from(first & 0x1f) * 4;
                Some((
                    Tunnel::Gue,
                    LinkType::RawIp,
                    data.get(header..).filter(|_| is_ip)?,
                ))
            }
            _ => None,
        },
        GTP_U_PORT => Some((Tunnel::GtpU, LinkType::RawIp, in_gtp_u(data)?)),
        _ => None,
    }
}

/// Version 1, with whatever extension headers it has.
fn in_gtp_u(data: &[u8]) -> Option<&[u8]> {
    let flags = u8_at(data, 0)?;
    if flags >> 5 != 1 || flags & 0x10 == 0 || u8_at(data, 1)? != GTP_PDU {
        return None;
    }
    if flags & 0x07 == 0 {
        return data.get(8..);
    }
    let mut next = u8_at(data, 11)?;
    let mut rest = data.get(12..)?;
    // Each is four bytes long at least.
    while next != 0 {
        let length = usize::from(u8_at(rest, 0)?) * 4;
        next = u8_at(rest, length.checked_sub(1)?)?;
        rest = rest.get(length..)?;
    }
    Some(rest)
}

fn in_gre(packet: &[u8]) -> Option<(Tunnel, LinkType, &[u8])> {
    let (flags, kind) = (u16_at(packet, 0)?, u16_at(packet, 2)?);
    let [checksum, routing, key, sequence] =
        [0x8000, 0x4000, 0x2000, 0x1000].map(|bit| flags & bit != 0);
    // Source routes (RFC 1701) and other versions are not followed.
    if routing || flags & 0x0007 != 0 {
        return None;
    }
    let header = 4 + 4 * (usize::from(checksum) + usize::from(key) + usize::from(sequence));
    let data = packet.get(header..)?;
    let ethernet = |length| Some((Tunnel::Erspan, LinkType::Ethernet, data.get(length..)?));
    match kind {
        // Without a number it is type I, which has no header of its own.
        ERSPAN_II => ethernet(if sequence { 8 } else { 0 }),
        // With the subheader of a platform.
        ERSPAN_III => ethernet(if u8_at(data, 11)? & 1 != 0 { 20 } else { 12 }),
        other => Some((Tunnel::Gre, of_type(other)?, data)),
    }
}

fn of_type(kind: u16) -> Option<LinkType> {
    match kind {
        ETHERTYPE_IPV4 | ETHERTYPE_IPV6 => Some(LinkType::RawIp),
        ETHERNET => Some(LinkType::Ethernet),
        _ => None,
    }
}
