//! Packets as mirrors, clouds and balancers deliver them: inside tunnels, in fragments, cut.
#![allow(
    missing_docs,
    unused_crate_dependencies,
    clippy::unwrap_used,
    clippy::indexing_slicing
)]

use std::net::{IpAddr, Ipv4Addr};

use millrace_wire::{
    DecodeError, Decoder, Endpoint, FourTuple, LinkType, NotTcp, PacketBuilder, TcpHeader, Tunnel,
    Tunnels, Verify,
};

const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];

fn tuple(v6: bool) -> FourTuple {
    let ip = |last: u8| match v6 {
        true => IpAddr::V6([0x2001, 0xdb8, 0, 0, 0, 0, 0, last.into()].into()),
        false => IpAddr::V4(Ipv4Addr::new(198, 18, 0, last)),
    };
    FourTuple::new(Endpoint::new(ip(1), 1234), Endpoint::new(ip(2), 80))
}

/// An IP packet with this payload in a TCP segment.
fn packet(v6: bool, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 100 + payload.len()];
    let header = TcpHeader::default();
    let mut builder = PacketBuilder::new();
    let length = builder.build(&tuple(v6), &header, [payload], &mut bytes);
    bytes.truncate(length.unwrap());
    bytes
}

fn ethernet(ethertype: [u8; 2], inner: &[u8]) -> Vec<u8> {
    [&[0; 12][..], &ethertype, inner].concat()
}

/// An outer IPv4 packet.
fn ip(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let total = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
    let mut header = vec![0x45, 0, total[0], total[1], 0, 9, 0, 0, 64, protocol, 0, 0];
    header.extend([198, 18, 100, 1, 198, 18, 100, 2]);
    [header, payload.to_vec()].concat()
}

fn udp(port: u16, payload: &[u8]) -> Vec<u8> {
    let [high, low] = port.to_be_bytes();
    ip(
        17,
        &[&[0x30, 0x39, high, low, 0, 0, 0, 0], payload].concat(),
    )
}

