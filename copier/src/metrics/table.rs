//! Every figure of the report that is a metric: where it stands in the report, its name, and what it says.
//!
//! What is counted is written once here and once where it is counted; /metrics is made from this
//! table, docs/metrics.md is compared with it, and a test names every figure of the report that it lacks.

/// What kind of metric a figure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A sum since the start.
    Counter,
    /// Such sums, each with a label `reason`.
    Reasons,
    /// A level.
    Gauge,
}

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Metric {
    pub(super) kind: Kind,
    /// Where it stands in the report (RFC 6901).
    pub(super) path: &'static str,
    /// Its name, behind `millrace_copier_`; a counter gets `_total` behind it.
    pub(super) name: &'static str,
    pub(super) help: &'static str,
}

const fn counter(path: &'static str, name: &'static str, help: &'static str) -> Metric {
    let kind = Kind::Counter;
    Metric {
        kind,
        path,
        name,
        help,
    }
}

const fn reasons(path: &'static str, name: &'static str, help: &'static str) -> Metric {
    let kind = Kind::Reasons;
    Metric {
        kind,
        path,
        name,
        help,
    }
}

const fn gauge(path: &'static str, name: &'static str, help: &'static str) -> Metric {
    let kind = Kind::Gauge;
    Metric {
        kind,
        path,
        name,
        help,
    }
}

