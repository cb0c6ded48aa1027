//! A hold as an operator sees it, and whether it is in force.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use millrace_proto::v1::hold_refused::Code;
use millrace_proto::v1::{DivertMode, Holding};

use crate::address::HostPort;
use crate::sync::lock;

/// The state of the hold at one agent. Counts are since the process started.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct HoldStatus {
    /// Where the agent is.
    pub address: String,
    /// Whether what was asked for is in force: held, or lost for less than half of the agent's
    /// grace time.
    pub held: bool,
    /// Whether the stream is open.
    pub connected: bool,
    /// The agent's name, once known.
    pub agent_id: String,
    /// How responses are diverted there: `sink`, `assistant` or `nfqueue`, once known.
    pub mode: &'static str,
    /// How long the agent keeps it after the stream has ended. Seconds.
    pub grace_seconds: u32,
    /// Route look-ups that confirmed it.
    pub verified: u32,
    /// What the agent says is to be mended on its host.
    pub warnings: Vec<String>,
    /// Attempts to connect.
    pub attempts: u64,
    /// Times that the agent refused.
    pub refused: u64,
    /// Why it is not held, or was last lost; empty if never.
    pub last_error: String,
}

/// In force as long as the stream is open.
const FOR_EVER: u64 = u64::MAX;

#[derive(Debug)]
pub(super) struct Tracker {
    origin: Instant,
    /// Until when what was asked for is in force: milliseconds since `origin`. Read on the copier's
    /// hot path.
    held_until: AtomicU64,
    /// When the agent last gave a sign of life: milliseconds since the origin.
    heard_at: AtomicU64,
    was_held: AtomicBool,
    attempts: AtomicU64,
    refused: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    connected: bool,
    holding: Holding,
    last_error: String,
}

impl Default for Tracker {
    fn default() -> Self {
        Tracker {
            origin: Instant::now(),
            held_until: AtomicU64::new(0),
            heard_at: AtomicU64::new(0),
            was_held: AtomicBool::new(false),
            attempts: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            state: Mutex::default(),
        }
    }
}

impl Tracker {
    pub(super) fn attempt(&self) {
        self.attempts.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn holding(&self, holding: Holding) {
        let mut state = lock(&self.state);
        state.connected = true;
        state.holding = holding;
        state.last_error.clear();
        self.heard();
        self.was_held.store(true, Ordering::Relaxed);
        self.held_until.store(FOR_EVER, Ordering::Relaxed);
    }

    pub(super) fn refused(&self, code: Code, reason: &str) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        // An agent that has no time for a request keeps what it had granted before.
        if code == Code::Overloaded {
            self.lost(reason);
        } else {
            self.held_until.store(0, Ordering::Relaxed);
            self.down(reason);
        }
    }

    /// The agent gave a sign of life.
    pub(super) fn heard(&self) {
        self.heard_at.store(self.now_ms(), Ordering::Relaxed);
    }

    /// The agent keeps everything for its grace time from when it noticed the loss, which may have
    /// been as early as its last sign of life; half of that time is left for what is still under
    /// way.
    pub(super) fn lost(&self, reason: &str) {
        if self.held_until.load(Ordering::Relaxed) == FOR_EVER {
            let grace = u64::from(lock(&self.state).holding.grace_seconds) * 1000;
            let heard = self.heard_at.load(Ordering::Relaxed);
            let until = heard.saturating_add(grace / 2).max(1);
            self.held_until.store(until, Ordering::Relaxed);
        }
        self.down(reason);
    }

    fn down(&self, reason: &str) {
        let mut state = lock(&self.state);
        state.connected = false;
        reason.clone_into(&mut state.last_error);
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(FOR_EVER - 1)
    }

    pub(super) fn has_lapsed(&self) -> bool {
        self.was_held.load(Ordering::Relaxed) && !self.is_held()
    }

    pub(super) fn is_held(&self) -> bool {
        match self.held_until.load(Ordering::Relaxed) {
            0 => false,
            FOR_EVER => true,
            until => self.now_ms() < until,
        }
    }

    /// How long the stream may stay away before what it held is not in force any more.
    #[cfg(test)]
    pub(super) fn left(&self) -> std::time::Duration {
        let until = self.held_until.load(Ordering::Relaxed);
        std::time::Duration::from_millis(until.saturating_sub(self.now_ms()))
    }

    pub(super) fn status(&self, address: &HostPort) -> HoldStatus {
        let held = self.is_held();
        let state = lock(&self.state);
        let holding = &state.holding;
        HoldStatus {
            address: address.to_string(),
            held,
            connected: state.connected,
            agent_id: holding.agent_id.clone(),
            mode: match holding.mode() {
                DivertMode::Unspecified => "",
                DivertMode::Sink => "sink",
                DivertMode::Assistant => "assistant",
                DivertMode::Nfqueue => "nfqueue",
            },
            grace_seconds: holding.grace_seconds,
            verified: holding.verified,
            warnings: holding.warnings.clone(),
            attempts: self.attempts.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            last_error: state.last_error.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn holding() -> Holding {
        Holding {
            grace_seconds: 60,
            ..Holding::default()
        }
    }

    #[test]
    fn a_lost_stream_is_in_force_for_half_of_the_grace_time() {
        let tracker = Tracker::default();
        assert!(!tracker.is_held());
        tracker.lost("cannot connect");
        assert!(!tracker.is_held(), "it was never held");
        assert!(!tracker.has_lapsed(), "it was never held");
        tracker.holding(holding());
        tracker.lost("gone");
        assert!(tracker.is_held());
        let left = tracker.left();
        assert!(left <= Duration::from_secs(30) && left > Duration::from_secs(20));
        // Attempts that fail do not prolong it.
        tracker.lost("still gone");
        assert!(tracker.left() <= left);
    }

    #[test]
    fn a_refusal_ends_it_at_once() {
        let tracker = Tracker::default();
        tracker.holding(holding());
        assert!(!tracker.has_lapsed());
        tracker.refused(Code::Overloaded, "busy");
        assert!(tracker.is_held(), "what was granted before stays");
        tracker.refused(Code::Dangerous, "dangerous");
        assert!(!tracker.is_held() && tracker.has_lapsed());
    }
}
