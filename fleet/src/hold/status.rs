//! A hold as an operator sees it, and whether it is in force.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use millrace_proto::v1::hold_refused::Code;
use millrace_proto::v1::{DivertMode, Holding};

use crate::address::HostPort;
use crate::sync::lock;

/// The state of the hold at one agent. Counts are since the process started.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct HoldStatus {
    /// Where the agent is.
    pub address: String,
    /// Whether what was asked for is in force: held, with a sign of life from the agent less than
    /// half of its grace time ago.
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

/// While the stream is open the agent may be silent for as long as two pings take, however short its
/// grace time is: it notices a silent holder no sooner than 3 s, and then grants at least 1 s.
/// Milliseconds.
const SILENCE: u64 = 4000;

#[derive(Debug)]
pub(super) struct Tracker {
    origin: Instant,
    /// How long after the agent's last sign of life what was asked for is in force: milliseconds, 0
    /// if it is not. Read on the copier's hot path.
    lasts: AtomicU64,
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
            lasts: AtomicU64::new(0),
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

    /// It holds. That the stream is open is no proof that it still does: a copier that stood still
    /// for a while (a stopped process, a paused machine) finds it open though the agent has long
    /// ended it, and its lease with it.
    pub(super) fn holding(&self, holding: Holding, asked_at: Instant) {
        let mut state = lock(&self.state);
        let lasts = half_of_grace(&holding).max(SILENCE);
        state.connected = true;
        state.holding = holding;
        state.last_error.clear();
        self.heard(asked_at);
        self.lasts.store(lasts, Ordering::Relaxed);
        self.was_held.store(true, Ordering::Relaxed);
    }

    pub(super) fn refused(&self, code: Code, reason: &str) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        // An agent that has no time for a request keeps what it had granted before.
        if code == Code::Overloaded {
            self.lost(reason);
        } else {
            self.lasts.store(0, Ordering::Relaxed);
            self.down(reason);
        }
    }

    /// The agent gave a sign of life to what it was asked at this time. Its answer may have lain here
    /// unread since.
    pub(super) fn heard(&self, asked_at: Instant) {
        let at = ms(asked_at.saturating_duration_since(self.origin));
        self.heard_at.store(at, Ordering::Relaxed);
    }

    /// The agent keeps everything for its grace time from when it noticed the loss, which may have
    /// been as early as its last sign of life; half of that time is left for what is still under
    /// way.
    pub(super) fn lost(&self, reason: &str) {
        if self.lasts.load(Ordering::Relaxed) != 0 {
            let half = half_of_grace(&lock(&self.state).holding);
            self.lasts.store(half, Ordering::Relaxed);
        }
        self.down(reason);
    }

    fn down(&self, reason: &str) {
        let mut state = lock(&self.state);
        state.connected = false;
        reason.clone_into(&mut state.last_error);
    }

    pub(super) fn has_lapsed(&self, now: Instant) -> bool {
        self.was_held.load(Ordering::Relaxed) && !self.is_held(now)
    }

    pub(super) fn is_held(&self, now: Instant) -> bool {
        self.left(now) > 0
    }

    /// How much longer it is in force without a sign of life. Milliseconds.
    fn left(&self, now: Instant) -> u64 {
        let lasts = self.lasts.load(Ordering::Relaxed);
        let silent = ms(now.saturating_duration_since(self.origin))
            .saturating_sub(self.heard_at.load(Ordering::Relaxed));
        lasts.saturating_sub(silent)
    }

    pub(super) fn status(&self, address: &HostPort) -> HoldStatus {
        let held = self.is_held(Instant::now());
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

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn half_of_grace(holding: &Holding) -> u64 {
    u64::from(holding.grace_seconds) * 500
}

#[cfg(test)]
mod tests {
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
        assert!(!tracker.is_held(Instant::now()));
        tracker.lost("cannot connect");
        assert!(!tracker.is_held(Instant::now()), "it was never held");
        assert!(!tracker.has_lapsed(Instant::now()), "it was never held");
        tracker.holding(holding(), Instant::now());
        tracker.lost("gone");
        assert!(tracker.is_held(Instant::now()));
        let left = tracker.left(Instant::now());
        assert!(left <= 30_000 && left > 20_000);
        // Attempts that fail do not prolong it.
        tracker.lost("still gone");
        assert!(tracker.left(Instant::now()) <= left);
    }

    #[test]
    fn a_holder_that_stood_still_holds_nothing_until_it_hears_of_the_agent_again() {
        let mut tracker = Tracker::default();
        tracker.holding(holding(), Instant::now());
        let pass = |tracker: &mut Tracker, seconds| {
            let earlier = tracker.origin.checked_sub(Duration::from_secs(seconds));
            tracker.origin = earlier.unwrap();
        };
        pass(&mut tracker, 20);
        assert!(tracker.is_held(Instant::now()));
        pass(&mut tracker, 11);
        assert!(
            tracker.has_lapsed(Instant::now()),
            "its stream seems to be open"
        );
        // What was in flight when it stopped is old news.
        let stopped_at = Instant::now().checked_sub(Duration::from_secs(31));
        tracker.heard(stopped_at.unwrap());
        assert!(tracker.has_lapsed(Instant::now()));
        tracker.heard(Instant::now());
        assert!(tracker.is_held(Instant::now()) && !tracker.has_lapsed(Instant::now()));
        // A short grace time leaves time for pings.
        let grace_seconds = 1;
        let short = Holding {
            grace_seconds,
            ..Holding::default()
        };
        tracker.holding(short, Instant::now());
        pass(&mut tracker, 3);
        assert!(tracker.is_held(Instant::now()));
        tracker.lost("gone");
        assert!(!tracker.is_held(Instant::now()));
    }

    #[test]
    fn a_refusal_ends_it_at_once() {
        let tracker = Tracker::default();
        tracker.holding(holding(), Instant::now());
        assert!(!tracker.has_lapsed(Instant::now()));
        tracker.refused(Code::Overloaded, "busy");
        assert!(
            tracker.is_held(Instant::now()),
            "what was granted before stays"
        );
        tracker.refused(Code::Dangerous, "dangerous");
        assert!(!tracker.is_held(Instant::now()) && tracker.has_lapsed(Instant::now()));
    }
}
