//! Counters of everything that a run must account for, and the latencies of turns.

mod reasons;

use std::sync::LazyLock;

use hdrhistogram::Histogram;

pub use self::reasons::{
    AbortReason, Aborts, FailureKind, Failures, Owed, PerReason, Reason, RefusalReason, Refusals,
    Timeouts,
};

/// Bytes that are given up with a stream, or with what lies behind a hole in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct GivenUp {
    /// Captured, and held behind the hole.
    pub(crate) held: u64,
    /// Sent by the client and never captured.
    pub(crate) missing: u64,
}

/// The latency of one turn: from its last byte to the first and the last byte of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TurnLatency {
    /// To the first byte, in microseconds.
    pub(crate) first: u32,
    /// To the last byte, in microseconds.
    pub(crate) last: u32,
}

/// Two significant digits, up to an hour; what takes longer counts as that.
static EMPTY: LazyLock<Histogram<u64>> = LazyLock::new(|| {
    #[expect(
        clippy::expect_used,
        reason = "the bounds and digits are within what the crate demands"
    )]
    Histogram::new_with_max(3_600_000_000, 2).expect("an hour at two significant digits")
});

/// Latencies of turns on one side, in microseconds.
#[derive(Clone, Debug)]
pub struct Latencies {
    /// From the last byte of a turn to the first byte of its answer.
    pub first_byte: Histogram<u64>,
    /// From the last byte of a turn to the last byte of its answer.
    pub last_byte: Histogram<u64>,
}

impl Latencies {
    fn new() -> Self {
        Self {
            first_byte: Histogram::clone(&EMPTY),
            last_byte: Histogram::clone(&EMPTY),
        }
    }

    pub(crate) fn record(&mut self, latency: TurnLatency) {
        self.first_byte.saturating_record(u64::from(latency.first));
        self.last_byte.saturating_record(u64::from(latency.last));
    }
}

/// Everything an engine counts. Counters only grow.
#[derive(Clone, Debug)]
pub struct Stats {
    /// Sessions captured: connections with an acknowledged handshake, or met midway.
    pub sessions_captured: u64,
    /// Of these, sessions met midway and picked up at a turn.
    pub sessions_midway: u64,
    /// Whether a connection to it was seen, whatever became of it: for each service in the order of
    /// [`crate::Config::services`], up to the last that was.
    pub services_seen: Vec<bool>,
    /// Of the captured ones, sessions whose client's first bytes are those of TLS.
    pub sessions_encrypted: u64,
    /// Sessions that have ended on the live side.
    pub sessions_ended: u64,
    /// Connections that the intensity does not choose, counted by their SYN.
    pub sessions_unchosen: u64,
    /// Sessions that were running when their recording ended.
    pub sessions_cut: u64,
    /// Sessions whose copy was broken off by a capture gap, or set aside, and that were taken up again
    /// at a later turn.
    pub sessions_resumed: u64,
    /// Sessions that were set aside while the copier was under pressure.
    pub sessions_set_aside: u64,
    /// Connections whose handshake was not completed.
    pub sessions_unopened: u64,
    /// Connections met midway that came to no turn at which they could be picked up.
    pub sessions_unpicked: u64,
    /// Sessions refused, by reason.
    pub sessions_refused: Refusals,
    /// Replicas opened.
    pub replicas_opened: u64,
    /// Replicas not opened, by reason.
    pub replicas_refused: Refusals,
    /// Replicas to whose target every byte was delivered and that ended as the client did.
    pub replicas_completed: u64,
    /// Replicas that ended otherwise, by reason.
    pub replicas_aborted: Aborts,
    /// Of those after a time-out, by what the target owed.
    pub replicas_timed_out: Timeouts,
    /// Of the aborted ones, those that their protocol module could not play on, by what stopped it.
    pub conversations_failed: Failures,
    /// Requests that protocol modules left out on purpose.
    pub requests_left_out: u64,
    /// Replicas moved to another port because another copier owned their flow.
    pub replicas_moved: u64,
    /// Handshakes completed with targets.
    pub replicas_established: u64,
    /// Handshakes whose first SYN was not answered in time.
    pub slow_connects: u64,
    /// Targets that were stopped since they had fallen silent, each time.
    pub targets_stopped: u64,
    /// Source ports that were given out before their rest was over, since no other was free.
    pub ports_reused_early: u64,

    /// Client payload bytes captured, each once.
    pub bytes_captured: u64,
    /// Of these, each as often as its session was to be copied: what targets should get.
    pub bytes_wanted: u64,
    /// Client payload bytes of sessions whose copy has begun that the live server received, or the
    /// client is known to have sent, and that capture did not deliver, each once.
    pub bytes_missing: u64,
    /// Client payload bytes of sessions that the intensity does not choose.
    pub bytes_unchosen: u64,
    /// Of these, bytes of sessions that [`crate::Config::intensity`] would have chosen.
    pub bytes_left_out: u64,
    /// Client payload bytes of sessions while they were set aside.
    pub bytes_set_aside: u64,
    /// Client payload bytes of sessions that were refused.
    pub bytes_refused: u64,
    /// Payload bytes sent to targets for the first time.
    pub bytes_sent: u64,
    /// Payload bytes sent again.
    pub bytes_retransmitted: u64,
    /// Payload bytes that targets acknowledged.
    pub bytes_delivered: u64,
    /// Client bytes that capture delivered more than once.
    pub bytes_repeated: u64,
    /// Of these, bytes whose value differed; the first copy counted.
    pub bytes_differing: u64,
    /// Payload bytes that targets sent.
    pub bytes_answered: u64,

