//! What recordings hold.
//!
//! - [`direction`]: one direction of a connection: what there is of its bytes, and what is missing.
//! - [`connection`]: a connection, and which end is the server.
//! - [`table`]: all connections, within a bound, and the services that they add up to.
//! - [`findings`]: what is told, as JSON.

pub mod connection;
pub mod direction;
pub mod findings;
pub mod table;

use std::collections::BTreeMap;

use millrace_capture::file::{Format, linktype};
use millrace_capture::{PacketFile, Source};
use millrace_daemon::exit::ExitError;
use millrace_wire::{Decoder, Tunnels, Verify};

use self::findings::{FileFindings, Findings, InterfaceFindings, named};
use self::table::Table;
use crate::timeline::Timeline;

/// Reads all of the files, one after the other.
///
/// # Errors
/// A file that cannot be opened or is no recording.
pub fn inspect(files: &[String], tunnels: Tunnels) -> Result<Findings, ExitError> {
    let mut table = Table::default();
    let mut decoder = Decoder::with_tunnels(tunnels);
    let mut timeline = Timeline::new(None);
    let mut found = Vec::new();
    for name in files {
        found.push(one_file(name, &mut table, &mut decoder, &mut timeline)?);
    }
    let decode = decoder.counters();
    let span = timeline.position().recorded as f64 / 1e9;
    Ok(Findings {
        seconds: span,
        longest_pause_seconds: timeline.longest_seen().as_secs_f64(),
        tcp_packets: decode.segments,
        other_packets: decode.not_tcp,
        others: named(decoder.others()),
        malformed_packets: decode.malformed,
        damaged_packets: decode.checksum,
        fragments: decode.fragments,
        forgotten_connections: table.forgotten(),
        services: table.into_services(),
        files: found,
        replay_options: Vec::new(),
    })
}

fn one_file(
    name: &str,
    table: &mut Table,
    decoder: &mut Decoder,
    timeline: &mut Timeline,
) -> Result<FileFindings, ExitError> {
    let cannot = |error: &dyn std::fmt::Display| ExitError::start(error.to_string());
    let mut file = PacketFile::open(&Source::new(name)).map_err(|error| cannot(&error))?;
    let mut found = FileFindings {
        name: file.name().to_owned(),
        format: match file.format() {
            Format::Pcap => "pcap",
            Format::PcapNg => "pcapng",
        },
        ..FileFindings::default()
    };
    let mut foreign: BTreeMap<String, u64> = BTreeMap::new();
    let result = loop {
        let packet = match file.next_packet() {
            Ok(Some(packet)) => packet,
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        };
        found.packets += 1;
        found.bytes += packet.data.len() as u64;
        found.cut_packets += u64::from((packet.data.len() as u64) < packet.original_len.into());
        let position = timeline.advance(packet.timestamp);
        found
            .first_time
            .get_or_insert(packet.timestamp as f64 / 1e9);
        found.last_time = Some(packet.timestamp as f64 / 1e9);
        let Some(link) = packet.link_type() else {
            *foreign.entry(linktype::name(packet.link)).or_default() += 1;
            continue;
        };
        let length = packet.original_len as usize;
        let now = position.recorded;
        if let Ok(segment) = decoder.decode(now, link, packet.data, length, Verify::AmongRight) {
            table.take(now, &segment);
        }
    };
    found.foreign_packets = foreign;
    found.problem = result.err().map(|error| error.problem.to_string());
    found.interfaces = file
        .interfaces()
        .iter()
        .map(|interface| InterfaceFindings {
            name: interface.name.clone(),
            link_type: linktype::name(interface.link),
            snap_length: interface.snap_len,
            dropped: interface.dropped,
        })
        .collect();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use millrace_wire::Flags;

    use super::*;
    use crate::made_recording;

    const PORT: u16 = 40_000;

    /// A connection as lines of a recording: from the client, flags, sequence number,
    /// acknowledgement, payload bytes.
    type Line = (bool, Flags, u32, u32, usize);

    const WHOLE: [Line; 8] = [
        (true, Flags::SYN, 100, 0, 0),
        (false, Flags(0x12), 500, 101, 0),
        (true, Flags::ACK, 101, 501, 0),
        (true, Flags(0x18), 101, 501, 300),
        (false, Flags(0x18), 501, 401, 1000),
        (true, Flags(0x18), 401, 1501, 50),
        (true, Flags(0x11), 451, 1501, 0),
        (false, Flags(0x11), 1501, 452, 0),
    ];

    fn record(path: &Path, lines: &[Line]) {
        let line =
            |&(from_client, flags, seq, ack, len): &Line| (PORT, from_client, flags, seq, ack, len);
        made_recording::write(path, 1_000_000_000, lines.iter().map(line));
    }

    fn inspected(name: &str, lines: &[Line]) -> Findings {
        let path = std::env::temp_dir().join(format!("millrace-{name}-{}", std::process::id()));
        record(&path, lines);
        let files = [path.display().to_string()];
        let findings = inspect(&files, Tunnels::none()).unwrap();
        std::fs::remove_file(path).unwrap();
        findings
    }

    #[test]
    fn of_a_whole_connection_nothing_is_missing() {
        let findings = inspected("whole", &WHOLE);
        let [service] = findings.services.as_slice() else {
            panic!("{findings:?}");
        };
        assert_eq!(
            (service.address.as_str(), service.port),
            ("198.18.2.10", 80)
        );
        assert_eq!((service.sessions, service.client.bytes), (1, 350));
        assert_eq!(service.server.bytes, 1000);
        assert_eq!((service.without_beginning, service.without_end), (0, 0));
        assert_eq!((service.client.missing, service.server.missing), (0, 0));
        assert_eq!(findings.seconds, 7.0);
    }

    #[test]
    fn lost_repeated_and_disordered_packets_are_told_apart() {
        let mut lines = WHOLE.to_vec();
        lines.remove(3);
        let lost = &inspected("lost", &lines).services[0];
        assert_eq!((lost.client.missing, lost.client.bytes), (300, 50));

        let mut lines = WHOLE.to_vec();
        lines.swap(3, 5);
        lines.insert(6, WHOLE[3]);
        let service = &inspected("disorder", &lines).services[0];
        assert_eq!((service.client.missing, service.client.bytes), (0, 350));
        assert_eq!(
            (service.client.out_of_order, service.client.repeated),
            (1, 300)
        );
    }

    #[test]
    fn what_lies_before_the_recording_or_after_it_is_said() {
        let service = &inspected("middle", &WHOLE[3..6]).services[0];
        assert_eq!((service.without_beginning, service.without_end), (1, 1));
        assert_eq!(service.port, 80);
        let clients: Vec<Line> = WHOLE.iter().copied().filter(|line| line.0).collect();
        let service = &inspected("clients", &clients).services[0];
        assert_eq!((service.without_responses, service.client.bytes), (1, 350));
    }

    #[test]
    fn the_same_ends_again_are_another_connection() {
        let twice = [WHOLE, WHOLE].concat();
        assert_eq!(inspected("twice", &twice).services[0].sessions, 2);
    }
}
