//! TCP packets made and read with pnet, as a second opinion.

use std::net::{IpAddr, SocketAddr};

use pnet::packet::Packet;
use pnet::packet::ethernet::{EtherTypes, EthernetPacket};
use pnet::packet::ip::IpNextHeaderProtocols;
use pnet::packet::ipv4::{self, Ipv4Packet, MutableIpv4Packet};
use pnet::packet::ipv6::{Ipv6Packet, MutableIpv6Packet};
use pnet::packet::tcp::{self, MutableTcpPacket, TcpPacket};

const TCP_HEADER: usize = 20;

/// A complete IP packet with a TCP segment and valid checksums.
pub fn tcp(source: SocketAddr, destination: SocketAddr, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let network = if source.is_ipv4() { 20 } else { 40 };
    let mut bytes = vec![0; network + TCP_HEADER + payload.len()];
    let mut segment = MutableTcpPacket::new(&mut bytes[network..]).unwrap();
    segment.set_source(source.port());
    segment.set_destination(destination.port());
    segment.set_sequence(sequence);
    segment.set_data_offset(5);
    segment.set_flags(tcp::TcpFlags::ACK);
    segment.set_window(1000);
    segment.set_payload(payload);
    let checksum = match (source.ip(), destination.ip()) {
        (IpAddr::V4(s), IpAddr::V4(d)) => tcp::ipv4_checksum(&segment.to_immutable(), &s, &d),
        (IpAddr::V6(s), IpAddr::V6(d)) => tcp::ipv6_checksum(&segment.to_immutable(), &s, &d),
        mixed => panic!("{mixed:?}"),
    };
    segment.set_checksum(checksum);
    match (source.ip(), destination.ip()) {
        (IpAddr::V4(s), IpAddr::V4(d)) => {
            let length = bytes.len() as u16;
            let mut packet = MutableIpv4Packet::new(&mut bytes).unwrap();
            packet.set_version(4);
            packet.set_header_length(5);
            packet.set_total_length(length);
            packet.set_ttl(64);
            packet.set_flags(ipv4::Ipv4Flags::DontFragment);
            packet.set_next_level_protocol(IpNextHeaderProtocols::Tcp);
            packet.set_source(s);
            packet.set_destination(d);
            let checksum = ipv4::checksum(&packet.to_immutable());
            packet.set_checksum(checksum);
        }
        (IpAddr::V6(s), IpAddr::V6(d)) => {
            let length = (bytes.len() - network) as u16;
            let mut packet = MutableIpv6Packet::new(&mut bytes).unwrap();
            packet.set_version(6);
            packet.set_payload_length(length);
            packet.set_next_header(IpNextHeaderProtocols::Tcp);
            packet.set_hop_limit(64);
            packet.set_source(s);
            packet.set_destination(d);
        }
        mixed => panic!("{mixed:?}"),
    }
    bytes
}

/// What a captured packet says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub sequence: u32,
    pub syn: bool,
    pub payload: Vec<u8>,
}

/// Reads an Ethernet frame without tags.
pub fn from_ethernet(frame: &[u8]) -> Segment {
    let frame = EthernetPacket::new(frame).unwrap();
    assert!(matches!(
        frame.get_ethertype(),
        EtherTypes::Ipv4 | EtherTypes::Ipv6
    ));
    from_ip(frame.payload())
}

/// Reads an IP packet, perhaps one that was cut.
pub fn from_ip(packet: &[u8]) -> Segment {
    let (source, destination, segment): (IpAddr, IpAddr, &[u8]) = if packet[0] >> 4 == 4 {
        let header = Ipv4Packet::new(packet).unwrap();
        // GSO packets may say 0, cut ones more than there is; small ones are padded.
        let length = match usize::from(header.get_total_length()) {
            0 => packet.len(),
            length => length.min(packet.len()),
        };
        (
            header.get_source().into(),
            header.get_destination().into(),
            &packet[20..length],
        )
    } else {
        let header = Ipv6Packet::new(packet).unwrap();
        let start = match header.get_next_header() {
            IpNextHeaderProtocols::Hopopt => 48,
            _ => 40,
        };
        (
            header.get_source().into(),
            header.get_destination().into(),
            &packet[start..],
        )
    };
    let segment = TcpPacket::new(segment).unwrap();
    let header = usize::from(segment.get_data_offset()) * 4;
    Segment {
        source: SocketAddr::new(source, segment.get_source()),
        destination: SocketAddr::new(destination, segment.get_destination()),
        sequence: segment.get_sequence(),
        syn: segment.get_flags() & tcp::TcpFlags::SYN != 0,
        payload: segment.packet().get(header..).unwrap_or_default().to_vec(),
    }
}

/// Puts the payload of segments of one direction together; the start is that of the SYN.
pub fn reassemble(segments: &[Segment]) -> Vec<u8> {
    let start = segments.iter().find(|s| s.syn).unwrap().sequence;
    let mut stream = Vec::new();
    for segment in segments.iter().filter(|s| !s.syn && !s.payload.is_empty()) {
        let offset = segment.sequence.wrapping_sub(start).wrapping_sub(1) as usize;
        let end = offset + segment.payload.len();
        assert!(end < 100 << 20, "{offset}");
        if stream.len() < end {
            stream.resize(end, 0);
        }
        stream[offset..end].copy_from_slice(&segment.payload);
    }
    stream
}
