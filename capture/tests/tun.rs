//! Devices without a link-layer header.
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
#![allow(unsafe_code)]

mod support;

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use millrace_capture::{
    Filter, LinkSocket, NextHopConfig, NextHops, ResponseFilter, Ring, RingConfig, Sender,
    SenderConfig, wait,
};
use millrace_wire::LinkType;
use support::packet::{from_ip, tcp};
use support::{Namespace, drain, ready};

/// The other end of a tun device called `tun0`: what is written arrives there.
fn tun() -> File {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .unwrap();
    let mut request = [0u8; 40];
    request[..4].copy_from_slice(b"tun0");
    let flags = (libc::IFF_TUN | libc::IFF_NO_PI) as u16;
    request[16..18].copy_from_slice(&flags.to_ne_bytes());
    // SAFETY: TUNSETIFF takes a struct ifreq of 40 bytes: a name of 16 bytes, then flags.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, request.as_mut_ptr()) };
    assert_eq!(result, 0);
    file
}

#[test]
fn packets_without_a_link_layer_are_captured_and_sent() {
    if !ready(&[]) {
        return;
    }
    let host = Namespace::new();
    let mut tun = host.enter(tun);
    host.ip("link set tun0 up");
    support::address(&host, "tun0", "198.18.0.1/24");
    let mut ring = host.enter(|| {
        let all = Filter::Responses(ResponseFilter {
            sources: Vec::new(),
            snap_len: u32::MAX,
            whole_ports: Vec::new(),
            exclude: Vec::new(),
        });
        Ring::open(&RingConfig::new("tun0", all)).unwrap()
    });
    assert_eq!(ring.link_type(), LinkType::RawIp);

    let socket = |text: &str| text.parse::<SocketAddr>().unwrap();
    let foreign = [socket("198.19.7.7:7777"), socket("[2001:db8:7::7]:7777")];
    let here = [socket("198.18.0.1:80"), socket("[2001:db8::1]:80")];
    for (from, to) in foreign.into_iter().zip(here) {
        tun.write_all(&tcp(from, to, 1, b"in")).unwrap();
    }
    let there = [socket("198.18.0.2:80"), socket("[2001:db8::2]:80")];
    host.enter(|| {
        let hops = NextHops::start(NextHopConfig::new("tun0")).unwrap();
        for to in there {
            hops.add(to.ip());
        }
        assert!(hops.wait_resolved(Duration::from_secs(5)));
        let socket = LinkSocket::open(&SenderConfig::default(), Some("tun0")).unwrap();
        let mut sender = Sender::link(socket, &hops);
        for (from, to) in foreign.into_iter().zip(there) {
            let packet = tcp(from, to, 2, b"out");
            sender.push(1, to.ip(), |slot| {
                slot[..packet.len()].copy_from_slice(&packet);
                packet.len()
            });
        }
        sender.flush(|failure| panic!("{failure:?}"));
    });

    let seen = drain(&mut ring);
    for (outgoing, payload, ends) in [(false, &b"in"[..], here), (true, b"out", there)] {
        for (from, to) in foreign.into_iter().zip(ends) {
            let found = seen.iter().filter(|f| f.outgoing == outgoing).any(|f| {
                let segment = from_ip(&f.data);
                (segment.source, segment.destination) == (from, to) && segment.payload == payload
            });
            assert!(found, "{from} {to} {seen:?}");
        }
    }
    // And the sent ones come out of the device, among others of the kernel's own.
    let mut left = 2;
    while left > 0 {
        let ready = wait(&[tun.as_fd()], Some(Duration::from_secs(5))).unwrap();
        assert!(ready.is_ready(0));
        let mut packet = [0; 2000];
        let length = tun.read(&mut packet).unwrap();
        let is_tcp = matches!(
            (packet[0] >> 4, packet[9], packet[6]),
            (4, 6, _) | (6, _, 6)
        );
        if is_tcp && from_ip(&packet[..length]).payload == b"out" {
            left -= 1;
        }
    }
}
