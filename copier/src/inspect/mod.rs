//! `millrace-copier inspect`: what recordings hold, and whether replaying them will be complete.
//!
//! - [`direction`]: one direction of a connection: what there is of its bytes, and what is missing.
//! - [`connection`]: a connection, and which end is the server.
//! - [`table`]: all connections, within a bound, and the services that they add up to.
//! - [`findings`]: what is told, as JSON.
//! - [`text`]: the same for people.

pub mod connection;
pub mod direction;
pub mod findings;
pub mod table;
pub mod text;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

use millrace_capture::file::{Format, linktype};
use millrace_capture::{PacketFile, Source};
use millrace_fleet::exit::ExitError;
use millrace_wire::{Decoder, Verify};

use self::findings::{FileFindings, Findings, InterfaceFindings};
use self::table::Table;
use crate::cli::{self, Arguments};
use crate::offline::timeline::Timeline;

/// Says what recordings hold: services, sessions, bytes, gaps, and whether a replay will be complete.
#[derive(Debug, Clone, clap::Parser)]
#[command(
    name = "millrace-copier-inspect",
    bin_name = "millrace-copier inspect",
    version,
    max_term_width = 100
)]
pub struct InspectOptions {
    /// Recordings: pcap and pcapng files, gzip and zstd too, and - for standard input.
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<String>,

    /// Write JSON instead of text.
    #[arg(long)]
    pub json: bool,

    /// List every service, not only those with the most traffic.
    #[arg(long)]
    pub all: bool,

    /// Read options from FILE (TOML; keys are the long option names).
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// Exit code 64 for the command line, 1 for files of which nothing can be read.
pub fn run(arguments: Arguments) -> Result<(), ExitError> {
    let options: InspectOptions = cli::parse(arguments)?;
    let findings = inspect(&options.files)?;
    let output = if options.json {
        serde_json::to_string_pretty(&findings)
            .map_err(|error| ExitError::caused("cannot write the findings", &error))?
            + "\n"
    } else {
        text::Shown {
            findings: &findings,
            all: options.all,
        }
        .to_string()
    };
    // Whoever reads stdout may have seen enough.
    let _ = std::io::stdout().write_all(output.as_bytes());
    Ok(())
}

/// Reads all of the files, one after the other.
///
/// # Errors
/// A file that cannot be opened or is no recording.
pub fn inspect(files: &[String]) -> Result<Findings, ExitError> {
    let mut table = Table::default();
    let mut decoder = Decoder::new();
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
        malformed_packets: decode.malformed,
        fragments: decode.fragments,
        forgotten_connections: table.forgotten(),
        services: table.into_services(),
        files: found,
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
        if let Ok(segment) = decoder.decode(now, link, packet.data, length, Verify::Nothing) {
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
