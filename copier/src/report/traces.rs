//! What became of the spans of sampled sessions.

use millrace_engine::Stats;
use serde::Serialize;

/// Spans, of turns and of replicas.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Traces {
    /// Taken by the collector.
    pub exported: u64,
    /// Not sent: too many waited, or the copier ended first.
    pub dropped: u64,
    /// Sent, and refused by the collector.
    pub rejected: u64,
    /// Of those dropped, what the engine had no room for.
    #[serde(skip)]
    untold: u64,
}

impl Traces {
    pub(super) const fn of(stats: &Stats) -> Self {
        Self {
            exported: 0,
            dropped: stats.untold,
            rejected: 0,
            untold: stats.untold,
        }
    }

    /// Takes how many the exporter has sent, dropped, and had refused.
    pub const fn note(&mut self, exported: u64, dropped: u64, rejected: u64) {
        *self = Self {
            exported,
            dropped: dropped + self.untold,
            rejected,
            ..*self
        };
    }
}
