//! Filter programs against crafted packets, and against a plain predicate on random ones.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;

use millrace_wire::{LinkType, Tunnel, Tunnels};
use proptest::prelude::*;

use super::interpreter::run;
use super::*;
use crate::sys::option::attach_filter;

const SNAP: u32 = 70_000;

/// A packet to be made: what the predicate judges by, and how it is wrapped.
#[derive(Clone, Debug)]
struct Packet {
    source: SocketAddr,
    destination: SocketAddr,
    protocol: u8,
    /// IPv4: words of options. IPv6: see `extensions`.
    options: u8,
    /// IPv4: the fragment offset in units of 8 bytes.
    fragment: u16,
    /// IPv6: extension headers in order, each of 8 bytes.
    extensions: Vec<u8>,
    tags: Vec<u16>,
}

impl Packet {
    fn tcp(source: &str, destination: &str) -> Self {
        Self {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            protocol: 6,
            options: 0,
            fragment: 0,
            extensions: Vec::new(),
            tags: Vec::new(),
        }
    }

    fn network(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                bytes.push(0x40 | (5 + self.options));
                bytes.extend([0, 0, 0, 0, 0]);
                // "Don't fragment" and "more fragments" must not be taken for an offset.
                let flags = if self.fragment > 0 { 0x2000 } else { 0x4000 };
                bytes.extend((self.fragment | flags).to_be_bytes());
                bytes.extend([64, self.protocol, 0, 0]);
                bytes.extend(source.octets());
                bytes.extend(destination.octets());
                bytes.resize(bytes.len() + 4 * usize::from(self.options), 1);
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let mut chain = self.extensions.clone();
                chain.push(self.protocol);
                bytes.extend([0x60, 0, 0, 0, 0, 0, chain[0], 64]);
                bytes.extend(source.octets());
                bytes.extend(destination.octets());
                for next in &chain[1..] {
                    bytes.extend([*next, 0, 0, 0, 0, 0, 0, 0]);
                }
            }
            mixed => panic!("{mixed:?}"),
        }
        bytes.extend(self.source.port().to_be_bytes());
        bytes.extend(self.destination.port().to_be_bytes());
        bytes.resize(bytes.len() + 16, 0);
        bytes
    }

    fn frame(&self, link: LinkType) -> Vec<u8> {
        let ethertype: u16 = if self.source.is_ipv4() {
            0x0800
        } else {
            0x86dd
        };
        let mut bytes = Vec::new();
        match link {
            LinkType::Ethernet => {
                bytes.extend([2; 12]);
                for tag in &self.tags {
                    bytes.extend(tag.to_be_bytes());
                    bytes.extend([0, 7]);
                }
                bytes.extend(ethertype.to_be_bytes());
            }
            LinkType::LinuxSll => {
                bytes.extend([0; 14]);
                bytes.extend(ethertype.to_be_bytes());
            }
            LinkType::LinuxSll2 => {
                bytes.extend(ethertype.to_be_bytes());
                bytes.extend([0; 18]);
            }
            LinkType::RawIp | LinkType::Nflog => {}
            LinkType::Null | LinkType::Loop => bytes.extend([2, 0, 0, 0]),
        }
        bytes.extend(self.network());
        bytes
    }

    /// Whether the program can see the ports.
    fn shows_ports(&self) -> bool {
        if self.source.is_ipv4() {
            self.fragment == 0
        } else {
            matches!(self.extensions[..], [] | [0])
        }
    }

    /// Whether it can be TCP, as far as the program looks.
    fn may_be_tcp(&self) -> bool {
        match self.extensions[..] {
            _ if self.source.is_ipv4() => self.protocol == 6,
            [] | [_] => self.protocol == 6,
            [_, second, ..] => second != 0,
        }
    }

    /// Whether it can bear one of these tunnels, as far as the program looks. It is not TCP.
    fn may_be_one_of(&self, tunnels: &Tunnels) -> bool {
        let borne = match self.protocol {
            4 | 41 => tunnels.has(Tunnel::IpInIp),
            47 => tunnels.has(Tunnel::Gre) || tunnels.has(Tunnel::Erspan),
            17 => {
                let to_it = tunnels.vxlan_ports.contains(&self.destination.port());
                let kinds = [Tunnel::Vxlan, Tunnel::Geneve, Tunnel::Gue, Tunnel::GtpU];
                match self.shows_ports() && self.extensions.is_empty() {
                    true => to_it && tunnels.has(Tunnel::Vxlan),
                    false => kinds.into_iter().any(|kind| tunnels.has(kind)),
                }
            }
            _ => false,
        };
        borne && self.extensions.len() < 2
    }
}

