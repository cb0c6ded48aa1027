//! The capture ring on real devices.
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

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant, SystemTime};

use millrace_capture::filter::HEADERS_ONLY;
use millrace_capture::{
    CaptureError, Census, Device, Fanout, Filter, FilterSpec, ResponseFilter, Ring, RingConfig,
    Sender, SenderConfig, ServiceFilter, wait,
};
use millrace_wire::Tunnels;
use support::packet::{Segment, from_ethernet, from_ip, reassemble, tcp};
use support::{Namespace, Pair, Seen, drain, ready};

const PORT: u16 = 8080;

fn service() -> Filter {
    Filter::Services(FilterSpec {
        services: vec![ServiceFilter {
            address: None,
            port: PORT,
        }],
        local_addresses: Vec::new(),
        exclude: Vec::new(),
        client_snap_len: u32::MAX,
        server_snap_len: HEADERS_ONLY,
        whole_services: Vec::new(),
        tunnels: Tunnels::none(),
    })
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 7 + i / 251) as u8).collect()
}

/// One connection: the client sends all of `request`, then the server all of `response`.
fn converse(pair: (&Namespace, &Namespace), server: IpAddr, request: &[u8], response: &[u8]) {
    let listener = pair
        .1
        .enter(|| TcpListener::bind(SocketAddr::new(server, PORT)).unwrap());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut stream, _) = listener.accept().unwrap();
            let mut got = Vec::new();
            stream.read_to_end(&mut got).unwrap();
            assert!(got == request);
            stream.write_all(response).unwrap();
        });
        pair.0.enter(|| {
            let mut stream = TcpStream::connect(SocketAddr::new(server, PORT)).unwrap();
            stream.write_all(request).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let mut got = Vec::new();
            stream.read_to_end(&mut got).unwrap();
            assert!(got == response);
        });
    });
}

type Decoded<'a> = (&'a Seen, Segment);

/// To the server, and from it.
fn split(seen: &[Seen], decode: fn(&[u8]) -> Segment) -> (Vec<Decoded<'_>>, Vec<Decoded<'_>>) {
    seen.iter()
        .map(|frame| (frame, decode(&frame.data)))
        .partition(|(_, segment)| segment.destination.port() == PORT)
}

#[test]
fn a_connection_is_captured_whole_from_the_client_and_by_headers_from_the_server() {
    if !ready(&[]) {
        return;
    }
    let pair = Pair::new();
    for server in [Pair::B4, Pair::B6] {
        let mut ring = pair
            .b
            .enter(|| Ring::open(&RingConfig::new("eth0", service())).unwrap());
        let request = pattern(700_000);
        let response = pattern(500_000);
        let before = SystemTime::now();
        converse(
            (&pair.a, &pair.b),
            server.parse().unwrap(),
            &request,
            &response,
        );
        let seen = drain(&mut ring);
        let after = SystemTime::now();

        let (to_server, from_server) = split(&seen, from_ethernet);
        assert!(to_server.iter().all(|(f, _)| !f.outgoing));
        assert!(
            to_server
                .iter()
                .all(|(f, _)| f.data.len() == f.original_len)
        );
        let segments: Vec<_> = to_server.iter().map(|(_, s)| s.clone()).collect();
        assert!(reassemble(&segments) == request);
        // Segmentation offload makes packets that no wire would carry.
        let longest = to_server.iter().map(|(f, _)| f.original_len).max();
        assert!(longest.unwrap() > 10_000, "{longest:?}");
        assert!(to_server.iter().any(|(f, _)| f.checksum_settled));

        assert!(from_server.iter().all(|(f, _)| f.outgoing));
        let snap_len = HEADERS_ONLY as usize;
        assert!(from_server.iter().all(|(f, _)| f.data.len() <= snap_len));
        let sent: usize = from_server.iter().map(|(f, _)| f.original_len).sum();
        assert!(sent > response.len());

        let nanoseconds =
            |t: SystemTime| t.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos();
        let range = nanoseconds(before)..nanoseconds(after);
        assert!(
            seen.iter()
                .all(|f| range.contains(&u128::from(f.timestamp)))
        );
        let statistics = ring.statistics().unwrap();
        assert_eq!(statistics.received, seen.len() as u64);
        assert_eq!(statistics.dropped, 0);
    }
}

