//! What a builder writes, the decoder reads, and pnet agrees; no bytes make the decoder panic.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use millrace_wire::{
    DecodeError, Decoder, Endpoint, Flags, FourTuple, LinkType, PacketBuilder, Seq, TcpHeader,
    TcpOptions, Verify,
};
use proptest::prelude::*;

fn tuple(v6: bool) -> FourTuple {
    let ip = |n: u8| -> IpAddr {
        if v6 {
            Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(n)).into()
        } else {
            Ipv4Addr::new(198, 18, 0, n).into()
        }
    };
    FourTuple::new(Endpoint::new(ip(1), 40_000), Endpoint::new(ip(2), 80))
}

fn build(v6: bool, header: &TcpHeader, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0; 70_000];
    let (one, two) = payload.split_at(payload.len() / 3);
    let len = PacketBuilder::new()
        .build(&tuple(v6), header, [one, two], &mut out)
        .unwrap();
    out.truncate(len);
    out
}

fn header() -> impl Strategy<Value = TcpHeader> {
    let options = (
        proptest::option::of(any::<u16>()),
        proptest::option::of(0..=14u8),
        any::<bool>(),
        proptest::option::of(any::<(u32, u32)>()),
        proptest::collection::vec(any::<(u32, u32)>(), 0..=2),
    )
        .prop_map(|(mss, window_scale, sack_permitted, timestamps, sack)| {
            let mut options = TcpOptions {
                mss,
                window_scale,
                sack_permitted,
                timestamps,
                ..Default::default()
            };
            // A SYN has room for either its own options or for blocks.
            if mss.is_none() && window_scale.is_none() && !sack_permitted {
                for (left, right) in sack {
                    options.sack.push(Seq(left), Seq(right));
                }
            }
            options
        });
    (any::<(u32, u32, u16)>(), 0..64u8, options).prop_map(|((seq, ack, window), flags, options)| {
        TcpHeader {
            seq: Seq(seq),
            ack: Seq(ack),
            flags: Flags(flags),
            window,
            urgent: 0,
            options,
        }
    })
}

