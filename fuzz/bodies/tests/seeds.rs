//! Writes the inputs that fuzzing starts from: `cargo test -p millrace-fuzz-bodies --test seeds -- --ignored`.
//! Their names begin with `seed-`; other files of a corpus were found by a fuzzer.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    missing_docs,
    unused_crate_dependencies
)]

mod files;
mod modules;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use millrace_fuzz_bodies::BODIES;
use millrace_proto::v1::{self, copier_message, interceptor_message};
use millrace_proto::{ClaimSet, ClientRange, FlowKey, FlowRecord, HeaderRecord};
use millrace_wire::{
    Endpoint, Flags, FourTuple, PacketBuilder, SackBlocks, Seq, TcpHeader, TcpOptions,
};
use prost::Message;

/// Raw IP, and Ethernet, as the bodies number link types.
const RAW: u8 = 1;
const ETHERNET: u8 = 0;

#[test]
#[ignore = "writes into the source tree"]
fn write_seeds() {
    for (target, seeds) in all() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../corpus")
            .join(target);
        std::fs::create_dir_all(&directory).unwrap();
        for (name, bytes) in seeds {
            std::fs::write(directory.join(format!("seed-{name}")), bytes).unwrap();
        }
    }
}

#[test]
fn seeds_break_no_promise() {
    for (target, seeds) in all() {
        let (_, body) = BODIES.iter().find(|(name, _)| *name == target).unwrap();
        for (name, bytes) in seeds {
            let outcome = std::panic::catch_unwind(|| body(&bytes));
            assert!(outcome.is_ok(), "seed-{name} breaks {target}");
        }
    }
}

type Seeds = Vec<(String, Vec<u8>)>;

fn all() -> [(&'static str, Seeds); 5] {
    [
        ("wire_decode", wire()),
        ("capture_to_engine", engine()),
        ("protocol_modules", modules::seeds()),
        ("proto_messages", proto()),
        ("packet_files", files::seeds()),
    ]
}

fn tuple(v6: bool) -> FourTuple {
    let ip = |last: u8| -> IpAddr {
        if v6 {
            Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last.into()).into()
        } else {
            Ipv4Addr::new(198, 18, 0, last).into()
        }
    };
    FourTuple::new(Endpoint::new(ip(1), 40_000), Endpoint::new(ip(10), 80))
}

fn packet(v6: bool, flags: Flags, options: TcpOptions, payload: &[u8]) -> Vec<u8> {
    let header = TcpHeader {
        seq: Seq(u32::MAX - 2),
        ack: Seq(7),
        flags,
        window: 65_000,
        urgent: 0,
        options,
    };
    let mut out = vec![0; 65_535];
    let len = PacketBuilder::new()
        .build(&tuple(v6), &header, [payload, &[]], &mut out)
        .unwrap();
    out.truncate(len);
    out
}

fn frame(link: u8, flags: u8, bytes: &[u8]) -> Vec<u8> {
    let len = u16::try_from(bytes.len()).unwrap().to_be_bytes();
    [&[link, flags, len[0], len[1]], bytes].concat()
}

