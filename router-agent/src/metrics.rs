//! The agent's state as Prometheus metrics: `millrace_router_agent_<what>_<unit>`.

use millrace_channel::hold::server::HoldServer;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::status::Shared;

/// Collects from the latest state whenever it is asked.
#[derive(Debug)]
struct StatusCollector(Shared, HoldServer);

/// A registry with all metrics of the agent.
pub fn registry(shared: Shared, server: HoldServer) -> Registry {
    let mut registry = Registry::with_prefix("millrace_router_agent");
    registry.register_collector(Box::new(StatusCollector(shared, server)));
    registry
}

impl Collector for StatusCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let status = self.0.get();
        let server = self.1.status();
        let c = status.counters;
        for (name, help, value) in [
            ("held_needs", "Needs that were met", c.held),
            ("refused_needs", "Needs refused as dangerous", c.refused),
            (
                "failed_needs",
                "Needs that the kernel refused, or that could not be verified",
                c.failed,
            ),
            (
                "expired_leases",
                "Leases whose holder did not come back",
                c.expired,
            ),
            (
                "mended_changes",
                "Times that somebody else's change was put right",
                c.mended,
            ),
            (
                "ended_connections",
                "Connections ended before their rule was removed",
                c.connections_ended,
            ),
            ("kernel_changes", "Changes made", status.changes),
            (
                "stopped_packets",
                "Responses that the floor kept from clients, past the diverting rules",
                status.stopped.packets,
            ),
            (
                "stopped_errors",
                "ICMP errors about copied packets that the floor kept from clients",
                status.stopped.errors,
            ),
            ("streams_opened", "Hold streams opened", server.opened),
            (
                "streams_malformed",
                "Hold streams that broke the contract",
                server.malformed,
            ),
            (
                "streams_replaced",
                "Hold streams replaced by newer ones",
                server.replaced,
            ),
            (
                "streams_overloaded",
                "Hold streams beyond the limits",
                server.overloaded,
            ),
        ] {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(value).encode(metric)?;
        }
        for (name, help, value) in [
            ("leases", "Leases", status.leases.len()),
            ("diverted_rules", "Rules that divert", status.diverted.len()),
            (
                "leaving_connections",
                "Connections that hold up the removal of rules",
                status.leaving_connections,
            ),
            (
                "warnings",
                "Things to mend on this host",
                status.warnings.len(),
            ),
            (
                "trouble",
                "1 while what is no longer wanted cannot be removed",
                usize::from(status.trouble.is_some()),
            ),
            (
                "unsound",
                "1 while responses are not diverted as they should be",
                usize::from(status.unsound.is_some()),
            ),
        ] {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value as f64).encode(metric)?;
        }
        Ok(())
    }
}
