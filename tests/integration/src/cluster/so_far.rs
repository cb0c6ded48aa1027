//! What a cluster scene amounts to while it goes on.

use std::time::Duration;

use millrace_lab::wait_for;

use super::{ClusterOutcome, ClusterScene};

impl ClusterScene {
    /// What was recorded and counted so far, once all loads have ended: as soon as `expected` holds of it, or after
    /// `limit`, when whoever demands it will fail. (An application records a connection a moment after its end.)
    /// Reports are those of the copiers that run, in the order of their starts; checks are those that have ended.
    pub fn so_far(
        &self,
        limit: Duration,
        expected: impl Fn(&ClusterOutcome) -> bool,
    ) -> ClusterOutcome {
        self.settle(limit);
        let mut outcome = self.snapshot();
        // In vain is an answer too.
        drop(wait_for("all connections to be recorded", limit, || {
            let done = expected(&outcome);
            if !done {
                std::thread::sleep(Duration::from_millis(500));
                outcome = self.snapshot();
            }
            done
        }));
        outcome
    }

    fn snapshot(&self) -> ClusterOutcome {
        let copiers = self.copiers.iter();
        ClusterOutcome {
            reports: copiers
                .map(|copier| copier.status(&self.cluster)["report"].take())
                .collect(),
            live: self
                .live_recorders
                .iter()
                .map(|recorder| recorder.records().unwrap().without_empty())
                .collect(),
            real: self.real.iter().map(|real| real.all_recorded()).collect(),
            checks: self.checked.clone(),
            taken_out: self.cluster.director.taken_out(),
            still_diverted: Vec::new(),
            leaks: self.cluster.leaks.seen().unwrap(),
            leaked: self.cluster.leaks.segments().unwrap(),
        }
    }
}
