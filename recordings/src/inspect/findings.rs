//! What is told of a recording.

use std::collections::BTreeMap;

use millrace_wire::NotTcp;
use serde::Serialize;

/// All of it. Times are in seconds; those of sessions count from the first packet. `S`: what is told of a service.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Findings<S = ServiceFindings> {
    /// From the first packet to the last.
    pub seconds: f64,
    /// The longest pause between two packets.
    pub longest_pause_seconds: f64,
    /// TCP segments.
    pub tcp_packets: u64,
    /// Packets that are not TCP.
    pub other_packets: u64,
    /// What these were.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub others: BTreeMap<String, u64>,
    /// Packets with broken or cut headers.
    pub malformed_packets: u64,
    /// TCP segments with a wrong checksum among right ones of the same sender: left out, as their receiver left them
    /// out.
    #[serde(default)]
    pub damaged_packets: u64,
    /// IP fragments.
    pub fragments: u64,
    /// Connections that were counted before their end, because too many were open at once.
    pub forgotten_connections: u64,
    /// What was spoken to, most bytes first.
    pub services: Vec<S>,
    /// The files, in the order in which they were named.
    pub files: Vec<FileFindings>,
    /// The options of the replays that are foretold.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub replay_options: Vec<String>,
}

impl<S> Findings<S> {
    /// The same findings, with something else told of each service.
    pub fn with_services<T>(self, tell: impl FnMut(S) -> T) -> Findings<T> {
        Findings {
            seconds: self.seconds,
            longest_pause_seconds: self.longest_pause_seconds,
            tcp_packets: self.tcp_packets,
            other_packets: self.other_packets,
            others: self.others,
            malformed_packets: self.malformed_packets,
            damaged_packets: self.damaged_packets,
            fragments: self.fragments,
            forgotten_connections: self.forgotten_connections,
            services: self.services.into_iter().map(tell).collect(),
            files: self.files,
            replay_options: self.replay_options,
        }
    }
}

/// What is not TCP, by name.
pub fn named(others: &BTreeMap<NotTcp, u64>) -> BTreeMap<String, u64> {
    let named = others
        .iter()
        .map(|(kind, count)| (kind.to_string(), *count));
    named.collect()
}

/// A file.
#[derive(Clone, Debug, Default, Serialize)]
pub struct FileFindings {
    /// Its name.
    pub name: String,
    /// pcap or pcapng.
    pub format: &'static str,
    /// Packets.
    pub packets: u64,
    /// Bytes captured.
    pub bytes: u64,
    /// Packets of which less was kept than they had.
    pub cut_packets: u64,
    /// Time of its first packet, in seconds since 1970.
    pub first_time: Option<f64>,
    /// Time of its last packet.
    pub last_time: Option<f64>,
    /// Packets of link types that are not understood, by link type.
    pub foreign_packets: BTreeMap<String, u64>,
    /// Where they were captured.
    pub interfaces: Vec<InterfaceFindings>,
    /// Why it could not be read to its end.
    pub problem: Option<String>,
}

/// An interface of a file.
#[derive(Clone, Debug, Default, Serialize)]
pub struct InterfaceFindings {
    /// Its name, if the file says.
    pub name: Option<String>,
    /// Its link type.
    pub link_type: String,
    /// The most bytes kept of a packet; 0: all.
    pub snap_length: u32,
    /// Packets that capture lost, if the file says.
    pub dropped: Option<u64>,
}

/// A service.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ServiceFindings {
    /// The server's address.
    pub address: String,
    /// Its port.
    pub port: u16,
    /// Connections.
    pub sessions: u64,
    /// Of these, connections that were open before the recording began.
    pub without_beginning: u64,
    /// Connections still open when it ended.
    pub without_end: u64,
    /// Connections that one side reset.
    pub reset: u64,
    /// Connections that the server refused.
    pub refused: u64,
    /// Connections of which nothing from the client was recorded.
    pub without_client: u64,
    /// Connections of which nothing from the server was recorded.
    pub without_responses: u64,
    /// Connections of which bytes of the client are missing or were cut.
    pub incomplete: u64,
    /// Connections in which the client sent urgent data.
    pub urgent: u64,
    /// Subflows of multipath TCP that join other connections.
    pub joining: u64,
    /// From clients to the server.
    pub client: Side,
    /// From the server to clients.
    pub server: Side,
    /// When the first of them was seen.
    pub first_seconds: f64,
    /// When the last was.
    pub last_seconds: f64,
}

/// One direction of a service.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Side {
    /// Packets.
    pub packets: u64,
    /// Payload bytes, each once.
    pub bytes: u64,
    /// Payload bytes recorded again: retransmitted, or seen on two devices.
    pub repeated: u64,
    /// Packets that came behind a hole.
    pub out_of_order: u64,
    /// Packets of which less was kept than they had.
    pub cut_packets: u64,
    /// Payload bytes that were sent and not recorded.
    pub missing: u64,
}
