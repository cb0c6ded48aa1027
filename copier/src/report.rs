//! What a run amounts to: printed at the end, written by `--report`, and shown at /status.

mod latency;
mod protocols;
mod shared;
mod text;
mod traces;

pub use latency::{Buckets, Latency, Percentiles, Sides};
pub use protocols::Protocols;
pub use shared::Shared;
pub use traces::Traces;

use std::collections::BTreeMap;

use millrace_capture::{RingStatistics, SendErrorKind};
use millrace_engine::{AbortReason, Owed, RefusalReason, Stats};
use millrace_pilot::IntensityStatus;
use millrace_recordings::inspect::findings::named;
use millrace_recordings::recording::Recording;
use millrace_replay::pressure::PressureStatus;
use millrace_replay::probe::ProbeStatus;
use millrace_replay::snapshot::Snapshot;
use serde::Serialize;

/// Counts by reason or kind; names are those of the metrics.
pub type Counts = BTreeMap<&'static str, u64>;

/// The report. Counts are since the start; latencies are in microseconds.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Seconds since the start.
    pub duration_seconds: f64,
    /// How much is copied, and why.
    pub intensity: IntensityStatus,
    /// The recording, where one is replayed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recording: Option<Recording>,
    /// Why nothing is sent at the moment, or no session begins, where interceptors are the reason, or the copier's own end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_back: Option<String>,
    /// Client connections to the live services.
    pub sessions: Sessions,
    /// Copied connections.
    pub replicas: Replicas,
    /// What protocol modules did.
    pub protocols: Protocols,
    /// Payload of clients.
    pub bytes: Bytes,
    /// Bytes delivered of those that were wanted, captured or known to be missing; 1 when nothing was
    /// wanted.
    pub fidelity: f64,
    /// What the fidelity would be if the frames that capture dropped had carried as much as the others:
    /// the same as [`Report::fidelity`] when nothing was dropped. The true one lies between the two.
    pub fidelity_low: f64,
    /// What is given up under pressure.
    pub pressure: PressureStatus,
    /// Segments and packets.
    pub packets: Packets,
    /// What capture could not deliver.
    pub capture: Capture,
    /// What could not be sent.
    pub send: Send,
    /// How turns found their time.
    pub gate: Gate,
    /// Latencies of turns, live and target side by side.
    pub latency: Latency,
    /// How much later turns were sent than clients sent theirs, but for what the targets took longer than live servers.
    pub turn_lag: Percentiles,
    /// First contact with each target.
    pub targets: Vec<ProbeStatus>,
    /// What became of the spans of sampled sessions.
    pub traces: Traces,
}

/// Sessions.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Sessions {
    /// Captured, all in all.
    pub captured: u64,
    /// Of these, met in their middle and picked up at a turn.
    pub midway: u64,
    /// Whether one to it was seen, whatever became of it: for each service in the order of `-x`, up to the last that was.
    pub seen: Vec<bool>,
    /// Of those captured, begun with TLS, which no target can read a copy of.
    pub encrypted: u64,
    /// How often one was taken up again at a turn, after a capture gap or after it was set aside.
    pub resumed: u64,
    /// How often one was set aside under pressure.
    pub set_aside: u64,
    /// Ended on the live side.
    pub ended: u64,
    /// Cut by the end of their recording.
    pub cut: u64,
    /// Connections met midway that came to no turn from which they could be copied.
    pub unpicked: u64,
    /// Connections whose handshake was not completed.
    pub unopened: u64,
    /// Held at the moment.
    pub open: u64,
    /// Left out by the intensity, counted by their SYN.
    pub unchosen: u64,
    /// Refused, by reason.
    pub refused: Counts,
}

