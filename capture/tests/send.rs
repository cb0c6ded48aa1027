//! Sending on real devices.
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

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use millrace_capture::{
    LinkSocket, MacAddress, NextHopConfig, NextHops, Ring, SendErrorKind, SendFailure, Sender,
    SenderConfig, StaticHop,
};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use support::packet::{Segment, from_ethernet, tcp};
use support::{Namespace, Pair, address, all_tcp, drain, link, ready};

/// A source that no host here has.
const FOREIGN4: &str = "198.19.7.7:7777";
const FOREIGN6: &str = "[2001:db8:7::7]:7777";

fn link_sender(config: &SenderConfig, device: Option<&str>, hops: &NextHops) -> Sender {
    Sender::link(LinkSocket::open(config, device).unwrap(), hops)
}

fn push(sender: &mut Sender, cookie: u64, from: &str, to: SocketAddr, payload: &[u8]) {
    let packet = tcp(from.parse().unwrap(), to, cookie as u32, payload);
    sender.push(cookie, to.ip(), |slot| {
        slot[..packet.len()].copy_from_slice(&packet);
        packet.len()
    });
}

fn flush(sender: &mut Sender) -> Vec<SendFailure> {
    let mut failures = Vec::new();
    sender.flush(|failure| failures.push(failure));
    failures
}

fn socket(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), port)
}

/// What came from the foreign sources.
fn arrived(ring: &mut Ring) -> Vec<Segment> {
    drain(ring)
        .iter()
        .filter(|frame| !frame.outgoing)
        .map(|frame| from_ethernet(&frame.data))
        .filter(|segment| segment.source.port() == 7777)
        .collect()
}

#[test]
fn packets_with_a_foreign_source_arrive_in_order_over_both_families() {
    if !ready(&[]) {
        return;
    }
    let pair = Pair::new();
    let mut ring = all_tcp(&pair.b);
    pair.a.enter(|| {
        let mut sender = Sender::raw(&SenderConfig::default()).unwrap();
        // More than a batch, without a flush between.
        for cookie in 0..200 {
            push(&mut sender, cookie, FOREIGN4, socket(Pair::B4, 80), b"four");
            push(&mut sender, cookie, FOREIGN6, socket(Pair::B6, 80), b"six");
        }
        assert_eq!(flush(&mut sender), []);
        assert_eq!(sender.counters().packets, 400);
        assert_eq!(sender.counters().bytes, 200 * (44 + 63));
        assert!(sender.counters().batches < 20);
    });
    let arrived = arrived(&mut ring);
    for (source, payload) in [(FOREIGN4, &b"four"[..]), (FOREIGN6, b"six")] {
        let of_family: Vec<_> = arrived
            .iter()
            .filter(|s| s.source == source.parse().unwrap())
            .collect();
        let order: Vec<u32> = of_family.iter().map(|s| s.sequence).collect();
        assert_eq!(order, (0..200).collect::<Vec<u32>>());
        assert!(of_family.iter().all(|s| s.payload == payload));
    }
}