/// What the filter promises, said plainly.
fn expected(spec: &FilterSpec, packet: &Packet) -> u32 {
    let is_at = |service: &ServiceFilter, host: IpAddr| match service.address {
        Some(address) => address == host,
        None => spec.local_addresses.is_empty() || spec.local_addresses.contains(&host),
    };
    let one_of = |services: &[ServiceFilter], host: IpAddr, port: Option<u16>| {
        let has = |service: &ServiceFilter| port.is_none_or(|port| port == service.port);
        services
            .iter()
            .any(|service| is_at(service, host) && has(service))
    };
    let serves = |host, port| one_of(&spec.services, host, port);
    // Where the port is not shown, it may be any that is wanted whole in this family.
    let may_be_whole = |host: IpAddr| {
        spec.whole_services.iter().any(|service| {
            let like = |address: &IpAddr| address.is_ipv4() == host.is_ipv4();
            let local = &spec.local_addresses;
            match service.address {
                Some(address) => like(&address),
                None => local.is_empty() || local.iter().any(like),
            }
        })
    };
    if !packet.may_be_tcp() {
        let tunnels = packet.may_be_one_of(&spec.tunnels);
        return if tunnels { SNAP } else { 0 };
    }
    let ports = packet.shows_ports();
    let port = |socket: SocketAddr| ports.then_some(socket.port());
    if ports && spec.exclude.contains(&packet.destination) {
        0
    } else if serves(packet.destination.ip(), port(packet.destination)) {
        spec.client_snap_len
    } else if serves(packet.source.ip(), port(packet.source)) {
        let host = packet.source.ip();
        let is_whole = match ports {
            true => one_of(&spec.whole_services, host, port(packet.source)),
            false => may_be_whole(host),
        };
        match is_whole {
            true => SNAP,
            false => spec.server_snap_len,
        }
    } else {
        0
    }
}

fn spec(services: &[(Option<&str>, u16)]) -> FilterSpec {
    FilterSpec {
        services: services
            .iter()
            .map(|(address, port)| ServiceFilter {
                address: address.map(|a| a.parse().unwrap()),
                port: *port,
            })
            .collect(),
        local_addresses: Vec::new(),
        exclude: Vec::new(),
        client_snap_len: 65_535,
        server_snap_len: HEADERS_ONLY,
        whole_services: Vec::new(),
        tunnels: Tunnels::none(),
    }
}

fn verdict(spec: &FilterSpec, packet: &Packet) -> u32 {
    let filter = Filter::Services(spec.clone());
    let program = filter.compile(LinkType::Ethernet, SNAP).unwrap();
    run(&program, &packet.frame(LinkType::Ethernet))
}