#[test]
fn big_tcp_packets_are_captured_whole() {
    if !ready(&[]) {
        return;
    }
    let pair = Pair::new();
    let mut devices = [&pair.a, &pair.b].into_iter();
    if !devices.all(|n| n.try_ip("link set eth0 gso_max_size 190000 gro_max_size 190000")) {
        eprintln!("SKIPPED: this kernel or ip has no BIG TCP");
        return;
    }
    let mut ring = pair.b.enter(|| {
        Ring::open(&RingConfig {
            snap_len: 256 << 10,
            ..RingConfig::new("eth0", service())
        })
        .unwrap()
    });
    let request = pattern(8_000_000);
    let server = Pair::B6.parse().unwrap();
    converse((&pair.a, &pair.b), server, &request, b"done");
    let seen = drain(&mut ring);
    let (to_server, from_server) = split(&seen, from_ethernet);
    let longest = to_server.iter().map(|(f, _)| f.original_len).max();
    assert!(longest.unwrap() > 65_600, "{longest:?}");
    assert!(
        to_server
            .iter()
            .all(|(f, _)| f.data.len() == f.original_len)
    );
    let segments: Vec<_> = to_server.into_iter().map(|(_, s)| s).collect();
    assert!(reassemble(&segments) == request);
    let snap_len = HEADERS_ONLY as usize;
    assert!(from_server.iter().all(|(f, _)| f.data.len() <= snap_len));
}

#[test]
fn on_loopback_every_packet_is_seen_once() {
    if !ready(&[]) {
        return;
    }
    let host = Namespace::new();
    let mut ring = host.enter(|| Ring::open(&RingConfig::new("lo", service())).unwrap());
    let request = pattern(200_000);
    converse(
        (&host, &host),
        "127.0.0.1".parse().unwrap(),
        &request,
        b"done",
    );
    let seen = drain(&mut ring);
    let (to_server, from_server) = split(&seen, from_ethernet);
    assert_eq!(to_server.iter().filter(|(_, s)| s.syn).count(), 1);
    assert_eq!(from_server.iter().filter(|(_, s)| s.syn).count(), 1);
    let segments: Vec<_> = to_server.into_iter().map(|(_, s)| s).collect();
    let carried: usize = segments.iter().map(|s| s.payload.len()).sum();
    // What TCP sends again on a busy host is another packet.
    assert!(carried < request.len() * 3 / 2, "{carried}");
    assert!(reassemble(&segments) == request);
}

/// Sends `count` packets of a flow from a to b.
fn send(pair: &Pair, count: u32, source_port: impl Fn(u32) -> u16 + Sync) {
    pair.a.enter(|| {
        let mut sender = Sender::raw(&SenderConfig::default()).unwrap();
        let to = SocketAddr::new(Pair::B4.parse().unwrap(), PORT);
        for i in 0..count {
            let from = SocketAddr::new(Pair::A4.parse().unwrap(), source_port(i));
            let packet = tcp(from, to, i, b"x");
            sender.push(i.into(), to.ip(), |slot| {
                slot[..packet.len()].copy_from_slice(&packet);
                packet.len()
            });
        }
        sender.flush(|failure| panic!("{failure:?}"));
        assert_eq!(sender.counters().packets, u64::from(count));
    });
}

#[test]
fn what_finds_no_room_is_counted() {
    if !ready(&[]) {
        return;
    }
    let pair = Pair::new();
    let mut ring = pair.b.enter(|| {
        let all = Filter::Responses(ResponseFilter {
            sources: vec![ServiceFilter {
                address: Some(Pair::A4.parse().unwrap()),
                port: 5000,
            }],
            snap_len: HEADERS_ONLY,
            whole_ports: Vec::new(),
            exclude: Vec::new(),
        });
        Ring::open(&RingConfig {
            buffer_bytes: 64 << 10,
            snap_len: HEADERS_ONLY,
            ..RingConfig::new("eth0", all)
        })
        .unwrap()
    });
    send(&pair, 2000, |_| 5000);
    let first = ring.statistics().unwrap();
    assert!(first.received > 0 && first.dropped > 0, "{first:?}");
    assert_eq!(first.received + first.dropped, 2000);
    assert_eq!(drain(&mut ring).len() as u64, first.received);
    // The kernel starts from zero at every look; these numbers do not, and the ring goes on.
    send(&pair, 10, |_| 5000);
    assert_eq!(drain(&mut ring).len(), 10);
    let second = ring.statistics().unwrap();
    assert_eq!(second.received, first.received + 10);
    assert_eq!(second.dropped, first.dropped);
}