    /// Segments from clients.
    pub client_segments: u64,
    /// Segments from live servers.
    pub live_segments: u64,
    /// Response headers from targets.
    pub target_headers: u64,
    /// Response headers that belong to no replica (any more).
    pub target_headers_unknown: u64,
    /// Segments that belong to no session that is copied.
    pub segments_unowned: u64,
    /// Segments whose numbers lie outside any plausible window.
    pub segments_out_of_window: u64,
    /// Segments that repeat those of connections which were over.
    pub segments_late: u64,
    /// RSTs of clients and of the live server that did not stand at the next byte (RFC 5961 3.2): most end nothing.
    pub resets_doubted: u64,
    /// SYNs with other numbers on open connections (RFC 5961 4.2).
    pub syns_challenged: u64,
    /// Packets sent to targets.
    pub packets_sent: u64,
    /// Of these, retransmissions of data, SYN or FIN.
    pub packets_retransmitted: u64,
    /// Retransmission time-outs.
    pub retransmission_timeouts: u64,
    /// Times a connection to a target went on after time-outs once its segments were smaller: the way may swallow
    /// long packets, a black hole (RFC 2923 2.1).
    pub black_holes: u64,
    /// Fast retransmissions begun.
    pub fast_retransmits: u64,
    /// Probes of a zero window.
    pub window_probes: u64,
    /// Connections of an earlier life that were reset at a target to make room for a new one.
    pub stale_connections_reset: u64,

    /// Turns that were sent because the target's answer was as long as the live one.
    pub gate_passed: u64,
    /// Turns that were sent because a shorter answer had gone quiet.
    pub gate_quiet: u64,
    /// Turns that were sent although the target had not answered at all within the bound.
    pub gate_overridden: u64,
    /// Quiet answers that went on after all.
    pub gate_premature: u64,

    /// Turns of clients towards live servers whose answer began in time.
    pub live_turns_answered: u64,
    /// Turns of clients towards live servers that waited longer than
    /// [`crate::Config::overdue_after`] for the first byte of an answer, or whose connection ended
    /// without one.
    pub live_turns_overdue: u64,
    /// Turns sent to targets whose answer began in time.
    pub target_turns_answered: u64,
    /// Turns sent to targets that waited too long for an answer, or in vain: as
    /// [`Stats::live_turns_overdue`], and those whose wait the gate gave up.
    pub target_turns_overdue: u64,

    /// Turns and replicas of sampled sessions that were not told, since too much of that waited to be taken.
    pub untold: u64,

    /// Latencies at the live server.
    pub live_latency: Latencies,
    /// Latencies at the target.
    pub target_latency: Latencies,
    /// How much later turns went to targets than clients sent theirs, but for what the targets themselves took longer than
    /// live servers, in microseconds.
    pub turn_lag: Histogram<u64>,
}

impl Stats {
    pub(crate) fn new() -> Self {
        Self {
            sessions_captured: 0,
            sessions_midway: 0,
            services_seen: Vec::new(),
            sessions_encrypted: 0,
            sessions_ended: 0,
            sessions_unchosen: 0,
            sessions_cut: 0,
            sessions_resumed: 0,
            sessions_set_aside: 0,
            sessions_unopened: 0,
            sessions_unpicked: 0,
            sessions_refused: Refusals::default(),
            replicas_opened: 0,
            replicas_refused: Refusals::default(),
            replicas_completed: 0,
            replicas_aborted: Aborts::default(),
            replicas_timed_out: Timeouts::default(),
            conversations_failed: Failures::default(),
            requests_left_out: 0,
            replicas_established: 0,
            slow_connects: 0,
            targets_stopped: 0,
            ports_reused_early: 0,
            replicas_moved: 0,
            bytes_captured: 0,
            bytes_wanted: 0,
            bytes_missing: 0,
            bytes_unchosen: 0,
            bytes_left_out: 0,
            bytes_refused: 0,
            bytes_set_aside: 0,
            bytes_sent: 0,
            bytes_retransmitted: 0,
            bytes_delivered: 0,
            bytes_repeated: 0,
            bytes_differing: 0,
            bytes_answered: 0,
            client_segments: 0,
            live_segments: 0,
            target_headers: 0,
            target_headers_unknown: 0,
            segments_unowned: 0,
            segments_out_of_window: 0,
            segments_late: 0,
            resets_doubted: 0,
            syns_challenged: 0,
            packets_sent: 0,
            packets_retransmitted: 0,
            retransmission_timeouts: 0,
            black_holes: 0,
            fast_retransmits: 0,
            window_probes: 0,
            stale_connections_reset: 0,
            gate_passed: 0,
            gate_quiet: 0,
            gate_overridden: 0,
            gate_premature: 0,
            live_turns_answered: 0,
            live_turns_overdue: 0,
            target_turns_answered: 0,
            target_turns_overdue: 0,
            untold: 0,
            live_latency: Latencies::new(),
            target_latency: Latencies::new(),
            turn_lag: Histogram::clone(&EMPTY),
        }
    }

    /// A connection to this service was seen.
    pub(crate) fn saw(&mut self, service: usize) {
        if self.services_seen.len() <= service {
            self.services_seen.resize(service + 1, false);
        }
        if let Some(seen) = self.services_seen.get_mut(service) {
            *seen = true;
        }
    }

    /// Counts bytes that were given up with a stream that was to be copied so many times.
    pub(crate) fn give_up(&mut self, given_up: GivenUp, copies: u16) {
        self.bytes_captured += given_up.held;
        self.bytes_wanted += given_up.held * u64::from(copies);
        self.bytes_missing += given_up.missing;
    }
}
