//! Link-layer headers: what stands in front of the IP header of a captured frame.

use crate::field::{array_at, u8_at, u16_at, u32_at};
use crate::link_type::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, LinkType, MPLS, PPPOE_SESSION};
use crate::tunnel::{Tunnel, Tunnels};

/// A network-layer protocol that Millrace reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// IPv4 (EtherType 0x0800).
    Ipv4,
    /// IPv6 (EtherType 0x86dd).
    Ipv6,
}

/// Length of an Ethernet II header without tags, in bytes.
pub const ETHERNET_HEADER: usize = 14;
/// PPP's protocol numbers of IPv4 and IPv6.
const PPP_IPV4: u16 = 0x0021;
const PPP_IPV6: u16 = 0x0057;
/// Deepest label stack that is followed.
const MAX_LABELS: usize = 8;

/// The attribute of netfilter's log that holds the packet (`NFULA_PAYLOAD`), and the most before it that are read.
const NFLOG_PAYLOAD: u16 = 9;
const MAX_ATTRIBUTES: usize = 64;

/// More VLAN tags than this in one frame are not followed. QinQ needs two; the bound only stops
/// a crafted frame from being walked tag by tag.
pub const MAX_TAGS: usize = 4;

/// Tag protocol identifiers: 802.1Q, 802.1ad, and the value used for QinQ before 802.1ad.
const TAGS: [u16; 3] = [0x8100, 0x88a8, 0x9100];

/// Finds the network header of a frame: which protocol, and the bytes from there on.
///
/// # Errors
/// The EtherType, if there is one, of a frame that is too short or carries something other than IP.
pub fn network_layer<'a>(
    link: LinkType,
    frame: &'a [u8],
    tunnels: &Tunnels,
) -> Result<(Network, &'a [u8]), Option<u16>> {
    let (ethertype, rest) = match link {
        LinkType::Ethernet => (u16_at(frame, 12), frame.get(ETHERNET_HEADER..)),
        LinkType::LinuxSll => (u16_at(frame, 14), frame.get(16..)),
        LinkType::LinuxSll2 => (u16_at(frame, 0), frame.get(20..)),
        LinkType::RawIp | LinkType::Null | LinkType::Loop | LinkType::Nflog => {
            return without_type(link, frame).ok_or(None);
        }
    };
    let (Some(ethertype), Some(rest)) = (ethertype, rest) else {
        return Err(None);
    };
    tagged(ethertype, rest, tunnels)
}

fn without_type(link: LinkType, frame: &[u8]) -> Option<(Network, &[u8])> {
    match link {
        LinkType::Ethernet | LinkType::LinuxSll | LinkType::LinuxSll2 => None,
        LinkType::RawIp => by_version(frame),
        LinkType::Nflog => {
            in_nflog(frame, u16::from_le_bytes).or_else(|| in_nflog(frame, u16::from_be_bytes))
        }
        // The family number of IPv6 differs between systems (10, 24, 28, 30), so the version
        // nibble decides; the family only has to be one that a host could have written.
        LinkType::Null | LinkType::Loop => {
            let family = u32_at(frame, 0)?;
            let small = family < 256 || family.swap_bytes() < 256;
            if small {
                by_version(frame.get(4..)?)
            } else {
                None
            }
        }
    }
}

fn tagged<'a>(
    mut ethertype: u16,
    mut rest: &'a [u8],
    tunnels: &Tunnels,
) -> Result<(Network, &'a [u8]), Option<u16>> {
    for _ in 0..=MAX_TAGS {
        match ethertype {
            ETHERTYPE_IPV4 => return Ok((Network::Ipv4, rest)),
            ETHERTYPE_IPV6 => return Ok((Network::Ipv6, rest)),
            tag if TAGS.contains(&tag) => {
                let (Some(next), Some(behind)) = (u16_at(rest, 2), rest.get(4..)) else {
                    return Err(None);
                };
                (ethertype, rest) = (next, behind);
            }
            labels if MPLS.contains(&labels) && tunnels.has(Tunnel::Mpls) => {
                return behind_labels(rest).ok_or(Some(labels));
            }
            PPPOE_SESSION if tunnels.has(Tunnel::Pppoe) => {
                return in_ppp(rest).ok_or(Some(PPPOE_SESSION));
            }
            other => return Err(Some(other)),
        }
    }
    Err(Some(ethertype))
}