#[test]
fn both_directions_of_a_service_are_kept_each_at_its_length() {
    let spec = spec(&[(Some("198.18.0.1"), 80), (Some("2001:db8::1"), 80)]);
    for (client, live, other) in [
        ("198.18.0.9:5000", "198.18.0.1:80", "198.18.0.1:81"),
        ("[2001:db8::9]:5000", "[2001:db8::1]:80", "[2001:db8::2]:80"),
    ] {
        assert_eq!(verdict(&spec, &Packet::tcp(client, live)), 65_535);
        assert_eq!(verdict(&spec, &Packet::tcp(live, client)), HEADERS_ONLY);
        assert_eq!(verdict(&spec, &Packet::tcp(client, other)), 0);
        assert_eq!(verdict(&spec, &Packet::tcp(other, client)), 0);
        let mut udp = Packet::tcp(client, live);
        udp.protocol = 17;
        assert_eq!(verdict(&spec, &udp), 0);
    }
}

#[test]
fn what_may_bear_a_tunnel_is_kept_whole_by_its_ethertype_too() {
    let mut spec = spec(&[(Some("198.18.0.1"), 80)]);
    let mut frame = vec![2; 12];
    frame.extend([0x81, 0, 0, 7, 0x88, 0x47]);
    frame.resize(60, 0);
    let kept = |spec: &FilterSpec, frame: &[u8]| {
        let filter = Filter::Services(spec.clone());
        run(&filter.compile(LinkType::Ethernet, SNAP).unwrap(), frame)
    };
    assert_eq!(kept(&spec, &frame), 0);
    spec.tunnels = Tunnels::all();
    assert_eq!(kept(&spec, &frame), SNAP);
    frame[17] = 0x64;
    assert_eq!(kept(&spec, &frame), SNAP, "PPPoE");
    frame[17] = 0xcc;
    assert_eq!(kept(&spec, &frame), 0, "LLDP");
    spec.tunnels.kinds = vec![Tunnel::Gre];
    frame[17] = 0x47;
    assert_eq!(kept(&spec, &frame), 0);
}

#[test]
fn our_own_copies_are_left_out_and_nothing_else_of_the_target() {
    let mut spec = spec(&[(None, 80)]);
    spec.exclude = vec!["198.18.0.2:80".parse().unwrap()];
    let copy = Packet::tcp("198.18.0.9:5000", "198.18.0.2:80");
    assert_eq!(verdict(&spec, &copy), 0);
    let live = Packet::tcp("198.18.0.9:5000", "198.18.0.1:80");
    assert_eq!(verdict(&spec, &live), 65_535);
    let answer = Packet::tcp("198.18.0.2:80", "198.18.0.9:5000");
    assert_eq!(verdict(&spec, &answer), HEADERS_ONLY);
    let other_port = Packet::tcp("198.18.0.9:80", "198.18.0.2:81");
    assert_eq!(verdict(&spec, &other_port), HEADERS_ONLY);
}

#[test]
fn the_ring_bounds_the_lengths_of_the_filter() {
    let filter = Filter::Services(spec(&[(None, 80)]));
    let program = filter.compile(LinkType::RawIp, 100).unwrap();
    let packet = Packet::tcp("198.18.0.9:5000", "198.18.0.1:80");
    assert_eq!(run(&program, &packet.frame(LinkType::RawIp)), 100);
}

#[test]
fn responses_are_matched_by_their_source_alone() {
    let any = Filter::Responses(ResponseFilter::default());
    let one = Filter::Responses(ResponseFilter {
        sources: vec![ServiceFilter {
            address: Some("2001:db8::1".parse().unwrap()),
            port: 80,
        }],
        snap_len: 128,
        ..ResponseFilter::default()
    });
    let response = Packet::tcp("[2001:db8::1]:80", "[2001:db8::9]:5000");
    let request = Packet::tcp("[2001:db8::9]:5000", "[2001:db8::1]:80");
    let mut udp = response.clone();
    udp.protocol = 17;
    for (filter, of_response, of_request) in [(any, 192, 192), (one, 128, 0)] {
        let program = filter.compile(LinkType::Ethernet, SNAP).unwrap();
        let run = |packet: &Packet| run(&program, &packet.frame(LinkType::Ethernet));
        assert_eq!(run(&response), of_response);
        assert_eq!(run(&request), of_request);
        assert_eq!(run(&udp), 0);
    }
}

