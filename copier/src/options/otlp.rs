//! Options of traces.

use std::path::PathBuf;

use millrace_engine::Intensity;

use crate::otlp::Clients;

/// Share of the sessions that is sampled, unless said otherwise.
const DEFAULT_SAMPLE: f64 = 0.01;

/// Where traces of sampled sessions go, and what they say.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Traces (OpenTelemetry)")]
pub struct OtlpOptions {
    /// Send a span for each turn of sampled sessions to this collector of OpenTelemetry (OTLP over gRPC):
    /// http://HOST:PORT or https://HOST:PORT; 4317 without a port. OTEL_ variables are not read.
    #[arg(long, value_name = "URL")]
    pub otlp_endpoint: Option<String>,

    /// The share of the sessions that is sampled, such as 0.1 or 10%; 0.01 by default. All turns of a session are,
    /// or none.
    #[arg(long, value_name = "SHARE", value_parser = sample)]
    pub otlp_sample: Option<Intensity>,

    /// What spans say of clients' addresses: nothing, a hash with a salt that only this run knows, or the address itself.
    /// Payload is never in a span.
    #[arg(long, value_name = "WHAT", value_enum)]
    pub otlp_clients: Option<Clients>,

    /// PEM file of the CAs that the collector's certificate comes from, for https.
    #[arg(long, value_name = "FILE")]
    pub otlp_ca: Option<PathBuf>,
}

impl OtlpOptions {
    /// The share of the sessions that is sampled.
    pub fn share(&self) -> Intensity {
        match self.otlp_endpoint {
            Some(_) => self
                .otlp_sample
                .unwrap_or_else(|| Intensity::from_ratio(DEFAULT_SAMPLE)),
            None => Intensity::ZERO,
        }
    }

    /// The first of the other options that means nothing without a collector.
    pub fn idle(&self) -> Option<&'static str> {
        let given = [
            (self.otlp_sample.is_some(), "--otlp-sample"),
            (self.otlp_clients.is_some(), "--otlp-clients"),
            (self.otlp_ca.is_some(), "--otlp-ca"),
        ];
        let found = given.into_iter().find(|(given, _)| *given);
        found.map(|(_, option)| option)
    }
}

fn sample(text: &str) -> Result<Intensity, String> {
    match text.parse::<Intensity>() {
        Ok(share) if share <= Intensity::ONE && share != Intensity::ZERO => Ok(share),
        Ok(_) | Err(_) => Err("a share above 0, up to 1, is wanted, such as 0.1 or 10%".into()),
    }
}
