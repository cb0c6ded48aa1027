//! From a captured frame to a TCP segment.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use thiserror::Error;

use crate::checksum::Sum;
use crate::endpoint::{Endpoint, FourTuple};
use crate::field::u16_at;
use crate::fragment::{FragmentKey, Reassembler};
use crate::ipv4::Ipv4;
use crate::ipv6::Ipv6;
use crate::link::{self, Network};
use crate::link_type::LinkType;
use crate::senders::{Senders, Verdict};
use crate::tcp::{self, Segment, TcpPacket};
use crate::tunnel::{self, Tunnels};

/// Tunnels inside tunnels are followed this deep.
const MAX_TUNNELS: usize = 4;
/// So many kinds of what is not TCP are told apart.
const MOST_KINDS: usize = 64;

/// Whether a segment's checksum is to be verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// Verify where all bytes were captured: the receiving kernel will do so too, and what it
    /// throws away must not be replayed.
    Checksum,
    /// Leave out what is wrong where the same sender's other segments are right: recordings, which may come from the
    /// host that sent.
    AmongRight,
    /// Do not: the checksum was still to be filled in by a device (partial checksums of local
    /// traffic, GRO), or the capture's origin is unknown.
    Nothing,
}

/// Why a frame gave no TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// Not IP, or not TCP.
    #[error("not a TCP segment")]
    NotTcp,
    /// A header is cut short or its lengths contradict each other.
    #[error("malformed or cut header")]
    Malformed,
    /// A fragment whose packet is not whole yet.
    #[error("fragment of a packet that is not complete yet")]
    Fragment,
    /// The TCP checksum is wrong.
    #[error("wrong TCP checksum")]
    Checksum,
}

/// What a [`Decoder`] has met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DecodeCounters {
    /// TCP segments decoded.
    pub segments: u64,
    /// Frames that carried no TCP.
    pub not_tcp: u64,
    /// Frames with malformed or cut headers.
    pub malformed: u64,
    /// Fragments taken for reassembly.
    pub fragments: u64,
    /// Segments whose payload capture had cut.
    pub cut: u64,
    /// Segments with a wrong checksum.
    pub checksum: u64,
}

/// What a frame holds that is not TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NotTcp {
    /// Something other than IP, by its EtherType.
    EtherType(u16),
    /// Another protocol in IP, by its number.
    Protocol(u8),
    /// A UDP datagram, by the port that it goes to.
    UdpPort(u16),
}

impl fmt::Display for NotTcp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EtherType(kind) => write!(f, "EtherType {kind:#06x}"),
            Self::Protocol(number) => write!(f, "IP protocol {number}"),
            Self::UdpPort(port) => write!(f, "UDP port {port}"),
        }
    }
}

/// Decodes frames, and keeps what must be remembered between them: fragments.
pub struct Decoder {
    tunnels: Tunnels,
    reassembler: Reassembler,
    senders: Senders,
    /// A packet of a tunnel, and one of TCP, that were made of fragments.
    outer: Vec<u8>,
    whole: Vec<u8>,
    counters: DecodeCounters,
    others: BTreeMap<NotTcp, u64>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::with_tunnels(Tunnels::none())
    }
}

/// An IP packet's parts, of either family.
struct IpPacket<'a> {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    payload: &'a [u8],
    payload_len: usize,
    /// Its header speaks of more bytes than were seen.
    is_short: bool,
    fragment: Option<(u32, usize, bool)>,
}

impl Decoder {
    /// A decoder that follows no tunnels.
    pub fn new() -> Self {
        Self::default()
    }

    /// A decoder that looks into these tunnels.
    pub fn with_tunnels(tunnels: Tunnels) -> Self {
        Self {
            tunnels,
            reassembler: Reassembler::default(),
            senders: Senders::default(),
            outer: Vec::new(),
            whole: Vec::new(),
            counters: DecodeCounters::default(),
            others: BTreeMap::new(),
        }
    }

    /// What was met that is not TCP, and how often: as many kinds as there is room for.
    pub const fn others(&self) -> &BTreeMap<NotTcp, u64> {
        &self.others
    }

    /// What was met so far.
    pub const fn counters(&self) -> DecodeCounters {
        self.counters
    }

    /// Packets whose fragments never became whole.
    pub const fn abandoned_fragments(&self) -> u64 {
        self.reassembler.abandoned
    }

