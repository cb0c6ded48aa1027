//! What is packed comes back, and no bytes make a decoder panic.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    unused_crate_dependencies
)]

use std::net::{IpAddr, SocketAddr};

use millrace_proto::flow::{self, FlowRecord, check_flow_ids, check_flows};
use millrace_proto::header::{MAX_HEADER_BYTES, MAX_PAYLOAD_BYTES, MAX_SACK_BLOCKS};
use millrace_proto::{
    ClaimSet, ClientRange, DecodeError, FlowIds, FlowKey, FlowRecords, HeaderRecord, HeaderRecords,
    MixedFamilies, v1,
};
use proptest::prelude::*;

fn pair() -> impl Strategy<Value = (SocketAddr, SocketAddr)> {
    prop_oneof![
        any::<([u8; 4], u16, [u8; 4], u16)>()
            .prop_map(|(a, p, b, q)| (SocketAddr::from((a, p)), SocketAddr::from((b, q)))),
        any::<([u8; 16], u16, [u8; 16], u16)>()
            .prop_map(|(a, p, b, q)| (SocketAddr::from((a, p)), SocketAddr::from((b, q)))),
    ]
}

fn flow_record() -> impl Strategy<Value = FlowRecord> {
    (any::<u64>(), pair(), any::<bool>()).prop_map(|(id, (target, client), with_payload)| {
        FlowRecord {
            id,
            target,
            client,
            with_payload,
        }
    })
}

prop_compose! {
    fn header_record()(
        key in prop_oneof![
            any::<u64>().prop_map(FlowKey::Id),
            pair().prop_map(|(target, client)| FlowKey::Tuple { target, client }),
        ],
        (seq, ack, flags, window, payload_len) in any::<(u32, u32, u8, u16, u32)>(),
        (mss, window_scale, sack_permitted) in any::<(Option<u16>, Option<u8>, bool)>(),
        timestamps in any::<Option<(u32, u32)>>(),
        blocks in prop::collection::vec(any::<(u32, u32)>(), 0..=MAX_SACK_BLOCKS),
    ) -> HeaderRecord {
        let mut sack = [(0, 0); MAX_SACK_BLOCKS];
        sack[..blocks.len()].copy_from_slice(&blocks);
        HeaderRecord {
            key, seq, ack, flags, window, payload_len, mss, window_scale, sack_permitted,
            timestamps, sack, sack_count: blocks.len() as u8,
        }
    }
}

