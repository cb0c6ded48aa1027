//! What is told of a recording.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::Serialize;

use crate::report::{Bytes, Replicas, Report, Sessions};

/// All of it. Times are in seconds; those of sessions count from the first packet.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Findings {
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
    pub services: Vec<ServiceFindings>,
    /// The files, in the order in which they were named.
    pub files: Vec<FileFindings>,
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
    /// What a replay of it would come to; `None`: that was not asked for.
    pub replay: Option<Foretold>,
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

/// What a replay of a service would come to, towards a target that takes everything and answers at once. Counts and
/// their names are those of the copier's report.
#[derive(Clone, Debug, Serialize)]
pub struct Foretold {
    /// All will be delivered as recorded: exit code 0.
    pub complete: bool,
    /// The share of the clients' bytes that will be delivered (`recording.delivered`).
    pub delivered: f64,
    /// What the replay will say when it is not complete.
    pub problem: Option<String>,
    /// Sessions.
    pub sessions: Sessions,
    /// Copied connections, and why they end otherwise than recorded.
    pub replicas: Replicas,
    /// Payload bytes.
    pub bytes: Bytes,
}

impl Foretold {
    /// Takes it from the report of a replay and the judgement on it.
    pub fn new(report: Report, problem: Option<String>) -> Self {
        Self {
            complete: problem.is_none(),
            delivered: report.recording.map_or(0.0, |it| it.delivered),
            problem,
            sessions: report.sessions,
            replicas: report.replicas,
            bytes: report.bytes,
        }
    }
}

impl ServiceFindings {
    /// Its address and port, where `-x` can name them.
    pub fn endpoint(&self) -> Option<SocketAddr> {
        let ip: IpAddr = self.address.parse().ok()?;
        (self.port > 0 && !ip.is_unspecified()).then(|| SocketAddr::new(ip, self.port))
    }

    /// Why a replay of it will not be complete, and what of it will be otherwise than recorded. Empty also where
    /// nothing is foretold.
    pub fn obstacles(&self) -> Vec<String> {
        let Some(foretold) = &self.replay else {
            return Vec::new();
        };
        let Foretold {
            sessions,
            replicas,
            bytes,
            ..
        } = foretold;
        let mut all = Vec::new();
        let mut add = |count: u64, what: &str| {
            if count > 0 {
                all.push(format!("{count} {what}"));
            }
        };
        add(
            bytes.missing,
            match self.client.cut_packets {
                0 => {
                    "bytes of clients are missing (the recorder lost packets, or saw one of two ways)"
                }
                _ => {
                    "bytes of clients are missing (packets were cut: record with a larger snap length, tcpdump -s 0)"
                }
            },
        );
        add(
            sessions.midway,
            "sessions began before the recording: each is replayed from its next request on",
        );
        add(
            sessions.unpicked,
            "sessions began before the recording and came to no request of which the answer before it is known: \
             nothing of them is replayed",
        );
        for (reason, count) in &replicas.aborted {
            add(*count, &ends(reason));
        }
        for (reason, count) in sessions.refused.iter().chain(&replicas.refused) {
            add(*count, &refused(reason));
        }
        if all.is_empty() {
            all.extend(foretold.problem.clone());
        }
        all
    }
}

/// What becomes of copied connections that end for this reason.
fn ends(reason: &str) -> String {
    let why = match reason {
        "capture_gap" => "end where bytes are missing, unless a later request can be told",
        "urgent" => "end where the client sends urgent data, and are reset there",
        "mptcp" => "end where a second subflow of multipath TCP joins",
        "idle" => "end after a silence longer than -k: what follows it is replayed as another one",
        _ => "end otherwise than recorded",
    };
    format!("copied connections {why} (`{reason}`)")
}

/// What becomes of sessions that are refused for this reason.
fn refused(reason: &str) -> String {
    let why = match reason {
        "mptcp" => "are not replayed: they join others as subflows of multipath TCP",
        "memory" => "are not replayed: open sessions fill the memory limit (-m)",
        _ => "are not replayed",
    };
    format!("sessions {why} (`{reason}`)")
}