    /// Decodes a frame of which `frame` was captured and which was `wire_len` bytes long, seen at
    /// `now` (nanoseconds, for the time-out of fragments).
    ///
    /// # Errors
    /// A [`DecodeError`] when the frame gives no TCP segment; each is counted.
    pub fn decode<'a>(
        &'a mut self,
        now: u64,
        link: LinkType,
        frame: &'a [u8],
        wire_len: usize,
        verify: Verify,
    ) -> Result<TcpPacket<'a>, DecodeError> {
        let Self {
            tunnels,
            reassembler,
            senders,
            outer,
            whole,
            counters,
            others,
        } = self;
        let parts = Parts {
            tunnels,
            reassembler,
            senders,
            outer: Some(outer),
            whole,
        };
        let mut other = None;
        let result = decode_frame(now, parts, link, frame, wire_len, verify, &mut other);
        if let Some(other) = other.filter(|it| others.contains_key(it) || others.len() < MOST_KINDS)
        {
            *others.entry(other).or_default() += 1;
        }
        match &result {
            Ok(packet) => {
                counters.segments += 1;
                counters.cut += u64::from(packet.is_cut());
            }
            Err(DecodeError::NotTcp) => counters.not_tcp += 1,
            Err(DecodeError::Malformed) => counters.malformed += 1,
            Err(DecodeError::Fragment) => counters.fragments += 1,
            Err(DecodeError::Checksum) => counters.checksum += 1,
        }
        result
    }
}

/// What decoding one frame needs of a decoder.
struct Parts<'d, 'a> {
    tunnels: &'d Tunnels,
    reassembler: &'d mut Reassembler,
    senders: &'d mut Senders,
    /// Where a tunnel's fragments become whole: once in a frame.
    outer: Option<&'a mut Vec<u8>>,
    whole: &'a mut Vec<u8>,
}

fn decode_frame<'a>(
    now: u64,
    mut parts: Parts<'_, 'a>,
    mut link: LinkType,
    mut frame: &'a [u8],
    mut wire_len: usize,
    verify: Verify,
    other: &mut Option<NotTcp>,
) -> Result<TcpPacket<'a>, DecodeError> {
    for _ in 0..=MAX_TUNNELS {
        let (network, packet) =
            link::network_layer(link, frame, parts.tunnels).map_err(|ethertype| {
                *other = ethertype.map(NotTcp::EtherType);
                DecodeError::NotTcp
            })?;
        let seen = wire_len.max(frame.len()) - (frame.len() - packet.len());
        let ip = ip_packet(network, packet, seen).ok_or(DecodeError::Malformed)?;
        if ip.is_short && verify == Verify::Checksum {
            // Where it was received it was thrown away.
            return Err(DecodeError::Malformed);
        }
        if ip.protocol == tcp::PROTOCOL {
            return segment(now, parts, &ip, verify);
        }
        let is_later_fragment = ip.fragment.is_some_and(|(_, offset, _)| offset > 0);
        let (payload, payload_len) = match ip.fragment {
            None => (ip.payload, ip.payload_len),
            Some(fragment) if tunnel::may_be(parts.tunnels, ip.protocol) => {
                let outer = parts.outer.take().ok_or(DecodeError::NotTcp)?;
                *outer = collect(now, parts.reassembler, &ip, fragment)?;
                (outer.as_slice(), outer.len())
            }
            Some(_) => (ip.payload, ip.payload_len),
        };
        let Some((inner_link, inner)) = tunnel::inside(parts.tunnels, ip.protocol, payload) else {
            let port = tunnel::udp_port(ip.protocol, payload).filter(|_| !is_later_fragment);
            *other = Some(port.map_or(NotTcp::Protocol(ip.protocol), NotTcp::UdpPort));
            return Err(DecodeError::NotTcp);
        };
        // What is cut is cut at the end.
        wire_len = payload_len - (payload.len() - inner.len());
        (link, frame) = (inner_link, inner);
    }
    Err(DecodeError::NotTcp)
}

/// Takes a fragment; the packet that it makes whole.
fn collect(
    now: u64,
    reassembler: &mut Reassembler,
    ip: &IpPacket<'_>,
    (id, offset, more): (u32, usize, bool),
) -> Result<Vec<u8>, DecodeError> {
    // A cut fragment can never become whole.
    if ip.payload.len() < ip.payload_len {
        return Err(DecodeError::Malformed);
    }
    reassembler
        .add(now, key(ip, id), offset, more, ip.payload)
        .ok_or(DecodeError::Fragment)
}