proptest! {
    #[test]
    fn announced_flows_come_back(records in prop::collection::vec(flow_record(), 0..20)) {
        let mut bytes = Vec::new();
        for record in &records {
            record.encode(&mut bytes).unwrap();
        }
        let back: Result<Vec<_>, _> = FlowRecords::new(&bytes).collect();
        prop_assert_eq!(back.unwrap(), records.clone());
        prop_assert_eq!(check_flows(&bytes), Ok(records.len()));
    }

    #[test]
    fn header_records_come_back(records in prop::collection::vec(header_record(), 0..20)) {
        let mut bytes = Vec::new();
        for record in &records {
            let start = bytes.len();
            record.encode(&mut bytes).unwrap();
            prop_assert!(bytes.len() - start <= MAX_HEADER_BYTES);
        }
        let back: Result<Vec<_>, _> =
            HeaderRecords::new(&bytes).map(|it| it.map(|it| (it.header, it.payload))).collect();
        let records: Vec<_> = records.into_iter().map(|it| (it, &[][..])).collect();
        prop_assert_eq!(back.unwrap(), records);
    }

    #[test]
    fn payload_comes_back_as_far_as_a_record_takes_it(
        records in prop::collection::vec((header_record(), 0usize..20_000, 0u32..20_000), 1..5),
    ) {
        let text: Vec<u8> = (0..20_000u32).map(|it| it as u8).collect();
        let (mut bytes, mut expected) = (Vec::new(), Vec::new());
        for (record, len, payload_len) in records {
            let record = HeaderRecord { payload_len, ..record };
            let start = bytes.len();
            record.encode_with(&text[..len], &mut bytes).unwrap();
            let most = len.min(payload_len as usize).min(MAX_PAYLOAD_BYTES);
            prop_assert!(bytes.len() - start <= MAX_HEADER_BYTES + 2 + most);
            expected.push((record, &text[..most]));
        }
        let back: Result<Vec<_>, _> =
            HeaderRecords::new(&bytes).map(|it| it.map(|it| (it.header, it.payload))).collect();
        prop_assert_eq!(back.unwrap(), expected);
    }

    #[test]
    fn forgotten_ids_come_back(ids in prop::collection::vec(any::<u64>(), 0..20)) {
        let mut bytes = Vec::new();
        ids.iter().for_each(|id| flow::encode_flow_id(*id, &mut bytes));
        prop_assert_eq!(FlowIds::new(&bytes).collect::<Result<Vec<_>, _>>().unwrap(), ids.clone());
        prop_assert_eq!(check_flow_ids(&bytes), Ok(ids.len()));
    }

    /// Whatever is accepted is the only way to write it: it encodes to the same bytes.
    #[test]
    fn any_bytes_decode_or_fail_and_accepted_ones_are_canonical(
        bytes in prop::collection::vec(prop_oneof![0u8..16, any::<u8>()], 0..300),
    ) {
        let mut again = Vec::new();
        for record in HeaderRecords::new(&bytes).flatten() {
            record.header.encode_with(record.payload, &mut again).unwrap();
        }
        prop_assert_eq!(&bytes[..again.len()], &again[..]);

        again.clear();
        for record in FlowRecords::new(&bytes).flatten() {
            record.encode(&mut again).unwrap();
        }
        prop_assert_eq!(&bytes[..again.len()], &again[..]);

        let ids = FlowIds::new(&bytes).filter(Result::is_ok).count();
        prop_assert_eq!(ids, bytes.len() / 8);
    }

    #[test]
    fn a_cut_record_is_an_error_and_ends_the_list(
        record in header_record(),
        payload in prop::collection::vec(any::<u8>(), 0..50),
        cut in any::<usize>(),
    ) {
        let mut bytes = Vec::new();
        record.encode_with(&payload, &mut bytes).unwrap();
        bytes.truncate(1 + cut % (bytes.len() - 1));
        let all: Vec<_> = HeaderRecords::new(&bytes).collect();
        prop_assert_eq!(all, vec![Err(DecodeError::Truncated)]);
    }

    #[test]
    fn claims_come_back(
        ranges in prop::collection::vec((pair(), any::<(u16, u16)>()), 0..5),
        targets in prop::collection::vec((pair(), 1u16..), 0..3),
        yields in any::<bool>(),
    ) {
        let order = |a: IpAddr, b: IpAddr| if a <= b { (a, b) } else { (b, a) };
        let ranges: Vec<_> = ranges.iter().map(|((a, b), (p, q))| {
            let (first, last) = order(a.ip(), b.ip());
            ClientRange::new(first, last, *p.min(q), *p.max(q)).unwrap()
        }).collect();
        let claim = ClaimSet {
            without: ranges.iter().rev().take(2).copied().collect(),
            ranges,
            targets: targets.iter().map(|((a, _), port)| SocketAddr::new(a.ip(), *port)).collect(),
            yields,
        };
        prop_assert_eq!(ClaimSet::try_from(&v1::Claim::from(&claim)).unwrap(), claim);
    }

    #[test]
    fn overlap_is_a_shared_client_end(
        (a, b, c, d) in any::<(u8, u8, u8, u8)>(),
        (p, q, r, s) in (0u16..8, 0u16..8, 0u16..8, 0u16..8),
    ) {
        let ip = |n: u8| IpAddr::from([198, 18, 0, n % 8]);
        let range = |x: u8, y: u8, u: u16, v: u16| {
            ClientRange::new(ip(x).min(ip(y)), ip(x).max(ip(y)), u.min(v), u.max(v)).unwrap()
        };
        let (one, two) = (range(a, b, p, q), range(c, d, r, s));
        let shared = (0..8).flat_map(|n| (0..8).map(move |port| SocketAddr::new(ip(n), port)))
            .any(|end| one.contains(end) && two.contains(end));
        prop_assert_eq!(one.overlaps(&two), shared);
    }
}

