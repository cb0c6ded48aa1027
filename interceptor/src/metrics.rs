//! The counters as Prometheus metrics: `millrace_interceptor_<what>_<unit>`.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::counters::Shared;

/// Collects from the latest counters whenever it is asked.
#[derive(Debug)]
struct CounterCollector(Shared);

/// A registry with all metrics of the interceptor.
pub fn registry(shared: Shared) -> Registry {
    let mut registry = Registry::with_prefix("millrace_interceptor");
    registry.register_collector(Box::new(CounterCollector(shared)));
    registry
}

impl Collector for CounterCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let c = self.0.get();
        for (name, help, value) in [
            ("captured_frames", "Frames captured", c.captured),
            (
                "capture_dropped_frames",
                "Frames that found the ring full",
                c.capture_dropped,
            ),
            (
                "ignored_frames",
                "Frames for this host itself, or sent by it",
                c.ignored,
            ),
            (
                "clients_own_frames",
                "Responses to copies that bear this host's own address: it is a client",
                c.clients_own,
            ),
            (
                "malformed_frames",
                "Frames with broken headers",
                c.malformed,
            ),
            ("returned_headers", "Response headers returned", c.returned),
            (
                "returned_late_headers",
                "Headers that waited for route info",
                c.returned_late,
            ),
            (
                "returned_payload_bytes",
                "Payload returned to flows that asked for it",
                c.returned_payload,
            ),
            (
                "dropped_headers",
                "Headers dropped: the copier read too slowly",
                c.dropped,
            ),
            (
                "unowned_headers",
                "Headers whose route info never came",
                c.unowned,
            ),
            (
                "over_limit_flows",
                "Flows not taken: too many announced (--max-flows)",
                c.flows_over_limit,
            ),
            (
                "flow_conflicts",
                "Flows announced by two copiers",
                c.flow_conflicts,
            ),
            ("claim_conflicts", "Claims refused", c.claim_conflicts),
        ] {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(value).encode(metric)?;
        }
        for (name, help, value) in [
            (
                "waiting_headers",
                "Headers that wait for route info",
                c.waiting,
            ),
            ("flows", "Flows announced by copiers", c.flows),
        ] {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value as f64).encode(metric)?;
        }
        Ok(())
    }
}
