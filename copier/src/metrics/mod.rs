//! The report as Prometheus metrics: `millrace_copier_<what>_<unit>`.

mod table;

use std::collections::BTreeMap;

use millrace_channel::link::LinkStatus;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use serde_json::Value;

use table::{Kind, METRICS, Metric};

use crate::agents::Agents;
use crate::headline::{Cause, Monitor};
use crate::interceptors::Interceptors;
use crate::pods::ServicePods;
use crate::report::{Buckets, Report, Shared};
use millrace_replay::probe::ProbeState;

/// Collects from the latest report whenever it is asked.
#[derive(Debug)]
struct ReportCollector {
    shared: Shared,
    interceptors: Interceptors,
    agents: Agents,
    monitor: Monitor,
}

/// A registry with all metrics of the copier.
pub fn registry(
    shared: Shared,
    interceptors: Interceptors,
    agents: Agents,
    monitor: Monitor,
) -> Registry {
    let mut registry = Registry::with_prefix("millrace_copier");
    let collector = ReportCollector {
        shared,
        interceptors,
        agents,
        monitor,
    };
    registry.register_collector(Box::new(collector));
    registry
}

impl Collector for ReportCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let report = self.shared.report();
        let mut out = Output(&mut encoder);
        out.table(&report)?;
        out.derived(&report)?;
        out.targets(&report)?;
        out.latencies(&report)?;
        out.causes(self.monitor.headline(&report).cause)?;
        out.interceptors(&self.interceptors.status())?;
        out.pods(&self.monitor.pods())?;
        out.agents(&self.agents)
    }
}

struct Output<'a, 'b>(&'a mut DescriptorEncoder<'b>);

impl Output<'_, '_> {
    /// What the table names.
    fn table(&mut self, report: &Report) -> Result<(), std::fmt::Error> {
        let report = serde_json::to_value(report).map_err(|_| std::fmt::Error)?;
        for metric in METRICS {
            let Some(figure) = report.pointer(metric.path) else {
                continue;
            };
            match metric.kind {
                Kind::Counter => {
                    let kind = MetricType::Counter;
                    let encoder = self
                        .0
                        .encode_descriptor(metric.name, metric.help, None, kind)?;
                    ConstCounter::new(figure.as_u64().unwrap_or(0)).encode(encoder)?;
                }
                Kind::Gauge => {
                    self.gauge(metric.name, metric.help, figure.as_f64().unwrap_or(0.0))?
                }
                Kind::Reasons => self.by_reason(metric, figure)?,
            }
        }
        Ok(())
    }

    fn by_reason(&mut self, metric: &Metric, counts: &Value) -> Result<(), std::fmt::Error> {
        let kind = MetricType::Counter;
        let mut encoder = self
            .0
            .encode_descriptor(metric.name, metric.help, None, kind)?;
        for (reason, count) in counts.as_object().into_iter().flatten() {
            let labels = [("reason", reason.as_str())];
            let count = ConstCounter::new(count.as_u64().unwrap_or(0));
            count.encode(encoder.encode_family(&labels)?)?;
        }
        Ok(())
    }