fn wire() -> Seeds {
    let mut seeds = Seeds::new();
    let mut sack = SackBlocks::EMPTY;
    sack.push(Seq(100), Seq(200));
    sack.push(Seq(300), Seq(400));
    let sets = [
        ("plain", TcpOptions::default()),
        (
            "syn",
            TcpOptions {
                mss: Some(1460),
                window_scale: Some(7),
                sack_permitted: true,
                timestamps: Some((1, 2)),
                ..TcpOptions::default()
            },
        ),
        (
            "sack",
            TcpOptions {
                timestamps: Some((1, 2)),
                sack,
                ..TcpOptions::default()
            },
        ),
    ];
    for v6 in [false, true] {
        let family = if v6 { "v6" } else { "v4" };
        for (name, options) in sets {
            let bytes = packet(v6, Flags::ACK, options, b"GET / HTTP/1.1\r\n\r\n");
            seeds.push((format!("{family}-{name}"), frame(RAW, 1, &bytes)));
        }
        let bytes = packet(v6, Flags::ACK, TcpOptions::default(), &[7; 40]);
        let (ethertype, family_number) = if v6 {
            ([0x86, 0xdd], 10)
        } else {
            ([0x08, 0x00], 2)
        };
        let ethernet = [&[2; 12][..], &ethertype, &bytes].concat();
        let tagged = [&[2; 12][..], &[0x81, 0, 0, 5], &ethertype, &bytes].concat();
        let qinq = [
            &[2; 12][..],
            &[0x88, 0xa8, 0, 5, 0x81, 0, 0, 6],
            &ethertype,
            &bytes,
        ]
        .concat();
        let sll = [&[0; 14][..], &ethertype, &bytes].concat();
        let sll2 = [&ethertype[..], &[0; 18], &bytes].concat();
        let null = [&[family_number, 0, 0, 0][..], &bytes].concat();
        let looped = [&[0, 0, 0, family_number][..], &bytes].concat();
        for (name, link, bytes) in [
            ("ethernet", ETHERNET, &ethernet),
            ("vlan", ETHERNET, &tagged),
            ("qinq", ETHERNET, &qinq),
            ("sll", 2, &sll),
            ("sll2", 3, &sll2),
            ("null", 4, &null),
            ("loop", 5, &looped),
        ] {
            seeds.push((format!("{family}-{name}"), frame(link, 0, bytes)));
        }
        seeds.push((
            format!("{family}-vxlan"),
            frame(ETHERNET, 0, &vxlan(&ethernet)),
        ));
        let mut cut = frame(RAW, 2, &bytes);
        cut.truncate(4 + bytes.len() - 30);
        seeds.push((format!("{family}-cut"), cut));
    }
    seeds.push(("v4-fragments".to_owned(), fragments_v4()));
    seeds.push(("v6-fragments".to_owned(), fragments_v6()));
    seeds.push(("v6-jumbogram".to_owned(), jumbogram()));
    let mut super_packet = packet(false, Flags::ACK, TcpOptions::default(), &[3; 3000]);
    super_packet[2..4].copy_from_slice(&[0, 0]);
    seeds.push(("v4-length-zero".to_owned(), frame(RAW, 0, &super_packet)));
    seeds
}

fn vxlan(inner: &[u8]) -> Vec<u8> {
    let datagram = [
        &[0x30, 0x39, 0x12, 0xb5, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 1, 0][..],
        inner,
    ]
    .concat();
    let total = u16::try_from(20 + datagram.len()).unwrap().to_be_bytes();
    [
        &[2; 12][..],
        &[
            0x08, 0x00, 0x45, 0, total[0], total[1], 0, 0, 0, 0, 64, 17, 0, 0,
        ],
        &[198, 18, 1, 1, 198, 18, 1, 2],
        &datagram,
    ]
    .concat()
}

fn fragments_v4() -> Vec<u8> {
    let whole = packet(false, Flags::ACK, TcpOptions::default(), &[9; 100]);
    let mut out = Vec::new();
    let body: Vec<&[u8]> = whole[20..].chunks(64).collect();
    for (i, piece) in body.iter().enumerate().rev() {
        let mut fragment = whole[..20].to_vec();
        let more = if i + 1 < body.len() { 0x2000 } else { 0 };
        let field = u16::try_from(i * 8).unwrap() | more;
        fragment[6..8].copy_from_slice(&field.to_be_bytes());
        let total = u16::try_from(20 + piece.len()).unwrap();
        fragment[2..4].copy_from_slice(&total.to_be_bytes());
        fragment.extend(*piece);
        out.extend(frame(RAW, 1, &fragment));
    }
    out
}

fn fragments_v6() -> Vec<u8> {
    let whole = packet(true, Flags::ACK, TcpOptions::default(), &[9; 100]);
    let mut out = Vec::new();
    let body: Vec<&[u8]> = whole[40..].chunks(64).collect();
    for (i, piece) in body.iter().enumerate() {
        let mut fragment = whole[..40].to_vec();
        fragment[6] = 60;
        fragment.extend([44, 0, 1, 4, 0, 0, 0, 0, 6, 0]);
        let more = u16::from(i + 1 < body.len());
        fragment.extend((u16::try_from(i * 64).unwrap() | more).to_be_bytes());
        fragment.extend(77u32.to_be_bytes());
        fragment.extend(*piece);
        let length = u16::try_from(fragment.len() - 40).unwrap();
        fragment[4..6].copy_from_slice(&length.to_be_bytes());
        out.extend(frame(RAW, 1, &fragment));
    }
    out
}

