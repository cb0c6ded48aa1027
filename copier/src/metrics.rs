//! The report as Prometheus metrics: `millrace_copier_<what>_<unit>`.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::agents::Agents;
use crate::probe::ProbeState;
use crate::report::Shared;
use crate::report::{Counts, Percentiles, Report};

/// Collects from the latest report whenever it is asked.
#[derive(Debug)]
struct ReportCollector(Shared, Agents);

/// A registry with all metrics of the copier.
pub fn registry(shared: Shared, agents: Agents) -> Registry {
    let mut registry = Registry::with_prefix("millrace_copier");
    registry.register_collector(Box::new(ReportCollector(shared, agents)));
    registry
}

impl Collector for ReportCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let report = self.0.report();
        let mut out = Output(&mut encoder);
        out.counters(&report)?;
        out.gauges(&report)?;
        out.targets(&report)?;
        out.latencies(&report)?;
        out.agents(&self.1)
    }
}

struct Output<'a, 'b>(&'a mut DescriptorEncoder<'b>);

impl Output<'_, '_> {
    fn counters(&mut self, report: &Report) -> Result<(), std::fmt::Error> {
        let Report {
            sessions,
            replicas,
            bytes,
            packets,
            capture,
            send,
            gate,
            ..
        } = report;
        self.counter(
            "sessions_captured",
            "Client sessions captured",
            sessions.captured,
        )?;
        self.counter(
            "sessions_midway",
            "Sessions picked up in their middle",
            sessions.midway,
        )?;
        self.counter(
            "sessions_encrypted",
            "Sessions that begin with TLS, which no target can read a copy of",
            sessions.encrypted,
        )?;
        self.counter(
            "sessions_resumed",
            "Sessions taken up again at a turn, after a capture gap or after they were set aside",
            sessions.resumed,
        )?;
        self.counter(
            "sessions_set_aside",
            "Sessions set aside under pressure",
            sessions.set_aside,
        )?;
        self.counter(
            "sessions_cut",
            "Sessions cut by the end of their recording",
            sessions.cut,
        )?;
        self.counter(
            "sessions_unpicked",
            "Connections met in their middle and never picked up",
            sessions.unpicked,
        )?;
        self.counter(
            "sessions_unopened",
            "Connections whose handshake was not completed",
            sessions.unopened,
        )?;
        self.counter(
            "sessions_ended",
            "Sessions ended on the live side",
            sessions.ended,
        )?;
        self.counter(
            "sessions_unchosen",
            "Sessions that the intensity leaves out",
            sessions.unchosen,
        )?;
        self.by_reason("sessions_refused", "Sessions refused", &sessions.refused)?;
        self.counter(
            "replicas_opened",
            "Copied connections opened",
            replicas.opened,
        )?;
        self.counter(
            "replicas_established",
            "Copied connections connected",
            replicas.established,
        )?;
        self.counter(
            "slow_connects",
            "Copied connections whose first SYN was not answered in time",
            replicas.slow_connects,
        )?;
        self.counter(
            "silent_targets",
            "Targets that fell silent and were stopped until probes had come back",
            replicas.silent_targets,
        )?;
        self.counter(
            "ports_reused_early",
            "Source ports used again before their rest was over",
            replicas.ports_reused_early,
        )?;
        self.counter(
            "replicas_completed",
            "Copied connections completed",
            replicas.completed,
        )?;
        self.counter(
            "replicas_moved",
            "Copied connections moved to another port",
            replicas.moved,
        )?;
        self.by_reason(
            "replicas_aborted",
            "Copied connections aborted",
            &replicas.aborted,
        )?;
        self.by_reason(
            "replicas_refused",
            "Copied connections not opened",
            &replicas.refused,
        )?;
        self.counter("captured_bytes", "Client payload captured", bytes.captured)?;
        self.counter(
            "wanted_bytes",
            "Client payload captured, as often as it is to be copied",
            bytes.wanted,
        )?;
        self.counter(
            "unchosen_bytes",
            "Payload of sessions that the intensity leaves out",
            bytes.unchosen,
        )?;
        self.counter(
            "sent_bytes",
            "Payload sent to targets, each byte once",
            bytes.sent,
        )?;
        self.counter(
            "delivered_bytes",
            "Payload acknowledged by targets",
            bytes.delivered,
        )?;
        self.counter(
            "retransmitted_bytes",
            "Payload sent again",
            bytes.retransmitted,
        )?;
        self.counter(
            "answered_bytes",
            "Payload answered by targets",
            bytes.answered,
        )?;
        self.counter(
            "repeated_bytes",
            "Payload captured more than once",
            bytes.repeated,
        )?;
        self.counter(
            "differing_bytes",
            "Payload repeated with another value",
            bytes.differing,
        )?;
        self.counter(
            "refused_bytes",
            "Payload of sessions that are not copied",
            bytes.refused,
        )?;
        self.counter(
            "set_aside_bytes",
            "Payload of sessions while they were set aside",
            bytes.set_aside,
        )?;
        self.counter(
            "missing_bytes",
            "Payload of copied sessions that capture lost",
            bytes.missing,
        )?;
        self.counter(
            "client_segments",
            "Segments from clients",
            packets.client_segments,
        )?;
        self.counter(
            "live_segments",
            "Segments from live servers",
            packets.live_segments,
        )?;
        self.counter(
            "response_headers",
            "Response headers",
            packets.response_headers,
        )?;
        self.counter(
            "response_headers_unknown",
            "Response headers for replicas that are gone",
            packets.response_headers_unknown,
        )?;
        self.counter(
            "response_batches_dropped",
            "Batches of response headers dropped because the copier was too slow",
            packets.response_batches_dropped,
        )?;
        self.counter("packets_sent", "Packets sent to targets", packets.sent)?;
        self.counter(
            "packets_retransmitted",
            "Packets sent again",
            packets.retransmitted,
        )?;
        self.counter(
            "retransmission_timeouts",
            "Time-outs",
            packets.retransmission_timeouts,
        )?;
        self.counter(
            "fast_retransmits",
            "Fast retransmissions",
            packets.fast_retransmits,
        )?;
        self.counter(
            "window_probes",
            "Probes of a closed window",
            packets.window_probes,
        )?;
        self.counter("capture_received", "Frames captured", capture.received)?;
        self.counter(
            "capture_dropped",
            "Frames that found no room",
            capture.dropped,
        )?;
        self.counter(
            "capture_syns_lost",
            "SYNs of clients that found no room",
            capture.syns_lost,
        )?;
        self.counter(
            "capture_malformed",
            "Frames with broken headers",
            capture.malformed,
        )?;
        self.counter(
            "capture_cut",
            "Segments cut by the snap length",
            capture.cut,
        )?;
        self.counter(
            "capture_checksum",
            "Segments with a wrong checksum",
            capture.checksum,
        )?;
        self.counter(
            "capture_unowned",
            "Segments of sessions not copied",
            capture.unowned,
        )?;
        self.by_reason(
            "send_errors",
            "Packets that could not be sent",
            &send.errors,
        )?;
        self.counter("gate_passed", "Turns sent after a full answer", gate.passed)?;
        self.counter("gate_quiet", "Turns sent after a quiet answer", gate.quiet)?;
        self.counter(
            "gate_overridden",
            "Turns sent without an answer",
            gate.overridden,
        )?;
        self.counter(
            "gate_premature",
            "Quiet answers that went on",
            gate.premature,
        )
    }

