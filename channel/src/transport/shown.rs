//! What the admin port shows of the way to other daemons: the certificate, and who was not let in.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use millrace_daemon::admin::Section;
use serde_json::{Value, json};

use super::{HandshakeStatus, Handshakes, Security};
use crate::tls::CertificateStatus;

/// `certificate` in /status (null with `--insecure`), and `millrace_certificate_*` in /metrics.
impl Section for Security {
    fn status(&self) -> Option<(&'static str, Value)> {
        Some(("certificate", json!(self.certificate())))
    }

    fn register(&self, registry: &mut Registry) {
        if let Some(certificate) = self.certificate() {
            registry.register_collector(Box::new(certificate));
        }
    }
}

/// Connections that were let in, and those refused before any stream: `millrace_connections_*` in /metrics.
impl Section for Handshakes {
    fn register(&self, registry: &mut Registry) {
        registry.register_collector(Box::new(self.status()));
    }
}

impl Collector for CertificateStatus {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let metric = encoder.encode_descriptor(
            "certificate_expiry_seconds",
            "Seconds until this daemon's certificate expires; negative afterwards",
            None,
            MetricType::Gauge,
        )?;
        ConstGauge::new(self.expires_in_seconds).encode(metric)?;
        for (name, help, value) in [
            (
                "certificate_reloads",
                "Changed certificate files taken into use",
                self.reloads,
            ),
            (
                "certificate_failed_reloads",
                "Changed certificate files that could not be used",
                self.failed_reloads,
            ),
        ] {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(value).encode(metric)?;
        }
        Ok(())
    }
}

impl Collector for HandshakeStatus {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let metric = encoder.encode_descriptor(
            "connections_accepted",
            "Connections of other daemons that were let in",
            None,
            MetricType::Counter,
        )?;
        ConstCounter::new(self.accepted).encode(metric)?;
        let mut metric = encoder.encode_descriptor(
            "connections_refused",
            "Connections refused before any stream, by reason",
            None,
            MetricType::Counter,
        )?;
        for (reason, count) in &self.refused {
            let labels = [("reason", *reason)];
            ConstCounter::new(*count).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
