//! From a captured frame to a TCP segment.

use std::net::IpAddr;

use thiserror::Error;

use crate::checksum::Sum;
use crate::endpoint::{Endpoint, FourTuple};
use crate::fragment::{FragmentKey, Reassembler};
use crate::ipv4::Ipv4;
use crate::ipv6::Ipv6;
use crate::link::{self, LinkType, Network};
use crate::tcp::{self, Segment, TcpPacket};
use crate::vxlan;

/// Tunnels inside tunnels are followed this deep.
const MAX_TUNNELS: usize = 2;

/// Whether a segment's checksum is to be verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// Verify where all bytes were captured: the receiving kernel will do so too, and what it
    /// throws away must not be replayed.
    Checksum,
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

/// Decodes frames, and keeps what must be remembered between them: fragments.
#[derive(Default)]
pub struct Decoder {
    reassembler: Reassembler,
    whole: Vec<u8>,
    counters: DecodeCounters,
}

/// An IP packet's parts, of either family.
struct IpPacket<'a> {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    payload: &'a [u8],
    payload_len: usize,
    fragment: Option<(u32, usize, bool)>,
}

impl Decoder {
    /// A decoder without fragments.
    pub fn new() -> Self {
        Self::default()
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
            reassembler,
            whole,
            counters,
        } = self;
        let result = decode_frame(now, reassembler, whole, link, frame, wire_len, verify);
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

fn decode_frame<'a>(
    now: u64,
    reassembler: &mut Reassembler,
    whole: &'a mut Vec<u8>,
    mut link: LinkType,
    mut frame: &'a [u8],
    mut wire_len: usize,
    verify: Verify,
) -> Result<TcpPacket<'a>, DecodeError> {
    for _ in 0..=MAX_TUNNELS {
        let (network, packet) = link::network_layer(link, frame).ok_or(DecodeError::NotTcp)?;
        let seen = wire_len.max(frame.len()) - (frame.len() - packet.len());
        let ip = ip_packet(network, packet, seen).ok_or(DecodeError::Malformed)?;
        match ip.protocol {
            tcp::PROTOCOL => return segment(now, reassembler, whole, &ip, verify),
            vxlan::UDP if ip.fragment.is_none() => {
                frame = vxlan::inner_frame(ip.payload).ok_or(DecodeError::NotTcp)?;
                wire_len = ip.payload_len.saturating_sub(vxlan::HEADERS);
                link = LinkType::Ethernet;
            }
            _ => return Err(DecodeError::NotTcp),
        }
    }
    Err(DecodeError::NotTcp)
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
                fragment: fragment.map(|f| (f.id, f.offset, f.more)),
            })
        }
    }
}

fn segment<'a>(
    now: u64,
    reassembler: &mut Reassembler,
    whole: &'a mut Vec<u8>,
    ip: &IpPacket<'a>,
    verify: Verify,
) -> Result<TcpPacket<'a>, DecodeError> {
    let (bytes, wire_len) = match ip.fragment {
        None => (ip.payload, ip.payload_len),
        Some((id, offset, more)) => {
            // A cut fragment can never become whole.
            if ip.payload.len() < ip.payload_len {
                return Err(DecodeError::Malformed);
            }
            let key = FragmentKey {
                source: ip.source,
                destination: ip.destination,
                id,
                protocol: ip.protocol,
            };
            *whole = reassembler
                .add(now, key, offset, more, ip.payload)
                .ok_or(DecodeError::Fragment)?;
            (whole.as_slice(), whole.len())
        }
    };
    let segment = Segment::new(bytes).ok_or(DecodeError::Malformed)?;
    if verify == Verify::Checksum && bytes.len() == wire_len {
        // Lengths of IP packets fit 32 bits.
        let sum = Sum::default()
            .with_pseudo_header(ip.source, ip.destination, wire_len as u32)
            .with(bytes)
            .finish();
        if sum != 0 {
            return Err(DecodeError::Checksum);
        }
    }
    Ok(TcpPacket {
        tuple: FourTuple::new(
            Endpoint::new(ip.source, segment.source_port),
            Endpoint::new(ip.destination, segment.destination_port),
        ),
        header: segment.header,
        payload: segment.payload,
        payload_len: wire_len - segment.header_len,
    })
}