#[test]
fn a_ring_goes_round_many_times_without_losing_a_packet() {
    if !ready(&[]) {
        return;
    }
    let pair = Pair::new();
    let mut ring = pair.b.enter(|| {
        Ring::open(&RingConfig {
            buffer_bytes: 4 << 20,
            ..RingConfig::new("eth0", service())
        })
        .unwrap()
    });
    let mut sequences = Vec::new();
    for _ in 0..20 {
        send(&pair, 1000, |_| 5000);
        let all = drain(&mut ring);
        sequences.extend(
            all.iter()
                .filter(|f| !f.outgoing)
                .map(|f| from_ethernet(&f.data).sequence),
        );
    }
    let expected: Vec<u32> = (0..20).flat_map(|_| 0..1000).collect();
    assert!(sequences == expected);
}

/// What a ring bridges while nobody reads it: as many short frames as it has slots, over any time,
/// and nearly its buffer's size of long ones.
#[test]
fn a_reader_that_is_away_misses_nothing_that_the_buffer_holds() {
    if !ready(&[]) {
        return;
    }
    let pair = Pair::new();
    let open = |megabytes: usize| {
        let config = RingConfig {
            buffer_bytes: megabytes << 20,
            ..RingConfig::new("eth0", service())
        };
        pair.b.enter(|| Ring::open(&config).unwrap())
    };
    // A trickle: two slots (the packet and the RST that answers it) each millisecond, for a second.
    let mut ring = open(4);
    for _ in 0..1000 {
        send(&pair, 1, |_| 5000);
        std::thread::sleep(Duration::from_millis(1));
    }
    let statistics = ring.statistics().unwrap();
    assert_eq!((statistics.received, statistics.dropped), (2000, 0));
    assert_eq!(drain(&mut ring).len(), 2000);

    // Three quarters of the buffer is for long frames, which the kernel counts with its overhead.
    let mut ring = open(16);
    let request = pattern(8 << 20);
    converse(
        (&pair.a, &pair.b),
        Pair::B4.parse().unwrap(),
        &request,
        b"done",
    );
    assert_eq!(ring.statistics().unwrap().dropped, 0);
    let seen = drain(&mut ring);
    let (to_server, _) = split(&seen, from_ethernet);
    let segments: Vec<_> = to_server.into_iter().map(|(_, s)| s).collect();
    assert!(reassemble(&segments) == request);
}

#[test]
fn connections_are_counted_however_many_frames_a_ring_drops() {
    if !ready(&[]) {
        return;
    }
    let pair = Pair::new();
    let Filter::Services(spec) = service() else {
        panic!("not the services");
    };
    let config = RingConfig {
        devices: ["lo", "eth0"].map(str::to_owned).to_vec(),
        buffer_bytes: 256 << 10,
        ..RingConfig::new("lo", service())
    };
    let connects = Filter::Connects(spec);
    let open = || {
        (
            Ring::open(&config).unwrap(),
            Census::open(&config, &connects).unwrap(),
        )
    };
    let (mut ring, mut census) = pair.b.enter(open);
    for server in [Pair::B4, Pair::B6] {
        for _ in 0..20 {
            let server = server.parse().unwrap();
            converse((&pair.a, &pair.b), server, &pattern(20_000), b"done");
        }
    }
    let loopback = "127.0.0.1".parse().unwrap();
    converse((&pair.b, &pair.b), loopback, &pattern(10), b"done");
    // Data is no beginning, nor is a SYN-ACK.
    send(&pair, 100, |_| 5000);
    assert_eq!(pair.b.enter(|| census.count().unwrap()), 41);
    assert!(ring.statistics().unwrap().dropped > 0);
    let syns = drain(&mut ring)
        .iter()
        .map(|frame| from_ip(&frame.data))
        .filter(|segment| segment.syn && segment.destination.port() == PORT)
        .count();
    assert!(syns < 41, "{syns}");
}

/// A long frame without room keeps its head, and is counted.
#[test]
fn a_long_frame_that_finds_no_room_is_cut_and_counted() {
    if !ready(&[]) {
        return;
    }
    let pair = Pair::new();
    let config = RingConfig {
        buffer_bytes: 1 << 20,
        ..RingConfig::new("eth0", service())
    };
    let mut ring = pair.b.enter(|| Ring::open(&config).unwrap());
    let request = pattern(8 << 20);
    converse(
        (&pair.a, &pair.b),
        Pair::B4.parse().unwrap(),
        &request,
        b"done",
    );
    let seen = drain(&mut ring);
    let (to_server, _) = split(&seen, from_ethernet);
    let cut = to_server
        .iter()
        .filter(|(f, _)| f.data.len() < f.original_len);
    let cut = cut.count() as u64;
    let statistics = ring.statistics().unwrap();
    assert!(cut > 0 || statistics.dropped > 0);
    assert!(statistics.dropped >= cut, "{statistics:?} {cut}");
}