/// Replicas.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Replicas {
    /// Opened.
    pub opened: u64,
    /// Connected to the target.
    pub established: u64,
    /// Whose first SYN the target did not answer in time.
    pub slow_connects: u64,
    /// Targets that fell silent and were stopped until probes had come back, each time.
    pub silent_targets: u64,
    /// Begun from a port that had not rested, since no other was free.
    pub ports_reused_early: u64,
    /// Moved to another source port, since another copier owned their flow.
    pub moved: u64,
    /// Every byte delivered, and ended as the client's connection did.
    pub completed: u64,
    /// Held at the moment.
    pub open: u64,
    /// Of these, waiting for an interceptor or for first contact before they begin.
    pub waiting: u64,
    /// Ended otherwise, by reason.
    pub aborted: Counts,
    /// Of those after a time-out, by what the target owed.
    pub timed_out: Counts,
    /// Not opened, by reason.
    pub refused: Counts,
}

/// Payload bytes.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Bytes {
    /// Sent by clients to live services.
    pub captured: u64,
    /// Of these, each as often as its session is copied: what targets should get.
    pub wanted: u64,
    /// Sent to targets, each once.
    pub sent: u64,
    /// Acknowledged by targets.
    pub delivered: u64,
    /// Sent to targets again.
    pub retransmitted: u64,
    /// Answered by targets.
    pub answered: u64,
    /// Captured and not yet acknowledged by every target.
    pub backlog: u64,
    /// Captured more than once.
    pub repeated: u64,
    /// Of these, with another value; the first copy was taken.
    pub differing: u64,
    /// Of sessions that were not copied: refused, or met in their middle.
    pub refused: u64,
    /// Of captured sessions, and known to be missing from what was captured.
    pub missing: u64,
    /// Of sessions while they were set aside under pressure.
    pub set_aside: u64,
    /// Of sessions that the intensity leaves out.
    pub unchosen: u64,
    /// Of these, of sessions that the intensity given at the start (-r) would have chosen.
    pub left_out: u64,
}

/// Packets.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Packets {
    /// Segments captured from clients.
    pub client_segments: u64,
    /// Segments captured from live servers.
    pub live_segments: u64,
    /// Response headers received from interceptors.
    pub response_headers: u64,
    /// Of these, for replicas that were gone.
    pub response_headers_unknown: u64,
    /// Batches of response headers dropped because this copier was too slow.
    pub response_batches_dropped: u64,
    /// Sent to targets.
    pub sent: u64,
    /// Of these, sent again.
    pub retransmitted: u64,
    /// Retransmission time-outs.
    pub retransmission_timeouts: u64,
    /// Connections that went on after time-outs once their segments were smaller.
    pub black_holes: u64,
    /// Fast retransmissions.
    pub fast_retransmits: u64,
    /// Probes of a closed window.
    pub window_probes: u64,
    /// Connections of an earlier life reset at a target.
    pub stale_connections_reset: u64,
}

/// Capture.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Capture {
    /// Frames that the kernel put into the ring.
    pub received: u64,
    /// Frames that found no room, as a whole or behind their head.
    pub dropped: u64,
    /// SYNs of clients among them: connections that may be in no other count.
    pub syns_lost: u64,
    /// Frames that are not TCP.
    pub not_tcp: u64,
    /// What these were, of a recording.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub others: BTreeMap<String, u64>,
    /// Frames with broken headers.
    pub malformed: u64,
    /// IP fragments.
    pub fragments: u64,
    /// Segments that the snap length cut.
    pub cut: u64,
    /// Segments with a wrong checksum, ignored as their receiver ignores them.
    pub checksum: u64,
    /// Segments of no session that is copied.
    pub unowned: u64,
    /// Segments with implausible sequence numbers.
    pub out_of_window: u64,
    /// Segments that repeat those of connections which were over.
    pub late: u64,
    /// RSTs that did not stand at the next byte: they count once nothing shows the opposite.
    pub resets_doubted: u64,
    /// SYNs with other numbers on open connections.
    pub syns_challenged: u64,
}

/// Sending.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Send {
    /// Packets that the kernel took.
    pub packets: u64,
    /// Bytes that the kernel took, from the IP header on.
    pub bytes: u64,
    /// Packets that it refused, by kind of error.
    pub errors: Counts,
}