#[test]
fn what_is_said_about_responses_is_none() {
    let filter = Filter::Responses(ResponseFilter {
        exclude: ["198.18.0.3:36524", "[2001:db8::3]:36524"]
            .map(|own| own.parse().unwrap())
            .into(),
        ..ResponseFilter::default()
    });
    let program = filter.compile(LinkType::Ethernet, SNAP).unwrap();
    let kept =
        |from: &str, to: &str| run(&program, &Packet::tcp(from, to).frame(LinkType::Ethernet)) > 0;
    for (own, copier, server, client) in [
        (
            "198.18.0.3:36524",
            "198.18.0.1:5000",
            "198.18.0.2:80",
            "198.18.1.1:36524",
        ),
        (
            "[2001:db8::3]:36524",
            "[2001:db8::1]:5000",
            "[2001:db8::2]:80",
            "[2001:db8:1::1]:36524",
        ),
    ] {
        assert!(!kept(own, copier) && !kept(copier, own));
        // A port alone says nothing: a client may have the same.
        assert!(kept(server, client) && kept(client, server));
        assert!(kept(server, copier));
    }
}

#[test]
fn responses_of_ports_that_are_wanted_whole_are_kept_as_far_as_the_ring_keeps_them() {
    let filter = |whole_ports: &[u16], sources: &[u16]| {
        let sources = sources.iter().map(|port| ServiceFilter {
            address: None,
            port: *port,
        });
        Filter::Responses(ResponseFilter {
            sources: sources.collect(),
            whole_ports: whole_ports.to_vec(),
            ..ResponseFilter::default()
        })
    };
    let http = Packet::tcp("198.18.0.1:80", "198.18.0.9:5000");
    let mysql = Packet::tcp("[2001:db8::1]:3306", "[2001:db8::9]:5000");
    for (whole, sources, of_http, of_mysql) in [
        (&[][..], &[][..], 192, 192),
        (&[3306], &[], 192, SNAP),
        (&[80, 3306], &[], SNAP, SNAP),
        (&[0], &[], SNAP, SNAP),
        (&[3306], &[80], 192, 0),
        (&[0], &[3306], 0, SNAP),
    ] {
        for link in [LinkType::Ethernet, LinkType::RawIp] {
            let program = filter(whole, sources).compile(link, SNAP).unwrap();
            let run = |packet: &Packet| run(&program, &packet.frame(link));
            assert_eq!((run(&http), run(&mysql)), (of_http, of_mysql), "{whole:?}");
        }
    }
}

#[test]
fn frames_that_end_early_are_rejected() {
    let filter = Filter::Services(spec(&[(None, 80)]));
    let program = filter.compile(LinkType::Ethernet, SNAP).unwrap();
    let frame = Packet::tcp("198.18.0.9:5000", "198.18.0.1:80").frame(LinkType::Ethernet);
    // Both ports are needed, no more.
    for length in 0..14 + 20 + 4 {
        assert_eq!(run(&program, &frame[..length]), 0, "{length}");
    }
    assert_eq!(run(&program, &frame[..14 + 20 + 4]), 65_535);
}

#[test]
fn many_services_fit_and_too_many_are_refused() {
    let service = |i: u32| ServiceFilter {
        address: Some(IpAddr::from((0xc612_0000 + i * 7).to_be_bytes())),
        port: 80,
    };
    let with = |count| {
        let mut spec = spec(&[]);
        spec.services = (0..count).map(service).collect();
        spec
    };
    let spec = with(500);
    for i in [0, 1, 77, 499] {
        let live = SocketAddr::new(service(i).address.unwrap(), 80).to_string();
        let packet = Packet::tcp("198.19.255.1:5000", &live);
        assert_eq!(verdict(&spec, &packet), 65_535);
    }
    let error = Filter::Services(with(5000))
        .compile(LinkType::Ethernet, SNAP)
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("5000 services need"), "{error}");
}

