//! What guards look at, as sums since the start.

use hdrhistogram::Histogram;
use millrace_engine::{AbortReason, Stats};

/// Turns that are decided: their answer began in time or did not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Turns {
    /// Those whose answer began in time.
    pub answered: u64,
    /// Those that waited for the first byte of it for longer than a fifth of the window, or in vain.
    pub overdue: u64,
}

impl Turns {
    /// All of them.
    pub const fn count(&self) -> u64 {
        self.answered + self.overdue
    }

    const fn since(&self, before: &Self) -> Self {
        Self {
            answered: self.answered.saturating_sub(before.answered),
            overdue: self.overdue.saturating_sub(before.overdue),
        }
    }
}

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
    /// Segments seen of the live server.
    pub live_segments: u64,
    /// Turns at the live server.
    pub live_turns: Turns,
    /// Turns at the target.
    pub target_turns: Turns,
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
            unanswered_connects: stats.slow_connects,
            ended: stats.replicas_completed + stats.replicas_aborted.total(),
            resets: stats.replicas_aborted.of(AbortReason::TargetReset),
            live_segments: stats.live_segments,
            live_turns: Turns {
                answered: stats.live_turns_answered,
                overdue: stats.live_turns_overdue,
            },
            target_turns: Turns {
                answered: stats.target_turns_answered,
                overdue: stats.target_turns_overdue,
            },
            live_latency: stats.live_latency.first_byte.clone(),
            target_latency: stats.target_latency.first_byte.clone(),
        }
    }

    /// What happened since `before`.
    pub(super) fn since(&self, before: &Self) -> Self {
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
            live_segments: self.live_segments.saturating_sub(before.live_segments),
            live_turns: self.live_turns.since(&before.live_turns),
            target_turns: self.target_turns.since(&before.target_turns),
            live_latency: difference(&self.live_latency, &before.live_latency),
            target_latency: difference(&self.target_latency, &before.target_latency),
        }
    }
}
