//! Packets of one flow in a row, as the kernel sends them for us: as one, and cut again.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    missing_docs,
    unreachable_pub,
    unused_crate_dependencies
)]

mod support;

use std::net::IpAddr;
use std::time::Duration;

use millrace_capture::{
    LinkSocket, NextHopConfig, NextHops, Ring, SendErrorKind, Sender, SenderConfig,
};
use millrace_wire::{Endpoint, Flags, FourTuple, PacketBuilder, Seq, TcpHeader, TcpOptions};
use support::{Pair, all_tcp, drain, ready};

const FULL: usize = 1_400;
/// Where packets of the test come from.
const PORT: u16 = 7777;

/// Packets of one flow in a row: so many full ones and a last one with PSH.
fn flow(to: &str, full: usize, builder: &mut PacketBuilder) -> Vec<Vec<u8>> {
    let to: IpAddr = to.parse().unwrap();
    let from: IpAddr = match to {
        IpAddr::V4(_) => "198.19.7.7".parse().unwrap(),
        IpAddr::V6(_) => "2001:db8:7::7".parse().unwrap(),
    };
    let tuple = FourTuple::new(Endpoint::new(from, PORT), Endpoint::new(to, 80));
    let mut seq = 4_294_960_000_u32;
    let lengths = std::iter::repeat_n(FULL, full).chain([99]);
    lengths
        .map(|length| {
            let payload: Vec<u8> = (0..length).map(|at| (at ^ seq as usize) as u8).collect();
            let header = TcpHeader {
                seq: Seq(seq),
                ack: Seq(5),
                flags: match length {
                    FULL => Flags::ACK,
                    _ => Flags::ACK | Flags::PSH,
                },
                window: 1_000,
                urgent: 0,
                options: TcpOptions {
                    timestamps: Some((7, 8)),
                    ..TcpOptions::default()
                },
            };
            let mut packet = vec![0; 1_500];
            let built = builder.build(&tuple, &header, [&payload[..]], &mut packet);
            packet.truncate(built.unwrap());
            seq = seq.wrapping_add(u32::try_from(length).unwrap());
            packet
        })
        .collect()
}

/// The IP packets of the test that have come, as they came.
fn arrived(ring: &mut Ring) -> Vec<Vec<u8>> {
    let frames = drain(ring).into_iter().filter(|frame| !frame.outgoing);
    let of_test = |packet: &Vec<u8>| {
        let tcp = if packet[0] >> 4 == 4 { 20 } else { 40 };
        packet[tcp..tcp + 2] == PORT.to_be_bytes()
    };
    let packets = frames.map(|frame| frame.data[14..].to_vec());
    packets.filter(of_test).collect()
}

/// A sender on `a`, which knows the way to both of b's addresses.
fn sender() -> Sender {
    let hops = NextHops::start(NextHopConfig::new("eth0")).unwrap();
    for to in [Pair::B4, Pair::B6] {
        hops.add(to.parse().unwrap());
    }
    assert!(hops.wait_resolved(Duration::from_secs(5)));
    let config = SenderConfig::default();
    Sender::link(LinkSocket::open(&config, Some("eth0")).unwrap(), &hops)
}

fn push(sender: &mut Sender, cookie: u64, to: &str, packet: &[u8]) {
    sender.push(cookie, to.parse().unwrap(), |slot| {
        slot[..packet.len()].copy_from_slice(packet);
        packet.len()
    });
}

#[test]
fn a_device_that_cuts_nothing_gets_what_was_pushed_byte_for_byte() {
    if !ready(&["ethtool"]) {
        return;
    }
    let pair = Pair::new();
    pair.a.exec("ethtool -K eth0 tx off tso off gso off");
    let mut ring = all_tcp(&pair.b);
    let mut builder = PacketBuilder::new();
    let flows = [Pair::B4, Pair::B6].map(|to| (to, flow(to, 20, &mut builder)));
    pair.a.enter(|| {
        let mut sender = sender();
        for (to, packets) in &flows {
            for packet in packets {
                push(&mut sender, 1, to, packet);
            }
        }
        sender.flush(|failure| panic!("{failure:?}"));
        assert_eq!(sender.counters().packets, 42);
        let bytes = flows.iter().flat_map(|(_, packets)| packets);
        let bytes: usize = bytes.map(Vec::len).sum();
        assert_eq!(sender.counters().bytes, bytes as u64);
    });
    let pushed: Vec<_> = flows.into_iter().flat_map(|(_, packets)| packets).collect();
    let arrived = arrived(&mut ring);
    assert_eq!(arrived.len(), pushed.len());
    assert!(arrived == pushed, "other bytes have arrived");
}