    /// What follows from several figures.
    fn derived(&mut self, report: &Report) -> Result<(), std::fmt::Error> {
        let intensity = &report.intensity;
        self.gauge(
            "intensity_ratio",
            "Copied connections for each session that begins now",
            intensity.now * f64::from(intensity.factor),
        )?;
        self.gauge(
            "guards_broken",
            "Guards whose rule is broken",
            intensity.guards.iter().filter(|g| g.broken).count() as f64,
        )?;
        self.gauge(
            "lag_seconds",
            "How long captured packets wait",
            report.pressure.lag_ms / 1e3,
        )
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
            "How long answers take, by byte and side",
            None,
            MetricType::Histogram,
        )?;
        for (byte, sides) in [("first", first), ("last", last)] {
            for (side, values) in [("live", &sides.live), ("target", &sides.target)] {
                let labels = [("byte", byte), ("side", side)];
                histogram(encoder.encode_family(&labels)?, &values.buckets)?;
            }
        }
        let encoder = self.0.encode_descriptor(
            "turn_lag_seconds",
            "How much later turns are sent than clients send theirs, beyond what targets take longer",
            None,
            MetricType::Histogram,
        )?;
        histogram(encoder, &report.turn_lag.buckets)
    }

    /// All causes are there from the start, so that a rule can tell "no" from "not known".
    fn causes(&mut self, cause: Option<Cause>) -> Result<(), std::fmt::Error> {
        let mut encoder = self.0.encode_descriptor(
            "not_copying",
            "1 for what keeps the copier from copying",
            None,
            MetricType::Gauge,
        )?;
        for each in Cause::ALL {
            let labels = [("cause", each.name())];
            let is_it = f64::from(u8::from(cause == Some(each)));
            ConstGauge::new(is_it).encode(encoder.encode_family(&labels)?)?;
        }
        Ok(())
    }

    /// Several links to one interceptor are summed.
    fn interceptors(&mut self, links: &[LinkStatus]) -> Result<(), std::fmt::Error> {
        let mut interceptors = BTreeMap::new();
        for link in links {
            let (connected, copies) = interceptors.entry(&*link.address).or_insert((true, 0));
            *connected &= link.connected;
            *copies += link.copies_connected;
        }
        let mut encoder = self.0.encode_descriptor(
            "interceptor_connected",
            "1 while all links to the interceptor are open",
            None,
            MetricType::Gauge,
        )?;
        for (address, (connected, _)) in &interceptors {
            let connected = f64::from(u8::from(*connected));
            let labels = [("interceptor", *address)];
            ConstGauge::new(connected).encode(encoder.encode_family(&labels)?)?;
        }
        let mut encoder = self.0.encode_descriptor(
            "interceptor_copies_connected",
            "Copies whose target answered through the interceptor",
            None,
            MetricType::Counter,
        )?;
        for (address, (_, copies)) in interceptors {
            let labels = [("interceptor", address)];
            ConstCounter::new(copies).encode(encoder.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn pods(&mut self, services: &[ServicePods]) -> Result<(), std::fmt::Error> {
        let mut encoder = self.0.encode_descriptor(
            "live_pods",
            "Pods of this node that the live service is in, as far as they are known",
            None,
            MetricType::Gauge,
        )?;
        for service in services {
            let labels = [("service", service.service.as_str())];
            let pods = service.pods.len() as f64;
            ConstGauge::new(pods).encode(encoder.encode_family(&labels)?)?;
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

    fn gauge(&mut self, name: &str, help: &str, value: f64) -> Result<(), std::fmt::Error> {
        let encoder = self
            .0
            .encode_descriptor(name, help, None, MetricType::Gauge)?;
        ConstGauge::new(value).encode(encoder)
    }
}

fn histogram(mut encoder: MetricEncoder<'_>, values: &Buckets) -> Result<(), std::fmt::Error> {
    let buckets = values.in_seconds();
    encoder.encode_histogram::<NoLabelSet>(values.sum_seconds(), values.count(), &buckets, None)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Figures that are no metrics: of a replay alone, derived, or shown in another form.
    const NOT_IN_THE_TABLE: [&str; 6] = [
        "/duration_seconds",
        "/intensity",
        "/latency",
        "/turn_lag",
        "/pressure/lag_ms",
        "/targets",
    ];

    fn figures(at: &str, value: &Value, found: &mut BTreeSet<String>) {
        match value {
            // Counts by reason are empty before anything happened.
            Value::Object(fields) if !fields.is_empty() => {
                for (name, value) in fields {
                    figures(&format!("{at}/{name}"), value, found);
                }
            }
            Value::Object(_) | Value::Number(_) => {
                found.insert(at.to_owned());
            }
            Value::Null | Value::Bool(_) | Value::String(_) | Value::Array(_) => {}
        }
    }

    #[test]
    fn every_figure_of_the_report_is_a_metric_and_every_metric_a_figure() {
        let report = serde_json::to_value(Report::default()).unwrap();
        let mut found = BTreeSet::new();
        figures("", &report, &mut found);
        found.retain(|path| !NOT_IN_THE_TABLE.iter().any(|it| path.starts_with(it)));
        let named: BTreeSet<String> = METRICS.iter().map(|it| it.path.to_owned()).collect();
        assert_eq!(found, named);
        let names: BTreeSet<&str> = METRICS.iter().map(|it| it.name).collect();
        assert_eq!(names.len(), METRICS.len(), "a name that stands twice");
    }

    /// Metrics that are made from several figures, or are no figures of the report.
    const BESIDE_THE_TABLE: [&str; 10] = [
        "interceptor_connected",
        "interceptor_copies_connected_total",
        "live_pods",
        "not_copying",
        "intensity_ratio",
        "guards_broken",
        "lag_seconds",
        "target_open",
        "router_agent_held",
        "unguarded",
    ];

    #[test]
    fn the_documents_list_of_metrics_is_the_table() {
        let document = include_str!("../../../docs/metrics.md");
        let row = |metric: &Metric| {
            let (kind, end, label) = match metric.kind {
                Kind::Counter => ("counter", "_total", ""),
                Kind::Reasons => ("counter", "_total", "reason"),
                Kind::Gauge => ("gauge", "", ""),
            };
            let Metric { name, help, .. } = metric;
            format!("| `millrace_copier_{name}{end}` | {kind} | {label} | {help} |")
        };
        let table: Vec<String> = METRICS.iter().map(row).collect();
        let is_row = |line: &&str| {
            let kind = line.split(" | ").nth(1);
            line.starts_with("| `millrace_copier_") && matches!(kind, Some("counter" | "gauge"))
        };
        let rows = document.lines().filter(is_row);
        let is_beside = |line: &&str| {
            let mut names = BESIDE_THE_TABLE.iter();
            names.any(|name| line.starts_with(&format!("| `millrace_copier_{name}` | ")))
        };
        let listed: Vec<&str> = rows.filter(|line| !is_beside(line)).collect();
        assert_eq!(listed, table);
        for name in ["turn_latency_seconds", "turn_lag_seconds"] {
            assert!(document.contains(&format!("| `millrace_copier_{name}` | histogram | ")));
        }
    }
}
