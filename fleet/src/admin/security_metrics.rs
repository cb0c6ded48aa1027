//! The metrics that every daemon has: its certificate, and who was not let in.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::tls::CertificateStatus;
use crate::transport::{HandshakeStatus, Handshakes, Security};

/// What is true at this moment.
#[derive(Debug)]
struct Snapshot {
    certificate: Option<CertificateStatus>,
    handshakes: Option<HandshakeStatus>,
}

/// A registry with the metrics as they are now.
pub(super) fn registry(security: Option<&Security>, handshakes: Option<&Handshakes>) -> Registry {
    let mut registry = Registry::with_prefix("millrace");
    registry.register_collector(Box::new(Snapshot {
        certificate: security.and_then(Security::certificate),
        handshakes: handshakes.map(Handshakes::status),
    }));
    registry
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        if let Some(certificate) = &self.certificate {
            let metric = encoder.encode_descriptor(
                "certificate_expiry_seconds",
                "Seconds until this daemon's certificate expires; negative afterwards",
                None,
                MetricType::Gauge,
            )?;
            ConstGauge::new(certificate.expires_in_seconds).encode(metric)?;
            for (name, help, value) in [
                (
                    "certificate_reloads",
                    "Changed certificate files taken into use",
                    certificate.reloads,
                ),
                (
                    "certificate_failed_reloads",
                    "Changed certificate files that could not be used",
                    certificate.failed_reloads,
                ),
            ] {
                let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
                ConstCounter::new(value).encode(metric)?;
            }
        }
        if let Some(handshakes) = &self.handshakes {
            let metric = encoder.encode_descriptor(
                "connections_accepted",
                "Connections of other daemons that were let in",
                None,
                MetricType::Counter,
            )?;
            ConstCounter::new(handshakes.accepted).encode(metric)?;
            let mut metric = encoder.encode_descriptor(
                "connections_refused",
                "Connections refused before any stream, by reason",
                None,
                MetricType::Counter,
            )?;
            for (reason, count) in &handshakes.refused {
                let labels = [("reason", *reason)];
                ConstCounter::new(*count).encode(metric.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}
