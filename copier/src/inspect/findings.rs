//! What is told of a recording.

use std::collections::BTreeMap;

use millrace_engine::{AbortReason, RefusalReason};
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
    /// The options of the replays that are foretold.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub replay_options: Vec<String>,
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
    /// What a replay of it would come to.
    pub replay: Option<Foretold>,
    /// Why that is not foretold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replay_unknown: Option<String>,
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
    /// The replay ends with exit code 0: as much as was asked for (`--min-fidelity`, else everything) is delivered.
    pub complete: bool,
    /// The share of the clients' bytes that is delivered, of those that the replay is to copy (`recording.delivered`).
    pub delivered: f64,
    /// Files that cannot be read to their end.
    pub unread: Vec<String>,
    /// Sessions.
    pub sessions: Sessions,
    /// Copied connections, and why they end otherwise than recorded.
    pub replicas: Replicas,
    /// Payload bytes.
    pub bytes: Bytes,
}

impl Foretold {
    /// Takes it from the report of a replay and the judgement on it.
    pub fn new(report: Report, complete: bool) -> Self {
        let recording = report.recording.unwrap_or_default();
        Self {
            complete,
            delivered: recording.delivered,
            unread: recording.problems,
            sessions: report.sessions,
            replicas: report.replicas,
            bytes: report.bytes,
        }
    }
}

impl ServiceFindings {
    /// What of a replay will be otherwise than recorded, and why. Empty also where nothing is foretold.
    pub fn obstacles(&self) -> Vec<String> {
        let Some(foretold) = &self.replay else {
            return Vec::new();
        };
        let Foretold {
            unread,
            sessions,
            replicas,
            bytes,
            ..
        } = foretold;
        let mut all: Vec<String> = unread.clone();
        let mut add = |count: u64, what: &str| {
            if count > 0 {
                all.push(format!("{count} {what}"));
            }
        };
        add(
            bytes.missing,
            match (self.client.cut_packets, self.client.missing) {
                (0, _) => MISSING,
                (_, 0) => CUT,
                (_, _) => MISSING_AND_CUT,
            },
        );
        add(
            sessions.midway,
            "sessions began before the recording: each is replayed from its next request on",
        );
        add(
            sessions.unpicked,
            "sessions began before the recording, and no request in it is known to be one: nothing of them is replayed",
        );
        add(
            sessions.unopened,
            "connections are not replayed: their handshake was not completed, or nothing of the client was recorded",
        );
        let ends = AbortReason::ALL.map(|reason| (reason.name(), ends(reason)));
        for (reason, what) in ends {
            let count = replicas.aborted.get(reason).copied().unwrap_or(0);
            add(count, &format!("copied connections {what} (`{reason}`)"));
        }
        let refused = RefusalReason::ALL.map(|reason| (reason.name(), refused(reason)));
        for (reason, what) in refused {
            let counts = [&sessions.refused, &replicas.refused];
            let count = counts.iter().filter_map(|counts| counts.get(reason)).sum();
            add(
                count,
                &format!("sessions are not replayed: {what} (`{reason}`)"),
            );
        }
        all
    }
}

const MISSING: &str =
    "bytes of clients are missing (the recorder lost packets, or saw one of two ways)";
const CUT: &str = "bytes of clients are missing (packets were cut: record with a larger snap length, tcpdump -s 0)";
const MISSING_AND_CUT: &str = "bytes of clients are missing (the recorder lost packets, and cut others: record with a \
                               larger snap length, tcpdump -s 0)";

/// What becomes of copied connections that end for this reason.
const fn ends(reason: AbortReason) -> &'static str {
    match reason {
        AbortReason::CaptureGap => "end where bytes are missing; a later request goes on",
        AbortReason::Urgent => "end where the client sends urgent data, and are reset there",
        AbortReason::Mptcp => "end where a second subflow of multipath TCP joins",
        AbortReason::Idle => {
            "end after a silence longer than -k: raise -k, or shorten pauses with -I or -a"
        }
        AbortReason::Memory => "end since the memory limit is reached: raise -m",
        AbortReason::Refused
        | AbortReason::TargetReset
        | AbortReason::TargetClosed
        | AbortReason::Timeout
        | AbortReason::SetAside
        | AbortReason::Shutdown
        | AbortReason::Stopped
        | AbortReason::Unproven
        | AbortReason::Misdirected
        | AbortReason::Protocol => "end otherwise than recorded",
    }
}

/// Why sessions are refused for this reason.
const fn refused(reason: RefusalReason) -> &'static str {
    match reason {
        RefusalReason::Mptcp => "they join others as subflows of multipath TCP",
        RefusalReason::Memory => "open sessions fill the memory limit: raise -m",
        RefusalReason::Sources => {
            "no source address and port is free for them, or none of the target's family"
        }
        RefusalReason::Loopback
        | RefusalReason::Protocol
        | RefusalReason::Draining
        | RefusalReason::MaxNewSessions
        | RefusalReason::MaxOpen
        | RefusalReason::MaxBandwidth
        | RefusalReason::Overload
        | RefusalReason::Unproven
        | RefusalReason::Misdirected => "they are refused",
    }
}