#[test]
fn packets_that_cannot_be_sent_are_named_and_the_others_go_on() {
    if !ready(&["iptables", "ip6tables"]) {
        return;
    }
    let pair = Pair::new();
    for (tables, destination) in [("iptables", Pair::B4), ("ip6tables", Pair::B6)] {
        let rule = format!("{tables} -w -A OUTPUT -p tcp -d {destination} --dport 99 -j DROP");
        pair.a.exec(&rule);
    }
    for (foreign, host, elsewhere) in [
        (FOREIGN4, Pair::B4, "198.19.0.1"),
        (FOREIGN6, Pair::B6, "2001:db8:ffff::1"),
    ] {
        let mut ring = all_tcp(&pair.b);
        pair.a.enter(|| {
            let config = SenderConfig {
                max_packet: 4000,
                ..SenderConfig::default()
            };
            let mut sender = Sender::raw(&config).unwrap();
            push(&mut sender, 1, foreign, socket(host, 80), b"a");
            push(&mut sender, 2, foreign, socket(host, 80), &[0; 3000]);
            push(&mut sender, 3, foreign, socket(host, 80), b"b");
            push(&mut sender, 4, foreign, socket(host, 99), b"refused");
            push(&mut sender, 5, foreign, socket(elsewhere, 80), b"no route");
            push(&mut sender, 6, foreign, socket(host, 80), b"c");
            // Longer than this sender takes at all, and nothing at all.
            sender.push(7, host.parse().unwrap(), |slot| slot.len() + 1);
            sender.push(8, host.parse().unwrap(), |_| 0);
            let failures = flush(&mut sender);
            let mut kinds: Vec<_> = failures.iter().map(|f| (f.cookie, f.kind)).collect();
            kinds.sort_by_key(|(cookie, _)| *cookie);
            assert_eq!(
                kinds,
                [
                    (2, SendErrorKind::MessageTooLong),
                    (4, SendErrorKind::NotPermitted),
                    (5, SendErrorKind::Unreachable),
                    (7, SendErrorKind::MessageTooLong),
                ]
            );
            let counters = sender.counters();
            assert_eq!(counters.packets, 3);
            assert_eq!(counters.failures(SendErrorKind::MessageTooLong), 2);
            assert_eq!(counters.failures(SendErrorKind::NotPermitted), 1);
            assert_eq!(counters.failures(SendErrorKind::Unreachable), 1);
            assert_eq!(flush(&mut sender), []);
        });
        let order: Vec<u32> = arrived(&mut ring).iter().map(|s| s.sequence).collect();
        assert_eq!(order, [1, 3, 6]);
    }
}

/// A sender whose socket is soon full.
const SMALL_BUFFER: SenderConfig = SenderConfig {
    send_buffer: 4096,
    max_packet: 4000,
    mark: None,
    batch: 64,
};

/// Packets for a neighbour that does not answer stay in the socket's buffer.
fn with_a_silent_neighbour() -> Pair {
    let pair = Pair::new();
    pair.a.ip("route add 198.19.0.0/16 via 198.18.0.99");
    pair
}

fn push_to_silence(sender: &mut Sender, packets: u64) {
    let to = socket("198.19.0.1", 80);
    for cookie in 1..=packets {
        push(sender, cookie, FOREIGN4, to, &[0; 1000]);
    }
}

#[test]
fn a_full_socket_is_waited_for_a_bounded_time_and_then_counted() {
    if !ready(&[]) {
        return;
    }
    let pair = with_a_silent_neighbour();
    pair.a.enter(|| {
        let mut sender = Sender::raw(&SMALL_BUFFER).unwrap();
        let start = Instant::now();
        push_to_silence(&mut sender, 64);
        let failures = flush(&mut sender);
        assert!(start.elapsed() < Duration::from_millis(500));
        assert!(!failures.is_empty());
        assert!(failures.iter().all(|f| f.kind == SendErrorKind::NoBuffers));
        let counters = sender.counters();
        assert!(counters.waits > 0);
        let failed = counters.failures(SendErrorKind::NoBuffers);
        assert_eq!(counters.packets + failed, 64);
        // Another destination is no worse off once there is room.
        drop(sender);
        let mut sender = Sender::raw(&SMALL_BUFFER).unwrap();
        push(&mut sender, 1, FOREIGN4, socket(Pair::B4, 80), b"x");
        assert_eq!(flush(&mut sender), []);
    });
}