#[test]
fn a_device_that_cuts_gets_them_as_one() {
    if !ready(&[]) {
        return;
    }
    let pair = Pair::new();
    let mut ring = all_tcp(&pair.b);
    let mut builder = PacketBuilder::new();
    for to in [Pair::B4, Pair::B6] {
        let packets = flow(to, 20, &mut builder);
        let headers = packets[0].len() - FULL;
        pair.a.enter(|| {
            let mut sender = sender();
            for packet in &packets {
                push(&mut sender, 1, to, packet);
            }
            sender.flush(|failure| panic!("{failure:?}"));
        });
        let arrived = arrived(&mut ring);
        assert_eq!(arrived.len(), 1);
        let payloads = packets.iter().flat_map(|packet| &packet[headers..]);
        assert!(arrived[0][headers..].iter().eq(payloads));
    }
}

#[test]
fn flows_in_turn_and_packets_of_a_kind_of_their_own_are_sent_one_by_one() {
    if !ready(&[]) {
        return;
    }
    let pair = Pair::new();
    let mut ring = all_tcp(&pair.b);
    let mut builder = PacketBuilder::new();
    let [four, six] = [Pair::B4, Pair::B6].map(|to| flow(to, 10, &mut builder));
    pair.a.enter(|| {
        let mut sender = sender();
        for (of_four, of_six) in four.iter().zip(&six) {
            push(&mut sender, 1, Pair::B4, of_four);
            push(&mut sender, 2, Pair::B6, of_six);
        }
        // Sent again, and out of order.
        for packet in four.iter().rev() {
            push(&mut sender, 1, Pair::B4, packet);
        }
        sender.flush(|failure| panic!("{failure:?}"));
    });
    let arrived = arrived(&mut ring);
    let pushed = four.iter().zip(&six).flat_map(|(four, six)| [four, six]);
    let pushed: Vec<_> = pushed.chain(four.iter().rev()).cloned().collect();
    assert!(arrived == pushed, "other bytes have arrived");
}

#[test]
fn what_is_too_long_for_the_device_is_refused_and_named() {
    if !ready(&[]) {
        return;
    }
    let pair = Pair::new();
    pair.a.ip("link set eth0 mtu 1300");
    let mut ring = all_tcp(&pair.b);
    let packets = flow(Pair::B4, 5, &mut PacketBuilder::new());
    pair.a.enter(|| {
        let mut sender = sender();
        for (cookie, packet) in packets.iter().enumerate() {
            push(&mut sender, cookie as u64, Pair::B4, packet);
        }
        let mut failures = Vec::new();
        sender.flush(|failure| failures.push((failure.cookie, failure.kind, failure.length)));
        let too_long = |cookie| (cookie, SendErrorKind::MessageTooLong, packets[0].len());
        assert_eq!(failures, [0, 1, 2, 3, 4].map(too_long));
        assert_eq!(sender.counters().packets, 1);
    });
    assert_eq!(arrived(&mut ring), packets[5..]);
}

#[test]
fn of_a_super_segment_that_cannot_be_sent_each_packet_is_named() {
    if !ready(&[]) {
        return;
    }
    let pair = Pair::new();
    let packets = flow(Pair::B4, 5, &mut PacketBuilder::new());
    pair.a.enter(|| {
        let mut sender = sender();
        pair.a.ip("link set eth0 down");
        for (cookie, packet) in packets.iter().enumerate() {
            push(&mut sender, cookie as u64, Pair::B4, packet);
        }
        let mut failures = Vec::new();
        sender.flush(|failure| failures.push((failure.cookie, failure.length)));
        let named = packets.iter().map(Vec::len);
        let named: Vec<_> = (0..).zip(named).collect();
        assert_eq!(failures, named);
        assert_eq!(sender.counters().failures(SendErrorKind::NetworkDown), 6);
        assert_eq!(sender.counters().packets, 0);
    });
}
