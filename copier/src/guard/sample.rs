//! What guards look at, as sums since the start.

use hdrhistogram::Histogram;
use millrace_engine::{AbortReason, Stats};

/// Sums since the start of a run.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Handshakes that the target completed.
    pub connected: u64,
    /// Handshakes that it refused.
    pub refused: u64,
    /// Handshakes whose first SYN went unanswered.
    pub unanswered_connects: u64,
    /// Replicas that ended, however they did.
    pub ended: u64,
    /// Of these, those that the target reset.
    pub resets: u64,
    /// Turns on the live side that ask for an answer, and those whose answer has begun.
    pub live_turns: (u64, u64),
    /// The same at the target.
    pub target_turns: (u64, u64),
    /// Times to the first byte of answers of the live server, in microseconds.
    pub live_latency: Histogram<u64>,
    /// The same of the target.
    pub target_latency: Histogram<u64>,
}

impl Sample {
    /// What an engine has counted.
    pub fn of(stats: &Stats) -> Self {
        Self {
            connected: stats.replicas_established,
            refused: stats.replicas_aborted.of(AbortReason::Refused),
            unanswered_connects: stats.connects_unanswered,
            ended: stats.replicas_completed + stats.replicas_aborted.total(),
            resets: stats.replicas_aborted.of(AbortReason::TargetReset),
            live_turns: (stats.live_turns, stats.live_turns_answered),
            target_turns: (stats.target_turns, stats.target_turns_answered),
            live_latency: stats.live_latency.first_byte.clone(),
            target_latency: stats.target_latency.first_byte.clone(),
        }
    }

    /// What happened since `before`.
    pub(super) fn since(&self, before: &Self) -> Self {
        let pair = |now: (u64, u64), before: (u64, u64)| {
            (
                now.0.saturating_sub(before.0),
                now.1.saturating_sub(before.1),
            )
        };
        let difference = |now: &Histogram<u64>, before: &Histogram<u64>| {
            let mut difference = now.clone();
            // Both are of one kind, and counts only grow, so that subtracting cannot fail.
            let _ = difference.subtract(before);
            difference
        };
        Self {
            connected: self.connected.saturating_sub(before.connected),
            refused: self.refused.saturating_sub(before.refused),
            unanswered_connects: self
                .unanswered_connects
                .saturating_sub(before.unanswered_connects),
            ended: self.ended.saturating_sub(before.ended),
            resets: self.resets.saturating_sub(before.resets),
            live_turns: pair(self.live_turns, before.live_turns),
            target_turns: pair(self.target_turns, before.target_turns),
            live_latency: difference(&self.live_latency, &before.live_latency),
            target_latency: difference(&self.target_latency, &before.target_latency),
        }
    }
}
