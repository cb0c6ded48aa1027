//! Packet files.

use std::io::Cursor;

use millrace_capture::file::{InterfaceCounts, Merged, PacketFile, PacketWriter};

/// A packet as the promises need it.
type Packet = (u64, u32, Vec<u8>);

/// Reads one or two files and writes what they hold again.
///
/// The first byte says where the second file begins, in 256ths of the rest; 0: there is none.
pub fn packet_files(data: &[u8]) {
    let Some((split, rest)) = data.split_first() else {
        return;
    };
    let (first, second) = rest.split_at(rest.len() * usize::from(*split) / 256);
    let files: Vec<PacketFile> = [first, second]
        .into_iter()
        .filter_map(|bytes| PacketFile::from_reader("input", Cursor::new(bytes.to_vec())).ok())
        .collect();
    let mut merged = Merged::new(files);
    let mut packets = Vec::new();
    let mut bytes = 0;
    while let Some((_, packet)) = merged.next_packet() {
        bytes += packet.data.len();
        assert!(
            packet.data.len() <= packet.original_len as usize,
            "more than there was"
        );
        if packet.link_type().is_some() {
            packets.push((packet.timestamp, packet.original_len, packet.data.to_vec()));
        }
    }
    assert!(bytes <= rest.len(), "bytes from nowhere");
    assert!(merged.next_packet().is_none(), "an end that is none");
    assert_eq!(packets, written_and_read(&packets));
}

fn written_and_read(packets: &[Packet]) -> Vec<Packet> {
    let interfaces = [("fuzz", millrace_wire::LinkType::Ethernet, 0)];
    let file = PacketWriter::new(Vec::new(), interfaces).and_then(|mut writer| {
        for (timestamp, original, data) in packets {
            writer.packet(0, *timestamp, *original, data)?;
        }
        writer.statistics(0, 0, InterfaceCounts::default())?;
        writer.into_inner()
    });
    let Ok(file) = file else {
        return Vec::new();
    };
    let mut found = Vec::new();
    let Ok(mut file) = PacketFile::from_reader("written", Cursor::new(file)) else {
        return found;
    };
    while let Ok(Some(packet)) = file.next_packet() {
        found.push((packet.timestamp, packet.original_len, packet.data.to_vec()));
    }
    found
}