#[test]
fn packets_that_a_devices_queue_refuses_are_counted() {
    if !ready(&["tc"]) {
        return;
    }
    let pair = Pair::new();
    for host in [Pair::B4, Pair::B6] {
        pair.a.ip(&format!(
            "neigh replace {host} lladdr 02:00:00:00:00:01 dev eth0"
        ));
    }
    // Lets 1,600 bytes through and 1,000 a second from then on, with 3,000 waiting.
    pair.a
        .exec("tc qdisc add dev eth0 root tbf rate 8kbit burst 1600 limit 3000");
    pair.a.enter(|| {
        let mut sender = Sender::raw(&SenderConfig::default()).unwrap();
        for cookie in 0..20 {
            let (foreign, host) = match cookie % 2 {
                0 => (FOREIGN4, Pair::B4),
                _ => (FOREIGN6, Pair::B6),
            };
            push(&mut sender, cookie, foreign, socket(host, 80), &[0; 1000]);
        }
        let failures = flush(&mut sender);
        assert!(failures.iter().all(|f| f.kind == SendErrorKind::NoBuffers));
        let counters = sender.counters();
        assert!((1..20).contains(&counters.packets), "{counters:?}");
        let failed = counters.failures(SendErrorKind::NoBuffers);
        assert_eq!(counters.packets + failed, 20);
        assert_eq!(failures.len() as u64, failed);
    });
}

#[test]
fn a_packet_that_is_too_long_does_not_end_later_waits() {
    if !ready(&[]) {
        return;
    }
    let pair = with_a_silent_neighbour();
    pair.a.enter(|| {
        let mut sender = Sender::raw(&SMALL_BUFFER).unwrap();
        push(&mut sender, 0, FOREIGN4, socket(Pair::B4, 80), &[0; 3000]);
        let failures = flush(&mut sender);
        assert_eq!(failures[0].kind, SendErrorKind::MessageTooLong);
        let start = Instant::now();
        push_to_silence(&mut sender, 63);
        assert!(!flush(&mut sender).is_empty());
        let waited = Duration::from_millis(sender.counters().waits);
        assert!(waited > Duration::ZERO && start.elapsed() >= waited);
    });
}

#[test]
fn a_buffer_beyond_the_systems_limit_is_granted_to_the_privileged_alone() {
    if !ready(&[]) {
        return;
    }
    let limit = std::fs::read_to_string("/proc/sys/net/core/wmem_max").unwrap();
    let limit: usize = limit.trim().parse().unwrap();
    let config = SenderConfig {
        send_buffer: 2 * limit,
        ..SenderConfig::default()
    };
    let granted = || {
        let link = LinkSocket::open(&config, Some("lo")).unwrap();
        let hops = NextHops::start(NextHopConfig::new("lo")).unwrap();
        let senders = [Sender::raw(&config).unwrap(), Sender::link(link, &hops)];
        senders.map(|sender| sender.send_buffer())
    };
    let namespace = Namespace::new();
    namespace.enter(|| {
        assert_eq!(granted(), [2 * limit; 2]);
        // This thread's alone, which ends here.
        let mut sets = capabilities(None).unwrap();
        sets.effective.remove(CapabilitySet::NET_ADMIN);
        set_capabilities(None, sets).unwrap();
        assert_eq!(granted(), [limit; 2]);
    });
}

/// a -- router -- c, with c's addresses behind the router.
struct Routed {
    a: Namespace,
    router: Namespace,
    c: Namespace,
}

impl Routed {
    const C4: &str = "198.18.1.2";
    const C6: &str = "2001:db8:1::2";

    fn new() -> Self {
        let routed = Self {
            a: Namespace::new(),
            router: Namespace::new(),
            c: Namespace::new(),
        };
        link(&routed.a, "eth0", &routed.router, "eth0");
        link(&routed.c, "eth0", &routed.router, "eth1");
        for (namespace, device, addresses) in [
            (&routed.a, "eth0", ["198.18.0.1/24", "2001:db8::1/64"]),
            (
                &routed.router,
                "eth0",
                ["198.18.0.254/24", "2001:db8::ffff/64"],
            ),
            (
                &routed.router,
                "eth1",
                ["198.18.1.254/24", "2001:db8:1::ffff/64"],
            ),
            (&routed.c, "eth0", ["198.18.1.2/24", "2001:db8:1::2/64"]),
        ] {
            for one in addresses {
                address(namespace, device, one);
            }
        }
        routed.router.exec("sysctl -qw net.ipv4.ip_forward=1");
        routed
            .router
            .exec("sysctl -qw net.ipv6.conf.all.forwarding=1");
        routed.a.ip("route add default via 198.18.0.254");
        routed.a.ip("route add default via 2001:db8::ffff");
        routed
    }
}