/// One frame of each kind around the same segment, and what names it where it is not followed.
fn frames(v6: bool) -> Vec<(Tunnel, Vec<u8>, NotTcp)> {
    let bare = packet(v6, b"hello");
    let kind = if v6 { [0x86, 0xdd] } else { ETHERTYPE_IPV4 };
    let frame = ethernet(kind, &bare);
    let outer = |packet: Vec<u8>| ethernet(ETHERTYPE_IPV4, &packet);
    let in_udp = |tunnel, port, head: &[u8], inner: &[u8]| {
        let datagram = udp(port, &[head, inner].concat());
        (tunnel, outer(datagram), NotTcp::UdpPort(port))
    };
    let in_ip = |tunnel, protocol, head: &[u8], inner: &[u8]| {
        let packet = ip(protocol, &[head, inner].concat());
        (tunnel, outer(packet), NotTcp::Protocol(protocol))
    };
    let in_frame = |tunnel, kind: u16, head: &[u8]| {
        let frame = ethernet(kind.to_be_bytes(), &[head, &bare].concat());
        (tunnel, frame, NotTcp::EtherType(kind))
    };
    let [high, low] = kind;
    let (of_ip, of_ppp) = if v6 { (41, 0x57) } else { (4, 0x21) };
    let with_options = [2, 0, high, low, 0, 0, 7, 0, 1, 8, 1, 1, 0, 0, 0, 5];
    let gre_with_all = [0xb0, 0, 0x65, 0x58, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 1];
    let erspan_2 = [0x10, 0, 0x88, 0xbe, 0, 0, 0, 1, 0x10, 0, 0, 100, 0, 0, 0, 0];
    let erspan_3 = [
        0x10, 0, 0x22, 0xeb, 0, 0, 0, 1, 0x20, 0, 0, 100, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    let gtp_extended = [0x34, 255, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0x85, 1, 0, 9, 0];
    vec![
        in_udp(Tunnel::Vxlan, 4789, &[8, 0, 0, 0, 0, 0, 7, 0], &frame),
        in_udp(Tunnel::Vxlan, 8472, &[8, 0, 0, 0, 0, 0, 1, 0], &frame),
        in_udp(
            Tunnel::Geneve,
            6081,
            &[0, 0, 0x65, 0x58, 0, 0, 7, 0],
            &frame,
        ),
        in_udp(Tunnel::Geneve, 6081, &with_options, &bare),
        in_ip(Tunnel::Gre, 47, &[0, 0, high, low], &bare),
        in_ip(Tunnel::Gre, 47, &gre_with_all, &frame),
        in_ip(Tunnel::Erspan, 47, &[0, 0, 0x88, 0xbe], &frame),
        in_ip(Tunnel::Erspan, 47, &erspan_2, &frame),
        in_ip(Tunnel::Erspan, 47, &erspan_3, &frame),
        in_ip(Tunnel::IpInIp, of_ip, &[], &bare),
        in_udp(Tunnel::Gue, 6080, &[], &bare),
        in_udp(Tunnel::Gue, 6080, &[1, of_ip, 0, 0, 9, 9, 9, 9], &bare),
        in_udp(Tunnel::GtpU, 2152, &[0x30, 255, 0, 0, 0, 0, 0, 5], &bare),
        in_udp(Tunnel::GtpU, 2152, &gtp_extended, &bare),
        in_frame(Tunnel::Mpls, 0x8847, &[0, 1, 0, 64, 0, 2, 1, 64]),
        in_frame(Tunnel::Pppoe, 0x8864, &[0x11, 0, 0, 5, 0, 0, 0, of_ppp]),
    ]
}

fn decode(decoder: &mut Decoder, frame: &[u8]) -> Result<(FourTuple, Vec<u8>), DecodeError> {
    let packet = decoder.decode(0, LinkType::Ethernet, frame, frame.len(), Verify::Checksum)?;
    Ok((packet.tuple, packet.payload.to_vec()))
}

#[test]
fn a_segment_is_found_in_every_kind_of_tunnel() {
    for v6 in [false, true] {
        for (kind, frame, _) in frames(v6) {
            let found = decode(&mut Decoder::with_tunnels(Tunnels::all()), &frame);
            assert_eq!(found, Ok((tuple(v6), b"hello".to_vec())), "{kind:?} {v6}");
        }
    }
}

#[test]
fn tunnels_that_are_not_followed_are_counted_by_name() {
    for (kind, frame, name) in frames(false) {
        let mut others = Tunnels::all();
        others.kinds.retain(|other| *other != kind);
        for tunnels in [Tunnels::none(), others] {
            let mut decoder = Decoder::with_tunnels(tunnels);
            assert_eq!(decode(&mut decoder, &frame), Err(DecodeError::NotTcp));
            let counted: Vec<_> = decoder.others().iter().collect();
            assert_eq!(counted, [(&name, &1)], "{kind:?}");
        }
    }
}

#[test]
fn a_tunnel_whose_port_is_another_is_found_where_it_is_named() {
    let frame = ethernet(ETHERTYPE_IPV4, &packet(false, b"hello"));
    let frame = ethernet(
        ETHERTYPE_IPV4,
        &udp(4790, &[&[8, 0, 0, 0, 0, 0, 7, 0], &frame[..]].concat()),
    );
    let mut tunnels = Tunnels::all();
    tunnels.vxlan_ports = vec![4790];
    assert!(decode(&mut Decoder::with_tunnels(Tunnels::all()), &frame).is_err());
    assert!(decode(&mut Decoder::with_tunnels(tunnels), &frame).is_ok());
}

#[test]
fn no_frame_is_followed_without_end_and_none_that_is_cut_or_wrong_is_taken() {
    let mut frame = packet(false, b"hello");
    for _ in 0..40 {
        frame = ip(4, &frame);
    }
    let mut decoder = Decoder::with_tunnels(Tunnels::all());
    assert!(decode(&mut decoder, &ethernet(ETHERTYPE_IPV4, &frame)).is_err());
    for (_, frame, _) in frames(false) {
        for length in 0..frame.len() {
            let _ = decode(&mut decoder, &frame[..length]);
            let mut wrong = frame.clone();
            wrong[length] ^= 0xff;
            let _ = decode(&mut decoder, &wrong);
        }
    }
}

/// Fragments of an IPv4 packet, of `size` bytes each.
fn fragments(packet: &[u8], size: usize, id: u8) -> Vec<Vec<u8>> {
    let (header, body) = packet.split_at(20);
    let count = body.len().div_ceil(size);
    let pieces = body.chunks(size).enumerate();
    pieces
        .map(|(i, piece)| {
            let mut fragment = header.to_vec();
            let more = if i + 1 < count { 0x2000 } else { 0 };
            let field = u16::try_from(i * size / 8).unwrap() | more;
            fragment[2..4].copy_from_slice(&u16::try_from(20 + piece.len()).unwrap().to_be_bytes());
            fragment[5] = id;
            fragment[6..8].copy_from_slice(&field.to_be_bytes());
            fragment.extend(piece);
            ethernet(ETHERTYPE_IPV4, &fragment)
        })
        .collect()
}

#[test]
fn fragments_of_the_outer_packet_are_put_together_and_those_inside_too() {
    let payload = vec![b'x'; 3000];
    let inner = fragments(&packet(false, &payload), 1480, 5);
    let mut decoder = Decoder::with_tunnels(Tunnels::all());
    let mut found = Vec::new();
    for frame in inner {
        let outer = udp(4789, &[&[8, 0, 0, 0, 0, 0, 7, 0], &frame[..]].concat());
        for piece in fragments(&outer, 1480, 6) {
            found.push(decode(&mut decoder, &piece));
        }
    }
    let whole = found.pop().unwrap();
    assert_eq!(whole, Ok((tuple(false), payload)));
    assert!(
        found.iter().all(|it| *it == Err(DecodeError::Fragment)),
        "{found:?}"
    );
}

#[test]
fn fragments_of_two_packets_with_one_id_are_never_mixed() {
    let [one, other] = [b'a', b'b'].map(|byte| fragments(&packet(false, &[byte; 2000]), 1480, 7));
    let whole = Ok((tuple(false), vec![b'b'; 2000]));
    // The second half of the first packet was lost, or the first half.
    for lost in [1, 0] {
        let mut decoder = Decoder::new();
        assert_eq!(
            decode(&mut decoder, &one[1 - lost]),
            Err(DecodeError::Fragment)
        );
        let found = [0, 1].map(|part| decode(&mut decoder, &other[part]));
        assert_eq!(found, [Err(DecodeError::Fragment), whole.clone()], "{lost}");
    }
}

#[test]
fn what_was_cut_on_its_way_is_missing_and_not_left_out() {
    let whole = ethernet(ETHERTYPE_IPV4, &packet(false, &[b'x'; 1000]));
    let cut = &whole[..whole.len() - 64];
    let mut decoder = Decoder::new();
    let found = decoder.decode(0, LinkType::Ethernet, cut, cut.len(), Verify::Nothing);
    let found = found.unwrap();
    assert_eq!((found.payload.len(), found.payload_len), (936, 1000));
    // The host that received it like this has thrown it away.
    let received = decoder.decode(0, LinkType::Ethernet, cut, cut.len(), Verify::Checksum);
    assert_eq!(received.unwrap_err(), DecodeError::Malformed);
}
