//! What is foretold of the replay of a recorded service.

use millrace_engine::{AbortReason, RefusalReason};
use millrace_recordings::inspect::findings::ServiceFindings;
use serde::Serialize;

use crate::report::{Bytes, Replicas, Report, Sessions};

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

/// A service, and what a replay of it would come to.
#[derive(Clone, Debug, Serialize)]
pub struct Service {
    /// What there is of it.
    #[serde(flatten)]
    pub found: ServiceFindings,
    /// What a replay of it would come to.
    pub replay: Option<Foretold>,
    /// Why that is not foretold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replay_unknown: Option<String>,
}

impl Service {
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
            match (self.found.client.cut_packets, self.found.client.missing) {
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