fn key(ip: &IpPacket<'_>, id: u32) -> FragmentKey {
    FragmentKey {
        source: ip.source,
        destination: ip.destination,
        id,
        protocol: ip.protocol,
    }
}

fn ip_packet(network: Network, packet: &[u8], wire_len: usize) -> Option<IpPacket<'_>> {
    match network {
        Network::Ipv4 => {
            let ip = Ipv4::new(packet, wire_len)?;
            let fragmented = ip.more_fragments || ip.fragment_offset > 0;
            Some(IpPacket {
                source: ip.source.into(),
                destination: ip.destination.into(),
                protocol: ip.protocol,
                payload: ip.payload,
                payload_len: ip.payload_len,
                is_short: ip.is_short,
                fragment: fragmented.then_some((
                    u32::from(ip.id),
                    ip.fragment_offset,
                    ip.more_fragments,
                )),
            })
        }
        Network::Ipv6 => {
            let ip = Ipv6::new(packet, wire_len)?;
            // An "atomic" fragment is whole by itself (RFC 6946).
            let fragment = ip.fragment.filter(|f| f.more || f.offset > 0);
            Some(IpPacket {
                source: ip.source.into(),
                destination: ip.destination.into(),
                protocol: ip.protocol,
                payload: ip.payload,
                payload_len: ip.payload_len,
                is_short: ip.is_short,
                fragment: fragment.map(|f| (f.id, f.offset, f.more)),
            })
        }
    }
}

fn segment<'a>(
    now: u64,
    parts: Parts<'_, 'a>,
    ip: &IpPacket<'a>,
    verify: Verify,
) -> Result<TcpPacket<'a>, DecodeError> {
    let Parts {
        reassembler,
        senders,
        whole,
        ..
    } = parts;
    let (bytes, wire_len) = match ip.fragment {
        None => (ip.payload, ip.payload_len),
        Some(fragment) => {
            *whole = collect(now, reassembler, ip, fragment)?;
            if checksum(ip, whole) != 0 {
                // Put together from two packets with one id (RFC 4963): this piece is of the later one. Whoever sends
                // fragments has filled in the checksum before.
                let (id, offset, more) = fragment;
                reassembler.add(now, key(ip, id), offset, more, ip.payload);
                return Err(DecodeError::Fragment);
            }
            (whole.as_slice(), whole.len())
        }
    };
    let segment = Segment::new(bytes).ok_or(DecodeError::Malformed)?;
    // Of what capture has cut nothing can be said.
    let is_damaged = bytes.len() == wire_len
        && match verify {
            Verify::Checksum => checksum(ip, bytes) != 0,
            Verify::AmongRight => {
                let payload = segment.payload.len();
                senders.is_damaged(ip.source, verdict(ip, bytes), payload)
            }
            Verify::Nothing => false,
        };
    if is_damaged {
        return Err(DecodeError::Checksum);
    }
    Ok(TcpPacket {
        tuple: FourTuple::new(
            Endpoint::new(ip.source, segment.source_port),
            Endpoint::new(ip.destination, segment.destination_port),
        ),
        header: segment.header,
        payload: segment.payload,
        payload_len: wire_len.saturating_sub(segment.header_len),
    })
}

/// What the checksum of a whole TCP segment says.
fn verdict(ip: &IpPacket<'_>, segment: &[u8]) -> Verdict {
    if checksum(ip, segment) == 0 {
        return Verdict::Right;
    }
    // What a device is to fill in holds the sum of the pseudo-header so far, or nothing.
    let so_far = !Sum::default()
        .with_pseudo_header(ip.source, ip.destination, segment.len() as u32)
        .finish();
    match u16_at(segment, tcp::CHECKSUM) {
        Some(held) if held == so_far || held == 0 => Verdict::Unfilled,
        _ => Verdict::Wrong,
    }
}

/// The checksum over a whole TCP segment: 0 if it is right.
fn checksum(ip: &IpPacket<'_>, segment: &[u8]) -> u16 {
    // Lengths of IP packets fit 32 bits.
    Sum::default()
        .with_pseudo_header(ip.source, ip.destination, segment.len() as u32)
        .with(segment)
        .finish()
}