/// Whether what needs libpcap is to be left out here, said aloud: whoever has only Rust can run all the other tests.
fn lacks_libpcap() -> bool {
    let expression = Expression {
        text: String::new(),
        exclude: Vec::new(),
        snap_len: SNAP,
    };
    let Err(error) = Filter::Expression(expression).compile(LinkType::Ethernet, SNAP) else {
        return false;
    };
    assert!(std::env::var_os("CI").is_none(), "{error}");
    eprintln!("SKIPPED: {error}");
    true
}

#[test]
fn the_kernel_accepts_every_program_on_a_socket() {
    let accepted = |filter: &Filter| {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        for link in [LinkType::Ethernet, LinkType::RawIp, LinkType::LinuxSll2] {
            let program = filter.compile(link, SNAP).unwrap();
            attach_filter(socket.as_fd(), &mut program.to_kernel()).unwrap();
        }
    };
    let mut all = spec(&[(None, 80), (Some("2001:db8::1"), 443), (Some("::"), 22)]);
    all.local_addresses = (1..=40u8).map(|i| IpAddr::from([198, 18, 0, i])).collect();
    all.exclude = vec!["198.18.0.2:80".parse().unwrap()];
    let expression = Expression {
        text: "tcp port 80 or tcp port 443".to_owned(),
        exclude: all.exclude.clone(),
        snap_len: u32::MAX,
    };
    accepted(&Filter::Services(all));
    accepted(&Filter::Responses(ResponseFilter::default()));
    if !lacks_libpcap() {
        accepted(&Filter::Expression(expression));
    }
}

#[test]
fn an_expression_selects_and_our_own_copies_are_left_out() {
    if lacks_libpcap() {
        return;
    }
    let filter = |text: &str| {
        Filter::Expression(Expression {
            text: text.to_owned(),
            exclude: vec![
                "198.18.0.2:80".parse().unwrap(),
                "[2001:db8::2]:80".parse().unwrap(),
            ],
            snap_len: u32::MAX,
        })
    };
    for (text, live, copy, unrelated) in [
        ("tcp port 80", true, false, false),
        ("tcp port 80 or tcp port 5001", true, false, true),
        ("", true, false, true),
        ("host 198.18.0.1", true, false, false),
    ] {
        let program = filter(text).compile(LinkType::Ethernet, SNAP).unwrap();
        let keeps = |from: &str, to: &str| {
            run(&program, &Packet::tcp(from, to).frame(LinkType::Ethernet)) > 0
        };
        assert_eq!(keeps("198.18.0.9:5000", "198.18.0.1:80"), live, "{text}");
        assert_eq!(keeps("198.18.0.9:5000", "198.18.0.2:80"), copy, "{text}");
        let six = keeps("[2001:db8::9]:5000", "[2001:db8::2]:80");
        assert_eq!(six, copy, "{text}");
        let other = keeps("198.18.0.9:5001", "198.18.0.3:81");
        assert_eq!(other, unrelated, "{text}");
    }
}

#[test]
fn a_wrong_expression_is_answered_in_the_words_of_libpcap() {
    if lacks_libpcap() {
        return;
    }
    for (text, message) in [
        ("tcp prot 80", "syntax error"),
        ("port 80) or (port 81", "syntax error"),
        ("host no-such-name.invalid", "unknown host"),
    ] {
        let expression = Expression {
            text: text.to_owned(),
            exclude: vec!["198.18.0.2:80".parse().unwrap()],
            snap_len: u32::MAX,
        };
        let error = Filter::Expression(expression)
            .compile(LinkType::Ethernet, SNAP)
            .unwrap_err()
            .to_string();
        assert!(error.contains(text) && error.contains(message), "{error}");
    }
}