fn jumbogram() -> Vec<u8> {
    let mut whole = packet(true, Flags::ACK, TcpOptions::default(), &[5; 100]);
    let body = whole.split_off(40);
    whole[4..6].copy_from_slice(&[0, 0]);
    whole[6] = 0;
    whole.extend([6, 0, 0xc2, 4]);
    whole.extend(u32::try_from(body.len() + 8).unwrap().to_be_bytes());
    whole.extend(body);
    frame(RAW, 0, &whole)
}

/// Steps of `capture_to_engine`.
const SYN: u8 = 0x02;
const FIN: u8 = 0x11;
const RST: u8 = 0x14;
const ACK: u8 = 0x10;

fn client(connection: u8, flags: u8, len: u16) -> Vec<u8> {
    let len = len.to_be_bytes();
    vec![1, connection, flags, 0, 0, len[0], len[1]]
}

fn live(connection: u8, flags: u8, len: u16) -> Vec<u8> {
    let mut step = client(connection, flags, len);
    step[0] = 2;
    step
}

fn polite(flow: u8, what: u8, len: u8) -> Vec<u8> {
    vec![4, flow, what, len]
}

fn wait(micros: u16, shift: u8) -> Vec<u8> {
    let micros = micros.to_be_bytes();
    vec![5, micros[0], micros[1], shift]
}

fn handshake(connection: u8, flow: u8) -> Vec<u8> {
    [
        client(connection, SYN, 0),
        live(connection, SYN | ACK, 0),
        client(connection, ACK, 0),
        polite(flow, 0, 0),
    ]
    .concat()
}

fn turn(connection: u8, flow: u8) -> Vec<u8> {
    [
        client(connection, ACK, 300),
        wait(300, 0),
        live(connection, ACK, 900),
        client(connection, ACK, 0),
        polite(flow, 0, 56),
        wait(2000, 4),
    ]
    .concat()
}