#[test]
fn the_next_hop_is_found_through_a_gateway_and_packets_pass_the_hosts_firewall() {
    if !ready(&["iptables"]) {
        return;
    }
    let routed = Routed::new();
    routed
        .a
        .exec("iptables -w -A OUTPUT -p tcp --dport 80 -j DROP");
    let mut ring = all_tcp(&routed.c);
    routed.a.enter(|| {
        let hops = NextHops::start(NextHopConfig::new("eth0")).unwrap();
        let mut sender = link_sender(&SenderConfig::default(), Some("eth0"), &hops);
        // The first packet starts the search and is not waited for.
        push(&mut sender, 1, FOREIGN4, socket(Routed::C4, 80), b"early");
        let failures = flush(&mut sender);
        assert_eq!(failures.len(), 1);
        assert_eq!(
            (failures[0].cookie, failures[0].kind),
            (1, SendErrorKind::Unreachable)
        );
        hops.add(Routed::C6.parse().unwrap());
        assert!(
            hops.wait_resolved(Duration::from_secs(5)),
            "{:?}",
            hops.unresolved()
        );
        let hop = |address: &str| hops.get(address.parse().unwrap()).unwrap();
        assert_eq!(hop(Routed::C4).destination, hop(Routed::C6).destination);
        for cookie in 0..100 {
            push(
                &mut sender,
                cookie,
                FOREIGN4,
                socket(Routed::C4, 80),
                b"four",
            );
            push(
                &mut sender,
                cookie,
                FOREIGN6,
                socket(Routed::C6, 80),
                b"six",
            );
        }
        // Too long for the device.
        let config = SenderConfig {
            max_packet: 9000,
            ..SenderConfig::default()
        };
        assert_eq!(flush(&mut sender), []);
        assert_eq!(sender.counters().bytes, 100 * (44 + 63));
        let mut large = link_sender(&config, Some("eth0"), &hops);
        push(&mut large, 1, FOREIGN4, socket(Routed::C4, 80), &[0; 5000]);
        assert_eq!(flush(&mut large)[0].kind, SendErrorKind::MessageTooLong);
    });
    let arrived = arrived(&mut ring);
    let of = |source: &str| {
        arrived
            .iter()
            .filter(|s| s.source == source.parse().unwrap())
            .count()
    };
    assert_eq!((of(FOREIGN4), of(FOREIGN6)), (100, 100));
}

#[test]
fn ipsec_policies_are_seen() {
    if !ready(&[]) {
        return;
    }
    let routed = Routed::new();
    routed.a.enter(|| assert!(!NextHops::has_ipsec_policies()));
    let policy = format!(
        "-n {} xfrm policy add src 0.0.0.0/0 dst 198.18.9.0/24 dir out tmpl proto esp mode transport",
        routed.a.name
    );
    let added = std::process::Command::new("ip")
        .args(policy.split_whitespace())
        .status()
        .unwrap();
    if !added.success() {
        assert!(std::env::var_os("CI").is_none(), "this kernel has no IPsec");
        eprintln!("SKIPPED: this kernel has no IPsec");
        return;
    }
    routed.a.enter(|| assert!(NextHops::has_ipsec_policies()));
}