/// Few addresses and ports, so that packets and services meet.
fn address(ipv6: bool) -> impl Strategy<Value = IpAddr> {
    (0u8..6).prop_map(move |i| {
        if ipv6 {
            let mut octets = [0; 16];
            octets[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
            octets[4 + usize::from(i % 3) * 4] = i / 3;
            octets[15] = i;
            IpAddr::from(octets)
        } else {
            IpAddr::from([198, 18 + i % 2, 0, i])
        }
    })
}

fn any_address() -> impl Strategy<Value = IpAddr> {
    any::<bool>().prop_flat_map(address)
}

fn packet() -> impl Strategy<Value = Packet> {
    let endpoints = any::<bool>().prop_flat_map(|ipv6| {
        let socket = || (address(ipv6), 80u16..90).prop_map(|(a, p)| SocketAddr::new(a, p));
        (socket(), socket())
    });
    let extension = prop::sample::select(vec![43u8, 44, 60]);
    let extensions = prop_oneof![
        3 => Just(vec![]),
        1 => Just(vec![0]),
        1 => prop::collection::vec(extension.clone(), 1..3),
        1 => prop::collection::vec(extension, 0..2).prop_map(|mut chain| {
            chain.insert(0, 0);
            chain
        }),
    ];
    let tag = prop::sample::select(vec![0x8100u16, 0x88a8, 0x9100]);
    (
        endpoints,
        prop_oneof![6 => Just(6u8), 2 => Just(17), 1 => prop::sample::select(vec![1, 4, 41, 47])],
        0u8..11,
        prop_oneof![3 => Just(0u16), 1 => 1..0x1fffu16],
        extensions,
        prop::collection::vec(tag, 0..3),
    )
        .prop_map(
            |((source, destination), protocol, options, fragment, extensions, tags)| {
                let ipv4 = source.is_ipv4();
                Packet {
                    source,
                    destination,
                    protocol,
                    options,
                    fragment,
                    extensions: if ipv4 { Vec::new() } else { extensions },
                    tags,
                }
            },
        )
}

fn any_spec() -> impl Strategy<Value = FilterSpec> {
    let service = (prop::option::of(any_address()), 80u16..90)
        .prop_map(|(address, port)| ServiceFilter { address, port });
    let target = (any_address(), 80u16..90).prop_map(|(a, p)| SocketAddr::new(a, p));
    (
        prop::collection::vec(service, 0..12),
        0..4usize,
        prop::collection::vec(any_address(), 0..5),
        prop::collection::vec(target, 0..4),
        prop::sample::subsequence(Tunnel::ALL.to_vec(), 0..=Tunnel::ALL.len()),
    )
        .prop_map(
            |(services, whole, local_addresses, exclude, kinds)| FilterSpec {
                whole_services: services.iter().take(whole).copied().collect(),
                services,
                local_addresses,
                exclude,
                client_snap_len: 65_535,
                server_snap_len: HEADERS_ONLY,
                tunnels: Tunnels {
                    kinds,
                    vxlan_ports: vec![82, 85],
                },
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn the_program_equals_the_plain_predicate(
        spec in any_spec(),
        packets in prop::collection::vec(packet(), 1..40),
    ) {
        for link in [
            LinkType::Ethernet,
            LinkType::LinuxSll,
            LinkType::LinuxSll2,
            LinkType::RawIp,
            LinkType::Null,
        ] {
            let program = Filter::Services(spec.clone()).compile(link, SNAP).unwrap();
            for packet in &packets {
                let got = run(&program, &packet.frame(link));
                prop_assert_eq!(got, expected(&spec, packet), "{:?} {:?}", link, packet);
            }
        }
    }

    #[test]
    fn no_bytes_make_the_program_run_away(
        spec in any_spec(),
        bytes in prop::collection::vec(any::<u8>(), 0..120),
    ) {
        let program = Filter::Services(spec).compile(LinkType::Ethernet, SNAP).unwrap();
        run(&program, &bytes);
    }
}