fn engine() -> Seeds {
    let start = |flags: u8, sizes: u8| vec![flags, sizes, 0];
    let one = |flags, sizes, rest: &[Vec<u8>]| [start(flags, sizes), rest.concat()].concat();
    let mut seeds = vec![
        (
            "whole-session",
            one(
                0,
                0,
                &[
                    handshake(0, 0),
                    turn(0, 0),
                    turn(0, 0),
                    client(0, FIN, 0),
                    live(0, FIN, 0),
                    polite(0, 8, 0),
                    wait(1000, 12),
                ],
            ),
        ),
        (
            "three-replicas-from-a-pool",
            one(
                0x21,
                0,
                &[
                    handshake(0, 0),
                    polite(1, 0, 0),
                    polite(2, 3, 0),
                    turn(0, 0),
                    polite(1, 0, 56),
                    polite(2, 0, 1),
                    client(0, FIN, 0),
                    wait(1000, 10),
                ],
            ),
        ),
        (
            "two-families",
            one(
                0,
                2,
                &[handshake(0, 0), handshake(3, 1), turn(3, 1), turn(0, 0)],
            ),
        ),
        (
            "loopback-client",
            one(0, 0, &[handshake(5, 0), turn(5, 0), client(5, RST, 0)]),
        ),
        (
            "midway",
            one(
                0,
                0,
                &[
                    client(0, ACK, 100),
                    live(0, ACK, 200),
                    client(0, ACK, 100),
                    polite(0, 0, 0),
                    live(0, ACK, 200),
                    client(0, ACK, 500),
                    polite(0, 0, 10),
                ],
            ),
        ),
        (
            "reused-port",
            one(
                0,
                0,
                &[
                    handshake(0, 0),
                    turn(0, 0),
                    client(0, SYN, 0),
                    live(0, SYN | ACK, 0),
                    client(0, ACK, 50),
                    polite(0, 0, 0),
                    polite(1, 0, 0),
                ],
            ),
        ),
        (
            "no-answer-at-all",
            one(
                4,
                0,
                &[
                    client(0, SYN, 0),
                    live(0, SYN | ACK, 0),
                    client(0, ACK, 4000),
                    vec![6, 6, 6, 6, 6, 6, 6, 6],
                ],
            ),
        ),
        (
            "refused-by-the-target",
            one(
                0,
                0,
                &[
                    client(0, SYN, 0),
                    live(0, SYN | ACK, 0),
                    client(0, ACK, 0),
                    vec![3, 0, 0, 0, 0, RST, 0, 0, 0, 0],
                ],
            ),
        ),
        (
            "zero-window-and-sack",
            one(
                0,
                1,
                &[
                    handshake(0, 0),
                    client(0, ACK, 4000),
                    vec![3, 0, 8, 0, 0x9c, ACK, 0, 0, 0, 0, 2, 10, 10, 20, 10, 30, 10],
                    vec![3, 0, 8, 0, 0x9c, ACK, 0, 0, 0, 0, 0, 10, 10],
                    wait(0xffff, 8),
                    vec![3, 0, 0, 0, 0, ACK, 0xff, 0xff, 0, 0],
                ],
            ),
        ),
        (
            "capture-gap",
            one(
                0,
                0,
                &[
                    handshake(0, 0),
                    vec![1, 0, ACK, 100, 0, 1, 0],
                    vec![2, 0, ACK, 0, 0, 0, 0],
                    wait(0xffff, 6),
                ],
            ),
        ),
        (
            "path-too-small-and-shutdown",
            one(
                0,
                3,
                &[
                    handshake(0, 0),
                    client(0, ACK, 4000),
                    vec![7, 3, 0x05, 0xdc, 0],
                    wait(1000, 8),
                    vec![7, 2],
                ],
            ),
        ),
        (
            "closed-then-open",
            [
                vec![0, 0, 3],
                client(0, SYN, 0),
                live(0, SYN | ACK, 0),
                client(0, ACK, 700),
                wait(1000, 8),
                vec![7, 5],
                wait(1000, 8),
                polite(0, 0, 0),
            ]
            .concat(),
        ),
        ("memory-limit", memory_limit()),
    ]
    .into_iter()
    .map(|(name, bytes)| (name.to_owned(), bytes))
    .collect::<Seeds>();
    for (name, bytes) in wire() {
        // The same frames, as the engine's first step.
        let mut input = start(0, 0);
        input.extend([0, bytes[0]]);
        input.extend(&bytes[2..]);
        seeds.push((format!("frame-{name}"), input));
    }
    seeds
}

/// More bytes than the engine may hold, while the target says nothing.
fn memory_limit() -> Vec<u8> {
    let mut bytes = [
        vec![4, 0, 0],
        handshake(0, 0),
        handshake(1, 1),
        handshake(2, 2),
    ]
    .concat();
    for _ in 0..110 {
        for connection in 0..3 {
            bytes.extend(client(connection, ACK, 4095));
        }
    }
    bytes
}