/// The table.
pub(super) const METRICS: &[Metric] = &[
    counter(
        "/sessions/captured",
        "sessions_captured",
        "Client sessions captured",
    ),
    counter(
        "/sessions/midway",
        "sessions_midway",
        "Sessions picked up in their middle",
    ),
    counter(
        "/sessions/encrypted",
        "sessions_encrypted",
        "Sessions that begin with TLS, which no target can read a copy of",
    ),
    counter(
        "/sessions/resumed",
        "sessions_resumed",
        "Sessions taken up again at a turn, after a capture gap or after they were set aside",
    ),
    counter(
        "/sessions/set_aside",
        "sessions_set_aside",
        "Sessions set aside under pressure",
    ),
    counter(
        "/sessions/cut",
        "sessions_cut",
        "Sessions cut by the end of their recording",
    ),
    counter(
        "/sessions/unpicked",
        "sessions_unpicked",
        "Connections met in their middle and never picked up",
    ),
    counter(
        "/sessions/unopened",
        "sessions_unopened",
        "Connections whose handshake was not completed",
    ),
    counter(
        "/sessions/ended",
        "sessions_ended",
        "Sessions ended on the live side",
    ),
    counter(
        "/sessions/unchosen",
        "sessions_unchosen",
        "Sessions that the intensity leaves out",
    ),
    reasons("/sessions/refused", "sessions_refused", "Sessions refused"),
    gauge("/sessions/open", "sessions_open", "Sessions held"),
    counter(
        "/replicas/opened",
        "replicas_opened",
        "Copied connections opened",
    ),
    counter(
        "/replicas/established",
        "replicas_established",
        "Copied connections connected",
    ),
    counter(
        "/replicas/slow_connects",
        "slow_connects",
        "Copied connections whose first SYN was not answered in time",
    ),
    counter(
        "/replicas/silent_targets",
        "silent_targets",
        "Targets that fell silent and were stopped until probes had come back",
    ),
    counter(
        "/replicas/ports_reused_early",
        "ports_reused_early",
        "Source ports used again before their rest was over",
    ),
    counter(
        "/replicas/completed",
        "replicas_completed",
        "Copied connections completed",
    ),
    counter(
        "/replicas/moved",
        "replicas_moved",
        "Copied connections moved to another port",
    ),
    reasons(
        "/replicas/aborted",
        "replicas_aborted",
        "Copied connections aborted",
    ),
    reasons(
        "/replicas/timed_out",
        "replicas_timed_out",
        "Copied connections aborted after a time-out, by what the target owed",
    ),
    reasons(
        "/protocols/failed",
        "protocol_failures",
        "Copied connections that their protocol module could not play on",
    ),
    counter(
        "/protocols/left_out",
        "requests_left_out",
        "Requests that protocol modules left out on purpose",
    ),
    reasons(
        "/replicas/refused",
        "replicas_refused",
        "Copied connections not opened",
    ),
    gauge("/replicas/open", "replicas_open", "Copied connections held"),
    gauge(
        "/replicas/waiting",
        "replicas_waiting",
        "Copied connections that wait for an interceptor or for first contact",
    ),
    counter(
        "/bytes/captured",
        "captured_bytes",
        "Client payload captured",
    ),
    counter(
        "/bytes/wanted",
        "wanted_bytes",
        "Client payload captured, as often as it is to be copied",
    ),
    counter(
        "/bytes/unchosen",
        "unchosen_bytes",
        "Payload of sessions that the intensity leaves out",
    ),
    counter(
        "/bytes/sent",
        "sent_bytes",
        "Payload sent to targets, each byte once",
    ),
    counter(
        "/bytes/delivered",
        "delivered_bytes",
        "Payload acknowledged by targets",
    ),
    counter(
        "/bytes/retransmitted",
        "retransmitted_bytes",
        "Payload sent again",
    ),
    counter(
        "/bytes/answered",
        "answered_bytes",
        "Payload answered by targets",
    ),
    counter(
        "/bytes/repeated",
        "repeated_bytes",
        "Payload captured more than once",
    ),
    counter(
        "/bytes/differing",
        "differing_bytes",
        "Payload repeated with another value",
    ),
    counter(
        "/bytes/refused",
        "refused_bytes",
        "Payload of sessions that are not copied",
    ),
    counter(
        "/bytes/set_aside",
        "set_aside_bytes",
        "Payload of sessions while they were set aside",
    ),
    counter(
        "/bytes/missing",
        "missing_bytes",
        "Payload of copied sessions that capture lost",
    ),
    gauge(
        "/bytes/backlog",
        "backlog_bytes",
        "Captured and not yet delivered",
    ),
    counter(
        "/bytes/left_out",
        "left_out_bytes",
        "Of the payload of sessions that the intensity leaves out: of sessions that -r as given at the start would have chosen",
    ),
    counter(
        "/packets/client_segments",
        "client_segments",
        "Segments from clients",
    ),
    counter(
        "/packets/live_segments",
        "live_segments",
        "Segments from live servers",
    ),
    counter(
        "/packets/response_headers",
        "response_headers",
        "Response headers",
    ),
    counter(
        "/packets/response_headers_unknown",
        "response_headers_unknown",
        "Response headers for replicas that are gone",
    ),
    counter(
        "/packets/response_batches_dropped",
        "response_batches_dropped",
        "Batches of response headers dropped because the copier was too slow",
    ),
    counter("/packets/sent", "packets_sent", "Packets sent to targets"),
    counter(
        "/packets/retransmitted",
        "packets_retransmitted",
        "Packets sent again",
    ),
    counter(
        "/packets/retransmission_timeouts",
        "retransmission_timeouts",
        "Time-outs",
    ),
    counter(
        "/packets/black_holes",
        "black_holes",
        "Times a copied connection went on after time-outs once its packets were smaller",
    ),
    counter(
        "/packets/fast_retransmits",
        "fast_retransmits",
        "Fast retransmissions",
    ),
    counter(
        "/packets/window_probes",
        "window_probes",
        "Probes of a closed window",
    ),
    counter(
        "/packets/stale_connections_reset",
        "stale_connections_reset",
        "Connections of an earlier run that were reset at a target",
    ),
    counter("/capture/received", "capture_received", "Frames captured"),
    counter(
        "/capture/dropped",
        "capture_dropped",
        "Frames that found no room",
    ),
    counter(
        "/capture/syns_lost",
        "capture_syns_lost",
        "SYNs of clients that found no room",
    ),
    counter(
        "/capture/malformed",
        "capture_malformed",
        "Frames with broken headers",
    ),
    counter(
        "/capture/cut",
        "capture_cut",
        "Segments cut by the snap length",
    ),
    counter(
        "/capture/checksum",
        "capture_checksum",
        "Segments with a wrong checksum",
    ),
    counter(
        "/capture/unowned",
        "capture_unowned",
        "Segments of sessions not copied",
    ),
    counter(
        "/capture/not_tcp",
        "capture_not_tcp",
        "Frames that are not TCP",
    ),
    counter("/capture/fragments", "capture_fragments", "IP fragments"),
    counter(
        "/capture/out_of_window",
        "capture_out_of_window",
        "Segments that no live server would have taken: beyond its window, or acknowledging what it never sent",
    ),
    counter(
        "/capture/late",
        "capture_late",
        "Segments that repeat those of connections which were over",
    ),
    counter(
        "/capture/resets_doubted",
        "capture_resets_doubted",
        "RSTs that did not stand at the next byte",
    ),
    counter(
        "/capture/syns_challenged",
        "capture_syns_challenged",
        "SYNs with other numbers on open connections",
    ),
    reasons(
        "/send/errors",
        "send_errors",
        "Packets that could not be sent",
    ),
    counter(
        "/send/packets",
        "send_packets",
        "Packets that the kernel took, probes and repetitions included",
    ),
    counter(
        "/send/bytes",
        "send_bytes",
        "Bytes of these, from the IP header on",
    ),
    counter(
        "/gate/passed",
        "gate_passed",
        "Turns sent after a full answer",
    ),
    counter(
        "/gate/quiet",
        "gate_quiet",
        "Turns sent after a quiet answer",
    ),
    counter(
        "/gate/overridden",
        "gate_overridden",
        "Turns sent without an answer",
    ),
    counter(
        "/gate/premature",
        "gate_premature",
        "Quiet answers that went on",
    ),
    gauge(
        "/pressure/admitted",
        "admitted_ratio",
        "New sessions admitted under pressure",
    ),
    gauge(
        "/pressure/kept",
        "kept_ratio",
        "Open sessions kept under pressure",
    ),
    counter(
        "/pressure/steps",
        "pressure_steps",
        "How often more was given up under pressure",
    ),
    gauge(
        "/pressure/cpu_percent",
        "cpu_percent",
        "CPU time, in percent of one core",
    ),
    gauge("/pressure/memory", "memory_bytes", "Memory in use"),
    counter(
        "/traces/exported",
        "spans_exported",
        "Spans of sampled sessions that the collector took",
    ),
    counter(
        "/traces/dropped",
        "spans_dropped",
        "Spans that were not sent: too many waited, or the copier ended first",
    ),
    counter(
        "/traces/rejected",
        "spans_rejected",
        "Spans that the collector refused",
    ),
    gauge(
        "/fidelity_low",
        "fidelity_low_ratio",
        "The fidelity if dropped frames were like the others",
    ),
    gauge("/fidelity", "fidelity_ratio", "Delivered / wanted"),
];
