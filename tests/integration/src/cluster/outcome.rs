//! What a cluster scene amounted to.

use millrace_lab::cluster::Checked;
use millrace_lab::records::{Difference, RecordedStreams};
use serde_json::Value;

/// What a cluster scene amounted to.
pub struct ClusterOutcome {
    /// The reports of the copiers that ended in order.
    pub reports: Vec<Value>,
    /// What each live server recorded.
    pub live: Vec<RecordedStreams>,
    /// What each real server recorded.
    pub real: Vec<RecordedStreams>,
    /// What the health checks saw.
    pub checks: Vec<Checked>,
    /// Real servers that keepalived has taken out.
    pub taken_out: Vec<String>,
    /// What agents still divert a good while after the last copier, in their own words.
    pub still_diverted: Vec<String>,
    /// Responses where there may be none, by host.
    pub leaks: Vec<(String, u64)>,
    /// The first segments of them.
    pub leaked: Vec<String>,
}

impl ClusterOutcome {
    /// What all live servers recorded.
    pub fn all_live(&self) -> RecordedStreams {
        union(&self.live)
    }

    /// What all real servers recorded.
    pub fn all_real(&self) -> RecordedStreams {
        union(&self.real)
    }

    /// Streams of live server number `live` that no real server has.
    pub fn missing_of(&self, live: usize) -> Difference {
        let mut difference = self.live[live].compare(&self.all_real());
        // The other live servers' streams are no surprise.
        difference.extra = 0;
        difference
    }

    /// Everything was delivered, once, and nothing else.
    pub fn assert_exact(&self) {
        for report in &self.reports {
            assert_faithful(report);
        }
        let difference = self.difference();
        assert!(
            difference.is_none(),
            "live and real servers differ: {difference}\n{:#}",
            self.reports[0]
        );
        assert_eq!(self.still_diverted, [] as [String; 0]);
        assert!(!self.all_live().is_empty(), "nothing was recorded at all");
    }

    /// Where what the real servers recorded together differs from what the live servers did.
    pub fn difference(&self) -> Difference {
        self.all_live().compare(&self.all_real())
    }

    /// Nothing got out, and each copier delivered all that it took on.
    pub fn assert_delivered(&self) {
        self.assert_safe();
        for report in &self.reports {
            assert_eq!(report["fidelity"], 1.0, "{report:#}");
        }
    }

    /// No response got out, no health check failed, no real server was taken out.
    pub fn assert_safe(&self) {
        self.assert_no_leak();
        assert_eq!(self.taken_out, [] as [String; 0]);
        self.assert_checks();
    }

    /// No health check failed.
    pub fn assert_checks(&self) {
        for checked in &self.checks {
            assert!(checked.failed.is_empty(), "{checked:?}");
            assert!(checked.passed > 0, "{checked:?}");
        }
    }

    /// No response was seen where none may be.
    pub fn assert_no_leak(&self) {
        assert_eq!(self.leaks, [], "responses got out: {:?}", self.leaked);
    }

    /// Every real server has at least this share of the streams.
    pub fn assert_shares(&self, least: f64) {
        let all = self.all_real().len() as f64;
        let shares: Vec<f64> = self
            .real
            .iter()
            .map(|real| real.len() as f64 / all)
            .collect();
        assert!(shares.iter().all(|share| *share >= least), "{shares:?}");
    }
}

/// Whether a copier delivered all that it captured.
pub fn assert_faithful(report: &Value) {
    assert_eq!(report["fidelity"], 1.0, "{report:#}");
    assert_eq!(
        report["replicas"]["aborted"],
        serde_json::json!({}),
        "{report:#}"
    );
    assert_eq!(report["capture"]["dropped"], 0, "{report:#}");
    let (completed, captured) = (
        &report["replicas"]["completed"],
        &report["sessions"]["captured"],
    );
    assert_eq!(completed, captured, "{report:#}");
}

/// Whether a copier lost nothing but what the target itself ended: some sessions, all of them by a closed or refused
/// connection.
pub fn assert_ended_by_target(report: &Value) {
    let reasons = report["replicas"]["aborted"].as_object();
    let reasons: Vec<&str> = reasons.unwrap().keys().map(String::as_str).collect();
    let by_target = ["target_reset", "target_closed", "refused"];
    assert!(!reasons.is_empty(), "none was ended: {report:#}");
    assert!(
        reasons.iter().all(|reason| by_target.contains(reason)),
        "only by the target: {report:#}"
    );
    assert_eq!(report["capture"]["dropped"], 0, "{report:#}");
}

fn union(parts: &[RecordedStreams]) -> RecordedStreams {
    let mut all = RecordedStreams::default();
    for part in parts {
        all.extend(part);
    }
    all
}