    fn gauges(&mut self, report: &Report) -> Result<(), std::fmt::Error> {
        self.gauge(
            "sessions_open",
            "Sessions held",
            report.sessions.open as f64,
        )?;
        self.gauge(
            "replicas_open",
            "Copied connections held",
            report.replicas.open as f64,
        )?;
        self.gauge(
            "replicas_waiting",
            "Copied connections that wait for an interceptor or for first contact",
            report.replicas.waiting as f64,
        )?;
        self.gauge(
            "backlog_bytes",
            "Captured and not yet delivered",
            report.bytes.backlog as f64,
        )?;
        self.gauge(
            "intensity_ratio",
            "Copied connections for each session that begins now",
            report.intensity.now * f64::from(report.intensity.factor),
        )?;
        self.gauge(
            "guards_broken",
            "Guards whose rule is broken",
            report.intensity.guards.iter().filter(|g| g.broken).count() as f64,
        )?;
        let pressure = &report.pressure;
        self.gauge(
            "admitted_ratio",
            "New sessions admitted under pressure",
            pressure.admitted,
        )?;
        self.gauge(
            "kept_ratio",
            "Open sessions kept under pressure",
            pressure.kept,
        )?;
        self.gauge(
            "lag_seconds",
            "How long captured packets wait",
            pressure.lag_ms / 1e3,
        )?;
        self.gauge(
            "fidelity_low_ratio",
            "The fidelity if dropped frames were like the others",
            report.fidelity_low,
        )?;
        self.gauge("fidelity_ratio", "Delivered / wanted", report.fidelity)
    }

