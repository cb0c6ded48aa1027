//! The report as the rest of the daemon sees it.

use std::sync::Arc;

use parking_lot::Mutex;

use super::Report;

/// What the rest of the daemon sees of the shard.
#[derive(Clone, Debug, Default)]
pub struct Shared(Arc<Mutex<Report>>);

impl Shared {
    /// The latest report.
    pub fn report(&self) -> Report {
        self.0.lock().clone()
    }

    /// Puts a newer one in its place.
    pub fn replace(&self, report: Report) {
        *self.0.lock() = report;
    }
}