#[test]
fn a_change_of_the_gateways_mac_address_is_followed() {
    if !ready(&[]) {
        return;
    }
    let routed = Routed::new();
    let mut config = NextHopConfig::new("eth0");
    config.refresh = Duration::from_millis(50);
    let hops = routed.a.enter(|| NextHops::start(config).unwrap());
    let destination: IpAddr = Routed::C4.parse().unwrap();
    hops.add(destination);
    assert!(hops.wait_resolved(Duration::from_secs(5)));
    routed
        .a
        .ip("neigh replace 198.18.0.254 lladdr 02:00:00:00:00:99 dev eth0 nud permanent");
    let new = MacAddress::new([2, 0, 0, 0, 0, 0x99]);
    let deadline = Instant::now() + Duration::from_secs(5);
    while hops.get(destination).unwrap().destination != Some(new) {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(20));
    }
    // The device going down takes the answer away, with the reason.
    routed.a.ip("link set eth0 down");
    while hops.get(destination).is_some() {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(hops.unresolved()[0].1.contains("eth0 is down"));
}

#[test]
fn a_host_that_does_not_answer_is_named_and_mac_addresses_that_are_given_are_used() {
    if !ready(&[]) {
        return;
    }
    let pair = Pair::new();
    let mut ring = all_tcp(&pair.b);
    let silent: IpAddr = "198.18.0.99".parse().unwrap();
    let given: IpAddr = "198.18.0.98".parse().unwrap();
    let source = MacAddress::new([2, 0, 0, 0, 0, 1]);
    pair.a.enter(|| {
        let mut config = NextHopConfig::new("eth0");
        let hop = StaticHop {
            source: Some(source),
            destination: "ff:ff:ff:ff:ff:ff".parse().unwrap(),
        };
        config.fixed.insert(given, hop);
        let hops = NextHops::start(config).unwrap();
        hops.add(silent);
        hops.add(given);
        assert!(!hops.wait_resolved(Duration::from_millis(300)));
        let unresolved = hops.unresolved();
        assert_eq!(unresolved.len(), 1);
        assert_eq!(unresolved[0].0, silent);
        assert!(unresolved[0].1.contains("MAC address"), "{unresolved:?}");
        let mut sender = link_sender(&SenderConfig::default(), Some("eth0"), &hops);
        push(
            &mut sender,
            1,
            FOREIGN4,
            SocketAddr::new(silent, 80),
            b"lost",
        );
        push(
            &mut sender,
            2,
            FOREIGN4,
            SocketAddr::new(given, 80),
            b"given",
        );
        let failures = flush(&mut sender);
        assert_eq!(failures.len(), 1);
        assert_eq!(
            (failures[0].cookie, failures[0].kind),
            (1, SendErrorKind::Unreachable)
        );
    });
    let frames = drain(&mut ring);
    let frame = frames
        .iter()
        .find(|f| f.data[6..12] == source.octets())
        .unwrap();
    assert_eq!(frame.data[..6], [0xff; 6]);
    assert_eq!(from_ethernet(&frame.data).payload, b"given");
}

#[test]
fn a_device_that_goes_down_is_an_error_of_each_packet() {
    if !ready(&[]) {
        return;
    }
    let pair = Pair::new();
    pair.a.enter(|| {
        let mut config = NextHopConfig::new("eth0");
        config.refresh = Duration::from_secs(60);
        let hops = NextHops::start(config).unwrap();
        let to = socket(Pair::B4, 80);
        hops.add(to.ip());
        assert!(hops.wait_resolved(Duration::from_secs(5)));
        let mut sender = link_sender(&SenderConfig::default(), Some("eth0"), &hops);
        pair.a.ip("link set eth0 down");
        push(&mut sender, 1, FOREIGN4, to, b"x");
        push(&mut sender, 2, FOREIGN4, to, b"x");
        let kinds: Vec<_> = flush(&mut sender).iter().map(|f| f.kind).collect();
        assert_eq!(kinds, [SendErrorKind::NetworkDown; 2]);
    });
}
