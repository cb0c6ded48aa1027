//! The copier's report, as its JSON has it.

use std::path::Path;

use millrace_lab::{Error, Result};
use serde_json::Value;

/// A report; what it lacks reads as nothing.
#[derive(Debug, Default)]
pub(crate) struct Report(Value);

impl Report {
    /// Out of the answer of `/status`.
    pub(crate) fn in_status(status: &Value) -> Self {
        Self(status.get("report").cloned().unwrap_or_default())
    }

    /// Out of the file that the copier leaves.
    pub(crate) fn load(file: &Path) -> Result<Self> {
        let what = || format!("the copier's report {}", file.display());
        let text = std::fs::read_to_string(file).map_err(|source| Error::Io {
            what: what(),
            source,
        })?;
        let report = serde_json::from_str(&text).map_err(|error| Error::Malformed {
            what: what(),
            detail: error.to_string(),
        })?;
        Ok(Self(report))
    }

    pub(crate) fn sessions(&self) -> u64 {
        self.number("/sessions/captured").unwrap_or_default()
    }

    pub(crate) fn captured(&self) -> u64 {
        self.number("/bytes/captured").unwrap_or_default()
    }

    pub(crate) fn delivered(&self) -> u64 {
        self.number("/bytes/delivered").unwrap_or_default()
    }

    /// Delivered of what should have been, 0 to 1.
    pub(crate) fn fidelity(&self) -> Option<f64> {
        self.0.get("fidelity").and_then(Value::as_f64)
    }

    /// The number at a JSON pointer (RFC 6901).
    pub(crate) fn number(&self, pointer: &str) -> Option<u64> {
        self.0.pointer(pointer).and_then(Value::as_u64)
    }

    /// A percentile in microseconds, which may be written as any number.
    pub(crate) fn latency(&self, byte: &str, side: &str, percentile: &str) -> Option<f64> {
        self.0
            .pointer(&format!("/latency/{byte}/{side}/{percentile}"))
            .and_then(Value::as_f64)
    }

    /// A percentile of how far copies were behind, in microseconds.
    pub(crate) fn lag(&self, percentile: &str) -> Option<f64> {
        self.0
            .pointer(&format!("/turn_lag/{percentile}"))
            .and_then(Value::as_f64)
    }

    /// The counts by reason at a JSON pointer, but for those that are 0.
    pub(crate) fn counts(&self, pointer: &str) -> Vec<(String, u64)> {
        let reasons = self.0.pointer(pointer).and_then(Value::as_object);
        let counts = reasons.into_iter().flatten();
        counts
            .filter_map(|(reason, count)| Some((reason.clone(), count.as_u64()?)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_and_what_it_lacks_is_nothing() {
        let text = r#"{"report":{"sessions":{"captured":7},"replicas":{"aborted":{"refused":2,"timeout":0}},
            "bytes":{"captured":10,"delivered":9},"fidelity":0.9,
            "latency":{"first_byte":{"live":{"p50":120.5}}},"turn_lag":{"p99":7}}}"#;
        let report = Report::in_status(&serde_json::from_str(text).unwrap());
        assert_eq!(
            (report.sessions(), report.captured(), report.delivered()),
            (7, 10, 9)
        );
        assert_eq!(report.fidelity(), Some(0.9));
        assert_eq!(report.latency("first_byte", "live", "p50"), Some(120.5));
        assert_eq!(report.latency("last_byte", "live", "p50"), None);
        assert_eq!(report.lag("p99"), Some(7.0));
        assert_eq!(
            report.counts("/replicas/aborted"),
            [("refused".to_owned(), 2)]
        );
    }
}