/// The gate.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Gate {
    /// Turns sent after an answer as long as the live one.
    pub passed: u64,
    /// Turns sent after a shorter answer had gone quiet.
    pub quiet: u64,
    /// Turns sent although the target had not answered within the bound.
    pub overridden: u64,
    /// Quiet answers that went on after all.
    pub premature: u64,
}

impl Report {
    /// Makes a report of what the shard shows.
    pub fn new(from: &Snapshot<'_>) -> Self {
        let Snapshot { stats, ring, .. } = from;
        let (fidelity, fidelity_low) = fidelity(stats, ring);
        Self {
            duration_seconds: from.elapsed.as_secs_f64(),
            intensity: from.intensity.clone(),
            recording: from.recording.clone().map(|recording| Recording {
                delivered: delivered(stats),
                ..recording
            }),
            held_back: from.held_back.clone(),
            targets: from.probes.clone(),
            sessions: sessions(from),
            replicas: replicas(from),
            protocols: Protocols::of(stats),
            traces: Traces::of(stats),
            bytes: bytes(from),
            fidelity,
            fidelity_low,
            pressure: from.pressure,
            packets: packets(from),
            capture: capture(from),
            send: send(from),
            gate: Gate {
                passed: stats.gate_passed,
                quiet: stats.gate_quiet,
                overridden: stats.gate_overridden,
                premature: stats.gate_premature,
            },
            turn_lag: (&stats.turn_lag).into(),
            latency: Latency {
                first_byte: Sides {
                    live: (&stats.live_latency.first_byte).into(),
                    target: (&stats.target_latency.first_byte).into(),
                },
                last_byte: Sides {
                    live: (&stats.live_latency.last_byte).into(),
                    target: (&stats.target_latency.last_byte).into(),
                },
            },
        }
    }
}

fn sessions(from: &Snapshot<'_>) -> Sessions {
    let stats = from.stats;
    let gauges = &from.gauges;
    Sessions {
        captured: stats.sessions_captured,
        midway: stats.sessions_midway,
        seen: stats.services_seen.clone(),
        encrypted: stats.sessions_encrypted,
        resumed: stats.sessions_resumed,
        set_aside: stats.sessions_set_aside,
        ended: stats.sessions_ended,
        cut: stats.sessions_cut,
        unpicked: stats.sessions_unpicked,
        unopened: stats.sessions_unopened,
        open: gauges.sessions as u64,
        unchosen: stats.sessions_unchosen,
        refused: refusals(&stats.sessions_refused),
    }
}

fn replicas(from: &Snapshot<'_>) -> Replicas {
    let stats = from.stats;
    let gauges = &from.gauges;
    Replicas {
        opened: stats.replicas_opened,
        established: stats.replicas_established,
        slow_connects: stats.slow_connects,
        silent_targets: stats.targets_stopped,
        ports_reused_early: stats.ports_reused_early,
        moved: stats.replicas_moved,
        completed: stats.replicas_completed,
        open: (gauges.replicas - gauges.replicas_lingering) as u64,
        waiting: gauges.replicas_waiting as u64,
        aborted: AbortReason::ALL
            .into_iter()
            .map(|reason| (reason.name(), stats.replicas_aborted.of(reason)))
            .filter(|(_, count)| *count > 0)
            .collect(),
        timed_out: Owed::ALL
            .into_iter()
            .map(|owed| (owed.name(), stats.replicas_timed_out.of(owed)))
            .filter(|(_, count)| *count > 0)
            .collect(),
        refused: refusals(&stats.replicas_refused),
    }
}

fn bytes(from: &Snapshot<'_>) -> Bytes {
    let stats = from.stats;
    let gauges = &from.gauges;
    Bytes {
        captured: stats.bytes_captured,
        wanted: stats.bytes_wanted,
        sent: stats.bytes_sent,
        delivered: stats.bytes_delivered,
        retransmitted: stats.bytes_retransmitted,
        answered: stats.bytes_answered,
        backlog: gauges.backlog,
        repeated: stats.bytes_repeated,
        differing: stats.bytes_differing,
        refused: stats.bytes_refused,
        missing: stats.bytes_missing,
        set_aside: stats.bytes_set_aside,
        unchosen: stats.bytes_unchosen,
        left_out: stats.bytes_left_out,
    }
}