/// The packet in a message of netfilter's log: four bytes, then attributes with a length, a type and padding to four
/// bytes, in the byte order of the host that captured, which nothing names.
fn in_nflog(frame: &[u8], number: fn([u8; 2]) -> u16) -> Option<(Network, &[u8])> {
    let mut rest = frame.get(4..)?;
    for _ in 0..MAX_ATTRIBUTES {
        let length = usize::from(number(array_at(rest, 0)?));
        let kind = number(array_at(rest, 2)?);
        if length < 4 {
            return None;
        }
        if kind == NFLOG_PAYLOAD {
            // What capture has cut is cut at the end.
            return by_version(rest.get(4..length.min(rest.len()))?);
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
    None
}

/// What is behind a stack of labels, if it is IP: the label before the last does not say.
fn behind_labels(mut rest: &[u8]) -> Option<(Network, &[u8])> {
    for _ in 0..MAX_LABELS {
        let is_last = u8_at(rest, 2)? & 1 != 0;
        rest = rest.get(4..)?;
        if is_last {
            return by_version(rest);
        }
    }
    None
}

fn in_ppp(session: &[u8]) -> Option<(Network, &[u8])> {
    let packet = session.get(8..)?;
    match u16_at(session, 6)? {
        PPP_IPV4 => Some((Network::Ipv4, packet)),
        PPP_IPV6 => Some((Network::Ipv6, packet)),
        _ => None,
    }
}

fn by_version(packet: &[u8]) -> Option<(Network, &[u8])> {
    match u8_at(packet, 0)? >> 4 {
        4 => Some((Network::Ipv4, packet)),
        6 => Some((Network::Ipv6, packet)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(link: LinkType, frame: &[u8]) -> Option<(Network, &[u8])> {
        network_layer(link, frame, &Tunnels::none()).ok()
    }

    fn ethernet(types: &[u16]) -> Vec<u8> {
        let mut frame = vec![0; 12];
        for (i, ethertype) in types.iter().enumerate() {
            if i > 0 {
                frame.extend([0, 7]);
            }
            frame.extend(ethertype.to_be_bytes());
        }
        frame.extend([0x45, 1, 2, 3]);
        frame
    }

    #[test]
    fn vlan_and_qinq_tags_are_skipped() {
        for types in [&[0x0800][..], &[0x8100, 0x0800], &[0x88a8, 0x8100, 0x0800]] {
            let frame = ethernet(types);
            assert_eq!(
                layer(LinkType::Ethernet, &frame),
                Some((Network::Ipv4, &[0x45, 1, 2, 3][..]))
            );
        }
    }

    #[test]
    fn a_frame_of_nothing_but_tags_ends() {
        assert_eq!(layer(LinkType::Ethernet, &ethernet(&[0x8100; 40])), None);
    }

    #[test]
    fn cooked_raw_and_loopback_frames_are_found() {
        let mut sll = vec![0; 14];
        sll.extend([0x08, 0x00, 0x45]);
        assert_eq!(
            layer(LinkType::LinuxSll, &sll),
            Some((Network::Ipv4, &[0x45][..]))
        );
        let mut sll2 = vec![0x86, 0xdd];
        sll2.resize(20, 0);
        sll2.push(0x60);
        assert_eq!(
            layer(LinkType::LinuxSll2, &sll2),
            Some((Network::Ipv6, &[0x60][..]))
        );
        assert_eq!(
            layer(LinkType::RawIp, &[0x60]),
            Some((Network::Ipv6, &[0x60][..]))
        );
        for null in [[30, 0, 0, 0, 0x60], [0, 0, 0, 24, 0x60]] {
            assert_eq!(
                layer(LinkType::Null, &null),
                Some((Network::Ipv6, &[0x60][..]))
            );
        }
        assert_eq!(layer(LinkType::RawIp, &[0x15]), None);
    }

    #[test]
    fn the_packet_in_a_message_of_netfilters_log_is_found_in_either_byte_order() {
        for number in [u16::to_le_bytes, u16::to_be_bytes] {
            let mut message = vec![2, 0, 0, 30];
            // A prefix of 5 bytes, padded, then a packet of 3.
            for (kind, body) in [(10, &b"drop\0"[..]), (9, &[0x45, 1, 2])] {
                message.extend(number(4 + body.len() as u16));
                message.extend(number(kind));
                message.extend(body);
                message.resize(message.len().next_multiple_of(4), 0);
            }
            let found = Some((Network::Ipv4, &[0x45, 1, 2][..]));
            assert_eq!(layer(LinkType::Nflog, &message), found);
            for len in 0..message.len() - 4 {
                assert_eq!(layer(LinkType::Nflog, &message[..len]), None);
            }
        }
        // Attributes of no length lead nowhere.
        assert_eq!(layer(LinkType::Nflog, &[0; 100]), None);
    }
}