    fn targets(&mut self, report: &Report) -> Result<(), std::fmt::Error> {
        let mut encoder = self.0.encode_descriptor(
            "target_open",
            "Whether probes came back from the target, so that sessions are replayed",
            None,
            MetricType::Gauge,
        )?;
        for target in &report.targets {
            let open = f64::from(u8::from(target.state == ProbeState::Open));
            let labels = [("target", target.target.as_str())];
            ConstGauge::new(open).encode(encoder.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn latencies(&mut self, report: &Report) -> Result<(), std::fmt::Error> {
        let first = &report.latency.first_byte;
        let last = &report.latency.last_byte;
        let mut encoder = self.0.encode_descriptor(
            "turn_latency_seconds",
            "Latency of answers, by byte, side and quantile",
            None,
            MetricType::Gauge,
        )?;
        for (byte, sides) in [("first", first), ("last", last)] {
            for (side, values) in [("live", &sides.live), ("target", &sides.target)] {
                quantiles(&mut encoder, byte, side, values)?;
            }
        }
        let mut encoder = self.0.encode_descriptor(
            "turn_lag_seconds",
            "How much later turns are sent than clients send theirs, beyond what targets take longer",
            None,
            MetricType::Gauge,
        )?;
        for (quantile, micros) in report.turn_lag.quantiles() {
            let labels = [("quantile", quantile)];
            ConstGauge::new(micros as f64 / 1e6).encode(encoder.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn agents(&mut self, agents: &Agents) -> Result<(), std::fmt::Error> {
        let mut encoder = self.0.encode_descriptor(
            "router_agent_held",
            "1 while the router-agent keeps responses from the real clients",
            None,
            MetricType::Gauge,
        )?;
        for agent in agents.status() {
            let labels = [("agent", agent.address.as_str())];
            let held = f64::from(u8::from(agent.held));
            ConstGauge::new(held).encode(encoder.encode_family(&labels)?)?;
        }
        self.gauge(
            "unguarded",
            "1 while nobody vouches for it that responses are kept from real clients: no router-agent",
            f64::from(u8::from(agents.is_unguarded())),
        )
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> Result<(), std::fmt::Error> {
        let encoder = self
            .0
            .encode_descriptor(name, help, None, MetricType::Counter)?;
        ConstCounter::new(value).encode(encoder)
    }

    fn by_reason(
        &mut self,
        name: &str,
        help: &str,
        counts: &Counts,
    ) -> Result<(), std::fmt::Error> {
        let mut encoder = self
            .0
            .encode_descriptor(name, help, None, MetricType::Counter)?;
        for (reason, count) in counts {
            ConstCounter::new(*count).encode(encoder.encode_family(&[("reason", *reason)])?)?;
        }
        Ok(())
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) -> Result<(), std::fmt::Error> {
        let encoder = self
            .0
            .encode_descriptor(name, help, None, MetricType::Gauge)?;
        ConstGauge::new(value).encode(encoder)
    }
}

fn quantiles(
    encoder: &mut MetricEncoder<'_>,
    byte: &str,
    side: &str,
    values: &Percentiles,
) -> Result<(), std::fmt::Error> {
    for (quantile, micros) in values.quantiles() {
        let labels = [("byte", byte), ("side", side), ("quantile", quantile)];
        ConstGauge::new(micros as f64 / 1e6).encode(encoder.encode_family(&labels)?)?;
    }
    Ok(())
}