#[test]
fn one_ring_sees_several_devices_as_they_come_and_go() {
    if !ready(&[]) {
        return;
    }
    let pair = Pair::new();
    support::link(&pair.a, "eth1", &pair.b, "eth1");
    support::link(&pair.a, "eth2", &pair.b, "eth2");
    let config = RingConfig {
        devices: ["lo", "eth0", "eth1"].map(str::to_owned).to_vec(),
        ..RingConfig::new("lo", service())
    };
    let mut ring = pair.b.enter(|| Ring::open(&config).unwrap());
    let count = |ring: &mut Ring| {
        drain(ring)
            .iter()
            .map(|frame| from_ip(&frame.data))
            .filter(|segment| segment.destination.port() == PORT)
            .count()
    };
    let server = "127.0.0.1".parse().unwrap();
    converse((&pair.b, &pair.b), server, &pattern(10), b"done");
    let seen = drain(&mut ring);
    let syns = seen.iter().map(|frame| from_ip(&frame.data));
    assert_eq!(syns.filter(|s| s.syn).count(), 2, "each packet of lo once");
    send(&pair, 3, |_| 5000);
    assert_eq!(count(&mut ring), 3);

    // From another device's address, so that the kernel sends through it.
    let through = |device: &str, subnet: u8| {
        let (here, there) = (format!("198.18.{subnet}.1"), format!("198.18.{subnet}.2"));
        support::address(&pair.a, device, &format!("{here}/24"));
        support::address(&pair.b, device, &format!("{there}/24"));
        pair.a.enter(|| {
            let mut sender = Sender::raw(&SenderConfig::default()).unwrap();
            let to = SocketAddr::new(there.parse().unwrap(), PORT);
            let from = SocketAddr::new(here.parse().unwrap(), 5000);
            let packet = tcp(from, to, 1, b"x");
            sender.push(0, to.ip(), |slot| {
                slot[..packet.len()].copy_from_slice(&packet);
                packet.len()
            });
            sender.flush(|failure| panic!("{failure:?}"));
        });
    };
    through("eth1", 11);
    through("eth2", 12);
    assert_eq!(count(&mut ring), 1, "of eth1, which was named");

    pair.b.ip("link del eth1");
    let follow = |ring: &mut Ring| pair.b.enter(|| ring.follow_devices().unwrap());
    assert_eq!(follow(&mut ring), (vec![], vec!["eth1".to_owned()]));
    assert_eq!(follow(&mut ring), (vec![], vec![]));
    support::link(&pair.a, "eth1", &pair.b, "eth1");
    assert_eq!(follow(&mut ring), (vec!["eth1".to_owned()], vec![]));
    through("eth1", 13);
    assert_eq!(count(&mut ring), 1);
    assert!(ring.take_error().is_none());
}

#[test]
fn rings_of_a_group_share_the_traffic_by_flow() {
    if !ready(&[]) {
        return;
    }
    let pair = Pair::new();
    let mut rings: Vec<_> = (0..2)
        .map(|_| {
            let config = RingConfig {
                fanout: Some(Fanout { group: 77 }),
                ..RingConfig::new("eth0", service())
            };
            pair.b.enter(|| Ring::open(&config).unwrap())
        })
        .collect();
    // The target answers each packet with a RST: the other direction of the flow.
    send(&pair, 400, |i| 20_000 + (i % 100) as u16);
    let mut flows: Vec<Vec<(u16, bool)>> = Vec::new();
    for ring in &mut rings {
        let seen = drain(ring);
        let (to_server, from_server) = split(&seen, from_ethernet);
        let to = to_server.iter().map(|(_, s)| (s.source.port(), true));
        let from = from_server
            .iter()
            .map(|(_, s)| (s.destination.port(), false));
        flows.push(to.chain(from).collect());
    }
    let total = |direction| {
        flows
            .iter()
            .flatten()
            .filter(|(_, d)| *d == direction)
            .count()
    };
    assert_eq!(total(true), 400);
    assert_eq!(total(false), 400);
    for port in 20_000..20_100 {
        let rings = flows.iter().filter(|f| f.iter().any(|(p, _)| *p == port));
        assert_eq!(rings.count(), 1, "{port}");
    }
    assert!(flows.iter().all(|f| !f.is_empty()));
}