/// The engine's sessions, in which clients log in and targets accept that, or do not.
fn proto() -> Seeds {
    let address = |text: &str| -> SocketAddr { text.parse().unwrap() };
    let v4 = (address("198.18.0.1:80"), address("198.18.1.2:4660"));
    let v6 = (address("[2001:db8::1]:80"), address("[2001:db8::2]:4660"));
    let mut seeds = Seeds::new();
    let mut flows = Vec::new();
    for (id, (target, client)) in [(1, v4), (u64::MAX, v6)] {
        let record = FlowRecord {
            id,
            target,
            client,
            with_payload: id > 1,
        };
        record.encode(&mut flows).unwrap();
    }
    let ids = [1u64.to_be_bytes(), u64::MAX.to_be_bytes()].concat();
    let records = header_records(v4, v6);
    seeds.push(("flows".to_owned(), [&[0], flows.as_slice()].concat()));
    seeds.push(("flow-ids".to_owned(), [&[1], ids.as_slice()].concat()));
    for (i, bytes) in records.iter().enumerate() {
        seeds.push((format!("header-{i}"), [&[2], bytes.as_slice()].concat()));
    }
    seeds.push((
        "headers".to_owned(),
        [&[2], records.concat().as_slice()].concat(),
    ));
    let range = |first: &str, last: &str| {
        ClientRange::new(first.parse().unwrap(), last.parse().unwrap(), 1024, 65_535).unwrap()
    };
    let claim = ClaimSet {
        ranges: vec![
            range("198.18.1.0", "198.18.1.255"),
            range("2001:db8::", "2001:db8::ff"),
        ],
        targets: vec![v4.0, v6.0],
        ..ClaimSet::default()
    };
    use copier_message::Kind as Up;
    let hello = v1::Hello {
        protocol_version: 1,
        copier_id: "live-1".to_owned(),
        incarnation: 5,
        started_at_ms: 1_700_000_000_000,
        link: 0,
        links: 2,
        claims: true,
    };
    let up = [
        ("hello", Up::Hello(hello)),
        (
            "announce",
            Up::Announce(v1::Announce {
                flows: flows.into(),
            }),
        ),
        (
            "forget",
            Up::Forget(v1::Forget {
                flow_ids: ids.into(),
            }),
        ),
        ("claim", Up::Claim((&claim).into())),
        ("resync-begin", Up::ResyncBegin(v1::ResyncBegin {})),
        ("resync-end", Up::ResyncEnd(v1::ResyncEnd {})),
        ("ping", Up::Ping(v1::Ping { nonce: 9 })),
    ];
    for (name, kind) in up {
        let bytes = v1::CopierMessage { kind: Some(kind) }.encode_to_vec();
        seeds.push((format!("up-{name}"), [&[3], bytes.as_slice()].concat()));
    }
    use interceptor_message::Kind as Down;
    let down = [
        (
            "welcome",
            Down::Welcome(v1::Welcome {
                protocol_version: 1,
                interceptor_id: "rs1".to_owned(),
                incarnation: 6,
                limits: Some(v1::Limits {
                    max_message_bytes: 131_072,
                    max_bytes_per_second: 1 << 26,
                }),
                carries_payload: true,
            }),
        ),
        (
            "headers",
            Down::Headers(v1::Headers {
                count: u32::try_from(records.len()).unwrap(),
                records: records.concat().into(),
                dropped: 3,
                ready_at: 7,
            }),
        ),
        (
            "refused",
            Down::Refused(v1::Refused {
                code: 3,
                reason: "a part of the claim belongs to live-2".to_owned(),
                owner: "live-2".to_owned(),
            }),
        ),
        ("pong", Down::Pong(v1::Pong { nonce: 9 })),
    ];
    for (name, kind) in down {
        let bytes = v1::InterceptorMessage { kind: Some(kind) }.encode_to_vec();
        seeds.push((format!("down-{name}"), [&[4], bytes.as_slice()].concat()));
    }
    seeds
}

fn header_records(v4: (SocketAddr, SocketAddr), v6: (SocketAddr, SocketAddr)) -> Vec<Vec<u8>> {
    let plain = HeaderRecord {
        key: FlowKey::Id(7),
        seq: u32::MAX,
        ack: 1,
        flags: ACK,
        window: 500,
        payload_len: 70_000,
        mss: None,
        window_scale: None,
        sack_permitted: false,
        timestamps: None,
        sack: [(0, 0); 4],
        sack_count: 0,
    };
    let tuple = |(target, client)| FlowKey::Tuple { target, client };
    let records = [
        plain,
        HeaderRecord {
            key: tuple(v4),
            timestamps: Some((1, 2)),
            ..plain
        },
        HeaderRecord {
            key: tuple(v6),
            flags: SYN | ACK,
            mss: Some(1440),
            window_scale: Some(7),
            sack_permitted: true,
            timestamps: Some((1, 0)),
            ..plain
        },
        HeaderRecord {
            sack: [(1, 2), (3, 4), (5, 6), (7, 8)],
            sack_count: 4,
            ..plain
        },
    ];
    records
        .iter()
        .map(|record| {
            let mut bytes = Vec::new();
            let payload: &[u8] = match record.timestamps {
                Some(_) => b"HTTP/1.1 200 OK",
                None => &[],
            };
            record.encode_with(payload, &mut bytes).unwrap();
            bytes
        })
        .collect()
}