#[test]
fn a_plain_ack_of_an_announced_flow_takes_24_bytes() {
    let record = HeaderRecord {
        key: FlowKey::Id(0x0102_0304_0506_0708),
        seq: 0x1111_1111,
        ack: 0x2222_2222,
        flags: 0x10,
        window: 0x3333,
        payload_len: 70_000,
        mss: None,
        window_scale: None,
        sack_permitted: false,
        timestamps: None,
        sack: [(0, 0); 4],
        sack_count: 0,
    };
    let mut bytes = Vec::new();
    record.encode(&mut bytes).unwrap();
    let expected = [
        0x00, 0x10, 0x33, 0x33, 1, 2, 3, 4, 5, 6, 7, 8, 0x11, 0x11, 0x11, 0x11, 0x22, 0x22, 0x22,
        0x22, 0, 1, 0x11, 0x70,
    ];
    assert_eq!(bytes, expected);
}

#[test]
fn an_ipv4_flow_record_takes_21_bytes_in_the_documented_order() {
    let record = FlowRecord {
        id: 7,
        target: "198.18.0.1:80".parse().unwrap(),
        client: "198.18.1.2:4660".parse().unwrap(),
        with_payload: false,
    };
    let mut bytes = Vec::new();
    record.encode(&mut bytes).unwrap();
    let mut expected = [
        0, 0, 0, 0, 0, 0, 0, 7, 4, 198, 18, 0, 1, 0, 80, 198, 18, 1, 2, 0x12, 0x34,
    ];
    assert_eq!(bytes, expected);
    let record = FlowRecord {
        with_payload: true,
        ..record
    };
    bytes.clear();
    record.encode(&mut bytes).unwrap();
    expected[8] = 0x84;
    assert_eq!(bytes, expected);
}

#[test]
fn mixed_families_are_refused_and_write_nothing() {
    let (target, client) = (
        "198.18.0.1:80".parse().unwrap(),
        "[2001:db8::1]:9".parse().unwrap(),
    );
    let mut bytes = Vec::new();
    let record = FlowRecord {
        id: 1,
        target,
        client,
        with_payload: false,
    };
    assert_eq!(record.encode(&mut bytes), Err(MixedFamilies));
    assert!(bytes.is_empty());
}

#[test]
fn reserved_bits_families_and_sack_counts_out_of_range_are_refused() {
    for shape in [0x82, 0x02, 0x50, 0x70] {
        let mut bytes = [0u8; 200];
        bytes[0] = shape;
        let first = HeaderRecords::new(&bytes).next();
        assert_eq!(first, Some(Err(DecodeError::Flags(shape))));
    }
    let mut bytes = [0u8; 45];
    bytes[8] = 5;
    assert_eq!(check_flows(&bytes), Err(DecodeError::Family(5)));
    bytes[8] = 0x85;
    assert_eq!(check_flows(&bytes), Err(DecodeError::Family(0x85)));
}

#[test]
fn payload_that_its_segment_cannot_have_is_refused() {
    // A plain ACK with 100 bytes, and so many of them carried.
    for (len, is_right) in [
        (0u16, false),
        (1, true),
        (100, true),
        (101, false),
        (16_385, false),
    ] {
        let mut bytes = vec![0u8; 20_000];
        bytes[0] = 0x80;
        bytes[23] = if len > 101 { 0 } else { 100 };
        bytes[21] = if len > 101 { 1 } else { 0 };
        bytes[24..26].copy_from_slice(&len.to_be_bytes());
        let first = HeaderRecords::new(&bytes).next().unwrap();
        let expected = if is_right {
            Ok(usize::from(len))
        } else {
            Err(DecodeError::PayloadLength(len))
        };
        assert_eq!(first.map(|it| it.payload.len()), expected);
    }
}

#[test]
fn claims_from_the_network_are_checked() {
    let range = |first: &[u8], last: &[u8], port| v1::ClientRange {
        first_ip: first.to_vec().into(),
        last_ip: last.to_vec().into(),
        first_port: 0,
        last_port: port,
    };
    let ok = range(&[198, 18, 0, 1], &[198, 18, 0, 9], 65_535);
    assert!(ClientRange::try_from(&ok).is_ok());
    for bad in [
        range(&[198, 18, 0, 9], &[198, 18, 0, 1], 1),
        range(&[198, 18, 0], &[198, 18, 0], 1),
        range(&[198, 18, 0, 1], &[0; 16], 1),
        range(&[198, 18, 0, 1], &[198, 18, 0, 1], 65_536),
    ] {
        assert!(ClientRange::try_from(&bad).is_err(), "{bad:?}");
    }
}