#[test]
fn tags_on_the_wire_are_told_or_seen_in_the_frame() {
    if !ready(&[]) {
        return;
    }
    let pair = Pair::new();
    let mut ring = pair
        .b
        .enter(|| Ring::open(&RingConfig::new("eth0", service())).unwrap());
    let packet = tcp(
        "198.18.0.1:5000".parse().unwrap(),
        "198.18.0.2:8080".parse().unwrap(),
        1,
        b"tagged",
    );
    let frame = |tags: &[[u8; 4]]| [&[0xff; 12][..], &tags.concat(), &[8, 0], &packet].concat();
    let frames = [
        frame(&[[0x81, 0, 0, 7]]),
        frame(&[[0x88, 0xa8, 0, 9], [0x81, 0, 0, 8]]),
    ];
    pair.a.enter(|| {
        use pnet::datalink::{self, Channel};
        let interfaces = datalink::interfaces();
        let eth0 = interfaces.iter().find(|i| i.name == "eth0").unwrap();
        let channel = datalink::channel(eth0, datalink::Config::default()).unwrap();
        let Channel::Ethernet(mut sender, _) = channel else {
            panic!("no Ethernet channel");
        };
        for frame in &frames {
            sender.send_to(frame, None).unwrap().unwrap();
        }
    });
    let seen = drain(&mut ring);
    assert_eq!(seen.len(), 2);
    // The kernel takes off the outer tag and tells it.
    assert_eq!(seen[0].vlan, Some(7));
    assert_eq!(from_ethernet(&seen[0].data).payload, b"tagged");
    assert_eq!(seen[1].vlan, Some(9));
    assert_eq!(seen[1].data[12..16], [0x81, 0, 0, 8]);
    assert_eq!(from_ip(&seen[1].data[18..]).payload, b"tagged");
}

#[test]
fn a_device_may_go_down_and_away_and_come_back() {
    if !ready(&[]) {
        return;
    }
    let pair = Pair::new();
    let open = || {
        pair.b
            .enter(|| Ring::open(&RingConfig::new("eth0", service())))
    };
    let error = |ring: &Ring| {
        let ready = wait(&[ring.as_fd()], Some(Duration::from_secs(5))).unwrap();
        assert!(ready.is_failed(0));
        ring.take_error().unwrap()
    };
    let mut ring = open().unwrap();
    assert!(ring.take_error().is_none());
    pair.b.ip("link set eth0 down");
    let down = error(&ring);
    assert!(matches!(down, CaptureError::DeviceDown { .. }), "{down}");
    assert!(ring.take_error().is_none());
    pair.b.ip("link set eth0 up");
    send(&pair, 3, |_| 5000);
    assert!(drain(&mut ring).len() >= 3);

    pair.b.ip("link del eth0");
    let removed = error(&ring);
    assert!(
        matches!(removed, CaptureError::DeviceRemoved { .. }),
        "{removed}"
    );
    let missing = open().unwrap_err();
    assert!(
        matches!(missing, CaptureError::NoSuchDevice { .. }),
        "{missing}"
    );
    support::link(&pair.a, "eth0", &pair.b, "eth0");
    support::address(&pair.a, "eth0", "198.18.0.1/24");
    support::address(&pair.b, "eth0", "198.18.0.2/24");
    let mut ring = open().unwrap();
    send(&pair, 3, |_| 5000);
    assert!(drain(&mut ring).len() >= 3);
}

#[test]
fn a_packet_is_handed_over_though_no_other_follows() {
    if !ready(&[]) {
        return;
    }
    let pair = Pair::new();
    let mut ring = pair
        .b
        .enter(|| Ring::open(&RingConfig::new("eth0", service())).unwrap());
    // The first packet has to find the neighbour first.
    send(&pair, 1, |_| 5000);
    drain(&mut ring);
    let start = Instant::now();
    send(&pair, 1, |_| 5000);
    wait(&[ring.as_fd()], Some(Duration::from_secs(5))).unwrap();
    assert_eq!(ring.read(1, |_| {}), 1);
    assert!(start.elapsed() < Duration::from_secs(1));
}

#[test]
fn devices_are_listed_in_the_namespace_of_the_thread() {
    if !ready(&[]) {
        return;
    }
    let pair = Pair::new();
    pair.a.ip("link set eth0 mtu 1400");
    pair.a.enter(|| {
        let all: Vec<_> = Device::list().into_iter().map(|d| d.name).collect();
        assert_eq!(all, ["lo", "eth0"]);
        assert_eq!(Device::mtu("eth0").unwrap(), 1400);
        let carrying = Device::carrying(&[Some(Pair::A6.parse().unwrap())]);
        assert_eq!(carrying.len(), 1);
        assert_eq!(carrying[0].name, "eth0");
        assert!(Device::carrying(&[Some(Pair::B6.parse().unwrap())]).is_empty());
    });
}
