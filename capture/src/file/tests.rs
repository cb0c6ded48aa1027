use std::io::{Cursor, Write};

use millrace_wire::LinkType;
use proptest::prelude::*;

use super::*;

/// Interface, time, original length, bytes.
type Packet = (u32, u64, u32, Vec<u8>);

fn read_all(bytes: Vec<u8>) -> (Vec<Packet>, Option<FileError>, Vec<Interface>) {
    let mut packets = Vec::new();
    let mut file = match PacketFile::from_reader("test", Cursor::new(bytes)) {
        Ok(file) => file,
        Err(error) => return (packets, Some(error), Vec::new()),
    };
    let error = loop {
        match file.next_packet() {
            Ok(Some(p)) => packets.push((p.interface, p.timestamp, p.original_len, p.data.into())),
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    assert!(matches!(file.next_packet(), Ok(None)));
    (packets, error, file.interfaces().to_vec())
}

fn written(packets: &[Packet]) -> Vec<u8> {
    let interfaces = [
        ("eth0", LinkType::Ethernet, 0),
        ("any", LinkType::LinuxSll2, 96),
    ];
    let mut writer = PacketWriter::new(Vec::new(), interfaces).unwrap();
    for (interface, time, original, data) in packets {
        writer.packet(*interface, *time, *original, data).unwrap();
    }
    let counts = InterfaceCounts {
        received: packets.len() as u64,
        dropped: 3,
    };
    writer.statistics(1, 5, counts).unwrap();
    let length = writer.written();
    let bytes = writer.into_inner().unwrap();
    assert_eq!(bytes.len() as u64, length);
    bytes
}

/// A pcap file in one of its dialects.
fn pcap(big: bool, nano: bool, modified: bool, packets: &[Packet]) -> Vec<u8> {
    let mut file = Vec::new();
    let put = |file: &mut Vec<u8>, number: u32| {
        file.extend(if big {
            number.to_be_bytes()
        } else {
            number.to_le_bytes()
        });
    };
    let magic = match (nano, modified) {
        (true, _) => 0xa1b2_3c4d,
        (_, true) => 0xa1b2_cd34,
        _ => 0xa1b2_c3d4,
    };
    for number in [magic, 0x0004_0002, 0, 0, 65_535, 1] {
        put(&mut file, number);
    }
    for (_, time, original, data) in packets {
        let fraction = time % 1_000_000_000 / if nano { 1 } else { 1000 };
        put(&mut file, (time / 1_000_000_000) as u32);
        put(&mut file, fraction as u32);
        put(&mut file, data.len() as u32);
        put(&mut file, *original);
        if modified {
            file.extend([0; 8]);
        }
        file.extend(data);
    }
    file
}

fn packets() -> impl Strategy<Value = Vec<Packet>> {
    let bytes = prop::collection::vec(any::<u8>(), 0..200);
    let packet = (0..2u32, 0..4_000_000_000u64, 0..1000u32, bytes).prop_map(
        |(interface, seconds, more, data)| {
            let original = data.len() as u32 + more;
            (interface, seconds * 1_000_000_007, original, data)
        },
    );
    prop::collection::vec(packet, 0..20)
}

#[test]
fn what_interfaces_lost_adds_up_whatever_the_file_claims() {
    let interfaces = [
        ("eth0", LinkType::Ethernet, 0),
        ("eth1", LinkType::Ethernet, 0),
    ];
    for (counts, sum) in [([3, 4], 7), ([u64::MAX, 4], u64::MAX)] {
        let mut writer = PacketWriter::new(Vec::new(), interfaces).unwrap();
        for (interface, dropped) in counts.into_iter().enumerate() {
            let counts = InterfaceCounts {
                received: 0,
                dropped,
            };
            writer.statistics(interface as u32, 5, counts).unwrap();
        }
        let bytes = Cursor::new(writer.into_inner().unwrap());
        let mut file = PacketFile::from_reader("test", bytes).unwrap();
        assert_eq!(file.dropped(), 0, "nothing was read");
        assert!(file.next_packet().unwrap().is_none());
        assert_eq!(file.dropped(), sum);
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(packets in packets()) {
        let (read, error, interfaces) = read_all(written(&packets));
        prop_assert!(error.is_none(), "{error:?}");
        prop_assert_eq!(&read, &packets);
        prop_assert_eq!(interfaces[0].name.as_deref(), Some("eth0"));
        prop_assert_eq!(interfaces[1].dropped, Some(3));
        prop_assert_eq!(interfaces[1].snap_len, 96);
    }

    #[test]
    fn every_dialect_of_pcap_is_read(
        packets in packets(), big: bool, nano: bool, modified: bool,
    ) {
        let modified = modified && !nano;
        let (read, error, _) = read_all(pcap(big, nano, modified, &packets));
        prop_assert!(error.is_none(), "{error:?}");
        let unit = if nano { 1 } else { 1000 };
        let expected: Vec<Packet> = packets
            .iter()
            .map(|(_, time, original, data)| {
                let seconds = u64::from((time / 1_000_000_000) as u32);
                let fraction = time % 1_000_000_000 / unit * unit;
                (0, seconds * 1_000_000_000 + fraction, *original, data.clone())
            })
            .collect();
        prop_assert_eq!(read, expected);
    }

    /// Wherever a file is cut, what stands before the cut is read and the cut is named.
    #[test]
    fn a_file_cut_anywhere_gives_what_stands_before(
        packets in packets(), cut: prop::sample::Index, old: bool,
    ) {
        let whole = if old { pcap(false, true, false, &packets) } else { written(&packets) };
        let cut = cut.index(whole.len() + 1);
        let (read, error, _) = read_all(whole[..cut].to_vec());
        let all: Vec<_> = packets.iter().map(|p| &p.3).collect();
        let some: Vec<_> = read.iter().map(|p| &p.3).collect();
        prop_assert_eq!(&all[..some.len()], &some[..]);
        if cut == whole.len() {
            prop_assert!(error.is_none());
            prop_assert_eq!(all.len(), some.len());
        } else if let Some(error) = error {
            let known = error.is_truncated()
                || matches!(error.problem, Problem::Empty | Problem::NoRecording(_));
            prop_assert!(known, "{}", error);
        }
    }

    /// Bytes that were changed may mean anything, but never more than the file can hold.
    #[test]
    fn a_damaged_file_ends(
        packets in packets(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        old: bool,
    ) {
        let mut bytes = if old { pcap(true, false, false, &packets) } else { written(&packets) };
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let length = bytes.len();
        let (read, _, _) = read_all(bytes);
        prop_assert!(read.iter().map(|p| p.3.len()).sum::<usize>() <= length);
    }

    #[test]
    fn any_bytes_end(
        format in prop::sample::select(vec![
            vec![], vec![0xd4, 0xc3, 0xb2, 0xa1], vec![0x0a, 0x0d, 0x0d, 0x0a],
            vec![0x1f, 0x8b], vec![0x28, 0xb5, 0x2f, 0xfd],
        ]),
        rest in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        let bytes = [format, rest].concat();
        let length = bytes.len();
        prop_assert!(read_all(bytes).0.len() <= length);
    }
}

/// Writes `bytes` to a file of its own.
fn file(name: &str, bytes: &[u8]) -> std::path::PathBuf {
    let path = std::env::temp_dir().join(format!("millrace-{}-{name}", std::process::id()));
    std::fs::write(&path, bytes).unwrap();
    path
}

fn read_path(path: &std::path::Path) -> (usize, Option<FileError>) {
    let mut file = PacketFile::open(&Source::Path(path.to_owned())).unwrap();
    let mut count = 0;
    let error = loop {
        match file.next_packet() {
            Ok(Some(_)) => count += 1,
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    let progress = file.progress();
    if error.is_none() {
        assert_eq!(Some(progress.read()), progress.total());
    }
    std::fs::remove_file(path).unwrap();
    (count, error)
}

#[test]
fn gzip_of_several_members_is_looked_through_and_a_cut_one_is_named() {
    let plain = written(&[(0, 1, 50, vec![7; 50]), (1, 2, 60, vec![8; 60])]);
    let mut packed = Vec::new();
    for half in plain.chunks(plain.len() / 2 + 1) {
        let mut encoder = flate2::write::GzEncoder::new(packed, flate2::Compression::fast());
        encoder.write_all(half).unwrap();
        packed = encoder.finish().unwrap();
    }
    let (count, error) = read_path(&file("two.gz", &packed));
    assert!(error.is_none() && count == 2, "{count} {error:?}");
    let (_, error) = read_path(&file("cut.gz", &packed[..packed.len() - 9]));
    assert!(error.unwrap().is_truncated());
}

#[test]
fn zeros_behind_the_last_packet_or_member_are_padding() {
    let plain = written(&[(0, 1, 50, vec![7; 50]), (1, 2, 60, vec![8; 60])]);
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&plain).unwrap();
    let packed = encoder.finish().unwrap();
    for zeros in [1, 7, 16, 512, 100_000] {
        for (name, bytes) in [("padded.pcapng", &plain), ("padded.gz", &packed)] {
            let padded = [&bytes[..], &vec![0; zeros]].concat();
            let (count, error) = read_path(&file(name, &padded));
            assert!(
                error.is_none() && count == 2,
                "{name} {zeros}: {count} {error:?}"
            );
        }
    }
    // What is not zero is looked at.
    let wrong = [&packed[..], &[0; 20], b"more"].concat();
    assert!(read_path(&file("wrong.gz", &wrong)).1.is_some());
}

#[test]
fn zstd_frames_and_skippable_frames_are_looked_through() {
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};
    let plain = written(&[(0, 1, 50, vec![7; 50]), (1, 2, 60, vec![8; 60])]);
    let mut packed = vec![0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
    for part in plain.chunks(plain.len() / 3 + 1) {
        packed.extend(compress_to_vec(part, CompressionLevel::Fastest));
        packed.extend([0x5f, 0x2a, 0x4d, 0x18, 0, 0, 0, 0]);
    }
    let (count, error) = read_path(&file("frames.zst", &packed));
    assert!(error.is_none() && count == 2, "{count} {error:?}");
}

#[test]
fn xz_streams_are_looked_through_and_may_not_ask_for_any_memory() {
    // `xz -0` of a file with one packet of four bytes.
    const STREAM: &str = "fd377a585a000004e6d6b446020021010c0000008f98419ce0002b001d5d006a30d1c87d8bf8099bad\
        9414bec938600952ae3c1188af9cba2510ca0000000000526e2937d77d460c0001392c7254da1c1fb6f37d010000000004595a";
    let digits = STREAM.as_bytes().chunks(2);
    let digit = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
    let stream: Vec<u8> = digits.map(digit).collect();
    let (count, error) = read_path(&file("one.xz", &stream));
    assert!(error.is_none() && count == 1, "{count} {error:?}");
    // Padding comes in fours.
    let padded = [&stream[..], &[0; 8]].concat();
    let (count, error) = read_path(&file("padded.xz", &padded));
    assert!(error.is_none() && count == 1, "{count} {error:?}");
    for length in 0..stream.len() {
        // Wherever it is cut, or wrong, it is an error or the end, and no panic.
        let mut wrong = stream.clone();
        wrong[length] ^= 0x55;
        for bytes in [&stream[..length], &wrong] {
            let path = Source::Path(file("broken.xz", bytes));
            if let Ok(mut file) = PacketFile::open(&path) {
                while let Ok(Some(_)) = file.next_packet() {}
            }
        }
    }
}

#[test]
fn several_files_are_one_by_time_and_a_broken_one_does_not_stop_the_others() {
    let times = |times: &[u64]| {
        let packets: Vec<Packet> = times.iter().map(|t| (0, *t, 1, vec![*t as u8])).collect();
        written(&packets)
    };
    let mut broken = times(&[3, 4]);
    broken.truncate(broken.len() - 70);
    let files = [times(&[1, 5, 9]), broken, times(&[2, 2, 10])]
        .map(|bytes| PacketFile::from_reader("part", Cursor::new(bytes)).unwrap());
    let mut merged = Merged::new(files.into());
    let mut seen = Vec::new();
    while let Some((file, packet)) = merged.next_packet() {
        seen.push((file, packet.timestamp));
    }
    let expected = [(0, 1), (2, 2), (2, 2), (1, 3), (0, 5), (0, 9), (2, 10)];
    assert_eq!(seen, expected);
    assert_eq!(merged.take_problems().len(), 1);
}

/// Blocks by hand, in big-endian order, with what our own writer never writes: a resolution in
/// powers of two with an offset, simple and obsolete packet blocks, unknown blocks, two sections.
#[test]
fn the_rarer_blocks_of_pcapng_are_read() {
    fn block(kind: u32, body: &[u8]) -> Vec<u8> {
        let length = (12 + body.len().next_multiple_of(4)) as u32;
        let mut block = [kind.to_be_bytes(), length.to_be_bytes()].concat();
        block.extend(body);
        block.resize(length as usize - 4, 0);
        block.extend(length.to_be_bytes());
        block
    }
    let section = block(
        0x0a0d_0d0a,
        &[&0x1a2b_3c4du32.to_be_bytes()[..], &[0, 1, 0, 0], &[0xff; 8]].concat(),
    );
    let interface = block(
        1,
        &[
            &[0, 101, 0, 0, 0, 0, 0, 4][..],
            &[0, 9, 0, 1, 0x81, 0, 0, 0],
            &[0, 14, 0, 8, 0, 0, 0, 0, 0, 0, 0, 100],
        ]
        .concat(),
    );
    let enhanced = block(
        6,
        &[
            &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 9][..],
            b"ab",
        ]
        .concat(),
    );
    let simple = block(3, &[&[0, 0, 0, 9][..], b"abcd"].concat());
    let obsolete = block(
        2,
        &[
            &[0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 3, 0, 0, 0, 3][..],
            b"xyz",
        ]
        .concat(),
    );
    let unknown = block(0x0bad, &[1; 40]);
    let bytes = [
        &section[..],
        &unknown,
        &interface,
        &enhanced,
        &simple,
        &section,
        &interface,
        &obsolete,
    ]
    .concat();
    let (packets, error, interfaces) = read_all(bytes);
    assert!(error.is_none(), "{error:?}");
    let half = 500_000_000;
    let expected = vec![
        (0, 203 * half, 9, b"ab".to_vec()),
        (0, 203 * half, 9, b"abcd".to_vec()),
        (1, 204 * half, 3, b"xyz".to_vec()),
    ];
    assert_eq!(packets, expected);
    assert_eq!(interfaces.len(), 2);
}

#[test]
fn what_is_no_packet_file_is_said_in_one_line() {
    for (bytes, says) in [
        (&b""[..], "empty"),
        (
            b"GET / \x01HTTP/1.1",
            "neither pcap nor pcapng (it begins with 47 45 54 20)",
        ),
        (&[0xd4, 0xc3, 0xb2, 0xa1, 0, 0], "cut short"),
    ] {
        let error = PacketFile::from_reader("name", bytes)
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("name: ") && error.contains(says),
            "{error}"
        );
        assert!(!error.contains('\n'));
    }
}