proptest! {
    #[test]
    fn every_segment_survives_the_round_trip(
        v6 in any::<bool>(),
        header in header(),
        payload in proptest::collection::vec(any::<u8>(), 0..3000),
    ) {
        let packet = build(v6, &header, &payload);
        let mut decoder = Decoder::new();
        let decoded = decoder
            .decode(0, LinkType::RawIp, &packet, packet.len(), Verify::Checksum)
            .unwrap();
        prop_assert_eq!(decoded.tuple, tuple(v6));
        prop_assert_eq!(decoded.header, header);
        prop_assert_eq!(decoded.payload, &payload[..]);
    }

    #[test]
    fn a_flipped_bit_is_noticed(bit in 0..8u8, at in 20..60usize) {
        let mut packet = build(false, &TcpHeader::default(), &[7; 20]);
        packet[at] ^= 1 << bit;
        let mut decoder = Decoder::new();
        let result = decoder.decode(0, LinkType::RawIp, &packet, packet.len(), Verify::Checksum);
        prop_assert!(matches!(result, Err(DecodeError::Checksum | DecodeError::Malformed)));
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(
        link in 0..6usize,
        wire_len in 0..70_000usize,
        prefix in proptest::sample::select(vec![
            vec![], vec![0x45, 0], vec![0x60], vec![0x46, 0, 0, 0, 0, 0, 0x20, 0, 9, 6],
        ]),
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let links = [
            LinkType::Ethernet, LinkType::LinuxSll, LinkType::LinuxSll2,
            LinkType::RawIp, LinkType::Null, LinkType::Loop,
        ];
        let frame = [prefix, bytes].concat();
        let mut decoder = Decoder::new();
        if let Ok(packet) = decoder.decode(0, links[link], &frame, wire_len, Verify::Nothing) {
            prop_assert!(packet.payload.len() <= packet.payload_len);
        }
    }

    #[test]
    fn pnet_reads_the_same_ipv4_packet(
        header in header(),
        payload in proptest::collection::vec(any::<u8>(), 0..1400),
    ) {
        use pnet::packet::{Packet, ipv4, tcp};
        let packet = build(false, &header, &payload);
        let ip = ipv4::Ipv4Packet::new(&packet).unwrap();
        prop_assert_eq!(ip.get_checksum(), ipv4::checksum(&ip));
        let segment = tcp::TcpPacket::new(ip.payload()).unwrap();
        prop_assert_eq!(
            segment.get_checksum(),
            tcp::ipv4_checksum(&segment, &ip.get_source(), &ip.get_destination())
        );
        prop_assert_eq!(segment.get_sequence(), header.seq.0);
        prop_assert_eq!(segment.get_window(), header.window);
        prop_assert_eq!(segment.payload(), &payload[..]);
    }
}

#[test]
fn a_super_packet_with_ip_length_zero_is_whole() {
    let mut packet = build(false, &TcpHeader::default(), &[3; 9000]);
    packet[2] = 0;
    packet[3] = 0;
    let mut decoder = Decoder::new();
    let decoded = decoder
        .decode(0, LinkType::RawIp, &packet, packet.len(), Verify::Nothing)
        .unwrap();
    assert_eq!((decoded.payload.len(), decoded.payload_len), (9000, 9000));
}

#[test]
fn a_cut_packet_says_how_long_it_was() {
    let packet = build(true, &TcpHeader::default(), &[3; 1000]);
    let mut decoder = Decoder::new();
    let decoded = decoder
        .decode(
            0,
            LinkType::RawIp,
            &packet[..100],
            packet.len(),
            Verify::Checksum,
        )
        .unwrap();
    assert_eq!((decoded.payload.len(), decoded.payload_len), (40, 1000));
    assert!(decoded.is_cut());
    assert_eq!(decoder.counters().cut, 1);
}

#[test]
fn ethernet_padding_is_no_payload() {
    let mut frame = vec![0; 12];
    frame.extend([0x08, 0x00]);
    frame.extend(build(false, &TcpHeader::default(), b""));
    frame.resize(60, 0xee);
    let mut decoder = Decoder::new();
    let decoded = decoder
        .decode(0, LinkType::Ethernet, &frame, frame.len(), Verify::Checksum)
        .unwrap();
    assert_eq!((decoded.payload.len(), decoded.payload_len), (0, 0));
}

/// Splits an IPv4 packet into fragments of `size` payload bytes.
fn fragments(packet: &[u8], size: usize) -> Vec<Vec<u8>> {
    let body = &packet[20..];
    let count = body.len().div_ceil(size);
    (0..count)
        .map(|i| {
            let piece = &body[i * size..body.len().min((i + 1) * size)];
            let mut fragment = packet[..20].to_vec();
            let more = if i + 1 < count { 0x2000 } else { 0 };
            let field = u16::try_from(i * size / 8).unwrap() | more;
            fragment[2..4].copy_from_slice(&u16::try_from(20 + piece.len()).unwrap().to_be_bytes());
            fragment[6..8].copy_from_slice(&field.to_be_bytes());
            fragment.extend(piece);
            fragment
        })
        .collect()
}

#[test]
fn ipv4_fragments_out_of_order_become_one_segment() {
    let payload: Vec<u8> = (0..3000u16).map(|i| i as u8).collect();
    let packet = build(false, &TcpHeader::default(), &payload);
    let mut pieces = fragments(&packet, 800);
    pieces.reverse();
    let mut decoder = Decoder::new();
    let last = pieces.pop().unwrap();
    for piece in pieces {
        let result = decoder.decode(0, LinkType::RawIp, &piece, piece.len(), Verify::Checksum);
        assert_eq!(result, Err(DecodeError::Fragment));
    }
    let decoded = decoder
        .decode(0, LinkType::RawIp, &last, last.len(), Verify::Checksum)
        .unwrap();
    assert_eq!(decoded.payload, payload);
}

#[test]
fn ipv6_fragments_and_extension_headers_are_followed() {
    let packet = build(true, &TcpHeader::default(), &[5; 1000]);
    let body = &packet[40..];
    let mut decoder = Decoder::new();
    let mut last = None;
    for (i, piece) in body.chunks(512).enumerate() {
        let more = u16::from((i + 1) * 512 < body.len());
        let mut fragment = packet[..40].to_vec();
        // Destination options (PadN), then the fragment header, then TCP.
        fragment[6] = 60;
        let extension = [44, 0, 1, 4, 0, 0, 0, 0, 6, 0];
        fragment.extend(extension);
        fragment.extend((u16::try_from(i * 512).unwrap() | more).to_be_bytes());
        fragment.extend(77u32.to_be_bytes());
        fragment.extend(piece);
        let length = u16::try_from(fragment.len() - 40).unwrap().to_be_bytes();
        fragment[4..6].copy_from_slice(&length);
        let len = fragment.len();
        last = Some(
            decoder
                .decode(0, LinkType::RawIp, &fragment, len, Verify::Checksum)
                .map(|packet| packet.payload.to_vec()),
        );
    }
    assert_eq!(last, Some(Ok(vec![5; 1000])));
}

#[test]
fn an_ipv6_jumbogram_takes_its_length_from_the_option() {
    let mut plain = build(true, &TcpHeader::default(), &[5; 100]);
    let body = plain.split_off(40);
    plain[4..6].copy_from_slice(&[0, 0]);
    plain[6] = 0;
    let length = u32::try_from(body.len() + 8).unwrap().to_be_bytes();
    plain.extend([6, 0, 0xc2, 4]);
    plain.extend(length);
    plain.extend(&body);
    plain.extend([0xee; 9]);
    let mut decoder = Decoder::new();
    let len = plain.len();
    let decoded = decoder
        .decode(0, LinkType::RawIp, &plain, len, Verify::Nothing)
        .unwrap();
    assert_eq!(decoded.payload, [5; 100]);
}