fn packets(from: &Snapshot<'_>) -> Packets {
    let stats = from.stats;
    Packets {
        client_segments: stats.client_segments,
        live_segments: stats.live_segments,
        response_headers: stats.target_headers,
        response_headers_unknown: stats.target_headers_unknown,
        response_batches_dropped: from.dropped_batches,
        sent: stats.packets_sent,
        retransmitted: stats.packets_retransmitted,
        retransmission_timeouts: stats.retransmission_timeouts,
        black_holes: stats.black_holes,
        fast_retransmits: stats.fast_retransmits,
        window_probes: stats.window_probes,
        stale_connections_reset: stats.stale_connections_reset,
    }
}

fn capture(from: &Snapshot<'_>) -> Capture {
    let stats = from.stats;
    let ring = &from.ring;
    let decode = &from.decode;
    Capture {
        received: ring.received + from.answers.received,
        dropped: from.dropped(),
        syns_lost: from.syns_lost,
        not_tcp: decode.not_tcp,
        others: named(from.others),
        malformed: decode.malformed,
        fragments: decode.fragments,
        cut: decode.cut,
        checksum: decode.checksum,
        unowned: stats.segments_unowned,
        out_of_window: stats.segments_out_of_window,
        late: stats.segments_late,
        resets_doubted: stats.resets_doubted,
        syns_challenged: stats.syns_challenged,
    }
}

fn send(from: &Snapshot<'_>) -> Send {
    Send {
        packets: from.send.packets,
        bytes: from.send.bytes,
        errors: SendErrorKind::ALL
            .into_iter()
            .map(|kind| (kind.name(), from.send.failures(kind)))
            .filter(|(_, count)| *count > 0)
            .collect(),
    }
}

/// Bytes delivered of those that were wanted, and the same if what capture dropped had been like what
/// it did not.
fn fidelity(stats: &Stats, ring: &RingStatistics) -> (f64, f64) {
    let with = |missing: f64| {
        let lost = (missing * copies(stats)).ceil() as u64;
        share(stats.bytes_delivered, stats.bytes_wanted + lost)
    };
    let missing = stats.bytes_missing as f64;
    let each = share(stats.bytes_captured, ring.received.max(1));
    // What is known to be missing was among it.
    let dropped = (ring.dropped as f64 * each).max(missing);
    (with(missing), with(dropped))
}

/// How often a captured byte is to be delivered.
fn copies(stats: &Stats) -> f64 {
    match stats.bytes_captured {
        0 => 1.0,
        captured => stats.bytes_wanted as f64 / captured as f64,
    }
}

/// Bytes delivered of all that clients sent in a recording; 0 as long as nothing of it is replayed.
fn delivered(stats: &Stats) -> f64 {
    let met = stats.sessions_captured + stats.sessions_refused.total() + stats.sessions_unpicked;
    if met == 0 {
        return 0.0;
    }
    let wanted = stats.bytes_wanted;
    // What could not be copied at all would have had as many replicas as the rest.
    let copies = copies(stats);
    let lost = stats.bytes_refused + stats.bytes_missing + stats.bytes_left_out;
    // One byte that is not delivered must show, however many there are.
    let lost = (lost as f64 * copies).ceil() as u64;
    share(stats.bytes_delivered, wanted + lost)
}

/// 1 when nothing was wanted.
fn share(part: u64, whole: u64) -> f64 {
    match whole {
        0 => 1.0,
        _ => part as f64 / whole as f64,
    }
}

fn refusals(refusals: &millrace_engine::Refusals) -> Counts {
    RefusalReason::ALL
        .into_iter()
        .map(|reason| (reason.name(), refusals.of(reason)))
        .filter(|(_, count)| *count > 0)
        .collect()
}
