//! Counters of everything that a run must account for, and the latencies of turns.

use std::sync::LazyLock;

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

use hdrhistogram::Histogram;

/// Why a replica ended before it was complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum AbortReason {
    /// The target answered the SYN with a RST.
    Refused,
    /// The target reset the connection.
    TargetReset,
    /// The target had closed its side and did not take what the client sent afterwards.
    TargetClosed,
    /// The target did not answer within the answer time-out.
    Timeout,
    /// The live server received bytes that capture did not deliver.
    CaptureGap,
    /// The client sent urgent data, which a replay cannot place exactly.
    Urgent,
    /// No memory was left for the client's bytes.
    Memory,
    /// The copier was under pressure and set the session aside; what it had captured was delivered.
    SetAside,
    /// Nothing was heard of client and live server within the idle time-out.
    Idle,
    /// The copier stopped first.
    Shutdown,
    /// All replicas were stopped, by command or by a guard.
    Stopped,
    /// It waited for first contact, and answers to such clients were not seen.
    Unproven,
    /// Copies came back as live traffic: the way behind the target leads to the live service.
    Misdirected,
    /// A second subflow of multipath TCP joined its connection.
    Mptcp,
    /// The protocol module that plays it could not go on.
    Protocol,
}

impl AbortReason {
    /// Every reason, in the order of their numbers.
    pub const ALL: [Self; 15] = [
        Self::Refused,
        Self::TargetReset,
        Self::TargetClosed,
        Self::Timeout,
        Self::CaptureGap,
        Self::Urgent,
        Self::Memory,
        Self::SetAside,
        Self::Idle,
        Self::Shutdown,
        Self::Stopped,
        Self::Unproven,
        Self::Misdirected,
        Self::Mptcp,
        Self::Protocol,
    ];

    /// The name that reports and metrics use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::TargetReset => "target_reset",
            Self::TargetClosed => "target_closed",
            Self::Timeout => "timeout",
            Self::CaptureGap => "capture_gap",
            Self::Urgent => "urgent",
            Self::Memory => "memory",
            Self::SetAside => "set_aside",
            Self::Idle => "idle",
            Self::Shutdown => "shutdown",
            Self::Stopped => "stopped",
            Self::Unproven => "unproven",
            Self::Misdirected => "misdirected",
            Self::Mptcp => "mptcp",
            Self::Protocol => "protocol",
        }
    }
}

/// What a target owed when its time was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Owed {
    /// The handshake.
    Handshake,
    /// The acknowledgement of what was sent.
    Acknowledgement,
    /// Room in its window for what is to be sent.
    Window,
}

impl Owed {
    /// Everything that can be owed, in the order of the numbers.
    pub const ALL: [Self; 3] = [Self::Handshake, Self::Acknowledgement, Self::Window];

    /// The name that reports and metrics use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::Acknowledgement => "acknowledgement",
            Self::Window => "window",
        }
    }
}

/// Why a session, or one of its replicas, was not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum RefusalReason {
    /// The memory limit was near.
    Memory,
    /// No free source address and port, or none of the target's address family.
    Sources,
    /// The client is on the live host's loopback address and no address stands in for it.
    Loopback,
    /// The copier was draining.
    Draining,
    /// More sessions began in a second than was allowed.
    MaxNewSessions,
    /// As many sessions were open as was allowed.
    MaxOpen,
    /// More bytes waited to be sent than the allowed bandwidth takes in a second.
    MaxBandwidth,
    /// The copier was under pressure.
    Overload,
    /// Answers to clients of its kind were not seen at first contact.
    Unproven,
    /// It comes of a copy: see [`AbortReason::Misdirected`].
    Misdirected,
    /// It joins another connection as a subflow of multipath TCP.
    Mptcp,
    /// The protocol module of its service cannot play it from where it begins.
    Protocol,
}

impl RefusalReason {
    /// Every reason, in the order of their numbers.
    pub const ALL: [Self; 12] = [
        Self::Memory,
        Self::Sources,
        Self::Loopback,
        Self::Draining,
        Self::MaxNewSessions,
        Self::MaxOpen,
        Self::MaxBandwidth,
        Self::Overload,
        Self::Unproven,
        Self::Misdirected,
        Self::Mptcp,
        Self::Protocol,
    ];

    /// The name that reports and metrics use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Sources => "sources",
            Self::Loopback => "loopback",
            Self::Draining => "draining",
            Self::MaxNewSessions => "max_new_sessions",
            Self::MaxOpen => "max_open",
            Self::MaxBandwidth => "max_bandwidth",
            Self::Overload => "overload",
            Self::Unproven => "unproven",
            Self::Misdirected => "misdirected",
            Self::Mptcp => "mptcp",
            Self::Protocol => "protocol",
        }
    }
}

/// A counter for each of `N` reasons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PerReason<const N: usize>([u64; N]);

impl<const N: usize> Default for PerReason<N> {
    fn default() -> Self {
        Self([0; N])
    }
}

impl<const N: usize> PerReason<N> {
    fn count(&mut self, index: usize) {
        if let Some(counter) = self.0.get_mut(index) {
            *counter += 1;
        }
    }

    fn at(&self, index: usize) -> u64 {
        self.0.get(index).copied().unwrap_or(0)
    }

    /// The sum over all reasons.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

/// Aborted replicas by reason.
pub type Aborts = PerReason<{ AbortReason::ALL.len() }>;
/// Refused sessions and replicas by reason.
pub type Refusals = PerReason<{ RefusalReason::ALL.len() }>;
/// Replicas aborted after a time-out ([`AbortReason::Timeout`]) by what the target owed.
pub type Timeouts = PerReason<{ Owed::ALL.len() }>;

impl Aborts {
    /// How many there were for `reason`.
    pub fn of(&self, reason: AbortReason) -> u64 {
        self.at(reason as usize)
    }

    pub(crate) fn add(&mut self, reason: AbortReason) {
        self.count(reason as usize);
    }
}

impl Timeouts {
    /// How many there were for what was owed.
    pub fn of(&self, owed: Owed) -> u64 {
        self.at(owed as usize)
    }

    pub(crate) fn add(&mut self, owed: Owed) {
        self.count(owed as usize);
    }
}

impl Refusals {
    /// How many there were for `reason`.
    pub fn of(&self, reason: RefusalReason) -> u64 {
        self.at(reason as usize)
    }

    pub(crate) fn add(&mut self, reason: RefusalReason) {
        self.count(reason as usize);
    }
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
